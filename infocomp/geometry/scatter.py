"""The centred scatter of a site's rows in one pass: count, mean, S = Σ (z − mean)(z − mean)ᵀ, in float64, mergeable.

Every spectrum of a site follows from it. Rows of any dtype are converted once, into a block of `BLOCK` rows; a full
block is centred at its own mean and added by one symmetric product (BLAS dsyrk, half the operations of a full one).
The shift between the block's mean and the mean so far enters as one more row, √(n·m/(n + m))·(mean_block − mean): the
pairwise update of Chan, Golub and LeVeque (1983) in the same product. Blocks are filled in the order of arrival, so
that rows cut into batches in any way give the same state, bit by bit, until something is read or merged in between.

Beside it stands Σ z/‖z‖, from which the mean cosine over all pairs of rows follows exactly:
Σ_{i≠j} cos(z_i, z_j) = ‖Σ z/‖z‖‖² − n.

S takes 8·d² bytes (128 MiB at d = 4,096, 512 MiB at d = 8,192), in memory or in a scratch file that is unlinked as
soon as it is open: a process that is killed leaves nothing behind. Reading eigenvalues takes the same once more.
The products run on the CPU on BLAS's own threads (OMP_NUM_THREADS, or threadpoolctl), wherever the rows come from.
"""

import mmap
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import get_blas_funcs
from torch import Tensor

BLOCK = 1024  # rows in one symmetric product: long enough for its speed, 4 MiB at d = 512
MOST_DIM = 8192
_TILE = 512

_add_square: Any = get_blas_funcs("syrk", dtype=np.float64)  # c + Σ rowᵀrow on one triangle, in place


class Scatter:
    """Count, mean, centred scatter and sum of unit rows of rows [dim]; any cut and any order of merges agree.

    >>> import numpy as np
    >>> site = Scatter(dim=2)
    >>> site.update(np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]))
    >>> site.count, site.mean.tolist(), site.centred().tolist()
    (3, [2.0, 1.0], [[2.0, 0.0], [0.0, 6.0]])
    """

    def __init__(self, dim: int, scratch: Path | None = None) -> None:
        """`scratch` is a folder for the scatter's file, None for memory.

        Raises ValueError where dim is not between 1 and 8,192, OSError where the disk cannot hold 8·dim² bytes.
        """
        if not 1 <= dim <= MOST_DIM:
            raise ValueError(f"dim must lie between 1 and {MOST_DIM}, got {dim}; project wider rows first.")
        self.dim = dim
        self._settled, self._filled = 0, 0
        self._mean = np.zeros(dim)
        self._units, self._nonzero = np.zeros(dim), 0
        self._block = np.zeros((BLOCK + 1, dim))  # the last row is for the shift
        self._map: mmap.mmap | None = None
        self._scatter: np.ndarray | None = (
            np.zeros((dim, dim), order="F") if scratch is None else self._mapped(Path(scratch))
        )

    def _mapped(self, folder: Path) -> np.ndarray:
        folder.mkdir(parents=True, exist_ok=True)
        size = 8 * self.dim**2
        with tempfile.TemporaryFile(dir=folder, prefix="scatter-") as file:
            for start in range(
                0, size, 2**24
            ):  # written, not only sized: a full disk is an OSError here, no crash later
                file.write(bytes(min(2**24, size - start)))
            file.flush()
            self._map = mmap.mmap(file.fileno(), size)
        return np.frombuffer(self._map, dtype=np.float64).reshape((self.dim, self.dim), order="F")

    @property
    def on_disk(self) -> bool:
        return self._map is not None

    def update(self, rows: Float[Tensor, "rows dim"] | Float[np.ndarray, "rows dim"]) -> None:
        """Add rows of any floating dtype and device; the rows are not changed.

        Raises ValueError for another width and for rows that are not finite; nothing of that call is kept then.
        """
        given = torch.as_tensor(rows).detach()
        if given.ndim != 2 or given.shape[1] != self.dim:
            raise ValueError(f"rows must be [rows, {self.dim}], got {tuple(given.shape)}.")
        self._open()
        given = given.cpu() if given.dtype in (torch.float32, torch.float64) else given.cpu().float()
        array, start = given.numpy(), 0  # in NumPy from here: PyTorch's threads and those of BLAS wait for each other
        with np.errstate(over="ignore", invalid="ignore"):
            total = array.sum()
        if not np.isfinite(total):  # a sum may overflow where no row does: then they are counted
            bad = int((~np.isfinite(array).all(axis=1)).sum())
            if bad:
                raise ValueError(f"{bad} of {len(array)} rows are not finite; find where the model overflows.")
        while start < len(array):
            taken = min(BLOCK - self._filled, len(array) - start)
            self._block[self._filled : self._filled + taken] = array[start : start + taken]
            self._filled, start = self._filled + taken, start + taken
            if self._filled == BLOCK:
                self._settle()

    def merge(self, other: Self) -> None:
        """Add the rows of another state of the same width (else ValueError); `other` keeps its rows."""
        if self.dim != other.dim:
            raise ValueError(f"scatters of widths {self.dim} and {other.dim} cannot be merged: take rows of one site.")
        mine, its = self._settle(), other._settle()
        if not other._settled:
            return
        mine += its
        self._block[0] = self._shifted(other._settled, other._mean)
        _add_square(1.0, self._block[:1].T, beta=1.0, c=mine, overwrite_c=1, lower=1)
        self._units, self._nonzero = self._units + other._units, self._nonzero + other._nonzero

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._settled + self._filled

    @property
    def mean(self) -> Float[np.ndarray, "dim"]:
        """The mean row."""
        self._settle()
        return self._mean.copy()

    @property
    def trace(self) -> float:
        """Σ ‖z − mean‖²."""
        return float(np.trace(self._settle()))

    @property
    def mean_cosine(self) -> float | None:
        """Mean cosine over all pairs of different rows; rows of length 0 are left out; None below two rows.

        Source: Ethayarajh (2019), arXiv 1909.00512, section 3.2 ("anisotropy"), over all pairs, not a sample of them.
        """
        self._settle()
        n = self._nonzero
        return None if n < 2 else float((self._units @ self._units - n) / (n * (n - 1)))

    def lower(self) -> Float[np.ndarray, "dim dim"]:
        """A copy of S in column order of which only the lower triangle means something: what eigh(lower=True) reads."""
        return self._settle().copy(order="F")

    def centred(self) -> Float[np.ndarray, "dim dim"]:
        """S = Σ (z − mean)(z − mean)ᵀ, a symmetric copy."""
        return _mirrored(self.lower())

    def uncentred(self) -> Float[np.ndarray, "dim dim"]:
        """Σ zzᵀ = S + n · mean meanᵀ, a symmetric copy."""
        return _mirrored(self.lower_uncentred())

    def lower_uncentred(self) -> Float[np.ndarray, "dim dim"]:
        """As `lower`, of Σ zzᵀ."""
        found = self.lower()
        row = np.sqrt(self._settled) * self._mean
        return _add_square(1.0, row[:, None], beta=1.0, c=found, overwrite_c=1, lower=1)

    def close(self) -> None:
        """Give the memory and the scratch file back; what is read or added afterwards is a ValueError."""
        self._scatter, self._block = None, self._block[:1]
        self._map = None  # unmapped with its last view; the file is unlinked already

    def _open(self) -> np.ndarray:
        if self._scatter is None:
            raise ValueError(f"this scatter of width {self.dim} is closed; read what is needed before close().")
        return self._scatter

    def _settle(self) -> np.ndarray:
        """Bring the rows of the block into the scatter."""
        scatter, n = self._open(), self._filled
        if not n:
            return scatter
        rows = self._block[:n]
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        self._units += np.divide(1.0, norms, out=np.zeros(n), where=norms > 0) @ rows
        self._nonzero += int(np.count_nonzero(norms))
        mean = rows.mean(axis=0)
        rows -= mean
        self._block[n] = self._shifted(n, mean)
        self._filled = 0
        _add_square(1.0, self._block[: n + 1].T, beta=1.0, c=scatter, overwrite_c=1, lower=1)
        return scatter

    def _shifted(self, count: int, mean: np.ndarray) -> np.ndarray:
        """Count and mean with `count` rows more; the row whose square is what the two means differ by."""
        total, shift = self._settled + count, mean - self._mean
        row = np.sqrt(self._settled * count / total) * shift
        self._mean = self._mean + shift * (count / total)
        self._settled = total
        return row


def bytes_needed(dim: int, on_disk: bool = False) -> int:
    """Bytes of memory of one site's `Scatter` while its spectrum is read: S unless on disk, its copy, the block."""
    return 8 * dim**2 * (1 if on_disk else 2) + 8 * dim * (BLOCK + 1)


def scratch_needed(dims: list[int], memory_budget: int) -> bool:
    """Whether the scatters of sites of these widths, and one copy to read a spectrum from, exceed the budget in bytes.

    What then lies on disk are 8·d² bytes a site.
    """
    held = sum(8 * dim**2 + 8 * dim * (BLOCK + 1) for dim in dims)
    return held + 8 * max(dims, default=0) ** 2 > memory_budget


def _mirrored(lower: np.ndarray) -> np.ndarray:
    """The lower triangle copied over the upper one, in place, tile by tile."""
    dim = len(lower)
    for start in range(0, dim, _TILE):
        stop = min(start + _TILE, dim)
        tile = lower[start:stop, start:stop]
        tile[...] = np.tril(tile) + np.tril(tile, -1).T
        lower[start:stop, stop:] = lower[stop:, start:stop].T
    return lower
