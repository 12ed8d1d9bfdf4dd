"""Words that moved most: each with its drift, the noise of that drift, and which neighbours it lost and gained.

The drift of a word is the share of its nearest words that tuning replaced, a ratio from 0 to 1. Means of few
occurrences are noisy, so that the dots of a word compare halves of the documents: the drift from the base on one half
to the tuned model on the other (column `across`; a table without it has the drift on all documents there), and its
noise, the drift from one half to the other in one model. What lies between the dots is drift beyond noise, and the
title tells its mean over words beside the mean drift on all documents. A block for each tuned model, at the site where
most of its words moved beyond chance (false-discovery rate of 5 % over the words of a model and site), the largest
excess over noise first. Words are written so that blanks can be seen: ␣ before and after, ↵ for a new line; signs that
no font of the figure has stand as U+….
"""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from scipy.stats import false_discovery_control

from infocomp.plotting import style
from infocomp.plotting.comparison_changes import GAP, HEADER, LINE, interval_text, p_text, text_width, write_cell
from infocomp.plotting.comparison_selection import TUNED, comparison_rows, few, of_one_text, setting
from infocomp.plotting.comparison_style import Look, footnote, left_out, look_of
from infocomp.plotting.selection import NothingToDraw

QUANTITY, MEAN = "word_drift", "mean over words"
RATE = 0.05
MOST_MODELS = 3
MOST_WORDS = {1: 24, 2: 14, 3: 10}  # in a block, by how many models there are
MOST_UNMOVED = 5
LONGEST, LONGEST_LIST = 18, 40  # characters
STRIP = 1.3  # inches of width of drift and noise
BLANKS = {"\n": "↵", "\t": "⇥", "\r": "U+000D"}
_COLUMNS = ["who", "model", "revision", "role", "place", "of_tuned", "corpus", "site", "name", "label", "word", "value"]
_COLUMNS += ["across", "null", "excess", "p", "count", "moved", "lost", "gained", "words", "words_moved", "halved"]
_COLUMNS += ["mean", "mean_low", "mean_high", "mean_excess", "mean_excess_low", "mean_excess_high"]


def comparison_words(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """The words that moved most on one data set; NothingToDraw says what the table lacks."""
    return draw_comparison_words(comparison_words_rows(table, corpus))


def comparison_words_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_words` draws: one row a word of a model, at the site where most of its words moved."""
    rows = comparison_rows(table, QUANTITY, corpus=corpus)
    lacking = "words that moved need word_drift of a tuned model"
    rows = few(of_one_text(rows[rows["role"] == TUNED], lacking), MOST_MODELS)
    words = rows[rows["label"] != MEAN]
    if words.empty:
        raise NothingToDraw(f"{lacking}, by word")
    moved = [said.get("moved", said.get("changed")) for said in words["said"]]
    words = words.assign(**{name: setting(words, name) for name in ("p", "count", "across")}, moved=moved)
    words["halved"] = words["across"].notna()
    words["across"] = words["across"].fillna(words["value"])
    words["excess"] = words["across"] - words["null"]
    words["moved"] = words.groupby(["who", "site"], sort=False, group_keys=False)[["moved", "p"]].apply(_moved)
    for name in ("lost", "gained"):
        words[name] = [neighbours_text(said.get(name) or []) for said in words["said"]]
    words["word"] = [word_text(label) for label in words["label"]]
    most, kept = MOST_WORDS[min(words["who"].nunique(), MOST_MODELS)], []
    for who, own in words.groupby("who", sort=False):
        site = _site(own)
        own = own[own["site"] == site].sort_values(["moved", "excess", "value"], ascending=False, kind="stable")
        mean = rows[(rows["who"] == who) & (rows["site"] == site) & (rows["label"] == MEAN)]
        told = mean.iloc[0] if len(mean) else pd.Series(dtype=float)
        own = own.assign(**{f"mean{end}": _float(told.get(name)) for end, name in _MEANS.items()})
        error = WIDTH * _float(told.get("point_error"))
        own = own.assign(mean_excess_low=own["mean_excess"] - error, mean_excess_high=own["mean_excess"] + error)
        told_of = [said for said in (mean["said"].iloc[0] if len(mean) else {}, own["said"].iloc[0]) if "words" in said]
        count = int(own["moved"].sum())
        every = told_of[0] if told_of else {}  # a table may hold the words that moved most alone, and say of how many
        of = {"words": every.get("words", len(own)), "words_moved": every.get("words_moved", count)}
        kept.append(own.assign(**of).head(min(most, count or MOST_UNMOVED)))
    return pd.concat(kept)[_COLUMNS].reset_index(drop=True)


_MEANS = {"": "value", "_low": "low", "_high": "high", "_excess": "point"}
WIDTH = 1.96  # standard errors of hundreds of words


def _float(value: Any) -> float:
    return np.nan if value is None else float(value)


def _moved(own: pd.DataFrame) -> pd.Series:
    """Whether each word moved: as its row says, or where rows don't say, by the p of all words of model and site."""
    if own["moved"].notna().all():
        return own["moved"].astype(bool)
    p = own["p"].fillna(1.0).to_numpy(dtype=float)
    return pd.Series(false_discovery_control(p) <= RATE, index=own.index)


def _site(own: pd.DataFrame) -> str:
    """The site where most words moved, of several the one of the largest mean excess."""
    by_site = own.groupby("site", sort=False).agg(moved=("moved", "sum"), excess=("excess", "mean"))
    return str(by_site.sort_values(["moved", "excess"], ascending=False, kind="stable").index[0])


# --- words as text ----------------------------------------------------------------------------------------------------


def word_text(word: str, longest: int = LONGEST) -> str:
    """A word with its blanks to be seen, and with no sign that the figure's fonts lack: " in\\n" as "␣in↵"."""
    inner = word.strip(" ")
    before = len(word) - len(word.lstrip(" "))
    shown = "␣" * before + inner + "␣" * (len(word) - before - len(inner))
    shown = "".join(BLANKS.get(sign, sign if _drawable(sign) else f"U+{ord(sign):04X}") for sign in shown)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def neighbours_text(words: list[str]) -> str:
    """Words one after the other, as many as fit in a column: "self · this · …"."""
    said = ""
    for word in words:
        more = f"{said} · {word_text(str(word), 14)}" if said else word_text(str(word), 14)
        if len(more) > LONGEST_LIST:
            return f"{said} · …"
        said = more
    return said


@cache
def _drawable(sign: str) -> bool:
    return sign == " " or (sign.isprintable() and any(ord(sign) in signs for signs in _signs()))


@cache
def _signs() -> tuple[frozenset[int], ...]:
    """The signs of each of the figures' fonts."""
    with style.styled():
        found = [font_manager.findfont(name) for name in ("STIXGeneral", "DejaVu Sans")]
    return tuple(frozenset(FT2Font(path).get_charmap()) for path in found)


# --- the figure -------------------------------------------------------------------------------------------------------


def draw_comparison_words(words: pd.DataFrame) -> Figure:
    """The figure of `comparison_words_rows`."""
    with style.styled():
        blocks = [own for _, own in words.groupby("who", sort=False)]
        probe = style.new_figure(style.PAGE, 1.0)
        widths = {
            name: max(text_width(probe, text) for text in {header, *told})
            for name, header, told in ((name, header, _cells(words, name)) for name, header in HEADERS.items())
        }
        room = sum(widths.values()) + GAP * (len(widths) + 1)
        heights = [LINE * len(own) + 0.1 for own in blocks]
        figure = style.new_figure(max(style.PAGE, room / 72 + STRIP + 0.15), sum(heights) + 0.55 * len(blocks) + 1.15)
        grid = figure.add_gridspec(len(blocks), 1, height_ratios=heights)
        looks = look_of(words)
        for place, own in enumerate(blocks):
            ax = figure.add_subplot(grid[place])
            _draw_block(ax, own, widths, looks[str(own["who"].iloc[0])])
            last = place == len(blocks) - 1
            ax.set_xlabel("drift, ratio" if last else "")
            ax.tick_params(labelbottom=last)
        figure.suptitle(f"{words['corpus'].iloc[0]}; words that moved most", fontsize=8)
        style.legend_below(figure, _legend(bool(words["halved"].all())), footnote(_sentences(words)))
        style.settle(figure)
    return figure


HEADERS = {"word": "word", "p": "p", "count": "seen", "lost": "no longer among its nearest", "gained": "now among them"}


def _cells(words: pd.DataFrame, name: str) -> list[str]:
    if name == "p":
        return [p_text(p) for p in words["p"]]
    if name == "count":
        return [f"{count:,.0f}" if np.isfinite(count) else "" for count in words["count"]]
    return [str(text) for text in words[name]]


def _draw_block(ax: Axes, own: pd.DataFrame, widths: dict[str, float], look: Look) -> None:
    """The words of a model down the page; drift and its noise left, p, count and neighbours right of them."""
    who = str(own["who"].iloc[0])
    ax.set_ylim(len(own) - 0.4, -0.6)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    for place, (_, word) in enumerate(own.iterrows()):
        colour = look["color"] if word["moved"] else style.GREY
        ax.plot(
            [word["null"], word["across"]], [place, place], color=colour, lw=0.8, zorder=2, gid=f"{who}|{place}|line"
        )
        ax.plot([word["null"]], [place], zorder=3, gid=f"{who}|{place}|noise", color=style.GREY, **_noise())
        mark = {"marker": look["marker"], "ms": 3.4, "mew": 0, "ls": "", "color": colour}
        ax.plot([word["across"]], [place], zorder=3.5, gid=f"{who}|{place}|drift", **mark)
    left = {"word": (0, -widths["word"] - GAP)}
    points = GAP
    for name in list(HEADERS)[1:]:
        left[name] = (1, points)
        points += widths[name] + GAP
    for name, header in HEADERS.items():
        right = name in ("p", "count")
        side, at = left[name]
        at, ha = at + (widths[name] if right else 0.0), "right" if right else "left"
        write_cell(ax, side, at, -0.75, header, HEADER, ha=ha, va="bottom", color=style.GREY)
        for place, text in enumerate(_cells(own, name)):
            ink = style.INK if own["moved"].iloc[place] else style.GREY
            last = name == "gained"  # its cells, wider than their header, end the page
            write_cell(ax, side, at, place, text, f"{who}|{place}|{name}", ha=ha, color=ink, in_layout=last)
    first = own.iloc[0]
    title = f"{who}, {first['name']}: words that moved beyond chance: {first['words_moved']:,} of {first['words']:,}"
    if np.isfinite(first["mean"]):
        title += f"; mean drift {interval_text(first['mean'], first['mean_low'], first['mean_high'])}"
    if np.isfinite(first["mean_excess"]):
        ends = (first["mean_excess_low"], first["mean_excess_high"])
        title += f", beyond noise {interval_text(first['mean_excess'], *ends, signed=True)}"
    ax.annotate(
        title,
        (0, 1),
        (-widths["word"] - GAP, 15),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=look["color"] if first["words_moved"] else style.GREY,
        gid=f"{who}|title",
        parse_math=False,
    )


def _noise() -> dict[str, Any]:
    return {"marker": "o", "ms": 3, "mfc": "white", "mew": 0.7, "ls": ""}


def _legend(halved: bool) -> list[Artist]:
    moved = "base on half of the text to tuned on the other half" if halved else "drift from base to tuned"
    noise = "noise: from one half to the other in one model" if halved else "noise: drift between halves of one model"
    return [
        Line2D([], [], color=style.INK, marker="s", ms=3.4, mew=0, lw=0.8, label=moved),
        Line2D([], [], color=style.GREY, label=noise, **_noise()),
    ]


def _sentences(words: pd.DataFrame) -> list[str]:
    said = []
    if words["who"].nunique() > 1:
        said.append("Each model at the site where most of its words moved.")
    if not words["moved"].all():
        said.append("Grey: the words of the largest excess where none moved beyond chance.")
    elif (words.groupby("who")["words_moved"].max() > words.groupby("who").size()).any():
        said.append("The table holds the other words that moved.")
    return [*said, "Largest excess over noise first.", left_out(words)]
