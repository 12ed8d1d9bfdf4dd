"""One loop for every training in the package: any module, a loss in nats, a data order known ahead.

    task = Task(model, loss, ShuffledOrder(examples=1000, batch=32, seed=0))
    result = train(task, TrainerSettings(steps=512), "runs/mine", Hooks(save=write_checkpoint))

Step N is a state of the weights: N updates were made. The row of step N holds the loss before update N + 1, and
checkpoint N the weights of that row. A run that was killed and is called again with the same arguments goes on from
its last state to the same weights and rows; on one thread they are equal bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from infocomp.training.optimizers import AdamWSettings, OptimizerSettings
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings
from infocomp.training.state import (
    ROW_TYPES,
    Row,
    TrainingState,
    read_state,
    states_newest_first,
    write_rows,
    write_state,
)

TRAINING = "training"


class TrainerSettings(BaseModel):
    """Everything about the loop that a configuration file says.

    `clip_norm` bounds the gradient's norm over all parameters. `seed` seeds torch's own generators (dropout) for the
    time of the loop. `state_every_steps` and `state_every_seconds` say how often the resume state is written besides
    the checkpoints, `keep_states` whether the state of each checkpoint stays; these three don't change the result.
    Every `record_every`-th step has a row, as have steps at which something was measured or went wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: PositiveInt
    seed: int = 0
    optimizer: OptimizerSettings = AdamWSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: PositiveFloat | None = None
    checkpoints: CheckpointSettings = CheckpointSettings()
    state_every_steps: PositiveInt | None = None
    state_every_seconds: PositiveFloat | None = 30.0
    keep_states: bool = False
    record_every: PositiveInt = 1


@dataclass(frozen=True)
class Task:
    """What is trained.

    loss: (model, indices of the batch) → mean loss, a scalar tensor in nats.
    order: step → indices of its batch; a function of the step alone, so that it is the same after a resume.
    tokens_per_step: for the column `tokens`.
    optimizers: a factory of one's own in place of the settings'.
    generator: of the loss function's own draws; its state is part of the resume state.
    identity: what else decides the result (a hash of the data, say); a run with another one does not resume.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Tensor], Tensor]
    order: Callable[[int], Tensor]
    tokens_per_step: int = 0
    optimizers: Callable[[nn.Module], Sequence[Optimizer]] | None = None
    generator: torch.Generator | None = None
    identity: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls. None of them may change the model.

    save(step, model): write a checkpoint, whole or not at all; called again for a step after a kill in between.
    has(step): whether that checkpoint still stands; where one that the state lists is gone, training goes back for it.
    event(step, rows so far, measured now): an extra checkpoint at this step.
    measure(step, model): numbers for this step's row, {} where none are due; the last step too has one.
    progress(step, steps, loss): after each step.
    """

    save: Callable[[int, nn.Module], None] | None = None
    has: Callable[[int], bool] | None = None
    event: Callable[[int, Sequence[Row], Mapping[str, float]], bool] | None = None
    measure: Callable[[int, nn.Module], Mapping[str, float]] | None = None
    progress: Callable[[int, int, float], None] | None = None


@dataclass(frozen=True)
class TrainingResult:
    """`step` updates were made; status "ok", or "failed" with the sentence that says why."""

    step: int
    status: str
    message: str | None
    rows: list[Row]
    resumed_from: int | None


def train(task: Task, settings: TrainerSettings, out: str | Path, hooks: Hooks | None = None) -> TrainingResult:
    """Train to the last step, or on to it from where an earlier call was stopped; files go to OUT/training.

    The model is changed in place and keeps its train/eval mode. A loss or gradient that is not finite ends the run
    before the update, with a row of status "failed". ValueError: OUT holds another run. OSError: the disk is full.
    """
    loop = _Loop(task, settings, Path(out) / TRAINING, hooks or Hooks())
    devices = sorted({p.device.index or 0 for p in task.model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(settings.seed)
        return loop.run()


class _Loop:
    """One call of `train`: the run's state in memory, and its way to and from the disk."""

    def __init__(self, task: Task, settings: TrainerSettings, folder: Path, hooks: Hooks):
        self.task, self.settings, self.folder, self.hooks = task, settings, folder, hooks
        self.parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        self.optimizers = list((task.optimizers or settings.optimizer.build)(task.model))
        self.full_rates = [group["lr"] for group in self._groups()]
        self.scheduled = set(settings.checkpoints.steps(settings.steps))
        self.step, self.rows, self.saved = 0, [], []
        self.status, self.message = "ok", None
        self.written_at = time.monotonic()

    def run(self) -> TrainingResult:
        resumed_from = self._resume()
        while self.status == "ok":
            measured = self._measure()
            self._checkpoint(measured)
            if self.step == self.settings.steps:
                break
            self._update(measured)
            if self._state_is_due():
                self._write()
        return TrainingResult(self.step, self.status, self.message, self.rows, resumed_from)

    def _measure(self) -> dict[str, float]:
        if self.hooks.measure is None:
            return {}
        with _generators_untouched(self.task.generator):
            measured = {name: float(value) for name, value in self.hooks.measure(self.step, self.task.model).items()}
        taken = sorted(measured.keys() & ROW_TYPES.keys())
        if taken:
            raise ValueError(f"measure gives {taken[0]!r}, which is a column of the loop's own; give it another name")
        return measured

    def _checkpoint(self, measured: Mapping[str, float]) -> None:
        last = self.step == self.settings.steps
        due = self.step in self.scheduled
        if self.hooks.event is not None:
            due = self.hooks.event(self.step, self.rows, measured) or due
        if last and measured and (not self.rows or self.rows[-1]["step"] < self.step):
            self._add_row(measured)
        if due and (self.step not in self.saved or not self._stands(self.step)):
            if self.hooks.save is not None:
                with _generators_untouched(self.task.generator):
                    self.hooks.save(self.step, self.task.model)
            self.saved = sorted({*self.saved, self.step})
            self._write(keep=self.settings.keep_states)

    def _update(self, measured: Mapping[str, float]) -> None:
        """One row and, where loss and gradient are finite, one update."""
        share = self.settings.schedule.share(self.step, self.settings.steps)
        for group, full in zip(self._groups(), self.full_rates, strict=True):
            group["lr"] = full * share
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss_tensor = self.task.loss(self.task.model, self.task.order(self.step))
        if loss_tensor.ndim:
            raise ValueError(f"loss must be one number, a scalar tensor, and has shape {tuple(loss_tensor.shape)}")
        loss_tensor.backward()
        loss, norm = self._loss_and_norm(loss_tensor)
        rate = next(self._groups())["lr"]
        finite = math.isfinite(loss) and math.isfinite(norm)
        if measured or not finite or self.step % self.settings.record_every == 0:
            self._add_row(measured, loss=loss, learning_rate=rate, gradient_norm=norm)
        if not finite:
            self._fail(loss, norm)
            return
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        if self.hooks.progress is not None:
            self.hooks.progress(self.step, self.settings.steps, loss)

    def _loss_and_norm(self, loss: Float[Tensor, ""]) -> tuple[float, float]:
        """Both as numbers, in one transfer from the device; the gradient is clipped on the way."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip_norm, norm)
        wide = torch.promote_types(loss.dtype, torch.float32)
        loss_value, norm_value = torch.stack([loss.detach().to(wide), norm.to(wide)]).tolist()
        return loss_value, norm_value

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for optimizer in self.optimizers for group in optimizer.param_groups)

    def _add_row(self, measured: Mapping[str, float], **values: Any) -> None:
        tokens = self.step * self.task.tokens_per_step
        self.rows.append({"step": self.step, "tokens": tokens, **values, "status": "ok", **measured})

    def _fail(self, loss: float, norm: float) -> None:
        what = f"gradient norm became {norm}" if math.isfinite(loss) else f"loss became {loss}"
        self.status = "failed"
        self.message = (
            f"{what} at step {self.step} of {self.settings.steps}; "
            "lower the learning rate, lengthen the warm-up or clip the gradient"
        )
        self.rows[-1] |= {"status": "failed", "message": self.message}
        self._write()

    def _state_is_due(self) -> bool:
        steps, seconds = self.settings.state_every_steps, self.settings.state_every_seconds
        if self.step == self.settings.steps:
            return False  # the last checkpoint follows at once
        if steps is not None and self.step % steps == 0:
            return True
        return seconds is not None and time.monotonic() - self.written_at >= seconds

    def _write(self, keep: bool = False) -> None:
        write_state(self.folder, self._state(), keep)
        self.written_at = time.monotonic()

    def _state(self) -> TrainingState:
        return TrainingState(
            identity=self._identity(),
            step=self.step,
            model=self.task.model.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            generators=_generators(self.task.generator),
            rows=self.rows,
            saved=self.saved,
            status=self.status,
            message=self.message,
        )

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a state to be gone on from, flat, so that a message can name the first difference."""
        volatile = {"state_every_steps", "state_every_seconds", "keep_states"}
        if self.settings.record_every == 1:
            volatile |= {"record_every"}  # states of before there was a choice say nothing of it
        flat = _flat("settings", self.settings.model_dump(mode="json", exclude=volatile))
        if self.settings.checkpoints.ratio is None:
            flat = {name: value for name, value in flat.items() if not name.startswith("settings.checkpoints.ratio")}
        shapes = {f"parameter {name}": str(tuple(p.shape)) for name, p in self.task.model.named_parameters()}
        return flat | shapes | {str(name): value for name, value in self.task.identity.items()}

    def _resume(self) -> int | None:
        """Load the newest state all of whose checkpoints still stand; the step that it was at, None for a new run."""
        identity = self._identity()
        for path in states_newest_first(self.folder):
            state = read_state(path, identity)
            if all(self._stands(step) for step in state.saved):
                self._load(state)
                return state.step
        return None

    def _stands(self, step: int) -> bool:
        return self.hooks.has is None or self.hooks.has(step)

    def _load(self, state: TrainingState) -> None:
        self.task.model.load_state_dict(state.model)
        for optimizer, values in zip(self.optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(values)
        _set_generators(state.generators, self.task.generator)
        self.step, self.rows, self.saved = state.step, state.rows, state.saved
        self.status, self.message = state.status, state.message
        write_rows(self.folder, self.rows)


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Nested settings as {"settings.optimizer.learning_rate": 0.001, …}."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: item for inner in value for key, item in _flat(f"{name}.{inner}", value[inner]).items()}


def _generators(own: torch.Generator | None) -> dict[str, Any]:
    """States of torch's generators and of the task's own."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "own": None if own is None else own.get_state(),
    }


def _set_generators(states: Mapping[str, Any], own: torch.Generator | None) -> None:
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(states["cuda"])
    if own is not None and states["own"] is not None:
        own.set_state(states["own"])


@contextmanager
def _generators_untouched(own: torch.Generator | None):
    """What draws inside does not move the training's own draws, so that measuring more changes no result."""
    states = _generators(own)
    try:
        yield
    finally:
        _set_generators(states, own)
