"""The table: its columns, what a row refuses, unique keys, and reading it back."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from infocomp.execution.table import (
    ATTRIBUTES,
    COLUMNS,
    KEY,
    MORE,
    RESULTS,
    SCHEMA,
    SCHEMA_VERSION,
    VALUES,
    VERSION_FIELD,
    canonical_json,
    check_unique,
    read,
    row,
    rows_to_table,
)


def measured(**values):
    return row(**{"model": "m", "revision": "step1", "quantity": "complexity", "draw": "mean", "value": 1.5, **values})


def write_results(folder, rows):
    folder.mkdir(exist_ok=True)
    pq.write_table(rows_to_table(rows), folder / RESULTS)
    return folder


def test_the_columns_are_the_published_ones_in_their_order():
    key = "model revision corpus site quantity label rows weighting estimator draw seed"
    attributes = "stage step tokens_seen layer order settings"
    values = (
        "value unit efficiency null null_rows ceiling std_error point point_error lower lower_error upper "
        "upper_error ci_low ci_high draw_std n_tokens "
        "n_documents n_labels singleton_mass dtype fingerprint duplicate_of seconds status message"
    )
    more = "attention bos packing in_training context_length centre_shift commit unit_name schema_version date"
    assert tuple(key.split()) == KEY and tuple(attributes.split()) == ATTRIBUTES
    assert tuple(values.split()) == VALUES and tuple(more.split()) == MORE
    assert tuple(SCHEMA.names) == COLUMNS == KEY + ATTRIBUTES + VALUES + MORE


def test_a_row_has_every_column_and_empty_cells_are_never_zero():
    complete = row(model="m", quantity="entropy", value=2.0)
    assert tuple(complete) == COLUMNS
    assert complete["site"] == "" and complete["seed"] is None and complete["null"] is None
    assert complete["status"] == "ok" and complete["schema_version"] == SCHEMA_VERSION


def test_numbers_of_numpy_and_torch_become_plain_numbers():
    complete = row(value=np.float32(0.5), null=torch.tensor(0.25), step=np.int64(3), layer=2.0, packing=np.bool_(True))
    assert (complete["value"], complete["null"], complete["step"], complete["layer"]) == (0.5, 0.25, 3, 2)
    assert [type(complete[name]) for name in ("value", "null", "step", "layer", "packing")] == [
        float,
        float,
        int,
        int,
        bool,
    ]
    assert type(row(value=1)["value"]) is float


def test_settings_are_canonical_json_whether_given_as_mapping_or_text():
    assert measured(settings={"b": 1, "a": [2]})["settings"] == '{"a":[2],"b":1}'
    assert measured(settings='{"b": 1, "a": [2]}')["settings"] == '{"a":[2],"b":1}'


def test_a_checked_row_passes_the_check_again_unchanged():
    once = measured(settings={"a": 1}, seed=0)
    assert row(**once) == once


def test_an_unknown_column_is_named_with_the_nearest_three():
    with pytest.raises(KeyError) as caught:
        row(tokens=1)
    assert (
        caught.value.args[0] == "the table has no column 'tokens'; closest are 'n_tokens', 'tokens_seen', 'n_documents'"
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"value": "1.5"}, "value takes a number, not str '1.5'"),
        ({"value": True}, "value takes a number, not bool True"),
        ({"step": 1.5}, "step takes a whole number, not float 1.5"),
        ({"step": math.nan}, "step takes a whole number, not float nan"),
        ({"draw": 0}, "draw takes text, not int 0"),
        ({"packing": 1}, "packing takes True or False, not int 1"),
        ({"value": np.zeros(1)}, "value takes a number, not ndarray array([0.])"),
        ({"settings": {"a": {1}}}, "is not plain JSON"),
    ],
)
def test_a_wrong_type_is_refused_by_name(values, sentence):
    with pytest.raises(TypeError) as caught:
        measured(**values)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"value": math.nan}, "value is nan under status 'ok'; leave the cell empty (None)"),
        ({"null": -math.inf}, "null is -inf under status 'ok'"),
        ({"value": None}, "row (model=m, revision=step1, quantity=complexity, draw=mean) has status 'ok' and no value"),
        ({"status": "refused"}, "has status 'refused' and no message; say why in one sentence"),
        ({"status": "fine"}, "status is one of ok, failed, refused, undetermined, not 'fine'"),
        ({"in_training": "maybe"}, "in_training is one of known, likely, unknown, no, not 'maybe'"),
        ({"settings": "bins=3"}, "settings is not JSON"),
        ({"settings": {"a": math.nan}}, "is not plain JSON"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name(values, sentence):
    with pytest.raises(ValueError) as caught:
        measured(**values)
    assert sentence in str(caught.value)


def test_what_is_not_a_number_becomes_an_empty_cell_where_the_status_says_why():
    refused = measured(value=math.nan, status="refused", message="the denominator is not above its null")
    assert refused["value"] is None


def test_canonical_json_is_the_same_text_for_equal_values():
    assert canonical_json({"b": (1, 2), "a": "é"}) == canonical_json({"a": "é", "b": [1, 2]}) == '{"a":"é","b":[1,2]}'


def test_rows_are_checked_again_on_their_way_into_a_table():
    changed = measured() | {"value": math.nan}
    with pytest.raises(ValueError, match="value is nan"):
        rows_to_table([changed])


def test_two_rows_with_one_key_are_refused_with_that_key():
    rows = [measured(draw="0", seed=1), measured(draw="1", seed=1), measured(draw="0", seed=1, value=2.0)]
    check_unique(rows_to_table(rows[:2]))
    with pytest.raises(ValueError) as caught:
        check_unique(rows_to_table(rows))
    assert "rows 0 and 2" in str(caught.value)
    assert "(model=m, revision=step1, quantity=complexity, draw=0, seed=1)" in str(caught.value)


def test_rows_that_differ_in_one_key_column_only_are_told_apart():
    for name in KEY:
        other = 5 if name == "seed" else "other"
        check_unique(rows_to_table([measured(), measured(**{name: other})]))


def test_the_table_reads_back_with_nullable_whole_numbers(tmp_path):
    out = write_results(tmp_path / "run", [measured(step=3, packing=True), measured(revision="x")])
    frame = read(out)
    assert list(frame.columns) == list(COLUMNS)
    assert frame["step"].dtype == pd.Int64Dtype() and frame["packing"].dtype == pd.BooleanDtype()
    assert frame["value"].dtype == np.float64
    assert frame["step"].isna().tolist() == [False, True] and frame["step"][0] == 3
    assert frame["null"].isna().all() and frame["site"].tolist() == ["", ""]


def test_several_folders_are_read_one_below_the_other_and_shared_rows_once(tmp_path):
    gzip = row(model="gzip -9", quantity="bits_per_byte", value=1.93, seconds=1.0, date="2026-01-01")
    first = write_results(tmp_path / "a", [measured(), gzip])
    second = write_results(tmp_path / "b", [measured(model="n"), gzip | {"seconds": 2.0, "date": "2026-01-02"}])
    assert read([first, str(second)])["model"].tolist() == ["m", "gzip -9", "n"]


def test_two_folders_that_disagree_on_a_key_are_refused(tmp_path):
    first, second = write_results(tmp_path / "a", [measured()]), write_results(tmp_path / "b", [measured(value=9.0)])
    with pytest.raises(ValueError) as caught:
        read([first, second])
    assert "both hold (model=m, revision=step1, quantity=complexity, draw=mean), with different" in str(caught.value)


def test_a_folder_without_a_table_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no results.parquet; `infocomp run CONFIG --out {tmp_path}` makes it"
    )
    with pytest.raises(ValueError, match="no run folder was given"):
        read([])


def test_a_damaged_or_foreign_table_is_refused_in_one_sentence(tmp_path):
    out = write_results(tmp_path, [measured()])
    whole = (out / RESULTS).read_bytes()
    (out / RESULTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"results\.parquet cannot be read"):
        read(out)
    pq.write_table(rows_to_table([measured()]).replace_schema_metadata({VERSION_FIELD: b"0"}), out / RESULTS)
    with pytest.raises(ValueError, match=f"has table version 0, this infocomp reads version {SCHEMA_VERSION}"):
        read(out)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(SCHEMA.metadata), out / RESULTS)
    with pytest.raises(ValueError, match="does not hold the table's columns"):
        read(out)


def test_settings_text_is_plain_json_that_any_reader_understands(tmp_path):
    out = write_results(tmp_path, [measured(settings={"bins": 100})])
    assert json.loads(read(out)["settings"][0]) == {"bins": 100}
