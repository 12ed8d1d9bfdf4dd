"""The study `memorization` end to end on a tiny series that learns its text by heart, each row against a slow twin."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from coding_run import one, slow_ratio
from memorization_run import (
    CONTINUATION,
    LENGTH,
    PROMPT,
    READ_UNTIL,
    STEPS,
    loaded,
    of_folder,
    slow_bits,
    slow_score,
)
from memorization_run import memorization_config as plain_config
from safetensors.torch import load_file, save_file
from test_kill_and_resume import start, wait
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.config import load_config
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import KEY, VOLATILE, read
from infocomp.memorization.extraction import fragility
from infocomp.studies.commands import open_study
from infocomp.studies.memorization_parts import reference_part, samples_part
from infocomp.studies.memorization_passes import Reading, checkpoint_pass
from infocomp.training.series import read_series

LAST = f"step{STEPS}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INFOCOMP_CACHE", str(tmp_path_factory.getbasetemp() / "memorization-cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("memorization")


@pytest.fixture(scope="module")
def out(folder) -> Path:
    """A finished run."""
    os.environ["INFOCOMP_CACHE"] = str(folder / "cache")
    outcome, _ = run(memorization_config(folder), folder / "out")
    assert outcome.exit_code == 0, outcome.messages
    return folder / "out"


@pytest.fixture(scope="module")
def table(out) -> pd.DataFrame:
    return read(out)


@pytest.fixture(scope="module")
def samples(folder, out):
    return open_study(memorization_config(folder), [], out)[0].samples


def memorization_config(folder: Path, **more) -> dict:
    """Samples after a BOS, as `slow_bits` reads them, and prompts without one."""
    config = plain_config(folder, **more)
    return config | {"samples": {"bos": "window"} | config["samples"]}


def slow_greedy(out: Path, rows: np.ndarray, step: int = STEPS, never: tuple[int, ...] = ()) -> np.ndarray:
    """What is emitted after each bare prompt, a row and a token at a time from whole logits, as a share of the row."""
    model = loaded(out, step)[0]
    shares = []
    for row in rows:
        ids = row[:PROMPT].tolist()
        while len(ids) < LENGTH:
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1]
                logits[list(never)] = -torch.inf
            ids.append(int(logits.argmax()))
        shares.append(np.mean(np.array(ids[PROMPT:]) == row[PROMPT:]))
    return np.array(shares)


def run(config: dict, out: Path):
    study, text = open_study(config, [], out)
    study.figures = list
    return run_study(study, text, Silent())


def settings_of(row: pd.Series) -> dict:
    return json.loads(row["settings"])


# --- which rows -------------------------------------------------------------------------------------------------------


def test_members_are_beginnings_of_windows_that_the_training_read(out, samples):
    run = read_series(out)
    read_windows = {tuple(row[:LENGTH]) for step in range(STEPS) for row in run.presented(step).tolist()}
    assert len(samples.members) == 48
    assert all(tuple(row) in read_windows for row in samples.members.rows.tolist())
    assert not (samples.members.rows == loaded(out)[1].bos_token_id).any(), "none crosses a document"
    assert len(np.unique(samples.members.rows, axis=0)) == 48
    assert not {tuple(row) for row in samples.unseen.rows.tolist()} & read_windows


def test_members_know_their_documents(out, samples):
    tokens, bos = read_series(out).tokens.tolist(), loaded(out)[1].bos_token_id
    text = ",".join(map(str, tokens))
    for row, document in zip(samples.members.rows[:10].tolist(), samples.members.documents[:10], strict=True):
        before = text[: text.index(",".join(map(str, row)))]
        assert before.split(",").count(str(bos)) == document


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, STEPS])
def test_rates_are_those_of_plain_forward_passes_with_their_error_over_documents(out, table, samples, step):
    rows = table[(table["revision"] == f"step{step}") & (table["quantity"] == "bits_per_token")]
    for label, part in {"train": samples.members, "test": samples.unseen}.items():
        bits = slow_bits(out, part.rows, step).sum(axis=1)
        documents = np.unique(part.documents)
        own = [bits[part.documents == name].sum() for name in documents]
        sizes = [float(LENGTH * (part.documents == name).sum()) for name in documents]
        value, error = slow_ratio(own, sizes)
        row = one(rows, label=label, corpus="read windows")
        assert row["value"] == pytest.approx(value, rel=1e-5) and row["std_error"] == pytest.approx(error, rel=1e-3)
        counts = np.unique(part.rows, return_counts=True)[1]
        expected = -(counts * np.log2(counts / part.rows.size)).sum() / part.rows.size
        assert row["null"] == pytest.approx(expected)
        assert row["in_training"] == {"train": "known", "test": "no"}[label]
    held_out = one(rows, label="", corpus="other salad")
    assert held_out["value"] == one(rows, label="test")["value"] and held_out["in_training"] == "no"


def test_the_held_out_rate_is_per_byte_of_the_rows_own_text(out, table, samples):
    bits = slow_bits(out, samples.unseen.rows).sum()
    size = sum(len(loaded(out)[1].decode(row).encode()) for row in samples.unseen.rows)
    row = one(table, revision=LAST, quantity="bits_per_byte", label="", corpus="other salad")
    assert row["value"] == pytest.approx(bits / size, rel=1e-5)


def test_bytes_of_bare_tokens_are_those_of_the_text_that_they_were_cut_from(out, samples):
    part, tokenizer = samples.unseen, loaded(out)[1]
    bare = replace(part, candidates=replace(part.candidates, byte_counts=None))
    for first in (0, 1):
        sizes = part.bytes_of_rows(tokenizer, first)
        np.testing.assert_array_equal(bare.bytes_of_rows(tokenizer, first), sizes)
        assert sizes[0] == len(tokenizer.decode(part.rows[0, first:]).encode())


def test_memorized_bits_are_the_excess_over_the_null_against_the_reference(out, table, samples):
    gains = [
        (slow_bits(out, part.rows, READ_UNTIL) - slow_bits(out, part.rows)).sum(axis=1)
        for part in (samples.members, samples.unseen)
    ]
    n, m = (len(gain) for gain in gains)
    clipped, null = np.maximum(gains[0], 0).sum(), np.maximum(gains[1], 0).sum() * n / m
    rows = table[table["revision"] == LAST]
    row = one(rows, quantity="unintended_bits", label="against step 4")
    assert row["value"] == pytest.approx(clipped, rel=1e-5) and row["null"] == pytest.approx(null, rel=1e-4, abs=1e-2)
    excess = one(rows, quantity="memorized_bits", label="against step 4")
    assert excess["value"] == pytest.approx(clipped - null, rel=1e-5) and excess["unit"] == "bits"
    plain = one(rows, quantity="unclipped_gain_bits", label="against step 4")
    assert plain["value"] == pytest.approx(gains[0].sum(), rel=1e-5) and pd.isna(plain["ceiling"])
    assert plain["null"] == pytest.approx(n * gains[1].mean(), rel=1e-5)
    ceiling = slow_bits(out, samples.members.rows, READ_UNTIL).sum()
    assert excess["ceiling"] == row["ceiling"] == pytest.approx(ceiling, rel=1e-5)
    about = settings_of(excess)
    assert about["reference_revision"] == f"step{READ_UNTIL}" and about["reference_fingerprint"] != row["fingerprint"]
    above = np.subtract.outer(gains[0], gains[1])
    auc = one(rows, quantity="membership_auc", label="against step 4")
    assert auc["value"] == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean()) and auc["null"] == 0.5


def test_extraction_is_what_is_emitted_after_a_bare_prompt_of_members_and_of_never_trained_rows(out, table, samples):
    rows = table[table["revision"] == LAST]
    name = f"{PROMPT}+{CONTINUATION}"
    scores = [slow_greedy(out, part.rows) for part in (samples.members, samples.unseen)]
    rate = one(rows, quantity="extraction_rate", label=name)
    assert rate["value"] == (scores[0] == 1).mean() and rate["null"] == (scores[1] == 1).mean()
    assert rate["ci_low"] < rate["value"] < rate["ci_high"] and rate["unit"] == "ratio"
    assert (scores[0] == 1).mean() != (slow_score(out, samples.members.rows) == 1).mean(), "a BOS would tell"
    chosen = np.sort(np.random.default_rng(0).permutation(48)[:24])
    score = one(rows, quantity="extraction_score", label=name)
    assert score["value"] == pytest.approx(scores[0][chosen].mean()) and score["n_tokens"] == 24 * LENGTH
    early = one(table, revision="step4", quantity="extraction_score", label=name)
    twin = slow_greedy(out, samples.members.rows, 4)
    assert early["value"] == pytest.approx(twin[chosen].mean()) != pytest.approx(twin.mean())
    assert early["null"] == pytest.approx(slow_greedy(out, samples.unseen.rows[chosen], 4).mean())
    for row in (rate, score):
        assert settings_of(row)["never"] == [] and settings_of(row)["bos"] == row["bos"] == "none"
        assert row["context_length"] == LENGTH
    assert set(rows.loc[rows["quantity"] == "memorized_bits", "bos"]) == {"window"}


def test_changed_prompts_stand_beside_never_trained_rows_with_the_same_changes(out, table, samples):
    rows = table[(table["revision"] == LAST) & table["quantity"].str.startswith("extraction")]
    name = f"{PROMPT}+{CONTINUATION}"
    whole = {part: one(rows, quantity=f"extraction_{part}", label=name) for part in ("rate", "score")}
    after = {part: one(rows, quantity=f"extraction_{part}", label=f"{name}, 4 of prompt changed") for part in whole}
    lost = one(rows, quantity="extraction_drop", label=f"{name}, 4 of prompt changed")
    assert after["score"]["value"] + lost["value"] == pytest.approx(whole["score"]["value"]), "the same rows, unchanged"
    assert after["score"]["null"] + lost["null"] == pytest.approx(whole["score"]["null"])
    assert abs(lost["null"]) < 0.2 < lost["value"]
    matches = one(rows, quantity="extraction_drop", label=f"{name}, 4 of prompt changed, full matches")
    chosen = np.sort(np.random.default_rng(0).permutation(48)[:24])
    own = [(slow_greedy(out, part.rows[chosen]) == 1).mean() for part in (samples.members, samples.unseen)]
    assert [after["rate"][of] + matches[of] for of in ("value", "null")] == pytest.approx(own)
    changed = fragility(loaded(out)[0], samples.unseen.rows[chosen], (4,), 0, "replace", PROMPT, CONTINUATION)[0]
    assert after["score"]["null"] == changed.extraction.mean_score and lost["null"] == changed.score_drop
    said = settings_of(after["score"])
    assert said["changed"] == 4 and said["kind"] == "replace" and said["decoded_never_trained"] == 24
    assert rows["null"].notna().all()


def test_a_bos_before_the_prompt_and_tokens_never_emitted_are_said_and_done(folder, out, samples, tmp_path):
    likely = int(np.bincount(samples.members.rows[:, PROMPT:].ravel()).argmax())
    config = of_folder(memorization_config(folder, references=[]), out, LAST)
    rows, name = samples.members.rows, f"{PROMPT}+{CONTINUATION}"
    chosen = np.sort(np.random.default_rng(0).permutation(48)[:24])
    with_bos, without = (config["extraction"] | more for more in ({"bos": True}, {"never": [likely]}))
    for number, (extraction, label, scores) in enumerate(
        [
            (with_bos, f"{name}, BOS", slow_score(out, rows)),
            (without, name, slow_greedy(out, rows, never=(likely,))),
        ]
    ):
        assert run(config | {"extraction": extraction}, tmp_path / str(number))[0].exit_code == 0
        table = read(tmp_path / str(number))
        rate, score = (one(table, quantity=f"extraction_{one_of}", label=label) for one_of in ("rate", "score"))
        assert rate["value"] == (scores == 1).mean() and score["value"] == pytest.approx(scores[chosen].mean())
        assert settings_of(rate)["never"] == ([likely] if number else [])
        assert settings_of(rate)["bos"] == rate["bos"] == ("none" if number else "window")
        changed = table[table["label"].str.contains("changed")]
        assert changed["label"].str.startswith(f"{label}, ").all() and len(changed) == 8
    assert not (slow_greedy(out, rows, never=(likely,)) == 1)[(rows[:, PROMPT:] == likely).any(axis=1)].any()
    assert 0 < rate["value"] < one(read(out), revision=LAST, quantity="extraction_rate", label=name)["value"]


def test_a_text_read_dozens_of_times_is_known_by_heart_and_an_untrained_model_knows_nothing(table):
    first, last = (table[table["revision"] == name] for name in ("step0", LAST))
    excess = one(last, quantity="memorized_bits", label="against step 4")
    assert excess["ci_low"] > 0.4 * excess["ceiling"]
    assert one(last, quantity="extraction_rate", label="8+8")["value"] > 0.8
    assert one(last, quantity="membership_auc", label="loss")["value"] > 0.95
    assert one(last, quantity="extraction_drop", label="8+8, 4 of prompt changed")["ci_low"] > 0
    assert one(first, quantity="memorized_bits", label="against step 4")["value"] == 0
    assert one(first, quantity="extraction_rate", label="8+8")["value"] == 0
    readings = [settings_of(one(of, quantity="membership_auc", label="loss"))["mean_readings"] for of in (first, last)]
    assert readings[0] == 0 and readings[1] > 10


def test_every_row_says_what_it_is_of(table):
    assert not table.duplicated(list(KEY)).any() and (table["status"] == "ok").all()
    own = table[table["quantity"] != "training_loss"]
    for column in ("fingerprint", "settings", "dtype", "bos", "n_documents", "n_tokens", "step", "in_training", "unit"):
        assert own[column].notna().all(), column
    assert set(own["revision"]) == {f"step{step}" for step in (0, 1, 2, 4, STEPS)}
    assert set(own[own["label"].str.contains("changed")]["revision"]) == {LAST}
    assert (own["draw"] == "mean").all() and (own["site"] == "logits").all()


# --- passes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bos", "extraction", "passes"),
    [("none", {}, 1), ("window", {"bos": True}, 1), ("none", {"never": [5]}, 1), ("window", {}, 2)],
)
def test_one_pass_gives_bits_and_full_matches_unless_a_bos_stands_before_one_of_them_alone(
    folder, out, tmp_path, bos, extraction, passes
):
    config = plain_config(folder, extraction=extraction)
    if bos == "window":  # else the default
        config["samples"] = config["samples"] | {"bos": bos}
    study, _ = open_study(of_folder(config, out, LAST), [], tmp_path)
    checkpoint = study.model.source.list()[-1]
    model = study.model.open(checkpoint).model
    seen: list[int] = []
    handle = model.base_model.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(output.last_hidden_state.shape[:2].numel()), with_kwargs=True
    )
    told: list[int] = []
    part = samples_part(study.model, study.samples, held_out=True, extraction=True, readings=study.readings)
    result = part.measure(checkpoint, told.append)
    one_pass = study.samples.positions
    both = one_pass if passes == 1 else one_pass + 96 * (LENGTH - 1)
    # a probe of 4 tokens for the head, once a text
    assert sum(seen) == both + passes * 2 * 4 and sum(told) == part.tokens == both
    assert {"bits_per_byte", "extraction_rate", "membership_f1"} <= {row["quantity"] for row in result.rows}
    handle.remove()
    study.model.close()
    told.clear()
    reference, of_bits = study.references[0], study.readings.bits
    rows = reference_part(study.model, study.samples, reference, of_bits).measure(checkpoint, told.append).rows
    assert study.model._loaded is None and reference.model._loaded is None, "kept, and the reference is let go"
    assert sum(told) == one_pass and len(rows) == 5
    reference_part(study.model, study.samples, reference, of_bits).measure(checkpoint, told.append)
    assert sum(told) == one_pass, "read once for all checkpoints"


def test_a_pass_is_kept_for_these_samples_only(folder, out, tmp_path):
    config = of_folder(memorization_config(folder), out, LAST)
    for settings in (config["samples"], config["samples"] | {"count": 24}, config["samples"] | {"seed": 1}):
        study, _ = open_study(config | {"samples": settings}, [], tmp_path)
        found = checkpoint_pass(study.model, study.model.source.list()[0], study.samples, Reading(study.samples.bos))
        expected = slow_bits(out, study.samples.members.rows).sum(axis=1)
        np.testing.assert_allclose(found.members.bits, expected, rtol=1e-5)


def test_a_held_out_text_has_the_rate_that_the_study_of_coding_gives_it(folder, out, tmp_path):
    text = {"name": "whole windows", "path": memorization_config(folder)["never_trained"]["path"], "in_training": "no"}
    config = of_folder(memorization_config(folder, held_out=text, references=[], extraction=False), out, LAST)
    assert run(config, tmp_path / "here")[0].exit_code == 0
    coding = {"study": "coding", "texts": [text], "rate": {"packing": True}, "retention": False, "classical": False}
    coding |= {"model": config["model"], "compute": config["compute"]}
    assert run(coding, tmp_path / "there")[0].exit_code == 0
    here, there = read(tmp_path / "here"), read(tmp_path / "there")
    assert set(here["label"]) == {"train", "test", "loss", ""}
    for quantity in ("bits_per_byte", "bits_per_token"):
        ours, theirs = (one(of, quantity=quantity, label="", estimator="code_length") for of in (here, there))
        assert ours["corpus"] == "whole windows"
        left_out = [*VOLATILE, "unit_name"]
        pd.testing.assert_series_equal(ours.drop(left_out), theirs.drop(left_out), check_names=False)


def test_the_same_rows_from_a_table_of_tokens_give_the_same_numbers(folder, out, table, samples, tmp_path):
    np.save(tmp_path / "members.npy", np.hstack([samples.members.rows, samples.members.rows[:, :3]]).astype(np.uint16))
    members = {"name": "read windows", "table": {"path": str(tmp_path / "members.npy")}}
    config = of_folder(memorization_config(folder, members=members, fragility=False), out, LAST)
    assert run(config, tmp_path / "out")[0].exit_code == 0
    again = read(tmp_path / "out")
    for quantity, label in (("memorized_bits", "against step 4"), ("extraction_rate", "8+8")):
        now, then = (one(of, revision=LAST, quantity=quantity, label=label) for of in (again, table))
        assert now["value"] == then["value"] and now["in_training"] == "known"
        assert now["n_documents"] == 48 > then["n_documents"], "each row of a table is a document of its own"


def test_without_a_bos_the_first_token_is_not_scored(folder, out, samples, tmp_path):
    config = plain_config(folder, references=[], extraction=False)
    assert run(of_folder(config, out, LAST), tmp_path)[0].exit_code == 0
    model, tokenizer = loaded(out)
    with torch.inference_mode():
        logits = model(torch.tensor(samples.unseen.rows)).logits[:, :-1].double()
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(samples.unseen.rows[:, 1:]).flatten())
    row = one(read(tmp_path), quantity="bits_per_token", label="test")
    assert row["value"] == pytest.approx(float(nats) / np.log(2), rel=1e-5)
    size = sum(len(tokenizer.decode(row[1:]).encode()) for row in samples.unseen.rows)
    per_byte = one(read(tmp_path), quantity="bits_per_byte")["value"]
    assert per_byte == pytest.approx(row["value"] * 48 * (LENGTH - 1) / size)


# --- the study as a whole ---------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_write_and_started_again_ends_with_the_same_table(folder, out, tmp_path):
    """Killed with SIGKILL inside writes of a part, of another, and of a kept pass, until it comes to its end."""
    config = of_folder(plain_config(folder), out, f"step{READ_UNTIL}", LAST)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert wait(start(config, whole)) == 0
    codes = [wait(start(config, killed, die_at_replace=number)) for number in (10, 8, 10)]
    assert codes == [-signal.SIGKILL] * 3, (tmp_path / "error.txt").read_text()
    done = len(list((killed / "parts").glob("*.parquet")))
    assert done == 3, "what was done before each kill was kept"
    assert wait(start(config, killed)) == 0
    one_of, other = (read(path).drop(columns=list(VOLATILE)) for path in (killed, whole))
    pd.testing.assert_frame_equal(one_of, other, check_exact=True)


def test_checkpoints_that_are_damaged_or_diverged_fail_their_own_units_only(folder, out, tmp_path):
    series = tmp_path / "run" / "checkpoints"
    for step in (2, 4, STEPS):
        (series / f"step{step}").mkdir(parents=True)
        for file in (out / "checkpoints" / f"step{step}").iterdir():
            data = file.read_bytes()
            cut = step == 2 and file.suffix == ".safetensors"
            (series / f"step{step}" / file.name).write_bytes(data[: len(data) // 2] if cut else data)
    weights = load_file(series / LAST / "model.safetensors")
    weights["embed_out.weight"] = weights["embed_out.weight"] * 1e38
    save_file(weights, series / LAST / "model.safetensors", {"format": "pt"})
    (tmp_path / "run" / "training").symlink_to(out / "training")
    config = of_folder(memorization_config(folder), tmp_path / "run")
    outcome, _ = run(config, tmp_path / "out")
    assert (outcome.failed, outcome.done) == (3 + 4, 3), "samples, score, reference; and changed prompts at the last"
    table = read(tmp_path / "out")
    failed = table[table["status"] == "failed"].set_index("revision")["message"]
    assert set(failed.index) == {"step2", LAST} and failed["step2"].str.contains("cannot be loaded").all()
    assert failed[LAST].str.contains("NaN or infinite").all()
    assert set(table[table["status"] == "ok"]["revision"]) == {"step4"}


def test_plan_counts_the_units_that_a_run_has(folder, out, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(memorization_config(folder)))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    units = len(list((out / "parts").glob("*.parquet")))
    assert f"{units} ({units - 1} done), 5 checkpoints" in done.stdout, "the training is no unit of measuring"
    assert "the time is rough" in done.stdout
    path.write_text(json.dumps(of_folder(memorization_config(folder), out)))
    fresh = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0, fresh.stderr
    assert f"{units - 1} (0 done), 5 checkpoints" in fresh.stdout and not (tmp_path / "fresh/parts").exists()


def test_plan_of_a_series_that_is_not_trained_yet_takes_as_many_rows_as_are_asked_for(folder, tmp_path):
    path, config = tmp_path / "config.json", memorization_config(folder)
    config["model"]["series"]["text_bytes"] = 20_000  # a plan times the training of the built-in text
    path.write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    assert "17 (0 done), 5 checkpoints" in done.stdout and "read windows: 0 documents, 768 tokens, 48" in done.stdout


def test_the_terminal_shows_every_number_beside_its_null(folder, out, table):
    text = open_study(memorization_config(folder), [], out)[0].summary(table)
    for word in (
        "step0",
        LAST,
        "train",
        "test",
        "memorized against step 4",
        "AUC loss",
        "extracted",
        "4 of prompt",
        "(null",
    ):
        assert word in text
    assert "unclipped" not in text


def test_the_shipped_configuration_is_sound():
    config = load_config(Path(__file__).parents[1] / "configs" / "memorization.yaml")
    assert config.study == "memorization" and config.model.source == "series"  # type: ignore[attr-defined]
    assert config.samples.bos == "window" and config.extraction.bos  # type: ignore[attr-defined]
