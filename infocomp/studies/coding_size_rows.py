"""Rows of the coding study about sizes: raw and adjusted rates, weights of few bits, real files, rank codes.

Bytes are bytes, rates bits per byte of the text that was coded; a raw or adjusted rate is a ratio of sizes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from infocomp.coding.adjusted import adjusted_by_bytes, adjusted_rate, break_even_bytes, raw_rate
from infocomp.coding.codec import Coded
from infocomp.coding.lockstep import Chunking
from infocomp.studies.coding_rows import UNITS, Row, rate_rows
from infocomp.studies.prepared import PreparedCorpus
from infocomp.units import bits

PARAMETER_BITS = 16


def raw_rows(nats: Float[np.ndarray, "scored"], prepared: PreparedCorpus, shared: Row, parameters: int) -> list[Row]:
    """Coded over raw size, and the same with every parameter counted at 16 bits though the rate is that of `dtype`."""
    coded, size = bits(float(nats.sum())) / 8, prepared.scored_bytes
    common = {**shared, "site": "logits", "estimator": "code_length", "n_tokens": len(nats)}
    return _raw_and_adjusted(coded, size, parameters, common)


def _raw_and_adjusted(coded_bytes: float, raw_bytes: int, parameters: int, common: Row) -> list[Row]:
    """Both rates of one code; the adjusted one says how many parameters of how many bits it counts."""
    counted = {"parameters": parameters, "parameter_bits": PARAMETER_BITS, **_two_part_settings(raw_bytes)}
    adjusted = adjusted_rate(coded_bytes, raw_bytes, parameters, PARAMETER_BITS)
    rows: list[Row] = [
        {"quantity": "raw_rate", "value": raw_rate(coded_bytes, raw_bytes)},
        {"quantity": "adjusted_rate", "value": adjusted, "settings": common["settings"] | counted},
    ]
    return [{**common, "unit": "ratio", **row} for row in rows]


def _two_part_settings(measured_on_bytes: int) -> Row:
    """What a size of weights and data together rests on."""
    rests_on = {"measured_on_bytes": measured_on_bytes, "rates held constant over sizes": True}
    return rests_on | {"tokenizer_counted": False}


def width_rows(
    nats: Float[np.ndarray, "scored"],
    prepared: PreparedCorpus,
    shared: Row,
    width: int,
    model_bytes: int,
    classical: Mapping[str, float],
) -> list[Row]:
    """The rate under weights of `width` bits, their bytes, both together, and the break-even size of a corpus.

    `classical` holds the bits per byte of each coder on the same text; where the model's rate is no lower, it never
    pays, and the row says so. Both are rates of this text: the row says that too, as either may fall on a longer one.
    """
    label = f"weights {width} bits"
    rows = rate_rows(nats, prepared, shared, label)
    rate = bits(float(nats.sum())) / prepared.scored_bytes
    adjusted = adjusted_by_bytes(bits(float(nats.sum())) / 8, prepared.scored_bytes, model_bytes)
    common = {**shared, "site": "logits", "estimator": "code_length", "label": label, "n_tokens": len(nats)}
    rows.append({**common, "quantity": "model_bytes", "value": model_bytes, "unit": "bytes"})
    common |= {"settings": shared["settings"] | _two_part_settings(prepared.scored_bytes)}
    rows.append({**common, "quantity": "adjusted_rate", "value": adjusted, "unit": "ratio"})
    for coder, theirs in classical.items():
        found = break_even_bytes(rate, model_bytes, theirs)
        row = {**common, "quantity": "break_even_bytes", "label": f"{label} against {coder}", "unit": "bytes"}
        rates = f"{rate:.4f} bits per byte under these weights, {theirs:.4f} by {coder}"
        if found is None:
            row |= {"status": "undetermined", "message": f"never: {rates}"}
        else:
            of = f"this text of {prepared.scored_bytes:,} bytes"
            row |= {"message": f"both rates are those of {of} and held constant over sizes: {rates}"}
        rows.append(row | {"value": found})
    return rows


def token_by_token(shared: Row, chunking: Chunking, bos: int | None, n_bytes: int) -> Row:
    """The columns of what is coded token by token in place of those of the windows of a parallel pass."""
    settings = {
        "rule": f"chunks of {chunking.chunk_tokens} tokens side by side, windows of at most {chunking.context_length} "
        f"positions, {'no BOS' if bos is None else 'a BOS before each window'}",
        "chunk_tokens": chunking.chunk_tokens,
        "context_length": chunking.context_length,
        "overlap": chunking.overlap,
        "lanes": chunking.lanes,
        "bytes": n_bytes,
        "tokenizer": shared["settings"]["tokenizer"],
    }
    # the documents are coded as one text
    changed = {"context_length": chunking.context_length, "bos": "none" if bos is None else "window", "packing": True}
    return shared | changed | {"settings": settings}


def codec_rows(
    coded: Coded,
    tokens: Int[np.ndarray, "tokens"],
    decompress_seconds: float,
    shared: Row,
    label: str,
    parameters: int,
) -> list[Row]:
    """A real file, alone and with every parameter at 16 bits, and where its bytes went.

    `coder_overhead` is bits per token beyond −Σ log2 p of the same steps, where a token counts 24 bits at most;
    `floor_saved_bytes` is what the tokens beyond that would have cost more.
    """
    sizes = {
        "coded_bytes": (len(coded.file), "bytes"),
        "header_bytes": (coded.header_bytes, "bytes"),
        "payload_bytes": (coded.payload_bytes, "bytes"),
        "escape_bytes": (coded.escape_bytes, "bytes"),
        "floor_saved_bytes": (coded.floor_saved_bits / 8, "bytes"),
        "escape_share": (coded.escape_share, "ratio"),
        "coder_overhead": (coded.overhead_bits / max(1, coded.n_tokens), "bits/token"),
        "compress_seconds": (coded.seconds, "seconds"),
        "decompress_seconds": (decompress_seconds, "seconds"),
    }
    common = {**shared, "site": "logits", "estimator": "arithmetic_coding", "label": label, "n_tokens": coded.n_tokens}
    rate: Row = {"quantity": "bits_per_byte", "value": coded.bits_per_byte, "unit": UNITS["bits_per_byte"]}
    return [
        {**common, **rate, "null": _unigram_bits(tokens) / coded.n_bytes},
        *_raw_and_adjusted(len(coded.file), coded.n_bytes, parameters, common),
        *({**common, "quantity": name, "value": value, "unit": unit} for name, (value, unit) in sizes.items()),
    ]


def rank_rows(
    sizes: Mapping[str, int], escape_bytes: int, tokens: Int[np.ndarray, "tokens"], n_bytes: int, shared: Row
) -> list[Row]:
    """Rank codes of the same tokens, each with the escapes' bytes; no header is counted, the decoder is told."""
    about = {"escape_bytes": escape_bytes, "header": "not counted: compare with payload and escapes of the codec"}
    common: dict[str, Any] = {**shared, "site": "logits", "n_tokens": len(tokens)}
    common |= {"settings": shared["settings"] | about}
    rows = []
    for coder, size in sizes.items():
        whole = size + escape_bytes
        rate: Row = {"quantity": "bits_per_byte", "value": 8 * whole / n_bytes, "unit": UNITS["bits_per_byte"]}
        rows.append({**common, "estimator": coder, **rate, "null": _unigram_bits(tokens) / n_bytes})
        rows.append({**common, "estimator": coder, "quantity": "coded_bytes", "value": whole, "unit": "bytes"})
    return rows


def _unigram_bits(tokens: Int[np.ndarray, "tokens"]) -> float:
    """Code length of the tokens under their own frequencies, bits; 0 for none."""
    counts = np.unique(tokens, return_counts=True)[1]
    return bits(float(-(counts * np.log(counts / max(1, counts.sum()))).sum()))
