"""How often a transition is dated where there is none, and how often its intervals hold the truth of one."""

import time
from collections import Counter

import numpy as np
import pytest
from grokking_curves import (
    FLAT,
    SHAPES,
    hard_with_transition,
    hard_without_transition,
    with_transition,
    without_transition,
)

from infocomp.grokking.transition import date_transition

CURVES = 400  # 1,000 of each as in the docstring of `crossing` take three times as long


@pytest.fixture(scope="module")
def planted():
    """Pairs with a transition, and what was found."""
    pairs = [with_transition(seed) for seed in range(CURVES)]
    return [(pair, date_transition(pair.curves)) for pair in pairs]


def share(found: list) -> float:
    return float(np.mean(found))


def test_of_pairs_without_a_transition_at_most_one_in_a_hundred_is_dated():
    pairs = [without_transition(seed) for seed in range(CURVES)]
    found = [date_transition(pair.curves) for pair in pairs]
    dated = Counter(pair.kind for pair, one in zip(pairs, found, strict=True) if one.dated)
    assert sum(dated.values()) <= 0.01 * CURVES, dated
    verdicts = Counter((pair.kind.split()[0], one.verdict) for pair, one in zip(pairs, found, strict=True))
    assert verdicts["together", "together"] > 0.9 * CURVES / len(FLAT), "they are found, and found to be together"
    assert verdicts["plateau", "never generalizes"] > 0.9 * CURVES / len(FLAT)


def test_of_pairs_with_one_the_interval_holds_the_step_of_the_threshold_in_nine_of_ten(planted):
    """The step at which the test curve without noise reaches its threshold; one that is not dated is not held."""
    held = [
        one.dated and one.generalization.low <= pair.threshold_step <= one.generalization.high for pair, one in planted
    ]
    assert share(held) >= 0.90
    for name in SHAPES:
        assert share([hit for hit, (pair, _) in zip(held, planted, strict=True) if pair.kind.startswith(name)]) >= 0.86
    quiet = [hit for hit, (pair, _) in zip(held, planted, strict=True) if " none " in pair.kind]
    assert len(quiet) > 80 and all(quiet), "without noise it lies between two evaluations, always"


def test_of_pairs_with_one_the_interval_of_the_change_point_holds_the_midpoint_in_nine_of_ten(planted):
    held = []
    for pair, one in planted:
        change = one.generalization.change
        held.append(one.dated and change is not None and change.low <= pair.midpoint <= change.high)
    assert share(held) >= 0.90
    for name in SHAPES:
        assert share([hit for hit, (pair, _) in zip(held, planted, strict=True) if pair.kind.startswith(name)]) >= 0.86


def test_of_accuracies_of_few_answers_and_noise_that_resembles_itself_the_intervals_hold_nine_of_ten():
    """Fifty of each: a family may miss 10 % and three standard errors; all together 10 %."""
    held: dict[str, list[bool]] = {}
    middle = []
    for seed in range(300):
        pair = hard_with_transition(seed)
        found = date_transition(pair.curves).generalization
        inside = found.low is not None and found.low <= pair.threshold_step <= found.high
        held.setdefault(pair.kind, []).append(inside)
        if found.change is not None:
            middle.append(found.change.low <= pair.midpoint <= found.change.high)
            assert found.change.step <= found.change.high <= found.high, "half of the rise comes before its end"
    assert len(held) == 6 and min(map(share, held.values())) >= 0.78, {name: share(one) for name, one in held.items()}
    assert share([one for family in held.values() for one in family]) >= 0.90
    assert share(middle) >= 0.90 and len(middle) > 200


@pytest.mark.parametrize(("correlation", "bound"), [(0.5, 0.01), (0.8, 0.02)])
def test_noise_that_resembles_itself_about_a_plateau_is_hardly_dated(correlation, bound):
    found = [date_transition(hard_without_transition(seed, correlation).curves).dated for seed in range(200)]
    assert sum(found) <= bound * len(found), np.flatnonzero(found)


def test_a_pair_is_dated_within_five_milliseconds():
    """Of this process's own time, whatever else the machine does."""
    pairs = [with_transition(seed) for seed in range(100)]
    start = time.process_time()
    for pair in pairs:
        date_transition(pair.curves)
    assert (time.process_time() - start) / len(pairs) < 0.005


def test_intervals_are_no_wider_than_the_noise_asks_for(planted):
    """Half of the change points are known to a tenth of their step, without noise to two evaluations."""
    changes = [one.generalization.change for _, one in planted if one.generalization.change is not None]
    assert np.median([(one.high - one.low) / one.step for one in changes]) < 0.1
    for pair, one in planted:
        if " none " in pair.kind and one.dated:
            after = int(np.searchsorted(pair.curves.steps, one.generalization.step))
            assert one.generalization.low == pair.curves.steps[after - 1], pair.kind
            assert one.generalization.high == pair.curves.steps[after], pair.kind
