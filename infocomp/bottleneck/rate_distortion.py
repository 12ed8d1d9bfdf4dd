"""Rate–distortion curves by Blahut–Arimoto, all slopes at once. Rates in bits.

With slope s > 0 (nats of rate per unit of distortion) the functional I(X; X̂) + s E d falls at each step

    q(x̂|x) ∝ r(x̂) exp(−s d(x, x̂)),    r(x̂) = Σ_x p(x) q(x̂|x)

Source: Blahut (1972), IEEE Trans. Inf. Theory 18, 460–473. The gap to the optimum is known at every step
(there too): with c(x̂) = Σ_x p(x) exp(−s d)/Z(x), it is between 0 and max log c − Σ r c log c, so that
"converged" is a certificate here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from infocomp.bottleneck.curve import CONVERGED, NOT_CONVERGED
from infocomp.bottleneck.fixed_point import LARGEST_STEP
from infocomp.bottleneck.joint import check_weights
from infocomp.units import BITS_PER_NAT


@dataclass(frozen=True, eq=False)
class RateDistortion:
    """Points (D, R) in the order of `slopes`; R in bits, D in the units of the distortion."""

    slopes: Float[np.ndarray, "s"]
    distortion: Float[np.ndarray, "s"]
    rate: Float[np.ndarray, "s"]
    gap: Float[np.ndarray, "s"]
    """At most so many bits lie between R + s D found and its least value."""
    status: tuple[str, ...]
    iterations: int


def rate_distortion(
    p_x: ArrayLike | Float[Tensor, "x"],
    distortion: ArrayLike | Float[Tensor, "x xhat"],
    slopes: ArrayLike | Float[Tensor, "s"],
    tolerance: float = 1e-9,
    steps: int = 20_000,
) -> RateDistortion:
    """The curve at the given slopes, −dR/dD in nats per unit of distortion.

    Stops when every gap is below `tolerance` bits or after `steps` steps; then points above it are "not converged".
    ValueError: p(x) negative, NaN or not summing to one; a distortion that is negative, NaN or of another |X|; a slope
    that is not above 0.
    """
    p, d, s = _float64(p_x), _float64(distortion), _float64(slopes).flatten()
    check_weights(p, "p(x)")
    check_weights(d, "distortion")
    if p.ndim != 1 or d.ndim != 2 or len(d) != len(p):
        raise ValueError(f"distortion must have a row for each x; it has shape {tuple(d.shape)}, p(x) {tuple(p.shape)}")
    if abs(float(p.sum()) - 1) > 1e-6:
        raise ValueError(f"p(x) must sum to one; it sums to {float(p.sum()):.6g}")
    if not bool((s > 0).all()) or not len(s):
        raise ValueError("slopes must be numbers above 0, at least one")
    d, s, p = d.to(p.device), s.to(p.device), p / p.sum()
    shift = d.min(1).values  # the part of the distortion that no code avoids; without it exp(−s d) may underflow
    kernel = torch.exp(-s[:, None, None] * (d - shift[:, None]))
    r = torch.full((len(s), d.shape[1]), 1.0 / d.shape[1], dtype=torch.float64, device=p.device)
    taken, gap = 0, torch.full_like(s, torch.inf)
    while taken < steps and bool((gap >= tolerance).any()):
        for _ in range(4):
            r = _three_steps(p, kernel, r)
            taken += 3
        gain, _ = _gain(p, kernel, r)
        log_gain = gain.clamp_min(torch.finfo(torch.float64).tiny).log()
        gap = (log_gain.amax(1) - (r * gain * log_gain).sum(1)) * BITS_PER_NAT
    q = r[:, None] * kernel
    z = q.sum(2, keepdim=True)
    q = q / z
    out = torch.einsum("x,sxt->st", p, q)
    rate = torch.einsum("x,sxt->s", p, torch.special.xlogy(q, q)) - torch.special.xlogy(out, out).sum(1)
    return RateDistortion(
        slopes=s.cpu().numpy(),
        distortion=torch.einsum("x,sxt,xt->s", p, q, d).cpu().numpy(),
        rate=rate.cpu().numpy() * BITS_PER_NAT,
        gap=gap.cpu().numpy(),
        status=tuple(CONVERGED if found < tolerance else NOT_CONVERGED for found in gap.tolist()),
        iterations=taken,
    )


def _three_steps(p: Tensor, kernel: Tensor, r: Tensor) -> Tensor:
    """Two steps and a third from their squared extrapolation (as in `fixed_point.cycle`), kept where it is lower."""
    first = r * _gain(p, kernel, r)[0]
    gain, plain = _gain(p, kernel, first)
    second = first * gain
    change, bend = first - r, second - 2 * first + r
    length = change.norm(dim=1, keepdim=True) / bend.norm(dim=1, keepdim=True).clamp_min(1e-300)
    length = length.clamp(1.0, LARGEST_STEP)
    further = torch.maximum(r + 2 * length * change + length**2 * bend, 0.1 * second)
    further = further / further.sum(1, keepdim=True)
    gain, value = _gain(p, kernel, further)
    return torch.where((value <= plain)[:, None], further * gain, second)


def _gain(p: Tensor, kernel: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """c(x̂) of each slope, with which r · c is the next r, and −Σ p log Z, which falls from step to step."""
    z = (kernel @ r[..., None])[..., 0]
    return ((p / z)[:, None] @ kernel)[:, 0], -(z.log() @ p)


def _float64(values: ArrayLike | Tensor) -> Tensor:
    return values.to(torch.float64) if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float64))
