"""Learning curves of anyone's making: at each evaluation a step, and a loss or an accuracy of training and test data.

Checked once, here: what comes out is one row an evaluation, steps that increase, finite numbers, losses ≥ 0 (any unit:
nats where nothing else is said), accuracies between 0 and 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

STEP = "step"
NAMES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")

Column = Float[np.ndarray, "evaluations"]


@dataclass(frozen=True)
class Curves:
    """Steps of the evaluations and the curves that are there, float64; a curve that is not there is None."""

    steps: Column
    train_loss: Column | None = None
    test_loss: Column | None = None
    train_accuracy: Column | None = None
    test_accuracy: Column | None = None

    def __post_init__(self) -> None:
        """ValueError, one sentence: steps or values that no transition can be dated from."""
        given = self.given()
        if not given:
            raise ValueError(f"there is nothing to date from: at least one of {', '.join(NAMES)} is needed.")
        _check_steps(self.steps)
        for name, values in given.items():
            _check_values(name, values, self.steps)

    @classmethod
    def of(cls, columns: Mapping[str, object]) -> "Curves":
        """From anything that numpy reads, by name: `step` and any of the four. KeyError: no `step`, or other names."""
        if STEP not in columns:
            raise KeyError(f"the curves lack the column {STEP!r}: the step of each evaluation is needed.")
        unknown = [name for name in columns if name != STEP and name not in NAMES]
        if unknown:
            raise KeyError(f"no curve is named {unknown[0]!r}; there are {', '.join(NAMES)}.")
        curves = {name: _numbers(name, values) for name, values in columns.items() if name != STEP}
        return cls(_numbers(STEP, columns[STEP]), **curves)

    def given(self) -> dict[str, Column]:
        """The curves that are there, by name."""
        return {name: values for name in NAMES if (values := getattr(self, name)) is not None}

    def __len__(self) -> int:
        return len(self.steps)


def step_text(step: float) -> str:
    """A step for a sentence: 1,200, or 2.5 where steps are epochs."""
    return f"{step:,.0f}" if float(step).is_integer() else f"{step:,.6g}"


def _numbers(name: str, values: object) -> Column:
    try:
        found = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"the column {name!r} must hold numbers alone, one for each evaluation.") from None
    if found.ndim != 1:
        raise ValueError(f"the column {name!r} must be one number an evaluation, got the shape {found.shape}.")
    return found


def _check_steps(steps: Column) -> None:
    if len(steps) < 2:
        raise ValueError(f"a transition lies between evaluations: at least two are needed, got {len(steps)}.")
    if (bad := np.flatnonzero(~np.isfinite(steps))).size:
        raise ValueError(f"the step of evaluation {bad[0] + 1} is missing: every row needs its step.")
    if steps[0] < 0:
        raise ValueError(f"steps count from 0, got {step_text(float(steps[0]))} at evaluation 1.")
    gaps = np.diff(steps)
    if (bad := np.flatnonzero(gaps < 0)).size:
        before, after = float(steps[bad[0]]), float(steps[bad[0] + 1])
        raise ValueError(
            f"steps must increase, but {step_text(after)} follows {step_text(before)} at evaluation {bad[0] + 2}: "
            "sort the rows by step, and give each run a file of its own."
        )
    if (bad := np.flatnonzero(gaps == 0)).size:
        raise ValueError(
            f"step {step_text(float(steps[bad[0]]))} is there twice (evaluations {bad[0] + 1} and {bad[0] + 2}): "
            "keep one row a step."
        )


def _check_values(name: str, values: Column, steps: Column) -> None:
    if len(values) != len(steps):
        raise ValueError(f"{name} has {len(values)} values, there are {len(steps)} steps: one value a step is needed.")
    if (bad := np.flatnonzero(~np.isfinite(values))).size:
        raise ValueError(
            f"{name} is missing or no finite number at step {step_text(float(steps[bad[0]]))} "
            f"({bad.size} of {len(values)} evaluations): leave such rows out, or cut before the run diverged."
        )
    low, high = float(values.min()), float(values.max())
    if name.endswith("loss") and low < 0:
        raise ValueError(
            f"{name} must not be negative, got {low:g} at step {step_text(float(steps[values.argmin()]))}."
        )
    if name.endswith("accuracy") and (low < 0 or high > 1):
        worst = high if high > 1 else low
        at = step_text(float(steps[values.argmax() if high > 1 else values.argmin()]))
        raise ValueError(
            f"{name} must lie between 0 and 1, got {worst:g} at step {at}: divide by 100 if it is in percent."
        )
