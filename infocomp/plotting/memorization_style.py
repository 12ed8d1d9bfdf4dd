"""What the memorization figures share: looks of models, bits in words, logarithmic axes, intervals, footnotes."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.coding_style import BAND

WRAP = 118
DOWN_TO_HERE = "lower bound at this budget"
_DIGITS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


def bit_text(bits: float) -> str:
    """A number of bits in few characters, decimal units: 512 bits, 22 kbit, 3.5 Mbit."""
    for size, name in ((1e12, "Tbit"), (1e9, "Gbit"), (1e6, "Mbit"), (1e3, "kbit")):
        if abs(bits) >= 0.9995 * size:
            return f"{float(f'{bits / size:.3g}'):g} {name}".replace("-", "−")
    return f"{bits:.3g} bits".replace("-", "−")


def percent(ratio: float) -> str:
    """A ratio as a signed percentage with one digit after the point: +1.3 %."""
    return f"{100 * ratio:+.1f} %".replace("-", "−")


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker by order: the colour-blind safe set for up to six, for more a scale from dark to bright."""
    found = {}
    for place, name in enumerate(names):
        colour: ColorType = style.CATEGORIES[place % len(style.CATEGORIES)]
        if len(names) > len(style.CATEGORIES):
            colour = style.DEPTH_COLOURS(place / (len(names) - 1))
        found[name] = {"color": colour, "marker": style.MARKERS[place % len(style.MARKERS)]}
    return found


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two positive ones, at most `most`, evenly spread; the ends where there are fewer than two.

    Whole powers of ten are thinned where there are more of them than that.
    """
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for digits in _DIGITS:
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if 0.999 * low <= tick <= 1.001 * high]
        if len(ticks) > most and len(digits) == 1:
            return [ticks[place] for place in style.thin(len(ticks), most)]
        best = ticks if len(ticks) <= most else best
    return best if len(best) > 1 else [low, high]


def log_axis(ax: Axes, which: Literal["x", "y"], low: float, high: float, text: Callable[[float], str]) -> None:
    """A logarithmic axis over exactly `low` to `high`, with round numbers written by `text`."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def bits_axis(ax: Axes, label: str) -> None:
    """A linear y-axis of bits, its numbers written in kbit or Mbit; call it where its limits are set."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == 0 else bit_text(value)))
    ax.set_ylabel(label)


def error_bars(ax: Axes, points: pd.DataFrame, x: str, colour: ColorType, gid: str, **more: Any) -> None:
    """The interval of each point (`low` to `high`) as a thin upright line; nothing where no row has one."""
    known = points[points["low"].notna() & points["high"].notna()]
    if len(known):
        ax.vlines(known[x], known["low"], known["high"], color=colour, lw=0.8, zorder=2.5, gid=gid, **more)


def lower_bounds(ax: Axes, points: pd.DataFrame, x: str, y: str, colour: ColorType, gid: str) -> None:
    """A small arrow upwards above each point that is a lower bound; nothing where none is."""
    bounds = points[points["lower_bound"]]
    if bounds.empty:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    above = ax.transData + ScaledTranslation(0, 5.5 / 72, figure.dpi_scale_trans)
    ax.plot(bounds[x], bounds[y], ls="", marker=r"$\uparrow$", ms=4.5, mew=0, color=colour, transform=above, gid=gid)


def bound_handle() -> Line2D:
    """The legend's entry of `lower_bounds`."""
    return Line2D([], [], ls="", marker=r"$\uparrow$", ms=5, mew=0, color=style.GREY, label=DOWN_TO_HERE)


def interval_handle(points: pd.DataFrame, over: str, bars: bool = False) -> list[Artist]:
    """The legend's entry of ribbons, or of upright `bars`, said over what; none where no point has an interval."""
    kinds = [kind for kind in dict.fromkeys(points["interval"].dropna()) if kind]
    label = f"{' or '.join(kinds)} over {over}"
    if kinds and bars:
        return [Line2D([], [], ls="", marker="|", ms=8, mew=0.8, color=style.GREY, label=label)]
    return [Patch(facecolor=style.GREY, alpha=BAND + 0.1, lw=0, label=label)] if kinds else []


def wrapped(sentences: Iterable[str]) -> str:
    """A footnote: the sentences one after the other, in lines that a page is wide enough for."""
    return "\n".join(textwrap.wrap(" ".join(sentence for sentence in sentences if sentence), WRAP))
