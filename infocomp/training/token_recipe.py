"""Train a small GPT on rows of tokens and tell, row by row, what it costs to code them: nats, and what it emits.

Code lengths are sums over the tokens of a row of −log p(token | those before it), in nats and float64.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from infocomp.training.optimizers import AdamWSettings
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings, batches
from infocomp.training.small_gpt import GPTSettings, SmallGPT, parameter_counts
from infocomp.training.trainer import TrainerSettings

SCORED_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}  # logits held at a time while rows are scored
STATE_SECONDS = 10.0  # a kill loses at most so much; the state of a small model is written in milliseconds


class TokenTraining(BaseModel):
    """AdamW with a cosine to `final_share` of the learning rate; full batch where there are no more rows than `batch`.

    measure_every: code lengths of all rows, trained on and held out, every so many steps; None: at the end alone.
    record_every: steps between the rows of losses that are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: PositiveInt = 3000
    batch: PositiveInt = 512
    learning_rate: PositiveFloat = 2e-2
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    clip_norm: PositiveFloat | None = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    measure_every: PositiveInt | None = None
    record_every: PositiveInt = 10

    def trainer(self, seed: int) -> TrainerSettings:
        """The settings of the loop that all trainings share."""
        return TrainerSettings(
            steps=self.steps,
            seed=seed,
            optimizer=AdamWSettings(
                learning_rate=self.learning_rate, beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay
            ),
            schedule=ScheduleSettings(warmup_steps=self.warmup_steps, decay="cosine", final=self.final_share),
            clip_norm=self.clip_norm,
            checkpoints=CheckpointSettings(log_spaced_until=0),
            state_every_seconds=STATE_SECONDS,
            record_every=self.record_every,
        )


@dataclass(frozen=True)
class TokenRecipe:
    """One model on one set of rows; a recipe for `train_many`, and plain data that a worker process can be sent.

    train: int64[n, length], the rows that are learnt. held_out: int64[m, length], scored and never learnt. seed: of
    the weights, and of the order of the batches.
    """

    shape: GPTSettings
    training: TokenTraining
    train: Int[np.ndarray, "n length"]
    held_out: Int[np.ndarray, "m length"]
    seed: int = 0

    def __post_init__(self) -> None:
        for name, rows in (("train", self.train), ("held_out", self.held_out)):
            if not np.issubdtype(rows.dtype, np.integer):
                raise TypeError(f"{name} holds {rows.dtype}, tokens are whole numbers; give their ids as int64")
            if rows.ndim != 2 or rows.shape[1] != self.shape.length:
                raise ValueError(
                    f"{name} holds rows of shape {rows.shape}, the model reads rows of {self.shape.length} tokens; "
                    "cut the rows to that length"
                )
            if rows.size and not (rows.min() >= 0 and rows.max() < self.shape.vocabulary):
                raise ValueError(
                    f"{name} holds token {rows.max() if rows.min() >= 0 else rows.min()}, the model's vocabulary is "
                    f"0 to {self.shape.vocabulary - 1}; give it a larger vocabulary"
                )
        if not len(self.train):
            raise ValueError("train holds no row; at least one is needed to train on")

    @property
    def settings(self) -> TrainerSettings:
        return self.training.trainer(self.seed)

    @property
    def measure_every(self) -> int | None:
        return self.training.measure_every

    @property
    def tokens_per_step(self) -> int:
        return min(self.training.batch, len(self.train)) * self.shape.length

    @property
    def parameters(self) -> int:
        return parameter_counts(self.shape).total

    def model(self) -> SmallGPT:
        """The model as it is before the first step."""
        return SmallGPT(self.shape, self.seed)

    def data(self) -> tuple[Tensor, ...]:
        """What a step takes its rows from."""
        return (torch.from_numpy(self.train).long(),)

    def order(self) -> Callable[[int], Int[Tensor, "batch"]]:
        """Which rows each step reads: all of them, or shuffled epochs of batches."""
        return batches(len(self.train), self.training.batch, self.seed)

    def loss(self, model: nn.Module, tokens: Int[Tensor, "batch length"]) -> Tensor:
        """Mean nats per predicted token."""
        logits = model(tokens)
        targets = tokens[:, tokens.shape[1] - logits.shape[1] :]
        wide = torch.promote_types(logits.dtype, torch.float32)
        return functional.cross_entropy(logits.to(wide).flatten(0, 1), targets.flatten())

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Mean nats per predicted token over all rows that were learnt, and over those held out."""
        predicted = self.shape.predicted
        found = {"train_nats_per_token": float(score_rows(model, self.train).nats.mean()) / predicted}
        if len(self.held_out):
            found["held_out_nats_per_token"] = float(score_rows(model, self.held_out).nats.mean()) / predicted
        return found

    def finish(self, model: nn.Module) -> dict[str, np.ndarray]:
        """train_nats float64[n], train_extracted bool[n], held_out_nats float64[m], held_out_extracted bool[m]."""
        train, held_out = score_rows(model, self.train), score_rows(model, self.held_out)
        return {
            "train_nats": train.nats,
            "train_extracted": train.extracted,
            "held_out_nats": held_out.nats,
            "held_out_extracted": held_out.extracted,
        }

    def family(self) -> str:
        """Recipes of one family have tensors of the same shapes at every step and may train as one stacked model."""
        return f"{self.shape!r} {self.training.model_dump(exclude={'learning_rate'})!r} {self.tokens_per_step}"

    def identity(self) -> Mapping[str, str | int | float]:
        """What decides the result and is not in the loop's settings."""
        rows = [np.ascontiguousarray(rows, np.int64).tobytes() for rows in (self.train, self.held_out)]
        hashes = [hashlib.sha256(data).hexdigest()[:16] for data in rows]
        shape = self.shape.model_dump_json()
        return {"shape": shape, "train": hashes[0], "held_out": hashes[1], "batch": self.training.batch}


@dataclass(frozen=True)
class RowScores:
    """`nats` is the code length of each row; `extracted`: its second half is emitted greedily from its first half."""

    nats: Float[np.ndarray, "rows"]
    extracted: Bool[np.ndarray, "rows"]


@torch.no_grad()
def score_rows(model: nn.Module, rows: Int[np.ndarray, "rows length"]) -> RowScores:
    """Code length in nats, and greedy extraction, of every row.

    Greedy decoding emits the second half exactly where the most probable token is the right one at each of its
    places given the true tokens before it, so one pass tells (ties go to the lower id in both).
    """
    device = next(model.parameters()).device
    nats, extracted = np.zeros(len(rows)), np.zeros(len(rows), bool)
    vocabulary = getattr(getattr(model, "settings", None), "vocabulary", 1)
    at_once = max(SCORED_AT_ONCE.get(device.type, 2**24) // (rows.shape[1] * vocabulary), 1)
    for begin in range(0, len(rows), at_once):
        tokens = torch.from_numpy(rows[begin : begin + at_once]).long().to(device)
        logits = model(tokens)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = tokens[:, tokens.shape[1] - logits.shape[1] :]
        cost = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        nats[begin : begin + at_once] = cost.reshape(targets.shape).double().sum(1).cpu().numpy()
        second = tokens.shape[1] - tokens.shape[1] // 2
        right = (logits.argmax(-1) == targets)[:, second - tokens.shape[1] :]
        extracted[begin : begin + at_once] = right.all(1).cpu().numpy()
    return RowScores(nats, extracted)
