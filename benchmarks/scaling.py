"""Ten times the text, and ten times the checkpoints, for at most 10.5 times the time."""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.record import Result
from benchmarks.shapes import pythia_70m, tokenizer
from infocomp.config import load_config
from infocomp.execution.session import Silent, run_study
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import ComputeSettings, CorpusSettings, EstimatorSettings

TOKENS, CHECKPOINTS, ROUNDS = 12_000, 3, 3
SITES = ("hook_embed", "blocks.*.hook_resid_post")


def run() -> list[Result]:
    """Ratios of medians, measured in turn."""
    return [_text(), _checkpoints()]


def _text() -> Result:
    model = pythia_70m(hidden_size=128, layers=4, heads=4)
    estimator, compute = EstimatorSettings(), ComputeSettings()
    times: dict[int, list[float]] = {TOKENS: [], 10 * TOKENS: []}
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
        for _ in range(ROUNDS + 1):
            for tokens, seconds in times.items():
                settings = CorpusSettings(
                    name="text", builtin="training", context_length=256, packing=True, max_tokens=tokens
                )
                prepared = prepare_corpus(settings, tokenizer(), estimator.orders)
                start = time.perf_counter()
                _ = prepared.groups
                about = {"model": "m", "revision": "r"}
                measure_corpus(model, prepared, SITES, estimator, compute, about, Path(folder))
                seconds.append(time.perf_counter() - start)
    short, long = (statistics.median(seconds[1:]) for seconds in times.values())
    return Result("10 times the text", long / short, "× time", 10.5)


def _checkpoints() -> Result:
    """The runner over a folder of checkpoints, parts written and merged; the corpus' own work is done before."""
    times: dict[int, list[float]] = {CHECKPOINTS: [], 10 * CHECKPOINTS: []}
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as name:
        folder = Path(name)
        model, words = pythia_70m(hidden_size=64, layers=2, heads=4), tokenizer()
        for step in range(10 * CHECKPOINTS):
            model.get_output_embeddings().weight.data[0, 0] = step
            model.save_pretrained(folder / "checkpoints" / f"step{step}")
            words.save_pretrained(folder / "checkpoints" / f"step{step}")
        for number in range(ROUNDS):
            for count, seconds in times.items():
                text = {"name": "text", "builtin": "held_out", "context_length": 256, "packing": True}
                source = {"source": "folder", "path": str(folder / "checkpoints"), "name": "m"}
                settings = {
                    "study": "information_plane",
                    "model": source | {"revisions": {"from": 0, "to": count - 1}},
                    "corpora": [text | {"max_tokens": 20_000}],
                }
                study = load_config(settings).open(folder / f"out-{count}-{number}")  # type: ignore[attr-defined]
                _ = study.corpora[0].groups, study.source.list()
                units = [unit for unit in study.units() if unit.describe.get("step") is not None]
                study.phases = lambda report, units=units: iter([("measure", units)])
                study.figures = list
                start = time.perf_counter()
                run_study(study, "{}", Silent())
                seconds.append(time.perf_counter() - start)
    few, many = (statistics.median(seconds) for seconds in times.values())
    return Result("10 times the checkpoints", many / few, "× time", 10.5)
