"""The in-context learning curve: bits per token against the place of the token in its window, by checkpoint.

Rows are "position a-b" of the table (places a to b, counted from 0, in log-spaced bins), drawn at the geometric mean of
a + 1 and b + 1. Ribbons are the interval over documents; dashed is the code of a unigram model on the same tokens.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.coding_selection import CODE_LENGTH, checkpoint_names, coding_models, coding_rows, labelled
from infocomp.plotting.coding_style import (
    AXIS,
    BAND,
    DASHES,
    UNIGRAM,
    band,
    count_axis,
    interval_name,
    text_title,
    with_interval,
)
from infocomp.plotting.selection import NothingToDraw

MOST_CURVES = 8
STEPS = style.clipped("cividis", 0.0, 0.86)  # its yellow end is too pale for a line on white
_MARKERS = (*style.MARKERS, "X", "p")
_COLUMNS = ["corpus", "in_training", "model", "revision", "stage", "branch", "step", "position", "label", "place_from"]
_COLUMNS += ["place_to", "place", "value", "low", "high", "interval", "null", "duplicate_of", "duplicate"]


def coding_context(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """The in-context learning curves of a text; NothingToDraw says what the table lacks."""
    return draw_coding_context(coding_context_rows(table, corpus))


def coding_context_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_context` draws, one row a bin of places: of one model some checkpoints, of several the last."""
    rows = coding_rows(table, corpus)
    rows = rows[(rows["estimator"] == CODE_LENGTH) & (rows["quantity"] == "bits_per_token")]
    found = labelled(rows, r"position (\d+)-(\d+)", "place_from", "place_to")
    if found.empty:
        raise NothingToDraw("a curve over the context needs bits_per_token under labels 'position a-b'")
    if found["corpus"].nunique() > 1:
        raise NothingToDraw(f"the table holds {found['corpus'].nunique()} texts; name one with corpus=…")
    keep, most = [], MOST_CURVES if found["model"].nunique() == 1 else 1
    for _, own in found.groupby("model", sort=False):
        revisions = list(own.sort_values("position", kind="stable", na_position="first")["revision"].unique())
        keep.append(own[own["revision"].isin([revisions[place] for place in style.thin(len(revisions), most)])])
    found = with_interval(pd.concat(keep))
    default = rows[rows["label"] == ""].drop_duplicates(["model", "revision"]).set_index(["model", "revision"])["null"]
    of_text = pd.MultiIndex.from_frame(found[["model", "revision"]]).map(default.to_dict().get)
    found = found.assign(
        place=np.sqrt((found["place_from"] + 1.0) * (found["place_to"] + 1.0)),
        null=found["null"].fillna(pd.Series(list(of_text), index=found.index, dtype=float)),
        order=found["model"].map({model: place for place, model in enumerate(coding_models(found))}),
    )
    return found.sort_values(["order", "position", "revision", "place"], kind="stable")[_COLUMNS].reset_index(drop=True)


def draw_coding_context(points: pd.DataFrame) -> Figure:
    """The figure of `coding_context_rows`."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 3.4)
        ax = figure.subplots()
        for (model, revision), path in points.groupby(["model", "revision"], sort=False):
            look = _look(points, str(model), str(revision))
            hollow = bool(path["duplicate"].any())
            ax.plot(
                path["place"],
                path["value"],
                mfc="white" if hollow else look["color"],
                mew=0.7,
                zorder=3,
                gid=f"{model}|{revision}",
                **look,
            )
            band(ax, path, "place", look["color"], f"{model}|{revision}|interval")
        for model, own in points.groupby("model", sort=False):
            last = own[own["revision"] == own["revision"].iloc[-1]]
            ax.plot(last["place"], last["null"], color=style.GREY, ls=DASHES, lw=0.8, zorder=1, gid=f"{model}|null")
        count_axis(ax, float(points["place"].min()), float(points["place_to"].max() + 1))
        ax.set_xlabel("place of the token in its window (1: the first)")
        ax.set_ylabel(AXIS["bits_per_token"])
        ax.set_title(text_title(points, with_model=True))
        style.legend_below(figure, _legend(points))
        style.settle(figure)
    return figure


def _look(points: pd.DataFrame, model: str, revision: str) -> dict[str, Any]:
    """Colour by the step where one model has several checkpoints, else by the model; a marker for each line."""
    lines = points.drop_duplicates(["model", "revision"])
    place = list(zip(lines["model"], lines["revision"], strict=True)).index((model, revision))
    colour: ColorType = style.CATEGORIES[place % len(style.CATEGORIES)]
    if lines["model"].nunique() == 1 and lines["position"].notna().all():
        steps = list(lines["position"])
        colour = STEPS(style.step_norm(steps)(steps[place])) if len(steps) > 1 else style.INK
    return {"color": colour, "marker": _MARKERS[place % len(_MARKERS)], "ms": 3}


def _legend(points: pd.DataFrame) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for (model, revision), name in checkpoint_names(points).items():
        look = _look(points, model, revision)
        hollow = points.loc[(points["model"] == model) & (points["revision"] == revision), "duplicate"].any()
        handles.append(Line2D([], [], label=name, mfc="white" if hollow else look["color"], **look))
    if interval_name(points):
        handles.append(Patch(facecolor=style.GREY, alpha=BAND + 0.1, lw=0, label=interval_name(points)))
    if points["null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.8, ls=DASHES, label=UNIGRAM))
    if points["duplicate"].any():
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    return handles
