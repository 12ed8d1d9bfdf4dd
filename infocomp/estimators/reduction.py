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
from jaxtyping import Float
from torch import Tensor

from infocomp.estimators.groups import Groups
from infocomp.estimators.nulls import RowNull, entropies_of_sums

WEIGHTINGS = ("frequency", "uniform", "uniform_mixed")
NOT_MUTUAL = "not a mutual information: frequency-weighted marginal, uniform conditional"
PIECE = 65_536


@dataclass(frozen=True)
class Information:
    """I = marginal − conditional under one weighting, in nats, with the context's information as its ceiling."""

    marginal: float
    conditional: float
    context: float
    null_rows: float | None = None

    @property
    def value(self) -> float:
        return self.marginal - self.conditional


def mean_row(plane: Float[Tensor, "rows bins"], rows: Tensor | None = None) -> Float[Tensor, "bins"]:
    """Mean of all rows, or of those named, in float64."""
    total = torch.zeros(plane.shape[1], dtype=torch.float64, device=plane.device)
    n = len(plane) if rows is None else len(rows)
    for start in range(0, n, PIECE):
        piece = plane[start : start + PIECE] if rows is None else plane[rows[start : start + PIECE].to(plane.device)]
        total += piece.sum(dim=0).double()
    return total / max(n, 1)


def entropy(distribution: Float[Tensor, "bins"]) -> float:
    """Entropy in nats of one distribution."""
    return float(torch.special.entr(distribution.double()).sum())


def informations(
    plane: Float[Tensor, "rows bins"],
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    weightings: tuple[str, ...],
    min_count: int,
    row_null: RowNull | None,
    marginal: float | None = None,
    context: float | None = None,
) -> dict[str, Information | None]:
    """Information of one label set about J, for each weighting; None where no label reaches `min_count`.

    `marginal` is H(J) and `context` H(J) − E H(A) over all rows where these are known already; they are computed anew
    over the labelled rows where some rows have no label. `row_null` is left out (None) for a null's own reduction.
    """
    if groups.n == 0:
        return dict.fromkeys(weightings)
    sums = groups.sums(plane)
    counts = torch.from_numpy(groups.counts[groups.repeated].astype(np.float64))
    label_entropies = entropies_of_sums(sums, counts).cpu().numpy()
    singles = row_entropies[groups.single_rows.to(row_entropies.device)].double()
    if marginal is None or context is None or groups.n < groups.n_all:
        labelled = groups.all_rows()
        marginal = entropy(mean_row(plane, labelled))
        context = marginal - float(row_entropies[labelled.to(row_entropies.device)].double().mean())

    found: dict[str, Information | None] = {}
    for weighting in weightings:
        if weighting == "frequency":
            conditional = (float(counts.numpy() @ label_entropies) + float(singles.sum())) / groups.n
            null = None
            if row_null is not None:
                null = marginal - float(groups.counts @ row_null(groups.counts)) / groups.n
            found[weighting] = Information(marginal, conditional, context, null)
        else:
            kept = np.flatnonzero(counts.numpy() >= min_count)
            found[weighting] = _over_labels(
                weighting, kept, sums, counts, label_entropies, row_entropies, groups, row_null, marginal
            )
    return found


def _over_labels(
    weighting: str,
    kept: np.ndarray,
    sums: Float[Tensor, "repeated bins"],
    counts: Float[Tensor, "repeated"],
    label_entropies: np.ndarray,
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    row_null: RowNull | None,
    marginal: float,
) -> Information | None:
    """Every label with min_count rows or more counts the same; min_count is at least 2, so singles never enter."""
    if not len(kept):
        return None
    kept_counts = counts.numpy()[kept]
    conditional = float(label_entropies[kept].mean())
    entropy_sums = groups.sums(row_entropies.unsqueeze(1).to(sums.dtype)).double().cpu().numpy()[kept, 0]
    mean_context = float((entropy_sums / kept_counts).mean())
    null = None
    if weighting == "uniform":
        index = torch.from_numpy(kept).to(sums.device)
        weights = (1 / counts[kept]).to(sums.device)
        reweighted = (sums[index].double() * weights.unsqueeze(1)).mean(dim=0)
        marginal = entropy(reweighted)
        if row_null is not None:
            effective = len(kept) ** 2 / float((1 / kept_counts).sum())
            null = float(row_null(np.array(effective))) - float(row_null(kept_counts).mean())
    elif row_null is not None:
        null = marginal - float(row_null(kept_counts).mean())
    return Information(marginal, conditional, marginal - mean_context, null)
