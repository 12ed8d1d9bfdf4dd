"""Tokens of a corpus: their bytes are those of the text, whatever the tokenizer does to it, and nothing is added."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_text import BOS, SlowTokenizer, some_texts, tiny_tokenizer
from tokenizers import normalizers

from infocomp.corpora.documents import Document
from infocomp.corpora.tokens import tokenise, tokenizer_hash

TEXTS = {
    "ascii": "if (x) {\n    return y;\n}\n",
    "several bytes a character": "Ünïcödé ≤ 漢字 и ещё",
    "emoji of several code points": "ab 👩‍👩‍👧 🏳️‍🌈 c🙂🙂d",
    "letters and combining marks apart": "e\u0301tude a\u030angstro\u0308m o\u0323\u0302",
    "carriage returns": "one\r\n\r\ntwo\r\n",
    "a byte order mark and white space at both ends": "\ufeff  \t x \u00a0 \n\n",
}
TOKENIZERS = {
    "words": {},
    "merges over spaces and lines": {"words": False},
    "NFC": {"normalizer": normalizers.NFC()},
    "stripping": {"normalizer": normalizers.Strip()},
    "adding a BOS": {"adds_bos": True},
}


def documents(*texts: str) -> list[Document]:
    return [Document(f"document {i}", text) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def tokenizers():
    texts = [*TEXTS.values(), *some_texts(2)] * 3
    return {name: tiny_tokenizer(texts, 400, whole_alphabet=True, **settings) for name, settings in TOKENIZERS.items()}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_all_tokens_are_the_bytes_of_the_text(tokenizers, tokenizer, text):
    corpus = tokenise(documents(TEXTS[text], "", TEXTS["ascii"]), tokenizers[tokenizer])
    starts = corpus.document_starts
    sizes = [int(corpus.byte_counts[a:b].sum()) for a, b in pairwise(starts)]
    assert sizes == [len(TEXTS[text].encode()), 0, len(TEXTS["ascii"].encode())]
    assert corpus.byte_counts.min() >= 0 and len(corpus.byte_counts) == len(corpus.tokens)


def test_an_emoji_of_several_tokens_is_paid_for_by_the_first_of_them():
    tokenizer = tiny_tokenizer(["a"], 258, whole_alphabet=True)  # every byte is a token of its own
    assert tokenise(documents("a🙂é"), tokenizer).byte_counts.tolist() == [1, 4, 0, 0, 0, 2, 0]


@pytest.mark.parametrize("tokenizer", ["words", "merges over spaces and lines"])
def test_every_token_pays_for_its_own_text_and_not_for_the_white_space_of_the_one_before(tokenizers, tokenizer):
    text = TEXTS["ascii"] + "x \n\n  y\t\tz" + some_texts(1)[0]
    corpus = tokenise(documents(text), tokenizers[tokenizer])
    decoded = [tokenizers[tokenizer].decode([token], clean_up_tokenization_spaces=False) for token in corpus.tokens]
    assert "".join(decoded) == text
    assert corpus.byte_counts.tolist() == [len(piece) for piece in decoded]
    if tokenizer == "merges over spaces and lines":  # the case that trimmed offsets would get wrong
        assert any(piece != piece.rstrip() and piece.strip() for piece in decoded)


def test_a_normalizer_changes_the_tokens_and_not_the_bytes(tokenizers):
    composed, apart = "étude", "e\u0301tude"
    one, other = (tokenise(documents(text), tokenizers["NFC"]) for text in (composed, apart))
    assert one.tokens.tolist() == other.tokens.tolist()
    assert (one.byte_counts.sum(), other.byte_counts.sum()) == (6, 7)


def test_max_tokens_cuts_the_text_and_document_tokens_every_document(tokenizers):
    tokenizer = tokenizers["words"]
    texts = documents(*some_texts(4, 30))
    whole = tokenise(texts, tokenizer)
    assert whole.n_documents == 4
    cut = int(whole.document_starts[1]) + 3
    short = tokenise(texts, tokenizer, max_tokens=cut)
    assert short.tokens.tolist() == whole.tokens[:cut].tolist()
    assert short.byte_counts.tolist() == whole.byte_counts[:cut].tolist()
    assert short.document_starts.tolist() == [0, int(whole.document_starts[1]), cut]
    assert short.document_names == ("document 0", "document 1")
    exactly = tokenise(texts, tokenizer, max_tokens=int(whole.document_starts[1]))
    assert exactly.document_names == ("document 0",)

    beginnings = tokenise(texts, tokenizer, document_tokens=5)
    assert beginnings.document_starts.tolist() == [0, 5, 10, 15, 20]
    assert beginnings.tokens[5:10].tolist() == whole.tokens[whole.document_starts[1] :][:5].tolist()
    both = tokenise(texts, tokenizer, document_tokens=5, max_tokens=12)
    assert both.tokens.tolist() == beginnings.tokens[:12].tolist()
    assert len({corpus.fingerprint for corpus in (whole, short, exactly, beginnings, both)}) == 5


def test_the_cache_gives_the_same_arrays_and_is_really_read(tokenizers, tmp_path):
    tokenizer, texts = tokenizers["words"], documents(*TEXTS.values())
    fresh = tokenise(texts, tokenizer)
    written, read = (tokenise(texts, tokenizer, cache=tmp_path) for _ in range(2))
    for corpus in (written, read):
        assert corpus.fingerprint == fresh.fingerprint and corpus.document_names == fresh.document_names
        for name in ("tokens", "byte_counts", "document_starts"):
            assert np.array_equal(getattr(corpus, name), getattr(fresh, name))
            assert getattr(corpus, name).dtype == getattr(fresh, name).dtype
    (path,) = tmp_path.iterdir()
    arrays = load_file(path)
    save_file(arrays | {"tokens": arrays["tokens"][::-1].copy()}, path)
    assert tokenise(texts, tokenizer, cache=tmp_path).tokens.tolist() == fresh.tokens[::-1].tolist()
    # another text, or another limit, is another file
    tokenise(texts[:2], tokenizer, cache=tmp_path)
    tokenise(texts, tokenizer, max_tokens=3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_no_result(tokenizers, tmp_path, caplog):
    tokenizer, texts = tokenizers["words"], documents(TEXTS["ascii"])
    fresh = tokenise(texts, tokenizer, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:20])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(tokenise(texts, tokenizer, cache=tmp_path / "cache").tokens, fresh.tokens)
    assert "cannot be read" in caplog.text and "made again" in caplog.text
    assert np.array_equal(load_file(path)["tokens"], fresh.tokens)

    (tmp_path / "file").write_text("in the way of a folder")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(tokenise(texts, tokenizer, cache=tmp_path / "file" / "cache").tokens, fresh.tokens)
    assert "cannot be written" in caplog.text
    assert not list(tmp_path.rglob("*.tmp"))


def test_special_tokens_are_never_added(tokenizers):
    tokenizer = tokenizers["adding a BOS"]
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id  # by itself it adds one
    corpus = tokenise(documents(*some_texts(2, 20)), tokenizer)
    assert tokenizer.bos_token_id not in corpus.tokens
    expected = tokenizer(some_texts(2, 20), add_special_tokens=False).input_ids
    assert corpus.tokens.tolist() == [token for ids in expected for token in ids]


def test_neither_the_padding_side_nor_an_earlier_padded_call_matters():
    texts = some_texts(3, 10)
    one, other = tiny_tokenizer(), tiny_tokenizer()
    other.padding_side = other.truncation_side = "left"
    other(texts, padding="max_length", truncation=True, max_length=7)
    state = (other.backend_tokenizer.padding, other.backend_tokenizer.truncation)
    a, b = (tokenise(documents(*texts), tokenizer) for tokenizer in (one, other))
    assert a.tokens.tolist() == b.tokens.tolist() and a.byte_counts.tolist() == b.byte_counts.tolist()
    assert a.fingerprint == b.fingerprint and tokenizer_hash(one) == tokenizer_hash(other)
    assert None not in state and state == (other.backend_tokenizer.padding, other.backend_tokenizer.truncation)


def test_the_hash_tells_tokenizers_apart():
    literal = tiny_tokenizer()
    literal.split_special_tokens = True  # reads the text "<s>" as characters
    hashes = {tokenizer_hash(one) for one in (tiny_tokenizer(), tiny_tokenizer(vocabulary=60), literal)}
    assert len(hashes) == 3
    assert tokenise(documents(BOS), tiny_tokenizer()).tokens.tolist() == [0]
    assert 0 not in tokenise(documents(f"a{BOS}"), literal).tokens


def test_a_tokenizer_that_knows_no_offsets_is_refused():
    with pytest.raises(ValueError, match=r"^SlowTokenizer is no fast tokenizer: it cannot say which bytes .*; load it"):
        tokenise(documents("abc"), SlowTokenizer())


def test_a_corpus_without_a_token_is_refused(tokenizers):
    with pytest.raises(ValueError, match=r"^corpus 'mine' holds no token: all 2 documents are empty; give it some"):
        tokenise(documents("", ""), tokenizers["words"], "mine")
