"""Uniform random token sequences, and exactly how much of them a model can have stored.

A set of N sequences of S tokens, each uniform over V, has N·S·log2 V bits, and nothing in it can be learnt but the
sequences themselves (Morris et al. 2025, arXiv 2505.24832, section 3). A model that scores sequences one by one cannot
know which of them comes next: it pays at least the entropy of their empirical distribution for each, log2 N where all
are distinct. What can be measured as memorized is therefore at most N(S·log2 V − log2 N).
"""

import math

import numpy as np
from jaxtyping import Int


def random_rows(count: int, vocabulary: int, length: int, seed: int) -> Int[np.ndarray, "count length"]:
    """`count` sequences, each token uniform and independent; drawn with replacement, so sequences may repeat.

    ValueError: nothing to draw, or more sequences than there are.
    """
    check_random(count, vocabulary, length)
    return np.random.default_rng([seed, 0]).integers(0, vocabulary, (count, length))


def fresh_rows(known: Int[np.ndarray, "count length"], vocabulary: int, seed: int) -> Int[np.ndarray, "fresh length"]:
    """As many sequences of the same distribution; those that chance made equal to a known one are left out."""
    drawn = np.random.default_rng([seed, 1]).integers(0, vocabulary, known.shape)
    there = {row.tobytes() for row in np.ascontiguousarray(known, drawn.dtype)}
    return drawn[[row.tobytes() not in there for row in np.ascontiguousarray(drawn)]]


def check_random(count: int, vocabulary: int, length: int) -> None:
    """ValueError of one sentence for sizes that make no data set."""
    for name, value, least in (("vocabulary", vocabulary, 2), ("length", length, 1), ("sequences", count, 1)):
        if value < least:
            raise ValueError(f"random data need {name} of at least {least}, got {value}")
    if length <= int(count).bit_length() and count > vocabulary**length:  # a longer one has more than count by itself
        raise ValueError(
            f"{count:,} sequences are asked for, and only {vocabulary}^{length} = {vocabulary**length:,} differ; "
            "use fewer sequences, or a larger vocabulary or length"
        )


def check_memory(count: int, length: int, available: float) -> None:
    """ValueError where the rows, those held out beside them and one copy of each are more than `available` bytes."""
    needed = 4 * 8 * count * length
    if needed > available:
        raise ValueError(
            f"{count:,} sequences of {length} tokens take {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB of memory "
            "are free; use fewer sequences"
        )


def entropy_bits(count: int, length: int, vocabulary: int) -> float:
    """Bits in a set of uniform sequences, N·S·log2 V.

    >>> entropy_bits(count=4096, length=64, vocabulary=2048)
    2883584.0
    """
    return count * length * math.log2(vocabulary)


def ceiling_bits(rows: Int[np.ndarray, "count length"], vocabulary: int, given: int = 0) -> float:
    """The most bits of these rows that code lengths can show to be memorized: Σ m_i (S·log2 V + log2(m_i / N)).

    m_i is how often the i-th distinct sequence occurs; with all distinct it is N(S·log2 V − log2 N). Derived: the
    least total code length of a model over sequences is N times the entropy of their empirical distribution. `given`:
    first tokens that are not predicted; what follows may then depend on them, and the least code length is that of
    the rest given these.
    """
    count, length = rows.shape
    _, times = np.unique(rows, axis=0, return_counts=True)
    least = -float((times * np.log2(times / count)).sum())
    if given:
        _, known = np.unique(rows[:, :given], axis=0, return_counts=True)
        least += float((known * np.log2(known / count)).sum())
    return entropy_bits(count, length - given, vocabulary) - least
