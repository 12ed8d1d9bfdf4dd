"""Trainings whose parent or worker is killed: nothing stays behind, nothing is trained twice, the others go on."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
import torch
from test_kill_and_resume import wait
from tiny_recipes import TinyJob, same_results, tiny_recipe

from infocomp.training.many import Mode, train_many
from infocomp.training.recipe import RESULT, MemberResult, Recipe, train_one
from infocomp.training.stacked import GROUP, StackedTraining
from infocomp.training.state import read_state, write_state
from infocomp.training.trainer import TRAINING
from infocomp.training.workers import WorkerPool

STEPS = 300  # of a training that takes longer than SOON, so that it is killed in the middle
SOON = 5.0  # seconds in which a worker must have seen that nobody listens any more


def forked(body: Callable[[], None]) -> int:
    """A child process that runs `body`; exit code 0, or 70 after an exception."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        body()
        os._exit(0)
    except BaseException:
        os._exit(70)


def trained(
    recipes: Mapping[str, Recipe], out: Path, mode: Mode = "auto", **options
) -> tuple[dict[str, MemberResult], dict]:
    """All results, and for each member the steps that were told at a time."""
    told: dict[str, list[int]] = {}
    with train_many(
        recipes, out, mode=mode, advance=lambda name, steps, loss: told.setdefault(name, []).append(steps), **options
    ) as many:
        return {name: many.result(name) for name in recipes}, told


def worker_processes() -> list[psutil.Process]:
    """Children of this process that train; other tests may have left it children of another kind."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "infocomp.training.workers" in child.cmdline():
                found.append(child)
    return found


def gone(processes: list[psutil.Process], seconds: float = SOON) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def states(out: Path) -> dict[str, int]:
    """Step of every resume state in the folder, by the name of the folder that it belongs to."""
    return {path.parents[1].name: read_state(path, None).step for path in out.rglob("state.pt")}


# --- worker processes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed_parent(tmp_path_factory) -> tuple[Path, bool, dict[str, int]]:
    """A parent that is killed when it first hears of progress: its folder, whether its workers ended, their states."""
    out = tmp_path_factory.mktemp("killed")
    slow = {name: tiny_recipe(seed, steps=STEPS, pause=0.02, states=0.05) for seed, name in enumerate("ab")}

    def die(name: str, steps: int, loss: float) -> None:
        (out / "workers").write_text(" ".join(str(worker.pid) for worker in psutil.Process().children()))
        os.kill(os.getpid(), signal.SIGKILL)

    child = forked(lambda: train_many(slow, out, mode="processes", workers=1, advance=die).result("a") and None)
    assert wait(child, 120) == -signal.SIGKILL
    (pid,) = map(int, (out / "workers").read_text().split())
    return out, gone([psutil.Process(pid)] if psutil.pid_exists(pid) else []), states(out)


def test_workers_of_a_killed_parent_end_within_seconds(killed_parent):
    assert killed_parent[1], "a worker trains on though nobody listens"


def test_the_next_call_goes_on_from_the_workers_states(killed_parent, tmp_path):
    out, _, before = killed_parent
    assert before.keys() == {"a"} and 0 < before["a"] < STEPS
    recipe = tiny_recipe(0, steps=STEPS)
    found, told = trained({"a": recipe}, out, "in_turn")
    assert found["a"].resumed and told["a"][0] == before["a"] + 1, "the first step told is the one after the state"
    assert sum(told["a"]) == STEPS
    same_results(found["a"], train_one(recipe, tmp_path / "a"), rtol=1e-12)


def test_a_killed_worker_is_one_failed_result_and_the_others_go_on(tmp_path):
    """The first worker is killed before it took its data (8 MB don't fit into a pipe: whoever sends them finds it
    broken), the second in the middle of a; b trains behind them; asked for again, a goes on from its state."""
    recipes: dict[str, Recipe] = {
        "large": tiny_recipe(5, rows=160_000, steps=1),
        "a": tiny_recipe(0, steps=60, dies_at=40, states=1e-3),
        "b": tiny_recipe(1, steps=60),
    }

    def kill_the_first() -> None:
        end = time.monotonic() + 60
        while not worker_processes() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        worker_processes()[0].kill()

    thread = threading.Thread(target=kill_the_first)
    thread.start()
    found, told = trained(recipes, tmp_path, "processes", workers=1)
    thread.join()
    sentence = (
        "the worker process was ended by signal 9 (SIGKILL) while it worked; was the memory full? use fewer workers; "
        "the same command goes on from its last state"
    )
    for name in ("large", "a"):
        assert (found[name].status, found[name].message, found[name].arrays) == ("failed", sentence, {})
    assert sum(told["b"]) == 60
    same_results(found["b"], train_one(recipes["b"], tmp_path / "alone" / "b"))
    assert states(tmp_path) == {"a": 40}
    again, told = trained({"a": tiny_recipe(0, steps=60)}, tmp_path, "in_turn")
    assert again["a"].resumed and told["a"][0] == 41 and sum(told["a"]) == 60
    same_results(again["a"], train_one(tiny_recipe(0, steps=60), tmp_path / "alone" / "a"))


def test_ctrl_c_as_a_terminal_sends_it_to_all_ends_the_workers_at_once(tmp_path):
    recipes: dict[str, Recipe] = {name: tiny_recipe(steps=100_000, pause=0.01) for name in "ab"}

    def body() -> None:
        os.setpgrp()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            trained(recipes, tmp_path, "processes", workers=1)
        except KeyboardInterrupt:
            os._exit(0 if not psutil.Process().children() else 71)

    child = forked(body)
    parent, end = psutil.Process(child), time.monotonic() + 60
    while not list(tmp_path.rglob("state.pt")) and time.monotonic() < end:  # the worker is training
        time.sleep(0.02)
    workers = parent.children()
    assert len(workers) == 1
    begin = time.monotonic()
    os.killpg(child, signal.SIGINT)
    assert wait(child, 30) == 0, "71: a worker was left when the block had ended"
    assert gone(workers, 0.5) and time.monotonic() - begin < SOON


# --- a stack ----------------------------------------------------------------------------------------------------------


def stack(**faults) -> dict[str, Recipe]:
    return {
        name: tiny_recipe(seed, steps=60, **faults if name == "a" else {}, states=1e-3)
        for seed, name in enumerate("abc")
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, MemberResult]:
    out = tmp_path_factory.mktemp("alone")
    return {name: train_one(recipe, out / name) for name, recipe in stack().items()}


@pytest.mark.parametrize("given", ["abc", "bc", "c"])
def test_a_killed_stack_goes_on_also_for_some_of_its_members(tmp_path, alone, given):
    child = forked(lambda: trained(stack(dies_at=37), tmp_path, "stacked") and None)
    assert wait(child, 120) == -signal.SIGKILL
    assert list(states(tmp_path / GROUP).values()) == [35]
    recipes = {name: recipe for name, recipe in stack().items() if name in given}
    found, told = trained(recipes, tmp_path)
    for name in given:
        assert found[name].resumed and told[name] == [35, *[5] * 5]
        same_results(found[name], alone[name])
    assert not states(tmp_path), "what is done needs no state"


def test_a_stack_killed_while_it_writes_results_trains_nothing_again(tmp_path, alone):
    faulty = {name: tiny_recipe(seed, steps=60, dies_finished=name == "b") for seed, name in enumerate("abc")}
    child = forked(lambda: trained(faulty, tmp_path, "stacked") and None)
    assert wait(child, 120) == -signal.SIGKILL
    assert [name for name in "abc" if (tmp_path / name / RESULT).exists()] == ["a"]
    assert list(states(tmp_path / GROUP).values()) == [60]
    found, told = trained(stack(), tmp_path)
    for name in "abc":
        assert found[name].resumed and told[name] == [60]
        same_results(found[name], alone[name])


def test_a_stack_that_was_killed_twice_goes_on_from_the_later_state(tmp_path, alone):
    for given, step in (("abc", 22), ("ac", 47), ("ac", 58)):
        recipes = {name: recipe for name, recipe in stack(dies_at=step).items() if name in given}
        child = forked(lambda recipes=recipes: trained(recipes, tmp_path, "stacked") and None)
        assert wait(child, 120) == -signal.SIGKILL
    found, told = trained({name: recipe for name, recipe in stack().items() if name != "b"}, tmp_path)
    assert told["a"][0] == 55
    same_results(found["a"], alone["a"])
    same_results(found["c"], alone["c"])


def test_a_stack_of_other_data_or_a_damaged_state_is_begun_anew(tmp_path, alone):
    for damage in (False, True):
        out = tmp_path / str(damage)
        child = forked(lambda out=out: trained(stack(dies_at=37), out, "stacked") and None)
        assert wait(child, 120) == -signal.SIGKILL
        recipes = stack()
        if damage:
            (path,) = (out / GROUP).rglob("state.pt")
            path.write_bytes(path.read_bytes()[:1000])
        else:
            recipes["b"] = tiny_recipe(7, steps=60)
        found, told = trained(recipes, out)
        assert not any(one.resumed for one in found.values()) and told["a"] == [5] * 12
        same_results(found["a"], alone["a"])


# --- in turn ----------------------------------------------------------------------------------------------------------


def test_in_turn_goes_on_from_a_kill_in_training_and_from_one_just_after(tmp_path):
    for dies_at in (23, None):
        out = tmp_path / str(dies_at)
        deadly = tiny_recipe(1, steps=60, states=1e-3, dies_at=dies_at, dies_finished=dies_at is None)
        faulty = {"a": tiny_recipe(0, steps=60), "b": deadly}
        child = forked(lambda faulty=faulty, out=out: trained(faulty, out, "in_turn") and None)
        assert wait(child, 120) == -signal.SIGKILL
        recipes = {name: tiny_recipe(seed, steps=60) for seed, name in enumerate("ab")}
        found, told = trained(recipes, out, "in_turn")
        assert all(one.resumed for one in found.values()) and told["a"] == [60]
        assert sum(told["b"]) == 60 and told["b"][0] == (60 if dies_at is None else 24)
        same_results(found["b"], train_one(recipes["b"], tmp_path / "alone"))


def test_a_stopped_stack_goes_on_as_it_was_though_others_are_given_before_its_members(tmp_path):
    recipes = {name: tiny_recipe(seed) for seed, name in enumerate("abcd")}
    stopped = StackedTraining({name: recipes[name] for name in "cd"})
    for _ in range(7):
        stopped.update()
    write_state(tmp_path / GROUP / "stopped" / TRAINING, stopped._state())
    with train_many(recipes, tmp_path, mode="stacked") as many:
        found = {name: many.result(name) for name in recipes}
    assert {name: one.resumed for name, one in found.items()} == {"a": False, "b": False, "c": True, "d": True}
    assert all(one.rows[-1]["step"] == 30 for one in found.values())


def test_other_jobs_come_back_fail_with_their_sentence_or_die_alone(tmp_path):
    jobs = {name: (TinyJob(number), tmp_path) for name, number in (("dies", 0), ("three", 3), ("bad", -1), ("four", 4))}
    pool = WorkerPool(jobs, 2)
    try:
        found = {name: pool.result(name) for name in jobs}
    finally:
        pool.close()
    assert (found["three"], found["four"]) == (9, 16)
    assert (found["bad"].status, found["bad"].message) == ("failed", "number must be at least 0, got -1")
    assert found["dies"].status == "failed" and "ended by signal 9 (SIGKILL) while it worked" in found["dies"].message
