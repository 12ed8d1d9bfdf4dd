"""What two or more views of one document share: InfoNCE and DiME in bits, LiDAR as a count of dimensions.

A view is the mean of the rows of one part of a document (its halves, say), at one layer or at two. All three are
optional and cost no further forward pass.

InfoNCE: van den Oord, Li & Vinyals (2018), arXiv 1807.03748, eq. 4, with the cosine over a temperature as critic and
the other documents' views as negatives: loss = ⟨log Σ_j exp s_ij − s_ii⟩, both directions averaged, bound on the
information between the views = log N − loss. Code published with Skean et al. (2025), arXiv 2502.02013, gives the loss
where its name says information; here both are rows. The null is the bound with each view paired with another
document's, averaged over all such pairings, which is exact: the pairing moves only s_ii.

DiME: Skean et al. (2023), arXiv 2301.08164: with Gaussian kernel matrices K over N documents and S the matrix-based
entropy, E_Π S(K_A ∘ Π K_B Πᵀ) − S(K_A ∘ K_B). It is not clamped at 0, which is its expectation for independent views.

LiDAR: Thilak et al. (2024), arXiv 2312.04000: exp of the entropy of the eigenvalues, scaled to sum 1, of
Σ_w^{-1/2} Σ_b Σ_w^{-1/2}, with Σ_b the covariance of the documents' means and Σ_w that of views about their document's
mean plus a ridge. The exponential belongs to the definition (published code leaves it off); the paper's ε inside the
logarithm is dropped, since an eigenvalue of 0 adds nothing. Views dealt to documents at random read high, not low: then
Σ_b is a multiple of Σ_w. That is the null beside it.

Errors are over documents, by the influence of each; they hold the temperature, the kernel's width and N. All three
depend on N and are compared at equal N.
"""

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.special import logsumexp
from torch import Tensor

from infocomp.estimators import Estimate
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.matrix_renyi import matrix_entropy, squared_distances
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.units import bits


class DocumentViews:
    """Sums of the rows of each part of each document, in float64; `merge` of any split gives the same to rounding."""

    def __init__(self, dim: int, parts: int = 2) -> None:
        if dim < 1 or parts < 2:
            raise ValueError(f"views need a width of at least 1 and at least 2 parts, got {dim} and {parts}.")
        self.dim, self.parts = dim, parts
        self._place: dict[int, int] = {}
        self._sums = torch.zeros(0, parts, dim, dtype=torch.float64)
        self._counts = torch.zeros(0, parts, dtype=torch.int64)

    def update(
        self, rows: Float[Tensor, "rows dim"], documents: Int[np.ndarray, "rows"], parts: Int[np.ndarray, "rows"]
    ) -> None:
        """Add rows; those of a document below 0 are left out. ValueError: shapes or parts that do not fit."""
        documents, parts = np.asarray(documents), np.asarray(parts)
        if rows.ndim != 2 or rows.shape[1] != self.dim or not len(rows) == len(documents) == len(parts):
            raise ValueError(
                f"views of width {self.dim} need rows [n, {self.dim}] with one document and one part each, got shapes "
                f"{tuple(rows.shape)}, {documents.shape} and {parts.shape}."
            )
        if len(parts) and not (parts.min() >= 0 and parts.max() < self.parts):
            raise ValueError(
                f"parts are numbered from 0 to {self.parts - 1}, got {parts.min()} to {parts.max()}; cut each document "
                f"into {self.parts} parts."
            )
        chosen = np.flatnonzero(documents >= 0)
        if not len(chosen):
            return
        rows = rows.detach()
        if len(chosen) < len(rows):
            rows = rows[torch.from_numpy(chosen).to(rows.device)]
        names, index = np.unique(documents[chosen], return_inverse=True)
        cell = torch.from_numpy(index * self.parts + parts[chosen])
        rows = rows.cpu().double() if rows.device.type == "mps" else rows.double()
        sums = torch.zeros(len(names) * self.parts, self.dim, dtype=torch.float64, device=rows.device)
        sums.index_add_(0, cell.to(rows.device), rows)
        counts = torch.bincount(cell, minlength=len(names) * self.parts)
        self._add(names.tolist(), sums.cpu().view(-1, self.parts, self.dim), counts.view(-1, self.parts))

    def merge(self, other: Self) -> None:
        """Add the rows of another state of the same width and parts (else ValueError)."""
        if (self.dim, self.parts) != (other.dim, other.parts):
            raise ValueError(
                f"views of {self.parts} parts of width {self.dim} and of {other.parts} parts of width {other.dim} "
                "cannot be merged: both must be equal."
            )
        known = len(other._place)
        self._add(list(other._place), other._sums[:known], other._counts[:known])

    def views(self, least: int = 1) -> tuple[Float[np.ndarray, "documents parts dim"], Int[np.ndarray, "documents"]]:
        """The mean row of each part, for the documents all of whose parts have `least` rows or more, in their order."""
        names = np.array(list(self._place), dtype=np.int64)
        order = np.argsort(names)
        counts = self._counts[: len(names)].numpy()[order]
        kept = (counts >= max(least, 1)).all(axis=1)
        sums = self._sums[: len(names)].numpy()[order[kept]]
        return sums / counts[kept][:, :, None], names[order[kept]]

    def _add(self, names: list[int], sums: Tensor, counts: Tensor) -> None:
        place = torch.tensor([self._place.setdefault(name, len(self._place)) for name in names], dtype=torch.int64)
        missing = len(self._place) - len(self._sums)
        if missing > 0:
            more = max(missing, len(self._sums))
            self._sums = torch.cat([self._sums, torch.zeros(more, self.parts, self.dim, dtype=torch.float64)])
            self._counts = torch.cat([self._counts, torch.zeros(more, self.parts, dtype=torch.int64)])
        self._sums.index_add_(0, place, sums)
        self._counts.index_add_(0, place, counts)


def parts_of(
    documents: Int[np.ndarray, "rows"], tokens: Int[np.ndarray, "rows"], parts: int = 2
) -> Int[np.ndarray, "rows"]:
    """The part of its document that a row lies in: rows in the order of their tokens, cut into equal stretches."""
    if documents.shape != tokens.shape:
        raise ValueError(f"parts need one document and one token a row, got shapes {documents.shape}, {tokens.shape}.")
    order = np.lexsort((tokens, documents))
    _, index, counts = np.unique(documents, return_inverse=True, return_counts=True)
    rank = np.empty(len(documents), dtype=np.int64)
    rank[order] = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank * parts // counts[index]


def info_nce(
    one: Float[np.ndarray, "documents dim"], other: Float[np.ndarray, "documents dim"], temperature: float = 0.1
) -> list[Estimate]:
    """Bound on the information between two views, in bits (at most log2 N), and the loss that it comes from.

    Row i of both is a view of document i; `temperature` divides the cosine. ValueError: shapes that differ (a cosine
    needs one width) or a temperature that is not above 0. A view of length zero has no cosine: refused.
    """
    _check_pairs(one, other)
    if one.shape != other.shape:
        raise ValueError(
            f"InfoNCE takes the cosine of two views of one width, got shapes {one.shape} and {other.shape}; compare "
            "layers of one width, or use DiME."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}.")
    n = len(one)
    lengths = [np.linalg.norm(view, axis=1) for view in (one, other)]
    said = f"cosine over {temperature:g}, {n} documents, each the other's negatives"
    if min(length.min() for length in lengths) == 0:
        reason = "not defined: a view has length zero and no cosine"
        return [_none("info_nce", "bits", n, reason), _none("info_nce_loss", "bits", n, reason)]
    scores = (one / lengths[0][:, None]) @ (other / lengths[1][:, None]).T / temperature
    own = scores.diagonal()
    whole = [np.asarray(logsumexp(side, axis=1)) for side in (scores, scores.T)]
    loss = float(np.mean([(total - own).mean() for total in whole]))
    strangers = (scores.sum() - own.sum()) / (n * (n - 1))
    null = math.log(n) - float(np.mean([total.mean() for total in whole]) - strangers)
    # without document i: neither its pair nor its view among the negatives of the others
    left = np.mean([_losses_without_one(side) for side in (scores, scores.T)], axis=0)
    influence = -(n - 1) / n * (left - left.mean())
    bound = _estimate(
        "info_nce", math.log(n) - loss, influence, "bits", n, null, math.log(n), f"at most log2 N; {said}"
    )
    return [bound, _estimate("info_nce_loss", loss, -influence, "bits", n, math.log(n) - null, None, said)]


def dime(
    one: Float[np.ndarray, "documents dim"],
    other: Float[np.ndarray, "documents width"],
    alpha: float = 1.0,
    bandwidth: float = 0.5,
    permutations: int = 10,
    seed: int = 0,
) -> Estimate:
    """Difference of matrix-based entropies of order α, in bits: what pairing the views takes off their joint entropy.

    The kernel's σ is `bandwidth` times the root mean square distance of all pairs, for each view: smooth, so that the
    influences hold σ's share too. Eigenvalues of N × N, `permutations` + 3 times. The ceiling is the permuted joint
    entropy less the larger entropy of one view, below which no joint entropy lies.
    ValueError: documents that do not match, α or bandwidth not above 0, no permutation.
    """
    _check_pairs(one, other)
    if not (alpha > 0 and bandwidth > 0 and permutations >= 1):
        raise ValueError(
            f"alpha and bandwidth must be above 0 and permutations at least 1, got {alpha}, {bandwidth} and "
            f"{permutations}."
        )
    n = len(one)
    grams, scaled, of_scale = [], [], []
    for view in (one, other):
        distances = squared_distances(view)
        typical = float(distances.sum() / (n * (n - 1)))
        if typical == 0:
            return _none("dime", "bits", n, "not defined: all documents' views are equal, the kernel has no scale")
        scaled.append(distances / (bandwidth**2 * typical))
        grams.append(np.exp(-0.5 * scaled[-1]))
        spread = ((view - view.mean(axis=0)) ** 2).sum(axis=1)
        of_scale.append(0.5 * (spread / spread.mean() - 1) / n)
    paired, of_pair, by_scale = _entropy(grams[0] * grams[1], alpha, scaled)
    by_scale = -by_scale
    single = [_entropy(gram, alpha, ())[0] for gram in grams]
    generator = np.random.default_rng(seed)
    apart, of_apart = np.zeros(permutations), np.zeros(n)
    for draw in range(permutations):
        order = generator.permutation(n)
        turned = np.ix_(order, order)
        apart[draw], moved, slopes = _entropy(grams[0] * grams[1][turned], alpha, (scaled[0], scaled[1][turned]))
        by_scale += slopes / permutations
        of_apart += moved
        of_apart[order] += moved  # a document is in two of the permuted pairs, once with either view
    influence = of_apart / permutations - of_pair + by_scale @ np.array(of_scale)
    said = f"alpha {alpha:g}, sigma {bandwidth:g} of the root mean square distance, {permutations} permutations"
    mean = float(apart.mean())
    return _estimate("dime", mean - paired, influence, "bits", n, 0.0, mean - max(single), said)


def lidar(
    views: Float[np.ndarray, "documents parts dim"], ridge: float = 1e-4, shuffles: int = 4, seed: int = 0
) -> Estimate:
    """Effective number of directions in which documents differ by more than their parts do, from 1 to min(n − 1, d).

    `ridge` is added to Σ_w as the paper has it, in units of the rows: where documents × (parts − 1) does not exceed the
    width, Σ_w is the ridge alone in the directions left, and the value hangs on it (the message says so). `shuffles`
    deals of all views to the documents make the null. No error is given where documents × (parts − 1) lies between half
    and 3/2 of the width: on simulated documents 95 % intervals covered 69 % at equality, 93 to 100 % outside.
    ValueError: fewer than 3 documents or 2 parts, a ridge not above 0.
    """
    views = np.asarray(views, dtype=np.float64)
    if views.ndim != 3 or views.shape[0] < 3 or views.shape[1] < 2:
        raise ValueError(f"LiDAR needs views [documents ≥ 3, parts ≥ 2, dim], got shape {views.shape}.")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, got {ridge}: without it Σ_w need not have an inverse.")
    n, parts, dim = views.shape
    flat = views.reshape(n * parts, dim) - views.mean(axis=(0, 1))
    if n * parts < dim:  # outside the span of the rows Σ_b is 0, so that nothing there adds to the entropy
        left, singular, _ = np.linalg.svd(flat, full_matrices=False)
        flat = left * singular
    found = _lidar(flat.reshape(n, parts, -1), ridge)
    if found is None:
        return _none("lidar", "count", n, "not defined: the means of all documents are equal")
    value, influence = found
    generator = np.random.default_rng(seed)
    dealt = [_lidar(generator.permutation(flat).reshape(n, parts, -1), ridge) for _ in range(shuffles)]
    null = float(np.mean([one[0] for one in dealt if one is not None])) if shuffles else None
    message = f"ridge {ridge:g}, {parts} views a document"
    if n * (parts - 1) < dim:
        message += f"; within documents only {n * (parts - 1)} of {dim} directions vary, the ridge stands for the rest"
    if dim / 2 < n * (parts - 1) < 1.5 * dim:
        message += (
            "; no interval: documents × (parts − 1) is near the width, where one document moves Σ_w's inverse much"
        )
        influence = None
    return _estimate("lidar", value, influence, "count", n, null, min(n - 1, dim), message)


def _losses_without_one(scores: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n"]:
    """For each document the negative mean loss of the others among themselves; log(n − 1) is common to all."""
    n = len(scores)
    places = np.arange(n)
    share = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    largest = scores.argmax(axis=1)
    rest = scores.copy()
    rest[places, largest] = -np.inf
    share[places, largest] = 0.0  # a share near 1 leaves a remainder that only summing again knows
    without = logsumexp(scores, axis=1, keepdims=True) + np.log1p(-share)
    without[places, largest] = logsumexp(rest, axis=1)
    losses = without - scores.diagonal()[:, None]
    np.fill_diagonal(losses, 0.0)
    return -losses.sum(axis=0) / (n - 1)


def _entropy(
    gram: Float[np.ndarray, "n n"], alpha: float, distances: Sequence[Float[np.ndarray, "n n"]]
) -> tuple[float, Float[np.ndarray, "n"], Float[np.ndarray, "distances"]]:
    """S_α in nats of a Gram matrix with ones on its diagonal, what each point and what each log σ moves it by.

    With weights w on the points, dλ_k/dw_i = λ_k u_ki² for the eigenvector u_k: the influence is that less its mean.
    `distances` are squared, in units of σ²: dK/d log σ = K ∘ distances, dS = tr(S′(K) dK).
    """
    values, vectors = np.linalg.eigh(gram / len(gram))
    values = np.maximum(values, 0.0)
    powers = np.maximum(values, np.finfo(np.float64).eps * values[-1])
    slope = -np.log(powers) if alpha == 1 else alpha / (1 - alpha) * powers ** (alpha - 1) / (values**alpha).sum()
    moved = vectors**2 @ (slope * values)
    gradient = (vectors * slope) @ vectors.T * gram / len(gram)
    by_scale = np.array([(gradient * one).sum() for one in distances])
    return matrix_entropy(values, alpha), moved - moved.mean(), by_scale


def _lidar(
    views: Float[np.ndarray, "documents parts dim"], ridge: float
) -> tuple[float, Float[np.ndarray, "documents"]] | None:
    """LiDAR and its influence by document: dλ = vᵀ(dΣ_b − λ dΣ_w)v for the vectors with vᵀ Σ_w v = 1."""
    n, parts, dim = views.shape
    means = views.mean(axis=1)
    within = (views - means[:, None]).reshape(n * parts, dim)
    means = means - means.mean(axis=0)
    if not means.any():
        return None
    noise = within.T @ within / (n * parts) + ridge * np.eye(dim)
    values, vectors = eigh(means.T @ means / n, noise)
    kept = values > dim * np.finfo(np.float64).eps * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    moved_between = (means @ vectors) ** 2 - values
    spread = ((within @ vectors) ** 2).reshape(n, parts, -1).mean(axis=1)
    moved = (moved_between - values * (spread - spread.mean(axis=0))) / n
    share = values / values.sum()
    entropy = matrix_entropy(share, 1.0)
    of_entropy = -(moved @ (np.log(share) + entropy)) / values.sum()
    return math.exp(entropy), math.exp(entropy) * (of_entropy - of_entropy.mean())


def _check_pairs(one: np.ndarray, other: np.ndarray) -> None:
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other) or len(one) < 3:
        raise ValueError(
            f"two views of the same documents, at least 3, are needed: one row each, got shapes {one.shape} and "
            f"{other.shape}."
        )


def _none(quantity: str, unit: str, n: int, reason: str) -> Estimate:
    return Estimate(quantity, None, unit, n, status="refused", message=f"{reason}.")


def _estimate(
    quantity: str,
    value: float,
    influence: Float[np.ndarray, "documents"] | None,
    unit: str,
    n: int,
    null: float | None,
    ceiling: float | None,
    message: str,
) -> Estimate:
    """Nats to bits where the unit says so; an interval from 8 documents on."""
    scale = bits(1.0) if unit == "bits" else 1.0
    value, influence = scale * value, None if influence is None else scale * influence
    error, interval = None, None
    if influence is not None and n >= FEWEST_DOCUMENTS:
        error = standard_error(influence)
        half = quantile(n) * error
        interval = (value - half, value + half)
    elif influence is not None:
        message += f"; no interval: {n} documents, at least {FEWEST_DOCUMENTS} are needed"
    return Estimate(
        quantity,
        float(value),
        unit,
        n,
        interval,
        null=None if null is None else float(scale * null),
        ceiling=None if ceiling is None else float(scale * ceiling),
        std_error=error,
        message=message,
        influence=None if influence is None else {"value": influence},
    )
