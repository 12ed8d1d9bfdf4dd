"""What one pass of a checkpoint over the samples tells, kept in OUT/samples: a reference is read once for all of them.

A file is named by the hash of what decides it, so that a reference which is itself a checkpoint of the series shares
its pass with that checkpoint's own unit. One pass gives bits and full matches, where nothing but the samples' own BOS
stands before a prompt; else full matches have a pass of their own, which references have no use for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from infocomp.checkpoints.source import Checkpoint, Loaded
from infocomp.corpora.cache import kept_arrays
from infocomp.corpora.tokens import tokenizer_hash
from infocomp.execution.store import unit_name
from infocomp.memorization.samples import sample_pass
from infocomp.memorization.unintended import check_same_tokenizer
from infocomp.studies.memorization_settings import ExtractionSettings, ReferenceSettings
from infocomp.studies.memorization_texts import Samples
from infocomp.studies.model_source import StudiedModel

MEMORIZATION_VERSION = 2  # raised when a change of the code changes numbers: parts of another version are made again
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Reading:
    """How rows are read: the token before each of them, None for none, and tokens that are never the greedy one."""

    bos: int | None
    never: tuple[int, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What of the reading decides a unit's result."""
        return {"bos": self.bos, "never": self.never}


@dataclass(frozen=True)
class Readings:
    """How rows are read for their bits, and for what is extracted; equal where one pass does for both."""

    bits: Reading
    extraction: Reading


def readings_of(settings: ExtractionSettings | None, samples: Samples, shape: Any) -> Readings:
    """The readings that the settings ask for; `shape` is the configuration of the model.

    ValueError: a tokenizer without the BOS that is asked for, rows that the model doesn't read with it, a token in
    `never` that the model has not.
    """
    if settings is None:
        return Readings(Reading(samples.bos), Reading(samples.bos))
    bos: Any = None
    if settings.bos:
        tokenizer: Any = samples.tokenizer
        bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if bos is None:
            raise ValueError("extraction.bos is true, and the tokenizer has no BOS; leave it out.")
    longest, length = getattr(shape, "max_position_embeddings", None), samples.settings.length
    if bos is not None and longest is not None and length > longest:
        raise ValueError(
            f"a BOS before a prompt of {samples.settings.prompt} and a continuation of {samples.settings.continuation} "
            f"tokens needs {length} positions, and the model reads {longest}; leave extraction.bos out."
        )
    vocabulary = getattr(shape, "vocab_size", None)
    if vocabulary is not None and settings.never and max(settings.never) >= vocabulary:
        raise ValueError(
            f"extraction.never names the token {max(settings.never)}, and the model has tokens 0 to {vocabulary - 1}; "
            "give ids of its own tokenizer."
        )
    extraction = Reading(bos, tuple(sorted(set(settings.never))))
    return Readings(extraction if bos == samples.bos else Reading(samples.bos), extraction)


@dataclass(frozen=True)
class Side:
    """Of the rows of one text: bits of each, and how many tokens of its continuation come out greedily."""

    bits: Float[np.ndarray, "n"]
    first_difference: Int[np.ndarray, "n"]


@dataclass(frozen=True)
class Pass:
    """One checkpoint on members and on never-trained rows; `fingerprint` is of the weights that were read."""

    members: Side
    unseen: Side
    fingerprint: str


def checkpoint_pass(
    model: StudiedModel,
    checkpoint: Checkpoint,
    samples: Samples,
    reading: Reading,
    advance: Advance | None = None,
) -> Pass:
    """The pass of a checkpoint, from OUT/samples where it was made before; the model is opened only where it was not.

    ValueError as `sample_pass` and as opening a checkpoint.
    """
    identity = model.identity(checkpoint) | {"samples": samples.identity(), "version": MEMORIZATION_VERSION}
    identity |= {"reading": reading.identity()}
    path = model.out / "samples" / f"{unit_name(study='samples', **identity)}.safetensors"

    def make() -> dict[str, np.ndarray]:
        loaded: Loaded = model.open(checkpoint)
        arrays: dict[str, np.ndarray] = {
            "fingerprint": np.frombuffer(loaded.fingerprint.encode(), dtype=np.uint8).copy()
        }
        settings = samples.settings
        for name, part in (("members", samples.members), ("unseen", samples.unseen)):
            found = sample_pass(loaded.model, part.rows, reading.bos, settings.batch_rows, advance, reading.never)
            arrays[f"{name}_bits"] = found.bits.sum(axis=1)
            arrays[f"{name}_first"] = found.first_difference(settings.continuation).astype(np.int64)
        return arrays

    arrays = kept_arrays(path, make)
    members, unseen = (Side(arrays[f"{name}_bits"], arrays[f"{name}_first"]) for name in ("members", "unseen"))
    return Pass(members, unseen, arrays["fingerprint"].tobytes().decode())


class Reference:
    """A reference model: a revision of the studied model, or another model with the same tokenizer."""

    def __init__(self, settings: ReferenceSettings, studied: StudiedModel) -> None:
        self.settings, self.studied = settings, studied
        model = settings.model
        if model is None:
            if studied.settings.source == "single":
                raise ValueError(
                    f"reference {settings.name!r} is revision {settings.revision!r}, and model.source is 'single', "
                    "which has one; give the reference a 'model'."
                )
            model = studied.settings.model_copy(update={"revisions": [settings.revision]})
        self.model = StudiedModel(model, studied.compute, studied.out)
        self._refused: Exception | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The last checkpoint of the reference's source."""
        return self.model.source.list()[-1]

    def identity(self) -> dict[str, Any]:
        """What of the reference decides a unit's result."""
        return self.model.identity(self.checkpoint) | {"name": self.name}

    def about(self) -> dict[str, Any]:
        """What rows say of the reference, in their settings."""
        checkpoint = self.checkpoint
        revision = {"reference_revision": checkpoint.revision.name, "reference_step": checkpoint.revision.step}
        return {"reference": self.name, "reference_model": self.model.name} | revision

    def read(self, samples: Samples, reading: Reading, advance: Advance | None = None) -> Pass:
        """The reference's pass. A reference that was refused is refused again, unread.

        ValueError: another tokenizer, or as `checkpoint_pass`.
        """
        if self._refused is not None:
            raise self._refused
        try:
            if self.settings.model is not None:
                theirs = tokenizer_hash(self.model.source.tokenizer())
                check_same_tokenizer(samples.tokenizer_hash, theirs, self.studied.name, self.name)
            return checkpoint_pass(self.model, self.checkpoint, samples, reading, advance)
        except Exception as error:
            self._refused = error
            raise
        finally:
            self.model.close()
