"""The information plane from base to tuned: an arrow for each site and tuned model, and the same moves from one origin.

Bits, one data set a page. Left, complexity I(X; J) against expressivity I(Y; J) of the last and the next token: thin
lines join the blocks of a model, an arrow goes from the base's site to the same site of a tuned model, and the crosses
are the intervals of each number. Right, how far each site moved: tuned minus base on the same documents, so that the
cross is the interval of the difference, which is much smaller; filled where the change stands up against all that were
tested, hollow where it does not. Below, the moves at the longer labels.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.comparison_selection import (
    BASE,
    CONTROL,
    TUNED,
    comparison_rows,
    evenly,
    few,
    of_one_text,
    one_variant,
)
from infocomp.plotting.comparison_style import Look, footnote, left_out, look_of, model_handles, unequal_depth
from infocomp.plotting.placement import write_beside
from infocomp.plotting.selection import LABELS, NothingToDraw

AXES = (("x", "complexity"), ("y", "expressivity"))
MOST_BLOCKS = 8
NAMES = 12  # of moved sites in a panel, all tuned models together
_AT = [
    "corpus",
    "role",
    "place",
    "who",
    "model",
    "revision",
    "site",
    "kind",
    "depth",
    "name",
    "label",
    "of_tuned",
    "of_blocks",
]
_NUMBERS = ["value", "low", "high", "null", "ceiling"]
_COLUMNS = ["series", *_AT, "x", "x_low", "x_high", "x_null", "x_ceiling", "y", "y_low", "y_high", "y_null"]
_COLUMNS += ["y_ceiling", "x_from", "y_from", "changed", "interval"]


def comparison_plane(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """The plane of one data set; NothingToDraw (a ValueError) says what the table lacks."""
    return draw_comparison_plane(comparison_plane_rows(table, corpus))


def comparison_plane_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_plane` draws: a row a model and site ("point"), then one a move of a tuned site ("move").

    `x_from` and `y_from` are the base's numbers at the site, empty where it has no such site: no arrow ends there.
    """
    quantities = [quantity for _, quantity in AXES]
    lacks = "arrows from base to tuned need complexity and expressivity of one label at a site of both"
    rows = _few_blocks(few(of_one_text(comparison_rows(table, *quantities, corpus=corpus), lacks)))
    labels = [
        label
        for label in LABELS
        if all((rows.loc[rows["quantity"] == name, "label"] == label).any() for name in quantities)
    ]
    points = _joined(one_variant(rows[rows["label"] == labels[0]], "raw"), "point") if labels else rows.iloc[:0]
    if points.empty:
        raise NothingToDraw(lacks)
    base = points[points["role"] == BASE].drop_duplicates("site").set_index("site")
    tuned = points["role"] == TUNED
    points["x_from"] = points["site"].map(base["x"]).where(tuned)
    points["y_from"] = points["site"].map(base["y"]).where(tuned)
    if not points["x_from"].notna().any():
        raise NothingToDraw(lacks)
    moved = comparison_rows(table, *quantities, corpus=str(rows["corpus"].iloc[0]), differences=True)
    moved = moved[moved["who"].isin(rows["who"]) & moved["site"].isin(rows["site"]) & moved["label"].isin(LABELS)]
    parts = [points]
    if len(moved):
        same = {name: points[name].max() for name in ("of_tuned", "of_blocks")}
        parts.append(_joined(one_variant(moved.assign(**same), "raw"), "move"))
    return pd.concat(
        [part.reindex(columns=_COLUMNS).astype(object) for part in parts], ignore_index=True
    ).infer_objects()


def _few_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_BLOCKS blocks, evenly in depth, with `of_blocks`, how many there are; other sites stay."""
    depths = sorted(rows.loc[rows["kind"] == "block", "depth"].unique())
    kept = [depths[place] for place in evenly(len(depths), MOST_BLOCKS)] if depths else []
    return rows[(rows["kind"] != "block") | rows["depth"].isin(kept)].assign(of_blocks=len(depths))


def _joined(rows: pd.DataFrame, series: str) -> pd.DataFrame:
    """Both quantities side by side where a model and site has both under a label."""
    rows = rows.assign(changed=[bool(said.get("changed")) for said in rows["said"]])
    rows = rows.drop_duplicates(["quantity", "who", "site", "label"])
    sides = []
    for axis, quantity in AXES:
        found = rows[rows["quantity"] == quantity]
        renamed = {name: axis if name == "value" else f"{axis}_{name}" for name in _NUMBERS}
        sides.append(found[[*_AT, *_NUMBERS, "changed", "interval"]].rename(columns=renamed))
    other = sides[1].drop(columns=["interval", *(name for name in _AT if name not in ("who", "site", "label"))])
    joined = sides[0].merge(other, on=["who", "site", "label"], suffixes=("", "_y"))
    either = joined["changed"] | joined["changed_y"]
    order = {label: place for place, label in enumerate(LABELS)}
    joined = joined.assign(
        series=series, changed=either if series == "move" else None, order=joined["label"].map(order)
    )
    return joined.sort_values("order", kind="stable", ignore_index=True)


def draw_comparison_plane(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_plane_rows`."""
    with style.styled():
        plane, moves = points[points["series"] == "point"], points[points["series"] == "move"]
        looks = look_of(points)
        first = str(plane["label"].iloc[0])
        labels = list(moves["label"].unique())
        main, others = first in labels, [label for label in labels if label != first]
        figure = style.new_figure(style.PAGE if main else 1.3 * style.COLUMN, 4.1 + 2.0 * bool(others))
        heights = [3.0, 1.9] if others else [1.0]
        grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
        axes = [figure.add_subplot(grid[0, :3] if main else grid[0, :])]
        axes += [figure.add_subplot(grid[0, 3:])] if main else []
        small = [figure.add_subplot(grid[1, 2 * place : 2 * place + 2]) for place in range(len(others))]
        _draw_plane(axes[0], plane, looks)
        for ax, label in zip([*axes[1:], *small], [first] * main + others, strict=True):
            _draw_moves(ax, moves[moves["label"] == label], looks)
            ax.set_title("tuned minus base, same documents" if ax in axes else f"tuned minus base: {label}")
        axes[0].set_title(f"{points['corpus'].iloc[0]}: X the last {first}, Y the {first} that follows")
        for ax in axes[1:] + small[:1]:
            ax.set_ylabel("change of I(Y; J), bits")
        style.legend_below(figure, _legend(points, looks), footnote(_sentences(points)))
        style.settle(figure)
        _name_points(axes[0], plane)
        for ax, label in zip([*axes[1:], *small], [first] * main + others, strict=True):
            _name_moves(ax, moves[moves["label"] == label], NAMES if ax in axes else NAMES // 2)
    return figure


def _draw_plane(ax: Axes, plane: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Nulls, then each model's sites, then the arrows."""
    for who, own in plane.groupby("who", sort=False):
        look = looks[str(who)]
        blocks = own[own["kind"] == "block"].sort_values("depth")
        ax.plot(blocks["x"], blocks["y"], color=look["color"], lw=0.5, alpha=0.6, zorder=1.5, gid=f"{who}|path")
        _crosses(ax, own, look, str(who))
        size = 2.4 if own["role"].iloc[0] == TUNED else 3.6
        ax.plot(own["x"], own["y"], gid=str(who), zorder=3, **(look | {"ls": "", "ms": size}))
    arrows = plane[plane["x_from"].notna()]
    for who, own in arrows.groupby("who", sort=False):
        start = own[["x_from", "y_from"]].to_numpy(float)
        step = own[["x", "y"]].to_numpy(float) - start
        how: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "units": "inches", "width": 0.012}
        how |= {"headwidth": 7.0, "headlength": 7.0, "headaxislength": 6.0, "minlength": 0.0, "zorder": 3.2}
        drawn = ax.quiver(*start.T, *step.T, color=looks[str(who)]["color"], alpha=0.9, **how)
        drawn.set_gid(f"{who}|arrows")
    _view(ax, plane[plane["role"] != CONTROL])
    _draw_null(ax, plane[plane["role"] == BASE])
    ax.set_xlabel(style.AXIS["complexity"])
    ax.set_ylabel(style.AXIS["expressivity"])


def _draw_null(ax: Axes, base: pd.DataFrame) -> None:
    """Where the base's sites would lie for unrelated labels, if that is in view; the view stays."""
    known = base[base["x_null"].notna() & base["y_null"].notna()].sort_values("x_null")
    if len(known):
        view = ax.axis()
        look: dict[str, Any] = {"color": style.NULL_SHADE, "lw": 6, "marker": "o", "ms": 6, "mew": 0}
        ax.plot(known["x_null"], known["y_null"], zorder=0.5, gid="null", solid_capstyle="round", **look)
        ax.axis(view)


def _draw_moves(ax: Axes, moves: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Each site's change from the origin, in order of depth along a thin line, with the intervals of both numbers."""
    for at in (ax.axhline, ax.axvline):
        at(0.0, color=style.GREY, lw=0.6, zorder=1)
    for who, own in moves.groupby("who", sort=False):
        look: Look = looks[str(who)] | {"ls": "", "ms": 3.6}
        path = own[own["kind"] == "block"].sort_values("depth")
        ax.plot(path["x"], path["y"], color=look["color"], lw=0.5, alpha=0.5, zorder=1.5, gid=f"{who}|path")
        _crosses(ax, own, look, str(who))
        hollow: Look = look | {"mfc": "w"}
        sure = own["changed"].astype(bool)
        ax.plot(own.loc[sure, "x"], own.loc[sure, "y"], zorder=3, gid=f"{who}|changed", **look)
        ax.plot(own.loc[~sure, "x"], own.loc[~sure, "y"], zorder=3, gid=f"{who}|unchanged", **hollow)
    ax.locator_params(nbins=5)
    ax.margins(0.08)
    ax.set_xlabel("change of I(X; J), bits")


def _crosses(ax: Axes, own: pd.DataFrame, look: Look, who: str) -> None:
    """The interval of each number, across and up."""
    how: dict[str, Any] = {"color": look["color"], "lw": 0.7, "alpha": 0.6, "zorder": 2}
    across = own[own["x_low"].notna() & own["x_high"].notna()]
    up = own[own["y_low"].notna() & own["y_high"].notna()]
    if len(across):
        ax.hlines(across["y"], across["x_low"], across["x_high"], gid=f"{who}|interval x", **how)
    if len(up):
        ax.vlines(up["x"], up["y_low"], up["y_high"], gid=f"{who}|interval y", **how)


def _view(ax: Axes, plane: pd.DataFrame) -> None:
    """All sites of base and tuned models with their intervals, whatever the controls do."""
    for axis, limit in (("x", ax.set_xlim), ("y", ax.set_ylim)):
        values = plane[[axis, f"{axis}_low", f"{axis}_high"]].to_numpy(float)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        margin = 0.09 * (high - low) or 0.1
        limit(low - margin, high + margin)


def _name_points(ax: Axes, plane: pd.DataFrame) -> None:
    """The name of each site beside the base's point, off points, crosses and paths."""
    base = plane[plane["role"] == BASE].sort_values("depth")
    shares = np.linspace(0, 1, 12)[:, None, None]
    drawn = [_covered(plane[plane["role"] != CONTROL])]
    for _, own in plane[plane["kind"] == "block"].groupby("who", sort=False):
        ends = own.sort_values("depth")[["x", "y"]].to_numpy(float)
        drawn.append((ends[None, :-1] * (1 - shares) + ends[None, 1:] * shares).reshape(-1, 2))
    write_beside(ax, base[["x", "y"]].to_numpy(float), [str(name) for name in base["name"]], np.vstack(drawn))


def _name_moves(ax: Axes, moves: pd.DataFrame, most: int) -> None:
    """Names beside changed sites (beside all where none changed): of each tuned model some, evenly in depth."""
    sure = moves[moves["changed"].astype(bool)]
    wanted = sure if len(sure) else moves
    each = max(1, most // max(1, wanted["who"].nunique()))
    parts = [own.sort_values("depth").iloc[evenly(len(own), each)] for _, own in wanted.groupby("who", sort=False)]
    named = pd.concat(parts)
    across, up = (np.linspace(*limits, 60) for limits in (ax.get_xlim(), ax.get_ylim()))
    lines = [np.c_[across, np.zeros(60)], np.c_[np.zeros(60), up]]
    texts = [str(name) for name in named["name"]]
    write_beside(ax, named[["x", "y"]].to_numpy(float), texts, np.vstack([_covered(moves), *lines]))


def _covered(points: pd.DataFrame) -> Float[np.ndarray, "places 2"]:
    """Points along the crosses, which names keep off."""
    places = [points[["x", "y"]].to_numpy(float)]
    for share in (0.3, 0.6, 1.0):
        for end in ("low", "high"):
            x = points["x"] + share * (points[f"x_{end}"] - points["x"])
            y = points["y"] + share * (points[f"y_{end}"] - points["y"])
            places += [np.c_[x, points["y"]].astype(float), np.c_[points["x"], y].astype(float)]
    return np.vstack(places)


def _legend(points: pd.DataFrame, looks: dict[str, Look]) -> list[Artist]:
    """An entry for everything that is drawn in view and for nothing else."""
    plane, moves = (points[points["series"] == series] for series in ("point", "move"))
    handles = model_handles(plane[(plane["role"] != CONTROL) | _in_view(plane, "x", "y")], looks)
    look: Look = {"color": style.GREY, "ls": ""}
    handles.append(Line2D([], [], marker=r"$\rightarrow$", ms=8, mew=0, label="base to tuned, one site", **look))
    kinds = [kind for kind in dict.fromkeys(points["interval"].dropna()) if kind]
    if kinds:
        handles.append(Line2D([], [], marker="+", ms=7, mew=0.7, label=f"{' or '.join(kinds)} over documents", **look))
    if len(moves) and not moves["changed"].astype(bool).all():
        handles.append(Line2D([], [], marker="o", ms=3.6, mew=0.7, mfc="w", label="hollow: not beyond chance", **look))
    if _in_view(plane[plane["role"] == BASE], "x_null", "y_null", plane).any():
        handles.append(Patch(facecolor=style.NULL_SHADE, label="null: unrelated labels (base)"))
    return handles


def _in_view(rows: pd.DataFrame, x: str, y: str, plane: pd.DataFrame | None = None) -> pd.Series:
    """Which rows' points lie among the sites of base and tuned models."""
    every = rows if plane is None else plane
    shown = every[every["role"] != CONTROL]
    inside = [rows[name].between(shown[axis].min(), shown[axis].max()) for name, axis in ((x, "x"), (y, "y"))]
    return inside[0] & inside[1]


def _sentences(points: pd.DataFrame) -> list[str]:
    """What lies outside the view and what is left out."""
    plane = points[points["series"] == "point"]
    said = [f"{style.DIRECTION}."]
    base = plane[(plane["role"] == BASE) & plane["x_null"].notna() & plane["y_null"].notna()]
    if len(base) and not _in_view(base, "x_null", "y_null", plane).any():
        said.append(f"Outside the view lies the null of unrelated labels ({_where(base, '_null')}).")
    control = plane[plane["role"] == CONTROL]
    for who, own in control[~_in_view(plane, "x", "y")[control.index]].groupby("who", sort=False):
        said.append(f"Outside the view: {who} ({_where(own)}).")
    there = int(points["of_blocks"].max())
    drawn = points.loc[points["kind"] == "block", "depth"].nunique()
    said.append(f"Drawn are {drawn} of {there} blocks." if there > drawn else "")
    return [*said, left_out(points), unequal_depth(plane)]


def _where(rows: pd.DataFrame, ending: str = "") -> str:
    """The ranges of both numbers in words."""
    texts = []
    for axis, name in (("x", "I(X; J)"), ("y", "I(Y; J)")):
        low, high = f"{rows[axis + ending].min():.2g}", f"{rows[axis + ending].max():.2g}"
        texts.append(f"{name} {low if low == high else f'{low} to {high}'}")
    return f"{', '.join(texts)} bits"
