"""What of a finite text's bottleneck is there in new text: encoders learnt on one half, scored on the other. Bits.

The plug-in joint of a text is mostly bias: pairs seen once say that x decides y. Here half A is smoothed and its
curve solved, giving q_A(t|x) and p_A(y|t); half B scores both. Each coordinate errs, in expectation over independent
documents of one law, against the claim that the encoder is that good:

    relevance  = Ĥ_B(Y) − CE_B(p_A(y|T))        low: the plug-in entropy is low, a cross-entropy is high
    complexity = Σ_x p_B(x) KL[q_A(t|x) ‖ p_A(t)]   high: any p(t) but the true one makes it larger

The smoothing is Witten & Bell's (1991, IEEE Trans. Inf. Theory 37, method C; Chen & Goodman 1999), applied
twice, with c for counts and u for numbers of distinct continuations:

    p_A(y|x) = [c(x, y) + u(x) p_A(y)] / [c(x) + u(x)]      p_A(y) = [c(y) + u / |Y|] / [c + u]

It is sparse plus a product a(x) p_A(y), so that smoothing costs nothing. An x that A never saw gets q(t|x) = p_A(t).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from infocomp.bottleneck.blahut_arimoto import solve
from infocomp.bottleneck.curve import Curve
from infocomp.bottleneck.iteration import Limits
from infocomp.bottleneck.joint import Joint, distinct_pairs
from infocomp.bottleneck.storage import SparseTable, plogp, safe_ratio
from infocomp.units import BITS_PER_NAT


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Curves of both directions and their mean; bits."""

    betas: Float[np.ndarray, "b"]
    complexity: Float[np.ndarray, "b"]
    relevance: Float[np.ndarray, "b"]
    information: float
    """I(X; Y) held out, low in expectation: Ĥ_B(Y) − CE_B(p_A(y|x)), both directions averaged."""
    learnt: tuple[Curve, Curve]
    """The curves that were solved on half A and on half B, each smoothed, without their encoders."""


def smoothed(
    x_ids: ArrayLike | Tensor, y_ids: ArrayLike | Tensor, sizes: tuple[int, int], weights: Any = None
) -> Joint:
    """p_A(x) p_A(y|x) with Witten–Bell back-off to p_A(y), positive for every y after every x that was seen.

    ValueError as for `Joint.from_pairs`.
    """
    x, y, count = distinct_pairs(x_ids, y_ids, weights, sizes)
    total = float(count.sum())
    of_x = torch.zeros(sizes[0], dtype=torch.float64, device=x.device).index_add_(0, x, count)
    of_y = torch.zeros(sizes[1], dtype=torch.float64, device=x.device).index_add_(0, y, count)
    kinds = torch.bincount(x, minlength=sizes[0]).to(torch.float64)
    kinds_y = float((of_y > 0).sum())
    back_off = (of_y + kinds_y / sizes[1]) / (total + kinds_y)
    kept = safe_ratio(of_x, of_x + kinds)
    p_x = of_x / total
    storage = SparseTable.of(x, y, count / total * kept[x], sizes, (p_x * (1 - kept), back_off))
    return Joint(storage, *storage.sums(), weight=total)


def held_out(
    encoders: Float[Tensor, "x b t"], learnt: Joint, scored: Joint
) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
    """(complexity, relevance) in bits on `scored` of encoders that were fitted on `learnt`, a `smoothed` joint."""
    if learnt.sizes != scored.sizes:
        raise ValueError(f"both halves need the same sizes; they are {learnt.sizes} and {scored.sizes}")
    found: list[tuple[float, float]] = []
    floor = torch.finfo(torch.float64).tiny
    entropy = -float(plogp(scored.p_y).sum())
    for q in encoders.unbind(1):
        q = q.to(torch.float64)
        q = q / q.sum(1, keepdim=True)
        p_t = learnt.p_x @ q
        q = torch.where(learnt.p_x[:, None] > 0, q, p_t)
        log_t = p_t.clamp_min(floor).log()
        complexity = scored.p_x @ (plogp(q) - q * log_t).sum(1)
        log_y = learnt.storage.to_y(q).clamp_min_(floor).log_() - log_t
        cross = -(scored.storage.to_y(q) * log_y).sum()
        found.append((float(complexity), entropy - float(cross)))
    table = np.array(found) * BITS_PER_NAT
    return table[:, 0], table[:, 1]


def held_out_information(learnt: Joint, scored: Joint) -> float:
    """Ĥ_B(Y) − CE_B(p_A(y|x)), bits: what the smoothed learnt joint knows of new pairs; low in expectation."""
    a, b = learnt.storage, scored.storage
    if not isinstance(a, SparseTable) or not isinstance(b, SparseTable) or a.background_y is None:
        raise ValueError("learnt must come from `smoothed` and scored from `Joint.from_pairs`")
    assert a.background_conditional is not None
    width = learnt.sizes[1]
    keys, asked = a.rows() * width + a.columns, b.rows() * width + b.columns
    place = torch.searchsorted(keys, asked).clamp_max(len(keys) - 1)
    direct = torch.where(keys[place] == asked, a.conditional[place], 0.0)
    share = torch.where(learnt.p_x > 0, a.background_conditional[:, 0], 1.0)
    p = direct + share[b.rows()] * a.background_y[b.columns]
    entropy = -float(plogp(scored.p_y).sum())
    return (entropy + float(b.values @ p.log())) * BITS_PER_NAT


def cross_fit(
    half_a: tuple[Any, Any],
    half_b: tuple[Any, Any],
    sizes: tuple[int, int],
    betas: ArrayLike | Tensor,
    clusters: int | None = None,
    *,
    restarts: int = 2,
    seed: int = 0,
    limits: Limits | None = None,
) -> CrossFitted:
    """Fit on half A and score on half B, the other way round, and the mean; a half is (x_ids, y_ids).

    Halves are of whole documents, or the two are not independent and the directions above do not hold.
    """
    learnt = [smoothed(*half, sizes) for half in (half_a, half_b)]
    scored = [Joint.from_pairs(*half, sizes=sizes) for half in (half_b, half_a)]
    points, curves, informations = [], [], []
    for one, other in zip(learnt, scored, strict=True):
        curve = solve(one, betas, clusters, restarts=restarts, seed=seed, limits=limits, keep_encoders=True)
        assert curve.encoders is not None
        points.append(held_out(curve.encoders, one, other))
        curves.append(curve.without_encoders())
        informations.append(held_out_information(one, other))
    (x_one, y_one), (x_two, y_two) = points
    both = (curves[0], curves[1])
    return CrossFitted(curves[0].betas, (x_one + x_two) / 2, (y_one + y_two) / 2, sum(informations) / 2, both)
