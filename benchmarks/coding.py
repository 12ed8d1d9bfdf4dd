"""The codec's speed and rate, the coder's overhead, what a rate costs beside a bare pass, and whole files both ways.

The model is the demo's (1.3 M parameters, from runs/demo where `make demo` made it, else trained for 128 of its steps
here). English is the language reference that every Python carries, which the demo's model was trained on, and, where
the folder of real data lies beside the checkout, a novel that it was not trained on; files from there are coded whole.
Speeds are best of the rounds, on torch's own number of threads; ratios come from one process.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Result
from benchmarks.shapes import VOCABULARY, pythia_70m, tokenizer
from infocomp.activations.stream import stream
from infocomp.checkpoints.source import DirectorySource
from infocomp.coding.classical import classical_rates
from infocomp.coding.codec import Coded, Coder, compress, decompress, default_chunking
from infocomp.coding.integer_weights import RangeReader, RangeWriter, integer_weights
from infocomp.coding.lockstep import Chunking
from infocomp.coding.rate import CodeLength
from infocomp.corpora.builtin import standard_library_documents, training_documents
from infocomp.corpora.tokens import tokenise
from infocomp.corpora.windows import cut_windows
from infocomp.training.series import SeriesSettings, train_series

BYTES, ROUNDS, STEPS = 100_000, 2, 128
ROWS, BITS_A_TOKEN = 512, (1, 4, 9)
RATE_TOKENS, CONTEXT, BATCH_TOKENS = 40_960, 256, 4096
FILES = ("text/alice29.txt", "images/camera.png", "audio/jfk.wav")


def run() -> list[Result]:
    """Every number of the codec that has a target."""
    with tempfile.TemporaryDirectory(prefix="infocomp-bench-") as folder:
        coder = demo_coder(Path(folder))
        results = codec(coder, "reference", english(), "known")
        if data := real_data():
            novel = (data / "text" / "alice29.txt").read_bytes()[:BYTES].replace(b"\r\n", b"\n")
            results += codec(coder, "novel", novel, "no")
        return [*results, *overheads(), rate_cost(), *whole_files(coder)]


def real_data() -> Path | None:
    """The folder of real data beside the checkout, if it is there."""
    folders = (parent / "shared" / "data" for parent in Path(__file__).resolve().parents)
    return next((folder for folder in folders if (folder / "SOURCES.md").exists()), None)


def demo_coder(folder: Path) -> Coder:
    """The demo's last checkpoint, or that of a short training in `folder`."""
    made = Path(__file__).parents[1] / "runs" / "demo" / "checkpoints"
    if not made.is_dir():
        print(f"  training the demo's model for {STEPS} steps", flush=True)
        settings = SeriesSettings(steps=STEPS)
        train_series(settings, folder, lambda step, steps, loss: None, training_documents())
        made = folder / "checkpoints"
    source = DirectorySource(made)
    loaded = source.open(source.list()[-1])
    return Coder.of(loaded.model, source.tokenizer(), loaded.fingerprint, str(made))


def english() -> bytes:
    """100 kB of the language reference, prose with some examples."""
    documents = standard_library_documents()["pydoc_data"]
    return "".join(document.text for document in documents).encode()[:BYTES]


def codec(coder: Coder, name: str, data: bytes, in_training: str) -> list[Result]:
    """Both ways through 100 kB, at the default chunking, and the best rate that any chunking has."""
    there, back = [], []
    for _ in range(ROUNDS):
        coded = compress(data, coder)
        start = time.perf_counter()
        if decompress(coded.file, coder) != data:
            raise RuntimeError("the text did not come back")
        there.append(coded.seconds)
        back.append(time.perf_counter() - start)
    default = default_chunking(coder, coded.n_tokens)
    rates = {f"default, {default.chunk_tokens}": coded.bits_per_byte}
    context = default.context_length
    for chunk, overlap in ((32, 0), (64, 0), (128, 0), (4 * context, context // 2), (16 * context, context // 2)):
        swept = compress(
            data, coder, Chunking(chunk, min(context, chunk + 1) if not overlap else context, overlap, 128)
        )
        rates[f"{chunk}{f' overlap {overlap}' if overlap else ''}"] = swept.bits_per_byte
        _line(f"chunk {chunk}, overlap {overlap}", swept)
    _line(f"chunk {default.chunk_tokens}, the default", coded)
    best = min(rates.values())
    minutes = [seconds / 60 for seconds in (min(there), min(back))]
    where = f"{len(data):,} bytes, {coded.bits_per_byte:.3f} bits/byte, in the training data: {in_training}"
    return [
        Result(f"decompress against compress, {name}", min(back) / min(there), "×", 1.3, note=where),
        Result(f"compress, {name}", len(data) / 1000 / minutes[0], "kB/min", 500, at_most=False),
        Result(f"decompress, {name}", len(data) / 1000 / minutes[1], "kB/min", 500, at_most=False),
        Result(f"rate above the best chunking, {name}", 100 * (coded.bits_per_byte / best - 1), "%", 3, note=where),
    ]


def overheads() -> list[Result]:
    """Payload of one stream over −Σ log2 p, at a vocabulary of 50,304 and three entropies, less two words."""
    results = []
    for wanted in BITS_A_TOKEN:
        logits = logits_of(wanted)
        shares = torch.log_softmax(logits.double(), 1)
        drawn = torch.multinomial(shares.exp(), 1, generator=torch.Generator().manual_seed(1))
        ideal = -float(shares.gather(1, drawn).sum()) / np.log(2)
        targets, writer = drawn[:, 0].numpy(), RangeWriter()
        start = time.perf_counter()
        weights = integer_weights(logits)
        writer.write(targets, weights)
        seconds = time.perf_counter() - start
        if (RangeReader(writer.words()).read(weights) != targets).any():
            raise RuntimeError("the tokens did not come back")
        expected = -(shares.exp().numpy() * np.log2((weights + 1) / (1 << 24))).sum(axis=1)
        entropy = -(shares.exp() * shares).sum(1).numpy() / np.log(2)
        over = float((expected - entropy).mean())
        words = (8 * len(writer.words()) - ideal - ROWS * over) / 32
        note = f"{ideal / ROWS:.2f} bits/token, {words:+.2f} words besides, {ROWS / seconds:,.0f} tokens/s"
        results.append(Result(f"coder over ideal at {wanted} bits/token", over, "bit/token", 0.005, note=note))
    return results


def logits_of(bits_a_token: float) -> torch.Tensor:
    """Rows of Gaussian logits whose mean entropy is the one asked for."""
    base = torch.randn((ROWS, VOCABULARY), generator=torch.Generator().manual_seed(0))
    low, high = 0.0, 60.0
    for _ in range(20):
        middle = (low + high) / 2
        shares = torch.log_softmax(base[:64].double() * middle, 1)
        entropy = -float((shares.exp() * shares).sum(1).mean()) / np.log(2)
        low, high = (middle, high) if entropy > bits_a_token else (low, middle)
    return base * low


def rate_cost() -> Result:
    """A rate by the blocked head against a bare pass with the LM head, on the same batches in turn."""
    model = pythia_70m()
    corpus = tokenise(training_documents(), tokenizer(), max_tokens=RATE_TOKENS)
    windows = cut_windows(corpus, CONTEXT, 1, packing=True)
    ids = torch.from_numpy(corpus.tokens[: len(corpus.tokens) // CONTEXT * CONTEXT]).long().view(-1, CONTEXT)
    batches = ids.split(BATCH_TOKENS // CONTEXT)
    bare: list[float] = []
    outside = [0.0]

    def between(_: int) -> None:
        start = time.perf_counter()
        with torch.inference_mode():
            model(input_ids=batches[len(bare) % len(batches)], use_cache=False)
        bare.append(time.perf_counter() - start)
        outside[0] += bare[-1]

    between(0), bare.clear()
    outside[0] = 0.0
    probe = CodeLength(model)
    start = time.perf_counter()
    stream(model, windows, [probe], BATCH_TOKENS, between)
    probe.nats()
    seconds = time.perf_counter() - start - outside[0]
    ratio = seconds / (statistics.median(bare) * len(bare))
    return Result("rate, against a bare pass with LM head", ratio, "×", 1.12, note=f"{len(corpus.tokens):,} tokens")


def whole_files(coder: Coder) -> list[Result]:
    """A book, a photograph and a recording, whole, beside classical coders on the same bytes."""
    data = real_data()
    if data is None:
        print("  no folder of real data beside this checkout: whole files are left out")
        return []
    results = []
    for name in FILES:
        original = (data / name).read_bytes()
        coded = compress(original, coder)
        same = decompress(coded.file, coder) == original
        _line(name, coded)
        sizes: list[Any] = classical_rates(original)
        print("    " + ", ".join(f"{size.coder} {size.bits_per_byte:.3f}" for size in sizes), flush=True)
        note = f"{coded.bits_per_byte:.3f} bits/byte, {100 * coded.escape_share:.1f} % escaped"
        results.append(Result(f"{Path(name).name} whole comes back", float(same), "", 1, at_most=False, note=note))
    return results


def _line(title: str, coded: Coded) -> None:
    speed = coded.n_bytes * 60e-3 / coded.seconds
    print(f"  {title}: {coded.bits_per_byte:.4f} bits/byte, {speed:,.0f} kB/min", flush=True)
