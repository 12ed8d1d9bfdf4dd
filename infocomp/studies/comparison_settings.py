"""What the configuration of a comparison says: base, tuned models, data sets, and which measures are taken."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from infocomp.corpora.pairs import PairSettings
from infocomp.corpora.settings import TextSettings
from infocomp.studies.settings import CorpusSettings, ModelSettings, Names, Settings, as_tuple


class ComparedModel(ModelSettings):
    """A model of the comparison: one checkpoint, or all of a folder or of a repository's revisions."""

    @model_validator(mode="after")
    def _made_elsewhere(self) -> "ComparedModel":
        if self.source == "series":
            raise ValueError(
                "source 'series' is a model that a run trains itself, and a comparison reads models that are there; "
                "give the folder of its checkpoints (source: folder or single)"
            )
        return self


class ComparedData(Settings):
    """One data set, read by every model.

    text: documents. chat: JSON lines with `messages`, rendered by the chat template. preference: `pairs` of a prompt, a
    chosen and a rejected completion; of each completion at most `completion_tokens` are read, and the prompt's end.
    Other settings are those of a corpus of the information plane.
    """

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["text", "chat", "preference"] = "text"
    builtin: Literal["held_out", "training"] | None = None
    text: TextSettings | None = None
    pairs: PairSettings | None = None
    completion_tokens: Annotated[int, Field(ge=2)] = 256
    context_length: Annotated[int, Field(ge=4)] = 512
    bos: Literal["none", "document", "window"] = "none"
    skip_first: Annotated[int, Field(ge=0)] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    document_tokens: Annotated[int, Field(ge=1)] | None = None
    in_training: Literal["known", "likely", "unknown", "no"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "ComparedData":
        allowed = {"text": ("builtin", "text"), "chat": ("text",), "preference": ("pairs",)}[self.kind]
        given = [name for name in ("builtin", "text", "pairs") if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in allowed:
            raise ValueError(
                f"data of kind {self.kind!r} needs exactly {' or '.join(map(repr, allowed))}, and "
                f"{' and '.join(map(repr, given)) or 'none'} is given"
            )
        if self.kind == "chat" and (self.text is None or self.text.files is None):
            raise ValueError("data of kind 'chat' are read from 'text.files': JSON lines or Parquet with 'messages'")
        return self

    def corpus(self) -> CorpusSettings:
        """These settings as those of a corpus; a preference data set is cut into windows by its own rule."""
        text = self.text if self.builtin is None else None
        if self.kind == "preference":
            text = TextSettings(texts=("pairs",))
        return CorpusSettings(
            name=self.name,
            builtin=self.builtin,
            text=text,
            context_length=self.context_length,
            bos=self.bos,
            skip_first=self.skip_first,
            max_tokens=self.max_tokens,
            document_tokens=self.document_tokens,
            in_training=self.in_training or "unknown",
        )


class SpectraSettings(Settings):
    """`sample` seeded rows, the same in every model, carry the intervals and the common n; α-ReQ is fitted from
    `rank_from` to `rank_to`; `growth` follows effective ranks over n."""

    sample: Annotated[int, Field(ge=64)] = 4096
    rank_from: Annotated[int, Field(ge=1)] = 12
    rank_to: Annotated[int, Field(ge=3)] = 100
    growth: bool = True
    intrinsic_dimension: bool = True


class PreferenceSettings(Settings):
    """Of data of kind preference: label flips of the null, the linear probe, `control` draws of random weights."""

    flips: Annotated[int, Field(ge=20)] = 500
    probe: bool = True
    folds: Annotated[int, Field(ge=2)] = 5
    control: Annotated[int, Field(ge=0)] = 5


class SimilaritySettings(Settings):
    """Base and tuned side by side: streaming CKA between equal layers, maps between all layers on `sample` seeded rows.

    `neighbours` of the mutual nearest neighbours; `items` of the representational similarity; `words`: that many of
    the most frequent tokens are followed, with `word_neighbours` neighbours each, at `word_sites`.
    """

    sample: Annotated[int, Field(ge=64)] = 2048
    neighbours: Annotated[int, Field(ge=1)] = 10
    items: Annotated[int, Field(ge=8)] = 256
    words: Annotated[int, Field(ge=0)] = 512
    word_neighbours: Annotated[int, Field(ge=1)] = 10
    word_sites: Names | None = None


class ShepardSettings(Settings):
    """Confusion of next-token distributions against distance, on `items` seeded positions of each data set."""

    items: Annotated[int, Field(ge=16)] = 192


Template = Literal["auto", "plain", "tuned"]
ComparedModels = Annotated[tuple[ComparedModel, ...], BeforeValidator(as_tuple), Field(min_length=1)]
ComparedDataSets = Annotated[tuple[ComparedData, ...], BeforeValidator(as_tuple), Field(min_length=1)]
