"""Rate–distortion complexity of weights: codes made by hand, losses whose answer is known, weights that come back."""

import bz2
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from infocomp.grokking.complexity import description_bits
from infocomp.grokking.description_search import Bayesian, Bisection, Sweep
from infocomp.grokking.weight_code import CODERS, WeightCode, rank_of, shortest

QUICK = Bayesian(iterations=8)


class Weights(nn.Module):
    """A model whose loss is 2 nats + stiffness · Σ (θ − θ₀)²: rounding by Δ adds stiffness · n · Δ²/12."""

    def __init__(self, *arrays, stiffness=0.0, dtype=torch.float32):
        super().__init__()
        self.list = nn.ParameterList([nn.Parameter(torch.as_tensor(one).to(dtype)) for one in arrays])
        self.start = [one.detach().clone() for one in self.list]
        self.stiffness, self.seen = stiffness, []

    def loss(self):
        apart = sum(float((one - start).double().square().sum()) for one, start in self.pairs())
        self.seen.append([one.detach().clone() for one in self.list])
        return 2 + self.stiffness * apart

    def pairs(self):
        return list(zip(self.list, self.start, strict=True))

    def unchanged(self):
        return all(torch.equal(one, start) for one, start in self.pairs())


def gaussian(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


# --- the code -----------------------------------------------------------------------------------------------------


def test_rounding_by_hand():
    code = WeightCode([np.array([[0.24, -0.26], [0.0, 1.3]]), np.array([0.76])])
    codes = code.codes(0.5)
    assert [one.ravel().tolist() for one in codes.integers] == [[0, -1, 0, 3], [2]]
    assert [one.tolist() for one in code.weights(codes)] == [[[0, -0.5], [0, 1.5]], [1.0]]
    assert codes.factored == 0


def test_singular_values_of_rounding_alone_are_no_rank():
    assert rank_of(np.array([1.0] + 8 * [2.3e-16]), 1.0, (9, 9)) == 1


@pytest.mark.parametrize(
    ("tau", "shape", "rank"),
    [
        (0.0, (9, 9), 0),
        (0.6, (9, 9), 1),
        (0.61, (9, 9), 2),
        (0.9, (9, 9), 2),
        (0.95, (9, 9), 3),
        (1.0, (9, 9), 3),
        (0.95, (6, 6), -1),
        (0.9, (6, 6), 2),
        (0.9, (4, 4), -1),
        (0.6, (1, 9), -1),
    ],
)
def test_a_rank_holds_its_share_of_the_singular_values_and_counts_only_where_it_pays(tau, shape, rank):
    assert rank_of(np.array([0.6, 0.3, 0.1]), tau, shape) == rank


def test_a_matrix_of_rank_one_is_written_as_its_two_vectors():
    left, right = gaussian(40, 1), gaussian(1, 30, seed=1)
    code = WeightCode([left @ right])
    codes = code.codes(0.01, 0.999)
    assert codes.ranks == (1,) and [one.shape for one in codes.integers] == [(40, 1), (1, 30)]
    values = np.linalg.svd(left @ right)[1]
    # each factor is off by at most Δ/2 an entry: the product by Δ/2 (|u s| + |v|) + Δ²/4
    assert np.abs(code.weights(codes)[0] - left @ right).max() < 0.005 * (values[0] + 1) + 1e-4


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from([1e-7, 1e-3, 0.1, 5.0]),
    st.sampled_from([None, 0.0, 0.5, 1.0]),
    st.sampled_from(list(CODERS)),
    st.integers(0, 99),
)
def test_bytes_give_the_integers_back_whatever_the_shapes(shapes, delta, tau, coder, seed):
    code = WeightCode([gaussian(*shape, seed=seed) for shape in shapes])
    codes = code.codes(delta, tau)
    data = code.packed(codes)
    again = code.unpacked(CODERS[coder].decode(CODERS[coder].encode(data)))
    assert again.ranks == codes.ranks and again.delta == codes.delta
    assert all(np.array_equal(one, other) for one, other in zip(codes.integers, again.integers, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(code.weights(codes), code.weights(again), strict=True))


def test_the_shortest_of_several_coders_counts():
    data = WeightCode([gaussian(50, 50)]).packed(WeightCode([gaussian(50, 50)]).codes(0.3))
    sizes = {name: len(CODERS[name].encode(data)) for name in CODERS}
    assert shortest(data, tuple(CODERS)) == (name := min(sizes, key=lambda key: sizes[key]), CODERS[name].encode(data))


# --- descriptions -------------------------------------------------------------------------------------------------


def test_weights_on_a_grid_cost_the_logarithm_of_its_levels_each():
    generator = np.random.default_rng(0)
    levels = generator.integers(-4, 4, 20_000) + 0.5
    model = Weights(levels + generator.normal(0, 0.01, 20_000), stiffness=1 / (20_000 * 0.1**2))
    found = description_bits(model, model.loss)
    # a deviation of 0.1 a weight is allowed, so that each of the 8 levels keeps its own integer
    assert found.delta == pytest.approx(math.sqrt(12) * 0.1, rel=0.5)
    assert 1.0 <= found.bits / (20_000 * 3) < 1.12, "bzip2's own cost on 8 equal symbols is a tenth"


def test_gaussian_weights_cost_their_entropy_at_the_step_that_the_loss_allows():
    model = Weights(gaussian(100, 300), stiffness=1e-3)
    found = description_bits(model, model.loss)
    allowed = math.sqrt(12 * 1.0 / (1e-3 * 30_000))  # stiffness · n · Δ²/12 = ε
    # rounding by Δ = σ/1.6 leaves Δ²/12 a weight, and the search ends within 2^(1/64)
    assert allowed * 2 ** (-1 / 64) * 0.99 < found.delta < allowed * 1.01
    entropy = 0.5 * math.log2(2 * math.pi * math.e / found.delta**2)
    assert 1.0 <= found.bits / (30_000 * entropy) < 1.16, "bzip2 takes a seventh more than the entropy here"
    assert found.loss == 2 and 0.95 < found.loss_compressed - found.loss < 1
    assert found.naive_bits > 0.9 * 32 * 30_000 and found.parameters == 30_000 and found.tau is None


def test_a_larger_epsilon_never_gives_a_smaller_step_and_costs_less():
    model = Weights(gaussian(80, 60), stiffness=1e-2)
    found = [description_bits(model, model.loss, epsilon=2.0**power) for power in range(-4, 4)]
    for tighter, looser in itertools.pairwise(found):
        assert looser.delta >= tighter.delta and looser.bits < tighter.bits


def test_weights_of_no_effect_and_weights_of_zero_cost_next_to_nothing():
    for model in (Weights(gaussian(200, 100)), Weights(np.zeros((200, 100)), stiffness=1.0)):
        found = description_bits(model, model.loss)
        assert found.bits < 600 and found.evaluations == 3
        assert all(not one.any() for one in model.seen[-1])


def test_a_matrix_of_rank_one_costs_its_two_vectors_where_ranks_are_searched():
    left, right = gaussian(150, 1), gaussian(1, 100, seed=1)
    model = Weights(left @ right, stiffness=10 / (150 * 100))
    whole, found = description_bits(model, model.loss), description_bits(model, model.loss, search=QUICK)
    assert found.factored == 1 and found.tau is not None
    assert found.bits < 16 * (150 + 100) < whole.bits / 2, "the entries of u s reach 10, in steps of 0.08 to 0.1"
    assert (whole.search, found.search) == ("bisection", "bayesian")


def test_the_same_entries_in_another_order_cost_more_where_they_had_structure():
    """Low rank is what the sweep and the Bayesian search find; the histogram of the entries is the same."""
    matrix = gaussian(100, 3) @ gaussian(3, 80, seed=1)
    mixed = np.random.default_rng(2).permutation(matrix.ravel()).reshape(matrix.shape)
    costs = {}
    for search in ("bisection", "sweep", QUICK):
        models = [Weights(one, stiffness=5 / matrix.size) for one in (matrix, mixed)]
        costs[search] = [description_bits(model, model.loss, search=search).bits for model in models]
    assert costs["bisection"][0] == pytest.approx(costs["bisection"][1], rel=0.1), "all but blind to the order"
    assert costs["sweep"][0] < 0.4 * costs["sweep"][1] and costs[QUICK][0] < 0.6 * costs[QUICK][1]
    assert costs["sweep"][0] < 1.15 * costs[QUICK][0]


class Hollow:
    """A problem of closed form: 1,000 bits at one place of (log Δ, τ), more around it; nothing holds at τ > 0.8."""

    largest, naive_bits = 1.0, 10**6

    def __init__(self, ever=True):
        self.ever, self.tried = ever, []

    def holds(self, delta, tau):
        self.tried.append((delta, tau))
        return self.ever and tau is not None and tau <= 0.8

    def bits(self, delta, tau):
        assert self.holds(delta, tau), "a description that does not hold has no length"
        place = math.log(delta / 1e-3) / math.log(1e3)
        return int(1000 * math.exp(8 * ((place - 0.72) ** 2 + (tau - 0.31) ** 2)))


def test_the_bayesian_search_closes_in_on_the_shortest_description():
    """Fifteen points are chosen; 27 random ones come as near, within 0.4 % of the square, one time in ten."""
    for seed in range(2):
        problem = Hollow()
        found = Bayesian(seed=seed, iterations=15)(problem)
        assert found is not None and found.tau is not None
        assert problem.bits(found.delta, found.tau) < 1010


class Terrace(Hollow):
    """Unfactored, Δ up to 0.1 holds; factored, from τ = 0.63 on, Δ up to 0.04: bits grow with τ and with 1/Δ."""

    def holds(self, delta, tau):
        self.tried.append((delta, tau))
        return delta <= 0.1 if tau is None else self.ever and tau >= 0.63 and delta <= 0.04

    def bits(self, delta, tau):
        return int(1e5 * (1 if tau is None else tau) * math.log2(1 / delta))


def test_the_sweep_finds_the_least_share_and_its_coarsest_step():
    problem = Terrace()
    found = Sweep()(problem)
    assert found is not None and found.tau is not None
    assert 0.63 <= found.tau < 0.63 + 0.0126, "shares 0.0125 apart are tried about the best"
    assert 0.04 * 2 ** (-1 / 8) <= found.delta <= 0.04, "an octave halved three times"
    assert len(problem.tried) < 90


def test_a_share_that_never_holds_costs_the_sweep_one_question():
    alone, problem = Terrace(), Terrace(ever=False)
    first, found = Bisection()(alone), Sweep(shares=(0.9, 0.5, 0.0))(problem)
    assert found == first and found is not None and found.tau is None
    assert problem.tried == alone.tried + [(found.delta / 32, tau) for tau in (0.9, 0.5, 0.0)]


def test_factors_that_hold_and_cost_more_are_not_taken():
    class Dear(Terrace):
        def bits(self, delta, tau):
            return 10 ** (5 if tau is None else 6)

    assert Sweep()(Dear()) == Bisection()(Dear())


def test_a_share_may_hold_at_a_coarser_step_than_no_factors():
    class Coarse(Terrace):
        def holds(self, delta, tau):
            self.tried.append((delta, tau))
            return delta <= (0.1 if tau is None else 0.19)

    found = Sweep(shares=(0.5,), closer=())(Coarse())
    assert found is not None and found.tau == 0.5 and 0.19 * 2 ** (-1 / 8) <= found.delta <= 0.19


def test_a_search_repeats_itself_by_its_seed():
    first, second, other = Hollow(), Hollow(), Hollow()
    for problem, seed in ((first, 1), (second, 1), (other, 2)):
        Bayesian(seed=seed, iterations=2)(problem)
    assert first.tried == second.tried != other.tried


def test_a_search_that_finds_nothing_gives_nothing():
    assert Bisection()(Hollow()) is None
    assert Sweep()(Hollow()) is None
    assert Bayesian(iterations=2)(Hollow(ever=False)) is None


def test_no_search_ends_above_the_bisection():
    model = Weights(gaussian(40, 30), gaussian(30, seed=3), stiffness=1e-2)
    cheap = description_bits(model, model.loss)
    found = description_bits(model, model.loss, search=Bayesian(seed=4, iterations=5))
    assert found.bits <= cheap.bits and found.evaluations == cheap.evaluations + 2 + 10 + 5
    assert description_bits(model, model.loss, search="sweep").bits <= cheap.bits


def test_random_answers_learnt_by_heart_cost_more_than_a_rule():
    """A small classifier of 128 points, to a loss below 0.05 nats: a half-space, or answers at random."""
    points = torch.as_tensor(gaussian(128, 10), dtype=torch.float32)
    rule, heart = (points.sum(1) > 0).long(), torch.as_tensor(np.random.default_rng(1).integers(0, 2, 128))
    costs = []
    for answers in (rule, heart):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
        for _ in range(200):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(points), answers)
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.05

        def now(model=model, answers=answers):
            return float(functional.cross_entropy(model(points), answers))

        costs.append(description_bits(model, now, epsilon=0.25).bits)
    assert costs[1] > 2 * costs[0]


# --- what is compared, what comes back ----------------------------------------------------------------------------


def test_the_loss_is_that_of_the_decoded_weights():
    model = Weights(gaussian(30, 20), gaussian(7, seed=1), stiffness=0.05)
    found = description_bits(model, model.loss)
    for one in model.seen[-1]:
        assert torch.equal(one, (one.double() / found.delta).round().mul(found.delta).float())
    assert found.loss_compressed == 2 + 0.05 * sum(
        float((one - start).double().square().sum()) for one, start in zip(model.seen[-1], model.start, strict=True)
    )
    code = WeightCode([one.double().numpy() for one in model.start])
    assert found.bits == 8 * len(bz2.compress(code.packed(code.codes(found.delta))))
    assert found.evaluations == len(model.seen) and model.unchanged()


def test_a_loss_that_falls_is_allowed_on_one_side_only():
    """Weights of 0 have loss 2 and the model 12: two-sided, the loss must stay; one-sided, nothing is kept of it."""
    model = Weights(np.zeros(500), stiffness=1e-2)
    with torch.no_grad():
        model.list[0].copy_(torch.as_tensor(math.sqrt(2) * gaussian(500)))
    two, one = (description_bits(model, model.loss, epsilon=0.5, one_sided=side) for side in (False, True))
    assert abs(two.loss_compressed - two.loss) < 0.5 and two.bits > 500
    assert one.loss_compressed == 2 and one.bits < 600 and one.one_sided


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_after_any_interruption(interruption, dtype):
    model = Weights(gaussian(30, 20), gaussian(7, seed=1), stiffness=0.05, dtype=dtype)

    def loss():
        if len(model.seen) == 4:
            assert not model.unchanged()
            raise interruption("stop")
        return model.loss()

    with pytest.raises(interruption, match="stop"):
        description_bits(model, loss)
    assert model.unchanged() and model.list[0].dtype == dtype


def test_a_loss_that_is_not_a_number_never_holds():
    model = Weights(gaussian(50), stiffness=0.0)
    found = description_bits(model, lambda: 1.0 if bool(model.list[0].any()) else math.nan)
    assert found.delta < 2 * float(model.start[0].abs().max()) and found.bits > 0


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"epsilon": 0.0}, ValueError, "epsilon is 0.0 and must be above 0 nats"),
        ({"search": "genetic"}, KeyError, "no search named 'genetic'; known are 'bisection', 'sweep', 'bayesian'"),
        ({"coders": ("rar",)}, KeyError, "no coder of weights named 'rar'; known are 'bz2', 'xz', 'zstd'"),
        ({"coders": ()}, ValueError, "coders is empty and a description needs at least one"),
        ({"loss": lambda: math.inf}, ValueError, "the loss of the model is inf, which nothing is within ε of"),
        ({"model": nn.ReLU()}, ValueError, "a description needs at least one weight and the model has none"),
        ({"model": Weights([1.0, math.nan])}, ValueError, "a weight of the model is not finite"),
        (
            {"loss": itertools.count().__next__, "search": Bisection(octaves=2)},
            ValueError,
            r"no rounding that search 'bisection' tried keeps the loss 0 within epsilon = 1 nats",
        ),
        (
            {"loss": iter([2.0, 2.0, 9.0]).__next__},
            RuntimeError,
            "the decoded weights have loss 9 and the model 2, .* take out dropout",
        ),
    ],
)
def test_what_has_no_description_is_refused_in_a_sentence(change, error, sentence):
    model = Weights(gaussian(10))
    given_settings = {"model": model, "loss": model.loss, **change}
    with pytest.raises(error, match=sentence):
        description_bits(**given_settings)


def test_a_step_too_fine_for_four_bytes_is_refused():
    code = WeightCode([np.array([1.0])])
    with pytest.raises(ValueError, match=r"a step of 1e-12 leaves integers beyond 4 bytes for weights as large as 1;"):
        code.packed(code.codes(1e-12))
