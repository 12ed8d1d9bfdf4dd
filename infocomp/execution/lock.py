"""One run per folder: an operating-system lock, and beside it a file that says who holds it.

The lock (OUT/.lock) belongs to the process, so a killed run's lock is free at once; the file (OUT/.owner.json) names
the process, its host, its start and its command, for the sentence that a second run ends with.
"""

import json
import os
import socket
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from infocomp.execution.part import replacing

LOCK = ".lock"
OWNER = ".owner.json"
PATIENCE = 0.5  # seconds: `holder` may have the lock for an instant, and a new holder signs a moment after it has it


class FolderInUse(ValueError):
    """Another process runs into this folder."""


class RunLock:
    """`with RunLock(out):` holds the folder; the same thread may enter again, any other process or thread is refused.

    FolderInUse: names the process that holds it, its host, its start and its command. ValueError: no such folder can be
    made. StorageError: the disk is full.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self._lock: FileLock | None = None

    def __enter__(self) -> "RunLock":
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out.resolve() / LOCK, timeout=PATIENCE, is_singleton=True)
            lock.acquire()
        except Timeout:
            raise FolderInUse(
                f"{self.out} is in use by {_named(_owner(self.out, PATIENCE))}; wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise ValueError(f"{self.out} cannot be used as a run folder ({error.strerror}); choose another") from error
        self._lock = lock
        if lock.lock_counter == 1:
            try:
                self._sign()
            except BaseException:
                lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            if self._lock.lock_counter == 1:
                (self.out / OWNER).unlink(missing_ok=True)
            self._lock.release()

    def _sign(self) -> None:
        owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        with replacing(self.out / OWNER) as file:
            file.write(json.dumps(owner, ensure_ascii=False).encode())


def holder(out: str | Path) -> str | None:
    """Who runs into this folder now, in words, or None."""
    if not (Path(out) / LOCK).exists():
        return None
    try:
        with FileLock(Path(out).resolve() / LOCK, timeout=0):
            return None
    except Timeout:
        return _named(_owner(Path(out), PATIENCE))


def _owner(out: Path, patience: float) -> dict[str, Any]:
    """What the holder wrote about itself; what a killed one left behind is not taken for it."""
    end = time.monotonic() + patience
    while True:
        try:
            owner = json.loads((out / OWNER).read_text("utf-8"))
            if owner["host"] != socket.gethostname() or _alive(owner["process"]):
                return owner
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() >= end:
            return {}
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _named(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner['process']} on {owner['host']} since {owner['since']} ({owner['command']})"
