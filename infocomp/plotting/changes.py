"""Which changes between checkpoints stand up among all that a figure draws, and how a line shows it.

A change is judged by the p-value of its own row in OUT/changes.csv (lower end, point and upper end paired over
documents, all with one sign); a figure draws many, so that a false-discovery rate of 5 % is held over all of them
(Benjamini & Hochberg 1995). What stands up is drawn as a full line, what does not as a thin pale one. The family is the
figure: the same change may stand up in one figure and not in another that draws more.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType
from scipy.stats import false_discovery_control

from infocomp.plotting import style
from infocomp.plotting.selection import NothingToDraw

CHANGES = "changes.csv"
RATE = 0.05
JUDGED = ["change_from", "change_p", "resolved"]
RESOLVED = "change resolved (FDR 5 %)"
NOT_RESOLVED = "not resolved"
PALE, THIN = 0.3, 0.6
_WHICH = ["model", "site", "rows", "estimator", "quantity", "label", "weighting", "corpus"]
_PAIR = ["from_revision", "revision"]
_PATH = ["model", "site", "branch", "quantity", "label"]


def read_changes(out: str | Path | Sequence[str | Path]) -> pd.DataFrame | None:
    """The changes of one run folder or of several, one below the other; None where none has any (changes.csv).

    ValueError: a file without the columns that name a change and give its p.
    """
    folders = [Path(out)] if isinstance(out, str | Path) else [Path(folder) for folder in out]
    found = [_read(folder / CHANGES) for folder in folders if (folder / CHANGES).is_file()]
    return pd.concat(found, ignore_index=True).drop_duplicates(ignore_index=True) if found else None


def resolved(changes: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """`change_p` and `resolved` of every row of `drawn`, all of which one figure draws.

    `drawn` names a change in each row: model, site, rows, estimator, quantity, label, weighting, corpus, from_revision,
    revision. A change that `changes` does not hold was not judged: it has no p and is not resolved.
    NothingToDraw: `changes` lacks columns, or holds two p-values of one change.
    """
    lacking = [name for name in (*_WHICH, *_PAIR, "span", "p") if name not in changes.columns]
    if lacking:
        raise NothingToDraw(f"the changes lack the columns {', '.join(lacking)}; give the {CHANGES} of a run")
    steps = changes.loc[changes["span"] == "step", [*_WHICH, *_PAIR, "p"]].drop_duplicates()
    twice = steps[steps.duplicated([*_WHICH, *_PAIR])]
    if len(twice):
        first = ", ".join(f"{name} {twice.iloc[0][name]}" for name in ("model", "site", "quantity", *_PAIR))
        raise NothingToDraw(f"the changes hold two p-values of one change ({first}); draw the runs one by one")
    p = drawn[[*_WHICH, *_PAIR]].merge(steps, on=[*_WHICH, *_PAIR], how="left")["p"].to_numpy(dtype=float)
    stands = np.zeros(len(p), dtype=bool)
    known = np.isfinite(p)
    if known.any():
        stands[known] = false_discovery_control(p[known]) <= RATE
    return pd.DataFrame({"change_p": p, "resolved": stands}, index=drawn.index)


def judge(rows: pd.DataFrame, changes: pd.DataFrame | None, column: str = "value") -> pd.DataFrame:
    """The rows of a figure with `change_from`, `change_p`, `resolved`: of the change that ends at each row.

    A change leads from the checkpoint before (duplicates of earlier weights and rows without `column` left out).
    The three columns are empty where no change ends, and everywhere without `changes`.
    """
    starts = pd.Series("", index=rows.index, dtype=object)
    for _, path in rows[~rows["duplicate"] & rows[column].notna() & rows["position"].notna()].groupby(_PATH):
        ordered = path.sort_values("position", kind="stable")
        starts[ordered.index[1:]] = ordered["revision"].to_numpy()[:-1]
    found = rows.assign(change_from=starts, change_p=np.nan, resolved=pd.array([pd.NA] * len(rows), dtype="boolean"))
    if changes is None:
        return found.assign(change_from="")
    drawn = found[found["change_from"] != ""].rename(columns={"change_from": "from_revision"})
    judged = resolved(changes, drawn)
    found.loc[judged.index, "change_p"] = judged["change_p"]
    found.loc[judged.index, "resolved"] = judged["resolved"].astype("boolean")
    return found


def draw_line(
    ax: Axes, path: pd.DataFrame, column: str, colour: ColorType, width: float, gid: str, zorder: float = 3
) -> None:
    """A path over `position`: one line where nothing was judged, else a piece for each change, full or pale.

    The pieces' gids are `gid` with "|resolved" or "|not resolved" behind it.
    """
    if path["resolved"].isna().all():
        ax.plot(path["position"], path[column], color=colour, lw=width, zorder=zorder, gid=gid)
        return
    for start, end in _pieces(path):
        stands = bool(end["resolved"])
        ax.plot(
            [start["position"], end["position"]],
            [start[column], end[column]],
            color=colour,
            lw=width if stands else THIN * width,
            alpha=None if stands else PALE,
            solid_capstyle="round" if stands else "butt",
            zorder=zorder,
            gid=f"{gid}|{RESOLVED if stands else NOT_RESOLVED}",
        )


def entries(points: pd.DataFrame) -> list[Line2D]:
    """What full and pale lines mean, as far as either is drawn."""
    handles = []
    if points["resolved"].eq(True).any():
        handles.append(Line2D([], [], color=style.INK, lw=1.0, label=RESOLVED))
    if points["resolved"].eq(False).any():
        handles.append(Line2D([], [], color=style.INK, lw=THIN, alpha=PALE, label=NOT_RESOLVED))
    return handles


def _pieces(path: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.Series]]:
    at = {row["revision"]: row for _, row in path.iterrows()}
    for _, end in path.iterrows():
        if end["change_from"] != "" and pd.notna(end["resolved"]):
            yield at[end["change_from"]], end


def _read(path: Path) -> pd.DataFrame:
    """Text as it is written: an empty cell is "", and a text called NA keeps its name."""
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "p" not in found or "span" not in found:
        raise ValueError(f"{path} is no table of changes (it lacks span or p); run the study again to write it anew")
    numbers = [name for name in found if name not in (*_WHICH, *_PAIR, "span")]
    return found.assign(**{str(name): pd.to_numeric(found[name], errors="coerce") for name in numbers})
