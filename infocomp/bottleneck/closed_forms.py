"""Bottleneck and rate–distortion curves that are known in closed form. Bits in, bits out.

They are the oracles of the solvers, and for deterministic Y, where the Lagrangian finds one corner only, the answer.
Every function takes numbers or arrays and broadcasts; a parameter outside its range is a ValueError.

Sources are named with each function; h is the binary entropy, p ∗ q = p(1 − q) + q(1 − p).
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import root_scalar
from scipy.special import xlogy

from infocomp.units import BITS_PER_NAT

Array = Float[np.ndarray, "..."]


def binary_entropy(p: ArrayLike) -> Array:
    """h(p) in bits."""
    q = np.asarray(p, dtype=np.float64)
    return -(xlogy(q, q) + xlogy(1 - q, 1 - q)) * BITS_PER_NAT


def inverse_binary_entropy(entropy: float) -> float:
    """The p ≤ ½ whose binary entropy is `entropy` bits."""
    _check("entropy", entropy, 0, 1)
    if entropy in (0.0, 1.0):
        return entropy / 2
    return _root(lambda p: float(binary_entropy(p)) - entropy, 0.0, 0.5)


def binary_symmetric(complexity: float, flip: float) -> float:
    """I(T; Y) for X uniform on two values and Y = X flipped with probability `flip`: 1 − h(p ∗ h⁻¹(1 − I_X)).

    Source: Mrs Gerber's lemma, Wyner & Ziv (1973); as a bottleneck Witsenhausen & Wyner (1975).
    """
    _check("flip", flip, 0, 1)
    noise = inverse_binary_entropy(1 - min(complexity, 1.0))
    return float(1 - binary_entropy(flip * (1 - noise) + noise * (1 - flip)))


def binary_symmetric_at(beta: float, flip: float) -> tuple[float, float]:
    """(I(X; T), I(T; Y)) of the same joint where the curve has slope 1/beta; (0, 0) up to beta = 1/(1 − 2p)².

    The optimal encoder is a binary symmetric channel, so its noise q solves d(1 − h(q))/dq = β d(1 − h(p ∗ q))/dq.
    """
    _check("flip", flip, 0, 0.5)
    if beta <= 1 / (1 - 2 * flip) ** 2:
        return 0.0, 0.0

    def excess(q: float) -> float:
        return _log_odds(q) - beta * (1 - 2 * flip) * _log_odds(flip * (1 - q) + q * (1 - flip))

    noise = _root(excess, 1e-300, 0.5 - 1e-9)
    together = flip * (1 - noise) + noise * (1 - flip)
    return float(1 - binary_entropy(noise)), float(1 - binary_entropy(together))


def erasure(complexity: ArrayLike, erased: float, entropy_x: float = 1.0) -> Array:
    """I(T; Y) for Y = X, erased with probability `erased`: (1 − e) I_X, up to I_X = H(X)."""
    _check("erased", erased, 0, 1)
    return (1 - erased) * np.minimum(np.asarray(complexity, dtype=np.float64), entropy_x)


def deterministic(complexity: ArrayLike, entropy_y: float) -> Array:
    """I(T; Y) for Y = f(X): min(I_X, H(Y)).

    Source: Kolchinsky, Tracey & Van Kuyk (2019), arXiv 1808.07593. For every β > 1 the Lagrangian is least at the
    corner (H(Y), H(Y)), for every β < 1 at (0, 0): no β finds the points between.
    """
    return np.minimum(np.asarray(complexity, dtype=np.float64), entropy_y)


def gaussian_scalar(complexity: ArrayLike, correlation: float) -> Array:
    """I(T; Y) for jointly Gaussian scalars: −½ log₂(1 − ρ²(1 − 2^(−2 I_X))). Source: Chechik et al. (2005)."""
    _check("correlation", correlation, -1, 1)
    within = 1 - np.exp2(-2 * np.asarray(complexity, dtype=np.float64))
    return -0.5 * np.log2(1 - correlation**2 * within)


def gaussian_critical_betas(covariance: ArrayLike, dim_x: int) -> Array:
    """β_i = 1/(1 − λ_i), rising: where the curve of a Gaussian joint takes up its next direction.

    λ_i are the eigenvalues of Σ_{x|y} Σ_x⁻¹ (Chechik et al. 2005, JMLR 6, theorem 3.1), λ_i = 1 − ρ_i² in canonical
    correlations. `covariance` is that of (x, y), its first `dim_x` coordinates x.
    """
    lambdas = _lambdas(covariance, dim_x)
    return 1 / np.maximum(1 - lambdas, np.finfo(float).tiny)


def gaussian_vector(beta: float, covariance: ArrayLike, dim_x: int) -> tuple[float, float]:
    """(I(X; T), I(T; Y)) of a Gaussian joint where its curve has slope 1/beta.

    With n directions of λ_i < 1 − 1/β: I_X = ½ Σ log₂[(β − 1)(1 − λ_i)/λ_i] and I_Y = I_X − ½ Σ log₂[β (1 − λ_i)].
    Source: Chechik et al. (2005), JMLR 6, section 4, written by direction.
    """
    if not beta > 0:
        raise ValueError(f"beta must be a finite number above 0; {beta:g} is not")
    lambdas = _lambdas(covariance, dim_x)
    used = lambdas[lambdas < 1 - 1 / beta]
    complexity = 0.5 * np.log2((beta - 1) * (1 - used) / used).sum()
    return float(complexity), float(complexity - 0.5 * np.log2(beta * (1 - used)).sum())


def bernoulli_rate(distortion: ArrayLike, p: float) -> Array:
    """R(D) of Bern(p) under Hamming distortion: h(p) − h(D) below min(p, 1 − p), else 0. Cover & Thomas, th. 10.3.1."""
    _check("p", p, 0, 1)
    d = np.asarray(distortion, dtype=np.float64)
    return np.where(d < min(p, 1 - p), binary_entropy(p) - binary_entropy(np.minimum(d, 0.5)), 0.0)


def uniform_rate(distortion: ArrayLike, values: int) -> Array:
    """R(D) of M equally likely values under Hamming distortion: log₂ M − h(D) − D log₂(M − 1), 0 from D = 1 − 1/M."""
    most = 1 - 1 / values
    d = np.minimum(np.asarray(distortion, dtype=np.float64), most)
    return np.log2(values) - binary_entropy(d) - d * np.log2(values - 1)


def gaussian_rate(distortion: ArrayLike, variance: float = 1.0) -> Array:
    """R(D) of a Gaussian under squared error: ½ log₂(σ²/D), 0 from D = σ². Cover & Thomas, theorem 10.3.2."""
    d = np.asarray(distortion, dtype=np.float64)
    return np.maximum(0.5 * np.log2(variance / d), 0.0)


def laplace_rate(distortion: ArrayLike, decay: float = 1.0) -> Array:
    """R(D) of density ½ λ e^(−λ|x|) under absolute error: −log₂(λ D), 0 from D = 1/λ. Source: Berger (1971)."""
    return np.maximum(-np.log2(decay * np.asarray(distortion, dtype=np.float64)), 0.0)


def reverse_water_filling(variances: Sequence[float] | Array, distortion: float) -> tuple[float, Array]:
    """(R in bits, distortion of each coordinate) of independent Gaussians at a total squared error D.

    Each coordinate gets min(level, σ_i²) with the level that makes them sum to D; R = Σ ½ log₂(σ_i²/D_i). Exact, by
    sorting. Source: Cover & Thomas (2006), theorem 10.3.3.
    """
    power = np.asarray(variances, dtype=np.float64)
    if power.ndim != 1 or not len(power) or not (power > 0).all():
        raise ValueError("variances must be a list of numbers above 0")
    if not distortion > 0:
        raise ValueError(f"distortion must be above 0; it is {distortion:g}")
    if distortion >= power.sum():
        return 0.0, power.copy()
    rising = np.sort(power)
    below = np.r_[0.0, np.cumsum(rising)[:-1]]
    levels = (distortion - below) / np.arange(len(rising), 0, -1)
    level = levels[np.argmax(levels <= rising)]
    each = np.minimum(level, power)
    return float(0.5 * np.log2(power / each).sum()), each


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(root_scalar(function, bracket=(low, high), method="brentq", xtol=1e-16, rtol=1e-14).root)


def _log_odds(q: float) -> float:
    return float(np.log2((1 - q) / q))


def _lambdas(covariance: ArrayLike, dim_x: int) -> Array:
    sigma = np.asarray(covariance, dtype=np.float64)
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1] or not 0 < dim_x < len(sigma):
        raise ValueError(f"covariance must be square with x and y in it; its shape is {sigma.shape}, dim_x {dim_x}")
    x, y, cross = sigma[:dim_x, :dim_x], sigma[dim_x:, dim_x:], sigma[:dim_x, dim_x:]
    conditional = x - cross @ np.linalg.solve(y, cross.T)
    return np.sort(np.linalg.eigvals(conditional @ np.linalg.inv(x)).real).clip(1e-300, 1.0)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie from {low:g} to {high:g}; it is {value:g}")
