"""Measuring while training: in a loop of one's own and in a Trainer, without a trace in what is trained."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import VOCABULARY, hooks_on
from tiny_text import some_texts, tiny_tokenizer
from transformers import AutoModelForCausalLM, GPTNeoXConfig, Trainer, TrainingArguments

import infocomp
from infocomp.execution.table import VOLATILE
from infocomp.studies.callback import Callback
from infocomp.studies.measure import measure

SITES = ("hook_embed", "blocks.1.hook_resid_post")
SMALL = {"bins": 10, "draws": 2, "context_length": 32, "orders": (1, 2)}
STEPS = 4


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def texts():
    return some_texts(4, 60)


def new_model():
    """A small GPT-NeoX with dropout, the same each time."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout=0.2,
        attention_dropout=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def batches() -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (STEPS, 4, 24), generator=torch.Generator().manual_seed(0))


def train_by_hand(callback=None, steps=range(STEPS), model=None):
    """A loop of one's own; the callback is called before every step and after the last."""
    model = new_model() if model is None else model
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(1)  # dropout
    for step in steps:
        if callback is not None:
            callback(model, step)
        assert model.training
        loss = model(batches()[step], labels=batches()[step]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if callback is not None:
        callback(model, steps[-1] + 1)
    return model


def train_with_trainer(folder, callbacks=(), steps: int = STEPS, resume: bool = False):
    """A Trainer on the CPU that reports to nobody."""
    model = new_model()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_strategy="steps",
        save_steps=2,
        report_to=[],
        use_cpu=True,
        seed=3,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data = [{"input_ids": ids, "labels": ids} for ids in batches().flatten(0, 1)]
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume or None)
    return model


def weights(model) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def assert_bit_equal(one, other) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def without_dates(frame: pd.DataFrame, *more: str) -> pd.DataFrame:
    return frame.drop(columns=[*VOLATILE, *more]).reset_index(drop=True)


def test_a_loop_of_ones_own_is_measured_every_so_many_steps(tokenizer, texts):
    callback = infocomp.Callback(tokenizer, texts, every=2, name="mine", sites=SITES, **SMALL)
    assert isinstance(callback, Callback)
    with pytest.raises(ValueError, match=r"^nothing was measured yet: no step so far was a multiple of `every`\.$"):
        callback.table()
    model = train_by_hand(callback)
    frame = callback.table()
    assert sorted(frame.step.unique()) == [0, 2, 4] and set(frame.revision) == {"step0", "step2", "step4"}
    assert set(frame.model) == {"mine"} and set(frame.site) == {*SITES, "logits"}
    assert frame.fingerprint.nunique() == 3
    assert callback(model, 3) is None
    loss = frame[(frame.quantity == "bits_per_token")].set_index("step").value
    assert loss[0] != loss[4]


def test_the_rows_are_those_of_measure(tokenizer, texts):
    model = new_model()
    rows = Callback(tokenizer, texts, every=5, name="mine", sites=SITES, seed=7, **SMALL)(model, 10)
    expected = measure(model, tokenizer, texts, SITES, name="mine", revision="step10", step=10, seed=7, **SMALL)
    pd.testing.assert_frame_equal(without_dates(rows), without_dates(expected), check_exact=True)
    assert set(rows.seed.dropna()) == {7}


def test_measuring_leaves_no_trace_in_a_loop_of_ones_own(tokenizer, texts, tmp_path):
    callback = Callback(tokenizer, texts, every=1, out=tmp_path, sites=SITES, **SMALL)
    measured, alone = train_by_hand(callback), train_by_hand()
    assert_bit_equal(measured, alone)
    assert hooks_on(measured) == 0
    model = new_model().eval()  # without dropout the weights would be others: the comparison can fail
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_dropout = 0.0
    for layer in model.gpt_neox.layers:
        layer.attention.attention_dropout = 0.0
    other = train_by_hand(model=model)
    assert not torch.equal(weights(other)[0], weights(alone)[0])


def test_measuring_leaves_no_trace_in_a_trainer(tokenizer, texts, tmp_path):
    callback = Callback(tokenizer, texts, every=2, sites=SITES, **SMALL)
    measured = train_with_trainer(tmp_path / "one", [callback])
    alone = train_with_trainer(tmp_path / "other")
    assert_bit_equal(measured, alone)
    assert sorted(callback.table().step.unique()) == [0, 2, 4]
    expected = measure(alone, tokenizer, texts, SITES, revision="step4", step=4, **SMALL)
    rows = callback.table().query("step == 4")
    pd.testing.assert_frame_equal(without_dates(rows), without_dates(expected), check_exact=True)


def test_a_trainer_that_is_started_again_goes_on_where_it_was(tokenizer, texts, tmp_path):
    out = tmp_path / "out"

    def callback():
        return Callback(tokenizer, texts, every=1, out=out, sites=SITES, **SMALL)

    train_with_trainer(tmp_path / "trainer", [callback()], steps=2)  # as if killed after two steps
    first = infocomp.read(out)
    assert sorted(first.step.unique()) == [0, 1, 2]
    model = train_with_trainer(tmp_path / "trainer", [callback()], resume=True)
    frame = infocomp.read(out)
    assert sorted(frame.step.unique()) == [0, 1, 2, 3, 4]
    again = frame[frame.step <= 1].reset_index(drop=True)
    # dates and seconds too: not measured again; step 2 may be, where the Trainer restored other weights
    pd.testing.assert_frame_equal(again, first[first.step <= 1].reset_index(drop=True), check_exact=True)
    train_with_trainer(tmp_path / "alone", steps=2)
    assert_bit_equal(model, train_with_trainer(tmp_path / "alone", resume=True))


def test_a_step_that_is_done_is_skipped_and_other_settings_are_another_step(tokenizer, texts, tmp_path):
    model = new_model()

    def measured(out, by=tokenizer, text=texts, sites=SITES, name="model", **settings):
        return Callback(by, text, 1, out, name, sites, **SMALL | settings)(model, 0) is not None

    out = tmp_path / "out"
    assert measured(out) and not measured(out)
    padded = tiny_tokenizer()
    padded(texts, padding="max_length", truncation=True, max_length=9)  # as a collator may have used it before
    assert not measured(out, padded)
    assert measured(out, name="another")
    for number, other in enumerate(
        [
            {"orders": (1,)},
            {"draws": 3},
            {"text": texts[:3]},
            {"sites": SITES[:1]},
            {"bos": "window"},
            {"labels": {"tag": np.arange(2000)[: len(tokens_of(tokenizer, texts))]}},
        ]
    ):
        out = tmp_path / str(number)
        assert measured(out)
        with pytest.raises(ValueError, match="other texts, labels, sites or settings; choose another out"):
            measured(out, **other)


def tokens_of(tokenizer, texts) -> list[int]:
    return [token for ids in tokenizer(texts, add_special_tokens=False).input_ids for token in ids]


def test_labels_of_ones_own_go_along(tokenizer, texts, tmp_path):
    tokens = np.array(tokens_of(tokenizer, texts))
    model, out = new_model(), tmp_path / "out"
    callback = Callback(tokenizer, texts, every=1, out=out, sites=SITES, labels={"parity": tokens % 2}, **SMALL)
    callback(model, 0)
    frame = callback.table()
    assert (frame[frame.label == "parity"].n_labels == 2).all() and (frame.label == "parity").sum() > 0
    long = tokens.copy()
    long[len(long) // 2] += 1  # in the middle, where the text of an array is cut short

    def tagged(by):
        return Callback(tokenizer, texts, 1, tmp_path / "other", labels={"tag": by}, sites=SITES, **SMALL)

    tagged(tokens)(model, 0)
    with pytest.raises(ValueError, match="other texts, labels, sites or settings"):
        tagged(long)


def test_another_training_into_the_same_folder_is_refused_at_its_first_step(tokenizer, texts, tmp_path):
    Callback(tokenizer, texts, 1, tmp_path, sites=SITES, **SMALL)(new_model(), 0)
    other = new_model()
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(ValueError, match="holds step 0 of another training"):
        Callback(tokenizer, texts, 1, tmp_path, sites=SITES, **SMALL)(other, 0)


def test_a_measurement_that_fails_later_is_a_row_and_training_goes_on(tokenizer, texts, tmp_path, caplog):
    callback = Callback(tokenizer, texts, 1, tmp_path, sites=SITES, **SMALL)
    model = new_model()
    callback(model, 0)
    with torch.no_grad():
        model.get_input_embeddings().weight[3] = float("nan")
    assert callback(model, 1) is None
    assert "step 1 was not measured" in caplog.text
    failed = infocomp.read(tmp_path).query("status == 'failed'")
    assert failed["revision"].tolist() == ["step1"] and "NaN" in failed["message"].iloc[0]


def test_every_must_be_a_step_or_more(tokenizer, texts):
    with pytest.raises(ValueError, match=r"^every must be at least 1 step, got 0\.$"):
        Callback(tokenizer, texts, every=0)
