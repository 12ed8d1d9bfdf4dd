"""The study `text_memorization`: how much of its own samples a small model keeps, as it is trained on more of them.

One model shape is trained on growing, nested sets of samples of real text. Each is held against references (a model of
the same shape trained on everything, a larger one trained on other documents) and tried on never-trained samples:
memorized bits, membership, extraction, and train and test loss against data bits / capacity, where double descent is
looked for. Units: a training for each number of samples, for each reference and for the capacity, and the sigmoid of
membership over all of them.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import Field

from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import unit_name
from infocomp.execution.table import read
from infocomp.plotting.draw import draw_all
from infocomp.studies.capacity_settings import CapacityComputeSettings
from infocomp.studies.model_source import device_of
from infocomp.studies.text_memorization_settings import (
    CapacitySettings,
    ReferenceSettings,
    SampledTextSettings,
    SamplesSettings,
    ShapeSettings,
)
from infocomp.studies.text_memorization_summary import TextPlan, text_plan, text_summary
from infocomp.studies.text_memorization_texts import DealtText, deal_text
from infocomp.studies.text_memorization_units import TEXT_VERSION, Trained, check_fits, text_units
from infocomp.training.many import Many, train_many
from infocomp.training.token_recipe import TokenTraining


class TextMemorizationConfig(StudyConfig):
    """A text, how it is dealt out, the model that is trained on more and more of it, and what it is held against."""

    study: Literal["text_memorization"]
    text: SampledTextSettings = SampledTextSettings(builtin="training")
    samples: SamplesSettings = SamplesSettings()
    model: ShapeSettings = ShapeSettings()
    training: TokenTraining = TokenTraining()
    references: ReferenceSettings = ReferenceSettings()
    capacity: CapacitySettings = CapacitySettings()
    seed: Annotated[int, Field(ge=0)] = 0
    compute: CapacityComputeSettings = CapacityComputeSettings()

    def open(self, out: Path) -> "TextMemorization":
        """The study of this configuration in the folder `out`."""
        return TextMemorization(self, out)


class TextMemorization:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: TextMemorizationConfig, out: Path) -> None:
        self.config, self.out = config, Path(out)
        self._device = device_of(config.compute)  # type: ignore[arg-type]
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Everything at once: a unit waits for its own training, and the others go on meanwhile."""
        report.note("reading the text")
        trained = self.trained
        total = sum(recipe.settings.steps for recipe in trained.recipes.values())
        report.begin("training", total, "step")

        def advance(name: str, steps: int, loss: float) -> None:
            report.advance(steps)

        with self.many(trained, advance, report) as many:
            yield "measure", self.units(trained, many)
        report.end()

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        return draw_all(read(self.out), self.out / "figures")

    def summary(self, table: pd.DataFrame) -> str:
        """What the terminal says at the end."""
        return text_summary(table)

    def plan(self, report: Report) -> TextPlan:
        """What a run would need; the text is read and dealt, and a few steps are timed."""
        report.note("reading the text, timing a few steps")
        with self.many(self.trained, None, None) as many:
            units = self.units(self.trained, many)
        workers = self.config.compute.workers
        return text_plan(self.trained, [unit.name for unit in units], self.out, workers, self._device)

    @cached_property
    def dealt(self) -> DealtText:
        """The text, tokenised and dealt out. ValueError: more samples than memory holds, or than there are."""
        samples = self.config.samples
        check_fits(max(samples.sizes) + 2 * samples.unseen, samples.length, "samples.sizes and samples.unseen")
        return deal_text(self.config.text, self.config.samples, self.config.seed)

    @cached_property
    def trained(self) -> Trained:
        """All trainings of the study, none of them begun."""
        config = self.config
        return Trained(
            self.dealt,
            config.samples.sizes,
            config.model,
            config.training,
            config.references,
            config.capacity,
            config.seed,
        )

    def many(self, trained: Trained, advance: Any, report: Report | None) -> Many:
        """The trainings, ready to be asked for results."""
        compute = self.config.compute
        return train_many(
            trained.recipes,
            self.out / "training",
            mode=compute.way,
            workers=compute.workers,
            device=self._device,
            advance=advance,
            note=None if report is None else report.note,
        )

    def units(self, trained: Trained, many: Many) -> list[Unit]:
        """References first, since every model is held against them."""
        decides: Mapping[str, Any] = {
            "version": TEXT_VERSION,
            "text": self.dealt.fingerprint,
            "device": self._device.type,
        }

        def named(unit: str, describe: Mapping[str, Any], what: Mapping[str, Any], run: Any) -> Unit:
            name = unit_name(study="text_memorization", unit=unit, **decides, **what)
            return Unit(name, unit, describe, lambda: UnitResult(run()))

        return [named(*unit) for unit in text_units(trained, many)]
