"""Two ends of an information whose direction is known in expectation, and what each document weighs in them.

Documents are in halves A and B. With q_A(j|x) learnt on A, Ĥ plug-in entropies of all rows and CE_B the mean code
length of the rows of B, averaged over both ways round, in nats:

    lower = Ĥ(J) − CE_B(q_A(·|x))       a plug-in entropy is low, a held-out cross-entropy high
    upper = CE_B(p_A(j)) − Ĥ(J|x)       the other way round

so that E lower ≤ I(x; J) ≤ E upper for independent documents of equal length and frequency weighting.

q_A(j|x) = (Σ_{i ∈ A, x_i = x} A_ij + α p_A(j)) / (n_A(x) + α). α is the ratio of the spread within labels to that
between them in the metric 1/p, read from products of the two halves' label means: one number for a label set, and
the one thing that q_A takes from B; near the best α the length of code is flat in it, so that directions stay.
A label that A never saw is coded by p_A.

`influence` holds the derivative of each end, and of the plug-in, by the weight of every document (the infinitesimal
jackknife, Efron 1982, ch. 6), with what it adds as a document that is scored and as one that is learnt from; of the
latter the part that all its rows of a label share is the difference that a document fewer makes (the jackknife).
Standard errors follow from it: var = D/(D − 1) Σ_d influence_d².
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.groups import Groups
from infocomp.estimators.halves import Halves

CHUNK = 4096
BLOCK = {"cpu": 2048}  # labels at once: in cache on a CPU, many on a GPU
MOST_SHRINKAGE = 1e6
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Bracket:
    """Both ends in nats, and each document's influence on "lower", "upper" and the plug-in "value"."""

    lower: float
    upper: float
    influence: dict[str, Float[np.ndarray, "documents"]]


@dataclass(frozen=True)
class Marginals:
    """Of the rows that a label set covers: p(j) of all rows and of each half, their entropies in nats, row counts.

    `square` is the mean of Σ_j A_j²/p_j. The influences are each document's on Ĥ(J), on the held-out cross-entropy of
    the marginal, and on the context's information Ĥ(J) − E H(A).
    """

    p: Float[Tensor, "bins"]
    of_half: Float[Tensor, "2 bins"]
    n_rows: tuple[int, int]
    entropy: float
    cross_entropy: float
    square: float
    rows_per_document: Float[np.ndarray, "documents"]
    half_of_document: Int[np.ndarray, "documents"]
    entropy_influence: Float[np.ndarray, "documents"]
    cross_influence: Float[np.ndarray, "documents"]
    context_influence: Float[np.ndarray, "documents"]


def marginals_of(
    plane: Float[Tensor, "rows bins"],
    row_entropies: Float[Tensor, "rows"],
    p: Float[Tensor, "bins"],
    halves: Halves,
    covered: np.ndarray | None,
) -> Marginals:
    """`p` is the mean row of those covered (all where `covered` is None), in float64 on the CPU."""
    inside = np.ones(len(plane)) if covered is None else covered.astype(np.float64)
    n = int(inside.sum())
    in_first = torch.from_numpy(np.where(halves.second, 0.0, inside)).to(plane.device, plane.dtype)
    first = torch.zeros(plane.shape[1], dtype=torch.float64)
    for start in range(0, len(plane), CHUNK):
        first += (in_first[start : start + CHUNK] @ plane[start : start + CHUNK]).cpu().double()
    n_first = int(inside[~halves.second].sum())
    n_rows = (n_first, n - n_first)
    of_half = torch.stack([first / max(n_rows[0], 1), (p * n - first) / max(n_rows[1], 1)]).clamp_(min=0)
    logs, other = of_half.clamp(min=TINY).log().flip(0), of_half.flip(0)  # of what the other half learnt
    cross = -(of_half * logs).sum(dim=1)
    taught = torch.where(of_half > 0, other / of_half.clamp(min=TINY), 0.0)

    columns = torch.cat([p.clamp(min=TINY).log()[None], logs + taught, 1 / p.clamp(min=TINY)[None]])
    log_p, *by_half, squares = _products(plane, columns)
    square = float(squares @ inside / n)
    rows = halves.per_document(inside)
    half = np.zeros(halves.n_documents, dtype=np.int64)
    half[halves.document[halves.second]] = 1
    crossed = halves.per_document(np.where(halves.second, by_half[1], by_half[0]) * inside)
    entropy = float(torch.special.entr(p).sum())
    mean_entropy = row_entropies.cpu().double().numpy()
    mean = float(mean_entropy @ inside / n)
    entropy_influence = -(halves.per_document(log_p * inside) + entropy * rows) / n
    return Marginals(
        p=p,
        of_half=of_half,
        n_rows=n_rows,
        entropy=entropy,
        cross_entropy=float(cross.mean()),
        square=square,
        rows_per_document=rows,
        half_of_document=half,
        entropy_influence=entropy_influence,
        cross_influence=-(crossed + (cross.numpy()[half] - 1) * rows) / (2 * np.maximum(n_rows, 1)[half]),
        context_influence=entropy_influence - (halves.per_document(mean_entropy * inside) - mean * rows) / n,
    )


def _products(plane: Float[Tensor, "rows bins"], columns: Float[Tensor, "columns bins"]) -> list[np.ndarray]:
    """Each row times each column, in float64 on the CPU; for the last column the row's squares are taken."""
    weights = columns.to(plane.device, plane.dtype).T.contiguous()
    found = plane.new_empty(len(plane), weights.shape[1])
    for start in range(0, len(plane), CHUNK):
        piece = plane[start : start + CHUNK]
        found[start : start + CHUNK, :-1] = piece @ weights[:, :-1]
        found[start : start + CHUNK, -1] = (piece * piece) @ weights[:, -1]
    return list(found.cpu().double().numpy().T)


def bracket(
    plane: Float[Tensor, "rows bins"],
    row_entropies: Float[Tensor, "rows"],
    groups: Groups,
    bags: Float[Tensor, "bags bins"],
    log_means: Float[Tensor, "repeated bins"],
    conditional: float,
    marginals: Marginals,
) -> Bracket:
    """Both ends of one label set under frequency weighting.

    `bags` are its sums half by half, `log_means` the logarithms of p(j|x) of the repeated labels, `conditional` the
    plug-in H(J|x) in nats. ValueError where the groups do not know their halves.
    """
    held_out, table = _held_out(groups, bags, marginals)
    halves = groups.halves
    assert halves is not None
    rows, half = marginals.rows_per_document, marginals.half_of_document

    nothing = log_means.new_zeros(1, plane.shape[1])
    labelled = halves.per_document(_rows_dot(plane, torch.cat([log_means, nothing]), groups.place))
    singles = groups.single_rows.numpy()  # A·log A of a label's only row is −H(A)
    alone = row_entropies[groups.single_rows.to(row_entropies.device)].cpu().double().numpy()
    labelled -= np.bincount(halves.document[singles], weights=alone, minlength=halves.n_documents)
    labelled = (labelled + conditional * rows) / groups.n

    scored = halves.per_document(_rows_dot(plane, torch.cat([table, nothing]), groups.place_of_both))
    # more rows to learn from also mean less shrinkage: documents are compared at equal numbers of rows
    excess = np.bincount(half, weights=scored, minlength=2) / np.maximum(marginals.n_rows, 1)
    scored -= excess[half] * rows
    influence = {
        "value": marginals.entropy_influence + labelled,
        "lower": marginals.entropy_influence + scored,
        "upper": marginals.cross_influence + labelled,
    }
    return Bracket(marginals.entropy - held_out, marginals.cross_entropy - conditional, influence)


def _held_out(
    groups: Groups, bags: Float[Tensor, "bags bins"], marginals: Marginals
) -> tuple[float, Float[Tensor, "places bins"]]:
    """CE of each half under what the other learnt, averaged, and minus its derivative by the weight of a row.

    The derivative is the row's product with the table's entry for its label and half (assignments sum to one, so
    that constants are spread over the bins); the last two entries are those of labels that only one half knows.
    Works through blocks of labels that stay in cache.
    """
    shared = _Shared.of(groups, bags)
    alpha, totals = _shrinkage(shared, marginals)
    table = bags.new_zeros((len(shared.first) + 1, 2, bags.shape[1]))
    lengths = [0.0, 0.0]  # of the half that is scored
    ratios = torch.zeros(2, bags.shape[1], dtype=torch.float64)  # Σ_x scored / mixed, for each half that learns
    priors = [p.clamp(min=TINY).to(bags) for p in marginals.of_half]
    for block, sums, counts, documents in shared.blocks():
        for learnt, scored in ((0, 1), (1, 0)):
            share = 1 / (2 * max(marginals.n_rows[scored], 1))
            mixed = torch.add(sums[learnt], priors[learnt], alpha=alpha).clamp_(min=TINY)
            logs = torch.div(mixed, (counts[learnt] + alpha).unsqueeze(1)).log_()
            lengths[scored] -= float(torch.linalg.vecdot(sums[scored], logs).cpu().double().sum())
            ratio = torch.div(sums[scored], mixed)  # what a row that is learnt from makes of its label
            ratios[learnt] += ratio.sum(dim=0).cpu().double()
            lost = _lost_without_a_document(sums, logs, priors[learnt], alpha, counts, documents, learnt)
            lost -= torch.linalg.vecdot(ratio, sums[learnt]).div_(counts[learnt])
            table[block, learnt].add_(ratio.add_(lost.unsqueeze(1)), alpha=share)
            table[block, scored].add_(logs, alpha=share)  # the code length of a row that is scored
    for learnt, scored in ((0, 1), (1, 0)):
        p, size, other_size = marginals.of_half[learnt], *np.maximum(marginals.n_rows, 1)[[learnt, scored]].tolist()
        share, log_p = 1 / (2 * other_size), p.clamp(min=TINY).log()
        unmet = marginals.of_half[scored] * other_size - totals[scored]
        lengths[scored] = (lengths[scored] - float(unmet @ log_p)) / other_size
        by_prior = (alpha * ratios[learnt] + unmet / p.clamp(min=TINY)) * (share / size)
        table[:, learnt].add_((by_prior - by_prior @ p).to(bags))  # what it makes of the marginal
        table[:, scored].add_(share * lengths[scored])
        table[-1, scored].add_(log_p.to(bags), alpha=share)
    return sum(lengths) / 2, table.view(-1, bags.shape[1])


@dataclass(frozen=True)
class _Shared:
    """Labels that both halves know: where their first bag is, and rows and documents of each half."""

    bags: Float[Tensor, "bags bins"]
    first: Int[Tensor, "both"]
    counts: Float[Tensor, "2 both"]
    documents: Float[Tensor, "2 both"]

    @classmethod
    def of(cls, groups: Groups, bags: Float[Tensor, "bags bins"]) -> "_Shared":
        assert groups.bag_documents is not None
        here = groups._on(bags.device)
        places = groups.first_bag[groups.both].numpy()
        counts, documents = (
            torch.from_numpy(np.stack([of[places], of[places + 1]])).to(bags)
            for of in (groups.bag_counts, groups.bag_documents)
        )
        return cls(bags, here.first_bag[here.both], counts, documents)

    def blocks(self) -> Iterator[tuple[slice, list[Tensor], Float[Tensor, "2 block"], Float[Tensor, "2 block"]]]:
        """Sums, counts and documents of both halves, block by block."""
        size = BLOCK.get(self.bags.device.type, 65_536)
        for start in range(0, len(self.first), size):
            block = slice(start, min(start + size, len(self.first)))
            first = self.first[block]
            sums = [self.bags.index_select(0, first), self.bags.index_select(0, first + 1)]
            yield block, sums, self.counts[:, block], self.documents[:, block]


def _lost_without_a_document(
    sums: list[Float[Tensor, "block bins"]],
    logs: Float[Tensor, "block bins"],
    p: Float[Tensor, "bins"],
    alpha: float,
    counts: Float[Tensor, "2 block"],
    documents: Float[Tensor, "2 block"],
    learnt: int,
) -> Float[Tensor, "block"]:
    """By how much the scored rows of a label get longer when the half that learns lacks one document, per row of it.

    A derivative would miss it: the only document that holds a label takes the label with it. The document is given
    the label's mean row, and as many rows as its documents have on average.
    """
    n = counts[learnt]
    taken = n / documents[learnt]
    left = sums[learnt] * (1 - 1 / documents[learnt]).unsqueeze(1)
    left.add_(p, alpha=alpha).clamp_(min=TINY).div_((n - taken + alpha).unsqueeze(1)).log_()
    return torch.linalg.vecdot(sums[1 - learnt], torch.sub(logs, left, out=left)).div_(taken)


def _shrinkage(shared: _Shared, marginals: Marginals) -> tuple[float, Float[Tensor, "2 bins"]]:
    """α, and the sum of the rows of all shared labels, half by half.

    α = spread within labels / spread between them, Σ_j (·)²/p_j; between from products of a label's two halves.
    """
    totals = torch.zeros(2, shared.bags.shape[1], dtype=torch.float64)
    inverse = (1 / marginals.p.clamp(min=TINY)).to(shared.bags)
    agreement, weight = 0.0, 0.0
    for _, sums, counts, _ in shared.blocks():
        for half in (0, 1):
            totals[half] += sums[half].sum(dim=0).cpu().double()
        products = torch.linalg.vecdot(sums[0] * inverse, sums[1]).div_(counts[0] * counts[1])
        weights = torch.minimum(counts[0], counts[1])
        agreement += float((weights * products).cpu().double().sum())
        weight += float(weights.cpu().double().sum())
    if not weight:
        return MOST_SHRINKAGE, totals
    between = agreement / weight - 1
    within = marginals.square - 1 - between
    return MOST_SHRINKAGE if between * MOST_SHRINKAGE <= within else max(within / between, 1e-3), totals


def _rows_dot(
    plane: Float[Tensor, "rows bins"], table: Float[Tensor, "places bins"], place: Int[Tensor, "rows"]
) -> Float[np.ndarray, "rows"]:
    """Each row times the table's entry at its place, through a buffer that stays in cache."""
    found = plane.new_empty(len(plane))
    buffer = plane.new_empty((min(CHUNK, len(plane)), plane.shape[1]))
    place = place.to(plane.device)
    for start in range(0, len(plane), CHUNK):
        piece = plane[start : start + CHUNK]
        taken = torch.index_select(table, 0, place[start : start + CHUNK], out=buffer[: len(piece)])
        torch.linalg.vecdot(piece, taken, out=found[start : start + CHUNK])
    return found.cpu().double().numpy()
