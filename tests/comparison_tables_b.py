"""Tables of the study of comparisons made by hand: what two models share, words, changes, Shepard's law, phases.

A base model, two tuned ones and one tuned on flipped labels; the deeper the site, the farther the tuned ones are from
the base, the preferred one farthest. Numbers are smooth functions of depth, so that a test can tell where each stands.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from infocomp.execution.table import check_unique, rows_to_table, to_frame

BASE, TUNED, CONTROL = "demo", ("sft", "dpo", "dpo flipped"), "random weights"
DISTANCE = {BASE: 0.0, "sft": 0.12, "dpo": 0.35, "dpo flipped": 0.2, CONTROL: 0.8}
BANDS = ((0, 15), (16, 31), (32, 63), (64, 127), (128, 255))
LAWS = ("exponential", "gaussian")
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PHASES = ("warm-up", "entropy-seeking", "compression-seeking")
TURNS = ((6.0, 4.0, 9.0), (90.0, 60.0, 140.0))  # where a phase begins: value, interval
WORDS = (
    "return",
    "self",
    " import",
    "None",
    "\n    ",
    '"""',
    "$x$",
    "def",
    " not",
    "range",
    "True",
    "lambda",
    "中",
    "x",
)


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    table = rows_to_table(list(rows))
    check_unique(table)
    return to_frame(table)


def sites_of(layers: int) -> list[tuple[str, int | None, float]]:
    """Each site, its layer and its depth from 0 to 1."""
    inside = [(f"blocks.{layer}.hook_resid_post", layer, (layer + 1) / (layers + 1)) for layer in range(layers)]
    return [("hook_embed", None, 0.0), *inside, ("ln_final.hook_normalized", None, 1.0)]


def about(model: str, tuned: tuple[str, ...] = TUNED, **more: Any) -> dict[str, Any]:
    """The key and settings that every row of a model has."""
    role = {BASE: "base", CONTROL: "control"}.get(model, "tuned")
    place = {BASE: 0, CONTROL: len(tuned) + 1} | {name: at for at, name in enumerate(tuned, start=1)}
    settings = {"role": role, "base": BASE, "place": place[model]} | more
    return {"model": model, "revision": "step512", "step": 512, "corpus": "raw", "draw": "mean", "settings": settings}


def interval(half: float, value: float) -> dict[str, float]:
    return {"std_error": half / 1.96, "ci_low": value - half, "ci_high": value + half}


# --- what two models share --------------------------------------------------------------------------------------------


def similarity_rows(layers: int = 4, tuned: tuple[str, ...] = TUNED, samples: bool = True) -> Iterator[dict]:
    """CKA of all pairs of layers and of equal ones, the measures of equal layers and KL by position."""
    for model in tuned:
        moved = DISTANCE[model]
        for site, layer, depth in sites_of(layers):
            for base_site, _, base_depth in sites_of(layers):
                value = math.exp(-3 * abs(depth - base_depth)) * (1 - moved * depth)
                cka = about(model, tuned, base_site=base_site)
                cka |= {"site": site, "layer": layer, "quantity": "cka", "label": f"vs {base_site}", "unit": "ratio"}
                cka |= {"estimator": "linear, debiased"}
                if samples:
                    known = interval(0.03, value) if site == base_site else {}
                    yield cka | {"rows": "sample", "value": value, "null": 0.004, **known}
                if site == base_site:
                    yield cka | {"rows": "all", "value": value + 0.001, **interval(0.02, value + 0.001)}
            for quantity, estimator, label, value, null in (
                ("procrustes", "orthogonal", "", moved * depth, 0.93),
                ("cca_mean", "cca", "", 1 - 0.5 * moved * depth, 0.31),
                ("svcca_mean", "svcca", "", 1 - 0.7 * moved * depth, 0.22),
                ("mutual_neighbours", "nearest", "k 10", 1 - 0.2 - 1.2 * moved * depth, 10 / 4095),
                ("representational_similarity", "cosine", "", 1 - 0.8 * moved * depth, 0.0),
            ):
                here = about(model, tuned, p=0.001) | {"site": site, "layer": layer, "rows": "sample"}
                here |= {"quantity": quantity, "estimator": estimator, "label": label, "unit": "ratio"}
                yield here | {"value": value, "null": null, **interval(0.02, value)}
        yield from kl_rows(model, tuned)


def kl_rows(model: str, tuned: tuple[str, ...] = TUNED) -> Iterator[dict]:
    for label, scale in (("base to tuned", 1.0), ("tuned to base", 1.25)):
        at = about(model, tuned) | {"site": "logits", "quantity": "kl", "label": label, "unit": "bits"}
        at |= {"estimator": "next token"}
        whole = scale * DISTANCE[model]
        yield at | {"rows": "all", "value": whole, **interval(0.02, whole)}
        for low, high in BANDS:
            value = whole * (1.4 - 0.1 * math.log2(1 + low))
            yield at | {"rows": f"positions {low}-{high}", "value": value, **interval(0.03, value)}


# --- words ------------------------------------------------------------------------------------------------------------


def word_rows(layers: int = 2, tuned: tuple[str, ...] = TUNED, words: tuple[str, ...] = WORDS) -> Iterator[dict]:
    """Words by drift at each site: the first ones far above the noise at the last block, none at the embedding."""
    for model in tuned:
        for site, layer, depth in sites_of(layers):
            far = 0.0 if site.startswith("ln") else depth
            at = about(model, tuned) | {"site": site, "layer": layer, "quantity": "word_drift", "unit": "ratio"}
            at |= {"estimator": "neighbours", "rows": "all"}
            values = []
            for place, word in enumerate(words):
                value = 0.2 + 2 * DISTANCE[model] * far * max(0.0, 1 - place / 8)
                p = 0.0005 if value > 0.3 else 0.5
                said = {"count": 400 - 10 * place, "p": p, "lost": list(words[:3]), "gained": list(words[-3:])}
                said["across"] = min(1.0, value + 0.05)  # between halves, which are noisier than the whole
                values.append(value)
                yield at | {"label": word, "value": value, "null": 0.2, "settings": at["settings"] | said}
            mean = sum(values) / len(values)
            yield (
                at
                | {"label": "mean over words", "value": mean, "null": 0.2, **interval(0.03, mean)}
                | {
                    "point": mean - 0.15,
                    "point_error": 0.01,
                }
            )


# --- changes ----------------------------------------------------------------------------------------------------------

MEASURES = (  # quantity, label, site or None for all, rows, unit, base value, step of the difference, error
    ("complexity", "token", None, "raw", "bits", 2.1, -0.2, 0.02),
    ("expressivity", "bigram", None, "raw", "bits", 1.3, 0.1, 0.02),
    ("rankme", "", None, "sample", "count", 61.0, -9.0, 1.5),
    ("alpha_req", "", None, "sample", "slope", 0.9, 0.1, 0.02),
    ("anisotropy", "", None, "sample", "ratio", 0.12, 0.05, 0.002),
    ("preference_information", "preference", None, "matched", "bits", 0.05, 0.06, 0.01),
    ("preference_excess", "over hook_embed", None, "matched", "bits", 0.01, 0.05, 0.01),
    ("probe_accuracy", "", None, "matched", "ratio", 0.61, 0.1, 0.03),
    ("curvature", "", None, "all", "radians", 1.9, 0.02, 0.004),
    ("intrinsic_dimension", "", None, "sample", "count", 11.0, -0.4, 0.5),
    ("shepard_slope", "exponential", None, "", "bits", 0.41, 0.03, 0.02),
    ("bits_per_byte", "", "logits", "", "bits", 1.6, -0.2, 0.004),
)


def change_rows(layers: int = 4, tuned: tuple[str, ...] = TUNED, corpora: tuple[str, ...] = ("raw",)) -> Iterator[dict]:
    """Differences of tuned and base, larger the deeper; changed where five standard errors away."""
    for model in tuned:
        for corpus in corpora:
            for quantity, label, only, rows, unit, start, change, error in MEASURES:
                places = [(only, None, 1.0)] if only else sites_of(layers)
                for site, layer, depth in places:
                    value = change * depth * 2 * DISTANCE[model]
                    effect = value / error
                    at = about(model, tuned, paired=quantity != "rankme", changed=abs(effect) > 3, effect=effect)
                    p = math.erfc(abs(effect) / math.sqrt(2))
                    at["settings"] |= {"base_value": start, "tuned_value": start + value, "p": p, "note": ""}
                    at |= {"corpus": corpus, "site": site, "layer": layer, "quantity": quantity, "label": label}
                    at |= {"estimator": "soft, tuned minus base", "rows": rows, "unit": unit, "value": value}
                    yield at | interval(1.96 * error, value)


# --- Shepard's law ----------------------------------------------------------------------------------------------------


def shepard_rows(layers: int = 4, tuned: tuple[str, ...] = TUNED, control: bool = True) -> Iterator[dict]:
    for model in (BASE, *tuned, *([CONTROL] if control else [])):
        for site, layer, depth in sites_of(layers):
            at = about(model, tuned) | {"site": site, "layer": layer, "estimator": "held-out pairs", "rows": "sample"}
            r2 = {"exponential": (0.2 + 0.5 * depth) * (1 - DISTANCE[model])}
            r2 |= {"gaussian": 0.7 * r2["exponential"] + 0.02}
            for law, value in r2.items():
                cell = {"quantity": "shepard_r2", "label": law, "unit": "ratio", "value": value}
                yield at | cell | interval(0.06, value)
            apart = r2["exponential"] - r2["gaussian"]
            yield at | {"quantity": "shepard_preference", "unit": "ratio", "value": apart} | interval(0.04, apart)
            slope = 0.3 + 0.4 * depth - 0.3 * DISTANCE[model]
            for law in LAWS:
                yield (
                    at
                    | {"quantity": "shepard_slope", "label": law, "unit": "bits", "value": slope}
                    | interval(0.05, slope)
                )


# --- phases -----------------------------------------------------------------------------------------------------------


def rank_at(step: float, depth: float) -> float:
    """Falls, rises, falls again, in the logarithm of the step."""
    at, (first, second) = math.log1p(step), (math.log1p(turn[0]) for turn in TURNS)
    fall, rise, end = -8 * min(at, first), 14 * max(0.0, min(at, second) - first), -9 * max(0.0, at - second)
    return 60 + 20 * depth + fall + rise + end


def phase_rows(model: str = BASE, layers: int = 2, boundaries: bool = True, bands: bool = True) -> Iterator[dict]:
    for site, layer, depth in sites_of(layers):
        for step in STEPS:
            at = about(model) | {"revision": f"step{step}", "step": step, "site": site, "layer": layer}
            at |= {"estimator": "spectrum", "rows": "sample"}
            rank = rank_at(step, depth)
            for quantity, unit, value, half in (
                ("rankme", "count", rank, 3.0),
                ("alpha_req", "slope", 1.4 - rank / 120, 0.04),
            ):
                spread = interval(half, value) if bands else {}
                yield at | {"quantity": quantity, "unit": unit, "value": value, **spread}
        if not boundaries:
            continue
        for (value, low, high), before, after in zip(TURNS, PHASES[:-1], PHASES[1:], strict=True):
            at = about(model, TUNED, **{"from": before, "to": after}) | {"site": site, "layer": layer, "unit": "steps"}
            at |= {"quantity": "phase_boundary", "label": f"{after} begins", "estimator": "change points"}
            yield at | {"value": value, "ci_low": low, "ci_high": high}


# --- shapes of pages --------------------------------------------------------------------------------------------------


def some(rows: Iterable[dict], *quantities: str) -> list[dict[str, Any]]:
    return [made for made in rows if made["quantity"] in quantities]


def close() -> list[dict[str, Any]]:
    """A model that hardly differs from its base."""
    made = similarity_rows(2, ("sft",), samples=False)
    return some(made, "cka", "representational_similarity", "mutual_neighbours")


def deep() -> list[dict[str, Any]]:
    """Many sites on axes of a third of the page, in the fewest panels that have them."""
    return some(similarity_rows(24, ("dpo",)), "cka", "procrustes", "mutual_neighbours")


def many_changes() -> list[dict[str, Any]]:
    """More measures that changed than a page holds."""
    made = [*change_rows(1, ("sft", "dpo"), ("raw", "preferences"))]
    return [row | {"label": f"{row['label']} {part}".strip()} for part in ("one", "two") for row in made]
