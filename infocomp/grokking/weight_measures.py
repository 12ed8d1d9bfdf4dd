"""Size and spectral simplicity of weights: Σ‖W‖², spectrum entropy (nats) and effective rank of every matrix.

Singular values are normalised to sum 1; their entropy is H = −Σ σ̄ ln σ̄ and the effective rank exp H, between 1 and
min(rows, columns) (Roy and Vetterli 2007, "The effective rank"; as a measure of grokking DeMoss et al. 2024,
arXiv 2412.09810). Beside each stands what a Gaussian matrix of the same shape has: training that has found
structure lies below it. Everything is float64, whatever the dtype of the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

MEAN = "mean"


@dataclass(frozen=True)
class SpectrumMeasure:
    """Spectrum entropy (nats) and effective rank of one matrix, or their means over matrices under the name "mean".

    ceiling: min(rows, columns), the largest effective rank; null_…: the same of a Gaussian matrix of that shape. Of
    "mean", each is the mean over matrices. None in both values where a matrix is all 0 and has no spectrum.
    """

    entropy_nats: float | None
    effective_rank: float | None
    null_entropy_nats: float
    null_effective_rank: float
    ceiling: float


def weight_norm(model: nn.Module) -> float:
    """Σ‖W‖² over all parameters: squared norm, each shared parameter once.

    ValueError: a parameter with NaN or infinity.
    """
    total = 0.0
    for name, parameter in model.named_parameters():
        squares = float(parameter.detach().double().square().sum())
        if not np.isfinite(squares):
            raise ValueError(
                f"parameter {name} must be finite, its squared norm is {squares}; look for the diverged step"
            )
        total += squares
    return total


def spectrum_entropy(matrix: ArrayLike | Tensor) -> float | None:
    """Entropy in nats of the singular values over their sum; None for a matrix of zeros, which has no spectrum.

    Source: DeMoss et al. (2024), arXiv 2412.09810, H_svd. ValueError: not a matrix, or NaN or infinity in it.
    """
    values = (
        matrix.detach().cpu().double() if isinstance(matrix, Tensor) else torch.from_numpy(np.asarray(matrix, float))
    )
    if values.ndim != 2 or not values.numel():
        raise ValueError(
            f"a spectrum needs a matrix [rows, columns], got shape {tuple(values.shape)}; give vectors apart"
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError("a spectrum needs finite entries, got NaN or infinity; look for the diverged step")
    singular = torch.linalg.svdvals(values).numpy()
    return None if singular.sum() == 0 else _entropy(singular / singular.sum())


def effective_rank(matrix: ArrayLike | Tensor) -> float | None:
    """exp of `spectrum_entropy`: how many equal singular values would have that entropy. None and errors as there.

    Source: Roy and Vetterli (2007), EUSIPCO, definition 1.
    """
    entropy = spectrum_entropy(matrix)
    return None if entropy is None else float(np.exp(entropy))


@cache
def gaussian_spectrum_entropy(rows: int, columns: int) -> float:
    """`spectrum_entropy` of a matrix of independent normal entries, nats: one draw, always the same one.

    Its effective rank varies between draws by 1.3 % (standard deviation) at 30 × 30, by 0.3 % at 128 × 128.
    """
    small, large = sorted((rows, columns))
    normal = np.random.default_rng([small, large]).standard_normal((small, large))
    return spectrum_entropy(normal) or 0.0


def weight_spectra(matrices: Mapping[str, ArrayLike | Tensor]) -> dict[str, SpectrumMeasure]:
    """The measures of every matrix by its name, and their "mean" last, over matrices that are not all 0.

    ValueError: no matrix, one called "mean", or one without a spectrum as in `spectrum_entropy`.
    """
    if not matrices or MEAN in matrices:
        raise ValueError(
            f"weight spectra need matrices by name, none of them {MEAN!r} (their mean's name), got {list(matrices)}"
        )
    found = {name: _measure(name, matrix) for name, matrix in matrices.items()}
    known = [one for one in found.values() if one.entropy_nats is not None]
    found[MEAN] = SpectrumMeasure(
        _mean([one.entropy_nats for one in known if one.entropy_nats is not None]),
        _mean([one.effective_rank for one in known if one.effective_rank is not None]),
        float(np.mean([one.null_entropy_nats for one in known or found.values()])),
        float(np.mean([one.null_effective_rank for one in known or found.values()])),
        float(np.mean([one.ceiling for one in known or found.values()])),
    )
    return found


def _measure(name: str, matrix: ArrayLike | Tensor) -> SpectrumMeasure:
    try:
        entropy = spectrum_entropy(matrix)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    rows, columns = np.shape(matrix.detach() if isinstance(matrix, Tensor) else matrix)
    null = gaussian_spectrum_entropy(rows, columns)
    rank = None if entropy is None else float(np.exp(entropy))
    return SpectrumMeasure(entropy, rank, null, float(np.exp(null)), float(min(rows, columns)))


def _entropy(shares: Float[np.ndarray, "values"]) -> float:
    kept = shares[shares > 0]
    return float(-(kept * np.log(kept)).sum())


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
