"""Preference information by site of base, tuned models and random weights, and what words, length and author tell.

Above, in bits: I(preferred or rejected; J) over completion tokens with its flip null; it is above zero in any network,
because chosen and rejected texts differ in their words, so the claim is the excess over the same estimate at
`hook_embed` and on random weights, beside it. Below, a linear probe's share of pairs in which it scores the chosen text
higher: what a bag of tokens, the length or the author reach without any network is shaded, and only what lies above the
shade can be a network's; beside it, the excess over the bag of tokens.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.coding_style import DOTS
from infocomp.plotting.comparison_selection import comparison_rows, few, in_order, of_one_text, one_variant, setting
from infocomp.plotting.comparison_style import (
    Look,
    draw_layers,
    footnote,
    interval_words,
    left_out,
    look_of,
    model_handles,
    site_axis,
    unequal_depth,
    with_x,
)
from infocomp.plotting.placement import FONT_SIZE, spread
from infocomp.plotting.selection import NothingToDraw

INFORMATION, EXCESS = "preference_information", "preference_excess"
ACCURACY, PROBE_EXCESS = "probe_accuracy", "probe_excess"
OVER = {"over hook_embed": "above hook_embed", "over random weights": "above random weights"}
PROBE_OVER = {
    "probe over bag of tokens": "probe above bag of tokens",
    "probe over random weights": "probe above random weights",
}
BASELINES = {
    "control.bag_of_tokens": "bag of tokens",
    "control.length": "length alone",
    "control.author": "author alone",
}
BASELINE_DASHES = {"control.bag_of_tokens": "-", "control.length": (0, (5, 1.5)), "control.author": (0, (1, 1))}
EXPLAINED = "#f3e2cd"  # apart from the grey of nulls
ROOM = 0.6  # of the width of the probe's panel, that names of its lines stand in
_COLUMNS = [
    "series",
    "corpus",
    "role",
    "place",
    "who",
    "model",
    "revision",
    "site",
    "kind",
    "depth",
    "name",
    "quantity",
]
_COLUMNS += [
    "label",
    "rows",
    "at",
    "x",
    "value",
    "low",
    "high",
    "interval",
    "null",
    "null_high",
    "ceiling",
    "p",
    "pairs",
]
_COLUMNS += ["longer_chosen_share", "author_share", "of_tuned"]


def comparison_preference(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Preference information and probes of one data set; NothingToDraw (a ValueError) says what the table lacks."""
    return draw_comparison_preference(comparison_preference_rows(table, corpus))


def comparison_preference_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_preference` draws, one row a number; `series` says in which panel.

    Rows of matched positions are drawn where the base has them: all positions else. A baseline (bag of tokens, length,
    author) is of the texts alone, so it is one row, whichever model's rows hold it.
    """
    quantities = (INFORMATION, EXCESS, ACCURACY, PROBE_EXCESS)
    lacks = "preference by site needs preference_information or probe_accuracy of a data set of pairs"
    rows = few(of_one_text(comparison_rows(table, *quantities, corpus=corpus), lacks))
    rows = one_variant(rows, "matched").drop_duplicates(["who", "site", "quantity", "label"])
    if not rows["quantity"].isin([INFORMATION, ACCURACY]).any():
        raise NothingToDraw(lacks)
    rows = rows.assign(**{name: setting(rows, name) for name in ("null_high", "p", "pairs")})
    rows = rows.assign(**{name: setting(rows, name) for name in ("longer_chosen_share", "author_share")})
    baselines = rows[(rows["quantity"] == ACCURACY) & rows["site"].isin(list(BASELINES))].drop_duplicates("site")
    of_sites = in_order(rows[~rows["site"].str.startswith("control.")])
    series = {INFORMATION: "information", ACCURACY: "accuracy"}
    named = of_sites["quantity"].map(series).fillna(of_sites["label"])
    named = named.where(of_sites["quantity"] != PROBE_EXCESS, "probe " + of_sites["label"])
    of_sites = with_x(of_sites.assign(series=named))
    baselines = baselines.assign(series="baseline", at=np.nan, x=np.nan).sort_values("value", ascending=False)
    parts = [part.reindex(columns=_COLUMNS).astype(object) for part in (of_sites, baselines)]
    return pd.concat(parts, ignore_index=True).infer_objects()


def draw_comparison_preference(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_preference_rows`."""
    with style.styled():
        looks = look_of(points[points["series"] != "baseline"])
        over = [name for name in OVER if (points["series"] == name).any()]
        above = (points["series"] == "information").any()
        below = points["series"].isin(["accuracy", "baseline"]).any()
        figure = style.new_figure(style.PAGE, 1.55 + 2.35 * (int(above) + int(below)))
        grid = figure.add_gridspec(int(above) + int(below), 6)
        sites = points[points["series"] != "baseline"]
        if above:
            wide = 6 // (1 + len(over))
            ax = figure.add_subplot(grid[0, :wide])
            _draw_information(ax, points[points["series"] == "information"], sites, looks)
            for place, name in enumerate(over, start=1):
                side = figure.add_subplot(grid[0, wide * place : wide * (place + 1)])
                _draw_excess(side, points[points["series"] == name], sites, looks)
                side.set_title(OVER[name])
                side.set_ylabel("excess, bits" if place == 1 else "")
        probe: Axes | None = None
        if below:
            beside = [name for name in PROBE_OVER if (points["series"] == name).any()]
            probe = figure.add_subplot(grid[-1, : 4 if beside else 6])
            _draw_probe(probe, points, sites, looks)
            stack = grid[-1, 4:].subgridspec(max(len(beside), 1), 1)
            for place, name in enumerate(beside):
                side = figure.add_subplot(stack[place])
                _draw_excess(side, points[points["series"] == name], sites, looks)
                side.set_title(PROBE_OVER[name])
                side.set_ylabel("excess, share")
        figure.suptitle(_title(points), fontsize=9)
        style.legend_below(figure, _legend(points, looks), footnote(_sentences(points)))
        style.settle(figure)
        if probe is not None:
            _name_baselines(probe, points[points["series"] == "baseline"])
    return figure


def _draw_information(ax: Axes, own: pd.DataFrame, sites: pd.DataFrame, looks: dict[str, Look]) -> None:
    """The lines over a shade up to the null's 97.5 % quantile (the largest of the models); the ceiling if in view."""
    draw_layers(ax, own, looks)
    nulls = null_band(own)
    ax.bar(nulls.index, nulls, 1.0, color=style.NULL_SHADE, zorder=0.5, lw=0, label="_null")
    for bar in ax.patches:
        bar.set_gid("null")
    ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)
    if _ceiling_in_view(own):
        bottom, top = ax.get_ylim()
        ends = own.groupby("at")["ceiling"].min()
        ax.plot(ends.index, ends, color=style.CEILING, ls=DOTS, lw=1.4, zorder=1.5, gid="ceiling")
        ax.set_ylim(bottom, max(top, 1.05 * float(ends.max())))
    ax.set_title("preference information")
    ax.set_ylabel("I(preferred or rejected; J), bits")
    site_axis(ax, sites, 4)


def null_band(own: pd.DataFrame) -> pd.Series:
    """The upper end of the flip null at each place of the axis: the largest of the models, its mean where no end is."""
    return own.assign(end=own["null_high"].fillna(own["null"])).groupby("at")["end"].max().dropna()


def _draw_excess(ax: Axes, own: pd.DataFrame, sites: pd.DataFrame, looks: dict[str, Look]) -> None:
    draw_layers(ax, own, looks)
    ax.axhline(0.0, color=style.INK, lw=0.7, zorder=1, gid="zero")
    site_axis(ax, sites, 4)


def _draw_probe(ax: Axes, points: pd.DataFrame, sites: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Accuracy by site over the shade of what is explained without a network, a line for each baseline."""
    own, baselines = points[points["series"] == "accuracy"], points[points["series"] == "baseline"]
    draw_layers(ax, own, looks)
    site_axis(ax, sites, 6, ROOM if len(baselines) else 0.0)
    left, right = ax.get_xlim()
    end = left + (right - left) / (1 + ROOM)
    if len(baselines):
        best = float(baselines["value"].max())
        ax.fill_between([left, end], 0.5, max(0.5, best), color=EXPLAINED, lw=0, zorder=0.4).set_gid("explained")
    for place, (_, row) in enumerate(baselines.iterrows()):
        site, at = str(row["site"]), end + 0.01 * (place + 0.8) * (right - left)  # beside the lines, where no model is
        look: dict[str, Any] = {"color": style.INK, "lw": 1.0, "zorder": 1.6}
        ax.plot([left, end], [row["value"]] * 2, gid=site, ls=BASELINE_DASHES[site], **look)
        if np.isfinite(row["low"]) and np.isfinite(row["high"]):
            ax.vlines(at, row["low"], row["high"], gid=f"{site}|interval", **look)
    ax.plot([left, end], [0.5, 0.5], color=style.GREY, lw=0.7, ls=DOTS, zorder=1, gid="chance")
    values = pd.concat([own[["value", "low", "high"]], baselines[["value", "low", "high"]]]).to_numpy(float)
    ax.set_ylim(min(0.46, float(np.nanmin(values)) - 0.02), min(1.02, max(0.62, float(np.nanmax(values)) + 0.03)))
    telling = _telling(baselines)
    if telling:
        said = f"{' and '.join(telling)} alone already tell{'s' * (len(telling) == 1)}"
        ax.set_title(f"linear probe: {said}", color=style.CEILING)
    else:
        ax.set_title("linear probe, cross-validated by prompt")
    ax.set_ylabel("pairs with the chosen text scored higher, share")


def _name_baselines(ax: Axes, baselines: pd.DataFrame) -> None:
    """Each baseline's name and number to the right of its line, apart from one another, and that of chance."""
    left, right = ax.get_xlim()
    end = left + (right - left) / (1 + ROOM)
    if baselines.empty:
        return
    texts = [f"{BASELINES[str(row['site'])]}: {_number(row)}" for _, row in baselines.iterrows()] + ["chance: 0.5"]
    heights = [*baselines["value"].astype(float), 0.5]
    pixels = [float(ax.transData.transform((0, height))[1]) for height in heights]
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_window_extent()
    gap = 1.35 * FONT_SIZE * figure.dpi / 72
    placed = np.clip(spread(pixels, gap), box.y0 + 0.5 * gap, None)
    for text, height, pixel in zip(texts, heights, placed, strict=True):
        at = float(ax.transData.inverted().transform((0, pixel))[1])
        where = end + 0.055 * (right - left)
        leader: dict[str, Any] = {"arrowstyle": "-", "lw": 0.5, "color": style.GREY, "shrinkA": 0, "shrinkB": 0}
        leader |= {"relpos": (0, 0.5)}
        ax.annotate(text, (end, height), (where, at), va="center", fontsize=FONT_SIZE, arrowprops=leader)


def _number(row: pd.Series) -> str:
    known = np.isfinite(row["low"]) and np.isfinite(row["high"])
    return f"{row['value']:.2f}" + (f" [{row['low']:.2f}, {row['high']:.2f}]" if known else "")


def _title(points: pd.DataFrame) -> str:
    pairs = points["pairs"].dropna()
    count = f", {pairs.iloc[0]:,.0f} pairs" if len(pairs) else ""
    kinds = [kind for kind in points.loc[points["series"] != "baseline", "rows"].unique() if kind]
    return f"{points['corpus'].iloc[0]}{count}; {' and '.join(kinds)} positions of the completions"


def _legend(points: pd.DataFrame, looks: dict[str, Look]) -> list[Artist]:
    handles = model_handles(points, looks)
    information = points[points["series"] == "information"]
    if len(null_band(information)):
        handles.append(Patch(facecolor=style.NULL_SHADE, label="null: labels flipped within pairs"))
    if _ceiling_in_view(information):
        handles.append(Line2D([], [], color=style.CEILING, ls=DOTS, lw=1.4, label="ceiling"))
    if (points["series"] == "baseline").any():
        handles.append(Patch(facecolor=EXPLAINED, label="reached without any network"))
    return handles


def _ceiling_in_view(own: pd.DataFrame) -> bool:
    """Whether the lowest ceiling is near enough to the values to be drawn with them."""
    return bool(own["ceiling"].min() < 1.5 * own[["value", "high"]].max().max())


def _ceiling_said(points: pd.DataFrame) -> str:
    """The ceiling in words, where it is too far above the values to be drawn; "" else."""
    own = points[points["series"] == "information"]
    ceilings = own["ceiling"].dropna()
    if ceilings.empty or _ceiling_in_view(own):
        return ""
    low, high = f"{ceilings.min():.2g}", f"{ceilings.max():.2g}"
    return f"The ceiling of a binary label lies above the view ({low if low == high else f'{low} to {high}'} bits)."


def confound(points: pd.DataFrame) -> str:
    """What length and author alone tell, as a sentence: beyond chance where the interval lies above one half."""
    alone = points[(points["series"] == "baseline") & points["site"].isin(["control.length", "control.author"])]
    if alone.empty:
        return ""
    telling = _telling(alone)
    shares = {"longer_chosen_share": "the longer text is chosen in {:.0%} of pairs"}
    shares |= {"author_share": "one author's text is chosen in {:.0%}"}
    found = [text.format(alone[name].dropna().iloc[0]) for name, text in shares.items() if alone[name].notna().any()]
    why = f" ({'; '.join(found)})".replace("%", " %") if found else ""
    if not telling:
        return f"Length and author alone tell nothing beyond chance{why}."
    names = f"{' and '.join(telling)} alone tell{'s' * (len(telling) == 1)}"
    return f"CONFOUNDED: {names} chosen from rejected beyond chance{why}; only what lies above the shade is more."


def _telling(baselines: pd.DataFrame) -> list[str]:
    """Which of length and author tell chosen from rejected beyond chance: their interval lies above one half."""
    alone = baselines[baselines["site"].isin(["control.length", "control.author"])]
    sure = alone[alone["low"].fillna(alone["value"]).astype(float) > 0.5]
    return [BASELINES[str(site)].removesuffix(" alone") for site in sure["site"]]


def _sentences(points: pd.DataFrame) -> list[str]:
    over = interval_words(points, "pairs")
    return [confound(points), _ceiling_said(points), over, left_out(points), unequal_depth(points)]
