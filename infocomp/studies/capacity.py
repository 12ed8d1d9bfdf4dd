"""The study `capacity`: how many bits of random data models of several sizes store, per parameter and over sizes.

Units: one training for each model, size of the data set and seed (many at once, see `training.many`), then one that
joins them into plateaus, bits per parameter and slopes. What is trained is not trained again.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator, Field, ValidationError

from infocomp.config import StudyConfig
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.memorization.random_data import check_memory, check_random
from infocomp.plotting.draw import draw_all
from infocomp.studies.capacity_plan import CapacityPlan, plan_capacity
from infocomp.studies.capacity_rows import RandomRun, derived_rows, run_rows
from infocomp.studies.capacity_settings import (
    Architectures,
    CapacityComputeSettings,
    DoublingSettings,
    Loads,
    Precisions,
    RandomDataSettings,
    SizeSettings,
)
from infocomp.studies.capacity_summary import capacity_summary
from infocomp.studies.model_source import device_of
from infocomp.studies.settings import ComputeSettings, as_tuple
from infocomp.training.many import Many, train_many
from infocomp.training.small_gpt import GPTSettings
from infocomp.training.token_recipe import TokenTraining

CAPACITY_VERSION = 1  # raised where the same configuration gives other numbers than before
TRAINED = "training"
HELD_BYTES = 4  # of each token of each run while a sweep goes on: it and a fresh one in two bytes each


class CapacityConfig(StudyConfig):
    """Models, random data and training; lists of architectures, precisions, vocabularies and lengths are swept over.

    learning_rates: a sweep; models of each are a family of their own, named by it.
    doubling: the plateau's runs once more with twice the steps; `null` leaves it out, and rows say so.
    """

    study: Literal["capacity"]
    models: Annotated[tuple[SizeSettings, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    architecture: Architectures = ("gpt2",)
    precision: Precisions = ("float32",)
    bos: bool = True
    data: RandomDataSettings = RandomDataSettings()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        0,
        1,
        2,
    )
    training: TokenTraining = TokenTraining()
    learning_rates: Loads = ()
    doubling: DoublingSettings | None = DoublingSettings()
    compute: CapacityComputeSettings = CapacityComputeSettings()

    def open(self, out: Path) -> "Capacity":
        """The study of this configuration in the folder `out`."""
        return Capacity(self, out)


class Capacity:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: CapacityConfig, out: Path) -> None:
        if len(set(config.seeds)) < len(config.seeds):
            raise ValueError(f"seeds hold one twice: {', '.join(map(str, config.seeds))}; give each once.")
        sizes = [f"{size.layers}x{size.width}" for size in config.models]
        twice = [name for name in sizes if sizes.count(name) > 1]
        if twice:
            raise ValueError(
                f"models hold {twice[0]} twice, which the table could not tell apart; give each size once, several "
                "rates as 'learning_rates', and other numbers of heads in a run of their own."
            )
        if config.learning_rates and any(size.learning_rate is not None for size in config.models):
            raise ValueError("a model has a learning_rate of its own, and 'learning_rates' sweeps; leave one out.")
        self.config, self.out = config, Path(out)
        self.device = device_of(ComputeSettings(device=config.compute.device))
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)
        self.refused = self._refused()
        if len(self.refused) == len(self.runs):
            run, why = next(iter(self.refused.items()))
            raise ValueError(f"{run.title}: {why}.")

    def _refused(self) -> dict[RandomRun, str]:
        """Runs whose data cannot be made, and why; they become failed rows, and the others go on."""
        found: dict[RandomRun, str] = {}
        free = available_memory()
        for run in self.runs:
            try:
                check_random(run.sequences, run.shape.vocabulary, run.shape.length)
                check_memory(run.sequences, run.shape.length, free)
            except ValueError as error:
                found[run] = str(error)
            else:
                free -= HELD_BYTES * run.sequences * run.shape.length
        return found

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Training, one unit a run, then what follows from all of them."""
        units, store = {run: self.unit(run) for run in self.runs}, Store(self.out)
        missing = {unit.name: run for run, unit in units.items() if store.state(unit.name) != "done"}
        missing = {name: run for name, run in missing.items() if run not in self.refused}
        report.begin("training", sum(run.training.steps for run in missing.values()), "step")
        self._report = report
        recipes = {name: run.recipe() for name, run in missing.items()}
        compute = self.config.compute
        with train_many(
            recipes,
            self.out / TRAINED,
            mode=compute.way,
            workers=compute.workers,
            device=self.device,
            advance=self._advance,
            note=report.note,
        ) as many:
            self._many = many
            yield "runs", list(units.values())  # what fails leaves the others their plateaus
        report.end()
        yield "join", [self._joining_unit(list(units.items()))]

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        return draw_all(read(self.out), self.out / "figures")

    def summary(self, table: pd.DataFrame) -> str:
        """What the terminal says at the end."""
        return capacity_summary(table)

    def plan(self, report: Report) -> CapacityPlan:
        """Trainings and a rough time, from a few steps of each model."""
        return plan_capacity(self, report)

    def _advance(self, name: str, steps: int, loss: float) -> None:
        self._report.advance(steps)

    # --- runs -----------------------------------------------------------------------------------------------------

    @cached_property
    def runs(self) -> list[RandomRun]:
        """Every training, those that take longest first where several go on at once."""
        found: dict[RandomRun, None] = {}
        for shape, size in self.shapes():
            for rate in self.config.learning_rates or (size.learning_rate,):
                for run in self._runs_of(shape, rate):
                    found[run] = None
        own = [run for run in found if run.on_plateau or replace(run, on_plateau=True) not in found]
        return sorted(own, key=lambda run: -run.training.steps * run.sequences * run.parameters.total)

    def shapes(self) -> list[tuple[GPTSettings, SizeSettings]]:
        """Every model of the sweep."""
        config = self.config
        data = config.data
        return [
            (
                _shape(
                    architecture=architecture,
                    layers=size.layers,
                    width=size.width,
                    heads=size.heads,
                    vocabulary=vocabulary,
                    length=length,
                    bos=config.bos,
                    precision=precision,
                ),
                size,
            )
            for architecture, precision, vocabulary, length, size in product(
                config.architecture, config.precision, data.vocabulary, data.length, config.models
            )
        ]

    def _runs_of(self, shape: GPTSettings, rate: float | None) -> Iterator[RandomRun]:
        config, data = self.config, self.config.data
        training, tag = config.training, ""
        if rate is not None:
            training = training.model_copy(update={"learning_rate": rate})
            tag = f" lr {rate:g}" if config.learning_rates else ""
        doubled = training.model_copy(update={"steps": 2 * training.steps})
        first = config.seeds[0]
        for load in data.load:
            yield RandomRun.of_load(shape, training, load, first, tag=tag)
        for count in data.sequences:
            yield RandomRun(shape, training, count, first, tag=tag)
        for load, (number, seed) in product(data.plateau_load, enumerate(config.seeds)):
            yield RandomRun.of_load(shape, training, load, seed, on_plateau=True, tag=tag)
            if config.doubling is not None and number < config.doubling.seeds:
                yield RandomRun.of_load(shape, doubled, load, seed, on_plateau=True, doubled=True, tag=tag)

    def unit(self, run: RandomRun) -> Unit:
        """The training of one run as a unit of work."""
        name = unit_name(study="capacity", version=CAPACITY_VERSION, device=self.device.type, run=run.identity())

        def train() -> UnitResult:
            if run in self.refused:
                raise ValueError(self.refused[run])
            found = self._many.result(name)
            if found.status != "ok":
                raise ValueError(f"training stopped: {found.message}")
            return UnitResult(run_rows(run, found))

        return Unit(name, run.title, run.describe() | {"quantity": "memorized_bits"}, train)

    def _joining_unit(self, units: list[tuple[RandomRun, Unit]]) -> Unit:
        """Plateaus and slopes from the runs that are done; another set of them makes another unit."""
        store = Store(self.out)
        done = [(run, unit) for run, unit in units if store.state(unit.name) == "done"]
        name = unit_name(study="capacity", version=CAPACITY_VERSION, joined=sorted(unit.name for _, unit in done))

        def join() -> UnitResult:
            if not done:
                raise ValueError("no run is done, so there is no capacity to tell; see the failed runs above")
            rows = {run: store.read(unit.name).rows.to_pylist() for run, unit in done}
            return UnitResult(derived_rows(rows))

        return Unit(name, "plateaus and slopes", {"corpus": "random", "quantity": "capacity_slope"}, join)

    _many: Many
    _report: Report


def _shape(**sizes: Any) -> GPTSettings:
    """ValueError of one sentence where the sizes make no model."""
    try:
        return GPTSettings(**sizes)
    except ValidationError as error:
        raise ValueError(
            "; ".join(str(one.get("ctx", {}).get("error", one["msg"])) for one in error.errors())
        ) from None


def available_memory() -> float:
    """Bytes of memory that are free for use, infinity where the system doesn't tell."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
        known = hasattr(os, "sysconf") and all(name in os.sysconf_names for name in names)
        return float(os.sysconf(names[0]) * os.sysconf(names[1])) if known else float("inf")
