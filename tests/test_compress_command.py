"""`infocomp compress` and `decompress` as a user types them: files, sentences, exit codes, kills."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_coder import neox_model, neox_tokenizer
from tiny_text import some_texts
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.coding.codec import HEADER, Coded
from infocomp.coding.container import Container
from infocomp.coding.lockstep import Chunking
from infocomp.studies import compression
from infocomp.studies.compression import find_model, told

TEXT = "".join(some_texts(3)).encode()


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A run folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    for step in (0, 8):
        where = folder / "checkpoints" / f"step{step}"
        neox_model(seed=step).save_pretrained(where)
        neox_tokenizer().save_pretrained(where)
    return folder


def infocomp(*arguments):
    """Exit code and what was printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(TEXT[:900] + "cafe\u0301 ".encode() + TEXT[900:1500])
    return path


def test_a_file_comes_back_and_the_report_adds_up(series, book, tmp_path):
    code, said = infocomp("compress", book, "--model", series, "--verify", "--compare")
    assert code == 0, said
    file = tmp_path / "book.txt.icz"
    size = file.stat().st_size
    assert f"{size:,} bytes   {8 * size / book.stat().st_size:.4f} bits/byte" in said
    assert re.search(r"escapes +\d+ bytes for 1 bytes that no token gives back", said)
    assert "verified    decoded and compared" in said and re.search(r"same bytes +gzip -9 [\d,]+ \(\d", said)
    parts = [re.search(rf"{name} +([\d,]+) bytes", said) for name in ("payload", "escapes", "header")]
    assert sum(int(part[1].replace(",", "")) for part in parts) == size
    code, said = infocomp("decompress", file, "-o", tmp_path / "back.txt")
    assert code == 0 and "the checksum holds" in said
    assert (tmp_path / "back.txt").read_bytes() == book.read_bytes()


def test_the_revision_is_kept_in_the_file(series, book, tmp_path):
    file = tmp_path / "a.icz"
    assert infocomp("compress", book, "--model", series, "--revision", "step0", "-o", file)[0] == 0
    assert infocomp("decompress", file, "-o", tmp_path / "a")[0] == 0
    code, said = infocomp("decompress", file, "-o", tmp_path / "b", "--model", series / "checkpoints" / "step8")
    assert code == 2 and "the weights must be" in said and not (tmp_path / "b").exists()


def header_of(file):
    return Container.unpack(file.read_bytes()).header


def test_the_last_checkpoint_is_taken_and_named_so_that_later_ones_change_nothing(series, book, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(series, run)
    assert infocomp("compress", book, "--model", run, "-o", tmp_path / "a.icz")[0] == 0
    header = header_of(tmp_path / "a.icz")
    assert (header["model"], header["revision"]) == (str(run), "step8")
    shutil.copytree(run / "checkpoints" / "step0", run / "checkpoints" / "step16")
    assert infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a")[0] == 0
    assert (tmp_path / "a").read_bytes() == book.read_bytes()


def test_a_folder_of_checkpoints_a_run_and_one_checkpoint_are_told_apart(series, tmp_path):
    final = tmp_path / "final"  # one model, with the checkpoints of its training beside it
    shutil.copytree(series / "checkpoints" / "step0", final)
    shutil.copytree(series / "checkpoints", final / "checkpoints")
    folder = series / "checkpoints"
    chosen = {series: "step8", folder: "step8", folder / "step0": "step0", final: "final"}
    assert {path: find_model(str(path), None)[1].revision.name for path in chosen} == chosen
    assert find_model(str(series), "step0")[1].revision.name == "step0"


def test_the_model_and_revision_that_are_given_take_the_place_of_those_in_the_file(series, book, tmp_path):
    run, file = tmp_path / "run", tmp_path / "a.icz"
    shutil.copytree(series, run)
    assert infocomp("compress", book, "--model", run, "--revision", "step0", "-o", file)[0] == 0
    shutil.rmtree(run)
    code, said = infocomp("decompress", file, "-o", tmp_path / "a", "--model", series)
    assert code == 2 and "the weights must be" in said
    assert infocomp("decompress", file, "-o", tmp_path / "a", "--model", series, "--revision", "step0")[0] == 0
    assert (tmp_path / "a").read_bytes() == book.read_bytes()


def test_the_commit_is_asked_for_before_the_revision(tmp_path, monkeypatch):
    asked = []

    def nowhere(model, revision, options):
        asked.append((model, revision, options.dtype, options.device))
        raise FileNotFoundError("not here.")

    monkeypatch.setattr("infocomp.studies.compression.open_coder", nowhere)
    about = {"model": "some/model", "weights": "0" * 16, "dtype": "bfloat16", "environment": {"device": "cuda"}}
    for commit, revision in (("c0ffee", "main"), (None, "step1")):
        header = dict.fromkeys(HEADER) | about | {"commit": commit, "revision": revision, "tokens": 0, "threads": 1}
        header |= {"bytes": 0, "vocabulary": 2, "chunking": asdict(Chunking(4, 8, 0, 1))}
        (tmp_path / "a.icz").write_bytes(Container(header, b"", b"").pack())
        code, said = infocomp("decompress", tmp_path / "a.icz")
        assert code == 2 and f"some/model at {commit or revision}, which is not to be had here (not here)" in said
    assert asked == [("some/model", "c0ffee", "bfloat16", "cuda"), ("some/model", "step1", "bfloat16", "cuda")]


def test_settings_reach_the_file_and_are_found_there(series, book, tmp_path):
    cut = ["--chunk-tokens", "50", "--context-length", "16", "--overlap", "5"]
    given = [book, "--model", series, "-o", tmp_path / "a.icz", "--dtype", "bfloat16", "--threads", "2", *cut]
    assert infocomp("compress", *given)[0] == 0
    header = header_of(tmp_path / "a.icz")
    assert header["dtype"] == "bfloat16" and header["threads"] == 2
    chunking = header["chunking"]
    assert (chunking["chunk_tokens"], chunking["context_length"], chunking["overlap"]) == (50, 16, 5)
    assert infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a")[0] == 0
    assert (tmp_path / "a").read_bytes() == book.read_bytes()


def test_another_library_is_refused_and_can_be_tried(series, book, tmp_path):
    assert infocomp("compress", book, "--model", series, "-o", tmp_path / "a.icz")[0] == 0
    container = Container.unpack((tmp_path / "a.icz").read_bytes())
    older = container.header | {"environment": container.header["environment"] | {"numpy": "1.0"}}
    (tmp_path / "a.icz").write_bytes(Container(older, container.escapes, container.payload).pack())
    code, said = infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a")
    assert code == 2 and "numpy 1.0 there and" in said and not (tmp_path / "a").exists()
    assert infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a", "--attempt")[0] == 0
    assert (tmp_path / "a").read_bytes() == book.read_bytes()


def test_an_empty_file_comes_back(series, tmp_path):
    (tmp_path / "none").write_bytes(b"")
    code, said = infocomp("compress", tmp_path / "none", "--model", series, "--verify", "--compare")
    assert code == 0 and "bits/byte" not in said and "coder" not in said
    assert infocomp("decompress", tmp_path / "none.icz", "-o", tmp_path / "back")[0] == 0
    assert (tmp_path / "back").read_bytes() == b""


def test_nothing_is_written_where_verification_finds_something_else(series, book, tmp_path, monkeypatch):
    monkeypatch.setattr("infocomp.studies.compression.decompress", lambda *given: book.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="did not come back from its own code; nothing was written"):
        infocomp("compress", book, "--model", series, "--verify")
    assert [path.name for path in tmp_path.iterdir()] == ["book.txt"]
    assert "verified" not in infocomp("compress", book, "--model", series)[1]


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_file_that_appears_while_tokens_are_coded_is_kept(series, book, tmp_path, monkeypatch, command):
    assert infocomp("compress", book, "--model", series)[0] == 0
    real = getattr(compression, command)

    def slow(*given):
        (tmp_path / "out").write_bytes(b"theirs")
        return real(*given)

    monkeypatch.setattr(compression, command, slow)
    given = [book, "--model", series] if command == "compress" else [f"{book}.icz"]
    code, said = infocomp(command, *given, "-o", tmp_path / "out")
    assert code == 2 and "exists" in said and (tmp_path / "out").read_bytes() == b"theirs"


def test_the_report_by_hand():
    coded = Coded(bytes(500), 1000, 200, 400, 60, 30, 3000.0, 0.0, 2.0)
    said = told(Path("a"), Path("b"), coded, Chunking(31, 32, 0, 128), 0.5)
    assert "500 bytes   4.0000 bits/byte" in said and "header      40 bytes" in said
    assert "for 30 bytes that no token gives back (3.00 % of the file)" in said
    assert "+1.0000 bits/token" in said and "time        2.0 s (30 kB/min)" in said
    assert "verified    decoded and compared, 0.5 s (120 kB/min)" in said


def test_the_ending_names_the_file_to_write(series, book, tmp_path):
    assert infocomp("compress", book, "--model", series)[0] == 0
    book.unlink()
    assert infocomp("decompress", f"{book}.icz")[0] == 0 and book.exists()
    (tmp_path / "book.txt.icz").rename(tmp_path / "other")
    code, said = infocomp("decompress", tmp_path / "other")
    assert code == 2 and "does not end in .icz, so that -o must name the file to write" in said


def test_nothing_is_written_over_without_force(series, book, tmp_path):
    file = tmp_path / "a.icz"
    file.write_bytes(b"mine")
    code, said = infocomp("compress", book, "--model", series, "-o", file)
    assert code == 2 and "exists already" in said and file.read_bytes() == b"mine"
    assert infocomp("compress", book, "--model", series, "-o", file, "--force")[0] == 0
    (tmp_path / "back").write_bytes(b"mine")
    assert infocomp("decompress", file, "-o", tmp_path / "back")[0] == 2
    assert (tmp_path / "back").read_bytes() == b"mine"
    assert infocomp("decompress", file, "-o", tmp_path / "back", "--force")[0] == 0
    assert (tmp_path / "back").read_bytes() == book.read_bytes()


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "empty"])
def test_damage_ends_with_a_sentence_and_no_file(series, book, tmp_path, damage):
    file = tmp_path / "a.icz"
    assert infocomp("compress", book, "--model", series, "-o", file)[0] == 0
    data = file.read_bytes()
    flipped = data[:300] + bytes([data[300] ^ 4]) + data[301:]
    file.write_bytes({"flip": flipped, "cut": data[:-3], "foreign": book.read_bytes(), "empty": b""}[damage])
    code, said = infocomp("decompress", file, "-o", tmp_path / "back")
    assert code == 2 and not (tmp_path / "back").exists()
    assert {"flip": "was damaged", "cut": "was cut off", "foreign": "is no file", "empty": "is no file"}[damage] in said


def test_a_model_that_is_gone_is_named_with_its_weights(series, book, tmp_path):
    moved = tmp_path / "moved"
    neox_model(seed=8).save_pretrained(moved)
    neox_tokenizer().save_pretrained(moved)
    assert infocomp("compress", book, "--model", moved, "-o", tmp_path / "a.icz")[0] == 0
    moved.rename(tmp_path / "elsewhere")
    code, said = infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a")
    assert code == 2 and "which is not to be had here" in said and "--model says where it is (weights" in said
    code, _ = infocomp("decompress", tmp_path / "a.icz", "-o", tmp_path / "a", "--model", tmp_path / "elsewhere")
    assert code == 0 and (tmp_path / "a").read_bytes() == book.read_bytes()


def test_what_is_not_there_is_said_before_a_model_is_loaded(series, book, tmp_path):
    assert "there is no file" in infocomp("compress", tmp_path / "none", "--model", series)[1]
    assert "is a folder; name one file" in infocomp("compress", tmp_path, "--model", series)[1]
    assert "there is no folder" in infocomp("compress", book, "--model", series, "-o", tmp_path / "no" / "a")[1]
    assert "closest are" in infocomp("compress", book, "--model", series, "--revision", "step9")[1]
    (tmp_path / "mine.icz").write_bytes(b"mine")
    assert "exists already" in infocomp("compress", book, "--model", tmp_path / "none", "-o", tmp_path / "mine.icz")[1]
    (tmp_path / "a.icz").write_bytes(Container({}, b"", b"").pack())
    assert "exists already" in infocomp("decompress", tmp_path / "a.icz", "-o", book)[1]
    said = infocomp("compress", book, "--model", series, "--context-length", "4096")[1]
    assert "context_length is 4096, and the model reads 2 to 32 positions" in said


def test_a_file_is_never_written_over_itself_nor_a_pipe_replaced(series, book, tmp_path):
    original = book.read_bytes()
    code, said = infocomp("compress", book, "--model", series, "-o", book, "--force")
    assert code == 2 and "is the file that is read; name another one to write" in said
    assert book.read_bytes() == original
    os.mkfifo(tmp_path / "pipe")
    code, said = infocomp("compress", book, "--model", series, "-o", tmp_path / "pipe", "--force")
    assert code == 2 and "is a device or a pipe, which cannot take a whole file at once" in said


def test_what_a_model_cannot_do_is_noted(series, tmp_path):
    (tmp_path / "zeros").write_bytes(bytes(500))
    assert "larger than the original" in infocomp("compress", tmp_path / "zeros", "--model", series)[1]
    (tmp_path / "noise").write_bytes(bytes(range(128, 256)) * 20)
    assert "hardly text for this tokenizer" in infocomp("compress", tmp_path / "noise", "--model", series)[1]


def test_a_link_is_followed_with_force_and_left_alone_without(series, book, tmp_path):
    link, real = tmp_path / "link.icz", tmp_path / "real.icz"
    link.symlink_to(real)
    code, said = infocomp("compress", book, "--model", series, "-o", link)
    assert code == 2 and "exists already" in said and not real.exists()
    assert infocomp("compress", book, "--model", series, "-o", link, "--force")[0] == 0
    assert link.is_symlink() and real.is_file()
    assert infocomp("decompress", link, "-o", tmp_path / "back")[0] == 0


def test_the_model_is_found_again_from_another_folder(series, book, tmp_path, monkeypatch):
    monkeypatch.chdir(series.parent)
    assert infocomp("compress", book, "--model", series.name, "-o", tmp_path / "a.icz")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert infocomp("decompress", "a.icz", "-o", "a")[0] == 0


@pytest.mark.parametrize(
    "option, value, sentence",
    [
        ("--dtype", "fp32", "dtype must be one of float32, bfloat16, float16, float64, got 'fp32'"),
        ("--chunk-tokens", "0", "chunk_tokens must be at least 1, got 0"),
        ("--chunk-tokens", "-1", "chunk_tokens must be at least 1, got -1"),
        ("--context-length", "1", "context_length is 1, and the model reads 2 to 32 positions"),
        ("--threads", "0", "threads must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_said_in_a_sentence(series, book, option, value, sentence):
    code, said = infocomp("compress", book, "--model", series, option, value)
    assert code == 2 and sentence in said


def test_a_header_of_another_make_is_refused(tmp_path):
    for header, sentence in (
        ({"model": "m"}, "has a header without revision, commit"),
        ([1], "that holds list and no entries"),
    ):
        (tmp_path / "a.icz").write_bytes(Container(header, b"", b"").pack())
        code, said = infocomp("decompress", tmp_path / "a.icz")
        assert code == 2 and sentence in said
    chunking = {"chunk_tokens": 4, "context_length": 8, "overlap": 0, "lanes": 1}
    right = {"dtype": "float32", "threads": 1, "tokens": 0, "bytes": 0, "vocabulary": 2, "chunking": chunking}
    right = dict.fromkeys(HEADER) | right | {"environment": {"device": "cpu"}}
    for key, value, named in (
        ("dtype", "load", "dtype"),
        ("threads", 0, "threads"),
        ("tokens", None, "tokens"),
        ("chunking", {}, "chunking"),
        ("chunking", chunking | {"lanes": 0}, "chunking"),
        ("environment", {}, "environment"),
    ):
        (tmp_path / "a.icz").write_bytes(Container(right | {key: value}, b"", b"").pack())
        code, said = infocomp("decompress", tmp_path / "a.icz")
        assert code == 2 and "has a header whose" in said and f"{named}" in said and "cannot be" in said


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_kill_in_the_middle_leaves_no_output(series, tmp_path, command):
    """Killed while tokens are coded, seen from its own progress."""
    (tmp_path / "book.txt").write_bytes(TEXT * 4)
    arguments = ["compress", str(tmp_path / "book.txt"), "--model", str(series), "--chunk-tokens", "100000"]
    if command == "decompress":  # as many steps as tokens either way: seconds
        assert infocomp(*arguments)[0] == 0
        arguments = ["decompress", str(tmp_path / "book.txt.icz"), "-o", str(tmp_path / "back")]
    before = sorted(path.name for path in tmp_path.iterdir())
    child = subprocess.Popen([sys.executable, "-m", "infocomp.cli", *arguments], stderr=subprocess.PIPE, text=True)
    seen = ""
    while "compressing:" not in seen:
        seen += child.stderr.read(1)
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == before
