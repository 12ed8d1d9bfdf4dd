"""Do the published phases of addition modulo 113 lie inside the range of own seeds, widened by 25 %?

    infocomp run configs/grokking_nanda.yaml --out runs/nanda
    python analysis/published_phases.py runs/nanda [--out docs/tables/published_phases.csv]

Published by eye (Nanda et al. 2023, arXiv 2301.05217, figure 7): memorization to step 1,400, circuit formation to
9,400, cleanup to 14,000. Here each end is a rule, stated as a column: memorization ends where excluded loss on the
training pairs is least, circuit formation where the test loss has come down to half its greatest value for good,
cleanup where the test loss passes 0.01 nats. The rules are ours, and were chosen after seeing our own curves.
Exits with 1 where a published end lies outside.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from infocomp import read

PUBLISHED = {"memorization": 1_400, "circuit formation": 9_400, "cleanup": 14_000}
RULES = {
    "memorization": "least excluded loss on training pairs",
    "circuit formation": "test loss at half its greatest value, for good",
    "cleanup": "test loss at 0.01 nats",
}
WIDENED = 0.25


def ends(run: pd.DataFrame) -> dict[str, float | None]:
    """The end of each phase in one run; None where it was not reached."""
    excluded = run[(run["quantity"] == "excluded_loss") & (run["status"] == "ok")].sort_values("step")
    loss = run[(run["quantity"] == "loss") & (run["rows"] == "test") & (run["label"] == "")].sort_values("step")
    steps, values = loss["step"].to_numpy(float), loss["value"].to_numpy()
    low = np.flatnonzero(values >= 0.5 * values.max())[-1]
    crossing = run[(run["quantity"] == "generalization_step") & (run["estimator"] == "threshold")]
    crossing = crossing[crossing["label"] == "loss"]["value"].dropna()
    return {
        "memorization": _least(excluded["step"].to_numpy(float), excluded["value"].to_numpy()),
        "circuit formation": float(steps[low]) if low < len(steps) - 1 else None,
        "cleanup": float(crossing.iloc[0]) if len(crossing) else None,
    }


def _least(steps: np.ndarray, values: np.ndarray) -> float | None:
    """Step of the least value: of the parabola in log step through it and its neighbours; states are far apart."""
    if not len(steps):
        return None
    at = int(values.argmin())
    if not 0 < at < len(steps) - 1 or steps[at - 1] <= 0:
        return float(steps[at])
    square, slope, _ = np.polyfit(np.log(steps[at - 1 : at + 2]), values[at - 1 : at + 2], 2)
    return float(np.exp(-slope / (2 * square)))


def phases(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each phase: published end, own range over seeds, widened, and whether the former lies within."""
    runs = {seed: ends(own) for seed, own in table[table["seed"].notna()].groupby("seed")}
    rows = []
    for phase, published in PUBLISHED.items():
        found = [one[phase] for one in runs.values() if one[phase] is not None]
        row = {"phase": phase, "rule": RULES[phase], "published_end": published}
        row |= {"seeds": len(runs), "reached": len(found)}
        if found:
            low, high = min(found) * (1 - WIDENED), max(found) * (1 + WIDENED)
            row |= {"least": min(found), "greatest": max(found), "inside": low <= published <= high}
        rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    found = phases(read(options.run))
    print(found.to_string(index=False))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        found.to_csv(options.out, index=False)
    return 0 if "inside" in found and bool(found["inside"].fillna(False).all()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
