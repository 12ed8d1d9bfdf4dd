"""Random sequences and the most that can be memorized of them, against the best code found by brute force."""

import math
import re
from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from infocomp.memorization.random_data import (
    ceiling_bits,
    check_memory,
    check_random,
    entropy_bits,
    fresh_rows,
    random_rows,
)


def least_bits(rows: np.ndarray, vocabulary: int, given: int) -> float:
    """The least total code length of the rows under any model that gives each sequence a probability of its own,
    the first `given` tokens known: minimised numerically over all such models, a distribution for each beginning."""
    everything = list(product(range(vocabulary), repeat=rows.shape[1] - given))
    starts = sorted({tuple(row[:given]) for row in rows.tolist()})
    seen = np.array([(starts.index(tuple(r[:given])), everything.index(tuple(r[given:]))) for r in rows.tolist()])
    shape = (len(starts), len(everything))

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        scores = flat.reshape(shape)
        logarithms = scores - logsumexp(scores, axis=1, keepdims=True)
        slope = np.zeros(shape)
        np.add.at(slope, tuple(seen.T), -1.0)
        slope += np.exp(logarithms) * -slope.sum(1, keepdims=True)
        return -logarithms[tuple(seen.T)].sum(), slope.ravel()

    found = minimize(cost, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return float(found.fun) / math.log(2)


@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize(("vocabulary", "length", "count"), [(2, 3, 1), (2, 3, 6), (3, 3, 20), (4, 3, 9), (5, 3, 60)])
def test_the_ceiling_is_what_the_best_model_of_single_sequences_leaves(vocabulary, length, count, given):
    for seed in range(4):
        rows = np.random.default_rng(seed).integers(0, vocabulary, (count, length))
        best = entropy_bits(count, length - given, vocabulary) - least_bits(rows, vocabulary, given)
        assert ceiling_bits(rows, vocabulary, given) == pytest.approx(best, abs=1e-3 * count)
        assert ceiling_bits(rows, vocabulary, given) >= best - 1e-9, "what is found lies under it, by how far it is off"


def test_sequences_that_repeat_by_hand():
    rows = np.array([[0, 1], [0, 1], [1, 1], [1, 0]])
    assert ceiling_bits(rows, 2) == 4 * 2 - (2 * 1 + 2 * 2), "half, a quarter, a quarter: 1, 2, 2 bits"
    assert ceiling_bits(rows, 2, given=1) == 4 * 1 - 2, "after a 0 always 1; after a 1 one bit each"
    assert ceiling_bits(np.zeros((5, 3), int), 4) == 5 * 3 * 2, "one sequence five times costs nothing to choose"


@pytest.mark.parametrize(("vocabulary", "length", "count"), [(64, 16, 500), (2048, 64, 4096), (512, 4, 1)])
def test_of_distinct_sequences_it_is_the_closed_form(vocabulary, length, count):
    rows = random_rows(count, vocabulary, length, seed=3)
    assert len(np.unique(rows, axis=0)) == count
    assert ceiling_bits(rows, vocabulary) == pytest.approx(count * (length * math.log2(vocabulary) - math.log2(count)))
    assert entropy_bits(count, length, vocabulary) == pytest.approx(count * length * math.log2(vocabulary))
    order = np.random.default_rng(0).permutation(count)
    assert ceiling_bits(rows[order], vocabulary) == pytest.approx(ceiling_bits(rows, vocabulary))


# --- the sequences ----------------------------------------------------------------------------------------------------


def test_tokens_are_uniform_independent_and_of_the_seed():
    rows = random_rows(4000, 8, 5, seed=1)
    assert rows.shape == (4000, 5) and rows.dtype == np.int64
    for place in range(5):
        counts = np.bincount(rows[:, place], minlength=8)
        assert ((counts - 500) ** 2 / 500).sum() < 24.3, "chi squared, 7 degrees of freedom, 1 in 1000"
    pairs = np.bincount(8 * rows[:, 0] + rows[:, 1], minlength=64)
    assert ((pairs - 62.5) ** 2 / 62.5).sum() < 103.4, "63 degrees of freedom, 1 in 1000"
    np.testing.assert_array_equal(rows, random_rows(4000, 8, 5, seed=1))
    assert (rows != random_rows(4000, 8, 5, seed=2)).mean() == pytest.approx(7 / 8, abs=0.01)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16])
def test_fresh_sequences_are_none_of_the_known_ones(kind):
    known = random_rows(40, 3, 4, seed=0).astype(kind)
    fresh = fresh_rows(known, 3, seed=0)
    taken, left = ({tuple(row) for row in rows.tolist()} for rows in (known, fresh))
    assert 0 < len(fresh) < 40 and not taken & left, "40 of 81: chance draws some twice"
    long = random_rows(300, 64, 16, seed=0)
    assert len(fresh_rows(long, 64, seed=0)) == 300 and (fresh_rows(long, 64, seed=0) != long).mean() > 0.97
    everything = np.array(list(product(range(2), repeat=3)))
    assert fresh_rows(everything, 2, seed=0).shape == (0, 3), "nothing is left to draw"


# --- guards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "vocabulary", "length", "sentence"),
    [
        (4, 0, 5, "random data need vocabulary of at least 2, got 0"),
        (4, 1, 5, "random data need vocabulary of at least 2, got 1"),
        (4, 5, 0, "random data need length of at least 1, got 0"),
        (4, 5, -2, "random data need length of at least 1, got -2"),
        (0, 5, 5, "random data need sequences of at least 1, got 0"),
        (9, 2, 3, "9 sequences are asked for, and only 2^3 = 8 differ; use fewer sequences, or a larger vocabulary or"),
        (10**12 + 1, 10, 12, "1,000,000,000,001 sequences are asked for, and only 10^12 = 1,000,000,000,000 differ"),
    ],
)
def test_sizes_that_make_no_data_are_one_sentence(count, vocabulary, length, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        check_random(count, vocabulary, length)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        random_rows(count, vocabulary, length, seed=0)


def test_as_many_sequences_as_there_are_may_be_asked_for():
    check_random(8, 2, 3)
    check_random(10**12, 10, 12)
    check_random(10**9, 2048, 10**6)
    assert random_rows(8, 2, 3, seed=0).shape == (8, 3)


def test_data_larger_than_memory_are_told_before_any_are_made():
    check_memory(1000, 16, available=1e6)
    sentence = "10,000,000 sequences of 64 tokens take 20.5 GB, 8.0 GB of memory are free; use fewer sequences"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_memory(10_000_000, 64, available=8e9)
