"""Operations against their definition, splits, and what is refused."""

import math
from itertools import permutations, product

import numpy as np
import pytest

from infocomp.grokking.tasks import ArithmeticTask, entropy_bits, next_prime, primitive_root, split_pairs

P = 13
DEFINED = {
    "addition": lambda a, b: (a + b) % P,
    "subtraction": lambda a, b: (a - b) % P,
    "multiplication": lambda a, b: a * b % P,
    "quadratic": lambda a, b: (a * a + a * b + b * b) % P,
}


@pytest.mark.parametrize("operation", DEFINED)
def test_answers_are_the_operations(operation):
    task = ArithmeticTask(operation, P)
    pairs = list(zip(task.left.tolist(), task.right.tolist(), strict=True))
    first = 1 if operation == "multiplication" else 0
    assert pairs == list(product(range(first, P), range(first, P)))
    assert task.answer.tolist() == [DEFINED[operation](a, b) for a, b in pairs]


def test_division_is_undone_by_multiplication():
    task = ArithmeticTask("division", P)
    assert len(task.left) == P * (P - 1) and task.right.min() == 1
    assert (task.answer * task.right % P == task.left).all()


def test_permutations_compose_as_functions():
    task = ArithmeticTask("permutation_composition", 4)
    every = list(permutations(range(4)))
    assert task.elements == 24 and len(task.left) == 24**2
    for a, b, c in zip(task.left[::37], task.right[::37], task.answer[::37], strict=True):
        assert every[c] == tuple(every[a][every[b][thing]] for thing in range(4))


def test_s5_has_120_elements_and_equally_frequent_answers():
    task = ArithmeticTask("permutation_composition", 5)
    assert task.elements == 120 and task.name == "permutation composition S5"
    assert (np.bincount(task.answer) == 120).all()
    assert not task.commutative and task.cyclic_order() is None


@pytest.mark.parametrize("operation", ["addition", "subtraction", "division"])
def test_the_answer_has_the_entropy_of_a_uniform_one(operation):
    assert ArithmeticTask(operation, P).answer_entropy_bits == pytest.approx(math.log2(P), abs=1e-12)


def test_products_without_zero_have_one_answer_less():
    assert ArithmeticTask("multiplication", P).answer_entropy_bits == pytest.approx(math.log2(P - 1), abs=1e-12)


def test_entropy_of_unequal_answers_is_their_own():
    assert entropy_bits(np.array([0, 0, 0, 1])) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert ArithmeticTask("quadratic", P).answer_entropy_bits < math.log2(P) - 1e-3


@pytest.mark.parametrize("operation", ["addition", "subtraction", "multiplication", "division"])
def test_answers_add_up_in_the_cyclic_order(operation):
    task = ArithmeticTask(operation, P)
    order = task.cyclic_order()
    place = {int(element): number for number, element in enumerate(order)}
    sign = -1 if operation in ("subtraction", "division") else 1
    for a, b, c in zip(task.left.tolist(), task.right.tolist(), task.answer.tolist(), strict=True):
        if a in place and b in place:
            assert place[c] == (place[a] + sign * place[b]) % len(order)


def test_primitive_roots_of_known_primes():
    assert [primitive_root(p) for p in (3, 7, 23, 41, 59, 97, 113)] == [2, 3, 5, 6, 2, 5, 3]


@pytest.mark.parametrize("mirror_pairs", ["apart", "together"])
@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9])
def test_a_split_takes_its_share_and_leaves_the_rest(mirror_pairs, fraction):
    task = ArithmeticTask("addition", P)
    split = split_pairs(task, fraction, seed=3, mirror_pairs=mirror_pairs)
    assert sorted([*split.train, *split.test]) == list(range(P * P))
    assert abs(len(split.train) - fraction * P * P) <= 2


def mirrored(task, split) -> int:
    """Test pairs whose mirror image is trained on."""
    train = {(int(task.left[row]), int(task.right[row])) for row in split.train}
    return sum((int(task.right[row]), int(task.left[row])) in train for row in split.test)


def test_mirror_pairs_are_kept_together_only_where_asked_for():
    task = ArithmeticTask("addition", P)
    assert mirrored(task, split_pairs(task, 0.4, 0, "together")) == 0
    assert mirrored(task, split_pairs(task, 0.4, 0, "apart")) > 20


def test_splits_follow_the_seed():
    task = ArithmeticTask("addition", P)
    assert (split_pairs(task, 0.3, 5).train == split_pairs(task, 0.3, 5).train).all()
    assert set(split_pairs(task, 0.3, 5).train) != set(split_pairs(task, 0.3, 6).train)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(ValueError, match=r"train_fraction must lie between 0 and 1 .* got"):
        split_pairs(ArithmeticTask("addition", P), fraction, 0)


def test_a_share_too_small_for_one_pair_is_refused():
    with pytest.raises(ValueError, match=r"0\.001 of 169 pairs leaves 0 to train on and 169 to test on"):
        split_pairs(ArithmeticTask("addition", P), 0.001, 0)


@pytest.mark.parametrize("operation", ["multiplication", "division"])
def test_a_composite_modulus_is_refused_where_a_field_is_needed(operation):
    with pytest.raises(ValueError, match=rf"{operation} modulo 15 needs a field, .* take a prime such as 17"):
        ArithmeticTask(operation, 15)
    assert ArithmeticTask("addition", 15).elements == 15


def test_other_tasks_that_there_are_not():
    with pytest.raises(ValueError, match=r"operation must be one of addition, .* got 'power'"):
        ArithmeticTask("power", 7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="modulus must lie between 2 and 1,024, got 1"):
        ArithmeticTask("addition", 1)
    with pytest.raises(ValueError, match="things permuted must lie between 2 and 6, got 7"):
        ArithmeticTask("permutation_composition", 7)
    with pytest.raises(ValueError, match="mirror_pairs must be apart or together, got 'near'"):
        split_pairs(ArithmeticTask("addition", 7), 0.5, 0, "near")  # type: ignore[arg-type]


def test_the_next_prime():
    assert [next_prime(number) for number in (2, 14, 59, 90)] == [2, 17, 59, 97]
