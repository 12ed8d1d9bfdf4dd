"""Loss and accuracy of every seed of a setting, with the dates of memorization and generalization; control beside it.

Losses are bits on a logarithmic axis with a floor (the page says where a curve is cut there), accuracies ratios, steps
symlog. An upright band is the interval of an event's step: it lies between two evaluations, widened by noise. The strip
below has a line for each seed: a filled mark where the curve crosses its threshold, a hollow one at the midpoint of the
change fitted in log step, each with its interval; what was not reached is said in words. Numbers of the seeds stand
under the figure.
"""

from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from infocomp.plotting import style
from infocomp.plotting.coding_style import BAND, DOTS
from infocomp.plotting.grokking_selection import (
    AT_STATE,
    CHANGE_POINT,
    CURVES,
    DATES,
    FALL,
    LEAK,
    ROWS,
    THRESHOLD,
    by_best_curves,
    dates,
    grokking_rows,
    of_one_setting,
)
from infocomp.plotting.grokking_sentences import cut, footnote
from infocomp.plotting.grokking_style import COLOURS, EVENTS, FLOOR, STROKES, joined
from infocomp.plotting.memorization_style import log_axis
from infocomp.plotting.placement import FONT_SIZE
from infocomp.plotting.selection import NothingToDraw
from infocomp.units import BITS_PER_NAT

OFFSETS = {THRESHOLD: -0.18, CHANGE_POINT: 0.18}  # of a mark from its seed's line in the strip
ROOM = 0.66  # of the strip's width, which marks leave free for what was not reached
_COLUMNS = ["series", "setting", "model", "control", "seed", "step", "quantity", "rows", "label", "estimator", "value"]
_COLUMNS += ["low", "high", "lower", "unit", "train_threshold", "test_threshold", "persistence", "verdict", "message"]


def grokking_curves(table: pd.DataFrame, setting: str | None = None) -> Figure:
    """The curves of a setting (the only one by default) with their dates; NothingToDraw says what the table lacks."""
    return draw_grokking_curves(grokking_curves_rows(table, setting))


def grokking_curves_rows(table: pd.DataFrame, setting: str | None = None) -> pd.DataFrame:
    """What `grokking_curves` draws: one row a point of a curve, a date or a number said under the figure."""
    rows = of_one_setting(grokking_rows(table), setting)
    curves = rows[rows["quantity"].isin(CURVES) & rows["rows"].isin(ROWS) & rows["step"].notna()]
    curves = curves[curves["label"] != AT_STATE]
    if curves.empty or curves.groupby(["control", "seed", "quantity", "rows"])["step"].nunique().max() < 2:
        raise NothingToDraw("curves of grokking need the loss or accuracy of train or test rows at two steps of a run")
    dated = dates(rows)
    told = by_best_curves(rows[rows["quantity"].isin([FALL, LEAK]) & rows["seed"].notna()])
    parts = {"curve": curves, "date": dated, "number": told}
    points = pd.concat([part.assign(series=name) for name, part in parts.items() if len(part)])
    points = points.rename(columns={"ci_low": "low", "ci_high": "high"})
    place = {name: number for number, name in enumerate([*CURVES, *DATES, FALL, LEAK])}
    order = points.assign(place=points["quantity"].map(place), turn=points["series"].map(list(parts).index))
    order = order.sort_values(["control", "turn", "place", "rows", "seed", "estimator", "step"], kind="stable")
    return order[_COLUMNS].reset_index(drop=True)


def draw_grokking_curves(points: pd.DataFrame) -> Figure:
    """The figure of `grokking_curves_rows`."""
    with style.styled():
        sides = sorted(points["control"].unique())
        curves, dated = points[points["series"] == "curve"], points[points["series"] == "date"]
        seeds = sorted(points["seed"].unique())
        shown = [name for name in CURVES if (curves["quantity"] == name).any()]
        strip = 0.3 + (0.21 if len(seeds) <= 6 else 0.15) * len(seeds) if len(dated) else 0.0
        heights = [*(1.75 for _ in shown), *([strip] if strip else [])]
        width = style.PAGE if len(sides) > 1 else 0.72 * style.PAGE
        figure = style.new_figure(width, sum(heights) + 1.9)
        ratios = {"height_ratios": heights}
        grid = figure.subplots(len(heights), len(sides), squeeze=False, sharey="row", gridspec_kw=ratios)
        figure.suptitle(str(points["setting"].iloc[0]), fontsize=9)
        for column, control in enumerate(sides):
            own = points[points["control"] == control]
            axes = cast(list[Axes], list(grid[:, column]))
            for ax, name in zip(axes, shown, strict=False):
                _draw_curves(ax, own, name)
            for ax in axes:
                style.step_axis(ax, list(curves["step"]))
                ax.tick_params(labelbottom=ax is axes[-1])
                ax.set_xlabel("training step" if ax is axes[-1] else "")
            if strip:
                _draw_strip(axes[-1], own[own["series"] == "date"], seeds)
            axes[0].set_title(f"{'control: ' if control else ''}{own['model'].iloc[0]}")
        _label(cast(list[Axes], list(grid[:, 0])), shown, points)
        style.legend_below(figure, _legend(points), footnote(points, 118 if len(sides) > 1 else 84))
        figure.align_ylabels()
        style.settle(figure)
    return figure


def _draw_curves(ax: Axes, own: pd.DataFrame, name: str) -> None:
    curves = own[(own["series"] == "curve") & (own["quantity"] == name)]
    for (rows, seed), path in curves.groupby(["rows", "seed"], sort=False):
        values = path["value"].clip(lower=FLOOR) if name == "loss" else path["value"]
        look = {"color": COLOURS[str(rows)], "ls": STROKES[str(rows)], "lw": 0.9, "alpha": 0.85, "zorder": 3}
        ax.plot(path["step"], values, gid=f"{name}|{rows}|{seed:g}", **look)
    for _, date in _reached(own, THRESHOLD).iterrows():
        colour, gid = COLOURS[date["quantity"]], f"{date['quantity']}|{date['seed']:g}"
        ax.axvline(date["value"], color=colour, lw=0.6, zorder=1.5, gid=gid)
        if np.isfinite([date["low"], date["high"]]).all():
            pale = BAND / max(1.0, own["seed"].nunique() / 4)
            ax.axvspan(date["low"], date["high"], color=colour, alpha=pale, lw=0, zorder=1, gid=f"{gid}|interval")
    label, thresholds = _thresholds(own)
    if name == label:
        for value in thresholds:
            height = value * BITS_PER_NAT if name == "loss" else value
            ax.axhline(height, color=style.GREY, lw=0.6, ls=DOTS, zorder=1.2, gid="threshold")


def _reached(own: pd.DataFrame, estimator: str) -> pd.DataFrame:
    wanted = (own["series"] == "date") & (own["estimator"] == estimator) & own["quantity"].isin(list(EVENTS))
    return own[wanted & own["value"].notna()]


def _thresholds(points: pd.DataFrame) -> tuple[str, list[float]]:
    """Which curves the runs are dated from, and their thresholds (of losses in nats)."""
    found = points[(points["series"] == "date") & (points["estimator"] == THRESHOLD)]
    label = str(found["label"].iloc[0]) if len(found) else ""
    values = pd.concat([found["train_threshold"], found["test_threshold"]]).dropna().unique()
    return label, sorted(float(value) for value in values)


def _draw_strip(ax: Axes, own: pd.DataFrame, seeds: list[float]) -> None:
    """A line for each seed: marks and intervals of what was reached, words for what was not."""
    right = _latest(ax, own) < ROOM
    for place, seed in enumerate(seeds):
        ax.axhline(place, color="0.9", lw=0.5, zorder=0.5)
        mine = own[(own["seed"] == seed) & own["quantity"].isin(list(EVENTS))]
        for _, date in mine[mine["value"].notna()].iterrows():
            quantity, estimator = str(date["quantity"]), str(date["estimator"])
            y, colour = place + OFFSETS[estimator], COLOURS[quantity]
            gid = f"{quantity}|{estimator}|{seed:g}"
            if np.isfinite([date["low"], date["high"]]).all():
                ax.plot([date["low"], date["high"]], [y, y], color=colour, lw=1.2, zorder=2, gid=f"{gid}|interval")
            ax.plot([date["value"]], [y], ls="", zorder=3, gid=gid, **_mark(estimator, colour))
        missing = mine[mine["value"].isna() & (mine["estimator"] == THRESHOLD)]
        if len(missing):
            _write_missing(ax, place, missing, right, f"not reached|{seed:g}")
    ax.set_ylim(len(seeds) - 0.5, -0.5)
    ax.set_yticks(range(len(seeds)), [f"seed {seed:g}" for seed in seeds])
    ax.yaxis.set_minor_locator(NullLocator())


def _latest(ax: Axes, own: pd.DataFrame) -> float:
    """The share of the axes' width at which the last mark or interval ends; 0 where nothing was reached."""
    found = own[own["value"].notna() & own["quantity"].isin(list(EVENTS))]
    if found.empty:
        return 0.0
    end = float(np.nanmax(found[["value", "high"]].to_numpy(float)))
    pixels = ax.transData.transform((end, 0.0))
    return float(ax.transAxes.inverted().transform(pixels)[0])


def _write_missing(ax: Axes, place: int, missing: pd.DataFrame, right: bool, gid: str) -> None:
    """What a seed did not reach and by which step: at the right where all marks leave room, else at the left."""
    what = "neither event" if len(missing) > 1 else EVENTS[str(missing["quantity"].iloc[0])]
    message = str(missing["message"].iloc[0])
    text = message if right and len(missing) == 1 else f"{what}: {message}"
    at: dict[str, Any] = {"ha": "right" if right else "left", "va": "center", "fontsize": FONT_SIZE, "gid": gid}
    colour = COLOURS[str(missing["quantity"].iloc[-1])]
    ax.text(0.98 if right else 0.02, place, f"{text} →", transform=ax.get_yaxis_transform(), color=colour, **at)


def _mark(estimator: str, colour: str) -> dict[str, Any]:
    if estimator == CHANGE_POINT:
        return {"marker": "D", "ms": 3.2, "mfc": "white", "mec": colour, "mew": 0.8}
    return {"marker": "o", "ms": 3.8, "color": colour, "mew": 0}


def _label(axes: list[Axes], shown: list[str], points: pd.DataFrame) -> None:
    for ax, name in zip(axes, shown, strict=False):
        if name == "accuracy":
            ax.set_ylabel("accuracy, ratio")
            ax.set_ylim(-0.03, 1.03)
            continue
        ax.set_ylabel("loss, bits")
        values = points.loc[(points["series"] == "curve") & (points["quantity"] == "loss"), "value"].clip(lower=FLOOR)
        log_axis(ax, "y", float(values.min()) / 1.5, float(values.max()) * 1.6, partial(_power_text, cut=cut(points)))
    if len(axes) > len(shown):
        axes[-1].set_ylabel("dates")


def _power_text(value: float, cut: bool) -> str:
    """10^-5, or 0.01 and above as they are; the floor is named where a curve is cut there."""
    name = "floor " if cut and value <= 1.001 * FLOOR else ""
    return f"{value:g}" if value >= 0.01 else f"{name}$10^{{{round(np.log10(value))}}}$"


def _legend(points: pd.DataFrame) -> list[Artist]:
    curves, handles = points[points["series"] == "curve"], cast(list[Artist], [])
    for rows in ROWS:
        if (curves["rows"] == rows).any():
            handles.append(Line2D([], [], color=COLOURS[rows], ls=STROKES[rows], label=f"{rows}, a line a seed"))
    dated = points[(points["series"] == "date") & points["value"].notna()]
    label, thresholds = _thresholds(points)
    for quantity, text in EVENTS.items():
        if (dated["quantity"] == quantity).any():
            look: dict[str, Any] = _mark(THRESHOLD, COLOURS[quantity])
            handles.append(Line2D([], [], lw=1.2, label=f"{text}: {label} at its threshold", **look))
    if (dated["estimator"] == CHANGE_POINT).any():
        fitted: dict[str, Any] = _mark(CHANGE_POINT, style.GREY) | {"color": style.GREY}
        handles.append(Line2D([], [], lw=1.2, label="midpoint of the fitted change, 95 % interval", **fitted))
    if dated["low"].notna().any():
        handles.append(Patch(facecolor=style.GREY, alpha=BAND + 0.1, lw=0, label="interval of the step"))
    if thresholds:
        words = joined(thresholds, "{:g}".format) + (" nats" if label == "loss" else "")
        handles.append(Line2D([], [], color=style.GREY, lw=0.6, ls=DOTS, label=f"threshold of {label}: {words}"))
    return handles
