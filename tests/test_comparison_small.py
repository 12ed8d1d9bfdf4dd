"""Comparisons of odd data: what cannot be measured is a refused row that says why, and nothing else is lost."""

import json
import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_run import comparison_config, write_model
from tiny_text import some_texts

from infocomp.config import load_config, to_yaml
from infocomp.estimators import Estimate
from infocomp.estimators.jackknife import Refusal
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import read, rows_to_table, to_frame
from infocomp.execution.table import row as table_row
from infocomp.studies.comparison_measures import Rows
from infocomp.studies.comparison_summary import comparison_summary

SITES = ["hook_embed", "blocks.1.hook_resid_post"]
NOTHING = "nothing is told of what changed from base to tuned: no number has an interval in both"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return write_model(folder / "base"), write_model(folder / "tuned", moved=0.05)


def compared(models, tmp_path, lines: list[dict], **settings) -> tuple[pd.DataFrame, str]:
    """The table of base and tuned on these pairs, and what the terminal says; no unit fails."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    small = {"sites": SITES, "similarity": False, "estimator": {"bins": 8, "draws": 1, "orders": [1]}} | settings
    resolved: Any = load_config(comparison_config(models[0], {"tuned": models[1]}, {"likes": path}, **small))
    study = resolved.open(tmp_path / "out")
    study.figures = lambda: []
    outcome, _ = run_study(study, to_yaml(resolved), Silent())
    assert outcome.failed == 0, outcome.messages
    table = read(tmp_path / "out")
    return table, study.summary(table)


def pairs(count: int, prompts: int) -> list[dict]:
    texts = some_texts(3 * count, 12, 1)
    return [
        {"prompt": texts[number % prompts], "chosen": texts[count + number], "rejected": texts[2 * count + number]}
        for number in range(count)
    ]


def rows_of(table: pd.DataFrame, quantity: str, **columns) -> pd.DataFrame:
    found = table[(table["quantity"] == quantity) & (table["model"] == "tuned")]
    found = found[~found["estimator"].fillna("").str.endswith("tuned minus base")]
    for name, value in columns.items():
        found = found[found[name] == value]
    assert len(found), f"no row of {quantity} with {columns}"
    return found


def settings_of(row: pd.Series) -> dict:
    return json.loads(row["settings"])


def test_completions_of_one_token_have_no_curvature_and_lose_nothing_else(models, tmp_path):
    lines = [one | {"chosen": "a", "rejected": "b"} for one in pairs(12, 12)]
    table, _ = compared(models, tmp_path, lines, views=True)
    curvature = rows_of(table, "curvature")
    assert set(curvature["status"]) == {"refused"} and curvature["value"].isna().all()
    assert set(curvature["message"]) == {"not defined: no three consecutive rows that differ."}
    assert (rows_of(table, "probe_accuracy", site=SITES[1])["value"] == 1).all()
    for quantity in ("preference_information", "rankme", "bits_per_byte", "info_nce", "sink_share"):
        assert (rows_of(table, quantity)["status"] == "ok").any(), quantity


def test_fewer_prompts_than_folds_are_a_fold_each(models, tmp_path):
    sections = {"spectra": False, "shepard": False, "curvature": False, "preference": {"flips": 20, "folds": 5}}
    table, said = compared(models, tmp_path, pairs(6, 4), **sections)
    for row in (rows_of(table, "probe_bits", site=site).iloc[0] for site in (*SITES, "control.bag_of_tokens")):
        assert row["status"] == "ok" and settings_of(row)["folds"] == 4
        assert row["message"] == "4 folds, one a prompt: 5 were asked for; no interval: 6 pairs, at least 8 are needed"
    assert said.splitlines()[-1] == NOTHING


def test_pairs_of_one_prompt_have_no_probe_and_every_spectrum_its_own_fit(models, tmp_path):
    table, _ = compared(models, tmp_path, pairs(24, 1))
    for site in (*SITES, "control.bag_of_tokens", "control.length"):
        (message,) = rows_of(table, "probe_accuracy", site=site, status="refused")["message"]
        assert message == (
            f"probe_accuracy at {site}: all pairs have one prompt, and a probe is scored on prompts that it did not "
            "learn from."
        )
    assert (rows_of(table, "preference_information")["status"] == "ok").all()
    fits = {}
    for name in ("all", "sample", "last"):
        (law,) = (row for _, row in rows_of(table, "alpha_req", rows=name, site=SITES[1]).iterrows())
        about = settings_of(law)
        fits[name] = (about["r2"], about["r2_100"])
        ranks = f"ranks {about['rank_from']} to {about['rank_to']}"
        assert law["message"].startswith(f"{ranks}, r2 {about['r2']:.4f}, up to rank 100 {about['r2_100']:.4f}")
    assert len(set(fits.values())) == 3


# --- one measure that fails -------------------------------------------------------------------------------------------


def test_odd_data_refuse_one_measure_and_errors_of_programs_or_machines_are_raised(caplog):
    found = Rows({}, "likes")
    with caplog.at_level(logging.WARNING), found.refusing("lidar", "count", "hook_embed", "halves", "views"):
        raise Refusal("two documents are too few")
    assert not caplog.text, "what is expected is no warning"
    with caplog.at_level(logging.WARNING), found.refusing("dime", "bits", "hook_embed", "halves", "views", label="x"):
        raise ValueError("rows that\n are odd.")
    assert "likes: refused, dime at hook_embed: rows that are odd." in caplog.text
    told = [[one[name] for name in ("quantity", "site", "label", "status", "message", "value")] for one in found.rows]
    assert told == [
        ["lidar", "hook_embed", "", "refused", "lidar at hook_embed: two documents are too few.", None],
        ["dime", "hook_embed", "x", "refused", "dime at hook_embed: rows that are odd.", None],
    ]
    for one in found.rows:
        table_row(**one)
    for error in (MemoryError, OSError, KeyboardInterrupt, TypeError, KeyError, RuntimeError):
        with pytest.raises(error), found.refusing("dime", "bits", "hook_embed", "halves", "views"):
            raise error
    assert len(found.rows) == 2


def test_a_number_that_is_not_finite_is_refused_and_not_stored_as_known():
    found = Rows({}, "likes")
    made = [
        Estimate("rankme", math.nan, "count", 9),
        Estimate("rankme", 3.0, "count", 9, label="x", interval=(2.0, math.inf), influence={"value": np.ones(9)}),
        Estimate("rankme", 3.0, "count", 9, label="y"),
    ]
    found.add(made, "hook_embed", "all", "spectrum")
    assert [one["status"] for one in found.rows] == ["refused", "refused", "ok"] and not found.influence
    messages = [one["message"] for one in found.rows[:2]]
    assert messages == ["not defined: value not finite", "not defined: ci_high not finite"]


# --- the summary ------------------------------------------------------------------------------------------------------


def summarised(*rows: dict) -> str:
    about = {"settings": {"role": "tuned", "place": 1, "base": "base"}, "draw": "mean", "seed": 0}
    return comparison_summary(to_frame(rows_to_table([about | row for row in rows])))


def test_the_summary_counts_the_units_that_failed_and_says_where_the_reason_stands():
    failed = [
        {"model": "tuned", "revision": f"step{step}", "corpus": "likes", "status": "failed", "message": "broken"}
        for step in range(6)
    ]
    ok = {"model": "tuned", "revision": "main", "corpus": "likes", "status": "ok"}
    kl = ok | {"quantity": "kl", "unit": "bits", "value": 0.5, "site": "logits", "estimator": "next token"}
    rate = ok | {"quantity": "bits_per_byte", "unit": "bits/byte", "value": 1.5, "site": "logits"}
    four = "likes tuned step0; likes tuned step1; likes tuned step2; likes tuned step3"
    why = "the table's rows of status 'failed' say why; the same command tries them again"
    last = f"6 units failed ({four} and 2 more): {why}"
    assert summarised(*failed).splitlines() == ["nothing was measured", "", last]
    assert summarised(kl, *failed).splitlines() == [NOTHING, "", last], "no line of a model without a number"
    found = summarised(kl, rate | {"estimator": "code_length"}, {**failed[0], "model": ""}).splitlines()
    assert found[-1] == f"1 unit failed (likes step0): {why}" and any("1.500" in line for line in found)
