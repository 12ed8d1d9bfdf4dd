"""Kinds of text and what they cost: spans, rules one by one, bits shared by bytes, both coders on the same bytes."""

import random

import numpy as np
import pytest

from infocomp.coding.kinds import RULES, Lexicon, Rules, kinds_of
from infocomp.coding.ppm import byte_code_lengths
from infocomp.coding.retention import ALL, by_document, retention

PIECES = [
    *(
        "the",
        "Alice",
        "I'm",
        "NASA",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        ". ",
        ", ",
        "12",
        "$3.50",
        "31 May 1999",
        "1984",
    ),
    *(
        '"quoted" ',
        "“so”",
        "`said'",
        "`x`",
        "x = 1\n",
        "```\na\n```\n",
        "https://a.b/c",
        "<p>",
        "cafe\u0301",
        "東京",
        "\0",
        "🙂",
    ),
    *("\ud800", "½", "_", "«oui»", "'", '"', "-", "\u00a0", "\u2028", "ﷺ", "Ⅷ", "१२"),
]


def of(text: str, **rules) -> list[tuple[str, str]]:
    """Spans as (what they hold, kind), white space aside."""
    spans = kinds_of(text, Rules(**rules))
    return [(text[start:end].strip(" "), kind) for start, end, kind in spans if kind != "whitespace"]


def of_kind(text: str, kind: str, **rules) -> list[str]:
    return [held for held, found in of(text, **rules) if found == kind]


@pytest.mark.parametrize("space_with_next", [True, False])
def test_spans_cover_any_text_once_and_in_order(space_with_next):
    choice = random.Random(0)
    rules = Rules(space_with_next=space_with_next)
    for _ in range(500):
        text = "".join(choice.choices(PIECES, k=choice.randrange(12)))
        spans = kinds_of(text, rules)
        assert [0, *(end for _, end, _ in spans)] == [*(start for start, _, _ in spans), len(text)]
        assert all(start < end and kind in rules.kinds for start, end, kind in spans)


def test_every_kind_has_its_rule_in_words():
    assert {kind.split(",")[0] for kind in Rules().kinds} == set(RULES)


def test_a_sentence_with_one_of_each():
    text = 'Yesterday Mr. Fox of Rome paid 12% on 3 May 1999, "so they say" (see `pay()`).\n'
    assert [(held, kind.split(",")[0]) for held, kind in of(text)] == [
        ("Yesterday", "rare word"),
        ("Mr", "name"),
        (".", "punctuation"),
        ("Fox", "name"),
        ("of", "rare word"),
        ("Rome", "name"),
        ("paid", "rare word"),
        ("12%", "number"),
        ("on", "rare word"),
        ("3 May 1999", "date"),
        (",", "punctuation"),
        ('"so they say"', "quotation"),
        ("(", "punctuation"),
        ("see", "rare word"),
        ("`pay()`", "code"),
        (")", "punctuation"),
        (".", "punctuation"),
    ]


def test_a_word_keeps_its_marks_hyphens_and_apostrophes_and_a_han_character_is_a_word():
    words = [held for held, kind in of("cafe\u0301s, well-known: it’s 東京, ｶﾅ") if kind != "punctuation"]
    assert words == ["cafe\u0301s", "well-known", "it’s", "東", "京", "ｶﾅ"]


def test_dates_are_days_months_with_a_day_or_a_year_and_years():
    dates = ["1999-01-31", "31/1/1999", "31.12.1999", "31st of January", "Jan. 31, 1999", "May 2004", "1984", "1990s"]
    assert of_kind("; ".join(dates), "date") == dates
    assert of_kind("I may go in May at 12:30, room 1066, 1,984 of them, v1.2.34, 19845", "date") == []


def test_numbers_are_written_in_digits():
    numbers = ["12", "-3.5", "$1,000.50", "1e-9", "7%", "3rd", "12:30", "½", "Ⅷ", "१२"]
    assert of_kind("; ".join(numbers), "number") == numbers
    assert of_kind("three dozen", "number") == []


def test_names_are_capitals_inside_a_sentence_and_others_need_evidence():
    text = "Will spoke to Ann. Ann ran. Rabbits ran from O'Neill, and I'm off; I saw the White Cat.\nBob will see."
    assert of_kind(text, "name") == ["Ann", "Ann", "O'Neill", "White", "Cat"]
    # 'Will' is in lower case too, 'Rabbits' and 'Bob' are never inside another sentence.
    assert of_kind("CHAPTER ONE of NASA. This chapter is one.", "name") == ["NASA"]
    # Where a sentence or a line begins, a word that the text has in lower case too stays a word.
    assert of_kind("White it is, in the White Room: white.", "name") == ["White", "Room"]
    assert of_kind("so there he saw\nRabbit after Rabbit, a rabbit each", "name") == ["Rabbit"]
    assert of_kind("He met Dr. Watson and J. Moriarty. Then he left.", "name") == ["Dr", "Watson", "Moriarty"]


def test_a_lexicon_of_more_texts_brings_its_evidence():
    text = "Ann ran."
    assert "name" not in {kind for *_, kind in kinds_of(text)}
    assert kinds_of(text, lexicon=Lexicon([text, "so Ann sat"]))[0] == (0, 3, "name")


def test_quotations_are_whole_and_end_at_a_blank_line_or_at_the_limit():
    for quoted in ('"It is 12 o\'clock, Ann"', "“No,\nno”", "`don't go'", "‘don’t go’", "«oui»", "„ja“"):
        assert of_kind(f"so {quoted} said he", "quotation") == [quoted]
    assert of_kind('so "one\n\ntwo" said', "quotation") == []
    assert of_kind("the dogs' 'bone' and 5\" discs of 7\"", "quotation") == []
    assert of_kind('"' + "a" * 20 + '"', "quotation", quotation_characters=19) == []


def test_a_kind_that_is_left_out_is_not_looked_for():
    assert of_kind('so "in 1984" he', "quotation", order=("date",)) == []
    assert of_kind('so "in 1984" he', "date", order=("date",)) == ["1984"]


def test_code_is_lines_blocks_addresses_and_tags():
    lines = [
        "x = y + 1",
        "    for (i = 0; i < n; i++) {",
        "import numpy as np",
        "def f(x):",
        "}",
        "a->b",
        "#include <a.h>",
    ]
    assert of_kind("\n".join(["So it goes.", *lines, "And so on."]), "code") == [line.strip() for line in lines]
    block = "```python\nany thing\n\nat all\n```"
    assert of_kind(f"so\n{block}\nit", "code") == [block]
    inside = ["https://a.b/c?d=1", "me@home.org", "<br/>", "`ls -l`"]
    assert of_kind(f"see {', or '.join(inside)}.", "code") == inside
    prose = "He came; he saw (so they say);\nimport of goods\nif so, then:\nfrom that day on\nshe left = gone\n"
    assert of_kind(prose, "code") == []


def test_a_single_space_goes_with_what_follows_unless_it_is_asked_to_stay():
    text = "a  b c \nd "
    kinds = [(text[start:end], kind.split(",")[0]) for start, end, kind in kinds_of(text)]
    assert kinds == [
        *(("a", "rare word"), ("  ", "whitespace"), ("b", "rare word"), (" c", "rare word"), (" ", "whitespace")),
        *(("\n", "whitespace"), ("d", "rare word"), (" ", "whitespace")),
    ]
    assert sum(kind == "whitespace" for *_, kind in kinds_of(text, Rules(space_with_next=False))) == 5


def test_deciles_are_tenths_of_running_words_with_ties_together():
    # 60 of 'a': middle of its share at 0.3, decile 4; 20 of 'b': at 0.7, decile 8; 20 words once: at 0.9, decile 10.
    once = [f"x{chr(97 + i)}" for i in range(20)]
    text = " ".join(["a"] * 60 + ["b"] * 20 + once)
    lexicon = Lexicon([text])
    assert [lexicon.decile(word) for word in ("a", "b", "B", once[0], once[19], "never")] == [4, 8, 8, 10, 10, 10]
    assert kinds_of(text, Rules(rare_from=4))[0][2] == "rare word, decile 4"
    assert kinds_of(text, Rules(rare_from=5))[0][2] == "common word"


def test_counts_of_a_reference_take_the_place_of_the_texts_own():
    lexicon = Lexicon(["b b b b a"], counts={"a": 99, "b": 1}, counted_in="a large corpus")
    assert (lexicon.decile("a"), lexicon.decile("b")) == (5, 10)
    assert lexicon.counted_in == "a large corpus"
    assert Lexicon(["b"]).counted_in == "the texts themselves"


def test_bits_of_a_token_are_shared_by_bytes_and_both_coders_pay_for_the_same_ones():
    text = "ab 12\n"
    # Token 1 is 'ab ' and half of the number; token 2 its other half; the line end is not scored.
    spans, bits = np.array([[0, 4], [4, 5]]), np.array([8.0, 3.0])
    classical = np.array([1.0, 1.0, 1.0, 4.0, 2.0, 99.0])
    rows = {row.kind: row for row in retention([text], [spans], [bits], [classical], Rules(space_with_next=False))}
    assert set(rows) == {ALL, "rare word, decile 6", "whitespace", "number"}
    number = rows["number"]
    assert (number.n_bytes, number.n_tokens, number.n_documents) == (2, 1.25, 1)
    assert number.bits_per_byte == (2 + 3) / 2
    assert number.bits_per_token == (2 + 3) / 1.25
    assert number.classical_bits_per_byte == (4 + 2) / 2
    assert (number.std_error, number.std_error_per_token, number.classical_std_error) == (None, None, None)
    everything = rows[ALL]
    assert (everything.n_bytes, everything.n_tokens, everything.bits_per_byte) == (5, 2.0, 11 / 5)
    assert everything.classical_bits_per_byte == 9 / 5


def test_kinds_add_up_to_the_whole_on_text_of_many_bytes_a_character():
    choice = random.Random(1)
    texts = ["".join(choice.choices(PIECES, k=60)) for _ in range(5)]
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    generator = np.random.default_rng(0)
    cuts = [np.unique(np.r_[0, generator.integers(0, size, size // 3), size]) for size in sizes]
    spans = [np.stack([cut[:-1], cut[1:]], axis=1) for cut in cuts]
    bits = [generator.exponential(5, len(cut) - 1) for cut in cuts]
    classical = [generator.exponential(2, size) for size in sizes]
    everything, *rows = retention(texts, spans, bits, classical)
    assert everything.kind == ALL
    assert sum(row.n_bytes for row in rows) == everything.n_bytes == sum(sizes)
    assert sum(row.n_tokens for row in rows) == pytest.approx(everything.n_tokens) == sum(map(len, bits))
    total, classical_total = sum(map(np.sum, bits)), sum(map(np.sum, classical))
    assert sum(row.bits_per_byte * row.n_bytes for row in rows) == pytest.approx(total)
    assert sum(row.bits_per_token * row.n_tokens for row in rows) == pytest.approx(total)
    assert sum(row.classical_bits_per_byte * row.n_bytes for row in rows) == pytest.approx(classical_total)
    single = by_document(texts, spans, bits, classical)
    for kind in {row.kind for row in rows}:
        found = [row for document in single for row in document if row.kind == kind]
        assert sum(row.n_bytes for row in found) == next(row.n_bytes for row in rows if row.kind == kind)


def test_a_token_of_no_bytes_adds_its_bits_to_the_byte_before():
    spans = np.array([[0, 2], [2, 2], [2, 3]])
    rows = retention(["é1"], [spans], [np.array([4.0, 2.0, 1.0])], [np.ones(3)])
    word = next(row for row in rows if row.kind.startswith("rare word"))
    assert (word.n_bytes, word.n_tokens, word.bits_per_byte) == (2, 2.0, 3.0)


def test_the_standard_error_is_that_of_a_ratio_over_documents():
    generator = np.random.default_rng(3)
    sizes = generator.integers(20, 200, 400)
    texts = ["7" * size for size in sizes]
    spans = [np.array([[0, size]]) for size in sizes]
    bits = [np.array([size * generator.normal(3, 0.5)]) for size in sizes]
    row = retention(texts, spans, bits, [np.ones(size) for size in sizes])[1]
    assert row.std_error is not None and row.classical_std_error == pytest.approx(0, abs=1e-12)
    # A document has 3 ± 0.5 whatever its size: Σ S r / Σ S is off by 0.5 √Σ S² / Σ S, known to 1/√(2 · 400) = 4 %.
    assert row.std_error == pytest.approx(0.5 * np.sqrt((sizes**2).sum()) / sizes.sum(), rel=4 * 0.035)
    few = retention(texts[:2], spans[:2], bits[:2], [np.ones(size) for size in sizes[:2]])[1]
    (a, b), (x, y) = sizes[:2], (bits[0][0], bits[1][0])
    rate = (x + y) / (a + b)
    by_hand = np.sqrt(2 * ((x - rate * a) ** 2 + (y - rate * b) ** 2)) / (a + b)
    assert few.std_error == pytest.approx(by_hand) and few.n_documents == 2


def test_real_text_is_cut_into_kinds_and_ppm_pays_for_the_same_bytes(shared_data):
    text = (shared_data / "text" / "alice29.txt").read_bytes()[:60_000].decode()
    bits = byte_code_lengths(text.encode())
    spans = np.stack([np.arange(len(bits)), np.arange(len(bits)) + 1], axis=1)
    rows = {row.kind: row for row in retention([text], [spans], [bits], [bits])}
    assert rows[ALL].bits_per_byte == pytest.approx(bits.mean())
    assert all(row.bits_per_byte == pytest.approx(row.classical_bits_per_byte) for row in rows.values())
    rare, common = rows["rare word, decile 10"], rows["common word"]
    assert rare.bits_per_byte > common.bits_per_byte, "what is seldom costs more"
    assert rows["quotation"].n_bytes > 0.2 * len(bits) and rows["name"].n_bytes > 0.02 * len(bits)


def test_costs_that_do_not_fit_the_text_are_refused():
    spans, bits, classical = np.array([[0, 1], [1, 3]]), np.array([1.0, 2.0]), np.ones(3)

    def refused(
        texts=("a12",), spans=spans, bits=bits, classical=classical, error: type[Exception] = ValueError
    ) -> str:
        with pytest.raises(error) as found:
            retention(texts, [spans], [bits], [classical])
        return str(found.value)

    assert refused("a12", error=TypeError).startswith(
        "texts is one string: documents are given as a list; write [text]"
    )
    assert refused(["a12", "b"]).startswith("texts, token_spans, token_bits and byte_bits have [2, 1, 1, 1] documents")
    assert refused(bits=np.ones(3)).startswith("document 0: token_spans has shape (2, 2), token_bits (3,): one (start,")
    assert refused(spans=np.array([0, 3])).startswith("document 0: token_spans has shape (2,), token_bits (2,)")
    assert refused(classical=np.ones(2)).startswith("document 0: byte_bits has 2 entries, the text 3 bytes of UTF-8")
    assert refused(bits=np.array([1.0, np.nan])).startswith("document 0: a cost in bits is NaN or infinite")
    assert refused(classical=np.array([1.0, np.inf, 1.0])).startswith("document 0: a cost in bits is NaN or infinite")
    for wrong in ([[0, 2], [1, 3]], [[0, 1], [1, 4]], [[-1, 1], [1, 3]], [[1, 0], [1, 3]]):
        assert refused(spans=np.array(wrong)).startswith("document 0: token_spans must lie in order and within 3 bytes")


def test_rules_that_cannot_be_followed_are_refused():
    with pytest.raises(
        ValueError, match=r"^no pattern for the kind 'verb'; the kinds that can be ordered are code, quot"
    ):
        Rules(order=("verb",))
    for decile in (0, 11):
        with pytest.raises(ValueError, match=rf"^rare_from must be a decile from 1 to 10, got {decile}; 6 is usual\.$"):
            Rules(rare_from=decile)


def test_documents_without_text_or_tokens_have_no_rows():
    empty = np.zeros((0, 2), np.int64)
    assert retention([], [], [], []) == []
    assert retention([""], [empty], [np.zeros(0)], [np.zeros(0)]) == []
    assert retention(["abc"], [empty], [np.zeros(0)], [np.ones(3)]) == []
