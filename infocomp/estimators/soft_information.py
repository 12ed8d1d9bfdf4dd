"""Information about the soft-quantised direction J of activations, streaming and mergeable.

For every anchor draw: entropy H(J), context complexity H(J) − E[H(A)] (exact: the information about the whole context,
and the ceiling of every label's), complexity I(input label; J), expressivity I(output label; J), regularity and
optimality, each with two nulls and its ceiling. Estimates are in bits; see `sphere` for J and `nulls` for the nulls.

Source: Conklin et al. (2026), arXiv 2604.07569 (soft entropy, complexity, expressivity, optimality); regularity as
in soft-entropy's documentation, I / H. What is different here: nulls, ceilings, several anchor draws in one pass, an
exact temperature, optimality of null-corrected informations.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from infocomp.estimators.buffer import AssignmentBuffer
from infocomp.estimators.groups import Groups, LabelGroups
from infocomp.estimators.halves import Halves
from infocomp.estimators.interface import Estimate
from infocomp.estimators.nulls import sampling_order
from infocomp.estimators.reduction import WEIGHTINGS, Populations, informations, side_by_side
from infocomp.estimators.results import DrawResult, estimates_of
from infocomp.estimators.sphere import SoftAssigner, draw_anchors, exact_temperature

STATE_VERSION = 1
GROUPED_AT_ONCE = 65_536  # rows held in float64 while groups are averaged


class SoftInformation:
    """Soft entropy and informations of rows of activations about any labels.

    >>> import torch
    >>> z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    >>> soft = SoftInformation(dim=64, bins=50, draws=2)
    >>> soft.update(z, {"sign": (z[:, 0] > 0).long()})
    >>> [round(e.value, 2) for e in soft.estimate() if e.quantity == "entropy" and e.draw == "mean"]
    [5.63]
    """

    def __init__(
        self,
        dim: int,
        bins: int = 100,
        draws: int = 5,
        seed: int = 0,
        anchors: Float[Tensor, "draws bins dim"] | None = None,
        temperature: float | None = None,
        centre: Float[Tensor, "dim"] | None = None,
        scratch: Path | None = None,
        directions: Float[Tensor, "dim removed"] | None = None,
    ) -> None:
        """Anchors are drawn from `seed` (float64, on the CPU) unless given; the temperature is exact unless given.

        `centre` is subtracted from every row, and what lies along `directions` (orthonormal columns, see `moments`) is
        taken off it; `scratch` keeps the assignments in float16 files there, not in memory.
        """
        if anchors is None:
            anchors = draw_anchors(dim, bins, draws, seed)
        elif anchors.ndim == 2:
            anchors = anchors.unsqueeze(0)
        if anchors.shape[-1] != dim:
            raise ValueError(f"anchors have {anchors.shape[-1]} dimensions, dim is {dim}: they must agree.")
        self.draws, self.bins, self.dim = anchors.shape
        self.seed = seed
        self.temperature = exact_temperature(dim, self.bins) if temperature is None else temperature
        self.anchors, self.centre = anchors.double().cpu(), None if centre is None else centre.double().cpu()
        self.directions = None if directions is None else directions.detach().double().cpu().contiguous()
        self._assign = SoftAssigner(self.anchors, self.temperature, self.centre, self.directions)
        self._buffer = AssignmentBuffer(self.draws, self.bins, scratch)
        self._labels: dict[str, list[np.ndarray]] = {}
        self._documents: list[np.ndarray] = []
        self._row_sum = torch.zeros(dim, dtype=torch.float64)

    @property
    def n(self) -> int:
        """Rows seen."""
        return self._buffer.n

    @property
    def identity(self) -> str:
        """Hash of anchors, temperature, centre and removed directions: states merge only where these agree."""
        parts = [self.anchors.numpy().tobytes(), repr(self.temperature).encode()]
        if self.centre is not None:
            parts.append(self.centre.numpy().tobytes())
        if self.directions is not None:
            parts += [b"directions", self.directions.numpy().tobytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

    def assign(self, rows: Float[Tensor, "rows dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Assignments, their entropies and the sum of the rows; nothing is kept. `keep` takes the result."""
        assignments, entropies = self._assign(rows)
        return assignments, entropies, rows.detach().sum(dim=0, dtype=torch.float32).cpu().double()

    def keep(self, assigned: tuple[Tensor, Tensor, Tensor]) -> None:
        """Append what `assign` gave."""
        assignments, entropies, row_sum = assigned
        self._buffer.append(assignments, entropies)
        self._row_sum += row_sum

    def update(
        self,
        rows: Float[Tensor, "rows dim"],
        labels: Mapping[str, Tensor | np.ndarray | Iterable[int]] | None = None,
        documents: Tensor | np.ndarray | Iterable[int] | None = None,
    ) -> None:
        """Add rows with one integer label per row and set (-1: no label) and the number of each row's document.

        Labels never seen before are fine. Every call names the same label sets. Raises ValueError when counts differ.
        """
        given = {name: _integers(values, name) for name, values in (labels or {}).items()}
        if documents is not None:
            numbers = _integers(documents, "documents")
            _one_per_row(numbers, rows, "documents")
        for name, values in given.items():
            _one_per_row(values, rows, name)
        if self.n and set(given) != set(self._labels):
            raise ValueError(
                f"every update must name the same label sets; so far {sorted(self._labels)}, now {sorted(given)}."
            )
        if self.n and (documents is None) != (not self._documents):
            raise ValueError("documents must be given in every update or in none.")
        self.keep(self.assign(rows))
        for name, values in given.items():
            self._labels.setdefault(name, []).append(values)
        if documents is not None:
            self._documents.append(numbers)

    def merge(self, other: "SoftInformation") -> None:
        """Add the rows of another state; its settings must be the same (else ValueError)."""
        if self.identity != other.identity:
            what = "anchors or temperatures" if _same(self.directions, other.directions) else "removed directions"
            what = what if _same(self.centre, other.centre) else "centres"
            raise ValueError(
                f"these states have different {what} ({self.identity} and {other.identity}): "
                "only states made with the same settings can be merged."
            )
        if self.n and other.n and (set(self._labels) != set(other._labels)):
            raise ValueError(
                f"label sets differ: {sorted(self._labels)} and {sorted(other._labels)}; measure the same ones in both."
            )
        self._buffer.extend(other._buffer)
        for name, values in other._labels.items():
            self._labels.setdefault(name, []).extend(values)
        self._documents.extend(other._documents)
        self._row_sum += other._row_sum

    def group_means(
        self, groups: Int[np.ndarray, "rows"], n_groups: int
    ) -> tuple[Float[np.ndarray, "groups draws bins"], Float[np.ndarray, "groups draws"]]:
        """Mean assignment, and mean entropy of an assignment in nats, over the rows of each group (-1: no group).

        Sums are float64. ValueError: not one group a row, a number that is no group, or a group without rows.
        """
        if groups.shape != (self.n,) or (len(groups) and not -1 <= groups.min() <= groups.max() < n_groups):
            raise ValueError(
                f"groups must hold one number from -1 to {n_groups - 1} for each of the {self.n} rows, got shape "
                f"{groups.shape}" + (f" from {groups.min()} to {groups.max()}." if len(groups) else ".")
            )
        counts = np.bincount(groups[groups >= 0], minlength=n_groups)
        if not counts.all():
            raise ValueError(f"group {int(np.argmin(counts))} of {n_groups} has no row; number the groups that have.")
        kept = torch.from_numpy(np.flatnonzero(groups >= 0))
        place = torch.from_numpy(groups[groups >= 0].astype(np.int64))
        means = np.empty((n_groups, self.draws, self.bins))
        entropies = torch.zeros(n_groups, self.draws, dtype=torch.float64)
        entropies.index_add_(0, place, self._buffer.entropies().cpu()[kept].double())
        for draw in range(self.draws):
            plane = self._buffer.plane(draw)
            sums = torch.zeros(n_groups, self.bins, dtype=torch.float64)
            for rows, where in zip(kept.split(GROUPED_AT_ONCE), place.split(GROUPED_AT_ONCE), strict=True):
                sums.index_add_(0, where, plane[rows.to(plane.device)].cpu().double())
            means[:, draw] = sums.numpy() / counts[:, None]
        return means, entropies.numpy() / counts[:, None]

    def centre_shift(self) -> float | None:
        """Distance between the centre used and the mean of all rows, as a share of the centre's own norm.

        Neither counts what lies along removed directions: no row that is assigned has it.
        """
        if self.centre is None or not self.n:
            return None
        shift, centre = self._row_sum / self.n - self.centre, self.centre
        if self.directions is not None:
            shift, centre = (vector - self.directions @ (self.directions.T @ vector) for vector in (shift, centre))
        return float(shift.norm() / centre.norm())

    def label_groups(self) -> list[LabelGroups]:
        """The labels given to `update`, gathered, each with its null where there is more than one document."""
        documents = np.concatenate(self._documents) if self._documents else None
        halves = None if documents is None else Halves.of(documents)
        gathered = []
        for name, parts in self._labels.items():
            direction = "output" if name.startswith("next_") else "input"
            labels = np.concatenate(parts)
            name = name.removeprefix("next_")
            gathered.append(LabelGroups.of(name, None, direction, labels, documents, halves=halves))
        return gathered

    def estimate(
        self,
        labels: list[LabelGroups] | None = None,
        weightings: tuple[str, ...] = ("frequency",),
        min_count: int = 5,
        keys: np.ndarray | None = None,
        each_draw: Callable[[Float[Tensor, "rows bins"]], None] | None = None,
    ) -> list[Estimate]:
        """Every quantity for every draw and for their mean, in bits.

        `labels` defaults to the label sets given to `update` (a name that begins with "next_" is an output label);
        a study gives them ready-made, once for all sites. `keys` number the rows for the seeded sample of the
        row null (their order by default); `each_draw` is called with the assignments
        of one draw after the other. Raises ValueError without rows, and for an unknown weighting.
        """
        if not self.n:
            raise ValueError("nothing to estimate: update was never called with rows.")
        for weighting in weightings:
            if weighting not in WEIGHTINGS:
                raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}.")
        if min_count < 2:
            raise ValueError(f"min_count must be at least 2 (a label seen once has no spread), got {min_count}.")
        labels = self.label_groups() if labels is None else labels
        keys = np.arange(self.n) if keys is None else keys
        order = sampling_order(keys, self.seed, self.n)
        halves = next((label.groups.halves for label in labels if label.groups.halves is not None), None)
        entropies = self._buffer.entropies()
        found = []
        for draw in range(self.draws):
            plane, row_entropies = self._buffer.plane(draw), entropies[:, draw].contiguous()
            populations = Populations(plane, row_entropies, order)
            marginals = None if halves is None else populations.marginals(halves)
            result = DrawResult(*populations.moments(), marginals)
            how = (weightings, min_count, populations)

            def reduced(groups: Groups, with_row_null: bool, plane=plane, row_entropies=row_entropies, how=how):
                return informations(plane, row_entropies, groups, *how, with_row_null=with_row_null)

            for label in labels:  # shared between label sets, and computed before they go side by side
                populations.prepare(label.groups)
            tasks = [(label, label.groups, True) for label in labels]
            tasks += [(label, label.paired, False) for label in labels if label.paired is not None]
            for (label, _, own), found_here in zip(
                tasks, side_by_side([partial(reduced, groups, own) for _, groups, own in tasks], plane), strict=True
            ):
                (result.found if own else result.paired)[label.quantity, label.name] = found_here
            if each_draw is not None:
                each_draw(plane)
            found.append(result)
        return estimates_of(found, labels, weightings, self.bins, self.n, halves)

    def save(self, path: Path) -> None:
        """Write the state as one safetensors file: assignments, entropies, labels, documents, settings."""
        tensors = {f"assignments.{draw}": self._buffer.plane(draw).cpu() for draw in range(self.draws)}
        tensors |= {"entropies": self._buffer.entropies().cpu().contiguous(), "anchors": self.anchors}
        tensors["row_sum"] = self._row_sum
        if self.centre is not None:
            tensors["centre"] = self.centre
        if self.directions is not None:
            tensors["directions"] = self.directions
        for name, parts in self._labels.items():
            tensors[f"labels.{name}"] = torch.from_numpy(np.concatenate(parts))
        if self._documents:
            tensors["documents"] = torch.from_numpy(np.concatenate(self._documents))
        about = {"version": STATE_VERSION, "temperature": self.temperature, "seed": self.seed}
        about["labels"] = list(self._labels)
        save_file(tensors, path, metadata={"infocomp.soft_information": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> "SoftInformation":
        """Read a state that `save` wrote. Raises ValueError for a file of another kind or version."""
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("infocomp.soft_information", "{}"))
            if about.get("version") != STATE_VERSION:
                raise ValueError(f"{path} is no state of SoftInformation, version {STATE_VERSION}; measure it again.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        anchors = tensors["anchors"]
        state = cls(
            anchors.shape[2],
            anchors=anchors,
            seed=about["seed"],
            temperature=about["temperature"],
            centre=tensors.get("centre"),
            directions=tensors.get("directions"),
        )
        planes = [tensors[f"assignments.{draw}"] for draw in range(state.draws)]
        state._buffer.append(torch.stack(planes, dim=1), tensors["entropies"])
        state._row_sum = tensors["row_sum"]
        state._labels = {name: [tensors[f"labels.{name}"].numpy()] for name in about["labels"]}
        state._documents = [tensors["documents"].numpy()] if "documents" in tensors else []
        return state

    def close(self) -> None:
        """Give memory and scratch files back."""
        self._buffer.close()


def _integers(values: Tensor | np.ndarray | Iterable[int], name: str) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must be integers, got {array.dtype}.")
    return array.astype(np.int64)


def _one_per_row(values: np.ndarray, rows: Tensor, name: str) -> None:
    if values.shape != (len(rows),):
        raise ValueError(f"{name} has {values.size} entries, rows has {len(rows)}: one label per row is needed.")


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(torch.equal(one, other))
