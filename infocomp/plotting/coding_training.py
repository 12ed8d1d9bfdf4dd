"""The coding rate over training, on the step axis of the information plane; bits per byte, bits.

Above, the ideal code length of the text (with its interval and the unigram code) and real containers of all of it where
they were made, classical coders as lines on the same bytes, and the prequential code of the training run where the
table has one.
Below, complexity and expressivity of the same model and text where the table has them.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.coding_selection import (
    CODE_LENGTH,
    CODEC,
    PREQUENTIAL,
    coding_models,
    coding_rows,
    input_bytes,
    of_a_part,
    text_bytes,
)
from infocomp.plotting.coding_style import (
    BAND,
    DASHES,
    UNIGRAM,
    band,
    classical_lines,
    interval_name,
    keep_apart,
    model_look,
    text_title,
    with_interval,
)
from infocomp.plotting.curves import MOST_LAYERS, SITES, line_width, site_colour
from infocomp.plotting.selection import (
    CLASSICAL,
    NothingToDraw,
    default_label,
    drawable,
    labels_of,
    named_sites,
    short_names,
    values_of,
)

INFORMATION = ("complexity", "expressivity")
_SERIES = {CODE_LENGTH: "code length", CODEC: "real container", PREQUENTIAL: "prequential code of the training run"}
_COLUMNS = ["corpus", "in_training", "model", "revision", "stage", "branch", "step", "position", "tokens_seen"]
_COLUMNS += ["site", "kind", "depth", "name", "estimator", "quantity", "label", "value", "low", "high", "interval"]
_COLUMNS += ["null", "duplicate_of", "duplicate"]


def coding_training(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """The rate of a text over training; NothingToDraw says what the table lacks."""
    return draw_coding_training(coding_training_rows(table, corpus))


def coding_training_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_training` draws: one row a point, and one for each classical coder."""
    everything = coding_rows(table, corpus)
    rows = everything[(everything["quantity"] == "bits_per_byte") & (everything["label"] == "")]
    if rows["corpus"].nunique() > 1:
        raise NothingToDraw(f"the table holds {rows['corpus'].nunique()} texts; name one with corpus=…")
    rates = rows[rows["estimator"].isin(list(_SERIES)) & rows["position"].notna()]
    rates = rates.drop_duplicates(["model", "revision", "estimator"])
    whole = text_bytes(everything)
    rates = rates[[not of_a_part(size, whole) for size in input_bytes(everything, rates)]]
    if rates.empty or rates.groupby(["model", "estimator"])["position"].nunique().max() < 2:
        raise NothingToDraw("the rate over training needs bits_per_byte at two checkpoints with a step")
    classical = rows[rows["estimator"] == CLASSICAL].drop_duplicates("model")
    order = {model: place for place, model in enumerate(coding_models(rates))}
    series = {name: place for place, name in enumerate(_SERIES)}
    rates = rates.assign(order=rates["model"].map(order), series=rates["estimator"].map(series))
    rates = rates.sort_values(["order", "series", "position"], kind="stable")
    parts = [with_interval(rates), _informations(table, rates["corpus"].iloc[0]), with_interval(classical)]
    return pd.concat([part for part in parts if len(part)]).reindex(columns=_COLUMNS).reset_index(drop=True)


def _informations(table: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """Complexity and expressivity at some sites, of the shortest label; nothing where the table has none."""
    try:
        rows = drawable(table, corpus)
        label = default_label(rows, *INFORMATION) if labels_of(rows, *INFORMATION) else None
    except NothingToDraw:
        return pd.DataFrame()
    if label is None:
        return pd.DataFrame()
    found = pd.concat([values_of(rows, quantity, label) for quantity in INFORMATION])
    found = named_sites(found[found["position"].notna()], MOST_LAYERS // max(1, found["model"].nunique()) or 1)
    return found.assign(corpus=corpus)


def draw_coding_training(points: pd.DataFrame) -> Figure:
    """The figure of `coding_training_rows`."""
    with style.styled():
        rates = points[points["estimator"].isin(list(_SERIES)) & (points["quantity"] == "bits_per_byte")]
        informations = points[points["quantity"].isin(INFORMATION)]
        figure = style.new_figure(style.PAGE, 5.6 if len(informations) else 3.4)
        grid = figure.add_gridspec(2, 2) if len(informations) else figure.add_gridspec(1, 2)
        ax = figure.add_subplot(grid[0, :])
        models = list(rates["model"].unique())
        steps = list(points["position"].dropna())
        for (model, estimator, _branch), path in rates.groupby(["model", "estimator", "branch"], sort=False):
            _draw_rate(ax, path, model_look(models, str(model)), str(estimator))
        style.step_axis(ax, steps)
        ax.set_ylabel(style.AXIS["bits_per_byte"])
        ax.set_title(text_title(rates, with_model=True))
        coders = classical_lines(ax, points[points["estimator"] == CLASSICAL])
        for place, quantity in enumerate(INFORMATION if len(informations) else ()):
            _draw_information(figure.add_subplot(grid[1, place]), informations, quantity, steps)
        style.legend_below(figure, _legend(rates, informations, models), style.DIRECTION if len(informations) else None)
        style.settle(figure)
        keep_apart(ax, coders)
    return figure


def _draw_rate(ax: Axes, path: pd.DataFrame, look: dict[str, Any], estimator: str) -> None:
    path = path.sort_values("position", kind="stable")
    colour = look["color"]
    gid = f"{path['model'].iloc[0]}|{estimator}"
    if estimator == CODEC:
        ax.plot(path["position"], path["value"], ls="", marker="x", ms=4.5, mew=0.9, color=colour, zorder=4, gid=gid)
        return
    ideal = estimator == CODE_LENGTH
    ax.plot(path["position"], path["value"], color=colour, ls="-" if ideal else "-.", lw=1.0, zorder=3, gid=gid)
    band(ax, path, "position", colour, f"{gid}|interval")
    ax.plot(path["position"], path["null"], color=colour, lw=0.7, ls=DASHES, zorder=2, gid=f"{gid}|null")
    if not ideal:
        return
    for hollow in (False, True):
        shown = path[path["duplicate"].eq(True) == hollow]
        face: dict[str, Any] = {
            "mfc": "white" if hollow else colour,
            "mew": 0.7 if hollow else 0,
            "ms": 3.6 if hollow else 2.8,
        }
        name = f"{gid}|{'hollow' if hollow else 'filled'}"
        ax.plot(
            shown["position"], shown["value"], ls="", marker=look["marker"], mec=colour, zorder=3.5, gid=name, **face
        )


def _draw_information(ax: Axes, points: pd.DataFrame, quantity: str, steps: list[float]) -> None:
    own = points[points["quantity"] == quantity]
    for (model, site, _branch), path in own.groupby(["model", "site", "branch"], sort=False):
        path = path.sort_values("position", kind="stable")
        colour, kind = site_colour(path, points), str(path["kind"].iloc[0])
        gid = f"{model}|{site}|{quantity}"
        zorder = 2.8 if kind == "norm" else 3
        ax.plot(path["position"], path["value"], color=colour, lw=line_width(kind), zorder=zorder, gid=gid)
        ax.plot(path["position"], path["null"], color=colour, lw=0.7, ls=DASHES, zorder=2, gid=f"{gid}|null")
    style.step_axis(ax, steps)
    ax.set_ylabel(style.AXIS[quantity])
    label = own["label"].iloc[0] if len(own) else ""
    ax.set_title(f"X: the last {label}" if quantity == "complexity" else f"Y: the {label} that follows")


def _legend(rates: pd.DataFrame, informations: pd.DataFrame, models: list[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    short = short_names(models)
    present = set(rates["estimator"])
    for model in models if CODE_LENGTH in present else []:
        label = f"{short[model]}: code length" if len(models) > 1 else "code length"
        handles.append(Line2D([], [], ms=3, label=label, **model_look(models, model)))  # pyright: ignore
    grey: dict[str, Any] = {"color": style.GREY if len(models) > 1 else style.CATEGORIES[0]}
    if CODEC in present:
        handles.append(Line2D([], [], ls="", marker="x", ms=4.5, mew=0.9, label="real container", **grey))
    if PREQUENTIAL in present:
        handles.append(Line2D([], [], ls="-.", label=f"{_SERIES[PREQUENTIAL]} (tokenizer not counted)", **grey))
    if interval_name(rates):
        handles.append(Patch(facecolor=style.GREY, alpha=BAND + 0.1, lw=0, label=interval_name(rates)))
    nulls = rates.loc[rates["estimator"] != CODEC, "null"]
    if nulls.notna().any() or (len(informations) and informations["null"].notna().any()):
        text = f"null (of the rate: {UNIGRAM})" if len(informations) else UNIGRAM
        handles.append(Line2D([], [], color=style.GREY, lw=0.7, ls=DASHES, label=text))
    if rates["duplicate"].eq(True).any():
        look: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3.5, "mfc": "white"}
        handles.append(Line2D([], [], color=style.GREY, label="duplicate weights", **look))
    sites = informations.drop_duplicates(["model", "site"]).sort_values("depth") if len(informations) else informations
    for _, site in sites.iterrows():
        name = SITES.get(site["name"], site["name"])
        prefix = f"{short_names(list(sites['model'].unique()))[site['model']]} " if sites["model"].nunique() > 1 else ""
        colour = site_colour(site.to_frame().T, informations)
        handles.append(Line2D([], [], color=colour, lw=line_width(str(site["kind"])), label=f"{prefix}{name}"))
    return handles
