"""Learning curves from files: CSV, Parquet, an offline W&B run, or a DataFrame; a column for each, a row an evaluation.

Columns are called `step`, `train_loss`, `test_loss`, `train_accuracy`, `test_accuracy` unless other names are given;
any of the four may lack. A W&B run logs where it likes: what it logged at one step is one row, and rows are those steps
at which every curve that is read was logged.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from infocomp.grokking.curves import NAMES, STEP, Curves
from infocomp.grokking.wandb_file import OWN_STEP, history, wandb_file

ENDINGS = (".csv", ".parquet", ".wandb")


def read_curves(source: str | Path | pd.DataFrame, columns: Mapping[str, str] | None = None) -> Curves:
    """Curves of a file, a run's folder or a DataFrame; `columns` says what the source calls them ({"step": "epoch"}).

    FileNotFoundError: no such file. KeyError: no column of that name. ValueError: another kind of file, no curve at
    all, or curves that nothing can be dated from (`Curves`).
    """
    columns = dict(columns or {})
    for name in columns:
        if name != STEP and name not in NAMES:
            raise KeyError(f"no curve is named {name!r}; there are {', '.join((STEP, *NAMES))}.")
    if isinstance(source, pd.DataFrame):
        return _curves(source, columns, "the table")
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    if path.is_dir() or path.suffix == ".wandb":
        path = wandb_file(path)
        return _curves(_wandb_frame(path, columns), columns, str(path))
    return _curves(_frame(path), columns, str(path))


def _frame(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file."""
    if path.suffix not in ENDINGS:
        raise ValueError(f"curves are read from {', '.join(ENDINGS)} or a W&B run's folder, got {path}.")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).rstrip('.')}.") from error


def _wandb_frame(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """A row for each step that holds all curves; W&B's own step stands for `step` where the run logged none."""
    lines = history(path)
    step = columns.get(STEP, STEP if any(STEP in line for line in lines) else OWN_STEP)
    columns[STEP] = step
    if not any(step in line for line in lines):
        return pd.DataFrame({name: [] for line in lines for name in line})
    merged: dict[float, dict[str, object]] = {}
    for line in lines:
        if step in line:
            merged.setdefault(line[step], {}).update(line)
    frame = pd.DataFrame(list(merged.values()))
    wanted = [columns.get(name, name) for name in NAMES if columns.get(name, name) in frame]
    whole = frame[frame[wanted].notna().all(axis=1)]
    if wanted and whole.empty:
        raise ValueError(
            f"{path} logs {', '.join(wanted)} at no step together: log them at the same step, or read fewer of them."
        )
    return whole


def _curves(frame: pd.DataFrame, columns: Mapping[str, str], source: str) -> Curves:
    """The columns that are there, under our names."""
    for name, column in columns.items():
        if column not in frame:
            raise KeyError(f"{source} has no column {column!r} for {name}; {_there(frame, column)}.")
    step = columns.get(STEP, STEP)
    if step not in frame:
        raise KeyError(
            f"{source} lacks the column {step!r}, the step of each evaluation; {_there(frame, step)}: "
            "name the one that counts steps (--column step=NAME)."
        )
    found = {name: columns.get(name, name) for name in NAMES if columns.get(name, name) in frame}
    if not found:
        raise ValueError(
            f"{source} has nothing to date from, none of {', '.join(NAMES)}; {_there(frame, 'test_loss')}: "
            "say which column is which (--column test_loss=NAME)."
        )
    return Curves.of({STEP: _values(frame, step)} | {name: _values(frame, column) for name, column in found.items()})


def _values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as numbers; an empty cell is not a number."""
    values = frame[column]
    if values.dtype == object or pd.api.types.is_string_dtype(values):
        numbers = pd.to_numeric(values, errors="coerce")
        wrong = values[numbers.isna() & values.notna()]
        if len(wrong):
            raise ValueError(f"the column {column!r} must hold numbers alone, got {wrong.iloc[0]!r}.")
        values = numbers
    return values.to_numpy(dtype=float, na_value=np.nan)


def _there(frame: pd.DataFrame, wanted: str) -> str:
    """What columns there are: all of a few, the closest of many."""
    names = [str(name) for name in frame.columns]
    if len(names) <= 12:
        return f"its columns are {', '.join(names)}" if names else "it has no columns"
    near = difflib.get_close_matches(wanted, names, 3, 0.0)
    return f"the closest of its {len(names)} columns are {', '.join(near)}"
