"""Units of work, one after the other, each with its own part: what is done is not done again, a failure is a row.

A unit is a name (the hash of what decides it), a title, the key columns of the row that would tell of its failure, and
a function. `execute` may be called several times for one folder, once per phase (training, then analysis of what was
trained); each call plans its own phase and merges what the plan holds.
"""

import errno
import hashlib
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from infocomp.execution.lock import RunLock, holder
from infocomp.execution.part import StorageError
from infocomp.execution.store import Store
from infocomp.execution.table import describe_key, row

CONFIG = "config.yaml"
FULL = (errno.ENOSPC, errno.EDQUOT)
LONGEST_MESSAGE = 400  # characters of a failure's message in the table; the traceback lies in OUT/failures

logger = logging.getLogger("infocomp")


@dataclass(frozen=True)
class UnitResult:
    """What a unit gives back: rows as `table.row` takes them, and optionally the code lengths of documents, and what
    groups of documents weigh in each number (key columns, and an array for each of value, point, lower, upper)."""

    rows: Sequence[Mapping[str, Any]]
    documents: Sequence[Mapping[str, Any]] = ()
    influence: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]] = ()


@dataclass(frozen=True)
class Unit:
    """One unit of work.

    `name` is `store.unit_name` of all that decides the result. `describe` holds the columns of the row that would tell
    of its failure: key columns (model, revision, …) that no other unit of the call has alike, and attributes like step.
    """

    name: str
    title: str
    describe: Mapping[str, Any]
    run: Callable[[], UnitResult]


@dataclass(frozen=True)
class Event:
    """Told to `progress` when a unit starts and when it ends; `part` is the file with its rows once it has ended."""

    number: int
    total: int
    unit: Unit
    state: Literal["started", "done", "skipped", "failed"]
    part: Path
    seconds: float = 0.0
    message: str = ""


@dataclass
class Outcome:
    """How a call of `execute` ended. `stopped` is the sentence that says why it ended early, "" if it did not."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    stopped: str = ""
    messages: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: every unit is done; 1: some failed or were not reached."""
        return 1 if self.failed or self.stopped else 0


@dataclass(frozen=True)
class Status:
    """Where a run folder stands: numbers of units, and who runs into it now (None: nobody)."""

    planned: int
    done: int
    failed: int
    running: str | None


def execute(
    units: Iterable[Unit],
    out: str | Path,
    *,
    phase: str = "measure",
    progress: Callable[[Event], None] | None = None,
) -> Outcome:
    """Run the units that have no valid part yet, in order, and merge the parts of the plan into OUT/results.parquet.

    A unit that raises becomes one row with status "failed" and is tried again by the next run. Ctrl-C and a full disk
    stop the run and lose nothing that was done. The plan keeps the other phases of the same configuration
    (OUT/config.yaml). FolderInUse: another process runs into the folder. ValueError: two units with one name, or with
    descriptions that are alike; KeyError, TypeError: a description that is no row.
    """
    run = _Run(list(units), Store(out), progress or (lambda event: None))
    _check_units(run.units)
    try:
        with RunLock(out):
            run.plan(phase)
            run.everything()
            run.merge()
    except StorageError as error:
        run.stop(error)
    return run.outcome


def status(out: str | Path) -> Status:
    """Count the plan's units by state, changing nothing. FileNotFoundError: no run was started there."""
    store = Store(out)
    planned = store.planned()
    if not planned:
        raise FileNotFoundError(f"{out} holds no plan; `infocomp run CONFIG --out {out}` starts a run there")
    states = [store.state(entry["name"]) for entry in planned]
    return Status(len(planned), states.count("done"), states.count("failed"), holder(out))


@dataclass
class _Run:
    units: list[Unit]
    store: Store
    progress: Callable[[Event], None]
    outcome: Outcome = field(default_factory=Outcome)

    def plan(self, phase: str) -> None:
        """Write this phase into the plan, beside the other phases of the same configuration."""
        self.store.clean()
        config = self.store.out / CONFIG
        run = hashlib.sha256(config.read_bytes()).hexdigest()[:16] if config.exists() else ""
        plan = self.store.plan()
        phases = plan["phases"] if plan["run"] == run else {}
        entries = [{"name": unit.name, "title": unit.title} for unit in self.units]
        self.store.write_plan({"run": run, "phases": phases | {phase: entries}})

    def everything(self) -> None:
        try:
            for number, unit in enumerate(self.units):
                self.one(number, unit)
                if self.outcome.stopped:
                    break
        except KeyboardInterrupt:
            self.outcome.stopped = f"interrupted; {self._kept()}; the same command goes on from here"

    def one(self, number: int, unit: Unit) -> None:
        """Skip, run or fail one unit."""

        def tell(state: Literal["started", "done", "skipped", "failed"], seconds: float = 0.0, text: str = "") -> None:
            part = self.store.part_path(unit.name)
            self.progress(Event(number, len(self.units), unit, state, part, seconds, text))

        before = self.store.state(unit.name)
        if before == "done":
            self.outcome.skipped += 1
            return tell("skipped")
        if before == "damaged":
            logger.warning("the part of %s is damaged; it is kept in parts/damaged and made again", unit.title)
            self.store.set_aside(unit.name)
        tell("started")
        start = time.monotonic()
        try:
            result = unit.run()
            seconds = time.monotonic() - start
            timed = [values if values.get("seconds") else {**values, "seconds": seconds} for values in result.rows]
            self.store.write(unit.name, timed, result.documents, result.influence)
        except Exception as error:
            seconds = time.monotonic() - start
            text = self.fail(unit, error, seconds)
            return tell("failed", seconds, text)
        self.outcome.done += 1
        self._trace(unit).unlink(missing_ok=True)
        tell("done", seconds)

    def fail(self, unit: Unit, error: Exception, seconds: float) -> str:
        """Write the unit's failure as a row, its traceback beside it, and return the sentence."""
        text = _sentence(error)
        self.outcome.failed += 1
        self.outcome.messages.append(f"{unit.title}: {text}")
        if _disk_is_full(error) or isinstance(error, StorageError):
            self.stop(error)
        failure = row(**{**unit.describe, "status": "failed", "message": text, "seconds": seconds})
        with suppress(StorageError):  # a full disk may still take these two small files, or not
            self.store.write(unit.name, [failure], state="failed")
        with suppress(OSError):
            self._trace(unit).parent.mkdir(exist_ok=True)
            self._trace(unit).write_text("".join(traceback.format_exception(error)), "utf-8")
        return text

    def merge(self) -> None:
        try:
            self.store.merge()
        except StorageError:
            if not self.outcome.stopped:
                raise

    def stop(self, error: Exception) -> None:
        """Why no further unit is tried, in one sentence."""
        reason, remedy = _sentence(error), "put that right"
        if _disk_is_full(error):
            free = shutil.disk_usage(self.store.out).free / 2**20
            reason = f"no space is left for {self.store.out} ({free:.1f} MiB free): {reason}"
            remedy = "make room"
        self.outcome.stopped = f"{reason}; {self._kept()}; {remedy} and give the same command again"

    def _kept(self) -> str:
        return f"{self.outcome.done + self.outcome.skipped} of {len(self.units)} units are done and kept"

    def _trace(self, unit: Unit) -> Path:
        return self.store.out / "failures" / f"{unit.name}.txt"


def _check_units(units: Sequence[Unit]) -> None:
    names: dict[str, str] = {}
    described: dict[str, str] = {}
    for unit in units:
        failure = row(**{**unit.describe, "status": "failed", "message": "checked before anything runs"})
        key = describe_key(failure)
        for seen, this, what in ((names, unit.name, f"name {unit.name}"), (described, key, f"description {key}")):
            if this in seen:
                raise ValueError(f"units {seen[this]!r} and {unit.title!r} have the same {what}; each needs its own")
            seen[this] = unit.title


def _sentence(error: BaseException) -> str:
    """An exception's message on one line; one without the house's own wording keeps the name of its type."""
    given = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(given).split()) if not isinstance(error, StorageError) else str(error.strerror)
    if not isinstance(error, ValueError | KeyError | StorageError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def _disk_is_full(error: BaseException) -> bool:
    """No space, quota or file size left, also as other libraries word it (safetensors, PyTorch)."""
    number = getattr(error, "errno", None)
    return number in FULL or "No space left on device" in str(error)
