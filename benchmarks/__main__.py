"""python -m benchmarks [NAME …]: run all benchmarks, or those named, print each line, keep latest.json."""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, for the same reason

import torch

from benchmarks import (
    analysis,
    bottleneck,
    coding,
    comparison,
    estimator,
    extraction,
    geometry,
    grokking,
    many,
    memory,
    scaling,
)
from benchmarks.record import keep

ALL = {
    "comparison": comparison.run,
    "estimator": estimator.run,
    "analysis": analysis.run,
    "bottleneck": bottleneck.run,
    "coding": coding.run,
    "extraction": extraction.run,
    "geometry": geometry.run,
    "grokking": grokking.run,
    "many": many.run,
    "memory": memory.run,
    "scaling": scaling.run,
}


def main(names: list[str]) -> int:
    """Exit code 0 when every target was met, 1 otherwise, 2 for an unknown name."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"no benchmark named {unknown[0]!r}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    met = True
    for name in names or ALL:
        print(f"running {name} …", flush=True)
        results = ALL[name]()
        keep(results)
        for result in results:
            print(result.line(), flush=True)
            met &= result.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
