"""Dating a transition: curve shapes with known answers, the rule's parts one by one, and laws of the dates."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.grokking.curves import Curves
from infocomp.grokking.transition import DelayRule, Thresholds, date_transition

STEPS = np.arange(0.0, 1010.0, 10.0)


def at(step: float, before: float = 0.02, after: float = 1.0, steps: np.ndarray = STEPS) -> np.ndarray:
    """A curve that jumps at a step."""
    return np.where(steps >= step, after, before)


def between(curve: np.ndarray, start: float, stop: float, value: float) -> np.ndarray:
    """The curve with another value from a step to before another."""
    return np.where(np.isin(STEPS, np.arange(start, stop, 10)), value, curve)


def dated(train: np.ndarray, test: np.ndarray, **more):
    return date_transition(Curves(STEPS, train_accuracy=train, test_accuracy=test), **more)


LATE = at(600)
ALTERNATES = np.where(np.arange(len(STEPS)) % 2, 0.995, 0.985)

SHAPES = {
    "delayed": (at(100), LATE, "grokking", 100, 600, True),
    "together": (at(100), at(120), "together", 100, 120, False),
    "twice as late, one evaluation apart": (at(10), at(20), "together", 10, 20, False),
    "never generalizes": (at(100), at(600, after=0.9), "never generalizes", 100, None, False),
    "never memorizes": (at(100, after=0.8), LATE, "never memorizes", None, 600, False),
    "nothing at all": (at(2000), at(2000), "never memorizes", None, None, False),
    "both there at step 0": (at(0), at(0), "together", 0, 0, False),
    "memorized at step 0": (at(0), LATE, "grokking", 0, 600, True),
    "test first": (at(600), at(100), "together", 600, 100, False),
    "at the last evaluation alone": (at(100), at(1000), "never generalizes", 100, None, False),
    "at the last three": (at(100), at(980), "grokking", 100, 980, True),
    "collapse": (at(100), between(LATE, 900, 1100, 0.3), "collapses", 100, 600, True),
    "collapse of what was together": (at(100), between(at(120), 900, 1100, 0.3), "collapses", 100, 120, False),
    "long fall, and back": (at(100), between(LATE, 700, 900, 0.3), "grokking", 100, 600, True),
    "slingshot of the training curve": (between(at(100), 300, 320, 0.4), LATE, "grokking", 100, 600, True),
    "a peak of two evaluations before": (at(100), between(LATE, 300, 320, 1.0), "grokking", 100, 600, True),
    "never three in a row": (at(100), np.where(STEPS < 600, 0.02, ALTERNATES), "never generalizes", 100, None, False),
    "nearly there at memorization": (at(100), at(600, before=0.7) - at(100, 0.68, 0), "together", 100, 600, False),
    "slow ramp": (at(100), np.clip((STEPS - 200) / 600, 0, 1), "grokking", 100, 800, True),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_with_a_known_answer(name):
    train, test, verdict, memorized, generalized, is_dated = SHAPES[name]
    found = dated(train, test)
    assert (found.verdict, found.dated) == (verdict, is_dated), found.sentence
    assert (found.memorization.step, found.generalization.step) == (memorized, generalized)
    for crossing in (found.memorization, found.generalization):
        if crossing.step:
            assert (crossing.low, crossing.high) == (crossing.step - 10, crossing.step), "between two evaluations"
        elif crossing.step is None:
            last = 990 if name == "at the last evaluation alone" else 1000
            assert crossing.censored_at == last and crossing.reason.startswith(f"not by step {last:,}")
        else:
            assert crossing.low == crossing.high == 0 and crossing.reason == "held from the first evaluation"
    if memorized and generalized:
        delay = generalized - memorized
        assert (found.delay.steps, found.delay.low, found.delay.high) == (delay, delay - 10, delay + 10)


def test_what_never_came_is_censored_and_the_delay_has_a_lower_bound():
    found = dated(at(100), at(2000))
    assert found.delay.steps is None and found.delay.at_least == 900
    assert found.sentence == "Memorized at step 100, not generalized by step 1,000."
    assert found.fragility is None and found.generalization.change is None
    assert dated(at(100, after=0.8), LATE).sentence == (
        "The training data are not memorized by step 1,000, though the test data reached theirs at step 600."
    )


def test_what_held_too_shortly_is_censored_where_it_last_did_not_hold():
    """The last two of 101 evaluations hold: it may have come there for good, and the delay is no longer than that."""
    found = dated(at(100), at(990))
    assert found.verdict == "never generalizes" and found.generalization.censored_at == 980
    reason = "not by step 980: held at the last 2 evaluations, 3 in a row are needed"
    assert found.generalization.reason == reason
    assert found.sentence == f"Memorized at step 100, {reason.replace('not by', 'not generalized by')}."
    assert (found.delay.at_least, found.delay.times_at_least) == (880, pytest.approx(9.8))
    assert dated(at(990), LATE).sentence.startswith("The training data are not memorized by step 980, though")


def test_a_delay_that_only_the_evaluations_make_is_unclear():
    """Memorized in (40, 50], generalized in (90, 100]: between 1.8 and 2.5 times as late."""
    found = dated(at(50), at(100))
    assert (found.verdict, found.dated) == ("unclear", False)
    assert found.sentence == (
        "Memorized at step 50, generalized at step 100, but whether 2 times as late is unclear: memorization may be as "
        "late as step 50, generalization as early as 90."
    )
    assert dated(at(50), at(110)).verdict == "grokking", "100 is twice 50"
    fell = dated(at(50), between(at(100), 900, 1100, 0.3))
    assert (fell.verdict, fell.dated) == ("collapses", False)


def test_a_curve_that_began_beyond_its_threshold_has_no_midpoint():
    creeps = np.where(STEPS < 300, 0.992, 0.999)
    found = dated(creeps, LATE)
    assert found.memorization.reason == "held from the first evaluation" and found.memorization.change is None
    assert found.change_delay.steps is None and found.generalization.change is not None
    sags = np.where(STEPS < 30, 0.992, np.where(STEPS < 120, 0.96, 1.0))
    assert dated(sags, LATE).memorization.change is None, "nor one that sagged below it after that"


def test_the_midpoint_of_the_rise_comes_no_later_than_the_threshold_at_its_end():
    generator = np.random.default_rng(5)
    for _ in range(100):
        rise = 0.02 + 0.98 / (1 + np.exp(-(STEPS - 500) / 10))
        found = dated(at(10), np.clip(rise + generator.normal(0, 0.05, len(STEPS)), 0, 1)).generalization
        if found.change is not None:
            assert found.change.low <= found.change.step <= found.change.high <= found.high
    low = dated(at(10), rise, thresholds=Thresholds(test_accuracy=0.1)).generalization
    assert low.change is not None and low.change.step > low.step, "a threshold below half-way is passed before it"


def test_sentences_say_which_part_of_the_rule_decided():
    told = {name: dated(*SHAPES[name][:2]).sentence for name in SHAPES}
    assert told["delayed"] == "Memorized at step 100, generalized at step 600, 6.0 times as late."
    assert told["together"].endswith("less than 2 times as late.")
    assert told["twice as late, one evaluation apart"].endswith("at most one evaluation later.")
    assert told["nearly there at memorization"].endswith("but the test curve had made 70% of its way at memorization.")
    assert told["collapse"].endswith("It fell back at step 900 and was not there at step 1,000.")
    assert told["memorized at step 0"] == "Memorized at step 0, generalized at step 600."


def test_the_rule_can_be_set():
    train, test = at(100), at(170)
    assert dated(train, test).verdict == "together"
    assert dated(train, test, rule=DelayRule(factor=1.5)).verdict == "grokking"
    nearly = SHAPES["nearly there at memorization"][:2]
    assert dated(*nearly, rule=DelayRule(halfway=0.8)).verdict == "grokking"
    low = dated(at(100), at(600, after=0.9), thresholds=Thresholds(test_accuracy=0.85))
    assert low.verdict == "grokking" and low.generalization.threshold == 0.85
    assert dated(at(100), at(1000), persistence=1).generalization.step == 1000
    peak = between(LATE, 300, 320, 1.0)
    assert dated(at(100), peak, persistence=2).generalization.step == 300
    shallow = between(LATE, 900, 1100, 0.92)
    assert dated(at(100), shallow).verdict == "collapses"
    assert dated(at(100), shallow, rule=DelayRule(fall_accuracy=0.1)).verdict == "grokking"


def test_falls_afterwards_are_told_by_their_depth_and_their_number():
    assert dated(at(100), LATE).fragility == 0 and dated(at(100), LATE).dips == 0
    dips = between(between(LATE, 700, 720, 0.5), 800, 810, 0.6)
    found = dated(at(100), dips)
    assert found.verdict == "grokking" and found.dips == 2
    assert found.fragility == pytest.approx(0.99 - 0.5) and found.fragility_unit == "ratio"
    collapsed = dated(*SHAPES["collapse"][:2])
    assert collapsed.dips == 0 and collapsed.fragility == pytest.approx(0.69)
    loss = between(at(600, 4.0, 0.001), 700, 710, 0.08)
    by_loss = date_transition(Curves(STEPS, train_loss=at(100, 4.0, 0.001), test_loss=loss))
    assert by_loss.fragility == pytest.approx(3) and by_loss.fragility_unit == "doublings"


def test_the_midpoint_is_that_of_the_rise_and_not_of_what_came_after_the_collapse():
    change = dated(at(100), between(LATE, 700, 1100, 0.3)).generalization.change
    assert (change.level_before, change.level_after) == (0.02, 1.0) and (change.low, change.high) == (590, 600)


def test_the_test_accuracy_at_memorization_is_told():
    assert dated(at(100), LATE).accuracy_at_memorization == 0.02
    assert dated(at(100), at(600, before=0.4)).accuracy_at_memorization == 0.4
    assert dated(at(2000), LATE).accuracy_at_memorization is None


def test_losses_alone_are_enough():
    found = date_transition(Curves(STEPS, train_loss=at(100, 4.0, 0.004), test_loss=at(600, 4.0, 0.004)))
    assert (found.verdict, found.memorization.step, found.generalization.step) == ("grokking", 100, 600)
    assert found.dated_from == "loss" and found.generalization.curve == "test_loss"
    change = found.generalization.change
    assert (change.level_before, change.level_after) == (4.0, 0.004), "losses, not their negatives"


def test_a_test_loss_that_rises_before_it_falls_is_dated_and_one_that_only_rises_is_not():
    train = at(100, 4.0, 1e-4)
    hump = np.interp(STEPS, [0, 100, 500, 700, 1000], [4.0, 4.5, 9.0, 1e-3, 1e-5])
    found = date_transition(Curves(STEPS, train_loss=train, test_loss=hump))
    assert found.verdict == "grokking" and found.generalization.step == 700
    assert found.generalization.change.low > 500
    u_shaped = np.interp(STEPS, [0, 60, 1000], [4.0, 1.0, 9.0])
    assert date_transition(Curves(STEPS, train_loss=train, test_loss=u_shaped)).verdict == "never generalizes"


def test_an_exact_zero_is_a_loss():
    found = date_transition(Curves(STEPS, train_loss=at(100, 4.0, 0.0), test_loss=at(600, 4.0, 0.0)))
    assert found.generalization.step == 600


def test_accuracies_are_taken_before_losses_and_either_can_be_asked_for():
    curves = Curves(STEPS, at(50, 4.0, 0.001), at(700, 4.0, 0.001), at(100), LATE)
    assert date_transition(curves).generalization.step == 600
    assert date_transition(curves, by="loss").generalization.step == 700
    mixed = date_transition(replace(curves, test_loss=None, train_accuracy=None))
    assert (mixed.memorization.step, mixed.generalization.step) == (50, 600)
    assert mixed.dated_from == "accuracy and loss"
    pair = date_transition(replace(curves, train_accuracy=None))
    assert pair.dated_from == "loss", "both losses before one of each"


def test_one_curve_alone_is_dated_without_a_delay():
    found = date_transition(Curves(STEPS, test_accuracy=LATE))
    assert found.verdict == "one curve alone" and not found.dated and found.generalization.step == 600
    assert found.memorization.curve is None and found.memorization.reason == "there is no such curve"
    assert found.delay.steps is None and found.delay.at_least is None


def test_noise_about_the_threshold_reaches_nothing():
    """A plateau of 0.985 with noise makes runs of three at 0.99; the median of what follows is short of it."""
    runs = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        steps = np.arange(400.0)
        test = np.clip(at(100, after=0.985, steps=steps) + generator.normal(0, 0.01, 400), 0, 1)
        found = date_transition(Curves(steps, train_accuracy=at(10, steps=steps), test_accuracy=test))
        runs += int(np.lib.stride_tricks.sliding_window_view(test >= 0.99, 3).all(axis=1).sum())
        assert found.verdict == "never generalizes", (seed, found.sentence)
    assert runs > 200


def test_noise_widens_the_interval_on_both_sides():
    generator = np.random.default_rng(0)
    rise = 1 / (1 + np.exp(-(STEPS - 500) / 30))
    quiet, loud = (dated(at(100), np.clip(rise + generator.normal(0, one, len(STEPS)), 0, 1)) for one in (0, 0.01))
    assert quiet.generalization.step == 640 and quiet.generalization.low == 630
    assert loud.generalization.low < 630 and loud.generalization.high > 650
    assert not loud.generalization.open


def test_an_interval_that_noise_leaves_open_says_so():
    generator = np.random.default_rng(2)
    steps = np.arange(0.0, 130.0)
    test = np.clip(at(100, after=0.993, steps=steps) + generator.normal(0, 0.012, 130), 0, 1)
    found = date_transition(Curves(steps, train_accuracy=at(10, steps=steps), test_accuracy=test)).generalization
    assert found.open and found.high == 129 and found.step is not None and found.low <= 100


@given(st.floats(0.01, 1e4), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_dates_are_in_whatever_unit_the_steps_are(unit, seed):
    """Steps, epochs or seconds: every date is stretched with them."""
    generator = np.random.default_rng(seed)
    train, test = (np.clip(at(one) + generator.normal(0, 0.004, len(STEPS)), 0, 1) for one in (50, 500))
    plain, stretched = (
        date_transition(Curves(STEPS * by, train_accuracy=train, test_accuracy=test)) for by in (1.0, unit)
    )
    assert stretched.verdict == plain.verdict
    for name in ("step", "low", "high"):
        assert getattr(stretched.generalization, name) == pytest.approx(unit * getattr(plain.generalization, name))


@given(st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_losses_in_bits_are_dated_as_losses_in_nats(unit):
    train, test = at(100, 4.0, 0.004), np.interp(STEPS, [0, 500, 700, 1000], [4.0, 9.0, 0.004, 0.001])
    plain = date_transition(Curves(STEPS, train_loss=train, test_loss=test))
    levels = Thresholds(train_loss=0.01 * unit, test_loss=0.01 * unit)
    other = date_transition(Curves(STEPS, train_loss=unit * train, test_loss=unit * test), levels)
    assert asdict(other.delay) == pytest.approx(asdict(plain.delay), nan_ok=True)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Thresholds(test_accuracy=99), "threshold of test_accuracy must be above 0 and at most 1, got 99"),
        (lambda: Thresholds(train_loss=0), "threshold of train_loss must be above 0, got 0"),
        (lambda: DelayRule(factor=0.5), "^the factor of a delay must be 1 or more, got 0.5: leave it out"),
        (lambda: DelayRule(halfway=0), "^the halfway of a delay must be above 0 and at most 1, got 0"),
        (lambda: DelayRule(fall_accuracy=-1), "^the fall_accuracy of a delay must be 0 or more, got -1"),
        (lambda: DelayRule(fall_factor=0.5), "^the fall_factor of a delay must be 1 or more, got 0.5"),
        (lambda: dated(at(1), at(2), persistence=0), "1 or more, got 0: set 3, or 1 to take every evaluation"),
        (lambda: dated(at(1), at(2), persistence=102), "got 102 with 101 evaluations: evaluate more often"),
        (lambda: dated(at(1), at(2), by="loss"), "nothing to date from by loss: .* train_accuracy, test_accuracy"),
        (lambda: dated(at(1), at(2), by="error"), "dated by accuracy or loss, got 'error'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
