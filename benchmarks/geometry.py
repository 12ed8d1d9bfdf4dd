"""Spectra of wide sites: seconds and memory of 100 k rows at d = 4,096, and the scatters of a 70M-shaped model's sites.

The wide site runs in a process of its own: rows arrive in batches of 2,048 in float32 as a model gives them (drawing
them is not counted), everything else is: conversion, scatter in float64, both sets of eigenvalues, every number. Memory
is the peak of the resident set beyond what the process held with one batch. The scatters of the 7 sites at d = 512 are
compared with a bare forward pass of the same tokens with the LM head, taken in turns so that a drift hits both.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.record import Result
from benchmarks.shapes import VOCABULARY, pythia_70m
from infocomp.geometry.scatter import Scatter

DIM, ROWS, BATCH = 4096, 100_000, 2048
CONTEXT, SEQUENCES, ROUNDS = 256, 16, 5
GIB = 2**30

CHILD = """
import json, sys, threading, time
import psutil
import torch
from infocomp.geometry.scatter import Scatter
from infocomp.geometry.spectrum import spectrum_of
dim, rows, batch = map(int, sys.argv[1:4])
scale = torch.arange(1, dim + 1).float() ** -0.5
spectrum_of(Scatter(8))
drawn = torch.randn(batch, dim) * scale
process = psutil.Process()
before = peak = process.memory_info().rss
stop = False
def watch():
    global peak
    while not stop:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.01)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
site, adding = Scatter(dim), 0.0
for start in range(0, rows, batch):
    drawn.normal_().mul_(scale)
    begin = time.perf_counter()
    site.update(drawn[: rows - start])
    adding += time.perf_counter() - begin
begin = time.perf_counter()
numbers = spectrum_of(site).estimates()
reading = time.perf_counter() - begin
stop = True
watcher.join()
print(json.dumps({"adding": adding, "reading": reading, "extra": peak - before, "numbers": len(numbers)}))
"""


def run(rows: int = ROWS) -> list[Result]:
    """Seconds a site (scaled to 100 k rows where fewer were asked for), GiB a site, share of a forward pass."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    asked = [sys.executable, "-c", CHILD, str(DIM), str(rows), str(BATCH)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        raise RuntimeError(f"the spectrum benchmark's process failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = found["adding"] * ROWS / rows + found["reading"]
    note = f"{rows:,} rows, of it eigenvalues {found['reading']:.1f} s, {found['numbers']} numbers"
    share, scatters = _share_of_a_pass()
    return [
        Result("spectrum of d = 4096 over 100 k rows", seconds, "s", 100.0, note=note),
        Result("extra peak memory of that site", found["extra"] / GIB, "GiB", 1.0),
        Result("scatters of 7 sites over a bare pass", share, "x", 0.1, note=f"d = 512, {scatters:.3f} s"),
    ]


def _share_of_a_pass() -> tuple[float, float]:
    """Seconds of seven updates over those of a pass, medians of rounds that alternate; and the former."""
    model, generator = pythia_70m(), torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (SEQUENCES, CONTEXT), generator=generator)
    rows = [torch.randn(SEQUENCES * CONTEXT, 512, generator=generator) for _ in range(7)]
    sites = [Scatter(512) for _ in rows]
    passes, updates = [], []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            begin = time.perf_counter()
            model(tokens, use_cache=False)
            between = time.perf_counter()
            for site, of_site in zip(sites, rows, strict=True):
                site.update(of_site)
            passes.append(between - begin)
            updates.append(time.perf_counter() - between)
    return statistics.median(updates[1:]) / statistics.median(passes[1:]), statistics.median(updates[1:])
