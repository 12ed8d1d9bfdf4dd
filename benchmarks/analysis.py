"""The whole analysis of a checkpoint against a bare forward pass with the LM head on the same batches.

A 70M-shaped GPT-NeoX, V = 50,304, hook_embed and 6 × hook_resid_post, orders 1 to 4 both ways, both nulls, both ends
with their influence values, 5 anchor draws, coding rate, with memory settings as for 1 M tokens (float16 scratch
files). Counted: everything from the first batch to the written part, labels and reduction too. Bare passes
(inference_mode, no cache, sdpa; whole and chunked head, the faster one counts) alternate with the analysed batches, so
that a drifting machine hits both.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import Result
from benchmarks.shapes import pythia_70m, tokenizer
from infocomp.coding.rate import CodeLength
from infocomp.execution.store import Store
from infocomp.studies import measurement
from infocomp.studies.information_probe import InformationProbe
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import ComputeSettings, CorpusSettings, EstimatorSettings

TOKENS, CONTEXT, BATCH_TOKENS, HEAD_CHUNK, ROUNDS = 102_400, 256, 4096, 256, 1
DOCUMENT_TOKENS = 1024  # a hundred documents: without, too few could be paired for a null across documents
SITES = ("hook_embed", "blocks.*.hook_resid_post")
TARGET = 1.25 * 1.3  # values and nulls 1.25; both ends, point, standard errors and token channel at most 1.3 × that
AS_FOR_A_MILLION = 1  # bytes: everything goes to scratch files


class Clock:
    """Seconds of the analysis, with the bare passes in between taken out, and where they went."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.outside = 0.0

    def timed(self, owner: Any, name: str, label: str) -> None:
        """Count what `owner.name` takes as `label`."""
        call = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            start, outside = time.perf_counter(), self.outside
            result = call(*args, **kwargs)
            elapsed = time.perf_counter() - start - (self.outside - outside)
            self.parts[label] = self.parts.get(label, 0.0) + elapsed
            return result

        setattr(owner, name, counted)


def bare_pass(model: Any, ids: torch.Tensor, chunk: int | None) -> float:
    """Seconds of one forward pass with the LM head, whole or in chunks of positions."""
    head = model.get_output_embeddings()
    start = time.perf_counter()
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        for part in hidden.split(chunk or len(hidden)):
            head(part)
    return time.perf_counter() - start


def run(tokens: int = TOKENS) -> list[Result]:
    """The ratio, and where each percent of the bare pass goes."""
    model = pythia_70m()
    settings = CorpusSettings(
        name="built-in text",
        builtin="training",
        context_length=CONTEXT,
        packing=True,
        max_tokens=tokens,
        document_tokens=DOCUMENT_TOKENS,
    )
    estimator, compute = EstimatorSettings(), ComputeSettings(batch_tokens=BATCH_TOKENS, memory_budget=AS_FOR_A_MILLION)
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
        cache = Path(folder) / "cache"
        prepare_corpus(settings, tokenizer(), estimator.orders, cache)  # tokenised once for all checkpoints
        for labels in cache.glob("labels-*"):
            labels.unlink()  # labels are counted
        rounds = sorted(
            (_one(model, settings, estimator, compute, Path(folder), cache) for _ in range(ROUNDS)),
            key=lambda found: found[0],
        )
    ratio, shares = rounds[ROUNDS // 2]
    print(
        f"  {ROUNDS} rounds: {', '.join(f'{found:.3f}' for found, _ in rounds)}; the middle one, in % of the bare pass:"
    )
    print("  " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in shares.items()))
    spread = f"{rounds[0][0]:.3f} to {rounds[-1][0]:.3f} over {ROUNDS} rounds"
    return [Result("whole analysis, against a bare pass", ratio, "×", TARGET, note=spread)]


def _one(model: Any, settings: CorpusSettings, estimator: Any, compute: Any, folder: Path, cache: Path) -> Any:
    clock = Clock()
    whole, chunked = [], []
    begin = time.perf_counter()
    prepared = prepare_corpus(settings, tokenizer(), estimator.orders, cache)
    for labels in cache.glob("labels-*"):
        labels.unlink()
    if prepared.partner is None:
        raise RuntimeError("this text has no null across documents, so that the benchmark would leave out its cost")
    _ = prepared.groups, prepared.token_joint
    clock.parts["labels"] = time.perf_counter() - begin
    every = torch.from_numpy(prepared.corpus.tokens[: len(prepared.corpus.tokens) // CONTEXT * CONTEXT]).long()
    batches = every.view(-1, CONTEXT).split(compute.batch_tokens // CONTEXT)
    for batch in batches[:2]:
        bare_pass(model, batch, None), bare_pass(model, batch, HEAD_CHUNK)

    def between(_: int) -> None:
        start = time.perf_counter()
        batch = batches[min(len(whole), len(batches) - 1)]
        whole.append(bare_pass(model, batch, None) / batch.numel())
        chunked.append(bare_pass(model, batch, HEAD_CHUNK) / batch.numel())
        clock.outside += time.perf_counter() - start

    originals = [(InformationProbe, "compute"), (InformationProbe, "keep"), (CodeLength, "compute")]
    originals += [(measurement, "stream"), (measurement, "information_rows")]
    saved = [(owner, name, getattr(owner, name)) for owner, name in originals]
    labels = ("assignments", "scratch files", "code length", "stream", "reduction")
    for (owner, name), label in zip(originals, labels, strict=True):
        clock.timed(owner, name, label)
    try:
        start, outside = time.perf_counter(), clock.outside
        about = {"model": "pythia-70m shape", "revision": "random"}
        measured = measurement.measure_corpus(
            model, prepared, SITES, estimator, compute, about, folder / "scratch", between
        )
        before_writing = time.perf_counter()
        Store(folder / "out").write("0" * 16, measured.rows, measured.documents, measured.influence)
        clock.parts["writing"] = time.perf_counter() - before_writing
        total = time.perf_counter() - start - (clock.outside - outside) + clock.parts["labels"]
    finally:
        for owner, name, original in saved:
            setattr(owner, name, original)
    bare = min(statistics.median(whole), statistics.median(chunked)) * prepared.windows.total_positions
    inside = clock.parts["assignments"] + clock.parts["scratch files"] + clock.parts["code length"]
    parts = {name: seconds / bare for name, seconds in clock.parts.items() if name != "stream"}
    parts["base model without head"] = (clock.parts["stream"] - inside) / bare
    return total / bare, parts
