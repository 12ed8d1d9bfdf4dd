"""Rows of the memorization study from hand-made code lengths: whose documents are joined, and whose counted apart."""

import numpy as np
import pytest
from tiny_text import tiny_tokenizer

from infocomp.memorization.membership import membership
from infocomp.memorization.unintended import unintended
from infocomp.studies.memorization_passes import Pass, Side
from infocomp.studies.memorization_rows import membership_rows, memorized_rows, shared_columns
from infocomp.studies.memorization_settings import SampledTextSettings, SampleSettings
from infocomp.studies.memorization_texts import Candidates, Samples, SampleSet
from infocomp.studies.settings import ComputeSettings

N, DOCUMENTS = 120, np.repeat(np.arange(30), 4)


def samples(unseen: dict) -> Samples:
    """Read windows beside never-trained rows whose documents bear the same numbers."""
    candidates = Candidates(np.arange(N * 8).reshape(N, 8) % 300, DOCUMENTS)
    sides = [
        SampleSet(SampledTextSettings.model_validate({"name": name} | source), candidates, np.arange(N), "known")
        for name, source in (("read windows", {"series": "read"}), ("rest", unseen))
    ]
    return Samples(SampleSettings(prompt=4, continuation=4), sides[0], sides[1], tiny_tokenizer(), None)


def passes() -> tuple[Pass, Pass]:
    """A model and a reference; what the model gains in a document it gains on members and on others alike."""
    generator = np.random.default_rng(0)
    level = generator.normal(25, 8, 30)[DOCUMENTS]
    none = np.zeros(N, int)
    reference = Pass(Side(np.full(N, 200.0), none), Side(np.full(N, 200.0), none), "r")
    members, unseen = (200 - level - gain + generator.normal(0, 1, N) for gain in (4, 0))
    return Pass(Side(members, none), Side(unseen, none), "m"), reference


@pytest.mark.parametrize(("unseen", "joined"), [({"series": "unread"}, True), ({"builtin": "held_out"}, False)])
def test_documents_of_read_and_unread_windows_are_joined_and_those_of_two_texts_are_not(unseen, joined):
    dealt, (own, reference) = samples(unseen), passes()
    shared = shared_columns(dealt, ComputeSettings(), {"model": "m", "step": 1})
    assert shared["settings"]["shared_documents"] is joined
    rows = {row["quantity"]: row for row in memorized_rows(own, reference, dealt, shared, "first")}
    sides = own.members.bits, reference.members.bits, own.unseen.bits, reference.unseen.bits
    twin, other = (
        unintended(*sides, DOCUMENTS, DOCUMENTS, shared_documents=one).excess.columns() for one in (joined, not joined)
    )
    for name in ("value", "std_error", "ci_low", "ci_high"):
        assert rows["memorized_bits"][name] == twin[name]
    assert twin["std_error"] != other["std_error"]
    gain = rows["unclipped_gain_bits"]
    assert gain["value"] == pytest.approx((reference.members.bits - own.members.bits).sum()) and "ceiling" not in gain
    assert gain["null"] == pytest.approx((reference.unseen.bits - own.unseen.bits).sum())
    auc = membership_rows(own, None, dealt, shared, "loss")[0]
    scores = -own.members.bits, -own.unseen.bits
    expected, apart = (
        membership(*scores, DOCUMENTS, DOCUMENTS, dealt.settings.seed, one).auc for one in (joined, not joined)
    )
    assert auc["std_error"] == expected.std_error != apart.std_error and auc["value"] == expected.value
