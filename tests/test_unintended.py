"""Unintended memorization against hand-made code lengths, its laws, and a slow twin with a bootstrap over documents."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_ind, ttest_rel

from infocomp.memorization.unintended import check_same_tokenizer, mixture_bits, unintended

LENGTHS = st.floats(0, 500, allow_nan=False)


def four_samples(n: int, seed: int, gain: float = 0.0):
    """Code lengths of n members and n never-trained samples; the model gains `gain` bits on a member, with noise."""
    generator = np.random.default_rng(seed)
    reference, unseen_reference = generator.normal(90, 15, (2, n))
    model = reference - gain + generator.normal(0, 6, n)
    unseen_model = unseen_reference + generator.normal(0, 6, n)
    return model, reference, unseen_model, unseen_reference


def test_two_members_and_two_others_by_hand():
    found = unintended(np.array([10.0, 30.0]), np.array([25.0, 28.0]), np.array([20.0, 26.0]), np.array([24.0, 20.0]))
    assert found.clipped.value == 15.0, "15 bits of the first, none of the second, which the reference knows better"
    assert found.null.value == 4.0 and found.excess.value == 11.0
    assert found.gain.value == 15 - 2, "what the model's code gains on both members, and not a bit for the others"
    assert found.gain_null.value == 4 - 6
    assert found.ceiling == 53.0 and (found.n, found.m) == (2, 2)
    assert found.excess.std_error is None, "two documents tell no error"


def test_the_null_is_scaled_to_the_number_of_members():
    model, reference, unseen_model, unseen_reference = four_samples(40, seed=0)
    once = unintended(model, reference, unseen_model[:10], unseen_reference[:10])
    twice = unintended(model, reference, np.tile(unseen_model[:10], 2), np.tile(unseen_reference[:10], 2))
    expected = 4 * np.maximum(unseen_reference[:10] - unseen_model[:10], 0).sum()
    assert once.null.value == pytest.approx(expected) and twice.null.value == pytest.approx(expected)
    plain = 4 * (unseen_reference[:10] - unseen_model[:10]).sum()
    assert once.gain_null.value == pytest.approx(plain) and twice.gain_null.value == pytest.approx(plain)


def test_with_nothing_memorized_the_clipped_sum_is_positive_and_the_excess_covers_zero():
    """Noise alone: E max(D, 0) = σ/√2π a sample, which is what the null takes away again in 95 of 100 draws."""
    drawn = [unintended(*four_samples(400, seed)) for seed in range(200)]
    clipped = np.mean([one.clipped.value for one in drawn])
    assert clipped == pytest.approx(400 * 6 / np.sqrt(2 * np.pi), rel=0.02), "200 x 400 draws: 0.5 % standard error"
    found = pd.DataFrame([one.excess.columns() for one in drawn])
    assert abs(found["value"].mean()) < 3 * found["value"].std() / np.sqrt(200)
    covers = ((found["ci_low"] <= 0) & (found["ci_high"] >= 0)).mean()
    assert 0.90 <= covers <= 0.99, "binomial around 0.95, 200 draws, 3 standard errors"
    assert found["std_error"].mean() == pytest.approx(found["value"].std(), rel=0.15)


def test_what_was_planted_is_found():
    found = unintended(*four_samples(500, seed=1, gain=30.0))
    gain = pd.Series(found.gain.columns())
    assert gain["ci_low"] < 500 * 30 < gain["ci_high"]
    assert found.gain.value == pytest.approx(500 * 30, rel=0.03)
    lost = 500 * 6 / np.sqrt(2 * np.pi)
    assert found.excess.value == pytest.approx(500 * 30 - lost, rel=0.03), (
        "the null takes its noise off large gains too"
    )


def test_what_a_model_loses_on_text_that_it_never_saw_is_not_gained_on_members():
    """A model that knows its members by heart and nothing else: its gain stays below all that there is to memorize."""
    reference = np.full(40, 50.0)
    found = unintended(np.full(40, 1.0), reference, np.full(40, 300.0), reference)
    assert found.gain.value == 40 * 49 < found.ceiling == 40 * 50
    assert found.gain_null.value == -40 * 250, "the loss on the others is told beside it"


def test_the_error_is_that_of_drawing_documents_again():
    """Samples of one document share its surprise: the error by document is several times the one by sample."""
    generator = np.random.default_rng(3)
    documents = np.repeat(np.arange(30), 20)
    shared = generator.normal(10, 8, 30)[documents]
    reference = np.full(600, 200.0)
    model = reference - shared - generator.normal(0, 3, 600)
    unseen = (reference + generator.normal(0, 3, 600), reference, np.repeat(np.arange(60), 10))
    found = unintended(model, reference, unseen[0], unseen[1], documents, unseen[2])
    naive = unintended(model, reference, unseen[0], unseen[1])
    error, by_sample = found.excess.columns()["std_error"], naive.excess.columns()["std_error"]
    assert error is not None and by_sample is not None and error > 3 * by_sample
    gains, other = np.maximum(reference - model, 0), np.maximum(unseen[1] - unseen[0], 0)
    drawn = []
    for _ in range(800):
        here = [gains[documents == one].mean() for one in generator.integers(30, size=30)]
        there = [other[unseen[2] == one].mean() for one in generator.integers(60, size=60)]
        drawn.append(600 * (np.mean(here) - np.mean(there)))
    # a bootstrap over D documents has the variance (D − 1)/D of ours, and 800 draws know it to 2.5 %
    assert error == pytest.approx(np.std(drawn) * np.sqrt(30 / 29), rel=0.09)
    clipped = pd.Series(found.clipped.columns())
    assert clipped["ci_low"] < clipped["value"] < clipped["ci_high"]


def test_the_interval_is_welchs_where_every_sample_is_a_document_of_its_own():
    generator = np.random.default_rng(5)
    reference, unseen_reference = generator.normal(90, 3, 40), generator.normal(90, 9, 15)
    model, unseen_model = reference - generator.normal(20, 5, 40), unseen_reference + generator.normal(0, 12, 15)
    found = unintended(model, reference, unseen_model, unseen_reference)
    gains, others = np.maximum(reference - model, 0), np.maximum(unseen_reference - unseen_model, 0)
    twin = ttest_ind(gains, others, equal_var=False).confidence_interval()
    assert found.excess.ci_low == pytest.approx(40 * twin.low)
    assert found.excess.ci_high == pytest.approx(40 * twin.high)
    assert found.gain.std_error == pytest.approx(np.sqrt(40) * (reference - model).std(ddof=1))
    assert found.clipped.std_error == pytest.approx(np.sqrt(40) * gains.std(ddof=1))


def test_documents_on_both_sides_are_paired_where_they_are_shared():
    """One member and one other of each document: the paired t-test's interval, blind to what both have alike."""
    generator = np.random.default_rng(6)
    documents = generator.permutation(30)
    level = generator.normal(200, 40, 30)
    reference = np.full(30, 500.0)
    model, other = reference - level - generator.normal(9, 4, 30), reference - level - generator.normal(0, 4, 30)
    order = generator.permutation(30)
    given_rows = (model, reference, other[order], reference, documents, documents[order])
    found, apart = unintended(*given_rows, shared_documents=True), unintended(*given_rows)
    twin = ttest_rel(reference - model, reference - other).confidence_interval()
    assert found.excess.ci_low == pytest.approx(30 * twin.low), "no gain is below 0 here, so nothing is clipped"
    assert found.excess.ci_high == pytest.approx(30 * twin.high)
    errors = pd.DataFrame([apart.excess.columns(), found.excess.columns()])["std_error"]
    assert errors[0] > 5 * errors[1]
    fewer = unintended(model, reference, other[:12], reference[:12], documents, documents[:12], shared_documents=True)
    assert fewer.excess.std_error is not None, "documents of one side alone count too"


@given(arrays(float, 12, elements=LENGTHS), arrays(float, 12, elements=LENGTHS))
def test_the_mixture_is_a_code_within_a_bit_of_the_better_model(model, reference):
    mixed, better = mixture_bits(model, reference), np.minimum(model, reference)
    assert (mixed >= better - 1e-9).all() and (mixed <= better + 1 + 1e-9).all()
    found = unintended(model, reference, reference, model)
    assert found.clipped.value - 12 - 1e-6 <= found.mixture.value <= found.clipped.value + 1e-6
    assert 0 <= found.clipped.value <= found.ceiling + 1e-6


def test_the_mixture_is_a_probability_and_the_pointwise_minimum_is_none():
    generator = np.random.default_rng(0)
    laws = generator.dirichlet(np.full(50, 0.2), size=2)
    model, reference = -np.log2(laws)
    assert np.exp2(-mixture_bits(model, reference)).sum() == pytest.approx(1.0)
    assert np.exp2(-np.minimum(model, reference)).sum() > 1.5


@given(st.permutations(range(10)))
def test_the_order_of_the_samples_does_not_matter(order):
    model, reference, unseen_model, unseen_reference = four_samples(10, seed=4, gain=5)
    documents = np.arange(10)
    first = unintended(model, reference, unseen_model, unseen_reference, documents)
    order = np.array(order)
    second = unintended(model[order], reference[order], unseen_model, unseen_reference, documents[order])
    assert first.excess.value == pytest.approx(second.excess.value)
    assert first.excess.std_error == pytest.approx(second.excess.std_error)


def test_two_equal_models_have_memorized_nothing_without_error():
    reference = np.linspace(10, 90, 20)
    found = unintended(reference, reference, reference, reference)
    assert found.excess.columns() == {"value": 0.0, "std_error": 0.0, "ci_low": 0.0, "ci_high": 0.0}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({0: np.ones(3)}, r"members need one code length .* have shapes \(3,\), \(4,\)"),
        ({2: np.ones(0), 3: np.ones(0)}, "never-trained samples need .* at least one sample"),
        ({4: np.arange(5)}, r"members .* \(4,\), \(4,\), \(5,\)"),
        ({1: np.array([1.0, np.nan, 3.0, 4.0])}, "members: a code length is .* sample 1 under the reference is nan"),
        ({2: np.array([1.0, 2.0, 3.0, -4.0])}, "never-trained samples: .* sample 3 under the model is -4.0"),
    ],
)
def test_what_is_no_code_length_is_refused_in_a_sentence(change, sentence):
    given_arrays: list = [np.arange(4.0), np.arange(4.0), np.arange(4.0), np.arange(4.0), None, None]
    for place, value in change.items():
        given_arrays[place] = value
    with pytest.raises(ValueError, match=sentence):
        unintended(*given_arrays)


def test_a_reference_with_another_tokenizer_is_refused():
    check_same_tokenizer("abc", "abc")
    with pytest.raises(ValueError, match=r"reference 'big' has another tokenizer \(def\) than 'small' \(abc\)"):
        check_same_tokenizer("abc", "def", "small", "big")
