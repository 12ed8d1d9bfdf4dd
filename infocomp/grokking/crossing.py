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
constants are ours; on 1,000 simulated curves with strong and autocorrelated noise among them, as in
`tests/test_transition_simulated.py`, the interval held the true step in 95.0 %, and of 1,000 without a transition none
was dated. Harder ones, 200 of each: accuracies of 100, 500, 2,000 answers drawn anew at each evaluation 98.5, 97.0 and
95.5 %, log losses with AR(1) noise of 0.7, 0.8, 0.9: 99.0, 97.0, 92.5 %. It falls short where noise is cut at the
ceiling and resembles itself (accuracies near 1, AR(1) of 0.8, deviation 0.01): about 88 to 90 %, half of them open.
Noise about a plateau short of 0.99 is dated in at most 0.8 % (AR(1) of 0.5) and 2.0 % (0.8) of each of four families;
at 0.95 a plateau can stay above the threshold for long by chance: 0.4 to 8 %, up to 13 % on sparse grids.

Noise is measured by the curve itself, and twice, as each is blind where the other sees: residuals near the level about
the best rising curve (isotonic regression) through its running medians, and falls over 1, 2, 4, 8, 16 evaluations,
which a curve that rises has none of without noise. Noise that resembles itself falls little from one evaluation to the
next and more over many, and so its long-run variance is seen. The larger of both counts.
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
FALL = 4.0  # standard deviations below the level that are a fall
HOLD = 3.0  # standard errors by which a run's level must lie above the level before it
NEAR = 15  # evaluations on each side whose residuals measure the noise
KEPT = 0.8  # share of the residuals that counts: a slingshot or two among them are no noise
TO_DEVIATION = 1.790  # mean of the lower 80 % of |normal|, inverted
QUARTILE = 0.6745  # of the normal
LAGS = (1, 2, 4, 8, 16)  # evaluations over which falls are measured: noise that resembles itself falls later
CHANCE = 1.1  # by so much the second largest of these falls exceeds the first where nothing resembles the one before
WIDE = 25  # evaluations on each side whose falls measure the noise
LONG = 100  # evaluations before a run among which it may be a chance
MEDIAN_ERROR = 1.2533  # √(π/2): standard error of a median over that of a mean


@dataclass(frozen=True)
class Noise:
    """Standard deviation of single evaluations about the curve, and how far an evaluation resembles the one before."""

    deviation: float
    correlation: float

    def of_mean(self, count: int) -> float:
        """Standard error of the mean of `count` evaluations in a row; of one, with autocorrelation, at most."""
        return self.deviation * min(1.0, float(np.sqrt(self.inflation / count)))

    @property
    def inflation(self) -> float:
        """How many evaluations in a row are worth one that resembles no other."""
        return (1 + self.correlation) / (1 - self.correlation)


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


def noise_near(values: Values, index: int, falls_too: bool = True) -> Noise:
    """Noise of a rising curve around one of its evaluations: the largest of what residuals and falls say."""
    first, last = max(0, index - NEAR), min(len(values), index + NEAR)
    window = values[first:last]
    residual, cut = residuals(window), index - first
    about = max(deviation_of(residual[:cut]), deviation_of(residual[cut:]))
    wide = values[max(0, index - WIDE) : index + WIDE]
    falls = [_falls(wide, lag) for lag in LAGS if 2 * lag < len(wide)] if falls_too else []
    deviation = max([about, *falls])
    if deviation == 0.0:
        return Noise(0.0, 0.0)
    bounded = np.clip(residual, -3 * about, 3 * about)
    power = float(bounded @ bounded)
    correlation = float(bounded[1:] @ bounded[:-1]) / power if power > 0 else 0.0
    if falls and falls[0] > 0:
        correlation = max(correlation, 1 - (falls[0] / max(falls)) ** 2)
    return Noise(deviation, min(max(correlation, 0.0), 0.9))


def _falls(values: Values, lag: int) -> float:
    """Standard deviation by the falls over `lag` evaluations, σ √(1 − rˡᵃᵍ): without rises, and a slingshot or two.

    A fall between two evaluations of a level curve is half-normal, its median 0.6745 √2 of their deviation. Two jumps
    downwards make twice `lag` of them without noise, so that more are needed.
    """
    change = values[lag:] - values[:-lag]
    down = -change[change < 0]
    return float(np.median(down) / QUARTILE / np.sqrt(2)) if len(down) > 2 * lag else 0.0


def flutter(values: Values) -> Noise:
    """Noise of a whole curve, by the quarter of its changes over 1, 2, 4, … evaluations that fall the most.

    A curve that falls less than a quarter of the time without noise, however deep, has none.
    """
    lags = [lag for lag in LAGS if lag == 1 < len(values) or 12 * lag < len(values)]
    falls = [max(0.0, -float(np.quantile(values[lag:] - values[:-lag], 0.25))) for lag in lags]
    if not falls or max(falls) == 0.0:
        return Noise(0.0, 0.0)
    largest, second = max(falls), sorted(falls)[-2:][0]
    correlation = 1 - (CHANCE * falls[0] / second) ** 2 if min(falls[0], second) > 0 else 0.0
    return Noise(largest / QUARTILE / float(np.sqrt(2)), min(max(correlation, 0.0), 0.95))


def rising(values: Values) -> Values:
    """The rising curve that is nearest by least squares."""
    return isotonic_regression(values).x


def residuals(values: Values) -> Values:
    """What is left over the rising curve through the running medians of five, which leave rises and forget dips."""
    return values - rising(median_filter(values, 5, mode="nearest"))


def passing(values: Values, level: float, persistence: int, fall: float, ceiling: float = np.inf) -> Passing | None:
    """Where the curve passes the level and keeps it, or None. `fall`: how far below the level is a fall, not a dip.

    No value exceeds `ceiling`, which is 1 for accuracies.
    """
    holds = values >= level
    run = runs(holds, persistence)
    starts = np.flatnonzero(run & ~np.concatenate([[False], run[:-1]]))
    if not len(starts):
        return None
    deviation = max(flutter(values).deviation, flutter(values[starts[0] :]).deviation)
    fallen = runs(values < level - max(fall, FALL * deviation), persistence)
    for index in starts:
        later = np.flatnonzero(fallen[index:])
        end = int(index + later[0]) if len(later) else len(values)
        if _kept(values[:end], int(index), level):
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
    near = Noise(min(noise.deviation, room), noise.correlation)
    cut = np.clip(values, level - room, ceiling)
    low, high, sure = bracket(cut, level, level, index, near)
    far = np.flatnonzero(values[:index] < level - FAR * noise.deviation)
    return max(low, int(far[-1]) if len(far) else -1), high, sure


def _kept(values: Values, index: int, level: float) -> bool:
    """Whether the evaluations from a run on hold the level in the median, and not by the chance of a few."""
    after = values[index:]
    if np.median(after) < level:
        return False
    before = values[max(0, index - len(after)) : index]
    noise = flutter(values[max(0, index - LONG) :])
    if not len(before) or noise.deviation == 0.0:
        return True
    excess = 2 * np.count_nonzero(after >= level) - len(after)
    if excess >= SIGNS * np.sqrt(len(after) * noise.inflation):
        return True
    error = MEDIAN_ERROR * float(np.hypot(noise.of_mean(len(after)), noise.of_mean(len(before))))
    return bool(np.median(after) - np.median(before) > HOLD * error)


def deviation_of(residual: Values) -> float:
    """Standard deviation of normal residuals from their smaller 80 %, which a few large ones leave alone."""
    if not len(residual):
        return 0.0
    size = np.sort(np.abs(residual))[: max(1, int(np.ceil(KEPT * len(residual))))]
    return float(TO_DEVIATION * size.mean())
