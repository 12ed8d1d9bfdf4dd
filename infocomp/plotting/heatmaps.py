"""Layer × checkpoint heatmaps of one model: complexity, expressivity, optimality, context complexity.

Columns are the measured checkpoints in order (not to scale), rows the sites in order of depth, embedding and final norm
set apart. A dot marks an information not above its own null, hatching a checkpoint with the weights of an earlier one,
an empty cell a number that was refused or not computed.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from infocomp.plotting import style
from infocomp.plotting.selection import NothingToDraw, default_label, drawable, models, values_of

QUANTITIES = ("complexity", "expressivity", "optimality", "context_complexity")
OPTIMALITY_RANGE = (-0.5, 1.5)  # a ratio near a zero denominator would take the whole colour scale
MOST_ROW_NAMES = 9
_EMPTY = "0.93"


def heatmaps(
    table: pd.DataFrame, model: str | None = None, label: str | None = None, corpus: str | None = None
) -> Figure:
    """Four heatmaps of a model (the only one by default), at one label; NothingToDraw says what the table lacks."""
    return draw_heatmaps(heatmap_rows(table, model, label, corpus))


def heatmap_rows(
    table: pd.DataFrame, model: str | None = None, label: str | None = None, corpus: str | None = None
) -> pd.DataFrame:
    """What `heatmaps` draws: one row a cell."""
    rows = drawable(table, corpus)
    rows = rows[rows["model"] == one_model(rows, model)]
    label = label or default_label(rows, "expressivity")
    parts = [values_of(rows, name, None if name == "context_complexity" else label) for name in QUANTITIES]
    cells = pd.concat(parts)
    cells = cells[cells["position"].notna()]
    if cells.empty:
        raise NothingToDraw("heatmaps need complexity, expressivity or context_complexity at checkpoints with a step")
    columns = ["model", "revision", "stage", "branch", "step", "position", "site", "kind", "depth", "name"]
    columns += ["quantity", "label", "value", "null", "null_kind", "ceiling", "duplicate_of", "duplicate"]
    return cells[columns].assign(label=label).reset_index(drop=True)


def one_model(rows: pd.DataFrame, model: str | None) -> str:
    """The named model, or the only one. NothingToDraw where none has that name, or several are there and none named."""
    found = models(rows)
    if model is None and len(found) == 1:
        return found[0]
    if model not in found:
        asked = "name one with model=…" if model is None else f"there is none called {model!r}"
        raise NothingToDraw(f"the table holds {len(found)} models ({', '.join(found)}); {asked}")
    return model


def draw_heatmaps(cells: pd.DataFrame) -> Figure:
    """The figure of `heatmap_rows`."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 5.0)
        axes: list[Axes] = list(figure.subplots(2, 2).flat)
        checkpoints = cells.drop_duplicates("revision").sort_values(["position", "branch"], ignore_index=True)
        sites = cells.drop_duplicates("site").sort_values("depth", ignore_index=True)
        dotted = False
        for place, (ax, quantity) in enumerate(zip(axes, QUANTITIES, strict=True)):
            dotted |= _heatmap(ax, cells[cells["quantity"] == quantity], quantity, checkpoints, sites)
            if place >= 2:
                ax.set_xlabel("checkpoint, training step")
        label = cells["label"].iloc[0]
        axes[0].set_title(f"complexity I(X; J), X: the last {label}")
        axes[1].set_title(f"expressivity I(Y; J), Y: the {label} that follows")
        axes[2].set_title("optimality, I(Y; J) / I(X; J) above null")
        axes[3].set_title("context complexity I(context; J)")
        handles: list[Line2D | Patch] = [Patch(facecolor="none", edgecolor="none", label=style.DIRECTION)]
        if dotted:
            handles.append(
                Line2D([], [], ls="", marker="o", ms=3, mfc="white", mec=style.INK, mew=0.4, label="not above its null")
            )
        if checkpoints["duplicate"].any():
            handles.append(Patch(facecolor="0.6", edgecolor="white", hatch="/////", lw=0, label="duplicate weights"))
        if len(cells) < len(QUANTITIES) * len(checkpoints) * len(sites):
            handles.append(Patch(facecolor=_EMPTY, label="refused or not computed"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        style.settle(figure)
    return figure


def _heatmap(ax: Axes, cells: pd.DataFrame, quantity: str, checkpoints: pd.DataFrame, sites: pd.DataFrame) -> bool:
    """One panel; whether any of its cells is marked as not above its null."""
    grids = {
        name: cells.pivot(index="site", columns="revision", values=name).reindex(
            index=sites["site"], columns=checkpoints["revision"]
        )
        for name in ("value", "null")
    }
    values, null = (grids[name].to_numpy(dtype=float) for name in ("value", "null"))
    ax.set_facecolor(_EMPTY)
    ax.spines[:].set_visible(True)
    bounds = OPTIMALITY_RANGE if quantity == "optimality" else (-np.inf, np.inf)
    if np.isfinite(values).any():
        low, high = max(np.nanmin(values), bounds[0]), min(np.nanmax(values), bounds[1])
        mesh = ax.pcolormesh(values, cmap=style.VALUE_COLOURS, vmin=low, vmax=max(high, low + 1e-9), rasterized=True)
        mesh.set_gid(quantity)
        ends = ("min" if np.nanmin(values) < low else "") + ("max" if np.nanmax(values) > high else "")
        figure = ax.get_figure(root=True)
        assert figure is not None
        bar = figure.colorbar(
            mesh, ax=ax, pad=0.02, aspect=22, extend={"": "neither", "minmax": "both"}.get(ends, ends)
        )
        bar.set_label("ratio" if quantity == "optimality" else "bits")
    else:
        ax.set_xlim(0, len(checkpoints))
        ax.set_ylim(0, len(sites))
        ax.text(0.5, 0.5, f"no {quantity} in the table", transform=ax.transAxes, ha="center", va="center")
    with np.errstate(invalid="ignore"):
        below = (values <= null) & (quantity != "optimality")  # its null is the raw ratio, another number
    size = np.clip(90.0 / max(len(checkpoints) * 1.2, len(sites)), 0.5, 4.0)
    up, across = np.nonzero(below)
    ax.scatter(
        across + 0.5, up + 0.5, s=size**2, facecolors="white", edgecolors=style.INK, linewidths=0.1 * size, gid="dots"
    )
    for column in np.flatnonzero(checkpoints["duplicate"].to_numpy()):
        hatched = Rectangle((column, 0), 1, len(sites), fill=False, hatch="/////", lw=0, ec="white", gid="duplicate")
        ax.add_patch(hatched)
    kinds = sites["kind"].to_numpy()
    for row in np.flatnonzero(kinds[1:] != kinds[:-1]):
        ax.axhline(row + 1, color="white", lw=2)
    stages = checkpoints["stage"].to_numpy()
    for column in np.flatnonzero(stages[1:] != stages[:-1]):
        ax.axvline(column + 1, color=style.CATEGORIES[1], lw=1)
    _ticks(ax, checkpoints, sites)
    return bool(below.any())


def _ticks(ax: Axes, checkpoints: pd.DataFrame, sites: pd.DataFrame) -> None:
    """Six steps and nine blocks are named at most; embedding and norm always."""
    blocks = np.flatnonzero((sites["kind"] == "block").to_numpy())
    others = np.flatnonzero((sites["kind"] != "block").to_numpy())
    chosen = (
        [int(blocks[place]) for place in style.thin(len(blocks), MOST_ROW_NAMES - len(others))] if len(blocks) else []
    )
    named = sorted([*chosen, *others.tolist()])
    if len(sites) > 2 * MOST_ROW_NAMES:
        named = [row for row in named if row in others or all(abs(row - other) > 3 for other in others)]
    ax.set_yticks([row + 0.5 for row in named], labels=list(sites["name"].iloc[named]))
    columns = style.thin(len(checkpoints), 6)
    ax.set_xticks(
        [column + 0.5 for column in columns],
        labels=[style.step_text(step) for step in checkpoints["step"].iloc[columns]],
    )
