"""What the configuration of a coding study says: which model, which texts, and which codes are measured of them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from infocomp.coding.classical import CODERS, STRONGEST_CODERS
from infocomp.corpora.settings import TextSettings
from infocomp.studies.settings import Names, Settings, Sizes, as_tuple

Checkpoints = Literal["last", "all"]
Length = Annotated[int, Field(ge=2)]
Lengths = Annotated[tuple[Length, ...], BeforeValidator(as_tuple)]


def as_section(value: object) -> object:
    """`true` is a section at its defaults, `false` none."""
    return None if value is False else {} if value is True else value


class CodedTextSettings(Settings):
    """One text, picture or sound, and what the model knows of it: exactly one of `path`, `builtin` and `text`.

    path: a file, glob or folder, or a list of them, relative to the current folder; a picture or sound is one file.
    builtin: the standard library of this Python, `held_out` packages or those the demo's model is trained on.
    text: what else a text may come from, JSON lines or a Hugging Face data set.
    documents: how plain text becomes documents: a document a file, or paragraphs that end with blank lines, or lines.
        No window crosses a document unless `rate.packing` is set, and standard errors are over documents.
    max_bytes: the text is cut there. in_training: whether the model was trained on it; a column of every row.
    A picture is cut into grey patches of 32 × 64, a sound into pieces of 2048 8-bit samples, and their bytes are mapped
    to the ASCII that a model of text reads; of these only the rate and the classical coders are measured. `max_bytes`
    keeps whole pieces of a sound and whole rows of patches of a picture, the same bytes for every coder.
    """

    name: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)] | Names | None = None
    builtin: Literal["held_out", "training"] | None = None
    text: TextSettings | None = None
    modality: Literal["text", "image", "audio"] = "text"
    documents: Literal["file", "blank_lines", "lines"] = "file"
    max_bytes: Sizes | None = None
    in_training: Literal["known", "likely", "unknown", "no"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "CodedTextSettings":
        if sum(given is not None for given in (self.path, self.builtin, self.text)) != 1:
            raise ValueError("exactly one of 'path', 'builtin' and 'text' is needed")
        if self.modality != "text" and not isinstance(self.path, str):
            raise ValueError(f"modality {self.modality!r} is read from one file: give its 'path'")
        if self.path is None and self.documents != "file":
            raise ValueError("'documents' cuts the plain text of a 'path'; leave it out")
        if self.text is not None and self.max_bytes is not None:
            raise ValueError("'max_bytes' of a 'text' is written inside it; move it there")
        return self

    @property
    def trained_on(self) -> str:
        """The column `in_training`."""
        return self.in_training or (self.text.in_training if self.text is not None else "unknown")


class SlidingSettings(Settings):
    """Windows of `context_length` positions (a BOS counts) that move on by `stride` tokens."""

    context_length: Length
    stride: Annotated[int, Field(ge=1)]


class RateSettings(Settings):
    """The teacher-forced code length: the default windows, the position curve, other windows.

    context_length: positions of a default window, a BOS included; as many as the model reads, 2048 at most, where it
        is not given.
    stride: new tokens of each further default window; windows are disjoint where it is not given.
    bos: a BOS before each window makes the code complete; without one the first token of a window is not scored.
    packing: windows go on from one document to the next, with nothing in between.
    chunk_lengths: other lengths of disjoint windows, a forward pass each. sliding: other windows that overlap.
    bins_per_octave: of the place in the window, for the position curve.
    """

    context_length: Length | None = None
    stride: Annotated[int, Field(ge=1)] | None = None
    bos: Literal["none", "document", "window"] = "window"
    packing: bool = False
    chunk_lengths: Lengths = ()
    sliding: Annotated[tuple[SlidingSettings, ...], BeforeValidator(as_tuple)] = ()
    position_curve: bool = True
    bins_per_octave: Annotated[int, Field(ge=1, le=8)] = 1


class RetentionSettings(Settings):
    """Bits by kind of token, from the same forward pass as the rate, beside an adaptive PPM of `order` bytes."""

    order: Annotated[int, Field(ge=0, le=6)] = 6


class ChunkingSettings(Settings):
    """How the codec cuts a text: chunks that are read side by side. What is not given is the codec's own default."""

    chunk_tokens: Annotated[int, Field(ge=1)] | None = None
    context_length: Length | None = None
    overlap: Annotated[int, Field(ge=0)] = 0


class CodecSettings(Settings):
    """Files that are really written, decoded and compared: the first `max_bytes` of each text.

    chunk_tokens: further lengths of chunks beside `chunking`, for speed against rate.
    checkpoints: the codec goes token by token, which is slow: "last" or "all".
    """

    max_bytes: Sizes = 100_000
    chunking: ChunkingSettings = ChunkingSettings()
    chunk_tokens: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = ()
    checkpoints: Checkpoints = "last"


class RanksSettings(Settings):
    """Rank coding with the same model on the same first `max_bytes`, decoded and compared."""

    max_bytes: Sizes = 100_000
    chunking: ChunkingSettings = ChunkingSettings()
    checkpoints: Checkpoints = "last"


class WeightsSettings(Settings):
    """The weights quantised to each of `widths` bits, the rate measured again, and what both cost together.

    against: the classical coders for which the break-even size of a corpus is given.
    """

    widths: Annotated[tuple[Literal[16, 8, 6, 4, 3, 2], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        *(16, 8, 6),
        *(4, 3, 2),
    )
    against: Names = ("xz -9e", "PPMd")
    checkpoints: Checkpoints = "last"

    @model_validator(mode="after")
    def _known(self) -> "WeightsSettings":
        _check_coders(self.against)
        return self


class ClassicalSettings(Settings):
    """Classical coders on the same bytes, in one stream and in pieces of each of `chunk_bytes`.

    PNG is added for a picture, FLAC for a sound.
    """

    coders: Names = STRONGEST_CODERS
    chunk_bytes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = (2048,)

    @model_validator(mode="after")
    def _known(self) -> "ClassicalSettings":
        _check_coders(self.coders)
        return self


class PrequentialSettings(Settings):
    """The code length of the training run itself, of a series that this run trains; about `points` of it become rows.

    against: classical coders on the same text in the same order.
    """

    points: Annotated[int, Field(ge=2)] = 64
    against: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("gzip -9", "xz -9e", "PPMd")

    @model_validator(mode="after")
    def _known(self) -> "PrequentialSettings":
        _check_coders(self.against)
        return self


def _check_coders(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in CODERS:
            raise ValueError(f"no classical coder named {name!r}; known are {', '.join(map(repr, CODERS))}")
    if len(set(names)) < len(names):
        raise ValueError(f"a coder is named twice among {', '.join(names)}")
