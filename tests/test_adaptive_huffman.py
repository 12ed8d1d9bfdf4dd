"""Adaptive Huffman: back to the same numbers, the tree's laws after every symbol, a slow twin, optimality, guards."""

import heapq
import time
from collections import Counter

import numpy as np
import pytest

from infocomp.coding import adaptive_huffman
from infocomp.coding.adaptive_huffman import Tree, decode, encode


def like_ranks(n: int, seed: int = 0, largest: int = 50_000) -> np.ndarray:
    """Numbers that fall off as ranks do: many 0, few large ones."""
    drawn = np.floor(np.exp(np.random.default_rng(seed).exponential(2.2, n))) - 1
    return np.minimum(drawn, largest).astype(np.int64)


MADE = {
    "nothing": np.zeros(0, np.int64),
    "one zero": np.array([0]),
    "one large": np.array([adaptive_huffman.LARGEST]),
    "the same": np.full(1000, 7),
    "two by turns": np.tile([3, 50_303], 500),
    "each once": np.arange(1000)[::-1].copy(),
    "like ranks": like_ranks(5000),
    "uniform": np.random.default_rng(1).integers(0, 300, 5000),
    "falling by halves": np.repeat(np.arange(10), 2 ** np.arange(10)[::-1]),
}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("name", MADE)
def test_numbers_come_back(name, dtype):
    numbers = MADE[name].astype(dtype)
    back = decode(encode(numbers), len(numbers))
    assert back.dtype == np.int64
    assert np.array_equal(back, numbers)


def test_a_code_by_hand():
    # Parameter 0. New 2: empty path, Exp-Golomb of 2 + 1 = '011'; tree: root with leaf '0' for 2 and '1' for new ones.
    # Then 2: '0'; then new 0: '1' and Exp-Golomb of 1 = '1'; then 2: still '0' with weights 2 against (1 + 1).
    assert encode(np.array([2, 2, 0, 2])) == bytes([0, 0b011_0_1_1_0_0])


def slots_are_sound(tree: Tree) -> None:
    """The sibling property (Gallager 1978) and the bookkeeping around it."""
    weight = tree.weight
    assert all(weight[slot] >= weight[slot + 1] for slot in range(len(weight) - 1)), "weights fall with the slot"
    assert tree._first == {w: weight.index(w) for w in set(weight)}
    for slot, below in enumerate(tree.child):
        if below:
            assert weight[slot] == weight[below] + weight[below + 1]
            assert tree.parent[below] == tree.parent[below + 1] == slot
        else:
            assert slot == tree.escape or tree.slot_of[tree.symbol[slot]] == slot


@pytest.mark.parametrize("name", ["the same", "two by turns", "each once", "like ranks", "uniform"])
def test_siblings_lie_side_by_side_in_order_of_weight_after_every_symbol(name):
    tree, counts = Tree(), Counter()
    for number in MADE[name][:400].tolist():
        tree.increment(tree.slot_of[number] if number in tree.slot_of else tree.add(number))
        counts[number] += 1
        slots_are_sound(tree)
        assert {symbol: tree.weight[slot] for symbol, slot in tree.slot_of.items()} == counts
        assert tree.weight[tree.escape] == 1


def best_total(weights: list[int]) -> int:
    """Σ weight · depth of an optimal tree, by Huffman's own way of joining the two lightest."""
    heap, total = list(weights), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


@pytest.mark.parametrize("name", ["like ranks", "uniform", "two by turns", "falling by halves"])
def test_at_any_time_the_tree_is_an_optimal_one_for_the_counts_so_far(name):
    tree = Tree()
    for place, number in enumerate(MADE[name][:1000].tolist()):
        tree.increment(tree.slot_of[number] if number in tree.slot_of else tree.add(number))
        if place % 50 == 0:
            leaves = [*tree.slot_of.values(), tree.escape]
            total = sum(tree.weight[slot] * len(tree.path(slot)) for slot in leaves)
            assert total == best_total([tree.weight[slot] for slot in leaves])


def slow_bits(numbers: np.ndarray, parameter: int) -> int:
    """The slow twin: symbols and the first node of a weight are found by looking through all slots."""
    escape = inner = -1  # no symbol; an inner node has a child besides
    symbol, weight, parent, child, total = [escape], [1], [0], [0], 0
    for number in numbers.tolist():
        known = number in symbol
        slot = next(s for s, held in enumerate(symbol) if held == (number if known else escape) and not child[s])
        above = slot
        while above:
            total, above = total + 1, parent[above]
        if not known:
            total += 2 * ((number >> parameter) + 1).bit_length() - 1 + parameter
            symbol[slot], child[slot] = inner, len(symbol)
            for new in (number, escape):
                symbol, weight, parent, child = [*symbol, new], [*weight, 1], [*parent, slot], [*child, 0]
        while True:
            leader = weight.index(weight[slot])
            for column in (symbol, child):
                column[slot], column[leader] = column[leader], column[slot]
            for moved in (slot, leader):
                if child[moved]:
                    parent[child[moved]] = parent[child[moved] + 1] = moved
            weight[leader] += 1
            if not leader:
                break
            slot = parent[leader]
    return total


@pytest.mark.parametrize("name", ["like ranks", "uniform", "each once", "two by turns"])
def test_the_code_is_as_long_as_that_of_a_twin_that_scans_all_nodes(name):
    numbers = MADE[name][:800]
    code = encode(numbers)
    assert len(code) == 1 + -(-slow_bits(numbers, code[0]) // 8)


def test_a_long_code_is_near_the_entropy_of_its_numbers():
    numbers = np.random.default_rng(2).choice(20, 50_000, p=(share := 0.7 ** np.arange(20)) / share.sum())
    entropy = -sum(count / 50_000 * np.log2(count / 50_000) for count in Counter(numbers.tolist()).values())
    static = best_total(list(Counter(numbers.tolist()).values())) / 50_000
    rate = 8 * len(encode(numbers)) / 50_000
    # Above an optimal fixed tree by what is learned on the way, and that tree above the entropy by less than a bit.
    assert entropy <= static <= rate < static + 0.02


def test_time_grows_with_the_bits_and_not_with_the_alphabet():
    def seconds(numbers: np.ndarray) -> float:
        start = time.perf_counter()
        encode(numbers)
        return (time.perf_counter() - start) / len(numbers)

    few = np.random.default_rng(3).integers(0, 16, 40_000)
    many = np.random.default_rng(3).integers(0, 16_384, 40_000)
    # 14 bits a number against 4, and a longer code for new ones: 2 to 5 times; a step of the alphabet's size: hundreds.
    assert min(seconds(many) for _ in range(2)) < 25 * min(seconds(few) for _ in range(2))


def test_numbers_that_cannot_be_coded_are_refused():
    with pytest.raises(ValueError, match=r"^numbers must lie between 0 and 2,147,483,647, got -1; only ranks .*\.$"):
        encode(np.array([3, -1]))
    with pytest.raises(ValueError, match=r"got 2147483648"):
        encode(np.array([1 << 31]))
    with pytest.raises(ValueError, match=r"^numbers must be a row of integers, got shape \(2,\) of float64; convert"):
        encode(np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"got shape \(1, 2\) of int64"):
        encode(np.array([[1, 2]]))


def test_a_code_that_is_cut_short_or_too_long_is_refused():
    numbers = MADE["like ranks"]
    code = encode(numbers)
    with pytest.raises(ValueError, match=r"^the code ends after \d+ of 5000 numbers; it was cut short"):
        decode(code[:-1], len(numbers))
    with pytest.raises(ValueError, match=r"^the code goes on for \d+ bits after 5000 numbers; it is damaged"):
        decode(code + b"\0", len(numbers))
    with pytest.raises(ValueError, match=r"^the code goes on for \d+ bits after 4000 numbers"):
        decode(code, 4000)
    for broken in (b"", b"\xff\0\0"):
        with pytest.raises(
            ValueError, match=r"^no adaptive Huffman code: the first byte is (missing|255), a parameter"
        ):
            decode(broken, 1)


def test_a_new_number_that_is_not_new_is_found_out():
    # '1' new 0 at once; '1' escape; '1' the number 0 again, which the tree already holds.
    with pytest.raises(ValueError, match=r"^the code is damaged: 0 after 1 of 2 numbers comes as new and is not"):
        decode(bytes([0, 0b1110_0000]), 2)
    with pytest.raises(ValueError, match=r"is above 2,147,483,647"):
        decode(bytes([0, *([0] * 5), 255, *([255] * 8)]), 1)
