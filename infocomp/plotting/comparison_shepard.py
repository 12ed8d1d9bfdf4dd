"""Shepard's law by site, before and after tuning: how well each law tells held-out confusions, and which one better.

Above, R² of the exponential and of the Gaussian law for pairs of items that the fit did not see (1 all, 0 as good as
knowing no distance, below 0 worse). Below, R² of the exponential less that of the Gaussian, above 0 where Shepard's
law is the better one, and the slope of the exponential in the table's unit. A line is a model, with its 95 % intervals
over items.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from infocomp.plotting import style
from infocomp.plotting.comparison_selection import comparison_rows, few, of_one_text
from infocomp.plotting.comparison_style import (
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
from infocomp.plotting.selection import NothingToDraw

FIT, PREFERENCE, SLOPE = "shepard_r2", "shepard_preference", "shepard_slope"
PANELS = {  # panel: quantity, label (None: any), title
    "exponential": (FIT, "exponential", "exponential law, log c = a − d/s"),
    "gaussian": (FIT, "gaussian", "Gaussian law, log c = a − d²/s²"),
    "preference": (PREFERENCE, None, "exponential less Gaussian"),
    "slope": (SLOPE, "exponential", "slope of the exponential law"),
}
LOWEST = -0.5  # R² below it leaves the axis
_COLUMNS = ["panel", "corpus", "who", "model", "revision", "role", "place", "of_tuned", "site", "kind", "name", "depth"]
_COLUMNS += ["quantity", "label", "value", "low", "high", "interval", "unit"]


def comparison_shepard(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Shepard's law before and after tuning on one data set; NothingToDraw says what the table lacks."""
    return draw_comparison_shepard(comparison_shepard_rows(table, corpus))


def comparison_shepard_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_shepard` draws: a row for each point of a panel."""
    lacking = "Shepard's law needs shepard_r2, how well a law tells held-out confusions"
    rows = few(of_one_text(comparison_rows(table, FIT, PREFERENCE, SLOPE, corpus=corpus), lacking))
    parts = []
    for panel, (quantity, label, _) in PANELS.items():
        own = rows[(rows["quantity"] == quantity) & ((rows["label"].str.lower() == label) | (label is None))]
        parts.append(own.drop_duplicates(["who", "site"]).assign(panel=panel))
    found = pd.concat(parts)
    if not (found["quantity"] == FIT).any():
        raise NothingToDraw(lacking)
    return found[_COLUMNS].reset_index(drop=True)


def draw_comparison_shepard(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_shepard_rows`."""
    with style.styled():
        panels = [panel for panel in PANELS if (points["panel"] == panel).any()]
        down = -(-len(panels) // 2)
        figure = style.new_figure(style.PAGE, 1.15 + 1.95 * down)
        grid = figure.add_gridspec(down, 2)
        looks = look_of(points)
        placed = with_x(points)
        axes = {panel: figure.add_subplot(grid[divmod(place, 2)]) for place, panel in enumerate(panels)}
        for panel, ax in axes.items():
            own = placed[placed["panel"] == panel]
            ax.axhline(0, color=style.GREY, lw=0.6, zorder=1, gid="zero")
            draw_layers(ax, own, looks, f"|{panel}")
            site_axis(ax, placed, most=5)
            ax.set_xlabel("site, by depth")
            ax.set_title(PANELS[panel][2])
            _axis_of_values(ax, panel, own, points)
        figure.suptitle(f"{points['corpus'].iloc[0]}; confusion of next tokens by distance", fontsize=8)
        style.legend_below(figure, model_handles(points, looks), footnote(_sentences(points)))
        style.settle(figure)
    return figure


def _axis_of_values(ax: Axes, panel: str, own: pd.DataFrame, points: pd.DataFrame) -> None:
    """R² of both laws on one axis; the others on their own, with 0 on it."""
    fit = PANELS[panel][0] == FIT
    ends = (points[points["quantity"] == FIT] if fit else own)[["value", "low", "high"]]
    low, high = min(0.0, float(ends.min().min())), max(0.0, float(ends.max().max()))
    margin = 0.06 * (high - low) or 0.1
    ax.set_ylim(max(low - margin, LOWEST) if fit else low - margin, high + margin)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    units = {SLOPE: f"slope, {own['unit'].iloc[0]} over the mean distance", PREFERENCE: "difference of R², ratio"}
    ax.set_ylabel(units.get(PANELS[panel][0], "R² of held-out pairs, ratio"))


def _sentences(points: pd.DataFrame) -> list[str]:
    said = ["c: confusion of two contexts by one sampled next token, d: their distance at a site."]
    fit = points[points["quantity"] == FIT]
    below = int((fit["value"] < LOWEST).sum())
    if below:
        said.append(f"{below} values of R² below {LOWEST:g} are off the axis.".replace("-", "−"))
    return [*said, interval_words(points, "items"), unequal_depth(points), left_out(points)]
