"""Which rows of the table the memorization figures draw, and what their settings and names say.

Drawn are rows with status "ok" and a value, of the mean over draws: memorized bits (bits), bits per parameter,
membership and extraction (ratios), and code lengths in bits per token on "train" and "test" samples. A text is the
corpus without the number of samples at its end: "random V64 S16 N512" belongs to "random V64 S16". Those are random
data; other texts are real, with a load (data bits / capacity bits) in the settings where the size of the training set
is what changes, without it where checkpoints are. Of real texts the first seed is drawn, of random data every seed.
"""

import json
import re

import numpy as np
import pandas as pd

from infocomp.plotting.coding_selection import CODE_LENGTH
from infocomp.plotting.selection import NEEDED, NothingToDraw, with_positions

MEMORIZED = "memorized_bits"
EXTRACTION = ("extraction_rate", "extraction_score")
DROP = "extraction_drop"
MEMBERSHIP = ("membership_auc", "membership_f1")
LAW = ("membership_midpoint", "membership_slope")
PER_PARAMETER, SLOPE, GAIN = "bits_per_parameter", "capacity_slope", "saturation_gain"
QUANTITIES = (
    MEMORIZED,
    "unintended_bits",
    "unclipped_gain_bits",
    *EXTRACTION,
    DROP,
    *MEMBERSHIP,
    *LAW,
    PER_PARAMETER,
    SLOPE,
    GAIN,
)
SAME = ", same documents"  # ends the label of what never-trained samples of the members' own documents tell
LOSSES = ("train", "test", "test" + SAME)
PLATEAU = "plateau"
ALL_PARAMETERS, OUTSIDE = "all parameters", "outside the embedding"
LOWER_BOUND = "lower bound"
_FIRST = ("train", "loss", "loss" + SAME, "against whole", "against whole" + SAME)
_SETTINGS = ("parameters", "parameters_outside_embedding", "data_bits", "capacity_bits", "load", "samples", "sequences")
_SETTINGS += ("on_plateau", "changed", "intercept")
_CELLS = ("value", "null", "ceiling")
_FACTS = ("std_error", "ci_low", "ci_high", "tokens_seen", "n_tokens")
_WORDS = ("settings", "message", "in_training")
_KEY_TEXTS = ("model", "revision", "corpus", "site", "quantity", "label", "rows", "weighting", "estimator", "draw")


def of_memorization(table: pd.DataFrame) -> pd.Series:
    """True where only a study of memorization writes such a row; its held-out rates are rows of other studies too."""
    if not {"label", "quantity"} <= set(table.columns):
        return pd.Series(False, index=table.index)
    quantity, label = (table[name].fillna("").astype(str) for name in ("quantity", "label"))
    return quantity.isin(QUANTITIES) | ((quantity == "bits_per_token") & label.isin(LOSSES))


def memorization_rows(table: pd.DataFrame, rates: bool = False) -> pd.DataFrame:
    """The rows that memorization figures choose from, with `text`, `random`, `position` and their settings as columns.

    `rates` adds the held-out rates (bits per byte and per token under the label ""). `position` is the training step,
    counted on over stages. NothingToDraw: columns are missing or no row is left.
    """
    lacking = [name for name in (*NEEDED, *_FACTS, *_WORDS) if name not in table.columns]
    if lacking:
        raise NothingToDraw(f"the table lacks the columns {', '.join(lacking)}; figures need infocomp's own table")
    wanted = of_memorization(table)
    if rates:
        plain = (table["estimator"] == CODE_LENGTH) & (table["label"].fillna("") == "")
        wanted |= plain & table["quantity"].isin(["bits_per_byte", "bits_per_token"])
    rows = table[wanted & (table["status"] == "ok") & table["value"].notna()].reset_index(drop=True)
    words = (*_KEY_TEXTS, *_WORDS, "stage", "duplicate_of")
    rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in words})
    rows = rows.assign(**{name: rows[name].astype("float64") for name in ("seed", "step", *_CELLS, *_FACTS)})
    rows = rows[rows["draw"].isin(["mean", ""]) & rows["weighting"].isin(["frequency", ""]) & (rows["model"] != "")]
    if not of_memorization(rows).any():
        raise NothingToDraw("the table holds no row of a study of memorization")
    said = [json.loads(text) if text else {} for text in rows["settings"]]
    rows = rows.assign(**{name: [_number(found, name) for found in said] for name in _SETTINGS})
    rows = rows.assign(text=[text_of(str(corpus)) for corpus in rows["corpus"]])
    rows = rows.assign(random=[text.startswith("random V") for text in rows["text"]])
    rows = rows.assign(lower_bound=rows["message"].str.startswith(LOWER_BOUND), duplicate=rows["duplicate_of"] != "")
    seed = rows["seed"].fillna(-1.0)
    first = seed.groupby([rows[name] for name in _KEY_TEXTS if name not in ("revision", "corpus")]).transform("min")
    return with_positions(rows[rows["random"] | (seed == first)])


def text_of(corpus: str) -> str:
    """A corpus without the number of its samples: "random V64 S16 N512" is of "random V64 S16"."""
    return re.sub(r" N\d+$", "", corpus)


def _number(settings: object, name: str) -> float:
    """A number (or a truth, as 0 or 1) in a row's settings; NaN where it has none."""
    found = settings.get(name) if isinstance(settings, dict) else None
    return float(found) if isinstance(found, int | float) else np.nan


def memorization_texts(table: pd.DataFrame) -> list[str]:
    """The texts and random data that memorization was measured on, in order of appearance."""
    try:
        rows = memorization_rows(table)
    except NothingToDraw:
        return []
    return [str(name) for name in rows["text"].unique() if name]


def of_one_text(rows: pd.DataFrame, corpus: str | None, what: str) -> pd.DataFrame:
    """The rows of that text, or of the only one. NothingToDraw where there are several and none is named."""
    if corpus is not None:
        return rows[rows["text"] == corpus]
    found = [str(name) for name in rows["text"].unique()]
    if len(found) > 1:
        raise NothingToDraw(f"the table holds {len(found)} {what} ({', '.join(found)}); name one with corpus=…")
    return rows


def family(model: str) -> str:
    """What models of several sizes share: "gpt2 1x24 bf16 mixed" is of "gpt2 bf16 mixed"."""
    return re.sub(r" \d+x\d+(?= |$)", "", model)


def references(rows: pd.DataFrame) -> list[str]:
    """The references of memorized bits, in order of appearance: of "against whole, same documents", "whole"."""
    labels = rows.loc[rows["quantity"] == MEMORIZED, "label"]
    found = [re.fullmatch(rf"against (.+?)({SAME})?", str(label)) for label in labels]
    return list(dict.fromkeys(match[1] for match in found if match))


def in_order(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows with models in order of appearance, then by these columns: numbers by size, words by appearance.

    Before other words come the plain loss and the whole-data reference, whatever order the table is in.
    """
    rank = pd.DataFrame(index=rows.index)
    for name in ("model", *names):
        words = {word: place for place, word in enumerate(dict.fromkeys([*_FIRST, *rows[name].unique()]))}
        rank[name] = rows[name] if rows[name].dtype.kind in "fi" else rows[name].map(words)
    return rows.loc[rank.sort_values(list(rank.columns), kind="stable").index]
