"""When a noisy curve passes a level: the evaluation from which it holds, and an interval on the step.

A curve rises here (losses are taken as −log loss), and it passes a level at the first evaluation from which
`persistence` evaluations in a row hold it: the rule of Xu, arXiv 2602.16967, there with three. Noise makes such runs
without any rise, so that a run counts only if the curve keeps the level, in the median over all evaluations from the
run to the next fall, and if that is no chance: so many of them hold it that a fair coin would hardly give as many
(`SIGNS` standard errors), or their median lies above that of as many evaluations before by more than noise (`HOLD`).

The interval is what a multiscale test leaves. Let the curve without noise pass the level between two evaluations. A
window of evaluations whose mean lies below the level by more than `REACH` standard errors says that the curve was still
below at the window's first evaluation; one whose mean lies above by as much says that it was above at the window's
last. The latest of the former and the earliest of the latter are the ends; windows of 1, 2, 4, … evaluations are tried.
Without noise every single evaluation decides, and the interval lies between two neighbouring evaluations.
Source of the idea: Dümbgen & Spokoiny (2001), Ann. Statist. 29(1); Frick, Munk & Sieling (2014), JRSS B 76(3). The
constants are ours; on 1,000 simulated curves with strong and autocorrelated noise among them, in
`tests/test_transition_simulated.py`, the interval held the true step in 93.9 %.

Noise is measured by the curve itself: residuals near the level about the best rising curve (isotonic regression)
through its running medians.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import median_filter
from scipy.optimize import isotonic_regression

Values = Float[np.ndarray, "evaluations"]

REACH = 3.0  # standard errors of a window's mean that decide an end of the interval
SIGNS = 2.5  # standard errors of the number of evaluations that hold, about a half: seven in a row are enough
FAR = 5.0  # standard deviations below the level: a single evaluation decides, near a ceiling that hides half the noise
HOLD = 3.0  # standard errors by which a run's level must lie above the level before it
NEAR = 15  # evaluations on each side whose residuals measure the noise
KEPT = 0.8  # share of the residuals that counts: a slingshot or two among them are no noise
TO_DEVIATION = 1.790  # mean of the lower 80 % of |normal|, inverted
MEDIAN_ERROR = 1.2533  # √(π/2): standard error of a median over that of a mean


@dataclass(frozen=True)
class Noise:
    """Standard deviation of single evaluations about the curve, and how far an evaluation resembles the one before."""

    deviation: float
    correlation: float

    def of_mean(self, count: int) -> float:
        """Standard error of the mean of `count` evaluations in a row; of one, with autocorrelation, at most."""
        inflation = (1 + self.correlation) / (1 - self.correlation)
        return self.deviation * min(1.0, float(np.sqrt(inflation / count)))


@dataclass(frozen=True)
class Passing:
    """Where a curve passes a level: evaluation numbers. It was below at `low`, above at `high`; −1 before the first.

    `index` is the first evaluation of the run; `end` is one past the last evaluation before the curve falls again.
    `sure` is whether `high` was decided by the curve, and not only by where it ends.
    """

    index: int
    low: int
    high: int
    end: int
    sure: bool


def noise_near(values: Values, index: int) -> Noise:
    """Noise of a rising curve around one of its evaluations: residuals about the isotonic fit, the larger side's."""
    first, last = max(0, index - NEAR), min(len(values), index + NEAR)
    window = values[first:last]
    residual = residuals(window)
    cut = index - first
    deviation = max(deviation_of(residual[:cut]), deviation_of(residual[cut:]))
    if deviation == 0.0:
        return Noise(0.0, 0.0)
    bounded = np.clip(residual, -3 * deviation, 3 * deviation)
    power = float(bounded @ bounded)
    correlation = float(bounded[1:] @ bounded[:-1]) / power if power > 0 else 0.0
    return Noise(deviation, min(max(correlation, 0.0), 0.9))


def rising(values: Values) -> Values:
    """The rising curve that is nearest by least squares."""
    return isotonic_regression(values).x


def residuals(values: Values) -> Values:
    """What is left over the rising curve through the running medians of five, which leave rises and forget dips."""
    return values - rising(median_filter(values, 5, mode="nearest"))


def rough_noise(values: Values) -> float:
    """Standard deviation from second differences, blind to slow change: √6 of it where evaluations are independent."""
    if len(values) < 3:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, 2))) / np.sqrt(6))


def passing(values: Values, level: float, persistence: int, fall: float, ceiling: float = np.inf) -> Passing | None:
    """Where the curve passes the level and keeps it, or None. `fall`: how far below the level is a fall, not a dip.

    No value exceeds `ceiling`, which is 1 for accuracies.
    """
    holds = values >= level
    run = runs(holds, persistence)
    deviation = rough_noise(values)
    fallen = runs(values < level - max(fall, 3 * deviation), persistence)
    starts = np.flatnonzero(run & ~np.concatenate([[False], run[:-1]]))
    for index in starts:
        later = np.flatnonzero(fallen[index:])
        end = int(index + later[0]) if len(later) else len(values)
        if _kept(values, int(index), end, level, deviation):
            low, high, sure = _interval(values[:end], level, int(index), ceiling)
            return Passing(int(index), low, high, end, sure)
    return None


def runs(holds: np.ndarray, persistence: int) -> np.ndarray:
    """Where a run of `persistence` evaluations that hold begins."""
    begins = np.zeros(len(holds), dtype=bool)
    whole = len(holds) - persistence + 1
    if whole > 0:
        begins[:whole] = np.lib.stride_tricks.sliding_window_view(holds, persistence).all(axis=1)
    return begins


def bracket(values: Values, below: float, above: float, index: int, noise: Noise) -> tuple[int, int, bool]:
    """Last evaluation that is surely under `below`, first that is surely over `above`, and whether the latter exists.

    `index` is the evaluation that passed: windows under `below` end before it, windows over `above` end at it or later.
    """
    total = np.concatenate([[0.0], np.cumsum(values - values[0])])
    low, high, count = -1, len(values), 1
    while count <= len(values):
        means = (total[count:] - total[:-count]) / count + values[0]
        reach = REACH * noise.of_mean(count)
        under = np.flatnonzero(means[: max(0, index - count + 1)] < below - reach)
        if len(under):
            low = max(low, int(under[-1]))
        first = max(0, index - count + 1)
        over = np.flatnonzero(means[first:] >= above + reach)
        if len(over):
            high = min(high, int(first + over[0] + count - 1))
        count *= 2
    return low, min(high, len(values) - 1), high < len(values)


def _interval(values: Values, level: float, index: int, ceiling: float) -> tuple[int, int, bool]:
    """The bracket of a level that may lie near the ceiling.

    There noise is cut above and not below, so that means lie too low: values are cut at the same distance on both sides
    of the level. Single evaluations have no such mean, and one that is far below says so uncut.
    """
    noise, room = noise_near(values, index), ceiling - level
    if not 0 < room < REACH * noise.deviation:
        return bracket(values, level, level, index, noise)
    cut = np.clip(values, level - room, ceiling)
    low, high, sure = bracket(cut, level, level, index, Noise(min(noise.deviation, room), noise.correlation))
    far = np.flatnonzero(values[:index] < level - FAR * noise.deviation)
    return max(low, int(far[-1]) if len(far) else -1), high, sure


def _kept(values: Values, index: int, end: int, level: float, deviation: float) -> bool:
    """Whether the evaluations from a run on hold the level in the median, and not by the chance of a few."""
    after = values[index:end]
    if np.median(after) < level:
        return False
    before = values[max(0, index - len(after)) : index]
    excess = 2 * np.count_nonzero(after >= level) - len(after)
    if not len(before) or deviation == 0.0 or excess >= SIGNS * np.sqrt(len(after)):
        return True
    error = MEDIAN_ERROR * deviation * np.sqrt(1 / len(after) + 1 / len(before))
    return bool(np.median(after) - np.median(before) > HOLD * error)


def deviation_of(residual: Values) -> float:
    """Standard deviation of normal residuals from their smaller 80 %, which a few large ones leave alone."""
    if not len(residual):
        return 0.0
    size = np.sort(np.abs(residual))[: max(1, int(np.ceil(KEPT * len(residual))))]
    return float(TO_DEVIATION * size.mean())
