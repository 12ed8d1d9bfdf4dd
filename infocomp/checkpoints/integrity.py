"""Whether a checkpoint is what its name says: fingerprints of files and of tensors, duplicates, non-finite weights.

Published series contain faults (pythia-2.8b: 86 of 154 branches serve other steps' weights), so every checkpoint
carries two fingerprints: one of its files, known before any download, and one of the tensors that were really loaded.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

SHARD = re.compile(r"(?:model|pytorch_model)-(\d+)-of-(\d+)\.(?:safetensors|bin)")
LAYOUTS = (  # in the order in which transformers looks for them: one file, or an index with its shards
    ("model.safetensors", r"model\.safetensors"),
    ("model.safetensors.index.json", r"model-\d+-of-\d+\.safetensors"),
    ("pytorch_model.bin", r"pytorch_model\.bin"),
    ("pytorch_model.bin.index.json", r"pytorch_model-\d+-of-\d+\.bin"),
)


def weight_files(names: Iterable[str]) -> list[str]:
    """Those of a folder's files that hold the weights: safetensors if there are any, else .bin; [] without weights."""
    names = sorted(names)
    for sign, pattern in LAYOUTS:
        if sign in names:
            return [name for name in names if re.fullmatch(pattern, name)]
    return []


def missing_shards(names: Iterable[str]) -> list[str]:
    """Shards that the others' names promise ("…-00001-of-00002…") and that are not there."""
    names = set(names)
    promised = set()
    for name in names:
        if match := SHARD.fullmatch(name):
            number, total = match.span(1), match[2]
            width = number[1] - number[0]
            promised |= {f"{name[: number[0]]}{i:0{width}d}{name[number[1] :]}" for i in range(1, int(total) + 1)}
    return sorted(promised - names)


def file_hash(path: Path, like: str = "") -> str:
    """The sha256 of a file in hex; its git object id if `like` is one (40 digits), as hubs give outside LFS."""
    with path.open("rb") as file:
        if len(like) != 40:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def files_fingerprint(listing: Iterable[tuple[str, str]]) -> str:
    """32 hex digits for a set of weight files, from (file name, hash of its bytes); "" for an empty listing.

    The same files give the same fingerprint in any order and in any place: a hub's LFS hash is the sha256 of the bytes.
    The same tensors written in another format (.bin and .safetensors) differ here, and agree in `weights_fingerprint`.
    """
    lines = sorted(f"{name} {digest}\n" for name, digest in listing)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32] if lines else ""


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes; a view where it lies contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def weights_fingerprint(model: nn.Module) -> str:
    """32 hex digits for the model's state: name, dtype, shape and bytes of every tensor, in the order of their names.

    Tied tensors count under each of their names and are read once: a tied model equals an untied one with equal
    values. The dtype counts: compare models that were loaded alike.
    """
    seen: dict[tuple, bytes] = {}
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if place not in seen:
            seen[place] = hashlib.sha256(_bytes(tensor)).digest()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + seen[place])
    return whole.hexdigest()[:32]


def check_finite(model: nn.Module, name: str) -> None:
    """Every weight is a finite number; otherwise a ValueError with the first such tensor and how many values it has."""
    for tensor_name, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        # The extremes carry NaN and inf along: one pass, no mask in memory.
        if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
            wrong = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{name} has {wrong} of {tensor.numel()} values of {tensor_name} that are NaN or infinite: "
                f"the checkpoint is damaged or its training diverged; leave it out"
            )


def duplicates(fingerprints: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Each later name whose fingerprint was seen before → the first name that had it. "" equals nothing.

    >>> duplicates([("step0", "a"), ("step1", "a"), ("step2", "b"), ("step3", "a")])
    {'step1': 'step0', 'step3': 'step0'}
    """
    first: dict[str, str] = {}
    return {
        name: first[fingerprint]
        for name, fingerprint in fingerprints
        if fingerprint and first.setdefault(fingerprint, name) != name
    }
