"""The merged table for other programs: CSV with every column and row, LaTeX (booktabs, siunitx) with the means.

In LaTeX a value is written with the spread over anchor draws, to two digits of the spread; an empty cell is a dash.
"""

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infocomp.execution.part import replacing
from infocomp.execution.table import KEY, read

FEWEST_DECIMALS, MOST_DECIMALS = 3, 6
ONE_PAGE = 45  # rows; a longer table breaks over pages (longtable)
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def export_csv(out: str | Path, path: str | Path | None = None) -> None:
    """Write the merged table as CSV to a file, or to standard output. An empty cell is empty.

    FileNotFoundError, ValueError: there is no table to export. StorageError: the file cannot be written.
    """
    frame = read(out)
    if frame.empty:
        raise ValueError(f"the table of {out} has no rows; nothing to export")
    _write(frame.to_csv(index=False, lineterminator="\n"), path)


def export_latex(out: str | Path, path: str | Path | None = None) -> None:
    r"""Write the mean rows (step, site, quantity, value ± spread, null, …) as LaTeX to a file to \input, or on screen.

    Point estimate and both ends follow, with their standard errors over documents, where the table has them. What
    tells rows apart beyond these (model, text, weighting, …) gets a column where it differs. Needs the packages
    booktabs, siunitx and, over 45 rows, longtable. FileNotFoundError, ValueError: there is no mean row to export.
    """
    frame = read(out)
    means = frame[frame["draw"].isin(["mean", ""]) & frame["value"].notna()]
    if means.empty:
        other = (
            ", ".join(f"{number} {name}" for name, number in sorted(frame["status"].value_counts().items())) or "none"
        )
        raise ValueError(
            f"the table of {out} has no mean row with a value (rows by status: {other}); nothing to export"
        )
    _write(latex_table(means), path)


def latex_table(means: pd.DataFrame) -> str:
    """The LaTeX text of mean rows, one line per row."""
    columns = _columns(means)
    kind = "tabular" if len(means) <= ONE_PAGE else "longtable"
    shape = "".join(
        ({"step": "r", "seed": "r"} | dict.fromkeys(("value", "null", *ENDS), "S")).get(name, "l") for name in columns
    )
    head = " & ".join(f"{{{escape(name)}}}" for name in columns) + r" \\"
    lines = [" & ".join(cell(row) for cell in columns.values()) + r" \\" for row in means.to_dict("records")]
    frame = [r"\toprule", head, r"\midrule"]
    if kind == "longtable":
        frame += [r"\endhead", r"\bottomrule", r"\endfoot", *lines]
    else:
        frame += [*lines, r"\bottomrule"]
    needs = "booktabs, siunitx" + (", longtable" if kind == "longtable" else "")
    note = f"% needs {needs}; the value's uncertainty is the standard deviation over anchor draws"
    note += ", that of point and ends the standard error over documents" if "point" in columns else ""
    return "\n".join([note, rf"\begin{{{kind}}}{{{shape}}}", *frame, rf"\end{{{kind}}}", ""])


def escape(text: str) -> str:
    """Text with LaTeX's special characters written out."""
    return "".join(SPECIAL.get(character, character) for character in text)


def number(value: float, spread: float | None) -> str:
    r"""A number as siunitx reads it, `1.2340 \pm 0.0056`: to two digits of the spread, between 3 and 6 decimals."""
    if spread is None or math.isnan(spread):
        return f"{value:.{FEWEST_DECIMALS}f}"
    digits = 1 - math.floor(math.log10(spread)) if spread > 0 else FEWEST_DECIMALS
    decimals = min(max(digits, FEWEST_DECIMALS), MOST_DECIMALS)
    return rf"{value:.{decimals}f} \pm {spread:.{decimals}f}"


ENDS = ("point", "lower", "upper")
Cell = Callable[[Mapping[Any, Any]], str]


def _columns(means: pd.DataFrame) -> dict[str, Cell]:
    """Each column's heading and how its cell is written; the key's other columns only where they differ."""
    named = ["revision"] if means["step"].isna().any() else []
    others = [name for name in (*KEY, "stage") if name not in ("revision", "draw", "site", "quantity", "label")]
    differing = [name for name in others if means[name].nunique(dropna=False) > 1]
    optional = [name for name in ("label", "unit") if means[name].notna().any() and means[name].ne("").any()]
    texts = [*differing, *named, "step", "site", "quantity", *(name for name in optional if name == "label")]
    columns: dict[str, Cell] = {name: _plain(name) for name in texts}
    columns["value"] = lambda row: number(row["value"], row["draw_std"])
    columns["null"] = _real("null")
    columns |= {name: _real(name) for name in ENDS if means[name].notna().any()}
    if "unit" in optional:
        columns["unit"] = _plain("unit")
    return columns


def _real(name: str) -> Cell:
    """A number, with the standard error over documents where the table has one for it."""
    error = f"{name}_error"

    def cell(row: Mapping[Any, Any]) -> str:
        return "{--}" if pd.isna(row[name]) else number(row[name], row.get(error))

    return cell


def _plain(name: str) -> Cell:
    def cell(row: Mapping[Any, Any]) -> str:
        return "--" if pd.isna(row[name]) or row[name] == "" else escape(str(row[name]))

    return cell


def _write(text: str, path: str | Path | None) -> None:
    if path is None:
        sys.stdout.write(text)
        return
    with replacing(path) as file:
        file.write(text.encode())
