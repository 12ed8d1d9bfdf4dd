"""The study `coding`: how short models and classical coders make a text, over training, contexts and widths of weights.

Units: for each text the classical coders, in one stream and in pieces; for each checkpoint and text one for every part
that `coding_parts` knows; and, where the model is trained by the run itself, one for the training.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator, Field

from infocomp.checkpoints.source import Checkpoint
from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import unit_name
from infocomp.execution.table import read
from infocomp.plotting.draw import draw_all
from infocomp.studies.coding_parts import (
    Advance,
    Part,
    codec_parts,
    ranks_part,
    rate_part,
    width_part,
    windows_parts,
)
from infocomp.studies.coding_plan import plan_coding
from infocomp.studies.coding_retention_rows import RetentionProfile
from infocomp.studies.coding_settings import (
    ClassicalSettings,
    CodecSettings,
    CodedTextSettings,
    PrequentialSettings,
    RanksSettings,
    RateSettings,
    RetentionSettings,
    WeightsSettings,
    as_section,
)
from infocomp.studies.coding_summary import coding_summary
from infocomp.studies.coding_text_units import CODING_VERSION, classical_units, prequential_unit, spans_unit
from infocomp.studies.coding_texts import CodedText, prepare_text
from infocomp.studies.model_source import StudiedModel, corpus_cache
from infocomp.studies.planning import Plan
from infocomp.studies.prequential_rows import TEXT as TRAINING_TEXT
from infocomp.studies.settings import ComputeSettings, ModelSettings, as_tuple


class CodingConfig(StudyConfig):
    """A model, texts, and which codes of them are measured. A section may be `true`, `false` or its settings."""

    study: Literal["coding"]
    model: ModelSettings
    texts: Annotated[tuple[CodedTextSettings, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    rate: RateSettings = RateSettings()
    retention: Annotated[RetentionSettings | None, BeforeValidator(as_section)] = RetentionSettings()
    codec: Annotated[CodecSettings | None, BeforeValidator(as_section)] = None
    ranks: Annotated[RanksSettings | None, BeforeValidator(as_section)] = None
    weights: Annotated[WeightsSettings | None, BeforeValidator(as_section)] = None
    classical: Annotated[ClassicalSettings | None, BeforeValidator(as_section)] = ClassicalSettings()
    prequential: Annotated[PrequentialSettings | None, BeforeValidator(as_section)] = None
    compute: ComputeSettings = ComputeSettings()

    def open(self, out: Path) -> "Coding":
        """The study of this configuration in the folder `out`."""
        return Coding(self, out)


class Coding:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: CodingConfig, out: Path) -> None:
        names = [text.name for text in config.texts]
        if len(set(names)) < len(names):
            raise ValueError(f"texts need names of their own, got {', '.join(names)}; rename one.")
        if config.prequential is not None and TRAINING_TEXT in names:
            raise ValueError(f"{TRAINING_TEXT!r} is what 'prequential' calls its text; give yours another name.")
        if config.prequential is not None and config.model.source != "series":
            raise ValueError(
                f"'prequential' is the code length of a training that this run does, and model.source is "
                f"{config.model.source!r}; leave it out, or train a series."
            )
        self.config, self.out = config, Path(out)
        self.model = StudiedModel(config.model, config.compute, self.out)
        self.advance: Advance = lambda positions: None
        self._profiles: dict[str, RetentionProfile] = {}
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Training first where there is any, then everything that is measured."""
        yield from self.model.training_phase(report)
        report.note(f"reading {len(self.config.texts)} text(s)")
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
        return coding_summary(table)

    def plan(self, report: Report) -> Plan:
        """What a run would need; no checkpoint is loaded and nothing is downloaded but tokenizer and configuration."""
        return plan_coding(self, report)

    # --- texts and units ------------------------------------------------------------------------------------------

    @cached_property
    def texts(self) -> list[CodedText]:
        """Every text, tokenised by the model's own tokenizer."""
        return self.prepared_by(self.model.source)

    def prepared_by(self, source: Any) -> list[CodedText]:
        """Every text as the checkpoints of `source` read it."""
        tokenizer, longest = source.tokenizer(), getattr(source.config(), "max_position_embeddings", None)
        rate, cache = self.config.rate, corpus_cache()
        return [prepare_text(text, rate, tokenizer, longest, cache) for text in self.config.texts]

    def units(self) -> list[Unit]:
        """All units of measuring, in the order in which they are run."""
        checkpoints = self.model.source.list()
        return self.without_model(self.texts) + [
            self._checkpoint_unit(checkpoint, part)
            for number, checkpoint in enumerate(checkpoints)
            for text in self.texts
            for part in self.parts(text, number == len(checkpoints) - 1)
        ]

    def without_model(self, texts: Sequence[CodedText]) -> list[Unit]:
        """The units that no checkpoint is needed for."""
        config, units = self.config, []
        slow = [section.max_bytes for section in (config.codec, config.ranks) if section is not None]
        for text in texts:
            if config.classical is not None:
                units += classical_units(text, config.classical, slow)
            profile = self.profile(text)
            if config.retention is not None and profile is not None:
                units.append(spans_unit(profile, config.retention))
        return units + ([] if config.prequential is None else [prequential_unit(self.model, config.prequential)])

    def parts(self, text: CodedText, is_last: bool) -> list[Part]:
        """What is measured of one checkpoint on one text; `is_last`: of the last checkpoint."""
        config, compute = self.config, self.config.compute
        parts = [rate_part(text, compute, self.profile(text)), *windows_parts(text, compute)]
        if text.mapped is not None:
            return parts
        if config.weights is not None and _wanted(config.weights.checkpoints, is_last):
            parts += [width_part(text, width, config.weights, compute) for width in config.weights.widths]
        if config.codec is not None and _wanted(config.codec.checkpoints, is_last):
            parts += codec_parts(text, config.codec, compute)
        if config.ranks is not None and _wanted(config.ranks.checkpoints, is_last):
            parts.append(ranks_part(text, config.ranks, compute))
        return parts

    def positions(self) -> int:
        """Positions of all parts together, for a progress bar."""
        n = len(self.model.source.list())
        every = sum(part.tokens for text in self.texts for part in self.parts(text, False))
        return (n - 1) * every + sum(part.tokens for text in self.texts for part in self.parts(text, True))

    def _checkpoint_unit(self, checkpoint: Checkpoint, part: Part) -> Unit:
        describe = self.model.describe(checkpoint) | {"corpus": part.text.name} | dict(part.describe)
        decides = self.model.identity(checkpoint) | dict(part.decides)
        decides |= {"corpus": part.text.identity(), "coding_version": CODING_VERSION}

        def run() -> UnitResult:
            told = [0]

            def advance(positions: int) -> None:
                told[0] += positions
                self.advance(positions)

            try:
                loaded = self.model.open(checkpoint)
                about = self.model.describe(checkpoint) | {"fingerprint": loaded.fingerprint}
                return part.measure(loaded, about | {"commit": checkpoint.commit}, advance)
            finally:
                self.advance(part.tokens - told[0])

        title = f"{checkpoint.revision.name} · {part.text.name} · {part.title}"
        return Unit(unit_name(study="coding", **decides), title, describe, run)

    def profile(self, text: CodedText) -> RetentionProfile | None:
        """The kinds of the text's spans, the same for all checkpoints; None where they are not asked for."""
        if self.config.retention is None or text.mapped is not None:
            return None
        return self._profiles.setdefault(text.name, RetentionProfile(text))


def _wanted(checkpoints: str, is_last: bool) -> bool:
    return is_last or checkpoints == "all"
