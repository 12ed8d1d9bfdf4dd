"""Effective ranks (counts) of the first 256, 512, … rows of one seeded order: all of them grow with the number of rows.

The RankMe paper (Garrido et al. 2023, arXiv 2210.02885) takes 25,600 rows; a participation ratio PR has a bias of about
PR/n. A value is compared between models at a common n only, and the curve says how far it is from its end.
Each size holds the rows of the sizes before it, so that the curve of a site comes from one pass over them.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from infocomp.estimators.interface import Estimate
from infocomp.estimators.nulls import sampling_order
from infocomp.geometry.scatter import Scatter
from infocomp.geometry.spectrum import Spectrum, spectrum_of, spectrum_of_rows

FIRST = 256
QUANTITIES = ("rankme", "rankme_covariance", "participation_ratio")


def growth_sizes(n: int, first: int = FIRST) -> list[int]:
    """first, 2·first, 4·first, … up to n; ValueError below 2 rows."""
    if first < 2:
        raise ValueError(f"first must be at least 2 rows, got {first}.")
    return [first * 2**step for step in range(max(0, n // first).bit_length())]


def growth(
    rows: Float[np.ndarray, "rows dim"],
    seed: int,
    keys: Int[np.ndarray, "rows"] | None = None,
    first: int = FIRST,
) -> list[Estimate]:
    """rankme, rankme_covariance and participation_ratio at each size, label "n 00256", with what n and d allow.

    `keys` are the rows' numbers in the corpus (their place by default): rows are taken in the order of their hashes
    with `seed`, as a `Reservoir` does, so that two models that hold the same keys take the same rows. Empty below
    `first` rows.
    """
    order = sampling_order(np.arange(len(rows)) if keys is None else np.asarray(keys), seed, len(rows))
    scatter, begin, found = Scatter(rows.shape[1]), 0, []
    for size in growth_sizes(len(rows), first):
        scatter.update(rows[order[begin:size]])
        begin = size
        spectrum = spectrum_of(scatter) if size > scatter.dim else spectrum_of_rows(rows[order[:size]])
        found += _labelled(spectrum, f"n {size:05d}")
    scatter.close()
    return found


def _labelled(spectrum: Spectrum, label: str) -> list[Estimate]:
    return [replace(one, label=label) for one in spectrum.estimates() if one.quantity in QUANTITIES]
