"""Numbers of a spectrum by hand, against numpy, scipy and scikit-learn, and their errors against the jackknife."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.growth import growth, growth_sizes
from infocomp.geometry.scatter import Scatter
from infocomp.geometry.spectral_measures import (
    MEASURES,
    alpha_req,
    outlier_directions,
    participation_ratio,
    rankme,
    rankme_covariance,
    spectral_entropy,
    top_share,
)
from infocomp.geometry.spectrum import log_spaced_ranks, sampled_estimates, spectrum_of, spectrum_of_rows

SMOOTH = [(measure.quantity, measure.label) for measure in MEASURES] + [("alpha_req", ""), ("anisotropy", "")]


def drawn(n: int, dim: int, seed: int = 0, decay: float = 0.5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((n, dim)) * np.arange(1, dim + 1) ** -decay
    rows[:, dim // 2] += 1.0
    return rows @ np.linalg.qr(generator.standard_normal((dim, dim)))[0]


def in_documents(documents: int, per: int, dim: int, seed: int, effect: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share an effect with the other rows of their document."""
    generator = np.random.default_rng(seed)
    shared = effect * generator.standard_normal((documents, 1, dim))
    rows = (shared + generator.standard_normal((documents, per, dim))) * np.arange(1, dim + 1) ** -0.5
    rows[:, :, dim // 2] += 1.0
    return rows.reshape(-1, dim), np.repeat(np.arange(documents), per)


def named(estimates) -> dict:
    return {(one.quantity, one.label): one for one in estimates}


def test_two_directions_by_hand():
    values = np.array([3.0, 1.0])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert rankme_covariance(values) == pytest.approx(np.exp(entropy))
    assert rankme(values) == pytest.approx(np.exp(entropy)), "one formula, on other numbers"
    assert spectral_entropy(values) == pytest.approx(entropy)
    assert spectral_entropy(values, 2.0) == pytest.approx(-np.log(0.75**2 + 0.25**2))
    assert participation_ratio(values) == pytest.approx(16 / 10)
    assert top_share(np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(0.9)


def test_equal_directions_fill_the_space_and_one_direction_none():
    flat, single = np.full(40, 0.3), np.array([2.0, *np.zeros(39)])
    for measure in MEASURES[:-1]:
        assert measure.value(flat) == pytest.approx(measure.ceiling(40))
        assert measure.value(single) == pytest.approx(measure.ceiling(1))


@settings(deadline=None)
@given(values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_ranks_keep_their_order_and_bounds(values):
    falling = np.array(sorted(values, reverse=True))
    low, high = participation_ratio(falling), rankme_covariance(falling)
    assert 1 - 1e-9 <= low <= high * (1 + 1e-9) <= len(values) * (1 + 2e-9), "order 2 is at most order 1"
    assert high <= rankme(np.sqrt(falling)) * (1 + 1e-9), "square roots are flatter"


def test_a_power_law_is_found_with_perfect_fit():
    law = alpha_req(7.0 * np.arange(1, 601) ** -1.3)
    assert law is not None and (law.rank_from, law.rank_to) == (12, 100)
    assert law.slope == pytest.approx(1.3) and law.level == pytest.approx(np.log(7.0))
    assert law.r2 == pytest.approx(1.0) and law.r2_100 == pytest.approx(1.0)


def test_the_slope_is_numpys_weighted_fit_over_the_stated_ranks():
    values = np.sort(np.random.default_rng(0).gamma(0.5, size=200))[::-1]
    law, ranks = alpha_req(values), np.arange(12, 101)
    slope, level = np.polyfit(np.log(ranks), np.log(values[11:100]), 1, w=np.sqrt(1 / ranks))
    assert law is not None and law.slope == pytest.approx(-slope) and law.level == pytest.approx(level)
    logs = np.log(values[11:100])
    missed = ((logs - level - slope * np.log(ranks)) ** 2).sum()
    assert law.r2_100 == pytest.approx(1 - missed / ((logs - logs.mean()) ** 2).sum())
    assert law.r2 < law.r2_100, "followed to the last rank, which falls faster"


def test_too_few_ranks_have_no_slope_and_wrong_ranks_are_told():
    assert alpha_req(np.arange(20, 0, -1.0)) is None
    shorter = alpha_req(np.arange(30, 0, -1.0))
    assert shorter is not None and shorter.rank_to == 30
    with pytest.raises(ValueError, match=r"ranks must be 1 <= rank_from < rank_to, got 12 and 12"):
        alpha_req(np.ones(50), 12, 12)


def test_directions_that_stand_out_are_counted_up_to_the_first_that_does_not():
    values = np.arange(1, 201) ** -0.7
    law = alpha_req(values)
    assert law is not None and outlier_directions(values, law) == 0
    values[:2] *= [40.0, 8.0]
    assert outlier_directions(values, law) == 2
    values[1] /= 8
    values[2] *= 8
    assert outlier_directions(np.array(values), law) == 1


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_streaming_is_the_whole_matrix_to_1e_8(offset):
    """numpy's singular values, scikit-learn's principal components and the formulas as their papers write them."""
    rows = drawn(2500, 120) + offset
    site = Scatter(120)
    for piece in np.array_split(rows, 7):
        site.update(piece)
    found = named(spectrum_of(site).estimates())
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma / sigma.sum()
    assert found["rankme", ""].value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-8)
    share = PCA(svd_solver="full").fit(rows).explained_variance_ratio_
    assert found["rankme_covariance", ""].value == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-8)
    assert found["matrix_entropy", "order 1"].value == pytest.approx(-(share * np.log2(share)).sum(), rel=1e-8)
    assert found["matrix_entropy", "order 2"].value == pytest.approx(-np.log2((share**2).sum()), rel=1e-8)
    assert found["participation_ratio", ""].value == pytest.approx(1 / (share**2).sum(), rel=1e-8)
    assert found["top_share", ""].value == pytest.approx(share[:3].sum(), rel=1e-8)
    ranks = np.arange(12, 101)
    slope = np.polyfit(np.log(ranks), np.log(share[11:100]), 1, w=np.sqrt(1 / ranks))[0]
    assert found["alpha_req", ""].value == pytest.approx(-slope, rel=1e-8)
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    pairs = (unit @ unit.T)[np.triu_indices(len(rows), 1)]
    assert found["anisotropy", ""].value == pytest.approx(pairs.mean(), rel=1e-8)


def test_directions_without_variance_are_nothing_and_not_rounding():
    """Rows in a subspace: the d × d matrix has rounding where numpy's singular values have none to speak of."""
    rows = drawn(600, 80)[:, :20] @ drawn(20, 100, seed=1) + 5.0
    sigma = np.linalg.svd(rows, compute_uv=False)
    p = sigma[:21] / sigma[:21].sum()
    spectrum = spectrum_of_rows(rows)
    assert spectrum.rank == 20 and int((spectrum.singular > 0).sum()) == 21
    assert named(spectrum.estimates())["rankme", ""].value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-8)


def test_fewer_rows_than_dimensions_go_through_their_gram_matrix():
    rows = drawn(60, 150) + 1.0
    gram, found = spectrum_of_rows(rows), named(spectrum_of_rows(rows).estimates())
    sigma, centred = np.linalg.svd(rows, compute_uv=False), np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)
    assert len(gram.eigenvalues) == 60 and gram.rank == 59, "the mean takes one"
    assert gram.singular == pytest.approx(sigma, rel=1e-8)
    assert gram.eigenvalues[:59] * 60 == pytest.approx(centred[:59] ** 2, rel=1e-8)
    assert (found["rankme", ""].ceiling, found["rankme_covariance", ""].ceiling) == (60, 59)
    site = Scatter(150)
    site.update(rows)
    for one in spectrum_of(site).estimates():
        assert one.value == pytest.approx(found[one.quantity, one.label].value, rel=1e-8), one.quantity


def test_what_does_not_exist_is_refused_with_its_reason():
    equal = named(spectrum_of_rows(np.ones((50, 4))).estimates())
    assert equal["rankme", ""].value == pytest.approx(1.0) and equal["anisotropy", ""].value == pytest.approx(1.0)
    refused = equal["rankme_covariance", ""]
    assert refused.value is None and refused.status == "refused"
    assert refused.message == "all rows are equal: nothing varies."
    assert "0 eigenvalues are above 0; from rank 12 on 10 are needed" in equal["alpha_req", ""].message
    nothing = named(spectrum_of_rows(np.zeros((30, 4))).estimates())
    assert nothing["rankme", ""].message == "all rows are 0."
    assert nothing["anisotropy", ""].message == "fewer than two rows have a length."
    for one in (*spectrum_of(Scatter(3)).estimates(), *sampled_estimates(np.zeros((0, 3)), np.zeros(0, dtype=int))):
        assert one.value is None and one.status == "refused"


@pytest.mark.parametrize("n", [40, 300])
def test_rows_that_are_not_finite_are_told(n):
    rows = drawn(n, 100)
    rows[3, 5] = np.nan
    for measure in (spectrum_of_rows, lambda rows: sampled_estimates(rows, np.zeros(n, dtype=int))):
        with pytest.raises(ValueError, match=rf"1 of {n} rows are not finite; find where the model overflows"):
            measure(rows)


def test_documents_must_be_one_per_row():
    with pytest.raises(ValueError, match=r"documents has shape \(4,\), rows \(5, 3\): one document a row is needed"):
        sampled_estimates(np.ones((5, 3)), np.zeros(4, dtype=int))


@pytest.mark.parametrize("dim", [30, 600])
def test_a_sample_has_the_values_of_its_spectrum(dim):
    rows, documents = in_documents(30, 8, dim, seed=0)
    plain, sampled = named(spectrum_of_rows(rows).estimates()), named(sampled_estimates(rows, documents))
    assert plain.keys() == sampled.keys()
    for name, one in sampled.items():
        assert one.value == pytest.approx(plain[name].value, rel=1e-10), name
        assert one.ceiling == plain[name].ceiling
        if name in SMOOTH:
            assert one.influence is not None and abs(one.influence["value"].sum()) < 1e-9 * abs(one.value)
            assert one.std_error == standard_error(one.influence["value"])
            half = quantile(30) * one.std_error
            assert one.interval == pytest.approx((one.value - half, one.value + half))


@pytest.mark.parametrize("dim", [30, 200])
def test_the_influence_is_the_derivative_by_a_documents_weight(dim):
    """A slow twin: the rows of one document counted 1 + ε times, for a small ε, through a weighted covariance."""
    rows, documents = in_documents(20, 6, dim, seed=1)

    def weighted(weights: np.ndarray) -> dict:
        w = weights[documents] / weights[documents].sum()
        centred = (rows - w @ rows) * np.sqrt(w)[:, None]
        values = np.linalg.svd(centred, compute_uv=False)[: min(dim, len(rows) - 1)] ** 2
        squares = np.linalg.svd(rows * np.sqrt(w)[:, None], compute_uv=False) ** 2
        law = alpha_req(values)
        found = {("alpha_req", ""): law.slope if law else np.nan}
        return found | {(one.quantity, one.label): one.value(squares if one.uncentred else values) for one in MEASURES}

    found = named(sampled_estimates(rows, documents))
    for document in (0, 7):
        step = 1e-5 * (np.arange(20) == document)
        above, below = weighted(1 + step), weighted(1 - step)
        for name in above:
            expected = (above[name] - below[name]) / 2e-5
            assert found[name].influence["value"][document] == pytest.approx(expected, rel=1e-4, abs=1e-8), name


def test_errors_are_those_of_the_jackknife_over_documents():
    rows, documents = in_documents(80, 10, 24, seed=2)
    found = named(sampled_estimates(rows, documents))
    without = [named(spectrum_of_rows(rows[documents != one]).estimates()) for one in range(80)]
    for name in SMOOTH:
        left = np.array([one[name].value for one in without])
        error = np.sqrt(79 / 80 * ((left - left.mean()) ** 2).sum())
        assert found[name].std_error == pytest.approx(error, rel=0.1), name


def test_below_eight_documents_there_is_no_interval_and_a_reason():
    rows, documents = in_documents(7, 20, 24, seed=3)
    one = named(sampled_estimates(rows, documents))["rankme", ""]
    assert one.interval is None and one.influence is None and one.std_error is None
    assert one.message == "no interval: 7 documents, at least 8 are needed"


def test_equal_rows_differ_by_exactly_nothing():
    rows, documents = in_documents(20, 10, 16, seed=4)
    for one, other in zip(sampled_estimates(rows, documents), sampled_estimates(rows.copy(), documents), strict=True):
        assert one.value == other.value
        assert one.influence is None or (one.influence["value"] == other.influence["value"]).all()


def test_two_random_halves_of_the_documents_differ_by_nothing_nearly_always():
    covered: dict[tuple[str, str], list[bool]] = {}
    for split in range(80):
        rows, documents = in_documents(64, 16, 32, seed=split)
        half = (np.random.default_rng(1000 + split).permutation(64) < 32)[documents]
        first, second = (sampled_estimates(rows[side], documents[side]) for side in (half, ~half))
        for one, other in zip(first, second, strict=True):
            if one.influence is None:
                continue
            error = np.hypot(one.std_error, other.std_error)
            inside = abs(one.value - other.value) <= quantile(63) * error
            covered.setdefault((one.quantity, one.label), []).append(bool(inside))
    assert covered.keys() == set(SMOOTH)
    for name, inside in covered.items():
        assert np.mean(inside) >= 0.87, f"{name} covers {np.mean(inside):.2f}: binomial around 0.95, 3 standard errors"
    assert np.mean([np.mean(inside) for inside in covered.values()]) <= 0.985, "they are not merely wide"


def test_ranks_to_draw_are_log_spaced_with_both_ends():
    assert log_spaced_ranks(9, per_octave=1) == [1, 2, 4, 8, 9]
    assert log_spaced_ranks(1) == [1] and log_spaced_ranks(0) == []
    spectrum = spectrum_of_rows(drawn(300, 50))
    found = spectrum.eigenvalue_estimates()
    assert [one.label for one in found[:3]] == ["rank 00001", "rank 00002", "rank 00003"] and found[-1].order == 50
    assert found[0].value == pytest.approx(spectrum.eigenvalues[0] / spectrum.eigenvalues.sum())


def test_effective_ranks_grow_on_nested_rows():
    rows = drawn(1100, 400, decay=0.2)
    found = growth(rows, seed=3)
    assert growth_sizes(1100) == [256, 512, 1024] and growth_sizes(255) == []
    of_rankme = [one for one in found if one.quantity == "rankme"]
    assert [one.label for one in of_rankme] == ["n 00256", "n 00512", "n 01024"]
    assert [one.n for one in of_rankme] == [256, 512, 1024]
    assert of_rankme[0].value < of_rankme[1].value < of_rankme[2].value
    turned = np.random.default_rng(0).permutation(1100)
    again = growth(rows[turned], seed=3, keys=turned)
    assert [one.value for one in again] == pytest.approx([one.value for one in found], rel=1e-9)
    with pytest.raises(ValueError, match=r"first must be at least 2 rows, got 1"):
        growth_sizes(10, 1)
