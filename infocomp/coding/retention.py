"""Which information a code spends its bits on: bits per byte and per token of numbers, names, quotations, rare words, …

The bits of a token are shared among its bytes in equal parts, the bytes are summed by kind (`infocomp.coding.kinds`),
and a classical coder's bits (`infocomp.coding.ppm`) are summed over the same bytes. Bits everywhere; the standard error
of each rate is that of a ratio of sums over documents (Cochran 1977, Sampling Techniques, section 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from infocomp.coding.kinds import Lexicon, Rules, kinds_of

ALL = "all"  # the kind of the row over all kinds


@dataclass(frozen=True)
class Retained:
    """What one kind costs: bits per byte of the scored text, bits per token (tokens counted by the share of their bytes
    that is of this kind), and the classical coder's bits per byte of the same bytes. Standard errors are by document,
    None for fewer than two of them.
    """

    kind: str
    n_documents: int
    n_bytes: int
    n_tokens: float
    bits_per_byte: float
    bits_per_token: float
    classical_bits_per_byte: float
    std_error: float | None
    std_error_per_token: float | None
    classical_std_error: float | None


def retention(
    texts: Sequence[str],
    token_spans: Sequence[Int[np.ndarray, "tokens 2"]],
    token_bits: Sequence[Float[np.ndarray, "tokens"]],
    byte_bits: Sequence[Float[np.ndarray, "bytes"]],
    rules: Rules | None = None,
    lexicon: Lexicon | None = None,
) -> list[Retained]:
    """The cost of each kind that occurs, `ALL` first, over documents: for each its text, the bytes (start, end) of each
    scored token in the text's UTF-8, the tokens' bits, and the classical coder's bits of every byte.

    Only bytes of scored tokens count, for both coders. A token of no bytes (a later piece of one character) adds its
    bits to the byte before it. Raises ValueError where lengths differ, spans overlap or leave the text, or bits are not
    finite; one string in place of a list of documents is a TypeError.
    """
    rules = rules or Rules()
    sums = _sums(texts, token_spans, token_bits, byte_bits, rules, lexicon)
    of_kind = [sums.sum(axis=1), *sums.swapaxes(0, 1)]
    named = zip((ALL, *rules.kinds), of_kind, strict=True)
    return [_retained(kind, documents) for kind, documents in named if documents[:, 0].any()]


def by_document(
    texts: Sequence[str],
    token_spans: Sequence[Int[np.ndarray, "tokens 2"]],
    token_bits: Sequence[Float[np.ndarray, "tokens"]],
    byte_bits: Sequence[Float[np.ndarray, "bytes"]],
    rules: Rules | None = None,
    lexicon: Lexicon | None = None,
) -> list[list[Retained]]:
    """`retention` of each document by itself, with names and word frequencies of all of them."""
    lexicon = lexicon or Lexicon(texts)
    documents = zip(texts, token_spans, token_bits, byte_bits, strict=True)
    return [retention([a], [b], [c], [d], rules, lexicon) for a, b, c, d in documents]


def _sums(
    texts: Sequence[str],
    token_spans: Sequence[np.ndarray],
    token_bits: Sequence[np.ndarray],
    byte_bits: Sequence[np.ndarray],
    rules: Rules,
    lexicon: Lexicon | None,
) -> Float[np.ndarray, "documents kinds 4"]:
    """Bytes, tokens, bits and classical bits of each kind in each document."""
    if isinstance(texts, str):
        raise TypeError("texts is one string: documents are given as a list; write [text] for a single one.")
    numbers = [len(texts), len(token_spans), len(token_bits), len(byte_bits)]
    if len(set(numbers)) > 1:
        raise ValueError(
            f"texts, token_spans, token_bits and byte_bits have {numbers} documents: one entry per document is needed."
        )
    lexicon = lexicon or Lexicon(texts)
    number_of = {kind: place for place, kind in enumerate(rules.kinds)}
    sums = np.zeros((len(texts), len(number_of), 4))
    documents = zip(texts, token_spans, token_bits, byte_bits, strict=True)
    for document, (text, spans, bits, classical) in enumerate(documents):
        starts = _byte_starts(text)
        columns = _per_byte(document, int(starts[-1]), np.asarray(spans), np.asarray(bits), np.asarray(classical))
        found = kinds_of(text, rules, lexicon)
        sizes = [starts[end] - starts[start] for start, end, _ in found]
        kinds = np.repeat(np.array([number_of[kind] for _, _, kind in found], dtype=np.int64), sizes)
        for place, column in enumerate(columns):
            sums[document, :, place] = np.bincount(kinds, weights=column, minlength=len(number_of))
    return sums


def _byte_starts(text: str) -> Int[np.ndarray, "characters+1"]:
    """Where in the UTF-8 of the text each character begins, and its end; a lone surrogate takes three bytes."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.r_[0, np.cumsum(sizes)]


def _per_byte(
    document: int, n_bytes: int, spans: np.ndarray, bits: np.ndarray, classical: np.ndarray
) -> list[Float[np.ndarray, "bytes"]]:
    """For each byte: whether it was scored, its share of a token, its share of the bits, its classical bits."""
    spans = spans.reshape(-1, 2) if spans.size == 0 else spans
    if spans.ndim != 2 or spans.shape[1] != 2 or len(spans) != len(bits):
        raise ValueError(
            f"document {document}: token_spans has shape {spans.shape}, token_bits {bits.shape}: one (start, end) and "
            "one number of bits per token are needed."
        )
    if len(classical) != n_bytes:
        raise ValueError(
            f"document {document}: byte_bits has {len(classical)} entries, the text {n_bytes} bytes of UTF-8: one per "
            "byte is needed."
        )
    if not (np.isfinite(bits).all() and np.isfinite(classical).all()):
        raise ValueError(
            f"document {document}: a cost in bits is NaN or infinite; leave out the checkpoint or the text."
        )
    edges = spans.astype(np.int64).ravel()
    if (np.diff(edges) < 0).any() or (len(edges) and (edges[0] < 0 or edges[-1] > n_bytes)):
        raise ValueError(
            f"document {document}: token_spans must lie in order and within {n_bytes} bytes, each from where the last "
            "one ended or later; give offsets in bytes and not in characters."
        )
    scored, tokens, shares = np.zeros(n_bytes), np.zeros(n_bytes), np.zeros(n_bytes)
    starts, sizes = edges[::2], edges[1::2] - edges[::2]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.repeat(starts, sizes) + within
    scored[places] = 1
    tokens[places] = np.repeat(1 / np.maximum(sizes, 1), sizes)
    shares[places] = np.repeat(bits / np.maximum(sizes, 1), sizes)
    none = sizes == 0
    if none.any() and n_bytes:
        before = np.maximum(starts[none] - 1, 0)
        scored[before] = 1
        np.add.at(tokens, before, 1)
        np.add.at(shares, before, bits[none])
    return [scored, tokens, shares, classical * scored]


def _retained(kind: str, documents: Float[np.ndarray, "documents 4"]) -> Retained:
    """Ratios of sums over the documents in which the kind occurs."""
    n_bytes, tokens, bits, classical = documents[documents[:, 0] > 0].T
    return Retained(
        kind=kind,
        n_documents=len(n_bytes),
        n_bytes=int(n_bytes.sum()),
        n_tokens=float(tokens.sum()),
        bits_per_byte=float(bits.sum() / n_bytes.sum()),
        bits_per_token=float(bits.sum() / tokens.sum()),
        classical_bits_per_byte=float(classical.sum() / n_bytes.sum()),
        std_error=_ratio_error(bits, n_bytes),
        std_error_per_token=_ratio_error(bits, tokens),
        classical_std_error=_ratio_error(classical, n_bytes),
    )


def _ratio_error(above: Float[np.ndarray, "n"], below: Float[np.ndarray, "n"]) -> float | None:
    """√(n/(n − 1) Σ (y − R x)²) / Σ x with R = Σ y / Σ x, over documents; None for fewer than two."""
    n = len(below)
    if n < 2:
        return None
    residual = above - above.sum() / below.sum() * below
    return float(np.sqrt(n / (n - 1) * (residual**2).sum()) / below.sum())
