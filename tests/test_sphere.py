"""Temperature, anchors and assignments against closed forms and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.special import iv

from infocomp.estimators.sphere import SoftAssigner, divergence_from_uniform, draw_anchors, exact_temperature

# ε at m = 100, from the exact solution KL(vMF(1/ε) ‖ uniform) = log 100
PUBLISHED = {
    2: 0.000231119, 3: 0.00735759, 8: 0.0480787, 64: 0.0370495, 512: 0.0143677,
    2048: 0.00725661, 8192: 0.00363748, 16384: 0.00257317,
}  # fmt: skip


@pytest.mark.parametrize("dim", PUBLISHED)
def test_temperature_solves_the_divergence_equation(dim):
    temperature = exact_temperature(dim, 100)
    assert temperature == pytest.approx(PUBLISHED[dim], rel=3e-6)
    tolerance = 1e-8 if dim == 2 else 1e-9
    assert divergence_from_uniform(1 / temperature, dim) == pytest.approx(math.log(100), rel=tolerance)


@pytest.mark.parametrize(("dim", "concentration"), [(2, 0.5), (3, 4.0), (8, 20.0), (64, 27.0)])
def test_divergence_equals_the_bessel_form_where_that_does_not_overflow(dim, concentration):
    order = dim / 2 - 1
    mean = iv(order + 1, concentration) / iv(order, concentration)
    log_0f1 = math.log(iv(order, concentration)) + math.lgamma(dim / 2) - order * math.log(concentration / 2)
    assert divergence_from_uniform(concentration, dim) == pytest.approx(concentration * mean - log_0f1, rel=1e-9)


def test_divergence_in_three_dimensions_has_its_elementary_form():
    concentration = 500.0  # KL = κ·coth κ − 1 − log(sinh κ / κ), and sinh κ = e^κ / 2 to machine precision here
    expected = concentration - 1 - (concentration - math.log(2) - math.log(concentration))
    assert divergence_from_uniform(concentration, 3) == pytest.approx(expected, rel=1e-10)


def test_one_dimension_or_one_bin_is_refused():
    with pytest.raises(ValueError, match=r"dim must be at least 2 .*got 1"):
        exact_temperature(1, 100)
    with pytest.raises(ValueError, match=r"bins must be at least 2, got 1"):
        exact_temperature(8, 1)


def test_anchors_are_unit_vectors_in_float64_and_more_draws_keep_the_first():
    few, many = draw_anchors(16, 10, 2, seed=3), draw_anchors(16, 10, 4, seed=3)
    assert many.dtype == torch.float64
    assert torch.equal(few, many[:2])
    assert torch.allclose(many.norm(dim=2), torch.ones(4, 10, dtype=torch.float64), atol=1e-14)
    assert not torch.equal(many[0], many[1])


def test_anchors_are_the_same_on_every_machine():
    # the first numbers of NumPy's PCG64 for the seed sequence (0, 0), normalised: written down once
    normal = np.random.default_rng([0, 0]).standard_normal((2, 3))
    assert np.allclose(draw_anchors(3, 2, 1, 0)[0], normal / np.linalg.norm(normal, axis=1, keepdims=True))


def test_assignment_by_hand_on_the_circle():
    anchors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    assign = SoftAssigner(anchors, temperature=0.5)
    assignments, entropies = assign(torch.tensor([[3.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    first = 1 / (1 + math.exp(-2))  # softmax of (1/0.5, 0)
    assert assignments[0, 0].tolist() == pytest.approx([first, 1 - first], rel=1e-12)
    assert assignments[1, 0].tolist() == pytest.approx([0.5, 0.5], rel=1e-12)
    assert entropies[1, 0].item() == pytest.approx(math.log(2), rel=1e-12)
    assert entropies[0, 0].item() == pytest.approx(-first * math.log(first) - (1 - first) * math.log(1 - first))


@pytest.mark.parametrize("dim", [2, 64, 2048])
def test_entropies_of_rows_equal_those_of_their_assignments_also_where_one_bin_takes_all(dim):
    generator = torch.Generator().manual_seed(0)
    anchors = draw_anchors(dim, 50, 3, seed=0)
    rows = torch.randn(40, dim, generator=generator)
    rows[:10] = anchors[0, :10].float() * 7  # right on an anchor
    assignments, entropies = SoftAssigner(anchors, exact_temperature(dim, 50))(rows)
    slow = torch.special.entr(assignments.double()).sum(dim=2)
    assert torch.allclose(entropies.double(), slow, atol=2e-6)


def test_length_of_a_row_does_not_matter_and_its_centre_does():
    anchors = draw_anchors(8, 20, 1, seed=0)
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = SoftAssigner(anchors, 0.1)
    assert torch.allclose(plain(rows)[0], plain(rows * 1000)[0], atol=1e-12)
    centre = torch.full((8,), 5.0, dtype=torch.float64)
    assert torch.allclose(SoftAssigner(anchors, 0.1, centre)(rows + centre)[0], plain(rows)[0], atol=1e-12)


@pytest.mark.parametrize(
    ("value", "sentence"), [(0.0, "is zero and has no direction"), (float("nan"), "NaN"), (float("inf"), "NaN or inf")]
)
def test_a_row_without_a_direction_is_refused_by_number(value, sentence):
    rows = torch.ones(4, 8)
    rows[2] = value
    with pytest.raises(ValueError, match=rf"row 2 of 4.*{sentence}"):
        SoftAssigner(draw_anchors(8, 5, 1, 0), 0.1)(rows)


def test_rows_of_another_width_and_flat_anchors_are_refused():
    with pytest.raises(ValueError, match=r"rows must be \[rows, 8\], got \(4, 7\)"):
        SoftAssigner(draw_anchors(8, 5, 1, 0), 0.1)(torch.ones(4, 7))
    with pytest.raises(ValueError, match=r"anchors must be \[draws, bins, dim\], got 2 axes"):
        SoftAssigner(torch.ones(5, 8), 0.1)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SoftAssigner(torch.ones(1, 5, 8), 0.0)


def outlying(dtype, size, seed=3):
    """Rows of which `size` times as much lies along three directions, their centre, and the directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(256, 3, generator=generator, dtype=torch.float64)).Q
    centre = torch.randn(256, generator=generator, dtype=torch.float64)
    rows = torch.randn(200, 256, generator=generator, dtype=torch.float64)
    rows[::2] += size * torch.randn(100, 3, generator=generator, dtype=torch.float64) @ directions.T * 16
    return (rows + centre).to(dtype), centre, directions


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 2.0, 100.0])
def test_removed_directions_give_what_projected_rows_give(dtype, tolerance, size):
    """The fused product against projecting every row in float64; at size 100 |z|² − |Vᵀz|² cancels to 3e-5 of |z|²,
    and a row of float32 is itself that much coarser: there the measure is what projecting in the row's own type gives.
    """
    rows, centre, directions = outlying(dtype, size)
    anchors, temperature = draw_anchors(256, 50, 2, 0), exact_temperature(256, 50)
    away = rows.double() - centre
    naive = SoftAssigner(anchors, temperature)(away - away @ directions @ directions.T)
    if size == 100.0:
        plain = rows - centre.to(dtype)
        plain = plain - (plain @ directions.to(dtype)) @ directions.to(dtype).T
        tolerance += 2 * float((SoftAssigner(anchors, temperature)(plain)[0] - naive[0]).abs().max())
    before = rows.clone()
    fused = SoftAssigner(anchors, temperature, centre, directions)(rows)
    for one, other in zip(fused, naive, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).abs().max() <= tolerance
    SoftAssigner(anchors, temperature, directions=directions)(rows)
    assert torch.equal(rows, before)
    turned = directions @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q  # only the span matters
    again = SoftAssigner(anchors, temperature, centre, turned)(rows)[0]
    assert (again.double() - naive[0]).abs().max() <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_within_the_removed_directions_is_refused_by_number(dtype):
    rows, _, directions = outlying(dtype, 1.0)
    assign = SoftAssigner(draw_anchors(256, 5, 1, 0), 0.1, directions=directions)
    rows[7] = (directions @ torch.tensor([3.0, -20.0, 0.5], dtype=torch.float64)).to(dtype)
    with pytest.raises(ValueError, match=r"row 7 of 200 lies within the removed directions and has none of its own \("):
        assign(rows)
    rows[7] = 0
    with pytest.raises(ValueError, match=r"row 7 of 200 is zero and has no direction"):
        assign(rows)
    rows[7] = float("nan")
    with pytest.raises(ValueError, match=r"row 7 of 200 holds NaN"):
        assign(rows)


@pytest.mark.parametrize("shape", [(7, 2), (8, 7), (8, 0), (8,)])
def test_directions_of_another_width_or_too_many_are_refused(shape):
    sentence = r"^directions must be \[8, k\] with k from 1 to 6 \(a direction needs a circle that is left\), got \["
    with pytest.raises(ValueError, match=sentence):
        SoftAssigner(draw_anchors(8, 5, 1, 0), 0.1, directions=torch.zeros(shape))


@pytest.mark.parametrize("directions", [torch.ones(8, 1), torch.zeros(8, 2), torch.full((8, 1), float("nan"))])
def test_directions_that_are_not_orthonormal_are_refused(directions):
    with pytest.raises(ValueError, match=r"^directions must be orthonormal columns, and VᵀV is off the identity by "):
        SoftAssigner(draw_anchors(8, 5, 1, 0), 0.1, directions=directions)
