"""The sensitivity page: complexity and expressivity of one checkpoint under other settings, a panel a setting; bits.

Marks are point estimates, thick bars lead from the lower to the upper end of the bracket, thin ones over the outer 95 %
interval, where they exist; without a point estimate a hollow mark is the plug-in less its null. The base stands in
every panel on a grey ground, and its points go on as faint lines. Three sites at most: the embedding, the middle block
and the last.
"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.selection import STREAM, NothingToDraw

QUANTITIES = ("complexity", "expressivity")
TITLES = {
    "bins": "bins m",
    "draws": "anchor draws",
    "seed": "anchor seed",
    "temperature": "temperature ε",
    "documents": "documents",
    "weighting": "weighting of labels",
    "rows": "rows",
}
NAMES = {  # of levels, short enough for a quarter of a page; others are written as they are
    "exact": "exact",
    "leading order": "leading",
    "half": "½",
    "twice": "2×",
    "frequency": "frequency",
    "uniform": "uniform",
    "uniform_mixed": "mixed",
    "outliers_removed": "no outliers",
}
ORDER = ("half", "exact", "leading order", "twice", "frequency", "uniform", "uniform_mixed")
ORDER += ("raw", "centred", "outliers_removed")
COLUMNS = 4
_ENDS = ["point", "lower", "upper", "ci_low", "ci_high"]
_COLUMNS = ["setting", "level", "place", "base", "site", "name", "quantity", "label", "drawn", "corrected", "value"]
_COLUMNS += [*_ENDS, "null", "ceiling", "efficiency", "draw_std", "n_tokens", "n_documents", "revision", "corpus"]


def draw_sensitivity_pages(table: pd.DataFrame, folder: str | Path) -> list[Path]:
    """The page of each text of the table as PDF, PNG and the CSV that was drawn; none where nothing can be drawn."""
    corpora = [str(name) for name in table["corpus"].unique()]
    written = []
    for corpus in corpora:
        name = "sensitivity" + ("-" + re.sub(r"[^A-Za-z0-9.]+", "-", corpus).strip("-.") if len(corpora) > 1 else "")
        rows = sensitivity_rows(table, corpus)
        written += style.save(draw_sensitivity(rows), folder, name, rows)
    return written


def sensitivity_rows(table: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """What is drawn: one row a mark. `place` counts a setting's levels, `drawn` is the height of the mark.

    NothingToDraw: the base was not measured.
    """
    rows = table[(table["corpus"] == corpus) & (table["draw"] == "mean") & (table["status"] == "ok")]
    rows = rows[rows["quantity"].isin(QUANTITIES) & rows["estimator"].str.startswith("soft")]
    names = _three_sites(rows)
    rows = rows[rows["site"].isin(names)]
    told = [json.loads(settings) for settings in rows["settings"]]
    rows = rows.assign(varied=[one["varied"] for one in told], levels=[one["levels"] for one in told])
    rows = rows.assign(name=rows["site"].map(names), base=rows["varied"] == "base")
    if not rows["base"].any():
        raise NothingToDraw("a sensitivity page needs the base setting, and the table holds no number of it")
    rows["corrected"] = np.where(rows["point"].notna(), "point", "less null")
    rows["drawn"] = rows["point"].fillna(rows["value"] - rows["null"])
    parts = []
    for setting in TITLES:
        own = rows[rows["base"] | (rows["varied"] == setting)]
        own = own.assign(setting=setting, level=[levels[setting] for levels in own["levels"]])
        place = {level: place for place, level in enumerate(sorted(own["level"].unique(), key=_in_order))}
        parts.append(own.assign(place=own["level"].map(place)))
    order = {site: place for place, site in enumerate(names)}
    found = pd.concat(parts, ignore_index=True)
    found = found.assign(of_setting=found["setting"].map(list(TITLES).index), depth=found["site"].map(order))
    found = found.sort_values(["of_setting", "quantity", "place", "depth"], kind="stable", ignore_index=True)
    return found[_COLUMNS].dropna(subset=["drawn"]).reset_index(drop=True)


def draw_sensitivity(points: pd.DataFrame) -> Figure:
    """The figure of `sensitivity_rows`: settings side by side, expressivity below complexity, one scale for each."""
    settings = list(points["setting"].unique())
    bands = [settings[start : start + COLUMNS] for start in range(0, len(settings), COLUMNS)]
    with style.styled():
        figure = style.new_figure(style.PAGE, 3.55 * len(bands) + 0.4)
        grid = figure.add_gridspec(2 * len(bands), COLUMNS)
        for band, row in enumerate(bands):
            for turn, quantity in enumerate(QUANTITIES):
                limits = _limits(points[points["quantity"] == quantity])
                for column, setting in enumerate(row):
                    ax = figure.add_subplot(grid[2 * band + turn, column])
                    own = points[(points["setting"] == setting) & (points["quantity"] == quantity)]
                    _panel(ax, own, list(points["name"].unique()))
                    ax.set_ylim(*limits)
                    if column:
                        ax.tick_params(labelleft=False)
                    else:
                        ax.set_ylabel(style.AXIS[quantity])
                    if turn:
                        ax.set_xlabel(TITLES[setting])
                    else:
                        ax.tick_params(labelbottom=False)
        style.legend_below(figure, _legend(points), style.DIRECTION)
        style.settle(figure)
    return figure


def _panel(ax: Axes, own: pd.DataFrame, names: list[str]) -> None:
    levels = own.drop_duplicates("place").sort_values("place")
    for name in names:
        turn = names.index(name)
        colour, marker = style.CATEGORIES[turn], style.MARKERS[turn]
        shift = 0.24 * (turn - (len(names) - 1) / 2)
        for point in own[own["name"] == name].to_dict("records"):
            x = point["place"] + shift
            if np.isfinite(point["ci_low"]) and np.isfinite(point["ci_high"]):
                ax.plot([x, x], [point["ci_low"], point["ci_high"]], color=colour, lw=0.7, gid="interval")
            if np.isfinite(point["lower"]) and np.isfinite(point["upper"]):
                ax.plot([x, x], [point["lower"], point["upper"]], color=colour, lw=2.2, alpha=0.55, gid="bracket")
            fill = colour if point["corrected"] == "point" else "white"
            ax.plot(x, point["drawn"], marker=marker, ms=3.4, mew=0.7, color=colour, mfc=fill, ls="", gid="mark")
            if point["base"]:
                ax.axhline(point["drawn"], color=colour, lw=0.6, ls=(0, (1, 1.5)), alpha=0.7, zorder=1, gid="base")
    for place in levels.loc[levels["base"], "place"]:
        ax.axvspan(place - 0.46, place + 0.46, color=style.NULL_SHADE, lw=0, zorder=0)
    ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)
    ax.set_xticks(list(levels["place"]), labels=[NAMES.get(str(level), str(level)) for level in levels["level"]])
    ax.set_xlim(-0.6, max(len(levels), 2) - 0.4)
    ax.tick_params(axis="x", length=0, labelsize=6.5)


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """One scale for a quantity: every mark and interval, and 0."""
    drawn = rows[["drawn", "lower", "upper", "ci_low", "ci_high"]].to_numpy(dtype=float)
    low, high = min(0.0, float(np.nanmin(drawn))), max(0.0, float(np.nanmax(drawn)))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _legend(points: pd.DataFrame) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for turn, name in enumerate(points["name"].unique()):
        look = {"color": style.CATEGORIES[turn], "marker": style.MARKERS[turn], "ms": 3.4, "ls": ""}
        handles.append(Line2D([], [], label=str(name), **look))
    if points["lower"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=2.2, alpha=0.55, label="bracket"))
    if points["ci_low"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, label="95 % interval"))
    if (points["corrected"] != "point").any():
        hollow = {"color": style.GREY, "marker": "o", "mfc": "white", "ms": 3.4, "ls": ""}
        handles.append(Line2D([], [], label="plug-in less null", **hollow))
    handles.append(Patch(color=style.NULL_SHADE, label="base setting"))
    return handles


def _three_sites(rows: pd.DataFrame) -> dict[str, str]:
    """Embedding, middle block and last; without blocks of the stream the first, middle and last site of the table."""
    sites = rows.drop_duplicates("site")
    stream = sites[sites["site"].str.endswith(STREAM) & sites["layer"].notna()].sort_values("layer")
    blocks = [(str(site), f"L{int(layer)}") for site, layer in zip(stream["site"], stream["layer"], strict=True)]
    if not blocks:
        found = [(str(site), str(site)) for site in sites["site"]]
        return dict(found[place] for place in sorted({0, len(found) // 2, len(found) - 1})) if found else {}
    chosen = [blocks[place] for place in sorted({(len(blocks) - 1) // 2, len(blocks) - 1})]
    return dict([("hook_embed", "embed")] * bool((sites["site"] == "hook_embed").any()) + chosen)


def _in_order(level: str) -> tuple[int, float, str]:
    """Numbers and shares by size, "all" last; rules in the order of ORDER."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)(?:/(\d+))?", level)
    if number:
        return 0, float(number[1]) / float(number[2] or 1), level
    return (1, 0.0, level) if level == "all" else (2, ORDER.index(level) if level in ORDER else len(ORDER), level)
