"""n-gram labels: two rows share one exactly where their tokens agree, whatever the vocabulary and the windows."""

from itertools import pairwise

import numpy as np
import pytest
from tiny_text import token_corpus

from infocomp.corpora.labels import LabelSet, n_gram_labels, order_name
from infocomp.corpora.windows import cut_windows, document_of

ORDERS = (1, 2, 3, 4)


def n_grams(tokens, positions, order, direction) -> list[tuple[int, ...]]:
    """The slow twin: tuples of tokens, cut out one by one."""
    shift = 1 - order if direction == "input" else 1
    return [tuple(tokens[i + shift : i + shift + order].tolist()) for i in positions]


def assert_labels_are_these(label: LabelSet, tuples: list[tuple[int, ...]]) -> None:
    """Dense from 0, and one label for one tuple."""
    pairs = set(zip(label.ids.tolist(), tuples, strict=True))
    assert len(pairs) == len(set(tuples)) == len({number for number, _ in pairs})
    assert {number for number, _ in pairs} == set(range(len(pairs)))


@pytest.mark.parametrize("vocabulary", [2, 5, 97, 100_000, 2**31 - 1])
def test_labels_are_the_tuples_of_tokens(vocabulary):
    generator = np.random.default_rng(vocabulary)
    tokens = generator.integers(0, vocabulary, 400).astype(np.int32)
    tokens[200:400:2] = tokens[0:200:2]  # what comes back
    tokens[300:] = tokens[:100]
    positions = generator.permutation(np.arange(3, 396))
    labels = n_gram_labels(tokens, positions, ORDERS)
    assert [(label.direction, label.order) for label in labels] == [
        (direction, order) for direction in ("input", "output") for order in ORDERS
    ]
    for label in labels:
        assert_labels_are_these(label, n_grams(tokens, positions, label.order, label.direction))


def test_quadgrams_that_collide_in_a_code_of_64_bits_are_told_apart():
    vocabulary = 100_000
    assert vocabulary**4 > 2**63
    # 2⁶⁴ written with digits of base V: added to a quadgram it changes all tokens and no bit of the code
    digits = [2**64 // vocabulary**power % vocabulary for power in (3, 2, 1, 0)]
    generator = np.random.default_rng(0)
    first = generator.integers(0, vocabulary - max(digits), (20, 4))
    second = first + digits
    quadgrams = np.stack([first, second, first], axis=1).reshape(-1, 4)
    with np.errstate(over="ignore"):
        codes = (quadgrams * np.array([vocabulary**3, vocabulary**2, vocabulary, 1])).sum(axis=1)
    assert len(set(codes.tolist())) == 20  # the naive code takes both for one
    tokens = np.r_[quadgrams.ravel(), [1, 2, 3, 4]].astype(np.int32)
    positions = np.arange(3, quadgrams.size, 4)
    labels = {(label.direction, label.order): label for label in n_gram_labels(tokens, positions, ORDERS)}
    found = labels["input", 4].ids.reshape(-1, 3)
    assert len(set(found.ravel().tolist())) == 40
    assert (found[:, 0] == found[:, 2]).all() and (found[:, 0] != found[:, 1]).all()
    assert_labels_are_these(labels["output", 4], n_grams(tokens, positions, 4, "output"))


def test_input_and_output_meet_at_the_position():
    tokens = np.array([10, 11, 12, 13, 14, 15, 11, 12, 13, 16], dtype=np.int32)
    positions = np.array([2, 7])  # 11 12 | 13 14 and 11 12 | 13 16
    shared = [
        (label.direction, label.name)
        for label in n_gram_labels(tokens, positions, (1, 2))
        if label.ids[0] == label.ids[1]
    ]
    assert shared == [("input", "token"), ("input", "bigram"), ("output", "token")]


def test_only_the_orders_asked_for_come_back_and_they_are_the_same():
    tokens = np.random.default_rng(0).integers(0, 5, 200).astype(np.int32)
    positions = np.arange(4, 190)
    every = {(one.direction, one.order): one.ids for one in n_gram_labels(tokens, positions, (1, 2, 3, 4))}
    some = n_gram_labels(tokens, positions, (4, 2))
    assert [(one.direction, one.order) for one in some] == [("input", 2), ("input", 4), ("output", 2), ("output", 4)]
    assert all(np.array_equal(one.ids, every[one.direction, one.order]) for one in some)
    assert all(one.ids.size == 0 for one in n_gram_labels(tokens, positions[:0], (1, 2)))


@pytest.mark.parametrize("stride", [None, 5])
def test_no_label_reaches_across_a_document_or_out_of_its_window(stride):
    corpus = token_corpus([30, 3, 41, 8, 1, 25], vocabulary=4)
    windows = cut_windows(corpus, 12, 4, stride=stride)
    rows, starts = windows.row_tokens, windows.starts[windows.row_windows]
    ends = starts + windows.lengths[windows.row_windows]
    assert (rows - 3 >= starts).all() and (rows + 4 < ends).all()
    assert (document_of(corpus, rows - 3) == document_of(corpus, rows + 4)).all()
    for label in n_gram_labels(corpus.tokens, rows, ORDERS):
        assert_labels_are_these(label, n_grams(corpus.tokens, rows, label.order, label.direction))


@pytest.mark.parametrize("policy", ["document", "window"])
def test_a_bos_is_no_part_of_a_label(policy):
    corpus = token_corpus([20, 20, 20], vocabulary=4)
    bare = cut_windows(corpus, 10, 2)
    with_bos = cut_windows(corpus, 11, 2, bos_policy=policy, bos=0)
    assert with_bos.has_bos.any()
    # the same windows after a BOS: the same positions are measured, and their labels are the same
    assert sorted(bare.row_tokens) == sorted(with_bos.row_tokens)
    for label in n_gram_labels(corpus.tokens, with_bos.row_tokens, (1, 2)):
        tuples = n_grams(corpus.tokens, with_bos.row_tokens, label.order, label.direction)
        assert_labels_are_these(label, tuples)
        assert not any(0 in one for one in tuples)


def test_names_of_orders_and_directions():
    assert [order_name(n) for n in (1, 2, 3, 4, 5)] == ["token", "bigram", "trigram", "quadgram", "5-gram"]
    with pytest.raises(ValueError, match=r"^direction must be input or output, got 'next'\.$"):
        LabelSet("token", 1, "next", np.zeros(1, np.int64))


@pytest.mark.parametrize("orders", [(), (0, 1)])
def test_orders_below_one_are_refused(orders):
    with pytest.raises(ValueError, match=r"^orders must be numbers from 1 up, got \["):
        n_gram_labels(np.arange(9), np.array([4]), orders)


@pytest.mark.parametrize(("order", "first", "last"), list(zip((1, 2, 4), (0, 1, 3), (8, 7, 5), strict=True)))
def test_an_n_gram_that_leaves_the_text_is_refused(order, first, last):
    tokens = np.arange(10, dtype=np.int32)
    assert len(n_gram_labels(tokens, np.array([first, last]), (order,))[0].ids) == 2
    for outside in (first - 1, last + 1):
        with pytest.raises(ValueError, match=rf"^an n-gram of order {order} leaves the text; measure positions"):
            n_gram_labels(tokens, np.array([outside]), (order,))


def test_a_longer_n_gram_knows_the_shorter_one():
    tokens = np.random.default_rng(1).integers(0, 3, 300).astype(np.int32)
    labels = {(one.direction, one.order): one.ids for one in n_gram_labels(tokens, np.arange(3, 290), ORDERS)}
    for direction in ("input", "output"):
        for shorter, longer in pairwise(ORDERS):
            pairs = set(zip(labels[direction, longer].tolist(), labels[direction, shorter].tolist(), strict=True))
            assert len(pairs) == len(set(labels[direction, longer].tolist()))
