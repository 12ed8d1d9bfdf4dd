"""Distributions that carry their true mutual information, in nats, with its closed form.

For tests, documentation and the table of `analysis/known_table.py`. The first five are tasks of Czyż et al. (2023),
"Beyond Normal" (bmi); discrete–continuous and zero-inflated Poisson are Gao et al. (2017), arXiv 1709.06212.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.integrate import quad
from scipy.special import digamma, gammaln

from infocomp.estimators.sphere import draw_anchors
from infocomp.units import bits

DOCUMENT = 50  # rows a document; rows are independent, so that the cut is arbitrary
Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Known:
    """A law of (x, z) and its true information in nats.

    `kind` "pair": x and z are continuous, [rows, dim]. "labels": x is an integer label, z continuous. `sample` gives
    x, z and a document number for each row.
    """

    name: str
    kind: Literal["pair", "labels"]
    truth: float
    draw: Draw
    about: str

    @property
    def truth_bits(self) -> float:
        return bits(self.truth)

    def sample(
        self, n: int, seed: int
    ) -> tuple[Shaped[np.ndarray, "rows ..."], Float[np.ndarray, "rows dim"], Shaped[np.ndarray, "rows"]]:
        """n independent rows; the same for the same seed."""
        x, z = self.draw(n, np.random.default_rng(seed))
        return x, z, np.arange(n) // DOCUMENT


def correlated(covariance: Float[np.ndarray, "both both"], dim: int, name: str) -> Known:
    """Jointly Gaussian x (the first `dim` coordinates) and z: ½ log(|Σ_x| |Σ_z| / |Σ|)."""
    root = np.linalg.cholesky(covariance)
    parts = (covariance[:dim, :dim], covariance[dim:, dim:], covariance)
    one, other, both = (np.linalg.slogdet(part)[1] for part in parts)

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.standard_normal((n, len(root))) @ root.T
        return rows[:, :dim], rows[:, dim:]

    return Known(name, "pair", float(one + other - both) / 2, draw, "½ log(|Σx| |Σz| / |Σ|)")


def normal(correlation: float = 0.75) -> Known:
    """One coordinate each: −½ log(1 − ρ²)."""
    return correlated(np.array([[1, correlation], [correlation, 1]]), 1, f"normal 1×1, ρ {correlation:g}")


def dense_normal(dim: int, correlation: float = 0.5) -> Known:
    """All 2·dim coordinates correlated by ρ (multinormal-dense)."""
    covariance = np.full((2 * dim, 2 * dim), correlation) + (1 - correlation) * np.eye(2 * dim)
    return correlated(covariance, dim, f"dense normal {dim}×{dim}")


def two_pairs(dim: int, correlation: float = 0.8) -> Known:
    """Two coordinates of x correlated with two of z, the rest independent: −log(1 − ρ²), in any dimension."""
    covariance = np.eye(2 * dim)
    for pair in (0, 1):
        covariance[pair, dim + pair] = covariance[dim + pair, pair] = correlation
    return correlated(covariance, dim, f"2-pair {dim}×{dim}")


def additive_uniform(width: float) -> Known:
    """Z = X + U(−ε, ε), X uniform on (0, 1): ε − log 2ε for ε ≤ ½, else 1 / 4ε."""
    truth = width - math.log(2 * width) if width <= 0.5 else 1 / (4 * width)

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.random((n, 1))
        return x, x + rng.uniform(-width, width, (n, 1))

    return Known(f"additive uniform, ε {width:g}", "pair", truth, draw, "ε − log 2ε (ε ≤ ½), 1/(4ε)")


def student_identity(dim: int, other_dim: int, degrees: int) -> Known:
    """Multivariate Student t with identity dispersion: uncorrelated, dependent through the common scale.

    h_d = ½ d log νπ + log Γ(ν/2) − log Γ((ν+d)/2) + (ν+d)/2 · (ψ((ν+d)/2) − ψ(ν/2)); I = h_m + h_n − h_{m+n}.
    """

    def entropy(d: int) -> float:
        half = (degrees + d) / 2
        constant = d / 2 * math.log(degrees * math.pi) + gammaln(degrees / 2) - gammaln(half)
        return float(constant + half * (digamma(half) - digamma(degrees / 2)))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scale = np.sqrt(rng.chisquare(degrees, (n, 1)) / degrees)
        rows = rng.standard_normal((n, dim + other_dim)) / scale
        return rows[:, :dim], rows[:, dim:]

    truth = entropy(dim) + entropy(other_dim) - entropy(dim + other_dim)
    return Known(f"student {dim}×{other_dim}, ν {degrees}", "pair", truth, draw, "entropies of t_ν in m, n, m+n")


def discrete_continuous(labels: int = 5) -> Known:
    """X uniform on 0 … m−1, Z | X uniform on (X, X + 2): log m − (m − 1)/m · log 2."""

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(labels, size=n)
        return x, (x + 2 * rng.random(n))[:, None]

    truth = math.log(labels) - (labels - 1) / labels * math.log(2)
    return Known(f"discrete–continuous, m {labels}", "labels", truth, draw, "log m − (m−1)/m log 2")


def zero_inflated_poisson(zeros: float = 0.15) -> Known:
    """Z exponential of mean 1, X = 0 with probability p and else Poisson(Z).

    `truth` is H(X) − H(X | Z) summed and integrated, for p(X = 0) mixes both kinds of zero. The value published by Gao
    et al. (2017), `published_poisson`, is I(Z; X | which kind) and exact for p = 0 only; at p = .15 it is above I.
    """

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        z = rng.exponential(size=n)
        return np.where(rng.random(n) < zeros, 0, rng.poisson(z)), z[:, None]

    counts = np.arange(200)

    def entropy(shares: np.ndarray) -> float:
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    def given(z: float) -> float:
        shares = (1 - zeros) * np.exp(counts * math.log(z) - z - gammaln(counts + 1))
        shares[0] += zeros
        return entropy(shares) * math.exp(-z)

    marginal = (1 - zeros) * 0.5 ** (counts + 1.0)  # a Poisson of exponential mean is geometric
    marginal[0] += zeros
    truth = entropy(marginal) - quad(given, 0, 60, limit=200, epsabs=1e-10)[0]
    return Known(f"zero-inflated Poisson, p {zeros:g}", "labels", truth, draw, "H(X) − ∫ H(X|z) e^−z dz, numerically")


def published_poisson(zeros: float) -> float:
    """(1 − p)(2 log 2 − γ − Σ_k log k · 2^−k) ≈ (1 − p) · 0.3012 nats (Gao et al. 2017, section 4)."""
    k = np.arange(1, 200)
    return float((1 - zeros) * (2 * math.log(2) - np.euler_gamma - (np.log(k) * 0.5**k).sum()))


def gaussian_mixture(labels: int = 4, apart: float = 2.0, dim: int = 8) -> Known:
    """K equiprobable labels with means `apart` from their neighbours on the first axis, unit noise in every dimension.

    The other axes add nothing: log K − ∫ p(z | x) log(Σ_x' p(z | x') / p(z | x)) dz over the first one, averaged.
    """
    means = apart * (np.arange(labels) - (labels - 1) / 2)

    def confusion(z: float, mean: float) -> float:
        ratio = float(np.logaddexp.reduce(-0.5 * (z - means) ** 2)) + 0.5 * (z - mean) ** 2
        return math.exp(-0.5 * (z - mean) ** 2) / math.sqrt(2 * math.pi) * ratio

    rest = [quad(confusion, mean - 12, mean + 12, args=(mean,), limit=200)[0] for mean in means]

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x, z = rng.integers(labels, size=n), rng.standard_normal((n, dim))
        z[:, 0] += means[x]
        return x, z

    truth = math.log(labels) - float(np.mean(rest))
    return Known(f"Gaussian mixture, K {labels}, d {dim}", "labels", truth, draw, "log K − E log Σ p(z|x')/p(z|x)")


def codes_on_anchors(labels: int = 16, dim: int = 16, bins: int = 100, spread: float = 1e-3, seed: int = 0) -> Known:
    """Tight clusters, one a label, on the first K anchors of the soft estimator's draw 0: I(X; Z) = H(X) = log K.

    Information about the soft bin J of those anchors is H(mean A) − mean H(A) at the anchors, at most H(X).
    """
    centres = np.asarray(draw_anchors(dim, bins, 1, seed)[0, :labels])

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(labels, size=n)
        return x, centres[x] + spread * rng.standard_normal((n, dim))

    return Known(f"codes on anchors, K {labels}", "labels", math.log(labels), draw, "log K")


def independent_labels(labels: int = 20, dim: int = 8) -> Known:
    """Labels of Zipf's law and Gaussian rows that know nothing of them: 0."""
    shares = 1 / np.arange(1, labels + 1)

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return rng.choice(labels, size=n, p=shares / shares.sum()), rng.standard_normal((n, dim))

    return Known(f"independent labels, K {labels}", "labels", 0.0, draw, "0")


def all_known() -> list[Known]:
    """The laws of the table."""
    return [
        normal(),
        additive_uniform(0.1),
        additive_uniform(0.75),
        dense_normal(2),
        dense_normal(5),
        dense_normal(25),
        two_pairs(5),
        student_identity(1, 1, 1),
        student_identity(5, 5, 2),
        discrete_continuous(),
        zero_inflated_poisson(),
        gaussian_mixture(),
        codes_on_anchors(dim=6),
        independent_labels(),
    ]
