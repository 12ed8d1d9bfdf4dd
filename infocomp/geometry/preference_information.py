"""Preference information: what the soft-quantised direction J of a state tells about which completion was preferred.

A completion's histogram is the mean of its rows' soft assignments, so that each completion weighs the same however long
it is. With h the histograms, p_c and p_r their means over chosen and over rejected completions and p = (p_c + p_r)/2,

    I(label; J) = H(p) − (H(p_c) + H(p_r))/2    in nats here, in bits in what is given back,

at most one bit. Label = chosen or rejected, after Conklin et al. (2026), arXiv 2604.07569; what is done with pairs
(positions, prompts, null) is stated here and is not theirs.

Null: labels flipped within pairs by seeded coins, the same for all draws, sites and models of as many pairs.
Point estimate: (plug-in − mean of the null) · P/(P − 1) for P pairs. To second order in h_chosen − h_rejected the
plug-in is a squared mean over pairs and the null the share of it that a pair makes with itself; their difference,
scaled so, is then without bias whatever the truth.
Ends: pairs in seeded halves A and B, averaged both ways round, Ĥ plug-in entropies of all pairs, CE_B the mean code
length of the histograms of B,

    lower = Ĥ(J) − CE_B(q_A(·|label)),  upper = CE_B(p_A) − Ĥ(J|label),  E lower ≤ I ≤ E upper,

with q_A shrunken towards p_A as in `infocomp.estimators.bracket`. Influences are first derivatives by the weight of a
pair (the infinitesimal jackknife). For the point estimate their squares count the variance that pairs have two by two
(all of it at I = 0, where first derivatives vanish) twice; it is the null's variance over flips, which is taken off
once by scaling the influences.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.interface import Estimate
from infocomp.estimators.nulls import sampling_order
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.units import BITS_PER_NAT, efficiency

FLIPS = 500
MOST_SHRINKAGE = 1e6
ERRORS = {"value": "std_error", "point": "point_error", "lower": "lower_error", "upper": "upper_error"}
TINY = np.finfo(np.float64).tiny
Histograms = Float[np.ndarray, "pairs 2 draws bins"]


@dataclass(frozen=True)
class PreferenceInformation:
    """Estimates of each anchor draw and of their mean ("mean", the last), in bits, with the null of the mean.

    `null_high` is the null's 97.5 % quantile in bits, `p` the share of flips (and the labels themselves) that reach
    the plug-in; `flips` the null of the mean over draws, in bits.
    """

    estimates: tuple[Estimate, ...]
    null_high: float
    p: float
    flips: Float[np.ndarray, "flips"]

    @property
    def mean(self) -> Estimate:
        """The mean over anchor draws, with each pair's influence."""
        return self.estimates[-1]


def preference_flips(pairs: int, flips: int, seed: int) -> Float[np.ndarray, "flips pairs"]:
    """Seeded coins, +1 where a pair keeps its labels and −1 where they are exchanged."""
    coins = np.random.default_rng([seed, pairs]).integers(0, 2, size=(flips, pairs), dtype=np.int8)
    return 2.0 * coins - 1.0


def flipped(histograms: Float[np.ndarray, "pairs 2 *rest"], signs: Float[np.ndarray, "pairs"]) -> np.ndarray:
    """The same pairs with the labels of some exchanged."""
    found = histograms.copy()
    found[signs < 0] = found[signs < 0, ::-1]
    return found


def preference_information(
    histograms: Histograms,
    entropies: Float[np.ndarray, "pairs 2 draws"],
    rows: int,
    seed: int = 0,
    flips: int = FLIPS,
) -> PreferenceInformation:
    """I(preferred or not; J) from the completions' histograms and mean row entropies (nats).

    `rows` is how many rows they were made from, for the record. ValueError for shapes that do not fit, no pair, and
    histograms that are not distributions; below 8 pairs there is no interval, below 2 neither ends nor point.
    """
    _check(histograms, entropies)
    histograms = histograms / histograms.sum(axis=3, keepdims=True)  # assignments may have been kept in half precision
    pairs, _, draws, bins = histograms.shape
    signs = preference_flips(pairs, flips, seed)
    second = np.zeros(pairs, dtype=bool)
    second[sampling_order(np.arange(pairs), seed, pairs)[pairs // 2 :]] = True
    found = [_one_draw(histograms[:, :, draw], entropies[:, :, draw], signs, second) for draw in range(draws)]
    every = np.mean([one.flips for one in found], axis=0) * BITS_PER_NAT
    value = float(np.mean([one.ends["value"] for one in found])) * BITS_PER_NAT
    about: dict[str, Any] = {
        "quantity": "preference_information",
        "unit": "bits",
        "label": "preference",
        "n": rows,
        "n_labels": 2,
    }
    if pairs < 2:
        about["message"] = "one pair: no ends, no point estimate and no interval"
    elif pairs < FEWEST_DOCUMENTS:
        about["message"] = f"no interval: {pairs} pairs, at least {FEWEST_DOCUMENTS} are needed"
    estimates = [_estimate([one], str(draw), bins, about) for draw, one in enumerate(found)]
    estimates.append(_estimate(found, "mean", bins, about))
    return PreferenceInformation(
        estimates=tuple(estimates),
        null_high=float(np.quantile(every, 0.975)),
        p=float((1 + np.sum(every >= value - 1e-12)) / (1 + flips)),
        flips=every,
    )


# one anchor draw


@dataclass(frozen=True)
class _Draw:
    """Ends in nats, their influences by pair, the null's values, and the ceiling."""

    ends: dict[str, float]
    influence: dict[str, Float[np.ndarray, "pairs"]]
    flips: Float[np.ndarray, "flips"]
    ceiling: float
    entropy: float


def _one_draw(
    h: Float[np.ndarray, "pairs 2 bins"],
    entropies: Float[np.ndarray, "pairs 2"],
    signs: Float[np.ndarray, "flips pairs"],
    second: Bool[np.ndarray, "pairs"],
) -> _Draw:
    pairs = len(h)
    middle, half_difference = h.mean(axis=1), (h[:, 0] - h[:, 1]) / 2
    p, sides = middle.mean(axis=0), h.mean(axis=0)
    entropy, conditional = _entropy(p), _entropy(sides).mean()
    of_entropy = (-(middle @ _log(p)) - entropy) / pairs
    of_conditional = (-np.einsum("psm,sm->p", h, _log(sides)) / 2 - conditional) / pairs
    value = float(entropy - conditional)

    shift = signs @ half_difference / pairs
    logs = np.log(np.maximum(np.stack([p + shift, p - shift]), TINY))
    null = entropy + (np.sum((p + shift) * logs[0], axis=1) + np.sum((p - shift) * logs[1], axis=1)) / 2
    null_mean = float(null.mean())
    both, apart = logs.sum(axis=0) / 2, (logs[0] - logs[1]) / 2
    of_null = middle @ both.mean(axis=0) + np.sum(half_difference * (signs.T @ apart), axis=1) / len(signs)
    of_null = (of_null + float(entropy) - null_mean) / pairs + of_entropy  # −Ĥ(J|flipped label), then Ĥ(J)
    of_value = of_entropy - of_conditional
    ends, influence = {"value": value}, {"value": of_value}
    if pairs > 1:
        scale = pairs / (pairs - 1)
        ends["point"], influence["point"] = scale * (value - null_mean), scale * (of_value - of_null)
        coded = _held_out(h, second)
        ends["lower"], ends["upper"] = float(entropy) - coded.by_label, coded.by_marginal - float(conditional)
        influence["lower"] = of_entropy - coded.of_label
        influence["upper"] = coded.of_marginal - of_conditional
    ceiling = min(float(np.log(2)), float(entropy - entropies.mean()))
    return _Draw(ends, influence, null, ceiling, float(entropy))


@dataclass(frozen=True)
class _HeldOut:
    """Code lengths of the half that is scored, averaged both ways round: under q(·|label) and under p; influences."""

    by_label: float
    of_label: Float[np.ndarray, "pairs"]
    by_marginal: float
    of_marginal: Float[np.ndarray, "pairs"]


def _held_out(h: Float[np.ndarray, "pairs 2 bins"], second: Bool[np.ndarray, "pairs"]) -> _HeldOut:
    middle = h.mean(axis=1)
    halves = [~second, second]
    sides, marginals = [h[half].mean(axis=0) for half in halves], [middle[half].mean(axis=0) for half in halves]
    alpha = _shrinkage(h, sides)
    lengths = [0.0, 0.0]
    influence = np.zeros((2, len(h)))
    for learnt, scored in ((0, 1), (1, 0)):
        n_learnt, n_scored = int(halves[learnt].sum()), int(halves[scored].sum())
        p = marginals[learnt]
        q = (n_learnt * sides[learnt] + alpha * p) / (n_learnt + alpha)
        for which, (law, kind) in enumerate(((q, "label"), (np.stack([p, p]), "marginal"))):
            log = _log(law)
            length = -float(np.sum(sides[scored] * log)) / 2
            lengths[which] += length / 2
            own = -np.einsum("psm,sm->p", h[halves[scored]], log) / 2 - length
            influence[which, halves[scored]] += own / n_scored / 2
            ratio = sides[scored] / np.maximum(law, TINY)
            from_p = middle[halves[learnt]] - p
            if kind == "label":
                from_sides = h[halves[learnt]] - sides[learnt]
                moved = n_learnt * np.einsum("psm,sm->p", from_sides, ratio) + alpha * (from_p @ ratio.sum(axis=0))
                moved /= n_learnt + alpha
            else:
                moved = from_p @ ratio.sum(axis=0)
            influence[which, halves[learnt]] -= moved / 2 / n_learnt / 2
    return _HeldOut(lengths[0], influence[0], lengths[1], influence[1])


def _shrinkage(h: Float[np.ndarray, "pairs 2 bins"], sides: list[Float[np.ndarray, "2 bins"]]) -> float:
    """α: the spread of completions within labels over that between labels, in the metric 1/p, from both halves."""
    inverse = 1 / np.maximum(h.mean(axis=(0, 1)), TINY)
    between = float(np.mean(np.sum(sides[0] * sides[1] * inverse, axis=1))) - 1
    within = float(np.mean(np.sum(h * h * inverse, axis=2))) - 1 - between
    return MOST_SHRINKAGE if between * MOST_SHRINKAGE <= within else max(within / between, 1e-3)


def _estimate(found: list[_Draw], draw: str, bins: int, about: dict) -> Estimate:
    """The mean over the draws that are given, in bits."""
    ends = {name: BITS_PER_NAT * float(np.mean([one.ends[name] for one in found])) for name in found[0].ends}
    influence = {name: BITS_PER_NAT * np.mean([one.influence[name] for one in found], axis=0) for name in ends}
    flips = BITS_PER_NAT * np.mean([one.flips for one in found], axis=0)
    pairs = len(influence["value"])
    errors: dict[str, float] = {}
    interval = None
    if pairs >= FEWEST_DOCUMENTS:
        influence["point"] = influence["point"] * _counted_once(influence["point"], flips)
        errors = {ERRORS[name]: standard_error(of) for name, of in influence.items()}
        interval = (
            ends["lower"] - quantile(pairs) * errors["lower_error"],
            ends["upper"] + quantile(pairs) * errors["upper_error"],
        )
    value = ends.pop("value")
    values = [one.ends["value"] for one in found]
    beside: dict[str, Any] = {**about, **ends, **errors}
    return Estimate(
        **beside,
        value=value,
        interval=interval,
        weighting="completions",
        draw=draw,
        efficiency=efficiency(value / BITS_PER_NAT, bins),
        null=float(flips.mean()),
        ceiling=BITS_PER_NAT * float(np.mean([one.ceiling for one in found])),
        draw_std=BITS_PER_NAT * float(np.std(values, ddof=1)) if len(values) > 1 else None,
        influence=influence if errors and draw == "mean" else None,
    )


def _counted_once(of_point: Float[np.ndarray, "pairs"], flips: Float[np.ndarray, "flips"]) -> float:
    """By what to scale the influences so that their variance is theirs less that of the null, at least half of it."""
    own = standard_error(of_point) ** 2
    if own == 0 or len(flips) < 2:
        return 1.0
    pairs = len(of_point)
    return float(np.sqrt(max(0.5, 1 - flips.var(ddof=1) * (pairs / (pairs - 1)) ** 2 / own)))


def _check(histograms: Histograms, entropies: Float[np.ndarray, "pairs 2 draws"]) -> None:
    if histograms.ndim != 4 or histograms.shape[1] != 2:
        raise ValueError(
            f"histograms must be [pairs, 2, draws, bins] with chosen before rejected, got {list(histograms.shape)}."
        )
    if entropies.shape != histograms.shape[:3]:
        raise ValueError(
            f"entropies must be {list(histograms.shape[:3])} as the histograms' pairs, sides and draws, "
            f"got {list(entropies.shape)}."
        )
    if not len(histograms):
        raise ValueError("histograms has no pair: at least one is needed.")
    off = np.abs(histograms.sum(axis=3) - 1)
    if not np.all(off <= 1e-2) or np.any(histograms < 0):
        worst = int(np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)[0])
        raise ValueError(
            f"the histograms of pair {worst} are no distributions (they must be at least 0 and sum to 1); give the "
            "mean of each completion's soft assignments."
        )


def _entropy(p: Float[np.ndarray, "*laws bins"]) -> Float[np.ndarray, "*laws"]:
    return -np.sum(p * _log(p), axis=-1)


def _log(p: Float[np.ndarray, "*laws bins"]) -> Float[np.ndarray, "*laws bins"]:
    return np.log(np.maximum(p, TINY))
