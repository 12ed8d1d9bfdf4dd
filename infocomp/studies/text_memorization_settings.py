"""What the configuration of a text memorization study says: text, how it is dealt out, sizes, references, capacity."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from infocomp.corpora.settings import TextSettings
from infocomp.studies.settings import Settings, as_tuple
from infocomp.training.small_gpt import GPTSettings, Precision

BYTES = 256


class SampledTextSettings(Settings):
    """The text: exactly one of `builtin`, the standard library of this Python, and `text`."""

    name: Annotated[str, Field(min_length=1)] = "library"
    builtin: Literal["held_out", "training"] | None = None
    text: TextSettings | None = None

    @model_validator(mode="after")
    def _one_text(self) -> "SampledTextSettings":
        if (self.builtin is None) == (self.text is None):
            raise ValueError("exactly one of 'builtin' and 'text' is needed")
        return self


class SamplesSettings(Settings):
    """How the text becomes samples of `length` tokens, and who gets which documents.

    vocabulary: entries of a byte-level BPE of the study's own, the 256 bytes included; trained on the documents of the
        reference alone, or on `all`.
    sizes: numbers of samples to train on, each set part of the next larger one.
    unseen: never-trained samples of other documents that every model is tried on, and as many more of the documents
        that members are drawn from.
    reference_share, unseen_share: of the documents, dealt by the seed; the rest are members'.
    """

    vocabulary: Annotated[int, Field(gt=BYTES)] = 512
    tokenizer_from: Literal["reference", "all"] = "reference"
    length: Annotated[int, Field(ge=2)] = 16
    sizes: Annotated[tuple[Annotated[int, Field(ge=4)], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        *(16, 32, 64, 128, 192, 256),
        *(512, 1024, 2048, 4096, 8192),
    )
    unseen: Annotated[int, Field(ge=4)] = 1024
    reference_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    unseen_share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    @model_validator(mode="after")
    def _sound(self) -> "SamplesSettings":
        if self.reference_share + self.unseen_share >= 1:
            raise ValueError(
                f"reference_share and unseen_share leave {1 - self.reference_share - self.unseen_share:.2f} of the "
                "documents to members; together they must stay below 1"
            )
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must grow, got {', '.join(map(str, self.sizes))}")
        return self


class ShapeSettings(Settings):
    """A small GPT whose vocabulary and length are those of the samples."""

    architecture: Literal["gpt2", "gpt_neox"] = "gpt2"
    layers: PositiveInt = 1
    width: PositiveInt = 16
    heads: PositiveInt = 1
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _fits(self) -> "ShapeSettings":
        try:
            self.shape(2, 2)
        except ValidationError as error:
            reason = error.errors()[0].get("ctx", {}).get("error", error)
            raise ValueError(str(reason)) from None
        return self

    def shape(self, vocabulary: int, length: int) -> GPTSettings:
        """The model that is trained."""
        return GPTSettings(vocabulary=vocabulary, length=length, **self.model_dump())


class ReferenceSettings(Settings):
    """What stands for the process behind the text.

    whole: a model of the same shape, trained on all samples there are, members' and never-trained ones' alike, so that
        it treats all the same and only the model under study tells them apart.
    larger: a model of this shape, trained on documents that are neither members' nor never-trained ones'; null: none.
    steps: of their training; as the models' own where it is left out.
    """

    larger: ShapeSettings | None = ShapeSettings(layers=2, width=32)
    steps: PositiveInt | None = None


class CapacitySettings(Settings):
    """How many bits the model can hold: `bits_per_parameter` as given, or measured by one more training, on uniform
    random samples of the same vocabulary and length, `load` bits of them per parameter."""

    bits_per_parameter: PositiveFloat | None = None
    load: PositiveFloat = 6.0
