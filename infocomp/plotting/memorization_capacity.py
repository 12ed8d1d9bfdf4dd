"""Memorized bits against data bits on uniform random sequences: one curve a model, its plateau, and the exact ceiling.

Left in bits, both axes logarithmic; right the same in bits per parameter, where models of all sizes fall together as
far as one law holds. A point is a run, a line joins those of the first seed; hollow is the same run with twice the
steps. The plateau is the mean over seeds with its interval. The ceiling N (S log2 V - log2 N) is each row's, joined.
An arrow upwards marks a run that the table calls a lower bound at its budget, unless its model's plateau is not one.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_style import BAND, DASHES, DOTS, with_interval
from infocomp.plotting.memorization_selection import (
    ALL_PARAMETERS,
    GAIN,
    MEMORIZED,
    PER_PARAMETER,
    PLATEAU,
    memorization_rows,
    of_one_text,
)
from infocomp.plotting.memorization_style import (
    bit_text,
    bound_handle,
    interval_handle,
    log_axis,
    looks,
    lower_bounds,
    percent,
)
from infocomp.plotting.selection import NothingToDraw

RUN, LONG = "run", "twice the steps"
BRIEF = 6  # models beyond which the legend gives numbers alone
_COLUMNS = ["text", "model", "series", "label", "seed", "step", "sequences", "parameters", "data_bits", "value", "low"]
_COLUMNS += ["high", "interval", "ceiling", "lower_bound", "per_parameter", "per_parameter_low", "per_parameter_high"]
_COLUMNS += ["gain", "message"]


def capacity_curve(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Memorized bits against data bits; NothingToDraw says what the table lacks."""
    return draw_capacity_curve(capacity_curve_rows(table, corpus))


def capacity_curve_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `capacity_curve` draws: one row a run, and one for the plateau of each model, small models first."""
    rows = memorization_rows(table)
    rows = rows[rows["random"]]
    rows = rows[rows["text"].isin(rows.loc[rows["quantity"] == MEMORIZED, "text"])]
    rows = of_one_text(rows, corpus, "kinds of random data")
    bits = rows[rows["quantity"] == MEMORIZED]
    runs = bits[(bits["label"] != PLATEAU) & bits["data_bits"].notna() & bits["parameters"].notna()]
    if runs.groupby("model")["data_bits"].nunique().max() < 2 or runs.empty:
        raise NothingToDraw(
            "a capacity curve needs memorized_bits at two sizes of random data, each with its data_bits"
        )
    runs = runs.assign(series=np.where(runs["label"] == "", RUN, LONG), low=np.nan, high=np.nan, interval="")
    sizes = runs.groupby("model")["parameters"].first()
    full = with_interval(bits[(bits["label"] == PLATEAU) & bits["model"].isin(sizes.index)])
    full = full.assign(series=PLATEAU, parameters=full["model"].map(sizes))
    points = pd.concat([part for part in (runs, full) if len(part)])
    points = points.assign(
        per_parameter=points["value"] / points["parameters"],
        per_parameter_low=points["low"] / points["parameters"],
        per_parameter_high=points["high"] / points["parameters"],
        gain=points["model"].map(rows[rows["quantity"] == GAIN].groupby("model")["value"].first()),
    )
    said = rows[rows["lower_bound"] & rows["label"].isin([PLATEAU, ALL_PARAMETERS])]
    unsure = points["model"].isin(said.loc[said["quantity"].isin([PER_PARAMETER, MEMORIZED]), "model"])
    shown = (points["on_plateau"] == 1) & ~unsure & points["model"].isin(full["model"])
    points = points.assign(
        lower_bound=np.where(points["series"] == PLATEAU, unsure, points["lower_bound"] & ~shown),
        order=points["series"].map({RUN: 0, LONG: 1, PLATEAU: 2}),
    )
    points = points.sort_values(["parameters", "model", "order", "seed", "data_bits"], kind="stable")
    return points[_COLUMNS].reset_index(drop=True)


def draw_capacity_curve(points: pd.DataFrame) -> Figure:
    """The figure of `capacity_curve_rows`."""
    with style.styled():
        shown = looks(list(points["model"].unique()))
        figure = style.new_figure(style.PAGE, 3.3 + (0.15 * 5 if len(shown) <= BRIEF else 0.06 * len(shown) + 0.5))
        left, right = figure.subplots(1, 2)
        scaled = points.assign(
            x=points["data_bits"] / points["parameters"],
            y=points["per_parameter"],
            top=points["ceiling"] / points["parameters"],
            low=points["per_parameter_low"],
            high=points["per_parameter_high"],
        )
        for ax, drawn in ((left, points.assign(x=points["data_bits"], y=points["value"])), (right, scaled)):
            for model, own in drawn.groupby("model", sort=False):
                _draw_model(ax, own, str(model), shown[str(model)], float(drawn["x"].max()))
        _draw_ceiling(left, points.assign(x=points["data_bits"], top=points["ceiling"]), "ceiling")
        for model, own in scaled.groupby("model", sort=False):
            _draw_ceiling(right, own, f"{model}|ceiling")
        _axes(left, right, points, scaled)
        left.set_title(_data(str(points["text"].iloc[0])))
        style.legend_below(figure, _legend(points, shown))
        style.settle(figure)
    return figure


def _draw_model(ax: Axes, own: pd.DataFrame, model: str, look: dict[str, Any], end: float) -> None:
    colour = look["color"]
    runs, longer = (own[own["series"] == series] for series in (RUN, LONG))
    first = runs[runs["seed"].fillna(-1) == runs["seed"].fillna(-1).min()]
    ax.plot(first["x"], first["y"], color=colour, lw=0.9, zorder=3, gid=f"{model}|first seed")
    ax.plot(runs["x"], runs["y"], ls="", ms=3, mew=0, zorder=3.5, gid=f"{model}|{RUN}", **look)
    hollow: dict[str, Any] = {"ls": "", "ms": 4.2, "mfc": "none", "mew": 0.7}
    ax.plot(longer["x"], longer["y"], zorder=3.6, gid=f"{model}|{LONG}", **hollow, **look)
    lower_bounds(ax, runs, "x", "y", colour, f"{model}|{RUN}|lower bound")
    for _, full in own[own["series"] == PLATEAU].iterrows():
        on = runs.loc[runs["top" if "top" in runs else "ceiling"] > full["y"], "x"]
        ends = [float(on.min()) if len(on) else float(own["x"].min()), end * 1.05]
        kind = DASHES if full["lower_bound"] else "-"
        ax.plot(ends, [full["y"]] * 2, color=colour, lw=0.6, ls=kind, zorder=2.2, gid=f"{model}|{PLATEAU}")
        if np.isfinite(full["low"]):
            band = ax.fill_between(ends, full["low"], full["high"], color=colour, alpha=BAND, lw=0, zorder=2)
            band.set_gid(f"{model}|{PLATEAU}|interval")


def _draw_ceiling(ax: Axes, points: pd.DataFrame, gid: str) -> None:
    known = points[points["top"].notna()].drop_duplicates("x").sort_values("x", kind="stable")
    ax.plot(known["x"], known["top"], color=style.INK, lw=0.8, ls=DOTS, zorder=1.5, gid=gid)


def _axes(left: Axes, right: Axes, points: pd.DataFrame, scaled: pd.DataFrame) -> None:
    runs = points[points["series"] != PLATEAU]
    log_axis(left, "x", runs["data_bits"].min() / 1.25, runs["data_bits"].max() * 1.25, bit_text)
    positive = points.loc[points["value"] > 0, "value"]
    if len(positive):
        log_axis(left, "y", positive.min() / 1.3, positive.max() * 1.7, bit_text)
    left.set_xlabel("data: entropy of the sequences")
    left.set_ylabel("memorized: data bits − code length")
    right.set_xlim(0, 1.04 * scaled["x"].max())
    right.set_ylim(min(0.0, 1.1 * scaled["y"].min()), 1.22 * scaled["y"].max())
    right.set_xlabel("data, bits per parameter")
    right.set_ylabel("memorized, bits per parameter")


def _data(text: str) -> str:
    """Random data in words: "uniform random sequences, V = 64, S = 16"."""
    found = re.match(r"random V(\d+) S(\d+)(.*)", text)
    return f"uniform random sequences, V = {found[1]}, S = {found[2]}{found[3]}" if found else text


def _name(model: str, own: pd.DataFrame, brief: bool) -> str:
    """A model with its size, its bits per parameter and what twice the steps add; numbers alone where `brief`."""
    size = own["parameters"].iloc[0]
    label = f"{model}, {style.step_text(size)}" if brief else f"{model}, {size:,.0f} parameters"
    full = own[own["series"] == PLATEAU]
    if len(full):
        sign = "≥ " if full["lower_bound"].iloc[0] else ""
        label += f": {sign}{full['per_parameter'].iloc[0]:.2f}" + ("" if brief else " bits each")
    gain = own["gain"].iloc[0]
    if np.isfinite(gain):
        label += f" ({percent(gain)})" if brief else f" ({LONG}: {percent(gain)})"
    return label


def _legend(points: pd.DataFrame, shown: dict[str, dict[str, Any]]) -> list[Artist]:
    groups = points.groupby("model", sort=False)
    brief = len(shown) > BRIEF
    handles: list[Artist] = [
        Line2D([], [], ms=3, label=_name(str(model), own, brief), **shown[str(model)]) for model, own in groups
    ]
    if brief:
        text = f"model, parameters: bits each ({LONG}: gain)"
        handles.insert(0, Line2D([], [], ls="", label=text))
    if (points["series"] == LONG).any():
        sign: dict[str, Any] = {"ls": "", "marker": r"$\circ\vartriangle$", "ms": 9, "mew": 0}  # of no model alone
        handles.append(Line2D([], [], color=style.GREY, label=f"hollow: {LONG}", **sign))
    if points["ceiling"].notna().any():
        dots: dict[str, Any] = {"color": style.INK, "lw": 0.8, "ls": DOTS}
        text = "exact ceiling N (S log2 V − log2 N)"
        if points["parameters"].nunique() > 1:  # at as many bits a parameter, a larger model has more sequences
            ends = points.sort_values("parameters", kind="stable")["model"].iloc[[0, -1]]
            text += "; right: larger models below" if brief else f"; right: {ends.iloc[0]} above, {ends.iloc[1]} below"
        handles.append(Line2D([], [], label=text, **dots))
    if (points["series"] == PLATEAU).any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.6, label="plateau: mean over seeds"))
        handles += interval_handle(points, "seeds")
    if points["lower_bound"].any():
        handles.append(bound_handle())
        if points.loc[points["series"] == PLATEAU, "lower_bound"].any():
            text = "plateau that is a lower bound"
            handles.append(Line2D([], [], color=style.GREY, lw=0.6, ls=DASHES, label=text))
    return handles
