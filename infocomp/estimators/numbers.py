"""A number over the anchor draws with everything that stands beside it, and what document weights do to it.

An information carries its nulls, ceiling, both ends and point estimate, each once per draw, and for each of them the
influence of every document; ratios of two such numbers follow by the delta method. Nats in, nats out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.point import point_estimate
from infocomp.estimators.reduction import Information

Draws = Float[np.ndarray, "draws"]
Influence = Float[np.ndarray, "draws documents"]
ENDS = ("value", "point", "lower", "upper")


@dataclass(frozen=True)
class Number:
    """`value`, `point`, `lower` and `upper` over the draws, with the influence of each document on those known."""

    value: Draws
    null: Draws | None = None
    null_rows: Draws | None = None
    ceiling: Draws | None = None
    point: Draws | None = None
    lower: Draws | None = None
    upper: Draws | None = None
    influence: Mapping[str, Influence] = field(default_factory=dict)

    def ends(self) -> dict[str, Draws]:
        """Those of value, point, lower and upper that are known."""
        return {name: values for name in ENDS if (values := getattr(self, name)) is not None}


def marginal_number(
    value: Draws, upper: Draws, of_value: Sequence[np.ndarray], of_upper: Sequence[np.ndarray], most: Draws
) -> Number:
    """An entropy or the context's information: the plug-in is the lower end, the held-out one the upper.

    The plug-in lacks χ/2N, the held-out one, learnt on half the rows, has χ/N too much: the point estimate is
    (2 · lower + upper)/3.
    """
    influence = {"value": np.array(of_value), "lower": np.array(of_value), "upper": np.array(of_upper)}
    influence["point"] = (2 * influence["lower"] + influence["upper"]) / 3
    return Number(
        value, ceiling=most, lower=value, upper=upper, point=(2 * value + upper) / 3, influence=_enough(influence)
    )


def information_number(known: Sequence[Information], paired: Sequence[Information | None]) -> Number:
    """What each draw gave for one label set, with its point estimate; `paired` is the same across documents."""
    shuffled = [one.value for one in paired if one is not None]
    nulls = shuffled if len(shuffled) == len(known) else None
    brackets = [one.bracket for one in known if one.bracket is not None]
    complete = len(brackets) == len(known)
    points: list[float] = []
    collected: dict[str, list[np.ndarray]] = {}
    for draw, one in enumerate(known):
        null = nulls[draw] if nulls else one.null_rows
        found = (
            None
            if null is None or one.gap is None
            else point_estimate(one.value, null, one.context, one.gap, one.counts, one.weights)
        )
        if found is not None:
            points.append(found.value)
        if one.bracket is None or one.null_influence is None or one.context_influence is None:
            continue
        for name, of in one.bracket.influence.items():
            collected.setdefault(name, []).append(of)
        if null is None:
            continue
        dependence = 1.0 if found is None else found.dependence
        relative = one.context_influence / one.context if one.context > 0 else 0 * one.context_influence
        of_null = one.null_influence(dependence) + null * relative
        collected.setdefault("null", []).append(of_null)
        if found is not None:
            of_value, of_context = one.bracket.influence["value"], one.context_influence
            of_point = found.by_plug_in * of_value + found.by_null * of_null + found.by_context * of_context
            collected.setdefault("point", []).append(of_point)
    every = {name: np.array(of) for name, of in collected.items() if len(of) == len(known)}
    return Number(
        value=np.array([one.value for one in known]),
        null=np.array(nulls) if nulls else None,
        null_rows=np.array([one.null_rows for one in known], dtype=float),
        ceiling=np.array([one.ceiling for one in known]),
        point=np.array(points) if len(points) == len(known) else None,
        lower=np.array([bracket.lower for bracket in brackets]) if complete else None,
        upper=np.array([bracket.upper for bracket in brackets]) if complete else None,
        influence=_enough(every),
    )


def above_null(number: Number) -> Number:
    """The plug-in less its null; everything else stays."""
    assert number.null is not None
    influence = dict(number.influence)
    if "null" in influence:
        influence["value"] = influence["value"] - influence["null"]
    return Number(
        number.value - number.null,
        number.null,
        number.null_rows,
        number.ceiling,
        number.point,
        number.lower,
        number.upper,
        influence,
    )


def standard_error(influence: Float[np.ndarray, "documents"]) -> float:
    """Over documents: √(D/(D − 1) · Σ_d influence_d²)."""
    documents = len(influence)
    return float(np.sqrt(documents / (documents - 1) * np.sum(influence**2)))


@cache
def quantile(documents: int, level: float = 0.95) -> float:
    """Student's t for a two-sided interval at `level` with one degree of freedom less than documents."""
    return float(student.ppf((1 + level) / 2, documents - 1))


def _enough(influence: dict[str, Influence]) -> dict[str, Influence]:
    """The influences, or none of them where the documents are too few for a standard error."""
    few = any(of.shape[1] < FEWEST_DOCUMENTS for of in influence.values())
    return {} if few else influence
