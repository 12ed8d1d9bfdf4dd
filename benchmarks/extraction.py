"""Extraction against a loop of `generate` with batch 1, on the same rows, in turn, in one process.

Pythia 70M's shape with random weights, 32 + 32 tokens. "random text" never agrees with the model and costs the most;
"own text" is what the model emits itself, as where everything is memorized; "match only" asks for full matches alone.
Every round times a few rows of the loop and then whole batches; best of the rounds on both sides.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.record import Result
from benchmarks.shapes import VOCABULARY, pythia_70m
from infocomp.memorization.extraction import extract

PROMPT, CONTINUATION = 32, 32
ROWS, LOOP_ROWS, ROUNDS = 64, 3, 2
_SETTINGS = GenerationConfig(do_sample=False, max_new_tokens=CONTINUATION, pad_token_id=0)


def run() -> list[Result]:
    """How many times faster a row is than in the loop, in three cases."""
    model: Any = pythia_70m()
    model.generation_config.eos_token_id = None  # the end of text is a token like any other, on both sides
    text = np.random.default_rng(0).integers(1, VOCABULARY, (ROWS, PROMPT + CONTINUATION))
    prompts = torch.from_numpy(text[:, :PROMPT])

    def generate(some: torch.Tensor) -> np.ndarray:
        mask = torch.ones_like(some)
        return model.generate(some, attention_mask=mask, generation_config=_SETTINGS).numpy()

    own = generate(prompts)
    _check_same(model, text[:LOOP_ROWS], np.concatenate([generate(row) for row in prompts[:LOOP_ROWS].split(1)]))
    ways: dict[str, Callable[[], object]] = {
        "random text": lambda: extract(model, text, batch_rows=ROWS),
        "own text": lambda: extract(model, own, batch_rows=ROWS),
        "random text, match only": lambda: extract(model, text, batch_rows=ROWS, score=False),
        "generate in one batch": lambda: generate(prompts),
    }
    loop, best = np.inf, dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS):
        loop = min(loop, _seconds(lambda: [generate(row) for row in prompts[:LOOP_ROWS].split(1)]) / LOOP_ROWS)
        for name, way in ways.items():
            best[name] = min(best[name], _seconds(way) / ROWS)
    batched = best.pop("generate in one batch")
    note = f"generate in one batch of {ROWS}: {loop / batched:.1f} ×, the loop {1000 * loop:.0f} ms a row"
    return [
        Result(f"extraction, {name}", loop / seconds, "×", 5, at_most=False, note=note)
        for name, seconds in best.items()
    ]


def _check_same(model: PreTrainedModel, text: np.ndarray, emitted: np.ndarray) -> None:
    """RuntimeError unless the scores are those of the generated tokens."""
    expected = (emitted[:, PROMPT:] == text[:, PROMPT:]).mean(axis=1)
    found = extract(model, text).score
    assert found is not None
    if not np.array_equal(found, expected) or not extract(model, emitted).extracted.all():
        raise RuntimeError("extraction and generate emit different tokens")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
