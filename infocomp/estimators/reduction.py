"""One plane of assignments against one label set: entropies, informations, ceilings and both nulls, in nats.

Weightings (P(x) is the weight of label x, n_x its count, N the rows):

- frequency: P(x) = n_x / N, the plug-in mutual information I(label; J).
- uniform: P(x) = 1/K over the K labels with n_x ≥ min_count; the marginal of J and the ceiling are reweighted too, so
  that it is a mutual information again, of another population.
- uniform_mixed: frequency-weighted marginal, uniform conditional, as code published with Conklin et al.'s predecessor
  does (hcoxec/h, min_labels = 5). Not a mutual information; for reproduction.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.bracket import Bracket, Marginals, bracket, marginals_of
from infocomp.estimators.groups import Groups
from infocomp.estimators.halves import Halves
from infocomp.estimators.nulls import RowNull, entropies_of_sums
from infocomp.estimators.point import Gap, growth_of_null

WEIGHTINGS = ("frequency", "uniform", "uniform_mixed")
NOT_MUTUAL = "not a mutual information: frequency-weighted marginal, uniform conditional"
PIECE = 65_536
MOST_AT_ONCE = 8  # label sets: each holds a few hundred MB at a million rows
Result = TypeVar("Result")


@dataclass(frozen=True)
class Information:
    """I = marginal − conditional under one weighting, in nats; `ceiling` is min(context's information, H(label)).

    `n`, `n_labels` and `singleton_mass` describe the rows and labels that this weighting counts, `counts` the sizes of
    the labels and `weights` the share that labels of each size have. What follows belongs to the rows as they are, not
    to a null's own reduction: the row null's value and gap, both ends, and the influence of each document on the null
    (for a dependence δ, see `point`) and on the context's information.
    """

    marginal: float
    conditional: float
    context: float
    ceiling: float
    n: int
    n_labels: int
    singleton_mass: float
    counts: np.ndarray
    weights: np.ndarray
    null_rows: float | None = None
    gap: Gap | None = None
    bracket: Bracket | None = None
    null_influence: Callable[[float], np.ndarray] | None = None
    context_influence: np.ndarray | None = None

    @property
    def value(self) -> float:
        return self.marginal - self.conditional


def mean_row(plane: Float[Tensor, "rows bins"], rows: Tensor | None = None) -> Float[Tensor, "bins"]:
    """Mean of all rows, or of those named, in float64 on the CPU."""
    total = torch.zeros(plane.shape[1], dtype=torch.float64)
    n = len(plane) if rows is None else len(rows)
    for start in range(0, n, PIECE):
        piece = plane[start : start + PIECE] if rows is None else plane[rows[start : start + PIECE].to(plane.device)]
        total += piece.sum(dim=0).cpu().double()
    return total / max(n, 1)


def entropy(distribution: Float[Tensor, "bins"]) -> float:
    """Entropy in nats of one distribution."""
    return float(torch.special.entr(distribution.cpu().double()).sum())


class Populations:
    """H(J), the context's information and the row null of the rows that a label set covers, each computed once.

    `order` lists all rows in the seeded order from which the row null takes its sample.
    """

    def __init__(
        self, plane: Float[Tensor, "rows bins"], row_entropies: Float[Tensor, "rows"], order: Int[np.ndarray, "rows"]
    ) -> None:
        self._plane, self._row_entropies, self._order = plane, row_entropies, order
        self._moments: dict[bytes | None, tuple[float, float]] = {}
        self._row_nulls: dict[bytes | None, RowNull] = {}
        self._marginals: dict[bytes | None, Marginals] = {}

    def moments(self, groups: Groups | None = None) -> tuple[float, float]:
        """H(J) and E H(A) over the rows of a label set, or over all rows, in nats."""
        key = None if groups is None else groups.population
        if key not in self._moments:
            rows = None if groups is None or key is None else groups.all_rows()
            every = torch.arange(len(self._plane)) if rows is None else rows
            self._moments[key] = entropy(mean_row(self._plane, rows)), _mean(self._row_entropies, every)
        return self._moments[key]

    def marginals(self, halves: Halves, groups: Groups | None = None) -> Marginals:
        """p(j) of all rows that a label set covers and of each half of the documents."""
        key = None if groups is None else groups.population
        if key not in self._marginals:
            covered = None if key is None else np.unpackbits(np.frombuffer(key, np.uint8), count=len(self._plane)) > 0
            rows = None if groups is None or key is None else groups.all_rows()
            p = mean_row(self._plane, rows)
            self._marginals[key] = marginals_of(self._plane, self._row_entropies, p, halves, covered)
        return self._marginals[key]

    def prepare(self, groups: Groups) -> None:
        """Compute all that label sets over the same rows share."""
        if groups.n:
            self.row_null(groups)
            if groups.halves is not None:
                self.marginals(groups.halves, groups)

    def row_null(self, groups: Groups) -> RowNull:
        """The row null over the rows of a label set."""
        key = groups.population
        if key not in self._row_nulls:
            order = self._order
            if key is not None:
                inside = np.unpackbits(np.frombuffer(key, np.uint8), count=len(order)).astype(bool)
                order = order[inside[order]]
            sample = torch.from_numpy(order[: RowNull.SAMPLE]).to(self._plane.device)
            self._row_nulls[key] = RowNull(self._plane[sample], *self.moments(groups), len(order))
        return self._row_nulls[key]


def side_by_side(tasks: Sequence[Callable[[], Result]], plane: Tensor) -> list[Result]:
    """What the tasks return, in their order; on a CPU each runs on one thread, as many at once as PyTorch has.

    A reduction is thousands of operations on blocks that stay in cache: splitting each of them over threads costs more
    than it gives. Results do not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    if plane.device.type != "cpu" or threads == 1 or len(tasks) < 2:
        return [task() for task in tasks]
    torch.set_num_threads(1)  # threads of the pool begin with what is set when they begin
    try:
        with ThreadPoolExecutor(min(threads, len(tasks), MOST_AT_ONCE)) as pool:
            return list(pool.map(lambda task: task(), tasks))
    finally:
        torch.set_num_threads(threads)


def informations(
    plane: Float[Tensor, "rows bins"],
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    weightings: tuple[str, ...],
    min_count: int,
    populations: Populations,
    with_row_null: bool = True,
) -> dict[str, Information | None]:
    """Information of one label set about J, for each weighting; None where no label reaches `min_count`.

    The row null is left out for a null's own reduction.
    """
    if groups.n == 0:
        return dict.fromkeys(weightings)
    bags = groups.bag_sums(plane)
    sums = groups.label_sums(bags)
    counts = groups.counts[groups.repeated].astype(np.float64)
    logs = torch.empty_like(sums) if with_row_null and groups.halves is not None else None
    label_entropies = entropies_of_sums(sums, torch.from_numpy(counts), logs).numpy()
    row_null = populations.row_null(groups) if with_row_null else None
    found: dict[str, Information | None] = {}
    for weighting in weightings:
        if weighting == "frequency":
            found[weighting] = _over_rows(
                plane, row_entropies, groups, bags, logs, float(counts @ label_entropies), populations, row_null
            )
        else:
            kept = np.flatnonzero(counts >= min_count)
            marginal = populations.moments(groups)[0]
            found[weighting] = (
                _over_labels(weighting, kept, sums, counts, label_entropies, row_entropies, groups, row_null, marginal)
                if len(kept)
                else None
            )
    return found


def _mean(row_entropies: Float[Tensor, "rows"], rows: Tensor) -> float:
    """Mean H(A) of some rows, 0 for none."""
    return float(row_entropies[rows.to(row_entropies.device)].cpu().double().mean()) if len(rows) else 0.0


def _over_rows(
    plane: Float[Tensor, "rows bins"],
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    bags: Float[Tensor, "bags bins"],
    log_means: Float[Tensor, "repeated bins"] | None,
    repeated: float,
    populations: Populations,
    row_null: RowNull | None,
) -> Information:
    """Frequency weighting, with both ends where documents are in halves; `repeated` is Σ n_x H over repeated labels."""
    singles = _mean(row_entropies, groups.single_rows) * len(groups.single_rows)
    conditional = (repeated + singles) / groups.n
    marginal, mean_entropy = populations.moments(groups)
    context = marginal - mean_entropy
    sizes, rows = groups.sizes
    share = rows / groups.n
    about = Information(
        marginal,
        conditional,
        context,
        min(context, groups.entropy),
        groups.n,
        groups.n_labels,
        groups.singleton_mass,
        sizes,
        share,
    )
    if row_null is None:
        return about
    about = replace(about, null_rows=marginal - float(share @ row_null(sizes)), gap=row_null.gap)
    if groups.halves is None or log_means is None:
        return about
    marginals = populations.marginals(groups.halves, groups)
    ends = bracket(plane, row_entropies, groups, bags, log_means, conditional, marginals)
    documents = marginals.rows_per_document

    def null_by_document(dependence: float) -> np.ndarray:
        by_size = growth_of_null(row_null.gap, sizes, dependence)
        return (groups.sizes_by_document @ by_size - documents * float(share @ by_size)) / groups.n

    return replace(about, bracket=ends, null_influence=null_by_document, context_influence=marginals.context_influence)


def _over_labels(
    weighting: str,
    kept: np.ndarray,
    sums: Float[Tensor, "repeated bins"],
    counts: np.ndarray,
    label_entropies: np.ndarray,
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    row_null: RowNull | None,
    marginal: float,
) -> Information:
    """Every label with min_count rows or more counts the same; min_count is at least 2, so singles never enter."""
    n_kept, kept_counts = len(kept), counts[kept]
    conditional = float(label_entropies[kept].mean())
    entropy_sums = groups.sums(row_entropies.unsqueeze(1).to(sums.dtype)).cpu().double().numpy()[kept, 0]
    mean_context = float((entropy_sums / kept_counts).mean())
    sizes, labels = np.unique(kept_counts, return_counts=True)
    null, gap = None, None
    if weighting == "uniform":
        index = torch.from_numpy(kept).to(sums.device)
        means = sums[index].cpu().double() / torch.from_numpy(kept_counts).unsqueeze(1)
        marginal = entropy(means.mean(dim=0))
        context = marginal - mean_context
        if row_null is not None:
            effective = n_kept**2 / float((1 / kept_counts).sum())
            null = float(row_null(np.array(effective))) - float(row_null(kept_counts).mean())
            gap = _scaled(row_null.gap, context / max(float(row_null.gap(np.array(1.0))), 1e-30))
        ceiling = min(context, float(np.log(n_kept)))
    else:
        if row_null is not None:
            null = marginal - float(row_null(kept_counts).mean())
        ceiling = context = marginal - mean_context
    return Information(
        marginal,
        conditional,
        context,
        ceiling,
        int(kept_counts.sum()),
        n_kept,
        0.0,
        sizes,
        labels / n_kept,
        null,
        gap,
    )


def _scaled(gap: Gap, factor: float) -> Gap:
    """The row null's gap, brought to the information of another population's context."""
    return lambda n: gap(n) * factor
