"""What an estimate reads when nothing is there: two nulls for every information.

Plug-in information is biased upwards by rare labels (a true 0 reads as a quarter of the ceiling at 30,000 tokens), so
each value stands beside what the same labels and the same rows give once their pairing is broken:

- `paired_rows`: the labels of one window with the rows of another window of another document. Burstiness of the
  labels and autocorrelation of the rows stay, as they would in text.
- `RowNull`: the expectation under any permutation of single rows, which depends on each label's count alone.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = {"cpu": 1024}  # labels whose entropies are taken at once: in cache on a CPU, many on a GPU
MOST_DROPPED = 0.05  # plug-in bias goes like 1/rows: a null over fewer rows would read too high


def paired_rows(
    documents: Int[np.ndarray, "rows"], windows: Int[np.ndarray, "rows"] | None = None
) -> Int[np.ndarray, "rows"] | None:
    """For each row, a row of another document at the same place of a window of equal length; -1 where there is none.

    `windows` numbers the windows (one a document by default); rows of a window stand together. Windows of one length
    are turned round by half their number, or by more where a document fills several; windows whose length is unique
    are laid end to end and turned likewise, by what leaves the fewest rows without a partner. Apart from rows marked
    -1 it is a permutation, so the marginal of the rows is kept. None when more than 5 % of the rows find no partner (a
    single document, for one).
    """
    n = len(documents)
    if windows is None:
        windows = documents
    starts = np.flatnonzero(np.r_[True, windows[1:] != windows[:-1]]) if n else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, n])
    partner = np.full(n, -1, dtype=np.int64)
    left_over = []
    for length in np.unique(lengths):
        same = starts[lengths == length]
        same = same[np.argsort(documents[same], kind="stable")]
        span = _widest_span(documents[same], documents[same + length - 1])
        turn = len(same) // 2
        if turn >= span and len(same) - turn >= span:
            other = np.roll(same, -turn)
            partner[(same[:, None] + np.arange(length)).ravel()] = (other[:, None] + np.arange(length)).ravel()
        else:
            left_over.append((same[:, None] + np.arange(length)).ravel())
    if left_over:
        rows = np.sort(np.concatenate(left_over))
        turns = {max(1, len(rows) * sixteenths // 16) for sixteenths in range(4, 13)}
        turned = [np.roll(rows, -turn) for turn in sorted(turns, key=lambda turn: abs(turn - len(rows) / 2))]
        partner[rows] = min(turned, key=lambda other: (documents[other] == documents[rows]).sum())
    partner[(partner >= 0) & (documents[partner] == documents)] = -1
    return partner if n and (partner < 0).mean() <= MOST_DROPPED else None


def paired_within(
    labelled: Int[np.ndarray, "labelled"], documents: Int[np.ndarray, "rows"], windows: Int[np.ndarray, "rows"] | None
) -> Int[np.ndarray, "rows"] | None:
    """`paired_rows` among some rows only: where a label set leaves rows out, those that stay are its population."""
    partner = paired_rows(documents[labelled], None if windows is None else windows[labelled])
    if partner is None:
        return None
    row_of = np.full(len(documents), -1, dtype=np.int64)
    row_of[labelled] = np.where(partner >= 0, labelled[partner], -1)
    return row_of


def _widest_span(first_document: np.ndarray, last_document: np.ndarray) -> int:
    """The most windows, counted from the first to the last, that one document touches."""
    if len(first_document) == 0:
        return 0
    span = 1
    begin = 0
    for window in range(1, len(first_document)):
        while first_document[window] > last_document[begin]:
            begin += 1
        span = max(span, window - begin + 1)
    return span


class RowNull:
    """g(n) = E H(mean of n rows drawn without replacement), in nats: the row-permutation expectation of H(J | label).

    Estimated on a seeded sample of rows by block sums at sizes 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, …; between
    them, and beyond the largest, (H(J) − g(n))·n / (1 − n/N) is interpolated in log n: it tends to χ/2, the
    second-order bias of an entropy, where it is constant.
    """

    SAMPLE = 32_768
    FEWEST_GROUPS = 32

    def __init__(
        self,
        sample: Float[Tensor, "sample bins"],
        marginal_entropy: float,
        mean_entropy: float,
        n_rows: int,
    ) -> None:
        """`sample` in random order; `mean_entropy` is E H(A) over all `n_rows` rows, hence g(1) is exact."""
        self.marginal_entropy, self.n_rows = marginal_entropy, n_rows
        excess = {1: (marginal_entropy - mean_entropy) * _finite(1, n_rows)}
        for family in (1, 3, 5, 7):
            whole = len(sample) // family * family
            sums = sample[:whole].view(-1, family, sample.shape[1]).sum(dim=1)
            size = family
            while len(sums) >= self.FEWEST_GROUPS and size < n_rows:
                if size > 1:
                    g = float(entropies_of_sums(sums, torch.full((len(sums),), float(size))).mean())
                    excess[size] = (marginal_entropy - g) * size * _finite(size, n_rows)
                sums = sums[: len(sums) // 2 * 2].view(-1, 2, sums.shape[1]).sum(dim=1)
                size *= 2
        self._sizes = np.log(sorted(excess))
        self._excess = np.array([excess[size] for size in sorted(excess)])

    def __call__(self, n: Float[np.ndarray, "*labels"]) -> Float[np.ndarray, "*labels"]:
        n = np.asarray(n, dtype=np.float64)
        return self.marginal_entropy - self.gap(n) * np.maximum(1 - (n - 1) / max(self.n_rows - 1, 1), 0.0)

    def gap(self, n: Float[np.ndarray, "*labels"]) -> Float[np.ndarray, "*labels"]:
        """H(J) − E H(mean of n rows) for n ≥ 1, whole or not, of rows from a population without end."""
        n = np.asarray(n, dtype=np.float64)
        return np.interp(np.log(n), self._sizes, self._excess) / n


def _finite(size: int, n_rows: int) -> float:
    """Undoes the finite-population factor (N − n)/(N − 1) of the variance of a mean without replacement."""
    return max(n_rows - 1, 1) / max(n_rows - size, 1)


def entropies_of_sums(
    sums: Float[Tensor, "labels bins"],
    counts: Float[Tensor, "labels"],
    logs: Float[Tensor, "labels bins"] | None = None,
) -> Float[Tensor, "labels"]:
    """Entropy in nats of each row of `sums` divided by its count, in float64 on the CPU.

    Works through blocks that stay in cache; an empty bin adds nothing. `logs`, where given, is filled with the
    logarithms of the divided rows (very low, not −∞, for an empty bin).
    """
    tiny = torch.finfo(sums.dtype).tiny
    size = BLOCK.get(sums.device.type, 65_536)
    shares, buffer = torch.empty_like(sums[:size]), torch.empty_like(sums[:size])
    divisors = counts.to(sums.device, sums.dtype).unsqueeze(1)
    parts = [sums.new_zeros(0)]
    for start in range(0, len(sums), size):
        block = sums[start : start + size]
        share = shares[: len(block)]
        log = buffer[: len(block)] if logs is None else logs[start : start + size]
        torch.div(block, divisors[start : start + size], out=share)
        torch.clamp(share, min=tiny, out=log).log_()
        parts.append(torch.linalg.vecdot(share, log))
    return torch.cat(parts).cpu().double().neg_()


def sampling_order(keys: Int[np.ndarray, "rows"], seed: int, size: int) -> Int[np.ndarray, "sample"]:
    """The `size` rows whose hashed keys come first: the same rows however the rows were split or merged."""
    mixed = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (seed + 1) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    if size < len(mixed):
        chosen = np.argpartition(mixed, size)[:size]
        return chosen[np.argsort(mixed[chosen], kind="stable")]
    return np.argsort(mixed, kind="stable")
