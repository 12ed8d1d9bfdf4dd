"""What one of many trainings is made of, what it leaves behind, and how one of them is trained by itself."""

import io
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from infocomp.training.state import Row, write_atomically
from infocomp.training.trainer import TRAINING, Hooks, Task, TrainerSettings, train

RESULT = "result.npz"
_META = "about"


class Recipe(Protocol):
    """A training as plain data, which another process can be sent; all that is random comes from seeds in it.

    data: tensors whose first axis the step's indices go into. loss: mean nats over a batch of them, one number, a
    function of the model's weights and the batch alone. measure: numbers for the rows of every `measure_every`-th step
    and the last. finish: arrays that are kept, from the trained model. family: recipes of equal family may train as one
    stacked model (same shapes at every step; data, seeds and learning rates may differ). parameters: how many the
    model has, by which costs are compared. identity: what besides
    `settings` decides the result.
    """

    @property
    def settings(self) -> TrainerSettings: ...

    @property
    def measure_every(self) -> int | None: ...

    @property
    def tokens_per_step(self) -> int: ...

    @property
    def parameters(self) -> int: ...

    def model(self) -> nn.Module: ...

    def data(self) -> tuple[Tensor, ...]: ...

    def order(self) -> Callable[[int], Tensor]: ...

    @property
    def loss(self) -> Callable[..., Tensor]: ...

    def measure(self, model: nn.Module) -> Mapping[str, float]: ...

    def finish(self, model: nn.Module) -> Mapping[str, np.ndarray]: ...

    def family(self) -> str: ...

    def identity(self) -> Mapping[str, str | int | float]: ...


@runtime_checkable
class KeepsStates(Protocol):
    """A recipe some of whose states stay as checkpoints in its folder: those of `settings.checkpoints`, and events.

    event: whether this step's is kept as well, from the rows so far and what was measured now, and from nothing else.
    save: writes it, whole or not at all; the same again after a kill. saved: whether it still stands. kept: all steps
    that do.
    """

    def event(self, step: int, rows: Sequence[Row], measured: Mapping[str, float]) -> bool: ...

    def save(self, step: int, model: nn.Module, folder: Path) -> None: ...

    def saved(self, step: int, folder: Path) -> bool: ...

    def kept(self, folder: Path) -> list[int]: ...


@dataclass(frozen=True)
class MemberResult:
    """How one training ended: "ok" with its arrays, or "failed" with the sentence that says why, and the rows so far.

    seconds: of training, all attempts since the last one that was killed. resumed: whether a stopped one was gone on
    from, or a finished one read back.
    """

    status: Literal["ok", "failed"]
    message: str | None
    rows: list[Row] = field(default_factory=list)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    resumed: bool = False


def train_one(
    recipe: Recipe,
    folder: str | Path,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> MemberResult:
    """Train one recipe into FOLDER, or go on with it; one that is finished is read back."""
    folder = Path(folder)
    finished = read_result(folder, recipe)
    if finished is not None:
        return finished
    start = time.monotonic()
    data = tuple(tensor.to(device) for tensor in recipe.data())
    order = recipe.order()
    steps, every = recipe.settings.steps, recipe.measure_every

    def measure(step: int, model: nn.Module) -> Mapping[str, float]:
        return recipe.measure(model) if every and (step % every == 0 or step == steps) else {}

    model = recipe.model().to(device)
    task = Task(
        model=model,
        loss=lambda model, rows: recipe.loss(model, *(tensor[rows] for tensor in data)),
        order=lambda step: order(step).to(device),
        tokens_per_step=recipe.tokens_per_step,
        identity=recipe.identity(),
    )
    hooks = Hooks(measure=measure, progress=progress)
    if isinstance(recipe, KeepsStates):
        keeps: KeepsStates = recipe

        def save(step: int, model: nn.Module) -> None:
            keeps.save(step, model, folder)

        hooks = replace(hooks, save=save, has=lambda step: keeps.saved(step, folder), event=keeps.event)
    done = train(task, recipe.settings, folder, hooks)
    if progress is not None and done.resumed_from == steps:
        progress(steps, steps, math.nan)  # an earlier call made every step, and none was left to tell of
    arrays = recipe.finish(model) if done.status == "ok" else {}
    seconds, resumed = time.monotonic() - start, done.resumed_from is not None
    result = MemberResult("ok" if done.status == "ok" else "failed", done.message, done.rows, arrays, seconds, resumed)
    if result.status == "ok":
        write_result(folder, recipe, result)
    return result


def write_result(folder: Path, recipe: Recipe, result: MemberResult) -> None:
    """Keep what a finished training gave, and let go of its resume state."""
    about = {"identity": identity_of(recipe), "rows": result.rows, "seconds": result.seconds}
    about |= {"arrays": list(result.arrays), "kept": recipe.kept(folder) if isinstance(recipe, KeepsStates) else []}
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    arrays: dict[str, Any] = {_META: text, **{name: np.asarray(array) for name, array in result.arrays.items()}}
    np.savez(buffer, **arrays)
    write_atomically(folder / RESULT, buffer.getbuffer())
    shutil.rmtree(folder / TRAINING, ignore_errors=True)


def read_result(folder: Path, recipe: Recipe) -> MemberResult | None:
    """What a finished training gave; None where there is none, where it is damaged, is another recipe's, or where a
    checkpoint that it kept is gone."""
    try:
        with io.BytesIO((folder / RESULT).read_bytes()) as file, np.load(file) as found:
            about: dict[str, Any] = json.loads(found[_META].tobytes())
            arrays = {name: found[name] for name in about["arrays"]}
            if about["identity"] != identity_of(recipe):
                return None
            if isinstance(recipe, KeepsStates) and not set(about["kept"]) <= set(recipe.kept(folder)):
                return None
            return MemberResult("ok", None, about["rows"], arrays, about["seconds"], resumed=True)
    except Exception:  # zipfile and NumPy raise a dozen kinds over damaged bytes, and all mean the same here
        return None


def identity_of(recipe: Recipe) -> dict[str, Any]:
    """All that decides the result, as JSON reads it back."""
    volatile = {"state_every_steps", "state_every_seconds", "keep_states"}
    settings = recipe.settings.model_dump(mode="json", exclude=volatile)
    if settings["checkpoints"]["ratio"] is None:  # results of before there was a choice say nothing of it
        del settings["checkpoints"]["ratio"], settings["checkpoints"]["ratio_from"]
    return json.loads(json.dumps({"settings": settings, "recipe": dict(recipe.identity())}))
