"""The estimators beside the soft one (`also:`): rows sampled in the same pass, the same labels, rows of the same table.

They stand beside `estimator.*` as a check on it and see a seeded sample of the raw rows of each site, the same rows at
every site and checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from infocomp.activations.stream import Batch
from infocomp.corpora.labels import LabelSet
from infocomp.estimators import Estimate
from infocomp.estimators.others import OTHER_ESTIMATORS
from infocomp.estimators.reservoir import Reservoir
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import AlsoSettings


class ReservoirProbe:
    """Keeps a sample of the rows of every site."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, widths: Mapping[str, int], size: int, seed: int) -> None:
        self.sites: Sequence[str] = tuple(widths)
        self.reservoirs = {site: Reservoir(width, size, seed) for site, width in widths.items()}

    def compute(self, batch: Batch) -> tuple[slice, dict[str, Tensor]]:
        return batch.rows, {site: batch.rows_of(site) for site in self.sites}

    def keep(self, computed: tuple[slice, dict[str, Tensor]]) -> None:
        numbers, rows = computed
        keys = torch.arange(numbers.start, numbers.stop)
        for site, values in rows.items():
            self.reservoirs[site].update(values, keys=keys)


def other_estimates(
    probe: ReservoirProbe,
    prepared: PreparedCorpus,
    settings: AlsoSettings,
    bins: int,
    seed: int,
    tell: Callable[[str], None] | None = None,
) -> list[tuple[str, str, Estimate]]:
    """(site, estimator, estimate) of every estimator asked for, in bits; `tell` hears what is being computed."""
    labels = _chosen(prepared.labels, settings)
    documents = prepared.windows.row_documents
    found = []
    for site, reservoir in probe.reservoirs.items():
        for name in settings.estimators:
            if tell is not None:
                tell(f"{name} at {site}")
            more: dict[str, Any] = {"bins": bins} if name == "kmeans" else {}
            estimator = OTHER_ESTIMATORS[name](dim=reservoir.dim, seed=seed, reservoir=reservoir, **more)
            found += [(site, name, estimate) for estimate in estimator.estimate(labels, documents)]
    return found


def _chosen(labels: Sequence[LabelSet], settings: AlsoSettings) -> list[LabelSet]:
    return [label for label in labels if label.order in settings.orders]
