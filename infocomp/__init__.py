"""Language models measured as the lossy compressors they are.

Public names are loaded on first use, so that `import infocomp` and `infocomp --help` answer at once.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "SoftInformation": "infocomp.estimators",
    "Estimate": "infocomp.estimators",
    "capture": "infocomp.activations.capture",
    "measure": "infocomp.studies.measure",
    "Callback": "infocomp.studies.callback",
    "read": "infocomp.execution.table",
    "EstimatorSettings": "infocomp.studies.settings",
    "LabelSet": "infocomp.corpora.labels",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'infocomp' has no attribute {name!r}; public are {', '.join(_PUBLIC)}")


def __dir__() -> list[str]:
    return sorted(__all__)
