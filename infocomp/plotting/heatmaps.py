"""Layer × checkpoint heatmaps of one model: complexity, expressivity, optimality, context complexity.

Columns are the measured checkpoints in order (not to scale), rows the sites in order of depth, embedding and final norm
set apart. A dot marks an information not above its own null, hatching a checkpoint with the weights of an earlier one,
an empty cell a number that was refused or not computed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from infocomp.plotting import style
from infocomp.plotting.selection import NothingToDraw, drawable, labels_of, models, values_of

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
    label = label or ([*labels_of(rows, "expressivity"), *labels_of(rows, "complexity"), ""])[0]
    parts = [values_of(rows, name, None if name == "context_complexity" else label) for name in QUANTITIES]
    cells = pd.concat(parts)
    cells = cells[cells["position"].notna()]
    if cells.empty:
        raise NothingToDraw("heatmaps need an information or optimality at checkpoints with a step")
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
        rows = _Rows.of(cells.drop_duplicates("site").sort_values("depth", ignore_index=True))
        dotted = False
        for place, (ax, quantity) in enumerate(zip(axes, QUANTITIES, strict=True)):
            dotted |= _heatmap(ax, cells[cells["quantity"] == quantity], quantity, checkpoints, rows)
            if place >= 2:
                ax.set_xlabel("checkpoint, training step")
        label = cells["label"].iloc[0]
        axes[0].set_title(f"complexity I(X; J), X: the last {label}")
        axes[1].set_title(f"expressivity I(Y; J), Y: the {label} that follows")
        axes[2].set_title("optimality, I(Y; J) / I(X; J) above null")
        axes[3].set_title("context complexity I(context; J)")
        handles: list[Line2D | Patch] = []
        if dotted:
            handles.append(
                Line2D([], [], ls="", marker="o", ms=3, mfc="white", mec=style.INK, mew=0.4, label="not above its null")
            )
        if checkpoints["duplicate"].any():
            handles.append(Patch(facecolor="0.6", edgecolor="white", hatch="/////", lw=0, label="duplicate weights"))
        if checkpoints["stage"].nunique() > 1:
            handles.append(Line2D([], [], color=style.CATEGORIES[1], lw=1, label="start of a stage"))
        if len(cells) < len(QUANTITIES) * len(checkpoints) * len(rows.names):
            handles.append(Patch(facecolor=_EMPTY, label="refused or not computed"))
        style.legend_below(figure, handles, style.DIRECTION)
        style.settle(figure)
    return figure


@dataclass(frozen=True)
class _Rows:
    """Where the rows of the sites lie: `bottom` and `top` of each, single sites higher where there are many blocks."""

    names: list[str]
    depths: list[float]
    single: np.ndarray
    bottom: np.ndarray
    top: np.ndarray

    @classmethod
    def of(cls, sites: pd.DataFrame) -> "_Rows":
        kinds = sites["kind"].to_numpy()
        single = kinds != "block"
        thick = max(1.0, (~single).sum() / 10)
        gaps = np.concatenate([[0.0], np.where(kinds[1:] != kinds[:-1], 0.3 * thick, 0.0)])
        top = np.cumsum(gaps + np.where(single, thick, 1.0))
        return cls(list(sites["name"]), list(sites["depth"]), single, top - np.where(single, thick, 1.0), top)

    @property
    def middle(self) -> np.ndarray:
        return (self.bottom + self.top) / 2


def _heatmap(ax: Axes, cells: pd.DataFrame, quantity: str, checkpoints: pd.DataFrame, rows: _Rows) -> bool:
    """One panel; whether any of its cells is marked as not above its null."""
    values, null = (
        cells.pivot(index="depth", columns="revision", values=name)
        .reindex(index=rows.depths, columns=checkpoints["revision"])
        .to_numpy(dtype=float)
        for name in ("value", "null")
    )
    count = len(checkpoints)
    ax.set_xlim(0, count)
    ax.set_ylim(0, rows.top[-1])
    for bottom, top in zip(rows.bottom, rows.top, strict=True):
        ax.add_patch(Rectangle((0, bottom), count, top - bottom, fc=_EMPTY, lw=0, zorder=0.5))
    if np.isfinite(values).any():
        _mesh(ax, values, quantity, rows)
    else:
        ax.text(0.5, 0.5, f"no {quantity} in the table", transform=ax.transAxes, ha="center", va="center")
    with np.errstate(invalid="ignore"):
        below = (values <= null) & (quantity != "optimality")  # its null is the raw ratio, another number
    size = float(np.clip(90.0 / max(count * 1.2, len(values)), 0.5, 4.0))
    up, across = np.nonzero(below)
    look = {"facecolors": "white", "edgecolors": style.INK, "linewidths": 0.1 * size}
    ax.scatter(across + 0.5, rows.middle[up], s=size**2, zorder=3, gid="dots", **look)
    for column in np.flatnonzero(checkpoints["duplicate"].to_numpy()).tolist():
        hatched = Rectangle((column, 0), 1, float(rows.top[-1]), fill=False, hatch="/////", lw=0, ec="white")
        hatched.set_gid("duplicate")
        ax.add_patch(hatched)
    stages = checkpoints["stage"].to_numpy()
    for column in np.flatnonzero(stages[1:] != stages[:-1]).tolist():
        ax.axvline(column + 1, color=style.CATEGORIES[1], lw=1)
    _ticks(ax, checkpoints, rows)
    return bool(below.any())


def _mesh(ax: Axes, values: Float[np.ndarray, "sites checkpoints"], quantity: str, rows: _Rows) -> None:
    """The cells, row by row where the rows lie, with their colour bar."""
    bounds = OPTIMALITY_RANGE if quantity == "optimality" else (-np.inf, np.inf)
    low, high = max(np.nanmin(values), bounds[0]), min(np.nanmax(values), bounds[1])
    norm = Normalize(low, max(high, low + 1e-9))
    columns = np.arange(values.shape[1] + 1)
    for row, (bottom, top) in enumerate(zip(rows.bottom, rows.top, strict=True)):
        mesh = ax.pcolormesh(columns, [bottom, top], values[row : row + 1], cmap=style.VALUE_COLOURS, norm=norm)
        mesh.set(rasterized=True, gid=f"{quantity}|{rows.names[row]}")
    ends = ("min" if np.nanmin(values) < low else "") + ("max" if np.nanmax(values) > high else "")
    extend = {"": "neither", "minmax": "both"}.get(ends, ends)
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, style.VALUE_COLOURS), ax=ax, pad=0.02, aspect=22, extend=extend)
    bar.set_label("ratio" if quantity == "optimality" else "bits")


def _ticks(ax: Axes, checkpoints: pd.DataFrame, rows: _Rows) -> None:
    """Six steps and nine blocks are named at most; embedding and norm always."""
    blocks, others = np.flatnonzero(~rows.single), np.flatnonzero(rows.single)
    named = sorted([*blocks[style.thin(len(blocks), MOST_ROW_NAMES)].tolist(), *others.tolist()])
    ax.set_yticks(rows.middle[named], labels=[rows.names[row] for row in named])
    columns = style.thin(len(checkpoints), 6)
    steps = checkpoints["step"].iloc[columns]
    ax.set_xticks([column + 0.5 for column in columns], labels=[style.step_text(step) for step in steps])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
