"""How short classical lossless coders make a text: the rates beside a language model's, in bits per byte.

Each coder at its strongest setting, on exactly the bytes that are given and in one stream. Every coded text is decoded
and compared before its size is believed. pyppmd's encoders, given everything in one call, write a wrong byte now and
then where their output passes a block of 32 KiB (pyppmd 1.3.1: 5 of 240 slices of a Bible and 34 of 240 of noise did
not come back), so they are fed 8 KiB a call: the same sizes, and no loss in 12,000 trials.

"PPMd" is the strongest of the four settings on a large text: variant I, order 10, 256 MiB. Variant H, which 7-Zip calls
PPMd, is 0.2 to 0.4 % longer. Order 6 with 16 MiB is up to 4 % longer, and 0.3 % shorter on two of the five texts tried.

"PNG" and "FLAC" take bytes as grey pixels and as 8-bit samples; the shapes that they are given are told at `png` and
`flac`. They are meant for pictures and sound; on text they are the curiosities of Delétang et al. (2024), Table 1.
"""

import bz2
import gzip
import io
import json
import lzma
import math
import platform
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version

import brotli
import numpy as np
import pyppmd
import soundfile
import zstandard
from PIL import Image, PngImagePlugin

_PIECE = 8192  # bytes a call to pyppmd's encoders: its output then never grows past one block
STANDARD_CODERS = ("gzip -9", "xz -9e", "PPMd")
STRONGEST_CODERS = ("gzip -9", "bzip2 -9", "xz -9e", "brotli -11", "zstd -22", "PPMd")  # of those for any bytes
PATCH_WIDTH, PATCH_BYTES = 64, 2048  # a patch of Delétang et al. is 32 rows of 64 pixels


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

    The length of the text, which the decoders of PPMd, PNG and FLAC are told, is not counted (at most 4 bytes below
    4 GiB). Empty data and an unknown coder are a ValueError; a coder that does not give the data back is a
    RuntimeError.
    """
    return [coded_size(name, coder_named(name), data) for name in coders]


def coded_size(name: str, coder: Coder, data: bytes) -> CodedSize:
    """Size and bits per byte of `data` under one coder, as `classical_rates`; for `png(width)`, which has no name."""
    code = checked_code(name, coder, data)
    return CodedSize(name, len(code), 8 * len(code) / len(data), settings_text(coder.settings))


def coder_named(name: str) -> Coder:
    """The coder of that name; ValueError with the known names where there is none."""
    if name not in CODERS:
        raise ValueError(f"no classical coder named '{name}'; known are {', '.join(repr(known) for known in CODERS)}.")
    return CODERS[name]


def checked_code(name: str, coder: Coder, data: bytes) -> bytes:
    """The code of `data`, decoded and compared. Empty data is a ValueError, a lossy coder a RuntimeError."""
    if not data:
        raise ValueError("data has 0 bytes: a rate in bits per byte needs at least one; give the text that was scored.")
    code = coder.encode(data)
    if not _gives_back(coder, code, data):
        raise RuntimeError(
            f"'{name}' did not give back the {len(data):,} bytes that it coded into {len(code):,}: the size of a "
            f"lossy code is no rate; leave this coder out and report the text."
        )
    return code


def settings_text(settings: dict[str, str | int]) -> str:
    """Settings as canonical JSON: one text for equal settings."""
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


_DECODER_ERRORS = (ValueError, OSError, EOFError, SyntaxError, zlib.error, lzma.LZMAError, pyppmd.PpmdError)
_DECODER_ERRORS += (brotli.error, zstandard.ZstdError, soundfile.SoundFileError)


def _gives_back(coder: Coder, coded: bytes, data: bytes) -> bool:
    """Whether the coder decodes its own code to the data; a decoder that gives up counts as no."""
    try:
        return coder.decode(coded, len(data)) == data
    except _DECODER_ERRORS:
        return False


def png(width: int | None = None) -> Coder:
    """PNG of the bytes as an 8-bit grey picture, `width` pixels wide, its last row filled up with zeros.

    `width` is the picture's own where the bytes are one whole picture: any other loses the rows that PNG predicts from.
    None serves bytes of any length: up to 2048 of them are 64 wide, so that a piece of 2048 is the patch of 32 × 64
    pixels that it was cut as; longer ones are as near to square as a full row allows, after Delétang et al. (2024),
    png.py. There a patch becomes 64 rows of 32: on camera.png in patches that takes 59.1 % in place of 53.2 %.
    """
    if width is not None and width < 1:
        raise ValueError(f"width is {width}: a picture is at least 1 pixel wide; give the picture's own width.")

    def shape(length: int) -> tuple[int, int]:
        wanted = width or (PATCH_WIDTH if length <= PATCH_BYTES else math.isqrt(length - 1) + 1)
        columns = min(wanted, length)  # one byte is one pixel: the header that is subtracted from chunks
        return columns, -(-length // columns)

    def encode(data: bytes) -> bytes:
        columns, rows = shape(len(data))
        buffer = io.BytesIO()
        Image.frombytes("L", (columns, rows), data.ljust(columns * rows, b"\0")).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def decode(coded: bytes, length: int) -> bytes:
        with PngImagePlugin.PngImageFile(io.BytesIO(coded)) as picture:  # unlike Image.open, of any number of pixels
            return picture.tobytes()[:length]

    rule = f"{width} wide" if width else "64 wide to 2048 bytes, then square"
    library = f"Pillow {version('pillow')}, zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return Coder(encode, decode, {"shape": rule, "optimize": 1, "library": library})


def flac(bits: int) -> Coder:
    """FLAC of the bytes as samples of one channel at 16 kHz, at the format's highest level (libsndfile's 1.0 is 8).

    `bits` 8: a byte is an unsigned sample, 128 is silence, stored as PCM_S8 (as in `modalities.audio_pieces`).
    `bits` 16: two bytes, low one first, are a signed sample, as in a wav file; an odd last byte is filled up with zero.
    """
    if bits not in (8, 16):
        raise ValueError(f"bits is {bits}: samples of 8 or of 16 bits are coded; give one of the two.")

    def encode(data: bytes) -> bytes:
        if bits == 8:  # libsndfile takes 8-bit samples in the upper half of 16 bits
            samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8
        else:
            samples = np.frombuffer(data + b"\0" * (len(data) % 2), "<i2")
        buffer, subtype = io.BytesIO(), "PCM_S8" if bits == 8 else "PCM_16"
        soundfile.write(buffer, samples, 16000, format="FLAC", subtype=subtype, compression_level=1.0)
        return buffer.getvalue()

    def decode(coded: bytes, length: int) -> bytes:
        samples = np.asarray(soundfile.read(io.BytesIO(coded), dtype="int16")[0], dtype=np.int16)
        raw = (np.right_shift(samples, 8) + 128).astype(np.uint8) if bits == 8 else samples.astype("<i2")
        return raw.tobytes()[:length]

    library = f"libsndfile {soundfile.__libsndfile_version__}, soundfile {version('soundfile')}"
    return Coder(encode, decode, {"bits": bits, "rate": 16000, "level": "1.0", "library": library})


def _xz(data: bytes) -> bytes:
    """xz -9e with a dictionary no larger than the text needs: as long as with 64 MiB, and 30 times faster on 2 kB.

    The 64 MiB are wiped for every text; on 150 pieces of 1 byte to 70 kB the sizes were equal to the byte.
    """
    dictionary = min(64 << 20, max(4096, 1 << (len(data) - 1).bit_length()))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters)


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


_PYTHON = f"Python {platform.python_version()}"  # whose bz2 and lzma do not tell which release of the library they hold
_ZSTD_VERSION = ".".join(str(part) for part in zstandard.ZSTD_VERSION)
CODERS: dict[str, Coder] = {
    "gzip -9": Coder(
        lambda data: gzip.compress(data, compresslevel=9, mtime=0),  # without a time, equal bytes give equal codes
        lambda coded, length: gzip.decompress(coded),
        {"level": 9, "mtime": 0, "library": f"zlib {zlib.ZLIB_RUNTIME_VERSION}"},
    ),
    "xz -9e": Coder(
        _xz,
        lambda coded, length: lzma.decompress(coded, format=lzma.FORMAT_XZ),
        {"preset": "9e", "format": "xz", "dictionary": "64 MiB or the text", "library": f"lzma of {_PYTHON}"},
    ),
    "PPMd": _ppmd("I", 10, 256 << 20),
    "bzip2 -9": Coder(
        lambda data: bz2.compress(data, compresslevel=9),
        lambda coded, length: bz2.decompress(coded),
        {"level": 9, "library": f"bz2 of {_PYTHON}"},
    ),
    "brotli -11": Coder(
        lambda data: brotli.compress(data, quality=11, lgwin=24),  # lgwin 24 is the widest of the standard format
        lambda coded, length: brotli.decompress(coded),
        {"quality": 11, "lgwin": 24, "library": f"brotli {version('brotli')}"},
    ),
    "zstd -22": Coder(
        lambda data: zstandard.ZstdCompressor(level=22).compress(data),
        lambda coded, length: zstandard.ZstdDecompressor().decompress(coded),
        {"level": 22, "library": f"zstd {_ZSTD_VERSION}, zstandard {version('zstandard')}"},
    ),
    "PNG": png(),
    "FLAC": flac(8),
    "FLAC 16-bit": flac(16),
    "PPMd order 6": _ppmd("I", 6, 16 << 20),
    "PPMd H": _ppmd("H", 10, 256 << 20),
    "PPMd H order 6": _ppmd("H", 6, 16 << 20),
}
