"""Pictures and sound as pieces of bytes, and bytes as the ASCII that a model of text reads; rates in bits per byte.

Source: Delétang et al. (2024), arXiv 2309.10668, section 3.1 and the code to it (data_loaders.py, utils.py): grey
patches of 32 × 64 pixels, 16 kHz sound reduced to 8 bits in pieces of 2048 samples (128 ms), both mapped to 7 bits.

The mapping loses a bit. The paper says that lost bits are appended to the output; its code instead scales the length by
8 / 7, which flatters: the lowest bits of pictures are noise, and 42 % of raw becomes 48.0 % in place of 54.5 %. Here
both are given beside a third rule, where the lost bits are really coded and decoded. In text the paper counts one bit
for each byte above 127 and none for the bytes below, so its own rule could not say which bytes lost theirs.
"""

import math
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import soundfile
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]
from jaxtyping import Float, Int, Int16, UInt8, UInt32
from PIL import Image

Kind = Literal["text", "bytes"]


def image_patches(
    image: str | PathLike | UInt8[np.ndarray, "rows columns *channels"], height: int = 32, width: int = 64
) -> UInt8[np.ndarray, "patches pixels"]:
    """Patches of a picture without overlap, left to right and then down, each flattened row by row.

    Grey pictures are taken as they are; colour becomes the mean of its channels, cut to an integer as in the source (a
    palette or transparency is first turned into red, green and blue). What is left over at the right and at the bottom
    is dropped. A picture smaller than one patch, and pixels that are not 8-bit, are a ValueError.
    """
    pixels = grey_pixels(image)
    down, across = pixels.shape[0] // height, pixels.shape[1] // width
    if not down or not across:
        raise ValueError(
            f"the picture has {pixels.shape[0]} × {pixels.shape[1]} pixels, less than one patch of {height} × {width}: "
            "give a larger picture or smaller patches."
        )
    grid = pixels[: down * height, : across * width].reshape(down, height, across, width)
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3)).reshape(down * across, height * width)


def grey_pixels(
    image: str | PathLike | UInt8[np.ndarray, "rows columns *channels"],
) -> UInt8[np.ndarray, "rows columns"]:
    """The picture's 8-bit grey pixels, by the rule of `image_patches`."""
    if isinstance(image, np.ndarray):
        pixels, kind = image, f"an array of {image.dtype} with {image.ndim} axes"
    else:
        with Image.open(image) as picture:
            kind = f"of Pillow's mode '{picture.mode}'"
            wide = picture.mode.startswith(("I", "F"))
            pixels = np.asarray(picture if wide or picture.mode in ("L", "RGB") else picture.convert("RGB"))
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(
            f"the picture is {kind}: 8-bit pixels of one or several channels are needed; convert it first."
        )
    return pixels if pixels.ndim == 2 else pixels.mean(axis=-1).astype(np.uint8)


def audio_samples(path: str | PathLike, rate: int = 16000) -> Int16[np.ndarray, "samples"]:
    """The 16-bit samples of a sound file of one channel. Another rate and several channels are a ValueError."""
    samples, found = soundfile.read(path, dtype="int16", always_2d=True)
    if found != rate or samples.shape[1] != 1:
        raise ValueError(
            f"{path} has {found:,} samples a second in {samples.shape[1]} channel(s): {rate:,} in one channel are "
            "needed, or rates of two sounds cannot be compared; resample it or mix it down first."
        )
    return samples[:, 0]


def audio_pieces(path: str | PathLike, piece: int = 2048, rate: int = 16000) -> UInt8[np.ndarray, "pieces samples"]:
    """Sound as unsigned 8-bit samples, in pieces one after the other; a shorter rest is dropped, as in the source.

    A sample is the upper byte of its 16 bits, plus 128 (`audioop.lin2lin` to one byte, then `bias`). A sound shorter
    than one piece is a ValueError, and so is what `audio_samples` refuses.
    """
    samples = audio_samples(path, rate)
    if len(samples) < piece:
        raise ValueError(f"{path} has {len(samples):,} samples, less than one piece of {piece:,}: give a longer sound.")
    coarse = ((samples >> 8) + 128).astype(np.uint8)
    return coarse[: len(coarse) // piece * piece].reshape(-1, piece)


@dataclass(frozen=True)
class Mapped:
    """Bytes as ASCII: one character for each byte, and what it lost.

    `lost` has one bit for each byte, eight to a byte, first bit highest: of "text" the highest bit, of "bytes" the
    lowest. `n_lost` is the paper's count: bytes above 127 of "text", all of "bytes".
    """

    text: str
    lost: bytes
    n_lost: int
    kind: Kind


def to_ascii(data: bytes, kind: Kind) -> Mapped:
    """Bytes to characters 0 to 127: kind "text" clears the highest bit, "bytes" shifts the lowest out.

    Any other kind is a ValueError.
    """
    values = np.frombuffer(data, np.uint8)
    if kind == "text":
        bits, characters = values >> 7, values & 127
    elif kind == "bytes":
        bits, characters = values & 1, values >> 1
    else:
        raise ValueError(f"kind is {kind!r}: 'text' loses the highest bit and 'bytes' the lowest; give one of the two.")
    n_lost = int(bits.sum()) if kind == "text" else len(values)
    return Mapped(characters.tobytes().decode("ascii"), np.packbits(bits).tobytes(), n_lost, kind)


def from_ascii(mapped: Mapped) -> bytes:
    """The bytes that `to_ascii` mapped. Text beyond ASCII, or lost bits that do not fit it, are a ValueError."""
    characters, bits = _characters(mapped.text), _unpacked(mapped)
    return (characters | bits << 7 if mapped.kind == "text" else characters << 1 | bits).tobytes()


def lost_bits_coded(mapped: Mapped) -> int:
    """Bits that a coder really needs for the lost bits beside the text: whole 32-bit words, decoded and compared.

    RuntimeError where they do not come back. About 1.5 µs a bit.
    """
    words = encode_lost_bits(mapped)
    if decode_lost_bits(words, mapped.text) != mapped.lost:
        raise RuntimeError(
            f"the {len(mapped.text):,} lost bits did not come back from their {len(words)} words: the size of a lossy "
            "code is no rate; report the file."
        )
    return 32 * len(words)


def encode_lost_bits(mapped: Mapped) -> UInt32[np.ndarray, "words"]:
    """Range code of the lost bits, each under its context: its own character and the lost bit before it.

    The probability of a one after n bits in the same context, `ones` of them set, is (ones + ½) / (n + 1). Source:
    Krichevsky & Trofimov (1981), "The performance of universal encoding"; at most ½ log2 n + 1 bits above the best
    constant for each context, so noise costs little more than a bit a bit.
    """
    bits = _unpacked(mapped).astype(np.int64)
    before = np.concatenate([np.zeros(1, np.int64), bits[:-1]])[: len(bits)]
    probabilities = _sequential(bits, 2 * _characters(mapped.text).astype(np.int64) + before)
    encoder = stream.queue.RangeEncoder()
    if len(bits):
        encoder.encode(bits.astype(np.int32), stream.model.Bernoulli(perfect=False), probabilities)
    return encoder.get_compressed()


def _sequential(bits: Int[np.ndarray, "n"], contexts: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Krichevsky and Trofimov's probability of a one before each bit, from the earlier bits of its context."""
    order = np.argsort(contexts, kind="stable")
    sorted_bits, sorted_contexts = bits[order], contexts[order]
    places = np.arange(len(bits))
    starts = np.concatenate([np.ones(1, bool), sorted_contexts[1:] != sorted_contexts[:-1]])[: len(bits)]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    ones_before = np.cumsum(sorted_bits) - sorted_bits
    probabilities = np.empty(len(bits))
    probabilities[order] = (ones_before - ones_before[first] + 0.5) / (places - first + 1)
    return probabilities


def decode_lost_bits(words: UInt32[np.ndarray, "words"], text: str) -> bytes:
    """The lost bits, packed, from their code and the text, which a decoder has before them."""
    decoder = stream.queue.RangeDecoder(words)
    bernoulli, decode = stream.model.Bernoulli, decoder.decode
    ones, seen = [0] * 256, [0] * 256
    bits, before = bytearray(len(text)), 0
    for place, character in enumerate(_characters(text).tolist()):
        context = 2 * character + before
        before = decode(bernoulli((ones[context] + 0.5) / (seen[context] + 1), perfect=False))
        ones[context] += before
        seen[context] += 1
        bits[place] = before
    return np.packbits(np.frombuffer(bits, np.uint8)).tobytes()


@dataclass(frozen=True)
class MappedRate:
    """Bits per original byte under one rule for the lost bits, and the rule in words."""

    bits_per_byte: float
    rule: str


def mapped_rates(text_bits: float, mapped: Mapped) -> dict[str, MappedRate]:
    """Rates per original byte where coding `mapped.text` takes `text_bits` bits, under three rules for the lost bits.

    "appended" is the paper's text, "scaled" the paper's code (compress.py), "coded" can be decoded. The length is not
    counted in any. No bytes at all, and text_bits below zero or not finite, are a ValueError.
    """
    n_bytes, lost = len(mapped.text), mapped.n_lost
    if not n_bytes or not (math.isfinite(text_bits) and text_bits >= 0):
        raise ValueError(
            f"text_bits is {text_bits} for {n_bytes} bytes: a rate needs at least one byte and a finite number of bits "
            "from 0 on; give the code length of mapped.text in bits."
        )
    which = "each byte above 127, without its place" if mapped.kind == "text" else "each byte"
    rules = {
        "appended": f"as the paper's text: one bit appended for {which}",
        "scaled": f"as the paper's code: code length × all bits / bits kept, one lost for {which}",
        "coded": "every lost bit coded by an adaptive model beside the text, and decoded",
    }
    bits = {
        "appended": text_bits + lost,
        "scaled": text_bits * 8 * n_bytes / (8 * n_bytes - lost),
        "coded": text_bits + lost_bits_coded(mapped),
    }
    return {name: MappedRate(bits[name] / n_bytes, rule) for name, rule in rules.items()}


def _characters(text: str) -> UInt8[np.ndarray, "n"]:
    """The characters' numbers. ValueError where one is above 127."""
    if not text.isascii():
        raise ValueError("text has a character beyond ASCII: mapped text is made of characters 0 to 127; map it anew.")
    return np.frombuffer(text.encode("ascii"), np.uint8)


def _unpacked(mapped: Mapped) -> UInt8[np.ndarray, "n"]:
    """The lost bits, one to an element. ValueError where they are not as many as the text has characters."""
    n = len(mapped.text)
    if len(mapped.lost) != -(-n // 8):
        raise ValueError(f"lost has {len(mapped.lost)} bytes: {n} characters have {-(-n // 8)} bytes of lost bits.")
    return np.unpackbits(np.frombuffer(mapped.lost, np.uint8), count=n)
