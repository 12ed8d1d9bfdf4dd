"""A text, picture or sound made ready for coding: its bytes, its tokens, and the windows that a model reads them in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from infocomp.coding.classical import CodedSize, coded_size, coder_named
from infocomp.coding.modalities import Mapped
from infocomp.corpora.builtin import held_out_documents, training_documents
from infocomp.corpora.documents import Document, read_documents
from infocomp.corpora.settings import TextSettings
from infocomp.corpora.tokens import tokenise, tokenizer_hash
from infocomp.corpora.windows import cut_windows
from infocomp.studies.coding_settings import CodedTextSettings, RateSettings
from infocomp.studies.coding_signals import Signal, read_signal
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import CorpusSettings

LONGEST_DEFAULT = 2048  # positions of a window where nothing is asked for, however long the model reads


@dataclass(frozen=True)
class WindowRule:
    """Windows of `context_length` positions, a BOS included; `stride` new tokens each, all of them where it is None."""

    context_length: int
    stride: int | None = None

    @property
    def label(self) -> str:
        """The column `label` of a rate under windows that are not the default ones."""
        return f"chunk {self.context_length}" if self.stride is None else f"sliding {self.context_length}/{self.stride}"

    def words(self, bos: str) -> str:
        """The rule as a sentence."""
        if self.stride is None:
            kind = "disjoint windows of at most"
        else:
            kind = f"windows that move on by {self.stride} tokens, each token scored once, of at most"
        before = {"none": "no BOS", "document": "a BOS before each document", "window": "a BOS before each window"}[bos]
        return f"{kind} {self.context_length} positions, {before}"


@dataclass(frozen=True)
class CodedText:
    """`prepared` under the default windows; `signal` is what was cut of a picture or sound, else None."""

    settings: CodedTextSettings
    rate: RateSettings
    prepared: PreparedCorpus
    tokenizer: PreTrainedTokenizerBase
    bos_token: int | None
    signal: Signal | None = None
    _cuts: dict[WindowRule, PreparedCorpus] = field(default_factory=dict, compare=False)
    _sizes: dict[str, CodedSize] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """The column `corpus`."""
        return self.prepared.name

    @property
    def mapped(self) -> Mapped | None:
        """A picture or sound as the ASCII that the model reads; None for text."""
        return None if self.signal is None else self.signal.mapped

    @property
    def rule(self) -> WindowRule:
        """The default windows."""
        return WindowRule(self.prepared.settings.context_length, self.prepared.settings.stride)

    def under(self, rule: WindowRule) -> PreparedCorpus:
        """The same tokens in other windows; ValueError for windows that cannot be cut."""
        if rule == self.rule:
            return self.prepared
        if rule not in self._cuts:
            change = {"context_length": rule.context_length, "stride": rule.stride}
            settings = self.prepared.settings.model_copy(update=change)
            self._cuts[rule] = replace(
                self.prepared, settings=settings, windows=_windows(self.prepared.corpus, settings, self.bos_token)
            )
        return self._cuts[rule]

    @cached_property
    def data(self) -> bytes:
        """The bytes whose rate is measured: the text, cut where its tokens end, or the pieces of a picture or sound."""
        return self.prepared.text_bytes() if self.signal is None else self.signal.data

    def head(self, max_bytes: int) -> bytes:
        """The first bytes of the text, cut at a whole character."""
        return self.data if len(self.data) <= max_bytes else _whole_characters(self.data[:max_bytes])

    def in_one_stream(self, coders: Sequence[str]) -> list[CodedSize]:
        """Classical coders on the whole text in one stream; the patches of a picture row by row, PNG at their width."""
        for name in coders:
            if name not in self._sizes:
                self._sizes[name] = self._size(name)
        return [self._sizes[name] for name in coders]

    def _size(self, coder: str) -> CodedSize:
        if self.signal is None:
            return coded_size(coder, coder_named(coder), self.data)
        return coded_size(coder, self.signal.coder(coder), self.signal.in_one_stream)

    def coders(self, named: Sequence[str]) -> list[str]:
        """The coders asked for, and the one that a picture or a sound has of its own."""
        own = {"image": ["PNG"], "audio": ["FLAC"]}.get(self.settings.modality, [])
        return [*named, *(name for name in own if name not in named)]

    def identity(self) -> dict[str, Any]:
        """What of the text decides a unit's result, its windows apart."""
        left_out = {"context_length", "stride"}
        identity = {name: value for name, value in self.prepared.identity().items() if name not in left_out}
        identity |= {"modality": self.settings.modality}
        return identity if self.signal is None else identity | {"signal": self.signal.fingerprint}


def prepare_text(
    settings: CodedTextSettings,
    rate: RateSettings,
    tokenizer: PreTrainedTokenizerBase,
    longest: int | None,
    cache: Path | None = None,
) -> CodedText:
    """Read, tokenise and cut one text. `longest` is how many positions the model reads, None where it does not say.

    ValueError: what cannot be read, `max_bytes` that leaves nothing of a picture or sound, a tokenizer without the BOS
    that is asked for, windows longer than the model reads.
    """
    signal = None if settings.modality == "text" else read_signal(settings)
    name = settings.name if signal is None else f"{settings.name} {signal.kind}"
    documents = _documents(settings) if signal is None else signal.documents()
    bos: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    bos = None if rate.bos == "none" else bos
    context = rate.context_length or (None if longest is None else min(longest, LONGEST_DEFAULT))
    if context is None:
        raise ValueError("rate.context_length is needed: the model's configuration does not say how long it reads.")
    corpus_settings = CorpusSettings(
        name=name,
        text=TextSettings(texts=("read by the coding study",)),  # what is read is told by the tokens' fingerprint
        context_length=context,
        stride=rate.stride,
        bos=rate.bos,
        packing=rate.packing,
        skip_first=0,
        in_training=settings.trained_on,  # type: ignore[arg-type]
    )
    corpus = tokenise(documents, tokenizer, name, cache=cache)
    windows = _windows(corpus, corpus_settings, bos)
    prepared = PreparedCorpus(corpus_settings, documents, corpus, windows, (), tokenizer_hash(tokenizer))
    text = CodedText(settings, rate, prepared, tokenizer, bos, signal)
    _check_lengths(text, longest)
    return text


def rules_beside(rate: RateSettings) -> list[WindowRule]:
    """The windows that are measured beside the default ones, in order. ValueError for one that is named twice."""
    rules = [WindowRule(length) for length in rate.chunk_lengths]
    rules += [WindowRule(sliding.context_length, sliding.stride) for sliding in rate.sliding]
    if len(set(rules)) < len(rules):
        raise ValueError(
            f"rate.chunk_lengths and rate.sliding name windows twice ({', '.join(rule.label for rule in rules)}); "
            "name each once."
        )
    return rules


def positions(prepared: PreparedCorpus) -> Int[np.ndarray, "scored"]:
    """Place of every scored token in its window, from 0: how many of the text's tokens the model reads before it.

    A BOS is not counted.
    """
    windows = prepared.windows
    counts = np.maximum(windows.starts + windows.lengths - windows.score_from, 0)
    return windows.scored_tokens - np.repeat(windows.starts, counts)


def _windows(corpus: Any, settings: CorpusSettings, bos: int | None) -> Any:
    return cut_windows(
        corpus, settings.context_length, 1, settings.stride, settings.bos, bos, settings.packing, settings.skip_first
    )


def _check_lengths(text: CodedText, longest: int | None) -> None:
    for rule in (text.rule, *rules_beside(text.rate)):
        if longest is not None and rule.context_length > longest:
            raise ValueError(
                f"a window of {rule.context_length} positions is asked for under 'rate', and the model reads "
                f"{longest} positions at most; shorten it."
            )
        room = rule.context_length - (text.rate.bos != "none")
        if rule.stride is not None and rule.stride > room:
            raise ValueError(
                f"stride of '{rule.label}' under 'rate' must lie between 1 and the {room} tokens of a window, "
                f"got {rule.stride}."
            )


def _documents(settings: CodedTextSettings) -> list[Document]:
    if settings.text is not None:
        return read_documents(settings.text)
    if settings.path is not None:
        limit = settings.max_bytes
        return read_documents(TextSettings(files=settings.path, split=settings.documents, max_bytes=limit))
    documents = held_out_documents() if settings.builtin == "held_out" else training_documents()
    return documents if settings.max_bytes is None else _first_bytes(documents, settings.max_bytes)


def _first_bytes(documents: Sequence[Document], most: int) -> list[Document]:
    """Documents in order up to `most` bytes, the last one cut at a whole character."""
    kept: list[Document] = []
    for document in documents:
        encoded = document.text.encode()
        if len(encoded) > most:
            encoded = _whole_characters(encoded[:most])
        if encoded:
            kept.append(Document(document.name, encoded.decode()))
        most -= len(encoded)
        if len(encoded) < len(document.text.encode()) or not most:
            break
    return kept


def _whole_characters(data: bytes) -> bytes:
    """The bytes without a character that is cut at their end."""
    return data.decode("utf-8", "ignore").encode()
