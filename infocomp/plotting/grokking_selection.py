"""Which rows of the table the grokking figures draw, and what their settings and names say.

A row is of the study of grokking where its settings name a `group` and a `train_fraction`. Drawn are rows of the mean
over draws with status "ok" and a value; of dates also those with status "undetermined", which say by which step a run
had not got there. Runs and their control without weight decay share a `setting`: their group and text. Every seed is
drawn. Steps are steps of training, losses and informations bits.
"""

import json
import math
import re

import numpy as np
import pandas as pd
from jaxtyping import Float

from infocomp.execution.table import KEY
from infocomp.plotting.selection import NothingToDraw

MEMORIZATION, GENERALIZATION, DELAY = "memorization_step", "generalization_step", "delay"
DATES = (MEMORIZATION, GENERALIZATION, DELAY)
THRESHOLD, CHANGE_POINT = "threshold", "change_point"
OVER_SEEDS = "over seeds"
CURVES = ("loss", "accuracy")
AT_STATE = "at the state"  # label of loss and accuracy followed as measures, at the kept states
MOST_SETTINGS = 6  # beyond, a table is a sweep: the phase diagram shows it, and pages are of settings with a control
ROWS = ("train", "test")
LEAD, ONSET = "lead", "onset_step"
FALL, LEAK = "fragility", "accuracy_at_memorization"
CONTEXT, EXPRESSIVITY = "context_complexity", "expressivity"
ANSWER = "answer"
_WORDS = ("model", "revision", "corpus", "site", "quantity", "label", "rows", "estimator", "unit", "status", "message")
_NUMBERS = ("seed", "step", "value", "null", "ceiling", "lower", "ci_low", "ci_high")
_SAID_WORDS = ("operation", "verdict", "claim", "reference", "regime", "group")
_SAID_NUMBERS = ("modulus", "train_fraction", "width", "layers", "mlp", "weight_decay", "steps", "control")
_SAID_NUMBERS += ("persistence", "seeds", "dated", "generalized", "control_change", "answer_entropy")
_WITHIN = ("hook_resid_pre", "hook_attn", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp", "hook_resid")


def of_grokking(table: pd.DataFrame) -> pd.Series:
    """True where only the study of grokking writes such a row: its settings name a group and a train fraction."""
    if not {"settings", "quantity"} <= set(table.columns):
        return pd.Series(False, index=table.index)
    said = table["settings"].fillna("").astype(str)
    return said.str.contains('"group":', regex=False) & said.str.contains('"train_fraction":', regex=False)


def grokking_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that grokking figures choose from, with `setting`, and what their settings say as columns.

    NothingToDraw: columns are missing or no row is left.
    """
    lacking = [name for name in (*KEY, *_WORDS, *_NUMBERS, "settings") if name not in table.columns]
    if lacking:
        missing = ", ".join(dict.fromkeys(lacking))
        raise NothingToDraw(f"the table lacks the columns {missing}; figures need infocomp's own table")
    rows = table.loc[of_grokking(table), ["draw", "settings", *_WORDS, *_NUMBERS]]
    known = (rows["status"] == "ok") & rows["value"].notna()
    known |= (rows["status"] == "undetermined") & rows["quantity"].isin([*DATES, ONSET, LEAD])
    rows = rows[known & rows["draw"].isin(["mean", ""])].reset_index(drop=True)
    if rows.empty:
        raise NothingToDraw("the table holds no row of a study of grokking")
    rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in _WORDS})
    rows = rows.assign(**{name: rows[name].astype("float64") for name in _NUMBERS})
    rows.loc[rows["status"] != "ok", "value"] = np.nan
    parsed = {text: json.loads(text) for text in rows["settings"].unique()}
    said = [parsed[text] for text in rows["settings"]]
    rows = rows.drop(columns=["draw", "settings"])
    rows = rows.assign(**{name: [str(found.get(name) or "") for found in said] for name in _SAID_WORDS})
    rows = rows.assign(**{name: [_number(found.get(name)) for found in said] for name in _SAID_NUMBERS})
    labelled = list(zip(said, rows["label"], strict=True))
    for side in ROWS:
        told = [
            _number(found.get(f"{side}_{label}_threshold", found.get(f"{side}_threshold"))) for found, label in labelled
        ]
        rows[f"{side}_threshold"] = told
    named = [
        group if text in group else f"{group}, {text}"
        for group, text in zip(rows["group"], rows["corpus"], strict=True)
    ]
    return rows.assign(control=rows["control"] == 1.0, setting=named)


def _number(found: object) -> float:
    """A number (or a truth, as 0 or 1, or how many a list has) of a row's settings; NaN where it is none."""
    if isinstance(found, list):
        return float(len(found))
    return float(found) if isinstance(found, int | float) else math.nan


def settings_of(rows: pd.DataFrame) -> list[str]:
    """The settings among the rows of `grokking_rows`, in order of appearance."""
    return [str(name) for name in rows["setting"].unique()]


def drawn_settings(table: pd.DataFrame) -> list[str]:
    """The settings that have figures of their own: all where they are few, of a sweep those with a control."""
    try:
        rows = grokking_rows(table)
    except NothingToDraw:
        return []
    found = settings_of(rows)
    return found if len(found) <= MOST_SETTINGS else settings_of(rows[rows["setting"].isin(_controlled(rows))])


def _controlled(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.loc[rows["control"], "setting"].unique()]


def of_one_setting(rows: pd.DataFrame, setting: str | None) -> pd.DataFrame:
    """The rows of that setting, or of the only one. NothingToDraw where there are several and none is named."""
    found = settings_of(rows)
    if setting is None and len(found) > 1:
        raise NothingToDraw(f"the table holds {len(found)} settings ({', '.join(found)}); name one with setting=…")
    return rows if setting is None else rows[rows["setting"] == setting]


def dates(rows: pd.DataFrame) -> pd.DataFrame:
    """The dates of single runs, by the curves that both events are dated from: accuracies where there are such."""
    found = rows[rows["quantity"].isin(DATES) & rows["seed"].notna() & (rows["label"] != OVER_SEEDS)]
    return by_best_curves(found[found["estimator"].isin([THRESHOLD, CHANGE_POINT])])


def by_best_curves(found: pd.DataFrame) -> pd.DataFrame:
    """Of what is told of each run by accuracies and by losses, the former; by losses where there is only that."""
    best = found["label"].map({"accuracy": 0, "loss": 1}).fillna(2)
    same = [found[name] for name in ("setting", "control", "seed", "quantity", "estimator")]
    return found[best == best.groupby(same).transform("min")] if len(found) else found


def event(rows: pd.DataFrame, quantity: str, estimator: str = THRESHOLD) -> pd.DataFrame:
    """The dates of one event of the treated runs, of the seeds that reached it."""
    found = dates(rows[~rows["control"]])
    return found[(found["quantity"] == quantity) & (found["estimator"] == estimator) & found["value"].notna()]


def site_rank(site: str) -> tuple[float, str]:
    """Where a site stands in the forward pass: embedding, the places of each block in order, the rest, logits."""
    if site == "logits":
        return math.inf, site
    block = re.match(r"blocks\.(\d+)\.", site)
    if block is None:
        places = {"unembed": 1e6, "neuron_to_logits": 2e6}
        return places.get(site, -1.0 if site.startswith("hook_") else 3e6), site
    inside = [place for place, name in enumerate(_WITHIN) if name in site]
    return int(block[1]) + (inside[0] + 1 if inside else 0) / (len(_WITHIN) + 1), site


def over_seeds(paths: pd.DataFrame, x: str = "step", y: str = "value") -> dict[str, Float[np.ndarray, " steps"]]:
    """Mean, least and greatest of several seeds' paths, on every step that one of them has and all of them span.

    Between its own steps a path is read off straight lines over log(step + 1). Keys: x, mean, low, high, seeds.
    """
    each = [(own[x].to_numpy(float), own[y].to_numpy(float)) for _, own in paths.sort_values(x).groupby("seed")]
    first, last = max(steps[0] for steps, _ in each), min(steps[-1] for steps, _ in each)
    grid = np.unique(np.concatenate([steps for steps, _ in each]))
    grid = grid[(grid >= first) & (grid <= last)]
    read = np.array([np.interp(np.log1p(grid), np.log1p(steps), values) for steps, values in each])
    read = read.reshape(len(each), len(grid))
    count = np.full(len(grid), float(len(each)))
    return {x: grid, "mean": read.mean(0), "low": read.min(0), "high": read.max(0), "seeds": count}
