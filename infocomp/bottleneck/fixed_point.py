"""One step of the bottleneck's fixed point, the plane's coordinates of an encoder, and the accelerated iteration.

The Lagrangian, in nats, of Strouse & Schwab (2017), arXiv 1604.00268, with the sign of Tishby et al. (1999):

    L_α(β) = H(T) − α H(T|X) − β I(T; Y)            α = 1: the bottleneck; α = 0: the deterministic one

The step (theirs; at α = 1 that of Tishby et al., physics/0004057):

    p(t) = Σ_x p(x) q(t|x),   p(y|t) = Σ_x p(x, y) q(t|x) / p(t)
    q(t|x) ∝ exp{ [log p(t) + β Σ_y p(y|x) log p(y|t)/p(y)] / α }

KL[p(y|x) ‖ p(y|t)] is written with p(y|t)/p(y), which differs from it by a term of x alone and keeps the numbers
small enough for float32. With Z(x) the sum that normalises the last line, F = −α Σ_x p(x) log Z(x) obeys
L(new q) ≤ F ≤ L(old q): it comes free with the step and falls monotonically.

All betas and restarts are columns of one tensor [x, column, t], so that both products are single matrix products.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from infocomp.bottleneck.joint import Joint
from infocomp.bottleneck.storage import plogp

NEVER = -1e25  # stands for log 0: its product with a probability of 0 is 0, where −∞ would give NaN
LARGEST_STEP = 64.0  # of an extrapolation, in steps


@dataclass(frozen=True)
class Coordinates:
    """Nats for each column: I(X; T), I(T; Y) and H(T)."""

    complexity: Float[Tensor, "column"]
    relevance: Float[Tensor, "column"]
    entropy: Float[Tensor, "column"]

    def lagrangian(self, betas: Float[Tensor, "column"], alpha: float = 1.0) -> Float[Tensor, "column"]:
        """H(T) − α H(T|X) − β I(T; Y), nats."""
        return (1 - alpha) * self.entropy + alpha * self.complexity - betas * self.relevance


def coordinates(joint: Joint, q: Float[Tensor, "x column t"]) -> Coordinates:
    """I(X; T), I(T; Y), H(T) of encoders q(t|x), nats, in float64 whatever q's dtype; rows are normalised first."""
    q = q.to(joint.p_x.dtype)
    q = q / q.sum(-1, keepdim=True)
    p_t = torch.tensordot(joint.p_x, q, 1)
    p_yt = joint.storage.to_y(q.flatten(1)).view(-1, *q.shape[1:])
    entropy = -plogp(p_t).sum(-1)
    conditional = -torch.tensordot(joint.p_x, plogp(q).sum(-1), 1)
    relevance = plogp(p_yt).sum((0, 2)) + entropy - plogp(joint.p_y).sum()
    return Coordinates(entropy - conditional, relevance, entropy)


def step(
    joint: Joint, q: Float[Tensor, "x column t"], betas: Float[Tensor, "column"], alpha: float = 1.0
) -> tuple[Float[Tensor, "x column t"], Float[Tensor, "column"]]:
    """The next encoders, and F between the Lagrangians of both, nats."""
    log_p_t, log_p_y = _log(torch.tensordot(joint.p_x, q, 1)), _log(joint.p_y)
    ratio = _log(joint.storage.to_y(q.flatten(1))).sub_(log_p_y[:, None]).view(-1, *q.shape[1:])
    ratio = ratio.sub_(log_p_t).clamp_min_(NEVER)
    logits = joint.storage.to_x(ratio.flatten(1)).view(q.shape)
    logits = logits.mul_(betas[:, None]).add_(log_p_t)
    if alpha == 0:
        best, chosen = logits.max(-1)
        hard = torch.zeros_like(logits).scatter_(-1, chosen[..., None], 1.0)
        return hard, -_mean(joint, best)
    if alpha != 1:
        logits.div_(alpha)
    q = torch.softmax(logits, -1)
    log_z = logits.amax(-1) - q.amax(-1).log()  # logsumexp, without its exponential of numbers far below 0
    return q, -alpha * _mean(joint, log_z)


def _log(p: Tensor) -> Tensor:
    """log p in place of p's copy, NEVER where p is 0 or denormal: the CPU's logarithm is slow there."""
    least = torch.finfo(p.dtype).tiny
    dead = p < least
    return p.clamp_min(least).log_().masked_fill_(dead, NEVER)


def _mean(joint: Joint, values: Float[Tensor, "x column"]) -> Float[Tensor, "column"]:
    return joint.p_x.double() @ values.double()


def cycle(
    joint: Joint, q: Float[Tensor, "x column t"], betas: Float[Tensor, "column"], alpha: float = 1.0
) -> tuple[Float[Tensor, "x column t"], Float[Tensor, "column"], Float[Tensor, "column"]]:
    """Three steps, the last from an extrapolated encoder where that lowers F: (q, F, largest change of the 1st step).

    Source: squared extrapolation (SQUAREM, Varadhan & Roland 2008, Scand. J. Stat. 35, scheme S3). A column whose
    extrapolation would raise F falls back on its plain second step, so that F never rises.
    """
    first, _ = step(joint, q, betas, alpha)
    change = first - q
    moved = change.abs().amax((0, 2)).double()
    second, f_plain = step(joint, first, betas, alpha)
    bend = (second - first).sub_(change)
    length = change.square().sum((0, 2)).sqrt() / bend.square().sum((0, 2)).sqrt().clamp_min(1e-30)
    length = length.clamp(1.0, LARGEST_STEP)[:, None]
    further = change.mul_(2 * length).add_(q).addcmul_(bend, length.square())
    further = torch.maximum(further, 0.1 * second)  # what goes to zero stays above it
    further /= further.sum(-1, keepdim=True)
    third, f_further = step(joint, further, betas, alpha)
    kept = f_further <= f_plain
    q = torch.where(kept[:, None], third, second) if not bool(kept.all()) else third
    return q, torch.where(kept, f_further, f_plain), moved
