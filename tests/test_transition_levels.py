"""Passing a level in noise, and the midpoint of a change: by hand, against closed forms, and their laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.grokking.change_point import change_point
from infocomp.grokking.crossing import Noise, bracket, flutter, noise_near, passing, runs

FLAT = np.zeros(400)


def test_runs_by_hand():
    holds = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1, 1], bool)
    assert list(np.flatnonzero(runs(holds, 3))) == [3, 4]
    assert list(np.flatnonzero(runs(holds, 1))) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert not runs(holds, 11).any()


def test_the_noise_of_a_flat_curve_is_measured():
    """The largest of five estimates is a quarter too large for independent noise, which errs on the wide side."""
    generator = np.random.default_rng(0)
    found = [noise_near(generator.normal(0, 0.1, 400), 200).deviation for _ in range(200)]
    assert 0.1 < np.mean(found) < 0.14
    assert 0.1 < np.mean([flutter(generator.normal(0, 0.1, 400)).deviation for _ in range(200)]) < 0.115


def test_a_curve_that_only_rises_has_no_noise_and_a_dip_or_two_are_none():
    rise = np.linspace(0, 1, 40) ** 3
    assert noise_near(rise, 20) == Noise(0.0, 0.0)
    dipped = np.repeat([0.0, 1.0], 20)
    dipped[[25, 26]] = 0.3
    assert noise_near(dipped, 20).deviation < 0.05


def test_evaluations_that_resemble_each_other_are_worth_fewer():
    """The mean of n evaluations of an AR(1) with correlation r has the variance σ²/n (1 + r)/(1 − r), nearly."""
    assert Noise(0.2, 0.0).of_mean(16) == pytest.approx(0.05)
    assert Noise(0.2, 0.6).of_mean(16) == pytest.approx(0.1)
    assert Noise(0.2, 0.6).of_mean(2) == 0.2, "two are never worse than one"
    generator = np.random.default_rng(1)
    white = generator.normal(size=60_000)
    noise = np.empty_like(white)
    noise[0] = white[0]
    for place in range(1, len(white)):
        noise[place] = 0.6 * noise[place - 1] + 0.8 * white[place]
    means = noise.reshape(-1, 60).mean(axis=1)
    assert np.std(means) == pytest.approx(Noise(1.0, 0.6).of_mean(60), rel=0.08), "1,000 means know it to 2 %"
    assert np.mean([noise_near(noise[s : s + 60], 30).correlation for s in range(0, 6000, 60)]) > 0.25


def test_the_bracket_by_hand():
    values = np.array([0.0, 0.0, 0.9, 0.7, 1.1, 0.9, 1.2, 1.2, 1.2, 1.2])
    assert bracket(values, 1.0, 1.0, 4, Noise(0.0, 0.0)) == (3, 4, True)
    assert bracket(values, 1.0, 1.0, 4, Noise(0.05, 0.0)) == (3, 6, True), "1.1 is 2 deviations above, 1.2 is 4"
    assert bracket(values, 1.0, 1.0, 4, Noise(0.09, 0.0))[:2] == (3, 7), "0.9 and 0.7 together are 3.1 errors below"
    assert bracket(values, 1.0, 1.0, 4, Noise(0.15, 0.0)) == (1, 9, False), (
        "only with the zeros are they 3 errors below"
    )
    assert bracket(values, 1.0, 1.0, 4, Noise(2.0, 0.0)) == (-1, 9, False)


def test_a_level_is_passed_where_the_curve_keeps_it():
    jump = np.repeat([0.0, 1.0], [10, 20])
    found = passing(jump, 0.5, 3, 0.1)
    assert (found.index, found.low, found.high, found.end, found.sure) == (10, 9, 10, 30, True)
    jump[20:24] = 0.45
    assert passing(jump, 0.5, 3, 0.1).end == 30, "a shallow dip"
    jump[20:24] = 0.2
    assert passing(jump, 0.5, 3, 0.1).end == 20, "four evaluations in a row are a fall"
    assert passing(jump, 0.5, 5, 0.1).end == 30, "of which five in a row are asked for here"
    assert passing(jump, 1.5, 3, 0.1) is None


def test_a_level_that_most_of_what_follows_holds_is_passed_however_near_it_came_from():
    """Noise delays the run of three until the evaluations before it are no lower than noise makes them."""
    missed = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        plateau = np.clip(1 + generator.normal(0, 0.03, 200), 0, 1)
        plateau[:3] = 1.0
        curve = np.concatenate([[0.0, 0.97, 0.985, 0.96, 0.98], plateau])
        found = passing(curve, 0.99, 3, 0.05, ceiling=1.0)
        missed += found is None or found.index != 5
    assert missed <= 1, "noise of three times the distance to the ceiling leaves few that hold"


def test_noise_cut_at_a_ceiling_does_not_move_the_interval():
    """Accuracies of 1 with noise are at most 1: their mean lies below 0.99, and yet they have passed it."""
    late, low = 0, []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        curve = np.clip(np.repeat([0.1, 1.0], [50, 150]) + generator.normal(0, 0.05, 200), 0, 1)
        found = passing(curve, 0.99, 3, 0.05, ceiling=1.0)
        if found is not None:
            late += found.low >= 50
            low.append(found.low)
    assert len(low) > 190 and late <= 10, "a side of an interval may miss 2.5 %, binomial, 3 standard errors"
    assert np.median(low) == 49, "and where the curve jumps, the evaluation before says so alone"


@pytest.mark.parametrize("width", [0.05, 0.3, 1.0])
def test_the_midpoint_of_a_sigmoid_in_log_step(width):
    steps = np.unique(np.round(np.geomspace(1, 1e7, 400)))
    curve = 0.1 + 0.7 / (1 + np.exp(-(np.log(steps) - np.log(2500)) / width))
    found = change_point(steps, curve)
    assert abs(np.log(found.step / 2500)) < 0.05 * width + 0.01 and found.low <= 2500 <= found.high
    assert (found.level_before, found.level_after) == pytest.approx((0.1, 0.8), abs=0.02)


def test_between_two_evaluations_the_line_is_in_log_step():
    found = change_point(np.array([9.0, 24.0, 99.0, 399.0, 999.0]), np.array([0.0, 0.0, 0.0, 1.0, 1.0]))
    assert found.step == pytest.approx(np.sqrt(100 * 400) - 1)
    assert (found.low, found.high) == (99, 399)


def test_two_stages_are_dated_by_the_one_that_passes_half_way():
    steps = np.arange(1.0, 301.0)
    curve = np.where(steps < 100, 0.0, np.where(steps < 200, 0.3, 1.0))
    assert (change_point(steps, curve).low, change_point(steps, curve).high) == (199, 200)
    curve = np.where(steps < 100, 0.0, np.where(steps < 200, 0.7, 1.0))
    assert (change_point(steps, curve).low, change_point(steps, curve).high) == (99, 100)


def test_noise_that_resembles_itself_is_seen_as_such():
    """An AR(1) of 0.8 and deviation 0.1 varies from evaluation to evaluation by 0.063, and by 0.1 in the long run."""
    generator = np.random.default_rng(4)
    found = []
    for _ in range(100):
        noise = generator.normal(0, 0.06, 400)
        noise[0] *= 1 / 0.6
        for place in range(1, 400):
            noise[place] += 0.8 * noise[place - 1]
        found.append((flutter(noise), noise_near(noise, 200)))
    assert 0.09 < np.median([one.deviation for one, _ in found]) < 0.12
    assert 0.6 < np.median([one.correlation for one, _ in found]) < 0.85
    assert np.median([one.deviation for _, one in found]) > 0.08
    assert np.median([one.correlation for _, one in found]) > 0.6
    assert flutter(np.linspace(0, 1, 50)) == Noise(0.0, 0.0) == flutter(np.repeat([0.0, 1.0, 0.2], [30, 40, 20]))


def test_a_rise_that_does_not_lead_over_the_threshold_is_none():
    steps = np.arange(1.0, 61.0)
    small = np.where(steps < 30, 0.992, 0.998)
    assert change_point(steps, small) is not None and change_point(steps, small, 0.99) is None
    short = np.where(steps < 30, 0.1, 0.6)
    assert change_point(steps, short, 0.99) is None and change_point(steps, short, 0.55) == change_point(steps, short)
    assert change_point(steps, short, 0.64) is not None, "a slow approach: within a tenth of the rise"


def test_noise_alone_has_no_midpoint():
    steps = np.arange(1.0, 101.0)
    found = [change_point(steps, np.random.default_rng(seed).normal(size=100)) for seed in range(200)]
    assert sum(one is not None for one in found) <= 0.05 * 200
    assert change_point(steps, np.ones(100)) is None and change_point(steps, -steps) is None


@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_midpoint_does_not_depend_on_the_unit_of_the_curve(scale, shift, seed):
    generator = np.random.default_rng(seed)
    steps = np.arange(1.0, 81.0)
    curve = np.where(steps < 40, 0.0, 1.0) + generator.normal(0, 0.1, 80)
    plain, other = change_point(steps, curve), change_point(steps, scale * curve + shift)
    assert (other.low, other.high) == (plain.low, plain.high)
    assert other.step == pytest.approx(plain.step)


def test_one_step_for_each_value():
    with pytest.raises(ValueError, match="one step for each of two values or more, got 3 steps and 2 values"):
        change_point(np.arange(3.0), np.arange(2.0))
