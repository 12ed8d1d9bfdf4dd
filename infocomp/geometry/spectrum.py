"""The spectrum of a site's rows and every number that follows from it, with what each document moves it by.

Eigenvalues λ are those of the covariance (centred, over n), singular values those of the rows as they are. Where n > d
they come from the d × d scatter in float64, else from the n × n Gram matrix. Eigenvalues below max(n, d)·eps of the
largest are what rounding leaves of none, and are set to 0. All effective ranks grow with n: compare at a common n.
The numbers are defined, with their sources, in `spectral_measures`; anisotropy is the mean cosine of all pairs of rows.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh, eigvalsh

from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.interface import Estimate
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.scatter import Scatter
from infocomp.geometry.spectral_measures import (
    FEWEST_RANKS,
    MEASURES,
    OUTLIER,
    RANK_FROM,
    RANK_TO,
    PowerLaw,
    Values,
    alpha_req,
    outlier_directions,
)


@dataclass(frozen=True)
class Spectrum:
    """Falling eigenvalues of the covariance and singular values (not centred) of n rows, zeros left in."""

    eigenvalues: Values
    singular: Values
    n: int
    dim: int
    mean_cosine: float | None
    rank_from: int = RANK_FROM
    rank_to: int = RANK_TO

    @cached_property
    def law(self) -> PowerLaw | None:
        """The power law of α-ReQ with its ranks and its quality of fit; None where the ranks are too few."""
        return alpha_req(self.eigenvalues, self.rank_from, self.rank_to)

    @property
    def rank(self) -> int:
        """How many eigenvalues are above 0."""
        return int((self.eigenvalues > 0).sum())

    def estimates(self) -> list[Estimate]:
        """rankme, rankme_covariance, matrix_entropy (order 1 and 2), participation_ratio, top_share, alpha_req,
        outlier_directions, anisotropy; ceilings are what n and d allow, no intervals.

        A number that does not exist has status "refused" and the reason: rows that are all equal, too few ranks.
        """
        found = []
        for measure in MEASURES:
            values = self.singular**2 if measure.uncentred else self.eigenvalues
            about = (measure.quantity, measure.unit, measure.label)
            if not values.any():
                reason = "all rows are 0" if measure.uncentred else "all rows are equal: nothing varies"
                found.append(self._refused(*about, reason if self.n > 1 else f"{self.n} rows have no spectrum"))
                continue
            ceiling = measure.ceiling(min(self.n if measure.uncentred else self.n - 1, self.dim))
            found.append(self._known(*about, measure.value(values), ceiling))
        return [*found, *self._of_law(), self._anisotropy()]

    def eigenvalue_estimates(self, per_octave: int = 4) -> list[Estimate]:
        """Shares of the trace at log-spaced ranks: quantity "eigenvalue", label "rank 00001", order the rank."""
        total = self.eigenvalues.sum()
        return [
            Estimate(
                quantity="eigenvalue",
                value=float(self.eigenvalues[rank - 1] / total),
                unit="ratio",
                n=self.n,
                label=f"rank {rank:05d}",
                order=rank,
                ceiling=1.0,
            )
            for rank in log_spaced_ranks(self.rank, per_octave)
        ]

    def _of_law(self) -> list[Estimate]:
        if self.law is None:
            reason = f"{self.rank} eigenvalues are above 0; from rank {self.rank_from} on {FEWEST_RANKS} are needed"
            return [
                self._refused("alpha_req", "slope", "", reason),
                self._refused("outlier_directions", "count", "", reason),
            ]
        law, standing = self.law, float(outlier_directions(self.eigenvalues, self.law))
        fit = f"ranks {law.rank_from} to {law.rank_to}, r2 {law.r2:.4f}, up to rank 100 {law.r2_100:.4f}"
        rule = f"leading directions of more than {OUTLIER:g} times the power law of {fit}"
        return [
            self._known("alpha_req", "slope", "", law.slope, None, fit),
            self._known("outlier_directions", "count", "", standing, float(law.rank_from - 1), rule),
        ]

    def _anisotropy(self) -> Estimate:
        if self.mean_cosine is None:
            return self._refused("anisotropy", "ratio", "", "fewer than two rows have a length")
        return self._known("anisotropy", "ratio", "", self.mean_cosine, 1.0)

    def _known(
        self, quantity: str, unit: str, label: str, value: float, ceiling: float | None, message: str = ""
    ) -> Estimate:
        return Estimate(quantity, value, unit, self.n, label=label, ceiling=ceiling, message=message)

    def _refused(self, quantity: str, unit: str, label: str, reason: str) -> Estimate:
        return Estimate(quantity, None, unit, self.n, label=label, status="refused", message=f"{reason}.")


def spectrum_of(scatter: Scatter, rank_from: int = RANK_FROM, rank_to: int = RANK_TO) -> Spectrum:
    """The spectrum of all rows that a scatter has seen; takes one copy of the d × d matrix at a time.

    Where n ≤ d what is beyond rank n is set to 0; `spectrum_of_rows` is faster and a little more exact there.
    """
    n = scatter.count
    eigenvalues = _falling(scatter.lower(), n) / max(n, 1)
    singular = np.sqrt(_falling(scatter.lower_uncentred(), n))
    return Spectrum(eigenvalues, singular, n, scatter.dim, scatter.mean_cosine, rank_from, rank_to)


def spectrum_of_rows(
    rows: Float[np.ndarray, "rows dim"], rank_from: int = RANK_FROM, rank_to: int = RANK_TO
) -> Spectrum:
    """The spectrum of rows at hand: through their n × n Gram matrix where n ≤ d, else through their scatter.

    Raises ValueError for rows that are not finite.
    """
    n, dim = rows.shape
    if n > dim:
        scatter = Scatter(dim)
        scatter.update(rows)
        return spectrum_of(scatter, rank_from, rank_to)
    rows = _finite(rows)
    centred = rows - rows.mean(axis=0) if n else rows
    eigenvalues = _falling(centred @ centred.T, dim) / max(n, 1)
    singular = np.sqrt(_falling(rows @ rows.T, dim))
    units, lengthy = _units(rows)
    return Spectrum(eigenvalues, singular, n, dim, _mean_cosine(units.sum(axis=0), lengthy), rank_from, rank_to)


def sampled_estimates(
    rows: Float[np.ndarray, "rows dim"],
    documents: Int[np.ndarray, "rows"],
    rank_from: int = RANK_FROM,
    rank_to: int = RANK_TO,
) -> list[Estimate]:
    """The estimates of `sampled_spectrum`."""
    return sampled_spectrum(rows, documents, rank_from, rank_to)[1]


def sampled_spectrum(
    rows: Float[np.ndarray, "rows dim"],
    documents: Int[np.ndarray, "rows"],
    rank_from: int = RANK_FROM,
    rank_to: int = RANK_TO,
) -> tuple[Spectrum, list[Estimate]]:
    """The spectrum of rows at hand, and its estimates with errors, 95 % intervals and influence over documents.

    By the delta method: a document's weight moves λ_i = v_iᵀCv_i by the mean over its rows of (v_iᵀ(z − mean))² − λ_i,
    to first order exactly (that v_i moves too changes nothing); the influence on f is Σ_i ∂f/∂λ_i times that, in the
    unit of f, one value for each of np.unique(documents). Below 8 documents there is none, and the message says so; the
    count of outlier directions is no smooth function and has none. Takes eigenvectors of two matrices of min(n, d), and
    memory for n × d numbers twice.
    Raises ValueError for rows that are not finite and for documents that are not one per row.
    """
    if documents.shape != rows.shape[:1]:
        raise ValueError(f"documents has shape {documents.shape}, rows {rows.shape}: one document a row is needed.")
    if len(rows) < 2:
        spectrum = spectrum_of_rows(rows, rank_from, rank_to)
        return spectrum, spectrum.estimates()
    rows = _finite(rows)
    names, document = np.unique(documents, return_inverse=True)
    by_document = _Sums(document, len(names))
    n, dim = rows.shape
    eigenvalues, moved = _by_document(rows - rows.mean(axis=0), by_document)
    squares, moved_squares = _by_document(rows, by_document)
    units, lengthy = _units(rows)
    total = units.sum(axis=0)
    singular = np.sqrt(squares * n)
    spectrum = Spectrum(eigenvalues, singular, n, dim, _mean_cosine(total, lengthy), rank_from, rank_to)
    influence: dict[tuple[str, str], np.ndarray] = {}
    for measure in MEASURES:
        values, by = (squares, moved_squares) if measure.uncentred else (eigenvalues, moved)
        if values.any():
            influence[measure.quantity, measure.label] = by @ measure.derivative(values)
    if spectrum.law is not None:
        influence["alpha_req", ""] = moved @ spectrum.law.derivative(eigenvalues)
    if lengthy > 1:
        influence["anisotropy", ""] = _cosine_influence(units, total, lengthy, by_document)
    return spectrum, [with_interval(one, influence.get((one.quantity, one.label))) for one in spectrum.estimates()]


def with_interval(estimate: Estimate, influence: Float[np.ndarray, "documents"] | None) -> Estimate:
    """The estimate with standard error, 95 % interval and influence; unchanged without, with a reason below 8."""
    if influence is None or estimate.value is None:
        return estimate
    if len(influence) < FEWEST_DOCUMENTS:
        reason = f"no interval: {len(influence)} documents, at least {FEWEST_DOCUMENTS} are needed"
        return replace(estimate, message="; ".join(filter(None, (estimate.message, reason))))
    error = standard_error(influence)
    half = quantile(len(influence)) * error
    ends = (estimate.value - half, estimate.value + half)
    return replace(estimate, std_error=error, interval=ends, influence={"value": influence})


def log_spaced_ranks(last: int, per_octave: int = 4) -> list[int]:
    """Ranks from 1 to `last`, both of them in, `per_octave` between a rank and its double where integers allow."""
    if last < 1:
        return []
    steps = int(np.log2(last) * per_octave) + 1
    return sorted({*np.rint(2 ** (np.arange(steps) / per_octave)).astype(int).tolist(), last})


class _Sums:
    """Sums over the rows of each document."""

    def __init__(self, document: np.ndarray, documents: int) -> None:
        self.order = np.argsort(document, kind="stable")
        self.counts = np.bincount(document, minlength=documents)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[self.order], self.starts, axis=0)


def _by_document(rows: np.ndarray, sums: _Sums) -> tuple[Values, Float[np.ndarray, "documents directions"]]:
    """Falling eigenvalues of Σ zzᵀ/n, and what each document moves them by."""
    n, dim = rows.shape
    if n > dim:
        values, vectors = eigh(rows.T @ rows, overwrite_a=True, driver="evd")
        along = (rows @ vectors[:, ::-1]) ** 2
    else:
        values, vectors = eigh(rows @ rows.T, overwrite_a=True, driver="evd")
        along = vectors[:, ::-1] ** 2 * np.maximum(values[::-1], 0.0)  # left singular vectors times singular values
    values = _floored(values[::-1], max(n, dim)) / max(n, 1)
    return values, (sums(along) - sums.counts[:, None] * values) / max(n, 1)


def _falling(lower: Float[np.ndarray, "size size"], other: int) -> Values:
    """Falling eigenvalues of a positive semi-definite matrix, which is destroyed; its lower triangle is read."""
    if not len(lower):
        return np.zeros(0)
    return _floored(eigvalsh(lower, lower=True, overwrite_a=True, check_finite=False)[::-1], max(len(lower), other))


def _floored(values: Values, size: int) -> Values:
    floor = size * np.finfo(np.float64).eps * max(values[0], 0.0) if len(values) else 0.0
    return np.where(values > floor, values, 0.0)


def _finite(rows: np.ndarray) -> Float[np.ndarray, "rows dim"]:
    rows = np.asarray(rows, dtype=np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise ValueError(f"{int((~finite).sum())} of {len(rows)} rows are not finite; find where the model overflows.")
    return rows


def _units(rows: np.ndarray) -> tuple[Float[np.ndarray, "rows dim"], int]:
    """Rows brought to length 1, and how many have a length; the others stay 0."""
    norms = np.linalg.norm(rows, axis=1)
    return rows / np.where(norms > 0, norms, 1.0)[:, None], int(np.count_nonzero(norms))


def _mean_cosine(total: np.ndarray, n: int) -> float | None:
    return None if n < 2 else float((total @ total - n) / (n * (n - 1)))


def _cosine_influence(units: np.ndarray, total: np.ndarray, n: int, sums: _Sums) -> np.ndarray:
    """Of ‖Σu‖²/n², which differs from the mean over pairs by less than 1/n."""
    counts = sums(np.where(units.any(axis=1), 1.0, 0.0))
    return 2 / n**2 * (sums(units @ total) - counts * float(total @ total) / n)
