"""The study end to end: a folder of checkpoints, a hub on loopback with its faults, several texts, the commands."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from hub_server import online, serve, tiny_model, tiny_tokenizer, write_series
from safetensors.torch import load_file, save_file
from tiny_run import tiny_config, write_text
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import COLUMNS, KEY, read
from infocomp.studies.commands import open_study, summary

STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
DENSE = "gpt_neox.layers.1.attention.dense.weight"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOCOMP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Twelve checkpoints: step1 equals step0, step4 lacks a tensor, step16 is cut short, step32 holds a NaN."""
    folder = write_series(tmp_path_factory.mktemp("series"), STEPS)
    shutil.copy(folder / "step0/model.safetensors", folder / "step1/model.safetensors")
    tensors = load_file(folder / "step4/model.safetensors")
    del tensors[DENSE]
    save_file(tensors, folder / "step4/model.safetensors", metadata={"format": "pt"})
    whole = (folder / "step16/model.safetensors").read_bytes()
    (folder / "step16/model.safetensors").write_bytes(whole[: len(whole) // 2])
    tensors = load_file(folder / "step32/model.safetensors")
    tensors[DENSE][0, 0] = float("nan")
    save_file(tensors, folder / "step32/model.safetensors", metadata={"format": "pt"})
    return folder


def config_for(model: dict, tmp_path: Path, **more) -> dict:
    corpus = {"name": "salad", "text": {"files": str(write_text(tmp_path, 10))}, "context_length": 32}
    small = {"bins": 20, "draws": 2, "orders": [1, 2]}
    return {"study": "information_plane", "model": model, "corpora": [corpus], "estimator": small} | more


def run(config: dict, out: Path):
    study, text = open_study(config, [], out)
    return run_study(study, text, Silent())


def check_series(table: pd.DataFrame, outcome) -> None:
    """What every source must make of that series."""
    assert outcome.failed == 3 and outcome.exit_code == 1
    failed = table[table["status"] == "failed"].set_index("revision")["message"]
    assert set(failed.index) == {"step4", "step16", "step32"}
    assert DENSE in failed["step4"] and "lacks" in failed["step4"]
    assert "cannot be loaded" in failed["step16"]
    assert "NaN" in failed["step32"] or "nan" in failed["step32"]
    good = table[(table["status"] == "ok") & table["step"].notna()]
    assert set(good["revision"]) == {f"step{step}" for step in STEPS} - {"step4", "step16", "step32"}
    flagged = good[good["duplicate_of"].notna()]
    assert set(flagged["revision"]) == {"step1"} and set(flagged["duplicate_of"]) == {"step0"}
    assert not table.duplicated(list(KEY)).any()
    assert list(table.columns) == list(COLUMNS)


def test_a_folder_of_checkpoints_with_faults_gives_rows_for_all_of_them(series, tmp_path):
    config = config_for({"source": "folder", "path": str(series), "name": "tiny"}, tmp_path)
    outcome, figures = run(config, tmp_path / "out")
    table = read(tmp_path / "out")
    check_series(table, outcome)
    assert {path.stem for path in figures} >= {"plane_context", "plane_label", "training", "heatmaps"}
    assert {path.suffix for path in figures} == {".pdf", ".png", ".csv"}

    mean = table[(table["draw"] == "mean") & (table["status"] == "ok")]
    information = mean[mean["quantity"].isin(["complexity", "expressivity"])]
    for column in ("null", "null_rows", "ceiling", "draw_std", "n_labels", "singleton_mass", "efficiency"):
        assert information[column].notna().all(), column
    assert (information["value"] <= information["ceiling"] + 1e-6).all(), "equal at hook_embed, to float32"
    assert (mean.loc[mean["quantity"] == "entropy", "null"]).isna().all(), "entropy has no null: empty, not 0"
    control = information[information["site"] == "control.gaussian"]
    assert len(control) == 4 and (control["value"] - control["null"]).abs().max() < 0.15
    rates = mean[mean["quantity"] == "bits_per_byte"]
    assert set(rates.loc[rates["estimator"] == "classical", "model"]) == {"gzip -9", "xz -9e", "PPMd"}
    documents = pd.read_parquet(tmp_path / "out" / "documents.parquet")
    first = documents[documents["revision"] == "step0"]
    rate = rates.loc[(rates["revision"] == "step0"), "value"].iloc[0]
    assert first["bits"].sum() / first["n_bytes"].sum() == pytest.approx(rate)

    # a second run has nothing to do but what failed
    again, _ = run(config, tmp_path / "out")
    assert again.done == 0 and again.failed == 3 and again.skipped == outcome.done
    # mended, the series is whole, and what was done is not done again
    mended = tmp_path / "mended"
    shutil.copytree(series, mended)
    for step in (4, 16, 32):
        shutil.copy(mended / "step8/model.safetensors", mended / f"step{step}/model.safetensors")
    config["model"]["path"] = str(mended)
    last, _ = run(config, tmp_path / "out")
    assert (last.done, last.skipped, last.exit_code) == (3, outcome.done, 0)


def test_a_hub_repository_gives_the_same_rows_and_survives_a_429(series, tmp_path, monkeypatch):
    online(monkeypatch)
    with serve({"EleutherAI/pythia-tiny": series}) as hub:
        hub.answer_429("/resolve/", times=1)
        model = {"source": "hub", "repository": "EleutherAI/pythia-tiny", "endpoint": hub.endpoint}
        config = config_for(model | {"cache_dir": str(tmp_path / "hub-cache")}, tmp_path)
        outcome, _ = run(config, tmp_path / "hub")
        assert hub.count(" 429$") == 1
    table = read(tmp_path / "hub")
    check_series(table, outcome)
    good = table[(table["status"] == "ok") & table["step"].notna()]
    assert (good["tokens_seen"] == good["step"] * 2_097_152).all(), "Pythia reads 2,097,152 tokens a step"
    assert good["commit"].notna().all()
    weights = list((tmp_path / "hub-cache").rglob("*.safetensors"))
    assert not weights, "revisions are evicted after use"
    run(config_for({"source": "folder", "path": str(series), "name": "tiny"}, tmp_path), tmp_path / "folder")
    here = read(tmp_path / "folder")
    columns = ["revision", "site", "quantity", "label", "draw", "value", "null", "null_rows", "fingerprint"]
    local = here[(here["status"] == "ok") & here["step"].notna()][columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(good[columns].reset_index(drop=True), local)


def test_a_revision_that_does_not_exist_ends_with_its_sentence(series, tmp_path):
    config = config_for({"source": "folder", "path": str(series), "revisions": ["step0", "step3"]}, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "step3" in done.stderr and "step2" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"corpora": []}, "corpora"),
        ({"estimator": {"bin": 3}}, "did you mean 'bins'"),
        ({"compute": {"device": "cuda:7"}}, "compute.device 'cuda:7' is not to be had here"),
        ({"model": {"source": "folder", "path": "nowhere"}}, "no folder nowhere"),
        ({"model": {"source": "hub", "repository": "a/b", "revision": "main"}}, "'revision' belongs to source single"),
        ({"sites": ["blocks.0.hook_resid_pst"]}, "closest are 'blocks.0.hook_resid_post'"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_two(series, tmp_path, change, sentence):
    config = config_for({"source": "folder", "path": str(series), "revisions": ["step0"]}, tmp_path) | change
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "at least one document with text is needed"), ("abc", "is too short")],
)
def test_a_text_with_too_little_in_it_is_refused(series, tmp_path, text, sentence):
    (tmp_path / "short.txt").write_text(text)
    config = config_for({"source": "folder", "path": str(series), "revisions": ["step0"]}, tmp_path)
    config["corpora"][0]["text"] = {"files": str(tmp_path / "short.txt")}
    config["corpora"][0]["context_length"] = 16
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and sentence in done.stderr


def test_one_document_alone_has_no_document_null_and_says_so(series, tmp_path):
    single = write_text(tmp_path, 1, seed=5)
    config = config_for({"source": "folder", "path": str(series), "revisions": ["step512"]}, tmp_path)
    config["corpora"][0]["text"] = {"files": str(single)}
    outcome, _ = run(config, tmp_path / "out")
    assert outcome.exit_code == 0
    table = read(tmp_path / "out")
    complexity = table[(table["quantity"] == "complexity") & (table["status"] == "ok")]
    assert complexity["null"].isna().all() and complexity["null_rows"].notna().all()
    optimality = table[table["quantity"] == "optimality"]
    assert (optimality["status"] == "refused").all() and optimality["message"].str.contains("a single document").all()


def test_centred_rows_and_every_weighting_stand_beside_the_raw_ones(series, tmp_path):
    config = config_for({"source": "folder", "path": str(series), "revisions": ["step512"]}, tmp_path)
    config["estimator"] |= {"rows": ["raw", "centred"], "weighting": ["frequency", "uniform", "uniform_mixed"]}
    config["estimator"] |= {"pilot_tokens": 500}
    outcome, _ = run(config, tmp_path / "out")
    assert outcome.exit_code == 0
    table = read(tmp_path / "out")
    centred = table[table["rows"] == "centred"]
    assert centred["centre_shift"].notna().all() and (centred["centre_shift"] < 1).all()
    assert table.loc[table["rows"] == "raw", "centre_shift"].isna().all()
    assert set(table.loc[table["quantity"] == "complexity", "weighting"]) == {"frequency", "uniform", "uniform_mixed"}


def test_two_runs_share_one_plane_and_export_says_what_the_table_says(series, tmp_path):
    runner = CliRunner()
    for name in ("one", "two"):
        model = {"source": "folder", "path": str(series), "name": name, "revisions": ["step0", "step2", "step8"]}
        outcome, _ = run(config_for(model, tmp_path), tmp_path / name)
        assert outcome.exit_code == 0
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert "need --out" in runner.invoke(app, ["plot", *folders]).stderr
    done = runner.invoke(app, ["plot", *folders, "--out", str(tmp_path / "both")])
    assert done.exit_code == 0, done.stderr
    drawn = pd.read_csv(tmp_path / "both/figures/plane_context.csv")
    assert set(drawn["model"]) == {"one", "two"}

    csv = runner.invoke(app, ["export", folders[0], "--csv"])
    assert csv.exit_code == 0 and csv.stdout.count("\n") == len(read(tmp_path / "one")) + 1
    latex = runner.invoke(app, ["export", folders[0], "--latex"])
    assert "\\toprule" in latex.stdout
    assert "exactly one of --csv and --latex" in runner.invoke(app, ["export", folders[0]]).stderr
    status = runner.invoke(app, ["status", folders[0]])
    assert "5 of 5 units done, 0 failed" in status.stdout


def test_the_run_trains_its_own_series_and_the_summary_names_every_step(tmp_path):
    config = tiny_config(tmp_path)
    outcome, _ = run(config, tmp_path / "out")
    assert outcome.exit_code == 0
    table = read(tmp_path / "out")
    text = summary(table)
    for step in (0, 1, 2, 4, 8):
        assert f"step{step} " in text
        assert (tmp_path / "out/checkpoints" / f"step{step}" / "tokenizer.json").exists()
    rates = table[(table["quantity"] == "bits_per_byte") & (table["estimator"] == "code_length")].sort_values("step")
    assert rates["value"].iloc[-1] < rates["value"].iloc[0]
    losses = table[table["quantity"] == "training_loss"]
    assert losses["in_training"].eq("known").all() and losses["value"].notna().all()


def test_a_diverged_training_is_a_failed_row_and_ends_the_run(tmp_path):
    config = tiny_config(tmp_path)
    config["model"]["series"] |= {"optimizer": {"name": "adamw", "learning_rate": 1e30}}
    outcome, _ = run(config, tmp_path / "out")
    assert outcome.exit_code == 1
    table = read(tmp_path / "out")
    assert table["status"].tolist() == ["failed"]
    assert "training stopped" in table["message"].iloc[0] and "lower the learning rate" in table["message"].iloc[0]


def test_a_plan_says_what_the_run_needs_and_leaves_no_part(series, tmp_path):
    config = config_for({"source": "folder", "path": str(series), "name": "tiny"}, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    assert "14 (0 done), 12 checkpoints" in done.stdout
    assert "step1 holds the same weights as step0" in done.stdout
    for word in ("download", "disk", "memory", "scratch", "time"):
        assert word in done.stdout
    assert not (tmp_path / "out" / "parts").exists()
    assert list((tmp_path / "cache").glob("tokens-*")) and list((tmp_path / "cache").glob("labels-*"))


def test_a_plan_of_an_untrained_series_counts_only_the_checkpoints_that_are_chosen(tmp_path):
    config = tiny_config(tmp_path)
    config["model"]["revisions"] = ["step4", "step8"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    assert "5 (0 done), 2 checkpoints" in done.stdout  # training, coders, control, two checkpoints
    config["model"]["revisions"] = ["step5"]
    path.write_text(json.dumps(config))
    wrong = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 2 and "step5" in wrong.stderr


def test_activations_that_overflow_fail_their_checkpoint_and_name_the_site(tmp_path):
    """Finite weights, infinite activations: the first block's output weights are as large as float32 goes."""
    folder = tmp_path / "series"
    for step in (0, 1):
        model = tiny_model(seed=step)
        if step == 1:
            with torch.no_grad():
                model.gpt_neox.layers[0].mlp.dense_4h_to_h.weight.fill_(3e38)
        model.save_pretrained(folder / f"step{step}")
        tiny_tokenizer().save_pretrained(folder / f"step{step}")
    outcome, _ = run(config_for({"source": "folder", "path": str(folder), "name": "tiny"}, tmp_path), tmp_path / "out")
    assert outcome.failed == 1
    table = read(tmp_path / "out")
    [message] = table.loc[table["status"] == "failed", "message"]
    assert "at site blocks.0.hook_resid_post" in message
