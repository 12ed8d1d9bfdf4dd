"""What a grokking study would need before it is run: trainings, states, and a rough time from a few steps of each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.studies.planning import duration, size
from infocomp.training.many import cores, seconds_a_step

if TYPE_CHECKING:
    from infocomp.studies.grokking import Grokking
    from infocomp.studies.grokking_settings import MeasureSettings

# seconds of a measure of 147,328 weights on one core, with p = 59; the complexity's grow with the weights, all others
# with the pairs
SECONDS = {
    "fourier": 0.05,
    "weights": 0.03,
    "information": 0.35,
    "bisection": 0.2,
    "sweep": 0.7,
    "bayesian": 2.0,
    "synergy": 0.15,
}
MAPPING_SECONDS = 2e-5  # a pair of points
COEFFICIENT_SECONDS = 0.015  # a step of a chain
WEIGHTS, PAIRS = 147_328, 59**2
STATES_WORTH_WORKERS = 16  # from so many on, worker processes measure


@dataclass(frozen=True)
class GrokkingPlan:
    """Numbers of a study that has not begun; seconds and bytes."""

    trainings: int
    done: int
    states: int
    models: list[tuple[str, int, float]]  # name, parameters, seconds of its trainings, one after the other
    at_once: int
    training_seconds: float
    measuring_seconds: float
    disk: int

    def text(self) -> str:
        """For the terminal."""
        lines = [f"trainings   {self.trainings} ({self.done} done), {self.at_once} at a time"]
        for name, parameters, seconds in self.models:
            lines.append(f"model       {name}: {parameters:,} parameters, {duration(seconds)} one after the other")
        lines.append(f"states      about {self.states} are kept and measured, {size(self.disk)} on the disk")
        training, measuring = duration(self.training_seconds), duration(self.measuring_seconds)
        total = duration(self.training_seconds + self.measuring_seconds)
        return "\n".join([*lines, f"time        about {total}: training {training}, measuring {measuring}"])


def plan_grokking(study: "Grokking", report: Report) -> GrokkingPlan:
    """Time a few steps of each model; nothing of it is kept."""
    store, config = Store(study.out), study.config
    waiting = [run for run in study.runs if store.state(study.unit(run).name) != "done"]
    report.note("calibrating: a few steps of each model")
    tried: dict[str, float] = {}
    totals: dict[str, tuple[int, float]] = {}
    states, disk, measuring = 0, 0, 0.0
    for run in waiting:
        recipe = run.recipe
        if recipe.family() not in tried:
            tried[recipe.family()] = seconds_a_step([recipe], study.device, torch.get_num_threads())
        share = len(recipe.task.left) / (3 * len(recipe.split.train))  # of a step's cost: forward alone, all pairs
        each = tried[recipe.family()] * (1 + share / recipe.training.measure_every)
        before = totals.get(run.model, (0, 0.0))[1]
        totals[run.model] = (recipe.parameters, before + each * recipe.training.steps)
        keep = recipe.training.keep
        own = 0 if keep is None else len(recipe.settings.checkpoints.steps(recipe.training.steps)) + keep.events
        states, disk = states + own, disk + own * 4 * recipe.parameters
        if config.measures is not None:
            scales = recipe.parameters / WEIGHTS, len(recipe.task.left) / PAIRS
            measuring += own * measuring_seconds(config.measures, *scales)
    in_turn = sum(seconds for _, seconds in totals.values())
    at_once = min(config.compute.workers or cores(), max(len(waiting), 1)) if study.device.type == "cpu" else 1
    models = [(name, parameters, seconds) for name, (parameters, seconds) in totals.items()]
    done = len(study.runs) - len(waiting)
    measuring /= (config.compute.workers or cores()) if states >= STATES_WORTH_WORKERS else 1
    return GrokkingPlan(len(study.runs), done, states, models, at_once, in_turn / at_once, measuring, disk)


def measuring_seconds(measures: "MeasureSettings", weights: float, pairs: float) -> float:
    """Of one state, whose model has so many times the weights and pairs of the one that was timed."""
    found = sum(SECONDS[name] * pairs for name in ("fourier", "synergy") if getattr(measures, name))
    found += SECONDS["weights"] * weights if measures.weights else 0.0
    found += SECONDS["information"] * pairs if measures.information is not None else 0.0
    if measures.complexity is not None:
        found += SECONDS[measures.complexity.search] * weights
    if measures.mapping is not None:
        found += MAPPING_SECONDS * measures.mapping.points**2 * weights
    if measures.learning_coefficient is not None:
        chains = measures.learning_coefficient
        found += COEFFICIENT_SECONDS * (chains.burn_in + chains.draws) * chains.chains * weights * pairs
    return found
