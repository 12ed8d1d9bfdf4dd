"""The text that every Python installation carries, and its split by whole top-level packages."""

import re
import sysconfig
import zipfile
from pathlib import Path

import pytest

from infocomp.corpora import builtin
from infocomp.corpora.builtin import (
    EVERYWHERE,
    HELD_OUT_PACKAGES,
    hash_order,
    held_out_documents,
    standard_library_documents,
    training_documents,
)


@pytest.fixture(scope="module")
def packages():
    return standard_library_documents()


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


def size(documents) -> int:
    return sum(len(document.text.encode()) for document in documents)


def test_the_held_out_packages_are_the_first_by_hash_until_450_kB(packages):
    drawn, total = [], 0
    for name in hash_order(EVERYWHERE):
        if total >= 450_000:
            break
        drawn.append(name)
        total += size(packages[name])
    assert tuple(drawn) == HELD_OUT_PACKAGES


def test_every_package_of_the_draw_is_in_this_installation(packages):
    assert set(EVERYWHERE) <= packages.keys()


def test_training_has_megabytes_and_held_out_has_300_to_700_kB():
    assert size(training_documents()) > 4_000_000
    assert 300_000 <= size(held_out_documents()) <= 700_000


def test_a_document_lies_on_one_side_of_the_split_and_none_is_lost(packages):
    training = [document.name for document in training_documents()]
    held_out = [document.name for document in held_out_documents()]
    assert not set(training) & set(held_out)
    assert sorted(training + held_out) == sorted(d.name for documents in packages.values() for d in documents)
    assert {name.split("/")[0] for name in held_out} == set(HELD_OUT_PACKAGES)


def test_no_long_line_of_the_held_out_text_heads_a_training_file():
    """A package moved or copied inside the library would show as files with the same beginning."""
    beginnings = {document.text[:200] for document in training_documents() if len(document.text) >= 200}
    assert not [document.name for document in held_out_documents() if document.text[:200] in beginnings]


def test_two_calls_give_the_same_documents_in_the_same_order():
    assert held_out_documents() == held_out_documents()
    names = [document.name for document in training_documents()]
    assert names == [document.name for document in training_documents()]


def test_tests_tables_and_what_differs_between_machines_are_left_out(packages):
    names = [document.name for documents in packages.values() for document in documents]
    forbidden = r"(^|/)(tests?|idle_test|site-packages|__pycache__)(/|\.py$)|^encodings/|sysconfig(data|_vars)|^config-"
    assert not [name for name in names if re.search(forbidden, name)]
    assert len(names) > 400


def test_the_topics_of_the_language_reference_are_prose(packages):
    topics = {document.name: document.text for document in packages["pydoc_data"]}
    assert topics["pydoc_data/topics/assert"].lstrip().startswith('The "assert" statement')
    assert '"assert":' not in topics["pydoc_data/topics/assert"]
    assert sum(map(len, topics.values())) > 400_000


def test_topics_that_are_written_otherwise_stay_source(tmp_path):
    packages = standard_library_documents(write(tmp_path, {"pydoc_data/topics.py": "topics = load()\n"}))
    assert [(d.name, d.text) for d in packages["pydoc_data"]] == [("pydoc_data/topics.py", "topics = load()\n")]


def test_line_ends_are_those_of_unix_and_the_order_is_that_of_names(tmp_path):
    folder = write(
        tmp_path, {"b.py": "x = 1\r\ny = 2\r\n", "a/z.py": "1\n", "a/b/c.py": "2\n", "LICENSE.txt": "free\n"}
    )
    packages = standard_library_documents(folder)
    assert list(packages) == ["LICENSE", "a", "b"]
    assert [document.name for document in packages["a"]] == ["a/b/c.py", "a/z.py"]
    assert packages["b"][0].text == "x = 1\ny = 2\n"


def test_what_does_not_belong_is_left_out_of_a_folder_too(tmp_path):
    inside = {name: "text\n" for name in ("json/__init__.py", "testing.py", "contest/a.py")}
    outside = (
        *("test/a.py", "json/tests/a.py", "site-packages/a.py", "dist-packages/a.py", "encodings/ascii.py"),
        *("_sysconfigdata__linux_.py", "config-3.11/python-config.py", "idlelib/idle_test/a.py", "sitecustomize.py"),
    )
    packages = standard_library_documents(write(tmp_path, inside | dict.fromkeys(outside, "no\n")))
    assert [document.name for documents in packages.values() for document in documents] == sorted(inside)


def test_a_missing_optional_package_is_no_error(tmp_path):
    packages = standard_library_documents(write(tmp_path, {"json/__init__.py": "text\n"}))
    assert list(packages) == ["json"]


def test_an_installation_with_a_zipped_library_is_one_clear_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "python311.zip", "w") as archive:
        archive.writestr("json/__init__.pyc", b"")
    message = (
        r"holds no source \(zipped, stripped or compiled only\); use a CPython that carries its \.py files, or give"
    )
    with pytest.raises(FileNotFoundError, match=message):
        standard_library_documents(tmp_path)


@pytest.mark.parametrize(
    "read, needed", [(training_documents, builtin.LEAST_TRAINING), (held_out_documents, builtin.LEAST_HELD_OUT)]
)
def test_an_installation_with_little_source_is_one_clear_sentence(tmp_path, read, needed):
    write(tmp_path, {"json/__init__.py": "0123456789", "ast.py": "0123456789"})
    with pytest.raises(FileNotFoundError, match=f"holds 10 bytes of source where {needed:,} are needed .*give a text"):
        read(tmp_path)


def test_the_default_folder_is_the_one_that_this_interpreter_imports_from():
    texts = {document.name: document.text for document in held_out_documents()}
    source = Path(sysconfig.get_path("stdlib"), "json", "decoder.py").read_text(encoding="utf-8")
    assert texts["json/decoder.py"] == source
