"""The container: any damage is found, and a file appears whole or not at all."""

import os
import struct
import zlib

import numpy as np
import pytest

from infocomp.coding.container import SIGNATURE, Container, check_writable, digest, write_whole

CONTAINER = Container({"model": "m", "bytes": 12, "content": digest(b"x").hex()}, b"escape", bytes(range(200)))


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_it_comes_back():
    assert Container.unpack(CONTAINER.pack()) == CONTAINER
    empty = Container({}, b"", b"")
    assert Container.unpack(empty.pack()) == empty


def test_every_flipped_bit_is_found():
    file = CONTAINER.pack()
    for place in range(8 * len(file)):
        damaged = bytearray(file)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"damaged|other bytes|format version"):
            Container.unpack(bytes(damaged))


def test_every_truncation_is_found():
    file = CONTAINER.pack()
    for length in range(len(file)):
        with pytest.raises(ValueError, match=r"cut off|no file that infocomp compress wrote"):
            Container.unpack(file[:length])


def test_something_appended_is_found():
    with pytest.raises(ValueError, match="has something appended"):
        Container.unpack(CONTAINER.pack() + b"\n")


@pytest.mark.parametrize("other", [b"", b"PK\x03\x04 zip", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(5000)])
def test_a_file_of_another_program_is_refused(other):
    with pytest.raises(ValueError, match="book is no file that infocomp compress wrote: it begins with other bytes"):
        Container.unpack(other, "book")


@pytest.mark.parametrize("version", [0, 9])
def test_another_version_is_refused_by_name(version):
    file = bytearray(CONTAINER.pack()[:-16])
    file[8] = version
    with pytest.raises(ValueError, match=f"has format version {version}, and this infocomp reads version 1"):
        Container.unpack(bytes(file) + digest(bytes(file)))


@pytest.mark.parametrize("header", [b"{}", zlib.compress(b"{"), zlib.compress(b"\xff")])
def test_a_header_that_is_none_is_refused_though_the_checksum_holds(header):
    body = SIGNATURE + struct.pack("<B3I", 1, len(header), 0, 0) + header
    with pytest.raises(ValueError, match="book has a header that cannot be read"):
        Container.unpack(body + digest(body), "book")


def test_the_same_header_is_the_same_file_in_whatever_order_it_was_made():
    turned = dict(reversed(CONTAINER.header.items()))
    assert Container(turned, b"escape", CONTAINER.payload).pack() == CONTAINER.pack()


def test_a_section_of_four_gibibytes_is_refused():
    class Large(bytes):
        def __len__(self):
            return 1 << 32

    with pytest.raises(ValueError, match="a coded section has 4 GiB or more"):
        Container({}, b"", Large()).pack()


@pytest.mark.parametrize("place", [0, 10**6 - 1])
def test_the_checksum_is_over_every_byte(place):
    changed = bytearray(10**6)
    changed[place] = 1
    assert len(digest(b"")) == 16 and digest(bytes(changed)) != digest(bytes(10**6))


def test_random_bytes_behind_the_signature_are_refused():
    generator = np.random.default_rng(0)
    for _ in range(200):
        noise = generator.integers(0, 256, 60).astype(np.uint8).tobytes()
        with pytest.raises(ValueError):
            Container.unpack(CONTAINER.pack()[:9] + noise)


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path):
    write_whole(tmp_path / "a", b"first", force=False)
    assert (tmp_path / "a").read_bytes() == b"first" and names(tmp_path) == ["a"]
    with pytest.raises(FileExistsError, match="a exists already; name another file, or --force"):
        write_whole(tmp_path / "a", b"second", force=False)
    assert (tmp_path / "a").read_bytes() == b"first"
    write_whole(tmp_path / "a", b"second", force=True)
    assert (tmp_path / "a").read_bytes() == b"second" and names(tmp_path) == ["a"]


def test_a_file_that_appears_in_the_meantime_is_not_written_over(tmp_path, monkeypatch):
    real = os.fsync

    def appear(handle):
        (tmp_path / "a").write_bytes(b"theirs")
        real(handle)

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(FileExistsError, match="a exists by now"):
        write_whole(tmp_path / "a", b"ours", force=False)
    assert (tmp_path / "a").read_bytes() == b"theirs" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("late", [False, True])
def test_a_file_system_without_hard_links_is_written_to_as_well(tmp_path, monkeypatch, late):
    def no_link(source, target):
        if late:
            (tmp_path / "a").write_bytes(b"theirs")
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    if late:
        with pytest.raises(FileExistsError, match="a exists already"):
            write_whole(tmp_path / "a", b"ours", force=False)
    else:
        write_whole(tmp_path / "a", b"ours", force=False)
    assert (tmp_path / "a").read_bytes() == (b"theirs" if late else b"ours") and names(tmp_path) == ["a"]


def test_all_of_it_is_on_the_disk_before_it_has_a_name_and_the_old_file_is_not_written_into(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_size), real(handle)))
    (tmp_path / "a").write_bytes(b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_whole(tmp_path / "a", b"other", force=True)
    assert synced == [5] and (tmp_path / "b").read_bytes() == b"old"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a", b"ours", force=False)
    assert names(tmp_path) == []


def test_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file to write"):
        check_writable(tmp_path, force=True)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*/none to write a into; make it first"):
        check_writable(tmp_path / "none" / "a", force=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_writable(tmp_path / "file" / "a", force=False)
