"""A point estimate of an information from its plug-in, its null and the gap that averaging rows closes.

Let b(n) = H(J) − E H(mean of n rows), the row null's gap: what n rows of a label lack in entropy when the label means
nothing. The gap of a label that means something is unknown; the assumption here is that the rows of a label lie round
their mean as means of κ ≥ 1 null rows lie round theirs, so that its gap at n rows is b(κn), with one κ for all
labels. At one row the gap is what the label does not tell of the context, C − I, with C the context's information; so

    I = C − b(κ),   κ from   plug-in = C − b(κ) + Σ_x P(x) b(κ n_x).

κ = 1 is no information (plug-in = null), κ → ∞ all of it. Rows of a document resemble each other, so n_x rows count as
1 + (n_x − 1)/δ, δ such that Σ_x P(x) b(1 + (n_x − 1)/δ) is the null of rows paired across documents.

What it cannot see: rare labels that tell more, or less, than frequent ones. Below its null, I = (plug-in − null) /
(1 − null/C), to which the equation tends there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

Gap = Callable[[Float[np.ndarray, "*sizes"]], Float[np.ndarray, "*sizes"]]
WIDEST = 18.0  # of log κ and of log δ
STEP = 0.01  # of log κ and of log δ, for derivatives


@dataclass(frozen=True)
class Point:
    """The estimate in nats, its derivatives by plug-in, null and context, and δ; None of them is clipped."""

    value: float
    by_plug_in: float
    by_null: float
    by_context: float
    dependence: float


def point_estimate(
    plug_in: float,
    null: float,
    context: float,
    gap: Gap,
    counts: Float[np.ndarray, "sizes"],
    weights: Float[np.ndarray, "sizes"],
) -> Point | None:
    """`weights` is the share of labels with `counts` rows; all in nats. None where the null is all of the context.

    Every label seen once, or one direction for all rows: then plug-in and null agree whatever the rows hold.
    """
    if context <= 0 or null >= context * (1 - 1e-9):
        return None
    counts = np.asarray(counts, dtype=np.float64)

    def null_at(log_dependence: float) -> float:
        return float(weights @ gap(1 + (counts - 1) * np.exp(-log_dependence)))

    log_dependence = _root(lambda at: null_at(at) - null, -WIDEST, WIDEST)
    null_slope = (null_at(log_dependence + STEP) - null_at(log_dependence - STEP)) / (2 * STEP)

    def plug_in_at(log_kappa: float, log_dependence: float) -> float:
        rows = 1 + (counts - 1) * np.exp(-log_dependence)
        kappa = np.exp(log_kappa)
        return context - float(gap(kappa)) + float(weights @ gap(kappa * rows))

    if plug_in <= null:
        left = 1 - null / context
        value = (plug_in - null) / left
        return Point(
            value, 1 / left, (plug_in - context) / context / left**2, -value * null / context**2 / left,
            float(np.exp(log_dependence)),
        )  # fmt: skip
    log_kappa = _root(lambda at: plug_in_at(at, log_dependence) - plug_in, 0.0, WIDEST)
    value = context - float(gap(np.exp(log_kappa)))
    low, high = max(log_kappa - STEP, 0.0), log_kappa + STEP
    own = (plug_in_at(high, log_dependence) - plug_in_at(low, log_dependence)) / (high - low)
    closed = -(float(gap(np.exp(high))) - float(gap(np.exp(low)))) / (high - low)
    if own <= 0 or closed <= 0:  # all of the context is told: nothing is left to correct
        return Point(value, 0.0, 0.0, value / context, float(np.exp(log_dependence)))
    by_dependence = plug_in_at(log_kappa, log_dependence + STEP) - plug_in_at(log_kappa, log_dependence - STEP)
    by_plug_in = closed / own
    by_null = -by_plug_in * by_dependence / (2 * STEP) / null_slope if null_slope else 0.0
    by_context = (value - by_plug_in * plug_in - by_null * null) / context  # Euler: all scale together
    return Point(value, by_plug_in, by_null, by_context, float(np.exp(log_dependence)))


def growth_of_null(gap: Gap, sizes: Float[np.ndarray, "sizes"], dependence: float) -> Float[np.ndarray, "sizes"]:
    """d(n·b_δ(n))/dn: what one more row of a label of n rows adds to N times the null."""

    def of(n: np.ndarray) -> np.ndarray:
        return n * gap(1 + (n - 1) / dependence)

    sizes = np.asarray(sizes, dtype=np.float64)
    step = np.maximum(0.05 * sizes, 0.25)
    return (of(sizes + step) - of(np.maximum(sizes - step, 1.0))) / (sizes + step - np.maximum(sizes - step, 1.0))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing or decreasing function is 0 between two places; the nearer end where it is not."""
    at_low, at_high = function(low), function(high)
    if at_low * at_high >= 0:
        return low if abs(at_low) <= abs(at_high) else high
    return float(brentq(function, low, high, xtol=1e-9, rtol=1e-12))  # pyright: ignore[reportArgumentType]
