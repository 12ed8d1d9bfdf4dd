"""What is measured of one checkpoint on one text, each as a part of its own: a kill loses no more than one of them.

The default rate, the position curve, the rate of each document and the retention profile come from one forward pass.
Other windows and other weights need a pass each; codec and ranks go token by token and say what they took.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from infocomp.activations.stream import stream
from infocomp.checkpoints.source import Loaded
from infocomp.coding.codec import Coder, compress, decompress, default_chunking
from infocomp.coding.lockstep import Chunking
from infocomp.coding.machine import reproducible
from infocomp.coding.pieces import pack_escapes, split_bytes
from infocomp.coding.quantised import quantised, weight_bytes
from infocomp.coding.ranks import rank_sizes
from infocomp.coding.rate import CodeLength
from infocomp.execution.runner import UnitResult
from infocomp.studies.coding_retention_rows import RetentionProfile
from infocomp.studies.coding_rows import document_rows, mapped_rows, position_rows, rate_rows, shared_columns
from infocomp.studies.coding_settings import ChunkingSettings, CodecSettings, RanksSettings, WeightsSettings
from infocomp.studies.coding_size_rows import codec_rows, rank_rows, raw_rows, token_by_token, width_rows
from infocomp.studies.coding_texts import CodedText, WindowRule, rules_beside
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import ComputeSettings

Advance = Callable[[int], None]
Measure = Callable[[Loaded, Mapping[str, Any], Advance], UnitResult]


@dataclass(frozen=True)
class Part:
    """One part: its title, the key columns that tell it apart, what decides it beside checkpoint and text.

    `tokens` is how many positions it computes, for the progress bar; `slow`: one at a time in each of many chunks.
    """

    title: str
    text: CodedText
    describe: Mapping[str, str]
    decides: Mapping[str, Any]
    tokens: int
    measure: Measure
    slow: bool = False


def code_lengths(
    model: PreTrainedModel, prepared: PreparedCorpus, compute: ComputeSettings, advance: Advance | None = None
) -> Float[np.ndarray, "scored"]:
    """Nats of every scored token, from one parallel pass."""
    probe = CodeLength(model)
    stream(model, prepared.windows, [probe], compute.batch_tokens, advance)
    return probe.nats()


def rate_part(text: CodedText, compute: ComputeSettings, profile: RetentionProfile | None) -> Part:
    """The default windows, in one pass: rates, position curve, documents, and what the bits are spent on; of a picture
    or sound the rates of its mapped bytes."""

    def measure(loaded: Loaded, about: Mapping[str, Any], advance: Advance) -> UnitResult:
        shared = shared_columns(text, text.rule, compute, about)
        nats = code_lengths(loaded.model, text.prepared, compute, advance)
        if text.mapped is not None:
            return UnitResult(mapped_rows(nats, text, shared))
        rows = rate_rows(nats, text.prepared, shared)
        rows += raw_rows(nats, text.prepared, shared, loaded.parameters)
        if text.rate.position_curve:
            rows += position_rows(nats, text.prepared, shared, text.rate.bins_per_octave)
        if profile is not None:
            rows += profile.rows(nats, shared)
        return UnitResult(rows, document_rows(nats, text.prepared, shared))

    decides = {"part": "rate", "windows": window_identity(text, text.rule)}
    decides |= {"retention": None if profile is None else asdict(profile.rules)}
    decides |= {"position_curve": text.rate.position_curve, "bins_per_octave": text.rate.bins_per_octave}
    return Part("rate", text, {"estimator": "code_length"}, decides, text.prepared.windows.total_positions, measure)


def windows_parts(text: CodedText, compute: ComputeSettings) -> list[Part]:
    """The rate under every other rule of windows."""

    def part(rule: WindowRule) -> Part:
        prepared = text.under(rule)

        def measure(loaded: Loaded, about: Mapping[str, Any], advance: Advance) -> UnitResult:
            shared = shared_columns(text, rule, compute, about)
            return UnitResult(
                rate_rows(code_lengths(loaded.model, prepared, compute, advance), prepared, shared, rule.label)
            )

        describe = {"estimator": "code_length", "label": rule.label}
        decides = {"part": "windows", "windows": window_identity(text, rule)}
        return Part(rule.label, text, describe, decides, prepared.windows.total_positions, measure)

    return [part(rule) for rule in rules_beside(text.rate)] if text.mapped is None else []


def width_part(text: CodedText, width: int, settings: WeightsSettings, compute: ComputeSettings) -> Part:
    """The weights at `width` bits: their bytes, the rate under them, and from which size of corpus on both pay."""

    def measure(loaded: Loaded, about: Mapping[str, Any], advance: Advance) -> UnitResult:
        size = weight_bytes(loaded.model, width)
        with quantised(loaded.model, width):
            nats = code_lengths(loaded.model, text.prepared, compute, advance)
        shared = shared_columns(text, text.rule, compute, about)
        rounding = {"weight_bits": width, "rounding": "per channel, to nearest, range fitted"}
        shared |= {"settings": shared["settings"] | rounding}
        classical = {coder.coder: coder.bits_per_byte for coder in text.in_one_stream(settings.against)}
        return UnitResult(width_rows(nats, text.prepared, shared, width, size, classical))

    describe = {"estimator": "code_length", "label": f"weights {width} bits"}
    decides = {
        "part": "weights",
        "width": width,
        "against": settings.against,
        "windows": window_identity(text, text.rule),
    }
    return Part(f"weights {width} bits", text, describe, decides, text.prepared.windows.total_positions, measure)


def codec_parts(text: CodedText, settings: CodecSettings, compute: ComputeSettings) -> list[Part]:
    """A file that is written, read back and compared, under the codec's own chunking and the others asked for."""
    data = text.head(settings.max_bytes)

    def part(label: str, cut: ChunkingSettings) -> Part:
        def measure(loaded: Loaded, about: Mapping[str, Any], advance: Advance) -> UnitResult:
            coder = coder_of(loaded, text.tokenizer)
            pieces = split_bytes(data, coder.tokenizer)
            chunking = _chunking(coder, len(pieces.tokens), cut)
            coded = compress(data, coder, chunking, advance, pieces=pieces)
            start = time.perf_counter()
            if decompress(coded.file, coder, advance) != data:
                raise RuntimeError(f"the codec did not give back the {len(data):,} bytes of {text.name!r}; report it.")
            seconds = time.perf_counter() - start
            shared = token_by_token(shared_columns(text, text.rule, compute, about), chunking, coder.bos, len(data))
            return UnitResult(codec_rows(coded, pieces.tokens, seconds, shared, label, loaded.parameters))

        describe = {"estimator": "arithmetic_coding", "label": label}
        decides = {"part": "codec", "chunking": cut.model_dump(mode="json"), "bytes": len(data), "label": label}
        title = f"codec{f', {label}' if label else ''}"
        return Part(title, text, describe, decides, 2 * _tokens_of(text, data), measure, slow=True)

    swept = [cut for cut in settings.chunk_tokens if cut != settings.chunking.chunk_tokens]
    others = [(f"chunk {cut}", settings.chunking.model_copy(update={"chunk_tokens": cut})) for cut in swept]
    return [part("", settings.chunking), *(part(label, cut) for label, cut in others)]


def ranks_part(text: CodedText, settings: RanksSettings, compute: ComputeSettings) -> Part:
    """Rank coding on the steps that the codec takes, decoded and compared; escapes are counted, a header is not."""
    data = text.head(settings.max_bytes)

    def measure(loaded: Loaded, about: Mapping[str, Any], advance: Advance) -> UnitResult:
        coder = coder_of(loaded, text.tokenizer)
        pieces = split_bytes(data, coder.tokenizer)
        chunking = _chunking(coder, len(pieces.tokens), settings.chunking)
        with reproducible(torch.get_num_threads()):
            sizes = rank_sizes(loaded.model, pieces.tokens, chunking, coder.vocabulary, coder.bos)
        shared = token_by_token(shared_columns(text, text.rule, compute, about), chunking, coder.bos, len(data))
        return UnitResult(rank_rows(sizes, len(pack_escapes(pieces)), pieces.tokens, len(data), shared))

    decides = {"part": "ranks", "chunking": settings.chunking.model_dump(mode="json"), "bytes": len(data)}
    return Part("ranks", text, {"estimator": "ranks"}, decides, 2 * _tokens_of(text, data), measure, slow=True)


def coder_of(loaded: Loaded, tokenizer: PreTrainedTokenizerBase) -> Coder:
    """The codec's view of a checkpoint."""
    checkpoint = loaded.checkpoint
    about = (checkpoint.model, checkpoint.revision.name, checkpoint.commit)
    return Coder.of(loaded.model, tokenizer, loaded.fingerprint, *about)


def _chunking(coder: Coder, tokens: int, cut: ChunkingSettings) -> Chunking:
    return default_chunking(coder, tokens, cut.chunk_tokens, cut.context_length, cut.overlap)


def _tokens_of(text: CodedText, data: bytes) -> int:
    """About how many tokens the first bytes of a text are, for a progress bar and a plan."""
    return round(len(text.prepared.corpus.tokens) * len(data) / max(1, len(text.data)))


def window_identity(text: CodedText, rule: WindowRule) -> Sequence[Any]:
    """What decides which windows a text is read in."""
    return [rule.context_length, rule.stride, text.rate.bos, text.rate.packing]
