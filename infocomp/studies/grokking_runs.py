"""The trainings of a grokking study: what each is called, what it is the control of, and its states on the disk."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infocomp.grokking.recipe import GrokkingRecipe
from infocomp.grokking.tasks import ArithmeticTask
from infocomp.training.recipe import identity_of
from infocomp.training.series import checkpoint_folder

if TYPE_CHECKING:
    from infocomp.studies.grokking import GrokkingConfig

Row = dict[str, Any]


@dataclass(frozen=True)
class GrokkingRun:
    """One training. control: the same without weight decay. tag: ends the model's name where rates are swept."""

    recipe: GrokkingRecipe
    control: bool
    tag: str = ""

    @property
    def model(self) -> str:
        """The column `model`."""
        return f"{self.recipe.shape.name}{self.tag} wd {self.recipe.training.weight_decay:g}"

    @property
    def corpus(self) -> str:
        """The column `corpus`."""
        together = ", mirror pairs together" if self.recipe.mirror_pairs == "together" else ""
        return f"{self.recipe.task.name}, {100 * self.recipe.train_fraction:g} %{together}"

    @property
    def group(self) -> str:
        """What a run shares with its control."""
        return f"{self.recipe.shape.name}{self.tag} · {self.corpus}"

    @property
    def title(self) -> str:
        return f"{self.model} · {self.corpus} · seed {self.recipe.seed}"

    @cached_property
    def name(self) -> str:
        """Of its folder: readable, with a hash of all that decides its states."""
        digest = hashlib.sha256(json.dumps(identity_of(self.recipe), sort_keys=True).encode()).hexdigest()[:8]
        words = f"{self.recipe.task.name} {self.recipe.train_fraction:g} {self.model} seed {self.recipe.seed}"
        return f"{re.sub(r'[^a-zA-Z0-9.]+', '-', words)}-{digest}"

    def describe(self) -> Row:
        """The columns that say which run a row is about."""
        return {"model": self.model, "corpus": self.corpus, "seed": self.recipe.seed}

    def settings(self) -> Row:
        """What stands in the column `settings`."""
        recipe, shape = self.recipe, self.recipe.shape
        training = recipe.training
        return {
            "operation": recipe.task.operation,
            "modulus": recipe.task.modulus,
            "train_fraction": recipe.train_fraction,
            "mirror_pairs": recipe.mirror_pairs,
            "kind": shape.kind,
            "width": shape.width,
            "layers": shape.layers,
            "heads": shape.heads,
            "mlp": shape.neurons,
            "initial_scale": shape.initial_scale,
            "initial_by_width": shape.initial_by_width,
            "weight_decay": training.weight_decay,
            "learning_rate": training.learning_rate,
            "parameters": recipe.parameters,
            "steps": training.steps,
            "train_pairs": len(recipe.split.train),
            "test_pairs": len(recipe.split.test),
            "control": self.control,
            "group": self.group,
        }

    def states(self, folder: Path) -> dict[int, Path]:
        """Checkpoint folders of the run by step, in order."""
        return {step: checkpoint_folder(folder, step) for step in self.recipe.kept(folder)}


def runs_of(config: "GrokkingConfig") -> list[GrokkingRun]:
    """Every training of the configuration, controls after what they are controls of; none twice."""
    task = ArithmeticTask(config.task.operation, config.task.modulus)
    found: dict[GrokkingRun, None] = {}
    for shape, fraction, rate in product(
        config.models, config.task.train_fraction, config.learning_rates or (config.training.learning_rate,)
    ):
        tag = f" lr {rate:g}" if config.learning_rates else ""
        for decay, control in _decays(config):
            training = config.training.model_copy(update={"learning_rate": rate, "weight_decay": decay})
            for seed in config.seeds:
                recipe = GrokkingRecipe(task, shape, training, fraction, config.task.mirror_pairs, seed)
                found[GrokkingRun(recipe, control, tag)] = None
    return list(found)


def _decays(config: "GrokkingConfig") -> Iterator[tuple[float, bool]]:
    decays = config.weight_decays or (config.training.weight_decay,)
    yield from ((decay, config.control and decay == 0) for decay in decays)
    if config.control and 0 not in decays:
        yield 0.0, True
