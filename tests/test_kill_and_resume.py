"""A run killed with SIGKILL at any moment and started again ends with the same table, in every column but two."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_run import tiny_config

from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import VOLATILE, read
from infocomp.studies.commands import open_study

LEAST_KILLS = 21


def start(config: dict, out: Path, die_at_replace: int | None = None) -> int:
    """Fork a process that runs the study; with `die_at_replace` it kills itself inside its n-th write, file written
    and not yet renamed."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        if die_at_replace is not None:
            _die_inside_a_write(die_at_replace)
        study, text = open_study(config, [], out)
        study.figures = list
        outcome, _ = run_study(study, text, Silent())
        os._exit(outcome.exit_code)
    except BaseException as error:
        (out.parent / "error.txt").write_text(repr(error))
        os._exit(70)


def _die_inside_a_write(number: int) -> None:
    left = [number]

    def counted(original):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    os.replace, os.rename = counted(os.replace), counted(os.rename)
    Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)


def wait(child: int, seconds: float | None = None) -> int | None:
    """Exit code, negative for a signal; after `seconds` the child is killed."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)


def comparable(out: Path) -> pd.DataFrame:
    return read(out).drop(columns=list(VOLATILE))


def trained(out: Path) -> bool:
    return (out / "checkpoints" / "step8").exists()


def take_parts_away(out: Path, generator: random.Random) -> None:
    """What was measured last is not there yet: as if the run had been killed before."""
    parts = sorted((out / "parts").glob("*.parquet"))
    for part in generator.sample(parts, len(parts) // 2):
        part.unlink()


@pytest.mark.timeout(900)
def test_killed_at_more_than_twenty_random_moments_the_table_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOCOMP_CACHE", str(tmp_path / "cache"))
    config = tiny_config(tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    begin = time.monotonic()
    child = start(config, whole)
    while not trained(whole) and time.monotonic() - begin < 200:
        time.sleep(0.002)
    lengths = {"training": time.monotonic() - begin}
    assert wait(child) == 0
    lengths["measuring"] = time.monotonic() - begin - lengths["training"]

    generator = random.Random(0)
    killed = {"training": 0, "measuring": 0}
    inside = 0
    while (min(killed.values()) < 6 or sum(killed.values()) < LEAST_KILLS) and time.monotonic() - begin < 600:
        phase = "training" if killed["training"] <= killed["measuring"] else "measuring"
        if phase == "training" and trained(out):
            shutil.rmtree(out)
        if sum(killed.values()) % 3 == 2:
            code = wait(start(config, out, die_at_replace=generator.randint(1, 6)))
            inside += code == -signal.SIGKILL
        else:
            code = wait(start(config, out), generator.random() * lengths[phase])
        assert code in (0, -signal.SIGKILL), (tmp_path / "error.txt").read_text()
        if code == 0:
            take_parts_away(out, generator)
        else:
            killed["measuring" if trained(out) else "training"] += 1
    assert wait(start(config, out)) == 0
    assert sum(killed.values()) >= LEAST_KILLS and min(killed.values()) >= 6 and inside >= 4, (killed, inside)

    pd.testing.assert_frame_equal(comparable(out), comparable(whole), check_exact=True)
    weights = [(folder / "checkpoints/step8/model.safetensors").read_bytes() for folder in (whole, out)]
    assert weights[0] == weights[1], "training went on to other weights"
    values = comparable(whole).loc[lambda table: table["status"] == "ok", "value"]
    assert np.isfinite(values).all()


def test_a_second_run_into_the_same_folder_names_the_first_process(tmp_path, monkeypatch):
    monkeypatch.setenv("INFOCOMP_CACHE", str(tmp_path / "cache"))
    config, out = tiny_config(tmp_path), tmp_path / "out"
    study, text = open_study(config, [], out)  # whatever has to be imported is imported before the first run begins
    child = start(config, out)
    try:
        end = time.monotonic() + 60
        while not (out / ".owner.json").exists() and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(ValueError, match=rf"is in use by process {child} on .*choose another --out"):
            run_study(study, text, Silent())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # a killed process holds nothing
    assert wait(start(config, out)) == 0
