"""Extraction: the tokens of generate row by row, first differences, shares, intervals, changed prompts, bad input."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from memorization_tables import checkpoint_rows
from scipy.stats import binomtest
from test_figures_memorization import run_folder, script
from tiny_models import ARCHITECTURES, VOCABULARY, hooks_on, tiny_model
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from infocomp.memorization.extraction import (
    KINDS,
    Extraction,
    _substitutes,
    extract,
    fragility,
    paired_difference_interval,
)
from infocomp.memorization.greedy import COLUMNS, GreedyReader

PROMPT, CONTINUATION = 12, 20
LENGTH = PROMPT + CONTINUATION


def lively_model(architecture="llama", attention="sdpa", dtype=torch.float32, end=None):
    """A tiny model with matrices so large that it emits many different tokens, with wide gaps between logits."""
    model = tiny_model(architecture, attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    model.generation_config.eos_token_id = end
    return model.to(dtype)


def generated(model, prompts, continuation=CONTINUATION, at_least=0):
    """`generate` with batch 1, one row after the other: prompt and continuation, int64 numpy."""
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=continuation, min_new_tokens=at_least or None, pad_token_id=1
    )
    rows = [
        model.generate(row, attention_mask=torch.ones_like(row), generation_config=settings)
        for row in torch.from_numpy(prompts).split(1)
    ]
    return torch.cat(rows).numpy()


def some_prompts(n, seed=0, length=PROMPT):
    return np.random.default_rng(seed).integers(2, VOCABULARY, (n, length))


def rows_that_differ_at(model, places, seed=0):
    """Rows that a model emits itself, but for one wrong token at a place of the continuation (past its end: none)."""
    rows = generated(model, some_prompts(len(places), seed))
    own = rows.copy()
    for row, place in zip(rows, places, strict=True):
        if place < CONTINUATION:
            row[PROMPT + place] = (row[PROMPT + place] + 1) % VOCABULARY
    return rows, own


def assert_same_but_for_ties(model, emitted, own):
    """Equal to what generate emits, or away from it after two logits within rounding of each other."""
    for mine, row in zip(emitted, own, strict=True):
        differs = np.flatnonzero(mine != row[PROMPT:])
        if len(differs):
            with torch.no_grad():
                logits = model(torch.from_numpy(row[None])).logits[0, PROMPT + differs[0] - 1].double()
            two = logits.topk(2).values
            assert two[0] - two[1] < 1e-4, f"token {differs[0]} differs, and nothing is near it"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_emits_what_generate_emits_row_by_row(architecture, attention):
    model = lively_model(architecture, attention)
    places = np.random.default_rng(1).permutation([*range(0, CONTINUATION, 2), 1, 5, 5, 0, *[CONTINUATION] * 3])
    rows, own = rows_that_differ_at(model, places)
    reader = GreedyReader(model, LENGTH - 1)
    first, emitted = reader.follow(rows[:, :PROMPT], rows[:, PROMPT:])
    assert_same_but_for_ties(model, emitted, own)
    assert (emitted == own[:, PROMPT:]).all(axis=1).mean() > 0.9, "ties are rare"
    same = (emitted == own[:, PROMPT:]).all(axis=1)
    assert (first[same] == places[same]).all()
    assert len(np.unique(own[:, PROMPT:])) > 10, "a model that always says the same tells nothing"


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_the_share_of_equal_tokens_and_do_not_depend_on_batches(architecture):
    model = lively_model(architecture)
    rows, own = rows_that_differ_at(model, [0, 3, 20, 7, 19, 20, 1, 2, 20, 0, 11], seed=2)
    found: Any = extract(model, np.hstack([rows, rows]), PROMPT, CONTINUATION)
    expected = (own[:, PROMPT:] == rows[:, PROMPT:]).mean(axis=1)
    assert found.score == pytest.approx(expected)
    assert found.first_difference.tolist() == [0, 3, 20, 7, 19, 20, 1, 2, 20, 0, 11]
    assert found.extracted.tolist() == (expected == 1).tolist()
    assert found.rate == pytest.approx(3 / 11) and found.mean_score == pytest.approx(expected.mean())
    seen = []
    in_parts: Any = extract(model, rows, PROMPT, CONTINUATION, batch_rows=4, progress=seen.append)
    assert (in_parts.first_difference == found.first_difference).all() and (in_parts.score == found.score).all()
    assert seen == [4, 4, 3]


def test_full_matches_alone_agree_with_the_whole_pass():
    model = lively_model()
    rows, _ = rows_that_differ_at(model, [*range(21), 20, 20])
    alone: Any = extract(model, rows, PROMPT, CONTINUATION, score=False, batch_rows=7)
    assert (alone.first_difference == extract(model, rows, PROMPT, CONTINUATION).first_difference).all()
    assert alone.score is None and alone.mean_score is None and alone.score_interval is None
    assert alone.rate == pytest.approx(3 / 23)
    _, emitted = GreedyReader(model, LENGTH - 1).follow(rows[:, :PROMPT], rows[:, PROMPT:], to_the_end=False)
    places = np.minimum(np.arange(23), 20)
    assert ((emitted == -1) == (np.arange(CONTINUATION) > places[:, None])).all()


def test_rows_that_are_emitted_whole_are_never_read_token_by_token():
    model = lively_model("gpt_neox")
    rows, _ = rows_that_differ_at(model, [20] * 6)
    read = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _, args, given: read.append((args[0] if args else given["input_ids"]).shape), with_kwargs=True
    )
    assert extract(model, rows, PROMPT, CONTINUATION).rate == 1
    handle.remove()
    assert read[1:] == [(6, PROMPT), (6, 3), (6, 9), (6, 7)], "the first pass looks at the head"
    assert hooks_on(model) == 0


@pytest.mark.parametrize(("prompt", "continuation"), [(1, 1), (1, 5), (5, 1), (40, 2)])
def test_the_shortest_prompts_and_continuations_work(prompt, continuation):
    model = lively_model("gpt2")
    rows = generated(model, some_prompts(5, length=prompt), continuation)
    rows[2, prompt] = (rows[2, prompt] + 1) % VOCABULARY
    found = extract(model, rows, prompt, continuation)
    assert found.extracted.tolist() == [True, True, False, True, True]
    assert found.first_difference[2] == 0


def test_a_bos_is_read_before_every_prompt():
    model = lively_model()
    prompts = some_prompts(8)
    own = generated(model, np.hstack([np.full((8, 1), 0), prompts]))[:, 1:]
    assert extract(model, own, PROMPT, CONTINUATION, bos=0).rate == 1
    assert extract(model, own, PROMPT, CONTINUATION).rate < 1


def test_a_token_that_is_never_emitted_is_left_out_as_generate_leaves_out_the_end():
    model = lively_model()
    free = generated(model, some_prompts(8))
    end = int(np.bincount(free[:, PROMPT:].ravel()).argmax())
    ended = lively_model(end=end)
    without = generated(ended, some_prompts(8), at_least=CONTINUATION)
    assert not (without[:, PROMPT:] == end).any() and (free != without).any()
    assert extract(model, without, PROMPT, CONTINUATION, never=(end,)).rate == 1
    assert extract(model, free, PROMPT, CONTINUATION).rate == 1, "an end of text is a token like any other"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_emit_what_generate_emits(dtype):
    model = lively_model(dtype=dtype)
    own = generated(model, some_prompts(10))
    found: Any = extract(model, own, PROMPT, CONTINUATION)
    # bfloat16 has 8 bits, and a batch rounds other products than a single row
    assert found.rate == 1 or (dtype == torch.bfloat16 and found.mean_score > 0.5)


def test_a_head_that_caps_its_logits_is_asked_through_the_model():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    sizes: Any = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
    }
    config = Gemma2Config(
        **sizes,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        eos_token_id=None,
        initializer_range=0.5,
    )
    model = Gemma2ForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    reader = GreedyReader(model, LENGTH - 1)
    assert reader.head is None
    own = generated(model, some_prompts(6))
    own[3, -2] = (own[3, -2] + 1) % VOCABULARY
    first, _ = reader.follow(own[:, :PROMPT], own[:, PROMPT:])
    assert first.tolist() == [20, 20, 20, 18, 20, 20], "with windows shorter than the prompt, too"


def test_a_vocabulary_of_several_blocks_emits_what_generate_emits():
    torch.manual_seed(0)
    sizes: Any = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 2 * COLUMNS + 500}
    model: Any = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.5, tie_word_embeddings=False)).eval()
    model.generation_config.eos_token_id = None
    own = generated(model, some_prompts(8))
    blocks = own[:, PROMPT:] // COLUMNS
    assert set(blocks.ravel()) == {0, 1, 2}
    assert extract(model, own, PROMPT, CONTINUATION).rate == 1
    likely = int(np.bincount(own[:, PROMPT:][blocks == 1]).argmax())
    _, without = GreedyReader(model, LENGTH - 1, never=(likely,)).follow(own[:, :PROMPT], own[:, PROMPT:])
    assert not (without == likely).any()
    with torch.no_grad():
        model.lm_head.weight[:] = model.lm_head.weight[:1].clone()
    lowest: Any = extract(model, own, PROMPT, CONTINUATION)
    assert not lowest.score.any(), "of equal logits the lowest id wins"
    own[:, PROMPT:] = 0
    assert extract(model, own, PROMPT, CONTINUATION).rate == 1


# shares and intervals


def made(score, first=None, prompt=4, continuation=4) -> Any:
    score = np.array(score, dtype=float)
    first = np.where(score == 1, continuation, 0) if first is None else np.array(first)
    return Extraction(score, first, prompt, continuation)


def test_the_rates_interval_is_wilsons_and_has_a_width_where_nothing_is_extracted():
    found = made([1, 0.5, 0.25, 1])
    # by hand, z = 1.959964: centre (p + z²/2n)/(1 + z²/n), half width z/(1 + z²/n) √(p(1 − p)/n + z²/4n²)
    z2 = 1.959964**2
    half = 1.959964 / (1 + z2 / 4) * np.sqrt(0.25 / 4 + z2 / 64)
    assert found.interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    nothing = made([0.0] * 50)
    assert nothing.interval == pytest.approx((0, z2 / (50 + z2)), abs=1e-6)


def test_the_mean_scores_interval_is_students_over_rows():
    interval: Any = made([1, 0.5, 0.25, 1]).score_interval
    half = 3.182446 * np.std([1, 0.5, 0.25, 1], ddof=1) / 2
    assert interval == pytest.approx((0.6875 - half, 0.6875 + half), abs=1e-6)
    assert made([1]).score_interval is None


def test_the_paired_interval_holds_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held, n = 0, 60
    for _ in range(400):
        one = generator.random(n) < 0.3
        other = one & (generator.random(n) < 0.5) | ~one & (generator.random(n) < 0.05)
        low, high = paired_difference_interval(one, other)
        held += low <= 0.3 - (0.15 + 0.035) <= high
    # 95 % of 400 is 380, with a standard error of 4.4
    assert 365 <= held <= 395, held


def test_the_paired_interval_without_any_extracted_row_is_not_a_point():
    nothing = np.zeros(40, dtype=bool)
    low, high = paired_difference_interval(nothing, nothing)
    wilson = binomtest(0, 40).proportion_ci(method="wilson").high
    assert (low, high) == pytest.approx((-wilson, wilson))
    some = np.arange(40) < 10
    low, high = paired_difference_interval(some, some)
    assert low < 0 < high and high - low < 0.1, "the same rows twice: the pairs take most of the width away"


# changed prompts


def test_places_of_fewer_changes_are_among_those_of_more():
    prompts = np.arange(20).reshape(2, 10)
    order = np.array([[3, 0, 9, 1, 2, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
    other = prompts + 100
    assert KINDS["replace"](prompts, order, other, 2).tolist() == [
        [100, 1, 2, 103, *range(4, 10)],
        [*range(10, 18), 118, 119],
    ]
    assert KINDS["drop"](prompts, order, other, 2).tolist() == [[1, 2, *range(4, 10)], [*range(10, 18)]]
    assert KINDS["shorten"](prompts, order, other, 2).tolist() == [[*range(2, 10)], [*range(12, 20)]]
    assert (prompts == np.arange(20).reshape(2, 10)).all(), "the rows themselves stay as they are"


def test_substitutes_follow_the_frequencies_of_the_other_tokens():
    rows = np.tile([5, 5, 5, 2, 2, 9, 7, 7, 7, 7], (20_000, 1))
    drawn = _substitutes(rows, 6, np.random.default_rng(0))
    assert drawn.shape == (20_000, 6) and not (drawn == rows[:, :6]).any()
    shares = {token: (drawn[:, 0] == token).mean() for token in (2, 7, 9)}
    # of the seven tokens that are not 5; standard errors are at most 0.0035
    assert shares == pytest.approx({2: 2 / 7, 7: 4 / 7, 9: 1 / 7}, abs=0.014)
    assert (drawn[:, 5] == 7).mean() == pytest.approx(4 / 9, abs=0.014)


@pytest.mark.parametrize("kind", KINDS)
def test_drops_are_those_of_the_changed_rows_pair_by_pair(kind):
    model = lively_model("gpt_neox")
    rows, _ = rows_that_differ_at(model, [20] * 10 + [4] * 4)
    found: Any = fragility(model, rows, (1, 6), seed=3, kind=kind, prompt=PROMPT, continuation=CONTINUATION)
    again = fragility(model, rows, (6,), seed=3, kind=kind, prompt=PROMPT, continuation=CONTINUATION)
    whole: Any = extract(model, rows, PROMPT, CONTINUATION)
    assert [one.changed for one in found] == [1, 6] and {one.kind for one in found} == {kind}
    assert (found[1].extraction.score == again[0].extraction.score).all(), "whatever other numbers are asked for"
    for one in found:
        assert one.score_drop == pytest.approx((whole.score - one.extraction.score).mean())
        assert one.rate_drop == pytest.approx(whole.rate - one.extraction.rate)
        assert one.score_drop_interval[0] < one.score_drop < one.score_drop_interval[1]
        assert one.rate_drop_interval[0] <= one.rate_drop <= one.rate_drop_interval[1]
    assert found[1].score_drop > 0.1, "the model's own text needs its prompt"
    given = fragility(model, rows, (6,), 3, kind, PROMPT, CONTINUATION, unchanged=whole)
    assert given[0].score_drop == again[0].score_drop
    other = fragility(model, rows, (6,), 4, kind, PROMPT, CONTINUATION, unchanged=whole)
    assert (other[0].score_drop == given[0].score_drop) == (kind == "shorten"), "only shortening draws nothing"


# bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": 60}, r"prompt of 60 and a continuation of 20 tokens need a context of 79 .* has 64; shorten"),
        ({"prompt": 45, "bos": 0}, r"need a context of 65 positions with the BOS"),
        ({"rows": np.zeros((2, 31), int)}, r"rows have 31 tokens, and a prompt of 12 and .* of 20 need 32"),
        ({"rows": np.zeros((0, 32), int)}, r"token table is empty"),
        (
            {"rows": np.full((3, 32), VOCABULARY)},
            r"row 0 holds the token id 97 at place 0, outside .* vocabulary of 97",
        ),
        ({"rows": np.full((3, 32), -1)}, r"holds the token id -1"),
        ({"rows": np.zeros((3, 32))}, r"whole numbers in rows and columns, got float64"),
        ({"rows": np.zeros(32, int)}, r"got int64 of shape \(32,\)"),
        ({"prompt": 0}, r"prompt must be at least 1, got 0"),
        ({"continuation": 0}, r"continuation must be at least 1"),
        ({"batch_rows": 0}, r"batch_rows must be at least 1"),
        ({"never": (3, 97)}, r"never names the token 97, and the model has tokens 0 to 96; give ids of its own"),
        ({"never": (-1,)}, r"never names the token -1"),
    ],
)
def test_what_cannot_be_extracted_is_said_in_one_sentence(given, message):
    settings = {"rows": np.zeros((2, 90), int), "prompt": PROMPT, "continuation": CONTINUATION} | given
    with pytest.raises(ValueError, match=message):
        extract(tiny_model("llama"), **settings)


def test_a_context_is_used_to_its_last_position():
    model = lively_model("gpt2")  # learned positions: 64 of them
    rows = generated(model, some_prompts(2, length=44), 20)
    assert extract(model, np.hstack([rows, rows[:, :1]]), 44, 21).n == 2, "the last token is emitted, never read"
    with pytest.raises(ValueError, match="need a context of 65 positions"):
        extract(model, np.hstack([rows, rows[:, :2]]), 44, 22)


def test_models_that_cannot_be_asked_say_so():
    rows = some_prompts(2, length=LENGTH)
    with pytest.raises(ValueError, match=r"in training mode, and dropout"):
        extract(tiny_model("llama").train(), rows, PROMPT, CONTINUATION)
    broken = tiny_model("llama")
    with torch.no_grad():
        broken.get_output_embeddings().weight[3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"the logits of 2 of 2 positions are NaN or infinite"):
        extract(broken, rows, PROMPT, CONTINUATION)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)).eval()
    with pytest.raises(ValueError, match=r"MambaForCausalLM has layers that keep more than keys and values"):
        extract(mamba, rows, PROMPT, CONTINUATION)


def test_a_model_that_leaves_its_keys_and_values_aside_says_so():
    model = tiny_model("gpt2")
    model.base_model.register_forward_pre_hook(
        lambda _, args, given: (args, given | {"past_key_values": None, "use_cache": False}), with_kwargs=True
    )
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel does not use the keys and values that it is given"):
        extract(model, some_prompts(2, length=LENGTH), PROMPT, CONTINUATION)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"changes": (1, 13)}, ValueError, r"changes must lie between 1 and 12 .* got 13"),
        ({"changes": (12,), "kind": "drop"}, ValueError, r"between 1 and 11"),
        ({"changes": (0,)}, ValueError, r"got 0"),
        ({"kind": "shuffle"}, KeyError, r"no kind of change named 'shuffle'; there are 'replace', 'drop', 'shorten'"),
        ({"rows": np.full((3, 32), 4)}, ValueError, r"all tokens of the rows are the same"),
        ({"unchanged": made([1, 1, 0])}, ValueError, r"unchanged is of 3 rows of 4 \+ 4 tokens, and 2 of 12 \+ 20"),
    ],
)
def test_changes_that_cannot_be_made_are_said_in_one_sentence(given, error, message):
    settings = {"rows": some_prompts(2, length=LENGTH), "prompt": PROMPT, "continuation": CONTINUATION} | given
    with pytest.raises(error, match=message):
        fragility(tiny_model("llama"), **settings)


# beside published counts


def test_a_figure_beside_published_counts_says_what_stands_before_its_prompts(tmp_path):
    own = [made for made in checkpoint_rows() if made["label"] == "32+32"]
    prompts = {"plain": ("none", "", []), "led": ("window", ", BOS", [0])}
    rows = [
        made | {"corpus": corpus, "label": "32+32" + label, "bos": bos, "settings": {"never": never}}
        for corpus, (bos, label, never) in prompts.items()
        for made in own
    ]
    module = script("extraction_models")
    points = module.measured_rows([run_folder(tmp_path / "run", rows)], {"demo": 1.3e6})
    assert sorted(points["bos"]) == ["none", "window"] and sorted(points["never"]) == ["", "0"]
    said = " ".join(module.footnote(points[points["bos"] == "window"]).split())
    assert said == "Measured: prompt + continuation of 32+32 tokens after a BOS, greedy, never emitted: 0."
    said = " ".join(module.footnote(pd.concat([points, module.published_rows()])).split())
    assert "without a BOS" in said.split("Published")[0] and "after a BOS" in said and "none" in said
    assert "training sequences, 32+32, without a BOS, the end of text never emitted." in said
