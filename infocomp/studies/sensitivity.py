"""How far the information plane of one checkpoint depends on settings of the estimator that nothing dictates.

The configuration's own setting is the base; every variant differs from it in one level (see `sensitivity_grid`). Units:
one for each variant and text, each with its own part, fed by as few forward passes as the memory budget allows.
Measured are all quantities at the lowest order of the configuration, in bits.

The table's key has no column for a variant, so `estimator` tells them apart: "soft" is the base, "soft, bins 50" the
variant with 50 bins and everything else as in the base. `settings` holds what is varied and all levels.

OUT/conclusions.csv    which conclusions survive (`sensitivity_conclusions`)
OUT/figures            one page of small multiples
"""

import gc
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from infocomp.activations.sites import layer_of, resolve_sites
from infocomp.checkpoints.source import Checkpoint, Loaded
from infocomp.estimators import LabelGroups
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.plotting.sensitivity import draw_sensitivity_pages
from infocomp.studies.information_plane import (
    ESTIMATOR_VERSION,
    InformationPlane,
    InformationPlaneConfig,
    configuration_hash,
    device_of,
    revision_columns,
)
from infocomp.studies.information_probe import scratch_folder, scratch_needed
from infocomp.studies.measurement import estimate_columns
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.sensitivity_conclusions import CONCLUSIONS, write_conclusions
from infocomp.studies.sensitivity_grid import Grid, Setting, Variant, keep_documents
from infocomp.studies.sensitivity_pass import SharedPasses


class Sensitivity:
    """A study like `InformationPlane`, which it asks for the model and the texts."""

    def __init__(
        self,
        config: InformationPlaneConfig,
        out: Path,
        trained_in: Path | None = None,
        revision: str | None = None,
        grid: Grid | None = None,
    ) -> None:
        """Measures the last revision of the configuration, or the one named.

        `trained_in` is the folder of the run that trained the configuration's own series.
        """
        if revision is not None:
            field, value = ("revision", revision) if config.model.source == "single" else ("revisions", [revision])
            config = config.model_copy(update={"model": config.model.model_copy(update={field: value})})
        self.config, self.out, self.grid = config, Path(out), grid or Grid()
        self.trained_in = Path(trained_in or out)
        self.plane = InformationPlane(config, self.trained_in)
        scratch = config.compute.scratch
        self.scratch = scratch_folder(Path(scratch) if scratch else None, self.out)
        self._loaded: Loaded | None = None
        self._refused: Exception | None = None
        self._done = 0

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The one that is measured. ValueError: a revision that is not there, with those that come closest, or a
        series that no run has trained yet."""
        if self.plane.trains and self.plane.untrained():
            raise ValueError(
                f"{self.trained_in} does not hold all checkpoints of the series that this configuration trains; "
                f"`infocomp run CONFIG --out {self.trained_in}` trains it (--run names a folder where that is done)."
            )
        return self.plane.source.list()[-1]

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """One phase: every variant on every text."""
        report.note(f"reading and labelling {len(self.config.corpora)} text(s)")
        self.plane.check_before_loading()
        shared: list[SharedPasses] = []
        try:
            units = [unit for prepared in self.plane.corpora for unit in self._units(prepared, report, shared)]
            report.begin("measuring", len(units), "variant")
            report.advance(self._done)
            yield "sensitivity", units
        finally:
            for passes in shared:
                passes.close()
            self._close()
        report.end()

    def figures(self) -> list[Path]:
        """The table of conclusions, and a page for each text; neither where the base could not be measured."""
        table = read(self.out)
        try:
            write_conclusions(table, self.out)
        except ValueError:  # the command says it, when it prints the conclusions
            (self.out / CONCLUSIONS).unlink(missing_ok=True)
            return []
        return draw_sensitivity_pages(table, self.out / "figures")

    # --- units ----------------------------------------------------------------------------------------------------

    def _units(self, prepared: PreparedCorpus, report: Report, shared: list[SharedPasses]) -> list[Unit]:
        variants = self.grid.variants(Setting.of(self.config.estimator))
        store = Store(self.out)
        names = {variant: self._unit_name(variant, prepared) for variant in variants}
        wanted = [variant for variant in variants if store.state(names[variant]) != "done"]
        self._done += len(variants) - len(wanted)
        config, settings = self.config, [variant.setting for variant in wanted]
        about = (prepared, config.sites, config.estimator, config.compute, self.scratch, report)
        passes = SharedPasses(settings, self._model, *about)
        shared.append(passes)
        gathered: dict[int, tuple[PreparedCorpus, list[LabelGroups]]] = {}
        return [self._unit(variant, names[variant], prepared, passes, gathered, report) for variant in variants]

    def _unit(
        self,
        variant: Variant,
        name: str,
        prepared: PreparedCorpus,
        passes: SharedPasses,
        gathered: dict[int, tuple[PreparedCorpus, list[LabelGroups]]],
        report: Report,
    ) -> Unit:
        checkpoint = self.checkpoint
        describe = {"model": self.config.model.table_name, "revision": checkpoint.revision.name}
        describe |= {"corpus": prepared.name, "estimator": variant.estimator, **revision_columns(checkpoint)}

        def run() -> UnitResult:
            setting = variant.setting
            before = passes.passes
            try:
                states = passes.states(setting)
                if setting.one_in not in gathered:
                    gathered[setting.one_in] = _lowest_order(passes.rows(setting)[0])
                part, groups = gathered[setting.one_in]
                assert self._loaded is not None
                common = describe | {"fingerprint": self._loaded.fingerprint, "commit": checkpoint.commit}
                common |= self._columns(variant, part)
                rows = []
                for site, state in states.items():
                    here = {"site": site, "layer": layer_of(site), "centre_shift": state.centre_shift()}
                    how = ((setting.weighting,), self.config.estimator.min_count, part.windows.row_tokens)
                    found = state.estimate(groups, *how)
                    rows += [{**common, **here, **estimate_columns(estimate)} for estimate in found]
                return UnitResult(rows)
            finally:
                passes.release(setting)
                if passes.passes > before:
                    report.begin("measuring", len(self.plane.corpora) * self._count, "variant")
                    report.advance(self._done)
                self._done += 1
                report.advance(1)

        return Unit(name, f"{variant.name} · {prepared.name}", describe, run)

    @property
    def _count(self) -> int:
        return len(self.grid.variants(Setting.of(self.config.estimator)))

    def _unit_name(self, variant: Variant, prepared: PreparedCorpus) -> str:
        compute, estimator, checkpoint = self.config.compute, self.config.estimator, self.checkpoint
        setting, rows = variant.setting, keep_documents(prepared, variant.setting.one_in)[0].n_rows
        on_disk = scratch_needed(self._sites, rows, setting.draws, setting.bins, compute.memory_budget)
        return unit_name(
            study="sensitivity",
            variant=variant.columns(),
            temperature=setting.temperature,
            corpus=dict(prepared.identity()),
            estimator=estimator.model_dump(mode="json", exclude={"bins", "draws", "seed", "temperature"}),
            model=self.config.model.table_name,
            weights=checkpoint.files_fingerprint,
            configuration=configuration_hash(checkpoint),
            commit=checkpoint.commit,
            revision=checkpoint.revision.name,
            sites=list(self.config.sites),
            dtype=compute.dtype,
            attention=compute.attention,
            device=device_of(compute).type,
            float16_scratch=on_disk,
            estimator_version=ESTIMATOR_VERSION,
        )

    @cached_property
    def _sites(self) -> int:
        """Sites measured, as far as the architecture's configuration says."""
        try:
            return len(resolve_sites(self.plane.source.config(), list(self.config.sites)))
        except KeyError:  # one inside a block, which takes the model itself
            return len(self.config.sites)

    def _columns(self, variant: Variant, part: PreparedCorpus) -> dict[str, Any]:
        setting, estimator, corpus = variant.setting, self.config.estimator, part.settings
        settings: dict[str, Any] = {**variant.columns(), "min_count": estimator.min_count, "tokenizer": part.tokenizer}
        settings |= {"stride": corpus.stride, "skip_first": corpus.skip_first}
        if setting.rows == "outliers_removed":
            settings["outlier_directions"] = estimator.outlier_directions
        return {
            "rows": setting.rows,
            "seed": setting.seed,
            "settings": settings,
            "n_documents": len(set(part.windows.row_documents.tolist())),
            "dtype": self.config.compute.dtype,
            "attention": self.config.compute.attention,
            "bos": corpus.bos,
            "packing": corpus.packing,
            "in_training": corpus.trained_on,
            "context_length": corpus.context_length,
        }

    # --- one model in memory --------------------------------------------------------------------------------------

    def _model(self) -> PreTrainedModel:
        """Loaded when the first pass begins; a checkpoint that cannot be loaded is tried once."""
        if self._refused is not None:
            raise self._refused
        if self._loaded is None:
            compute = self.config.compute
            try:
                self._loaded = self.plane.source.open(
                    self.checkpoint, getattr(torch, compute.dtype), device_of(compute), compute.attention
                )
            except Exception as error:
                self._refused = error
                raise
        return self._loaded.model

    def _close(self) -> None:
        if self._loaded is not None or self._refused is not None:
            self._loaded = None
            gc.collect()
            self.plane.source.close(self.checkpoint)


def _lowest_order(part: PreparedCorpus) -> tuple[PreparedCorpus, list[LabelGroups]]:
    """The labels of the lowest order, gathered over the part's rows."""
    lowest = min(label.order for label in part.labels if label.order is not None)
    return part, part.gathered([label for label in part.labels if label.order == lowest])
