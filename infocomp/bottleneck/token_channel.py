"""A measured point sent through its own token channel, the one point that the bottleneck bound binds.

At a site, J (a soft bin of m) sees the whole context, the token X only itself, so (I(X; J), I(Y; J)) may lie above the
curve of p(x, y). Let J′ be drawn from p(j|x) given the token alone: p(y, j′) = Σ_x p(x, y) p(j|x). Then Y – X – J′ is
a Markov chain, I(X; J′) = I(X; J), and (I(X; J), I(Y; J′)) must lie on or under that curve when |T| ≥ |X|. What is
left, I(Y; J) − I(Y; J′), is what the context changes (`context_gain`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from infocomp.bottleneck.joint import Joint, check_weights
from infocomp.bottleneck.storage import plogp
from infocomp.units import bits

AT_ONCE = 10  # bins: a weighted sum over the pairs holds [pairs, bins] in float64 while it is made
ROW_TOLERANCE = 1e-4  # rows that are means of half-precision assignments sum to one within it


@dataclass(frozen=True)
class TokenChannel:
    """I(X; J) and I(Y; J′), bits, of the joint that the channel was applied to."""

    complexity: float
    relevance: float

    def context_gain(self, measured: float) -> float:
        """I(Y; J) − I(Y; J′), bits, given I(Y; J) measured on the same rows; not clipped."""
        return measured - self.relevance


def through_token_channel(joint: Joint, channel: Float[Tensor, "x m"]) -> TokenChannel:
    """(I(X; J), I(Y; J′)) in bits for p(j|x), a row for each x of the joint; a row may be anything where p(x) = 0.

    One pass over the pairs: 400,000 of them and m = 100 take a fraction of a second on one core. ValueError: a shape
    that does not fit, entries that are negative or NaN, a row of a used x that does not sum to one.
    """
    if channel.ndim != 2 or len(channel) != joint.sizes[0]:
        raise ValueError(f"p(j|x) needs a row for each x: {joint.sizes[0]}; its shape is {tuple(channel.shape)}")
    used = joint.p_x > 0
    check_weights(channel[used], "p(j|x)")
    q = channel.to(joint.p_x)
    sums = q.sum(1)
    worst = (sums - 1).abs()[used]
    if float(worst.max()) > ROW_TOLERANCE:
        row = int(torch.nonzero(used)[:, 0][worst.argmax()])
        raise ValueError(f"each row of p(j|x) must sum to one; row {row} sums to {float(sums[row]):.6g}")
    q = torch.where(used[:, None], q, torch.full_like(q, 1.0 / q.shape[1]))
    p_j = joint.p_x @ q
    spread = float(plogp(p_j).sum())  # −H(J)
    complexity = float(joint.p_x @ plogp(q).sum(1)) - spread
    together = sum(float(plogp(joint.storage.to_y(part)).sum()) for part in q.split(AT_ONCE, dim=1))  # −H(Y, J′)
    return TokenChannel(bits(complexity), bits(together - spread - float(plogp(joint.p_y).sum())))
