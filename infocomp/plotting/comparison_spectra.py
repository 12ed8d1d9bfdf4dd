"""Spectra of base and tuned overlaid, spectral numbers by site, and how the effective ranks grow with the rows.

First row: the eigenvalues of the covariance as shares of its trace against their rank, both logarithmic, at the first
site, a middle and the last; shaded are the ranks that α-ReQ is fitted over. Then numbers by site, each on the rows that
all models share where the table has those, with intervals over documents: effective ranks (a count of directions) from
singular values of uncentred rows and from eigenvalues of centred ones, the slope α, participation ratio, mean cosine
and intrinsic dimension. Last: effective ranks grow with the rows, so they are shown against n, on nested rows.
"""

import re

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from infocomp.plotting import style
from infocomp.plotting.coding_style import DOTS
from infocomp.plotting.comparison_selection import (
    comparison_rows,
    few,
    in_order,
    of_one_text,
    one_variant,
    setting,
)
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
from infocomp.plotting.memorization_style import log_axis
from infocomp.plotting.selection import NothingToDraw
from infocomp.plotting.style import step_text, thin

EIGENVALUE, ALPHA = "eigenvalue", "alpha_req"
NUMBERS = {
    "rankme": ("RankMe, singular values", "effective rank"),
    "rankme_covariance": ("RankMe, covariance", "effective rank"),
    ALPHA: ("α-ReQ, slope of the spectrum", "slope α"),
    "participation_ratio": ("participation ratio", "directions"),
    "anisotropy": ("anisotropy", "mean cosine"),
    "intrinsic_dimension": ("intrinsic dimension (TwoNN)", "dimensions"),
}
GROWING = "rankme"
POOR_FIT = 0.9  # r² of a power law, below which its slope is drawn hollow
RANGE_SHADE = "0.9"
MOST_SITES = 3
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
_COLUMNS += ["label", "rows", "at", "x", "value", "low", "high", "interval", "ceiling", "n_tokens", "r2", "hollow"]
_COLUMNS += ["rank_from", "rank_to", "of_tuned"]


def comparison_spectra(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Spectra of one data set; NothingToDraw (a ValueError) says what the table lacks."""
    return draw_comparison_spectra(comparison_spectra_rows(table, corpus))


def comparison_spectra_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_spectra` draws: series "spectrum" (x: rank), "number" (x: the site), "growth" (x: n)."""
    lacks = "spectra need eigenvalues or effective ranks by site"
    rows = few(of_one_text(comparison_rows(table, EIGENVALUE, *NUMBERS, corpus=corpus), lacks))
    rows = rows.drop_duplicates(["who", "site", "quantity", "label", "rows", "estimator"])
    sites = rows[["site", "depth"]].drop_duplicates().sort_values("depth")["site"]
    parts = []
    curves = rows[rows["quantity"] == EIGENVALUE]
    curves = curves.assign(series="spectrum", x=setting(curves, "rank"))
    parts.append(curves[(curves["x"] > 0) & (curves["value"] > 0) & curves["site"].isin(_few_sites(sites, curves))])
    plain = rows[rows["quantity"].isin(list(NUMBERS)) & (rows["rows"] != "first")]
    if parts[0].empty and plain.empty:
        raise NothingToDraw(lacks)
    if len(plain):
        plain = in_order(one_variant(plain, "sample", "all"))
        plain = plain.assign(**{name: setting(plain, name) for name in ("r2", "rank_from", "rank_to")})
        plain = plain.assign(series="number", hollow=(plain["quantity"] == ALPHA) & (plain["r2"] < POOR_FIT))
        parts.append(with_x(plain))
    grown = rows[(rows["quantity"] == GROWING) & (rows["rows"] == "first")]
    size = [int(found[1]) if (found := re.fullmatch(r"n (\d+)", label)) else np.nan for label in grown["label"]]
    grown = grown.assign(series="growth", x=size)
    parts.append(
        grown[grown["x"].notna() & grown["site"].isin(_few_sites(sites, grown))].sort_values("x", kind="stable")
    )
    together = [part.reindex(columns=_COLUMNS).astype(object) for part in parts if len(part)]
    return pd.concat(together, ignore_index=True).infer_objects()


def _few_sites(sites: pd.Series, rows: pd.DataFrame) -> list[str]:
    """The first, a middle and the last of the sites, in order of depth, that these rows have."""
    found = [str(site) for site in sites if (rows["site"] == site).any()]
    return [found[place] for place in thin(len(found), MOST_SITES)] if found else []


def draw_comparison_spectra(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_spectra_rows`."""
    with style.styled():
        looks = look_of(points)
        spectra, numbers, grown = (points[points["series"] == name] for name in ("spectrum", "number", "growth"))
        shown = [name for name in NUMBERS if (numbers["quantity"] == name).any()]
        panels = [
            *(("spectrum", site) for site in spectra.sort_values("depth")["site"].unique()),
            *(("number", name) for name in shown),
            *(("growth", site) for site in grown.sort_values("depth")["site"].unique()),
        ]
        rows = [[panel for panel in panels if panel[0] == "spectrum"]]
        rows += [[("number", name) for name in shown[place : place + 3]] for place in range(0, len(shown), 3)]
        rows += [[panel for panel in panels if panel[0] == "growth"]]
        rows = [row for row in rows if row]
        figure = style.new_figure(style.PAGE, 1.2 + 1.75 * len(rows))
        grid = figure.add_gridspec(len(rows), 3)
        for down, row in enumerate(rows):
            axes = [figure.add_subplot(grid[down, across]) for across in range(len(row))]
            for ax, (series, what) in zip(axes, row, strict=True):
                if series == "number":
                    _draw_number(ax, numbers[numbers["quantity"] == what], numbers, looks, what)
                elif series == "spectrum":
                    _draw_spectrum(ax, spectra[spectra["site"] == what], spectra, _range(numbers), looks)
                else:
                    _draw_growth(ax, grown[grown["site"] == what], grown, looks)
            if row[0][0] != "number":
                axes[0].set_ylabel("share of the trace" if row[0][0] == "spectrum" else "RankMe, effective rank")
                for ax in axes[1:]:
                    ax.tick_params(labelleft=False)
        figure.suptitle(str(points["corpus"].iloc[0]), fontsize=9)
        style.legend_below(figure, _legend(points, looks), footnote(_sentences(points)))
        figure.align_ylabels()
        style.settle(figure)
    return figure


def _range(numbers: pd.DataFrame) -> tuple[float, float] | None:
    """The ranks that the slope is fitted over, in the table's own words; None where it has no slope."""
    known = numbers[(numbers["quantity"] == ALPHA) & numbers["rank_from"].notna() & numbers["rank_to"].notna()]
    return (float(known["rank_from"].min()), float(known["rank_to"].max())) if len(known) else None


def _draw_spectrum(
    ax: Axes, own: pd.DataFrame, every: pd.DataFrame, fitted: tuple[float, float] | None, looks: dict[str, Look]
) -> None:
    """One site's eigenvalues; axes are those of every panel, so that sites can be compared."""
    for who, path in own.groupby("who", sort=False):
        look = looks[str(who)] | {"marker": "", "lw": 1.1}
        ax.plot(path["x"], path["value"], gid=str(who), zorder=3, **look)
    if fitted is not None:
        ax.axvspan(*fitted, color=RANGE_SHADE, lw=0, zorder=0.4, gid="fitted ranks")
    low, high = float(every["value"].min()), float(every["value"].max())
    low = max(low, 1e-9 * high)  # beyond it is rounding
    log_axis(ax, "y", low / 1.5, 1.6 * high, _power)
    log_axis(ax, "x", 0.9, 1.15 * float(every["x"].max()), step_text)
    ax.set_title(str(own["name"].iloc[0]))
    ax.set_xlabel("rank of the eigenvalue")


def _power(value: float) -> str:
    """Numbers from a thousandth on as they are, smaller ones with their power of ten."""
    if value > 0.99e-3:
        return f"{value:g}"
    digits, power = f"{value:.0e}".split("e")
    return f"${'' if digits == '1' else digits + chr(92) + 'cdot '}10^{{{int(power)}}}$"


def _draw_number(ax: Axes, own: pd.DataFrame, numbers: pd.DataFrame, looks: dict[str, Look], quantity: str) -> None:
    draw_layers(ax, own, looks)
    site_axis(ax, numbers, 4)
    title, unit = NUMBERS[quantity]
    ax.set_title(title)
    ax.set_ylabel(unit)
    ax.locator_params(axis="y", nbins=5)


def _draw_growth(ax: Axes, own: pd.DataFrame, grown: pd.DataFrame, looks: dict[str, Look]) -> None:
    """One site's effective rank against the rows it is computed from, with n itself where that is in view."""
    for who, path in own.groupby("who", sort=False):
        ax.plot(path["x"], path["value"], gid=str(who), zorder=3, **looks[str(who)])
    low, high = float(grown["value"].min()) / 1.3, 1.3 * float(grown["value"].max())
    sizes = sorted(grown["x"].unique())
    if sizes[0] < high:
        ax.plot(sizes, sizes, color=style.CEILING, ls=DOTS, lw=1.1, zorder=1, gid="n")
    log_axis(ax, "y", low, high, "{:g}".format)
    ax.set_xscale("log", base=2)
    ax.set_xlim(sizes[0] / 1.2, 1.2 * sizes[-1])
    ax.xaxis.set_major_locator(FixedLocator([sizes[place] for place in thin(len(sizes), 5)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_title(f"{own['name'].iloc[0]}: growth with the rows")
    ax.set_xlabel("rows n")


def _legend(points: pd.DataFrame, looks: dict[str, Look]) -> list[Artist]:
    handles = model_handles(points, looks)
    fitted = _range(points[points["series"] == "number"])
    if fitted is not None and (points["series"] == "spectrum").any():
        handles.append(Patch(facecolor=RANGE_SHADE, label=f"ranks {fitted[0]:g} to {fitted[1]:g}: fitted for α"))
    if points["hollow"].fillna(False).astype(bool).any():
        look = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "w"}
        handles.append(Line2D([], [], color=style.GREY, label=f"hollow: r² of the fit below {POOR_FIT:g}", **look))
    grown = points[points["series"] == "growth"]
    if len(grown) and grown["x"].min() < 1.3 * grown["value"].max():
        handles.append(Line2D([], [], color=style.CEILING, ls=DOTS, lw=1.1, label="n itself"))
    return handles


def _sentences(points: pd.DataFrame) -> list[str]:
    numbers = points[points["series"] == "number"]
    kinds = {"sample": "the rows that all models share", "all": "all measured rows", "last": "last rows of documents"}
    said = []
    for kind, own in numbers.groupby("rows", sort=False):
        counts = own["n_tokens"].dropna().unique()
        n = f" (n = {counts[0]:,.0f})" if len(counts) == 1 else ""
        names = (
            ""
            if numbers["rows"].nunique() == 1
            else f" ({', '.join(NUMBERS[name][0] for name in own['quantity'].unique())})"
        )
        said.append(f"Numbers by site are of {kinds.get(str(kind), str(kind))}{n}{names}.")
    return [*said, interval_words(numbers, "documents"), left_out(points), unequal_depth(numbers)]
