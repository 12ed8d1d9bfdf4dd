"""Theorems that every bottleneck curve keeps, sparse against dense, and each guard by its message."""

import doctest

import numpy as np
import pytest
import torch

import infocomp.bottleneck.joint as joint_module
from infocomp.bottleneck import (
    Joint,
    Limits,
    anneal,
    concave_envelope,
    cross_fit,
    greedy_merging,
    held_out,
    held_out_information,
    interpolate,
    k_means,
    monotone_filter,
    repeat_points,
    smoothed,
    solve,
    solve_at_once,
    solve_deterministic,
    through_token_channel,
)
from infocomp.bottleneck.fixed_point import coordinates, step
from infocomp.bottleneck.initial import random_encoder

BETAS = np.geomspace(1.05, 40, 25)


def random_table(seed: int, shape: tuple[int, int] = (6, 5), concentration: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(shape[0] * shape[1], concentration)).reshape(shape)


def random_pairs(seed: int, n: int = 4000, sizes: tuple[int, int] = (60, 50)) -> tuple[np.ndarray, np.ndarray]:
    """Dependent pairs, Zipf-like in both."""
    rng = np.random.default_rng(seed)
    x = (rng.zipf(1.5, n) - 1) % sizes[0]
    y = (x * 7 + (rng.zipf(1.7, n) - 1)) % sizes[1]
    return x, y


@pytest.mark.parametrize("seed", range(6))
def test_curves_keep_the_theorems(seed):
    joint = Joint.of(random_table(seed))
    curve = solve(joint, BETAS)
    rounding = 1e-12
    assert (curve.relevance >= -rounding).all() and (curve.complexity >= curve.relevance - rounding).all()
    assert (curve.relevance <= joint.mutual_information + rounding).all()
    assert (curve.complexity <= joint.entropy_x + rounding).all()
    order = np.argsort(BETAS)
    assert (np.diff(curve.complexity[order]) >= -1e-6).all(), "complexity rises with beta"
    assert (np.diff(curve.relevance[order]) >= -1e-6).all()
    across, up = curve.envelope()
    assert (interpolate(across, up, curve.complexity) - curve.relevance < 1e-6).all(), "every point lies on its hull"
    slopes = np.diff(up) / np.diff(across)
    assert (np.diff(slopes) <= 1e-9).all() and (slopes <= 1 + 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_encoder_lies_above_the_bound(seed):
    joint = Joint.of(random_table(seed))
    curve = solve(joint, np.geomspace(1.01, 300, 80))
    q = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(6, 0.2), size=(6, 500)))
    found = coordinates(joint, q)
    allowed = interpolate(*curve.envelope(), found.complexity.numpy() / np.log(2))
    # between two betas the hull lies under the curve by at most the corner of its tangents
    assert (found.relevance.numpy() / np.log(2) <= allowed + 2e-3).all()
    gap = found.lagrangian(torch.tensor(5.0)) / np.log(2) - solve(joint, [5.0]).lagrangian[0]
    assert float(gap.min()) >= -1e-9


def test_a_step_never_raises_the_lagrangian_and_f_lies_between():
    joint = Joint.of(random_table(1))
    q = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), size=(6, 9)))
    for alpha in (1.0, 0.4):
        betas = torch.linspace(0.5, 20, 9, dtype=torch.float64)
        after, f = step(joint, q, betas, alpha)
        before, now = (coordinates(joint, it).lagrangian(betas, alpha) for it in (q, after))
        assert (now <= f + 1e-12).all() and (f <= before + 1e-12).all()


def test_sparse_and_dense_agree():
    x, y = random_pairs(0)
    sparse = Joint.from_pairs(x, y, sizes=(61, 50))  # an x that never occurs
    dense = Joint.of(sparse.table())
    assert sparse.sparse and not dense.sparse and sparse.weight == len(x)
    for name in ("mutual_information", "entropy_x", "entropy_y", "joint_entropy"):
        assert getattr(sparse, name) == pytest.approx(getattr(dense, name), abs=1e-12)
    v = torch.randn(50, 4, dtype=torch.float64)
    torch.testing.assert_close(sparse.storage.to_x(v), dense.storage.to_x(v))
    curves = [solve(joint, [2.0, 5.0, 20.0], 8) for joint in (sparse, dense)]
    assert curves[0].complexity == pytest.approx(curves[1].complexity, abs=1e-6)
    assert curves[0].relevance == pytest.approx(curves[1].relevance, abs=1e-6)
    assert curves[0].kind == "achievable"


def test_smoothing_is_the_same_written_out():
    x, y = random_pairs(1, 500)
    joint = smoothed(x, y, (62, 51))
    counts = np.zeros((62, 51))
    np.add.at(counts, (x, y), 1)
    kinds, of_x = (counts > 0).sum(1, keepdims=True), counts.sum(1, keepdims=True)
    seen = (counts.sum(0) > 0).sum()
    back_off = (counts.sum(0) + seen / 51) / (500 + seen)
    expected = np.where(of_x > 0, (counts + kinds * back_off) / np.maximum(of_x + kinds, 1), 0) * of_x / 500
    dense = Joint.of(expected)
    np.testing.assert_allclose(joint.table().numpy(), expected, atol=1e-15)
    assert joint.mutual_information == pytest.approx(dense.mutual_information, abs=1e-12)
    q = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), size=(62, 1)))
    torch.testing.assert_close(step(joint, q, torch.tensor([3.0]))[0], step(dense, q, torch.tensor([3.0]))[0])


def test_renaming_x_and_y_changes_nothing():
    table = random_table(3)
    rng = np.random.default_rng(0)
    other = table[rng.permutation(6)][:, rng.permutation(5)]
    found, renamed = (solve(Joint.of(it), BETAS) for it in (table, other))
    assert renamed.lagrangian == pytest.approx(found.lagrangian, abs=1e-8)
    weights = solve(Joint.from_pairs(*np.nonzero(table), weights=table[np.nonzero(table)] * 1000), BETAS)
    assert weights.lagrangian == pytest.approx(found.lagrangian, abs=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_curve():
    x, y = random_pairs(2)
    joint = Joint.from_pairs(x, y)
    for here in (Joint.of(random_table(4)), joint):
        for clusters in (4, here.sizes[0]):
            cpu, gpu = (solve(it, [2.0, 6.0], clusters) for it in (here, here.to("cuda")))
            assert gpu.lagrangian == pytest.approx(cpu.lagrangian, abs=1e-6)


def test_annealing_in_float32_agrees_with_all_at_once():
    joint = Joint.from_pairs(*random_pairs(3, sizes=(20, 15)))
    betas = torch.tensor([1.5, 3.0, 8.0, 30.0], dtype=torch.float64)
    slow = anneal(joint, betas, 20, limits=Limits(tolerance=1e-7, steps=3000))
    fast = solve(joint, betas)
    assert slow.lagrangian == pytest.approx(fast.lagrangian, abs=2e-4)
    assert slow.kind == "bound" and slow.converged and (slow.restart_spread >= 0).all()


def test_no_point_is_left_where_another_betas_encoder_does_better():
    for seed in range(5):
        joint = Joint.of(random_table(seed, (8, 7)))
        curves = [solve_at_once(joint, torch.from_numpy(BETAS), 8, starts=[random_encoder(joint, 8, seed)])]
        curves.append(anneal(joint, torch.from_numpy(BETAS), 3, seed=seed))
        for curve, worth in zip(curves, (1e-8, 1e-3), strict=True):
            offers = curve.complexity - BETAS[:, None] * curve.relevance
            assert (curve.lagrangian <= offers.min(1) + worth).all()


def test_what_has_not_converged_says_so():
    curve = solve(Joint.of(random_table(5)), [3.0, 4.0], limits=Limits(tolerance=1e-13, steps=15))
    assert curve.status == ("not converged", "not converged") and not curve.converged
    assert (curve.last_change > 1e-13).all() and (curve.iterations >= 15).all()


def test_annealing_says_so_too_and_keeps_to_its_cap():
    joint = Joint.from_pairs(*random_pairs(3))
    betas = torch.tensor([6.0], dtype=torch.float64)
    capped = anneal(joint, betas, 12, limits=Limits(tolerance=1e-13, steps=20))
    assert capped.status == ("not converged",) and capped.last_change[0] >= 1e-13 and capped.iterations[0] <= 40
    settled = anneal(joint, betas, 12, limits=Limits(steps=2000))
    assert settled.converged and settled.last_change[0] < 1e-5
    assert settled.lagrangian <= capped.lagrangian + 1e-6


def test_fewer_clusters_never_do_better_and_starts_beat_chance():
    joint = Joint.from_pairs(*random_pairs(4))
    few, some, all_of_them = (solve(joint, [30.0], count) for count in (4, 12, None))
    assert all_of_them.lagrangian <= some.lagrangian + 1e-6
    assert some.lagrangian <= few.lagrangian + 1e-6
    rng = torch.Generator().manual_seed(0)
    chance = torch.nn.functional.one_hot(torch.randint(8, (joint.sizes[0],), generator=rng), 8).double()
    information = [
        float(coordinates(joint, q[:, None]).relevance) for q in (chance, k_means(joint, 8), greedy_merging(joint, 8))
    ]
    assert information[0] < 0.8 * information[1] and information[1] <= 1.02 * information[2]


def test_greedy_merging_merges_the_pair_that_loses_least():
    table = np.array([[0.2, 0.05], [0.21, 0.04], [0.05, 0.25], [0.1, 0.1]])
    q = greedy_merging(Joint.of(table), 3)
    assert (q[0] == q[1]).all() and len({tuple(row) for row in q[1:].tolist()}) == 3
    with pytest.raises(ValueError, match="greedy merging takes at most 512 x; there are 600: use k_means"):
        greedy_merging(Joint.from_pairs(np.arange(600), np.arange(600)), 3)


def test_points_are_repeated_from_other_starts():
    joint = Joint.of(random_table(6))
    curve = solve(joint, [2.0, 6.0, 20.0])
    again = repeat_points(joint, curve, which=(0, 1, 2))
    assert again.lagrangian.shape == (3, 3) and (again.relevance_spread < 0.01).all()
    assert again.lagrangian[:, 0] == pytest.approx(curve.lagrangian)
    assert (again.lagrangian[:, 1:].min(1) >= curve.lagrangian - 1e-9).all()
    assert len(again.lines()) == 3 and again.steps[0] == 10 * curve.iterations[0]
    with pytest.raises(ValueError, match="which must hold indices from 0 to 2; it is \\(3,\\)"):
        repeat_points(joint, curve, which=(3,))
    with pytest.raises(ValueError, match=r"points of the bottleneck \(alpha 1\) can be repeated; .* alpha 0"):
        repeat_points(joint, solve_deterministic(joint, [2.0]), which=(0,))


# held-out scores


def test_held_out_scores_err_against_the_claim():
    # one law, many halves: the mean held-out relevance lies under the encoder's true one, its complexity over it
    law = Joint.of(random_table(7, (30, 20), 0.1))
    rng = np.random.default_rng(0)
    flat = law.table().numpy().ravel()
    differences, knowledge = [], []
    for _ in range(30):
        halves = [np.divmod(rng.choice(len(flat), 400, p=flat), 20) for _ in range(2)]
        learnt, scored = smoothed(*halves[0], (30, 20)), Joint.from_pairs(*halves[1], sizes=(30, 20))
        curve = solve(learnt, [6.0], 6, keep_encoders=True, limits=Limits(steps=300, tolerance=1e-6))
        complexity, relevance = held_out(curve.encoders, learnt, scored)
        q = curve.encoders
        q = torch.where(learnt.p_x[:, None, None] > 0, q, torch.tensordot(learnt.p_x, q, 1))
        truth = coordinates(law, q)
        differences.append(
            (complexity[0] - float(truth.complexity) / np.log(2), relevance[0] - float(truth.relevance) / np.log(2))
        )
        knowledge.append(held_out_information(learnt, scored))
    mean = np.mean(differences, axis=0)
    assert mean[0] > 0 and mean[1] < 0
    plug_in = Joint.from_pairs(*halves[0]).mutual_information
    assert np.mean(knowledge) < law.mutual_information < plug_in


def test_cross_fit_averages_both_directions():
    x, y = random_pairs(8, 3000)
    one, other, sizes = (x[:1500], y[:1500]), (x[1500:], y[1500:]), (60, 50)
    found = cross_fit(one, other, sizes, [3.0, 10.0], 8, limits=Limits(steps=300))
    turned = cross_fit(other, one, sizes, [3.0, 10.0], 8, limits=Limits(steps=300))
    assert found.relevance == pytest.approx(turned.relevance) and found.complexity == pytest.approx(turned.complexity)
    assert found.information == pytest.approx(turned.information)
    assert (found.relevance < found.information + 0.1).all() and found.learnt[0].encoders is None


def test_an_x_that_was_never_learnt_carries_no_information():
    learnt = smoothed([0, 0, 1, 1], [0, 1, 1, 1], (3, 2))
    scored = Joint.from_pairs([2, 2], [0, 1], sizes=(3, 2))
    q = torch.tensor([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]], dtype=torch.float64)[:, None]
    complexity, relevance = held_out(q, learnt, scored)
    assert complexity[0] == pytest.approx(0, abs=1e-12) and relevance[0] <= 0
    with pytest.raises(ValueError, match=r"both halves need the same sizes; they are \(3, 2\) and \(3, 4\)"):
        held_out(q, learnt, Joint.from_pairs([0], [1], sizes=(3, 4)))
    with pytest.raises(ValueError, match="learnt must come from `smoothed`"):
        held_out_information(scored, scored)


# the token channel


@pytest.mark.parametrize("seed", range(5))
def test_a_token_channel_lies_under_the_curve_of_its_joint(seed):
    rng = np.random.default_rng(seed)
    dense = Joint.of(random_table(seed, (7, 6)))
    curve = solve(dense, np.geomspace(1.01, 300, 80))
    for sharpness in (0.05, 0.3, 3.0):
        channel = torch.from_numpy(rng.dirichlet(np.full(9, sharpness), size=7))
        point = through_token_channel(dense, channel)
        assert 0 <= point.relevance <= point.complexity
        assert point.relevance <= curve.relevance_at(point.complexity) + 2e-3
        assert point.context_gain(point.relevance + 0.25) == pytest.approx(0.25)


def test_a_token_channel_by_hand_and_its_guards():
    joint = Joint.from_pairs([0, 1], [0, 1], sizes=(3, 2))  # Y = X, a fair bit; x = 2 never occurs
    eye = torch.tensor([[1.0, 0.0], [0.0, 1.0], [7.0, 7.0]])
    assert through_token_channel(joint, eye).relevance == pytest.approx(1.0)
    assert through_token_channel(joint, torch.full((3, 4), 0.25)).complexity == pytest.approx(0.0)
    for channel, message in (
        (eye[:2], r"p\(j\|x\) needs a row for each x: 3; its shape is \(2, 2\)"),
        (
            torch.tensor([[1.5, -0.5], [0, 1.0], [0, 1.0]]),
            r"p\(j\|x\) must not be negative; its smallest entry is -0.5",
        ),
        (torch.tensor([[0.5, 0.4], [0, 1.0], [0, 1.0]]), r"must sum to one; row 0 sums to 0\.9"),
    ):
        with pytest.raises(ValueError, match=message):
            through_token_channel(joint, channel)


# envelopes


def test_the_monotone_filter_keeps_embos_indices():
    x, y = zip(*((0, 0), (1, 1), (2, 0), (3, 3), (3, 4), (2, 5), (4, 6), (2, 7), (3, 8)), strict=True)
    assert monotone_filter(x, y).tolist() == [0, 1, 3, 6]


def test_the_concave_envelope_of_the_same_points_is_another():
    x, y = zip(*((0, 0), (1, 1), (2, 0), (3, 3), (3, 4), (2, 5), (4, 6), (2, 7), (3, 8)), strict=True)
    across, up = concave_envelope(x, y)
    assert list(zip(across, up, strict=True)) == [(0, 0), (2, 7), (3, 8)]


def test_an_envelope_is_concave_above_every_point_and_touches_some():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.random(30), rng.random(30)
        across, up = concave_envelope(x, y)
        height = interpolate(across, up, x)
        assert (height >= y - 1e-12).all() and (np.diff(np.diff(up) / np.diff(across)) < 0).all()
        assert set(zip(across[1:], up[1:], strict=True)) <= set(zip(x, y, strict=True))
        assert (np.diff(up) > 0).all() and (across[0], up[0]) == (0, 0)


# bad input


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0.5, -0.1], [0.3, 0.3]], r"p\(x, y\) must not be negative; its smallest entry is -0\.1"),
        ([[0.5, 0.1], [0.3, 0.3]], r"p\(x, y\) must sum to one; it sums to 1\.2: divide it by its sum"),
        ([[0.5, float("nan")], [0.3, 0.3]], r"p\(x, y\) must be finite; 1 entries are NaN or infinite"),
        (np.zeros((0, 2)), r"p\(x, y\) must be a matrix with at least one entry; it has shape \(0, 2\)"),
        ([0.5, 0.5], r"p\(x, y\) must be a matrix"),
    ],
)
def test_a_bad_table_is_named(table, message):
    with pytest.raises(ValueError, match=message):
        Joint.of(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "x_ids must be a list of whole numbers|equally long and not empty; they have 0 and 0 entries"),
        (([0, 1], [0]), "equally long and not empty; they have 2 and 1 entries"),
        (([0, -1], [0, 1]), "x_ids must be not negative; they run from -1 to 0"),
        (([0.5], [0]), "x_ids must be a list of whole numbers"),
        (([0, 1], [0, 5], None, (2, 3)), "y_ids must be from 0 to 2; they run from 0 to 5"),
        (([0, 1], [0, 1], [1.0]), "weights must have one entry a pair"),
        (([0, 1], [0, 1], [1.0, -2.0]), "weights must not be negative; its smallest entry is -2"),
        (([0, 1], [0, 1], [0.0, 0.0]), "weights must not all be zero"),
    ],
)
def test_bad_pairs_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Joint.from_pairs(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda joint: solve(joint, [1.0, 0.0]), "beta must be a finite number above 0; 0 is not"),
        (lambda joint: solve(joint, [-2.0]), "beta must be a finite number above 0; -2 is not"),
        (lambda joint: solve(joint, [float("nan")]), "beta must be a finite number above 0; nan is not"),
        (lambda joint: solve(joint, []), "betas must hold at least one number; it is empty"),
        (lambda joint: solve_deterministic(joint, [-1.0]), "beta must be a finite number above 0; -1 is not"),
        (lambda joint: solve_deterministic(joint, [1.0], alpha=2), "alpha must lie from 0 .* it is 2"),
        (lambda joint: solve(joint, [1.0], 0), "clusters must be at least 1; it is 0"),
        (lambda joint: solve(joint, [1.0], restarts=1), "restarts must be at least 2"),
        (lambda joint: Limits(steps=0), "steps must be above 0; it is 0"),
        (lambda joint: monotone_filter([1], [1, 2]), "x and y must be equally long and not empty"),
        (lambda joint: concave_envelope([1, np.nan], [1, 2]), "x and y must be finite"),
        (lambda joint: interpolate(np.array([1.0, 0.0]), np.zeros(2), 1), "x must rise strictly from corner to corner"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Joint.of([[0.5, 0.0], [0.0, 0.5]]))


def test_examples_in_the_docstrings_run():
    results = doctest.testmod(joint_module, optionflags=doctest.ELLIPSIS)
    assert results.attempted and not results.failed
