"""Bits and greedy tokens of samples: against float64 logits of plain forward passes, `generate`, and the rate."""

import math

import numpy as np
import pytest
import torch
from test_rate import BENT, from_config
from tiny_models import ARCHITECTURES, VOCABULARY, hooks_on, tiny_model
from tiny_text import token_corpus

from infocomp.activations.stream import stream
from infocomp.coding.rate import CodeLength
from infocomp.corpora.windows import cut_windows
from infocomp.memorization.extraction import extract
from infocomp.memorization.samples import POSITIONS, SamplePass, sample_bits, sample_pass

BOS = 1


def some_rows(n: int = 7, length: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, VOCABULARY, (n, length))


def slow_twin(model, rows: np.ndarray, bos: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Bits and greedy hits, a sample at a time, from whole logits in float64."""
    bits, greedy = [], []
    for row in rows.tolist():
        ids = row if bos is None else [bos, *row]
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        told = torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]]
        bits.append((-told / math.log(2)).numpy())
        greedy.append((logits.argmax(-1) == torch.tensor(ids[1:])).numpy())
    return np.array(bits), np.array(greedy)


def easy_rows(model, n: int = 9, length: int = 12) -> np.ndarray:
    """Rows of which the model itself wrote the end, some with one token changed, so that both answers occur."""
    prompts = torch.tensor(some_rows(n, length // 2))
    with torch.inference_mode():
        for _ in range(length // 2):
            prompts = torch.cat([prompts, model(prompts).logits[:, -1:].argmax(-1)], dim=1)
    rows = prompts.numpy().copy()
    for row in range(0, n, 3):
        rows[row, length // 2 + row % (length // 2)] = 2
    return rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bos", [None, BOS])
def test_bits_and_greedy_tokens_are_those_of_whole_logits(architecture, bos):
    model = tiny_model(architecture)
    rows = np.vstack([some_rows(), easy_rows(model)])
    found = sample_pass(model, rows, bos, batch_rows=5)
    bits, greedy = slow_twin(model, rows, bos)
    assert found.bits.shape == (16, 12 - (bos is None)) and found.bits.dtype == np.float64
    # float32 logits of size 1 over 97 tokens: a few units in the last place of a code length of about 7 bits
    np.testing.assert_allclose(found.bits, bits, atol=3e-5)
    np.testing.assert_array_equal(found.greedy, greedy)
    assert bos is not None or 0.2 < greedy.mean() < 0.9, "both answers occur"


@pytest.mark.parametrize("kind", BENT)
def test_a_model_that_bends_its_logits_is_read_with_them_bent(kind):
    model = from_config(BENT[kind](), scale=0.5)
    rows = some_rows()
    found = sample_pass(model, rows, BOS)
    bits, greedy = slow_twin(model, rows, BOS)
    np.testing.assert_allclose(found.bits, bits, atol=3e-5)
    np.testing.assert_array_equal(found.greedy, greedy)


def test_bits_are_the_rate_of_documents_that_are_one_window_each():
    model, corpus = tiny_model("gpt_neox"), token_corpus([12] * 7)
    windows = cut_windows(corpus, 13, 1, bos_policy="window", bos=BOS)
    probe = CodeLength(model)
    stream(model, windows, [probe])
    rows = corpus.tokens.reshape(7, 12)
    np.testing.assert_allclose(sample_bits(model, rows, BOS).sum(), probe.nats().sum() / math.log(2), rtol=1e-6)


def test_any_batch_gives_the_same_bits_and_tells_every_position():
    model, rows = tiny_model("llama"), some_rows(POSITIONS["cpu"] // 12 + 9)
    told: list[int] = []
    whole = sample_pass(model, rows, BOS, batch_rows=1000, progress=told.append)
    single = sample_pass(model, rows, BOS, batch_rows=1, progress=told.append)
    np.testing.assert_allclose(whole.bits, single.bits, atol=1e-5)
    assert told == [rows.size] + [12] * len(rows)
    assert hooks_on(model) == 0


def test_the_first_difference_is_where_generate_leaves_the_sample():
    model = tiny_model("gpt_neox")
    rows = easy_rows(model)
    first = sample_pass(model, rows).first_difference(6)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    prompts = torch.tensor(rows[:, :6])
    emitted = model.generate(prompts, attention_mask=torch.ones_like(prompts), **settings).numpy()[:, 6:]
    wrong = emitted != rows[:, 6:]
    expected = [int(row.argmax()) if row.any() else 6 for row in wrong]
    assert first.tolist() == expected
    assert len(set(expected)) > 2 and expected.count(6) == 6


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_tokens_that_are_never_emitted_are_no_greedy_ones_and_bits_stay_as_they_are(architecture):
    model = tiny_model(architecture)
    free = easy_rows(model)
    said = np.bincount(free[:, 6:].ravel(), minlength=VOCABULARY).argsort()[::-1][:2].tolist()
    prompts = torch.tensor(free[:, :6])
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    settings |= {"suppress_tokens": said}
    own = model.generate(prompts, attention_mask=torch.ones_like(prompts), **settings).numpy()
    own[::3, 8] = said[0]
    found, plain = sample_pass(model, own, never=said), sample_pass(model, own)
    np.testing.assert_array_equal(found.bits, plain.bits)
    assert found.first_difference(6).tolist() == [2 if row % 3 == 0 else 6 for row in range(9)]
    assert (plain.first_difference(6) < 6).any(), "the model would have said one of them"
    assert found.first_difference(6).tolist() == extract(model, own, 6, 6, never=said).first_difference.tolist()
    assert not sample_pass(model, free, never=said).greedy[np.isin(free[:, 1:], said)].any()


def test_a_token_that_the_model_has_not_cannot_be_left_out():
    with pytest.raises(ValueError, match="never names the token 97, and the model has tokens 0 to 96; give ids of"):
        sample_pass(tiny_model("gpt2"), some_rows(2), never=(97,))


def test_by_hand_the_first_difference_counts_the_tokens_before_it():
    greedy = np.array([[0, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 0]], dtype=bool)
    found = SamplePass(np.zeros((4, 4)), greedy)
    assert found.first_difference(3).tolist() == [3, 1, 0, 0]
    assert found.first_difference(1).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("continuation", [0, 12])
def test_a_continuation_is_part_of_what_was_scored(continuation):
    found = sample_pass(tiny_model("gpt2"), some_rows(2))
    with pytest.raises(
        ValueError, match=f"continuation is {continuation}, and a sample has 11 scored tokens; take 1 to 11"
    ):
        found.first_difference(continuation)


@pytest.mark.parametrize(
    ("rows", "bos", "sentence"),
    [
        (np.zeros((0, 4), int), None, r"rows must be whole numbers \[samples, at least 2 tokens\], got int64 \(0, 4\)"),
        (np.zeros((3, 1), int), None, "at least 2 tokens"),
        (np.zeros((3, 0), int), BOS, "at least 1 tokens"),
        (np.zeros(4, int), BOS, r"got int64 \(4,\)"),
        (np.zeros((3, 4)), BOS, r"got float64 \(3, 4\)"),
        (np.full((1, 4), VOCABULARY), None, f"hold token {VOCABULARY}, and the model embeds tokens 0 to 96"),
        (np.full((1, 4), -1), None, "hold token -1"),
        (np.zeros((1, 4), int), 200, "hold token 200"),
        (np.zeros((1, 65), int), BOS, "of 65 tokens after a BOS needs 65 positions, and the model reads 64"),
        (np.zeros((1, 66), int), None, "of 66 tokens needs 65 positions, and the model reads 64"),
    ],
)
def test_what_is_no_table_of_tokens_is_refused_in_one_sentence(rows, bos, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample_pass(tiny_model("gpt_neox"), rows, bos)


def test_samples_may_be_as_long_as_the_model_reads():
    assert sample_bits(tiny_model("gpt_neox"), some_rows(1, 65)).shape == (1, 64)
    assert sample_bits(tiny_model("gpt_neox"), some_rows(1, 64), BOS).shape == (1, 64)


def test_a_batch_holds_a_sample():
    with pytest.raises(ValueError, match="batch_rows must be at least 1, got 0"):
        sample_pass(tiny_model("gpt2"), some_rows(2), batch_rows=0)


def test_a_diverged_model_is_refused_in_one_sentence():
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = math.nan
    with pytest.raises(ValueError, match="code length of 36 of 36 tokens is NaN or infinite: the model has diverged"):
        sample_pass(model, some_rows(3), BOS)
