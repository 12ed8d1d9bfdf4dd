"""Preference pairs from files: strings, messages, conversations, lists; what is dropped; what is refused."""

import gzip
import json
import logging
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from pydantic import ValidationError

from infocomp.corpora.pairs import Message, PairSettings, kind_of, prompt_numbers, read_pairs
from infocomp.corpora.settings import DatasetSettings

PLAIN = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
ASKED = {"role": "user", "content": "Why?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("So.", "No."))


def written(folder: Path, *records, name: str = "pairs.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def read(folder: Path, *records, **settings):
    return read_pairs(PairSettings(files=written(folder, *records), **settings))


def sentence(folder: Path, *records, **settings) -> str:
    with pytest.raises(ValueError) as error:
        read(folder, *records, **settings)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_strings_are_read_with_their_place(tmp_path):
    (pair,) = read(tmp_path, PLAIN)
    assert (pair.prompt, pair.completions, pair.authors) == ("Why?", ("Because.", "No."), (None, None))
    assert pair.name == f"{tmp_path}/pairs.jsonl:1"


def test_packed_files_parquet_and_data_sets_give_the_same_pairs(tmp_path):
    line = (json.dumps(PLAIN) + "\n").encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(line))
    messages = {"prompt": "Why?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([messages]), tmp_path / "c.parquet")
    for name in ("a.jsonl.gz", "b.jsonl.zst"):
        assert read_pairs(PairSettings(files=str(tmp_path / name)))[0].completions == ("Because.", "No.")
    (pair,) = read_pairs(PairSettings(files=str(tmp_path / "c.parquet")))
    assert pair.chosen == (Message("assistant", "So."),)
    written(tmp_path, PLAIN, PLAIN)
    source = DatasetSettings(name="json", data_files=str(tmp_path / "pairs.jsonl"))
    first, second = read_pairs(PairSettings(dataset=source))
    assert first.completions == second.completions == ("Because.", "No.") and second.name == "json/train:2"


def test_other_columns_and_a_limit_can_be_named(tmp_path):
    records = [{"q": "Q", "good": f"{i}", "bad": "x", "a": "A", "b": "B"} for i in range(5)]
    found = read(
        tmp_path,
        {"q": "Q", "good": "x", "bad": "x", "a": "A", "b": "B"},
        *records,
        **{"prompt": "q", "chosen": "good", "rejected": "bad", "chosen_author": "a", "rejected_author": "b"},
        max_pairs=3,
    )
    assert [pair.chosen for pair in found] == ["0", "1", "2"], "counted without the one that is dropped"
    assert found[0].authors == ("A", "B")


def test_authors_are_read_from_the_source(tmp_path):
    (pair,) = read(tmp_path, PLAIN | {"source": "some/set; chosen=gpt 4; rejected=davinci"})
    assert pair.authors == ("gpt 4", "davinci")


@pytest.mark.parametrize("prompt", [None, "Why?", [ASKED]])
def test_conversations_hold_their_prompt(tmp_path, prompt):
    record = {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]} | ({} if prompt is None else {"prompt": prompt})
    (pair,) = read(tmp_path, record)
    assert pair.prompt == (Message("user", "Why?"),)
    assert pair.completions == ((Message("assistant", "So."),), (Message("assistant", "No."),))


@pytest.mark.parametrize("prompt", ["Why?", [ASKED]])
def test_a_prompt_may_stand_beside_the_answers_alone(tmp_path, prompt):
    (pair,) = read(tmp_path, {"prompt": prompt, "chosen": [GOOD], "rejected": [BAD]})
    assert pair.prompt == (Message("user", "Why?"),) and pair.chosen == (Message("assistant", "So."),)


def test_shared_turns_belong_to_the_prompt_up_to_the_last_question(tmp_path):
    (pair,) = read(tmp_path, {"chosen": [ASKED, GOOD, ASKED, GOOD], "rejected": [ASKED, GOOD, ASKED, BAD]})
    assert [message.role for message in pair.prompt] == ["user", "assistant", "user"]  # type: ignore[union-attr]
    assert pair.chosen == (Message("assistant", "So."),)


def test_lists_of_completions_stand_against_each_other_in_turn(tmp_path):
    first, second = read(tmp_path, {"prompt": "Q", "chosen": ["a", "b"], "rejected": ["c", "d"]})
    assert (first.completions, second.completions) == (("a", "c"), ("b", "d")) and second.name.endswith("#2")
    found = read(tmp_path, {"prompt": ["P", "Q"], "chosen": ["a", "b"], "rejected": ["c", "d"]})
    assert [pair.prompt for pair in found] == ["P", "Q"]


def test_completions_of_no_prompt_are_fine_when_asked_for(tmp_path):
    (pair,) = read(tmp_path, {"chosen": "a", "rejected": "b"}, prompt=None)
    assert pair.prompt == ""


def test_equal_and_empty_completions_are_dropped_and_counted(tmp_path, caplog):
    records = [PLAIN, PLAIN | {"rejected": "Because."}, PLAIN | {"chosen": " \n"}, PLAIN | {"rejected": None}]
    records.append({"chosen": [ASKED, GOOD], "rejected": [ASKED]})
    records.append({"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]})
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, *records)) == 1
    assert "dropped because they say nothing about preference" in caplog.text
    assert ": 2 with equal completions and 3 with an empty one; 1 kept" in caplog.text


def test_nothing_is_said_where_nothing_is_dropped(tmp_path, caplog):
    read(tmp_path, PLAIN)
    assert not caplog.text


def test_pairs_of_one_prompt_have_one_number(tmp_path):
    found = read(tmp_path, PLAIN, PLAIN | {"prompt": "How?"}, PLAIN | {"chosen": "Well."})
    assert np.array_equal(prompt_numbers(found), [0, 1, 0])


def test_the_kind_of_a_file_is_told_by_its_columns(tmp_path):
    assert kind_of(written(tmp_path, PLAIN)) == "preference"
    assert kind_of(written(tmp_path, {"messages": [ASKED]}, name="chat.jsonl")) == "chat"
    assert kind_of(written(tmp_path, {"text": "a"}, name="text.jsonl")) == "text"
    assert kind_of(written(tmp_path, name="none.jsonl")) == "text"
    (tmp_path / "a.txt").write_text('{"chosen": 1, "rejected": 2}')
    assert kind_of(tmp_path / "a.txt") == "text"


BAD_RECORDS = [
    ([["a"]], "holds a list, and an object with the columns 'prompt', 'chosen', 'rejected' is needed"),
    ([{"prompt": "a", "chosen": "b"}], "pairs.jsonl:1' has no column 'rejected'; its columns are 'prompt', 'chosen'."),
    ([{"chosen": "a", "rejected": "b"}], "has no column 'prompt'; its columns are 'chosen', 'rejected'."),
    ([PLAIN, PLAIN | {"chosen": 3}], "column 'chosen' of '.*pairs.jsonl:2' holds a number, and messages are a list"),
    ([PLAIN | {"prompt": 3}], "column 'prompt' of '.*' holds a number, and text is needed"),
    ([PLAIN | {"chosen": "\ud800"}], "column 'chosen' of '.*' holds half of a surrogate pair at character 0"),
    ([PLAIN | {"chosen": [GOOD]}], "has text on one side and messages on the other"),
    ([PLAIN | {"chosen": [], "rejected": []}], "column 'chosen' of '.*' holds an empty list, and messages are"),
    ([PLAIN | {"chosen": [GOOD, "a"], "rejected": [BAD]}], "'chosen' of '.*' has a string as message 2, and messages"),
    ([PLAIN | {"chosen": [{"role": "user"}], "rejected": [BAD]}], "has nothing as content of message 1, and messages"),
    ([{"chosen": [ASKED, GOOD], "rejected": [{"role": "user", "content": "How?"}, BAD]}],
     "has different prompts on both sides: after the messages that both share, chosen goes on with one of the role"),
    ([{"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [{"role": "user", "content": "How?"}, BAD]}],
     "has different prompts on both sides"),
    ([{"prompt": "How?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}],
     "has a prompt that is none of the messages both conversations begin with"),
    ([{"prompt": "Q", "chosen": ["a", "b"], "rejected": ["c"]}], "has 2 chosen and 1 rejected completions, and lists"),
    ([{"prompt": ["Q"], "chosen": ["a", "b"], "rejected": ["c", "d"]}], "2 rejected completions for 1 prompts, and"),
    ([PLAIN | {"chosen": "No."}], "at least one pair of two different completions is needed, and 1 were found, 1 with"),
    ([], "at least one pair of two different completions is needed, and none was found."),
]  # fmt: skip


@pytest.mark.parametrize(("records", "expected"), BAD_RECORDS, ids=[text[:40] for _, text in BAD_RECORDS])
def test_a_record_that_is_no_pair_is_one_sentence(tmp_path, records, expected):
    found = sentence(tmp_path, *records)
    assert re.search(expected, found), found


def test_what_is_not_json_or_has_no_columns_is_one_sentence(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": \n')
    with pytest.raises(ValueError, match=r"a.jsonl:1' is not JSON: .*; JSON lines hold one object a line\.$"):
        read_pairs(PairSettings(files=str(path)))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="is neither JSON lines nor Parquet, and pairs are records with the columns"):
        read_pairs(PairSettings(files=str(tmp_path / "a.txt")))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "exactly one of 'files' and 'dataset' is needed for pairs, and none is given"),
        ({"files": "a", "dataset": DatasetSettings(name="b")}, "for pairs, and both are given"),
        ({"files": "a", "chosen_author": "b"}, "'chosen_author' and 'rejected_author' name a column each"),
        ({"files": "a", "max_pairs": 0}, "greater than or equal to 1"),
        ({"files": "a", "column": "b"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_name_no_pairs_are_refused(settings, expected):
    with pytest.raises(ValidationError, match=expected):
        PairSettings(**settings)


def test_the_real_files_are_read(shared_data):
    (path,) = (shared_data / "preferences").glob("*ppohuman_vs_davinci003.jsonl")
    pairs = read_pairs(PairSettings(files=str(path)))
    assert len(pairs) > 700 and kind_of(path) == "preference"
    assert {author for pair in pairs for author in pair.authors} == {"text_davinci_003", "alpaca-farm-ppo-human"}
