"""Windows that a series of ours was trained on, and windows of the same text that it never read.

A training window is <|endoftext|> and the tokens after it, and a sample is the beginning of one, read as it was in
training where `samples.bos` is "window". The unread windows of the same text are of one distribution with the members,
which another text never is; they may share a document with a member, and what a model knows of the document from there
is not memorized of them.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from infocomp.studies.memorization_settings import SeriesRowsSettings
from infocomp.training.series import SEPARATOR, SeriesRun, read_series


def series_rows(
    settings: SeriesRowsSettings, out: Path, length: int, name: str
) -> tuple[Int[np.ndarray, "n length"], Int[np.ndarray, "n"], list[Int[np.ndarray, "times"]]]:
    """Rows, the document of each, and the steps at which each was read.

    Windows with a document's end in their first `length` tokens are left out. FileNotFoundError: `out` holds no
    training. ValueError: samples longer than a window, steps that the run has not made, no window of this kind.
    """
    run = read_series(out)
    if length > run.context_length:
        raise ValueError(
            f"samples have {length} tokens, and {name!r} are training windows of {run.context_length}; shorten them."
        )
    done = max(run.saved, default=0)
    last = done if settings.to_step is None else settings.to_step
    if last > done or settings.from_step >= done:
        raise ValueError(
            f"{name!r} are windows read from step {settings.from_step} to {last}, and the last checkpoint of "
            f"the run in {out} is of step {done}; name steps before it."
        )
    steps_of = _steps_of(run, done)
    tokens = run.tokens.numpy()
    heads = tokens[: run.windows * run.context_length].reshape(run.windows, run.context_length)[:, :length]
    ends = tokens == _separator(run)
    documents = np.cumsum(ends)[np.arange(run.windows) * run.context_length]
    whole = ~(heads == _separator(run)).any(axis=1)
    if settings.which == "unread":
        wanted = np.array([not len(steps) for steps in steps_of])
    else:
        wanted = np.array([((steps >= settings.from_step) & (steps < last)).any() for steps in steps_of])
    chosen = np.flatnonzero(wanted & whole)
    if not len(chosen):
        raise ValueError(
            f"{name!r}: none of the {run.windows:,} windows of the training text is {settings.which} in one document"
            + (", every one was read; give a text of its own." if settings.which == "unread" else "; name more steps.")
        )
    return heads[chosen], documents[chosen], [steps_of[window] for window in chosen]


def _steps_of(run: SeriesRun, done: int) -> list[np.ndarray]:
    """The steps whose update each window was part of."""
    windows = np.concatenate([run.order(step).numpy() for step in range(done)])
    steps = np.repeat(np.arange(done), run.batch)
    order = np.argsort(windows, kind="stable")
    ends = np.cumsum(np.bincount(windows, minlength=run.windows))
    return np.split(steps[order], ends[:-1])


def _separator(run: SeriesRun) -> int:
    number = Tokenizer.from_file(str(run.tokenizer)).token_to_id(SEPARATOR)
    assert number is not None
    return number
