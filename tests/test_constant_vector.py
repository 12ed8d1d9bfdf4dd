"""The demonstration that geometry can look like compression, at a small size: its orderings, figure and command."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
import constant_vector

SMALL = {"rows": 4000, "dim": 64, "labels": 60, "bins": 50, "draws": 2, "outliers": 1}


@pytest.fixture(scope="module")
def table():
    return constant_vector.table_of(**SMALL)


def column(table, case, rows, name="information"):
    own = table[(table["case"] == case) & (table["rows"] == rows)].sort_values("size")
    assert own["size"].tolist() == [0, 1, 3, 10]
    return own[name].tolist()


def test_a_constant_vector_takes_the_raw_estimate_down_and_leaves_centred_rows_alone(table):
    raw, centred = column(table, "constant", "raw"), column(table, "constant", "centred")
    assert raw[0] > 1.4 * raw[1] > 2 * raw[2] > 10 * raw[3] > 0
    assert raw[3] < 0.05 * raw[0]
    assert max(centred) - min(centred) < 1e-4 and centred[0] > 0.9 * raw[0]


def test_a_constant_vector_leaves_the_share_of_the_ceiling_nearly_alone(table):
    share = column(table, "constant", "raw", "share_of_ceiling")
    assert 0.75 * share[0] < share[3] < 1.1 * share[0]
    assert column(table, "constant", "raw", "ceiling")[3] < 0.05 * column(table, "constant", "raw", "ceiling")[0]


def test_an_outlier_direction_takes_raw_and_centred_down_and_not_the_rows_without_it(table):
    for variant in ("raw", "centred"):
        information, share = (column(table, "outlier", variant, name) for name in ("information", "share_of_ceiling"))
        assert information[0] > information[1] > information[2] > information[3]
        assert information[3] < 0.4 * information[0] and share[3] < 0.7 * share[0]
    removed = column(table, "outlier", "outliers_removed")
    assert min(removed[1:]) > 0.95 * column(table, "outlier", "raw")[0]
    assert max(removed[1:]) - min(removed[1:]) < 0.01 * removed[1]


def test_the_figure_shows_both_cases_and_every_variant(table, tmp_path, monkeypatch):
    monkeypatch.setattr(constant_vector, "table_of", lambda rows: table)
    monkeypatch.setattr(sys, "argv", ["constant_vector.py", "--out", str(tmp_path)])
    constant_vector.main()
    assert (tmp_path / "tables/constant_vector.csv").read_text().count("\n") == 1 + 2 * 4 * 3
    assert (tmp_path / "figures/constant_vector.png").stat().st_size > 20_000
    figure = constant_vector.drawn(table)
    assert [ax.get_title() for ax in figure.axes[:2]] == list(constant_vector.CASES.values())
    assert [len(ax.lines) for ax in figure.axes] == [4, 4, 4, 4]
