"""Running units: resume, failure rows, kills at any moment, a full disk, two runs into one folder."""

import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from infocomp.execution.lock import FolderInUse, RunLock, holder
from infocomp.execution.part import StorageError
from infocomp.execution.runner import Event, Outcome, Status, Unit, UnitResult, execute, status
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import RESULTS, VOLATILE, read, row

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["infocomp.execution.runner", "pytest"])


def unit(index, run=None, rows=1):
    """A unit whose rows follow from its index."""
    describe = {"model": "m", "revision": f"step{index}", "corpus": "c"}

    def measure():
        return UnitResult(
            [
                row(**describe, step=index, quantity="complexity", draw=str(draw), value=index + draw / 7)
                for draw in range(rows)
            ]
        )

    return Unit(unit_name(index=index, rows=rows), f"step{index}", describe, run or measure)


def failing(index, error):
    def run():
        raise error

    return unit(index, run)


def test_every_unit_becomes_rows_of_one_merged_table(tmp_path):
    outcome = execute([unit(0), unit(1, rows=3)], tmp_path)
    assert (outcome.done, outcome.skipped, outcome.failed, outcome.exit_code) == (2, 0, 0, 0)
    frame = read(tmp_path)
    assert frame["revision"].tolist() == ["step0", "step1", "step1", "step1"]
    assert (frame["seconds"] >= 0).all() and frame["date"].str.startswith("20").all()
    assert set(frame["unit_name"]) == {unit(0).name, unit(1, rows=3).name}


def test_what_is_done_is_not_done_again(tmp_path):
    execute([unit(0), unit(1)], tmp_path)
    before = read(tmp_path)
    outcome = execute([failing(0, AssertionError("ran again")), unit(1), unit(2)], tmp_path)
    assert (outcome.done, outcome.skipped, outcome.failed) == (1, 2, 0)
    assert read(tmp_path).iloc[:2].equals(before)


def test_a_failed_unit_is_one_row_with_its_message_and_the_others_go_on(tmp_path):
    outcome = execute([unit(0), failing(1, ValueError("activations of\n  blocks.0 hold NaN")), unit(2)], tmp_path)
    assert (outcome.done, outcome.failed, outcome.exit_code) == (2, 1, 1)
    assert outcome.messages == ["step1: activations of blocks.0 hold NaN"]
    frame = read(tmp_path)
    failed = frame[frame["status"] == "failed"]
    assert len(frame) == 3 and len(failed) == 1
    assert failed.iloc[0][["model", "revision", "corpus", "quantity", "message"]].tolist() == [
        "m",
        "step1",
        "c",
        "",
        "activations of blocks.0 hold NaN",
    ]
    trace = (tmp_path / "failures" / f"{unit(1).name}.txt").read_text()
    assert "Traceback" in trace and "in run" in trace


def test_a_failed_unit_is_tried_again_and_its_failure_forgotten(tmp_path):
    execute([failing(0, RuntimeError("out of luck"))], tmp_path)
    assert read(tmp_path)["message"].tolist() == ["RuntimeError: out of luck"]
    outcome = execute([unit(0)], tmp_path)
    assert (outcome.done, outcome.skipped, outcome.exit_code) == (1, 0, 0)
    assert read(tmp_path)["status"].tolist() == ["ok"]
    assert not list((tmp_path / "failures").iterdir())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("no site named 'x'"), "no site named 'x'"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ValueError("word " * 200), ("word " * 200)[:399] + "…"),
    ],
)
def test_a_message_is_one_sentence_that_names_what_happened(tmp_path, error, message):
    execute([failing(0, error)], tmp_path)
    assert read(tmp_path)["message"].tolist() == [message]


def test_rows_that_the_table_refuses_fail_their_unit_only(tmp_path):
    def wrong():
        return UnitResult([{"model": "m", "valeu": 1.0}])

    outcome = execute([unit(0, wrong), unit(1)], tmp_path)
    assert (outcome.done, outcome.failed) == (1, 1)
    assert "the table has no column 'valeu'" in read(tmp_path)["message"].dropna().tolist()[0]


def test_progress_hears_of_every_unit_and_finds_its_part(tmp_path):
    execute([unit(0)], tmp_path)
    heard: list[Event] = []
    execute([unit(0), failing(1, ValueError("no")), unit(2)], tmp_path, progress=heard.append)
    assert [(event.number, event.total, event.state) for event in heard] == [
        (0, 3, "skipped"),
        (1, 3, "started"),
        (1, 3, "failed"),
        (2, 3, "started"),
        (2, 3, "done"),
    ]
    assert heard[2].message == "no"
    assert all(event.part.exists() for event in heard if event.state != "started")


def test_ctrl_c_stops_cleanly_and_keeps_what_was_done(tmp_path):
    outcome = execute([unit(0), failing(1, KeyboardInterrupt()), unit(2)], tmp_path)
    assert outcome.stopped == "interrupted; 1 of 3 units are done and kept; the same command goes on from here"
    assert outcome.exit_code == 1
    assert read(tmp_path)["revision"].tolist() == ["step0"]
    assert holder(tmp_path) is None
    assert execute([unit(0), unit(1), unit(2)], tmp_path) == Outcome(done=2, skipped=1)


def test_a_damaged_part_is_made_again_and_said_so(tmp_path, caplog):
    execute([unit(0), unit(1)], tmp_path)
    path = Store(tmp_path).part_path(unit(0).name)
    path.write_bytes(path.read_bytes()[:-9])
    outcome = execute([unit(0), unit(1)], tmp_path)
    assert (outcome.done, outcome.skipped) == (1, 1)
    assert "the part of step0 is damaged; it is kept in parts/damaged and made again" in caplog.text
    assert (tmp_path / "parts" / "damaged" / path.name).exists()


def test_units_that_cannot_be_told_apart_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"units 'step0' and 'step0' have the same name .*; each needs its own"):
        execute([unit(0), unit(0)], tmp_path)
    with pytest.raises(ValueError, match=r"have the same description \(model=m, revision=step0, corpus=c\)"):
        execute([unit(0), unit(0, rows=2)], tmp_path)
    with pytest.raises(KeyError, match="no column 'modl'"):
        execute([Unit("u", "u", {"modl": "m"}, unit(0).run)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_second_phase_adds_its_units_to_the_plan_and_the_table(tmp_path):
    (tmp_path / "config.yaml").write_text("study: plane\n")
    execute([unit(0)], tmp_path, phase="train")
    execute([unit(1), unit(2)], tmp_path)
    assert status(tmp_path) == Status(planned=3, done=3, failed=0, running=None)
    execute([unit(0)], tmp_path, phase="train")
    assert read(tmp_path)["revision"].tolist() == ["step0", "step1", "step2"]
    execute([unit(1), unit(3)], tmp_path)
    assert read(tmp_path)["revision"].tolist() == ["step0", "step1", "step3"]


def test_another_configuration_starts_a_plan_of_its_own_and_keeps_the_parts(tmp_path):
    (tmp_path / "config.yaml").write_text("bins: 100\n")
    execute([unit(0)], tmp_path, phase="train")
    execute([unit(1)], tmp_path)
    (tmp_path / "config.yaml").write_text("bins: 200\n")
    execute([unit(2)], tmp_path)
    assert read(tmp_path)["revision"].tolist() == ["step2"]
    assert Store(tmp_path).state(unit(1).name) == "done"


def test_status_counts_what_is_planned_done_and_failed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no plan; `infocomp run CONFIG --out .*` starts a run there"):
        status(tmp_path)
    counts = []
    units = [unit(0), failing(1, ValueError("no")), unit(2, lambda: counts.append(status(tmp_path)) or unit(2).run())]
    execute(units, tmp_path)
    assert (counts[0].planned, counts[0].done, counts[0].failed) == (3, 1, 1)
    assert f"process {os.getpid()} on " in counts[0].running
    assert status(tmp_path) == Status(planned=3, done=2, failed=1, running=None)


# --- two runs, one folder ---


def hold(out, ready, release):
    with RunLock(out):
        ready.set()
        release.wait(60)


def test_a_second_run_refuses_and_names_the_first_ones_process(tmp_path):
    ready, release = FORKSERVER.Event(), FORKSERVER.Event()
    first = FORKSERVER.Process(target=hold, args=(tmp_path, ready, release))
    first.start()
    assert ready.wait(60)
    try:
        with pytest.raises(FolderInUse) as caught:
            execute([unit(0)], tmp_path)
        sentence = str(caught.value)
        assert sentence.startswith(f"{tmp_path} is in use by process {first.pid} on {os.uname().nodename} since 20")
        assert sentence.endswith("; wait for it or choose another --out")
        assert not (tmp_path / "plan.json").exists()
        assert f"process {first.pid} " in str(holder(tmp_path))
    finally:
        release.set()
        first.join()
    assert holder(tmp_path) is None
    assert execute([unit(0)], tmp_path).exit_code == 0


def test_a_killed_runs_lock_is_free_at_once(tmp_path):
    ready, release = FORKSERVER.Event(), FORKSERVER.Event()
    first = FORKSERVER.Process(target=hold, args=(tmp_path, ready, release))
    first.start()
    assert ready.wait(60)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert (tmp_path / ".owner.json").exists()
    assert holder(tmp_path) is None
    start = time.monotonic()
    with RunLock(tmp_path):
        assert time.monotonic() - start < 0.4
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


def test_what_a_killed_run_wrote_about_itself_is_not_taken_for_the_next_ones(tmp_path):
    """A second run meets the lock of a first one that has not signed yet, beside the signature of a dead process."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = {"process": dead.pid, "host": socket.gethostname(), "since": "2026", "command": "infocomp run"}
    (tmp_path / ".owner.json").write_text(json.dumps(owner))
    with FileLock(tmp_path / ".lock"), pytest.raises(FolderInUse, match="is in use by another process; wait for it"):
        execute([unit(0)], tmp_path)


def test_the_same_thread_may_hold_the_folder_over_several_calls_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            execute([unit(1)], tmp_path)
        except FolderInUse as error:
            refused.append(str(error))

    with RunLock(tmp_path):
        execute([unit(0)], tmp_path)
        assert holder(tmp_path) is not None
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} on" in refused[0]
    assert holder(tmp_path) is None


def test_a_folder_that_cannot_be_one_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file cannot be used as a run folder \(File exists\); choose another"):
        execute([unit(0)], tmp_path / "file")


# --- killed at any moment ---


def heavy(index):
    """A unit with about 0.2 MiB of rows that hardly compress, and documents."""
    describe = {"model": "m", "revision": f"step{index}"}
    settings = {"index": index}

    def run():
        source = random.Random(index)
        rows = [
            row(
                **describe,
                step=index,
                fingerprint=f"weights{index // 2}",
                quantity="complexity",
                draw=str(draw),
                value=source.random(),
                settings=settings | {"noise": source.randbytes(2000).hex()},
            )
            for draw in range(100)
        ]
        documents = [
            {**describe, "corpus": "c", "document": f"d{i}", "n_tokens": i, "n_bytes": i, "bits": source.random()}
            for i in range(50)
        ]
        return UnitResult(rows, documents)

    return Unit(unit_name(**settings), f"step{index}", describe, run)


def thirty_units(out):
    execute([heavy(index) for index in range(30)], out)


def attempt(out, kill):
    """Run the thirty units in a process of its own and SIGKILL it when `kill()` says so. True: it was killed."""
    process = FORKSERVER.Process(target=thirty_units, args=(out,))
    process.start()
    while process.is_alive() and not kill():
        time.sleep(0.0003)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def parts_with_times(out):
    store = Store(out)
    return {unit: store.part_path(unit).stat().st_mtime_ns for unit in store.units()}


class Moment:
    """When to kill: so many seconds after the start, or after a new file of this pattern is seen."""

    def __init__(self, seconds, folder=None, pattern=""):
        self.seconds, self.folder, self.pattern = seconds, folder, pattern
        self.before = set(folder.glob(pattern)) if folder else set()
        self.since = None if folder else time.monotonic()

    def __call__(self):
        if self.since is None and not self.before.issuperset(self.folder.glob(self.pattern)):
            self.since = time.monotonic()
        return self.since is not None and time.monotonic() >= self.since + self.seconds


def test_a_run_killed_at_many_random_moments_ends_with_the_same_table(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert not attempt(whole, lambda: False)
    source = random.Random(0)
    moments = [
        lambda: Moment(source.uniform(0, 0.1)),  # starting, taking the lock, looking at what is done
        lambda: Moment(source.uniform(0, 0.05), killed / "parts", "*.parquet"),  # anywhere in a unit
        lambda: Moment(source.uniform(0, 0.003), killed / "parts", ".*.tmp"),  # in the write of a part
    ] * 6
    moments += [lambda: Moment(source.uniform(0, 0.01), killed, ".*.parquet.*.tmp")] * 6  # in the merge's write
    # under load a moment comes too late for a write: up to 40 more are tried until one has come in time
    more = [lambda: Moment(source.uniform(0, 0.001), killed, ".*.parquet.*.tmp")] * 40
    kills = inside_a_write = 0
    done: dict[str, int] = {}
    for number, moment in enumerate(moments + more):
        if number >= len(moments) and inside_a_write:
            break
        kills += attempt(killed, moment())
        inside_a_write += any(killed.rglob(".*.parquet.*.tmp"))
        now = parts_with_times(killed)
        assert done.items() <= now.items(), "a part that was done was lost or done again"
        done = now
    assert kills >= 15 and inside_a_write >= 1
    assert not attempt(killed, lambda: False)
    assert not list(killed.rglob("*.tmp")) and not (killed / "parts" / "damaged").exists()
    for name in (RESULTS, "documents.parquet"):
        first, second = pq.read_table(whole / name), pq.read_table(killed / name)
        fixed = [column for column in first.column_names if column not in VOLATILE]
        assert first.num_rows >= 1500 and first.select(fixed).equals(second.select(fixed))


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "infocomp-test", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here to make a small file system with")
    if made.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_stops_the_run_in_one_sentence_and_loses_nothing(small_disk):
    out = small_disk / "run"
    units = [heavy(index) for index in range(8)]
    outcome = execute(units, out)
    assert outcome.exit_code == 1 and outcome.failed == 1 and 1 <= outcome.done < 7
    part = Store(out).part_path(units[outcome.done].name)
    assert outcome.stopped.startswith(f"no space is left for {out} (")
    assert f"cannot write {part} (No space left on device); {outcome.done} of 8 units are done" in outcome.stopped
    assert outcome.stopped.endswith("and kept; make room and give the same command again")
    assert [Store(out).state(unit.name) for unit in units[: outcome.done]] == ["done"] * outcome.done
    assert not list(out.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert execute(units, out) == Outcome(done=8 - outcome.done, skipped=outcome.done)
    assert len(read(out)) == 800 and (read(out)["status"] == "ok").all()


def test_a_disk_full_from_the_start_is_one_sentence_too(small_disk):
    with pytest.raises(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    outcome = execute([unit(0)], small_disk)
    assert outcome.exit_code == 1 and outcome.stopped.startswith(f"no space is left for {small_disk} (0.0 MiB free)")
    assert not list(small_disk.rglob("*.tmp")) and holder(small_disk) is None


def test_a_unit_that_meets_a_full_disk_stops_the_run_however_its_library_says_so(tmp_path):
    error = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    outcome = execute([unit(0), failing(1, error), unit(2)], tmp_path)
    assert (outcome.done, outcome.failed, outcome.exit_code) == (1, 1, 1)
    assert "no space is left for" in outcome.stopped and "1 of 3 units are done and kept" in outcome.stopped
    assert read(tmp_path)["status"].tolist() == ["ok", "failed"]


def test_a_merged_table_that_cannot_be_written_leaves_the_parts_and_says_so(tmp_path):
    execute([unit(0)], tmp_path)
    (tmp_path / RESULTS).unlink()
    (tmp_path / RESULTS).mkdir()
    outcome = execute([unit(0), unit(1)], tmp_path)
    assert outcome.exit_code == 1 and outcome.done == 1
    assert outcome.stopped.startswith(f"cannot write {tmp_path / RESULTS} (Is a directory); 2 of 2 units are done")
    assert Store(tmp_path).state(unit(1).name) == "done"


def limited_run(out):
    limit = 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    outcome = execute([unit(0), heavy(1), unit(2)], out)
    (Path(out).parent / "outcome.json").write_text(json.dumps([outcome.exit_code, outcome.stopped]))


def test_a_file_over_the_systems_limit_stops_the_run_and_loses_nothing(tmp_path):
    process = FORKSERVER.Process(target=limited_run, args=(tmp_path / "run",))
    process.start()
    process.join()
    exit_code, stopped = json.loads((tmp_path / "outcome.json").read_text())
    path = Store(tmp_path / "run").part_path(heavy(1).name)
    assert exit_code == 1
    assert stopped == (
        f"cannot write {path} (File too large); 1 of 3 units are done and kept; "
        "put that right and give the same command again"
    )
    assert sorted(read(tmp_path / "run")["status"]) == ["failed", "ok"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_importing_the_runner_stays_cheap():
    """`infocomp status` and `--help` must not wait for torch."""
    script = "import sys, infocomp.execution.runner; print('torch' in sys.modules, 'wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_storage_error_is_an_operating_system_error_with_its_number():
    assert issubclass(StorageError, OSError) and StorageError(28, "cannot write x").errno == 28
