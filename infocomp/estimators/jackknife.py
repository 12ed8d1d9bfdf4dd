"""Intervals of estimates on a sample of rows: a jackknife that leaves out groups of whole documents.

Tokens of a document depend on each other, so that documents are left out, never rows; a bootstrap would draw rows
twice, which nearest neighbours and plug-in entropies read as information.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from scipy.stats import t as student

FEWEST_DOCUMENTS = 8
LEVEL = 0.95


class Refusal(ValueError):
    """Why an estimate does not exist for these rows and labels, in one sentence: a row of the table, not a crash."""


def document_groups(documents: Int[np.ndarray, "rows"], groups: int) -> Int[np.ndarray, "rows"]:
    """A group from 0 to groups−1 for each row: documents dealt in turn, the largest first."""
    names, index, counts = np.unique(documents, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    return (rank % groups)[index]


def jackknife(
    value: Callable[[Int[np.ndarray, "kept"]], float],
    documents: Int[np.ndarray, "rows"] | None,
    groups: int,
) -> tuple[float, str]:
    """Half width of the 95 % interval and "", or NaN and the reason why there is none.

    `value` gives the estimate, in any unit, on the rows with those indices. With θ_g the estimate without group g,
    se² = (G−1)/G · Σ_g (θ_g − mean θ)², and the half width is se times Student's t on G−1 degrees of freedom: for the
    spread of the estimate about its own expectation, not about the truth.
    Source: Efron & Stein (1981), Ann. Statist. 9(3); the delete-a-group form after Kott (2001), J. Off. Stat. 17(4).
    """
    if documents is None:
        return float("nan"), "no interval: no documents were given"
    count = len(np.unique(documents))
    if count < FEWEST_DOCUMENTS:
        return float("nan"), f"no interval: {count} documents, at least {FEWEST_DOCUMENTS} are needed"
    groups = min(groups, count)
    group = document_groups(documents, groups)
    try:
        left = np.array([value(np.flatnonzero(group != one)) for one in range(groups)])
    except Refusal as reason:
        return float("nan"), f"no interval: without some documents, {reason}"
    error = np.sqrt((groups - 1) / groups * ((left - left.mean()) ** 2).sum())
    half = float(error * student.ppf((1 + LEVEL) / 2, groups - 1))
    return half, f"interval: jackknife over {groups} groups of documents"
