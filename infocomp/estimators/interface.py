"""What every estimator gives back, and the three verbs that every estimator answers to.

update(rows, …) takes rows in any number of calls; merge(other) adds another estimator's rows to this one's;
estimate() turns them into numbers. Splitting the rows in any way gives the same counts exactly and the same values to
1e-9 (float64) or 1e-6 (float32).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """One number with what it takes to read it.

    Numbers are in `unit`; None means "not computed" or "does not exist", never zero. `value` is the plug-in, `point`
    the estimate corrected for its bias, `lower` and `upper` ends of known direction; each has its standard error over
    documents (`std_error`, `point_error`, …). `interval` covers the true value at 95 %: from the lower limit of the
    lower end to the upper limit of the upper end. `draw_std` is the spread over anchor draws; `draw` is "0", "1", … or
    "mean" over them. `n` counts the rows. `influence` holds the influence of each document on "value", "lower",
    "upper" and "point", where those are known (the mean row alone).
    """

    quantity: str
    value: float | None
    unit: str
    n: int
    interval: tuple[float, float] | None = None
    label: str = ""
    order: int | None = None
    weighting: str = ""
    draw: str = "mean"
    efficiency: float | None = None
    null: float | None = None
    null_rows: float | None = None
    ceiling: float | None = None
    std_error: float | None = None
    point: float | None = None
    point_error: float | None = None
    lower: float | None = None
    lower_error: float | None = None
    upper: float | None = None
    upper_error: float | None = None
    draw_std: float | None = None
    n_labels: int | None = None
    singleton_mass: float | None = None
    status: str = "ok"
    message: str = ""
    influence: Mapping[str, np.ndarray] | None = field(default=None, repr=False, compare=False)


@runtime_checkable
class Estimator(Protocol):
    """The three verbs."""

    def update(self, *args: Any, **kwargs: Any) -> None: ...

    def merge(self, other: Any) -> None: ...

    def estimate(self) -> list[Estimate]: ...
