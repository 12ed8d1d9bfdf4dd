"""One Parquet file whose footer says whose it is and proves that its cells are those that were written.

A file is written under a temporary name in its own folder, synced and renamed, so that a kill at any moment leaves
either the old file or the new one. The footer names the unit, its state, and a hash over the cells: Parquet's own page
checksums miss damage to a page header (about 3 % of the single bytes tried).
"""

import hashlib
import io
import json
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
INFLUENCE_KEY = ("site", "rows", "estimator", "quantity", "label", "weighting", "corpus")
INFLUENCE_VALUES = ("value", "point", "lower", "upper")
INFLUENCE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in INFLUENCE_KEY),
        ("group", pa.int32()),
        *((name, pa.float32()) for name in INFLUENCE_VALUES),
    ],
    metadata=SCHEMA.metadata,
)
BESIDE = {"documents": DOCUMENT_SCHEMA, "influence": INFLUENCE_SCHEMA}  # tables that may lie beside a unit's rows
_UNIT, _STATE, _CONTENT, _BESIDE = (f"infocomp.{name}".encode() for name in ("unit", "state", "content", "beside"))


class StorageError(OSError):
    """A file of the run could not be written: one sentence, and nothing half written is left."""


@dataclass(frozen=True)
class Part:
    """A part that was read back: its state ("done" or "failed"), its rows, the row counts of the tables beside it."""

    state: str
    rows: pa.Table
    beside: Mapping[str, int]


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


def write_part(
    path: Path, table: pa.Table, unit: str, state: str = "done", beside: Mapping[str, int] | None = None
) -> None:
    """Write a table with the unit's name, state and content hash in its footer. StorageError as `replacing`."""
    counts = json.dumps(dict(beside or {}), sort_keys=True)
    footer = {
        **(table.schema.metadata or {}),
        _UNIT: unit.encode(),
        _STATE: state.encode(),
        _BESIDE: counts.encode(),
        _CONTENT: _content_hash(table, unit, state, counts),
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
        state, counts = footer[_STATE].decode(), footer[_BESIDE].decode()
        beside = json.loads(counts)
        version, named = footer[VERSION_FIELD].decode(), footer[_UNIT].decode()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__})") from error
    if version != str(SCHEMA_VERSION) or not table.schema.equals(schema):
        raise ValueError(f"{path} has table version {version}, this infocomp writes version {SCHEMA_VERSION}")
    if named != unit:
        raise ValueError(f"{path} holds unit {named}, not {unit}")
    if _content_hash(table, unit, state, counts) != footer[_CONTENT]:
        raise ValueError(f"{path} is damaged (its cells are not those that were written)")
    return Part(state, table.replace_schema_metadata(schema.metadata), beside)


def _content_hash(table: pa.Table, unit: str, state: str, beside: str) -> bytes:
    """Hash of the cells as CSV, which tells an empty cell from empty text, and of what the footer says about them."""
    buffer = io.BytesIO(f"{unit} {state} {beside}\n".encode())
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


def influence_to_table(measured: Iterable[tuple[Mapping[str, str], Mapping[str, Any]]]) -> pa.Table:
    """Influence of groups of documents as Arrow: for each key (site, rows, …) one value a group for value, point, ends.

    `measured` gives the key's columns and arrays of equal length, in the unit of the rows they belong to; what is
    missing stays empty. KeyError: an unknown column.
    """
    columns: dict[str, list[Any]] = {name: [] for name in INFLUENCE_SCHEMA.names}
    for key, arrays in measured:
        unknown = (set(key) - set(INFLUENCE_KEY)) | (set(arrays) - set(INFLUENCE_VALUES))
        if unknown:
            raise KeyError(f"influence has no column {', '.join(sorted(unknown))}; it has {', '.join(columns)}")
        length = len(next(iter(arrays.values())))
        for name in INFLUENCE_KEY:
            columns[name].append(pa.repeat(pa.scalar(key.get(name, ""), pa.string()), length))
        columns["group"].append(pa.array(range(length), pa.int32()))
        for name in INFLUENCE_VALUES:
            given = arrays.get(name)
            columns[name].append(pa.nulls(length, pa.float32()) if given is None else pa.array(given, pa.float32()))
    joined = [pa.chunked_array(parts, INFLUENCE_SCHEMA.field(name).type) for name, parts in columns.items()]
    return pa.table(joined, schema=INFLUENCE_SCHEMA)
