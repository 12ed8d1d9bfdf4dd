"""One benchmark's outcome, and the file that keeps the latest of each."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

LATEST = Path(__file__).parent / "latest.json"


@dataclass(frozen=True)
class Result:
    """`met` says whether `value` keeps to `target`, read as "at most" or "at least"."""

    name: str
    value: float
    unit: str
    target: float
    at_most: bool = True
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """For the terminal."""
        sign, verdict = ("≤" if self.at_most else "≥"), ("met" if self.met else "MISSED")
        return (
            f"{self.name:<42} {self.value:10.3f} {self.unit:<8} target {sign} {self.target:g}: {verdict}  {self.note}"
        )


def keep(results: list[Result]) -> None:
    """Write the results into latest.json; other benchmarks' entries stay."""
    kept = json.loads(LATEST.read_text()) if LATEST.exists() else {}
    for result in results:
        entry = {key: value for key, value in asdict(result).items() if key not in ("name", "at_most")}
        kept[result.name] = entry | {
            "met": result.met,
            "device": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            "date": datetime.now(UTC).date().isoformat(),
        }
    LATEST.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
