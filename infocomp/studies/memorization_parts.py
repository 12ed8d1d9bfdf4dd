"""What is measured of one checkpoint, each as a part of its own: a kill loses no more than one of them.

The samples' bits and full matches come from one pass, or from two where a BOS stands before one of them only; the score
and the changed prompts decode, which is slow; what is said against a reference needs no forward pass of the checkpoint
any more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infocomp.checkpoints.source import Checkpoint
from infocomp.execution.runner import UnitResult
from infocomp.memorization.extraction import Extraction, extract, fragility
from infocomp.studies.coding_parts import code_lengths
from infocomp.studies.coding_rows import document_rows
from infocomp.studies.coding_rows import rate_rows as text_rate_rows
from infocomp.studies.coding_rows import shared_columns as text_columns
from infocomp.studies.coding_texts import CodedText
from infocomp.studies.memorization_passes import Advance, Reading, Readings, Reference, Side, checkpoint_pass
from infocomp.studies.memorization_rows import (
    extraction_columns,
    fragility_rows,
    membership_rows,
    memorized_rows,
    rate_of_extraction,
    rate_rows,
    score_of_extraction,
    shared_columns,
)
from infocomp.studies.memorization_settings import ExtractionSettings, FragilitySettings
from infocomp.studies.memorization_texts import Samples, SampleSet
from infocomp.studies.model_source import StudiedModel

Measure = Callable[[Checkpoint, Advance], UnitResult]
DECODING = 2.0  # a token that is emitted, against one that is read in a pass of many: rough, for the bar and the plan


@dataclass(frozen=True)
class Part:
    """One part: its title, the key columns that tell it apart, what decides it beside the checkpoint, and how many
    positions it computes, for the progress bar."""

    title: str
    describe: Mapping[str, str]
    decides: Mapping[str, Any]
    tokens: int
    measure: Measure


def samples_part(model: StudiedModel, samples: Samples, held_out: bool, extraction: bool, readings: Readings) -> Part:
    """Rates of members and never-trained rows, membership by code length, full matches: from one pass where it can."""
    of_bits, of_matches = readings.bits, readings.extraction
    passes = [_positions(samples, one) for one in dict.fromkeys([of_bits, of_matches] if extraction else [of_bits])]

    def measure(checkpoint: Checkpoint, advance: Advance) -> UnitResult:
        found = checkpoint_pass(model, checkpoint, samples, of_bits, advance)
        shared = shared_columns(samples, model.compute, _about(model, checkpoint, found.fingerprint))
        rows = rate_rows(found, samples, shared, held_out)
        rows += membership_rows(found, None, samples, shared, "loss")
        if extraction:
            if of_matches != of_bits:
                found = checkpoint_pass(model, checkpoint, samples, of_matches, advance)
            members, unseen = (_matches(side, samples) for side in (found.members, found.unseen))
            rows.append(rate_of_extraction(members, unseen, extraction_columns(shared, of_matches)))
        return UnitResult(rows)

    decides = {"part": "samples", "held_out": held_out, "extraction": extraction, "seed": samples.settings.seed}
    decides |= {"reading": of_matches.identity()} if extraction else {}
    return Part("samples", {"label": "loss"}, decides, sum(passes), measure)


def _positions(samples: Samples, reading: Reading) -> int:
    """Positions that one pass over all rows computes in this reading."""
    rows = len(samples.members) + len(samples.unseen)
    return rows * (samples.settings.length - (reading.bos is None))


def _matches(side: Side, samples: Samples) -> Extraction:
    return Extraction(None, side.first_difference, samples.settings.prompt, samples.settings.continuation)


def score_part(model: StudiedModel, samples: Samples, settings: ExtractionSettings, reading: Reading) -> Part:
    """The share of a continuation that is emitted, by greedy decoding of members and of never-trained rows."""
    chosen = [_some(part, settings.score_count, samples) for part in (samples.members, samples.unseen)]

    def measure(checkpoint: Checkpoint, advance: Advance) -> UnitResult:
        loaded, told = model.open(checkpoint), _rows_told(advance, samples)
        how = (*_lengths(samples), settings.batch_rows, reading.bos, True, reading.never)
        found = [extract(loaded.model, rows, *how, progress=told) for rows, _ in chosen]
        about = _about(model, checkpoint, loaded.fingerprint)
        decoded = {"decoded_samples": len(chosen[0][0]), "decoded_never_trained": len(chosen[1][0])}
        shared = shared_columns(samples, model.compute, about, decoded) | _counts(*chosen[0])
        return UnitResult([score_of_extraction(found[0], found[1], extraction_columns(shared, reading))])

    count = sum(len(rows) for rows, _ in chosen)
    decides = {"part": "score", "count": settings.score_count, "seed": samples.settings.seed}
    decides |= {"reading": reading.identity()}
    tokens = round(DECODING * count * samples.settings.length)
    return Part("score", {"label": "score"}, decides, tokens, measure)


def fragility_part(
    model: StudiedModel,
    samples: Samples,
    settings: FragilitySettings,
    extraction: ExtractionSettings,
    reading: Reading,
) -> Part:
    """What is still emitted of members, and of never-trained rows, when their prompts are changed."""
    most = min(settings.count, extraction.score_count or settings.count)
    chosen = [_some(samples.members, settings.count, samples), _some(samples.unseen, most, samples)]

    def measure(checkpoint: Checkpoint, advance: Advance) -> UnitResult:
        loaded, told = model.open(checkpoint), _rows_told(advance, samples)
        how = (settings.changes, settings.seed, settings.kind, *_lengths(samples), extraction.batch_rows)
        asked = (reading.bos, reading.never)
        changed, null = (fragility(loaded.model, rows, *how, *asked, progress=told) for rows, _ in chosen)
        about = _about(model, checkpoint, loaded.fingerprint)
        decoded = {"decoded_samples": len(chosen[0][0]), "decoded_never_trained": len(chosen[1][0])}
        shared = shared_columns(samples, model.compute, about, decoded) | _counts(*chosen[0])
        return UnitResult(fragility_rows(changed, null, extraction_columns(shared, reading)))

    decides = {"part": "fragility", **settings.model_dump(mode="json", exclude={"checkpoints"})}
    decides |= {"sample_seed": samples.settings.seed, "never_trained": most, "reading": reading.identity()}
    count = sum(len(rows) for rows, _ in chosen)
    tokens = round(DECODING * count * samples.settings.length * (len(settings.changes) + 1))
    return Part("changed prompts", {"label": "changed prompts"}, decides, tokens, measure)


def _some(part: SampleSet, count: int, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The same `count` rows of a text for every part that asks for so many, and their documents."""
    chosen = np.sort(np.random.default_rng(samples.settings.seed).permutation(len(part))[:count])
    return part.rows[chosen], part.documents[chosen]


def _counts(rows: np.ndarray, documents: np.ndarray) -> dict[str, int]:
    return {"n_tokens": rows.size, "n_documents": len(np.unique(documents))}


def reference_part(model: StudiedModel, samples: Samples, reference: Reference, reading: Reading) -> Part:
    """What is memorized against one reference, and membership by both code lengths; both passes are kept ones."""

    def measure(checkpoint: Checkpoint, advance: Advance) -> UnitResult:
        theirs = reference.read(samples, reading, advance)
        own = checkpoint_pass(model, checkpoint, samples, reading)
        about = _about(model, checkpoint, own.fingerprint)
        said = reference.about() | {"reference_fingerprint": theirs.fingerprint}
        shared = shared_columns(samples, model.compute, about, said)
        label = f"against {reference.name}"
        rows = memorized_rows(own, theirs, samples, shared, reference.name)
        return UnitResult([*rows, *membership_rows(own, theirs, samples, shared, label)])

    decides = {"part": "reference", "reference": reference.identity(), "seed": samples.settings.seed}
    return Part(f"against {reference.name}", {"label": f"against {reference.name}"}, decides, 0, measure)


def held_out_part(model: StudiedModel, text: CodedText) -> Part:
    """The rate of a held-out text in whole windows, as the study `coding` measures it."""

    def measure(checkpoint: Checkpoint, advance: Advance) -> UnitResult:
        loaded = model.open(checkpoint)
        about = _about(model, checkpoint, loaded.fingerprint)
        shared = text_columns(text, text.rule, model.compute, about)
        nats = code_lengths(loaded.model, text.prepared, model.compute, advance)
        rows = text_rate_rows(nats, text.prepared, shared)
        return UnitResult(rows, document_rows(nats, text.prepared, shared))

    rule = text.rule
    windows = [rule.context_length, rule.stride, text.rate.bos, text.rate.packing]
    decides = {"part": "held-out rate", "corpus": text.identity(), "windows": windows}
    return Part("held-out rate", {"corpus": text.name}, decides, text.prepared.windows.total_positions, measure)


def _lengths(samples: Samples) -> tuple[int, int]:
    return samples.settings.prompt, samples.settings.continuation


def _rows_told(advance: Advance, samples: Samples) -> Advance:
    """Rows done as positions of the bar."""
    return lambda rows: advance(round(DECODING * rows * samples.settings.length))


def _about(model: StudiedModel, checkpoint: Checkpoint, fingerprint: str) -> dict[str, Any]:
    return model.describe(checkpoint) | {"fingerprint": fingerprint, "commit": checkpoint.commit}
