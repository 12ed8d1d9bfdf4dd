"""Preference in one model: the information of the soft-quantised direction, linear probes, and what words, length and
authors alone would tell."""

from typing import TYPE_CHECKING, Any

import numpy as np

from infocomp.corpora.pair_windows import PairTexts
from infocomp.corpora.pairs import prompt_numbers
from infocomp.estimators import SoftInformation
from infocomp.geometry.preference_information import preference_information
from infocomp.geometry.preference_probe import Features, author_features, bag_of_tokens, length_features, probe
from infocomp.studies.comparison_probes import GeometryProbe
from infocomp.studies.comparison_settings import PreferenceSettings

if TYPE_CHECKING:
    from infocomp.studies.comparison_measures import Rows


def information_rows(
    found: "Rows", site: str, state: SoftInformation, texts: PairTexts, settings: PreferenceSettings, seed: int
) -> None:
    """Of the matched rows and of all, from one site's assignments; draw by draw and their mean."""
    for name, taken in (("matched", texts.matched), ("all", np.ones(len(texts.matched), dtype=bool))):
        with found.refusing("preference_information", "bits", site, name, "soft", **_ABOUT):
            completion = np.where(taken, texts.completion, -1)
            pairs = len(texts.pairs)
            means, entropies = state.group_means(completion, 2 * pairs)
            shaped = means.reshape(pairs, 2, *means.shape[1:]), entropies.reshape(pairs, 2, -1)
            information = preference_information(*shaped, rows=int(taken.sum()), seed=seed, flips=settings.flips)
            more = {"null_high": information.null_high, "p": information.p, "flips": settings.flips}
            found.add(information.estimates, site, name, "soft", more)


def probe_rows(
    found: "Rows", geometry: GeometryProbe, texts: PairTexts, settings: PreferenceSettings, seed: int
) -> None:
    """A cross-validated linear probe on the mean row of each completion, at every site."""
    for site in geometry.sites:
        features = geometry.completion_means(site).reshape(len(texts.pairs), 2, -1)
        _probed(found, site, features, texts, settings, seed)


def baseline_rows(found: "Rows", texts: PairTexts, settings: PreferenceSettings, seed: int) -> None:
    """The same probe, on the same folds, of the bag of tokens, of the lengths, and of the authors where known."""
    tokens = texts.corpus.tokens[texts.windows.row_tokens]
    bag = bag_of_tokens(tokens, texts.completion, 2 * len(texts.pairs), texts.matched)
    _probed(found, "control.bag_of_tokens", bag, texts, settings, seed)
    longer = {"longer_chosen_share": texts.longer_chosen_share}
    _probed(found, "control.length", length_features(texts.lengths), texts, settings, seed, **longer)
    authors = [pair.authors for pair in texts.pairs]
    if all(None not in both for both in authors):
        names = sorted({name for both in authors for name in both if name is not None})
        share = float(np.mean([both[0] == names[0] for both in authors]))
        more = {"authors": names[:8], "author_share": max(share, 1 - share)}
        _probed(found, "control.author", author_features(texts.pairs), texts, settings, seed, **more)


_ABOUT = {"label": "preference", "weighting": "completions"}


def _probed(
    found: "Rows", site: str, features: Features, texts: PairTexts, settings: PreferenceSettings, seed: int, **more: Any
) -> None:
    with found.refusing("probe_accuracy", "ratio", site, "matched", "logistic", **_ABOUT):
        result = probe(features, prompt_numbers(texts.pairs), seed, settings.folds)
        folds = {"folds": int(result.folds.max()) + 1}
        found.add(result.estimates(int(texts.matched.sum())), site, "matched", "logistic", more | folds)
