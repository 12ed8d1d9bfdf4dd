"""Representational similarity and mutual nearest neighbours against scipy, scikit-learn and hand-made rows."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.items import distances, representational_similarity
from infocomp.geometry.nearest import mutual_neighbours


def two_models(items: int, seed: int, noise: float = 1.0, dims=(8, 6)):
    generator, mixing = np.random.default_rng(seed), np.random.default_rng(5)
    shared = generator.standard_normal((items, 4))
    return [shared @ mixing.standard_normal((4, dim)) + noise * generator.standard_normal((items, dim)) for dim in dims]


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.asarray(spearmanr(first, second))[0])


# --- representational similarity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_it_is_spearmans_correlation_of_the_distances_of_scipy(metric):
    x, y = two_models(40, 0)
    expected = spearman(pdist(x, metric), pdist(y, metric))
    found = representational_similarity(x, y, metric=metric, permutations=10).estimate
    assert found.value == pytest.approx(expected, rel=1e-9) and found.n == 40
    assert distances(torch.from_numpy(x), metric) == pytest.approx(pdist(x, metric), rel=1e-9)


def test_distances_that_are_tied_have_their_middle_rank():
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 3, (20, 2)) + 1.0, generator.integers(0, 3, (20, 2)) + 1.0
    turn = np.linalg.qr(generator.standard_normal((2, 2)))[0]
    found = [representational_similarity(a, y, metric="euclidean", permutations=5).estimate for a in (x, x @ turn)]
    assert found[0].value == pytest.approx(spearman(pdist(x), pdist(y)), rel=1e-9)
    assert found[0].value == pytest.approx(found[1].value, rel=1e-12), "what rounding tells apart is a tie"


def test_two_copies_give_exactly_one_without_any_error():
    x = two_models(30, 2)[0]
    found = representational_similarity(x, x.copy(), permutations=99)
    assert found.estimate.value == 1.0 and found.estimate.std_error == 0.0 and found.p == 1 / 100


def test_the_influence_of_an_item_agrees_with_leaving_it_out():
    """The jackknife's pseudo-values, with the distances ranked anew; both are first order, n = 60."""
    x, y = two_models(60, 3)
    found = representational_similarity(x, y, permutations=5).estimate
    assert found.influence is not None and found.std_error is not None
    rest = [np.delete(np.arange(60), one) for one in range(60)]
    left = np.array([spearman(pdist(x[kept], "cosine"), pdist(y[kept], "cosine")) for kept in rest])
    psi = -59 / 60 * (left - left.mean())
    assert np.corrcoef(psi, found.influence["value"])[0, 1] > 0.999
    assert found.std_error == pytest.approx(standard_error(psi), rel=0.08)
    assert abs(found.influence["value"].sum()) < 1e-12
    pairs = np.repeat(np.arange(30), 2)
    by_document = representational_similarity(x, y, pairs, permutations=5).estimate.influence
    assert by_document is not None
    assert by_document["value"] == pytest.approx(found.influence["value"].reshape(30, 2).sum(axis=1))


def test_ties_do_not_break_the_influence():
    generator = np.random.default_rng(4)
    x = generator.integers(1, 4, (60, 3)).astype(float)
    y = x + generator.integers(0, 2, (60, 3))
    found = representational_similarity(x, y, metric="euclidean", permutations=5).estimate
    rest = [np.delete(np.arange(60), one) for one in range(60)]
    left = np.array([spearman(pdist(x[kept]), pdist(y[kept])) for kept in rest])
    assert found.std_error == pytest.approx(standard_error(-59 / 60 * (left - left.mean())), rel=0.08)


def test_the_permutation_test_holds_its_level_and_finds_what_is_there():
    generator = np.random.default_rng(5)
    tests = [
        representational_similarity(sides[0], sides[1], permutations=99, seed=seed)
        for seed, sides in enumerate(generator.standard_normal((100, 2, 24, 5)))
    ]
    p = np.array([one.p for one in tests])
    assert (p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert np.mean(p) == pytest.approx(0.5, abs=3 * np.sqrt(1 / 12 / 100)), "p is uniform where nothing is shared"
    x, y = two_models(40, 6)
    found = representational_similarity(x, y, permutations=199)
    assert found.p == 1 / 200 and found.estimate.value is not None
    assert found.nulls is not None and found.estimate.null == pytest.approx(found.nulls.mean())
    assert found.null_high is not None and found.estimate.value > found.null_high > 0


def test_a_permuted_similarity_is_that_of_permuted_items():
    x, y = two_models(12, 7)
    found = representational_similarity(x, y, permutations=3, seed=8)
    generator = np.random.default_rng(8)
    assert found.nulls is not None
    for null in found.nulls:
        order = generator.permutation(12)
        shuffled = squareform(pdist(y, "cosine"))[np.ix_(order, order)]
        assert null == pytest.approx(spearman(pdist(x, "cosine"), squareform(shuffled, checks=False)))


def test_intervals_by_item_cover_a_difference_of_zero_between_halves_of_the_items():
    covered = []
    for seed in range(60):
        x, y = two_models(80, seed)
        one, two = (
            representational_similarity(x[s], y[s], permutations=1).estimate for s in (slice(40), slice(40, 80))
        )
        assert one.value is not None and two.value is not None and one.std_error is not None
        covered.append(abs(one.value - two.value) <= 2.02 * np.hypot(one.std_error, two.std_error or 0.0))
    assert np.mean(covered) >= 0.85, "binomial around 0.95, 60 draws, 3.5 standard errors"


def test_items_that_say_nothing_are_refused_with_a_reason():
    x, y = two_models(10, 9)
    nowhere = x.copy()
    nowhere[3] = 0.0
    found = representational_similarity(nowhere, y)
    assert found.estimate.value is None and found.p is None
    assert found.estimate.message == "1 items have norm 0 and no direction: take euclidean distances."
    alike = representational_similarity(np.eye(10), y)
    assert alike.estimate.message == "all distances between items are equal, so that they have no ranks."
    with pytest.raises(ValueError, match=r"metric must be one of cosine, euclidean, got 'dot'\."):
        representational_similarity(x, y, metric="dot")
    with pytest.raises(ValueError, match=r"permutations must be at least 1, got 0\."):
        representational_similarity(x, y, permutations=0)
    assert representational_similarity(x[:6], y[:6]).estimate.message == "no interval: fewer than 8 documents"


# --- mutual nearest neighbours ----------------------------------------------------------------------------------------


def test_four_rows_by_hand():
    """Nearest of rows at 0, 10, 80, 90 degrees: 1, 0, 3, 2. With the third turned to 15: 1, 2, 1, 2 — one in four."""

    def at(*degrees: float) -> np.ndarray:
        return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)

    found = mutual_neighbours(at(0, 10, 80, 90), 5 * at(0, 10, 15, 90), k=1)
    assert found.value == pytest.approx(2 / 4), "rows 0 and 3 keep their neighbour"
    assert found.null == pytest.approx(1 / 3) and found.label == "k 1"


def test_it_is_the_overlap_of_the_lists_of_scikit_learn():
    x, y = two_models(150, 10)
    lists = [
        NearestNeighbors(n_neighbors=11, metric="cosine").fit(side).kneighbors(side, return_distance=False)[:, 1:]
        for side in (x, y)
    ]
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*lists, strict=True)])
    assert mutual_neighbours(x, y).value == pytest.approx(expected)


def test_independent_models_overlap_by_chance():
    x, y = np.random.default_rng(11).standard_normal((2, 1000, 8))
    found = mutual_neighbours(x, y)
    assert found.std_error is not None and found.null == pytest.approx(10 / 999)
    assert found.value is not None and found.null is not None and abs(found.value - found.null) < 3 * found.std_error


def test_copies_give_exactly_one_and_rotation_is_not_seen():
    x, y = two_models(100, 12)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    same = mutual_neighbours(x, x.copy())
    assert same.value == 1.0 and same.std_error == 0.0
    assert mutual_neighbours(3 * x @ turn, y).value == mutual_neighbours(x, y).value


def test_rows_equal_in_both_models_agree_in_spite_of_rounding():
    x, y = two_models(40, 13)
    x, y = np.repeat(x, 3, axis=0), np.repeat(y, 3, axis=0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    assert mutual_neighbours(x @ turn, y, k=2).value == mutual_neighbours(x, y, k=2).value == 1.0


@pytest.mark.parametrize("across", [False, True])
def test_the_influence_is_what_its_definition_says_row_by_row(across):
    owner = np.sort(np.random.default_rng(14).integers(0, 12, 90))
    x, y = two_models(90, 14)
    x += np.random.default_rng(1).standard_normal((12, 8))[owner]  # rows of one document lie together
    found = mutual_neighbours(x, y, owner, k=4, across_documents=across)
    order = [np.argsort(squareform(pdist(side, "cosine")) + np.diag(np.full(90, 9.0)), axis=1) for side in (x, y)]
    if across:
        order = [np.array([[j for j in row if owner[j] != owner[i]][:4] for i, row in enumerate(one)]) for one in order]
    nx, ny = (one[:, :4].tolist() for one in order)
    e = np.mean([(nx[i][3] in ny[i]) + (ny[i][3] in nx[i]) for i in range(90)]) / 2
    pairs = np.zeros((12, 12))
    for i in range(90):
        for j in set(nx[i]) | set(ny[i]):
            both, here, there = j in nx[i] and j in ny[i], owner[i], owner[j]
            pairs[here, there] += both / 360
            if here != there:
                pairs[there, here] += (both - e * ((j in nx[i]) + (j in ny[i]))) / 360
    share = np.bincount(owner) / 90
    raw = pairs.sum(axis=1) - share * pairs.sum()
    assert found.value == pytest.approx(sum(len(set(a) & set(b)) for a, b in zip(nx, ny, strict=True)) / 360)
    assert found.influence is not None and abs(raw.sum()) < 1e-12
    ratio = found.influence["value"] / raw
    assert np.ptp(ratio) < 1e-9, "one scale for all documents"
    assert 0.5**0.5 <= ratio[0] < 1.0, "at most the half of the variance is what pairs of documents have alone"


def test_intervals_by_document_cover_a_difference_of_zero_between_twins_exchanged_by_document():
    covered = []
    for seed in range(40):
        x, y = two_models(240, seed)
        generator = np.random.default_rng(seed)
        owner = np.repeat(np.arange(80), 3)
        noise, swap = generator.standard_normal((2, *x.shape)), (generator.random(80) < 0.5)[owner][:, None]
        pair = [x + np.where(swap, noise[0], noise[1]), x + np.where(swap, noise[1], noise[0])]
        one, two = (mutual_neighbours(side, y, owner) for side in pair)
        assert one.value is not None and two.value is not None and one.influence and two.influence
        error = standard_error(one.influence["value"] - two.influence["value"])
        covered.append(abs(one.value - two.value) <= quantile(80) * error)
    assert np.mean(covered) >= 0.82, "binomial around 0.95, 40 draws, 3.7 standard errors"


def test_across_documents_no_row_finds_its_own_document():
    owner = np.repeat(np.arange(20), 5)
    places = np.random.default_rng(15).standard_normal((2, 20, 6))
    noise = 1e-3 * np.random.default_rng(16).standard_normal((2, 100, 6))
    x, y = places[0][owner] + noise[0], places[1][owner] + noise[1]
    assert mutual_neighbours(x, y, owner, k=4).value == 1.0, "all that is found is the document"
    found = mutual_neighbours(x, y, owner, k=4, across_documents=True)
    assert found.value is not None and found.value < 0.3 and found.null == pytest.approx(4 / 95)


def test_what_has_no_neighbours_is_refused_with_a_reason():
    x, y = two_models(8, 17)
    assert mutual_neighbours(x, y).message == "a row has 7 other rows to be near to, and k is 10: take more rows."
    nowhere = x.copy()
    nowhere[2] = 0.0
    assert mutual_neighbours(nowhere, y, k=2).message == "1 rows have norm 0 and no direction."
    assert mutual_neighbours(x[:7], y[:7], k=2).message == "no interval: fewer than 8 documents"
    with pytest.raises(ValueError, match=r"k must be at least 1 neighbour, got 0\."):
        mutual_neighbours(x, y, k=0)
    with pytest.raises(ValueError, match="across_documents needs the document of each row"):
        mutual_neighbours(x, y, across_documents=True)
