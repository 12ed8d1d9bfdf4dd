"""Tables of the study of grokking made by hand, with curves of the usual shape, for the figures' tests.

A run memorizes, waits and generalizes; its control without weight decay memorizes and stays there. Everything follows
three smooth switches of the step: `stored` at memorization, `circuit` before generalization, `general` with it.
"""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from infocomp.execution.table import check_unique, row, rows_to_table, to_frame

MODULUS, LAST = 59, 2000
ENTROPY = math.log2(MODULUS)
MEMORIZED, GENERALIZED = (60, 70, 70), (430, 820, 610)
ODDS = math.log(99)  # of an accuracy of 0.99
CORPUS = f"addition mod {MODULUS}, 40 %"
GROUP = f"transformer 1x128 · {CORPUS}"
SITES = ("hook_embed", "blocks.0.hook_resid_mid", "blocks.0.mlp.hook_post", "blocks.0.hook_resid_post", "logits")
EVALUATIONS = (0, *sorted({max(1, round(10 ** (0.055 * place))) for place in range(60)}), LAST)
CHECKPOINTS = (0, 1, 3, 10, 25, 50, 80, 120, 170, 240, 340, 480, 680, 960, 1400, LAST)
REGIMES = ("under capacity", "immediate", "grokking", "memorizes only", "collapses", "unclear")
TEST_LOSS, TEST_ACCURACY = (f"{name} · logits · at the state · test" for name in ("loss", "accuracy"))
# measure → (its onset / the step of generalization, the claim)
LEADS = {
    TEST_LOSS: (0.55, "moves with it"),
    TEST_ACCURACY: (0.75, "lags"),
    "restricted_loss · all": (0.35, "leads"),
    "restricted_loss · test": (0.4, "leads"),
    "excluded_loss · train": (0.38, "leads"),
    "fourier_gini · hook_embed": (0.45, "leads"),
    "fourier_gini · unembed": (0.5, "moves with it"),
    "fourier_gini · neuron_to_logits": (0.55, "moves with it"),
    "key_frequencies": (0.5, "nothing is claimed"),
    "weight_norm": (0.95, "lags"),
    "effective_rank · mean": (0.9, "lags"),
    "spectrum_entropy · mean": (0.92, "lags"),
    "description_bits · ε 1 nat, sweep": (1.3, "lags"),
    "linear_mapping_number · 100 points": (0.6, "moves in the control too"),
    "synergy · blocks.0.mlp.hook_post": (0.3, "moves in the control too"),
    "redundancy · blocks.0.mlp.hook_post": (1.25, "lags"),
    "learning_coefficient": (None, "does not move"),
    "context_complexity · blocks.0.hook_resid_post · test": (1.0, "lags"),
    "expressivity · blocks.0.hook_resid_post · test": (0.8, "lags"),
}


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    table = rows_to_table(list(rows))
    check_unique(table)
    return to_frame(table)


def switch(step: float, middle: float, steepness: float) -> float:
    """From 0 to 1 about `middle`, in the logarithm of the step."""
    return 1 / (1 + (middle / step) ** steepness) if step > 0 else 0.0


def switches(step: float, seed: int, control: bool) -> tuple[float, float, float]:
    """How far stored, the circuit formed, generalized: each 0 to 1."""
    stored = switch(step, 0.6 * MEMORIZED[seed % 3], 4)
    end = GENERALIZED[seed % 3] * (1 + 0.03 * (seed // 3))
    return (stored, 0.0, 0.0) if control else (stored, switch(step, 0.55 * end, 3.5), switch(step, 0.72 * end, 9))


def about(control: bool, **more: Any) -> dict[str, Any]:
    known = {"operation": "addition", "modulus": MODULUS, "train_fraction": 0.4, "width": 128, "layers": 1, "heads": 4}
    known |= {"mlp": 256, "weight_decay": 0 if control else 2, "learning_rate": 3e-3, "parameters": 147_072}
    return known | {"steps": LAST, "control": control, "group": GROUP} | more


def common(control: bool, corpus: str = CORPUS, model: str = "transformer 1x128", **more: Any) -> dict[str, Any]:
    named = f"{model} wd {0 if control else 2}"
    return {"model": named, "corpus": corpus, "draw": "mean", "settings": about(control, **more)}


# --- curves and dates -------------------------------------------------------------------------------------------------


def accuracies(step: float, seed: int, control: bool) -> tuple[float, float]:
    """Of train and test rows; 0.99 exactly at memorization and generalization."""
    start = 1 / MODULUS

    def risen(at: float, steepness: float) -> float:
        share = switch(step, at * math.exp(-ODDS / steepness), steepness)
        return share if share > 0.9 else start + (1 - start / 0.9) * share

    leak = 0.07 * switches(step, seed, control)[0]
    train = risen(MEMORIZED[seed % 3], 5)
    return train, leak + start if control else max(leak + start, risen(GENERALIZED[seed % 3], 6))


def losses(step: float, seed: int, control: bool) -> tuple[float, float]:
    """Bits of train and test rows: test losses rise while rows are stored, and fall with generalization."""
    stored, circuit, general = switches(step, seed, control)
    train = ENTROPY * (1 - stored) ** 2 + 2e-4 / (1 + step / 100)
    worse = (18 if control else 7) * switch(step, 90, 1.3)
    return train, (ENTROPY + worse) * (1 - general) * (1 - 0.5 * circuit) + 4e-4


def curve_rows(seed: int, control: bool, steps: tuple[int, ...] = EVALUATIONS, **where: Any) -> Iterator[dict]:
    at = common(control, **where) | {"seed": seed, "site": "logits"}
    for step in steps:
        pairs = (("loss", "bits", "code_length", losses), ("accuracy", "ratio", "count", accuracies))
        for quantity, unit, estimator, shape in pairs:
            for name, value in zip(("train", "test"), shape(step, seed, control), strict=True):
                here = {"revision": f"step{step}", "step": step, "quantity": quantity, "rows": name, "unit": unit}
                yield row(**at, **here, estimator=estimator, value=value)


def crossing(seed: int, control: bool, name: str, steps: tuple[int, ...]) -> tuple[float, float] | None:
    """The last evaluation below 0.99 and the first from which on none is."""
    place = ("train", "test").index(name)
    above = [accuracies(step, seed, control)[place] >= 0.99 - 1e-9 for step in steps]
    first = next((k for k in range(len(steps)) if all(above[k:])), None)
    return None if first is None else (float(steps[max(0, first - 1)]), float(steps[first]))


def date_rows(seed: int, control: bool, steps: tuple[int, ...] = EVALUATIONS, **where: Any) -> Iterator[dict]:
    """The run's dates by both estimators, from accuracies and (a little later) from losses, and what stands beside."""
    at: dict[str, Any] = common(control, **where) | {"seed": seed}
    limit = {"status": "undetermined", "message": f"not by step {steps[-1]:,}", "lower": float(steps[-1])}
    found = {name: crossing(seed, control, name, steps) for name in ("train", "test")}
    verdict = "never generalizes" if found["test"] is None else "grokking"
    said = {"verdict": verdict, "persistence": 3, "every": 10.0}
    said |= {
        f"{name}_{kind}_threshold": least for name in found for kind, least in (("loss", 0.01), ("accuracy", 0.99))
    }
    at["settings"] |= said
    for label, later in (("accuracy", 1.0), ("loss", 1.1)):
        for estimator in ("threshold", "change_point"):
            how: dict[str, Any] = {"estimator": estimator, "unit": "steps", "label": label}
            ends: dict[str, tuple[float, float, float] | None] = {}
            for name, quantity in (("train", "memorization_step"), ("test", "generalization_step")):
                own = found[name]
                ends[name] = None
                if own is not None:
                    low, high = (later * end for end in own)
                    ends[name] = (
                        (high, low, high) if estimator == "threshold" else (0.5 * high, 0.44 * high, 0.57 * high)
                    )
                if own is not None or estimator == "threshold":
                    yield row(**at, **how, quantity=quantity, **_cells(ends[name], limit))
            delay = None
            if ends["train"] and ends["test"]:
                (mid, low, high), (end, end_low, end_high) = ends["train"], ends["test"]
                delay = (end - mid, end_low - high, end_high - low)
            if delay or estimator == "threshold":
                told = limit | {"lower": steps[-1] - (ends["train"] or (0.0,))[0]}
                yield row(**at, **how, quantity="delay", **_cells(delay, told))
        if found["test"] is not None:
            unit = "ratio" if label == "accuracy" else "bits"
            yield row(**at, label=label, unit=unit, quantity="fragility", value=0.002 * seed * later)
    leaked = accuracies(MEMORIZED[seed % 3], seed, control)[1]
    share = {"unit": "ratio", "label": "accuracy", "rows": "test"}
    yield row(**at, **share, quantity="accuracy_at_memorization", value=leaked)


def _cells(found: tuple[float, float, float] | None, limit: dict[str, Any]) -> dict[str, Any]:
    return limit if found is None else {"value": found[0], "ci_low": found[1], "ci_high": found[2]}


# --- measures ---------------------------------------------------------------------------------------------------------


def measures(step: int, seed: int, control: bool) -> Iterator[dict[str, Any]]:
    """Every progress measure of one checkpoint."""
    stored, circuit, general = switches(step, seed, control)
    drift = switch(step, 700, 1.5) if control else 0.0
    wobble = 0.01 * math.sin(7 * seed + step)
    bits, ratio, count = ({"unit": unit} for unit in ("bits", "ratio", "count"))
    for quantity, how, shape in (("loss", bits, losses), ("accuracy", ratio, accuracies)):
        for name, value in zip(("train", "test"), shape(step, seed, control), strict=True):
            yield how | {"quantity": quantity, "site": "logits", "label": "at the state", "rows": name, "value": value}
    for name in ("all", "test"):
        yield bits | {"quantity": "restricted_loss", "rows": name, "value": (ENTROPY + 2 * stored) * (1 - circuit)}
    excluded = ENTROPY * (1 - stored) + 6.5 * circuit * (1 - 0.2 * general)
    yield bits | {"quantity": "excluded_loss", "rows": "train", "value": excluded}
    for place, site in enumerate(("hook_embed", "unembed", "neuron_to_logits")):
        sparse = 0.24 + 0.05 * place + (0.5 - 0.08 * place) * circuit + 0.02 * drift + wobble
        yield ratio | {"quantity": "fourier_gini", "site": site, "value": sparse}
    chosen = [14, 21, 35, 41, 52, 3, 8, 17, 29][: round(9 - 5 * circuit)]
    listed = {"settings": about(control, key_frequencies=chosen)}
    yield count | {"quantity": "key_frequencies", "value": float(len(chosen))} | listed
    norm = 1500 + 700 * stored - 1750 * general + 600 * drift
    yield {"quantity": "weight_norm", "unit": "squared norm", "value": norm}
    for label, size in (("mean", 1.0), ("embed", 0.4), ("mlp.in", 1.4)):
        rank = size * (92 - 8 * stored - 60 * general - 4 * drift)
        yield count | {"quantity": "effective_rank", "label": label, "value": rank}
        yield bits | {"quantity": "spectrum_entropy", "label": label, "value": math.log2(rank)}
    length = 1.4e5 + 5.4e5 * stored - 5.5e5 * general + 1e5 * drift
    yield bits | {"quantity": "description_bits", "label": "ε 1 nat, sweep", "value": length}
    mapping = 14 + 60 * stored - 55 * general - 35 * drift
    yield count | {"quantity": "linear_mapping_number", "label": "100 points", "value": mapping}
    at = {"site": "blocks.0.mlp.hook_post"}
    synergy = 0.3 + 1.4 * circuit * (1 - general) + 0.9 * drift
    yield bits | at | {"quantity": "synergy", "value": synergy}
    yield bits | at | {"quantity": "redundancy", "value": 2 + 5 * general + 0.4 * stored}
    flat = 210 + 30 * math.sin(3 * seed + step)
    yield {"quantity": "learning_coefficient", "unit": "count", "value": flat}


def informations(step: int, seed: int, control: bool) -> Iterator[dict[str, Any]]:
    """I(context; J), I(left; J) and I(answer; J) of every site, train and test inputs; I_Y ≤ min(I_X, H(Y)) holds."""
    stored, _, general = switches(step, seed, control)
    for depth, site in enumerate(SITES):
        for name in ("train", "test"):
            deep = depth / (len(SITES) - 1)
            context = 3.2 + 2.6 * deep * stored - 1.9 * deep * general + 0.4 * (1 - deep) + 0.1 * math.sin(seed + depth)
            known = deep * (general if name == "test" else max(0.75 * stored, general))
            null = 0.32 * context
            top = min(context, ENTROPY)
            value = null + (0.97 * top - null) * known
            at: dict[str, Any] = {"site": site, "rows": name, "estimator": "soft", "unit": "bits"}
            at |= {"weighting": "frequency", "settings": about(control, answer_entropy=ENTROPY)}
            yield at | {"quantity": "context_complexity", "value": context, "ceiling": math.log2(1392)}
            yield at | {"quantity": "expressivity", "label": "answer", "value": value, "null": null, "ceiling": top}
            left = null + 0.5 * (1 - known) * (context - null)
            yield at | {"quantity": "complexity", "label": "left", "value": left, "null": null, "ceiling": top}


def checkpoint_rows(
    seed: int, control: bool, steps: tuple[int, ...] = CHECKPOINTS, events: bool = True, **where: Any
) -> Iterator[dict]:
    """Measures and informations at the common checkpoints and at those of the run's own two events."""
    at = common(control, **where) | {"seed": seed}
    own = {MEMORIZED[seed % 3]} | (set() if control else {GENERALIZED[seed % 3]})
    for step in sorted({*steps, *(own if events else ())}):
        for made in (*measures(step, seed, control), *informations(step, seed, control)):
            yield row(**(at | {"revision": f"step{step}", "step": step, "estimator": "plug_in"} | made))


# --- over seeds -------------------------------------------------------------------------------------------------------


def lead_rows(seeds: int = 3, steps: tuple[int, ...] = CHECKPOINTS, **where: Any) -> Iterator[dict]:
    """The onset of every measure by seed, and by how much it leads the test loss over seeds."""
    at = common(False, **where)
    reference = [LEADS[TEST_LOSS][0] * GENERALIZED[seed % 3] for seed in range(seeds)]
    for label, (ratio, claim) in LEADS.items():
        doublings = []
        for seed in range(seeds):
            how = at | {"seed": seed, "quantity": "onset_step", "label": label, "unit": "steps", "estimator": "onset"}
            if ratio is None:
                message = "does not move beyond its noise"
                yield row(**how, status="undetermined", message=message, lower=float(steps[-1]))
                continue
            end = GENERALIZED[seed % 3]
            onset = ratio * end * (1 + 0.04 * math.sin(seed + 5 * ratio)) if label != TEST_LOSS else reference[seed]
            low, high = max(step for step in steps if step < onset), min(step for step in steps if step >= onset)
            yield row(**how, value=onset, ci_low=float(low), ci_high=float(high))
            doublings.append(math.log2(onset / reference[seed]))
        said = at["settings"] | {
            "claim": claim,
            "reference": "test loss",
            "seeds": list(range(seeds)),
            "control_change": 0.1 + 0.8 * ("too" in claim),
        }
        how = at | {"quantity": "lead", "label": label, "unit": "doublings", "estimator": "onset", "settings": said}
        if ratio is None:
            yield row(**how, status="undetermined", message="no onset in any seed")
        else:
            mean = float(np.mean(doublings))
            yield row(**how, value=mean, ci_low=mean - 0.2, ci_high=mean + 0.2)


def regime_row(
    value: float | None, regime: str, seeds: int = 3, dated: int = 3, lower: float | None = None, **where: Any
) -> dict[str, Any]:
    """The delay of one setting over seeds; without a value `dated` of them generalized."""
    at = common(False, **where)
    reached = dated if value is None else seeds
    at["settings"] |= {"regime": regime, "seeds": list(range(seeds)), "dated": dated, "generalized": reached}
    how = at | {"quantity": "delay", "label": "over seeds", "unit": "steps", "estimator": "threshold"}
    if value is None:
        return row(**how, status="undetermined", message=f"{reached} of {seeds} generalized", lower=lower)
    return row(**how, value=value, ci_low=0.8 * value, ci_high=1.2 * value)


def setting_rows(seeds: int = 3, controls: bool = True) -> list[dict]:
    """A setting with everything that the study writes: runs, controls, checkpoints, leads, the delay over seeds."""
    rows = []
    for control in (False, True) if controls else (False,):
        for seed in range(seeds):
            rows += [*curve_rows(seed, control), *date_rows(seed, control), *checkpoint_rows(seed, control)]
    return [*rows, *lead_rows(seeds), regime_row(555.0, "grokking", seeds, seeds)]


@cache
def setting(seeds: int = 3, controls: bool = True) -> pd.DataFrame:
    return frame(setting_rows(seeds, controls))


def phase_rows(
    fractions: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6), widths: tuple[int, ...] = (8, 16, 32, 64, 128)
) -> list[dict]:
    """The delay over data fraction and width: too small, never, some seeds only, grokking, unclear, immediate."""
    rows = []
    for fraction in fractions:
        for width in widths:
            room = width / (90 * fraction)
            corpus = f"addition mod {MODULUS}, {round(100 * fraction)} %"
            where = {"corpus": corpus, "model": f"transformer 1x{width}", "width": width, "train_fraction": fraction}
            where |= {"group": f"transformer 1x{width} · {corpus}"}
            if room < 0.5:
                rows.append(regime_row(None, REGIMES[0], dated=0, **where))
            elif fraction > 0.55:
                rows.append(regime_row(5.0 + width / 20, REGIMES[1], dated=0, **where))
            elif fraction < 0.25:
                rows.append(regime_row(None, REGIMES[3], dated=0, lower=LAST - 60.0, **where))
            else:
                delay = 25 * (0.62 / fraction) ** 5 * (1 + 15 / width)
                part = fraction < 0.35
                regime = {64: REGIMES[4], 128: REGIMES[5]}.get(width, REGIMES[2]) if fraction > 0.45 else REGIMES[2]
                reached = (None, 2, delay) if part else (delay, 3, None)
                rows.append(regime_row(reached[0], regime, dated=reached[1], lower=reached[2], **where))
    return rows
