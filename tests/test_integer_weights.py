"""Integer weights: exact sums, shares near softmax, and a stream that gives back what was written."""

import numpy as np
import pytest
import torch

from infocomp.coding.integer_weights import (
    TOTAL,
    RangeReader,
    RangeWriter,
    coded_bits,
    integer_weights,
)

PYTHIA = 50_304


def logits_of(bits_per_token: float, rows: int, symbols: int, seed: int = 0) -> torch.Tensor:
    """Rows whose entropy is near the one asked for: Gaussian logits, scaled by bisection."""
    base = torch.randn((rows, symbols), generator=torch.Generator().manual_seed(seed))
    low, high = 0.0, 60.0
    for _ in range(30):
        middle = (low + high) / 2
        logp = torch.log_softmax(base.double() * middle, 1)
        entropy = float(-(logp.exp() * logp).sum(1).mean()) / np.log(2)
        low, high = (middle, high) if entropy > bits_per_token else (low, middle)
    return base * low


def drawn(logits: torch.Tensor, seed: int = 1) -> np.ndarray:
    shares = torch.softmax(logits.double(), 1)
    return torch.multinomial(shares, 1, generator=torch.Generator().manual_seed(seed))[:, 0].numpy()


@pytest.mark.parametrize("symbols", [2, 97, 2048, PYTHIA])
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 50.0])
def test_weights_are_whole_not_negative_and_sum_exactly(symbols, scale):
    weights = integer_weights(scale * torch.randn((5, symbols), generator=torch.Generator().manual_seed(3)))
    assert weights.dtype == np.float64
    assert (weights == np.floor(weights)).all() and (weights >= 0).all()
    assert (weights.sum(axis=1) == TOTAL - symbols).all()


def test_by_hand_on_three_symbols():
    shares = np.array([0.5, 0.25, 0.25])
    weights = integer_weights(torch.tensor(np.log(shares), dtype=torch.float32)[None])[0]
    assert (weights + 1).tolist() == pytest.approx((shares * TOTAL).tolist(), abs=2)


def test_what_rounding_leaves_goes_to_the_most_probable_symbol():
    logits = torch.zeros((6, 7))
    tops = torch.arange(1, 7)
    logits[torch.arange(6), tops] = torch.linspace(0.5, 6, 6)
    for row, top in zip(integer_weights(logits), tops.tolist(), strict=True):
        assert len(set(np.delete(row, top))) == 1


def test_bits_by_hand():
    weights = integer_weights(torch.tensor([[0.0, -torch.inf], [0.0, 0.0], [-torch.inf, 0.0]]))
    assert coded_bits(weights, np.array([1, 0, 1])) == pytest.approx(24 + 1 + 0, abs=1e-6)


def test_what_was_never_seen_keeps_one_count_and_minus_infinity_is_allowed():
    weights = integer_weights(torch.tensor([[0.0, -torch.inf, -60.0]]))[0]
    assert weights.tolist() == [TOTAL - 3, 0, 0]


@pytest.mark.parametrize("bits_per_token", [1, 4, 9])
def test_overhead_over_the_ideal_is_at_most_five_thousandths_of_a_bit(bits_per_token):
    logits = logits_of(bits_per_token, 48, PYTHIA)
    logp = torch.log_softmax(logits.double(), 1).numpy()
    shares = (integer_weights(logits) + 1) / TOTAL
    expected = (np.exp(logp) * (logp / np.log(2) - np.log2(shares))).sum(axis=1)
    assert -np.sum(np.exp(logp) * logp, axis=1).mean() / np.log(2) == pytest.approx(bits_per_token, abs=0.1)
    assert 0 < expected.mean() <= 0.005


@pytest.mark.parametrize("symbols", [2, 300, PYTHIA])
def test_what_is_written_is_read_back_and_takes_two_words_more_than_its_shares(symbols):
    logits = logits_of(0.5 * np.log2(symbols), 64, symbols)
    targets = drawn(logits)
    writer = RangeWriter()
    parts = list(zip(np.array_split(targets, 7), np.array_split(integer_weights(logits), 7), strict=True))
    for some, weights in parts:
        writer.write(some, weights)
    words = writer.words()
    reader = RangeReader(words)
    assert np.concatenate([reader.read(weights) for _, weights in parts]).tolist() == targets.tolist()
    assert 0 <= 8 * len(words) - coded_bits(integer_weights(logits), targets) <= 2 * 32


def test_rows_do_not_depend_on_the_rows_beside_them():
    logits = 4 * torch.randn((9, PYTHIA), generator=torch.Generator().manual_seed(0))
    together = integer_weights(logits)
    assert all((integer_weights(row[None])[0] == others).all() for row, others in zip(logits, together, strict=True))


def test_no_row_at_all_is_no_symbol():
    none, some = integer_weights(torch.zeros((0, 4))), integer_weights(torch.zeros((1, 4)))
    writer = RangeWriter()
    for symbols, weights in (([], none), ([2], some), ([], none)):
        writer.write(np.array(symbols, dtype=np.int32), weights)
    reader = RangeReader(writer.words())
    assert [reader.read(weights).tolist() for weights in (none, some, none)] == [[], [2], []]


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_are_refused(wrong):
    logits = torch.zeros((3, 4))
    logits[1, 2] = wrong
    with pytest.raises(ValueError, match="logits hold NaN or infinity, with which no symbol can be coded"):
        integer_weights(logits)


def test_too_many_symbols_or_none_are_refused():
    with pytest.raises(ValueError, match="logits have 1 symbols; the coder takes 2 to"):
        integer_weights(torch.zeros((1, 1)))
    with pytest.raises(ValueError, match="logits have 0 symbols"):
        integer_weights(torch.zeros((1, 0)))
    with pytest.raises(ValueError, match=f"logits have {TOTAL // 2} symbols"):
        integer_weights(torch.zeros((1, 1)).expand(1, TOTAL // 2))


def test_symbols_and_rows_that_do_not_fit_are_refused():
    weights = integer_weights(torch.zeros((2, 4)))
    with pytest.raises(ValueError, match="there are 1 symbols for 2 rows of weights"):
        RangeWriter().write(np.array([1]), weights)
    with pytest.raises(ValueError, match="symbols go from 1 to 4, and weights are for 0 to 3"):
        RangeWriter().write(np.array([1, 4]), weights)
    with pytest.raises(ValueError, match="symbols go from -1 to 1, and weights are for 0 to 3"):
        RangeWriter().write(np.array([1, -1]), weights)
    with pytest.raises(ValueError, match="the coded stream has 5 bytes, and is made of words of 4"):
        RangeReader(b"12345")


def test_a_stream_that_no_encoder_writes_ends_in_a_sentence():
    """The library's own word for it is an AssertionError, which no command would catch."""
    weights = integer_weights(torch.randn((50, 97), generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="the coded stream does not fit the weights that it is read with"):
        RangeReader(b"\xff" * 8).read(weights)
