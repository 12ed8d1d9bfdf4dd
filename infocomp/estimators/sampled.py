"""What the estimators on a sample of rows share: the three verbs, labels that come late, null, interval, refusals.

Each of them gives, per label set, the information between label and row (or its code) in bits: "complexity" for input
labels, "expressivity" for output labels, with the same labels paired with rows of other documents as `null` and a
jackknife over groups of documents as `interval`. All of it is computed from the sample, whose size is the row's `n`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal, jackknife
from infocomp.estimators.reservoir import Integers, Reservoir, Sample, one_per_row, turned_rows
from infocomp.units import bits


class LabelSetLike(Protocol):
    """A named integer per row of the corpus, -1 for none; `direction` is "input" or "output"."""

    @property
    def name(self) -> str: ...
    @property
    def order(self) -> int | None: ...
    @property
    def direction(self) -> str: ...
    @property
    def ids(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Labels:
    """One label set on the sampled rows."""

    name: str
    order: int | None
    direction: str
    ids: Int[np.ndarray, "rows"]

    @property
    def quantity(self) -> str:
        return "expressivity" if self.direction == "output" else "complexity"


@dataclass(frozen=True)
class Finding:
    """What one label set gave, in nats. `n` counts the rows that entered, `more` holds values beside the main one."""

    value: float
    ceiling: float | None
    n: int
    half_width: float | None = None
    message: str = ""
    more: dict[str, float] = field(default_factory=dict)


class SampledEstimator(ABC):
    """Base of the label estimators: `_prepare` turns the sample's rows into what `_information` compares with labels.

    Abstract or final: what differs is `_prepare` (once for all label sets) and `_information` (once a label set,
    again for its null and for each group of documents left out).
    """

    has_null = True
    has_jackknife = True

    def __init__(self, dim: int, seed: int, size: int, groups: int, reservoir: Reservoir | None) -> None:
        """`reservoir`, filled elsewhere and shared, replaces this one's own; the first `size` of its rows are used."""
        if groups < 2:
            raise ValueError(f"groups of documents must be at least 2, got {groups}.")
        if reservoir is not None and reservoir.dim != dim:
            raise ValueError(f"the reservoir has {reservoir.dim} dimensions, dim is {dim}: they must agree.")
        self.dim, self.seed, self.size, self.groups = dim, seed, size, groups
        self.reservoir = Reservoir(dim, size, seed) if reservoir is None else reservoir

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        labels: Mapping[str, Integers] | None = None,
        documents: Integers | None = None,
        keys: Integers | None = None,
    ) -> None:
        """Add rows, with labels and documents now or at `estimate`; see `Reservoir.update` for keys and errors."""
        self.reservoir.update(rows, labels, documents, keys)

    def merge(self, other: "SampledEstimator") -> None:
        """Add the rows of another state of the same kind, dim, size and seed (else ValueError)."""
        if type(other) is not type(self):
            raise TypeError(f"cannot merge {type(other).__name__} into {type(self).__name__}.")
        self.reservoir.merge(other.reservoir)

    def estimate(
        self, labels: Sequence[LabelSetLike] | Mapping[str, Integers] | None = None, documents: Integers | None = None
    ) -> list[Estimate]:
        """One estimate (and what stands beside it) for each label set, in bits.

        `labels` are label sets over the whole corpus, looked up by the rows' keys, or {name: ids} where a name that
        begins with "next_" is an output label; by default those given to `update`. `documents` likewise. Raises
        ValueError without rows or labels, and where an array is shorter than the corpus.
        """
        sample = self.reservoir.take(self.size)
        if documents is not None:
            sample = sample.sorted_by(_looked_up(documents, sample.keys, "documents"))
        sets = _label_sets(labels, sample)
        if not sets:
            raise ValueError("no labels: give them to update or to estimate.")
        prepared = self._prepare(sample.rows)
        return [estimate for one in sets for estimate in self._estimates(one, prepared, sample.documents)]

    @abstractmethod
    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Shaped[np.ndarray, "rows ..."]:
        """What stands for each row, once for all label sets."""

    @abstractmethod
    def _information(
        self,
        prepared: Shaped[np.ndarray, "rows ..."],
        ids: Int[np.ndarray, "rows"],
        documents: Int[np.ndarray, "rows"] | None,
    ) -> Finding:
        """Information between ids and rows in nats. Raises Refusal with the reason where it does not exist."""

    def _row_null(self, prepared: Shaped[np.ndarray, "rows ..."], ids: Int[np.ndarray, "rows"]) -> float | None:
        """What single rows under any permutation would give, in nats, where it is known without permuting."""
        return None

    def _estimates(self, labels: Labels, prepared: np.ndarray, documents: np.ndarray | None) -> list[Estimate]:
        kept = np.flatnonzero(labels.ids >= 0)
        ids, prepared = labels.ids[kept], prepared[kept]
        documents = None if documents is None else documents[kept]
        counts = np.unique(ids, return_counts=True)[1]
        about = {"label": labels.name, "order": labels.order, "weighting": "frequency", "unit": "bits"}
        about |= {"n_labels": len(counts), "singleton_mass": float((counts == 1).sum() / max(len(ids), 1))}
        try:
            _enough(counts)
            found = self._information(prepared, ids, documents)
        except Refusal as reason:
            refused = {"value": None, "n": len(ids), "status": "refused", "message": f"{reason}."}
            return [Estimate(quantity=labels.quantity, **refused, **about)]
        null = self._null(prepared, ids, documents) if self.has_null else {}
        null_rows = self._row_null(prepared, ids)
        half, why = found.half_width, ""
        if half is None and self.has_jackknife:
            half, why = jackknife(
                lambda rows: self._information(prepared[rows], ids[rows], _at(documents, rows)).value,
                documents,
                self.groups,
            )
        message = "; ".join(part for part in (found.message, why) if part)
        estimates = []
        for name, value in ({"": found.value} | found.more).items():
            estimates.append(
                Estimate(
                    quantity=labels.quantity + name,
                    value=bits(value),
                    n=found.n,
                    interval=None if half is None or np.isnan(half) else (bits(value - half), bits(value + half)),
                    null=bits(null[name]) if name in null else None,
                    null_rows=None if name or null_rows is None else bits(null_rows),
                    ceiling=None if found.ceiling is None else bits(found.ceiling),
                    message=message,
                    **about,
                )
            )
        return estimates

    def _null(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> dict[str, float]:
        """The same labels with rows of other documents, {"" or name beside it: nats}; empty where nothing pairs."""
        partner = turned_rows(documents)
        if partner is None:
            return {}
        paired = partner >= 0
        try:
            found = self._information(prepared[partner[paired]], ids[paired], _at(documents, paired))
        except Refusal:
            return {}
        return {"": found.value} | found.more


def label_entropy(ids: Int[np.ndarray, "rows"]) -> float:
    """Plug-in entropy of the labels in nats."""
    share = np.unique(ids, return_counts=True)[1] / len(ids)
    return float(-(share * np.log(share)).sum())


def _enough(counts: Int[np.ndarray, "labels"]) -> None:
    if len(counts) == 0:
        raise Refusal("no sampled row has a label")
    if len(counts) == 1:
        raise Refusal(f"one label only (on {counts[0]} rows): information about it is 0 by definition")
    if counts.max() == 1:
        raise Refusal(f"all {len(counts)} labels are singletons: any rows would seem to tell them apart")


def _at(documents: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if documents is None else documents[rows]


def _label_sets(labels: Sequence[LabelSetLike] | Mapping[str, Integers] | None, sample: Sample) -> list[Labels]:
    if labels is None:
        return [_by_name(name, ids) for name, ids in sample.labels.items()]
    if isinstance(labels, Mapping):
        return [_by_name(name, _looked_up(ids, sample.keys, name)) for name, ids in labels.items()]
    return [Labels(one.name, one.order, one.direction, _looked_up(one.ids, sample.keys, one.name)) for one in labels]


def _by_name(name: str, ids: np.ndarray) -> Labels:
    direction = "output" if name.startswith("next_") else "input"
    return Labels(name.removeprefix("next_"), None, direction, ids)


def _looked_up(values: Integers, keys: Int[np.ndarray, "rows"], name: str) -> Int[np.ndarray, "rows"]:
    """The sampled rows' entries of an array over the corpus."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = one_per_row(array, len(array), name)
    if keys.min() < 0 or keys.max() >= len(array):
        raise ValueError(
            f"{name} has {len(array)} entries, but rows are numbered up to {keys.max()}: one entry for each is needed."
        )
    return array[keys]
