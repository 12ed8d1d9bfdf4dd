"""What a capacity study would need before it is run: trainings, and a rough time from a few steps of some of them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.studies.planning import duration, size
from infocomp.training.many import cores, seconds_a_step
from infocomp.training.small_gpt import GPTSettings

if TYPE_CHECKING:
    from infocomp.studies.capacity import Capacity

TRIED = 5e9  # floating-point operations of a step that is timed


@dataclass(frozen=True)
class CapacityPlan:
    """Numbers of a study that has not begun; seconds and bytes."""

    trainings: int
    done: int
    models: list[tuple[str, int, float]]  # name, parameters, seconds of all its trainings, one after the other
    way: str
    seconds: float
    memory: int
    refused: int = 0

    def text(self) -> str:
        """For the terminal."""
        lines = [f"trainings   {self.trainings} ({self.done} done), {self.way}"]
        for name, parameters, seconds in self.models:
            lines.append(f"model       {name}: {parameters:,} parameters, {duration(seconds)} one after the other")
        lines += [f"memory      about {size(self.memory)} a training beside Python and PyTorch"]
        lines += [f"refused     {self.refused} trainings, whose data cannot be made"] if self.refused else []
        return "\n".join([*lines, f"time        about {duration(self.seconds)} here, between half and twice"])


def plan_capacity(study: "Capacity", report: Report) -> CapacityPlan:
    """Time one run of each model, on as few rows as `TRIED` operations allow; nothing of it is kept."""
    store, units = Store(study.out), [(run, study.unit(run)) for run in study.runs if run not in study.refused]
    waiting = [run for run, unit in units if store.state(unit.name) != "done"]
    report.note("calibrating: a few steps of each model")
    tried: dict[tuple[GPTSettings, int], float] = {}
    totals: dict[str, tuple[int, float]] = {}
    for run in waiting:
        rows = min(run.training.batch, run.sequences)
        few = min(rows, max(1, int(TRIED / (6 * run.parameters.total * run.shape.length))))
        if (run.shape, few) not in tried:
            small = replace(run, sequences=few).recipe()
            tried[run.shape, few] = seconds_a_step([small], study.device, torch.get_num_threads())
        seconds = tried[run.shape, few] * rows / few * run.training.steps
        totals[run.model] = (run.parameters.total, totals.get(run.model, (0, 0.0))[1] + seconds)
    in_turn = sum(seconds for _, seconds in totals.values())
    on_cpu = study.device.type == "cpu"
    at_once = min(study.config.compute.workers or cores(), max(len(waiting), 1)) if on_cpu else 1
    way = f"{at_once} at a time" if on_cpu else "stacked where a trial finds it faster"
    largest = max((run for run, _ in units), key=lambda run: run.parameters.total + run.sequences * run.shape.length)
    batch = min(largest.training.batch, largest.sequences) * largest.shape.length
    activations = 4 * batch * (largest.shape.width * 40 * largest.shape.layers + 3 * largest.shape.vocabulary)
    memory = 16 * largest.parameters.total + 32 * largest.sequences * largest.shape.length + activations
    models = [(name, parameters, seconds) for name, (parameters, seconds) in totals.items()]
    done = len(units) - len(waiting)
    return CapacityPlan(len(units), done, models, way, in_turn / at_once, memory, len(study.refused))
