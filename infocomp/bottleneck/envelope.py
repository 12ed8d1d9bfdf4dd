"""From points on the information plane to a curve: the monotone filter, the upper concave envelope, interpolation.

The bottleneck curve is concave and rises (Witsenhausen & Wyner 1975), so the hull of what was found is found too.
The monotone filter is weaker: it keeps a sequence that rises in both coordinates, whatever its slopes.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike


def monotone_filter(x: ArrayLike, y: ArrayLike) -> Int[np.ndarray, "k"]:
    """Indices of the points, in their own order, that rise strictly in both coordinates over the last one kept."""
    across, up = _points(x, y)
    kept: list[int] = []
    for index in range(len(across)):
        if not kept or (across[index] > across[kept[-1]] and up[index] > up[kept[-1]]):
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def concave_envelope(x: ArrayLike, y: ArrayLike) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Corners of the least concave and rising function above the points and (0, 0), from left to right.

    Negative coordinates, which rounding leaves on an estimate of zero, are read as they are. Source: Andrew's
    monotone chain (1979), cut at the highest point.
    """
    across, up = _points(x, y)
    across, up = np.r_[0.0, across], np.r_[0.0, up]
    order = np.lexsort((-up, across))
    corners: list[tuple[float, float]] = []
    for point in zip(across[order].tolist(), up[order].tolist(), strict=True):
        if corners and point[0] == corners[-1][0]:
            continue  # the higher one of the two came first
        while len(corners) > 1 and _turns_left(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    highest = max(range(len(corners)), key=lambda index: corners[index][1])
    kept = np.array(corners[: highest + 1])
    return kept[:, 0], kept[:, 1]


def interpolate(x: Float[np.ndarray, "k"], y: Float[np.ndarray, "k"], at: ArrayLike) -> Float[np.ndarray, "..."]:
    """The curve's height at `at`: straight between corners, flat beyond the last. ValueError: x must rise."""
    across, up = _points(x, y)
    if (np.diff(across) <= 0).any():
        raise ValueError("x must rise strictly from corner to corner; take the points' concave envelope first")
    return np.interp(np.asarray(at, dtype=np.float64), across, up)


def _turns_left(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or under the chord from a to c."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) >= 0


def _points(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if across.ndim != 1 or across.shape != up.shape or not len(across):
        raise ValueError(f"x and y must be equally long and not empty; their shapes are {across.shape} and {up.shape}")
    if not (np.isfinite(across).all() and np.isfinite(up).all()):
        raise ValueError("x and y must be finite; some points are NaN or infinite")
    return across, up
