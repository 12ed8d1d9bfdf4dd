"""What follows from all runs of a grokking study: delays and regimes over seeds, and which measures moved first.

A measure leads only where it begins to move before the test loss begins to fall (by the same rule at the same states,
counted from its peak after memorization: until then it rises, which is no generalization), and where the control
without weight decay, which never generalizes, does not show the same movement over the same steps (see
`grokking.onsets`). Against the step at which generalization is complete almost everything would lead, even the test
loss: that number stands in rows of its own, `onset_before_generalization`, and claims nothing. Some twenty measures are
looked at, each at 95 %; nothing is corrected for their number.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from infocomp.grokking.onsets import Onset, leads, onset
from infocomp.studies.grokking_measures import AT_STATE
from infocomp.studies.grokking_runs import Row

JOINED_VERSION = 3  # raised where the same rows give other numbers than before
FOLLOWED = {
    "loss",
    "accuracy",
    "restricted_loss",
    "excluded_loss",
    "fourier_gini",
    "weight_norm",
    "effective_rank",
    "spectrum_entropy",
    "description_bits",
    "linear_mapping_number",
    "synergy",
    "redundancy",
    "learning_coefficient",
    "context_complexity",
    "expressivity",
}
REGIMES = {
    "never memorizes": "under capacity",
    "never generalizes": "memorizes only",
    "together": "immediate",
}
REFERENCE = f"loss · logits · {AT_STATE} · test"


@dataclass
class _Run:
    """One run as its rows tell it: dates (by accuracy) and each measure as {step: value}."""

    about: Row
    settings: Row
    memorized: float | None = None
    generalized: float | None = None
    delay: float | None = None
    at_least: float | None = None
    verdict: str = ""
    dated: bool = False
    last_accuracy: tuple[int, float] = (-1, 0.0)  # step and test accuracy of the last evaluation
    measures: dict[str, dict[int, float]] = field(default_factory=dict)

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a measure."""
        found = sorted(self.measures.get(name, {}).items())
        return np.array([step for step, _ in found], float), np.array([value for _, value in found], float)


def joined_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows over seeds, and the onset of each measure in each run, from the rows of runs and states."""
    runs = _runs(rows)
    found: list[Row] = []
    cells: dict[tuple[str, str], list[_Run]] = {}
    for run in runs:
        cells.setdefault((run.about["model"], run.about["corpus"]), []).append(run)
    for cell in cells.values():
        found += _delay_rows(cell)
        controls = {} if cell[0].settings["control"] else _controls(cell, runs)
        found += _lead_rows(cell, controls)
    return found


def measure_name(row: Row) -> str:
    """A measure's own name: quantity, and what else tells it from others of its kind."""
    parts = [row["quantity"], row["site"], row["label"] if row["estimator"] != "soft" else "", row["rows"]]
    return " · ".join(part for part in parts if part)


def _runs(rows: Sequence[Row]) -> list[_Run]:
    runs: dict[tuple, _Run] = {}
    for row in rows:
        settings = json.loads(row["settings"]) if row["settings"] else {}
        if "group" not in settings:
            continue
        key = (row["model"], row["corpus"], row["seed"])
        about = {name: row[name] for name in ("model", "corpus", "seed")}
        run = runs.setdefault(key, _Run(about, settings))
        if row["label"] == "accuracy" and row["estimator"] == "threshold":
            if row["quantity"] == "memorization_step":
                run.memorized = row["value"]
            elif row["quantity"] == "generalization_step":
                run.generalized = row["value"]
            elif row["quantity"] == "delay":
                run.delay, run.at_least = row["value"], row["lower"]
                run.verdict, run.dated = settings["verdict"], settings["dated"]
        elif row["quantity"] == "accuracy" and row["rows"] == "test" and not row["label"]:
            run.last_accuracy = max(run.last_accuracy, (row["step"], row["value"]))
        elif _followed(row):
            run.measures.setdefault(measure_name(row), {})[row["step"]] = row["value"]
    return list(runs.values())


def _followed(row: Row) -> bool:
    if row["status"] != "ok" or row["quantity"] not in FOLLOWED or not row["revision"]:
        return False
    if row["quantity"] in ("effective_rank", "spectrum_entropy"):
        return row["label"] == "mean"
    if row["quantity"] in ("loss", "accuracy"):
        return row["label"] == AT_STATE and row["rows"] == "test"
    return row["quantity"] != "expressivity" or row["label"] == "answer"


def _controls(cell: Sequence[_Run], runs: Sequence[_Run]) -> Mapping[int, _Run]:
    """The control of each of these runs, by seed."""
    group = cell[0].settings["group"]
    return {run.about["seed"]: run for run in runs if run.settings["control"] and run.settings["group"] == group}


def regime_of(run: _Run) -> str:
    """What became of one run."""
    return "grokking" if run.dated else REGIMES.get(run.verdict, run.verdict)


def _delay_rows(cell: Sequence[_Run]) -> Iterator[Row]:
    """The mean delay with its t interval; where a run did not generalize, a lower bound of the mean and no interval."""
    regimes = Counter(regime_of(run) for run in cell)
    delays = [run.delay for run in cell if run.delay is not None]
    at_end = float(np.mean([run.last_accuracy[1] for run in cell]))
    about = _about(cell) | {"regime": regimes.most_common(1)[0][0], "regimes": dict(sorted(regimes.items()))}
    about |= {"dated": sum(run.dated for run in cell), "generalized": len(delays), "test_accuracy_at_end": at_end}
    row: Row = _shared(cell) | {"quantity": "delay", "label": "over seeds", "unit": "steps", "settings": about}
    row |= {"estimator": "threshold"}
    if len(delays) == len(cell):
        yield row | {"value": float(np.mean(delays))} | _t_interval(delays)
        return
    least = [run.at_least if run.delay is None else run.delay for run in cell]
    known = [value for value in least if value is not None]
    told = f"{len(delays)} of {len(cell)} generalized; test accuracy {at_end:.3f} at the end"
    bound = float(np.mean(known)) if len(known) == len(cell) else None
    yield row | {"lower": bound, "status": "undetermined", "message": told}


def _lead_rows(cell: Sequence[_Run], controls: Mapping[int, _Run]) -> Iterator[Row]:
    """onset_step in each run, and the lead over the test loss's own onset in the runs that grokked."""
    reference = {run.about["seed"]: _onset(run, run, REFERENCE) for run in cell}
    for name in sorted({name for run in cell for name in run.measures}):
        onsets: dict[int, Onset] = {}
        for run in cell:
            found = _onset(run, run, name)
            if found is None:
                continue
            onsets[run.about["seed"]] = found
            row: Row = run.about | {"quantity": "onset_step", "label": name, "unit": "steps", "draw": "mean"}
            row |= {"settings": run.settings | {"change": found.change}, "estimator": "onset"}
            if found.step is None:
                yield row | {"status": "undetermined", "message": found.reason or "does not move after memorization"}
            else:
                yield row | {"value": found.step, "ci_low": found.low, "ci_high": found.high}
        dated = [run for run in cell if run.dated and run.generalized and run.about["seed"] in onsets]
        paired = [(onsets[run.about["seed"]], reference[run.about["seed"]], run) for run in dated]
        paired = [(own, test, run) for own, test, run in paired if test is not None]
        if not paired or not controls:
            continue
        changes = [_change(controls.get(run.about["seed"]), run, name) for _, _, run in paired]
        lead = leads([own for own, _, _ in paired], [test for _, test, _ in paired if test is not None], changes)
        claim = "reference" if name == REFERENCE else lead.claim or "nothing is claimed"
        about = _about(cell) | {"claim": claim, "control_change": lead.control_change, "dated": len(paired)}
        about |= {"reference": "test loss"}
        row = _shared(cell) | {"label": name, "unit": "doublings", "settings": about, "estimator": "onset"}
        told = row | {"quantity": "lead", "message": lead.reason or claim}
        if lead.value is None:
            yield told | {"status": "undetermined"}
        else:
            yield told | {"value": lead.value, "ci_low": lead.low, "ci_high": lead.high}
        before = [np.log2(own.step / run.generalized) for own, _, run in paired if own.step and run.generalized]
        if before:
            about = {"quantity": "onset_before_generalization", "value": float(np.mean(before))}
            yield row | about | _t_interval(before)


def _onset(run: _Run, reference: _Run, name: str) -> Onset | None:
    """Of a measure in one run, counted from the memorization of `reference`; of the test loss from its peak then."""
    steps, values = run.series(name)
    if len(steps) < 3 or reference.memorized is None:
        return None
    begin = reference.memorized
    after = np.flatnonzero(steps >= begin)
    if name == REFERENCE and len(after):
        begin = float(steps[after[np.argmax(values[after])]])
    return onset(steps, values, begin)


def _change(control: _Run | None, run: _Run, name: str) -> float | None:
    """How far the same measure moves in the control over the same steps."""
    found = None if control is None else _onset(control, run, name)
    return None if found is None else found.change


def _shared(cell: Sequence[_Run]) -> Row:
    return {"model": cell[0].about["model"], "corpus": cell[0].about["corpus"], "draw": "mean"}


def _about(cell: Sequence[_Run]) -> Row:
    return cell[0].settings | {"seeds": sorted(run.about["seed"] for run in cell)}


def _t_interval(values: Sequence[float]) -> Row:
    """95 % over seeds, Student's t; {} with one."""
    if len(values) < 2:
        return {}
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * error
    mean = float(np.mean(values))
    return {"std_error": error, "ci_low": mean - reach, "ci_high": mean + reach}
