"""Two streams of rows of the same tokens as sums that can be merged, and their debiased linear CKA (a ratio, no unit).

With K = XXᵀ, L = YYᵀ and a zero diagonal put into both, the unbiased estimate of HSIC (Song et al. 2012, JMLR 13,
eq. 5; in CKA since Nguyen et al. 2021, arXiv 2010.15327, eq. 3) is
HSIC₁ = [tr K̃L̃ + 1ᵀK̃1·1ᵀL̃1 / ((n − 1)(n − 2)) − 2·1ᵀK̃L̃1 / (n − 2)] / (n(n − 3)).
A constant added to all rows does not change it. About the mean, where Σx = Σy = 0, it needs neither n × n matrix:
n(n − 3)·HSIC₁ = ‖Σ x yᵀ‖² − n/(n − 2)·Σ‖x‖²‖y‖² + Σ‖x‖²·Σ‖y‖² / ((n − 1)(n − 2)).

The sums are float64 about a fixed reference near the mean, so that a large common offset of the rows is not squared,
and are moved to the mean at the end; Σ‖x‖²‖y‖² moves with the help of Σ‖y‖²x and Σ‖x‖²y.

CKA = HSIC(X, Y) / √(HSIC(X, X)·HSIC(Y, Y)) (Kornblith et al. 2019, arXiv 1905.00414, eq. 4). A stream against itself
needs no matrix of its own where a centred scatter of the same rows is kept elsewhere (`keep_cross=False`). The matrix
of two streams takes 8·dim_x·dim_y bytes (128 MiB at 4,096 by 4,096), in memory or in a scratch file that is unlinked as
soon as it is open.
"""

import mmap
import tempfile
from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal

Rows = Float[Tensor, "rows dim"] | Float[np.ndarray, "rows dim"]
Square = Float[Tensor, "dim dim"] | Float[np.ndarray, "dim dim"]
FEWEST_ROWS = 4


class PairMoments:
    """Sums over pairs of rows (x, y); `merge` of any split gives the same to rounding.

    >>> pair = PairMoments(2, 1)
    >>> pair.update(np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[1.0], [5.0]]))
    >>> pair.centred().tolist()
    [[4.0], [0.0]]
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int | None = None,
        reference_x: Float[Tensor, "dim_x"] | None = None,
        reference_y: Float[Tensor, "dim_y"] | None = None,
        keep_cross: bool = True,
        scratch: Path | None = None,
    ) -> None:
        """Without `dim_y` a stream is paired with itself. The references are the means of the first batch by default.

        `keep_cross=False` (a stream with itself only) leaves out the dim × dim matrix, which `linear_cka` then asks
        for; states to be merged must then have been given the same reference. `scratch` is a folder for the matrix's
        file, None for memory; OSError where the disk cannot hold it.
        """
        if not keep_cross and dim_y is not None:
            raise ValueError("keep_cross=False is for a stream paired with itself; leave out dim_y or keep the matrix.")
        self.alone = dim_y is None
        self.dim_x, self.dim_y = dim_x, dim_x if dim_y is None else dim_y
        self.reference_x = None if reference_x is None else _vector("reference_x", reference_x, self.dim_x)
        given_y = reference_x if self.alone else reference_y
        self.reference_y = None if given_y is None else _vector("reference_y", given_y, self.dim_y)
        self.count = 0
        self.identical = True  # every y so far was bit for bit its x
        self.sum_x = torch.zeros(self.dim_x, dtype=torch.float64)
        self.sum_y = torch.zeros(self.dim_y, dtype=torch.float64)
        self.weighted_x = torch.zeros(self.dim_x, dtype=torch.float64)  # Σ‖y‖²x
        self.weighted_y = torch.zeros(self.dim_y, dtype=torch.float64)  # Σ‖x‖²y
        self.square_x = self.square_y = self.squares = 0.0  # Σ‖x‖², Σ‖y‖², Σ‖x‖²‖y‖²
        self.cross: Tensor | None = None
        if keep_cross:
            shape = self.dim_x, self.dim_y
            self.cross = torch.zeros(shape, dtype=torch.float64) if scratch is None else _mapped(Path(scratch), shape)

    def update(self, x: Rows, y: Rows | None = None) -> None:
        """Add pairs of rows; arithmetic is float64 on the rows' own device where it has that, the state on the CPU.

        Raises ValueError for wrong widths, unequal counts, and a second stream where one is paired with itself.
        """
        if (y is None) != self.alone:
            raise ValueError(
                "these moments pair a stream with itself and take one set of rows."
                if self.alone
                else "these moments pair two streams and take y beside x."
            )
        first = _float64("x", x, self.dim_x)
        other = first if y is None else _float64("y", y, self.dim_y)
        if len(first) != len(other):
            raise ValueError(f"y has {len(other)} rows, x has {len(first)}: one for each is needed.")
        if not len(first):
            return
        if self.reference_x is None:
            self.reference_x = first.mean(dim=0).cpu()
        if self.reference_y is None:
            self.reference_y = self.reference_x if self.alone else other.mean(dim=0).cpu()
        self.identical &= other is first or (first.shape == other.shape and torch.equal(first, other))
        first = first - self.reference_x.to(first.device)
        other = first if self.alone else other.to(first.device) - self.reference_y.to(first.device)
        norms = (first**2).sum(dim=1)
        norms_y = norms if self.alone else (other**2).sum(dim=1)
        self.count += len(first)
        self.sum_x += first.sum(dim=0).cpu()
        self.sum_y += other.sum(dim=0).cpu()
        self.weighted_x += (norms_y @ first).cpu()
        self.weighted_y += (norms @ other).cpu()
        self.square_x += float(norms.sum())
        self.square_y += float(norms_y.sum())
        self.squares += float(norms @ norms_y)
        if self.cross is not None:
            if first.device.type == "cpu":
                self.cross.addmm_(first.T, other)
            else:
                self.cross += (first.T @ other).cpu()

    def merge(self, other: Self) -> None:
        """Add the pairs of another state of the same widths and kind (else ValueError); `other` stays as it is."""
        if (self.dim_x, self.dim_y, self.alone) != (other.dim_x, other.dim_y, other.alone) or (
            (self.cross is None) != (other.cross is None)
        ):
            raise ValueError(
                f"moments of widths {self.dim_x, self.dim_y} and {other.dim_x, other.dim_y} cannot be merged: both "
                "need the same widths, one or two streams alike, and both or neither the matrix."
            )
        if not other.count:
            return
        assert other.reference_x is not None and other.reference_y is not None
        if self.reference_x is None:
            self.reference_x = other.reference_x
        if self.reference_y is None:
            self.reference_y = other.reference_y
        shift_x, shift_y = other.reference_x - self.reference_x, other.reference_y - self.reference_y
        moved = other
        if bool(shift_x.any()) or bool(shift_y.any()):
            if other.cross is None:
                raise ValueError(
                    "moments without their matrix were taken about two references and cannot be merged; give both the "
                    "same reference."
                )
            moved = other._moved(shift_x, shift_y, other.cross)
        self.count += moved.count
        self.identical &= moved.identical
        for name in ("sum_x", "sum_y", "weighted_x", "weighted_y", "square_x", "square_y", "squares"):
            setattr(self, name, getattr(self, name) + getattr(moved, name))
        if self.cross is not None and moved.cross is not None:
            self.cross += moved.cross

    def centred(self) -> Float[Tensor, "dim_x dim_y"]:
        """Σ (x − mean)(y − mean)ᵀ. Raises ValueError where the matrix was not kept."""
        if self.cross is None:
            raise ValueError("these moments keep no matrix; take the centred scatter that stands in for it.")
        return self.cross - torch.outer(self.sum_x, self.sum_y) / max(self.count, 1)

    def close(self) -> None:
        """Give the matrix and its scratch file back; what needs it afterwards is a ValueError."""
        self.cross = None  # unmapped with its last view; the file is unlinked already

    def about_mean(self, scatter: Square | None = None) -> tuple[float, float, float, float]:
        """‖Σ x yᵀ‖², Σ‖x‖², Σ‖y‖² and Σ‖x‖²‖y‖² of rows less their mean.

        `scatter` is the centred scatter of the same rows, where no matrix was kept (else ValueError).
        """
        if self.cross is None:
            if scatter is None:
                raise ValueError("these moments keep no matrix: give the centred scatter of the same rows.")
            matrix = torch.as_tensor(scatter, dtype=torch.float64).cpu()
            uncentred = matrix + torch.outer(self.sum_x, self.sum_y) / max(self.count, 1)
        else:
            matrix, uncentred = self.centred(), self.cross
        mean_x, mean_y = self.sum_x / max(self.count, 1), self.sum_y / max(self.count, 1)
        return float((matrix**2).sum()), *self._squares_moved(-mean_x, -mean_y, uncentred)

    def _squares_moved(self, dx: Tensor, dy: Tensor, cross: Tensor) -> tuple[float, float, float]:
        """Σ‖x‖², Σ‖y‖² and Σ‖x‖²‖y‖² after dx was added to every x and dy to every y."""
        by_x, by_y = float(dx @ dx), float(dy @ dy)
        more_x, more_y = 2 * float(dx @ self.sum_x), 2 * float(dy @ self.sum_y)
        squares = self.squares + 2 * float(dy @ self.weighted_y + dx @ self.weighted_x) + 4 * float(dx @ cross @ dy)
        squares += by_y * (self.square_x + more_x) + by_x * (self.square_y + more_y) + self.count * by_x * by_y
        return self.square_x + more_x + self.count * by_x, self.square_y + more_y + self.count * by_y, squares

    def _moved(self, dx: Tensor, dy: Tensor, cross: Tensor) -> Self:
        """The same pairs after dx was added to every x and dy to every y."""
        found = copy(self)
        found.square_x, found.square_y, found.squares = self._squares_moved(dx, dy, cross)
        found.sum_x, found.sum_y = self.sum_x + self.count * dx, self.sum_y + self.count * dy
        found.weighted_x = self.weighted_x + 2 * cross @ dy + float(dy @ dy) * self.sum_x + found.square_y * dx
        found.weighted_y = self.weighted_y + 2 * cross.T @ dx + float(dx @ dx) * self.sum_y + found.square_x * dy
        found.cross = cross + torch.outer(self.sum_x, dy) + torch.outer(dx, found.sum_y)
        return found


def hsic(pair: PairMoments, debiased: bool = True, scatter: Square | None = None) -> float:
    """HSIC of linear kernels, in the units of x² times y²: unbiased (may be negative), or the biased ‖cov(x, y)‖².

    `scatter` as in `PairMoments.about_mean`. Raises Refusal below 4 rows, where the unbiased one does not exist.
    """
    n = pair.count
    if n < FEWEST_ROWS:
        raise Refusal(f"{n} rows are fewer than the {FEWEST_ROWS} that an unbiased HSIC needs")
    cross, square_x, square_y, squares = pair.about_mean(scatter)
    if not debiased:
        return cross / (n - 1) ** 2
    return (cross - squares * n / (n - 2) + square_x * square_y / ((n - 1) * (n - 2))) / (n * (n - 3))


def linear_cka(
    xx: PairMoments,
    yy: PairMoments,
    xy: PairMoments,
    debiased: bool = True,
    scatter_x: Square | None = None,
    scatter_y: Square | None = None,
) -> float:
    """Linear CKA: 1 for rows equal up to rotation and scale, 0 in expectation (debiased) for independent ones.

    `xx` and `yy` pair each stream with itself, `xy` both, all over the same rows; the scatters stand in for matrices
    that `xx` or `yy` did not keep. Rows equal bit for bit give exactly 1. Debiased values may lie below 0 and, in
    small samples, above 1. Raises ValueError for unequal rows or widths, Refusal where a stream does not vary.
    """
    widths = (xx.dim_x, yy.dim_x)
    if not (xx.alone and yy.alone) or (xy.dim_x, xy.dim_y) != widths or not xx.count == yy.count == xy.count:
        raise ValueError(
            f"CKA needs moments of x, of y and of both over the same rows, and got widths {widths} and "
            f"{xy.dim_x, xy.dim_y}, rows {xx.count}, {yy.count} and {xy.count}."
        )
    of_x, of_y = hsic(xx, debiased, scatter_x), hsic(yy, debiased, scatter_y)
    for name, value, pair in (("x", of_x, xx), ("y", of_y, yy)):
        if not value > _rounding(pair):
            raise Refusal(f"the rows of {name} do not vary beyond rounding, so that CKA is 0/0")
    return 1.0 if xy.identical else float(hsic(xy, debiased) / np.sqrt(of_x * of_y))


def cka_estimate(
    xx: PairMoments,
    yy: PairMoments,
    xy: PairMoments,
    label: str = "",
    scatter_x: Square | None = None,
    scatter_y: Square | None = None,
) -> Estimate:
    """`linear_cka`, debiased, as quantity "cka" in the unit "ratio"; refused, with the reason, where undefined."""
    try:
        value = linear_cka(xx, yy, xy, scatter_x=scatter_x, scatter_y=scatter_y)
    except Refusal as reason:
        return Estimate("cka", None, "ratio", xy.count, label=label, status="refused", message=f"{reason}.")
    return Estimate("cka", value, "ratio", xy.count, label=label, ceiling=1.0)


def _rounding(pair: PairMoments) -> float:
    """What HSIC of a constant stream may come to by rounding of squares about the reference."""
    size = pair.square_x / max(pair.count, 1)
    return 64 * np.finfo(np.float64).eps * size**2


def _mapped(folder: Path, shape: tuple[int, int]) -> Float[Tensor, "dim_x dim_y"]:
    """Zeros in a file that is written, not only sized: a full disk is an OSError here, no crash later."""
    folder.mkdir(parents=True, exist_ok=True)
    size, written = 8 * shape[0] * shape[1], 0
    with tempfile.TemporaryFile(dir=folder, prefix="cross-") as file:
        while written < size:
            written += file.write(bytes(min(2**24, size - written)))
        file.flush()
        mapped = mmap.mmap(file.fileno(), size)
    return torch.from_numpy(np.frombuffer(mapped, dtype=np.float64).reshape(shape))


def _float64(name: str, rows: Rows, dim: int) -> Tensor:
    rows = torch.as_tensor(rows).detach()
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"{name} must be [rows, {dim}], got {tuple(rows.shape)}.")
    return rows.cpu().double() if rows.device.type == "mps" else rows.double()


def _vector(name: str, values: Float[Tensor, "dim"], dim: int) -> Float[Tensor, "dim"]:
    found = torch.as_tensor(values).detach().cpu().double()
    if found.shape != (dim,):
        raise ValueError(f"{name} must be one value for each of {dim} dimensions, got shape {tuple(found.shape)}.")
    return found
