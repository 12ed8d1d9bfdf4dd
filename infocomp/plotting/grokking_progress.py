"""All progress measures of a setting on one axis of steps, each in a row of its own, scaled to its own range.

A row runs from the least to the greatest value of a treated seed (written under its name, with the unit); losses are
on a logarithmic scale with a floor. Dark is the mean over seeds with the range of the seeds as a band, dashed grey the
mean of the control without weight decay, which may leave its row. Bars under a curve are the steps at which a seed's
measure begins to move, between two checkpoints. The first rows are the test loss and accuracy at the same states: the
onset of that loss is the reference, an upright band. At the right the claim of the table and log2(onset / onset of the
test loss), in doublings; the dot on the curve is the geometric mean over seeds of the reference × 2^lead.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from infocomp.plotting import style
from infocomp.plotting.coding_style import BAND, DASHES
from infocomp.plotting.grokking_measures import (
    LAGS,
    LEADS,
    LOSSES,
    lead_text,
    means,
    measure_text,
    measures_of,
    of_measures,
    range_text,
    ranges,
    reference_onsets,
)
from infocomp.plotting.grokking_selection import (
    LEAD,
    ONSET,
    event,
    grokking_rows,
    of_one_setting,
)
from infocomp.plotting.grokking_style import COLOURS, EVENTS, FLOOR
from infocomp.plotting.memorization_style import wrapped
from infocomp.plotting.placement import FONT_SIZE
from infocomp.plotting.selection import NothingToDraw

CLAIM_COLOURS = {LEADS: "#00674d", LAGS: "#a34500"}  # dark enough for small text
TOP, BOTTOM, LANE = 0.1, 0.76, 0.89  # of a row's height: greatest value, least value, the onsets
ROW = 0.355  # inches
REFERENCE = "reference"
REFERENCE_COLOUR = "#8b3f80"
REFERENCE_TEXT = "test loss begins to fall"
HEADER = "claim: $\\log_2$(onset / onset of the test loss),\ndoublings [95 % interval each, uncorrected]"
_COLUMNS = ["series", "setting", "model", "control", "measure", "quantity", "site", "rows", "label", "unit", "seed"]
_COLUMNS += ["step", "value", "low", "high", "seeds", "claim", "control_change", "message"]


def grokking_progress(table: pd.DataFrame, setting: str | None = None) -> Figure:
    """Every progress measure of a setting over steps; NothingToDraw says what the table lacks."""
    return draw_grokking_progress(grokking_progress_rows(table, setting))


def grokking_progress_rows(table: pd.DataFrame, setting: str | None = None) -> pd.DataFrame:
    """What `grokking_progress` draws: points of seeds and of their means, onsets, leads and the two events."""
    rows = of_one_setting(grokking_rows(table), setting)
    measures = measures_of(rows)
    if measures.empty:
        raise NothingToDraw("progress needs a progress measure of a run with weight decay at two checkpoints")
    parts = [means(measures).assign(series="mean"), measures.assign(series="seed", seeds=np.nan)]
    for series, quantity in (("onset", ONSET), ("lead", LEAD)):
        told = of_measures(rows, measures, quantity)
        parts.append(told.assign(series=series, step=told["value"] if series == "onset" else np.nan))
    parts += [event(rows, quantity).assign(series="event", measure="", seeds=np.nan) for quantity in EVENTS]
    parts[1:] = [part.drop(columns=["low", "high"], errors="ignore") for part in parts[1:]]
    parts[1:] = [part.rename(columns={"ci_low": "low", "ci_high": "high"}) for part in parts[1:]]
    return pd.DataFrame([row for part in parts for row in part.reindex(columns=_COLUMNS).to_dict("records")])[_COLUMNS]


def draw_grokking_progress(points: pd.DataFrame) -> Figure:
    """The figure of `grokking_progress_rows`."""
    with style.styled():
        drawn = points[points["series"] == "mean"]
        names = [str(name) for name in drawn["measure"].unique()]
        figure = style.new_figure(style.PAGE, 1.75 + ROW * len(names))
        ax = figure.add_subplot()
        style.step_axis(ax, list(drawn["step"]))
        ax.set_ylim(len(names), 0)
        scales = ranges(drawn)
        for place, name in enumerate(names):
            own = points[points["measure"] == name]
            _draw_row(ax, place, own, scales[name], name)
            _draw_onsets(ax, place, own, scales[name], _start(points), name)
        _draw_events(ax, points)
        _draw_reference(ax, reference_onsets(points))
        ax.set_yticks([])
        for side in ("left", "right"):
            ax.spines[side].set_visible(False)
        if (points["series"] == "lead").any():
            ax.text(1.015, 1.0, HEADER, transform=ax.transAxes, ha="left", va="bottom", fontsize=FONT_SIZE)
        figure.suptitle(str(points["setting"].iloc[0]), fontsize=9)
        style.legend_below(figure, _legend(points), footnote(points))
        style.settle(figure)
    return figure


def scaled(values: Any, scale: tuple[float, float], place: int, log: bool = False) -> Any:
    """Where values of a measure stand in its row: the greatest at the top, the least (or the floor) at the bottom."""
    low, high = scale
    if log:
        values, low, high = (np.log(np.maximum(part, FLOOR)) for part in (values, low, high))
    share = (values - low) / (high - low) if high > low else 0.5 + 0.0 * values
    return place + BOTTOM - (BOTTOM - TOP) * share


def _draw_row(ax: Axes, place: int, own: pd.DataFrame, scale: tuple[float, float], name: str) -> None:
    ax.axhline(place, color="0.88", lw=0.5, zorder=0.5)
    log = str(own["quantity"].iloc[0]) in LOSSES
    frame = Rectangle((0, place), 1, LANE - 0.07, transform=ax.get_yaxis_transform())
    for control, path in own[own["series"] == "mean"].groupby("control"):
        look: dict[str, Any] = {"color": style.INK, "lw": 1.1, "zorder": 3}
        look = {"color": "0.5", "lw": 0.9, "ls": DASHES, "zorder": 2.5} if control else look
        kind = "control" if control else "treated"
        (line,) = ax.plot(path["step"], scaled(path["value"], scale, place, log), gid=f"{name}|{kind}", **look)
        ends = [scaled(path[end], scale, place, log) for end in ("low", "high")]
        pale = 0.10 if control else BAND
        band = ax.fill_between(path["step"], *ends, color=look["color"], alpha=pale, lw=0, zorder=2)
        band.set_gid(f"{name}|{kind}|range")
        line.set_clip_path(frame)
        band.set_clip_path(frame)
    about = own.iloc[0]
    words = measure_text(*(str(about[part]) for part in ("quantity", "site", "rows", "label")))
    text = f"{words}\n{range_text(*scale, str(about['unit']), log)}"
    at: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "fontsize": FONT_SIZE, "va": "center"}
    ax.text(-0.012, place + 0.5, text, ha="right", gid=f"{name}|name", linespacing=1.05, **at)
    leads = own[own["series"] == "lead"]
    if str(about["quantity"]) == "loss" and len(leads) + len(reference_onsets(own)):
        ax.text(1.015, place + 0.5, REFERENCE, ha="left", color=REFERENCE_COLOUR, gid=f"{name}|claim", **at)
        return
    for _, lead in leads.iterrows():
        claim = str(lead["claim"])
        words = lead_text(claim, lead["value"], lead["low"], lead["high"])
        look = {"color": CLAIM_COLOURS.get(claim, style.GREY), "gid": f"{name}|claim"}
        ax.text(1.015, place + 0.5, words, ha="left", **look, **at)


def _start(points: pd.DataFrame) -> float:
    """The geometric mean over seeds of the onset of the test loss; NaN where no seed has one."""
    found = reference_onsets(points)["value"]
    return float(np.exp(np.log(found.clip(lower=0.5)).mean())) if len(found) else np.nan


def _draw_onsets(ax: Axes, place: int, own: pd.DataFrame, scale: tuple[float, float], start: float, name: str) -> None:
    """A bar and a tick for each seed under the curve, and on it the onset of the test loss × 2^lead."""
    onsets = own[(own["series"] == "onset") & own["value"].notna()]
    for _, onset in onsets.iterrows():
        look: dict[str, Any] = {"color": style.CATEGORIES[4], "zorder": 3.2}
        gid, y = f"{name}|onset|{onset['seed']:g}", place + LANE
        if np.isfinite([onset["low"], onset["high"]]).all():
            ax.plot([onset["low"], onset["high"]], [y, y], lw=1.6, alpha=0.45, gid=f"{gid}|interval", **look)
        ax.plot([onset["value"]], [y], ls="", marker="|", ms=4, mew=0.9, gid=gid, **look)
    lead = own[(own["series"] == "lead") & own["value"].notna()]
    reference = len(reference_onsets(own)) > 0
    if np.isfinite(start) and (reference or len(lead)):
        step = start if reference else start * 2.0 ** float(lead["value"].iloc[0])
        path = own[(own["series"] == "mean") & ~own["control"]]
        heights = scaled(path["value"], scale, place, str(own["quantity"].iloc[0]) in LOSSES)
        height = np.interp(np.log1p(step), np.log1p(path["step"]), heights)
        look = {"marker": "o", "ms": 3.6, "mew": 0.5, "mec": "white", "color": style.CATEGORIES[4], "zorder": 4}
        ax.plot([step], [height], ls="", gid=f"{name}|lead", **look)


def _draw_events(ax: Axes, points: pd.DataFrame) -> None:
    """The two events over seeds: from the least to the greatest end of their intervals, a line at each seed's step."""
    for quantity, text in EVENTS.items():
        found = points[(points["series"] == "event") & (points["quantity"] == quantity)]
        if found.empty:
            continue
        low, high = found[["low", "value"]].min().min(), found[["high", "value"]].max().max()
        ax.axvspan(low, high, color=COLOURS[quantity], alpha=BAND, lw=0, zorder=0.8, gid=quantity)
        for seed, value in zip(found["seed"], found["value"], strict=True):
            ax.axvline(value, color=COLOURS[quantity], lw=0.5, alpha=0.7, zorder=0.9, gid=f"{quantity}|{seed:g}")
        middle = float(np.exp(np.log(found["value"].clip(lower=0.5)).mean()))
        at: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        ax.text(middle, 1.003, text, color=COLOURS[quantity], fontsize=FONT_SIZE, gid=f"{quantity}|name", **at)


def _draw_reference(ax: Axes, onsets: pd.DataFrame) -> None:
    """The onset of the test loss: a band over the seeds' intervals, a dashed line at each seed, its name on top."""
    if onsets.empty:
        return
    low, high = onsets[["low", "value"]].min().min(), onsets[["high", "value"]].max().max()
    ax.axvspan(low, high, color=REFERENCE_COLOUR, alpha=0.11, lw=0, zorder=0.8, gid=REFERENCE)
    for seed, value in zip(onsets["seed"], onsets["value"], strict=True):
        ax.axvline(value, color=REFERENCE_COLOUR, lw=0.6, ls=DASHES, zorder=0.9, gid=f"{REFERENCE}|{seed:g}")
    middle = float(np.exp(np.log(onsets["value"].clip(lower=0.5)).mean()))
    at: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
    at |= {"va": "bottom", "fontsize": FONT_SIZE, "color": REFERENCE_COLOUR, "gid": f"{REFERENCE}|name"}
    ax.annotate(REFERENCE_TEXT, (middle, 1.003), (0, 1.3 * FONT_SIZE), annotation_clip=False, **at)


def _legend(points: pd.DataFrame) -> list[Artist]:
    drawn = points[points["series"] == "mean"]
    seeds = drawn.loc[~drawn["control"], "seeds"].max()
    of = f"mean of {seeds:g} seeds" if seeds > 1 else "one seed"
    handles: list[Artist] = [Line2D([], [], color=style.INK, lw=1.1, label=f"{of}, scaled")]
    if seeds > 1:
        handles.append(Patch(facecolor=style.INK, alpha=BAND, lw=0, label="least to greatest of the seeds"))
    controls = drawn.loc[drawn["control"], "model"].unique()
    handles += [Line2D([], [], color="0.5", lw=0.9, ls=DASHES, label=f"control: {model}") for model in controls]
    if (points["series"] == "onset").any():
        look: dict[str, Any] = {"color": style.CATEGORIES[4], "marker": "|", "ms": 5, "mew": 0.9}
        handles.append(Line2D([], [], lw=1.6, alpha=0.6, label="a seed begins to move, between checkpoints", **look))
    if len(reference_onsets(points)):
        look = {"ls": "", "marker": "o", "ms": 3.6, "mew": 0, "color": style.CATEGORIES[4]}
        handles.append(Line2D([], [], label="over seeds: onset of the test loss × 2^lead", **look))
    return handles


def footnote(points: pd.DataFrame) -> str:
    """How to read the claims, and what is claimed of nothing."""
    leads = points[points["series"] == "lead"]
    beside = "; the control may leave its row" if points["control"].eq(True).any() else ""
    said = [f"Rows run from the least to the greatest value of a seed with weight decay{beside}."]
    means = points[points["series"] == "mean"]
    if means["quantity"].isin(LOSSES).any():
        said.append("Losses are on a logarithmic scale, cut at $10^{-7}$ bits.")
    leads = leads[leads["quantity"] != "loss"]
    judged, shown = leads["measure"].nunique(), means.loc[means["quantity"] != "loss", "measure"].nunique()
    if judged:
        said.append(
            "Leads are relative to the onset of the test loss at the same states: a measure leads where the interval "
            "of log2(onset / onset of the test loss) lies below 0 and lags where it lies above 0. “leads” is not "
            "claimed where the control moves likewise, and nothing is without a control or a second seed. "
            f"The {judged} measures are judged at 95 % each, without correction for multiplicity: by chance alone up "
            "to about one in twenty would be claimed."
        )
    if shown > judged > 0:
        said.append(f"No lead was estimated for {shown - judged} of the {shown} measures.")
    return wrapped(said)
