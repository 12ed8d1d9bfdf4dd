"""Which conclusions about a checkpoint survive another setting of the estimator.

A conclusion is what the base says, put as a sentence, and a test that every variant is put to. What is read at a site
is the point estimate; where there is none it is the plug-in less its null, which optimality has in it anyway. A variant
that failed, or lacks what the test needs (an interval takes 8 documents and frequency weighting), is not judged.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from infocomp.execution.part import replacing

CONCLUSIONS = "conclusions.csv"
BASE = "base"
LEAST_CORRELATION = 0.9
QUANTITIES = ("complexity", "expressivity", "optimality")
INFORMATIONS = QUANTITIES[:2]

Sites: TypeAlias = pd.DataFrame
"""What one variant says, a row a site: a column a quantity, "complexity low" …, `layer` (NaN off the stream)."""


@dataclass(frozen=True)
class Conclusion:
    """`holds` tells of what a variant says whether the sentence is true of it; None: it cannot be judged.

    Asked of the variants whose name begins with `among`.
    """

    sentence: str
    holds: Callable[[Sites], bool | None]
    among: str = ""


def write_conclusions(table: pd.DataFrame, out: Path) -> pd.DataFrame:
    """`conclusions` of the table, kept as OUT/conclusions.csv."""
    found = conclusions(table)
    with replacing(Path(out) / CONCLUSIONS) as file:
        file.write(found.to_csv(index=False, lineterminator="\n").encode())
    return found


def conclusions(table: pd.DataFrame) -> pd.DataFrame:
    """A row a text and conclusion: in how many of the `variants` it `holds`, which fail, which cannot be judged.

    ValueError: the base setting was not measured.
    """
    rows = []
    for corpus in table["corpus"].unique():
        own = table[table["corpus"] == corpus]
        readings = read_variants(own)
        if BASE not in readings or readings[BASE].empty:
            failed = own.loc[own["estimator"] == "soft", "message"].dropna()
            because = f" ({failed.iloc[0]})" if len(failed) else ""
            raise ValueError(f"the base setting was not measured on {corpus!r}{because}: nothing to compare with.")
        others = {name: readings[name] for name in sorted(readings, key=_natural) if name != BASE}
        for conclusion in drawn_from(readings[BASE]):
            asked = {name: sites for name, sites in others.items() if name.startswith(conclusion.among)}
            verdicts = {name: conclusion.holds(sites) for name, sites in asked.items()}
            rows.append(
                {
                    "corpus": corpus,
                    "conclusion": conclusion.sentence,
                    "holds": sum(verdict is True for verdict in verdicts.values()),
                    "variants": len(verdicts),
                    "fails": ", ".join(name for name, verdict in verdicts.items() if verdict is False),
                    "not_judged": ", ".join(name for name, verdict in verdicts.items() if verdict is None),
                }
            )
    return pd.DataFrame(rows)


def drawn_from(base: Sites) -> list[Conclusion]:
    """Whatever the base says, each conclusion by its own function; those that it is silent about are left out."""
    found = [
        *(order_of_sites(base, quantity) for quantity in INFORMATIONS),
        largest_site(base, "expressivity"),
        *(above_zero(base, quantity) for quantity in INFORMATIONS),
        *(change_with_depth(base, quantity) for quantity in QUANTITIES),
        depth_whatever_the_rows(base),
    ]
    return [conclusion for conclusion in found if conclusion is not None]


def order_of_sites(base: Sites, quantity: str) -> Conclusion | None:
    """Spearman's correlation with the base over sites; of four sites or fewer only the same order reaches 0.9."""
    if base[quantity].notna().sum() < 3:
        return None

    def holds(sites: Sites) -> bool | None:
        ranks = pd.DataFrame({"base": base[quantity], "other": sites[quantity]}).dropna().rank()
        if len(ranks) < 3 or ranks["other"].nunique() < 2 or ranks["base"].nunique() < 2:
            return None
        return bool(np.corrcoef(ranks["base"], ranks["other"])[0, 1] >= LEAST_CORRELATION - 1e-12)

    return Conclusion(f"order of the sites by {quantity} (rank correlation ≥ {LEAST_CORRELATION})", holds)


def largest_site(base: Sites, quantity: str) -> Conclusion | None:
    """The same site leads."""
    if base[quantity].isna().all():
        return None
    first = base[quantity].idxmax()

    def holds(sites: Sites) -> bool | None:
        return None if sites[quantity].isna().all() else bool(sites[quantity].idxmax() == first)

    return Conclusion(f"{quantity} is largest at {first}", holds)


def above_zero(base: Sites, quantity: str) -> Conclusion | None:
    """The lower limit of the lower end against 0 at every site: what a null alone would give is excluded, or not."""

    def answer(sites: Sites) -> bool | None:
        low = sites[f"{quantity} low"]
        return None if low.empty or low.isna().any() else bool((low > 0).all())

    said = answer(base)
    if said is None:
        return None
    sentence = f"{quantity} is above 0 at every site" if said else f"{quantity} is not above 0 at every site"
    return Conclusion(f"{sentence} (lower limit of the lower end)", lambda sites: _same(said, answer(sites)))


def change_with_depth(base: Sites, quantity: str) -> Conclusion | None:
    """The sign of last block minus first."""
    said = rises(base, quantity)
    if said is None:
        return None
    sentence = f"{quantity} {'rises' if said else 'falls'} from the first block to the last"
    return Conclusion(sentence, lambda sites: _same(said, rises(sites, quantity)))


def depth_whatever_the_rows(base: Sites) -> Conclusion | None:
    """The signs of complexity and expressivity together, asked of raw, centred and outlier-free rows alone."""
    said = [rises(base, quantity) for quantity in INFORMATIONS]
    if None in said:
        return None

    def holds(sites: Sites) -> bool | None:
        answers = [rises(sites, quantity) for quantity in INFORMATIONS]
        return None if None in answers else answers == said

    return Conclusion("both change with depth alike on raw, centred and outlier-free rows", holds, "rows ")


def rises(sites: Sites, quantity: str) -> bool | None:
    """Whether the last block reads more than the first; None for fewer than two blocks, a tie or a missing value."""
    blocks = sites[sites["layer"].notna()].sort_values("layer")[quantity]
    if len(blocks) < 2 or not np.isfinite(change := float(blocks.iloc[-1] - blocks.iloc[0])) or change == 0:
        return None
    return change > 0


def _same(said: bool, answer: bool | None) -> bool | None:
    return None if answer is None else answer == said


def read_variants(table: pd.DataFrame) -> dict[str, Sites]:
    """What each variant of one text says, by its name; a variant that failed says nothing."""
    found = {}
    for estimator, rows in table[table["estimator"].str.startswith("soft")].groupby("estimator", sort=False):
        name = str(estimator).removeprefix("soft, ") if estimator != "soft" else BASE
        rows = rows[(rows["draw"] == "mean") & (rows["status"] == "ok") & rows["quantity"].isin(QUANTITIES)]
        stream = rows["site"].str.endswith(".hook_resid_post")
        layers = rows["layer"].astype("float64").where(stream)
        sites = pd.DataFrame({"layer": layers.set_axis(rows["site"]).groupby(level=0, sort=False).first()})
        for quantity in QUANTITIES:
            own = rows[rows["quantity"] == quantity].set_index("site")
            corrected = own["value"] if quantity == "optimality" else own["value"] - own["null"]
            sites[quantity] = own["point"].fillna(corrected).astype("float64")
            sites[f"{quantity} low"] = own["ci_low"].astype("float64")
        found[name] = sites
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def told(found: pd.DataFrame) -> str:
    """The table for the terminal: a line a conclusion, and below it which variants disagree."""
    lines = []
    several = found["corpus"].nunique() > 1
    for corpus, rows in found.groupby("corpus", sort=False):
        lines += [str(corpus)] if several else []
        for row in rows.to_dict("records"):
            lines.append(f"{row['holds']:>3} of {row['variants']}  {row['conclusion']}")
            lines += [f"           fails: {row['fails']}"] if row["fails"] else []
            lines += [f"           not judged: {row['not_judged']}"] if row["not_judged"] else []
    return "\n".join(lines)
