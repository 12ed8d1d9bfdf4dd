"""The information plane of a model over its training checkpoints, beside the coding rate, with a null at every number.

Units: one for each checkpoint and corpus, one control (random Gaussian rows) and one for the classical coders for each
corpus, and, where the model is trained by the run itself, one for the training.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field

from infocomp.activations.sites import resolve_sites
from infocomp.checkpoints.source import Checkpoint, DirectorySource, Source
from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.plotting.changes import read_changes
from infocomp.plotting.draw import draw_all
from infocomp.studies.changes import write_changes
from infocomp.studies.information_probe import scratch_folder, scratch_needed
from infocomp.studies.measurement import CONTROL_SITE, measure_control, measure_corpus
from infocomp.studies.model_source import (
    StudiedModel,
    configuration_hash,
    corpus_cache,
    device_of,
    revision_columns,
)
from infocomp.studies.planning import (
    CLASSICAL_BYTES_A_SECOND,
    FIGURE_SECONDS,
    LOADING_BYTES_A_SECOND,
    LOADING_SECONDS,
    Plan,
    calibrate,
    memory_needed,
    training_time,
)
from infocomp.studies.prepared import PreparedCorpus, prepare_corpus
from infocomp.studies.settings import (
    DEFAULT_SITES,
    AlsoSettings,
    BottleneckSettings,
    ComputeSettings,
    CorpusSettings,
    EstimatorSettings,
    ModelSettings,
    Names,
    as_also,
    as_tuple,
)
from infocomp.studies.text_units import bound_unit, classical_unit

CONTROL_REVISION = "control"
INSIDE_A_BLOCK = re.compile(r"blocks\.[^.]+\.((attn|mlp|ln\d)\b.*|hook_(attn_out|mlp_out|resid_mid|\w+_input|\w+_in))")
ESTIMATOR_VERSION = 2  # raised when a change of the code changes numbers: parts of another version are made again
Advance = Callable[[int], None]


class InformationPlaneConfig(StudyConfig):
    """A model, its texts, and how they are measured."""

    study: Literal["information_plane"]
    model: ModelSettings
    corpora: Annotated[tuple[CorpusSettings, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    sites: Names = DEFAULT_SITES
    estimator: EstimatorSettings = EstimatorSettings()
    also: Annotated[AlsoSettings | None, BeforeValidator(as_also)] = None
    bottleneck: BottleneckSettings | None = None
    compute: ComputeSettings = ComputeSettings()

    def open(self, out: Path) -> "InformationPlane":
        """The study of this configuration in the folder `out`."""
        return InformationPlane(self, out)


class InformationPlane:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: InformationPlaneConfig, out: Path) -> None:
        names = [corpus.name for corpus in config.corpora]
        if len(set(names)) < len(names):
            raise ValueError(f"corpora need names of their own, got {', '.join(names)}; rename one.")
        self.config, self.out = config, Path(out)
        self.scratch = scratch_folder(Path(config.compute.scratch) if config.compute.scratch else None, self.out)
        self.advance: Advance = lambda positions: None
        self.model = StudiedModel(config.model, config.compute, self.out)
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)

    # --- where the model comes from -------------------------------------------------------------------------------

    @property
    def source(self) -> Source:
        """The checkpoints; for a series trained by this run, those in OUT/checkpoints."""
        return self.model.source

    @property
    def trains(self) -> bool:
        """Whether this run trains its own model."""
        return self.model.trains

    def untrained(self) -> bool:
        """Whether a checkpoint of the run's own model is still missing."""
        return self.model.untrained()

    # --- texts ----------------------------------------------------------------------------------------------------

    @cached_property
    def corpora(self) -> list[PreparedCorpus]:
        """Every corpus, tokenised by the model's own tokenizer and labelled."""
        tokenizer = self.source.tokenizer()
        orders = self.config.estimator.orders
        return [prepare_corpus(corpus, tokenizer, orders, corpus_cache()) for corpus in self.config.corpora]

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Training first where there is any, then everything that is measured."""
        yield from self.model.training_phase(report)
        report.note(f"reading and labelling {len(self.config.corpora)} text(s)")
        self.check_before_loading()
        units = self.units()
        same = self.model.duplicates()
        for revision, first in same.items():
            report.note(f"{revision} holds the same weights as {first}: flagged in the table, hollow in figures")
        report.begin("measuring", self.positions(), "token")
        self.advance = report.advance
        yield "measure", units
        report.end()

    def check_before_loading(self) -> None:
        """What would fail at every checkpoint is said before the first one is downloaded.

        KeyError: a site that the architecture does not have (those inside a block are known once a model is loaded).
        ValueError: a window longer than the model reads.
        """
        config = self.source.config()
        for site in self.config.sites:
            if not INSIDE_A_BLOCK.fullmatch(site):
                resolve_sites(config, [site])
        longest = getattr(config, "max_position_embeddings", None)
        for prepared in self.corpora:
            windows = prepared.windows
            reaches = int((windows.lengths + windows.has_bos).max())
            if longest is not None and reaches > longest:
                raise ValueError(
                    f"context_length of {prepared.name!r} is {prepared.settings.context_length}, and the model reads "
                    f"{longest} positions at most; shorten it."
                )

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        write_changes(self.out)
        return draw_all(read(self.out), self.out / "figures", changes=read_changes(self.out))

    def plan(self, report: Report) -> Plan:
        """What a run would need; no checkpoint is loaded and nothing is downloaded but tokenizer and configuration."""
        with tempfile.TemporaryDirectory(prefix="infocomp-plan-") as folder:
            source, parts, steps = self.source, {}, 0
            untrained = self.trains and self.untrained()
            if untrained:
                report.note("calibrating: a few steps of training")
                parts["training"] = training_time(self.model.series, Path(folder))
                source, steps = DirectorySource(Path(folder) / "checkpoints"), len(self.model.series_steps())
            checkpoints = source.list()
            report.note("reading and labelling the text")
            orders = self.config.estimator.orders
            tokenizer, config = source.tokenizer(), source.config()
            corpora = [prepare_corpus(corpus, tokenizer, orders, corpus_cache()) for corpus in self.config.corpora]
        report.note("calibrating: one slice of the text through random weights of the same shape")
        n = len(self.model.measured_steps()) if steps else len(checkpoints)
        device = device_of(self.config.compute)
        measured, memory, scratch, model_bytes = 0.0, 0, 0, 0
        for prepared in corpora:
            seconds, sites, model_bytes = calibrate(
                config, prepared, self.config.sites, self.config.estimator, self.config.compute, device
            )
            measured += seconds * n
            needed = memory_needed(prepared, sites, self.config.estimator, self.config.compute, model_bytes)
            memory, scratch = max(memory, needed[0]), max(scratch, needed[1])
        parts["measuring"] = measured
        weights = [checkpoint.size_bytes for checkpoint in checkpoints]
        hub = self.config.model.source == "hub"
        parts["loading"] = n * (LOADING_SECONDS + (sum(weights) / len(weights)) / LOADING_BYTES_A_SECOND)
        parts["classical coders"] = sum(int(p.corpus.byte_counts.sum()) for p in corpora) / CLASSICAL_BYTES_A_SECOND
        parts["figures"] = FIGURE_SECONDS
        kept = self.config.model.keep or self.config.model.cache_dir is None
        disk = (sum(weights) if kept else max(weights)) if hub else steps * model_bytes * 3
        done = 0 if untrained else sum(Store(self.out).state(unit.name) == "done" for unit in self.units())
        notes = ["downloads are not part of the time"] if hub else []
        left_out = [name for name in ("bottleneck", "also") if getattr(self.config, name) is not None]
        notes += [f"{' and '.join(left_out)} (see configs/also.yaml) are not part of the time"] if left_out else []
        return Plan(
            checkpoints=n,
            corpora=[(p.name, p.corpus.n_documents, len(p.corpus.tokens), p.n_rows) for p in corpora],
            units=(n + 2 + (self.config.bottleneck is not None)) * len(corpora) + self.trains,
            done=done,
            download=sum(weights) if hub else 0,
            disk=disk + 50_000 * n,
            memory=memory,
            scratch=scratch,
            seconds=sum(parts.values()),
            parts=parts,
            duplicates={} if untrained else self.model.duplicates(),
            notes=notes,
        )

    # --- units ----------------------------------------------------------------------------------------------------

    def units(self) -> list[Unit]:
        """All units of analysis, in the order in which they are run."""
        checkpoints = self.source.list()
        units = [classical_unit(prepared) for prepared in self.corpora]
        units += [self._control_unit(prepared) for prepared in self.corpora]
        if self.config.bottleneck is not None:
            about = (self.config.estimator.orders, self.config.bottleneck, device_of(self.config.compute))
            units += [bound_unit(prepared, *about) for prepared in self.corpora]
        return units + [
            self._checkpoint_unit(checkpoint, prepared) for checkpoint in checkpoints for prepared in self.corpora
        ]

    def positions(self) -> int:
        """Positions of all forward passes together, for a progress bar."""
        return len(self.source.list()) * sum(prepared.windows.total_positions for prepared in self.corpora)

    def _checkpoint_unit(self, checkpoint: Checkpoint, prepared: PreparedCorpus) -> Unit:
        name = self.config.model.table_name
        describe = {"model": name, "revision": checkpoint.revision.name, "corpus": prepared.name}
        describe |= revision_columns(checkpoint)
        decides = self._decides(prepared, len(self.config.sites))
        also = self.config.also
        decides |= {"weights": checkpoint.files_fingerprint, "configuration": configuration_hash(checkpoint)}
        decides |= {"revision": checkpoint.revision.name, "model": name, "sites": list(self.config.sites)}
        decides |= {"commit": checkpoint.commit, "also": None if also is None else also.model_dump(mode="json")}

        def run() -> UnitResult:
            told = [0]

            def advance(positions: int) -> None:
                told[0] += positions
                self.advance(positions)

            try:
                loaded = self.model.open(checkpoint)
                about = describe | {"fingerprint": loaded.fingerprint, "commit": checkpoint.commit}
                measured = measure_corpus(
                    loaded.model,
                    prepared,
                    self.config.sites,
                    self.config.estimator,
                    self.config.compute,
                    about,
                    self.scratch,
                    advance,
                    self.config.also,
                )
                return UnitResult(measured.rows, measured.documents, measured.influence)
            finally:
                self.advance(prepared.windows.total_positions - told[0])
                if prepared is self.corpora[-1]:
                    self.model.close()

        unit = unit_name(study="information_plane", **decides)
        return Unit(unit, f"{checkpoint.revision.name} · {prepared.name}", describe, run)

    def _control_unit(self, prepared: PreparedCorpus) -> Unit:
        config = self.source.config()
        dim = int(getattr(config, "hidden_size", None) or config.n_embd)
        name = self.config.model.table_name
        describe = {"model": name, "revision": CONTROL_REVISION, "corpus": prepared.name, "site": CONTROL_SITE}

        def run() -> UnitResult:
            compute = self.config.compute
            return UnitResult(
                measure_control(dim, prepared, self.config.estimator, compute, describe, self.scratch).rows
            )

        decides = self._decides(prepared, 1) | {"dim": dim, "model": name}
        return Unit(unit_name(study="control", **decides), f"random control · {prepared.name}", describe, run)

    def _decides(self, prepared: PreparedCorpus, sites: int) -> dict[str, Any]:
        compute, estimator = self.config.compute, self.config.estimator
        variants = sites * len(estimator.rows)
        on_disk = scratch_needed(variants, prepared.n_rows, estimator.draws, estimator.bins, compute.memory_budget)
        return {
            "corpus": dict(prepared.identity()),
            "estimator": estimator.model_dump(mode="json"),
            "dtype": compute.dtype,
            "attention": compute.attention,
            "device": device_of(compute).type,
            "float16_scratch": on_disk,
            "estimator_version": ESTIMATOR_VERSION,
        }
