"""The lossless coding rate of a model: −log p of each next token, from the pass that feeds every other probe.

An arithmetic coder spends within a fraction of a bit of Σ −log2 p(token | context) on a text (Delétang et al. 2024,
arXiv 2309.10668), so the sum is the size of the text under the model. Logits are never held as a whole: the vocabulary
is walked through in blocks that stay in cache, with a running maximum and a running sum.
"""

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
        self._buffers: dict[tuple, Tensor] = {}

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
        """All code lengths, float64."""
        parts = [part.double().cpu() for part in self._parts]
        return torch.cat(parts).numpy() if parts else np.zeros(0)


def plain_head(model: PreTrainedModel) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of the LM head where logits are exactly hidden · weightᵀ + bias; None where they are not.

    Some architectures scale or cap their logits; one small forward pass tells, whatever the architecture.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return None
    bias = getattr(head, "bias", None)
    ids = torch.arange(4, device=weight.device).unsqueeze(0)
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        expected = model(input_ids=ids, use_cache=False).logits.float()
        if hidden.shape[-1] != weight.shape[1]:
            return None
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
    if logits.shape != expected.shape or not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        return None
    return weight.detach(), None if bias is None else bias.detach()


def blocked_code_lengths(
    hidden: Float[Tensor, "rows dim"],
    targets: Int[Tensor, "rows"],
    weight: Float[Tensor, "vocabulary dim"],
    bias: Float[Tensor, "vocabulary"] | None = None,
    columns: int | None = None,
    buffers: dict[tuple, Tensor] | None = None,
) -> Float[Tensor, "rows"]:
    """−log softmax(hidden · weightᵀ + bias)[target] in nats, in float32, by blocks of the vocabulary.

    log Σ exp over blocks by the running maximum M and sum S: S ← S·e^(M − M′) + Σ e^(x − M′).
    """
    columns = columns or COLUMNS.get(hidden.device.type, 4096)
    hidden = hidden.float()
    rows, vocabulary = len(hidden), len(weight)
    buffers = {} if buffers is None else buffers
    key = (rows, columns, hidden.device)
    if key not in buffers:
        buffers.clear()
        buffers[key] = hidden.new_empty(rows * columns)
    largest = hidden.new_full((rows, 1), -torch.inf)
    total = hidden.new_zeros((rows, 1))
    for start in range(0, vocabulary, columns):
        block = weight[start : start + columns].float()
        logits = buffers[key][: rows * len(block)].view(rows, len(block))
        if bias is None:
            torch.mm(hidden, block.T, out=logits)
        else:
            torch.addmm(bias[start : start + columns].float(), hidden, block.T, out=logits)
        new_largest = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
        logits.sub_(new_largest).exp_()
        total.mul_(largest.sub_(new_largest).exp_()).add_(logits.sum(dim=1, keepdim=True))
        largest = new_largest
    chosen = torch.linalg.vecdot(hidden, weight.index_select(0, targets).float())
    if bias is not None:
        chosen = chosen + bias.index_select(0, targets).float()
    return largest.squeeze(1).add_(total.squeeze(1).log_()).sub_(chosen)
