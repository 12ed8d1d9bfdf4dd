"""Memorized bits at the plateau against parameters: one point a model, the line through them, published slopes.

Left all parameters, right those outside the embedding where the table has both. The ribbon turns the line about the
mean size of its models by the ends of the slope's interval. Published slopes are drawn from the origin, dotted, and
are not measured here: they come from other data, budgets and definitions (the footnote says which).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

from infocomp.plotting import style
from infocomp.plotting.coding_style import BAND, DOTS, keep_apart, with_interval, write_right
from infocomp.plotting.memorization_selection import (
    ALL_PARAMETERS,
    MEMORIZED,
    OUTSIDE,
    PER_PARAMETER,
    PLATEAU,
    SLOPE,
    family,
    memorization_rows,
)
from infocomp.plotting.memorization_style import (
    bit_text,
    bits_axis,
    bound_handle,
    error_bars,
    interval_handle,
    log_axis,
    looks,
    lower_bounds,
    wrapped,
)
from infocomp.plotting.selection import NothingToDraw


@dataclass(frozen=True)
class PublishedSlope:
    """Bits per parameter that a paper gives, and for what; not measured here."""

    value: float
    name: str
    of: str
    source: str


MORRIS = "Morris et al. 2025 (arXiv 2505.24832)"
PUBLISHED = (
    PublishedSlope(3.83, "3.83 Morris, fp32", "GPT-2, V = 2048, S = 64, mean of Table 1 in fp32", MORRIS),
    PublishedSlope(3.64, "3.64 Morris, bf16", "GPT-2, V = 2048, S = 64, fitted slope in bf16", MORRIS),
    PublishedSlope(2.16, "2.16 Song & Ye", "labels of pairs, last token only", "Song & Ye 2026 (arXiv 2605.09724)"),
    PublishedSlope(2.0, "2 Allen-Zhu & Li", "knowledge of facts", "Allen-Zhu & Li 2024 (arXiv 2404.05405)"),
)
MODEL, FIT, PUBLISHED_LINE = "model", "fit", "published"
WIDE = 20.0  # sizes that differ more than this want logarithmic axes
_COLUMNS = ["series", "text", "family", "model", "label", "parameters", "value", "low", "high", "interval", "unit"]
_COLUMNS += ["lower_bound", "slope", "slope_low", "slope_high", "intercept", "source", "of", "message"]


def capacity_fit(table: pd.DataFrame) -> Figure:
    """Plateaus against parameters; NothingToDraw says what the table lacks."""
    return draw_capacity_fit(capacity_fit_rows(table))


def capacity_fit_rows(table: pd.DataFrame) -> pd.DataFrame:
    """What `capacity_fit` draws: one row a model and a count of parameters, a line, or a published slope."""
    rows = memorization_rows(table)
    rows = rows[rows["random"]]
    rows = rows.assign(family=[family(str(model)) for model in rows["model"]])
    full = with_interval(rows[(rows["quantity"] == MEMORIZED) & (rows["label"] == PLATEAU)])
    if full["model"].nunique() < 2:
        raise NothingToDraw("bits against parameters need the memorized_bits of two models under the label 'plateau'")
    parts = []
    for label, name in ((ALL_PARAMETERS, "parameters"), (OUTSIDE, "parameters_outside_embedding")):
        counts = rows[rows[name].notna()].groupby(["text", "model"])[name].first()
        found = [counts.get((text, model), np.nan) for text, model in zip(full["text"], full["model"], strict=True)]
        points = full.assign(series=MODEL, label=label, parameters=found)
        unsure = rows[rows["lower_bound"] & (rows["quantity"] == PER_PARAMETER)]
        unsure = set(zip(unsure["text"], unsure["model"], strict=True))
        said = [key in unsure for key in zip(points["text"], points["model"], strict=True)]
        parts.append(points.assign(lower_bound=points["lower_bound"] | np.array(said)).dropna(subset="parameters"))
    points = pd.concat(parts)
    lines = with_interval(rows[(rows["quantity"] == SLOPE) & rows["label"].isin([ALL_PARAMETERS, OUTSIDE])])
    lines = lines.assign(
        series=FIT,
        slope=lines["value"],
        slope_low=lines["low"],
        slope_high=lines["high"],
    )
    published = pd.DataFrame(
        [
            {"series": PUBLISHED_LINE, "label": ALL_PARAMETERS, "slope": line.value, "model": line.name}
            | {"source": line.source, "of": line.of, "lower_bound": False, "intercept": 0.0}
            for line in PUBLISHED
        ]
    )
    points = points.sort_values(["label", "text", "family", "parameters"], kind="stable")
    kept = [part.reindex(columns=_COLUMNS) for part in (points, lines, published) if len(part)]
    return pd.DataFrame([row for part in kept for row in part.to_dict("records")], columns=_COLUMNS)


def draw_capacity_fit(points: pd.DataFrame) -> Figure:
    """The figure of `capacity_fit_rows`."""
    with style.styled():
        models = points[points["series"] == MODEL]
        labels = [label for label in (ALL_PARAMETERS, OUTSIDE) if (models["label"] == label).any()]
        groups = [(str(row.text), str(row.family)) for row in models.drop_duplicates(["text", "family"]).itertuples()]
        figure = style.new_figure(style.PAGE, 3.9 + 0.14 * len(groups))
        axes = list(figure.subplots(1, len(labels), squeeze=False, sharey=True).flat)
        shown = dict(zip(groups, looks([str(group) for group in groups]).values(), strict=True))
        written: list[tuple[Axes, list[Annotation]]] = []
        for ax, label in zip(axes, labels, strict=True):
            own = points[points["label"] == label]
            low, high = _size_axis(ax, own[own["series"] == MODEL], label)
            for (text, name), group in own[own["series"] == MODEL].groupby(["text", "family"], sort=False):
                line = own[(own["series"] == FIT) & (own["text"] == text) & (own["model"] == name)]
                log = ax.get_xscale() == "log"
                ends = (group["parameters"].min() / 1.4, group["parameters"].max() * 1.4) if log else (low, high)
                _draw_group(ax, group, line, shown[str(text), str(name)], np.geomspace(*ends, 200))
            written.append((ax, _draw_published(ax, own[own["series"] == PUBLISHED_LINE], low, high)))
            ax.set_title(label)
        _bit_axis(axes[0], points, float(axes[0].get_xlim()[1]))
        style.legend_below(figure, _legend(points, shown), footnote(points))
        style.settle(figure)
        for ax, texts in written:
            keep_apart(ax, texts)
    return figure


def _size_axis(ax: Axes, models: pd.DataFrame, label: str) -> tuple[float, float]:
    """Set the x-axis for these models; from where to where lines go."""
    sizes = models["parameters"]
    if sizes.max() > WIDE * sizes.min():
        low, high = sizes.min() / 1.4, sizes.max() * 1.4
        log_axis(ax, "x", low, high, style.step_text)
    else:
        low, high = sizes.max() / 1000, 1.12 * sizes.max()
        ax.set_xlim(0, high)
        ax.xaxis.set_major_formatter(lambda value, _: style.step_text(value))
    ax.set_xlabel(f"parameters{', all' if label == ALL_PARAMETERS else ' ' + label}")
    return float(low), float(high)


def _bit_axis(ax: Axes, points: pd.DataFrame, most: float) -> None:
    """Set the shared y-axis: as high as the highest published line at `most` parameters, or the highest model."""
    bits = points.loc[points["series"] == MODEL, "value"]
    published = points.loc[points["series"] == PUBLISHED_LINE, "slope"].max()
    top = float(np.nanmax([1.12 * bits.max(), 1.03 * most * published]))
    if ax.get_xscale() == "log":
        log_axis(ax, "y", float(bits.min()) / 1.8, top, bit_text)
        ax.set_ylabel("memorized at the plateau")
    else:
        ax.set_ylim(0, top)
        bits_axis(ax, "memorized at the plateau")


def _draw_group(ax: Axes, group: pd.DataFrame, line: pd.DataFrame, look: dict[str, Any], x: np.ndarray) -> None:
    colour, gid = look["color"], f"{group['text'].iloc[0]}|{group['family'].iloc[0]}"
    ax.plot(group["parameters"], group["value"], ls="", ms=3.4, mew=0, zorder=3.5, gid=gid, **look)
    error_bars(ax, group, "parameters", colour, f"{gid}|interval")
    lower_bounds(ax, group, "parameters", "value", colour, f"{gid}|lower bound")
    for _, fit in line.iterrows():
        y = fit["slope"] * x + fit["intercept"]
        ax.plot(x[y > 0], y[y > 0], color=colour, lw=0.9, zorder=3, gid=f"{gid}|fit")
        if np.isfinite(fit["slope_low"]):
            turn = x - group["parameters"].mean()
            ends = [y + (end - fit["slope"]) * turn for end in (fit["slope_low"], fit["slope_high"])]
            low, high = (np.maximum(edge, 1e-9) for edge in (np.minimum(*ends), np.maximum(*ends)))
            ax.fill_between(x, low, high, color=colour, alpha=BAND, lw=0, zorder=2, gid=f"{gid}|fit|interval")


def _draw_published(ax: Axes, lines: pd.DataFrame, low: float, high: float) -> list[Annotation]:
    """Dotted lines from the origin, each named where it leaves the axes to the right."""
    values, texts = [], []
    for _, line in lines.iterrows():
        ax.plot([low, high], [low * line["slope"], high * line["slope"]], color=style.INK, lw=0.8, ls=DOTS, zorder=1.5)
        ax.lines[-1].set_gid(f"{PUBLISHED_LINE}|{line['model']}")
        values.append(high * float(line["slope"]))
        texts.append(str(line["model"]))
    return write_right(ax, values, texts, [style.INK] * len(values))


def _legend(points: pd.DataFrame, shown: dict[tuple[str, str], dict[str, Any]]) -> list[Artist]:
    handles: list[Artist] = []
    models, fits = points[points["series"] == MODEL], points[points["series"] == FIT]
    several = len({text for text, _ in shown}) > 1
    for (text, name), look in shown.items():
        label = f"{name}, {text}" if several else name
        for _, fit in fits[(fits["text"] == text) & (fits["model"] == name)].iterrows():
            ends = f" [{fit['slope_low']:.2f}, {fit['slope_high']:.2f}]" if np.isfinite(fit["slope_low"]) else ""
            label += f"; slope, {fit['label']}: {fit['slope']:.2f}{ends}"
        handles.append(Line2D([], [], ms=3.4, label=label, **look))
    handles += interval_handle(models, "seeds; of the line: of its slope")
    if models["lower_bound"].any():
        handles.append(bound_handle())
    if (points["series"] == PUBLISHED_LINE).any():
        handles.append(Line2D([], [], color=style.INK, lw=0.8, ls=DOTS, label="published bits per parameter"))
    return handles


def footnote(points: pd.DataFrame) -> str:
    """What the published slopes are of, each with its source."""
    published = points[points["series"] == PUBLISHED_LINE]
    if published.empty:
        return ""
    said = [
        f"{source}: {'; '.join(f'{row.slope:g}, {row.of}' for row in own.itertuples())}."
        for source, own in published.groupby("source", sort=False)
    ]
    return wrapped(["Published, not measured here, of other data and budgets.", *said])
