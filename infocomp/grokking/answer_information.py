"""Exact informations about inputs and answer at every site, in bits, for all train and all test inputs separately.

The inputs of an arithmetic task can be listed, so a population is all there is: with each of its n inputs at
probability 1/n, the joint law of input, answer and soft-quantised direction J of a site is known and I(context; J)
(what J keeps of the input), I(answer; J), I(left; J) and I(right; J) are those of that law. There is no sampling error
and no interval; what varies is the draw of anchors that defines J (`draw_std`). The null stays beside each: the same
labels and the same rows, dealt to each other anew (one seeded shuffle a label, the same for all sites). It is above 0
since n is finite, and from shuffle to shuffle varies by 1 to 4 % (measured at 1,392 inputs).

The answer is a function of the input and J sees the input only, so I(answer; J) ≤ min(I(context; J), H(answer)), the
bound that stands as `ceiling`, with H(answer) from the population's own answers (log2 p where they are uniform).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.estimators import Estimate, Groups, LabelGroups, SoftInformation
from infocomp.grokking.tasks import entropy_bits

DIRECTIONS = {"answer": "output", "left": "input", "right": "input"}
KEPT = ("entropy", "context_complexity", "complexity", "expressivity")


@dataclass(frozen=True)
class SiteInformation:
    """One estimate (bits) of one site over one population, with H(answer) of that population in bits."""

    site: str
    rows: str
    estimate: Estimate
    answer_entropy_bits: float


def answer_information(
    activations: Mapping[str, Float[Tensor, "pairs dim"]],
    labels: Mapping[str, Int[np.ndarray, "pairs"]],
    populations: Mapping[str, Int[np.ndarray, "rows"]],
    bins: int = 100,
    draws: int = 5,
    seed: int = 0,
    centred: bool = False,
) -> list[SiteInformation]:
    """Informations of every site and population, the means over anchor draws.

    `activations` hold one row a pair for all pairs, `labels` "answer" and, where wanted, "left" and "right" of the same
    pairs, `populations` the row numbers of each ("train", "test"). `centred` subtracts the mean of all pairs from each
    site first. Quantities: entropy H(J), context_complexity I(context; J), complexity (labels left, right) and
    expressivity (label answer). A site whose rows have no direction is a refused estimate with the reason. ValueError:
    no or unknown labels, an empty population, row numbers outside, counts that differ, or activations not finite.
    """
    pairs = _check_labels(labels)
    groups = {name: _groups(labels, np.asarray(rows), name, pairs, seed) for name, rows in populations.items()}
    found = []
    for site, values in activations.items():
        values = values.detach()
        if values.ndim != 2 or len(values) != pairs:
            raise ValueError(f"activations of {site} must be [{pairs}, dim], one row a pair, got {list(values.shape)}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"activations of {site} must be finite, some are not; look for the diverged step")
        if centred:
            values = values - values.mean(dim=0, dtype=torch.float64).to(values.dtype)
        for name, rows in populations.items():
            answer_bits = entropy_bits(labels["answer"][rows])
            here = values[torch.as_tensor(rows, device=values.device)]
            estimates = _estimates(here, groups[name], name, bins, draws, seed)
            found += [SiteInformation(site, name, estimate, answer_bits) for estimate in estimates]
    return found


def bound_bits(context_bits: float, answer_entropy_bits: float) -> float:
    """The most that can be known of the answer where I(context; J) is kept of the input: min(I_X, H(Y)), bits."""
    return min(context_bits, answer_entropy_bits)


def _estimates(
    rows: Float[Tensor, "rows dim"], groups: list[LabelGroups], population: str, bins: int, draws: int, seed: int
) -> list[Estimate]:
    reason = _directionless(rows)
    if reason:
        refused = {"unit": "bits", "value": None, "n": len(rows), "status": "refused", "message": reason}
        named = [("entropy", ""), ("context_complexity", ""), *((one.quantity, one.name) for one in groups)]
        return [Estimate(quantity=quantity, label=label, weighting="frequency", **refused) for quantity, label in named]
    soft = SoftInformation(rows.shape[1], bins=bins, draws=draws, seed=seed)
    soft.update(rows)
    exact = f"exact: the {len(rows)} {population} inputs are all there are, so there is no sampling error"
    found = soft.estimate(labels=groups)
    soft.close()
    kept = [one for one in found if one.draw == "mean" and one.quantity in KEPT]
    # a point estimate corrects for rows that were not seen, and the row null is interpolated: neither is for all rows
    return [
        replace(one, point=None, null_rows=None, message=exact if one.status == "ok" else one.message) for one in kept
    ]


def _directionless(rows: Float[Tensor, "rows dim"]) -> str:
    """Why J does not exist for these rows; empty where it does."""
    if rows.shape[1] < 2:
        return f"rows of width {rows.shape[1]} have no direction to quantise; at least 2 are needed"
    zero = int((rows.norm(dim=1) == 0).sum())
    return f"{zero} of {len(rows)} rows are zero and have no direction" if zero else ""


def _check_labels(labels: Mapping[str, Int[np.ndarray, "pairs"]]) -> int:
    unknown = sorted(set(labels) - set(DIRECTIONS))
    if unknown or "answer" not in labels:
        raise ValueError(
            f"labels must name answer and may name left and right, got {', '.join(labels) or 'none'}; "
            "give them as integers by name"
        )
    sizes = {name: len(values) for name, values in labels.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"labels must have one entry a pair each, got {sizes}; list the same pairs in all")
    return sizes["answer"]


def _groups(
    labels: Mapping[str, Int[np.ndarray, "pairs"]], rows: Int[np.ndarray, "rows"], name: str, pairs: int, seed: int
) -> list[LabelGroups]:
    """The labels of one population and their shuffles, gathered once for all sites."""
    if not len(rows) or rows.min() < 0 or rows.max() >= pairs:
        raise ValueError(
            f"population {name} must list row numbers from 0 to {pairs - 1}, at least one, got {len(rows)} "
            f"{f'from {rows.min()} to {rows.max()}' if len(rows) else 'of them'}; take the task's split"
        )
    found = []
    for number, (label, direction) in enumerate(DIRECTIONS.items()):
        if label in labels:
            values = np.asarray(labels[label])[rows]
            shuffle = np.random.default_rng([seed, number]).permutation(len(rows))
            found.append(LabelGroups(label, None, direction, Groups.of(values), Groups.of(values, row_of=shuffle)))
    return found
