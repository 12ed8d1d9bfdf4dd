"""The two-part code of a model: bits per weight against the bytes of weights and data, and where it beats xz and PPMd.

Two parts: bits per byte of the data under the quantised weights, and the weights' own bytes shared out over the corpus:
rate + 8 · model bytes / corpus bytes (Delétang et al. 2024, arXiv 2309.10668, the adjusted rate at any width and size).
The rates are those of the text that was measured; a larger corpus is taken to be of the same kind, for every coder.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.typing import ColorType

from infocomp.plotting import style
from infocomp.plotting.coding_selection import (
    CODE_LENGTH,
    at_last,
    checkpoint_names,
    coding_rows,
    labelled,
    text_bytes,
    the_model,
)
from infocomp.plotting.coding_style import (
    DOTS,
    byte_text,
    classical_lines,
    keep_apart,
    log_axis,
    text_title,
    write_right,
)
from infocomp.plotting.placement import write_beside
from infocomp.plotting.selection import CLASSICAL, NothingToDraw

AGAINST = ("xz", "PPMd")
CORPORA = 4  # powers of ten on the left, from about the size of the model on
_LABEL = r"weights (\d+) bits"
_COLUMNS = ["series", "corpus", "in_training", "model", "revision", "step", "estimator", "coder", "bits", "rate"]
_COLUMNS += ["model_bytes", "corpus_bytes", "two_part", "minimum", "measured_bytes"]


def coding_widths(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> Figure:
    """The two-part code of a model (the only one by default); NothingToDraw says what the table lacks."""
    return draw_coding_widths(coding_widths_rows(table, model, corpus))


def coding_widths_rows(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_widths` draws, in bits per byte of the corpus; `series` says of what a row is a point.

    "width": over bits per weight at one size of corpus (without one: the data alone), `minimum` the best of them.
    "size": over the size of the corpus at one width. "break-even": where that line meets a classical coder's rate.
    "classical": that rate.
    """
    rows = coding_rows(table, corpus)
    name = the_model(rows, model)
    own = at_last(labelled(rows[rows["model"] == name], _LABEL, "bits"))
    about = ["corpus", "in_training", "model", "revision", "step", "bits"]
    rates = own[(own["quantity"] == "bits_per_byte") & (own["estimator"] == CODE_LENGTH)]
    sizes = own.loc[own["quantity"] == "model_bytes", ["revision", "corpus", "bits", "value"]]
    widths = rates[[*about, "value"]].rename(columns={"value": "rate"})
    widths = widths.merge(sizes.rename(columns={"value": "model_bytes"}), on=["revision", "corpus", "bits"])
    if len(widths) < 2:
        raise NothingToDraw("the two-part code needs bits_per_byte and model_bytes under two labels 'weights b bits'")
    widths = widths.sort_values("bits", ignore_index=True).assign(estimator=CODE_LENGTH)
    widths = widths.assign(measured_bytes=text_bytes(rows[rows["corpus"].isin(widths["corpus"])]))
    coders = rows[(rows["estimator"] == CLASSICAL) & (rows["quantity"] == "bits_per_byte") & (rows["label"] == "")]
    coders = coders[coders["model"].str.startswith(AGAINST) & coders["corpus"].isin(widths["corpus"])]
    coders = coders.drop_duplicates("model").sort_values("value", ascending=False)
    drawn = pd.DataFrame({"series": "classical", "coder": coders["model"], "rate": coders["value"]})
    drawn = drawn.assign(corpus=coders["corpus"], estimator=CLASSICAL)
    equal = _break_even(widths, drawn)
    parts = [_by_width(widths), _by_size(widths, equal), equal, drawn]
    return pd.concat([part for part in parts if len(part)]).reindex(columns=_COLUMNS).reset_index(drop=True)


def _by_width(widths: pd.DataFrame) -> pd.DataFrame:
    """One path for each size of corpus, and one for the data alone."""
    start = math.floor(math.log10(widths["model_bytes"].max()))
    parts = []
    for size in (*(10.0 ** (start + power) for power in range(CORPORA)), np.inf):
        total = widths["rate"] + 8 * widths["model_bytes"] / size
        path = widths.assign(series="width", corpus_bytes=size, two_part=total, minimum=False)
        path.loc[total.idxmin(), "minimum"] = True
        parts.append(path)
    return pd.concat(parts)


def _break_even(widths: pd.DataFrame, coders: pd.DataFrame) -> pd.DataFrame:
    """The size of corpus at which weights and data together are as long as a coder's output, where there is one."""
    parts = [pd.DataFrame(columns=["corpus_bytes", "bits", "coder"])]
    for coder, rate in zip(coders["coder"], coders["rate"], strict=True):
        below = widths[widths["rate"] < rate]
        size = 8 * below["model_bytes"] / (rate - below["rate"])
        parts.append(below.assign(series="break-even", coder=coder, corpus_bytes=size, two_part=rate))
    parts = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(parts)


def _by_size(widths: pd.DataFrame, equal: pd.DataFrame) -> pd.DataFrame:
    """One path for each width over a range of corpora that holds every break-even point."""
    low, high = 0.3 * widths["model_bytes"].min(), 300 * widths["model_bytes"].max()
    if len(equal):
        low, high = min(low, 0.3 * equal["corpus_bytes"].min()), max(high, 10 * equal["corpus_bytes"].max())
    sizes: Float[np.ndarray, "sizes"] = np.geomspace(low, high, 81)
    parts = [widths.assign(series="size", corpus_bytes=size) for size in sizes]
    found = pd.concat(parts).sort_values(["bits", "corpus_bytes"], kind="stable")
    return found.assign(two_part=found["rate"] + 8 * found["model_bytes"] / found["corpus_bytes"])


def draw_coding_widths(points: pd.DataFrame) -> Figure:
    """The figure of `coding_widths_rows`."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 3.9)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
        sizes = _draw_widths(left, points[points["series"] == "width"])
        coders = _draw_sizes(right, points)
        measured = points[points["series"] == "width"]
        name = next(iter(checkpoint_names(measured, in_full=True).values()))
        figure.suptitle(f"{text_title(measured)}; model: {name}", fontsize=8)
        style.legend_below(figure, _legend(points), _note(measured))
        style.settle(figure)
        keep_apart(left, sizes)
        keep_apart(right, coders)
        _name_break_even(right, points)
    return figure


def _draw_widths(ax: Axes, points: pd.DataFrame) -> list[Annotation]:
    """Lines over bits per weight, one a size of corpus, their least point ringed; named at the right."""
    texts, ends, colours = [], [], []
    sizes = sorted(points["corpus_bytes"].unique())
    for place, size in enumerate(sizes):
        path = points[points["corpus_bytes"] == size].sort_values("bits")
        alone = math.isinf(size)
        colour = style.INK if alone else style.DEPTH_COLOURS(place / max(1, len(sizes) - 2))
        gid = "data alone" if alone else f"corpus {size:g}"
        ax.plot(path["bits"], path["two_part"], color=colour, marker="o", ms=2.6, ls=DOTS if alone else "-", gid=gid)
        best = path[path["minimum"] & (not alone)]
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 7, "mfc": "none", "mew": 1.0}
        ax.plot(best["bits"], best["two_part"], mec=colour, gid="minimum", **look)
        texts.append("data alone" if alone else byte_text(size))
        ends.append(float(path["two_part"].iloc[-1]))
        colours.append(colour)
    bits = sorted(points["bits"].unique())
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(bits))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"{width:g}" for width in bits])
    log_axis(ax, float(points["two_part"].min()), float(points["two_part"].max()))
    ax.set_xlabel("bits per weight")
    ax.set_ylabel("weights and data, bits per byte of corpus")
    return write_right(ax, ends, texts, colours)


def _draw_sizes(ax: Axes, points: pd.DataFrame) -> list[Annotation]:
    """Lines over the size of the corpus, one a width, down to where classical coders are met and passed."""
    lines = points[points["series"] == "size"]
    coders = points[points["series"] == "classical"]
    widths = sorted(lines["bits"].unique())
    best = lines["rate"].min()
    top = 1.5 * coders["rate"].max() if len(coders) else 2.5 * best
    top = max(top, 1.5 * best)
    ax.set_ylim(0.9 * best, top)
    for bits, path in lines.groupby("bits"):
        look: dict[str, Any] = {"marker": _marker(widths, float(str(bits))), "ms": 3, "markevery": (4, 12)}
        ax.plot(
            path["corpus_bytes"],
            path["two_part"],
            color=_colour(widths, float(str(bits))),
            zorder=3,
            gid=f"{bits:g} bits",
            **look,
        )
    equal = points[points["series"] == "break-even"]
    for bits, own in equal.groupby("bits"):
        look: dict[str, Any] = {"ls": "", "marker": "X", "ms": 5, "mew": 0.5, "mec": "white", "zorder": 4}
        ax.plot(own["corpus_bytes"], own["two_part"], mfc=_colour(widths, float(str(bits))), gid="break-even", **look)
    ax.set_xscale("log")
    low, high = (
        0.6 * float(lines.loc[lines["two_part"] <= top, "corpus_bytes"].min()),
        float(lines["corpus_bytes"].max()),
    )
    ax.set_xlim(low, high)
    powers = [10.0**power for power in range(0, 19) if low <= 10.0**power <= high]
    shown = powers[len(powers) % 2 :: 2] if len(powers) > 5 else powers
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([byte_text(size) for size in shown])
    ax.set_xlabel("size of the corpus")
    ax.set_ylabel("weights and data, bits per byte of corpus")
    return classical_lines(ax, coders.assign(model=coders["coder"], value=coders["rate"]))


def _name_break_even(ax: Axes, points: pd.DataFrame) -> None:
    """The first size at which each classical coder is beaten, beside its mark; the others stand in the legend."""
    equal = points[points["series"] == "break-even"]
    if equal.empty:
        return
    first = equal.loc[equal.groupby("coder")["corpus_bytes"].idxmin()]
    lines = points[points["series"] == "size"]
    obstacles = np.vstack([part[["corpus_bytes", "two_part"]].to_numpy() for part in (lines, equal)])
    for rate in points.loc[points["series"] == "classical", "rate"]:
        across = lines["corpus_bytes"].unique()
        obstacles = np.vstack([obstacles, np.column_stack([across, np.full(len(across), rate)])])
    texts = [byte_text(size) for size in first["corpus_bytes"]]
    write_beside(ax, first[["corpus_bytes", "two_part"]].to_numpy(), texts, obstacles)


def _colour(widths: list[float], bits: float) -> ColorType:
    return style.VALUE_COLOURS(0.9 * widths.index(bits) / max(1, len(widths) - 1))


def _marker(widths: list[float], bits: float) -> str:
    return style.MARKERS[widths.index(bits) % len(style.MARKERS)]


def _note(measured: pd.DataFrame) -> str:
    """Under what the sizes hold."""
    size = measured["measured_bytes"].iloc[0]
    amount = f"{byte_text(size)} of this text" if np.isfinite(size) else "this text"
    return (
        f"in brackets: break-even size of corpus; both rates held constant, measured on {amount}; tokenizer not counted"
    )


def _legend(points: pd.DataFrame) -> list[Line2D]:
    """What the marks are, and for each width where it breaks even with each coder, in words."""
    equal = points[points["series"] == "break-even"]
    coders = list(points.loc[points["series"] == "classical", "coder"])
    widths = sorted(points.loc[points["series"] == "size", "bits"].unique())
    grey: dict[str, Any] = {"color": style.GREY, "ls": ""}
    handles = []
    for bits in widths:
        own = equal[equal["bits"] == bits].set_index("coder")["corpus_bytes"]
        said = [f"{coder}: {byte_text(own[coder]) if coder in own.index else 'never'}" for coder in coders]
        text = f"{bits:g} bits" + (f" ({', '.join(said)})" if said else "")
        handles.append(Line2D([], [], color=_colour(widths, bits), marker=_marker(widths, bits), ms=3, label=text))
    handles.append(Line2D([], [], label="best width", marker="o", ms=6, mfc="none", **grey))
    if len(equal):
        handles.append(Line2D([], [], label="break-even, both codes equally long", marker="X", ms=5, mew=0, **grey))
    return handles
