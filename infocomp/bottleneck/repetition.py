"""Points of a curve once more: other starts, ten times the steps. The spread says how far the curve may be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from infocomp.bottleneck.blahut_arimoto import SOFT_START, usual_starts
from infocomp.bottleneck.curve import Curve
from infocomp.bottleneck.fixed_point import coordinates
from infocomp.bottleneck.initial import identity, random_encoder, soften
from infocomp.bottleneck.iteration import Limits, iterate
from infocomp.bottleneck.joint import Joint
from infocomp.units import BITS_PER_NAT


@dataclass(frozen=True, eq=False)
class Repeated:
    """Bits; column 0 of each table is the curve's own point, the others are the repetitions."""

    betas: Float[np.ndarray, "k"]
    complexity: Float[np.ndarray, "k start"]
    relevance: Float[np.ndarray, "k start"]
    lagrangian: Float[np.ndarray, "k start"]
    steps: tuple[int, ...]
    last_change: Float[np.ndarray, "k start"]
    """By how many bits the Lagrangian of each repetition still moved over the last window of steps."""

    @property
    def spread(self) -> Float[np.ndarray, "k"]:
        """Largest minus smallest Lagrangian."""
        return np.ptp(self.lagrangian, axis=1)

    @property
    def relevance_spread(self) -> Float[np.ndarray, "k"]:
        """The spread of the Lagrangian as I(T; Y) at equal I(X; T), which is what a figure shows."""
        return self.spread / self.betas

    def lines(self) -> list[str]:
        """For the terminal."""
        return [
            f"beta {beta:7.3f}, {steps} steps: L {', '.join(f'{value:.5f}' for value in values)} bits, "
            f"spread {np.ptp(values):.5f}, of I(T;Y) {np.ptp(values) / beta:.5f}"
            for beta, steps, values in zip(self.betas, self.steps, self.lagrangian, strict=True)
        ]


def repeat_points(
    joint: Joint, curve: Curve, which: Sequence[int], starts: int = 2, seed: int = 1000, factor: int = 10
) -> Repeated:
    """Solve the points of these indices again, cold, from `starts` other starts, with `factor` times their steps.

    None of the steps is saved by a tolerance. Iterated in float32 where the curve was too large for float64, and
    evaluated in float64. ValueError: an index outside the curve, or a curve of another alpha than 1.
    """
    if curve.alpha != 1:
        raise ValueError(f"points of the bottleneck (alpha 1) can be repeated; this curve has alpha {curve.alpha:g}")
    if not which or max(which) >= len(curve.betas) or min(which) < 0:
        raise ValueError(f"which must hold indices from 0 to {len(curve.betas) - 1}; it is {tuple(which)}")
    exact = joint.to(dtype=torch.float64)
    large = joint.sizes[0] * curve.clusters > 100_000
    fast = joint.to(dtype=torch.float32) if large else exact
    if curve.clusters >= joint.sizes[0]:
        alone = identity(exact, curve.clusters)
        first = [(alone + random_encoder(exact, curve.clusters, seed + i)) / 2 for i in range(starts)]
    else:
        first = usual_starts(exact, curve.clusters, starts + 1, seed)[1:]
    rows, taken = [], []
    for index in which:
        steps = factor * max(int(curve.iterations[index]), 1)
        beta = torch.tensor([float(curve.betas[index])], dtype=torch.float64, device=exact.p_x.device)
        own = (curve.complexity, curve.relevance, curve.lagrangian, curve.last_change)
        points = [[float(values[index]) for values in own]]
        for start in first:
            q = soften(start.to(fast.p_x.dtype), SOFT_START)[:, None]
            limits = Limits(tolerance=1e-300, steps=steps, change=1e-300)
            settled = iterate(fast, q, beta.to(fast.p_x.dtype), 1.0, limits)
            at = coordinates(exact, settled.q)
            found = (at.complexity, at.relevance, at.lagrangian(beta))
            points.append([*(float(value[0]) * BITS_PER_NAT for value in found), float(settled.last_change[0])])
        rows.append(points)
        taken.append(steps)
    table = np.array(rows)
    complexity, relevance, lagrangian, change = np.moveaxis(table, -1, 0)
    return Repeated(curve.betas[list(which)], complexity, relevance, lagrangian, tuple(taken), change)
