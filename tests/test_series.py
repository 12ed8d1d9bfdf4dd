"""The miniature Pythia: ordinary Hugging Face folders, every byte paid for, equal files after any kill."""

import itertools
import multiprocessing
import os
import resource
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXForCausalLM

from infocomp.corpora.builtin import held_out_documents
from infocomp.corpora.documents import Document
from infocomp.training.optimizers import SGDSettings
from infocomp.training.schedule import CheckpointSettings
from infocomp.training.series import SEPARATOR, NextTokenLoss, SeriesSettings, save_checkpoint, train_series

STEPS = [0, 1, 2, 4, 8]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [document for document in held_out_documents() if document.name.startswith("json/")]


def tiny(**changes) -> SeriesSettings:
    values = {
        "vocabulary": 300,
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "context_length": 32,
        "batch": 4,
        "steps": 8,
    }
    return SeriesSettings(**(values | changes))


@pytest.fixture(scope="module")
def series(documents, tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("series")
    return out, train_series(tiny(), out, documents=documents)


def in_a_child(function):
    """A forked process: it has torch already, so it can be killed often."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python ≥ 3.12: the parent may have threads
        process = multiprocessing.get_context("fork").Process(target=function)
        process.start()
    return process


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted((out / "checkpoints").rglob("*.*"))}


def test_every_checkpoint_is_an_ordinary_folder_with_model_and_tokenizer(series):
    out, result = series
    assert result.checkpoints == {step: out / "checkpoints" / f"step{step}" for step in STEPS}
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == sorted(f"step{step}" for step in STEPS)
    for folder in result.checkpoints.values():
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        assert isinstance(model, GPTNeoXForCausalLM) and model.config.use_parallel_residual
        assert model.config.rope_parameters["partial_rotary_factor"] == 0.25
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert sum(parameter.numel() for parameter in model.parameters()) == result.parameters
        assert AutoTokenizer.from_pretrained(folder).bos_token == SEPARATOR


def test_the_weights_differ_from_checkpoint_to_checkpoint(series):
    _, result = series
    weights = [load_file(folder / "model.safetensors")["embed_out.weight"] for folder in result.checkpoints.values()]
    assert all(not torch.equal(earlier, later) for earlier, later in itertools.pairwise(weights))


def test_the_tokenizer_gives_every_text_back(series):
    tokenizer = AutoTokenizer.from_pretrained(series[1].checkpoints[8])
    for text in ("  def f(x):\n\treturn 'ä€😀'\r\n", "\x00\x7f", "".join(map(chr, range(32, 1000)))):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer) == 300 and tokenizer.bos_token_id == tokenizer.eos_token_id == 0


def test_all_tokens_of_the_disjoint_windows_are_paid_for(series):
    """The slow twin: each window by itself through the model's own head, token after token."""
    _, result = series
    model = AutoModelForCausalLM.from_pretrained(result.checkpoints[8])
    tokens = torch.randint(1, 300, (4 * 6,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mean = NextTokenLoss(tokens, 6, 0)(model, torch.arange(4))
        paid = 0.0
        for window in tokens.view(4, 6):
            log_p = model(torch.cat([torch.zeros(1, dtype=torch.int64), window])[None]).logits[0].log_softmax(-1)
            paid -= sum(log_p[position, token].item() for position, token in enumerate(window))
    assert mean.item() * 24 == pytest.approx(paid, rel=1e-5)


def test_training_lowers_the_loss_and_the_rows_count_tokens(series):
    out, result = series
    rows = pq.read_table(out / "training" / "steps.parquet").to_pylist()
    assert [row["tokens"] for row in rows] == [step * 4 * 32 for step in range(8)]
    assert result.tokens_per_step == 128
    assert rows[0]["loss"] == pytest.approx(torch.log(torch.tensor(300.0)).item(), abs=0.1)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3


def test_documents_are_parted_by_the_separator(documents, tmp_path):
    train_series(tiny(steps=1), tmp_path, documents=documents)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoints" / "step1")
    (stream,) = (tmp_path / "training").glob("tokens-*.npy")
    text = tokenizer.decode(np.load(stream).tolist())
    assert text == SEPARATOR.join(document.text for document in documents)


def test_the_default_text_is_the_training_side_of_the_built_in_corpus(tmp_path):
    result = train_series(tiny(steps=1, text_bytes=200_000), tmp_path)
    (stream,) = (tmp_path / "training").glob("tokens-*.npy")
    text = AutoTokenizer.from_pretrained(result.checkpoints[1]).decode(np.load(stream).tolist())
    used = text.split(SEPARATOR)
    assert 200_000 <= len(text.encode()) < 1_200_000
    assert not {document.text for document in held_out_documents()} & set(used)


def test_called_again_it_does_nothing(series, documents):
    out, _ = series
    before = {path: path.stat().st_mtime_ns for path in (out / "checkpoints").rglob("*")}
    told = []
    again = train_series(tiny(), out, progress=lambda *values: told.append(values), documents=documents)
    assert again.training.resumed_from == 8 and not told
    assert before == {path: path.stat().st_mtime_ns for path in (out / "checkpoints").rglob("*")}


def test_a_removed_checkpoint_comes_back_with_the_same_weights(series, documents, tmp_path):
    train_series(tiny(), tmp_path, documents=documents)
    for path in (tmp_path / "checkpoints" / "step4").iterdir():
        path.unlink()
    result = train_series(tiny(), tmp_path, documents=documents)
    assert result.training.resumed_from == 2
    assert contents(tmp_path) == contents(series[0])


def test_a_checkpoint_of_another_run_does_not_pass_for_one_of_this(series, documents, tmp_path):
    train_series(tiny(seed=1), tmp_path, documents=documents)
    (tmp_path / "training" / "state.pt").unlink()
    for path in (tmp_path / "training" / "states").iterdir():
        path.unlink()
    assert contents(tmp_path) != contents(series[0])
    train_series(tiny(), tmp_path, documents=documents)
    assert contents(tmp_path) == contents(series[0])


def test_killed_at_any_moment_it_ends_with_equal_files(series, documents, tmp_path):
    kills = 0
    for delay in (0.05, 0.15, 0.3, 0.6):
        child = in_a_child(lambda: train_series(tiny(), tmp_path, documents=documents))
        child.join(delay)
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
    assert kills
    result = train_series(tiny(), tmp_path, documents=documents)
    assert result.training.rows == series[1].training.rows
    assert contents(tmp_path) == contents(series[0])


def test_killed_while_a_checkpoint_is_written_no_half_folder_is_left(series, documents, tmp_path):
    def die_at_the_third_folder():
        rename, left = Path.rename, [3]

        def dying(self, target):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.rename = dying
        train_series(tiny(), tmp_path, documents=documents)

    child = in_a_child(die_at_the_third_folder)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step0", "step1"]
    half = tmp_path / "training" / "unfinished" / "step2"
    assert (half / "config.json").exists()
    (half / "half.safetensors").write_bytes(b"half")
    train_series(tiny(), tmp_path, documents=documents)
    assert contents(tmp_path) == contents(series[0])
    assert not half.exists()


def test_a_full_disk_is_one_sentence_and_loses_no_checkpoint(series, documents, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, steps, loss):
        if step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(
            OSError, match=r"step4 could not be written \(.*File too large.*\); free some disk"
        ) as error:
            train_series(tiny(), tmp_path, progress=fill, documents=documents)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step0", "step1", "step2"]
    assert not (tmp_path / "training" / "unfinished").exists()
    train_series(tiny(), tmp_path, documents=documents)
    assert contents(tmp_path) == contents(series[0])


def test_a_tokenizer_that_cannot_be_written_is_one_sentence_too(series, documents, tmp_path):
    (tmp_path / "training" / "unfinished" / "step1" / "tokenizer.json").mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(series[1].checkpoints[1])
    tokenizer = AutoTokenizer.from_pretrained(series[1].checkpoints[1])
    with pytest.raises(OSError, match=r"step1 could not be written \(Is a directory .*\); free some disk space"):
        save_checkpoint(model, tokenizer, tmp_path / "checkpoints" / "step1", tmp_path / "training" / "unfinished")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_diverged_series_says_so_and_keeps_the_checkpoints_before(documents, tmp_path):
    settings = tiny(optimizer=SGDSettings(learning_rate=1e30), clip_norm=None)
    result = train_series(settings, tmp_path, documents=documents)
    assert result.training.status == "failed"
    assert "became nan at step" in result.training.message or "became inf at step" in result.training.message
    assert 0 in result.checkpoints and 8 not in result.checkpoints


def test_another_series_in_the_same_folder_is_refused(series, documents):
    with pytest.raises(ValueError, match=r"belongs to another run: settings\.seed is 0 there and 1 here"):
        train_series(tiny(seed=1), series[0], documents=documents)
    with pytest.raises(ValueError, match="training text and vocabulary is"):
        train_series(tiny(), series[0], documents=documents[1:])
    with pytest.raises(ValueError, match="heads is 2 there and 4 here"):
        train_series(tiny(heads=4), series[0], documents=documents)


def test_a_text_shorter_than_a_window_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has 3 tokens, context_length is 32: one whole window is needed; give more"):
        train_series(tiny(), tmp_path, documents=[Document("short", "a b c")])


def test_settings_that_no_model_can_have_are_refused():
    with pytest.raises(ValidationError, match=r"hidden_size must be a multiple of 8 x heads.*it is 36 with 2 heads"):
        tiny(hidden_size=36)
    with pytest.raises(ValidationError, match="greater than 256"):
        tiny(vocabulary=256)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        tiny(width=3)


def test_settings_reach_the_trainer():
    trainer = tiny(clip_norm=0.5, state_every_steps=7, checkpoints=CheckpointSettings(log_spaced_until=2)).trainer()
    assert (trainer.steps, trainer.clip_norm, trainer.state_every_steps) == (8, 0.5, 7)
    assert trainer.checkpoints.steps(trainer.steps) == [0, 1, 2, 8]
    assert trainer.optimizer == SeriesSettings().optimizer and trainer.schedule == SeriesSettings().schedule


def test_the_smoke_series_takes_seconds(tmp_path):
    begin = time.process_time()
    settings = SeriesSettings(
        vocabulary=512, hidden_size=64, layers=2, heads=2, context_length=128, batch=8, steps=32, text_bytes=1_000_000
    )
    result = train_series(settings, tmp_path)
    assert list(result.checkpoints) == [0, 1, 2, 4, 8, 16, 32]
    assert result.training.rows[-1]["loss"] < 5.0
    assert time.process_time() - begin < 15
