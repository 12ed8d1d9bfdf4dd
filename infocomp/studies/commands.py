"""What the commands do, once they are parsed: run, plan and plot, and the sentences and tables that they print."""

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from infocomp.config import load_config, to_yaml
from infocomp.execution.runner import Event
from infocomp.execution.session import Bars, run_study
from infocomp.execution.table import read

MEAN_OVER = "blocks."


def demo_config() -> Path:
    """The embedded default of `infocomp demo`."""
    return Path(str(files("infocomp.studies") / "demo.yaml"))


def open_study(config: Path | dict, settings: Sequence[str], out: Path) -> tuple[Any, str]:
    """The study that a configuration names, in its folder, and the resolved configuration as YAML."""
    resolved: Any = load_config(config, list(settings))
    return resolved.open(Path(out)), to_yaml(resolved)


def run_and_tell(config: Path | dict, settings: Sequence[str], out: Path, wandb_offline: bool | None = None) -> int:
    """Run a study with bars, print its summary and where everything lies; returns the exit code."""
    study, text = open_study(config, settings, out)
    live = _Live(out, wandb_offline)
    report = Bars()
    try:
        outcome, figures = run_study(study, text, report, live)
    finally:
        report.end()
        live.close()
    if (Path(out) / "results.parquet").exists():
        print(getattr(study, "summary", summary)(read(out)))
        print(f"\ntable   {out}/results.parquet")
    if figures:
        print(f"figures {out}/figures ({len({path.stem for path in figures})} as PDF, PNG and the CSV that was drawn)")
    for message in outcome.messages:
        print(f"failed  {message}", file=sys.stderr)
    if outcome.stopped:
        print(f"stopped {outcome.stopped}", file=sys.stderr)
    return outcome.exit_code


class _Live:
    """W&B while the run goes on, where it was asked for; opened once the run's folder is there."""

    def __init__(self, out: Path, offline: bool | None) -> None:
        self._out, self._offline = out, offline
        self._logger: Any = None

    def __call__(self, event: Event) -> None:
        if self._offline is None:
            return
        if self._logger is None:
            from infocomp.execution.wandb_log import LiveLogger

            self._logger = LiveLogger(self._out, offline=self._offline)
        self._logger(event)

    def close(self) -> None:
        """Attach table and figures, end the run."""
        if self._logger is not None:
            self._logger.close()


def plot_and_tell(folders: Sequence[Path], out: Path | None) -> None:
    """Draw every figure of one table, or of several joined."""
    from infocomp.plotting.changes import read_changes
    from infocomp.plotting.draw import draw_all

    if out is None:
        if len(folders) > 1:
            raise ValueError(f"{len(folders)} runs on one plane need --out, a folder for the figures.")
        out = Path(folders[0])
    figures = draw_all(read(list(folders)), Path(out) / "figures", changes=read_changes(list(folders)))
    for path in figures:
        if path.suffix == ".png":
            print(path)


def plan_and_tell(config: Path | dict, settings: Sequence[str], out: Path) -> None:
    """Print what a run would need and how long it would take."""
    study, _ = open_study(config, settings, out)
    report = Bars()
    try:
        found = study.plan(report)
    finally:
        report.end()
    print(found.text())


def summary(table: pd.DataFrame) -> str:
    """One line a checkpoint: bits per byte, complexity and expressivity with their ends, mean over the blocks."""
    rows = table[(table["draw"] == "mean") & (table["status"] == "ok")]
    token = rows[(rows["label"] == "token") & rows["site"].str.startswith(MEAN_OVER) & (rows["rows"] == "raw")]
    token = token[token["weighting"] == "frequency"]
    rates = rows[(rows["quantity"] == "bits_per_byte") & (rows["estimator"] == "code_length")]
    keys = ["model", "corpus", "stage", "step", "revision"]
    lines = []
    for values, group in rates.groupby(keys, dropna=False, sort=True):
        named = dict(zip(keys, values, strict=True))
        here = token[(token["revision"] == named["revision"]) & (token["corpus"] == named["corpus"])]
        here = here[here["model"] == named["model"]]
        means = here.groupby("quantity")[["point", "lower", "upper"]].mean()
        lines.append(
            {
                "revision": named["revision"],
                "bits/byte": group["value"].iloc[0],
                "complexity": _cell(means, "complexity", "point"),
                "from": _cell(means, "complexity", "lower"),
                "to": _cell(means, "complexity", "upper"),
                "expressivity": _cell(means, "expressivity", "point"),
                "from ": _cell(means, "expressivity", "lower"),
                "to ": _cell(means, "expressivity", "upper"),
            }
            | ({"corpus": named["corpus"]} if rates["corpus"].nunique() > 1 else {})
        )
    if not lines:
        return "no checkpoint was measured"
    text = pd.DataFrame(lines).to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="")
    classical = rows[rows["estimator"] == "classical"]
    coders = ", ".join(f"{row.model} {row.value:.3f}" for row in classical.itertuples())
    about = (
        "complexity I(token; J), expressivity I(next token; J), bits, mean over blocks: point estimate, lower and "
        "upper end;\nJ the soft-quantised direction"
    )
    return f"\n{text}\n\n{about}" + (f"\nclassical coders, bits/byte on the same bytes: {coders}" if coders else "")


def _cell(means: pd.DataFrame, quantity: str, column: str) -> float | None:
    return float(means.loc[quantity, column]) if quantity in means.index else None  # type: ignore[arg-type]


def sensitivity_and_tell(
    config: Path | dict,
    settings: Sequence[str],
    out: Path,
    revision: str | None = None,
    trained_in: Path | None = None,
    grid: Any = None,
) -> int:
    """Measure one checkpoint under many settings, print which conclusions survive; returns the exit code."""
    from infocomp.studies.sensitivity import Sensitivity
    from infocomp.studies.sensitivity_conclusions import conclusions, told

    resolved: Any = load_config(config, list(settings))
    study = Sensitivity(resolved, out, trained_in, revision, grid)
    checkpoint = study.checkpoint  # a revision that is not there is said before a folder is made
    report = Bars()
    try:
        outcome, figures = run_study(study, to_yaml(study.config), report)
    finally:
        report.end()
    if (Path(out) / "results.parquet").exists():
        try:
            found = conclusions(read(out))
            print(f"\n{checkpoint.revision.name}: in how many other settings what the base says holds\n")
            print(f"{told(found)}\n\ntable       {out}/results.parquet\nconclusions {out}/conclusions.csv")
        except ValueError as error:
            print(f"no conclusions: {error}", file=sys.stderr)
    if figures:
        print(f"figures     {out}/figures ({len({path.stem for path in figures})} as PDF, PNG and the CSV drawn)")
    for message in outcome.messages:
        print(f"failed  {message}", file=sys.stderr)
    if outcome.stopped:
        print(f"stopped {outcome.stopped}", file=sys.stderr)
    return outcome.exit_code
