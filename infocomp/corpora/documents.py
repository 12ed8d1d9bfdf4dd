"""Text as documents: plain files, JSON lines, Parquet (each also .gz and .zst), Hugging Face data sets, strings.

Everything is read as a stream, so that the first hundred documents of a large compressed file cost no more than
themselves. Text is UTF-8, decoded strictly, and kept character for character: no newline is translated, no byte is
replaced, a byte order mark stays. What cannot be read so is a ValueError of one sentence that names the place.
"""

import codecs
import json
import logging
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from infocomp.corpora.files import find_files, inner_suffix, is_compressed, open_bytes
from infocomp.corpora.settings import DatasetSettings, TextSettings

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_LONGEST_CHARACTER = 4  # bytes of UTF-8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Document:
    """One text and where it comes from: a path, `path:line`, `path:row`, `data set/split:row` or `texts:number`."""

    name: str
    text: str


def read_documents(settings: TextSettings) -> list[Document]:
    """The documents that the settings name, in order: at most `max_documents`, together at most `max_bytes` of UTF-8.

    Documents of white space alone are dropped and their number is logged as a warning. The document that crosses
    `max_bytes` is cut there, at a whole character. ValueError for what cannot be read and where no document is left.
    """
    documents: list[Document] = []
    empty = 0
    bytes_left = settings.max_bytes
    with closing(_documents(settings)) as source:
        for document in source:
            if not document.text.strip():
                empty += 1
                continue
            if bytes_left is not None:
                document, bytes_left = _cut(document, bytes_left)
            if document.text.strip():
                documents.append(document)
            if bytes_left == 0 or len(documents) == settings.max_documents:
                break
    where = _where(settings)
    if not documents and bytes_left == 0:
        raise ValueError(f"max_bytes = {settings.max_bytes} leaves nothing of the first document of {where}; raise it.")
    if not documents:
        found = f"{empty:,} were found, all of them empty" if empty else "none was found"
        raise ValueError(f"{where}: at least one document with text is needed, and {found}.")
    if empty:
        _log.warning("%s: %s empty documents dropped, %s kept.", where, f"{empty:,}", f"{len(documents):,}")
    return documents


def _where(settings: TextSettings) -> str:
    if settings.files is not None:
        names = _as_names(settings.files)
        return f"files {', '.join(map(repr, names[:3]))}{' …' if len(names) > 3 else ''}"
    return f"dataset {_dataset_name(settings.dataset)!r}" if settings.dataset is not None else "texts"


def _as_names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _documents(settings: TextSettings) -> Generator[Document, None, None]:
    """All documents, the empty ones too."""
    if settings.files is not None:
        paths = find_files(_as_names(settings.files))
        if settings.column != "text" and not any(inner_suffix(path) in (*_JSON_LINES, ".parquet") for path in paths):
            raise ValueError(
                f"column '{settings.column}' is asked for, and none of the files ({paths[0].name}, …) is JSON lines or "
                f"Parquet; leave 'column' out, or read other tables through 'dataset' (name: csv)."
            )
        for path in paths:
            suffix = inner_suffix(path)
            if suffix in _JSON_LINES:
                yield from _json_lines_documents(path, settings.column)
            elif suffix == ".parquet":
                yield from _parquet_documents(path, settings.column)
            else:
                yield from _plain_documents(path, settings)
    elif settings.dataset is not None:
        yield from _dataset_documents(settings.dataset)
    else:
        for number, text in enumerate(settings.texts or (), 1):
            yield Document(f"texts:{number}", _text(text, f"texts:{number}", "the string"))


def _cut(document: Document, bytes_left: int) -> tuple[Document, int]:
    """The document, cut at the last whole character within `bytes_left`, and the bytes that are left after it."""
    encoded = document.text.encode()
    if len(encoded) <= bytes_left:
        return document, bytes_left - len(encoded)
    return Document(document.name, encoded[:bytes_left].decode(errors="ignore")), 0


# plain text


def _plain_documents(path: Path, settings: TextSettings) -> Iterator[Document]:
    with open_bytes(path) as stream:
        if settings.split == "file":
            yield Document(str(path), _whole_text(stream, path, settings.max_bytes))
            return
        offset, number = 0, 1  # first byte and first line of the piece
        for piece in stream if settings.split == "lines" else _paragraphs(stream):
            yield Document(f"{path}:{number}", _decode(piece, path, offset))
            offset += len(piece)
            number += piece.count(b"\n")


def _paragraphs(stream: BinaryIO) -> Iterator[bytes]:
    """The file in pieces that each end with their blank lines; blank lines at its start belong to the first piece."""
    lines: list[bytes] = []
    has_text = False
    for line in stream:
        blank = not line.strip()
        if has_text and not blank and not lines[-1].strip():
            yield b"".join(lines)
            lines, has_text = [], False
        lines.append(line)
        has_text = has_text or not blank
    if lines:
        yield b"".join(lines)


def _whole_text(stream: BinaryIO, path: Path, max_bytes: int | None) -> str:
    """A file's text, or so much of it that no more than `max_bytes` can be used."""
    if max_bytes is None:
        return _decode(stream.read(), path)
    data = stream.read(max_bytes + _LONGEST_CHARACTER)
    return _decode(data, path, complete=len(data) < max_bytes + _LONGEST_CHARACTER)


def _decode(data: bytes, path: Path, offset: int = 0, complete: bool = True) -> str:
    """Strict UTF-8; the error names the byte counted from the start of the (unpacked) file."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=complete)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is not UTF-8: {error.reason} at byte {offset + error.start:,} (0x{data[error.start]:02x}); "
            f"convert it to UTF-8, or leave the file out."
        ) from error


# records with a column


def _json_lines_documents(path: Path, column: str) -> Iterator[Document]:
    with open_bytes(path) as stream:
        offset = 0
        for number, line in enumerate(stream, 1):
            place = f"{path}:{number}"
            text = _decode(line, path, offset)
            offset += len(line)
            if number == 1:
                text = text.removeprefix("\ufeff")
            if not text.strip():
                continue
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"'{place}' is not JSON: {error}; JSON lines hold one object a line.") from error
            if not isinstance(record, dict):
                raise ValueError(
                    f"'{place}' holds {_kind(record)}, and an object with the column '{column}' is needed; "
                    f"JSON lines hold one object a line."
                )
            yield Document(place, _cell(record, column, place))


def _parquet_documents(path: Path, column: str) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    with open_bytes(path) as stream, tempfile.TemporaryFile() as unpacked:
        if is_compressed(path):  # Parquet begins at its end, so a packed file is unpacked beside the memory first
            shutil.copyfileobj(stream, unpacked)
            stream = unpacked
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            if column not in table.schema_arrow.names:
                raise ValueError(_no_column(str(path), column, table.schema_arrow.names))
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=[column]):
                for cell in batch.column(0):
                    number += 1
                    yield Document(f"{path}:{number}", _text(cell.as_py(), f"{path}:{number}", f"column '{column}'"))
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"'{path}' is not sound Parquet ({_first_line(error)}); fetch it again.") from error


def _dataset_documents(settings: DatasetSettings) -> Iterator[Document]:
    import datasets

    name = _dataset_name(settings)
    data_files: Any = settings.data_files
    if isinstance(data_files, dict):
        data_files = {split: list(_as_names(names)) for split, names in data_files.items()}
    elif data_files is not None:
        data_files = list(_as_names(data_files))
    try:
        table: Any = datasets.load_dataset(
            settings.name,
            settings.config,
            split=settings.split,
            revision=settings.revision,
            data_files=data_files,
            streaming=settings.streaming,
        )
        if table.column_names is not None and settings.column in table.column_names:
            table = table.select_columns([settings.column])
        rows = iter(table if settings.first is None else table.take(settings.first))
    except Exception as error:  # whatever the network, the hub or a builder may raise
        raise ValueError(f"dataset '{name}' cannot be opened: {_first_line(error)}.") from error
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise ValueError(f"dataset '{name}' cannot be read at row {number:,}: {_first_line(error)}.") from error
        yield Document(f"{name}:{number}", _cell(row, settings.column, f"{name}:{number}"))


def _dataset_name(settings: DatasetSettings) -> str:
    return "/".join(filter(None, (settings.name, settings.config, settings.split)))


def _cell(record: dict[str, Any], column: str, place: str) -> str:
    if column not in record:
        raise ValueError(_no_column(place, column, list(record)))
    return _text(record[column], place, f"column '{column}'")


def _no_column(place: str, column: str, columns: list[str]) -> str:
    there = ", ".join(map(repr, columns)) or "none"
    return f"'{place}' has no column '{column}'; its columns are {there}."


def _text(value: Any, place: str, what: str) -> str:
    """The value as text: nothing is empty text; what is no string, or cannot be written as UTF-8, is a ValueError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{what} of '{place}' holds {_kind(value)}, and text is needed; name another column.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} of '{place}' holds half of a surrogate pair at character {error.start:,}, which UTF-8 cannot "
            f"write; mend the record or leave it out."
        ) from error
    return value


def _kind(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
