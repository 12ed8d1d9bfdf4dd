"""From the informations of each anchor draw to estimates in bits: means over draws, ratios, refusals."""

from dataclasses import dataclass, field

import numpy as np

from infocomp.estimators.groups import LabelGroups
from infocomp.estimators.interface import Estimate
from infocomp.estimators.reduction import NOT_MUTUAL, Information
from infocomp.units import bits, efficiency

Key = tuple[str, str]  # quantity ("complexity" or "expressivity"), label name


@dataclass
class DrawResult:
    """What one anchor draw gave, in nats: H(J), context complexity, informations and the same under the pairing."""

    entropy: float
    context: float
    found: dict[Key, dict[str, Information | None]] = field(default_factory=dict)
    paired: dict[Key, dict[str, Information | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Number:
    """One value over the draws with what stands beside it, each an array over draws or None."""

    value: np.ndarray
    null: np.ndarray | None = None
    null_rows: np.ndarray | None = None
    ceiling: np.ndarray | None = None


def estimates_of(
    results: list[DrawResult], labels: list[LabelGroups], weightings: tuple[str, ...], bins: int, n: int
) -> list[Estimate]:
    """Rows for each draw ("0", "1", …) and for the mean over draws, with the spread over draws on the mean row."""
    entropy = np.array([result.entropy for result in results])
    context = np.array([result.context for result in results])
    most = np.full(len(results), np.log(bins))
    rows = _rows(_Number(entropy, ceiling=most), bins, quantity="entropy", n=n, weighting="frequency")
    rows += _rows(_Number(context, ceiling=most), bins, quantity="context_complexity", n=n, weighting="frequency")
    for weighting in weightings:
        numbers: dict[Key, _Number] = {}
        for label in labels:
            key = (label.quantity, label.name)
            found = [result.found[key][weighting] for result in results]
            about = _about(label, weighting, found[0])
            if any(one is None for one in found):
                reason = f"no label reaches min_count among the {label.groups.n_labels} labels"
                rows += _refused("bits", quantity=label.quantity, message=reason, **about)
                continue
            known = [one for one in found if one is not None]
            paired = [result.paired.get(key, {}).get(weighting) for result in results]
            numbers[key] = number = _information(known, paired)
            message = NOT_MUTUAL if weighting == "uniform_mixed" else ""
            rows += _rows(number, bins, quantity=label.quantity, message=message, **about)
            if label.direction == "input":
                marginals = np.array([one.marginal for one in known])
                rows += _ratio_rows(number, marginals, quantity="regularity", message=message, **about)
        rows += _optimality(numbers, labels, weighting, results[0])
    return rows


def _about(label: LabelGroups, weighting: str, found: Information | None) -> dict:
    """Label, weighting, and how many rows and labels it counts."""
    counted = found or label.groups
    about = {"label": label.name, "order": label.order, "weighting": weighting, "n": counted.n}
    return about | {"n_labels": counted.n_labels, "singleton_mass": counted.singleton_mass}


def _information(known: list[Information], paired: list[Information | None]) -> _Number:
    shuffled = [one.value for one in paired if one is not None]
    return _Number(
        value=np.array([one.value for one in known]),
        null=np.array(shuffled) if len(shuffled) == len(known) else None,
        null_rows=np.array([one.null_rows for one in known], dtype=float),
        ceiling=np.array([one.ceiling for one in known]),
    )


def _optimality(
    numbers: dict[Key, _Number], labels: list[LabelGroups], weighting: str, first: DrawResult
) -> list[Estimate]:
    """I(output; J) / I(input; J) of each order: raw, and of null-corrected informations (the headline).

    A ratio of two biased numbers tends to 1 for any representation, so the raw ratio stands beside the raw ratio
    under the null, and the headline is refused where the denominator is not above its null.
    """
    rows: list[Estimate] = []
    for label in labels:
        below, above = numbers.get(("complexity", label.name)), numbers.get(("expressivity", label.name))
        if label.direction != "input" or below is None or above is None:
            continue
        about = _about(label, weighting, first.found["complexity", label.name][weighting])
        if below.null is None or above.null is None:
            reason = (
                "no null: too few rows have one of another document (a single document, or one that is most of them)"
            )
            rows += _ratio_rows(above, below.value, quantity="optimality_raw", **about)
            rows += _refused("ratio", quantity="optimality", message=reason, **about)
            continue
        raw = _Number(above.value, null=above.null)
        rows += _ratio_rows(raw, below.value, quantity="optimality_raw", null_divisor=below.null, **about)
        rest = below.value - (below.null if below.null_rows is None else np.maximum(below.null, below.null_rows))
        if len(rest) < 2:
            reason = "one anchor draw: nothing says how far complexity lies above its null; take two draws or more"
            rows += _refused("ratio", quantity="optimality", message=reason, **about)
            continue
        error = 2 * rest.std(ddof=1) / np.sqrt(len(rest))
        if rest.mean() <= error:
            reason = (
                f"complexity is not above its null: {bits(float(below.value.mean())):.4g} against "
                f"{bits(float(np.mean(below.value - rest))):.4g} bits, so there is nothing to divide by"
            )
            null = float(above.null.mean() / below.null.mean()) if below.null.any() else None
            rows += _refused("ratio", quantity="optimality", message=reason, null=null, **about)
            continue
        corrected = _Number(above.value - above.null, null=above.null)
        divisor = below.value - below.null
        rows += _ratio_rows(corrected, divisor, quantity="optimality", null_divisor=below.null, **about)
    return rows


def _rows(number: _Number, bins: int, **about) -> list[Estimate]:
    """Information in bits, with its efficiency; draw by draw, then their mean."""
    rows = []
    for draw, pick in _picks(len(number.value)):
        value = pick(number.value)
        rows.append(
            Estimate(
                value=bits(value),
                unit="bits",
                draw=draw,
                efficiency=efficiency(value, bins),
                null=_bits(number.null, pick),
                null_rows=_bits(number.null_rows, pick),
                ceiling=_bits(number.ceiling, pick),
                draw_std=_spread(bits(1.0) * number.value, draw),
                **about,
            )
        )
    return rows


def _ratio_rows(number: _Number, divisor: np.ndarray, null_divisor: np.ndarray | None = None, **about):
    """Ratios to `divisor`, draw by draw; the mean row is the ratio of the means, not the mean of the ratios."""
    null_divisor = divisor if null_divisor is None else null_divisor
    rows = []
    for draw, pick in _picks(len(number.value)):
        below = pick(divisor)
        if below == 0:
            rows.append(Estimate(value=None, unit="ratio", draw=draw, status="refused", **_because(about)))
            continue
        rows.append(
            Estimate(
                value=pick(number.value) / below,
                unit="ratio",
                draw=draw,
                null=None if number.null is None else pick(number.null) / pick(null_divisor),
                null_rows=None if number.null_rows is None else pick(number.null_rows) / below,
                ceiling=None if number.ceiling is None else pick(number.ceiling) / below,
                draw_std=_spread(number.value / divisor, draw) if np.all(divisor) else None,
                **about,
            )
        )
    return rows


def _refused(unit: str, message: str, **about) -> list[Estimate]:
    return [Estimate(value=None, unit=unit, status="refused", message=message, **about)]


def _because(about: dict) -> dict:
    return about | {"message": "the denominator is exactly 0 (a single label, or one direction for all rows)"}


def _picks(draws: int):
    """Names and functions: each draw's own entry, then the mean over draws."""
    for draw in range(draws):
        yield str(draw), lambda values, draw=draw: float(values[draw])
    yield "mean", lambda values: float(np.mean(values))


def _bits(values: np.ndarray | None, pick) -> float | None:
    return None if values is None else bits(pick(values))


def _spread(values: np.ndarray, draw: str) -> float | None:
    return float(values.std(ddof=1)) if draw == "mean" and len(values) > 1 else None
