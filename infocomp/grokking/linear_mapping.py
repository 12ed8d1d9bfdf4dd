"""Linear mapping number: how many linear pieces a network needs for its inputs; a count between 1 and the points.

Source: Liu, Zhong and Tegmark (2023), arXiv 2310.05918. For every pair of inputs the hidden state moves in a straight
line from one to the other, h(λ) = (1 − λ) h_i + λ h_j, and L_ij is the mean over outputs of the squared correlation of
y_k(h(λ)) with λ: 1 where the network is linear between both. With the absolute eigenvalues of L divided by their sum,
S = −Σ λ̃ log2 λ̃ and the number is 2^S: 1 for a linear network, as many as there are clusters where inputs fall into
equal ones within which it is linear and between which it is uncorrelated with λ.

The hidden state here is the pair of token embeddings (of the left and the right input, without position), both moved
along together, and the outputs are the logits (`outputs` leaves that of "=" out). An output that does not change along
a line is linear there (L = 1; the correlation is 0/0): a constant network has the number 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_POINTS = 200
LAMBDAS = 21
CONSTANT = 1e-6  # of the largest output: float32 arithmetic moves a constant output by no more
ROWS_AT_ONCE = 4096
Outputs = Callable[[Float[Tensor, "rows dim"], Float[Tensor, "rows dim"]], Float[Tensor, "rows outputs"]]


class Embeds(Protocol):
    """A model of two inputs that shows their embeddings and answers from such embeddings."""

    def embedded(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]: ...

    def answer_logits_from(self, left_vectors: Tensor, right_vectors: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class LinearMapping:
    """`value` is the linear mapping number, `entropy_bits` its log2; `linearity` is L, one row and column a point.

    The least possible value is 1, the largest `points`.
    """

    value: float
    entropy_bits: float
    points: int
    linearity: Float[np.ndarray, "points points"] = field(repr=False, compare=False)


def linear_mapping_number(
    model: Embeds,
    left: Int[np.ndarray, "pairs"],
    right: Int[np.ndarray, "pairs"],
    points: int = 100,
    lambdas: int = LAMBDAS,
    seed: int = 0,
    outputs: int | None = None,
) -> LinearMapping:
    """The number of a model over `points` of these inputs, drawn without replacement (all, if there are fewer).

    outputs: how many of the model's logits count, the first ones, as the elements of an arithmetic task, behind which
    "=" and the operator follow; None is all. Cost: points² / 2 · (lambdas − 2) forward passes of one position.
    ValueError: fewer than 2 or more than 200 points, or outputs that the model does not have.
    """
    if not 2 <= points <= MOST_POINTS:
        raise ValueError(
            f"points must lie between 2 and {MOST_POINTS} (the cost is their square), got {points}; 100 is usual"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(left))[:points])
    with torch.no_grad():
        vectors = model.embedded(torch.as_tensor(left[chosen]), torch.as_tensor(right[chosen]))

    def counted(*embeddings: Tensor) -> Tensor:
        logits = model.answer_logits_from(*embeddings)
        if outputs is not None and not 1 <= outputs <= logits.shape[1]:
            raise ValueError(
                f"outputs must lie between 1 and the {logits.shape[1]} of the model, got {outputs}; give the number of "
                "its elements, or None for all"
            )
        return logits[:, :outputs]

    return mapping_between(counted, *vectors, lambdas=lambdas)


def mapping_between(
    outputs: Outputs,
    left: Float[Tensor, "points dim"],
    right: Float[Tensor, "points dim"],
    lambdas: int = LAMBDAS,
) -> LinearMapping:
    """The number of any function of two vectors over given points; equally spaced λ from 0 to 1, both ends included.

    ValueError: fewer than 2 points, fewer than 3 λ, points that are not two for two, or outputs that are not finite.
    """
    if left.shape != right.shape or left.ndim != 2 or len(left) < 2:
        raise ValueError(
            "left and right must be [points, dim], the same and at least two points, "
            f"got {list(left.shape)} and {list(right.shape)}"
        )
    if lambdas < 3:
        raise ValueError(f"lambdas must be at least 3 (two values lie on a line always), got {lambdas}; 21 is usual")
    with torch.no_grad():
        linearity = _linearity(outputs, left, right, lambdas)
    if not np.isfinite(linearity).all():
        i, j = np.argwhere(~np.isfinite(linearity))[0]
        raise ValueError(
            f"outputs must be finite, those between points {i} and {j} are not; look for the diverged step"
        )
    weights = np.abs(np.linalg.eigvalsh(linearity))
    shares = weights[weights > 0] / weights.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    return LinearMapping(float(np.exp2(entropy)), entropy, len(left), linearity)


def _linearity(outputs: Outputs, left: Tensor, right: Tensor, lambdas: int) -> Float[np.ndarray, "points points"]:
    """L: symmetric, 1 on the diagonal. Ends of lines are computed once a point, inner places once a pair."""
    n = len(left)
    ends = outputs(left, right)
    if not bool(torch.isfinite(ends).all()):
        point = int((~torch.isfinite(ends).all(dim=1)).nonzero()[0])
        raise ValueError(f"outputs must be finite, those of point {point} are not; look for the diverged step")
    first, second = (torch.from_numpy(index) for index in np.triu_indices(n, 1))
    inner = torch.linspace(0, 1, lambdas, dtype=left.dtype)[1:-1].view(-1, 1, 1)
    centred = torch.linspace(-0.5, 0.5, lambdas, dtype=ends.dtype)
    at_once = max(1, ROWS_AT_ONCE // len(inner))
    found = []
    for start in range(0, len(first), at_once):
        i, j = first[start : start + at_once], second[start : start + at_once]
        between = [
            torch.lerp(vectors[i].unsqueeze(0), vectors[j].unsqueeze(0), inner).flatten(0, 1)
            for vectors in (left, right)
        ]
        path = torch.cat([ends[i].unsqueeze(0), outputs(*between).view(len(inner), len(i), -1), ends[j].unsqueeze(0)])
        found.append(_squared_correlation(path, centred).mean(dim=1).double())
    linearity = torch.eye(n, dtype=torch.float64)
    linearity[first, second] = linearity[second, first] = torch.cat(found)
    return linearity.numpy()


def _squared_correlation(
    path: Float[Tensor, "lambdas pairs outputs"], centred: Float[Tensor, "lambdas"]
) -> Float[Tensor, "pairs outputs"]:
    """r² of every output with λ; 1 for an output that stays where it is."""
    largest = path.abs().amax(dim=0)
    path = path - path.mean(dim=0)
    total = path.square().sum(dim=0)
    along = torch.tensordot(centred, path, dims=1).square() / centred.square().sum()
    still = total <= len(path) * (CONSTANT * largest).square()
    return torch.where(still, torch.ones_like(total), along / total.where(~still, torch.ones_like(total))).clamp(max=1)
