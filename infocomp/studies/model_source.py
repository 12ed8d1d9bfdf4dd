"""The model of a study: where its checkpoints come from, the series that the run trains first, one in memory at a time.

Shared by every study that measures checkpoints; what is measured is not known here.
"""

import gc
import hashlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from infocomp.checkpoints.integrity import duplicates
from infocomp.checkpoints.schedule import parse_revision, select
from infocomp.checkpoints.source import Checkpoint, DirectorySource, HubSource, Loaded, SingleSource, Source
from infocomp.corpora.builtin import training_documents
from infocomp.corpora.documents import read_documents
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.studies.settings import ComputeSettings, ModelSettings
from infocomp.training.series import SeriesSettings, checkpoint_folder, is_checkpoint, train_series
from infocomp.units import bits


class StudiedModel:
    """The checkpoints that `settings` name; for a series trained by the run itself, those in OUT/checkpoints."""

    def __init__(self, settings: ModelSettings, compute: ComputeSettings, out: Path) -> None:
        self.settings, self.compute, self.out = settings, compute, Path(out)
        self._loaded: Loaded | None = None
        self._refused: tuple[Checkpoint, Exception] | None = None

    @property
    def name(self) -> str:
        """The column `model`."""
        return self.settings.table_name

    @cached_property
    def source(self) -> Source:
        """The checkpoints, listed and opened one by one."""
        model = self.settings
        if model.source == "hub":
            assert model.repository is not None
            return HubSource(
                model.repository, model.revisions, model.cache_dir, evict=not model.keep, endpoint=model.endpoint
            )
        if model.source == "folder":
            assert model.path is not None
            return DirectorySource(model.path, model.revisions, model.table_name, model.batch_tokens)
        if model.source == "single":
            where = model.path or model.repository
            assert where is not None
            return SingleSource(where, model.revision, model.cache_dir, evict=not model.keep, endpoint=model.endpoint)
        batch_tokens = model.batch_tokens or self.series.tokens_per_step
        return DirectorySource(self.out / "checkpoints", model.revisions, model.table_name, batch_tokens)

    def duplicates(self) -> dict[str, str]:
        """Revisions whose files equal those of an earlier one, known before anything runs."""
        return duplicates([(one.revision.name, one.files_fingerprint) for one in self.source.list()])

    # --- a series that the run trains -----------------------------------------------------------------------------

    @property
    def series(self) -> SeriesSettings:
        """How the run's own model is trained."""
        return self.settings.series or SeriesSettings()

    @property
    def trains(self) -> bool:
        """Whether this run trains its own model."""
        return self.settings.source == "series"

    def series_steps(self) -> list[int]:
        """Steps at which the run's own model is saved."""
        return self.series.checkpoints.steps(self.series.steps)

    def measured_steps(self) -> list[str]:
        """Checkpoints of the run's own model that are measured, by name. ValueError: a choice of what is not saved."""
        saved = [parse_revision(f"step{step}") for step in self.series_steps()]
        return [revision.name for revision in select(saved, self.settings.revisions, self.name)]

    def untrained(self) -> bool:
        """Whether a checkpoint of the run's own model is still missing."""
        return not all(is_checkpoint(checkpoint_folder(self.out, step)) for step in self.series_steps())

    def training_phase(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """The phase before all others where the run trains its own model, and none where it does not."""
        if not self.trains:
            return
        unit = self.training_unit(report)
        if self.untrained():
            Store(self.out).part_path(unit.name).unlink(missing_ok=True)
            report.begin("training", self.series.steps, "step")
        yield "train", [unit]
        report.end()

    def training_unit(self, report: Report) -> Unit:
        """Train the series; a run that was killed goes on from its last state."""
        settings, name = self.series, self.name
        text = self.settings.text
        decides = {"settings": settings.model_dump(mode="json"), "model": name}
        documents = training_documents() if text is None else read_documents(text)
        decides |= {"text": [hashlib.sha256(document.text.encode()).hexdigest() for document in documents]}
        unit = unit_name(study="training", **decides)

        def run() -> UnitResult:
            done = [0]

            def advance(step: int, steps: int, loss: float) -> None:
                report.advance(step - done[0])
                report.detail(f"loss {bits(loss):.3f} bits/token")
                done[0] = step

            trained = train_series(settings, self.out, advance, documents)
            if trained.training.status != "ok":
                raise ValueError(f"training stopped: {trained.training.message}")
            common = {"model": name, "quantity": "training_loss", "estimator": "code_length", "draw": "mean"}
            common |= {"unit": "bits/token", "seed": settings.seed, "in_training": "known"}
            rows = [
                common
                | {"revision": f"step{row['step']}", "step": row["step"], "tokens_seen": row["tokens"]}
                | {"value": bits(float(row["loss"]))}
                for row in trained.training.rows
                if row["step"] in trained.checkpoints
            ]
            return UnitResult(rows)

        return Unit(unit, f"train {name}", {"model": name, "revision": "training"}, run)

    # --- one checkpoint -------------------------------------------------------------------------------------------

    def describe(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The columns that say which checkpoint a row is about."""
        return {"model": self.name, "revision": checkpoint.revision.name, **revision_columns(checkpoint)}

    def identity(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What of the checkpoint and of the machine decides a unit's result."""
        compute = self.compute
        return {
            "model": self.name,
            "revision": checkpoint.revision.name,
            "weights": checkpoint.files_fingerprint,
            "configuration": configuration_hash(checkpoint),
            "commit": checkpoint.commit,
            "dtype": compute.dtype,
            "attention": compute.attention,
            "device": device_of(compute).type,
        }

    def open(self, checkpoint: Checkpoint) -> Loaded:
        """The checkpoint in memory; the one before it is let go. One that was refused is refused again, unread."""
        if self._refused is not None and self._refused[0] is checkpoint:
            raise self._refused[1]
        if self._loaded is None or self._loaded.checkpoint is not checkpoint:
            self.close()
            self._refused = None
            compute = self.compute
            try:
                self._loaded = self.source.open(
                    checkpoint, getattr(torch, compute.dtype), device_of(compute), compute.attention
                )
            except Exception as error:
                self._refused = checkpoint, error
                self.source.close(checkpoint)
                raise
        return self._loaded

    def close(self) -> None:
        """Let go of the checkpoint in memory and of its files, where they were downloaded."""
        if self._loaded is not None:
            checkpoint = self._loaded.checkpoint
            self._loaded = None
            gc.collect()
            self.source.close(checkpoint)


def revision_columns(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """stage, step and tokens_seen of a checkpoint."""
    revision = checkpoint.revision
    return {"stage": revision.stage, "step": revision.step, "tokens_seen": revision.tokens}


def configuration_hash(checkpoint: Checkpoint) -> str | None:
    """Hash of a local checkpoint's config.json; a hub's is decided by its commit."""
    path = Path(checkpoint.path_or_repo) / "config.json"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None


def device_of(compute: ComputeSettings) -> torch.device:
    """The device asked for; "auto" is CUDA, else the CPU. ValueError for one that is not there.

    Apple's MPS is used only when asked for (`device: mps`): no machine that has it was at hand to try it.
    """
    if compute.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(compute.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"compute.device {compute.device!r} is not to be had here ({reason}); use auto or cpu."
        ) from None
    return device


def corpus_cache() -> Path:
    """Where tokens and labels are kept from one command to the next: $INFOCOMP_CACHE or the user's cache folder."""
    given = os.environ.get("INFOCOMP_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "infocomp"
