"""Question: do the intervals of a comparison cover 0 where nothing changed, and how often does it call a change?

Command:  python analysis/comparison_nulls.py BASE TUNED [--splits 200] [--out docs/tables/comparison_nulls.csv]
Cost:     about 5 minutes on one idle core for the demo's model (hidden 128), both overlaps together
Expected: 90 to 98 % of the 95 % intervals hold 0, by quantity.

Two designs on the activations of real checkpoints (one site: the last block). halves: one model on two random halves of
the documents, unpaired, √(se² + se²). exchanged: base and tuned exchanged at random by document, paired. The second has
no difference of law by design, however far the two models lie apart.

An information has several rows: its plug-in ("value"), "point", "lower" and "upper" by their own errors; "widest", the
point with the largest of the errors of point and ends; "outer", whether the outer intervals of both overlap. `called`
is the share of draws with p < 0.05: of "point", "widest" and "outer" by the rule that differences are judged by, point
and both ends at once (`studies.changes`), of all others by their own t statistic.

Documents that repeat each other (copies of a file, boilerplate) are no independent draws: `--overlap` leaves out each
document that shares more than that share of its bigrams with one before it. Both are measured: all documents, and those
that share at most a quarter.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student

from infocomp.activations.stream import stream
from infocomp.checkpoints.source import SingleSource
from infocomp.estimators import Estimate, SoftInformation
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.geometry.cka import cka_map
from infocomp.geometry.curvature import Curvature
from infocomp.geometry.intrinsic_dimension import intrinsic_dimension
from infocomp.geometry.nearest import mutual_neighbours
from infocomp.geometry.next_token import compare_next_tokens
from infocomp.geometry.preference_information import preference_information
from infocomp.geometry.spectrum import sampled_estimates
from infocomp.studies.changes import ENDS, change
from infocomp.studies.comparison_probes import SampleProbe
from infocomp.studies.measurement import widths_of
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import CorpusSettings
from infocomp.units import bits

Number = dict[str, tuple[float, np.ndarray]]  # value, point, lower, upper: the number, its influence by document
NEAREST_ROWS = 12  # of a document, for what compares rows with rows


@dataclass(frozen=True)
class Sample:
    """The same positions read by both models: rows of the last block, bits and bytes of the next token, labels."""

    base: Float[np.ndarray, "rows dim"]
    tuned: Float[np.ndarray, "rows dim"]
    base_bits: Float[np.ndarray, "rows"]
    tuned_bits: Float[np.ndarray, "rows"]
    kl: Float[np.ndarray, "rows 4"]
    byte_counts: Int[np.ndarray, "rows"]
    labels: Mapping[str, Int[np.ndarray, "rows"]]
    documents: Int[np.ndarray, "rows"]

    def of(self, chosen: Int[np.ndarray, "documents"]) -> "Sample":
        """The rows of some documents."""
        kept = np.isin(self.documents, chosen)
        labels = {name: of[kept] for name, of in self.labels.items()}
        columns = ("base", "tuned", "base_bits", "tuned_bits", "kl", "byte_counts", "documents")
        return Sample(labels=labels, **{name: getattr(self, name)[kept] for name in columns})

    def exchanged(self, chosen: Int[np.ndarray, "documents"]) -> "Sample":
        """With base and tuned in each other's place in some documents."""
        there = np.isin(self.documents, chosen)
        wide = there[:, None]
        return replace(
            self,
            base=np.where(wide, self.tuned, self.base),
            tuned=np.where(wide, self.base, self.tuned),
            base_bits=np.where(there, self.tuned_bits, self.base_bits),
            tuned_bits=np.where(there, self.base_bits, self.tuned_bits),
        )


def main() -> None:
    """Print, and with --out write, the share of intervals that cover 0, by quantity and design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--documents", type=int, default=128)
    parser.add_argument("--rows", type=int, default=32, help="measured positions of each document")
    parser.add_argument("--builtin", choices=("held_out", "training"), default="training")
    parser.add_argument(
        "--overlap", type=float, nargs="+", default=[1.0, 0.25], help="most bigrams shared with another"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sample = sample_of(given.base, given.tuned, given.rows, given.builtin)
    tables = []
    for overlap in given.overlap:
        kept = distinct(sample, overlap)[: given.documents]
        table = coverage(sample.of(kept), given.splits)
        table.insert(0, "documents", len(kept))
        table.insert(0, "overlap", overlap)
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"), flush=True)
        tables.append(table)
    if given.out:
        pd.concat(tables).to_csv(given.out, index=False, float_format="%.4f")


def coverage(sample: Sample, splits: int) -> pd.DataFrame:
    """Both designs, one row for each design, quantity and compared end: covered, called, sd of differences, errors."""
    drawn: dict[tuple[str, str, str], list[tuple[float, float, bool, float]]] = defaultdict(list)
    generator = np.random.default_rng(0)
    names = np.unique(sample.documents)
    for _ in range(splits):
        order = generator.permutation(names)
        parts = [sample.of(half) for half in (order[: len(order) // 2], order[len(order) // 2 :])]
        one, two = (numbers(part.base, part.base_bits, part) | similarity(part) for part in parts)
        for name in one.keys() & two.keys():
            for end, found in compared(one[name], two[name], paired=False).items():
                drawn["halves", name, end].append(found)
        swapped = sample.exchanged(names[generator.random(len(names)) < 0.5])
        one = numbers(swapped.base, swapped.base_bits, swapped)
        two = numbers(swapped.tuned, swapped.tuned_bits, swapped)
        for name in one.keys() & two.keys():
            for end, found in compared(one[name], two[name], paired=True).items():
                drawn["exchanged", name, end].append(found)
    rows = []
    for (design, name, end), found in sorted(drawn.items()):
        difference, error, covers, p = np.array(found, dtype=float).T
        row = {"design": design, "quantity": name, "compared": end, "draws": len(found), "covered": covers.mean()}
        row |= {"called": (p < 0.05).mean(), "sd": difference.std(), "error": error.mean()}
        rows.append(row | {"sd_over_error": difference.std() / error.mean()})
    return pd.DataFrame(rows)


def compared(one: Number, two: Number, paired: bool) -> dict[str, tuple[float, float, bool, float]]:
    """Difference, error, whether the interval holds 0, and p, for each end that both have."""
    n = min(len(of) for _, of in (*one.values(), *two.values()))
    width, found, errors = quantile(n), {}, {}
    for end in one.keys() & two.keys():
        (first, of_first), (second, of_second) = one[end], two[end]
        errors[end] = standard_error(of_second - of_first) if paired else _apart(of_first, of_second)
        difference = second - first
        p = 2 * float(student.sf(abs(difference) / errors[end], n - 1)) if errors[end] else 1.0
        found[end] = (difference, errors[end], abs(difference) <= width * errors[end], p)
    if not found.keys() >= set(ENDS):
        return found
    if paired:
        (first, second), (of_first, of_second) = (
            [{end: found[which] for end, found in number.items()} for number in (one, two)] for which in (0, 1)
        )
        rule = change(first, second, of_first, of_second)["p"]  # pyright: ignore[reportArgumentType]
    else:
        alike = len({np.sign(found[end][0]) for end in ENDS}) == 1
        rule = max(found[end][3] for end in ENDS) if alike else 1.0
    difference, widest = found["point"][0], max(errors[end] for end in ENDS)
    found["point"] = (*found["point"][:3], rule)
    found["widest"] = (difference, widest, abs(difference) <= width * widest, rule)
    (low, high), (other_low, other_high) = _outer(one, width), _outer(two, width)
    half = (high - low + other_high - other_low) / (4 * width)
    found["outer"] = (difference, half, low <= other_high and other_low <= high, rule)
    return found


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.hypot(standard_error(one), standard_error(two)))


def _outer(number: Number, width: float) -> tuple[float, float]:
    (lower, of_lower), (upper, of_upper) = number["lower"], number["upper"]
    return lower - width * standard_error(of_lower), upper + width * standard_error(of_upper)


def sample_of(base: Path, tuned: Path, rows: int, builtin: Literal["held_out", "training"]) -> Sample:
    """The first `rows` measured positions of each document that has as many, read by both models."""
    settings = CorpusSettings(name="t", builtin=builtin, context_length=256, document_tokens=512, max_tokens=512_000)
    prepared = prepare_corpus(settings, SingleSource(base).tokenizer(), (1, 2))
    labels = {("next_" if label.direction == "output" else "") + label.name: label.ids for label in prepared.labels}
    token, owner = prepared.windows.row_tokens, prepared.windows.row_documents.copy()
    owner[(labels["next_token"] < 0) | (labels["bigram"] < 0)] = -1
    enough = np.flatnonzero(np.bincount(owner[owner >= 0]) >= rows)
    kept = np.concatenate([np.flatnonzero(owner == one)[:rows] for one in enough])
    slot = np.full(len(owner), -1)
    slot[kept] = np.arange(len(kept))
    sides, logits = [], []
    for path in (base, tuned):
        source = SingleSource(path)
        model = source.open(source.list()[0]).model
        site = f"blocks.{model.config.num_hidden_layers - 1}.hook_resid_post"
        probe = SampleProbe(widths_of(model, [site, "ln_final.hook_out"])[0], slot, len(kept))
        stream(model, prepared.windows, [probe])
        sides.append(probe.sample[site])
        with torch.inference_mode():
            logits.append(model.get_output_embeddings()(torch.from_numpy(probe.sample["ln_final.hook_out"])))
    following = torch.from_numpy(prepared.corpus.tokens[token[kept] + 1].astype(np.int64))
    costs = [bits(1.0) * torch.nn.functional.cross_entropy(of, following, reduction="none").numpy() for of in logits]
    apart = compare_next_tokens(*logits)
    columns = (apart.base_to_tuned, apart.tuned_to_base, apart.total_variation, apart.agree)
    return Sample(
        base=sides[0],
        tuned=sides[1],
        base_bits=costs[0],
        tuned_bits=costs[1],
        kl=np.stack(columns, axis=1).astype(np.float64),
        byte_counts=prepared.corpus.byte_counts[token[kept] + 1].astype(np.int64),
        labels={name: ids[kept] for name, ids in labels.items()},
        documents=np.unique(owner[kept], return_inverse=True)[1],
    )


def distinct(sample: Sample, most: float) -> Int[np.ndarray, "documents"]:
    """Documents that share at most this share of their bigrams with each earlier one that is kept."""
    kept: list[tuple[int, set[int]]] = []
    for document in range(int(sample.documents.max()) + 1):
        own = set(sample.labels["next_bigram"][sample.documents == document].tolist())
        if all(len(own & other) <= most * min(len(own), len(other)) for _, other in kept):
            kept.append((document, own))
    return np.array([document for document, _ in kept])


def numbers(rows: np.ndarray, costs: np.ndarray, sample: Sample) -> dict[str, Number]:
    """Every number of one model that has an influence by document."""
    documents = sample.documents
    state = SoftInformation(rows.shape[1], bins=50, draws=2)
    state.update(torch.from_numpy(rows), sample.labels, documents)
    near = _first_rows(documents, NEAREST_ROWS)
    curvature = Curvature(rows.shape[1])
    curvature.update(torch.from_numpy(rows), np.diff(documents, prepend=-1) != 0, documents)
    estimates: list[Any] = [*state.estimate(), *sampled_estimates(rows, documents), *curvature.estimate()]
    estimates += [intrinsic_dimension(rows[near], documents[near]), _preference(state, documents)]
    found = {}
    for estimate in estimates:
        if estimate.draw == "mean" and estimate.influence is not None and estimate.value is not None:
            found[_name(estimate)] = {end: (getattr(estimate, end), of) for end, of in estimate.influence.items()}
    place = np.unique(documents, return_inverse=True)[1]
    rate = costs.sum() / sample.byte_counts.sum()
    influence = np.bincount(place, costs - rate * sample.byte_counts) / sample.byte_counts.sum()
    return found | {"bits_per_byte": {"value": (float(rate), influence)}}


def similarity(sample: Sample) -> dict[str, Number]:
    """What compares both models with each other."""
    near = _first_rows(sample.documents, NEAREST_ROWS)
    base, tuned, documents = sample.base[near], sample.tuned[near], sample.documents[near]
    estimates = [
        cka_map([tuned], [base], documents, with_null=False).estimates(["base"])[0][0],
        mutual_neighbours(tuned, base, documents),
        mutual_neighbours(tuned, base, documents, across_documents=True),
    ]
    names = ["cka", "mutual_neighbours", "mutual_neighbours across documents"]
    found = {
        name: {"value": (float(one.value), one.influence["value"])}
        for name, one in zip(names, estimates, strict=True)
        if one.value is not None and one.influence is not None
    }
    place = np.unique(sample.documents, return_inverse=True)[1]
    n = len(place)
    for column, name in enumerate(("kl base to tuned", "kl tuned to base", "total_variation", "top_agreement")):
        values = sample.kl[:, column] * (bits(1.0) if column < 2 else 1.0)
        found[name] = {"value": (float(values.mean()), np.bincount(place, values - values.mean()) / n)}
    return found


def _name(estimate: Estimate) -> str:
    return " ".join(filter(None, (estimate.quantity, estimate.label, estimate.weighting)))


def _first_rows(documents: Int[np.ndarray, "rows"], most: int) -> Int[np.ndarray, "kept"]:
    return np.flatnonzero(_place(documents) < most)


def _place(documents: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """Where in its document each row stands; rows of a document stand together."""
    counts = np.unique(documents, return_counts=True)[1]
    return np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)


def _preference(state: SoftInformation, documents: np.ndarray) -> Estimate:
    """First half of a document's rows against the second, as if one had been preferred."""
    _, document, counts = np.unique(documents, return_inverse=True, return_counts=True)
    completion = 2 * document + (_place(documents) * 2 >= counts[document])
    means, entropies = state.group_means(completion, 2 * len(counts))
    shaped = means.reshape(len(counts), 2, *means.shape[1:]), entropies.reshape(len(counts), 2, -1)
    return preference_information(*shaped, rows=len(documents), flips=100).mean


if __name__ == "__main__":
    main()
