"""The two nulls: what an estimate reads where nothing is there."""

import numpy as np
import pytest
import torch

from infocomp.estimators import Groups, SoftInformation, paired_rows
from infocomp.estimators.nulls import RowNull, entropies_of_sums, sampling_order


def windows_of(lengths_by_document):
    """documents and windows of every row for [[window lengths of document 0], …]."""
    documents, windows, number = [], [], 0
    for document, lengths in enumerate(lengths_by_document):
        for length in lengths:
            documents += [document] * length
            windows += [number] * length
            number += 1
    return np.array(documents), np.array(windows)


@pytest.mark.parametrize(
    "layout",
    [
        [[5, 5], [5, 5], [5, 5, 5]],
        [[4], [4], [4]],
        [[6, 6, 6, 2], [6, 6, 1], [6, 6, 3], [6, 4]],
        [[7], [3], [5], [6]],
        [[8, 8, 8, 8, 8], [8], [8], [8, 8, 2], [8, 8]],
    ],
)
def test_each_row_is_paired_with_one_of_another_document_and_each_row_is_used_once(layout):
    documents, windows = windows_of(layout)
    partner = paired_rows(documents, windows)
    assert partner is not None
    kept = partner >= 0
    assert kept.mean() >= 0.95
    assert (documents[partner[kept]] != documents[kept]).all()
    assert len(set(partner[kept])) == kept.sum()


def test_windows_of_equal_length_are_paired_position_by_position():
    documents, windows = windows_of([[5, 5], [5, 5], [5, 5]])
    partner = paired_rows(documents, windows)
    assert (partner >= 0).all()
    assert (partner % 5 == np.arange(30) % 5).all()
    assert all(len(set(windows[partner[windows == window]])) == 1 for window in range(6))


def test_one_document_has_no_null():
    assert paired_rows(np.zeros(50, dtype=int), np.repeat(np.arange(5), 10)) is None
    # nor has a text of which one document is nearly all
    assert paired_rows(*windows_of([[5] * 20, [5]])) is None


def test_entropies_of_sums_by_hand():
    sums = torch.tensor([[2.0, 2.0, 0.0], [3.0, 0.0, 0.0]], dtype=torch.float64)
    assert entropies_of_sums(sums, torch.tensor([4.0, 3.0])).tolist() == pytest.approx([np.log(2), 0.0], abs=1e-12)


def test_row_null_equals_the_mean_over_many_permutations():
    rng = np.random.default_rng(0)
    n, bins = 4000, 20
    plane = torch.softmax(torch.from_numpy(rng.standard_normal((n, bins))) * 3, dim=1)
    labels = rng.zipf(1.5, n) % 600
    marginal = float(torch.special.entr(plane.mean(0)).sum())
    mean_entropy = float(torch.special.entr(plane).sum(1).mean())
    order = torch.from_numpy(sampling_order(np.arange(n), 0, RowNull.SAMPLE))
    null = RowNull(plane[order], marginal, mean_entropy, n)
    counts = np.unique(labels, return_counts=True)[1]
    predicted = marginal - float(counts @ null(counts)) / n

    observed = []
    for _ in range(40):
        shuffled = rng.permutation(labels)
        groups = Groups.of(shuffled)
        sums = groups.sums(plane)
        repeated = groups.counts[groups.repeated]
        entropies = entropies_of_sums(sums, torch.from_numpy(repeated.astype(float))).numpy()
        singles = torch.special.entr(plane[groups.single_rows]).sum(1).sum()
        observed.append(marginal - (float(repeated @ entropies) + float(singles)) / n)
    # 40 permutations give the mean within four of its standard errors; the sampled g adds its own 0.3 %
    error = 4 * np.std(observed) / np.sqrt(40) + 0.003 * predicted
    assert predicted == pytest.approx(np.mean(observed), abs=error)
    assert null(np.array([1])) == pytest.approx(mean_entropy)
    assert null(np.array([n])) == pytest.approx(marginal)


def test_the_sample_is_the_same_rows_however_the_rows_are_ordered():
    keys = np.arange(1000)
    shuffled = np.random.default_rng(0).permutation(keys)
    assert keys[sampling_order(keys, 7, 50)].tolist() == shuffled[sampling_order(shuffled, 7, 50)].tolist()
    assert keys[sampling_order(keys, 7, 50)].tolist() != keys[sampling_order(keys, 8, 50)].tolist()


def bursty_text(seed, documents=200, length=250, dim=64):
    """Labels that come in bursts and rows that share a direction within a document; they know nothing of each other."""
    rng = np.random.default_rng(seed)
    labels, rows = [], []
    for _ in range(documents):
        favourites = rng.integers(0, 500, 6)
        bursty = np.where(rng.random(length) < 0.7, rng.choice(favourites, length), rng.integers(0, 500, length))
        labels.append(bursty)
        rows.append(rng.standard_normal((length, dim)) + 1.2 * rng.standard_normal(dim))
    numbers = np.repeat(np.arange(documents), length)
    return torch.from_numpy(np.concatenate(rows)).float(), np.concatenate(labels), numbers


def test_with_true_information_zero_an_estimate_exceeds_the_row_null_and_not_the_document_null():
    values, nulls, row_nulls = [], [], []
    for seed in range(3):
        rows, labels, documents = bursty_text(seed)
        soft = SoftInformation(64, bins=50, draws=2)
        soft.update(rows, {"bursty": labels}, documents)
        found = next(e for e in soft.estimate() if e.quantity == "complexity" and e.draw == "mean")
        values.append(found.value), nulls.append(found.null), row_nulls.append(found.null_rows)
    excess_over_rows = np.array(values) - np.array(row_nulls)
    excess_over_documents = np.array(values) - np.array(nulls)
    assert (excess_over_rows > 0.05 * np.array(values)).all()
    assert np.abs(excess_over_documents).max() < 0.25 * excess_over_rows.min()
