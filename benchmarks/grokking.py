"""Grokking: seconds to generalization on one thread, and sixteen seeds at once against one one-thread worker.

Seconds are the training's own, cut at the step of generalization; evaluations are part of them.
"""

import tempfile
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.record import Result
from infocomp.grokking.curves import Curves
from infocomp.grokking.recipe import GrokkingRecipe, GrokkingTraining, ShapeSettings
from infocomp.grokking.tasks import ArithmeticTask
from infocomp.grokking.transition import date_transition
from infocomp.training.many import Mode, train_many
from infocomp.training.recipe import MemberResult, train_one

SEEDS = (0, 1, 2)
MANY, STEPS = 16, 400
SQUARE, SMALL, PUBLISHED = (
    ShapeSettings(kind="quadratic_mlp", width=256),
    ShapeSettings(mlp=256),
    ShapeSettings(mlp=512),
)
CASES = (
    ("quadratic MLP, p = 59, 40 %", SQUARE, 59, 0.4, 0.01, 1.0, 800, SEEDS, 4.0),
    ("transformer, p = 59, 40 %", SMALL, 59, 0.4, 0.003, 2.0, 1200, SEEDS, 15.0),
    ("transformer, p = 113, 30 %", PUBLISHED, 113, 0.3, 0.003, 1.0, 3000, (0,), 180.0),
)


def run() -> list[Result]:
    """Seconds to generalization, each the slowest of its seeds, and the ratio for sixteen seeds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*(_case(*case) for case in CASES), _many()]
    finally:
        torch.set_num_threads(threads)


def _case(name, shape, modulus, fraction, rate, decay, steps, seeds, target) -> Result:
    training = GrokkingTraining(steps=steps, learning_rate=rate, weight_decay=decay, keep=None)
    task, slowest, notes = ArithmeticTask("addition", modulus), 0.0, []
    for seed in seeds:
        recipe = GrokkingRecipe(task, shape, training, fraction, seed=seed)
        with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
            memorized, generalized, seconds = dates(train_one(recipe, folder), steps)
        slowest = max(slowest, seconds)
        notes.append(f"{memorized:,} → {generalized:,} in {seconds:.1f} s")
    return Result(f"grokking: {name}", slowest, "s", target, note="; ".join(notes))


def dates(found: MemberResult, steps: int) -> tuple[float, float, float]:
    """Steps of memorization and generalization, and seconds to the latter; infinity where it never came."""
    rows = [row for row in found.rows if "test_accuracy" in row]
    names = ("step", "train_accuracy", "test_accuracy")
    transition = date_transition(Curves.of({name: [row[name] for row in rows] for name in names}))
    memorized, generalized = (
        float("inf") if one.step is None else one.step for one in (transition.memorization, transition.generalization)
    )
    return memorized, generalized, found.seconds * generalized / steps


def _many() -> Result:
    one, several = _timed("processes", 1), _timed("auto", None)
    note = f"{MANY} transformers, p = 59, {STEPS} steps: one worker {one:.0f} s, as chosen {several:.0f} s"
    return Result("grokking: 16 seeds, one worker / as chosen", one / several, "x", 1.7, at_most=False, note=note)


def _timed(way: Mode, workers: int | None) -> float:
    training = GrokkingTraining(steps=STEPS, learning_rate=0.003, weight_decay=2.0, keep=None)
    task = ArithmeticTask("addition", 59)
    recipes = {f"seed {seed}": GrokkingRecipe(task, SMALL, training, 0.4, seed=seed) for seed in range(MANY)}
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
        start = perf_counter()
        with train_many(recipes, Path(folder), mode=way, workers=workers) as many:
            if any(many.result(name).status != "ok" for name in recipes):
                raise RuntimeError(f"a training failed under {way}")
        return perf_counter() - start
