"""From a model's logits to a stream of 32-bit words and back: integer weights and one range coder.

A range coder needs probabilities that encoder and decoder compute to the last bit. Weights here are whole numbers that
sum to exactly 2^24 − V, held as float64; the coder (Bamler 2022, arXiv 2201.01741, package `constriction`) adds one to
each of them and so gives every one of the V symbols a share of 2^24. Sums of whole numbers below 2^53 are exact, so
the coder's own arithmetic adds no risk: what is left is that the logits are the same on both sides.

A share of at least 2^-24 for every symbol costs at most −log2(1 − V / 2^24) bits a token (0.0043 at V = 50,304), and
less where few symbols are that improbable: only what lies below the floor is raised, at the cost of all others in
proportion.
"""

from collections.abc import Iterable
from typing import Any

import constriction
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TOTAL = 1 << 24  # constriction's fixed-point one
AT_ONCE = 1 << 18  # weights computed at once, so that they stay in cache
WORD_BITS = 32
_STREAM: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]
_FAMILY = _STREAM.model.Categorical(perfect=False)  # the quantiser that leaves whole numbers of that sum as they are


def integer_weights(logits: Float[Tensor, "rows symbols"]) -> Float[np.ndarray, "rows symbols"]:
    """Whole numbers w ≥ 0 in proportion to softmax, each row summing to 2^24 − V; symbol i gets (w_i + 1) / 2^24.

    With r = max(p · 2^24 − 1, 0): w = ⌊r · (2^24 − V) / Σ r⌋, and what rounding leaves goes to the most probable
    symbol. Computed on the CPU in blocks of rows, the same way for the same logits and shape. ValueError: logits that
    are NaN or +∞ (−∞ is a symbol never seen), or more symbols than the coder can tell apart.
    """
    rows, symbols = logits.shape
    if not 1 < symbols < TOTAL // 2:
        raise ValueError(f"logits have {symbols} symbols; the coder takes 2 to {TOTAL // 2 - 1}.")
    logits = logits.detach().float().cpu()
    weights = torch.empty((rows, symbols), dtype=torch.float64)
    step = max(1, AT_ONCE // symbols)
    for start in range(0, rows, step):
        _weigh(logits[start : start + step], weights[start : start + step])
    return weights.numpy()


def _weigh(logits: Float[Tensor, "rows symbols"], weights: Float[Tensor, "rows symbols"]) -> None:
    """One block of `integer_weights`, written into `weights`."""
    largest, where = logits.max(dim=1, keepdim=True)
    if not bool(torch.isfinite(largest).all()):  # the maximum of a row with NaN is NaN
        raise ValueError(
            "logits hold NaN or infinity, with which no symbol can be coded; use a wider dtype or another checkpoint."
        )
    free = TOTAL - logits.shape[1]
    weights.copy_((logits - largest).exp_())
    weights.mul_(TOTAL / weights.sum(dim=1, keepdim=True)).sub_(1).clamp_(min=0)
    weights.mul_(free / weights.sum(dim=1, keepdim=True)).floor_()
    left = free - weights.sum(dim=1, keepdim=True)
    weights.scatter_add_(1, where, left)


def coded_bits(weights: Float[np.ndarray, "rows symbols"], symbols: Int[np.ndarray, "rows"]) -> float:
    """−Σ log2 of the shares that the coder gives to these symbols: what a range coder spends, but for its last word."""
    chosen = weights[np.arange(len(symbols)), symbols]
    return float(-np.log2((chosen + 1) / TOTAL).sum())


class RangeWriter:
    """A stream of symbols, each coded with its own row of weights, in the order in which they are written."""

    def __init__(self) -> None:
        self._encoder = _STREAM.queue.RangeEncoder()

    def write(self, symbols: Int[np.ndarray, "rows"], weights: Float[np.ndarray, "rows symbols"]) -> None:
        """Code one symbol a row. ValueError: another number of rows, or a symbol that there is no weight for."""
        if len(symbols) != len(weights):
            raise ValueError(f"there are {len(symbols)} symbols for {len(weights)} rows of weights; give one a row.")
        if not len(symbols):
            return
        if not 0 <= int(symbols.min()) <= int(symbols.max()) < weights.shape[1]:
            raise ValueError(
                f"symbols go from {symbols.min()} to {symbols.max()}, and weights are for 0 to {weights.shape[1] - 1}."
            )
        self._encoder.encode(symbols.astype(np.int32), _FAMILY, weights)

    def words(self) -> bytes:
        """The stream so far, little-endian words of 32 bits."""
        return self._encoder.get_compressed().astype("<u4").tobytes()


class RangeReader:
    """The symbols of a stream, given the same rows of weights in the same order.

    A stream that was cut off or changed, or read with other weights, gives other symbols, mostly without any error: a
    checksum over what is read must follow. ValueError: it cannot even be read on.
    """

    def __init__(self, words: bytes) -> None:
        if len(words) % 4:
            raise ValueError(f"the coded stream has {len(words)} bytes, and is made of words of 4; it was cut off.")
        self._decoder = _STREAM.queue.RangeDecoder(np.frombuffer(words, dtype="<u4").astype(np.uint32))

    def read(self, weights: Float[np.ndarray, "rows symbols"]) -> Int[np.ndarray, "rows"]:
        """The next symbols, one a row."""
        if not len(weights):
            return np.zeros(0, np.int32)
        try:
            return np.asarray(self._decoder.decode(_FAMILY, weights), dtype=np.int32)
        except AssertionError as error:  # constriction's word for a stream that no encoder writes
            raise ValueError(
                "the coded stream does not fit the weights that it is read with; nothing more can be read."
            ) from error


def concatenated(parts: Iterable[np.ndarray]) -> Int[np.ndarray, "symbols"]:
    """Parts one after the other, int32; none at all is an empty array."""
    return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)
