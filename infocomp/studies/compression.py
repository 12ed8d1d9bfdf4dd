"""`infocomp compress` and `infocomp decompress`: files in and out, and the sentences that are printed about them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infocomp.checkpoints.source import Checkpoint, DirectorySource, SingleSource, Source
from infocomp.coding.classical import classical_rates
from infocomp.coding.codec import DTYPES, Coded, Coder, check_header, compress, decompress, default_chunking, named
from infocomp.coding.container import Container, check_writable, write_whole
from infocomp.coding.lockstep import Chunking
from infocomp.coding.pieces import split_bytes
from infocomp.execution.session import Bars
from infocomp.studies.model_source import device_of
from infocomp.studies.settings import ComputeSettings

ENDING = ".icz"


@dataclass(frozen=True)
class CodecOptions:
    """How a file is cut and what it is computed with; None takes the default."""

    chunk_tokens: int | None = None
    context_length: int | None = None
    overlap: int = 0
    dtype: str = "float32"
    device: str = "auto"
    threads: int | None = None


def compress_and_tell(
    path: Path,
    model: str,
    revision: str | None,
    out: Path | None,
    options: CodecOptions,
    force: bool = False,
    verify: bool = False,
    compare: bool = False,
) -> Coded:
    """Compress a file, write it whole, print where its bytes went. Raises before any model is loaded where it can."""
    out = out or path.with_name(path.name + ENDING)
    _refuse_itself(path, out)
    data = _read(path)
    check_writable(out, force)
    coder = open_coder(model, revision, options)
    pieces = split_bytes(data, coder.tokenizer)
    about = (options.chunk_tokens, options.context_length, options.overlap)
    chunking = default_chunking(coder, len(pieces.tokens), *about)
    coded = _with_bar(
        "compressing",
        len(pieces.tokens),
        lambda progress: compress(data, coder, chunking, progress, options.threads, pieces),
    )
    start = time.perf_counter()
    if verify:
        back = _with_bar("verifying", coded.n_tokens, lambda progress: decompress(coded.file, coder, progress))
        if back != data:
            raise RuntimeError(f"{path} did not come back from its own code; nothing was written, please report it.")
    verified = time.perf_counter() - start if verify else None
    write_whole(out, coded.file, force)
    print(told(path, out, coded, chunking, verified))
    if compare and data:
        rates = ", ".join(f"{rate.coder} {rate.bytes:,} ({rate.bits_per_byte:.3f})" for rate in classical_rates(data))
        print(f"same bytes  {rates} bytes (bits/byte)")
    return coded


def decompress_and_tell(
    path: Path,
    out: Path | None,
    model: str | None = None,
    revision: str | None = None,
    force: bool = False,
    attempt: bool = False,
    device: str | None = None,
) -> None:
    """Write the file that was compressed, whole and found right, or nothing."""
    if out is None:
        if path.suffix != ENDING:
            raise ValueError(f"{path} does not end in {ENDING}, so that -o must name the file to write.")
        out = path.with_suffix("")
    _refuse_itself(path, out)
    container = Container.unpack(_read(path), str(path))
    check_writable(out, force)
    header = container.header
    check_header(header, str(path))
    options = CodecOptions(dtype=header["dtype"], device=device or header["environment"]["device"])
    coder = _coder_of(header, str(path), model, revision, options)
    start = time.perf_counter()
    data = _with_bar(
        "decompressing",
        header["tokens"],
        lambda progress: decompress(container, coder, progress, attempt, str(path)),
    )
    write_whole(out, data, force)
    seconds = time.perf_counter() - start
    print(f"{out}  {len(data):,} bytes, the checksum holds; {_speed(len(data), seconds)}")


def open_coder(model: str, revision: str | None, options: CodecOptions) -> Coder:
    """A model by folder, folder of checkpoints, run folder, or repository, ready to code."""
    source, checkpoint = find_model(model, revision)
    if options.dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {options.dtype!r}.")
    device = device_of(ComputeSettings(device=options.device))
    loaded = source.open(checkpoint, getattr(torch, options.dtype), device)
    named_revision = revision if not isinstance(source, DirectorySource) else checkpoint.revision.name
    folder = Path(model).expanduser()
    found_again = str(folder.resolve()) if folder.is_dir() else model  # from any folder, and never as a repository
    about = (loaded.fingerprint, found_again, named_revision, checkpoint.commit)
    return Coder.of(loaded.model, source.tokenizer(), *about)


def find_model(model: str, revision: str | None) -> tuple[Source, Checkpoint]:
    """Where a model lies, and the checkpoint that is meant: the last one of a series where none is named."""
    folder = Path(model).expanduser()
    for series in (folder / "checkpoints", folder):
        if series.is_dir() and not (folder / "config.json").is_file():
            try:
                source: Source = DirectorySource(series, "all" if revision is None else [revision], model)
                return source, source.list()[-1]
            except FileNotFoundError:
                continue
    source = SingleSource(model, revision)
    return source, source.list()[-1]


def _coder_of(
    header: dict[str, Any], path: str, model: str | None, revision: str | None, options: CodecOptions
) -> Coder:
    """The model that the file names, or the one that is given in its place."""
    if model is not None:
        return open_coder(model, revision, options)
    try:
        return open_coder(header["model"], header["commit"] or header["revision"], options)
    except (FileNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{path} was written with {named(header)}, which is not to be had here ({str(error).rstrip('.')}); "
            f"--model says where it is (weights {header['weights'][:12]}…)."
        ) from error


def told(path: Path, out: Path, coded: Coded, chunking: Chunking, verified: float | None) -> str:
    """A few lines about a compressed file: sizes, shares, how it was cut, how long it took."""
    rate = "" if coded.bits_per_byte is None else f"   {coded.bits_per_byte:.4f} bits/byte"
    lines = [
        f"{path}  {coded.n_bytes:,} bytes",
        f"{out}  {len(coded.file):,} bytes{rate}",
        f"  payload     {coded.payload_bytes:,} bytes, {coded.n_tokens:,} tokens",
        f"  escapes     {coded.escape_bytes:,} bytes for {coded.escaped:,} bytes that no token gives back "
        f"({100 * coded.escape_share:.2f} % of the file)",
        f"  header      {coded.header_bytes:,} bytes, checksums included",
    ]
    if coded.n_tokens:
        over = coded.overhead_bits / coded.n_tokens
        saved = coded.floor_saved_bits / 8
        floor = f"; at most 24 bits a token saved {saved:,.0f} bytes" if saved >= 1 else ""
        lines.append(f"  coder       {over:+.4f} bits/token from −log2 p of the model{floor}")
        lines.append(
            f"  chunks      {chunking.chunk_tokens:,} tokens, context {chunking.context_length:,}, "
            f"overlap {chunking.overlap:,}, at most {chunking.lanes} side by side"
        )
    lines.append(f"  time        {_speed(coded.n_bytes, coded.seconds)}")
    if coded.n_bytes and not coded.n_tokens:
        lines.append("  note        hardly text for this tokenizer: coded without the model")
    elif len(coded.file) > coded.n_bytes:
        lines.append("  note        larger than the original: too short, or a text that this model cannot predict")
    if verified is not None:
        lines.append(f"  verified    decoded and compared, {_speed(coded.n_bytes, verified)}")
    return "\n".join(lines)


def _speed(n_bytes: int, seconds: float) -> str:
    return f"{seconds:.1f} s ({n_bytes * 60e-3 / max(seconds, 1e-9):,.0f} kB/min)"


def _refuse_itself(path: Path, out: Path) -> None:
    if out.exists() and path.exists() and out.samefile(path):
        raise ValueError(f"{out} is the file that is read; name another one to write.")


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one file.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}.") from None


def _with_bar(title: str, total: int, work: Callable[[Callable[[int], None]], Any]) -> Any:
    report = Bars()
    report.begin(title, total, "token")
    try:
        return work(report.advance)
    finally:
        report.end()
