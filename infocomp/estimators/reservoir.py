"""A seeded sample of rows that stays the same however the rows were split, ordered or merged.

Estimators that compare rows with each other cannot stream; they work on up to `size` rows with their labels and
documents. A row is chosen by the hash of its key (its number in the corpus), as in `nulls.sampling_order`: the rows
held after any order of updates and merges are those whose hashes come first, so the sample for a smaller size is
nested in the sample for a larger one, and two sites or checkpoints hold the same rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from torch import Tensor

from infocomp.estimators.nulls import MOST_DROPPED, sampling_order

Integers = Tensor | np.ndarray | Iterable[int]


@dataclass(frozen=True)
class Sample:
    """Rows in the order of (document, key), so that a document's rows stand together; `labels` by name."""

    keys: Int[np.ndarray, "rows"]
    rows: Float[np.ndarray, "rows dim"]
    labels: dict[str, Int[np.ndarray, "rows"]]
    documents: Int[np.ndarray, "rows"] | None

    def __len__(self) -> int:
        return len(self.keys)

    def sorted_by(self, documents: Int[np.ndarray, "rows"] | None) -> "Sample":
        """The same rows, one document after the other, each by key."""
        order = np.lexsort((self.keys,) if documents is None else (self.keys, documents))
        labels = {name: values[order] for name, values in self.labels.items()}
        return Sample(self.keys[order], self.rows[order], labels, None if documents is None else documents[order])


class Reservoir:
    """Up to `size` rows [dim] in float32 on the CPU, chosen by the hash of (key, seed); `n` counts all rows seen.

    >>> import torch
    >>> held = Reservoir(dim=2, size=3, seed=0)
    >>> held.update(torch.arange(20.0).view(10, 2))
    >>> held.n, len(held.take())
    (10, 3)
    """

    def __init__(self, dim: int, size: int = 65_536, seed: int = 0) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        if size < 2:
            raise ValueError(f"size must be at least 2 rows, got {size}.")
        self.dim, self.size, self.seed = dim, size, seed
        self.n = 0
        self._numbered = False  # keys were the order of arrival
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._documents: list[np.ndarray] = []
        self._labels: dict[str, list[np.ndarray]] = {}
        self._last: int | None = None  # the key whose hash comes last among the `size` held, once rows are dropped

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        labels: Mapping[str, Integers] | None = None,
        documents: Integers | None = None,
        keys: Integers | None = None,
    ) -> None:
        """Add rows; only those that stay leave their device.

        `labels` holds one integer per row and set (-1: no label), `documents` the number of each row's document,
        `keys` the rows' numbers in the corpus, unique over all updates and merges (the order of arrival by default).
        Raises ValueError for wrong shapes, rows that are not finite, and calls that give other things than before.
        """
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(f"rows must be [rows, {self.dim}], got {tuple(rows.shape)}.")
        if not bool(torch.isfinite(rows).all()):
            bad = int((~torch.isfinite(rows).all(dim=1)).sum())
            raise ValueError(f"{bad} of {len(rows)} rows are not finite; find where the model overflows.")
        given = {name: one_per_row(values, len(rows), name) for name, values in (labels or {}).items()}
        numbers = None if documents is None else one_per_row(documents, len(rows), "documents")
        if self.n and set(given) != set(self._labels):
            raise ValueError(
                f"every update must name the same label sets; so far {sorted(self._labels)}, now {sorted(given)}."
            )
        if self.n and (numbers is None) != (not self._documents):
            raise ValueError("documents must be given in every update or in none.")
        if self.n and (keys is None) != self._numbered:
            raise ValueError("keys must be given in every update or in none.")
        self._numbered = keys is None
        numbered = np.arange(self.n, self.n + len(rows)) if keys is None else one_per_row(keys, len(rows), "keys")
        self.n += len(rows)
        staying = self._ahead(numbered)
        self._keys.append(numbered[staying])
        index = torch.from_numpy(staying).to(rows.device)
        self._rows.append(rows.detach()[index].float().cpu().numpy())
        if numbers is not None:
            self._documents.append(numbers[staying])
        for name, values in given.items():
            self._labels.setdefault(name, []).append(values[staying])
        if sum(map(len, self._keys)) > 2 * self.size:
            self._prune()

    def merge(self, other: "Reservoir") -> None:
        """Add the rows of another reservoir of the same dim, size and seed (else ValueError).

        Rows without keys are numbered on from this one's, which needs all of the other's rows: once it dropped some,
        keys are asked for.
        """
        mine, its = (self.dim, self.size, self.seed), (other.dim, other.size, other.seed)
        if mine != its:
            raise ValueError(f"reservoirs differ in (dim, size, seed): {mine} and {its}; make both with the same.")
        if not other.n:
            return
        if self.n:
            if set(self._labels) != set(other._labels) or bool(self._documents) != bool(other._documents):
                raise ValueError("reservoirs differ in their label sets or documents; give the same to both.")
            if self._numbered != other._numbered:
                raise ValueError("one reservoir has keys and the other has none; give keys to both.")
        held = other.take()
        keys = held.keys
        if other._numbered:
            if len(held) < other.n:
                raise ValueError(
                    f"the other reservoir holds {len(held)} of its {other.n} rows and no keys, so the choice would "
                    "depend on the split; give keys (row numbers in the corpus) to update."
                )
            keys = keys + self.n
        elif np.isin(keys, np.concatenate(self._keys) if self._keys else []).any():
            raise ValueError("reservoirs share keys: the same rows would count twice; keys must be unique.")
        self._numbered = other._numbered
        self.n += other.n
        self._keys.append(keys)
        self._rows.append(held.rows)
        if held.documents is not None:
            self._documents.append(held.documents)
        for name, values in held.labels.items():
            self._labels.setdefault(name, []).append(values)
        self._prune()

    def take(self, size: int | None = None) -> Sample:
        """The rows held, or the first `size` of them by hash, sorted by document and key."""
        if not self.n:
            raise ValueError("nothing to estimate: update was never called with rows.")
        self._prune()
        keys = self._keys[0]
        chosen = sampling_order(keys, self.seed, min(self.size if size is None else size, len(keys)))
        labels = {name: parts[0][chosen] for name, parts in self._labels.items()}
        documents = self._documents[0][chosen] if self._documents else None
        return Sample(keys[chosen], self._rows[0][chosen], labels, documents).sorted_by(documents)

    def _ahead(self, keys: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "staying"]:
        """Which of the new rows hash ahead of the last one held."""
        if self._last is None:
            return np.arange(len(keys))
        order = sampling_order(np.append(keys, self._last), self.seed, len(keys) + 1)
        return np.sort(order[: int(np.flatnonzero(order == len(keys))[0])])

    def _prune(self) -> None:
        """Put the parts together and drop what hashes beyond `size`."""
        keys = np.concatenate(self._keys)
        dropped = len(keys) > self.size
        kept = sampling_order(keys, self.seed, self.size) if dropped else slice(None)
        self._keys = [keys[kept]]
        self._rows = [np.concatenate(self._rows)[kept]]
        self._documents = [np.concatenate(self._documents)[kept]] if self._documents else []
        self._labels = {name: [np.concatenate(parts)[kept]] for name, parts in self._labels.items()}
        if dropped:
            self._last = int(self._keys[0][-1])


def turned_rows(documents: Int[np.ndarray, "rows"] | None) -> Int[np.ndarray, "rows"] | None:
    """For each sampled row, a row of another document: the rows, document after document, turned round by half.

    Runs of one document stay runs, as in `nulls.paired_rows`, which pairs positions of windows that a sample has lost.
    -1 marks rows whose partner is of the same document; None without documents and where more than 5 % are marked.
    """
    if documents is None or not len(documents):
        return None
    order = np.argsort(documents, kind="stable")
    partner = np.empty(len(documents), dtype=np.int64)
    partner[order] = np.roll(order, -(len(order) // 2))
    partner[documents[partner] == documents] = -1
    return partner if (partner < 0).mean() <= MOST_DROPPED else None


def one_per_row(values: Integers, rows: int, name: str) -> Int[np.ndarray, "rows"]:
    """Integers as int64, one per row. Raises TypeError for other types and ValueError for another length."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}.")
    if array.shape != (rows,):
        raise ValueError(f"{name} has {array.size} entries, rows has {rows}: one label per row is needed.")
    return array.astype(np.int64)


def reduced(rows: Float[np.ndarray, "rows dim"], components: int | None) -> Float[np.ndarray, "rows components"]:
    """Rows in float64 on their first principal components, not whitened (scikit-learn's PCA, exact solver).

    Rows of at most `components` dimensions, and all rows where it is None, keep their own coordinates.
    """
    rows = rows.astype(np.float64)
    if components is None or rows.shape[1] <= components:
        return rows
    found = PCA(n_components=min(components, len(rows)), svd_solver="covariance_eigh").fit_transform(rows)
    return np.asarray(found)
