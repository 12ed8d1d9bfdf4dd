"""Figures: legible at several table shapes, equal to their CSV, reproducible to the byte, and clear about what lacks."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from infocomp.execution.table import rows_to_table, to_frame

CAPACITY = math.log2(100)
CODERS = {"gzip -9": 1.93, "xz -9e": 1.61, "PPMd": 1.52}


def log_steps(count: int, last: int) -> list[int]:
    steps = {0} | {round(step) for step in np.geomspace(1, last, max(2, count - 1))}
    extra = iter(range(2, last))
    while len(steps) < count:
        steps.add(next(extra))
    return sorted(steps)[: count - 1] + [last] if count > 1 else [last]


def synthetic_rows(
    layers: int = 4,
    checkpoints: int = 11,
    last_step: int = 512,
    model: str = "demo",
    labels: tuple[str, ...] = ("token", "bigram", "trigram", "quadgram"),
    duplicates: tuple[int, ...] = (1,),
    stage: str | None = None,
    seed: int = 0,
    **overrides: object,
) -> Iterator[dict]:
    """Rows as a run writes them, with curves of the usual shape: fitting, then compression, deeper layers more."""
    noise = np.random.default_rng(seed)
    steps = log_steps(checkpoints, last_step)
    common = {"corpus": "held-out", "estimator": "soft", "rows": "raw", "weighting": "frequency", "draw": "mean"}
    common |= {"seed": 0, "model": model, "unit": "bits", "stage": stage, "status": "ok"}
    share = {"token": (0.24, 0.42), "bigram": (0.52, 0.72), "trigram": (0.68, 0.86), "quadgram": (0.74, 0.93)}
    sites = [("hook_embed", None, 0.0)]
    sites += [(f"blocks.{layer}.hook_resid_post", layer, (layer + 1) / layers) for layer in range(layers)]
    sites += [("ln_final.hook_normalized", None, 1.1)]
    for place, step in enumerate(steps):
        age = math.log1p(step) / math.log1p(last_step) if last_step else 1.0
        learnt = 1 / (1 + math.exp(-9 * (age - 0.55)))
        copy_of = f"step{steps[place - 1]}" if place in duplicates and place else None
        at = common | {"revision": f"step{step}", "step": step, "tokens_seen": step * 4096, "duplicate_of": copy_of}
        for site, layer, depth in sites:
            wobble = noise.normal(0, 0.004, 8)
            context = 3.7 - depth * (0.25 + 0.55 * learnt) + (0.35 if site.startswith("ln") else 0) + 0.05 * wobble[0]
            here = at | {"site": site, "layer": layer}
            yield here | cells("context_complexity", context, ceiling=CAPACITY, spread=0.02)
            for order, label in enumerate(labels, start=1):
                low, high = share.get(label, (0.3, 0.5))
                null = context * low
                top = min(context, 8.6 * order)
                known = high + 0.4 * (1 - high) * learnt * (1 - 0.3 * depth) - 0.18 * depth * (high - low)
                complexity = context if depth == 0 and order == 1 else context * known
                about = here | {"label": label, "order": order}
                yield about | cells("complexity", complexity + wobble[order], null, top, 0.02)
                told = context * (low + (high - low) * (0.12 + 0.5 * learnt * (0.35 + 0.65 * depth)))
                yield about | cells("expressivity", told + wobble[order + 3], null * 0.98, top, 0.02)
                if complexity - null > 0.05:
                    ratio = (told - null) / (complexity - null)
                    yield about | cells("optimality", ratio, 0.97, None, 0.03)
                else:
                    refused = cells("optimality", None, None, None, None)
                    yield about | refused | {"status": "refused", "message": "complexity is not above its null."}
        rate = 1.62 + 2.3 * (1 - learnt) ** 1.5
        yield at | {"site": "logits"} | cells("bits_per_byte", rate, None, None, None)
        yield at | {"site": "logits"} | cells("bits_per_token", 3.2 * rate, 8.6, None, None)
    control = common | {"revision": "", "site": "control.gaussian"}
    yield control | cells("context_complexity", 3.75, ceiling=CAPACITY)
    for order, label in enumerate(labels, start=1):
        low = share.get(label, (0.3, 0.5))[0] * 3.75
        for quantity in ("complexity", "expressivity"):
            yield control | {"label": label, "order": order} | cells(quantity, low + 0.01, low, 3.75, 0.02)


def cells(quantity, value, null=None, ceiling=None, spread=None) -> dict:
    share = None if value is None or quantity.startswith(("bits", "opt")) else value / CAPACITY
    return {
        "quantity": quantity,
        "value": value,
        "null": null,
        "ceiling": ceiling,
        "draw_std": spread,
        "efficiency": share,
    }


def classical_rows(corpus: str = "held-out") -> Iterator[dict]:
    for coder, rate in CODERS.items():
        yield {"model": coder, "corpus": corpus, "estimator": "classical", "quantity": "bits_per_byte", "value": rate}


def synthetic_table(*parts: dict, extra: tuple[dict, ...] = ()) -> pd.DataFrame:
    """The table of the models described by `parts` (arguments of `synthetic_rows`), with the classical coders."""
    rows = [row for part in parts or ({},) for row in synthetic_rows(**part)]
    return to_frame(rows_to_table([*rows, *classical_rows(), *extra]))


SHAPES = {
    "small": synthetic_table({"layers": 2, "checkpoints": 3, "last_step": 4, "duplicates": ()}),
    "demo": synthetic_table(),
}
