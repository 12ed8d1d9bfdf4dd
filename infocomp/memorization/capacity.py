"""Capacity from runs on random data: a plateau for each model, a line over models, and whether training was enough.

Memorized bits are data entropy − code length under the model (Morris et al. 2025, arXiv 2505.24832, section 3; all in
bits). Over growing data sets they follow the ceiling of `random_data`, then stay at what the weights hold: the plateau,
divided by the number of parameters the capacity in bits per parameter, whose value over models is the slope of bits
against parameters. Training by gradient descent makes each a lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
FULL = 0.8  # of the ceiling: a run that reached more of it may have had too little data to fill the model
AT_CEILING = 0.99
SATURATED = 0.02  # what twice the steps may add
LOWER_BOUND = "lower bound at this budget"


@dataclass(frozen=True)
class Plateau:
    """Mean over runs in bits, with its t interval over seeds; None where one seed leaves it unknown."""

    value: float
    std_error: float | None
    low: float | None
    high: float | None
    seeds: int


def plateau(bits: Sequence[float], seeds: Sequence[int]) -> Plateau:
    """Mean over seeds of each seed's mean over its runs; the seeds are what the interval is over.

    ValueError: no run, or not one seed for each run.
    """
    if len(bits) != len(seeds) or not len(bits):
        raise ValueError(f"a plateau needs one seed for each of its runs, got {len(bits)} runs and {len(seeds)} seeds")
    runs, named = np.asarray(bits, float), np.asarray(seeds)
    means = np.array([runs[named == seed].mean() for seed in np.unique(named)])
    value, n = float(means.mean()), len(means)
    if n < 2:
        return Plateau(value, None, None, None, n)
    error = float(means.std(ddof=1) / np.sqrt(n))
    half = error * float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))
    return Plateau(value, error, value - half, value + half, n)


@dataclass(frozen=True)
class Line:
    """bits = slope · parameters + intercept, each with its interval; both intervals None where two sizes leave none."""

    slope: float
    intercept: float
    slope_error: float | None
    slope_low: float | None
    slope_high: float | None
    intercept_low: float | None
    intercept_high: float | None
    r_squared: float
    models: int
    runs: int
    seed_error: float | None = None


def capacity_line(parameters: Sequence[float], bits: Sequence[float]) -> Line:
    """Least squares over the mean bits of each size; t intervals with sizes − 2 degrees of freedom.

    Seeds of one size share what that size departs from the line by, so sizes, not runs, are what the interval counts:
    it holds seeds and misfit alike, and is None for two sizes. `seed_error` is the slope's standard error from the
    seeds alone, which three sizes that happen to lie on a line may fall below. ValueError: fewer than two sizes.
    """
    x, y = np.asarray(parameters, float), np.asarray(bits, float)
    sizes, runs = np.unique(x), len(x)
    if len(sizes) < 2:
        raise ValueError(f"a line over models needs at least two sizes, got {len(sizes)}")
    means = np.array([y[x == size].mean() for size in sizes])
    fit: Any = stats.linregress(sizes, means)
    slope, intercept, squared = float(fit.slope), float(fit.intercept), float(fit.rvalue) ** 2
    seeds = _seed_error(sizes, [y[x == size] for size in sizes])
    if len(sizes) < 3:
        return Line(slope, intercept, None, None, None, None, None, squared, len(sizes), runs, seeds)
    error, quantile = float(fit.stderr), float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(sizes) - 2))
    own, other = quantile * error, quantile * float(fit.intercept_stderr)
    ends = (slope - own, slope + own, intercept - other, intercept + other)
    return Line(slope, intercept, error, *ends, squared, len(sizes), runs, seeds)


def _seed_error(sizes: np.ndarray, found: Sequence[np.ndarray]) -> float | None:
    """Standard error of the slope from the spread of each size's runs; None where a size has one run alone."""
    if any(len(values) < 2 for values in found):
        return None
    centred = sizes - sizes.mean()
    weights = centred / (centred**2).sum()
    of_means = np.array([values.var(ddof=1) / len(values) for values in found])
    return float(np.sqrt((weights**2 * of_means).sum()))


def lower_bound(gains: Sequence[float]) -> str | None:
    """The message of a number that more training would raise, None where twice the steps add less than 2 % bits.

    The largest gain decides, where several runs were repeated.

    >>> lower_bound([0.012, 0.031])
    'lower bound at this budget: twice the steps add 3.1 %'
    """
    if not len(gains):
        return f"{LOWER_BOUND}: twice the steps were not measured"
    largest = float(np.max(gains))
    return None if largest < SATURATED else f"{LOWER_BOUND}: twice the steps add {100 * largest:.1f} %"


def run_message(bits: float, ceiling: float) -> str | None:
    """The message of one run, which knows no other: None where it reached its ceiling, beyond which nothing goes."""
    if ceiling > 0 and bits >= AT_CEILING * ceiling:
        return None
    return f"{LOWER_BOUND}, unless the model's saturation_gain is below {SATURATED:.0%}"


def fills_the_model(bits: Sequence[float], ceilings: Sequence[float]) -> bool:
    """Whether each of these runs had clearly more to store than it stored."""
    return all(found <= FULL * most for found, most in zip(bits, ceilings, strict=True))
