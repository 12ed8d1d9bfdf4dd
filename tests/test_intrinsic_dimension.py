"""TwoNN against cubes, a torus and its own law; rows that occur twice; errors over documents."""

import numpy as np
import pytest

from infocomp.estimators.numbers import quantile
from infocomp.geometry.intrinsic_dimension import distinct_rows, fitted_dimension, intrinsic_dimension, log_ratios


@pytest.mark.parametrize(("dim", "expected", "within"), [(2, 1.98, 0.15), (5, 4.8, 0.3), (10, 8.7, 0.5)])
def test_cubes_in_64_dimensions_have_their_dimension(dim, expected, within):
    """2,000 points: se about 3 % of d; the edges, near everywhere in ten dimensions, take off the rest."""
    generator = np.random.default_rng(dim)
    axes = np.linalg.qr(generator.standard_normal((64, 64)))[0][:dim]
    found = intrinsic_dimension(generator.random((2000, dim)) @ axes + 3.0)
    assert found.value == pytest.approx(expected, abs=within) and found.value < dim + within
    assert (found.quantity, found.unit, found.n, found.ceiling) == ("intrinsic_dimension", "count", 2000, 64)


def test_a_torus_without_edges_has_three_dimensions():
    angles = np.random.default_rng(0).random((3000, 3)) * 2 * np.pi
    found = intrinsic_dimension(np.hstack([np.cos(angles), np.sin(angles)]))
    assert found.value == pytest.approx(3.0, abs=0.25), "se 1/sqrt(3000) of 3 and what the fit adds"


def test_ratios_drawn_from_the_law_give_its_exponent():
    logs = np.sort(np.random.default_rng(1).exponential(1 / 7.0, 100_000))
    assert fitted_dimension(logs) == pytest.approx(7.0, rel=0.015)
    logs[-9_000:] = 50.0
    assert fitted_dimension(logs) == pytest.approx(7.0, rel=0.015), "the largest tenth has no say"


def test_neighbours_are_those_of_all_distances():
    rows = np.random.default_rng(2).standard_normal((700, 9)) + 1000.0
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    two = np.sort(distances, axis=1)[:, :2]
    logs, near = log_ratios(rows)
    assert logs == pytest.approx(np.log(two[:, 1] / two[:, 0]), rel=1e-9)
    assert (near == np.argsort(distances, axis=1)[:, :2]).all()


def test_distances_that_a_matrix_product_rounds_away_are_exact():
    """Twins 1e-8 apart: their squared distance of 1e-16 is below the rounding of ‖x‖² + ‖y‖² − 2xy."""
    generator = np.random.default_rng(6)
    rows = generator.standard_normal((200, 9))
    rows[1::2] = rows[::2] + 1e-8 * generator.standard_normal((100, 9))
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    two = np.sort(distances, axis=1)[:, :2]
    logs, near = log_ratios(rows)
    assert (near[:, 0] == np.arange(200) + 1 - 2 * (np.arange(200) % 2)).all()
    assert logs == pytest.approx(np.log(two[:, 1] / two[:, 0]), rel=1e-6)


def test_rows_that_occur_again_enter_once():
    rows = np.random.default_rng(3).random((400, 3))
    again = np.vstack([rows, rows[:150], rows[:20]])
    documents = np.arange(570) // 10
    assert (distinct_rows(again) == np.arange(400)).all()
    found, plain = intrinsic_dimension(again, documents), intrinsic_dimension(rows)
    assert found.value == plain.value and found.n == 400
    assert found.message == "170 rows that occurred before left out"
    assert found.influence is not None and len(found.influence["value"]) == 57, "one for every document there is"


def test_too_few_rows_are_refused():
    found = intrinsic_dimension(np.random.default_rng(4).random((31, 3)))
    assert found.value is None and found.status == "refused"
    assert found.message == "31 distinct rows; 32 are needed for a line through their ratios."
    assert intrinsic_dimension(np.ones((100, 3))).n == 1
    lattice = intrinsic_dimension(np.eye(40), np.arange(40))
    assert lattice.value is None and lattice.status == "refused"
    assert lattice.message == "the two nearest rows of all that are fitted are equally far: their ratios have no line."


def test_bad_rows_and_documents_are_told():
    rows = np.random.default_rng(5).random((50, 3))
    with pytest.raises(ValueError, match=r"documents has shape \(4,\), rows \(50, 3\): one document a row is needed"):
        intrinsic_dimension(rows, np.zeros(4, dtype=int))
    rows[7, 1] = np.inf
    with pytest.raises(ValueError, match=r"1 of 50 rows are not finite; find where the model overflows"):
        intrinsic_dimension(rows)


@pytest.mark.parametrize("effect", [0.0, 3.0])
def test_two_halves_of_the_documents_have_the_same_dimension_nearly_always(effect):
    inside, differences, errors = [], [], []
    for draw in range(50):
        generator = np.random.default_rng(draw)
        shared = effect * generator.standard_normal((48, 1, 5))
        rows = (shared + generator.standard_normal((48, 16, 5))).reshape(-1, 5)
        documents = np.repeat(np.arange(48), 16)
        half = documents % 2 == 0
        one, other = (intrinsic_dimension(rows[side], documents[side]) for side in (half, ~half))
        differences.append(one.value - other.value)
        errors.append(np.hypot(one.std_error, other.std_error))
        inside.append(abs(differences[-1]) <= quantile(47) * errors[-1])
        assert abs(one.influence["value"].sum()) < 1e-9
    assert np.mean(inside) >= 0.85, "binomial around 0.95, 50 draws, 3 standard errors"
    assert 0.75 < np.std(differences) / np.mean(errors) < 1.25, "the error is the spread"
