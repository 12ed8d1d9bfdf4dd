"""Preference information: by hand, planted truths, flips within the null, influences against a slow twin, refusals."""

from typing import Any

import numpy as np
import pytest
import torch

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.preference_information import flipped, preference_flips, preference_information

LN2 = np.log(2)


def entropy(p):
    return -(p * np.log(p)).sum(axis=-1)


def planted(bins: int, strength: float, seed: int = 0):
    """A law of histograms per side (chosen, rejected) round a common one."""
    generator = np.random.default_rng(seed)
    base, direction = generator.dirichlet(np.full(bins, 2.0)), generator.normal(size=bins)
    sides = np.stack([base * np.exp(strength * direction), base * np.exp(-strength * direction)])
    return base, sides / sides.sum(axis=1, keepdims=True)


def sampled(pairs: int, strength: float, seed: int, bins: int = 20, draws: int = 1):
    """Histograms with a part that both completions of a prompt share, and the true information in bits."""
    generator = np.random.default_rng(seed)
    base, sides = planted(bins, strength)
    shared = generator.dirichlet(30 * base, size=(pairs, draws))
    found = np.empty((pairs, 2, draws, bins))
    for side in (0, 1):
        mass = generator.standard_gamma(40 * (sides[side] + shared) / 2)
        found[:, side] = mass / mass.sum(axis=-1, keepdims=True)
    means = (sides + base) / 2
    return found, (entropy(means.mean(axis=0)) - entropy(means).mean()) / LN2


def measured(histograms, seed=0, flips=200) -> Any:
    return preference_information(histograms, np.full(histograms.shape[:3], 0.2), rows=1, seed=seed, flips=flips)


def test_one_pair_that_a_bin_tells_apart_by_hand():
    histograms = np.array([[[[1.0, 0.0]], [[0.5, 0.5]]]])
    found = measured(histograms).mean
    h = 0.75 * np.log2(1 / 0.75) + 0.25 * 2
    assert found.value == pytest.approx(h - 0.5)
    assert found.ceiling == pytest.approx(h - 0.2 / LN2) and found.unit == "bits"
    assert found.point is None and found.interval is None and found.message.startswith("one pair: no ends, no point")


def test_two_sides_that_never_meet_are_worth_one_bit():
    histograms = np.zeros((40, 2, 1, 4))
    histograms[:, 0, 0, :2], histograms[:, 1, 0, 2:] = 0.5, 0.5
    found: Any = preference_information(histograms, np.zeros((40, 2, 1)), rows=80)
    assert found.mean.value == pytest.approx(1.0) and found.mean.ceiling == pytest.approx(1.0)
    assert found.mean.upper == pytest.approx(1.0)
    assert 0.9999 < found.mean.lower < 1, "shrinkage is never less than a thousandth of a pair"
    assert found.p == pytest.approx(1 / 501)


def test_equal_sides_are_worth_nothing():
    histograms, _ = sampled(12, 0.3, seed=0)
    histograms[:, 1] = histograms[:, 0]
    found = measured(histograms)
    assert found.mean.value == pytest.approx(0.0, abs=1e-12) and found.mean.point == pytest.approx(0.0, abs=1e-12)
    assert found.p == 1.0


def test_every_completion_weighs_the_same_and_draws_are_averaged():
    histograms, _ = sampled(30, 0.4, seed=1, draws=3)
    found = measured(histograms)
    assert [one.draw for one in found.estimates] == ["0", "1", "2", "mean"]
    alone = [measured(histograms[:, :, draw : draw + 1]).mean for draw in range(3)]
    for name in ("value", "point", "lower", "upper", "null", "ceiling"):
        values = [getattr(one, name) for one in found.estimates]
        assert values[:3] == pytest.approx([getattr(one, name) for one in alone])
        assert values[3] == pytest.approx(np.mean(values[:3]))
    sides = histograms.mean(axis=0)
    expected = [(entropy(sides[:, draw].mean(axis=0)) - entropy(sides[:, draw]).mean()) / LN2 for draw in range(3)]
    assert [one.value for one in found.estimates[:3]] == pytest.approx(expected)
    assert found.mean.draw_std == pytest.approx(np.std(expected, ddof=1))
    assert found.estimates[0].influence is None and found.mean.influence is not None


def test_the_order_of_the_pairs_changes_no_plug_in_and_exchanged_sides_nothing_but_signs():
    histograms, _ = sampled(16, 0.4, seed=2)
    found, turned = measured(histograms).mean, measured(histograms[:, ::-1]).mean
    for name in ("value", "point", "lower", "upper"):
        assert getattr(found, name) == pytest.approx(getattr(turned, name))
    assert measured(histograms[::-1]).mean.value == pytest.approx(found.value)


def test_twenty_random_flips_lie_within_the_null():
    """Flipped labels are draws from the null: 20 of them exceed its 97.5 % quantile 0.5 times on average."""
    histograms, _ = sampled(100, 0.6, seed=3)
    truth = measured(histograms)
    assert truth.p == pytest.approx(1 / 201) and truth.mean.value > 3 * truth.null_high
    found = [measured(flipped(histograms, signs)) for signs in preference_flips(100, 20, seed=99)]
    assert sum(one.mean.value > one.null_high for one in found) <= 2
    assert min(one.p for one in found) > 1 / 201 and max(one.p for one in found) > 0.5
    assert max(abs(one.mean.point) for one in found) < 0.1 * truth.mean.point


def test_flips_exchange_the_labels_within_pairs():
    histograms, _ = sampled(9, 0.4, seed=4)
    signs = preference_flips(9, 1, seed=0)[0]
    found = flipped(histograms, signs)
    for pair in range(9):
        assert np.array_equal(found[pair], histograms[pair][:: int(signs[pair])])
    coins = preference_flips(50, 400, seed=1)
    assert set(np.unique(coins)) == {-1.0, 1.0} and abs(coins.mean()) < 3 / np.sqrt(20_000)
    assert np.array_equal(coins, preference_flips(50, 400, seed=1))
    null = [measured(flipped(histograms, one), flips=1).mean.value for one in preference_flips(9, 30, seed=5)]
    assert measured(histograms, seed=5, flips=30).flips == pytest.approx(null), "a value under each flip"


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_the_point_estimate_finds_what_was_planted_and_its_interval_covers_it(strength):
    """120 draws: the mean is known to 1/11 of a draw's spread, coverage to 2 % (three standard errors: 6 %)."""
    points, covered, between = [], 0, 0
    for seed in range(120):
        histograms, truth = sampled(60, strength, seed)
        found = measured(histograms, flips=60).mean
        points.append(found.point)
        covered += abs(found.point - truth) <= quantile(60) * found.point_error
        between += found.interval[0] <= truth <= found.interval[1]
    assert abs(np.mean(points) - truth) < 3.5 * np.std(points) / np.sqrt(120)
    assert 0.89 <= covered / 120 <= 0.995 and between >= 118


def test_both_ends_stand_on_their_sides_on_average():
    found = [measured(sampled(40, 0.5, seed)[0], flips=2).mean for seed in range(30)]
    truth = sampled(1, 0.5, 0)[1]
    assert np.mean([one.lower for one in found]) < truth < np.mean([one.upper for one in found])
    assert np.mean([one.value for one in found]) > truth, "the plug-in reads too much, and its null as much"


def twin(h, weights, second, alpha, flips):
    """Value, null and both ends as the docstring writes them, for any weights of the pairs, in nats."""

    def law(rows, side, inside):
        w = weights[inside] / weights[inside].sum()
        return torch.einsum("p,pm->m", w, rows[inside][:, side])

    def ent(p):
        return -(p * p.log()).sum()

    def information(rows, inside):
        sides = [law(rows, side, inside) for side in (0, 1)]
        return ent((sides[0] + sides[1]) / 2) - (ent(sides[0]) + ent(sides[1])) / 2, sides

    every = np.ones(len(h), dtype=bool)
    value, sides = information(h, every)
    null = torch.stack([information(torch.from_numpy(flipped(h.numpy(), one)), every)[0] for one in flips]).mean()
    marginal, conditional = ent((sides[0] + sides[1]) / 2), (ent(sides[0]) + ent(sides[1])) / 2
    by_label = by_marginal = 0.0
    for a, b in ((~second, second), (second, ~second)):
        p = (law(h, 0, a) + law(h, 1, a)) / 2
        n = int(a.sum())
        for side in (0, 1):
            q = (n * law(h, side, a) + alpha * p) / (n + alpha)
            by_label = by_label - (law(h, side, b) * q.log()).sum() / 4
            by_marginal = by_marginal - (law(h, side, b) * p.log()).sum() / 4
    return {"value": value, "null": null, "lower": marginal - by_label, "upper": by_marginal - conditional}


def test_values_and_influences_are_those_of_a_slow_twin_with_weights():
    from infocomp.estimators.nulls import sampling_order
    from infocomp.geometry.preference_information import _one_draw, _shrinkage

    histograms, _ = sampled(13, 0.5, seed=6, bins=6)
    h, signs = histograms[:, :, 0], preference_flips(13, 7, seed=0)
    second = np.zeros(13, dtype=bool)
    second[sampling_order(np.arange(13), 0, 13)[6:]] = True
    found = _one_draw(h, np.full((13, 2), 0.2), signs, second)
    alpha = _shrinkage(h, [h[~second].mean(axis=0), h[second].mean(axis=0)])
    weights = torch.ones(13, dtype=torch.float64, requires_grad=True)
    slow = twin(torch.from_numpy(h), weights, second, alpha, signs)
    slow["point"] = 13 / 12 * (slow["value"] - slow["null"])
    for name in ("value", "point", "lower", "upper"):
        assert found.ends[name] == pytest.approx(float(slow[name].detach()), abs=1e-12)
        (gradient,) = torch.autograd.grad(slow[name], weights, retain_graph=True)
        assert found.influence[name] == pytest.approx(gradient.numpy(), abs=1e-12), name
        assert found.influence[name].sum() == pytest.approx(0.0, abs=1e-12)
    public = measured(histograms, flips=7).mean
    assert public.lower == pytest.approx(found.ends["lower"] / LN2) and public.n == 1


def test_errors_are_those_of_the_influences():
    found = measured(sampled(25, 0.5, seed=7)[0]).mean
    assert found.influence is not None
    errors = (found.std_error, found.point_error, found.lower_error, found.upper_error)
    expected = [standard_error(found.influence[name]) for name in ("value", "point", "lower", "upper")]
    assert errors == pytest.approx(expected)
    width = quantile(25)
    assert found.interval == pytest.approx(
        (found.lower - width * found.lower_error, found.upper + width * found.upper_error)
    )


def test_two_equal_models_differ_by_exactly_nothing():
    histograms, _ = sampled(20, 0.5, seed=8)
    one, other = measured(histograms).mean, measured(histograms.copy()).mean
    assert one.influence is not None and other.influence is not None
    for name in ("value", "point", "lower", "upper"):
        assert getattr(one, name) - getattr(other, name) == 0.0
        assert standard_error(one.influence[name] - other.influence[name]) == 0.0


def test_models_exchanged_at_random_by_pair_differ_by_nothing_in_95_of_100():
    covered = 0
    for seed in range(100):
        one, other = sampled(60, 0.5, seed)[0], sampled(60, 0.2, 1000 + seed)[0]
        turned = np.random.default_rng(seed).random(60) < 0.5
        one[turned], other[turned] = other[turned], one[turned].copy()
        here, there = measured(one, flips=40).mean, measured(other, flips=40).mean
        error = standard_error(here.influence["point"] - there.influence["point"])
        covered += abs(here.point - there.point) <= quantile(60) * error
    assert 0.88 <= covered / 100 <= 1, "100 draws know 95 % to 2.2 %"


def test_few_pairs_have_no_interval():
    found = measured(sampled(7, 0.5, seed=9)[0]).mean
    assert found.interval is None and found.point is not None and found.std_error is None
    assert found.message == "no interval: 7 pairs, at least 8 are needed"


@pytest.mark.parametrize(
    ("histograms", "entropies", "expected"),
    [
        (np.ones((3, 1, 1, 1)), np.ones((3, 1, 1)), r"be \[pairs, 2, draws, bins\] .* got \[3, 1, 1, 1\]"),
        (np.full((3, 2, 1, 2), 0.5), np.ones((3, 2)), r"entropies must be \[3, 2, 1\] .* got \[3, 2\]"),
        (np.ones((0, 2, 1, 1)), np.ones((0, 2, 1)), "histograms has no pair: at least one is needed"),
        (np.full((3, 2, 1, 3), 0.5), np.ones((3, 2, 1)), "the histograms of pair 0 are no distributions"),
        (np.full((3, 2, 1, 2), np.nan), np.ones((3, 2, 1)), "the histograms of pair 0 are no distributions"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_histograms_is_one_sentence(histograms, entropies, expected):
    with pytest.raises(ValueError, match=expected):
        preference_information(histograms, entropies, rows=1)
