"""The probe of the information plane: soft assignments of every site, from the stream into estimator states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infocomp.activations.stream import Batch
from infocomp.estimators import SoftInformation
from infocomp.estimators.moments import RowMoments

Variant = tuple[str, str]  # site, rows ("raw", "centred" or "outliers_removed")
SINK_RATIO = 10.0


@dataclass(frozen=True)
class Sinks:
    """Share of a site's rows whose norm exceeds `SINK_RATIO` times their median norm; `n` rows."""

    share: float
    median_norm: float
    n: int


class InformationProbe:
    """Keeps one `SoftInformation` a site and row variant, in `states`, and the norm of every raw row of a site."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, states: Mapping[Variant, SoftInformation]) -> None:
        self.states = dict(states)
        self.sites: Sequence[str] = tuple(dict.fromkeys(site for site, _ in states))
        self._norms: dict[str, list[np.ndarray]] = {site: [] for site in self.sites}

    def compute(self, batch: Batch) -> tuple[list[tuple[Variant, Any]], dict[str, np.ndarray]]:
        computed, norms = [], {}
        for site in self.sites:
            rows = batch.rows_of(site)
            at_least_float32 = torch.promote_types(rows.dtype, torch.float32)
            norms[site] = torch.linalg.vector_norm(rows, dim=1, dtype=at_least_float32).float().cpu().numpy()
            for variant, state in self.states.items():
                if variant[0] == site:
                    try:
                        computed.append((variant, state.assign(rows)))
                    except ValueError as error:
                        raise ValueError(f"at site {site}: {error}") from None
        return computed, norms

    def keep(self, computed: tuple[list[tuple[Variant, Any]], dict[str, np.ndarray]]) -> None:
        assignments, norms = computed
        for variant, assigned in assignments:
            self.states[variant].keep(assigned)
        for site, lengths in norms.items():
            self._norms[site].append(lengths)

    def sinks(self) -> dict[str, Sinks]:
        """What is left of attention sinks among each site's rows: a sink's norm is tens of times that of other rows.

        The median is that of the pass itself, so that the number is the same with and without a pilot, and in any cut
        of the text into batches.
        """
        found = {}
        for site, parts in self._norms.items():
            if parts:
                norms = np.concatenate(parts)
                median = float(np.median(norms))
                found[site] = Sinks(float((norms > SINK_RATIO * median).mean()), median, len(norms))
        return found


class CentreProbe:
    """Moments of the rows of each site: the pilot that fixes centre and outlier directions before the pass they serve.

    Without `outliers` only means are kept.
    """

    needs_hidden = False
    needs_logits = False

    def __init__(self, sites: Sequence[str], outliers: bool = False) -> None:
        self.sites, self.outliers = tuple(sites), outliers
        self._moments: dict[str, RowMoments] = {}

    def compute(self, batch: Batch) -> dict[str, RowMoments]:
        found = {}
        for site in self.sites:
            rows = batch.rows_of(site)
            found[site] = RowMoments(rows.shape[1], with_scatter=self.outliers)
            found[site].update(rows)
        return found

    def keep(self, computed: dict[str, RowMoments]) -> None:
        for site, moments in computed.items():
            if site in self._moments:
                self._moments[site].merge(moments)
            else:
                self._moments[site] = moments

    def centres(self) -> dict[str, Tensor]:
        """Mean row of each site, float64 on the CPU."""
        return {site: moments.mean for site, moments in self._moments.items()}

    def directions(self, k: int) -> dict[str, Tensor]:
        """The k directions of largest variance at each site, [dim, k]. ValueError names the site that has fewer."""
        found = {}
        for site, moments in self._moments.items():
            try:
                found[site] = moments.directions(k)
            except ValueError as error:
                raise ValueError(f"at site {site}: {error}") from None
        return found


def scratch_needed(sites: int, rows: int, draws: int, bins: int, memory_budget: int) -> bool:
    """Whether the assignments of all sites, in float32, exceed half of the budget (the rest is for reducing)."""
    return sites * rows * draws * bins * 4 > memory_budget // 2


def scratch_folder(scratch: Path | None, out: Path) -> Path:
    """Where scratch files go: the folder asked for, else `OUT/scratch`."""
    return out / "scratch" if scratch is None else scratch
