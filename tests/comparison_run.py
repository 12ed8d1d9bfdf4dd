"""A base model, tuned ones and data sets for comparisons: tiny GPT-NeoX folders with a tokenizer, made in a second."""

import json
from pathlib import Path

import numpy as np
import torch
from tiny_models import tiny_model
from tiny_text import some_texts, tiny_tokenizer

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"


def write_model(
    folder: Path, seed: int = 0, moved: float = 0.0, template: bool = False, architecture: str = "gpt_neox", **tokenizer
) -> Path:
    """A checkpoint folder; `moved` adds noise of that size to every weight, with another seed than the weights'."""
    model = tiny_model(architecture, seed=seed)
    if moved:
        noise = torch.Generator().manual_seed(seed + 1000)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(moved * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(folder)
    made = tiny_tokenizer(**tokenizer)
    if template:
        made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return folder


def write_pairs(path: Path, pairs: int = 24, marked: bool = True, seed: int = 0, words: int = 12) -> Path:
    """Prompts with two completions of words; of a marked data set the chosen ones hold one word again and again."""
    generator = np.random.default_rng(seed)
    texts = some_texts(3 * pairs, words, seed + 1)
    lines = []
    for number in range(pairs):
        prompt, chosen, rejected = texts[3 * number : 3 * number + 3]
        if marked:
            chosen = " ".join(word if generator.random() < 0.5 else "tatata" for word in chosen.split()) + ".\n"
        lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_text(path: Path, documents: int = 16, seed: int = 50) -> Path:
    """One document a line, as JSON."""
    lines = [json.dumps({"text": text}) for text in some_texts(documents, 60, seed)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def comparison_config(base: Path, tuned: dict[str, Path], data: dict[str, Path], **settings) -> dict:
    """A small configuration: two draws of 20 bins, orders 1 and 2, small samples."""
    sets = []
    for name, path in data.items():
        kind = "preference" if "pairs" in path.name else "chat" if "chat" in path.name else "text"
        source = {"pairs": {"files": str(path)}} if kind == "preference" else {"text": {"files": str(path)}}
        sets.append({"name": name, "kind": kind, "context_length": 48} | source)
    return {
        "study": "comparison",
        "base": {"source": "single", "path": str(base), "name": "base"},
        "tuned": [
            {"source": "single" if (path / "config.json").exists() else "folder", "path": str(path), "name": name}
            for name, path in tuned.items()
        ],
        "data": sets,
        "estimator": {"bins": 20, "draws": 2, "orders": [1, 2]},
        "spectra": {"sample": 256, "rank_from": 3, "rank_to": 20},
        "preference": {"flips": 100, "folds": 3, "control": 2},
        "similarity": {"sample": 200, "items": 40, "words": 40, "word_neighbours": 4},
        "shepard": {"items": 48},
        "compute": {"threads": 1, "device": "cpu"},
    } | settings
