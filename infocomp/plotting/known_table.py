"""Estimators on laws whose information is known: what each reads beside the truth, one panel a law.

The table has one row for each law, estimator and number of rows, all in bits (see `analysis/known_table.py`): `law`,
`kind` ("pair" or "labels"), `estimator`, `n`, `truth` (of what this estimator aims at), `information` (I(X; Z) itself),
`mean` and `sd` over seeds.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from infocomp.plotting import style

COLUMNS = 5
_LINE = 0.105  # inches of height for one estimator and n


def draw_known(table: pd.DataFrame) -> Figure:
    """One panel a law: a mark at the mean and a bar of one sd over seeds for every n, a line at the truth."""
    sizes = sorted(table["n"].unique())
    bands = []
    for _, part in table.groupby("kind", sort=False):
        laws = list(part["law"].unique())
        rows = [laws[start : start + COLUMNS] for start in range(0, len(laws), COLUMNS)]
        bands += [(row, list(part["estimator"].unique())) for row in rows]
    heights = [_LINE * (len(sizes) * len(estimators)) + 0.1 for _, estimators in bands]
    with style.styled():
        figure = style.new_figure(style.PAGE, sum(heights) + 0.72 * len(bands) + 0.5)
        grid = figure.add_gridspec(len(bands), COLUMNS, height_ratios=heights)
        for band, (laws, estimators) in enumerate(bands):
            for place, law in enumerate(laws):
                ax = figure.add_subplot(grid[band, place])
                _panel(ax, table[table["law"] == law], estimators, sizes)
                ax.set_title(str(law).replace(", ", "\n", 1), fontsize=7)
                ax.set_yticks(range(len(estimators)), labels=estimators if place == 0 else [])
                if band == len(bands) - 1 or place >= len(bands[band + 1][0]):
                    ax.set_xlabel("bits")
        style.legend_below(figure, _legend(sizes))
        style.settle(figure)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, estimators: list[str], sizes: list[int]) -> None:
    information = float(rows["information"].iloc[0])
    low, high = _range(rows, information)
    ax.set_xlim(low, high)
    ax.set_ylim(len(estimators) - 0.45, -0.55)
    ax.axvline(information, color=style.INK, lw=0.9, zorder=1)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    for place, estimator in enumerate(estimators):
        own = rows[rows["estimator"] == estimator]
        for turn, n in enumerate(sizes):
            reading = own.loc[own["n"] == n, ["mean", "sd"]].to_numpy(dtype=float)
            if not len(reading):
                continue
            mean, spread = reading[0]
            colour = style.CATEGORIES[turn % len(style.CATEGORIES)]
            y = place + (turn - (len(sizes) - 1) / 2) * 0.36
            if mean > high:
                ax.annotate(
                    f"{mean:.0f}",
                    (high, y),
                    (-11, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=6,
                    color=colour,
                    arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 0},
                )
                continue
            fill = "white" if turn < len(sizes) - 1 else colour
            look = {"marker": style.MARKERS[turn], "ms": 3.2, "mew": 0.8, "mfc": fill, "elinewidth": 0.8}
            ax.errorbar(mean, y, xerr=spread, color=colour, ls="", zorder=3, **look)
        for truth in set(own["truth"].astype(float)) - {information}:
            ax.plot([truth, truth], [place - 0.45, place + 0.45], color=style.CEILING, lw=1.3, zorder=2)


def _range(rows: pd.DataFrame, information: float) -> tuple[float, float]:
    """Truth and all estimates with their bars, a fifth of a bit at least; what is beyond three times the truth is not
    shown but named at the edge.
    """
    shown = rows[rows["mean"] <= max(3 * information, 2.0)]
    ends = np.r_[information, shown["truth"], shown["mean"] - shown["sd"], shown["mean"] + shown["sd"]]
    middle, width = float(ends.max() + ends.min()) / 2, max(float(np.ptp(ends)), 0.2)
    return middle - 0.58 * width, middle + 0.58 * width


def _legend(sizes: list[int]) -> list[Line2D]:
    handles = [Line2D([], [], color=style.INK, lw=0.9, label="true I(X; Z)")]
    handles.append(Line2D([], [], color=style.CEILING, lw=1.3, label="true I(X; J), where it differs"))
    for turn, n in enumerate(sizes):
        colour = style.CATEGORIES[turn % len(style.CATEGORIES)]
        fill = "white" if turn < len(sizes) - 1 else colour
        mark = {"marker": style.MARKERS[turn], "ms": 3.2, "mfc": fill, "ls": ""}
        handles.append(Line2D([], [], color=colour, label=f"n = {n}: mean ± sd over seeds", **mark))
    return handles
