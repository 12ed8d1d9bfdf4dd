"""Post-training through trl: its updates are as written down; a planted preference is learnt, flips are not.

One base of a few thousand parameters, tuned for a few steps on functions that are made here.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from preference_margin import preference_margins
from test_planted_preference import documents
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from infocomp.checkpoints.source import DirectorySource
from infocomp.studies.post_training_case import CaseSettings, prepare_case
from infocomp.training.planted_preference import BETWEEN, PlantedSettings, half_flipped, planted_pairs
from infocomp.training.schedule import CheckpointSettings
from infocomp.training.series import SEPARATOR, SeriesSettings, train_series
from infocomp.training.tuning import DPOSettings, SFTSettings, StageSettings, Text, tune_dpo, tune_sft

pytest.importorskip("trl")
BATCH = 4


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A checkpoint that has hardly been trained."""
    torch.set_num_threads(1)
    settings = SeriesSettings(
        vocabulary=420,
        hidden_size=32,
        layers=2,
        heads=2,
        context_length=256,
        batch=2,
        steps=2,
        checkpoints=CheckpointSettings(log_spaced_until=0),
        keep_states=False,
    )
    return train_series(settings, tmp_path_factory.mktemp("base"), documents=documents(20)).checkpoints[2]


@pytest.fixture(scope="module")
def pairs(base):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    return planted_pairs(documents(20), tokenizer, PlantedSettings(most_tokens=120, least_tokens=5))


def dpo(**changes) -> DPOSettings:
    values = {"steps": 4, "batch": BATCH, "learning_rate": 2e-3, "warmup_steps": 2, "checkpoints": 2}
    return DPOSettings(**(values | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tuned(base, pairs, tmp_path_factory):
    """A short preference optimisation that nothing stopped."""
    out = tmp_path_factory.mktemp("dpo")
    return out, tune_dpo(base, pairs, out, dpo())


# --- a slow twin, written as the paper writes it ---------------------------------------------------------------------


def log_likelihood(model, tokenizer, prompt: str, completion: str) -> torch.Tensor:
    """Σ log π over the completion and the end of text, one text at a time."""
    before = tokenizer(SEPARATOR + prompt, add_special_tokens=False).input_ids
    ids = tokenizer(SEPARATOR + prompt + BETWEEN + completion + SEPARATOR, add_special_tokens=False).input_ids
    assert ids[: len(before)] == before
    logs = model(torch.tensor([ids])).logits[0, len(before) - 1 : -1].log_softmax(dim=1)
    return logs.gather(1, torch.tensor(ids[len(before) :])[:, None]).sum()


def by_hand(base: Path, loss_of, settings: StageSettings) -> dict[str, torch.Tensor]:
    """Plain AdamW at a rate that warms up, the gradient clipped at norm 1, on the same batches."""
    model = AutoModelForCausalLM.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(step / max(settings.warmup_steps, 1), 1.0)
        optimizer.zero_grad()
        loss_of(model, range(step * settings.batch, (step + 1) * settings.batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.state_dict()


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> None:
    moved = torch.cat([(expected[name] - start[name]).flatten() for name in start]).norm()
    apart = torch.cat([(found[name] - expected[name]).flatten() for name in start]).norm()
    assert moved > 0.01 and apart < 2e-3 * moved, (float(moved), float(apart))  # AdamW magnifies rounding near 0


def test_dpo_follows_the_loss_of_the_paper(base, pairs, tuned):
    tokenizer, reference = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    settings = dpo()

    def loss_of(model, numbers):
        losses = []
        for pair in (pairs[number] for number in numbers):
            ratios = []
            for side in (pair.chosen, pair.rejected):
                with torch.no_grad():
                    fixed = log_likelihood(reference, tokenizer, pair.prompt, side)
                ratios.append(log_likelihood(model, tokenizer, pair.prompt, side) - fixed)
            losses.append(-functional.logsigmoid(settings.beta * (ratios[0] - ratios[1])))
        return torch.stack(losses).mean()

    agree(weights(tuned[1][4]), by_hand(base, loss_of, settings), weights(base))


def test_sft_lowers_the_nats_of_completions_after_their_prompts(base, pairs, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    settings = SFTSettings(steps=3, batch=BATCH, learning_rate=2e-3, warmup_steps=1, checkpoints=1)
    texts = [Text(pair.prompt, pair.chosen) for pair in pairs]

    def loss_of(model, numbers):
        nats, count = torch.zeros(()), 0
        for text in (texts[number] for number in numbers):
            nats = nats - log_likelihood(model, tokenizer, text.prompt, text.completion)
            whole = tokenizer(SEPARATOR + text.prompt + BETWEEN + text.completion + SEPARATOR).input_ids
            count += len(whole) - len(tokenizer(SEPARATOR + text.prompt).input_ids)
        return nats / count

    found = tune_sft(base, texts, tmp_path, settings)
    agree(weights(found[3]), by_hand(base, loss_of, settings), weights(base))


# --- the known answer ------------------------------------------------------------------------------------------------


def test_a_planted_preference_is_learnt_and_labels_flipped_in_half_of_the_pairs_teach_none(base, pairs, tmp_path):
    taught, held_out = pairs[:80], pairs[80:]
    settings = dpo(steps=20, checkpoints=1, beta=0.1)
    before = preference_margins(base, held_out)
    learnt = preference_margins(tune_dpo(base, taught, tmp_path / "dpo", settings)[20], held_out) - before
    flips = half_flipped(taught, BATCH, seed=1)
    control = preference_margins(tune_dpo(base, flips, tmp_path / "flipped", settings)[20], held_out) - before
    assert (learnt > 0).all() and learnt.mean() > 10
    assert abs(control.mean()) < 0.1 * learnt.mean()


def test_margins_are_log_likelihoods_of_the_completions(base, pairs):
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    end = model.config.eos_token_id
    for pair, found in zip(pairs[:3], preference_margins(base, pairs[:3]), strict=True):
        sides = []
        for completion in (pair.chosen, pair.rejected):
            ids = tokenizer(SEPARATOR + pair.prompt + BETWEEN + completion).input_ids
            last = model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=0)[end]
            sides.append(log_likelihood(model, tokenizer, pair.prompt, completion).detach() - last.detach())
        assert found == pytest.approx(float(sides[0] - sides[1]), abs=2e-4)  # float32 sums of some 60 logs


# --- checkpoints, kills, silence -------------------------------------------------------------------------------------


def test_checkpoints_are_ordinary_folders_that_differ_from_the_base_in_weights_only(base, tuned):
    out, folders = tuned
    assert list(folders) == [2, 4]
    assert [one.revision.step for one in DirectorySource(out).list()] == [2, 4]
    for folder in folders.values():
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in base.iterdir())
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            assert (folder / name).read_bytes() == (base / name).read_bytes(), name
    assert (out / "tuning.json").is_file() and not (out / "unfinished").exists()


def test_what_is_done_is_not_done_again_not_even_trl_is_needed(base, pairs, tuned, monkeypatch):
    out, folders = tuned
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setitem(sys.modules, "trl", None)
    told = []
    assert tune_dpo(base, pairs, out, dpo(), lambda *made: told.append(made)) == folders
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before and told == [(4, 4)]


def test_a_killed_stage_begins_again_and_ends_with_the_same_bytes(base, pairs, tuned, tmp_path):
    def killed(step: int, steps: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        tune_dpo(base, pairs, tmp_path / "dpo", dpo(), killed)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "dpo").glob("step*")] == ["step2"]
    steps = []
    tune_dpo(base, pairs, tmp_path / "dpo", dpo(), lambda step, _: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert written(tmp_path / "dpo") == written(tuned[0])


def test_nothing_is_said_nothing_is_sent_and_global_states_are_as_they_were(base, pairs, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for seeded in (torch.manual_seed, random.seed, np.random.seed):  # none of the states that a trainer would leave
        seeded(77)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002
    verbosity, offline = transformers_logging.get_verbosity(), []
    bars = transformers_logging.is_progress_bar_enabled()
    tune_dpo(base, pairs, tmp_path, dpo(steps=1), lambda *_: offline.append(constants.HF_HUB_OFFLINE))
    assert capfd.readouterr() == ("", "")
    assert offline == [True] and constants.HF_HUB_OFFLINE is False
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == state[2]  # noqa: NPY002
    assert transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled() == bars


# --- bad input -------------------------------------------------------------------------------------------------------


def test_without_trl_a_sentence_says_what_to_install(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ModuleNotFoundError, match=r"\(trl\); pip install 'infocomp\[post-training\]'"):
        tune_dpo(base, pairs, tmp_path, dpo())


def test_too_few_texts_are_refused(base, pairs, tmp_path):
    with pytest.raises(ValueError, match="3 pairs were given and 4 steps of 4 read 16; give more, or take fewer"):
        tune_dpo(base, pairs[:3], tmp_path, dpo())
    with pytest.raises(ValueError, match="0 texts were given and 40 steps of 16 read 640"):
        tune_sft(base, [], tmp_path)


def test_a_text_that_would_be_cut_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match=r"text 1 has \d+ tokens with its prompt, and the model reads 256"):
        tune_sft(base, [Text("x", "y"), Text("x", "y " * 300)], tmp_path, SFTSettings(steps=1, batch=2))


def test_a_folder_of_another_tuning_is_refused(base, pairs, tuned):
    with pytest.raises(ValueError, match=r"holds another tuning: beta is 0.05 there and 0.5 here; give another folder"):
        tune_dpo(base, pairs, tuned[0], dpo(beta=0.5))
    with pytest.raises(ValueError, match=r"holds another tuning: texts is \w+ there and \w+ here"):
        tune_dpo(base, pairs[1:], tuned[0], dpo())


def test_a_start_that_is_no_checkpoint_is_refused(pairs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no checkpoint with config.json, model.safetensors and"):
        tune_dpo(tmp_path / "nowhere", pairs, tmp_path / "out", dpo())
    with pytest.raises(FileNotFoundError, match=r"nowhere is no checkpoint with a tokenizer.json; give the folder"):
        prepare_case(tmp_path / "nowhere", tmp_path / "out")


def test_weights_that_stop_being_finite_are_refused(base, pairs, tmp_path):
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        tune_dpo(base, pairs, tmp_path, dpo(learning_rate=1e30, warmup_steps=0))
    assert not list(tmp_path.glob("step*"))


def test_checkpoints_are_kept_at_halves():
    assert SFTSettings().saved_steps == [5, 10, 20, 40] and DPOSettings().saved_steps == [8, 16, 32, 64]
    assert dpo(steps=3, checkpoints=5).saved_steps == [1, 3]


# --- the case --------------------------------------------------------------------------------------------------------


def test_the_case_is_three_tunings_and_held_out_pairs(base, tmp_path):
    planted = PlantedSettings(most_tokens=200, least_tokens=8)
    stage = {"steps": 2, "batch": 2, "checkpoints": 2, "learning_rate": 1e-3}
    settings = CaseSettings(planted=planted, sft=SFTSettings(**stage), dpo=DPOSettings(**stage), most_pairs=5)
    told = []
    case = prepare_case(base, tmp_path, settings, lambda *made: told.append(made))
    stages = ["sft", "dpo", "dpo-flipped"]
    assert told == [(number, 6, stages[(number - 1) // 2]) for number in range(1, 7)]
    assert case.base == base and case.raw_text == "held_out"
    for name in stages:
        assert case.tuned[name] == tmp_path / "tuned" / name
        assert case.checkpoints[name] == {step: case.tuned[name] / f"step{step}" for step in (1, 2)}
    rows = [json.loads(line) for line in case.pairs.read_text("utf-8").splitlines()]
    assert len(rows) == 5 and all(sorted(row["chosen"]) == sorted(row["rejected"]) for row in rows)
    trained = {json.loads(line)["chosen"] for line in case.training_pairs.read_text("utf-8").splitlines()}
    assert len(trained) == 4 and not trained & {row["chosen"] for row in rows}
    assert all(row["chosen"].lstrip().startswith(('"""', 'r"""', "'", '"')) for row in rows)
