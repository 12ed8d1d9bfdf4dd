"""Files of a text: found by path, folder or glob, and opened as a stream of bytes, .gz and .zst unpacked on the way.

What cannot be found or unpacked is a ValueError of one sentence with the nearest names or the reason.
"""

import difflib
import glob
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

_COMPRESSED = (".gz", ".zst")
_ZSTANDARD_CHUNK = 1 << 14  # compressed bytes unpacked at once: small, because text can shrink a thousandfold
_ZSTANDARD_WINDOW = 1 << 31  # the largest that any file has (zstd --long=31)


def find_files(names: Sequence[str]) -> list[Path]:
    """The files that paths, folders and globs name, sorted within each name; a file named twice comes once.

    A folder gives every file in it at any depth, without hidden ones and __pycache__. A name that gives nothing is a
    ValueError with what lies nearby.
    """
    found: dict[Path, Path] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and not _left_out(file.relative_to(path)))
            if not files:
                raise ValueError(f"files: the folder '{name}' holds no file; name one that holds text.")
        elif path.exists():
            files = [path]
        elif glob.has_magic(name):
            # not Path.glob, which takes hidden files too and needs a relative pattern
            files = sorted(file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file())  # noqa: PTH207
            if not files:
                raise ValueError(f"files: no file matches '{name}'; {_nearby(_fixed_part(path), None)}.")
        else:
            raise ValueError(f"files: there is no file or folder '{name}'; {_nearby(path.parent, path.name)}.")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def is_compressed(path: Path) -> bool:
    """Whether the name ends in .gz or .zst."""
    return path.suffix.lower() in _COMPRESSED


def inner_suffix(path: Path) -> str:
    """The ending that tells the format, in lower case: '.jsonl' for both 'a.jsonl' and 'a.JSONL.gz'."""
    return (Path(path.stem) if is_compressed(path) else path).suffix.lower()


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked; what goes wrong while the file is read inside the block is one sentence too."""
    kind = {".gz": "gzip", ".zst": "Zstandard"}.get(path.suffix.lower(), "")
    try:
        with path.open("rb") as raw:
            if kind == "gzip":
                with gzip.open(raw) as unpacked:
                    yield cast(BinaryIO, unpacked)
            elif kind == "Zstandard":
                yield cast(BinaryIO, io.BufferedReader(_ZstandardFrames(raw), buffer_size=1 << 17))
            else:
                yield raw
    except EOFError as error:
        raise ValueError(f"'{path}' ends in the middle of its {kind} data: it was cut off; fetch it again.") from error
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise ValueError(
            f"'{path}' is not sound {kind} data ({error}); fetch it again, or drop the ending '{path.suffix}' "
            f"if it is not compressed."
        ) from error
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror or error}.") from error


class _ZstandardFrames(io.RawIOBase):
    """All frames of a Zstandard file one after the other; EOFError where the last one is cut off.

    The library's own stream reader ends quietly in both cases: after the first frame and in the middle of one.
    """

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTANDARD_WINDOW)
        self._frame = self._decompressor.decompressobj()
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._unpacked:
            chunk = self._frame.unused_data or self._raw.read(_ZSTANDARD_CHUNK)
            if not chunk and not self._frame.eof:
                raise EOFError
            if not chunk:
                return 0
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._unpacked = memoryview(self._frame.decompress(chunk))
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count


def _left_out(relative: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in relative.parts)


def _fixed_part(pattern: Path) -> Path:
    """The folder before the first part of a glob that has a wildcard."""
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _nearby(folder: Path, name: str | None) -> str:
    """What lies where a name was looked for: the closest names, or a few of those that are there."""
    while not folder.is_dir():
        folder, name = folder.parent, folder.name
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    close = difflib.get_close_matches(name, names, n=3) if name else []
    if close:
        return f"closest in '{folder}' {'is' if len(close) == 1 else 'are'} {', '.join(map(repr, close))}"
    if not names:
        return f"the folder '{folder}' is empty"
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"the folder '{folder}' holds {', '.join(map(repr, names[:3]))}{more}"
