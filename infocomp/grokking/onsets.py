"""When a measure begins to move after memorization, and whether it moves before the test curve does.

Onset. A measure's values from the first checkpoint at or after memorization to the end of the run span its range; the
first of them is the level that it starts from. It has begun to move at the first checkpoint that lies further from that
level than `share` (a tenth) of the range, and than four standard deviations of its own noise, and from which on
`persistence` (3) checkpoints in a row, or all that are left where fewer are, lie so on the same side. It began before
that one; `low` is the last checkpoint at which it was still within half of that distance, so that a slow start widens
the interval. A measure whose range is within its noise does not move; if it begins at all, it is after the last
checkpoint, which is then its `low`. Its change is its largest departure, with its sign, from the level at memorization,
up to `until`: a measure that rises and comes back has moved.

Lead. What a measure leads, or not, is the test curve itself, dated by the same rule at the same checkpoints: the step
of generalization is that at which a curve reaches its end, and anything that only begins with it would "lead" that.
log2(onset / onset of the test loss), in doublings of the step, is taken in each seed and averaged. Its interval reaches
from the lower t limit over seeds of the earliest (the measure at its `low`, the test curve at its `high`) to the upper
one of the latest (the opposite), so that coarse checkpoints widen it, and two onsets between the same two checkpoints
are never told apart: the test curve does not lead itself. A `low` of step 0 counts as the smallest step above 0 that
any onset names. A seed whose test curve never moved is left out. One in which only the measure never moved counts as
moved at the last checkpoint, the earliest that it can; the interval then has no upper end, and nothing leads.
"leads" is claimed where the interval lies below 0 and the control, the same run without what makes it generalize, does
not change by a comparable amount: at most `comparable` (half) of the treated run's change in the same direction; a
control that moves the other way does not show what leads (weights that grow without decay, say). "lags" is claimed
where it lies above 0. Without a control or with one seed nothing is claimed.
The rules are ours: progress measures such as restricted loss (Nanda et al., arXiv 2301.05217) are read off by eye.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from infocomp.grokking.crossing import deviation_of, residuals, runs

LEADS, LAGS, WITH = "leads", "lags", "moves with it"
CONTROL_TOO, STILL = "moves in the control too", "does not move"
CONFIDENCE = 0.95
NOISES = 4.0  # standard deviations: both the checkpoint and the level that it left are noisy


@dataclass(frozen=True)
class Onset:
    """Step at which a measure was first seen to move, the interval (low, high] of its beginning, its largest change.

    `step` is None where it does not move, `reason` says why, and `low` is the last checkpoint, before which it did not.
    `change` is the largest signed departure from its level at memorization, in the measure's own unit; None where there
    is nothing after memorization.
    """

    step: float | None
    low: float | None = None
    high: float | None = None
    change: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Lead:
    """Mean over seeds of log2(onset / onset of the test curve), doublings, with its interval; negative is earlier.

    `claim` is None where nothing can be claimed, `reason` says why; without an upper end (a seed in which it never
    moved) `high` is None. `control_change` is the control's mean change over the treated runs' mean change: 0 is none,
    1 the same, below 0 the other way. `seeds` were treated and their test curve moved, in `moved` of them the measure
    moved too.
    """

    value: float | None
    low: float | None
    high: float | None
    claim: str | None
    control_change: float | None
    seeds: int
    moved: int
    reason: str = ""


def onset(
    steps: Float[np.ndarray, "checkpoints"],
    values: Float[np.ndarray, "checkpoints"],
    reference_step: float,
    share: float = 0.1,
    persistence: int = 3,
    until: float | None = None,
) -> Onset:
    """When `values` begin to move after `reference_step`, the step of memorization, as the module says.

    `until`: the last step that counts for the change; it does not bear on the onset. None: the end of the run.
    ValueError: steps that do not increase, not one finite value a step, share outside 0 to 1, persistence below 1.
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    _check(steps, values, share, persistence)
    start = int(np.searchsorted(steps, reference_step))
    after = values[start:]
    if len(after) < 2:
        return Onset(None, reason="fewer than two checkpoints after memorization")
    moved = after - after[0]
    counted = moved if until is None else moved[steps[start:] <= until]
    change = float(counted[np.argmax(np.abs(counted))]) if len(counted) else None
    last = float(steps[-1])
    span, noise = float(np.ptp(after)), _noise(after)
    limit = max(share * span, NOISES * noise)
    if span == 0.0 or limit >= span:
        return Onset(None, last, change=change, reason="its range after memorization is within its noise")
    lasting = min(persistence, len(after) - 1)
    begun = runs(moved > limit, lasting) | runs(moved < -limit, lasting)
    if not begun.any():
        return Onset(
            None, last, change=change, reason=f"it leaves its level for fewer than {lasting} checkpoints in a row"
        )
    first = int(np.argmax(begun))
    still = np.flatnonzero(np.abs(moved[:first]) <= limit / 2)
    ends = float(steps[start + still[-1]]), float(steps[start + first])
    return Onset(ends[1], *ends, change)


def leads(
    onsets: Sequence[Onset],
    test_onsets: Sequence[Onset],
    control_changes: Sequence[float | None],
    comparable: float = 0.5,
) -> Lead:
    """Lead of a measure over the test curve; one onset of each a treated seed, found at the same checkpoints.

    `control_changes` are the changes (`Onset.change`) in the control runs, of any number of seeds.
    ValueError: not one onset of the test curve for each of the measure, or one that is not above step 0.
    """
    if len(onsets) != len(test_onsets):
        raise ValueError(
            f"a lead needs one onset of the test curve for each of the measure, got {len(test_onsets)} and "
            f"{len(onsets)}: pair them by seed."
        )
    both = zip(onsets, test_onsets, strict=True)
    pairs = [(one, test) for one, test in both if test.step is not None and (one.low is not None or one.step)]
    if any(step is not None and step <= 0 for pair in pairs for step in (pair[0].step, pair[1].step)):
        raise ValueError("a lead is a ratio of steps above 0, got an onset at step 0: leave out that checkpoint.")
    control = _control_change([one.change for one, _ in pairs], control_changes)
    seeds, moved = len(pairs), sum(one.step is not None for one, _ in pairs)
    if not pairs:
        return Lead(None, None, None, None, control, 0, 0, "in no seed the test curve moved" if onsets else "no seeds")
    if 2 * moved <= seeds:
        return Lead(None, None, None, STILL, control, seeds, moved)
    value, low, high = _limits(pairs)
    if low is None:
        return Lead(value, None, None, None, control, seeds, moved, "one seed tells no interval")
    if control is None:
        return Lead(value, low, high, None, None, seeds, moved, "no control run to compare with")
    if control > comparable:
        claim = CONTROL_TOO
    elif high is not None and high < 0:
        claim = LEADS
    else:
        claim = LAGS if low > 0 else WITH
    still = seeds - moved
    reason = f"in {still} of {seeds} seeds it never moved, which counts as after the end" if still else ""
    return Lead(value, low, high, claim, control, seeds, moved, reason)


def _limits(pairs: Sequence[tuple[Onset, Onset]]) -> tuple[float, float | None, float | None]:
    """Mean lead in doublings and the ends of its interval: a t limit of the earliest, one of the latest."""
    named = [step for pair in pairs for one in pair for step in (one.low, one.step) if step]
    smallest = min(named)
    rows = []
    for one, test in pairs:
        measure = [one.low, one.step or one.low, one.high or one.low]  # never moved: low is the last checkpoint
        curve = [test.high, test.step, test.low]
        rows.append([np.log2(max(top or 0, smallest) / max(bottom or 0, smallest))
                     for top, bottom in zip(measure, curve, strict=True)])  # fmt: skip
    early, here, late = np.array(rows, float).T
    low, high = _interval(early)[1], _interval(late)[2]
    return float(here.mean()), low, high if all(one.step is not None for one, _ in pairs) else None


def _control_change(treated: Sequence[float | None], control: Sequence[float | None]) -> float | None:
    """Mean change of the control over that of the treated runs; None where one of them is not there, or is 0."""
    here, there = ([one for one in side if one is not None] for side in (treated, control))
    if not here or not there or np.mean(here) == 0:
        return None
    return float(np.mean(there) / np.mean(here))


def _interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean with its t interval over seeds, None for one."""
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, None, None
    half = float(values.std(ddof=1) / np.sqrt(count) * student.ppf(0.5 + CONFIDENCE / 2, count - 1))
    return mean, mean - half, mean + half


def _noise(values: np.ndarray) -> float:
    """Noise of a few checkpoints: the smaller of what a rising curve and a falling one leave."""
    return min(deviation_of(residuals(values)), deviation_of(residuals(-values)))


def _check(steps: np.ndarray, values: np.ndarray, share: float, persistence: int) -> None:
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(f"an onset needs one value for each step, got shapes {values.shape} and {steps.shape}.")
    if not np.isfinite(values).all() or not np.isfinite(steps).all():
        raise ValueError("an onset needs finite numbers: leave out checkpoints at which the measure is not defined.")
    if (np.diff(steps) <= 0).any():
        raise ValueError("an onset needs steps that increase: sort the checkpoints, one row each.")
    if not 0 < share < 1 or persistence < 1:
        raise ValueError(f"an onset needs 0 < share < 1 and persistence ≥ 1, got {share:g} and {persistence}.")
