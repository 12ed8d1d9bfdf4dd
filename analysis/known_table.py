"""Every estimator on laws whose information is known: bias, spread and interval width over n.

    python analysis/known_table.py [--seeds 5] [--out docs]        about 3 minutes on one core

Writes OUT/tables/known.csv (one row a law, estimator and n, in bits) and OUT/figures/known.{png,pdf,csv}. `bias` is
against `truth`, what this estimator aims at: I(X; Z), or I(X; J) of the soft bin. The k-means code knows at most
I(X; Z), InfoNCE is a lower bound, the Gaussian value is exact for Gaussian pairs only, and matrix-based Rényi is
another quantity: for these, bias includes what they leave out. `covered` is the share of intervals around the truth.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from infocomp.estimators.interface import Estimate
from infocomp.estimators.known import Known, all_known
from infocomp.estimators.others import OTHER_ESTIMATORS, PAIR_ESTIMATORS
from infocomp.estimators.soft_information import SoftInformation
from infocomp.estimators.sphere import SoftAssigner, draw_anchors, exact_temperature
from infocomp.plotting import style
from infocomp.plotting.known_table import draw_known
from infocomp.units import bits

SIZES = (400, 2000)
CODES = 16  # bins of the k-means codes: one a label in the law of 16 codes
# name in the registry, quantity → name in the table
SHOWN = {
    ("ksg", "information"): "KSG",
    ("gaussian_pair", "information"): "Gaussian",
    ("gaussian_pair", "information_corrected"): "Gaussian, corrected",
    ("kmeans", "complexity"): "k-means",
    ("kmeans", "complexity_miller_madow"): "k-means, corrected",
    ("ross", "complexity"): "Ross",
    ("infonce", "complexity"): "InfoNCE",
    ("gaussian", "complexity"): "Gaussian",
    ("gaussian", "complexity_corrected"): "Gaussian, corrected",
    ("renyi", "complexity"): "matrix Rényi",
    ("soft", "complexity"): "soft bin J",
}


def soft_truth(law: Known) -> float | None:
    """I(X; J) in bits where it is known: 0, or that of the anchors themselves under draw 0; else None."""
    if law.truth == 0:
        return 0.0
    if not law.name.startswith("codes"):
        return None
    dim, labels = law.sample(2, 0)[1].shape[1], round(np.exp(law.truth))
    anchors = draw_anchors(dim, 100, 1, 0)
    assigned = SoftAssigner(anchors, exact_temperature(dim, 100), None)(anchors[0, :labels].float())[0][:, 0].double()
    marginal = torch.special.entr(assigned.mean(dim=0)).sum()
    return bits(float(marginal - torch.special.entr(assigned).sum(dim=1).mean()))


def readings(law: Known, n: int, seed: int) -> Iterator[tuple[str, Estimate, float]]:
    """Name, estimate and the truth that it aims at, for every estimator that fits the law."""
    x, z, documents = law.sample(n, seed)
    rows = torch.from_numpy(z)
    if law.kind == "pair":
        for name, pair in PAIR_ESTIMATORS.items():
            state = pair(dim=x.shape[1], seed=seed)
            state.update(torch.from_numpy(x), rows, documents)
            yield from ((SHOWN[name, one.quantity], one, law.truth_bits) for one in state.estimate())
        return
    for name, estimator in OTHER_ESTIMATORS.items():
        more = {"bins": CODES} if name == "kmeans" else {}
        single = estimator(dim=z.shape[1], seed=seed, **more)
        single.update(rows, {"x": x}, documents)
        yield from ((SHOWN[name, one.quantity], one, law.truth_bits) for one in single.estimate())
    truth = soft_truth(law)
    if truth is not None:
        soft = SoftInformation(z.shape[1], draws=1, seed=0)
        soft.update(rows, {"x": x}, documents)
        found = next(one for one in soft.estimate() if one.quantity == "complexity" and one.draw == "mean")
        yield SHOWN["soft", "complexity"], found, truth


def summary(law: Known, n: int, seeds: int) -> list[dict]:
    """One row an estimator: means over seeds in bits."""
    gathered: dict[str, list[tuple[Estimate, float]]] = {}
    for seed in range(seeds):
        for name, estimate, truth in readings(law, n, seed):
            gathered.setdefault(name, []).append((estimate, truth))
    rows = []
    for name, found in gathered.items():
        truth = found[0][1]
        about = {"law": law.name, "kind": law.kind, "estimator": name, "n": n, "seeds": seeds}
        values = np.array([one.value for one, _ in found if one.value is not None])
        intervals = np.array([one.interval for one, _ in found if one.interval is not None]).reshape(-1, 2)
        nulls = [one.null for one, _ in found if one.null is not None]
        inside = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
        rows.append(
            about
            | {"information": law.truth_bits, "truth": truth, "mean": values.mean(), "bias": values.mean() - truth}
            | {"sd": values.std(ddof=1), "interval_width": np.ptp(intervals, axis=1).mean() if len(intervals) else None}
            | {"covered": inside.mean() if len(intervals) else None, "null": np.mean(nulls) if nulls else None}
        )
    return rows


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    if asked.seeds < 2:
        raise SystemExit(f"--seeds must be at least 2 for a spread over seeds, got {asked.seeds}.")
    begun = time.perf_counter()
    rows = [row for law in all_known() for n in SIZES for row in summary(law, n, asked.seeds)]
    table = pd.DataFrame(rows)
    (asked.out / "tables").mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.out / "tables" / "known.csv", index=False, float_format="%.4f", lineterminator="\n")
    style.save(draw_known(table), asked.out / "figures", "known", table.round(4))
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
