"""What the terminal says after a comparison: one line a model and data set, then what changed beyond chance."""

import json

import numpy as np
import pandas as pd

from infocomp.studies.comparison_differences import DIFFERENCE
from infocomp.studies.comparison_measures import CONTROL_DRAW

MOST_CHANGES = 12
MOST_FAILURES = 4
MEAN_OVER = "blocks."


def comparison_summary(table: pd.DataFrame) -> str:
    """Bits per byte, preference information and effective rank of each model; the largest changes over base; failures.

    Random weights are told by their mean over draws alone.
    """
    failed = _failures(table)
    rows = table[(table["draw"] == "mean") & (table["status"] == "ok")]
    if rows.empty:
        return "\n".join(["nothing was measured", *failed])
    settings = [json.loads(text) for text in rows["settings"].fillna("{}").tolist()]
    rows = rows.copy()
    for name in ("place", "role", "changed", "effect"):
        rows[name] = [one.get(name) for one in settings]
    return "\n".join([*_by_model(rows), *_changes(rows), *failed])


def _failures(table: pd.DataFrame) -> list[str]:
    """A unit that failed stands in the table as one row, which holds why."""
    units = table[table["status"] == "failed"]
    if units.empty:
        return []
    texts = units[["corpus", "model", "revision"]].fillna("").astype(str).to_numpy().tolist()
    names = [" ".join(filter(None, of)) or "what joins all units" for of in texts]
    more = f" and {len(names) - MOST_FAILURES} more" if len(names) > MOST_FAILURES else ""
    said = f"{len(units)} unit{'s' if len(units) > 1 else ''} failed ({'; '.join(names[:MOST_FAILURES])}{more})"
    return ["", f"{said}: the table's rows of status 'failed' say why; the same command tries them again"]


def _by_model(rows: pd.DataFrame) -> list[str]:
    """A line for each model and data set of which any of these numbers is known."""
    lines = []
    measured = rows[~rows["estimator"].str.endswith(DIFFERENCE) & (rows["role"] != CONTROL_DRAW)]
    keys = ["corpus", "role", "place", "model", "step", "revision"]
    for values, here in measured.groupby(keys, dropna=False, sort=True):
        about = dict(zip(keys, values, strict=True))
        if not about["revision"]:
            continue
        information = here[(here["quantity"] == "preference_information") & (here["rows"] == "matched")]
        excess = here[(here["quantity"] == "preference_excess") & (here["label"] == "over hook_embed")]
        excess = excess[excess["site"].str.startswith(MEAN_OVER)]
        probe = here[(here["quantity"] == "probe_accuracy") & here["site"].str.startswith(MEAN_OVER)]
        rank = here[(here["quantity"] == "rankme_covariance") & (here["rows"] == "sample")]
        rank = rank[rank["site"].str.startswith(MEAN_OVER)]
        token = here[(here["label"] == "token") & here["site"].str.startswith(MEAN_OVER) & (here["rows"] == "raw")]
        numbers = {
            "bits/byte": _first(here, "bits_per_byte"),
            "complexity": _mean(token[token["quantity"] == "complexity"], "point"),
            "expressivity": _mean(token[token["quantity"] == "expressivity"], "point"),
            "RankMe": _mean(rank, "value"),
            "preference": _mean(information[information["site"].str.startswith(MEAN_OVER)], "point"),
            "over embedding": _mean(excess, "value"),
            "probe": _mean(probe, "value"),
        }
        if any(value is not None for value in numbers.values()):
            names = {"data": about["corpus"], "model": about["model"], "checkpoint": about["revision"]}
            lines.append(names | numbers)
    if not lines:
        return []
    frame = pd.DataFrame(lines).dropna(axis=1, how="all")
    text = frame.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="")
    about = "complexity, expressivity (next token), preference: bits, point estimates, mean over blocks; RankMe of the"
    return [f"\n{text}\n\n{about}\ncovariance at the common n; probe: share of pairs told right, mean over blocks", ""]


def _changes(rows: pd.DataFrame) -> list[str]:
    differences = rows[rows["estimator"].str.endswith(DIFFERENCE)]
    judged = differences[differences["changed"].notna()]
    if judged.empty:
        return ["nothing is told of what changed from base to tuned: no number has an interval in both"]
    changed = judged[judged["changed"].eq(True)]
    said = f"{len(changed)} of {len(judged)} numbers changed beyond chance (false-discovery rate 5 %, by document)"
    if changed.empty:
        return [said]
    effect = changed["effect"].astype(float).abs().fillna(np.inf)
    top = changed.assign(effect=effect).sort_values("effect", ascending=False).head(MOST_CHANGES)
    lines = [
        {
            "model": row.model if str(row.model).endswith(str(row.revision)) else f"{row.model} {row.revision}",
            "data": row.corpus,
            "site": row.site,
            "number": " ".join(filter(None, (str(row.quantity), str(row.label), str(row.rows)))),
            "change": f"{row.value:+.4g} [{row.ci_low:+.4g}, {row.ci_high:+.4g}] {row.unit}",
            "|effect|": f"{row.effect:.1f}",
        }
        for row in top.itertuples()
    ]
    text = pd.DataFrame(lines).to_string(index=False)
    rest = len(changed) - len(lines)
    return [f"{said}:\n{text}" + (f"\nand {rest} more in the table" if rest > 0 else "")]


def _first(rows: pd.DataFrame, quantity: str) -> float | None:
    found = rows.loc[(rows["quantity"] == quantity) & (rows["estimator"] == "code_length"), "value"]
    return float(found.iloc[0]) if len(found) else None


def _mean(rows: pd.DataFrame, column: str) -> float | None:
    found = rows[column].dropna()
    return float(found.mean()) if len(found) else None
