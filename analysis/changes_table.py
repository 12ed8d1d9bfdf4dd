"""Is a change of noise taken for a change of information? Pairs of checkpoints of equal true information.

    python analysis/changes_table.py [--pairs 200] [--out docs/tables/changes.csv]        about 2 minutes on one core

Two checkpoints read the same labels (40 documents of 60 tokens, 400 Zipf labels, d = 48, m = 50). The signal of the
second one is set so that its true information, computed from many rows, equals the first one's. `marked` is how often
lower end, point and upper end all move the same way with p < 0.05; `plug_in_marked` how often the plug-in alone would.
Expected: at most 0.05 for noise of another geometry, with and without information; nearly 1 for a true change; and, as
the known limit, nearly 1 too where the same information moves from frequent labels to rare ones.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.stats import t as student

from infocomp.estimators import SoftInformation
from infocomp.estimators.interface import Estimate
from infocomp.estimators.planted import PlantedLaw, constant
from infocomp.studies.changes import change
from infocomp.units import bits

DOCUMENTS, TOKENS, ROWS = 40, 60, 128
ENDS = ("value", "lower", "point", "upper")
BASE = PlantedLaw("base", constant(0.6), vocabulary=400, dim=48, bins=50)
OTHER = (6, 2.5, 0.3)


def equal(first: PlantedLaw, other: Callable[[float], PlantedLaw]) -> PlantedLaw:
    """The other law at the strength where its true information is the first one's."""
    wanted = first.truth(ROWS)
    strength = brentq(lambda s: other(s).truth(ROWS) - wanted, 0.02, 3.0, xtol=1e-3)
    return other(float(strength))  # pyright: ignore[reportArgumentType]


def cases() -> dict[str, Callable[[], tuple[PlantedLaw, PlantedLaw]]]:
    """Pairs of laws, made when asked for."""
    nothing = replace(BASE, signal=constant(0.0))

    def stretched(s: float) -> PlantedLaw:
        return replace(BASE, signal=constant(s), stretch=OTHER)

    def rare(s: float) -> PlantedLaw:
        return replace(BASE, signal=lambda ranks: s * np.sqrt(ranks))

    return {
        "another geometry, no information": lambda: (nothing, replace(nothing, stretch=OTHER)),
        "another geometry, information": lambda: (BASE, equal(BASE, stretched)),
        "a true change": lambda: (BASE, replace(BASE, signal=constant(0.8))),
        "information moves to rare labels (known limit)": lambda: (BASE, equal(BASE, rare)),
    }


def read(law: PlantedLaw, seed: int, noise_seed: int) -> Estimate:
    """One checkpoint: labels of `seed`, noise of its own."""
    _, labels, document = law.sample(DOCUMENTS, TOKENS, seed)
    generator = torch.Generator().manual_seed(noise_seed)
    rows = torch.randn(len(labels), law.dim, generator=generator) * law.scales + law.directions[labels]
    state = SoftInformation(law.dim, anchors=law.anchors)
    state.update(rows, {"label": labels}, document)
    return next(one for one in state.estimate() if one.quantity == "complexity" and one.draw == "mean")


def table(pairs: int, only: str | None = None) -> pd.DataFrame:
    """One row a case, or that one alone."""
    lines = []
    for name, make in cases().items():
        if only not in (None, name):
            continue
        first, second = make()
        found = []
        for seed in range(pairs):
            one, other = read(first, seed, 10_000 + 2 * seed), read(second, seed, 10_001 + 2 * seed)
            numbers = [{end: getattr(of, end) for end in ENDS} for of in (one, other)]
            assert one.influence is not None and other.influence is not None
            found.append(change(numbers[0], numbers[1], one.influence, other.influence))
        p_plug_in = [2 * student.sf(abs(f["value_change"]) / f["value_error"], DOCUMENTS - 1) for f in found]
        line: dict[str, object] = {"case": name, "pairs": pairs}
        line |= {"truth_first": bits(first.truth(ROWS)), "truth_second": bits(second.truth(ROWS))}
        line |= {f"{end}_change": np.mean([f[f"{end}_change"] for f in found]) for end in ENDS}
        line |= {
            "marked": np.mean([f["p"] < 0.05 for f in found]),
            "plug_in_marked": np.mean(np.array(p_plug_in) < 0.05),
        }
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    """Parse, compute, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/changes.csv"))
    asked = parser.parse_args()
    found = table(asked.pairs)
    print(found.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(asked.out, index=False, float_format="%.4f")
    print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
