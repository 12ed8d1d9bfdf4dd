"""O-information against closed forms and the definition, and the extremes over clusters of neurons."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.grokking.synergy import (
    cluster_means,
    neuron_clusters,
    o_information,
    synergy_and_redundancy,
)


def normal(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def entropy(covariance, members):
    """Of Gaussian variables, bits."""
    block = covariance[np.ix_(members, members)]
    return 0.5 * math.log2(np.linalg.det(2 * math.pi * math.e * block)) if members else 0.0


def by_definition(covariance):
    """Ω as Rosas et al. (2019) write it, bits."""
    every = list(range(len(covariance)))
    found = (len(every) - 2) * entropy(covariance, every)
    for one in every:
        found += entropy(covariance, [one]) - entropy(covariance, [other for other in every if other != one])
    return found


def with_covariance(covariance, rows, seed=0):
    """Rows whose sample covariance is exactly this one."""
    draws = normal(rows, len(covariance), seed)
    draws = draws - draws.mean(axis=0)
    draws = draws @ np.linalg.inv(np.linalg.cholesky(draws.T @ draws / (rows - 1))).T
    return draws @ np.linalg.cholesky(covariance).T


def sum_with_noise(variance):
    """Covariance of X, Y and X + Y + noise."""
    return np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 2 + variance]])


# --- O-information ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.1, 1.0, 10.0])
def test_a_noisy_sum_is_synergy_by_its_closed_form(variance):
    """I(X; Y | Z) = ½ log2 of (1 + v)² / (v (2 + v)) is all there is, and Ω = I(X; Y) − I(X; Y | Z)."""
    expected = -0.5 * math.log2((1 + variance) ** 2 / (variance * (2 + variance)))
    assert by_definition(sum_with_noise(variance)) == pytest.approx(expected)
    rows = 4000
    found = o_information(with_covariance(sum_with_noise(variance), rows))
    # ranks move a correlation by about 1/n each; its effect on Ω grows with the largest element of the inverse
    largest = np.linalg.inv(sum_with_noise(variance)).max()
    assert found == pytest.approx(expected, abs=20 * (1 + largest) / rows)


def test_noisy_copies_of_one_variable_are_redundant_by_their_closed_form():
    covariance = np.ones((4, 4)) + 0.5 * np.eye(4)
    found = o_information(with_covariance(covariance, 4000))
    assert by_definition(covariance) > 0.7
    assert found == pytest.approx(by_definition(covariance), abs=0.02)


def test_a_pair_has_none_and_independent_variables_have_none():
    pair = normal(200, 2)
    pair[:, 1] += pair[:, 0]
    assert o_information(pair) == pytest.approx(0, abs=1e-12)
    assert o_information(pair, corrected=False) == pytest.approx(0, abs=1e-12)
    found = [o_information(normal(400, 5, seed)) for seed in range(100)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 10


def test_what_a_small_sample_adds_is_taken_off():
    """Ten independent variables in 40 rows: the plain value is biased, the corrected one is 0 within its error."""
    draws = [normal(40, 10, seed) for seed in range(400)]
    plain = np.array([o_information(one, corrected=False) for one in draws])
    corrected = np.array([o_information(one) for one in draws])
    error = corrected.std() / math.sqrt(len(draws))
    assert abs(plain.mean()) > 8 * error
    # the formula is of Gaussian rows; the ranks that stand for them here leave a tenth of it
    assert abs(corrected.mean()) < 0.1 * abs(plain.mean()) + 3 * error


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 7))
def test_monotone_changes_of_a_variable_and_another_order_change_nothing(seed, variables):
    rows = normal(60, variables, seed) @ normal(variables, variables, seed + 1)
    value = o_information(rows)
    assert o_information(np.exp(rows)) == pytest.approx(value, abs=1e-9)
    order = np.random.default_rng(seed).permutation(variables)
    assert o_information(rows[::-1, order]) == pytest.approx(value, abs=1e-9)


def test_rows_alike_in_a_variable_share_a_rank_so_that_their_order_does_not_matter():
    rows = np.maximum(normal(80, 4) @ normal(4, 4, 1), 0)
    assert (rows == 0).sum(axis=0).min() > 20
    assert o_information(rows[::-1]) == pytest.approx(o_information(rows), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_the_value_is_the_definition_at_the_correlations_of_the_normal_scores(seed, variables):
    from scipy.stats import norm, rankdata

    mixed = normal(50, variables, seed) @ normal(variables, variables, seed + 1)
    rows = mixed + 0.3 * normal(50, variables, seed + 2)  # else a mixture that ranks two variables alike has no Ω
    scores = norm.ppf(rankdata(rows, axis=0) / 51)
    expected = by_definition(np.corrcoef(scores, rowvar=False))
    assert o_information(rows, corrected=False) == pytest.approx(expected, abs=1e-6)


def test_an_exclusive_or_of_bits_is_not_seen():
    """What the docstring warns of: a Gaussian copula sees pairs, and the pairs of x, y, x xor y are independent."""
    x, y = np.random.default_rng(0).integers(0, 2, (2, 4000))
    assert abs(o_information(np.stack([x, y, x ^ y], axis=1))) < 0.01


# --- clusters of neurons ------------------------------------------------------------------------------------------


def neurons(groups, each=6, noise=0.3, seed=5):
    """`each` noisy copies of every column."""
    copies = np.repeat(groups, each, axis=1)
    return copies + noise * normal(len(copies), copies.shape[1], seed)


def test_clusters_find_the_planted_groups_and_their_extremes():
    """Three clusters of a noisy sum, three of one variable, all but independent of each other, and a dead neuron."""
    sums = with_covariance(sum_with_noise(0.3), 600)
    common = normal(600, 1, 1) + 0.5 * normal(600, 3, 2)
    activations = np.concatenate([neurons(np.concatenate([sums, 3 * common], axis=1)), np.zeros((600, 1))], axis=1)
    labels = neuron_clusters(activations[:, :36], 6)
    assert [len(set(labels[6 * one : 6 * one + 6])) for one in range(6)] == [1] * 6
    found = synergy_and_redundancy(activations, clusters=6)
    assert (found.clusters, found.neurons, found.rows, found.reason) == (6, 36, 600, None)
    names = {labels[6 * one]: one for one in range(6)}
    assert {names[one] for one in found.synergy_clusters} >= {0, 1, 2}
    assert {names[one] for one in found.redundancy_clusters} >= {3, 4, 5}
    assert found.synergy is not None and found.redundancy is not None
    assert found.null_synergy_high is not None and found.null_redundancy_high is not None
    assert found.synergy > 10 * found.null_synergy_high > 0
    assert found.redundancy > 10 * found.null_redundancy_high > 0


def test_the_extremes_are_those_of_all_multiplets_one_by_one():
    groups = normal(300, 5) @ normal(5, 5, 1)
    found = synergy_and_redundancy(groups, largest=4)
    values = {
        members: o_information(groups[:, members]) for size in (2, 3, 4) for members in combinations(range(5), size)
    }
    lowest, highest = min(values, key=lambda key: values[key]), max(values, key=lambda key: values[key])
    assert found.synergy == pytest.approx(-values[lowest], abs=1e-9) and found.synergy_clusters == lowest
    assert found.redundancy == pytest.approx(values[highest], abs=1e-9) and found.redundancy_clusters == highest


def test_independent_clusters_do_not_leave_their_null():
    inside = 0
    for seed in range(20):
        found = synergy_and_redundancy(normal(200, 6, seed), shuffles=20, seed=seed)
        assert found.synergy is not None and found.null_synergy_high is not None and found.null_synergy is not None
        assert found.synergy >= 0 and found.null_synergy > 0
        inside += found.synergy <= found.null_synergy_high
    assert inside >= 15, "20 of 21 are expected each; fewer than 16 has probability 2e-4"


def test_the_seed_fixes_the_null_and_nothing_else():
    activations = normal(100, 30) @ normal(30, 30, 1)
    first, second, other = (synergy_and_redundancy(activations, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert (other.synergy, other.redundancy) == (first.synergy, first.redundancy)
    assert other.null_synergy != first.null_synergy


def test_a_cluster_is_the_mean_of_its_neurons():
    activations = np.array([[1.0, 2, 30], [3, 4, 50]])
    assert cluster_means(activations, np.array([1, 1, 0])).tolist() == [[30, 1.5], [50, 3.5]]


@pytest.mark.parametrize(
    ("activations", "reason"),
    [
        (np.ones((50, 20)), "0 clusters of neurons that vary are left, and Ω of fewer than 3 is 0"),
        (normal(50, 1), "1 clusters of neurons that vary"),
        (normal(10, 40), "10 rows are too few for 10 clusters; 12 are the least"),
        (np.repeat(normal(50, 3), [1, 2, 1], axis=1), "the 4 clusters determine each other"),
        (np.array([[1.0, -1, 0, 9, 0]]) * normal(50, 1) + [[0, 0, 0, 0, 1]], "the 3 clusters determine each other"),
    ],
)
def test_clusters_that_have_no_value_say_why(activations, reason):
    found = synergy_and_redundancy(activations)
    assert found.reason is not None and reason in found.reason
    assert found.synergy is None and found.redundancy is None and found.null_synergy is None


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: o_information(normal(9, 3)[:, 0]), r"activations need one finite row .* have shape \(9,\)"),
        (lambda: o_information(np.array([[1.0, math.nan]])), "with 1 values that are not finite"),
        (lambda: o_information(normal(9, 1)), "got 1 variables, 9 rows and 0 constant ones"),
        (lambda: o_information(normal(4, 3)), "at least 2 rows more than variables .* got 3 variables, 4 rows"),
        (lambda: o_information(normal(9, 3) * [1, 0, 1]), "got 3 variables, 9 rows and 1 constant ones"),
        (lambda: o_information(np.repeat(normal(9, 2), 2, axis=1)), "the 4 variables determine each other"),
        (lambda: synergy_and_redundancy(normal(9, 3), clusters=1), "clusters and largest are at least 2 .* got 1, 10"),
        (lambda: synergy_and_redundancy(normal(9, 3), shuffles=0), "shuffles at least 1, got 10, 10 and 0"),
    ],
)
def test_what_has_no_value_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_network_that_has_learnt_nothing_beats_its_null_too():
    """Random weights, Gaussian inputs: neurons share the inputs. Shuffled clusters are no baseline for learning."""
    neurons_at_random = np.maximum(normal(400, 8) @ normal(8, 64, 1), 0)
    found = synergy_and_redundancy(neurons_at_random)
    assert found.synergy is not None and found.null_synergy_high is not None
    assert found.synergy > 20 * found.null_synergy_high > 0
