"""What a coding study would need before it is run; its time is rough, and says so."""

import copy
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM

from infocomp.checkpoints.source import DirectorySource
from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.studies.coding_parts import code_lengths
from infocomp.studies.coding_texts import CodedText
from infocomp.studies.model_source import device_of
from infocomp.studies.planning import (
    CALIBRATION_TOKENS,
    FEW_LAYERS,
    FIGURE_SECONDS,
    LARGE,
    LOADING_BYTES_A_SECOND,
    LOADING_SECONDS,
    Plan,
    first_windows,
    training_time,
)
from infocomp.studies.settings import ComputeSettings

if TYPE_CHECKING:
    from infocomp.studies.coding_rate import Coding

CODER_BYTES_A_SECOND = 50e3  # six classical coders in one stream and in pieces, each decoded too
STEP_TIMES_PASS = 5.0  # a token read one at a time in many lanes and coded, against one in a parallel pass


def plan_coding(study: "Coding", report: Report) -> Plan:
    """Units, download, disk, memory and a rough time; texts are tokenised for real and kept for the run."""
    config, model = study.config, study.model
    with tempfile.TemporaryDirectory(prefix="infocomp-plan-") as folder:
        source, parts, steps = model.source, {}, 0
        untrained = model.trains and model.untrained()
        if untrained:
            report.note("calibrating: a few steps of training")
            parts["training"] = training_time(model.series, Path(folder))
            source, steps = DirectorySource(Path(folder) / "checkpoints"), len(model.series_steps())
        checkpoints = source.list()
        report.note("reading the text")
        texts, shape = study.prepared_by(source), source.config()
    report.note("calibrating: one slice of the text through random weights of the same shape")
    seconds, parameters = _seconds_a_token(shape, texts[0], config.compute)
    n = len(model.measured_steps()) if steps else len(checkpoints)
    each = [[study.parts(text, is_last) for text in texts] for is_last in (False, True)]
    passes = [sum(part.tokens for found in of for part in found if not part.slow) for of in each]
    slow = [sum(part.tokens for found in of for part in found if part.slow) for of in each]
    parts["forward passes"] = seconds * ((n - 1) * passes[0] + passes[1])
    if slow[1]:
        parts["token by token"] = STEP_TIMES_PASS * seconds * ((n - 1) * slow[0] + slow[1])
    weights = [checkpoint.size_bytes for checkpoint in checkpoints]
    hub = config.model.source == "hub"
    parts["loading"] = n * (LOADING_SECONDS + (sum(weights) / len(weights)) / LOADING_BYTES_A_SECOND)
    parts["classical coders"] = sum(len(text.data) for text in texts) / CODER_BYTES_A_SECOND
    parts["figures"] = FIGURE_SECONDS
    units = (n - 1) * sum(map(len, each[0])) + sum(map(len, each[1])) + len(study.without_model(texts))
    width = {"float32": 4, "float64": 8}.get(config.compute.dtype, 2)
    kept = config.model.keep or config.model.cache_dir is None
    disk = (sum(weights) if kept else max(weights)) if hub else steps * parameters * width * 3
    longest = max(int(text.prepared.windows.lengths.max()) for text in texts)
    batch = max(config.compute.batch_tokens, longest)
    memory = parameters * width * (2 if config.weights is not None else 1) + batch * _width_of(shape) * width * 12
    return Plan(
        checkpoints=n,
        corpora=[
            (text.name, text.prepared.corpus.n_documents, len(text.prepared.corpus.tokens), _scored(text))
            for text in texts
        ],
        units=units + model.trains,
        done=0 if untrained else sum(Store(study.out).state(unit.name) == "done" for unit in study.units()),
        download=sum(weights) if hub else 0,
        disk=disk + 50_000 * n,
        memory=memory,
        scratch=0,
        seconds=sum(parts.values()),
        parts=parts,
        duplicates={} if untrained else model.duplicates(),
        notes=["the time is rough: a short calibration with random weights, scaled by tokens"]
        + (["downloads are not part of the time"] if hub else []),
    )


def _scored(text: CodedText) -> int:
    return len(text.prepared.windows.scored_tokens)


def _width_of(shape: Any) -> int:
    return int(getattr(shape, "hidden_size", None) or shape.n_embd)


def _seconds_a_token(shape: Any, text: CodedText, compute: ComputeSettings) -> tuple[float, int]:
    """Seconds a position of a parallel pass takes, and the number of parameters; a large model is cut to few layers."""
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(shape).parameters())
    layers = int(shape.num_hidden_layers)
    built = layers if parameters <= LARGE or layers <= 2 * FEW_LAYERS else FEW_LAYERS
    cut = copy.deepcopy(shape)
    cut.num_hidden_layers = built
    if getattr(cut, "layer_types", None):
        cut.layer_types = cut.layer_types[:built]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(
            cut, dtype=getattr(torch, compute.dtype), attn_implementation=compute.attention
        )
    model = model.to(device_of(compute)).eval()
    slice_ = first_windows(text.prepared, CALIBRATION_TOKENS)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        code_lengths(model, slice_, compute)
        times.append(time.perf_counter() - start)
    return min(times) / slice_.windows.total_positions * layers / built, parameters
