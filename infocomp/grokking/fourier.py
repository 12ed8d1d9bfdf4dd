"""Circuits in Fourier space: sparsity of weights, key frequencies, restricted and excluded loss (nats).

A network that has generalized modular addition computes cos and sin of w(a + b) for a few key frequencies w = 2πk/m
(Nanda et al. 2023, arXiv 2301.05217). Elements are taken in the order of the cyclic group that their answers follow, so
that the same holds for subtraction (w(a − b)) and, over discrete logarithms, for multiplication and division: in each
case w times the place of the pair's answer in that order. Hence the part of the logits that is a function of the answer
alone, their mean over the pairs of each answer, carries every such direction, and projecting on cos and sin over all
pairs is projecting those means on a basis of the m places.

Restricted loss keeps the key frequencies and the constant (the mean logits, added back) and drops all else: what the
circuit would do alone. Excluded loss drops the key frequencies and keeps all else: what memory would do alone.

Published, the projection reads the logits of all pairs, and the answers that were memorized for the train pairs are
averaged into it: where the key frequencies are many, it falls with memorizing alone (measured on a quadratic MLP
without weight decay, modulus 59, all 29 frequencies: 0.01 nats at 2 % test accuracy). `restricted_nats_unseen` reads
the logits of the test pairs alone, so that nothing memorized enters it (4.1 nats there, ln 59 = 4.08).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from torch import Tensor

KEY_SHARE = 0.25
Order = Int[np.ndarray, "m"]
Rows = Int[np.ndarray, "rows"]


def fourier_basis(m: int) -> Float[np.ndarray, "m m"]:
    """Orthonormal rows over m places: the constant, cos and sin of frequency 1, of frequency 2, …; float64.

    An even m has a last row of its own, the alternating sign (frequency m/2, whose sine is 0 everywhere). ValueError:
    m below 2.
    """
    if m < 2:
        raise ValueError(f"a Fourier basis needs at least two places, got {m}; a cyclic group has two elements or more")
    places, rows = np.arange(m), [np.full(m, 1 / np.sqrt(m))]
    for frequency in range(1, (m + 1) // 2):
        angle = 2 * np.pi * (frequency * places % m) / m  # reduced first: no digits lost to large angles
        rows += [np.sqrt(2 / m) * np.cos(angle), np.sqrt(2 / m) * np.sin(angle)]
    if m % 2 == 0:
        rows.append((1 - 2.0 * (places % 2)) / np.sqrt(m))
    return np.stack(rows)


def component_norms(matrix: ArrayLike | Tensor, order: Order) -> Float[np.ndarray, "m"]:
    """Euclidean norm over columns of each Fourier component of a matrix [elements, columns] along its elements.

    Entries stand as the rows of `fourier_basis`. ValueError: no order, one that repeats or leaves the matrix, or a
    matrix that is not finite.
    """
    table = _table(matrix, "the matrix")
    _check_order(order, len(table))
    return np.linalg.norm(fourier_basis(len(order)) @ table[order], axis=1)


def frequency_norms(matrix: ArrayLike | Tensor, order: Order) -> Float[np.ndarray, "frequencies"]:
    """√(cos² + sin²) of each frequency 1 … m/2 from `component_norms`; the constant is no frequency.

    Cosine and sine together do not change when the order begins at another element, which either of them does. What
    rounding leaves of a frequency that is not there (below m·ε of the whole matrix, ε of float64) is 0.
    """
    components = component_norms(matrix, order)
    norms = np.sqrt(_by_frequency(components**2))
    return np.where(norms > len(order) * np.finfo(float).eps * np.linalg.norm(components), norms, 0.0)


def gini(values: ArrayLike) -> float | None:
    """Gini index of nonnegative values: 0 where all are equal, 1 − 1/n where only one of n is not 0; no unit.

    Source: Hurley and Rickard (2009), arXiv 0811.4706: 1 − 2 Σ_k (v_(k) / Σv) (n − k + ½) / n, v ascending. None where
    all are 0, which has no sparsity. ValueError: no values, negative ones or NaN.
    """
    v = np.sort(np.asarray(values, np.float64).ravel())
    if not len(v) or not np.isfinite(v).all() or v[0] < 0:
        raise ValueError(
            f"a Gini index needs finite values from 0 up, at least one, got {values!r}; give norms or powers"
        )
    total, n = v.sum(), len(v)
    if total == 0:
        return None
    return float(1 - 2 * (v / total) @ (n - np.arange(1, n + 1) + 0.5) / n)


def fourier_gini(matrix: ArrayLike | Tensor, order: Order) -> float | None:
    """Gini index of a matrix's `frequency_norms`: how few frequencies it is made of.

    Source: Nanda et al. (2023), arXiv 2301.05217, section 5, for W_E and W_L = W_U · W_out; here cosine and sine of a
    frequency count as one and the constant is left out. None for a matrix without any frequency (all 0).
    """
    return gini(frequency_norms(matrix, order))


def key_frequencies(matrix: ArrayLike | Tensor, order: Order, share: float = KEY_SHARE) -> list[int]:
    """Frequencies (1 … m/2) whose norm in the matrix, usually the embedding, exceeds `share` of the largest one's.

    The rule of the public demonstration that accompanies Nanda et al. (a quarter of the largest norm); the paper states
    none. Where weights have no structure yet, about every frequency passes: take the frequencies from the last
    checkpoint and use them at all others, as Nanda et al. do. Empty for a matrix without any frequency. ValueError: a
    share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"share must lie in [0, 1), got {share}; 0.25 keeps frequencies above a quarter of the largest"
        )
    norms = frequency_norms(matrix, order)
    return [int(place) + 1 for place in np.flatnonzero(norms > share * norms.max())]


@dataclass(frozen=True)
class Restricted:
    """Cross entropies in nats, over pairs whose answer is in the cyclic order.

    restricted_nats_…: of the constant and the key frequencies alone, projected over all pairs; restricted_nats_unseen:
    projected over the test pairs alone and evaluated on them, None where they lack an answer. excluded_nats_train: of
    all but the key frequencies, taken out at once; excluded_each: frequency → of all but that one. nats_…: of the
    logits as they are, over the same pairs. answer_power: share of the logits' variance over pairs that each frequency
    1 … m/2 of the answer holds (None where they do not vary); 1 minus their sum is no function of the answer alone.
    pairs, train_pairs, test_pairs: how many.
    """

    frequencies: tuple[int, ...]
    restricted_nats_all: float
    restricted_nats_test: float
    restricted_nats_unseen: float | None
    excluded_nats_train: float
    excluded_each: dict[int, float]
    nats_all: float
    nats_train: float
    nats_test: float
    answer_power: Float[np.ndarray, "frequencies"] | None
    pairs: int
    train_pairs: int
    test_pairs: int


def restricted_and_excluded(
    logits: ArrayLike | Tensor,
    answers: Int[np.ndarray, "pairs"],
    train: Rows,
    test: Rows,
    order: Order,
    frequencies: Sequence[int],
) -> Restricted:
    """Project logits [all pairs, outputs], as functions of the pair, on the key frequencies of the answer's place.

    `train` and `test` are row numbers, `order` lists the elements in the cyclic order of the answers. Softmax is over
    the columns given, in float64. Pairs whose answer is not in the order (0 in a division) are left out everywhere.
    Source: Nanda et al. (2023), arXiv 2301.05217, section 5.1; excluded all at once as in their figure 7, and one at a
    time as in their notebook. ValueError: logits that are not finite or not one row a pair, answers that are not all
    equally frequent (so not of all pairs), an empty side, a frequency that does not exist.
    """
    pairs = _Pairs.of(logits, answers, order)
    m, place = len(order), pairs.place
    chosen = tuple(sorted({int(frequency) for frequency in frequencies}))
    if chosen and not 1 <= chosen[0] <= chosen[-1] <= m // 2:
        raise ValueError(f"frequencies of {m} places run from 1 to {m // 2}, got {list(frequencies)}")
    everywhere, train, test = np.flatnonzero(place >= 0), pairs.side(train, "train"), pairs.side(test, "test")
    components = pairs.components(everywhere)
    alone, memory = (
        _waves(components, chosen, constant=True),
        pairs.logits[train] - _waves(components, chosen)[place[train]],
    )
    unseen = _waves(pairs.components(test), chosen, constant=True) if len(np.unique(place[test])) == m else None
    without = {one: pairs.logits[train] - _waves(components, [one])[place[train]] for one in chosen}
    spread = float(((pairs.logits[everywhere] - pairs.logits[everywhere].mean(axis=0)) ** 2).sum())
    power = _by_frequency((components**2).sum(axis=1)) * len(everywhere) / m
    return Restricted(
        frequencies=chosen,
        restricted_nats_all=pairs.nats(everywhere, alone[place[everywhere]]),
        restricted_nats_test=pairs.nats(test, alone[place[test]]),
        restricted_nats_unseen=None if unseen is None else pairs.nats(test, unseen[place[test]]),
        excluded_nats_train=pairs.nats(train, memory),
        excluded_each={one: pairs.nats(train, rest) for one, rest in without.items()},
        nats_all=pairs.nats(everywhere),
        nats_train=pairs.nats(train),
        nats_test=pairs.nats(test),
        answer_power=power / spread if spread > 0 else None,
        pairs=len(everywhere),
        train_pairs=len(train),
        test_pairs=len(test),
    )


@dataclass(frozen=True)
class _Pairs:
    """Logits and answer of every pair, with the place of the answer in the cyclic order of m (−1: not in it)."""

    logits: Float[np.ndarray, "pairs outputs"]
    answers: Int[np.ndarray, "pairs"]
    place: Int[np.ndarray, "pairs"]
    m: int

    @classmethod
    def of(cls, logits: ArrayLike | Tensor, answers: Int[np.ndarray, "pairs"], order: Order) -> "_Pairs":
        table, answers = _table(logits, "logits"), np.asarray(answers)
        if answers.shape != (len(table),) or answers.min() < 0 or answers.max() >= table.shape[1]:
            raise ValueError(
                f"answers must be one column of logits for each of its rows, got shape {answers.shape} for logits of "
                f"shape {table.shape}; give all pairs in both"
            )
        _check_order(order, table.shape[1], "outputs")
        places = np.full(table.shape[1], -1)
        places[order] = np.arange(len(order))
        place = places[answers]
        counts = np.bincount(place[place >= 0], minlength=len(order))
        if counts.min() != counts.max():
            raise ValueError(
                f"each answer must be as frequent as the others, got {counts.min()} to {counts.max()} pairs an answer; "
                "give the logits of all pairs, not of one side of the split"
            )
        return cls(table, answers, place, len(order))

    def side(self, rows: Rows, name: str) -> Rows:
        """Those of the rows whose answer is in the order."""
        kept = np.asarray(rows)[self.place[rows] >= 0]
        if not len(kept):
            raise ValueError(f"{name} has no pair whose answer is in the cyclic order; give the rows of {name} pairs")
        return kept

    def components(self, rows: Rows) -> Float[np.ndarray, "m outputs"]:
        """Fourier components, along the answers, of the mean logits over those rows that have each answer."""
        place = self.place[rows]
        sums = np.stack([np.bincount(place, column, self.m) for column in self.logits[rows].T], axis=1)
        return fourier_basis(self.m) @ (sums / np.bincount(place, minlength=self.m)[:, None])

    def nats(self, rows: Rows, logits: Float[np.ndarray, "rows outputs"] | None = None) -> float:
        """Loss over some rows: of their own logits, or of others in their stead."""
        return cross_entropy(self.logits[rows] if logits is None else logits, self.answers[rows])


def _waves(
    components: Float[np.ndarray, "m outputs"], frequencies: Sequence[int], constant: bool = False
) -> Float[np.ndarray, "m outputs"]:
    """Logits by the answer's place that some frequencies make, with the constant or without."""
    m = len(components)
    rows = [0] * constant + [row for frequency in frequencies for row in _rows_of(frequency, m)]
    return fourier_basis(m)[rows].T @ components[rows]


def cross_entropy(logits: Float[np.ndarray, "rows outputs"], answers: Int[np.ndarray, "rows"]) -> float:
    """Mean −log softmax of the answers, in nats, in the dtype of the logits."""
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(logits)), answers]).mean())


def _rows_of(frequency: int, m: int) -> list[int]:
    """Rows of `fourier_basis(m)` that one frequency has: cosine and sine, or the alternating sign alone."""
    return [m - 1] if 2 * frequency == m else [2 * frequency - 1, 2 * frequency]


def _by_frequency(powers: Float[np.ndarray, "m"]) -> Float[np.ndarray, "frequencies"]:
    """Sums over the basis rows of each frequency, without the constant."""
    m = len(powers)
    return np.array([powers[_rows_of(frequency, m)].sum() for frequency in range(1, m // 2 + 1)])


def _table(values: ArrayLike | Tensor, name: str) -> Float[np.ndarray, "rows columns"]:
    """Any matrix as float64, checked."""
    table = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, np.float64)
    if table.ndim != 2:
        raise ValueError(f"{name} must have two axes, one row an element or pair, got shape {table.shape}")
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise ValueError(f"{name} must be finite, row {row} is not; look for the step at which the training diverged")
    return table


def _check_order(order: Order | None, elements: int, what: str = "rows") -> None:
    if order is None:
        raise ValueError(
            "order is None: answers that follow no cyclic group have no Fourier components; "
            "measure addition, subtraction, multiplication or division"
        )
    found = np.asarray(order)
    distinct = found.ndim == 1 and 2 <= len(np.unique(found)) == len(found)
    if not distinct or found.min() < 0 or found.max() >= elements:
        raise ValueError(
            f"order must name two or more distinct elements among {elements} {what}, got {found.tolist()}; "
            "take the task's cyclic_order()"
        )
