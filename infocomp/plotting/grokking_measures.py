"""Which progress measures a figure of grokking shows, what they are called, and which lead belongs to which.

A measure is a quantity at a site, of some rows, under a label. Of spectra the mean over matrices stands for all where
there is one; of informations the last site before the logits does. Loss and accuracy of the test rows at the kept
states are measures too, and the onset of that loss is what leads are relative to: the reference. The claim of a lead
(leads, lags, moves with it, …) is that of its row: a figure claims nothing of its own.
"""

import numpy as np
import pandas as pd

from infocomp.plotting.grokking_selection import (
    ANSWER,
    AT_STATE,
    CONTEXT,
    CURVES,
    EXPRESSIVITY,
    LEAD,
    ONSET,
    over_seeds,
    site_rank,
)
from infocomp.plotting.grokking_style import FLOOR, number_text, site_text

NAMES = {
    "loss": "test loss",
    "accuracy": "test accuracy",
    "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss",
    "fourier_gini": "Fourier Gini",
    "key_frequencies": "key frequencies",
    "weight_norm": "weight norm",
    "effective_rank": "effective rank",
    "spectrum_entropy": "spectrum entropy",
    "description_bits": "description",
    "linear_mapping_number": "linear mapping number",
    "learning_coefficient": "learning coefficient",
    "synergy": "synergy",
    "redundancy": "redundancy",
    CONTEXT: "I(context; J)",
    EXPRESSIVITY: "I(answer; J)",
}
INFORMATIONS = (CONTEXT, EXPRESSIVITY)
LOSSES = ("loss", "restricted_loss", "excluded_loss")  # drawn on a logarithmic scale, with a floor
SPECTRA = ("effective_rank", "spectrum_entropy")
LEADS, LAGS = "leads", "lags"
REFERENCE = "test loss"  # what the settings of a lead call what it is relative to
NO_CLAIM = "no claim"
_MEAN = "mean"
_JOINT = " · "
_PARTS = ("site", "label", "rows")  # as in the label of a lead


def measures_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the progress measures to be shown, with `measure`: quantity, site, label and rows joined by " · ".

    A measure is shown where a treated run has it at two steps.
    """
    found = rows[rows["quantity"].isin(list(NAMES)) & rows["step"].notna() & rows["seed"].notna()]
    found = found[(found["quantity"] != EXPRESSIVITY) | (found["label"] == ANSWER)]
    followed = (found["label"] == AT_STATE) & (found["rows"] == "test")
    found = found[~found["quantity"].isin(CURVES) | followed]
    if found.empty:
        return found.assign(measure="")
    averaged = found.loc[found["label"] == _MEAN, "quantity"].unique()
    found = found[~found["quantity"].isin([*averaged]) | ~found["quantity"].isin(SPECTRA) | (found["label"] == _MEAN)]
    information = found["quantity"].isin(INFORMATIONS)
    inside = [site for site in found.loc[information, "site"].unique() if site != "logits"]
    last = max(inside, key=site_rank, default="logits")
    found = found[~information | (found["site"] == last)]
    found = found.assign(measure=[_JOINT.join(part for part in parts if part) for parts in _keys(found)])
    steps = found[~found["control"]].groupby("measure")["step"].nunique()
    return in_order(found[found["measure"].isin(steps[steps > 1].index)])


def _keys(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    return [tuple(parts) for parts in rows[["quantity", *_PARTS]].itertuples(index=False)]


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """By measure as in NAMES, then site in the forward pass, rows and label, then control, seed and step."""
    place = {name: number for number, name in enumerate(NAMES)}
    rank = {site: number for number, site in enumerate(sorted(rows["site"].unique(), key=site_rank))}
    turn = rows.assign(place=rows["quantity"].map(place), depth=rows["site"].map(rank))
    turn = turn.sort_values(["place", "depth", "rows", "label", "control", "seed", "step"], kind="stable")
    return turn.drop(columns=["place", "depth"])


def measure_text(quantity: str, site: str, rows: str, label: str) -> str:
    """A measure in words: "Fourier Gini, unembedding", "I(answer; J), stream out 0, test", "test loss, log"."""
    if quantity in CURVES:
        site, rows, label = "", "", ""
    at = "" if site == "logits" and quantity not in INFORMATIONS else site_text(site) if site else ""
    kind = "" if label in (ANSWER, _MEAN) else label
    if quantity in SPECTRA and label == _MEAN:
        kind = "mean of matrices"
    scale = "log" if quantity in LOSSES else ""
    return ", ".join(part for part in (NAMES[quantity], at, rows, kind, scale) if part)


def reference_onsets(points: pd.DataFrame) -> pd.DataFrame:
    """The onsets of the test loss, one row a seed that has one; none where the page does not show the test loss."""
    return points[(points["series"] == "onset") & (points["quantity"] == "loss") & points["value"].notna()]


def of_measures(rows: pd.DataFrame, measures: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The treated setting's onsets or leads, with the `measure` that each is about; those of no shown measure go.

    A label names the quantity and any of site, rows and label. It is about every measure that has all these parts; of
    several labels about one measure the one with the most parts counts. Leads relative to what is not the test loss
    go. The `quantity` of what is returned is the measure's.
    """
    assert quantity in (LEAD, ONSET)
    told = rows[(rows["quantity"] == quantity) & ~rows["control"]]
    told = told[(told["reference"] == REFERENCE) | (quantity == ONSET)]
    shown = measures.drop_duplicates("measure")
    parts = []
    for own in shown.itertuples(index=False):
        known = {getattr(own, name) for name in _PARTS} - {""}
        fitting = [label for label in told["label"].unique() if _about(str(label), str(own.quantity), known)]
        if fitting:
            best = max(fitting, key=lambda label: str(label).count(_JOINT))
            parts.append(told[told["label"] == best].assign(measure=own.measure, quantity=own.quantity))
    return pd.concat(parts) if parts else told.iloc[:0].assign(measure="")


def _about(label: str, quantity: str, known: set[str]) -> bool:
    first, *others = label.split(_JOINT)
    return first == quantity and set(others) <= known


def means(measures: pd.DataFrame) -> pd.DataFrame:
    """Mean, least and greatest over seeds of each measure, treated and control: one row a step."""
    parts = []
    for (measure, control), own in measures.groupby(["measure", "control"], sort=False):
        found = pd.DataFrame(over_seeds(own[["seed", "step", "value"]])).rename(columns={"mean": "value"})
        first = own.iloc[0]
        known = {name: first[name] for name in ("setting", "quantity", "site", "rows", "label", "unit", "model")}
        parts.append(found.assign(measure=str(measure), control=bool(control), **known))
    return pd.concat(parts, ignore_index=True)


def ranges(drawn: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The range that each measure is scaled to: least and greatest value of a treated seed."""
    treated = drawn[~drawn["control"]].groupby("measure")[["low", "high"]].agg({"low": "min", "high": "max"})
    return {str(name): (float(low), float(high)) for name, low, high in treated.itertuples()}


def range_text(low: float, high: float, unit: str, log: bool = False) -> str:
    """ "0.24 to 0.79 ratio", of a logarithmic row that is cut at its floor "1e−7 (floor) to 5.9 bits"."""
    one, two = number_text(low), number_text(high)
    if log and low < FLOOR:
        return f"{number_text(FLOOR)} (floor) to {two} {unit}"
    return f"{one} to {two} {unit}" if one != two else f"{one} {unit}"


def lead_text(claim: str, value: float, low: float, high: float) -> str:
    """The claim, or that there is none, and log2(onset / onset of the test loss): "leads: −1.2 [−1.4, −1.0]"."""
    claim = claim or NO_CLAIM
    if not np.isfinite(value):
        return claim
    one, first, last = (f"{number:.1f}".replace("-0.0", "0.0").replace("-", "−") for number in (value, low, high))
    return f"{claim}: {one} [{first}, {last}]" if np.isfinite([low, high]).all() else f"{claim}: {one}"
