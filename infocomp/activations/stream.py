"""One forward pass over a corpus feeds every probe; no layer's activations outlive their batch.

A probe says which sites it needs and whether it needs the final hidden states. For each batch it first computes from
the activations, then keeps the result: when memory runs out in between, the batch is halved and done again, and
nothing is counted twice.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.activations.capture import capture
from infocomp.corpora.windows import Windows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Windows first … last − 1 of a corpus and what the model made of them.

    `measured` are the measured positions and `predicting` the positions whose next token is scored, both as indices
    into batch × position flattened; `targets` are those next tokens. `rows` and `scored` say where these rows stand
    in the order of `Windows.row_tokens` and `Windows.scored_tokens`.
    """

    ids: Int[Tensor, "batch position"]
    measured: Int[Tensor, "rows"]
    predicting: Int[Tensor, "scored"]
    targets: Int[Tensor, "scored"]
    rows: slice
    scored: slice
    activations: Mapping[str, Float[Tensor, "batch position dim"]]
    hidden: Float[Tensor, "batch position dim"] | None
    logits: Float[Tensor, "batch position vocabulary"] | None

    def rows_of(self, site: str) -> Float[Tensor, "rows dim"]:
        """The measured rows of one site."""
        activations = self.activations[site]
        return activations.reshape(-1, activations.shape[-1]).index_select(0, self.measured)


class Probe(Protocol):
    """What a study plugs into the stream."""

    @property
    def sites(self) -> Sequence[str]: ...

    @property
    def needs_hidden(self) -> bool: ...

    @property
    def needs_logits(self) -> bool: ...

    def compute(self, batch: Batch) -> Any:
        """From one batch to what is worth keeping; changes nothing in the probe."""
        ...

    def keep(self, computed: Any) -> None:
        """Append what `compute` gave."""
        ...


def stream(
    model: PreTrainedModel,
    windows: Windows,
    probes: Sequence[Probe],
    batch_tokens: int = 4096,
    progress: Callable[[int], None] | None = None,
    first_tokens: int | None = None,
) -> int:
    """Run the model once over all windows, or over the first ones up to `first_tokens` positions.

    `progress` is told the number of positions done with each batch. Returns the positions per batch that fitted in
    the end. Raises MemoryError when one window alone does not fit, ValueError for a text that this model cannot read.
    """
    _check_readable(model, windows)
    sites = sorted({site for probe in probes for site in probe.sites})
    device = next(model.parameters()).device
    with_logits = any(probe.needs_logits for probe in probes)
    forward = model if with_logits else model.base_model
    order = np.arange(len(windows)) if first_tokens is None else _first_windows(windows, first_tokens)
    cut = _Cutter(windows, order, device)
    begin = 0
    with torch.inference_mode(), capture(model, sites) as acts:

        def compute(begin: int, end: int) -> list[Any]:
            ids, parts = cut(begin, end)
            output = forward(input_ids=ids, use_cache=False)
            hidden, logits = (None, output.logits) if with_logits else (output.last_hidden_state, None)
            batch = Batch(ids=ids, activations=acts, hidden=hidden, logits=logits, **parts)
            return [probe.compute(batch) for probe in probes]

        while begin < len(order):
            longest = int(windows.lengths[order[begin]] + windows.has_bos[order[begin]])
            end = min(len(order), begin + max(1, batch_tokens // longest))
            try:
                computed = compute(begin, end)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if end - begin == 1:
                    raise MemoryError(
                        f"one window of {longest} tokens does not fit into the memory of {device}; "
                        "take a shorter context_length, a smaller dtype, or another device."
                    ) from error
                computed = None
            if computed is None:  # only here, past the error, whose traceback would hold on to the batch
                batch_tokens = (end - begin) * longest // 2
                log.warning("out of memory on %s: going on with %d tokens a batch", device, batch_tokens)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            for probe in probes:
                probe.keep(computed.pop(0))  # dropped as it is kept, so that none lives through the next pass
            if progress is not None:
                progress(int(windows.lengths[order[begin:end]].sum() + windows.has_bos[order[begin:end]].sum()))
            begin = end
    return batch_tokens


def _first_windows(windows: Windows, first_tokens: int) -> Int[np.ndarray, "chosen"]:
    """The windows that hold the first tokens of the text, and more until one of them has a measured row."""
    in_text = np.argsort(windows.starts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(windows.lengths[in_text]), first_tokens))
    enough = max(enough, int(np.argmax(windows.row_counts[in_text] > 0)))
    return np.sort(in_text[: enough + 1])


def _check_readable(model: PreTrainedModel, windows: Windows) -> None:
    """The model embeds every token of the text, and has positions for its longest window."""
    largest = max(int(windows.corpus.tokens.max()), windows.bos or 0)
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
    if largest >= vocabulary:
        raise ValueError(
            f"the text holds token {largest}, and the model embeds {vocabulary} tokens; "
            "tokenise it with the model's own tokenizer."
        )
    longest = int((windows.lengths + windows.has_bos).max())
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest > positions:
        raise ValueError(f"a window has {longest} positions, and the model {positions}; take a shorter context_length.")


def _out_of_memory(error: BaseException) -> bool:
    """torch raises a plain RuntimeError for memory on the CPU and on MPS."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


class _Cutter:
    """Cuts batches out of the windows; rows are counted over the windows in `order`."""

    def __init__(self, windows: Windows, order: Int[np.ndarray, "windows"], device: torch.device) -> None:
        self.windows, self.order, self.device = windows, order, device
        self.row_ends = np.r_[0, np.cumsum(windows.row_counts[order])]
        ends = windows.starts + windows.lengths
        self.scored_counts = np.maximum(ends - windows.score_from, 0)
        self.scored_ends = np.r_[0, np.cumsum(self.scored_counts[order])]

    def __call__(self, begin: int, end: int) -> tuple[Tensor, dict[str, Any]]:
        windows, chosen = self.windows, self.order[begin:end]
        bos = windows.has_bos[chosen].astype(np.int64)
        starts, lengths = windows.starts[chosen], windows.lengths[chosen]
        width = int((lengths + bos).max())
        # padding lies to the right, where a causal model never sees it
        ids = np.full((len(chosen), width), windows.bos if windows.bos is not None else 0, dtype=np.int64)
        for row, (start, length, shift) in enumerate(zip(starts, lengths, bos, strict=True)):
            ids[row, shift : shift + length] = windows.corpus.tokens[start : start + length]
        # flat position of corpus token t in window row r: r·width + (t − start) + bos
        base = np.arange(len(chosen)) * width + bos - starts
        measured = _flat(base, windows.measure_from[chosen], windows.row_counts[chosen])
        counts = self.scored_counts[chosen]
        scored = _flat(base, windows.score_from[chosen], counts)
        targets = ids.ravel()[scored]
        parts = {
            "measured": torch.from_numpy(measured).to(self.device),
            "predicting": torch.from_numpy(scored - 1).to(self.device),
            "targets": torch.from_numpy(targets).to(self.device),
            "rows": slice(int(self.row_ends[begin]), int(self.row_ends[end])),
            "scored": slice(int(self.scored_ends[begin]), int(self.scored_ends[end])),
        }
        return torch.from_numpy(ids).to(self.device), parts


def _flat(base: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(base + starts, counts) + offsets
