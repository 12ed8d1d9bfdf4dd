"""Was this sample trained on? Membership inference from one score a sample (higher: more likely a member), no unit.

The score is minus the code length under the model, or the code length under a reference minus it. AUC needs no
threshold. F1 does, and it is chosen on one half of the documents and applied to the other, so that it is never scored
on what it was chosen on.

How well members are told apart falls with the load of the model. Morris et al. (2025), arXiv 2505.24832, fit a sigmoid
to F1 against capacity and data; as printed, F1 = ½(1 + c1·σ(c2·(capacity/|D| + c3))) with c1 = 1.34, c2 = −0.034,
c3 = −33.14, it cannot be meant: |D| → ∞ gives F1 = ½(1 + 1.34·σ(1.127)) = 1.006 where nothing can be told apart, and F1
falls as capacity grows. `fit_membership_law` fits a sigmoid of its own in ln(capacity/data), between ½ and 1.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit
from scipy.stats import rankdata
from scipy.stats import t as student

from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, LEVEL

FEWEST_POINTS = 4
_WHOLE = 0.9  # share of bootstrap draws that must have a fit, for an interval


@dataclass(frozen=True)
class Share:
    """A share between 0 and 1 with its null, standard error and 95 % interval (None below 8 documents a side)."""

    value: float
    null: float
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None

    def columns(self) -> dict[str, float | None]:
        """As columns of the table."""
        ends = {"std_error": self.std_error, "ci_low": self.ci_low, "ci_high": self.ci_high}
        return {"value": self.value, "null": self.null, **ends}


@dataclass(frozen=True)
class Membership:
    """How well `n` members are told from `m` never-trained samples.

    auc: null ½. f1: as many samples are called members as there are, so that F1 is precision and recall alike, and
    chance is n/(n + m), ½ for equally many. best_f1: the threshold is the one of the highest F1; calling everything a
    member is its null, 2n/(2n + m), ⅔ for equally many.
    """

    auc: Share
    f1: Share
    best_f1: Share
    n: int
    m: int


@dataclass(frozen=True)
class MembershipLaw:
    """F1 = ½(1 + σ(slope · (ln(capacity/data) − midpoint))): `midpoint` in nats, where F1 is ¾; intervals of 95 %.

    The intervals are None where more than a tenth of the bootstrap's draws have no fit. `residual` is the root mean
    square of what the fit leaves.
    """

    midpoint: float
    slope: float
    midpoint_low: float | None
    midpoint_high: float | None
    slope_low: float | None
    slope_high: float | None
    residual: float
    points: int

    def f1(self, capacity_over_data: Float[np.ndarray, "k"] | float) -> Float[np.ndarray, "k"]:
        """What the law says at these ratios of capacity to data."""
        return _law(np.log(capacity_over_data), self.slope, self.midpoint)


def membership(
    members: Float[np.ndarray, "n"],
    others: Float[np.ndarray, "m"],
    documents: Int[np.ndarray, "n"] | None = None,
    other_documents: Int[np.ndarray, "m"] | None = None,
    seed: int = 0,
    shared_documents: bool = False,
) -> Membership:
    """AUC and cross-fitted F1 of the rule "a score above the threshold is a member's".

    AUC = P(member above other) + ½ P(tie), with the error of DeLong et al. (1988), Biometrics 44(3), its components
    summed by document as in Obuchowski (1997), Biometrics 53(2). F1's error is that of the delta method over
    documents, the thresholds held. `seed` deals documents into the two halves. Each sample is a document of its own
    where they are None. Documents of members and of others are counted apart; with `shared_documents` one number is one
    document on both sides, is dealt as a whole, and moves the value by the sum of what its parts move it by.
    ValueError: fewer than 4 samples or 2 documents on a side, shapes that do not match, a score that is not finite.
    """
    sides = [_checked("members", members, documents), _checked("others", others, other_documents)]
    n, m = (len(scores) for scores, _ in sides)
    owners = _Owners.of(sides[0][1], sides[1][1], shared_documents)
    auc = _auc(sides[0][0], sides[1][0])
    value = float(auc[0].mean())
    moved = [(placement - value) / len(placement) for placement in auc]
    of_auc = _share(value, 0.5, float(np.sqrt(owners.variance(moved))), owners)
    scores = [scores for scores, _ in sides]
    halves = owners.halves(np.random.default_rng(seed))
    balanced = _cross_fitted(scores, halves, owners, _as_many, n / (n + m))
    best = _cross_fitted(scores, halves, owners, _highest_f1, 2 * n / (2 * n + m))
    return Membership(of_auc, balanced, best, n, m)


def fit_membership_law(
    data_bits: Float[np.ndarray, "k"],
    capacity_bits: Float[np.ndarray, "k"] | float,
    f1: Float[np.ndarray, "k"],
    draws: int = 500,
    seed: int = 0,
) -> MembershipLaw:
    """The sigmoid through F1 (or AUC: its range is the same) of `k` trained models, by least squares.

    The intervals are percentiles over `draws` bootstrap samples of the k models. ValueError: fewer than 4 models, bits
    that are not positive, F1 alike at every load, or points that no sigmoid fits.
    """
    data, found = np.asarray(data_bits, dtype=np.float64), np.asarray(f1, dtype=np.float64)
    capacity = np.broadcast_to(np.asarray(capacity_bits, dtype=np.float64), data.shape)
    if data.ndim != 1 or data.shape != found.shape or len(data) < FEWEST_POINTS:
        raise ValueError(
            f"a membership law needs data bits and F1 of at least {FEWEST_POINTS} models, and got shapes {data.shape} "
            f"and {found.shape}; train on more sizes."
        )
    if not (np.isfinite(found).all() and (data > 0).all() and (capacity > 0).all()):
        raise ValueError("a membership law needs positive data and capacity bits and finite F1; leave out failed runs.")
    load = np.log(capacity / data)
    fitted = _fit(load, found)
    if fitted is None:
        raise ValueError(
            f"no sigmoid fits F1 {', '.join(f'{value:.3f}' for value in found)} in ln(capacity/data); cover loads from "
            "well below to well above 1."
        )
    generator = np.random.default_rng(seed)
    drawn = [_fit(load[chosen], found[chosen]) for chosen in generator.integers(len(load), size=(draws, len(load)))]
    kept = np.array([one for one in drawn if one is not None])
    ends = np.full((2, 2), None)
    if len(kept) >= _WHOLE * draws:
        ends = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    slope, midpoint = fitted
    residual = float(np.sqrt(np.mean((found - _law(load, slope, midpoint)) ** 2)))
    return MembershipLaw(midpoint, slope, ends[0, 1], ends[1, 1], ends[0, 0], ends[1, 0], residual, len(load))


# --- AUC and F1 -------------------------------------------------------------------------------------------------------


def _checked(name: str, scores: np.ndarray, documents: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, dtype=np.float64)
    given = np.arange(len(scores)) if documents is None else np.asarray(documents)
    if scores.ndim != 1 or scores.shape != given.shape or len(scores) < 4:
        raise ValueError(
            f"{name} need one score a sample, at least 4, and one document each, and have shapes {scores.shape} and "
            f"{given.shape}; give arrays of one length."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: a score is a finite number, and {np.sum(~np.isfinite(scores))} are not.")
    if len(np.unique(given)) < 2:
        raise ValueError(f"{name} come from one document, and two are needed to choose a threshold on one half.")
    return scores, given


def _auc(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Placements: for each member the share of others below it, for each other the share of members above it."""
    n, m = len(members), len(others)
    both = rankdata(np.r_[members, others])
    return (both[:n] - rankdata(members)) / m, 1.0 - (both[n:] - rankdata(others)) / n


@dataclass(frozen=True)
class _Owners:
    """The number of each sample's document, of members and of others, from 0 up; `shared`: in one numbering."""

    of_sides: tuple[np.ndarray, np.ndarray]
    shared: bool

    @classmethod
    def of(cls, members: np.ndarray, others: np.ndarray, shared: bool) -> "_Owners":
        if shared:
            joined = np.unique(np.r_[members, others], return_inverse=True)[1]
            return cls((joined[: len(members)], joined[len(members) :]), True)
        apart = [np.unique(owner, return_inverse=True)[1] for owner in (members, others)]
        return cls((apart[0], apart[1]), False)

    @property
    def fewest(self) -> int:
        """Documents of the side that has fewer."""
        return min(len(np.unique(owner)) for owner in self.of_sides)

    def variance(self, moved: Sequence[np.ndarray]) -> float:
        """Of a number that each sample moves by so much: each document moves it by the sum over its samples."""
        count = int(max(owner.max() for owner in self.of_sides)) + 1
        sums = [np.bincount(owner, part, count) for owner, part in zip(self.of_sides, moved, strict=True)]
        if self.shared:
            return float(count / (count - 1) * ((sums[0] + sums[1]) ** 2).sum())
        counts = [int(owner.max()) + 1 for owner in self.of_sides]
        return sum(float(n / (n - 1) * (part[:n] ** 2).sum()) for n, part in zip(counts, sums, strict=True))

    def halves(self, generator: np.random.Generator) -> list[Bool[np.ndarray, "samples"]]:
        """Which samples are of the second half of the documents, dealt by the generator.

        Shared ones are dealt in turn, those of members, of both sides, of others alone: no half of a side is empty.
        """
        if self.shared:
            here, there = self.of_sides
            kinds = (np.setdiff1d(here, there), np.intersect1d(here, there), np.setdiff1d(there, here))
            order = np.concatenate([generator.permutation(kind) for kind in kinds])
            later = np.zeros(len(order), dtype=bool)
            later[order[1::2]] = True
            return [later[owner] for owner in self.of_sides]
        dealt: list[np.ndarray] = []
        for owner in self.of_sides:
            count = int(owner.max()) + 1
            second = np.zeros(count, dtype=bool)
            second[generator.permutation(count)[: count // 2]] = True
            dealt.append(second)
        return [second[owner] for second, owner in zip(dealt, self.of_sides, strict=True)]


def _share(value: float, null: float, error: float, owners: _Owners) -> Share:
    if owners.fewest < FEWEST_DOCUMENTS:
        return Share(value, null)
    half = float(student.ppf((1 + LEVEL) / 2, owners.fewest - 1)) * error
    return Share(value, null, error, value - half, value + half)


def _as_many(members: np.ndarray, others: np.ndarray) -> float:
    """The score above which as many samples lie as there are members."""
    return float(np.quantile(np.r_[members, others], len(others) / (len(members) + len(others))))


def _highest_f1(members: np.ndarray, others: np.ndarray) -> float:
    """The score whose being passed gives the highest F1 on these samples; below all of them where that is best."""
    scores = np.unique(np.r_[members, others])
    cuts = np.r_[-np.inf, (scores[1:] + scores[:-1]) / 2]
    hits = len(members) - np.searchsorted(np.sort(members), cuts, side="right")
    called = hits + len(others) - np.searchsorted(np.sort(others), cuts, side="right")
    return float(cuts[np.argmax(2 * hits / (len(members) + called))])


def _cross_fitted(sides: list[np.ndarray], halves: list[np.ndarray], owners: _Owners, choose, null: float) -> Share:
    """F1 = 2·hits/(members + called), each half of the documents called by the threshold of the other half."""
    called = [np.zeros(len(scores)) for scores in sides]
    for second in (False, True):
        threshold = choose(*(scores[half != second] for scores, half in zip(sides, halves, strict=True)))
        for side, (scores, half) in enumerate(zip(sides, halves, strict=True)):
            here = half == second
            called[side][here] = scores[here] > threshold
    whole = len(called[0]) + sum(one.sum() for one in called)
    value = float(2 * called[0].sum() / whole)
    # what a sample moves the ratio by: its part of the numerator less F1 times its part of the denominator
    moved = [(2 * called[0] - value * (1 + called[0])) / whole, -value * called[1] / whole]
    moved = [one - one.mean() for one in moved]
    return _share(value, null, float(np.sqrt(owners.variance(moved))), owners)


# --- the law ----------------------------------------------------------------------------------------------------------


def _law(load: np.ndarray | float, slope: float, midpoint: float) -> np.ndarray:
    return 0.5 * (1.0 + expit(slope * (load - midpoint)))


def _fit(load: np.ndarray, found: np.ndarray) -> tuple[float, float] | None:
    """Slope and midpoint, or None where the points do not decide them: through two loads a sigmoid goes exactly."""
    if len(np.unique(load)) < 3:
        return None
    start = float(load[np.argmin(np.abs(found - 0.75))])
    with warnings.catch_warnings():
        warnings.simplefilter("error", OptimizeWarning)
        try:
            (slope, midpoint), _ = curve_fit(_law, load, found, p0=(1.0, start), maxfev=2000)
        except (RuntimeError, OptimizeWarning):
            return None
    return float(slope), float(midpoint)
