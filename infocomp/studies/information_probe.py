"""The probe of the information plane: soft assignments of every site, from the stream into estimator states."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infocomp.activations.stream import Batch
from infocomp.estimators import SoftInformation

Variant = tuple[str, str]  # site, rows ("raw" or "centred")


class InformationProbe:
    """Keeps one `SoftInformation` a site and row variant; `states` holds them after the pass."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, states: Mapping[Variant, SoftInformation]) -> None:
        self.states = dict(states)
        self.sites: Sequence[str] = tuple(dict.fromkeys(site for site, _ in states))

    def compute(self, batch: Batch) -> list[tuple[Variant, Any]]:
        computed = []
        for site in self.sites:
            rows = batch.rows_of(site)
            for variant, state in self.states.items():
                if variant[0] == site:
                    try:
                        computed.append((variant, state.assign(rows)))
                    except ValueError as error:
                        raise ValueError(f"at site {site}: {error}") from None
        return computed

    def keep(self, computed: list[tuple[Variant, Any]]) -> None:
        for variant, assigned in computed:
            self.states[variant].keep(assigned)


class CentreProbe:
    """Means of the rows of each site: the pilot that fixes the centre before the pass that uses it."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, sites: Sequence[str]) -> None:
        self.sites = tuple(sites)
        self._sums: dict[str, Tensor] = {}
        self._n = 0

    def compute(self, batch: Batch) -> tuple[int, dict[str, Tensor]]:
        sums = {site: batch.rows_of(site).float().sum(dim=0).double().cpu() for site in self.sites}
        return len(batch.measured), sums

    def keep(self, computed: tuple[int, dict[str, Tensor]]) -> None:
        count, sums = computed
        self._n += count
        for site, total in sums.items():
            self._sums[site] = self._sums.get(site, torch.zeros_like(total)) + total

    def centres(self) -> dict[str, Tensor]:
        """Mean row of each site, float64 on the CPU."""
        return {site: total / self._n for site, total in self._sums.items()}


def scratch_needed(sites: int, rows: int, draws: int, bins: int, memory_budget: int) -> bool:
    """Whether the assignments of all sites, in float32, exceed half of the budget (the rest is for reducing)."""
    return sites * rows * draws * bins * 4 > memory_budget // 2


def scratch_folder(scratch: Path | None, out: Path) -> Path:
    """Where scratch files go: the folder asked for, else `OUT/scratch`."""
    return out / "scratch" if scratch is None else scratch
