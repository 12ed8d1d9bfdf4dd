"""Rows about what a code spends its bits on: bits per byte and per token of numbers, names, rare words and other kinds.

From the code lengths of the rate's own forward pass. The classical twin is one adaptive PPM over the whole text, whose
cost of every byte is known; beside each rate of the model stands its null, the tokens under their own frequencies.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from infocomp.coding.kinds import Lexicon, Rules
from infocomp.coding.retention import ALL, Retained, retention
from infocomp.corpora.windows import document_of
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.numbers import quantile
from infocomp.studies.coding_rows import UNITS, Row
from infocomp.studies.coding_texts import CodedText
from infocomp.units import bits

PPM = "PPM"  # the column `model` of the classical twin


@dataclass(frozen=True)
class RetentionProfile:
    """The kinds of one text's spans, ready for the code lengths of any checkpoint."""

    text: CodedText
    rules: Rules = field(default_factory=Rules)

    def rows(self, nats: Float[np.ndarray, "scored"], shared: Row) -> list[Row]:
        """Bits per byte and per token of each kind that occurs; the row over all kinds is the rate itself."""
        rows = []
        common = {**shared, "site": "logits", "estimator": "code_length"}
        common |= {"settings": shared["settings"] | {"kinds": asdict(self.rules)}}
        for found in self._profile(nats * bits(1.0)):
            null = self._nulls[found.kind]
            values = {
                "bits_per_byte": (found.bits_per_byte, found.std_error, null.bits_per_byte),
                "bits_per_token": (found.bits_per_token, found.std_error_per_token, null.bits_per_token),
            }
            rows += [
                {**common, **_columns(found, quantity, value, error), "null": null}
                for quantity, (value, error, null) in values.items()
            ]
        return rows

    def classical_rows(self, lengths: Float[np.ndarray, "bytes"], order: int) -> list[Row]:
        """Bits per byte of PPM on the bytes of each kind, from its bits of every byte of the text.

        The token count is that of the model's tokens.
        """
        common = {"model": PPM, "corpus": self.text.name, "estimator": "classical", "draw": "mean"}
        common |= {"in_training": self.text.settings.trained_on}
        rule = "one adaptive stream over the whole text, documents one after the other"
        common |= {"settings": {"order": order, "rule": rule, "kinds": asdict(self.rules)}}
        return [
            {**common, **_columns(found, "bits_per_byte", found.classical_bits_per_byte, found.classical_std_error)}
            for found in self._profile(np.zeros(len(self._in_text)), lengths)
        ]

    def classical_documents(self, lengths: Float[np.ndarray, "bytes"]) -> list[Row]:
        """Bits of PPM on the scored bytes of each document, for OUT/documents.parquet, beside those of every model.

        Tokens are those of the model, and the revision is empty: one set of rows a text, whatever the checkpoints.
        """
        prepared = self.text.prepared
        scored = prepared.windows.scored_tokens
        before = np.r_[0, np.cumsum(lengths)]
        edges = np.r_[0, np.cumsum(prepared.corpus.byte_counts, dtype=np.int64)]
        of_token = before[edges[scored + 1]] - before[edges[scored]]
        return [
            {"model": PPM, "revision": "", "corpus": self.text.name}
            | {"document": name, "n_tokens": count, "n_bytes": size, "bits": spent}
            for name, count, size, spent in prepared.document_rates(of_token)
        ]

    def _profile(
        self, token_bits: Float[np.ndarray, "scored"], byte_bits: Float[np.ndarray, "bytes"] | None = None
    ) -> list[Retained]:
        """Bits of the scored tokens, and of every byte of the text where they are known, by kind."""
        if byte_bits is None:
            byte_bits = np.zeros(len(self.text.data))
        in_text = token_bits[self._in_text]
        sizes = np.cumsum([len(text.encode()) for text in self._texts])
        found = retention(
            self._texts,
            self._spans,
            np.split(in_text, self._ends[:-1]),
            np.split(byte_bits, sizes[:-1]),
            self.rules,
            self._lexicon,
        )
        return [one for one in found if one.kind != ALL]

    @cached_property
    def _texts(self) -> list[str]:
        return [document.text for document in self.text.prepared.documents]

    @cached_property
    def _lexicon(self) -> Lexicon:
        return Lexicon(self._texts)

    @cached_property
    def _in_text(self) -> Int[np.ndarray, "scored"]:
        """Place among the scored tokens, which come window after window, of each in the order of the text."""
        return np.argsort(self.text.prepared.windows.scored_tokens, kind="stable")

    @cached_property
    def _ends(self) -> Int[np.ndarray, "documents"]:
        """How many scored tokens lie in the text up to the end of each document."""
        prepared = self.text.prepared
        owner = document_of(prepared.corpus, prepared.windows.scored_tokens[self._in_text])
        return np.cumsum(np.bincount(owner, minlength=prepared.corpus.n_documents))

    @cached_property
    def _spans(self) -> list[Int[np.ndarray, "tokens 2"]]:
        """Bytes (start, end) of each scored token in its document."""
        prepared = self.text.prepared
        corpus, scored = prepared.corpus, prepared.windows.scored_tokens[self._in_text]
        edges = np.r_[0, np.cumsum(corpus.byte_counts, dtype=np.int64)]
        first = edges[corpus.document_starts[document_of(corpus, scored)]]
        spans = np.stack([edges[scored] - first, edges[scored + 1] - first], axis=1)
        return np.split(spans, self._ends[:-1])

    @cached_property
    def _nulls(self) -> dict[str, Retained]:
        """The same tokens under their own frequencies, by kind."""
        prepared = self.text.prepared
        tokens = prepared.corpus.tokens[prepared.windows.scored_tokens]
        surprise = -np.log(np.bincount(tokens)[tokens] / len(tokens))
        return {found.kind: found for found in self._profile(surprise * bits(1.0))}


def _columns(found: Retained, quantity: str, value: float, error: float | None) -> Row:
    row: Row = {"quantity": quantity, "unit": UNITS[quantity], "label": f"kind {found.kind}", "value": value}
    row |= {"n_tokens": round(found.n_tokens), "n_documents": found.n_documents}
    if error is not None and found.n_documents >= FEWEST_DOCUMENTS:
        width = quantile(found.n_documents) * error
        row |= {"std_error": error, "ci_low": value - width, "ci_high": value + width}
    return row
