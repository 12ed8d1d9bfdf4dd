"""Rows gathered by label, once, for every site, draw and checkpoint that shares the labels.

Labels are known before a model runs, so sorting them is done ahead; what remains at run time is one gathered sum per
segment. A label seen once needs no sum at all: the entropy of its mean is the entropy of its only row.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from infocomp.estimators.nulls import paired_rows, paired_within

PIECE = 128  # rows summed in float32 one after the other; pieces of a longer segment are added in float64


@dataclass(frozen=True)
class Groups:
    """Labels of N rows as sorted segments.

    `counts` holds the rows of every label, `repeated` the labels (as positions in `counts`) with two rows or more,
    `rows` their rows one segment after the other, cut into pieces that begin at `starts`; `first_piece` is the first
    one of each repeated label, `long` are the repeated labels of several pieces, `long_pieces` those pieces one label
    after the other from `long_starts` on. `single_rows` is the row of each label seen once. Rows labelled -1 are left
    out: `n` counts the rest.
    """

    n: int
    n_all: int
    counts: Int[np.ndarray, "labels"]
    repeated: Int[np.ndarray, "repeated"]
    rows: Int[Tensor, "gathered"]
    starts: Int[Tensor, "pieces"]
    first_piece: Int[Tensor, "repeated"]
    long: Int[Tensor, "long"]
    long_pieces: Int[Tensor, "long_pieces"]
    long_starts: Int[Tensor, "long"]
    single_rows: Int[Tensor, "singles"]
    _copies: dict[torch.device, "Groups"] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, labels: Int[np.ndarray, "rows"], row_of: Int[np.ndarray, "rows"] | None = None) -> "Groups":
        """Gather `labels`; `row_of[i]` is the row that label i is paired with (itself by default, -1 for none)."""
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"labels must be one integer per row, got {labels.dtype} of shape {labels.shape}.")
        valid = labels >= 0
        if row_of is not None:
            valid &= row_of >= 0
        kept = np.flatnonzero(valid)
        order = kept[np.argsort(labels[kept], kind="stable")]
        ordered = labels[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
        counts = np.diff(np.r_[first, len(ordered)])
        rows = order if row_of is None else row_of[order]

        repeated = np.flatnonzero(counts >= 2)
        in_repeated = np.repeat(counts >= 2, counts)
        pieces = -(-counts[repeated] // PIECE)
        first_piece = np.cumsum(pieces) - pieces
        piece_label = np.repeat(np.arange(len(repeated)), pieces)
        within = np.arange(len(piece_label)) - np.repeat(first_piece, pieces)
        segment_start = np.cumsum(counts[repeated]) - counts[repeated]
        starts = np.repeat(segment_start, pieces) + within * PIECE
        long = np.flatnonzero(pieces > 1)
        return cls(
            n=len(order),
            n_all=len(labels),
            counts=counts,
            repeated=repeated,
            rows=torch.from_numpy(rows[in_repeated].astype(np.int32)),
            starts=torch.from_numpy(starts.astype(np.int32)),
            first_piece=torch.from_numpy(first_piece),
            long=torch.from_numpy(long),
            long_pieces=torch.from_numpy(np.flatnonzero(pieces[piece_label] > 1)),
            long_starts=torch.from_numpy(np.cumsum(pieces[long]) - pieces[long]),
            single_rows=torch.from_numpy(rows[~in_repeated].astype(np.int64)),
        )

    @property
    def n_labels(self) -> int:
        return len(self.counts)

    @property
    def singleton_mass(self) -> float:
        """Share of the rows whose label is seen only once."""
        return len(self.single_rows) / self.n if self.n else 0.0

    @cached_property
    def entropy(self) -> float:
        """Plug-in entropy of the label in nats."""
        share = self.counts / self.n
        return float(-(share * np.log(share)).sum())

    @cached_property
    def population(self) -> bytes | None:
        """Which rows the labels cover, as bits; None where they cover all. Equal for label sets over the same rows."""
        if self.n == self.n_all:
            return None
        covered = np.zeros(self.n_all, dtype=bool)
        covered[self.all_rows().numpy()] = True
        return np.packbits(covered).tobytes()

    @cached_property
    def sizes(self) -> tuple[Int[np.ndarray, "sizes"], Int[np.ndarray, "sizes"]]:
        """Row counts that occur among the labels, and how many rows lie in labels of each."""
        sizes, labels = np.unique(self.counts, return_counts=True)
        return sizes, sizes * labels

    def all_rows(self) -> Int[Tensor, "labelled"]:
        """Every labelled row, as paired."""
        return torch.cat([self.rows.long(), self.single_rows])

    def _on(self, device: torch.device) -> "Groups":
        """This with its indices on a device, copied there once."""
        if device.type == "cpu":
            return self
        if device not in self._copies:
            names = ("rows", "starts", "first_piece", "long", "long_pieces", "long_starts")
            self._copies[device] = replace(self, **{name: getattr(self, name).to(device) for name in names})
        return self._copies[device]

    def sums(self, plane: Float[Tensor, "rows bins"]) -> Float[Tensor, "repeated bins"]:
        """Sum of the rows of each repeated label: a gathered segment sum, in float32 by pieces, then float64.

        Deterministic on every device, for each segment is added up in its own order.
        """
        here = self._on(plane.device)
        if not len(here.starts):
            return plane.new_zeros((0, plane.shape[1]))
        pieces = embedding_bag(here.rows, plane, here.starts, mode="sum")
        if not len(here.long):
            return pieces
        sums = pieces[here.first_piece]
        several = pieces[here.long_pieces]
        several = several.cpu().double() if plane.device.type == "mps" else several.double()
        index = torch.arange(len(several), device=several.device)
        whole = embedding_bag(index, several, here.long_starts.to(several.device), mode="sum")
        sums[here.long] = whole.to(sums.device, sums.dtype)
        return sums


@dataclass(frozen=True)
class LabelGroups:
    """A label set ready to be reduced against any site.

    `direction` is "input" (its information is complexity) or "output" (expressivity); `order` is the n of an n-gram
    or None; `paired` gathers the same labels with rows of other documents (the null), None where there is no pairing.
    """

    name: str
    order: int | None
    direction: str
    groups: Groups
    paired: Groups | None

    @classmethod
    def of(
        cls,
        name: str,
        order: int | None,
        direction: str,
        labels: Int[np.ndarray, "rows"],
        documents: Int[np.ndarray, "rows"] | None,
        windows: Int[np.ndarray, "rows"] | None = None,
        partner: Int[np.ndarray, "rows"] | None = None,
    ) -> "LabelGroups":
        """Gather labels and their null; `partner` is `paired_rows(documents, windows)` where that is known already.

        Where some rows have no label (-1), the labelled rows are paired among themselves.
        """
        if documents is None:
            return cls(name, order, direction, Groups.of(labels), None)
        if (labels < 0).any():
            partner = paired_within(np.flatnonzero(labels >= 0), documents, windows)
        elif partner is None:
            partner = paired_rows(documents, windows)
        paired = None if partner is None else Groups.of(labels, partner)
        return cls(name, order, direction, Groups.of(labels), paired)

    @property
    def quantity(self) -> str:
        return "expressivity" if self.direction == "output" else "complexity"
