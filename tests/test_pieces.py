"""Bytes to tokens and escapes and back: whatever the bytes, whatever the tokenizer loses."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_coder import neox_tokenizer, noise
from tiny_text import SlowTokenizer, some_texts, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from infocomp.coding.classical import Coder
from infocomp.coding.pieces import (
    ExactTokenizer,
    Pieces,
    join_pieces,
    pack_escapes,
    split_bytes,
    unpack_escapes,
)

NFC = ExactTokenizer(neox_tokenizer())
TEXT = "".join(some_texts(2))


def word_piece() -> ExactTokenizer:
    """A tokenizer that lowers case, drops accents and knows few words: almost nothing comes back."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "b": 2, "##c": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    return ExactTokenizer(tokenizer)


def metaspace() -> ExactTokenizer:
    """As Llama 2's: a space before the text, '▁' for spaces, bytes for what has no token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return ExactTokenizer(tokenizer)


TOKENIZERS = {"nfc": NFC, "few letters": ExactTokenizer(tiny_tokenizer()), "word piece": word_piece()}
TOKENIZERS["metaspace"] = metaspace()


def round_trip(data: bytes, tokenizer: ExactTokenizer = NFC) -> Pieces:
    pieces = split_bytes(data, tokenizer)
    assert join_pieces(pieces, tokenizer) == data
    section = pack_escapes(pieces)
    assert unpack_escapes(section, len(pieces.tokens)) == (pieces.texts, pieces.escapes)
    assert bool(section) == bool(pieces.escapes)
    return pieces


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.one_of(st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=60)))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_come_back_from_any_tokenizer(name, data):
    round_trip(data, TOKENIZERS[name])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "a\r\nb\rc\n",
        "\ufeffwith a mark",
        "nul\x00and\x01control\x7f",
        "two  spaces   three    four\ttab",
        unicodedata.normalize("NFC", "Việt Nam café 한국어 Å"),
        "👩\u200d👩\u200d👧 and 👍🏽",
        "a <|endoftext|> b <s> <pad>",
    ],
)
def test_text_in_nfc_has_no_escape(text):
    assert round_trip(text.encode()).escapes == ()


def test_a_special_token_written_out_is_its_characters():
    pieces = round_trip(b"a<|endoftext|>b")
    special = neox_tokenizer().convert_tokens_to_ids("<|endoftext|>")
    assert special not in pieces.tokens.tolist() and len(pieces.tokens) > 3


@pytest.mark.parametrize("nfd", ["cafe\u0301", "\u212b", "\u1100\u1161\u11a8", "q\u0307\u0323"])
def test_one_character_that_is_not_nfc_costs_at_most_sixty_four_bytes(nfd):
    half = TEXT[:400]
    pieces = round_trip((half + nfd + " " + half).encode())
    assert 1 <= len(pack_escapes(pieces)) <= 64 and len(pieces.escapes) == 1
    assert len(pieces.tokens) > 0.9 * len(split_bytes((half + half).encode(), NFC).tokens)


def test_bytes_that_are_no_utf8_travel_alone():
    data = (
        TEXT[:300].encode() + b"\xff\xfe" + TEXT[300:600].encode() + "\ud800".encode("utf-8", "surrogatepass") + b" x"
    )
    pieces = round_trip(data)
    assert pieces.escapes[0] == b"\xff\xfe" and pieces.escaped < 10


def test_short_text_between_escapes_travels_with_them():
    pieces = round_trip(TEXT[:200].encode() + b"\xffabc\xff" + TEXT[200:400].encode())
    assert pieces.escapes == (b"\xffabc\xff",)


@pytest.mark.parametrize("length, escapes", [(15, 1), (16, 2)])
def test_sixteen_characters_are_enough_to_stand_alone(length, escapes):
    assert len(round_trip(TEXT[:99].encode() + b"\xff" + TEXT[:length].encode() + b"\xff").escapes) == escapes


@pytest.mark.parametrize("escaped, tokens", [(290, True), (310, False)])
def test_text_beside_as_many_bytes_that_are_none_is_still_text(escaped, tokens):
    pieces = round_trip(TEXT[:300].encode() + b"\xff" * escaped)
    assert (len(pieces.tokens) > 0) is tokens and pieces.escaped == (escaped if tokens else 300 + escaped)


def test_padding_and_truncation_of_the_tokenizer_play_no_part():
    tokenizer = neox_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=200)
    tokenizer.backend_tokenizer.enable_truncation(5)
    pieces = round_trip(TEXT[:400].encode(), ExactTokenizer(tokenizer))
    assert pieces.escapes == () and pieces.tokens.tolist() == split_bytes(TEXT[:400].encode(), NFC).tokens.tolist()


def test_words_that_only_together_do_not_come_back_are_taken_apart_by_one_character():
    tokenizer = ExactTokenizer(tiny_tokenizer(normalizer=normalizers.Replace("x y", "xy"), whole_alphabet=True))
    lines = [TEXT[:80].encode() + b"\n", b"here is an x y in a line\n", TEXT[80:160].encode() + b"\n"]
    assert round_trip(b"".join(lines), tokenizer).escapes == (b" ",)


def test_lines_that_only_together_do_not_come_back_are_taken_apart_too():
    tokenizer = ExactTokenizer(tiny_tokenizer(normalizer=normalizers.Replace(".\nb", ".\n"), whole_alphabet=True))
    text = ("a sentence here.\nbut then another one.\n" * 3).encode()
    assert round_trip(text, tokenizer).escaped <= 3


def test_a_tokenizer_that_is_wrong_about_itself_leaves_one_escape(monkeypatch):
    monkeypatch.setattr(ExactTokenizer, "gives_back", lambda self, texts: [True] * len(texts))
    data = "cafe\u0301".encode()
    assert split_bytes(data, NFC).escapes == (data,)


@pytest.mark.parametrize("text", ["e\u0301" * 3000, unicodedata.normalize("NFD", "한국어" * 1500), "\u212bab" * 3000])
def test_a_long_word_without_spaces_takes_as_long_as_many_short_ones(text):
    """The time grows with the length, not with its square: twice the text, at most three times the time."""
    seconds = []
    for part in (text[: len(text) // 2], text, text[: len(text) // 2], text):
        start = time.perf_counter()
        round_trip(part.encode())
        seconds.append(time.perf_counter() - start)
    assert min(seconds[1], seconds[3]) <= 3 * max(seconds[0], seconds[2]) + 0.05


def test_dense_bytes_that_are_no_text_are_seen_at_once():
    data = noise(400_000)
    start = time.perf_counter()
    assert split_bytes(data, NFC).escapes == (data,)
    assert time.perf_counter() - start < 5


def test_data_that_is_hardly_text_is_one_escape_of_about_its_size():
    data = noise(5000)
    pieces = round_trip(data)
    assert len(pieces.tokens) == 0 and pieces.escapes == (data,)
    assert len(pack_escapes(pieces)) <= len(data) + 8


def test_many_escapes_that_look_alike_are_coded_short():
    data = "e\u0301 and some more words here ".encode() * 500
    pieces = round_trip(data)
    assert len(pieces.escapes) == 500 and len(pack_escapes(pieces)) < 200


def one_escape(data: bytes) -> Pieces:
    return Pieces(np.zeros(0, np.int32), (0, 0), (data,))


@pytest.mark.parametrize("data, method", [(b"few", 0), (noise(900), 0), (noise(900) * 9, 1), (TEXT.encode(), 2)])
def test_escapes_take_the_shortest_of_three_ways(data, method):
    section = pack_escapes(one_escape(data))
    assert section[0] == method and unpack_escapes(section, 0) == ((0, 0), (data,))


def test_a_way_that_does_not_give_back_is_not_taken(monkeypatch):
    monkeypatch.setattr("infocomp.coding.pieces._PPMD", Coder(lambda data: b"", lambda code, length: b"wrong", {}))
    assert pack_escapes(one_escape(TEXT.encode()))[0] == 0


@pytest.mark.parametrize("length", [1, 127, 128, 129, 255, 256, 16_383, 16_384, 2_097_152])
def test_lengths_of_any_size_come_back(length):
    pieces = Pieces(np.zeros(0, np.int32), (length, 0), (b"\xff" * length,))
    assert unpack_escapes(pack_escapes(pieces), length) == (pieces.texts, pieces.escapes)


def test_a_damaged_section_is_refused():
    section = pack_escapes(split_bytes(TEXT[:200].encode() + b"\xff" + TEXT[200:400].encode(), NFC))
    with pytest.raises(ValueError, match="the section of escapes cannot be read"):
        unpack_escapes(b"\x07" + section[1:], 300)
    for ends_early in (b"\x00", b"\x00\x80", b"\x00\x05\x01"):
        with pytest.raises(ValueError, match="the section of escapes cannot be read"):
            unpack_escapes(ends_early, 300)
    with pytest.raises(ValueError, match="does not fit the tokens beside it"):
        unpack_escapes(section, 1)
    with pytest.raises(ValueError, match="the section of escapes"):
        unpack_escapes(section[:-1], 300)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="SlowTokenizer is no fast tokenizer"):
        ExactTokenizer(SlowTokenizer())


def test_a_real_tokenizer_gives_real_text_back_without_escapes(shared_data):
    tokenizer = ExactTokenizer(Tokenizer.from_file(str(shared_data / "tokenizers/neox/tokenizer.json")))
    for name in ("alice29.txt", "book1", "wiki.test.raw", "bronte.txt"):
        pieces = round_trip((shared_data / "text" / name).read_bytes()[:100_000], tokenizer)
        assert pieces.escapes == () or pieces.escaped <= 3  # the cut may fall inside a character
