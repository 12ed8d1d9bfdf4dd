"""What the length of a chunk costs and buys: speed of the real codec against its rate, and the ideal rate by rule.

Left, one point a chunk length: kB of input a minute (1 kB = 1000 bytes) against bits per byte of the whole container,
compressing and decompressing; the shade is what lies within 3 % of the best rate. Right, code length in bits per byte
over the tokens of a chunk: disjoint windows, and sliding windows by the share of a window that is scored. A container
can be shorter than the code length where the model gave what came less than its coder's smallest weight.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation

from infocomp.plotting import style
from infocomp.plotting.coding_selection import (
    CODE_LENGTH,
    CODEC,
    at_last,
    checkpoint_names,
    coding_models,
    coding_rows,
    input_bytes,
    labelled,
    of_a_part,
    setting,
    text_bytes,
)
from infocomp.plotting.coding_style import AXIS, DASHES, byte_text, count_axis, keep_apart, text_title, write_right
from infocomp.plotting.placement import write_beside
from infocomp.plotting.selection import NothingToDraw

SPEEDS = {"compress": "compress_seconds", "decompress": "decompress_seconds"}
WITHIN = 1.03
_KEY = ["model", "revision", "label"]
_ABOUT = ["corpus", "in_training", "model", "revision", "step", "position", "label"]
_COLUMNS = ["series", *_ABOUT, "chunk", "stride", "bits_per_byte", "kB_per_minute", "input_bytes", "part", "default"]


def coding_chunks(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Speed against rate, and rate against chunk length, of a text; NothingToDraw says what the table lacks."""
    return draw_coding_chunks(coding_chunks_rows(table, corpus))


def coding_chunks_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_chunks` draws, of each model's last checkpoint: one row a point, `series` says of what.

    "compress" and "decompress" are points of the real codec, "disjoint" and "sliding" ideal rates.
    """
    rows = coding_rows(table, corpus)
    if rows["corpus"].nunique() > 1:
        raise NothingToDraw(f"the table holds {rows['corpus'].nunique()} texts; name one with corpus=…")
    ideal = rows[(rows["estimator"] == CODE_LENGTH) & (rows["quantity"] == "bits_per_byte")]
    disjoint = at_last(_disjoint(ideal)).assign(series="disjoint", stride=np.nan)
    sliding = at_last(labelled(ideal, r"sliding (\d+)/(\d+)", "chunk", "stride")).assign(series="sliding")
    whole = text_bytes(rows)
    parts = [_speeds(rows[rows["estimator"] == CODEC]), disjoint, sliding]
    found = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else parts[0]
    if len(found) < 2 or (found["label"] == "").all():
        raise NothingToDraw(
            "chunk lengths need rows labelled 'chunk C' or 'sliding C/S', of the codec or of code length"
        )
    found = found.assign(
        bits_per_byte=found["value"],
        default=found["series"].isin(SPEEDS) & (found["label"] == ""),
        order=found["model"].map(coding_models(rows).index),
        part=[of_a_part(size, whole) for size in found["input_bytes"]] if "input_bytes" in found else False,
    )
    found = found.sort_values(["order", "series", "chunk", "stride"], kind="stable")
    return found.reindex(columns=_COLUMNS).reset_index(drop=True)


def _disjoint(ideal: pd.DataFrame) -> pd.DataFrame:
    """Rates under disjoint windows: those that name their length, and the default where its windows do not overlap."""
    named = labelled(ideal, r"chunk (\d+)", "chunk")
    default = ideal[(ideal["label"] == "") & ideal["context_length"].notna()]
    stride = [setting(settings, "stride") for settings in default["settings"]]
    stride = np.array([step if isinstance(step, int | float) else np.nan for step in stride], dtype=float)
    default = default[stride >= default["context_length"] - 1]  # a BOS takes one of the positions
    both = pd.concat([named, default.assign(chunk=default["context_length"])])
    return both.drop_duplicates(["model", "revision", "chunk"])


def _speeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of the codec where rate, size and a time stand in the table; the input is as long as they say together."""
    rates = at_last(rows[rows["quantity"] == "bits_per_byte"])
    if (rates["label"] == "").all():  # one chunk length: nothing to compare
        return rates.iloc[:0]
    chunk = [
        float(length) if len(length := label.removeprefix("chunk ")) and label != "" else _default_chunk(*about)
        for label, *about in zip(rates["label"], rates["settings"], rates["context_length"], strict=True)
    ]
    rates = rates.assign(chunk=np.array(chunk, dtype=float), stride=np.nan)
    rates = rates.assign(input_bytes=input_bytes(rows, rates))
    parts = [rates.iloc[:0]]
    for series, quantity in SPEEDS.items():
        times = rows.loc[rows["quantity"] == quantity, [*_KEY, "value"]].rename(columns={"value": "time"})
        timed = rates.merge(times[times["time"] > 0], on=_KEY)
        parts.append(timed.assign(series=series, kB_per_minute=timed["input_bytes"] / 1000 / (timed["time"] / 60)))
    return pd.concat(parts)


def _default_chunk(settings: str, context_length: float) -> float:
    """How long the default's chunks are, as far as its row says."""
    said = setting(settings, "chunk_tokens")
    return float(said) if isinstance(said, int | float) else context_length


def draw_coding_chunks(points: pd.DataFrame) -> Figure:
    """The figure of `coding_chunks_rows`: one panel where the table has only one of the two."""
    with style.styled():
        real = points[points["series"].isin(SPEEDS)]
        ideal = points[~points["series"].isin(SPEEDS)]
        panels = [part for part in (real, ideal) if len(part)]
        figure = style.new_figure(style.PAGE if len(panels) > 1 else 0.7 * style.PAGE, 3.3)
        axes = dict(
            zip(
                ["real" if part is real else "ideal" for part in panels],
                figure.subplots(1, len(panels), squeeze=False)[0],
                strict=True,
            )
        )
        models = list(points["model"].unique())
        if "real" in axes:
            _draw_speeds(axes["real"], real, models)
        shares = _draw_rates(axes["ideal"], points, models) if "ideal" in axes else []
        figure.suptitle(text_title(points), fontsize=8)
        style.legend_below(figure, _legend(points, models), _note(points))
        style.settle(figure)
        if "real" in axes:
            _name_chunks(axes["real"], real)
        if "ideal" in axes:
            keep_apart(axes["ideal"], shares)
    return figure


def _colour(models: list[str], model: str) -> str:
    return style.CATEGORIES[models.index(model) % len(style.CATEGORIES)]


def _draw_speeds(ax: Axes, real: pd.DataFrame, models: list[str]) -> None:
    for (model, series), path in real.groupby(["model", "series"], sort=False):
        colour, marker = _colour(models, str(model)), "o" if series == "compress" else "s"
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "ms": 3.6,
            "lw": 0.8,
            "ls": "-" if series == "compress" else DASHES,
        }
        swept = path[~path["default"]].sort_values("chunk")
        gid = f"{model}|{series}"
        ax.plot(swept["bits_per_byte"], swept["kB_per_minute"], zorder=3, gid=gid, **look)
        default = path[path["default"]]
        around: dict[str, Any] = {
            "ls": "",
            "marker": marker,
            "ms": 6.5,
            "mfc": "none",
            "mec": colour,
            "mew": 0.9,
            "zorder": 3.5,
        }
        ax.plot(default["bits_per_byte"], default["kB_per_minute"], gid=f"{gid}|default", **around)
        inner: dict[str, Any] = {"ls": "", "marker": marker, "ms": 3.0, "color": colour, "zorder": 3.5}
        ax.plot(default["bits_per_byte"], default["kB_per_minute"], **inner)
    if real["model"].nunique() == 1:
        best = real["bits_per_byte"].min()
        ax.axvspan(best, WITHIN * best, color=style.NULL_SHADE, lw=0, zorder=0, gid="within")
    low, high = real["kB_per_minute"].min(), real["kB_per_minute"].max()
    if high > 10 * low:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.12 * high)
    ax.margins(x=0.17)
    first = f" of the first {byte_text(real['input_bytes'].iloc[0])}" if real["part"].any() else ""
    ax.set_xlabel(f"whole container{first}, bits per byte")
    ax.set_ylabel("speed, kB of input per minute")


def _name_chunks(ax: Axes, real: pd.DataFrame) -> None:
    """The tokens of a chunk beside its points, once a model and length."""
    named = real[real["series"] == real["series"].iloc[0]]
    named = named[named["chunk"].notna()].drop_duplicates(["model", "chunk"])
    paths = real[~real["default"]].sort_values("chunk").groupby(["model", "series"])
    lines = [_along(path[["bits_per_byte", "kB_per_minute"]].to_numpy()) for _, path in paths]
    drawn = np.vstack([real[["bits_per_byte", "kB_per_minute"]].to_numpy(), *lines])
    texts = [f"{chunk:g}" for chunk in named["chunk"]]
    write_beside(ax, named[["bits_per_byte", "kB_per_minute"]].to_numpy(), texts, drawn)


def _along(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "many 2"]:
    """Points along a line, so that a text is kept off it."""
    shares = np.linspace(0, 1, 30)[:, None, None]
    return (points[None, :-1] * (1 - shares) + points[None, 1:] * shares).reshape(-1, 2)


def _draw_rates(ax: Axes, points: pd.DataFrame, models: list[str]) -> list[Annotation]:
    """Rates over chunk lengths; the share of new tokens is named at the right of each line of sliding windows."""
    ends: dict[float, str] = {}
    for model, own in points.groupby("model", sort=False):
        colour = _colour(models, str(model))
        path = own[own["series"] == "disjoint"]
        ax.plot(
            path["chunk"], path["bits_per_byte"], color=colour, marker="o", ms=3.2, zorder=3, gid=f"{model}|disjoint"
        )
        sliding = own[own["series"] == "sliding"]
        for _, line in sliding.groupby((sliding["stride"] / sliding["chunk"]).astype(float)):
            look: dict[str, Any] = {"marker": "^", "ms": 3.4, "ls": DASHES, "lw": 0.9}
            ax.plot(line["chunk"], line["bits_per_byte"], color=colour, zorder=3, gid=f"{model}|sliding", **look)
            end = line.sort_values("chunk").iloc[-1]
            ends[float(end["bits_per_byte"])] = f"{_share(end)} new"
        real = _containers(own)
        look: dict[str, Any] = {"ls": "", "marker": "x", "ms": 4, "mew": 0.8, "color": colour}
        ax.plot(real["chunk"], real["bits_per_byte"], zorder=3.2, gid=f"{model}|container", **look)
    lengths = pd.concat([points.loc[~points["series"].isin(SPEEDS), "chunk"], _containers(points)["chunk"]])
    count_axis(ax, float(lengths.min()), float(lengths.max()), base=2)
    ax.margins(y=0.12)
    ax.set_xlabel("tokens in a chunk or window")
    ax.set_ylabel(AXIS["bits_per_byte"])
    return write_right(ax, list(ends), list(ends.values()))


def _containers(points: pd.DataFrame) -> pd.DataFrame:
    """Containers of the whole text, up to the longest window: a longer chunk is still coded in such windows."""
    longest = points.loc[~points["series"].isin(SPEEDS), "chunk"].max()
    return points[(points["series"] == "compress") & ~points["part"] & (points["chunk"] <= longest)]


def _share(row: pd.Series) -> Fraction:
    """The share of a window that is scored, as a fraction."""
    return Fraction(int(row["stride"]), int(row["chunk"])).limit_denominator(64)


def _note(points: pd.DataFrame) -> str | None:
    """What the numbers on the left are, and why a container can lie below the code length where one does."""
    said = ["numbers: tokens in a chunk"] if points["series"].isin(SPEEDS).any() else []
    disjoint = points[points["series"] == "disjoint"]
    for _, file in _containers(points).iterrows():
        windows = disjoint[(disjoint["model"] == file["model"]) & (disjoint["chunk"] >= file["chunk"])]
        if len(windows) and file["bits_per_byte"] < windows.sort_values("chunk")["bits_per_byte"].iloc[0]:
            said.append("a container below the code length: its coder's smallest weight caps what a token costs")
            break
    return "; ".join(said) or None


def _legend(points: pd.DataFrame, models: list[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for (model, _), name in checkpoint_names(points, in_full=True).items():
        handles.append(Line2D([], [], color=_colour(models, model), lw=2, label=name))
    present = set(points["series"])

    def entry(text: str, marker: str, ls: object = "", **look: object) -> None:
        handles.append(Line2D([], [], label=text, color=style.GREY, marker=marker, ls=ls, ms=3.5, **look))  # pyright: ignore

    if "compress" in present:
        entry("compress", "o", "-", lw=0.8)
    if "decompress" in present:
        entry("decompress", "s", DASHES, lw=0.8)
    if points["default"].any():
        entry("default chunks", "o", mfc="none", mew=0.9)
    if present & set(SPEEDS) and points.loc[points["series"].isin(SPEEDS), "model"].nunique() == 1:
        handles.append(Patch(facecolor=style.NULL_SHADE, label="within 3 % of the best rate"))
    if "disjoint" in present:
        entry("code length, disjoint windows", "o", "-", lw=1.0)
    if "sliding" in present:
        entry("code length, sliding, share of new tokens", "^", DASHES, lw=0.9)
    if len(_containers(points)):
        entry("whole container", "x", mew=0.8)
    return handles
