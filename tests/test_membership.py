"""Membership inference against scikit-learn, closed forms and planted laws."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score

from infocomp.memorization.membership import _Owners, fit_membership_law, membership


def two_normals(n: int, shift: float, seed: int, m: int | None = None):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, n), generator.normal(0, 1, m or n)


def test_four_and_four_by_hand():
    found = membership(np.array([5.0, 4.0, 3.0, 1.0]), np.array([2.0, 1.0, 0.0, -1.0]))
    assert found.auc.value == (4 + 4 + 4 + 2.5) / 16, "the last member beats two and ties with one"
    assert (found.auc.null, found.f1.null, found.best_f1.null) == (0.5, 0.5, pytest.approx(2 / 3))
    assert found.auc.std_error is None, "four documents a side tell no error"


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_auc_is_scikit_learns_and_the_closed_form(shift):
    members, others = two_normals(3000, shift, seed=0, m=2000)
    members, others = members.round(1), others.round(1)  # ties
    found = membership(members, others)
    labels = np.r_[np.ones(3000), np.zeros(2000)]
    assert found.auc.value == pytest.approx(roc_auc_score(labels, np.r_[members, others]))
    error = found.auc.columns()["std_error"]
    assert error is not None and abs(found.auc.value - norm.cdf(shift / np.sqrt(2))) < 3 * error + 0.002


def test_the_error_of_auc_is_its_spread_over_draws_by_sample_and_by_document():
    drawn = pd.DataFrame([membership(*two_normals(200, 0.8, seed)).auc.columns() for seed in range(200)])
    assert drawn["std_error"].mean() == pytest.approx(drawn["value"].std(), rel=0.15), "200 draws: 5 %"
    truth = norm.cdf(0.8 / np.sqrt(2))
    assert 0.9 <= ((drawn["ci_low"] <= truth) & (drawn["ci_high"] >= truth)).mean() <= 0.99

    def by_document(seed):
        generator = np.random.default_rng(seed)
        documents = np.repeat(np.arange(40), 10)
        scores = generator.normal(0, 1, (2, 40))[:, documents] + generator.normal(0, 0.5, (2, 400))
        return membership(scores[0] + 0.8, scores[1], documents, documents).auc.columns()

    drawn = pd.DataFrame([by_document(seed) for seed in range(200)])
    assert drawn["std_error"].mean() == pytest.approx(drawn["value"].std(), rel=0.15)


def test_the_error_of_auc_is_delongs_with_its_components_summed_by_document():
    members, others = two_normals(60, 1.0, seed=2, m=45)
    documents, other_documents = np.arange(60) // 5, np.arange(45) // 5
    found = membership(members, others, documents, other_documents)
    wins = (members[:, None] > others[None, :]).astype(float)
    variance = 0.0
    for placements, owner in ((wins.mean(1), documents), (wins.mean(0), other_documents)):
        sums = [(placements[owner == one] - wins.mean()).sum() / len(owner) for one in np.unique(owner)]
        variance += len(sums) / (len(sums) - 1) * np.square(sums).sum()
    assert found.auc.std_error == pytest.approx(np.sqrt(variance))


def test_documents_that_stand_on_both_sides_move_the_value_once_and_are_dealt_as_a_whole():
    """What a document does to its members it does to its others: the error is the spread over draws, the one that takes
    both sides for independent far above it."""

    def drawn(seed: int):
        generator = np.random.default_rng(seed)
        documents = np.repeat(np.arange(40), 6)
        level = generator.normal(0, 2, 40)[documents]
        scores = level + generator.normal(0.8, 0.5, 240), level + generator.normal(0, 0.5, 240)
        found, apart = (membership(*scores, documents, documents, seed, shared) for shared in (True, False))
        assert found.auc.value == apart.auc.value
        return [found.auc.value, found.auc.std_error, apart.auc.std_error, found.f1.value, found.f1.std_error]

    values, errors, apart, f1, of_f1 = np.array([drawn(seed) for seed in range(150)], dtype=float).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.2) and apart.mean() > 3 * errors.mean()
    assert of_f1.mean() < 2 * f1.std()
    documents, others = np.repeat([3, 5, 7, 9], 3), np.repeat([5, 9, 11], 4)
    owners = _Owners.of(documents, others, True)
    for seed in range(20):
        halves = owners.halves(np.random.default_rng(seed))
        later = [{*side[half]} for side, half in zip((documents, others), halves, strict=True)]
        sooner = [{*side[~half]} for side, half in zip((documents, others), halves, strict=True)]
        assert all(later) and all(sooner) and not (later[0] | later[1]) & (sooner[0] | sooner[1])


@pytest.mark.parametrize(("shift", "m"), [(1.0, 4000), (3.0, 4000), (1.0, 1000)])
def test_f1_is_that_of_the_best_fixed_threshold(shift, m):
    """Thousands of samples: a threshold of one half is that of the other, and F1 is scikit-learn's at it."""
    members, others = two_normals(4000, shift, seed=1, m=m)
    found = membership(members, others)
    scores, labels = np.r_[members, others], np.r_[np.ones(4000), np.zeros(m)].astype(int)
    best = max(f1_score(labels, scores > cut) for cut in np.quantile(scores, np.linspace(0, 1, 150)))
    as_many = f1_score(labels, scores > np.sort(scores)[-4000 - 1])
    assert found.best_f1.value == pytest.approx(best, abs=0.01) and found.best_f1.value <= best + 1e-3
    assert found.f1.value == pytest.approx(as_many, abs=0.01)
    share = pd.Series(found.f1.columns())
    assert share["ci_low"] < share["value"] < share["ci_high"]


def test_scores_that_say_nothing_give_the_nulls_on_average():
    drawn = [membership(*two_normals(60, 0.0, seed), seed=seed) for seed in range(200)]
    for name in ("auc", "f1"):
        found = pd.DataFrame([getattr(one, name).columns() for one in drawn])
        assert abs(found["value"].mean() - 0.5) < 4 * found["value"].std() / np.sqrt(200), name
        assert ((found["ci_low"] <= 0.5) & (found["ci_high"] >= 0.5)).mean() >= 0.9, name
    best = np.array([one.best_f1.value for one in drawn])
    assert best.mean() <= 2 / 3, "cross-fitted: a threshold chosen on noise gains nothing on the other half"


def test_perfect_scores_give_one():
    found = membership(np.arange(20.0) + 100, np.arange(20.0))
    assert (found.auc.value, found.f1.value, found.best_f1.value) == (1.0, 1.0, 1.0)


def test_a_threshold_is_never_chosen_on_the_documents_it_is_applied_to():
    """Every document has a level of its own, so that a threshold chosen on itself would always be right."""
    documents = np.repeat(np.arange(2), 8)
    levels = np.array([0.0, 100.0])[documents]
    found = membership(levels + 1, levels, documents, documents)
    assert found.best_f1.value < 0.8, "chosen on both halves together it would be higher, or on its own half 1"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((np.ones(3), np.ones(5), None, None), r"members need one score a sample, at least 4, .* \(3,\)"),
        ((np.ones(5), np.ones(5), None, np.arange(4)), r"others need .* \(5,\) and \(4,\)"),
        ((np.array([1, 2, 3, np.inf]), np.ones(5), None, None), "members: a score is a finite number, and 1 are not"),
        ((np.ones(5), np.ones(5), np.zeros(5, int), None), "members come from one document, and two are needed"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        membership(*given)


# --- the law ----------------------------------------------------------------------------------------------------------

DATA = 1000.0 * 2.0 ** np.arange(-4, 7)


def test_a_planted_law_is_found_again():
    exact = 0.5 * (1 + 1 / (1 + np.exp(-1.7 * (np.log(1000 / DATA) + 0.6))))
    law = fit_membership_law(DATA, 1000.0, exact)
    assert (law.slope, law.midpoint) == (pytest.approx(1.7), pytest.approx(-0.6))
    assert law.f1(np.exp(-0.6)) == pytest.approx(0.75) and law.residual < 1e-8
    noisy = exact + np.random.default_rng(0).normal(0, 0.01, len(DATA))
    law = fit_membership_law(DATA, np.full(len(DATA), 1000.0), noisy)
    ends = pd.DataFrame([vars(law)])
    assert (ends["midpoint_low"] < -0.6).all() and (ends["midpoint_high"] > -0.6).all()
    assert (ends["slope_low"] < 1.7).all() and (ends["slope_high"] > 1.7).all()
    assert law.residual == pytest.approx(0.01, rel=0.6) and law.points == len(DATA)


def test_the_law_stays_between_chance_and_certainty_and_rises_where_the_printed_one_does_not():
    law = fit_membership_law(DATA, 1000.0, 0.5 * (1 + 1 / (1 + DATA / 1000)))
    ratio = np.geomspace(1e-6, 1e4, 200)
    ours = law.f1(ratio)
    assert (np.diff(ours) >= 0).all() and ours[0] == pytest.approx(0.5, abs=1e-4) and ours[-1] <= 1

    def printed(capacity_over_data):
        return 0.5 * (1 + 1.34 / (1 + np.exp(0.034 * (capacity_over_data - 33.14))))

    assert printed(0.0) == pytest.approx(1.006, abs=5e-4), "no capacity at all, and more than certain"
    assert (np.diff(printed(ratio)) <= 0).all(), "and worse with more capacity"


@pytest.mark.parametrize(
    ("data", "f1", "sentence"),
    [
        (DATA[:3], [0.9, 0.8, 0.6], "of at least 4 models"),
        (DATA[:4], [0.9, 0.8, 0.6], r"got shapes \(4,\) and \(3,\)"),
        (-DATA[:4], [0.9, 0.8, 0.6, 0.5], "needs positive data and capacity bits"),
        (DATA[:4], [0.9, np.nan, 0.6, 0.5], "finite F1"),
        (DATA[:4], [0.5, 0.5, 0.5, 0.5], "no sigmoid fits F1 0.500, 0.500"),
        (np.array([10.0, 10, 99, 99]), [0.9, 0.91, 0.6, 0.61], "no sigmoid fits F1 0.900"),
        (np.full(5, 10.0), [0.5, 0.6, 0.5, 0.7, 0.5], "cover loads from well below to well above 1"),
    ],
)
def test_points_without_a_law_are_refused_in_a_sentence(data, f1, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_membership_law(np.asarray(data), 1000.0, np.asarray(f1))
