"""A repository with revisions, read by the real `huggingface_hub` client from a small hub on loopback."""

import json
import logging
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from hub_server import online, serve, tiny_model, tiny_tokenizer, write_series
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from infocomp.checkpoints import hub as hub_module
from infocomp.checkpoints.integrity import duplicates, weights_fingerprint
from infocomp.checkpoints.source import DirectorySource, HubSource, SingleSource

REPO = "EleutherAI/pythia-tiny"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000]
DENSE = "gpt_neox.layers.1.attention.dense.weight"
WEIGHTS = r"GET /EleutherAI/pythia-tiny/resolve/.*\.(safetensors|bin) 20"


@pytest.fixture(scope="module")
def revisions(tmp_path_factory) -> Path:
    """13 revisions and main: step1 equals step0, step4 lacks a tensor, step16 holds a NaN, step64 is .bin too."""
    folder = write_series(tmp_path_factory.mktemp("hub"), STEPS)
    shutil.copy(folder / "step0" / "model.safetensors", folder / "step1" / "model.safetensors")
    tensors = load_file(folder / "step4" / "model.safetensors")
    del tensors[DENSE]
    save_file(tensors, folder / "step4" / "model.safetensors", metadata={"format": "pt"})
    tensors = load_file(folder / "step16" / "model.safetensors")
    tensors[DENSE][2, 3] = float("nan")
    save_file(tensors, folder / "step16" / "model.safetensors", metadata={"format": "pt"})
    torch.save(load_file(folder / "step64" / "model.safetensors"), folder / "step64" / "pytorch_model.bin")
    (folder / "step64" / "README.md").write_text("not needed")
    (folder / "step2" / "logs").mkdir()
    (folder / "step2" / "logs" / "model.safetensors").write_text("a file in a folder is none of ours")
    shutil.copytree(folder / "step2000", folder / "main")
    return folder


@pytest.fixture
def hub(revisions, monkeypatch):
    online(monkeypatch)
    with serve({REPO: revisions}) as hub:
        yield hub


@pytest.fixture
def source(hub, tmp_path):
    """Opens a HubSource with a cache of its own."""

    def make(choice="all", **settings):
        settings = {"cache_dir": tmp_path / "cache", **settings}
        return HubSource(settings.pop("repo", REPO), choice, endpoint=hub.endpoint, **settings)

    return make


def sentence(call, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


def test_revisions_are_listed_with_commit_and_fingerprint_and_without_a_download(hub, source, revisions):
    listed = source().list()
    assert [c.revision.step for c in listed] == STEPS
    assert [c.revision.tokens for c in listed] == [None] * len(STEPS)
    assert [c.commit for c in listed] == [hub.commits(REPO)[f"step{step}"] for step in STEPS]
    assert hub.count("resolve") == 0
    assert hub.count("/refs 200") == 1
    assert hub.count("/tree/") == len(STEPS)
    assert listed[2].size_bytes == (revisions / "step2" / "model.safetensors").stat().st_size


def test_duplicates_are_known_before_any_download(hub, source):
    listed = source().list()
    assert duplicates([(c.revision.name, c.files_fingerprint) for c in listed]) == {"step1": "step0"}
    assert hub.count("resolve") == 0


def test_the_same_files_have_the_same_fingerprint_on_the_hub_and_in_a_folder(source, revisions):
    local = {c.revision.name: c.files_fingerprint for c in DirectorySource(revisions).list()}
    assert {c.revision.name: c.files_fingerprint for c in source().list()} == local
    assert len(local) == 13


def test_tokens_seen_follow_from_the_repositorys_name(hub, tmp_path, revisions):
    hub.repositories["EleutherAI/pythia-70m"] = revisions
    listed = HubSource("EleutherAI/pythia-70m", [512], tmp_path, endpoint=hub.endpoint).list()
    assert listed[0].revision.tokens == 512 * 2_097_152


def test_only_the_chosen_revisions_are_asked_for(hub, source):
    assert [c.revision.step for c in source({"log_spaced": 3}).list()] == [0, 32, 2000]
    assert hub.count("/tree/") == 3


def test_a_revision_opens_by_its_commit_with_the_needed_files_only(hub, source):
    with_both = source(["step64"])
    loaded = with_both.open(with_both.list()[0])
    assert loaded.fingerprint == weights_fingerprint(tiny_model(64))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    asked = {request.split()[1] for request in hub.requests if "resolve" in request}
    commit = hub.commits(REPO)["step64"]
    assert {path.split("/")[4] for path in asked} == {commit}
    assert {path.rsplit("/", 1)[1] for path in asked} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_bin_weights_are_fetched_where_there_are_no_safetensors(hub, source, tmp_path):
    folder = tmp_path / "bin"
    shutil.copytree(hub.repositories[REPO] / "step64", folder / "step64")
    (folder / "step64" / "model.safetensors").unlink()
    hub.repositories[REPO] = folder
    old = source()
    assert old.open(old.list()[0]).fingerprint == weights_fingerprint(tiny_model(64))
    assert hub.count("pytorch_model.bin 200") == 2  # HEAD and GET


def test_weights_outside_lfs_are_told_apart_by_their_git_object_id(hub, source):
    hub.outside_lfs = {"model.safetensors"}
    plain = source()
    listed = plain.list()
    assert duplicates([(c.revision.name, c.files_fingerprint) for c in listed]) == {"step1": "step0"}
    assert all(len(file.digest) == 40 for file in listed[0].files)
    assert plain.open(listed[2]).fingerprint == weights_fingerprint(tiny_model(2))


def test_a_whole_series_runs_through_and_only_the_broken_ones_are_refused(source, tmp_path):
    series = source()
    refused, fingerprints = {}, []
    for checkpoint in series.list():
        try:
            loaded = series.open(checkpoint)
            fingerprints.append((checkpoint.revision.name, loaded.fingerprint))
        except ValueError as error:
            refused[checkpoint.revision.name] = str(error)
        series.close(checkpoint)
    assert refused == {
        "step4": f"checkpoint step4 of {REPO} lacks 1 tensor ({DENSE}); refusing to fill them at random",
        "step16": f"step16 of {REPO} has 1 of 256 values of {DENSE} that are NaN or infinite: "
        "the checkpoint is damaged or its training diverged; leave it out",
    }
    assert duplicates(fingerprints) == {"step1": "step0"}
    assert len(fingerprints) == 11
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_closing_deletes_one_revision_from_a_private_cache_and_keeps_what_others_share(source, tmp_path, caplog):
    cache = tmp_path / "cache"
    series = source([0, 1, 2])
    first, same, third = series.list()
    for checkpoint in (first, same, third):
        series.open(checkpoint)
    assert len(list(cache.rglob("snapshots/*/model.safetensors"))) == 3
    series.close(first)
    left = {path.parent.name for path in cache.rglob("snapshots/*/model.safetensors")}
    assert left == {same.commit, third.commit}
    assert all(path.stat().st_size for path in cache.rglob("snapshots/*/model.safetensors"))
    series.close(first)  # closed already: nothing to do, and nothing to say
    assert caplog.messages == []
    series.close(same)
    series.close(third)
    assert not list(cache.rglob("*.safetensors"))
    assert not list(cache.glob("models--*/blobs/*"))
    assert series.open(third).parameters > 0


def test_closing_waits_for_a_download_that_another_thread_has_begun(source, tmp_path, monkeypatch):
    series = source([2, 8])
    first, second = series.list()
    series.open(first)
    begun, go_on = threading.Event(), threading.Event()
    real = hub_module.hf_hub_download

    def slow(*args, **kwargs):
        path = real(*args, **kwargs)
        begun.set()
        assert go_on.wait(30)
        return path

    monkeypatch.setattr(hub_module, "hf_hub_download", slow)
    fetching = threading.Thread(target=series.fetch, args=(second,))
    fetching.start()
    assert begun.wait(30)
    closing = threading.Thread(target=series.close, args=(first,))
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    assert list(tmp_path.rglob("model.safetensors"))
    go_on.set()
    fetching.join()
    closing.join()
    assert [path.parent.name for path in tmp_path.rglob("model.safetensors")] == [second.commit]


def test_nothing_is_deleted_from_a_shared_cache_or_when_eviction_is_off(source, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "shared"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    for series in (source([2], cache_dir=None), source([2], cache_dir=tmp_path / "kept", evict=False)):
        (checkpoint,) = series.list()
        series.open(checkpoint)
        series.close(checkpoint)
    assert len(list((tmp_path / "shared").rglob("model.safetensors"))) == 1
    assert len(list((tmp_path / "kept").rglob("model.safetensors"))) == 1


def test_a_revision_fetched_before_is_not_fetched_again(hub, source):
    first = source([2])
    first.open(first.list()[0])
    before = hub.count("resolve")
    again = source([2])
    assert again.open(again.list()[0]).parameters > 0
    assert hub.count("resolve") == before
    assert hub.count("/tree/") == 1


def test_a_429_to_the_list_of_revisions_is_waited_out_with_a_log_line(hub, source, caplog):
    hub.answer_429("/refs", times=2, retry_after=0)
    with caplog.at_level(logging.WARNING, logger="infocomp"):
        assert len(source().list()) == 13
    assert hub.count("/refs 429") == 2
    assert caplog.messages[0] == (
        f"the hub answered 429 to the request to list the revisions of {REPO}; trying again in 0 s (try 2 of 6)"
    )


def test_the_wait_is_what_the_hub_asks_for_and_grows_where_it_asks_for_nothing(hub, source, monkeypatch):
    waits = []
    monkeypatch.setattr("infocomp.checkpoints.hub.time.sleep", waits.append)
    hub.answer_429("/refs", times=1, retry_after=17)
    hub.answer_429("/refs", times=3, retry_after=None)
    hub.answer_429("/refs", times=1, retry_after=100_000)
    source().list()
    assert waits == [17.0, 2.0, 4.0, 8.0, 300.0]


def test_a_429_that_does_not_end_is_one_sentence(hub, source, monkeypatch):
    monkeypatch.setattr("infocomp.checkpoints.hub.time.sleep", lambda seconds: None)
    hub.answer_429("/refs", times=100)
    assert sentence(source().list, ConnectionError) == (
        f"cannot list the revisions of {REPO}: the hub at {hub.endpoint} failed (429 Too Many Requests for url: "
        f"{hub.endpoint}/api/models/{REPO}/refs); run again later, what was done is kept"
    )
    assert hub.count("/refs 429") == 6


@pytest.mark.parametrize(
    "part", ["/tree/", "HEAD /EleutherAI/pythia-tiny/resolve", "GET /EleutherAI/pythia-tiny/resolve"]
)
def test_a_429_to_a_file_list_or_a_file_is_waited_out_too(hub, source, part):
    hub.answer_429(part, times=2 if part.startswith("HEAD") else 1, retry_after=0)
    series = source([2])
    assert series.open(series.list()[0]).parameters > 0
    assert hub.count(" 429") >= 1


def test_a_revision_that_does_not_exist_is_named_with_its_nearest_three(source):
    assert sentence(source(["step9"]).list) == (f"no revision 'step9' in {REPO}; closest are 'step8', 'step4', 'step2'")


def test_a_revision_deleted_meanwhile_is_one_sentence(hub, source, tmp_path):
    series = source([2])
    (checkpoint,) = series.list()
    shutil.copytree(hub.repositories[REPO] / "step1", tmp_path / "less" / "step1")
    hub.repositories[REPO] = tmp_path / "less"
    assert sentence(lambda: series.open(checkpoint)) == (
        f"cannot fetch config.json of step2 of {REPO}: the hub at {hub.endpoint} has no such revision (any more); "
        "list the repository again"
    )


def test_a_repository_that_does_not_exist_is_one_sentence(hub, source):
    assert sentence(source(repo="EleutherAI/pythia-tinny").list, FileNotFoundError) == (
        f"cannot list the revisions of EleutherAI/pythia-tinny: the hub at {hub.endpoint} has no model repository "
        "'EleutherAI/pythia-tinny', or a private one; check its name, or pass a token"
    )


def test_a_gated_repository_is_one_sentence(hub, source):
    series = source([2])
    (checkpoint,) = series.list()
    hub.refuse("/resolve/", 403, {"X-Error-Code": "GatedRepo"}, times=10)
    assert sentence(lambda: series.open(checkpoint), PermissionError) == (
        f"cannot fetch config.json of step2 of {REPO}: the hub at {hub.endpoint} gives it only to those who may; "
        "accept its terms there and pass a token"
    )


def test_an_answer_of_500_is_waited_out_and_a_strange_one_is_not(hub, source, monkeypatch):
    monkeypatch.setattr("infocomp.checkpoints.hub.time.sleep", lambda seconds: None)
    hub.refuse("/refs", 503, {}, times=3)
    assert len(source().list()) == 13
    hub.refuse("/refs", 418, {}, times=3)
    assert sentence(source().list, OSError).startswith(
        f"cannot list the revisions of {REPO} from the hub at {hub.endpoint}: Client error '418 "
    )
    assert hub.count("/refs 418") == 1


def test_a_name_that_no_repository_can_have_is_one_sentence(source):
    found = sentence(source(repo="a--b/c").list)
    assert found == "cannot list the revisions of a--b/c: Cannot have -- or .. in repo_id: 'a--b/c'"


def test_a_body_that_is_cut_once_is_resumed_by_the_client(hub, source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut("model.safetensors", after=5000)
    series = source([2])
    assert series.open(series.list()[0]).fingerprint == weights_fingerprint(tiny_model(2))
    assert hub.count("model.safetensors 206") == 1


def test_a_truncated_download_is_one_sentence_and_leaves_nothing_half(hub, source, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    hub.cut("model.safetensors", after=5000, times=100)
    series = source([2])
    (checkpoint,) = series.list()
    found = sentence(lambda: series.open(checkpoint), ConnectionError)
    assert found == (
        f"cannot fetch model.safetensors of step2 of {REPO}: the hub at {hub.endpoint} failed (peer closed connection "
        f"without sending complete message body (received 5000 bytes, expected {checkpoint.size_bytes})); "
        "run again later, what was done is kept"
    )
    assert not list((tmp_path / "cache").rglob("*safetensors*"))
    assert not list((tmp_path / "cache").rglob("*.incomplete"))
    hub._cuts.clear()
    assert series.open(checkpoint).parameters > 0


def test_a_file_that_is_not_what_the_hub_lists_is_refused_and_fetched_anew(hub, source, tmp_path):
    series = source([2])
    (checkpoint,) = series.list()
    series.open(checkpoint)
    (file,) = (tmp_path / "cache").rglob("snapshots/*/model.safetensors")
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.resolve().write_bytes(bytes(body))
    found = sentence(lambda: series.open(checkpoint))
    assert found.startswith(f"model.safetensors of step2 of {REPO} is damaged: its hash is ")
    assert found.endswith("…; the copy in the cache is deleted, run again to fetch it anew")
    assert series.open(checkpoint).fingerprint == weights_fingerprint(tiny_model(2))


def test_a_revision_without_weights_is_listed_and_refused_when_opened(hub, source, tmp_path):
    folder = tmp_path / "less"
    shutil.copytree(hub.repositories[REPO] / "step2", folder / "step2")
    (folder / "step2" / "model.safetensors").unlink()
    (folder / "step3").mkdir()
    (folder / "step3" / "README.md").write_text("nothing here yet")
    hub.repositories[REPO] = folder
    series = source()
    two, three = series.list()
    assert (two.files_fingerprint, three.files_fingerprint) == ("", "")
    assert sentence(lambda: series.open(three)) == (
        f"step3 of {REPO} holds no weights (only README.md): its upload or its writing did not end; leave it out"
    )
    assert sentence(lambda: series.open(two)).startswith(f"step2 of {REPO} holds no weights (only config.json, ")


def test_the_tokenizer_and_the_configuration_come_without_weights(hub, source):
    series = source()
    assert series.config().num_hidden_layers == 2
    assert series.tokenizer()("the cat").input_ids == tiny_tokenizer()("the cat").input_ids
    assert hub.count(WEIGHTS) == 0


def test_the_tokenizer_of_main_serves_revisions_that_have_none(hub, source, tmp_path):
    folder = write_series(tmp_path / "bare", [0, 1], tokenizer=False)
    hub.repositories[REPO] = folder
    found = sentence(source().tokenizer, FileNotFoundError)
    assert found.startswith(f"none of the 2 checkpoints of {REPO} has a tokenizer (")
    tiny_model(1).save_pretrained(folder / "main")
    tiny_tokenizer().save_pretrained(folder / "main")
    assert source().tokenizer()("the cat").input_ids == tiny_tokenizer()("the cat").input_ids


def test_a_single_repository_is_its_main_or_the_revision_named(hub, tmp_path):
    settings = {"cache_dir": tmp_path / "cache", "endpoint": hub.endpoint}
    source = SingleSource(REPO, **settings)
    (checkpoint,) = source.list()
    assert checkpoint.revision.name == "main"
    assert source.open(checkpoint).fingerprint == weights_fingerprint(tiny_model(2000))
    assert source.tokenizer()("the cat").input_ids == tiny_tokenizer()("the cat").input_ids
    source.close(checkpoint)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    named = SingleSource(REPO, "step8", **settings)
    assert named.open(named.list()[0]).fingerprint == weights_fingerprint(tiny_model(8))


def test_a_commit_hash_may_be_given_in_place_of_a_name(hub, source):
    commit = hub.commits(REPO)["step8"]
    series = source([commit])
    (checkpoint,) = series.list()
    assert (checkpoint.commit, checkpoint.revision.name) == (commit, commit)
    assert series.open(checkpoint).fingerprint == weights_fingerprint(tiny_model(8))
    assert sentence(source(["ab" * 20]).list) == (
        f"cannot list the files of {REPO} at abababababab: the hub at {hub.endpoint} has no such revision (any more); "
        "list the repository again"
    )


def test_offline_and_not_cached_is_one_sentence(hub, source, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert sentence(source().list, ConnectionError) == (
        f"cannot list the revisions of {REPO}: HF_HUB_OFFLINE=1 and {tmp_path / 'cache'} does not hold it; "
        "unset HF_HUB_OFFLINE, or fetch it once with a network"
    )
    assert hub.requests == []


def test_offline_what_was_fetched_before_opens_and_the_rest_is_one_sentence(source, tmp_path, monkeypatch, caplog):
    before = source([2, 8])
    before.open(before.list()[0])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    series = source([2, 8])
    two, eight = series.list()
    assert caplog.messages[-1].endswith("; using the listing kept on disk")
    assert series.open(two).fingerprint == weights_fingerprint(tiny_model(2))
    assert sentence(lambda: series.open(eight), ConnectionError) == (
        f"cannot fetch config.json of step8 of {REPO}: HF_HUB_OFFLINE=1 and {tmp_path / 'cache'} does not hold it; "
        "unset HF_HUB_OFFLINE, or fetch it once with a network"
    )


def test_offline_what_another_tool_fetched_into_the_cache_by_name_opens(hub, source, tmp_path, monkeypatch):
    from huggingface_hub import snapshot_download

    snapshot_download(REPO, revision="step8", cache_dir=tmp_path / "cache", endpoint=hub.endpoint)
    listed = source([8]).list()
    shutil.rmtree(tmp_path / "cache" / ".infocomp")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    series = source()
    (checkpoint,) = series.list()
    assert (checkpoint.commit, checkpoint.files_fingerprint) == (listed[0].commit, listed[0].files_fingerprint)
    assert series.open(checkpoint).fingerprint == weights_fingerprint(tiny_model(8))


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path, monkeypatch):
    online(monkeypatch)
    with serve({}) as gone:
        endpoint = gone.endpoint
    assert sentence(HubSource(REPO, cache_dir=tmp_path, endpoint=endpoint).list, ConnectionError).startswith(
        f"cannot list the revisions of {REPO}: the hub at {endpoint} failed ("
    )


def test_a_damaged_listing_on_disk_is_read_anew_and_another_hubs_is_not_taken(hub, source, tmp_path, monkeypatch):
    listed = source([2]).list()
    kept = tmp_path / "cache" / ".infocomp" / "EleutherAI--pythia-tiny.json"
    kept.write_text(kept.read_text()[:40])
    assert source([2]).list() == listed
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "endpoint": "https://elsewhere"}))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sentence(source([2]).list, ConnectionError)


def test_a_disk_that_is_full_is_one_sentence(source, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    series = source([2])
    (checkpoint,) = series.list()
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    assert sentence(lambda: series.open(checkpoint), OSError) == (
        f"[Errno 28] cannot fetch config.json of step2 of {REPO}: No space left on device"
    )


def test_a_process_of_its_own_finds_the_hub_by_hf_endpoint(hub, tmp_path):
    hub.answer_429("/refs", times=1, retry_after=0)
    code = """
        from infocomp.checkpoints.source import HubSource
        source = HubSource("EleutherAI/pythia-tiny", {"log_spaced": 3}, "cache")
        for checkpoint in source.list():
            print(checkpoint.revision.step, source.open(checkpoint).fingerprint)
            source.close(checkpoint)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path, env=hub.environment
    )
    assert run.stdout.splitlines() == [f"{step} {weights_fingerprint(tiny_model(step))}" for step in (0, 32, 2000)]
    assert "the hub answered 429" in run.stderr
    assert not list(tmp_path.rglob("*.safetensors"))
