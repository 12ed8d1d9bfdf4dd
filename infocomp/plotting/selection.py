"""Which rows of the table a figure draws, and what it calls them.

Drawn are rows with status "ok", of the mean over anchor draws, weighted by frequency, with raw activations (centred
ones where a model has no raw), of the first seed. Nothing is averaged here: a point of a figure is a row of the table.
Sites are the residual stream in order of depth, the embedding before it and the final norm after it, each by itself.
"""

import re

import numpy as np
import pandas as pd

from infocomp.execution.table import KEY
from infocomp.plotting.style import thin

LABELS = ("token", "bigram", "trigram", "quadgram")
INFORMATIONS = ("complexity", "expressivity", "context_complexity", "optimality", "entropy", "regularity")
CONTROL = "control.gaussian"
CLASSICAL = "classical"
STREAM = "hook_resid_post"
_TEXTS = (*(name for name in KEY if name != "seed"), "stage", "duplicate_of")
_NUMBERS = ("seed", "step", "layer", "value", "null", "null_rows", "ceiling", "draw_std")
NEEDED = (*_TEXTS, *_NUMBERS, "status")


class NothingToDraw(ValueError):
    """The table lacks what a figure needs; the message says which figure and what."""


def drawable(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """The rows figures choose from, with `position`, `branch`, `kind`, `depth`, `name` and `duplicate` added.

    `position` is the training step, counted on where a later stage starts again at 0; `branch` tells parallel runs of
    a stage apart. NothingToDraw: columns are missing, no row is left, or there are several texts and none is named.
    """
    lacking = [name for name in NEEDED if name not in table.columns]
    if lacking:
        raise NothingToDraw(f"the table lacks the columns {', '.join(lacking)}; figures need infocomp's own table")
    rows = table[(table["status"] == "ok") & table["value"].notna()].reset_index(drop=True)
    rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in _TEXTS})
    rows = rows.assign(**{name: rows[name].astype("float64") for name in _NUMBERS})
    rows = rows[rows["draw"].isin(["mean", ""]) & rows["weighting"].isin(["frequency", ""])]
    rows = rows[rows["model"] != ""]  # of a text alone, as its bottleneck curves: no model's point
    found = corpora(rows)
    if corpus is None and len(found) > 1:
        raise NothingToDraw(f"the table holds {len(found)} texts ({', '.join(found)}); name one with corpus=…")
    rows = rows[rows["corpus"].isin([corpus if corpus is not None else (found or [""])[0], ""])]
    if rows.empty:
        raise NothingToDraw("the table holds no row with status 'ok', draw 'mean' and weighting 'frequency'")
    rows = _one_variant(rows)
    rows = rows.assign(
        duplicate=rows["duplicate_of"] != "",
        null_kind=np.where(rows["null"].notna(), "null", "null_rows"),
        null=rows["null"].fillna(rows["null_rows"]),
    )
    return _with_sites(with_positions(rows))


def corpora(table: pd.DataFrame) -> list[str]:
    """The texts that models were measured on, in order of appearance."""
    measured = table[table["estimator"] != CLASSICAL] if "estimator" in table else table
    return [str(name) for name in measured["corpus"].dropna().unique() if name]


def has_informations(table: pd.DataFrame) -> bool:
    """Whether a table holds an information of some site: only then figures of the information plane have a place."""
    return "quantity" in table and bool(table["quantity"].isin(INFORMATIONS).any())


def models(rows: pd.DataFrame) -> list[str]:
    """The models among the rows, classical coders apart, in order of appearance."""
    return [str(name) for name in rows.loc[rows["estimator"] != CLASSICAL, "model"].unique()]


def model_order(rows: pd.DataFrame) -> dict[str, int]:
    """Each model's place: the order of appearance gives its marker in every figure."""
    return {model: place for place, model in enumerate(models(rows))}


def short_names(names: list[str]) -> dict[str, str]:
    """Models by the last part of their path and its first 28 characters, where that still tells them apart."""
    for shorten in (lambda name: _first(name.rstrip("/").rsplit("/", 1)[-1]), _first):
        short = {name: shorten(name) for name in names}
        if len(set(short.values())) == len(names):
            return short
    return {name: f"{place}: {_first(name)}" for place, name in enumerate(names, start=1)}


def _first(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def labels_of(rows: pd.DataFrame, *quantities: str) -> list[str]:
    """Labels that every one of the quantities has, n-grams first, by order."""
    shared = set.intersection(*(set(rows.loc[rows["quantity"] == quantity, "label"]) for quantity in quantities))
    known = [label for label in LABELS if label in shared]
    return known + sorted(label for label in shared - set(LABELS) if label)


def default_label(rows: pd.DataFrame, *quantities: str) -> str:
    """The lowest order that every one of the quantities has. NothingToDraw where they share none."""
    found = labels_of(rows, *quantities)
    if not found:
        raise NothingToDraw(f"the table holds no {' and '.join(quantities)} of one label")
    return found[0]


def values_of(rows: pd.DataFrame, quantity: str, label: str | None = None) -> pd.DataFrame:
    """The rows of one quantity (and label) at the sites of models, controls left out."""
    wanted = (rows["quantity"] == quantity) & (rows["kind"] != "control") & (rows["estimator"] != CLASSICAL)
    if label is not None:
        wanted &= rows["label"] == label
    found = rows[wanted]
    found = found.assign(place=found["model"].map(model_order(rows)))
    found = found.sort_values(["place", "depth", "position", "revision"], kind="stable").drop(columns="place")
    return found.drop_duplicates(["model", "revision", "site"])


def named_sites(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows at no more than `most` blocks of each model, evenly spread in depth; embedding and norm always stay."""
    keep = []
    for _, own in rows.groupby("model", sort=False):
        depths = sorted(own.loc[own["kind"] == "block", "depth"].unique())
        chosen = {depths[position] for position in thin(len(depths), most)} if depths else set()
        keep.append(own[(own["kind"] != "block") | own["depth"].isin(chosen)])
    return pd.concat(keep) if keep else rows


def _one_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """Raw rows where a model has them, one estimator of informations, the first seed of each site."""
    information = rows["quantity"].isin(INFORMATIONS)
    estimators = sorted(rows.loc[information, "estimator"].unique(), key=lambda name: (name != "soft", name))
    rows = rows[~information | rows["estimator"].isin(estimators[:1])]
    ranks = {"": 0, "raw": 0, "centred": 1}
    rank = rows["rows"].map(ranks).fillna(2)
    rows = rows[rank == rank.groupby([rows["model"], rows["quantity"]]).transform("min")]
    seed = rows["seed"].fillna(-1.0)
    first = seed.groupby([rows["model"], rows["site"], rows["quantity"], rows["label"]]).transform("min")
    return rows[seed == first]


def with_positions(rows: pd.DataFrame) -> pd.DataFrame:
    """Steps that go on over stages: a stage that starts again at 0 is counted from the end of the one before."""
    ingredient = [re.search(r"ingredient\d+", str(name)) for name in rows["revision"]]
    branch = [f"{stage} {part[0]}" if part else stage for stage, part in zip(rows["stage"], ingredient, strict=True)]
    rows = rows.assign(branch=branch, position=rows["step"])
    for _, own in rows.groupby("model", sort=False):
        end = -np.inf
        for name in sorted(own["stage"].unique(), key=_natural):
            steps = own.loc[own["stage"] == name, "step"]
            offset = end if steps.notna().any() and steps.min() <= end else 0.0
            rows.loc[steps.index, "position"] = steps + offset
            end = max(end, steps.max() + offset) if steps.notna().any() else end
    return rows


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def _with_sites(rows: pd.DataFrame) -> pd.DataFrame:
    """What kind of place each site is, its depth in the model and its short name; one component stands for a block."""
    layers = dict(zip(rows["site"], rows["layer"], strict=True))
    component = {site: re.sub(r"\d+", "", site).rsplit("blocks..", 1)[-1] for site in layers}
    inside = sorted({component[site] for site, layer in layers.items() if not np.isnan(layer)})
    stream = STREAM if STREAM in inside else (inside or [STREAM])[0]
    described = {
        site: _describe(site, layer, component[site] == stream, float(place))
        for place, (site, layer) in enumerate(sorted(layers.items()))
    }
    rows = rows.assign(
        kind=[described[site][0] for site in rows["site"]],
        depth=[described[site][1] for site in rows["site"]],
        name=[described[site][2] for site in rows["site"]],
    )
    return rows[rows["kind"] != "inside"]


def _describe(site: str, layer: float, in_stream: bool, place: float) -> tuple[str, float, str]:
    if site == CONTROL:
        return "control", np.inf, "Gaussian"
    if site == "hook_embed":
        return "embed", -1.0, "embed"
    if site.startswith("ln_final"):
        after = site.endswith("hook_out")
        return "norm", 1e6 + after, "norm, scaled" if after else "norm"
    if not np.isnan(layer):
        return ("block" if in_stream else "inside"), layer, f"L{int(layer)}"
    return "other", 2e6 + place, _first(site, 16)
