"""How far a rotation, or any linear map, takes the rows of one model to those of another (ratios, no unit).

With S_x and S_y the centred scatters and C = Σ (x − x̄)(y − ȳ)ᵀ, and ‖·‖_* the sum of the singular values:

procrustes: 1 − ‖C‖_* / √(tr S_x · tr S_y), from 0 (equal up to rotation and scale) to 1. The best orthogonal map leaves
‖X − YQ‖² = 2 − 2·(1 − procrustes) of rows scaled to norm 1 (Schönemann 1966, Psychometrika 31(1); as a distance between
networks Ding, Denain & Steinhardt 2021, arXiv 2108.01661). Rows of unequal width are compared as if padded with zeros.
cca_mean: the mean of the min(rank x, rank y) canonical correlations, singular values of S_x^−½ C S_y^−½
(Hotelling 1936; Raghu et al. 2017, arXiv 1706.05806, section 2). Blind to every invertible linear map.
svcca_mean: the same on the leading principal components of each side that hold 99 % of its variance (the same source).

All come from moments alone, whatever the number of rows. Independent rows do not give 1, 0 and 0 in a sample: with n
rows and d directions a side the correlations are of the order √(d/n), and where n − 1 does not exceed the directions of
both sides together some are exactly 1 whatever the rows: CCA is refused there. `sampled_alignment` puts the value at
rows of other documents beside each, its null.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, Refusal
from infocomp.estimators.reservoir import turned_rows
from infocomp.geometry.cka import checked_rows, estimate_of
from infocomp.geometry.pair_moments import Rows

KEPT_VARIANCE = 0.99
Matrix = Float[np.ndarray, "dim_x dim_y"]
Influence = Float[np.ndarray, "rows"]
_ROUNDING = 1e-10  # of the largest eigenvalue: directions below it hold no variance


@dataclass(frozen=True)
class _Found:
    """A value, and what each row (x, y less their means) moves it by, to first order."""

    value: float
    of_rows: Callable[[np.ndarray, np.ndarray], Influence]
    message: str = ""


def alignment(scatter_x: Rows, scatter_y: Rows, cross: Rows, n: int, identical: bool = False) -> list[Estimate]:
    """Quantities "procrustes", "cca_mean" and "svcca_mean" of n rows, without intervals, in the unit "ratio".

    The scatters are centred sums of squares [dim, dim] and `cross` [dim_x, dim_y] is the centred sum of products of the
    same rows (`Scatter.centred`, `PairMoments.centred`). `identical`: both streams are equal bit for bit, which gives
    exactly 0, 1 and 1. What is undefined is refused with its reason. Raises ValueError for shapes that do not match.
    """
    moments = _checked(scatter_x, scatter_y, cross)
    found: list[Estimate] = []
    for quantity, measure, most in _MEASURES:
        try:
            one = measure(*moments, n)
        except Refusal as reason:
            found.append(Estimate(quantity, None, "ratio", n, status="refused", message=f"{reason}."))
            continue
        value = _EXACT[quantity] if identical else one.value
        found.append(Estimate(quantity, value, "ratio", n, ceiling=most, message=one.message))
    return found


def sampled_alignment(x: Rows, y: Rows, documents: Int[np.ndarray, "rows"] | None = None) -> list[Estimate]:
    """The same from rows [n, dim_x] and [n, dim_y], with the null at rows of other documents and 95 % intervals.

    The influence of a document is the sum over its rows of the exact first derivative: ⟨UVᵀ, xyᵀ⟩ of C = UΣVᵀ for a sum
    of singular values, u·v − ½ρ(u² + v²) for a correlation ρ of unit variates u and v (Romanazzi 1992, Psychometrika
    57(2)); for SVCCA the kept directions are held fixed. Raises ValueError for unequal, too few or non-finite rows.
    """
    first, second = (rows.numpy() - rows.mean(dim=0).numpy() for rows in checked_rows([x, y], documents))
    n, identical = len(first), first.shape == second.shape and np.array_equal(first, second)
    moments = (first.T @ first, second.T @ second, first.T @ second)
    partner = turned_rows(documents)
    turned = None
    if partner is not None and (partner >= 0).all():
        turned = (moments[0], moments[1], first.T @ second[partner])
    owner = None if documents is None else np.unique(documents, return_inverse=True)[1]
    few = owner is None or owner.max() + 1 < FEWEST_DOCUMENTS
    reasons = [] if not few else [f"no interval: fewer than {FEWEST_DOCUMENTS} documents were given"]
    reasons += [] if turned is not None else ["no null: rows of other documents cannot be paired"]
    found: list[Estimate] = []
    for quantity, measure, most in _MEASURES:
        try:
            one = measure(*moments, n)
            null = None if turned is None else measure(*turned, n).value
        except Refusal as reason:
            found.append(Estimate(quantity, None, "ratio", n, status="refused", message=f"{reason}."))
            continue
        influence = None
        if owner is not None and not few:
            by_row = one.of_rows(first, second) if not identical else np.zeros(n)
            influence = np.bincount(owner, by_row)
        value = _EXACT[quantity] if identical else one.value
        message = "; ".join(filter(None, [one.message, *reasons]))
        found.append(estimate_of(quantity, value, n, influence, null=null, ceiling=most, message=message))
    return found


def procrustes(scatter_x: Matrix, scatter_y: Matrix, cross: Matrix, n: int) -> _Found:
    """1 − ‖C‖_* / √(tr S_x · tr S_y). Raises Refusal where a side does not vary."""
    of_x, of_y = float(np.trace(scatter_x)), float(np.trace(scatter_y))
    if not of_x > 0 or not of_y > 0:
        raise Refusal("the rows of a side do not vary, so that the Procrustes distance is 0/0")
    left, values, right = _svd(cross)
    similarity = float(values.sum() / np.sqrt(of_x * of_y))

    def of_rows(x: np.ndarray, y: np.ndarray) -> Influence:
        nuclear = ((x @ left) * (y @ right.T)).sum(axis=1) / np.sqrt(of_x * of_y)
        return similarity / 2 * ((x**2).sum(axis=1) / of_x + (y**2).sum(axis=1) / of_y) - nuclear

    return _Found(1.0 - similarity, of_rows)


def cca_mean(scatter_x: Matrix, scatter_y: Matrix, cross: Matrix, n: int, kept: float = 1.0) -> _Found:
    """The mean canonical correlation of the principal components that hold `kept` of each side's variance.

    Raises Refusal where a side does not vary, and where n − 1 does not exceed the directions of both sides together.
    """
    white_x, white_y = _whitening(scatter_x, kept), _whitening(scatter_y, kept)
    directions = (white_x.shape[1], white_y.shape[1])
    if n - 1 <= sum(directions):
        raise Refusal(
            f"{n} rows for {directions[0]} and {directions[1]} directions make some canonical correlations exactly 1 "
            "whatever the rows: take more rows"
        )
    left, values, right = _svd(white_x.T @ cross @ white_y)
    values = np.minimum(values, 1.0)

    def of_rows(x: np.ndarray, y: np.ndarray) -> Influence:
        # variates whose squares sum to 1 over the rows
        u, v = x @ (white_x @ left), y @ (white_y @ right.T)
        return (u * v - values / 2 * (u**2 + v**2)).mean(axis=1)

    share = "" if kept == 1.0 else f" holding {kept:.0%} of the variance"
    return _Found(float(values.mean()), of_rows, f"{directions[0]} and {directions[1]} directions{share}")


def svcca_mean(scatter_x: Matrix, scatter_y: Matrix, cross: Matrix, n: int) -> _Found:
    """`cca_mean` of the directions that hold 99 % of the variance of each side."""
    return cca_mean(scatter_x, scatter_y, cross, n, KEPT_VARIANCE)


_MEASURES = (("procrustes", procrustes, 1.0), ("cca_mean", cca_mean, 1.0), ("svcca_mean", svcca_mean, 1.0))
_EXACT = {"procrustes": 0.0, "cca_mean": 1.0, "svcca_mean": 1.0}


def _whitening(scatter: Matrix, kept: float) -> Float[np.ndarray, "dim directions"]:
    """Leading eigenvectors over the roots of their eigenvalues: as few as hold `kept` of the trace."""
    values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    varied = int((values > _ROUNDING * values[0]).sum()) if values[0] > 0 else 0
    if not varied:
        raise Refusal("the rows of a side do not vary, so that they have no canonical correlations")
    shares = np.cumsum(values[:varied]) / values[:varied].sum()
    enough = varied if kept >= 1.0 else min(varied, int(np.searchsorted(shares, kept)) + 1)
    return vectors[:, :enough] / np.sqrt(values[:enough])


def _svd(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.linalg.svd(matrix, full_matrices=False)


def _checked(scatter_x: Rows, scatter_y: Rows, cross: Rows) -> tuple[Matrix, Matrix, Matrix]:
    of_x, of_y, of_both = (
        torch.as_tensor(matrix).detach().cpu().double().numpy() for matrix in (scatter_x, scatter_y, cross)
    )
    if of_both.ndim != 2 or of_x.shape != (len(of_both),) * 2 or of_y.shape != (of_both.shape[1],) * 2:
        raise ValueError(
            f"alignment needs scatters [dim, dim] of both sides and their cross moment [dim_x, dim_y], and got shapes "
            f"{of_x.shape}, {of_y.shape} and {of_both.shape}."
        )
    return of_x, of_y, of_both
