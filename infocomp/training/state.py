"""What a training run needs to go on after it was killed, on disk: a state file and one row per step.

    OUT/training/state.pt             the newest state: weights, optimizers, generators, the rows of every step so far
    OUT/training/states/step{N}.pt    the same at each checkpoint, where they are kept
    OUT/training/steps.parquet        the rows, for readers

The state is the truth and carries the rows; the Parquet file is written from it. Every file is written under a
temporary name and renamed, so that a process killed while it writes leaves the earlier file whole.
"""

import io
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

STATE_VERSION = 1
STATE = "state.pt"
KEPT_STATES = "states"
STEPS = "steps.parquet"

ROW_TYPES = {
    "step": pa.int64(),  # updates made before this row's loss was taken
    "tokens": pa.int64(),  # training tokens seen by then
    "loss": pa.float64(),  # nats, before the update
    "learning_rate": pa.float64(),  # of the first optimizer's first group, in this row's update
    "gradient_norm": pa.float64(),  # before clipping
    "status": pa.string(),  # ok | failed
    "message": pa.string(),
}
"""Columns of every run; what else was measured follows as real numbers."""

Row = dict[str, Any]


@dataclass
class TrainingState:
    """A run between two steps: `step` updates were made, `rows` tells them, `saved` lists the checkpoints written."""

    identity: dict[str, Any]
    step: int
    model: dict[str, Any]
    optimizers: list[dict[str, Any]]
    generators: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    status: str = "ok"
    message: str | None = None
    version: int = STATE_VERSION


def write_state(folder: Path, state: TrainingState, keep: bool = False) -> None:
    """Write the state and then the rows; with `keep`, first a copy that later states don't replace.

    OSError of one sentence where the disk is full; what was written before stays valid.
    """
    buffer = io.BytesIO()
    torch.save({item.name: getattr(state, item.name) for item in fields(state)}, buffer)
    if keep:
        write_atomically(folder / KEPT_STATES / f"step{state.step}.pt", buffer.getbuffer())
    write_atomically(folder / STATE, buffer.getbuffer())
    write_rows(folder, state.rows)


def write_rows(folder: Path, rows: list[Row]) -> None:
    """Write OUT/training/steps.parquet from the rows; cells that a row lacks are empty."""
    measured = sorted({name for row in rows for name in row} - ROW_TYPES.keys())
    schema = pa.schema(ROW_TYPES | dict.fromkeys(measured, pa.float64()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    write_atomically(folder / STEPS, memoryview(sink.getvalue()))


def read_state(path: Path, identity: dict[str, Any] | None) -> TrainingState:
    """The state in a file; ValueError where it cannot be read or belongs to a run of another identity (None: any)."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        state = TrainingState(**values)
    except (RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no training state ({reason}); delete it to train without it") from None
    if state.version != STATE_VERSION:
        raise ValueError(
            f"{path} has version {state.version}, this program reads {STATE_VERSION}; train into a new folder"
        )
    wanted = state.identity if identity is None else identity
    for name in [*wanted, *state.identity]:
        there, here = state.identity.get(name), wanted.get(name)
        if there != here:
            raise ValueError(
                f"{path} belongs to another run: {name} is {_short(there)} there and {_short(here)} here; "
                "give another folder, or delete that one"
            )
    return state


def states_newest_first(folder: Path) -> Iterator[Path]:
    """The newest state, then the kept ones from the last to the first."""
    if (folder / STATE).is_file():
        yield folder / STATE
    kept = [path for path in (folder / KEPT_STATES).glob("step*.pt") if path.stem.removeprefix("step").isdigit()]
    yield from sorted(kept, key=lambda path: -int(path.stem.removeprefix("step")))


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write under a temporary name, then rename; OSError of one sentence, and the earlier file, where that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_written(path, error) from None


def not_written(path: Path, error: Exception) -> OSError:
    """The one sentence for a file or folder that could not be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return OSError(
        f"{path} could not be written ({reason}); free some disk space and run again: "
        "all that was written before is whole, and the training goes on from there"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
