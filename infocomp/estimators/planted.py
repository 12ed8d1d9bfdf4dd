"""Rows and labels whose information about the soft bin is known: planted label directions in Gaussian noise.

A row is z = noise + s(x)·μ_x + topic of its document, with μ_x and all noise standard normal in `dim` dimensions;
labels follow a Zipf law, some of them repeated from earlier in the same document. The information I(x; J) has no closed
form; `truth` computes it from many rows of every label, with the half-sample jackknife for what bias is left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.sphere import SoftAssigner, draw_anchors, exact_temperature

Signal = Callable[[Float[np.ndarray, "labels"]], Float[np.ndarray, "labels"]]
LABELS_AT_ONCE = 50


@dataclass(frozen=True)
class PlantedLaw:
    """`signal` gives s for the share rank/V of each label, `burstiness` the share of tokens copied in a document.

    `stretch` (k, large, small) multiplies the noise by `large` in the first k dimensions and by `small` in the others.
    """

    name: str
    signal: Signal
    exponent: float = 1.0
    topic: float = 0.0
    noise: float = 1.0
    burstiness: float = 0.0
    vocabulary: int = 5000
    dim: int = 256
    bins: int = 100
    stretch: tuple[int, float, float] | None = None

    @cached_property
    def anchors(self) -> Float[Tensor, "1 bins dim"]:
        """One draw of anchors, the same for sampling and truth."""
        return draw_anchors(self.dim, self.bins, 1, 0)

    @cached_property
    def frequencies(self) -> Float[np.ndarray, "labels"]:
        """p(x)."""
        weights = np.arange(1, self.vocabulary + 1) ** -self.exponent
        return weights / weights.sum()

    @cached_property
    def directions(self) -> Float[Tensor, "labels dim"]:
        """s(x)·μ_x."""
        ranks = np.arange(1, self.vocabulary + 1) / self.vocabulary
        scale = torch.from_numpy(
            np.asarray(self.signal(ranks), dtype=np.float32) * np.ones(self.vocabulary, np.float32)
        )
        generator = torch.Generator().manual_seed(7)
        return torch.randn(self.vocabulary, self.dim, generator=generator) * scale.unsqueeze(1)

    @cached_property
    def scales(self) -> Float[Tensor, "dim"]:
        """Standard deviation of the noise in each dimension."""
        scales = torch.full((self.dim,), self.noise)
        if self.stretch is not None:
            k, large, small = self.stretch
            scales *= torch.where(torch.arange(self.dim) < k, large, small)
        return scales

    def sample(
        self, documents: int, tokens: int, seed: int
    ) -> tuple[Float[Tensor, "rows dim"], Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
        """Rows, labels and document numbers of `documents` documents of `tokens` tokens each."""
        rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(1000 + seed)
        labels = rng.choice(self.vocabulary, (documents, tokens), p=self.frequencies)
        if self.burstiness:
            every = np.arange(documents)
            for place in range(1, tokens):
                copied = rng.random(documents) < self.burstiness
                earlier = rng.integers(0, place, documents)
                labels[copied, place] = labels[every, earlier][copied]
        x, document = labels.ravel(), np.repeat(np.arange(documents), tokens)
        rows = torch.randn(len(x), self.dim, generator=generator) * self.scales + self.directions[x]
        if self.topic:
            rows += self.topic * torch.randn(documents, self.dim, generator=generator)[document]
        return rows, x, document

    def truth(self, rows: int = 512) -> float:
        """I(x; J) in nats under `anchors`, from `rows` rows of every label; twice as many halve what error is left."""
        assign = SoftAssigner(self.anchors, exact_temperature(self.dim, self.bins))
        generator = torch.Generator().manual_seed(5)
        spread = (self.scales**2 + self.topic**2).sqrt()
        marginal, conditional = torch.zeros(self.bins, dtype=torch.float64), 0.0
        for start in range(0, self.vocabulary, LABELS_AT_ONCE):
            means = self.directions[start : start + LABELS_AT_ONCE, None]
            z = spread * torch.randn(len(means), rows, self.dim, generator=generator) + means
            assigned = assign(z.view(-1, self.dim))[0].view(len(means), rows, self.bins).double()
            halves = torch.stack([assigned[:, : rows // 2].mean(dim=1), assigned[:, rows // 2 :].mean(dim=1)])
            whole = halves.mean(dim=0)
            corrected = 2 * _entropy(whole) - _entropy(halves).mean(dim=0)
            p = torch.from_numpy(self.frequencies[start : start + LABELS_AT_ONCE])
            marginal += p @ whole
            conditional += float(p @ corrected)
        return float(_entropy(marginal)) - conditional


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(dim=-1)


def constant(s: float) -> Signal:
    """The same s for every label."""
    return lambda ranks: np.full(len(ranks), s)


def lognormal(ranks: Float[np.ndarray, "labels"]) -> Float[np.ndarray, "labels"]:
    """0.5·exp(0.7 g), g standard normal."""
    return 0.5 * np.exp(0.7 * np.random.default_rng(3).standard_normal(len(ranks)))


def rising(ranks: Float[np.ndarray, "labels"]) -> Float[np.ndarray, "labels"]:
    """Rare labels tell more: 1.2·√(rank/V)."""
    return 1.2 * np.sqrt(ranks)


def falling(ranks: Float[np.ndarray, "labels"]) -> Float[np.ndarray, "labels"]:
    """Frequent labels tell more: 1.2·(1 − √(rank/V))."""
    return 1.2 * (1 - np.sqrt(ranks))


def laws() -> Iterator[PlantedLaw]:
    """The planted case at four strengths, then laws that nothing was tuned on, then signals that hang on the rank."""
    for s in (0.0, 0.3, 0.6, 1.0):
        yield PlantedLaw(f"planted, s = {s:g}", constant(s))
    for exponent in (0.7, 1.3):
        for s in (0.3, 0.6, 1.0):
            yield PlantedLaw(f"Zipf {exponent:g}, s = {s:g}", constant(s), exponent=exponent)
    yield PlantedLaw("log-normal norms", lognormal)
    yield PlantedLaw("topics, s = 0", constant(0.0), topic=1.0)
    yield PlantedLaw("topics, s = 0.6", constant(0.6), topic=1.0)
    yield PlantedLaw("bursty topics, s = 0.6", constant(0.6), topic=0.5, burstiness=0.3)
    yield PlantedLaw("bursty topics, s = 1", constant(1.0), topic=0.5, burstiness=0.3)
    yield PlantedLaw("deterministic codes", constant(1.0), noise=0.0)
    yield PlantedLaw("nearly deterministic", constant(1.0), noise=0.1)
    yield PlantedLaw("rare labels tell more", rising)
    yield PlantedLaw("frequent labels tell more", falling)
