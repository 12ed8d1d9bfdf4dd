"""Hard binning: information between labels and the k-means code of a row.

The codebook needs rows before any row has a code, and a second forward pass is not wanted: a seeded reservoir (65,536
rows by default) is clustered when the estimate is asked for, and every number is of those rows. The code C is a
function of the row, hence I(label; C) ≤ I(label; Z) in the population; the plug-in from finite counts is biased
upwards, by up to all of it for rare labels: read it against its nulls.

Source: plug-in entropies of counts; Miller (1955), "Note on the bias of information estimates": each entropy is low by
(occupied cells − 1) / 2N nats to first order, which gives the corrected value beside the plug-in (quantity with
"_miller_madow").
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.nulls import RowNull, sampling_order
from infocomp.estimators.reservoir import Reservoir, reduced
from infocomp.estimators.sampled import Finding, SampledEstimator


class KMeansInformation(SampledEstimator):
    """Information of labels about hard k-means codes, with Miller–Madow's correction beside it.

    >>> import torch
    >>> z = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    >>> hard = KMeansInformation(dim=8, bins=4)
    >>> hard.update(z, {"sign": (z[:, 0] > 0).long()})
    >>> [e.quantity for e in hard.estimate()]
    ['complexity', 'complexity_miller_madow']
    """

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        bins: int = 100,
        size: int = 65_536,
        components: int | None = None,
        groups: int = 16,
        reservoir: Reservoir | None = None,
    ) -> None:
        """`bins` codes; `components` principal components are clustered, or the rows themselves (None)."""
        super().__init__(dim, seed, size, groups, reservoir)
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}.")
        self.bins, self.components = bins, components

    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Int[np.ndarray, "rows"]:
        found = rows if self.components is None else reduced(rows, self.components)
        distinct = len(np.unique(found[: 20 * self.bins], axis=0))
        clusters = self.bins if distinct >= self.bins else min(self.bins, len(np.unique(found, axis=0)))
        means = MiniBatchKMeans(
            clusters,
            batch_size=4096,
            n_init=3,  # pyright: ignore[reportArgumentType] (its stub says str)
            random_state=self.seed,
        )
        # one thread: sums in another order could send a row on a border to another code
        with threadpool_limits(1):
            return means.fit_predict(found).astype(np.int64)

    def _information(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> Finding:
        n = len(ids)
        code, label = _dense(prepared), _dense(ids)
        n_codes, n_labels = int(code.max()) + 1, int(label.max()) + 1
        if n_codes < 2:
            raise Refusal("all rows have one code: there is nothing to tell apart")
        joint = np.unique(label * n_codes + code, return_counts=True)[1]
        of_code, of_label = np.bincount(code), np.bincount(label)
        marginal = _entropy(of_code, n)
        value = marginal + _entropy(of_label, n) - _entropy(joint, n)
        corrected = value + ((n_codes - 1) + (n_labels - 1) - (len(joint) - 1)) / (2 * n)
        return Finding(
            value=value,
            ceiling=min(marginal, _entropy(of_label, n)),
            n=n,
            message=f"{n_codes} codes of {n} rows",
            more={"_miller_madow": corrected},
        )

    def _row_null(self, prepared: np.ndarray, ids: np.ndarray) -> float:
        """What single rows under any permutation would give, in nats: depends on the labels' counts alone."""
        code = torch.from_numpy(_dense(prepared))
        n, marginal = len(ids), _entropy(np.bincount(code.numpy()), len(ids))
        sample = torch.from_numpy(sampling_order(np.arange(n), self.seed, RowNull.SAMPLE))
        plane = torch.nn.functional.one_hot(code[sample]).float()
        counts = np.unique(ids, return_counts=True)[1]
        return marginal - float(counts @ RowNull(plane, marginal, 0.0, n)(counts)) / n


def _entropy(counts: Int[np.ndarray, "cells"], n: int) -> float:
    """Plug-in entropy in nats: log n − Σ c log c / n."""
    counts = counts[counts > 0]
    return float(np.log(n) - (counts * np.log(counts)).sum() / n)


def _dense(values: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    return np.unique(values, return_inverse=True)[1]
