"""The sample of rows: the same whatever the split, the order and the merges, and clear about what it refuses."""

import numpy as np
import pytest
import torch

from infocomp.estimators.jackknife import document_groups, jackknife
from infocomp.estimators.nulls import sampling_order
from infocomp.estimators.reservoir import Reservoir, reduced, turned_rows

N, DIM, SIZE = 500, 3, 60


def corpus():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((N, DIM))).float(), rng.integers(9, size=N), np.arange(N) // 25


def fed(parts, size=SIZE, keys=True):
    rows, labels, documents = corpus()
    held = Reservoir(DIM, size, seed=5)
    for part in parts:
        held.update(rows[part], {"x": labels[part]}, documents[part], part if keys else None)
    return held


def same(one, other):
    assert np.array_equal(one.keys, other.keys)
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.labels["x"], other.labels["x"])
    assert np.array_equal(one.documents, other.documents)


def test_any_split_order_or_merge_holds_the_same_rows():
    everything = np.arange(N)
    whole = fed([everything]).take()
    assert sorted(whole.keys) == sorted(sampling_order(everything, 5, SIZE))
    same(whole, fed(np.array_split(everything, 37)).take())
    same(whole, fed(np.array_split(everything[::-1].copy(), 11)).take())
    same(whole, fed(np.array_split(np.random.default_rng(1).permutation(N), 8)).take())
    same(whole, fed(np.array_split(everything, 7), keys=False).take())
    one, other = fed([everything[:333]]), fed(np.array_split(everything[333:], 3))
    other.merge(one)
    assert other.n == N
    same(whole, other.take())


def test_rows_labels_and_documents_stay_together():
    rows, labels, documents = corpus()
    held = fed(np.array_split(np.arange(N), 20)).take()
    assert np.array_equal(held.rows, rows.numpy()[held.keys])
    assert np.array_equal(held.labels["x"], labels[held.keys])
    assert np.array_equal(held.documents, documents[held.keys])
    assert (np.diff(held.documents) >= 0).all()


def test_a_smaller_sample_lies_inside_a_larger_one():
    held = fed([np.arange(N)])
    assert set(held.take(20).keys) < set(held.take(50).keys)
    assert set(held.take(20).keys) == set(fed([np.arange(N)], size=20).take().keys)


def test_rows_without_keys_are_numbered_on_where_none_was_dropped():
    halves = np.array_split(np.arange(N), 2)
    one, other = fed([halves[0]], size=N, keys=False), fed([halves[1]], size=N, keys=False)
    one.merge(other)
    same(fed([np.arange(N)], size=N).take(), one.take())
    full = fed([halves[1]], keys=False)
    with pytest.raises(ValueError, match=r"holds 60 of its 250 rows and no keys.*give keys"):
        fed([halves[0]], keys=False).merge(full)


def test_bfloat16_rows_are_taken():
    held = Reservoir(2, 10)
    held.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16))
    assert held.take().rows.dtype == np.float32


def test_what_it_refuses():
    held = Reservoir(2, 10)
    rows = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"rows must be \[rows, 2\], got \(4, 3\)"):
        held.update(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="1 of 4 rows are not finite; find where"):
        held.update(torch.tensor([[0.0, 1], [float("nan"), 1], [2, 2], [3, 3]]))
    with pytest.raises(ValueError, match="x has 3 entries, rows has 4: one label per row"):
        held.update(rows, {"x": np.zeros(3, dtype=int)})
    with pytest.raises(TypeError, match="x must be integers, got float64"):
        held.update(rows, {"x": np.zeros(4)})
    with pytest.raises(ValueError, match="documents has 5 entries, rows has 4"):
        held.update(rows, documents=np.zeros(5, dtype=int))
    with pytest.raises(ValueError, match="update was never called"):
        held.take()
    held.update(rows, {"x": np.zeros(4, dtype=int)})
    with pytest.raises(ValueError, match=r"same label sets; so far \['x'\], now \['y'\]"):
        held.update(rows, {"y": np.zeros(4, dtype=int)})
    with pytest.raises(ValueError, match="documents must be given in every update or in none"):
        held.update(rows, {"x": np.zeros(4, dtype=int)}, np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match="keys must be given in every update or in none"):
        held.update(rows, {"x": np.zeros(4, dtype=int)}, keys=np.arange(4))
    with pytest.raises(ValueError, match=r"differ in \(dim, size, seed\): \(2, 10, 0\) and \(2, 10, 1\)"):
        held.merge(Reservoir(2, 10, seed=1))
    one, other = fed([np.arange(20)]), fed([np.arange(10, 30)])
    with pytest.raises(ValueError, match="share keys: the same rows would count twice"):
        one.merge(other)
    with pytest.raises(ValueError, match="one reservoir has keys and the other has none"):
        one.merge(fed([np.arange(20)], keys=False))
    with pytest.raises(ValueError, match="size must be at least 2 rows, got 1"):
        Reservoir(2, 1)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Reservoir(0)


def test_reduction_keeps_few_dimensions_and_the_widest_of_many():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 6)) * np.array([1, 9, 1, 5, 1, 1])
    assert np.array_equal(reduced(rows, 6), rows)
    assert np.array_equal(reduced(rows, None), rows)
    values = np.linalg.eigvalsh(np.cov(rows.T))[::-1][:2]
    assert reduced(rows, 2).var(axis=0, ddof=1) == pytest.approx(values, rel=1e-10)


def test_each_sampled_row_is_paired_with_a_row_of_another_document_and_each_is_used_once():
    documents = np.repeat([4, 0, 7, 2, 9], [5, 11, 7, 6, 8])
    partner = turned_rows(documents)
    assert (documents[partner] != documents).all()
    assert sorted(partner) == list(range(len(documents)))
    inside = documents[:-1] == documents[1:]
    assert (np.diff(partner)[inside] == 1).mean() > 0.75  # neighbours stay neighbours but where documents end
    assert turned_rows(np.repeat([0, 1], [30, 10])) is None
    assert turned_rows(None) is None


def test_a_jackknife_of_a_mean_is_the_textbook_interval():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(12)
    half, message = jackknife(lambda rows: float(values[rows].mean()), np.arange(12), 12)
    assert half == pytest.approx(2.200985 * values.std(ddof=1) / np.sqrt(12), rel=1e-6)  # t of 11 degrees
    assert message == "interval: jackknife over 12 groups of documents"


def test_a_jackknife_leaves_whole_documents_out_and_needs_eight():
    documents = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 6, 7, 8, 9])
    group = document_groups(documents, 3)
    assert all(len(set(group[documents == one])) == 1 for one in range(9))
    assert np.bincount(group).tolist() == [18, 15, 12]
    half, message = jackknife(lambda rows: 0.0, np.repeat(np.arange(7), 4), 4)
    assert np.isnan(half) and message == "no interval: 7 documents, at least 8 are needed"
    assert jackknife(lambda rows: 0.0, None, 4)[1] == "no interval: no documents were given"
