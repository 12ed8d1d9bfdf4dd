"""A corpus as one model reads it: tokenised once for all checkpoints, with documents, bytes and a hash.

Tokens of all documents lie one after the other, without any special token; the bytes that each token stands for are
kept, so that a code length can be given per byte of exactly the text that was scored.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from infocomp.corpora.cache import kept_arrays
from infocomp.corpora.documents import Document

BATCH = 64  # documents tokenised at once
CACHE_VERSION = 2  # of what is counted here: a change of the arrays is a change of the version


@dataclass(frozen=True)
class TokenCorpus:
    """`tokens` and `byte_counts` per token; `document_starts` has one entry more than there are documents."""

    name: str
    tokens: Int[np.ndarray, "tokens"]
    byte_counts: Int[np.ndarray, "tokens"]
    document_starts: Int[np.ndarray, "documents+1"]
    document_names: tuple[str, ...]
    fingerprint: str

    @property
    def n_documents(self) -> int:
        return len(self.document_starts) - 1


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of everything that decides which tokens a text becomes; how the tokenizer pads or truncates is no part."""
    plain = _plain(tokenizer)
    return hashlib.sha256(json.dumps([plain.to_str(), plain.encode_special_tokens]).encode()).hexdigest()[:16]


def tokenise(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    name: str = "text",
    max_tokens: int | None = None,
    cache: Path | None = None,
    document_tokens: int | None = None,
) -> TokenCorpus:
    """Tokenise with the model's own tokenizer, adding no special token; take at most `document_tokens` of each
    document and stop after `max_tokens` in all.

    Cached in the folder `cache` by a hash of text, tokenizer and limit. Raises ValueError when no token comes out.
    """
    digest = hashlib.sha256(
        json.dumps([CACHE_VERSION, tokenizer_hash(tokenizer), max_tokens, document_tokens]).encode()
    )
    for document in documents:
        digest.update(json.dumps([document.name, len(document.text)]).encode())
        digest.update(document.text.encode("utf-8", "surrogatepass"))
    fingerprint = digest.hexdigest()[:16]
    path = None if cache is None else Path(cache) / f"tokens-{fingerprint}.safetensors"
    arrays = kept_arrays(path, lambda: _tokenised(documents, _plain(tokenizer), max_tokens, document_tokens))
    n_documents = len(arrays["document_starts"]) - 1
    if not len(arrays["tokens"]):
        raise ValueError(
            f"corpus {name!r} holds no token: all {len(documents)} documents are empty; give it some text."
        )
    names = tuple(document.name for document in documents[:n_documents])
    return TokenCorpus(name, document_names=names, fingerprint=fingerprint, **arrays)


def _plain(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy without what depends on its use (padding, truncation) and without its post-processor.

    A post-processor adds special tokens and, in byte-level tokenizers, may cut white space off the offsets, which
    would charge it to the next token.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"{type(tokenizer).__name__} is no fast tokenizer: it cannot say which bytes a token stands for; "
            "load it with use_fast=True or convert it to the tokenizers format."
        )
    plain: Any = Tokenizer.from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    plain.post_processor = None
    plain.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
    return plain


def _tokenised(
    documents: Sequence[Document], tokenizer: Tokenizer, max_tokens: int | None, document_tokens: int | None
) -> dict[str, np.ndarray]:
    tokens, byte_counts, starts = [], [], [0]
    for first in range(0, len(documents), BATCH):
        texts = [document.text for document in documents[first : first + BATCH]]
        for text, encoded in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            room = len(encoded.ids) if document_tokens is None else document_tokens
            room = room if max_tokens is None else min(room, max_tokens - starts[-1])
            tokens.append(np.array(encoded.ids[:room], dtype=np.int32))
            byte_counts.append(_bytes_of_tokens(text, encoded.offsets)[:room])
            starts.append(starts[-1] + len(tokens[-1]))
            if max_tokens is not None and starts[-1] >= max_tokens:
                break
        if max_tokens is not None and starts[-1] >= max_tokens:
            break
    return {
        "tokens": np.concatenate([np.zeros(0, np.int32), *tokens]),
        "byte_counts": np.concatenate([np.zeros(0, np.int32), *byte_counts]),
        "document_starts": np.array(starts, dtype=np.int64),
    }


def _bytes_of_tokens(text: str, offsets: list[tuple[int, int]]) -> Int[np.ndarray, "tokens"]:
    """UTF-8 bytes of the original text that each token adds; together they are all bytes of the text.

    A token stands for the text from where the one before it ended to its own end, so that what a tokenizer skips or
    normalises is paid for too; of several tokens that make up one character, the first carries it.
    """
    if not offsets:
        return np.zeros(0, np.int32)
    ends = np.maximum.accumulate(np.array(offsets, dtype=np.int64)[:, 1])
    ends[-1] = len(text)
    if text.isascii():
        before = ends
    else:
        sizes = np.array([len(character.encode("utf-8", "surrogatepass")) for character in text])
        before = np.r_[0, np.cumsum(sizes)][ends]
    return np.diff(before, prepend=0).astype(np.int32)
