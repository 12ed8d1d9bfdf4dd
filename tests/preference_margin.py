"""How much likelier a model finds the chosen completion: log π(chosen | prompt) − log π(rejected | prompt), in nats.

Against a reference (the checkpoint that a preference optimisation began from) the difference of two margins is the
reward difference of DPO over β (Rafailov et al. 2023, arXiv 2305.18290, eq. 5); the share of pairs in which it is
above 0 is the preference accuracy. Texts are those of `infocomp.training.tuning`, without the end of text.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from infocomp.checkpoints.source import SingleSource
from infocomp.training.planted_preference import BETWEEN, PlantedPair


@torch.no_grad()
def preference_margins(checkpoint: str | Path, pairs: Sequence[PlantedPair]) -> Float[np.ndarray, "pairs"]:
    """Nats by which the chosen completion of each pair is likelier than the rejected one, sums over their tokens.

    One text at a time, so that no padding or batch has a say. Errors of a checkpoint are those of `Source.open`.
    """
    source = SingleSource(checkpoint)
    model, tokenizer = source.open(source.list()[0]).model, source.tokenizer()
    begin = str(tokenizer.bos_token or tokenizer.eos_token or "")

    def nats(prompt: str, completion: str) -> float:
        before, ids = (
            tokenizer(begin + text, add_special_tokens=False).input_ids
            for text in (prompt, prompt + BETWEEN + completion)
        )
        start = _shared(before, ids)
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1].double()
        return float(logits.log_softmax(dim=1).gather(1, torch.tensor(ids[start:])[:, None]).sum())

    return np.array([nats(pair.prompt, pair.chosen) - nats(pair.prompt, pair.rejected) for pair in pairs])


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
