"""Any bytes as tokens that a tokenizer gives back exactly, and the few bytes in between that it would not.

Tokenizers lose bytes: GPT-NeoX's applies Unicode's NFC, others strip spaces, lower case, or know no byte that is not
UTF-8. What does not come back is found here and travels by the escape path: the bytes themselves, beside the place in
the token sequence where they belong. Text that the tokenizer gives back whole has no escape, and none of its cost.
Special tokens have no place in a text: "<|endoftext|>" written out is coded as the characters that it is.

Escapes are one section of the file: their places and lengths as variable-length integers, then their bytes, as they
are or through xz or PPMd, whichever is shorter; a section without escapes has no byte at all.
"""

import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from infocomp.coding.classical import CODERS

SHORTEST_TEXT = 16  # characters of text between two escapes, below which naming its place costs what it saves
MOSTLY = 0.5  # share of bytes that no tokenizer gives back, above which the rest is no text worth a model either
NOT_TEXT = re.compile("[\udc80-\udcff]+")  # bytes that are no UTF-8, as `surrogateescape` hands them over
WORDS = re.compile(r"\s*\S{1,64}|\s+")  # a longer word is taken for several
SHORTEST_CODED = 64  # bytes of escapes, below which a coder only adds to them
_PPMD = CODERS["PPMd order 6"]  # 16 MiB of memory: more is slow to get, and escapes are few
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


@dataclass(frozen=True)
class Pieces:
    """Tokens of all texts one after the other; `texts` says how many belong to each text, between two of which lies an
    escape: there is always one text more than escapes, and a text may be empty."""

    tokens: Int[np.ndarray, "tokens"]
    texts: tuple[int, ...]
    escapes: tuple[bytes, ...]

    @property
    def escaped(self) -> int:
        """Bytes of the input that travel by the escape path."""
        return sum(map(len, self.escapes))


class ExactTokenizer:
    """A tokenizer without special tokens, padding or truncation, and the bytes that its tokens stand for."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(backend, Tokenizer):
            raise ValueError(
                f"{type(tokenizer).__name__} is no fast tokenizer, and only these say what their tokens stand for; "
                "load it with use_fast=True or convert it to the tokenizers format."
            )
        self.plain: Any = Tokenizer.from_str(backend.to_str())
        self.plain.no_padding()
        self.plain.no_truncation()
        self.plain.post_processor = None
        self.plain.encode_special_tokens = True
        self._bytes = _bytes_of_each(self.plain) if _is_byte_level(self.plain) else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [encoded.ids for encoded in self.plain.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that these tokens, read as one text, stand for."""
        if self._bytes is not None:
            return b"".join(self._bytes.get(token, b"") for token in ids)
        return self.plain.decode(list(ids), skip_special_tokens=False).encode("utf-8", "replace")

    def gives_back(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is what its tokens stand for."""
        return [self.decode(ids) == text.encode() for ids, text in zip(self.encode(texts), texts, strict=True)]


def _is_byte_level(plain: Any) -> bool:
    """Whether tokens are strings of bytes, whatever surrounds them."""
    return type(plain.decoder).__name__ == "ByteLevel"


def _bytes_of_each(plain: Any) -> dict[int, bytes]:
    """The bytes of every token of a byte-level vocabulary; added tokens are what is written in them."""
    byte_of = {character: byte for byte, character in _byte_characters().items()}
    added = plain.get_added_tokens_decoder()
    table = {}
    for string, token in plain.get_vocab(with_added_tokens=True).items():
        if token in added:
            table[token] = added[token].content.encode()
        elif all(character in byte_of for character in string):
            table[token] = bytes(byte_of[character] for character in string)
    return table


@lru_cache(1)
def _byte_characters() -> dict[int, str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it can be printed, else the next
    free one from U+0100 on (Radford et al. 2019, GPT-2)."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def split_bytes(data: bytes, tokenizer: ExactTokenizer) -> Pieces:
    """Tokens and escapes whose bytes, joined, are `data`; data that is hardly text is one escape."""
    text = data.decode("utf-8", "surrogateescape")
    whole = Pieces(np.zeros(0, np.int32), (0, 0), (data,))
    if sum(map(len, NOT_TEXT.findall(text))) > MOSTLY * len(data):
        return whole
    tokens: list[np.ndarray] = []
    texts, escapes = [0], []
    for piece in _merged(_exact(text, tokenizer)):
        if isinstance(piece, bytes):
            escapes.append(piece)
            texts.append(0)
        else:
            ids = tokenizer.encode([piece])[0]
            tokens.append(np.array(ids, dtype=np.int32))
            texts[-1] += len(ids)
    pieces = Pieces(np.concatenate([np.zeros(0, np.int32), *tokens]), tuple(texts), tuple(escapes))
    if pieces.escaped > MOSTLY * len(data) or join_pieces(pieces, tokenizer) != data:
        return whole
    return pieces


def join_pieces(pieces: Pieces, tokenizer: ExactTokenizer) -> bytes:
    """The bytes that tokens and escapes stand for."""
    parts, begin = [], 0
    for place, count in enumerate(pieces.texts):
        parts.append(tokenizer.decode(pieces.tokens[begin : begin + count].tolist()))
        if place < len(pieces.escapes):
            parts.append(pieces.escapes[place])
        begin += count
    return b"".join(parts)


def _exact(text: str, tokenizer: ExactTokenizer) -> Iterator[str | bytes]:
    """Texts that the tokenizer gives back, and bytes, in turn; some texts may be very short."""
    end = 0
    for wrong in NOT_TEXT.finditer(text):
        between = text[end : wrong.start()]
        if end and len(between) < SHORTEST_TEXT:
            yield between.encode()
        else:
            yield from _exact_text(between, tokenizer)
        yield wrong.group().encode("utf-8", "surrogateescape")
        end = wrong.end()
    yield from _exact_text(text[end:], tokenizer)


def _exact_text(text: str, tokenizer: ExactTokenizer) -> Iterator[str | bytes]:
    """A text whole where it comes back whole; else without the characters of those words that do not."""
    if not text:
        return
    if tokenizer.gives_back([text])[0]:
        yield text
        return
    words = WORDS.findall(text)
    different = sorted(set(words))
    exact = dict(zip(different, tokenizer.gives_back(different), strict=True))
    inside = lru_cache(None)(lambda word: (word,) if exact[word] else tuple(_exact_word(word, tokenizer)))
    run: list[str] = []
    for piece in (piece for word in words for piece in inside(word)):
        if isinstance(piece, str):
            run.append(piece)
            continue
        yield from _exact_run(run, tokenizer)
        run = []
        yield piece
    yield from _exact_run(run, tokenizer)


def _exact_run(words: Sequence[str], tokenizer: ExactTokenizer) -> list[str | bytes]:
    """Words each of which comes back, as one text; where they do not come back together, an escape between two of them.

    By halves, so that a seam that is lost is found in as many steps as there are halvings.
    """
    if len(words) < 2 or tokenizer.gives_back(["".join(words)])[0]:
        return ["".join(words)] if words else []
    half = len(words) // 2
    left, right = _exact_run(words[:half], tokenizer), _exact_run(words[half:], tokenizer)
    before, after = left[-1], right[0]
    if isinstance(before, bytes) or isinstance(after, bytes):
        return [*left, *right]
    if tokenizer.gives_back([before + after])[0]:
        return [*left[:-1], before + after, *right[1:]]
    return [*left, after[0].encode(), *_exact_word(after[1:], tokenizer), *right[1:]]


def _exact_word(word: str, tokenizer: ExactTokenizer) -> Iterator[str | bytes]:
    """One word: the longest beginning that comes back, an escaped character, and so on with the rest."""
    while word:
        if tokenizer.gives_back([word])[0]:
            yield word
            return
        good = _common(word, tokenizer.decode(tokenizer.encode([word])[0]))
        while good and not tokenizer.gives_back([word[:good]])[0]:
            good -= 1
        if good:
            yield word[:good]
        yield word[good].encode()
        word = word[good + 1 :]


def _common(text: str, decoded: bytes) -> int:
    """Characters that a text and what came back have in common from the beginning."""
    back = decoded.decode("utf-8", "replace")
    return next((i for i, (one, other) in enumerate(zip(text, back, strict=False)) if one != other), len(text) - 1)


def _merged(pieces: Iterator[str | bytes]) -> Iterator[str | bytes]:
    """Escapes one after the other as one, with any short text between them."""
    escape, texts = bytearray(), [""]
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        text = "".join(texts)
        if len(text) < SHORTEST_TEXT:
            escape += text.encode()
        else:
            if escape:
                yield bytes(escape)
            yield text
            escape = bytearray()
        escape += piece
        texts = []
    if escape:
        yield bytes(escape)
    if text := "".join(texts):
        yield text


def pack_escapes(pieces: Pieces) -> bytes:
    """The escapes and their places as one section of a file; no byte where there is none."""
    if not pieces.escapes:
        return b""
    body = b"".join(pieces.escapes)
    places = bytearray(_varint(len(pieces.escapes)))
    for gap, escape in zip(pieces.texts, pieces.escapes, strict=False):
        places += _varint(gap) + _varint(len(escape))
    plain = bytes(places) + body
    coded = {0: plain}
    if len(plain) >= SHORTEST_CODED:
        coded[1] = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=_FILTERS)
        coded[2] = _varint(len(plain)) + _PPMD.encode(plain)
    method = min(coded, key=lambda name: len(coded[name]))
    if _unpacked(method, coded[method]) != plain:  # see the note on pyppmd in `classical`
        method = 0
    return bytes([method]) + coded[method]


def unpack_escapes(section: bytes, tokens: int) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """`texts` and `escapes` of `Pieces` from their section and the number of tokens. ValueError: no such section."""
    if not section:
        return (tokens,), ()
    try:
        plain = _unpacked(section[0], section[1:])
        count, at = _read_varint(plain, 0)
        gaps, lengths = [], []
        for _ in range(count):
            gap, at = _read_varint(plain, at)
            length, at = _read_varint(plain, at)
            gaps.append(gap)
            lengths.append(length)
    except (IndexError, KeyError, lzma.LZMAError, ValueError) as error:
        raise ValueError(f"the section of escapes cannot be read ({error}); the file is damaged.") from error
    ends = at + np.cumsum([0, *lengths])
    escapes = tuple(plain[begin:end] for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    if ends[-1] != len(plain) or sum(gaps) > tokens:
        raise ValueError("the section of escapes does not fit the tokens beside it; the file is damaged.")
    return (*gaps, tokens - sum(gaps)), escapes


def _unpacked(method: int, body: bytes) -> bytes:
    if method == 0:
        return body
    if method == 1:
        return lzma.decompress(body, format=lzma.FORMAT_RAW, filters=_FILTERS)
    if method == 2:
        length, at = _read_varint(body, 0)
        return _PPMD.decode(body[at:], length)
    raise ValueError(f"method {method} is none of 0, 1, 2")


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the eighth bit set where more follow (LEB128)."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
