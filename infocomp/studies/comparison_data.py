"""A data set of a comparison, ready for one tokenizer: text, chat or pairs, each as a corpus of the information plane.

A pair data set becomes a corpus whose documents are the pairs, whose windows are the two texts of a pair and whose
measured rows are completion tokens, so that labels, nulls and intervals "by document" are by pair. An n-gram that would
cross the end of a text has no label.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from infocomp.corpora.chat import ChatTemplate, chat_documents
from infocomp.corpora.labels import LabelSet, n_gram_labels
from infocomp.corpora.pair_windows import PairTexts, pair_texts
from infocomp.corpora.pairs import PreferencePair, read_pairs
from infocomp.corpora.tokens import tokenizer_hash
from infocomp.studies.comparison_probes import RowLayout
from infocomp.studies.comparison_settings import ComparedData
from infocomp.studies.prepared import PreparedCorpus, prepare_corpus, prepare_documents

LEAST_LABELLED = 64  # rows with whole n-grams on both sides, below which no n-gram is measured


@dataclass(frozen=True)
class PreparedData:
    """One data set for one tokenizer; `pairs` is None unless it is of kind preference."""

    settings: ComparedData
    prepared: PreparedCorpus
    template: str
    pairs: PairTexts | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    def layout(self, sample: int, seed: int) -> RowLayout:
        """Where each measured row stands; of completions, the rows at positions that both of a pair have."""
        if self.pairs is None:
            return RowLayout.of(self.prepared.windows, sample, seed)
        matched = np.where(self.pairs.matched, self.pairs.completion, -1)
        of_pairs = (self.pairs.completion, matched, 2 * len(self.pairs.pairs))
        return RowLayout.of(self.prepared.windows, sample, seed, *of_pairs)

    def identity(self) -> Mapping[str, Any]:
        """What of the data decides a unit's result."""
        about = dict(self.prepared.identity()) | {"kind": self.settings.kind, "template": self.template}
        if self.pairs is not None:
            rows = np.stack([self.prepared.windows.row_tokens, self.pairs.completion])
            about["completions"] = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
            authors = [[pair.chosen_author, pair.rejected_author] for pair in self.pairs.pairs]
            about["authors"] = hashlib.sha256(json.dumps(authors).encode()).hexdigest()[:16]
        return about

    def about(self) -> dict[str, Any]:
        """Settings that every row of this data set carries."""
        return {"kind": self.settings.kind, "template": self.template} | (
            {} if self.pairs is None else {"pairs": len(self.pairs.pairs)}
        )


def read_data(settings: ComparedData) -> Sequence[PreferencePair] | None:
    """The pairs of a preference data set, read once for all tokenizers; None for other kinds."""
    return None if settings.pairs is None else read_pairs(settings.pairs)


def kept_pairs(
    settings: ComparedData, pairs: Sequence[PreferencePair], tokenizer: PreTrainedTokenizerBase, template: ChatTemplate
) -> set[int]:
    """The places of the pairs that stay when this tokenizer has cut them."""
    place = {id(pair): number for number, pair in enumerate(pairs)}
    return {place[id(pair)] for pair in _texts(settings, pairs, tokenizer, template, None).pairs}


def prepare_data(
    settings: ComparedData,
    pairs: Sequence[PreferencePair] | None,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    orders: tuple[int, ...],
    cache: Path | None = None,
) -> PreparedData:
    """The data set as one tokenizer reads it. `template` renders chats and pairs alike for every model."""
    if settings.kind == "text":
        return PreparedData(settings, prepare_corpus(settings.corpus(), tokenizer, orders, cache), "")
    if settings.kind == "chat":
        assert settings.text is not None and settings.text.files is not None
        column = "messages" if settings.text.column == "text" else settings.text.column
        documents = chat_documents(settings.text.files, template, column, settings.text.max_documents)
        return PreparedData(
            settings, prepare_documents(settings.corpus(), documents, tokenizer, orders, cache), template.name
        )
    assert pairs is not None
    texts = _texts(settings, pairs, tokenizer, template, cache)
    labels = _labels_within(texts, orders)
    prepared = PreparedCorpus(settings.corpus(), (), texts.corpus, texts.windows, labels, tokenizer_hash(tokenizer))
    return PreparedData(settings, prepared, template.name, texts)


def _texts(
    settings: ComparedData,
    pairs: Sequence[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    cache: Path | None,
) -> PairTexts:
    bos: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return pair_texts(
        pairs,
        tokenizer,
        template,
        name=settings.name,
        context_length=settings.context_length,
        completion_tokens=min(settings.completion_tokens, settings.context_length // 2),
        bos_policy=settings.bos,
        bos=None if settings.bos == "none" else bos,
        cache=cache,
        skip_first=settings.skip_first,
    )


def _labels_within(texts: PairTexts, orders: tuple[int, ...]) -> list[LabelSet]:
    """n-gram labels of the rows whose longest n-grams stay inside their text; -1 for the others."""
    rows, longest = texts.windows.row_tokens, max(orders)
    whole = (rows - (longest - 1) >= texts.text_start) & (rows + longest < texts.text_end)
    if whole.sum() < LEAST_LABELLED:
        return []
    labels = []
    for label in n_gram_labels(texts.corpus.tokens, rows[whole], orders):
        ids = np.full(len(rows), -1, dtype=np.int64)
        ids[whole] = label.ids
        labels.append(LabelSet(label.name, label.order, label.direction, ids))
    return sorted(labels, key=lambda label: (label.direction, label.order or 0))
