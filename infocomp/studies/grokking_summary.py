"""What the terminal says after a grokking study: a line a run, what happened over seeds, and which measures led."""

import json
from typing import Any

import pandas as pd

SHOWN, MOST_RUNS = 12, 24  # measures, and runs that have a line of their own


def grokking_summary(table: pd.DataFrame) -> str:
    """Dates of every run, delays over seeds, leads; failures are counted."""
    lines = [*_runs(table), *_delays(table), *_leads(table)]
    failed = table[table["status"] == "failed"]
    lines += [f"\n{len(failed)} row(s) failed: {failed['message'].iloc[0]}"] if len(failed) else []
    return "\n".join(lines) if lines else "no run was dated"


def _runs(table: pd.DataFrame) -> list[str]:
    rows = table[(table["label"] == "accuracy") & (table["estimator"] == "threshold")]
    if rows.empty:
        return []
    runs = rows.groupby(["model", "corpus", "seed"], sort=False)
    if len(runs) > MOST_RUNS:
        return [f"\n{len(runs)} runs, each with its dates in the table"]
    shown = []
    for (model, corpus, seed), own in runs:
        found = own.set_index("quantity")
        at = table[(table["quantity"] == "accuracy_at_memorization") & (table["model"] == model)]
        at = at[(at["corpus"] == corpus) & (at["seed"] == seed)]["value"]
        line = {"model": model, "task": corpus, "seed": seed}
        line |= {name: _step(found, f"{name}_step") for name in ("memorization", "generalization")}
        line |= {"delay": _step(found, "delay"), "test acc. then": f"{at.iloc[0]:.2f}" if len(at) else ""}
        verdict = json.loads(str(found.loc["delay", "settings"]))["verdict"] if "delay" in found.index else ""
        shown.append(line | {"verdict": verdict})
    return ["\nsteps to memorize (train) and to generalize (test), [between evaluations]\n", _table(shown)]


def _step(found: pd.DataFrame, quantity: str) -> str:
    if quantity not in found.index:
        return ""
    row: dict[Any, Any] = found.loc[[quantity]].to_dict("records")[0]
    if row["status"] != "ok":
        return f"> {row['lower']:,.0f}" if pd.notna(row["lower"]) else "-"
    return f"{row['value']:,.0f} [{row['ci_low']:,.0f}, {row['ci_high']:,.0f}]"


def _delays(table: pd.DataFrame) -> list[str]:
    rows = table[(table["quantity"] == "delay") & (table["label"] == "over seeds")]
    lines = []
    found = [(json.loads(row["settings"]), row) for row in rows.to_dict("records")]
    for about, row in sorted(found, key=lambda one: (one[0]["width"], one[0]["train_fraction"])):
        at_end = f"test accuracy {about['test_accuracy_at_end']:.3f} at the end"
        value = at_end if pd.isna(row["value"]) else f"delay {row['value']:,.0f} steps"
        if pd.notna(row["ci_low"]):
            value += f" [{row['ci_low']:,.0f}, {row['ci_high']:,.0f}]"
        lines.append(f"{row['model']} · {row['corpus']}: {about['regime']}; {value} over {len(about['seeds'])} seed(s)")
    return ["", *lines] if lines else []


def _leads(table: pd.DataFrame) -> list[str]:
    rows = table[(table["quantity"] == "lead") & table["value"].notna()].sort_values("value")
    lines = []
    for model, own in rows.groupby("model", sort=False):
        shown = [
            {
                "measure": row["label"],
                "doublings": f"{row['value']:+.2f}",
                "from": "" if pd.isna(row["ci_low"]) else f"{row['ci_low']:+.2f}",
                "to": "" if pd.isna(row["ci_high"]) else f"{row['ci_high']:+.2f}",
                "claim": json.loads(row["settings"])["claim"],
            }
            for _, row in own.head(SHOWN).iterrows()
        ]
        title = f"\n{model}: when measures begin to move against the test loss, in doublings of its step"
        more = f" (the first {SHOWN} of {len(own)})" if len(own) > SHOWN else ""
        lines += [title + more + "\n", _table(shown)]
    return lines


def _table(rows: list[dict]) -> str:
    return pd.DataFrame(rows).to_string(index=False)
