"""The drift of neighbourhoods by hand, with planted movers, under noise alone, and over widths; the means' own laws."""

import numpy as np
import pytest
import torch

from infocomp.estimators.numbers import standard_error
from infocomp.geometry.word_drift import mean_drift, word_drift
from infocomp.geometry.word_means import WordMeans, frequent_types, second_half

DIM, DOCUMENTS = 24, 40


def planted(words: int, movers: int, seed: int, noise: float = 1.0):
    """Clusters of words in two models, the second turned round; some words have gone to another cluster.

    Returns rows of base and tuned, tokens, documents, and the ids of the movers.
    """
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(20, DIM))
    cluster = generator.integers(20, size=words)
    before = centres[cluster] + 0.7 * generator.normal(size=(words, DIM))
    after = before.copy()
    moved = generator.choice(words, movers, replace=False)
    away = (cluster[moved] + generator.integers(1, 20, size=movers)) % 20
    after[moved] = centres[away] + 0.7 * generator.normal(size=(movers, DIM))
    tokens = np.repeat(np.arange(words), np.clip(24 * generator.pareto(1.2, words), 24, 300).astype(int))
    documents = generator.integers(DOCUMENTS, size=len(tokens))
    turn = np.linalg.qr(generator.normal(size=(DIM, DIM)))[0]

    def spread():
        shared = generator.normal(size=(DOCUMENTS, DIM))[documents]
        return noise * (generator.normal(size=(len(tokens), DIM)) + 0.5 * shared)

    offset = 10.0  # what all activations share
    return before[tokens] + spread() + offset, (after[tokens] + spread()) @ turn + offset, tokens, documents, moved


def means_of(rows, tokens, documents, seed: int = 0):
    found = WordMeans(np.unique(tokens), rows.shape[1], seed)
    found.update(rows, tokens, documents)
    return found


def on_a_line(places):
    """Six words on the circle at the given angles, twice in each half."""
    angles = np.deg2rad(np.tile(np.array(places, dtype=float), 4))
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return means_of(rows, np.tile(np.arange(6) + 50, 4), np.repeat(np.arange(4), 6))


def test_three_pairs_on_a_circle_by_hand():
    """Words at 0, 10, 120, 130, 240 and 250 degrees; then those at 0 and 120 change places."""
    base = on_a_line([0, 10, 120, 130, 240, 250])
    tuned = on_a_line([120, 10, 0, 130, 240, 250])
    found = {word.token: word for word in word_drift(base, tuned, k=1, least=4)}
    assert found[50].drift == 1 and found[50].lost == (51,) and found[50].gained == (53,)
    assert found[52].lost == (53,) and found[52].gained == (51,)
    assert found[51].lost == (50,) and found[51].gained == (52,), "its neighbour went away, which is a drift as well"
    assert found[54].drift == 0 and found[54].lost == () == found[55].gained
    assert found[50].null == 0 and found[50].excess == 1 and found[50].count == 4
    mean = mean_drift(base, tuned, k=1, least=4)
    assert mean.value == pytest.approx(4 / 6) and mean.ceiling == pytest.approx(0.8) and mean.null == 0


def test_two_copies_of_one_model_drift_by_exactly_nothing():
    rows, _, tokens, documents, _ = planted(80, 0, seed=1, noise=3.0)
    base, copy = means_of(rows, tokens, documents), means_of(rows, tokens, documents)
    found = word_drift(base, copy)
    assert len(found) == 80
    assert all(word.drift == 0 == word.excess and word.p == 1 and not word.moved for word in found)
    assert any(word.null > 0.3 for word in found), "noise there is"
    mean = mean_drift(base, copy)
    assert (mean.value, mean.point, mean.std_error, mean.interval) == (0, 0, 0, (0, 0))
    assert mean.null is not None and mean.null > 0.2


@pytest.mark.parametrize("movers", [4, 12])
def test_planted_movers_head_the_list_and_are_called_moved(movers):
    base_rows, tuned_rows, tokens, documents, moved = planted(250, movers, seed=movers)
    found = word_drift(means_of(base_rows, tokens, documents), means_of(tuned_rows, tokens, documents))
    assert len(found) == 250
    called = {word.token for word in found if word.moved}
    assert set(moved) <= called
    others = called - set(moved)
    assert {word.token for word in found[:movers]} == set(moved), "those whose neighbours moved come after"
    assert len(others) <= 0.05 * 250
    assert all(word.excess < 0.5 for word in found if word.token in others)


def test_noise_alone_calls_hardly_a_word_moved():
    """One model over two halves of the text: 6 texts × 150 words in noise that takes half of the neighbours."""
    called, drifts = [], []
    for seed in range(6):
        rows, _, tokens, documents, _ = planted(150, 0, seed=100 + seed, noise=3.0)
        here = documents < DOCUMENTS // 2
        one, other = (means_of(rows[part], tokens[part], documents[part]) for part in (here, ~here))
        found = word_drift(one, other, least=4)
        called += [word.moved for word in found]
        drifts += [word.drift for word in found]
        mean = mean_drift(one, other, least=4)
        assert mean.point is not None and mean.point_error is not None
        assert abs(mean.point) < 4 * mean.point_error, "what is left beyond noise is none"
    assert len(called) > 500 and np.mean(called) <= 0.01
    assert np.mean(drifts) > 0.4


def test_widths_may_differ():
    base_rows, tuned_rows, tokens, documents, moved = planted(120, 5, seed=7)
    base = means_of(base_rows, tokens, documents)
    same = word_drift(base, means_of(tuned_rows, tokens, documents))
    wider = np.concatenate([tuned_rows, np.zeros((len(tokens), 9))], axis=1)
    assert word_drift(base, means_of(wider, tokens, documents)) == same
    assert {word.token for word in same[:5]} == set(moved)


def test_a_constant_offset_and_a_scale_move_no_word():
    rows, _, tokens, documents, _ = planted(60, 0, seed=8)
    base, shifted = means_of(rows, tokens, documents), means_of(3 * rows + 100, tokens, documents)
    assert all(word.drift == 0 for word in word_drift(base, shifted))


def test_the_error_of_the_mean_is_the_jackknife_over_words_done_slowly():
    base_rows, tuned_rows, tokens, documents, _ = planted(40, 6, seed=9, noise=2.0)
    base, tuned = means_of(base_rows, tokens, documents), means_of(tuned_rows, tokens, documents)
    mean = mean_drift(base, tuned, k=5)
    # the centre is held: neighbours among those left, by the similarity over all words
    similar = []
    for model in (base, tuned):
        centred = model.means() - model.means().mean(axis=0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        similar.append(unit @ unit.T)
    without = []
    for absent in range(40):
        drifts = []
        for word in set(range(40)) - {absent}:
            near = [[w for w in np.argsort(-s[word]) if w not in (word, absent)][:5] for s in similar]
            drifts.append(1 - len(set(near[0]) & set(near[1])) / 5)
        without.append(np.mean(drifts))
    expected = np.sqrt(39 / 40 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert mean.std_error == pytest.approx(expected, rel=1e-9)
    assert mean.influence is not None and abs(mean.influence["value"].sum()) < 1e-12
    assert standard_error(mean.influence["value"]) == mean.std_error


def test_any_split_and_any_merge_give_the_same_means():
    rows, _, tokens, documents, _ = planted(30, 0, seed=10)
    whole = means_of(rows, tokens, documents)
    parts = [WordMeans(whole.types, DIM) for _ in range(2)]
    cut = len(tokens) // 3
    parts[0].update(torch.from_numpy(rows[cut:]), tokens[cut:], documents[cut:])
    for row in range(0, cut, 7):
        parts[1].update(
            rows[row : min(row + 7, cut)], tokens[row : min(row + 7, cut)], documents[row : min(row + 7, cut)]
        )
    parts[0].merge(parts[1])
    assert np.array_equal(parts[0].counts, whole.counts)
    np.testing.assert_allclose(parts[0].sums, whole.sums, rtol=1e-12)
    here = tokens == 3
    np.testing.assert_allclose(whole.means()[3], rows[here].mean(axis=0))
    later = here & second_half(documents, 0)
    np.testing.assert_allclose(whole.means(half=1, of=np.array([3]))[0], rows[later].mean(axis=0))


def test_bfloat16_rows_are_added_up_in_float64():
    found = WordMeans(np.array([1]), 1)
    found.update(torch.ones(3000, 1, dtype=torch.bfloat16), np.ones(3000, dtype=int), np.arange(3000))
    assert found.sums.sum() == 3000, "bfloat16 would stop at 256"


def test_halves_part_neighbouring_documents_and_follow_the_seed():
    documents = np.arange(1000)
    second = second_half(documents, seed=0)
    assert (second[::2] != second[1::2]).all(), "2j and 2j + 1"
    assert 0.4 < second[::2].mean() < 0.6, "a coin: 500 throws"
    assert (second_half(documents, seed=1) != second).any()
    assert np.array_equal(second_half(documents[::-1], seed=0), second[::-1])


def test_frequent_types_are_seen_in_both_halves():
    tokens = np.array([5] * 8 + [7] * 6 + [2] * 6 + [9] * 20)
    documents = np.array([0, 1] * 4 + [0, 1] * 3 + [0, 1] * 3 + [0] * 20)
    assert frequent_types(tokens, documents, least=6).tolist() == [5, 2, 7], "9 stands in one document alone"
    assert frequent_types(tokens, documents, least=8).tolist() == [5]
    assert frequent_types(tokens, documents, most=2, least=6).tolist() == [5, 2], "a tie goes to the smaller id"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda one, few: WordMeans(np.array([3, 3]), 2), "different token ids, .* 1 different ones"),
        (lambda one, few: WordMeans(np.array([3]), 0), "dim must be at least 1, got 0"),
        (lambda one, few: one.update(np.ones((2, 3)), np.ones(2), np.ones(2)), r"rows of shape \(2, 3\) .* width 2"),
        (lambda one, few: one.update(np.full((1, 2), np.nan), np.array([50]), np.array([0])), "NaN or infinity"),
        (lambda one, few: one.update(np.ones((1, 2)), np.array([50]), np.array([-1])), "numbered from 0, got -1"),
        (lambda one, few: one.merge(few), "6 and of 1 token types: .* one tokenizer"),
        (lambda one, few: one.merge(WordMeans(one.types, 3)), "widths 2 and 3 cannot be merged"),
        (lambda one, few: one.merge(WordMeans(one.types, 2, seed=4)), "by seeds 0 and 4; take one seed"),
        (lambda one, few: word_drift(one, one, k=0), "k must be at least 1 neighbour, got 0"),
        (lambda one, few: word_drift(one, one, k=5, least=4), "6 of 6 words .* 5 neighbours need at least 7 words"),
        (lambda one, few: word_drift(one, one, k=1, least=6), "0 of 6 words occur 3 times"),
        (lambda one, few: word_drift(on_a_line([5] * 6), one, k=1, least=4), "mean rows of all words are equal"),
        (lambda one, few: frequent_types(np.ones(3), np.ones(2)), "3 tokens and 2 documents"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(on_a_line([0, 10, 120, 130, 240, 250]), WordMeans(np.array([50]), 2))
