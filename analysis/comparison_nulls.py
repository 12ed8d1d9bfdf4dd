"""Question: do the intervals of a comparison cover 0 where nothing changed?

Command:  python analysis/comparison_nulls.py BASE TUNED [--splits 200]
Cost:     about 15 minutes on one core for the demo's model
Expected: 90 to 98 % of the 95 % intervals hold 0, by quantity.

Two designs on the activations of real checkpoints (one site: the last block). halves: one model on two random halves of
the documents, unpaired. exchanged: base and tuned exchanged at random by document, paired. The second has no difference
of law by design, however far the two models lie apart.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from infocomp.activations.stream import stream
from infocomp.checkpoints.source import SingleSource
from infocomp.estimators import Estimate, SoftInformation
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.curvature import Curvature
from infocomp.geometry.intrinsic_dimension import intrinsic_dimension
from infocomp.geometry.preference_information import preference_information
from infocomp.geometry.spectrum import sampled_estimates
from infocomp.studies.comparison_probes import SampleProbe
from infocomp.studies.measurement import widths_of
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import CorpusSettings

Number = tuple[float, np.ndarray]  # value, influence by document


def main() -> None:
    """Print the share of intervals that cover 0, by quantity and design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--rows", type=int, default=96, help="measured positions of each document")
    parser.add_argument("--builtin", choices=("held_out", "training"), default="training")
    given = parser.parse_args()
    base, tuned, labels, documents = rows_of(given.base, given.tuned, given.documents, given.rows, given.builtin)
    covered: dict[tuple[str, str], list[bool]] = defaultdict(list)
    generator = np.random.default_rng(0)
    n = int(documents.max()) + 1
    for _ in range(given.splits):
        half = generator.permutation(n)[: n // 2]
        inside = np.isin(documents, half)
        parts = [numbers(base[of], {k: v[of] for k, v in labels.items()}, documents[of]) for of in (inside, ~inside)]
        for name in parts[0].keys() & parts[1].keys():
            (one, of_one), (two, of_two) = parts[0][name], parts[1][name]
            error = np.hypot(standard_error(of_one), standard_error(of_two))
            covered["halves", name].append(abs(one - two) <= quantile(min(len(of_one), len(of_two))) * error)
        swapped = np.isin(documents, np.flatnonzero(generator.random(n) < 0.5))[:, None]
        first, second = np.where(swapped, tuned, base), np.where(swapped, base, tuned)
        found = [numbers(rows, labels, documents) for rows in (first, second)]
        for name in found[0].keys() & found[1].keys():
            (one, of_one), (two, of_two) = found[0][name], found[1][name]
            error = standard_error(of_one - of_two)
            covered["exchanged", name].append(abs(one - two) <= quantile(len(of_one)) * error)
    table = pd.Series({key: np.mean(hits) for key, hits in covered.items()}).unstack(0)
    print(table.sort_index().to_string(float_format=lambda share: f"{share:.3f}"))


def rows_of(
    base: Path, tuned: Path, documents: int, rows: int, builtin: Literal["held_out", "training"]
) -> tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray], np.ndarray]:
    """Rows of the last block of both models at the same positions, their labels and documents."""
    settings = CorpusSettings(name="t", builtin=builtin, context_length=256, document_tokens=512, max_tokens=512_000)
    prepared = prepare_corpus(settings, SingleSource(base).tokenizer(), (1, 2))
    owner = prepared.windows.row_documents
    kept: list[int] = []
    for document in np.flatnonzero(np.bincount(owner) >= rows)[:documents]:
        kept += np.flatnonzero(owner == document)[:rows].tolist()
    slot = np.full(len(owner), -1)
    slot[kept] = np.arange(len(kept))
    samples = []
    for path in (base, tuned):
        source = SingleSource(path)
        model = source.open(source.list()[0]).model
        site = f"blocks.{model.config.num_hidden_layers - 1}.hook_resid_post"
        probe = SampleProbe(widths_of(model, [site])[0], slot, len(kept))
        stream(model, prepared.windows, [probe])
        samples.append(probe.sample[site])
    labels = {
        ("next_" if label.direction == "output" else "") + label.name: label.ids[kept] for label in prepared.labels
    }
    numbered = np.unique(owner[kept], return_inverse=True)[1]
    return samples[0], samples[1], labels, numbered


def numbers(rows: np.ndarray, labels: Mapping[str, np.ndarray], documents: np.ndarray) -> dict[str, Number]:
    """Every number that has an influence by document, in the form that a difference is taken of."""
    state = SoftInformation(rows.shape[1], bins=50, draws=2)
    state.update(torch.from_numpy(rows), labels, documents)
    found = {}
    for estimate in state.estimate():
        if estimate.draw == "mean" and estimate.influence is not None and estimate.point is not None:
            found[f"{estimate.quantity} {estimate.label}"] = (estimate.point, estimate.influence["point"])
    others: list[Any] = [*sampled_estimates(rows, documents), intrinsic_dimension(rows, documents)]
    curvature = Curvature(rows.shape[1])
    curvature.update(torch.from_numpy(rows), np.diff(documents, prepend=-1) != 0, documents)
    for estimate in [*others, *curvature.estimate()]:
        if estimate.influence is not None and estimate.value is not None:
            name = " ".join(filter(None, (estimate.quantity, estimate.label, estimate.weighting)))
            found[name] = (estimate.value, estimate.influence["value"])
    found["preference_information"] = _preference(state, documents)
    return found


def _preference(state: SoftInformation, documents: np.ndarray) -> Number:
    """First half of a document's rows against the second, as if one had been preferred."""
    _, document, counts = np.unique(documents, return_inverse=True, return_counts=True)
    place = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    completion = 2 * document + (place * 2 >= counts[document])
    means, entropies = state.group_means(completion, 2 * len(counts))
    shaped = means.reshape(len(counts), 2, *means.shape[1:]), entropies.reshape(len(counts), 2, -1)
    found: Estimate = preference_information(*shaped, rows=len(documents), flips=100).mean
    assert found.point is not None and found.influence is not None
    return found.point, found.influence["point"]


if __name__ == "__main__":
    main()
