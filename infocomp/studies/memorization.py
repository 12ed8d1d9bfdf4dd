"""The study `memorization`: what a model holds of the very rows that it was trained on, checkpoint by checkpoint.

Units: for each checkpoint the samples' bits with rates and membership, extraction, one for every reference, the rate of
a held-out text, and changed prompts at the last one; and, where the model is trained by the run itself, the training.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator

from infocomp.checkpoints.source import Checkpoint
from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import unit_name
from infocomp.execution.table import read
from infocomp.memorization.extraction import KINDS
from infocomp.plotting.draw import draw_all
from infocomp.studies.coding_settings import as_section
from infocomp.studies.coding_texts import CodedText, prepare_text
from infocomp.studies.memorization_parts import (
    Part,
    fragility_part,
    held_out_part,
    reference_part,
    samples_part,
    score_part,
)
from infocomp.studies.memorization_passes import MEMORIZATION_VERSION, Advance, Readings, Reference, readings_of
from infocomp.studies.memorization_plan import plan_memorization
from infocomp.studies.memorization_settings import (
    ExtractionSettings,
    FragilitySettings,
    HeldOutSettings,
    ReferenceSettings,
    SampledTextSettings,
    SampleSettings,
    as_held_out,
)
from infocomp.studies.memorization_summary import memorization_summary
from infocomp.studies.memorization_texts import Samples, draw_samples
from infocomp.studies.model_source import StudiedModel, corpus_cache
from infocomp.studies.planning import Plan
from infocomp.studies.settings import ComputeSettings, ModelSettings, as_tuple


class MemorizationConfig(StudyConfig):
    """A model, rows that it was trained on, rows that it was not, references. A section may be `true` or `false`."""

    study: Literal["memorization"]
    model: ModelSettings
    members: SampledTextSettings
    never_trained: SampledTextSettings
    references: Annotated[tuple[ReferenceSettings, ...], BeforeValidator(as_tuple)] = ()
    samples: SampleSettings = SampleSettings()
    extraction: Annotated[ExtractionSettings | None, BeforeValidator(as_section)] = ExtractionSettings()
    fragility: Annotated[FragilitySettings | None, BeforeValidator(as_section)] = FragilitySettings()
    held_out: Annotated[HeldOutSettings | None, BeforeValidator(as_held_out)] = None
    compute: ComputeSettings = ComputeSettings()

    def open(self, out: Path) -> "Memorization":
        """The study of this configuration in the folder `out`."""
        return Memorization(self, out)


class Memorization:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: MemorizationConfig, out: Path) -> None:
        _check(config)
        self.config, self.out = config, Path(out)
        self.model = StudiedModel(config.model, config.compute, self.out)
        self.references = [Reference(settings, self.model) for settings in config.references]
        self.advance: Advance = lambda positions: None
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Training first where there is any, then everything that is measured."""
        yield from self.model.training_phase(report)
        report.note("reading members and never-trained rows")
        units = self.units()
        for revision, first in self.model.duplicates().items():
            report.note(f"{revision} holds the same weights as {first}: flagged in the table")
        report.begin("measuring", self.positions(), "token")
        self.advance = report.advance
        try:
            yield "measure", units
        finally:
            self.model.close()
        report.end()

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        return draw_all(read(self.out), self.out / "figures")

    def summary(self, table: pd.DataFrame) -> str:
        """What the terminal says at the end."""
        return memorization_summary(table)

    def plan(self, report: Report) -> Plan:
        """What a run would need; no checkpoint is loaded and nothing is downloaded but tokenizer and configuration."""
        return plan_memorization(self, report)

    # --- rows and units -------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> Samples:
        """The rows of both texts, in the model's own tokens."""
        config, source = self.config, self.model.source
        longest = getattr(source.config(), "max_position_embeddings", None)
        return draw_samples(
            config.members,
            config.never_trained,
            config.samples,
            source.tokenizer(),
            longest,
            self.trained_in,
            corpus_cache(),
        )

    @cached_property
    def readings(self) -> Readings:
        """What stands before the rows for their bits and for extraction, and what is never emitted."""
        return readings_of(self.config.extraction, self.samples, self.model.source.config())

    @property
    def trained_in(self) -> Path | None:
        """The folder of the run that trained the model, where it may be one of ours: its checkpoints lie in it."""
        settings = self.config.model
        if settings.source == "series":
            return self.out
        return Path(settings.path).expanduser().parent if settings.source == "folder" and settings.path else None

    @cached_property
    def held_out(self) -> CodedText | None:
        """The text whose rate is measured in whole windows, None where none is asked for."""
        return None if self.config.held_out is None else self.held_out_by(self.model.source)

    def held_out_by(self, source: Any) -> CodedText:
        """The same as the checkpoints of `source` read it."""
        settings, longest = self.config.held_out, getattr(source.config(), "max_position_embeddings", None)
        assert settings is not None
        return prepare_text(settings.text, settings.rate, source.tokenizer(), longest, corpus_cache())

    def units(self) -> list[Unit]:
        """All units of measuring, in the order in which they are run."""
        checkpoints = self.model.source.list()
        return [
            self._unit(checkpoint, part)
            for number, checkpoint in enumerate(checkpoints)
            for part in self.parts(number == len(checkpoints) - 1)
        ]

    def parts(self, is_last: bool) -> list[Part]:
        """What is measured of one checkpoint; `is_last`: of the last one."""
        config, model, samples = self.config, self.model, self.samples
        extraction, fragility = config.extraction, config.fragility
        of_bits, asked = self.readings.bits, self.readings.extraction
        parts = [samples_part(model, samples, self.held_out is None, extraction is not None, self.readings)]
        if extraction is not None and extraction.score_count:
            parts.append(score_part(model, samples, extraction, asked))
        if extraction is not None and fragility is not None and (is_last or fragility.checkpoints == "all"):
            parts.append(fragility_part(model, samples, fragility, extraction, asked))
        if self.held_out is not None:
            parts.append(held_out_part(model, self.held_out))
        return parts + [reference_part(model, samples, reference, of_bits) for reference in self.references]

    def positions(self) -> int:
        """Positions of all parts together, for a progress bar."""
        n = len(self.model.source.list())
        each = [sum(part.tokens for part in self.parts(is_last)) for is_last in (False, True)]
        return (n - 1) * each[0] + each[1]

    def _unit(self, checkpoint: Checkpoint, part: Part) -> Unit:
        describe = self.model.describe(checkpoint) | {"corpus": self.samples.members.name} | dict(part.describe)
        decides = self.model.identity(checkpoint) | {"memorization_version": MEMORIZATION_VERSION}
        decides |= {"samples": self.samples.identity()} | dict(part.decides)

        def run() -> UnitResult:
            told = [0]

            def advance(positions: int) -> None:
                told[0] += positions
                self.advance(positions)

            try:
                return part.measure(checkpoint, advance)
            finally:
                self.advance(part.tokens - told[0])

        title = f"{checkpoint.revision.name} · {part.title}"
        return Unit(unit_name(study="memorization", **decides), title, describe, run)


def _check(config: MemorizationConfig) -> None:
    names = [reference.name for reference in config.references]
    if len(set(names)) < len(names):
        raise ValueError(f"references need names of their own, got {', '.join(names)}; rename one.")
    for name, text in (("members", config.members), ("never_trained", config.never_trained)):
        wanted = "read" if name == "members" else "unread"
        if text.series is not None and text.series.which != wanted:
            raise ValueError(f"{name} are the {wanted} windows of a series, got series: {text.series.which}.")
    settings, prompt = config.fragility, config.samples.prompt
    if settings is None or config.extraction is None:
        return
    if settings.kind not in KINDS:
        raise ValueError(f"fragility.kind is {settings.kind!r}; there are {', '.join(map(repr, KINDS))}.")
    most = prompt if settings.kind == "replace" else prompt - 1
    if max(settings.changes) > most:
        raise ValueError(
            f"fragility.changes names {max(settings.changes)} of the {prompt} tokens of a prompt; change at most "
            f"{most}."
        )
