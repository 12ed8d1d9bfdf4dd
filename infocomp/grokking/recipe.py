"""Training of one model on one operation, with its states kept: a recipe for `train_many`, one seed of many.

Sources of the defaults: Nanda et al. 2023 (arXiv 2301.05217): full batch, AdamW with β = (0.9, 0.98), ten steps of
warm-up, log-probabilities in float64 (in float32 a loss below 1e-7 has no gradient left, and weight decay alone then
moves the weights). Losses are mean nats per answer.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.checkpoints.schedule import parse_revision
from infocomp.grokking.tasks import SIGNS, ArithmeticTask, MirrorPairs, Split, split_pairs
from infocomp.training.optimizers import AdamWSettings
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings, batches
from infocomp.training.series import CHECKPOINTS, checkpoint_folder, is_checkpoint, save_checkpoint
from infocomp.training.state import Row
from infocomp.training.trainer import TRAINING, TrainerSettings

STATE_SECONDS = 10.0
RECIPE_VERSION = 1  # raised where the same settings give other weights than before
_strict = ConfigDict(frozen=True, extra="forbid", strict=True)


class ShapeSettings(BaseModel):
    """A model's shape. layers, heads, mlp and `power` are the transformer's alone.

    initial_scale: of all weights. initial_by_width: the MLP's output weights are drawn larger, by the width instead of
    by the neurons, as the public notebook of Nanda et al. does.
    `kind: transformer` is that of Nanda et al.; `power` gives it an operator token and LayerNorm after each sublayer,
    as in Power et al. 2022 (two layers there). `quadratic_mlp`: width hidden units, squared.
    """

    model_config = _strict

    kind: Literal["transformer", "quadratic_mlp"] = "transformer"
    width: PositiveInt = 128
    layers: PositiveInt = 1
    heads: PositiveInt = 4
    mlp: PositiveInt | None = None
    power: bool = False
    initial_scale: PositiveFloat = 1.0
    initial_by_width: bool = False

    @model_validator(mode="after")
    def _whole_heads(self) -> "ShapeSettings":
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads; change one of them")
        if self.kind == "quadratic_mlp" and (self.layers != 1 or self.mlp is not None or self.power):
            raise ValueError("layers, mlp and power belong to the transformer; a quadratic_mlp has its width alone")
        return self

    @property
    def neurons(self) -> int:
        """Of the MLP: four times the width unless said otherwise."""
        return self.width if self.kind == "quadratic_mlp" else self.mlp or 4 * self.width

    @property
    def name(self) -> str:
        """As the table names it."""
        if self.kind == "quadratic_mlp":
            return f"quadratic_mlp {self.width}"
        return f"transformer {self.layers}x{self.width}" + (" post-norm" if self.power else "")

    def config(self, elements: int) -> ArithmeticConfig:
        """The model's configuration for a task."""
        return ArithmeticConfig(
            elements=elements,
            architecture=self.kind,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads if self.kind == "transformer" else 1,
            intermediate_size=self.neurons,
            normalisation="post" if self.power else "none",
            operator_token=self.power,
        )


class KeptSettings(BaseModel):
    """Which states are kept: steps 0 and `first`, then each `ratio` times the one before, and the last; and events.

    An event is an evaluation at which train or test accuracy differs by `change` or more from what it was at the last
    state kept; the first `events` of them are kept. `change: null` leaves events out.
    """

    model_config = _strict

    first: PositiveInt = 30
    ratio: Annotated[float, Field(gt=1)] = 1.3
    change: Annotated[float, Field(gt=0, le=1)] | None = 0.25
    events: Annotated[int, Field(ge=0)] = 4


class GrokkingTraining(BaseModel):
    """AdamW at a constant rate after the warm-up; `batch: null` takes all training pairs in every step.

    measure_every: steps between two evaluations of train and test pairs. keep: states that stay as checkpoints; null
    keeps none.
    """

    model_config = _strict

    steps: PositiveInt = 2000
    learning_rate: PositiveFloat = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    batch: PositiveInt | None = None
    measure_every: PositiveInt = 10
    loss_precision: Literal["float64", "float32"] = "float64"
    keep: KeptSettings | None = KeptSettings()

    def trainer(self, seed: int) -> TrainerSettings:
        """The settings of the loop that all trainings share."""
        keep = self.keep
        kept = CheckpointSettings(log_spaced_until=0)
        if keep is not None:
            kept = CheckpointSettings(log_spaced_until=0, ratio=keep.ratio, ratio_from=keep.first)
        return TrainerSettings(
            steps=self.steps,
            seed=seed,
            optimizer=AdamWSettings(
                learning_rate=self.learning_rate, beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay
            ),
            schedule=ScheduleSettings(warmup_steps=self.warmup_steps),
            checkpoints=kept,
            state_every_seconds=STATE_SECONDS,
            record_every=self.measure_every,
        )


@dataclass(frozen=True)
class GrokkingRecipe:
    """One training; the seed decides the weights, the split and the order of batches."""

    task: ArithmeticTask
    shape: ShapeSettings = field(default_factory=ShapeSettings)
    training: GrokkingTraining = field(default_factory=GrokkingTraining)
    train_fraction: float = 0.3
    mirror_pairs: MirrorPairs = "apart"
    seed: int = 0

    def __post_init__(self) -> None:
        split_pairs(self.task, self.train_fraction, self.seed, self.mirror_pairs)  # says what is wrong with it

    @cached_property
    def split(self) -> Split:
        """Which pairs are learnt."""
        return split_pairs(self.task, self.train_fraction, self.seed, self.mirror_pairs)

    @property
    def settings(self) -> TrainerSettings:
        return self.training.trainer(self.seed)

    @property
    def measure_every(self) -> int | None:
        return self.training.measure_every

    @property
    def _batch(self) -> int:
        return min(self.training.batch or len(self.split.train), len(self.split.train))

    @property
    def tokens_per_step(self) -> int:
        return self._batch

    @property
    def parameters(self) -> int:
        """Of the model."""
        return self._parameters

    @cached_property
    def _parameters(self) -> int:
        with torch.device("meta"):
            model = ArithmeticForCausalLM(self.shape.config(self.task.elements))
        return sum(parameter.numel() for parameter in model.parameters())

    def model(self) -> ArithmeticForCausalLM:
        """The model as it is before the first step."""
        model = ArithmeticForCausalLM(self.shape.config(self.task.elements))
        return model.initialise(self.seed, self.shape.initial_scale, self.shape.initial_by_width).eval()

    def rows(self, which: Int[np.ndarray, "rows"] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Left and right inputs and answers of some pairs, or of all."""
        chosen = slice(None) if which is None else which
        left, right, answer = (values[chosen] for values in (self.task.left, self.task.right, self.task.answer))
        return torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(answer)

    def data(self) -> tuple[Tensor, ...]:
        """What a step takes its pairs from."""
        return self.rows(self.split.train)

    def order(self) -> Callable[[int], Int[Tensor, "batch"]]:
        """Which pairs each step reads: all of them, or shuffled epochs of batches."""
        return batches(len(self.split.train), self._batch, self.seed)

    def loss(self, model: nn.Module, left: Tensor, right: Tensor, answer: Tensor) -> Tensor:
        """Mean nats per answer."""
        logits = model.answer_logits(left, right)  # type: ignore[operator]
        precise = logits.double() if self.training.loss_precision == "float64" else logits
        return functional.cross_entropy(precise, answer)

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """Mean nats per answer and share of right answers, over all pairs that are learnt and over all others."""
        assert isinstance(model, ArithmeticForCausalLM)
        return {
            f"{which}_{name}": value
            for which, rows in (("train", self.split.train), ("test", self.split.test))
            for name, value in evaluate(model, *self.rows(rows)).items()
        }

    def finish(self, model: nn.Module) -> Mapping[str, np.ndarray]:
        """Nothing: the last state is a checkpoint."""
        return {}

    def family(self) -> str:
        """Recipes of one family have tensors of the same shapes at every step and may train as one stacked model."""
        training = self.training.model_dump(exclude={"learning_rate"})
        return f"{self.task!r} {self.shape!r} {training!r} {self._batch} {len(self.split.train)}"

    def identity(self) -> Mapping[str, str | int | float]:
        """What decides the result and is not in the loop's settings."""
        rows = hashlib.sha256(np.ascontiguousarray(self.split.train).tobytes()).hexdigest()[:16]
        keep = self.training.keep
        return {
            "version": RECIPE_VERSION,
            "task": self.task.name,
            "shape": self.shape.model_dump_json(exclude=set() if self.shape.initial_by_width else {"initial_by_width"}),
            "train": rows,
            "batch": self._batch,
            "loss_precision": self.training.loss_precision,
            "measure_every": self.training.measure_every,
            "keep": "none" if keep is None else keep.model_dump_json(),
        }

    # --- states that are kept -------------------------------------------------------------------------------------

    def save(self, step: int, model: nn.Module, folder: Path) -> None:
        """Write checkpoints/step{N} in the folder, as a Hugging Face model with its tokenizer."""
        if self.training.keep is not None:
            unfinished = folder / TRAINING / "unfinished"
            save_checkpoint(model, self.tokenizer, checkpoint_folder(folder, step), unfinished)

    def saved(self, step: int, folder: Path) -> bool:
        """Whether that checkpoint stands."""
        return self.training.keep is None or is_checkpoint(checkpoint_folder(folder, step))

    def kept(self, folder: Path) -> list[int]:
        """The steps whose checkpoints stand."""
        steps = (parse_revision(path.name).step for path in (folder / CHECKPOINTS).glob("step*"))
        return sorted(step for step in steps if step is not None and self.saved(step, folder))

    def event(self, step: int, rows: Sequence[Row], measured: Mapping[str, float]) -> bool:
        """Whether an accuracy has moved so far since the last state kept that this one is kept as well."""
        keep = self.training.keep
        if keep is None or keep.change is None or not measured:
            return False
        scheduled = set(self.settings.checkpoints.steps(self.training.steps))
        last, left, due = None, keep.events, False
        for row in [*rows, {"step": step, **measured}]:
            if "train_accuracy" not in row:
                continue
            now = np.array([row["train_accuracy"], row["test_accuracy"]])
            due = last is not None and left > 0 and row["step"] not in scheduled
            due = due and bool((np.abs(now - last) >= keep.change).any())
            left -= due
            if due or last is None or row["step"] in scheduled:
                last = now
        return due

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Words are the elements' numbers, "=" and, where the model reads it, the operator's sign."""
        shape = self.shape.config(self.task.elements)
        words = [*map(str, range(shape.elements)), "=", SIGNS[self.task.operation]][: shape.vocab_size]
        tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=None))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer)

    def texts(self, which: Int[np.ndarray, "rows"]) -> list[str]:
        """Pairs with their answers as the model reads them, "3 5 = 8", for every study of text."""
        shape = self.shape.config(self.task.elements)
        between = f" {SIGNS[self.task.operation]} " if shape.operator_token else " "
        equals = " = " if shape.special_tokens else " "
        columns = (self.task.left[which], self.task.right[which], self.task.answer[which])
        return [f"{a}{between}{b}{equals}{c}" for a, b, c in zip(*columns, strict=True)]


def evaluate(model: ArithmeticForCausalLM, left: Tensor, right: Tensor, answer: Tensor) -> dict[str, float]:
    """loss: mean nats per answer, in float64. accuracy: share of answers that the most probable element is."""
    device: Any = next(model.parameters()).device
    logits = model.answer_logits(left.to(device), right.to(device)).double()
    right_ones = logits.argmax(-1) == answer.to(device)
    loss = functional.cross_entropy(logits, answer.to(device))
    return {"loss": float(loss), "accuracy": float(right_ones.double().mean())}
