"""Tables of the studies of memorization made by hand, with laws of the usual shape, for the figures' tests."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from infocomp.execution.table import check_unique, row, rows_to_table, to_frame

LOADS = (0.25, 0.5, 1.0, 2.0, 4.0, 5.3, 10.7)
SLOPE, INTERCEPT = 2.31, 900.0
SAMPLES = (16, 32, 64, 128, 256, 512, 1024, 2048)
CAPACITY = 22_000.0
STEPS = (0, 1, 4, 16, 64, 256, 512)
CHANGED = (1, 2, 4, 8)
REFERENCES = ("whole", "larger")
BOUND = "lower bound at this budget"


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    table = rows_to_table(list(rows))
    check_unique(table)
    return to_frame(table)


def parameters(width: int, vocabulary: int, length: int, layers: int = 1) -> tuple[int, int]:
    """All of a tied GPT-2 with a BOS, and those outside the embedding."""
    outside = length * width + layers * (12 * width**2 + 13 * width) + 2 * width
    return (vocabulary + 1) * width + outside, outside


def plateau(count: int, vocabulary: int = 64) -> float:
    return (SLOPE * count + INTERCEPT) * (1 + 0.05 * math.log2(vocabulary / 64))


# --- random data ------------------------------------------------------------------------------------------------------


def capacity_model(
    width: int,
    vocabulary: int = 64,
    length: int = 16,
    layers: int = 1,
    more: str = "",
    gain: float = 0.013,
    seeds: int = 3,
    steps: int = 3000,
) -> Iterator[dict]:
    """Runs of one model over sizes of data, three seeds where full, twice the steps once, and what follows of it."""
    name, corpus = f"gpt2 {layers}x{width}{more}", f"random V{vocabulary} S{length}"
    count, outside = parameters(width, vocabulary, length, layers)
    sizes = {"parameters": count, "parameters_outside_embedding": outside, "layers": layers, "width": width}
    sizes |= {"vocabulary": vocabulary, "length": length, "precision": more.strip() or "float32"}
    common: dict[str, Any] = {"model": name, "site": "logits", "estimator": "code_length", "draw": "mean"}
    common |= {"unit": "bits", "quantity": "memorized_bits"}
    full = plateau(count, vocabulary)
    for load in LOADS:
        n = max(8, round(load * count / (length * math.log2(vocabulary)) / 8) * 8)
        bits = n * length * math.log2(vocabulary)
        ceiling = bits - n * math.log2(n)
        on_plateau = ceiling > 1.3 * full
        best = ceiling if ceiling < 0.93 * full else full * min(1.0, (ceiling / full) ** 0.15 * 0.985)
        for seed in range(seeds if on_plateau else 1):
            value = best * (1 - 0.011 * seed + 0.004 * math.sin(n)) if on_plateau else best
            about = {"data_bits": bits, "sequences": n, "on_plateau": on_plateau, "steps": steps}
            at = common | {"corpus": f"{corpus} N{n}", "seed": seed, "n_documents": n, "n_tokens": n * length}
            unsure = {"message": f"{BOUND}: twice the steps were not tried"} if best < 0.99 * ceiling else {}
            doubled = on_plateau and seed == 0 and n * length * math.log2(vocabulary) < 6 * count
            at |= {"step": steps, "settings": sizes | about, "ceiling": ceiling, "null": -1.7 * value} | unsure
            yield row(**at, value=value)
            yield row(**(at | {"quantity": "unintended_bits", "null": 0.02 * value}), value=1.01 * value)
            share = {"quantity": "extraction_rate", "unit": "ratio", "null": 0.0, "ceiling": None}
            yield row(**(at | share), value=min(1.0, 0.2 + 0.7 * value / ceiling))
            if doubled:
                twice = {"label": f"steps {2 * steps}", "step": 2 * steps, "message": None}
                yield row(**(at | twice), value=(1 + gain) * value)
    mean = common | {"corpus": corpus, "settings": sizes | {"seeds": seeds, "doubling_gain": gain}}
    mean |= {"message": f"{BOUND}: twice the steps add {100 * gain:.1f} %"} if gain > 0.02 else {}
    ends = {"ci_low": 0.98 * full, "ci_high": 1.02 * full, "std_error": 0.01 * full}
    yield row(**mean, label="plateau", value=full, **ends)
    for label, number in (("all parameters", count), ("outside the embedding", outside)):
        scaled = {key: end / number for key, end in ends.items()}
        per = mean | {"quantity": "bits_per_parameter", "label": label, "unit": "bits/parameter"}
        yield row(**per, value=full / number, **scaled)
    yield row(**(mean | {"quantity": "saturation_gain", "label": "twice the steps", "unit": "ratio"}), value=gain)


def capacity_slope(rows: list[dict], family: str, corpus: str) -> Iterator[dict]:
    """The line through the plateaus of these models."""
    full = [made for made in rows if made["label"] == "plateau" and made["corpus"] == corpus]
    for label in ("all parameters", "outside the embedding"):
        per = [made for made in rows if made["quantity"] == "bits_per_parameter" and made["label"] == label]
        per = [made for made in per if made["corpus"] == corpus]
        counts = [made["value"] / own["value"] for made, own in zip(full, per, strict=True)]
        slope, start = np.polyfit(counts, [made["value"] for made in full], 1)
        about = {"intercept": start, "intercept_low": start - 800, "intercept_high": start + 800, "r_squared": 0.998}
        yield row(
            model=family,
            corpus=corpus,
            site="logits",
            quantity="capacity_slope",
            label=label,
            estimator="code_length",
            draw="mean",
            value=slope,
            ci_low=slope - 0.12,
            ci_high=slope + 0.12,
            unit="bits/parameter",
            settings=about | {"models": len(full), "runs": 3 * len(full)},
        )


def capacity_rows(
    widths: tuple[int, ...] = (16, 24, 32), vocabulary: int = 64, length: int = 16, more: str = "", **how: Any
) -> list[dict]:
    rows = [made for width in widths for made in capacity_model(width, vocabulary, length, more=more, **how)]
    return [*rows, *capacity_slope(rows, f"gpt2{more}", f"random V{vocabulary} S{length}")]


# --- text -------------------------------------------------------------------------------------------------------------


def text_memorized(load: float) -> float:
    """Rises along what there is, then falls beyond capacity."""
    return 0.8 * CAPACITY * load if load < 0.8 else 0.8 * CAPACITY * 0.85 * (load / 0.8) ** -0.6


def test_loss(load: float, peak: bool) -> float:
    bump = 1.3 * math.exp(-((math.log(load)) ** 2) / 0.7) if peak else 0.0
    return 8.2 + bump - 0.22 * math.log(load) - (0.25 * max(0.0, math.log(load)) if peak else 0.0)


def law(gap: float, midpoint: float, slope: float) -> float:
    """F1 at ln(capacity/data) = gap."""
    return 0.5 * (1 + 1 / (1 + math.exp(-slope * (gap - midpoint))))


def text_rows(
    model: str = "gpt2 1x24", text: str = "stdlib", peak: bool = True, intervals: bool = True, shift: float = 0.0
) -> list[dict]:
    """A model on growing numbers of samples of a text."""
    rows = []
    common: dict[str, Any] = {"model": model, "site": "logits", "estimator": "code_length", "draw": "mean"}

    def ends(value: float, half: float) -> dict[str, Any]:
        return {"ci_low": value - half, "ci_high": value + half, "std_error": half / 1.96} if intervals else {}

    for samples in SAMPLES:
        data = samples * 95.0 * math.exp(shift)
        load = data / CAPACITY
        about = {"samples": samples, "data_bits": data, "capacity_bits": CAPACITY, "load": load, "parameters": 9216}
        at = common | {"corpus": f"{text} N{samples}", "settings": about, "seed": 0}
        test = test_loss(load, peak)
        train = test - 7.5 / (1 + load**1.3)
        for label, value in (("train", train), ("test", test), ("test, same documents", test - 0.4)):
            unit = {"unit": "bits/token", "quantity": "bits_per_token", "label": label, "null": 7.7}
            rows.append(row(**at, **unit, value=value, **ends(value, 0.12)))
        for place, name in enumerate(REFERENCES):
            excess = text_memorized(load) * (1 - 0.2 * place)
            null = 0.01 * data
            label = f"against {name}"
            unit = {"unit": "bits"}
            sums = {"quantity": "unintended_bits", "label": label, "null": null, "ceiling": (0.9 - 0.2 * place) * data}
            rows.append(row(**at, **unit, **sums, value=excess + null))
            excess_row = {"quantity": "memorized_bits", "label": label}
            rows.append(row(**at, **unit, **excess_row, value=excess, **ends(excess, 0.05 * excess + 200)))
            same = {"quantity": "memorized_bits", "label": f"{label}, same documents"}
            rows.append(row(**at, **unit, **same, value=0.9 * excess, **ends(0.9 * excess, 0.04 * excess + 150)))
            gain = {"quantity": "unclipped_gain_bits", "label": label, "null": -40 * excess}
            rows.append(row(**at, **unit, **gain, value=1.05 * excess, **ends(1.05 * excess, 0.06 * excess + 260)))
        for place, label in enumerate(("loss", *(f"against {name}" for name in REFERENCES))):
            f1 = law(-math.log(load), -0.4 + 0.3 * place, 1.6)
            auc = law(-math.log(load), -0.7 + 0.3 * place, 1.4)
            unit = {"unit": "ratio", "label": label}
            rows.append(row(**at, **unit, quantity="membership_auc", value=auc, null=0.5, **ends(auc, 0.02)))
            noisy = f1 + 0.01 * math.sin(samples + place)
            rows.append(row(**at, **unit, quantity="membership_f1", value=noisy, null=0.667, **ends(noisy, 0.025)))
        share = {"quantity": "extraction_rate", "unit": "ratio", "null": 0.004}
        rate = 1 / (1 + (load / 0.7) ** 3)
        rows.append(row(**at, **share, value=rate, **ends(rate, 0.02)))
    whole = common | {"corpus": text, "seed": 0}
    for place, label in enumerate(("loss", *(f"against {name}" for name in REFERENCES))):
        middle = {"quantity": "membership_midpoint", "unit": "nats", "label": label}
        rows.append(row(**whole, **middle, value=-0.4 + 0.3 * place, **ends(-0.4 + 0.3 * place, 0.15)))
        steep = {"quantity": "membership_slope", "unit": "1/nat", "label": label}
        rows.append(row(**whole, **steep, value=1.6, **ends(1.6, 0.3)))
    per = {"quantity": "bits_per_parameter", "label": "all parameters", "unit": "bits/parameter"}
    random = common | {"corpus": "random V512 S32", "seed": 0, "settings": {"parameters": 9216}}
    return [*rows, row(**random, **per, value=2.39)]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def learnt(step: float) -> float:
    return 1 - 1 / (1 + step / 40) ** 1.2


def checkpoint_rows(
    model: str = "demo",
    members: str = "training text",
    unseen: str = "held-out",
    references: tuple[str, ...] = REFERENCES,
    steps: tuple[int, ...] = STEPS,
    rates: bool = True,
    speed: float = 1.0,
    kinds: tuple[str, ...] = ("replace",),
) -> list[dict]:
    """Every checkpoint of one model on the text it was trained on and on one it was not."""
    rows = []
    for step in steps:
        at: dict[str, Any] = {"model": model, "revision": f"step{step}", "step": step, "tokens_seen": 4096 * step}
        at |= {"site": "logits", "estimator": "code_length", "draw": "mean"}
        known = learnt(step * speed)
        inside = at | {"corpus": members, "in_training": "known"}
        rate = 2.2 + 4.1 * (1 - known)
        for label, value in (("train", 3.1 * rate - 1.5 * known), ("test", 3.1 * rate)):
            ends = {"ci_low": value - 0.1, "ci_high": value + 0.1}
            rows.append(row(**inside, quantity="bits_per_token", unit="bits/token", label=label, value=value, **ends))
        if rates:
            outside = at | {"corpus": unseen, "in_training": "no"}
            ends = {"ci_low": 0.97 * rate, "ci_high": 1.03 * rate}
            rows.append(row(**outside, quantity="bits_per_byte", unit="bits/byte", value=rate, null=3.4, **ends))
            rows.append(row(**outside, quantity="bits_per_token", unit="bits/token", value=3.1 * rate, null=9.6))
        for place, name in enumerate(references):
            excess = 90_000 * known**2 * (1 - 0.4 * place) - 300 + 900 * math.sin(step)
            null = 15_000 * known + 40
            sums = {"label": f"against {name}", "unit": "bits"}
            total = {"quantity": "unintended_bits", "value": excess + null, "null": null, "ceiling": 9e5}
            rows.append(row(**inside, **sums, **total))
            ends = {"ci_low": excess - 2500, "ci_high": excess + 2500}
            rows.append(row(**inside, **sums, quantity="memorized_bits", value=excess, **ends))
            gain = {"quantity": "unclipped_gain_bits", "value": 1.1 * excess, "null": -9 * excess}
            rows.append(row(**inside, **sums, **gain, **ends))
        for quantity, label, value in (("membership_auc", "loss", 0.5 + 0.3 * known), ("membership_f1", "loss", 0.7)):
            rows.append(row(**inside, quantity=quantity, label=label, unit="ratio", value=value, null=0.5))
        for quantity, value, null in (("rate", 0.06 * known**2, 0.001), ("score", 0.05 + 0.25 * known, 0.05 * known)):
            ends = {"ci_low": max(0.0, 0.9 * value - 0.004), "ci_high": 1.1 * value + 0.006}
            share = {"quantity": f"extraction_{quantity}", "label": "32+32", "unit": "ratio", "null": null}
            rows.append(row(**inside, **share, value=value, **ends))
    rows += [made for kind in kinds for made in fragility_rows(model, members, steps[-1], kind, speed)]
    return rows


def fragility_rows(model: str, members: str, step: int, kind: str, speed: float = 1.0) -> list[dict]:
    at: dict[str, Any] = {"model": model, "revision": f"step{step}", "step": step, "corpus": members, "site": "logits"}
    at |= {"estimator": "code_length", "draw": "mean", "in_training": "known", "unit": "ratio"}
    rows = []
    for changed in CHANGED:
        lost = 1 - math.exp(-changed / (3 if kind == "replace" else 5))
        named = f" ({kind})" if kind != "replace" else ""
        about = {"label": f"32+32, {changed} of prompt changed{named}", "settings": {"changed": changed, "kind": kind}}
        known = learnt(step * speed)
        for quantity, value in (("rate", 0.06 * known**2), ("score", 0.05 + 0.25 * known)):
            left = value * (1 - 0.8 * lost)
            ends = {"ci_low": 0.85 * left, "ci_high": 1.15 * left}
            rows.append(row(**at, **about, quantity=f"extraction_{quantity}", value=left, **ends))
            drop = value - left
            ends = {"ci_low": drop - 0.012, "ci_high": drop + 0.012}
            whole = {"label": about["label"] + ", full matches"} if quantity == "rate" else {}
            rows.append(row(**at, **(about | whole), quantity="extraction_drop", value=drop, **ends))
    return rows
