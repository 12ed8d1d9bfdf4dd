"""What changed beyond chance from the base to each tuned model: a table sorted by effect size, one line a measure.

A change is a difference (tuned minus base) that its row calls changed, at a false-discovery rate of 5 % over the whole
table. A line is a measure of one model on one data set, at the site where its effect (difference over its spread
between documents) is the largest, with the values of both models, the difference with its 95 % interval in the
measure's own unit, p and at how many of its sites it rose and fell. At most 30 lines are drawn, and what is not is
counted in words. Where nothing changed that is said, above the largest effects in grey.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from infocomp.plotting import style
from infocomp.plotting.comparison_selection import comparison_rows, setting
from infocomp.plotting.comparison_style import Look, footnote, look_of, model_handles
from infocomp.plotting.grokking_style import number_text
from infocomp.plotting.placement import FONT_SIZE
from infocomp.plotting.selection import NothingToDraw

MOST = 30
MOST_UNCHANGED = 10
LINE = 0.165  # inches of height
BARS = 1.15  # inches of width, at least
GAP = 7.0  # points between columns
LINEAR = 12.0  # effects up to it stand on a linear axis
RIGHT = ("base", "tuned", "p")  # columns that end on one line
HEADER = "header"
PLAIN_ROWS = ("", "raw", "frequency")
WORDS = {
    "rankme": "RankMe, singular values",
    "rankme_covariance": "RankMe, covariance",
    "alpha_req": "α of the spectrum",
    "shepard_r2": "Shepard's law, R²",
    "shepard_slope": "Shepard's law, slope",
    "shepard_preference": "R², exponential − Gaussian",
    "probe_bits": "probe, per completion",
}
_FACTS = ("base_value", "tuned_value", "p", "effect", "changed", "paired")
_MEASURE = ["who", "corpus", "quantity", "label", "rows", "estimator"]
_COLUMNS = ["who", "model", "revision", "role", "place", "corpus", "quantity", "label", "rows", "estimator", "site"]
_COLUMNS += ["name", "unit", "base_value", "tuned_value", "value", "low", "high", "std_error", "p", "effect", "changed"]
_COLUMNS += ["paired", "risen", "fallen", "sites", "tested", "tested_changed", "measures_changed"]


def comparison_changes(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """What changed beyond chance, on one data set or (None) on all; NothingToDraw says what the table lacks."""
    return draw_comparison_changes(comparison_changes_rows(table, corpus))


def comparison_changes_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_changes` draws: one row a line; `tested` differences, of which `tested_changed` changed."""
    rows = comparison_rows(table, corpus=corpus, differences=True)
    if rows.empty:
        raise NothingToDraw("what changed needs rows of differences, tuned minus base")
    rows = rows.assign(**{name: setting(rows, name) for name in _FACTS})
    rows = rows[rows["changed"].notna() | rows["p"].notna()]
    if rows.empty:
        raise NothingToDraw("what changed needs differences that were tested; none of the table's has a p")
    rows = rows.assign(changed=rows["changed"] == 1.0)
    changed = rows[rows["changed"]]
    counted = rows.groupby(_MEASURE, sort=False)
    rows["risen"] = (rows["changed"] & (rows["value"] > 0)).groupby([rows[name] for name in _MEASURE]).transform("sum")
    rows["fallen"] = (rows["changed"] & (rows["value"] < 0)).groupby([rows[name] for name in _MEASURE]).transform("sum")
    rows["sites"] = counted["site"].transform("nunique")
    rows = rows.assign(tested=len(rows), tested_changed=len(changed))
    shown = rows[rows["changed"]] if len(changed) else rows
    shown = shown.assign(size=shown["effect"].abs()).sort_values("size", ascending=False, kind="stable")
    shown = shown.drop_duplicates(_MEASURE)
    shown = shown.assign(measures_changed=len(shown) if len(changed) else 0)
    return shown.head(MOST if len(changed) else MOST_UNCHANGED)[_COLUMNS].reset_index(drop=True)


def measure_text(quantity: str, label: str, rows: str, unit: str) -> str:
    """A measure in words, with its unit: "complexity, token, bits"."""
    said = [WORDS.get(quantity, quantity.replace("_", " "))]
    said += [label] if label and label != said[0].split()[0] else []
    said += [rows] if rows not in PLAIN_ROWS else []
    return ", ".join([*said, unit] if unit and not said[0].startswith(unit) else said)


def interval_text(value: float, low: float, high: float, signed: bool = False) -> str:
    """A number with its interval, where it has one: +0.12 [0.1, 0.14]."""
    sign = "+" if signed and value > 0 else ""
    ends = f" [{number_text(low)}, {number_text(high)}]" if np.isfinite([low, high]).all() else ""
    return f"{sign}{number_text(value)}{ends}"


def p_text(p: float) -> str:
    """A probability: 0.032, < 0.001; "" where there is none."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


# --- the figure -------------------------------------------------------------------------------------------------------


def draw_comparison_changes(lines: pd.DataFrame) -> Figure:
    """The figure of `comparison_changes_rows`."""
    with style.styled():
        columns = _columns(lines)
        probe = style.new_figure(style.PAGE, 1.0)
        widths = [max(text_width(probe, text) for text in set(column)) for column in columns.values()]
        room = sum(widths) + GAP * len(widths)
        note = footnote(_sentences(lines)) or ""
        height = LINE * (len(lines) + 1) + 0.15 * (note.count("\n") + 1) + 1.5
        figure = style.new_figure(max(style.PAGE, room / 72 + BARS + 0.2), height)
        ax = figure.add_subplot()
        looks = look_of(lines)
        ax.set_ylim(len(lines) - 0.4, -0.6)
        left = -room
        for (header, column), width in zip(columns.items(), widths, strict=True):
            right = header in RIGHT
            at, ha = left + (width if right else 0.0), "right" if right else "left"
            write_cell(ax, 0, at, -0.75, header, HEADER, ha=ha, va="bottom")
            for place, text in enumerate(column[1:]):
                ink = style.INK if lines["changed"].iloc[place] else style.GREY
                write_cell(ax, 0, at, place, text, f"{place}|{header.splitlines()[0]}", ha=ha, color=ink)
            left += width + GAP
        _draw_effects(ax, lines, looks)
        figure.suptitle(_title(lines), fontsize=8)
        handles = model_handles(lines.sort_values("place"), looks) if lines["who"].nunique() > 1 else []
        style.legend_below(figure, handles, note)
        style.settle(figure)
    return figure


def _columns(lines: pd.DataFrame) -> dict[str, list[str]]:
    """Each column of the table, its header first; models and data sets only where there are several."""
    told = {"measure, unit": [measure_text(*about) for about in lines[["quantity", "label", "rows", "unit"]].values]}
    for header, name in (("model", "who"), ("data set", "corpus")):
        if lines[name].nunique() > 1:
            told[header] = [str(value) for value in lines[name]]
    told["site"] = [str(name) for name in lines["name"]]
    told["base"] = [_known(value) for value in lines["base_value"]]
    told["tuned"] = [_known(value) for value in lines["tuned_value"]]
    spans = lines[["value", "low", "high"]].to_numpy(dtype=float)
    told["difference\n[95 % interval]"] = [interval_text(*span, signed=True) for span in spans]
    told["p"] = [p_text(value) for value in lines["p"]]
    told["sites\nup, down of"] = [_sites_text(*counts) for counts in lines[["risen", "fallen", "sites"]].values]
    return {header: [header, *column] for header, column in told.items()}


def _known(value: float) -> str:
    return number_text(value) if np.isfinite(value) else ""


def _sites_text(risen: float, fallen: float, sites: float) -> str:
    """How often a measure rose and fell among its sites: "↑4 ↓1 of 6"; "" where it has one site."""
    moved = " ".join(f"{arrow}{count:.0f}" for arrow, count in (("↑", risen), ("↓", fallen)) if count)
    return f"{moved or '0'} of {sites:.0f}" if sites > 1 else ""


def text_width(figure: Figure, text: str) -> float:
    """How wide a text of a table is, in points; no sign in it is taken for mathematics."""
    written = figure.text(0, 0, text, fontsize=FONT_SIZE, parse_math=False)
    width = 72 * written.get_window_extent().width / figure.dpi
    written.remove()
    return width


def write_cell(ax: Axes, side: float, points: float, y: float, text: str, gid: str, **look: Any) -> None:
    """A cell of a table, `points` right of the axes' left (0) or right (1) `side`; only headers count in the layout."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    at = ax.get_yaxis_transform() + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
    look = {
        "in_layout": gid == HEADER,
        "ha": "left",
        "va": "center_baseline",
        "parse_math": False,
        "linespacing": 1.05,
    } | look
    ax.text(side, y, text, transform=at, fontsize=FONT_SIZE, gid=gid, **look)


def _draw_effects(ax: Axes, lines: pd.DataFrame, looks: dict[str, Look]) -> None:
    """A bar from 0 to each effect with its model's mark at the end; logarithmic beyond 1 where effects are large."""
    ax.axvline(0, color=style.GREY, lw=0.6, zorder=1)
    for place, (_, line) in enumerate(lines.iterrows()):
        look: Look = looks[str(line["who"])] | {"ls": ""} | ({} if line["changed"] else {"color": "0.7"})
        ax.plot([0, line["effect"]], [place, place], color=look["color"], lw=0.9, zorder=2, gid=f"{place}|bar")
        ax.plot([line["effect"]], [place], zorder=3, gid=f"{place}|effect", **look)
    most = max(2.0, float(np.nanmax(lines["effect"].abs()))) if lines["effect"].notna().any() else 2.0
    low, high = (most if (sign * lines["effect"] > 0).any() else 0.0 for sign in (-1, 1))
    if most > LINEAR:
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        decades = math.floor(math.log10(most))
        powers = [10.0**power for power in range(decades + 1)]
        powers = powers if len(powers) < 3 else [powers[-1]]
        ticks = [-power for power in powers[::-1] if low] + [0.0] + [power for power in powers if high]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))
        low, high = (1.6 * low or 0.3), (1.6 * high or 0.3)
    else:
        low, high = low + 0.08 * most, high + 0.08 * most
    ax.set_xlim(-low, high)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("effect: difference / its\nspread over documents")


def _title(lines: pd.DataFrame) -> str:
    parts = [f"tuned model: {lines['who'].iloc[0]}"] if lines["who"].nunique() == 1 else []
    parts += [str(lines["corpus"].iloc[0])] if lines["corpus"].nunique() == 1 else []
    changed = bool(lines["changed"].any())
    return "; ".join([*parts, "what changed beyond chance" if changed else "nothing changed beyond chance"])


def _sentences(lines: pd.DataFrame) -> list[str]:
    """How many differences were tested and how many changed, and what is not drawn."""
    first = lines.iloc[0]
    tested, changed, measures = int(first["tested"]), int(first["tested_changed"]), int(first["measures_changed"])
    said = [
        f"Differences of tuned and base that were tested: {tested:,}, of which {changed:,} changed beyond chance "
        "(false-discovery rate of 5 % over the whole table)."
    ]
    if not changed:
        return [*said, f"Grey: the {len(lines)} largest effects, none of them beyond chance."]
    said.append(
        "A line is a measure at the site where its effect is the largest; ↑ and ↓ count the sites where it changed."
    )
    if measures > len(lines):
        said.append(f"{measures - len(lines):,} more measures changed, with smaller effects; the table holds them all.")
    if not lines["paired"].eq(1.0).all():
        unpaired = int((lines["paired"] != 1.0).sum())
        said.append(f"Compared without pairing documents: {unpaired} of the {len(lines)} lines.")
    return said
