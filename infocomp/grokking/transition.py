"""Dating delayed generalization from learning curves: when it memorized, when it generalized, and what lies between.

A curve reaches its threshold at the first evaluation from which `persistence` evaluations in a row hold it (accuracies
≥ 0.99, losses ≤ 0.01 unless set otherwise) and the curve keeps it beyond its noise; `crossing` says how, and gives the
interval on the step. Memorization is dated from the training curve, generalization from the test curve; from
accuracies where both are there, else from losses where both are, else from what there is. Nothing is dated that did
not happen: "not by step N" is an answer, N the last evaluation that does not hold the threshold.

The delay is called grokking (Power et al. 2022, arXiv 2201.02177, gave the name) where
  1. generalization comes at `factor` (2) times the step of memorization or later, and even the intervals say so: the
     lower end of the one lies at `factor` times the upper end of the other or later, at the crossings or, as noise can
     hide for long which evaluation near a ceiling is the last one below it, at the midpoints of both rises,
  2. more than one evaluation lies between both, and
  3. at memorization the test curve was less than `halfway` (0.5) of its way from its first value to its threshold:
     a test curve that is nearly there falls together with the training curve, however long its last part takes.
A delay by the steps that the intervals leave open is "unclear": evaluations too far apart, or too noisy, to tell it.
Literature differs: first steps with ≥ 0.99 of both (Manir et al., arXiv 2603.25009), test accuracy over a threshold for
three evaluations in a row (Xu, arXiv 2602.16967), 0.99 of training and 0.98 of test (Song & Ye, arXiv 2605.09724). The
thresholds, the persistence and the three numbers above are therefore part of every result.

Delayed generalization is over steps, at one size of the data. The peak of the test loss where the data fill a model,
double descent over data, is another thing, and is measured by the capacity study.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from infocomp.grokking.change_point import ChangePoint, change_point
from infocomp.grokking.crossing import Passing, passing
from infocomp.grokking.curves import Curves, step_text
from infocomp.grokking.dates import Crossing, Delay, DelayRule, Thresholds, Transition

GROKKING, TOGETHER, UNCLEAR, COLLAPSES = "grokking", "together", "unclear", "collapses"
NEVER_GENERALIZES, NEVER_MEMORIZES, ONE_CURVE = "never generalizes", "never memorizes", "one curve alone"
KINDS = ("accuracy", "loss")


def date_transition(
    curves: Curves,
    thresholds: Thresholds | None = None,
    persistence: int = 3,
    rule: DelayRule | None = None,
    by: str | None = None,
) -> Transition:
    """The transition of one run. `by`: "accuracy" or "loss" takes these curves alone; None chooses as the module says.

    ValueError: no curve of that kind, or fewer evaluations than must hold in a row.
    """
    thresholds, rule = thresholds or Thresholds(), rule or DelayRule()
    if persistence < 1:
        raise ValueError(
            f"persistence is the evaluations in a row that must hold, 1 or more, got {persistence}: set 3, or 1 to "
            "take every evaluation by itself."
        )
    if persistence > len(curves):
        raise ValueError(
            f"persistence must be at most the number of evaluations, got {persistence} with {len(curves)} "
            "evaluations: evaluate more often, or set a smaller one."
        )
    names = _chosen(curves, by)
    train, test = (_Side(curves, name, thresholds, persistence, rule) for name in names)
    return _Pair(curves, train, test, persistence, rule).transition()


def _chosen(curves: Curves, by: str | None) -> tuple[str | None, str | None]:
    """Names of the training and of the test curve."""
    given = curves.given()
    if by is not None and by not in KINDS:
        raise ValueError(f"a transition is dated by {' or '.join(KINDS)}, got {by!r}.")
    kinds = KINDS if by is None else (by,)
    for kind in kinds:
        if f"train_{kind}" in given and f"test_{kind}" in given:
            return f"train_{kind}", f"test_{kind}"
    found = [
        next((f"{side}_{kind}" for kind in kinds if f"{side}_{kind}" in given), None) for side in ("train", "test")
    ]
    if found == [None, None]:
        raise ValueError(f"there is nothing to date from by {by}: the curves are {', '.join(given)}.")
    return found[0], found[1]


class _Side:
    """One curve and its threshold, as a curve that rises: accuracies as they are, losses as −log loss."""

    def __init__(self, curves: Curves, name: str | None, thresholds: Thresholds, persistence: int, rule: DelayRule):
        self.steps, self.name, self.persistence = curves.steps, name, persistence
        self.is_loss = name is not None and name.endswith("loss")
        self.threshold: float | None = None if name is None else getattr(thresholds, name)
        if name is None or self.threshold is None:
            self.own = self.values = np.zeros(0)
            self.level = self.fall = 0.0
            return
        self.own = curves.given()[name]
        self.values = -np.log(_above_zero(self.own, self.threshold)) if self.is_loss else self.own
        self.level = -float(np.log(self.threshold)) if self.is_loss else self.threshold
        self.fall = float(np.log(rule.fall_factor)) if self.is_loss else rule.fall_accuracy

    @cached_property
    def passing(self) -> Passing | None:
        """Where it passes its threshold."""
        if self.name is None:
            return None
        return passing(self.values, self.level, self.persistence, self.fall, np.inf if self.is_loss else 1.0)

    def crossing(self) -> Crossing:
        """The same in steps, with the midpoint of the rise that leads there: of the loss itself, not its logarithm."""
        found, steps = self.passing, self.steps
        about = (self.name, self.threshold, self.persistence)
        if self.name is None:
            return Crossing(*about, reason="there is no such curve")
        if found is None:
            last = float(steps[self._last_short()])
            return Crossing(*about, censored_at=last, reason=f"not by step {step_text(last)}{self.held_too_short()}")
        low = float(steps[found.low]) if found.low >= 0 else 0.0
        reason = "held from the first evaluation" if found.index == 0 else ""
        change = self._change(found) if found.index > 0 else None
        ends = float(steps[found.index]), low, float(steps[found.high])
        return Crossing(*about, *ends, not found.sure, None, reason, change)

    def _change(self, found: Passing) -> ChangePoint | None:
        """Midpoint of the rise to the threshold; where it lies below the threshold, it comes no later than it does."""
        steps, sign = self.steps, -1.0 if self.is_loss else 1.0
        level = None if self.threshold is None else sign * self.threshold
        change = change_point(steps[: found.end], sign * self.own[: found.end], level)
        if change is None or level is None:
            return None
        latest = float(steps[found.high])
        if (change.level_before + change.level_after) / 2 <= level and change.high > latest:
            change = replace(change, step=min(change.step, latest), low=min(change.low, latest), high=latest)
        return replace(change, level_before=sign * change.level_before, level_after=sign * change.level_after)

    def _last_short(self) -> int:
        """The last evaluation that does not hold the threshold."""
        return int(np.flatnonzero(self.values < self.level)[-1])

    def held_too_short(self) -> str:
        """What a curve that ends beyond its threshold has to say for not having passed it."""
        count = len(self.values) - 1 - self._last_short()
        if count == 0:
            return ""
        held = f": held at the last {f'{count} evaluations' if count > 1 else 'evaluation'}"
        if count < self.persistence:
            return f"{held}, {self.persistence} in a row are needed"
        return f"{held}, as its noise does by chance"

    def progress(self, index: int) -> float:
        """How far on its way from its first value to its threshold it is around an evaluation; 1 is there."""
        way = self.level - self.values[0]
        here = float(np.median(self.values[max(0, index - 1) : index + 2]))
        return 1.0 if way <= 0 else float((here - self.values[0]) / way)

    def fallen_at_the_end(self) -> bool:
        """Whether it fell back after it had passed and did not come back."""
        found = self.passing
        last = self.values[-self.persistence :]
        return found is not None and found.end < len(self.values) and bool(np.median(last) < self.level - self.fall)

    def dips(self) -> int:
        """Falls after it had passed, that it came back from."""
        if self.passing is None:
            return 0
        after = self.values[self.passing.index :]
        under = after < self.level - self.fall
        return int(np.count_nonzero(under[:-1] & ~under[1:]))

    def fragility(self) -> float | None:
        """Deepest fall after it had passed: accuracy below the threshold, or doublings of the loss above it."""
        if self.passing is None or self.threshold is None:
            return None
        worst = float(self.values[self.passing.index :].min())
        return max(0.0, (self.level - worst) / (np.log(2.0) if self.is_loss else 1.0))


@dataclass(frozen=True)
class _Pair:
    """Both curves of a run."""

    curves: Curves
    train: _Side
    test: _Side
    persistence: int
    rule: DelayRule

    def transition(self) -> Transition:
        memorization, generalization = self.train.crossing(), self.test.crossing()
        first, then = self.train.passing, self.test.passing
        verdict, dated, sentence = self._verdict(memorization, generalization)
        steps, accuracy = self.curves.steps, self.curves.test_accuracy
        kinds = sorted({name.split("_")[1] for name in (self.train.name, self.test.name) if name is not None})
        unit = None if then is None else "doublings" if self.test.is_loss else "ratio"
        has_test = first is not None and self.test.name is not None
        return Transition(
            memorization=memorization,
            generalization=generalization,
            delay=_delay(memorization, generalization),
            change_delay=_change_delay(memorization.change, generalization.change),
            verdict=verdict,
            sentence=sentence,
            dated=dated,
            dated_from=" and ".join(kinds),
            fragility=self.test.fragility(),
            fragility_unit=unit,
            dips=self.test.dips(),
            accuracy_at_memorization=None if first is None or accuracy is None else float(accuracy[first.index]),
            progress_at_memorization=self.test.progress(first.index) if first is not None and has_test else None,
            evaluations=len(steps),
            first_step=float(steps[0]),
            last_step=float(steps[-1]),
            every=float(np.median(np.diff(steps))),
            persistence=self.persistence,
            rule=self.rule,
        )

    def _verdict(self, memorization: Crossing, generalization: Crossing) -> tuple[str, bool, str]:
        """Verdict, whether it is a delayed transition, and the sentence for a person."""
        last = step_text(float(self.curves.steps[-1]))
        if self.train.name is None or self.test.name is None:
            return ONE_CURVE, False, "There is no curve for both training and test data, so that no delay can be told."
        first, then = self.train.passing, self.test.passing
        if first is None or memorization.step is None:
            reached = generalization.step
            also = "" if reached is None else f", though the test data reached theirs at step {step_text(reached)}"
            short = step_text(memorization.censored_at or 0.0)
            return NEVER_MEMORIZES, False, f"The training data are not memorized by step {short}{also}."
        memorized = step_text(memorization.step)
        if then is None or generalization.step is None:
            return (
                NEVER_GENERALIZES,
                False,
                f"Memorized at step {memorized}, not generalized {generalization.reason[4:]}.",
            )
        verdict, how = self._delayed(memorization, generalization, first, then)
        delayed = verdict == GROKKING
        if self.test.fallen_at_the_end():
            fell = step_text(float(self.curves.steps[then.end]))
            return COLLAPSES, delayed, f"{how} It fell back at step {fell} and was not there at step {last}."
        return verdict, delayed, how

    def _delayed(
        self, memorization: Crossing, generalization: Crossing, first: Passing, then: Passing
    ) -> tuple[str, str]:
        """Verdict by the rule of the module, and which part of it decided."""
        memorized, generalized, rule = memorization.step or 0.0, generalization.step or 0.0, self.rule
        times = generalized / memorized if memorized > 0 else np.inf
        both = f"Memorized at step {step_text(memorized)}, generalized at step {step_text(generalized)}"
        way = self.test.progress(first.index)
        if generalized < rule.factor * memorized or generalized <= memorized:
            return TOGETHER, f"{both}, less than {rule.factor:g} times as late."
        if then.index - first.index < 2:
            return TOGETHER, f"{both}, at most one evaluation later."
        if way >= rule.halfway:
            return TOGETHER, f"{both}, but the test curve had made {way:.0%} of its way at memorization."
        earliest, latest = generalization.low or 0.0, memorization.high or 0.0
        rises = generalization.change, memorization.change
        by_rises = rises[0] is not None and rises[1] is not None and rises[0].low >= rule.factor * rises[1].high
        if earliest < rule.factor * latest and not by_rises:
            between = f"may be as late as step {step_text(latest)}, generalization as early as {step_text(earliest)}"
            return UNCLEAR, f"{both}, but whether {rule.factor:g} times as late is unclear: memorization {between}."
        later = f", {times:.1f} times as late" if np.isfinite(times) else ""
        return GROKKING, f"{both}{later}."


def _above_zero(losses: np.ndarray, threshold: float) -> np.ndarray:
    """Losses whose logarithm exists: an exact 0 as half the smallest other one, or half the threshold."""
    smallest = min([threshold, *losses[losses > 0]])
    return np.maximum(losses, smallest / 2)


def _delay(first: Crossing, then: Crossing) -> Delay:
    """Between two crossings."""
    if first.step is None or first.low is None or first.high is None:
        return Delay(None)
    if then.step is None or then.low is None or then.high is None:
        if then.censored_at is None:
            return Delay(None)
        times = then.censored_at / first.high if first.high > 0 else None
        return Delay(None, at_least=then.censored_at - first.high, times_at_least=times)
    return Delay(then.step - first.step, then.low - first.high, then.high - first.low)


def _change_delay(first: ChangePoint | None, then: ChangePoint | None) -> Delay:
    """Between two midpoints."""
    if first is None or then is None:
        return Delay(None)
    return Delay(then.step - first.step, then.low - first.high, then.high - first.low)
