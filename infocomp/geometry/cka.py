"""Debiased linear CKA of all pairs of layers on one sample of rows (a ratio, no unit), with intervals by document.

CKA as in `pair_moments` (Song et al. 2012; Kornblith et al. 2019; Nguyen et al. 2021), here through blocks of the n × n
Gram matrices: a layer's Gram matrix is made once, whatever the number of layers that it is compared with, and never
kept whole. With K̃ the Gram matrix less its diagonal, a pair of layers needs ⟨K̃, L̃⟩ and the inner product of their row
sums. Both are had without a group of documents g as well, ⟨K̃, L̃⟩ less twice its rows of g plus its block g × g, so
that the jackknife over groups costs next to nothing and is exact.

The null pairs each row with one of another document, runs of a document staying runs: it shows what dependence within
documents makes of independent rows. n = 4,096, d = 512, 7 × 7 layers: 180 GFLOP in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, document_groups
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.estimators.reservoir import turned_rows
from infocomp.geometry.pair_moments import FEWEST_ROWS, Rows

GROUPS = 32
MOST_ROWS = 4096
_BLOCK = 128


@dataclass(frozen=True)
class CkaMap:
    """CKA of layer i of one model and layer j of another.

    values: NaN only where a layer does not vary (`estimates` gives None with the reason). null: at rows of other
    documents; None without documents. influence: what leaving out each group of documents does, so that
    `numbers.standard_error` of it is the jackknife's; None below 8 documents. message: why something is None.
    """

    values: Float[np.ndarray, "layers_x layers_y"]
    null: Float[np.ndarray, "layers_x layers_y"] | None
    influence: Float[np.ndarray, "layers_x layers_y groups"] | None = field(repr=False)
    n: int
    message: str = ""

    @property
    def std_error(self) -> Float[np.ndarray, "layers_x layers_y"] | None:
        """Over documents, by the jackknife."""
        return None if self.influence is None else np.apply_along_axis(standard_error, 2, self.influence)

    def estimates(self, sites_of_base: Sequence[str]) -> list[list[Estimate]]:
        """One list for each layer of x (the tuned model), in it one estimate for each layer of y, the base."""
        return [
            [self._estimate(i, j, f"vs {site}") for j, site in enumerate(sites_of_base)]
            for i in range(len(self.values))
        ]

    def _estimate(self, i: int, j: int, label: str) -> Estimate:
        value = float(self.values[i, j])
        if np.isnan(value):
            reason = "a layer's rows do not vary beyond rounding, so that CKA is 0/0."
            return Estimate("cka", None, "ratio", self.n, label=label, status="refused", message=reason)
        influence, message = None if self.influence is None else self.influence[i, j], self.message
        if influence is not None and not np.isfinite(influence).all():
            influence, reason = None, "no interval: without one group of documents a layer's rows do not vary"
            message = "; ".join(filter(None, [message, reason]))
        null = None if self.null is None or np.isnan(self.null[i, j]) else float(self.null[i, j])
        return estimate_of("cka", value, self.n, influence, label=label, null=null, message=message)


def cka_map(
    xs: Sequence[Rows],
    ys: Sequence[Rows],
    documents: Int[np.ndarray, "rows"] | None = None,
    groups: int = GROUPS,
    with_null: bool = True,
) -> CkaMap:
    """Debiased linear CKA of each of `xs` with each of `ys`: the same rows of every layer, float [rows, dim].

    Layers equal bit for bit give exactly 1 with an error of exactly 0. `documents` says which document a row is of.
    Raises ValueError for no layers, unequal or fewer than 4 or more than 4,096 rows, and rows that are not finite.
    """
    layers = checked_rows([*xs, *ys], documents, MOST_ROWS)
    if not xs or not ys:
        raise ValueError(f"a map needs layers of both models, and got {len(xs)} and {len(ys)}; give at least one each.")
    n = len(layers[0])
    group, message = groups_of(documents, n, groups)
    partner = turned_rows(documents) if with_null else None
    if with_null and (partner is None or (partner < 0).any()):
        partner = None
        message = "; ".join(filter(None, [message, "no null: rows of other documents cannot be paired"]))
    count = len(layers)
    if partner is not None:
        layers += [layer[torch.from_numpy(partner)] for layer in layers[len(xs) :]]
    order = np.arange(n) if group is None else np.argsort(group, kind="stable")
    owner = np.arange(n) // _BLOCK if group is None else group[order]
    sums = _Sums.of([layer[torch.from_numpy(order)] for layer in layers], owner, group is not None)
    values, null = _normalised(sums.hsic(), count, len(xs)), None
    if partner is not None:
        null = _normalised(sums.hsic(), count, len(xs), turned=True)
    influence = None
    if group is not None:
        left = np.stack([_normalised(sums.hsic(one), count, len(xs)) for one in range(len(sums.counts))], axis=-1)
        influence = jackknife_influence(left)
    for i, x in enumerate(layers[: len(xs)]):
        for j, y in enumerate(layers[len(xs) : count]):
            if x.shape == y.shape and torch.equal(x, y) and not np.isnan(values[i, j]):
                values[i, j] = 1.0
                if influence is not None:
                    influence[i, j] = 0.0
    return CkaMap(values, null, influence, n, message)


def jackknife_influence(left: Float[np.ndarray, "*shape groups"]) -> Float[np.ndarray, "*shape groups"]:
    """−(G − 1)/G · (θ without g − their mean): sums to 0, and `numbers.standard_error` of it is the jackknife's."""
    groups = left.shape[-1]
    return -(groups - 1) / groups * (left - left.mean(axis=-1, keepdims=True))


def groups_of(
    documents: Int[np.ndarray, "rows"] | None, rows: int, groups: int
) -> tuple[Int[np.ndarray, "rows"] | None, str]:
    """The jackknife's group of each row, or None and the reason; groups of whole documents, at most `groups`."""
    if documents is None:
        return None, "no interval: no documents were given"
    found = len(np.unique(documents))
    if found < FEWEST_DOCUMENTS:
        return None, f"no interval: {found} documents, at least {FEWEST_DOCUMENTS} are needed"
    return document_groups(np.asarray(documents), min(groups, found)), ""


def estimate_of(
    quantity: str,
    value: float,
    n: int,
    influence: Float[np.ndarray, "units"] | None,
    label: str = "",
    null: float | None = None,
    ceiling: float | None = 1.0,
    message: str = "",
) -> Estimate:
    """A ratio with its standard error and 95 % interval over what `influence` counts; none without one."""
    error = interval = kept = None
    if influence is not None:
        error = standard_error(influence)
        half = quantile(len(influence)) * error
        interval, kept = (value - half, value + half), {"value": influence}
    return Estimate(
        quantity,
        value,
        "ratio",
        n,
        interval=interval,
        label=label,
        null=null,
        ceiling=ceiling,
        std_error=error,
        message=message,
        influence=kept,
    )


def checked_rows(
    sides: Sequence[Rows], documents: Int[np.ndarray, "rows"] | None, most: int | None = None
) -> list[Float[Tensor, "rows dim"]]:
    """The rows of each side in float64 on the CPU. Raises ValueError as `cka_map` says."""
    found = [torch.as_tensor(rows).detach().cpu().double() for rows in sides]
    shapes = [tuple(rows.shape) for rows in found]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"rows are [rows, dim] with the same rows on every side, and have shapes {shapes}.")
    n = shapes[0][0] if shapes else FEWEST_ROWS
    if n < FEWEST_ROWS or (most is not None and n > most):
        raise ValueError(
            f"between {FEWEST_ROWS} and {most or 'any number of'} rows are compared, got {n}: sample them."
        )
    if documents is not None and np.shape(documents) != (n,):
        raise ValueError(f"documents has shape {np.shape(documents)}, the rows are {n}: one document a row is needed.")
    for number, rows in enumerate(found):
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"side {number} holds NaN or infinity; find the layer or checkpoint that makes them.")
    return found


# --- sums over blocks of the Gram matrices ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """What HSIC₁ of any two sides needs, whole and without each group of rows.

    products: ⟨K̃, L̃⟩; of_rows: its part in rows of a group; of_blocks: in a group's rows and columns. `rows[s, i]`: row
    sums of K̃ of side s; `by_group[s, i, g]`: their part in the columns of group g.
    """

    products: Float[np.ndarray, "sides sides"]
    of_rows: Float[np.ndarray, "groups sides sides"]
    of_blocks: Float[np.ndarray, "groups sides sides"]
    rows: Float[np.ndarray, "sides rows"]
    by_group: Float[np.ndarray, "sides rows groups"]
    owner: Int[np.ndarray, "rows"]
    counts: Int[np.ndarray, "groups"]

    @classmethod
    def of(cls, sides: list[Tensor], owner: Int[np.ndarray, "rows"], with_groups: bool) -> "_Sums":
        sides = [_scaled(side) for side in sides]
        counts = np.bincount(owner)
        parts = [torch.split(side, counts.tolist()) for side in sides]
        groups = len(counts)
        of_rows, of_blocks = np.zeros((2, groups, len(sides), len(sides)))
        for g in range(groups):
            for h in range(g, groups):
                grams = torch.stack([part[g] @ part[h].T for part in parts])
                if g == h:
                    grams.diagonal(dim1=1, dim2=2).zero_()
                flat = grams.flatten(1)
                found = (flat @ flat.T).numpy()
                of_rows[g] += found
                if g == h:
                    of_blocks[g] = found
                else:
                    of_rows[h] += found
        rows = torch.stack([side @ side.sum(dim=0) - (side**2).sum(dim=1) for side in sides])
        sums = [torch.stack([piece.sum(dim=0) for piece in part], dim=1) for part in parts]
        by_group = [side @ total for side, total in zip(sides, sums, strict=True)] if with_groups else []
        kept = torch.stack(by_group).numpy() if by_group else np.zeros((len(sides), len(owner), 0))
        return cls(of_rows.sum(axis=0), of_rows, of_blocks, rows.numpy(), kept, owner, counts)

    def hsic(self, without: int | None = None) -> Float[np.ndarray, "sides sides"]:
        """HSIC₁ of every two sides, on all rows or on those outside one group."""
        products, rows, n = self.products, self.rows, len(self.owner)
        if without is not None:
            kept = self.owner != without
            products = products - 2 * self.of_rows[without] + self.of_blocks[without]
            rows, n = rows[:, kept] - self.by_group[:, kept, without], int(kept.sum())
        if n < FEWEST_ROWS:
            return np.full_like(products, np.nan)
        totals = rows.sum(axis=1)
        across = np.outer(totals, totals) / ((n - 1) * (n - 2))
        return (products + across - 2 * (rows @ rows.T) / (n - 2)) / (n * (n - 3))


def _scaled(side: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Less its mean, over its spread: CKA does not see either, and a layer that does not vary becomes 0."""
    centred = side - side.mean(dim=0)
    spread = float((centred**2).sum(dim=1).mean().sqrt())
    rounding = 64 * np.finfo(np.float64).eps * float(side.abs().max())
    return centred / spread if spread > rounding * side.shape[1] ** 0.5 else torch.zeros_like(centred)


def _normalised(hsic: np.ndarray, layers: int, of_x: int, turned: bool = False) -> np.ndarray:
    """HSIC of x with y (or with y's turned rows, which stand last) over the root of both with themselves."""
    own = np.diag(hsic)
    start = layers if turned else of_x
    own = np.where(own > 0, own, np.nan)
    return hsic[:of_x, start : start + layers - of_x] / np.sqrt(np.outer(own[:of_x], own[of_x:layers]))
