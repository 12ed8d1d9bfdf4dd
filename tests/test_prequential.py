"""The online code of a training run: by hand, its refusals, and a real training checked batch by batch."""

import json
import math
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tiny_run import write_text
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPTNeoXConfig, LlamaConfig

from infocomp.coding.classical import classical_rates
from infocomp.coding.prequential import Presentation, adaptive_unigram_bits, dropout_of, prequential_code
from infocomp.corpora.documents import Document
from infocomp.execution.table import check_unique, rows_to_table
from infocomp.studies.prequential_rows import chosen_steps, prequential_rows, presented_text, run_code
from infocomp.training.optimizers import AdamWSettings
from infocomp.training.schedule import CheckpointSettings
from infocomp.training.series import SEPARATOR, SeriesSettings, one_epoch, read_series, train_series

LENGTH, BATCH = 32, 4
ABOUT = {"model": "tiny", "dtype": "float32"}


def losses(*nats: float) -> list[dict]:
    return [{"step": step, "loss": loss} for step, loss in enumerate(nats)]


def settings(**changes) -> SeriesSettings:
    values = {"vocabulary": 300, "hidden_size": 32, "layers": 2, "heads": 2, "context_length": LENGTH, "batch": BATCH}
    values |= {"steps": 1, "checkpoints": CheckpointSettings(log_spaced_until=64), "keep_states": False}
    values |= {"optimizer": AdamWSettings(learning_rate=0.01)}
    return SeriesSettings(**(values | changes))


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> list[Document]:
    folder = write_text(tmp_path_factory.mktemp("texts"), 9)
    texts = [Document(path.name, path.read_text("utf-8")) for path in sorted(folder.iterdir())]
    return [*texts, Document("more", "naïve café, 東京 – “quoted” 🙂\n" * 20)]


@pytest.fixture(scope="module")
def trained(documents, tmp_path_factory):
    """One whole epoch of a tiny series."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("run")
    chosen = one_epoch(settings(), out, documents)
    return out, chosen, train_series(chosen, out, documents=documents)


# --- by hand ------------------------------------------------------------------------------------------------------


def test_two_batches_by_hand():
    presentation = Presentation(windows=5, batch=2, context_length=10, side_bytes=100)
    code = prequential_code(losses(3 * math.log(2), 1 * math.log(2)), [50, 30], presentation)
    assert code.steps.tolist() == [1, 2] and code.tokens.tolist() == [20, 40] and code.bytes.tolist() == [50, 80]
    assert code.bits.tolist() == pytest.approx([60, 80])
    assert code.bits_per_token.tolist() == pytest.approx([3, 2])
    assert code.bits_per_byte.tolist() == pytest.approx([1.2, 1.0])
    assert code.bits_per_byte_with_side.tolist() == pytest.approx([860 / 50, 880 / 80])


def test_a_last_row_that_only_measures_is_no_presentation():
    rows = [*losses(1.0, 1.0), {"step": 2, "held_out": 0.9}, {"step": 2, "loss": None}]
    code = prequential_code(rows, [9, 9], Presentation(windows=4, batch=2, context_length=3))
    assert code.steps.tolist() == [1, 2]


def test_the_adaptive_unigram_code_pays_token_after_token():
    """The slow twin; the order makes no difference."""
    tokens = np.random.default_rng(0).integers(0, 7, 200)
    for order in (tokens, tokens[::-1]):
        counts, paid = np.zeros(9), 0.0
        for token in order:
            paid -= math.log2((counts[token] + 0.5) / (counts.sum() + 4.5))
            counts[token] += 1
        assert adaptive_unigram_bits(counts) == pytest.approx(paid, rel=1e-12)
    assert adaptive_unigram_bits(np.zeros(9, dtype=np.int64)) == 0


def test_chosen_steps_are_even_in_the_logarithm_and_hold_every_checkpoint():
    assert chosen_steps(100, 3, [0, 64, 128]).tolist() == [1, 10, 64, 100]
    assert chosen_steps(3, 64).tolist() == [1, 2, 3]


# --- refusals -----------------------------------------------------------------------------------------------------


def test_more_than_one_epoch_is_refused_and_told():
    presentation = Presentation(windows=10, batch=4, context_length=8)
    assert len(prequential_code(losses(1, 1), [1, 1], presentation).steps) == presentation.steps_of_one_epoch == 2
    sentence = (
        r"read its text for 1\.2 epochs \(3 steps of 4 windows out of 10\), and only first presentations make a "
        r"prequential code; train for at most one epoch, which is 2 steps\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        prequential_code(losses(1, 1, 1), [1, 1, 1], presentation)


def test_a_training_under_dropout_is_refused():
    presentation = Presentation(windows=10, batch=4, context_length=8, dropout=0.1)
    with pytest.raises(
        ValueError, match=r"trained with dropout 0\.1, so its loss is no code length; train with dropout"
    ):
        prequential_code(losses(1), [1], presentation)


def test_the_dropout_of_a_configuration_is_found_under_any_of_its_names():
    assert dropout_of(GPTNeoXConfig(classifier_dropout=0.5).to_dict()) == 0
    assert dropout_of(GPTNeoXConfig(hidden_dropout=0.2).to_dict()) == 0.2
    assert dropout_of(LlamaConfig(attention_dropout=0.3).to_dict()) == 0.3
    assert dropout_of(GPT2Config().to_dict()) == 0.1
    assert dropout_of(GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, summary_first_dropout=0.4).to_dict()) == 0


def test_rows_that_are_no_whole_training_are_refused():
    presentation = Presentation(windows=10, batch=2, context_length=8)
    with pytest.raises(ValueError, match=r"row 1 is of step 2, and a prequential code needs every step from 0 on"):
        prequential_code([{"step": 0, "loss": 1.0}, {"step": 2, "loss": 1.0}], [1, 1], presentation)
    with pytest.raises(ValueError, match=r"row 0 is of step 5"):
        prequential_code([{"step": 5, "loss": 1.0}], [1], presentation)
    with pytest.raises(ValueError, match="the run has no step with a loss; train at least one step"):
        prequential_code([{"step": 0}], [], presentation)
    with pytest.raises(ValueError, match=r"the loss of step 1 is nan, and a code length needs finite losses"):
        prequential_code(losses(1.0, float("nan")), [1, 1], presentation)
    with pytest.raises(ValueError, match=r"the loss of step 0 is -0\.5"):
        prequential_code(losses(-0.5), [1], presentation)
    with pytest.raises(ValueError, match=r"bytes_per_step has 1 entries with 7 bytes for 2 steps; give the bytes of"):
        prequential_code(losses(1.0, 1.0), [7], presentation)


def test_a_second_epoch_of_a_real_training_is_refused(trained, documents, tmp_path):
    _, chosen, _ = trained
    shutil.copytree(trained[0] / "training", tmp_path / "training")
    for name in ("state.pt", "steps.parquet"):
        (tmp_path / "training" / name).unlink()
    train_series(chosen.model_copy(update={"steps": chosen.steps + 1}), tmp_path, documents=documents)
    with pytest.raises(ValueError, match=rf"epochs \({chosen.steps + 1} steps of 4 .* which is {chosen.steps} steps\."):
        prequential_rows(tmp_path, ABOUT)


def test_dropout_in_the_checkpoints_configuration_is_refused(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attention_dropout": 0.1}))
    with pytest.raises(ValueError, match=r"trained with dropout 0\.1"):
        prequential_rows(tmp_path / "run", ABOUT)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint of its series, whose configuration says whether"):
        prequential_rows(tmp_path / "run", ABOUT)


# --- a real training ----------------------------------------------------------------------------------------------


def test_one_epoch_presents_every_window_at_most_once_and_all_but_a_remainder(trained):
    out, chosen, _ = trained
    run = read_series(out)
    seen = np.concatenate([run.order(step).numpy() for step in range(chosen.steps)])
    assert len(np.unique(seen)) == len(seen) == chosen.steps * BATCH
    assert run.windows - BATCH < len(seen) <= run.windows
    assert chosen.steps > 16


def test_the_first_presentation_costs_what_the_checkpoint_before_it_says(trained, documents):
    """Independent of the trainer: text, tokenizer and weights from their files, the order drawn again, plain logits."""
    out, chosen, result = trained
    run = read_series(out)
    code = run_code(run, out)
    tokenizer = AutoTokenizer.from_pretrained(result.checkpoints[0])
    stream = torch.tensor(tokenizer(SEPARATOR.join(document.text for document in documents)).input_ids)
    windows = stream[: len(stream) // LENGTH * LENGTH].view(-1, LENGTH)
    order = np.random.default_rng([chosen.seed, 0]).permutation(len(windows))
    spent = np.diff(code.bits, prepend=0.0)
    tried = [step for step in result.checkpoints if step < chosen.steps]
    assert tried == [0, 1, 2, 4, 8, 16, 32][: len(tried)] and len(tried) >= 5
    for step in tried:
        model = AutoModelForCausalLM.from_pretrained(result.checkpoints[step]).eval()
        batch = windows[order[step * BATCH : (step + 1) * BATCH]]
        assert torch.equal(run.presented(step), batch)
        with torch.inference_mode():
            given = torch.cat([torch.full((BATCH, 1), tokenizer.bos_token_id), batch], dim=1)
            log_p = model(given).logits[:, :-1].double().log_softmax(-1)
        paid = -log_p.gather(2, batch[:, :, None]).sum().item() / math.log(2)
        assert spent[step] == pytest.approx(paid, rel=2e-6)  # float32 losses


def test_the_bytes_are_those_of_the_text_presented(trained, documents):
    out, chosen, _ = trained
    run = read_series(out)
    code = run_code(run, out)
    assert len(presented_text(run, chosen.steps)) == code.bytes[-1]
    assert len(presented_text(run, 3)) == code.bytes[2]
    tokenizer = AutoTokenizer.from_pretrained(out / "checkpoints" / "step0")
    first = b"".join(tokenizer.decode(window).replace(SEPARATOR, "").encode() for window in run.presented(0))
    assert presented_text(run, 1) == first
    whole = "".join(document.text for document in documents).encode()
    left_out = len(run.tokens) - chosen.steps * BATCH * LENGTH
    assert len(whole) - 12 * left_out <= code.bytes[-1] <= len(whole)
    assert code.tokens[-1] == chosen.steps * BATCH * LENGTH


def test_the_rows_are_those_of_the_table_with_nulls_and_the_tokenizer_paid_for(trained):
    out, chosen, result = trained
    code = run_code(read_series(out), out)
    rows = prequential_rows(out, ABOUT, points=5, coders=["xz -9e"])
    check_unique(rows_to_table(rows))
    rate = {
        row["step"]: row
        for row in rows
        if row["quantity"] == "bits_per_byte" and not row.get("label") and "step" in row
    }
    assert {step for step in result.checkpoints if step} <= set(rate) and 0 not in rate
    for step, row in rate.items():
        assert row["value"] == pytest.approx(code.bits_per_byte[step - 1])
        assert row["tokens_seen"] == row["n_tokens"] == step * BATCH * LENGTH and row["revision"] == f"step{step}"
        assert row["settings"]["bytes"] == code.bytes[step - 1] and row["in_training"] == "known"
    last = rate[chosen.steps]
    run = read_series(out)
    tokens = torch.cat([run.presented(step).ravel() for step in range(chosen.steps)])
    null = adaptive_unigram_bits(np.bincount(tokens.numpy(), minlength=300))
    assert last["null"] == pytest.approx(null / code.bytes[-1])
    assert last["value"] < last["null"]
    (paid,) = [row for row in rows if row.get("label") == "with tokenizer"]
    assert paid["value"] == pytest.approx(last["value"] + 8 * paid["settings"]["tokenizer_bytes"] / code.bytes[-1])
    assert 500 < paid["settings"]["tokenizer_bytes"] < 5000
    (coder,) = [row for row in rows if row["estimator"] == "classical"]
    (size,) = classical_rates(presented_text(run, chosen.steps), ["xz -9e"])
    assert coder["value"] == size.bits_per_byte and coder["corpus"] == last["corpus"] == "training text"


def test_the_bits_are_those_of_the_rows_that_readers_see(trained):
    out, _, _ = trained
    rows = pq.read_table(out / "training" / "steps.parquet").to_pylist()
    assert run_code(read_series(out), out).bits[-1] == pytest.approx(
        sum(row["loss"] for row in rows) * BATCH * LENGTH / math.log(2), rel=1e-12
    )


def test_an_unfinished_run_has_the_code_of_what_it_read(trained, documents, tmp_path):
    out, chosen, _ = trained
    shutil.copytree(out / "training", tmp_path / "training")
    for name in ("state.pt", "steps.parquet"):
        (tmp_path / "training" / name).unlink()

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_series(chosen.model_copy(update={"state_every_steps": 1}), tmp_path, stop, documents)
    part, whole = (run_code(read_series(folder), folder) for folder in (tmp_path, out))
    assert len(part.steps) == 5
    assert part.bits.tolist() == whole.bits[:5].tolist() and part.bytes.tolist() == whole.bytes[:5].tolist()


def test_a_folder_without_a_series_is_refused(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no training/state\.pt; give the folder of a run that trained"):
        prequential_rows(tmp_path, ABOUT)
    (tmp_path / "training").mkdir()
    torch.save({"identity": {"settings.seed": 0}}, tmp_path / "training" / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is no state of a series \(.*\); train the series anew"):
        read_series(tmp_path)
    save_file({"x": torch.ones(3)}, tmp_path / "training" / "state.pt")
    with pytest.raises(ValueError, match="is no state of a series"):
        read_series(tmp_path)
    torch.save(Document("a", "b"), tmp_path / "training" / "state.pt")  # no plain data, and so not loaded
    with pytest.raises(ValueError, match="is no state of a series"):
        read_series(tmp_path)
    shutil.copy(trained[0] / "training" / "state.pt", tmp_path / "training" / "state.pt")
    with pytest.raises(FileNotFoundError, match=r"tokenizer-\w+\.json is gone; call train_series again with the same"):
        read_series(tmp_path)


def test_one_epoch_of_less_than_a_batch_is_refused(documents, tmp_path):
    with pytest.raises(ValueError, match=r"has \d+ windows of 32 tokens, a batch 4000: one epoch needs at least one"):
        one_epoch(settings(batch=4000), tmp_path, documents)
