"""Rows of a capacity study: what each run stored, and what follows for a model and over models. All in bits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from infocomp.memorization.capacity import (
    LOWER_BOUND,
    capacity_line,
    fills_the_model,
    lower_bound,
    plateau,
    run_message,
)
from infocomp.memorization.random_data import ceiling_bits, entropy_bits, fresh_rows, random_rows
from infocomp.training.recipe import MemberResult
from infocomp.training.small_gpt import GPTSettings, ParameterCounts, parameter_counts
from infocomp.training.token_recipe import TokenRecipe, TokenTraining
from infocomp.units import BITS_PER_NAT

Row = dict[str, Any]
ALL, OUTSIDE = "all parameters", "outside the embedding"


@dataclass(frozen=True)
class RandomRun:
    """One training on random data. doubled: it repeats another with twice the steps. tag: ends the model's name."""

    shape: GPTSettings
    training: TokenTraining
    sequences: int
    seed: int = 0
    on_plateau: bool = False
    doubled: bool = False
    tag: str = ""

    @classmethod
    def of_load(
        cls,
        shape: GPTSettings,
        training: TokenTraining,
        load: float,
        seed: int = 0,
        on_plateau: bool = False,
        doubled: bool = False,
        tag: str = "",
    ) -> "RandomRun":
        """As many sequences as have `load` bits of entropy per parameter of the model."""
        each = entropy_bits(1, shape.predicted, shape.vocabulary)
        count = max(1, round(load * parameter_counts(shape).total / each))
        return cls(shape, training, count, seed, on_plateau, doubled, tag)

    @cached_property
    def parameters(self) -> ParameterCounts:
        return parameter_counts(self.shape)

    @property
    def model(self) -> str:
        """The column `model`."""
        return f"{self.shape.name}{self.tag}"

    @property
    def data(self) -> str:
        """The data's kind, for the column `corpus`."""
        return f"random V{self.shape.vocabulary} S{self.shape.length}"

    @property
    def title(self) -> str:
        steps = f" · {self.training.steps:,} steps" if self.doubled else ""
        return f"{self.model} · {self.data} N{self.sequences} · seed {self.seed}{steps}"

    def describe(self) -> Row:
        """The columns that say which run a row is about."""
        label = f"steps {self.training.steps}" if self.doubled else ""
        about = {"model": self.model, "corpus": f"{self.data} N{self.sequences}", "label": label}
        return about | {"seed": self.seed, "step": self.training.steps}

    def identity(self) -> Row:
        """All that decides the result."""
        shape, training = self.shape.model_dump(mode="json"), self.training.model_dump(mode="json")
        about = {"sequences": self.sequences, "seed": self.seed, "on_plateau": self.on_plateau}
        return about | {"shape": shape, "training": training, "doubled": self.doubled, "tag": self.tag}

    def rows(self) -> np.ndarray:
        """The sequences, int64[N, S], from the seed and N."""
        shape = self.shape
        return random_rows(self.sequences, shape.vocabulary, shape.length, _data_seed(self))

    def recipe(self) -> TokenRecipe:
        """The training: on the sequences, scoring as many fresh ones."""
        rows = self.rows()
        fresh = fresh_rows(rows, self.shape.vocabulary, _data_seed(self))
        small = np.min_scalar_type(-self.shape.vocabulary)  # all recipes of a sweep are held at once
        return TokenRecipe(self.shape, self.training, rows.astype(small), fresh.astype(small), self.seed)

    def settings(self) -> Row:
        """What stands in the column `settings`."""
        shape, training, counts = self.shape, self.training, self.parameters
        sizes = {"layers": shape.layers, "width": shape.width, "heads": shape.heads}
        sizes |= {"vocabulary": shape.vocabulary, "length": shape.length, "precision": shape.precision}
        counted = {"parameters": counts.total, "parameters_outside_embedding": counts.outside_embedding}
        trained = {"steps": training.steps, "batch": training.batch, "learning_rate": training.learning_rate}
        about = {"sequences": self.sequences, "architecture": shape.architecture, "on_plateau": self.on_plateau}
        return (
            about | sizes | counted | trained | {"data_bits": self.data_bits, "given": shape.length - shape.predicted}
        )

    @property
    def data_bits(self) -> float:
        """Entropy of what is predicted of the sequences."""
        return entropy_bits(self.sequences, self.shape.predicted, self.shape.vocabulary)


def _data_seed(run: RandomRun) -> int:
    return int(np.random.SeedSequence([run.seed, run.sequences]).generate_state(1)[0])


def run_rows(run: RandomRun, found: MemberResult) -> list[Row]:
    """memorized_bits, unintended_bits and extraction_rate of one run, each beside the same on fresh sequences.

    unintended: Σ max(S·log2 V − code length, 0), the definition by sample with the true process as reference (Morris
    et al. 2025, section 2); nothing is intended here, so the fresh sequences' sum is what its clip alone makes.
    """
    shape, n = run.shape, run.sequences
    each = entropy_bits(1, shape.predicted, shape.vocabulary)
    gained = each - found.arrays["train_nats"] * BITS_PER_NAT
    of_fresh = each - found.arrays["held_out_nats"] * BITS_PER_NAT
    ceiling = ceiling_bits(run.rows(), shape.vocabulary, shape.length - shape.predicted)
    known = len(of_fresh) > 0
    shared = run.describe() | {"site": "logits", "estimator": "code_length", "draw": "mean", "in_training": "known"}
    shared |= {"n_documents": n, "n_tokens": n * shape.predicted, "settings": run.settings()}
    shared |= {"dtype": shape.precision, "seconds": found.seconds}
    value = float(gained.sum())
    scale = n / len(of_fresh) if known else math.nan
    memorized = {"value": value, "unit": "bits", "ceiling": ceiling, "efficiency": value / ceiling if ceiling else None}
    memorized |= {"null": float(of_fresh.sum()) * scale if known else None}
    unintended = {"value": float(np.maximum(gained, 0).sum()), "unit": "bits", "ceiling": ceiling}
    unintended |= {"null": float(np.maximum(of_fresh, 0).sum()) * scale if known else None}
    extracted, of_others = found.arrays["train_extracted"], found.arrays["held_out_extracted"]
    rate = {"value": float(extracted.mean()), "unit": "ratio", "null": float(of_others.mean()) if known else None}
    message = run_message(value, ceiling)
    return [
        *_rows_over_training(run, found, shared, ceiling),
        shared | {"quantity": "memorized_bits", "message": message} | memorized,
        shared | {"quantity": "unintended_bits", "message": message} | unintended,
        shared | {"quantity": "extraction_rate", "ceiling": 1.0} | rate,
    ]


def _rows_over_training(run: RandomRun, found: MemberResult, shared: Row, ceiling: float) -> list[Row]:
    """memorized_bits at the steps before the last at which all rows were scored (`training.measure_every`)."""
    shape, rows = run.shape, []
    for row in found.rows:
        if row["step"] < run.training.steps and "train_nats_per_token" in row:
            left = shape.predicted * row["train_nats_per_token"] * BITS_PER_NAT
            value = run.sequences * (entropy_bits(1, shape.predicted, shape.vocabulary) - left)
            label = f"after {row['step']} of {run.training.steps} steps"
            own = {"quantity": "memorized_bits", "label": label, "step": row["step"], "unit": "bits", "value": value}
            rows.append(shared | own | {"ceiling": ceiling})
    return rows


def derived_rows(rows: Mapping[RandomRun, Sequence[Row]]) -> list[Row]:
    """Plateau, bits per parameter and gain of twice the steps for each model, slopes for each family of models."""
    found: list[Row] = []
    families: dict[tuple[str, str], list[RandomRun]] = {}
    models: dict[tuple[GPTSettings, str], list[RandomRun]] = {}
    for run in rows:
        models.setdefault((run.shape, run.tag), []).append(run)
    stored = {run: next(row for row in own if row["quantity"] == "memorized_bits") for run, own in rows.items()}
    for runs in models.values():
        filling = [run for run in runs if run.on_plateau and not run.doubled]
        if filling:
            found += _model_rows(filling, stored)
            families.setdefault((filling[0].shape.family + filling[0].tag, filling[0].data), []).extend(filling)
    for (family, data), filling in families.items():
        if len({run.parameters.total for run in filling}) > 1:
            found += _slope_rows(family, data, filling, stored)
    return found


def _model_rows(filling: Sequence[RandomRun], stored: Mapping[RandomRun, Row]) -> list[Row]:
    shape, counts = filling[0].shape, filling[0].parameters
    values = [stored[run]["value"] for run in filling]
    level = plateau(values, [run.seed for run in filling])
    gains = doubling_gains(filling, stored)
    gain = float(np.mean(gains)) if gains else None
    message = model_message(filling, stored)
    shared = {"model": filling[0].model, "corpus": filling[0].data, "site": "logits", "estimator": "code_length"}
    shared |= {"draw": "mean", "in_training": "known", "dtype": shape.precision, "step": filling[0].training.steps}
    about = {name: value for name, value in filling[0].settings().items() if name not in ("sequences", "data_bits")}
    about |= {"sequences": sorted({run.sequences for run in filling}), "seeds": sorted({run.seed for run in filling})}
    about |= {"doubling_gain": gain, "doubling_gains": gains, "interval": "t over seeds"}
    rows: list[Row] = []

    def add(quantity: str, label: str, unit: str, by: float) -> None:
        ends = {"std_error": level.std_error, "ci_low": level.low, "ci_high": level.high}
        scaled = {name: None if value is None else value / by for name, value in ends.items()}
        own = {"quantity": quantity, "label": label, "unit": unit, "value": level.value / by, "message": message}
        rows.append(shared | own | scaled | {"settings": about})

    add("memorized_bits", "plateau", "bits", 1.0)
    add("bits_per_parameter", ALL, "bits/parameter", counts.total)
    add("bits_per_parameter", OUTSIDE, "bits/parameter", counts.outside_embedding)
    if gain is not None:
        own = {"quantity": "saturation_gain", "label": "twice the steps", "unit": "ratio", "value": gain}
        rows.append(shared | own | {"settings": about, "null": 0.0})
    return rows


def model_message(filling: Sequence[RandomRun], stored: Mapping[RandomRun, Row]) -> str | None:
    """Why a model's plateau is a lower bound; None where it was shown to be saturated."""
    values, ceilings = [stored[run]["value"] for run in filling], [stored[run]["ceiling"] for run in filling]
    if not fills_the_model(values, ceilings):
        return f"{LOWER_BOUND}: the data are too few to fill the model; raise plateau_load"
    return lower_bound(doubling_gains(filling, stored))


def doubling_gains(filling: Sequence[RandomRun], stored: Mapping[RandomRun, Row]) -> list[float]:
    """What each run that was repeated with twice the steps gained by it, as a share of what it had stored."""
    gains = []
    for run in filling:
        steps = run.training.model_copy(update={"steps": 2 * run.training.steps})
        twice = replace(run, training=steps, doubled=True)
        if twice in stored and stored[run]["value"] > 0:  # a share of nothing is no number
            gains.append(stored[twice]["value"] / stored[run]["value"] - 1)
    return gains


def _slope_rows(family: str, data: str, filling: Sequence[RandomRun], stored: Mapping[RandomRun, Row]) -> list[Row]:
    rows = []
    models: dict[str, list[RandomRun]] = {}
    for run in filling:
        models.setdefault(run.model, []).append(run)
    messages = {name: model_message(runs, stored) for name, runs in models.items()}
    whys = [message.removeprefix(f"{LOWER_BOUND}: ") + f" to {name}" for name, message in messages.items() if message]
    said = f"{LOWER_BOUND}, as {len(whys)} of {len(models)} models are: {whys[0]}" if whys else None
    for label in (ALL, OUTSIDE):
        sizes = [run.parameters.total if label == ALL else run.parameters.outside_embedding for run in filling]
        if len(set(sizes)) < 2:
            continue
        line = capacity_line(sizes, [stored[run]["value"] for run in filling])
        about = {"intercept": line.intercept, "intercept_low": line.intercept_low}
        about |= {"intercept_high": line.intercept_high, "r_squared": line.r_squared}
        about |= {"models": line.models, "runs": line.runs, "seed_error": line.seed_error}
        about |= {"interval": "t over sizes, sizes − 2 degrees of freedom: seeds and misfit"}
        row = {"model": family, "corpus": data, "site": "logits", "estimator": "code_length", "draw": "mean"}
        row |= {"quantity": "capacity_slope", "label": label, "unit": "bits/parameter", "value": line.slope}
        row |= {"std_error": line.slope_error, "ci_low": line.slope_low, "ci_high": line.slope_high}
        row |= {"message": said, "in_training": "known"}
        rows.append(row | {"settings": about, "dtype": filling[0].shape.precision})
    return rows
