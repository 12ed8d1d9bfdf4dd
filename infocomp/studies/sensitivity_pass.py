"""Several settings fed by one forward pass, as many at a time as the memory budget holds.

A pass begins when a setting is asked for that none has fed yet, and takes along those that wait behind it. What one
setting cannot do (an activation without direction, say) is its own failure; what ends the pass is that of all in it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.activations.sites import resolve_sites
from infocomp.activations.stream import Batch, stream
from infocomp.estimators import SoftInformation
from infocomp.estimators.buffer import bytes_needed
from infocomp.execution.session import Report
from infocomp.studies.information_probe import CentreProbe, scratch_needed
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.sensitivity_grid import Setting, keep_documents
from infocomp.studies.settings import ComputeSettings, EstimatorSettings

States = dict[str, SoftInformation]


class SettingsProbe:
    """Feeds the states of several settings at every site; `kept` says which measured rows a setting takes."""

    needs_hidden = False
    needs_logits = False

    def __init__(self, states: Mapping[Setting, States], kept: Mapping[Setting, np.ndarray | None]) -> None:
        self.states, self.failed = dict(states), dict[Setting, ValueError]()
        self._kept = kept
        self.sites: Sequence[str] = tuple(dict.fromkeys(site for own in states.values() for site in own))

    def compute(self, batch: Batch) -> list[tuple[Setting, str, Any]]:
        found: list[tuple[Setting, str, Any]] = []
        for site in self.sites:
            rows = batch.rows_of(site)
            for setting, own in self.states.items():
                try:
                    found.append((setting, site, own[site].assign(self._of(setting, rows, batch))))
                except ValueError as error:
                    found.append((setting, site, ValueError(f"at site {site}: {error}")))
        return found

    def keep(self, computed: list[tuple[Setting, str, Any]]) -> None:
        for setting, site, assigned in computed:
            if isinstance(assigned, ValueError):
                self.fail(setting, assigned)
            elif setting in self.states:
                self.states[setting][site].keep(assigned)

    def fail(self, setting: Setting, error: ValueError) -> None:
        """The setting takes no further part."""
        self.failed.setdefault(setting, error)
        for state in self.states.pop(setting, {}).values():
            state.close()

    def _of(self, setting: Setting, rows: Tensor, batch: Batch) -> Tensor:
        kept = self._kept[setting]
        return rows if kept is None else rows[torch.from_numpy(kept[batch.rows]).to(rows.device)]


class SharedPasses:
    """States of the settings that are `wanted`, each once for every time that it is wanted.

    `model` gives the model when the first pass begins. Nothing is read before `states` is called.
    """

    def __init__(
        self,
        wanted: Sequence[Setting],
        model: Callable[[], PreTrainedModel],
        prepared: PreparedCorpus,
        sites: Sequence[str],
        estimator: EstimatorSettings,
        compute: ComputeSettings,
        scratch: Path,
        report: Report,
    ) -> None:
        self._users = Counter(setting.feed for setting in wanted)
        self._waiting = list(self._users)
        self._model, self._patterns, self._prepared = model, sites, prepared
        self._estimator, self._compute, self._scratch, self._report = estimator, compute, scratch, report
        self._ready: dict[Setting, States] = {}
        self._failed: dict[Setting, Exception] = {}
        self._rows: dict[int, tuple[PreparedCorpus, np.ndarray | None]] = {}
        self.passes = 0

    def rows(self, setting: Setting) -> tuple[PreparedCorpus, np.ndarray | None]:
        """The part of the text that a setting measures, and which of all measured rows that is."""
        if setting.one_in not in self._rows:
            self._rows[setting.one_in] = keep_documents(self._prepared, setting.one_in)
        return self._rows[setting.one_in]

    def states(self, setting: Setting) -> States:
        """The setting's states, one a site, fed with the whole text. Raises what its pass ended with."""
        feed = setting.feed
        if feed in self._waiting:
            self._read(self._next(feed))
        if feed in self._failed:
            raise self._failed[feed]
        return self._ready[feed]

    def release(self, setting: Setting) -> None:
        """The setting is measured: its states are given back once nobody else waits for them."""
        self._users[setting.feed] -= 1
        if not self._users[setting.feed]:
            for state in self._ready.pop(setting.feed, {}).values():
                state.close()

    def close(self) -> None:
        """Give back whatever is left."""
        for own in self._ready.values():
            for state in own.values():
                state.close()
        self._ready.clear()

    @cached_property
    def _sites(self) -> list[str]:
        return resolve_sites(self._model(), list(self._patterns))

    def _next(self, first: Setting) -> list[Setting]:
        """`first` and those behind it that fit beside it; one that needs scratch files has a pass for itself."""
        chosen, left = [], self._compute.memory_budget // 2
        for feed in self._waiting[self._waiting.index(first) :]:
            rows = self.rows(feed)[0].n_rows
            left -= self._count * bytes_needed(rows, feed.draws, feed.bins, on_disk=False)
            if chosen and left < 0:
                break
            chosen.append(feed)
        return chosen

    @property
    def _count(self) -> int:
        try:
            return len(self._sites)
        except Exception:  # the model cannot be had: the pass itself will say so, once for all that wait
            return 0

    def _read(self, feeds: list[Setting]) -> None:
        self._waiting = [feed for feed in self._waiting if feed not in feeds]
        probe: SettingsProbe | None = None
        try:
            model = self._model()
            centres, directions = self._pilot(model, feeds)
            probe = SettingsProbe({}, {feed: self.rows(feed)[1] for feed in feeds})
            for feed in feeds:
                self._open(probe, feed, centres, directions)
            probe.sites = tuple(self._sites)
            windows = self._prepared.windows
            title = f"one pass for {len(feeds)} settings" if len(feeds) > 1 else "one pass"
            self._report.begin(title, windows.total_positions, "token")
            stream(model, windows, [probe], self._compute.batch_tokens, self._report.advance)
            self.passes += 1
            self._ready |= probe.states
            self._failed |= probe.failed
        except Exception as error:
            self._failed |= dict.fromkeys(feeds, error)
            for feed in list(probe.states) if probe is not None else []:
                for state in probe.states.pop(feed).values():  # pyright: ignore[reportOptionalMemberAccess]
                    state.close()

    def _pilot(
        self, model: PreTrainedModel, feeds: list[Setting]
    ) -> tuple[dict[str, Tensor], Callable[[], dict[str, Tensor]]]:
        """Mean row of every site (its width too), and its outlier directions where some setting takes them off."""
        outliers = any(feed.rows == "outliers_removed" for feed in feeds)
        centring = any(feed.rows != "raw" for feed in feeds)
        pilot = CentreProbe(self._sites, outliers)
        tokens = self._estimator.pilot_tokens if centring else 1
        stream(model, self._prepared.windows, [pilot], self._compute.batch_tokens, first_tokens=tokens)
        return pilot.centres(), lambda: pilot.directions(self._estimator.outlier_directions)

    def _open(
        self,
        probe: SettingsProbe,
        feed: Setting,
        centres: Mapping[str, Tensor],
        directions: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """Empty states of one setting, as `run` would make them; a ValueError is the setting's own."""
        rows = self.rows(feed)[0].n_rows
        on_disk = scratch_needed(len(self._sites), rows, feed.draws, feed.bins, self._compute.memory_budget)
        probe.states[feed] = {}
        try:
            without = directions() if feed.rows == "outliers_removed" else {}
            for site in self._sites:
                width = len(centres[site])
                probe.states[feed][site] = SoftInformation(
                    width,
                    bins=feed.bins,
                    draws=feed.draws,
                    seed=feed.seed,
                    temperature=feed.temperature_for(width),
                    centre=None if feed.rows == "raw" else centres[site],
                    directions=without.get(site),
                    scratch=self._scratch if on_disk else None,
                )
        except ValueError as error:
            probe.fail(feed, error)
