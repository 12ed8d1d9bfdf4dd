"""Rows of the memorization study, in bits: what is memorized against a reference, membership, extraction, rates.

Every sum over members stands beside the same sum over never-trained rows. Intervals of bits and rates are over
documents; those of extraction over rows (Wilson 1927), as `memorization.extraction` has them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from infocomp.memorization.extraction import Changed, Extraction
from infocomp.memorization.membership import membership
from infocomp.memorization.unintended import unintended
from infocomp.studies.coding_rows import UNITS, Row, ratio_columns
from infocomp.studies.memorization_passes import Pass, Side
from infocomp.studies.memorization_texts import Samples, SampleSet
from infocomp.studies.settings import ComputeSettings
from infocomp.units import bits


def shared_columns(
    samples: Samples, compute: ComputeSettings, about: Mapping[str, Any], extra: Mapping[str, Any] | None = None
) -> Row:
    """The columns that every row of one checkpoint about its members has alike; `about` describes the checkpoint."""
    settings = samples.settings
    readings = samples.members.readings(about.get("step"))
    said = {
        "prompt": settings.prompt,
        "continuation": settings.continuation,
        "samples": len(samples.members),
        "bos": settings.bos,
        "tokenizer": samples.tokenizer_hash,
        "never_trained": samples.unseen.name,
        "never_trained_samples": len(samples.unseen),
        "never_trained_documents": len(np.unique(samples.unseen.documents)),
    }
    said |= {} if readings is None else {"mean_readings": readings}
    return {
        "corpus": samples.members.name,
        "site": "logits",
        "estimator": "code_length",
        "draw": "mean",
        "n_tokens": samples.members.rows.size,
        "n_documents": len(np.unique(samples.members.documents)),
        "dtype": compute.dtype,
        "attention": compute.attention,
        "bos": settings.bos,
        "packing": False,
        "in_training": samples.members.in_training,
        "context_length": settings.length + (samples.bos is not None),
        "settings": said | dict(extra or {}),
        **about,
    }


def _of(shared: Row, unit: str, quantity: str, label: str, **columns: Any) -> Row:
    return {**shared, "quantity": quantity, "label": label, "unit": unit} | columns


# --- rates ------------------------------------------------------------------------------------------------------------


def rate_rows(found: Pass, samples: Samples, shared: Row, held_out: bool) -> list[Row]:
    """Bits per token of members ("train") and never-trained rows ("test"); with `held_out` the latter also as the
    held-out rate, per token and per byte, under the name of their own text."""
    first = int(samples.bos is None)
    rows = []
    for label, side, part in (("train", found.members, samples.members), ("test", found.unseen, samples.unseen)):
        rows.append(_rate(shared, "bits_per_token", label, side, part, _tokens(part, first), first))
    if held_out:
        own = {**shared, "corpus": samples.unseen.name}
        sizes = {"bits_per_token": _tokens(samples.unseen, first)}
        sizes |= {"bits_per_byte": samples.unseen.bytes_of_rows(samples.tokenizer, first)}
        rows += [_rate(own, name, "", found.unseen, samples.unseen, of, first) for name, of in sizes.items()]
    return rows


def _tokens(part: SampleSet, first: int) -> Float[np.ndarray, "n"]:
    return np.full(len(part), part.rows.shape[1] - first, dtype=float)


def _rate(
    shared: Row, quantity: str, label: str, side: Side, part: SampleSet, sizes: Float[np.ndarray, "n"], first: int
) -> Row:
    scored = part.rows[:, first:]
    return _of(shared, UNITS[quantity], quantity, label) | {
        "null": unigram_bits(scored) / float(sizes.sum()),
        "n_tokens": scored.size,
        "n_documents": len(np.unique(part.documents)),
        "in_training": part.in_training,
        **ratio_columns(side.bits, sizes, part.documents),
    }


def unigram_bits(tokens: Int[np.ndarray, "..."]) -> float:
    """Code length of tokens under their own frequencies: the code that knows no context."""
    counts = np.unique(tokens, return_counts=True)[1]
    return bits(float(-(counts * np.log(counts / counts.sum())).sum()))


# --- memorized bits and membership ------------------------------------------------------------------------------------


def memorized_rows(own: Pass, reference: Pass, samples: Samples, shared: Row, name: str) -> list[Row]:
    """Clipped sum, excess over its null and unclipped difference, all over the members, against one reference."""
    found = unintended(
        own.members.bits,
        reference.members.bits,
        own.unseen.bits,
        reference.unseen.bits,
        samples.members.documents,
        samples.unseen.documents,
    )
    label = f"against {name}"
    mixture = {"mixture_bits": found.mixture.value, "mixture_null": found.mixture_null.value}
    shared = {**shared, "settings": shared["settings"] | mixture}
    common = {"ceiling": found.ceiling}
    return [
        _of(shared, "bits", "unintended_bits", label) | found.clipped.columns() | common | {"null": found.null.value},
        _of(shared, "bits", "memorized_bits", label) | found.excess.columns() | common,
        _of(shared, "bits", "memorized_bits", f"{label}, unclipped") | found.unclipped.columns() | common,
    ]


def membership_rows(own: Pass, reference: Pass | None, samples: Samples, shared: Row, label: str) -> list[Row]:
    """How well members are told from never-trained rows by their code length, alone or less that of a reference."""
    members, unseen = -own.members.bits, -own.unseen.bits
    if reference is not None:
        members, unseen = members + reference.members.bits, unseen + reference.unseen.bits
    documents = samples.members.documents, samples.unseen.documents
    found = membership(members, unseen, documents[0], documents[1], samples.settings.seed)
    best = {"best_f1": found.best_f1.value, "best_f1_null": found.best_f1.null}
    shared = {**shared, "settings": shared["settings"] | best}
    return [
        _of(shared, "ratio", "membership_auc", label) | found.auc.columns(),
        _of(shared, "ratio", "membership_f1", label) | found.f1.columns(),
    ]


# --- extraction -------------------------------------------------------------------------------------------------------


def rate_of_extraction(members: Extraction, unseen: Extraction, shared: Row) -> Row:
    """The share of members whose whole continuation comes out greedily, beside that of never-trained rows."""
    columns = {"value": members.rate, "null": unseen.rate, **_ends(members.interval)}
    return _of(shared, "ratio", "extraction_rate", _label(members)) | columns


def score_of_extraction(members: Extraction, unseen: Extraction, shared: Row) -> Row:
    """The mean share of a member's continuation that is emitted, beside that of never-trained rows."""
    columns = {"value": members.mean_score, "null": unseen.mean_score, **_ends(members.score_interval)}
    return _of(shared, "ratio", "extraction_score", _label(members)) | columns


def _label(found: Extraction) -> str:
    return f"{found.prompt}+{found.continuation}"


def fragility_rows(changed: list[Changed], shared: Row) -> list[Row]:
    """Rate and score after so many tokens of the prompt were changed, and how much of each is lost, row by row."""
    rows = []
    for one in changed:
        after = one.extraction
        label = f"{shared['settings']['prompt']}+{after.continuation}, {one.changed} of prompt changed"
        about = {**shared, "settings": shared["settings"] | {"changed": one.changed, "kind": one.kind}}
        rows += [
            _of(about, "ratio", "extraction_rate", label) | {"value": after.rate, **_ends(after.interval)},
            _of(about, "ratio", "extraction_score", label) | {"value": after.mean_score, **_ends(after.score_interval)},
            _of(about, "ratio", "extraction_drop", label) | {"value": one.score_drop, **_ends(one.score_drop_interval)},
            _of(about, "ratio", "extraction_drop", f"{label}, full matches")
            | {"value": one.rate_drop, **_ends(one.rate_drop_interval)},
        ]
    return rows


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"ci_low": low, "ci_high": high}
