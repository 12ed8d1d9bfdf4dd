"""The information bottleneck curve of a discrete joint: reverse annealing, restarts, exchange between betas. Bits.

Two ways, chosen by size. Small alphabets: all betas and restarts at once, float64, then each beta is given the
encoder of any other beta that does better there, until none does. Corpora: beta falls from the largest one, each
starts from the last one's encoder, in float32; what is reported, and whether a point has converged, is computed in
float64 from the encoders.

Because a point (I_X, I_Y) that was reached at one beta can be had at all, its Lagrangian I_X − β I_Y is an upper bound
on the optimum at every β: that finds local optima, and is the reason for the exchange.

Sources: Tishby, Pereira & Bialek (1999), physics/0004057; restarts and acceleration in `initial` and `fixed_point`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from infocomp.bottleneck.curve import CONVERGED, NOT_CONVERGED, Curve
from infocomp.bottleneck.fixed_point import Coordinates, coordinates
from infocomp.bottleneck.initial import LARGEST_GREEDY, greedy_merging, identity, k_means, random_encoder, soften
from infocomp.bottleneck.iteration import COARSE, FINE, Limits, iterate
from infocomp.bottleneck.joint import Joint, check_betas
from infocomp.units import BITS_PER_NAT

LARGEST_BATCH = 500_000  # numbers in a tensor [x, betas × restarts, t]: all at once below, annealed above
SOFT_START, SOFT_WARM = 0.02, 1e-6
EXCHANGES = 6
SWEEPS = 3  # exchanges of an annealed curve, down and up in turn: what one beta found may serve both its sides
WORTH_A_RUN = 1e-3  # bits
WORTH = 1e-9  # nats by which another beta's encoder must be better


def solve(
    joint: Joint,
    betas: ArrayLike | Tensor,
    clusters: int | None = None,
    *,
    restarts: int = 2,
    seed: int = 0,
    limits: Limits | None = None,
    keep_encoders: bool = False,
) -> Curve:
    """The bottleneck curve at the given betas; |T| = |X| unless `clusters` says otherwise.

    ValueError: a beta that is not above 0, fewer than 1 cluster, fewer than 2 restarts.
    """
    asked = check_betas(betas, joint.p_x.device)
    clusters = joint.sizes[0] if clusters is None else clusters
    check_counts(clusters, restarts)
    if joint.sizes[0] * len(asked) * restarts * clusters <= LARGEST_BATCH:
        return solve_at_once(joint, asked, clusters, restarts, seed, limits or FINE, keep_encoders=keep_encoders)
    return anneal(joint, asked, clusters, restarts, seed, limits or COARSE, keep_encoders=keep_encoders)


def check_counts(clusters: int, restarts: int) -> None:
    """ValueError for fewer than 1 cluster or 2 restarts."""
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1; it is {clusters}")
    if restarts < 2:
        raise ValueError(f"restarts must be at least 2, so that their spread is known; it is {restarts}")


def solve_at_once(
    joint: Joint,
    betas: Float[Tensor, "b"],
    clusters: int,
    restarts: int = 2,
    seed: int = 0,
    limits: Limits = FINE,
    alpha: float = 1.0,
    starts: Sequence[Float[Tensor, "x t"]] | None = None,
    keep_encoders: bool = False,
) -> Curve:
    """Every beta from every start in one batch, then the exchange; `starts` replace the usual ones."""
    softness = SOFT_START if alpha > 0 else 0.0
    first = [soften(q, softness) for q in (starts or usual_starts(joint, clusters, restarts, seed))]
    b, r = len(betas), len(first)
    settled = iterate(joint, torch.stack(first, 1).repeat_interleave(b, 1), betas.repeat(r), alpha, limits)
    found = coordinates(joint, settled.q)
    reached = found.lagrangian(betas.repeat(r), alpha).view(r, b)
    pick = reached.argmin(0) * b + torch.arange(b, device=betas.device)
    state = _State(settled.q[:, pick], settled.steps[pick], settled.last_change[pick], settled.converged[pick])
    spread = (reached.amax(0) - reached.amin(0)) * BITS_PER_NAT
    for _ in range(EXCHANGES):
        if not _exchange(joint, state, betas, alpha, limits, softness):
            break
    at, encoders = coordinates(joint, state.q), state.q if keep_encoders else None
    return _curve(joint, at, betas, clusters, spread, state.steps, state.last_change, state.converged, encoders, alpha)


def anneal(
    joint: Joint,
    betas: Float[Tensor, "b"],
    clusters: int,
    restarts: int = 2,
    seed: int = 0,
    limits: Limits = COARSE,
    keep_encoders: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Curve:
    """From the largest beta down, warm starts, one path a restart, then the exchange; iterated in `dtype`."""
    fast, exact = joint.to(dtype=dtype), joint.to(dtype=torch.float64)
    order = torch.argsort(betas, descending=True).tolist()
    best: dict[int, _Point] = {}
    worst = torch.full((len(betas),), -torch.inf, dtype=torch.float64)
    for start in usual_starts(exact, clusters, restarts, seed):
        q = soften(start.to(dtype), SOFT_START)[:, None]
        for index in order:
            point = _certified(fast, exact, soften(q, SOFT_WARM), betas[index : index + 1], limits)
            q = point.q
            worst[index] = max(float(worst[index]), point.lagrangian)
            if index not in best or point.lagrangian < best[index].lagrangian:
                best[index] = point
    lowest = torch.tensor([best[index].lagrangian for index in range(len(betas))], dtype=torch.float64)
    spread = (worst - lowest) * BITS_PER_NAT
    for sweep in range(SWEEPS):
        changed = False
        for index in order if sweep % 2 == 0 else order[::-1]:
            offers = {j: point.complexity - float(betas[index]) * point.relevance for j, point in best.items()}
            giver = min(offers, key=lambda j: offers[j])
            if offers[giver] < best[index].lagrangian - WORTH_A_RUN / BITS_PER_NAT:
                point = _certified(fast, exact, soften(best[giver].q, SOFT_WARM), betas[index : index + 1], limits)
                best[index] = min(point, best[index], key=lambda found: found.lagrangian)
                changed = True
        if not changed:
            break
    points = [best[index] for index in range(len(betas))]

    def every(name: str) -> Tensor:
        return torch.tensor([getattr(point, name) for point in points], dtype=torch.float64)

    at = Coordinates(every("complexity"), every("relevance"), every("entropy"))
    encoders = torch.cat([point.q for point in points], 1) if keep_encoders else None
    changes = every("last_change")
    steps = every("steps").long()
    return _curve(exact, at, betas, clusters, spread, steps, changes, changes < limits.tolerance, encoders)


def usual_starts(joint: Joint, clusters: int, restarts: int, seed: int) -> list[Float[Tensor, "x t"]]:
    """Identity where |T| ≥ |X|, else greedy merging or k-means; further ones from other seeds."""
    size = joint.sizes[0]
    if clusters >= size:
        return [identity(joint, clusters), *(random_encoder(joint, clusters, seed + i) for i in range(restarts - 1))]
    if size <= LARGEST_GREEDY:
        return [greedy_merging(joint, clusters), *(k_means(joint, clusters, seed + i) for i in range(restarts - 1))]
    return [k_means(joint, clusters, seed + i) for i in range(restarts)]


@dataclass
class _State:
    q: Tensor
    steps: Tensor
    last_change: Tensor
    converged: Tensor


@dataclass(frozen=True)
class _Point:
    q: Tensor
    steps: int
    last_change: float
    lagrangian: float
    complexity: float
    relevance: float
    entropy: float


def _certified(fast: Joint, exact: Joint, q: Tensor, beta: Tensor, limits: Limits) -> _Point:
    """Iterate in the fast joint's dtype until one more window moves the Lagrangian, taken in float64, too little."""
    at, steps = beta.to(q.dtype), 0
    window = replace(limits, steps=limits.window + 2)
    while True:
        settled = iterate(fast, q, at, 1.0, replace(limits, steps=limits.steps - steps))
        before = float(coordinates(exact, settled.q).lagrangian(beta)[0])
        after = iterate(fast, settled.q, at, 1.0, window)
        found = coordinates(exact, after.q)
        lagrangian = float(found.lagrangian(beta)[0])
        q, steps = after.q, steps + int(settled.steps[0]) + int(after.steps[0])
        moved = abs(before - lagrangian) * BITS_PER_NAT
        if moved < limits.tolerance or steps >= limits.steps:
            break
    numbers = (found.complexity, found.relevance, found.entropy)
    return _Point(q, steps, moved, lagrangian, *(float(value[0]) for value in numbers))


def _exchange(joint: Joint, state: _State, betas: Tensor, alpha: float, limits: Limits, softness: float) -> bool:
    """Give each beta the best encoder found at any other, or the constant one, and iterate from there."""
    found = coordinates(joint, state.q)
    now = found.lagrangian(betas, alpha)
    offers = (1 - alpha) * found.entropy + alpha * found.complexity - betas[:, None] * found.relevance
    offer, giver = offers.min(1)
    constant = offer.minimum(now) > 0
    state.q[:, constant] = 1.0 / state.q.shape[-1]
    if alpha == 0:
        state.q[:, constant] = torch.eye(state.q.shape[-1], dtype=state.q.dtype, device=betas.device)[0]
    state.last_change[constant], state.converged[constant] = 0.0, True
    better = torch.nonzero((offer < now - WORTH) & ~constant)[:, 0]
    if not len(better):
        return False
    settled = iterate(joint, soften(state.q[:, giver[better]], softness), betas[better], alpha, limits)
    reached = coordinates(joint, settled.q).lagrangian(betas[better], alpha)
    kept = reached < now[better]
    where = better[kept]
    state.q[:, where] = settled.q[:, kept]
    state.steps[where] += settled.steps[kept]
    state.last_change[where], state.converged[where] = settled.last_change[kept], settled.converged[kept]
    return bool(kept.any())


def _curve(
    joint: Joint,
    at: Coordinates,
    betas: Tensor,
    clusters: int,
    spread: Tensor,
    steps: Tensor,
    last_change: Tensor,
    converged: Tensor,
    encoders: Tensor | None,
    alpha: float = 1.0,
) -> Curve:
    lagrangian = at.lagrangian(betas.to(at.entropy.device), alpha)
    return Curve(
        betas=_numpy(betas),
        complexity=_numpy(at.complexity) * BITS_PER_NAT,
        relevance=_numpy(at.relevance) * BITS_PER_NAT,
        lagrangian=_numpy(lagrangian) * BITS_PER_NAT,
        status=tuple(CONVERGED if settled else NOT_CONVERGED for settled in converged.tolist()),
        iterations=_numpy(steps),
        last_change=_numpy(last_change),
        restart_spread=_numpy(spread),
        clusters=clusters,
        sizes=joint.sizes,
        kind="bound" if clusters >= joint.sizes[0] and alpha == 1 else "achievable",
        alpha=alpha,
        encoders=encoders,
    )


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
