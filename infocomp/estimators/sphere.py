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

    `anchors` is [draws, bins, dim] and is normalised here; `centre` is subtracted from the rows first.
    Arithmetic is float32, or float64 for float64 rows, whatever the dtype of the model.
    """

    def __init__(
        self,
        anchors: Float[Tensor, "draws bins dim"],
        temperature: float,
        centre: Float[Tensor, "dim"] | None = None,
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
        self._cast: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None]] = {}

    def __call__(
        self, rows: Float[Tensor, "rows dim"]
    ) -> tuple[Float[Tensor, "rows draws bins"], Float[Tensor, "rows draws"]]:
        """Assignments A and their entropies H(A) in nats, one for each row and draw.

        Raises ValueError for rows of another width, and for NaN, infinite or zero rows (a zero has no direction).
        """
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"rows must be [rows, {self.dim}], got {tuple(rows.shape)}.")
        rows = rows.detach()
        if rows.dtype not in (torch.float32, torch.float64):
            rows = rows.float()
        anchors, centre = self._on(rows)
        if centre is not None:
            rows = rows - centre
        norms = rows.norm(dim=1, keepdim=True)
        self._refuse_directionless(norms)
        scores = torch.mm(rows, anchors).div_(norms).view(-1, self.draws, self.bins)
        assignments = torch.softmax(scores, dim=2)
        # H(A) = log Σ exp(s − max s) − E_A[s − max s], and the first term is −log max A: no second exponential, and
        # no large numbers that cancel.
        below_peak = scores.sub_(scores.amax(dim=2, keepdim=True)).mul_(assignments).sum(dim=2)
        entropies = assignments.amax(dim=2).log_().add_(below_peak).neg_()
        return assignments, entropies

    def _on(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        key = (rows.device, rows.dtype)
        if key not in self._cast:
            centre = None if self._centre is None else self._centre.to(rows.device, rows.dtype)
            self._cast[key] = (self._scaled.to(rows.device, rows.dtype), centre)
        return self._cast[key]

    @staticmethod
    def _refuse_directionless(norms: Float[Tensor, "rows 1"]) -> None:
        good = torch.isfinite(norms) & (norms > 0)
        if bool(good.all()):
            return
        first = int((~good).flatten().nonzero()[0])
        norm = float(norms[first])
        what = "is zero and has no direction" if norm == 0 else "holds NaN or infinity"
        raise ValueError(
            f"row {first} of {len(norms)} {what} (norm {norm}); "
            "leave such rows out, or find the layer or checkpoint that makes them."
        )
