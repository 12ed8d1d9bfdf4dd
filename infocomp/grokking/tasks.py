"""Two-place operations on few elements, all of whose inputs can be listed: what grokking is studied on.

Sources: Power et al. 2022 (arXiv 2201.02177) for the operations and S5, Nanda et al. 2023 (arXiv 2301.05217) for
addition modulo 113.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

Operation = Literal["addition", "subtraction", "multiplication", "division", "quadratic", "permutation_composition"]
MirrorPairs = Literal["apart", "together"]
SIGNS = {
    "addition": "+",
    "subtraction": "-",
    "multiplication": "*",
    "division": "/",
    "quadratic": "x²+xy+y²",
    "permutation_composition": "∘",
}
NEEDS_FIELD = ("multiplication", "division")
LARGEST = 1024  # elements; their pairs are listed whole


@dataclass(frozen=True)
class ArithmeticTask:
    """a ∘ b = c over the integers modulo `modulus`, or over the permutations of `modulus` things (5: S5).

    quadratic: c = a² + ab + b². Multiplication and division leave out 0 as second and, in multiplication, as first
    input, so that every answer is as frequent as the others. Every ordered pair is a row. ValueError: multiplication or
    division modulo a composite number, where there is no field; sizes out of range; an unknown operation.
    """

    operation: Operation
    modulus: int

    def __post_init__(self) -> None:
        known = get_args(Operation)
        if self.operation not in known:
            raise ValueError(f"operation must be one of {', '.join(known)}, got {self.operation!r}")
        permuted = self.operation == "permutation_composition"
        low, high = (2, 6) if permuted else (2, LARGEST)
        what = "things permuted" if permuted else "modulus"
        if not low <= self.modulus <= high:
            raise ValueError(f"{what} must lie between {low} and {high:,}, got {self.modulus}")
        if self.operation in NEEDS_FIELD and not is_prime(self.modulus):
            near = next_prime(self.modulus)
            raise ValueError(
                f"{self.operation} modulo {self.modulus} needs a field, which is there for primes only; "
                f"take a prime such as {near}, or addition"
            )

    @property
    def name(self) -> str:
        """As the table names it."""
        over = f"S{self.modulus}" if self.operation == "permutation_composition" else f"mod {self.modulus}"
        return f"{self.operation.replace('_', ' ')} {over}"

    @property
    def elements(self) -> int:
        """Ids of inputs and answers run from 0 to this, exclusive."""
        return math.factorial(self.modulus) if self.operation == "permutation_composition" else self.modulus

    @cached_property
    def left(self) -> Int[np.ndarray, "pairs"]:
        """First input of every pair."""
        return self._pairs[0]

    @cached_property
    def right(self) -> Int[np.ndarray, "pairs"]:
        """Second input of every pair."""
        return self._pairs[1]

    @cached_property
    def _pairs(self) -> Int[np.ndarray, "2 pairs"]:
        first = np.arange(1 if self.operation == "multiplication" else 0, self.elements)
        second = np.arange(1 if self.operation in NEEDS_FIELD else 0, self.elements)
        return np.stack(np.meshgrid(first, second, indexing="ij")).reshape(2, -1).astype(np.int64)

    @cached_property
    def answer(self) -> Int[np.ndarray, "pairs"]:
        """Answer of every pair."""
        a, b, p = self.left, self.right, self.modulus
        if self.operation == "permutation_composition":
            return _compositions(p)[a, b]
        if self.operation == "division":
            inverse = np.array([0, *(pow(value, -1, p) for value in range(1, p))])
            return a * inverse[b] % p
        found = {
            "addition": lambda: a + b,
            "subtraction": lambda: a - b,
            "multiplication": lambda: a * b,
            "quadratic": lambda: a * a + a * b + b * b,
        }[self.operation]()
        return found % p

    @property
    def commutative(self) -> bool:
        """Whether (a, b) and (b, a) have the same answer, so that one of them in the training data tells the other."""
        return self.operation in ("addition", "multiplication", "quadratic")

    @cached_property
    def answer_entropy_bits(self) -> float:
        """H(answer) over all pairs, in bits: log2 of the number of elements where each is as frequent as the others."""
        return entropy_bits(self.answer)

    def cyclic_order(self) -> Int[np.ndarray, "order"] | None:
        """The elements in the order of the cyclic group in which the answers add up; None where there is none.

        Addition and subtraction: 0 … p − 1. Multiplication and division: the powers of the smallest primitive root.
        """
        if self.operation in ("addition", "subtraction"):
            return np.arange(self.modulus)
        if self.operation in NEEDS_FIELD:
            root = primitive_root(self.modulus)
            return np.array([pow(root, power, self.modulus) for power in range(self.modulus - 1)])
        return None


@dataclass(frozen=True)
class Split:
    """Row numbers of the pairs that are trained on and of all others, sorted."""

    train: Int[np.ndarray, "n"]
    test: Int[np.ndarray, "m"]


def split_pairs(task: ArithmeticTask, train_fraction: float, seed: int, mirror_pairs: MirrorPairs = "apart") -> Split:
    """Deal the pairs out at random.

    mirror_pairs: "apart" deals ordered pairs, so that (b, a) may be tested where (a, b) was learnt; "together" keeps
    both on one side, and of a commutative operation nothing leaks. ValueError: a fraction that leaves a side empty.
    """
    if not 0 < train_fraction < 1:
        raise ValueError(
            f"train_fraction must lie between 0 and 1 and leave pairs to test on, got {train_fraction}; 0.3 is usual"
        )
    if mirror_pairs not in get_args(MirrorPairs):
        raise ValueError(f"mirror_pairs must be apart or together, got {mirror_pairs!r}")
    units = np.arange(len(task.left))
    if mirror_pairs == "together":
        low, high = np.minimum(task.left, task.right), np.maximum(task.left, task.right)
        units = np.unique(low * task.elements + high, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(int(units.max()) + 1)
    sizes = np.bincount(units)[order].cumsum()
    chosen = order[: int(np.searchsorted(sizes, round(train_fraction * len(units)), side="right"))]
    train = np.flatnonzero(np.isin(units, chosen))
    if not 0 < len(train) < len(units):
        raise ValueError(
            f"train_fraction {train_fraction} of {len(units)} pairs leaves {len(train)} to train on and "
            f"{len(units) - len(train)} to test on; both sides need one"
        )
    return Split(train, np.setdiff1d(np.arange(len(units)), train))


def entropy_bits(labels: Int[np.ndarray, "rows"]) -> float:
    """Entropy of the labels' own frequencies, in bits."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log2(shares)).sum())


def is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def next_prime(number: int) -> int:
    """The smallest prime from `number` on."""
    return next(candidate for candidate in range(max(number, 2), 2 * max(number, 2)) if is_prime(candidate))


def primitive_root(prime: int) -> int:
    """The smallest number whose powers are all elements but 0."""
    order = prime - 1
    factors = [factor for factor in range(2, order + 1) if order % factor == 0 and is_prime(factor)]
    return next(g for g in range(1, prime) if all(pow(g, order // factor, prime) != 1 for factor in factors))


def _compositions(things: int) -> Int[np.ndarray, "elements elements"]:
    """Number of the permutation that applies b first and then a, for all a and b, in lexicographic numbering."""
    every = np.array(list(permutations(range(things))))
    composed = every[:, every]  # [a, b, thing]
    code = things ** np.arange(things)[::-1]
    number = np.argsort(np.argsort(every @ code))
    place = {int(value): int(n) for value, n in zip(every @ code, number, strict=True)}
    return np.vectorize(place.__getitem__, otypes=[np.int64])(composed @ code)
