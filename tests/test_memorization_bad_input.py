"""Bad input to the study `memorization`: one sentence and exit code 2, or a failed row where others can go on."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from memorization_run import CONTEXT, memorization_config, of_folder, write_documents
from tiny_models import tiny_model
from tiny_text import tiny_tokenizer
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.config import ConfigError, load_config
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import read
from infocomp.studies.commands import open_study
from infocomp.studies.memorization_passes import Reading, readings_of
from infocomp.studies.memorization_series import series_rows
from infocomp.studies.memorization_settings import ExtractionSettings, SeriesRowsSettings
from infocomp.studies.memorization_texts import row_hashes
from infocomp.training.series import read_series

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("memorization-bad-input")


@pytest.fixture(scope="module")
def out(folder) -> Path:
    """A series of four steps, which read less than half of its windows, and nothing measured."""
    os.environ["INFOCOMP_CACHE"] = str(folder / "cache")
    config = short_config(folder)
    study, _ = open_study(config, [], folder / "out")
    phase, units = next(study.phases(Silent()))
    assert phase == "train"
    units[0].run()
    return folder / "out"


def short_config(folder: Path, **more) -> dict:
    config = memorization_config(folder, **more)
    config["model"]["series"] |= {"steps": STEPS}
    return config | {"references": [], "fragility": False, "extraction": False} | more


def plan_error(config: dict, out: Path, tmp_path: Path) -> str:
    """The sentence of `plan`, which ends with exit code 2 and no traceback."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(out)])
    assert done.exit_code == 2, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def run(config: dict, out: Path):
    study, text = open_study(config, [], out)
    study.figures = list
    outcome, _ = run_study(study, text, Silent())
    table = read(out)
    return outcome, table[table["status"] == "failed"], table[table["status"] == "ok"]


MEMBERS = {"name": "read windows", "series": "read"}
SALAD = {"name": "other salad", "text": {"texts": ["a word or two"] * 9}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"members": {"name": "a"}},
            "exactly one of 'series', 'builtin', 'path', 'text' and 'table' is needed, and none",
        ),
        ({"members": MEMBERS | {"builtin": "training"}}, "'series' and 'builtin' are given"),
        ({"members": {"name": "a", "builtin": "training", "documents": "lines"}}, "'documents' cuts the plain text"),
        (
            {"members": {"name": "a", "series": "unread"}},
            "members are the read windows of a series, got series: unread",
        ),
        ({"never_trained": {"name": "a", "series": "read"}}, "never_trained are the unread windows of a series"),
        ({"members": {"name": "a", "series": "reed"}}, "members.series: should be 'read' or 'unread', and is 'reed'"),
        (
            {"never_trained": {"name": "a", "series": {"which": "unread", "from_step": 3}}},
            "'from_step' and 'to_step' say which windows were read",
        ),
        (
            {"members": {"name": "a", "series": {"which": "read", "from_step": 3, "to_step": 3}}},
            "'to_step' must lie past 'from_step', got 3 after 3",
        ),
        ({"members": {"name": "a", "series": {"which": "read", "to_step": 9}}}, "of step 4; name steps before it"),
        ({"members": {"name": "a", "path": "nowhere.txt"}}, "nowhere.txt"),
        ({"never_trained": MEMBERS | {"series": "unread"}}, "members and never_trained are both named 'read windows'"),
        ({"never_trained": SALAD}, "too short: its longest document"),
        (
            {"samples": {"prompt": 13, "continuation": 12, "bos": "window"}},
            "samples of a prompt of 13 and a continuation of 12 tokens need 25 positions, and the model reads 24",
        ),
        (
            {"extraction": {"never": [1, 320]}},
            "extraction.never names the token 320, and the model has tokens 0 to 319; give ids of its own tokenizer",
        ),
        ({"extraction": {"never": [-1]}}, "extraction.never"),
        ({"extraction": {"bos": "window"}}, "extraction.bos"),
        ({"samples": {"count": 4}}, "samples.count"),
        ({"references": [{"name": "a"}]}, "exactly one of 'revision' and 'model' is needed"),
        ({"references": [{"name": "a", "revision": "step0"}] * 2}, "references need names of their own, got a, a"),
        ({"references": [{"name": "a", "revision": "step3"}]}, "step3"),
        ({"references": [{"name": "a", "model": {"source": "series"}}]}, "a reference is there before the run"),
        ({"references": [{"name": "a", "model": {"source": "single", "path": "./nowhere"}}]}, "no folder nowhere"),
        ({"extraction": True, "fragility": {"changes": [9]}}, "names 9 of the 8 tokens of a prompt; change at most 8"),
        (
            {"extraction": True, "fragility": {"changes": [8], "kind": "drop"}},
            "names 8 of the 8 tokens of a prompt; change at most 7",
        ),
        (
            {"extraction": True, "fragility": {"kind": "swap"}},
            "fragility.kind is 'swap'; there are 'replace', 'drop', 'shorten'",
        ),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_two(folder, out, tmp_path, change, sentence):
    assert sentence in plan_error(short_config(folder) | change, out, tmp_path)


def test_a_bos_before_the_prompt_needs_a_position_of_its_own(folder, out, tmp_path):
    config = short_config(folder, members={"name": "salad", "path": str(write_documents(folder, 0))})
    config |= {"samples": {"prompt": 13, "continuation": 12}, "extraction": {"bos": True}}
    sentence = plan_error(config, out, tmp_path)
    assert "a BOS before a prompt of 13 and a continuation of 12 tokens needs 25 positions, and the model" in sentence
    assert "reads 24; leave extraction.bos out" in sentence
    assert len(open_study(config | {"extraction": True}, [], out)[0].units()) == 8, "without one they fit"


def test_a_bos_before_the_prompt_means_a_tokenizer_that_has_one(folder, out):
    samples = open_study(short_config(folder), [], out)[0].samples
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    bare = replace(samples, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"extraction\.bos is true, and the tokenizer has no BOS; leave it out"):
        readings_of(ExtractionSettings(bos=True), bare, None)
    assert readings_of(ExtractionSettings(), bare, None).extraction == Reading(None)


def test_windows_that_were_all_read_leave_none_unread(folder, out, tmp_path):
    config = short_config(folder, never_trained={"name": "rest", "series": "unread"})
    config["model"]["text"] = {"files": str(write_documents(folder, 5, documents=2)), "in_training": "known"}
    study, _ = open_study(config, [], tmp_path / "short")
    next(study.phases(Silent()))[1][0].run()
    sentence = plan_error(config, tmp_path / "short", tmp_path)
    assert "'rest': none of the" in sentence and "every one was read; give a text of its own" in sentence


def test_a_text_that_gives_too_few_samples_is_refused_with_their_number(folder, out, tmp_path):
    few = {"name": "few", "path": str(write_documents(folder, 3, documents=1))}
    assert "'few' gives" in (sentence := plan_error(short_config(folder, never_trained=few), out, tmp_path))
    assert "different samples of 16 tokens from 1 documents, and at least 8 from 2 are needed" in sentence


def test_never_trained_rows_that_are_members_are_left_out_and_rows_are_kept_once(folder, out, tmp_path):
    study, _ = open_study(short_config(folder), [], out)
    rows = study.samples.members.rows[:20]
    other = np.random.default_rng(0).integers(2, 300, (12, 16))
    np.save(tmp_path / "members.npy", np.vstack([rows, rows[:5]]))
    np.save(tmp_path / "unseen.npy", np.vstack([rows[:9], other, other[:4]]))
    tables = {name: {"name": name, "table": {"path": str(tmp_path / f"{name}.npy")}} for name in ("members", "unseen")}
    config = short_config(folder, members=tables["members"], never_trained=tables["unseen"])
    found = open_study(config, [], out)[0].samples
    assert np.array_equal(found.members.rows, rows) and np.array_equal(found.unseen.rows, other)
    config["never_trained"] = tables["members"] | {"name": "again"}
    assert "'again' gives 0 different samples" in plan_error(config, out, tmp_path)


def test_rows_share_a_hash_where_they_are_equal_and_nowhere_else():
    rows = np.random.default_rng(0).integers(0, 3, (3000, 6))
    assert len(np.unique(row_hashes(rows))) == len(np.unique(rows, axis=0)) < 3000
    swapped = rows[:, ::-1]
    same = (rows == swapped).all(axis=1)
    assert np.array_equal(row_hashes(rows) == row_hashes(swapped), same) and 0 < same.sum() < 3000


def test_read_and_unread_windows_are_those_that_the_order_of_the_training_names(out):
    run = read_series(out)
    read = {step: {tuple(row) for row in run.presented(step).tolist()} for step in range(STEPS)}
    rows, _, steps = series_rows(SeriesRowsSettings(which="read", from_step=1, to_step=3), out, CONTEXT, "a")
    assert {tuple(row) for row in rows.tolist()} <= read[1] | read[2] and len(rows) > 3
    assert {step for own in steps for step in own.tolist()} <= {1, 2}, "no window twice within one epoch"
    assert all(tuple(row) in read[own[0]] for row, own in zip(rows.tolist(), steps, strict=True))
    unread, _, none = series_rows(SeriesRowsSettings(which="unread"), out, CONTEXT, "a")
    everything = set().union(*read.values())
    assert len(unread) > 5 and not everything & {tuple(row) for row in unread.tolist()}
    assert not any(len(own) for own in none)


def test_samples_longer_than_a_training_window_are_refused(out):
    with pytest.raises(ValueError, match="samples have 25 tokens, and 'a' are training windows of 24; shorten them"):
        series_rows(SeriesRowsSettings(which="read"), out, 25, "a")


def test_series_means_a_model_that_a_run_of_ours_trained(folder, out, tmp_path):
    config = short_config(folder) | {"model": {"source": "single", "path": str(out / "checkpoints" / "step4")}}
    assert "the model was not trained with this toolkit; give a 'table'" in plan_error(config, out, tmp_path)
    shutil.copytree(out / "checkpoints", tmp_path / "moved" / "checkpoints")
    moved = of_folder(short_config(folder), tmp_path / "moved")
    assert "holds no training/state.pt" in plan_error(moved, tmp_path / "here", tmp_path)
    config["references"] = [{"name": "before", "revision": "step2"}]
    assert "model.source is 'single', which has one; give the reference a 'model'" in plan_error(config, out, tmp_path)


def test_a_reference_with_another_tokenizer_fails_its_own_rows_and_the_others_go_on(folder, out, tmp_path):
    tiny_model("gpt_neox").save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    references = [
        {"name": "other", "model": {"source": "single", "path": str(tmp_path / "other")}},
        {"name": "untrained", "revision": "step0"},
    ]
    config = of_folder(short_config(folder, references=references), out, "step2", "step4")
    outcome, failed, done = run(config, tmp_path / "out")
    assert (outcome.failed, outcome.done) == (2, 4)
    assert set(failed["revision"]) == {"step2", "step4"} and set(failed["label"]) == {"against other"}
    assert failed["message"].str.contains("reference 'other' has another tokenizer").all()
    assert failed["message"].str.contains("choose a reference with the same tokenizer").all()
    assert set(done[done["quantity"] == "memorized_bits"]["label"]) == {"against untrained"}


def test_a_reference_from_elsewhere_with_the_same_tokenizer_gives_what_the_revision_gives(folder, out, tmp_path):
    shutil.copytree(out / "checkpoints" / "step0", tmp_path / "elsewhere")
    references = [
        {"name": "elsewhere", "model": {"source": "single", "path": str(tmp_path / "elsewhere")}},
        {"name": "here", "revision": "step0"},
    ]
    config = of_folder(short_config(folder, references=references), out, "step4")
    outcome, _, done = run(config, tmp_path / "out")
    assert outcome.exit_code == 0
    bits = done[done["quantity"] == "unintended_bits"].set_index("label")
    values = bits["value"].tolist()
    assert len(values) == 2 and values[0] == values[1] > 0
    models = [json.loads(text)["reference_model"] for text in bits["settings"]]
    assert sorted(models) == sorted(["tiny", str(tmp_path / "elsewhere")])


def test_tokens_that_the_model_does_not_embed_fail_every_unit_in_one_sentence(folder, out, tmp_path):
    np.save(tmp_path / "far.npy", np.arange(16 * 20).reshape(20, 16) + 300)
    table = {"name": "far", "table": {"path": str(tmp_path / "far.npy")}}
    config = of_folder(short_config(folder, members=table), out, "step4")
    outcome, failed, _ = run(config, tmp_path / "out")
    assert (outcome.failed, outcome.done) == (1, 0)
    assert "the samples hold token 619, and the model embeds tokens 0 to 319" in failed["message"].iloc[0]


def test_a_table_with_rows_shorter_than_a_sample_is_refused(folder, out, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros((20, 15), int))
    table = {"name": "short", "table": {"path": str(tmp_path / "short.npy")}}
    sentence = plan_error(short_config(folder, members=table), out, tmp_path)
    assert "short.npy have 15 tokens, and a sample has 16; shorten it" in sentence


def test_what_a_text_says_of_itself_is_kept_and_members_are_known_otherwise(folder):
    def trained_on(**more):
        config = memorization_config(folder, members={"name": "a", **more})
        return load_config(config).members.trained_on("known")  # type: ignore[attr-defined]

    assert trained_on(series="read") == "known"
    assert trained_on(text={"texts": ["a"], "in_training": "likely"}) == "likely"
    assert trained_on(text={"texts": ["a"]}) == "known"
    assert trained_on(text={"texts": ["a"]}, in_training="unknown") == "unknown"
    with pytest.raises(ConfigError, match=r"samples\.promt.*did you mean 'prompt'"):
        load_config(memorization_config(folder, samples={"promt": 3}))
