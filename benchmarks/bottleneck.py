"""The bottleneck curve of real text: token → next token, V = 8,192, a million pairs, |T| = 256, 30 betas.

The text is the built-in one (the installation's standard library), its tokens from a byte-level BPE of 8,192 tokens
trained on it; pairs do not cross documents. Timed from the joint to the curve with two restarts, and three points are
repeated with 10 × the steps from other starts. Run in a process of its own, so that the peak of memory is its own.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.record import Result
from infocomp.corpora.builtin import training_documents

VOCABULARY, PAIRS, CLUSTERS = 8192, 1_048_576, 256
BETAS = np.geomspace(1.5, 60, 30)

CHILD = """
import json, resource, time
from benchmarks.bottleneck import BETAS, CLUSTERS, pairs
from infocomp.bottleneck import Joint, repeat_points, solve
x, y, _ = pairs()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, cpu = time.perf_counter(), time.process_time()
joint = Joint.from_pairs(x, y, sizes=(x.max() + 1, y.max() + 1))
curve = solve(joint, BETAS, CLUSTERS)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
again = repeat_points(joint, curve, which=(5, 15, 25))
points = [list(map(float, row)) for row in zip(curve.betas, curve.complexity, curve.relevance, curve.lagrangian,
    curve.iterations, curve.last_change, curve.restart_spread)]
print(json.dumps({
    "seconds": seconds, "cpu": cpu, "peak": peak * 1024, "before": before * 1024, "pairs": len(x), "sizes": joint.sizes,
    "information": joint.mutual_information, "entropy": joint.entropy_x, "points": points, "status": curve.status,
    "repeat_seconds": time.perf_counter() - start, "repeated": again.lines(),
    "spread": float(again.spread.max()),
    "relevance_spread": float(again.relevance_spread.max()),
}))
"""


def pairs(most: int = PAIRS, vocabulary: int = VOCABULARY) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token, next token and document of the first `most` pairs; tokens are kept in the temporary folder.

    Documents come in an order drawn from a seed, so that a part of the text is a sample of all of it.
    """
    path = Path(tempfile.gettempdir()) / f"infocomp-benchmark-pairs-{vocabulary}-{most}.npz"
    if not path.exists():
        texts = [document.text for document in training_documents()]
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
        bpe.train_from_iterator(texts, trainer)
        order = np.random.default_rng(0).permutation(len(texts))
        ids = [np.array(bpe.encode(texts[i]).ids) for i in order]
        kept = [(tokens[:-1], tokens[1:], np.full(len(tokens) - 1, i)) for i, tokens in enumerate(ids) if len(tokens)]
        x, y, document = (np.concatenate(part)[:most].astype(np.int32) for part in zip(*kept, strict=True))
        np.savez(path, x=x, y=y, document=document)
    found = np.load(path)
    return found["x"], found["y"], found["document"]


def run() -> list[Result]:
    """Seconds, peak memory, points that did not converge, and the spread of repeated points."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the bottleneck benchmark's process failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for line in found["repeated"]:
        print("  " + line)
    left = sum(status != "converged" for status in found["status"])
    spread = max(point[6] for point in found["points"])
    about = f"{found['pairs']:,} pairs, I(X;Y) {found['information']:.3f} bits, {found['cpu']:.0f} s of processor time"
    return [
        Result("bottleneck curve of text, |T| = 256", found["seconds"], "s", 240, note=about),
        Result("bottleneck curve, peak memory", found["peak"] / 2**30, "GiB", 4),
        Result(
            "bottleneck curve, points not converged", left, "of 30", 0, note=f"restarts differ by ≤ {spread:.4f} bits"
        ),
        Result(
            "bottleneck, three points again, I(T;Y)", found["relevance_spread"], "bits", 0.05, note="10 × the steps"
        ),
    ]
