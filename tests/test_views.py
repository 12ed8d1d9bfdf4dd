"""InfoNCE, DiME and LiDAR against closed forms and slow twins; their influences against leaving documents out."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry import views as room
from infocomp.geometry.views import DocumentViews, parts_of

# what an estimate may lack is there in these tests, or its lack is what is asserted
info_nce: Any = room.info_nce
dime: Any = room.dime
lidar: Any = room.lidar


def documents_of(n, dim, seed, parts=2, noise=1.0):
    """Views of n documents: a document's own row, wider in some directions than in others, and noise by view."""
    generator = np.random.default_rng(seed)
    own = generator.standard_normal((n, 1, dim)) * np.linspace(2, 0.2, dim)
    return own + noise * generator.standard_normal((n, parts, dim))


def pseudo_influence(value, n):
    """Jackknife: what each document moves a number by, from leaving it out."""
    left = np.array([value(np.delete(np.arange(n), one)) for one in range(n)])
    return -(n - 1) / n * (left - left.mean())


# --- the views themselves ---------------------------------------------------------------------------------------------


def test_views_are_the_mean_rows_of_the_parts_whatever_the_batches():
    generator = np.random.default_rng(0)
    rows = torch.from_numpy(generator.standard_normal((90, 3)))
    documents, tokens = generator.permutation(np.arange(90) % 7), generator.permutation(90)
    parts = parts_of(documents, tokens)
    whole, halves = DocumentViews(3), [DocumentViews(3), DocumentViews(3)]
    whole.update(rows, documents, parts)
    for place, part in enumerate(np.array_split(np.arange(90), 9)):
        halves[place % 2].update(rows[part], documents[part], parts[part])
    halves[0].merge(halves[1])
    found, names = whole.views()
    assert list(names) == list(range(7)) and found.shape == (7, 2, 3)
    for document in range(7):
        own = np.flatnonzero(documents == document)
        own = own[np.argsort(tokens[own])]
        first, second = own[: (len(own) + 1) // 2], own[(len(own) + 1) // 2 :]
        assert found[document, 0] == pytest.approx(rows[first].mean(0).numpy())
        assert found[document, 1] == pytest.approx(rows[second].mean(0).numpy())
    again, same = halves[0].views()
    assert again == pytest.approx(found, rel=1e-12) and list(same) == list(names)


def test_documents_with_an_empty_part_and_rows_without_a_document_are_left_out():
    found = DocumentViews(2, parts=3)
    found.update(torch.ones(7, 2), np.array([5, 5, 5, 8, 8, -1, 2]), np.array([0, 1, 2, 0, 1, 0, 0]))
    views, names = found.views()
    assert list(names) == [5] and views.shape == (1, 3, 2)
    assert len(found.views(least=2)[1]) == 0


# --- InfoNCE ----------------------------------------------------------------------------------------------------------


def test_the_loss_of_orthogonal_documents_is_known():
    """Cosine 1 with itself, 0 with others: the loss is log(1 + (N − 1) exp(−1/τ))."""
    bound, loss = info_nce(3 * np.eye(6), np.eye(6), temperature=0.5)
    assert loss.value == pytest.approx(math.log2(1 + 5 * math.exp(-2)))
    assert bound.value == pytest.approx(math.log2(6) - loss.value) and bound.ceiling == pytest.approx(math.log2(6))
    assert bound.null == pytest.approx(bound.value - 2 / math.log(2)), "a stranger's cosine is 0 instead of 1"
    assert loss.null == pytest.approx(math.log2(6) - bound.null)
    certain = info_nce(np.eye(6), np.eye(6), temperature=0.01)[0]
    assert certain.value == pytest.approx(math.log2(6)) and np.isfinite(certain.influence["value"]).all()
    useless = info_nce(np.ones((6, 3)), np.eye(6)[:, :3] + 1)[0]
    constant = info_nce(np.ones((6, 3)), np.ones((6, 3)))[0]
    assert constant.value == pytest.approx(0) and constant.null == pytest.approx(0)
    assert useless.value < 0.05


def test_the_slow_twin_agrees_and_influences_are_those_of_leaving_documents_out():
    views = documents_of(20, 5, seed=1)

    def twin(kept):
        one, other = views[kept, 0], views[kept, 1]
        total = 0.0
        for first, second in ((one, other), (other, one)):
            for i, row in enumerate(first):
                cosines = [row @ each / np.linalg.norm(row) / np.linalg.norm(each) for each in second]
                shares = np.exp(np.array(cosines) / 0.02)
                total += math.log2(shares[i] / shares.sum()) / 2 / len(kept)
        return math.log2(len(kept)) + total

    bound, loss = info_nce(views[:, 0], views[:, 1], temperature=0.02)
    assert bound.value == pytest.approx(twin(np.arange(20)), rel=1e-9)
    assert bound.influence["value"] == pytest.approx(pseudo_influence(twin, 20), abs=1e-9)
    assert loss.influence["value"] == pytest.approx(-bound.influence["value"])
    assert bound.interval[1] - bound.value == pytest.approx(quantile(20) * standard_error(bound.influence["value"]))


def test_the_null_is_the_mean_over_pairings_of_strangers():
    views = documents_of(4, 3, seed=2)
    strangers = [order for order in np.array(np.meshgrid(*[range(4)] * 4)).reshape(4, -1).T
                 if len(set(order)) == 4 and (order != np.arange(4)).all()]  # fmt: skip
    assert len(strangers) == 9, "derangements of four"
    mean = np.mean([info_nce(views[:, 0], views[order, 1])[0].value for order in strangers])
    assert info_nce(views[:, 0], views[:, 1])[0].null == pytest.approx(mean)


def test_the_bound_lies_below_the_information_of_gaussian_views():
    """Unit circle, views of one angle with noise: I(view; view) is at most that of the noise channel."""
    generator = np.random.default_rng(3)
    angle = generator.uniform(0, 2 * math.pi, 400)
    one, other = (angle + 0.3 * generator.standard_normal((2, 400))).tolist()
    rows = [np.c_[np.cos(each), np.sin(each)] for each in (one, other)]
    # angle difference is Gaussian of variance 0.18 (nearly unwrapped): I = log2(2π) − h(N(0, 0.18))
    truth = math.log2(2 * math.pi) - 0.5 * math.log2(2 * math.pi * math.e * 0.18)
    best = info_nce(*rows, temperature=0.18)[0]
    assert truth - 0.15 < best.value < truth + 3 * best.std_error
    assert best.null < 0


# --- DiME -------------------------------------------------------------------------------------------------------------


def test_dime_of_equal_views_of_far_documents_is_known():
    """All documents at one distance from each other and a wide kernel: joint entropies in closed form, α = 2."""
    n, e = 6, np.eye(6)
    found = dime(e, e, alpha=2.0, bandwidth=1.0, permutations=300, seed=0)
    near = math.exp(-0.5)  # distance over σ is 1 for all pairs
    paired = -math.log2((n + n * (n - 1) * near**4) / n**2)
    assert found.value == pytest.approx(0.0, abs=1e-12), "permuting equal distances changes nothing"
    assert found.ceiling == pytest.approx(paired + math.log2((n + n * (n - 1) * near**2) / n**2))
    assert found.null == 0.0 and found.unit == "bits"


def test_dime_follows_the_definition_and_is_not_clamped():
    views = documents_of(14, 4, seed=4)
    found = dime(views[:, 0], views[:, 1], alpha=1.5, bandwidth=0.7, permutations=5, seed=9)

    def gram(rows):
        squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
        return np.exp(-squared / (2 * 0.49 * squared[~np.eye(14, dtype=bool)].mean()))

    def entropy(matrix):
        share = np.linalg.eigvalsh(matrix / 14).clip(0)
        return math.log2((share**1.5).sum()) / (1 - 1.5)

    one, other = gram(views[:, 0]), gram(views[:, 1])
    generator = np.random.default_rng(9)
    apart = [entropy(one * other[np.ix_(order, order)]) for order in (generator.permutation(14) for _ in range(5))]
    assert found.value == pytest.approx(np.mean(apart) - entropy(one * other), rel=1e-9)
    assert found.ceiling == pytest.approx(np.mean(apart) - max(entropy(one), entropy(other)), rel=1e-9)
    generator = np.random.default_rng(5)
    independent = [dime(*generator.standard_normal((2, 30, 3)), permutations=4).value for _ in range(60)]
    assert min(independent) < 0 < max(independent)
    assert abs(np.mean(independent)) < 3 * np.std(independent) / math.sqrt(60), "expectation 0 without dependence"


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_the_derivatives_of_the_entropy_are_those_of_differences(alpha):
    views = documents_of(12, 3, seed=6)
    squared = ((views[:, 0][:, None] - views[:, 0][None]) ** 2).sum(-1) / 4

    def weighted(weights, width=1.0):
        gram = np.exp(-squared / 2 / width**2) * np.sqrt(np.outer(weights, weights)) / weights.sum()
        return room.matrix_entropy(np.linalg.eigvalsh(gram).clip(1e-300), alpha)

    _, moved, by_scale = room._entropy(np.exp(-squared / 2), alpha, (squared,))
    step = 1e-5
    for point in range(12):
        change = step * (np.arange(12) == point)
        slope = (weighted(np.ones(12) + change) - weighted(np.ones(12) - change)) / (2 * step)
        assert moved[point] == pytest.approx(slope, abs=1e-7)
    width = (weighted(np.ones(12), math.exp(step)) - weighted(np.ones(12), math.exp(-step))) / (2 * step)
    assert by_scale[0] == pytest.approx(width, rel=1e-6)


def test_the_influences_of_dime_are_those_of_leaving_documents_out():
    """Each document is in one true pair and in two permuted ones, and moves the kernels' widths."""
    views = documents_of(24, 2, seed=3)
    found = dime(views[:, 0], views[:, 1], bandwidth=1.0, permutations=100)
    left = pseudo_influence(
        lambda kept: dime(*views[kept].transpose(1, 0, 2), bandwidth=1.0, permutations=100).value, 24
    )
    influence = found.influence["value"]
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert np.corrcoef(influence, left)[0, 1] > 0.85, "0.97 here, the rest is second order and the draw of permutations"


# --- LiDAR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim"), [(30, 6), (7, 40)])
def test_lidar_follows_the_definition_also_where_rows_are_fewer_than_dimensions(n, dim):
    views = documents_of(n, dim, seed=7, parts=3)
    means = views.mean(axis=1)
    between = np.cov(means.T, bias=True)
    apart = (views - means[:, None]).reshape(-1, dim)
    root = np.linalg.inv(np.real(sqrtm(apart.T @ apart / len(apart) + 1e-2 * np.eye(dim))))
    share = np.linalg.eigvalsh(root @ between @ root).clip(1e-300)
    share = share / share.sum()
    found = lidar(views, ridge=1e-2, shuffles=1)
    assert found.value == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-8)
    assert found.ceiling == min(n - 1, dim) and 1 <= found.value <= found.ceiling


def test_lidar_counts_the_directions_in_which_documents_differ():
    """Three directions of equal strength among ten, noise alike in all: 3, exponentiated and not its logarithm."""
    generator = np.random.default_rng(8)
    own = np.zeros((4000, 1, 10))
    own[:, 0, :3] = 10 * generator.standard_normal((4000, 3))
    found = lidar(own + 0.1 * generator.standard_normal((4000, 2, 10)))
    assert found.value == pytest.approx(3, rel=0.01)
    assert found.null == pytest.approx(10, rel=0.01), "views dealt at random leave Σ_b a multiple of Σ_w"


def test_the_influences_of_lidar_are_those_of_leaving_documents_out():
    views = documents_of(200, 4, seed=9)
    found = lidar(views, shuffles=0)
    left = pseudo_influence(lambda kept: lidar(views[kept], shuffles=0).value, 200)
    influence = found.influence["value"]
    assert found.null is None and influence.sum() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(influence, left)[0, 1] > 0.99
    assert standard_error(influence) == pytest.approx(standard_error(left), rel=0.06), "second order: 1/200 a document"


def test_lidar_has_no_error_where_one_document_turns_the_noise_over():
    found = lidar(documents_of(16, 16, seed=0), shuffles=0)
    assert found.interval is None and found.influence is None and "is near the width" in found.message
    fewer = lidar(documents_of(16, 64, seed=0), shuffles=0)
    assert (
        fewer.interval is not None and "only 16 of 64 directions vary, the ridge stands for the rest" in fewer.message
    )


# --- all --------------------------------------------------------------------------------------------------------------


def test_two_halves_of_the_documents_differ_by_nothing_in_95_of_100():
    """Unpaired intervals of one population, 60 splits; three standard errors of 57 of 60 are 5."""
    measures = {
        "info_nce": lambda views: info_nce(views[:, 0], views[:, 1])[0],
        "lidar": lambda views: lidar(views, shuffles=0),
        "dime": lambda views: dime(views[:, 0], views[:, 1], permutations=2),
    }
    covered = dict.fromkeys(measures, 0)
    for seed in range(60):
        both = documents_of(80, 8, seed)
        for name, measure in measures.items():
            one, other = measure(both[:40]), measure(both[40:])
            half = quantile(40) * math.hypot(one.std_error, other.std_error)
            covered[name] += abs(one.value - other.value) <= half
    assert all(count >= 52 for count in covered.values()), covered


def test_equal_input_gives_equal_numbers_and_few_documents_no_interval():
    views = documents_of(6, 3, seed=0)
    for measure in (lambda: info_nce(*views.transpose(1, 0, 2))[0], lambda: dime(*views.transpose(1, 0, 2))):
        one, two = measure(), measure()
        assert one.value == two.value and np.array_equal(one.influence["value"], two.influence["value"])
        assert one.interval is None and one.message.endswith("no interval: 6 documents, at least 8 are needed")


def test_what_is_not_defined_is_none_with_its_reason():
    rows = documents_of(9, 3, seed=0)[:, 0]
    silent = rows.copy()
    silent[2] = 0
    for found in info_nce(silent, rows):
        assert found.status == "refused" and found.message == "not defined: a view has length zero and no cosine."
    flat = dime(np.ones((9, 2)), rows)
    assert (
        flat.status == "refused"
        and flat.message == "not defined: all documents' views are equal, the kernel has no scale."
    )
    same = lidar(np.array([1.0, -1.0]).reshape(1, 2, 1).repeat(5, axis=0))
    assert same.status == "refused" and same.message == "not defined: the means of all documents are equal."


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: info_nce(np.ones((4, 2)), np.ones((4, 3))),
            r"two views of one width, got shapes \(4, 2\) and \(4, 3\)",
        ),
        (lambda: info_nce(np.ones((4, 2)), np.ones((4, 2)), 0.0), "temperature must be above 0, got 0.0"),
        (lambda: dime(np.ones((4, 2)), np.ones((5, 2))), r"same documents, at least 3, .* \(4, 2\) and \(5, 2\)"),
        (lambda: dime(np.ones((4, 2)), np.ones((4, 2)), permutations=0), "permutations at least 1, got 1.0, 0.5 and 0"),
        (lambda: lidar(np.ones((2, 2, 5))), r"LiDAR needs views \[documents ≥ 3, .* got shape \(2, 2, 5\)"),
        (lambda: lidar(np.ones((5, 2, 5)), ridge=0.0), "ridge must be above 0, got 0.0: without it"),
        (lambda: DocumentViews(3, parts=1), "at least 2 parts, got 3 and 1"),
        (lambda: DocumentViews(3).update(torch.ones(2, 4), np.zeros(2), np.zeros(2)), r"need rows \[n, 3\] with one"),
        (lambda: DocumentViews(3).update(torch.ones(1, 3), np.zeros(1), np.array([2])), "from 0 to 1, got 2 to 2; cut"),
        (lambda: DocumentViews(3).merge(DocumentViews(4)), "of 2 parts of width 4 cannot be merged"),
        (lambda: parts_of(np.zeros(3), np.zeros(2)), r"one document and one token a row, got shapes \(3,\), \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
