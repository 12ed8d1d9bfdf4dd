"""What the terminal says after a coding study: the rates of every text beside the classical coders, bits per byte.

A file and a rank code are of the beginning of a text, a code length is of all of it: the size stands in the name of
what is of a part. Rank codes count no header, so the file stands there without its header too.
"""

import numpy as np
import pandas as pd

from infocomp.plotting.coding_selection import of_a_part, setting
from infocomp.plotting.coding_style import byte_text

MOST_LINES = 24
FILE, WITHOUT_HEADER = "arithmetic_coding", "file without header"
ESTIMATORS = {"code_length": "code length", FILE: "file", WITHOUT_HEADER: WITHOUT_HEADER, "prequential": "prequential"}


def coding_summary(table: pd.DataFrame) -> str:
    """For each text, whether it was in the training data, its rates by checkpoint, and the coders on the same bytes."""
    measured = table[(table["draw"] == "mean") & (table["status"] == "ok")]
    rows = measured[measured["quantity"] == "bits_per_byte"]
    mapped = rows["corpus"].isin(rows.loc[rows["label"].str.startswith("mapping "), "corpus"])
    pieces = mapped & (rows["estimator"] == "classical") & rows["label"].str.startswith("chunk ")
    default = rows[(rows["label"] == "") | rows["label"].str.startswith(("mapping ", "first ")) | pieces]
    if default.empty:
        return "no rate was measured"
    default = pd.concat([default, _without_header(measured)])
    return "\n".join(_of_text(str(name), own) for name, own in default.groupby("corpus", sort=False))


def _without_header(measured: pd.DataFrame) -> pd.DataFrame:
    """The rates of the files' payload and escapes alone."""
    files = measured[(measured["estimator"] == FILE) & (measured["label"] == "")]
    key = ["corpus", "model", "revision"]
    sizes = files.pivot_table(index=key, columns="quantity", values="value")
    rates = files[files["quantity"] == "bits_per_byte"]
    if rates.empty:
        return rates
    share = (sizes["payload_bytes"] + sizes["escape_bytes"]) / sizes["coded_bytes"]
    shares = share.reindex(pd.MultiIndex.from_frame(rates[key])).to_numpy()
    return rates.assign(estimator=WITHOUT_HEADER, value=rates["value"] * shares)


def _of_text(name: str, rows: pd.DataFrame) -> str:
    in_training = next(iter(rows["in_training"].dropna()), "unknown")
    rows = rows.assign(part=_parts(rows))
    own, classical = rows[rows["estimator"] != "classical"], rows[rows["estimator"] == "classical"]
    lines = [f"\n{name} (in the training data: {in_training}), bits per byte"]
    if len(own):
        order = own.assign(column=[_column(row) for _, row in own.iterrows()], rank=_ranks(own["estimator"]))
        columns = list(dict.fromkeys(order.sort_values("rank", kind="stable")["column"]))
        order = order.sort_values(["model", "stage", "step", "revision"], na_position="last", kind="stable")
        several = order["model"].nunique() > 1
        order = _thinned(order)
        order = order.assign(of=order["revision"] if not several else order["model"] + " " + order["revision"])
        grid = order.pivot_table(index="of", columns="column", values="value", sort=False)[columns]
        grid = grid.T if len(grid) < len(columns) else grid  # few checkpoints: a line a code
        grid.index.name = grid.columns.name = None
        text: str = grid.to_string(float_format=lambda value: f"{value:.3f}", na_rep="")  # type: ignore[assignment]
        lines.append(text)
    for label, of in classical.groupby("label", sort=True):
        coders = ", ".join(f"{row.model} {row.value:.3f}" for row in of.sort_values("value").itertuples())
        rule = f", {label}" if str(label).startswith("chunk ") else ""
        lines.append(f"classical{rule}{of['part'].iloc[0]}: {coders}")
    return "\n".join(lines)


def _parts(rows: pd.DataFrame) -> list[str]:
    """ " (first 100 kB)" for what is of a part of the text, "" for what is of all of it; a training's code grows."""
    settings = (
        rows["settings"].astype(object).where(rows["settings"].notna() & (rows["estimator"] != "prequential"), "")
    )
    sizes = [setting(str(text), "bytes") for text in settings]
    known = [size for size in sizes if isinstance(size, int)]
    return [
        f" (first {byte_text(size)})" if isinstance(size, int) and of_a_part(size, max(known)) else "" for size in sizes
    ]


def _ranks(estimators: pd.Series) -> list[int]:
    """The order of the columns: code lengths, files, and what else there is."""
    return [list(ESTIMATORS).index(name) if name in ESTIMATORS else len(ESTIMATORS) for name in estimators]


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_LINES revisions, evenly spread, the first and the last among them."""
    revisions = list(dict.fromkeys(rows["revision"]))
    if len(revisions) <= MOST_LINES:
        return rows
    kept = {revisions[round(place)] for place in np.linspace(0, len(revisions) - 1, MOST_LINES)}
    return rows[rows["revision"].isin(kept)]


def _column(row: pd.Series) -> str:
    """What a column of the table is called: the code, the rule where it is a mapping, and the part of the text."""
    estimator = str(row["estimator"])
    name = ESTIMATORS.get(estimator, estimator)
    return (f"{name}, {row['label']}" if row["label"] else name) + str(row["part"])
