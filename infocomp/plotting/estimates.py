"""The estimates page: what each information on the other figures is worth, against the training step; bits.

One column for each label order, complexity above and expressivity below. Lines are bias-corrected point estimates, a
piece full where the change it shows stands up among all that the page draws. The pale band leads from the lower to the
upper end of the bracket, the paler one over the outer 95 % interval, and the thin dashes are the plug-in value that the
planes show. Brackets of several sites would hide each other: only the last block has its own drawn.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.changes import JUDGED, draw_line, entries, judge
from infocomp.plotting.curves import SITES, line_width, site_colour
from infocomp.plotting.heatmaps import one_model
from infocomp.plotting.selection import NothingToDraw, drawable, labels_of, named_sites, values_of

QUANTITIES = ("complexity", "expressivity")
MOST_LABELS = 4
MOST_LAYERS = 3
INNER, OUTER = 0.32, 0.14
_ENDS = ["point", "lower", "upper", "ci_low", "ci_high"]
_DASHES = (0, (4, 2))
_DOTS = (0, (1, 1.5))
_COLUMNS = ["model", "revision", "stage", "branch", "step", "position", "site", "kind", "depth", "name", "quantity"]
_COLUMNS += ["label", "bracket", "value", *_ENDS, "null", "null_kind", "duplicate_of", "duplicate", *JUDGED]


def estimates(
    table: pd.DataFrame, model: str | None = None, corpus: str | None = None, changes: pd.DataFrame | None = None
) -> Figure:
    """The estimates page of a model (the only one by default); NothingToDraw says what the table lacks."""
    return draw_estimates(estimates_rows(table, model, corpus, changes))


def estimates_rows(
    table: pd.DataFrame, model: str | None = None, corpus: str | None = None, changes: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What `estimates` draws: one row a point; `bracket` marks the site whose bracket and plug-in are drawn."""
    rows = drawable(table, corpus)
    lacking = [name for name in _ENDS if name not in rows.columns]
    if lacking:
        raise NothingToDraw(f"the table lacks the columns {', '.join(lacking)}; run the study again with this infocomp")
    rows = rows[rows["model"] == one_model(rows, model)]
    rows = rows[rows["point"].notna() & rows["position"].notna()]
    labels = list(dict.fromkeys(labels_of(rows, "complexity") + labels_of(rows, "expressivity")))[:MOST_LABELS]
    parts = [values_of(rows, quantity, label) for quantity in QUANTITIES for label in labels]
    if not any(len(part) for part in parts):
        raise NothingToDraw("estimates need complexity or expressivity with a point estimate and a step")
    found = named_sites(pd.concat(parts), MOST_LAYERS)
    inside = found.loc[found["kind"] == "block", "depth"]
    last = inside.max() if len(inside) else found["depth"].max()
    found = found.assign(bracket=found["depth"] == last)
    return judge(found, changes, "point")[_COLUMNS].reset_index(drop=True)


def draw_estimates(points: pd.DataFrame) -> Figure:
    """The figure of `estimates_rows`."""
    with style.styled():
        labels = list(points["label"].unique())
        width = style.PAGE if len(labels) > 2 else 1.4 + 2.2 * len(labels)
        figure = style.new_figure(width, 5.4)
        grid = figure.subplots(2, len(labels), squeeze=False, sharex=True, sharey="row")
        for row, quantity in zip(grid, QUANTITIES, strict=True):
            for ax, label in zip(row, labels, strict=True):
                own = points[(points["quantity"] == quantity) & (points["label"] == label)]
                for _, path in own.groupby(["site", "branch"], sort=False):
                    _draw_path(ax, path.sort_values("position"), site_colour(path, points))
                if own.empty:
                    ax.text(0.5, 0.5, f"no {quantity}\nin the table", transform=ax.transAxes, ha="center", va="center")
                title = "X: the last {}" if quantity == "complexity" else "Y: the {} that follows"
                ax.set_title(title.format(label), fontsize=7)
                _step_axis(ax, list(points["position"]), len(labels))
                ax.set_xlabel("training step" if quantity == QUANTITIES[-1] else "")
            row[0].set_ylabel(style.AXIS[quantity])
        style.legend_below(figure, _legend(points), style.DIRECTION)
        style.settle(figure)
    return figure


def _draw_path(ax: Axes, path: pd.DataFrame, colour: ColorType) -> None:
    steps = path["position"].to_numpy()
    gid = "|".join(str(path[name].iloc[0]) for name in ("model", "site", "quantity", "label"))
    kind = str(path["kind"].iloc[0])
    draw_line(ax, path, "point", colour, line_width(kind), gid, zorder=2.8 if kind == "norm" else 3)
    size = float(np.interp(len(path), [12, 160], [2.4, 1.0]))
    for hollow in (False, True):
        shown = path[path["duplicate"] == hollow]
        look = {"mfc": "white", "mew": 0.7, "ms": size + 1} if hollow else {"mfc": colour, "mew": 0, "ms": size}
        name = "hollow" if hollow else "filled"
        ax.plot(
            shown["position"],
            shown["point"],
            ls="",
            marker="o",
            mec=colour,
            zorder=3 + hollow,
            gid=f"{gid}|{name}",
            **look,
        )
    if not path["bracket"].iloc[0]:
        return
    for low, high, alpha, name in (("lower", "upper", INNER, "bracket"), ("ci_low", "ci_high", OUTER, "interval")):
        band = ax.fill_between(steps, path[low], path[high], color=colour, alpha=alpha, lw=0, zorder=1.5)
        band.set_gid(f"{gid}|{name}")
    ax.plot(steps, path["value"], color=colour, lw=0.7, ls=_DASHES, zorder=2.5, gid=f"{gid}|plug-in")
    ax.plot(steps, path["null"], color=colour, lw=0.8, ls=_DOTS, zorder=2.5, gid=f"{gid}|null")


def _step_axis(ax: Axes, steps: list[float], columns: int) -> None:
    """The common step axis, with fewer numbers where the panels are narrow."""
    style.step_axis(ax, steps)
    ticks = list(ax.get_xticks())
    if columns > 2 and len(ticks) > 3:
        ticks = [ticks[0], ticks[len(ticks) // 2], ticks[-1]]
        ax.set_xticks(ticks, labels=[style.step_text(tick) for tick in ticks])


def _legend(points: pd.DataFrame) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for _, site in points.sort_values("depth").drop_duplicates("site").iterrows():
        colour, name = site_colour(site.to_frame().T, points), SITES.get(site["name"], site["name"])
        handles.append(Line2D([], [], color=colour, lw=line_width(site["kind"]), marker="o", ms=2.4, label=name))
    name = str(points.loc[points["bracket"], "name"].iloc[0])
    whose = SITES.get(name, name)
    handles.append(Patch(facecolor=style.GREY, alpha=INNER + OUTER, lw=0, label=f"lower to upper end ({whose})"))
    if points.loc[points["bracket"], "ci_low"].notna().any():
        handles.append(Patch(facecolor=style.GREY, alpha=OUTER, lw=0, label=f"outer 95 % interval ({whose})"))
    handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=_DASHES, label=f"plug-in ({whose})"))
    if points.loc[points["bracket"], "null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.8, ls=_DOTS, label=f"null of the plug-in ({whose})"))
    handles += entries(points)
    if points["duplicate"].any():
        look = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    return handles
