"""Which changes between checkpoints stand up: paired over documents, in lower end, point and upper end at once.

Two checkpoints read the same documents with the same anchors, so the difference of their influence values is taken
document by document, in bits. A change counts when the differences of the lower end, of the upper end and of the point
estimate all have the same sign: `p` is the largest of their three two-sided p-values (Student's t over groups of
documents; an intersection–union test, Berger 1982), and 1 where the signs differ. Noise of another geometry moves the
ends apart, not along, and is not taken for a change. What it assumes: that rare and frequent labels share in a change.
Information that only moves from frequent labels to rare ones, the sum kept, moves all three alike
(analysis/changes_table.py). How many of the changes drawn together may be false is decided by the figure
(`plotting.changes`), at a false-discovery rate of 5 %.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from infocomp.estimators.numbers import standard_error
from infocomp.execution.part import INFLUENCE_KEY, read_part
from infocomp.execution.store import Store
from infocomp.execution.table import read
from infocomp.plotting.selection import with_positions

CHANGES = "changes.csv"
ENDS = ("lower", "point", "upper")
KEY = ("model", *INFLUENCE_KEY)
COLUMNS = (
    *("model", *INFLUENCE_KEY, "from_revision", "revision", "from_step", "step", "span"),
    *("value_change", "value_error", "lower_change", "lower_error", "point_change", "point_error"),
    *("upper_change", "upper_error", "n_groups", "p"),
)
FEWEST_GROUPS = 8
Influence = Mapping[str, Float[np.ndarray, "groups"]]


def change(
    first: Mapping[str, float], second: Mapping[str, float], of_first: Influence, of_second: Influence
) -> dict[str, float]:
    """Differences second − first of value, lower, point and upper, their standard errors, and p, in the ends' unit.

    `first` and `second` hold the numbers, `of_first` and `of_second` what each group of documents weighs in them.
    ValueError: not the same groups of documents, or fewer than 8.
    """
    groups = {len(of) for of in (*of_first.values(), *of_second.values())}
    if len(groups) != 1:
        raise ValueError(f"changes are paired over the same groups of documents; given are {sorted(groups)} groups.")
    n = groups.pop()
    if n < FEWEST_GROUPS:
        raise ValueError(f"a change needs {FEWEST_GROUPS} documents or groups of them, given are {n}.")
    found: dict[str, float] = {"n_groups": n}
    worst, signs = 0.0, set()
    for name in ("value", *ENDS):
        difference = second[name] - first[name]
        error = standard_error(of_second[name].astype(np.float64) - of_first[name].astype(np.float64))
        found |= {f"{name}_change": difference, f"{name}_error": error}
        if name in ENDS:
            signs.add(np.sign(difference))
            worst = max(worst, 2 * float(student.sf(abs(difference) / error, n - 1)) if error > 0 else 1.0)
    found["p"] = worst if len(signs) == 1 and 0 not in signs else 1.0
    return found


def changes(out: str | Path) -> pd.DataFrame:
    """Changes from each checkpoint to the next, and from the first to the last, of all quantities that have both ends.

    Columns: COLUMNS; `span` is "step" or "whole". Duplicates of an earlier checkpoint's weights are left out.
    """
    store, table = Store(out), read(out)
    rows = table[(table["draw"] == "mean") & (table["status"] == "ok") & table["point"].notna()]
    rows = rows[rows["lower_error"].notna() & rows["step"].notna() & rows["duplicate_of"].isna()]
    rows = with_positions(rows.assign(stage=rows["stage"].fillna("")))
    loaded: dict[str, Mapping[tuple, Influence]] = {}

    def influence(row: Mapping[str, Any]) -> Influence | None:
        unit = str(row["unit_name"])
        if unit not in loaded:
            while len(loaded) > 3:
                loaded.pop(next(iter(loaded)))
            loaded[unit] = _influences(store, unit)
        return loaded[unit].get(tuple(str(row[name]) for name in INFLUENCE_KEY))

    found = []
    for first, second, span in sorted(_pairs(rows), key=_along_the_chain):
        of_first, of_second = influence(first), influence(second)
        if of_first is None or of_second is None:
            continue
        about = {name: second[name] for name in KEY} | {"revision": second["revision"], "step": second["step"]}
        about |= {"from_revision": first["revision"], "from_step": first["step"], "span": span}
        found.append(about | change(first, second, of_first, of_second))
    frame = pd.DataFrame(found, columns=list(COLUMNS))
    return frame.sort_values([*KEY, "span", "step"], ignore_index=True)


def write_changes(out: str | Path) -> Path | None:
    """Write OUT/changes.csv; None, and no file, where there is no change to judge."""
    found = changes(out)
    path = Path(out) / CHANGES
    if found.empty:
        path.unlink(missing_ok=True)
        return None
    found.to_csv(path, index=False)
    return path


def _along_the_chain(pair: tuple[dict[str, Any], dict[str, Any], str]) -> tuple[bool, str, str, float, float]:
    """Pairs that need the same two units one after the other, and each unit next to its neighbours."""
    first, second, span = pair
    return span == "whole", str(first["model"]), str(first["branch"]), first["position"], second["position"]


def _pairs(table: pd.DataFrame) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Rows of one checkpoint and the next of its branch, and of first and last where these are more than two."""
    for _, path in table.sort_values("position", kind="stable").groupby([*KEY, "branch"], sort=False):
        rows: list[dict[str, Any]] = path.to_dict("records")  # pyright: ignore[reportAssignmentType]
        yield from ((first, second, "step") for first, second in pairwise(rows))
        if len(rows) > 2:
            yield rows[0], rows[-1], "whole"


def _influences(store: Store, unit: str) -> Mapping[tuple, Influence]:
    """What groups of documents weigh in each number of a unit."""
    part = read_part(store.part_path(unit), unit)
    expected = part.beside.get("influence")
    if not expected:
        return {}
    frame = store.beside(unit, "influence", expected).to_pandas()
    return {
        tuple(map(str, key)): {name: part[name].to_numpy() for name in ("value", *ENDS)} for key, part in _by_key(frame)
    }


def _by_key(frame: pd.DataFrame) -> Iterable[tuple[tuple, pd.DataFrame]]:
    return frame.groupby(list(INFLUENCE_KEY), sort=False)  # pyright: ignore[reportReturnType]
