"""Matrix-based Rényi entropy and information of a Gram matrix: no density, no bins, another quantity than Shannon's.

Sánchez Giraldo, Rao & Príncipe (2015), IEEE Trans. Inf. Theory 61(1), definitions 2 and 3: with A a positive
semi-definite matrix of trace 1 (a kernel's Gram matrix over N) and eigenvalues λ,
S_α(A) = log(Σ λ^α) / (1 − α), at α = 1 the von Neumann entropy −Σ λ log λ, and
I_α(A; B) = S_α(A) + S_α(B) − S_α(A∘B / tr(A∘B)), with ∘ the entrywise product.

Rows have a Gaussian kernel exp(−‖z − z′‖² / 2σ²) with σ = `bandwidth` × the median distance of the sample, labels the
kernel 1[x = x′]. Similarities are used as they are: code published with Skean et al. (2025) clamps a Gram matrix at 0,
which breaks positive semi-definiteness. Values depend on σ and N and are compared only at equal N.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigvalsh

from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.reservoir import Reservoir, reduced
from infocomp.estimators.sampled import Finding, SampledEstimator


class RenyiInformation(SampledEstimator):
    """Matrix-based information of order α between labels and rows; eigenvalues of N × N, so a small sample.

    The jackknife's intervals are wide: se about 1.8 times the spread over corpora in a trial with dependent rows.
    """

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        alpha: float = 1.0,
        bandwidth: float = 0.5,
        size: int = 1024,
        components: int | None = None,
        groups: int = 8,
        reservoir: Reservoir | None = None,
    ) -> None:
        super().__init__(dim, seed, size, groups, reservoir)
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}.")
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0, got {bandwidth}.")
        self.alpha, self.bandwidth, self.components = alpha, bandwidth, components
        self._sigma = 0.0

    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows components"]:
        """Rows over the kernel's σ, fixed by the whole sample so that no label set or document moves it."""
        found = reduced(rows, self.components)
        distances = squared_distances(found)[np.triu_indices(len(found), 1)]
        typical = float(np.median(distances)) or float(distances.mean())
        self._sigma = self.bandwidth * np.sqrt(typical)
        return found / (self._sigma or 1.0)

    def _information(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> Finding:
        if self._sigma == 0.0:
            raise Refusal("all sampled rows are equal: the kernel has no scale")
        gram = gaussian_gram(prepared)
        n = len(ids)
        whole = matrix_entropy(np.maximum(eigvalsh(gram), 0.0) / n, self.alpha)
        _, label, counts = np.unique(ids, return_inverse=True, return_counts=True)
        of_label = matrix_entropy(counts / n, self.alpha)
        order = np.argsort(label, kind="stable")
        blocks = np.split(order, np.cumsum(counts)[:-1])
        # A∘B has one block a label; both have ones on the diagonal, so that its trace over n is 1
        single = np.ones(int((counts == 1).sum()))
        values = [np.maximum(eigvalsh(gram[np.ix_(block, block)]), 0.0) for block in blocks if len(block) > 1]
        joint = matrix_entropy(np.concatenate([single, *values]) / n, self.alpha)
        return Finding(
            value=whole + of_label - joint,
            ceiling=min(whole, of_label),
            n=n,
            message=f"matrix-based Rényi, alpha {self.alpha:g}, sigma {self._sigma:.4g} ({self.bandwidth:g} of the "
            "median distance)",
        )


def matrix_entropy(eigenvalues: Float[np.ndarray, "rows"], alpha: float) -> float:
    """S_α in nats of eigenvalues that sum to 1; eigenvalues of 0 add nothing."""
    positive = eigenvalues[eigenvalues > 0]
    if alpha == 1.0:
        return float(-(positive * np.log(positive)).sum())
    return float(np.log((positive**alpha).sum()) / (1 - alpha))


def matrix_information(
    one: Float[np.ndarray, "rows rows"], other: Float[np.ndarray, "rows rows"], alpha: float = 1.0
) -> float:
    """I_α in nats of two Gram matrices, positive semi-definite with a positive diagonal, of any scale.

    Eigenvalues below 0 by rounding count as 0; entries may be negative. Raises ValueError for matrices of unequal
    shape, and for one that is not positive semi-definite beyond rounding.
    """
    if one.shape != other.shape or one.ndim != 2 or one.shape[0] != one.shape[1]:
        raise ValueError(f"two square matrices of one size are needed, got {one.shape} and {other.shape}.")
    entropies = []
    for matrix in (one, other, one * other):
        values = eigvalsh(matrix / np.trace(matrix))
        if values[0] < -1e-8:
            raise ValueError(f"a Gram matrix has the eigenvalue {values[0]:.3g} of its trace; none may be negative.")
        entropies.append(matrix_entropy(np.maximum(values, 0.0), alpha))
    return entropies[0] + entropies[1] - entropies[2]


def squared_distances(rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows rows"]:
    """‖z − z′‖² of all pairs, of centred rows in float64; below 0 by rounding counts as 0."""
    rows = rows - rows.mean(axis=0)
    norms = (rows**2).sum(axis=1)
    found = np.maximum(norms[:, None] + norms[None, :] - 2 * rows @ rows.T, 0.0)
    np.fill_diagonal(found, 0.0)
    return found


def gaussian_gram(rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows rows"]:
    """exp(−‖z − z′‖² / 2) of rows given in units of σ."""
    return np.exp(-0.5 * squared_distances(rows))


def delta_gram(labels: Int[np.ndarray, "rows"]) -> Float[np.ndarray, "rows rows"]:
    """1 where two labels are equal, else 0."""
    return (labels[:, None] == labels[None, :]).astype(np.float64)
