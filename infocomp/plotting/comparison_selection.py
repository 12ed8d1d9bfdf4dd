"""Which rows of the table the figures of a comparison draw, and whose they are.

A comparison's rows name a role in their settings: "base", "tuned" (with a place: 1, 2, … in the order given) or
"control" (the base's shape, untrained). Drawn are rows with status "ok" and a value, of the mean over draws, weighted
by frequency, of the first seed. A difference (tuned minus base) is a row of its own, with ", tuned minus base" at the
end of its estimator; nothing is subtracted or averaged here. `who` is what a figure calls a model: its short name, with
the revision where several revisions of it are compared.
"""

import json
import re
from typing import Any

import numpy as np
import pandas as pd

from infocomp.plotting.coding_style import with_interval
from infocomp.plotting.selection import NEEDED, NothingToDraw

BASE, TUNED, CONTROL = "base", "tuned", "control"
DIFFERENCE = ", tuned minus base"
MOST_TUNED = 5
_ORDER = {BASE: 0, TUNED: 1, CONTROL: 2}
_ROLE = r'"role":"(?:base|tuned|control)"'
_FACTS = ("std_error", "ci_low", "ci_high", "n_tokens")
_KEY_TEXTS = ("model", "revision", "corpus", "site", "quantity", "label", "rows", "weighting", "estimator", "draw")
_WORDS = (*_KEY_TEXTS, "settings", "message")
_NUMBERS = ("seed", "step", "layer", "value", "null", "ceiling", *_FACTS)


def of_comparison(table: pd.DataFrame) -> pd.Series:
    """True where only a study of comparison writes such a row: its settings name a role and a place."""
    if "settings" not in table.columns:
        return pd.Series(False, index=table.index)
    said = table["settings"].fillna("").astype(str)
    return said.str.contains(_ROLE) & said.str.contains('"place":', regex=False)


def comparison_rows(
    table: pd.DataFrame, *quantities: str, corpus: str | None = None, differences: bool = False
) -> pd.DataFrame:
    """The rows of these quantities (all by default) of one data set (None: of all), models in their order.

    Added are `role`, `place`, `who`, `kind`, `depth` and `name` of the site, `low`, `high` and `interval`, and `said`,
    the settings. `differences` takes the rows of differences instead of the others. NothingToDraw: columns are missing,
    or the table holds no row of a comparison at all; without rows of these quantities the answer is empty.
    """
    lacking = [name for name in (*NEEDED, *_FACTS, "settings", "message") if name not in table.columns]
    if lacking:
        raise NothingToDraw(f"the table lacks the columns {', '.join(lacking)}; figures need infocomp's own table")
    rows = table[of_comparison(table)]
    if rows.empty:
        raise NothingToDraw("the table holds no row of a comparison of models")
    named = _named(rows)
    wanted = (rows["status"] == "ok") & rows["value"].notna()
    wanted &= rows["draw"].fillna("").isin(["mean", ""]) & rows["weighting"].fillna("").isin(
        ["frequency", "completions", ""]
    )
    wanted &= rows["estimator"].fillna("").str.endswith(DIFFERENCE) == differences
    if quantities:
        wanted &= rows["quantity"].isin(quantities)
    if corpus is not None:
        wanted &= rows["corpus"] == corpus
    rows = rows[wanted].reset_index(drop=True)
    rows = rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), "") for name in _WORDS})
    rows = rows.assign(**{name: rows[name].astype("float64") for name in _NUMBERS})
    seed = rows["seed"].fillna(-1.0)
    rows = rows[seed == seed.groupby([rows[name] for name in _KEY_TEXTS]).transform("min")]
    said = [json.loads(text) for text in rows["settings"]]
    drawn = np.array(
        [found["role"] in _ORDER for found in said], dtype=bool
    )  # not the draws of random weights, whose mean is the control
    rows, said = rows[drawn].reset_index(drop=True), [found for found, keep in zip(said, drawn, strict=True) if keep]
    sites = [site_place(site) for site in rows["site"]]
    rows = rows.assign(
        said=said,
        role=[found["role"] for found in said],
        place=[_place(found) for found in said],
        who=[named[model, revision] for model, revision in zip(rows["model"], rows["revision"], strict=True)],
        kind=[kind for kind, _, _ in sites],
        depth=[depth for _, depth, _ in sites],
        name=[name for _, _, name in sites],
    )
    return in_order(with_interval(rows))


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Base, tuned models by their place, controls; each from the first site to the last."""
    rank = rows.assign(_rank=rows["role"].map(_ORDER)).sort_values(["_rank", "place", "who", "depth"], kind="stable")
    return rank.drop(columns="_rank").reset_index(drop=True)


def comparison_texts(table: pd.DataFrame, *quantities: str) -> list[str]:
    """The data sets of a comparison that have these quantities, in order of appearance."""
    try:
        rows = comparison_rows(table, *quantities)
    except NothingToDraw:
        return []
    return [str(name) for name in rows["corpus"].unique() if name]


def of_one_text(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """The rows, if they are of one data set. NothingToDraw where there are none (`what` is lacking) or several."""
    if rows.empty:
        raise NothingToDraw(what)
    found = [str(name) for name in rows["corpus"].unique()]
    if len(found) > 1:
        raise NothingToDraw(f"the table holds {len(found)} data sets ({', '.join(found)}); name one with corpus=…")
    return rows


def setting(rows: pd.DataFrame, name: str) -> list[float]:
    """A number (or a truth, as 0 or 1) of each row's settings; NaN where it has none."""
    found = [said.get(name) for said in rows["said"]]
    return [float(value) if isinstance(value, int | float) else np.nan for value in found]


def few(rows: pd.DataFrame, most: int = MOST_TUNED) -> pd.DataFrame:
    """At most `most` tuned models, with `of_tuned`, how many there are: the last of each name first, then evenly."""
    tuned = rows[rows["role"] == TUNED].drop_duplicates("who").sort_values("place")
    last = list(tuned.drop_duplicates("model", keep="last")["who"])
    others = [who for who in tuned["who"] if who not in last]
    kept = [last[place] for place in evenly(len(last), most)]
    room = most - len(kept)
    kept += [others[place] for place in evenly(len(others), room)]
    return rows[(rows["role"] != TUNED) | rows["who"].isin(kept)].assign(of_tuned=len(tuned))


def evenly(count: int, most: int) -> list[int]:
    """As many as fit of the positions 0 … count-1, at most `most`: evenly spread, the first and the last among them."""
    return (
        [int(place) for place in np.unique(np.linspace(0, count - 1, min(count, most)).round())]
        if most > 1
        else ([count - 1][: min(count, most)])
    )


def one_variant(rows: pd.DataFrame, *preferred: str) -> pd.DataFrame:
    """Of each quantity the rows of one kind (the column `rows`), so that models are compared on equal ones.

    It is the first of `preferred` that the base has (any model, where the base has no rows), else the first there is.
    """
    kept = []
    for _, own in rows.groupby("quantity", sort=False):
        found = list(own.loc[own["role"] == BASE, "rows"].unique()) or list(own["rows"].unique())
        best = next((name for name in preferred if name in found), found[0])
        kept.append(own[own["rows"] == best])
    return pd.concat(kept) if kept else rows


def site_place(site: str) -> tuple[str, float, str]:
    """Kind ("embed", "block", "norm", "control", "other"), depth and short name of a site."""
    if site == "hook_embed":
        return "embed", -1.0, "embed"
    block = re.match(r"blocks\.(\d+)\.", site)
    if block is not None:
        return "block", float(block[1]), f"L{block[1]}"
    if site.startswith("ln_final"):
        return "norm", 1e6, "norm"
    if site.startswith("control."):
        return "control", 3e6, site.removeprefix("control.").replace("_", " ")
    return "other", 2e6, site


def short_endings(names: list[str], most: int = 30) -> dict[str, str]:
    """Models by the last part of their path, of long ones the end, where that still tells them apart; else whole.

    Tuned models begin as their base does and differ at the end of their names.
    """
    for shorten in (lambda name: name.rstrip("/").rsplit("/", 1)[-1], str):
        short = {name: shorten(name) for name in names}
        cut = {name: text if len(text) <= most else f"…{text[1 - most :]}" for name, text in short.items()}
        if len(set(cut.values())) == len(names):
            return cut
    return {name: name for name in names}


def _place(said: dict[str, Any]) -> int:
    return int(said["place"]) if isinstance(said.get("place"), int) else 0


def _named(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """What each model and revision is called."""
    pairs = [(str(one), str(other)) for one, other in rows[["model", "revision"]].fillna("").drop_duplicates().values]
    short = short_endings(list(dict.fromkeys(model for model, _ in pairs)))
    several = {model for model, _ in pairs if sum(other == model for other, _ in pairs) > 1}
    return {
        (model, revision): f"{short[model]} {revision}".strip() if model in several else short[model]
        for model, revision in pairs
    }
