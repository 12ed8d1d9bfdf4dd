"""What a configuration says about a text: where it lies, how it becomes documents, where it is cut.

No text is touched here; `infocomp.corpora.documents.read_documents` reads what these settings name.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _as_tuple(value: object) -> object:
    """A list as a tuple, so that frozen settings hold nothing that can change; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


_Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple), Field(min_length=1)]
_NameOrNames = Annotated[str, Field(min_length=1)] | _Names


class DatasetSettings(BaseModel):
    """A Hugging Face data set, or one of its builders ("json", "parquet", "text", "csv") over `data_files`.

    With `streaming` (the default) only the rows that are used are fetched; without it the split is downloaded to the
    cache of `datasets` and later runs need no network. `first` counts rows before empty documents are dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1)]
    config: str | None = None
    split: Annotated[str, Field(min_length=1)] = "train"
    column: Annotated[str, Field(min_length=1)] = "text"
    revision: str | None = None
    data_files: _NameOrNames | dict[str, _NameOrNames] | None = None
    streaming: bool = True
    first: Annotated[int, Field(ge=1)] | None = None


class TextSettings(BaseModel):
    """One text: exactly one of `files`, `dataset` and `texts`.

    files: a path, glob or folder, or a list of them, relative to the current folder. The ending decides what a file
        is: .jsonl, .ndjson and .json are JSON lines, .parquet is Parquet, everything else is plain UTF-8 text; each may
        also end in .gz or .zst. Of a folder every file is read, at any depth, without hidden ones and __pycache__.
    column: where JSON lines and Parquet keep the text.
    split: how a plain text file becomes documents. The documents put together are the file, newlines included: `lines`
        end with their newline, `blank_lines` makes paragraphs that end with the blank lines after them.
    max_documents, max_bytes: reading stops there. `max_bytes` counts UTF-8 bytes of the documents kept and cuts the
        last document, at the last whole character that fits, so that one long file can be cut too.
    in_training: whether the model has been trained on this text; a column of the table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: _NameOrNames | None = None
    dataset: DatasetSettings | None = None
    texts: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    column: Annotated[str, Field(min_length=1)] = "text"
    split: Literal["file", "blank_lines", "lines"] = "file"
    max_documents: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    in_training: Literal["known", "likely", "unknown", "no"] = "unknown"

    @model_validator(mode="after")
    def _one_source(self) -> "TextSettings":
        given = [name for name in ("files", "dataset", "texts") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(map(repr, given))} are" if given else "none is"
            raise ValueError(f"exactly one of 'files', 'dataset' and 'texts' is needed, and {found} given")
        if self.files is None and self.column != "text":
            remedy = "write it inside 'dataset'" if self.dataset else "leave it out"
            raise ValueError(
                f"'column' names a column of 'files', and is {self.column!r} beside {given[0]!r}; {remedy}"
            )
        if self.files is None and self.split != "file":
            remedy = "write a split of the data set inside 'dataset'" if self.dataset else "leave it out"
            raise ValueError(f"'split' cuts plain text 'files', and is {self.split!r} beside {given[0]!r}; {remedy}")
        return self
