"""Rows of the coding study, in bits: rates with their error over documents, the position curve, classical coders.

A rate is a ratio, Σ bits / Σ tokens or bytes. Its standard error is over documents, by the influence of each on the
ratio, and is left empty below 8 documents. Beside every rate stands its null: the same tokens under their own
frequencies, the code that knows no context.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from infocomp.coding.classical import CodedSize
from infocomp.coding.modalities import mapped_rates
from infocomp.corpora.windows import document_of
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.studies.coding_texts import CodedText, WindowRule, positions
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import ComputeSettings
from infocomp.units import bits

Row = dict[str, Any]
UNITS = {"bits_per_token": "bits/token", "bits_per_byte": "bits/byte"}


def shared_columns(text: CodedText, rule: WindowRule, compute: ComputeSettings, about: Mapping[str, Any]) -> Row:
    """The columns that every row of one checkpoint on one text under one rule of windows has alike."""
    prepared = text.under(rule)
    settings = {
        "rule": rule.words(text.rate.bos),
        "context_length": rule.context_length,
        "stride": rule.stride or rule.context_length - (text.rate.bos != "none"),
        "bos": text.rate.bos,
        "tokenizer": prepared.tokenizer,
    }
    return {
        "corpus": text.name,
        "n_documents": prepared.corpus.n_documents,
        "dtype": compute.dtype,
        "attention": compute.attention,
        "bos": text.rate.bos,
        "packing": text.rate.packing,
        "in_training": text.settings.trained_on,
        "context_length": rule.context_length,
        "settings": settings,
        "draw": "mean",
        **about,
    }


def ratio_columns(
    amounts: Float[np.ndarray, "n"], sizes: Float[np.ndarray, "n"], owner: Int[np.ndarray, "n"]
) -> dict[str, float]:
    """Σ amounts / Σ sizes with its standard error and 95 % interval over the documents in `owner`.

    Document d moves the ratio r by (amounts_d − r · sizes_d) / Σ sizes, the linear term of the delta method.
    """
    value = float(amounts.sum() / sizes.sum())
    names, place = np.unique(owner, return_inverse=True)
    columns = {"value": value}
    if len(names) < FEWEST_DOCUMENTS:
        return columns
    influence = np.bincount(place, weights=amounts - value * sizes) / sizes.sum()
    error = standard_error(influence)
    width = quantile(len(names)) * error
    return columns | {"std_error": error, "ci_low": value - width, "ci_high": value + width}


def rate_rows(nats: Float[np.ndarray, "scored"], prepared: PreparedCorpus, shared: Row, label: str = "") -> list[Row]:
    """Bits per token and per byte of the scored tokens, each with its null."""
    scored = prepared.windows.scored_tokens
    owner = document_of(prepared.corpus, scored)
    sizes = {"bits_per_token": np.ones(len(scored)), "bits_per_byte": prepared.corpus.byte_counts[scored].astype(float)}
    common = {**shared, "site": "logits", "estimator": "code_length", "label": label, "n_tokens": len(scored)}
    common |= {"settings": shared["settings"] | {"bytes": prepared.scored_bytes}}
    return [
        {
            **common,
            "quantity": quantity,
            "unit": UNITS[quantity],
            "null": bits(prepared.unigram_nats) / float(size.sum()),
            **ratio_columns(nats * bits(1.0), size, owner),
        }
        for quantity, size in sizes.items()
    ]


def document_rows(nats: Float[np.ndarray, "scored"], prepared: PreparedCorpus, shared: Row) -> list[Row]:
    """Code length of each document, bits, for OUT/documents.parquet."""
    owner = {name: shared[name] for name in ("model", "revision", "corpus")}
    return [
        {**owner, "document": name, "n_tokens": count, "n_bytes": size, "bits": bits(length)}
        for name, count, size, length in prepared.document_rates(nats)
    ]


def octaves(longest: int, bins_per_octave: int) -> Int[np.ndarray, "bins+1"]:
    """Edges 0, 1, 2, 4, … of bins over places 0 … longest − 1, evenly spaced in the logarithm."""
    steps = np.arange(int(np.ceil(np.log2(longest) * bins_per_octave)) + 1)
    edges = np.unique(np.r_[0, np.round(2.0 ** (steps / bins_per_octave)).astype(np.int64)])
    return np.r_[edges[edges < longest], longest]


def position_rows(
    nats: Float[np.ndarray, "scored"], prepared: PreparedCorpus, shared: Row, bins_per_octave: int
) -> list[Row]:
    """Bits per token against the place in the window: what a longer context is worth.

    Late places exist in long documents only, so each bin has its own null, over its own tokens, and says how many
    documents reach it.
    """
    scored = prepared.windows.scored_tokens
    tokens, place = prepared.corpus.tokens[scored], positions(prepared)
    owner = document_of(prepared.corpus, scored)
    surprise = -np.log(np.bincount(tokens)[tokens] / len(tokens))
    edges = octaves(int(place.max()) + 1, bins_per_octave)
    rows = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = (place >= begin) & (place < end)
        count = int(inside.sum())
        if not count:
            continue
        about = {"position_from": begin, "position_to": end - 1, "position": "tokens of the window before it, no BOS"}
        rows.append(
            {
                **shared,
                "settings": shared["settings"] | about,
                "site": "logits",
                "estimator": "code_length",
                "quantity": "bits_per_token",
                "label": f"position {begin}-{end - 1}",
                "unit": UNITS["bits_per_token"],
                "null": bits(float(surprise[inside].mean())),
                "n_tokens": count,
                "n_documents": len(np.unique(owner[inside])),
                **ratio_columns(nats[inside] * bits(1.0), np.ones(count), owner[inside]),
            }
        )
    return rows


def classical_row(size: CodedSize, text: CodedText, label: str = "") -> Row:
    """One classical coder on the bytes of one text or of its beginning; the settings say how many these were."""
    n_bytes = round(8 * size.bytes / size.bits_per_byte)
    return {
        "model": size.coder,
        "corpus": text.name,
        "quantity": "bits_per_byte",
        "label": label,
        "estimator": "classical",
        "draw": "mean",
        "value": size.bits_per_byte,
        "unit": UNITS["bits_per_byte"],
        "settings": {**json.loads(size.settings), "coded_bytes": size.bytes, "bytes": n_bytes},
        "n_documents": text.prepared.corpus.n_documents,
        "in_training": text.settings.trained_on,
    }


def mapped_rows(nats: Float[np.ndarray, "scored"], text: CodedText, shared: Row) -> list[Row]:
    """Bits per original byte of a picture or sound under each rule for the bits that the mapping to ASCII loses."""
    assert text.mapped is not None
    nulls = mapped_rates(bits(text.prepared.unigram_nats), text.mapped)
    return [
        {
            **shared,
            "settings": shared["settings"] | {"mapping": found.rule, "bytes": len(text.data)},
            "site": "logits",
            "estimator": "code_length",
            "quantity": "bits_per_byte",
            "label": f"mapping {rule}",
            "unit": UNITS["bits_per_byte"],
            "value": found.bits_per_byte,
            "null": nulls[rule].bits_per_byte,
            "n_tokens": len(nats),
        }
        for rule, found in mapped_rates(bits(float(nats.sum())), text.mapped).items()
    ]
