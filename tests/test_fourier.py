"""Fourier sparsity, key frequencies, restricted and excluded loss: logits of known waves, and what must not leak."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infocomp.grokking.fourier import (
    component_norms,
    cross_entropy,
    fourier_basis,
    fourier_gini,
    frequency_norms,
    gini,
    key_frequencies,
    restricted_and_excluded,
)
from infocomp.grokking.tasks import ArithmeticTask, split_pairs

CYCLIC = ["addition", "subtraction", "multiplication", "division"]


def order_of(task: ArithmeticTask) -> np.ndarray:
    order = task.cyclic_order()
    assert order is not None
    return order


def waves(task: ArithmeticTask, heights: dict[int, float]) -> np.ndarray:
    """Logits Σ_k height_k cos(2πk (place of the answer − place of the output)/m), 0 off the cyclic order."""
    order = order_of(task)
    m, place = len(order), np.full(task.elements, -1)
    place[order] = np.arange(m)
    turn = 2 * np.pi * (place[task.answer][:, None] - place[None, :]) / m
    inside = (place[task.answer] >= 0)[:, None] & (place >= 0)[None, :]
    return np.where(inside, sum(height * np.cos(k * turn) for k, height in heights.items()), 0.0)


@pytest.mark.parametrize("m", [2, 3, 4, 5, 58, 59, 113])
def test_the_basis_is_orthonormal(m):
    basis = fourier_basis(m)
    np.testing.assert_allclose(basis @ basis.T, np.eye(m), atol=1e-13)


def test_the_basis_of_four_places_by_hand():
    half, root = 0.5, np.sqrt(0.5)
    expected = [[half] * 4, [root, 0, -root, 0], [0, root, 0, -root], [half, -half, half, -half]]
    np.testing.assert_allclose(fourier_basis(4), expected, atol=1e-15)


def test_gini_by_hand():
    assert gini([0, 0, 5]) == pytest.approx(2 / 3)
    assert gini([7, 7, 7, 7]) == pytest.approx(0)
    assert gini([3, 1, 2]) == pytest.approx(1 - 2 * (1 * 2.5 + 2 * 1.5 + 3 * 0.5) / 6 / 3)
    assert gini([0.0, 0.0]) is None, "zeros are neither spread nor sparse"


@given(arrays(float, 7, elements=st.floats(0.01, 100)), st.floats(0.1, 10))
def test_gini_is_half_the_relative_mean_difference_whatever_the_scale(values, scale):
    found = gini(values * scale)
    assert found == pytest.approx(np.abs(values[:, None] - values).mean() / (2 * values.mean()), abs=1e-12)


def test_norms_hold_all_of_the_matrix_and_only_the_planted_frequency():
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(59, 20))
    assert (component_norms(matrix, np.arange(59)) ** 2).sum() == pytest.approx((matrix**2).sum())
    planted = np.outer(np.cos(2 * np.pi * 3 * np.arange(59) / 59 + 0.7), generator.normal(size=20))
    norms = frequency_norms(planted, np.arange(59))
    assert norms[2] == pytest.approx(np.linalg.norm(planted)), "the third entry is frequency 3"
    assert np.delete(norms, 2).max() < 1e-13 * norms[2]
    assert fourier_gini(planted, np.arange(59)) == pytest.approx(1 - 1 / 29)


@pytest.mark.parametrize("m", [12, 13])
def test_where_the_order_begins_does_not_matter_to_a_frequency(m):
    matrix = np.random.default_rng(1).normal(size=(m, 4))
    order, turned = np.arange(m), np.roll(np.arange(m), 5)
    np.testing.assert_allclose(frequency_norms(matrix, order), frequency_norms(matrix, turned))
    assert abs(component_norms(matrix, order) - component_norms(matrix, turned)).max() > 0.1


def test_a_multiplicative_character_is_one_frequency_in_its_own_order_alone():
    order = order_of(ArithmeticTask("multiplication", 59))
    matrix = np.zeros((59, 1))
    matrix[order, 0] = np.cos(2 * np.pi * 5 * np.arange(58) / 58)
    assert key_frequencies(matrix, order) == [5]
    assert len(key_frequencies(matrix, np.arange(59))) > 10


def test_key_frequencies_stand_above_the_stated_share_of_the_largest():
    places = np.arange(31)
    columns = [height * np.cos(2 * np.pi * k * places / 31) for k, height in ((4, 1.0), (9, 0.3), (11, 0.2))]
    assert key_frequencies(np.stack(columns, axis=1), places) == [4, 9]
    assert key_frequencies(np.stack(columns, axis=1), places, share=0.1) == [4, 9, 11]
    assert key_frequencies(np.zeros((31, 2)), places) == []
    assert key_frequencies(np.ones((31, 2)), places) == [] and fourier_gini(np.ones((31, 2)), places) is None
    assert fourier_gini(np.zeros((31, 2)), places) is None


def test_random_weights_have_every_frequency_and_no_sparsity():
    matrix = np.random.default_rng(2).normal(size=(59, 128))
    assert key_frequencies(matrix, np.arange(59)) == list(range(1, 30))
    assert (fourier_gini(matrix, np.arange(59)) or 1) < 0.06, "norms of 256 numbers each vary by 1/√512, 4 %"


@pytest.mark.parametrize("operation", CYCLIC)
def test_logits_of_known_frequencies_give_the_losses_of_their_parts(operation):
    task = ArithmeticTask(operation, 13)
    split, order = split_pairs(task, 0.5, seed=0), order_of(task)
    bias = np.random.default_rng(3).normal(size=13)
    both, first, second = (waves(task, heights) for heights in ({2: 3.0, 5: 1.5}, {2: 3.0}, {5: 1.5}))
    inside = np.isin(task.answer, order)
    train, test = (rows[inside[rows]] for rows in (split.train, split.test))
    found = restricted_and_excluded(both + bias, task.answer, split.train, split.test, order, [5, 2])

    def loss(logits: np.ndarray, rows: np.ndarray) -> float:
        return cross_entropy(logits[rows], task.answer[rows])

    assert found.restricted_nats_all == pytest.approx(loss(both + bias, np.flatnonzero(inside)), abs=1e-12)
    assert found.restricted_nats_test == pytest.approx(loss(both + bias, test), abs=1e-12)
    assert found.restricted_nats_unseen == pytest.approx(loss(both + bias, test), abs=1e-12)
    assert found.excluded_nats_train == pytest.approx(loss(0 * both + bias, train), abs=1e-12)
    assert found.excluded_each[2] == pytest.approx(loss(second + bias, train), abs=1e-12)
    assert found.excluded_each[5] == pytest.approx(loss(first + bias, train), abs=1e-12)
    assert found.nats_train == pytest.approx(loss(both + bias, train), abs=1e-12)
    assert (found.pairs, found.train_pairs, found.test_pairs) == (inside.sum(), len(train), len(test))
    assert found.answer_power is not None
    assert found.answer_power[[1, 4]] == pytest.approx([0.8, 0.2]), "squared heights, 9 to 2.25"
    only = restricted_and_excluded(both + bias, task.answer, split.train, split.test, order, [2])
    assert only.restricted_nats_all == pytest.approx(loss(first + bias, np.flatnonzero(inside)), abs=1e-12)


def memory(task: ArithmeticTask, train: np.ndarray, height: float) -> np.ndarray:
    """`height` on the right answer of each train pair, 0 elsewhere: a table of what was seen."""
    logits = np.zeros((len(task.answer), task.elements))
    logits[train, task.answer[train]] = height
    return logits


def test_a_planted_memory_is_what_the_excluded_loss_sees():
    """Made so that the mean over the pairs of each answer is 0, hence no wave of the answer is in it."""
    task, order = ArithmeticTask("addition", 13), np.arange(13)
    split = split_pairs(task, 0.5, seed=1)
    stored, circuit = memory(task, split.train, 4.0), waves(task, {3: 2.0})
    for answer in range(13):
        unseen = split.test[task.answer[split.test] == answer]
        stored[unseen, answer] = -4.0 * (13 - len(unseen)) / len(unseen)
    found = restricted_and_excluded(stored + circuit, task.answer, split.train, split.test, order, [3])
    alone = cross_entropy(stored[split.train], task.answer[split.train])
    assert found.excluded_nats_train == pytest.approx(alone, abs=1e-12)
    assert alone == pytest.approx(np.log(12 + np.exp(4)) - 4)
    assert found.restricted_nats_all == pytest.approx(cross_entropy(circuit, task.answer), abs=1e-12)


def test_what_is_memorized_leaks_into_the_published_restricted_loss_but_not_into_the_unseen_one():
    task, order = ArithmeticTask("addition", 59), np.arange(59)
    split = split_pairs(task, 0.4, seed=0)
    stored = memory(task, split.train, 20.0)
    every = list(range(1, 30))
    found = restricted_and_excluded(stored, task.answer, split.train, split.test, order, every)
    assert found.nats_test == pytest.approx(np.log(59)), "nothing is known of what was not seen"
    assert found.restricted_nats_test < 0.1, "and yet: 40 % of 20 nats on the answer, by averaging"
    assert found.restricted_nats_unseen == pytest.approx(np.log(59), abs=1e-9)
    few = restricted_and_excluded(stored, task.answer, split.train, split.test, order, [7])
    assert few.restricted_nats_test < np.log(59) - 0.2, "one frequency carries 2/59 of it"


def test_noise_has_neither_circuit_nor_memory():
    task = ArithmeticTask("addition", 59)
    split = split_pairs(task, 0.4, seed=2)
    noise = np.random.default_rng(4).normal(size=(59 * 59, 59))
    found = restricted_and_excluded(noise, task.answer, split.train, split.test, np.arange(59), [4, 9, 20])
    # 7 of the 3,481 directions are kept: a logit is left a standard deviation of √7/59 = 0.045, the mean over 59
    # answers of the right one's a standard error of 0.006
    assert found.restricted_nats_all == pytest.approx(np.log(59), abs=0.02)
    assert found.excluded_nats_train == pytest.approx(found.nats_train, abs=0.02)
    assert found.answer_power is not None
    assert found.answer_power.sum() == pytest.approx(58 / 3480, rel=0.1), "58 of 3,480 directions, 59 columns each"


def test_the_projection_equals_the_one_on_waves_over_all_pairs():
    """A slow twin, as published: cos and sin of w(a + b) as vectors over the pairs, and the mean logits added back."""
    task = ArithmeticTask("addition", 7)
    split = split_pairs(task, 0.5, seed=0)
    logits = np.random.default_rng(5).normal(size=(49, 7)) * 3
    angles = [2 * np.pi * k * (task.left + task.right) / 7 for k in (1, 3)]
    directions = np.stack([wave(angle) * np.sqrt(2) / 7 for angle in angles for wave in (np.cos, np.sin)])
    projected = directions.T @ (directions @ logits)
    found = restricted_and_excluded(logits, task.answer, split.train, split.test, np.arange(7), [1, 3])
    assert found.restricted_nats_all == pytest.approx(cross_entropy(projected + logits.mean(0), task.answer))
    rest, train = logits - projected, split.train
    assert found.excluded_nats_train == pytest.approx(cross_entropy(rest[train], task.answer[train]))


def test_without_key_frequencies_only_the_mean_logits_are_kept_and_nothing_is_excluded():
    task = ArithmeticTask("addition", 7)
    split, logits = split_pairs(task, 0.5, seed=0), np.random.default_rng(6).normal(size=(49, 7))
    found = restricted_and_excluded(logits, task.answer, split.train, split.test, np.arange(7), [])
    assert found.restricted_nats_all == pytest.approx(
        -np.log(np.exp(logits.mean(0)) / np.exp(logits.mean(0)).sum()).mean()
    )
    assert found.excluded_nats_train == found.nats_train and found.excluded_each == {}
    still = restricted_and_excluded(0 * logits, task.answer, split.train, split.test, np.arange(7), [1])
    assert still.answer_power is None and still.restricted_nats_all == pytest.approx(np.log(7))


def test_test_pairs_that_lack_an_answer_leave_the_unseen_loss_undefined():
    task = ArithmeticTask("addition", 5)
    test = np.flatnonzero(task.answer > 0)
    found = restricted_and_excluded(waves(task, {1: 2}), task.answer, np.arange(25), test, np.arange(5), [1])
    assert found.restricted_nats_unseen is None and found.restricted_nats_test > 0


LOGITS, TASK, ALL = np.zeros((25, 5)), ArithmeticTask("addition", 5), np.arange(25)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: fourier_basis(1), "at least two places, got 1"),
        (lambda: gini([]), "finite values from 0 up"),
        (lambda: gini([1.0, -2.0]), "finite values from 0 up"),
        (lambda: key_frequencies(LOGITS[:5], np.arange(5), share=1.0), r"share must lie in \[0, 1\), got 1.0"),
        (lambda: component_norms(LOGITS, None), "order is None: answers that follow no cyclic group"),  # type: ignore[arg-type]
        (lambda: component_norms(LOGITS[:5], np.array([0, 1, 1])), r"distinct elements among 5 rows, got \[0, 1, 1\]"),
        (lambda: component_norms(LOGITS[:5], np.array([3, 5])), r"distinct elements among 5 rows, got \[3, 5\]"),
        (lambda: component_norms(np.full((5, 2), np.nan), np.arange(5)), "the matrix must be finite, row 0 is not"),
        (lambda: component_norms(np.zeros(5), np.arange(5)), r"two axes.*got shape \(5,\)"),
        (lambda: restrict(answers=TASK.answer[:24]), r"got shape \(24,\) for logits of shape \(25, 5\)"),
        (lambda: restrict(logits=LOGITS[:, :4]), r"one column of logits for each.*\(25, 4\)"),
        (lambda: restrict(frequencies=[3]), r"frequencies of 5 places run from 1 to 2, got \[3\]"),
        (lambda: restrict(frequencies=[0]), r"run from 1 to 2, got \[0\]"),
        (lambda: restrict(train=ALL[:0]), "train has no pair whose answer is in the cyclic order"),
        (lambda: restrict(logits=LOGITS[:9], answers=TASK.answer[:9]), "got 1 to 2 pairs an answer; give .* all pairs"),
        (lambda: restrict(logits=np.full((25, 5), np.inf)), "logits must be finite, row 0 is not"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def restrict(logits=LOGITS, answers=TASK.answer, train=ALL, test=ALL, frequencies=(1,)):
    return restricted_and_excluded(logits, answers, train, test, np.arange(5), frequencies)
