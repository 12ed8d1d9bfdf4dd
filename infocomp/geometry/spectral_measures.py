"""Symmetric functions of a spectrum: effective ranks (counts), matrix entropy (nats), decay, share of the top.

With λ the eigenvalues of the rows' covariance in falling order, and σ the singular values of the rows as they are:
- rankme: exp H(σ/Σσ), Garrido et al. (2023), arXiv 2210.02885, eq. 1 and 2. They add ε = 1e-7 to each share, so that
  shares sum to more than 1 and empty directions count; here 0·log 0 = 0 and nothing is added.
- rankme_covariance: exp H(λ/Σλ), what Li et al. (2025), arXiv 2509.23024, compute under that name: another number.
- spectral_entropy of order a: log Σ (λ/Σλ)^a / (1 − a), at a = 1 −Σ p log p (Skean et al. 2025, arXiv 2502.02013, on
  centred rows that are not brought to unit length here); at a = 1 the logarithm of rankme_covariance.
- participation_ratio: (Σλ)²/Σλ², the exponential of the entropy of order 2.
- alpha_req: minus the slope of log λ on log rank, least squares with weights 1/rank over ranks 12 to 100 counted from 1
  (Stringer et al. 2019, Nature 571; Agrawal et al. 2022, "α-ReQ", NeurIPS).
Each has its derivative by the eigenvalues, by which an error over documents follows (`spectrum.sampled_estimates`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from infocomp.estimators.matrix_renyi import matrix_entropy
from infocomp.units import bits

RANK_FROM, RANK_TO = 12, 100
FEWEST_RANKS = 10  # for a line through log eigenvalues
FARTHEST_RANK = 500  # to which the line is followed for `r2`
TOP = 3
OUTLIER = 5.0

Values = Float[np.ndarray, "directions"]


def rankme(singular: Values) -> float:
    """exp H(σ/Σσ) of the singular values of the rows, not centred: a count between 1 and min(n, d)."""
    return float(np.exp(matrix_entropy(_shares(singular), 1.0)))


def rankme_covariance(eigenvalues: Values) -> float:
    """exp H(λ/Σλ) of the covariance's eigenvalues: a count between 1 and min(n − 1, d)."""
    return float(np.exp(matrix_entropy(_shares(eigenvalues), 1.0)))


def spectral_entropy(eigenvalues: Values, alpha: float = 1.0) -> float:
    """Matrix-based Rényi entropy of order alpha of λ/Σλ, in nats."""
    return matrix_entropy(_shares(eigenvalues), alpha)


def participation_ratio(eigenvalues: Values) -> float:
    """(Σλ)²/Σλ²: a count between 1 and min(n − 1, d)."""
    return float(1 / (_shares(eigenvalues) ** 2).sum())


def top_share(eigenvalues: Values, k: int = TOP) -> float:
    """Share of the variance in the k largest directions, between k/d and 1."""
    return float(_shares(eigenvalues)[:k].sum())


@dataclass(frozen=True)
class PowerLaw:
    """log λ = level − slope · log rank, fitted over ranks rank_from to rank_to with weights 1/rank.

    r2 is the coefficient of determination (unweighted) from rank_from to rank 500 or the last eigenvalue above 0: below
    0 where the law does not go on. r2_100 is the same up to rank 100, that is over the fitted ranks by default.
    """

    slope: float
    level: float
    rank_from: int
    rank_to: int
    r2: float
    r2_100: float

    def log_value(self, ranks: np.ndarray) -> np.ndarray:
        """log λ that the law says at these ranks."""
        return self.level - self.slope * np.log(ranks)

    def derivative(self, eigenvalues: Values) -> Values:
        """∂slope/∂λ, 0 outside the fitted ranks."""
        found, chosen = np.zeros(len(eigenvalues)), slice(self.rank_from - 1, self.rank_to)
        found[chosen] = _slope_weights(self.rank_from, self.rank_to) / eigenvalues[chosen]
        return found


def alpha_req(eigenvalues: Values, rank_from: int = RANK_FROM, rank_to: int = RANK_TO) -> PowerLaw | None:
    """The power law of eigenvalues in falling order; None where fewer than 10 of the ranks are above 0.

    `rank_to` of the answer is the last rank that entered. Ranks count from 1 and both ends enter; published code that
    counts from 0 and steps on by one fits its first rank one later. ValueError unless 1 ≤ rank_from < rank_to.
    """
    if not 1 <= rank_from < rank_to:
        raise ValueError(f"ranks must be 1 <= rank_from < rank_to, got {rank_from} and {rank_to}.")
    positive = int((eigenvalues > 0).sum())
    last = min(rank_to, positive)
    if last - rank_from + 1 < FEWEST_RANKS:
        return None
    logs, ranks = np.log(eigenvalues[:positive]), np.arange(1, positive + 1)
    fitted = slice(rank_from - 1, last)
    slope = float(_slope_weights(rank_from, last) @ logs[fitted])
    level = float(np.average(logs[fitted] + slope * np.log(ranks[fitted]), weights=1 / ranks[fitted]))

    def determination(to: int) -> float:
        found, law = logs[rank_from - 1 : to], (level - slope * np.log(ranks))[rank_from - 1 : to]
        spread = float(((found - found.mean()) ** 2).sum())
        return 1 - float(((found - law) ** 2).sum()) / spread if spread > 0 else 1.0

    return PowerLaw(slope, level, rank_from, last, determination(FARTHEST_RANK), determination(max(100, last)))


def outlier_directions(eigenvalues: Values, law: PowerLaw) -> int:
    """How many leading directions stand out of the bulk.

    Ranks 1, 2, … without a gap and before the law's first rank, whose eigenvalue is more than 5 times what the power
    law of the bulk says there.
    """
    ranks = np.arange(1, min(law.rank_from, len(eigenvalues) + 1))
    above = np.log(eigenvalues[: len(ranks)]) > np.log(OUTLIER) + law.log_value(ranks)
    return int(np.logical_and.accumulate(above).sum())


@dataclass(frozen=True)
class Measure:
    """A number of a spectrum in its unit, its derivative by the eigenvalues, and its ceiling for a rank.

    `uncentred`: the eigenvalues are those of Σ zzᵀ/n, the squares of the singular values up to n.
    """

    quantity: str
    unit: str
    label: str
    value: Callable[[Values], float]
    derivative: Callable[[Values], Values]
    ceiling: Callable[[int], float]
    uncentred: bool = False


def _shares(values: Values) -> Values:
    return values / values.sum()


def _entropy_derivative(values: Values) -> Values:
    """∂H(p)/∂λ_i = −(log p_i + H)/Σλ with p = λ/Σλ; 0 where λ_i is 0."""
    p, found = _shares(values), np.zeros(len(values))
    found[p > 0] = -(np.log(p[p > 0]) + matrix_entropy(p, 1.0)) / values.sum()
    return found


def _rankme_derivative(squares: Values) -> Values:
    """∂rankme/∂σ² = rankme · ∂H/∂σ / 2σ; 0 where σ is 0."""
    singular, found = np.sqrt(squares), np.zeros(len(squares))
    above = singular > 0
    found[above] = rankme(singular) * _entropy_derivative(singular)[above] / (2 * singular[above])
    return found


def _order_2_derivative(values: Values) -> Values:
    """∂(−log Σp²)/∂λ_i = 2(1 − p_i/Σp²)/Σλ."""
    p = _shares(values)
    return 2 * (1 - p / (p**2).sum()) / values.sum()


def _top_derivative(values: Values) -> Values:
    return ((np.arange(len(values)) < TOP) - top_share(values)) / values.sum()


def _slope_weights(rank_from: int, rank_to: int) -> np.ndarray:
    """c with slope = Σ c_i log λ_i over the fitted ranks."""
    ranks = np.arange(rank_from, rank_to + 1)
    x, weights = np.log(ranks), 1 / ranks
    centred = x - np.average(x, weights=weights)
    return -weights * centred / (weights * centred**2).sum()


MEASURES = (
    Measure(
        "rankme",
        "count",
        "",
        lambda squares: rankme(np.sqrt(squares)),
        _rankme_derivative,
        float,
        uncentred=True,
    ),
    Measure(
        "rankme_covariance",
        "count",
        "",
        rankme_covariance,
        lambda values: rankme_covariance(values) * _entropy_derivative(values),
        float,
    ),
    Measure(
        "matrix_entropy",
        "bits",
        "order 1",
        lambda values: bits(spectral_entropy(values, 1.0)),
        lambda values: bits(1.0) * _entropy_derivative(values),
        lambda rank: float(np.log2(rank)),
    ),
    Measure(
        "matrix_entropy",
        "bits",
        "order 2",
        lambda values: bits(spectral_entropy(values, 2.0)),
        lambda values: bits(1.0) * _order_2_derivative(values),
        lambda rank: float(np.log2(rank)),
    ),
    Measure(
        "participation_ratio",
        "count",
        "",
        participation_ratio,
        lambda values: participation_ratio(values) * _order_2_derivative(values),
        float,
    ),
    Measure("top_share", "ratio", "", top_share, _top_derivative, lambda rank: 1.0),
)
