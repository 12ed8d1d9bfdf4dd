"""When a measure begins to move, and whether it leads: hand-made measures with known answers."""

import numpy as np
import pytest

from infocomp.grokking.onsets import Onset, leads, onset

STEPS = np.array([0.0, 10, 20, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960])
MEMORIZED = 60.0


def ramp(start: float, stop: float, before: float = 5.0, after: float = 1.0) -> np.ndarray:
    """A measure that goes from one level to another between two steps."""
    return np.interp(STEPS, [start, stop], [before, after])


def test_a_measure_that_falls_from_a_step_on():
    found = onset(STEPS, ramp(160, 480), MEMORIZED)
    assert (found.low, found.step, found.high) == (160, 240, 240) and found.change == -4
    rising = onset(STEPS, -ramp(160, 480), MEMORIZED)
    assert (rising.low, rising.step) == (160, 240) and rising.change == 4


def test_what_it_did_before_memorization_does_not_count():
    values = ramp(160, 480)
    values[:4] = [50, 40, 30, 20]
    assert onset(STEPS, values, MEMORIZED) == onset(STEPS, ramp(160, 480), MEMORIZED)
    assert onset(STEPS, values, 45.0) == onset(STEPS, values, MEMORIZED), "the first checkpoint after it is at 60"


def test_a_slow_start_widens_the_interval():
    """0.06 of the range at 120 and 160 is neither still (under half of a tenth) nor moved (over a tenth)."""
    values = ramp(160, 480)
    values[6:8] = 5 - 0.06 * 4
    found = onset(STEPS, values, MEMORIZED)
    assert (found.low, found.step) == (80, 240)
    assert onset(STEPS, values, MEMORIZED, share=0.05).step == 120


def test_a_move_that_does_not_last_is_none():
    values = np.full(len(STEPS), 5.0)
    values[7:9] = 1.0
    found = onset(STEPS, values, MEMORIZED)
    assert found.step is None and found.reason == "it leaves its level for fewer than 3 checkpoints in a row"
    assert onset(STEPS, values, MEMORIZED, persistence=2).step == 160
    long, jerk = np.arange(25.0), np.full(25, 5.0)
    jerk[10:12] = 1.0, 9.0
    assert onset(long, jerk, 0, persistence=2).step is None, "down and up is not one move"
    assert onset(long, np.minimum(jerk, 5), 0, persistence=1).step == 10
    values = ramp(160, 480)
    values[6] = 1.0
    found = onset(STEPS, values, MEMORIZED)
    assert found.step in (240, 320) and found.low == 160, "a dip before is noise, and not the move"


def test_what_stays_within_its_noise_does_not_move():
    moved = 0
    for seed in range(100):
        found = onset(STEPS, np.random.default_rng(seed).normal(5, 0.1, len(STEPS)), MEMORIZED)
        moved += found.step is not None
    assert moved <= 10, "nine checkpoints of noise alone"
    found = onset(STEPS, np.full(len(STEPS), 5.0), MEMORIZED)
    assert found == Onset(None, 960, change=0.0, reason="its range after memorization is within its noise")


def test_noise_delays_an_onset_but_hardly_hides_it():
    found = [
        onset(STEPS, ramp(100, 200) + np.random.default_rng(seed).normal(0, 0.1, len(STEPS)), MEMORIZED)
        for seed in range(50)
    ]
    assert all(one.step in (120, 160, 240) for one in found)


def test_too_few_checkpoints_after_memorization():
    found = onset(STEPS, ramp(160, 480), 960)
    assert found == Onset(None, reason="fewer than two checkpoints after memorization")
    assert onset(STEPS, ramp(160, 480), 2000).step is None
    assert onset(STEPS[:6], ramp(60, 80)[:6], MEMORIZED).step == 80, "two are enough for a move at the second"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"values": STEPS[:4]}, r"one value for each step, got shapes \(4,\) and \(13,\)"),
        ({"values": np.where(STEPS == 20, np.nan, STEPS)}, "finite numbers: leave out checkpoints"),
        ({"steps": STEPS[::-1]}, "steps that increase: sort the checkpoints"),
        ({"share": 1.5}, "0 < share < 1 and persistence ≥ 1, got 1.5 and 3"),
        ({"persistence": 0}, "got 0.1 and 0"),
    ],
)
def test_what_is_no_series_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        onset(**({"steps": STEPS, "values": STEPS, "reference_step": MEMORIZED} | change))


def test_the_change_is_the_largest_departure_and_not_where_it_ends():
    hump = np.interp(STEPS, [60, 160, 640, 960], [5.0, 9.0, 4.0, 5.0])
    assert onset(STEPS, hump, MEMORIZED).change == 4
    assert onset(STEPS, 10 - hump, MEMORIZED).change == -4
    assert onset(STEPS, hump, MEMORIZED, until=120).change == pytest.approx(2.4)
    assert onset(STEPS, hump, MEMORIZED, until=50).change is None, "nothing lies between memorization and then"
    assert onset(STEPS, hump, MEMORIZED, until=120).step == onset(STEPS, hump, MEMORIZED).step


def moved(*steps: float, spacing: float = 1.1, change: float = -4.0) -> list[Onset]:
    return [Onset(step, step / spacing, step, change) for step in steps]


def test_the_test_curve_does_not_lead_itself():
    """Coarse checkpoints, fine ones, three seeds or ten: 0 doublings, between −1 and 1 checkpoint, and no claim."""
    for spacing in (1.01, 1.1, 2.0):
        for steps in ([200, 230, 180], list(np.geomspace(50, 5000, 10))):
            curve = moved(*steps, spacing=spacing)
            found = leads(curve, curve, [0.0, 0.0])
            assert found.value == 0 and found.claim == "moves with it"
            assert (found.high, found.low) == (pytest.approx(np.log2(spacing)), pytest.approx(-np.log2(spacing)))
    loss = np.interp(STEPS, [160, 480], [5.0, 1.0])
    again = [onset(STEPS, loss * unit, MEMORIZED) for unit in (1.0, 1.3, 0.7)]
    assert leads(again, again, [0.0]).value == 0 and leads(again, again, [0.0]).claim == "moves with it"


def test_the_lead_is_the_mean_in_doublings_with_its_t_interval_over_seeds():
    """−1, −2 and −3 doublings: mean −2, standard error 1/√3, t(0.975, 2) = 4.3027; each began up to × 1.1 earlier."""
    found = leads(moved(200, 100, 50), moved(400, 400, 400), [0.0, 0.1, -0.1])
    assert found.value == pytest.approx(-2)
    reach = np.log2(1.1) + 4.3027 / np.sqrt(3)
    assert (found.low, found.high) == pytest.approx((-2 - reach, -2 + reach), abs=1e-4)
    assert found.claim == "moves with it", "three so different seeds leave the interval across 0"
    assert (found.seeds, found.moved, found.control_change) == (3, 3, pytest.approx(0))


def test_a_measure_and_a_curve_that_begin_between_the_same_checkpoints_are_not_told_apart():
    first, then = [Onset(210, 100, 210, -1.0)] * 3, [Onset(200, 100, 200, -1.0)] * 3
    assert leads(then, first, [0.0]).claim == "moves with it"
    assert leads([Onset(100, 50, 100, -1.0)] * 3, first, [0.0]).claim == "moves with it", "both may begin at 100"
    assert leads([Onset(90, 50, 90, -1.0)] * 3, first, [0.0]).claim == "leads"


def test_a_beginning_at_step_0_counts_as_the_smallest_step_named():
    first, then = [Onset(10, 0, 10, -1.0)] * 2, [Onset(400, 200, 400, -1.0)] * 2
    found = leads(first, then, [0.0])
    assert (found.low, found.high) == pytest.approx((np.log2(10 / 400), np.log2(10 / 200)))
    back = leads(then, first, [0.0])
    assert (back.low, back.high) == pytest.approx((np.log2(200 / 10), np.log2(400 / 10)))


def test_it_leads_only_where_the_control_does_not_show_it():
    early, curve = moved(200, 210, 190), moved(400, 430, 390)
    assert leads(early, curve, [0.1, -0.3, 0.2]).claim == "leads"
    found = leads(early, curve, [-3.0, -2.5, -3.5])
    assert found.claim == "moves in the control too" and found.control_change == pytest.approx(0.75)
    other = leads(early, curve, [3.0, 2.5, 3.5])
    assert other.claim == "leads" and other.control_change == pytest.approx(-0.75), "the other way is another movement"
    assert leads(early, curve, [-3.0, -2.5, -3.5], comparable=0.8).claim == "leads"
    alone = leads(early, curve, [None, None, None])
    assert alone.claim is None and alone.reason == "no control run to compare with"
    assert alone.value == leads(early, curve, [0.0]).value, "the number stays"


def test_it_lags_only_if_it_does_so_from_the_checkpoint_before():
    curve = moved(400, 430, 390)
    assert leads(moved(800, 860, 780), curve, [0.0]).claim == "lags"
    assert leads(moved(800, 860, 780, spacing=2.5), curve, [0.0]).claim == "moves with it"


STILL = Onset(None, 2000, change=0.0, reason="within noise")


def test_a_seed_in_which_it_never_moved_counts_as_after_the_end():
    two = leads([*moved(200, 201), STILL], moved(400, 400, 400), [0.0])
    assert two.claim == "moves with it" and two.high is None and (two.seeds, two.moved) == (3, 2)
    assert two.value == pytest.approx(np.mean(np.log2([0.5, 201 / 400, 5])))
    assert two.reason == "in 1 of 3 seeds it never moved, which counts as after the end"
    lags = leads([*moved(1900, 1950), STILL], moved(400, 400, 400), [0.0])
    assert lags.claim == "lags" and lags.high is None
    found = leads([*moved(200), STILL, STILL], moved(400, 400, 400), [0.0])
    assert found.claim == "does not move" and found.value is None and (found.seeds, found.moved) == (3, 1)


def test_a_seed_whose_test_curve_never_moved_is_left_out():
    found = leads(moved(200, 201, 7), [*moved(400, 402), STILL], [0.0])
    assert found.seeds == 2 and found.value == pytest.approx(-1) and found.claim == "leads"
    never = leads(moved(200, 300), [STILL, STILL], [0.0])
    assert never.claim is None and never.reason == "in no seed the test curve moved"
    unseen = Onset(None, reason="fewer than two checkpoints after memorization")
    assert leads([*moved(200, 201), unseen], moved(400, 402, 400), [0.0]).seeds == 2, "nor one that was not followed"


def test_nothing_is_claimed_of_one_seed_or_of_none():
    one = leads(moved(200), moved(400), [0.0])
    assert one.value == -1 and one.low is None and one.claim is None and one.reason == "one seed tells no interval"
    assert leads([], [], []).reason == "no seeds"


def test_seeds_are_paired_and_steps_above_0():
    with pytest.raises(ValueError, match="one onset of the test curve for each of the measure, got 2 and 1: pair"):
        leads(moved(200), moved(400, 400), [])
    with pytest.raises(ValueError, match="a ratio of steps above 0, got an onset at step 0: leave out"):
        leads([Onset(0.0, 0.0, 0.0, 1.0)], moved(400), [])
