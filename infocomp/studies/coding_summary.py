"""What the terminal says after a coding study: the rates of every text beside the classical coders, bits per byte."""

import numpy as np
import pandas as pd

MOST_LINES = 24
ESTIMATORS = {"code_length": "code length", "arithmetic_coding": "file", "prequential": "prequential"}


def coding_summary(table: pd.DataFrame) -> str:
    """For each text, whether it was in the training data, a line a checkpoint, and the coders on the same bytes."""
    rows = table[(table["quantity"] == "bits_per_byte") & (table["draw"] == "mean") & (table["status"] == "ok")]
    default = rows[(rows["label"] == "") | rows["label"].str.startswith(("mapping ", "first "))]
    if default.empty:
        return "no rate was measured"
    return "\n".join(_of_text(str(name), own) for name, own in default.groupby("corpus", sort=False))


def _of_text(name: str, rows: pd.DataFrame) -> str:
    in_training = next(iter(rows["in_training"].dropna()), "unknown")
    own, classical = rows[rows["estimator"] != "classical"], rows[rows["estimator"] == "classical"]
    lines = [f"\n{name} (in the training data: {in_training}), bits per byte"]
    if len(own):
        order = own.assign(column=[_column(row) for _, row in own.iterrows()])
        order = order.sort_values(["model", "stage", "step", "revision"], na_position="last", kind="stable")
        columns = list(dict.fromkeys(order["column"]))
        several = order["model"].nunique() > 1
        order = _thinned(order)
        order = order.assign(of=order["revision"] if not several else order["model"] + " " + order["revision"])
        grid = order.pivot_table(index="of", columns="column", values="value", sort=False)[columns]
        grid.index.name = grid.columns.name = None
        text: str = grid.to_string(float_format=lambda value: f"{value:.3f}", na_rep="")  # type: ignore[assignment]
        lines.append(text)
    for label, of in classical.groupby("label", sort=True):
        coders = ", ".join(f"{row.model} {row.value:.3f}" for row in of.sort_values("value").itertuples())
        lines.append(f"classical{f', {label}' if label else ''}: {coders}")
    return "\n".join(lines)


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_LINES revisions, evenly spread, the first and the last among them."""
    revisions = list(dict.fromkeys(rows["revision"]))
    if len(revisions) <= MOST_LINES:
        return rows
    kept = {revisions[round(place)] for place in np.linspace(0, len(revisions) - 1, MOST_LINES)}
    return rows[rows["revision"].isin(kept)]


def _column(row: pd.Series) -> str:
    """What a column of the table is called: the code, with its rule where it is a mapping."""
    estimator = str(row["estimator"])
    name = ESTIMATORS.get(estimator, estimator)
    return f"{name}, {row['label']}" if row["label"] else name
