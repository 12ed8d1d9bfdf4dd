"""Weights & Biases from the table: one run per folder, made after the fact or live, and made again without doubling.

The run's id is the hash of OUT/config.yaml, so that logging again replaces: offline the earlier folder of that id is
removed once the new one is whole, online W&B overwrites a run of that id. Metrics have names like
complexity/token/blocks.3.hook_resid_post (`Names`), and the checkpoint's step is the x-axis of each (`define_metric`,
never `step=`: units end in any order). W&B never costs a result: what it raises becomes one warning.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from infocomp.execution.part import read_part
from infocomp.execution.runner import CONFIG, Event
from infocomp.execution.store import DOCUMENTS
from infocomp.execution.table import RESULTS, read_results

STEP = "checkpoint/step"
TOKENS = "checkpoint/tokens"
MOST_TABLE_ROWS = 10_000  # W&B's own page shows no more; the whole table is in the artifact
VARIANTS = ("model", "corpus", "stage", "rows", "weighting", "estimator", "seed")

logger = logging.getLogger("infocomp")


def log_to_wandb(
    out: str | Path, *, offline: bool = True, project: str = "infocomp", entity: str | None = None
) -> bool:
    """Log OUT/results.parquet and OUT/figures as one W&B run; offline it lies under OUT/wandb and needs no key.

    False, with one warning, when W&B fails. FileNotFoundError, ValueError: there is no merged table or configuration.
    """
    table = read_results(out)
    session = _Session(Path(out), offline, project, entity)
    try:
        session.start()
        session.log(table.to_pylist())
        session.attach(table)
        session.finish()
    except Exception as error:
        session.give_up(error)
        return False
    return True


class LiveLogger:
    """Logs each unit as it ends: give it as (or call it from) the `progress` of `execute`, in that process only.

    Units that an earlier run has done are logged again as they are skipped, so that the run is always whole. The first
    W&B failure is one warning and ends the logging, nothing else. FileNotFoundError, ValueError: no configuration.
    """

    def __init__(
        self, out: str | Path, *, offline: bool = True, project: str = "infocomp", entity: str | None = None
    ) -> None:
        self._session = _Session(Path(out), offline, project, entity)
        self._failed = False

    def __call__(self, event: Event) -> None:
        if self._failed or event.state not in ("done", "skipped"):
            return
        try:
            self._session.start()
            self._session.log(read_part(event.part, event.unit.name).rows.to_pylist())
        except Exception as error:
            self._give_up(error)

    def close(self) -> bool:
        """Attach the merged table and the figures that are there, and end the run. False: W&B failed."""
        if not self._failed:
            try:
                self._session.start()
                if (self._session.out / RESULTS).exists():
                    self._session.attach(read_results(self._session.out))
                self._session.finish()
            except Exception as error:
                self._give_up(error)
        return not self._failed

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._session.give_up(error)


class Names:
    """Short names of metrics: quantity/label/site, then what sets a row apart from the first one of its quantity.

    Raw rows weighted by frequency are the plain ones; a model, text, stage, estimator or seed is named from the second
    one on that the quantity is met with.
    """

    def __init__(self) -> None:
        self._plain: dict[tuple[str, str], Any] = {}

    def name(self, row: Mapping[str, Any]) -> str:
        quantity = row["quantity"]
        usual = {"rows": row["rows"] and "raw", "weighting": row["weighting"] and "frequency"}
        extra = []
        for column in VARIANTS:
            value = row[column]
            if value != self._plain.setdefault((quantity, column), usual.get(column, value)):
                extra.append(str(value) if value not in (None, "") else f"no {column}")
        return "/".join([quantity, *(row[part] for part in ("label", "site") if row[part]), *extra])


def is_mean(row: Mapping[str, Any]) -> bool:
    """Whether a row is what curves show: a number, and the mean over anchor draws where there are draws."""
    return row["draw"] in ("mean", "") and row["value"] is not None


class _Session:
    """One W&B run while it is being written."""

    def __init__(self, out: Path, offline: bool, project: str, entity: str | None) -> None:
        self.out = out
        path = out / CONFIG
        if not path.is_file():
            raise FileNotFoundError(f"{out} holds no {CONFIG}, which names the W&B run; `infocomp run` writes it")
        self.id = f"infocomp-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        self.config = yaml.safe_load(path.read_text("utf-8")) or {}
        self.names = Names()
        self.offline, self.project, self.entity = offline, project, entity
        self.earlier: list[Path] = []
        self.defined: set[str] = set()
        self.run: Any = None

    def start(self) -> None:
        if self.run is not None:
            return
        import wandb  # 1.5 s, and wanted only here

        # a second folder of one second gets -1 after the id
        self.earlier = sorted((self.out / "wandb").glob(f"offline-run-*-{self.id}*"))
        self.run = wandb.init(
            entity=self.entity,
            project=self.project,
            id=self.id,
            name=self.out.resolve().name,
            job_type="measure",
            dir=self.out,
            config=self.config,
            mode="offline" if self.offline else "online",
            reinit="create_new",  # a run of the user's own, in a notebook, stays as it is
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_service_wait=120,
            ),
        )
        for axis in (STEP, TOKENS):
            self.run.define_metric(axis)

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """One history entry per stage and step; rows without a step (classical coders) go to the summary."""
        points: dict[tuple[str, int], dict[str, Any]] = {}
        for row in rows:
            if not is_mean(row):
                continue
            if row["step"] is None:
                label = [row[part] for part in ("quantity", "label", "site", "model", "corpus") if row[part]]
                self.run.summary["/".join(label)] = row["value"]
                continue
            self._define(row["quantity"])
            point = points.setdefault((row["stage"] or "", row["step"]), {STEP: row["step"]})
            if row["tokens_seen"] is not None:
                point[TOKENS] = row["tokens_seen"]
            name = self.names.name(row)
            point[name] = row["value"]
            for beside in ("null", "point", "lower", "upper"):
                if row[beside] is not None:
                    point[f"{name}/{beside}"] = row[beside]
        for place in sorted(points):
            self.run.log(points[place])

    def _define(self, quantity: str) -> None:
        if quantity not in self.defined:
            self.defined.add(quantity)
            for pattern in (quantity, f"{quantity}/*"):
                self.run.define_metric(pattern, step_metric=STEP)

    def attach(self, table: pa.Table) -> None:
        """The table (means, capped), the Parquet files as an artifact, and the figures."""
        import wandb

        means = table.filter(pc.field("draw").isin(["mean", ""]))
        shown = means.slice(0, MOST_TABLE_ROWS)
        filled = [name for name in shown.column_names if shown.column(name).null_count < shown.num_rows]
        cells: list[Any] = [list(row.values()) for row in shown.select(filled).to_pylist()]
        self.run.config.update(
            {
                "table": f"{shown.num_rows} of the {means.num_rows} rows that are means over draws (at most "
                f"{MOST_TABLE_ROWS}); all {table.num_rows} rows are in the artifact's {RESULTS}"
            },
            allow_val_change=True,
        )
        self.run.log({"table": wandb.Table(columns=filled, data=cells)})
        artifact = wandb.Artifact(f"results-{self.id}", type="results")
        kept = Path(self.run.settings.sync_dir) / "artifact"  # a later run may replace the folder's own file
        kept.mkdir(exist_ok=True)
        for name in (RESULTS, DOCUMENTS):
            if (self.out / name).exists():
                artifact.add_file(str(shutil.copy2(self.out / name, kept)), policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact)
        figures = sorted((self.out / "figures").glob("*.png"))
        if figures:
            self.run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})

    def finish(self) -> None:
        self.run.finish()
        if self.offline:
            for folder in {*self.earlier} - {Path(self.run.settings.sync_dir)}:
                shutil.rmtree(folder)

    def give_up(self, error: Exception) -> None:
        """One warning; what was begun is removed, what an earlier call logged stays."""
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.warning(
            "W&B did not take %s (%s); the results are kept and `infocomp wandb` logs them", self.out, reason
        )
        if self.run is not None:
            begun = Path(self.run.settings.sync_dir)
            try:
                self.run.finish(exit_code=1)
            except Exception as second:
                logger.debug("ending the W&B run failed too: %s", second)
            if self.offline:
                shutil.rmtree(begun, ignore_errors=True)
