"""Do the intervals cover? Simulated corpora with dependent tokens, and laws whose signal hangs on the label's rank.

    python analysis/coverage_table.py [--corpora 200] [--out docs/tables/coverage.csv]     about 4 minutes on one core

For each law 200 corpora of 64 documents × 64 tokens (topics and repeated words within a document), or 100 × 100
without. Columns: how often the nominal 95 % interval of plug-in, point, lower and upper end covers that number's own
mean over the corpora, and how often the outer interval (lower limit of the lower end to upper limit of the upper end)
covers the true information; mean standard error over the true spread; and the percentile bootstrap of documents, which
duplicates rows and must fail. Expected: 90 to 98 % for the ends (a little more where a number is mostly noise: there
the jackknife counts its second-order part twice), at least 95 % for the outer interval, 0 for the bootstrap. The point
estimate's own bias stands in planted.csv; here is how often it lies between the ends.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from planted_table import estimate

from infocomp.estimators import SoftInformation
from infocomp.estimators.numbers import quantile
from infocomp.estimators.planted import PlantedLaw, constant, falling, rising
from infocomp.units import bits

ENDS = {"value": "std_error", "point": "point_error", "lower": "lower_error", "upper": "upper_error"}
RESAMPLES = 60


def laws() -> Iterator[tuple[PlantedLaw, int, int]]:
    """Laws with documents and tokens in each."""
    for s in (0.0, 0.3, 0.6, 1.0):
        yield PlantedLaw(f"bursty topics, s = {s:g}", constant(s), topic=0.5, burstiness=0.3), 64, 64
    yield PlantedLaw("strong topics, s = 0.6", constant(0.6), topic=1.0), 64, 64
    yield PlantedLaw("rare labels tell more", rising), 100, 100
    yield PlantedLaw("frequent labels tell more", falling), 100, 100


def coverage(law: PlantedLaw, documents: int, tokens: int, corpora: int, resampled: int) -> dict[str, object]:
    """One row of the table; bits. `resampled` corpora are bootstrapped, the control."""
    truth = bits(law.truth())
    found = [estimate(law, documents, tokens, seed) for seed in range(corpora)]
    line: dict[str, object] = {"law": law.name, "documents": documents, "tokens": tokens, "corpora": corpora}
    line |= {"truth_bits": truth}
    width = quantile(documents)
    for name, error in ENDS.items():
        values = np.array([getattr(one, name) for one in found], dtype=float)
        errors = np.array([getattr(one, error) for one in found], dtype=float)
        line |= {
            f"{name}_mean": values.mean(),
            f"{name}_covered": (abs(values - values.mean()) <= width * errors).mean(),
        }
        line[f"{name}_error_over_sd"] = errors.mean() / values.std(ddof=1)
    outer = [one.interval[0] <= truth <= one.interval[1] for one in found if one.interval]
    inside = [one.lower <= one.point <= one.upper for one in found]  # pyright: ignore
    line |= {"outer_covers_truth": np.mean(outer), "point_between_ends": np.mean(inside)}
    mean = float(np.mean([one.value for one in found]))  # pyright: ignore
    line["bootstrap_covers_mean"] = np.mean(
        [_bootstrap_covers(law, documents, tokens, seed, mean) for seed in range(resampled)]
    )
    return line


def _bootstrap_covers(law: PlantedLaw, documents: int, tokens: int, seed: int, mean: float) -> bool:
    """Whether the 95 % percentile interval over resampled documents holds the plug-in's mean over corpora."""
    rows, labels, document = law.sample(documents, tokens, seed)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, documents, documents)
        picked = (drawn[:, None] * tokens + np.arange(tokens)).ravel()
        state = SoftInformation(law.dim, anchors=law.anchors)
        state.update(rows[picked], {"label": labels[picked]}, document)
        values.append(next(one.value for one in state.estimate() if one.quantity == "complexity"))
    low, high = np.percentile(values, [2.5, 97.5])
    return bool(low <= mean <= high)


def main() -> None:
    """Parse, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--resampled", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/coverage.csv"))
    asked = parser.parse_args()
    lines = []
    for law, documents, tokens in laws():
        lines.append(coverage(law, documents, tokens, asked.corpora, asked.resampled))
        print("  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in lines[-1].values()), flush=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).to_csv(asked.out, index=False, float_format="%.4f")
    print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
