"""Loss and memorized bits of models trained on a growing number of samples of a text, against data bits / capacity.

Above, bits per token of the samples trained on and of never-trained ones; the peak of the latter is marked where it is
one (`peak`), and where there is none that is said. Below, the excess of memorized bits over its null against each
reference, with all that was there to memorize and the capacity; last, the samples that are emitted whole.
"""

from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES, DOTS, band, with_interval
from infocomp.plotting.memorization_selection import (
    EXTRACTION,
    LOSSES,
    MEMORIZED,
    in_order,
    memorization_rows,
    of_one_text,
    references,
)
from infocomp.plotting.memorization_style import bit_text, bits_axis, interval_handle, log_axis, looks, wrapped
from infocomp.plotting.selection import NothingToDraw

TRAIN, TEST = LOSSES
LOSS, RATE, CEILING = "bits_per_token", EXTRACTION[0], "unintended_bits"
STROKES = ("-", DASHES, "-.", DOTS)
_COLUMNS = ["text", "model", "corpus", "samples", "data_bits", "capacity_bits", "load", "quantity", "label", "value"]
_COLUMNS += ["low", "high", "interval", "null", "ceiling", "peak"]


def double_descent(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Losses and memorized bits against the load of a text; NothingToDraw says what the table lacks."""
    return draw_double_descent(double_descent_rows(table, corpus))


def double_descent_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `double_descent` draws: one row a point, by model and quantity, with `peak` on the test loss."""
    rows = memorization_rows(table)
    rows = rows[rows["load"].notna() & ~rows["random"]]
    wanted = (rows["quantity"] == LOSS) & rows["label"].isin(LOSSES)
    wanted |= rows["quantity"].isin([MEMORIZED, CEILING, RATE])
    rows = of_one_text(rows[wanted], corpus, "texts")
    losses = rows[rows["quantity"] == LOSS]
    if losses.groupby(["model", "label"])["load"].nunique().max() < 2 or losses.empty:
        raise NothingToDraw("double descent needs bits_per_token of train or test samples at two loads of a text")
    rows = in_order(with_interval(rows).assign(peak=False), "quantity", "label", "load")
    for _, path in rows[(rows["quantity"] == LOSS) & (rows["label"] == TEST)].groupby("model", sort=False):
        place = peak(path)
        if place is not None:
            rows.loc[path.index[place], "peak"] = True
    return rows[_COLUMNS].reset_index(drop=True)


def peak(path: pd.DataFrame) -> int | None:
    """The place of the peak of a curve (`value`, in the order of `load`), or None where there is none.

    A peak is a value above all others between two valleys, one on each side; its interval (`low`) must lie above those
    of both valleys (`high`), or its value above theirs where there is no interval. Of several the highest above the
    higher of its valleys. Ends are no peaks.
    """
    value = path["value"].to_numpy(dtype=float)
    low = path["low"].fillna(path["value"]).to_numpy(dtype=float)
    high = path["high"].fillna(path["value"]).to_numpy(dtype=float)
    best, height = None, 0.0
    for place in range(1, len(value) - 1):
        before, after = int(value[:place].argmin()), place + 1 + int(value[place + 1 :].argmin())
        if value[place] < value[before : after + 1].max() or low[place] <= max(high[before], high[after]):
            continue
        rise = value[place] - max(value[before], value[after])
        if rise > height:
            best, height = place, rise
    return best


def draw_double_descent(points: pd.DataFrame) -> Figure:
    """The figure of `double_descent_rows`."""
    with style.styled():
        names = [name for name in (LOSS, MEMORIZED, RATE) if (points["quantity"] == name).any()]
        figure = style.new_figure(style.PAGE, 1.9 + 1.55 * len(names))
        axes = cast(list[Axes], list(figure.subplots(len(names), 1, sharex=True, squeeze=False).flat))
        models = [str(name) for name in points["model"].unique()]
        shown = looks(models)
        against = references(points)
        for ax, name in zip(axes, names, strict=True):
            for model, own in points.groupby("model", sort=False):
                colour = shown[str(model)]["color"]
                if name == LOSS:
                    _draw_losses(ax, own, str(model), shown[str(model)])
                elif name == MEMORIZED:
                    _draw_memorized(ax, own, str(model), shown[str(model)], against)
                else:
                    _line(ax, own[own["quantity"] == RATE], colour, "-", f"{model}|{RATE}", shown[str(model)]["marker"])
                    _null(ax, own[own["quantity"] == RATE], colour, f"{model}|{RATE}|null")
            ax.axvline(1.0, color=style.GREY, lw=0.6, zorder=1, gid="capacity")
        axes[0].set_ylabel("bits per token")
        named = f"; model: {models[0]}" if len(models) == 1 else ""
        axes[0].set_title(f"{points['text'].iloc[0]}{named}; upright line: data = capacity")
        if MEMORIZED in names:
            _memorized_axis(axes[names.index(MEMORIZED)], points)
        if RATE in names:
            axes[-1].set_ylabel("emitted whole, share")
        loads = points["load"]
        log_axis(axes[-1], "x", loads.min() / 1.15, loads.max() * 1.15, "{:g}".format)
        axes[-1].set_xlabel("data to memorize / capacity, both in bits")
        style.legend_below(figure, _legend(points, shown, against), footnote(points))
        figure.align_ylabels(axes)
        style.settle(figure)
    return figure


def _line(ax: Axes, path: pd.DataFrame, colour: Any, stroke: Any, gid: str, marker: str, hollow: bool = False) -> None:
    face: dict[str, Any] = {"mfc": "white" if hollow else colour, "mew": 0.7 if hollow else 0}
    ax.plot(path["load"], path["value"], color=colour, ls=stroke, marker=marker, ms=3, zorder=3, gid=gid, **face)
    band(ax, path, "load", colour, f"{gid}|interval")


def _null(ax: Axes, path: pd.DataFrame, colour: Any, gid: str) -> None:
    if path["null"].notna().any():
        ax.plot(path["load"], path["null"], color=colour, lw=0.7, ls=DASHES, zorder=2, gid=gid)


def _draw_losses(ax: Axes, own: pd.DataFrame, model: str, look: dict[str, Any]) -> None:
    for label in LOSSES:
        path = own[(own["quantity"] == LOSS) & (own["label"] == label)]
        _line(ax, path, look["color"], "-", f"{model}|{label}", look["marker"], hollow=label == TRAIN)
    top = own[own["peak"]]
    if len(top):
        ax.plot(
            top["load"], top["value"], ls="", marker="*", ms=9, mew=0.6, mec=style.INK, color=look["color"], zorder=4
        )
        ax.lines[-1].set_gid(f"{model}|peak")


def _draw_memorized(ax: Axes, own: pd.DataFrame, model: str, look: dict[str, Any], against: list[str]) -> None:
    for place, name in enumerate(against):
        stroke = STROKES[place % len(STROKES)]
        path = own[(own["quantity"] == MEMORIZED) & (own["label"] == f"against {name}")]
        _line(ax, path, look["color"], stroke, f"{model}|{name}", look["marker"], hollow=place > 0)
        there = own[(own["quantity"] == CEILING) & (own["label"] == f"against {name}") & own["ceiling"].notna()]
        gid = f"{model}|{name}|ceiling"
        ax.plot(there["load"], there["ceiling"], color=style.INK, lw=0.7, ls=DOTS, zorder=1.5, gid=gid)
    capacity = own.drop_duplicates("load").sort_values("load")
    gid = f"{model}|capacity"
    ax.plot(capacity["load"], capacity["capacity_bits"], color=look["color"], lw=0.6, ls=DASHES, zorder=1.5, gid=gid)


def _memorized_axis(ax: Axes, points: pd.DataFrame) -> None:
    """From a little below zero (or the lowest interval) to a little above the capacity: ceilings leave the axes."""
    ends = points.loc[points["quantity"] == MEMORIZED, ["value", "low", "high"]]
    top = 1.12 * np.nanmax([ends.max().max(), points["capacity_bits"].max()])
    bottom = min(0.0, ends.min().min()) - 0.04 * top
    ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)
    ax.set_ylim(bottom, top)
    bits_axis(ax, "memorized above its null")


def _legend(points: pd.DataFrame, shown: dict[str, dict[str, Any]], against: list[str]) -> list[Artist]:
    several = len(shown) > 1
    handles: list[Artist] = [Line2D([], [], ms=3, label=name, **look) for name, look in shown.items() if several]
    grey: dict[str, Any] = {"color": style.GREY if several else shown[next(iter(shown))]["color"]}
    mark = "o" if several else shown[next(iter(shown))]["marker"]
    for label, name in ((TEST, "never-trained samples"), (TRAIN, "samples trained on")):
        if ((points["quantity"] == LOSS) & (points["label"] == label)).any():
            face: dict[str, Any] = {"mfc": "white", "mew": 0.7} if label == TRAIN else {"mew": 0}
            handles.append(Line2D([], [], marker=mark, ms=3, label=f"loss: {name}", **grey, **face))
    if points["peak"].any():
        star: dict[str, Any] = {"ls": "", "marker": "*", "ms": 8, "mec": style.INK, "mew": 0.6}
        handles.append(Line2D([], [], label="peak of the loss on never-trained samples", **star, **grey))
    for place, name in enumerate(against):
        face = {"mfc": "white", "mew": 0.7} if place else {"mew": 0}
        stroke: Any = STROKES[place % len(STROKES)]
        handles.append(Line2D([], [], marker=mark, ms=3, ls=stroke, label=f"memorized against {name}", **grey, **face))
    if points["ceiling"].notna().any():
        handles.append(Line2D([], [], color=style.INK, lw=0.7, ls=DOTS, label="all there is to memorize, by reference"))
    if against:
        handles.append(Line2D([], [], lw=0.6, ls=DASHES, label="capacity", **grey))
    if points.loc[points["quantity"] == RATE, "null"].notna().any():
        handles.append(Line2D([], [], lw=0.7, ls=DASHES, label="emitted: never-trained samples", **grey))
    return handles + interval_handle(points, "documents")


def footnote(points: pd.DataFrame) -> str:
    """Where each model's test loss has its peak, or that it has none and by which rule."""
    said = []
    for model, own in points[(points["quantity"] == LOSS) & (points["label"] == TEST)].groupby("model", sort=False):
        top = own[own["peak"]]
        if len(top):
            at = top.iloc[0]
            where = f"peak at {at['load']:.2g} × capacity ({at['samples']:,.0f} samples, {bit_text(at['data_bits'])})"
            said.append(f"{model}: {where}.")
        else:
            rule = "intervals" if own["low"].notna().any() else "values"
            said.append(f"{model}: no peak: no loss inside stands above both sides by its {rule}.")
    return wrapped(said)
