"""How often a transition is dated where there is none, and how often its intervals hold the truth of one."""

import time
from collections import Counter

import numpy as np
import pytest
from grokking_curves import FLAT, SHAPES, with_transition, without_transition

from infocomp.grokking.transition import date_transition

CURVES = 1_000


@pytest.fixture(scope="module")
def planted():
    """Pairs with a transition, and what was found."""
    pairs = [with_transition(seed) for seed in range(CURVES)]
    return [(pair, date_transition(pair.curves)) for pair in pairs]


def share(found: list) -> float:
    return float(np.mean(found))


def test_of_a_thousand_pairs_without_a_transition_at_most_one_in_a_hundred_is_dated():
    pairs = [without_transition(seed) for seed in range(CURVES)]
    found = [date_transition(pair.curves) for pair in pairs]
    dated = Counter(pair.kind for pair, one in zip(pairs, found, strict=True) if one.dated)
    assert sum(dated.values()) <= 0.01 * CURVES, dated
    verdicts = Counter((pair.kind.split()[0], one.verdict) for pair, one in zip(pairs, found, strict=True))
    assert verdicts["together", "together"] > 0.9 * CURVES / len(FLAT), "they are found, and found to be together"
    assert verdicts["plateau", "never generalizes"] > 0.9 * CURVES / len(FLAT)


def test_of_a_thousand_with_one_the_interval_holds_the_step_of_the_threshold_in_nine_of_ten(planted):
    """The step at which the test curve without noise reaches its threshold; one that is not dated is not held."""
    held = [
        one.dated and one.generalization.low <= pair.threshold_step <= one.generalization.high for pair, one in planted
    ]
    assert share(held) >= 0.90
    for name in SHAPES:
        assert share([hit for hit, (pair, _) in zip(held, planted, strict=True) if pair.kind.startswith(name)]) >= 0.88
    quiet = [hit for hit, (pair, _) in zip(held, planted, strict=True) if " none " in pair.kind]
    assert len(quiet) > 200 and all(quiet), "without noise it lies between two evaluations, always"


def test_of_a_thousand_with_one_the_interval_of_the_change_point_holds_the_midpoint_in_nine_of_ten(planted):
    held = []
    for pair, one in planted:
        change = one.generalization.change
        held.append(one.dated and change is not None and change.low <= pair.midpoint <= change.high)
    assert share(held) >= 0.90
    for name in SHAPES:
        assert share([hit for hit, (pair, _) in zip(held, planted, strict=True) if pair.kind.startswith(name)]) >= 0.88


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
