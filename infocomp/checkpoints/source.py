"""Where checkpoints come from: a hub repository with revisions, a folder of checkpoint folders, or one model.

    source = DirectorySource("runs/demo/checkpoints")
    for checkpoint in source.list():
        loaded = source.open(checkpoint)

Every source lists first, without downloading weights or loading them, and then opens one checkpoint at a time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from infocomp.checkpoints.hub import HubSource
from infocomp.checkpoints.integrity import file_hash, files_fingerprint, weight_files
from infocomp.checkpoints.loading import VOCABULARIES, Checkpoint, Checkpoints, ListedFile, Loaded, Source, shown
from infocomp.checkpoints.schedule import Choice, Revision, parse_revision, select, tokens_per_step

Revisions = list[Revision]

__all__ = ["Checkpoint", "DirectorySource", "HubSource", "ListedFile", "Loaded", "SingleSource", "Source"]


class DirectorySource(Source):
    """A folder of checkpoint folders (step0, step512, checkpoint-500, …); whatever else lies there is ignored.

    `model` is what the table calls it, the folder's path where it is not given. `batch_tokens`, tokens a training step,
    turns steps into tokens seen; it is known for a `model` of a published family.
    """

    def __init__(
        self, path: str | Path, choice: Choice = "all", model: str | None = None, batch_tokens: int | None = None
    ):
        self.path = Path(path).expanduser()
        self.choice, self.model = choice, model or str(path)
        self.batch_tokens = batch_tokens if batch_tokens or model is None else tokens_per_step(model)
        self._checkpoints: Checkpoints | None = None

    def list(self) -> Checkpoints:
        """The chosen checkpoints by step, their weight files hashed; FileNotFoundError where there are none."""
        if self._checkpoints is None:
            chosen = select(self._revisions(), self.choice, str(self.path))
            self._checkpoints = [_local(self.path / revision.name, revision, self.model) for revision in chosen]
        return self._checkpoints

    def _revisions(self) -> Revisions:
        """Every folder whose name holds a step, even an empty one: a broken one is seen, not skipped."""
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"no folder {self.path}: one that holds checkpoint folders (step0, step1, …) is needed"
            )
        folders = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        parsed = [parse_revision(name, self.batch_tokens) for name in folders]
        named = [r for r in parsed if r.step is not None or (self.path / r.name / "config.json").is_file()]
        if not named or (self.choice == "all" and all(revision.step is None for revision in named)):
            single = "; it is itself one checkpoint, a single model" if (self.path / "config.json").is_file() else ""
            raise FileNotFoundError(
                f"{self.path} holds no checkpoint folders (step512, checkpoint-500, …); "
                f"the folders in it: {shown(sorted(folders)) or 'none'}{single}"
            )
        return named

    def folder(self, checkpoint: Checkpoint, files: Sequence[ListedFile]) -> Path:
        return Path(checkpoint.path_or_repo)

    def _with_tokenizer(self) -> Iterator[Checkpoint]:
        """A Trainer may leave the tokenizer beside the checkpoint folders."""
        yield from super()._with_tokenizer()
        if any((self.path / name).is_file() for name in VOCABULARIES):
            yield _local(self.path, Revision(self.path.name), self.model)


class SingleSource(Source):
    """One model: a local folder, or a repository at one revision (its "main" where none is named)."""

    def __init__(
        self,
        path_or_repo: str | Path,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        evict: bool = True,
        token: str | None = None,
        endpoint: str | None = None,
    ):
        self.path = Path(path_or_repo).expanduser()
        self.model, self.revision = str(path_or_repo), revision
        self._hub: HubSource | None = None
        self._checkpoints: Checkpoints | None = None
        if self.path.is_dir():
            if revision is not None:
                raise ValueError(
                    f"revision is {revision!r}, but {self.path} is a local folder, which has none: leave it out"
                )
        elif self.model.count("/") > 1 or self.model.startswith((".", "~", "/")):
            raise FileNotFoundError(
                f"no folder {self.path}: a local checkpoint folder, or a repository as owner/name, is needed"
            )
        else:
            self._hub = HubSource(self.model, [revision or "main"], cache_dir, evict, token, endpoint)

    def list(self) -> Checkpoints:
        """The one checkpoint."""
        if self._hub is not None:
            return self._hub.list()
        if self._checkpoints is None:
            if not (self.path / "config.json").is_file():
                raise FileNotFoundError(f"{self.path} has no config.json: a Hugging Face checkpoint folder is needed")
            revision = parse_revision(self.path.resolve().name)
            self._checkpoints = [_local(self.path, revision, self.model)]
        return self._checkpoints

    def folder(self, checkpoint: Checkpoint, files: Sequence[ListedFile]) -> Path:
        return self.path if self._hub is None else self._hub.folder(checkpoint, files)

    def _with_tokenizer(self) -> Iterator[Checkpoint]:
        return super()._with_tokenizer() if self._hub is None else self._hub._with_tokenizer()

    def close(self, checkpoint: Checkpoint) -> None:
        if self._hub is not None:
            self._hub.close(checkpoint)


def _local(folder: Path, revision: Revision, model: str) -> Checkpoint:
    """A local checkpoint folder, its weight files hashed; the others are listed only."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    weights = set(weight_files(names))
    files = tuple(
        ListedFile(name, (folder / name).stat().st_size, file_hash(folder / name) if name in weights else "")
        for name in names
    )
    fingerprint = files_fingerprint((file.name, file.digest) for file in files if file.name in weights)
    return Checkpoint(model, revision, None, str(folder), files, fingerprint)
