"""Preference pairs as one model reads them: two windows a pair, of which the completions are measured and scored.

Document i of the corpus is pair i: what is kept of the chosen text's tokens, then of the rejected text's, so that
whatever is counted "by document" is counted by pair. Of each text the completion's first tokens are kept and as many of
the prompt's last tokens as fit before the longer of the two, the same number on both sides.

A token belongs to the completion where the text it stands for begins at or after the completion's first byte; one that
spans the seam belongs to the prompt. Rows are matched where their position in the completion is one that both
completions have: the first min(n_chosen, n_rejected) positions, so that length alone tells nothing.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from infocomp.corpora.chat import ChatTemplate, Rendered
from infocomp.corpora.documents import Document
from infocomp.corpora.pairs import PreferencePair
from infocomp.corpora.tokens import TokenCorpus, tokenise
from infocomp.corpora.windows import BosPolicy, Windows

COMPLETION_TOKENS = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairTexts:
    """Windows over pairs, and what each of their measured rows is; rows are in the order of `Windows.row_tokens`.

    `completion` numbers the completion of each row, 2 · pair + side with side 0 for chosen; `position` counts tokens
    from the completion's first; `text_start` and `text_end` bound the row's own text in the corpus' tokens (n-grams
    must not cross them). `lengths` are the tokens of the whole completions, `kept` those of them that are read.
    `pairs` are those that are left: a completion without a token to measure that both sides have drops its pair.
    """

    pairs: tuple[PreferencePair, ...]
    windows: Windows
    template: str
    completion_tokens: int
    completion: Int[np.ndarray, "rows"]
    position: Int[np.ndarray, "rows"]
    matched: Bool[np.ndarray, "rows"]
    text_start: Int[np.ndarray, "rows"]
    text_end: Int[np.ndarray, "rows"]
    lengths: Int[np.ndarray, "pairs 2"]
    kept: Int[np.ndarray, "pairs 2"]

    @property
    def corpus(self) -> TokenCorpus:
        """The tokens of all pairs."""
        return self.windows.corpus

    @property
    def longer_chosen_share(self) -> float:
        """Share of pairs whose chosen completion is the longer one, in tokens of whole completions; ties count half."""
        difference = self.lengths[:, 0] - self.lengths[:, 1]
        return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def pair_texts(
    pairs: Sequence[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    context_length: int,
    completion_tokens: int | None = None,
    bos_policy: BosPolicy = "none",
    bos: int | None = None,
    name: str = "preferences",
    cache: Path | None = None,
    skip_first: int = 0,
) -> PairTexts:
    """Render, tokenise and cut pairs into windows of at most `context_length` positions, BOS included.

    At most `completion_tokens` of each completion are kept, by default 256 or half of the window, whichever is less. A
    BOS that the template writes itself is taken off where the policy gives one. No row is measured at the first
    `skip_first` positions of a window, BOS included. A window begins with a BOS under both policies that give one, even
    where its prompt lost its beginning. ValueError where the context has no room for a prompt's token
    beside the completion, where the policy needs a BOS that is absent, and where no pair is left.
    """
    if bos_policy != "none" and bos is None:
        raise ValueError(f"bos_policy {bos_policy!r} needs a BOS token, and the tokenizer has none; use 'none'.")
    if skip_first < 0:
        raise ValueError(f"skip_first must be at least 0 positions, got {skip_first}.")
    room = context_length - (bos_policy != "none")
    most = min(COMPLETION_TOKENS, room // 2) if completion_tokens is None else completion_tokens
    if not 1 <= most < room:
        raise ValueError(
            f"completion_tokens must lie between 1 and {room - 1} (context_length {context_length} less a token of the "
            f"prompt{' and the BOS' if bos_policy != 'none' else ''}), got {most}; keep fewer or take a longer context."
        )
    rendered = [_rendered(pair, template, tokenizer, bos_policy != "none") for pair in pairs]
    texts = [
        Document(f"{pair.name} {side}", one.text)
        for pair, both in zip(pairs, rendered, strict=True)
        for side, one in zip(("chosen", "rejected"), both, strict=True)
    ]
    whole = tokenise(texts, tokenizer, name, cache=cache)
    begins = np.array([[len(one.prompt.encode("utf-8", "surrogatepass")) for one in both] for both in rendered])
    first = _first_completion_tokens(whole, begins.ravel()).reshape(-1, 2)
    starts, ends = whole.document_starts[:-1].reshape(-1, 2), whole.document_starts[1:].reshape(-1, 2)
    lengths = ends - first
    kept = np.minimum(lengths, most)
    tail = np.minimum(first - starts, room - kept.max(axis=1, keepdims=True))
    skipped = np.maximum(skip_first - (bos_policy != "none") - tail, 0)  # positions of the completion
    left = kept.min(axis=1) - skipped.max(axis=1) > 0
    if not left.all():
        _log.warning(
            "%s: %s pairs dropped because a completion has no token of its own to measure; %s kept.",
            *(name, f"{(~left).sum():,}", f"{left.sum():,}"),
        )
    if not left.any():
        raise ValueError(
            f"{name}: no pair is left of which both completions have a token past the first {skip_first} positions; "
            f"take another template, or skip less."
        )
    first, lengths, kept, tail, skipped = (of[left] for of in (first, lengths, kept, tail, skipped))
    corpus = _joined(whole, first - tail, first + kept, left, (context_length, most, bos_policy))
    windows, in_order = _windows(corpus, tail, kept, skipped, bos_policy, bos)
    per_row = np.repeat(in_order, windows.row_counts)
    text_starts = np.r_[0, np.cumsum((tail + kept).ravel())]
    position = windows.row_tokens - (text_starts[:-1] + tail.ravel())[per_row]
    return PairTexts(
        pairs=tuple(pair for pair, stays in zip(pairs, left, strict=True) if stays),
        windows=windows,
        template=template.name,
        completion_tokens=most,
        completion=per_row,
        position=position,
        matched=position < kept.min(axis=1)[per_row // 2],
        text_start=text_starts[:-1][per_row],
        text_end=text_starts[1:][per_row],
        lengths=lengths,
        kept=kept,
    )


def _rendered(
    pair: PreferencePair, template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, gives_bos: bool
) -> tuple[Rendered, Rendered]:
    """Both texts of a pair, without the BOS that the template writes where the policy gives one."""
    chosen, rejected = (template.render(pair.prompt, completion, pair.name) for completion in pair.completions)
    written = tokenizer.bos_token if gives_bos and template.tokenizer is not None else None
    if isinstance(written, str):
        chosen, rejected = (Rendered(one.prompt.removeprefix(written), one.completion) for one in (chosen, rejected))
    return chosen, rejected


def _first_completion_tokens(corpus: TokenCorpus, begins: Int[np.ndarray, "documents"]) -> Int[np.ndarray, "documents"]:
    """Index of the first token of each document that begins at or after a byte of it; its end where none does.

    Tokens after the first of one character stand for no byte and begin where that first one does.
    """
    counts = corpus.byte_counts.astype(np.int64)
    first = np.empty(len(begins), dtype=np.int64)
    for document, begin in enumerate(begins):
        start, end = corpus.document_starts[document : document + 2]
        own = counts[start:end]
        at = np.maximum.accumulate(np.where(own > 0, np.cumsum(own) - own, 0)) if len(own) else own
        first[document] = start + np.searchsorted(at, begin)
    return first


def _joined(
    whole: TokenCorpus,
    starts: Int[np.ndarray, "pairs 2"],
    ends: Int[np.ndarray, "pairs 2"],
    left: Bool[np.ndarray, "all"],
    settings: tuple,
) -> TokenCorpus:
    """The kept tokens of all pairs, a document each."""
    counts = (ends - starts).ravel()
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.repeat(starts.ravel(), counts) + offsets
    names = [whole.document_names[2 * pair].removesuffix(" chosen") for pair in np.flatnonzero(left)]
    bounds = [starts.tolist(), ends.tolist(), settings]
    digest = hashlib.sha256(json.dumps([whole.fingerprint, bounds]).encode())
    return TokenCorpus(
        name=whole.name,
        tokens=whole.tokens[taken],
        byte_counts=whole.byte_counts[taken],
        document_starts=np.r_[0, np.cumsum((ends - starts).sum(axis=1))],
        document_names=tuple(names),
        fingerprint=digest.hexdigest()[:16],
    )


def _windows(
    corpus: TokenCorpus,
    tail: Int[np.ndarray, "pairs 2"],
    kept: Int[np.ndarray, "pairs 2"],
    skipped: Int[np.ndarray, "pairs 2"],
    bos_policy: BosPolicy,
    bos: int | None,
) -> tuple[Windows, Int[np.ndarray, "windows"]]:
    """A window for each text, the longest first, and the completion that each window is."""
    sizes = (tail + kept).ravel()
    starts = np.cumsum(sizes) - sizes
    has_bos = np.full(len(sizes), bos_policy != "none")
    first, ends = starts + tail.ravel(), starts + sizes
    order = np.argsort(-sizes, kind="stable")
    windows = Windows(
        corpus=corpus,
        starts=starts[order],
        lengths=sizes[order],
        has_bos=has_bos[order],
        measure_from=(first + np.minimum(skipped, kept).ravel())[order],
        measure_to=ends[order],
        score_from=np.maximum(first, starts + ~has_bos)[order],
        bos=bos,
        packing=False,
    )
    return windows, order
