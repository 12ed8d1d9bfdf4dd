"""Rows gathered by label, once, for every site, draw and checkpoint that shares the labels.

Labels are known before a model runs, so sorting them is done ahead; what remains at run time is one gathered sum per
segment. A label seen once needs no sum at all: the entropy of its mean is the entropy of its only row.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from infocomp.estimators.halves import Halves
from infocomp.estimators.nulls import paired_rows, paired_within

PIECE = 128  # rows summed in float32 one after the other; pieces of a longer segment are added in float64


@dataclass(frozen=True)
class Groups:
    """Labels of N rows as sorted segments.

    `counts` holds the rows of every label, `repeated` the labels (as positions in `counts`) with two rows or more.
    A bag is the rows of a repeated label, or, where documents are in halves, those of one half: `rows` lists them bag
    after bag, cut into pieces that begin at `starts`; `first_piece` is the first one of each bag, `long` are the bags
    of several pieces, `long_pieces` those pieces one bag after the other from `long_starts` on. `first_bag` is the
    first bag of each repeated label, `both` are the repeated labels of two bags (positions in `repeated`; the first
    bag is then of the first half), `bag_counts` the rows of each bag, `bag_documents` their documents. `single_rows`
    is the row of each label seen once. Rows labelled -1 are left out: `n` counts the rest.
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
    first_bag: Int[Tensor, "repeated"]
    both: Int[Tensor, "both"]
    bag_counts: Int[np.ndarray, "bags"]
    bag_documents: Int[np.ndarray, "bags"] | None = None
    halves: Halves | None = None
    _copies: dict[torch.device, "Groups"] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        labels: Int[np.ndarray, "rows"],
        row_of: Int[np.ndarray, "rows"] | None = None,
        halves: Halves | None = None,
    ) -> "Groups":
        """Gather `labels`; `row_of[i]` is the row that label i is paired with (itself by default, -1 for none).

        With `halves`, the rows of each label are gathered half by half; pairing and halves exclude each other.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"labels must be one integer per row, got {labels.dtype} of shape {labels.shape}.")
        labels = labels.astype(np.int64)
        valid = labels >= 0
        if row_of is not None:
            valid &= row_of >= 0
        kept = np.flatnonzero(valid)
        keys = labels[kept] if halves is None else labels[kept] * 2 + halves.second[kept]
        order = kept[np.argsort(keys, kind="stable")]
        ordered = labels[order]
        first = _first_of_each(ordered)
        counts = np.diff(np.r_[first, len(ordered)])
        rows = order if row_of is None else row_of[order]

        repeated = np.flatnonzero(counts >= 2)
        in_repeated = np.repeat(counts >= 2, counts)
        gathered = order[in_repeated]
        bag_keys = labels[gathered] if halves is None else labels[gathered] * 2 + halves.second[gathered]
        bags = _first_of_each(bag_keys)
        bag_counts = np.diff(np.r_[bags, len(gathered)])
        first_bag = _first_of_each(labels[gathered[bags]]) if len(bags) else bags
        pieces = -(-bag_counts // PIECE)
        first_piece = np.cumsum(pieces) - pieces
        within = np.arange(pieces.sum()) - np.repeat(first_piece, pieces)
        starts = np.repeat(bags, pieces) + within * PIECE
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
            long_pieces=torch.from_numpy(np.flatnonzero(np.repeat(pieces > 1, pieces))),
            long_starts=torch.from_numpy(np.cumsum(pieces[long]) - pieces[long]),
            single_rows=torch.from_numpy(rows[~in_repeated].astype(np.int64)),
            first_bag=torch.from_numpy(first_bag),
            both=torch.from_numpy(np.flatnonzero(np.diff(np.r_[first_bag, len(bags)]) == 2)),
            bag_counts=bag_counts,
            bag_documents=None if halves is None else _documents_of(halves.document[gathered], bags, bag_counts),
            halves=halves,
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
            names = ("rows", "starts", "first_piece", "long", "long_pieces", "long_starts", "first_bag", "both")
            self._copies[device] = replace(self, **{name: getattr(self, name).to(device) for name in names})
        return self._copies[device]

    def bag_sums(self, plane: Float[Tensor, "rows bins"]) -> Float[Tensor, "bags bins"]:
        """Sum of the rows of each bag: a gathered segment sum, in float32 by pieces, then float64.

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

    def label_sums(self, bags: Float[Tensor, "bags bins"]) -> Float[Tensor, "repeated bins"]:
        """Sum of the rows of each repeated label from those of its bags."""
        if not len(self.both):
            return bags
        here = self._on(bags.device)
        sums = bags[here.first_bag]
        sums[here.both] += bags[here.first_bag[here.both] + 1]
        return sums

    def sums(self, plane: Float[Tensor, "rows bins"]) -> Float[Tensor, "repeated bins"]:
        """Sum of the rows of each repeated label."""
        return self.label_sums(self.bag_sums(plane))

    @cached_property
    def place(self) -> Int[Tensor, "rows"]:
        """For each row, the place of its label among the repeated ones; one past the last for all other rows."""
        place = np.full(self.n_all, len(self.repeated), dtype=np.int64)
        place[self.rows.numpy()] = np.repeat(np.arange(len(self.repeated)), self.counts[self.repeated])
        return torch.from_numpy(place)

    @cached_property
    def place_of_both(self) -> Int[Tensor, "rows"]:
        """For each row, 2 · (place of its label among `both`) + its half.

        Rows of other labels come after all labels, rows without a label after those.
        """
        if self.halves is None:
            raise ValueError("these labels were gathered without halves of the documents; give halves to Groups.of.")
        among = np.full(len(self.repeated) + 1, len(self.both), dtype=np.int64)
        among[self.both.numpy()] = np.arange(len(self.both))
        place = among[self.place.numpy()] * 2 + self.halves.second
        if self.n < self.n_all:
            covered = np.zeros(self.n_all, dtype=bool)
            covered[self.all_rows().numpy()] = True
            place[~covered] = 2 * (len(self.both) + 1)
        return torch.from_numpy(place)

    @cached_property
    def sizes_by_document(self) -> csr_array:
        """How many rows of each document have a label of each size, [documents, sizes] as `sizes` lists them."""
        if self.halves is None:
            raise ValueError("these labels were gathered without halves of the documents; give halves to Groups.of.")
        sizes = self.sizes[0]
        repeated = self.counts[self.repeated]
        rows = np.r_[self.rows.numpy().astype(np.int64), self.single_rows.numpy()]
        column = np.searchsorted(sizes, np.r_[np.repeat(repeated, repeated), np.ones(len(self.single_rows), np.int64)])
        shape = (self.halves.n_documents, len(sizes))
        return csr_array((np.ones(len(rows)), (self.halves.document[rows], column)), shape=shape)


def _documents_of(document: np.ndarray, bags: np.ndarray, bag_counts: np.ndarray) -> Int[np.ndarray, "bags"]:
    """How many documents the rows of each bag come from; `document` lists that of each row, bag after bag."""
    if not len(document):
        return np.zeros(0, np.int64)
    bag = np.repeat(np.arange(len(bags)), bag_counts)
    if (np.diff(document)[np.diff(bag) == 0] < 0).any():  # rows were merged in another order than that of documents
        document = document[np.lexsort((document, bag))]
    fresh = np.r_[True, (document[1:] != document[:-1]) | (bag[1:] != bag[:-1])]
    return np.add.reduceat(fresh.astype(np.int64), bags)


def _first_of_each(ordered: np.ndarray) -> Int[np.ndarray, "distinct"]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)


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
        halves: Halves | None = None,
        pairing: bool = True,
    ) -> "LabelGroups":
        """Gather labels and their null; `partner` is `paired_rows(documents, windows)` where that is known already,
        `halves` is `Halves.of(documents)`; without `pairing` there is no null, since it was found not to exist.

        Where some rows have no label (-1), the labelled rows are halved and paired among themselves.
        """
        if documents is None:
            return cls(name, order, direction, Groups.of(labels), None)
        labelled = np.asarray(labels) >= 0
        if not labelled.all():
            halves = Halves.of(documents, labelled=labelled)
            partner = paired_within(np.flatnonzero(labelled), documents, windows) if pairing else None
        else:
            halves = Halves.of(documents) if halves is None else halves
            partner = paired_rows(documents, windows) if partner is None and pairing else partner
        paired = None if partner is None else Groups.of(labels, partner)
        return cls(name, order, direction, Groups.of(labels, halves=halves), paired)

    @property
    def quantity(self) -> str:
        return "expressivity" if self.direction == "output" else "complexity"
