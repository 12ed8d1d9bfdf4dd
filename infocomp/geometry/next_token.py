"""How far two models' next-token distributions lie apart: KL both ways, total variation, and whether the tops agree.

KL(p ‖ q) = Σ p (log p − log q) in nats, TV = ½ Σ |p − q| between 0 and 1. "Base to tuned" is KL(base ‖ tuned): the
nats a symbol that the tuned model loses on text drawn from the base. Identical logits give exactly 0.

Arithmetic is float32, a few rows at a time so that they stay in cache: KL is right to 5e-7 nats a position, so that two
models nearer than that are not told apart, and may read slightly below 0.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.interface import Estimate
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.units import bits

CHUNK = 1 << 18  # logits held at once: four arrays of 1 MiB
FIRST_BAND = 16
BANDS = 28  # the last begins at position 2^30

# column of the state → quantity, label, unit, null
_COLUMNS = (
    ("kl", "base to tuned", "bits", 0.0),
    ("kl", "tuned to base", "bits", 0.0),
    ("total_variation", "", "ratio", 0.0),
    ("top_agreement", "", "ratio", None),
)


@dataclass(frozen=True)
class NextTokens:
    """One number a position: KL(base ‖ tuned) and KL(tuned ‖ base) in nats, total variation, and `agree`.

    `agree` says whether both have one likeliest token (where several are equally likely, one in common).
    """

    base_to_tuned: Float[np.ndarray, "rows"]
    tuned_to_base: Float[np.ndarray, "rows"]
    total_variation: Float[np.ndarray, "rows"]
    agree: Bool[np.ndarray, "rows"]

    def __len__(self) -> int:
        return len(self.base_to_tuned)


def compare_next_tokens(
    base: Float[Tensor, "rows vocabulary"], tuned: Float[Tensor, "rows vocabulary"], vocabulary: int | None = None
) -> NextTokens:
    """Both models' logits at the same positions, in any dtype.

    `vocabulary`: only the first ids are compared, both distributions normalised over them, for models whose embeddings
    were padded or extended unequally. ValueError: shapes that differ, rows that hold NaN, infinity or nothing.
    """
    if vocabulary is not None:
        base, tuned = base[:, :vocabulary], tuned[:, :vocabulary]
    if base.ndim != 2 or base.shape != tuned.shape or not base.shape[1]:
        raise ValueError(
            f"logits of base and tuned have shapes {tuple(base.shape)} and {tuple(tuned.shape)}, and must be alike "
            "[rows, vocabulary]; where only padding differs, compare the ids that both have (vocabulary=…)."
        )
    rows, size = base.shape
    found = torch.zeros(4, rows, dtype=torch.float64)
    step = max(1, CHUNK // size)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        _compare(base[part].detach(), tuned[part].detach(), found[:, part])
    values = found.numpy()
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {rows} rows of logits hold NaN or infinity (the first is row {wrong[0]}); find the model "
            "that makes them, or leave ids that are masked out of the comparison (vocabulary=…)."
        )
    return NextTokens(values[0], values[1], values[2], values[3] > 0)


def _compare(base: Tensor, tuned: Tensor, out: Tensor) -> None:
    """log p − log q = (x − y) − (log Σ eˣ − log Σ eʸ); no logarithm of a whole row is taken.

    A softmax in float32 is e^x/Z with a Z that is off by 1e-6: log Z = max x − log max p, and Σ p says by how much.
    """
    x, y = base.float(), tuned.float()
    p, q = x.softmax(dim=1), y.softmax(dim=1)
    top_x, top_y = x.amax(dim=1), y.amax(dim=1)
    of_p, of_q = (side.sum(dim=1).double() for side in (p, q))
    log_p = top_x.double() - (p.amax(dim=1).double() / of_p).log()
    log_q = top_y.double() - (q.amax(dim=1).double() / of_q).log()
    rounded = (log_p - log_q).float()
    rest = log_p - log_q - rounded.double()
    difference = (x - y).sub_(rounded[:, None])
    out[0] = (torch.linalg.vecdot(p, difference).double() / of_p - rest).cpu()
    out[1] = (rest - torch.linalg.vecdot(q, difference).double() / of_q).cpu()
    out[2] = p.sub_(q).abs_().sum(dim=1).double().cpu() / 2
    # the largest sum reaches the sum of the largest only where one token is the largest of both
    out[3] = ((x + y).amax(dim=1) == top_x + top_y).double().cpu()


def band_of(positions: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """0 for positions 0–15, 1 for 16–31, 2 for 32–63, and so on."""
    return np.maximum(np.floor(np.log2(np.maximum(positions, 1))).astype(np.int64) - 3, 0)


def band_name(band: int) -> str:
    """ "positions 0-15", "positions 16-31", …: the first and last position of a band."""
    return f"positions {FIRST_BAND << (band - 1) if band else 0}-{(FIRST_BAND << band) - 1}"


class KLByPosition:
    """Sums over the rows of each document and band of positions; `merge` of any split gives the same to rounding."""

    def __init__(self, documents: int) -> None:
        if documents < 1:
            raise ValueError(f"documents must be at least 1, got {documents}; give the number of documents.")
        self.documents = documents
        self.counts = np.zeros((documents, BANDS), dtype=np.int64)
        self.sums = np.zeros((len(_COLUMNS), documents, BANDS))

    def update(self, found: NextTokens, positions: Int[np.ndarray, "rows"], documents: Int[np.ndarray, "rows"]) -> None:
        """Add rows with the position of each (in its window or document, as the caller counts) and its document.

        ValueError: lengths that differ, a position below 0, a document that is not numbered from 0 to documents − 1.
        """
        if not len(found) == len(positions) == len(documents):
            raise ValueError(
                f"{len(found)} rows with {len(positions)} positions and {len(documents)} documents: one of each a row "
                "is needed."
            )
        if not len(found):
            return
        if positions.min() < 0:
            raise ValueError(f"positions are counted from 0, got {positions.min()}.")
        if documents.min() < 0 or documents.max() >= self.documents:
            raise ValueError(
                f"documents are numbered from 0 to {self.documents - 1} here, got {documents.min()} to "
                f"{documents.max()}; give the number of all documents."
            )
        cell = documents * BANDS + band_of(positions)
        size = self.documents * BANDS
        self.counts += np.bincount(cell, minlength=size).reshape(self.counts.shape)
        columns = (found.base_to_tuned, found.tuned_to_base, found.total_variation, found.agree.astype(np.float64))
        for column, values in enumerate(columns):
            self.sums[column] += np.bincount(cell, values, size).reshape(self.counts.shape)

    def merge(self, other: Self) -> None:
        """Add the rows of another state of as many documents (else ValueError)."""
        if self.documents != other.documents:
            raise ValueError(
                f"states of {self.documents} and {other.documents} documents cannot be merged: number both alike."
            )
        self.counts += other.counts
        self.sums += other.sums

    def estimates(self) -> dict[str, list[Estimate]]:
        """By rows ("all", then each band that has any): KL both ways (bits), total variation and agreement (ratio).

        A mean over rows is a ratio of sums, which document d moves by (sum_d − mean · count_d) / count. No interval
        where fewer than 8 documents have rows. ValueError: no rows at all.
        """
        if not self.counts.any():
            raise ValueError("no rows were compared; give at least one position of one document.")
        found = {"all": self._of(slice(None))}
        for band in np.flatnonzero(self.counts.any(axis=0)):
            found[band_name(int(band))] = self._of(slice(int(band), int(band) + 1))
        return found

    def _of(self, bands: slice) -> list[Estimate]:
        counts = self.counts[:, bands].sum(axis=1)
        n, seen = int(counts.sum()), counts > 0
        rows = []
        for (quantity, label, unit, null), by_document in zip(
            _COLUMNS, self.sums[:, :, bands].sum(axis=2), strict=True
        ):
            factor = bits(1.0) if unit == "bits" else 1.0
            value = by_document.sum() / n
            influence = factor * (by_document - value * counts) / n
            about = {"quantity": quantity, "label": label, "unit": unit, "null": null, "n": n}
            if seen.sum() < FEWEST_DOCUMENTS:
                few = f"no interval: {seen.sum()} documents, at least {FEWEST_DOCUMENTS} are needed"
                rows.append(Estimate(value=factor * float(value), message=few, **about))
                continue
            error = standard_error(influence[seen])
            half = quantile(int(seen.sum())) * error
            value = factor * float(value)
            rows.append(
                Estimate(
                    value=value,
                    std_error=error,
                    interval=(value - half, value + half),
                    influence={"value": influence},
                    **about,
                )
            )
        return rows
