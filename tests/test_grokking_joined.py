"""Delays, regimes and leads over seeds from rows made by hand, and the published phases read off a table."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infocomp.studies.grokking_joined import joined_rows, measure_name

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from published_phases import ends, phases

EMPTY = dict.fromkeys(("revision", "site", "label", "rows", "estimator"), "") | {"status": "ok", "lower": None}
STEPS = [0, 30, 40, 60, 90, 130, 200, 300, 450, 700, 1000]


def run_rows(seed: int, delay: float | None, verdict: str, dated: bool, control: bool = False, **series) -> list[dict]:
    """The rows of one run that joining reads: dates, last accuracy, and values of measures at STEPS."""
    settings = {"control": control, "group": "g", "width": 8, "train_fraction": 0.4}
    about = EMPTY | {"model": "m wd 0" if control else "m wd 1", "corpus": "c", "seed": seed, "step": None}
    text = json.dumps(settings | {"verdict": verdict, "dated": dated})
    rows = []
    values = {"memorization_step": 40.0, "generalization_step": None if delay is None else 40 + delay, "delay": delay}
    for quantity, value in values.items():
        lower = 960.0 if value is None else None
        row = about | {"quantity": quantity, "label": "accuracy", "estimator": "threshold", "settings": text}
        rows.append(row | {"value": value, "lower": lower, "status": "ok" if lower is None else "undetermined"})
    last = about | {"quantity": "accuracy", "rows": "test", "revision": "step1000", "step": 1000, "settings": text}
    rows.append(last | {"value": 1.0 if delay is not None else 0.25})
    for name, levels in series.items():
        label = {"label": "at the state", "site": "logits", "rows": "test"} if name == "loss" else {}
        for step, value in zip(STEPS, levels, strict=True):
            at = {"quantity": name, "revision": f"step{step}", "step": step, "value": value, "settings": text}
            rows.append(about | at | label)
    return rows


def found(rows: list[dict], quantity: str, label: str | None = None) -> list[dict]:
    return [row for row in joined_rows(rows) if row["quantity"] == quantity and label in (None, row["label"])]


def falls_from(step: int, low: float = 0.0) -> list[float]:
    """1 up to a step, then straight down to the end's level in log step."""
    places = np.log([max(one, step) / step for one in STEPS])
    return (1 - (1 - low) * places / places[-1]).tolist()


FLAT = [1.0] * len(STEPS)


def test_the_mean_delay_has_its_t_interval_over_seeds():
    rows = [row for seed, delay in enumerate((300, 400, 500)) for row in run_rows(seed, delay, "grokking", True)]
    (row,) = found(rows, "delay", "over seeds")
    assert row["value"] == 400 and row["std_error"] == pytest.approx(100 / np.sqrt(3))
    assert row["ci_high"] - 400 == pytest.approx(4.3027 * 100 / np.sqrt(3), rel=1e-4)
    assert row["settings"]["regime"] == "grokking" and row["settings"]["generalized"] == 3


def test_a_seed_that_never_generalized_leaves_a_lower_bound_and_no_interval():
    rows = run_rows(0, 300, "grokking", True) + run_rows(1, None, "never generalizes", False)
    (row,) = found(rows, "delay", "over seeds")
    assert "value" not in row and row["lower"] == (300 + 960) / 2 and row["status"] == "undetermined"
    assert row["message"].startswith("1 of 2 generalized; test accuracy 0.625")


@pytest.mark.parametrize(
    ("verdict", "dated", "regime"),
    [
        ("grokking", True, "grokking"),
        ("collapses", True, "grokking"),
        ("collapses", False, "collapses"),
        ("together", False, "immediate"),
        ("never memorizes", False, "under capacity"),
        ("never generalizes", False, "memorizes only"),
    ],
)
def test_regimes_follow_the_verdict_and_whether_it_was_delayed(verdict, dated, regime):
    (row,) = found(run_rows(0, 100.0, verdict, dated), "delay", "over seeds")
    assert row["settings"]["regime"] == regime


def of_three(measure: list[float], control: list[float]) -> list[dict]:
    """Three runs whose test loss falls from step 200 on, with their controls."""
    rows = []
    for seed in range(3):
        rows += run_rows(seed, 500, "grokking", True, weight_norm=measure, loss=falls_from(200))
        rows += run_rows(seed, None, "never generalizes", False, True, weight_norm=control, loss=FLAT)
    return rows


def test_what_falls_before_the_test_loss_leads():
    (row,) = found(of_three(falls_from(60), FLAT), "lead", "weight_norm")
    assert row["settings"]["claim"] == "leads" and row["value"] < -1 and row["ci_high"] < 0
    assert row["settings"]["reference"] == "test loss"


def test_what_falls_with_the_test_loss_does_not_lead_however_long_before_generalization():
    rows = of_three(falls_from(200), FLAT)
    (row,) = found(rows, "lead", "weight_norm")
    assert row["settings"]["claim"] == "moves with it" and row["value"] == 0
    (before,) = found(rows, "onset_before_generalization", "weight_norm")
    assert before["value"] < -0.5


def test_what_falls_in_the_control_as_well_does_not_lead():
    (row,) = found(of_three(falls_from(60), falls_from(60)), "lead", "weight_norm")
    assert row["settings"]["claim"] == "moves in the control too"
    (row,) = found(of_three(falls_from(60), falls_from(60, low=2.0)), "lead", "weight_norm")
    assert row["settings"]["claim"] == "leads", "a control that rises shows another movement"


def test_names_of_measures_tell_them_apart():
    row = EMPTY | {"quantity": "restricted_loss", "site": "logits", "rows": "test", "label": "test pairs alone"}
    assert measure_name(row) == "restricted_loss · logits · test pairs alone · test"
    soft = EMPTY | {"quantity": "expressivity", "site": "logits", "rows": "test", "label": "answer"}
    assert measure_name(soft | {"estimator": "soft"}) == "expressivity · logits · test"


def phase_table(shift: float) -> pd.DataFrame:
    """Five seeds whose phases end near 1,400, 9,400 and 14,000 times `shift`."""
    rows = []
    for seed in range(5):
        scale = shift * (1 + 0.02 * seed)
        for step in np.geomspace(100, 30_000, 24):
            excluded = abs(np.log(step / (1_400 * scale)))
            rows.append({"seed": seed, "quantity": "excluded_loss", "rows": "train", "step": step, "value": excluded})
        for step in np.arange(0, 30_000, 100.0):
            loss = 20 / (1 + (step / (9_400 * scale)) ** 16)
            rows.append({"seed": seed, "quantity": "loss", "rows": "test", "step": step, "value": loss, "label": ""})
        crossing = {"quantity": "generalization_step", "estimator": "threshold", "label": "loss"}
        rows.append({"seed": seed, "value": 14_000 * scale} | crossing)
    return pd.DataFrame(rows).assign(status="ok")


def test_published_phases_lie_in_the_widened_range_of_runs_like_them():
    found = phases(phase_table(0.9)).set_index("phase")
    assert found["inside"].all() and (found["reached"] == 5).all()
    assert found.loc["memorization", "least"] == pytest.approx(1_260, rel=0.05)
    assert found.loc["circuit formation", "greatest"] == pytest.approx(9_400 * 0.9 * 1.08, rel=0.02)


def test_published_phases_lie_outside_the_range_of_runs_half_as_long():
    assert not phases(phase_table(0.5))["inside"].any()


def test_a_phase_that_was_not_reached_has_no_end():
    table = phase_table(1.0)
    table.loc[(table["quantity"] == "generalization_step") & (table["seed"] == 0), "value"] = np.nan
    assert ends(table[table["seed"] == 0])["cleanup"] is None
    assert phases(table).set_index("phase").loc["cleanup", "reached"] == 4
