"""Metrics of an offline Weights & Biases run, read from its .wandb file without an account or a server.

The file is a log after LevelDB's pattern: 7 bytes of header (":W&B", 0xBEE1, a version), then blocks of 32 KiB of
records, each with a checksum (CRC-32 of kind and data), a length and a kind: whole (1), or first, middle, last part of
one that spans blocks (2, 3, 4). A record is a protocol buffer whose definition the wandb package carries. A run that
was killed ends in the middle of a record: what was whole before that is read.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC, BLOCK, HEAD = b":W&B", 32 * 1024, struct.Struct("<IHB")
OWN_STEP = "_step"  # what W&B counts where the run logs no step of its own


def wandb_file(path: Path) -> Path:
    """The .wandb file that a path means: itself, or the one in a run's folder. ValueError: none there, or several."""
    if path.is_file():
        return path
    deeper = (path.glob(pattern) for pattern in ("*.wandb", "*/*.wandb", "wandb/*/*.wandb"))
    found = next((several for files in deeper if (several := sorted({one.resolve() for one in files}))), [])
    if len(found) != 1:
        names = ", ".join(one.name for one in found[:4])
        there = f"{len(found)} of them ({names}{', …' if len(found) > 4 else ''})" if found else "none"
        raise ValueError(f"{path} must hold one offline run, a .wandb file, and has {there}: name the file itself.")
    return found[0]


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, one dictionary a call, in order; nested names joined by "/", and W&B's own step as "_step".

    ValueError: not a .wandb file, or one whose checksum is wrong.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    found = []
    for data in _records(path):
        record = Record()
        record.ParseFromString(data)
        if not record.HasField("history"):
            continue
        line = {one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
        found.append({OWN_STEP: record.history.step.num} | line)
    return found


def _records(path: Path) -> Iterator[bytes]:
    """The whole records of the log."""
    data = path.read_bytes()
    if data[:4] != MAGIC:
        raise ValueError(f"{path} is no .wandb file: it does not begin with {MAGIC.decode()}.")
    place, parts = 7, b""
    while place + HEAD.size <= len(data):
        if (left := BLOCK - place % BLOCK) < HEAD.size:
            place += left
            continue
        checksum, length, kind = HEAD.unpack_from(data, place)
        start, stop = place + HEAD.size, place + HEAD.size + length
        if kind == 0 or stop > len(data):
            return
        if zlib.crc32(data[start - 1 : stop]) != checksum:
            raise ValueError(
                f"{path} is damaged: the checksum of the record at byte {place:,} is wrong; copy it again."
            )
        parts = data[start:stop] if kind in (1, 2) else parts + data[start:stop]
        place = stop
        if kind in (1, 4):
            yield parts
