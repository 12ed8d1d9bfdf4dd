"""One Parquet file whose footer says whose it is and proves that its cells are those that were written.

A file is written under a temporary name in its own folder, synced and renamed, so that a kill at any moment leaves
either the old file or the new one. The footer names the unit, its state, and a hash over the cells: Parquet's own page
checksums miss damage to a page header (about 3 % of the single bytes tried).
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from infocomp.execution.table import SCHEMA, SCHEMA_VERSION, VERSION_FIELD

DOCUMENT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("model", "revision", "corpus", "document")),
        *((name, pa.int64()) for name in ("n_tokens", "n_bytes")),
        ("bits", pa.float64()),
    ],
    metadata=SCHEMA.metadata,
)
_UNIT, _STATE, _CONTENT, _DOCUMENTS = (
    f"infocomp.{name}".encode() for name in ("unit", "state", "content", "documents")
)


class StorageError(OSError):
    """A file of the run could not be written: one sentence, and nothing half written is left."""


@dataclass(frozen=True)
class Part:
    """A part that was read back: its state ("done" or "failed"), its rows, how many documents belong to it."""

    state: str
    rows: pa.Table
    n_documents: int


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path`, synced, when the block ends, and leaves nothing when it fails.

    StorageError: it could not be written, with the reason (no space left, no permission).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise StorageError(error.errno, f"cannot write {path} ({error.strerror or error})") from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # a file system that cannot sync a folder has renamed all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_part(path: Path, table: pa.Table, unit: str, state: str = "done", n_documents: int = 0) -> None:
    """Write a table with the unit's name, state and content hash in its footer. StorageError as `replacing`."""
    footer = {
        **(table.schema.metadata or {}),
        _UNIT: unit.encode(),
        _STATE: state.encode(),
        _DOCUMENTS: str(n_documents).encode(),
        _CONTENT: _content_hash(table, unit, state, n_documents),
    }
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(footer), buffer, compression="zstd")
    with replacing(path) as file:
        file.write(buffer.getbuffer())


def read_part(path: Path, unit: str, schema: pa.Schema = SCHEMA) -> Part:
    """Read a part back. FileNotFoundError: there is none. ValueError: what is wrong with it (damaged, another's)."""
    data = path.read_bytes()
    try:
        table = pq.read_table(io.BytesIO(data))
        footer = table.schema.metadata or {}
        state, n_documents = footer[_STATE].decode(), int(footer[_DOCUMENTS])
        version, named = footer[VERSION_FIELD].decode(), footer[_UNIT].decode()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from error
    if version != str(SCHEMA_VERSION) or not table.schema.equals(schema):
        raise ValueError(f"{path} has table version {version}, this infocomp writes version {SCHEMA_VERSION}")
    if named != unit:
        raise ValueError(f"{path} holds unit {named}, not {unit}")
    if _content_hash(table, unit, state, n_documents) != footer[_CONTENT]:
        raise ValueError(f"{path} is damaged (its cells are not those that were written)")
    return Part(state, table.replace_schema_metadata(schema.metadata), n_documents)


def _content_hash(table: pa.Table, unit: str, state: str, n_documents: int) -> bytes:
    """Hash of the cells as CSV, which tells an empty cell from empty text, and of what the footer says about them."""
    buffer = io.BytesIO(f"{unit} {state} {n_documents}\n".encode())
    buffer.seek(0, io.SEEK_END)
    arrow_csv.write_csv(table, buffer)
    return hashlib.sha256(buffer.getbuffer()).hexdigest().encode()


def documents_to_table(documents: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Per-document code lengths (bits) as Arrow: model, revision, corpus, document, n_tokens, n_bytes, bits.

    KeyError: a missing or unknown column. TypeError: a wrong type. ValueError: bits that are not finite.
    """
    listed = list(documents)
    columns = DOCUMENT_SCHEMA.names
    for values in listed:
        if values.keys() != set(columns):
            wrong = ", ".join(sorted(values.keys() ^ set(columns)))
            raise KeyError(f"a document has the columns {', '.join(columns)}; missing or unknown: {wrong}")
        if not isfinite(values["bits"]):
            raise ValueError(f"document {values['document']!r} has {values['bits']} bits; a code length is finite")
    try:
        return pa.Table.from_pylist(listed, schema=DOCUMENT_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TypeError(f"a document's columns hold a wrong type ({error})") from None
