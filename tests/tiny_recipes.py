"""Small trainings for the tests of many at once: writing resume states often, slow ones, deadly ones, sick ones."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from infocomp.training.optimizers import MuonSettings
from infocomp.training.small_gpt import GPTSettings, SmallGPT
from infocomp.training.token_recipe import TokenRecipe, TokenTraining
from infocomp.training.trainer import TrainerSettings

SHAPE = GPTSettings(width=16, heads=2, vocabulary=11, length=6, precision="float64")
TRAINING = TokenTraining(
    steps=30, batch=8, learning_rate=0.02, clip_norm=0.3, weight_decay=0.1, measure_every=12, record_every=5
)


@dataclass(frozen=True)
class TinyRecipe(TokenRecipe):
    """A recipe with a fault; none of these fields decides the result, so that none is part of the identity.

    pause: seconds that each step waits. dies_at: step at which the process that trains ends itself with SIGKILL.
    dies_finished: it does so when the last step is done. states: seconds between two resume states.
    """

    pause: float = 0.0
    dies_at: int | None = None
    dies_finished: bool = False
    states: float = 30.0

    @property
    def settings(self) -> TrainerSettings:
        return super().settings.model_copy(update={"state_every_seconds": self.states})

    def order(self) -> Callable[[int], Tensor]:
        chosen = super().order()

        def with_faults(step: int) -> Tensor:
            time.sleep(self.pause)
            if step == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return chosen(step)

        return with_faults

    def finish(self, model: nn.Module) -> dict[str, np.ndarray]:
        if self.dies_finished:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().finish(model)


@dataclass(frozen=True)
class SickRecipe(TokenRecipe):
    """One weight of the model is NaN from the start."""

    def model(self) -> SmallGPT:
        model = super().model()
        with torch.no_grad():
            model.final_norm.weight[3] = float("nan")
        return model


@dataclass(frozen=True)
class MuonRecipe(TokenRecipe):
    """Moved by another optimizer than AdamW."""

    @property
    def settings(self) -> TrainerSettings:
        return super().settings.model_copy(update={"optimizer": MuonSettings()})


def tiny_recipe(seed: int = 0, rows: int = 12, kind: type[TokenRecipe] = TinyRecipe, **more) -> TokenRecipe:
    """Random rows of the seed; `more`: fields of shape, training or the recipe's own, told apart by their names."""
    shape = GPTSettings(**{**SHAPE.model_dump(), **_taken(more, GPTSettings)})
    training = TokenTraining(**{**TRAINING.model_dump(), **_taken(more, TokenTraining)})
    drawn = np.random.default_rng(seed).integers(0, shape.vocabulary, (rows + 5, shape.length))
    return kind(shape, training, drawn[:rows], drawn[rows:], seed, **more)


def _taken(more: dict, settings: type) -> dict:
    return {name: more.pop(name) for name in list(more) if name in settings.model_fields}


def same_results(found, expected, rtol: float = 1e-9) -> None:
    """Arrays and rows of one member equal those of another, to rounding."""
    assert found.status == expected.status == "ok", (found.message, expected.message)
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_allclose(found.arrays[name], array, rtol=rtol, err_msg=name)
    assert [sorted(row) for row in found.rows] == [sorted(row) for row in expected.rows]
    for here, there in zip(found.rows, expected.rows, strict=True):
        for name, value in there.items():
            if isinstance(value, float):
                np.testing.assert_allclose(here[name], value, rtol=10 * rtol, atol=1e-12, err_msg=name)
            else:
                assert here[name] == value, name


@dataclass(frozen=True)
class TinyJob:
    """Work that is no training: squares a number, raises on a negative one, ends its own process on zero."""

    number: int

    def work(self) -> int:
        if self.number < 0:
            raise ValueError(f"number must be at least 0, got {self.number}")
        if self.number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number**2
