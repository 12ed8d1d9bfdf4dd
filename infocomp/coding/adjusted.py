"""Raw and adjusted rates, and the two-part code: what a text takes together with the weights that it is coded with.

The raw rate is coded / raw size; the adjusted rate adds the parameters at two bytes each (Delétang et al. 2024, arXiv
2309.10668, section 3.1 and table 1, in percent there and a plain ratio here). The two-part code length (Rissanen 1978,
doi 10.1016/0005-1098(78)90005-5) is the same sum in bits per byte of the text, for weights of any size: few bits a
weight for a short text, more for a long one. The program itself is not counted, for models and classical coders alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


def raw_rate(coded_bytes: float, raw_bytes: float) -> float:
    """Coded over raw size, a ratio; ValueError: no raw bytes.

    >>> raw_rate(48_000_000, 100_000_000)
    0.48
    """
    return _size(coded_bytes, "coded_bytes", 0) / _size(raw_bytes, "raw_bytes", 1)


def adjusted_rate(coded_bytes: float, raw_bytes: float, parameters: int, bits: float = 16) -> float:
    """(Coded size + parameters · bits / 8) over raw size, a ratio; 16 bits a parameter as Delétang et al. have them.

    Weights that need more than their codes (scales of channels) have `adjusted_by_bytes`.
    """
    if bits <= 0:
        raise ValueError(f"bits must be positive bits per parameter, got {bits}; fp16 is 16.")
    size = _checked(parameters, "parameters", 0, "give their number") * bits / 8
    return adjusted_by_bytes(coded_bytes, raw_bytes, size)


def adjusted_by_bytes(coded_bytes: float, raw_bytes: float, model_bytes: float) -> float:
    """(Coded size + size of the weights) over raw size, a ratio."""
    return raw_rate(coded_bytes, raw_bytes) + raw_rate(_size(model_bytes, "model_bytes", 0), raw_bytes)


def two_part_bits_per_byte(rate: float, model_bytes: float, corpus_bytes: float) -> float:
    """Bits per byte of a text of `corpus_bytes` that is coded at `rate` bits per byte, the weights included."""
    return _rate(rate, "rate") + 8 * _size(model_bytes, "model_bytes", 0) / _size(corpus_bytes, "corpus_bytes", 1)


def break_even_bytes(rate: float, model_bytes: float, classical_rate: float) -> float | None:
    """Bytes of text from which on weights and data are shorter than the classical coder's output; None: never.

    rate · n + 8 · model_bytes = classical_rate · n. Both rates are in bits per byte and taken to stay the same over n,
    though a classical coder too gains on a longer text. Without a lower rate than the classical coder's a model never
    earns its weights back.
    """
    gain = _rate(classical_rate, "classical_rate") - _rate(rate, "rate")
    size = 8 * _size(model_bytes, "model_bytes", 0)
    return size / gain if gain > 0 else None


@dataclass(frozen=True)
class Width:
    """A model at one number of bits per weight: its rate in bits per byte of text and the bytes of its weights."""

    rate: float
    model_bytes: float


@dataclass(frozen=True)
class TwoPart:
    """Two-part code length, bits per byte, over sizes of the text (rows) and bits per weight (columns, ascending).

    `best` holds the bits per weight that are shortest for each size, the fewest where two tie; `least` their length.
    """

    corpus_bytes: Float[np.ndarray, "sizes"]
    bits: Int[np.ndarray, "widths"]
    bits_per_byte: Float[np.ndarray, "sizes widths"]

    @property
    def best(self) -> Int[np.ndarray, "sizes"]:
        return self.bits[self.bits_per_byte.argmin(axis=1)]

    @property
    def least(self) -> Float[np.ndarray, "sizes"]:
        return self.bits_per_byte.min(axis=1)


def two_part(widths: Mapping[int, Width], corpus_bytes: Sequence[float]) -> TwoPart:
    """The two-part code length of every width (bits per weight → rate and size) at every size of the text."""
    if not widths:
        raise ValueError("widths is empty: a minimum over bits per weight needs at least one; measure a width first.")
    bits = sorted(widths)
    lengths = [
        [two_part_bits_per_byte(widths[b].rate, widths[b].model_bytes, size) for b in bits] for size in corpus_bytes
    ]
    table = np.array(lengths, dtype=np.float64).reshape(len(corpus_bytes), len(bits))
    return TwoPart(np.array(corpus_bytes, dtype=np.float64), np.array(bits), table)


def best_width(widths: Mapping[int, Width], corpus_bytes: float) -> int:
    """The bits per weight with the shortest two-part code for a text of this size; the fewest where two tie."""
    return int(two_part(widths, [corpus_bytes]).best[0])


def least_break_even(widths: Mapping[int, Width], classical_rate: float) -> tuple[int, float] | None:
    """The width that beats a classical coder on the shortest text, and the bytes of that text; None: no width does."""
    points = {b: break_even_bytes(width.rate, width.model_bytes, classical_rate) for b, width in widths.items()}
    reached = [(size, b) for b, size in points.items() if size is not None]
    if not reached:
        return None
    size, bits = min(reached)
    return bits, size


def _size(value: float, name: str, least: int) -> float:
    return _checked(value, name, least, "give a size in bytes")


def _rate(value: float, name: str) -> float:
    return _checked(value, name, 0, "give bits per byte")


def _checked(value: float, name: str, least: int, remedy: str) -> float:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name} must be a finite number of at least {least}, got {value}; {remedy}.")
    return value
