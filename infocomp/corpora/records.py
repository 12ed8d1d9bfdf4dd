"""Records with columns, read as a stream: JSON lines, Parquet (each also .gz and .zst), Hugging Face data sets.

A record is a dictionary and the place it comes from: `path:line`, `path:row` or `data set/split:row`. Text is UTF-8,
decoded strictly. What cannot be read so is a ValueError of one sentence that names the place.
"""

import codecs
import json
import shutil
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from infocomp.corpora.files import inner_suffix, is_compressed, open_bytes
from infocomp.corpora.settings import DatasetSettings

JSON_LINES = (".jsonl", ".ndjson", ".json")
Record = tuple[str, dict[str, Any]]
Records = Generator[Record, None, None]


def has_columns(path: Path) -> bool:
    """Whether the name says that the file holds records: JSON lines or Parquet."""
    return inner_suffix(path) in (*JSON_LINES, ".parquet")


def file_records(path: Path, columns: Sequence[str] | None, needed: str) -> Records:
    """The records of a JSON lines or Parquet file; of Parquet, `columns` alone are read, or all where it is None.

    `needed` is what an error says of a record ("the column 'text'"). ValueError for what cannot be read.
    """
    if inner_suffix(path) == ".parquet":
        return _parquet_records(path, columns)
    return _json_lines_records(path, needed)


def _json_lines_records(path: Path, needed: str) -> Records:
    with open_bytes(path) as stream:
        offset = 0
        for number, line in enumerate(stream, 1):
            place = f"{path}:{number}"
            text = decode(line, path, offset)
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
                    f"'{place}' holds {kind_of_value(record)}, and an object with {needed} is needed; "
                    f"JSON lines hold one object a line."
                )
            yield place, record


def _parquet_records(path: Path, columns: Sequence[str] | None) -> Records:
    import pyarrow
    import pyarrow.parquet

    with open_bytes(path) as stream, tempfile.TemporaryFile() as unpacked:
        if is_compressed(path):  # Parquet begins at its end, so a packed file is unpacked beside the memory first
            shutil.copyfileobj(stream, unpacked)
            stream = unpacked
        try:
            table = pyarrow.parquet.ParquetFile(stream)
            there = table.schema_arrow.names
            for column in columns or ():
                if column not in there:
                    raise ValueError(no_column(str(path), column, there))
            number = 0
            for batch in table.iter_batches(batch_size=256, columns=None if columns is None else list(columns)):
                names = batch.schema.names
                for cells in zip(*(batch.column(name) for name in names), strict=True):
                    number += 1
                    yield f"{path}:{number}", {name: cell.as_py() for name, cell in zip(names, cells, strict=True)}
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"'{path}' is not sound Parquet ({first_line(error)}); fetch it again.") from error


def dataset_records(settings: DatasetSettings, columns: Sequence[str] | None) -> Records:
    """The rows of a data set, with `columns` alone where it has them all (everything where it is None)."""
    import datasets

    name = dataset_name(settings)
    data_files: Any = settings.data_files
    if isinstance(data_files, dict):
        data_files = {split: list(as_names(names)) for split, names in data_files.items()}
    elif data_files is not None:
        data_files = list(as_names(data_files))
    try:
        table: Any = datasets.load_dataset(
            settings.name,
            settings.config,
            split=settings.split,
            revision=settings.revision,
            data_files=data_files,
            streaming=settings.streaming,
        )
        if columns is not None and table.column_names is not None and set(columns) <= set(table.column_names):
            table = table.select_columns(list(columns))
        rows = iter(table if settings.first is None else table.take(settings.first))
    except Exception as error:  # whatever the network, the hub or a builder may raise
        raise ValueError(f"dataset '{name}' cannot be opened: {first_line(error)}.") from error
    number = 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise ValueError(f"dataset '{name}' cannot be read at row {number:,}: {first_line(error)}.") from error
        yield f"{name}:{number}", row


def dataset_name(settings: DatasetSettings) -> str:
    """Name, configuration and split of a data set, as errors and documents name it."""
    return "/".join(filter(None, (settings.name, settings.config, settings.split)))


def as_names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name or several, as several."""
    return (names,) if isinstance(names, str) else names


def decode(data: bytes, path: Path, offset: int = 0, complete: bool = True) -> str:
    """Strict UTF-8; the error names the byte counted from the start of the (unpacked) file."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=complete)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"'{path}' is not UTF-8: {error.reason} at byte {offset + error.start:,} (0x{data[error.start]:02x}); "
            f"convert it to UTF-8, or leave the file out."
        ) from error


def cell(record: dict[str, Any], column: str, place: str) -> Any:
    """A record's value in a column; a column that is not there is a ValueError with those that are."""
    if column not in record:
        raise ValueError(no_column(place, column, list(record)))
    return record[column]


def no_column(place: str, column: str, columns: list[str]) -> str:
    """The sentence for a column that is missing."""
    there = ", ".join(map(repr, columns)) or "none"
    return f"'{place}' has no column '{column}'; its columns are {there}."


def text_of(value: Any, place: str, what: str) -> str:
    """The value as text: nothing is empty text; what is no string, or cannot be written as UTF-8, is a ValueError."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{what} of '{place}' holds {kind_of_value(value)}, and text is needed; name another column.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} of '{place}' holds half of a surrogate pair at character {error.start:,}, which UTF-8 cannot "
            f"write; mend the record or leave it out."
        ) from error
    return value


def kind_of_value(value: Any) -> str:
    """What a value is, in words."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
