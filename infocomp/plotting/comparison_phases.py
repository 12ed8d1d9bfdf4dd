"""Phases of training: RankMe and the exponent α of the spectrum over checkpoints, with change points between phases.

A pair of rows a model with at least five checkpoints, a column a site (first, middle and last). RankMe is a count of
directions, α a slope without unit; steps are logarithmic. A phase is shaded from one boundary to the next, as the
table's change points name it; the line is the boundary, the dark band its 95 % interval in steps. A site without a
boundary is shaded nowhere.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from infocomp.plotting import style
from infocomp.plotting.coding_style import band
from infocomp.plotting.comparison_selection import comparison_rows, of_one_text, one_variant
from infocomp.plotting.comparison_style import footnote, interval_words
from infocomp.plotting.selection import short_names

BOUNDARY = "phase_boundary"
CURVES = {"rankme": "RankMe, count", "alpha_req": "exponent α, slope"}
FEWEST = 5
MOST_MODELS = 3
SHADES = {
    "warm-up": style.CATEGORIES[5],
    "entropy-seeking": style.CATEGORIES[0],
    "compression-seeking": style.CATEGORIES[1],
    "mixed": style.CATEGORIES[4],
    "flat": style.GREY,
}
PALE = 0.16
_COLUMNS = ["series", "model", "short", "revision", "role", "place", "corpus", "site", "name", "depth", "quantity"]
_COLUMNS += ["label", "rows", "step", "value", "low", "high", "interval", "unit", "before", "after", "of_models"]


def comparison_phases(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Phases over checkpoints on one data set; NothingToDraw says what the table lacks."""
    return draw_comparison_phases(comparison_phases_rows(table, corpus))


def comparison_phases_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_phases` draws: points of curves and boundaries (`series`) of few sites of each model."""
    lacking = f"phases need rankme or alpha_req at {FEWEST} checkpoints of one model"
    rows = comparison_rows(table, *CURVES, BOUNDARY, corpus=corpus)
    curves = rows[rows["quantity"].isin(list(CURVES)) & rows["step"].notna()]
    steps = curves.groupby("model")["step"].transform("nunique")
    curves = of_one_text(one_variant(curves[steps >= FEWEST], "sample", "all"), lacking)
    curves = curves.drop_duplicates(["model", "site", "quantity", "step"]).assign(series="curve", before="", after="")
    bounds = rows[rows["quantity"] == BOUNDARY].sort_values("rows", key=lambda of: of != curves["rows"].iloc[0])
    bounds = bounds[bounds["model"].isin(curves["model"])]
    first = bounds.groupby(["model", "site"])["rows"].transform("first")
    bounds = bounds[bounds["rows"] == first].drop_duplicates(["model", "site", "value"])
    names = [(str(said.get("from", "")), str(said.get("to", ""))) for said in bounds["said"]]
    after = [to or str(label).removesuffix(" begins") for (_, to), label in zip(names, bounds["label"], strict=True)]
    bounds = bounds.assign(series="boundary", before=[one for one, _ in names], after=after)
    models = [str(name) for name in curves.sort_values(["place"], kind="stable")["model"].unique()]
    kept, short = [], short_names(models)
    for model in [models[place] for place in style.thin(len(models), MOST_MODELS)]:
        own = curves[curves["model"] == model]
        sites = own.drop_duplicates("site").sort_values("depth")["site"].tolist()
        chosen = [sites[place] for place in sorted({0, len(sites) // 2, len(sites) - 1})]
        kept.append(
            own[own["site"].isin(chosen)].sort_values(["quantity", "depth", "step"], ascending=[False, True, True])
        )
        of_model = bounds[(bounds["model"] == model) & bounds["site"].isin(chosen)]
        kept.append(of_model.sort_values(["depth", "value"]))
    found = pd.concat(kept)
    found = found.assign(short=found["model"].map(short), of_models=len(models))
    return found[_COLUMNS].reset_index(drop=True)


def draw_comparison_phases(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_phases_rows`."""
    with style.styled():
        models = [str(model) for model in points["model"].unique()]
        curves = points[points["series"] == "curve"]
        quantities = [name for name in CURVES if (curves["quantity"] == name).any()]
        columns = max(own["site"].nunique() for _, own in curves.groupby("model"))
        down = len(models) * len(quantities)
        figure = style.new_figure(style.PAGE, 1.2 + 1.4 * down)
        grid = figure.add_gridspec(down, columns)
        for row in range(down):
            model, quantity = models[row // len(quantities)], quantities[row % len(quantities)]
            own = points[points["model"] == model]
            sites = own[own["series"] == "curve"].drop_duplicates("site").sort_values("depth")
            for column, (site, name) in enumerate(zip(sites["site"], sites["name"], strict=True)):
                ax = figure.add_subplot(grid[row, column])
                _draw_panel(ax, own[own["site"] == site], f"{model}|{site}|{quantity}", quantity)
                last = row == down - 1
                ax.set_xlabel("training step" if last else "")
                ax.tick_params(labelbottom=row % len(quantities) == len(quantities) - 1)
                if row % len(quantities) == 0:
                    ax.set_title(str(name) if len(models) == 1 else f"{sites['short'].iloc[0]}, {name}")
                ax.set_ylabel(CURVES[quantity] if column == 0 else "")
        named = f"; model: {points['short'].iloc[0]}" if len(models) == 1 else ""
        figure.suptitle(f"{points['corpus'].iloc[0]}{named}; phases of training", fontsize=8)
        style.legend_below(figure, _legend(points), footnote(_sentences(points)))
        style.settle(figure)
    return figure


def segments(bounds: pd.DataFrame, low: float, high: float) -> list[tuple[str, float, float]]:
    """Name, first and last step of each phase between two steps; none where there is no boundary."""
    ordered = bounds.sort_values("value")
    ends = [low, *(float(value) for value in ordered["value"]), high]
    names = [*ordered["before"].iloc[:1], *ordered["after"]]
    return [(str(name), *span) for name, span in zip(names, pairwise(ends), strict=False)]


def _draw_panel(ax: Axes, own: pd.DataFrame, gid: str, quantity: str) -> None:
    """A curve with its interval, over its phases and their boundaries."""
    path = own[(own["series"] == "curve") & (own["quantity"] == quantity)].sort_values("step")
    bounds = own[own["series"] == "boundary"]
    every = own.loc[own["series"] == "curve", "step"]
    style.step_axis(ax, list(every))
    for name, start, end in segments(bounds, float(every.min()), float(every.max())):
        shade = ax.axvspan(start, end, color=SHADES.get(name, style.GREY), alpha=PALE, lw=0, zorder=0.5)
        shade.set_gid(f"{gid}|{name}")
    for _, bound in bounds.iterrows():
        if np.isfinite([bound["low"], bound["high"]]).all():
            ax.axvspan(bound["low"], bound["high"], gid=f"{gid}|boundary|interval", **_within())
        ax.axvline(bound["value"], color=style.INK, lw=0.8, zorder=1.2, gid=f"{gid}|boundary")
    ax.plot(path["step"], path["value"], color=style.INK, marker="o", ms=2.5, mew=0, zorder=3, gid=gid)
    band(ax, path, "step", style.INK, f"{gid}|interval")
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _within() -> dict[str, Any]:
    return {"color": style.INK, "alpha": 0.16, "lw": 0, "zorder": 0.9}


def _legend(points: pd.DataFrame) -> list[Artist]:
    bounds = points[points["series"] == "boundary"]
    present = {*bounds["before"], *bounds["after"]}
    names = [name for name in SHADES if name in present] + sorted(name for name in present - set(SHADES) if name)
    handles: list[Artist] = [
        Patch(facecolor=SHADES.get(name, style.GREY), alpha=PALE + 0.1, lw=0, label=name) for name in names
    ]
    if len(bounds):
        handles.append(Line2D([], [], color=style.INK, lw=0.8, label="boundary of two phases"))
    if bounds["low"].notna().any():
        handles.append(Patch(facecolor=style.INK, alpha=0.25, lw=0, label="its 95 % interval, steps"))
    return handles


def _sentences(points: pd.DataFrame) -> list[str]:
    """Where no boundary was found, what intervals of curves are, and which models are left out."""
    curves, bounds = (points[points["series"] == series] for series in ("curve", "boundary"))
    without = curves[~curves.set_index(["model", "site"]).index.isin(bounds.set_index(["model", "site"]).index)]
    several = points["model"].nunique() > 1
    named = [f"{row['short']}, {row['name']}" if several else row["name"] for _, row in without.iterrows()]
    said = [f"No boundary of phases in the table: {'; '.join(dict.fromkeys(named))}."] if len(named) else []
    left = int(points["of_models"].iloc[0]) - points["model"].nunique()
    if left:
        said.append(f"{left} more models have {FEWEST} checkpoints; the table holds them.")
    return [*said, interval_words(curves, "documents").replace("Upright lines and ribbons", "Ribbons")]
