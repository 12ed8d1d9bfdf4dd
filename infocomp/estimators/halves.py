"""Documents in two halves: what one half learns is scored on the other, so that it is never scored on itself.

Tokens of one document depend on each other, documents do not, so a split is by document. The halves are known before
a model runs and are the same for every site, draw and checkpoint of a text.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor, from_numpy

from infocomp.estimators.nulls import sampling_order

FEWEST_DOCUMENTS = 8  # below, a standard error over documents says nothing


@dataclass(frozen=True)
class Halves:
    """`document` numbers the document of each row from 0, `second` says which rows are of the second half."""

    document: Int[np.ndarray, "rows"]
    second: Bool[np.ndarray, "rows"]
    n_documents: int

    @classmethod
    def of(
        cls, documents: Int[np.ndarray, "rows"], seed: int = 0, labelled: Bool[np.ndarray, "rows"] | None = None
    ) -> "Halves | None":
        """Split documents of similar size, two by two, by a seeded coin; None for a single document.

        With `labelled`, only documents with such rows are split and numbered; all other rows stand under document 0 of
        the first half and are for the reader to leave out. The halves hold equally many documents (or one more) and
        nearly as many rows, and do not depend on the order in which equally named documents were merged.
        """
        own = documents if labelled is None else documents[labelled]
        names, document, sizes = np.unique(own, return_inverse=True, return_counts=True)
        if len(names) < 2:
            return None
        ranks = np.empty(len(names), dtype=np.int64)
        ranks[sampling_order(names, seed, len(names))] = np.arange(len(names))
        by_size = np.lexsort((ranks, sizes))
        second = np.zeros(len(names), dtype=bool)
        pairs = by_size[: len(names) // 2 * 2].reshape(-1, 2)
        coins = sampling_order(pairs[:, 0], seed + 1, len(pairs)).argsort() % 2
        second[pairs[np.arange(len(pairs)), coins]] = True
        if labelled is None:
            return cls(document, second[document], len(names))
        everywhere, halved = np.zeros(len(documents), dtype=np.int64), np.zeros(len(documents), dtype=bool)
        everywhere[labelled], halved[labelled] = document, second[document]
        return cls(everywhere, halved, len(names))

    @cached_property
    def weights(self) -> np.ndarray:
        """1 for rows of the first half, 0 for the others, as float32."""
        return (~self.second).astype(np.float32)

    @cached_property
    def code(self) -> Tensor:
        """0 or 1 for each row."""
        return from_numpy(self.second.astype(np.int64))

    def per_document(self, values: np.ndarray) -> np.ndarray:
        """Sum of a value per row over the rows of each document."""
        return np.bincount(self.document, weights=values, minlength=self.n_documents)
