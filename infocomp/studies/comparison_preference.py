"""Preference in one model: the information of the soft-quantised direction, linear probes, and what words, length and
authors alone would tell."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from infocomp.corpora.pair_windows import PairTexts
from infocomp.corpora.pairs import prompt_numbers
from infocomp.estimators import Estimate, SoftInformation
from infocomp.geometry.preference_information import preference_information
from infocomp.geometry.preference_probe import ProbeResult, author_features, bag_of_tokens, length_features, probe
from infocomp.studies.comparison_probes import GeometryProbe
from infocomp.studies.comparison_settings import PreferenceSettings

Named = tuple[str, list[Estimate], dict[str, Any]]  # rows or site, estimates, settings of the row


def information_of(
    state: SoftInformation, texts: PairTexts, settings: PreferenceSettings, seed: int
) -> Iterator[Named]:
    """Of the matched rows and of all, from one site's assignments; draw by draw and their mean."""
    for name, taken in (("matched", texts.matched), ("all", np.ones(len(texts.matched), dtype=bool))):
        completion = np.where(taken, texts.completion, -1)
        pairs = len(texts.pairs)
        means, entropies = state.group_means(completion, 2 * pairs)
        shaped = means.reshape(pairs, 2, *means.shape[1:]), entropies.reshape(pairs, 2, -1)
        found = preference_information(*shaped, rows=int(taken.sum()), seed=seed, flips=settings.flips)
        yield name, list(found.estimates), {"null_high": found.null_high, "p": found.p, "flips": settings.flips}


def probe_rows(geometry: GeometryProbe, texts: PairTexts, settings: PreferenceSettings, seed: int) -> Iterator[Named]:
    """A cross-validated linear probe on the mean row of each completion, at every site."""
    prompts, rows = prompt_numbers(texts.pairs), int(texts.matched.sum())
    for site in geometry.sites:
        features = geometry.completion_means(site).reshape(len(texts.pairs), 2, -1)
        yield site, *_told(probe(features, prompts, seed, settings.folds), rows)


def baseline_rows(texts: PairTexts, settings: PreferenceSettings, seed: int) -> Iterator[Named]:
    """The same probe, on the same folds, of the bag of tokens, of the lengths, and of the authors where known."""
    prompts, rows = prompt_numbers(texts.pairs), int(texts.matched.sum())
    tokens = texts.corpus.tokens[texts.windows.row_tokens]
    bag = bag_of_tokens(tokens, texts.completion, 2 * len(texts.pairs), texts.matched)
    estimates, more = _told(probe(bag, prompts, seed, settings.folds), rows)
    yield "control.bag_of_tokens", estimates, more
    estimates, more = _told(probe(length_features(texts.lengths), prompts, seed, settings.folds), rows)
    yield "control.length", estimates, more | {"longer_chosen_share": texts.longer_chosen_share}
    authors = [pair.authors for pair in texts.pairs]
    if all(None not in both for both in authors):
        estimates, more = _told(probe(author_features(texts.pairs), prompts, seed, settings.folds), rows)
        names = sorted({name for both in authors for name in both if name is not None})
        share = float(np.mean([both[0] == names[0] for both in authors]))
        yield "control.author", estimates, more | {"authors": names[:8], "author_share": max(share, 1 - share)}


def _told(found: ProbeResult, rows: int) -> tuple[list[Estimate], dict[str, Any]]:
    return found.estimates(rows), {"folds": int(found.folds.max()) + 1}
