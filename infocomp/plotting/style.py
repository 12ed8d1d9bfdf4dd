"""How every figure looks: one palette, one set of sizes, one step axis, one way to save.

Sizes are inches: a column of 3.25 and a page of 6.5, with text of 6.5 to 8 points at that size. Colour means training
step on planes (cividis), depth on curves (plasma), a value in heatmaps (viridis) and the label's order in profiles
(seaborn's colour-blind safe set); no distinction rests on colour alone. Fonts are matplotlib's own STIX,
embedded as TrueType; a figure saved twice gives the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, FuncNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

COLUMN = 3.25
PAGE = 6.5

GREY = "0.45"
NULL_SHADE = "0.87"
CEILING = "#d55e00"
INK = "0.15"
CATEGORIES = tuple(seaborn.color_palette("colorblind", 6).as_hex())
MARKERS = ("o", "^", "s", "D", "v", "P")
LINES = {"block": "-", "embed": ":", "norm": "--", "other": "-."}

DIRECTION = "J: the soft-quantised direction"
AXIS = {
    "complexity": "complexity I(X; J), bits",
    "expressivity": "expressivity I(Y; J), bits",
    "context_complexity": "context complexity I(context; J), bits",
    "optimality": "optimality, ratio above the null",
    "bits_per_byte": "coding rate, bits per byte",
}

_SETTINGS = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # the second for signs the first lacks
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.5,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "infocomp",
}


@contextmanager
def styled() -> Iterator[None]:
    """The settings every figure is drawn and saved under; the caller's own come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # pyright: ignore[reportArgumentType, reportCallIssue]
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, laid out by constraints, outside pyplot's register of figures."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> None:
    """Lay the figure out and keep it so: text placed afterwards by its extent stays where it was placed."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # not "none", which leaves a placeholder and costs a drawing at every save


def legend_below(figure: Figure, handles: Sequence[Artist], title: str | None = None) -> None:
    """A legend under everything, in as many columns as the figure is wide enough for; nothing where it is empty."""
    if not handles and not title:
        return
    for columns in range(min(7, max(1, len(handles))), 0, -1):
        legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, title=title)
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            return
        legend.remove()


def save(figure: Figure, folder: str | Path, name: str, drawn: pd.DataFrame) -> list[Path]:
    """Write `name`.pdf, .png and .csv (the rows that were drawn) into `folder`; equal figures give equal bytes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("pdf", "png", "csv")]
    with styled():
        figure.savefig(paths[0], metadata={"CreationDate": None, "Creator": "infocomp", "Producer": None})
        figure.savefig(paths[1], metadata={"Software": None})
    drawn.to_csv(paths[2], index=False, lineterminator="\n")
    return paths


def clipped(name: str, low: float, high: float) -> Colormap:
    """A matplotlib colour map without its ends, which are too pale or too dark on paper."""
    return ListedColormap(matplotlib.colormaps[name](np.linspace(low, high, 256)), name=f"{name}_clipped")


STEP_COLOURS = clipped("cividis", 0.0, 0.96)
DEPTH_COLOURS = clipped("plasma", 0.0, 0.8)
VALUE_COLOURS = clipped("viridis", 0.0, 1.0)


def step_norm(steps: Sequence[float]) -> FuncNorm:
    """Steps to colours by log(step + 1); a single step gets a range of its own, so that it has a colour."""
    low, high = float(np.min(steps)), float(np.max(steps))
    return FuncNorm((np.log1p, np.expm1), vmin=low, vmax=high if high > low else low + 1)


def step_ticks(low: float, high: float) -> list[float]:
    """Where steps are written: 0 and powers of ten, at most five, and the last; ends and a middle where few fit."""
    powers = [0.0] + [10.0**power for power in range(13)]
    inside = [tick for tick in powers if low <= tick <= high]
    if len(inside) < 3:
        middle = float(f"{np.expm1((np.log1p(low) + np.log1p(high)) / 2):.2g}")
        inside = sorted({low, middle, high}) if low < middle < high else sorted({low, high})
    while len(inside) > 5:
        inside = inside[:1] + inside[2::2] if len(inside) % 2 else inside[:1] + inside[1::2]
    room = 0.12 * (np.log1p(high) - np.log1p(low))
    return [*inside, high] if np.log1p(high) - np.log1p(inside[-1]) > room else inside


def step_text(step: float) -> str:
    """A step in few characters: 0, 512, 2k, 143k, 1M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if step >= size:
            return f"{step / size:.3g}{letter}"
    return f"{step:g}"


def step_axis(ax: Axes, steps: Sequence[float]) -> None:
    """A symlog x-axis over training steps (step 0 exists); linear where the steps span less than a decade."""
    low, high = float(np.min(steps)), float(np.max(steps))
    if low > 0 and high < 10 * low:
        ax.set_xscale("linear")
        margin = 0.05 * max(high - low, 1.0)
        ax.set_xlim(low - margin, high + margin)
        ticks = sorted({low, float(f"{(low + high) / 2:.3g}"), high})
    else:
        ax.set_xscale("symlog", linthresh=1, linscale=0.6)
        ax.set_xlim(-0.15 if low < 1 else low * 0.8, max(high, 1.0) * 1.25)
        ticks = step_ticks(low, high)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([step_text(tick) for tick in ticks])
    ax.set_xlabel("training step")


def thin(count: int, most: int) -> list[int]:
    """At most `most` of the positions 0 … count-1: equal steps from the first, and the last (a step may be longer)."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    stride = -(-(count - 1) // (most - 1))
    chosen = list(range(0, count - 1, stride))
    if len(chosen) > 1 and count - 1 - chosen[-1] <= stride / 2:
        chosen.pop()
    return [*chosen, count - 1]
