"""Fragility of extraction: what is still emitted when some tokens of the prompt are changed, and what is lost.

Left the share of rows emitted whole and of tokens emitted, at 0 changed tokens the unchanged prompt; right how much of
both is lost, paired row by row with the unchanged prompt. Bars are the intervals in the table.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from infocomp.plotting import style
from infocomp.plotting.coding_selection import at_last, in_training, setting
from infocomp.plotting.coding_style import with_interval
from infocomp.plotting.memorization_selection import (
    DROP,
    EXTRACTION,
    in_order,
    memorization_rows,
    of_one_text,
)
from infocomp.plotting.memorization_style import error_bars, interval_handle, looks
from infocomp.plotting.selection import NothingToDraw, short_names

NAMES = {EXTRACTION[0]: "emitted whole", EXTRACTION[1]: "tokens emitted"}
STROKES = {EXTRACTION[0]: "-", EXTRACTION[1]: "--"}
FULL = ", full matches"
SHIFT = 2.4  # points between bars of one place
_COLUMNS = [
    "text",
    "in_training",
    "model",
    "revision",
    "step",
    "quantity",
    "of",
    "label",
    "kind",
    "changed",
    "value",
    "low",
]
_COLUMNS += ["high", "interval"]


def fragility(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Extraction from changed prompts of a text; NothingToDraw says what the table lacks."""
    return draw_fragility(fragility_rows(table, corpus))


def fragility_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `fragility` draws, at the last checkpoint of each model that has it: one row a point, 0 tokens too."""
    rows = memorization_rows(table)
    rows = rows[rows["quantity"].isin([*EXTRACTION, DROP]) & ~rows["random"] & rows["load"].isna()]
    moved = rows[rows["changed"].notna()]
    moved = at_last(of_one_text(moved, corpus, "texts")) if len(moved) else moved
    if moved.empty:
        raise NothingToDraw(
            "fragility needs extraction rows with the number of changed prompt tokens in their settings"
        )
    whole = moved["label"].str.endswith(FULL) | (moved["quantity"] == EXTRACTION[0])
    moved = moved.assign(
        kind=[str(setting(text, "kind") or "changed") for text in moved["settings"]],
        of=whole.map({True: EXTRACTION[0], False: EXTRACTION[1]}),
    )
    points = with_interval(moved)
    points = pd.concat([points, _unchanged(points, rows[rows["changed"].isna()])], ignore_index=True)
    return in_order(points, "quantity", "of", "kind", "changed")[_COLUMNS].reset_index(drop=True)


def _unchanged(moved: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame:
    """The unchanged prompt of the same rows: the table's where it counts as many tokens, else by the paired drop.

    The drop is unchanged minus changed on the rows that were changed, often some of all, so that a changed value and
    its drop add up to the unchanged one exactly; that has no interval of its own.
    """
    found = []
    for (_model, _kind, of), own in moved.groupby(["model", "kind", "of"], sort=False):
        left, drop = own[own["quantity"] == of], own[own["quantity"] == DROP]
        if left.empty:
            continue
        first = left.sort_values("changed").iloc[0]
        same = (plain["model"] == first["model"]) & (plain["revision"] == first["revision"])
        same &= (plain["text"] == first["text"]) & (plain["quantity"] == of)
        same &= plain["label"] == re.sub(r", \d+ of prompt changed.*", "", str(first["label"]))
        start = with_interval(plain[same & ((plain["n_tokens"] == first["n_tokens"]) | np.isnan(first["n_tokens"]))])
        lost = drop.loc[drop["changed"] == first["changed"], "value"]
        if len(start):
            found.append(start.iloc[[0]].assign(kind=first["kind"], of=str(of), changed=0.0))
        elif len(lost):
            ends = {"low": np.nan, "high": np.nan, "interval": ""}
            found.append(first.to_frame().T.assign(changed=0.0, value=first["value"] + lost.iloc[0], **ends))
    return (
        pd.concat(found).astype({"value": float, "changed": float, "low": float, "high": float}) if found else moved[:0]
    )


def draw_fragility(points: pd.DataFrame) -> Figure:
    """The figure of `fragility_rows`."""
    with style.styled():
        panels = [points[points["quantity"].isin(EXTRACTION)], points[points["quantity"] == DROP]]
        panels = [own for own in panels if len(own)]
        figure = style.new_figure(style.PAGE if len(panels) > 1 else 0.7 * style.PAGE, 3.2)
        axes = list(figure.subplots(1, len(panels), squeeze=False).flat)
        lines = list(points.groupby(["model", "kind"], sort=False).groups)
        shown = dict(zip(lines, looks([str(line) for line in lines]).values(), strict=True))
        for ax, own in zip(axes, panels, strict=True):
            paths = own.sort_values("of", kind="stable").groupby(["model", "kind", "of"], sort=False)
            for place, ((model, kind, of), path) in enumerate(paths):
                gid = f"{model}|{kind}|{of}" + ("|drop" if own is panels[-1] and len(panels) > 1 else "")
                _draw(ax, path, str(of), shown[model, kind], gid, SHIFT * (place - (len(paths) - 1) / 2))
            _axes(ax, own, float(points["changed"].max()))
        axes[0].set_title(f"{points['text'].iloc[0]}; in the training data: {in_training(points)}")
        style.legend_below(figure, _legend(points, shown))
        style.settle(figure)
    return figure


def _draw(ax: Axes, path: pd.DataFrame, of: str, look: dict[str, Any], gid: str, aside: float) -> None:
    """One line with its bars, so many points (of 1/72 inch) to the right: bars at one place stay apart."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    shifted = ax.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
    path = path.sort_values("changed", kind="stable")
    hollow: dict[str, Any] = {"mfc": "white", "mew": 0.7} if of == EXTRACTION[1] else {"mew": 0}
    ax.plot(
        path["changed"], path["value"], ls=STROKES[of], ms=3.4, zorder=3, gid=gid, transform=shifted, **look, **hollow
    )
    error_bars(ax, path, "changed", look["color"], f"{gid}|interval", transform=shifted)


def _axes(ax: Axes, own: pd.DataFrame, most: float) -> None:
    """Places 0, 1, 2, 4 …: logarithmic beyond 1, so that doublings are evenly spaced."""
    drop = own["quantity"].iloc[0] == DROP
    ax.set_xscale("symlog", base=2, linthresh=1, linscale=0.8)
    ax.set_xlim(-0.2, most * 1.2)
    ticks = sorted({0.0, *own["changed"]})
    ax.xaxis.set_major_locator(FixedLocator([ticks[place] for place in style.thin(len(ticks), 8)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("prompt tokens changed")
    ax.set_ylabel("lost by the change, share" if drop else "extraction, share")
    ends = own[["value", "low", "high"]]
    low, high = min(0.0, ends.min().min()), max(0.0, ends.max().max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low or 1.0))
    if drop:
        ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)


def _legend(points: pd.DataFrame, shown: dict[Any, dict[str, Any]]) -> list[Artist]:
    short = short_names([str(name) for name in points["model"].unique()])
    steps = points.drop_duplicates("model").set_index("model")["step"]
    handles: list[Artist] = []
    for (model, kind), look in shown.items():
        at = f", step {style.step_text(steps[model])}" if steps[model] == steps[model] else ""
        handles.append(Line2D([], [], ms=3.4, label=f"{short[model]}{at}: {kind}", **look))
    for of, name in NAMES.items():
        if (points["of"] == of).any():
            face: dict[str, Any] = {"mfc": "white", "mew": 0.7} if of == EXTRACTION[1] else {"mew": 0}
            stroke: Any = STROKES[of]
            handles.append(Line2D([], [], color=style.GREY, ls=stroke, marker="o", ms=3.4, label=name, **face))
    return handles + interval_handle(points, "rows", bars=True)
