"""Tables of token ids, one text a row: read from files, or cut from the documents of a corpus.

A table is int64[n, length]; the ids are those of one tokenizer, and nothing here knows which. A `.npy` table stays on
disk but for the rows that are asked for, so that a table of a whole training set (Pythia's is 146,432,000 × 2,049) can
be sampled.
"""

import csv
import itertools
import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from infocomp.corpora.files import find_files, inner_suffix, open_bytes
from infocomp.corpora.tokens import TokenCorpus

COLUMNS = ("tokens", "input_ids")
_KINDS = (".npy", ".npz", ".parquet", ".jsonl", ".csv")
Wanted = int | Sequence[int] | np.ndarray | None


def read_token_table(path: str | Path, column: str | None = None, rows: Wanted = None) -> Int[np.ndarray, "n length"]:
    """Token ids from .npy, .npz, .parquet, .jsonl or .csv, the last two also as .gz or .zst.

    column: the array of an .npz, or the column of the others that holds a list of ids (in .csv as text, "[1, 2, 3]" or
        "1 2 3"); by default 'tokens' or 'input_ids', whichever is there. An .npz of one array, a .jsonl of plain lists
        and a .csv of one id a cell without a header need none.
    rows: how many of the first rows, or the numbers of the rows wanted, in that order; all by default.

    Raises ValueError for a file or column that is not there, another kind of file, cells that are no whole numbers of 0
    and more, rows of several lengths, rows that the table does not have, a table without rows, and one larger than the
    memory.
    """
    found = find_files([str(path)])
    if len(found) != 1:
        raise ValueError(f"'{path}' is {len(found)} files, and one token table is needed; name the file.")
    file, kind = found[0], inner_suffix(found[0])
    if kind not in _KINDS or (kind in _KINDS[:3] and file.suffix.lower() != kind):
        raise ValueError(f"'{file}' is no token table that can be read; give {', '.join(_KINDS)}.")
    wanted = _checked_wanted(rows)
    if kind in (".npy", ".npz"):
        table = _numpy(file, column, wanted)
    elif kind == ".parquet":
        table = _stacked(_of_parquet(file, column, wanted is None), wanted, file)
    else:
        table = _stacked(_of_json(file, column) if kind == ".jsonl" else _of_csv(file, column), wanted, file)
    if not table.size:
        raise ValueError(f"'{file}' holds no token: at least one row of tokens is needed.")
    if table.min() < 0:
        raise ValueError(f"'{file}' holds the token id {table.min()}; ids are 0 or more, so leave padding out.")
    return table


@dataclass(frozen=True)
class CorpusRows:
    """Rows of equal length, the document that each was cut from, and its first token's place in the corpus."""

    rows: Int[np.ndarray, "n length"]
    documents: Int[np.ndarray, "n"]
    starts: Int[np.ndarray, "n"]


def rows_of_corpus(corpus: TokenCorpus, length: int) -> CorpusRows:
    """Cut each document from its beginning into rows of `length` tokens; no row crosses a document, and what is left at
    its end is left out. Raises ValueError for a length below 1 and where no document is long enough.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1 token, got {length}; take more.")
    sizes = np.diff(corpus.document_starts)
    counts = sizes // length
    if not counts.any():
        raise ValueError(
            f"corpus {corpus.name!r} is too short: its longest document has {int(sizes.max(initial=0))} tokens, and "
            f"rows of {length} are to be cut; give it longer documents or take shorter rows."
        )
    documents = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = corpus.document_starts[:-1][documents] + within * length
    rows = np.asarray(corpus.tokens)[starts[:, None] + np.arange(length)].astype(np.int64)
    return CorpusRows(rows, documents, starts)


# which rows


def _checked_wanted(rows: Wanted) -> int | np.ndarray | None:
    if rows is None or isinstance(rows, int):
        if isinstance(rows, int) and rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}; leave it out for all rows.")
        return rows
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers) or numbers.min() < 0:
        raise ValueError("rows must be a number of rows, or a list of row numbers of 0 and more.")
    return numbers.astype(np.int64)


def _check_there(wanted: np.ndarray, n: int, file: Path) -> None:
    if wanted.max() >= n:
        raise ValueError(f"row {wanted.max()} of '{file}' is asked for, and it has {n} rows, counted from 0.")


def _check_fits(n: int, length: int, file: Path) -> None:
    """The rows as int64, against the memory of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8 * n * length > memory:
        raise ValueError(
            f"{n:,} rows of {length:,} tokens of '{file}' take {8 * n * length / 2**30:,.0f} GiB, and the machine has "
            f"{memory / 2**30:,.0f}; ask for fewer with rows."
        )


# kinds of files


def _numpy(file: Path, column: str | None, wanted: int | np.ndarray | None) -> Int[np.ndarray, "n length"]:
    try:
        table: Any = np.load(file, mmap_mode="r" if file.suffix.lower() == ".npy" else None, allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{file}' cannot be read as NumPy's {file.suffix} ({error}); save it again.") from error
    if isinstance(table, np.lib.npyio.NpzFile):
        with table as arrays:
            only = arrays.files[0] if column is None and len(arrays.files) == 1 else None
            table = arrays[only or _column(column, arrays.files, file)]
    if table.ndim != 2 or table.dtype.kind not in "iu":
        raise ValueError(
            f"'{file}' holds {table.dtype} of shape {table.shape}, and whole numbers [rows, tokens] are needed."
        )
    if isinstance(wanted, np.ndarray):
        _check_there(wanted, len(table), file)
    n = len(table) if wanted is None else min(wanted, len(table)) if isinstance(wanted, int) else len(wanted)
    _check_fits(n, table.shape[1], file)
    return np.array(table[wanted] if isinstance(wanted, np.ndarray) else table[:n], dtype=np.int64)


def _stacked(lists: Iterator[Any], wanted: int | np.ndarray | None, file: Path) -> Int[np.ndarray, "n length"]:
    """One row under the other; only as much is read as is asked for."""
    last = wanted if isinstance(wanted, int) else int(wanted.max()) + 1 if wanted is not None else None
    keep = set(wanted.tolist()) if isinstance(wanted, np.ndarray) else None
    kept: dict[int, np.ndarray] = {}
    length: int | None = None
    number = -1
    for number, ids in enumerate(itertools.islice(lists, last)):
        row = np.asarray(ids)
        if row.ndim != 1 or (row.dtype.kind not in "iu" and len(row)):
            raise ValueError(f"row {number} of '{file}' is no list of whole numbers; give token ids.")
        length = len(row) if length is None else length
        if len(row) != length:
            raise ValueError(
                f"row {number} of '{file}' has {len(row)} tokens, row 0 has {length}: rows of one length are needed; "
                "cut them, or leave out those that are shorter."
            )
        if keep is None or number in keep:
            kept[number] = row.astype(np.int64)
    if isinstance(wanted, np.ndarray):
        _check_there(wanted, number + 1, file)
    order = list(kept) if keep is None else np.asarray(wanted).tolist()
    return np.stack([kept[place] for place in order]) if order else np.zeros((0, 0), np.int64)


def _column(column: str | None, names: Sequence[str], file: Path) -> str:
    """The column asked for, or the one that goes by a usual name."""
    for name in COLUMNS if column is None else (column,):
        if name in names:
            return name
    asked = "'tokens' or 'input_ids'" if column is None else repr(column)
    raise ValueError(f"'{file}' has no {asked}; it has {', '.join(map(repr, names)) or 'nothing'}; name the column.")


def _of_parquet(file: Path, column: str | None, all_rows: bool) -> Iterator[np.ndarray]:
    import pyarrow
    import pyarrow.parquet
    from pyarrow import types
    from pyarrow.compute import call_function

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            name = _column(column, table.schema_arrow.names, file)
            kind = table.schema_arrow.field(name).type
            if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
                raise ValueError(f"column '{name}' of '{file}' holds {kind}; lists of token ids are needed.")
            for number, batch in enumerate(table.iter_batches(batch_size=4096, columns=[name])):
                cells: Any = batch.column(0)
                if cells.null_count:
                    raise ValueError(f"column '{name}' of '{file}' has empty cells; leave these rows out.")
                lengths = call_function("list_value_length", [cells]).to_numpy(zero_copy_only=False)
                if not len(lengths):
                    continue
                if number == 0 and all_rows:
                    _check_fits(table.metadata.num_rows, int(lengths[0]), file)
                yield from np.split(cells.flatten().to_numpy(zero_copy_only=False), np.cumsum(lengths)[:-1])
    except pyarrow.ArrowException as error:
        raise ValueError(f"'{file}' is no sound Parquet file ({error}); fetch it again.") from error


def _of_json(file: Path, column: str | None) -> Iterator[Sequence[int]]:
    with open_bytes(file) as stream:
        for number, line in enumerate(stream):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number + 1} of '{file}' is not JSON: {error}.") from error
            cell = record if isinstance(record, list) else None
            if isinstance(record, dict):
                cell = record[_column(column, list(record), file)]
            if not isinstance(cell, list):
                raise ValueError(f"line {number + 1} of '{file}' holds no list of token ids; give one a line.")
            yield cell


def _of_csv(file: Path, column: str | None) -> Iterator[Sequence[int]]:
    with open_bytes(file) as stream:
        lines = csv.reader(line.decode("utf-8-sig" if not number else "utf-8") for number, line in enumerate(stream))
        header = next(lines, None)
        if header is None:
            return
        if column is None and all(re.fullmatch(r"\s*\d+\s*", cell) for cell in header):
            yield from (_ids(cells, file, lines.line_num) for cells in itertools.chain([header], lines) if cells)
            return
        place = header.index(_column(column, header, file))
        for cells in lines:
            if cells:
                text = cells[place] if place < len(cells) else ""
                yield _ids(text.strip().strip("[]").replace(",", " ").split(), file, lines.line_num)


def _ids(cells: Sequence[str], file: Path, line: int) -> list[int]:
    try:
        return [int(cell) for cell in cells]
    except ValueError as error:
        raise ValueError(f"line {line} of '{file}' holds something other than whole numbers: {error}.") from error
