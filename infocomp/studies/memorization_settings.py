"""What the configuration of a memorization study says: members, never-trained samples, references, extraction."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from infocomp.corpora.settings import TextSettings
from infocomp.studies.coding_settings import CodedTextSettings, RateSettings
from infocomp.studies.settings import ModelSettings, Names, Settings, as_tuple

Count = Annotated[int, Field(ge=1)]


class TableSettings(Settings):
    """Samples that are tokens already: a .npy, .npz, .parquet, .jsonl or .csv of token ids, one sample a row.

    column: where the ids stand, 'tokens' or 'input_ids' where it is not given. rows: read only so many of the first.
    """

    path: Annotated[str, Field(min_length=1)]
    column: Annotated[str, Field(min_length=1)] | None = None
    rows: Count | None = None


class SeriesRowsSettings(Settings):
    """Windows of the text that a series of ours was trained on, told by the run that trained it.

    which: `read`, the windows that the updates from `from_step` to `to_step` (the last one by default) were made on;
    `unread`, those that no update of the whole run was made on.
    """

    which: Literal["read", "unread"]
    from_step: Annotated[int, Field(ge=0)] = 0
    to_step: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "SeriesRowsSettings":
        if self.which == "unread" and (self.from_step, self.to_step) != (0, None):
            raise ValueError("'from_step' and 'to_step' say which windows were read; leave them out of 'unread'")
        if self.to_step is not None and self.to_step <= self.from_step:
            raise ValueError(f"'to_step' must lie past 'from_step', got {self.to_step} after {self.from_step}")
        return self


def as_series_rows(value: object) -> object:
    """`series: read` as the settings that it stands for."""
    return {"which": value} if isinstance(value, str) else value


class SampledTextSettings(Settings):
    """Where samples come from: exactly one of `series`, `builtin`, `path`, `text` and `table`.

    series: `read` or `unread` windows of the training text of a series that was trained with this toolkit. builtin,
    path, text, documents: as for a coded text. table: token ids, in which a sample is the beginning of a row.
    in_training: the column of the rows; members are taken as known, never-trained samples as not.
    """

    name: Annotated[str, Field(min_length=1)]
    series: Annotated[SeriesRowsSettings | None, BeforeValidator(as_series_rows)] = None
    builtin: Literal["held_out", "training"] | None = None
    path: Annotated[str, Field(min_length=1)] | Names | None = None
    text: TextSettings | None = None
    table: TableSettings | None = None
    documents: Literal["file", "blank_lines", "lines"] = "file"
    in_training: Literal["known", "likely", "unknown", "no"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SampledTextSettings":
        given = [name for name in ("series", "builtin", "path", "text", "table") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(map(repr, given))} are" if given else "none is"
            raise ValueError(
                f"exactly one of 'series', 'builtin', 'path', 'text' and 'table' is needed, and {found} given"
            )
        if self.path is None and self.documents != "file":
            raise ValueError("'documents' cuts the plain text of a 'path'; leave it out")
        return self

    def trained_on(self, default: str) -> str:
        """The column `in_training`: as the text says, `default` where it says nothing."""
        said = self.in_training or (None if self.text is None else self.text.in_training)
        return default if said is None or (said == "unknown" and self.in_training is None) else said


class ReferenceSettings(Settings):
    """A model that stands for the process behind the text: a `revision` of the studied model, or another `model`.

    Of several checkpoints of another model the last one is the reference. It reads the same samples, so it needs the
    same tokenizer; it should not have been trained on the members.
    """

    name: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)] | None = None
    model: ModelSettings | None = None

    @model_validator(mode="after")
    def _one_model(self) -> "ReferenceSettings":
        if (self.revision is None) == (self.model is None):
            raise ValueError("exactly one of 'revision' and 'model' is needed")
        if self.model is not None and self.model.source == "series":
            raise ValueError("a reference is there before the run; give a 'revision' of the series, or another source")
        return self


class SampleSettings(Settings):
    """Samples of `prompt` + `continuation` tokens, at most `count` of each text, drawn by the seed.

    bos: one before each sample (`window`), or none; then the first token of a sample is not scored. Pythia's training
    rows begin without one, and so do the prompts of the published extraction: with none for both, as by default, the
    one pass that gives the bits tells what is extracted too. The windows of a series of ours were read after one: with
    `window` here and `extraction.bos` they are read as they were in training, in one pass as well.
    """

    prompt: Count = 32
    continuation: Count = 32
    count: Annotated[int, Field(ge=8)] = 1024
    seed: Annotated[int, Field(ge=0)] = 0
    bos: Literal["window", "none"] = "none"
    batch_rows: Count = 64

    @property
    def length(self) -> int:
        """Tokens of a sample."""
        return self.prompt + self.continuation


class FragilitySettings(Settings):
    """What a changed prompt does to what is extracted: each of `changes` tokens of it, on `count` members.

    The null is the same of never-trained rows, on `count` of them or as many as `extraction.score_count`, if fewer.
    """

    changes: Annotated[tuple[Count, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (1, 2, 4, 8)
    kind: str = "replace"
    count: Annotated[int, Field(ge=8)] = 256
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoints: Literal["last", "all"] = "last"


class ExtractionSettings(Settings):
    """k-extractable memorization, by the protocol of the published counts of Pythia unless said otherwise.

    Full matches of all samples come from the pass that gives their bits where `samples.bos` puts the same before a
    sample as `bos` here, as it does by default, and else from a pass of their own; `never` needs none.

    bos: put one before the prompt; the published counts have none. never: ids of tokens that are never emitted; the
    script behind the published counts never emits the end of text, which is `never: [0]` for Pythia.
    score_count: the share of tokens that match needs decoding; it is taken on so many samples of each text, 0 for none.
    """

    bos: bool = False
    never: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple)] = ()
    score_count: Annotated[int, Field(ge=0)] = 256
    batch_rows: Count = 64


class HeldOutSettings(Settings):
    """A text whose rate is measured in whole windows, as the study `coding` does."""

    text: CodedTextSettings
    rate: RateSettings = RateSettings(packing=True)


def as_held_out(value: Any) -> Any:
    """A text alone as the settings that hold it."""
    return {"text": value} if isinstance(value, dict) and "name" in value else value
