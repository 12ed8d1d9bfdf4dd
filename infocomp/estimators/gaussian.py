"""Information of Gaussian variables with the covariances that the rows have: two log-determinants.

With labels: I_G = ½ log(|T| / |W|), T the total and W the within-label scatter, equal to −½ Σ log(1 − ρ²) over the
canonical correlations between row and label (those of linear discriminant analysis). If every label's rows are
Gaussian with one covariance, h(Z | X) is exact and h(Z) at its maximum, so that I_G ≥ I(X; Z): an upper end, which may
exceed H(X). For two continuous rows: ½ log(|S_x| |S_z| / |S_xz|), exact for jointly Gaussian rows.

Finite samples add bias whatever the truth: for a Wishart matrix of ν degrees of freedom in d dimensions
E log|S| = log|Σ| + d log 2 + Σᵢ ψ((ν − i + 1) / 2), i = 1 … d (Anderson 2003, section 7.5); the differences of these
sums are `null_rows`, and the value without them is given beside the plug-in (quantity with "_corrected").
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import digamma
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal, jackknife
from infocomp.estimators.neighbours import side_by_side
from infocomp.estimators.reservoir import Integers, Reservoir, one_per_row, reduced
from infocomp.estimators.sampled import Finding, SampledEstimator, label_entropy
from infocomp.units import bits


@dataclass(frozen=True)
class Scatter:
    """Count, mean and centred scatter Σ (z − mean)(z − mean)ᵀ in float64, mergeable.

    Source: Chan, Golub & LeVeque (1983), The American Statistician 37(3), eq. 2.1: no square is taken before centring.
    """

    count: int
    mean: Float[np.ndarray, "dim"]
    scatter: Float[np.ndarray, "dim dim"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "rows dim"]) -> "Scatter":
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
        return cls(len(rows), mean, (rows - mean).T @ (rows - mean))

    def merged(self, other: "Scatter") -> "Scatter":
        """The scatter of both sets of rows."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Scatter(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)


class GaussianInformation(SampledEstimator):
    """½ log |T| / |W| on the first principal components of a sample of rows."""

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        size: int = 65_536,
        components: int | None = 16,
        groups: int = 16,
        reservoir: Reservoir | None = None,
    ) -> None:
        super().__init__(dim, seed, size, groups, reservoir)
        self.components = components

    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows components"]:
        return reduced(rows, self.components)

    def _information(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> Finding:
        n, dim = prepared.shape
        _, label, counts = np.unique(ids, return_inverse=True, return_counts=True)
        total, within = Scatter.of(prepared).scatter, within_scatter(prepared, label, counts)
        if n - len(counts) < dim:
            raise Refusal(
                f"{n} rows of {len(counts)} labels leave {n - len(counts)} degrees of freedom for {dim} dimensions: "
                "take fewer components or a larger size"
            )
        value = 0.5 * (log_determinant(total, total) - log_determinant(within, total))
        bias = 0.5 * (wishart(n - 1, dim) - wishart(n - len(counts), dim))
        return Finding(
            value=value,
            ceiling=label_entropy(ids),
            n=n,
            message=f"Gaussian on {dim} dimensions: an upper end where labels share one Gaussian shape",
            more={"_corrected": value - bias},
        )

    def _row_null(self, prepared: np.ndarray, ids: np.ndarray) -> float:
        n, labels = len(ids), len(np.unique(ids))
        return 0.5 * (wishart(n - 1, prepared.shape[1]) - wishart(n - labels, prepared.shape[1]))


class GaussianPairInformation:
    """Gaussian information of two streams of rows, from one mergeable scatter a group of documents: all rows count.

    Documents go to groups by their number, for the interval; without documents there is one group and none.
    """

    def __init__(self, dim: int, seed: int = 0, other_dim: int | None = None, groups: int = 16) -> None:
        """`seed` is there for the uniform signature: nothing is drawn."""
        self.dim, self.other_dim, self.seed = dim, dim if other_dim is None else other_dim, seed
        self.groups = groups
        self._parts: dict[int, Scatter] = {}
        self._with_documents = False

    @property
    def n(self) -> int:
        return sum(part.count for part in self._parts.values())

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        others: Float[Tensor, "rows other_dim"],
        documents: Integers | None = None,
    ) -> None:
        """Add pairs of rows. Raises ValueError for wrong shapes and rows that are not finite."""
        both = side_by_side(rows, others, self.dim, self.other_dim).cpu().double().numpy()
        if not np.isfinite(both).all():
            raise ValueError("rows are not finite; find where the model overflows.")
        if self._parts and (documents is None) == self._with_documents:
            raise ValueError("documents must be given in every update or in none.")
        self._with_documents = documents is not None
        group = np.zeros(len(both), dtype=np.int64)
        if documents is not None:
            numbers = one_per_row(documents, len(both), "documents")
            group = numbers % self.groups
        for one in np.unique(group).tolist():
            self._add(one, Scatter.of(both[group == one]))

    def merge(self, other: "GaussianPairInformation") -> None:
        """Add the pairs of another state of the same widths and groups (else ValueError)."""
        mine, its = (self.dim, self.other_dim, self.groups), (other.dim, other.other_dim, other.groups)
        if mine != its:
            raise ValueError(f"states differ in (dim, other_dim, groups): {mine} and {its}; make both with the same.")
        if self._parts and other._parts and self._with_documents != other._with_documents:
            raise ValueError("one state has documents and the other has none; give documents to both.")
        self._with_documents |= other._with_documents
        for one, part in other._parts.items():
            self._add(one, part)

    def estimate(self) -> list[Estimate]:
        """Quantities "information" and "information_corrected" in bits; `null_rows` is the bias of independent rows."""
        if not self._parts:
            raise ValueError("nothing to estimate: update was never called with rows.")
        names, width = sorted(self._parts), self.dim + self.other_dim
        try:
            value = self._value(names)
        except Refusal as reason:
            return [Estimate("information", None, "bits", self.n, status="refused", message=f"{reason}.")]
        degrees = self.n - 1
        bias = 0.5 * (wishart(degrees, self.dim) + wishart(degrees, self.other_dim) - wishart(degrees, width))
        half, message = float("nan"), "no interval: no documents were given"
        if self._with_documents:
            # one entry a group: `jackknife` leaves out one scatter after the other
            left = np.array(names)
            half, message = jackknife(lambda kept: self._value([names[one] for one in kept]), left, len(names))
        estimates = []
        for name, nats in (("information", value), ("information_corrected", value - bias)):
            interval = None if np.isnan(half) else (bits(nats - half), bits(nats + half))
            null = bits(bias) if name == "information" else None
            estimates.append(Estimate(name, bits(nats), "bits", self.n, interval, null_rows=null, message=message))
        return estimates

    def _value(self, names: list[int]) -> float:
        """Plug-in in nats of the groups named."""
        whole = self._parts[names[0]]
        for name in names[1:]:
            whole = whole.merged(self._parts[name])
        width = self.dim + self.other_dim
        if whole.count <= width:
            raise Refusal(f"{whole.count} rows are too few for {width} dimensions: one more at least is needed")
        one, other = slice(0, self.dim), slice(self.dim, width)
        blocks = (whole.scatter[one, one], whole.scatter[other, other])
        apart = sum(log_determinant(block, block) for block in blocks)
        return 0.5 * (apart - log_determinant(whole.scatter, whole.scatter))

    def _add(self, name: int, part: Scatter) -> None:
        self._parts[name] = self._parts[name].merged(part) if name in self._parts else part


def within_scatter(
    rows: Float[np.ndarray, "rows dim"], labels: Int[np.ndarray, "rows"], counts: Int[np.ndarray, "labels"]
) -> Float[np.ndarray, "dim dim"]:
    """Σ over rows of (z − mean of its label)(…)ᵀ, labels dense from 0."""
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(rows[np.argsort(labels, kind="stable")], starts, axis=0)
    rest = rows - (sums / counts[:, None])[labels]
    return rest.T @ rest


def log_determinant(matrix: Float[np.ndarray, "dim dim"], total: Float[np.ndarray, "dim dim"]) -> float:
    """log |matrix|; Refusal where it is singular beside the scale of `total`, for the information is then infinite."""
    scale = np.sqrt(np.diag(total))
    if (scale == 0).any():
        raise Refusal("a dimension is constant: leave it out or take fewer components")
    values = np.linalg.eigvalsh(matrix / np.outer(scale, scale))
    if values[0] <= len(values) * np.finfo(np.float64).eps * 100:
        raise Refusal(
            "a scatter is singular: rows are an exact function of labels or of each other, information infinite"
        )
    return float(np.log(values).sum() + 2 * np.log(scale).sum())


def wishart(degrees: int, dim: int) -> float:
    """E log|S| − log|Σ| in nats of a Wishart matrix S with that many degrees of freedom, at least `dim`."""
    return float(dim * np.log(2) + digamma((degrees - np.arange(dim)) / 2).sum())
