"""Worker processes of one thread each, for many small trainings on the cores of one machine.

A worker is `python -m infocomp.training.workers`: it reads one recipe after the other from its standard input, trains
it into its folder, and tells how far it is and how it ended. Other jobs than trainings are done as well. When the
process that started it is gone its pipe breaks and it ends too, within a second of training; what it has trained lies
in the folder's resume state.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from infocomp.training.recipe import MemberResult, Recipe, train_one

TOLD_EVERY = 0.5  # seconds between two reports of progress
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# glibc would map and unmap a tensor of a few MB at every operation, which took an eighth of the time
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


@runtime_checkable
class Job(Protocol):
    """Something else that a worker does: plain data with a method, whose result travels back."""

    def work(self) -> Any: ...


@dataclass
class _Worker:
    process: subprocess.Popen
    inbox: Connection
    outbox: Connection
    name: str | None = None


class WorkerPool:
    """Trains recipes in worker processes, in the given order; results come as they are asked for.

    A `Job` in a recipe's place is worked off, and gives what it returns; one that raises, a failed MemberResult.
    advance(name, steps made since last told, loss): progress of one member.
    """

    def __init__(
        self,
        recipes: Mapping[str, tuple[Recipe | Job, Path]],
        workers: int,
        device: str = "cpu",
        advance: Callable[[str, int, float], None] | None = None,
    ) -> None:
        self.pending, self.workers_wanted, self.device = dict(recipes), workers, device
        self.advance = advance or (lambda name, steps, loss: None)
        self._workers: list[_Worker] = []
        self._results: dict[str, Any] = {}
        self._told: dict[str, int] = {}

    def result(self, name: str) -> Any:
        """Wait for one member's MemberResult, or for what a job returns; the others go on meanwhile.

        KeyError: a name that was not given.
        """
        while name not in self._results:
            if name not in self.pending and all(worker.name != name for worker in self._workers):
                raise KeyError(f"no training named {name!r} is under way here")
            self._hand_out(first=name)
            self._listen()
        self._hand_out()
        return self._results.pop(name)

    def close(self) -> None:
        """End the workers; what they have trained so far is in their resume states."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()
            worker.inbox.close()
            worker.outbox.close()
        self._workers.clear()

    def _hand_out(self, first: str | None = None) -> None:
        """Give each idle worker a recipe; the one that is waited for goes first."""
        busy = sum(worker.name is not None for worker in self._workers)
        while len(self._workers) < min(self.workers_wanted, busy + len(self.pending)):
            self._workers.append(_start())  # all before the first is sent its data: they import at the same time
        for idle in [worker for worker in self._workers if worker.name is None][: len(self.pending)]:
            name = first if first in self.pending else next(iter(self.pending))
            recipe, folder = self.pending.pop(name)
            idle.name, self._told[name] = name, 0
            with suppress(BrokenPipeError):  # it has ended: what is heard from it next says so
                idle.inbox.send_bytes(pickle.dumps((recipe, str(folder), self.device)))

    def _listen(self) -> None:
        """Take what the workers have to say, waiting for the first word."""
        ready = wait([worker.outbox for worker in self._workers if worker.name is not None])
        for worker in [worker for worker in self._workers if worker.outbox in ready]:
            name = worker.name
            assert name is not None
            try:
                kind, content = worker.outbox.recv()
            except (EOFError, OSError):
                self._results[name] = MemberResult("failed", _how_it_ended(worker.process.wait()))
                worker.inbox.close()
                worker.outbox.close()
                self._workers.remove(worker)
                continue
            if kind == "progress":
                step, loss = content
                self.advance(name, step - self._told[name], loss)
                self._told[name] = step
            else:
                self._results[name], worker.name = content, None


def _how_it_ended(code: int) -> str:
    how = f"was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    hint = "; was the memory full? use fewer workers" if code == -signal.SIGKILL else ""
    return f"the worker process {how} while it worked{hint}; the same command goes on from its last state"


def _start() -> _Worker:
    """A new worker that imports what this process can import."""
    inherited = os.pathsep.join(path for path in sys.path if path)
    environment = {**KEEP_MEMORY, **os.environ, **ONE_THREAD, "PYTHONPATH": inherited}
    process = subprocess.Popen(
        [sys.executable, "-m", "infocomp.training.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        bufsize=0,
    )
    assert process.stdin is not None and process.stdout is not None
    inbox = Connection(os.dup(process.stdin.fileno()), readable=False)
    outbox = Connection(os.dup(process.stdout.fileno()), writable=False)
    process.stdin.close()
    process.stdout.close()
    return _Worker(process, inbox, outbox)


def serve(inbox: Connection, outbox: Connection) -> None:
    """Train what comes in until the other side is gone."""
    while True:
        try:
            recipe, folder, device = pickle.loads(inbox.recv_bytes())
        except (EOFError, OSError):
            return
        told = [time.monotonic()]

        def progress(step: int, steps: int, loss: float, told: list[float] = told) -> None:
            if step == steps or time.monotonic() - told[0] >= TOLD_EVERY:
                told[0] = time.monotonic()
                outbox.send(("progress", (step, loss)))

        outbox.send(("result", _trained(recipe, folder, device, progress)))


def _trained(recipe: Recipe | Job, folder: str, device: str, progress: Callable[[int, int, float], None]) -> Any:
    try:
        return recipe.work() if isinstance(recipe, Job) else train_one(recipe, folder, device, progress)
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc()
        known = isinstance(error, ValueError | KeyError | OSError)
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        return MemberResult("failed", text if known and text else f"{type(error).__name__}: {text}")


def main() -> None:
    """Serve over the process's own pipes; whatever else prints goes to standard error."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which ends it
    torch.set_num_threads(1)
    inbox = Connection(os.dup(0), writable=False)
    outbox = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    try:
        serve(inbox, outbox)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
