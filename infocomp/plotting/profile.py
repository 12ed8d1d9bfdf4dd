"""The layer profile of a model's last checkpoint: complexity and expressivity at every site and label order, bits.

Each label has its own null (dashed) and ceiling (dotted) in its colour. The embedding and the final norm stand apart
from the blocks, unconnected.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.heatmaps import one_model
from infocomp.plotting.selection import NothingToDraw, drawable, labels_of, values_of

MOST_LABELS = 6
_DASHES = (0, (4, 2))
_DOTS = (0, (1, 1.5))
_COLUMNS = ["model", "revision", "step", "site", "kind", "layer", "name", "place", "quantity", "label", "value"]
_COLUMNS += ["efficiency", "null", "null_kind", "ceiling", "draw_std", "duplicate_of", "duplicate"]


def layer_profile(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> Figure:
    """The profile of a model (the only one by default) at its last checkpoint; NothingToDraw says what lacks."""
    return draw_layer_profile(layer_profile_rows(table, model, corpus))


def layer_profile_rows(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> pd.DataFrame:
    """What `layer_profile` draws: one row a site, quantity and label; `place` is where on the x-axis."""
    rows = drawable(table, corpus)
    rows = rows[rows["model"] == one_model(rows, model)]
    labels = labels_of(rows, "complexity") + labels_of(rows, "expressivity")
    labels = list(dict.fromkeys(labels))[:MOST_LABELS]
    parts = [values_of(rows, quantity, label) for quantity in ("complexity", "expressivity") for label in labels]
    if not any(len(part) for part in parts):
        raise NothingToDraw("a layer profile needs complexity or expressivity at some label")
    found = pd.concat(parts)
    last = found.sort_values("position", kind="stable", na_position="last")["revision"].iloc[-1]
    found = found[found["revision"] == last]
    depths = sorted(found["depth"].unique())
    kinds = dict(zip(found["depth"], found["kind"], strict=True))
    apart = max(1.6, len(depths) / 12)
    gaps = np.cumsum([0.0] + [1.0 if kinds[one] == kinds[other] else apart for one, other in pairwise(depths)])
    if "efficiency" not in found:
        found = found.assign(efficiency=np.nan)
    placed = found.assign(place=found["depth"].map(dict(zip(depths, gaps, strict=True))))
    return placed[_COLUMNS].reset_index(drop=True)


def draw_layer_profile(points: pd.DataFrame) -> Figure:
    """The figure of `layer_profile_rows`."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 3.1)
        axes: list[Axes] = list(figure.subplots(1, 2).flat)
        labels = list(points["label"].unique())
        for ax, quantity in zip(axes, ("complexity", "expressivity"), strict=True):
            own = points[points["quantity"] == quantity]
            for (label, _kind), path in own.groupby(["label", "kind"], sort=False):
                _profile(ax, path.sort_values("place"), labels.index(str(label)), points["site"].nunique())
            ax.set_ylabel(style.AXIS[quantity])
            if own.empty:
                ax.text(0.5, 0.5, f"no {quantity} in the table", transform=ax.transAxes, ha="center", va="center")
            _sites(ax, points)
            _efficiency(ax, points)
        axes[0].set_title("X: the last …")
        axes[1].set_title("Y: the … that follows")
        step = points["step"].iloc[0]
        when = f"step {style.step_text(step)}" if np.isfinite(step) else str(points["revision"].iloc[0])
        for ax in axes:
            ax.set_xlabel(f"site, at {when}")
        style.legend_below(figure, _legend(points, labels), style.DIRECTION)
        style.settle(figure)
    return figure


def _profile(ax: Axes, path: pd.DataFrame, order: int, sites: int) -> None:
    colour, marker = style.CATEGORIES[order % len(style.CATEGORIES)], style.MARKERS[order % len(style.MARKERS)]
    place, hollow = path["place"], bool(path["duplicate"].any())
    many = len(path) > 24
    ax.errorbar(
        place,
        path["value"],
        yerr=path["draw_std"].fillna(0.0),
        color=colour,
        marker=marker,
        ms=2 if many else 3.2,
        mfc="white" if hollow else colour,
        mew=0.7,
        lw=1.0,
        elinewidth=0.7,
        zorder=3,
    )
    single, wide = len(path) == 1, 0.35 * max(1.0, sites / 20)
    x = [place.iloc[0] - wide, place.iloc[0] + wide] if single else place
    for column, dashes, width in (("null", _DASHES, 0.8), ("ceiling", _DOTS, 0.9)):
        y = path[column].repeat(2) if single else path[column]
        ax.plot(x, y, color=colour, ls=dashes, lw=width, zorder=2, gid=column)


def _sites(ax: Axes, points: pd.DataFrame) -> None:
    """Embedding and norm are always named, blocks thinned to eight."""
    sites = points.drop_duplicates("site").sort_values("place", ignore_index=True)
    blocks = sites[sites["kind"] == "block"]
    chosen = blocks.iloc[style.thin(len(blocks), 8)] if len(blocks) else blocks
    named = pd.concat([chosen, sites[sites["kind"] != "block"]])
    ax.set_xticks(list(named["place"]), labels=[str(name) for name in named["name"]])
    long = len(blocks) > 8 or named["name"].str.len().max() > 6
    ax.tick_params(axis="x", rotation=90 if long else 0)


def _efficiency(ax: Axes, points: pd.DataFrame) -> None:
    """A second axis of the value over log2 m, where the table gives that ratio and it is one number."""
    ratio = (points["efficiency"] / points["value"]).dropna()
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) and np.ptp(ratio) < 1e-6 * ratio.mean():
        factor = float(ratio.mean())
        axis = ax.secondary_yaxis(
            "right", functions=(lambda bits: np.asarray(bits) * factor, lambda share: np.asarray(share) / factor)
        )
        axis.set_ylabel("efficiency, bits / log₂ m")


def _legend(points: pd.DataFrame, labels: list[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=style.CATEGORIES[order % 6], marker=style.MARKERS[order % 6], ms=3.2, label=label)
        for order, label in enumerate(labels)
    ]
    for column, dashes in (("null", _DASHES), ("ceiling", _DOTS)):
        if points[column].notna().any():
            handles.append(Line2D([], [], color=style.GREY, lw=0.9, ls=dashes, label=column))
    if points["duplicate"].any():
        look = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    return handles
