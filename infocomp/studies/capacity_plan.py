"""What a capacity study would need before it is run: trainings, and a rough time from a few steps of some of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.studies.planning import duration, size
from infocomp.training.many import choose, seconds_a_step

if TYPE_CHECKING:
    from infocomp.studies.capacity import Capacity


@dataclass(frozen=True)
class CapacityPlan:
    """Numbers of a study that has not begun; seconds and bytes."""

    trainings: int
    done: int
    models: list[tuple[str, int, float]]  # name, parameters, seconds of all its trainings, one after the other
    way: str
    seconds: float
    memory: int

    def text(self) -> str:
        """For the terminal."""
        lines = [f"trainings   {self.trainings} ({self.done} done), {self.way}"]
        for name, parameters, seconds in self.models:
            lines.append(f"model       {name}: {parameters:,} parameters, {duration(seconds)} one after the other")
        lines += [f"memory      about {size(self.memory)} a training beside Python and PyTorch"]
        return "\n".join([*lines, f"time        about {duration(self.seconds)} here"])


def plan_capacity(study: "Capacity", report: Report) -> CapacityPlan:
    """Nothing is kept of the steps that are tried."""
    store = Store(study.out)
    units = [(run, study._unit(run)) for run in study.runs]
    waiting = [run for run, unit in units if store.state(unit.name) != "done"]
    report.note("calibrating: a few steps of each model")
    totals: dict[str, list[float]] = {}
    for run in waiting:
        each = seconds_a_step([run.recipe()], study.device, torch.get_num_threads())
        found = totals.setdefault(run.shape.name, [run.parameters.total, 0.0])
        found[1] += each * run.training.steps
    in_turn = sum(seconds for _, seconds in totals.values())
    way, seconds = "nothing to do", 0.0
    if waiting:
        choice = choose([run.recipe() for run in waiting], study.config.compute.workers, study.device)
        way = str(choice)
        expected = dict(choice.seconds)
        share = min(expected.values()) / expected["in turn"] if expected else 1.0
        seconds = in_turn * share
    largest = max(study.runs, key=lambda run: run.parameters.total + run.sequences * run.shape.length)
    batch = min(largest.training.batch, largest.sequences) * largest.shape.length
    activations = 4 * batch * (largest.shape.width * 40 * largest.shape.layers + 3 * largest.shape.vocabulary)
    memory = 16 * largest.parameters.total + 32 * largest.sequences * largest.shape.length + activations
    models = [(name, int(parameters), seconds) for name, (parameters, seconds) in totals.items()]
    return CapacityPlan(len(units), len(units) - len(waiting), models, way, seconds, memory)
