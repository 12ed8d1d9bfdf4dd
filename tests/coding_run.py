"""A coding study on a tiny series, and slow twins of its numbers: plain forward passes, one window at a time."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tiny_run import tiny_config, write_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from infocomp.execution.table import KEY

CONTEXT = 32  # positions, a BOS included
DOCUMENTS = 12
HEAD = 2000


def coding_config(folder: Path, **more) -> dict:
    """All sections, on two texts: one of twelve documents, and a picture."""
    texts = write_text(folder, DOCUMENTS, seed=1)
    rng = np.random.default_rng(0)
    picture = (np.add.outer(np.arange(32), np.arange(128)) + rng.integers(0, 9, (32, 128))).astype(np.uint8)
    Image.fromarray(picture).save(folder / "grey.png")
    return {
        "study": "coding",
        "model": tiny_config(folder)["model"],
        "texts": [
            {"name": "salad", "path": str(texts), "in_training": "no"},
            {"name": "grey", "path": str(folder / "grey.png"), "modality": "image"},
        ],
        "rate": {"chunk_lengths": [16], "sliding": [{"context_length": 32, "stride": 16}]},
        "codec": {"max_bytes": HEAD, "chunk_tokens": [8]},
        "ranks": {"max_bytes": HEAD},
        "weights": {"widths": [16, 2]},
        "classical": {"coders": ["gzip -9", "PPMd"], "chunk_bytes": [512]},
        "prequential": {"points": 4},
        "compute": {"threads": 1, "device": "cpu"},
    } | more


def one(table: pd.DataFrame, **columns) -> pd.Series:
    """The only row with these columns."""
    found = table
    for name, value in columns.items():
        found = found[found[name] == value]
    assert len(found) == 1, (columns, found[list(KEY)])
    return found.iloc[0]


@cache
def loaded(out: Path, step: int = 8):
    path = out / "checkpoints" / f"step{step}"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


def documents_of(folder: Path) -> list[str]:
    return [path.read_text("utf-8") for path in sorted((folder / "texts-1").glob("*.txt"))]


def slow_bits(model, tokenizer, text: str, room: int, stride: int | None = None) -> list[tuple[int, float]]:
    """(place in its window, bits) of every token of one document, in order; each window after a BOS."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found: list[tuple[int, float]] = []
    begin = 0
    while len(found) < len(ids):
        window = ids[begin : begin + room]
        with torch.inference_mode():
            logits = model(torch.tensor([[tokenizer.bos_token_id, *window]])).logits[0].double()
        bits = -torch.log_softmax(logits, -1) / math.log(2)
        fresh = range(len(found) - begin, len(window))
        found += [(place, float(bits[place, window[place]])) for place in fresh]
        begin += stride or room
    return found


@cache
def default_twin(folder: Path, step: int = 8):
    """Of every document, its text and (place, bits) of its tokens."""
    model, tokenizer = loaded(folder / "out", step)
    return [(text, slow_bits(model, tokenizer, text, CONTEXT - 1)) for text in documents_of(folder)]


def slow_ratio(amounts: list[float], sizes: list[float]) -> tuple[float, float]:
    """Ratio of sums over documents and its standard error, as the delta method has it, written out."""
    n, ratio = len(amounts), sum(amounts) / sum(sizes)
    moved = [(amount - ratio * size) / sum(sizes) for amount, size in zip(amounts, sizes, strict=True)]
    return ratio, math.sqrt(n / (n - 1) * sum(one**2 for one in moved))
