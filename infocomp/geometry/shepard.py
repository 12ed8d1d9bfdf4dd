"""Shepard's law in a network: do two contexts that lie far apart lead to next tokens that are hardly confused?

Shepard (1987), Science 237(4820): generalization falls exponentially with distance in psychological space. Here
confusion is c(i, j) = (1 − TV(p_i, p_j))/2 = ½ Σ_v min(p_i(v), p_j(v)), the Bayes error of telling from one sampled
next token which of two contexts it came from: ½ for equal distributions, 0 for disjoint ones. Against the distance d
of the two contexts' rows at a site, two laws are fitted by least squares over pairs of items:

    exponential  log c = a − d/s          Gaussian  log c = a − d²/s²

Slopes are −mean(d)/s and −mean(d²)/s², what log c loses over the mean (squared) distance of all pairs, which does not
depend on the scale of the rows; in nats here, in bits in `estimates`. r² is held out: documents are dealt into two
halves of about as many items, a law is fitted to the pairs within one and scored on the pairs within the other, so that
a scored pair shares no document with a fitted one; both ways, over `splits` seeded deals. It is measured against the
mean of the fitted pairs, so that 0 says as good as knowing no distance, and below 0 worse.

Pairs share items, and items of one document depend on each other, so that errors are a jackknife over documents, exact
(all items of a document left out of its half), not over pairs or items. It needs 8 documents. Without documents, each
item is one of its own.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import FEWEST_DOCUMENTS, Refusal
from infocomp.estimators.matrix_renyi import squared_distances
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.units import bits

FLOOR = 1e-12  # of a confusion: log c is taken of no less
FEWEST_ITEMS = 16
LAWS = ("exponential", "Gaussian")
_VOCABULARY = 256  # columns at once: 512 items of them lie in cache


@dataclass(frozen=True)
class Law:
    """`slope` and `intercept` (nats; the slope over the mean distance) of all pairs, `r2` of held-out pairs."""

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class Shepard:
    """Both laws; `preference` is held-out r² of the exponential less the Gaussian's.

    `influence` by document, in the order of np.unique: "slope NAME" (nats), "r2 NAME", "preference"; empty where there
    is no interval, for the reason `lacking`. `floored`: pairs whose confusion lay below 1e-12. `documents`: None where
    each item was one of its own.
    """

    exponential: Law
    gaussian: Law
    preference: float
    items: int
    pairs: int
    floored: int
    documents: int | None
    lacking: str
    influence: dict[str, Float[np.ndarray, "documents"]]

    def estimates(self) -> list[Estimate]:
        """shepard_slope (bits over the mean distance) and shepard_r2 of both laws, and shepard_preference (ratio).

        Each with its 95 % interval and influence by document, n items; two models' are paired by document. Below 8
        documents there is no interval, and the message says so.
        """
        weighed = dict(self.influence)
        for name in LAWS:
            if f"slope {name}" in weighed:
                weighed[f"slope {name}"] = bits(1.0) * weighed[f"slope {name}"]
        rows = [self._estimate("shepard_preference", "", self.preference, "ratio", weighed.get("preference"))]
        for name, law in zip(LAWS, (self.exponential, self.gaussian), strict=True):
            of_slope, of_r2 = weighed.get(f"slope {name}"), weighed.get(f"r2 {name}")
            rows.append(self._estimate("shepard_slope", name.lower(), bits(law.slope), "bits", of_slope))
            rows.append(self._estimate("shepard_r2", name.lower(), law.r2, "ratio", of_r2))
        return rows

    @property
    def message(self) -> str:
        """What the interval is over, or why there is none."""
        of_items = f"{self.items} items, {self.pairs} pairs"
        if self.lacking:
            found = f"no interval: {self.lacking}; {of_items}"
        else:
            over = "" if self.documents is None else f"{self.documents} documents: "
            found = f"jackknife over {over}{of_items}"
        return found + (f"; {self.floored} confusions below {FLOOR:g} were raised to it" if self.floored else "")

    def _estimate(
        self, quantity: str, label: str, value: float, unit: str, influence: Float[np.ndarray, "documents"] | None
    ) -> Estimate:
        found = Estimate(quantity, value, unit, self.items, label=label, null=0.0, message=self.message)
        if influence is None:
            return found
        error = standard_error(influence)
        half = quantile(len(influence)) * error
        interval = (value - half, value + half)
        return replace(found, interval=interval, std_error=error, influence={"value": influence})


def confusion(log_probabilities: Float[Tensor, "items vocabulary"]) -> Float[np.ndarray, "items items"]:
    """c(i, j) in float64, ½ on the diagonal, of natural log-probabilities.

    Minima are added up, not absolute differences taken from 1, so that small confusions keep 6 digits. ValueError:
    fewer than 2 items, a row that holds NaN or whose probabilities do not sum to 1 (within 1 %).
    """
    if log_probabilities.ndim != 2 or len(log_probabilities) < 2:
        raise ValueError(
            f"log-probabilities must be [items, vocabulary] of 2 items at least, got {tuple(log_probabilities.shape)}."
        )
    p = log_probabilities.detach().float().cpu().exp()
    total = p.sum(dim=1, dtype=torch.float64)
    wrong = torch.nonzero(~((total - 1).abs() < 0.01)).flatten()
    if len(wrong):
        raise ValueError(
            f"the probabilities of {len(wrong)} of {len(p)} items do not sum to 1 (item {int(wrong[0])}: "
            f"{float(total[wrong[0]]):.4g}); give log_softmax of the logits, in natural logarithms."
        )
    items = len(p)
    found = torch.zeros(items, items, dtype=torch.float64)
    buffer = torch.empty(items, _VOCABULARY)
    for start in range(0, p.shape[1], _VOCABULARY):
        part = p[:, start : start + _VOCABULARY].contiguous()
        for item in range(items - 1):
            smaller = buffer[: items - item - 1, : part.shape[1]]
            torch.minimum(part[item + 1 :], part[item], out=smaller)
            found[item, item + 1 :] += smaller.sum(dim=1)
    return ((found + found.T + torch.eye(items, dtype=torch.float64)) / 2).numpy()


def distances(rows: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, "items items"]:
    """Euclidean distance of all pairs of rows, float64."""
    return np.sqrt(squared_distances(np.asarray(rows, dtype=np.float64)))


def shepard(
    confusions: Float[np.ndarray, "items items"],
    apart: Float[np.ndarray, "items items"],
    seed: int = 0,
    splits: int = 10,
    documents: Int[np.ndarray, "items"] | None = None,
) -> Shepard:
    """Both laws of the pairs i ≠ j, from their confusions and distances; `seed` deals the documents of the items.

    Models whose items come from the same documents get the same halves. ValueError: matrices of other shapes, not
    symmetric, negative or not finite, splits below 1, documents of another length. Refusal (a ValueError): fewer than
    16 items, distances or confusions that are all equal, items of which one document holds all or all but one.
    """
    items = len(confusions)
    _check(confusions, apart, splits, documents)
    if items < FEWEST_ITEMS:
        raise Refusal(f"{items} items are too few for halves of pairs; take at least {FEWEST_ITEMS}")
    off = ~np.eye(items, dtype=bool)
    y = np.log(np.maximum(confusions, FLOOR)) * off
    if not np.ptp(apart[off]) > 0 or not np.ptp(y[off]) > 0:
        raise Refusal("all pairs of items are equally far apart or equally confused: there is no law to fit")
    owner = np.arange(items) if documents is None else np.unique(documents, return_inverse=True)[1].ravel()
    sizes = np.bincount(owner)
    scaled = apart / apart[off].mean()
    pair_sums = [_PairSums.of(power, y, owner) for power in (scaled, scaled**2)]
    whole = [sums.without(np.ones(len(sizes))) for sums in pair_sums]
    errors = np.zeros((2, 1 + len(sizes)))  # summed squared error of each law, then the same without each document
    without_distance = np.zeros(1 + len(sizes))
    generator = np.random.default_rng(seed)
    for _ in range(splits):
        half = _half(sizes, generator)
        for fitted, scored in ((half, 1 - half), (1 - half, half)):
            for law, sums in enumerate(pair_sums):
                learnt, tried = sums.without(fitted), sums.without(scored)
                slope, intercept = _line(learnt)
                counted = learnt["1"] > 0.5  # a half without a pair says nothing
                errors[law] += counted * _squared_error(tried, slope, intercept)
                if law == 0:
                    mean = learnt["y"] / np.maximum(learnt["1"], 1.0)
                    without_distance += counted * _squared_error(tried, 0.0, mean)
    if not without_distance[0] > 0:
        raise Refusal(f"{sizes.max()} of {items} items come from one document, so that no half holds pairs of others")
    lacking = "" if (without_distance > 0).all() else "without one of its documents, no half of the items holds pairs"
    if documents is not None and len(sizes) < FEWEST_DOCUMENTS:
        lacking = f"{len(sizes)} documents, at least {FEWEST_DOCUMENTS} are needed"
    r2 = 1 - errors / np.where(without_distance > 0, without_distance, 1.0)
    fits = [_line(sums) for sums in whole]
    slopes = [slope * sums["x"] / np.maximum(sums["1"], 1.0) for (slope, _), sums in zip(fits, whole, strict=True)]
    influence = {}
    if not lacking:
        influence["preference"] = _pseudo_influence(r2[0] - r2[1])
        for name, slope, explained in zip(LAWS, slopes, r2, strict=True):
            influence |= {f"slope {name}": _pseudo_influence(slope), f"r2 {name}": _pseudo_influence(explained)}
    laws = [Law(float(slopes[law][0]), float(fits[law][1][0]), float(r2[law][0])) for law in (0, 1)]
    floored = int((confusions[off] < FLOOR).sum()) // 2
    pairs, of_documents = items * (items - 1) // 2, None if documents is None else len(sizes)
    preference = laws[0].r2 - laws[1].r2
    return Shepard(laws[0], laws[1], preference, items, pairs, floored, of_documents, lacking, influence)


def _half(sizes: Int[np.ndarray, "documents"], generator: np.random.Generator) -> Float[np.ndarray, "documents"]:
    """1 for documents drawn in random order until they hold half of the items, as nearly as they can; else 0."""
    order = generator.permutation(len(sizes))
    held = np.cumsum(sizes[order])
    taken = 1 + int(np.argmin(np.abs(2 * held - held[-1])))
    half = np.zeros(len(sizes))
    half[order[:taken]] = 1.0
    return half


@dataclass(frozen=True)
class _PairSums:
    """Sums over pairs of items of two documents (or one) that decide a line: of 1, x, y, x², xy, y²."""

    matrices: dict[str, Float[np.ndarray, "documents documents"]]

    @classmethod
    def of(
        cls,
        x: Float[np.ndarray, "items items"],
        y: Float[np.ndarray, "items items"],
        owner: Int[np.ndarray, "items"],
    ) -> "_PairSums":
        """`owner` numbers the document of each item; an item is no pair with itself."""
        x = x * (1 - np.eye(len(x)))
        by_item = {"1": 1 - np.eye(len(x)), "x": x, "y": y, "xx": x * x, "xy": x * y, "yy": y * y}
        held = np.zeros((owner.max() + 1, len(x)))
        held[owner, np.arange(len(x))] = 1.0
        return cls({name: held @ matrix @ held.T for name, matrix in by_item.items()})

    def without(self, member: Float[np.ndarray, "documents"]) -> dict[str, Float[np.ndarray, "1+documents"]]:
        """Sums over pairs of members (those with 1); then the same without each document in turn."""
        found = {}
        for name, matrix in self.matrices.items():
            of_document = member * (matrix @ member)
            total = of_document.sum()
            found[name] = np.concatenate([[total], total - 2 * of_document + member * np.diag(matrix)]) / 2
        return found


def _line(sums: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of least squares, for all sums at once; 0 where the distances are all equal."""
    n = np.maximum(sums["1"], 1.0)
    mean_x, mean_y = sums["x"] / n, sums["y"] / n
    spread = sums["xx"] / n - mean_x**2
    together = sums["xy"] / n - mean_x * mean_y
    varied = spread > 1e-14 * sums["xx"] / n
    slope = np.where(varied, together / np.where(varied, spread, 1.0), 0.0)
    return slope, mean_y - slope * mean_x


def _squared_error(sums: dict[str, np.ndarray], slope: np.ndarray | float, intercept: np.ndarray) -> np.ndarray:
    """Σ (y − slope·x − intercept)² from the sums."""
    straight = sums["yy"] - 2 * slope * sums["xy"] + slope**2 * sums["xx"]
    return straight + intercept * (intercept * sums["1"] - 2 * sums["y"] + 2 * slope * sums["x"])


def _pseudo_influence(values: Float[np.ndarray, "1+documents"]) -> Float[np.ndarray, "documents"]:
    """Minus what leaving a document out does, scaled so that `standard_error` of it is the jackknife's."""
    without = values[1:]
    return (len(without) - 1) / len(without) * (without.mean() - without)


def _check(confusions: np.ndarray, apart: np.ndarray, splits: int, documents: np.ndarray | None) -> None:
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}.")
    for name, matrix in (("confusions", confusions), ("distances", apart)):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape != confusions.shape:
            raise ValueError(
                f"confusions and distances must be [items, items], got {confusions.shape} and {apart.shape}; "
                "give both of the same items."
            )
        if not (np.isfinite(matrix).all() and matrix.min() >= 0 and np.allclose(matrix, matrix.T, rtol=1e-9, atol=0)):
            raise ValueError(
                f"{name} must be symmetric, finite and at least 0; give those of `confusion` and `distances`."
            )
    if documents is not None and np.shape(documents) != (len(confusions),):
        raise ValueError(
            f"documents must be one number for each of {len(confusions)} items, got shape {np.shape(documents)}."
        )
