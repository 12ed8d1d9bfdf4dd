"""One model on one data set of a comparison, against the bare forward passes with the LM head on the same windows.

A 70M-shaped GPT-NeoX, d = 512, V = 50,304, hook_embed and 6 × hook_resid_post and the final norm. Counted: everything
that `measure_model` does from the first batch to its rows: informations of orders 1 to 4 in five anchor draws with
nulls, ends and influences, coding rate, scatters, spectra with intervals, growth, intrinsic dimension, curvature,
Shepard's law. The bare pass runs before and after (inference_mode, sdpa, head in chunks); their mean counts.
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks.analysis import HEAD_CHUNK, bare_pass
from benchmarks.record import Result
from benchmarks.shapes import pythia_70m, tokenizer
from infocomp.config import load_config
from infocomp.corpora.chat import ChatTemplate
from infocomp.studies.comparison_data import prepare_data
from infocomp.studies.comparison_measures import measure_model

TOKENS, CONTEXT, DOCUMENT_TOKENS, BATCH_TOKENS = 102_400, 256, 1024, 4096
TARGET = 1.5


def run(tokens: int = TOKENS) -> list[Result]:
    """Seconds of the whole over those of the bare passes."""
    data = {"name": "text", "builtin": "training", "context_length": CONTEXT, "max_tokens": tokens}
    config = load_config(
        {
            "study": "comparison",
            "base": {"source": "single", "path": "."},
            "tuned": [{"source": "single", "path": ".."}],
            "data": [data | {"document_tokens": DOCUMENT_TOKENS, "in_training": "no"}],
        }
    )
    model = pythia_70m()
    prepared = prepare_data(config.data[0], None, tokenizer(), ChatTemplate(), config.estimator.orders)  # type: ignore[attr-defined]
    columns = {"model": "bench", "revision": "random", "corpus": "text"}
    about = {"role": "base", "base": "bench", "place": 0}
    before = _bare(model, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        found = measure_model(model, prepared, config, columns, about, Path(scratch), lambda n: None)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
    bare = (before + _bare(model, tokens)) / 2
    note = f"{tokens:,} tokens, {len(found.rows)} rows; whole {seconds:.1f} s, bare {bare:.1f} s"
    return [Result("all measures of a comparison over the bare passes", seconds / bare, "x", TARGET, note=note)]


def _bare(model: torch.nn.Module, tokens: int) -> float:
    ids = torch.randint(0, 50_000, (BATCH_TOKENS // CONTEXT, CONTEXT), generator=torch.Generator().manual_seed(0))
    bare_pass(model, ids, HEAD_CHUNK)
    return sum(bare_pass(model, ids, HEAD_CHUNK) for _ in range(tokens // BATCH_TOKENS))
