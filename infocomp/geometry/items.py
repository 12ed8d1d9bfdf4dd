"""Representational similarity: do two models find the same items alike? Spearman's correlation of distances, no unit.

For a fixed set of items (one row each: words, sentences, last tokens) each model has the n(n − 1)/2 distances between
them, and the similarity is Spearman's correlation of the two lists, ties at their middle rank (Kriegeskorte, Mur &
Bandettini 2008, Frontiers Syst. Neurosci. 2:4). Widths may differ.

The distances of an item depend on each other, so that chance is told by permuting the items of one model (Mantel 1967,
Cancer Res. 27(2)): p = (1 + permutations with at least this similarity) / (1 + permutations). The interval is over
items, or over the documents that they come from: the delta method on the distribution functions, where a distance moves
the similarity by φ and an item by 2/n of its distances' mean φ (Hoeffding's projection); checked against a jackknife.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, Refusal
from infocomp.geometry.cka import checked_rows, estimate_of
from infocomp.geometry.pair_moments import Rows

METRICS = ("cosine", "euclidean")
MOST_ITEMS = 2048
PERMUTATIONS = 1000
_DIGITS = 12  # of the largest distance: what rounding differs in counts as a tie

Pairs = Float[np.ndarray, "pairs"]


@dataclass(frozen=True)
class RepresentationalSimilarity:
    """`estimate` has quantity "representational_similarity", unit "ratio", null (mean over permutations), interval.

    p is one-sided (more alike than chance), never below 1/(1 + permutations); None, as the value, where it was refused.
    """

    estimate: Estimate
    p: float | None
    null_high: float | None
    permutations: int
    nulls: Float[np.ndarray, "permutations"] | None = field(default=None, repr=False, compare=False)


def representational_similarity(
    x: Rows,
    y: Rows,
    documents: Int[np.ndarray, "items"] | None = None,
    metric: str = "cosine",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> RepresentationalSimilarity:
    """Similarity of items [n, dim_x] and [n, dim_y], the same items in the same order.

    Each item is a document of its own where `documents` is None. Equal distances give exactly 1, an influence of
    exactly 0. Raises ValueError for unequal, fewer than 4, more than 2,048 or non-finite items, another metric, fewer
    than one permutation; an item of norm 0 under "cosine" and distances that are all equal are refused with a reason.
    """
    first, second = checked_rows([x, y], documents, MOST_ITEMS)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}.")
    n = len(first)
    try:
        left, right = (_ranks(distances(rows, metric)) for rows in (first, second))
    except Refusal as reason:
        refused = Estimate(
            "representational_similarity", None, "ratio", n, status="refused", message=f"{reason}.", label=metric
        )
        return RepresentationalSimilarity(refused, None, None, permutations)
    value, by_pair = spearman_influence(left, right)
    owner = np.arange(n) if documents is None else np.unique(documents, return_inverse=True)[1]
    influence, message = None, f"no interval: fewer than {FEWEST_DOCUMENTS} documents"
    if owner.max() + 1 >= FEWEST_DOCUMENTS:
        square = _square(by_pair, n)
        influence, message = np.bincount(owner, 2 / n * square.sum(axis=1) / (n - 1)), ""
    nulls = _permuted(left, right, n, permutations, seed)
    p = float((1 + (nulls >= value).sum()) / (1 + permutations))
    estimate = estimate_of(
        "representational_similarity", value, n, influence, metric, float(nulls.mean()), message=message
    )
    return RepresentationalSimilarity(estimate, p, float(np.quantile(nulls, 0.975)), permutations, nulls)


def distances(rows: Float[torch.Tensor, "items dim"], metric: str) -> Pairs:
    """1 − cosine, or Euclidean distances, of items i < j in the order of `scipy.spatial.distance.pdist`.

    Rounded to 12 digits of the largest. Raises Refusal for an item of norm 0 under "cosine".
    """
    if metric == "cosine":
        norms = rows.norm(dim=1, keepdim=True)
        if not bool((norms > 0).all()):
            raise Refusal(f"{int((norms == 0).sum())} items have norm 0 and no direction: take euclidean distances")
        rows = rows / norms
        square = 1.0 - rows @ rows.T
    else:
        rows = rows - rows.mean(dim=0)
        squares = (rows**2).sum(dim=1)
        square = (squares[:, None] + squares - 2 * rows @ rows.T).clamp_min(0.0)
    found = square.numpy()[np.triu_indices(len(rows), 1)]
    largest = float(np.abs(found).max()) or 1.0
    found = np.round(found / largest, _DIGITS) * largest
    return np.sqrt(found) if metric == "euclidean" else found


def spearman_influence(left: Pairs, right: Pairs) -> tuple[float, Pairs]:
    """Spearman's correlation of two lists of mid-ranks between 0 and 1, and what each entry moves it by (mean 0)."""
    if np.array_equal(left, right):
        return 1.0, np.zeros_like(left)
    f, g = left - left.mean(), right - right.mean()
    moments = np.mean(f * g), np.mean(f * f), np.mean(g * g)
    root = np.sqrt(moments[1] * moments[2])
    value = float(moments[0] / root)
    # an entry enters a mean of F·G by itself, and by raising F of all above it and G of all above it
    parts = [
        f * g + _above(left, g) + _above(right, f),
        f * f + 2 * _above(left, f),
        g * g + 2 * _above(right, g),
    ]
    of_cross, of_left, of_right = (part - part.mean() for part in parts)
    return value, of_cross / root - value / 2 * (of_left / moments[1] + of_right / moments[2])


def _above(ranks: Pairs, weights: Pairs) -> Pairs:
    """For each entry the mean over all entries of weight × 1[rank above] (½ where equal)."""
    _, place = np.unique(ranks, return_inverse=True)
    sums = np.bincount(place, weights)
    below = np.cumsum(sums)
    return ((below[-1] - below + sums / 2) / len(ranks))[place]


def _ranks(found: Pairs) -> Pairs:
    """(mid-rank − ½) / pairs. Raises Refusal where all distances are equal."""
    if found.max() == found.min():
        raise Refusal("all distances between items are equal, so that they have no ranks")
    return (rankdata(found) - 0.5) / len(found)


def _permuted(left: Pairs, right: Pairs, n: int, permutations: int, seed: int) -> Float[np.ndarray, "permutations"]:
    """Spearman's correlation after the items of one side were permuted; ranks only change their places."""
    generator = np.random.default_rng(seed)
    f, g = left - left.mean(), right - right.mean()
    square = _square(g, n)
    rows, columns = np.triu_indices(n, 1)
    found = np.empty(permutations)
    for one in range(permutations):
        order = generator.permutation(n)
        found[one] = f @ square[order[rows], order[columns]]
    return found / np.sqrt((f @ f) * (g @ g))


def _square(pairs: Pairs, n: int) -> Float[np.ndarray, "items items"]:
    found = np.zeros((n, n))
    found[np.triu_indices(n, 1)] = pairs
    return found + found.T
