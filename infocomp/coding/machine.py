"""What of a machine decides the last bit of a logit, written down, compared, and held still while something is coded.

The same model on the same text gives other last bits with another library, another processor, another number of
threads or another shape of batch. The first two are compared with what a file says; the last two are set to it.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "constriction", "tokenizers", "numpy")
NAMES = {
    "device": "kind of device",
    "processor": "processor",
    "torch": "torch",
    "transformers": "transformers",
    "constriction": "constriction",
    "tokenizers": "tokenizers",
    "numpy": "numpy",
}


def environment(device: torch.device) -> dict[str, str]:
    """Kind of device, what it calculates with, and the versions of the libraries in between."""
    if device.type == "cuda":
        processor = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"device": device.type, "processor": processor, **_versions()}


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def differences(written: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """One phrase for each entry in which this machine is another than the one that wrote."""
    return [
        f"{NAMES[name]} {written.get(name)} there and {here[name]} here"
        for name in NAMES
        if written.get(name) != here[name]
    ]


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """That many threads, no algorithm that may answer differently the next time, no TF32; as before afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace or ":4096:8"
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # all of it is written before it is read
        torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
        torch.set_float32_matmul_precision(precision)
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
