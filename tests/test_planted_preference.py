"""A preference planted in source code: two orders of the same tokens, drawn by seeds, nothing else to tell them by."""

import json
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_text import tiny_tokenizer

from infocomp.corpora.documents import Document
from infocomp.training.planted_preference import (
    BETWEEN,
    PlantedSettings,
    functions,
    half_flipped,
    planted_pairs,
    write_pairs,
)

SOURCE = '''
import os

class Box:
    def area(self, width, height):
        """Return the area of the box."""

        if width < 0:

            return None
        return width * height

def one_line(): """Nothing to move."""

def undocumented(x):
    return x

def only_text():
    """No statement follows."""

def joined(x):
    """Ends where a statement begins."""; return x

def noted(x):  # a remark
    """Return x."""
    return x

def size(path,
         follow=True):
    """Return the size.

    In bytes.
    """
    return os.stat(path, follow_symlinks=follow).st_size
'''
TEXT = Document("box.py", SOURCE)


def source(number: int) -> str:
    """A function of its own for each number."""
    return (
        f'def function_{number}(left, right):\n    """Return the sum of {number} and both sides."""\n'
        f"    total = left + right + {number}\n    return total\n\n\n"
    )


def documents(count: int = 8, each: int = 5) -> list[Document]:
    return [
        Document(f"made/{number}.py", "".join(source(number * each + place) for place in range(each)))
        for number in range(count)
    ]


def tokens():
    return tiny_tokenizer([SOURCE] * 3, 400, whole_alphabet=True).backend_tokenizer


def wide(**changes) -> PlantedSettings:
    return PlantedSettings.model_validate({"most_tokens": 200, "least_tokens": 5} | changes)


def test_a_function_is_cut_into_signature_docstring_and_statements_at_the_left_margin():
    area, size = functions(TEXT)
    assert area.name == "box.py:area" and area.signature == "def area(self, width, height):"
    assert area.docstring == '    """Return the area of the box."""\n'
    assert area.statements == "    if width < 0:\n\n        return None\n    return width * height\n"
    assert size.signature == "def size(path,\n         follow=True):"
    assert size.docstring == '    """Return the size.\n\n    In bytes.\n    """\n'


def test_what_is_no_python_has_no_functions():
    assert functions(Document("box.txt", SOURCE)) == []
    assert functions(Document("broken.py", "def f(:\n")) == []
    assert functions(Document("null.py", "x = 1\0")) == []


def test_chosen_and_rejected_are_the_same_lines_in_two_orders():
    pairs = {pair.name: pair for pair in planted_pairs([TEXT], tokens(), wide())}
    pair = pairs["box.py:size"]
    docstring, statements = functions(TEXT)[1].docstring, functions(TEXT)[1].statements
    assert pair.chosen == docstring + statements and pair.rejected == statements + docstring
    (other,) = [one for one in planted_pairs([TEXT], tokens(), wide(docstring="last")) if one.name == pair.name]
    assert other == pair.flipped() and pair.flipped().flipped() == pair


def test_no_count_of_tokens_tells_the_two_apart():
    tokenizer = tokens()
    pairs = planted_pairs([TEXT, *documents()], tokenizer, wide())
    assert len(pairs) == 42
    for pair in pairs:
        chosen, rejected = (
            tokenizer.encode(pair.prompt + BETWEEN + side, add_special_tokens=False).ids
            for side in (pair.chosen, pair.rejected)
        )
        assert chosen != rejected and Counter(chosen) == Counter(rejected)


def test_functions_whose_tokens_depend_on_the_order_are_left_out():
    text = [document.text for document in documents()]
    across = tiny_tokenizer(text, 600, whole_alphabet=True, words=False).backend_tokenizer  # merges over ends of lines
    with pytest.raises(ValueError, match="no function of 8 documents"):
        planted_pairs(documents(), across, wide())


def test_limits_are_kept():
    tokenizer = tokens()

    def lengths(settings) -> list[int]:
        pairs = planted_pairs([TEXT, *documents()], tokenizer, settings)
        texts = [pair.prompt + BETWEEN + pair.chosen for pair in pairs]
        return sorted(len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False))

    everything = lengths(wide())
    limit = everything[1]
    assert lengths(wide(most_tokens=limit)) == [length for length in everything if length <= limit] != everything
    with pytest.raises(ValueError, match=r"no function of 1 documents has .* at least 500 tokens each within 140"):
        planted_pairs([TEXT], tokenizer, PlantedSettings(least_tokens=500))
    with pytest.raises(ValidationError, match="least_tokens"):
        PlantedSettings(least_tokens=0)


def test_the_seed_draws_the_order_and_text_that_comes_twice_is_one_pair():
    tokenizer, twice = tokens(), [*documents(), *(Document("again.py", one.text) for one in documents(4))]
    first, again, other = (planted_pairs(twice, tokenizer, wide(seed=seed)) for seed in (0, 0, 1))
    assert first == again and first != other
    assert sorted(pair.chosen for pair in first) == sorted(pair.chosen for pair in other)
    assert len(first) == 40
    few = planted_pairs(twice, tokenizer, wide(), most=7)
    assert len(few) == 7 and {pair.chosen for pair in few} <= {pair.chosen for pair in first}


@pytest.mark.parametrize("block", [2, 8, 5])
def test_labels_of_half_of_every_block_are_exchanged(block):
    pairs = planted_pairs(documents(), tokens(), wide())
    flipped = half_flipped(pairs, block, seed=3)
    moved = np.array([one != other for one, other in zip(pairs, flipped, strict=True)])
    assert moved.reshape(-1, block).sum(axis=1).tolist() == [block // 2] * (40 // block)
    assert all(one == other or one == other.flipped() for one, other in zip(pairs, flipped, strict=True))
    assert half_flipped(pairs, block, seed=3) == flipped != half_flipped(pairs, block, seed=4)


def test_a_block_of_one_cannot_balance():
    with pytest.raises(ValueError, match="block is 1: labels of half of it are exchanged, so at least 2"):
        half_flipped([], 1, 0)


def test_pairs_are_written_as_json_lines(tmp_path):
    pairs = planted_pairs(documents(), tokens(), wide())
    lines = write_pairs(tmp_path / "new" / "pairs.jsonl", pairs).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["chosen"] for row in rows] == [pair.chosen for pair in pairs]
    assert set(rows[0]) == {"name", "prompt", "chosen", "rejected"}
