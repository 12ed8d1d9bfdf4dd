"""Which rows of the table the coding figures draw, and what their labels say.

Drawn are rows with status "ok" and a value, of the mean over draws and of the first seed: code lengths (bits per byte
or per token), sizes of real containers (bytes, seconds), rank coding, prequential and classical coders. A label carries
the rule: "chunk 512", "sliding 512/256", "position 4-7", "kind number", "weights 8 bits", "mapping coded"; "" is the
default.
"""

import json
import re

import numpy as np
import pandas as pd

from infocomp.plotting.selection import CLASSICAL, NEEDED, NothingToDraw, short_names, with_positions
from infocomp.plotting.style import step_text

CODE_LENGTH = "code_length"
CODEC = "arithmetic_coding"
PREQUENTIAL = "prequential"
RANKS = "rank + "
OWN_QUANTITIES = ("raw_rate", "adjusted_rate", "model_bytes", "break_even_bytes")
_INTERVAL = ("std_error", "ci_low", "ci_high")
_KEY_TEXTS = ("model", "revision", "corpus", "site", "quantity", "label", "rows", "weighting", "estimator", "draw")
_TEXTS = (*_KEY_TEXTS, "stage", "duplicate_of", "settings", "in_training")
_NUMBERS = ("seed", "step", "value", "null", *_INTERVAL, "n_tokens", "tokens_seen", "context_length")


def of_coding(table: pd.DataFrame) -> pd.Series:
    """True where only the study of coding writes such a row: real coders, and code lengths under a label."""
    if not {"estimator", "label", "quantity"} <= set(table.columns):
        return pd.Series(False, index=table.index)
    estimator, label = (table[name].fillna("").astype(str) for name in ("estimator", "label"))
    real = estimator.isin([CODEC, PREQUENTIAL]) | estimator.str.startswith(RANKS)
    return real | (estimator.isin([CODE_LENGTH, CLASSICAL]) & (label != "")) | table["quantity"].isin(OWN_QUANTITIES)


def coding_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """The rows that coding figures choose from, of one text or (None) of all, with `position`, `branch`, `duplicate`.

    `position` is the training step, counted on over stages. NothingToDraw: columns are missing or no row is left.
    """
    needed = (*NEEDED, *_INTERVAL, "settings", "in_training", "n_tokens", "tokens_seen", "context_length")
    lacking = [name for name in needed if name not in table.columns]
    if lacking:
        raise NothingToDraw(f"the table lacks the columns {', '.join(lacking)}; figures need infocomp's own table")
    estimator = table["estimator"].fillna("").astype(str)
    wanted = estimator.isin([CODE_LENGTH, CODEC, PREQUENTIAL, CLASSICAL]) | estimator.str.startswith(RANKS)
    rows = table[wanted & (table["status"] == "ok") & table["value"].notna()].reset_index(drop=True)
    rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in _TEXTS})
    rows = rows.assign(**{name: rows[name].astype("float64") for name in _NUMBERS})
    rows = rows[rows["draw"].isin(["mean", ""]) & rows["weighting"].isin(["frequency", ""]) & (rows["model"] != "")]
    rows = rows[rows["corpus"] == corpus] if corpus is not None else rows
    if rows.empty:
        raise NothingToDraw(f"the table holds no coding rate{f' of {corpus}' if corpus is not None else ''}")
    seed = rows["seed"].fillna(-1.0)
    rows = rows[seed == seed.groupby([rows[name] for name in _KEY_TEXTS if name != "revision"]).transform("min")]
    return with_positions(rows.assign(duplicate=rows["duplicate_of"] != ""))


def coding_texts(table: pd.DataFrame) -> list[str]:
    """The texts that some model was used to code, in order of appearance."""
    try:
        rows = coding_rows(table)
    except NothingToDraw:
        return []
    return [str(name) for name in rows.loc[rows["estimator"] != CLASSICAL, "corpus"].unique()]


def coding_models(rows: pd.DataFrame) -> list[str]:
    """The models among `coding_rows`, classical coders apart, in order of appearance."""
    return [str(name) for name in rows.loc[rows["estimator"] != CLASSICAL, "model"].unique()]


def the_model(rows: pd.DataFrame, model: str | None) -> str:
    """The named model, or the only one. NothingToDraw where there is none of that name, or several and none named."""
    found = coding_models(rows)
    if model is None and len(found) == 1:
        return found[0]
    if model not in found:
        asked = "name one with model=…" if model is None else f"there is none called {model!r}"
        raise NothingToDraw(f"the table holds the rates of {len(found)} models ({', '.join(found)}); {asked}")
    return model


def labelled(rows: pd.DataFrame, pattern: str, *names: str) -> pd.DataFrame:
    """The rows whose whole label matches, with the pattern's groups as columns: whole numbers where they are digits."""
    found = [re.fullmatch(pattern, label) for label in rows["label"]]
    matched = rows[np.array([match is not None for match in found], dtype=bool)]
    parts = list(zip(*(match.groups() for match in found if match), strict=True)) or [()] * len(names)
    plain = [[int(text) if re.fullmatch(r"\d+", text) else text for text in part] for part in parts]
    return matched.assign(**dict(zip(names, plain, strict=True)))


def at_last(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each model the rows of its last checkpoint among these, by position."""
    keep = [rows.iloc[:0]]
    for _, own in rows.groupby("model", sort=False):
        last = own.sort_values("position", kind="stable", na_position="first")["revision"].iloc[-1]
        keep.append(own[own["revision"] == last])
    return pd.concat(keep)


def checkpoint_names(points: pd.DataFrame, in_full: bool = False) -> dict[tuple[str, str], str]:
    """What each (model, revision) is called: "pythia-70m, step 512"; of one model just "step 512", unless `in_full`."""
    short = short_names([str(name) for name in points["model"].unique()])
    named = {}
    for _, row in points.drop_duplicates(["model", "revision"]).iterrows():
        when = f"step {step_text(row['step'])}" if np.isfinite(row["step"]) else str(row["revision"])
        parts = [short[row["model"]]] if len(short) > 1 or in_full or not when else []
        named[row["model"], row["revision"]] = ", ".join([*parts, when] if when else parts)
    return named


def in_training(points: pd.DataFrame) -> str:
    """Whether a text was in the training data: "likely", or by model where they differ; "unknown" where unsaid."""
    said = points.assign(in_training=points["in_training"].replace("", "unknown"))
    said = said[said["estimator"] != CLASSICAL] if "estimator" in said else said
    per_model = said.drop_duplicates("model").set_index("model")["in_training"]
    if per_model.nunique() <= 1:
        return str(per_model.iloc[0]) if len(per_model) else "unknown"
    short = short_names([str(name) for name in per_model.index])
    return ", ".join(f"{value} ({short[str(model)]})" for model, value in per_model.items())


def setting(settings: str, name: str) -> object:
    """One entry of a row's settings; None where it has none."""
    found = json.loads(settings) if settings else {}
    return found.get(name) if isinstance(found, dict) else None


def input_bytes(rows: pd.DataFrame, rates: pd.DataFrame) -> list[float]:
    """How many bytes each rate (bits per byte) is of: the size of its code over it; NaN where the table does not say.

    The size stands in a row `coded_bytes` among `rows`, or in the rate's own settings.
    """
    key = ["corpus", "model", "revision", "estimator", "label"]
    sizes = rows[rows["quantity"] == "coded_bytes"].drop_duplicates(key).set_index(key)["value"].to_dict()
    found = []
    for _, row in rates.iterrows():
        coded = sizes.get(tuple(row[key]), setting(row["settings"], "coded_bytes"))
        found.append(round(8 * coded / row["value"]) if isinstance(coded, int | float) else np.nan)
    return found


def text_bytes(rows: pd.DataFrame) -> float:
    """How long the text of these rows is, by the classical coders that took all of it; NaN where none says."""
    whole = rows[(rows["estimator"] == CLASSICAL) & (rows["quantity"] == "bits_per_byte") & (rows["label"] == "")]
    known = [size for size in input_bytes(rows, whole) if np.isfinite(size)]
    return max(known, default=np.nan)


def of_a_part(size: float, whole: float) -> bool:
    """Whether a code is known to be of less than the whole text; sizes within 1 % are taken for one."""
    return bool(size < 0.99 * whole)
