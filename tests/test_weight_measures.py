"""Size and spectra of weights against matrices whose singular values are known."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn

from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.grokking.weight_measures import (
    effective_rank,
    gaussian_spectrum_entropy,
    spectrum_entropy,
    weight_norm,
    weight_spectra,
)


def turned(singular: list[float], rows: int, columns: int) -> np.ndarray:
    """A matrix with these singular values and random directions."""
    generator = np.random.default_rng(0)
    left, right = (np.linalg.qr(generator.normal(size=(n, n)))[0] for n in (rows, columns))
    return left[:, : len(singular)] @ np.diag(singular) @ right[: len(singular)]


def test_entropy_and_rank_of_known_singular_values():
    assert effective_rank(turned([5, 5, 5, 5], 6, 9)) == pytest.approx(4)
    assert effective_rank(turned([2], 6, 9)) == pytest.approx(1)
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert spectrum_entropy(turned([3, 1], 6, 9)) == pytest.approx(expected), (
        "normalised by their sum, not their squares"
    )
    assert spectrum_entropy(np.array([[3.0, 0], [0, 1]])) == pytest.approx(expected)


def test_scale_and_transposition_do_not_matter():
    matrix = np.random.default_rng(1).normal(size=(7, 12))
    assert spectrum_entropy(1e-6 * matrix) == pytest.approx(spectrum_entropy(matrix))
    assert spectrum_entropy(matrix.T) == pytest.approx(spectrum_entropy(matrix))


def test_a_matrix_of_zeros_has_no_spectrum_and_is_left_out_of_the_mean():
    assert effective_rank(np.zeros((3, 4))) is None
    found = weight_spectra({"zero": np.zeros((3, 4)), "flat": np.eye(5)})
    assert found["zero"].effective_rank is None and found["zero"].ceiling == 3
    assert found["mean"].effective_rank == pytest.approx(5) and found["mean"].ceiling == 5
    nothing = weight_spectra({"zero": np.zeros((3, 4))})["mean"]
    assert nothing.effective_rank is None and nothing.entropy_nats is None


def test_the_mean_is_over_matrices():
    found = weight_spectra({"flat": np.eye(4), "thin": turned([1.0], 8, 8)})
    assert list(found) == ["flat", "thin", "mean"]
    assert found["mean"].effective_rank == pytest.approx(2.5) and found["mean"].ceiling == 6
    assert found["mean"].entropy_nats == pytest.approx(np.log(4) / 2)
    nulls = [found[name].null_effective_rank for name in ("flat", "thin")]
    assert found["mean"].null_effective_rank == pytest.approx(np.mean(nulls))


def test_the_null_is_that_of_the_quarter_circle():
    """Singular values of a square Gaussian matrix have density √(4 − s²)/π on [0, 2] and mean 8/3π."""
    mean = 8 / (3 * np.pi)
    lost = quad(lambda s: np.sqrt(4 - s * s) / np.pi * s / mean * np.log(s / mean), 1e-12, 2)[0]
    assert gaussian_spectrum_entropy(150, 150) == pytest.approx(np.log(150) - lost, abs=0.01), "bulk known to 1/n"
    assert gaussian_spectrum_entropy(20, 50) == gaussian_spectrum_entropy(50, 20)


def test_random_weights_read_as_their_null_and_low_rank_ones_below_it():
    matrix = np.random.default_rng(2).normal(size=(40, 60))
    found = weight_spectra({"random": matrix, "product": matrix[:, :5] @ matrix[:5]})
    assert found["random"].effective_rank == pytest.approx(found["random"].null_effective_rank, rel=0.03), (
        "two draws, 0.6 % each"
    )
    product = found["product"]
    assert product.effective_rank is not None and product.effective_rank < 5 < product.null_effective_rank


def test_a_model_is_measured_whatever_its_precision():
    config = ArithmeticConfig(elements=7, hidden_size=16, intermediate_size=24, num_attention_heads=2)
    model = ArithmeticForCausalLM(config).initialise(0)
    found = weight_spectra(model.weight_matrices())
    assert set(found) == {*model.weight_matrices(), "mean"}
    assert all(one.effective_rank is not None and one.effective_rank <= one.ceiling for one in found.values())
    assert weight_norm(model) == pytest.approx(
        sum(float(p.detach().square().sum()) for p in model.parameters()), rel=1e-5
    )
    half = weight_spectra(model.bfloat16().weight_matrices())
    assert half["mean"].effective_rank == pytest.approx(found["mean"].effective_rank, rel=0.01)


def test_the_weight_norm_is_squared_and_counts_a_shared_parameter_once():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=True)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        second.bias.copy_(torch.tensor([0.0, 5.0]))
    second.weight = first.weight
    assert weight_norm(nn.Sequential(first, second)) == 1 + 4 + 9 + 16 + 25


def test_sums_are_float64():
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e4], [1.0]]))
    assert weight_norm(model) == 1e8 + 1, "float32 would lose the 1"


@pytest.mark.parametrize(
    ("matrices", "sentence"),
    [
        ({}, "need matrices by name"),
        ({"mean": np.eye(2)}, "none of them 'mean'"),
        ({"bias": np.ones(3)}, r"bias: a spectrum needs a matrix \[rows, columns\], got shape \(3,\)"),
        ({"lost": np.array([[np.nan, 1.0]])}, "lost: a spectrum needs finite entries"),
    ],
)
def test_what_has_no_spectrum_is_refused_in_a_sentence(matrices, sentence):
    with pytest.raises(ValueError, match=sentence):
        weight_spectra(matrices)


def test_a_diverged_model_has_no_norm():
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="parameter bias must be finite, its squared norm is nan"):
        weight_norm(model)
