"""The table: one row per number, a unique key for each row, every information in bits.

A row carries its key (which model, text, site, quantity, variant), attributes of that key, the value with its nulls,
ceiling and intervals, and how it came about. A failure is a row too. An empty cell (None) means "not computed" and
never 0; in the key's text columns the empty cell is "". The schema is versioned, and another version is not read.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2
VERSION_FIELD = b"infocomp.schema_version"
RESULTS = "results.parquet"

STATUSES = ("ok", "failed", "refused", "undetermined")
IN_TRAINING = ("known", "likely", "unknown", "no")

_TYPES: dict[str, pa.DataType] = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "flag": pa.bool_()}


def _fields(kind: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


_KEY = _fields("text", "model revision corpus site quantity label rows weighting estimator draw") | {"seed": "whole"}
_ATTRIBUTES = {"stage": "text"} | _fields("whole", "step tokens_seen layer order") | {"settings": "text"}
_VALUES = (
    {"value": "real", "unit": "text"}
    | _fields("real", "efficiency null null_rows ceiling std_error point point_error")
    | _fields("real", "lower lower_error upper upper_error ci_low ci_high draw_std")
    | _fields("whole", "n_tokens n_documents n_labels")
    | {"singleton_mass": "real"}
    | _fields("text", "dtype fingerprint duplicate_of")
    | {"seconds": "real"}
    | _fields("text", "status message")
)
_MORE = (
    _fields("text", "attention bos")
    | {"packing": "flag", "in_training": "text", "context_length": "whole", "centre_shift": "real"}
    | _fields("text", "commit unit_name")
    | {"schema_version": "whole", "date": "text"}
)
_KINDS = _KEY | _ATTRIBUTES | _VALUES | _MORE

KEY = tuple(_KEY)
ATTRIBUTES = tuple(_ATTRIBUTES)
VALUES = tuple(_VALUES)
MORE = tuple(_MORE)
COLUMNS = tuple(_KINDS)
VOLATILE = ("seconds", "date")  # all that two equal runs may differ in
SCHEMA = pa.schema(
    [(name, _TYPES[kind]) for name, kind in _KINDS.items()],
    metadata={VERSION_FIELD: str(SCHEMA_VERSION).encode()},
)

_EMPTY = {name: "" if name in KEY and kind == "text" else None for name, kind in _KINDS.items()}


def row(**values: Any) -> dict[str, Any]:
    """One row with every column in order, checked: names, types, and that nothing stands for an empty cell but None.

    `settings` may be a mapping or JSON text and is stored as canonical JSON. NumPy scalars and tensors without
    dimensions become plain numbers. KeyError: an unknown column. TypeError: a wrong type. ValueError: NaN or infinity
    under status "ok" (under another status the cell becomes empty), "ok" without any number, another status without a
    message, a status that does not exist.
    """
    for name in values:
        if name not in _KINDS:
            nearest = ", ".join(repr(near) for near in get_close_matches(name, COLUMNS, n=3, cutoff=0.0))
            raise KeyError(f"the table has no column {name!r}; closest are {nearest}")
    status = "ok" if values.get("status") is None else values["status"]
    complete = dict(_EMPTY)
    for name, value in values.items():
        if name == "settings" and value is not None:
            complete[name] = canonical_json(_parsed(value) if isinstance(value, str) else value)
        elif value is not None:
            complete[name] = _checked(name, value, status)
    complete |= {"status": status, "schema_version": SCHEMA_VERSION}
    _check_row(complete)
    return complete


def _checked(name: str, value: Any, status: str) -> Any:
    """The value as the plain Python type of its column."""
    kind = _KINDS[name]
    plain = value.item() if getattr(value, "shape", None) == () else value
    if kind == "text" and isinstance(plain, str):
        return str(plain)
    if kind == "flag" and isinstance(plain, bool):
        return plain
    if not isinstance(plain, bool):
        if kind == "whole" and (isinstance(plain, int) or (isinstance(plain, float) and plain.is_integer())):
            return int(plain)
        if kind == "real" and isinstance(plain, int | float):
            if math.isfinite(plain):
                return float(plain)
            if status != "ok":
                return None
            raise ValueError(
                f"{name} is {plain} under status 'ok'; leave the cell empty (None) or give the status and why"
            )
    wanted = {"text": "text", "whole": "a whole number", "real": "a number", "flag": "True or False"}[kind]
    raise TypeError(f"{name} takes {wanted}, not {type(value).__name__} {value!r}")


def _check_row(complete: Mapping[str, Any]) -> None:
    status = complete["status"]
    if status not in STATUSES:
        raise ValueError(f"status is one of {', '.join(STATUSES)}, not {status!r}")
    if complete["in_training"] not in (None, *IN_TRAINING):
        raise ValueError(f"in_training is one of {', '.join(IN_TRAINING)}, not {complete['in_training']!r}")
    if status == "ok" and all(complete[name] is None for name in ("value", "lower", "upper")):
        raise ValueError(f"row {describe_key(complete)} has status 'ok' and no value; give one, or the status and why")
    if status != "ok" and not complete["message"]:
        raise ValueError(f"row {describe_key(complete)} has status {status!r} and no message; say why in one sentence")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, the same text for equal values; NaN and infinity are a ValueError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{value!r} is not plain JSON ({error}); use finite numbers, text, lists and dicts") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"settings is not JSON ({error}): {text!r}; give a mapping") from None


def describe_key(values: Mapping[str, Any]) -> str:
    """The filled columns of a row's key, for messages: (model=…, revision=…)."""
    return "(" + ", ".join(f"{name}={values[name]}" for name in KEY if values.get(name) not in (None, "")) + ")"


def rows_to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows, each checked as `row` does, as an Arrow table in the schema's columns."""
    return pa.Table.from_pylist([row(**values) for values in rows], schema=SCHEMA)


def check_unique(table: pa.Table) -> None:
    """ValueError with the first key that stands in two rows."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, key in enumerate(zip(*(table.column(name).to_pylist() for name in KEY), strict=True)):
        if key in seen:
            units = table.column("unit_name")
            raise ValueError(
                f"rows {seen[key]} and {number} (units {units[seen[key]]} and {units[number]}) have the same key "
                f"{describe_key(dict(zip(KEY, key, strict=True)))}; every row needs a key of its own"
            )
        seen[key] = number


def check_schema(schema: pa.Schema, name: str) -> None:
    """ValueError unless the schema is this version's, column by column."""
    version = (schema.metadata or {}).get(VERSION_FIELD, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise ValueError(
            f"{name} has table version {version}, this infocomp reads version {SCHEMA_VERSION}; run it again"
        )
    if not schema.equals(SCHEMA):
        raise ValueError(f"{name} does not hold the table's columns; was it written by another program?")


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas: nullable whole numbers and flags, NaN for an empty real cell."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.to_pandas(types_mapper=nullable.get)


def read(out: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """The merged table (bits) of one run folder or of several, one below the other.

    A row that several folders share (a classical coder on the same text) is kept once. FileNotFoundError: a folder
    without a merged table. ValueError: another table version, or two folders with one key and different numbers.
    """
    folders = [Path(out)] if isinstance(out, str | Path) else [Path(folder) for folder in out]
    if not folders:
        raise ValueError("no run folder was given; name at least one that holds results.parquet")
    joined = pa.concat_tables([read_results(folder) for folder in folders])
    frame = to_frame(joined)
    if len(folders) > 1:
        frame = frame.drop_duplicates([name for name in COLUMNS if name not in VOLATILE], ignore_index=True)
        clash = frame.loc[frame.duplicated(list(KEY)), list(KEY)]
        if len(clash):
            first = describe_key({name: cell for name, cell in zip(KEY, clash.iloc[0], strict=True) if pd.notna(cell)})
            raise ValueError(
                f"{' and '.join(map(str, folders))} both hold {first}, with different numbers; read them one by one"
            )
    return frame


def read_results(out: str | Path) -> pa.Table:
    """The merged table of one run folder, as Arrow. Raises as `read` does."""
    path = Path(out) / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"{out} holds no {RESULTS}; `infocomp run CONFIG --out {out}` makes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}); run it again to merge the parts anew"
        ) from error
    check_schema(table.schema, str(path))
    return table
