"""InfoNCE: a trained lower bound on I(label; Z), read on documents that the critic has not seen.

Van den Oord, Li & Vinyals (2018), arXiv 1807.03748, eq. 4 and section 2.3: with N pairs (z_i, x_i) and a critic s,
I(X; Z) ≥ log N + ⟨s(z_i, x_i) − log Σ_j exp s(z_i, x_j)⟩ in expectation, whatever the critic; never above log N, so
min(log N, H(X)) is the ceiling. The critic is s(z, x) = g(z)·e_x + b_x with g a layer of 64 hidden units; e and b start
at 0, so that a label that was not trained on scores 0. Documents are split in two halves; a critic learns on one, stops
where pairs of an eighth of its documents are told apart best, and is read on the other; then the halves swap.

The bound holds for independent pairs: batches mix documents, and the interval is the spread of document means of
the scored rows for these critics (training again is not in it). There is no null: nothing to learn reads 0 or less.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student
from torch import Tensor, nn

from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, LEVEL, Refusal, document_groups
from infocomp.estimators.reservoir import Reservoir, reduced
from infocomp.estimators.sampled import Finding, SampledEstimator, label_entropy

HIDDEN = 64
EVERY = 25  # steps between two looks at the validation rows
PASSES = 4  # times that the held-out rows are dealt into batches anew
FEWEST_ROWS = 16


class InfoNceInformation(SampledEstimator):
    """A lower bound on the information of labels about rows; `negatives` is the N of log N."""

    has_null = False
    has_jackknife = False

    def __init__(
        self,
        dim: int,
        seed: int = 0,
        negatives: int = 256,
        steps: int = 400,
        size: int = 16_384,
        components: int | None = 32,
        reservoir: Reservoir | None = None,
    ) -> None:
        super().__init__(dim, seed, size, 2, reservoir)
        if negatives < 2:
            raise ValueError(f"negatives must be at least 2 (a pair to tell from another), got {negatives}.")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        self.negatives, self.steps, self.components = negatives, steps, components

    def _prepare(self, rows: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows components"]:
        """Principal components in units of the largest one's spread, or the coordinates where they are few."""
        found = reduced(rows, self.components)
        return (found - found.mean(axis=0)) / (found.std(axis=0).max() or 1.0)

    def _information(self, prepared: np.ndarray, ids: np.ndarray, documents: np.ndarray | None) -> Finding:
        units = np.arange(len(ids)) if documents is None else documents
        half = document_groups(units, 2)
        smallest = int(np.bincount(half, minlength=2).min())
        if len(np.unique(units)) < 4 or smallest < FEWEST_ROWS:
            raise Refusal(
                f"{len(np.unique(units))} documents with {smallest} rows in the smaller half are too few to train a "
                f"critic on one half and read it on the other: 4 documents and {FEWEST_ROWS} rows a half are needed"
            )
        count = min(self.negatives, smallest)
        # a study may run under inference_mode, in which nothing can be trained
        with torch.inference_mode(False), torch.enable_grad():
            rows = torch.from_numpy(prepared).float()
            labels = torch.from_numpy(np.unique(ids, return_inverse=True)[1])
            terms = torch.zeros(len(ids), dtype=torch.float64)
            times = torch.zeros(len(ids), dtype=torch.float64)
            for held_out in (0, 1):
                generator = torch.Generator().manual_seed(2 * self.seed + held_out)
                learning = np.flatnonzero(half != held_out)
                critic = self._trained(rows, labels, learning, units[learning], count, generator)
                score(critic, rows, labels, np.flatnonzero(half == held_out), count, generator, terms, times)
        mean, half_width, message = _by_document(terms.numpy(), times.numpy(), documents)
        ceiling = min(math.log(count), label_entropy(ids))
        told = f"at most log2 {count} = {math.log2(count):.3g} bits; {message}"
        return Finding(mean, ceiling, len(ids), half_width, told)

    def _trained(
        self,
        rows: Float[Tensor, "rows dim"],
        labels: Int[Tensor, "rows"],
        learning: Int[np.ndarray, "learning"],
        units: Int[np.ndarray, "learning"],
        count: int,
        generator: torch.Generator,
    ) -> "Critic":
        """A critic after the number of steps at which it did best on an eighth of the learning documents."""
        part = document_groups(units, 8)
        apart = learning[part == 0]
        train = torch.from_numpy(learning[part != 0])
        critic = Critic(rows.shape[1], int(labels.max()) + 1, generator)
        optimizer = torch.optim.AdamW(critic.parameters(), lr=5e-3, weight_decay=1e-2)
        best, kept = 0.0, critic.copy()
        size = min(count, len(train))
        batch_apart = min(count, len(apart))
        for step in range(1, self.steps + 1):
            batch = train[torch.randint(len(train), (size,), generator=generator)]
            loss = -bound_terms(critic, rows[batch], labels[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % EVERY == 0 or step == self.steps:
                terms, times = torch.zeros(len(rows)).double(), torch.zeros(len(rows)).double()
                look = torch.Generator().manual_seed(0)
                score(critic, rows, labels, apart, batch_apart, look, terms, times)
                reached = float(terms.sum() / times.sum())
                if reached > best:
                    best, kept = reached, critic.copy()
        return kept


class Critic(nn.Module):
    """s(z, x) = g(z)·e_x + b_x: scores of all pairs of some rows and some labels."""

    def __init__(self, dim: int, labels: int, generator: torch.Generator, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(dim, HIDDEN, generator=generator) / math.sqrt(dim))
        self.shift = nn.Parameter(torch.randn(HIDDEN, generator=generator))
        self.second = nn.Parameter(torch.randn(HIDDEN, width, generator=generator) / math.sqrt(HIDDEN))
        self.embedding = nn.Parameter(torch.zeros(labels, width))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, rows: Float[Tensor, "rows dim"], labels: Int[Tensor, "pairs"]) -> Float[Tensor, "rows pairs"]:
        seen = torch.nn.functional.gelu(rows @ self.first + self.shift) @ self.second
        return seen @ self.embedding[labels].T + self.bias[labels]

    def copy(self) -> "Critic":
        """The same critic with parameters of its own, without gradients."""
        twin = Critic(len(self.first), len(self.bias), torch.Generator(), self.second.shape[1])
        twin.load_state_dict(self.state_dict())
        return twin.requires_grad_(False)


def bound_terms(critic: nn.Module, rows: Float[Tensor, "pairs dim"], labels: Int[Tensor, "pairs"]) -> Tensor:
    """log N + s(z_i, x_i) − log Σ_j exp s(z_i, x_j) of each of N pairs, in nats: their mean is the bound."""
    scores = critic(rows, labels)
    return math.log(len(rows)) + scores.diagonal() - torch.logsumexp(scores, dim=1)


@torch.no_grad()
def score(
    critic: nn.Module,
    rows: Float[Tensor, "rows dim"],
    labels: Int[Tensor, "rows"],
    scored: Int[np.ndarray, "scored"],
    count: int,
    generator: torch.Generator,
    terms: Float[Tensor, "rows"],
    times: Float[Tensor, "rows"],
) -> None:
    """Add each scored row's terms to `terms` and how often it was scored to `times`, in full batches of `count`."""
    index = torch.from_numpy(scored)
    for _ in range(PASSES):
        order = index[torch.randperm(len(index), generator=generator)]
        for batch in order[: len(order) // count * count].view(-1, count):
            terms[batch] += bound_terms(critic, rows[batch], labels[batch]).double()
            times[batch] += 1


def _by_document(
    terms: Float[np.ndarray, "rows"], times: Float[np.ndarray, "rows"], documents: Int[np.ndarray, "rows"] | None
) -> tuple[float, float, str]:
    """Mean of the terms in nats, half width of its 95 % interval (NaN: none) and how that came about."""
    mean = float(terms.sum() / times.sum())
    if not terms.any():
        return mean, float("nan"), "no interval: no critic did better than chance on documents kept for that look"
    if documents is None:
        return mean, float("nan"), "no interval: no documents were given, rows were split at random"
    index = np.unique(documents, return_inverse=True)[1]
    count = int(index.max()) + 1
    if count < FEWEST_DOCUMENTS:
        return mean, float("nan"), f"no interval: {count} documents, at least {FEWEST_DOCUMENTS} are needed"
    influence = np.bincount(index, terms - mean * times) / times.sum()
    error = math.sqrt(count / (count - 1) * float((influence**2).sum()))
    half = error * float(student.ppf((1 + LEVEL) / 2, count - 1))
    return mean, half, f"interval: spread over {count} scored documents, for these critics"
