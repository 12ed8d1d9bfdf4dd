"""Text that every Python installation carries: its standard library's source and its prose documentation.

No network, no licence question, a few megabytes. Left out: tests, what is not the library's own (site-packages),
what differs from machine to machine (build configuration), and the character tables of `encodings`, which a program
wrote. Line ends are those of Unix everywhere, so that one CPython version gives one text on every platform.

The split is by whole top-level packages. Held out is a fixed list: the folder packages that CPython 3.11 to 3.14 all
carry on every platform, in the order of the SHA-256 of their names, taken until 450 kB. A list, because under a hash
of every name the modules that become packages or change their names between versions (zipfile, datetime) would
cross the split; by hash, so that nobody chose what is easy.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from infocomp.corpora.documents import Document

EVERYWHERE = (
    *("asyncio", "collections", "concurrent", "ctypes", "email", "html", "http", "importlib", "json", "logging"),
    *("multiprocessing", "re", "sqlite3", "tomllib", "unittest", "urllib", "wsgiref", "xml", "xmlrpc", "zoneinfo"),
)
"""The folder packages of CPython 3.11 to 3.14 that no distribution splits off and that hold text, not tables."""

HELD_OUT_PACKAGES = ("collections", "json", "logging", "importlib")
"""The first of EVERYWHERE by SHA-256 of the name, until 450 kB; a test draws the list again."""

LEFT_OUT_ANYWHERE = {"__pycache__", "_bundled", "idle_test", "lib-dynload", "test", "tests"}
LEFT_OUT_ON_TOP = {
    "dist-packages",
    "encodings",  # character tables written by a program
    "ensurepip",  # split off by distributions
    "site-packages",
    "sitecustomize",
    "usercustomize",
}
LEFT_OUT_BEGINNINGS = ("_sysconfigdata", "_sysconfig_vars", "build-details", "config-")  # differ between machines

LEAST_TRAINING = 2_000_000
LEAST_HELD_OUT = 300_000
"""Bytes under which the installation is taken to be stripped of its source; CPython 3.11 to 3.13 have 9 M and 0.5 M."""


def standard_library_documents(folder: str | Path | None = None) -> dict[str, list[Document]]:
    """Top-level package or module → its documents, in the order of names; `folder` defaults to this installation's.

    A document is one source file, named by its path ("json/decoder.py"), one topic of the language reference
    ("pydoc_data/topics/assert") or the licence. FileNotFoundError where the installation carries no source.
    """
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder)
    packages: dict[str, list[Document]] = {}
    for path in _sources(root):
        relative = path.relative_to(root)
        is_topics = relative.as_posix() == "pydoc_data/topics.py"
        documents = _topics(path, relative) if is_topics else [_document(path, relative)]
        packages.setdefault(relative.parts[0].removesuffix(".py"), []).extend(documents)
    if (root / "LICENSE.txt").is_file():
        packages["LICENSE"] = [_document(root / "LICENSE.txt", Path("LICENSE.txt"))]
    if not packages:
        raise FileNotFoundError(_without_source(root, "no source"))
    return {name: packages[name] for name in sorted(packages)}


def training_documents(folder: str | Path | None = None) -> list[Document]:
    """Every document that is not held out; FileNotFoundError below 2 MB, where the source must have been removed."""
    packages = standard_library_documents(folder)
    kept = [document for name, held in packages.items() if name not in HELD_OUT_PACKAGES for document in held]
    return _enough(kept, LEAST_TRAINING, folder)


def held_out_documents(folder: str | Path | None = None) -> list[Document]:
    """The documents of HELD_OUT_PACKAGES; FileNotFoundError where one is missing or they are below 300 kB."""
    packages = standard_library_documents(folder)
    kept = [document for name in HELD_OUT_PACKAGES for document in packages.get(name, [])]
    return _enough(kept, LEAST_HELD_OUT, folder)


def hash_order(names: Iterable[str]) -> list[str]:
    """The names in the order of their SHA-256, a draw that nobody chose and that everybody can repeat."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def _sources(root: Path) -> list[Path]:
    """The Python files that belong to the text, ordered by their path with "/" on every platform."""
    found = [path for path in root.rglob("*.py") if _belongs(path.relative_to(root).parts)]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _belongs(parts: tuple[str, ...]) -> bool:
    top = parts[0].removesuffix(".py")
    if top in LEFT_OUT_ON_TOP or top.startswith(LEFT_OUT_BEGINNINGS):
        return False
    return not LEFT_OUT_ANYWHERE.intersection(part.removesuffix(".py") for part in parts)


def _document(path: Path, relative: Path) -> Document:
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    return Document(name=relative.as_posix(), text=text)


def _topics(path: Path, relative: Path) -> list[Document]:
    """The topics of the language reference as prose: the values of the dictionary that the file assigns.

    A file that is written otherwise stays one document of source.
    """
    tables = [node.value for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    for table in tables:
        if isinstance(table, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(table)
            return [Document(name=f"pydoc_data/topics/{topic}", text=text) for topic, text in sorted(topics.items())]
    return [_document(path, relative)]


def _enough(documents: list[Document], least: int, folder: str | Path | None) -> list[Document]:
    size = sum(len(document.text.encode()) for document in documents)
    if size < least:
        root = Path(sysconfig.get_path("stdlib") if folder is None else folder)
        raise FileNotFoundError(_without_source(root, f"{size:,} bytes of source where {least:,} are needed"))
    return documents


def _without_source(root: Path, found: str) -> str:
    return (
        f"the standard library in {root} holds {found} (zipped, stripped or compiled only); "
        "use a CPython that carries its .py files, or give a text of your own"
    )
