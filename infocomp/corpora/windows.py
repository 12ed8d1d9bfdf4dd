"""Windows over a corpus: what one row of a batch holds, which positions are measured, which tokens are scored.

No window crosses a document unless packing is asked for. With a stride shorter than the window, windows overlap and
what an earlier window already measured or scored is only context in the next one: each position is measured once and
each token scored once. The beginning-of-sequence token (BOS) is context, never part of a label, never scored. The first
positions of a window may be left out of what is measured: they are where models put attention that has nowhere to go.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int

from infocomp.corpora.tokens import TokenCorpus

BosPolicy = Literal["none", "document", "window"]


@dataclass(frozen=True)
class Windows:
    """Window w reads tokens starts[w] … starts[w] + lengths[w] − 1, after a BOS where `has_bos[w]`.

    Positions measure_from[w] … measure_to[w] − 1 (indices into the corpus' tokens) are measured, tokens
    score_from[w] … starts[w] + lengths[w] − 1 scored. Windows are ordered by length (a BOS counts), longest first, so
    that a batch wastes little on padding; among equals the order of the text is kept.
    """

    corpus: TokenCorpus
    starts: Int[np.ndarray, "windows"]
    lengths: Int[np.ndarray, "windows"]
    has_bos: np.ndarray
    measure_from: Int[np.ndarray, "windows"]
    measure_to: Int[np.ndarray, "windows"]
    score_from: Int[np.ndarray, "windows"]
    bos: int | None
    packing: bool

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def row_counts(self) -> Int[np.ndarray, "windows"]:
        """Measured rows of each window."""
        return np.maximum(self.measure_to - self.measure_from, 0)

    @cached_property
    def row_tokens(self) -> Int[np.ndarray, "rows"]:
        """Index into the corpus' tokens of every measured row, window after window."""
        return _ranges(self.measure_from, self.row_counts)

    @cached_property
    def row_windows(self) -> Int[np.ndarray, "rows"]:
        """Window of every measured row."""
        return np.repeat(np.arange(len(self)), self.row_counts)

    @cached_property
    def row_documents(self) -> Int[np.ndarray, "rows"]:
        """Document of every measured row."""
        return document_of(self.corpus, self.row_tokens)

    @cached_property
    def scored_tokens(self) -> Int[np.ndarray, "scored"]:
        """Index into the corpus' tokens of every token whose code length is taken, window after window."""
        ends = self.starts + self.lengths
        return _ranges(self.score_from, np.maximum(ends - self.score_from, 0))

    @property
    def total_positions(self) -> int:
        """Positions that a forward pass over all windows computes, BOS included."""
        return int(self.lengths.sum() + self.has_bos.sum())


def document_of(corpus: TokenCorpus, tokens: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """Number of the document that each token lies in."""
    return np.searchsorted(corpus.document_starts, tokens, side="right") - 1


def cut_windows(
    corpus: TokenCorpus,
    context_length: int,
    largest_order: int,
    stride: int | None = None,
    bos_policy: BosPolicy = "none",
    bos: int | None = None,
    packing: bool = False,
    skip_first: int = 0,
) -> Windows:
    """Cut a corpus into windows of at most `context_length` positions, BOS included.

    `stride` counts the new tokens of each further window (disjoint windows by default). No row is measured at the first
    `skip_first` positions of a window, BOS included. Raises ValueError when no position past these has both n-grams of
    the largest order inside one window, or when the policy needs a BOS that is absent or, with packing, one between
    documents.
    """
    if skip_first < 0:
        raise ValueError(f"skip_first must be at least 0 positions, got {skip_first}.")
    if bos_policy != "none" and bos is None:
        raise ValueError(f"bos_policy {bos_policy!r} needs a BOS token, and the tokenizer has none; use 'none'.")
    if packing and bos_policy == "document":
        raise ValueError(
            "bos_policy 'document' asks for a BOS before every document, and packing joins them with nothing in "
            "between; use 'none' or 'window', or do without packing."
        )
    room = context_length - (bos_policy != "none")
    if room < 2 * largest_order:
        raise ValueError(
            f"context_length {context_length} is too short: n-grams of order {largest_order} on both sides "
            f"of a position need {2 * largest_order + (bos_policy != 'none')} positions; take a longer context."
        )
    if context_length < skip_first + largest_order + 1:
        raise ValueError(
            f"context_length {context_length} is too short: past the first {skip_first} positions, which skip_first "
            f"leaves out, a position and the {largest_order} tokens after it need {skip_first + largest_order + 1}; "
            "take a longer context or skip less."
        )
    if stride is not None and not 1 <= stride <= room:
        raise ValueError(f"stride must lie between 1 and the {room} tokens of a window, got {stride}.")
    step = room if stride is None else stride
    if packing:
        bounds = np.array([[0, len(corpus.tokens)]])
    else:
        bounds = np.stack([corpus.document_starts[:-1], corpus.document_starts[1:]], axis=1)
    starts, ends, first = [], [], []
    for begin, end in bounds.tolist():
        if begin == end:
            continue
        further = max(0, -(-(end - begin - room) // step))
        document_starts = begin + step * np.arange(further + 1)
        starts.append(document_starts)
        ends.append(np.minimum(document_starts + room, end))
        first.append(np.r_[True, np.zeros(further, dtype=bool)])
    start, end, is_first = (np.concatenate(parts) for parts in (starts, ends, first))
    has_bos = {"none": np.zeros(len(start), bool), "document": is_first, "window": np.ones(len(start), bool)}[
        bos_policy
    ]

    # a window of an earlier document ended before this one starts, and takes nothing away from it
    measure_to = end - largest_order
    measure_from = np.maximum(start + np.maximum(largest_order - 1, skip_first - has_bos), np.r_[0, measure_to[:-1]])
    score_from = np.maximum(start + ~has_bos, np.r_[0, end[:-1]])
    order = np.argsort(-(end - start + has_bos), kind="stable")
    windows = Windows(
        corpus=corpus,
        starts=start[order],
        lengths=(end - start)[order],
        has_bos=has_bos[order],
        measure_from=measure_from[order],
        measure_to=np.maximum(measure_to, measure_from)[order],
        score_from=score_from[order],
        bos=bos,
        packing=packing,
    )
    if not windows.row_counts.sum():
        longest = int((end - start).max())
        raise ValueError(
            f"corpus {corpus.name!r} is too short: its longest document or window has {longest} tokens, and n-grams "
            f"of order {largest_order} on both sides of a position need {2 * largest_order}"
            + (f", past the first {skip_first} of a window; " if skip_first >= largest_order else "; ")
            + "give it more text or smaller orders."
        )
    return windows


def _ranges(starts: Int[np.ndarray, "windows"], counts: Int[np.ndarray, "windows"]) -> Int[np.ndarray, "total"]:
    """start, start + 1, … for each window, one after the other."""
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + offsets
