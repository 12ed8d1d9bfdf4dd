"""The laws with known information: their closed forms, and rows that follow them."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln

from infocomp.estimators import SoftInformation
from infocomp.estimators.known import (
    additive_uniform,
    all_known,
    codes_on_anchors,
    dense_normal,
    discrete_continuous,
    gaussian_mixture,
    independent_labels,
    normal,
    published_poisson,
    student_identity,
    two_pairs,
    zero_inflated_poisson,
)

# Czyż et al. (2023), task list of bmi, nats
PUBLISHED = [
    (normal(0.75), 0.413339),
    (additive_uniform(0.1), 1.709438),
    (additive_uniform(0.75), 0.333333),
    (dense_normal(2), 0.293893),
    (dense_normal(3), 0.413339),
    (dense_normal(5), 0.592812),
    (dense_normal(25), 1.292184),
    (dense_normal(50), 1.624265),
    (two_pairs(3), 1.021651),
    (two_pairs(25), 1.021651),
    (student_identity(1, 1, 1), 0.224171),
    (student_identity(2, 2, 1), 0.431946),
    (student_identity(2, 2, 2), 0.193147),
    (student_identity(3, 3, 2), 0.290922),
    (student_identity(3, 3, 3), 0.178712),
    (student_identity(5, 5, 2), 0.448151),
    (student_identity(5, 5, 3), 0.298544),
    (discrete_continuous(5), math.log(5) - 0.8 * math.log(2)),
    (codes_on_anchors(16), math.log(16)),
    (independent_labels(), 0.0),
]


@pytest.mark.parametrize("law, nats", PUBLISHED, ids=lambda value: getattr(value, "name", ""))
def test_closed_forms_give_the_published_values(law, nats):
    assert law.truth == pytest.approx(nats, abs=1e-6)  # six digits are published


@pytest.mark.parametrize("law", all_known(), ids=lambda law: law.name)
def test_samples_have_the_stated_kind_and_repeat_with_their_seed(law):
    x, z, documents = law.sample(120, seed=3)
    assert len(x) == len(z) == len(documents) == 120
    assert (x.ndim, z.ndim) == ((1, 2) if law.kind == "labels" else (2, 2))
    assert np.issubdtype(x.dtype, np.integer) == (law.kind == "labels")
    assert documents.tolist() == [row // 50 for row in range(120)]
    again = law.sample(120, seed=3)
    assert np.array_equal(x, again[0]) and np.array_equal(z, again[1])
    assert not np.array_equal(z, law.sample(120, seed=4)[1])


def mean_and_error(log_ratios):
    return log_ratios.mean(), log_ratios.std() / math.sqrt(len(log_ratios))


def test_the_mixture_has_its_truth_as_mean_log_ratio():
    law = gaussian_mixture(labels=4, apart=2.0, dim=3)
    x, z, _ = law.sample(200_000, seed=0)
    means = 2.0 * (np.arange(4) - 1.5)
    densities = np.exp(-0.5 * (z[:, :1] - means) ** 2)
    mean, error = mean_and_error(np.log(densities[np.arange(len(x)), x] / densities.mean(axis=1)))
    assert abs(mean - law.truth) < 4 * error


def test_zero_inflated_poisson_has_its_truth_as_mean_log_ratio_and_the_published_value_is_another():
    zeros = 0.15
    law = zero_inflated_poisson(zeros)
    x, z, _ = law.sample(400_000, seed=0)
    given = zeros * (x == 0) + (1 - zeros) * np.exp(x * np.log(z[:, 0]) - z[:, 0] - gammaln(x + 1))
    marginal = zeros * (x == 0) + (1 - zeros) * 0.5 ** (x + 1.0)
    mean, error = mean_and_error(np.log(given / marginal))
    assert abs(mean - law.truth) < 4 * error
    # the published formula conditions on which zeros are inflated: equal for p = 0 only
    assert zero_inflated_poisson(0.0).truth == pytest.approx(published_poisson(0.0), abs=1e-8)
    assert published_poisson(zeros) == pytest.approx(0.85 * 0.3012, abs=1e-4)
    assert published_poisson(zeros) - law.truth > 20 * error


def test_gaussian_pairs_have_the_stated_correlation():
    x, z, _ = normal(0.75).sample(100_000, seed=0)
    # standard error of a correlation: (1 − ρ²) / √n
    assert abs(np.corrcoef(x[:, 0], z[:, 0])[0, 1] - 0.75) < 4 * (1 - 0.75**2) / math.sqrt(100_000)


def test_the_soft_estimator_reads_all_of_the_codes_where_its_softmax_is_hard():
    law = codes_on_anchors(labels=16, dim=16, bins=100)
    x, z, documents = law.sample(4000, seed=0)
    soft = SoftInformation(dim=16, bins=100, draws=1, seed=0, temperature=1e-3)
    soft.update(torch.from_numpy(z), {"code": x}, documents)
    found = next(one for one in soft.estimate() if one.quantity == "complexity" and one.draw == "mean")
    counts = np.bincount(x) / len(x)
    assert found.value == pytest.approx(-(counts * np.log2(counts)).sum(), abs=1e-6)
    assert found.value == pytest.approx(law.truth_bits, abs=0.01)  # (K − 1) / 2N nats of bias, .003
