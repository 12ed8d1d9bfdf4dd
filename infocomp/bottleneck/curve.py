"""A bottleneck curve: the points that a solver found, one a beta, with how each converged. Bits throughout."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.bottleneck.envelope import concave_envelope, interpolate

ROUNDING = 1e-10
CONVERGED, NOT_CONVERGED = "converged", "not converged"


@dataclass(frozen=True, eq=False)
class Curve:
    """Points (I(X; T), I(T; Y)) in the order of `betas`.

    `kind` is "bound" where |T| ≥ |X| (no encoder lies above the curve, up to local optima of the restarts) and
    "achievable" where |T| < |X| (an inner curve: an encoder that reaches it exists, better ones may too).
    """

    betas: Float[np.ndarray, "b"]
    complexity: Float[np.ndarray, "b"]
    """I(X; T), bits; for the deterministic bottleneck it equals H(T)."""
    relevance: Float[np.ndarray, "b"]
    """I(T; Y), bits."""
    lagrangian: Float[np.ndarray, "b"]
    """H(T) − α H(T|X) − β I(T; Y), bits."""
    status: tuple[str, ...]
    """"converged", or "not converged" where the Lagrangian still moved by the tolerance when the cap was reached."""
    iterations: Int[np.ndarray, "b"]
    last_change: Float[np.ndarray, "b"]
    """By how many bits the Lagrangian fell over the last `window` steps."""
    restart_spread: Float[np.ndarray, "b"]
    """The largest minus the smallest Lagrangian over the restarts, bits."""
    clusters: int
    sizes: tuple[int, int]
    kind: str
    alpha: float = 1.0
    encoders: Float[Tensor, "x b t"] | None = None
    """q(t|x) of each point, where they were asked for."""

    def envelope(self) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        """The upper concave envelope of the points and (0, 0): complexity, relevance, bits.

        Time sharing between two encoders (with |T| large enough to tell which one ran) reaches every point of it.
        """
        above = self.complexity > ROUNDING  # the constant encoder's coordinates are rounding, of any slope
        return concave_envelope(np.r_[0.0, self.complexity[above]], np.r_[0.0, self.relevance[above]])

    def relevance_at(self, complexity: float) -> float:
        """The envelope's I(T; Y) at a given I(X; T), bits; flat beyond the last point."""
        return float(interpolate(*self.envelope(), complexity))

    @property
    def converged(self) -> bool:
        """Whether every point did."""
        return all(status == CONVERGED for status in self.status)

    def without_encoders(self) -> "Curve":
        return replace(self, encoders=None)
