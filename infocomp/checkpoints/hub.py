"""A Hugging Face repository whose revisions are the checkpoints: listed by its refs, fetched one at a time.

A listing costs one call for the names and one per chosen revision, and downloads nothing: the sha256 of each weight
file is part of the hub's answer, so equal checkpoints are known beforehand. Listings are kept on disk by commit hash,
so that a repository that was listed and fetched once can be read without a network (HF_HUB_OFFLINE=1).
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, cached_assets_path, constants, hf_hub_download, scan_cache_dir
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from infocomp.checkpoints.integrity import file_hash, files_fingerprint, weight_files
from infocomp.checkpoints.loading import Checkpoint, Checkpoints, ListedFile, Source, first_line
from infocomp.checkpoints.schedule import Choice, Revision, parse_revision, select, tokens_per_step

logger = logging.getLogger(__name__)

HTTPError = HfHubHTTPError.__mro__[1]  # of httpx or httpx2, whichever the installed huggingface_hub speaks
TRANSIENT = {408, 429, 500, 502, 503, 504}
TRIES = 6
LONGEST_WAIT = 300.0  # seconds; a hub's rate limit is counted over five minutes
T = TypeVar("T")


class HubSource(Source):
    """The revisions of a repository. With a `cache_dir` of its own, each one's files are deleted again by `close`.

    `endpoint` is the hub's address where it isn't the one of HF_ENDPOINT.
    """

    def __init__(
        self,
        repo: str,
        choice: Choice = "all",
        cache_dir: str | Path | None = None,
        evict: bool = True,
        token: str | None = None,
        endpoint: str | None = None,
    ):
        self.repo, self.choice, self.token = repo, choice, token
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.evict = evict and cache_dir is not None
        self.api = HfApi(endpoint=endpoint, token=token)
        self._refs: dict[str, str] = {}
        self._trees: dict[str, tuple[ListedFile, ...]] = {}
        self._checkpoints: Checkpoints | None = None
        # Deleting the last revision deletes the whole folder: never while another thread downloads into it.
        self._disk = threading.RLock()

    def list(self) -> Checkpoints:
        """The chosen revisions, each with the hashes of its files; ValueError for a name that the repository lacks."""
        if self._checkpoints is None:
            self._read_listing()
            self._refs = self._list_refs() | self._named_commits()
            batch = tokens_per_step(self.repo)
            chosen = select([parse_revision(name, batch) for name in self._refs], self.choice, self.repo)
            commits = list(dict.fromkeys(self._refs[revision.name] for revision in chosen))
            new = [commit for commit in commits if commit not in self._trees]
            if new:
                logger.info("listing %d revisions of %s", len(new), self.repo)
            with ThreadPoolExecutor(max_workers=4) as pool:
                self._trees.update(zip(new, pool.map(self._list_files, new), strict=True))
            self._write_listing()
            self._checkpoints = [self._checkpoint(revision) for revision in chosen]
        return self._checkpoints

    def _named_commits(self) -> dict[str, str]:
        """Commit hashes that the choice gives in place of names: a result's `commit` can be opened again."""
        names = [] if isinstance(self.choice, str | dict) else [str(name) for name in self.choice]
        return {name: name for name in names if re.fullmatch(r"[0-9a-f]{40}", name)}

    def _checkpoint(self, revision: Revision) -> Checkpoint:
        commit = self._refs[revision.name]
        files = self._trees[commit]
        weights = set(weight_files(file.name for file in files))
        fingerprint = files_fingerprint((file.name, file.digest) for file in files if file.name in weights)
        return Checkpoint(self.repo, revision, commit, self.repo, files, fingerprint)

    def _with_tokenizer(self) -> Iterator[Checkpoint]:
        """Some series keep the tokenizer at "main" only."""
        yield from super()._with_tokenizer()
        if commit := self._refs.get("main"):
            if commit not in self._trees:
                self._trees[commit] = self._list_files(commit)
            yield self._checkpoint(Revision("main"))

    def folder(self, checkpoint: Checkpoint, files: Sequence[ListedFile]) -> Path:
        """Fetches the files by commit hash, unless they are there; each must have the hash that the hub lists."""
        if not files:
            raise ValueError(f"{checkpoint.name} holds none of the files asked for: leave it out")
        with self._disk:
            paths = [self._file(checkpoint, file) for file in files]
        return paths[0].parent

    def _file(self, checkpoint: Checkpoint, file: ListedFile) -> Path:
        """One file in the cache. The client itself checks a file's size, not its content."""
        path = Path(
            self._asked(
                lambda: hf_hub_download(
                    self.repo,
                    file.name,
                    revision=checkpoint.commit,
                    cache_dir=self.cache_dir,
                    token=self.token,
                    endpoint=self.api.endpoint,
                ),
                f"fetch {file.name} of {checkpoint.name}",
            )
        )
        if file.digest and (found := file_hash(path, like=file.digest)) != file.digest:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise ValueError(
                f"{file.name} of {checkpoint.name} is damaged: its hash is {found[:12]}…, the hub lists "
                f"{file.digest[:12]}…; the copy in the cache is deleted, run again to fetch it anew"
            )
        return path

    def close(self, checkpoint: Checkpoint) -> None:
        """Deletes this revision from a private cache; files that other revisions share with it stay."""
        if not self.evict or self.cache_dir is None or not self.cache_dir.is_dir() or checkpoint.commit is None:
            return
        with self._disk:
            scan = scan_cache_dir(self.cache_dir)
            if any(revision.commit_hash == checkpoint.commit for repo in scan.repos for revision in repo.revisions):
                scan.delete_revisions(checkpoint.commit).execute()

    def _list_refs(self) -> dict[str, str]:
        """Branches and tags → commit hash; without a network, those of the last listing or of the cache."""
        try:
            refs = self._asked(lambda: self.api.list_repo_refs(self.repo), f"list the revisions of {self.repo}", TRIES)
        except ConnectionError as error:
            if not self._refs:
                self._read_cache()
            if not self._refs:
                raise
            logger.warning("%s; using the listing kept on disk", first_line(error))
            return self._refs
        return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}

    def _list_files(self, commit: str) -> tuple[ListedFile, ...]:
        """The files at the top of a commit: sha256 of those in LFS, git object ids of the others."""
        tree = self._asked(
            lambda: list(self.api.list_repo_tree(self.repo, revision=commit)),
            f"list the files of {self.repo} at {commit[:12]}",
        )
        files = (file for file in tree if isinstance(file, RepoFile))
        return tuple(ListedFile(f.path, f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in files)

    @property
    def _listing_path(self) -> Path:
        name = self.repo.replace("/", "--") + ".json"
        return (
            cached_assets_path("infocomp", "listings") / name
            if self.cache_dir is None
            else self.cache_dir / ".infocomp" / name
        )

    def _read_listing(self) -> None:
        """The listing kept on disk, if it is of this hub; a commit's files never change and aren't asked for again."""
        try:
            kept = json.loads(self._listing_path.read_text())
            if kept["endpoint"] == self.api.endpoint:
                self._refs = kept["refs"]
                self._trees = {
                    commit: tuple(ListedFile(*file) for file in files) for commit, files in kept["trees"].items()
                }
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.debug("no listing of %s on disk: %s", self.repo, error)

    def _write_listing(self) -> None:
        trees = {commit: [(f.name, f.size, f.digest) for f in files] for commit, files in self._trees.items()}
        try:
            path = self._listing_path
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"endpoint": self.api.endpoint, "refs": self._refs, "trees": trees}))
            temporary.replace(path)
        except OSError as error:  # a cache that can't be written costs a listing the next time, nothing more
            logger.debug("the listing of %s is not kept: %s", self.repo, error)

    def _read_cache(self) -> None:
        """Revisions that another tool fetched into the cache by name; a blob's file name is its hash."""
        try:
            cached = [
                repo
                for repo in scan_cache_dir(self.cache_dir).repos
                if (repo.repo_id, repo.repo_type) == (self.repo, "model")
            ]
        except (CacheNotFound, OSError):
            return
        for revision in (revision for repo in cached for revision in repo.revisions):
            names = {file: file.file_path.relative_to(revision.snapshot_path).as_posix() for file in revision.files}
            self._refs.update(dict.fromkeys(revision.refs, revision.commit_hash))
            self._trees[revision.commit_hash] = tuple(
                ListedFile(name, file.size_on_disk, file.blob_path.name if len(file.blob_path.name) in (40, 64) else "")
                for file, name in names.items()
            )

    def _asked(self, call: Callable[[], T], what: str, tries: int = 1) -> T:
        """A call to the hub, its failure as one sentence. `tries` is above 1 where the client itself does not retry."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return call()
            except Exception as error:
                response = getattr(error, "response", None)
                if response is None or response.status_code not in TRANSIENT or attempt == tries:
                    raise self._sentence(error, what) from error
                wait = _wait(response.headers, attempt)
                logger.warning(
                    "the hub answered %s to the request to %s; trying again in %.0f s (try %d of %d)",
                    response.status_code, what, wait, attempt + 1, tries,
                )  # fmt: skip
                time.sleep(wait)

    def _sentence(self, error: Exception, what: str) -> Exception:
        """What went wrong, and what to do about it. Only ConnectionError is worth another try as things are."""
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        hub = f"the hub at {self.api.endpoint}"
        if isinstance(cause, OfflineModeIsEnabled | LocalEntryNotFoundError):
            where = self.cache_dir or constants.HF_HUB_CACHE
            return ConnectionError(
                f"cannot {what}: HF_HUB_OFFLINE=1 and {where} does not hold it; "
                f"unset HF_HUB_OFFLINE, or fetch it once with a network"
            )
        if isinstance(cause, GatedRepoError) or status == 403:
            return PermissionError(
                f"cannot {what}: {hub} gives it only to those who may; accept its terms there and pass a token"
            )
        if isinstance(cause, RevisionNotFoundError):
            return ValueError(f"cannot {what}: {hub} has no such revision (any more); list the repository again")
        if isinstance(cause, RepositoryNotFoundError) or status == 401:
            return FileNotFoundError(
                f"cannot {what}: {hub} has no model repository {self.repo!r}, or a private one; "
                f"check its name, or pass a token"
            )
        if status in TRANSIENT or (status is None and isinstance(cause, HTTPError)):
            return ConnectionError(
                f"cannot {what}: {hub} failed ({first_line(cause)}); run again later, what was done is kept"
            )
        if isinstance(cause, HFValidationError):
            return ValueError(f"cannot {what}: {first_line(cause)}")
        if isinstance(cause, OSError) and cause.errno is not None:
            return OSError(cause.errno, f"cannot {what}: {cause.strerror or first_line(cause)}")
        return OSError(f"cannot {what} from {hub}: {first_line(cause)}; run again, what was done is kept")


def _wait(headers: Mapping[str, str], attempt: int) -> float:
    """Seconds before the next try: what the hub asks for (Retry-After, or t= in RateLimit), else 1, 2, 4, … 32."""
    asked = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", "")) or re.search(
        r"\bt=(\d+)", headers.get("RateLimit", "")
    )
    return min(float(asked[1]) if asked else 2.0 ** (attempt - 1), LONGEST_WAIT)
