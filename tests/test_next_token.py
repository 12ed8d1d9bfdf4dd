"""KL, total variation and agreement by hand and against float64; bands of positions and their errors."""

import numpy as np
import pytest
import torch

from infocomp.estimators.numbers import quantile
from infocomp.geometry import next_token
from infocomp.geometry.next_token import KLByPosition, band_name, band_of, compare_next_tokens


def two_models(rows: int, vocabulary: int, seed: int, apart: float = 0.5):
    generator = torch.Generator().manual_seed(seed)
    base = 3 * torch.randn(rows, vocabulary, generator=generator)
    return base, base + apart * torch.randn(rows, vocabulary, generator=generator) + 7.0


def accumulated(rows: int = 600, documents: int = 12, seed: int = 0):
    generator = np.random.default_rng(seed)
    found = compare_next_tokens(*two_models(rows, 40, seed))
    return found, generator.integers(70, size=rows), generator.integers(documents, size=rows)


def test_two_distributions_by_hand():
    base = torch.tensor([[0.5, 0.5, 1e-30], [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]).log()
    tuned = torch.tensor([[0.25, 0.75, 1e-30], [0.2, 0.3, 0.5], [0.2, 0.41, 0.39]]).log() + 11.0
    found = compare_next_tokens(base, tuned)
    assert found.base_to_tuned[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-5)
    assert found.tuned_to_base[0] == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5), rel=1e-5)
    assert found.total_variation[0] == pytest.approx(0.25, rel=1e-6)
    assert abs(found.base_to_tuned[1]) < 1e-6, "a constant added to all logits says nothing"
    assert found.agree.tolist() == [True, True, False], "of two equally likely tokens one is enough"


@pytest.mark.parametrize("apart", [1.0, 1e-2, 1e-4])
def test_float64_log_softmax_agrees(apart):
    base, tuned = two_models(50, 3000, seed=1, apart=apart)
    found = compare_next_tokens(base, tuned)
    p, q = base.double().log_softmax(1), tuned.double().log_softmax(1)
    # the normaliser's difference is rounded once to float32: 2⁻²⁴ of 7
    slow = {"base_to_tuned": p.exp() * (p - q), "tuned_to_base": q.exp() * (q - p)}
    for name, terms in slow.items():
        np.testing.assert_allclose(getattr(found, name), terms.sum(1).numpy(), rtol=1e-5, atol=1e-6)
    variation = (p.exp() - q.exp()).abs().sum(1).numpy() / 2
    np.testing.assert_allclose(found.total_variation, variation, rtol=1e-4, atol=1e-7)
    assert (found.agree == (p.argmax(1) == q.argmax(1)).numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_identical_logits_are_exactly_nothing_apart(dtype):
    base = two_models(20, 500, seed=2)[0].to(dtype)
    found = compare_next_tokens(base, base.clone())
    assert not found.base_to_tuned.any() and not found.tuned_to_base.any() and not found.total_variation.any()
    assert found.agree.all()
    state = KLByPosition(10)
    state.update(found, np.arange(20), np.arange(20) % 10)
    for rows in state.estimates().values():
        assert [row.value for row in rows] == [0, 0, 0, 1]
    assert [row.interval for row in state.estimates()["all"]] == [(0, 0), (0, 0), (0, 0), (1, 1)]


def test_the_cut_into_chunks_changes_nothing_and_the_logits_stay_as_they_were(monkeypatch):
    base, tuned = two_models(30, 100, seed=3)
    kept = base.clone()
    whole = compare_next_tokens(base, tuned)
    monkeypatch.setattr(next_token, "CHUNK", 700)
    cut = compare_next_tokens(base, tuned)
    np.testing.assert_allclose(cut.base_to_tuned, whole.base_to_tuned, atol=1e-7)
    assert torch.equal(base, kept)


def test_ids_that_one_model_has_more_are_left_out():
    base, tuned = two_models(10, 60, seed=4)
    longer = torch.cat([tuned, torch.full((10, 4), 50.0)], dim=1)
    assert (compare_next_tokens(base, longer, 60).base_to_tuned == compare_next_tokens(base, tuned).base_to_tuned).all()


def test_bands_double_from_sixteen():
    assert band_of(np.array([0, 15, 16, 31, 32, 63, 64, 4095, 4096])).tolist() == [0, 0, 1, 1, 2, 2, 3, 8, 9]
    assert [band_name(band) for band in (0, 1, 2, 9)] == [
        "positions 0-15",
        "positions 16-31",
        "positions 32-63",
        "positions 4096-8191",
    ]


def test_rows_are_means_in_bits_with_the_error_of_drawing_documents_again():
    found, positions, documents = accumulated()
    state = KLByPosition(12)
    state.update(found, positions, documents)
    rows = state.estimates()
    assert list(rows) == ["all", "positions 0-15", "positions 16-31", "positions 32-63", "positions 64-127"]
    every = rows["all"]
    assert [(row.quantity, row.label, row.unit) for row in every] == [
        ("kl", "base to tuned", "bits"),
        ("kl", "tuned to base", "bits"),
        ("total_variation", "", "ratio"),
        ("top_agreement", "", "ratio"),
    ]
    kl = found.base_to_tuned / np.log(2)
    assert every[0].value == pytest.approx(kl.mean()) and every[0].n == 600 and every[0].null == 0
    here = (positions >= 16) & (positions < 32)
    assert rows["positions 16-31"][0].value == pytest.approx(kl[here].mean())
    assert rows["positions 16-31"][3].value == pytest.approx(found.agree[here].mean())
    generator = np.random.default_rng(1)
    sums, counts = np.bincount(documents, kl), np.bincount(documents)
    drawn = generator.multinomial(12, np.full(12, 1 / 12), size=4000)
    again = (drawn @ sums) / (drawn @ counts)
    error = every[0].std_error
    assert error is not None
    # a bootstrap over 12 documents has 11/12 of the variance; 4,000 draws know it to 1 %, the ratio bends by a few
    assert error == pytest.approx(again.std() * np.sqrt(12 / 11), rel=0.05)
    assert every[0].interval is not None and every[0].interval[1] == pytest.approx(kl.mean() + quantile(12) * error)
    assert every[0].influence is not None and abs(every[0].influence["value"].sum()) < 1e-12


def test_any_split_and_any_merge_give_the_same_rows():
    found, positions, documents = accumulated()
    whole, one, other = KLByPosition(12), KLByPosition(12), KLByPosition(12)
    whole.update(found, positions, documents)
    for state, part in ((one, slice(0, 100)), (other, slice(100, 350)), (one, slice(350, 600))):
        fields = (found.base_to_tuned, found.tuned_to_base, found.total_variation, found.agree)
        state.update(next_token.NextTokens(*(field[part] for field in fields)), positions[part], documents[part])
    one.merge(other)
    assert (one.counts == whole.counts).all()
    np.testing.assert_allclose(one.sums, whole.sums, rtol=1e-12)


def test_a_band_of_few_documents_has_a_value_and_says_why_it_has_no_interval():
    found, positions, documents = accumulated()
    positions = np.where(documents < 7, positions + 64, positions % 64)
    state = KLByPosition(12)
    state.update(found, positions, documents)
    late = state.estimates()["positions 64-127"][0]
    assert late.value is not None and late.interval is None and late.std_error is None
    assert late.message == "no interval: 7 documents, at least 8 are needed"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f: compare_next_tokens(torch.zeros(2, 3), torch.zeros(2, 4)), r"\(2, 3\) and \(2, 4\), .* padding"),
        (lambda f: compare_next_tokens(torch.zeros(2, 3), torch.tensor([[0, 0, 0], [0, 0, torch.nan]])), "is row 1"),
        (
            lambda f: compare_next_tokens(torch.tensor([[0, -torch.inf]]), torch.tensor([[0, -torch.inf]])),
            "1 of 1 rows of logits hold NaN",
        ),
        (lambda f: KLByPosition(0), "documents must be at least 1, got 0"),
        (lambda f: KLByPosition(2).update(f, np.zeros(2, int), np.zeros(3, int)), "3 rows with 2 positions and 3"),
        (lambda f: KLByPosition(2).update(f, np.array([0, -1, 0]), np.zeros(3, int)), "counted from 0, got -1"),
        (lambda f: KLByPosition(2).update(f, np.zeros(3, int), np.array([0, 1, 2])), "from 0 to 1 here, got 0 to 2"),
        (lambda f: KLByPosition(2).merge(KLByPosition(3)), "states of 2 and 3 documents"),
        (lambda f: KLByPosition(2).estimates(), "no rows were compared"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(call, sentence):
    found = compare_next_tokens(*two_models(3, 5, seed=0))
    with pytest.raises(ValueError, match=sentence):
        call(found)
