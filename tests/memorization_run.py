"""A memorization study on a tiny series that reads one short text dozens of times, and slow twins of its numbers."""

import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_run import WORDS
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT, PROMPT, CONTINUATION = 24, 8, 8
LENGTH = PROMPT + CONTINUATION
STEPS, READ_UNTIL = 160, 4
DOCUMENTS = 12


def write_documents(folder: Path, seed: int, documents: int = DOCUMENTS, words: int = 60) -> Path:
    """Documents of word salad, one a file; those of two seeds are of one kind and share nothing."""
    generator = random.Random(seed)
    texts = folder / f"salad-{seed}"
    texts.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        text = " ".join(generator.choice(WORDS) for _ in range(words))
        (texts / f"{number:02}.txt").write_text(text + ".\n", encoding="utf-8")
    return texts


def memorization_config(folder: Path, **more) -> dict:
    """Members are the windows that the series was trained on, never-trained rows other documents of the same kind."""
    series = {"vocabulary": 320, "hidden_size": 32, "layers": 2, "heads": 2, "context_length": CONTEXT, "batch": 8}
    series |= {"steps": STEPS, "checkpoints": {"log_spaced_until": 4}, "state_every_steps": 50}
    series |= {"schedule": {"warmup_steps": 5, "decay": "linear"}}
    trained_on = {"files": str(write_documents(folder, 0)), "in_training": "known"}
    return {
        "study": "memorization",
        "model": {"source": "series", "name": "tiny", "series": series, "text": trained_on},
        "members": {"name": "read windows", "series": "read"},
        "never_trained": {"name": "other salad", "path": str(write_documents(folder, 1))},
        "references": [{"name": "step 4", "revision": f"step{READ_UNTIL}"}],
        "samples": {"prompt": PROMPT, "continuation": CONTINUATION, "count": 48, "batch_rows": 16},
        "extraction": {"score_count": 24, "batch_rows": 16},
        "fragility": {"changes": [1, 4], "count": 24},
        "compute": {"threads": 1, "device": "cpu"},
    } | more


def of_folder(config: dict, out: Path, *revisions: str) -> dict:
    """The same study on checkpoints that lie in a folder."""
    model = {"source": "folder", "path": str(out / "checkpoints"), "name": "tiny"}
    return config | {"model": model | ({"revisions": list(revisions)} if revisions else {})}


@cache
def loaded(out: Path, step: int = STEPS) -> tuple[Any, Any]:
    path = out / "checkpoints" / f"step{step}"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(path)


def slow_bits(out: Path, rows: np.ndarray, step: int = STEPS) -> np.ndarray:
    """Bits of each token of each row after a BOS, a row at a time, float64."""
    model, tokenizer = loaded(out, step)
    found = []
    for row in rows.tolist():
        with torch.inference_mode():
            logits = model(torch.tensor([[tokenizer.bos_token_id, *row]])).logits[0, :-1].double()
        found.append((-torch.log_softmax(logits, -1)[range(len(row)), row] / math.log(2)).numpy())
    return np.array(found)


def slow_score(out: Path, rows: np.ndarray, step: int = STEPS) -> np.ndarray:
    """Share of each row's continuation that `generate` emits after a BOS and the prompt."""
    model, tokenizer = loaded(out, step)
    before = np.full((len(rows), 1), tokenizer.bos_token_id)
    prompts = torch.tensor(np.hstack([before, rows[:, :PROMPT]]))
    lengths = {"max_new_tokens": CONTINUATION, "min_new_tokens": CONTINUATION}
    emitted = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, eos_token_id=None, pad_token_id=0, **lengths
    )
    return (emitted[:, PROMPT + 1 :].numpy() == rows[:, PROMPT:]).mean(axis=1)
