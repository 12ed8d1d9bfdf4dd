"""A Hugging Face hub of one's own on loopback: a folder of revisions, served to the real `huggingface_hub` client.

    with serve({"EleutherAI/tiny": folder}) as hub:  # folder/step0/config.json, folder/step1/model.safetensors, …
        HubSource("EleutherAI/tiny", endpoint=hub.endpoint)
        hub.requests                                         # every request: "GET /api/models/EleutherAI/tiny/refs 200"

In the test's own process the client has been told by conftest to stay offline: `online(monkeypatch)` lets it reach
loopback, and nothing else. A subprocess needs the environment `hub.environment`. Faults are asked for with
`answer_429`, `refuse` and `cut`.
"""

import hashlib
import json
import os
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

LFS = {".safetensors", ".bin", ".pt"}


class Hub:
    """What the server serves, and what it was asked."""

    def __init__(self, repositories: dict[str, Path]):
        self.repositories = repositories
        self.endpoint = ""
        self.requests: list[str] = []
        self.outside_lfs: set[str] = set()  # weight files to serve as plain git blobs
        self._commits: dict[tuple, dict[str, str]] = {}
        self._refusals: list[list] = []  # [part of a path, answers left, status, headers]
        self._cuts: list[list] = []  # [part of a path, bytes, answers left]

    @property
    def environment(self) -> dict[str, str]:
        """For a subprocess: online, with this hub as the hub."""
        return {**os.environ, "HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0",
                "NO_PROXY": "127.0.0.1"}  # fmt: skip

    def answer_429(self, part: str, times: int = 1, retry_after: int | None = 0) -> None:
        """The next requests whose path holds `part` are told to come again."""
        self.refuse(part, 429, {} if retry_after is None else {"Retry-After": str(retry_after)}, times)

    def refuse(self, part: str, status: int, headers: dict[str, str], times: int = 1) -> None:
        """The next requests whose path holds `part` get this answer."""
        self._refusals.append([part, times, status, headers])

    def cut(self, part: str, after: int, times: int = 1) -> None:
        """The next bodies of paths that hold `part` end after so many bytes, and the connection with them."""
        self._cuts.append([part, after, times])

    def count(self, pattern: str) -> int:
        """Requests so far that match a regular expression."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def files(self, repo: str, revision: str) -> dict[str, bytes]:
        folder = self.repositories[repo] / revision
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}

    def commits(self, repo: str) -> dict[str, str]:
        """Revision → commit, a hash of its name and its files."""
        folders = sorted(self.repositories[repo].iterdir())
        state = tuple((path, path.stat().st_mtime_ns) for folder in folders for path in sorted(folder.iterdir()))
        if state not in self._commits:
            self._commits[state] = {folder.name: self._commit(repo, folder.name) for folder in folders}
        return self._commits[state]

    def _commit(self, repo: str, revision: str) -> str:
        digest = hashlib.sha1(revision.encode())
        for name, body in self.files(repo, revision).items():
            digest.update(name.encode() + body)
        return digest.hexdigest()

    def entry(self, name: str, body: bytes) -> dict:
        oid = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        entry = {"type": "file", "path": name, "size": len(body), "oid": oid}
        if Path(name).suffix in LFS and name not in self.outside_lfs:
            entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
        return entry

    def take(self, faults: list[list], path: str, left: int) -> list | None:
        """The first fault that is still due for this path, counted down."""
        for fault in faults:
            if fault[0] in path and fault[left] > 0:
                fault[left] -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two packets: 40 ms an answer otherwise
    hub: Hub

    def log_message(self, format, *args):  # the requests are kept in the hub instead of being printed
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if fault := self.hub.take(self.hub._refusals, f"{self.command} {path}", 1):
            return self.answer(fault[2], b'{"error": "asked for by a test"}', fault[3])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(refs|tree|revision)(?:/([^/]+))?)?", path):
            return self.api(match[1], match[2], match[3])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(match[1], match[2], match[3])
        return self.error(404, "NotFound", f"no such page: {path}")

    def revision(self, repo: str, name: str) -> str | None:
        """The folder of a revision given by name or commit; None, and the answer already sent, where there is none."""
        if repo not in self.hub.repositories:
            self.error(404, "RepoNotFound", "Repository not found")
            return None
        commits = self.hub.commits(repo)
        for revision, commit in commits.items():
            if name in (revision, commit):
                return revision
        self.error(404, "RevisionNotFound", f"Invalid rev id: {name}")
        return None

    def api(self, repo: str, what: str | None, name: str | None):
        if what == "refs":
            if repo not in self.hub.repositories:
                return self.error(404, "RepoNotFound", "Repository not found")
            branches = [
                {"name": revision, "ref": f"refs/heads/{revision}", "targetCommit": commit}
                for revision, commit in self.hub.commits(repo).items()
            ]
            return self.json({"branches": branches, "tags": [], "converts": []})
        revision = self.revision(repo, name or "main")
        if revision is None:
            return None
        entries = [self.hub.entry(name, body) for name, body in self.hub.files(repo, revision).items()]
        if what == "tree":
            folders = [path.name for path in (self.hub.repositories[repo] / revision).iterdir() if path.is_dir()]
            return self.json(entries + [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders])
        siblings = [{"rfilename": entry["path"]} for entry in entries]
        return self.json({"id": repo, "sha": self.hub.commits(repo)[revision], "siblings": siblings, "tags": []})

    def file(self, repo: str, name: str, file: str):
        revision = self.revision(repo, name)
        if revision is None:
            return None
        commit = {"X-Repo-Commit": self.hub.commits(repo)[revision]}
        files = self.hub.files(repo, revision)
        if file not in files:
            return self.error(404, "EntryNotFound", "Entry not found", commit)
        body, entry = files[file], self.hub.entry(file, files[file])
        headers = {**commit, "ETag": f'"{entry["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(body))}
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        fault = self.hub.take(self.hub._cuts, file, 2) if self.command == "GET" else None
        self.answer(status, body[start:], headers, cut=None if fault is None else max(fault[1] - start, 0))

    def json(self, value):
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        headers = {**(headers or {}), "X-Error-Code": code, "X-Error-Message": message}
        self.answer(status, json.dumps({"error": message}).encode(), headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None):
        self.hub.requests.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = cut is not None


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """A hub on a free port of loopback, until the block ends."""
    hub = Hub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        huggingface_hub.close_session()
        server.shutdown()
        server.server_close()
        thread.join()


def online(monkeypatch) -> None:
    """The client of this process may speak, to loopback only: any other address fails the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    connect = socket.socket.connect

    def loopback_only(self, address):
        assert address[0] == "127.0.0.1", f"a test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    huggingface_hub.close_session()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens, trained on one sentence."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog sat on the log"], trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )


def tiny_model(seed: int, **changes) -> GPTNeoXForCausalLM:
    """A random GPT-NeoX of two layers and 16 dimensions."""
    settings = dict(
        vocab_size=300, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(GPTNeoXConfig(**{**settings, **changes})).eval()


def write_series(folder: Path, steps: list[int], tokenizer: bool = True) -> Path:
    """Random GPT-NeoX checkpoints as ordinary folders step{N}, each with its own seed, all with the same tokenizer."""
    for step in steps:
        tiny_model(step).save_pretrained(folder / f"step{step}")
        if tokenizer:
            tiny_tokenizer().save_pretrained(folder / f"step{step}")
    return folder
