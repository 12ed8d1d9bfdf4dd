"""Rate–distortion by Blahut–Arimoto against the closed forms, and the closed forms against each other; bits."""

import numpy as np
import pytest

from infocomp.bottleneck import closed_forms, rate_distortion

HAMMING = 1.0 - np.eye(2)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1])
def test_bernoulli_source_under_hamming_distortion(p):
    found = rate_distortion([1 - p, p], HAMMING, np.linspace(0.5, 6, 23))
    assert found.rate == pytest.approx(closed_forms.bernoulli_rate(found.distortion, p), abs=1e-5)
    assert set(found.status) == {"converged"}


def test_uniform_source_of_five_values():
    found = rate_distortion(np.full(5, 0.2), 1.0 - np.eye(5), [3.0])
    assert found.rate[0] == pytest.approx(1.341132, abs=1e-6)
    assert found.distortion[0] == pytest.approx(0.166075, abs=1e-6)
    assert closed_forms.uniform_rate(found.distortion, 5) == pytest.approx(found.rate, abs=1e-9)


def test_gaussian_source_on_a_lattice():
    # D = 1/(2 s) of a unit Gaussian; lattice sums are exact up to exp(−2π² D/h²) = 3e-9, cut at 5.5 deviations
    grid = np.arange(-22, 23) / 4
    p = np.exp(-(grid**2) / 2)
    found = rate_distortion(p / p.sum(), (grid[:, None] - grid) ** 2, [1.0, 2.0, 8.0], tolerance=1e-5)
    assert found.rate == pytest.approx([0.5, 1, 2], abs=1e-5)
    assert found.distortion == pytest.approx([0.5, 0.25, 0.0625], abs=1e-5)
    assert found.rate == pytest.approx(closed_forms.gaussian_rate(found.distortion), abs=1e-5)


def test_laplace_source_is_neared_with_the_square_of_the_cell():
    errors = []
    for cells in (5, 10):
        grid = np.arange(-12 * cells, 12 * cells + 1) / cells
        p = np.exp(-np.abs(grid))
        found = rate_distortion(p / p.sum(), np.abs(grid[:, None] - grid), [2.0], tolerance=1e-5, steps=3000)
        errors.append(float(closed_forms.laplace_rate(found.distortion)[0] - found.rate[0]))
    assert 0 < errors[1] < 7e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)


def test_reverse_water_filling_by_hand():
    rate, each = closed_forms.reverse_water_filling([4.0, 1.0, 0.25], 1.25)
    # level ½: 0.5 + 0.5 + 0.25 = 1.25
    assert each == pytest.approx([0.5, 0.5, 0.25])
    assert rate == pytest.approx(0.5 * np.log2(8) + 0.5 * np.log2(2))
    assert closed_forms.reverse_water_filling([4.0, 1.0], 9.0)[0] == 0.0
    assert closed_forms.reverse_water_filling([2.0], 0.5)[0] == pytest.approx(float(closed_forms.gaussian_rate(0.5, 2)))


def test_water_filling_spends_what_is_asked_and_no_split_is_better():
    rng = np.random.default_rng(0)
    for _ in range(20):
        power = rng.exponential(size=6)
        budget = float(power.sum() * rng.uniform(0.05, 0.95))
        rate, each = closed_forms.reverse_water_filling(power, budget)
        assert each.sum() == pytest.approx(budget)
        other = np.minimum(power, each * rng.uniform(0.7, 1.3, 6))
        other = np.minimum(power, other * budget / other.sum())
        assert 0.5 * np.log2(power / other).sum() >= rate - 1e-9


def test_gap_is_a_certificate_and_a_cap_is_reported():
    grid = np.arange(-3, 3.01, 0.5)
    p = np.exp(-(grid**2) / 2)
    d = (grid[:, None] - grid) ** 2
    short = rate_distortion(p / p.sum(), d, [4.0], tolerance=1e-12, steps=20)
    long = rate_distortion(p / p.sum(), d, [4.0], tolerance=1e-8)
    value = [found.rate[0] + 4.0 / np.log(2) * found.distortion[0] for found in (short, long)]
    assert short.status == ("not converged",) and short.gap[0] > 1e-12
    assert 0 <= value[0] - value[1] <= short.gap[0]


def test_distortion_that_no_code_avoids_is_kept():
    plain = rate_distortion([0.5, 0.5], HAMMING, [2.0])
    moved = rate_distortion([0.5, 0.5], HAMMING + np.array([[500.0], [900.0]]), [2.0])
    assert moved.distortion - 700 == pytest.approx(plain.distortion)
    assert moved.rate == pytest.approx(plain.rate)


@pytest.mark.parametrize(
    ("p", "d", "slopes", "message"),
    [
        ([0.5, 0.6], HAMMING, [1.0], r"p\(x\) must sum to one; it sums to 1\.1"),
        ([1.5, -0.5], HAMMING, [1.0], r"p\(x\) must not be negative; its smallest entry is -0\.5"),
        ([0.5, 0.5], HAMMING - 1, [1.0], "distortion must not be negative"),
        ([0.5, 0.5], np.zeros((3, 2)), [1.0], "distortion must have a row for each x"),
        ([0.5, 0.5], HAMMING, [0.0], "slopes must be numbers above 0"),
        ([0.5, 0.5], HAMMING, [], "slopes must be numbers above 0, at least one"),
    ],
)
def test_bad_input_is_named(p, d, slopes, message):
    with pytest.raises(ValueError, match=message):
        rate_distortion(p, d, slopes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: closed_forms.binary_symmetric(0.5, 1.5), "flip must lie from 0 to 1; it is 1.5"),
        (lambda: closed_forms.inverse_binary_entropy(-0.1), "entropy must lie from 0 to 1; it is -0.1"),
        (lambda: closed_forms.gaussian_scalar(1.0, 2.0), "correlation must lie from -1 to 1; it is 2"),
        (lambda: closed_forms.gaussian_vector(-1.0, np.eye(2), 1), "beta must be a finite number above 0; -1 is not"),
        (lambda: closed_forms.gaussian_vector(2.0, np.eye(2), 2), "covariance must be square with x and y in it"),
        (lambda: closed_forms.reverse_water_filling([1.0, 0.0], 1.0), "variances must be a list of numbers above 0"),
        (lambda: closed_forms.reverse_water_filling([1.0], 0.0), "distortion must be above 0; it is 0"),
    ],
)
def test_closed_forms_name_what_is_out_of_range(call, message):
    with pytest.raises(ValueError, match=message):
        call()
