"""Arrays kept from one command to the next, under a name that is the hash of what they were made from.

What is kept can be made again: a damaged file is replaced, and a full disk costs time at the next command, no result.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


def kept_arrays(path: Path | None, make: Callable[[], Arrays]) -> Arrays:
    """The arrays in the safetensors file `path`; made and written there where it is missing or cannot be read.

    Without a path they are made and not kept.
    """
    if path is None:
        return make()
    try:
        return load_file(path)
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError) as error:
        log.warning("%s cannot be read (%s) and is made again", path, error)
    arrays = make()
    try:
        _write(arrays, path)
    except (OSError, SafetensorError) as error:
        log.warning("%s cannot be written (%s): it will be made again next time", path, error)
    return arrays


def _write(arrays: Arrays, path: Path) -> None:
    """To a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        save_file(arrays, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
