"""The bottleneck curves of a text's last and next token, as rows: what any encoder of the token alone can reach. Bits.

Two families, because the joint of a finite text is mostly bias: of the plug-in joint of the measured rows, under which
every point lies that was sent through its own token channel; and of encoders learnt on one half of the documents and
scored on the other. With |T| < |X| a curve is achievable, not a bound, and its rows say so.

Rows have no model and no site: estimator "bottleneck |T|" ("bottleneck |T| repeated" for points solved again with ten
times the steps), rows "plug_in" or "held_out", draw the number of the point.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from infocomp.bottleneck import Curve, Joint, cross_fit, repeat_points, solve
from infocomp.bottleneck.iteration import COARSE
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import BottleneckSettings

Row = dict[str, Any]
FIRST_BETA, LAST_BETA = 1.2, 60.0


def bound_rows(prepared: PreparedCorpus, settings: BottleneckSettings, device: torch.device | str = "cpu") -> list[Row]:
    """Every curve asked for, solved on `device`.

    ValueError: the tokens themselves are not among the labels (order 1 is not measured).
    """
    if prepared.token_joint is None:
        raise ValueError(
            f"the bottleneck of {prepared.name!r} needs the token labels; add 1 to estimator.orders, "
            f"or leave out 'bottleneck'."
        )
    x, y = (torch.from_numpy(ids).to(device) for ids in (prepared.token_joint.x, prepared.token_joint.y))
    joint, betas = prepared.token_joint.joint.to(device), np.geomspace(FIRST_BETA, LAST_BETA, settings.points)
    about = {"corpus": prepared.name, "label": "token", "order": 1, "unit": "bits", "n_tokens": len(x)}
    about |= {"n_documents": prepared.corpus.n_documents}
    rows = [{**about, **_information(joint.mutual_information, "plug_in")}]
    halves = prepared.halves if settings.held_out else None
    for clusters in dict.fromkeys(min(wanted, joint.sizes[0]) for wanted in settings.clusters):
        curve = solve(joint, betas, clusters, restarts=settings.restarts)
        rows += [{**about, **row} for row in _curve_rows(curve, joint)]
        if settings.repeats and clusters == min(max(settings.clusters), joint.sizes[0]):
            rows += [{**about, **row} for row in _repeated_rows(joint, curve, settings)]
        if halves is None:
            continue
        in_second = halves.code.to(device) > 0
        first, second = (x[~in_second], y[~in_second]), (x[in_second], y[in_second])
        crossed = cross_fit(first, second, joint.sizes, betas, clusters, restarts=settings.restarts)
        if clusters == min(settings.clusters[0], joint.sizes[0]):
            rows.append({**about, **_information(crossed.information, "held_out")})
        pairs = zip(*(curve.status for curve in crossed.learnt), strict=True)
        status = ["converged" if set(pair) == {"converged"} else "not converged" for pair in pairs]
        for point, beta in enumerate(betas):
            numbers = {"complexity": crossed.complexity[point], "relevance": crossed.relevance[point]}
            how = {"beta": float(beta), "kind": "achievable"}
            rows += [{**about, **row} for row in _point(clusters, "held_out", point, numbers, how, status[point])]
    return rows


def _information(value: float, kind: str) -> Row:
    return {
        "quantity": "mutual_information",
        "estimator": "bottleneck",
        "rows": kind,
        "draw": "mean",
        "value": value,
    }


def _curve_rows(curve: Curve, joint: Joint) -> Iterator[Row]:
    for point, beta in enumerate(curve.betas):
        numbers = {"complexity": curve.complexity[point], "relevance": curve.relevance[point]}
        how = {
            "beta": float(beta),
            "kind": curve.kind,
            "iterations": int(curve.iterations[point]),
            "last_change": float(curve.last_change[point]),
            "restart_spread": float(curve.restart_spread[point]),
            "sizes": list(joint.sizes),
        }
        yield from _point(curve.clusters, "plug_in", point, numbers, how, curve.status[point])


def _repeated_rows(joint: Joint, curve: Curve, settings: BottleneckSettings) -> Iterator[Row]:
    """Points spread over the curve, from other starts with ten times the steps."""
    which = np.linspace(0, len(curve.betas) - 1, settings.repeats + 2).round().astype(int)[1:-1].tolist()
    again = repeat_points(joint, curve, list(dict.fromkeys(which)))
    for place, beta in enumerate(again.betas):
        for start in range(1, again.complexity.shape[1]):
            numbers = {"complexity": again.complexity[place, start], "relevance": again.relevance[place, start]}
            how = {"beta": float(beta), "kind": curve.kind, "iterations": again.steps[place]}
            name, number = f"{curve.clusters} repeated", len(again.betas) * (start - 1) + place
            moved = float(again.last_change[place, start])
            status = "converged" if moved < COARSE.tolerance else "not converged"
            yield from _point(name, "plug_in", number, numbers, how | {"last_change": moved}, status)


def _point(
    clusters: int | str, kind: str, number: int, numbers: Mapping[str, float], how: Mapping[str, Any], status: str
) -> Iterator[Row]:
    """A row for I(X; T) and one for I(T; Y)."""
    for name, value in numbers.items():
        row: Row = {"quantity": f"bottleneck_{name}", "estimator": f"bottleneck {clusters}", "rows": kind}
        row |= {"draw": str(number), "value": float(value), "settings": dict(how)}
        if status != "converged":
            row |= {"status": "undetermined", "message": "not converged: the Lagrangian still moved at the last step"}
        yield row
