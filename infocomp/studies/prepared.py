"""A corpus made ready before any model runs: tokens, windows, labels, nulls, and the rates that need no model."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from infocomp.corpora.builtin import held_out_documents, training_documents
from infocomp.corpora.cache import kept_arrays
from infocomp.corpora.documents import Document, read_documents
from infocomp.corpora.labels import LabelSet, n_gram_labels
from infocomp.corpora.tokens import TokenCorpus, tokenise, tokenizer_hash
from infocomp.corpora.windows import Windows, cut_windows, document_of
from infocomp.estimators import Halves, LabelGroups, paired_rows
from infocomp.studies.settings import CorpusSettings
from infocomp.studies.token_channel import TokenJoint


@dataclass(frozen=True)
class PreparedCorpus:
    """Tokens, windows and labels of one corpus for one tokenizer; gathered labels are made on first use."""

    settings: CorpusSettings
    documents: Sequence[Document]
    corpus: TokenCorpus
    windows: Windows
    labels: Sequence[LabelSet]
    tokenizer: str

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def n_rows(self) -> int:
        return len(self.windows.row_tokens)

    @cached_property
    def partner(self) -> np.ndarray | None:
        """Row of another document that each row's label is paired with under the null; None for one document."""
        return paired_rows(self.windows.row_documents, self.windows.row_windows)

    @cached_property
    def halves(self) -> Halves | None:
        """The measured rows' documents in two halves; None for one document."""
        return Halves.of(self.windows.row_documents)

    @cached_property
    def groups(self) -> list[LabelGroups]:
        """Labels gathered once for all sites, draws and checkpoints, each with its null."""
        return self.gathered(self.labels)

    @cached_property
    def token_joint(self) -> TokenJoint | None:
        """Last and next tokens of the measured rows, for the token channel; None where order 1 is not measured."""
        return TokenJoint.of(self.labels, self.partner)

    def gathered(self, labels: Sequence[LabelSet]) -> list[LabelGroups]:
        """Label sets over this corpus' measured rows, gathered, each with its null where documents can be paired."""
        windows, partner = self.windows, self.partner
        about = (windows.row_documents, windows.row_windows, partner, self.halves, partner is not None)
        return [LabelGroups.of(label.name, label.order, label.direction, label.ids, *about) for label in labels]

    @cached_property
    def scored_bytes(self) -> int:
        """Bytes of exactly the text whose code length is taken."""
        return int(self.corpus.byte_counts[self.windows.scored_tokens].sum())

    @cached_property
    def unigram_nats(self) -> float:
        """Code length of the scored tokens under their own frequencies: the code that knows no context."""
        counts = np.unique(self.corpus.tokens[self.windows.scored_tokens], return_counts=True)[1]
        return float(-(counts * np.log(counts / counts.sum())).sum())

    def text_bytes(self) -> bytes:
        """The text of the corpus, documents one after the other, cut where its tokens end."""
        starts = self.corpus.document_starts
        sizes = np.add.reduceat(np.r_[self.corpus.byte_counts, 0], np.minimum(starts[:-1], len(self.corpus.tokens)))
        sizes = np.where(np.diff(starts) > 0, sizes, 0)
        pieces = [
            document.text.encode("utf-8", "surrogatepass")[:size]
            for document, size in zip(self.documents, sizes.tolist(), strict=False)
        ]
        return b"".join(pieces)

    def document_rates(self, nats: np.ndarray) -> list[tuple[str, int, int, float]]:
        """Name, scored tokens, their bytes and their code length in nats of every document with a scored token."""
        scored = self.windows.scored_tokens
        owner = document_of(self.corpus, scored)
        n = self.corpus.n_documents
        tokens = np.bincount(owner, minlength=n)
        sizes = np.bincount(owner, weights=self.corpus.byte_counts[scored], minlength=n)
        lengths = np.bincount(owner, weights=nats, minlength=n)
        return [
            (name, int(tokens[i]), int(sizes[i]), float(lengths[i]))
            for i, name in enumerate(self.corpus.document_names)
            if tokens[i]
        ]

    def identity(self) -> Mapping[str, object]:
        """What of the text decides a unit's result."""
        settings = self.settings.model_dump(mode="json", exclude={"text", "builtin"})
        settings |= {"tokens": self.corpus.fingerprint, "tokenizer": self.tokenizer}
        return settings | {"in_training": self.settings.trained_on, "bos_token": self.windows.bos}


def prepare_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerBase,
    orders: tuple[int, ...],
    cache: Path | None = None,
) -> PreparedCorpus:
    """Read, tokenise, cut and label one corpus. `cache` keeps tokens and labels from one command to the next."""
    return prepare_documents(settings, _documents(settings), tokenizer, orders, cache)


def prepare_documents(
    settings: CorpusSettings,
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    orders: tuple[int, ...],
    cache: Path | None = None,
) -> PreparedCorpus:
    """As `prepare_corpus`, of documents that were read already."""
    corpus = tokenise(documents, tokenizer, settings.name, settings.max_tokens, cache, settings.document_tokens)
    bos: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    windows = cut_windows(
        corpus,
        settings.context_length,
        max(orders),
        settings.stride,
        settings.bos,
        None if settings.bos == "none" else bos,
        settings.packing,
        settings.skip_first,
    )
    labels = _labels(windows, orders, cache)
    return PreparedCorpus(settings, documents, corpus, windows, labels, tokenizer_hash(tokenizer))


def _documents(settings: CorpusSettings) -> list[Document]:
    if settings.text is not None:
        return read_documents(settings.text)
    return held_out_documents() if settings.builtin == "held_out" else training_documents()


def _labels(windows: Windows, orders: tuple[int, ...], cache: Path | None) -> list[LabelSet]:
    """n-gram labels, from the cache where the same positions of the same tokens were labelled before."""
    path = None
    if cache is not None:
        key = hashlib.sha256(repr((windows.corpus.fingerprint, sorted(orders))).encode())
        key.update(windows.row_tokens.tobytes())
        path = cache / f"labels-{key.hexdigest()[:16]}.safetensors"

    def make() -> dict[str, np.ndarray]:
        labels = n_gram_labels(windows.corpus.tokens, windows.row_tokens, orders)
        return {f"{label.direction}/{label.order}/{label.name}": label.ids.astype(np.int32) for label in labels}

    labels = []
    for name, ids in kept_arrays(path, make).items():
        direction, order, label = name.split("/")
        labels.append(LabelSet(label, int(order), direction, ids.astype(np.int64)))
    return sorted(labels, key=lambda label: (label.direction, label.order or 0))
