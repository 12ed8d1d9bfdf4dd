"""Do the estimators order layers and checkpoints alike? Rank correlations of each with the soft point estimate.

    infocomp run configs/also.yaml --out runs/also
    python analysis/estimator_agreement.py runs/also [--out docs/tables/estimator_agreement.csv]

For every estimator in the table (and for the soft one's own plug-in and both ends): Spearman's correlation over the
sites of one checkpoint, averaged over checkpoints, and over the checkpoints of one site, averaged over sites. Intervals
are 95 % percentile intervals over resampled checkpoints or sites. Estimators that see more than the direction of a
state need not agree with the soft one; how far they do is the result.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import infocomp

RESAMPLES = 2000
OWN = ("value", "lower", "upper")


def values(table: pd.DataFrame, quantity: str, label: str) -> dict[str, pd.DataFrame]:
    """For each estimator a table [site, step] of its values, less its null where an estimator has no point estimate."""
    rows = table[(table["quantity"] == quantity) & (table["label"] == label) & (table["draw"] == "mean")]
    rows = rows[(rows["rows"] == "raw") & (rows["weighting"] == "frequency") & (rows["status"] == "ok")]
    rows = rows[rows["step"].notna() & rows["site"].str.startswith(("hook", "blocks", "ln"))]
    soft = rows[rows["estimator"] == "soft"]
    found = {"soft, point": soft.pivot_table(index="site", columns="step", values="point")}
    for name in OWN:
        found[f"soft, {'plug-in' if name == 'value' else name + ' end'}"] = soft.pivot_table(
            index="site", columns="step", values=name
        )
    for name, own in rows[rows["estimator"] != "soft"].groupby("estimator"):
        found[str(name)] = own.pivot_table(index="site", columns="step", values="value")
        if own["null"].notna().all():
            above = own.assign(above=own["value"] - own["null"])
            found[f"{name}, above null"] = above.pivot_table(index="site", columns="step", values="above")
    return found


def correlations(one: pd.DataFrame, other: pd.DataFrame, over: str) -> np.ndarray:
    """Over sites: one correlation a step; over steps: one a site. Where a side is constant there is none."""
    sites, steps = one.index.intersection(other.index), one.columns.intersection(other.columns)
    a, b = one.loc[sites, steps].to_numpy(), other.loc[sites, steps].to_numpy()
    if over == "checkpoints":
        a, b = a.T, b.T
    found = []
    for left, right in zip(a.T, b.T, strict=True):
        known = np.isfinite(left) & np.isfinite(right)
        if known.sum() >= 4 and np.ptp(left[known]) > 0 and np.ptp(right[known]) > 0:
            found.append(float(spearmanr(left[known], right[known]).statistic))
    return np.array(found)


def agreement(table: pd.DataFrame, quantities: list[str], label: str) -> pd.DataFrame:
    """One row for each quantity, estimator and kind of order, with mean correlation and interval."""
    rng, lines = np.random.default_rng(0), []
    for quantity in quantities:
        tables = values(table, quantity, label)
        base = tables.pop("soft, point")
        for name, other in tables.items():
            for over in ("layers", "checkpoints"):
                found = correlations(base, other, over)
                if not len(found):
                    continue
                drawn = found[rng.integers(0, len(found), (RESAMPLES, len(found)))].mean(axis=1)
                low, high = np.percentile(drawn, [2.5, 97.5])
                line = {"quantity": quantity, "estimator": name, "order of": over, "correlation": found.mean()}
                lines.append(line | {"low": low, "high": high, "n": len(found)})
    return pd.DataFrame(lines)


def main() -> None:
    """Parse, read, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--label", default="token")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/estimator_agreement.csv"))
    asked = parser.parse_args()
    found = agreement(infocomp.read(asked.run), ["complexity", "expressivity"], asked.label)
    if found.empty:
        raise SystemExit(f"{asked.run} has fewer than four sites and checkpoints to put in order")
    print(found.to_string(index=False, float_format=lambda value: f"{value:.2f}"))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(asked.out, index=False, float_format="%.4f")
    print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
