"""Which words moved: how much of a token type's neighbourhood a tuned model keeps, and whether noise could do it.

A word's neighbours are the k types whose mean rows have the highest cosine with its own, after the mean of all types
is taken off (activations share a large offset that would make all cosines alike). drift = 1 − |before ∩ after| / k, a
ratio from 0 to 1. Only neighbourhoods are compared, never coordinates, so that widths may differ.

Means of few occurrences are noisy, and neighbourhoods of noisy means differ although nothing moved. So the documents
are halved. `null` is the drift between halves within a model (mean of base and tuned), `across` the drift between one
model on one half and the other model on the other half (mean of both ways). Both compare means of half the
occurrences, from separate documents, so that their difference, `excess`, is 0 on average where nothing moved, and
exactly 0 for two copies of one model. Exchange of base and tuned in one half turns its sign: without movement it is
symmetric about 0, and the words below 0 tell the spread of those above.

Spread: variance θ · u(1 − u)/k with u the mean of null and across (k draws of share u, which are not independent), θ
from the words at and below 0 together with 20 imagined words of θ = 1, and at least half a neighbour. p is the normal
tail less half a step of the statistic (1/2k); a word that moved no more than its noise has p = 1. Moved are the words
within a false-discovery rate of 5 % (Benjamini & Hochberg 1995).

A word whose neighbours moved has lost neighbours too, and is called where that is beyond noise: one word that leaves a
neighbourhood takes 1/k from each that stays, so that those that went themselves stand above those they left.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.word_means import WordMeans

RATE = 0.05
_IMAGINED = 20.0


@dataclass(frozen=True)
class WordDrift:
    """One token type; ids of `lost` and `gained` neighbours stand nearest first. `count`: occurrences in the base."""

    token: int
    count: int
    drift: float
    null: float
    across: float
    p: float
    moved: bool
    lost: tuple[int, ...]
    gained: tuple[int, ...]

    @property
    def excess(self) -> float:
        """The drift beyond noise: what stays of it on other documents."""
        return self.across - self.null


@dataclass(frozen=True)
class _Overlap:
    """Neighbours in common of each word, and by how many all the words' sum changes through each word's absence."""

    counts: Int[np.ndarray, "words"]
    change: Int[np.ndarray, "words"]


@dataclass(frozen=True)
class _Compared:
    """Places of the words that are frequent enough, their neighbours in both models, and all overlaps."""

    places: Int[np.ndarray, "words"]
    before: Int[np.ndarray, "words k"]
    after: Int[np.ndarray, "words k"]
    whole: _Overlap
    within: tuple[_Overlap, _Overlap]
    across: tuple[_Overlap, _Overlap]


def word_drift(base: WordMeans, tuned: WordMeans, k: int = 10, least: int = 8) -> list[WordDrift]:
    """Every word seen `least // 2` times in each half of the documents in both models; largest excess first.

    ValueError: k below 1, types or seeds that differ. Refusal (a ValueError): fewer than k + 2 words are seen often
    enough, or all means of a model are equal.
    """
    found = _compared(base, tuned, k, least)
    within = found.within[0].counts + found.within[1].counts
    across = found.across[0].counts + found.across[1].counts
    p = _p_values(within - across, 4 * k - within - across, k)
    moved = false_discovery_control(p) <= RATE
    counts = base.counts.sum(axis=0)
    words = []
    for word, place in enumerate(found.places):
        before, after = found.before[word], found.after[word]
        lost, gained = before[~np.isin(before, after)], after[~np.isin(after, before)]
        words.append(
            WordDrift(
                token=int(base.types[place]),
                count=int(counts[place]),
                drift=1 - int(found.whole.counts[word]) / k,
                null=1 - int(within[word]) / (2 * k),
                across=1 - int(across[word]) / (2 * k),
                p=float(p[word]),
                moved=bool(moved[word]),
                lost=tuple(base.types[found.places[lost]].tolist()),
                gained=tuple(base.types[found.places[gained]].tolist()),
            )
        )
    return sorted(words, key=lambda word: (-round(2 * k * word.excess), -word.drift, word.token))


def mean_drift(base: WordMeans, tuned: WordMeans, k: int = 10, least: int = 8) -> Estimate:
    """The mean over words: value the drift, null its noise, point the excess, ceiling the drift of unrelated spaces.

    The ceiling is 1 − k/(words − 1). Errors and influences are a jackknife over words, which leaves each out as a word
    and as a neighbour of others (the centre stays): for other words of this text, not for other documents. Raises as
    `word_drift` does.
    """
    found = _compared(base, tuned, k, least)
    words = len(found.places)
    drift, *noise = (_mean_drift(one, k) for one in (found.whole, *found.within, *found.across))
    excess = (noise[2] + noise[3] - noise[0] - noise[1]) / 2
    influence = {name: _pseudo_influence(values) for name, values in (("value", drift), ("point", excess))}
    error = {name: standard_error(of) for name, of in influence.items()}
    half = quantile(words) * error["value"]
    return Estimate(
        quantity="word_drift",
        label="mean over words",
        value=float(drift[0]),
        unit="ratio",
        n=words,
        interval=(float(drift[0]) - half, float(drift[0]) + half),
        null=float(noise[0][0] + noise[1][0]) / 2,
        ceiling=1 - k / (words - 1),
        std_error=error["value"],
        point=float(excess[0]),
        point_error=error["point"],
        message="interval: jackknife over words",
        influence=influence,
    )


def _compared(base: WordMeans, tuned: WordMeans, k: int, least: int) -> _Compared:
    base.check_comparable(tuned)
    if k < 1:
        raise ValueError(f"k must be at least 1 neighbour, got {k}.")
    enough = max(1, least // 2)
    seen: Bool[np.ndarray, "types"] = (base.counts.min(axis=0) >= enough) & (tuned.counts.min(axis=0) >= enough)
    places = np.flatnonzero(seen)
    if len(places) < k + 2:
        raise Refusal(
            f"{len(places)} of {len(seen)} words occur {enough} times or more in each half of the documents, and {k} "
            f"neighbours need at least {k + 2} words; take more text, more types or fewer neighbours"
        )
    whole, first, second = (
        [_neighbours(model.means(half, places), k + 1) for model in (base, tuned)] for half in (None, 0, 1)
    )
    return _Compared(
        places,
        before=whole[0][:, :k],
        after=whole[1][:, :k],
        whole=_overlap(whole[0], whole[1]),
        within=(_overlap(first[0], second[0]), _overlap(first[1], second[1])),
        across=(_overlap(first[0], second[1]), _overlap(first[1], second[0])),
    )


def _neighbours(means: Float[np.ndarray, "words dim"], k: int) -> Int[np.ndarray, "words k"]:
    """The k nearest others by the cosine of centred means, nearest first; ties go to the earlier word.

    A word at the centre itself (to rounding) has the cosine 0 with all others.
    """
    centred = means - means.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    rounding = 1e-12 * np.linalg.norm(means, axis=1).max()
    if not lengths.max() > rounding:
        raise Refusal("the mean rows of all words are equal, so that no word is nearer than another; take a later site")
    unit = centred / np.where(lengths > rounding, lengths, np.inf)
    distance = -(unit @ unit.T)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, :k]


def _overlap(one: Int[np.ndarray, "words k+1"], other: Int[np.ndarray, "words k+1"]) -> _Overlap:
    """Of the first k of both lists; the last of each is who moves up when one of them is absent."""
    shared = one[:, :-1, None] == other[:, None, :-1]
    in_both, counts = shared.any(axis=2), shared.sum(axis=(1, 2))
    up_one = (one[:, -1:] == other[:, :-1]).any(axis=1)[:, None]  # who moves up here is a neighbour there
    up_other = (other[:, -1:] == one[:, :-1]).any(axis=1)[:, None]
    same = (one[:, -1] == other[:, -1])[:, None]
    # a neighbour in both lists that goes takes one away, and both lists move up; one of a single list adds only
    of_one = np.where(in_both, up_one.astype(int) + up_other + same - 1, up_one)
    of_other = np.where(shared.any(axis=1), 0, up_other)
    change = np.zeros(len(one), dtype=np.int64)
    np.add.at(change, one[:, :-1], of_one)
    np.add.at(change, other[:, :-1], of_other)
    return _Overlap(counts, change)


def _mean_drift(found: _Overlap, k: int) -> Float[np.ndarray, "1+words"]:
    """The mean drift, then the same without each word."""
    words, total = len(found.counts), found.counts.sum()
    without = (total - found.counts + found.change) / (k * (words - 1))
    return 1 - np.concatenate([[total / (k * words)], without])


def _pseudo_influence(values: Float[np.ndarray, "1+words"]) -> Float[np.ndarray, "words"]:
    """Minus what leaving a word out does, scaled so that `standard_error` of it is the jackknife's."""
    without = values[1:]
    return (len(without) - 1) / len(without) * (without.mean() - without)


def _p_values(
    excess: Int[np.ndarray, "words"], differing: Int[np.ndarray, "words"], k: int
) -> Float[np.ndarray, "words"]:
    """One-sided p of each word; `excess` in units of 1/2k, `differing` neighbours of the 4k of all four comparisons."""
    share = differing / (4 * k)
    moved_by = excess / (2 * k)
    spread = share * (1 - share) / k
    at, below = (excess == 0) & (spread > 0), excess < 0
    squares = moved_by[below] ** 2 / spread[below]
    # each word below 0 stands for one above
    theta = (2 * squares.sum() + _IMAGINED) / (2 * below.sum() + at.sum() + _IMAGINED)
    error = np.maximum(np.sqrt(theta * spread), 1 / (2 * k))
    return np.where(excess > 0, ndtr(-(moved_by - 1 / (4 * k)) / error), 1.0)
