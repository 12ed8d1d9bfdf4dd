"""How the figures of a comparison look: one colour and marker a model on every page, one axis of sites.

The base is ink with discs, tuned models have the colours of the colour-blind safe set that no ceiling has, each with
a marker of its own, and controls are grey crosses on dashes. Sites stand in order of depth: the embedding and the final
norm apart from the blocks and unconnected. Models are shifted a little, so that intervals don't hide intervals.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES, band
from infocomp.plotting.comparison_selection import BASE, CONTROL, TUNED
from infocomp.plotting.memorization_style import error_bars, wrapped

COLOURS = tuple(style.CATEGORIES[place] for place in (0, 1, 2, 4, 5))  # without the ceiling's
MARKERS = tuple(style.MARKERS[place] for place in (1, 2, 3, 4, 5))
CROSSES = {"marker": "x", "mew": 0.8}
SHIFT = 0.5  # of the distance of two sites, that all models together are spread over
MOST_BARS = 16  # sites, from which on intervals are ribbons
APART = 1.6  # blocks' distances from the embedding or the final norm to the next block
Look = dict[str, Any]


def look_of(rows: pd.DataFrame) -> dict[str, Look]:
    """Colour, marker and stroke of each model (`who`) among the rows; tuned ones in the order of their places."""
    whos = rows.drop_duplicates("who")
    tuned = list(whos[whos["role"] == TUNED].sort_values(["place", "who"])["who"])
    found: dict[str, Look] = {}
    for who, role in zip(whos["who"], whos["role"], strict=True):
        found[str(who)] = {"color": style.INK, "marker": "o", "ls": "-", "mew": 0.7, "ms": 3.2}
        if role == TUNED:
            place = tuned.index(who)
            found[str(who)] |= {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        if role == CONTROL:
            found[str(who)] |= {"color": "0.6", "ls": DASHES, **CROSSES}
    return found


def model_handles(rows: pd.DataFrame, looks: dict[str, Look]) -> list[Artist]:
    """The legend's entry of each model among the rows: what it is and its name."""
    whos = rows.drop_duplicates("who")
    entries = [(str(who), role) for who, role in zip(whos["who"], whos["role"], strict=True) if who in looks]
    return [Line2D([], [], label=f"{role}: {who}", **looks[who]) for who, role in entries]


def with_x(rows: pd.DataFrame) -> pd.DataFrame:
    """`at`, a site's place on the axis (blocks 1 apart, other kinds further), and `x`, `at` shifted by model."""
    sites = rows.drop_duplicates("depth").sort_values("depth")
    depths, kinds = list(sites["depth"]), list(sites["kind"])
    apart = max(APART, len(depths) / 4)
    steps = [1.0 if one == other else apart for one, other in pairwise(kinds)]
    at = dict(zip(depths, np.cumsum([0.0, *steps]), strict=True))
    whos = list(dict.fromkeys(rows["who"]))
    shifts = {who: SHIFT * ((place + 0.5) / len(whos) - 0.5) for place, who in enumerate(whos)}
    spread = 1.0 if len(depths) <= MOST_BARS else 0.0
    placed = rows.assign(at=rows["depth"].map(at))
    return placed.assign(x=placed["at"] + spread * rows["who"].map(shifts))


def draw_layers(ax: Axes, points: pd.DataFrame, looks: dict[str, Look], gid: str = "", **more: Any) -> None:
    """Each model's values at its sites, blocks joined, with their intervals; `gid` ends the names of what is drawn.

    Hollow marks where the column `hollow` says so. An interval is an upright line, a ribbon where sites are many.
    """
    many = points["at"].nunique() > MOST_BARS if len(points) else False
    for who, own in points.groupby("who", sort=False):
        look = looks[str(who)] | more
        look |= {"ms": 1.6} if many else {}
        name = f"{who}{gid}"
        for _, path in own.groupby("kind", sort=False):
            path = path.sort_values("at")
            ax.plot(path["x"], path["value"], zorder=3, gid=name, **look)
            if "hollow" in path and path["hollow"].any():
                bare = path[path["hollow"].astype(bool)]
                hollow: Look = look | {"ls": "", "mfc": "w"}
                ax.plot(bare["x"], bare["value"], zorder=3.2, gid=f"{name}|hollow", **hollow)
            if many and len(path) > 1:
                band(ax, path, "x", look["color"], f"{name}|interval")
            else:
                error_bars(ax, path, "x", look["color"], f"{name}|interval")


def site_axis(ax: Axes, points: pd.DataFrame, most: int = 8, room: float = 0.0) -> None:
    """Sites by name under the axis: embedding and norm always, at most `most` blocks; a share of `room` stays free."""
    sites = points.drop_duplicates("at").sort_values("at", ignore_index=True)
    blocks = sites[sites["kind"] == "block"]
    chosen = blocks.iloc[style.thin(len(blocks), most)] if len(blocks) else blocks
    named = pd.concat([chosen, sites[sites["kind"] != "block"]])
    ax.set_xticks(list(named["at"]), labels=[str(name) for name in named["name"]])
    low, high = float(sites["at"].min()) - 0.6, float(sites["at"].max()) + 0.6
    ax.set_xlim(low, high + room * (high - low))


def interval_words(points: pd.DataFrame, over: str) -> str:
    """What the upright lines and ribbons are, as a sentence; "" where no point has an interval."""
    kinds = [kind for kind in dict.fromkeys(points["interval"].dropna()) if kind]
    return f"Upright lines and ribbons: {' or '.join(kinds)} over {over}." if kinds else ""


def left_out(points: pd.DataFrame) -> str:
    """How many tuned models are drawn, as a sentence, where there are more; "" where all are."""
    drawn, there = points.loc[points["role"] == TUNED, "who"].nunique(), int(points["of_tuned"].max())
    return f"Drawn are {drawn} of {there} tuned models; the table holds all." if there > drawn else ""


def unequal_depth(points: pd.DataFrame) -> str:
    """A sentence where models differ in their number of blocks; "" where they don't."""
    blocks = points[(points["kind"] == "block") & points["role"].isin([BASE, TUNED])]
    counts = blocks.groupby("who", sort=False)["site"].nunique()
    if counts.nunique() < 2:
        return ""
    said = ", ".join(f"{who} {count}" for who, count in counts.items())
    return f"Numbers of blocks differ ({said}): blocks of one number stand together, whatever their relative depth."


def footnote(sentences: Sequence[str]) -> str | None:
    """The sentences that say something, in lines that a page is wide enough for; None where there are none."""
    return wrapped(sentences) or None
