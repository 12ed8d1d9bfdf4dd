"""Two models on the same batches: cross moments of matched sites, word means, next-token divergences, sampled rows.

The base is streamed; the probe runs the tuned model on the same token ids, so that rows correspond one to one. Nothing
of a layer outlives its batch but what is accumulated: two scatters and a cross moment of a pair of sites, 8·d² bytes
each (384 MiB at d = 4,096), in memory or in scratch files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.activations.capture import capture
from infocomp.activations.stream import Batch
from infocomp.corpora.windows import Windows, document_of
from infocomp.geometry.next_token import KLByPosition, NextTokens, compare_next_tokens
from infocomp.geometry.pair_moments import PairMoments, Rows
from infocomp.geometry.scatter import Scatter, scratch_needed
from infocomp.geometry.word_means import WordMeans
from infocomp.studies.comparison_probes import RowLayout

LOGITS_AT_ONCE = 2**26  # numbers of both models' logits held while divergences are taken
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OwnMoments:
    """One model's rows of a site with themselves: sums of squares, and the scatter that stands in for their matrix."""

    moments: PairMoments
    scatter: Scatter

    @classmethod
    def of(cls, width: int, scratch: Path | None) -> "OwnMoments":
        return cls(PairMoments(width, keep_cross=False), Scatter(width, scratch))

    def update(self, rows: Rows) -> None:
        self.moments.update(rows)
        self.scatter.update(rows)


def pair_scratch_needed(
    matched: Mapping[str, str], of_base: Mapping[str, int], of_tuned: Mapping[str, int], memory_budget: int
) -> bool:
    """Whether the matrices of a `PairProbe` exceed the budget in bytes; the widths are by site of each model."""
    own = [of_base[site] for site in set(matched.values())] + [of_tuned[site] for site in matched]
    cross = [max(of_base[other], of_tuned[site]) for site, other in matched.items()]
    return scratch_needed(own + cross, memory_budget)


class PairProbe:
    """A probe on the base's stream; open it as a context for as long as the stream runs.

    matched: tuned's site → base's site. `word_types` are token ids, followed at `word_sites` (tuned's names). `heads`
    give both models' logits, of which the first `vocabulary` are compared; None leaves the divergences out. `scratch`
    is a folder for the files of moments, None for memory; `close` gives them back.
    """

    needs_logits = False
    needs_hidden = True  # which the tuned model's head is read beside

    def __init__(
        self,
        base: PreTrainedModel,
        tuned: PreTrainedModel,
        matched: Mapping[str, str],
        widths: tuple[Mapping[str, int], Mapping[str, int]],
        windows: Windows,
        layout: RowLayout,
        word_types: Int[np.ndarray, "types"],
        word_sites: tuple[str, ...],
        heads: tuple[Logits, Logits] | None,
        vocabulary: int,
        scratch: Path | None = None,
    ) -> None:
        self.tuned, self.matched, self.layout, self.heads = tuned, dict(matched), layout, heads
        self.sites = tuple(dict.fromkeys([*widths[0], *matched.values()]))
        of_base, of_tuned = widths
        self.tokens = windows.corpus.tokens[windows.row_tokens].astype(np.int64)
        self.moments = {s: PairMoments(of_base[b], of_tuned[s], scratch=scratch) for s, b in matched.items()}
        self.own_base = {b: OwnMoments.of(of_base[b], scratch) for b in dict.fromkeys(matched.values())}
        self.own_tuned = {s: OwnMoments.of(of_tuned[s], scratch) for s in matched}
        self.words = {
            s: (WordMeans(word_types, of_base[matched[s]]), WordMeans(word_types, of_tuned[s]))
            for s in word_sites
            if len(word_types)
        }
        size = len(layout.sampled)
        self.sample_base = {site: np.zeros((size, width), np.float32) for site, width in of_base.items()}
        self.sample_tuned = {site: np.zeros((size, width), np.float32) for site, width in of_tuned.items()}
        self.positions, self.scored_documents = (
            scored_positions(windows),
            document_of(windows.corpus, windows.scored_tokens),
        )
        self.kl = KLByPosition(windows.corpus.n_documents) if heads is not None else None
        self._capture = capture(tuned, tuple(of_tuned))
        self._vocabulary = vocabulary

    def __enter__(self) -> "PairProbe":
        self._acts = self._capture.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.close()

    def close(self) -> None:
        """Give the memory and the scratch files of the moments back; rows of the sample, words and divergences stay."""
        for moments in self.moments.values():
            moments.close()
        for own in (*self.own_base.values(), *self.own_tuned.values()):
            own.scatter.close()

    def compute(self, batch: Batch) -> dict[str, Any]:
        """Rows of both models, and the divergences of their next tokens."""
        device = next(self.tuned.parameters()).device
        output = self.tuned.base_model(input_ids=batch.ids.to(device), use_cache=False)
        measured = batch.measured.to(device)
        found: dict[str, Any] = {"rows": batch.rows, "scored": batch.scored}
        found["base"] = {site: batch.rows_of(site) for site in self.sample_base}
        found["tuned"] = {
            site: acts.reshape(-1, acts.shape[-1]).index_select(0, measured)
            for site, acts in ((site, self._acts[site]) for site in self.sample_tuned)
        }
        if self.heads is not None:
            assert batch.hidden is not None
            found["kl"] = self._divergences(batch.hidden, output.last_hidden_state, batch.predicting)
        return found

    def _divergences(self, base: Tensor, tuned: Tensor, predicting: Tensor) -> list[NextTokens]:
        assert self.heads is not None
        one, two = (hidden.reshape(-1, hidden.shape[-1]) for hidden in (base, tuned))
        parts = []
        for index in predicting.split(max(LOGITS_AT_ONCE // (2 * self._vocabulary), 1)):
            rows = one.index_select(0, index), two.index_select(0, index.to(two.device))
            logits = self.heads[0](rows[0]), self.heads[1](rows[1]).to(rows[0].device)
            parts.append(compare_next_tokens(*logits, vocabulary=self._vocabulary))
        return parts

    def keep(self, computed: dict[str, Any]) -> None:
        where, base, tuned = computed["rows"], computed["base"], computed["tuned"]
        documents, slot = self.layout.documents[where], self.layout.slot[where]
        sampled = np.flatnonzero(slot >= 0)
        for site, other in self.matched.items():
            of_base, of_tuned = base[other], tuned[site]
            self.moments[site].update(of_base, of_tuned)
            self.own_tuned[site].update(of_tuned)
            if site in self.words:
                for words, rows in zip(self.words[site], (of_base, of_tuned), strict=True):
                    words.update(rows, self.tokens[where], documents)
        for other in self.own_base:
            self.own_base[other].update(base[other])
        for kept, rows in ((self.sample_base, base), (self.sample_tuned, tuned)):
            for site, values in kept.items():
                index = torch.from_numpy(sampled).to(rows[site].device)
                values[slot[sampled]] = rows[site].index_select(0, index).float().cpu().numpy()
        if self.kl is not None:
            begin = computed["scored"].start
            for part in computed["kl"]:
                here = slice(begin, begin + len(part))
                self.kl.update(part, self.positions[here], self.scored_documents[here])
                begin = here.stop


def scored_positions(windows: Windows) -> Int[np.ndarray, "scored"]:
    """Position of each scored token in its window, from 0, a BOS counted."""
    counts = np.maximum(windows.starts + windows.lengths - windows.score_from, 0)
    return windows.scored_tokens - np.repeat(windows.starts - windows.has_bos, counts)


def logits_of(head: tuple[Tensor, Tensor | None]) -> Callable[[Float[Tensor, "rows dim"]], Tensor]:
    """hidden → logits in float32 at least, by a plain head (see `coding.rate.plain_head`)."""
    weight, bias = head

    def apply(hidden: Tensor) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        return torch.nn.functional.linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))

    return apply
