"""Linear mapping number: functions whose number is known, a slow twin, and the models themselves."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.grokking.linear_mapping import linear_mapping_number, mapping_between

PAIRS = np.arange(7).repeat(7), np.tile(np.arange(7), 7)


def random_points(n: int = 12, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=generator), torch.randn(n, dim, generator=generator)


def model(kind: Literal["transformer", "quadratic_mlp"], seed: int = 0) -> ArithmeticForCausalLM:
    config = ArithmeticConfig(
        elements=7, architecture=kind, hidden_size=16, num_attention_heads=2, intermediate_size=24
    )
    return ArithmeticForCausalLM(config).initialise(seed)


def number_of(shares: list[float]) -> float:
    """2^entropy of these shares."""
    p = np.array(shares) / sum(shares)
    return float(np.exp2(-(p * np.log2(p)).sum()))


def test_a_linear_map_has_the_number_one():
    weight = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    found = mapping_between(lambda left, right: torch.cat([left, right], 1) @ weight + 5, *random_points())
    assert found.value == pytest.approx(1, abs=1e-3), "float32: 66 pairs of r² off 1 by some 1e-7 each"
    assert found.points == 12 and found.entropy_bits == pytest.approx(np.log2(found.value))


def test_a_constant_output_is_linear():
    found = mapping_between(lambda left, right: 0 * left[:, :3] + torch.tensor([1e3, -0.1, 0.0]), *random_points())
    assert found.value == pytest.approx(1) and (found.linearity == 1).all()
    trembling = mapping_between(lambda left, right: 1e3 + 6e-5 * left[:, :3].sign(), *random_points())
    assert trembling.value == pytest.approx(1), "the last bit of a float32 is no change"


def clusters(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    left = torch.eye(len(sizes)).repeat_interleave(torch.tensor(sizes), 0)
    return left, torch.randn(left.shape, generator=torch.Generator().manual_seed(2))


def length(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(1 − λ)² + λ² between clusters, symmetric about the middle and so uncorrelated with λ; constant within one."""
    return left.square().sum(1, keepdim=True)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_clusters_are_counted(k):
    assert mapping_between(length, *clusters([4] * k)).value == pytest.approx(k, rel=1e-6)


def test_unequal_clusters_count_by_their_shares():
    assert mapping_between(length, *clusters([6, 2, 1])).value == pytest.approx(number_of([6, 2, 1]), rel=1e-6)


def test_points_that_have_nothing_linear_between_them_are_all_counted():
    found = mapping_between(length, *clusters([1] * 9))
    assert found.value == pytest.approx(9, rel=1e-6), "as many as there are points, the most there can be"


def test_two_points_by_hand():
    """y = λ² over λ = 0, ½, 1: covariance 1/6, variances 1/6 and 13/72, r² = 12/13; L has the eigenvalues 1 ± r²."""
    ends = torch.tensor([[0.0], [1.0]])
    found = mapping_between(lambda left, right: left * right, ends, ends, lambdas=3)
    assert found.linearity[0, 1] == pytest.approx(12 / 13)
    assert found.value == pytest.approx(number_of([25 / 13, 1 / 13]))


@pytest.mark.parametrize("kind", ["transformer", "quadratic_mlp"])
def test_a_model_has_the_number_of_a_slow_twin(kind):
    """As the paper writes it: one line after the other, one output after the other, in float64."""
    net = model(kind).double()
    with torch.no_grad():
        found = linear_mapping_number(net, *PAIRS, points=6, lambdas=5, seed=3)
        rows = np.sort(np.random.default_rng(3).permutation(49)[:6])
        left, right = net.embedded(*(torch.from_numpy(side[rows]) for side in PAIRS))
        linearity = np.eye(6)
        for i, j in np.argwhere(~np.eye(6, dtype=bool)):
            path = [
                net.answer_logits_from((1 - t) * left[[i]] + t * left[[j]], (1 - t) * right[[i]] + t * right[[j]])
                for t in np.linspace(0, 1, 5)
            ]
            outputs = torch.cat(path).T.numpy()
            linearity[i, j] = np.mean([np.corrcoef(np.linspace(0, 1, 5), one)[0, 1] ** 2 for one in outputs])
    np.testing.assert_allclose(found.linearity, linearity, rtol=1e-9)
    weights = np.abs(np.linalg.eigvals(linearity))
    assert found.value == pytest.approx(number_of(list(weights)), rel=1e-6)
    assert 1 < found.value < 6


class TwoOutputs:
    """The first output is linear between embeddings, the second, as that of a token that is no answer, is not."""

    def embedded(self, left, right):
        return torch.eye(7)[left], torch.eye(7)[right]

    def answer_logits_from(self, left_vectors, right_vectors):
        return torch.cat([left_vectors[:, :1] + right_vectors[:, :1], length(left_vectors, right_vectors)], 1)


def test_only_the_first_outputs_count_where_others_are_no_answers():
    def value(outputs):
        return linear_mapping_number(TwoOutputs(), *PAIRS, points=20, outputs=outputs).value

    assert value(1) == pytest.approx(1, abs=1e-3) and value(2) == value(None) > 1.1


def test_the_output_of_the_equals_sign_can_be_left_out_of_a_model():
    net = model("transformer")
    rows = np.sort(np.random.default_rng(0).permutation(49)[:10])
    with torch.no_grad():
        vectors = net.embedded(*(torch.from_numpy(side[rows]) for side in PAIRS))
        assert net.answer_logits_from(*vectors).shape[1] == 8, "seven elements and the equals sign"
    cut = mapping_between(lambda *two: net.answer_logits_from(*two)[:, :7], *vectors)
    found = linear_mapping_number(net, *PAIRS, points=10, outputs=7)
    assert found.value == cut.value != linear_mapping_number(net, *PAIRS, points=10).value


def test_pieces_of_the_work_do_not_matter(monkeypatch):
    whole = linear_mapping_number(model("transformer"), *PAIRS, points=20)
    monkeypatch.setattr("infocomp.grokking.linear_mapping.ROWS_AT_ONCE", 100)
    pieces = linear_mapping_number(model("transformer"), *PAIRS, points=20)
    assert pieces.value == pytest.approx(whole.value, rel=1e-4)


def test_the_seed_chooses_the_points_and_all_are_taken_where_there_are_fewer():
    net = model("transformer")
    first, again, other = (linear_mapping_number(net, *PAIRS, points=10, seed=seed).value for seed in (0, 0, 1))
    assert first == again != other
    assert linear_mapping_number(net, *PAIRS, points=60).points == 49


@pytest.mark.parametrize("seed", range(5))
def test_the_number_lies_between_one_and_the_points(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 4))
    left, right = random_points()
    found = mapping_between(lambda a, b: net(torch.cat([a, b], 1) * 10.0 ** (seed - 2)), left, right)
    assert 1 <= found.value <= 12
    assert (np.diag(found.linearity) == 1).all() and (found.linearity == found.linearity.T).all()
    assert found.linearity.min() >= 0 and found.linearity.max() <= 1


def test_more_bent_functions_have_higher_numbers():
    left, right = random_points()
    values = [mapping_between(lambda a, b, s=s: torch.sin(s * (a + b)), left, right).value for s in (0.01, 0.5, 5.0)]
    assert values == sorted(values) and values[0] < 1.01 and values[-1] > 4


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: linear_mapping_number(model("transformer"), *PAIRS, points=1),
            "points must lie between 2 and 200.*got 1",
        ),
        (lambda: linear_mapping_number(model("transformer"), *PAIRS, points=201), "between 2 and 200.*got 201"),
        (lambda: mapping_between(length, torch.zeros(1, 2), torch.zeros(1, 2)), r"at least two points, got \[1, 2\]"),
        (lambda: mapping_between(length, torch.zeros(3, 2), torch.zeros(4, 2)), r"got \[3, 2\] and \[4, 2\]"),
        (lambda: mapping_between(length, *random_points(), lambdas=2), "lambdas must be at least 3 .* got 2"),
        (
            lambda: linear_mapping_number(model("transformer"), *PAIRS, outputs=9),
            "outputs must lie between 1 and the 8 of the model, got 9",
        ),
        (lambda: linear_mapping_number(model("transformer"), *PAIRS, outputs=0), "the 8 of the model, got 0"),
        (lambda: mapping_between(lambda a, b: 1 / (0 * a), *random_points()), "those of point 0 are not"),
        (
            lambda: mapping_between(lambda a, b: 1 / (a + 0.5), torch.tensor([[0.0], [-1.0]]), torch.zeros(2, 1)),
            "those between points 0 and 1 are not",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
