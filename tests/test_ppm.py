"""Code lengths of PPM byte by byte: a slow twin, the sum over all bytes, causality, and PPMd on the same text."""

import random
import time
from collections import Counter, defaultdict
from math import log2

import numpy as np
import pytest

from infocomp.coding.classical import CODERS
from infocomp.coding.ppm import DISCOUNTS, byte_code_lengths

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
MADE = {
    "words": " ".join(random.Random(0).choices(WORDS, k=120)).encode(),
    "noise": random.Random(1).randbytes(400),
    "one byte": b"a" * 300,
    "two bytes": bytes(random.Random(2).choices([0, 255], k=300)),
}


def as_the_formula_says(data: bytes, order: int) -> list[float]:
    """The slow twin: one byte after the other, with a table of counts for each context."""
    counts: dict[bytes, Counter] = defaultdict(Counter)
    lengths = []
    for place, symbol in enumerate(data):
        contexts = [data[place - k : place] for k in range(min(order, place) + 1)]
        probability = 1 / 256
        for k, context in enumerate(contexts):
            count = counts[context]
            total, types = sum(count.values()), len(count)
            if total:
                kept = max(count[symbol] - DISCOUNTS[k], 0) if symbol in count else 0
                probability = (kept + DISCOUNTS[k] * types * probability) / total
        lengths.append(-log2(probability))
        for context in reversed(contexts):  # the longest counts; a shorter one only what is new in the longer
            was_there = symbol in counts[context]
            counts[context][symbol] += 1
            if was_there:
                break
    return lengths


@pytest.mark.parametrize("order", [0, 1, 3, 6])
@pytest.mark.parametrize("name", MADE)
def test_code_lengths_are_those_of_the_formula_read_byte_after_byte(name, order):
    assert byte_code_lengths(MADE[name], order) == pytest.approx(as_the_formula_says(MADE[name], order), rel=1e-12)


def test_three_bytes_by_hand():
    first = 8.0  # nothing seen: 1/256
    second = -log2((1 - 0.35) + 0.35 / 256)  # order 0 has seen one 'a'
    # Order 0 has counted both (the second was new after 'a'): c = n = 2, t = 1; order 1 has seen one: c = n = t = 1.
    third = -log2((1 - 0.6) + 0.6 * ((2 - 0.35) + 0.35 / 256) / 2)
    assert byte_code_lengths(b"aaa", order=1) == pytest.approx([first, second, third], rel=1e-14)


@pytest.mark.parametrize("name", MADE)
def test_probabilities_sum_to_one_over_the_256_bytes_wherever_the_model_stands(name):
    for end in (0, 1, 7, 299):
        prefix = MADE[name][:end]
        last = np.array([byte_code_lengths(prefix + bytes([symbol]))[-1] for symbol in range(256)])
        assert np.exp2(-last).sum() == pytest.approx(1, abs=1e-12), end


def test_the_cost_of_a_byte_does_not_depend_on_what_follows():
    data = MADE["words"]
    whole = byte_code_lengths(data)
    for end in (0, 1, 2, 7, 100, len(data) - 1):
        assert np.array_equal(byte_code_lengths(data[:end]), whole[:end])


def test_the_total_is_near_that_of_ppmd_on_words_made_on_the_spot():
    data = " ".join(random.Random(3).choices([f"w{i * i:x}" for i in range(200)], k=5000)).encode()
    ppmd = 8 * len(CODERS["PPMd H order 6"].encode(data))
    assert byte_code_lengths(data).sum() == pytest.approx(ppmd, rel=0.05)


@pytest.mark.parametrize("name", ["alice29.txt", "book1", "tinyshakespeare.txt", "bible.txt", "wiki.test.raw"])
def test_100_kB_of_real_text_cost_within_five_percent_of_ppmd_at_forty_kB_a_second(name, shared_data):
    data = (shared_data / "text" / name).read_bytes()[:100_000]
    ppmd = 8 * len(CODERS["PPMd H order 6"].encode(data))
    start = time.perf_counter()
    total = byte_code_lengths(data).sum()
    seconds = time.perf_counter() - start
    assert total == pytest.approx(ppmd, rel=0.05)
    assert seconds < 2.5, f"{100 / seconds:.0f} kB/s"


def test_an_order_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^order must lie between 0 and 6 bytes of context, got 7; take order=6\.$"):
        byte_code_lengths(b"abc", order=7)
    with pytest.raises(ValueError, match=r"got -1"):
        byte_code_lengths(b"abc", order=-1)
