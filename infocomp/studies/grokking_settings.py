"""What the configuration of a grokking study says: operation, models, training, how transitions are dated, measures."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from infocomp.grokking.tasks import MirrorPairs, Operation
from infocomp.studies.capacity_settings import as_list
from infocomp.studies.settings import Settings, as_tuple

Fractions = Annotated[tuple[float, ...], BeforeValidator(as_tuple), BeforeValidator(as_list), Field(min_length=1)]
Decays = Annotated[tuple[Annotated[float, Field(ge=0)], ...], BeforeValidator(as_tuple), BeforeValidator(as_list)]
Rates = Annotated[tuple[PositiveFloat, ...], BeforeValidator(as_tuple), BeforeValidator(as_list)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(as_tuple),
    BeforeValidator(as_list),
    Field(min_length=1),
]


class TaskSettings(Settings):
    """The operation, and the shares of its pairs that are trained on; a list of fractions sweeps.

    modulus: of the integers, or the number of things that permutations permute. mirror_pairs: "together" keeps (a, b)
    and (b, a) on one side of the split, so that none is answered by the other.
    """

    operation: Operation = "addition"
    modulus: PositiveInt = 59
    train_fraction: Fractions = (0.4,)
    mirror_pairs: MirrorPairs = "apart"


class DatingSettings(Settings):
    """When a curve counts as down or up, and for how many evaluations in a row; losses in nats."""

    train_loss: PositiveFloat = 0.01
    test_loss: PositiveFloat = 0.01
    train_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    test_accuracy: Annotated[float, Field(gt=0, le=1)] = 0.99
    persistence: PositiveInt = 3


class MappingSettings(Settings):
    """The linear mapping number: over how many inputs; the cost is their square."""

    points: Annotated[int, Field(ge=2, le=200)] = 100


class ComplexitySettings(Settings):
    """Length of the weights' shortest description within ε nats of the training loss.

    bisection: over the rounding step alone; it misses low rank, most of what generalizing saves. sweep: the same
    at several ranks, four times as costly. bayesian: the published search over both, seven to seventeen times.
    """

    epsilon: PositiveFloat = 1.0
    search: Literal["bisection", "sweep", "bayesian"] = "sweep"


class InformationSettings(Settings):
    """Anchors of the informations of each site, as in an information plane."""

    bins: Annotated[int, Field(ge=2)] = 100
    draws: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    centred: bool = False


class LearningCoefficientSettings(Settings):
    """The local learning coefficient by Langevin dynamics: chains, and steps of each before and in the average."""

    chains: PositiveInt = 2
    burn_in: PositiveInt = 50
    draws: PositiveInt = 100


class MeasureSettings(Settings):
    """What is measured at every kept state; `null` leaves a measure out. weights: norms and spectra."""

    fourier: bool = True
    weights: bool = True
    information: InformationSettings | None = InformationSettings()
    complexity: ComplexitySettings | None = ComplexitySettings()
    mapping: MappingSettings | None = MappingSettings()
    synergy: bool = True
    learning_coefficient: LearningCoefficientSettings | None = None
