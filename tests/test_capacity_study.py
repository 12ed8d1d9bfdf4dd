"""The study `capacity` end to end on models of a thousand parameters: rows by hand, failures, kills, bad input."""

import json
import math
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_kill_and_resume import comparable, start, wait
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.execution.runner import Outcome
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import KEY, read
from infocomp.studies.commands import open_study
from infocomp.training.small_gpt import GPTSettings, parameter_counts

STEPS, V, S, WIDTHS = 120, 8, 8, (8, 12)
CONFIG = {
    "study": "capacity",
    "models": [{"width": width} for width in WIDTHS],
    "data": {"vocabulary": V, "length": S, "load": [0.1], "plateau_load": 6},
    "seeds": [0, 1],
    "training": {"steps": STEPS, "batch": 128, "learning_rate": 0.05},
    "compute": {"way": "in_turn", "threads": 1, "device": "cpu"},
}
PARAMETERS = {width: 12 * width**2 + 15 * width + (V + 1 + S) * width for width in WIDTHS}
ROWS = {f"gpt2 1x{width}": {load: round(load * PARAMETERS[width] / 24) for load in (0.1, 6)} for width in WIDTHS}


class Watched(Silent):
    """What was told of progress."""

    def __init__(self) -> None:
        self.total, self.made, self.notes = 0, 0, []

    def begin(self, title: str, total: int, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.made += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


def changed(**changes) -> dict:
    """The configuration with groups merged and lists replaced."""
    found = json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        found[name] = found[name] | value if isinstance(value, dict) and isinstance(found.get(name), dict) else value
    return found


def run(config: dict, out: Path) -> tuple[Outcome, Watched]:
    study, text = open_study(config, [], out)
    study.figures = list
    watched = Watched()
    outcome, _ = run_study(study, text, watched)
    return outcome, watched


def one(table: pd.DataFrame, **where) -> pd.Series:
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, where
    return table.iloc[0]


def settings(row: pd.Series) -> dict:
    return json.loads(row["settings"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Outcome, Watched]:
    out = tmp_path_factory.mktemp("capacity") / "out"
    return out, *run(CONFIG, out)


@pytest.fixture(scope="module")
def out(finished) -> Path:
    return finished[0]


@pytest.fixture(scope="module")
def table(out) -> pd.DataFrame:
    return read(out)


def kept(out: Path, row: pd.Series) -> dict[str, np.ndarray]:
    """The arrays of the training that a row is about."""
    with np.load(out / "training" / row["unit_name"] / "result.npz") as found:
        return {name: found[name] for name in found.files}


# --- rows of a run ----------------------------------------------------------------------------------------------------


def test_everything_is_trained_once_and_told(finished, table):
    _, outcome, watched = finished
    assert (outcome.exit_code, outcome.done, outcome.failed) == (0, 2 * 4 + 1, 0), outcome.messages
    assert watched.made == watched.total == 2 * (3 * STEPS + 2 * STEPS)
    assert len(table) == 2 * (4 * 3 + 4) + 2 and not table.duplicated(list(KEY)).any()
    assert (table["status"] == "ok").all() and (table["site"] == "logits").all()
    assert (table["draw"] == "mean").all() and (table["estimator"] == "code_length").all()
    assert set(table["unit"]) == {"bits", "ratio", "bits/parameter"}


def test_runs_are_named_by_model_data_seed_and_steps(table):
    runs = table[table["quantity"].isin(["unintended_bits", "extraction_rate"])]
    for model, counts in ROWS.items():
        own = runs[(runs["model"] == model) & (runs["quantity"] == "extraction_rate")]
        found = {(row["corpus"], row["label"], row["seed"], row["step"]) for _, row in own.iterrows()}
        few, many = (f"random V{V} S{S} N{counts[load]}" for load in (0.1, 6))
        assert found == {
            (few, "", 0, STEPS),
            (many, "", 0, STEPS),
            (many, "", 1, STEPS),
            (many, f"steps {2 * STEPS}", 0, 2 * STEPS),
        }


def test_numbers_of_a_run_are_those_of_its_code_lengths(out, table):
    runs = table[(table["quantity"] == "memorized_bits") & (table["label"] != "plateau")]
    assert len(runs) == 8
    for _, row in runs.iterrows():
        arrays, n = kept(out, row), int(row["n_documents"])
        members, fresh = (arrays[f"{name}_nats"] / math.log(2) for name in ("train", "held_out"))
        assert len(members) == n == len(fresh) and row["n_tokens"] == n * S
        assert row["value"] == pytest.approx(n * S * 3 - members.sum())
        assert row["null"] == pytest.approx(n * S * 3 - fresh.sum()) and row["null"] < 0
        assert row["ceiling"] == pytest.approx(n * (S * 3 - math.log2(n))), "8^8 sequences: these are distinct"
        assert row["efficiency"] == pytest.approx(row["value"] / row["ceiling"])
        of_run = table[(table["unit_name"] == row["unit_name"])]
        clipped = one(of_run, quantity="unintended_bits")
        assert clipped["value"] == pytest.approx(np.maximum(S * 3 - members, 0).sum())
        assert clipped["null"] == pytest.approx(np.maximum(S * 3 - fresh, 0).sum())
        emitted = one(of_run, quantity="extraction_rate")
        assert emitted["value"] == arrays["train_extracted"].mean() and emitted["ceiling"] == 1
        assert emitted["null"] == arrays["held_out_extracted"].mean()
        about = settings(row)
        width = about["width"]
        assert about["parameters"] == PARAMETERS[width] and about["sequences"] == n and about["data_bits"] == n * 24
        assert about["parameters_outside_embedding"] == 12 * width**2 + 15 * width
        assert about["on_plateau"] == (n > 100) and about["steps"] == row["step"] and about["learning_rate"] == 0.05
        named = {"layers": 1, "heads": 1, "vocabulary": V, "length": S, "batch": 128, "precision": "float32"}
        assert named.items() <= about.items()


def test_with_few_data_all_that_can_be_stored_is_stored(table):
    runs = table[(table["quantity"] == "memorized_bits") & (table["n_documents"] < 100)]
    assert len(runs) == 2
    for _, row in runs.iterrows():
        assert 0.99 < row["efficiency"] < 1.0 + 1e-9, "within 1 % of the ceiling, and never over it"
        assert pd.isna(row["message"]), "at its ceiling, a run has no need of more steps"
        emitted = one(table, unit_name=row["unit_name"], quantity="extraction_rate")
        assert emitted["value"] > 0.8 and emitted["null"] < 0.2


def test_no_run_stores_more_than_its_ceiling(table):
    assert (table["efficiency"].dropna() <= 1).all() and table["efficiency"].notna().sum() == 8


# --- plateaus and slopes ----------------------------------------------------------------------------------------------


def filling(table: pd.DataFrame, model: str) -> pd.DataFrame:
    corpus = f"random V{V} S{S} N{ROWS[model][6]}"
    rows = table[(table["model"] == model) & (table["corpus"] == corpus) & (table["label"] == "")]
    return rows[rows["quantity"] == "memorized_bits"].sort_values("seed")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plateau_is_the_mean_over_seeds_with_its_interval(table, width):
    model = f"gpt2 1x{width}"
    stored = filling(table, model)["value"].to_numpy()
    assert len(stored) == 2
    error = abs(stored[0] - stored[1]) / 2
    half = float(stats.t.ppf(0.975, 1)) * error
    own = table[(table["model"] == model) & (table["corpus"] == f"random V{V} S{S}")]
    counts = parameter_counts(GPTSettings(width=width, vocabulary=V, length=S))
    for quantity, label, unit, by in (
        ("memorized_bits", "plateau", "bits", 1),
        ("bits_per_parameter", "all parameters", "bits/parameter", counts.total),
        ("bits_per_parameter", "outside the embedding", "bits/parameter", counts.outside_embedding),
    ):
        row = one(own, quantity=quantity, label=label)
        assert row["unit"] == unit and pd.isna(row["seed"]) and row["value"] == pytest.approx(stored.mean() / by)
        assert row["std_error"] == pytest.approx(error / by)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(
            ((stored.mean() - half) / by, (stored.mean() + half) / by)
        )
        assert settings(row)["seeds"] == [0, 1] and settings(row)["parameters"] == counts.total


@pytest.mark.parametrize("width", WIDTHS)
def test_what_twice_the_steps_add_is_said_of_every_number_that_follows(table, width):
    model = f"gpt2 1x{width}"
    first = filling(table, model).iloc[0]
    runs = table[(table["model"] == model) & (table["quantity"] == "memorized_bits")]
    twice = one(runs, label=f"steps {2 * STEPS}")
    gain = twice["value"] / first["value"] - 1
    assert gain > 0.02, "a few hundred steps are not enough, and the rows must say so"
    row = one(table, model=model, quantity="saturation_gain")
    assert row["value"] == pytest.approx(gain) and row["unit"] == "ratio" and row["null"] == 0
    sentence = f"lower bound at this budget: twice the steps add {100 * gain:.1f} %"
    rates = table[(table["model"] == model) & (table["quantity"] == "bits_per_parameter")]
    assert list(rates["message"]) == [sentence] * 2 and settings(rates.iloc[0])["doubling_gain"] == pytest.approx(gain)
    assert one(runs, label="plateau")["message"] == sentence
    assert first["message"].startswith("lower bound at this budget")


def test_the_slope_is_the_line_over_the_sizes_that_were_filled(table):
    for label in ("all parameters", "outside the embedding"):
        row = one(table, quantity="capacity_slope", label=label)
        key = "parameters" if label == "all parameters" else "parameters_outside_embedding"
        runs = pd.concat([filling(table, model) for model in ROWS])
        x = np.array([settings(run)[key] for _, run in runs.iterrows()])
        slope, intercept = np.polyfit(x, runs["value"].to_numpy(), 1)
        assert row["value"] == pytest.approx(slope) and row["model"] == "gpt2" and row["unit"] == "bits/parameter"
        assert row["corpus"] == f"random V{V} S{S}" and np.isnan(row["ci_low"]), "two sizes leave no interval"
        about = settings(row)
        assert about["intercept"] == pytest.approx(intercept) and (about["models"], about["runs"]) == (2, 4)
        assert about["seed_error"] > 0 and about["r_squared"] == pytest.approx(1.0)
        assert row["message"].startswith("lower bound at this budget, as 2 of 2 models are: twice the steps add")


def test_the_terminal_shows_capacities_slopes_and_what_was_not_reached(out, table):
    text = open_study(CONFIG, [], out)[0].summary(table)
    for word in ("gpt2 1x8", "outside the embedding", "slope of bits over parameters", "lower bound at this budget"):
        assert word in text


# --- again, killed, failed --------------------------------------------------------------------------------------------


def files(out: Path) -> dict[Path, int]:
    found = [*out.glob("training/**/*"), *out.glob("parts/*.parquet")]
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def test_a_second_run_trains_nothing(finished, table):
    out = finished[0]
    before = files(out)
    outcome, watched = run(CONFIG, out)
    assert (outcome.done, outcome.skipped) == (0, 9) and watched.total == watched.made == 0
    assert files(out) == before
    pd.testing.assert_frame_equal(read(out), table)


def test_rows_that_were_lost_are_made_from_what_was_trained(tmp_path, finished, table):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    lost = filling(table, "gpt2 1x8").iloc[0]["unit_name"]
    (out / "parts" / f"{lost}.parquet").unlink()
    trained = {path.relative_to(out): when for path, when in files(out).items() if "training" in path.parts}
    outcome, watched = run(CONFIG, out)
    assert (outcome.done, outcome.skipped) == (1, 8) and watched.made == watched.total == STEPS
    now = {path.relative_to(out): when for path, when in files(out).items() if "training" in path.parts}
    assert now == trained, "no step was made again"
    pd.testing.assert_frame_equal(comparable(out), comparable(finished[0]), check_exact=True)


def test_another_seed_or_size_trains_that_alone(tmp_path, finished):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    outcome, watched = run(changed(seeds=[0, 1, 2], models=[{"width": 8}]), out)
    assert (outcome.done, outcome.skipped) == (2, 4) and watched.total == watched.made == STEPS
    own = read(out)
    assert settings(one(own, quantity="memorized_bits", label="plateau"))["seeds"] == [0, 1, 2]
    assert own[own["quantity"] == "capacity_slope"].empty, "one size makes no line"


def test_killed_and_resumed_it_trains_only_what_is_missing(tmp_path, finished):
    """The kill falls into a write, whichever it is; what comes out is the same in every column but two."""
    child = start(CONFIG, tmp_path / "out", die_at_replace=30)
    assert wait(child, 200) == -signal.SIGKILL
    done = len(list((tmp_path / "out" / "training").glob("*/result.npz")))
    before = {path: when for path, when in files(tmp_path / "out").items() if path.name == "result.npz"}
    parts = len([path for path in files(tmp_path / "out") if path.parent.name == "parts"])
    assert 0 < done < 8
    outcome, watched = run(CONFIG, tmp_path / "out")
    assert outcome.exit_code == 0 and outcome.skipped == parts >= done - 1 and watched.made == watched.total
    assert before.items() <= files(tmp_path / "out").items(), "what was trained was not touched"
    pd.testing.assert_frame_equal(comparable(tmp_path / "out"), comparable(finished[0]), check_exact=True)


def test_a_run_that_diverges_is_a_failed_row_and_the_others_and_the_join_go_on(tmp_path):
    config = changed(models=[{"width": 8}, {"width": 12, "learning_rate": 1e30}], training={"steps": 20})
    outcome, _ = run(config, tmp_path)
    assert (outcome.exit_code, outcome.failed, outcome.done) == (1, 4, 4 + 1), outcome.messages
    table = read(tmp_path)
    failed = table[table["status"] == "failed"]
    assert len(failed) == 4 and set(failed["quantity"]) == {"memorized_bits"}
    assert (
        failed["model"].str.startswith("gpt2 1x12").all() and (failed["corpus"].str.startswith("random V8 S8 N")).all()
    )
    assert (
        failed["message"].str.fullmatch(r"training stopped: .* at step \d+ of [24]0; lower the learning rate, .*").all()
    )
    capacity = table[table["quantity"] == "bits_per_parameter"]
    assert set(capacity["model"]) == {"gpt2 1x8"} and len(capacity) == 2
    again, _ = run(config, tmp_path)
    assert (again.failed, again.done, again.skipped) == (4, 0, 5), "tried again, and failed again"


def test_where_nothing_trains_there_is_no_capacity_to_tell(tmp_path):
    config = changed(models=[{"width": 8, "learning_rate": 1e30}], seeds=[0], training={"steps": 5}, doubling=None)
    outcome, _ = run(config, tmp_path)
    assert outcome.failed == 3 and outcome.done == 0
    assert any("no run is done, so there is no capacity to tell" in message for message in outcome.messages)


def test_a_stack_gives_the_same_table(tmp_path):
    small = changed(models=[{"width": 8}], training={"steps": 20}, seeds=[0], doubling=None)
    outcome, watched = run(small | {"compute": small["compute"] | {"way": "stacked"}}, tmp_path / "stacked")
    assert outcome.exit_code == 0 and watched.made == watched.total == 40
    run(small, tmp_path / "in turn")
    pd.testing.assert_frame_equal(comparable(tmp_path / "stacked"), comparable(tmp_path / "in turn"), rtol=1e-4)


# --- what is said where little was trained ----------------------------------------------------------------------------


def test_without_twice_the_steps_the_rows_say_that_they_were_not_tried(tmp_path):
    outcome, _ = run(changed(models=[{"width": 8}], seeds=[3], training={"steps": 10}, doubling=None), tmp_path)
    table = read(tmp_path)
    assert outcome.exit_code == 0 and table[table["quantity"] == "saturation_gain"].empty
    rates = table[table["quantity"] == "bits_per_parameter"]
    assert set(rates["message"]) == {"lower bound at this budget: twice the steps were not measured"}
    assert rates["ci_low"].isna().all() and rates["std_error"].isna().all(), "one seed tells no interval"


def test_a_model_that_has_learnt_nothing_is_not_called_saturated(tmp_path):
    """A step of next to no size: fewer than no bits are stored, and a ratio to that is no gain."""
    outcome, _ = run(changed(training={"steps": 1, "learning_rate": 1e-9}, seeds=[0]), tmp_path)
    table = read(tmp_path)
    stored = table[(table["quantity"] == "memorized_bits") & (table["label"] == "plateau")]
    assert outcome.exit_code == 0 and (stored["value"] < 0).all(), outcome.messages
    found = table[table["quantity"].isin(["bits_per_parameter", "capacity_slope"])]
    assert found["message"].str.startswith("lower bound at this budget").all() and len(found) == 6


def test_data_that_do_not_fill_the_model_are_said_to_be_too_few(tmp_path):
    config = changed(models=[{"width": 8}], seeds=[0], data={"load": [0.1], "plateau_load": 0.2}, doubling=None)
    run(config, tmp_path)
    rates = read(tmp_path).query("quantity == 'bits_per_parameter'")
    assert set(rates["message"]) == {
        "lower bound at this budget: the data are too few to fill the model; raise plateau_load"
    }


def test_without_a_bos_the_first_token_is_given_and_costs_nothing(tmp_path):
    config = changed(bos=False, models=[{"width": 8}], seeds=[0], training={"steps": 10}, doubling=None)
    config |= {"data": {"vocabulary": 4, "length": 3, "load": [], "plateau_load": 0.2}}
    run(config, tmp_path)
    table = read(tmp_path)
    row = table[(table["quantity"] == "memorized_bits") & (table["label"] == "")].iloc[0]
    n = int(row["n_documents"])
    about = settings(row)
    assert about["given"] == 1 and about["data_bits"] == n * 2 * 2 and row["n_tokens"] == 2 * n
    arrays = kept(tmp_path, row)
    assert row["value"] == pytest.approx(n * 4 - arrays["train_nats"].sum() / math.log(2))
    fresh = arrays["held_out_nats"] / math.log(2)
    assert 0 < len(fresh) < n, "64 sequences there are, and those that are known are left out"
    assert row["null"] == pytest.approx((4 * len(fresh) - fresh.sum()) * n / len(fresh))
    sequences = [tuple(one) for one in open_study(config, [], tmp_path)[0].runs[0].rows().tolist()]
    whole, first = Counter(sequences), Counter(one[0] for one in sequences)
    least = sum(math.log2(first[one[0]] / whole[one]) for one in sequences)
    assert len(sequences) == n and row["ceiling"] == pytest.approx(4 * n - least), "the best that knows the first token"


def test_plan_counts_trainings_and_names_models_and_keeps_nothing(tmp_path, out):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    fresh = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0, fresh.stderr
    for word in ("trainings   8 (0 done)", "gpt2 1x8: 1,024 parameters", "gpt2 1x12: 2,112", "memory ", "time "):
        assert word in fresh.stdout, fresh.stdout
    assert not (tmp_path / "fresh").exists() or not list((tmp_path / "fresh").rglob("*.npz"))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(out)])
    assert done.exit_code == 0 and "trainings   8 (8 done)" in done.stdout


def test_what_was_scored_on_the_way_is_rows_by_step(tmp_path):
    training = {"steps": 30, "measure_every": 10}
    outcome, _ = run(changed(models=[{"width": 8}], seeds=[0], training=training, doubling=None), tmp_path)
    table = read(tmp_path)
    assert outcome.exit_code == 0, outcome.messages
    runs = table[(table["quantity"] == "memorized_bits") & table["corpus"].str.contains(" N")]
    for _, own in runs.groupby("corpus"):
        own = own.sort_values("step")
        assert own["label"].tolist() == ["after 0 of 30 steps", "after 10 of 30 steps", "after 20 of 30 steps", ""]
        assert own["step"].tolist() == [0, 10, 20, 30]
        assert own["value"].iloc[0] < 0.2 * own["value"].iloc[-1] and own["ceiling"].nunique() == 1
