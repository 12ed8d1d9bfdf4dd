"""A whole run of a study: its phases one after the other under one lock, then its figures.

The commands know a study by this protocol alone: `phases` yields lists of units, each list made once the one before it
is done (what is measured may have been trained first), `figures` draws from the table.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from infocomp.execution.lock import RunLock
from infocomp.execution.part import replacing
from infocomp.execution.runner import CONFIG, Event, Outcome, Unit, execute


class Report(Protocol):
    """Who watches a run: one bar at a time, and sentences between them."""

    def begin(self, title: str, total: int, unit: str) -> None: ...

    def advance(self, amount: int) -> None: ...

    def detail(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


class Study(Protocol):
    """What every study offers to the commands."""

    out: Path

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]: ...

    def figures(self) -> list[Path]: ...


class Silent:
    """A report that nobody reads."""

    def begin(self, title: str, total: int, unit: str) -> None:
        return

    def advance(self, amount: int) -> None:
        return

    def detail(self, text: str) -> None:
        return

    def note(self, text: str) -> None:
        return

    def end(self) -> None:
        return


class Bars:
    """Progress bars on standard error; where that is no terminal, a line every ten seconds."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def begin(self, title: str, total: int, unit: str) -> None:
        self.end()
        quiet = not sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=unit,
            unit_scale=total > 10_000,
            mininterval=10.0 if quiet else 0.2,
            maxinterval=10.0,
            ascii=quiet,
            ncols=100 if quiet else None,
            dynamic_ncols=not quiet,
        )

    def advance(self, amount: int) -> None:
        if self._bar is not None:
            self._bar.update(amount)

    def detail(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def note(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run_study(
    study: Study, config_text: str, report: Report, after_unit: Callable[[Event], None] | None = None
) -> tuple[Outcome, list[Path]]:
    """Run every phase and draw the figures; stop after a phase that the next ones need.

    `config_text` is kept as OUT/config.yaml. Returns the outcome over all phases and the figures drawn.
    FolderInUse: another process runs into the folder.
    """
    whole = Outcome()
    with RunLock(study.out):
        path = Path(study.out) / CONFIG
        if not path.exists() or path.read_text("utf-8") != config_text:
            with replacing(path) as file:
                file.write(config_text.encode())

        def told(event: Event) -> None:
            if event.state == "started":
                report.detail(event.unit.title)
            if event.state == "failed":
                report.note(f"failed: {event.unit.title}: {event.message}")
            if after_unit is not None:
                after_unit(event)

        for phase, units in study.phases(report):
            outcome = execute(units, study.out, phase=phase, progress=told)
            whole.done += outcome.done
            whole.skipped += outcome.skipped
            whole.failed += outcome.failed
            whole.messages += outcome.messages
            whole.stopped = outcome.stopped
            if outcome.stopped or (phase == "train" and outcome.failed):
                break
        report.end()
        figures: list[Path] = []
        if not whole.stopped and whole.done + whole.skipped:
            report.note("drawing figures")
            try:
                figures = study.figures()
            except Exception as error:  # whatever a figure may raise, the table stands and the outcome is the run's
                report.note(
                    f"figures failed ({type(error).__name__}: {error}); `infocomp plot {study.out}` tries again"
                )
    return whole, figures
