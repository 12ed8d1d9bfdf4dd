"""Where a curve changes from its lower to its upper level: the midpoint of the rise in log step, with a 95 % interval.

A two-level curve of any rising shape is fitted: the best rising curve by least squares (isotonic regression), its lower
level (the median of all evaluations before it has made a tenth of its rise), its upper level (the median of those after
nine tenths), and the step at which it passes half-way between both, found by a straight line in log(1 + step) between
two evaluations. A threshold such as 0.99 dates the end of a rise, the midpoint its middle; they answer two questions.

The interval is the multiscale bracket of `crossing`, for a half-way level known only up to the error of both levels:
the curve was surely under the lowest half-way level at its lower end, surely over the highest at its upper end. Where
the rise leads to a threshold, both levels must lie on its two sides: the upper one beyond it, or short of it by no more
than a tenth of the rise, as a slow approach has it. A small rise of a curve that was there before is no such rise. It
holds for any shape that rises once, for autocorrelated noise and for evaluations at any spacing; for rises in several
stages it is the stage that passes half-way. On the 1,000 simulated curves of `tests/test_transition_simulated.py` it
held the true midpoint in 93.8 %, on the harder ones that `crossing` tells of in 95.9 to 98.5 % of those that have one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from infocomp.grokking.crossing import MEDIAN_ERROR, Noise, Values, bracket, noise_near, rising

FOOT = 0.1  # of the rise: what lies under it is the lower level, what lies over its mirror image the upper
LEAST_RISE = 5.0  # standard errors of the difference of both levels: a smaller rise is none
ROUNDS = 4  # of narrowing what counts as foot and as top
SPIKE = 2.0  # standard deviations by which a rising fit overshoots at its two ends
CERTAIN = 2.0  # standard errors of the half-way level that the interval holds


@dataclass(frozen=True)
class ChangePoint:
    """Midpoint of a rise: step, with its 95 % interval from a step to a step, and the levels before and after it."""

    step: float
    low: float
    high: float
    level_before: float
    level_after: float


def change_point(
    steps: Float[np.ndarray, "evaluations"], values: Values, threshold: float | None = None
) -> ChangePoint | None:
    """Midpoint of the rise of `values` (higher is later), or None where they rise by less than noise makes.

    `threshold`: the rise must lead from under it to over it, else there is none.

    The interval begins at the first step where the curve was never surely below, ends at the last where it was never
    surely above. ValueError: not one step a value, or fewer than two.
    """
    if len(steps) != len(values) or len(values) < 2:
        raise ValueError(f"a change point needs one step for each of two values or more, got {len(steps)} steps and "
                         f"{len(values)} values.")  # fmt: skip
    fitted = rising(values)
    foot, top = _levels(values, fitted)
    lower, upper = float(np.median(foot)), float(np.median(top))
    half = (lower + upper) / 2
    if threshold is not None and not lower < threshold <= upper + FOOT * (upper - lower):
        return None
    index = int(np.searchsorted(fitted, half))
    if not 0 < index < len(values):
        return None
    noise = noise_near(values, index, falls_too=False)
    error = float(np.hypot(_error(foot, noise), _error(top, noise)))
    if upper - lower < LEAST_RISE * error:
        return None
    unsure = CERTAIN * error / 2
    for level, end in ((lower, fitted[0]), (upper, fitted[-1])):
        unsure += max(0.0, abs(level - float(end)) - SPIKE * noise.deviation) / 2
    low, high, _ = bracket(values, half - unsure, half + unsure, index, noise_near(values, index))
    place = _between(np.log1p(steps), fitted, half, index)
    ends = float(steps[max(low, 0)]), float(steps[high])
    return ChangePoint(float(np.clip(np.expm1(place), *ends)), *ends, lower, upper)


def _levels(values: Values, fitted: Values) -> tuple[Values, Values]:
    """Evaluations of the lower and of the upper level: below and above half-way, then narrowed to foot and top."""
    half = (fitted[0] + fitted[-1]) / 2
    foot, top = values[fitted <= half], values[fitted >= half]
    for _ in range(ROUNDS):
        lower, upper = np.median(foot), np.median(top)
        under, over = fitted <= lower + FOOT * (upper - lower), fitted >= upper - FOOT * (upper - lower)
        if not under.any() or not over.any():
            break
        foot, top = values[under], values[over]
    return foot, top


def _between(places: np.ndarray, fitted: np.ndarray, level: float, index: int) -> float:
    """Where a straight line between the evaluations around it passes the level."""
    under, over = fitted[index - 1], fitted[index]
    return float(places[index - 1] + (places[index] - places[index - 1]) * (level - under) / (over - under))


def _error(level: np.ndarray, noise: Noise) -> float:
    """Standard error of the median of these evaluations."""
    return MEDIAN_ERROR * noise.of_mean(len(level))
