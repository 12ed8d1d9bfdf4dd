"""What the terminal says after a memorization study: one line a checkpoint, every number beside its null."""

import numpy as np
import pandas as pd

MOST_LINES = 24


def memorization_summary(table: pd.DataFrame) -> str:
    """Rates of members and never-trained rows, memorized bits with their interval, membership, extraction."""
    rows = table[(table["draw"] == "mean") & (table["status"] == "ok")]
    own = rows[(rows["quantity"] == "bits_per_token") & rows["label"].isin(["train", "test"])]
    if own.empty:
        return "no checkpoint was measured"
    order = own.drop_duplicates(["model", "revision"]).sort_values(
        ["model", "stage", "step", "revision"], na_position="last", kind="stable"
    )
    lines = [_line(rows, one) for _, one in order.iterrows()]
    if len(lines) > MOST_LINES:
        kept = np.unique(np.linspace(0, len(lines) - 1, MOST_LINES).round().astype(int))
        lines = [lines[place] for place in kept]
    frame = pd.DataFrame(lines)
    text = frame.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="")
    notes = (
        "train, test: bits per token of members and of never-trained rows; memorized: bits beyond the null over all\n"
        "members, with the 95 % interval by document; AUC: members told from never-trained rows (null 0.5);\n"
        "extracted: share of members whose continuation comes out greedily, null: of never-trained rows"
    )
    return f"\n{text}\n\n{notes}{_fragility(rows)}"


def _line(rows: pd.DataFrame, one: pd.Series) -> dict[str, object]:
    here = rows[(rows["model"] == one["model"]) & (rows["revision"] == one["revision"])]
    line: dict[str, object] = {"revision": one["revision"]}
    if rows["model"].nunique() > 1:
        line = {"model": one["model"]} | line
    line |= {label: _value(here, "bits_per_token", label) for label in ("train", "test")}
    line["held-out bits/byte"] = _value(here, "bits_per_byte", "")
    memorized = here[here["quantity"] == "memorized_bits"]
    for _, row in memorized.iterrows():
        name = f"memorized {row['label']}"
        line[name] = row["value"]
        line[f"{name} 95 %"] = f"{row['ci_low']:.4g} … {row['ci_high']:.4g}" if pd.notna(row["ci_low"]) else ""
        line[f"AUC {row['label']}"] = _value(here, "membership_auc", str(row["label"]))
    line["AUC loss"] = _value(here, "membership_auc", "loss")
    found = here[(here["quantity"] == "extraction_rate") & ~here["label"].str.contains("changed")]
    if len(found):
        line |= {"extracted": found["value"].iloc[0], "null": found["null"].iloc[0]}
    return line


def _value(rows: pd.DataFrame, quantity: str, label: str) -> float | None:
    found = rows[(rows["quantity"] == quantity) & (rows["label"] == label)]
    return float(found["value"].iloc[0]) if len(found) else None


def _fragility(rows: pd.DataFrame) -> str:
    changed = rows[(rows["quantity"] == "extraction_score") & rows["label"].str.contains("changed")]
    if changed.empty:
        return ""
    last = changed["revision"].iloc[-1]
    own = rows[(rows["revision"] == last) & (rows["quantity"] == "extraction_score")]
    told = ", ".join(f"{row.label}: {row.value:.4g} (null {row.null:.4g})" for row in own.itertuples())
    return f"\nscore at {last}, {told}"
