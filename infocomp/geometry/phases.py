"""Phases of training from RankMe and α-ReQ over checkpoints: where both curves bend, with 95 % intervals in steps.

Li et al. (2025), arXiv 2509.23024, name three phases and mark them by eye: warm-up (RankMe falls at the beginning),
entropy-seeking (RankMe up, α down), compression-seeking (RankMe down, α up). Here log RankMe and α are fitted together,
by least squares, as continuous broken lines in log(1 + step) with common breaks; both residuals count together through
Wilks' statistic k·log(|R|/|R′|), which is blind to their scales and to their correlation (R: 2 × 2 residual products).

How many breaks: from 0 up, a fit with more breaks is taken where its statistic exceeds what curves drawn from the
fit before it give, at the level of 2.5 % over all choices. From a straight line this test is exact for Gaussian noise
that is independent between checkpoints and equal along the curve. The Bayesian information criterion is not used: on
short curves it bends straight lines (see `tests/test_phases.py`). At most three breaks, and k checkpoints allow
(k − 3)/2 of them.

Where a break is: the profile of the statistic along the break's place, neighbouring breaks free to first order, cut at
the 95 % quantile of curves drawn from the fit. Noise that neighbouring checkpoints share makes breaks look surer than
they are; the message says so where residuals are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

FEWEST_CHECKPOINTS = 5
MOST_BREAKS = 3
LEVEL = 0.025  # of bending a curve without a bend
_STRAIGHT_DRAWS = 999  # of straight lines, once for all curves at the same steps
_DRAWS = 399  # of curves from a fit
_COARSE = {1: 24, 2: 24, 3: 14}  # places tried in all combinations of one, two and three
_FINE = 200  # places tried one break at a time
_RIDGE = 1e-10  # of a curve's straight-line residual: below, a residual is rounding
_SLOPES = 0.05  # level at which any slope of a straight, flat pair of curves is called a slope
_ROUNDS = 4  # of moving one break at a time


@dataclass(frozen=True)
class Segment:
    """A phase from a step to a step; slopes of log RankMe and of α per unit of log(1 + step), one by one where several
    lines of one name follow each other."""

    name: str
    start: float
    end: float
    rankme_slopes: tuple[float, ...]
    alpha_slopes: tuple[float, ...]


@dataclass(frozen=True)
class Boundary:
    """The step at which one phase gives way to another, with its 95 % interval."""

    step: float
    low: float
    high: float
    before: str
    after: str

    @property
    def label(self) -> str:
        """As the table has it."""
        return f"{self.after} begins"


@dataclass(frozen=True)
class Phases:
    """Segments in the order of training and the boundaries between them; `bends` counts all breaks of the lines.

    `boundaries` may be fewer than `bends`: a bend after which both curves go on in their directions begins no phase.
    """

    segments: tuple[Segment, ...]
    boundaries: tuple[Boundary, ...]
    bends: int
    message: str = ""


def phases(
    steps: Sequence[float] | Float[np.ndarray, "k"],
    rankme: Sequence[float] | Float[np.ndarray, "k"],
    alpha: Sequence[float] | Float[np.ndarray, "k"],
    errors: Float[np.ndarray, "2 k"] | None = None,
    seed: int = 0,
) -> Phases:
    """Phases of one site over k ≥ 5 checkpoints.

    rankme: a count above 0; alpha: the exponent, without unit. `errors` are the standard errors of both: only their
    course along the curve is used, as weights, since documents that all checkpoints share move the whole curve.
    Checkpoints where one value is missing (NaN) are left out and counted. ValueError: unequal lengths, fewer than five
    checkpoints, steps below 0 or not rising, RankMe not above 0, errors not above 0.
    """
    steps, rankme, alpha, weights, message = _checked(steps, rankme, alpha, errors)
    places = np.log1p(steps)
    curves = np.stack([np.log(rankme), alpha], axis=1)
    search = _search(tuple(places), None if weights is None else tuple(weights))
    rng = np.random.default_rng(seed)
    breaks = search.breaks(curves, rng)
    slopes, errors_of, freedom = search.slopes(curves, breaks)
    certain = float(student.ppf(1 - _SLOPES / 2 / slopes.size, freedom))
    signs = np.sign(slopes) * (np.abs(slopes) > certain * errors_of)
    names = _names(signs)
    alike = search.autocorrelation(curves, breaks)
    if alike > 2 / np.sqrt(len(steps)):
        note = f"residuals of neighbouring checkpoints are alike (r = {alike:.2f}): bends look surer than they are"
        message = f"{message}; {note}" if message else note
    intervals = [search.interval(curves, breaks, place, rng) for place in range(len(breaks))]
    ends = np.expm1(np.r_[places[0], breaks, places[-1]])
    ends[0], ends[-1] = steps[0], steps[-1]
    segments, boundaries = [], []
    first = 0
    for place, name in enumerate(names):
        if place + 1 < len(names) and names[place + 1] == name:
            continue
        part = slice(first, place + 1)
        segments.append(Segment(name, float(ends[first]), float(ends[place + 1]), *map(_floats, slopes[part].T)))
        if place + 1 < len(names):
            low, high = (float(np.clip(np.expm1(end), steps[0], steps[-1])) for end in intervals[place])
            boundaries.append(Boundary(float(ends[place + 1]), low, high, name, names[place + 1]))
        first = place + 1
    return Phases(tuple(segments), tuple(boundaries), len(breaks), message)


class _Search:
    """Broken lines over given places: everything that does not depend on the curves, computed once."""

    def __init__(self, places: np.ndarray, weights: np.ndarray | None) -> None:
        self.places, self.k = places, len(places)
        self.root = np.ones(self.k) if weights is None else np.sqrt(weights / weights.mean())
        self.most = min(MOST_BREAKS, (self.k - 3) // 2)
        inner = np.unique(np.r_[places[2:-2], (places[1:-2] + places[2:-1]) / 2])
        self.fine = np.linspace(places[1], places[-2], _FINE + 2)[1:-1]
        self.line = np.linalg.qr(self._columns(()))[0]
        self.choices: list[np.ndarray] = [np.zeros((1, 0))]
        self.bases: list[np.ndarray] = [np.zeros((1, self.k, 0))]
        for m in range(1, self.most + 1):
            tried = inner[np.unique(np.linspace(0, len(inner) - 1, _COARSE[m]).round().astype(int))]
            chosen = [one for one in combinations(tried, m) if self._apart(one)]
            if not chosen:
                self.most = m - 1
                break
            hinges = np.stack([self._columns(one)[:, 2:] for one in chosen])
            hinges -= self.line @ (self.line.T @ hinges)
            self.choices.append(np.array(chosen))
            self.bases.append(np.linalg.qr(hinges)[0])
        self._straight: np.ndarray | None = None

    def breaks(self, curves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The breaks that stand out of noise, each at its best place."""
        found, m = np.zeros(0), 0
        statistic, best = self.statistics(curves[None])
        while m < self.most:
            more = range(m + 1, self.most + 1)
            null = self._null(curves, found, m, rng)
            beyond = [(1 + (null[:, j] - null[:, m] >= statistic[0, j] - statistic[0, m]).sum()) / (1 + len(null))
                      for j in more]  # fmt: skip
            taken = [j for j, p in zip(more, beyond, strict=True) if p * len(more) <= LEVEL]
            if not taken:
                break
            m = taken[0]
            found = self._refined(curves, self.choices[m][best[0, m]])
        return found

    def statistics(self, curves: Float[np.ndarray, "draws k 2"]) -> tuple[np.ndarray, np.ndarray]:
        """Wilks' statistic of 0, 1, … breaks against a straight line, at its best coarse places, and which they are."""
        residual = self._normalised(curves)
        draws = len(curves)
        straight = np.einsum("dkc,dke->dce", residual, residual)
        found, best = np.zeros((draws, self.most + 1)), np.zeros((draws, self.most + 1), dtype=int)
        flat = residual.transpose(1, 0, 2).reshape(self.k, -1)
        for m in range(1, self.most + 1):
            basis = self.bases[m]
            count = len(basis)
            projected = (basis.transpose(0, 2, 1).reshape(-1, self.k) @ flat).reshape(count, m, draws, 2)
            first, second = projected[..., 0], projected[..., 1]
            left = _determinant(
                straight[:, 0, 0] - (first**2).sum(axis=1),
                straight[:, 1, 1] - (second**2).sum(axis=1),
                straight[:, 0, 1] - (first * second).sum(axis=1),
            )
            best[:, m] = left.argmin(axis=0)
            whole = _determinant(straight[:, 0, 0], straight[:, 1, 1], straight[:, 0, 1])
            found[:, m] = self.k * np.log(whole / left.min(axis=0))
        return found, best

    def slopes(self, curves: np.ndarray, breaks: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Slopes [segments, 2], their standard errors at these breaks, and the degrees of freedom."""
        columns = self._columns(breaks)
        weighted = self.root[:, None] * curves
        solution, *_ = np.linalg.lstsq(columns, weighted, rcond=None)
        freedom = self.k - columns.shape[1] - len(breaks)
        variance = ((weighted - columns @ solution) ** 2).sum(axis=0) / freedom
        adds = np.tril(np.ones((len(breaks) + 1, len(breaks) + 1)))
        spread = np.diag(adds @ np.linalg.inv(columns.T @ columns)[1:, 1:] @ adds.T)
        rounding = 1e-12 * np.abs(curves).max(axis=0) / np.ptp(self.places)
        return adds @ solution[1:], np.sqrt(spread[:, None] * variance) + rounding, freedom

    def autocorrelation(self, curves: np.ndarray, breaks: np.ndarray) -> float:
        """Correlation of the residuals of neighbouring checkpoints, the mean of both curves; 0 where none are left."""
        columns = np.linalg.qr(self._columns(breaks))[0]
        residual = self._normalised(curves[None])[0]
        residual -= columns @ (columns.T @ residual)
        size = (residual**2).sum(axis=0)
        along = (residual[1:] * residual[:-1]).sum(axis=0)
        return float(np.mean(np.divide(along, size, out=np.zeros(2), where=size > _RIDGE)))

    def interval(
        self, curves: np.ndarray, breaks: np.ndarray, place: int, rng: np.random.Generator
    ) -> tuple[float, float]:
        """Places of one break that the curves do not refuse at 5 %."""
        others = np.delete(breaks, place)
        low = breaks[place - 1] if place else self.places[0]
        high = breaks[place + 1] if place + 1 < len(breaks) else self.places[-1]
        grid = np.unique(np.r_[self.fine[(self.fine > low) & (self.fine < high)], breaks[place]])
        base = np.column_stack([self._columns(others), *(self._step(one) for one in others)])
        at = int(np.searchsorted(grid, breaks[place]))

        left = self._scanned(self._normalised(self._drawn(curves, breaks, _DRAWS, rng)), base, grid)
        most = np.quantile(left[:, at] / left.min(axis=1), 0.95)
        left = self._scanned(self._normalised(curves[None]), base, grid)[0]
        inside = grid[left <= most * left.min()]
        half = (self.fine[1] - self.fine[0]) / 2
        return max(float(inside[0] - half), low), min(float(inside[-1] + half), high)

    def _null(self, curves: np.ndarray, breaks: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
        """The statistics of curves drawn from a fit; from a straight line they do not depend on the curves."""
        if m:
            return self.statistics(self._drawn(curves, breaks, _DRAWS, rng))[0]
        if self._straight is None:
            noise = np.random.default_rng(0).standard_normal((_STRAIGHT_DRAWS, self.k, 2)) / self.root[:, None]
            self._straight = np.concatenate([self.statistics(part)[0] for part in np.array_split(noise, 9)])
        return self._straight

    def _drawn(self, curves: np.ndarray, breaks: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Curves of the fit with noise of the residuals' covariance."""
        columns = self._columns(breaks)
        weighted = self.root[:, None] * curves
        fitted = columns @ np.linalg.lstsq(columns, weighted, rcond=None)[0]
        residual = weighted - fitted
        covariance = residual.T @ residual / (self.k - columns.shape[1] - len(breaks) / 2)
        values, vectors = np.linalg.eigh(covariance)
        mixed = rng.standard_normal((draws, self.k, 2)) * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
        return (fitted + mixed) / self.root[:, None]

    def _refined(self, curves: np.ndarray, breaks: np.ndarray) -> np.ndarray:
        """Breaks moved one at a time over the fine places until none moves."""
        residual = self._normalised(curves[None])[0]
        breaks = breaks.copy()
        for _ in range(_ROUNDS):
            before = breaks.copy()
            for place in range(len(breaks)):
                others = np.delete(breaks, place)
                grid = np.unique(np.r_[breaks[place], self.fine])
                ranks = np.r_[0, self._ranks(others), self.k]
                grid = grid[(self._ranks(grid) - ranks[place] >= 2) & (ranks[place + 1] - self._ranks(grid) >= 2)]
                left = self._scanned(residual[None], self._columns(others), grid)[0]
                breaks[place] = grid[left.argmin()]
            if np.array_equal(breaks, before):
                break
        return breaks

    def _scanned(
        self, residual: Float[np.ndarray, "draws k 2"], base: Float[np.ndarray, "k columns"], grid: np.ndarray
    ) -> Float[np.ndarray, "draws places"]:
        """What `base` and one more break leave, for each place of it: the determinant of the residual products."""
        base = np.linalg.qr(base)[0]
        hinges = self.root[:, None] * np.maximum(self.places[:, None] - grid, 0.0)
        hinges -= base @ (base.T @ hinges)
        lengths = np.linalg.norm(hinges, axis=0)
        hinges = np.divide(hinges, lengths, out=np.zeros_like(hinges), where=lengths > 1e-9 * lengths.max())
        residual = residual - base @ (base.T @ residual)
        whole = np.einsum("dkc,dke->dce", residual, residual)[:, None]
        along = hinges.T @ residual
        return _determinant(
            whole[..., 0, 0] - along[..., 0] ** 2,
            whole[..., 1, 1] - along[..., 1] ** 2,
            whole[..., 0, 1] - along[..., 0] * along[..., 1],
        )

    def _normalised(self, curves: np.ndarray) -> np.ndarray:
        """Weighted residuals from the straight line, each curve in units of its own; rounding counts as 0."""
        weighted = self.root[:, None] * curves
        residual = weighted - self.line @ (self.line.T @ weighted)
        size = np.sqrt((residual**2).sum(axis=1, keepdims=True))
        known = size > 1e-12 * np.abs(weighted).max(axis=1, keepdims=True)
        return np.divide(residual, size, out=np.zeros_like(residual), where=known)

    def _columns(self, breaks: Sequence[float] | np.ndarray) -> np.ndarray:
        hinges = [np.maximum(self.places - one, 0.0) for one in breaks]
        return self.root[:, None] * np.column_stack([np.ones(self.k), self.places - self.places[0], *hinges])

    def _step(self, place: float) -> np.ndarray:
        return self.root * (self.places > place)

    def _ranks(self, breaks: Sequence[float] | np.ndarray) -> np.ndarray:
        """How many checkpoints lie before each break."""
        return np.searchsorted(self.places, breaks)

    def _apart(self, breaks: Sequence[float] | np.ndarray) -> bool:
        """Two checkpoints or more before, between and after rising breaks."""
        return bool(np.diff(np.r_[0, self._ranks(breaks), self.k]).min() >= 2)


@lru_cache(maxsize=16)
def _search(places: tuple[float, ...], weights: tuple[float, ...] | None) -> _Search:
    return _Search(np.array(places), None if weights is None else np.array(weights))


def _determinant(first: np.ndarray, second: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """|R| of 2 × 2 residual products in units where a straight line leaves 1 on the diagonal."""
    return np.maximum((first + _RIDGE) * (second + _RIDGE) - mixed**2, _RIDGE**2)


def _names(signs: np.ndarray) -> list[str]:
    """One name a segment from the signs of RankMe's and α's slopes."""
    known = {(0, 0): "flat", (1, -1): "entropy-seeking", (-1, 1): "compression-seeking"}
    names = [known.get((int(up), int(alpha)), "mixed") for up, alpha in signs]
    if len(names) > 1 and signs[0, 0] < 0 < signs[1, 0]:
        names[0] = "warm-up"  # a fall that lasts to the end is no beginning
    return names


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _checked(
    steps: object, rankme: object, alpha: object, errors: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, str]:
    given = [np.asarray(one, dtype=np.float64) for one in (steps, rankme, alpha)]
    if any(one.ndim != 1 or len(one) != len(given[0]) for one in given):
        shapes = ", ".join(str(one.shape) for one in given)
        raise ValueError(f"phases need one RankMe and one alpha for each step, got shapes {shapes}.")
    spread = None if errors is None else np.asarray(errors, dtype=np.float64)
    if spread is not None and spread.shape != (2, len(given[0])):
        raise ValueError(
            f"errors of phases have the shape (2, {len(given[0])}), RankMe's and alpha's, got {spread.shape}."
        )
    kept = np.isfinite(given[1]) & np.isfinite(given[2])
    left = int((~kept).sum())
    steps_, rankme_, alpha_ = (one[kept] for one in given)
    if len(steps_) < FEWEST_CHECKPOINTS:
        raise ValueError(
            f"phases need at least {FEWEST_CHECKPOINTS} checkpoints with RankMe and alpha, got {len(steps_)}; measure "
            "more checkpoints."
        )
    if not (np.isfinite(steps_).all() and steps_[0] >= 0 and (np.diff(steps_) > 0).all()):
        raise ValueError(f"steps of phases are at least 0 and rise, got {', '.join(f'{one:g}' for one in steps_)}.")
    if not (rankme_ > 0).all():
        raise ValueError(f"RankMe is a count above 0, got {rankme_.min():g}; leave out checkpoints without a spectrum.")
    message = f"{left} checkpoints without RankMe or alpha left out" if left else ""
    if spread is None:
        return steps_, rankme_, alpha_, None, message
    spread = spread[:, kept] / np.stack([rankme_, np.ones_like(alpha_)])
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        raise ValueError("errors of phases are finite and above 0; leave them out where they are not known.")
    variance = (spread**2 / (spread**2).mean(axis=1, keepdims=True)).mean(axis=0)
    return steps_, rankme_, alpha_, 1 / variance, message
