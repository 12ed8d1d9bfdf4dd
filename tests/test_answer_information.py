"""Exact informations of enumerated inputs: activations with known answers, a slow twin, the bound on random tables."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.estimators.sphere import SoftAssigner, draw_anchors, exact_temperature
from infocomp.grokking.answer_information import SiteInformation, answer_information, bound_bits
from infocomp.grokking.tasks import ArithmeticTask, entropy_bits, split_pairs

TASK = ArithmeticTask("addition", 11)
LABELS = {"answer": TASK.answer, "left": TASK.left, "right": TASK.right}
ALL = {"all": np.arange(121)}
SPLIT = split_pairs(TASK, 0.4, seed=0)
SIDES = {"train": SPLIT.train, "test": SPLIT.test}


def one_hot(values: np.ndarray) -> torch.Tensor:
    return torch.eye(11, dtype=torch.float64)[torch.from_numpy(values)]


def values_of(found: list[SiteInformation], rows: str = "all") -> dict[str, float]:
    """Bits by quantity and label of one population."""
    named = {(one.estimate.label or one.estimate.quantity): one.estimate.value for one in found if one.rows == rows}
    return {name: value for name, value in named.items() if value is not None}


def noisy(seed: int = 0, dim: int = 8) -> torch.Tensor:
    return torch.randn(121, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_shows_the_answer_alone_keeps_nothing_else_of_the_input():
    every = answer_information({"answer": one_hot(TASK.answer)}, LABELS, ALL)
    quantities = [(one.estimate.quantity, one.estimate.label) for one in every if one.estimate.label]
    assert quantities == [("expressivity", "answer"), ("complexity", "left"), ("complexity", "right")]
    answer = next(one.estimate for one in every if one.estimate.label == "answer")
    assert answer.null is not None and answer.value is not None and answer.null < 0.5 * answer.value, "shuffled"
    found = values_of(every)
    assert found["answer"] == pytest.approx(found["context_complexity"]) and found["answer"] > 1
    assert found["left"] == pytest.approx(0, abs=1e-9), "of all pairs, the sum tells nothing of one summand"
    assert found["right"] == pytest.approx(0, abs=1e-9)


def test_what_shows_the_left_input_alone_knows_nothing_of_the_answer():
    found = values_of(answer_information({"left": one_hot(TASK.left)}, LABELS, ALL))
    assert found["left"] == pytest.approx(found["context_complexity"])
    assert found["answer"] == pytest.approx(0, abs=1e-9) and found["right"] == pytest.approx(0, abs=1e-9)


def test_constant_activations_hold_nothing():
    found = values_of(answer_information({"same": torch.ones(121, 4)}, LABELS, ALL))
    assert found.pop("entropy") > 0
    assert max(map(abs, found.values())) < 1e-5, "float32"


def test_the_numbers_are_those_of_the_joint_law():
    """A slow twin: p(x, j) = Σ over inputs with x of A_j(input)/n, in float64, draw by draw."""
    rows = SPLIT.train
    assign = SoftAssigner(draw_anchors(8, 20, 3, seed=5), exact_temperature(8, 20))
    table = assign(noisy()[rows])[0].numpy()
    found = values_of(answer_information({"site": noisy()}, LABELS, SIDES, bins=20, draws=3, seed=5), "train")
    for name, labels in LABELS.items():
        values = []
        for plane in table.transpose(1, 0, 2):
            joint = np.stack([plane[labels[rows] == x].sum(0) for x in np.unique(labels[rows])]) / len(rows)
            independent = joint.sum(1, keepdims=True) * joint.sum(0)
            values.append((joint * np.log2(joint / independent)).sum())
        assert found[name] == pytest.approx(np.mean(values), rel=1e-6)
    entropies = -(table * np.log2(table)).sum(2).mean(0)
    marginal = table.mean(0)
    context = -(marginal * np.log2(marginal)).sum(1) - entropies
    assert found["context_complexity"] == pytest.approx(context.mean(), rel=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 3.0]), st.integers(2, 40))
def test_no_representation_beats_the_bound(seed, signal, dim):
    """I(answer; J) ≤ min(I(context; J), H(answer)), whatever is planted; the same for both inputs."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(11, dim, generator=generator, dtype=torch.float64)
    activations = noisy(seed, dim) + signal * directions[torch.from_numpy(TASK.answer)]
    for one in answer_information({"site": activations}, LABELS, SIDES, bins=30, draws=2, seed=seed):
        estimate = one.estimate
        if not estimate.label:
            continue
        assert estimate.value is not None and estimate.ceiling is not None
        assert -1e-9 <= estimate.value <= estimate.ceiling + 1e-9
        if estimate.quantity == "expressivity":
            assert one.answer_entropy_bits == entropy_bits(TASK.answer[SIDES[one.rows]]) <= np.log2(11) + 1e-12
            assert estimate.ceiling <= one.answer_entropy_bits + 1e-9


def test_the_bound_is_the_smaller_of_what_is_kept_and_what_there_is_to_know():
    assert bound_bits(2.0, 3.4) == 2.0 and bound_bits(5.0, 3.4) == 3.4
    found = answer_information({"answer": 9 * one_hot(TASK.answer) + 0.01 * noisy(1, 11)}, LABELS, ALL, draws=1)
    by_name = {one.estimate.label or one.estimate.quantity: one for one in found}
    context, answer = by_name["context_complexity"].estimate.value, by_name["answer"]
    assert context is not None
    assert answer.estimate.ceiling == pytest.approx(bound_bits(context, answer.answer_entropy_bits))
    assert answer.answer_entropy_bits == pytest.approx(np.log2(11))


def test_train_and_test_are_populations_of_their_own():
    both = answer_information({"site": noisy()}, LABELS, SIDES)
    for name, rows in SIDES.items():
        alone = {label: values[rows] for label, values in LABELS.items()}
        found = answer_information({"site": noisy()[rows]}, alone, {"all": np.arange(len(rows))})
        assert values_of(found) == values_of(both, name)
    assert values_of(both, "train") != values_of(both, "test")
    assert {one.rows: one.estimate.n for one in both} == {"train": len(SPLIT.train), "test": len(SPLIT.test)}


def test_the_order_of_the_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(SPLIT.test)
    first, second = (
        values_of(answer_information({"s": noisy()}, LABELS, {"all": rows})) for rows in (SPLIT.test, order)
    )
    assert first == pytest.approx(second, rel=1e-9)


def test_the_null_is_the_mean_over_shuffled_labels_and_nothing_is_said_of_sampling():
    found = [one.estimate for one in answer_information({"s": noisy()}, LABELS, SIDES, draws=2) if one.rows == "test"]
    answer = next(one for one in found if one.label == "answer")
    generator, shuffled = np.random.default_rng(1), []
    for _ in range(60):
        labels = {"answer": generator.permutation(TASK.answer[SPLIT.test])}
        drawn = answer_information({"s": noisy()[SPLIT.test]}, labels, {"all": np.arange(len(SPLIT.test))}, draws=2)
        shuffled.append(values_of(drawn)["answer"])
    assert answer.null == pytest.approx(float(np.mean(shuffled)), abs=4 * float(np.std(shuffled))), "one more shuffle"
    assert np.std(shuffled) < 0.02 * np.mean(shuffled)
    assert answer.value is not None and answer.null is not None and answer.value == pytest.approx(answer.null, rel=0.1)
    for one in found:
        assert one.std_error is None and one.interval is None and one.point is None and one.draw_std is not None
        assert one.message == "exact: the 73 test inputs are all there are, so there is no sampling error"


def test_centring_takes_away_what_all_inputs_share():
    shifted = noisy() + 50
    raw, centred = (values_of(answer_information({"s": shifted}, LABELS, ALL, centred=flag)) for flag in (False, True))
    plain = values_of(answer_information({"s": noisy() - noisy().mean(0)}, LABELS, ALL))
    assert centred == pytest.approx(plain, rel=1e-6)
    assert raw["context_complexity"] < 0.1 * centred["context_complexity"]


def test_sites_of_a_model_are_measured_and_nothing_known_of_the_answer_before_training():
    config = ArithmeticConfig(elements=11, hidden_size=16, num_attention_heads=2, intermediate_size=24)
    model = ArithmeticForCausalLM(config).initialise(0)
    activations = model.answer_activations(torch.from_numpy(TASK.left), torch.from_numpy(TASK.right))
    found = answer_information(activations, LABELS, SIDES)
    assert len(found) == len(activations) * 2 * 5 and {one.estimate.status for one in found} == {"ok"}
    for one in found:
        if one.estimate.label == "answer":
            assert one.estimate.value is not None and one.estimate.null is not None
            assert one.estimate.value < 1.4 * one.estimate.null


def test_a_site_without_directions_is_refused_and_the_others_stay():
    dead = noisy().clone()
    dead[SPLIT.test[:2]] = 0
    found = answer_information({"dead": dead, "thin": noisy()[:, :1], "well": noisy()}, LABELS, SIDES)
    reasons = {(one.site, one.rows): one.estimate.message for one in found if one.estimate.status == "refused"}
    assert reasons["dead", "test"] == "2 of 73 rows are zero and have no direction"
    assert reasons["thin", "train"].startswith("rows of width 1 have no direction")
    assert ("dead", "train") not in reasons and ("well", "test") not in reasons
    refused = [one.estimate for one in found if (one.site, one.rows) == ("dead", "test")]
    kept = [one.estimate for one in found if (one.site, one.rows) == ("dead", "train")]
    assert {(one.quantity, one.label) for one in refused} == {(one.quantity, one.label) for one in kept}
    assert all(one.value is None for one in refused)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": {"left": TASK.left}}, "must name answer and may name left and right, got left"),
        ({"labels": LABELS | {"sum": TASK.left}}, "got answer, left, right, sum"),
        ({"labels": LABELS | {"left": TASK.left[:5]}}, "one entry a pair each, got {'answer': 121, 'left': 5"),
        ({"populations": {"train": np.arange(0)}}, "population train must list .* at least one, got 0"),
        ({"populations": {"test": np.array([0, 121])}}, "numbers from 0 to 120, at least one, got 2 from 0 to 121"),
        ({"activations": {"s": noisy()[:7]}}, r"activations of s must be \[121, dim\], .* got \[7, 8\]"),
        ({"activations": {"s": noisy() / 0}}, "activations of s must be finite"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        answer_information(**({"activations": {"s": noisy()}, "labels": LABELS, "populations": SIDES} | change))
