"""The two products that every bottleneck iteration needs of a joint p(x, y), dense and sparse, on any device.

`to_y(q)` is Σ_x p(x, y) q(x, ·) and `to_x(v)` is Σ_y p(y|x) v(y, ·). A sparse joint is a list of pairs in two orders
(by x, by y), each product one weighted `embedding_bag`: in float32 that kernel is 2.5 times as fast as a CSR product
on a CPU, and it raises no beta warning. A sparse joint may carry a background a(x) b(y), a product law over all
pairs that is never written out: smoothing with back-off to a marginal is exactly that.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


def plogp(p: Tensor) -> Tensor:
    """p log p with 0 log 0 = 0, nats."""
    return torch.special.xlogy(p, p)


@dataclass(frozen=True, eq=False)
class DenseTable:
    """p(x, y) and p(y|x) as matrices; a row of probability zero has p(y|x) = 0."""

    table: Float[Tensor, "x y"]
    conditional: Float[Tensor, "x y"]

    @classmethod
    def of(cls, table: Float[Tensor, "x y"]) -> Self:
        return cls(table, safe_ratio(table, table.sum(1, keepdim=True)))

    def to_y(self, q: Float[Tensor, "x k"]) -> Float[Tensor, "y k"]:
        return self.table.T @ q

    def to_x(self, v: Float[Tensor, "y k"]) -> Float[Tensor, "x k"]:
        return self.conditional @ v

    def sums(self) -> tuple[Tensor, Tensor]:
        """p(x) and p(y)."""
        return self.table.sum(1), self.table.sum(0)

    def sum_plogp(self) -> Tensor:
        """−H(X, Y), nats."""
        return plogp(self.table).sum()

    def dense(self) -> Tensor:
        return self.table

    def moved(self, device: Any, dtype: Any) -> Self:
        return _moved(self, device, dtype)


@dataclass(frozen=True, eq=False)
class SparseTable:
    """Pairs with p(x, y) > 0 by x and by y, and the background a(x) b(y) where there is one."""

    columns: Int[Tensor, "pairs"]
    starts: Int[Tensor, "x"]
    values: Float[Tensor, "pairs"]
    conditional: Float[Tensor, "pairs"]
    rows_by_y: Int[Tensor, "pairs"]
    starts_by_y: Int[Tensor, "y"]
    values_by_y: Float[Tensor, "pairs"]
    background_x: Float[Tensor, "x"] | None = None
    background_y: Float[Tensor, "y"] | None = None
    background_conditional: Float[Tensor, "x 1"] | None = None

    @classmethod
    def of(
        cls, x: Tensor, y: Tensor, p: Tensor, sizes: tuple[int, int], background: tuple[Tensor, Tensor] | None = None
    ) -> Self:
        """From distinct pairs sorted by (x, y); `background` is (a, b) with b summing to one."""
        by_y = torch.argsort(y, stable=True)
        p_x = torch.zeros(sizes[0], dtype=p.dtype, device=p.device).index_add_(0, x, p)
        if background is not None:
            p_x = p_x + background[0]
        made = cls(x.new_empty(0), x, p, p, x[by_y], y, p[by_y])
        made = replace(made, columns=y, starts=_starts(x, sizes[0]), starts_by_y=_starts(y, sizes[1]))
        made = replace(made, conditional=safe_ratio(p, p_x[x]))
        if background is None:
            return made
        share = safe_ratio(background[0], p_x)[:, None]
        return replace(made, background_x=background[0], background_y=background[1], background_conditional=share)

    def to_y(self, q: Float[Tensor, "x k"]) -> Float[Tensor, "y k"]:
        found = _bags(q, self.rows_by_y, self.starts_by_y, self.values_by_y)
        if self.background_x is not None and self.background_y is not None:
            found += self.background_y[:, None] * (self.background_x @ q)
        return found

    def to_x(self, v: Float[Tensor, "y k"]) -> Float[Tensor, "x k"]:
        found = _bags(v, self.columns, self.starts, self.conditional)
        if self.background_y is not None and self.background_conditional is not None:
            found += self.background_conditional * (self.background_y @ v)
        return found

    def rows(self) -> Int[Tensor, "pairs"]:
        """x of each pair, in the order of `columns`."""
        lengths = torch.diff(self.starts, append=self.starts.new_tensor([len(self.columns)]))
        return torch.repeat_interleave(lengths)

    def at_pairs(self) -> Float[Tensor, "pairs"]:
        """p(x, y) at the listed pairs, background included."""
        if self.background_x is None or self.background_y is None:
            return self.values
        return self.values + self.background_x[self.rows()] * self.background_y[self.columns]

    def sums(self) -> tuple[Tensor, Tensor]:
        ones = self.values.new_ones
        p_x = self.values.new_zeros(len(self.starts)).index_add_(0, self.rows(), self.values)
        p_y = self.to_y(ones(len(self.starts), 1))[:, 0]
        return (p_x if self.background_x is None else p_x + self.background_x), p_y

    def sum_plogp(self) -> Tensor:
        """−H(X, Y): the background's full sum by its factors, then the listed pairs put right."""
        found = plogp(self.at_pairs()).sum()
        if self.background_x is None or self.background_y is None:
            return found
        a, b = self.background_x, self.background_y
        everywhere = plogp(a).sum() * b.sum() + a.sum() * plogp(b).sum()
        return found + everywhere - plogp(a[self.rows()] * b[self.columns]).sum()

    def dense(self) -> Tensor:
        table = self.values.new_zeros(len(self.starts), len(self.starts_by_y))
        table[self.rows(), self.columns] = self.values
        if self.background_x is None or self.background_y is None:
            return table
        return table + self.background_x[:, None] * self.background_y

    def moved(self, device: Any, dtype: Any) -> Self:
        return _moved(self, device, dtype)


def safe_ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where whole is 0."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, torch.ones_like(whole)), torch.zeros_like(part))


def _starts(ids: Tensor, size: int) -> Tensor:
    counts = torch.bincount(ids, minlength=size)
    return counts.cumsum(0) - counts


def _bags(values: Tensor, ids: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(ids, values.contiguous(), starts, mode="sum", per_sample_weights=weights)


def _moved(table: Any, device: Any, dtype: Any) -> Any:
    changed = {}
    for field in fields(table):
        value = getattr(table, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    return replace(table, **changed)
