"""One sentence for each thing that can be wrong with a text: names, packing, encoding, records, columns, emptiness."""

import re
import socket
from pathlib import Path

import pytest
from test_documents import json_lines, noise, pack, parquet, sentence, texts

from infocomp.corpora.settings import DatasetSettings


def test_a_file_that_does_not_exist_is_named_with_the_nearest_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    assert sentence(files="data/alcie.txt") == (
        "files: there is no file or folder 'data/alcie.txt'; the folder 'data' is empty."
    )
    for name in ("alice.txt", "alice2.txt", "zebra", "yak", "xerus"):
        Path("data", name).write_text("x")
    assert sentence(files="data/alcie.txt") == (
        "files: there is no file or folder 'data/alcie.txt'; closest in 'data' are 'alice.txt', 'alice2.txt'."
    )
    assert sentence(files=["data/yak", "data/qqq"]) == (
        "files: there is no file or folder 'data/qqq'; the folder 'data' holds 'alice.txt', 'alice2.txt', 'xerus' "
        "and 2 more."
    )
    assert sentence(files="dta/deep/alice.txt") == (
        "files: there is no file or folder 'dta/deep/alice.txt'; closest in '.' is 'data'."
    )


def test_a_glob_without_a_match_and_a_folder_without_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/deep").mkdir(parents=True)
    assert sentence(files="data/deep/*.txt") == (
        "files: no file matches 'data/deep/*.txt'; the folder 'data/deep' is empty."
    )
    assert sentence(files="data/*") == "files: no file matches 'data/*'; the folder 'data' holds 'deep'."
    assert sentence(files="dat/*.txt") == "files: no file matches 'dat/*.txt'; closest in '.' is 'data'."
    assert sentence(files="data") == "files: the folder 'data' holds no file; name one that holds text."


def test_a_set_without_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\n")
    (tmp_path / "b.jsonl").write_text("")
    assert sentence(files=f"{tmp_path}/*") == (
        f"files '{tmp_path}/*': at least one document with text is needed, and 1 were found, all of them empty."
    )
    assert sentence(files=f"{tmp_path}/b.jsonl") == (
        f"files '{tmp_path}/b.jsonl': at least one document with text is needed, and none was found."
    )
    assert sentence(texts=["", " "]) == (
        "texts: at least one document with text is needed, and 2 were found, all of them empty."
    )
    assert sentence(texts=["😀"], max_bytes=3) == (
        "max_bytes = 3 leaves nothing of the first document of texts; raise it."
    )


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("split", ["file", "blank_lines", "lines"])
def test_text_that_is_not_utf8_is_named_with_its_byte(tmp_path, split, packing):
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(pack("né\n\nnä\n".encode() + b"caf\xe9 x\n", packing))
    assert sentence(files=str(path), split=split) == (
        f"'{path}' is not UTF-8: invalid continuation byte at byte 12 (0xe9); "
        "convert it to UTF-8, or leave the file out."
    )


def test_a_file_that_ends_inside_a_character_is_not_utf8_unless_it_is_cut_before(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 100 + "😀".encode()[:2])
    assert "unexpected end of data at byte 100 (0xf0)" in sentence(files=str(tmp_path / "a.txt"))
    assert "unexpected end of data at byte 100 (0xf0)" in sentence(files=str(tmp_path / "a.txt"), max_bytes=100)
    assert texts(files=str(tmp_path / "a.txt"), max_bytes=50) == ["x" * 50]


def test_json_lines_that_are_not_utf8_are_named_with_the_byte(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "\xff"}\n')
    assert "invalid start byte at byte 26 (0xff)" in sentence(files=str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(("packing", "kind"), [(".gz", "gzip"), (".zst", "Zstandard")])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_packed_file_that_was_cut_off_or_is_not_packed_is_one_sentence(tmp_path, name, packing, kind):
    path = tmp_path / (name + packing)
    packed = pack(json_lines([{"text": text} for text in noise(5_000)]), packing)
    path.write_bytes(packed[:-5])
    assert sentence(files=str(path)) == (
        f"'{path}' ends in the middle of its {kind} data: it was cut off; fetch it again."
    )
    path.write_bytes(b"plain text, not packed at all")
    assert re.fullmatch(
        rf"'{path}' is not sound {kind} data \(.+\); fetch it again, or drop the ending '{packing}' "
        r"if it is not compressed\.",
        sentence(files=str(path)),
    )


@pytest.mark.parametrize(("packing", "kind"), [(".gz", "gzip"), (".zst", "Zstandard")])
def test_a_packed_file_with_spoiled_bytes_is_one_sentence(tmp_path, packing, kind):
    path = tmp_path / f"a.txt{packing}"
    spoiled = bytearray(pack("".join(noise(5_000)).encode(), packing))
    spoiled[1000:1040] = b"\xff" * 40
    path.write_bytes(spoiled)
    assert f"'{path}' is not sound {kind} data (" in sentence(files=str(path))


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("a.txt")
        assert re.fullmatch(r"'a\.txt' cannot be read: [A-Z].+[a-z]\.", sentence(files="a.txt"))


def test_an_empty_zst_file_was_cut_off(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(b"")
    assert "was cut off" in sentence(files=str(tmp_path / "a.txt.zst"))


def test_a_parquet_file_that_is_not_sound_is_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    sound = parquet({"text": noise(5_000)})
    for data in (b"", b"no parquet", sound[: len(sound) // 2], sound[:100] + bytes(2000) + sound[2100:]):
        path.write_bytes(data)
        assert re.fullmatch(rf"'{path}' is not sound Parquet \(.+\); fetch it again\.", sentence(files=str(path)))


def test_a_parquet_column_that_is_not_utf8_is_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet({"text": ["caf€"]}).replace("€".encode(), b"\xff\xff\xff"))
    assert f"'{path}' is not sound Parquet" in sentence(files=str(path))


def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet({"id": [1], "body": ["x"]}))
    assert sentence(files=str(tmp_path / "a.parquet")) == (
        f"'{tmp_path}/a.parquet' has no column 'text'; its columns are 'id', 'body'."
    )
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"text": "x"}, {"body": "x", "id": 1}]))
    assert sentence(files=str(tmp_path / "a.jsonl")) == (
        f"'{tmp_path}/a.jsonl:2' has no column 'text'; its columns are 'body', 'id'."
    )


def test_a_column_that_holds_no_text_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(parquet({"text": [1, 2]}))
    assert "column 'text' of" in sentence(files=str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"text": ["x"]}]))
    assert sentence(files=str(tmp_path / "a.jsonl")) == (
        f"column 'text' of '{tmp_path}/a.jsonl:1' holds a list, and text is needed; name another column."
    )


def test_a_column_is_refused_where_no_file_has_columns(tmp_path):
    (tmp_path / "a.csv").write_text("body\none\n")
    assert sentence(files=f"{tmp_path}/a.csv", column="body").startswith(
        "column 'body' is asked for, and none of the files (a.csv, …) is JSON lines or Parquet"
    )


def test_what_is_not_json_lines_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"text": "one"}\n{"text": \n')
    assert re.fullmatch(rf"'{path}:2' is not JSON: .+; JSON lines hold one object a line\.", sentence(files=str(path)))
    path.write_text('["one"]\n')
    assert sentence(files=str(path)) == (
        f"'{path}:1' holds a list, and an object with the column 'text' is needed; JSON lines hold one object a line."
    )
    path.write_text("[" * 100_000)
    assert f"'{path}:1' is not JSON" in sentence(files=str(path))


def test_half_of_a_surrogate_pair_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "ab\\ud83d"}\n')
    assert sentence(files=str(tmp_path / "a.jsonl")) == (
        f"column 'text' of '{tmp_path}/a.jsonl:1' holds half of a surrogate pair at character 2, which UTF-8 cannot "
        "write; mend the record or leave it out."
    )
    assert "the string of 'texts:1' holds half of a surrogate pair" in sentence(texts=["\ud83d"])


def test_a_dataset_that_cannot_be_opened_or_read_is_one_sentence(tmp_path):
    missing = DatasetSettings(name="json", data_files=str(tmp_path / "no.jsonl"))
    assert sentence(dataset=missing).startswith("dataset 'json/train' cannot be opened: Unable to find")
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"text": "one"}] * 3) + b'{"text": ')
    broken = DatasetSettings(name="json", data_files=str(tmp_path / "a.jsonl"))
    assert re.match(r"dataset 'json/train' cannot be (read at row \d+|opened): ", sentence(dataset=broken))
    (tmp_path / "b.jsonl").write_bytes(json_lines([{"body": "one", "id": 3}]))
    other = DatasetSettings(name="json", data_files=str(tmp_path / "b.jsonl"))
    assert sentence(dataset=other) == "'json/train:1' has no column 'text'; its columns are 'body', 'id'."
    numbers = other.model_copy(update={"column": "id"})
    assert sentence(dataset=numbers) == (
        "column 'id' of 'json/train:1' holds a number, and text is needed; name another column."
    )
