"""Membership inference against capacity / data: AUC and F1 of each score, and the sigmoid fitted to F1.

The law is F1 = ½ (1 + σ(a (ln(capacity / data) - b))), with a and b from the table (`membership_slope`,
`membership_midpoint`); b is where F1 is .75, its interval a bar there. Dashed is chance: an AUC of ½, and the F1 of
calling every sample a member.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES, with_interval
from infocomp.plotting.memorization_selection import LAW, MEMBERSHIP, in_order, memorization_rows, of_one_text
from infocomp.plotting.memorization_style import error_bars, interval_handle, log_axis, looks
from infocomp.plotting.selection import NothingToDraw

MIDPOINT, STEEPNESS = LAW
AUC, F1 = MEMBERSHIP
NAMES = {AUC: "AUC", F1: "F1"}
_COLUMNS = ["text", "model", "series", "corpus", "samples", "load", "capacity_per_data", "quantity", "label", "value"]
_COLUMNS += ["low", "high", "interval", "null", "midpoint", "midpoint_low", "midpoint_high", "slope"]


def membership(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Membership inference on a text against capacity / data; NothingToDraw says what the table lacks."""
    return draw_membership(membership_rows(table, corpus))


def membership_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `membership` draws: one row a point, and one for the fitted law of each model and score."""
    rows = memorization_rows(table)
    rows = rows[rows["quantity"].isin([*MEMBERSHIP, *LAW]) & ~rows["random"]]
    rows = rows[rows["load"].notna() | rows["quantity"].isin(LAW)]
    rows = with_interval(of_one_text(rows, corpus, "texts"))
    points = rows[rows["quantity"].isin(MEMBERSHIP) & (rows["load"] > 0)]
    if points.groupby("model")["load"].nunique().max() < 2 or points.empty:
        raise NothingToDraw("membership needs membership_auc or membership_f1 at two loads of a text")
    points = points.assign(series="point", capacity_per_data=1 / points["load"])
    laws = rows[rows["quantity"] == MIDPOINT]
    steep = rows[rows["quantity"] == STEEPNESS].groupby(["model", "label"])["value"].first()
    laws = laws.assign(
        series="law",
        quantity=F1,
        midpoint=laws["value"],
        midpoint_low=laws["low"],
        midpoint_high=laws["high"],
        slope=[steep.get(key, np.nan) for key in zip(laws["model"], laws["label"], strict=True)],
        capacity_per_data=np.exp(laws["value"]),
        value=0.75,
        low=np.nan,
        high=np.nan,
    )
    points = in_order(points, "quantity", "label", "load")
    kept = [part.reindex(columns=_COLUMNS) for part in (points, laws.dropna(subset="slope")) if len(part)]
    return pd.DataFrame([row for part in kept for row in part.to_dict("records")], columns=_COLUMNS)


def law(capacity_per_data: np.ndarray, midpoint: float, slope: float) -> np.ndarray:
    """F1 of the fitted law at each capacity / data: ½ far below the midpoint, 1 far above it, .75 at it."""
    return 0.5 * (1 + 1 / (1 + np.exp(-slope * (np.log(capacity_per_data) - midpoint))))


def draw_membership(points: pd.DataFrame) -> Figure:
    """The figure of `membership_rows`."""
    with style.styled():
        measured, laws = (points[points["series"] == series] for series in ("point", "law"))
        names = [name for name in MEMBERSHIP if (measured["quantity"] == name).any()]
        figure = style.new_figure(style.PAGE, 3.5)
        axes = list(figure.subplots(1, len(names), squeeze=False).flat)
        shown = _looks(points)
        low, high = measured["capacity_per_data"].min() / 1.2, measured["capacity_per_data"].max() * 1.2
        for ax, name in zip(axes, names, strict=True):
            own = measured[measured["quantity"] == name]
            for (model, label), path in own.groupby(["model", "label"], sort=False):
                _draw(
                    ax, path, f"{model}|{label}|{name}", shown[model, label], joined=name not in set(laws["quantity"])
                )
            chance = own[own["null"].notna()].drop_duplicates("capacity_per_data").sort_values("capacity_per_data")
            ax.plot(
                chance["capacity_per_data"], chance["null"], color=style.GREY, lw=0.7, ls=DASHES, gid=f"{name}|null"
            )
            for place, (_, fit) in enumerate(laws[laws["quantity"] == name].iterrows()):
                gid = f"{fit['model']}|{fit['label']}|law"
                _draw_law(ax, fit, gid, shown[fit["model"], fit["label"]]["color"], (float(low), float(high)), place)
            log_axis(ax, "x", float(low), float(high), "{:g}".format)
            ax.set_xlabel("capacity / data, both in bits")
            ax.set_ylabel(NAMES[name])
            ax.set_ylim(top=max(1.02, ax.get_ylim()[1]))
        axes[0].set_title(str(points["text"].iloc[0]))
        style.legend_below(figure, _legend(points, shown))
        style.settle(figure)
    return figure


def _looks(points: pd.DataFrame) -> dict[tuple[Any, Any], dict[str, Any]]:
    """Of one model a look for each score; of several a colour for each score and a marker for each model."""
    models = [str(name) for name in points["model"].unique()]
    labels = [str(name) for name in points["label"].unique()]
    of_label, of_model = looks(labels), looks(models)
    if len(models) == 1:
        return {(models[0], label): of_label[label] for label in labels}
    marks = {model: of_model[model]["marker"] for model in models}
    return {(m, label): {"color": of_label[label]["color"], "marker": marks[m]} for m in models for label in labels}


def _draw(ax: Axes, path: pd.DataFrame, gid: str, look: dict[str, Any], joined: bool) -> None:
    stroke: dict[str, Any] = {"lw": 0.9, "ls": "-"} if joined else {"ls": ""}
    ax.plot(path["capacity_per_data"], path["value"], ms=3.2, mew=0, zorder=3.5, gid=gid, **look, **stroke)
    error_bars(ax, path, "capacity_per_data", look["color"], f"{gid}|interval")


def _draw_law(ax: Axes, fit: pd.Series, gid: str, colour: Any, ends: tuple[float, float], place: int) -> None:
    """The sigmoid, and the interval of its midpoint as a bar at F1 = .75, a little higher for each law before it."""
    x = np.geomspace(*ends, 200)
    ax.plot(x, law(x, fit["midpoint"], fit["slope"]), color=colour, lw=0.9, zorder=3, gid=gid)
    if math.isfinite(fit["midpoint_low"]):
        figure = ax.get_figure(root=True)
        assert figure is not None
        above = ax.transData + ScaledTranslation(0, 2.4 * place / 72, figure.dpi_scale_trans)
        bar = np.exp([fit["midpoint_low"], fit["midpoint_high"]])
        ax.plot(bar, [0.75] * 2, color=colour, lw=1.6, zorder=3.6, transform=above, gid=f"{gid}|midpoint interval")


def _legend(points: pd.DataFrame, shown: dict[tuple[Any, Any], dict[str, Any]]) -> list[Artist]:
    handles: list[Artist] = []
    several = len({model for model, _ in shown}) > 1
    laws = points[points["series"] == "law"]
    for (model, label), look in shown.items():
        if not ((points["model"] == model) & (points["label"] == label)).any():
            continue
        text = f"{model}, {label}" if several else str(label)
        for _, fit in laws[(laws["model"] == model) & (laws["label"] == label)].iterrows():
            text += f": F1 = .75 at capacity {np.exp(fit['midpoint']):.2g} × data, slope {fit['slope']:.2g}"
        handles.append(Line2D([], [], ms=3.2, label=text, **look))
    handles += interval_handle(points[points["series"] == "point"], "documents", bars=True)
    if len(laws):
        handles.append(Line2D([], [], color=style.GREY, lw=0.9, label="fitted sigmoid in ln(capacity / data)"))
        if laws["midpoint_low"].notna().any():
            handles.append(Line2D([], [], color=style.GREY, lw=1.6, label="interval of where its F1 is .75"))
    if points["null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=DASHES, label="chance"))
    return handles
