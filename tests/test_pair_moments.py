"""Streaming moments of two streams against the n x n Gram matrices, and the laws of debiased linear CKA."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.estimators.jackknife import Refusal
from infocomp.geometry.pair_moments import PairMoments, cka_estimate, hsic, linear_cka


def rows_of(n: int, dims: tuple[int, ...], seed: int = 0, offset: float = 0.0):
    """Rows of several widths that share 3 directions, with a spectrum that falls and a common offset."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((n, 3))
    found = []
    for dim in dims:
        own = generator.standard_normal((n, dim)) / np.sqrt(np.arange(1, dim + 1))
        found.append(shared @ generator.standard_normal((3, dim)) + own + offset)
    return found


def gram_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Slow twin: eq. 5 of Song et al. (2012) as printed, with n x n Gram matrices less their diagonals."""
    n, one = len(x), np.ones(len(x))
    k, other = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(other, 0.0)
    sums = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ other) + sums - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3)))


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    return gram_hsic(x, y) / np.sqrt(gram_hsic(x, x) * gram_hsic(y, y))


def moments_of(x, y, cuts=()):
    """The three moments of both streams, cut at these rows."""
    xx, yy = PairMoments(x.shape[1]), PairMoments(y.shape[1])
    xy = PairMoments(x.shape[1], y.shape[1])
    for a, b in zip(np.split(x, list(cuts)), np.split(y, list(cuts)), strict=True):
        xx.update(a)
        yy.update(b)
        xy.update(a, b)
    return xx, yy, xy


def test_four_points_by_hand():
    """Kernels are 1 at rows (3, 4) and at (2, 4): HSIC₁ = (2 + 4/6 − 2)/4 of x alone, (0 + 4/6 − 1)/4 of both."""
    x, y = np.array([[0.0], [0], [1], [1]]), np.array([[0.0], [1], [0], [1]])
    xx, yy, xy = moments_of(x, y)
    assert hsic(xx) == pytest.approx(1 / 6) and hsic(xy) == pytest.approx(-1 / 12)
    assert gram_hsic(x, x) == pytest.approx(1 / 6) and gram_hsic(x, y) == pytest.approx(-1 / 12)
    assert hsic(xx, debiased=False) == pytest.approx(np.var(x, ddof=1) ** 2), "the biased one is the variance squared"
    assert hsic(xy, debiased=False) == pytest.approx(0.0), "and the covariance squared"
    assert linear_cka(xx, yy, xy) == pytest.approx(-0.5)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streaming_equals_the_whole_gram_matrix(offset):
    x, y = rows_of(300, (40, 25), offset=offset)
    whole = gram_cka(x - x.mean(axis=0), y - y.mean(axis=0))
    streamed = linear_cka(*moments_of(x, y, cuts=(1, 7, 120)))
    assert streamed == pytest.approx(whole, rel=1e-8)


def test_more_dimensions_than_rows_are_no_different():
    x, y = rows_of(20, (64, 30))
    assert linear_cka(*moments_of(x, y)) == pytest.approx(gram_cka(x, y), rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 60), max_size=4), st.booleans())
def test_any_split_and_merge_gives_the_same_answer(seed, cuts, given_reference):
    x, y = rows_of(60, (5, 4), seed, offset=30.0)
    references = (torch.full((5,), 30.0), torch.full((4,), 30.0)) if given_reference else (None, None)
    whole = PairMoments(5, 4)
    whole.update(x, y)
    merged = PairMoments(5, 4, *references)
    for a, b in zip(np.split(x, sorted(cuts)), np.split(y, sorted(cuts)), strict=True):
        part = PairMoments(5, 4)
        part.update(a, b)
        merged.merge(part)
    assert merged.count == 60
    assert torch.allclose(merged.centred(), whole.centred(), rtol=1e-12, atol=1e-11)
    assert merged.about_mean() == pytest.approx(whole.about_mean(), rel=1e-11)
    assert hsic(merged) == pytest.approx(hsic(whole), rel=1e-9, abs=1e-12)


def test_a_first_batch_far_from_the_mean_costs_no_digits_that_matter():
    x, y = rows_of(200, (6, 6))
    x[0] += 300.0
    far, near = moments_of(x, y, cuts=(1,)), moments_of(np.roll(x, -1, axis=0), np.roll(y, -1, axis=0), cuts=(199,))
    assert linear_cka(*far) == pytest.approx(linear_cka(*near), rel=1e-8)


def test_equal_rows_give_exactly_one_and_stay_so_through_merges():
    x = rows_of(100, (16,))[0].astype(np.float32)
    xx, yy, xy = moments_of(x, x.copy(), cuts=(33,))
    assert linear_cka(xx, yy, xy) == 1.0
    own = PairMoments(16, keep_cross=False)
    own.update(x)
    rounded = (x - x.mean(axis=0)).astype(np.float64)  # float32 arithmetic: equal to 1e-7 only
    assert linear_cka(own, own, xy, scatter_x=rounded.T @ rounded, scatter_y=rounded.T @ rounded) == 1.0
    merged = PairMoments(16, 16)
    merged.merge(xy)
    assert merged.identical and linear_cka(xx, yy, merged) == 1.0
    other = x.copy()
    other[-1, -1] += 1.0
    different = moments_of(x, other, cuts=(99,))
    assert not different[2].identical and linear_cka(*different) < 1.0
    merged.merge(different[2])
    assert not merged.identical, "one different row anywhere"


def test_rotation_scale_and_offset_are_not_seen():
    x, y = rows_of(120, (10, 10))
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((10, 10)))[0]
    assert linear_cka(*moments_of(x, 3.0 * x @ turn - 8.0)) == pytest.approx(1.0, rel=1e-12)
    assert linear_cka(*moments_of(x, 0.01 * y @ turn + 1.0)) == pytest.approx(linear_cka(*moments_of(x, y)), rel=1e-9)


def test_the_debiased_value_of_independent_rows_is_zero_on_average_and_the_biased_is_not():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(100):
        three = moments_of(generator.standard_normal((60, 20)), generator.standard_normal((60, 20)))
        found.append([linear_cka(*three), linear_cka(*three, debiased=False)])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(100)
    assert abs(mean[0]) < 3 * error[0]
    assert mean[1] == pytest.approx(20 / (60 + 20), rel=0.05), "d/(n + d) where there is nothing in common"


def test_a_scatter_kept_elsewhere_stands_in_for_the_matrix():
    x, y = rows_of(90, (12, 7), offset=100.0)
    xx, yy, xy = moments_of(x, y, cuts=(20, 50))
    light = [
        PairMoments(side.shape[1], reference_x=torch.full((side.shape[1],), 99.0), keep_cross=False) for side in (x, y)
    ]
    for state, side in zip(light, (x, y), strict=True):
        for part in np.split(side, [45]):
            piece = PairMoments(side.shape[1], reference_x=torch.full((side.shape[1],), 99.0), keep_cross=False)
            piece.update(torch.from_numpy(part))
            state.merge(piece)
    scatters = [(side - side.mean(axis=0)).T @ (side - side.mean(axis=0)) for side in (x, y)]
    found = linear_cka(light[0], light[1], xy, scatter_x=scatters[0], scatter_y=scatters[1])
    assert found == pytest.approx(linear_cka(xx, yy, xy), rel=1e-9)


def test_the_precision_of_the_rows_does_not_cap_that_of_the_sums():
    x, y = (torch.from_numpy(side).bfloat16() for side in rows_of(200, (8, 6), offset=4.0))
    whole = gram_cka(x.double().numpy(), y.double().numpy())
    assert linear_cka(*moments_of_tensors(x, y)) == pytest.approx(whole, rel=1e-8)


def moments_of_tensors(x, y):
    xx, yy, xy = PairMoments(x.shape[1]), PairMoments(y.shape[1]), PairMoments(x.shape[1], y.shape[1])
    for a, b in zip(x.split(64), y.split(64), strict=True):
        xx.update(a)
        yy.update(b)
        xy.update(a, b)
    return xx, yy, xy


def test_what_is_undefined_is_refused_with_its_reason():
    x, y = rows_of(10, (3, 3))
    constant = np.full((10, 3), 7.3)
    found = cka_estimate(*moments_of(constant, y))
    assert found.value is None and found.status == "refused"
    assert found.message == "the rows of x do not vary beyond rounding, so that CKA is 0/0."
    with pytest.raises(Refusal, match="the rows of y do not vary"):
        linear_cka(*moments_of(x, constant))
    few = cka_estimate(*moments_of(x[:3], y[:3]))
    assert few.value is None and few.message == "3 rows are fewer than the 4 that an unbiased HSIC needs."
    good = cka_estimate(*moments_of(x, y), label="vs ln_final.hook_normalized")
    assert (good.quantity, good.unit, good.label, good.n) == ("cka", "ratio", "vs ln_final.hook_normalized", 10)


def test_wrong_shapes_are_refused_in_a_sentence():
    pair, alone = PairMoments(3, 2), PairMoments(3)
    with pytest.raises(ValueError, match=r"x must be \[rows, 3\], got \(4, 5\)\."):
        pair.update(np.zeros((4, 5)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"y has 3 rows, x has 4: one for each is needed\."):
        pair.update(np.zeros((4, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"these moments pair two streams and take y beside x\."):
        pair.update(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"these moments pair a stream with itself and take one set of rows\."):
        alone.update(np.zeros((4, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="cannot be merged"):
        pair.merge(PairMoments(2, 2))
    with pytest.raises(ValueError, match="reference_x must be one value for each of 3 dimensions"):
        PairMoments(3, reference_x=torch.zeros(2))
    with pytest.raises(ValueError, match="keep_cross=False is for a stream paired with itself"):
        PairMoments(3, 3, keep_cross=False)
    with pytest.raises(ValueError, match="over the same rows"):
        linear_cka(alone, PairMoments(3), pair)


def test_moments_without_their_matrix_need_the_same_reference_and_a_scatter():
    first, second = (PairMoments(3, reference_x=torch.full((3,), float(one)), keep_cross=False) for one in (0, 1))
    for state in (first, second):
        state.update(rows_of(8, (3,))[0])
    with pytest.raises(ValueError, match="taken about two references and cannot be merged"):
        first.merge(second)
    with pytest.raises(ValueError, match="give the centred scatter of the same rows"):
        hsic(first)
    with pytest.raises(ValueError, match="keep no matrix"):
        first.centred()
