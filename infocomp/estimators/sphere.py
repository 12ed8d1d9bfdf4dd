"""Soft quantisation of a direction: anchors on the unit sphere, the temperature of the softmax, the assignment itself.

A row z of activations is sent to a distribution over m bins, A_j = softmax_j(cos(z, w_j) / ε), with m anchors w_j
drawn uniformly on the sphere. J, the bin drawn from A, is "the soft-quantised direction" of z: every information in
this package is information about J, not about z. Entropies are in nats here.

Source: Conklin et al. (2026), arXiv 2604.07569, soft entropy; temperature after Conklin (2025), arXiv 2505.23960,
eq. 7: the ε at which a von Mises-Fisher distribution of concentration 1/ε is log m nats away from uniform.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

CANCELLED = 0.05  # |Pz|² below this share of |z|² loses over four bits as a difference, and is taken explicitly


def divergence_from_uniform(concentration: float, dim: int) -> float:
    """KL(vMF(κ) ‖ uniform on S^{d-1}) in nats, exact for any dimension d ≥ 2.

    With the all-positive terms tᵢ of ₀F₁(; d/2; κ²/4), KL = 2·E[i] − log Σ tᵢ under the weights tᵢ: the Bessel form
    κ·I_{d/2}(κ)/I_{d/2−1}(κ) − log ₀F₁ overflows from d ≈ 512 on, this one does not. Terms far from the largest,
    by more than 12 of its standard deviations, are below 1e-30 of it and are left out.
    """
    quarter = concentration**2 / 4
    if quarter == 0.0:
        return 0.0
    peak = (-dim / 2 + math.sqrt(dim**2 / 4 + concentration**2)) / 2
    reach = 12 * math.sqrt(peak + 1) + 60
    first, last = max(0, math.floor(peak - reach)), math.ceil(peak + reach)
    index = np.arange(first + 1, last + 1, dtype=np.float64)
    log_ratio = math.log(quarter) - np.log(index) - np.log(dim / 2 + index - 1)
    log_terms = np.concatenate([[0.0], np.cumsum(log_ratio)])
    largest = float(log_terms.max())
    weights = np.exp(log_terms - largest)
    total = float(weights.sum())
    steps = np.arange(first, last + 1, dtype=np.float64)
    # the terms above are relative to the first one kept; its own logarithm is added back
    log_first = _log_term(first, quarter, dim)
    return 2 * float((weights * steps).sum()) / total - (largest + math.log(total) + log_first)


def _log_term(index: int, quarter: float, dim: int) -> float:
    if index == 0:
        return 0.0
    steps = np.arange(1, index + 1, dtype=np.float64)
    return float(np.sum(math.log(quarter) - np.log(steps) - np.log(dim / 2 + steps - 1)))


@cache
def exact_temperature(dim: int, bins: int) -> float:
    """The ε = 1/κ with KL(vMF(κ) ‖ uniform) = log m, by Brent's method in log κ.

    Source: Conklin (2025), arXiv 2505.23960, eq. 7, solved exactly rather than at leading order.
    Raises ValueError for fewer than two dimensions or bins.
    """
    if dim < 2:
        raise ValueError(f"dim must be at least 2 (a direction needs a circle), got {dim}.")
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}.")
    target = math.log(bins)

    def excess(log_concentration: float) -> float:
        return divergence_from_uniform(math.exp(log_concentration), dim) - target

    leading_order = 0.5 * math.log(2 * dim * target)
    low, high = leading_order - 1.0, leading_order + 1.0
    while excess(low) > 0:
        low -= 1.0
    while excess(high) < 0:
        high += 1.0
    root = brentq(excess, low, high, xtol=1e-15, rtol=4 * np.finfo(np.float64).eps, maxiter=200)
    return math.exp(-float(root))  # type: ignore[arg-type]


def draw_anchors(dim: int, bins: int, draws: int, seed: int) -> Float[Tensor, "draws bins dim"]:
    """Anchors uniform on the unit sphere, float64, equal on every machine and device: drawn by NumPy on the CPU.

    Draw k depends on (seed, k) alone, so that more draws leave the first ones as they were.
    """
    planes = []
    for draw in range(draws):
        normal = np.random.default_rng([seed, draw]).standard_normal((bins, dim))
        planes.append(normal / np.linalg.norm(normal, axis=1, keepdims=True))
    return torch.from_numpy(np.stack(planes))


class SoftAssigner:
    """Rows of activations to soft assignments, all anchor draws in one matrix product.

    `anchors` is [draws, bins, dim] and is normalised here; `centre` is subtracted from the rows first, then what lies
    along `directions` (orthonormal columns) is taken off them. Arithmetic is float32, or float64 for float64 rows,
    whatever the dtype of the model.

    Rows need not be projected: cos(Pz, w) = z·Pw / |Pz| with P = 1 − VVᵀ, so the anchors are projected once, and
    |Pz|² = |z|² − |Vᵀz|². Anchors and temperature are those of the raw rows; Pw is not normalised again.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "draws bins dim"],
        temperature: float,
        centre: Float[Tensor, "dim"] | None = None,
        directions: Float[Tensor, "dim removed"] | None = None,
    ) -> None:
        if anchors.ndim != 3:
            raise ValueError(f"anchors must be [draws, bins, dim], got {anchors.ndim} axes: {tuple(anchors.shape)}.")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self.draws, self.bins, self.dim = anchors.shape
        self.temperature = temperature
        unit = anchors.double()
        unit = unit / unit.norm(dim=2, keepdim=True)
        self._scaled = (unit / temperature).reshape(self.draws * self.bins, self.dim).T.contiguous()
        self._centre = None if centre is None else centre.detach().double().cpu()
        self._directions = None if directions is None else _orthonormal(directions.detach().double().cpu(), self.dim)
        if self._directions is not None:
            along = self._directions.to(self._scaled.device)
            self._scaled = self._scaled - along @ (along.T @ self._scaled)
        self._cast: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None, Tensor | None]] = {}

    def __call__(
        self, rows: Float[Tensor, "rows dim"]
    ) -> tuple[Float[Tensor, "rows draws bins"], Float[Tensor, "rows draws"]]:
        """Assignments A and their entropies H(A) in nats, one for each row and draw.

        Raises ValueError for rows of another width, and for NaN, infinite or zero rows (a zero has no direction, nor
        has a row that lies within the removed directions).
        """
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"rows must be [rows, {self.dim}], got {tuple(rows.shape)}.")
        rows = rows.detach()
        if rows.dtype not in (torch.float32, torch.float64):
            rows = rows.float()
        anchors, centre, directions = self._on(rows)
        if centre is not None:
            rows = rows - centre
        norms = rows.norm(dim=1, keepdim=True)
        if directions is not None:
            self._refuse_directionless(norms)
            rows, norms = _without(rows, norms, directions)
        self._refuse_directionless(norms, directions is not None)
        scores = torch.mm(rows, anchors).div_(norms).view(-1, self.draws, self.bins)
        assignments = torch.softmax(scores, dim=2)
        # H(A) = log Σ exp(s − max s) − E_A[s − max s], and the first term is −log max A: no second exponential, and
        # no large numbers that cancel.
        below_peak = scores.sub_(scores.amax(dim=2, keepdim=True)).mul_(assignments).sum(dim=2)
        entropies = assignments.amax(dim=2).log_().add_(below_peak).neg_()
        return assignments, entropies

    def _on(self, rows: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        key = (rows.device, rows.dtype)
        if key not in self._cast:
            centre = None if self._centre is None else self._centre.to(rows.device, rows.dtype)
            directions = None if self._directions is None else self._directions.to(rows.device, rows.dtype)
            self._cast[key] = (self._scaled.to(rows.device, rows.dtype), centre, directions)
        return self._cast[key]

    @staticmethod
    def _refuse_directionless(norms: Float[Tensor, "rows 1"], removed: bool = False) -> None:
        good = torch.isfinite(norms) & (norms > 0)
        if bool(good.all()):
            return
        first = int((~good).flatten().nonzero()[0])
        norm = float(norms[first])
        what = "is zero and has no direction" if norm == 0 else "holds NaN or infinity"
        what = "lies within the removed directions and has none of its own" if removed and norm == 0 else what
        raise ValueError(
            f"row {first} of {len(norms)} {what} (norm {norm}); "
            "leave such rows out, or find the layer or checkpoint that makes them."
        )


def _orthonormal(directions: Float[Tensor, "dim removed"], dim: int) -> Float[Tensor, "dim removed"]:
    """The directions, checked and made orthonormal to the last bit of float64."""
    if directions.ndim != 2 or directions.shape[0] != dim or not 1 <= directions.shape[1] <= dim - 2:
        raise ValueError(
            f"directions must be [{dim}, k] with k from 1 to {dim - 2} (a direction needs a circle that is left), "
            f"got {list(directions.shape)}."
        )
    gram = directions.T @ directions
    off = float((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max())
    if not off <= 1e-5:
        raise ValueError(
            f"directions must be orthonormal columns, and VᵀV is off the identity by {off:.2g}; "
            "take the eigenvectors of a covariance, or torch.linalg.qr(directions).Q."
        )
    return torch.linalg.qr(directions).Q


def _without(
    rows: Float[Tensor, "rows dim"], norms: Float[Tensor, "rows 1"], directions: Float[Tensor, "dim removed"]
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows 1"]]:
    """Rows to multiply by projected anchors, and the norm |Pz| of each, from |z| and Vᵀz.

    Where most of z is removed the difference cancels: those rows alone are projected. One of which nothing but rounding
    is left gets norm 0.
    """
    along = rows @ directions
    squares = norms.square()
    rest = squares - along.square().sum(dim=1, keepdim=True)
    left = rest.clamp(min=0).sqrt()
    cancelled = (rest < CANCELLED * squares).flatten().nonzero().flatten()
    if len(cancelled):
        projected = torch.addmm(rows[cancelled], along[cancelled], directions.T, alpha=-1)
        explicit = projected.norm(dim=1, keepdim=True)
        rounding = 8 * torch.finfo(rows.dtype).eps * norms[cancelled]
        left[cancelled] = explicit.where(explicit > rounding, torch.zeros_like(explicit))
        rows = rows.index_copy(0, cancelled, projected)
    return rows, left
