"""Do layers keep their order over training? Rank correlation of each checkpoint's layer profile with the last one's.

    python analysis/layer_order.py runs/demo [--quantity complexity] [--label token]

Reads the merged table and prints one line a checkpoint: revision, correlation over the blocks, number of blocks. The
null beside it is the same correlation for profiles of the null-corrected values.
"""

import argparse

from scipy.stats import spearmanr

import infocomp


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--quantity", default="complexity")
    parser.add_argument("--label", default="token")
    asked = parser.parse_args()
    table = infocomp.read(asked.out)
    chosen = table[
        (table["draw"] == "mean")
        & (table["quantity"] == asked.quantity)
        & (table["label"] == asked.label)
        & table["layer"].notna()
        & (table["rows"] == "raw")
        & (table["status"] == "ok")
    ].sort_values(["stage", "step", "layer"])
    if chosen.empty:
        raise SystemExit(f"{asked.out} has no {asked.quantity} of {asked.label} at any block")
    plain = chosen.pivot_table(index="step", columns="layer", values="value")
    above = chosen.assign(value=chosen["value"] - chosen["null"]).pivot_table(
        index="step", columns="layer", values="value"
    )
    print("step  raw  above its null  blocks")
    for step in plain.index:
        raw = spearmanr(plain.loc[step], plain.iloc[-1]).statistic
        corrected = spearmanr(above.loc[step], above.iloc[-1]).statistic if step in above.index else float("nan")
        print(f"{step:>5} {raw:5.2f} {corrected:8.2f} {plain.shape[1]:>12}")


if __name__ == "__main__":
    main()
