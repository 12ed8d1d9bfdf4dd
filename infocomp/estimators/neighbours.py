"""Mutual information from nearest neighbours, on a sample of rows reduced to a few principal components.

Ross (2014), PLoS ONE 9(2) e87357, eq. 2, for a discrete label and a continuous row:
I = ψ(N) + ψ(k) − ⟨ψ(N_x)⟩ − ⟨ψ(m)⟩, with N_x the rows of the row's label and m the other rows no farther than its k-th
neighbour of the same label. Kraskov, Stögbauer & Grassberger (2004), Phys. Rev. E 69 066138, eq. 8
("algorithm 1"), for two continuous rows: I = ψ(k) + ψ(N) − ⟨ψ(n_x + 1) + ψ(n_z + 1)⟩ with n_x, n_z the rows strictly
nearer in one space than the k-th neighbour is in the joint space under the larger of both maximum norms.

Both assume densities that are flat over k neighbours, need about exp(I) rows (Gao et al. 2015) and are biased towards
0 in many dimensions; a row that occurs several times is told apart by seeded noise of 1e-10 of the largest spread.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from scipy.special import digamma
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal, jackknife
from infocomp.estimators.reservoir import Integers, Reservoir, reduced, turned_rows
from infocomp.estimators.sampled import Finding, SampledEstimator, label_entropy
from infocomp.units import bits

NOISE = 1e-10
NEARER = 1 - 1e-12  # of a distance: more than what squares and roots round away


class RossInformation(SampledEstimator):
    """Information between a row and the labels with more than k rows in the sample; rows of rarer labels are left out.

    `n` counts the rows that entered; the message says which share of the labelled rows they are.
    """

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        k: int = 3,
        size: int = 4096,
        components: int | None = 8,
        groups: int = 8,
        reservoir: Reservoir | None = None,
    ) -> None:
        super().__init__(dim, seed, size, groups, reservoir)
        self.k, self.components = _checked(k), components

    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows components"]:
        return with_noise(reduced(rows, self.components), self.seed)

    def _information(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> Finding:
        _, label, counts = np.unique(ids, return_inverse=True, return_counts=True)
        frequent = counts[label] > self.k
        if (counts > self.k).sum() < 2:
            raise Refusal(
                f"{(counts > self.k).sum()} of {len(counts)} labels have more than k = {self.k} rows in the sample: "
                "two are needed, so take a larger size or a smaller k"
            )
        rows, label = prepared[frequent], label[frequent]
        return Finding(
            value=ross(rows, label, self.k),
            ceiling=label_entropy(label),
            n=len(rows),
            message=f"labels with more than {self.k} rows: {frequent.mean():.1%} of the rows",
        )


class KsgInformation:
    """Information between two streams of rows of the same tokens: two sites, or two checkpoints, of one width each.

    >>> import torch
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(4000, 1, generator=g)
    >>> z = 0.75 * x + (1 - 0.75**2) ** 0.5 * torch.randn(4000, 1, generator=g)
    >>> pair = KsgInformation(dim=1)
    >>> pair.update(x, z)
    >>> round(pair.estimate()[0].value, 1)  # 0.596 bits in truth
    0.6
    """

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        other_dim: int | None = None,
        k: int = 3,
        size: int = 4096,
        components: int | None = 8,
        groups: int = 8,
    ) -> None:
        """`other_dim` is the width of the second stream (the same by default)."""
        self.dim, self.other_dim = dim, dim if other_dim is None else other_dim
        self.seed, self.k, self.components, self.groups = seed, _checked(k), components, groups
        self.reservoir = Reservoir(self.dim + self.other_dim, size, seed)

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        others: Float[Tensor, "rows other_dim"],
        documents: Integers | None = None,
        keys: Integers | None = None,
    ) -> None:
        """Add pairs of rows; see `Reservoir.update` for documents, keys and errors."""
        self.reservoir.update(side_by_side(rows, others, self.dim, self.other_dim), None, documents, keys)

    def merge(self, other: "KsgInformation") -> None:
        """Add the pairs of another state of the same widths, size and seed (else ValueError)."""
        if (self.dim, self.other_dim) != (other.dim, other.other_dim):
            raise ValueError(f"widths differ: {self.dim, self.other_dim} and {other.dim, other.other_dim}.")
        self.reservoir.merge(other.reservoir)

    def estimate(self) -> list[Estimate]:
        """One estimate, quantity "information", in bits; null: pairs of rows of different documents."""
        sample = self.reservoir.take()
        n, documents = len(sample), sample.documents
        if n <= self.k:
            reason = f"{n} rows are fewer than k + 1 = {self.k + 1}: no row has k neighbours."
            return [Estimate("information", None, "bits", n, status="refused", message=reason)]
        first = with_noise(reduced(sample.rows[:, : self.dim], self.components), self.seed)
        second = with_noise(reduced(sample.rows[:, self.dim :], self.components), self.seed + 1)
        half, message = jackknife(lambda rows: ksg(first[rows], second[rows], self.k), documents, self.groups)
        whole = ksg(first, second, self.k)
        partner = turned_rows(documents)
        null = None
        if partner is not None and (partner >= 0).sum() > self.k:
            null = bits(ksg(first[partner[partner >= 0]], second[partner >= 0], self.k))
        interval = None if np.isnan(half) else (bits(whole - half), bits(whole + half))
        return [Estimate("information", bits(whole), "bits", n, interval=interval, null=null, message=message)]


def ross(rows: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, "rows"], k: int) -> float:
    """Ross's estimate in nats (Euclidean norm); every label must have more than k rows (else Refusal)."""
    counts = np.bincount(labels)
    if counts[counts > 0].min(initial=k + 1) <= k:
        raise Refusal(f"a label has {counts[counts > 0].min()} rows, more than k = {k} are needed")
    radius = np.empty(len(rows))
    order = np.argsort(labels, kind="stable")
    for segment in np.split(order, np.cumsum(counts)[:-1]):
        if len(segment):
            radius[segment] = KDTree(rows[segment]).query(rows[segment], k=k + 1)[0][:, k]
    # nearer than the k-th neighbour: that one is left out and the row itself counted, which is m
    near = KDTree(rows).query_ball_point(rows, radius * NEARER, return_length=True)
    mean_label = counts @ digamma(np.maximum(counts, 1)) / len(rows)
    return float(digamma(len(rows)) + digamma(k) - mean_label - digamma(near).mean())


def ksg(first: Float[np.ndarray, "rows dim"], second: Float[np.ndarray, "rows other_dim"], k: int) -> float:
    """Kraskov's first estimate in nats (maximum norm); needs more than k rows (else Refusal)."""
    n = len(first)
    if n <= k:
        raise Refusal(f"{n} rows are fewer than k + 1 = {k + 1}: no row has k neighbours")
    joint = np.hstack([first, second])
    radius = KDTree(joint).query(joint, k=k + 1, p=np.inf)[0][:, k]
    nearer = radius * NEARER
    counts = [KDTree(side).query_ball_point(side, nearer, p=np.inf, return_length=True) for side in (first, second)]
    # the row itself is counted, which is the + 1 of the equation
    return float(digamma(k) + digamma(n) - sum(digamma(count).mean() for count in counts))


def with_noise(rows: Float[np.ndarray, "rows dim"], seed: int) -> Float[np.ndarray, "rows dim"]:
    """Rows plus Gaussian noise of 1e-10 of their largest standard deviation: equal rows get distances above 0."""
    noise = np.random.default_rng(seed).standard_normal(rows.shape)
    return rows + NOISE * max(float(rows.std(axis=0).max()), np.finfo(np.float64).tiny) * noise


def side_by_side(rows: Tensor, others: Tensor, dim: int, other_dim: int) -> Tensor:
    """Two streams as one, checked. Raises ValueError for wrong widths and counts."""
    for given, width, name in ((rows, dim, "rows"), (others, other_dim, "others")):
        if given.ndim != 2 or given.shape[1] != width:
            raise ValueError(f"{name} must be [rows, {width}], got {tuple(given.shape)}.")
    if len(rows) != len(others):
        raise ValueError(f"others has {len(others)} rows, rows has {len(rows)}: one for each is needed.")
    return torch.cat([rows.float(), others.to(rows.device).float()], dim=1)


def _checked(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1 neighbour, got {k}.")
    return k
