"""What the coding figures share: titles that say whether a text was trained on, sizes in words, names beside lines."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.coding_selection import in_training
from infocomp.plotting.placement import FONT_SIZE, spread
from infocomp.plotting.selection import CLASSICAL, short_names

DASHES = (0, (4, 2))
DOTS = (0, (1, 1.5))
BAND = 0.18
MODEL = style.CATEGORIES[0]
RIVAL = style.CEILING
UNIGRAM = "unigram code of the same tokens"
AXIS = {"bits_per_byte": style.AXIS["bits_per_byte"], "bits_per_token": "coding rate, bits per token"}


def byte_text(size: float) -> str:
    """A number of bytes in few characters, decimal units: 512 B, 64 kB, 1.2 MB, 3.5 GB."""
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= 0.9995 * unit:  # what three digits would round up to it
            return f"{float(f'{size / unit:.3g}'):g} {name}"
    return f"{size:.3g} B"


def text_title(points: pd.DataFrame, with_model: bool = False) -> str:
    """The text's name and whether a model was trained on it; `with_model` also the model's, where there is one."""
    models = [str(name) for name in points["model"].unique()] if with_model else []
    named = f"; model: {short_names(models)[models[0]]}" if len(models) == 1 else ""
    return f"{points['corpus'].iloc[0]}; in the training data: {in_training(points)}{named}"


def model_look(models: Sequence[str], model: str) -> dict[str, Any]:
    """Colour and marker of a model, by its order of appearance."""
    place = list(models).index(model)
    return {"color": style.CATEGORIES[place % len(style.CATEGORIES)], "marker": style.MARKERS[place % 6]}


def count_axis(ax: Axes, low: float, high: float, base: int = 10) -> None:
    """A logarithmic x-axis over whole numbers from `low` to `high`: powers of `base` are written, at most eight."""
    ax.set_xscale("log", base=base)
    ax.set_xlim(low / 1.15, high * 1.15)
    powers = [float(base**power) for power in range(64) if low / 1.01 <= base**power <= 1.01 * high]
    ticks = [powers[place] for place in style.thin(len(powers), 8)] or [low, high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([style.step_text(tick) if base == 10 else f"{tick:g}" for tick in ticks])


def log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic y-axis a little beyond `low` to `high`, with six numbers of every power of ten written out."""
    low, high = low / 1.06, high * 1.06
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ticks = [digit * 10.0**power for power in range(-6, 10) for digit in (1, 1.5, 2, 3, 5, 7)]
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def band(ax: Axes, path: pd.DataFrame, x: str, colour: ColorType, gid: str) -> None:
    """The interval of a path (`low` to `high`) as a pale ribbon; nothing where no row has one."""
    known = path[path["low"].notna() & path["high"].notna()]
    if len(known):
        drawn = ax.fill_between(known[x], known["low"], known["high"], color=colour, alpha=BAND, lw=0, zorder=2)
        drawn.set_gid(gid)


def with_interval(rows: pd.DataFrame) -> pd.DataFrame:
    """`low`, `high` and `interval`: the interval in the table, ± one standard error where there is only that."""
    error = rows["std_error"]
    whole = rows["ci_low"].notna() & rows["ci_high"].notna()
    kind = pd.Series("", index=rows.index).mask(error.notna(), "± 1 standard error").mask(whole, "95 % interval")
    low, high = rows["ci_low"].where(whole, rows["value"] - error), rows["ci_high"].where(whole, rows["value"] + error)
    return rows.assign(low=low, high=high, interval=kind)


def interval_name(points: pd.DataFrame) -> str:
    """What the ribbons or bars of these points are, for the legend; "" where there are none."""
    kinds = [kind for kind in dict.fromkeys(points["interval"]) if kind]
    return f"{' or '.join(kinds)} over documents" if kinds else ""


def classical_lines(ax: Axes, coders: pd.DataFrame) -> list[Annotation]:
    """A line across for each classical coder, named to the right of the axes with its rate; widens the y-axis."""
    if coders.empty:
        return []
    low, high = ax.get_ylim()
    low, high = min([low, *coders["value"]]), max([high, *coders["value"]])
    if ax.get_yscale() == "log":
        log_axis(ax, low, high)
    else:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.02 * (high - low))
    for value in coders["value"]:
        ax.axhline(value, color=style.GREY, lw=0.7, zorder=1, gid=CLASSICAL)
    texts = [f"{name}: {value:.2f}" for name, value in zip(coders["model"], coders["value"], strict=True)]
    return write_right(ax, list(coders["value"]), texts)


def write_right(ax: Axes, values: Sequence[float], texts: Sequence[str], colours: Sequence = ()) -> list[Annotation]:
    """Each text to the right of the axes at its height, joined by a thin line; `keep_apart` after the layout."""
    written = []
    at = ("axes fraction", "data")
    for place, (value, text) in enumerate(zip(values, texts, strict=True)):
        colour = colours[place] if len(colours) else style.GREY
        leader = {"arrowstyle": "-", "lw": 0.5, "color": colour, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        written.append(
            ax.annotate(
                text,
                (1.0, value),
                (1.05, value),
                xycoords=at,
                textcoords=at,
                va="center",
                fontsize=FONT_SIZE,
                annotation_clip=False,
                arrowprops=leader,
            )
        )
    return written


def keep_apart(ax: Axes, texts: Sequence[Annotation]) -> None:
    """Names side by side move apart, up and down, until none touches another; the layout must be settled."""
    if not texts:
        return
    gap = 1.15 * max(Text.get_window_extent(text).height for text in texts)
    wanted = [float(ax.transData.transform((1, text.xy[1]))[1]) for text in texts]
    for text, pixel in zip(texts, spread(wanted, gap), strict=True):
        text.set_y(float(ax.transData.inverted().transform((0, pixel))[1]))
