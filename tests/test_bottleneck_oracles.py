"""The solver against points and curves that others computed or that have a closed form, to 1e-5 bits."""

import time

import numpy as np
import pytest
from bottleneck_tables import CONSTANTS, DIT, EMBO_5X5, ERASED, ERASURE, FUNCTION, POINTS, SYMMETRIC

from infocomp.bottleneck import Joint, Limits, closed_forms, deterministic_y, hard_point, solve, solve_deterministic
from infocomp.bottleneck.deterministic import partitions

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "table", "beta", "complexity", "relevance", "digits"), POINTS, ids=lambda value: str(value)[:18]
)
def test_published_points_are_found(name, table, beta, complexity, relevance, digits):
    curve = solve(Joint.of(table), [beta])
    tolerance = max(TOLERANCE, 0.6 * 10.0**-digits)
    assert curve.complexity[0] == pytest.approx(complexity, abs=tolerance)
    assert curve.relevance[0] == pytest.approx(relevance, abs=tolerance)
    assert curve.converged and curve.kind == "bound"


@pytest.mark.parametrize(("name", "table", "information", "entropy"), CONSTANTS, ids=lambda value: str(value)[:12])
def test_constants_of_the_joints(name, table, information, entropy):
    joint = Joint.of(table)
    assert joint.mutual_information == pytest.approx(information, abs=1e-6)
    assert joint.entropy_x == pytest.approx(entropy, abs=1e-6)


def test_where_the_optimum_is_a_line_the_lagrangian_is_right():
    curve = solve(Joint.of(DIT), [2.0])
    assert curve.lagrangian[0] == pytest.approx(0.0, abs=TOLERANCE)
    assert curve.relevance[0] == pytest.approx(curve.complexity[0] / 2, abs=TOLERANCE)


def test_dit_kinks_at_beta_three():
    curve = solve(Joint.of(DIT), [2.99, 3.0, 3.2])
    assert curve.complexity[:2] == pytest.approx(0.8, abs=1e-5)
    assert curve.complexity[2] > 0.82


@pytest.mark.parametrize("flip", [0.02, 0.1, 0.3])
def test_binary_symmetric_curve_follows_mrs_gerber(flip):
    joint = Joint.of(np.array([[1 - flip, flip], [flip, 1 - flip]]) / 2)
    betas = 1 / (1 - 2 * flip) ** 2 * np.array([0.9, 1.02, 1.1, 1.5, 3.0])
    curve = solve(joint, betas)
    expected = np.array([closed_forms.binary_symmetric_at(beta, flip) for beta in betas])
    assert curve.complexity == pytest.approx(expected[:, 0], abs=TOLERANCE)
    assert curve.relevance == pytest.approx(expected[:, 1], abs=TOLERANCE)
    for complexity, relevance in zip(curve.complexity, curve.relevance, strict=True):
        assert relevance == pytest.approx(closed_forms.binary_symmetric(float(max(complexity, 0)), flip), abs=TOLERANCE)


def test_erasure_curve_is_a_line_that_jumps_at_its_critical_beta():
    critical = 1 / (1 - ERASED)
    curve = solve(Joint.of(ERASURE), [critical - 0.01, critical + 0.01])
    assert curve.relevance == pytest.approx([0, 1 - ERASED], abs=TOLERANCE)
    middle = curve.relevance_at(0.5)
    assert middle == pytest.approx(float(closed_forms.erasure(0.5, ERASED)), abs=TOLERANCE)


def test_deterministic_y_has_its_closed_form_where_the_lagrangian_has_a_corner():
    joint = Joint.of(FUNCTION)
    curve = deterministic_y(joint)
    assert curve.relevance == pytest.approx(closed_forms.deterministic(curve.complexity, 1.0))
    assert solve(joint, [0.5, 1.01, 7]).complexity == pytest.approx([0, 1, 1], abs=TOLERANCE)
    assert curve.relevance_at(0.37) == pytest.approx(0.37)
    with pytest.raises(ValueError, match=r"Y must be a function of X for this closed form; H\(Y\|X\) is 0\.8"):
        deterministic_y(Joint.of(DIT))


def test_scalar_gaussian_bottleneck_on_a_lattice():
    # sums over a lattice of Gaussians are exact up to exp(−2π² σ²/h²), 1e-15 here; cut at 5.4 standard deviations
    rho, grid = 0.8, np.arange(-12, 13) / 2.2
    x, y = np.meshgrid(grid, grid, indexing="ij")
    p = np.exp(-(x**2 - 2 * rho * x * y + y**2) / (2 * (1 - rho**2)))
    curve = solve(Joint.of(p / p.sum()), [1.2, 2.0, 4.0], limits=Limits(tolerance=1e-9, steps=3000, change=1.0))
    for beta, complexity, relevance in zip(curve.betas, curve.complexity, curve.relevance, strict=True):
        expected = closed_forms.gaussian_vector(beta, [[1, rho], [rho, 1]], 1)
        assert (complexity, relevance) == pytest.approx(expected, abs=TOLERANCE)
        assert relevance == pytest.approx(float(closed_forms.gaussian_scalar(complexity, rho)), abs=TOLERANCE)


def test_gaussian_vector_agrees_with_scalar_and_has_its_critical_betas():
    rho = np.array([0.9, 0.5])
    covariance = np.block([[np.eye(2), np.diag(rho)], [np.diag(rho), np.eye(2)]])
    critical = closed_forms.gaussian_critical_betas(covariance, 2)
    assert critical == pytest.approx(1 / rho**2)  # 1 − λ = ρ²
    one = closed_forms.gaussian_vector(float(critical[1]) - 1e-9, covariance, 2)
    assert one[1] == pytest.approx(float(closed_forms.gaussian_scalar(one[0], 0.9)), abs=1e-9)
    step = 1e-4  # slope dI_Y/dI_X = 1/β
    low, high = (closed_forms.gaussian_vector(6 + sign * step, covariance, 2) for sign in (-1, 1))
    assert (high[1] - low[1]) / (high[0] - low[0]) == pytest.approx(1 / 6, rel=1e-6)
    assert closed_forms.gaussian_vector(1.0, covariance, 2) == (0.0, 0.0)


def test_deterministic_bottleneck_of_dits_distribution():
    joint = Joint.of(DIT)
    curve = solve_deterministic(joint, [3.0, 50.0])
    assert curve.complexity == pytest.approx([0.9709506, 1.5219281], abs=1e-6)
    assert curve.relevance == pytest.approx([0.4199731, 0.5709506], abs=1e-6)
    assert curve.kind == "achievable" and curve.alpha == 0


def test_deterministic_bottleneck_is_the_best_of_all_partitions():
    joint, betas = Joint.of(EMBO_5X5), np.array([2.0, 5.0, 9.0, 20.0])
    every = np.array([hard_point(joint, labels) for labels in partitions(5)])
    assert len(every) == 52
    least = (every[:, 0] - betas[:, None] * every[:, 1]).min(1)
    assert solve_deterministic(joint, betas).lagrangian == pytest.approx(least, abs=1e-9)


def test_alpha_one_is_the_bottleneck_and_small_alpha_nears_the_deterministic_one():
    joint, betas = Joint.of(DIT), [2.5, 5.0, 10.0]
    assert solve_deterministic(joint, betas, alpha=1.0).lagrangian == pytest.approx(
        solve(joint, betas).lagrangian, abs=1e-9
    )
    soft, hard = solve_deterministic(joint, [4.0], alpha=0.01), solve_deterministic(joint, [4.0])
    assert soft.lagrangian == pytest.approx(hard.lagrangian, abs=0.02)


@pytest.mark.parametrize("table", [DIT, EMBO_5X5, SYMMETRIC], ids=["dit", "embo 5x5", "binary symmetric"])
def test_a_hundred_and_one_points_take_seconds_at_most(table):
    start = time.perf_counter()
    curve = solve(Joint.of(table), np.linspace(1, 10, 101))
    assert time.perf_counter() - start < 5  # 0.05 s to 0.3 s on one core; the aim is 1
    assert curve.converged
