"""Bits that a model spends on each token of equally long samples, and which of these tokens it would emit greedily.

One teacher-forced pass tells both: the code length −log2 p(token | the tokens before it) that unintended memorization
is a difference of (Morris et al. 2025, arXiv 2505.24832), and whether the token is the most likely one, of which a
whole continuation emitted greedily consists (k-extractable memorization, Biderman et al. 2023, arXiv 2304.11158): while
every token so far is the most likely one, what greedy decoding has emitted is the sample itself, so no generation is
needed to see a full match.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.coding.rate import plain_head
from infocomp.memorization.greedy import check_never
from infocomp.units import bits

POSITIONS = {"cpu": 256, "cuda": 4096}  # whose logits over the whole vocabulary are held at once

Progress = Callable[[int], None]


@dataclass(frozen=True)
class SamplePass:
    """What one teacher-forced pass tells of each scored token: its bits, and whether it is the most likely one of
    those that may be emitted."""

    bits: Float[np.ndarray, "n scored"]
    greedy: Bool[np.ndarray, "n scored"]

    def first_difference(self, continuation: int) -> Int[np.ndarray, "n"]:
        """How many of the last `continuation` tokens come out greedily before the first that doesn't: all of them where
        the sample is extracted from the tokens before its continuation.

        ValueError: a continuation that is empty or longer than what was scored.
        """
        scored = self.greedy.shape[1]
        if not 1 <= continuation <= scored:
            raise ValueError(
                f"continuation is {continuation}, and a sample has {scored} scored tokens; take 1 to {scored}."
            )
        return self.greedy[:, -continuation:].cumprod(axis=1).sum(axis=1)


def sample_pass(
    model: PreTrainedModel,
    rows: Int[np.ndarray, "n length"],
    bos: int | None = None,
    batch_rows: int = 64,
    progress: Progress | None = None,
    never: Sequence[int] = (),
) -> SamplePass:
    """Read samples of equal length, each on its own and after `bos` where one is given; bits are float64.

    Without a BOS the first token of a sample is context alone: nothing predicts it, so it is not scored and its column
    is left out (`scored` is length − 1, else length). Of tokens that are equally likely the first of the vocabulary
    counts as the greedy one, as in `generate`; a plain LM head is computed in float32 whatever the model's dtype, which
    may tell two nearly equal tokens apart otherwise than generation in half precision does. Tokens in `never` are not
    emitted, so that none of them is a greedy one, as in `extract`; bits are of the model as it is, whatever `never`
    says. `progress` is told the positions read with each batch.
    ValueError: rows that are no table of tokens, a token that the model doesn't embed, samples longer than the model
    reads, a token in `never` that the model has not, a code length that is not finite (a diverged model).
    """
    _check(model, rows, bos, batch_rows)
    check_never(model, never)
    device = next(model.parameters()).device
    head = _float_head(model)
    codes, greedy = [], []
    with torch.inference_mode():
        for begin in range(0, len(rows), batch_rows):
            batch = torch.from_numpy(np.ascontiguousarray(rows[begin : begin + batch_rows]).astype(np.int64))
            batch = batch.to(device)
            if bos is not None:
                batch = torch.cat([batch.new_full((len(batch), 1), bos), batch], dim=1)
            nats, first = _of_batch(model, head, batch, list(never))
            codes.append(nats.double().cpu().numpy())
            greedy.append(first.cpu().numpy())
            if progress is not None:
                progress(batch.shape[0] * (batch.shape[1] - 1))
    nats = np.concatenate(codes)
    wrong = int((~np.isfinite(nats)).sum())
    if wrong:
        raise ValueError(
            f"the code length of {wrong} of {nats.size} tokens is NaN or infinite: the model has diverged or its "
            "logits overflow; use a wider dtype, or leave the checkpoint out."
        )
    return SamplePass(nats * bits(1.0), np.concatenate(greedy))


def sample_bits(
    model: PreTrainedModel,
    rows: Int[np.ndarray, "n length"],
    bos: int | None = None,
    batch_rows: int = 64,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n scored"]:
    """Bits of each scored token, of `sample_pass`: without a BOS the column of the first token is dropped."""
    return sample_pass(model, rows, bos, batch_rows, progress).bits


def _float_head(model: PreTrainedModel) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a plain LM head in float32; None where the model's own logits have to be taken."""
    head = plain_head(model)
    return None if head is None else (head[0].float(), None if head[1] is None else head[1].float())


def _of_batch(
    model: PreTrainedModel,
    head: tuple[Tensor, Tensor | None] | None,
    ids: Int[Tensor, "n length"],
    never: list[int],
) -> tuple[Float[Tensor, "n scored"], Bool[Tensor, "n scored"]]:
    """Nats of every token but the first, and whether it is the greedy one."""
    output: Any = (model if head is None else model.base_model)(input_ids=ids[:, :-1], use_cache=False)
    states = output.logits if head is None else output.last_hidden_state
    targets, size = ids[:, 1:].reshape(-1), POSITIONS.get(ids.device.type, 256)
    parts = [
        _of_positions(some, target, head, never)
        for some, target in zip(states.reshape(-1, states.shape[-1]).split(size), targets.split(size), strict=True)
    ]
    shape = (len(ids), ids.shape[1] - 1)
    nats, first = (torch.cat(part).view(shape) for part in zip(*parts, strict=True))
    return nats, first


def _of_positions(
    states: Float[Tensor, "positions dim"],
    targets: Int[Tensor, "positions"],
    head: tuple[Tensor, Tensor | None] | None,
    never: list[int],
) -> tuple[Float[Tensor, "positions"], Bool[Tensor, "positions"]]:
    logits = states.float() if head is None else torch.nn.functional.linear(states.float(), *head)
    chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    if never:  # left out of the comparison alone, and back in the sum
        of_never = logits[:, never]
        logits[:, never] = -torch.inf
        first = logits.argmax(dim=1) == targets
        logits[:, never] = of_never
    else:
        first = logits.argmax(dim=1) == targets
    largest = logits.amax(dim=1, keepdim=True)
    # the target's logit and the sum are of the same numbers, so that no rounding makes a code length negative
    nats = logits.sub_(largest).exp_().sum(dim=1).log_() + (largest.squeeze(1) - chosen)
    return nats, first


def _check(model: PreTrainedModel, rows: Any, bos: int | None, batch_rows: int) -> None:
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}.")
    least = 1 if bos is not None else 2
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer) or not len(rows) or rows.shape[1] < least:
        raise ValueError(
            f"rows must be whole numbers [samples, at least {least} tokens], got {rows.dtype} {tuple(rows.shape)}; "
            "give one token id a cell, and at least one sample."
        )
    low, high = min(int(rows.min()), bos or 0), max(int(rows.max()), bos or 0)
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr]
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"the samples hold token {low if low < 0 else high}, and the model embeds tokens 0 to {vocabulary - 1}; "
            "tokenise them with the model's own tokenizer."
        )
    positions = rows.shape[1] - (bos is None)
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and positions > longest:
        raise ValueError(
            f"a sample of {rows.shape[1]} tokens{'' if bos is None else ' after a BOS'} needs {positions} positions, "
            f"and the model reads {longest}; take shorter samples."
        )
