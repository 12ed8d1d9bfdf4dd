"""How short a description of the weights can be that keeps what the model does: rate–distortion complexity, in bits.

DeMoss, Sapora, Foerster, Hawes & Posner (2024), arXiv 2412.09810: the complexity of weights θ at ε is the length of the
shortest description of weights θ̂ with |L(θ) − L(θ̂)| < ε, L the loss on the training data in nats, and ε = 1 nat by
default. A real compressor bounds it from above: weights are rounded and made low-rank (`weight_code`), the code of the
integers by bzip2, as published, is decoded, and it is the decoded weights whose loss is compared. Every number here is
such an upper bound, for one architecture that the decoder knows.

The measure is not invariant to weights rescaled against each other, since one Δ serves all of them; and untrained
weights cost next to nothing at ε = 1 nat, because all weights 0 have almost their loss. A larger ε never gives a
smaller Δ by bisection, but a coarser Δ may cost a few percent more where few levels are left: the integers of weights
between −0.53 and 0.53 had more entropy at Δ = 0.6 than at 0.35.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from infocomp.grokking.description_search import Bayesian, Bisection, Search, Sweep
from infocomp.grokking.weight_code import CODERS, WeightCode, shortest

SEARCHES: dict[str, Callable[[int], Search]] = {
    "bisection": lambda seed: Bisection(),
    "sweep": lambda seed: Sweep(),
    "bayesian": lambda seed: Bayesian(seed=seed),
}


@dataclass(frozen=True)
class Description:
    """The shortest description that the search found.

    bits: its length. naive_bits: the compressor's code of the raw weights. delta: the rounding step. tau: the share of
    the singular values that matrices keep, None where none was factored. factored: matrices written as factors. loss
    and loss_compressed: of the model's weights and of the decoded ones, nats. epsilon: nats. one_sided: whether a loss
    that falls by more than ε was allowed. coder: the one that gave the length. evaluations: of the loss. seconds: wall.
    """

    bits: int
    naive_bits: int
    delta: float
    tau: float | None
    factored: int
    loss: float
    loss_compressed: float
    epsilon: float
    one_sided: bool
    search: str
    coder: str
    parameters: int
    evaluations: int
    seconds: float


def description_bits(
    model: nn.Module,
    loss: Callable[[], float],
    epsilon: float = 1.0,
    search: str | Search = "bisection",
    coders: Sequence[str] = ("bz2",),
    one_sided: bool = False,
    seed: int = 0,
) -> Description:
    """Length in bits of the shortest description of the model's parameters whose loss lies within ε nats.

    `loss` gives the mean loss on the training data, nats, with the weights that the model has at that moment; it is
    called without gradients, for each candidate. `search` is "bisection" (Δ alone, about a dozen evaluations, blind to
    rank: of weights that generalize up to five times the length that others find), "sweep" (that at a few ranks, 20 to
    100), "bayesian" (Δ and rank, 62 more than bisection; `seed` is its own) or an object of `description_search`. Of
    several `coders` (bz2, xz, zstd) the shortest counts. `one_sided` allows any fall of the loss, as the authors'
    program does; their text, and the default, take |·|. The weights are the same bits afterwards, also when `loss`
    raises or is interrupted. A transformer of 147,328 weights whose loss takes 5 ms: 0.2 s by bisection, 0.2 to 0.8 s
    by the sweep, 1.1 to 3 s by the Bayesian search.
    Source: DeMoss et al. (2024), arXiv 2412.09810, algorithms 1 and 2.
    ValueError: ε not above 0, a loss or weight that is not finite, or no candidate within ε. KeyError: unknown search
    or coder. RuntimeError: a loss that gives two numbers for the same weights.
    """
    started = time.perf_counter()
    if not epsilon > 0:
        raise ValueError(f"epsilon is {epsilon} and must be above 0 nats; 1 nat is the published value.")
    if isinstance(search, str):
        if search not in SEARCHES:
            raise KeyError(f"no search named {search!r}; known are {', '.join(map(repr, SEARCHES))}.")
        search = SEARCHES[search](seed)
    with torch.no_grad(), _weights_kept(model) as parameters:
        weights = _Weights(parameters, loss, epsilon, coders, one_sided)
        choice = search(weights)
        if choice is None:
            raise ValueError(
                f"no rounding that search {search.name!r} tried keeps the loss {weights.loss:.4g} within epsilon = "
                f"{epsilon:g} nats; take a larger epsilon."
            )
        codes = weights.code.codes(choice.delta, choice.tau)
        coder, coded = shortest(weights.code.packed(codes), coders)
        decoded = weights.code.unpacked(CODERS[coder].decode(coded))
        after = weights.loss_of(weights.code.weights(decoded))
        if not weights.within(after):
            raise RuntimeError(
                f"the decoded weights have loss {after:.6g} and the model {weights.loss:.6g}, {epsilon:g} nats or more "
                "apart, though the search found less: the loss must give one number for the same weights; take out "
                "dropout and random batches."
            )
    return Description(
        bits=8 * len(coded),
        naive_bits=weights.naive_bits,
        delta=choice.delta,
        tau=choice.tau,
        factored=codes.factored,
        loss=weights.loss,
        loss_compressed=after,
        epsilon=epsilon,
        one_sided=one_sided,
        search=search.name,
        coder=coder,
        parameters=sum(one.numel() for one in parameters),
        evaluations=weights.evaluations,
        seconds=time.perf_counter() - started,
    )


class _Weights:
    """The problem that a search sees: the loss and the length at each choice."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        loss: Callable[[], float],
        epsilon: float,
        coders: Sequence[str],
        one_sided: bool,
    ) -> None:
        self._parameters, self._loss, self._coders = parameters, loss, coders
        self._epsilon, self._one_sided = epsilon, one_sided
        self.code = WeightCode([one.detach().cpu().to(torch.float64).numpy() for one in parameters])
        raw = b"".join(one.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for one in parameters)
        self.naive_bits = 8 * len(shortest(raw, coders)[1])
        self.evaluations = 1
        self.loss = float(loss())
        if not np.isfinite(self.loss):
            raise ValueError(
                f"the loss of the model is {self.loss}, which nothing is within ε of; take an earlier step."
            )

    @property
    def largest(self) -> float:
        return self.code.largest

    def loss_of(self, weights: Sequence[np.ndarray]) -> float:
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.copy_(torch.from_numpy(weight))
        self.evaluations += 1
        return float(self._loss())

    def within(self, loss: float) -> bool:
        """Whether a loss counts as that of the model; one that is not a number never does."""
        apart = loss - self.loss
        return (apart if self._one_sided else abs(apart)) < self._epsilon

    def holds(self, delta: float, tau: float | None) -> bool:
        return self.within(self.loss_of(self.code.weights(self.code.codes(delta, tau))))

    def bits(self, delta: float, tau: float | None) -> int:
        return 8 * len(shortest(self.code.packed(self.code.codes(delta, tau)), self._coders)[1])


@contextmanager
def _weights_kept(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The parameters of the model, each once, whose values return however the block ends."""
    parameters = list(model.parameters())
    kept = [one.detach().clone() for one in parameters]
    try:
        yield parameters
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
