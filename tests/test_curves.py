"""Learning curves from CSV, Parquet, W&B and DataFrames; and every way in which they may be no curves."""

import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infocomp.grokking.curve_files import read_curves
from infocomp.grokking.curves import Curves, step_text

FRAME = pd.DataFrame(
    {"step": [0, 10, 20, 40], "train_loss": [4.0, 1.0, 0.1, 0.01], "test_accuracy": [0.0, 0.25, 0.5, 1.0]}
)
LOGGED = 60


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory) -> Iterator[Path]:
    """The folder of an offline run: the training loss at every step, the test loss at every third, in other calls.

    Long enough to need several blocks of the file, and with a text in between.
    """
    import wandb

    folder = tmp_path_factory.mktemp("wandb-run")
    before = dict(os.environ)
    os.environ |= {f"WANDB_{name}": str(folder / "home") for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR")}
    os.environ |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": str(folder / "netrc"), "WANDB_SILENT": "true"}
    (folder / "home").mkdir()
    options = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, save_code=False)
    with wandb.init(project="curves", dir=str(folder), mode="offline", settings=options) as run:
        for step in range(LOGGED):
            run.log({"train/loss": 4.0 / (1 + step), "epoch": step / 10}, step=10 * step)
            if step % 3 == 0:
                run.log({"val": {"loss": 4.0 - step / 20}, "note": "x" * 2000}, step=10 * step)
        run.log({"late": 1.0}, step=10 * LOGGED)
        for round in range(5):
            run.log({"round": round, "a": 5.0 - round})
            run.log({"round": round, "b": 6.0 - round})
    wandb.teardown()
    for name in set(os.environ) - set(before):
        del os.environ[name]
    yield folder


def same(found: Curves, frame: pd.DataFrame = FRAME) -> bool:
    given = {"step": found.steps, **found.given()}
    return set(given) == set(frame.columns) and all(np.array_equal(given[name], frame[name]) for name in given)


def test_a_table_is_read_from_every_kind_of_file(tmp_path):
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    FRAME.to_parquet(tmp_path / "a.parquet")
    for source in (FRAME, tmp_path / "a.csv", str(tmp_path / "a.parquet")):
        assert same(read_curves(source)), source
    wide = FRAME.assign(learning_rate=0.1, note="a")
    assert same(read_curves(wide)), "other columns are let be"
    assert same(read_curves(FRAME.convert_dtypes())), "pandas' own numbers"


def test_columns_are_called_what_they_are_called():
    other = FRAME.rename(columns={"step": "epoch", "train_loss": "train/loss"})
    assert same(read_curves(other, {"step": "epoch", "train_loss": "train/loss"}))
    both = FRAME.assign(old=FRAME["train_loss"] + 1)
    assert read_curves(both, {"train_loss": "old"}).train_loss[0] == 5.0, "a name given goes before the plain one"


def test_an_offline_run_gives_the_steps_at_which_all_its_curves_were_logged(offline_run):
    names = {"train_loss": "train/loss", "test_loss": "val/loss"}
    found = read_curves(offline_run, names)
    assert list(found.steps) == list(range(0, 10 * LOGGED, 30))
    assert found.train_loss == pytest.approx(4.0 / (1 + found.steps / 10))
    assert found.test_loss == pytest.approx(4.0 - found.steps / 200)
    (file,) = offline_run.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 32 * 1024, "records that go over the end of a block"
    for source in (file, file.parent):
        assert np.array_equal(read_curves(source, names).test_loss, found.test_loss)
    alone = read_curves(file, {"train_loss": "train/loss"})
    assert len(alone) == LOGGED, "the other curve is not waited for"
    by_epoch = read_curves(file, {"step": "epoch", "train_loss": "train/loss"})
    assert by_epoch.steps[:3] == pytest.approx([0, 0.1, 0.2])


def test_calls_that_name_the_same_step_are_one_evaluation(offline_run):
    found = read_curves(offline_run, {"step": "round", "train_loss": "a", "test_loss": "b"})
    assert list(found.steps) == [0, 1, 2, 3, 4]
    assert list(found.train_loss) == [5, 4, 3, 2, 1] and list(found.test_loss) == [6, 5, 4, 3, 2]


def test_a_block_that_ends_in_less_than_a_head_is_filled_up(tmp_path):
    """Written here after LevelDB's rule: three bytes are left of the first block, which the next record skips."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    def record(step: int, note: str = "") -> bytes:
        one = Record()
        for name, value in (("step", step), ("train_loss", 1.0 / (1 + step)), ("note", note)):
            one.history.item.add(key=name, value_json=json.dumps(value))
        return one.SerializeToString()

    def written(data: bytes) -> bytes:
        return struct.pack("<IHB", zlib.crc32(b"\x01" + data), len(data), 1) + data

    room = 32768 - 3 - 7 - 7
    filler = next(one for size in range(room) if len(one := record(0, "x" * (room - 40 - size))) == room)
    file = (
        b":W&B" + struct.pack("<HB", 0xBEE1, 0) + written(filler) + bytes(3) + written(record(1)) + written(record(2))
    )
    (tmp_path / "a.wandb").write_bytes(file)
    assert list(read_curves(tmp_path / "a.wandb").train_loss) == [1.0, 1 / 2, 1 / 3]


def test_a_run_that_was_killed_is_read_up_to_its_last_whole_record(offline_run, tmp_path):
    (file,) = offline_run.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    (tmp_path / "cut.wandb").write_bytes(data[: len(data) // 2])
    found = read_curves(tmp_path / "cut.wandb", {"train_loss": "train/loss"})
    assert 10 < len(found) < LOGGED and found.train_loss == pytest.approx(4.0 / (1 + found.steps / 10))


def test_a_wandb_file_that_is_damaged_or_none_is_refused(offline_run, tmp_path):
    (file,) = offline_run.glob("wandb/offline-run-*/*.wandb")
    data = bytearray(file.read_bytes())
    data[20_000] ^= 1
    (tmp_path / "bad.wandb").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"bad.wandb is damaged: the checksum of the record at byte [\d,]+ is wrong"):
        read_curves(tmp_path / "bad.wandb")
    (tmp_path / "no.wandb").write_text("step,train_loss\n")
    with pytest.raises(ValueError, match=r"no.wandb is no .wandb file"):
        read_curves(tmp_path / "no.wandb")
    with pytest.raises(ValueError, match=r"has 2 of them \(bad.wandb, no.wandb\): name the file itself"):
        read_curves(tmp_path)
    with pytest.raises(ValueError, match=r"must hold one offline run, a .wandb file, and has none"):
        read_curves(offline_run / "home")


def test_curves_that_are_never_logged_together_are_refused(offline_run):
    with pytest.raises(ValueError, match=r"nothing to date from, none of train_loss, .* say which column is which"):
        read_curves(offline_run)
    with pytest.raises(ValueError, match="logs train/loss, late at no step together: log them at the same step"):
        read_curves(offline_run, {"train_loss": "train/loss", "test_loss": "late"})


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"step": [0, 10, 20, 40]} | columns)


@pytest.mark.parametrize(
    ("table", "error", "sentence"),
    [
        (FRAME.drop(columns="step"), KeyError, "lacks the column 'step', .* its columns are train_loss, test_accuracy"),
        (
            frame(loss=[1.0, 2, 3, 4]),
            ValueError,
            "has nothing to date from, none of .* its columns are step, loss: say",
        ),
        (
            frame(train_loss=[1.0, None, 3, 4]),
            ValueError,
            r"train_loss is missing .* at step 10 \(1 of 4 evaluations\)",
        ),
        (
            frame(test_loss=[1.0, 2, np.inf, np.nan]),
            ValueError,
            r"test_loss is missing or no finite .* step 20 \(2 of 4",
        ),
        (frame(train_loss=[1.0, 2, -3, 4]), ValueError, "train_loss must not be negative, got -3 at step 20"),
        (
            frame(test_accuracy=[0.1, 50.0, 99.3, 20]),
            ValueError,
            "must lie between 0 and 1, got 99.3 at step 20: divide",
        ),
        (frame(test_accuracy=[0.1, 0.2, -0.5, 1]), ValueError, "must lie between 0 and 1, got -0.5 at step 20"),
        (frame(train_loss=[1.0, 2, "x", 4]), ValueError, "'train_loss' must hold numbers alone, got 'x'"),
        (
            FRAME.assign(step=[0, 20, 10, 40]),
            ValueError,
            "steps must increase, but 10 follows 20 at evaluation 3: sort",
        ),
        (FRAME.assign(step=[0, 10, 10, 40]), ValueError, r"step 10 is there twice \(evaluations 2 and 3\): keep one"),
        (FRAME.assign(step=[0, None, 20, 40]), ValueError, "the step of evaluation 2 is missing"),
        (FRAME.assign(step=[-10, 10, 20, 40]), ValueError, "steps count from 0, got -10"),
        (FRAME[:1], ValueError, "a transition lies between evaluations: at least two are needed, got 1"),
        (FRAME[:0], ValueError, "at least two are needed, got 0"),
    ],
)
def test_what_is_no_curve_is_refused_in_a_sentence(table, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        read_curves(table)
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(error, match=sentence.replace("the table", "")):
        read_curves(tmp_path / "a.csv")


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(KeyError, match="the table has no column 'val/loss' for test_loss; its columns are step, train"):
        read_curves(FRAME, {"test_loss": "val/loss"})
    many = FRAME.assign(**{f"metric {number}": 1.0 for number in range(20)}, valid_loss=2.0)
    with pytest.raises(KeyError, match=re.escape("the closest of its 24 columns are valid_loss")):
        read_curves(many, {"test_loss": "val_loss"})
    with pytest.raises(KeyError, match="no curve is named 'validation_loss'; there are step, train_loss"):
        read_curves(FRAME, {"validation_loss": "train_loss"})


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("there is no file")):
        read_curves(tmp_path / "a.csv")
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(ValueError, match=r"read from .csv, .parquet, .wandb or a W&B run's folder, got .*a.txt"):
        read_curves(tmp_path / "a.txt")
    (tmp_path / "a.parquet").write_text("1")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read as parquet"):
        read_curves(tmp_path / "a.parquet")


def test_curves_by_hand_are_checked_too():
    with pytest.raises(ValueError, match="test_loss has 3 values, there are 2 steps: one value a step is needed"):
        Curves.of({"step": [1, 2], "test_loss": [1.0, 2, 3]})
    with pytest.raises(KeyError, match="no curve is named 'loss'"):
        Curves.of({"step": [1, 2], "loss": [1.0, 2]})
    with pytest.raises(KeyError, match="lack the column 'step'"):
        Curves.of({"test_loss": [1.0, 2]})
    with pytest.raises(ValueError, match=r"'test_loss' must be one number an evaluation, got the shape \(2, 1\)"):
        Curves.of({"step": [1, 2], "test_loss": [[1.0], [2]]})
    with pytest.raises(ValueError, match="'test_loss' must hold numbers alone"):
        Curves.of({"step": [1, 2], "test_loss": ["a", "b"]})
    with pytest.raises(ValueError, match="there is nothing to date from: at least one of train_loss"):
        Curves(np.arange(3.0))


def test_steps_are_written_as_they_are_read():
    assert [step_text(one) for one in (0, 1200, 2.5, 12345.678)] == ["0", "1,200", "2.5", "12,345.7"]
