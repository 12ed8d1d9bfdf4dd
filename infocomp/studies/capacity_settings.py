"""What the configuration of a capacity study says: which models, which random data, how long they are trained."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from infocomp.config import VOLATILE
from infocomp.studies.settings import Settings, as_tuple
from infocomp.training.small_gpt import Precision


def as_list(value: object) -> object:
    """One thing as a list of one, so that a sweep of one value needs no brackets."""
    return value if isinstance(value, list | tuple) else [value]


Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple), BeforeValidator(as_list)]
Loads = Annotated[tuple[PositiveFloat, ...], BeforeValidator(as_tuple), BeforeValidator(as_list)]


class SizeSettings(Settings):
    """One size of model; `learning_rate` in place of the training's own."""

    layers: PositiveInt = 1
    width: PositiveInt
    heads: PositiveInt = 1
    learning_rate: PositiveFloat | None = None


class RandomDataSettings(Settings):
    """Uniform random sequences of `length` tokens out of `vocabulary`; lists sweep.

    load: sizes of the data, in bits of entropy per parameter of the model, each trained with the first seed.
    plateau_load: sizes that fill the model, trained with every seed; the plateau is their mean.
    sequences: sizes as numbers of sequences, beside those of `load`.
    """

    vocabulary: Annotated[
        tuple[Annotated[int, Field(ge=2)], ...], BeforeValidator(as_tuple), BeforeValidator(as_list)
    ] = (64,)
    length: Annotated[tuple[Annotated[int, Field(ge=2)], ...], BeforeValidator(as_tuple), BeforeValidator(as_list)] = (
        16,
    )
    load: Loads = (1.0, 2.0)
    plateau_load: Annotated[Loads, Field(min_length=1)] = (5.0,)
    sequences: Counts = ()


class DoublingSettings(Settings):
    """Runs repeated with twice the steps, to show what more training would add: the plateau's, of the first seeds."""

    seeds: PositiveInt = 1


class CapacityComputeSettings(Settings):
    """The machine. `way`: how many trainings share it; auto tries."""

    device: str = "auto"
    way: Annotated[Literal["auto", "in_turn", "processes", "stacked"], VOLATILE] = "auto"
    workers: Annotated[PositiveInt | None, VOLATILE] = None
    threads: Annotated[PositiveInt | None, VOLATILE] = None


Precisions = Annotated[tuple[Precision, ...], BeforeValidator(as_tuple), BeforeValidator(as_list), Field(min_length=1)]
Architectures = Annotated[
    tuple[Literal["gpt2", "gpt_neox"], ...],
    BeforeValidator(as_tuple),
    BeforeValidator(as_list),
    Field(min_length=1),
]
