"""What follows from all units of a comparison together: excess over controls, tuned minus base, phases over steps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from infocomp.execution.runner import UnitResult
from infocomp.execution.store import Store
from infocomp.geometry.phases import FEWEST_CHECKPOINTS, phases
from infocomp.studies.comparison_differences import (
    OVER_RANDOM,
    Row,
    Weighed,
    control_means,
    control_rows,
    differences,
    mark_changed,
    matched_sites,
    new_rows,
    weighed,
    with_excesses,
)

Key = tuple[str, ...]


def joined_rows(
    store: Store,
    units: Sequence[tuple[str, str, str]],
    base: str,
    control: str,
    layers: Mapping[str, int],
    alike: Sequence[str],
    notes: Mapping[str, str],
) -> UnitResult:
    """Rows from the parts of `units` (name, model, corpus); `layers` counts the blocks of each model.

    Random weights have the base's shape and tokenizer: they are a control of the models that are `alike` only.
    """
    of_base: dict[str, dict[Key, Weighed]] = {}
    draws: dict[str, list[dict[Key, Weighed]]] = {}
    of_tuned: list[tuple[str, str, dict[Key, Weighed]]] = []
    for unit, model, corpus in units:
        numbers = weighed(store, unit)
        if model == control:
            draws.setdefault(corpus, []).append(numbers)
        elif model == base:
            of_base[corpus] = numbers
        else:
            of_tuned.append((model, corpus, numbers))
    of_control = {corpus: control_means(of) for corpus, of in draws.items()}
    rows: list[Row] = [row for control in of_control.values() for row in control_rows(control)]
    judged: list[Row] = []
    with_base: dict[str, dict[Key, Weighed]] = {}
    for corpus, numbers in of_base.items():
        with_base[corpus] = with_excesses(numbers, of_control.get(corpus, {}))
        rows += new_rows(with_base[corpus], numbers)
    for model, corpus, numbers in of_tuned:
        complete = with_excesses(numbers, of_control.get(corpus, {}) if model in alike else {})
        if model not in alike and of_control.get(corpus) and numbers:
            rows.append(_without_control(next(iter(numbers.values())).row))
        rows += new_rows(complete, numbers)
        if corpus in with_base:
            named = [sorted({key[0] for key in numbers}) for numbers in (with_base[corpus], complete)]
            sites = matched_sites(named[0], named[1], layers[base], layers[model])
            judged += differences(with_base[corpus], complete, sites, notes.get(model, ""))
    mark_changed(judged)
    tuned = [numbers for _, _, numbers in of_tuned]
    return UnitResult([*rows, *judged, *phase_rows([*of_base.values(), *tuned])])


def _without_control(first: Mapping[str, Any]) -> Row:
    """Says why a model of another shape or tokenizer has no excess over random weights."""
    kept = ("model", "revision", "stage", "step", "corpus", "seed", "settings")
    message = "its shape or tokenizer is not the base's, whose random weights are the control: no excess over them"
    row = {name: first[name] for name in kept} | {"quantity": "preference_excess", "label": OVER_RANDOM}
    return row | {"estimator": "soft", "rows": "matched", "draw": "mean", "status": "refused", "message": message}


def phase_rows(units: Iterable[Mapping[Key, Weighed]]) -> list[Row]:
    """Phases of each model, data set and site that has five steps or more, from RankMe and α-ReQ of the sample."""
    series: dict[tuple[str, str, str], dict[int, dict[str, Weighed]]] = {}
    for numbers in units:
        for number in numbers.values():
            row = number.row
            if row["quantity"] not in ("rankme_covariance", "alpha_req") or row["rows"] != "sample":
                continue
            if row["step"] is None or row["estimator"] != "spectrum":
                continue
            key = (row["model"], row["corpus"], row["site"])
            series.setdefault(key, {}).setdefault(int(row["step"]), {})[row["quantity"]] = number
    rows: list[Row] = []
    for by_step in series.values():
        both = {step: found for step, found in sorted(by_step.items()) if len(found) == 2}
        if len(both) >= FEWEST_CHECKPOINTS:
            rows += _phases(both)
    return rows


def _phases(by_step: Mapping[int, Mapping[str, Weighed]]) -> list[Row]:
    """Rows of one series: each boundary with its interval, or one row that says that there is none."""
    steps = list(by_step)
    values, errors = (
        np.array([[of[name].row[column] for of in by_step.values()] for name in ("rankme_covariance", "alpha_req")])
        for column in ("value", "std_error")
    )
    errors[0] /= values[0]  # of the logarithm, which is what is fitted
    found = phases(steps, values[0], values[1], errors if (errors > 0).all() else None)
    first = next(iter(by_step.values()))["rankme_covariance"]
    kept = ("model", "corpus", "site", "layer", "seed", "draw", "n_tokens", "n_documents", "context_length", "dtype")
    common = {name: first.row[name] for name in kept} | {
        "estimator": "change points",
        "rows": "sample",
        "unit": "steps",
    }
    segments = [[segment.name, segment.start, segment.end] for segment in found.segments]
    settings = first.settings | {"segments": segments}
    message = found.message or None
    if not found.boundaries:
        names = " then ".join(segment.name for segment in found.segments)
        reason = f"no change of phase over steps {steps[0]:,} to {steps[-1]:,}: {names}"
        about = {"quantity": "phase_boundary", "label": "none", "status": "undetermined", "message": reason}
        return [common | about | {"settings": settings}]
    labels = [boundary.label for boundary in found.boundaries]
    return [
        common
        | {"quantity": "phase_boundary", "label": label if label not in labels[:number] else f"{label} ({number + 1})"}
        | {"value": boundary.step, "ci_low": boundary.low, "ci_high": boundary.high, "status": "ok", "message": message}
        | {"settings": settings | {"from": boundary.before, "to": boundary.after}}
        for number, (label, boundary) in enumerate(zip(labels, found.boundaries, strict=True))
    ]
