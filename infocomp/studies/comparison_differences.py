"""Tuned minus base, number by number, with the excess over the controls: what changed beyond chance.

Models that read the same documents are compared document by document (paired): the standard error is that of the
difference of the influence values. That holds for two tokenizers too, as long as both kept equally many documents;
where a limit in tokens cut their texts at different ones, the difference is unpaired: √(se² + se²).

Informations count as changed only where lower end, point and upper end move the same way (`studies.changes`); every
other number by its t statistic. `changed` keeps the false-discovery rate of all differences of a run at 5 % (Benjamini
& Hochberg 1995; with the many positively dependent sites of a model it is conservative). `effect` is the difference in
units of its spread over documents (t/√documents, Cohen's d of paired differences): it does not grow with their number.

An excess is the difference of two numbers of one model on one data set, likewise paired: preference information over
that at the embedding, or over the same site of random weights, and a probe's accuracy over the bag of tokens.
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

DIFFERENCE = ", tuned minus base"
FALSE_DISCOVERIES = 0.05
ENDS = ("lower", "point", "upper")
EMBED, BAG_OF_TOKENS = "hook_embed", "control.bag_of_tokens"
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


def with_excesses(numbers: Mapping[Key, Weighed], control: Mapping[Key, Weighed] | None) -> dict[Key, Weighed]:
    """The numbers of one unit and, beside them, preference and probe excesses; `control`: those of random weights."""
    found = dict(numbers)
    for key, number in numbers.items():
        about = dict(zip(INFLUENCE_KEY, key, strict=True))
        if about["site"].startswith(NOT_COMPARED) or about["rows"] != "matched":
            continue
        against: list[tuple[str, str, Weighed | None]] = []
        if about["quantity"] == "preference_information":
            if about["site"] != EMBED:
                at_embed = numbers.get(tuple((about | {"site": EMBED}).values()))
                against.append(("preference_excess", "over hook_embed", at_embed))
            against.append(("preference_excess", "over random weights", (control or {}).get(key)))
        elif about["quantity"] == "probe_accuracy":
            of_tokens = numbers.get(tuple((about | {"site": BAG_OF_TOKENS}).values()))
            against.append(("probe_excess", "over bag of tokens", of_tokens))
        for quantity, label, other in against:
            excess = None if other is None else _excess(number, other, quantity, label)
            if excess is not None:
                found[tuple(str(excess.row[name]) for name in INFLUENCE_KEY)] = excess
    return found


def _excess(number: Weighed, other: Weighed, quantity: str, label: str) -> Weighed | None:
    """number − other with its interval; None where they were not weighed over the same groups."""
    name = "point" if number.has_ends and other.has_ends else "value"
    one, two = number.influence.get(name), other.influence.get(name)
    if one is None or two is None or len(one) != len(two) or len(one) < FEWEST_GROUPS:
        return None
    value, of = number.row[name] - other.row[name], one - two
    error = standard_error(of)
    width = quantile(len(of)) * error
    kept = ("model", "revision", "stage", "step", "tokens_seen", "corpus", "site", "layer", "rows", "estimator", "unit")
    kept += ("weighting", "seed", "draw", "n_tokens", "n_documents", "fingerprint", "context_length", "dtype")
    kept += ("order",)
    row = {column: number.row[column] for column in kept}
    row |= {"quantity": quantity, "label": label, "value": value, "std_error": error, "status": "ok"}
    row |= {"ci_low": value - width, "ci_high": value + width, "settings": number.settings}
    return Weighed(row, {"value": of})


# --- tuned minus base -------------------------------------------------------------------------------------------------


def differences(
    base: Mapping[Key, Weighed], tuned: Mapping[Key, Weighed], site_of_base: Mapping[str, str], note: str = ""
) -> list[Row]:
    """One row for each number that both have; `site_of_base` names the base's site that a tuned one stands against."""
    rows = []
    for key, number in tuned.items():
        about = dict(zip(INFLUENCE_KEY, key, strict=True))
        if about["site"].startswith(NOT_COMPARED):
            continue
        site = site_of_base.get(about["site"], about["site"])
        other = base.get(tuple((about | {"site": site}).values()))
        if other is not None:
            rows.append(_difference(other, number, site, note))
    return rows


def _difference(base: Weighed, tuned: Weighed, base_site: str, note: str) -> Row:
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
    paired = len(sizes) == 1 and base.row["n_documents"] == tuned.row["n_documents"]
    if not paired:
        settings["paired"] = False
        errors = [standard_error(one.influence[compared]) for one in (base, tuned)]
        error = float(np.hypot(errors[0], errors[1]))
        p = _two_sided(value, error, n)
    elif compared == "point":
        found = change(base.row, tuned.row, base.influence, tuned.influence)
        error, p = found["point_error"], found["p"]
        row |= {"lower": found["lower_change"], "lower_error": found["lower_error"]}
        row |= {"upper": found["upper_change"], "upper_error": found["upper_error"]}
    else:
        error = standard_error(tuned.influence["value"] - base.influence["value"])
        p = _two_sided(value, error, n)
    width = quantile(n) * error
    row |= {"value": value, "std_error": error, "ci_low": value - width, "ci_high": value + width, "status": "ok"}
    effect = value / error / np.sqrt(n) if error > 0 else None
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
            yield dict(number.row)
