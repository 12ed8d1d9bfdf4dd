"""Windows over a corpus: every law is checked on all small cases against a twin that looks at one token at a time."""

from itertools import product

import numpy as np
import pytest
from tiny_text import token_corpus

from infocomp.corpora.windows import Windows, cut_windows, document_of

DOCUMENTS = [(7,), (1, 9), (12, 3, 0, 5), (4, 4, 4), (20,), (2, 2, 13)]
POLICIES = ["none", "document", "window"]


def every_case():
    """All windows over small texts, with what they were cut by."""
    for lengths, context, order, policy, packing in product(
        DOCUMENTS, (3, 4, 6, 9), (1, 2, 3), POLICIES, (False, True)
    ):
        room = context - (policy != "none")
        if room < 2 * order or (packing and policy == "document"):
            continue
        if max([sum(lengths)] if packing else lengths) < 2 * order:
            continue
        corpus = token_corpus(lengths)
        for stride in [None, *range(1, room + 1)]:
            windows = cut_windows(corpus, context, order, stride, policy, None if policy == "none" else 0, packing)
            yield windows, (lengths, context, order, room if stride is None else stride)


CASES = list(every_case())


def spans(windows: Windows) -> list[tuple[int, int, bool]]:
    """Begin, end and BOS of each window."""
    ends = windows.starts + windows.lengths
    return list(zip(windows.starts.tolist(), ends.tolist(), windows.has_bos.tolist(), strict=True))


def test_there_are_many_cases():
    assert len(CASES) > 900


def test_every_token_is_scored_once_where_anything_stands_before_it():
    for windows, case in CASES:
        scored = windows.scored_tokens.tolist()
        assert len(scored) == len(set(scored)), case
        possible = {t for begin, end, bos in spans(windows) for t in range(begin + (not bos), end)}
        assert set(scored) == possible, case


def test_a_bos_in_every_window_lets_every_token_be_scored():
    cases = [(windows, case) for windows, case in CASES if windows.has_bos.all()]
    assert len(cases) > 200
    for windows, case in cases:
        assert sorted(windows.scored_tokens) == list(range(len(windows.corpus.tokens))), case


def test_every_position_is_measured_once_where_a_window_holds_both_its_n_grams():
    for windows, (lengths, context, order, stride) in CASES:
        measured = windows.row_tokens.tolist()
        assert len(measured) == len(set(measured)), (lengths, context, order, stride)
        possible = {p for begin, end, _ in spans(windows) for p in range(begin + order - 1, end - order)}
        assert set(measured) == possible, (lengths, context, order, stride)


def test_the_window_that_measures_a_position_holds_both_its_n_grams():
    for windows, (_, _, order, _) in CASES:
        begins = windows.starts[windows.row_windows]
        ends = begins + windows.lengths[windows.row_windows]
        assert (windows.row_tokens - order + 1 >= begins).all() and (windows.row_tokens + order < ends).all()
        assert len(windows.row_tokens) == windows.row_counts.sum() == len(windows.row_documents)


def test_overlap_wide_enough_measures_every_position_of_a_document():
    cases = 0
    for windows, (lengths, context, order, stride) in CASES:
        room = context - (windows.bos is not None)
        if windows.packing or stride > room - 2 * order + 1:
            continue
        cases += 1
        expected = sum(max(0, length - 2 * order + 1) for length in lengths)
        assert len(windows.row_tokens) == expected, (lengths, context, order, stride)
    assert cases > 100


def test_no_window_crosses_a_document_unless_packing():
    crossed = 0
    for windows, case in CASES:
        begins, lasts = windows.starts, windows.starts + windows.lengths - 1
        crossing = document_of(windows.corpus, begins) != document_of(windows.corpus, lasts)
        assert windows.packing or not crossing.any(), case
        crossed += crossing.any()
    assert crossed > 100


def test_windows_are_no_longer_than_the_context_and_together_hold_every_token():
    for windows, (lengths, context, _, _) in CASES:
        positions = windows.lengths + windows.has_bos
        assert positions.max() <= context and windows.lengths.min() >= 1
        assert windows.total_positions == positions.sum()
        held = {t for begin, end, _ in spans(windows) for t in range(begin, end)}
        assert held == set(range(sum(lengths)))


def test_the_longest_windows_come_first_and_equal_ones_in_the_order_of_the_text():
    for windows, case in CASES:
        positions = windows.lengths + windows.has_bos
        assert (np.diff(positions) <= 0).all(), case
        assert (np.diff(windows.starts)[np.diff(positions) == 0] > 0).all(), case


def test_an_overlapping_window_scores_its_new_tokens_only_after_what_it_shares_with_the_one_before():
    for windows, (_, context, _, stride) in CASES:
        room = context - (windows.bos is not None)
        begins = {0} if windows.packing else set(windows.corpus.document_starts.tolist())
        for begin, scored_from in zip(windows.starts.tolist(), windows.score_from.tolist(), strict=True):
            if begin not in begins and stride < room:
                assert scored_from - begin == room - stride


def test_a_bos_stands_where_the_policy_says():
    corpus = token_corpus([10, 3, 7])
    begins = {0, 10, 13}
    none, document, window = (
        cut_windows(corpus, 5, 1, bos_policy=policy, bos=None if policy == "none" else 0) for policy in POLICIES
    )
    assert not none.has_bos.any() and window.has_bos.all()
    assert {start for start, _, bos in spans(document) if bos} == begins
    assert document.lengths.max() == window.lengths.max() == 4 and none.lengths.max() == 5


def test_documents_of_rows_are_those_of_the_text_with_and_without_packing():
    corpus = token_corpus([5, 0, 6])
    for packing in (False, True):
        windows = cut_windows(corpus, 11, 1, packing=packing)
        expected = [0 if t < 5 else 2 for t in windows.row_tokens]
        assert windows.row_documents.tolist() == expected
        assert len(windows) == (1 if packing else 2)


def test_a_small_case_by_hand():
    windows = cut_windows(token_corpus([7]), 4, 1, stride=2)
    # windows 0–3, 2–5, 4–6
    assert spans(windows) == [(0, 4, False), (2, 6, False), (4, 7, False)]
    assert windows.row_tokens.tolist() == [0, 1, 2, 3, 4, 5] and windows.row_windows.tolist() == [0, 0, 0, 1, 1, 2]
    assert windows.scored_tokens.tolist() == [1, 2, 3, 4, 5, 6]


def test_the_first_positions_of_a_window_are_not_measured_and_all_others_are():
    """By one token at a time, a BOS counting as a position; what is scored does not change."""
    cases = 0
    for lengths, context, order, policy, skip in product(DOCUMENTS, (6, 9), (1, 2), POLICIES, (1, 2, 4)):
        corpus, bos = token_corpus(lengths), None if policy == "none" else 0
        room = context - (bos is not None)
        for stride in range(1, room + 1):
            if room < 2 * order or min(context, max(lengths)) < skip + order + 1:
                continue
            cases += 1
            windows = cut_windows(corpus, context, order, stride, policy, bos, skip_first=skip)
            measured = windows.row_tokens.tolist()
            possible = {
                p
                for begin, end, has_bos in spans(windows)
                for p in range(begin + max(order - 1, skip - has_bos), end - order)
            }
            assert len(measured) == len(set(measured)) and set(measured) == possible, (lengths, context, order, skip)
            position = windows.row_tokens - windows.starts[windows.row_windows]
            assert (position + windows.has_bos[windows.row_windows] >= skip).all()
            whole = cut_windows(corpus, context, order, stride, policy, bos)
            assert np.array_equal(windows.scored_tokens, whole.scored_tokens)
            assert set(measured) <= set(whole.row_tokens.tolist())
    assert cases > 300


def test_skipping_no_more_than_the_n_grams_leave_out_changes_nothing():
    for windows, (_, context, order, stride) in CASES[::7]:
        policy = {True: "window", False: "none"}[bool(windows.has_bos.all())]
        if windows.has_bos.any() != windows.has_bos.all():
            continue
        skip = order - 1 + bool(windows.has_bos.all())
        same = cut_windows(windows.corpus, context, order, stride, policy, windows.bos, windows.packing, skip)
        assert np.array_equal(same.row_tokens, windows.row_tokens)


def test_skipping_everything_is_refused():
    sentence = (
        r"^context_length 8 is too short: past the first 6 positions, which skip_first leaves out, a position and the "
        r"2 tokens after it need 9; take a longer context or skip less\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        cut_windows(token_corpus([50]), 8, 2, skip_first=6)
    assert len(cut_windows(token_corpus([50]), 8, 2, skip_first=5).row_tokens) == 6
    sentence = r"^corpus 'made' is too short: .* need 4, past the first 6 of a window; give it more text or smaller"
    with pytest.raises(ValueError, match=sentence):
        cut_windows(token_corpus([7]), 20, 2, skip_first=6)
    with pytest.raises(ValueError, match=r"^skip_first must be at least 0 positions, got -1\.$"):
        cut_windows(token_corpus([7]), 20, 2, skip_first=-1)


def test_a_text_too_short_for_its_n_grams_is_refused():
    sentence = (
        r"^corpus 'made' is too short: its longest document or window has 5 tokens, and n-grams of order 3 on both "
        r"sides of a position need 6; give it more text or smaller orders\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        cut_windows(token_corpus([5, 4]), 8, 3)
    assert len(cut_windows(token_corpus([5, 4]), 8, 3, packing=True).row_tokens) == 3


@pytest.mark.parametrize(("context", "policy", "need"), [(7, "none", 8), (8, "window", 9), (8, "document", 9)])
def test_a_context_too_short_for_the_largest_n_gram_is_refused(context, policy, need):
    sentence = rf"^context_length {context} is too short: .* order 4 .* need {need} positions; take a longer context\.$"
    with pytest.raises(ValueError, match=sentence):
        cut_windows(token_corpus([50]), context, 4, bos_policy=policy, bos=0)
    assert len(cut_windows(token_corpus([50]), need, 4, bos_policy=policy, bos=0)) > 1


@pytest.mark.parametrize("stride", [0, -1, 8])
def test_a_stride_that_leaves_tokens_out_or_goes_nowhere_is_refused(stride):
    with pytest.raises(ValueError, match=rf"^stride must lie between 1 and the 7 tokens of a window, got {stride}\.$"):
        cut_windows(token_corpus([50]), 8, 2, stride=stride, bos_policy="window", bos=0)


@pytest.mark.parametrize("policy", ["document", "window"])
def test_a_bos_policy_without_a_bos_is_refused(policy):
    with pytest.raises(ValueError, match=rf"^bos_policy '{policy}' needs a BOS token, and the tokenizer has none; use"):
        cut_windows(token_corpus([50]), 8, 2, bos_policy=policy)


def test_packing_with_a_bos_for_every_document_is_refused():
    with pytest.raises(ValueError, match=r"^bos_policy 'document' asks for a BOS before every .* without packing\.$"):
        cut_windows(token_corpus([50, 50]), 8, 2, bos_policy="document", bos=0, packing=True)
