"""Where nothing changed, differences of a comparison hold 0 as often as they say: paired exchange and unpaired halves.

Each draw is a fresh corpus whose rows share an effect with their document, read by two models that differ a lot; the
numbers go through the function that a study takes its differences with.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from infocomp.execution.part import INFLUENCE_KEY
from infocomp.execution.table import SCHEMA
from infocomp.studies.comparison_differences import Weighed, differences

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
import comparison_nulls

DRAWS, DOCUMENTS, ROWS, DIM, VOCABULARY = 80, 41, 16, 8, 12
SITE = "blocks.0.hook_resid_post"
QUANTITIES = (
    *("complexity token frequency", "expressivity token frequency", "optimality token frequency", "entropy frequency"),
    *("bits_per_byte", "rankme_covariance", "matrix_entropy order 1", "anisotropy", "curvature documents"),
    "preference_information preference completions",
)
CASES = [(design, quantity) for design in ("halves", "exchanged") for quantity in QUANTITIES]
CASES.remove(("halves", QUANTITIES[-1]))  # with 20 pairs its point's error is a third too small; paired it is not
FEWEST = binom.ppf(1e-4, DRAWS, 0.92) / DRAWS  # 0.79: one quantity in ten thousand covers less by chance
MOST_CALLED = binom.ppf(1 - 1e-4, DRAWS, 0.08) / DRAWS


def corpus(seed: int) -> comparison_nulls.Sample:
    """One text and two models of it: labels seen in the rows, documents with an effect and a rate of their own."""
    generator = np.random.default_rng(seed)
    fixed = np.random.default_rng(1)
    directions = fixed.standard_normal((2, VOCABULARY, DIM))
    documents = np.repeat(np.arange(DOCUMENTS), ROWS)
    n = len(documents)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    tokens = generator.choice(VOCABULARY, n + 1, p=weights / weights.sum())
    effect = generator.standard_normal((DOCUMENTS, DIM))[documents]
    later = (np.arange(n) % ROWS >= ROWS // 2)[:, None] * np.eye(DIM)[0]  # what preference information finds
    sides, costs = [], []
    for model, spread in enumerate((1.0, 1.5)):
        noise = spread * generator.standard_normal((n, DIM)) * np.arange(1, DIM + 1) ** -0.3
        rows = directions[model, tokens[:-1]] + 0.4 * directions[model, tokens[1:]] + 0.5 * effect + later + noise
        sides.append(rows.astype(np.float32))
        costs.append(3 + model + effect[:, 0] + generator.standard_normal(n))
    labels = {"token": tokens[:-1], "next_token": tokens[1:]}
    return comparison_nulls.Sample(
        base=sides[0],
        tuned=sides[1],
        base_bits=costs[0],
        tuned_bits=costs[1],
        kl=np.zeros((n, 4)),
        byte_counts=generator.integers(1, 6, n),
        labels=labels,
        documents=documents,
    )


def weighed(rows: np.ndarray, costs: np.ndarray, sample: comparison_nulls.Sample) -> dict:
    """The numbers of one model as a study reads them from its table."""
    found = {}
    for name, number in comparison_nulls.numbers(rows, costs, sample).items():
        if name not in QUANTITIES:
            continue
        row = dict.fromkeys(SCHEMA.names, None) | {"site": SITE, "rows": "all", "estimator": "e", "quantity": name}
        row |= {"label": "", "weighting": "", "corpus": "t", "settings": {}, "status": "ok"}
        row |= {"n_documents": len(np.unique(sample.documents)), "n_tokens": len(rows)}
        row |= {end: value for end, (value, _) in number.items()}
        influence = {end: of for end, (_, of) in number.items()}
        found[tuple(str(row[column]) for column in INFLUENCE_KEY)] = Weighed(row, influence)
    return found


def judged(base: dict, tuned: dict, paired: bool) -> dict[str, tuple[float, float, bool, bool]]:
    """Difference, error, whether the interval holds 0, whether p < 0.05, by quantity."""
    rows = differences(base, tuned, {})
    assert all(row["settings"]["paired"] is paired for row in rows)
    return {
        row["quantity"]: (
            row["value"],
            row["std_error"],
            row["ci_low"] <= 0 <= row["ci_high"],
            row["settings"]["p"] < 0.05,
        )
        for row in rows
    }


@pytest.fixture(scope="module")
def coverage() -> pd.DataFrame:
    drawn = defaultdict(list)
    for seed in range(DRAWS):
        sample, generator = corpus(seed), np.random.default_rng([7, seed])
        order = generator.permutation(DOCUMENTS)
        halves = [sample.of(half) for half in (order[: DOCUMENTS // 2], order[DOCUMENTS // 2 :])]
        apart = judged(*(weighed(half.base, half.base_bits, half) for half in halves), paired=False)
        swapped = sample.exchanged(np.flatnonzero(generator.random(DOCUMENTS) < 0.5))
        base = weighed(swapped.base, swapped.base_bits, swapped)
        together = judged(base, weighed(swapped.tuned, swapped.tuned_bits, swapped), paired=True)
        for design, found in (("halves", apart), ("exchanged", together)):
            for quantity, one in found.items():
                drawn[design, quantity].append(one)
    lines = []
    for (design, quantity), found in drawn.items():
        difference, error, covers, called = np.array(found, dtype=float).T
        line = {"design": design, "quantity": quantity, "draws": len(found), "covered": covers.mean()}
        line |= {"called": called.mean(), "error_over_sd": error.mean() / difference.std(ddof=1)}
        lines.append(line)
    return pd.DataFrame(lines)


@pytest.mark.parametrize(("design", "quantity"), CASES)
def test_intervals_of_a_difference_hold_0_where_nothing_changed(coverage, design, quantity):
    line = coverage.set_index(["design", "quantity"]).loc[(design, quantity)]
    assert line.draws == DRAWS
    assert line.covered >= FEWEST, f"{line.covered:.2f} of the intervals hold 0"
    assert 0.75 <= line.error_over_sd <= 1.5, "the error is that of the difference, not far more"


@pytest.mark.parametrize("design", ["halves", "exchanged"])
def test_all_quantities_together_are_covered_in_90_to_98_percent(coverage, design):
    shares = coverage[coverage["design"] == design]["covered"]
    assert len(shares) == len(QUANTITIES) and 0.90 <= shares.mean() <= 0.98


@pytest.mark.parametrize("design", ["halves", "exchanged"])
def test_no_more_changes_are_called_than_the_level_allows(coverage, design):
    called = coverage[coverage["design"] == design]["called"]
    assert called.max() <= MOST_CALLED and called.mean() <= 0.08
