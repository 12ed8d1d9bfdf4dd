"""The trainings of the text memorization study, and what each unit of work makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from infocomp.memorization.membership import fit_membership_law
from infocomp.memorization.random_data import check_memory
from infocomp.studies.capacity import available_memory
from infocomp.studies.text_memorization_rows import (
    COMMON,
    LOSS,
    SAME,
    Row,
    Scored,
    against,
    law_rows,
    membership_rows,
    model_rows,
    rate_rows,
)
from infocomp.studies.text_memorization_settings import CapacitySettings, ReferenceSettings, ShapeSettings
from infocomp.studies.text_memorization_texts import DealtText, random_samples
from infocomp.training.many import Many
from infocomp.training.recipe import MemberResult
from infocomp.training.small_gpt import GPTSettings, ParameterCounts, parameter_counts
from infocomp.training.token_recipe import TokenRecipe, TokenTraining
from infocomp.units import bits

TEXT_VERSION = 2  # of what is computed here: a change of the rows is a change of the version
WHOLE, LARGER, CAPACITY = "whole", "larger", "capacity"
FRESH = 256  # random samples that the capacity's training has not seen
UnitParts = tuple[str, Mapping[str, Any], Mapping[str, Any], Callable[[], list[Row]]]


@dataclass(frozen=True)
class Trained:
    """Every training of the study, by name; plain data, nothing of it has begun."""

    text: DealtText
    sizes: Sequence[int]
    model: ShapeSettings
    training: TokenTraining
    references: ReferenceSettings
    capacity: CapacitySettings
    seed: int

    @cached_property
    def shape(self) -> GPTSettings:
        """The model under study."""
        return self.model.shape(self.text.vocabulary, int(self.text.members.rows.shape[1]))

    @cached_property
    def larger(self) -> GPTSettings | None:
        """The larger reference."""
        larger = self.references.larger
        return None if larger is None else larger.shape(self.text.vocabulary, self.shape.length)

    @cached_property
    def counts(self) -> ParameterCounts:
        """Parameters of the model under study."""
        return parameter_counts(self.shape)

    @property
    def random_name(self) -> str:
        """What the table calls the random data."""
        return f"random V{self.shape.vocabulary} S{self.shape.length}"

    def corpus(self, samples: int) -> str:
        """What the table calls so many samples of the text."""
        return f"{self.text.name} N{samples}"

    @cached_property
    def random_rows(self) -> np.ndarray:
        """`load` bits a parameter of uniform random samples, and FRESH more. ValueError: more than memory holds."""
        entropy = self.shape.length * np.log2(self.shape.vocabulary)
        count = max(round(self.capacity.load * self.counts.total / entropy), 1)
        check_fits(count + FRESH, self.shape.length, "capacity.load")
        return random_samples(count + FRESH, self.shape.vocabulary, self.shape.length, self.seed)

    @cached_property
    def recipes(self) -> dict[str, TokenRecipe]:
        """References and capacity first, then the sizes, the largest first: they take longest."""
        text, long = self.text, self.reference_training
        never = np.concatenate([text.unseen.rows, text.siblings.rows])
        judged = np.concatenate([text.members.rows, never])
        found = {}
        if self.larger is not None:
            found[LARGER] = TokenRecipe(self.larger, long, text.reference.rows, judged, self.seed)
        everything = np.concatenate([judged, text.reference.rows])
        found[WHOLE] = TokenRecipe(self.shape, long, everything, judged, self.seed)
        if self.capacity.bits_per_parameter is None:
            rows = self.random_rows
            found[CAPACITY] = TokenRecipe(self.shape, self.training, rows[:-FRESH], rows[-FRESH:], self.seed)
        for size in sorted(self.sizes, reverse=True):
            rows = text.members.rows[:size]
            found[f"N{size}"] = TokenRecipe(self.shape, self.training, rows, never, self.seed)
        return found

    @property
    def reference_training(self) -> TokenTraining:
        """How the references are trained."""
        return self.training.model_copy(update={"steps": self.references.steps or self.training.steps})

    def about(self, reference: str | None = None) -> Row:
        """The columns that every row of the model under study, or of a reference, has alike."""
        shape = self.shape if reference is None else self.recipes[reference].shape
        training = self.training if reference is None else self.reference_training
        counts = parameter_counts(shape)
        settings = {
            "parameters": counts.total,
            "parameters_outside_embedding": counts.outside_embedding,
            **{name: getattr(shape, name) for name in ("layers", "width", "heads", "vocabulary", "length")},
            **{"steps": training.steps, "batch": training.batch, "learning_rate": training.learning_rate},
            **{"precision": shape.precision, "tokenizer": self.text.tokenizer},
            **{"bytes_per_token": self.text.bytes_per_token, "duplicates_left_out": self.text.duplicates},
        }
        about = {"model": shape.name, "seed": self.seed, "step": training.steps, "settings": settings}
        return about | {"context_length": shape.length, "dtype": shape.precision.removesuffix("_mixed")}


def check_fits(count: int, length: int, setting: str) -> None:
    """ValueError of one sentence, with the setting that asks for them, where so many samples are more than memory."""
    try:
        check_memory(count, length, available_memory())
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


def text_units(trained: Trained, many: Many) -> list[UnitParts]:
    """What each unit is called, how a failure of it is described, what decides it, and how its rows come about."""
    results = _Results(trained, many)
    identity = {name: dict(recipe.identity()) | _settings(recipe) for name, recipe in trained.recipes.items()}
    references = {name: identity[name] for name in trained.recipes if name in (WHOLE, LARGER)}
    bounds = {"capacity": identity.get(CAPACITY, trained.capacity.bits_per_parameter), **references}
    units: list[UnitParts] = []
    for name in references:
        shape = trained.larger if name == LARGER else trained.shape
        describe = _describe(trained, trained.text.name, shape) | {"label": f"reference {name}"}
        units.append((f"reference {name}", describe, identity[name], lambda name=name: results.reference_rows(name)))
    if CAPACITY in trained.recipes:
        describe = _describe(trained, trained.random_name)
        units.append(("capacity on random data", describe, identity[CAPACITY], results.capacity_rows))
    for size in trained.sizes:
        describe = _describe(trained, trained.corpus(size))
        what = bounds | {"model": identity[f"N{size}"]}
        units.append((f"{size:,} samples", describe, what, lambda size=size: results.size_rows(size)))
    describe = _describe(trained, trained.text.name)
    sizes = {str(size): identity[f"N{size}"] for size in trained.sizes}
    return [*units, ("membership law", describe, bounds | {"models": sizes}, results.law)]


def _settings(recipe: TokenRecipe) -> dict[str, Any]:
    volatile = {"state_every_steps", "state_every_seconds", "keep_states"}
    return {
        "training": recipe.settings.model_dump(mode="json", exclude=volatile),
        "measure_every": recipe.measure_every,
    }


def _describe(trained: Trained, corpus: str, shape: GPTSettings | None = None) -> dict[str, Any]:
    named = (shape or trained.shape).name
    return {**COMMON, "model": named, "corpus": corpus, "seed": trained.seed, "step": trained.training.steps}


class _Results:
    """Results of trainings as rows; each training is waited for when its first row is asked for."""

    def __init__(self, trained: Trained, many: Many) -> None:
        self.trained, self.many = trained, many

    def _result(self, name: str, what: str) -> MemberResult:
        found = self.many.result(name)
        if found.status != "ok":
            raise ValueError(f"{what}: training stopped: {found.message}")
        return found

    # --- references and capacity ----------------------------------------------------------------------------------

    def reference_bits(self, name: str) -> list[np.ndarray]:
        """Code length of every member, unseen sample and sibling under a reference, bits."""
        text = self.trained.text
        judged = self._result(name, f"reference {name!r}").arrays["held_out_nats"] * bits(1.0)
        return np.split(judged, [len(text.members), len(text.members) + len(text.unseen)])

    def reference_rows(self, name: str) -> list[Row]:
        """How short the reference makes never-trained samples: what it is worth as a stand-in for the process."""
        trained = self.trained
        result = self._result(name, f"reference {name!r}")
        unseen = self.reference_bits(name)[1]
        about = {**COMMON, **trained.about(name), "corpus": trained.text.name, "seconds": result.seconds}
        about["in_training"] = "known" if name == WHOLE else "no"
        nothing = np.zeros(len(unseen), bool)
        return rate_rows(Scored(trained.text.unseen, unseen, nothing), about, f"reference {name}")

    @property
    def capacity_bits(self) -> float:
        """How much the model holds: as configured, or what its training on random data kept."""
        trained = self.trained
        given = trained.capacity.bits_per_parameter
        if given is not None:
            return given * trained.counts.total
        result = self._result(CAPACITY, "capacity on random data")
        entropy = trained.shape.predicted * np.log2(trained.shape.vocabulary)
        return float(len(result.arrays["train_nats"]) * entropy - result.arrays["train_nats"].sum() * bits(1.0))

    def capacity_rows(self) -> list[Row]:
        """Bits per parameter of the training on random data."""
        trained, counts = self.trained, self.trained.counts
        kept, result = self.capacity_bits, self._result(CAPACITY, "capacity on random data")
        n = len(result.arrays["train_nats"])
        entropy = trained.shape.predicted * np.log2(trained.shape.vocabulary)
        fresh = n * (entropy - float(result.arrays["held_out_nats"].mean()) * bits(1.0))
        ceiling = n * (entropy - np.log2(n))
        about = trained.about()
        settings = about["settings"] | {"sequences": n, "data_bits": n * entropy, "seeds": 1}
        common = {**COMMON, **about, "corpus": trained.random_name, "quantity": "bits_per_parameter"}
        common |= {"unit": "bits/parameter", "in_training": "known", "n_tokens": n * trained.shape.predicted}
        message = "lower bound at this budget: one training, not shown to be saturated"
        common |= {"settings": settings, "message": message, "seconds": result.seconds}
        parameters = {"all parameters": counts.total, "outside the embedding": counts.outside_embedding}
        return [
            common | {"label": label, "value": kept / count, "null": fresh / count, "ceiling": ceiling / count}
            for label, count in parameters.items()
        ]

    # --- models ---------------------------------------------------------------------------------------------------

    def scored(self, size: int) -> tuple[tuple[Scored, Scored, Scored], dict[str, str]]:
        """Members, unseen samples and siblings of one model against the references that are there, and why others are
        not. ValueError where the model itself failed."""
        trained, found, missing = self.trained, {}, {}
        for reference in (WHOLE,) if trained.larger is None else (WHOLE, LARGER):
            try:
                found[reference] = self.reference_bits(reference)
            except ValueError as error:
                missing[reference] = str(error)
        arrays, text = self._result(f"N{size}", f"{size:,} samples").arrays, trained.text
        parts = [(text.members.first(size), arrays["train_nats"], arrays["train_extracted"])]
        nats, extracted = (
            np.split(arrays[name], [len(text.unseen)]) for name in ("held_out_nats", "held_out_extracted")
        )
        parts += zip((text.unseen, text.siblings), nats, extracted, strict=True)
        members, unseen, siblings = (
            Scored(samples, nats * bits(1.0), emitted, {name: of[place][: len(samples)] for name, of in found.items()})
            for place, (samples, nats, emitted) in enumerate(parts)
        )
        return (members, unseen, siblings), missing

    def size_rows(self, size: int) -> list[Row]:
        """Every row of the model that was trained on so many samples; what needs a training that failed is left out,
        the load with a message on the rows that would have it."""
        scored, missing = self.scored(size)
        about: Row = self.trained.about() | {"corpus": self.trained.corpus(size)}
        load, unknown = self._load(scored[0])
        about |= {"settings": about["settings"] | {"samples": size} | load}
        about |= {"seconds": self.many.result(f"N{size}").seconds}
        about |= {"message": f"load unknown: {unknown}"} if unknown else {}
        failed = [
            {**COMMON, **about, "quantity": "memorized_bits", "label": against(name)}
            | {"status": "failed", "message": message}
            for name, message in missing.items()
        ]
        return [*model_rows(*scored, about, self.trained.seed), *failed]

    def _load(self, members: Scored) -> tuple[Row, str]:
        """How much there is to memorize, how much can be held, their ratio: what is known, and why not the rest."""
        found: Row = {}
        try:
            found["capacity_bits"] = self.capacity_bits
            self._result(WHOLE, f"reference {WHOLE!r}")
        except ValueError as error:
            unknown = str(error)
        else:
            unknown = ""
        if WHOLE in members.reference_bits:
            found["data_bits"] = float(members.reference_bits[WHOLE].sum())
        if len(found) == 2:
            found["load"] = found["data_bits"] / found["capacity_bits"]
        return found, unknown

    def law(self) -> list[Row]:
        """The sigmoid of F1 over all models that were trained to their end, one for each kind of score.

        ValueError where the whole-data reference or the capacity failed, since every model's load needs both.
        """
        trained, data, f1 = self.trained, [], {}
        self._result(WHOLE, f"reference {WHOLE!r}")
        capacity = self.capacity_bits
        for size in trained.sizes:
            if self.many.result(f"N{size}").status != "ok":
                continue
            (members, unseen, siblings), _ = self.scored(size)
            data.append(float(members.reference_bits[WHOLE].sum()))
            known = {"settings": {}}
            rows = membership_rows(members, unseen, known, trained.seed)
            for row in [*rows, *membership_rows(members, siblings, known, trained.seed, SAME)]:
                if row["quantity"] == "membership_f1":
                    f1.setdefault(row["label"], []).append(row["value"])
        about = {key: value for key, value in trained.about().items() if key != "settings"}
        about |= {"corpus": trained.text.name, "in_training": "known"}
        rows = []
        for label, values in (f1 or {LOSS: []}).items():
            try:
                law = fit_membership_law(np.array(data), capacity, np.array(values), seed=trained.seed)
                rows += law_rows(law, about, label)
            except ValueError as error:
                undetermined = {"status": "undetermined", "message": str(error), "label": label}
                rows.append({**COMMON, **about, "quantity": "membership_midpoint", "unit": "nats", **undetermined})
        return rows
