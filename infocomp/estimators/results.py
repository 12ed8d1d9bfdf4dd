"""From the informations of each anchor draw to estimates in bits: means over draws, ratios, intervals, refusals."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infocomp.estimators.bracket import Marginals
from infocomp.estimators.groups import LabelGroups
from infocomp.estimators.halves import FEWEST_DOCUMENTS, Halves
from infocomp.estimators.interface import Estimate
from infocomp.estimators.numbers import (
    Number,
    above_null,
    information_number,
    marginal_number,
    quantile,
    standard_error,
)
from infocomp.estimators.reduction import NOT_MUTUAL, Information
from infocomp.units import bits, efficiency

Key = tuple[str, str]  # quantity ("complexity" or "expressivity"), label name
Pick = Callable[[np.ndarray], Any]
ONE_LABEL = "one label only: there is nothing to be informed about"
SINGLETONS = "every label is seen once: plug-in, null and ceiling agree whatever the rows hold; take more text"
NO_ENDS = "no ends and no interval: their directions are known for frequency weighting only"
NO_NULL = "no null: too few rows have one of another document (a single document, or one that is most of them)"


@dataclass
class DrawResult:
    """What one anchor draw gave, in nats: H(J), context complexity, informations and the same under the pairing.

    `mean_entropy` is E H(A); `marginals` are those of all rows, None where there is a single document.
    """

    entropy: float
    mean_entropy: float
    marginals: Marginals | None = None
    found: dict[Key, dict[str, Information | None]] = field(default_factory=dict)
    paired: dict[Key, dict[str, Information | None]] = field(default_factory=dict)


def estimates_of(
    results: list[DrawResult],
    labels: list[LabelGroups],
    weightings: tuple[str, ...],
    bins: int,
    n: int,
    halves: Halves | None = None,
) -> list[Estimate]:
    """Rows for each draw ("0", "1", …) and for the mean over draws, with the spread over draws on the mean row."""
    few = _few_documents(halves)
    rows: list[Estimate] = []
    for quantity, number in _of_all_rows(results, bins).items():
        rows += _rows(number, bins, quantity=quantity, n=n, weighting="frequency", message=few)
    for weighting in weightings:
        numbers: dict[Key, Number] = {}
        for label in labels:
            key = (label.quantity, label.name)
            found = [result.found[key][weighting] for result in results]
            about = _about(label, weighting, found[0])
            if any(one is None for one in found):
                reason = f"no label reaches min_count among the {label.groups.n_labels} labels"
                rows += _refused("bits", quantity=label.quantity, message=reason, **about)
                continue
            known = [one for one in found if one is not None]
            number = information_number(known, [result.paired.get(key, {}).get(weighting) for result in results])
            status, reason = _standing(known[0])
            few = _few_documents(label.groups.halves) if weighting == "frequency" else NO_ENDS
            if status == "ok":
                numbers[key] = number
            else:  # what stands beside such a number would say no more than it does
                number = Number(number.value, number.null, number.null_rows, number.ceiling)
            message = "; ".join(filter(None, (NOT_MUTUAL if weighting == "uniform_mixed" else "", reason, few)))
            rows += _rows(number, bins, quantity=label.quantity, status=status, message=message, **about)
            if label.direction == "input":
                marginals = Number(np.array([one.marginal for one in known]))
                rows += _ratio_rows(
                    Number(number.value, null_rows=number.null_rows, ceiling=number.ceiling, null=number.null),
                    marginals,
                    quantity="regularity",
                    status=status,
                    message=message,
                    **about,
                )
        rows += _optimality(numbers, labels, weighting, results[0])
    return rows


def _of_all_rows(results: list[DrawResult], bins: int) -> dict[str, Number]:
    """Entropy and the context's information, with both ends where documents are in halves."""
    most = np.full(len(results), np.log(bins))
    entropy = np.array([result.entropy for result in results])
    context = entropy - np.array([result.mean_entropy for result in results])
    halved = [result.marginals for result in results if result.marginals is not None]
    if len(halved) < len(results):
        return {"entropy": Number(entropy, ceiling=most), "context_complexity": Number(context, ceiling=most)}
    cross = np.array([one.cross_entropy for one in halved])
    of_entropy, of_cross = [one.entropy_influence for one in halved], [one.cross_influence for one in halved]
    of_context = [one.context_influence for one in halved]
    of_upper = [cross + context - plain for cross, context, plain in zip(of_cross, of_context, of_entropy, strict=True)]
    return {
        "entropy": marginal_number(entropy, cross, of_entropy, of_cross, most),
        "context_complexity": marginal_number(context, cross - (entropy - context), of_context, of_upper, most),
    }


def _few_documents(halves: Halves | None) -> str:
    if halves is None:
        return "no ends and no interval: the documents of the rows are not known, or there is only one"
    if halves.n_documents < FEWEST_DOCUMENTS:
        return f"no interval: {halves.n_documents} documents, at least {FEWEST_DOCUMENTS} are needed"
    return ""


def _standing(one: Information) -> tuple[str, str]:
    if one.n_labels == 1:
        return "undetermined", ONE_LABEL
    return ("undetermined", SINGLETONS) if one.singleton_mass == 1 else ("ok", "")


def _about(label: LabelGroups, weighting: str, found: Information | None) -> dict:
    """Label, weighting, and how many rows and labels it counts."""
    counted = found or label.groups
    about = {"label": label.name, "order": label.order, "weighting": weighting, "n": counted.n}
    return about | {"n_labels": counted.n_labels, "singleton_mass": counted.singleton_mass}


def _optimality(
    numbers: dict[Key, Number], labels: list[LabelGroups], weighting: str, first: DrawResult
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
            rows += _ratio_rows(Number(above.value), Number(below.value), quantity="optimality_raw", **about)
            rows += _refused("ratio", quantity="optimality", message=NO_NULL, **about)
            continue
        raw = Number(above.value, null=above.null)
        rows += _ratio_rows(raw, Number(below.value), quantity="optimality_raw", null_divisor=below.null, **about)
        rest = below.value - (below.null if below.null_rows is None else np.maximum(below.null, below.null_rows))
        corrected = above_null(below)
        error = _error_of_rest(rest, corrected)
        if error is None:
            reason = "one anchor draw: nothing says how far complexity lies above its null; take two draws or more"
            rows += _refused("ratio", quantity="optimality", message=reason, **about)
            continue
        if rest.mean() <= 2 * error:
            reason = (
                f"complexity is not above its null: {bits(float(below.value.mean())):.4g} against "
                f"{bits(float(np.mean(below.value - rest))):.4g} bits, so there is nothing to divide by"
            )
            null = float(above.null.mean() / below.null.mean()) if below.null.any() else None
            rows += _refused("ratio", quantity="optimality", message=reason, null=null, **about)
            continue
        few = _few_documents(label.groups.halves) if weighting == "frequency" else NO_ENDS
        about |= {"quantity": "optimality", "message": few}
        rows += _ratio_rows(above_null(above), corrected, null_divisor=below.null, **about)
    return rows


def _error_of_rest(rest: np.ndarray, corrected: Number) -> float | None:
    """Of what complexity has above its null, over draws and, where known, over documents; None for one draw."""
    if len(rest) < 2:
        return None
    over_draws = rest.std(ddof=1) / np.sqrt(len(rest))
    if "value" not in corrected.influence or "null" not in corrected.influence:
        return float(over_draws)
    return float(np.hypot(over_draws, standard_error(corrected.influence["value"].mean(axis=0))))


def _rows(number: Number, bins: int, **about) -> list[Estimate]:
    """Information in bits, with its efficiency; draw by draw, then their mean."""
    to_bits = bits(1.0)
    rows = []
    for draw, pick in _picks(len(number.value)):
        rows.append(
            Estimate(
                value=to_bits * pick(number.value),
                unit="bits",
                draw=draw,
                efficiency=efficiency(pick(number.value), bins),
                null=_scaled(number.null, pick, to_bits),
                null_rows=_scaled(number.null_rows, pick, to_bits),
                ceiling=_scaled(number.ceiling, pick, to_bits),
                draw_std=_spread(to_bits * number.value, draw),
                **_beside({name: pick(values) for name, values in number.ends().items()}, number, draw, pick, to_bits),
                **about,
            )
        )
    return rows


def _beside(ends: Mapping[str, float], number: Number, draw: str, pick: Pick, factor: float) -> dict[str, Any]:
    """Point, ends, their standard errors, the outer interval, and on the mean row each document's influence."""
    influence = {name: factor * pick(of) for name, of in number.influence.items() if name in ends}
    found: dict[str, Any] = {name: factor * value for name, value in ends.items() if name != "value"}
    for name, of in influence.items():
        found["std_error" if name == "value" else f"{name}_error"] = standard_error(of)
    if "lower_error" in found and "upper_error" in found:
        width = quantile(len(influence["lower"]))
        found["interval"] = (
            found["lower"] - width * found["lower_error"],
            found["upper"] + width * found["upper_error"],
        )
    if influence and draw == "mean":
        found["influence"] = influence
    return found


def _ratio_rows(number: Number, divisor: Number, null_divisor: np.ndarray | None = None, **about) -> list[Estimate]:
    """Ratios to `divisor`, draw by draw; the mean row is the ratio of the means, not the mean of the ratios.

    The ends of a ratio are the ratios of opposite ends, given where the divisor's lower end is clearly above 0.
    """
    null_divisor = divisor.value if null_divisor is None else null_divisor
    rows = []
    for draw, pick in _picks(len(number.value)):
        below = pick(divisor.value)
        if below == 0:
            rows.append(Estimate(value=None, unit="ratio", draw=draw, **(about | _because())))
            continue
        ratio, ends = _ratio(number, divisor, pick)
        rows.append(
            Estimate(
                value=ends.pop("value"),
                unit="ratio",
                draw=draw,
                null=None if number.null is None else pick(number.null) / pick(null_divisor),
                null_rows=None if number.null_rows is None else pick(number.null_rows) / below,
                ceiling=None if number.ceiling is None else pick(number.ceiling) / below,
                draw_std=_spread(number.value / divisor.value, draw) if np.all(divisor.value) else None,
                **_beside(ends | {"value": pick(number.value) / below}, ratio, draw, lambda of: of, 1.0),
                **about,
            )
        )
    return rows


def _ratio(number: Number, divisor: Number, pick: Pick) -> tuple[Number, dict[str, float]]:
    """The ratio's value, point and ends, with the influence of each document by the delta method."""
    above, below = ({name: pick(values) for name, values in one.ends().items()} for one in (number, divisor))
    opposite = {"value": "value", "point": "point"}
    if above.get("lower") is not None and _clearly_positive(divisor, pick):
        opposite["lower"] = "upper" if above["lower"] >= 0 else "lower"
        opposite["upper"] = "lower" if above["upper"] >= 0 else "upper"
    ends: dict[str, float] = {}
    influence: dict[str, np.ndarray] = {}
    for name, under in opposite.items():
        if name not in above or under not in below or below[under] == 0:
            continue
        ends[name] = above[name] / below[under]
        if name in number.influence and under in divisor.influence:
            of_above, of_below = pick(number.influence[name]), pick(divisor.influence[under])
            influence[name] = (of_above - ends[name] * of_below) / below[under]
    return Number(number.value, influence=influence), ends


def _clearly_positive(divisor: Number, pick: Pick) -> bool:
    """Whether the lower limit of the divisor's lower end lies above 0; nearer to it a ratio's ends mean nothing."""
    if divisor.lower is None or "lower" not in divisor.influence:
        return False
    of_lower = pick(divisor.influence["lower"])
    return pick(divisor.lower) > quantile(len(of_lower)) * standard_error(of_lower)


def _refused(unit: str, message: str, **about) -> list[Estimate]:
    return [Estimate(value=None, unit=unit, status="refused", message=message, **about)]


def _because() -> dict:
    return {
        "status": "refused",
        "message": "the denominator is exactly 0 (a single label, or one direction for all rows)",
    }


def _picks(draws: int) -> Iterator[tuple[str, Pick]]:
    """Names and functions: each draw's own entry, then the mean over draws."""

    def of(values: np.ndarray, draw: int) -> Any:
        return values[draw] if values.ndim > 1 else float(values[draw])

    for draw in range(draws):
        yield str(draw), lambda values, draw=draw: of(values, draw)
    yield "mean", lambda values: values.mean(axis=0) if values.ndim > 1 else float(np.mean(values))


def _scaled(values: np.ndarray | None, pick: Pick, factor: float) -> float | None:
    return None if values is None else factor * pick(values)


def _spread(values: np.ndarray, draw: str) -> float | None:
    return float(values.std(ddof=1)) if draw == "mean" and len(values) > 1 else None
