"""What is known before a run begins: the share of the learning rate, the checkpoints and the examples of every step."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor


class ScheduleSettings(BaseModel):
    """The share of the full learning rate at each step: a linear warm-up, a plateau, a decay to `final`.

    `decay_from` is the share of all steps after which the decay begins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    decay_from: Annotated[float, Field(ge=0, lt=1)] = 0.0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def share(self, step: int, steps: int) -> float:
        """Share of the full learning rate in the update that leads from `step` to `step` + 1.

        >>> [ScheduleSettings(warmup_steps=2, decay="linear").share(step, 6) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        begin = max(self.decay_from * steps, self.warmup_steps)
        if self.decay == "constant" or step <= begin:
            return 1.0
        left = (steps - step) / (steps - begin)
        shape = left if self.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
        return self.final + (1 - self.final) * shape


class CheckpointSettings(BaseModel):
    """Which steps are checkpoints: 0, 1, 2, 4, … up to `log_spaced_until`, then each multiple of `every`, and the last.

    `ratio` adds `ratio_from` and from there each step that is at least so many times the one before.

    >>> CheckpointSettings(log_spaced_until=8, every=10).steps(25)
    [0, 1, 2, 4, 8, 10, 20, 25]
    >>> CheckpointSettings(log_spaced_until=0, ratio=1.5, ratio_from=10).steps(60)
    [0, 10, 15, 23, 34, 51, 60]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    log_spaced_until: Annotated[int, Field(ge=0)] = 512
    every: PositiveInt | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None
    ratio_from: PositiveInt = 1

    def steps(self, last: int) -> list[int]:
        doubling = [2**power for power in range(self.log_spaced_until.bit_length())]
        spaced = [0, *(step for step in doubling if step <= self.log_spaced_until)]
        if self.every is not None:
            first = (self.log_spaced_until // self.every + 1) * self.every
            spaced += range(first, last + 1, self.every)
        if self.ratio is not None:
            count = math.ceil(math.log(max(last / self.ratio_from, 1), self.ratio)) + 1
            spaced += [math.ceil(round(self.ratio_from * self.ratio**power, 6)) for power in range(count)]
        return sorted({step for step in spaced if step <= last} | {last})


def batches(examples: int, batch: int, seed: int) -> Callable[[int], Int[Tensor, "batch"]]:
    """Which examples each step reads: all of them, always the same tensor, or shuffled epochs where there are more.

    >>> batches(examples=3, batch=8, seed=0)(5).tolist()
    [0, 1, 2]
    """
    if examples <= batch:
        everything = torch.arange(examples)
        return lambda step: everything
    return ShuffledOrder(examples, batch, seed)


class ShuffledOrder:
    """Every example once per epoch, each epoch shuffled by (seed, epoch); a batch may span two epochs.

    >>> order = ShuffledOrder(examples=5, batch=2, seed=0)
    >>> sorted(torch.cat([order(step) for step in range(5)]).tolist())
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """

    def __init__(self, examples: int, batch: int, seed: int = 0):
        if examples < 1 or batch < 1:
            raise ValueError(f"examples and batch must be at least 1, got {examples} and {batch}")
        self.examples, self.batch, self.seed = examples, batch, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Int[Tensor, "batch"]:
        pieces, position, wanted = [], step * self.batch, self.batch
        while wanted:
            epoch, begin = divmod(position, self.examples)
            taken = self._of_epoch(epoch)[begin : begin + wanted]
            pieces.append(taken)
            position, wanted = position + len(taken), wanted - len(taken)
        return torch.cat(pieces)

    def _of_epoch(self, epoch: int) -> Int[Tensor, "examples"]:
        if epoch != self._epoch:
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
            self._epoch, self._permutation = epoch, torch.from_numpy(shuffled)
        return self._permutation
