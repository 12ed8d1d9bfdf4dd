"""Tables of the study of coding made by hand, with laws of the usual shape, for the figures' tests."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from infocomp.execution.table import check_unique, row, rows_to_table, to_frame

STEPS = (0, 1, 4, 16, 64, 256, 512)
WIDTHS = (2, 3, 4, 6, 8, 16)
CHUNKS = (64, 128, 256, 512)
CODERS = {"gzip -9": 3.25, "bzip2 -9": 2.42, "xz -9e": 2.72, "brotli -11": 2.67, "zstd -22": 2.755, "PPMd": 2.18}
KINDS = {
    "name": (3.4, 0.20, 2.6, 310),
    "date": (2.6, 0.30, 2.9, 41),
    "number": (3.1, 0.25, 3.0, 88),
    "quotation": (1.9, 0.08, 2.2, 1210),
    "rare word, decile 1": (2.9, 0.12, 2.5, 420),
    "rare word, decile 2": (2.5, 0.10, 2.3, 430),
    "common word": (1.4, 0.04, 1.9, 6200),
    "punctuation": (2.1, 0.06, 2.0, 1900),
    "whitespace": (0.6, 0.05, 1.1, 800),
}
PARAMETERS = 1_300_000
BYTES = 152_089
BYTES_PER_TOKEN = 3.2


def rate_at(step: int) -> float:
    return 2.1 + 4.0 / (1 + step) ** 0.45


def weights_rate(bits: int, step: int = STEPS[-1]) -> float:
    return rate_at(step) + 6.0 * 4.0**-bits * 4.0


def weights_bytes(bits: int) -> float:
    return PARAMETERS * bits / 8 + 4000.0


class Maker:
    """Rows of one model, text and checkpoint."""

    def __init__(self, model: str, corpus: str, step: int | None, in_training: str = "unknown", **more: object) -> None:
        self.common = {"model": model, "corpus": corpus, "draw": "mean", "in_training": in_training} | more
        if step is not None:
            self.common |= {"revision": f"step{step}", "step": step, "tokens_seen": step * 4096}

    def __call__(self, quantity: str, value: float | None, estimator: str = "code_length", **more: object) -> dict:
        site = {"site": "logits"} if estimator == "code_length" else {}
        return row(**(self.common | site | {"quantity": quantity, "value": value, "estimator": estimator} | more))


def rates(make: Maker, step: int) -> Iterator[dict]:
    rate = rate_at(step)
    ends: dict[str, Any] = {"ci_low": 0.97 * rate, "ci_high": 1.03 * rate, "std_error": 0.015 * rate}
    yield make("bits_per_byte", rate, null=3.4, unit="bits/byte", context_length=512, **ends)
    yield make("bits_per_token", BYTES_PER_TOKEN * rate, null=9.6, unit="bits/token", context_length=512)


def positions(make: Maker, step: int, error_only: bool = False) -> Iterator[dict]:
    start = 0
    while start < 512:
        end = min(511, max(start, 2 * start))
        learnt = BYTES_PER_TOKEN * rate_at(step) * (1 + 0.5 * (start + 1) ** -0.5 * min(step, 64) / 64)
        ends = {} if error_only else {"ci_low": learnt - 0.3, "ci_high": learnt + 0.35}
        about = {"position_from": start, "position_to": end, "rule": "disjoint"}
        label = f"position {start}-{end}"
        yield make("bits_per_token", learnt, label=label, std_error=0.16, settings=about, unit="bits/token", **ends)
        start = end + 1


def chunks(make: Maker, step: int) -> Iterator[dict]:
    for length in CHUNKS:
        rate = rate_at(step) * (1 + 3.0 / length**0.8)
        yield make("bits_per_byte", rate, label=f"chunk {length}", context_length=length)
        for share, gain in ((2, 0.97), (4, 0.955)):
            yield make("bits_per_byte", gain * rate, label=f"sliding {length}/{length // share}", context_length=length)


def codec(
    make: Maker, step: int, labels: Iterable[str] = ("", *(f"chunk {length}" for length in CHUNKS))
) -> Iterator[dict]:
    for label in labels:
        length = int(label.removeprefix("chunk ")) if label else 256
        rate = 1.01 * rate_at(step) * (1 + 3.0 / length**0.8)
        about = {"label": label, "estimator": "arithmetic_coding", "settings": {"chunk_tokens": length}}
        size = round(BYTES * rate / 8)
        yield make("bits_per_byte", 8 * size / BYTES, unit="bits/byte", **about)
        parts = {"coded_bytes": size, "header_bytes": 300, "payload_bytes": size - 300, "escape_bytes": 0}
        for quantity, value in parts.items():
            yield make(quantity, value, unit="bytes", **about)
        seconds = 8.0 * (length / 64) ** 0.35 if label else 12.6
        yield make("compress_seconds", seconds, unit="seconds", **about)
        yield make("decompress_seconds", 1.22 * seconds, unit="seconds", **about)
        yield make("coder_overhead", 0.004, unit="bits/token", **about)


def ranks(make: Maker, step: int) -> Iterator[dict]:
    for coder, factor in (("gzip -9", 1.62), ("brotli -11", 1.41), ("adaptive Huffman", 1.3)):
        size = round(100_000 * factor * rate_at(step) / 8)
        yield make("bits_per_byte", 8 * size / 100_000, estimator=f"rank + {coder}")
        yield make("coded_bytes", size, estimator=f"rank + {coder}", unit="bytes")


def widths(make: Maker, coders: dict[str, float]) -> Iterator[dict]:
    yield make("raw_rate", rate_at(STEPS[-1]) / 8, unit="ratio")
    for bits in WIDTHS:
        label, rate = f"weights {bits} bits", weights_rate(bits)
        yield make("bits_per_byte", rate, label=label)
        yield make("model_bytes", weights_bytes(bits), label=label, unit="bytes")
        yield make("adjusted_rate", rate / 8 + weights_bytes(bits) / BYTES, label=label, unit="ratio")
        for coder in ("xz -9e", "PPMd"):
            below = coders[coder] - rate
            settled: dict[str, Any] = {"value": 8 * weights_bytes(bits) / below} if below > 0 else {"value": None}
            settled |= {} if below > 0 else {"status": "undetermined", "message": "the model's rate is not lower."}
            about = {"label": f"weights {bits} bits against {coder}", "unit": "bytes"}
            yield make("break_even_bytes", settled.pop("value"), **about, **settled)


def retention(make: Maker, corpus: str, factor: float = 1.0) -> Iterator[dict]:
    other = Maker("PPM", corpus, None)
    for kind, (rate, error, classical, tokens) in KINDS.items():
        size = 2.0 if kind in ("punctuation", "whitespace") else 5.0
        about = {"label": f"kind {kind}", "n_tokens": tokens}
        yield make("bits_per_byte", factor * rate, std_error=error, **about)
        yield make("bits_per_token", factor * rate * size, std_error=error * size, **about)
        yield other("bits_per_byte", classical, "classical", std_error=0.8 * error, **about)


def classical(corpus: str, coders: dict[str, float], in_training: str = "unknown") -> Iterator[dict]:
    for coder, rate in coders.items():
        about = {"coded_bytes": round(BYTES * rate / 8)}
        yield Maker(coder, corpus, None, in_training)("bits_per_byte", rate, "classical", settings=about)


def modality(make: Maker, corpus: str) -> Iterator[dict]:
    for rule, rate in (("appended", 6.1), ("scaled", 5.8), ("coded", 6.05)):
        yield make("bits_per_byte", rate, label=f"mapping {rule}")
    for coder, rate in (("PNG", 4.26), ("FLAC", 4.9), ("gzip -9", 4.85), ("xz -9e", 4.27)):
        yield Maker(coder, corpus, None)("bits_per_byte", rate, "classical", label="chunk 2048")


def prequential(model: str, corpus: str) -> Iterator[dict]:
    for step in STEPS[1:]:
        mean = sum(rate_at(past) for past in range(step)) / step
        make = Maker(model, corpus, step, "known")
        yield make("bits_per_byte", mean, "prequential")
        yield make("bits_per_token", BYTES_PER_TOKEN * mean, "prequential")


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    table = rows_to_table(list(rows))
    check_unique(table)
    return to_frame(table)


def full_rows(
    model: str = "demo", corpus: str = "alice29.txt", in_training: str = "no", coders: bool = True
) -> Iterator[dict]:
    """Everything the study measures of one model on one text."""
    for step in STEPS:
        make = Maker(model, corpus, step, in_training)
        yield from rates(make, step)
        yield from positions(make, step)
    make = Maker(model, corpus, STEPS[-1], in_training)
    yield from chunks(make, STEPS[-1])
    yield from codec(make, STEPS[-1])
    yield from ranks(make, STEPS[-1])
    yield from widths(make, CODERS)
    if coders:
        yield from retention(make, corpus)
        yield from classical(corpus, CODERS)
    else:
        yield from (made for made in retention(make, corpus) if made["model"] != "PPM")


def full_table() -> pd.DataFrame:
    """One model, a text with everything, a photograph in patches, and the text of a training run."""
    photo = Maker("demo", "camera.png patches", STEPS[-1], "no")
    rows = [*full_rows(), *modality(photo, "camera.png patches"), *prequential("demo", "training text")]
    return frame([*rows, *classical("training text", {"xz -9e": 2.9, "PPMd": 2.5}, "known")])
