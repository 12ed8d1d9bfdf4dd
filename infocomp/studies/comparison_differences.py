"""Tuned minus base, number by number, with the excess over the controls: what changed beyond chance.

Models that read the same documents are compared document by document (paired): the standard error is that of the
difference of the influence values. Where tokenizers differ, numbers of all documents are still paired as long as both
kept equally many; numbers of the sample, whose rows are other characters then, and texts that a limit in tokens cut at
different documents are not: √(se² + se²).

Informations count as changed only where lower end, point and upper end move the same way (`studies.changes`); every
other number by its t statistic. `changed` keeps the false-discovery rate of all differences of a run at 5 % (Benjamini
& Hochberg 1995; with the many positively dependent sites of a model it is conservative). A number that is a function
of another one (`SAME_TEST`) is not judged twice, and what differs by rounding alone does not differ. `effect` is the
difference in units of its spread over documents (t/√documents, Cohen's d of paired differences).

Where documents repeat each other or labels are sparse the point's own error is too small (docs/tables/
comparison_nulls.csv): the interval of an expressivity's change is that of the largest error of its point and ends,
that of an optimality's says so in its message. `changed` is not touched by it: 4 % at most were called where nothing
had changed, before the correction for many.

An excess is the difference of two numbers of one model on one data set, likewise paired: preference information over
that at the embedding, or over the same site of random weights (the mean of several draws, whose spread is part of the
error), and a probe's accuracy over the bag of tokens or over random weights. The excess over random weights and over
the bag of tokens subtracts the same from base and tuned: their differences would be those of the numbers themselves.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from infocomp.estimators.numbers import quantile, standard_error
from infocomp.execution.part import INFLUENCE_KEY, read_part
from infocomp.execution.store import Store
from infocomp.studies.changes import FEWEST_GROUPS, change
from infocomp.studies.measurement import INFLUENCE_GROUPS

DIFFERENCE = ", tuned minus base"
FALSE_DISCOVERIES = 0.05
ENDS = ("lower", "point", "upper")
EMBED, BAG_OF_TOKENS = "hook_embed", "control.bag_of_tokens"
OVER_EMBED, OVER_RANDOM, OVER_BAG = "over hook_embed", "over random weights", "over bag of tokens"
NARROW = (
    "the interval of an optimality's change held 0 in 77 to 93 % where nothing had changed; `changed` in 96 % or more"
)
SAME_TEST = {"matrix_entropy": "rankme_covariance or participation_ratio", "info_nce_loss": "info_nce"}
TINY = 1e-3  # the scale under which ROUNDING is taken of this and not of the numbers: 1e-12 in all
ROUNDING = 1e-9  # of the larger number: below, a difference is none
NOT_COMPARED = ("control.",)  # sites whose numbers are the text's, not a model's
Row = dict[str, Any]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Weighed:
    """A number of one model: its row of the table, and what each group of documents weighs in value, point and ends."""

    row: Mapping[str, Any]
    influence: Mapping[str, np.ndarray]

    @property
    def has_ends(self) -> bool:
        """Whether lower end, point and upper end are known with their influence."""
        return all(self.row.get(name) is not None and name in self.influence for name in ENDS)

    @property
    def settings(self) -> Row:
        return json.loads(self.row["settings"]) if isinstance(self.row["settings"], str) else dict(self.row["settings"])


def weighed(store: Store, unit: str) -> dict[Key, Weighed]:
    """The numbers of a unit that have an influence, by (site, rows, estimator, quantity, label, weighting, corpus)."""
    part = read_part(store.part_path(unit), unit)
    expected = part.beside.get("influence")
    if part.state != "done" or not expected:
        return {}
    frame = store.beside(unit, "influence", expected).to_pandas()
    influences = {tuple(map(str, key)): group for key, group in _by_key(frame)}
    found = {}
    for row in part.rows.to_pylist():
        key = tuple(str(row[name]) for name in INFLUENCE_KEY)
        if row["draw"] != "mean" or row["status"] != "ok" or row["value"] is None or key not in influences:
            continue
        group = influences[key]
        columns = {name: group[name].to_numpy(np.float64) for name in ("value", *ENDS)}
        found[key] = Weighed(row, {name: of for name, of in columns.items() if not np.isnan(of).any()})
    return found


def _by_key(frame: pd.DataFrame) -> Iterable[tuple[tuple, pd.DataFrame]]:
    return frame.groupby(list(INFLUENCE_KEY), sort=False)  # pyright: ignore[reportReturnType]


# --- excess over the controls -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A number of random weights, the mean over draws; `error` is the standard error of that mean over draws."""

    number: Weighed
    error: float
    draws: int


def control_means(draws: Sequence[Mapping[Key, Weighed]]) -> dict[Key, Control]:
    """Each number of random weights as the mean over its draws; values, ends and influences alike."""
    found = {}
    for key, first in (draws[0] if draws else {}).items():
        same = [one[key] for one in draws if key in one]
        if len(same) < len(draws):
            continue
        names = [name for name in ("value", *ENDS) if all(one.row[name] is not None for one in same)]
        row = dict(first.row) | {name: float(np.mean([one.row[name] for one in same])) for name in names}
        for name in ("null", "ceiling"):
            if all(one.row[name] is not None for one in same):
                row[name] = float(np.mean([one.row[name] for one in same]))
        kept = [name for name in names if all(name in one.influence for one in same)]
        influence = {name: np.mean([one.influence[name] for one in same], axis=0) for name in kept}
        compared = "point" if "point" in kept else "value"
        values = [one.row[compared] for one in same]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row |= {"draw_std": spread, "revision": f"mean of {len(same)} draws"}
        found[key] = Control(Weighed(row, influence), spread / np.sqrt(len(same)), len(same))
    return found


def control_rows(controls: Mapping[Key, Control]) -> Iterator[Row]:
    """A row a number: the mean over draws, with an interval over pairs and draws together."""
    for control in controls.values():
        number = control.number
        name = "point" if number.has_ends else "value"
        error = float(np.hypot(standard_error(number.influence[name]), control.error))
        width = quantile(len(number.influence[name])) * error
        row = dict(number.row) | {"std_error": error, "ci_low": number.row[name] - width}
        row |= {"ci_high": number.row[name] + width, "fingerprint": None, "unit_name": None, "date": None}
        yield row | {"settings": number.settings | {"role": "control", "draws": control.draws}}


def with_excesses(numbers: Mapping[Key, Weighed], control: Mapping[Key, Control]) -> dict[Key, Weighed]:
    """The numbers of one unit and, beside them, preference and probe excesses; `control`: those of random weights."""
    found = dict(numbers)
    for key, number in numbers.items():
        about = dict(zip(INFLUENCE_KEY, key, strict=True))
        if about["site"].startswith(NOT_COMPARED) or about["rows"] != "matched":
            continue
        quantity = {"preference_information": "preference_excess", "probe_accuracy": "probe_excess"}.get(
            about["quantity"]
        )
        if quantity is None:
            continue
        against: list[tuple[str, Weighed | None, float]] = []
        if quantity == "probe_excess":
            against.append((OVER_BAG, numbers.get(tuple((about | {"site": BAG_OF_TOKENS}).values())), 0.0))
        elif about["site"] != EMBED:
            against.append((OVER_EMBED, numbers.get(tuple((about | {"site": EMBED}).values())), 0.0))
        random = control.get(key)
        if random is not None:
            against.append((OVER_RANDOM, random.number, random.error))
        for label, other, error in against:
            excess = None if other is None else _excess(number, other, quantity, label, error)
            if excess is not None:
                found[tuple(str(excess.row[name]) for name in INFLUENCE_KEY)] = excess
    return found


def _excess(number: Weighed, other: Weighed, quantity: str, label: str, draws_error: float) -> Weighed | None:
    """number − other with its interval; None where they were not weighed over the same groups.

    Lower, point and upper hold the differences of each end, by which a change of the excess is judged; none of them
    is an end of the excess itself, and the table does not get them.
    """
    names = ["value", *ENDS] if number.has_ends and other.has_ends else ["value"]
    sizes = {len(one.influence[name]) for one in (number, other) for name in names if name in one.influence}
    if any(name not in one.influence for one in (number, other) for name in names):
        return None
    if len(sizes) != 1 or min(sizes) < FEWEST_GROUPS:
        return None
    influence = {name: number.influence[name] - other.influence[name] for name in names}
    ends: Row = {name: number.row[name] - other.row[name] for name in names}
    compared = "point" if "point" in names else "value"
    error = float(np.hypot(standard_error(influence[compared]), draws_error))
    width = quantile(min(sizes)) * error
    kept = ("model", "revision", "stage", "step", "tokens_seen", "corpus", "site", "layer", "rows", "estimator", "unit")
    kept += ("weighting", "seed", "draw", "n_tokens", "n_documents", "fingerprint", "context_length", "dtype")
    kept += ("order",)
    row = {column: number.row[column] for column in kept} | dict.fromkeys(ENDS) | ends
    row |= {"quantity": quantity, "label": label, "value": ends[compared], "std_error": error, "status": "ok"}
    row |= {"ci_low": ends[compared] - width, "ci_high": ends[compared] + width, "settings": number.settings}
    return Weighed(row, influence | {"value": influence[compared]})


# --- tuned minus base -------------------------------------------------------------------------------------------------


def differences(
    base: Mapping[Key, Weighed], tuned: Mapping[Key, Weighed], site_of_base: Mapping[str, str], note: str = ""
) -> list[Row]:
    """One row for each number that both have; `site_of_base` names the base's site that a tuned one stands against.

    A `note` says that tokenizers differ, and stands in every row.
    """
    same_tokens = not note
    rows = []
    for key, number in tuned.items():
        about = dict(zip(INFLUENCE_KEY, key, strict=True))
        if about["site"].startswith(NOT_COMPARED) or about["label"] in (OVER_RANDOM, OVER_BAG):
            continue
        site = site_of_base.get(about["site"], about["site"])
        other = base.get(tuple((about | {"site": site}).values()))
        if other is not None:
            rows.append(_difference(other, number, site, note, same_tokens or about["rows"] != "sample"))
    return rows


def _difference(base: Weighed, tuned: Weighed, base_site: str, note: str, same_rows: bool) -> Row:
    kept = ("model", "revision", "stage", "step", "tokens_seen", "corpus", "site", "layer", "quantity", "label", "rows")
    kept += ("weighting", "draw", "seed", "unit", "n_tokens", "n_documents", "order", "context_length", "dtype")
    row = {column: tuned.row[column] for column in kept}
    row["estimator"] = tuned.row["estimator"] + DIFFERENCE
    settings = tuned.settings | {"base_site": base_site, "paired": True, "note": note}
    sizes = {len(of) for one in (base, tuned) for of in one.influence.values()}
    compared = "point" if tuned.has_ends and base.has_ends else "value"
    value = tuned.row[compared] - base.row[compared]
    settings |= {"base_value": base.row[compared], "tuned_value": tuned.row[compared]}
    if min(sizes) < FEWEST_GROUPS:
        row |= {"value": value, "status": "ok", "settings": settings}
        return row | {"message": f"no interval: {min(sizes)} documents, at least {FEWEST_GROUPS} are needed"}
    n = min(sizes)
    paired = same_rows and len(sizes) == 1 and base.row["n_documents"] == tuned.row["n_documents"]
    if not paired:
        settings["paired"] = False
        errors = [standard_error(one.influence[compared]) for one in (base, tuned)]
        error = float(np.hypot(errors[0], errors[1]))
        p = _two_sided(value, error, n)
    elif compared == "point":
        found = change(base.row, tuned.row, base.influence, tuned.influence)
        error, p = found["point_error"], found["p"]
        if row["quantity"] == "expressivity":
            error = max(found["lower_error"], error, found["upper_error"])
        if row["quantity"] == "optimality":
            row["message"] = NARROW
        row |= {"lower": found["lower_change"], "lower_error": found["lower_error"]}
        row |= {"upper": found["upper_change"], "upper_error": found["upper_error"]}
    else:
        error = standard_error(tuned.influence["value"] - base.influence["value"])
        p = _two_sided(value, error, n)
    width = quantile(n) * error
    row |= {"value": value, "std_error": error, "ci_low": value - width, "ci_high": value + width, "status": "ok"}
    if abs(value) <= ROUNDING * max(abs(base.row[compared]), abs(tuned.row[compared]), TINY):
        p, error = 1.0, max(error, ROUNDING)
    documents = n if n < INFLUENCE_GROUPS else max(n, int(row["n_documents"] or n))
    effect = value / error / np.sqrt(documents) if error > 0 else None
    if row["quantity"] == "preference_information" and row["rows"] == "all":
        return row | {"settings": settings | {"effect": effect, "note": "judged on matched rows"}}
    if row["quantity"] in SAME_TEST:
        return row | {"settings": settings | {"effect": effect, "note": f"judged as {SAME_TEST[row['quantity']]}"}}
    return row | {"settings": settings | {"p": p, "effect": effect}}


def _two_sided(value: float, error: float, groups: int) -> float:
    return 2 * float(student.sf(abs(value) / error, groups - 1)) if error > 0 else float(value == 0)


def mark_changed(rows: Sequence[Row]) -> None:
    """`changed` in the settings of each difference: at a false-discovery rate of 5 % over all of them, in place."""
    judged = [row for row in rows if row["settings"].get("p") is not None]
    if not judged:
        return
    p = false_discovery_control([row["settings"]["p"] for row in judged])
    for row, adjusted in zip(judged, p, strict=True):
        row["settings"]["q"] = float(adjusted)
        row["settings"]["changed"] = bool(adjusted <= FALSE_DISCOVERIES and row["value"] != 0)


def matched_sites(base: Sequence[str], tuned: Sequence[str], base_layers: int, tuned_layers: int) -> dict[str, str]:
    """The base's site for each of the tuned model's: the same name, and for blocks the same relative depth.

    Sites without a counterpart are left out.
    """
    found = {}
    for site in tuned:
        name = _at_depth(site, base_layers, tuned_layers)
        if name in base:
            found[site] = name
    return found


def _at_depth(site: str, base_layers: int, tuned_layers: int) -> str:
    parts = site.split(".")
    if parts[0] != "blocks" or base_layers == tuned_layers:
        return site
    last = max(tuned_layers - 1, 1)
    parts[1] = str(round(int(parts[1]) * (base_layers - 1) / last))
    return ".".join(parts)


def new_rows(numbers: Mapping[Key, Weighed], known: Mapping[Key, Weighed]) -> Iterator[Row]:
    """The rows of `numbers` that are not among the `known`: the excesses."""
    for key, number in numbers.items():
        if key not in known:
            yield dict(number.row) | dict.fromkeys(ENDS)
