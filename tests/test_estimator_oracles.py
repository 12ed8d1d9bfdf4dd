"""Each estimator beside the soft one against hand cases, closed forms, slow twins and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.metrics import mutual_info_score

from infocomp.estimators.bins import KMeansInformation
from infocomp.estimators.gaussian import GaussianInformation, GaussianPairInformation, Scatter, wishart
from infocomp.estimators.infonce import InfoNceInformation, bound_terms
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.known import dense_normal, discrete_continuous, gaussian_mixture, normal
from infocomp.estimators.matrix_renyi import (
    RenyiInformation,
    delta_gram,
    gaussian_gram,
    matrix_entropy,
    matrix_information,
)
from infocomp.estimators.neighbours import KsgInformation, RossInformation, ksg, ross

BITS = 1 / math.log(2)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def measured(estimator, z, x, documents=None):
    estimator.update(torch.as_tensor(z), {"x": x}, documents)
    return estimator.estimate()


# hard bins


def test_four_points_in_two_bins_by_hand():
    # codes {0, 0, 1, 1}, labels {a, a, a, b}: I = H(¼) − ½ H(½) in bits, and H's ½·1 bit
    found = measured(KMeansInformation(1, bins=2), column(0, 0.1, 9, 9.1), np.array([0, 0, 0, 1]))
    by_hand = 2 - 0.75 * math.log2(3) - 0.5
    assert found[0].value == pytest.approx(by_hand, abs=1e-12)
    # occupied: 2 codes, 2 labels, 3 pairs: (1 + 1 − 2) / 2N
    assert found[1].value == pytest.approx(by_hand, abs=1e-12)


def test_hard_bins_agree_with_scikit_learn_and_miller_madow_adds_its_term():
    x, z, documents = gaussian_mixture(3, 2.0, 2).sample(600, 0)
    state = KMeansInformation(2, bins=7)
    plug_in, corrected = measured(state, z, x, documents)
    codes = state._prepare(state.reservoir.take().rows)
    assert plug_in.value == pytest.approx(mutual_info_score(x, codes) * BITS, abs=1e-12)
    pairs = len(np.unique(np.stack([x, codes]), axis=1).T)
    assert corrected.value - plug_in.value == pytest.approx((6 + 2 - (pairs - 1)) / 1200 * BITS, abs=1e-12)


def test_the_row_null_of_hard_bins_is_the_mean_over_permutations():
    rng = np.random.default_rng(0)
    x, z = rng.zipf(1.6, 3000) % 300, rng.standard_normal((3000, 2))
    state = KMeansInformation(2, bins=12)
    found = measured(state, z, x)[0]
    codes = state._prepare(state.reservoir.take().rows)
    shuffled = np.array([mutual_info_score(rng.permutation(x), codes) for _ in range(30)]) * BITS
    # four standard errors of the mean, and 1 % for the interpolation between block sizes
    assert abs(found.null_rows - shuffled.mean()) < 4 * shuffled.std() / math.sqrt(30) + 0.01 * shuffled.mean()


def test_more_bins_than_distinct_rows_is_no_failure():
    found = measured(KMeansInformation(1, bins=50), column(0, 1, 0, 1), np.array([0, 1, 0, 1]))
    assert found[0].value == pytest.approx(1.0, abs=1e-12)
    same = measured(KMeansInformation(1, bins=50), column(2, 2, 2, 2), np.array([0, 1, 0, 1]))
    assert (same[0].status, same[0].message) == ("refused", "all rows have one code: there is nothing to tell apart.")


# nearest neighbours


def test_ross_by_hand_on_four_and_six_points():
    apart = ross(column(0, 1, 3, 10, 11, 13), np.array([0, 0, 0, 1, 1, 1]), k=1)
    assert apart == pytest.approx(1 / 3 + 1 / 4 + 1 / 5, abs=1e-12)  # ψ(6) − ψ(3)
    # radii 2, 2, 4, 4; others no farther: 2, 2, 3, 2
    mixed = ross(column(0, 2, 1, 5), np.array([0, 0, 1, 1]), k=1)
    expected = digamma(4) + digamma(1) - digamma(2) - (3 * digamma(2) + digamma(3)) / 4
    assert mixed == pytest.approx(expected, abs=1e-12)


def test_ksg_by_hand_on_three_points():
    # joint distances to the nearest: 1, 1, 2; strictly nearer in x: 0, 0, 0, in z: 0, 0, 1
    expected = digamma(1) + digamma(3) - (5 * digamma(1) + digamma(2)) / 3
    assert ksg(column(0, 1, 3), column(0, 1, 2), k=1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_agree_with_scikit_learn(k):
    # it adds noise of 1e-10 of its own: a rank among distances changes with a chance of about 1e-7 a pair
    x, z, _ = discrete_continuous(4).sample(700, 0)
    theirs = mutual_info_classif(z, x, n_neighbors=k, random_state=0)[0]
    assert ross(z, x, k) == pytest.approx(theirs, abs=1e-8)
    x, z, _ = normal(0.75).sample(700, 0)
    # its columns are scaled to unit deviation before the maximum norm
    theirs = mutual_info_regression(x, z[:, 0], n_neighbors=k, random_state=0)[0]
    assert ksg(x / x.std(ddof=0), z / z.std(ddof=0), k) == pytest.approx(theirs, abs=1e-8)


def test_rows_that_are_a_function_of_the_label_read_its_whole_entropy():
    x = np.repeat([0, 1, 2], [100, 60, 40])
    found = measured(RossInformation(3), np.eye(3)[x], x)[0]
    by_digammas = digamma(200) - (100 * digamma(100) + 60 * digamma(60) + 40 * digamma(40)) / 200
    assert found.value == pytest.approx(by_digammas * BITS, abs=1e-9)


def test_rare_labels_are_left_out_and_told():
    x = np.r_[np.repeat([0, 1], 45), np.repeat([2, 3, 4, 5, 6], 2)]
    z = np.random.default_rng(0).standard_normal((100, 2))
    found = measured(RossInformation(2, k=3), z, x)[0]
    assert found.n == 90 and found.message.startswith("labels with more than 3 rows: 90.0% of the rows")
    assert found.ceiling == pytest.approx(1.0)
    refused = measured(RossInformation(2, k=3), z[44:], x[44:])[0]
    assert refused.status == "refused"
    assert "1 of 7 labels have more than k = 3 rows in the sample: two are needed" in refused.message
    with pytest.raises(Refusal, match="a label has 2 rows, more than k = 2 are needed"):
        ross(column(0, 1, 2, 3), np.array([0, 0, 1, 1]), k=2)


def test_fewer_pairs_than_neighbours_are_refused():
    state = KsgInformation(1, k=5)
    state.update(torch.zeros(4, 1), torch.ones(4, 1))
    (found,) = state.estimate()
    assert (found.status, found.message) == ("refused", "4 rows are fewer than k + 1 = 6: no row has k neighbours.")
    with pytest.raises(Refusal, match="3 rows are fewer than k \\+ 1 = 4"):
        ksg(column(0, 1, 2), column(0, 1, 2), k=3)


# matrix-based Rényi


def test_matrix_entropies_by_hand():
    assert matrix_entropy(np.array([0.5, 0.5, 0.0]), 1.0) == pytest.approx(math.log(2))
    assert matrix_entropy(np.array([0.75, 0.25]), 2.0) == pytest.approx(-math.log(0.625))
    assert matrix_entropy(np.array([0.7, 0.3]), 1 + 1e-6) == pytest.approx(matrix_entropy(np.array([0.7, 0.3]), 1.0))


def test_negative_similarities_are_kept():
    c = 0.6
    gram = np.array([[1.0, -c], [-c, 1.0]])

    def binary(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    # eigenvalues (1 ± c)/2, of the product (1 ± c²)/2
    assert matrix_information(gram, gram) == pytest.approx(2 * binary((1 + c) / 2) - binary((1 + c**2) / 2), abs=1e-12)
    rows = np.random.default_rng(0).standard_normal((12, 3))
    centred = rows - rows.mean(axis=0)
    linear = centred @ centred.T
    assert matrix_information(linear, linear) > 0
    with pytest.raises(ValueError, match=r"has the eigenvalue -.* none may be negative"):
        matrix_information(np.maximum(linear, 0.0), linear)
    with pytest.raises(ValueError, match="square matrices of one size"):
        matrix_information(np.eye(2), np.eye(3))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_blocks_of_labels_give_what_the_whole_product_matrix_gives(alpha):
    x, z, _ = gaussian_mixture(5, 1.5, 3).sample(150, 0)
    x[:20] = np.arange(10, 30)  # labels seen once
    state = RenyiInformation(3, alpha=alpha, bandwidth=0.7)
    found = measured(state, z, x)[0]
    sample = state.reservoir.take()
    rows = state._prepare(sample.rows)
    twin = matrix_information(gaussian_gram(rows), delta_gram(sample.labels["x"]), alpha)
    # eigenvalues are right to about 1e-16; below order 1 those near 0 enter by their root, 150 of them
    assert found.value == pytest.approx(twin * BITS, abs=1e-5 if alpha < 1 else 1e-9)
    distances = np.linalg.norm(sample.rows[:, None] - sample.rows[None], axis=2)[np.triu_indices(150, 1)]
    assert f"sigma {0.7 * np.median(distances):.4g} (0.7 of the median distance)" in found.message


@pytest.mark.parametrize("seed", range(5))
def test_matrix_information_of_order_one_lies_between_zero_and_both_entropies(seed):
    rng = np.random.default_rng(seed)
    z, x = rng.standard_normal((60, 2)), rng.integers(1 + 4 * (seed + 1), size=60)
    found = measured(RenyiInformation(2), z, x)[0]
    assert -1e-9 <= found.value <= found.ceiling + 1e-9


def test_equal_rows_have_no_kernel():
    found = measured(RenyiInformation(2), np.ones((20, 2)), np.arange(20) % 2)[0]
    assert (found.status, found.message) == ("refused", "all sampled rows are equal: the kernel has no scale.")


# Gaussian


def test_gaussian_information_of_four_points_by_hand():
    # total scatter 36 + 16 + 16 + 36, within 2 + 2
    found = measured(GaussianInformation(1), column(0, 2, 10, 12), np.array([0, 0, 1, 1]))
    assert found[0].value == pytest.approx(0.5 * math.log2(104 / 4), abs=1e-12)
    bias = 0.5 * (digamma(3 / 2) - digamma(2 / 2)) * BITS
    assert found[0].null_rows == pytest.approx(bias, abs=1e-12)
    assert found[1].value == pytest.approx(found[0].value - bias, abs=1e-12)


def test_scatters_merge_exactly_far_from_the_origin():
    rows = np.random.default_rng(0).standard_normal((300, 4))
    merged = Scatter.of(rows[:1] + 1e6)
    for part in np.array_split(rows[1:] + 1e6, 7):
        merged = merged.merged(Scatter.of(part))
    # rounding of the rows themselves at 1e6: 1e-10 each
    assert merged.scatter == pytest.approx(np.cov(rows.T) * 299, abs=1e-6)
    assert merged.mean == pytest.approx(rows.mean(axis=0) + 1e6, abs=1e-8)


def test_pairs_give_the_canonical_correlations():
    x, z, documents = dense_normal(3).sample(500, 0)
    state = GaussianPairInformation(3)
    state.update(torch.from_numpy(x), torch.from_numpy(z), documents)
    first = np.linalg.qr(np.float32(x) - np.float32(x).mean(axis=0, dtype=float))[0]
    second = np.linalg.qr(np.float32(z) - np.float32(z).mean(axis=0, dtype=float))[0]
    correlations = np.linalg.svd(first.T @ second)[1]
    assert state.estimate()[0].value == pytest.approx(-0.5 * np.log2(1 - correlations**2).sum(), abs=1e-9)


def test_corrected_gaussian_values_are_unbiased_where_the_plug_in_is_not():
    law, values = dense_normal(5), []
    for seed in range(200):
        x, z, _ = law.sample(40, seed)
        state = GaussianPairInformation(5)
        state.update(torch.from_numpy(x), torch.from_numpy(z))
        values.append([one.value for one in state.estimate()])
    mean, error = np.mean(values, axis=0), np.std(values, axis=0) / math.sqrt(200)
    assert abs(mean[1] - law.truth_bits) < 4 * error[1]
    assert mean[0] - law.truth_bits > 20 * error[0]


def test_the_expected_log_determinant_is_that_of_simulated_wishart_matrices():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2000, 9, 4))
    logs = np.linalg.slogdet(np.swapaxes(rows, 1, 2) @ rows)[1]
    assert abs(logs.mean() - wishart(9, 4)) < 4 * logs.std() / math.sqrt(2000)


def test_singular_scatters_and_too_few_rows_are_refused():
    x = np.repeat([0, 1, 2], 20)
    exact = measured(GaussianInformation(3), np.eye(3)[x][:, :2].repeat(2, axis=1)[:, :3], x)[0]
    assert exact.status == "refused" and "a scatter is singular" in exact.message
    constant = measured(GaussianInformation(2), np.c_[np.random.default_rng(0).standard_normal(60), np.ones(60)], x)[0]
    assert constant.message == "a dimension is constant: leave it out or take fewer components."
    rows = np.random.default_rng(0).standard_normal((12, 8))
    few = measured(GaussianInformation(8), rows, np.arange(12) // 2)[0]
    assert "12 rows of 6 labels leave 6 degrees of freedom for 8 dimensions" in few.message
    pair = GaussianPairInformation(4)
    pair.update(torch.from_numpy(rows[:8, :4]), torch.from_numpy(rows[:8, 4:]))
    assert pair.estimate()[0].message == "8 rows are too few for 8 dimensions: one more at least is needed."


# InfoNCE


class FixedCritic(torch.nn.Module):
    """Scores from a function of rows and labels."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, rows, labels):
        return self.scores(rows, labels)


def test_bound_terms_by_hand_on_two_pairs():
    flat = bound_terms(FixedCritic(lambda z, x: torch.zeros(2, 2)), torch.zeros(2, 1), torch.tensor([0, 1]))
    assert flat.tolist() == pytest.approx([0, 0], abs=1e-7)
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    terms = bound_terms(FixedCritic(lambda z, x: scores), torch.zeros(2, 1), torch.tensor([0, 1]))
    assert terms.tolist() == pytest.approx(
        [math.log(2) + 1 - math.log(math.e + 1), math.log(2) + 2 - math.log(math.e**2 + 1)], abs=1e-6
    )


def test_the_best_critic_comes_near_the_truth_and_never_above_it_or_log_n():
    law = gaussian_mixture(4, 2.0, 1)
    x, z, _ = law.sample(64_000, 0)
    means = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    best = FixedCritic(lambda rows, labels: -0.5 * (rows - means[labels]) ** 2)
    rows, labels = torch.from_numpy(z).float(), torch.from_numpy(x)
    for count in (2, 64):
        batches = [bound_terms(best, rows[batch], labels[batch]).mean() for batch in torch.arange(64_000).split(count)]
        mean, error = torch.stack(batches).mean(), torch.stack(batches).std() / math.sqrt(len(batches))
        assert mean < min(law.truth, math.log(count)) + 4 * error
    assert mean > law.truth - 0.05  # of order 1/N below it


def test_a_trained_critic_reads_most_of_a_mixture_and_nothing_of_unseen_noise():
    law = gaussian_mixture(4, 2.0, 3)
    x, z, documents = law.sample(3000, 0)
    found = measured(InfoNceInformation(3, negatives=64, steps=200), z, x, documents)[0]
    low = found.interval[0]
    assert low < law.truth_bits
    assert found.value > 0.85 * law.truth_bits
    # every label occurs about twice: whatever a critic learns by heart fails on other documents
    noise = np.random.default_rng(1).integers(500, size=1000)
    nothing = measured(InfoNceInformation(3, steps=100), z[:1000], noise, documents[:1000])[0]
    assert nothing.value == 0.0 and nothing.interval is None
    assert "no interval: no critic did better than chance" in nothing.message


def test_a_critic_is_never_read_on_documents_that_it_learnt():
    # odd documents call left what even ones call right: whoever learnt on one half is wrong on the other
    z = np.random.default_rng(0).standard_normal((800, 2))
    documents = np.arange(800) // 40
    found = measured(
        InfoNceInformation(2, negatives=32, steps=50), z, (z[:, 0] > 0) ^ (documents % 2 == 1) * 1, documents
    )
    assert found[0].value < -0.5


def test_a_critic_can_be_trained_inside_inference_mode_and_twice_the_same():
    x, z, documents = gaussian_mixture(3, 2.0, 2).sample(400, 0)
    state = InfoNceInformation(2, negatives=32, steps=50)
    with torch.inference_mode():
        first = measured(state, z, x, documents)[0]
    torch.manual_seed(99)
    assert state.estimate()[0].value == first.value


def test_two_documents_cannot_be_split_for_training():
    x, z, _ = gaussian_mixture(3, 2.0, 2).sample(60, 0)
    found = measured(InfoNceInformation(2), z, x, np.arange(60) // 30)[0]
    assert found.status == "refused"
    assert "2 documents with 30 rows in the smaller half are too few to train a critic" in found.message
