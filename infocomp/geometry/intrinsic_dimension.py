"""Intrinsic dimension of rows from the distances to their two nearest neighbours (TwoNN): a count, not a whole number.

Facco, d'Errico, Rodriguez & Laio (2017), Sci. Rep. 7:12140: where the density is flat over two neighbours, μ = r2/r1
has P(μ > m) = m^−d. With μ_(i) in rising order and F = i/N, d is the slope of −log(1 − F) on log μ, a line through the
origin by least squares, the largest 10 % left out: the paper's fit, not the maximum likelihood one.

Rows that occur several times would have r1 = 0: each distinct row enters once. In more than about ten dimensions, or
with few rows, d comes out too small (the edge of the data is near everywhere); compare at a common n.

Errors are over documents. What the absence of a row's ratio moves d by (jackknife, all neighbours as they are) sums up
to a document's influence. Neighbours share a distance, so that ratios of two documents are correlated too; a jackknife
that finds all neighbours anew overstates the error by half (in a trial: intervals covered 100 %). The covariance of
linked rows of different documents is estimated from their influences, and all influences are stretched by one factor so
that the variance holds it.
"""

import numpy as np
import torch
from jaxtyping import Float, Int

from infocomp.estimators.interface import Estimate
from infocomp.geometry.spectrum import with_interval

DISCARDED = 0.1
FEWEST_ROWS = 32
_CANDIDATES = 6  # nearest by the rounded distance, of which the exact distance is taken
_CHUNK = 512


def intrinsic_dimension(
    rows: Float[np.ndarray, "rows dim"], documents: Int[np.ndarray, "rows"] | None = None
) -> Estimate:
    """Quantity "intrinsic_dimension" in "count"; n counts the distinct rows.

    The influence holds one value for each of np.unique(documents), from which the standard error follows as for other
    estimates. Refused below 32 distinct rows and for rows on a lattice, all ratios 1. Raises ValueError for rows that
    are not finite and for documents that are not one per row.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if documents is not None and documents.shape != rows.shape[:1]:
        raise ValueError(f"documents has shape {documents.shape}, rows {rows.shape}: one document a row is needed.")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        raise ValueError(f"{bad} of {len(rows)} rows are not finite; find where the model overflows.")
    first = distinct_rows(rows)
    again = len(rows) - len(first)
    message = f"{again} rows that occurred before left out" if again else ""
    about = ("intrinsic_dimension", "count", len(first))
    if len(first) < FEWEST_ROWS:
        reason = f"{len(first)} distinct rows; {FEWEST_ROWS} are needed for a line through their ratios."
        return Estimate(about[0], None, about[1], about[2], status="refused", message=reason)
    logs, near = log_ratios(rows[first])
    logs_rising = np.sort(logs)
    if not logs_rising[int((1 - DISCARDED) * len(first)) - 1] > 0:
        reason = "the two nearest rows of all that are fitted are equally far: their ratios have no line."
        return Estimate(about[0], None, about[1], about[2], status="refused", message=reason)
    value = fitted_dimension(logs_rising)
    ceiling = float(rows.shape[1])
    found = Estimate(about[0], value, about[1], about[2], ceiling=ceiling, message=message)
    if documents is None:
        return found
    names, document = np.unique(documents, return_inverse=True)
    return with_interval(found, _influence(logs, near, document[first], len(names)))


def fitted_dimension(logs: Float[np.ndarray, "rows"]) -> float:
    """Slope through the origin of −log(1 − i/N) on log μ_(i), rising, the largest 10 % left out."""
    n = len(logs)
    kept = int(np.floor((1 - DISCARDED) * n))
    x = logs[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / n)
    return float(x @ y / (x @ x))


def log_ratios(
    rows: Float[np.ndarray, "rows dim"],
) -> tuple[Float[np.ndarray, "rows"], Int[np.ndarray, "rows 2"]]:
    """log(r2/r1) of distinct rows, Euclidean, and who the two neighbours are.

    Six candidates come from a matrix product, whose rounding hides small distances; theirs are taken from differences.
    """
    at = torch.from_numpy(np.ascontiguousarray(rows - rows.mean(axis=0)))
    norms, logs, nearest = (at**2).sum(dim=1), [], []
    for start in range(0, len(at), _CHUNK):
        here = at[start : start + _CHUNK]
        distances = norms - 2 * (here @ at.T)  # without the row's own norm: the order is the same
        distances[torch.arange(len(here)), torch.arange(start, start + len(here))] = float("inf")
        near = distances.topk(min(_CANDIDATES, len(at) - 1), largest=False).indices
        exact = torch.stack([(at[column] - here).norm(dim=1) for column in near.T], dim=1)
        two, place = exact.topk(2, largest=False, sorted=True)
        logs.append(torch.log(two[:, 1] / two[:, 0]))
        nearest.append(near.gather(1, place))
    return torch.cat(logs).numpy(), torch.cat(nearest).numpy()


def distinct_rows(rows: Float[np.ndarray, "rows dim"]) -> Int[np.ndarray, "distinct"]:
    """Places of the first occurrence of each distinct row, rising."""
    rows = np.ascontiguousarray(rows) + 0.0  # −0 is 0
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    return np.sort(np.unique(whole, return_index=True)[1])


def _influence(
    logs: Float[np.ndarray, "rows"], near: Int[np.ndarray, "rows 2"], document: np.ndarray, documents: int
) -> Float[np.ndarray, "documents"]:
    order = np.argsort(logs, kind="stable")
    of_row = np.empty(len(logs))
    of_row[order] = _without_each(logs[order])
    of_row = -(len(logs) - 1) / len(logs) * (of_row - of_row.mean())
    held = np.bincount(document, weights=of_row, minlength=documents)
    n, one, other = len(logs), np.repeat(np.arange(len(logs)), 2), near.ravel()
    pairs = np.unique(np.minimum(one, other) * n + np.maximum(one, other))  # linked rows, each pair once
    one, other = pairs // n, pairs % n
    across = document[one] != document[other]
    shared = 2 * float(of_row[one[across]] @ of_row[other[across]])
    variance = float(held @ held)
    return held * np.sqrt(1 + max(shared, 0.0) / variance) if variance > 0 else held


def _without_each(logs: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """`fitted_dimension` of rising values without the first, without the second, …, by running sums."""
    left = len(logs) - 1
    kept = int(np.floor((1 - DISCARDED) * left))
    y = -np.log1p(-np.arange(1, kept + 1) / left)
    sums = []
    for weights in (y, None):
        before, after = logs[:kept], logs[1 : kept + 1]  # those behind the missing one move up by one rank
        of_before, of_after = (x * (x if weights is None else weights) for x in (before, after))
        place = np.minimum(np.arange(len(logs)), kept)
        head, tail = np.concatenate([[0.0], np.cumsum(of_before)]), np.concatenate([[0.0], np.cumsum(of_after)])
        sums.append(head[place] + tail[kept] - tail[place])
    return sums[0] / sums[1]
