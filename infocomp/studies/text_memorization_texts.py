"""Text as samples of a fixed number of tokens, dealt out by document to members, never-trained ones and the reference.

Never-trained samples are of two kinds. Those of other documents (`unseen`) are what a model cannot know; members differ
from them in what their documents share, too. Those of the documents that members are drawn from (`siblings`) differ
from members in nothing but that they were not trained on.

A document's tokens are cut into consecutive samples, its last few tokens dropped. Of samples that are equal, token for
token, one stays, wherever they stand, so that no never-trained sample was trained on and no sample belongs to two
documents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from infocomp.corpora.builtin import held_out_documents, training_documents
from infocomp.corpora.documents import Document, read_documents
from infocomp.studies.text_memorization_settings import SampledTextSettings, SamplesSettings


@dataclass(frozen=True)
class Samples:
    """Samples in the order in which they are drawn; `documents` numbers the document of each."""

    rows: Int[np.ndarray, "n length"]
    documents: Int[np.ndarray, "n"]

    def first(self, n: int) -> "Samples":
        """The first n of them."""
        return Samples(self.rows[:n], self.documents[:n])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class DealtText:
    """The text of a study. `vocabulary` is what the tokenizer came to have; `duplicates` were left out."""

    name: str
    members: Samples
    unseen: Samples
    siblings: Samples
    reference: Samples
    vocabulary: int
    tokenizer: str
    bytes_per_token: float
    duplicates: int

    @property
    def fingerprint(self) -> str:
        """Hash of every sample and of who got it."""
        digest = hashlib.sha256(self.tokenizer.encode())
        for samples in (self.members, self.unseen, self.siblings, self.reference):
            digest.update(f"{samples.rows.shape}".encode())
            digest.update(np.ascontiguousarray(samples.rows).tobytes())
            digest.update(np.ascontiguousarray(samples.documents).tobytes())
        return digest.hexdigest()[:16]


def deal_text(source: SampledTextSettings, settings: SamplesSettings, seed: int = 0) -> DealtText:
    """Read, tokenise, cut, deal and shuffle the text of a study.

    ValueError: what cannot be read, and a text that is too short for the sizes or the never-trained samples asked for.
    """
    documents = _documents(source)
    generator = np.random.default_rng(seed)
    documents = [documents[place] for place in generator.permutation(len(documents))]
    n_reference = max(round(settings.reference_share * len(documents)), 1)
    n_unseen = max(round(settings.unseen_share * len(documents)), 1)
    learnt = documents if settings.tokenizer_from == "all" else documents[:n_reference]
    tokenizer = train_tokenizer([document.text for document in learnt], settings.vocabulary)
    rows, owner, n_tokens = cut_samples(documents, tokenizer, settings.length)
    kept = np.sort(np.unique(rows, axis=0, return_index=True)[1]) if len(rows) else np.zeros(0, np.int64)
    duplicates = len(rows) - len(kept)
    drawn = generator.permutation(kept)
    part = np.digitize(owner[drawn], [n_reference, n_reference + n_unseen])
    reference, unseen, members = (Samples(rows[drawn[part == one]], owner[drawn[part == one]]) for one in range(3))
    largest = max(settings.sizes)
    for wanted, found, what, remedy in (
        (settings.unseen, unseen, "never-trained samples, 'unseen'", "raise unseen_share"),
        (largest + settings.unseen, members, "members, the largest of 'sizes', and their siblings", "ask for fewer"),
        (1, reference, "samples for the reference", "raise reference_share"),
    ):
        if len(found) < wanted:
            raise ValueError(
                f"{source.name}: {wanted:,} samples of {settings.length} tokens are needed as {what}, and their "
                f"documents give {len(found):,} different ones; give more text, or {remedy}."
            )
    size = sum(len(document.text.encode()) for document in documents)
    return DealtText(
        name=source.name,
        members=members.first(largest),
        unseen=unseen.first(settings.unseen),
        siblings=Samples(members.rows[largest:], members.documents[largest:]).first(settings.unseen),
        reference=reference,
        vocabulary=tokenizer.get_vocab_size(),
        tokenizer=hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16],
        bytes_per_token=size / max(n_tokens, 1),
        duplicates=duplicates,
    )


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE as Pythia's without any special token; every byte is a token, so that no text is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def cut_samples(
    documents: Sequence[Document], tokenizer: Tokenizer, length: int
) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n"], int]:
    """Consecutive samples of each document, the number of its document for each, and how many tokens there are."""
    rows, owner, n_tokens = [np.zeros((0, length), np.int64)], [np.zeros(0, np.int64)], 0
    for number, encoded in enumerate(tokenizer.encode_batch_fast([document.text for document in documents])):
        tokens = np.array(encoded.ids, dtype=np.int64)
        count = len(tokens) // length
        rows.append(tokens[: count * length].reshape(count, length))
        owner.append(np.full(count, number))
        n_tokens += len(tokens)
    return np.concatenate(rows), np.concatenate(owner), n_tokens


def random_samples(count: int, vocabulary: int, length: int, seed: int) -> Int[np.ndarray, "count length"]:
    """Uniform random tokens."""
    return np.random.default_rng(seed).integers(vocabulary, size=(count, length))


def _documents(source: SampledTextSettings) -> list[Document]:
    if source.text is not None:
        return read_documents(source.text)
    return held_out_documents() if source.builtin == "held_out" else training_documents()
