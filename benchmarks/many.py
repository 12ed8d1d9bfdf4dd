"""Sixteen small models: in turn on one thread and on all, in one-thread processes, stacked, and as a trial chooses.

Ways are timed one after the other in one process, start of the workers included; ratios are of whole times.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Result
from infocomp.training.many import Mode, train_many
from infocomp.training.small_gpt import GPTSettings
from infocomp.training.token_recipe import TokenRecipe, TokenTraining

MODELS, ROWS, STEPS, STEPS_ON_GPU, STACKED_STEPS = 16, 256, 400, 400, 40
SHAPE = GPTSettings(layers=1, width=24, heads=2, vocabulary=64, length=16)


def run() -> list[Result]:
    """How the chosen way compares with each of the others."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    try:
        return on_gpu(device) if device == "cuda" else on_cpu(threads)
    finally:
        torch.set_num_threads(threads)


def on_cpu(threads: int) -> list[Result]:
    """Targets: never slower than the better of serial on all threads and processes, 1.7 times serial on one."""
    one = timed("in_turn", STEPS, 1)
    several = timed("in_turn", STEPS, threads)
    processes = timed("processes", STEPS, threads)
    chosen = timed("auto", STEPS, threads)
    stacked = timed("stacked", STACKED_STEPS, threads) * STEPS / STACKED_STEPS
    best = min(several, processes)
    note = f"serial on 1 thread {one:.0f} s, on {threads} {several:.0f} s, {threads} processes {processes:.0f} s, "
    note += f"stacked {stacked:.0f} s, chosen {chosen:.0f} s"
    return [
        Result("many: chosen / better of serial, processes", chosen / best, "x", 1.05, note=note),
        Result("many: serial on one thread / chosen", one / chosen, "x", 1.7, at_most=False, note=note),
    ]


def on_gpu(device: str) -> list[Result]:
    """Target: stacked eight times as fast as in turn."""
    timed("in_turn", 5, 1, device)
    in_turn, stacked = (timed(way, STEPS_ON_GPU, 1, device) for way in ("in_turn", "stacked"))
    note = f"in turn {in_turn:.0f} s, stacked {stacked:.0f} s"
    return [Result("many: in turn / stacked, on a GPU", in_turn / stacked, "x", 8.0, at_most=False, note=note)]


def timed(way: Mode, steps: int, threads: int, device: str = "cpu") -> float:
    """Seconds of all sixteen trainings."""
    torch.set_num_threads(threads)
    found = {f"seed {seed}": recipe(seed, steps) for seed in range(MODELS)}
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
        start = time.perf_counter()
        with train_many(found, Path(folder), mode=way, device=device) as many:
            failed = [name for name in found if many.result(name).status != "ok"]
        if failed:
            raise RuntimeError(f"{len(failed)} trainings failed under {way}")
        return time.perf_counter() - start


def recipe(seed: int, steps: int) -> TokenRecipe:
    """One of the sixteen: data, weights and rate of its own."""
    rows = np.random.default_rng(seed).integers(0, SHAPE.vocabulary, (ROWS, SHAPE.length))
    training = TokenTraining(steps=steps, learning_rate=0.02 / (1 + seed % 3))
    return TokenRecipe(SHAPE, training, rows, rows[:1], seed)
