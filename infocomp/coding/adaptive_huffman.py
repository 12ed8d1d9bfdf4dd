"""Adaptive Huffman coding of whole numbers, in bits: one pass, no table sent, the tree rebuilt after every symbol.

Source: Faller, Gallager and Knuth's algorithm as in Knuth (1985), "Dynamic Huffman coding": nodes lie in slots by
falling weight, siblings side by side, and before a node gains weight it changes places with the first of its weight.
One step differs: the leaf for what has not yet been transmitted weighs 1 and not 0, so that every parent is heavier
than its children and no node ever has to pass its own parent.

A number that comes for the first time is the code of that leaf and then the number in an Exp-Golomb code (Golomb 1966;
Teuhola 1978), whose parameter (0 to 30) is the one that suits these numbers best; it takes the first byte. The alphabet
need not be known; work and memory grow with the bits written and not with the alphabet.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

LARGEST = (1 << 31) - 1
_PARAMETERS = range(31)


def encode(numbers: Int[np.ndarray, "n"]) -> bytes:
    """Code numbers from 0 to 2³¹ − 1; how many there are is not in the code. ValueError for any other number."""
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
        raise ValueError(
            f"numbers must be a row of integers, got shape {numbers.shape} of {numbers.dtype}; convert them first."
        )
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) <= LARGEST:
        wrong = int(numbers.min()) if numbers.min() < 0 else int(numbers.max())
        raise ValueError(f"numbers must lie between 0 and {LARGEST:,}, got {wrong}; only ranks and counts are coded.")
    parameter = _best_parameter(np.unique(numbers))
    tree, bits = Tree(), bytearray()
    for number in numbers.tolist():
        known = tree.slot_of.get(number)
        bits += tree.path(tree.escape if known is None else known)
        if known is None:
            bits += _exp_golomb(number, parameter)
            known = tree.add(number)
        tree.increment(known)
    return bytes([parameter]) + np.packbits(np.frombuffer(bits, dtype=np.uint8)).tobytes()


def decode(code: bytes, n: int) -> Int[np.ndarray, "n"]:
    """The `n` numbers, int64. ValueError where the code is too short or too long for them, or no code at all."""
    if not code or code[0] not in _PARAMETERS:
        raise ValueError(
            f"no adaptive Huffman code: the first byte is {code[0] if code else 'missing'}, a parameter from 0 to "
            f"{_PARAMETERS[-1]} is needed; check where the code begins."
        )
    bits = np.unpackbits(np.frombuffer(code, dtype=np.uint8)[1:]).tolist()
    left = iter(bits)
    tree, numbers = Tree(), []
    try:
        for _ in range(n):
            slot = 0
            while tree.child[slot]:
                slot = tree.child[slot] + next(left)
            if slot == tree.escape:
                number = _read_exp_golomb(left, code[0])
                if number in tree.slot_of or number > LARGEST:
                    raise ValueError(
                        f"the code is damaged: {number} after {len(numbers)} of {n} numbers comes as new and is not, "
                        f"or is above {LARGEST:,}; code the numbers again."
                    )
                slot = tree.add(number)
            else:
                number = tree.symbol[slot]
            numbers.append(number)
            tree.increment(slot)
    except StopIteration:
        raise ValueError(
            f"the code ends after {len(numbers)} of {n} numbers; it was cut short, or fewer were coded."
        ) from None
    rest = list(left)
    if len(rest) > 7 or any(rest):
        raise ValueError(f"the code goes on for {len(rest)} bits after {n} numbers; it is damaged, or more were coded.")
    return np.array(numbers, dtype=np.int64)


class Tree:
    """Slots of nodes, the root in slot 0: `weight` falls with the slot, children of one node lie in slots c and c + 1.

    `child` is the first child's slot, or 0 for a leaf; `escape` the slot of the leaf for everything not yet seen.
    """

    def __init__(self) -> None:
        self.weight, self.parent, self.child, self.symbol = [1], [0], [0], [-1]
        self.slot_of: dict[int, int] = {}
        self.escape = 0
        self._first = {1: 0}  # weight → the first slot of that weight

    def path(self, slot: int) -> bytearray:
        """The bits from the root to a slot, one a byte; a first child has an odd slot."""
        bits = bytearray()
        while slot:
            bits.append(1 - (slot & 1))
            slot = self.parent[slot]
        bits.reverse()
        return bits

    def add(self, symbol: int) -> int:
        """Hang a leaf for a new symbol of weight 1 and the escape leaf below the old escape leaf.

        Returns the slot that is yet to gain the symbol's weight: that of their common parent.
        """
        old, leaf = self.escape, len(self.weight)
        self.weight += [1, 1]
        self.parent += [old, old]
        self.child += [0, 0]
        self.symbol += [symbol, -1]
        self.child[old] = leaf
        self.slot_of[symbol], self.escape = leaf, leaf + 1
        return old

    def increment(self, slot: int) -> None:
        """Add 1 to the weight of a node and of all above it; each first moves to the first slot of its weight."""
        weight, first = self.weight, self._first
        while True:
            old = weight[slot]
            foremost = first[old]
            if foremost != slot:
                self._swap(slot, foremost)
                slot = foremost
            weight[slot] = old + 1
            if slot + 1 < len(weight) and weight[slot + 1] == old:
                first[old] = slot + 1
            else:
                del first[old]
            first.setdefault(old + 1, slot)
            if not slot:
                return
            slot = self.parent[slot]

    def _swap(self, one: int, other: int) -> None:
        """Two nodes change slots, with all that hangs below them."""
        child, symbol = self.child, self.symbol
        child[one], child[other] = child[other], child[one]
        symbol[one], symbol[other] = symbol[other], symbol[one]
        for slot in (one, other):
            below = child[slot]
            if below:
                self.parent[below] = self.parent[below + 1] = slot
            elif symbol[slot] >= 0:
                self.slot_of[symbol[slot]] = slot
            else:
                self.escape = slot


def _best_parameter(new: Int[np.ndarray, "new"]) -> int:
    """The Exp-Golomb parameter with which these numbers take the fewest bits together."""

    def size(parameter: int) -> int:
        shifted = (new.astype(np.int64) >> parameter) + 1
        return int((2 * np.floor(np.log2(shifted)) + 1 + parameter).sum())

    return min(_PARAMETERS, key=size) if len(new) else 0


def _exp_golomb(number: int, parameter: int) -> bytes:
    """The bits of a number, one a byte: z zeros, then (number >> parameter) + 1 in z + 1 bits, then the low bits."""
    head = format((number >> parameter) + 1, "b")
    low = format(number & ((1 << parameter) - 1), f"0{parameter}b") if parameter else ""
    return bytes(map(int, "0" * (len(head) - 1) + head + low))


def _read_exp_golomb(bits: Iterator[int], parameter: int) -> int:
    zeros = 0
    while not next(bits):
        zeros += 1
    head = 1
    for _ in range(zeros):
        head = 2 * head + next(bits)
    number = head - 1
    for _ in range(parameter):
        number = 2 * number + next(bits)
    return number
