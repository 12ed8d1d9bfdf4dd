"""A joint law p(x, y) of two discrete variables, dense or sparse; informations in bits at its edge, nats inside.

    >>> Joint.of([[0.45, 0.05], [0.05, 0.45]]).mutual_information       # 1 − h(0.1)
    0.531...

Source of the definitions: Cover & Thomas (2006), Elements of Information Theory, ch. 2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from infocomp.bottleneck.storage import DenseTable, SparseTable, plogp
from infocomp.units import bits

SUM_TOLERANCE = 1e-6
"""How far from one a table may sum: float32 tables of a million entries lie well inside."""


@dataclass(frozen=True, eq=False)
class Joint:
    """p(x, y) with its marginals. Made by `Joint.of` (a table) or `Joint.from_pairs` (a list of pairs, sparse)."""

    storage: DenseTable | SparseTable
    p_x: Float[Tensor, "x"]
    p_y: Float[Tensor, "y"]
    weight: float = 1.0
    """The sum of the weights before they were divided by it: the number of pairs for a list of pairs, else 1."""

    @classmethod
    def of(cls, table: ArrayLike | Tensor) -> "Joint":
        """From a table p(x, y) that sums to one, kept dense in float64 on the table's device.

        ValueError of one sentence: not a matrix, empty, NaN or infinite, negative, or not summing to one.
        """
        p = _float64(table)
        if p.ndim != 2 or not p.numel():
            raise ValueError(f"p(x, y) must be a matrix with at least one entry; it has shape {tuple(p.shape)}")
        check_weights(p, "p(x, y)")
        total = float(p.sum())
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"p(x, y) must sum to one; it sums to {total:.6g}: divide it by its sum, or give counts")
        storage = DenseTable.of(p / total)
        return cls(storage, *storage.sums())

    @classmethod
    def from_pairs(
        cls,
        x_ids: ArrayLike | Int[Tensor, "n"],
        y_ids: ArrayLike | Int[Tensor, "n"],
        weights: ArrayLike | Float[Tensor, "n"] | None = None,
        sizes: tuple[int, int] | None = None,
    ) -> "Joint":
        """From pairs of ids, each counted once or by its weight, kept sparse; equal pairs are added up.

        Weights are counts or probabilities and are divided by their sum. `sizes` are |X| and |Y|, by default the
        largest id plus one. ValueError of one sentence: no pairs, unequal lengths, ids that are negative, no whole
        numbers or not below `sizes`; weights that are negative, NaN, or all zero.
        """
        x, y, p = distinct_pairs(x_ids, y_ids, weights, sizes)
        sizes = sizes or (int(x.max()) + 1, int(y.max()) + 1)
        total = float(p.sum())
        storage = SparseTable.of(x, y, p / total, sizes)
        return cls(storage, *storage.sums(), weight=total)

    @property
    def sizes(self) -> tuple[int, int]:
        """|X|, |Y|."""
        return len(self.p_x), len(self.p_y)

    @property
    def sparse(self) -> bool:
        return isinstance(self.storage, SparseTable)

    @cached_property
    def mutual_information(self) -> float:
        """I(X; Y), bits."""
        return self.entropy_x + self.entropy_y - self.joint_entropy

    @cached_property
    def entropy_x(self) -> float:
        """H(X), bits."""
        return bits(-float(plogp(self.p_x).sum()))

    @cached_property
    def entropy_y(self) -> float:
        """H(Y), bits."""
        return bits(-float(plogp(self.p_y).sum()))

    @cached_property
    def joint_entropy(self) -> float:
        """H(X, Y), bits."""
        return bits(-float(self.storage.sum_plogp()))

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> "Joint":
        """The same joint on another device or in another dtype; float32 is for iterating, not for evaluating."""
        moved = self.storage.moved(device, dtype)
        return Joint(
            moved, self.p_x.to(device=device, dtype=dtype), self.p_y.to(device=device, dtype=dtype), self.weight
        )

    def table(self) -> Float[Tensor, "x y"]:
        """p(x, y) as a matrix; for alphabets that are small enough."""
        return self.storage.dense()


def distinct_pairs(
    x_ids: Any, y_ids: Any, weights: Any = None, sizes: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct pairs sorted by (x, y) and the float64 sum of weights of each; zero weights are left out."""
    x, y = _ids(x_ids, "x_ids"), _ids(y_ids, "y_ids")
    if len(x) != len(y) or not len(x):
        raise ValueError(f"x_ids and y_ids must be equally long and not empty; they have {len(x)} and {len(y)} entries")
    for name, ids, size in (("x_ids", x, sizes and sizes[0]), ("y_ids", y, sizes and sizes[1])):
        if int(ids.min()) < 0 or (size is not None and int(ids.max()) >= size):
            allowed = "not negative" if size is None else f"from 0 to {size - 1}"
            raise ValueError(f"{name} must be {allowed}; they run from {int(ids.min())} to {int(ids.max())}")
    width = int(y.max()) + 1
    keys, place, count = torch.unique(x * width + y, return_inverse=True, return_counts=True)
    p = count.to(torch.float64)
    if weights is not None:
        w = _float64(weights)
        if w.shape != x.shape:
            raise ValueError(f"weights must have one entry a pair; they have shape {tuple(w.shape)}, pairs {len(x)}")
        check_weights(w, "weights")
        p = torch.zeros_like(p).index_add_(0, place, w)
        if not float(p.sum()) > 0:
            raise ValueError("weights must not all be zero; their sum is 0")
        keys, p = keys[p > 0], p[p > 0]
    return keys // width, keys % width, p


def check_weights(p: Tensor, name: str) -> None:
    """ValueError where an entry is NaN, infinite or negative."""
    if not bool(torch.isfinite(p).all()):
        raise ValueError(f"{name} must be finite; {int((~torch.isfinite(p)).sum())} entries are NaN or infinite")
    if bool((p < 0).any()):
        raise ValueError(f"{name} must not be negative; its smallest entry is {float(p.min()):.6g}")


def check_betas(betas: Any, device: Any = None) -> Float[Tensor, "b"]:
    """Betas as a float64 vector; ValueError unless all are finite and above zero, and there is at least one."""
    found = _float64(betas).to(device).flatten()
    if not len(found):
        raise ValueError("betas must hold at least one number; it is empty")
    bad = found[~(torch.isfinite(found) & (found > 0))]
    if len(bad):
        raise ValueError(f"beta must be a finite number above 0; {float(bad[0]):g} is not (at 0 all points are (0, 0))")
    return found


def _float64(values: Any) -> Tensor:
    """As float64; through NumPy unless it is a tensor, since torch would read a list of floats as float32."""
    return values.to(torch.float64) if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float64))


def _ids(ids: Any, name: str) -> Tensor:
    found = ids if isinstance(ids, Tensor) else torch.from_numpy(np.array(ids))
    if found.ndim != 1 or found.is_floating_point() or found.dtype == torch.bool:
        raise ValueError(f"{name} must be a list of whole numbers; it has shape {tuple(found.shape)}, {found.dtype}")
    return found.long()
