"""`infocomp transition`: what the terminal and the JSON say, and how bad input ends."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from infocomp.cli import app

STEPS = np.arange(0, 2010, 10)


@pytest.fixture
def curves(tmp_path):
    """A run that memorizes at 100 and generalizes at 1,200, with one slingshot afterwards."""
    table = pd.DataFrame({"step": STEPS, "train_accuracy": np.where(STEPS >= 100, 1.0, 0.1)})
    table["test_accuracy"] = np.where(STEPS >= 1200, 0.998, 0.02)
    table.loc[STEPS == 1500, "test_accuracy"] = 0.9
    table["val/loss"] = np.where(STEPS >= 1300, 0.001, 6.0)
    path = tmp_path / "curves.csv"
    table.to_csv(path, index=False)
    return path


def infocomp(*arguments):
    done = CliRunner().invoke(app, ["transition", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_table_for_a_person(curves):
    code, said, _ = infocomp(curves)
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "201 evaluations, steps 0 to 2,000, dated from accuracy" in lines[0]
    assert "memorization 100 90 … 100 94.9 (90 … 100) train_accuracy ≥ 0.99, 3 evaluations in a row" in lines
    assert (
        "generalization 1,200 1,190 … 1,200 1,195 (1,190 … 1,200) test_accuracy ≥ 0.99, 3 evaluations in a row" in lines
    )
    assert "delay 1,100 1,090 … 1,110 1,100 (1,090 … 1,110)" in lines
    assert "grokking: Memorized at step 100, generalized at step 1,200, 12.0 times as late." in lines
    assert "lasting its deepest point afterwards is 0.09 below its threshold, 1 dip that it came back from" in lines
    assert "leak check test accuracy at memorization 0.020" in lines


def test_columns_stand_under_their_heads(curves):
    lines = infocomp(curves)[1].splitlines()
    head, rows = lines[2], lines[3:6]
    for name, place in (("between", 0), ("midpoint of the change", 0)):
        column = head.index(name)
        assert all(row[column - 1 + place] == " " and row[column] != " " for row in rows), name


def test_json_holds_every_number(curves):
    code, said, _ = infocomp(curves, "--json")
    found = json.loads(said)
    assert code == 0 and found["verdict"] == "grokking" and found["dated"] is True
    generalization = found["generalization"]
    assert (generalization["low"], generalization["step"], generalization["high"]) == (1190, 1200, 1200)
    assert generalization["change"]["low"] == 1190 and generalization["threshold"] == 0.99
    assert found["delay"] == {"steps": 1100, "low": 1090, "high": 1110, "at_least": None, "times_at_least": None}
    assert found["fragility"] == pytest.approx(0.09) and found["every"] == 10
    assert found["rule"]["factor"] == 2 and found["persistence"] == 3


def test_what_did_not_happen_is_said(curves):
    code, said, _ = infocomp(curves, "--threshold", "test_accuracy=0.999")
    assert code == 0 and "not by step 2,000" in said and "at least 1,900, at least 20.0 times as late" in said
    assert "never generalizes: Memorized at step 100, not generalized by step 2,000." in said
    found = json.loads(infocomp(curves, "--threshold", "test_accuracy=0.999", "--json")[1])
    assert found["delay"]["at_least"] == 1900 and found["generalization"]["step"] is None


def test_what_was_there_from_the_first_evaluation_is_said(tmp_path):
    table = pd.DataFrame({"step": STEPS, "train_accuracy": np.where(STEPS < 500, 0.992, 0.999)})
    table["test_accuracy"] = np.where(STEPS >= 1990, 1.0, 0.02)
    table.to_csv(tmp_path / "a.csv", index=False)
    said = [" ".join(line.split()) for line in infocomp(tmp_path / "a.csv")[1].splitlines()]
    assert "memorization 0 held from the first evaluation train_accuracy ≥ 0.99, 3 evaluations in a row" in said
    assert "generalization – not by step 1,980 – test_accuracy ≥ 0.99, 3 evaluations in a row" in said
    assert any("by step 1,980: held at the last 2 evaluations, 3 in a row are needed." in line for line in said)


def test_every_option_is_heard(curves):
    by_loss = json.loads(infocomp(curves, "--column", "test_loss=val/loss", "--by", "loss", "--json")[1])
    assert by_loss["generalization"]["step"] == 1300 and by_loss["verdict"] == "one curve alone"
    said = infocomp(curves, "--column", "test_loss=val/loss", "--by", "loss")[1]
    assert "test_loss ≤ 0.01, 3 evaluations in a row" in said
    assert json.loads(infocomp(curves, "--factor", 20, "--json")[1])["verdict"] == "together"
    assert json.loads(infocomp(curves, "--persistence", 7, "--json")[1])["persistence"] == 7


def test_one_curve_alone_and_an_open_interval_have_their_lines(tmp_path):
    generator = np.random.default_rng(2)
    steps = np.arange(130)
    noisy = np.clip(np.where(steps >= 100, 0.993, 0.02) + generator.normal(0, 0.012, 130), 0, 1)
    pd.DataFrame({"step": steps, "test_accuracy": noisy}).to_csv(tmp_path / "a.csv", index=False)
    said = infocomp(tmp_path / "a.csv")[1]
    assert "129*" in said and "noise leaves the end of the interval open" in said
    assert "memorization            –  there is no such curve" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--threshold", "test_accuracy"],
            "--threshold must be NAME=VALUE, as test_accuracy=0.95, got 'test_accuracy'",
        ),
        (["--threshold", "test_accuracy=high"], "--threshold test_accuracy must be a number, got 'high'"),
        (["--threshold", "accuracy=0.9"], "no curve is named 'accuracy' for --threshold; there are train_loss"),
        (["--threshold", "test_accuracy=95"], "must be above 0 and at most 1, got 95"),
        (["--column", "test_loss"], "--column must be NAME=VALUE, as test_loss=val/loss"),
        (["--column", "test_loss=valid"], "has no column 'valid' for test_loss; its columns are step"),
        (["--persistence", "0"], "1 or more, got 0: set 3, or 1 to take every evaluation by itself"),
        (["--by", "loss"], "there is nothing to date from by loss"),
        (["--factor", "0.1"], "the factor of a delay must be 1 or more, got 0.1: leave it out for the default.\n"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_exit_code_two(curves, arguments, sentence):
    code, said, error = infocomp(curves, *arguments)
    assert code == 2 and said == "" and error.startswith("infocomp: ") and sentence in error
    assert error.count("\n") == 1 and "Traceback" not in error


def test_a_bad_file_ends_with_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_text("step,test_accuracy\n0,0.1\n20,0.2\n10,0.3\n")
    code, _, error = infocomp(tmp_path / "a.csv")
    assert code == 2 and error == (
        "infocomp: steps must increase, but 10 follows 20 at evaluation 3: "
        "sort the rows by step, and give each run a file of its own.\n"
    )
    assert "there is no file" in infocomp(tmp_path / "b.csv")[2]
