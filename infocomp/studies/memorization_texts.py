"""Samples of a memorization study: equally long rows of tokens that a model was trained on, and rows that it never saw.

A row lies in one document, and documents are the clusters of every interval. Rows that are equal are kept once, and a
never-trained row that equals a member is left out: two texts may share their boilerplate, and then it was trained on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerBase

from infocomp.coding.pieces import ExactTokenizer
from infocomp.corpora.builtin import held_out_documents, training_documents
from infocomp.corpora.documents import Document, read_documents
from infocomp.corpora.settings import TextSettings
from infocomp.corpora.tokens import tokenise, tokenizer_hash
from infocomp.memorization.token_tables import read_token_table, rows_of_corpus
from infocomp.studies.memorization_series import series_rows
from infocomp.studies.memorization_settings import SampledTextSettings, SampleSettings

FEWEST_SAMPLES, FEWEST_DOCUMENTS = 8, 2  # below, a threshold cannot be chosen on one half and applied to the other


@dataclass(frozen=True)
class Candidates:
    """Rows before any is drawn: the document of each, the bytes of each token where they are known, and the steps at
    which each was read where a run of ours tells."""

    rows: Int[np.ndarray, "n length"]
    documents: Int[np.ndarray, "n"]
    byte_counts: Int[np.ndarray, "n length"] | None = None
    read_at: Sequence[Int[np.ndarray, "times"]] | None = None


@dataclass(frozen=True)
class SampleSet:
    """The drawn rows of one text."""

    settings: SampledTextSettings
    candidates: Candidates
    chosen: Int[np.ndarray, "n"]
    in_training: str

    @property
    def name(self) -> str:
        return self.settings.name

    @cached_property
    def rows(self) -> Int[np.ndarray, "n length"]:
        return np.ascontiguousarray(self.candidates.rows[self.chosen]).astype(np.int64)

    @cached_property
    def documents(self) -> Int[np.ndarray, "n"]:
        return self.candidates.documents[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def readings(self, step: int | None) -> float | None:
        """How often a row was read before this step, on average; None where no run of ours tells."""
        if self.candidates.read_at is None or step is None:
            return None
        return float(np.mean([(self.candidates.read_at[row] < step).sum() for row in self.chosen]))

    def bytes_of_rows(self, tokenizer: PreTrainedTokenizerBase, first: int) -> Float[np.ndarray, "n"]:
        """Bytes of text that the tokens of each row stand for, from token `first` on."""
        if self.candidates.byte_counts is not None:
            return self.candidates.byte_counts[self.chosen, first:].sum(axis=1).astype(float)
        exact = ExactTokenizer(tokenizer)
        return np.array([len(exact.decode(row[first:].tolist())) for row in self.rows], dtype=float)


@dataclass(frozen=True)
class Samples:
    """Members, never-trained rows, and how they are read."""

    settings: SampleSettings
    members: SampleSet
    unseen: SampleSet
    tokenizer: PreTrainedTokenizerBase
    bos: int | None

    @cached_property
    def tokenizer_hash(self) -> str:
        return tokenizer_hash(self.tokenizer)

    @property
    def positions(self) -> int:
        """Positions that one pass over all rows computes."""
        return (len(self.members) + len(self.unseen)) * (self.settings.length - (self.bos is None))

    def identity(self) -> dict[str, Any]:
        """What of the samples decides a unit's result."""
        digest = hashlib.sha256()
        for part in (self.members, self.unseen):
            for array in (part.rows, part.documents):
                digest.update(repr(array.shape).encode() + np.ascontiguousarray(array, dtype=np.int64).tobytes())
        settings = self.settings.model_dump(mode="json", exclude={"batch_rows", "count", "seed"})
        names = [(one.name, one.in_training) for one in (self.members, self.unseen)]
        return settings | {"rows": digest.hexdigest(), "names": names, "bos_token": self.bos}


def draw_samples(
    members: SampledTextSettings,
    unseen: SampledTextSettings,
    settings: SampleSettings,
    tokenizer: PreTrainedTokenizerBase,
    longest: int | None,
    trained_in: Path | None,
    cache: Path | None = None,
) -> Samples:
    """Cut, compare and draw the rows of both texts. `longest` is how many positions the model reads, `trained_in` the
    folder of the run that trained it, None where it is not one of ours.

    ValueError: rows longer than the model reads, a tokenizer without the BOS that is asked for, texts that hold too few
    rows, members and never-trained rows that are the same text.
    """
    bos: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if settings.bos == "window" and bos is None:
        raise ValueError("samples.bos is 'window', and the tokenizer has no BOS; use 'none'.")
    bos = None if settings.bos == "none" else bos
    needed = settings.length - (bos is None)
    if longest is not None and needed > longest:
        raise ValueError(
            f"samples of a prompt of {settings.prompt} and a continuation of {settings.continuation} tokens need "
            f"{needed} positions, and the model reads {longest}; shorten them."
        )
    if members.name == unseen.name:
        raise ValueError(f"members and never_trained are both named {members.name!r}; rename one.")
    taken = np.zeros(0, dtype=np.uint64)
    drawn: list[SampleSet] = []
    for text, generator in zip((members, unseen), np.random.default_rng(settings.seed).spawn(2), strict=True):
        candidates = _candidates(text, settings.length, tokenizer, trained_in, cache)
        hashes, first = np.unique(row_hashes(candidates.rows), return_index=True)
        first = np.sort(first[~np.isin(hashes, taken)])
        taken = hashes
        chosen = np.sort(generator.permutation(first)[: settings.count])
        if len(chosen) < FEWEST_SAMPLES or len(np.unique(candidates.documents[chosen])) < FEWEST_DOCUMENTS:
            raise ValueError(
                f"{text.name!r} gives {len(chosen)} different samples of {settings.length} tokens from "
                f"{len(np.unique(candidates.documents[chosen]))} documents, and at least {FEWEST_SAMPLES} from "
                f"{FEWEST_DOCUMENTS} are needed; give more text or shorter samples."
            )
        drawn.append(SampleSet(text, candidates, chosen, text.trained_on("no" if drawn else "known")))
    return Samples(settings, drawn[0], drawn[1], tokenizer, bos)


def row_hashes(rows: Int[np.ndarray, "n length"]) -> Int[np.ndarray, "n"]:
    """A 64-bit number for each row, equal for equal rows; two different rows share one once in 10^19."""
    weights = np.random.default_rng(0).integers(0, 2**63, rows.shape[1], dtype=np.uint64) * 2 + 1
    total = np.zeros(len(rows), dtype=np.uint64)
    for column, weight in enumerate(weights):
        mixed = (rows[:, column].astype(np.uint64) + np.uint64(1)) * weight
        total = total * np.uint64(0x9E3779B97F4A7C15) + (mixed ^ (mixed >> np.uint64(31)))
    return total


def _candidates(
    text: SampledTextSettings,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    trained_in: Path | None,
    cache: Path | None,
) -> Candidates:
    if text.series is not None:
        if trained_in is None:
            raise ValueError(
                f"{text.name!r} is 'series', the text of a run that trained the model, and the model was not trained "
                "with this toolkit; give a 'table', a 'path' or a 'text'."
            )
        rows, documents, read_at = series_rows(text.series, trained_in, length, text.name)
        return Candidates(rows, documents, read_at=read_at)
    if text.table is not None:
        rows = read_token_table(text.table.path, text.table.column, text.table.rows)
        if rows.shape[1] < length:
            raise ValueError(
                f"the rows of {text.table.path} have {rows.shape[1]} tokens, and a sample has {length}; shorten it."
            )
        return Candidates(rows[:, :length], np.arange(len(rows)))
    corpus = tokenise(_documents(text), tokenizer, text.name, cache=cache)
    cut = rows_of_corpus(corpus, length)
    sizes = corpus.byte_counts[cut.starts[:, None] + np.arange(length)]
    return Candidates(cut.rows, cut.documents, sizes)


def _documents(text: SampledTextSettings) -> list[Document]:
    if text.text is not None:
        return read_documents(text.text)
    if text.path is not None:
        return read_documents(TextSettings(files=text.path, split=text.documents))
    return held_out_documents() if text.builtin == "held_out" else training_documents()
