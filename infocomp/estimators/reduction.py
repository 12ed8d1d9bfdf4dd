"""One plane of assignments against one label set: entropies, informations, ceilings and both nulls, in nats.

Weightings (P(x) is the weight of label x, n_x its count, N the rows):

- frequency: P(x) = n_x / N, the plug-in mutual information I(label; J).
- uniform: P(x) = 1/K over the K labels with n_x ≥ min_count; the marginal of J and the ceiling are reweighted too, so
  that it is a mutual information again, of another population.
- uniform_mixed: frequency-weighted marginal, uniform conditional, as code published with Conklin et al.'s predecessor
  does (hcoxec/h, min_labels = 5). Not a mutual information; for reproduction.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.groups import Groups
from infocomp.estimators.nulls import RowNull, entropies_of_sums

WEIGHTINGS = ("frequency", "uniform", "uniform_mixed")
NOT_MUTUAL = "not a mutual information: frequency-weighted marginal, uniform conditional"
PIECE = 65_536


@dataclass(frozen=True)
class Information:
    """I = marginal − conditional under one weighting, in nats; `ceiling` is min(context's information, H(label)).

    `n`, `n_labels` and `singleton_mass` describe the rows and labels that this weighting counts.
    """

    marginal: float
    conditional: float
    ceiling: float
    n: int
    n_labels: int
    singleton_mass: float
    null_rows: float | None = None

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

    def moments(self, groups: Groups | None = None) -> tuple[float, float]:
        """H(J) and E H(A) over the rows of a label set, or over all rows, in nats."""
        key = None if groups is None else groups.population
        if key not in self._moments:
            rows = None if groups is None or key is None else groups.all_rows()
            every = torch.arange(len(self._plane)) if rows is None else rows
            self._moments[key] = entropy(mean_row(self._plane, rows)), _mean(self._row_entropies, every)
        return self._moments[key]

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
    sums = groups.sums(plane)
    counts = groups.counts[groups.repeated].astype(np.float64)
    label_entropies = entropies_of_sums(sums, torch.from_numpy(counts)).numpy()
    marginal, mean_entropy = populations.moments(groups)
    context = marginal - mean_entropy
    row_null = populations.row_null(groups) if with_row_null else None

    found: dict[str, Information | None] = {}
    for weighting in weightings:
        if weighting == "frequency":
            singles = _mean(row_entropies, groups.single_rows) * len(groups.single_rows)
            conditional = (float(counts @ label_entropies) + singles) / groups.n
            sizes, rows = groups.sizes
            null = None if row_null is None else marginal - float(rows @ row_null(sizes)) / groups.n
            ceiling = min(context, groups.entropy)
            about = (groups.n, groups.n_labels, groups.singleton_mass)
            found[weighting] = Information(marginal, conditional, ceiling, *about, null)
        else:
            kept = np.flatnonzero(counts >= min_count)
            found[weighting] = (
                _over_labels(weighting, kept, sums, counts, label_entropies, row_entropies, groups, row_null, marginal)
                if len(kept)
                else None
            )
    return found


def _mean(row_entropies: Float[Tensor, "rows"], rows: Tensor) -> float:
    """Mean H(A) of some rows, 0 for none."""
    return float(row_entropies[rows.to(row_entropies.device)].cpu().double().mean()) if len(rows) else 0.0


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
    about = (int(kept_counts.sum()), n_kept, 0.0)
    null = None
    if weighting == "uniform":
        index = torch.from_numpy(kept).to(sums.device)
        means = sums[index].cpu().double() / torch.from_numpy(kept_counts).unsqueeze(1)
        marginal = entropy(means.mean(dim=0))
        if row_null is not None:
            effective = n_kept**2 / float((1 / kept_counts).sum())
            null = float(row_null(np.array(effective))) - float(row_null(kept_counts).mean())
        ceiling = min(marginal - mean_context, float(np.log(n_kept)))
    else:
        if row_null is not None:
            null = marginal - float(row_null(kept_counts).mean())
        ceiling = marginal - mean_context
    return Information(marginal, conditional, ceiling, *about, null)
