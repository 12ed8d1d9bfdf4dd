"""A picture or sound cut into the pieces that a model of text reads: the same bytes for every coder, in bytes.

Patches of 32 × 64 grey pixels, pieces of 2048 8-bit samples (Delétang et al. 2024, arXiv 2309.10668, section 3.1). What
the cut leaves over, at the right, at the bottom or beyond `max_bytes`, is coded by nobody. In one stream a classical
coder takes the patches' pixels row by row, so that PNG has a picture to predict in: whole rows of patches are kept.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import UInt8

from infocomp.coding.classical import Coder, coder_named, png
from infocomp.coding.modalities import Mapped, audio_pieces, grey_pixels, image_patches, to_ascii
from infocomp.corpora.documents import Document
from infocomp.studies.coding_settings import CodedTextSettings

KINDS = {"image": "patches", "audio": "pieces"}
PATCH = (32, 64)  # rows, columns


@dataclass(frozen=True)
class Signal:
    """Pieces in the order in which a model reads them; `width` of the picture that its patches make, None for sound."""

    kind: str
    pieces: UInt8[np.ndarray, "pieces bytes"]
    width: int | None = None

    @cached_property
    def data(self) -> bytes:
        """The bytes, piece after piece."""
        return self.pieces.tobytes()

    @cached_property
    def in_one_stream(self) -> bytes:
        """The same bytes as a classical coder takes them whole: the pixels of all patches row by row, samples as is."""
        if self.width is None:
            return self.data
        height, width = PATCH
        grid = self.pieces.reshape(-1, self.width // width, height, width)
        return grid.transpose(0, 2, 1, 3).tobytes()

    @cached_property
    def mapped(self) -> Mapped:
        """The bytes as the ASCII that a model of text reads."""
        return to_ascii(self.data, "bytes")

    @property
    def fingerprint(self) -> str:
        """Hash of bytes and shape, 16 hex digits: the tokens do not tell of the bits that the mapping loses."""
        return blake2b(f"{self.width}\n".encode() + self.data, digest_size=8).hexdigest()

    def documents(self) -> list[Document]:
        """A document for each piece, of mapped characters."""
        text, size = self.mapped.text, self.pieces.shape[1]
        return [
            Document(f"{self.kind}:{number + 1}", text[number * size : (number + 1) * size])
            for number in range(len(self.pieces))
        ]

    def coder(self, name: str) -> Coder:
        """The coder of that name for all bytes in one stream; PNG at the width of the picture."""
        return png(self.width) if name == "PNG" and self.width is not None else coder_named(name)


def read_signal(settings: CodedTextSettings) -> Signal:
    """Cut a picture or sound into pieces, whole rows of patches up to `max_bytes` of them.

    ValueError: a file that cannot be cut, `max_bytes` that leaves nothing.
    """
    assert isinstance(settings.path, str)
    kind = KINDS[settings.modality]
    if settings.modality == "audio":
        pieces = audio_pieces(settings.path)
        return Signal(kind, pieces[: _whole(settings, 1, pieces.shape[1])])
    pixels = grey_pixels(settings.path)
    patches, across = image_patches(pixels, *PATCH), pixels.shape[1] // PATCH[1]
    return Signal(kind, patches[: _whole(settings, across, patches.shape[1])], across * PATCH[1])


def _whole(settings: CodedTextSettings, together: int, piece: int) -> int | None:
    """How many pieces of `piece` bytes are kept, a multiple of `together`; None: all of them."""
    if settings.max_bytes is None:
        return None
    kept = settings.max_bytes // (together * piece) * together
    if not kept:
        what = "a piece" if together == 1 else f"a row of {together} patches"
        raise ValueError(
            f"max_bytes of {settings.name!r} is {settings.max_bytes:,} and {what} has {together * piece:,} bytes; "
            "raise it, as no part of one can be given to all coders alike."
        )
    return kept
