"""Loss and memorized bits of models trained on a growing number of samples of a text, against data bits / capacity.

Above, bits per token of the samples trained on and of never-trained ones, beside the unigram code; the peak of those of
other documents is marked where it is one (`peak`), and where there is none that is said. Below, the excess of memorized
bits over its null, a colour for each reference, with all that was there to memorize under it and the capacity; last,
the samples that are emitted whole. In both, a full line with full marks is told by never-trained samples of the
members' own documents, which differ from members in nothing but the training, a dashed one with hollow marks by those
of other documents.
"""

from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES, DOTS, UNIGRAM, band, with_interval
from infocomp.plotting.memorization_selection import (
    EXTRACTION,
    LOSSES,
    MEMORIZED,
    SAME,
    in_order,
    memorization_rows,
    of_one_text,
    references,
)
from infocomp.plotting.memorization_style import bit_text, bits_axis, interval_handle, log_axis, looks, wrapped
from infocomp.plotting.selection import NothingToDraw

TRAIN, TEST, TEST_SAME = LOSSES
LOSS, RATE, CEILING = "bits_per_token", EXTRACTION[0], "unintended_bits"
WIDE = 4.0  # times the smallest loss, from which on losses stand on a logarithmic axis
SIBLINGS, OTHERS = "never-trained, same documents", "never-trained, other documents"
Look = dict[str, Any]
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
        figure = style.new_figure(style.PAGE, 2.2 + 1.6 * len(names))
        axes = cast(list[Axes], list(figure.subplots(len(names), 1, sharex=True, squeeze=False).flat))
        against = references(points)
        models = [str(name) for name in points["model"].unique()]
        every = looks([*(f"against {name}" for name in against), *models])
        colours = {name: every[f"against {name}"]["color"] for name in against}
        shown = {name: {"color": every[name]["color"], "marker": looks(models)[name]["marker"]} for name in models}
        for ax, name in zip(axes, names, strict=True):
            for model, own in points.groupby("model", sort=False):
                look = shown[str(model)]
                if name == LOSS:
                    _draw_losses(ax, own, str(model), look)
                elif name == MEMORIZED:
                    _draw_memorized(ax, own, str(model), look, colours)
                else:
                    path = own[own["quantity"] == RATE]
                    _line(ax, path, look, f"{model}|{RATE}")
                    _null(ax, path, look["color"], f"{model}|{RATE}|null", DASHES)
            ax.axvline(1.0, color=style.GREY, lw=0.6, zorder=1, gid="capacity")
        axes[0].set_ylabel("bits per token")
        named = f"; model: {models[0]}" if len(models) == 1 else ""
        axes[0].set_title(f"{points['text'].iloc[0]}{named}; upright line: data = capacity")
        _loss_axis(axes[0], points[points["quantity"] == LOSS])
        if MEMORIZED in names:
            _memorized_axis(axes[names.index(MEMORIZED)], points)
        if RATE in names:
            axes[-1].set_ylabel("emitted whole, share")
        loads = points["load"]
        log_axis(axes[-1], "x", loads.min() / 1.15, loads.max() * 1.15, "{:g}".format)
        axes[-1].set_xlabel("data to memorize / capacity, both in bits")
        style.legend_below(figure, _legend(points, shown, colours), footnote(points))
        figure.align_ylabels(axes)
        style.settle(figure)
    return figure


def _line(ax: Axes, path: pd.DataFrame, look: Look, gid: str, stroke: Any = "-", hollow: bool = False) -> None:
    ax.plot(path["load"], path["value"], ls=stroke, ms=3, zorder=3, gid=gid, **look, **_face(hollow))
    band(ax, path, "load", look["color"], f"{gid}|interval")


def _face(hollow: bool) -> Look:
    return {"mfc": "white", "mew": 0.7} if hollow else {"mew": 0}


def _null(ax: Axes, path: pd.DataFrame, colour: Any, gid: str, stroke: Any) -> None:
    if path["null"].notna().any():
        ax.plot(path["load"], path["null"], color=colour, lw=0.7, ls=stroke, zorder=2, gid=gid)


def _draw_losses(ax: Axes, own: pd.DataFrame, model: str, look: Look) -> None:
    losses = own[own["quantity"] == LOSS]
    for label in LOSSES:
        path = losses[losses["label"] == label]
        if len(path):
            stroke = DASHES if label == TEST else "-"
            _line(
                ax,
                path,
                look | ({"color": style.INK} if label == TRAIN else {}),
                f"{model}|{label}",
                stroke,
                label != TEST_SAME,
            )
    _null(ax, losses[losses["label"] == TEST], style.GREY, f"{model}|{TEST}|null", DOTS)
    top = own[own["peak"]]
    if len(top):
        ax.plot(
            top["load"], top["value"], ls="", marker="*", ms=9, mew=0.6, mec=style.INK, color=look["color"], zorder=4
        )
        ax.lines[-1].set_gid(f"{model}|peak")


def _loss_axis(ax: Axes, losses: pd.DataFrame) -> None:
    """Logarithmic where the largest loss is more than WIDE times the smallest."""
    values = losses[["value", "low", "high"]].to_numpy(dtype=float)
    values = values[values > 0]
    if len(values) and (losses["value"] > 0).all() and values.max() > WIDE * values.min():
        log_axis(ax, "y", float(values.min()) / 1.25, float(values.max()) * 1.4, "{:g}".format)


def _draw_memorized(ax: Axes, own: pd.DataFrame, model: str, look: Look, colours: dict[str, Any]) -> None:
    for name, colour in colours.items():
        for ending, stroke in (("", DASHES), (SAME, "-")):
            path = own[(own["quantity"] == MEMORIZED) & (own["label"] == f"against {name}{ending}")]
            if len(path):
                _line(ax, path, look | {"color": colour}, f"{model}|{name}{ending}", stroke, hollow=not ending)
        there = own[(own["quantity"] == CEILING) & own["label"].isin([f"against {name}", f"against {name}{SAME}"])]
        there = there[there["ceiling"].notna()].drop_duplicates("load").sort_values("load")
        gid = f"{model}|{name}|ceiling"
        ax.plot(there["load"], there["ceiling"], color=colour, lw=0.8, ls=DOTS, zorder=1.5, gid=gid)
    capacity = own.drop_duplicates("load").sort_values("load")
    gid = f"{model}|capacity"
    ax.plot(capacity["load"], capacity["capacity_bits"], color=look["color"], lw=0.8, ls="-.", zorder=1.5, gid=gid)


def _memorized_axis(ax: Axes, points: pd.DataFrame) -> None:
    """From a little below zero (or the lowest interval) to a little above the capacity: ceilings leave the axes."""
    ends = points.loc[points["quantity"] == MEMORIZED, ["value", "low", "high"]]
    top = 1.12 * np.nanmax([ends.max().max(), points["capacity_bits"].max()])
    bottom = min(0.0, ends.min().min()) - 0.04 * top
    ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)
    ax.set_ylim(bottom, top)
    bits_axis(ax, "memorized above its null")


def _legend(points: pd.DataFrame, shown: dict[str, Look], colours: dict[str, Any]) -> list[Artist]:
    several = len(shown) > 1
    first = next(iter(shown.values()))
    own: Look = {"color": style.GREY} if several else {"color": first["color"]}
    grey: Look = {"color": style.GREY, "marker": "o" if several else first["marker"], "ms": 3}
    handles: list[Artist] = [Line2D([], [], ms=3, label=name, **look) for name, look in shown.items() if several]
    of_loss = points[points["quantity"] == LOSS]
    if (of_loss["label"] == TRAIN).any():
        handles.append(Line2D([], [], label="loss: samples trained on", **(grey | {"color": style.INK}), **_face(True)))
    named = points.loc[points["quantity"].isin([LOSS, MEMORIZED]), "label"]
    if named.str.endswith(SAME).any():
        handles.append(Line2D([], [], label=f"loss of, null by: {SIBLINGS}", **grey, **_face(False)))
    if (named[~named.str.endswith(SAME)] != TRAIN).any():
        handles.append(Line2D([], [], ls=DASHES, label=f"loss of, null by: {OTHERS}", **grey, **_face(True)))
    if of_loss.loc[of_loss["label"] == TEST, "null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=DOTS, label=f"loss: {UNIGRAM}"))
    if points["peak"].any():
        star: Look = {"ls": "", "marker": "*", "ms": 8, "mec": style.INK, "mew": 0.6}
        handles.append(Line2D([], [], label=f"peak of the loss of {OTHERS}", **star, **own))
    for name, colour in colours.items():
        handles.append(Line2D([], [], color=colour, lw=2, label=f"memorized against {name}"))
        if points.loc[points["label"].str.startswith(f"against {name}"), "ceiling"].notna().any():
            text = f"all there is to memorize, under {name}"
            handles.append(Line2D([], [], color=colour, lw=0.8, ls=DOTS, label=text))
    if colours:
        handles.append(Line2D([], [], lw=0.8, ls="-.", label="capacity", **own))
    if points.loc[points["quantity"] == RATE, "null"].notna().any():
        handles.append(Line2D([], [], lw=0.7, ls=DASHES, label=f"emitted: {OTHERS}", **own))
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
