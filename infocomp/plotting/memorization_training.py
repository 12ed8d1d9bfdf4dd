"""Memorization over training, on one step axis: memorized bits, extraction, membership, the held-out rate.

Memorized bits are the excess over their null, against each reference; extraction is the share of rows emitted whole and
the mean share of tokens, dashed the same on never-trained rows; the rate is that of the never-trained text. Where the
table holds informations of the same models, complexity and expressivity at the last block stand below.
"""

import textwrap
from typing import Any, cast

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_selection import in_training
from infocomp.plotting.coding_style import DASHES, DOTS, band, with_interval
from infocomp.plotting.memorization_selection import (
    EXTRACTION,
    LOSSES,
    MEMBERSHIP,
    MEMORIZED,
    in_order,
    memorization_rows,
    of_memorization,
    of_one_text,
)
from infocomp.plotting.memorization_style import bits_axis, interval_handle, looks
from infocomp.plotting.selection import (
    INFORMATIONS,
    NothingToDraw,
    default_label,
    drawable,
    labels_of,
    short_names,
    values_of,
)

AUC = MEMBERSHIP[0]
PANELS = ("memorized", "extraction", "membership", "held-out rate", "information")
INFORMATION = ("complexity", "expressivity")
STROKES = ("-", "--", "-.", DOTS)
NAMES = {EXTRACTION[0]: "emitted whole", EXTRACTION[1]: "tokens emitted", AUC: "membership AUC"}
_COLUMNS = ["panel", "series", "corpus", "in_training", "model", "revision", "stage", "branch", "step", "position"]
_COLUMNS += ["tokens_seen", "site", "quantity", "label", "value", "low", "high", "interval", "null", "duplicate"]


def memorization_training(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """Memorization of a text over training; NothingToDraw says what the table lacks."""
    return draw_memorization_training(memorization_training_rows(table, corpus))


def memorization_training_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `memorization_training` draws: one row a point, panel by panel."""
    rows = memorization_rows(table, rates=True)
    rows = rows[~rows["random"] & rows["load"].isna() & rows["position"].notna()]
    own = of_memorization(rows)
    wanted = rows["quantity"].isin([MEMORIZED, *EXTRACTION, *MEMBERSHIP, "bits_per_token"])
    members = of_one_text(rows[own & wanted & ~rows["label"].str.contains(" of prompt changed")], corpus, "texts")
    main = members[members["quantity"].isin([MEMORIZED, *EXTRACTION])]
    if main.empty or main.groupby(["model", "quantity"])["position"].nunique().max() < 2:
        raise NothingToDraw(
            "memorization over training needs memorized_bits or an extraction rate at two checkpoints with a step"
        )
    rates = rows[~own & rows["model"].isin(main["model"]) & (rows["quantity"] == "bits_per_byte")]
    if rates.empty:
        rates = members[(members["quantity"] == "bits_per_token") & (members["label"] == LOSSES[1])]
    excess = members[members["quantity"] == MEMORIZED]
    shares = members[members["quantity"].isin(EXTRACTION)]
    several = shares.groupby("quantity")["label"].nunique().max() > 1
    shares = shares.assign(
        series=[
            NAMES[quantity] + (f", {label}" if several else "")
            for quantity, label in zip(shares["quantity"], shares["label"], strict=True)
        ]
    )
    auc = members[members["quantity"] == AUC]
    one = rates["corpus"].nunique() == 1
    parts = [
        excess.assign(panel=PANELS[0], series=excess["label"]),
        shares.assign(panel=PANELS[1]),
        auc.assign(panel=PANELS[2], series=auc["label"]),
        rates.assign(panel=PANELS[3], series="held-out text" if one else rates["corpus"]),
    ]
    points = with_interval(pd.concat([part for part in parts if len(part)]))
    informations = _informations(table, [str(name) for name in rates["corpus"].unique()], set(main["model"]))
    points = in_order(points, "panel", "series", "position")
    found = [part.reindex(columns=_COLUMNS) for part in (points, informations) if len(part)]
    return pd.DataFrame([row for part in found for row in part.to_dict("records")], columns=_COLUMNS)


def _informations(table: pd.DataFrame, texts: list[str], models: set[str]) -> pd.DataFrame:
    """Complexity and expressivity at the last block of each model, of the shortest label; nothing where there are none.

    Of the texts of the held-out rates where one has informations, else of the first text that has.
    """
    found = table[table["quantity"].isin(INFORMATIONS) & table["model"].isin(models)]["corpus"].dropna().unique()
    chosen = next((text for text in texts if text in found), next(iter(found), None))
    try:
        rows = drawable(table, chosen) if chosen is not None else None
    except NothingToDraw:
        rows = None
    if rows is None or not labels_of(rows, *INFORMATION):
        return pd.DataFrame()
    label = default_label(rows, *INFORMATION)
    values = pd.concat([values_of(rows, quantity, label) for quantity in INFORMATION])
    values = values[(values["kind"] == "block") & values["position"].notna() & values["model"].isin(models)]
    values = values[values["depth"] == values.groupby("model")["depth"].transform("max")]
    series = values["quantity"] + f" of the {label}, last block"
    known = {"in_training": values["in_training"].fillna(""), "corpus": chosen}
    return in_order(values.assign(panel=PANELS[4], series=series, **known), "series", "position")


def draw_memorization_training(points: pd.DataFrame) -> Figure:
    """The figure of `memorization_training_rows`."""
    with style.styled():
        panels = [name for name in PANELS if (points["panel"] == name).any()]
        figure = style.new_figure(style.PAGE, 1.5 + 1.3 * len(panels))
        axes = cast(list[Axes], list(figure.subplots(len(panels), 1, squeeze=False).flat))
        models = [str(name) for name in points["model"].unique()]
        colours = {name: look["color"] for name, look in looks(models).items()}
        one = len(models) == 1
        for ax, panel in zip(axes, panels, strict=True):
            own = points[points["panel"] == panel]
            series = [str(name) for name in own["series"].unique()]
            for (model, name, _branch), path in own.groupby(["model", "series", "branch"], sort=False):
                place = series.index(str(name))
                colour = style.CATEGORIES[place % len(style.CATEGORIES)] if one else colours[str(model)]
                _draw(ax, path, colour, place, f"{model}|{name}")
            style.step_axis(ax, list(points["position"]))
            _panel(ax, panel, own)
            if ax is not axes[-1]:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if len(series) > 1 or panel != PANELS[3]:
                ax.legend(handles=_series(series, one), loc="center left", bbox_to_anchor=(1.01, 0.5))
        members = points[points["panel"].isin(PANELS[:3])]
        named = f"; model: {short_names(models)[models[0]]}" if len(models) == 1 else ""
        axes[0].set_title(f"{members['corpus'].iloc[0]}; in the training data: {in_training(members)}{named}")
        style.legend_below(figure, _legend(points, colours))
        figure.align_ylabels(axes)
        style.settle(figure)
    return figure


def _draw(ax: Axes, path: pd.DataFrame, colour: Any, place: int, gid: str) -> None:
    path = path.sort_values("position", kind="stable")
    stroke: Any = STROKES[place % len(STROKES)]
    ax.plot(path["position"], path["value"], color=colour, ls=stroke, zorder=3, gid=gid)
    band(ax, path, "position", colour, f"{gid}|interval")
    if path["null"].notna().any():
        ax.plot(path["position"], path["null"], color=colour, lw=0.7, ls=DASHES, zorder=2, gid=f"{gid}|null")
    for hollow in (False, True):
        shown = path[path["duplicate"].eq(True) == hollow]
        face: dict[str, Any] = {"mfc": "white" if hollow else colour, "mew": 0.7 if hollow else 0, "ms": 3.2}
        face |= {"marker": style.MARKERS[place % len(style.MARKERS)], "mec": colour}
        name = f"{gid}|{'hollow' if hollow else 'filled'}"
        ax.plot(shown["position"], shown["value"], ls="", zorder=3.5, gid=name, **face)


def _panel(ax: Axes, panel: str, own: pd.DataFrame) -> None:
    if panel == PANELS[0]:
        ax.axhline(0.0, color=style.GREY, lw=0.5, zorder=1)
        bits_axis(ax, "memorized, excess")
    elif panel == PANELS[1]:
        ax.set_ylabel("extraction, share")
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    elif panel == PANELS[2]:
        ax.set_ylabel(NAMES[AUC])
    elif panel == PANELS[3]:
        unit = "bits per byte" if own["quantity"].iloc[0] == "bits_per_byte" else "bits per token"
        ax.set_ylabel(f"held out, {unit}")
    else:
        ax.set_ylabel("information, bits")
    if panel in PANELS[3:] and own["corpus"].nunique() == 1 and own["quantity"].iloc[0] != "bits_per_token":
        ax.set_title(f"{own['corpus'].iloc[0]}; in the training data: {in_training(own)}")


def _series(series: list[str], one: bool) -> list[Artist]:
    """The legend of one panel, to its right: what each line is; of one model a colour each, of several grey."""
    handles: list[Artist] = []
    for place, name in enumerate(series):
        stroke: Any = STROKES[place % len(STROKES)]
        look: dict[str, Any] = {"marker": style.MARKERS[place % len(style.MARKERS)], "ms": 3.2, "mew": 0}
        look["color"] = style.CATEGORIES[place % len(style.CATEGORIES)] if one else style.GREY
        handles.append(Line2D([], [], ls=stroke, label="\n".join(textwrap.wrap(name, 18)), **look))
    return handles


def _legend(points: pd.DataFrame, colours: dict[str, Any]) -> list[Artist]:
    handles: list[Artist] = []
    if len(colours) > 1:
        short = short_names(list(colours))
        handles += [Line2D([], [], color=colour, label=short[name]) for name, colour in colours.items()]
    handles += interval_handle(points, "documents or rows")
    if points["null"].notna().any():
        told = {
            PANELS[1]: "extraction: never-trained rows",
            PANELS[2]: "membership: chance",
            PANELS[3]: "rate: unigram",
        }
        told |= {PANELS[4]: "information: unrelated rows"}
        with_null = points[points["null"].notna()]["panel"]
        text = "; ".join(told[name] for name in dict.fromkeys(with_null) if name in told)
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=DASHES, label=f"null ({text})"))
    if points["duplicate"].eq(True).any():
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    return handles
