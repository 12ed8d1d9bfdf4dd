"""`infocomp transition`: learning curves in, the date of the transition out, as lines for a person or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from infocomp.grokking.curve_files import read_curves
from infocomp.grokking.curves import NAMES, step_text
from infocomp.grokking.transition import Crossing, DelayRule, Thresholds, Transition, date_transition


def transition_and_tell(
    path: Path,
    columns: Sequence[str],
    thresholds: Sequence[str],
    persistence: int,
    by: str | None = None,
    factor: float | None = None,
    as_json: bool = False,
) -> Transition:
    """Date one file's transition and print it. `columns` and `thresholds` are NAME=… as typed; see `read_curves`."""
    named = dict(_parted("--column", "test_loss=val/loss", one) for one in columns)
    levels = {name: _number("--threshold", name, value) for name, value in
              (_parted("--threshold", "test_accuracy=0.95", one) for one in thresholds)}  # fmt: skip
    for name in levels:
        if name not in NAMES:
            raise KeyError(f"no curve is named {name!r} for --threshold; there are {', '.join(NAMES)}.")
    rule = DelayRule() if factor is None else DelayRule(factor=factor)
    found = date_transition(read_curves(path, named), Thresholds(**levels), persistence, rule, by)
    print(json.dumps(asdict(found), indent=1, allow_nan=False, ensure_ascii=False) if as_json else told(path, found))
    return found


def told(path: Path, found: Transition) -> str:
    """A few lines: what was read, both crossings, the delay, the verdict and how lasting it is."""
    steps = f"steps {step_text(found.first_step)} to {step_text(found.last_step)}"
    lines = [
        f"{path}  {found.evaluations} evaluations, {steps}, dated from {found.dated_from}",
        "",
        _line("", "step", "between", "midpoint of the change", "threshold"),
        _crossing_line("memorization", found.memorization),
        _crossing_line("generalization", found.generalization),
        _delay_line(found),
        "",
        f"  {found.verdict}: {found.sentence}",
    ]
    if found.fragility is not None:
        fell = f"{found.fragility:.3g} below its threshold"
        if found.fragility_unit == "doublings":
            fell = f"{found.fragility:.3g} doublings above its threshold"
        kept = f"its deepest point afterwards is {fell}, {_times(found.dips, 'dip')} that it came back from"
        lines.append(f"  lasting     {kept if found.fragility > 0 else 'never off its threshold again'}")
    if found.accuracy_at_memorization is not None:
        lines.append(f"  leak check  test accuracy at memorization {found.accuracy_at_memorization:.3f}")
    if found.generalization.open or found.memorization.open:
        lines.append("  note        * noise leaves the end of the interval open up to the last evaluation")
    return "\n".join(lines)


def _crossing_line(name: str, found: Crossing) -> str:
    """One crossing: step, interval, midpoint, threshold."""
    rule = "" if found.curve is None else _rule(found)
    if found.step is None or found.low is None or found.high is None:
        return _line(name, "–", found.reason.partition(":")[0], "–", rule)
    between = f"{step_text(found.low)} … {step_text(found.high)}{'*' if found.open else ''}"
    middle = "–"
    if found.change is None and found.reason:
        between, middle = found.reason, ""
    if found.change is not None:
        middle = f"{_rounded(found.change.step)} ({_rounded(found.change.low)} … {_rounded(found.change.high)})"
    return _line(name, step_text(found.step), between, middle, rule)


def _delay_line(found: Transition) -> str:
    """The delay between crossings, and between midpoints."""
    delay, change, middle = found.delay, found.change_delay, "–"
    if change.steps is not None and change.low is not None and change.high is not None:
        middle = f"{_rounded(change.steps)} ({_rounded(change.low)} … {_rounded(change.high)})"
    if delay.steps is None or delay.low is None or delay.high is None:
        if delay.at_least is None or delay.at_least <= 0:
            return _line("delay", "–", "", middle, "")
        times = delay.times_at_least
        late = "" if times is None else f", at least {np.floor(10 * times) / 10:.1f} times as late"
        return _line("delay", "–", f"at least {step_text(delay.at_least)}{late}", "", "")
    return _line("delay", step_text(delay.steps), f"{step_text(delay.low)} … {step_text(delay.high)}", middle, "")


def _line(name: str, step: str, between: str, middle: str, rule: str) -> str:
    """One line of the table; without a midpoint there is room for more words."""
    if not middle:
        return f"  {name:<15}{step:>10}  {between:<51} {rule}".rstrip()
    return f"  {name:<15}{step:>10}  {between:<22} {middle:<28} {rule}".rstrip()


def _rule(found: Crossing) -> str:
    """What counted as reached."""
    sign = "≤" if str(found.curve).endswith("loss") else "≥"
    return f"{found.curve} {sign} {found.threshold:g}, {_times(found.persistence, 'evaluation')} in a row"


def _rounded(step: float) -> str:
    """A step that was interpolated."""
    return f"{step:,.0f}" if abs(step) >= 100 else f"{step:,.3g}"


def _times(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _parted(option: str, example: str, text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (sign and name and value):
        raise ValueError(f"{option} must be NAME=VALUE, as {example}, got {text!r}.")
    return name, value


def _number(option: str, name: str, value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{option} {name} must be a number, got {value!r}.") from None
