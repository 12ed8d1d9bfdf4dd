"""The deterministic bottleneck and what lies between it and the bottleneck. Bits.

The Lagrangian is H(T) − α H(T|X) − β I(T; Y): α = 1 is the bottleneck, α = 0 the deterministic one, whose encoder
t*(x) = argmax_t [log p(t) − β KL(p(y|x) ‖ p(y|t))] is a hard clustering. Source: Strouse & Schwab (2017),
arXiv 1604.00268.

Hard clusterings have very many local optima. For |X| ≤ 6 every partition is a start, so the answer is exact; beyond
that the starts are all clusters apart, greedy merging to every number of clusters, and random ones.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import one_hot

from infocomp.bottleneck.blahut_arimoto import check_counts, solve_at_once, usual_starts
from infocomp.bottleneck.curve import CONVERGED, Curve
from infocomp.bottleneck.fixed_point import coordinates
from infocomp.bottleneck.initial import LARGEST_GREEDY, greedy_merging, k_means
from infocomp.bottleneck.iteration import FINE, Limits
from infocomp.bottleneck.joint import Joint, check_betas
from infocomp.units import BITS_PER_NAT

EVERY_PARTITION = 6  # 203 partitions
MERGED = 16  # numbers of clusters that greedy merging starts from, at most


def solve_deterministic(
    joint: Joint,
    betas: ArrayLike | Tensor,
    clusters: int | None = None,
    *,
    alpha: float = 0.0,
    restarts: int = 2,
    seed: int = 0,
    limits: Limits = FINE,
    keep_encoders: bool = False,
) -> Curve:
    """The curve of the generalised bottleneck at the given betas; at α = 0 `complexity` is H(T) as well as I(X; T).

    ValueError: alpha outside 0 to 1, a beta that is not above 0, fewer than 1 cluster or 2 restarts.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie from 0 (deterministic) to 1 (the bottleneck); it is {alpha:g}")
    asked = check_betas(betas, joint.p_x.device)
    clusters = joint.sizes[0] if clusters is None else clusters
    check_counts(clusters, restarts)
    starts = hard_starts(joint, clusters, restarts, seed)
    if alpha > 0:
        starts += usual_starts(joint, clusters, restarts, seed)
    return solve_at_once(
        joint, asked, clusters, restarts, seed, limits, alpha=alpha, starts=starts, keep_encoders=keep_encoders
    )


def hard_starts(joint: Joint, clusters: int, restarts: int, seed: int) -> list[Float[Tensor, "x t"]]:
    """Hard encoders to start from: every partition for |X| ≤ 6, else greedy merging (k-means for large |X|), random."""
    size, device = joint.sizes[0], joint.p_x.device
    if size <= EVERY_PARTITION:
        labels = [torch.tensor(found, device=device) for found in partitions(size) if max(found) < clusters]
        return [one_hot(found, clusters).to(torch.float64) for found in labels]
    most = min(clusters, size)
    counts = sorted({round(float(count)) for count in np.geomspace(1, most, MERGED)})
    if size <= LARGEST_GREEDY:
        starts = [_wider(greedy_merging(joint, count), clusters) for count in counts]
    else:
        starts = [k_means(joint, most, seed)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(restarts):
        labels = torch.randint(clusters, (size,), generator=generator).to(device)
        starts.append(one_hot(labels, clusters).to(torch.float64))
    return starts


def partitions(size: int) -> list[list[int]]:
    """Every partition of `size` things, as labels in order of first use: 1, 2, 5, 15, 52, 203 of them."""
    found: list[list[int]] = [[0]]
    for _ in range(size - 1):
        found = [[*labels, label] for labels in found for label in range(max(labels) + 2)]
    return found


def deterministic_y(joint: Joint, points: int = 101) -> Curve:
    """The whole bound of a joint with Y = f(X), min(I_X, H(Y)), at `points` complexities from 0 to H(X).

    Its betas are 1 up to the corner and infinite beyond it. ValueError where some x has more than one y.
    """
    left = joint.joint_entropy - joint.entropy_x
    if left > 1e-9:
        raise ValueError(f"Y must be a function of X for this closed form; H(Y|X) is {left:.6g} bits: use solve")
    complexity = np.linspace(0.0, joint.entropy_x, points)
    relevance = np.minimum(complexity, joint.entropy_y)
    zeros = np.zeros(points)
    return Curve(
        betas=np.where(complexity <= joint.entropy_y, 1.0, np.inf),
        complexity=complexity,
        relevance=relevance,
        lagrangian=complexity - relevance,
        status=(CONVERGED,) * points,
        iterations=np.zeros(points, dtype=np.int64),
        last_change=zeros,
        restart_spread=zeros,
        clusters=joint.sizes[0] + 1,
        sizes=joint.sizes,
        kind="bound",
    )


def hard_point(joint: Joint, labels: ArrayLike) -> tuple[float, float]:
    """(H(T), I(T; Y)) in bits of one hard clustering, `labels` a cluster for each x."""
    found = torch.as_tensor(np.asarray(labels), dtype=torch.long, device=joint.p_x.device)
    if found.shape != joint.p_x.shape:
        raise ValueError(f"labels must have one cluster for each x; shape {tuple(found.shape)}, |X| {joint.sizes[0]}")
    at = coordinates(joint, one_hot(found).to(torch.float64)[:, None])
    return float(at.entropy[0]) * BITS_PER_NAT, float(at.relevance[0]) * BITS_PER_NAT


def _wider(q: Float[Tensor, "x t"], clusters: int) -> Float[Tensor, "x t"]:
    return torch.nn.functional.pad(q, (0, clusters - q.shape[1]))
