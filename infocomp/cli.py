"""The command line: parse, call one function, print. Nothing is computed here, and nothing heavy is imported first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

# Threads that spin while they wait make two of them ten times slower on a core that another process wants (measured:
# 2.4 against 0.43 seconds a training step). It must be set before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Measure language models as the lossy compressors they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Argument(help="a configuration in YAML", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="folder of the run")]
Folder = Annotated[Path, typer.Argument(help="folder of a run", show_default=False)]
Folders = Annotated[list[Path], typer.Argument(help="folders of one run or of several", show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change one setting; repeatable")]


@contextmanager
def one_sentence() -> Iterator[None]:
    """Bad input ends with its sentence on standard error and exit code 2."""
    try:
        yield
    except KeyError as error:
        _stop(str(error.args[0]) if error.args else str(error))
    except (ValueError, TypeError, OSError, MemoryError) as error:
        _stop(str(error))


def _stop(sentence: str) -> None:
    typer.echo(f"infocomp: {sentence}", err=True)
    raise typer.Exit(2)


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    settings: Set = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="log to Weights & Biases, offline, at the end")] = False,
    post_training: Annotated[
        bool, typer.Option("--post-training", help="tune its last checkpoint on a planted preference, and compare")
    ] = False,
) -> None:
    """Train a small GPT-NeoX on this Python's own source, measure every checkpoint, draw the planes."""
    with one_sentence():
        if post_training:
            from infocomp.studies.post_training_command import post_training_and_tell

            raise typer.Exit(post_training_and_tell(out, settings or [], True if wandb else None))
        from infocomp.studies.commands import demo_config, run_and_tell

        raise typer.Exit(run_and_tell(demo_config(), settings or [], out, wandb_offline=True if wandb else None))


@app.command()
def plan(config: Config, out: Out = Path("runs/plan"), settings: Set = None) -> None:
    """Say what a run would do: units, download, disk, memory, scratch, time. Runs no model but a short calibration."""
    with one_sentence():
        from infocomp.studies.commands import plan_and_tell

        plan_and_tell(config, settings or [], out)


@app.command()
def run(
    config: Config,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the run [default: runs/NAME-OF-CONFIG]")] = None,
    settings: Set = None,
    wandb: Annotated[str | None, typer.Option("--wandb", help="online or offline: log while it runs")] = None,
) -> None:
    """Run a study, or go on with one: what is done is not done again."""
    with one_sentence():
        from infocomp.studies.commands import run_and_tell

        if wandb not in (None, "online", "offline"):
            raise ValueError(f"--wandb must be online or offline, got {wandb!r}.")
        folder = out or Path("runs") / config.stem
        offline = None if wandb is None else wandb == "offline"
        raise typer.Exit(run_and_tell(config, settings or [], folder, wandb_offline=offline))


@app.command()
def sensitivity(
    config: Config,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder of its own [default: runs/NAME-OF-CONFIG/sensitivity]")
    ] = None,
    settings: Set = None,
    revision: Annotated[str | None, typer.Option(help="the checkpoint [default: the configuration's last]")] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="run that trained a series [default: runs/NAME-OF-CONFIG]")
    ] = None,
) -> None:
    """Measure one checkpoint under other bins, draws, temperatures, texts and rows: which conclusions survive?"""
    with one_sentence():
        from infocomp.studies.commands import sensitivity_and_tell

        trained_in = run or Path("runs") / config.stem
        folder = out or Path("runs") / config.stem / "sensitivity"
        raise typer.Exit(sensitivity_and_tell(config, settings or [], folder, revision, trained_in))


@app.command()
def compress(
    file: Annotated[Path, typer.Argument(help="any file", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="checkpoint folder, run folder, or repository")],
    revision: Annotated[str | None, typer.Option(help="checkpoint of a series, or revision of a repository")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="file to write [default: FILE.icz]")] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="tokens a chunk: longer is smaller and slower")] = None,
    context_length: Annotated[int | None, typer.Option(help="positions of a window [default: the model's]")] = None,
    overlap: Annotated[int, typer.Option(help="tokens read again when a window of a longer chunk moves on")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = "auto",
    threads: Annotated[int | None, typer.Option(help="threads, for decompression too [default: torch's]")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="decode and compare before anything is written")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="say what gzip, xz and PPMd make of the file")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over an existing file")] = False,
) -> None:
    """Compress any file with a language model; decompress gives it back byte for byte."""
    with one_sentence():
        from infocomp.studies.compression import CodecOptions, compress_and_tell

        options = CodecOptions(chunk_tokens, context_length, overlap, dtype, device, threads)
        compress_and_tell(file, model, revision, out, options, force, verify, compare)


@app.command()
def decompress(
    file: Annotated[Path, typer.Argument(help="a file that compress wrote", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="file to write [default: without .icz]")] = None,
    model: Annotated[str | None, typer.Option(help="where the model is [default: where the file says]")] = None,
    revision: Annotated[str | None, typer.Option(help="with --model")] = None,
    device: Annotated[str | None, typer.Option(help="of the same kind [default: what the file says]")] = None,
    attempt: Annotated[bool, typer.Option("--attempt", help="try with other libraries; the checksum decides")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over an existing file")] = False,
) -> None:
    """Give back the file that was compressed, or say why not and write nothing."""
    with one_sentence():
        from infocomp.studies.compression import decompress_and_tell

        decompress_and_tell(file, out, model, revision, force, attempt, device)


@app.command()
def transition(
    curves: Annotated[Path, typer.Argument(help="CSV, Parquet, .wandb file or folder of a run", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="every number as JSON")] = False,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="CURVE=VALUE", help="[default: 0.01 for losses, 0.99 for accuracies]"),
    ] = None,
    persistence: Annotated[int, typer.Option(help="evaluations in a row that must hold")] = 3,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="CURVE=NAME", help="what the file calls step, train_loss, test_loss, …"),
    ] = None,
    by: Annotated[str | None, typer.Option(help="accuracy or loss [default: accuracy where both are there]")] = None,
    factor: Annotated[float | None, typer.Option(help="how many times as late is a delay [default: 2]")] = None,
) -> None:
    """Date delayed generalization from learning curves: memorization, generalization, delay, with intervals."""
    with one_sentence():
        from infocomp.studies.transition_command import transition_and_tell

        transition_and_tell(curves, columns or [], thresholds or [], persistence, by, factor, as_json)


@app.command()
def status(folder: Folder) -> None:
    """Count the units of a run: planned, done, failed; and say who works on it."""
    with one_sentence():
        from infocomp.execution.runner import status as status_of

        found = status_of(folder)
        typer.echo(f"{folder}: {found.done} of {found.planned} units done, {found.failed} failed")
        typer.echo(f"running: {found.running}" if found.running else "nobody is working on it")


@app.command()
def compare(
    base: Annotated[str, typer.Option("--base", help="checkpoint folder, or owner/repository[@revision]")],
    tuned: Annotated[
        list[str], typer.Option("--tuned", help="likewise, or a folder of checkpoints; repeatable", show_default=False)
    ],
    data: Annotated[list[str], typer.Option("--data", help="pairs, chats or text (jsonl, parquet, txt); repeatable")],
    out: Out = Path("runs/compare"),
    template: Annotated[str, typer.Option(help="auto, plain or tuned: how chats and pairs are written")] = "auto",
    settings: Set = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what it would need, and stop")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="log to Weights & Biases, offline, at the end")] = False,
) -> None:
    """Compare a base model with tuned ones: preference, spectra, similarity, words, token information; what moved."""
    with one_sentence():
        from infocomp.studies.commands import plan_and_tell, run_and_tell
        from infocomp.studies.comparison_command import comparison_config

        config = comparison_config(base, tuned, data) | {"template": template}
        if plan:
            plan_and_tell(config, settings or [], out)
            return
        raise typer.Exit(run_and_tell(config, settings or [], out, wandb_offline=True if wandb else None))


@app.command()
def plot(
    folders: Folders,
    out: Annotated[Path | None, typer.Option("--out", help="where figures go [default: FOLDER/figures]")] = None,
) -> None:
    """Draw every figure from the table of one run, or several models on one plane."""
    with one_sentence():
        from infocomp.studies.commands import plot_and_tell

        plot_and_tell(folders, out)


@app.command(name="wandb")
def log_run(
    folder: Folder,
    offline: Annotated[bool, typer.Option("--offline", help="write files to be synchronised later; no key")] = False,
    project: Annotated[str, typer.Option(help="W&B project")] = "infocomp",
) -> None:
    """Log a run to Weights & Biases from its table; the same run twice is one run there."""
    with one_sentence():
        from infocomp.execution.wandb_log import log_to_wandb

        raise typer.Exit(0 if log_to_wandb(folder, offline=offline, project=project) else 1)


@app.command()
def export(
    folder: Folder,
    csv: Annotated[bool, typer.Option("--csv", help="the whole table as CSV")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="the mean rows as a booktabs table")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="a file [default: standard output]")] = None,
) -> None:
    """Write the table as CSV or LaTeX."""
    with one_sentence():
        from infocomp.execution.export import export_csv, export_latex

        if csv == latex:
            raise ValueError("export needs exactly one of --csv and --latex.")
        text = (export_csv if csv else export_latex)(folder, to)
        if to is None:
            typer.echo(text, nl=False)


def main() -> None:
    """Entry point of `infocomp`."""
    app()


if __name__ == "__main__":
    main()
