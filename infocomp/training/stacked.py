"""Many models of one shape trained as one: their weights stacked along a first axis, each with data, state and rate of
its own (torch.func's model ensembling). One launch moves all of them, which is what a GPU needs where one alone is
too small to fill it.

Each member takes the very steps that it would take by itself, to rounding: its own mean loss, gradient norm and clip,
AdamW state (Loshchilov & Hutter 2019, arXiv 1711.05101) and schedule. One whose loss or gradient is not finite is
frozen and told as failed; the others go on.
"""

import copy
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from infocomp.training.optimizers import AdamWSettings
from infocomp.training.recipe import KeepsStates, MemberResult, Recipe, identity_of, write_result
from infocomp.training.state import ROW_TYPES, STATE, Row, TrainingState, read_state, write_state
from infocomp.training.trainer import TRAINING

GROUP = "stacked"
STEPS_BETWEEN_LOOKS = 10  # at the clock, for a state that is due, and at who is still alive


class _Loss(nn.Module):
    """A recipe's loss as a module's forward, which `functional_call` can give other weights to."""

    def __init__(self, recipe: Recipe, model: nn.Module):
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, *batch: Tensor) -> Tensor:
        return self.recipe.loss(self.model, *batch)


class StackedTraining:
    """A group of recipes of one family; `run` trains them all and gives a result for each.

    ValueError: recipes of several families, or an optimizer that is not AdamW.
    """

    def __init__(self, recipes: Mapping[str, Recipe], device: str | torch.device = "cpu") -> None:
        self.names, self.recipes = list(recipes), list(recipes.values())
        families = {recipe.family() for recipe in self.recipes}
        if len(families) != 1:
            raise ValueError(f"stacked models need one shape and one batch size, got {len(families)} families")
        self.device, self.settings = torch.device(device), self.recipes[0].settings
        optimizer = self.settings.optimizer
        if not isinstance(optimizer, AdamWSettings):
            raise ValueError(f"stacked models are moved by adamw, not {optimizer.name}; train them in turn")
        self.optimizer = optimizer
        models = [recipe.model().to(self.device) for recipe in self.recipes]
        parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
        self.buffers = {f"model.{name}": tensor.detach() for name, tensor in buffers.items()}
        self.parameters = {name: tensor.detach().requires_grad_() for name, tensor in parameters.items()}
        self.template = models[0]
        self.wrapper = copy.deepcopy(_Loss(self.recipes[0], models[0])).to("meta")
        self.moments = [{name: torch.zeros_like(p) for name, p in self.parameters.items()} for _ in range(2)]
        rates = [recipe.settings.optimizer.learning_rate for recipe in self.recipes]  # type: ignore[union-attr]
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        self.rates = torch.tensor(rates, dtype=wide, device=self.device)
        count = len(self.recipes)
        self.alive = torch.ones(count, dtype=torch.bool, device=self.device)
        self.died = torch.full((count,), -1, dtype=torch.int64, device=self.device)
        self.rows: list[list[Row]] = [[] for _ in range(count)]
        self.step = 0
        self._scheduled = set(self.settings.checkpoints.steps(self.settings.steps))
        data = [recipe.data() for recipe in self.recipes]
        self.offsets = torch.tensor([0, *(len(parts[0]) for parts in data[:-1])]).cumsum(0)[:, None].to(self.device)
        self.data = [torch.cat(parts).to(self.device) for parts in zip(*data, strict=True)]
        self.orders = [recipe.order() for recipe in self.recipes]
        self._chosen: list[Tensor] = []
        self._batch: list[Tensor] = []

    # --- one step -------------------------------------------------------------------------------------------------

    def losses(self) -> Float[Tensor, "members"]:
        """Each member's mean loss in nats on its batch of this step."""

        def one(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *batch: Tensor) -> Tensor:
            state = {f"model.{name}": tensor for name, tensor in parameters.items()}
            return functional_call(self.wrapper, (state, dict(buffers)), batch)

        return vmap(one, randomness="error")(self.parameters, self.buffers, *self._next_batch())

    def _next_batch(self) -> list[Tensor]:
        chosen = [order(self.step) for order in self.orders]
        same = len(chosen) == len(self._chosen) and all(a is b for a, b in zip(chosen, self._chosen, strict=True))
        if not same:
            rows = torch.stack(chosen).to(self.device) + self.offsets
            self._chosen, self._batch = chosen, [tensor[rows] for tensor in self.data]
        return self._batch

    def update(self) -> None:
        """One step of every member that is alive."""
        losses = self.losses()
        names = list(self.parameters)
        found = torch.autograd.grad(losses.sum(), [self.parameters[name] for name in names], allow_unused=True)
        gradients = [g for g in found if g is not None]
        names = [name for name, g in zip(names, found, strict=True) if g is not None]
        with torch.no_grad():
            each = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
            norms = torch.linalg.vector_norm(torch.stack(each), dim=0).to(losses.dtype)
            fine = self.alive & losses.isfinite() & norms.isfinite()
            self.died = torch.where(self.alive & ~fine, self.step, self.died)
            self._record(losses, norms, self.alive.clone())
            self.alive = fine
            self._adamw(names, gradients, norms)
        self.step += 1

    def _adamw(self, names: Sequence[str], gradients: Sequence[Tensor], norms: Tensor) -> None:
        """Clip by each member's own norm, then AdamW; who is not alive stays where it is."""
        settings, step = self.optimizer, self.step + 1
        share = self.settings.schedule.share(self.step, self.settings.steps)
        scale = torch.ones_like(norms)
        if self.settings.clip_norm is not None:
            scale = (self.settings.clip_norm / (norms + 1e-6)).clamp(max=1.0)
        for name, gradient in zip(names, gradients, strict=True):
            shape = (-1, *[1] * (gradient.ndim - 1))
            alive = self.alive.view(shape)
            parameter, (first, second) = self.parameters[name], (moments[name] for moments in self.moments)
            gradient = torch.where(alive, gradient * scale.view(shape).to(gradient.dtype), 0)
            first.lerp_(gradient, 1 - settings.beta1)
            second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
            denominator = (second.sqrt() / math.sqrt(1 - settings.beta2**step)).add_(settings.epsilon)
            rate = (self.rates * share).view(shape).to(parameter.dtype)
            moved = parameter * (1 - rate * settings.weight_decay) if self._decays(gradient.ndim - 1) else parameter
            moved = moved - rate / (1 - settings.beta1**step) * first / denominator
            parameter.copy_(torch.where(alive, moved, parameter))

    def _decays(self, dimensions: int) -> bool:
        return self.optimizer.weight_decay > 0 and (self.optimizer.decay_vectors or dimensions >= 2)

    # --- rows -----------------------------------------------------------------------------------------------------

    def _record(self, losses: Tensor, norms: Tensor, alive: Tensor) -> None:
        if self.step % self.settings.record_every and not self._measures():
            return
        rate = self.settings.schedule.share(self.step, self.settings.steps)
        values = zip(losses.tolist(), norms.tolist(), alive.tolist(), strict=True)
        for number, (loss, norm, lives) in enumerate(values):
            if lives:
                own_rate = rate * float(self.rates[number])
                self._tell(number, {"loss": loss, "gradient_norm": norm, "learning_rate": own_rate})

    def _measure(self) -> None:
        for number, recipe in enumerate(self.recipes):
            if self._measures() and self.alive[number]:
                self._tell(number, dict(recipe.measure(self.member(number))))

    def _save(self, folders: Mapping[str, Path]) -> None:
        """Keep the states of those that keep some at this step."""
        scheduled = self.step in self._scheduled
        for number, (name, recipe) in enumerate(zip(self.names, self.recipes, strict=True)):
            if not isinstance(recipe, KeepsStates) or not (scheduled or self._measures()) or not self.alive[number]:
                continue
            rows = self.rows[number]
            now = rows[-1] if rows and rows[-1]["step"] == self.step else {}
            measured = {key: value for key, value in now.items() if key not in ROW_TYPES}
            if recipe.event(self.step, rows[:-1] if now else rows, measured) or scheduled:
                recipe.save(self.step, self.member(number), folders[name])

    def _measures(self) -> bool:
        every = self.recipes[0].measure_every
        return every is not None and (self.step % every == 0 or self.step == self.settings.steps)

    def _tell(self, number: int, values: Row) -> None:
        """Into this step's row of one member."""
        rows = self.rows[number]
        if not rows or rows[-1]["step"] != self.step:
            tokens = self.step * self.recipes[number].tokens_per_step
            rows.append({"step": self.step, "tokens": tokens, "status": "ok"})
        rows[-1] |= values

    def member(self, number: int) -> nn.Module:
        """One member as a model of its own; the same object each time, with that member's weights in it."""
        self.template.load_state_dict({name: tensor[number] for name, tensor in self.parameters.items()}, strict=False)
        return self.template

    # --- all of it ------------------------------------------------------------------------------------------------

    def run(
        self, out: Path, folders: Mapping[str, Path], advance: Callable[[str, int, float], None]
    ) -> dict[str, MemberResult]:
        """Train to the last step, or on to it from where an earlier call was stopped; resume states go to OUT/stacked.

        A state of a larger group serves too: who is done need not be given again.
        """
        own = out / GROUP / hashlib.sha256("".join(self.names).encode()).hexdigest()[:16]
        start, began = time.monotonic(), self._resume(out / GROUP)
        written, told = start, self.step
        for name in self.names if began is not None else ():  # what an earlier call trained
            advance(name, self.step, math.nan)
        while self.step < self.settings.steps and bool(self.alive.any()):
            steps = min(STEPS_BETWEEN_LOOKS, self.settings.record_every, self.settings.steps - self.step)
            for _ in range(steps):
                self._measure()
                self._save(folders)
                self.update()
            for number, name in enumerate(self.names):
                last = self.rows[number][-1].get("loss", math.nan) if self.rows[number] else math.nan
                advance(name, self.step - told, last)
            told = self.step
            seconds = self.settings.state_every_seconds
            if seconds is not None and time.monotonic() - written >= seconds:
                write_state(own / TRAINING, self._state())
                written = time.monotonic()
        self._measure()
        self._save(folders)
        write_state(own / TRAINING, self._state())
        seconds = (time.monotonic() - start) / len(self.names)
        resumed = began is not None
        found = {name: self._result(number, folders[name], seconds, resumed) for number, name in enumerate(self.names)}
        for folder in {own, began or own}:
            shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another stack was stopped here
            (out / GROUP).rmdir()
        return found

    def _result(self, number: int, folder: Path, seconds: float, resumed: bool) -> MemberResult:
        rows, recipe = self.rows[number], self.recipes[number]
        if not bool(self.alive[number]):
            step = int(self.died[number])
            message = f"loss or gradient became NaN or infinite at step {step} of {self.settings.steps}; "
            message += "lower the learning rate, lengthen the warm-up or clip the gradient"
            if not rows or rows[-1]["step"] != step:
                rows.append({"step": step, "tokens": step * recipe.tokens_per_step})
            rows[-1] |= {"status": "failed", "message": message}
            return MemberResult("failed", message, rows, {}, seconds, resumed)
        result = MemberResult("ok", None, rows, recipe.finish(self.member(number)), seconds, resumed)
        write_result(folder, recipe, result)
        return result

    def _state(self) -> TrainingState:
        return TrainingState(
            identity=self._identity(),
            step=self.step,
            model={name: tensor.detach() for name, tensor in self.parameters.items()},
            optimizers=[*self.moments, {"alive": self.alive, "died": self.died}],
            generators={"names": self.names},
            rows=[{"member": float(number), **row} for number, rows in enumerate(self.rows) for row in rows],
        )

    def _identity(self) -> dict[str, Any]:
        members = zip(self.names, self.recipes, strict=True)
        return {name: json.dumps(identity_of(recipe), sort_keys=True) for name, recipe in members}

    def _resume(self, groups: Path) -> Path | None:
        """Load the newest state of this group, or of a larger one that it is part of; the folder that it lay in."""
        for path in sorted(groups.glob(f"*/{TRAINING}/{STATE}"), key=lambda path: -path.stat().st_mtime_ns):
            try:
                state = read_state(path, None)
            except ValueError:
                continue
            if self._identity().items() <= state.identity.items():
                self._load(state)
                return path.parents[1]
        return None

    def _load(self, state: TrainingState) -> None:
        there = [state.generators["names"].index(name) for name in self.names]
        *moments, lives = state.optimizers
        with torch.no_grad():
            for own, read in ((self.parameters, state.model), *zip(self.moments, moments, strict=True)):
                for name, tensor in own.items():
                    tensor.copy_(read[name][there])
        self.alive, self.died = lives["alive"][there].to(self.device), lives["died"][there].to(self.device)
        for number, place in enumerate(there):
            rows = [row for row in state.rows if row["member"] == place]
            self.rows[number] = [{name: value for name, value in row.items() if name != "member"} for row in rows]
        self.step = state.step


def stopped_groups(out: Path) -> list[list[str]]:
    """The members of each stack that was stopped in OUT, the newest first; a state that can't be read is passed by."""
    found = []
    for path in sorted((out / GROUP).glob(f"*/{TRAINING}/{STATE}"), key=lambda path: -path.stat().st_mtime_ns):
        with suppress(ValueError, KeyError):
            found.append(list(read_state(path, None).generators["names"]))
    return found
