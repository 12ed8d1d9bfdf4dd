"""What a dated transition is made of: thresholds and rules as they were set, crossings, delay, verdict; in steps."""

from dataclasses import dataclass

from infocomp.grokking.change_point import ChangePoint


@dataclass(frozen=True)
class Thresholds:
    """What counts as reached: losses at most, in their own unit, accuracies at least. ValueError: out of range."""

    train_loss: float = 0.01
    test_loss: float = 0.01
    train_accuracy: float = 0.99
    test_accuracy: float = 0.99

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 if name.endswith("loss") else 0 < value <= 1):
                rule = "above 0" if name.endswith("loss") else "above 0 and at most 1"
                raise ValueError(f"the threshold of {name} must be {rule}, got {value:g}.")


@dataclass(frozen=True)
class DelayRule:
    """What is called delayed, and what a fall is: see `transition`. ValueError: out of range.

    A curve has fallen back where `persistence` evaluations in a row lie more than `fall_accuracy` below the threshold
    of an accuracy, or above `fall_factor` times that of a loss, and beyond four standard deviations of its noise.
    """

    factor: float = 2.0
    halfway: float = 0.5
    fall_accuracy: float = 0.05
    fall_factor: float = 2.0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("factor", self.factor >= 1, "1 or more"),
            ("halfway", 0 < self.halfway <= 1, "above 0 and at most 1"),
            ("fall_accuracy", self.fall_accuracy >= 0, "0 or more"),
            ("fall_factor", self.fall_factor >= 1, "1 or more"),
        ):
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"the {name} of a delay must be {rule}, got {value:g}: leave it out for the default.")


@dataclass(frozen=True)
class Crossing:
    """Step at which `curve` reached its threshold for good, with the interval that it lies in; None, and why, if never.

    The curve was surely short of the threshold at `low` (0 if it held from the first evaluation), surely past it at
    `high`; where the noise leaves that open up to the last evaluation, `high` is that one and `open` is true. Not
    reached: `censored_at` is the last evaluation that does not hold the threshold, and the crossing lies beyond it, if
    anywhere. `change` is the midpoint of the rise to the threshold, None where the curve began beyond it. Without the
    curve itself, `curve` is None.
    """

    curve: str | None
    threshold: float | None
    persistence: int
    step: float | None = None
    low: float | None = None
    high: float | None = None
    open: bool = False
    censored_at: float | None = None
    reason: str = ""
    change: ChangePoint | None = None


@dataclass(frozen=True)
class Delay:
    """Steps from memorization to generalization with their interval; None where the latter never came.

    Then they are more than `at_least`, and generalization is more than `times_at_least` times as late.

    The interval reaches from the earliest generalization less the latest memorization to the opposite.
    """

    steps: float | None
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    times_at_least: float | None = None


@dataclass(frozen=True)
class Transition:
    """All that the curves say of one run: both crossings, the delay, a verdict and its sentence.

    `dated` is whether this is a delayed transition: verdict "grokking", or "collapses" after it.
    fragility: the deepest fall after generalization: accuracy below its threshold (unit "ratio"), or the highest loss
    over its threshold in doublings (unit "doublings"); 0 if it never fell, None if it never generalized. `dips` counts
    the falls that it came back from. accuracy_at_memorization: of the test data, None without that curve; far above
    chance, it says that test answers leak, or that both curves fall together. `every`: median steps between two of the
    evaluations.
    """

    memorization: Crossing
    generalization: Crossing
    delay: Delay
    change_delay: Delay
    verdict: str
    sentence: str
    dated: bool
    dated_from: str
    fragility: float | None
    fragility_unit: str | None
    dips: int
    accuracy_at_memorization: float | None
    progress_at_memorization: float | None
    evaluations: int
    first_step: float
    last_step: float
    every: float
    persistence: int
    rule: DelayRule
