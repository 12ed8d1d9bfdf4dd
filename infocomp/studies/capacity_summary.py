"""What the terminal says after a capacity study: bits per parameter of each model, slopes, and what was not reached."""

import pandas as pd

COLUMNS = {"value": "bits/parameter", "ci_low": "from", "ci_high": "to"}


def capacity_summary(table: pd.DataFrame) -> str:
    """A line a model, a line a slope, a line for what did not train."""
    rows = table[table["status"] == "ok"]
    lines = []
    for quantity, title in (("bits_per_parameter", "capacity"), ("capacity_slope", "slope of bits over parameters")):
        own = rows[rows["quantity"] == quantity]
        if own.empty:
            continue
        shown = own[["model", "corpus", "label", *COLUMNS]].rename(columns=COLUMNS)
        text = shown.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="")
        lines += [f"\n{title}, bits per parameter\n", text]
    notes = rows.loc[rows["quantity"] == "bits_per_parameter", ["model", "message"]].dropna().drop_duplicates()
    lines += ["", *(f"{row.model}: {row.message}" for row in notes.itertuples())] if len(notes) else []
    failed = table[table["status"] == "failed"]
    lines += [f"{len(failed)} unit(s) failed"] if len(failed) else []
    return "\n".join(lines) if lines else "no capacity was measured"
