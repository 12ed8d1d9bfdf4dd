"""Mean activation of each token type, streaming and mergeable, in two halves of the documents.

State is a count and a sum of rows in float64 for each half and type. What a mean is worth is told by the other half:
documents are independent of each other and the occurrences of a word within one are not, so that a document's
occurrences stand in one half. A site of 1,024 types costs 16·d KiB: 8 MiB at d = 512, 64 MiB at d = 4,096.
"""

from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class WordMeans:
    """Counts and sums of the rows of `types` (token ids), by half; `merge` of any split gives the same to rounding.

    ValueError: no types, a type twice, a negative id, a width below 1.
    """

    def __init__(self, types: Int[np.ndarray, "types"], dim: int, seed: int = 0) -> None:
        types = np.asarray(types, dtype=np.int64)
        if types.ndim != 1 or not len(types) or len(np.unique(types)) < len(types) or types.min() < 0:
            raise ValueError(
                f"types must be a list of different token ids, none negative, got shape {types.shape} and "
                f"{len(np.unique(types))} different ones; take those of frequent_types."
            )
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}; give the width of the site's rows.")
        self.types, self.dim, self.seed = types, dim, seed
        self.counts = np.zeros((2, len(types)), dtype=np.int64)
        self._sums = torch.zeros(2 * len(types), dim, dtype=torch.float64)
        self._place = np.full(int(types.max()) + 1, -1, dtype=np.int64)
        self._place[types] = np.arange(len(types))

    @property
    def sums(self) -> Float[np.ndarray, "2 types dim"]:
        """Sums of rows, first half and second half."""
        return self._sums.view(2, len(self.types), self.dim).numpy()

    def update(
        self,
        rows: Float[Tensor, "rows dim"] | Float[np.ndarray, "rows dim"],
        tokens: Int[np.ndarray, "rows"],
        documents: Int[np.ndarray, "rows"],
    ) -> None:
        """Add rows, the token that each stands at, and the number of its document.

        ValueError: shapes that do not match, a row of a counted type that holds NaN or infinity.
        """
        given = torch.as_tensor(rows).detach()
        tokens, documents = np.asarray(tokens), np.asarray(documents)
        if given.ndim != 2 or given.shape[1] != self.dim or not len(given) == len(tokens) == len(documents):
            raise ValueError(
                f"rows of shape {tuple(given.shape)} with {len(tokens)} tokens and {len(documents)} documents: one "
                f"row of width {self.dim}, one token and one document each are needed."
            )
        inside = (tokens >= 0) & (tokens < len(self._place))
        place = np.where(inside, self._place[np.where(inside, tokens, 0)], -1)
        kept = np.flatnonzero(place >= 0)
        if not len(kept):
            return
        found = given[torch.from_numpy(kept).to(given.device)].cpu().double()
        if not bool(torch.isfinite(found).all()):
            raise ValueError("rows hold NaN or infinity; find the layer or checkpoint that makes them.")
        half = second_half(documents[kept], self.seed).astype(np.int64)
        into = half * len(self.types) + place[kept]
        self._sums.index_add_(0, torch.from_numpy(into), found)
        self.counts += np.bincount(into, minlength=2 * len(self.types)).reshape(2, -1)

    def merge(self, other: Self) -> None:
        """Add what another state saw of the same types, width and seed (else ValueError)."""
        self.check_comparable(other)
        if self.dim != other.dim:
            raise ValueError(f"word means of widths {self.dim} and {other.dim} cannot be merged: take one site.")
        self._sums += other._sums
        self.counts += other.counts

    def check_comparable(self, other: Self) -> None:
        """ValueError unless both count the same types, and halve the documents alike."""
        if not np.array_equal(self.types, other.types):
            raise ValueError(
                f"word means of {len(self.types)} and of {len(other.types)} token types: the same ids in the same "
                "order are needed; count both with one list, and compare models with one tokenizer only."
            )
        if self.seed != other.seed:
            raise ValueError(f"word means halve their documents by seeds {self.seed} and {other.seed}; take one seed.")

    def means(
        self, half: int | None = None, of: Int[np.ndarray, "some"] | None = None
    ) -> Float[np.ndarray, "some dim"]:
        """Mean rows of the types with those places (all by default), over one half or both; NaN where none was seen."""
        places = slice(None) if of is None else of
        sums = self.sums.sum(axis=0) if half is None else self.sums[half]
        counts = self.counts.sum(axis=0) if half is None else self.counts[half]
        with np.errstate(invalid="ignore"):
            return sums[places] / counts[places, None]


def second_half(documents: Int[np.ndarray, "rows"], seed: int) -> Bool[np.ndarray, "rows"]:
    """Which documents are of the second half: a seeded coin for 2j and 2j + 1, which always part.

    Known from the number alone, so that every batch, site and model halves alike. ValueError: a negative number.
    """
    if len(documents) and documents.min() < 0:
        raise ValueError(f"documents are numbered from 0, got {documents.min()}.")
    mixed = (documents >> 1).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (seed + 1) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    coin = (mixed >> np.uint64(63)).astype(bool)
    return coin ^ (documents & 1).astype(bool)


def frequent_types(
    tokens: Int[np.ndarray, "rows"], documents: Int[np.ndarray, "rows"], most: int = 512, least: int = 8, seed: int = 0
) -> Int[np.ndarray, "types"]:
    """Up to `most` token ids, the most frequent first, each at least `least // 2` times in each half of the documents.

    Ties go to the smaller id. ValueError: lengths that differ.
    """
    if len(tokens) != len(documents):
        raise ValueError(f"{len(tokens)} tokens and {len(documents)} documents: one document a token is needed.")
    size = int(tokens.max(initial=-1)) + 1
    second = second_half(documents, seed)
    counts = np.stack([np.bincount(tokens[second == half], minlength=size) for half in (False, True)])
    enough = np.flatnonzero(counts.min(axis=0) >= max(1, least // 2))
    order = np.lexsort((enough, -counts[:, enough].sum(axis=0)))
    return enough[order[:most]]
