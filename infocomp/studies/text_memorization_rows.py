"""Rows of the text memorization study, in bits: one trained model against references, on members and never-trained
samples, and the sigmoid of membership over all models.

Every row of a model carries in its settings how much there is to memorize (`data_bits`, the members' code length under
the whole-data reference), how much the model can hold (`capacity_bits`), and `load`, their ratio, as far as the
trainings that tell them came to their end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

from infocomp.estimators.jackknife import LEVEL
from infocomp.memorization.membership import MembershipLaw, Share, membership
from infocomp.memorization.unintended import Unintended, unintended
from infocomp.studies.coding_rows import UNITS, ratio_columns
from infocomp.studies.text_memorization_texts import Samples
from infocomp.units import bits

Row = dict[str, Any]
COMMON = {"site": "logits", "estimator": "code_length", "draw": "mean"}
LOSS, SAME = "loss", ", same documents"


def against(reference: str) -> str:
    """The label of what is measured against a reference."""
    return f"against {reference}"


@dataclass(frozen=True)
class Scored:
    """Samples with what each costs under the model, bits, whether its second half is emitted, and what it costs under
    each reference."""

    samples: Samples
    bits: Float[np.ndarray, "n"]
    extracted: Bool[np.ndarray, "n"]
    reference_bits: Mapping[str, Float[np.ndarray, "n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def head(self, n: int) -> "Scored":
        """The first n samples."""
        references = {name: values[:n] for name, values in self.reference_bits.items()}
        return Scored(self.samples.first(n), self.bits[:n], self.extracted[:n], references)

    @property
    def documents(self) -> Int[np.ndarray, "n"]:
        return self.samples.documents


def model_rows(members: Scored, unseen: Scored, siblings: Scored, shared: Mapping[str, Any], seed: int) -> list[Row]:
    """Every row of one trained model; references that failed are left to the caller.

    What is told by never-trained samples of the members' own documents has ", same documents" in its label.
    """
    about = {**COMMON, **shared}
    rows = rate_rows(members, about | {"in_training": "known"}, "train")
    rows += rate_rows(unseen, about | {"in_training": "no"}, "test")
    rows += rate_rows(siblings, about | {"in_training": "no"}, "test" + SAME)
    about |= {"in_training": "known", "n_documents": len(np.unique(members.documents))}
    about |= {"n_tokens": members.samples.rows.size}
    for name, reference in members.reference_bits.items():
        for others, ending in ((unseen, ""), (siblings, SAME)):
            found = unintended(
                *(members.bits, reference, others.bits, others.reference_bits[name]),
                *(members.documents, others.documents),
                shared_documents=others is siblings,
            )
            rows += memorized_rows(found, about, name, ending)
    rows += membership_rows(members, unseen, about, seed) + membership_rows(members, siblings, about, seed, SAME)
    return [*rows, extraction_row(members, unseen, about)]


def rate_rows(scored: Scored, about: Mapping[str, Any], label: str) -> list[Row]:
    """Bits per token with their error over documents; the null is the samples' tokens under their own frequencies."""
    tokens = scored.samples.rows
    sizes = np.full(len(scored), float(tokens.shape[1]))
    counts = np.unique(tokens, return_counts=True)[1]
    row = {
        **about,
        "quantity": "bits_per_token",
        "label": label,
        "unit": UNITS["bits_per_token"],
        "null": bits(float(-(counts * np.log(counts / tokens.size)).sum())) / tokens.size,
        "n_tokens": tokens.size,
        "n_documents": len(np.unique(scored.documents)),
        **ratio_columns(scored.bits, sizes, scored.documents),
    }
    return [row]


def memorized_rows(found: Unintended, about: Mapping[str, Any], reference: str, ending: str = "") -> list[Row]:
    """The clipped sum with its null, the excess over it, and the unclipped gain with its null, bits of all members."""
    settings = about["settings"] | {
        "reference": reference,
        "unseen": found.m,
        "unseen_documents": found.m_documents,
        "mixture_bits": found.mixture.value,
        "mixture_null": found.mixture_null.value,
    }
    common = {**about, "settings": settings, "unit": "bits", "label": against(reference) + ending}
    bounded, null, gain_null = common | {"ceiling": found.ceiling}, found.null.value, found.gain_null.value
    return [
        {**bounded, "quantity": "unintended_bits", "null": null, **found.clipped.columns()},
        {**bounded, "quantity": "memorized_bits", **found.excess.columns()},
        {**common, "quantity": "unclipped_gain_bits", "null": gain_null, **found.gain.columns()},
    ]


def membership_rows(
    members: Scored, unseen: Scored, about: Mapping[str, Any], seed: int, ending: str = ""
) -> list[Row]:
    """AUC and F1 of the plain loss and of each reference, on equally many members and never-trained samples.

    Of those from the members' own documents the plain loss alone; there one document is one on both sides.
    """
    rows = []
    for label, (ours, others) in membership_scores(members, unseen).items():
        if ending and label != LOSS:
            continue
        n = len(ours)
        found = membership(
            ours, others, members.documents[:n], unseen.documents[:n], seed, shared_documents=bool(ending)
        )
        best = {"best_f1": found.best_f1.value, "best_f1_null": found.best_f1.null, "members": n}
        common = {**about, "label": label + ending, "unit": "ratio", "settings": about["settings"] | best}
        shares: dict[str, Share] = {"membership_auc": found.auc, "membership_f1": found.f1}
        rows += [{**common, "quantity": name, **share.columns()} for name, share in shares.items()]
    return rows


def membership_scores(members: Scored, unseen: Scored) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By label, one score for each of equally many members and never-trained samples; higher means more a member."""
    n = min(len(members), len(unseen))
    members, unseen = members.head(n), unseen.head(n)
    scores = {LOSS: (-members.bits, -unseen.bits)}
    for name, reference in members.reference_bits.items():
        scores[against(name)] = (reference - members.bits, unseen.reference_bits[name] - unseen.bits)
    return scores


def extraction_row(members: Scored, unseen: Scored, about: Mapping[str, Any]) -> Row:
    """Share of samples whose second half is emitted greedily from the first; its null is that of never-trained ones."""
    effective = effective_samples(members.extracted, members.documents)
    low, high = wilson(float(members.extracted.mean()), effective)
    return {
        **about,
        "quantity": "extraction_rate",
        "unit": "ratio",
        "value": float(members.extracted.mean()),
        "null": float(unseen.extracted.mean()),
        "ci_low": low,
        "ci_high": high,
        "settings": about["settings"] | {"effective_samples": effective},
    }


def effective_samples(hits: Bool[np.ndarray, "n"], documents: Int[np.ndarray, "n"]) -> float:
    """How many independent samples would tell the share of hits as exactly, at most n: n over the design effect.

    The design effect is the variance of the share over documents, against that over samples (Kish 1965, chapter 5); it
    is taken as 1 where all samples are alike or fewer than 8 documents tell it.
    """
    n, share = len(hits), float(hits.mean())
    over_documents = ratio_columns(hits.astype(float), np.ones(n), documents).get("std_error", 0.0)
    return min(float(n), share * (1 - share) / over_documents**2) if over_documents else float(n)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share of n samples (Wilson 1927), within 0 and 1 and never empty; n need not be whole."""
    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    middle, scale = share + z2 / (2 * n), 1 + z2 / n
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def law_rows(law: MembershipLaw, about: Mapping[str, Any], label: str) -> list[Row]:
    """Midpoint and slope of the sigmoid of F1 in ln(capacity/data)."""
    settings = {
        "residual": law.residual,
        "models": law.points,
        "law": "F1 = (1 + s(slope (ln(capacity/data) - mid)))/2",
    }
    common = {**COMMON, **about, "label": label, "settings": settings}
    return [
        {**common, "quantity": "membership_midpoint", "unit": "nats", "value": law.midpoint}
        | {"ci_low": law.midpoint_low, "ci_high": law.midpoint_high},
        {**common, "quantity": "membership_slope", "unit": "per nat", "value": law.slope}
        | {"ci_low": law.slope_low, "ci_high": law.slope_high},
    ]
