"""W&B from the table, offline, read back from the .wandb file itself; and that its failures cost nothing."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from infocomp.execution import wandb_log
from infocomp.execution.runner import Unit, UnitResult, execute
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import RESULTS, row
from infocomp.execution.wandb_log import LiveLogger, Names, log_to_wandb

SITE = "blocks.3.hook_resid_post"
METRIC = f"complexity/token/{SITE}"


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """W&B's caches in a temporary folder, no server but a closed port, and its service ended after each test."""
    import wandb

    folder = tmp_path_factory.mktemp("wandb")
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(folder))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    yield
    wandb.teardown()


def read_records(path: Path) -> Iterator:
    """The records of a .wandb file: after 7 bytes of header a log of 32 KiB blocks, each record with its checksum."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, place, payload = path.read_bytes(), 7, b""
    if len(data) < 7:
        return
    assert data[:4] == b":W&B" and struct.unpack("<H", data[4:6]) == (0xBEE1,)
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        piece = data[place + 7 : place + 7 + length]
        if kind == 0 or len(piece) < length:
            return
        assert zlib.crc32(data[place + 6 : place + 7 + length]) == checksum
        payload = piece if kind in (1, 2) else payload + piece
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(payload)
            yield record


def items(entries) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entries}


class Logged:
    """The one offline run of a folder, once its exit record is on the disk."""

    def __init__(self, out: Path, seconds: float = 30.0) -> None:
        (self.folder,) = (out / "wandb").glob("offline-run-*")
        (path,) = self.folder.glob("*.wandb")
        end = time.monotonic() + seconds
        records = list(read_records(path))
        while not any(record.HasField("exit") for record in records):
            assert time.monotonic() < end, "the run never ended"
            time.sleep(0.05)
            records = list(read_records(path))
        self.id = next(record.run.run_id for record in records if record.HasField("run"))
        self.project = next(record.run.project for record in records if record.HasField("run"))
        self.history = [items(record.history.item) for record in records if record.HasField("history")]
        self.summary = {}
        self.config = {}
        for record in records:
            if record.HasField("summary"):
                self.summary |= items(record.summary.update)
            for changed in (record.run.config, record.config):
                self.config |= items(changed.update)
        self.metrics = {
            record.metric.glob_name or record.metric.name: record.metric.step_metric
            for record in records
            if record.HasField("metric")
        }
        self.artifacts = {
            record.artifact.type: [entry for entry in record.artifact.manifest.contents]
            for record in records
            if record.HasField("artifact")
        }

    def curve(self, metric: str) -> list[tuple[int, float]]:
        return [(point["checkpoint/step"], point[metric]) for point in self.history if metric in point]


def unit(step):
    describe = {"model": "m", "revision": f"step{step}", "step": step, "tokens_seen": 1000 * step, "corpus": "held"}
    numbers = describe | {"site": SITE, "quantity": "complexity", "label": "token", "weighting": "frequency"}

    def run():
        rows = [
            row(**numbers, rows=rows, draw=draw, value=step + 0.25 + shift + wrong, null=0.125)
            for rows, shift in (("raw", 0), ("centred", 1))
            for draw, wrong in (("mean", 0), ("0", 99))
        ]
        rows.append(row(**describe, quantity="optimality", draw="mean", status="refused", message="below its null"))
        return UnitResult(rows)

    return Unit(unit_name(step=step), f"step{step}", describe, run)


def coder():
    run = UnitResult([row(model="gzip -9", corpus="held", quantity="bits_per_byte", estimator="classical", value=1.93)])
    return Unit("coder", "gzip -9", {"model": "gzip -9"}, lambda: run)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "run-a"
    folder.mkdir()
    (folder / "config.yaml").write_text("study: plane\nestimator:\n  bins: 100\n")
    return folder


def draw_figure(out, name="plane.png"):
    from PIL import Image

    (out / "figures").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "white").save(out / "figures" / name)


def test_an_offline_run_holds_every_mean_against_the_checkpoints_step(out):
    execute([unit(10), unit(2), coder()], out)
    draw_figure(out)
    assert log_to_wandb(out, project="trial")
    logged = Logged(out)
    assert logged.id.startswith("infocomp-") and len(logged.id) == 25 and logged.project == "trial"
    assert logged.curve(METRIC) == [(2, 2.25), (10, 10.25)]
    assert logged.curve(f"{METRIC}/centred") == [(2, 3.25), (10, 11.25)]
    assert logged.curve(f"{METRIC}/null") == [(2, 0.125), (10, 0.125)]
    assert [point["checkpoint/tokens"] for point in logged.history if METRIC in point] == [2000, 10000]
    assert logged.metrics["complexity/*"] == logged.metrics["complexity"] == "checkpoint/step"
    assert {"checkpoint/step", "checkpoint/tokens"} <= logged.metrics.keys()
    assert not any("optimality" in name for point in logged.history for name in point)
    assert logged.summary["bits_per_byte/gzip -9/held"] == 1.93
    assert logged.config["estimator"] == {"bins": 100}


def test_the_table_the_parquet_file_and_the_figures_are_attached(out):
    execute([unit(1), unit(2)], out)
    draw_figure(out)
    assert log_to_wandb(out)
    logged = Logged(out)
    assert logged.summary["table/nrows"] == 6
    table = json.loads((logged.folder / "files" / logged.summary["table/path"]).read_text())
    assert set(table["columns"]) >= {"revision", "quantity", "value", "null", "message"}
    assert "ci_low" not in table["columns"]
    assert {cells[table["columns"].index("draw")] for cells in table["data"]} == {"mean"}
    assert logged.config["table"] == (
        "6 of the 6 rows that are means over draws (at most 10000); all 10 rows are in the artifact's results.parquet"
    )
    (entry,) = logged.artifacts["results"]
    assert entry.path == RESULTS and Path(entry.local_path).read_bytes() == (out / RESULTS).read_bytes()
    assert logged.folder in Path(entry.local_path).parents
    assert (logged.folder / "files" / logged.summary["figures/plane/path"]).exists()


def test_a_long_table_is_cut_at_its_stated_cap(out, monkeypatch):
    monkeypatch.setattr(wandb_log, "MOST_TABLE_ROWS", 4)
    execute([unit(1), unit(2)], out)
    assert log_to_wandb(out)
    logged = Logged(out)
    assert logged.summary["table/nrows"] == 4
    assert logged.config["table"].startswith("4 of the 6 rows that are means over draws (at most 4); all 10 rows")


def test_logging_twice_leaves_one_run_with_the_same_id(out):
    execute([unit(1)], out)
    assert log_to_wandb(out)
    first = Logged(out)
    execute([unit(1), unit(2)], out)
    assert log_to_wandb(out)
    second = Logged(out)
    assert second.id == first.id and second.folder != first.folder
    assert second.curve(METRIC) == [(1, 1.25), (2, 2.25)]


def test_runs_logged_within_a_second_still_leave_one(out):
    """W&B names a folder by the second and adds -1 where that name is taken."""
    execute([unit(1)], out)
    assert log_to_wandb(out)
    first, now = Logged(out), datetime.now()
    for second in range(20):
        (out / "wandb" / f"offline-run-{now + timedelta(seconds=second):%Y%m%d_%H%M%S}-{first.id}").mkdir(exist_ok=True)
    assert log_to_wandb(out)
    second = Logged(out)
    assert second.folder.name.endswith(f"{first.id}-1") and second.curve(METRIC) == [(1, 1.25)]
    assert log_to_wandb(out)
    assert Logged(out).folder != second.folder


def test_another_configuration_is_another_run(out):
    execute([unit(1)], out)
    assert log_to_wandb(out)
    (out / "config.yaml").write_text("study: plane\nestimator:\n  bins: 200\n")
    assert log_to_wandb(out)
    assert len(list((out / "wandb").glob("offline-run-*"))) == 2


def killed_live_run(out):
    execute([unit(1)], out, progress=LiveLogger(out))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_live_run_that_was_killed_and_resumed_ends_as_one_whole_run(out):
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_wandb as t; "
    done = subprocess.run([sys.executable, "-c", f"{script} t.killed_live_run(t.Path({str(out)!r}))"])
    assert done.returncode == -signal.SIGKILL
    assert len(list((out / "wandb").glob("offline-run-*"))) == 1
    live = LiveLogger(out)
    execute([unit(1), unit(2)], out, progress=live)
    assert live.close()
    logged = Logged(out)
    assert logged.curve(METRIC) == [(1, 1.25), (2, 2.25)]
    assert logged.summary["table/nrows"] == 6


def test_names_are_short_for_the_first_variant_and_say_what_differs_for_the_others():
    names = Names()

    def name(**values):
        return names.name(row(**{"model": "m", "quantity": "complexity", "label": "token", "value": 1.0, **values}))

    assert name(rows="centred", weighting="uniform", site="s") == "complexity/token/s/centred/uniform"
    assert name(rows="raw", weighting="frequency", site="s") == "complexity/token/s"
    other = {"model": "n", "stage": "stage2", "rows": "raw", "weighting": "frequency", "seed": 3}
    assert name(**other) == "complexity/token/n/stage2/3"
    assert name(quantity="bits_per_byte", label="", site="logits", estimator="code") == "bits_per_byte/logits"


def test_a_folder_without_results_or_configuration_is_bad_input_not_a_wandb_failure(out):
    with pytest.raises(FileNotFoundError, match=r"holds no results\.parquet"):
        log_to_wandb(out)
    execute([unit(1)], out)
    (out / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml, which names the W&B run"):
        log_to_wandb(out)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml"):
        LiveLogger(out)


def test_a_wandb_that_cannot_log_in_is_one_warning_and_costs_no_result(out, caplog):
    execute([unit(1)], out)
    before = (out / RESULTS).read_bytes()
    assert log_to_wandb(out, offline=False) is False
    assert [record.levelname for record in caplog.records if record.name == "infocomp"] == ["WARNING"]
    assert caplog.text.count("W&B did not take") == 1
    assert "the results are kept and `infocomp wandb` logs them" in caplog.text
    assert (out / RESULTS).read_bytes() == before


def test_a_failure_half_way_keeps_the_run_logged_before(out, caplog):
    execute([unit(1)], out)
    assert log_to_wandb(out)
    first = Logged(out)
    draw_figure(out)
    (out / "figures" / "plane.png").write_bytes(b"not a picture")
    assert log_to_wandb(out) is False
    assert "W&B did not take" in caplog.text
    assert Logged(out).folder == first.folder


def test_a_live_logger_that_fails_lets_the_run_go_on(out, caplog):
    (out / "wandb").write_text("a file where W&B wants a folder")
    live = LiveLogger(out)
    outcome = execute([unit(1), unit(2)], out, progress=live)
    assert (outcome.done, outcome.exit_code) == (2, 0)
    assert live.close() is False
    assert caplog.text.count("W&B did not take") == 1
    assert Store(out).state(unit(2).name) == "done"
