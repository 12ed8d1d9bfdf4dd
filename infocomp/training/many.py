"""Many small trainings: in turn, in worker processes, or stacked as one model, whichever a short trial finds fastest.

Small models leave a machine idle one at a time. On the cores of a CPU, worker processes of one thread each do best
(stacking measured 0.6 to 1.1 × of in turn there); a GPU wants them stacked (`training.stacked`). Results are those of
separate training, to rounding, and each is on the disk when it is told.

    with train_many({"seed 0": recipe, "seed 1": other}, "runs/sweep/training") as many:
        first = many.result("seed 0")          # the others train meanwhile
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from infocomp.training.recipe import MemberResult, Recipe, read_result, train_one
from infocomp.training.stacked import GROUP, StackedTraining, stopped_groups
from infocomp.training.workers import WorkerPool

Mode = Literal["auto", "in_turn", "processes", "stacked"]
START_SECONDS = 5.0  # of a worker process: imports
TRIAL_STEPS, TRIAL_SECONDS = 6, 0.3  # timed steps of each way, and how long they may take
STACK_TRIED, STACK_MOST = 8, 64  # members of a stack in the trial, and at most
MEMORY_SHARE = 0.7  # of a GPU's free memory that a stack may take
LAUNCHES_ONLY = 0.004  # seconds of a step below which a stack may do better than a second core
WORTH_A_TRIAL = 15.0  # seconds of training below which nothing is gained by choosing


@dataclass(frozen=True)
class Choice:
    """How members are trained and why; `seconds` is what each way was expected to take, {} without a trial.

    members: the most that a stack may hold, as far as memory goes.
    """

    mode: Literal["in_turn", "processes", "stacked"]
    threads: int
    seconds: Mapping[str, float]
    members: int = STACK_MOST

    def __str__(self) -> str:
        names = {"in_turn": "one after the other", "processes": "in worker processes", "stacked": "stacked"}
        told = ", ".join(f"{way} {value:.0f} s" for way, value in self.seconds.items())
        return f"{names[self.mode]}, {self.threads} thread(s)" + (f" (expected: {told})" if told else "")


class Many:
    """Trainings under way; close it, or use it in a `with` block. Made by `train_many`."""

    def __init__(
        self,
        recipes: Mapping[str, Recipe],
        out: str | Path,
        mode: Mode,
        workers: int | None,
        device: str | torch.device,
        advance: Callable[[str, int, float], None] | None,
        note: Callable[[str], None] | None,
    ) -> None:
        self.recipes, self.out = dict(recipes), Path(out)
        self.mode, self.workers, self.device = mode, workers or cores(), torch.device(device)
        self.advance = advance or (lambda name, steps, loss: None)
        self.note = note or (lambda text: None)
        self.choices: dict[str, Choice] = {}
        self._pool: WorkerPool | None = None
        self._found: dict[str, MemberResult] = {}
        self._given: set[str] = set()  # to the pool, which tells their progress and results itself

    def __enter__(self) -> "Many":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is under way; it is gone on with by the next call."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            self._given = set()

    def folder(self, name: str) -> Path:
        """Where a member's result and resume state lie."""
        return self.out / name

    def result(self, name: str) -> MemberResult:
        """Wait for one member. KeyError: a name that was not given."""
        if name not in self.recipes:
            raise KeyError(f"no training named {name!r}; there are {', '.join(list(self.recipes)[:5])}")
        if name not in self._found:
            self._found[name] = self._result(name)
        return self._found[name]

    def _result(self, name: str) -> MemberResult:
        recipe = self.recipes[name]
        finished = None if name in self._given else read_result(self.folder(name), recipe)
        if finished is not None:
            self.advance(name, recipe.settings.steps, float("nan"))
            return finished
        choice = self._choice(recipe)
        if choice.mode == "processes":
            return self._from_pool(name)
        if choice.mode == "stacked":
            return self._from_stack(name, choice.members)
        before, told = torch.get_num_threads(), [0]

        def progress(step: int, steps: int, loss: float) -> None:
            self.advance(name, step - told[0], loss)
            told[0] = step

        torch.set_num_threads(choice.threads)
        try:
            return train_one(recipe, self.folder(name), self.device, progress)
        finally:
            torch.set_num_threads(before)

    def _from_pool(self, name: str) -> MemberResult:
        if self._pool is None:
            waiting = {name: (recipe, self.folder(name)) for name, recipe in self._unfinished().items()}
            self._pool = WorkerPool(waiting, self.workers, str(self.device), self.advance)
            self._given = set(waiting)
        return self._pool.result(name)

    def _from_stack(self, name: str, members: int) -> MemberResult:
        family = self.recipes[name].family()
        group = {other: one for other, one in self._unfinished().items() if one.family() == family}
        stopped = stopped_groups(self.out)  # each of them goes on as it was
        own = next((names for names in stopped if name in names), None)
        elsewhere = {other for names in stopped for other in names}
        free = [other for other in group if other != name and other not in elsewhere][: members - 1]
        chosen = {other: group[other] for other in group if other == name or other in (free if own is None else own)}
        stacked = StackedTraining(chosen, self.device)
        folders = {other: self.folder(other) for other in chosen}
        self._found |= stacked.run(self.out, folders, self.advance)
        return self._found[name]

    def _unfinished(self) -> dict[str, Recipe]:
        return {
            name: recipe
            for name, recipe in self.recipes.items()
            if name not in self._found and read_result(self.folder(name), recipe) is None
        }

    # --- the choice -----------------------------------------------------------------------------------------------

    def _choice(self, recipe: Recipe) -> Choice:
        """For all members at once on a CPU, whose cores they share; for each family by itself on a GPU."""
        family = "" if self.device.type == "cpu" else recipe.family()
        if family not in self.choices:
            waiting = [one for one in self._unfinished().values() if family in ("", one.family())]
            self.choices[family] = self._choose(waiting)
            self.note(f"{len(waiting)} trainings {self.choices[family]}")
        return self.choices[family]

    def _choose(self, waiting: Sequence[Recipe]) -> Choice:
        threads = torch.get_num_threads()
        if self.mode == "in_turn" or self.mode == "processes" or self.mode == "stacked":
            return Choice(self.mode, threads, {})
        if self.device.type == "cpu" and (self.out / GROUP).is_dir():
            return Choice("stacked", threads, {})  # a stack was stopped here, and is gone on with
        return choose(waiting, self.workers, self.device)


def train_many(
    recipes: Mapping[str, Recipe],
    out: str | Path,
    *,
    mode: Mode = "auto",
    workers: int | None = None,
    device: str | torch.device = "cpu",
    advance: Callable[[str, int, float], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> Many:
    """Train each recipe into OUT/name, in the given order as far as the way allows.

    Nothing begins before the first `result`. `workers`: processes, one a core by default. `advance`: (name, steps made
    since it was last told, loss). `note`: sentences for who watches, such as which way was chosen. ValueError: a mode
    that there is not, or fewer workers than one.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be auto, in_turn, processes or stacked, got {mode!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    return Many(recipes, out, mode, workers, device, advance, note)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(recipes: Sequence[Recipe], workers: int | None, device: torch.device) -> Choice:
    """The way that a short trial of the costliest family finds fastest; in turn where there is nothing to gain.

    Compared: in turn with all threads, in turn with one, one-thread processes (that time over the workers, and their
    start), and stacked, where there are no several cores to share or a step is little more than its launches. In turn
    is kept unless another way wins by a twentieth.
    """
    threads = torch.get_num_threads()
    if len(recipes) < 2:
        return Choice("in_turn", threads, {})
    families: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        families.setdefault(recipe.family(), []).append(recipe)
    group = max(families.values(), key=lambda found: sum(map(_work, found)))
    tried = max(group, key=_work)
    total = sum(map(_work, recipes)) / _work(tried) * tried.settings.steps  # in steps of the one that is tried
    on_cpu = device.type == "cpu"
    members = STACK_MOST
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    each = seconds_a_step([tried], device, threads)
    if device.type == "cuda":
        free, peak = torch.cuda.mem_get_info(device)[0], torch.cuda.max_memory_allocated(device)
        members = max(1, min(members, int(MEMORY_SHARE * free / max(peak, 1))))
    seconds, used = {"in turn": total * each}, {"in turn": threads}
    if total * each < WORTH_A_TRIAL:
        return Choice("in_turn", threads, {})
    if on_cpu:
        alone = seconds_a_step([tried], device, 1) if threads > 1 else each
        at_once = min(workers or cores(), len(recipes))
        longest = max(map(_work, recipes)) / _work(tried) * tried.settings.steps * alone
        if alone < each:
            seconds["in turn"], used["in turn"] = total * alone, 1
        if os.name == "posix" and at_once > 1:
            seconds["processes"] = max(total * alone / at_once, longest) + START_SECONDS
            used["processes"] = 1
    worth_stacking = "processes" not in seconds or each < LAUNCHES_ONLY
    if worth_stacking and min(len(group), members) > 1 and tried.settings.optimizer.name == "adamw":
        some = group[: min(STACK_TRIED, members)]
        seconds["stacked"] = total * seconds_a_step(some, device, threads) / len(some)
        used["stacked"] = threads
    best = min(seconds, key=lambda way: seconds[way])
    if seconds[best] > 0.95 * seconds["in turn"]:
        best = "in turn"
    modes: dict[str, Literal["in_turn", "processes", "stacked"]] = {"processes": "processes", "stacked": "stacked"}
    return Choice(modes.get(best, "in_turn"), used[best], seconds, members)


def _work(recipe: Recipe) -> float:
    """What a training costs, in proportion: steps times tokens of a step times parameters, and what a step costs
    at least (as much as a hundred tokens of a model of 10,000 parameters)."""
    return recipe.settings.steps * (recipe.tokens_per_step * recipe.parameters + 1e6)


def seconds_a_step(recipes: Sequence[Recipe], device: torch.device, threads: int) -> float:
    """The fastest of a few steps, of one recipe by itself or of several as a stack; nothing of it is kept."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        step = _trial(recipes[0], device) if len(recipes) == 1 else _stacked_trial(recipes, device)
        step(0)
        best, begin, number = float("inf"), time.perf_counter(), 1
        while number <= TRIAL_STEPS and (number == 1 or time.perf_counter() - begin < TRIAL_SECONDS):
            start = time.perf_counter()
            step(number)
            best = min(best, time.perf_counter() - start)
            number += 1
        return best
    finally:
        torch.set_num_threads(before)


def _trial(recipe: Recipe, device: torch.device) -> Callable[[int], None]:
    data = tuple(tensor.to(device) for tensor in recipe.data())
    order, model = recipe.order(), recipe.model().to(device)
    (optimizer,) = recipe.settings.optimizer.build(model)[:1]

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        rows = order(number).to(device)
        recipe.loss(model, *(tensor[rows] for tensor in data)).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        float(torch.nn.utils.get_total_norm(gradients))
        optimizer.step()
        _wait(device)

    return step


def _stacked_trial(recipes: Sequence[Recipe], device: torch.device) -> Callable[[int], None]:
    stacked = StackedTraining({str(number): recipe for number, recipe in enumerate(recipes)}, device)

    def step(number: int) -> None:
        stacked.update()
        _wait(device)

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
