"""What was dated, in sentences under the curves: one a seed where they are few, ranges over seeds where they are many.

Steps as steps, intervals in brackets; rows are those of `grokking_curves_rows`.
"""

import textwrap

import numpy as np
import pandas as pd

from infocomp.plotting.grokking_selection import DELAY, FALL, GENERALIZATION, LEAK, MEMORIZATION, THRESHOLD
from infocomp.plotting.grokking_style import FLOOR, joined

FLOOR_TEXT = f"$10^{{{round(np.log10(FLOOR))}}}$"
SAID_SEEDS = 3  # so many seeds have a sentence each


def footnote(points: pd.DataFrame, wide: int = 118) -> str:
    """What was dated, in words: a sentence a seed where they are few, ranges over seeds where they are many.

    Where a loss is cut at the floor of its axis, that is said last.
    """
    said = []
    for control, own in points.groupby("control"):
        seeds = sorted(own.loc[own["series"] == "date", "seed"].unique())
        name = "control, seed" if control else "seed"
        told = [(seed, _verdict(own[own["seed"] == seed])) for seed in seeds]
        if len(seeds) > SAID_SEEDS or (control and len({text for _, text in told}) == 1):
            said.append(_summary(own, f"{name}{'s' * (len(seeds) > 1)} {joined(seeds, '{:g}'.format)}"))
            continue
        said += [f"{name} {seed:g}: {_sentence(own[own['seed'] == seed])}" for seed in seeds]
    if cut(points):
        said.append(f"Losses below {FLOOR_TEXT} bits are drawn at {FLOOR_TEXT}, the floor of the axis.")
    return "\n".join(line for text in said for line in textwrap.wrap(text[0].upper() + text[1:], wide))


def cut(points: pd.DataFrame) -> bool:
    """Whether a loss of the curves lies below the floor of its axis."""
    return bool(((points["series"] == "curve") & (points["quantity"] == "loss") & (points["value"] < FLOOR)).any())


def _found(own: pd.DataFrame, quantity: str) -> pd.DataFrame:
    how = (own["series"] == "number") | ((own["series"] == "date") & (own["estimator"] == THRESHOLD))
    return own[how & (own["quantity"] == quantity)]


def _verdict(own: pd.DataFrame) -> str:
    delay = _found(own, DELAY)
    return str(delay["verdict"].iloc[0]) if len(delay) else ""


def _sentence(own: pd.DataFrame) -> str:
    parts = []
    for quantity, verb in ((MEMORIZATION, "memorized"), (GENERALIZATION, "generalized"), (DELAY, "delay")):
        for _, date in _found(own, quantity).iterrows():
            if np.isfinite(date["value"]):
                at = f"{verb} {date['value']:,.0f} steps" if quantity == DELAY else f"{verb} at {date['value']:,.0f}"
                parts.append(f"{at} [{date['low']:,.0f}, {date['high']:,.0f}]")
            elif quantity != DELAY:
                parts.append(f"not {verb}: {date['message']}")
    parts += [f"test accuracy at memorization {value:.2g}" for value in _found(own, LEAK)["value"]]
    for _, fall in _found(own, FALL).iterrows():
        parts.append(f"deepest fall afterwards {fall['value']:.2g}{' bits' if fall['unit'] == 'bits' else ''}")
    return "; ".join([*([_verdict(own)] if _verdict(own) else []), *parts]) + "."


def _summary(own: pd.DataFrame, name: str) -> str:
    """The seeds together: how many reached an event, from the first to the last of them."""
    parts = list(dict.fromkeys(_verdict(mine) for _, mine in own.groupby("seed") if _verdict(mine)))
    for quantity, verb in ((MEMORIZATION, "memorized"), (GENERALIZATION, "generalized"), (DELAY, "delay")):
        found = _found(own, quantity)
        known = found["value"].dropna()
        if len(known):
            low, high = f"{known.min():,.0f}", f"{known.max():,.0f}"
            share = f" ({len(known)} of {len(found)})" if len(known) < len(found) else ""
            unit = " steps" if quantity == DELAY else ""
            at = f"{verb} " if quantity == DELAY else f"{verb} at "
            parts.append(f"{at}{low if low == high else f'{low} to {high}'}{unit}{share}")
        elif len(found) and quantity != DELAY:
            parts.append(f"not {verb}: {found['message'].iloc[0]}")
    for quantity, words in ((LEAK, "test accuracy at memorization"), (FALL, "deepest fall afterwards")):
        values = _found(own, quantity)["value"]
        if len(values):
            parts.append(f"{words} up to {values.max():.2g}")
    return f"{name}: {'; '.join(parts)}."
