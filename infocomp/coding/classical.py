"""How short classical lossless coders make a text: the rates beside a language model's, in bits per byte.

gzip -9, xz -9e and PPMd from the Python packages, on exactly the bytes that are given and in one stream. Every coded
text is decoded and compared before its size is believed. pyppmd's encoders, given everything in one call, write a wrong
byte now and then where their output passes a block of 32 KiB (pyppmd 1.3.1: 5 of 240 slices of a Bible and 34 of 240 of
noise did not come back), so they are fed 8 KiB a call: the same sizes, and no loss in 12,000 trials.

"PPMd" is the strongest of the four settings on a large text: variant I, order 10, 256 MiB. Variant H, which 7-Zip calls
PPMd, is 0.2 to 0.4 % longer. Order 6 with 16 MiB is up to 4 % longer, and 0.3 % shorter on two of the five texts tried.
"""

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version

import pyppmd

_PIECE = 8192  # bytes a call to pyppmd's encoders: its output then never grows past one block
STANDARD_CODERS = ("gzip -9", "xz -9e", "PPMd")


@dataclass(frozen=True)
class CodedSize:
    """One coder on one text: size in bytes, rate in bits per byte of the text, settings as canonical JSON."""

    coder: str
    bytes: int
    bits_per_byte: float
    settings: str


@dataclass(frozen=True)
class Coder:
    """A lossless coder: `encode(data)` and `decode(coded, length)`, with what fixes its output."""

    encode: Callable[[bytes], bytes]
    decode: Callable[[bytes, int], bytes]
    settings: dict[str, str | int]


def classical_rates(data: bytes, coders: Iterable[str] = STANDARD_CODERS) -> list[CodedSize]:
    """Size and bits per byte of `data` under each coder, in the order asked for.

    The length of the text, which PPMd's decoder is told, is not counted (at most 4 bytes below 4 GiB).
    Empty data and an unknown coder are a ValueError; a coder that does not give the data back is a RuntimeError.
    """
    if not data:
        raise ValueError("data has 0 bytes: a rate in bits per byte needs at least one; give the text that was scored.")
    rates = []
    for name in coders:
        if name not in CODERS:
            raise ValueError(
                f"no classical coder named '{name}'; known are {', '.join(repr(known) for known in CODERS)}."
            )
        coder = CODERS[name]
        coded = coder.encode(data)
        if not _gives_back(coder, coded, data):
            raise RuntimeError(
                f"'{name}' did not give back the {len(data):,} bytes that it coded into {len(coded):,}: the size of a "
                f"lossy code is no rate; leave this coder out and report the text."
            )
        settings = json.dumps(coder.settings, sort_keys=True, separators=(",", ":"))
        rates.append(CodedSize(name, len(coded), 8 * len(coded) / len(data), settings))
    return rates


def _gives_back(coder: Coder, coded: bytes, data: bytes) -> bool:
    """Whether the coder decodes its own code to the data; a decoder that gives up counts as no."""
    try:
        return coder.decode(coded, len(data)) == data
    except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError, pyppmd.PpmdError):
        return False


def _ppmd(variant: str, order: int, memory: int) -> Coder:
    """PPMd with the given model order and bytes of model memory, restarted when the memory is full.

    Source: Shkarin (2002), "PPM: one step to practicality"; variant H as in 7-Zip, variant I as in the author's ppmdi.
    """

    def encode(data: bytes) -> bytes:
        encoder = pyppmd.Ppmd7Encoder(order, memory) if variant == "H" else pyppmd.Ppmd8Encoder(order, memory)
        pieces = [encoder.encode(data[start : start + _PIECE]) for start in range(0, len(data), _PIECE)]
        return b"".join([*pieces, encoder.flush()])

    def decode(coded: bytes, length: int) -> bytes:
        decoder = pyppmd.Ppmd7Decoder(order, memory) if variant == "H" else pyppmd.Ppmd8Decoder(order, memory)
        return decoder.decode(coded, length)

    library = f"pyppmd {version('pyppmd')}"
    return Coder(encode, decode, {"variant": variant, "order": order, "memory": memory, "library": library})


CODERS: dict[str, Coder] = {
    "gzip -9": Coder(
        lambda data: gzip.compress(data, compresslevel=9, mtime=0),  # without a time, equal bytes give equal codes
        lambda coded, length: gzip.decompress(coded),
        {"level": 9, "mtime": 0, "library": f"zlib {zlib.ZLIB_RUNTIME_VERSION}"},
    ),
    "xz -9e": Coder(
        lambda data: lzma.compress(data, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME),
        lambda coded, length: lzma.decompress(coded, format=lzma.FORMAT_XZ),
        {"preset": "9e", "format": "xz"},
    ),
    "PPMd": _ppmd("I", 10, 256 << 20),
    "PPMd order 6": _ppmd("I", 6, 16 << 20),
    "PPMd H": _ppmd("H", 10, 256 << 20),
    "PPMd H order 6": _ppmd("H", 6, 16 << 20),
}
