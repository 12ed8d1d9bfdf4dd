"""The file that holds coded text: what it was made with, its sections, and checksums over all of it.

    8 bytes   89 49 43 5A 0D 0A 1A 0A       the signature: neither text nor cut to seven bits nor with changed line ends
    1 byte    version of the format
    12 bytes  lengths of the three sections, little-endian
    …         header: canonical JSON through zlib
    …         escapes (see infocomp.coding.pieces), no byte where there are none
    …         payload: 32-bit words of the range coder
    16 bytes  BLAKE2b over everything before

A file is looked at as a whole before any of it is believed, so that damage is found before a model is loaded. The
header holds a second checksum, that of the original bytes, which the decoded ones must have before they are written.
"""

import json
import os
import secrets
import struct
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

SIGNATURE = b"\x89ICZ\r\n\x1a\n"
VERSION = 1
DIGEST = 16  # bytes of a checksum
_PREFIX = struct.Struct("<8sB3I")


@dataclass(frozen=True)
class Container:
    """The header, as plain JSON values, and the two sections that it describes."""

    header: dict[str, Any]
    escapes: bytes
    payload: bytes

    def pack(self) -> bytes:
        """The whole file. ValueError: a section of 4 GiB or more."""
        text = json.dumps(self.header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        header = zlib.compress(text.encode(), 9)
        sections = (header, self.escapes, self.payload)
        if max(map(len, sections)) >= 1 << 32:
            raise ValueError("a coded section has 4 GiB or more, which the format does not hold; code it in parts.")
        body = _PREFIX.pack(SIGNATURE, VERSION, *map(len, sections)) + b"".join(sections)
        return body + digest(body)

    @staticmethod
    def unpack(data: bytes, name: str = "the file") -> "Container":
        """The container in these bytes. ValueError: another program's file, another version, cut off, or damaged."""
        if data[: len(SIGNATURE)] != SIGNATURE[: len(data)] or not data:
            raise ValueError(f"{name} is no file that infocomp compress wrote: it begins with other bytes.")
        if len(data) < _PREFIX.size:
            raise ValueError(f"{name} was cut off: it has {len(data)} bytes, too few for a header; fetch it again.")
        _, version, *lengths = _PREFIX.unpack_from(data)
        whole = _PREFIX.size + sum(lengths) + DIGEST
        intact = digest(data[:-DIGEST]) == data[-DIGEST:]
        if version != VERSION:
            raise ValueError(
                f"{name} has format version {version}, and this infocomp reads version {VERSION}; "
                "use the infocomp that wrote it, or fetch the file again in case it was damaged."
            )
        if len(data) != whole:
            what = "was cut off or damaged" if len(data) < whole else "was damaged or has something appended"
            raise ValueError(f"{name} {what}: it has {len(data)} bytes and says {whole}; fetch it again.")
        if not intact:
            raise ValueError(f"{name} was damaged: its checksum does not hold; fetch it again.")
        begin, sections = _PREFIX.size, []
        for length in lengths:
            sections.append(data[begin : begin + length])
            begin += length
        try:
            header = json.loads(zlib.decompress(sections[0]))
        except (zlib.error, ValueError) as error:
            raise ValueError(f"{name} has a header that cannot be read ({error}); it was written wrongly.") from error
        if not isinstance(header, dict):
            raise ValueError(
                f"{name} has a header that holds {type(header).__name__} and no entries; another program wrote it."
            )
        return Container(header, sections[1], sections[2])


def digest(data: bytes) -> bytes:
    """Checksum of some bytes: BLAKE2b (RFC 7693) of 16 bytes."""
    return blake2b(data, digest_size=DIGEST).digest()


def check_writable(path: Path, force: bool) -> None:
    """FileExistsError for a file that would be written over, FileNotFoundError and PermissionError for its folder,
    IsADirectoryError, and ValueError for what is no file (a device, a pipe)."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file to write.")
    if (path.exists() or path.is_symlink()) and not force:
        raise FileExistsError(f"{path} exists already; name another file, or --force to write over it.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, which cannot take a whole file at once; name a file to write.")
    folder = _target(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write {path.name} into; make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing may be written into the folder {folder}; name a file elsewhere.")


def write_whole(path: Path, data: bytes, force: bool) -> None:
    """Write a file all at once or not at all: a temporary file beside it is synced and then takes the name.

    Where the name is a link, the file that it leads to is written. Raises as `check_writable` does; a file that
    appeared in the meantime is not written over either.
    """
    check_writable(path, force)
    target = _target(path)
    temporary = target.with_name(f".icz-{secrets.token_hex(8)}.tmp")
    file = temporary.open("xb")
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(target)
        else:
            _take_name(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Where the bytes go: the file behind a link, with its folder spelled out."""
    return path.resolve() if path.is_symlink() else path.absolute()


def _take_name(temporary: Path, path: Path) -> None:
    """The name, unless another file has it by now; file systems without hard links are asked first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists by now; name another file, or --force to write over it.") from None
    except OSError:
        check_writable(path, force=False)
        temporary.replace(path)
