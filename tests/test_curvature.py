"""Curvature against triangles, straight lines and circles; its exact null; any cut into batches gives the same."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.curvature import SHUFFLED, Curvature


def curvature_of(rows, documents=None, breaks=None) -> Any:
    """Both estimates of rows given at once; without breaks, a run is a document."""
    rows = torch.as_tensor(np.asarray(rows, dtype=np.float64))
    documents = np.zeros(len(rows), dtype=int) if documents is None else np.asarray(documents)
    found = Curvature(rows.shape[1])
    if breaks is None:
        breaks = np.r_[True, documents[1:] != documents[:-1]]
    found.update(rows, breaks, documents)
    return found.estimate()


def texts(n=600, dim=7, seed=0, documents=12):
    """Rows that go on in their direction more or less, by document; runs of 25 rows."""
    generator = np.random.default_rng(seed)
    document = np.repeat(np.arange(documents), n // documents)
    inertia = generator.uniform(0, 0.9, documents)[document]
    steps = generator.standard_normal((n, dim))
    for row in range(1, n):
        steps[row] += inertia[row] * steps[row - 1]
    return torch.from_numpy(np.cumsum(steps, axis=0)), np.arange(n) % 25 == 0, document


def by_hand(rows, breaks, documents):
    """As the papers write it, one angle at a time: the angles of each document."""
    found = {int(document): [] for document in documents}
    for k in range(2, len(rows)):
        if breaks[k] or breaks[k - 1]:
            continue
        first, second = rows[k - 1] - rows[k - 2], rows[k] - rows[k - 1]
        cosine = float(first @ second / (first.norm() * second.norm()))
        found[int(documents[k])].append(math.acos(cosine))
    return found


def test_a_line_is_straight_a_square_turns_by_a_right_angle_and_a_return_by_pi():
    assert curvature_of([[0, 0], [1, 2], [3, 6], [4, 8]])[0].value == pytest.approx(0, abs=1e-7), "any lengths"
    assert curvature_of([[0, 0], [3, 0], [3, 1], [0, 1]])[0].value == pytest.approx(math.pi / 2)
    assert curvature_of([[0.0, 1.0], [2.0, 2.0], [0.0, 1.0]])[0].value == pytest.approx(math.pi)
    turns = 2 * math.pi * np.arange(9) / 8
    octagon = curvature_of(np.c_[np.cos(turns), np.sin(turns), np.ones(9)])[0]
    assert octagon.value == pytest.approx(math.pi / 4) and octagon.n == 7
    assert octagon.unit == "radians" and octagon.ceiling == math.pi


def test_it_is_the_differences_that_are_taken_and_not_the_rows():
    """Far from the origin consecutive rows all point the same way, and the text turns as before."""
    rows, breaks, documents = texts()
    near, far = Curvature(7), Curvature(7)
    near.update(rows, breaks, documents)
    far.update(rows + 1000.0, breaks, documents)
    assert far.estimate()[0].value == pytest.approx(near.estimate()[0].value, abs=1e-9)


def test_the_slow_twin_agrees_and_documents_are_weighted_as_stated():
    rows, breaks, documents = texts(documents=9, n=450)
    breaks = breaks | (documents == 4)  # a document without an angle
    breaks[3] = True
    found = Curvature(7)
    found.update(rows, breaks, documents)
    twin = by_hand(rows, breaks | (np.r_[True, documents[1:] != documents[:-1]]), documents)
    both: Any = found.estimate()
    by_document, by_angle = both
    means = np.array([np.mean(angles) for angles in twin.values() if angles])
    every = np.concatenate(list(twin.values()))
    assert (by_document.weighting, by_angle.weighting) == ("documents", "frequency")
    assert by_document.value == pytest.approx(means.mean(), rel=1e-9)
    assert by_angle.value == pytest.approx(every.mean(), rel=1e-9)
    assert by_document.n == by_angle.n == len(every)
    assert list(found.documents) == list(range(9)), "the empty document keeps its place among the influences"
    influence = by_angle.influence["value"]
    left = [np.concatenate([twin[one] for one in twin if one != gone]).mean() for gone in range(9)]
    weights = np.array([len(angles) for angles in twin.values()]) / len(every)
    assert influence == pytest.approx((every.mean() - np.array(left)) * (1 - weights), abs=1e-12)
    assert by_document.influence["value"][4] == 0 and by_document.influence["value"].sum() == pytest.approx(
        0, abs=1e-12
    )
    error = standard_error(by_document.influence["value"])
    assert error == pytest.approx(means.std(ddof=1) / math.sqrt(8), rel=0.01), "of a mean of 8 documents, but D is 9"
    assert by_document.interval[1] - by_document.interval[0] == pytest.approx(2 * quantile(9) * error)


@settings(max_examples=12)
@given(st.lists(st.integers(1, 599), max_size=8), st.booleans())
def test_any_cut_into_batches_and_any_merge_at_a_break_gives_the_same(cuts, single):
    rows, breaks, documents = texts()
    rows = rows.float() if single else rows
    whole = Curvature(7)
    whole.update(rows, breaks, documents)
    cut = Curvature(7)
    for part in np.split(np.arange(600), sorted(cuts)):
        cut.update(rows[part], breaks[part], documents[part])
    parts = [Curvature(7), Curvature(7)]
    for part, own in zip(parts, (slice(0, 275), slice(275, 600)), strict=True):
        part.update(rows[own], breaks[own], documents[own])
    parts[1].merge(parts[0])
    for other in (cut, parts[1]):
        pairs: Any = zip(whole.estimate(), other.estimate(), strict=True)
        for one, two in pairs:
            assert two.value == pytest.approx(one.value, rel=1e-12) and two.n == one.n
            assert two.influence["value"] == pytest.approx(one.influence["value"], abs=1e-12)


def test_the_null_of_shuffled_rows_is_120_degrees_for_any_rows():
    """Over all orders of five points, wherever they lie: three angles of a triangle sum to pi."""
    generator = np.random.default_rng(0)
    for dim in (1, 2, 30):
        points = generator.standard_cauchy((5, dim))
        orders = np.array(list(permutations(range(5))))
        documents = np.repeat(np.arange(len(orders)), 5)
        found = curvature_of(points[orders].reshape(-1, dim), documents)[0]
        assert found.value == pytest.approx(SHUFFLED, abs=1e-6) and found.null == SHUFFLED


def test_independent_rows_cover_the_null_and_two_equal_models_differ_by_nothing():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        found = curvature_of(generator.standard_normal((240, 5)) * [9, 1, 1, 1, 0.1], np.repeat(np.arange(12), 20))[0]
        covered += found.interval[0] <= SHUFFLED <= found.interval[1]
    assert covered >= 88, "binomial around 95 of 100, 3 standard errors"
    one, two = (curvature_of(texts()[0], texts()[2])[0] for _ in range(2))
    assert one.value == two.value and np.array_equal(one.influence["value"], two.influence["value"])


def test_differences_of_length_zero_are_left_out_and_counted():
    rows = [[0.0, 0], [1, 0], [1, 0], [1, 1], [2, 1], [2, 2]]
    found = curvature_of(rows)[0]
    assert found.n == 2 and found.value == pytest.approx(math.pi / 2)
    assert found.message.startswith("2 of 4 angles left out: a difference of length zero")
    nothing = curvature_of(np.ones((5, 3)))[0]
    assert nothing.value is None and nothing.status == "refused" and nothing.influence is None
    assert nothing.message == (
        "not defined: no three consecutive rows that differ; 3 of 3 angles left out: a difference of length zero."
    )
    assert curvature_of(np.ones((1, 3)))[0].value is None


def test_a_row_that_is_not_finite_leaves_no_value():
    found = curvature_of([[0.0], [1.0], [np.nan], [2.0], [5.0]])[1]
    assert found.value is None and found.status == "refused"
    assert found.message == "not defined: 3 differences of rows are NaN or infinite."


def test_no_angle_crosses_from_one_document_to_the_next():
    line = [[0.0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [2, 3]]
    found = curvature_of(line, [0, 0, 0, 1, 1, 1], [True, False, False, False, False, False])[0]
    assert found.n == 2 and found.value == pytest.approx(0, abs=1e-7)
    halves = Curvature(2)
    for part, document in ((line[:3], 0), (line[3:], 1)):
        halves.update(torch.tensor(part), np.array([document == 0, False, False]), np.full(3, document))
    assert halves.estimate()[0] == found


def test_few_documents_have_no_interval():
    found = curvature_of(texts(documents=4)[0], texts(documents=4)[2])[0]
    assert found.interval is None and found.std_error is None
    assert found.message == "no interval: 4 documents, at least 8 are needed"


def test_what_does_not_fit_is_refused_in_a_sentence():
    rows, breaks, documents = texts()
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Curvature(0)
    with pytest.raises(
        ValueError, match=r"curvature of width 6 needs rows \[n, 6\] .* \(600, 7\), \(600,\) and \(600,\)"
    ):
        Curvature(6).update(rows, breaks, documents)
    with pytest.raises(ValueError, match="needs rows"):
        Curvature(7).update(rows, breaks[1:], documents)
    with pytest.raises(ValueError, match="first row of curvature goes on with a run that was not seen here; mark it"):
        Curvature(7).update(rows[1:], breaks[1:], documents[1:])
    with pytest.raises(ValueError, match="curvatures of widths 7 and 3 cannot be merged"):
        Curvature(7).merge(Curvature(3))
    merged = Curvature(7)
    merged.update(rows[:10], breaks[:10], documents[:10])
    merged.merge(Curvature(7))
    with pytest.raises(ValueError, match="update with whole runs after a merge"):
        merged.update(rows[10:], breaks[10:], documents[10:])
