"""How a plane is drawn: trajectories of checkpoints, the region of their nulls, their ceilings, names and legend.

The null is shaded where the trajectories themselves would lie if labels and activations were unrelated, point by
point, and the ceiling is dotted likewise: a value is above its null only relative to its own point of that region.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.placement import write_beside
from infocomp.plotting.selection import short_names

_DOTS = (0, (1, 1))
REMARK = 60.0
_SIGNS = (" •", " ▴", " ▪", " ⬩", " ▾", " +")  # style.MARKERS in text


def draw_trajectories(ax: Axes, points: pd.DataFrame) -> None:
    """Null and ceiling below, then a trajectory for each site of each model, then step 0 and the control."""
    paths = points[points["kind"] != "control"]
    names = list(paths["model"].unique())
    colours = _colours(points)
    most = int(paths.groupby(["model", "site"]).size().max()) if len(paths) else 1
    size = float(np.interp(most, [12, 160], [13, 6]))
    for _, path in points.groupby(["model", "site"], sort=False):
        _draw_null(ax, path)
    ceiling = points[["x_ceiling", "y_ceiling"]].dropna().drop_duplicates().sort_values(["x_ceiling", "y_ceiling"])
    ax.plot(
        ceiling["x_ceiling"], ceiling["y_ceiling"], color=style.CEILING, lw=1.4, ls=_DOTS, zorder=1.5, gid="ceiling"
    )
    for (model, site, _branch), path in paths.groupby(["model", "site", "branch"], sort=False):
        kind = str(path["kind"].iloc[0])
        marker = style.MARKERS[names.index(str(model)) % len(style.MARKERS)]
        ax.plot(path["x"], path["y"], ls=style.LINES[kind], lw=0.7, color=_line_colour(kind), zorder=2)
        rgba = [tuple(colours.to_rgba(step)) if np.isfinite(step) else "0.5" for step in path["position"]]
        for hollow, order in ((False, 3.0), (True, 3.5)):
            shown = (path["duplicate"] == hollow).to_numpy()
            edges: list[ColorType] = [colour for colour, keep in zip(rgba, shown, strict=True) if keep]
            ax.scatter(
                path["x"][shown],
                path["y"][shown],
                s=size * (2.2 if kind == "norm" else 1.0),
                marker=marker,
                facecolors=["white"] * len(edges) if hollow else edges,
                edgecolors=style.INK if kind == "norm" and not hollow else edges,
                linewidths=0.8 if hollow else float(np.interp(most, [12, 80], [0.5, 0.15])),
                zorder=order - 0.25 * (kind == "norm"),
                gid=f"{model}|{site}|{'hollow' if hollow else 'filled'}",
            )
    start = paths[paths["position"] == 0]
    ax.scatter(start["x"], start["y"], s=15, marker="x", color="black", linewidths=0.7, zorder=4, gid="step 0")
    control = points[points["kind"] == "control"]
    ax.scatter(control["x"], control["y"], s=36, marker="*", color="black", linewidths=0, zorder=4, gid="control")
    ax.margins(0.07)
    if bool(points["close"].any()):
        _view(ax, paths)


def draw_diagonal(ax: Axes) -> None:
    """Equality over the whole view, which it does not widen."""
    view = ax.axis()
    low, high = min(view[0], view[2]), max(view[1], view[3])
    ax.plot([low, high], [low, high], color=style.INK, lw=0.9, zorder=1, gid="diagonal")
    ax.axis(view)


def finish(figure: Figure, axes: list[Axes], points: pd.DataFrame) -> None:
    """Colour bar and legend, then the layout settled."""
    steps = _steps(points)
    if len(steps):
        bar = figure.colorbar(_colours(points), ax=axes, aspect=30, pad=0.02)
        ticks = style.step_ticks(float(steps.min()), float(steps.max()))
        bar.set_ticks(ticks, labels=[style.step_text(tick) for tick in ticks])
        bar.ax.minorticks_off()
        bar.set_label("training step, as log(step + 1)")
    style.legend_below(figure, _legend(points, axes))
    style.settle(figure)


def write_names(ax: Axes, points: pd.DataFrame, diagonal: str) -> None:
    """Each trajectory's name beside its last point, what the diagonal is, and the null where it is out of view."""
    paths = points[points["kind"] != "control"]
    drawn = [points[["x", "y"]].to_numpy()]
    drawn += [_between(path[["x", "y"]].to_numpy()) for _, path in paths.groupby(["model", "site"], sort=False)]
    left, right, bottom, top = ax.axis()
    low, high = max(left, bottom), min(right, top)
    equal = np.linspace(low, high, 60)[:, None].repeat(2, axis=1) if low < high else np.empty((0, 2))
    drawn += [_between(path[["x_null", "y_null"]].to_numpy()) for _, path in paths.groupby(["model", "site"])]
    obstacles = np.vstack([*drawn, equal, points[["x_null", "y_null"]].to_numpy()])
    if len(equal):
        write_beside(ax, equal[35:36], [diagonal], obstacles, REMARK)
    note = _null_out_of_view(ax, paths)
    if note:
        write_beside(ax, np.array([[right, bottom]]), [note], obstacles, REMARK, leaders=False)
    last = paths.drop_duplicates(["model", "site"], keep="last")
    models = list(paths["model"].unique())
    signs = dict(zip(models, _SIGNS, strict=False)) if len(models) > 1 else {}
    texts = [f"{name}{signs.get(model, '')}" for name, model in zip(last["name"], last["model"], strict=True)]
    write_beside(ax, last[["x", "y"]].to_numpy(), texts, obstacles)


def _null_out_of_view(ax: Axes, paths: pd.DataFrame) -> str:
    """Where the null lies, in words, if this view does not hold all of it."""
    known = paths[["x_null", "y_null"]].dropna()
    left, right, bottom, top = ax.axis()
    inside = known["x_null"].between(left, right) & known["y_null"].between(bottom, top)
    if inside.all():
        return ""
    ranges = _range(known["y_null"]) + " bits"
    if not known["x_null"].equals(paths.loc[known.index, "x"]):
        ranges = f"x {_range(known['x_null'])}, y {_range(known['y_null'])}"
    return f"null {'partly ' if inside.any() else ''}outside this view:\n{ranges}"


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _draw_null(ax: Axes, path: pd.DataFrame) -> None:
    """A broad shade along the points at which the same trajectory would lie without any information."""
    known = path[path["y_null"].notna() & path["x_null"].notna()]
    ax.plot(
        known["x_null"],
        known["y_null"],
        color=style.NULL_SHADE,
        lw=6,
        marker="o",
        ms=6,
        mew=0,
        solid_capstyle="round",
        zorder=0.5,
        gid="null",
    )


def _view(ax: Axes, paths: pd.DataFrame) -> None:
    """The view of the trajectories themselves, whatever else is drawn."""
    for values, limit in ((paths["x"], ax.set_xlim), (paths["y"], ax.set_ylim)):
        low, high = float(values.min()), float(values.max())
        margin = 0.09 * (high - low) or 0.1
        limit(low - margin, high + margin)


def _steps(points: pd.DataFrame) -> pd.Series:
    return points.loc[points["kind"] != "control", "position"].dropna()


def _colours(points: pd.DataFrame) -> ScalarMappable:
    return ScalarMappable(style.step_norm(list(_steps(points)) or [0.0]), style.STEP_COLOURS)


def _line_colour(kind: str) -> str:
    return style.INK if kind == "norm" else "0.6"


def _legend(points: pd.DataFrame, axes: list[Axes]) -> list[Line2D | Patch]:
    """An entry for everything that is drawn and for nothing else."""

    def entry(text: str, color: str = style.GREY, ls: object = "", marker: str = "", ms: float = 3.5, **look: object):
        return Line2D([], [], label=text, color=color, ls=ls, marker=marker, ms=ms, **look)  # pyright: ignore

    paths = points[points["kind"] != "control"]
    handles: list[Line2D | Patch] = []
    names = short_names(list(paths["model"].unique()))
    if len(names) > 1:
        handles += [
            entry(text, marker=style.MARKERS[place % len(style.MARKERS)]) for place, text in enumerate(names.values())
        ]
    for kind, text in (("null", "null: another document's rows"), ("null_rows", "null: rows permuted")):
        if (points["y_null"].notna() & (points["y_null_kind"] == kind)).any() and _in_view(axes, "null"):
            handles.append(Patch(facecolor=style.NULL_SHADE, label=text))
    if _in_view(axes, "ceiling"):
        handles.append(entry("ceiling", style.CEILING, _DOTS, lw=1.4))
    kinds = set(paths["kind"])
    handles += [entry("embedding", _line_colour("embed"), style.LINES["embed"], lw=0.7)] if "embed" in kinds else []
    handles += (
        [entry("final norm", _line_colour("norm"), style.LINES["norm"], "o", 5, mfc="0.8", mew=0.5, lw=0.7)]
        if "norm" in kinds
        else []
    )
    if (paths["position"] == 0).any():
        handles.append(entry("step 0, untrained", "black", marker="x", mew=0.7))
    if (points["kind"] == "control").any():
        handles.append(entry("random Gaussian rows", "black", marker="*", ms=6, mew=0))
    if paths["duplicate"].any():
        handles.append(entry("duplicate weights", marker="o", mfc="white"))
    return handles


def _in_view(axes: list[Axes], gid: str) -> bool:
    """Whether any point of the lines of that name lies inside its axes."""
    for ax in axes:
        left, right, bottom, top = ax.axis()
        for line in ax.lines:
            x, y = np.asarray(line.get_xydata()).reshape(-1, 2).T
            if line.get_gid() == gid and bool(((x >= left) & (x <= right) & (y >= bottom) & (y <= top)).any()):
                return True
    return False


def _between(path: Float[np.ndarray, "checkpoints 2"]) -> Float[np.ndarray, "points 2"]:
    """Points along the segments of a path, so that a text is kept off its lines too."""
    shares = np.linspace(0, 1, 6 + 200 // len(path))[1:-1, None, None]
    return (path[None, :-1] * (1 - shares) + path[None, 1:] * shares).reshape(-1, 2)
