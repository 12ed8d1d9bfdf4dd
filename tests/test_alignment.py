"""Procrustes, CCA and SVCCA from moments against scipy and scikit-learn on the rows, their influence and their null."""

import warnings

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.alignment import alignment, sampled_alignment

QUANTITIES = ["procrustes", "cca_mean", "svcca_mean"]


def two_sides(documents: int, per_document: int, seed: int, dims=(6, 4), noise: float = 1.0):
    """Rows of two models that share what a fixed mixing makes of common rows, with an effect of each document."""
    generator, mixing = np.random.default_rng(seed), np.random.default_rng(5)
    n = documents * per_document
    owner = np.repeat(np.arange(documents), per_document)
    shared = generator.standard_normal((documents, 4))[owner] + generator.standard_normal((n, 4))
    return [
        shared @ mixing.standard_normal((4, d)) + noise * generator.standard_normal((n, d)) + 2.0 for d in dims
    ], owner


def of_rows(x: np.ndarray, y: np.ndarray, identical: bool = False):
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return {one.quantity: one for one in alignment(x.T @ x, y.T @ y, x.T @ y, len(x), identical)}


def values_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([of_rows(x, y)[name].value for name in QUANTITIES], dtype=float)


def test_procrustes_is_what_scipy_finds_on_the_rows():
    (x, y), _ = two_sides(50, 4, 0, dims=(5, 5))
    x0, y0 = x - x.mean(axis=0), y - y.mean(axis=0)
    turn, nuclear = orthogonal_procrustes(x0, y0)
    found = values_of(x, y)[0]
    assert found == pytest.approx(1 - nuclear / np.linalg.norm(x0) / np.linalg.norm(y0), rel=1e-10)
    left = np.linalg.norm(x0 @ turn / np.linalg.norm(x0) - y0 / np.linalg.norm(y0)) ** 2
    assert found == pytest.approx(left / 2, rel=1e-10), "half of what the best rotation leaves"
    assert scipy_procrustes(x, y)[2] == pytest.approx(1 - (1 - found) ** 2, rel=1e-10)


def test_two_and_three_points_by_hand():
    """x on one axis and y on another are one rotation apart; (1, −1, 0) against (1, 1, −2)/√3 share nothing."""
    x = np.array([[1.0, 0], [-1, 0], [0, 0]])
    assert of_rows(x, x[:, ::-1])["procrustes"].value == pytest.approx(0.0, abs=1e-12)
    assert of_rows(x[:, :1], np.array([[1.0], [1], [-2]]))["procrustes"].value == pytest.approx(1.0)


def test_the_mean_correlation_is_what_scikit_learn_finds_on_the_rows():
    (x, y), _ = two_sides(100, 4, 1, dims=(6, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        u, v = CCA(n_components=4, max_iter=20_000, tol=1e-12).fit_transform(x, y)
    expected = np.mean([np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(4)])
    assert of_rows(x, y)["cca_mean"].value == pytest.approx(expected, rel=1e-6), "scikit-learn iterates to 1e-12"


def test_svcca_is_cca_of_the_principal_components_that_hold_99_percent():
    (x, y), _ = two_sides(100, 4, 2, dims=(9, 7), noise=0.15)
    kept = [PCA(n_components=0.99, svd_solver="full").fit_transform(side) for side in (x, y)]
    assert kept[0].shape[1] < 9 and kept[1].shape[1] < 7
    found = of_rows(x, y)["svcca_mean"]
    assert found.value == pytest.approx(of_rows(*kept)["cca_mean"].value, rel=1e-9)
    assert found.message == f"{kept[0].shape[1]} and {kept[1].shape[1]} directions holding 99% of the variance"


def test_rotation_is_not_seen_and_cca_does_not_see_any_invertible_map():
    (x, y), _ = two_sides(50, 4, 3, dims=(5, 5))
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.standard_normal((5, 5)))[0]
    assert values_of(x, 3 * x @ turn + 7) == pytest.approx([0, 1, 1], abs=1e-9)
    assert values_of(x, 3 * y @ turn + 7) == pytest.approx(values_of(x, y), rel=1e-9)
    bent = y @ generator.standard_normal((5, 5))
    assert of_rows(x, bent)["cca_mean"].value == pytest.approx(of_rows(x, y)["cca_mean"].value, rel=1e-9)
    assert of_rows(x, bent)["procrustes"].value != pytest.approx(of_rows(x, y)["procrustes"].value, rel=1e-2)


def test_equal_rows_give_exactly_zero_and_one_without_any_error():
    (x, _), owner = two_sides(20, 5, 4)
    assert [one.value for one in sampled_alignment(x, x.copy(), owner)] == [0.0, 1.0, 1.0]
    assert [one.std_error for one in sampled_alignment(x, x.copy(), owner)] == [0.0, 0.0, 0.0]
    assert [of_rows(x, x, identical=True)[name].value for name in QUANTITIES] == [0.0, 1.0, 1.0]


def test_the_influence_of_a_document_is_what_a_little_more_weight_of_it_does():
    """Moments of rows of weight 1 + ε in one document, by central differences."""
    (x, y), owner = two_sides(12, 20, 5)
    found = sampled_alignment(x, y, owner)
    assert [one.quantity for one in found] == QUANTITIES

    def weighted(document: int, epsilon: float) -> np.ndarray:
        weights = np.where(owner == document, 1 + epsilon, 1.0)
        a, b = (side - np.average(side, axis=0, weights=weights) for side in (x, y))
        moments = (a.T * weights @ a, b.T * weights @ b, a.T * weights @ b)
        return np.array([one.value for one in alignment(*moments, len(x))])

    for document in (0, 7):
        slope = (weighted(document, 1e-4) - weighted(document, -1e-4)) / 2e-4
        for one, expected in list(zip(found, slope, strict=True))[:2]:
            assert one.influence is not None
            assert one.influence["value"][document] == pytest.approx(expected, rel=1e-5), one.quantity
    for one in found:
        assert one.influence is not None and abs(one.influence["value"].sum()) < 1e-10


def test_the_null_is_that_of_rows_of_other_documents_and_correlations_of_noise_are_not_zero():
    generator = np.random.default_rng(6)
    x, y, owner = (
        generator.standard_normal((400, 40)),
        generator.standard_normal((400, 40)),
        np.repeat(np.arange(40), 10),
    )
    found = sampled_alignment(x, y, owner)
    turned = values_of(x, np.roll(y, -200, axis=0))
    for one, expected in zip(found, turned, strict=True):
        assert one.null == pytest.approx(expected, rel=1e-9)
        assert one.value == pytest.approx(one.null, abs=0.03), "independent rows lie where the null lies"
    assert found[1].value is not None and found[1].value > 0.2, "40 directions in 400 rows correlate by chance"


def test_intervals_on_two_halves_of_the_documents_cover_a_difference_of_zero():
    covered = []
    for seed in range(60):
        (x, y), owner = two_sides(64, 8, seed)
        half = np.isin(owner, np.random.default_rng(seed).permutation(64)[:32])
        sides = [sampled_alignment(x[kept], y[kept], owner[kept])[:2] for kept in (half, ~half)]
        row = []
        for one, two in zip(*sides, strict=True):
            assert one.influence is not None and two.influence is not None
            assert one.value is not None and two.value is not None
            error = np.hypot(standard_error(one.influence["value"]), standard_error(two.influence["value"]))
            row.append(abs(one.value - two.value) <= quantile(32) * error)
        covered.append(row)
    assert np.mean(covered, axis=0).min() >= 0.85, "binomial around 0.95, 60 draws, 3.5 standard errors"


def test_too_few_rows_for_the_directions_are_refused_by_cca_and_not_by_procrustes():
    generator = np.random.default_rng(7)
    found = {
        one.quantity: one
        for one in sampled_alignment(generator.standard_normal((20, 12)), generator.standard_normal((20, 8)))
    }
    assert found["procrustes"].value is not None
    assert found["cca_mean"].value is None and found["cca_mean"].status == "refused"
    assert found["cca_mean"].message == (
        "20 rows for 12 and 8 directions make some canonical correlations exactly 1 whatever the rows: take more rows."
    )


def test_sides_that_do_not_vary_and_wrong_shapes_are_refused_in_a_sentence():
    (x, _), owner = two_sides(10, 4, 8)
    messages = [one.message for one in sampled_alignment(x, np.zeros((40, 3)), owner)]
    assert messages[0] == "the rows of a side do not vary, so that the Procrustes distance is 0/0."
    assert messages[1] == "the rows of a side do not vary, so that they have no canonical correlations."
    with pytest.raises(ValueError, match="alignment needs scatters"):
        alignment(np.eye(3), np.eye(2), np.ones((2, 3)), 50)
    assert "no interval: fewer than 8 documents" in sampled_alignment(x, x[:, :3])[0].message
    assert "no null: rows of other documents cannot be paired" in sampled_alignment(x, x[:, :3])[0].message
