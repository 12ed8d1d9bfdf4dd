"""Windows over pairs: which tokens are the completion's, what is kept, matched rows, how rows are numbered."""

import logging

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_text import BOS, some_texts, tiny_tokenizer

from infocomp.activations.stream import stream
from infocomp.corpora.chat import ChatTemplate
from infocomp.corpora.pair_windows import PairTexts, pair_texts
from infocomp.corpora.pairs import PreferencePair

TOKENIZER = tiny_tokenizer(whole_alphabet=True)


def some_pairs(n: int = 7, seed: int = 0) -> list[PreferencePair]:
    """Prompts of 3 to 30 words, completions of 1 to 40 words; some characters need several bytes."""
    generator = np.random.default_rng(seed)
    words = " ".join(some_texts(seed=seed)).split()

    def text(least: int, most: int) -> str:
        return " ".join(generator.choice(words, generator.integers(least, most))) + generator.choice(["", " ä€", "."])

    return [PreferencePair(f"p{i}", text(3, 30), f"x {text(1, 40)}", f"y {text(1, 40)}") for i in range(n)]


def made(pairs=None, template: ChatTemplate | None = None, context_length=64, **settings) -> PairTexts:
    pairs = some_pairs() if pairs is None else pairs
    return pair_texts(pairs, TOKENIZER, template or ChatTemplate(), context_length, **settings)


def text_of(texts: PairTexts, completion: int) -> tuple[str, str]:
    """What is read of one text: the prompt's part and the completion's, decoded."""
    windows = texts.windows
    window = np.argsort(windows.starts, kind="stable")[completion]
    start, first, end = windows.starts[window], windows.measure_from[window], windows.measure_to[window]
    tokens = texts.corpus.tokens
    assert end == start + windows.lengths[window]
    return str(TOKENIZER.decode(tokens[start:first])), str(TOKENIZER.decode(tokens[first:end]))


def test_what_fits_is_read_whole_and_split_where_the_completion_begins():
    pairs, texts = some_pairs(), made(context_length=1000, completion_tokens=500)
    for number, pair in enumerate(pairs):
        for side, completion in enumerate(pair.completions):
            assert text_of(texts, 2 * number + side) == (f"{pair.prompt}\n\n", completion)
    assert np.array_equal(texts.lengths, texts.kept) and texts.template == "plain"
    assert texts.corpus.byte_counts.sum() == sum(
        len(f"{p.prompt}\n\n{c}".encode()) for p in pairs for c in p.completions
    )


def test_a_document_is_a_pair_and_rows_follow_the_windows():
    texts = made(bos_policy="document", bos=0)
    windows, rows = texts.windows, texts.windows.row_tokens
    assert texts.corpus.n_documents == 7 and texts.corpus.document_names == tuple(f"p{i}" for i in range(7))
    assert np.array_equal(windows.row_documents, texts.completion // 2)
    assert (np.diff(windows.lengths + windows.has_bos) <= 0).all(), "the longest first"
    assert np.array_equal(np.bincount(texts.completion).reshape(-1, 2), texts.kept)
    assert ((texts.text_start <= rows) & (rows < texts.text_end)).all()
    ends = rows[np.r_[np.diff(texts.completion) != 0, True]]
    assert np.array_equal(ends + 1, texts.text_end[np.r_[np.diff(texts.completion) != 0, True]])
    for completion in range(14):
        assert np.array_equal(texts.position[texts.completion == completion], np.arange(texts.kept.ravel()[completion]))
    assert np.array_equal(windows.scored_tokens, rows)


def test_matched_rows_are_the_first_positions_that_both_sides_have():
    texts = made()
    counts = np.bincount(texts.completion, weights=texts.matched).reshape(-1, 2)
    assert np.array_equal(counts[:, 0], counts[:, 1]) and np.array_equal(counts[:, 0], texts.kept.min(axis=1))
    assert texts.position[texts.matched].max() < texts.kept.min(axis=1).max()


@pytest.mark.parametrize("bos_policy", ["none", "window"])
def test_the_prompts_tail_is_the_same_on_both_sides_and_windows_fit(bos_policy):
    texts = made(context_length=140, bos_policy=bos_policy, bos=0)
    assert texts.completion_tokens == (140 - (bos_policy != "none")) // 2
    assert texts.kept.max() == texts.completion_tokens < texts.lengths.max()
    assert (texts.windows.lengths + texts.windows.has_bos).max() == 140
    cut = 0
    for number, pair in enumerate(some_pairs()):
        tails = [text_of(texts, 2 * number + side)[0] for side in (0, 1)]
        assert tails[0] == tails[1] and f"{pair.prompt}\n\n".endswith(tails[0])
        cut += tails[0] != f"{pair.prompt}\n\n"
    assert 0 < cut < 7


def test_a_token_across_the_seam_belongs_to_the_prompt():
    merging = tiny_tokenizer(["\n\nso"] * 50, vocabulary=300, words=False, whole_alphabet=True)
    pair = PreferencePair("p", "why", "so so so", "so what")
    texts = pair_texts([pair], merging, ChatTemplate(), 64)
    window = int(np.argmin(texts.windows.starts))
    prompt = texts.corpus.tokens[texts.windows.starts[window] : texts.windows.measure_from[window]]
    assert merging.decode(prompt) == "why\n\nso"


def test_tokens_inside_the_prompts_last_character_are_not_the_completions():
    pair = PreferencePair("p", "x", "€ a b", "a b")
    template = ChatTemplate()
    plain = pair_texts([PreferencePair("p", "x€", "a", "b")], TOKENIZER, template, 64)
    assert text_of(plain, 0) == ("x€\n\n", "a")
    assert text_of(pair_texts([pair], TOKENIZER, template, 64), 0)[1] == "€ a b"
    tokenizer = tiny_tokenizer(whole_alphabet=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}€{% endif %}{% endfor %}"
    )
    seam = pair_texts([PreferencePair("p", "x", "ab", "b")], tokenizer, ChatTemplate.of(tokenizer), 64)
    assert text_of(seam, 0) == ("x€", "ab"), "the euro's last two tokens add no byte"


def test_lengths_tell_how_often_the_longer_one_is_chosen():
    pairs = [PreferencePair("p", "x", *both) for both in (("a b c", "a"), ("a", "a b"), ("a b", "b a"), ("a b c", "b"))]
    texts = made(pairs)
    assert texts.longer_chosen_share == (2 + 0.5) / 4


def test_a_template_that_writes_the_bos_does_not_give_two():
    tokenizer = tiny_tokenizer(whole_alphabet=True)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    template = ChatTemplate.of(tokenizer)
    bos = tokenizer.bos_token_id
    assert isinstance(bos, int) and tokenizer.bos_token == BOS
    with_policy = pair_texts(some_pairs(), tokenizer, template, 200, bos_policy="document", bos=bos)
    without = pair_texts(some_pairs(), tokenizer, template, 200)
    assert bos not in with_policy.corpus.tokens and with_policy.windows.has_bos.all()
    assert (without.corpus.tokens == bos).sum() == 14 and not without.windows.has_bos.any()


def test_positions_at_the_start_of_a_window_can_be_left_out(caplog):
    pairs = [PreferencePair("a", "x", "a b c d e f g h", "h g f e d c b a"), PreferencePair("b", "x", "a", "b b b b b")]
    with caplog.at_level(logging.WARNING):
        texts = made(pairs, skip_first=6)
    assert [pair.name for pair in texts.pairs] == ["a"] and texts.corpus.document_names == ("a",)
    assert "1 pairs dropped because a completion has no token of its own to measure; 1 kept" in caplog.text
    assert (texts.windows.row_tokens - texts.text_start >= 6).all() and texts.position.min() > 0
    assert len(texts.windows.scored_tokens) == texts.kept.sum(), "scored they are all the same"


def test_a_completion_of_an_empty_prompt_is_scored_from_its_second_token_on():
    texts = made([PreferencePair("a", "", "a b", "b a")])
    assert len(texts.completion) == 6 and len(texts.windows.scored_tokens) == 4
    assert len(made([PreferencePair("a", "", "a b", "b a")], bos_policy="window", bos=0).windows.scored_tokens) == 6


def test_the_fingerprint_changes_with_what_is_read():
    prints = {made(context_length=length).corpus.fingerprint for length in (40, 64)}
    assert len(prints | {made(some_pairs(seed=1)).corpus.fingerprint}) == 3 and made().corpus.fingerprint in prints


def test_the_stream_reads_pairs_and_gives_each_row_its_completion():
    """Rows of one completion depend on its own text alone: the batch they were in does not matter."""
    tokenizer, model = tiny_tokenizer(), tiny_model("gpt_neox")
    texts = pair_texts(some_pairs(), tokenizer, ChatTemplate(), 64)

    class Rows:
        sites, needs_hidden, needs_logits = ["blocks.0.hook_resid_post"], False, False

        def __init__(self):
            self.rows = []

        def compute(self, batch):
            return batch.rows_of("blocks.0.hook_resid_post").clone()

        def keep(self, computed):
            self.rows.append(computed)

    probes = [Rows(), Rows()]
    for probe, batch_tokens in zip(probes, (64, 4096), strict=True):
        stream(model, texts.windows, [probe], batch_tokens=batch_tokens)  # type: ignore[list-item]
    one, other = (torch.cat(probe.rows) for probe in probes)
    assert len(one) == len(texts.completion) and torch.allclose(one, other, atol=1e-5)
    alone = pair_texts(some_pairs()[2:3], tokenizer, ChatTemplate(), 64)
    probe = Rows()
    stream(model, alone.windows, [probe])  # type: ignore[list-item]
    for side in (0, 1):
        own = torch.cat(probe.rows)[torch.from_numpy(alone.completion == side)]
        assert torch.allclose(own, one[torch.from_numpy(texts.completion == 4 + side)], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"completion_tokens": 64},
            "completion_tokens must lie between 1 and 63 .context_length 64 less a token of the",
        ),
        (
            {"completion_tokens": 63, "bos_policy": "window", "bos": 0},
            "between 1 and 62 .* prompt and the BOS., got 63",
        ),
        ({"context_length": 1}, "completion_tokens must lie between 1 and 0 .* got 0; keep fewer or take a longer"),
        ({"bos_policy": "window"}, "bos_policy 'window' needs a BOS token, and the tokenizer has none; use 'none'"),
        ({"skip_first": -1}, "skip_first must be at least 0 positions, got -1"),
        ({"skip_first": 64}, "no pair is left of which both completions have a token past the first 64 positions"),
    ],
)
def test_windows_that_cannot_be_cut_are_one_sentence(settings, expected):
    with pytest.raises(ValueError, match=expected):
        made(**settings)
