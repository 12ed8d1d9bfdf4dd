"""The training page: complexity, expressivity, optimality and bits per byte against the training step.

Every information stands with its own null (dashed, the same colour) and its ceiling (dotted); the coding rate with the
rates of classical coders on the same bytes. Bands are one standard deviation over anchor draws. Where changes were
judged (`plotting.changes`), a piece of a curve is full if its change stands up and pale if it does not.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation, Text
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.changes import JUDGED, draw_line, entries, judge
from infocomp.plotting.placement import spread
from infocomp.plotting.selection import (
    CLASSICAL,
    NothingToDraw,
    default_label,
    drawable,
    labels_of,
    models,
    named_sites,
    short_names,
    values_of,
)

QUANTITIES = ("complexity", "expressivity", "optimality", "bits_per_byte")
OPTIMALITY_RANGE = (-0.5, 1.5)
MOST_LAYERS = 4
_DASHES = (0, (4, 2))
_DOTS = (0, (1, 1.5))
SITES = {"embed": "embedding", "norm": "final norm"}
_COLUMNS = ["model", "revision", "stage", "branch", "step", "position", "site", "kind", "depth", "name", "estimator"]
_COLUMNS += ["quantity", "label", "value", "null", "null_kind", "ceiling", "draw_std", "duplicate_of", "duplicate"]
_COLUMNS += JUDGED


def training(
    table: pd.DataFrame, label: str | None = None, corpus: str | None = None, changes: pd.DataFrame | None = None
) -> Figure:
    """The training page, at one label (the shortest by default); NothingToDraw says what the table lacks."""
    return draw_training(training_rows(table, label, corpus, changes))


def training_rows(
    table: pd.DataFrame, label: str | None = None, corpus: str | None = None, changes: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What `training` draws: one row a point, and one for each classical coder."""
    rows = drawable(table, corpus)
    if label is None and labels_of(rows, "expressivity"):
        label = default_label(rows, "expressivity")
    informations = pd.concat([values_of(rows, name, label) for name in QUANTITIES[:3]])
    rates = values_of(rows, "bits_per_byte")
    most = max(2, 2 * MOST_LAYERS // (1 + len(models(rows))))
    informations = judge(named_sites(informations, most), changes)
    points = pd.concat([informations, judge(rates, None)])
    points = points[points["position"].notna()]
    if points.empty:
        raise NothingToDraw("curves against the step need complexity, expressivity or bits_per_byte with a step")
    classical = rows[(rows["quantity"] == "bits_per_byte") & (rows["estimator"] == CLASSICAL)]
    classical = judge(classical.drop_duplicates("model"), None)
    return pd.concat([points, classical])[_COLUMNS].reset_index(drop=True)


def draw_training(points: pd.DataFrame) -> Figure:
    """The figure of `training_rows`."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 5.6)
        axes: list[Axes] = list(figure.subplots(2, 2).flat)
        measured = points[points["estimator"] != CLASSICAL]
        steps = list(measured["position"])
        names = list(measured["model"].unique())
        for ax, quantity in zip(axes, QUANTITIES, strict=True):
            own = measured[measured["quantity"] == quantity]
            for (model, _site, _branch), path in own.groupby(["model", "site", "branch"], sort=False):
                _curve(ax, path.sort_values("position"), site_colour(path, measured), names.index(str(model)))
            style.step_axis(ax, steps)
            ax.set_ylabel(style.AXIS[quantity])
            if own.empty:
                ax.text(0.5, 0.5, f"no {quantity} in the table", transform=ax.transAxes, ha="center", va="center")
                ax.set_yticks([])
            _mark_stages(ax, measured)
        informations = measured[measured["quantity"] != "bits_per_byte"]
        if len(informations):
            label = informations["label"].iloc[0]
            axes[0].set_title(f"X: the last {label}")
            axes[1].set_title(f"Y: the {label} that follows")
        ratios = measured[measured["quantity"] == "optimality"]
        if ratios["null"].notna().any():
            axes[2].set_title("dashed: raw ratio of unrelated rows")
        if not ratios["value"].between(*OPTIMALITY_RANGE).all():
            axes[2].set_ylim(*OPTIMALITY_RANGE)
            axes[2].set_ylabel(f"{style.AXIS['optimality']} (cut)")
        style.legend_below(figure, _legend(measured), style.DIRECTION)
        if measured.loc[measured["quantity"] == "bits_per_byte", "null"].notna().any():
            axes[3].set_title("dashed: unigram code")
        names_of_coders = _draw_coders(axes[3], points[points["estimator"] == CLASSICAL])
        style.settle(figure)
        _spread_names(axes[3], names_of_coders)
    return figure


def _curve(ax: Axes, path: pd.DataFrame, colour: ColorType, model: int) -> None:
    steps, values = path["position"].to_numpy(), path["value"].to_numpy()
    quantity = str(path["quantity"].iloc[0])
    marker = style.MARKERS[model % len(style.MARKERS)]
    size = float(np.interp(len(path), [12, 160], [2.6, 1.2]))
    gid = f"{path['model'].iloc[0]}|{path['site'].iloc[0]}|{quantity}"
    kind = str(path["kind"].iloc[0])
    draw_line(ax, path, "value", colour, line_width(kind), gid, zorder=2.8 if kind == "norm" else 3)
    for hollow in (False, True):
        shown = (path["duplicate"] == hollow).to_numpy()
        ax.plot(
            steps[shown],
            values[shown],
            ls="",
            marker=marker,
            ms=size + hollow,
            mfc="white" if hollow else colour,
            mec=colour,
            mew=0.7 if hollow else 0,
            zorder=3 + hollow,
            gid="hollow" if hollow else "filled",
        )
    std = path["draw_std"].to_numpy()
    if np.isfinite(std).any():
        ax.fill_between(steps, values - std, values + std, color=colour, alpha=0.18, lw=0, zorder=2)
    ax.plot(steps, path["null"], color=colour, lw=0.7, ls=_DASHES, zorder=2, gid="null")
    ax.plot(steps, path["ceiling"], color=colour, lw=0.8, ls=_DOTS, zorder=2, gid="ceiling")


def line_width(kind: str) -> float:
    """The final norm is drawn broad, below the others: it often lies on the last block."""
    return 2.4 if kind == "norm" else 1.0


def site_colour(path: pd.DataFrame, measured: pd.DataFrame) -> ColorType:
    """Blocks by their depth in their own model, the rest without a hue."""
    kind = path["kind"].iloc[0]
    if kind == "block":
        own = measured[(measured["kind"] == "block") & (measured["model"] == path["model"].iloc[0])]
        return style.DEPTH_COLOURS(path["depth"].iloc[0] / max(own["depth"].max(), 1.0))
    return {"embed": style.GREY}.get(str(kind), style.INK)


def _mark_stages(ax: Axes, measured: pd.DataFrame) -> None:
    """A line at the first checkpoint of every stage but the first."""
    first = measured.groupby("stage")["position"].min().sort_values()
    for start in first.iloc[1:]:
        ax.axvline(start, color=style.GREY, lw=0.8, ls="-.", zorder=1, gid="stage")


def _draw_coders(ax: Axes, coders: pd.DataFrame) -> list[Annotation]:
    """A line across for each classical coder, named to the right of the axes with its rate."""
    written = []
    low, high = ax.get_ylim()
    low, high = min([low, *coders["value"]]), max([high, *coders["value"]])
    ax.set_ylim(low - 0.05 * (high - low), high)
    for name, rate in zip(coders["model"], coders["value"], strict=True):
        ax.axhline(rate, color=style.GREY, lw=0.7, zorder=1, gid="classical")
        at = ("axes fraction", "data")
        leader = {"arrowstyle": "-", "lw": 0.5, "color": style.GREY, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        text = ax.annotate(
            f"{name}: {rate:.2f}",
            (1.0, rate),
            (1.05, rate),
            xycoords=at,
            textcoords=at,
            va="center",
            fontsize=6.5,
            annotation_clip=False,
            arrowprops=leader,
        )
        written.append(text)
    return written


def _spread_names(ax: Axes, texts: list[Annotation]) -> None:
    """Names side by side move apart, up and down, until none touches another."""
    if not texts:
        return
    gap = 1.15 * max(Text.get_window_extent(text).height for text in texts)
    wanted = [float(ax.transData.transform((0, text.xy[1]))[1]) for text in texts]
    for text, pixel in zip(texts, spread(wanted, gap), strict=True):
        text.set_y(float(ax.transData.inverted().transform((0, pixel))[1]))


def _legend(measured: pd.DataFrame) -> list[Line2D | Patch]:
    """Sites by colour, models by marker, then what the kinds of line mean; nothing that is not drawn."""
    names = short_names(list(measured["model"].unique()))
    handles: list[Line2D | Patch] = []
    informations = measured[measured["quantity"] != "bits_per_byte"]
    for place, model in enumerate(names):
        look = {"marker": style.MARKERS[place % len(style.MARKERS)], "ms": 3}
        prefix = f"{names[model]} " if len(names) > 1 else ""
        sites = informations[informations["model"] == model].sort_values("depth").drop_duplicates("site")
        for _, site in sites.iterrows():
            colour = site_colour(site.to_frame().T, measured)
            handles.append(
                Line2D(
                    [],
                    [],
                    color=colour,
                    lw=line_width(site["kind"]),
                    label=f"{prefix}{SITES.get(site['name'], site['name'])}",
                    **look,
                )
            )
        if sites.empty and len(names) > 1:
            handles.append(Line2D([], [], color=style.INK, label=prefix.strip(), **look))
    if measured["null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=_DASHES, label="null"))
    if measured["ceiling"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.8, ls=_DOTS, label="ceiling"))
    if measured["draw_std"].notna().any():
        handles.append(Patch(facecolor=style.GREY, alpha=0.3, lw=0, label="± sd over draws"))
    handles += entries(measured)
    if measured["duplicate"].any():
        look = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    if measured["stage"].nunique() > 1:
        handles.append(Line2D([], [], color=style.GREY, lw=0.8, ls="-.", label="start of a stage"))
    return handles
