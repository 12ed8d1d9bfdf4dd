"""What a run would need: units, download, disk, memory, scratch, and an estimate of its time.

Texts are tokenised and labelled for real (and kept for the run). No checkpoint is loaded: the time comes from a short
calibration with a randomly initialised model of the same shape, cut to fewer layers where it is large.
"""

import copy
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from infocomp.activations.sites import resolve_sites
from infocomp.corpora.windows import Windows
from infocomp.estimators.buffer import bytes_needed
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import ComputeSettings, EstimatorSettings
from infocomp.training.schedule import CheckpointSettings
from infocomp.training.series import SeriesSettings, train_series

CALIBRATION_TOKENS = 8192
FEW_LAYERS = 2
LARGE = 300_000_000  # parameters from which a calibration builds two layers instead of all
LOADING_SECONDS, LOADING_BYTES_A_SECOND = 0.3, 400e6  # a local disk, weights hashed
CLASSICAL_BYTES_A_SECOND = 200e3  # gzip, xz and PPMd, each decoded too
FIGURE_SECONDS = 15.0


@dataclass(frozen=True)
class Plan:
    """Numbers of a run that has not begun; bytes and seconds."""

    checkpoints: int
    corpora: list[tuple[str, int, int, int]]  # name, documents, tokens, measured positions
    units: int
    done: int
    download: int
    disk: int
    memory: int
    scratch: int
    seconds: float
    parts: dict[str, float]
    duplicates: dict[str, str]
    notes: list[str]

    def text(self) -> str:
        """For the terminal."""
        lines = [f"units       {self.units} ({self.done} done), {self.checkpoints} checkpoints"]
        for name, documents, tokens, rows in self.corpora:
            lines.append(f"text        {name}: {documents:,} documents, {tokens:,} tokens, {rows:,} measured positions")
        lines += [
            f"download    {size(self.download)}",
            f"disk        {size(self.disk)}",
            f"memory      about {size(self.memory)} beside Python and PyTorch",
            f"scratch     {size(self.scratch)}" + ("" if self.scratch else " (assignments fit into memory_budget)"),
            f"time        about {duration(self.seconds)} here ("
            + ", ".join(f"{name} {duration(seconds)}" for name, seconds in self.parts.items() if seconds >= 0.5)
            + ")",
        ]
        lines += [f"duplicate   {name} holds the same weights as {first}" for name, first in self.duplicates.items()]
        return "\n".join([*lines, *(f"note        {note}" for note in self.notes)])


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def calibrate(
    config: Any,
    prepared: PreparedCorpus,
    sites: tuple[str, ...],
    estimator: EstimatorSettings,
    compute: ComputeSettings,
    device: torch.device,
) -> tuple[float, int, int]:
    """Seconds for one checkpoint on the whole corpus, the number of sites, bytes of its parameters.

    Measures a slice of the corpus with random weights, twice (the first time warms up); positions scale the time.
    """
    layers = int(config.num_hidden_layers)
    full = _parameters(config)
    counts = [layers] if full <= LARGE or layers <= 2 * FEW_LAYERS else [FEW_LAYERS, 2 * FEW_LAYERS]
    slice_ = first_windows(prepared, CALIBRATION_TOKENS)
    seconds = [_timed(config, count, slice_, sites, estimator, compute, device) for count in counts]
    per_slice = seconds[0]
    if len(counts) == 2:
        per_slice += (seconds[1] - seconds[0]) / (counts[1] - counts[0]) * (layers - counts[0])
    share = prepared.windows.total_positions / slice_.windows.total_positions
    width = {"float32": 4}.get(compute.dtype, 2)
    with torch.device("meta"):
        named = len(resolve_sites(AutoModelForCausalLM.from_config(config), list(sites)))
    return per_slice * share, named, full * width


def _timed(
    config: Any,
    layers: int,
    prepared: PreparedCorpus,
    sites: tuple[str, ...],
    estimator: EstimatorSettings,
    compute: ComputeSettings,
    device: torch.device,
) -> float:
    shaped = copy.deepcopy(config)
    shaped.num_hidden_layers = layers
    if getattr(shaped, "layer_types", None):
        shaped.layer_types = shaped.layer_types[:layers]
    dtype = getattr(torch, compute.dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(shaped, dtype=dtype, attn_implementation=compute.attention)
    model = model.to(device).eval()
    about = {"model": "calibration", "revision": "random"}
    with tempfile.TemporaryDirectory(prefix="infocomp-") as scratch:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            measure_corpus(model, prepared, sites, estimator, compute, about, Path(scratch))
            times.append(time.perf_counter() - start)
    return min(times)


def _parameters(config: Any) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def training_time(settings: SeriesSettings, folder: Path, steps: int = 8) -> float:
    """Seconds that training a series takes, from a few of its steps, run in `folder`; tokenising is counted too."""
    stamps = [time.perf_counter()]
    short = settings.model_copy(
        update={"steps": steps, "checkpoints": CheckpointSettings(log_spaced_until=0), "keep_states": False}
    )
    train_series(short, folder, lambda step, total, loss: stamps.append(time.perf_counter()))
    each = np.diff(stamps)
    return float(each[0] + np.median(each[1:]) * settings.steps)


def first_windows(prepared: PreparedCorpus, tokens: int) -> PreparedCorpus:
    """The same corpus cut to windows spread evenly over it, about `tokens` positions in all."""
    windows = prepared.windows
    wanted = max(2, int(np.searchsorted(np.cumsum(windows.lengths), tokens)) + 1)
    if wanted >= len(windows):
        return prepared
    chosen = np.unique(np.linspace(0, len(windows) - 1, wanted).astype(int))
    names = ("starts", "lengths", "has_bos", "measure_from", "measure_to", "score_from")
    cut: Windows = replace(windows, **{name: getattr(windows, name)[chosen] for name in names})
    rows = np.isin(windows.row_windows, chosen)
    labels = [replace(label, ids=label.ids[rows]) for label in prepared.labels]
    return replace(prepared, windows=cut, labels=labels)


def memory_needed(
    prepared: PreparedCorpus, sites: int, estimator: EstimatorSettings, compute: ComputeSettings, model_bytes: int
) -> tuple[int, int]:
    """Bytes in memory and in scratch files for one unit: model, assignments, labels, one plane being reduced."""
    variants = sites * len(estimator.rows)
    rows, draws, bins = prepared.n_rows, estimator.draws, estimator.bins
    in_memory = variants * bytes_needed(rows, draws, bins, on_disk=False)
    on_disk = in_memory > compute.memory_budget // 2
    labels = rows * len(prepared.labels) * (8 + 16)
    plane = rows * bins * 4 * 2
    entropies = variants * rows * draws * 4
    kept = 0 if on_disk else in_memory
    scratch = variants * bytes_needed(rows, draws, bins, on_disk=True) if on_disk else 0
    return model_bytes + kept + labels + plane + entropies, scratch
