"""How sharply the rows of a text turn from token to token: mean angle between consecutive differences, in radians.

Hosseini & Fedorenko (2023), arXiv 2311.04930, and Skean et al. (2025), arXiv 2502.02013: with rows z_1, z_2, … of one
text and v_k = z_{k+1} − z_k, the curvature is the mean of arccos(v_k·v_{k+1} / ‖v_k‖‖v_{k+1}‖), first over a text, then
over texts. 0 is a straight line, π a return. Code published with the second paper takes the angle between the rows
themselves; here it is the differences, as both papers define it.

The null is exact and needs no shuffling: the angle between b − a and c − b is π less the triangle's angle at b, and the
three angles of a triangle sum to π, so that over all orders of any three different rows the mean is 2π/3 (120°). Rows
that recur at a distance of two, as tokens do at the embedding, lift it: such a return has the angle π in every order
that counts. A difference of length zero has no direction: its angles are left out and counted.

State is, for each document, the sum and the number of its angles (float64), and the last two rows, with which the next
update goes on: any cut into batches gives the same to rounding.
"""

import math
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infocomp.estimators import Estimate
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.numbers import quantile, standard_error

SHUFFLED = 2 * math.pi / 3
_BLOCK = 1 << 17  # values of rows that are turned to float64 at once: they stay in a core's cache


class Curvature:
    """Angles of one site, summed by document; `merge` takes the documents of another state, in any order."""

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.dim = dim
        self.left_out = 0
        self.not_finite = 0
        self._sums: dict[int, tuple[float, int]] = {}
        self._open: Tensor | None = None  # the last rows, at most two, of the run that the next update may go on with
        self._open_document = -1

    @property
    def documents(self) -> Int[np.ndarray, "documents"]:
        """The documents seen, in the order of the influences: also those that are too short for an angle."""
        return np.array(sorted(self._sums), dtype=np.int64)

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        breaks: Bool[np.ndarray, "rows"],
        documents: Int[np.ndarray, "rows"],
    ) -> None:
        """Add rows in the order of their text; `breaks` is True where a new run of consecutive positions begins.

        A change of document begins a run too. ValueError: shapes that do not match, or a first row that goes on with a
        run of which nothing was seen here.
        """
        breaks, documents = np.array(breaks, dtype=bool), np.asarray(documents)
        if (
            rows.ndim != 2
            or rows.shape[1] != self.dim
            or breaks.shape != (len(rows),)
            or documents.shape != (len(rows),)
        ):
            raise ValueError(
                f"curvature of width {self.dim} needs rows [n, {self.dim}] with one break and one document each, got "
                f"shapes {tuple(rows.shape)}, {breaks.shape} and {documents.shape}."
            )
        if not len(rows):
            return
        rows = rows.detach()
        rows = rows.cpu() if rows.device.type == "mps" else rows  # no float64 there
        breaks[1:] |= documents[1:] != documents[:-1]
        if not breaks[0] and self._open is None:
            raise ValueError(
                "the first row of curvature goes on with a run that was not seen here; mark it as a break, or update "
                "with whole runs after a merge."
            )
        if self._open is not None and not breaks[0] and documents[0] == self._open_document:
            kept = len(self._open)
            rows = torch.cat([self._open.to(rows.device, rows.dtype), rows])
            breaks = np.r_[True, np.zeros(kept - 1, dtype=bool), breaks]
            documents = np.r_[np.full(kept, self._open_document), documents]
        breaks[0] = True
        run = np.cumsum(breaks)
        self._add(rows, run[2:] == run[:-2], documents)
        self._open = rows[-2:][run[-2:] == run[-1]].clone()
        self._open_document = int(documents[-1])

    def merge(self, other: Self) -> None:
        """Add the documents of another state of the same width (else ValueError); the next update begins a run."""
        if self.dim != other.dim:
            raise ValueError(f"curvatures of widths {self.dim} and {other.dim} cannot be merged: one width is needed.")
        for document, (total, count) in other._sums.items():
            before = self._sums.get(document, (0.0, 0))
            self._sums[document] = before[0] + total, before[1] + count
        self.left_out += other.left_out
        self.not_finite += other.not_finite
        self._open = None

    def estimate(self) -> list[Estimate]:
        """Mean angle in radians, each document weighted equally (the definition) and each angle equally ("frequency").

        Influence: one value a document of `documents`; a document without an angle has none in the first. Refused
        with the reason where there is no angle, or where a row was NaN or infinite.
        """
        sums, counts = np.array([self._sums[one] for one in self.documents.tolist()], dtype=float).reshape(-1, 2).T
        n, message = int(counts.sum()), ""
        if self.left_out:
            message = f"{self.left_out} of {n + self.left_out} angles left out: a difference of length zero"
        if self.not_finite:
            message = f"not defined: {self.not_finite} differences of rows are NaN or infinite"
        elif not n:
            message = "not defined: no three consecutive rows that differ" + (f"; {message}" if message else "")
        if self.not_finite or not n:
            return [_nothing(weighting, n, message) for weighting in ("documents", "frequency")]
        has = counts > 0
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=has)
        by_document = means[has].sum() / has.sum()
        by_angle = sums.sum() / n
        return [
            _estimate("documents", by_document, np.where(has, means - by_document, 0.0) / has.sum(), n, message),
            _estimate("frequency", by_angle, (sums - by_angle * counts) / n, n, message),
        ]

    def _add(self, rows: Tensor, whole: np.ndarray, documents: np.ndarray) -> None:
        """`whole[i]`: rows i, i + 1 and i + 2 are of one run."""
        angles, lengths = _angles(rows)
        broken = ~np.isfinite(lengths)
        moves = (lengths > 0) & ~broken
        defined = whole & moves[:-1] & moves[1:]
        of_known = whole & ~broken[:-1] & ~broken[1:]
        self.left_out += int((of_known & ~defined).sum())
        self.not_finite += int((whole & ~of_known).sum())
        names, index = np.unique(documents, return_inverse=True)
        middle = index[1:-1]
        totals = np.bincount(middle, np.where(defined, angles, 0.0), len(names))
        counts = np.bincount(middle, defined, len(names)).astype(int)
        for document, total, count in zip(names.tolist(), totals.tolist(), counts.tolist(), strict=True):
            before = self._sums.get(document, (0.0, 0))
            self._sums[document] = before[0] + total, before[1] + count


def _angles(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Angle at each inner row and squared length of each difference, in float64, a block of rows at a time."""
    block = max(2, _BLOCK // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    lengths, products, last = [], [], None
    for begin in range(0, len(rows) - 1, block):
        part = rows[begin : begin + block + 1].double()
        differences = part[1:] - part[:-1]
        lengths.append((differences * differences).sum(dim=1))
        products.append((differences[1:] * differences[:-1]).sum(dim=1))
        if last is not None:
            products[-1] = torch.cat([(last * differences[0]).sum().reshape(1), products[-1]])
        last = differences[-1]
    if not lengths:
        return np.zeros(0), np.zeros(0)
    squared, inner = torch.cat(lengths).cpu().numpy(), torch.cat(products).cpu().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = inner / np.sqrt(squared[1:] * squared[:-1])
    return np.arccos(np.clip(cosine, -1.0, 1.0)), squared


def _estimate(weighting: str, value: float, influence: np.ndarray, n: int, message: str) -> Estimate:
    error, interval = None, None
    if len(influence) >= FEWEST_DOCUMENTS:
        error = standard_error(influence)
        half = quantile(len(influence)) * error
        interval = (float(value) - half, float(value) + half)
    else:
        few = f"no interval: {len(influence)} documents, at least {FEWEST_DOCUMENTS} are needed"
        message = f"{message}; {few}" if message else few
    return Estimate(
        quantity="curvature",
        value=float(value),
        unit="radians",
        n=n,
        interval=interval,
        weighting=weighting,
        null=SHUFFLED,
        ceiling=math.pi,
        std_error=error,
        message=message,
        influence={"value": influence},
    )


def _nothing(weighting: str, n: int, message: str) -> Estimate:
    return Estimate("curvature", None, "radians", n, weighting=weighting, status="refused", message=f"{message}.")
