"""Accumulating 6 label sets of 8 × 1,024 rows, d = 512, m = 100, against soft-entropy's torch accumulator.

Both see the same rows, labels, anchors' number and one draw; ours is timed with the reduction that the published
accumulator does while it accumulates (sums per label), and once more with every estimate on both sides.
"""

import statistics
import time

import numpy as np
import torch

from benchmarks.record import Result
from infocomp.estimators import SoftInformation

ROWS, DIM, BINS, ROUNDS = 8 * 1024, 512, 100, 5


def run() -> list[Result]:
    """Ratio of times, theirs over ours, the median of alternating rounds."""
    from soft_entropy.accumulator import SoftEntropyAccumulator

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 50_001)
    tokens = rng.choice(50_000, ROWS + 6, p=share / share.sum())
    labels = {}
    for order in (1, 2, 3):
        for direction, shift in (("input", 0), ("next", order)):
            columns = np.stack([tokens[shift + i : shift + i + ROWS] for i in range(order)], axis=1)
            labels[f"{direction}_{order}"] = np.unique(columns, axis=0, return_inverse=True)[1].ravel()
    rows = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))
    batches = np.array_split(np.arange(ROWS), 8)
    tensors = {name: torch.from_numpy(ids) for name, ids in labels.items()}

    def theirs(estimates: bool) -> None:
        state = SoftEntropyAccumulator(d=DIM, n_bins=BINS, backend="torch")
        for batch in batches:
            state.update(rows[batch], {name: ids[batch] for name, ids in tensors.items()})
        if estimates:
            state.mutual_information()

    def ours(estimates: bool) -> None:
        state = SoftInformation(DIM, bins=BINS, draws=1)
        for batch in batches:
            state.update(rows[batch], {name: ids[batch] for name, ids in labels.items()})
        if estimates:
            state.estimate()
        else:
            plane = state._buffer.plane(0)
            for group in state.label_groups():
                group.groups.sums(plane)

    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 1):
        for name, call, estimates in (
            ("their sums", theirs, False),
            ("sums", ours, False),
            ("their estimates", theirs, True),
            ("estimates", ours, True),
        ):
            start = time.perf_counter()
            call(estimates)
            times.setdefault(name, []).append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(b / a for a, b in zip(times[name][1:], times[f"their {name}"][1:], strict=True))
        for name in ("sums", "estimates")
    }
    return [
        Result("accumulate, against soft-entropy", ratios["sums"], "×", 30, at_most=False),
        Result(
            "accumulate and estimate, same",
            ratios["estimates"],
            "×",
            20,
            at_most=False,
            note="ours with its row null; a target of our own",
        ),
    ]
