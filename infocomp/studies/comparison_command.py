"""`infocomp compare`: paths or repositories and data files as a configuration of the study `comparison`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infocomp.checkpoints.schedule import parse_revision
from infocomp.corpora.files import inner_suffix
from infocomp.corpora.pairs import kind_of

TABLES = (".jsonl", ".ndjson", ".json", ".parquet")


def comparison_config(base: str, tuned: Sequence[str], data: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """The configuration that these words mean.

    A model is a checkpoint folder, a folder of them, or owner/repository, optionally with @revision. A data file is
    what its first record says: pairs (chosen, rejected), chats (messages), else text. ValueError: nothing given.
    """
    if not tuned:
        raise ValueError("at least one --tuned model is needed beside --base; name a folder or owner/repository.")
    if not data:
        raise ValueError("at least one --data file is needed: pairs (chosen, rejected), chats (messages) or text.")
    models = [model_settings(where) for where in (base, *tuned)]
    _name_all(models)
    sets = [data_settings(where) for where in data]
    _name_all(sets)
    return {"study": "comparison", "base": models[0], "tuned": models[1:], "data": sets}


def model_settings(where: str) -> dict[str, Any]:
    """One model: its source, and a short name."""
    path = Path(where).expanduser()
    if path.is_dir():
        steps = [entry for entry in path.iterdir() if entry.is_dir() and parse_revision(entry.name).step is not None]
        name = path.resolve().name
        if (path / "config.json").is_file():
            if parse_revision(name).step is not None:
                name = f"{path.resolve().parent.name} {name}"
            return {"source": "single", "path": where, "name": name}
        if steps:
            return {"source": "folder", "path": where, "name": name}
        raise ValueError(
            f"'{where}' holds neither config.json nor checkpoint folders (step0, checkpoint-500, …); name a folder "
            "that does, or owner/repository."
        )
    repository, _, revision = where.partition("@")
    if repository.count("/") != 1 or where.startswith((".", "~", "/")):
        raise ValueError(
            f"there is no folder '{where}'; name one, or a repository as owner/name or owner/name@revision."
        )
    found = {"source": "single", "repository": repository, "name": where.split("/")[1]}
    return found | ({"revision": revision} if revision else {})


def data_settings(where: str) -> dict[str, Any]:
    """One data set: its kind from its first record, and a short name."""
    path = Path(where).expanduser()
    if not path.exists():
        raise ValueError(f"there is no file '{where}' to read data from; name one that is there.")
    name = path.name.split(".")[0]
    kind = kind_of(path) if path.is_file() and inner_suffix(path) in TABLES else "text"
    if kind == "preference":
        return {"name": name, "kind": kind, "pairs": {"files": where}}
    return {"name": name, "kind": kind, "text": {"files": where}}


def _name_all(entries: list[dict[str, Any]]) -> None:
    """Names that stand twice get the folder before them, or a number."""
    for place, entry in enumerate(entries):
        names = [other["name"] for other in entries[:place]]
        if entry["name"] not in names:
            continue
        where = entry.get("path") or entry.get("repository") or ""
        longer = f"{Path(where).resolve().parent.name}/{entry['name']}" if entry.get("path") else where
        number = 2
        while not longer or longer in names:
            longer = f"{entry['name']} ({number})"
            number += 1
        entry["name"] = longer
