"""The study `grokking`: when storing turns into generalizing, for how long it was delayed, and what moves before it.

Every run has its control without weight decay. Phases: trainings (many at once, see `training.many`), whose states are
kept as checkpoints in OUT/training/RUN/checkpoints; measures of every state; and what follows over seeds. The pairs of
each split are written as text to OUT/pairs, so that studies of text run over the same checkpoints.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator, Field

from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.grokking.recipe import GrokkingTraining, ShapeSettings
from infocomp.plotting.draw import draw_all
from infocomp.studies.capacity_settings import CapacityComputeSettings
from infocomp.studies.grokking_joined import JOINED_VERSION, joined_rows
from infocomp.studies.grokking_measures import MEASURES_VERSION, StateJob
from infocomp.studies.grokking_plan import STATES_WORTH_WORKERS, GrokkingPlan, plan_grokking
from infocomp.studies.grokking_rows import curves_of, run_rows, write_curves
from infocomp.studies.grokking_runs import GrokkingRun, runs_of
from infocomp.studies.grokking_settings import DatingSettings, Decays, MeasureSettings, Rates, Seeds, TaskSettings
from infocomp.studies.grokking_summary import grokking_summary
from infocomp.studies.model_source import device_of
from infocomp.studies.settings import ComputeSettings, as_tuple
from infocomp.training.many import Many, cores, train_many
from infocomp.training.recipe import MemberResult, read_result
from infocomp.training.state import write_atomically
from infocomp.training.workers import WorkerPool

GROKKING_VERSION = 1  # raised where the same configuration gives other numbers than before
TRAINED, CURVES, PAIRS = "training", "curves", "pairs"


class GrokkingConfig(StudyConfig):
    """Operation, models, training, dating and measures; lists of models, fractions, decays and rates are swept over.

    weight_decays, learning_rates: in place of the training's own. control: every run once more without weight decay.
    measures: at every kept state; null leaves them all out.
    """

    study: Literal["grokking"]
    task: TaskSettings = TaskSettings()
    models: Annotated[tuple[ShapeSettings, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (ShapeSettings(),)
    training: GrokkingTraining = GrokkingTraining()
    weight_decays: Decays = ()
    learning_rates: Rates = ()
    control: bool = True
    seeds: Seeds = (0, 1, 2)
    dating: DatingSettings = DatingSettings()
    measures: MeasureSettings | None = MeasureSettings()
    compute: CapacityComputeSettings = CapacityComputeSettings()

    def open(self, out: Path) -> "Grokking":
        """The study of this configuration in the folder `out`."""
        return Grokking(self, out)


class Grokking:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: GrokkingConfig, out: Path) -> None:
        if len(set(config.seeds)) < len(config.seeds):
            raise ValueError(f"seeds hold one twice: {', '.join(map(str, config.seeds))}; give each once.")
        if config.measures is not None and config.training.keep is None:
            raise ValueError("measures need states that are kept; set training.keep, or measures to null.")
        self.config, self.out = config, Path(out)
        self.device = device_of(ComputeSettings(device=config.compute.device))
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)
        described = [tuple(run.describe().values()) for run in self.runs]
        if len(set(described)) < len(described):
            raise ValueError(
                "models hold two that the table could not tell apart; give each kind, layers and width once, and "
                "other numbers of heads, neurons or scales in a run of their own."
            )

    @cached_property
    def runs(self) -> list[GrokkingRun]:
        """Every training."""
        return runs_of(self.config)

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Trainings, one unit a run; measures, one unit a state; and what follows over seeds."""
        units, store = {run: self.unit(run) for run in self.runs}, Store(self.out)
        missing = [run for run, unit in units.items() if store.state(unit.name) != "done" or not self.stands(run)]
        report.begin("training", sum(run.recipe.training.steps for run in missing), "step")
        self._report = report
        compute = self.config.compute
        with train_many(
            {run.name: run.recipe for run in missing},
            self.out / TRAINED,
            mode=compute.way,
            workers=compute.workers,
            device=self.device,
            advance=self._advance,
            note=report.note,
        ) as many:
            self._many = many
            yield "runs", list(units.values())  # what fails leaves the others their measures
            for run in missing:  # states that are gone although their rows are there are made again
                if store.state(units[run].name) == "done":
                    many.result(run.name)
        report.end()
        done = [run for run, unit in units.items() if store.state(unit.name) == "done"]
        for run in done:
            self._write_files(run)
        jobs = self.jobs(done)
        measured = [self.measuring_unit(job) for job in jobs]
        waiting = {unit.name: job for unit, job in zip(measured, jobs, strict=True) if store.state(unit.name) != "done"}
        if measured:
            report.begin("measuring", len(waiting), "state")
            with self._measuring(waiting):
                yield "measure", measured
            report.end()
        yield "join", [self.joining_unit([units[run] for run in done] + measured)]

    @contextmanager
    def _measuring(self, waiting: dict[str, StateJob]) -> Iterator[None]:
        """Worker processes for the states where there are enough of them and of cores."""
        workers = self.config.compute.workers or cores()
        if workers > 1 and len(waiting) >= STATES_WORTH_WORKERS:
            jobs = {name: (job, job.folder) for name, job in waiting.items()}
            self._pool = WorkerPool(jobs, workers)
        try:
            yield
        finally:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        return draw_all(read(self.out), self.out / "figures")

    def summary(self, table: pd.DataFrame) -> str:
        """What the terminal says at the end."""
        return grokking_summary(table)

    def plan(self, report: Report) -> GrokkingPlan:
        """Trainings, states and a rough time, from a few steps of each model."""
        return plan_grokking(self, report)

    def _advance(self, name: str, steps: int, loss: float) -> None:
        self._report.advance(steps)

    # --- units ----------------------------------------------------------------------------------------------------

    def folder(self, run: GrokkingRun) -> Path:
        """Where a run's result and states lie."""
        return self.out / TRAINED / run.name

    def stands(self, run: GrokkingRun) -> bool:
        """Whether a run is finished and every state that it kept is there."""
        return read_result(self.folder(run), run.recipe) is not None

    def unit(self, run: GrokkingRun) -> Unit:
        """The training of one run as a unit of work."""
        dating = self.config.dating.model_dump(mode="json")
        name = unit_name(study="grokking", version=GROKKING_VERSION, run=run.name, control=run.control, dating=dating)

        def train() -> UnitResult:
            found = self._many.result(run.name)
            if found.status != "ok":
                raise ValueError(f"training stopped: {found.message}")
            return UnitResult(run_rows(run, curves_of(found.rows), self.config.dating, found.seconds))

        return Unit(name, run.title, run.describe() | {"quantity": "generalization_step"}, train)

    def _write_files(self, run: GrokkingRun) -> None:
        """What others read, where it is not there: the curves, and the pairs of the split as documents of text."""
        curves = self.out / CURVES / f"{run.name}.csv"
        found = None if curves.exists() else read_result(self.folder(run), run.recipe)
        if found is not None:
            write_curves(curves_of(found.rows), curves)
        for side, rows in (("train", run.recipe.split.train), ("test", run.recipe.split.test)):
            pairs = self.out / PAIRS / f"{run.name}-{side}.jsonl"
            if not pairs.exists():
                lines = "".join(json.dumps({"text": text}) + "\n" for text in run.recipe.texts(rows))
                write_atomically(pairs, lines.encode())

    def jobs(self, runs: list[GrokkingRun]) -> list[StateJob]:
        """What is measured: each state of each of these runs, of a control by the frequencies of what it controls."""
        measures = self.config.measures
        if measures is None:
            return []
        states = {run: run.states(self.folder(run)) for run in runs}
        treated = {(run.group, run.recipe.seed): run for run in reversed(runs) if not run.control}
        found = []
        for run in runs:
            source = treated.get((run.group, run.recipe.seed), run) if run.control else run
            last = states[source][max(states[source])]
            found += [StateJob(run, step, folder, last, source.name, measures) for step, folder in states[run].items()]
        return found

    def measuring_unit(self, job: StateJob) -> Unit:
        """The measures of one state as a unit of work."""
        run, asked = job.run, job.measures.model_dump(mode="json")
        name = unit_name(
            study="grokking",
            version=MEASURES_VERSION,
            run=run.name,
            control=run.control,
            step=job.step,
            keys=job.keys_of,
            measures=asked,
        )

        def measure() -> UnitResult:
            found = job.work() if self._pool is None else self._pool.result(name)
            self._report.advance(1)
            if isinstance(found, MemberResult):
                raise ValueError(found.message)
            return UnitResult(found)

        about = run.describe() | {"revision": f"step{job.step}", "step": job.step, "quantity": "weight_norm"}
        return Unit(name, f"{run.title} · step {job.step:,}", about, measure)

    def joining_unit(self, units: list[Unit]) -> Unit:
        """Delays and onsets over seeds from the units that are done; another set of them makes another unit."""
        store = Store(self.out)
        done = [unit for unit in units if store.state(unit.name) == "done"]
        name = unit_name(study="grokking", version=JOINED_VERSION, joined=sorted(unit.name for unit in done))

        def join() -> UnitResult:
            if not done:
                raise ValueError("no run is done, so that there is no transition to tell of; see the failed runs above")
            return UnitResult(joined_rows([row for unit in done for row in store.read(unit.name).rows.to_pylist()]))

        return Unit(name, "transitions over seeds", {"corpus": self.runs[0].corpus, "quantity": "lead"}, join)

    _many: Many
    _report: Report
    _pool: WorkerPool | None = None
