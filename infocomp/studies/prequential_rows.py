"""The prequential code of a training run as rows: bits per token and byte of the text that it was given to read.

The folder of the run tells all: the loss of every step, which windows the step read, and the tokenizer. The text is the
windows in the order presented, separators between documents paid for and counted as no byte. Beside each rate stands
the adaptive unigram code of the same tokens. The tokenizer was trained on the whole text, and a decoder needs it before
it can begin: the last step has a second row, label "with tokenizer", that pays for it, as xz leaves it.
"""

import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer

from infocomp.coding.classical import classical_rates
from infocomp.coding.pieces import ExactTokenizer
from infocomp.coding.prequential import (
    PrequentialCode,
    Presentation,
    adaptive_unigram_bits,
    dropout_of,
    prequential_code,
)
from infocomp.training.series import SeriesRun, checkpoint_folder, read_series, separator_id

Row = dict[str, Any]
TEXT = "training text"
RULE = "each batch by the weights before its update, every window once, from one separator as context"


def prequential_rows(
    out: str | Path, about: Mapping[str, Any], points: int = 64, coders: Sequence[str] = (), corpus: str = TEXT
) -> list[Row]:
    """Rows of estimator "prequential" for the series that was trained in the folder `out`, at about `points` steps.

    These are spread evenly in the logarithm of the step, with every checkpoint's step and the last. `about` holds the
    columns that all rows share (model, dtype, …). With `coders`, classical ones code the same bytes in the same order.
    FileNotFoundError: no series was trained there. ValueError: more than one epoch, dropout, a diverged run.
    """
    run = read_series(out)
    code = run_code(run, Path(out))
    presentation = {"tokens_per_step": run.batch * run.context_length, "windows": run.windows, "rule": RULE}
    shared = {"corpus": corpus, "estimator": "prequential", "draw": "mean", "status": "ok", "in_training": "known"}
    shared |= {"context_length": run.context_length, "bos": "window", "packing": True, "seed": run.seed, **about}
    rows: list[Row] = []
    counts, counted = np.zeros(len(token_byte_lengths(run)), dtype=np.int64), 0
    for place in chosen_steps(len(code.steps), points, run.saved) - 1:
        step, tokens, size = (int(values[place]) for values in (code.steps, code.tokens, code.bytes))
        for batch in range(counted, step):
            counts += np.bincount(run.presented(batch).ravel().numpy(), minlength=len(counts))
        counted = step
        here = {"revision": f"step{step}", "step": step, "tokens_seen": tokens, "n_tokens": tokens}
        here |= {"settings": presentation | {"bytes": size, "epochs": step * run.batch / run.windows}}
        null = adaptive_unigram_bits(counts)
        values = {"bits_per_token": tokens, "bits_per_byte": size}
        rows += [
            {**shared, **here, "quantity": name, "unit": name.replace("bits_per_", "bits/")}
            | {"value": float(code.bits[place]) / n, "null": null / n}
            for name, n in values.items()
            if n
        ]
    with_side = {"label": "with tokenizer", "value": float(code.bits_per_byte_with_side[-1]), "null": None}
    with_side["settings"] = rows[-1]["settings"] | {"tokenizer_bytes": code.side_bytes}
    rows.append(rows[-1] | with_side)
    return rows + (_classical_rows(run, len(code.steps), coders, corpus) if coders else [])


def run_code(run: SeriesRun, out: Path) -> PrequentialCode:
    """The prequential code of a series; raises as `prequential_code` does."""
    losses = [row for row in run.rows if row.get("loss") is not None]
    lengths = token_byte_lengths(run)
    presentation = Presentation(
        windows=run.windows,
        batch=run.batch,
        context_length=run.context_length,
        dropout=dropout_of(_configuration(out, run)),
        side_bytes=len(lzma.compress(run.tokenizer.read_bytes(), preset=9 | lzma.PRESET_EXTREME)),
    )
    sizes = [int(lengths[run.presented(step)].sum()) for step in range(len(losses))]
    return prequential_code(losses, sizes, presentation)


def chosen_steps(last: int, points: int, saved: Sequence[int] = ()) -> Int[np.ndarray, "chosen"]:
    """About `points` steps from 1 to `last`, even in the logarithm, and the saved ones among them.

    >>> chosen_steps(100, 3, [0, 64]).tolist()
    [1, 10, 64, 100]
    """
    spaced = np.round(np.geomspace(1, last, points)).astype(np.int64)
    return np.unique([*spaced, last, *(step for step in saved if 1 <= step <= last)])


def token_byte_lengths(run: SeriesRun) -> Int[np.ndarray, "vocabulary"]:
    """Bytes of text that each token stands for; the separator stands for none."""
    tokenizer = Tokenizer.from_file(str(run.tokenizer))
    exact = ExactTokenizer(tokenizer)
    lengths = np.array([len(exact.decode([token])) for token in range(tokenizer.get_vocab_size())], dtype=np.int64)
    lengths[separator_id(tokenizer)] = 0
    return lengths


def presented_text(run: SeriesRun, steps: int) -> bytes:
    """The bytes of text that the first `steps` steps read, in that order, without separators."""
    tokenizer = Tokenizer.from_file(str(run.tokenizer))
    tokens = torch.cat([run.presented(step).ravel() for step in range(steps)])
    return ExactTokenizer(tokenizer).decode(tokens[tokens != separator_id(tokenizer)].tolist())


def _configuration(out: Path, run: SeriesRun) -> dict[str, Any]:
    """The configuration of the first checkpoint that is still there."""
    for step in run.saved:
        path = checkpoint_folder(out, step) / "config.json"
        if path.is_file():
            return json.loads(path.read_text("utf-8"))
    raise FileNotFoundError(
        f"{out} holds no checkpoint of its series, whose configuration says whether it has dropout; run it again"
    )


def _classical_rows(run: SeriesRun, steps: int, coders: Sequence[str], corpus: str) -> list[Row]:
    return [
        {
            "model": size.coder,
            "corpus": corpus,
            "quantity": "bits_per_byte",
            "estimator": "classical",
            "draw": "mean",
            "value": size.bits_per_byte,
            "unit": "bits/byte",
            "settings": {**json.loads(size.settings), "coded_bytes": size.bytes},
            "in_training": "known",
        }
        for size in classical_rates(presented_text(run, steps), coders)
    ]
