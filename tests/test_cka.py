"""The layer by layer map of debiased CKA against the n x n Gram matrices, its jackknife, its null and its coverage."""

import numpy as np
import pytest

from infocomp.estimators.jackknife import document_groups
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.cka import cka_map
from infocomp.geometry.pair_moments import PairMoments, linear_cka

SITES = ["hook_embed", "blocks.0.hook_resid_post"]


def two_models(documents: int, per_document: int, seed: int, dims=((12, 20), (12, 9))):
    """Rows of two layers in each of two models: what all share, what documents share, and what is a layer's own."""
    generator = np.random.default_rng(seed)
    n = documents * per_document
    owner = np.repeat(np.arange(documents), per_document)
    mixing = np.random.default_rng(99)  # the networks: the same for every text
    shared = generator.standard_normal((documents, 5))[owner] + generator.standard_normal((n, 5))
    sides = [
        [shared @ mixing.standard_normal((5, dim)) + 2 * generator.standard_normal((n, dim)) + 3.0 for dim in of_model]
        for of_model in dims
    ]
    return sides[0], sides[1], owner


def streamed(x: np.ndarray, y: np.ndarray) -> float:
    xx, yy, xy = PairMoments(x.shape[1]), PairMoments(y.shape[1]), PairMoments(x.shape[1], y.shape[1])
    xx.update(x)
    yy.update(y)
    xy.update(x, y)
    return linear_cka(xx, yy, xy)


@pytest.mark.parametrize("documents", [None, np.repeat(np.arange(20), 15)])
def test_blocks_of_the_gram_matrices_give_what_streaming_moments_give(documents):
    xs, ys, _ = two_models(20, 15, seed=0)
    found = cka_map(xs, ys, documents)
    expected = np.array([[streamed(x, y) for y in ys] for x in xs])
    assert found.values == pytest.approx(expected, rel=1e-8)
    assert (found.influence is None) == (documents is None)


def test_the_jackknife_is_that_of_leaving_out_each_group_and_computing_anew():
    xs, ys, owner = two_models(20, 9, seed=1)
    order = np.random.default_rng(2).permutation(len(owner))
    xs, ys, owner = [x[order] for x in xs], [y[order] for y in ys], owner[order]
    found = cka_map(xs, ys, owner, groups=10)
    group = document_groups(owner, 10)
    left = np.array([streamed(xs[1][group != one], ys[0][group != one]) for one in range(10)])
    error = np.sqrt(9 / 10 * ((left - left.mean()) ** 2).sum())
    assert found.std_error is not None and found.influence is not None
    assert found.std_error[1, 0] == pytest.approx(error, rel=1e-8)
    assert abs(found.influence.sum(axis=-1)).max() < 1e-12
    one = found.estimates(SITES)[1][0]
    assert one.interval is not None and one.label == "vs hook_embed" and one.quantity == "cka"
    assert one.interval[1] - one.interval[0] == pytest.approx(2 * quantile(10) * error)


def test_two_copies_of_one_model_give_exactly_one_without_any_error():
    xs, _, owner = two_models(12, 10, seed=3)
    found = cka_map(xs, [x.copy() for x in xs], owner)
    assert found.influence is not None
    assert found.values[0, 0] == found.values[1, 1] == 1.0
    assert not found.influence[0, 0].any() and not found.influence[1, 1].any()
    assert found.values[0, 1] < 1.0 and found.influence[0, 1].any()
    many = [np.random.default_rng(one).standard_normal((37, 3 + one)) for one in range(12)]
    assert (np.diag(cka_map(many, [x.copy() for x in many]).values) == 1.0).all(), "not but for rounding"


def test_the_null_is_that_of_rows_of_other_documents():
    xs, ys, owner = two_models(20, 10, seed=4)
    found = cka_map(xs, ys, owner)
    assert found.null is not None
    turned = [np.roll(y, -100, axis=0) for y in ys]  # 20 documents of 10 rows, turned round by half
    expected = np.array([[streamed(x, y) for y in turned] for x in xs])
    assert found.null == pytest.approx(expected, rel=1e-7)
    assert np.abs(found.null).max() < 0.15 < found.values.min()


def test_permuted_rows_have_nothing_in_common():
    xs, ys, owner = two_models(60, 10, seed=5)
    order = np.random.default_rng(0).permutation(len(owner))
    found = cka_map(xs, [y[order] for y in ys])
    assert np.abs(found.values).max() < 0.02


def test_more_dimensions_than_rows_and_unequal_groups_are_no_different():
    generator = np.random.default_rng(6)
    owner = np.sort(generator.integers(0, 9, 50))
    x, y = generator.standard_normal((50, 80)), generator.standard_normal((50, 6))
    y += x[:, :6] * 2
    assert cka_map([x], [y], owner, groups=4).values[0, 0] == pytest.approx(streamed(x, y), rel=1e-8)


def halves_apart(seed: int) -> tuple[float, float]:
    """CKA of two models on one half of the documents less that on the other, and its half width of 95 %."""
    (x,), (y,), owner = two_models(48, 8, seed, dims=((12,), (9,)))
    side = np.isin(owner, np.random.default_rng(seed).permutation(48)[:24])
    one, two = (cka_map([x[kept]], [y[kept]], owner[kept], with_null=False) for kept in (side, ~side))
    assert one.std_error is not None and two.std_error is not None
    error = np.hypot(one.std_error[0, 0], two.std_error[0, 0])
    return one.values[0, 0] - two.values[0, 0], quantile(24) * error


def twins_exchanged(seed: int) -> tuple[float, float]:
    """CKA with a third of two models that differ in noise and were exchanged at random by document."""
    (x,), (y,), owner = two_models(24, 20, seed, dims=((12,), (9,)))
    generator = np.random.default_rng(seed)
    noise = 2 * generator.standard_normal((2, *x.shape))
    swap = (generator.random(24) < 0.5)[owner][:, None]
    pair = [x + np.where(swap, noise[0], noise[1]), x + np.where(swap, noise[1], noise[0])]
    found = cka_map(pair, [y], owner, with_null=False)
    assert found.influence is not None
    error = standard_error(found.influence[1, 0] - found.influence[0, 0])
    return found.values[1, 0] - found.values[0, 0], quantile(24) * error


@pytest.mark.parametrize("difference", [halves_apart, twins_exchanged])
def test_intervals_of_a_difference_that_is_zero_cover_it(difference):
    covered = [abs(value) <= half for value, half in map(difference, range(24))]
    assert np.mean(covered) >= 0.79, (
        "binomial around 0.95, 24 draws, 3.6 standard errors; 200 draws gave 0.95 and 0.965"
    )


def test_a_layer_that_does_not_vary_is_refused_and_the_others_are_not():
    xs, ys, owner = two_models(12, 10, seed=7)
    found = cka_map([xs[0], np.tile(xs[0][:1] / 3, (120, 1))], ys, owner).estimates(SITES)
    assert found[0][0].value is not None
    assert found[1][0].value is None and found[1][0].status == "refused"
    assert found[1][0].message == "a layer's rows do not vary beyond rounding, so that CKA is 0/0."


def test_a_layer_that_varies_in_one_group_of_documents_alone_has_a_value_and_no_interval():
    xs, ys, owner = two_models(12, 10, seed=7)
    found = cka_map(xs[:1], ys[:1], owner)
    assert found.influence is not None and found.estimates(SITES[:1])[0][0].interval is not None
    found.influence[0, 0, 3] = np.nan  # as 0/0 is, where that group is left out
    (one,) = found.estimates(SITES[:1])[0]
    assert one.value is not None and one.status == "ok" and one.std_error is None and one.influence is None
    assert one.message == "no interval: without one group of documents a layer's rows do not vary"


def test_what_cannot_be_had_is_said():
    xs, ys, owner = two_models(6, 10, seed=8)
    assert cka_map(xs, ys, owner).message == "no interval: 6 documents, at least 8 are needed"
    one_big = np.zeros(60, dtype=np.int64)
    assert cka_map(xs, ys, one_big).null is None
    assert "no null: rows of other documents cannot be paired" in cka_map(xs, ys, one_big).message
    assert cka_map(xs, ys).message.startswith("no interval: no documents were given")


def test_wrong_rows_are_refused_in_a_sentence():
    xs, ys, owner = two_models(8, 4, seed=9)
    with pytest.raises(ValueError, match="with the same rows on every side"):
        cka_map(xs, [ys[0][:-1]], owner)
    with pytest.raises(ValueError, match=r"between 4 and 4096 rows are compared, got 3: sample them\."):
        cka_map([xs[0][:3]], [ys[0][:3]])
    with pytest.raises(ValueError, match=r"documents has shape \(31,\), the rows are 32"):
        cka_map(xs, ys, owner[:-1])
    with pytest.raises(ValueError, match="a map needs layers of both models"):
        cka_map(xs, [], owner)
    xs[1][0, 0] = np.nan
    with pytest.raises(ValueError, match="side 1 holds NaN or infinity"):
        cka_map(xs, ys, owner)
