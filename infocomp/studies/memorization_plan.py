"""What a memorization study would need before it is run; its time is rough, and says so."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from infocomp.checkpoints.source import DirectorySource
from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.memorization.extraction import extract
from infocomp.memorization.samples import sample_pass
from infocomp.studies.model_source import device_of
from infocomp.studies.planning import FIGURE_SECONDS, LOADING_BYTES_A_SECOND, LOADING_SECONDS, Plan, training_time
from infocomp.studies.settings import ComputeSettings

if TYPE_CHECKING:
    from infocomp.studies.memorization import Memorization

CALIBRATION_ROWS = 64


def plan_memorization(study: "Memorization", report: Report) -> Plan:
    """Units, download, disk, memory and a rough time.

    Members of a series that is not trained yet are not known: as many rows as are asked for are taken to be found.
    """
    config, model = study.config, study.model
    parts: dict[str, float] = {}
    untrained = model.trains and model.untrained()
    with tempfile.TemporaryDirectory(prefix="infocomp-plan-") as folder:
        source, steps = model.source, 0
        if untrained:
            report.note("calibrating: a few steps of training")
            parts["training"] = training_time(model.series, Path(folder))
            source, steps = DirectorySource(Path(folder) / "checkpoints"), len(model.series_steps())
        checkpoints = source.list()
        report.note("reading the texts")
        shape = source.config()
        held_out = None if config.held_out is None else study.held_out_by(source)
    asked = config.samples
    rows = 2 * asked.count if untrained else len(study.samples.members) + len(study.samples.unseen)
    report.note("calibrating: a few rows through random weights of the same shape")
    passing, decoding, parameters = _seconds_a_row(shape, study, config.compute)
    n = len(model.measured_steps()) if steps else len(checkpoints)
    parts["samples"] = n * rows * passing
    each = 1 + len(study.references)
    if held_out is not None:
        each += 1
        positions = held_out.prepared.windows.total_positions
        parts["held-out rate"] = n * positions / asked.length * passing
    last = 0
    if config.extraction is not None and config.extraction.score_count:
        each += 1
        parts["score"] = n * min(rows, 2 * config.extraction.score_count) * decoding
    if config.extraction is not None and config.fragility is not None:
        measured = n if config.fragility.checkpoints == "all" else 1
        last = measured
        rows = 2 * config.fragility.count  # members, and as many never-trained ones for the null
        parts["changed prompts"] = measured * rows * (len(config.fragility.changes) + 1) * decoding
    weights = [checkpoint.size_bytes for checkpoint in checkpoints]
    parts["loading"] = n * (LOADING_SECONDS + (sum(weights) / len(weights)) / LOADING_BYTES_A_SECOND)
    parts["figures"] = FIGURE_SECONDS
    hub = config.model.source == "hub"
    width = {"float32": 4, "float64": 8}.get(config.compute.dtype, 2)
    kept = config.model.keep or config.model.cache_dir is None
    disk = (sum(weights) if kept else max(weights)) if hub else steps * parameters * width * 3
    texts = [(one.name, 0, asked.count * asked.length, asked.count) for one in (config.members, config.never_trained)]
    if not untrained:
        drawn = (study.samples.members, study.samples.unseen)
        texts = [(one.name, len(np.unique(one.documents)), one.rows.size, len(one)) for one in drawn]
    return Plan(
        checkpoints=n,
        corpora=texts,
        units=n * each + last + model.trains,
        done=0 if untrained else sum(Store(study.out).state(unit.name) == "done" for unit in study.units()),
        download=sum(weights) if hub else 0,
        disk=disk + 50_000 * n,
        memory=2 * parameters * width + asked.batch_rows * asked.length * _vocabulary(shape) * 4,
        scratch=0,
        seconds=sum(parts.values()),
        parts=parts,
        duplicates={} if untrained else model.duplicates(),
        notes=["the time is rough: a short calibration with random weights, scaled by rows"]
        + (["references are read once more each, which is not part of the time"] if study.references else [])
        + (["downloads are not part of the time"] if hub else []),
    )


def _vocabulary(shape: Any) -> int:
    return int(shape.vocab_size)


def _seconds_a_row(shape: Any, study: "Memorization", compute: ComputeSettings) -> tuple[float, float, int]:
    """Seconds of a row in a pass, of a row decoded, and the number of parameters."""
    settings = study.config.samples
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(
            shape, dtype=getattr(torch, compute.dtype), attn_implementation=compute.attention
        )
    model = model.to(device_of(compute)).eval()
    rows = np.random.default_rng(0).integers(0, _vocabulary(shape), (CALIBRATION_ROWS, settings.length))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        sample_pass(model, rows, None, settings.batch_rows)
        middle = time.perf_counter()
        extract(model, rows, settings.prompt, settings.continuation, settings.batch_rows)
        times.append((middle - start, time.perf_counter() - middle))
    passing, decoding = np.min(times, axis=0) / CALIBRATION_ROWS
    return float(passing), float(decoding), sum(parameter.numel() for parameter in model.parameters())
