"""The table as CSV and as LaTeX."""

import csv
import re

import pytest

from infocomp.execution.export import escape, export_csv, export_latex, number
from infocomp.execution.part import StorageError
from infocomp.execution.store import Store
from infocomp.execution.table import COLUMNS, row


def fill(out, rows):
    Store(out).write("u1", rows)
    Store(out).merge()
    return out


def measured(**values):
    base = {"model": "m", "revision": "step4", "step": 4, "site": "hook_embed", "quantity": "complexity"}
    return row(**base | {"label": "token", "draw": "mean", "value": 1.25, "unit": "bits"} | values)


def lines_of(text):
    return [line for line in text.splitlines() if line.endswith(r"\\")]


def test_csv_holds_every_row_and_column_and_empty_cells_stay_empty(tmp_path):
    fill(tmp_path, [measured(seed=0, settings={"bins": 100}), measured(draw="0", value=1 / 3)])
    export_csv(tmp_path, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [cells["draw"] for cells in rows] == ["0", "mean"]
    assert float(rows[0]["value"]) == 1 / 3 and rows[0]["step"] == "4"
    assert rows[0]["null"] == rows[0]["seed"] == "" and rows[1]["seed"] == "0"
    assert rows[1]["settings"] == '{"bins":100}'


def test_csv_goes_to_standard_output_without_a_path(tmp_path, capsys):
    fill(tmp_path, [measured()])
    export_csv(tmp_path)
    assert capsys.readouterr().out.startswith("model,revision,corpus,site,")


def test_latex_shows_the_means_with_their_spread_and_null(tmp_path):
    rows = [
        measured(draw_std=0.0123, null=0.25),
        measured(step=16, revision="step16", value=2.5),
        measured(draw="0", value=9.0),
        measured(quantity="optimality", value=None, status="refused", message="not above its null"),
    ]
    fill(tmp_path, rows)
    export_latex(tmp_path, tmp_path / "table.tex")
    assert (tmp_path / "table.tex").read_text() == (
        "% needs booktabs, siunitx; the value's uncertainty is the standard deviation over anchor draws\n"
        r"\begin{tabular}{rlllSSl}" + "\n"
        r"\toprule" + "\n"
        r"{step} & {site} & {quantity} & {label} & {value} & {null} & {unit} \\" + "\n"
        r"\midrule" + "\n"
        r"4 & hook\_embed & complexity & token & 1.250 \pm 0.012 & 0.250 & bits \\" + "\n"
        r"16 & hook\_embed & complexity & token & 2.500 & {--} & bits \\" + "\n"
        r"\bottomrule" + "\n"
        r"\end{tabular}" + "\n"
    )


def test_latex_names_what_differs_beyond_step_site_and_quantity(tmp_path, capsys):
    coder = row(model="gzip -9", quantity="bits_per_byte", value=1.93)
    fill(tmp_path, [measured(rows="raw"), measured(rows="centred"), coder])
    export_latex(tmp_path)
    head, *lines = lines_of(capsys.readouterr().out)
    assert head.startswith("{model} & {rows} & {revision} & {step} & {site} & {quantity} & {label} & {value}")
    assert lines[0].startswith("gzip -9 & -- & -- & -- & -- & bits\\_per\\_byte & -- & 1.930 & {--} & --")
    assert len({line.split("1.250")[0] for line in lines}) == 3


def test_a_long_latex_table_breaks_over_pages(tmp_path, capsys):
    fill(tmp_path, [measured(step=step, revision=f"step{step}") for step in range(60)])
    export_latex(tmp_path)
    text = capsys.readouterr().out
    assert r"\begin{longtable}" in text and "longtable;" in text and len(lines_of(text)) == 61
    assert text.index(r"\endfoot") < text.index("hook")


def test_every_latex_line_has_the_same_number_of_cells(tmp_path, capsys):
    fill(tmp_path, [measured(model="a&b", draw_std=0.1), measured(model="50%_$#{}~^\\", null=0.5)])
    export_latex(tmp_path)
    counts = {len(re.findall(r"(?<!\\)&", line)) for line in lines_of(capsys.readouterr().out)}
    assert counts == {7}


def test_special_characters_are_written_out():
    assert escape("a_b & 5% {x} \\ ~ ^ $#") == (
        r"a\_b \& 5\% \{x\} \textbackslash{} \textasciitilde{} \textasciicircum{} \$\#"
    )


def test_decimals_follow_the_spread():
    assert number(1.23456, None) == "1.235"
    assert number(1.23456, 0.5) == r"1.235 \pm 0.500"
    assert number(1.23456, 0.000321) == r"1.23456 \pm 0.00032"
    assert number(1.23456, 1e-9) == r"1.234560 \pm 0.000000"
    assert number(1.23456, 0.0) == r"1.235 \pm 0.000"
    assert number(-0.5, float("nan")) == "-0.500"


def test_nothing_to_export_is_refused_clearly(tmp_path):
    for export in (export_csv, export_latex):
        with pytest.raises(FileNotFoundError, match=r"holds no results\.parquet; `infocomp run"):
            export(tmp_path, tmp_path / "x")
    Store(tmp_path).merge()
    with pytest.raises(ValueError, match="has no rows; nothing to export"):
        export_csv(tmp_path, tmp_path / "x")
    with pytest.raises(ValueError, match=r"no mean row with a value \(rows by status: none\); nothing to export"):
        export_latex(tmp_path, tmp_path / "x")
    fill(tmp_path, [row(model="m", status="failed", message="no"), measured(draw="0")])
    with pytest.raises(ValueError, match=r"\(rows by status: 1 failed, 1 ok\); nothing to export"):
        export_latex(tmp_path, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    fill(tmp_path, [measured()])
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*/x \(Is a directory\)"):
        export_csv(tmp_path, tmp_path / "x")


def test_latex_shows_point_and_ends_with_their_standard_errors(tmp_path):
    ends = {"point": 1.5, "point_error": 0.02, "lower": 1.25, "lower_error": 0.1, "upper": 1.75}
    fill(tmp_path, [measured(draw_std=0.0123, null=0.25, **ends), measured(quantity="entropy")])
    export_latex(tmp_path, tmp_path / "t.tex")
    text = (tmp_path / "t.tex").read_text("utf-8")
    assert r"{null} & {point} & {lower} & {upper} &" in text
    assert r"1.500 \pm 0.020 & 1.250 \pm 0.100 & 1.750 &" in text and r"{--} & {--} & {--} &" in text
