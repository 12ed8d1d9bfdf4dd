"""What the one pass of a comparison keeps beside the informations: scatters, a seeded sample, means of completions, …

Every site's rows are gathered once a batch and handed to each accumulator; the sample holds the same rows in every
model that reads the same tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infocomp.activations.stream import Batch
from infocomp.corpora.windows import Windows
from infocomp.estimators.nulls import sampling_order
from infocomp.geometry.curvature import Curvature
from infocomp.geometry.scatter import Scatter
from infocomp.geometry.views import DocumentViews, parts_of


@dataclass(frozen=True)
class RowLayout:
    """Where each measured row stands: its document, whether a run of consecutive positions begins there, whether it is
    the last of its text, its completion (-1: none) among `n_completions`, its slot in the sample (-1: not sampled)."""

    documents: Int[np.ndarray, "rows"]
    begins: Bool[np.ndarray, "rows"]
    last: Bool[np.ndarray, "rows"]
    slot: Int[np.ndarray, "rows"]
    sampled: Int[np.ndarray, "sample"]
    completion: Int[np.ndarray, "rows"] | None = None
    n_completions: int = 0

    @classmethod
    def of(
        cls,
        windows: Windows,
        sample: int,
        seed: int,
        texts: Int[np.ndarray, "rows"] | None = None,
        completion: Int[np.ndarray, "rows"] | None = None,
        n_completions: int = 0,
    ) -> "RowLayout":
        """The layout of a corpus' rows; `texts` numbers the text of each row where a document holds several."""
        tokens, documents = windows.row_tokens, windows.row_documents
        texts = documents if texts is None else texts
        follows = (np.diff(tokens, prepend=-2) == 1) & (np.diff(texts, prepend=-1) == 0)
        order = np.lexsort((tokens, texts))
        is_last = np.zeros(len(tokens), dtype=bool)
        is_last[order[np.r_[np.diff(texts[order]) != 0, True]]] = True
        sampled = sampling_order(tokens, seed, min(sample, len(tokens)))
        slot = np.full(len(tokens), -1)
        slot[sampled] = np.arange(len(sampled))
        begins = ~(follows & (np.diff(windows.row_windows, prepend=-1) == 0))
        return cls(documents, begins, is_last, slot, sampled, completion, n_completions)


class GeometryProbe:
    """Scatter, sample, last rows, curvature and means of completions of every site, and the hidden states of items.

    `items` of the sample's first rows keep what the head needs, for their next-token distributions.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        layout: RowLayout,
        items: int = 0,
        with_logits: bool = False,
        with_scatter: bool = True,
        with_curvature: bool = True,
        scratch: Path | None = None,
    ) -> None:
        self.sites: Sequence[str] = tuple(widths)
        self.layout, self.items = layout, min(items, len(layout.sampled))
        self.needs_hidden, self.needs_logits = bool(items) and not with_logits, bool(items) and with_logits
        self.scatters = {site: Scatter(width, scratch) for site, width in widths.items()} if with_scatter else {}
        self.curvatures = {site: Curvature(width) for site, width in widths.items()} if with_curvature else {}
        self.sample = {site: np.zeros((len(layout.sampled), width), np.float32) for site, width in widths.items()}
        self.last: dict[str, list[np.ndarray]] = {site: [] for site in widths}
        self.completion_sums: dict[str, np.ndarray] = {}
        if layout.completion is not None:
            self.completion_sums = {site: np.zeros((layout.n_completions, width)) for site, width in widths.items()}
        self.item_states: np.ndarray | None = None

    def compute(self, batch: Batch) -> tuple[slice, dict[str, Tensor], tuple[np.ndarray, Tensor] | None]:
        rows = {site: batch.rows_of(site) for site in self.sites}
        return batch.rows, rows, self._item_rows(batch) if self.items else None

    def _item_rows(self, batch: Batch) -> tuple[np.ndarray, Tensor] | None:
        """Slots of the batch's items, and their final hidden states or logits."""
        slot = self.layout.slot[batch.rows]
        wanted = np.flatnonzero((slot >= 0) & (slot < self.items))
        if not len(wanted):
            return None
        source = batch.hidden if batch.hidden is not None else batch.logits
        assert source is not None
        index = batch.measured[torch.from_numpy(wanted).to(batch.measured.device)]
        return slot[wanted], source.reshape(-1, source.shape[-1]).index_select(0, index).float().cpu()

    def keep(self, computed: tuple[slice, dict[str, Tensor], tuple[np.ndarray, Tensor] | None]) -> None:
        where, rows, items = computed
        layout = self.layout
        documents, begins = layout.documents[where], layout.begins[where]
        slot, last = layout.slot[where], layout.last[where]
        sampled = np.flatnonzero(slot >= 0)
        completion = None if layout.completion is None else layout.completion[where]
        for site in self.sites:
            values = rows.pop(site)
            if site in self.scatters:
                self.scatters[site].update(values)
            if site in self.curvatures:
                self.curvatures[site].update(values, begins, documents)
            self.sample[site][slot[sampled]] = _picked(values, sampled)
            self.last[site].append(_picked(values, np.flatnonzero(last)))
            if completion is not None:
                add_by_group(self.completion_sums[site], values, completion)
        if items is not None:
            slots, states = items
            if self.item_states is None:
                self.item_states = np.zeros((self.items, states.shape[1]), np.float32)
            self.item_states[slots] = states.numpy()

    def completion_means(self, site: str) -> Float[np.ndarray, "completions dim"]:
        """Mean row of each completion, over the rows that the layout gives it."""
        assert self.layout.completion is not None
        own = self.layout.completion[self.layout.completion >= 0]
        counts = np.bincount(own, minlength=self.layout.n_completions)
        return self.completion_sums[site] / counts[:, None]

    def close(self) -> None:
        """Give memory and scratch files of the scatters back."""
        for scatter in self.scatters.values():
            scatter.close()


class ViewsProbe:
    """Means of the two halves of each document at every site."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, widths: Mapping[str, int], windows: Windows) -> None:
        self.sites: Sequence[str] = tuple(widths)
        self.documents = windows.row_documents
        self.parts = parts_of(self.documents, windows.row_tokens)
        self._views = {site: DocumentViews(width) for site, width in widths.items()}

    def compute(self, batch: Batch) -> tuple[slice, dict[str, Tensor]]:
        return batch.rows, {site: batch.rows_of(site) for site in self.sites}

    def keep(self, computed: tuple[slice, dict[str, Tensor]]) -> None:
        where, rows = computed
        for site, values in rows.items():
            self._views[site].update(values, self.documents[where], self.parts[where])

    def views(self, site: str) -> Float[np.ndarray, "documents parts dim"]:
        """The mean row of each half of the documents that have both."""
        return self._views[site].views()[0]


class SampleProbe:
    """The rows of every site at given slots, and nothing else: what a comparison of two tokenizers reads."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, widths: Mapping[str, int], slot: Int[np.ndarray, "rows"], size: int) -> None:
        self.sites: Sequence[str] = tuple(widths)
        self.slot = slot
        self.sample = {site: np.zeros((size, width), np.float32) for site, width in widths.items()}

    def compute(self, batch: Batch) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        slot = self.slot[batch.rows]
        chosen = np.flatnonzero(slot >= 0)
        return slot[chosen], {site: _picked(batch.rows_of(site), chosen) for site in self.sites}

    def keep(self, computed: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
        slots, rows = computed
        for site, values in rows.items():
            self.sample[site][slots] = values


def add_by_group(
    sums: Float[np.ndarray, "groups dim"], rows: Float[Tensor, "rows dim"], groups: Int[np.ndarray, "rows"]
) -> None:
    """Add each row to the sum of its group (-1: to none), in float64, in place."""
    kept = np.flatnonzero(groups >= 0)
    if not len(kept):
        return
    wide = rows[torch.from_numpy(kept).to(rows.device)].detach().cpu().double()
    torch.from_numpy(sums).index_add_(0, torch.from_numpy(groups[kept].astype(np.int64)), wide)


def _picked(rows: Float[Tensor, "rows dim"], chosen: Int[np.ndarray, "chosen"]) -> Float[np.ndarray, "chosen dim"]:
    """Chosen rows in float32 on the CPU."""
    return rows[torch.from_numpy(chosen).to(rows.device)].detach().float().cpu().numpy()
