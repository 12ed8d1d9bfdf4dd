"""What every estimator gives back, and the three verbs that every estimator answers to.

update(rows, …) takes rows in any number of calls; merge(other) adds another estimator's rows to this one's;
estimate() turns them into numbers. Splitting the rows in any way gives the same counts exactly and the same values to
1e-9 (float64) or 1e-6 (float32).
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Estimate:
    """One number with what it takes to read it.

    `value`, `null`, `null_rows`, `ceiling` and `draw_std` are in `unit`; `interval` is a pair or None; `n` counts the
    rows; None means "not computed" or "does not exist", never zero. `draw` is "0", "1", … or "mean" over anchor draws.
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
    draw_std: float | None = None
    n_labels: int | None = None
    singleton_mass: float | None = None
    status: str = "ok"
    message: str = ""


@runtime_checkable
class Estimator(Protocol):
    """The three verbs."""

    def update(self, *args: Any, **kwargs: Any) -> None: ...

    def merge(self, other: Any) -> None: ...

    def estimate(self) -> list[Estimate]: ...
