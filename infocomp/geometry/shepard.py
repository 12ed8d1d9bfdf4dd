"""Shepard's law in a network: do two contexts that lie far apart lead to next tokens that are hardly confused?

Shepard (1987), Science 237(4820): generalization falls exponentially with distance in psychological space. Here
confusion is c(i, j) = (1 − TV(p_i, p_j))/2 = ½ Σ_v min(p_i(v), p_j(v)), the Bayes error of telling from one sampled
next token which of two contexts it came from: ½ for equal distributions, 0 for disjoint ones. Against the distance d
of the two contexts' rows at a site, two laws are fitted by least squares over pairs of items:

    exponential  log c = a − d/s          Gaussian  log c = a − d²/s²

Slopes are −mean(d)/s and −mean(d²)/s², what log c loses over the mean (squared) distance of all pairs, which does not
depend on the scale of the rows; in nats here, in bits in `estimates`. r² is held out: items are dealt into two halves,
a law is fitted to the pairs within one and scored on the pairs within the other, so that a scored pair shares no item
with a fitted one; both ways, over `splits` seeded deals. It is measured against the mean of the fitted pairs, so that 0
says as good as knowing no distance, and below 0 worse.

Pairs share items, so that errors are a jackknife over items, exact (each item left out of its half), not over pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal
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

    `influence` by item: "slope NAME" (nats), "r2 NAME", "preference". `floored`: pairs whose confusion lay below 1e-12.
    """

    exponential: Law
    gaussian: Law
    preference: float
    items: int
    pairs: int
    floored: int
    influence: dict[str, Float[np.ndarray, "items"]]

    def estimates(self) -> list[Estimate]:
        """shepard_slope (bits over the mean distance) and shepard_r2 of both laws, and shepard_preference (ratio).

        Each with its 95 % interval and influence by item, n items; two models' are paired by item.
        """
        floored = f"; {self.floored} confusions below {FLOOR:g} were raised to it" if self.floored else ""
        message = f"jackknife over {self.items} items, {self.pairs} pairs{floored}"
        rows = [_estimate("shepard_preference", "", self.preference, self.influence["preference"], "ratio", message)]
        for name, law in zip(LAWS, (self.exponential, self.gaussian), strict=True):
            label, to_bits = name.lower(), bits(1.0)
            of_slope = to_bits * self.influence[f"slope {name}"]
            rows.append(_estimate("shepard_slope", label, bits(law.slope), of_slope, "bits", message))
            rows.append(_estimate("shepard_r2", label, law.r2, self.influence[f"r2 {name}"], "ratio", message))
        return rows


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
) -> Shepard:
    """Both laws of the pairs i ≠ j, from their confusions and distances; `seed` deals the items, alike in all models.

    ValueError: matrices of other shapes, not symmetric, negative or not finite, splits below 1. Refusal (a ValueError):
    fewer than 16 items, or distances or confusions that are all equal.
    """
    items = len(confusions)
    _check(confusions, apart, splits)
    if items < FEWEST_ITEMS:
        raise Refusal(f"{items} items are too few for halves of pairs; take at least {FEWEST_ITEMS}")
    off = ~np.eye(items, dtype=bool)
    y = np.log(np.maximum(confusions, FLOOR)) * off
    if not np.ptp(apart[off]) > 0 or not np.ptp(y[off]) > 0:
        raise Refusal("all pairs of items are equally far apart or equally confused: there is no law to fit")
    pair_sums = [_PairSums.of(power, y) for power in (apart / apart[off].mean(), (apart / apart[off].mean()) ** 2)]
    everyone = np.ones(items)
    whole = [sums.without(everyone) for sums in pair_sums]
    errors = np.zeros((2, 1 + items))  # summed squared error of each law, then the same without each item
    without_distance = np.zeros(1 + items)
    generator = np.random.default_rng(seed)
    for _ in range(splits):
        half = np.zeros(items)
        half[generator.permutation(items)[: items // 2]] = 1.0
        for fitted, scored in ((half, 1 - half), (1 - half, half)):
            for law, sums in enumerate(pair_sums):
                learnt, tried = sums.without(fitted), sums.without(scored)
                slope, intercept = _line(learnt)
                errors[law] += _squared_error(tried, slope, intercept)
                if law == 0:
                    without_distance += _squared_error(tried, 0.0, learnt["y"] / learnt["1"])
    r2 = 1 - errors / without_distance
    fits = [_line(sums) for sums in whole]
    slopes = [slope * sums["x"] / sums["1"] for (slope, _), sums in zip(fits, whole, strict=True)]
    influence = {"preference": _pseudo_influence(r2[0] - r2[1])}
    for name, slope, explained in zip(LAWS, slopes, r2, strict=True):
        influence |= {f"slope {name}": _pseudo_influence(slope), f"r2 {name}": _pseudo_influence(explained)}
    laws = [Law(float(slopes[law][0]), float(fits[law][1][0]), float(r2[law][0])) for law in (0, 1)]
    floored = int((confusions[off] < FLOOR).sum()) // 2
    preference = laws[0].r2 - laws[1].r2
    return Shepard(laws[0], laws[1], preference, items, items * (items - 1) // 2, floored, influence)


@dataclass(frozen=True)
class _PairSums:
    """Matrices whose sums over pairs decide a line: 1, x, y, x², xy, y², each 0 on the diagonal."""

    matrices: dict[str, Float[np.ndarray, "items items"]]

    @classmethod
    def of(cls, x: Float[np.ndarray, "items items"], y: Float[np.ndarray, "items items"]) -> "_PairSums":
        x = x * (1 - np.eye(len(x)))
        return cls({"1": 1 - np.eye(len(x)), "x": x, "y": y, "xx": x * x, "xy": x * y, "yy": y * y})

    def without(self, member: Float[np.ndarray, "items"]) -> dict[str, Float[np.ndarray, "1+items"]]:
        """Sums over pairs of members (those with 1); then the same without each item in turn."""
        found = {}
        for name, matrix in self.matrices.items():
            of_item = member * (matrix @ member)
            total = of_item.sum()
            found[name] = np.concatenate([[total], total - 2 * of_item]) / 2
        return found


def _line(sums: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of least squares, for all sums at once; 0 where the distances are all equal."""
    n = sums["1"]
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


def _pseudo_influence(values: Float[np.ndarray, "1+items"]) -> Float[np.ndarray, "items"]:
    """Minus what leaving an item out does, scaled so that `standard_error` of it is the jackknife's."""
    without = values[1:]
    return (len(without) - 1) / len(without) * (without.mean() - without)


def _estimate(quantity: str, label: str, value: float, influence: np.ndarray, unit: str, message: str) -> Estimate:
    error = standard_error(influence)
    half = quantile(len(influence)) * error
    return Estimate(
        quantity=quantity,
        label=label,
        value=value,
        unit=unit,
        n=len(influence),
        interval=(value - half, value + half),
        null=0.0,
        std_error=error,
        message=message,
        influence={"value": influence},
    )


def _check(confusions: np.ndarray, apart: np.ndarray, splits: int) -> None:
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
