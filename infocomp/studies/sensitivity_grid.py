"""Which settings a sensitivity study tries: the configuration's own, the base, and others that differ from it in one.

Varied are the bins m, the anchor draws, the seed of the anchors, the rule of the temperature, the share of documents,
the weighting of labels and the rows (raw, centred, without outlier directions).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from infocomp.corpora.windows import document_of
from infocomp.estimators.sphere import exact_temperature
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import EstimatorSettings

BASE = "base"


def leading_order_temperature(dim: int, bins: int) -> float:
    """1/√(2 d log m): what the exact temperature tends to for many dimensions.

    Source: Conklin (2025), arXiv 2505.23960, eq. 7, at leading order; the rule of the published figures.
    """
    return 1 / math.sqrt(2 * dim * math.log(bins))


TEMPERATURES: Mapping[str, Callable[[int, int], float]] = {
    "exact": exact_temperature,
    "leading order": leading_order_temperature,
    "half": lambda dim, bins: exact_temperature(dim, bins) / 2,
    "twice": lambda dim, bins: exact_temperature(dim, bins) * 2,
}
"""Rules by name: half and twice are those of the exact temperature."""


@dataclass(frozen=True)
class Setting:
    """One way to measure. `temperature` is a rule's name or a number, `one_in` keeps one document in so many."""

    bins: int
    draws: int
    seed: int
    temperature: str | float
    one_in: int
    weighting: str
    rows: str

    @classmethod
    def of(cls, estimator: EstimatorSettings) -> "Setting":
        """The configuration's own: of several weightings or rows the first."""
        temperature = estimator.temperature or "exact"
        weighting, rows = estimator.weighting[0], estimator.rows[0]
        return cls(estimator.bins, estimator.draws, estimator.seed, temperature, 1, weighting, rows)

    @property
    def feed(self) -> "Setting":
        """What the assignments depend on: settings that differ in their weighting alone share them."""
        return replace(self, weighting="")

    def temperature_for(self, dim: int) -> float:
        """The number that the rule gives at a site of `dim` dimensions."""
        rule = self.temperature
        return TEMPERATURES[rule](dim, self.bins) if isinstance(rule, str) else rule

    def levels(self) -> dict[str, str]:
        """Each varied setting by the name that tables and figures give it, as text."""
        temperature = self.temperature if isinstance(self.temperature, str) else f"{self.temperature:.4g}"
        return {
            "bins": str(self.bins),
            "draws": str(self.draws),
            "seed": str(self.seed),
            "temperature": temperature,
            "documents": "all" if self.one_in == 1 else f"1/{self.one_in}",
            "weighting": self.weighting,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Variant:
    """A setting and what it varies: the name of one of its levels, "" for the base."""

    varied: str
    setting: Setting

    @property
    def name(self) -> str:
        """As the table of conclusions names it: "bins 50"."""
        return f"{self.varied} {self.setting.levels()[self.varied]}" if self.varied else BASE

    @property
    def estimator(self) -> str:
        """The table's column `estimator`, which tells the variants apart: "soft" for the base, else "soft, bins 50"."""
        return f"soft, {self.name}" if self.varied else "soft"

    def columns(self) -> dict[str, Any]:
        """What the rows' `settings` say of it."""
        return {"varied": self.varied or BASE, "levels": self.setting.levels()}


@dataclass(frozen=True)
class Grid:
    """The levels that are tried; `seeds` other anchor seeds, one document in `one_in`."""

    bins: tuple[int, ...] = (50, 100, 200, 400)
    draws: tuple[int, ...] = (1, 2, 5, 10)
    seeds: int = 2
    temperatures: tuple[str, ...] = tuple(TEMPERATURES)
    one_in: tuple[int, ...] = (8, 4, 2)
    weightings: tuple[str, ...] = ("frequency", "uniform")
    rows: tuple[str, ...] = ("raw", "centred", "outliers_removed")

    def variants(self, base: Setting) -> list[Variant]:
        """The base first, then whatever differs from it; those that share its assignments come next."""
        fields = {
            "weighting": ("weighting", self.weightings),
            "bins": ("bins", self.bins),
            "draws": ("draws", self.draws),
            "seed": ("seed", tuple(base.seed + 1 + other for other in range(self.seeds))),
            "temperature": ("temperature", self.temperatures),
            "documents": ("one_in", self.one_in),
            "rows": ("rows", self.rows),
        }
        found = [Variant("", base)]
        for varied, (name, levels) in fields.items():
            settings = [replace(base, **{name: level}) for level in levels]
            found += [Variant(varied, setting) for setting in settings if setting != base]
        return found


def keep_documents(prepared: PreparedCorpus, one_in: int) -> tuple[PreparedCorpus, np.ndarray | None]:
    """The corpus cut to one document in `one_in`, whole documents, and which measured rows that keeps (None: all).

    Taken evenly from the text's order, so that 1 in 8 is part of 1 in 4 and no share is another kind of text. Of a
    packed text, the windows that begin in such a document are kept.
    """
    if one_in == 1:
        return prepared, None
    windows = prepared.windows
    kept = np.unique(windows.row_documents)[::one_in]
    chosen = np.flatnonzero(np.isin(document_of(windows.corpus, windows.starts), kept))
    names = ("starts", "lengths", "has_bos", "measure_from", "measure_to", "score_from")
    cut = replace(windows, **{name: getattr(windows, name)[chosen] for name in names})
    rows = np.isin(windows.row_windows, chosen)
    labels = [replace(label, ids=label.ids[rows]) for label in prepared.labels]
    return replace(prepared, windows=cut, labels=labels), rows
