"""The information plane through grokking: I(context; J) and I(answer; J) of every site, train and test inputs apart.

Bits. All inputs of a population are enumerated, so both informations are of the population itself and the bound is
closed: I(answer; J) ≤ min(I(context; J), H(answer)). A path is the first seed's, its colour the training step; thin
lines are the other seeds'. Shaded is where I(answer; J) would lie for unrelated answers, at the same I(context; J).
A square marks memorization and a star generalization, read off between checkpoints in log(step + 1). Of marks that
would fall on one another the latest is drawn, as is every path's last; the lines go through all checkpoints.
"""

from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES
from infocomp.plotting.grokking_selection import (
    ANSWER,
    CONTEXT,
    EXPRESSIVITY,
    GENERALIZATION,
    MEMORIZATION,
    ROWS,
    THRESHOLD,
    dates,
    grokking_rows,
    of_one_setting,
    site_rank,
)
from infocomp.plotting.grokking_style import EVENTS, site_text
from infocomp.plotting.memorization_style import wrapped
from infocomp.plotting.placement import write_beside
from infocomp.plotting.selection import NothingToDraw

MARKS: dict[str, dict[str, Any]] = {
    MEMORIZATION: {"marker": "s", "ms": 6.5, "mfc": "none", "mec": style.CEILING, "mew": 1.0},
    GENERALIZATION: {"marker": "*", "ms": 9.0, "mfc": "none", "mec": style.CEILING, "mew": 0.9},
}
SIZE = 15.0  # of a mark, in square points
APART = SIZE**0.5  # points between the middles of two marks
X_LABEL = "I(context; J), bits"
Y_LABEL = "I(answer; J), bits"
NULL = "null: unrelated answers"
_AT = ["setting", "model", "control", "seed", "revision", "step", "rows", "site"]
_COLUMNS = ["series", "setting", "model", "control", "seed", "revision", "step", "rows", "site", "quantity"]
_COLUMNS += ["x", "y", "y_null", "bound", "entropy", "low", "high"]


def grokking_plane(table: pd.DataFrame, setting: str | None = None) -> Figure:
    """The information plane of a setting through grokking; NothingToDraw says what the table lacks."""
    return draw_grokking_plane(grokking_plane_rows(table, setting))


def grokking_plane_rows(table: pd.DataFrame, setting: str | None = None) -> pd.DataFrame:
    """What `grokking_plane` draws: a row a checkpoint, site, seed and kind of input, then the two events of the seeds.

    `entropy` is H(answer): what the settings call answer_entropy, else the ceiling of I(answer; J) wherever it
    lies below I(context; J); empty where neither tells it. `bound` is the smaller of it and I(context; J).
    """
    rows = of_one_setting(grokking_rows(table), setting)
    rows = rows.assign(rows=rows["rows"].where(rows["rows"] != "", "all"))
    across = rows[(rows["quantity"] == CONTEXT) & rows["step"].notna()]
    up = rows[(rows["quantity"] == EXPRESSIVITY) & (rows["label"] == ANSWER) & rows["step"].notna()]
    points = (
        across[[*_AT, "value"]]
        .rename(columns={"value": "x"})
        .merge(
            up[[*_AT, "value", "null", "ceiling", "answer_entropy"]].rename(columns={"value": "y", "null": "y_null"}),
            on=_AT,
        )
    )
    if points.empty or points.groupby(["control", "seed", "rows", "site"])["step"].nunique().max() < 2:
        raise NothingToDraw("the plane of grokking needs I(context; J) and I(answer; J) of a site at two checkpoints")
    binding = points["ceiling"].where(points["ceiling"] < points["x"] - 1e-9)
    told = points.assign(entropy=points["answer_entropy"].fillna(binding))
    entropy = told.groupby("rows")["entropy"].transform("max")
    points = told.assign(series="point", entropy=entropy, bound=np.fmin(points["x"], entropy), quantity="")
    rank = {site: place for place, site in enumerate(sorted(points["site"].unique(), key=site_rank))}
    points = points.assign(depth=points["site"].map(rank))
    points = points.sort_values(["control", "rows", "depth", "seed", "step"], kind="stable")
    found = dates(rows)
    wanted = (found["estimator"] == THRESHOLD) & found["quantity"].isin(list(EVENTS)) & found["value"].notna()
    events = found[wanted & found["seed"].isin(points["seed"])].assign(series="event", rows="", site="")
    events = events.assign(step=events["value"], low=events["ci_low"], high=events["ci_high"])
    parts = [part.reindex(columns=_COLUMNS).to_dict("records") for part in (points, events)]
    return pd.DataFrame([row for part in parts for row in part], columns=_COLUMNS)


def draw_grokking_plane(points: pd.DataFrame) -> Figure:
    """The figure of `grokking_plane_rows`."""
    with style.styled():
        paths = points[points["series"] == "point"]
        sides = sorted(paths["control"].unique())
        kinds = [name for name in (*ROWS, "all") if (paths["rows"] == name).any()]
        figure = style.new_figure(style.PAGE, 1.6 + 2.75 * len(sides))
        grid = figure.subplots(len(sides), len(kinds), sharex=True, sharey=True, squeeze=False)
        axes = cast(list[Axes], list(grid.flat))
        panels = [(control, kind) for control in sides for kind in kinds]
        for ax, (control, kind) in zip(axes, panels, strict=True):
            own = points[points["control"] == control]
            _draw_paths(ax, own[own["rows"] == kind], own[own["series"] == "event"])
            model = own["model"].iloc[0]
            ax.set_title(f"{'control: ' if control else ''}{model}; {kind} inputs")
        _view(axes[0], paths)
        for ax, (_, kind) in zip(axes, panels, strict=True):
            _draw_bound(ax, paths[paths["rows"] == kind])
        for ax in grid[-1, :]:
            ax.set_xlabel(X_LABEL)
        for ax in grid[:, 0]:
            ax.set_ylabel(Y_LABEL)
        figure.suptitle(str(points["setting"].iloc[0]), fontsize=9)
        _colour_bar(figure, axes, paths)
        style.legend_below(figure, _legend(points), footnote(points))
        style.settle(figure)
        for ax, (control, kind) in zip(axes, panels, strict=True):
            first = _first(paths[(paths["control"] == control) & (paths["rows"] == kind)])
            _draw_marks(ax, first, _colours(paths))
            _write_names(ax, first)
    return figure


def _first(paths: pd.DataFrame) -> pd.DataFrame:
    return paths[paths["seed"] == paths["seed"].min()]


def _draw_paths(ax: Axes, paths: pd.DataFrame, events: pd.DataFrame) -> None:
    """Nulls, then the other seeds, then the first seed's line and the places of its two events."""
    first = _first(paths)
    for site, path in first.groupby("site", sort=False):
        known = path[path["y_null"].notna()].sort_values("x")
        look: dict[str, Any] = {"color": style.NULL_SHADE, "lw": 5, "solid_capstyle": "round", "zorder": 0.5}
        ax.plot(known["x"], known["y_null"], gid=f"{site}|null", **look)
    for (site, seed), path in paths[paths["seed"] != paths["seed"].min()].groupby(["site", "seed"], sort=False):
        ax.plot(path["x"], path["y"], color="0.5", lw=0.5, alpha=0.45, zorder=1.6, gid=f"{site}|seed {seed:g}")
    for site, path in first.groupby("site", sort=False):
        ax.plot(path["x"], path["y"], color="0.45", lw=0.8, zorder=2, gid=f"{site}|line")
        for _, date in events[events["seed"] == path["seed"].iloc[0]].iterrows():
            at = position(path, float(date["step"]))
            quantity = str(date["quantity"])
            ax.plot(*at[:, None], ls="", zorder=3.5, gid=f"{site}|{quantity}", **MARKS[quantity])


def _draw_marks(ax: Axes, first: pd.DataFrame, colours: ScalarMappable) -> None:
    """The first seed's checkpoints, as far as they do not fall on one another; the layout must be settled."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    places = ax.transData.transform(first[["x", "y"]].to_numpy(float)) * 72 / figure.dpi
    last = ~first.duplicated("site", keep="last").to_numpy()
    marked = first[apart(places, first["step"].to_numpy(float), last, APART)]
    for place, site in enumerate(first["site"].unique()):
        path = marked[marked["site"] == site]
        colour = [tuple(colours.to_rgba(step)) for step in path["step"]]
        marker = style.MARKERS[place % len(style.MARKERS)]
        dots = {"s": SIZE, "c": colour, "marker": marker, "linewidths": 0.25, "edgecolors": "white", "zorder": 3}
        ax.scatter(path["x"], path["y"], gid=str(site), **dots)


def apart(
    places: Float[np.ndarray, "points 2"],
    steps: Float[np.ndarray, " points"],
    last: Bool[np.ndarray, " points"],
    gap: float,
) -> Bool[np.ndarray, " points"]:
    """Which places are kept so that they are `gap` apart: all the `last`, then from the latest step to the first."""
    kept = last.copy()
    for place in np.argsort(-steps, kind="stable"):
        distances = np.linalg.norm(places[kept] - places[place], axis=1)
        kept[place] |= not len(distances) or float(distances.min()) >= gap
    return kept


def position(path: pd.DataFrame, step: float) -> Float[np.ndarray, "2"]:
    """Where a path (step, x, y in order of steps) is at a step: on the straight line between its two checkpoints."""
    steps = np.log1p(path["step"].to_numpy(float))
    return np.array([np.interp(np.log1p(step), steps, path[axis].to_numpy(float)) for axis in ("x", "y")])


def _view(ax: Axes, paths: pd.DataFrame) -> None:
    """All points and nulls, and the bound of every point."""
    up = pd.concat([paths[name] for name in ("y", "y_null", "bound")]).dropna()
    for values, limit in ((paths["x"], ax.set_xlim), (up, ax.set_ylim)):
        margin = 0.1 * float(values.max() - values.min()) or 0.1
        limit(float(values.min()) - margin, float(values.max()) + margin)


def _draw_bound(ax: Axes, paths: pd.DataFrame) -> None:
    """min(I(context; J), H(answer)) over the whole view, which it does not widen."""
    left, right = ax.get_xlim()
    view = ax.axis()
    entropy = paths["entropy"].max()
    x = np.unique([left, right, *([entropy] if left < entropy < right else [])])
    ax.plot(x, np.fmin(x, entropy), color=style.CEILING, lw=1.1, ls=DASHES, zorder=1, gid="bound")
    ax.axis(view)


def _colours(paths: pd.DataFrame) -> ScalarMappable:
    return ScalarMappable(style.step_norm(list(paths["step"])), style.STEP_COLOURS)


def _colour_bar(figure: Figure, axes: list[Axes], paths: pd.DataFrame) -> None:
    bar = figure.colorbar(_colours(paths), ax=axes, aspect=35, pad=0.02)
    ticks = style.step_ticks(float(paths["step"].min()), float(paths["step"].max()))
    bar.set_ticks(ticks, labels=[style.step_text(tick) for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("training step, as log(step + 1)")


def _write_names(ax: Axes, paths: pd.DataFrame) -> None:
    """Each site's name beside its last point, off the paths, the bound and the marks of the events."""
    dense = []
    for _, path in paths.groupby("site", sort=False):
        ends = path[["x", "y"]].to_numpy(float)
        shares = np.linspace(0, 1, 12)[:, None, None]
        dense.append((ends[None, :-1] * (1 - shares) + ends[None, 1:] * shares).reshape(-1, 2))
    dense += [_around(ax, line) for line in ax.lines if str(line.get_gid()).endswith(tuple(MARKS))]
    across = np.linspace(*ax.get_xlim(), 120)
    dense.append(np.c_[across, np.fmin(across, paths["entropy"].max())])
    last = paths.drop_duplicates("site", keep="last")
    texts = [site_text(str(site)) for site in last["site"]]
    write_beside(ax, last[["x", "y"]].to_numpy(float), texts, np.vstack(dense))


def _around(ax: Axes, line: Line2D) -> Float[np.ndarray, "points 2"]:
    """Points along the outline of a mark, in data coordinates."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radius = 0.5 * line.get_markersize() * ax.figure.dpi / 72
    ring = ax.transData.transform(np.asarray(line.get_xydata())) + radius * np.c_[np.cos(angles), np.sin(angles)]
    return np.asarray(ax.transData.inverted().transform(ring))


def _legend(points: pd.DataFrame) -> list[Artist]:
    paths, events = points[points["series"] == "point"], points[points["series"] == "event"]
    entropies = paths["entropy"].dropna()
    most = f"min(I(context; J), H(answer) = {entropies.max():.2f} bits)" if len(entropies) else "I(context; J)"
    handles: list[Artist] = [Line2D([], [], color=style.CEILING, lw=1.1, ls=DASHES, label=f"bound: {most}")]
    if paths["y_null"].notna().any():
        handles.append(Patch(facecolor=style.NULL_SHADE, label=NULL))
    for quantity, text in EVENTS.items():
        if (events["quantity"] == quantity).any():
            handles.append(Line2D([], [], ls="", label=text, **MARKS[quantity]))
    seeds = sorted(paths["seed"].unique())
    handles.append(Line2D([], [], color="0.45", lw=0.8, marker="o", ms=3, label=f"seed {seeds[0]:g}"))
    if len(seeds) > 1:
        handles.append(Line2D([], [], color="0.5", lw=0.5, alpha=0.6, label="other seeds"))
    return handles


def footnote(points: pd.DataFrame) -> str:
    """What the inputs are, and how near the highest point comes to its bound."""
    paths = points[points["series"] == "point"]
    said = [f"{style.DIRECTION}. The inputs are enumerated: no sampling error, and a value counts from its null on."]
    said.append("Of marks that would fall on one another the latest is drawn; lines go through all checkpoints.")
    over = paths[paths["y"] > paths["bound"] + 1e-6]
    if len(over):
        said.append(f"{len(over)} points lie above the bound, by up to {(over['y'] - over['bound']).max():.2g} bits.")
    return wrapped(said)
