"""Text as documents: plain files, JSON lines, Parquet (each also .gz and .zst), Hugging Face data sets, strings.

Everything is read as a stream, so that the first hundred documents of a large compressed file cost no more than
themselves. Text is UTF-8, decoded strictly, and kept character for character: no newline is translated, no byte is
replaced, a byte order mark stays. What cannot be read so is a ValueError of one sentence that names the place.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from infocomp.corpora.files import find_files, open_bytes
from infocomp.corpora.records import (
    Record,
    as_names,
    cell,
    dataset_name,
    dataset_records,
    decode,
    file_records,
    has_columns,
    text_of,
)
from infocomp.corpora.settings import TextSettings

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
        names = as_names(settings.files)
        return f"files {', '.join(map(repr, names[:3]))}{' …' if len(names) > 3 else ''}"
    return f"dataset {dataset_name(settings.dataset)!r}" if settings.dataset is not None else "texts"


def _documents(settings: TextSettings) -> Generator[Document, None, None]:
    """All documents, the empty ones too."""
    if settings.files is not None:
        paths = find_files(as_names(settings.files))
        if settings.column != "text" and not any(map(has_columns, paths)):
            raise ValueError(
                f"column '{settings.column}' is asked for, and none of the files ({paths[0].name}, …) is JSON lines or "
                f"Parquet; leave 'column' out, or read other tables through 'dataset' (name: csv)."
            )
        for path in paths:
            if has_columns(path):
                records = file_records(path, [settings.column], f"the column '{settings.column}'")
                yield from _of_column(records, settings.column)
            else:
                yield from _plain_documents(path, settings)
    elif settings.dataset is not None:
        yield from _of_column(dataset_records(settings.dataset, [settings.dataset.column]), settings.dataset.column)
    else:
        for number, text in enumerate(settings.texts or (), 1):
            yield Document(f"texts:{number}", text_of(text, f"texts:{number}", "the string"))


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
            yield Document(f"{path}:{number}", decode(piece, path, offset))
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
        return decode(stream.read(), path)
    data = stream.read(max_bytes + _LONGEST_CHARACTER)
    return decode(data, path, complete=len(data) < max_bytes + _LONGEST_CHARACTER)


# records with a column


def _of_column(records: Iterator[Record], column: str) -> Iterator[Document]:
    for place, record in records:
        yield Document(place, text_of(cell(record, column, place), place, f"column '{column}'"))
