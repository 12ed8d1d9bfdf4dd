"""What a configuration of the study `capacity` asks for: its runs, and one sentence where it makes no sense."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_capacity_study import CONFIG, PARAMETERS, ROWS, STEPS, changed, run
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.config import load_config
from infocomp.execution.table import read
from infocomp.studies.commands import open_study


def test_lists_are_swept_over_and_every_run_has_a_key_of_its_own(tmp_path):
    sweep = {"architecture": ["gpt2", "gpt_neox"], "precision": ["float32", "bfloat16"]}
    sweep |= {"data": {"vocabulary": [8, 16], "length": [8, 16], "load": [1], "sequences": [5, 50]}}
    study, _ = open_study(changed(models=[{"width": 8}, {"layers": 2, "width": 8}], **sweep), [], tmp_path)
    shapes = 2 * 2 * 2 * 2 * 2
    assert len(study.shapes()) == shapes and len(study.runs) == shapes * (1 + 2 + 2 + 1)
    described = [json.dumps(run.describe(), sort_keys=True) for run in study.runs]
    assert len(set(described)) == len(described)
    costs = [run.training.steps * run.sequences * run.parameters.total for run in study.runs]
    assert costs == sorted(costs, reverse=True), "the longest first, so that workers end together"
    assert {run.model for run in study.runs} >= {"gpt2 1x8", "gpt_neox 2x8 bf16"}


def test_a_size_that_is_asked_for_twice_is_trained_once(tmp_path):
    config = changed(models=[{"width": 8}], data={"load": [0.2, 6], "sequences": [8], "plateau_load": 6})
    study, _ = open_study(config | {"training": CONFIG["training"] | {"steps": 2}}, [], tmp_path)
    assert round(0.2 * PARAMETERS[8] / 24) == 9
    described = [json.dumps(run.describe(), sort_keys=True) for run in study.runs]
    assert len(set(described)) == len(described) == 2 + 2 + 1, "loads .2 and of 8 sequences, the plateau's and twice it"


def test_data_and_weights_are_of_the_seed_and_the_number_of_sequences(tmp_path):
    study, _ = open_study(CONFIG, [], tmp_path)
    by_title = {run.title: run.recipe() for run in study.runs}
    name = f"gpt2 1x8 · random V8 S8 N{ROWS['gpt2 1x8'][6]} · seed"
    first, second = by_title[f"{name} 0"], by_title[f"{name} 1"]
    twice = by_title[f"{name} 0 · {2 * STEPS} steps"]
    assert not np.array_equal(first.train, second.train) and (first.seed, second.seed) == (0, 1)
    np.testing.assert_array_equal(first.train, twice.train)
    assert torch.equal(first.model().embedding.weight, twice.model().embedding.weight), "the same run, only longer"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": {"vocabulary": 0}}, "data.vocabulary"),
        ({"data": {"vocabulary": [8, 1]}}, "data.vocabulary"),
        ({"data": {"length": 0}}, "data.length"),
        ({"data": {"sequences": [0]}}, "data.sequences"),
        ({"data": {"load": [-1.0]}}, "data.load"),
        ({"data": {"plateau_load": []}}, "data.plateau_load"),
        (
            {"data": {"vocabulary": 2, "length": 2, "load": [], "plateau_load": 50}},
            "sequences are asked for, and only 2^2 = 4 differ; use fewer",
        ),
        (
            {"data": {"vocabulary": 64, "length": 64, "load": [], "plateau_load": 1e11}},
            "GB of memory are free; use fewer sequences",
        ),
        ({"models": [{"width": 8}, {"width": 8, "heads": 2}]}, "models hold 1x8 twice"),
        ({"seeds": [0, 1, 0]}, "seeds hold one twice: 0, 1, 0; give each once"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"models": []}, "models"),
        ({"models": [{"width": 8, "heads": 3}]}, "width must be a multiple of heads; it is 8 with 3 heads"),
        ({"models": [{"width": 8, "heads": 2}], "architecture": "gpt_neox"}, "width / heads must be a multiple of 8"),
        ({"precision": "float16"}, "precision"),
        ({"training": {"step": 5}}, "did you mean 'steps'"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate"),
        ({"compute": {"way": "parallel"}}, "compute.way"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(tmp_path, change, sentence):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(changed(**change)))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.stdout
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_shipped_configurations_are_sound(tmp_path):
    configs = sorted((Path(__file__).parents[1] / "configs").glob("capacity*.yaml"))
    assert configs
    for path in configs:
        assert load_config(path).study == "capacity"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"length": 2, "load": [], "plateau_load": 0.1, "sequences": [65]}, "65 sequences are asked for, and only 8^2"),
        (
            {"vocabulary": 64, "length": 64, "load": [1e11], "plateau_load": 0.1},
            "GB of memory are free; use fewer sequences",
        ),
    ],
)
def test_a_size_that_cannot_be_made_is_a_failed_row_and_the_others_go_on(tmp_path, data, sentence):
    outcome, _ = run(changed(models=[{"width": 8}], seeds=[0], training={"steps": 3}, data=data), tmp_path)
    table = read(tmp_path)
    failed = table[table["status"] == "failed"]
    assert outcome.exit_code == 1 and len(failed) == 1 and sentence in failed["message"].iloc[0]
    assert "N" in failed["corpus"].iloc[0] and (table["quantity"] == "bits_per_parameter").any()
