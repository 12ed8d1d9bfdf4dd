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
from infocomp.studies.memorization_passes import Pass, Reading, Side
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
        "shared_documents": documents_are_shared(samples),
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


def documents_are_shared(samples: Samples) -> bool:
    """Whether a number names one document on both sides: read and unread windows of one training text."""
    return samples.members.settings.series is not None and samples.unseen.settings.series is not None


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
    """Clipped sum, excess over its null and unclipped gain, all over the members, against one reference."""
    found = unintended(
        own.members.bits,
        reference.members.bits,
        own.unseen.bits,
        reference.unseen.bits,
        samples.members.documents,
        samples.unseen.documents,
        documents_are_shared(samples),
    )
    label = f"against {name}"
    mixture = {"mixture_bits": found.mixture.value, "mixture_null": found.mixture_null.value}
    shared = {**shared, "settings": shared["settings"] | mixture}
    common = {"ceiling": found.ceiling}
    return [
        _of(shared, "bits", "unintended_bits", label) | found.clipped.columns() | common | {"null": found.null.value},
        _of(shared, "bits", "memorized_bits", label) | found.excess.columns() | common,
        _of(shared, "bits", "unclipped_gain_bits", label) | found.gain.columns() | {"null": found.gain_null.value},
    ]


def membership_rows(own: Pass, reference: Pass | None, samples: Samples, shared: Row, label: str) -> list[Row]:
    """How well members are told from never-trained rows by their code length, alone or less that of a reference."""
    members, unseen = -own.members.bits, -own.unseen.bits
    if reference is not None:
        members, unseen = members + reference.members.bits, unseen + reference.unseen.bits
    documents = samples.members.documents, samples.unseen.documents
    found = membership(members, unseen, *documents, samples.settings.seed, documents_are_shared(samples))
    best = {"best_f1": found.best_f1.value, "best_f1_null": found.best_f1.null}
    shared = {**shared, "settings": shared["settings"] | best}
    return [
        _of(shared, "ratio", "membership_auc", label) | found.auc.columns(),
        _of(shared, "ratio", "membership_f1", label) | found.f1.columns(),
    ]


# --- extraction -------------------------------------------------------------------------------------------------------


def extraction_columns(shared: Row, reading: Reading) -> Row:
    """The shared columns of rows about extraction, whose prompts may begin with another BOS than the samples do."""
    bos, said = "none" if reading.bos is None else "window", shared["settings"]
    length = said["prompt"] + said["continuation"]
    return {
        **shared,
        "bos": bos,
        "context_length": length + (reading.bos is not None),
        "settings": said | {"bos": bos, "never": list(reading.never)},
    }


def rate_of_extraction(members: Extraction, unseen: Extraction, shared: Row) -> Row:
    """The share of members whose whole continuation comes out greedily, beside that of never-trained rows."""
    columns = {"value": members.rate, "null": unseen.rate, **_ends(members.interval)}
    return _of(shared, "ratio", "extraction_rate", _label(shared)) | columns


def score_of_extraction(members: Extraction, unseen: Extraction, shared: Row) -> Row:
    """The mean share of a member's continuation that is emitted, beside that of never-trained rows."""
    columns = {"value": members.mean_score, "null": unseen.mean_score, **_ends(members.score_interval)}
    return _of(shared, "ratio", "extraction_score", _label(shared)) | columns


def _label(shared: Row) -> str:
    """Tokens of prompt and continuation, as published; a BOS before the prompt is not, and is said."""
    said = shared["settings"]
    return f"{said['prompt']}+{said['continuation']}{'' if said['bos'] == 'none' else ', BOS'}"


def fragility_rows(changed: list[Changed], null: list[Changed], shared: Row) -> list[Row]:
    """Rate and score after so many tokens of the prompt were changed, and how much of each is lost, row by row; each
    beside the same of never-trained rows under the same changes."""
    rows = []
    for one, unseen in zip(changed, null, strict=True):
        label = f"{_label(shared)}, {one.changed} of prompt changed"
        about = {**shared, "settings": shared["settings"] | {"changed": one.changed, "kind": one.kind}}
        after, other = one.extraction, unseen.extraction
        found = [
            ("extraction_rate", label, after.rate, other.rate, after.interval),
            ("extraction_score", label, after.mean_score, other.mean_score, after.score_interval),
            ("extraction_drop", label, one.score_drop, unseen.score_drop, one.score_drop_interval),
            ("extraction_drop", f"{label}, full matches", one.rate_drop, unseen.rate_drop, one.rate_drop_interval),
        ]
        for quantity, name, value, of_unseen, interval in found:
            columns = {"value": value, "null": of_unseen, **_ends(interval)}
            rows.append(_of(about, "ratio", quantity, name) | columns)
    return rows


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"ci_low": low, "ci_high": high}
