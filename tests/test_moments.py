"""Mean, scatter and outlier directions of rows: by hand, against NumPy, and of any split of the rows."""

import numpy as np
import pytest
import torch

from infocomp.estimators.moments import SKETCH, RowMoments, _test_matrix


def with_outliers(n=3000, dim=160, spreads=(30.0, 15.0, 8.0), seed=0):
    """Gaussian rows far from the origin, of unit variance but for a few random directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(dim, len(spreads), generator=generator, dtype=torch.float64)).Q
    rows = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return (
        rows + 100 + torch.randn(n, len(spreads), generator=generator).double() * torch.tensor(spreads) @ directions.T
    )


def cosines(one, other):
    """Cosines of the principal angles between the spans of two sets of columns."""
    return torch.linalg.svdvals(one.T @ other)


def test_moments_by_hand_on_three_points():
    moments = RowMoments(3)
    moments.update(torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 1.0]]))
    moments.update(torch.tensor([[5.0, 0.0, -1.0]]))
    assert moments.count == 3 and moments.mean.tolist() == [3.0, 0.0, 0.0]
    # deviations (-2, 0, 0), (0, 0, 1), (2, 0, -1)
    assert moments.scatter.tolist() == [[8.0, 0.0, -2.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 2.0]]
    _, vectors = np.linalg.eigh(moments.scatter.numpy())
    assert abs(moments.directions(1)[:, 0] @ torch.from_numpy(vectors[:, -1])).item() == pytest.approx(1, abs=1e-12)


def test_directions_are_those_of_numpys_covariance_and_orthonormal():
    rows = with_outliers()
    moments = RowMoments(160)
    for batch in rows.split(700):
        moments.update(batch)
    found = moments.directions(3)
    vectors = torch.from_numpy(np.linalg.eigh(np.cov(rows.numpy().T))[1][:, -3:].copy())
    assert cosines(found, vectors).min() > 1 - 1e-10
    assert torch.allclose(found.T @ found, torch.eye(3, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("exact_dim", [160, 0])
def test_any_split_and_any_merge_gives_the_same_moments(exact_dim):
    rows = with_outliers()
    whole, split, first, second, empty = (RowMoments(160, exact_dim=exact_dim) for _ in range(5))
    whole.update(rows)
    for batch in rows.split(171):
        split.update(batch)
    first.update(rows[:1234])
    second.update(rows[1234:])
    first.merge(second)
    first.merge(empty)
    for other in (split, first):
        assert other.count == 3000
        assert torch.allclose(other.mean, whole.mean, rtol=1e-13)
        assert torch.allclose(other.scatter, whole.scatter, atol=1e-9 * float(whole.scatter.abs().max()))
        assert cosines(other.directions(2), whole.directions(2)).min() > 1 - 1e-9


def test_rows_far_from_the_origin_lose_no_digits():
    """Uncentred squares of rows at 1e8 would leave nothing of a variance of 1 in float64."""
    rows = with_outliers(500, 20, (10.0,))
    near, far = RowMoments(20), RowMoments(20)
    for batch in rows.split(100):
        near.update(batch)
        far.update(batch + 1e8)
    assert torch.allclose(far.scatter, near.scatter, atol=1e-4)


def test_wide_rows_keep_a_sketch_that_finds_what_stands_out():
    """The same directions as the whole scatter to 1e-3 of their variance, and 64 columns in place of all."""
    rows = with_outliers(4000, 600, (30.0, 20.0, 12.0))
    whole, sketch = RowMoments(600), RowMoments(600, exact_dim=599)
    for batch in rows.split(900):
        whole.update(batch)
        sketch.update(batch)
    assert sketch.scatter.shape == (600, SKETCH) and whole.scatter.shape == (600, 600)
    assert cosines(sketch.directions(3), whole.directions(3)).min() > 0.999
    centred = rows - rows.mean(dim=0)
    held = [float((centred @ state.directions(3)).square().sum()) for state in (sketch, whole)]
    assert 0.999 <= held[0] / held[1] <= 1 + 1e-9


def test_a_sketch_is_exact_where_rows_vary_along_few_directions():
    """Nyström is exact up to the rank of the sketch, also where eigenvalues lie close together."""
    generator = torch.Generator().manual_seed(1)
    spreads = torch.linspace(10, 7, 20, dtype=torch.float64)
    rows = (torch.randn(900, 20, generator=generator, dtype=torch.float64) * spreads) @ torch.randn(
        20, 300, generator=generator, dtype=torch.float64
    )
    whole, sketch = RowMoments(300), RowMoments(300, exact_dim=0)
    whole.update(rows)
    sketch.update(rows)
    assert cosines(sketch.directions(3), whole.directions(3)).min() > 1 - 1e-9


def test_every_process_sketches_with_the_same_columns():
    one = RowMoments(80, exact_dim=0).test
    _test_matrix.cache_clear()
    other = RowMoments(80, exact_dim=0).test
    assert other is not one and torch.equal(other, one)
    assert torch.allclose(one.T @ one, torch.eye(SKETCH, dtype=torch.float64), atol=1e-12)


def test_without_a_scatter_only_the_mean_is_kept():
    rows = with_outliers(100, 20, (2.0,))
    moments = RowMoments(20, with_scatter=False)
    moments.update(rows[:60].float())
    moments.update(rows[60:].float())
    assert torch.allclose(moments.mean, rows.mean(dim=0), rtol=1e-6) and moments.scatter.numel() == 0


@pytest.mark.parametrize("exact_dim", [20, 0])
def test_rows_that_vary_along_too_few_directions_are_refused(exact_dim):
    moments = RowMoments(20, exact_dim=exact_dim)
    moments.update(torch.randn(3, 20, generator=torch.Generator().manual_seed(0)))  # three points span a plane
    assert moments.directions(2).shape == (20, 2)
    sentence = (
        r"^the 3 pilot rows vary along 2 directions only, outlier_directions is 3: raise pilot_tokens or take fewer "
        r"directions\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        moments.directions(3)
    constant = RowMoments(20, exact_dim=exact_dim)
    constant.update(torch.ones(5, 20))
    with pytest.raises(ValueError, match=r"^the 5 pilot rows vary along 0 directions only, outlier_directions is 1: "):
        constant.directions(1)


@pytest.mark.parametrize(("dim", "exact_dim", "most"), [(20, 20, 18), (20, 0, 18), (100, 0, SKETCH // 2)])
def test_more_directions_than_can_be_removed_or_found_are_refused(dim, exact_dim, most):
    moments = RowMoments(dim, exact_dim=exact_dim)
    moments.update(torch.randn(500, dim, generator=torch.Generator().manual_seed(0)))
    assert moments.directions(most).shape == (dim, most)
    for k in (0, most + 1):
        sentence = rf"^outlier_directions must lie between 1 and {most} for rows of width {dim}, got {k}\.$"
        with pytest.raises(ValueError, match=sentence):
            moments.directions(k)


def test_moments_of_other_widths_or_kinds_do_not_merge():
    for other in (RowMoments(21), RowMoments(20, with_scatter=False), RowMoments(20, exact_dim=0)):
        with pytest.raises(ValueError, match=r"^moments of shapes \(20, 20\) and .* cannot be merged: both must have"):
            RowMoments(20).merge(other)


def test_pilot_rows_with_infinity_are_refused():
    moments = RowMoments(4)
    moments.update(torch.tensor([[1.0, 2.0, float("inf"), 0.0], [0.0, 1.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"^the pilot rows hold NaN or infinity; find the layer or checkpoint that"):
        moments.directions(1)
