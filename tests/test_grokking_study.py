"""The study from nothing to figures on a square model that groks in a second, and what else runs over its states."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infocomp.config import load_config
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import read
from infocomp.grokking.answer_information import answer_information
from infocomp.grokking.curve_files import read_curves
from infocomp.grokking.transition import Thresholds, date_transition
from infocomp.studies.grokking import Grokking
from infocomp.studies.grokking_measures import load_state
from infocomp.training.workers import WorkerPool
from infocomp.units import BITS_PER_NAT

SETTINGS = {
    "study": "grokking",
    "task": {"operation": "addition", "modulus": 31, "train_fraction": 0.5},
    "models": [{"kind": "quadratic_mlp", "width": 128}],
    "training": {
        "steps": 400,
        "learning_rate": 0.02,
        "weight_decay": 1.5,
        "keep": {"first": 20, "ratio": 2.2, "events": 2},
    },
    "seeds": [0, 1],
    "dating": {"test_accuracy": 0.9},
    "measures": {"mapping": {"points": 12}, "information": {"bins": 20, "draws": 2}},
    "compute": {"way": "in_turn", "workers": 1},
}


def opened(out: Path, **changes) -> Grokking:
    return load_config(SETTINGS | changes).open(out)  # type: ignore[attr-defined]


def ran(out: Path, figures: bool = False, **changes):
    study = opened(out, **changes)
    if not figures:  # they take longer than all else
        study.figures = list  # type: ignore[method-assign]
    return run_study(study, json.dumps(SETTINGS | changes), Silent())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("grokking")
    outcome, figures = ran(out, figures=True)
    assert not outcome.failed and not outcome.stopped, outcome.messages
    assert {path.stem for path in figures} >= {"grokking_curves", "grokking_progress", "grokking_plane"}
    return out


@pytest.fixture(scope="module")
def table(folder) -> pd.DataFrame:
    return read(folder)


def of(table: pd.DataFrame, **columns) -> pd.DataFrame:
    for name, value in columns.items():
        table = table[table[name] == value]
    return table


def test_treated_runs_generalize_after_a_delay_and_controls_never(table):
    dates = of(table, quantity="generalization_step", estimator="threshold", label="accuracy")
    treated, control = (dates[dates["model"].str.endswith(tail)] for tail in ("wd 1.5", "wd 0"))
    assert len(treated) == len(control) == 2
    assert (treated["status"] == "ok").all() and (treated["ci_low"] < treated["value"]).all()
    assert (control["status"] == "undetermined").all() and set(control["message"]) == {"not by step 400"}
    assert control["value"].isna().all() and set(control["lower"]) == {400.0}
    delays = of(table, quantity="delay", label="over seeds").set_index("model")
    assert json.loads(delays.loc["quadratic_mlp 128 wd 1.5", "settings"])["regime"] == "grokking"
    assert json.loads(delays.loc["quadratic_mlp 128 wd 0", "settings"])["regime"] == "memorizes only"
    assert delays.loc["quadratic_mlp 128 wd 1.5", "ci_low"] <= delays.loc["quadratic_mlp 128 wd 1.5", "value"]


def test_the_curves_of_a_run_are_a_file_that_gives_the_same_date(folder, table):
    study = opened(folder)
    for run in study.runs:
        curves = read_curves(folder / "curves" / f"{run.name}.csv")
        assert len(curves) == 41
        found = date_transition(curves, Thresholds(test_accuracy=0.9), by="accuracy")
        row = of(table, quantity="memorization_step", estimator="threshold", label="accuracy", model=run.model)
        assert of(row, seed=run.recipe.seed)["value"].iloc[0] == found.memorization.step


def test_losses_are_bits_and_accuracies_are_of_their_side(folder, table):
    study = opened(folder)
    run = study.runs[0]
    state = load_state(study.folder(run) / "checkpoints" / "step400")
    for side, rows in (("train", run.recipe.split.train), ("test", run.recipe.split.test)):
        left, right, answer = run.recipe.rows(rows)
        with torch.no_grad():
            logits = state.answer_logits(left, right).double()
        nats = float(-torch.log_softmax(logits, -1)[range(len(rows)), answer].mean())
        own = of(table, model=run.model, seed=run.recipe.seed, revision="step400", rows=side, site="logits")
        assert of(own, quantity="loss")["value"].iloc[0] == pytest.approx(nats * BITS_PER_NAT, rel=1e-4)
        right_ones = float((logits.argmax(-1) == answer).double().mean())
        assert of(own, quantity="accuracy")["value"].iloc[0] == pytest.approx(right_ones)


def test_every_state_has_every_measure(folder, table):
    study = opened(folder)
    for run in study.runs:
        steps = set(run.states(study.folder(run)))
        assert {0, 20, 400} < steps and len(steps) <= 25
        own = of(table, model=run.model, seed=run.recipe.seed)
        for quantity in (
            *("restricted_loss", "excluded_loss", "fourier_gini", "weight_norm", "effective_rank", "description_bits"),
            *("linear_mapping_number", "synergy", "context_complexity", "expressivity"),
        ):
            assert set(of(own, quantity=quantity)["step"]) == steps, quantity


def test_informations_are_those_of_the_state_and_keep_the_bound(folder, table):
    study = opened(folder)
    run = study.runs[0]
    state = load_state(study.folder(run) / "checkpoints" / "step400")
    task = run.recipe.task
    with torch.no_grad():
        activations = state.answer_activations(torch.from_numpy(task.left), torch.from_numpy(task.right))
    found = answer_information(
        {"logits": activations["logits"]}, {"answer": task.answer}, {"test": run.recipe.split.test}, bins=20, draws=2
    )
    expected = {one.estimate.quantity: one.estimate for one in found}
    own = of(table, model=run.model, seed=run.recipe.seed, revision="step400", rows="test", estimator="soft")
    row = of(own, site="logits", quantity="expressivity", label="answer").iloc[0]
    assert row["value"] == pytest.approx(expected["expressivity"].value, rel=1e-6)
    assert row["null"] == pytest.approx(expected["expressivity"].null, rel=1e-6)
    soft = of(table, estimator="soft")
    joined = of(soft, quantity="expressivity").merge(
        of(soft, quantity="context_complexity"), on=["model", "seed", "step", "site", "rows"]
    )
    assert (joined["value_x"] <= joined["value_y"] + 1e-9).all()
    assert (joined["value_x"] <= np.log2(31) + 1e-9).all()


def test_generalizing_leaves_the_test_inputs_informed_of_their_answer_and_the_control_not(table):
    last = of(table, quantity="expressivity", label="answer", rows="test", site="logits", revision="step400")
    excess = (last["value"] - last["null"]).groupby(last["model"]).mean()
    assert excess["quadratic_mlp 128 wd 1.5"] > excess["quadratic_mlp 128 wd 0"] + 0.2


def test_leads_are_counted_from_the_test_loss_which_does_not_lead_itself(table):
    leads = of(table, quantity="lead").set_index("label")
    assert len(leads) > 15 and set(leads["model"]) == {"quadratic_mlp 128 wd 1.5"}
    own = leads.loc["loss · logits · at the state · test"]
    assert own["value"] == 0 and json.loads(own["settings"])["claim"] == "reference"
    before = of(table, quantity="onset_before_generalization").set_index("label")["value"]
    assert before["loss · logits · at the state · test"] < -1, "it begins to fall long before it is down"


def test_a_control_is_asked_for_the_frequencies_of_what_it_controls(folder, table):
    study = opened(folder)
    jobs = study.jobs(study.runs)
    for job in jobs:
        source = study.folder(next(run for run in study.runs if run.name == job.keys_of))
        assert job.last == source / "checkpoints" / "step400"
        assert job.keys_of.startswith("addition-mod-31-0.5-quadratic-mlp-128-wd-1.5-")
    chosen = of(table, quantity="excluded_loss", revision="step400")
    keys = {(row.model, row.seed): json.loads(row.settings)["key_frequencies"] for row in chosen.itertuples()}
    assert all(keys["quadratic_mlp 128 wd 0", seed] == keys["quadratic_mlp 128 wd 1.5", seed] for seed in (0, 1))


def test_running_again_does_nothing_again(folder):
    outcome, _ = ran(folder)
    assert outcome.done == 0 and outcome.skipped > 20


def test_states_that_were_deleted_are_made_again(folder, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(folder, out)
    study = opened(out)
    run = study.runs[0]
    events = set(run.states(study.folder(run))) - set(run.recipe.settings.checkpoints.steps(400))
    gone = [study.folder(run) / "checkpoints" / f"step{step}" for step in (400, min(events))]
    files = [out / "curves" / f"{run.name}.csv", out / "pairs" / f"{run.name}-test.jsonl"]
    before = [(path / "model.safetensors").read_bytes() for path in gone], [path.read_bytes() for path in files]
    for path in gone:
        shutil.rmtree(path)
    for path in files:
        path.unlink()
    outcome, _ = ran(out)
    assert outcome.done == 0
    after = [(path / "model.safetensors").read_bytes() for path in gone], [path.read_bytes() for path in files]
    assert before == after


def test_a_measure_that_fails_is_a_row_and_the_others_stand(tmp_path):
    changes = {
        "seeds": [0],
        "control": False,
        "training": {"steps": 20, "learning_rate": 0.02, "keep": {"first": 10, "ratio": 2.0}},
        "measures": {"mapping": None, "information": None, "complexity": {"epsilon": 1e-300}, "synergy": False},
    }
    outcome, _ = ran(tmp_path, **changes)
    table = read(tmp_path)
    failed = of(table, quantity="description_bits")
    assert len(failed) == 3 and set(failed["status"]) == {"failed"} and failed["message"].str.contains("1e-300").all()
    assert (of(table, quantity="weight_norm")["status"] == "ok").all() and not outcome.failed


def test_measures_by_a_worker_process_are_the_same(folder):
    study = opened(folder)
    job = study.jobs(study.runs[:1])[-1]
    pool = WorkerPool({"state": (job, job.folder)}, 1)
    try:
        found = pool.result("state")
    finally:
        pool.close()
    names = ("quantity", "site", "label", "rows", "value", "status")
    here, there = ([[row.get(name) for name in names] for row in rows] for rows in (job.work(), found))
    assert here == there and len(here) > 40


def test_a_state_that_cannot_be_read_is_a_failure_of_its_own(folder, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(folder, out)
    shutil.rmtree(out / "parts")
    (opened(out).jobs(opened(out).runs[:1])[1].folder / "model.safetensors").write_bytes(b"no weights")
    outcome, _ = ran(out, measures=SETTINGS["measures"] | {"mapping": None, "complexity": None, "synergy": False})
    assert outcome.failed == 1 and outcome.done > 20


def test_an_information_plane_runs_over_the_states_unchanged(folder, tmp_path):
    study = opened(folder)
    run = study.runs[0]
    settings = {
        "study": "information_plane",
        "model": {"source": "folder", "path": str(study.folder(run) / "checkpoints"), "name": "square"},
        "corpora": [
            {
                "name": "test pairs",
                "text": {"files": str(folder / "pairs" / f"{run.name}-test.jsonl"), "in_training": "no"},
                "context_length": 3,
                "skip_first": 0,
            }
        ],
        "estimator": {"bins": 20, "draws": 1, "orders": [1]},
        "compute": {"threads": 1},
    }
    settings["model"]["revisions"] = ["step0", "step400"]
    plane = load_config(settings).open(tmp_path)  # type: ignore[attr-defined]
    plane.figures = list
    outcome, _ = run_study(plane, json.dumps(settings), Silent())
    assert not outcome.failed, outcome.messages
    found = of(read(tmp_path), quantity="context_complexity", draw="mean")
    assert set(found["revision"]) >= {"step0", "step400"} and (found["value"] > 0).all()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": {"operation": "division", "modulus": 15}}, "division modulo 15 needs a field"),
        ({"task": {"modulus": 31, "train_fraction": 1.0}}, "train_fraction must lie between 0 and 1"),
        ({"task": {"modulus": 31, "train_fraction": 0}}, "train_fraction must lie between 0 and 1"),
        ({"seeds": [1, 1]}, "seeds hold one twice: 1, 1"),
        ({"training": {"steps": 10, "keep": None}}, "measures need states that are kept"),
        ({"models": [{"width": 8}, {"width": 8, "heads": 2}]}, "models hold two that the table could not tell apart"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence_before_anything_runs(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        opened(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_is_a_failed_row_and_the_others_go_on(tmp_path):
    training = {"steps": 60, "learning_rate": 0.02, "keep": None, "warmup_steps": 0}
    changes = {"training": training, "measures": None, "seeds": [0], "control": False}
    outcome, _ = ran(tmp_path, **changes, learning_rates=[0.02, 1e30])
    assert outcome.failed >= 1
    table = read(tmp_path)
    failed = table[table["status"] == "failed"]
    assert "lower the learning rate" in failed["message"].iloc[0]
    assert (of(table, quantity="accuracy", status="ok")["model"] == "quadratic_mlp 128 lr 0.02 wd 1").any()


# --- what a person reads ----------------------------------------------------------------------------------------------


def test_the_summary_tells_dates_regimes_and_leads(folder, table):
    text = opened(folder).summary(table)
    assert "> 400" in text and "never generalizes" in text  # the controls
    assert "quadratic_mlp 128 wd 1.5 · addition mod 31, 50 %: grokking; delay" in text
    assert "against the test loss, in doublings of its step" in text and "reference" in text


def test_the_plan_counts_trainings_and_states_and_times_them(tmp_path, folder):
    plan = opened(tmp_path, models=[{"kind": "quadratic_mlp", "width": 16}]).plan(Silent())
    assert (plan.trainings, plan.done) == (4, 0) and plan.states >= 4 * 6
    assert 0 < plan.training_seconds < 60 and plan.measuring_seconds > 0
    assert "trainings   4 (0 done), 1 at a time" in plan.text()
    assert opened(folder).plan(Silent()).done == 4
