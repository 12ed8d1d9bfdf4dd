"""Soft assignments of one site, kept until the pass is over: in memory as float32, or in a scratch file as float16.

Tables of sums for all sites, draws and label sets at once would take tens of GiB at a million tokens; the assignments
take 0.93 GiB a site (5 draws, 100 bins, float16) however many label sets, nulls or resamples are reduced from them.
Scratch files lie draw after draw, so that a reduction reads one plane [rows, bins] at a time.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

PIECE = 65_536  # rows converted from float16 at once


class AssignmentBuffer:
    """Appends [rows, draws, bins]; gives back one draw's plane [rows, bins] in float32 (float64 if so appended).

    `scratch` is a folder for scratch files, or None for memory. Entropies H(A) stay in memory in either case.
    """

    def __init__(self, draws: int, bins: int, scratch: Path | None = None) -> None:
        self.draws, self.bins = draws, bins
        self.n = 0
        self._entropies: list[Float[Tensor, "rows draws"]] = []
        self._planes: list[list[Float[Tensor, "rows bins"]]] = [[] for _ in range(draws)]
        self._files = []
        if scratch is not None:
            Path(scratch).mkdir(parents=True, exist_ok=True)
            # unlinked at once: a run that is killed leaves nothing behind
            self._files = [tempfile.TemporaryFile(dir=scratch, prefix="assignments-") for _ in range(draws)]  # noqa: SIM115
        self._device = torch.device("cpu")

    @property
    def on_disk(self) -> bool:
        return bool(self._files)

    def append(self, assignments: Float[Tensor, "rows draws bins"], entropies: Float[Tensor, "rows draws"]) -> None:
        """Raises OSError naming the scratch folder's need when the disk is full; nothing appended before is lost."""
        if assignments.shape[1:] != (self.draws, self.bins):
            raise ValueError(f"assignments must be [rows, {self.draws}, {self.bins}], got {tuple(assignments.shape)}.")
        self._device = assignments.device
        if self._files:
            planes = assignments.half().transpose(0, 1).contiguous().cpu().numpy()
            for file, plane in zip(self._files, planes, strict=True):
                file.seek(self.n * self.bins * 2)
                file.write(plane.data)
        else:
            for draw, kept in enumerate(self._planes):  # storage of its own, so that one draw can be put together alone
                kept.append(assignments[:, draw].contiguous())
        self._entropies.append(entropies)
        self.n += len(assignments)

    def entropies(self) -> Float[Tensor, "rows draws"]:
        """H(A) in nats of every row under every draw, in memory always."""
        if not self._entropies:
            return torch.zeros(0, self.draws)
        if len(self._entropies) > 1:
            self._entropies = [torch.cat(self._entropies)]
        return self._entropies[0]

    def plane(self, draw: int) -> Float[Tensor, "rows bins"]:
        """The assignments under one anchor draw, on the device that computed them."""
        if self._files:
            file = self._files[draw]
            file.flush()
            plane = torch.empty(self.n, self.bins, device=self._device)
            file.seek(0)
            for start in range(0, self.n, PIECE):
                count = min(PIECE, self.n - start) * self.bins
                half = np.frombuffer(bytearray(file.read(count * 2)), dtype=np.float16)
                plane[start : start + PIECE] = torch.from_numpy(half).view(-1, self.bins).to(self._device)
            return plane
        kept = self._planes[draw]
        if not kept:
            return torch.zeros(0, self.bins)
        if len(kept) > 1:
            self._planes[draw] = kept = [torch.cat(kept)]
        return kept[0]

    def extend(self, other: "AssignmentBuffer") -> None:
        """Append every row of another buffer, draw by draw in pieces."""
        entropies, planes = other.entropies(), [other.plane(draw) for draw in range(self.draws)]
        for start in range(0, other.n, PIECE):
            pieces = [plane[start : start + PIECE] for plane in planes]
            self.append(torch.stack(pieces, dim=1), entropies[start : start + PIECE])

    def close(self) -> None:
        """Give the memory and the scratch files back."""
        for file in self._files:
            file.close()
        self._files, self._planes, self._entropies = [], [[] for _ in range(self.draws)], []
        self.n = 0


def bytes_needed(rows: int, draws: int, bins: int, on_disk: bool) -> int:
    """Bytes that the assignments of one site take: float16 on disk, float32 in memory; entropies left out."""
    return rows * draws * bins * (2 if on_disk else 4)
