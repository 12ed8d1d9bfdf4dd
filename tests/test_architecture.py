"""Data flows one way: who may import whom, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "infocomp"
LIGHT = {"units", "config", "config_errors", "yaml_text"}

# room → rooms it may import; "units" and the configuration files are open to all
ALLOWED = {
    "estimators": set(),
    "bottleneck": set(),
    "checkpoints": set(),
    "corpora": set(),
    "activations": {"corpora"},
    "coding": {"checkpoints", "corpora", "activations", "estimators"},
    "training": {"checkpoints", "corpora", "activations", "estimators"},
    "memorization": {"checkpoints", "corpora", "activations", "estimators", "coding", "training"},
    "grokking": {"checkpoints", "corpora", "activations", "estimators", "training"},
    "geometry": {"checkpoints", "corpora", "activations", "estimators", "training"},
    "execution": set(),
    "plotting": {"execution"},
    "studies": {
        *("checkpoints", "corpora", "activations", "estimators"),
        *("coding", "training", "memorization", "grokking", "geometry", "execution", "plotting", "bottleneck"),
    },
    "cli": {"studies", "execution"},
    "__init__": {"estimators", "activations", "corpora", "execution", "studies"},
}


def imports_of(path: Path) -> set[str]:
    """Rooms of this package that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "infocomp" else [f"infocomp.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("infocomp.")}
    return found


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_turns_round(path):
    room = room_of(path)
    forbidden = imports_of(path) - ALLOWED.get(room, set()) - LIGHT - {room}
    assert not forbidden, f"{path.relative_to(PACKAGE.parent)} imports {', '.join(sorted(forbidden))}: against the flow"


def test_estimators_know_tensors_not_models():
    for path in (PACKAGE / "estimators").glob("*.py"):
        assert "transformers" not in path.read_text("utf-8"), path.name


def test_help_needs_nothing_heavy():
    code = "import sys, infocomp.cli, infocomp.config; print([m for m in ('torch', 'transformers', 'pandas', "
    code += "'matplotlib', 'wandb', 'datasets', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    import infocomp

    for name in infocomp.__all__:
        assert getattr(infocomp, name) is not None
    with pytest.raises(AttributeError, match="public are SoftInformation"):
        infocomp.nothing  # noqa: B018
