"""A text memorization study in a few seconds on one thread: word salad, a model of 3,000 parameters, four sizes."""

from pathlib import Path

from tiny_run import write_text

LENGTH, UNSEEN, STEPS = 8, 96, 160
SIZES = (12, 32, 100, 400)


def text_config(folder: Path, **changes) -> dict:
    """A whole configuration; every training takes less than a second."""
    text = {"files": str(write_text(folder, 40)), "in_training": "known"}
    config = {
        "study": "text_memorization",
        "text": {"name": "salad", "text": text},
        "samples": {"vocabulary": 264, "length": LENGTH, "sizes": list(SIZES), "unseen": UNSEEN},
        "model": {"layers": 1, "width": 8},
        "training": {"steps": STEPS, "batch": 64, "learning_rate": 0.02, "record_every": 50},
        "references": {"larger": {"layers": 1, "width": 16}},
        "compute": {"device": "cpu", "way": "in_turn", "threads": 1},
    }
    return config | changes
