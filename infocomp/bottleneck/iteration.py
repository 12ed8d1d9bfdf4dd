"""Run many columns (betas × restarts) of the fixed point until each has settled, and say how each ended."""

from collections import deque
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infocomp.bottleneck.fixed_point import cycle, step
from infocomp.bottleneck.joint import Joint
from infocomp.units import BITS_PER_NAT


@dataclass(frozen=True)
class Limits:
    """When a column stops: its Lagrangian fell by less than `tolerance` bits over `window` steps, and no q(t|x)
    changed by `change` or more in a step; or after `steps` steps. Only the tolerance decides on "converged"."""

    tolerance: float = 1e-5
    window: int = 10
    steps: int = 1000
    change: float = 1.0

    def __post_init__(self) -> None:
        for name in ("tolerance", "window", "steps", "change"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; it is {getattr(self, name)}")


FINE = Limits(tolerance=1e-10, steps=6000, change=1e-9)
"""For small alphabets: points right to 1e-6 bits except where the optimum is a whole line."""
COARSE = Limits()
"""For corpora: the criterion of the Lagrangian alone."""


@dataclass(frozen=True)
class Settled:
    """What `iterate` leaves: encoders, and for each column its steps and its fall over the last window, bits."""

    q: Float[Tensor, "x column t"]
    steps: Int[Tensor, "column"]
    last_change: Float[Tensor, "column"]
    converged: Bool[Tensor, "column"]


def iterate(
    joint: Joint, q: Float[Tensor, "x column t"], betas: Float[Tensor, "column"], alpha: float, limits: Limits
) -> Settled:
    """Accelerated steps on all columns; a column that has settled leaves the batch."""
    taken = 3 if alpha > 0 else 1
    rounds = -(-limits.window // taken)
    columns = q.shape[1]
    final = q.clone()
    steps = torch.zeros(columns, dtype=torch.long, device=q.device)
    last_change = torch.full((columns,), torch.inf, dtype=torch.float64, device=q.device)
    active = torch.arange(columns, device=q.device)
    falls: deque[Tensor] = deque(maxlen=rounds + 1)
    total = 0
    while len(active):
        if alpha > 0:
            q, f, moved = cycle(joint, q, betas, alpha)
        else:
            before = q
            q, f = step(joint, q, betas, alpha)
            moved = (q - before).abs().amax((0, 2)).double()
        falls.append(f)
        total += taken
        full = len(falls) == rounds + 1
        spent = total + taken > limits.steps
        if not spent and (not full or (total // taken) % 2):
            continue
        fell = (falls[0] - f) * BITS_PER_NAT if full else torch.full_like(f, torch.inf)
        done = (fell < limits.tolerance) & (moved < limits.change)
        if spent or bool(done.any()):
            leaving = torch.ones_like(done) if spent else done
            out = active[leaving]
            final[:, out] = q[:, leaving]
            steps[out], last_change[out] = total, fell[leaving]
            kept = ~leaving
            q, betas, active = q[:, kept], betas[kept], active[kept]
            falls = deque((value[kept] for value in falls), maxlen=rounds + 1)
    return Settled(final, steps, last_change, last_change < limits.tolerance)
