"""Information planes: where each layer lies between its input and its output, coloured by training step; bits.

Two planes, because their diagonals mean different things. Against context complexity I(context; J) the diagonal is the
data-processing line: J is made from the context, so I(Y; J) ≤ I(context; J) for every label Y of the text that
follows. Against label complexity I(X; J), with X the last n tokens, J knows more than X and no inequality holds: the
diagonal is equality, not a bound.

Each plane comes whole (null, ceiling, controls, embedding) and as a close-up of what the blocks and the final norm do.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from infocomp.plotting import style
from infocomp.plotting.selection import (
    CONTROL,
    NothingToDraw,
    default_label,
    drawable,
    labels_of,
    model_order,
    named_sites,
    values_of,
)
from infocomp.plotting.trajectories import draw_diagonal, draw_trajectories, finish, write_names

MOST_LAYERS = 8
MOST_LABELS = 6
BOUND = "data-processing line\nI(Y; J) = I(context; J)"
EQUALITY = "I(Y; J) = I(X; J):\nequality, not a bound"
_AT = ["model", "revision", "site"]
_ABOUT = ["stage", "branch", "step", "position", "layer", "kind", "depth", "name", "duplicate_of", "duplicate"]
_NUMBERS = ["value", "null", "null_kind", "ceiling", "draw_std"]


def plane_context(
    table: pd.DataFrame, label: str | None = None, close: bool = False, corpus: str | None = None
) -> Figure:
    """The plane of context complexity and expressivity, whose diagonal is the data-processing line.

    `label` is the output label, the shortest by default; `close` leaves out all but blocks and final norm.
    NothingToDraw (a ValueError) says what the table lacks.
    """
    return draw_plane_context(plane_context_rows(table, label, close, corpus))


def plane_label(
    table: pd.DataFrame, labels: list[str] | None = None, close: bool = False, corpus: str | None = None
) -> Figure:
    """The planes of complexity and expressivity at each label, whose diagonal is equality and no bound.

    `labels` are all that both quantities have by default; `close` leaves out all but blocks and final norm.
    NothingToDraw (a ValueError) says what the table lacks.
    """
    return draw_plane_label(plane_label_rows(table, labels, close, corpus))


def plane_context_rows(
    table: pd.DataFrame, label: str | None = None, close: bool = False, corpus: str | None = None
) -> pd.DataFrame:
    """What `plane_context` draws: x, y, their null and ceiling, one row a checkpoint and site."""
    rows = drawable(table, corpus)
    label = label or default_label(rows, "expressivity")
    points = _joined(rows, ("context_complexity", None), ("expressivity", label), close).assign(label=label)
    if points.empty:
        raise NothingToDraw(f"no site has both context_complexity and expressivity at {label!r}")
    points = points.drop(columns="x_null_kind")
    return points.assign(x_null=points["x"], x_ceiling=points["x"])  # those of y, at the context complexity as it is


def plane_label_rows(
    table: pd.DataFrame, labels: list[str] | None = None, close: bool = False, corpus: str | None = None
) -> pd.DataFrame:
    """What `plane_label` draws: x, y, their null and ceiling, one row a checkpoint, site and label."""
    rows = drawable(table, corpus)
    default_label(rows, "complexity", "expressivity")
    labels = labels or labels_of(rows, "complexity", "expressivity")[:MOST_LABELS]
    parts = [
        _joined(rows, ("complexity", label), ("expressivity", label), close).assign(label=label) for label in labels
    ]
    points = pd.concat(parts, ignore_index=True)
    if points.empty:
        raise NothingToDraw(f"no site has both complexity and expressivity at {', '.join(labels)}")
    return points


def draw_plane_context(points: pd.DataFrame) -> Figure:
    """The figure of `plane_context_rows`."""
    with style.styled():
        figure = style.new_figure(style.COLUMN, 3.5)
        ax = figure.add_subplot()
        draw_trajectories(ax, points)
        ax.set_xlabel(f"{style.AXIS['context_complexity']}\n{style.DIRECTION}")
        ax.set_ylabel(f"{style.AXIS['expressivity']}\nY: the {points['label'].iloc[0]} that follows")
        draw_diagonal(ax)
        finish(figure, [ax], points)
        write_names(ax, points, BOUND)
    return figure


def draw_plane_label(points: pd.DataFrame) -> Figure:
    """The figure of `plane_label_rows`: a plane for each label."""
    with style.styled():
        labels = list(points["label"].unique())
        across = {1: 1, 2: 2, 4: 2}.get(len(labels), 3)
        down = -(-len(labels) // across)
        width = style.COLUMN if across == 1 else style.PAGE
        figure = style.new_figure(width, 3.5 if across == 1 else 0.9 + down * 0.78 * width / across)
        grid = figure.subplots(down, across, squeeze=False)
        used: list[Axes] = list(grid.flat)[: len(labels)]
        for ax in list(grid.flat)[len(labels) :]:
            ax.remove()
        for place, (ax, label) in enumerate(zip(used, labels, strict=True)):
            draw_trajectories(ax, points[points["label"] == label])
            ax.set_title(f"X: the last {label}, Y: the {label} that follows", fontsize=7.5)
            if place + across >= len(labels):
                ax.set_xlabel(f"{style.AXIS['complexity']}\n{style.DIRECTION}")
            if place % across == 0:
                ax.set_ylabel(style.AXIS["expressivity"])
            draw_diagonal(ax)
        finish(figure, used, points)
        for ax, label in zip(used, labels, strict=True):
            write_names(ax, points[points["label"] == label], EQUALITY)
    return figure


def _joined(
    rows: pd.DataFrame, across: tuple[str, str | None], up: tuple[str, str | None], close: bool
) -> pd.DataFrame:
    """Points of a plane: the two quantities side by side where a checkpoint and site has both."""
    sides = []
    for axis, (quantity, label) in (("x", across), ("y", up)):
        found = pd.concat([values_of(rows, quantity, label), _controls(rows, quantity, label)])
        renamed = {name: axis if name == "value" else f"{axis}_{name}" for name in _NUMBERS}
        sides.append(found[_AT + _ABOUT + _NUMBERS].rename(columns=renamed))
    joined = sides[0].merge(sides[1].drop(columns=_ABOUT), on=_AT)
    if close:
        joined = joined[joined["kind"].isin(["block", "norm"])]
    chosen = named_sites(joined, max(2, MOST_LAYERS // max(1, joined["model"].nunique())))
    order = model_order(rows)
    chosen = chosen.assign(close=close, place=chosen["model"].map(order))
    return chosen.sort_values(["place", "depth", "position"], kind="stable", ignore_index=True).drop(columns="place")


def _controls(rows: pd.DataFrame, quantity: str, label: str | None) -> pd.DataFrame:
    """The random Gaussian rows of each model, of the last checkpoint that has them."""
    found = rows[(rows["site"] == CONTROL) & (rows["quantity"] == quantity)]
    found = found if label is None else found[found["label"] == label]
    return found.sort_values("position", kind="stable", na_position="first").drop_duplicates("model", keep="last")
