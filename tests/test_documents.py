"""Documents from every kind of file, of data sets and of strings, the cuts, and the settings that name them."""

import gzip
import json
import logging
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from infocomp.corpora.documents import Document, read_documents
from infocomp.corpora.settings import DatasetSettings, TextSettings

TEXTS = ["first\r\nsecond\rthird\n", "naïve 😀 text\x0c\u2028", "\ufeffmarked"]


def pack(data: bytes, suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(data)
    return zstandard.ZstdCompressor(write_checksum=True).compress(data) if suffix.endswith(".zst") else data


def json_lines(records: list) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(columns: dict) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def read(**settings) -> list[Document]:
    return read_documents(TextSettings(**settings))


def noise(count: int) -> list[str]:
    """Strings that do not shrink much when packed."""
    return [random.Random(number).randbytes(12).hex() for number in range(count)]


def texts(**settings) -> list[str]:
    return [document.text for document in read(**settings)]


def sentence(**settings) -> str:
    """The message of the ValueError that these settings give: one line that ends in a full stop."""
    with pytest.raises(ValueError) as caught:
        read(**settings)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# what is read


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_plain_text_is_kept_character_for_character(tmp_path, packing):
    for ending, text in zip([".txt", ".md", ".py"], TEXTS, strict=True):
        path = tmp_path / f"a{ending}{packing}"
        path.write_bytes(pack(text.encode(), packing))
        assert read(files=str(path)) == [Document(str(path), text)]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("kind", [".jsonl", ".parquet", ".ndjson", ".json"])
def test_tables_give_their_text_column_row_by_row(tmp_path, kind, packing):
    path = tmp_path / f"a{kind}{packing}"
    records = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    columns = {"id": [0, 1, 2], "text": TEXTS}
    path.write_bytes(pack(parquet(columns) if kind == ".parquet" else json_lines(records), packing.lower()))
    assert read(files=str(path)) == [Document(f"{path}:{row}", text) for row, text in enumerate(TEXTS, 1)]


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_another_column_can_be_named(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    path.write_bytes(parquet({"body": TEXTS}) if kind == ".parquet" else json_lines([{"body": t} for t in TEXTS]))
    assert texts(files=str(path), column="body") == TEXTS


def test_blank_lines_and_a_byte_order_mark_around_json_lines_are_no_documents(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "two"}')
    assert read(files=str(tmp_path / "a.jsonl")) == [
        Document(f"{tmp_path}/a.jsonl:1", "one"),
        Document(f"{tmp_path}/a.jsonl:3", "two"),
    ]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_all_members_of_a_packed_file_are_read(tmp_path, packing):
    # 300 kB a member: each is larger than what is unpacked at once
    members = [bytes([65 + number]) * 300_000 for number in range(3)]
    (tmp_path / f"a.txt{packing}").write_bytes(b"".join(pack(member, packing) for member in members))
    assert texts(files=str(tmp_path / f"a.txt{packing}")) == [b"".join(members).decode()]


def test_a_list_of_strings_is_read_in_order():
    assert read(texts=["one", "two"]) == [Document("texts:1", "one"), Document("texts:2", "two")]


def test_folders_and_globs_come_sorted_without_hidden_files_and_each_file_once(tmp_path):
    for name in ["b.txt", "a.txt", "deep/c.md", ".hidden.txt", ".git/x.txt", "__pycache__/d.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(files=str(tmp_path)) == ["a.txt", "b.txt", "deep/c.md"]
    assert texts(files=f"{tmp_path}/*.txt") == ["a.txt", "b.txt"]
    assert texts(files=f"{tmp_path}/**/*.md") == ["deep/c.md"]
    assert texts(files=[f"{tmp_path}/b.txt", f"{tmp_path}/*.txt", str(tmp_path)]) == ["b.txt", "a.txt", "deep/c.md"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("bracket")
    assert texts(files=str(tmp_path / "a[1].txt")) == ["bracket"]


# how a file becomes documents


def test_lines_keep_their_newlines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n\nfour\rstill four\x0c\nfive")
    path = str(tmp_path / "a.txt")
    assert read(files=path, split="lines") == [
        Document(f"{path}:1", "one\r\n"),
        Document(f"{path}:2", "two\n"),
        Document(f"{path}:4", "four\rstill four\x0c\n"),
        Document(f"{path}:5", "five"),
    ]


def test_paragraphs_end_with_their_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n\none\ntwo\n \t\n\r\nthree\n\nfour")
    path = str(tmp_path / "a.txt")
    assert read(files=path, split="blank_lines") == [
        Document(f"{path}:1", "\n\none\ntwo\n \t\n\r\n"),
        Document(f"{path}:7", "three\n\n"),
        Document(f"{path}:9", "four"),
    ]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\n\n\n "])
def test_paragraphs_put_together_are_the_file(tmp_path, ending):
    text = "α\n\nβ\r\n\r\nγ\n \nδ" + ending
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert "".join(texts(files=str(tmp_path / "a.txt"), split="blank_lines")) == text


# where it is cut


def test_max_documents_counts_the_documents_that_are_kept(caplog):
    with caplog.at_level(logging.WARNING):
        assert texts(texts=["", "one", " \n", "two", "three"], max_documents=2) == ["one", "two"]
    assert caplog.messages == ["texts: 2 empty documents dropped, 2 kept."]


def test_nothing_is_said_where_nothing_is_dropped(caplog):
    with caplog.at_level(logging.WARNING):
        read(texts=["one"])
    assert caplog.messages == []


def test_an_empty_cell_is_an_empty_document(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"text": None}, {"text": "one"}]))
    with caplog.at_level(logging.WARNING):
        assert texts(files=str(tmp_path / "a.jsonl")) == ["one"]
    assert caplog.messages == [f"files '{tmp_path}/a.jsonl': 1 empty documents dropped, 1 kept."]


def test_max_bytes_cuts_the_last_document_at_a_whole_character():
    assert [texts(texts=["abc", "dé", "f"], max_bytes=size) for size in (2, 3, 4, 5, 6, 7, 9)] == [
        ["ab"],
        ["abc"],
        ["abc", "d"],
        ["abc", "d"],  # é has two bytes
        ["abc", "dé"],
        ["abc", "dé", "f"],
        ["abc", "dé", "f"],
    ]


@pytest.mark.parametrize("size", range(1, 20))
def test_max_bytes_cuts_one_long_file_as_it_cuts_its_text(tmp_path, size):
    text = "a😀bé€😀😀cdé"
    (tmp_path / "a.txt").write_text(text * 3)
    assert texts(files=str(tmp_path / "a.txt"), max_bytes=size) == [(text * 3).encode()[:size].decode(errors="ignore")]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("limit", [{"max_documents": 100}, {"max_bytes": 10_000}])
def test_the_first_documents_of_a_large_packed_file_do_not_need_its_end(tmp_path, packing, limit):
    # The second half of the file is missing: whoever reads on finds out.
    written = noise(40_000)
    packed = pack(json_lines([{"text": text} for text in written]), packing)
    path = tmp_path / f"a.jsonl{packing}"
    path.write_bytes(packed[: len(packed) // 2])
    found = texts(files=str(path), **limit)
    assert 100 <= len(found) < 1000 and found[:100] == written[:100]
    assert "was cut off" in sentence(files=str(path))


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_the_first_bytes_of_a_large_plain_file_do_not_need_its_end(tmp_path, packing):
    packed = pack("".join(noise(40_000)).encode(), packing)
    (tmp_path / f"a.txt{packing}").write_bytes(packed[: len(packed) // 2])
    assert len(texts(files=str(tmp_path / f"a.txt{packing}"), max_bytes=1000)[0]) == 1000


# Hugging Face data sets, with the real library on local files


@pytest.fixture
def dataset_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("builder", ["json", "parquet"])
def test_a_dataset_builder_reads_local_files(tmp_path, dataset_cache, builder, streaming):
    file = tmp_path / f"a.{builder}"
    columns = {"id": [1, 2, 3], "body": ["one\r\n", "two", "three"]}
    rows = [{"id": 1, "body": "one\r\n"}, {"id": 2, "body": "two"}, {"id": 3, "body": "three"}]
    file.write_bytes(parquet(columns) if builder == "parquet" else json_lines(rows))
    settings = DatasetSettings(
        name=builder, data_files={"test": str(file)}, split="test", column="body", first=2, streaming=streaming
    )
    assert read(dataset=settings) == [
        Document(f"{builder}/test:1", "one\r\n"),
        Document(f"{builder}/test:2", "two"),
    ]
    assert texts(dataset=settings.model_copy(update={"first": None})) == ["one\r\n", "two", "three"]
    assert (tmp_path / "cache" / builder).exists() == (not streaming), "only streaming leaves nothing in the cache"


@pytest.mark.parametrize("streaming", [True, False])
def test_name_config_and_split_choose_within_a_dataset(tmp_path, dataset_cache, streaming):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: english\n  data_files:\n  - split: train\n    path: train.jsonl\n"
        "  - split: validation\n    path: validation.jsonl\n- config_name: german\n  data_files: german.jsonl\n---\n"
    )
    for name in ("train", "validation", "german"):
        (folder / f"{name}.jsonl").write_bytes(json_lines([{"text": f"{name} {number}"} for number in range(3)]))
    chosen = DatasetSettings(name=str(folder), config="english", split="validation", streaming=streaming)
    assert texts(dataset=chosen) == ["validation 0", "validation 1", "validation 2"]
    german = chosen.model_copy(update={"config": "german", "split": "train"})
    assert texts(dataset=german, max_documents=1) == ["german 0"]
    assert "'english', 'german'" in sentence(dataset=chosen.model_copy(update={"config": "french"}))
    assert "validation" in sentence(dataset=chosen.model_copy(update={"split": "valid"}))


# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of 'files', 'dataset' and 'texts' is needed, and none is given"),
        ({"files": "a", "texts": ["b"]}, "and 'files' and 'texts' are given"),
        ({"dataset": {"name": "x"}, "column": "body"}, "write it inside 'dataset'"),
        ({"texts": ["x"], "column": "body"}, "leave it out"),
        ({"dataset": {"name": "x"}, "split": "lines"}, "write a split of the data set inside 'dataset'"),
        ({"texts": ["x"], "split": "lines"}, "'split' cuts plain text 'files', and is 'lines' beside 'texts'"),
        ({"files": []}, "at least 1"),
        ({"files": [""]}, "at least 1 character"),
        ({"texts": []}, "at least 1"),
        ({"files": "a", "max_bytes": 0}, "greater than or equal to 1"),
        ({"files": "a", "max_documents": "3"}, "valid integer"),
        ({"files": "a", "in_training": "yes"}, "'known', 'likely', 'unknown' or 'no'"),
        ({"files": "a", "colum": "text"}, "Extra inputs"),
        ({"dataset": {"name": "x", "collumn": "text"}}, "Extra inputs"),
        ({"dataset": {"name": "x", "first": 0}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ValidationError) as caught:
        TextSettings(**settings)
    assert message in str(caught.value)


def test_settings_cannot_change_and_their_lists_are_tuples():
    settings = TextSettings.model_validate({"files": ["a", "b"]})
    assert settings.files == ("a", "b") and settings.in_training == "unknown" and hash(settings)
    with pytest.raises(ValidationError, match="frozen"):
        settings.column = "body"


def test_settings_survive_being_written_out_in_full():
    for settings in (
        TextSettings(files="a"),
        TextSettings(dataset=DatasetSettings(name="x")),
        TextSettings(texts=("t",)),
    ):
        assert TextSettings.model_validate_json(settings.model_dump_json()) == settings
