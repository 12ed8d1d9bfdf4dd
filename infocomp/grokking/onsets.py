"""When a measure begins to move after memorization, and whether it moves before the test curve does.

Onset. A measure's values from the first checkpoint at or after memorization to the end of the run span its range; the
first of them is the level that it starts from. It has begun to move at the first checkpoint that lies further from that
level than `share` (a tenth) of the range, and than four standard deviations of its own noise, and from which on
`persistence` (3) checkpoints in a row, or all that are left where fewer are, lie so on the same side. It began before
that one; `low` is the last checkpoint at which it was still within half of that distance, so that a slow start widens
the interval. A measure whose range is within its noise does not move.

Lead. log2(onset / step of generalization), in doublings of the step, is averaged over seeds. Its interval reaches from
the lower t limit over seeds of the earliest date (the checkpoint before) to the upper one of the latest (the one that
showed the move), so that coarse checkpoints widen it. "leads" is claimed where it lies below 0 and the control, the
same run without what makes it generalize, does not change by a comparable amount between memorization and its end: at
most `comparable` (half) of the treated run's change in the same direction; a control that moves the other way does not
show what leads (weights that grow without decay, say). "lags" is claimed where it lies above 0. Without a control or
with one seed nothing is claimed.
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
    """Step at which a measure was first seen to move, the interval (low, high] of its beginning, and its whole change.

    `step` is None where it does not move, `reason` says why. `change` is its last level less the one at memorization,
    in the measure's own unit; None where there is nothing after memorization.
    """

    step: float | None
    low: float | None = None
    high: float | None = None
    change: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Lead:
    """Mean over seeds of log2(onset / generalization), doublings, with its interval; negative is earlier.

    `claim` is None where nothing can be claimed, `reason` says why. `control_change` is the control's mean change over
    the treated runs' mean change: 0 is none, 1 the same. `seeds` were treated, in `moved` of them the measure moved.
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
) -> Onset:
    """When `values` begin to move after `reference_step`, the step of memorization, as the module says.

    ValueError: steps that do not increase, not one finite value a step, share outside 0 to 1, persistence below 1.
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    _check(steps, values, share, persistence)
    start = int(np.searchsorted(steps, reference_step))
    after = values[start:]
    if len(after) < 2:
        return Onset(None, reason="fewer than two checkpoints after memorization")
    moved = after - after[0]
    change = float(np.median(after[-min(persistence, len(after) - 1) :]) - after[0])
    span, noise = float(np.ptp(after)), _noise(after)
    limit = max(share * span, NOISES * noise)
    if span == 0.0 or limit >= span:
        return Onset(None, change=change, reason="its range after memorization is within its noise")
    lasting = min(persistence, len(after) - 1)
    begun = runs(moved > limit, lasting) | runs(moved < -limit, lasting)
    if not begun.any():
        return Onset(None, change=change, reason=f"it leaves its level for fewer than {lasting} checkpoints in a row")
    first = int(np.argmax(begun))
    still = np.flatnonzero(np.abs(moved[:first]) <= limit / 2)
    ends = float(steps[start + still[-1]]), float(steps[start + first])
    return Onset(ends[1], *ends, change)


def leads(
    onsets: Sequence[Onset],
    generalization_steps: Sequence[float | None],
    control_changes: Sequence[float | None],
    comparable: float = 0.5,
) -> Lead:
    """Lead of a measure over the transition; one onset and one step of generalization (None: never) a treated seed.

    `control_changes` are the changes (`Onset.change`) in the control runs, of any number of seeds.
    ValueError: not one step of generalization for each onset, or one that is not above 0.
    """
    if len(onsets) != len(generalization_steps):
        raise ValueError(
            f"a lead needs one step of generalization for each onset, got {len(generalization_steps)} steps "
            f"and {len(onsets)} onsets."
        )
    reached = [step for step in generalization_steps if step is not None]
    if reached and min(reached) <= 0:
        raise ValueError(f"a lead is a ratio of steps above 0, got generalization at step {min(reached):g}.")
    pairs = [(one, step) for one, step in zip(onsets, generalization_steps, strict=True) if one.step and step]
    control = _control_change([one.change for one in onsets], control_changes)
    seeds, moved = len(onsets), sum(one.step is not None for one in onsets)
    if 2 * moved <= seeds:
        return Lead(None, None, None, STILL if seeds else None, control, seeds, moved, "" if seeds else "no seeds")
    if not pairs:
        return Lead(None, None, None, None, control, seeds, moved, "no seed generalized")
    late = np.array([np.log2(one.step / step) for one, step in pairs if one.step])
    early = np.array([np.log2(max(one.low or 0.0, 1e-9) / step) for one, step in pairs])
    (value, _, high), low = _interval(late), _interval(early)[1]
    if low is None or high is None:
        return Lead(value, None, None, None, control, seeds, moved, "one seed tells no interval")
    if control is None:
        return Lead(value, low, high, None, None, seeds, moved, "no control run to compare with")
    if control > comparable:
        claim = CONTROL_TOO
    elif high < 0:
        claim = LEADS
    elif low > 0:
        claim = LAGS
    else:
        claim = WITH
    return Lead(value, low, high, claim, control, seeds, moved)


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
