"""Linear probes of preference: what is planted is found on prompts not learnt from, noise is not, controls tell."""

import numpy as np
import pytest
from scipy import sparse

from infocomp.corpora.pairs import PairSettings, PreferencePair, prompt_numbers, read_pairs
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.numbers import standard_error
from infocomp.geometry.preference_probe import (
    PENALTIES,
    author_features,
    bag_of_tokens,
    length_features,
    probe,
    prompt_folds,
)


def planted(pairs: int, gain: float, shared: float = 0.0, dim: int = 6, seed: int = 0):
    """Gaussian features; chosen completions lie `gain` further along the first axis, prompts `shared` apart."""
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(pairs, 2, dim)) + shared * generator.normal(size=(pairs, 1, dim))
    found[:, 0, 0] += gain
    return found


def test_a_planted_direction_is_found_as_well_as_can_be():
    """Φ(gain/√2) of the pairs at best, for unit noise on both sides."""
    found = probe(planted(600, 2.0), np.arange(600))
    assert found.accuracy == pytest.approx(0.921, abs=3 * np.sqrt(0.921 * 0.079 / 600))
    assert 0.3 < found.bits < 0.55, "Φ(1) = 84 % of completions at best"
    accuracy, bits = found.estimates(n=1200)
    assert (accuracy.quantity, accuracy.null, bits.quantity, bits.null) == ("probe_accuracy", 0.5, "probe_bits", 0.0)
    assert accuracy.interval is not None and accuracy.interval[0] < 0.921 < accuracy.interval[1]
    assert accuracy.std_error == pytest.approx(np.sqrt(found.accuracy * (1 - found.accuracy) / 599))
    assert found.bits_influence.sum() == pytest.approx(0.0, abs=1e-12) and bits.influence is not None
    assert bits.std_error == pytest.approx(standard_error(found.bits_influence))


def test_noise_is_not_found_and_costs_little():
    found = [probe(planted(120, 0.0, dim=20, seed=seed), np.arange(120), seed) for seed in range(4)]
    assert np.mean([one.accuracy for one in found]) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(480))
    assert -0.02 < np.mean([one.bits for one in found]) < 0.01


def test_dense_and_sparse_features_are_taken_pair_by_pair():
    features = np.round(planted(200, 2.0))
    flat = sparse.csr_array(features.reshape(400, -1))
    one, other = (probe(given, np.arange(200), folds=3) for given in (features, flat))
    assert abs(one.accuracy - other.accuracy) < 0.03 and np.array_equal(one.folds, other.folds)


@pytest.mark.parametrize("prompts", [2, 3, 4])
def test_fewer_prompts_than_folds_are_a_fold_each_and_none_is_learnt_from_where_it_is_scored(prompts):
    """Each prompt's pairs hold one direction of their own: what was learnt of others says nothing of them."""
    asked = np.arange(40) % prompts
    found = probe(planted(40, 3.0, seed=1), asked)
    assert found.accuracy > 0.85 and len(set(found.folds)) == len(found.penalties) == prompts
    assert all(len(set(asked[found.folds == fold])) == 1 for fold in range(prompts))
    assert found.message == f"{prompts} folds, one a prompt: 5 were asked for"
    assert {one.message for one in found.estimates(80)} == {found.message}
    own = np.zeros((40, 2, prompts))
    own[np.arange(40), 0, asked], own[np.arange(40), 1, asked] = 1.0, -1.0
    assert probe(own, asked).accuracy == 0.5


def test_where_one_prompt_is_left_to_learn_from_the_strongest_penalty_is_taken():
    assert probe(planted(12, 1.0), np.arange(12) % 2).penalties == (PENALTIES[0],) * 2


def test_enough_prompts_are_split_as_asked_and_nothing_is_said():
    found = probe(planted(40, 1.0), np.arange(40))
    assert set(found.folds) == set(range(5)) and found.message == ""
    few = probe(planted(6, 1.0), np.arange(6) % 4).estimates(12)[0]
    assert few.message == "4 folds, one a prompt: 5 were asked for; no interval: 6 pairs, at least 8 are needed"
    assert few.weighting == "completions"


def test_one_prompt_is_refused():
    with pytest.raises(Refusal, match="all pairs have one prompt, and a probe is scored on prompts that it did not"):
        probe(planted(24, 1.0), np.zeros(24, dtype=int))


def test_pairs_of_a_prompt_are_in_one_fold_and_folds_are_even():
    prompts = np.random.default_rng(0).integers(0, 53, 200)
    folds = prompt_folds(prompts, seed=1, folds=5)
    for prompt in np.unique(prompts):
        assert len(set(folds[prompts == prompt])) == 1
    sizes = [len(set(prompts[folds == fold])) for fold in range(5)]
    assert max(sizes) - min(sizes) <= 1
    assert not np.array_equal(folds, prompt_folds(prompts, seed=2, folds=5))
    with pytest.raises(ValueError, match="prompts has 4 different prompts, and 5 folds by prompt need at least 5"):
        prompt_folds(np.arange(10) % 4, seed=1, folds=5)
    with pytest.raises(ValueError, match="1 folds by prompt need at least 2"):
        probe(planted(10, 1.0), np.arange(10), folds=1)


def test_a_prompt_that_comes_back_is_not_learnt_by_heart():
    """Each prompt's four pairs hold one random direction: by prompt it says nothing, by pair it would say all."""
    generator = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), 4)
    side = np.where(generator.random(40) < 0.5, 1.0, -1.0)
    features = np.zeros((160, 2, 40))
    features[np.arange(160), 0, prompts], features[np.arange(160), 1, prompts] = side[prompts], -side[prompts]
    assert probe(features, prompts).accuracy == pytest.approx(0.5, abs=0.1)
    assert probe(features, np.arange(160)).accuracy > 0.9


def test_features_that_do_not_differ_give_exactly_one_half():
    features = planted(50, 0.0)
    features[:, 1] = features[:, 0]
    found = probe(features, np.arange(50))
    assert found.accuracy == 0.5 and not found.accuracy_influence.any()
    assert probe(np.ones((50, 2, 1)), np.arange(50)).bits == pytest.approx(0.0, abs=1e-9)


def test_equal_features_give_equal_numbers_and_labels_are_not_read_from_order():
    features = planted(80, 1.0)
    one, other = probe(features, np.arange(80)), probe(features.copy(), np.arange(80))
    assert one.bits == other.bits and np.array_equal(one.margins, other.margins)
    turned = probe(features[:, ::-1], np.arange(80))
    assert turned.accuracy == pytest.approx(one.accuracy), "what is less is as easily told as what is more"


def test_the_bag_of_tokens_counts_by_hand():
    tokens, completion = np.array([7, 3, 7, 7, 3, 9]), np.array([0, 0, 0, 1, 3, 3])
    bag = bag_of_tokens(tokens, completion, 4).toarray()
    assert bag == pytest.approx(np.log1p([[1, 2, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]))
    some = bag_of_tokens(tokens, completion, 4, np.array([1, 1, 0, 1, 1, 0], dtype=bool)).toarray()
    assert some == pytest.approx(np.log1p([[1, 1], [0, 1], [0, 0], [1, 0]]))


def test_lengths_and_authors_are_features():
    assert length_features(np.array([[0, 3]])) == pytest.approx(np.array([[[0, 0], [3, np.log(4)]]]))
    pairs = [PreferencePair("a", "", "x", "y", *who) for who in (("A", "B"), ("B", "A"), ("C", "A"))]
    assert np.array_equal(author_features(pairs)[2], [[0, 0, 1], [1, 0, 0]])
    with pytest.raises(ValueError, match="1 of 4 pairs do not tell who wrote both completions; name the columns"):
        author_features([*pairs, PreferencePair("b", "", "x", "y", "A", None)])


@pytest.mark.parametrize(
    ("features", "prompts", "expected"),
    [
        (np.zeros((10, 2, 1)), np.arange(9), "features has 20 rows, prompts 9"),
        (np.zeros((10, 3, 1)), np.arange(10), r"features must be \[pairs, 2, dim\] .* got \[10, 3, 1\]"),
        (np.full((10, 2, 1), np.nan), np.arange(10), "features hold NaN or infinity; find the layer or checkpoint"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_probed_are_one_sentence(features, prompts, expected):
    with pytest.raises(ValueError, match=expected):
        probe(features, prompts)


def test_few_pairs_have_no_interval():
    accuracy, _ = probe(planted(7, 1.0), np.arange(7)).estimates(14)
    assert accuracy.interval is None and accuracy.message == "no interval: 7 pairs, at least 8 are needed"


def controls_of(shared_data, name: str) -> dict[str, float]:
    (path,) = (shared_data / "preferences").glob(f"*{name}.jsonl")
    pairs = read_pairs(PairSettings(files=str(path)))[::3]
    texts = [text.split() for pair in pairs for text in pair.completions if isinstance(text, str)]
    lengths = np.array([len(text) for text in texts]).reshape(-1, 2)
    words = np.unique([word for text in texts for word in text[:25]], return_inverse=True)[1]
    completion = np.repeat(np.arange(len(texts)), np.minimum([len(text) for text in texts], 25))
    position = np.concatenate([np.arange(min(len(text), 25)) for text in texts])
    bag = bag_of_tokens(words, completion, len(texts), position < lengths.min(axis=1)[completion // 2])
    features = {"length": length_features(lengths), "author": author_features(pairs), "bag": bag}
    return {name: probe(given, prompt_numbers(pairs)).accuracy for name, given in features.items()}


def test_in_one_real_set_length_and_author_give_the_preference_away_and_in_the_other_hardly(shared_data):
    """268 pairs know a share to 3 %."""
    confounded = controls_of(shared_data, "gemma7b_vs_gpt4turbo")
    assert confounded["length"] > 0.75 and confounded["author"] > 0.88 and confounded["bag"] > 0.75
    balanced = controls_of(shared_data, "ppohuman_vs_davinci003")
    assert balanced["length"] < 0.64 and balanced["author"] < 0.68 and balanced["bag"] < 0.68
