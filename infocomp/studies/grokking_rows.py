"""Rows of one grokking run: its curves, when it memorized, when it generalized, and how long lay between.

Losses in bits per answer, steps as steps. Thresholds of losses are nats, as the literature gives them.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from infocomp.grokking.curves import Curves
from infocomp.grokking.transition import Crossing, Delay, Thresholds, Transition, date_transition
from infocomp.studies.grokking_runs import GrokkingRun, Row
from infocomp.studies.grokking_settings import DatingSettings
from infocomp.training.state import write_atomically
from infocomp.units import BITS_PER_NAT

LOG_SPACED, EVENLY = 150, 60  # evaluations of a curve that go into the table; a file of the run's holds them all
CURVE_COLUMNS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def curves_of(rows: Sequence[Row]) -> pd.DataFrame:
    """The evaluations of a training: step, losses in nats, accuracies."""
    kept = [{name: row[name] for name in ("step", *CURVE_COLUMNS)} for row in rows if "test_accuracy" in row]
    return pd.DataFrame(kept)


def write_curves(curves: pd.DataFrame, path: Path) -> None:
    """As `infocomp transition` reads them."""
    buffer = io.StringIO()
    curves.to_csv(buffer, index=False)
    write_atomically(path, buffer.getvalue().encode())


def dated(curves: pd.DataFrame, dating: DatingSettings, by: str) -> Transition:
    """The transition, dated from accuracies or from losses."""
    thresholds = Thresholds(**dating.model_dump(exclude={"persistence"}))
    found = Curves.of({str(name): curves[name].to_numpy() for name in curves})
    return date_transition(found, thresholds, min(dating.persistence, len(curves)), by=by)


def run_rows(run: GrokkingRun, curves: pd.DataFrame, dating: DatingSettings, seconds: float) -> list[Row]:
    """Every row of a run that needs no state of it."""
    shared: Row = run.describe() | {"draw": "mean", "in_training": "known", "dtype": "float32", "seconds": seconds}
    rows = [shared | {"settings": run.settings()} | row for row in _curve_rows(curves)]
    for by in ("accuracy", "loss"):
        found = dated(curves, dating, by)
        about = run.settings() | _how(found, dating)
        rows += [shared | {"settings": about, "label": by} | row for row in _transition_rows(found, by)]
    return rows


def _curve_rows(curves: pd.DataFrame) -> Iterator[Row]:
    last = len(curves) - 1
    spread = np.geomspace(1, last + 1, LOG_SPACED) - 1
    chosen = np.unique(np.concatenate([spread, np.linspace(0, last, EVENLY)]).round().astype(int))
    for row in curves.iloc[chosen].to_dict("records"):
        step = int(row["step"])
        for side in ("train", "test"):
            about = {"revision": f"step{step}", "step": step, "site": "logits", "rows": side}
            loss, accuracy = row[f"{side}_loss"], row[f"{side}_accuracy"]
            bits = {"quantity": "loss", "unit": "bits", "value": loss * BITS_PER_NAT, "estimator": "code_length"}
            yield about | bits
            yield about | {"quantity": "accuracy", "unit": "ratio", "value": accuracy, "estimator": "count"}


def _how(found: Transition, dating: DatingSettings) -> Row:
    """How it was dated, for the column `settings`."""
    about = {"verdict": found.verdict, "sentence": found.sentence, "dated": found.dated, "every": found.every}
    about |= {"persistence": found.persistence, "delay_factor": found.rule.factor, "halfway": found.rule.halfway}
    thresholds = {f"{name}_threshold": value for name, value in dating.model_dump(exclude={"persistence"}).items()}
    return about | thresholds | {"dips": found.dips}


def _transition_rows(found: Transition, by: str) -> Iterator[Row]:
    for quantity, crossing in (
        ("memorization_step", found.memorization),
        ("generalization_step", found.generalization),
    ):
        yield {"quantity": quantity, "unit": "steps", "estimator": "threshold"} | _crossing(crossing)
        change = crossing.change
        if change is not None:
            about = {"quantity": quantity, "unit": "steps", "estimator": "change_point"}
            yield about | {"value": change.step, "ci_low": change.low, "ci_high": change.high}
    yield {"quantity": "delay", "unit": "steps", "estimator": "threshold"} | _delay(found.delay, found)
    if found.change_delay.steps is not None:
        about = {"quantity": "delay", "unit": "steps", "estimator": "change_point"}
        yield about | _delay(found.change_delay, found)
    if found.fragility is not None:
        yield {"quantity": "fragility", "unit": found.fragility_unit, "value": found.fragility}
    if by == "accuracy" and found.accuracy_at_memorization is not None:
        value = found.accuracy_at_memorization
        yield {"quantity": "accuracy_at_memorization", "rows": "test", "unit": "ratio", "value": value}


def _crossing(found: Crossing) -> Row:
    if found.step is None:
        last = {"lower": found.censored_at}
        return last | {"status": "undetermined", "message": found.reason}
    message = "may be later: the noise leaves it open to the last evaluation" if found.open else found.reason or None
    return {"value": found.step, "ci_low": found.low, "ci_high": found.high, "message": message}


def _delay(found: Delay, transition: Transition) -> Row:
    if found.steps is None:
        return {"lower": found.at_least, "status": "undetermined", "message": transition.sentence}
    return {"value": found.steps, "ci_low": found.low, "ci_high": found.high, "message": transition.sentence}
