"""Phases on curves whose bends are known: no bend in straight lines, intervals that hold the bend, names by sign."""

import math

import numpy as np
import pytest

from infocomp.geometry import phases as room
from infocomp.geometry.phases import phases

GEOMETRIC = np.r_[0, 2 ** np.arange(11)]  # 12 checkpoints
LINEAR = np.linspace(0, 512, 17)


def noise(generator, k, shared=0.5):
    """Of RankMe and of α, correlated as two measures of one matrix are."""
    drawn = generator.standard_normal((2, k))
    return drawn[0], shared * drawn[0] + math.sqrt(1 - shared**2) * drawn[1]


def tent(steps, bend, seed, size=0.125):
    """RankMe rises to a bend and falls after it, α does the opposite; noise of `size` of RankMe's range."""
    places = np.log1p(steps)
    at = math.log1p(bend)
    course = np.where(places < at, places - at, 0.8 * (at - places))
    course = course / np.ptp(course)
    first, second = noise(np.random.default_rng(seed), len(steps))
    return np.exp(3 + course + size * first), 1 - 0.5 * course + 0.5 * size * second


def bend_of(steps, seed):
    """A bend anywhere between the third checkpoint and the third last."""
    return math.expm1(np.random.default_rng(seed).uniform(*np.log1p(steps[[2, -3]])))


def test_three_phases_without_noise_are_found_where_they_are():
    steps = np.r_[0, 2 ** np.arange(20)]
    places = np.log1p(steps)
    corners = [places[0], math.log1p(30), math.log1p(6000), places[-1]]
    rankme = np.exp(np.interp(places, corners, [3.0, 2.0, 5.0, 4.0]))
    alpha = np.interp(places, corners, [0.9, 1.2, 0.8, 1.1])
    found = phases(steps, rankme, alpha)
    assert [segment.name for segment in found.segments] == ["warm-up", "entropy-seeking", "compression-seeking"]
    assert [boundary.label for boundary in found.boundaries] == ["entropy-seeking begins", "compression-seeking begins"]
    first, second = found.boundaries
    assert first.step == pytest.approx(30, rel=0.05) and second.step == pytest.approx(6000, rel=0.05), "fine places"
    assert first.low <= 30 <= first.high < second.low <= 6000 <= second.high
    assert (first.before, first.after) == ("warm-up", "entropy-seeking")
    assert [(one.start, one.end) for one in found.segments] == [(0, first.step), (first.step, second.step),
                                                                (second.step, steps[-1])]  # fmt: skip
    slope = (5.0 - 2.0) / (corners[2] - corners[1])
    assert found.segments[1].rankme_slopes[0] == pytest.approx(slope, rel=0.02)
    assert found.segments[1].alpha_slopes[0] == pytest.approx(-slope * 0.4 / 3, rel=0.02)


@pytest.mark.parametrize(("rise", "fall", "name"), [
    (0.1, -0.05, "entropy-seeking"), (-0.1, 0.05, "compression-seeking"), (0.1, 0.05, "mixed"), (0.1, 0.0, "mixed"),
    (0.0, 0.0, "flat"),
])  # fmt: skip
def test_a_straight_pair_of_curves_is_one_phase_named_by_its_signs(rise, fall, name):
    places = np.log1p(GEOMETRIC)
    first, second = noise(np.random.default_rng(3), 12)
    found = phases(GEOMETRIC, np.exp(3 + rise * places + 0.02 * first), 1 + fall * places + 0.01 * second)
    assert [segment.name for segment in found.segments] == [name] and found.boundaries == () and found.bends == 0
    exact = phases(GEOMETRIC, np.exp(3 + rise * places), 1 + fall * places)
    assert [segment.name for segment in exact.segments] == [name], "rounding is neither a bend nor a slope"


def test_curves_without_a_bend_get_none_in_at_least_95_of_100():
    """The test is at 2.5 %; BIC, with a bend counted as three parameters, bends several times more of them."""
    bent, by_criterion, sloped = 0, 0, 0
    for seed in range(100):
        first, second = noise(np.random.default_rng(seed), 12)
        rise = 0.1 * (seed % 2)
        rankme, alpha = np.exp(3 + rise * np.log1p(GEOMETRIC) + 0.05 * first), 1 + 0.02 * second
        found = phases(GEOMETRIC, rankme, alpha)
        bent += found.bends > 0
        sloped += not rise and found.segments[0].name != "flat"
        curves = np.stack([np.log(rankme), alpha], axis=1)
        statistic = room._search(tuple(np.log1p(GEOMETRIC)), None).statistics(curves[None])[0][0]
        by_criterion += (statistic[1:] > 3 * np.arange(1, len(statistic)) * math.log(12)).any()
    assert bent <= 5, "at 2.5 %, 2.7 of 100 in the mean over draws"
    assert by_criterion > 3 * max(bent, 3)
    assert sloped <= 9, "5 % of 50, 3 standard errors"


def test_intervals_hold_the_bend_in_at_least_90_of_100():
    held, found = 0, 0
    for seed in range(100):
        bend = bend_of(GEOMETRIC, seed)
        got = phases(GEOMETRIC, *tent(GEOMETRIC, bend, seed + 1000))
        if got.boundaries:
            found += 1
            held += any(boundary.low <= bend <= boundary.high for boundary in got.boundaries)
    assert found >= 90
    assert held >= 0.87 * found, "binomial around 0.94, 100 draws, 3 standard errors"


def test_a_bend_after_which_the_signs_stay_begins_no_phase():
    places = np.log1p(LINEAR)
    course = np.interp(places, [0, 4, places[-1]], [0, 1, 4])
    found = phases(LINEAR, np.exp(course), 2 - 0.1 * course)
    assert [segment.name for segment in found.segments] == ["entropy-seeking"] and found.boundaries == ()
    assert found.bends == 1 and len(found.segments[0].rankme_slopes) == 2
    assert found.segments[0].rankme_slopes[0] < found.segments[0].rankme_slopes[1]


def test_a_fall_that_lasts_is_compression_and_not_a_warm_up():
    places = np.log1p(LINEAR)
    course = np.interp(places, [0, 4, places[-1]], [0, -1, -1.1])
    found = phases(LINEAR, np.exp(3 + course), 1 - 0.1 * course)
    assert {segment.name for segment in found.segments} == {"compression-seeking"}


def test_scale_order_of_units_and_correlation_do_not_matter():
    """The statistic is blind to any linear map of the two curves: α may hold a share of RankMe's noise."""
    rankme, alpha = tent(LINEAR, 60, seed=5)
    one = phases(LINEAR, rankme, alpha)
    other = phases(LINEAR, 40 * rankme, 7 * alpha - 3)
    assert len(one.boundaries) == 1 and one.boundaries[0].step == pytest.approx(other.boundaries[0].step)
    search = room._search(tuple(np.log1p(LINEAR)), None)
    curves = np.stack([np.log(rankme), alpha], axis=1)
    first, second = (search.statistics(each[None])[0] for each in (curves, curves @ [[1.0, 0.8], [0.0, 0.3]]))
    assert first == pytest.approx(second, rel=1e-6)
    assert phases(LINEAR, rankme, alpha) == one, "seeded: the same twice"


def test_the_statistic_is_that_of_a_plain_least_squares_fit():
    rankme, alpha = tent(LINEAR, 60, seed=6)
    curves, places = np.stack([np.log(rankme), alpha], axis=1), np.log1p(LINEAR)
    search = room._search(tuple(places), None)
    found, best = search.statistics(curves[None])

    def determinant(*breaks):
        columns = np.stack([np.ones(17), places, *(np.clip(places - one, 0, None) for one in breaks)], axis=1)
        left = curves - columns @ np.linalg.lstsq(columns, curves, rcond=None)[0]
        return np.linalg.det(left.T @ left)

    for bends in (1, 2, 3):
        every = [determinant(*choice) for choice in search.choices[bends]]
        assert int(np.argmin(every)) == best[0, bends]
        assert found[0, bends] == pytest.approx(17 * math.log(determinant() / min(every)), rel=1e-6)


def test_errors_weigh_the_checkpoints():
    """A wild last half says little where its errors are large."""
    places = np.log1p(GEOMETRIC)
    errors = np.where(np.arange(12) < 8, 0.01, 1.0)
    generator = np.random.default_rng(1)
    rankme = np.exp(3 + 0.2 * places + errors * generator.standard_normal(12))
    alpha = 1 - 0.1 * places + 0.5 * errors * generator.standard_normal(12)
    known = phases(GEOMETRIC, rankme, alpha, np.stack([errors * rankme, 0.5 * errors]))
    assert known.bends == 0 and known.segments[0].name == "entropy-seeking"
    assert known.segments[0].rankme_slopes[0] == pytest.approx(0.2, abs=0.02)
    assert abs(phases(GEOMETRIC, rankme, alpha).segments[0].rankme_slopes[0] - 0.2) > 0.03
    doubled = phases(GEOMETRIC, rankme, alpha, 2 * np.stack([errors * rankme, 0.5 * errors]))
    assert doubled == known, "only the course of the errors counts"


def test_missing_checkpoints_and_alike_residuals_are_told():
    rankme, alpha = tent(LINEAR, 60, seed=5)
    rankme[3] = np.nan
    assert phases(LINEAR, rankme, alpha).message == "1 checkpoints without RankMe or alpha left out"
    steps = np.arange(60.0)
    places = np.log1p(steps)
    wave = 0.1 * np.sin(steps / 2)
    told = phases(steps, np.exp(3 + places + wave), 1 - places - wave + 0.01 * np.cos(steps * 2)).message
    assert "residuals of neighbouring checkpoints are alike (r = 0." in told and told.endswith("surer than they are")


def test_five_checkpoints_are_enough_to_ask_and_rarely_to_bend():
    steps = np.array([0, 10, 100, 1000, 10_000])
    found = phases(steps, [20, 30, 46, 31, 19], [1.2, 1.0, 0.8, 1.01, 1.2])
    assert found.bends <= 1 and found.segments[0].start == 0 and found.segments[-1].end == 10_000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rankme": [1, 2, 3]}, r"one RankMe and one alpha for each step, got shapes \(5,\), \(3,\), \(5,\)"),
        ({"alpha": [1, np.nan, 1, 1, 1]}, "at least 5 checkpoints with RankMe and alpha, got 4; measure more"),
        ({"steps": [0, 1, 1, 2, 3]}, "steps of phases are at least 0 and rise, got 0, 1, 1, 2, 3"),
        ({"steps": [-1, 1, 2, 3, 4]}, "steps of phases are at least 0 and rise, got -1"),
        ({"rankme": [1, 0, 3, 4, 5]}, "RankMe is a count above 0, got 0; leave out"),
        ({"errors": np.ones((2, 4))}, r"errors of phases have the shape \(2, 5\), .* got \(2, 4\)"),
        ({"errors": np.zeros((2, 5))}, "errors of phases are finite and above 0"),
    ],
)
def test_what_is_no_course_of_training_is_refused_in_a_sentence(change, sentence):
    given = {"steps": [0, 1, 2, 3, 4], "rankme": [1, 2, 3, 4, 5], "alpha": [1, 1, 1, 1, 1.5], **change}
    with pytest.raises(ValueError, match=sentence):
        phases(**given)
