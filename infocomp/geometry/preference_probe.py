"""Linear probes of preference: logistic regression on one vector a completion, cross-validated by prompt.

Beside the information of a site they check how much of the preference a straight cut finds, and from features that no
network is needed for (the bag of tokens, the lengths, the authors) how much of it the texts alone give away.

A completion is a row with the label chosen or rejected; features are standardised on the training folds (sparse ones
are left as they are), and the strength of the penalty is the best of a few on a fifth of the training prompts that is
held out. Scored are, on prompts that were not learnt from: the share of pairs whose chosen completion gets the higher
score (ties count half; 1/2 by chance), and the bits by which the label of a completion is coded below one bit (1 less
the cross-entropy, base 2; 0 by chance, below that where the probe is sure and wrong). Influences are by pair, for the
pairs scored; what another training set would have taught is not in them.

Where there are fewer prompts than folds, each prompt is a fold; where one prompt is left to learn from, none of it can
be held out, and the strongest penalty is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from infocomp.corpora.pairs import PreferencePair
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.interface import Estimate
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.nulls import sampling_order
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.units import BITS_PER_NAT

FOLDS = 5
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: standardised dense features
SPARSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
Features = Float[np.ndarray, "pairs 2 dim"] | sparse.csr_matrix | sparse.csr_array


@dataclass(frozen=True)
class ProbeResult:
    """`accuracy` (share of pairs) and `bits` (bits a completion) with each pair's influence on them.

    `margins` are the scores of chosen less rejected (log-odds), `folds` the fold each pair was scored in, `penalties`
    the C that each fold took. `message` says where folds are fewer than were asked for.
    """

    accuracy: float
    accuracy_influence: Float[np.ndarray, "pairs"]
    bits: float
    bits_influence: Float[np.ndarray, "pairs"]
    margins: Float[np.ndarray, "pairs"]
    folds: Int[np.ndarray, "pairs"]
    penalties: tuple[float, ...]
    message: str = ""

    def estimates(self, n: int) -> list[Estimate]:
        """probe_accuracy (ratio, null 1/2) and probe_bits (bits a completion, null 0), intervals over pairs."""
        return [
            _estimate("probe_accuracy", self.accuracy, "ratio", 0.5, self.accuracy_influence, n, self.message),
            _estimate("probe_bits", self.bits, "bits", 0.0, self.bits_influence, n, self.message),
        ]


def probe(
    features: Features,
    prompts: Int[np.ndarray, "pairs"],
    seed: int = 0,
    folds: int = FOLDS,
) -> ProbeResult:
    """Cross-validated by prompt; sparse features are [2 · pairs, dim], row 2 · pair + side with side 0 for chosen.

    Features that do not differ between the sides of any pair give exactly 1/2. Refusal (a ValueError) for one prompt,
    ValueError below 2 folds, for counts that do not fit, and for features that are NaN or infinite.
    """
    table = _table(features)
    pairs = len(prompts)
    if table.shape[0] != 2 * pairs:
        raise ValueError(
            f"features has {table.shape[0]} rows, prompts {pairs}: two completions a prompt's pair are needed."
        )
    asked, there_are = folds, len(np.unique(prompts))
    if there_are == 1:
        raise Refusal("all pairs have one prompt, and a probe is scored on prompts that it did not learn from")
    folds = min(asked, there_are)
    fold = prompt_folds(prompts, seed, folds)
    labels = np.tile([1, 0], pairs)
    scores = np.empty(2 * pairs)
    penalties = []
    for one in range(folds):
        learnt = fold != one
        # a fifth of the prompts that are learnt from, which depends on the seed and the fold alone
        inner = np.full(pairs, -1)
        left = min(asked, len(np.unique(prompts[learnt])))
        if left > 1:
            inner[learnt] = prompt_folds(prompts[learnt], seed + 1 + one, left)
        best = _best_penalty(table, labels, learnt & (inner != 0), inner == 0)
        penalties.append(best)
        rows, scored = _rows(learnt), _rows(~learnt)
        scores[scored] = _fitted(table[rows], labels[rows], table[scored], best)
    scores = scores.reshape(-1, 2)
    margins = scores[:, 0] - scores[:, 1]
    right = (margins > 0) + 0.5 * (margins == 0)
    saved = 1 - BITS_PER_NAT * (np.logaddexp(0, -scores[:, 0]) + np.logaddexp(0, scores[:, 1])) / 2
    return ProbeResult(
        accuracy=float(right.mean()),
        accuracy_influence=(right - right.mean()) / pairs,
        bits=float(saved.mean()),
        bits_influence=(saved - saved.mean()) / pairs,
        margins=margins,
        folds=fold,
        penalties=tuple(penalties),
        message=f"{folds} folds, one a prompt: {asked} were asked for" if folds < asked else "",
    )


def prompt_folds(prompts: Int[np.ndarray, "pairs"], seed: int, folds: int) -> Int[np.ndarray, "pairs"]:
    """A seeded fold for each pair; pairs of one prompt are in one fold. ValueError for fewer prompts than folds."""
    names, index = np.unique(prompts, return_inverse=True)
    if len(names) < folds or folds < 2:
        raise ValueError(
            f"prompts has {len(names)} different prompts, and {folds} folds by prompt need at least {max(folds, 2)}; "
            "give more pairs or ask for fewer folds."
        )
    of_prompt = np.empty(len(names), dtype=np.int64)
    of_prompt[sampling_order(np.arange(len(names)), seed, len(names))] = np.arange(len(names)) % folds
    return of_prompt[index]


# features that need no network


def bag_of_tokens(
    tokens: Int[np.ndarray, "rows"],
    completion: Int[np.ndarray, "rows"],
    completions: int,
    taken: Bool[np.ndarray, "rows"] | None = None,
) -> sparse.csr_array:
    """log(1 + count) of each token that occurs in each completion, [completions, different tokens]."""
    if taken is not None:
        tokens, completion = tokens[taken], completion[taken]
    types, column = np.unique(tokens, return_inverse=True)
    counts = sparse.coo_array(
        (np.ones(len(column)), (np.asarray(completion), column)), shape=(completions, max(len(types), 1))
    ).tocsr()  # duplicates are added up
    counts.data = np.log1p(counts.data)
    return counts


def length_features(lengths: Int[np.ndarray, "pairs 2"]) -> Float[np.ndarray, "pairs 2 2"]:
    """Length and its logarithm of each whole completion."""
    lengths = np.asarray(lengths, dtype=np.float64)
    return np.stack([lengths, np.log1p(lengths)], axis=2)


def author_features(pairs: Sequence[PreferencePair]) -> Float[np.ndarray, "pairs 2 authors"]:
    """Who wrote each completion, one column an author. ValueError where an author is not told."""
    authors = [pair.authors for pair in pairs]
    names = sorted({author for both in authors for author in both if author is not None})
    unknown = sum(None in both for both in authors)
    if unknown:
        raise ValueError(
            f"{unknown:,} of {len(authors):,} pairs do not tell who wrote both completions; name the columns of the "
            "authors, or leave this control out."
        )
    return np.array([[[float(author == name) for name in names] for author in both] for both in authors])


# fitting


def _table(features: Features) -> Any:
    """[2 · pairs, dim], dense or compressed sparse rows."""
    if sparse.issparse(features):
        table: Any = sparse.csr_array(features)
        sound = np.isfinite(table.data).all()
    else:
        dense = np.asarray(features, dtype=np.float64)
        if dense.ndim != 3 or dense.shape[1] != 2:
            raise ValueError(
                f"features must be [pairs, 2, dim] with chosen before rejected, or sparse, got {list(dense.shape)}."
            )
        table = dense.reshape(-1, dense.shape[2])
        sound = np.isfinite(table).all()
    if not sound:
        raise ValueError("features hold NaN or infinity; find the layer or checkpoint that makes them.")
    return table


def _rows(pairs: Bool[np.ndarray, "pairs"]) -> Int[np.ndarray, "rows"]:
    return (2 * np.flatnonzero(pairs)[:, None] + np.arange(2)).ravel()


def _best_penalty(
    table: Any, labels: Int[np.ndarray, "rows"], learnt: Bool[np.ndarray, "pairs"], held: Bool[np.ndarray, "pairs"]
) -> float:
    """The penalty with the shortest code of the held-out labels; of equal ones, or without any, the strongest."""
    rows, scored = _rows(learnt), _rows(held)
    sign = 1 - 2 * labels[scored]
    choices = SPARSE_PENALTIES if sparse.issparse(table) else PENALTIES
    if not len(scored):
        return choices[0]
    lengths = [
        np.logaddexp(0, sign * _fitted(table[rows], labels[rows], table[scored], penalty)).mean() for penalty in choices
    ]
    return choices[int(np.argmin(lengths))]


def _fitted(train: Any, labels: Int[np.ndarray, "rows"], test: Any, penalty: float) -> Float[np.ndarray, "scored"]:
    """Log-odds of the test rows under a regression on the training rows."""
    if not sparse.issparse(train):
        mean, spread = train.mean(axis=0), train.std(axis=0)
        spread = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf)  # a constant column is 0
        train, test = (train - mean) / spread, (test - mean) / spread
    model = LogisticRegression(C=penalty, tol=1e-3, max_iter=2000)
    return model.fit(train, labels).decision_function(test)


def _estimate(
    quantity: str,
    value: float,
    unit: str,
    null: float,
    influence: Float[np.ndarray, "pairs"],
    n: int,
    message: str,
) -> Estimate:
    pairs = len(influence)
    about: dict[str, Any] = {"label": "preference", "weighting": "completions", "null": null}
    if pairs < FEWEST_DOCUMENTS:
        few = f"no interval: {pairs} pairs, at least {FEWEST_DOCUMENTS} are needed"
        return Estimate(quantity, value, unit, n, message="; ".join(filter(None, (message, few))), **about)
    error = standard_error(influence)
    half = quantile(pairs) * error
    return Estimate(
        quantity,
        value,
        unit,
        n,
        interval=(value - half, value + half),
        std_error=error,
        message=message,
        influence={"value": influence},
        **about,
    )
