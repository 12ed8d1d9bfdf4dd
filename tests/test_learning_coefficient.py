"""Learning coefficients of losses whose draws are known step by step, by both samplers."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from infocomp.grokking.learning_coefficient import (
    LearningCoefficient,
    Sampling,
    learning_coefficient,
    learning_coefficient_by_devinterp,
)

ROWS = 100


class Valley(nn.Module):
    """Loss 3 + ½ Σ h_i (w_i − c_i)² nats, at its minimum c."""

    def __init__(self, curvatures):
        super().__init__()
        self.curvatures = torch.as_tensor(curvatures, dtype=torch.float32)
        self.centre = torch.linspace(-1, 1, len(self.curvatures))
        self.weights = nn.Parameter(self.centre.clone())

    def loss(self):
        return self()

    def forward(self):
        return 3 + 0.5 * (self.curvatures * (self.weights - self.centre).square()).sum()


def known(curvatures, sampling, rows=ROWS):
    """E λ̂ and its standard error: each weight is an autoregressive Gaussian that starts at the minimum.

    With V = 1/(a (1 − εa/4)) and r = 1 − εa/2 its variance at step t is V_t = V (1 − r^2t), its covariance with step
    s > t is r^(s − t) V_t, and Cov(x_t², x_s²) = 2 Cov(x_t, x_s)².
    """
    n_beta = sampling.n_beta(rows)
    steps = np.arange(sampling.burn_in, sampling.burn_in + sampling.draws)
    value, variance = 0.0, 0.0
    for curvature, count in zip(*np.unique(curvatures[curvatures > 0], return_counts=True), strict=True):
        strength = n_beta * curvature + sampling.localization
        factor = 1 - sampling.step_size * strength / 2
        spread = (1 - factor ** (2 * steps)) / (strength * (1 - sampling.step_size * strength / 4))
        value += count * 0.5 * n_beta * curvature * spread.mean()
        apart, first = np.abs(steps[:, None] - steps), np.minimum(spread[:, None], spread)
        variance += count * (0.5 * n_beta * curvature) ** 2 * 2 * ((factor**apart * first) ** 2).mean()
    return value, math.sqrt(variance / sampling.chains)


def by_devinterp(model, sampling, seed=0, rows=ROWS):
    return learning_coefficient_by_devinterp(model, lambda copy, ids: copy().expand(len(ids)), rows, sampling, seed)


CURVATURES = np.repeat([0.0, 0.2, 0.5, 1.0, 2.0], 400)
SHORT = Sampling(chains=3, draws=40, burn_in=5, step_size=2e-2, localization=1.0)


@pytest.mark.parametrize(
    "sampling",
    [
        SHORT,
        Sampling(chains=3, draws=40, burn_in=60, step_size=5e-2, localization=0.0),
        Sampling(chains=2, draws=40, burn_in=10, step_size=5e-3, localization=30.0, inverse_temperature=0.5),
    ],
)
def test_a_quadratic_valley_has_the_value_that_its_draws_are_known_to_have(sampling):
    model = Valley(CURVATURES)
    found = learning_coefficient(model, model.loss, ROWS, sampling, seed=1)
    value, error = known(CURVATURES, sampling)
    assert found.value == pytest.approx(value, abs=4 * error) and error < 0.02 * value
    assert found.loss == 3 and found.trace.shape == (sampling.chains, sampling.draws + sampling.burn_in)


def test_the_temperature_is_that_of_lau_et_al_unless_it_is_given():
    assert Sampling().n_beta(1392) == pytest.approx(1392 / 7.238497, rel=1e-6)
    assert Sampling(inverse_temperature=0.5).n_beta(1392) == 696


def test_long_chains_of_small_steps_count_half_the_directions_that_curve():
    """1600 of 2000 weights move the loss: without a pull the value is 800, within its error and its step's bias."""
    sampling = Sampling(chains=2, draws=400, burn_in=300, step_size=1e-2, localization=0.0)
    value, error = known(CURVATURES, sampling)
    assert value == pytest.approx(800, rel=0.06), "the bias of this step and length alone"
    model = Valley(CURVATURES)
    assert learning_coefficient(model, model.loss, ROWS, sampling).value == pytest.approx(value, abs=4 * error)


def test_the_interval_is_students_over_chains_and_drift_tells_chains_that_still_climb():
    model = Valley(np.ones(500))
    climbing = learning_coefficient(model, model.loss, ROWS, Sampling(3, 20, 0, 1e-3, 0.0))
    settled = learning_coefficient(model, model.loss, ROWS, Sampling(3, 40, 60, 5e-2, 0.0))
    assert climbing.drift is not None and settled.drift is not None
    assert climbing.drift > 0.5 * climbing.value and abs(settled.drift) < 0.1 * settled.value
    chains = np.array(settled.by_chain)
    half = 4.302653 * chains.std(ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom at 97.5 %
    assert (settled.low, settled.high) == pytest.approx((chains.mean() - half, chains.mean() + half))
    alone = learning_coefficient(model, model.loss, ROWS, Sampling(1, 1, 10))
    assert alone.low is None and alone.high is None and alone.drift is None


def test_a_direction_without_a_gradient_moves_and_costs_nothing():
    model = Valley(np.ones(300))
    model.unused = nn.Parameter(torch.zeros(1000))
    found = learning_coefficient(model, model.loss, ROWS, SHORT)
    value, error = known(np.ones(300), SHORT)
    assert found.value == pytest.approx(value, abs=4 * error)


def test_a_slope_gives_a_negative_value_that_is_kept():
    model = nn.Linear(1, 1, bias=False)
    found = learning_coefficient(model, lambda: 5 * model.weight.sum(), ROWS, Sampling(1, 20, 5, 1e-3, 1.0))
    assert found.value < 0


def test_the_seed_fixes_the_draws():
    model = Valley(np.ones(20))
    first, second, other = (learning_coefficient(model, model.loss, ROWS, SHORT, seed) for seed in (1, 1, 2))
    assert first.value == second.value != other.value


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_weights_and_gradients_are_left_as_they_were(interruption):
    model = Valley(np.ones(20))
    model.loss().backward()
    gradient, before, calls = model.weights.grad, model.weights.detach().clone(), []

    def loss():
        calls.append(model.weights.detach().clone())
        if len(calls) == 7:
            raise interruption("stop")
        return model.loss()

    with pytest.raises(interruption, match="stop"):
        learning_coefficient(model, loss, ROWS, SHORT)
    assert torch.equal(model.weights.detach(), before) and model.weights.grad is gradient
    assert not torch.equal(calls[-1], before)
    with torch.no_grad():
        learning_coefficient(model, model.loss, ROWS, SHORT)
    assert torch.equal(model.weights.detach(), before) and model.weights.grad is gradient


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: Sampling(chains=0), ValueError, "chains of the sampling is 0 and must be above 0; the defaults are"),
        (lambda: Sampling(burn_in=-1), ValueError, "burn_in of the sampling is -1 and must be at least 0"),
        (lambda: Sampling(inverse_temperature=0.0), ValueError, "inverse_temperature of the sampling is 0.0 and must"),
        (lambda: run(rows=1), ValueError, r"rows is 1, and β = 1/ln n needs at least 2 rows"),
        (lambda: run(scale=math.nan), ValueError, "the loss at the model's weights is nan"),
        (lambda: run(frozen=True), ValueError, "no parameter of the model asks for a gradient"),
        (
            lambda: run(scale=1e3, sampling=Sampling(1, 100, 0, 0.1, 0.0)),
            FloatingPointError,
            r"diverged at step_size 0\.1: the loss is (inf|nan) after \d+ steps; take a smaller step_size",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def run(rows=ROWS, scale=1.0, frozen=False, sampling=SHORT):
    model = Valley(np.ones(10))
    model.weights.requires_grad_(not frozen)
    return learning_coefficient(model, lambda: scale * model.loss(), rows, sampling)


# --- devinterp ----------------------------------------------------------------------------------------------------


def test_without_devinterp_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "devinterp.slt.sampling", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"by devinterp needs a package .* pip install 'infocomp\[devinterp\]'"
    ):
        by_devinterp(Valley(np.ones(3)), SHORT)


def numpy_state():
    return np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002


def test_devinterp_draws_the_same_law_and_leaves_no_trace(capfd):
    pytest.importorskip("devinterp")
    sampling = Sampling(chains=2, draws=8, burn_in=4, step_size=2e-2, localization=1.0)
    model, rows = Valley(CURVATURES), 20
    before, state, numbers = model.weights.detach().clone(), torch.get_rng_state(), numpy_state().copy()
    found = by_devinterp(model, sampling, rows=rows)
    value, error = known(CURVATURES, sampling, rows)
    assert isinstance(found, LearningCoefficient)
    assert found.value == pytest.approx(value, abs=4 * error) and error < 0.03 * value
    assert found.loss == 3 and found.trace.shape == (2, 12) and np.all(found.trace[:, 0] == 3)
    assert torch.equal(model.weights.detach(), before) and torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(numpy_state(), numbers)
    assert capfd.readouterr() == ("", "")


def test_a_chain_of_devinterp_that_diverges_is_an_error():
    pytest.importorskip("devinterp")
    with pytest.raises(
        FloatingPointError, match=r"diverged at step_size 5: .*Chain 0 failed: Loss is NaN or Inf; take"
    ):
        by_devinterp(Valley(np.full(10, 1e4)), Sampling(1, 100, 0, 5.0, 0.0), rows=10)
