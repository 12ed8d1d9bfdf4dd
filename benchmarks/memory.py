"""Extra peak memory of an analysis of 1 M tokens, 7 sites, within the default memory_budget.

Run in a process of its own with a narrow model (what is kept depends on rows, draws and bins, not on the width), and
compared with the same process before the analysis: the peak of the resident set, read from the operating system.
"""

import json
import subprocess
import sys

from benchmarks.record import Result
from infocomp.studies.settings import ComputeSettings

TOKENS = 1_050_000
GIB = 2**30

CHILD = """
import json, resource, sys, tempfile, threading, time
from pathlib import Path
import psutil
import torch
from benchmarks.shapes import pythia_70m, tokenizer
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import ComputeSettings, CorpusSettings, EstimatorSettings
model = pythia_70m(hidden_size=32, layers=6, heads=4)
tokens = int(sys.argv[1])
settings = CorpusSettings(name="text", builtin="training", context_length=256, packing=True, max_tokens=tokens)
estimator, compute = EstimatorSettings(), ComputeSettings()
prepared = prepare_corpus(settings, tokenizer(), estimator.orders)
process = psutil.Process()
before = process.memory_info().rss
peak, stop = before, False
def watch():
    global peak
    while not stop:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.02)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
sites = ("hook_embed", "blocks.*.hook_resid_post")
with tempfile.TemporaryDirectory() as folder:
    measured = measure_corpus(model, prepared, sites, estimator, compute, {"model": "m", "revision": "r"}, Path(folder))
stop = True
watcher.join()
print(json.dumps({"extra": peak - before, "rows": prepared.n_rows, "numbers": len(measured.rows)}))
"""


def run(tokens: int = TOKENS) -> list[Result]:
    """Gigabytes beyond what the process held with model, tokens and label ids in memory."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(tokens)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the memory benchmark's process failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    budget = ComputeSettings().memory_budget
    note = f"{found['rows']:,} rows, 7 sites, 5 draws, 8 label sets"
    return [Result("extra peak memory at 1 M tokens", found["extra"] / GIB, "GiB", budget / GIB, note=note)]
