"""Lockstep: every token once and in order, the same logits forwards and backwards, and those of a parallel pass."""

import numpy as np
import pytest
import torch
from tiny_coder import COLUMNS, POSITIONS, TOKENS, neox_model
from tiny_models import ARCHITECTURES, VOCABULARY, tiny_model
from tiny_text import token_corpus
from transformers import AutoModelForCausalLM, Qwen3Config

from infocomp.activations.stream import stream
from infocomp.coding.lockstep import Chunking, Lockstep
from infocomp.coding.rate import CodeLength
from infocomp.corpora.windows import cut_windows

BOS = 0


def sequence(n: int, vocabulary: int = TOKENS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, n).astype(np.int32)


def nats_of(lockstep: Lockstep, tokens: np.ndarray) -> np.ndarray:
    """−log p of every token in the order of the sequence."""
    found = {}
    order = []

    def use(logits, targets):
        order.append(targets)
        logp = torch.log_softmax(logits.double(), 1)
        found[len(found)] = -logp[torch.arange(len(targets)), torch.from_numpy(targets)].numpy()

    lockstep.encode(tokens, use)
    nats, at = np.zeros(len(tokens)), 0
    for group in lockstep.chunking.groups(len(tokens)):
        for step in range(group.length):
            lanes = np.arange(group.active(step))
            places = group.begin + lanes * group.length + step
            assert (tokens[places] == order[at]).all()
            nats[places] = found[at]
            at += 1
    return nats


@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 8, 9, 63, 64, 65, 1000])
@pytest.mark.parametrize("chunk, lanes", [(1, 1), (1, 5), (4, 3), (16, 1), (16, 64), (2000, 2)])
def test_groups_tile_the_sequence(tokens, chunk, lanes):
    groups = Chunking(chunk, 32, 0, lanes).groups(tokens)
    covered = []
    for group in groups:
        assert group.lanes <= lanes and group.length <= chunk
        for step in range(group.length):
            assert 1 <= group.active(step) <= group.lanes
            covered += [group.begin + lane * group.length + step for lane in range(group.active(step))]
    assert sorted(covered) == list(range(tokens))


def test_groups_are_even():
    groups = Chunking(100, 128, 0, 64).groups(100 * 65)
    assert [(group.lanes, group.length) for group in groups] == [(33, 100), (32, 100)]
    assert {group.length for group in Chunking(100, 128, 0, 64).groups(101)} == {51}


@pytest.mark.parametrize("overlap", [0, 7])
@pytest.mark.parametrize("chunk, lanes", [(11, 4), (31, 8), (90, 2)])
def test_decoding_sees_bit_for_bit_the_logits_of_encoding(chunk, lanes, overlap):
    lockstep = Lockstep(neox_model(), Chunking(chunk, POSITIONS, overlap, lanes), TOKENS, BOS)
    tokens, seen, again = sequence(333), [], []
    lockstep.encode(tokens, lambda logits, targets: seen.append((logits.clone(), targets)))

    def choose(logits):
        again.append(logits.clone())
        return seen[len(again) - 1][1]

    assert (lockstep.decode(len(tokens), choose) == tokens).all()
    assert len(again) == len(seen) and all(torch.equal(one, two[0]) for one, two in zip(again, seen, strict=True))
    assert seen[0][0].shape[1] == TOKENS < COLUMNS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("overlap", [0, 9])
def test_code_lengths_are_those_of_a_parallel_pass_over_the_same_windows(architecture, overlap):
    model = tiny_model(architecture, attention="sdpa")
    corpus = token_corpus([300])
    windows = cut_windows(corpus, POSITIONS, 1, POSITIONS - 1 - overlap, "window", BOS)
    rate = CodeLength(model)
    stream(model, windows, [rate])
    parallel = np.zeros(300)
    parallel[windows.scored_tokens] = rate.nats()
    lockstep = Lockstep(model, Chunking(300, POSITIONS, overlap, 1), VOCABULARY, BOS)
    assert nats_of(lockstep, corpus.tokens) == pytest.approx(parallel, abs=2e-4)


@pytest.mark.parametrize("overlap", [0, 9])
def test_layers_with_a_window_of_their_own_keep_to_it(overlap):
    """Of three layers the first sees everything and the others eight tokens."""
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, use_sliding_window=True, sliding_window=8, max_window_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert len(set(model.config.layer_types)) == 2
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    corpus = token_corpus([100])
    windows = cut_windows(corpus, POSITIONS, 1, POSITIONS - 1 - overlap, "window", BOS)
    rate = CodeLength(model)
    stream(model, windows, [rate])
    parallel = np.zeros(100)
    parallel[windows.scored_tokens] = rate.nats()
    lockstep = Lockstep(model, Chunking(100, POSITIONS, overlap, 1), VOCABULARY, BOS)
    assert nats_of(lockstep, corpus.tokens) == pytest.approx(parallel, abs=1e-3)


def test_progress_counts_every_token_once():
    lockstep = Lockstep(neox_model(), Chunking(10, POSITIONS, 0, 3), TOKENS, BOS)
    forwards, backwards = [], []
    lockstep.encode(sequence(37), lambda logits, targets: None, forwards.append)
    lockstep.decode(37, lambda logits: np.zeros(len(logits), np.int32), backwards.append)
    assert sum(forwards) == 37 and backwards == forwards


def test_chunks_start_anew():
    lockstep = Lockstep(neox_model(), Chunking(10, POSITIONS, 0, 3), TOKENS, BOS)
    tokens = sequence(60)
    each = [nats_of(lockstep, tokens[begin : begin + 10]) for begin in range(0, 60, 10)]
    assert nats_of(lockstep, tokens) == pytest.approx(np.concatenate(each), abs=1e-4)


def test_without_a_bos_the_first_token_of_a_window_is_predicted_by_equal_logits():
    lockstep = Lockstep(neox_model(), Chunking(8, POSITIONS, 0, 2), TOKENS, None)
    nats = nats_of(lockstep, sequence(16))
    assert nats[[0, 8]] == pytest.approx(np.log(TOKENS)) and abs(nats[1] - np.log(TOKENS)) > 1e-3


def test_bad_chunkings_are_refused():
    with pytest.raises(ValueError, match="chunk_tokens and lanes must be at least 1, got 0 and 4"):
        Chunking(0, 32, 0, 4)
    with pytest.raises(ValueError, match="chunk_tokens and lanes must be at least 1, got 4 and 0"):
        Chunking(4, 32, 0, 0)
    with pytest.raises(ValueError, match="context_length must be at least 2 positions, got 1"):
        Chunking(4, 1, 0, 4)
    with pytest.raises(ValueError, match="overlap must lie between 0 and 30 tokens for a context of 32, got 31"):
        Chunking(4, 32, 31, 4)
    with pytest.raises(ValueError, match="overlap must lie between 0 and 30 tokens for a context of 32, got -1"):
        Chunking(4, 32, -1, 4)
