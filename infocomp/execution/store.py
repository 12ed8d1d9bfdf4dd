"""The parts of one run folder: a part per unit of work, named by the hash of what decides it; a valid part means done.

OUT/plan.json                            the units of this run, by phase
OUT/parts/<unit>.parquet                 a unit's rows; the footer names the unit and says done or failed
OUT/parts/<unit>.documents.parquet       code length (bits) of each document, written before the unit's rows
OUT/parts/<unit>.influence.parquet       what groups of documents weigh in each number, likewise
OUT/parts/damaged/                       parts that could not be read back, moved away to be made again
OUT/results.parquet, documents.parquet   the parts of the plan, merged
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from infocomp.execution.part import (
    BESIDE,
    Part,
    documents_to_table,
    influence_to_table,
    read_part,
    replacing,
    write_part,
)
from infocomp.execution.table import (
    KEY,
    RESULTS,
    SCHEMA,
    SCHEMA_VERSION,
    canonical_json,
    check_unique,
    rows_to_table,
)

DOCUMENTS = "documents.parquet"
PLAN = "plan.json"
READING_ORDER = ("model", "corpus", "stage", "step", "revision", "layer", "site", "quantity", "order", "label")


def unit_name(**what_decides: Any) -> str:
    """16 hex digits: the hash of everything that decides a unit's result, the table's version included.

    Values are plain JSON (numbers, text, lists, dicts). TypeError or ValueError: they are not.
    """
    text = canonical_json({"schema_version": SCHEMA_VERSION, "decides": what_decides})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """The parts, the plan and the merged tables of one run folder."""

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.parts = self.out / "parts"

    def part_path(self, unit: str) -> Path:
        return self.parts / f"{unit}.parquet"

    def path_beside(self, unit: str, name: str) -> Path:
        """The table `name` ("documents", "influence") that lies beside a unit's rows."""
        return self.parts / f"{unit}.{name}.parquet"

    def clean(self) -> None:
        """Remove what killed runs left half written. Only for the process that holds the folder."""
        for folder in (self.out, self.parts):
            for left in folder.glob(".*.tmp"):
                left.unlink(missing_ok=True)

    def write(
        self,
        unit: str,
        rows: Iterable[Mapping[str, Any]],
        documents: Sequence[Mapping[str, Any]] = (),
        influence: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]] = (),
        *,
        state: str = "done",
    ) -> None:
        """Write the tables beside a unit's rows, then the rows; unit_name and date are filled in.

        KeyError, TypeError, ValueError: a row that `table.row` refuses, or two rows with one key. StorageError.
        """
        date = datetime.now(UTC).isoformat(timespec="seconds")
        content = rows_to_table({**row, "unit_name": unit, "date": date} for row in rows)
        check_unique(content)
        beside: dict[str, pa.Table] = {}
        if documents:
            beside["documents"] = documents_to_table(documents)
        if influence:
            beside["influence"] = influence_to_table(influence)
        for name, table in beside.items():
            write_part(self.path_beside(unit, name), table, unit)
        write_part(self.part_path(unit), content, unit, state, {name: len(table) for name, table in beside.items()})

    def read(self, unit: str) -> Part:
        """The unit's part. FileNotFoundError: there is none. ValueError: it, or a table beside it, is damaged."""
        part = read_part(self.part_path(unit), unit)
        for name, expected in part.beside.items():
            self.beside(unit, name, expected)
        return part

    def beside(self, unit: str, name: str, expected: int) -> pa.Table:
        """The table `name` beside the unit's rows, of `expected` rows. ValueError: it is missing or damaged."""
        path = self.path_beside(unit, name)
        try:
            content = read_part(path, unit, BESIDE[name]).rows
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing, {expected} {name} belong to this unit") from error
        if content.num_rows != expected:
            raise ValueError(f"{path} holds {content.num_rows} {name}, {expected} belong to this unit")
        return content

    def state(self, unit: str) -> str | None:
        """ "done", "failed", "damaged", or None where the unit has no part yet."""
        try:
            return self.read(unit).state
        except FileNotFoundError:
            return None
        except ValueError:
            return "damaged"

    def set_aside(self, unit: str) -> None:
        """Move a damaged part and what lies beside it to parts/damaged, so that the unit is made again."""
        (self.parts / "damaged").mkdir(exist_ok=True)
        for path in (self.part_path(unit), *(self.path_beside(unit, name) for name in BESIDE)):
            if path.exists():
                path.replace(self.parts / "damaged" / path.name)

    def units(self) -> list[str]:
        """The units that have a part, in the order of their names."""
        return sorted(path.stem for path in self.parts.glob("*.parquet") if path.name.count(".") == 1)

    def plan(self) -> dict[str, Any]:
        """The plan written last: {"run": hash, "phases": {phase: [{"name", "title"}, …]}}, empty at first."""
        path = self.out / PLAN
        if not path.exists():
            return {"run": "", "phases": {}}
        try:
            return json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); remove it and run again, the parts are kept") from None

    def planned(self) -> list[dict[str, Any]]:
        """The plan's units over all phases, in order."""
        return [entry for entries in self.plan()["phases"].values() for entry in entries]

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        with replacing(self.out / PLAN) as file:
            file.write(json.dumps(plan, indent=1, ensure_ascii=False).encode())

    def merge(self, order: Iterable[str] | None = None) -> Path:
        """Merge the parts of these units into OUT/results.parquet (and documents.parquet) and return its path.

        Without `order`: the units of the plan, and without a plan all that have a part. Units without a valid part are
        left out. Rows are sorted in reading order (model, text, step, layer, quantity) and by the rest of the key,
        whatever the order of the units; where one of these is empty the row comes last. ValueError: two rows with one
        key (nothing is written).
        """
        units = list(order) if order is not None else [entry["name"] for entry in self.planned()] or self.units()
        parts: dict[str, Part] = {}
        for unit in dict.fromkeys(units):
            with suppress(FileNotFoundError, ValueError):
                parts[unit] = self.read(unit)
        merged = pa.concat_tables([SCHEMA.empty_table(), *(part.rows for part in parts.values())])
        check_unique(merged)
        merged = _sorted(fill_duplicates(merged), (*READING_ORDER, *KEY))
        documents = [
            self.beside(unit, "documents", part.beside["documents"])
            for unit, part in parts.items()
            if part.beside.get("documents")
        ]
        if documents:
            joined = _sorted(pa.concat_tables(documents), ("model", "corpus", "revision", "document"))
            write_part(self.out / DOCUMENTS, joined, "merged")
        write_part(self.out / RESULTS, merged, "merged")
        return self.out / RESULTS


def fill_duplicates(table: pa.Table) -> pa.Table:
    """duplicate_of: the earliest revision (by stage, step) of the same model with the same weights' fingerprint.

    Where no earlier one was measured, what the study wrote itself is kept.
    """
    names = ("model", "fingerprint", "stage", "step", "revision")
    rows = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    first: dict[tuple[str, str | None], str] = {}
    for model, weights, _, _, revision in sorted(set(rows), key=_training_order):
        first.setdefault((model, weights), revision)
    filled = [
        given if weights is None or first[model, weights] == revision else first[model, weights]
        for (model, weights, _, _, revision), given in zip(rows, table.column("duplicate_of").to_pylist(), strict=True)
    ]
    position = table.schema.get_field_index("duplicate_of")
    return table.set_column(position, SCHEMA.field("duplicate_of"), pa.array(filled, pa.string()))


def _training_order(row: tuple[str, str | None, str | None, int | None, str]) -> tuple[bool, str, int, str]:
    """By stage and step; a revision without a step ("main") stands after those that have one."""
    _, _, stage, step, revision = row
    return step is None, stage or "", step or 0, revision


def _sorted(table: pa.Table, names: Iterable[str]) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in dict.fromkeys(names)])
