"""Units of the coding study that need no checkpoint: classical coders, PPM by kind of span, the training's own code."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from infocomp.coding.chunked import chunked_rate
from infocomp.coding.classical import CodedSize, classical_rates
from infocomp.coding.ppm import byte_code_lengths
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Silent
from infocomp.execution.store import unit_name
from infocomp.studies.coding_parts import window_identity
from infocomp.studies.coding_retention_rows import RetentionProfile
from infocomp.studies.coding_rows import classical_row
from infocomp.studies.coding_settings import ClassicalSettings, PrequentialSettings, RetentionSettings
from infocomp.studies.coding_texts import CodedText
from infocomp.studies.model_source import StudiedModel
from infocomp.studies.prequential_rows import TEXT, prequential_rows

CODING_VERSION = 2  # raised when a change of the code changes numbers: parts of another version are made again


def classical_units(text: CodedText, settings: ClassicalSettings, slow: Sequence[int]) -> list[Unit]:
    """The classical coders on one text: in one stream, in pieces of each length, and on the beginnings of `slow` bytes
    that are coded token by token, where these are not the whole text."""
    coders = text.coders(settings.coders)
    rates: dict[str, Callable[[], list[CodedSize]]] = {"": lambda: text.in_one_stream(coders)}
    rates |= {f"chunk {size}": partial(_in_pieces, text, size, coders) for size in settings.chunk_bytes}
    heads = [] if text.mapped is not None else [text.head(size) for size in sorted(set(slow))]
    rates |= {
        f"first {len(data)} bytes": partial(classical_rates, data, coders)
        for data in heads
        if len(data) < len(text.data)
    }
    return [_classical_unit(text, coders, label, of) for label, of in rates.items()]


def _classical_unit(text: CodedText, coders: Sequence[str], label: str, rates: Callable[[], list[CodedSize]]) -> Unit:
    identity = {"corpus": text.identity(), "coders": coders, "label": label, "coding_version": CODING_VERSION}
    describe = {"model": "classical coders", "corpus": text.name, "label": label}
    title = f"classical coders · {text.name}{f' · {label}' if label else ''}"

    def run() -> UnitResult:
        return UnitResult([classical_row(size, text, label) for size in rates()])

    return Unit(unit_name(study="classical coders", **identity), title, describe, run)


def _in_pieces(text: CodedText, chunk_bytes: int, coders: Sequence[str]) -> list[CodedSize]:
    return [chunked_rate(text.data, chunk_bytes, coder) for coder in coders]


def spans_unit(profile: RetentionProfile, settings: RetentionSettings) -> Unit:
    """What PPM spends on each kind of span and on each document, once for all checkpoints."""
    text = profile.text
    decides = {"corpus": text.identity(), "windows": window_identity(text, text.rule), "order": settings.order}
    decides |= {"kinds": asdict(profile.rules), "coding_version": CODING_VERSION}
    describe = {"model": "PPM", "corpus": text.name, "estimator": "classical"}

    def run() -> UnitResult:
        lengths = byte_code_lengths(text.data, settings.order)
        return UnitResult(profile.classical_rows(lengths, settings.order), profile.classical_documents(lengths))

    return Unit(unit_name(study="classical spans", **decides), f"PPM by kind · {text.name}", describe, run)


def prequential_unit(model: StudiedModel, settings: PrequentialSettings) -> Unit:
    """The code length of the training that the run does itself."""
    decides = {"training": model.training_unit(Silent()).name, **settings.model_dump(mode="json")}
    name = unit_name(study="prequential", coding_version=CODING_VERSION, **decides)
    describe = {"model": model.name, "corpus": TEXT, "estimator": "prequential"}

    def run() -> UnitResult:
        about = {"model": model.name, "site": "logits", "dtype": "float32"}
        return UnitResult(prequential_rows(model.out, about, settings.points, settings.against))

    return Unit(name, f"prequential code of {model.name}", describe, run)
