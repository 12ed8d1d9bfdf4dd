"""A whole run in a few seconds on one thread: trains a tiny GPT-NeoX on a text made here, measures four checkpoints."""

import random
from pathlib import Path

TEXT = """
the a of to and in that it was for on with as his they at be this from have or by one had not but what all were when we
there can an your which their said if do will each about how up out them then she many some so these would other into
has more her two like him see time could no make than first been its who now people my made over did down only way find
use may water long little very after words called just where most know
"""
WORDS = TEXT.split()


def write_text(folder: Path, documents: int = 40, seed: int = 0) -> Path:
    """Documents of word salad with repetitions, one a file."""
    generator = random.Random(seed)
    texts = folder / f"texts-{seed}"
    texts.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        favourites = generator.sample(WORDS, 25)
        words = [generator.choice(favourites if generator.random() < 0.7 else WORDS) for _ in range(300)]
        (texts / f"{number:03}.txt").write_text(" ".join(words) + ".\n", encoding="utf-8")
    return texts


def tiny_config(folder: Path, steps: int = 8) -> dict:
    """A configuration of the information plane over a series that the run trains itself."""
    series = {"vocabulary": 320, "hidden_size": 32, "layers": 2, "heads": 2, "context_length": 32, "batch": 4}
    series |= {"steps": steps, "checkpoints": {"log_spaced_until": 4}, "state_every_steps": 2, "schedule": {}}
    series |= {"optimizer": {"name": "adamw", "learning_rate": 0.003}}
    corpus = {"name": "held out", "text": {"files": str(write_text(folder, 12, seed=1)), "in_training": "no"}}
    return {
        "study": "information_plane",
        "model": {
            "source": "series",
            "name": "tiny",
            "series": series,
            "text": {"files": str(write_text(folder, 40)), "in_training": "known"},
        },
        "corpora": [corpus | {"context_length": 32, "bos": "window"}],
        "estimator": {"bins": 20, "draws": 2, "orders": [1, 2]},
        "compute": {"threads": 1, "device": "cpu"},
    }
