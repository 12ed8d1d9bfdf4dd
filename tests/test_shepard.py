"""Confusions by hand and against a slow twin, planted laws told apart, errors against items drawn again."""

import numpy as np
import pytest
import torch

from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.shepard import FLOOR, LAWS, confusion, distances, shepard
from infocomp.units import bits


def planted(items: int, exponential: bool, seed: int, noise: float = 0.2, dim: int = 2):
    """Confusions that fall by the law over distances in a Gaussian cloud, with effects of items and of pairs."""
    generator = np.random.default_rng(seed)
    apart = distances(generator.normal(size=(items, dim)))
    x = apart / np.sqrt(2 * dim)
    of_item, of_pair = noise * generator.normal(size=items), noise * generator.normal(size=(items, items))
    log_c = -3.0 - (2 * x if exponential else 2 * x**2) + of_item + of_item[:, None] + (of_pair + of_pair.T) / 2
    found = np.exp(log_c)
    np.fill_diagonal(found, 0.5)
    return found, apart


def test_three_distributions_by_hand():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
    found = confusion(p.log())
    assert found[0, 1] == pytest.approx(0.25), "TV is a half"
    assert found[0, 2] == 0 and found[1, 2] == pytest.approx(0.25)
    assert (np.diag(found) == 0.5).all() and (found == found.T).all()


def test_confusion_is_the_bayes_error_however_the_vocabulary_is_cut():
    generator = torch.Generator().manual_seed(0)
    log_p = (6 * torch.randn(12, 700, generator=generator)).log_softmax(dim=1)
    p = log_p.double().exp().numpy()
    slow = np.array([[0.5 * np.minimum(a, b).sum() for b in p] for a in p])
    np.testing.assert_allclose(confusion(log_p), slow, rtol=2e-6)
    variation = np.abs(p[:, None] - p[None]).sum(axis=2) / 2
    np.testing.assert_allclose(confusion(log_p), (1 - variation) / 2, atol=1e-6)


def test_small_confusions_keep_their_digits():
    tiny = 1e-8
    p = torch.tensor([[1 - tiny, tiny], [tiny, 1 - tiny]], dtype=torch.float64)
    assert confusion(p.log())[0, 1] == pytest.approx(tiny, rel=1e-5), "1 - TV would lose it in float32"


@pytest.mark.parametrize("exponential", [True, False])
def test_a_planted_law_is_told_from_the_other(exponential):
    for seed in range(5):
        found = shepard(*planted(64, exponential, seed), seed=seed)
        better, worse = (found.exponential, found.gaussian)[:: 1 if exponential else -1]
        assert better.r2 > 0.8 and better.r2 > worse.r2
        row = found.estimates()[0]
        assert row.quantity == "shepard_preference" and row.value == found.preference and row.interval is not None
        assert row.interval[0] > 0 if exponential else row.interval[1] < 0


def test_without_noise_the_planted_line_is_found_exactly():
    for exponential in (True, False):
        c, apart = planted(40, exponential, seed=3, noise=0.0)
        found = shepard(c, apart)
        law = found.exponential if exponential else found.gaussian
        off = ~np.eye(40, dtype=bool)
        x = apart / 2
        assert law.r2 == pytest.approx(1.0, abs=1e-9) and law.intercept == pytest.approx(-3.0)
        assert law.slope == pytest.approx(-2 * (x if exponential else x**2)[off].mean())
        scaled = shepard(c, 1000 * apart)
        assert scaled.exponential.slope == pytest.approx(found.exponential.slope), "the scale of rows does not matter"
    rows = found.estimates()
    assert [(row.quantity, row.label, row.unit) for row in rows] == [
        ("shepard_preference", "", "ratio"),
        ("shepard_slope", "exponential", "bits"),
        ("shepard_r2", "exponential", "ratio"),
        ("shepard_slope", "gaussian", "bits"),
        ("shepard_r2", "gaussian", "ratio"),
    ]
    assert rows[3].value == pytest.approx(bits(found.gaussian.slope)) and rows[3].n == 40


def test_distances_that_say_nothing_explain_nothing():
    c, _ = planted(64, True, seed=4)
    explained = [shepard(c, planted(64, True, seed)[1]).exponential.r2 for seed in range(50, 58)]
    assert -0.2 < np.mean(explained) < 0.02, "held out: below 0 by what the fit learnt from chance"


def slow_shepard(c, apart, seed, splits):
    """Held-out r² of both laws, and slopes, with numpy's own least squares over lists of pairs."""
    items = len(c)
    generator = np.random.default_rng(seed)
    upper = np.triu(np.ones((items, items), dtype=bool), 1)
    y = np.log(np.maximum(c, FLOOR))
    left, plain = np.zeros(2), 0.0
    for _ in range(splits):
        half = np.zeros(items, dtype=bool)
        half[generator.permutation(items)[: items // 2]] = True
        for fit in (half, ~half):
            here, there = upper & np.outer(fit, fit), upper & np.outer(~fit, ~fit)
            plain += ((y[there] - y[here].mean()) ** 2).sum()
            for law, x in enumerate((apart, apart**2)):
                line = np.polyfit(x[here], y[here], 1)
                left[law] += ((y[there] - np.polyval(line, x[there])) ** 2).sum()
    slopes = [np.polyfit(x[upper], y[upper], 1)[0] * x[upper].mean() for x in (apart, apart**2)]
    return 1 - left / plain, slopes


def test_a_slow_twin_over_lists_of_pairs_agrees():
    c, apart = planted(24, True, seed=5)
    found = shepard(c, apart, seed=9, splits=4)
    r2, slopes = slow_shepard(c, apart, 9, 4)
    assert [found.exponential.r2, found.gaussian.r2] == pytest.approx(r2, rel=1e-9)
    assert [found.exponential.slope, found.gaussian.slope] == pytest.approx(slopes, rel=1e-9)
    assert found.preference == pytest.approx(r2[0] - r2[1], rel=1e-9)


def test_the_error_of_the_slope_leaves_one_item_out_at_a_time():
    c, apart = planted(24, True, seed=6)
    found = shepard(c, apart)
    without = []
    for item in range(24):
        kept = np.delete(np.arange(24), item)
        without.append(shepard(c[np.ix_(kept, kept)], apart[np.ix_(kept, kept)]).exponential.slope)
    expected = np.sqrt(23 / 24 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert standard_error(found.influence["slope exponential"]) == pytest.approx(expected, rel=1e-9)
    assert all(abs(of.sum()) < 1e-9 for of in found.influence.values())


def test_intervals_cover_what_other_items_give():
    """100 sets of 48 items about their own mean: within 3 standard errors of 95 %, and slightly wide at most."""
    drawn = [shepard(*planted(48, True, seed), splits=5) for seed in range(100)]
    names = ("preference", "slope exponential", "r2 exponential")
    for name, values in zip(
        names,
        (
            [one.preference for one in drawn],
            [one.exponential.slope for one in drawn],
            [one.exponential.r2 for one in drawn],
        ),
        strict=True,
    ):
        errors = np.array([standard_error(one.influence[name]) for one in drawn])
        covered = np.mean(np.abs(np.array(values) - np.mean(values)) <= quantile(48) * errors)
        assert 0.88 <= covered <= 1.0, name
        assert errors.mean() == pytest.approx(np.std(values), rel=0.3), name


def clustered(documents: int, items: int, seed: int):
    """A planted exponential law over items whose rows and confusions share most of what they have by document."""
    generator = np.random.default_rng(seed)
    owner = generator.integers(documents, size=items)
    shared, own = np.sqrt(0.6), np.sqrt(0.4)
    rows = shared * generator.normal(size=(documents, 2))[owner] + own * generator.normal(size=(items, 2))
    effect = 0.2 * (shared * generator.normal(size=documents)[owner] + own * generator.normal(size=items))
    of_pair = 0.1 * generator.normal(size=(items, items))
    apart = distances(rows)
    c = np.exp(-3.0 - apart + effect + effect[:, None] + of_pair + of_pair.T)
    np.fill_diagonal(c, 0.5)
    return c, apart, owner


def test_items_of_one_document_count_as_one_in_an_error():
    """60 sets of 96 items of 12 documents: a jackknife over items covers their mean in half of the sets."""
    drawn = [clustered(12, 96, seed) for seed in range(60)]
    for by_document, least, most in ((True, 0.85, 1.0), (False, 0.3, 0.75)):
        found = [shepard(c, d, splits=3, documents=owner if by_document else None) for c, d, owner in drawn]
        for name, value in (
            ("slope exponential", lambda one: one.exponential.slope),
            ("r2 exponential", lambda one: one.exponential.r2),
        ):
            values, of = np.array([value(one) for one in found]), [one.influence[name] for one in found]
            half = np.array([quantile(len(one)) * standard_error(one) for one in of])
            assert least <= np.mean(np.abs(values - values.mean()) <= half) <= most, (name, by_document)


def test_leaving_a_document_out_leaves_out_all_of_its_items():
    c, apart, owner = clustered(10, 40, 3)
    names, found = np.unique(owner), shepard(c, apart, documents=owner)
    kept = [np.flatnonzero(owner != name) for name in names]
    without = np.array([shepard(c[np.ix_(k, k)], apart[np.ix_(k, k)]).exponential.slope for k in kept])
    expected = (len(names) - 1) / len(names) * (without.mean() - without)
    np.testing.assert_allclose(found.influence["slope exponential"], expected, rtol=1e-9)
    assert len(found.influence["preference"]) == found.documents == len(names)
    row = found.estimates()[0]
    assert row.message == "jackknife over 10 documents: 40 items, 780 pairs" and row.n == 40


def test_a_scored_pair_shares_no_document_with_a_fitted_one():
    """Within each document one line, between documents another: halves by item would learn the first and score it."""
    documents, items = 16, 64
    owner = np.arange(items) % documents
    c, apart = planted(items, True, seed=4)
    of_document = np.random.default_rng(0).normal(size=documents)[owner]
    c = np.exp(np.log(c) + 3 * of_document * (owner == owner[:, None]))
    by_document, halves = shepard(c, apart, seed=2, splits=4, documents=owner), 0.0
    generator, plain, left = np.random.default_rng(2), 0.0, 0.0
    upper, y = np.triu(np.ones((items, items), dtype=bool), 1), np.log(c)
    for _ in range(4):
        half = np.isin(owner, generator.permutation(documents)[: documents // 2])
        halves += half.sum() / 4
        for fit in (half, ~half):
            here, there = upper & np.outer(fit, fit), upper & np.outer(~fit, ~fit)
            line = np.polyfit(apart[here], y[here], 1)
            left += ((y[there] - np.polyval(line, apart[there])) ** 2).sum()
            plain += ((y[there] - y[here].mean()) ** 2).sum()
    assert halves == items / 2
    assert by_document.exponential.r2 == pytest.approx(1 - left / plain, rel=1e-9)


def test_documents_of_one_item_each_are_items():
    c, apart = planted(24, True, seed=5)
    alone, named = shepard(c, apart, seed=1), shepard(c, apart, seed=1, documents=7 * np.arange(24))
    assert alone.exponential == named.exponential and alone.preference == named.preference
    for name, of in alone.influence.items():
        assert (of == named.influence[name]).all()


def test_fewer_than_eight_documents_give_values_without_an_interval():
    c, apart = planted(28, True, seed=5)
    found = shepard(c, apart, documents=np.arange(28) % 7)
    assert found.influence == {} and found.exponential.r2 > 0.5
    for row in found.estimates():
        assert row.value is not None and row.interval is None and row.std_error is None and row.influence is None
        assert row.message == "no interval: 7 documents, at least 8 are needed; 28 items, 378 pairs"


def test_items_of_one_document_have_no_halves():
    c, apart = planted(20, True, seed=5)
    for documents in (np.zeros(20, dtype=int), np.arange(20) // 19):
        with pytest.raises(Refusal, match="of 20 items come from one document, so that no half holds pairs of others"):
            shepard(c, apart, documents=documents)
    with pytest.raises(ValueError, match=r"one number for each of 20 items, got shape \(3,\)"):
        shepard(c, apart, documents=np.arange(3))


def test_equal_inputs_give_equal_numbers_and_no_difference():
    c, apart = planted(32, False, seed=7)
    one, other = shepard(c, apart, seed=1), shepard(c.copy(), apart.copy(), seed=1)
    assert one.exponential == other.exponential and one.gaussian == other.gaussian
    for name in ("preference", *(f"r2 {law}" for law in LAWS), *(f"slope {law}" for law in LAWS)):
        assert (one.influence[name] - other.influence[name] == 0).all()


def test_disjoint_pairs_are_raised_to_the_floor_and_counted():
    c, apart = planted(20, True, seed=8)
    c[3, 5] = c[5, 3] = 0.0
    found = shepard(c, apart)
    assert found.floored == 1 and np.isfinite(found.exponential.slope)
    assert "1 confusions below 1e-12" in found.estimates()[0].message
    assert "below" not in shepard(*planted(20, True, seed=8)).estimates()[0].message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c, d: (c[:5], d), r"must be \[items, items\], got \(5, 20\)"),
        (lambda c, d: (c, d[:5, :5]), r"got \(20, 20\) and \(5, 5\)"),
        (lambda c, d: (c, d + np.arange(20)), "distances must be symmetric"),
        (lambda c, d: (c - 1, d), "confusions must be symmetric, finite and at least 0"),
        (lambda c, d: (np.where(d > 0, c, np.inf), d), "confusions must be symmetric, finite"),
        (lambda c, d: (c[:15, :15], d[:15, :15]), "15 items are too few .* at least 16"),
        (lambda c, d: (c, 1 - np.eye(20)), "equally far apart or equally confused"),
        (lambda c, d: (0 * c + 0.5, d), "equally far apart or equally confused"),
    ],
)
def test_what_holds_no_law_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        shepard(*change(*planted(20, True, seed=0)))


def test_splits_below_one_are_refused_and_a_refusal_is_told_from_a_mistake():
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        shepard(*planted(20, True, seed=0), splits=0)
    with pytest.raises(Refusal):
        shepard(*planted(4, True, seed=0))


@pytest.mark.parametrize(
    ("logs", "sentence"),
    [
        (torch.zeros(1, 1), r"2 items at least, got \(1, 1\)"),
        (torch.zeros(3, 4), "of 3 of 3 items do not sum to 1 .item 0: 4"),
        (torch.tensor([[0.0, -200.0], [float("nan"), 0.0]]), "of 1 of 2 items do not sum to 1 .item 1: nan"),
    ],
)
def test_what_is_no_distribution_is_refused_in_a_sentence(logs, sentence):
    with pytest.raises(ValueError, match=sentence):
        confusion(logs)
