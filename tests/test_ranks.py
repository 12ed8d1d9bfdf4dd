"""Ranks and back, ties, the coders of ranks, and the whole way through a tiny model."""

import gzip

import brotli
import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, tiny_model

from infocomp.coding.lockstep import Chunking, Lockstep
from infocomp.coding.ranks import (
    RANK_CODERS,
    ByteCoder,
    RankStream,
    from_varint_bytes,
    rank_decode,
    rank_sizes,
    ranks,
    step_order,
    tokens_at,
    varint_bytes,
)

NAMES = ("rank + gzip -9", "rank + brotli -11", "rank + adaptive Huffman")


def some_logits(n: int = 50, vocabulary: int = 200, steps: int | None = None, seed: int = 0) -> torch.Tensor:
    """Random logits; with `steps`, rounded so coarsely that most of them are tied."""
    logits = torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(seed))
    return logits if steps is None else (logits * steps).round() / steps


def some_ranks(n: int = 3000, largest: int = 50_303, seed: int = 0) -> np.ndarray:
    drawn = np.floor(np.exp(np.random.default_rng(seed).exponential(1.5, n))) - 1
    return np.minimum(drawn, largest).astype(np.int64)


def large_ranks() -> np.ndarray:
    """Ranks all over 16 bits that come back: shorter as 16 bits each, for gzip and for brotli."""
    generator = np.random.default_rng(0)
    return generator.choice(generator.integers(0, 65_536, 1000), 3000)


def test_ranks_by_hand_with_ties_to_the_lower_id():
    logits = torch.tensor([[1.0, 3.0, 1.0, 2.0, 3.0]])
    # By falling logit, lower id first: 1, 4, 3, 0, 2.
    order = np.array([1, 4, 3, 0, 2])
    assert ranks(logits.expand(5, -1), order).tolist() == [0, 1, 2, 3, 4]
    assert tokens_at(logits.expand(5, -1), np.arange(5)).tolist() == order.tolist()


@pytest.mark.parametrize("steps", [None, 2, 0.2])
def test_ranks_are_places_in_a_stable_sort(steps):
    logits = some_logits(steps=steps)
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    for place in (0, 1, 31, 32, 33, 100, 199):
        assert (ranks(logits, order[:, place]) == place).all()
        assert np.array_equal(tokens_at(logits, np.full(50, place)), order[:, place])


@pytest.mark.parametrize("vocabulary", [1, 2, 31, 32, 33, 300])
def test_every_token_comes_back_from_its_rank_and_ranks_are_a_permutation(vocabulary):
    logits = some_logits(1, vocabulary, steps=1).expand(vocabulary, -1)
    ids = np.arange(vocabulary)
    found = ranks(logits, ids)
    assert sorted(found) == ids.tolist()
    assert np.array_equal(tokens_at(logits, found), ids)


def test_both_zeros_and_infinities_are_ties_like_any_other():
    logits = torch.tensor([[0.0, -0.0, -torch.inf, torch.inf, -torch.inf, 0.0, -0.0]]).expand(7, -1)
    assert ranks(logits, np.arange(7)).tolist() == [1, 2, 5, 0, 6, 3, 4]
    assert tokens_at(logits, np.arange(7)).tolist() == [3, 0, 1, 5, 6, 2, 4]


def test_half_precision_ranks_as_its_numbers_do():
    logits = some_logits(steps=None).bfloat16()
    assert (logits[0].unique().numel()) < 200, "some are tied"
    targets = np.arange(50)
    assert np.array_equal(ranks(logits, targets), ranks(logits.float(), targets))
    assert np.array_equal(tokens_at(logits, ranks(logits, targets)), targets)


def test_no_rows_have_no_ranks():
    empty = torch.zeros(0, 5)
    assert ranks(empty, np.zeros(0, np.int64)).shape == tokens_at(empty, np.zeros(0, np.int64)).shape == (0,)


def test_logits_and_targets_that_do_not_fit_are_refused():
    logits = some_logits(3, 10)
    spoiled = logits.clone()
    spoiled[1, 4] = torch.nan
    for function, name in ((ranks, "targets"), (tokens_at, "ranks")):
        with pytest.raises(ValueError, match=r"^1 of 3 rows of logits hold NaN, which has no rank; use a wider dtype"):
            function(spoiled, np.zeros(3, np.int64))
        with pytest.raises(ValueError, match=rf"^{name} must lie between 0 and 9, got 10; check the vocabulary's size"):
            function(logits, np.array([0, 10, 1]))
        with pytest.raises(ValueError, match=rf"^{name} must lie between 0 and 9, got -1"):
            function(logits, np.array([0, -1, 1]))
        with pytest.raises(ValueError, match=rf"^{name} has shape \(2,\), logits has 3 rows: one"):
            function(logits, np.array([0, 1]))
        with pytest.raises(ValueError, match=r"^logits must be rows of a vocabulary, got shape \(10,\)"):
            function(logits[0], np.array([0]))


@pytest.mark.parametrize("longest", [1, 127, 128, 16_383, 16_384, 2**31 - 1, 2**62])
def test_varints_come_back_and_are_as_short_as_they_can_be(longest):
    numbers = np.r_[np.random.default_rng(0).integers(0, longest + 1, 300), longest, 0, 127, 128, 0]
    coded = varint_bytes(numbers)
    assert np.array_equal(from_varint_bytes(coded), numbers)
    assert len(coded) == sum(max(1, -(-int(number).bit_length() // 7)) for number in numbers)


def test_varints_by_hand():
    # 300 = 2 · 128 + 44, as in the Protocol Buffers documentation.
    assert varint_bytes(np.array([1, 300, 0])) == bytes([1, 0b1010_1100, 0b0000_0010, 0])
    assert varint_bytes(np.zeros(0, np.int64)) == b""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "numbers", [some_ranks(), some_ranks(500, 151_000, 3) * 3, np.zeros(400, int), np.array([], int)]
)
def test_every_coder_gives_the_ranks_back(name, numbers):
    code = RANK_CODERS[name].encode(numbers)
    assert np.array_equal(RANK_CODERS[name].decode(code, len(numbers)), numbers)


def test_the_three_coders_are_there():
    assert tuple(RANK_CODERS) == NAMES


def test_byte_coders_take_the_shorter_serialisation_and_say_which():
    for numbers, which in ((some_ranks(), 0), (large_ranks(), 1)):
        low_high = numbers.astype("<u2").tobytes()
        for name, compress in (
            ("rank + gzip -9", lambda data: gzip.compress(data, 9, mtime=0)),
            ("rank + brotli -11", lambda data: brotli.compress(data, quality=11, lgwin=24)),
        ):
            code = RANK_CODERS[name].encode(numbers)
            assert code[0] == which
            assert len(code) == 1 + min(len(compress(varint_bytes(numbers))), len(compress(low_high)))


def test_sixteen_bits_are_not_used_where_a_rank_needs_more():
    numbers = np.r_[large_ranks(), 65_536]
    code = RANK_CODERS["rank + gzip -9"].encode(numbers)
    assert code[0] == 0
    assert np.array_equal(RANK_CODERS["rank + gzip -9"].decode(code, len(numbers)), numbers)


def test_byte_coders_refuse_what_is_no_code_of_these_ranks():
    coder = ByteCoder(bytes, bytes)  # nothing is compressed, so that single bytes can be broken
    with pytest.raises(ValueError, match=r"^ranks must be 0 or more, got -2; 0 is the most probable token\.$"):
        coder.encode(np.array([1, -2]))
    for code in (b"", b"\2abc"):
        with pytest.raises(ValueError, match=r"^no rank code: the first byte is (missing|2), 0 or 1 is needed"):
            coder.decode(code, 1)
    for code in (b"\0\1\2\3", b"\0\1\x82", b"\0\1\2\x83", b"\1\1\0", b"\1\1\0\2\0\3"):
        with pytest.raises(ValueError, match=r"^the code holds \d ranks, 2 were expected; it is damaged"):
            coder.decode(code, 2)
    with pytest.raises(ValueError, match=r"^a number of 10 bytes is no rank; the code is damaged\.$"):
        coder.decode(b"\0" + b"\x80" * 9 + b"\1", 1)


def test_step_order_is_the_order_in_which_lockstep_meets_the_tokens():
    for tokens, chunking in ((50, Chunking(8, 16, 0, 3)), (7, Chunking(3, 8, 0, 2)), (5, Chunking(9, 4, 1, 4))):
        met: list[int] = []
        model = tiny_model("gpt_neox")
        Lockstep(model, chunking, VOCABULARY, 0).encode(np.arange(tokens), lambda _, ids, met=met: met.extend(ids))
        assert step_order(chunking, tokens).tolist() == met
    assert len(step_order(Chunking(8, 16, 0, 3), 0)) == 0


@pytest.mark.parametrize("bos", [0, None])
@pytest.mark.parametrize("chunking", [Chunking(30, 16, 4, 3), Chunking(200, 64, 0, 1), Chunking(7, 8, 0, 16)])
def test_the_whole_way_round_through_a_model_gives_the_tokens_back(bos, chunking):
    model = tiny_model("gpt_neox")
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 101)
    lockstep, stream = Lockstep(model, chunking, VOCABULARY, bos), RankStream()
    lockstep.encode(tokens, stream.use)
    found = stream.ranks(chunking)
    assert found.min() >= 0 and found.max() < VOCABULARY
    for coder in RANK_CODERS.values():
        back = coder.decode(coder.encode(found), len(tokens))
        assert np.array_equal(rank_decode(lockstep, back), tokens)


def test_ranks_of_a_tiny_model_are_those_of_one_parallel_pass():
    model = tiny_model("llama")
    tokens = np.random.default_rng(1).integers(2, VOCABULARY, 40)
    lockstep, stream = Lockstep(model, Chunking(40, 64, 0, 1), VOCABULARY, 0), RankStream()
    lockstep.encode(tokens, stream.use)
    with torch.inference_mode():
        logits = model(torch.tensor([[0, *tokens[:-1]]])).logits[0]
    gaps = logits.sort(dim=1).values.diff(dim=1).amin()
    assert gaps > 0 and np.abs(stream.ranks(Chunking(40, 64, 0, 1)) - ranks(logits, tokens)).max() <= 1


@pytest.mark.parametrize("tokens", [np.random.default_rng(2).integers(2, VOCABULARY, 60), np.zeros(0, np.int64)])
def test_sizes_are_of_codes_that_came_back(tokens):
    model, chunking = tiny_model("gpt_neox"), Chunking(20, 16, 0, 4)
    sizes = rank_sizes(model, tokens, chunking, VOCABULARY, 0)
    assert tuple(sizes) == NAMES
    stream = RankStream()
    Lockstep(model, chunking, VOCABULARY, 0).encode(tokens, stream.use)
    assert sizes == {name: len(coder.encode(stream.ranks(chunking))) for name, coder in RANK_CODERS.items()}


def test_a_coder_that_loses_ranks_has_no_size():
    class Forgetful:
        def encode(self, ranks):
            return b"."

        def decode(self, code, n):
            return np.zeros(n, np.int64)

    tokens = np.random.default_rng(2).integers(2, VOCABULARY, 30)
    with pytest.raises(
        RuntimeError, match=r"^'forgetful' did not give back the 30 ranks that it coded; leave it out\.$"
    ):
        rank_sizes(tiny_model("gpt_neox"), tokens, Chunking(10, 16, 0, 3), VOCABULARY, 0, {"forgetful": Forgetful()})


def test_a_model_that_computes_differently_on_the_way_back_is_found_out():
    model = tiny_model("gpt_neox")
    noise = torch.Generator().manual_seed(0)

    def disturb(module, args, output):
        return output + torch.randn(output.shape, generator=noise)

    model.get_output_embeddings().register_forward_hook(disturb)
    tokens = np.random.default_rng(2).integers(2, VOCABULARY, 30)
    with pytest.raises(RuntimeError, match=r"^\d+ of 30 tokens did not come back from their ranks: the model computes"):
        rank_sizes(model, tokens, Chunking(10, 16, 0, 3), VOCABULARY, 0)
