"""Plateau and line over models against values by hand, planted ones, and simulations of their intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from infocomp.memorization.capacity import (
    Plateau,
    capacity_line,
    fills_the_model,
    lower_bound,
    plateau,
    run_message,
)


def known(end: float | None) -> float:
    """An end of an interval that there must be."""
    assert end is not None
    return end


def test_the_plateau_of_three_seeds_by_hand():
    found = plateau([100.0, 104.0, 108.0], [0, 1, 2])
    half = 4.302652729696 * 4 / math.sqrt(3)  # t at 2 degrees of freedom, deviation 4
    assert (found.value, found.seeds) == (104.0, 3)
    assert found.std_error == pytest.approx(4 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((104 - half, 104 + half))


def test_several_runs_of_a_seed_are_one_value_of_that_seed():
    found = plateau([90.0, 110.0, 104.0, 108.0], [7, 7, 1, 2])
    assert found == plateau([104.0, 108.0, 100.0], [1, 2, 7])
    assert plateau([1.0, 1.0, 1.0, 5.0], [0, 0, 0, 1]).value == 3.0, "a seed with more runs weighs no more"


def test_one_seed_has_no_interval():
    assert plateau([90.0, 110.0], [3, 3]) == Plateau(100.0, None, None, None, 1)


@pytest.mark.parametrize(("bits", "seeds"), [([], []), ([1.0, 2.0], [0]), ([1.0], [0, 1])])
def test_runs_and_seeds_must_match(bits, seeds):
    with pytest.raises(ValueError, match=f"one seed for each of its runs, got {len(bits)} runs and {len(seeds)} seeds"):
        plateau(bits, seeds)


def test_the_plateaus_interval_covers_the_truth_nineteen_times_in_twenty():
    generator = np.random.default_rng(0)
    drawn = [plateau(generator.normal(5000, 60, 3).tolist(), range(3)) for _ in range(4000)]
    covered = np.mean([known(one.low) < 5000 < known(one.high) for one in drawn])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


# --- the line ---------------------------------------------------------------------------------------------------------


def test_the_line_through_three_points_by_hand():
    found = capacity_line([0.0, 1.0, 2.0], [1.0, 3.0, 4.0])
    # slope Sxy / Sxx = 3/2, intercept mean 8/3 − 3/2; residuals (−1, 2, −1)/6: variance (1/6) / 1
    assert (found.slope, found.intercept) == pytest.approx((1.5, 7 / 6))
    quantile, error = 12.706204736, math.sqrt(1 / 6 / 2)
    assert found.slope_error == pytest.approx(error)
    assert (found.slope_low, found.slope_high) == pytest.approx((1.5 - quantile * error, 1.5 + quantile * error))
    other = math.sqrt(1 / 6 * (1 / 3 + 1 / 2))
    ends = (7 / 6 - quantile * other, 7 / 6 + quantile * other)
    assert (found.intercept_low, found.intercept_high) == pytest.approx(ends)
    assert found.r_squared == pytest.approx(1 - (1 / 6) / (14 / 3)) and (found.models, found.runs) == (3, 3)


def test_the_line_is_least_squares_over_the_means_of_sizes_as_matrices_give_it():
    generator = np.random.default_rng(1)
    sizes = np.array([9216.0, 20000.0, 40000.0, 61000.0])
    runs = np.repeat(sizes, [3, 2, 3, 4])  # sizes count alike, however many seeds they have
    stored = 2.3 * runs + 500 + generator.normal(0, 900, 12)
    found = capacity_line(runs.tolist(), stored.tolist())
    means = np.array([stored[runs == size].mean() for size in sizes])
    design = np.stack([sizes, np.ones(4)], axis=1)
    weights, residual = np.linalg.lstsq(design, means, rcond=None)[:2]
    errors = np.sqrt(np.diag(residual[0] / 2 * np.linalg.inv(design.T @ design)))
    quantile = stats.t.ppf(0.975, 2)
    assert (found.slope, found.intercept) == pytest.approx(tuple(weights))
    assert found.slope_error == pytest.approx(errors[0])
    assert known(found.slope_high) - found.slope == pytest.approx(quantile * errors[0])
    assert found.intercept - known(found.intercept_low) == pytest.approx(quantile * errors[1])
    assert found.r_squared == pytest.approx(1 - residual[0] / ((means - means.mean()) ** 2).sum())
    assert (found.models, found.runs) == (4, 12)


def test_intervals_cover_a_planted_line_nineteen_times_in_twenty_also_where_sizes_depart_from_it():
    generator, sizes = np.random.default_rng(2), np.repeat([10_000.0, 20_000.0, 40_000.0], 3)
    misfit = [np.repeat(generator.normal(0, 500, 3), 3) for _ in range(3000)]  # what seeds of a size have in common
    stored = [3.64 * sizes - 800 + own + generator.normal(0, 300, 9) for own in misfit]
    drawn = [capacity_line(sizes.tolist(), one.tolist()) for one in stored]
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 3000)
    slopes = [known(one.slope_low) < 3.64 < known(one.slope_high) for one in drawn]
    intercepts = [known(one.intercept_low) < -800 < known(one.intercept_high) for one in drawn]
    assert abs(np.mean(slopes) - 0.95) < tolerance and abs(np.mean(intercepts) - 0.95) < tolerance


def test_the_seeds_error_is_the_spread_of_slopes_that_seeds_alone_make():
    generator, sizes = np.random.default_rng(3), np.repeat([10_000.0, 20_000.0, 40_000.0], 3)
    drawn = [capacity_line(sizes.tolist(), (2 * sizes + generator.normal(0, 700, 9)).tolist()) for _ in range(2000)]
    squares = [known(one.seed_error) ** 2 for one in drawn]
    assert math.sqrt(np.mean(squares)) == pytest.approx(np.std([one.slope for one in drawn]), rel=0.08)
    assert capacity_line([1.0, 1.0, 2.0], [1.0, 2.0, 4.0]).seed_error is None, "a size of one run tells no spread"


def test_two_runs_make_a_line_without_an_interval_and_one_size_none():
    found = capacity_line([1.0, 3.0], [2.0, 8.0])
    assert (found.slope, found.intercept, found.r_squared) == pytest.approx((3.0, -1.0, 1.0))
    assert found.slope_error is found.slope_low is found.slope_high is found.intercept_low is None
    with pytest.raises(ValueError, match="a line over models needs at least two sizes, got 1"):
        capacity_line([5.0, 5.0], [1.0, 2.0])


# --- what is said of a number -----------------------------------------------------------------------------------------


def test_messages_say_what_twice_the_steps_added():
    bound = "lower bound at this budget: twice the steps "
    assert lower_bound([]) == bound + "were not measured"
    assert lower_bound([0.031]) == bound + "add 3.1 %"
    assert lower_bound([0.0, 0.031, -0.02]) == bound + "add 3.1 %", "no mean hides the run that still learns"
    assert lower_bound([0.02]) == bound + "add 2.0 %", "less than 2 % is what counts as enough"
    assert lower_bound([0.0199]) is None and lower_bound([0.0]) is None and lower_bound([-0.001]) is None


def test_a_gain_that_is_no_number_is_no_proof_of_enough():
    assert lower_bound([math.nan]) is not None and lower_bound([math.inf]) is not None
    assert lower_bound([0.0, math.nan]) is not None


def test_a_run_at_its_ceiling_needs_no_more_steps_and_another_points_to_its_model():
    assert run_message(99.0, 100.0) is None and run_message(100.0, 100.0) is None
    said = "lower bound at this budget, unless the model's saturation_gain is below 2%"
    assert run_message(98.9, 100.0) == said
    assert run_message(0.0, 0.0) == said


def test_a_model_is_filled_by_data_that_it_cannot_hold():
    assert fills_the_model([80.0, 50.0], [100.0, 100.0]) and not fills_the_model([81.0, 50.0], [100.0, 100.0])
    with pytest.raises(ValueError, match="zip"):
        fills_the_model([80.0], [100.0, 100.0])
