"""Parts on disk: content addresses, damage, what a merge does, documents beside rows."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infocomp.execution.part import StorageError, replacing
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import KEY, RESULTS, read, row


def numbers(revision="step1", step=1, count=3, **values):
    return [
        row(model="m", revision=revision, step=step, quantity="complexity", draw=str(draw), value=draw / 7, **values)
        for draw in range(count)
    ]


def documents(count=2, revision="step1"):
    return [
        {
            "model": "m",
            "revision": revision,
            "corpus": "c",
            "document": f"d{i}",
            "n_tokens": 3,
            "n_bytes": 9,
            "bits": i + 0.5,
        }
        for i in range(count)
    ]


def test_a_units_name_is_the_hash_of_what_decides_it_whatever_the_order():
    assert unit_name(model="m", bins=100) == unit_name(bins=100, model="m")
    assert len(unit_name()) == 16
    assert unit_name(model="m", bins=100) != unit_name(model="m", bins=101)
    with pytest.raises(TypeError, match="is not plain JSON"):
        unit_name(path=Path("x"))


def test_a_part_reads_back_as_it_was_written_and_counts_as_done(tmp_path):
    store = Store(tmp_path)
    assert store.state("u1") is None
    store.write("u1", numbers(), documents())
    part = store.read("u1")
    assert (part.state, part.rows.num_rows, part.beside) == ("done", 3, {"documents": 2})
    assert part.rows.column("value").to_pylist() == [0.0, 1 / 7, 2 / 7]
    assert set(part.rows.column("unit_name").to_pylist()) == {"u1"} and part.rows.column("date")[0].as_py()
    assert store.state("u1") == "done"
    assert store.units() == ["u1"]
    assert pq.read_metadata(store.part_path("u1")).row_group(0).column(0).compression == "ZSTD"


def test_a_failed_part_is_not_done(tmp_path):
    Store(tmp_path).write("u1", [row(model="m", status="failed", message="no")], state="failed")
    assert Store(tmp_path).state("u1") == "failed"


def test_a_truncated_part_is_damaged_at_every_length(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers())
    whole = store.part_path("u1").read_bytes()
    for length in [*range(0, len(whole), 499), len(whole) - 1]:
        store.part_path("u1").write_bytes(whole[:length])
        assert store.state("u1") == "damaged"
    store.part_path("u1").write_bytes(whole)
    assert store.state("u1") == "done"


def test_a_changed_byte_never_changes_a_number_unseen(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers(count=50))
    whole, true = store.part_path("u1").read_bytes(), store.read("u1").rows
    damaged = 0
    for place in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        store.part_path("u1").write_bytes(changed)
        if store.state("u1") == "damaged":
            damaged += 1
        else:
            assert store.read("u1").rows.equals(true)
    assert damaged > 100


def test_a_part_under_another_units_name_does_not_count(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers())
    store.part_path("u1").replace(store.part_path("u2"))
    assert store.state("u2") == "damaged"
    with pytest.raises(ValueError, match="holds unit u1, not u2"):
        store.read("u2")


def test_a_part_of_another_table_version_does_not_count(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("u1", numbers())
    monkeypatch.setattr("infocomp.execution.part.SCHEMA_VERSION", 99)
    with pytest.raises(ValueError, match="has table version 2, this infocomp writes version 99"):
        store.read("u1")


def test_a_part_whose_documents_are_missing_or_damaged_is_not_done(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers(), documents())
    whole = store.path_beside("u1", "documents").read_bytes()
    store.path_beside("u1", "documents").unlink()
    assert store.state("u1") == "damaged"
    store.path_beside("u1", "documents").write_bytes(whole[:-5])
    assert store.state("u1") == "damaged"
    other = Store(tmp_path / "other")
    other.write("u1", numbers(), documents(count=5))
    other.path_beside("u1", "documents").replace(store.path_beside("u1", "documents"))
    with pytest.raises(ValueError, match="holds 5 documents, 2 belong to this unit"):
        store.read("u1")


def test_a_damaged_part_is_moved_away_and_kept(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers(), documents())
    store.part_path("u1").write_bytes(b"PAR1")
    store.set_aside("u1")
    assert store.state("u1") is None and store.units() == []
    assert sorted(path.name for path in (tmp_path / "parts" / "damaged").iterdir()) == [
        "u1.documents.parquet",
        "u1.parquet",
    ]


def test_rows_with_one_key_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="have the same key"):
        Store(tmp_path).write("u1", numbers() + numbers(), documents())
    assert not (tmp_path / "parts").exists()


def test_a_document_with_wrong_columns_or_no_number_is_refused(tmp_path):
    store = Store(tmp_path)
    lacking = [{name: value for name, value in documents()[0].items() if name != "bits"} | {"bit": 1.0}]
    with pytest.raises(KeyError, match="missing or unknown: bit, bits"):
        store.write("u1", numbers(), lacking)
    with pytest.raises(ValueError, match="document 'd0' has nan bits; a code length is finite"):
        store.write("u1", numbers(), [documents()[0] | {"bits": float("nan")}])
    with pytest.raises(TypeError, match="a document's columns hold a wrong type"):
        store.write("u1", numbers(), [documents()[0] | {"n_bytes": "9"}])
    assert store.state("u1") is None


def test_the_merged_table_does_not_depend_on_the_order_of_the_units(tmp_path):
    store = Store(tmp_path)
    store.write("u2", numbers("step10", 10), documents(revision="step10"))
    store.write("u1", numbers("step2", 2), documents(revision="step2"))
    store.merge(["u2", "u1"])
    first = pq.read_table(tmp_path / RESULTS)
    store.merge(["u1", "u2"])
    assert pq.read_table(tmp_path / RESULTS).equals(first)
    assert first.column("step").to_pylist() == [2, 2, 2, 10, 10, 10]
    merged = pq.read_table(tmp_path / "documents.parquet")
    assert merged.column("bits").to_pylist() == [0.5, 1.5, 0.5, 1.5]


def test_a_merge_takes_the_units_of_the_plan_and_leaves_other_parts_where_they_are(tmp_path):
    store = Store(tmp_path)
    store.write("old", numbers(seed=1))
    store.write("new", numbers(seed=2))
    store.write_plan({"run": "", "phases": {"measure": [{"name": "new", "title": ""}]}})
    store.merge()
    assert set(read(tmp_path)["seed"]) == {2}
    assert store.state("old") == "done"


def test_a_merge_of_clashing_parts_is_refused_and_keeps_the_former_table(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers())
    store.merge(["u1"])
    store.write("u2", numbers())
    with pytest.raises(ValueError) as caught:
        store.merge(["u1", "u2"])
    assert "(units u1 and u2) have the same key (model=m, revision=step1" in str(caught.value)
    assert len(read(tmp_path)) == 3


def test_equal_weights_point_to_the_earliest_revision_of_the_same_model(tmp_path):
    store = Store(tmp_path)
    for model, stage, step, revision, weights in [
        ("m", "stage1", 10, "s1-10", "aa"),
        ("m", "stage1", 9, "s1-9", "aa"),
        ("m", "stage2", 1, "s2-1", "aa"),
        ("m", "stage1", 11, "s1-11", "bb"),
        ("n", "stage1", 1, "s1-1", "aa"),
        ("n", "stage1", 2, "s1-2", None),
        ("n", "stage1", 3, "s1-3", None),
    ]:
        values = {"model": model, "stage": stage, "step": step, "revision": revision, "fingerprint": weights}
        store.write(f"{model}{revision}", [row(quantity="entropy", value=1.0, **values)])
    store.merge()
    frame = read(tmp_path).set_index(["model", "revision"])["duplicate_of"]
    filled = frame.dropna().to_dict()
    assert filled == {("m", "s1-10"): "s1-9", ("m", "s2-1"): "s1-9"}


def test_a_duplicate_that_the_study_named_itself_is_kept(tmp_path):
    Store(tmp_path).write("u1", numbers(fingerprint="aa", duplicate_of="step0"))
    Store(tmp_path).merge()
    assert set(read(tmp_path)["duplicate_of"]) == {"step0"}


def test_merged_rows_read_from_step_to_layer_to_quantity(tmp_path):
    rows = [
        row(model="m", step=step, revision=f"step{step}", layer=layer, site=f"blocks.{layer}", quantity=name, value=1.0)
        for name in ("entropy", "complexity")
        for layer in (10, 9)
        for step in (100, 20)
    ]
    Store(tmp_path).write("u1", [row(model="m", quantity="entropy", value=1.0), *rows])
    Store(tmp_path).merge()
    frame = read(tmp_path)
    assert frame["step"].dropna().tolist() == [20] * 4 + [100] * 4 and frame["step"].isna().tolist()[-1]
    assert frame["layer"].tolist()[:4] == [9, 9, 10, 10]
    assert frame["quantity"].tolist()[:4] == ["complexity", "entropy"] * 2


def test_keys_stay_unique_in_the_merged_table(tmp_path):
    store = Store(tmp_path)
    for step in range(4):
        store.write(f"u{step}", numbers(f"step{step}", step))
    store.merge()
    assert not read(tmp_path).duplicated(list(KEY)).any()


def test_what_killed_runs_left_half_written_is_removed(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers())
    for left in (tmp_path / ".results.parquet.123.tmp", tmp_path / "parts" / ".u2.parquet.123.tmp"):
        left.write_bytes(b"half")
    store.clean()
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["u1.parquet"]


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write(b"new")
        raise RuntimeError("in the middle")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_that_takes_no_file_is_named_with_the_reason(tmp_path):
    (tmp_path / "parts").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot write .*u1\.parquet \(File exists\)"):
        Store(tmp_path).write("u1", numbers())


def test_a_damaged_plan_is_named_and_keeps_the_parts(tmp_path):
    store = Store(tmp_path)
    store.write("u1", numbers())
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ValueError, match=r"plan\.json is damaged .*; remove it and run again, the parts are kept"):
        store.planned()


def test_a_file_that_outgrows_its_limit_is_an_error_and_loses_no_earlier_part(tmp_path):
    """A real limit of the operating system (RLIMIT_FSIZE), in a process of its own."""
    script = f"""
from infocomp.execution.store import Store
from infocomp.execution.part import StorageError
from infocomp.execution.table import row
import os
store = Store({str(tmp_path)!r})
small = [row(model="m", quantity="entropy", draw=str(i), value=i / 7) for i in range(3)]
large = [row(model="m", quantity="entropy", draw=str(i), value=1, message=os.urandom(500).hex()) for i in range(999)]
store.write("small", small)
try:
    store.write("large", large)
except StorageError as error:
    print(error.strerror)
"""
    limit = 100_000
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.stdout.strip() == f"cannot write {tmp_path}/parts/large.parquet (File too large)"
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["small.parquet"]
    assert Store(tmp_path).state("small") == "done"


def test_the_plan_survives_as_plain_json(tmp_path):
    store = Store(tmp_path)
    plan = {"run": "ab", "phases": {"train": [{"name": "u1", "title": "té"}]}}
    store.write_plan(plan)
    assert json.loads((tmp_path / "plan.json").read_text("utf-8")) == plan == store.plan()
    assert store.planned() == plan["phases"]["train"]
