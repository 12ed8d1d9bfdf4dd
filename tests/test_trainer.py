"""The one training loop: rows, schedule, checkpoints, and going on after being killed at any moment."""

import math
import multiprocessing
import os
import random
import resource
import signal
import time
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.nn import functional

from infocomp.training.optimizers import AdamWSettings, MuonSettings, SGDSettings
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings, ShuffledOrder
from infocomp.training.state import write_atomically
from infocomp.training.trainer import Hooks, Task, TrainerSettings, train

STEPS = 40
EXAMPLES = 50


class Small(nn.Module):
    """Every kind of state that a resume has to bring back: matrices, vectors, an embedding, buffers, dropout."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(EXAMPLES, 8)
        self.inner = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.3)
        self.outer = nn.Linear(16, 8)
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, indices):
        return self.head(self.outer(self.dropout(functional.relu(self.norm(self.inner(self.embedding(indices)))))))


def small_task(loss=None, data: str = "squares", optimizers=None) -> Task:
    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(3)

    def noisy_loss(model, indices):
        noise = 0.1 * torch.randn(len(indices), 5, generator=generator)
        return functional.cross_entropy(model(indices) + noise, indices % 5)

    return Task(
        model=Small(),
        loss=noisy_loss if loss is None else loss,
        order=ShuffledOrder(EXAMPLES, 12, seed=1),
        tokens_per_step=12,
        optimizers=optimizers,
        generator=generator,
        identity={"data": data},
    )


def small_settings(**changes) -> TrainerSettings:
    values = {
        "steps": STEPS,
        "optimizer": MuonSettings(rest=AdamWSettings(learning_rate=0.01), not_hidden=("head.weight",)),
        "schedule": ScheduleSettings(warmup_steps=3, decay="cosine"),
        "clip_norm": 1.0,
        "checkpoints": CheckpointSettings(log_spaced_until=8, every=16),
        "state_every_steps": 3,
    }
    return TrainerSettings(**(values | changes))


def folder_hooks(out: Path, **changes) -> Hooks:
    """Checkpoints as files, an event, a measurement that draws random numbers."""

    def file(step):
        return out / "weights" / f"step{step}.pt"

    def save(step, model):
        if not file(step).exists():
            file(step).parent.mkdir(parents=True, exist_ok=True)
            torch.save(model.state_dict(), file(step).with_suffix(".tmp"))
            file(step).with_suffix(".tmp").replace(file(step))

    values = {
        "save": save,
        "has": lambda step: file(step).exists(),
        "event": lambda step, rows, measured: measured.get("draw", 0.0) > 0.8,
        "measure": lambda step, model: {"draw": torch.rand(()).item()} if step % 5 == 0 else {},
    }
    return Hooks(**(values | changes))


def small_run(out: Path, **hooks):
    """One run, or the rest of one, in this process; its weights, rows and the file's rows."""
    task = small_task()
    result = train(task, small_settings(), out, folder_hooks(out, **hooks))
    return task.model.state_dict(), result, pq.read_table(out / "training" / "steps.parquet").to_pylist()


def in_a_child(function, *arguments):
    """A forked process: it has torch already, so it can be killed often."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python ≥ 3.12: the parent may have threads
        process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        process.start()
    return process


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    return small_run(tmp_path_factory.mktemp("uninterrupted"))


def assert_equal_runs(run, expected):
    for name, tensor in expected[0].items():
        assert torch.equal(run[0][name], tensor), name
    assert run[1].rows == expected[1].rows
    assert run[2] == expected[2]
    assert run[1].status == "ok" and run[1].step == STEPS


def test_a_row_per_step_has_the_loss_before_the_update(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(1, 1, bias=False)
    weight = model.weight.item()
    task = Task(model, lambda model, _: (model.weight**2).sum(), lambda step: torch.zeros(1), tokens_per_step=10)
    settings = TrainerSettings(steps=3, optimizer=SGDSettings(learning_rate=0.25))
    rows = train(task, settings, tmp_path).rows
    for step, row in enumerate(rows):
        halved = weight * 0.5**step  # w − 0.25 · 2w
        assert row["step"] == step and row["tokens"] == 10 * step and row["status"] == "ok"
        assert row["loss"] == pytest.approx(halved**2, rel=1e-6)
        assert row["gradient_norm"] == pytest.approx(abs(2 * halved), rel=1e-6)
        assert row["learning_rate"] == 0.25
    assert len(rows) == 3


def test_the_rows_stand_in_a_parquet_file_with_what_was_measured(uninterrupted):
    _, result, table = uninterrupted
    assert [row["step"] for row in table] == list(range(STEPS + 1))  # the last only measured
    assert table[5]["draw"] == result.rows[5]["draw"] and table[6]["draw"] is None
    assert table[-1]["loss"] is None and table[-1]["draw"] is not None
    assert table[0]["message"] is None and {row["status"] for row in table} == {"ok"}


def test_the_schedule_multiplies_every_learning_rate(tmp_path):
    task = small_task()
    rows = train(task, small_settings(), tmp_path).rows
    shares = [small_settings().schedule.share(step, STEPS) for step in range(STEPS)]
    assert [row["learning_rate"] for row in rows] == [0.02 * share for share in shares]


def test_checkpoints_hold_the_weights_of_their_step(tmp_path):
    seen = {}
    hooks = Hooks(save=lambda step, model: seen.update({step: model.head.weight.detach().clone()}))
    task = small_task()
    first = task.model.head.weight.detach().clone()
    train(task, small_settings(), tmp_path, hooks)
    assert sorted(seen) == [0, 1, 2, 4, 8, 16, 32, 40]
    assert torch.equal(seen[0], first) and not torch.equal(seen[1], first)
    assert torch.equal(seen[40], task.model.head.weight)


def test_an_event_makes_a_checkpoint_of_the_step_that_was_measured(uninterrupted, tmp_path):
    saved = []
    train(
        small_task(),
        small_settings(),
        tmp_path,
        folder_hooks(tmp_path, save=lambda step, _: saved.append(step), has=None),
    )
    events = [row["step"] for row in uninterrupted[1].rows if row.get("draw", 0) > 0.8]
    assert events and set(events) <= set(saved)
    assert set(saved) == {0, 1, 2, 4, 8, 16, 32, 40} | set(events)


def test_measuring_and_saving_do_not_change_the_training(uninterrupted, tmp_path):
    task = small_task()
    train(task, small_settings(), tmp_path)
    assert all(torch.equal(tensor, uninterrupted[0][name]) for name, tensor in task.model.state_dict().items())


def test_training_leaves_torchs_own_generator_where_it_was(tmp_path):
    task = small_task()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(task, small_settings(steps=3), tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_progress_is_told_after_every_step(tmp_path):
    told = []
    train(small_task(), small_settings(steps=4), tmp_path, Hooks(progress=lambda *values: told.append(values)))
    assert [values[:2] for values in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(math.isfinite(loss) for _, _, loss in told)


def slow_run(out: Path) -> None:
    """At least 0.2 seconds long, so that it can be killed before its end on any machine."""
    small_run(out, progress=lambda *_: time.sleep(0.2 / STEPS))


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_it_ends_with_equal_weights_and_rows(tmp_path, uninterrupted, seed):
    delays = random.Random(seed)
    kills = 0
    for _ in range(12):
        child = in_a_child(slow_run, tmp_path)
        child.join(delays.uniform(0.01, 0.15))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
    assert_equal_runs(small_run(tmp_path), uninterrupted)
    assert kills


def run_and_die_while_writing(out: Path, name: str, moment: str, count: int) -> None:
    """Die when the file is written for the count-th time: half of it there, all of it, or just renamed."""
    opened, left = [""], [count]
    open_file, flush, rename = Path.open, os.fsync, os.replace

    def die(now: str) -> None:
        left[0] -= now == moment
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_open(path, *arguments, **options):
        opened[0] = path.name
        return open_file(path, *arguments, **options)

    def dying_flush(descriptor):
        if name in opened[0]:
            if moment == "half" and left[0] == 1:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die("half")
        flush(descriptor)

    def dying_rename(source, target):
        if Path(target).name == name:
            die("whole")
        rename(source, target)
        if Path(target).name == name:
            die("renamed")

    Path.open, os.fsync, os.replace = dying_open, dying_flush, dying_rename
    small_run(out)


@pytest.mark.parametrize("name", ["state.pt", "steps.parquet"])
def test_killed_inside_a_write_it_ends_with_equal_weights_and_rows(tmp_path, uninterrupted, name):
    for count in (1, 2, 3):
        for moment in ("half", "whole", "renamed"):
            child = in_a_child(run_and_die_while_writing, tmp_path, name, moment, count)
            child.join()
            assert child.exitcode == -signal.SIGKILL
    assert_equal_runs(small_run(tmp_path), uninterrupted)


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    small_run(tmp_path)
    told = []
    run = small_run(tmp_path, progress=lambda *values: told.append(values))
    assert_equal_runs(run, uninterrupted)
    assert run[1].resumed_from == STEPS and not told


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    class Stop(Exception):
        pass

    def stop(step, steps, loss):
        if step == 8:
            raise Stop

    settings = small_settings(state_every_steps=6, checkpoints=CheckpointSettings(log_spaced_until=0))
    with pytest.raises(Stop):
        train(small_task(), settings, tmp_path, Hooks(progress=stop))
    steps = []
    result = train(small_task(), settings, tmp_path, Hooks(progress=lambda step, *_: steps.append(step)))
    assert result.resumed_from == 6 and steps[0] == 7
    assert [row["step"] for row in result.rows] == list(range(STEPS))


def test_states_are_written_by_time_too(tmp_path):
    settings = small_settings(
        state_every_steps=None, state_every_seconds=0.02, checkpoints=CheckpointSettings(log_spaced_until=0)
    )
    written = []

    def watch(step, steps, loss):
        time.sleep(0.005)
        written.append((tmp_path / "training" / "state.pt").stat().st_mtime_ns)

    train(small_task(), settings, tmp_path, Hooks(progress=watch))
    assert len(set(written)) > 2


def test_a_checkpoint_that_was_removed_is_made_again_from_the_last_state_before_it(tmp_path, uninterrupted):
    task, settings = small_task(), small_settings(keep_states=True)
    train(task, settings, tmp_path, folder_hooks(tmp_path))
    removed = tmp_path / "weights" / "step16.pt"
    before = removed.read_bytes()
    removed.unlink()
    again = small_task()
    result = train(again, settings, tmp_path, folder_hooks(tmp_path))
    assert 8 <= result.resumed_from < 16
    assert removed.read_bytes() == before
    assert all(torch.equal(tensor, uninterrupted[0][name]) for name, tensor in again.model.state_dict().items())


def test_kept_states_stand_at_every_checkpoint(tmp_path):
    train(small_task(), small_settings(keep_states=True), tmp_path)
    names = sorted(path.name for path in (tmp_path / "training" / "states").iterdir())
    assert names == sorted(f"step{step}.pt" for step in [0, 1, 2, 4, 8, 16, 32, 40])


@pytest.mark.parametrize("bad, word", [(math.nan, "nan"), (math.inf, "inf")])
def test_a_diverged_run_stops_with_a_failed_row_before_the_update(tmp_path, bad, word):
    calls = []

    def loss(model, indices):
        calls.append(1)
        return functional.cross_entropy(model(indices), indices % 5) + (bad if len(calls) == 8 else 0.0)

    task = small_task(loss=loss)
    result = train(task, small_settings(), tmp_path)
    message = f"loss became {word} at step 7 of 40; lower the learning rate, lengthen the warm-up or clip the gradient"
    assert (result.status, result.step, result.message) == ("failed", 7, message)
    table = pq.read_table(tmp_path / "training" / "steps.parquet").to_pylist()
    assert len(table) == 8 and table[-1]["status"] == "failed" and table[-1]["message"] == message
    assert all(torch.isfinite(parameter).all() for parameter in task.model.parameters())
    again = train(small_task(loss=loss), small_settings(), tmp_path)
    assert (again.status, again.message, len(calls)) == ("failed", message, 8)


def test_an_infinite_gradient_stops_the_run_too(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    task = Task(model, lambda model, _: model.weight.sum().sqrt(), lambda step: torch.zeros(1))
    result = train(task, TrainerSettings(steps=3), tmp_path)
    assert result.status == "failed" and "gradient norm became" in result.message and "at step 0 of 3" in result.message


def test_a_full_disk_is_one_sentence_and_the_earlier_state_stays_valid(tmp_path, uninterrupted):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, steps, loss):
        if step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))

    message = (
        r"state\.pt could not be written \(File too large\); free some disk space and run again: "
        "all that was written before is whole, and the training goes on from there"
    )
    try:
        with pytest.raises(OSError, match=message):
            small_run(tmp_path, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (tmp_path / "training").iterdir() if path.suffix == ".tmp"]
    run = small_run(tmp_path)
    assert run[1].resumed_from == 20 or run[1].resumed_from == 18
    assert_equal_runs(run, uninterrupted)


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_atomically(tmp_path / "file", b"earlier")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        with pytest.raises(OSError, match=r"file could not be written \(File too large\)"):
            write_atomically(tmp_path / "file", b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_with_another_run_names_the_first_difference(tmp_path):
    train(small_task(), small_settings(steps=4), tmp_path)
    with pytest.raises(
        ValueError, match=r"belongs to another run: settings\.steps is 4 there and 5 here; give another"
    ):
        train(small_task(), small_settings(steps=5), tmp_path)
    with pytest.raises(ValueError, match="data is 'squares' there and 'cubes' here"):
        train(small_task(data="cubes"), small_settings(steps=4), tmp_path)


def test_how_often_states_are_written_does_not_make_another_run(tmp_path):
    train(small_task(), small_settings(steps=4), tmp_path)
    assert train(small_task(), small_settings(steps=4, state_every_steps=1), tmp_path).resumed_from == 4


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_a_broken_state_file_is_one_sentence(tmp_path, content):
    train(small_task(), small_settings(steps=4), tmp_path)
    path = tmp_path / "training" / "state.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(
        ValueError, match=r"state\.pt is no training state \(.*\); delete it to train without it"
    ) as error:
        train(small_task(), small_settings(steps=4), tmp_path)
    assert "\n" not in str(error.value)


def test_a_state_of_another_version_is_refused(tmp_path):
    train(small_task(), small_settings(steps=4), tmp_path)
    path = tmp_path / "training" / "state.pt"
    torch.save(torch.load(path, weights_only=True) | {"version": 99}, path)
    with pytest.raises(ValueError, match="has version 99, this program reads 1; train into a new folder"):
        train(small_task(), small_settings(steps=4), tmp_path)


def test_a_loss_that_is_no_single_number_is_refused(tmp_path):
    task = small_task(loss=lambda model, indices: model(indices).sum(dim=1))
    with pytest.raises(ValueError, match=r"loss must be one number, a scalar tensor, and has shape \(12,\)"):
        train(task, small_settings(), tmp_path)


def test_a_measurement_may_not_take_a_column_of_the_loop(tmp_path):
    hooks = Hooks(measure=lambda step, model: {"loss": 1.0})
    with pytest.raises(ValueError, match="measure gives 'loss', which is a column of the loop's own; give it another"):
        train(small_task(), small_settings(), tmp_path, hooks)


def test_a_factory_of_ones_own_takes_the_place_of_the_settings(tmp_path):
    used = []

    def factory(model):
        used.append(torch.optim.Adagrad(model.parameters(), lr=0.5))
        return used

    result = train(small_task(optimizers=factory), small_settings(steps=3), tmp_path)
    assert len(used) == 1 and result.rows[2]["learning_rate"] == 0.5
