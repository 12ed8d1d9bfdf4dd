"""Geometry that looks like compression: what a constant vector and an outlier direction do to the estimate.

    python analysis/constant_vector.py [--rows 50000] [--out docs]

Rows are z = noise + 0.6·μ_label, d = 512, with 5,000 labels whose frequencies fall as 1/rank. Nothing about the labels
changes while (a) one constant vector or (b) one direction times a Gaussian number of each row's own, independent of the
labels, is added to the rows. Sizes are in units of √d, the norm of the noise. Prints and writes
OUT/tables/constant_vector.csv (efficiency units: information over log m, m = 100, mean of 5 anchor draws; `null_rows`
is what permuted labels read), and draws OUT/figures/constant_vector.png. Half a minute on one core.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from torch import Tensor

from infocomp.estimators import SoftInformation
from infocomp.estimators.moments import RowMoments
from infocomp.plotting.style import CATEGORIES, GREY, LINES, MARKERS, PAGE, legend_below, new_figure, styled

SIZES = (0.0, 1.0, 3.0, 10.0)
VARIANTS = ("raw", "centred", "outliers_removed")
CASES = {"constant": "one constant vector added", "outlier": "one outlier direction added"}
NAMES = {"raw": "raw rows", "centred": "centred", "outliers_removed": "3 outlier directions removed"}
PILOT = 20_000
BATCH = 4096


def planted(rows: int, dim: int, labels: int, strength: float, seed: int) -> tuple[Tensor, np.ndarray]:
    """Rows [rows, dim] with a Gaussian mean for each label, and the labels, of frequencies proportional to 1/rank."""
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, labels + 1)
    ids = generator.choice(labels, rows, p=share / share.sum())
    means = generator.standard_normal((labels, dim), dtype=np.float32)
    noise = generator.standard_normal((rows, dim), dtype=np.float32)
    return torch.from_numpy(noise + np.float32(strength) * means[ids]), ids


def added(case: str, size: float, z: Tensor, seed: int) -> Tensor:
    """What is added to the rows: the same vector to each, or a Gaussian multiple of one direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(z.shape[1], generator=generator)
    direction = direction / direction.norm() * size * z.shape[1] ** 0.5
    if case == "constant":
        return direction.expand_as(z)
    return torch.randn(len(z), 1, generator=generator) * direction


def measured(z: Tensor, ids: np.ndarray, variant: str, bins: int, draws: int, outliers: int) -> dict[str, float]:
    """Entropy, information, its row null and its ceiling, in efficiency units, of one variant of the rows."""
    pilot = RowMoments(z.shape[1], with_scatter=variant == "outliers_removed")
    pilot.update(z[:PILOT])
    soft = SoftInformation(
        z.shape[1],
        bins=bins,
        draws=draws,
        centre=None if variant == "raw" else pilot.mean,
        directions=pilot.directions(outliers) if variant == "outliers_removed" else None,
    )
    for begin in range(0, len(z), BATCH):
        soft.update(z[begin : begin + BATCH], {"token": ids[begin : begin + BATCH]})
    found = {estimate.quantity: estimate for estimate in soft.estimate() if estimate.draw == "mean"}
    information, most = found["complexity"], float(np.log2(bins))
    assert information.value is not None and information.null_rows is not None and information.ceiling is not None
    return {
        "entropy": found["entropy"].efficiency or 0.0,
        "information": information.value / most,
        "null_rows": information.null_rows / most,
        "ceiling": information.ceiling / most,
        "share_of_ceiling": information.value / information.ceiling,
    }


def table_of(
    rows: int = 50_000,
    dim: int = 512,
    labels: int = 5000,
    strength: float = 0.6,
    sizes: tuple[float, ...] = SIZES,
    bins: int = 100,
    draws: int = 5,
    outliers: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Every case, size and variant, one a row."""
    z, ids = planted(rows, dim, labels, strength, seed)
    found = []
    for case in CASES:
        for size in sizes:
            moved = z + added(case, size, z, seed)
            for variant in VARIANTS:
                numbers = measured(moved, ids, variant, bins, draws, outliers)
                found.append({"case": case, "size": size, "rows": variant, **numbers})
    return pd.DataFrame(found)


def drawn(table: pd.DataFrame) -> Figure:
    """Information on top, its share of the ceiling below; the constant on the left, the outlier on the right."""
    with styled():
        figure = new_figure(PAGE, 3.7)
        axes = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, (case, title) in enumerate(CASES.items()):
            axes[0, column].set_title(title)
            for number, variant in enumerate(VARIANTS):
                own = table[(table["case"] == case) & (table["rows"] == variant)]
                look = {"color": CATEGORIES[number], "marker": MARKERS[number], "ms": 4.5 - number, "mfc": "none"}
                axes[0, column].plot(own["size"], own["information"], ls=list(LINES.values())[number], **look)
                axes[1, column].plot(own["size"], own["share_of_ceiling"], ls=list(LINES.values())[number], **look)
            raw = table[(table["case"] == case) & (table["rows"] == "raw")]
            axes[0, column].plot(raw["size"], raw["null_rows"], color=GREY, lw=0.8)
            axes[1, column].plot(raw["size"], raw["null_rows"] / raw["ceiling"], color=GREY, lw=0.8)
            axes[1, column].set_xlabel("size of what is added, in norms of the noise")
            axes[1, column].set_xscale("symlog", linthresh=1)
            axes[1, column].xaxis.set_major_locator(FixedLocator(sorted(table["size"].unique())))
            axes[1, column].xaxis.set_minor_locator(NullLocator())
            axes[1, column].set_xticklabels([f"{size:g}" for size in sorted(table["size"].unique())])
        axes[0, 0].set_ylabel("I(X; J) / log m")
        axes[1, 0].set_ylabel("I(X; J) / its ceiling")
        for ax in axes.flat:
            ax.set_ylim(bottom=0)
        handles = [
            Line2D(
                [], [], color=CATEGORIES[number], marker=MARKERS[number], mfc="none", ms=4.5 - number, ls=ls, label=name
            )
            for number, (name, ls) in enumerate(zip(NAMES.values(), LINES.values(), strict=False))
        ]
        legend_below(figure, [*handles, Line2D([], [], color=GREY, lw=0.8, label="raw, labels permuted")])
    return figure


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    table = table_of(asked.rows)
    print(table.round(4).to_string(index=False))
    for folder in ("tables", "figures"):
        (asked.out / folder).mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.out / "tables" / "constant_vector.csv", index=False, float_format="%.6f", lineterminator="\n")
    with styled():
        drawn(table).savefig(asked.out / "figures" / "constant_vector.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
