"""Prequential (online) code length of a training run, in bits: each batch is coded by the model before it learns it.

L(x) = Σ_t −log2 p(x_t | θ(x_1 … x_t−1)) (Dawid 1984, doi 10.2307/2981683; for networks Blier & Ollivier 2018, arXiv
1802.07044, section 3.3). A decoder that repeats the training, update by update, decodes batch after batch, so that the
weights need no bits. It is told everything else: program, settings, seed, and the tokenizer, which is counted only as
`side_bytes`. Only first presentations count: a text that was trained on before is no longer unknown to the decoder, and
under dropout the loss of the training is not the model's own. The text is what was presented, in the order presented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln

from infocomp.units import bits

NOT_OF_THE_MODEL = ("classifier", "summary")  # dropout of heads that a language model does not have


@dataclass(frozen=True)
class Presentation:
    """What a training run was given to read, as plain numbers.

    windows: how many the text has. batch: windows a step. context_length: predicted tokens a window. dropout: the
    largest share that was dropped anywhere. side_bytes: what the decoder must be told besides, the tokenizer say.
    """

    windows: int
    batch: int
    context_length: int
    dropout: float = 0.0
    side_bytes: int = 0

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.context_length

    @property
    def steps_of_one_epoch(self) -> int:
        """Steps in which no window comes a second time; a remainder of less than a batch is left out."""
        return self.windows // self.batch


@dataclass(frozen=True)
class PrequentialCode:
    """Entry i: after steps[i] updates, that many batches are coded; cumulative bits, of the text presented by then."""

    steps: Int[np.ndarray, "updates"]
    tokens: Int[np.ndarray, "updates"]
    bytes: Int[np.ndarray, "updates"]
    bits: Float[np.ndarray, "updates"]
    side_bytes: int

    @property
    def bits_per_token(self) -> Float[np.ndarray, "updates"]:
        return self.bits / self.tokens

    @property
    def bits_per_byte(self) -> Float[np.ndarray, "updates"]:
        return self.bits / self.bytes

    @property
    def bits_per_byte_with_side(self) -> Float[np.ndarray, "updates"]:
        """The same with the side information paid for."""
        return (self.bits + 8 * self.side_bytes) / self.bytes


def prequential_code(
    rows: Sequence[Mapping[str, Any]], bytes_per_step: Sequence[int], presentation: Presentation
) -> PrequentialCode:
    """The code length from a training's rows: "step" N and "loss", mean nats per token of batch N before update N + 1.

    `bytes_per_step` are the bytes of text in each batch, for every row or more. Rows without a loss are left out.
    ValueError: dropout, more than one epoch, steps that don't count up from 0, a loss that is not finite and
    non-negative, too few bytes_per_step, or no byte presented.
    """
    if presentation.dropout > 0:
        raise ValueError(
            f"the model was trained with dropout {presentation.dropout:g}, so its loss is no code length; train "
            "with dropout 0."
        )
    rows = [row for row in rows if row.get("loss") is not None]
    _check_steps([row["step"] for row in rows])
    count = len(rows)
    if count * presentation.batch > presentation.windows:
        epochs = count * presentation.batch / presentation.windows
        raise ValueError(
            f"the run read its text for {epochs:.4g} epochs ({count:,} steps of {presentation.batch} windows out of "
            f"{presentation.windows:,}), and only first presentations make a prequential code; train for at most one "
            f"epoch, which is {presentation.steps_of_one_epoch:,} steps."
        )
    losses = np.array([row["loss"] for row in rows], dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(losses) & (losses >= 0)))
    if len(wrong):
        raise ValueError(
            f"the loss of step {wrong[0]} is {losses[wrong[0]]}, and a code length needs finite losses of at least 0; "
            "train again so that the run does not diverge."
        )
    if len(bytes_per_step) < count or sum(bytes_per_step[:count]) < 1:
        raise ValueError(
            f"bytes_per_step has {len(bytes_per_step)} entries with {sum(bytes_per_step):,} bytes for {count} steps; "
            "give the bytes of text that each step presented."
        )
    steps = np.arange(1, count + 1)
    return PrequentialCode(
        steps=steps,
        tokens=steps * presentation.tokens_per_step,
        bytes=np.cumsum(np.asarray(bytes_per_step[:count], dtype=np.int64)),
        bits=np.cumsum(losses) * bits(presentation.tokens_per_step),
        side_bytes=presentation.side_bytes,
    )


def adaptive_unigram_bits(counts: Int[np.ndarray, "vocabulary"]) -> float:
    """Bits of tokens with these counts, in any order, under a code that learns their frequencies and no context.

    Each token t costs −log2((n_t + ½) / (N + V/2)) after N tokens, n_t of them t (Krichevsky & Trofimov 1981, doi
    10.1109/TIT.1981.1056331): the null of a prequential code, since it too starts from nothing.
    """
    counts = np.asarray(counts, dtype=np.float64)
    half, total = 0.5 * len(counts), counts.sum()
    nats = gammaln(total + half) - gammaln(half) - (gammaln(counts + 0.5) - gammaln(0.5)).sum()
    return bits(float(nats))


def dropout_of(config: Mapping[str, Any]) -> float:
    """The largest dropout of a Hugging Face configuration: whatever it calls dropout, pdrop or drop rate, 0.0 for none.

    >>> dropout_of({"hidden_dropout": 0.0, "attention_dropout": 0.1, "classifier_dropout": 0.5})
    0.1
    """
    shares = [
        float(value)
        for name, value in config.items()
        if ("dropout" in name or "pdrop" in name or "drop_rate" in name)
        and not name.startswith(NOT_OF_THE_MODEL)
        and isinstance(value, int | float)
    ]
    return max(shares, default=0.0)


def _check_steps(steps: Sequence[int]) -> None:
    if not steps:
        raise ValueError("the run has no step with a loss; train at least one step.")
    for expected, step in enumerate(steps):
        if step != expected:
            raise ValueError(
                f"row {expected} is of step {step}, and a prequential code needs every step from 0 on, each once; "
                "give all rows of the training."
            )
