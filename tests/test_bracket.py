"""Both ends of an information and what each document weighs in them: by hand, by jackknife, on planted truths."""

import numpy as np
import pytest
import torch

from infocomp.estimators import Groups, Halves, SoftInformation
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.estimators.planted import PlantedLaw, constant

SMALL = {"vocabulary": 300, "dim": 32, "bins": 40}
BURSTY = PlantedLaw("bursty", constant(0.8), topic=0.5, burstiness=0.3, **SMALL)


def state_of(law, documents, tokens, seed):
    rows, labels, document = law.sample(documents, tokens, seed)
    state = SoftInformation(law.dim, anchors=law.anchors)
    state.update(rows, {"label": labels}, document)
    return state


def complexity(state, draw="mean"):
    return next(one for one in state.estimate() if one.quantity == "complexity" and one.draw == draw)


def test_halves_hold_whole_documents_and_nearly_as_many_rows():
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(31), rng.integers(1, 200, 31))
    halves = Halves.of(documents)
    assert halves is not None
    for document in range(31):
        assert len(set(halves.second[documents == document])) == 1
    assert abs(halves.second.mean() - 0.5) < 0.05
    assert Halves.of(np.zeros(10, np.int64)) is None


def test_halves_do_not_depend_on_the_order_in_which_documents_came():
    documents = np.repeat(np.arange(12), np.arange(3, 15))
    order = np.random.default_rng(1).permutation(len(documents))
    plain, mixed = Halves.of(documents), Halves.of(documents[order])
    assert plain is not None and mixed is not None
    assert np.array_equal(plain.second[order], mixed.second)


def test_both_ends_by_the_formulas_of_the_docstring_on_a_few_rows():
    rng = np.random.default_rng(3)
    labels, documents = rng.integers(0, 6, 40), np.repeat(np.arange(8), 5)
    plane = torch.from_numpy(np.array([rng.dirichlet(1 + 4 * (np.arange(5) == x % 5)) for x in labels])).float()
    labels[documents == 2] = 7  # a label that only one half knows
    state = SoftInformation(2, anchors=torch.randn(1, 5, 2))
    entropies = torch.special.entr(plane).sum(1)
    state.keep((plane[:, None], entropies[:, None], torch.zeros(2, dtype=torch.float64)))
    state._labels, state._documents = {"label": [labels]}, [documents]
    found = complexity(state)

    halves = Halves.of(documents)
    assert halves is not None
    a = plane.double().numpy()
    in_half = [~halves.second, halves.second]
    p, halved = a.mean(0), [a[half].mean(0) for half in in_half]

    def label_mean(x, half):
        own = in_half[half] & (labels == x)
        return a[own].sum(0), own.sum()

    both = [x for x in np.unique(labels) if all(label_mean(x, h)[1] for h in (0, 1))]
    products = {x: (label_mean(x, 0)[0] @ (label_mean(x, 1)[0] / p)) for x in both}
    counts = {x: (label_mean(x, 0)[1], label_mean(x, 1)[1]) for x in both}
    weights = {x: min(counts[x]) for x in both}
    between = sum(weights[x] * products[x] / np.prod(counts[x]) for x in both) / sum(weights.values()) - 1
    within = ((a**2) @ (1 / p)).mean() - 1 - between
    assert between > 0.1 * within
    alpha = within / between
    lengths, marginal = [], []
    for learnt, scored in ((0, 1), (1, 0)):
        total = 0.0
        for i in np.flatnonzero(in_half[scored]):
            sums, n = label_mean(labels[i], learnt)
            q = (sums + alpha * halved[learnt]) / (n + alpha) if n else halved[learnt]
            total -= a[i] @ np.log(q)
        lengths.append(total / in_half[scored].sum())
        marginal.append(-halved[scored] @ np.log(halved[learnt]))
    entropy = -(p @ np.log(p))
    conditional = entropy - found.value * np.log(2)
    assert found.lower * np.log(2) == pytest.approx(entropy - np.mean(lengths), abs=1e-6)
    assert found.upper * np.log(2) == pytest.approx(np.mean(marginal) - conditional, abs=1e-6)


def jackknife(law, seed, documents, tokens, names):
    """Standard errors with each document left out in turn, the halves as they are."""
    rows, labels, document = law.sample(documents, tokens, seed)
    whole = Halves.of(document)
    assert whole is not None
    state = SoftInformation(law.dim, anchors=law.anchors)
    state.update(rows, {"label": labels}, document)
    plane, entropies = state._buffer.plane(0), state._buffer.entropies()
    left_out = {name: [] for name in names}
    for one in range(documents):
        kept = document != one
        part = SoftInformation(law.dim, anchors=law.anchors)
        index = torch.from_numpy(np.flatnonzero(kept))
        part.keep((plane[index][:, None], entropies[index], torch.zeros(law.dim, dtype=torch.float64)))
        part._labels, part._documents = {"label": [labels[kept]]}, [document[kept]]
        groups = part.label_groups()
        halves = Halves(np.unique(document[kept], return_inverse=True)[1], whole.second[kept], documents - 1)
        about = groups[0].__dict__ | {"groups": Groups.of(labels[kept], halves=halves)}
        found = [e for e in part.estimate([type(groups[0])(**about)]) if e.quantity == "complexity" and e.draw == "0"]
        for name in names:
            left_out[name].append(getattr(found[0], name))
    factor = (documents - 1) / documents
    return {name: float(np.sqrt(factor * np.sum((v - np.mean(v)) ** 2))) for name, v in left_out.items()}


@pytest.mark.parametrize("signal", [0.4, 1.2])
def test_influence_values_give_the_standard_errors_of_a_jackknife_over_documents(signal):
    law = PlantedLaw("bursty", constant(signal), topic=0.5, burstiness=0.3, **SMALL)
    found = complexity(state_of(law, 24, 40, 0))
    by_jackknife = jackknife(law, 0, 24, 40, ("value", "lower", "upper"))
    for name, error in (("value", found.std_error), ("lower", found.lower_error), ("upper", found.upper_error)):
        assert error == pytest.approx(by_jackknife[name], rel=0.2), name


def test_the_influences_of_all_documents_cancel():
    found = complexity(state_of(BURSTY, 16, 50, 1))
    assert found.influence is not None and set(found.influence) == {"value", "lower", "upper", "point"}
    for name, of in found.influence.items():
        assert abs(of.sum()) < 1e-4 * np.abs(of).sum(), name


def test_ends_hold_the_truth_and_the_point_lies_between():
    law = PlantedLaw("planted", constant(0.8), **SMALL)
    truth = law.truth(256) / np.log(2)
    for seed in range(5):
        found = complexity(state_of(law, 40, 50, seed))
        assert found.lower < truth < found.upper and found.lower < found.point < found.upper
        assert found.interval[0] < found.lower and found.upper < found.interval[1]
        assert abs(found.point - truth) < 0.5 * abs(found.value - truth)


def test_ends_come_nearer_with_more_text():
    law = PlantedLaw("planted", constant(0.8), **SMALL)
    widths = [(lambda e: e.upper - e.lower)(complexity(state_of(law, documents, 50, 0))) for documents in (16, 64, 256)]
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_intervals_cover_their_expectation_and_a_percentile_bootstrap_does_not():
    corpora, documents = 60, 24
    found = [complexity(state_of(BURSTY, documents, 40, seed)) for seed in range(corpora)]
    width = quantile(documents)
    for name, error in (("value", "std_error"), ("lower", "lower_error"), ("upper", "upper_error")):
        values = np.array([getattr(one, name) for one in found])
        errors = np.array([getattr(one, error) for one in found])
        covered = (abs(values - values.mean()) <= width * errors).mean()
        assert covered >= 0.88, name  # nominal 0.95, sd of a share of 60 is 0.03
        assert 0.75 < errors.mean() / values.std(ddof=1) < 1.5, name
    mean = np.mean([one.value for one in found])
    rows, labels, document = BURSTY.sample(documents, 40, 0)
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(25):
        picked = (rng.integers(0, documents, documents)[:, None] * 40 + np.arange(40)).ravel()
        state = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
        state.update(rows[picked], {"label": labels[picked]}, document)
        resampled.append(complexity(state).value)
    assert np.min(resampled) > mean  # duplicated rows shift the statistic beyond its own spread


def test_a_single_document_has_no_ends_and_seven_have_no_interval():
    rows, labels, document = BURSTY.sample(7, 40, 0)
    few = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
    few.update(rows, {"label": labels}, document)
    found = complexity(few)
    assert found.lower is not None and found.interval is None and found.std_error is None
    assert found.status == "ok" and "7 documents, at least 8 are needed" in found.message
    one = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
    one.update(rows, {"label": labels}, np.zeros(len(labels), np.int64))
    assert complexity(one).lower is None and complexity(one).value is not None
    assert "the documents of the rows are not known" in complexity(one).message


def test_one_label_and_labels_seen_once_are_undetermined_with_the_reason():
    rows, _, document = BURSTY.sample(10, 20, 0)
    for labels, reason in ((np.zeros(200, np.int64), "one label only"), (np.arange(200), "every label is seen once")):
        state = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
        state.update(rows, {"label": labels}, document)
        found = complexity(state)
        assert found.status == "undetermined" and reason in found.message


def test_rows_without_a_label_enter_neither_end():
    rows, labels, document = BURSTY.sample(20, 40, 0)
    kept = np.random.default_rng(0).random(len(labels)) < 0.7
    whole, part = (SoftInformation(BURSTY.dim, anchors=BURSTY.anchors) for _ in range(2))
    whole.update(rows, {"label": np.where(kept, labels, -1)}, document)
    part.update(rows[torch.from_numpy(kept)], {"label": labels[kept]}, document[kept])
    other = complexity(part)
    found = complexity(whole)
    for name in ("value", "lower", "upper", "std_error", "lower_error", "upper_error"):
        assert getattr(found, name) == pytest.approx(getattr(other, name), rel=1e-4, abs=1e-6), name


def test_a_standard_error_is_that_of_a_mean_where_the_statistic_is_one():
    values = np.random.default_rng(0).standard_normal(50)
    influence = (values - values.mean()) / 50
    assert standard_error(influence) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_labels_in_documents_of_one_half_only_are_split_among_those():
    rows, labels, document = BURSTY.sample(24, 40, 0)
    halves = Halves.of(document)
    assert halves is not None
    state = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
    state.update(rows, {"label": np.where(halves.second, -1, labels)}, document)
    found = complexity(state)
    assert 0 < found.upper - found.lower < 6 and len(found.influence["value"]) == 12


def test_documents_are_counted_where_they_have_labels():
    rows, labels, document = BURSTY.sample(24, 40, 0)
    for documents, reason in ((4, "4 documents, at least 8 are needed"), (1, "there is only one")):
        state = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
        state.update(rows, {"label": np.where(document < documents, labels, -1)}, document)
        found = complexity(state)
        assert found.interval is None and found.std_error is None and reason in found.message


def test_a_document_that_is_most_of_the_text_takes_the_null_but_not_the_ends():
    rows, labels, document = BURSTY.sample(24, 40, 0)
    state = SoftInformation(BURSTY.dim, anchors=BURSTY.anchors)
    state.update(rows, {"label": labels}, np.maximum(document, 14))
    found = complexity(state)
    assert found.null is None and found.lower is not None and found.interval is not None


def test_labels_of_any_integer_type_are_gathered_alike():
    labels, documents = np.array([60_000, 3, 60_000, 3, 9]), np.array([0, 0, 1, 1, 2])
    halves = Halves.of(documents)
    small, large = (Groups.of(labels.astype(kind), halves=halves) for kind in (np.uint16, np.int64))
    assert small.counts.tolist() == large.counts.tolist() == [2, 1, 2]
    assert small.rows.tolist() == large.rows.tolist()


def test_a_ratio_has_no_ends_where_its_divisor_may_be_nothing():
    rows, labels, document = PlantedLaw("weak", constant(0.2), **SMALL).sample(24, 40, 0)
    following = np.roll(labels, -1)
    for signal, ends in ((0.2, False), (1.5, True)):
        law = PlantedLaw("any", constant(signal), **SMALL)
        rows, labels, document = law.sample(24, 40, 0)
        state = SoftInformation(law.dim, bins=law.bins, draws=2)
        state.update(rows, {"token": labels, "next_token": following}, document)
        found = next(one for one in state.estimate() if one.quantity == "optimality" and one.draw == "mean")
        assert (found.lower is not None) == ends
