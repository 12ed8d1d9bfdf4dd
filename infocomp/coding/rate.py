"""The lossless coding rate of a model: −log p of each next token, from the pass that feeds every other probe.

An arithmetic coder spends within a fraction of a bit of Σ −log2 p(token | context) on a text (Delétang et al. 2024,
arXiv 2309.10668), so the sum is the size of the text under the model. Logits are never held as a whole: the vocabulary
is walked through in blocks that stay in cache, with a running maximum and a running sum.
"""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.activations.stream import Batch

ROWS = 1024  # positions at once; with COLUMNS of the vocabulary the block stays in cache
COLUMNS = {"cpu": 1024, "cuda": 8192}


class CodeLength:
    """Probe: code length in nats of every scored token of a corpus, in the order of `Windows.scored_tokens`."""

    sites: tuple[str, ...] = ()

    def __init__(self, model: PreTrainedModel) -> None:
        self.head = plain_head(model)
        self.needs_hidden, self.needs_logits = self.head is not None, self.head is None
        self._parts: list[Tensor] = []
        self._buffers: dict[torch.device, Tensor] = {}

    def compute(self, batch: Batch) -> Float[Tensor, "scored"]:
        """Code lengths in nats of the batch's scored tokens."""
        if self.head is not None and batch.hidden is not None:
            hidden = batch.hidden.reshape(-1, batch.hidden.shape[-1]).index_select(0, batch.predicting)
            parts = [
                blocked_code_lengths(some, target, *self.head, buffers=self._buffers)
                for some, target in zip(hidden.split(ROWS), batch.targets.split(ROWS), strict=True)
            ]
            return torch.cat(parts) if parts else hidden.new_zeros(0)
        assert batch.logits is not None
        logits = batch.logits.reshape(-1, batch.logits.shape[-1])
        parts = [
            torch.nn.functional.cross_entropy(logits[index].float(), target, reduction="none")
            for index, target in zip(batch.predicting.split(256), batch.targets.split(256), strict=True)
        ]
        return torch.cat(parts) if parts else logits.new_zeros(0)

    def keep(self, computed: Float[Tensor, "scored"]) -> None:
        self._parts.append(computed)

    def nats(self) -> Float[np.ndarray, "scored"]:
        """All code lengths, float64. Raises ValueError where one of them is not finite."""
        nats = torch.cat([torch.zeros(0, dtype=torch.float64), *(part.double().cpu() for part in self._parts)]).numpy()
        wrong = int((~np.isfinite(nats)).sum())
        if wrong:
            raise ValueError(
                f"the code length of {wrong} of {len(nats)} tokens is NaN or infinite: the logits overflow or hold "
                "NaN; use a wider dtype, or leave the checkpoint out."
            )
        return nats


def plain_head(model: PreTrainedModel) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of the LM head where logits are exactly hidden · weightᵀ + bias; None where they are not.

    Some architectures scale or cap their logits, or scale what goes into the head; one forward pass over a few tokens
    tells, whatever the architecture. In it the head answers with numbers from -200 to 200, which must come out of the
    model unchanged: a cap would not show in the small logits of an untrained model.
    """
    head = model.get_output_embeddings()
    weight: Any = getattr(head, "weight", None)
    bias: Any = getattr(head, "bias", None)
    if head is None or weight is None or weight.ndim != 2:
        return None
    seen: dict[str, Tensor] = {}

    def after_base(_: torch.nn.Module, __: tuple, output: Any) -> None:
        seen["hidden"] = getattr(output, "last_hidden_state", output[0])

    def after_head(_: torch.nn.Module, args: tuple, output: Tensor) -> Tensor:
        seen["given"], seen["logits"] = args[0], output
        seen["probe"] = torch.linspace(-200, 200, output.shape[-1], device=output.device).to(output.dtype)
        return seen["probe"].expand_as(output).clone()

    ids = torch.arange(min(4, len(weight)), device=weight.device).unsqueeze(0)
    with ExitStack() as hooks, torch.inference_mode():
        hooks.callback(model.base_model.register_forward_hook(after_base).remove)
        hooks.callback(head.register_forward_hook(after_head).remove)
        answered = model(input_ids=ids, use_cache=False).logits
    if set(seen) != {"hidden", "given", "logits", "probe"} or answered.shape[-1] != len(weight):
        return None
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    linear = torch.nn.functional.linear(seen["given"], weight, bias)
    plain = (
        _same(seen["hidden"], seen["given"])
        and _same(linear, seen["logits"], tolerance=1e-5)
        and _same(seen["probe"].expand_as(answered), answered)
    )
    return (weight, bias) if plain else None


def _same(one: Tensor, other: Tensor, tolerance: float = 0.0) -> bool:
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=tolerance, atol=tolerance)


def blocked_code_lengths(
    hidden: Float[Tensor, "rows dim"],
    targets: Int[Tensor, "rows"],
    weight: Float[Tensor, "vocabulary dim"],
    bias: Float[Tensor, "vocabulary"] | None = None,
    columns: int | None = None,
    buffers: dict[torch.device, Tensor] | None = None,
) -> Float[Tensor, "rows"]:
    """−log softmax(hidden · weightᵀ + bias)[target] in nats, in float32, by blocks of the vocabulary.

    log Σ exp over blocks by the running maximum M and sum S: S ← S·e^(M − M′) + Σ e^(x − M′). The target's logit is
    taken from its block, so that no rounding makes it larger than M and a code length negative.
    """
    columns = columns or COLUMNS.get(hidden.device.type, 4096)
    hidden = hidden.float()
    rows, vocabulary = len(hidden), len(weight)
    buffers = {} if buffers is None else buffers
    buffer = buffers.get(hidden.device)
    if buffer is None or buffer.numel() < rows * columns:
        buffer = buffers[hidden.device] = hidden.new_empty(rows * columns)
    largest = hidden.new_full((rows, 1), -torch.inf)
    total, chosen = hidden.new_zeros((rows, 1)), hidden.new_zeros((rows, 1))
    for start in range(0, vocabulary, columns):
        block = weight[start : start + columns].float()
        logits = buffer[: rows * len(block)].view(rows, len(block))
        if bias is None:
            torch.mm(hidden, block.T, out=logits)
        else:
            torch.addmm(bias[start : start + columns].float(), hidden, block.T, out=logits)
        place = targets.unsqueeze(1) - start
        inside = (place >= 0) & (place < len(block))
        chosen = torch.where(inside, logits.gather(1, place.clamp(0, len(block) - 1)), chosen)
        new_largest = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
        logits.sub_(new_largest).exp_()
        total.mul_(largest.sub_(new_largest).exp_()).add_(logits.sum(dim=1, keepdim=True))
        largest = new_largest
    return largest.sub_(chosen).add_(total.log_()).squeeze(1)
