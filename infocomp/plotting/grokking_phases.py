"""The phase diagram: train fraction × width, the delay from memorization to generalization as colour, regimes as signs.

A cell is a setting over its seeds: its sign is the regime (`SIGNS`; "unclear" where evaluations lie too far apart to
tell), its colour and number the mean delay in steps, on a logarithmic scale. A cell is hatched where by the last step
at least one of its seeds had not generalized: it has no mean delay, hence no colour, but "> n" (the least that the mean
can be) with how many seeds generalized, or "not by n" (the last step) where not even that is known, as where a seed
never memorized.
This delay is about steps of one training; the double descent over data / capacity is another matter.
"""

import re
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from infocomp.plotting import style
from infocomp.plotting.grokking_selection import DELAY, OVER_SEEDS, grokking_rows
from infocomp.plotting.placement import FONT_SIZE
from infocomp.plotting.selection import NothingToDraw

SIGNS = {"under capacity": "x", "memorizes only": "s", "grokking": "o", "immediate": "^", "collapses": "v"}
SIGNS |= {"unclear": "$?$"}
REASONS = {"unclear": ": evaluated too rarely to tell", "collapses": ": generalized and fell back"}
OTHER = "D"
MOST_TICKS = 7
LEFT_OUT = "0.93"
HATCH = "////"
COLOURS = style.clipped("viridis", 0.25, 0.98)
CELL = 0.62  # inches
_COLUMNS = ["family", "model", "corpus", "train_fraction", "width", "regime", "value", "low", "high", "lower"]
_COLUMNS += ["seeds", "dated", "generalized", "steps", "message"]


def grokking_phases(table: pd.DataFrame, family: str | None = None) -> Figure:
    """The phase diagram of a family (the only one by default); NothingToDraw says what the table lacks."""
    return draw_grokking_phases(grokking_phases_rows(table, family))


def grokking_phases_rows(table: pd.DataFrame, family: str | None = None) -> pd.DataFrame:
    """What `grokking_phases` draws: one row a cell. A family is an operation and a model but for width and fraction."""
    cells = _cells(table)
    found = families(cells)
    if family is None and len(found) > 1:
        raise NothingToDraw(f"the table holds {len(found)} families ({', '.join(found)}); name one with family=…")
    cells = cells[cells["family"] == (found[0] if family is None and found else family)]
    cells = cells.drop_duplicates(["train_fraction", "width"])
    if min(cells["train_fraction"].nunique(), cells["width"].nunique()) < 2:
        raise NothingToDraw("a phase diagram needs the delay over seeds at two train fractions of two widths")
    cells = cells.rename(columns={"ci_low": "low", "ci_high": "high"})
    return cells.sort_values(["width", "train_fraction"])[_COLUMNS].reset_index(drop=True)


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    rows = grokking_rows(table)
    wanted = (rows["quantity"] == DELAY) & (rows["label"] == OVER_SEEDS) & ~rows["control"]
    cells = rows[wanted & rows["train_fraction"].notna() & rows["width"].notna()]
    named = [
        f"{_without_width(str(model))}, {re.sub(r',? *[0-9.]+ *%$', '', str(corpus))}"
        for model, corpus in zip(cells["model"], cells["corpus"], strict=True)
    ]
    return cells.assign(family=named)


def _without_width(model: str) -> str:
    """ "transformer 1x128 wd 2" as "transformer wd 2", "quadratic_mlp 256 wd 1" as "quadratic_mlp wd 1"."""
    return re.sub(r" (\d+x)?\d+(?= wd|$)", "", model, count=1)


def families(cells: pd.DataFrame) -> list[str]:
    """The families among cells, or in a table, in order of appearance; none of a table without them."""
    try:
        found = cells if "family" in cells else _cells(cells)
    except NothingToDraw:
        return []
    return [str(name) for name in found["family"].unique()]


def draw_grokking_phases(cells: pd.DataFrame) -> Figure:
    """The figure of `grokking_phases_rows`."""
    with style.styled():
        fractions = sorted(float(value) for value in cells["train_fraction"].unique())
        widths = sorted(float(value) for value in cells["width"].unique())
        wide = min(style.PAGE, max(style.COLUMN + 0.9, 1.9 + CELL * len(fractions)))
        legend, note = _legend(cells), footnote(cells, round(18 * wide))
        below = 0.15 * (note.count("\n") + 1 + len(legend) / 2)
        figure = style.new_figure(wide, 1.4 + below + max(0.8, CELL * 0.8) * len(widths))
        ax = figure.add_subplot()
        colours = _colours(cells)
        for _, cell in cells.iterrows():
            place = fractions.index(float(cell["train_fraction"])), widths.index(float(cell["width"]))
            _draw_cell(ax, cell, place, colours)
        ax.set(xlim=(-0.5, len(fractions) - 0.5), ylim=(-0.5, len(widths) - 0.5))
        ax.set_xticks(range(len(fractions)), [f"{fraction:g}" for fraction in fractions])
        ax.set_yticks(range(len(widths)), [f"{width:g}" for width in widths])
        ax.tick_params(length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.set_xlabel("train fraction, ratio of all inputs")
        ax.set_ylabel("width, hidden units")
        ax.set_title(str(cells["family"].iloc[0]))
        if colours is not None:
            bar = figure.colorbar(colours, ax=ax, aspect=25, pad=0.02)
            known = cells["value"].dropna()
            ticks = delay_ticks(float(known.min()), float(known.max()))
            bar.set_ticks(ticks, labels=[style.step_text(float(f"{tick:.3g}")) for tick in ticks])
            bar.ax.minorticks_off()
            bar.set_label("mean delay to generalization, steps, as log(steps + 1)")
        style.legend_below(figure, legend, note)
        style.settle(figure)
    return figure


def _colours(cells: pd.DataFrame) -> ScalarMappable | None:
    known = cells["value"].dropna()
    return ScalarMappable(style.step_norm(list(known)), COLOURS) if len(known) else None


def delay_ticks(low: float, high: float) -> list[float]:
    """0 and 1, 2, 5 of each decade between two delays; powers of ten where those are many, the ends where few."""
    for digits in ((1, 2, 5), (1,)):
        rounds = [0.0, *(digit * 10.0**power for power in range(10) for digit in digits)]
        ticks = [tick for tick in rounds if low <= tick <= high]
        if len(ticks) <= MOST_TICKS:
            break
    ticks = [ticks[place] for place in style.thin(len(ticks), MOST_TICKS)]
    return ticks if len(ticks) > 1 else sorted({low, high})


def _draw_cell(ax: Axes, cell: pd.Series, place: tuple[int, int], colours: ScalarMappable | None) -> None:
    """Colour, or hatching where there is no delay; the regime's sign above the number."""
    x, y = place
    gid = f"{cell['train_fraction']:g}|{cell['width']:g}"
    dated = bool(np.isfinite(cell["value"]))
    shade = colours.to_rgba(np.array([cell["value"]]))[0] if dated and colours is not None else to_rgba(LEFT_OUT)
    red, green, blue, _ = colour = tuple(float(part) for part in shade)
    look: dict[str, Any] = {"lw": 1.0, "edgecolor": "white" if dated else "0.72", "facecolor": colour}
    look |= {} if dated else {"hatch": HATCH, "lw": 0.0}
    ax.add_patch(Rectangle((x - 0.485, y - 0.485), 0.97, 0.97, gid=f"{gid}|cell", **look))
    ink = "white" if dated and 0.299 * red + 0.587 * green + 0.114 * blue < 0.4 else style.INK
    ax.plot([x], [y + 0.17], gid=f"{gid}|{cell['regime']}", color=ink, **_mark(str(cell["regime"])))
    text = _number(cell)
    behind = {} if dated else {"bbox": {"facecolor": LEFT_OUT, "edgecolor": "none", "pad": 0.6}}
    ax.text(x, y - 0.2, text, ha="center", va="center", fontsize=FONT_SIZE, color=ink, gid=f"{gid}|number", **behind)


def _mark(regime: str) -> dict[str, Any]:
    sign = SIGNS.get(regime, OTHER)
    return {"marker": sign, "ms": 5.5 if sign == "$?$" else 5, "mew": 1.2 if sign == "x" else 0, "ls": ""}


def _number(cell: pd.Series) -> str:
    """The mean delay, or beyond what it lies and how many seeds generalized, or the last step."""
    if np.isfinite(cell["value"]):
        return delay_text(cell["value"])
    if np.isfinite(cell["lower"]):
        reached = cell["generalized"] if np.isfinite(cell["generalized"]) else cell["dated"]
        some = f"\n{reached:.0f} of {cell['seeds']:.0f}" if np.isfinite([reached, cell["seeds"]]).all() else ""
        return f"> {delay_text(cell['lower'])}{some}"
    return f"not by\n{delay_text(cell['steps'])}" if np.isfinite(cell["steps"]) else "none"


def delay_text(steps: float) -> str:
    """Steps in few characters: 6.6, 372, 1,940, 2k, 35.1k."""
    if steps >= 10_000 or (steps >= 1000 and steps % 1000 == 0):
        return style.step_text(float(f"{steps:.3g}"))
    return f"{steps:,.0f}" if steps >= 10 else f"{steps:.2g}"


def _legend(cells: pd.DataFrame) -> list[Artist]:
    handles: list[Artist] = []
    for regime in SIGNS:
        if (cells["regime"] == regime).any():
            label = f"{regime}{REASONS.get(regime, '')}"
            handles.append(Line2D([], [], label=label, color=style.INK, **_mark(regime)))
    others = sorted({str(name) for name in cells["regime"]} - set(SIGNS))
    if others:
        names = ", ".join(name or "no regime told" for name in others)
        handles.append(Line2D([], [], label=names, color=style.INK, **_mark("")))
    if cells["value"].isna().any():
        look: dict[str, Any] = {"facecolor": LEFT_OUT, "edgecolor": "0.72", "hatch": HATCH, "lw": 0}
        handles.append(Patch(label="hatched: not every seed generalized", **look))
    return handles


def footnote(cells: pd.DataFrame, wide: int = 118) -> str:
    """What the numbers are and over how many seeds."""
    seeds = sorted(cells["seeds"].dropna().unique())
    over = f" of {seeds[0]:g} seeds" if len(seeds) == 1 else ""
    said = f"Numbers: mean delay{over}, in steps."
    if cells["value"].isna().any():
        said += (
            " Hatched: by the last step at least one seed had not generalized, so that there is no mean; > is the "
            "least that the mean can be, with how many seeds generalized below it, and “not by” the last step where "
            "not even that is known."
        )
    return "\n".join(textwrap.wrap(said, wide))
