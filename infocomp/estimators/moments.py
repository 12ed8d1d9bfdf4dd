"""Mean and outlier directions of rows, streaming and mergeable: what the pilot of a study leaves behind.

An outlier direction is one of the top eigenvectors of the covariance of the rows. A few of them often hold most of the
variance of a transformer's activations, and one of them that grows makes all rows point the same way, so that every
information about the direction of a row falls although none is lost.

State is count, mean and scatter S = Σ (z − mean)(z − mean)ᵀ in float64, each batch centred before it is squared (Chan,
Golub and LeVeque 1983, pairwise update). Up to `EXACT_DIM` dimensions S is kept whole and its top eigenvectors are
exact (8·d² bytes, 2·d² operations a row: 32 MiB and half a second of eigenvectors at d = 2,048). Beyond, only SΩ with
a seeded orthonormal Ω of `SKETCH` columns is kept (4 MiB at d = 8,192), which obeys the same update, and eigenvectors
come from the Nyström approximation S ≈ SΩ(ΩᵀSΩ)⁺ΩᵀS (Tropp et al. 2017, arXiv 1609.00048, algorithm 3 without
truncation): good where the top eigenvalues stand out from the bulk. At d = 1,024 three directions of 100 times the
bulk's variance are found to 1e-4 of their variance, spectra that fall as 1/i to 0.4 %, three of 10 times a flat bulk
only to 16 %.
"""

from functools import cache
from typing import Self

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

EXACT_DIM = 2048
SKETCH = 64


class RowMoments:
    """Count, mean and scatter (or its sketch) of rows; `merge` of any split gives the same to rounding."""

    def __init__(self, dim: int, with_scatter: bool = True, exact_dim: int = EXACT_DIM) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.test: Tensor | None = None if dim <= exact_dim or not with_scatter else _test_matrix(dim)
        width = 0 if not with_scatter else dim if self.test is None else self.test.shape[1]
        self.scatter = torch.zeros(dim, width, dtype=torch.float64)

    def update(self, rows: Float[Tensor, "rows dim"]) -> None:
        """Add rows. Arithmetic is float64, on the rows' own device where it has that; the state stays on the CPU."""
        if not len(rows):
            return
        rows = rows.detach()
        rows = rows.cpu().double() if rows.device.type == "mps" else rows.double()
        mean = rows.mean(dim=0)
        scatter = self.scatter[:, :0]
        if self.scatter.shape[1]:
            centred = rows - mean
            scatter = centred.T @ (centred if self.test is None else centred @ self.test.to(rows.device))
        self._add(len(rows), mean.cpu(), scatter.cpu())

    def merge(self, other: Self) -> None:
        """Add the rows of another state of the same width and kind (else ValueError)."""
        if self.scatter.shape != other.scatter.shape or (self.test is None) != (other.test is None):
            raise ValueError(
                f"moments of shapes {tuple(self.scatter.shape)} and {tuple(other.scatter.shape)} cannot be merged: "
                "both must have the same width and both keep the scatter or a sketch of it."
            )
        self._add(other.count, other.mean, other.scatter)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not count:
            return
        total = self.count + count
        shift = mean - self.mean
        if self.scatter.shape[1]:
            across = shift if self.test is None else shift @ self.test
            self.scatter += scatter
            self.scatter.addr_(shift, across, alpha=self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def directions(self, k: int) -> Float[Tensor, "dim k"]:
        """The k directions of largest variance, orthonormal columns, largest first.

        Raises ValueError where rows vary along fewer than k directions, fewer than two dimensions would be left, or a
        row held NaN or infinity.
        """
        dim = len(self.mean)
        most = dim - 2 if self.test is None else min(dim - 2, SKETCH // 2)
        if not 1 <= k <= most:
            raise ValueError(f"outlier_directions must lie between 1 and {most} for rows of width {dim}, got {k}.")
        if not bool(torch.isfinite(self.scatter).all()):
            raise ValueError("the pilot rows hold NaN or infinity; find the layer or checkpoint that makes them.")
        values, vectors = self._exact(k) if self.test is None else self._nystrom(k)
        floor = dim * np.finfo(np.float64).eps * max(values[0], 0.0)
        varied = int((values > floor).sum())
        if varied < k:
            raise ValueError(
                f"the {self.count} pilot rows vary along {varied} directions only, outlier_directions is {k}: "
                "raise pilot_tokens or take fewer directions."
            )
        return torch.from_numpy(vectors.copy())

    def _exact(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        dim = len(self.mean)
        symmetric = ((self.scatter + self.scatter.T) / 2).numpy()
        values, vectors = scipy.linalg.eigh(symmetric, subset_by_index=[dim - k, dim - 1])
        return values[::-1], vectors[:, ::-1]

    def _nystrom(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.test is not None
        core = (self.test.T @ self.scatter).numpy()
        values, turns = np.linalg.eigh((core + core.T) / 2)
        kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
        if not kept.any():
            return np.zeros(k), np.zeros((len(self.mean), k))
        half = self.scatter.numpy() @ (turns[:, kept] / np.sqrt(values[kept]))  # S ≈ half · halfᵀ
        left, singular, _ = np.linalg.svd(half, full_matrices=False)
        return singular[:k] ** 2, left[:, :k]


@cache
def _test_matrix(dim: int) -> Float[Tensor, "dim sketch"]:
    """The same orthonormal columns on every machine: states that merge must have met the same ones."""
    normal = np.random.default_rng([dim, SKETCH]).standard_normal((dim, min(dim, SKETCH)))
    return torch.from_numpy(np.linalg.qr(normal)[0])
