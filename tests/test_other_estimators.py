"""Laws that every estimator beside the soft one keeps, whatever it computes, and what each of them refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from infocomp.corpora.labels import LabelSet
from infocomp.estimators.bins import KMeansInformation
from infocomp.estimators.gaussian import GaussianInformation, GaussianPairInformation
from infocomp.estimators.infonce import InfoNceInformation
from infocomp.estimators.interface import Estimator
from infocomp.estimators.known import codes_on_anchors, gaussian_mixture, independent_labels, normal
from infocomp.estimators.matrix_renyi import RenyiInformation
from infocomp.estimators.neighbours import KsgInformation, RossInformation
from infocomp.estimators.others import OTHER_ESTIMATORS, PAIR_ESTIMATORS
from infocomp.estimators.reservoir import Reservoir

DIM, N = 4, 480
SETTINGS = {
    "kmeans": {"bins": 6, "size": 400},
    "ross": {"size": 400},
    "renyi": {"size": 200},
    "gaussian": {"size": 400},
    "infonce": {"size": 400, "negatives": 32, "steps": 60},
}
NAMES = list(OTHER_ESTIMATORS)


def make(name, **more):
    return OTHER_ESTIMATORS[name](dim=DIM, seed=2, **(SETTINGS[name] | more))


def corpus():
    x, z, _ = gaussian_mixture(labels=3, apart=3.0, dim=DIM).sample(N, seed=0)
    return torch.from_numpy(z).float(), x, np.arange(N) // 24


def fed(name, parts, rows, labels, documents):
    state = make(name)
    for part in parts:
        state.update(rows[part], {"x": labels[part]}, documents[part], part)
    return state


def assert_same(one, other):
    assert [replace(a, value=None, interval=None, null=None, null_rows=None, ceiling=None) for a in one] == [
        replace(b, value=None, interval=None, null=None, null_rows=None, ceiling=None) for b in other
    ]
    for a, b in zip(one, other, strict=True):
        for field in ("value", "interval", "null", "null_rows", "ceiling"):
            assert getattr(a, field) == pytest.approx(getattr(b, field), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_any_split_order_or_merge_gives_the_same_answer(name):
    rows, labels, documents = corpus()
    everything = np.arange(N)
    whole = fed(name, [everything], rows, labels, documents).estimate()
    assert whole[0].status == "ok" and whole[0].value > 0.5
    assert_same(whole, fed(name, np.array_split(everything[::-1].copy(), 9), rows, labels, documents).estimate())
    first = fed(name, np.array_split(everything[:200], 3), rows, labels, documents)
    second = fed(name, [everything[200:]], rows, labels, documents)
    second.merge(first)
    assert_same(whole, second.estimate())


@pytest.mark.parametrize("name", NAMES)
def test_labels_may_come_after_the_pass(name):
    rows, labels, documents = corpus()
    early = fed(name, [np.arange(N)], rows, labels, documents).estimate()
    late = make(name)
    for part in np.array_split(np.arange(N), 5):
        late.update(rows[part])
    assert_same(early, late.estimate({"x": labels}, documents))
    sets = [LabelSet("x", 1, "input", labels), LabelSet("x", 2, "output", labels)]
    found = late.estimate(sets, torch.from_numpy(documents))
    assert [(one.quantity.split("_")[0], one.order) for one in found if "_" not in one.quantity] == [
        ("complexity", 1),
        ("expressivity", 2),
    ]
    assert found[0].value == pytest.approx(early[0].value, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_reservoir_serves_like_an_own_one(name):
    rows, labels, documents = corpus()
    shared = Reservoir(DIM, size=450, seed=2)
    shared.update(rows, {"x": labels}, documents, np.arange(N))
    own = fed(name, [np.arange(N)], rows, labels, documents)
    assert_same(own.estimate(), make(name, reservoir=shared).estimate())


@pytest.mark.parametrize("name", NAMES)
def test_names_of_labels_do_not_matter_and_rows_without_one_are_left_out(name):
    rows, labels, documents = corpus()
    plain = make(name)
    plain.update(rows)
    renamed = np.array([907, 11, 500])[labels]
    one, other = plain.estimate({"x": labels}, documents)[0], plain.estimate({"x": renamed}, documents)[0]
    # the critic of InfoNCE visits labels in another order; the rest is equal to rounding
    assert one.value == pytest.approx(other.value, abs=0.05 if name == "infonce" else 1e-9)
    without = labels.copy()
    without[: N // 2] = -1
    assert plain.estimate({"x": without}, documents)[0].n < one.n


@pytest.mark.parametrize("name", NAMES)
def test_each_answers_to_the_three_verbs_and_states_null_ceiling_and_interval(name):
    rows, labels, documents = corpus()
    state = fed(name, [np.arange(N)], rows, labels, documents)
    assert isinstance(state, Estimator)
    found = state.estimate()[0]
    assert (found.quantity, found.label, found.unit, found.status) == ("complexity", "x", "bits", "ok")
    assert found.n_labels == 3 and found.singleton_mass == 0.0
    low, high = found.interval
    assert low < found.value < high
    assert "interval: " in found.message
    assert found.ceiling <= math.log2(3) + 1e-9
    if name == "infonce":
        assert found.null is None and "at most log2 32 = 5 bits" in found.message
    else:
        assert found.null < found.value / 2


@pytest.mark.parametrize("name", NAMES)
def test_one_label_and_singletons_and_too_few_documents_are_told_in_a_sentence(name):
    rows, labels, documents = corpus()
    state = make(name)
    state.update(rows)
    sampled = min(N, SETTINGS[name]["size"])
    one = state.estimate({"x": np.zeros(N, dtype=int)}, documents)
    assert [(found.status, found.value) for found in one] == [("refused", None)]
    assert one[0].message == f"one label only (on {sampled} rows): information about it is 0 by definition."
    singles = state.estimate({"x": np.arange(N)}, documents)[0]
    assert singles.status == "refused" and singles.singleton_mass == 1.0
    assert singles.message == f"all {sampled} labels are singletons: any rows would seem to tell them apart."
    none = state.estimate({"x": np.full(N, -1)}, documents)[0]
    assert (none.status, none.message) == ("refused", "no sampled row has a label.")
    few = state.estimate({"x": labels}, np.arange(N) // (N // 4))[0]
    assert few.value is not None and few.interval is None
    assert "no interval: 4 documents, at least 8 are needed" in few.message
    assert "no documents were given" in state.estimate({"x": labels})[0].message


@pytest.mark.parametrize("name", NAMES)
def test_wrong_lengths_missing_labels_and_foreign_states_are_refused(name):
    rows, labels, documents = corpus()
    state = make(name)
    state.update(rows)
    with pytest.raises(ValueError, match="no labels: give them to update or to estimate"):
        state.estimate()
    with pytest.raises(ValueError, match="x has 10 entries, but rows are numbered up to 4"):
        state.estimate({"x": labels[:10]}, documents)
    with pytest.raises(ValueError, match="documents has 10 entries, but rows are numbered up to 4"):
        state.estimate({"x": labels}, documents[:10])
    with pytest.raises(ValueError, match="rows are not finite"):
        state.update(rows * float("inf"))
    other = make("ross" if name != "ross" else "kmeans")
    with pytest.raises(TypeError, match="cannot merge"):
        state.merge(other)
    with pytest.raises(ValueError, match="the reservoir has 3 dimensions, dim is 4"):
        make(name, reservoir=Reservoir(3))


@pytest.mark.parametrize(
    "name, value, ceiling",
    # standard deviations of the table in docs/tables/known.csv at n = 1000, times four
    [("ross", 0.0, 0.16), ("infonce", 0.0, 0.1)],
)
def test_independent_labels_read_zero(name, value, ceiling):
    x, z, documents = independent_labels(labels=5, dim=DIM).sample(1000, seed=1)
    state = OTHER_ESTIMATORS[name](dim=DIM)
    state.update(torch.from_numpy(z), {"x": x}, documents)
    assert abs(state.estimate()[0].value - value) < ceiling


@pytest.mark.parametrize("name", ["kmeans", "ross", "renyi", "infonce"])
def test_tight_codes_read_all_of_their_entropy(name):
    x, z, documents = codes_on_anchors(labels=4, dim=DIM, bins=20, spread=1e-6).sample(800, seed=0)
    # a kernel narrower than the distance of two anchors, or Rényi sees them blurred
    more = {"kmeans": {"bins": 4}, "renyi": {"bandwidth": 0.05}}.get(name, {})
    state = OTHER_ESTIMATORS[name](dim=DIM, **more)
    state.update(torch.from_numpy(z), {"x": x}, documents)
    found = state.estimate()[0]
    share = np.bincount(x) / len(x)
    entropy = -(share * np.log2(share)).sum()
    tolerance = {"infonce": 0.08, "ross": 0.02}.get(name, 2e-3)  # trained; digammas instead of logarithms; sample
    assert found.value == pytest.approx(entropy, abs=tolerance)


@pytest.mark.parametrize("name", list(PAIR_ESTIMATORS))
def test_pairs_split_merged_or_whole_give_the_same(name):
    x, z, documents = (torch.from_numpy(part) for part in normal(0.75).sample(600, seed=0))
    whole = PAIR_ESTIMATORS[name](dim=1)
    whole.update(x, z, documents)
    one, other = PAIR_ESTIMATORS[name](dim=1), PAIR_ESTIMATORS[name](dim=1)
    for part in torch.arange(400).split(37):
        one.update(x[part], z[part], documents[part])
    other.update(x[400:], z[400:], documents[400:])
    one.merge(other)
    assert_same(whole.estimate(), one.estimate())
    assert whole.estimate()[0].interval is not None
    with pytest.raises(ValueError, match=r"others must be \[rows, 1\], got \(600, 2\)"):
        whole.update(x, torch.cat([z, z], dim=1), documents)
    with pytest.raises(ValueError, match="others has 5 rows, rows has 600"):
        whole.update(x, z[:5], documents)
    with pytest.raises(ValueError, match="not finite"):
        whole.update(x * float("nan"), z, documents)
    with pytest.raises(ValueError, match="documents must be given in every update or in none"):
        whole.update(x, z)
    with pytest.raises(ValueError, match="differ"):
        whole.merge(PAIR_ESTIMATORS[name](dim=2))
    few = PAIR_ESTIMATORS[name](dim=1)
    few.update(x[:2], z[:2])
    assert few.estimate()[0].status == "refused"
    assert "fe" in few.estimate()[0].message  # "fewer than k + 1" or "too few"


@pytest.mark.parametrize(
    "build, sentence",
    [
        (lambda: KMeansInformation(2, bins=1), "bins must be at least 2, got 1"),
        (lambda: RossInformation(2, k=0), "k must be at least 1 neighbour, got 0"),
        (lambda: KsgInformation(2, k=0), "k must be at least 1 neighbour, got 0"),
        (lambda: RenyiInformation(2, alpha=0), "alpha must be above 0, got 0"),
        (lambda: RenyiInformation(2, bandwidth=-1), "bandwidth must be above 0, got -1"),
        (lambda: InfoNceInformation(2, negatives=1), "negatives must be at least 2"),
        (lambda: InfoNceInformation(2, steps=0), "steps must be at least 1, got 0"),
        (lambda: GaussianInformation(2, groups=1), "groups of documents must be at least 2, got 1"),
        (lambda: GaussianPairInformation(2).estimate(), "update was never called"),
    ],
)
def test_settings_out_of_range_are_named(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
