"""The bottleneck of a measured text, the token channel under it, and estimators beside the soft one, as rows."""

import numpy as np
import pytest
from tiny_models import LAYERS, tiny_model
from tiny_text import some_texts, tiny_tokenizer

from infocomp.bottleneck import solve
from infocomp.studies.bound import bound_rows
from infocomp.studies.measure import prepare_texts
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.settings import (
    AlsoSettings,
    BottleneckSettings,
    ComputeSettings,
    EstimatorSettings,
)

SITES = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(LAYERS))]
ABOUT = {"model": "model", "revision": "", "fingerprint": "f"}


@pytest.fixture(scope="module")
def prepared():
    return prepare_texts(some_texts(12), tiny_tokenizer(), context_length=32, orders=(1, 2))


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neox", "sdpa")


@pytest.fixture(scope="module")
def measured(model, prepared, tmp_path_factory):
    estimator = EstimatorSettings(bins=30, draws=2)
    also = AlsoSettings(estimators=("kmeans", "gaussian", "renyi"), sample=512)
    folder = tmp_path_factory.mktemp("scratch")
    return measure_corpus(model, prepared, SITES, estimator, ComputeSettings(), ABOUT, folder, also=also)


def value(rows, quantity, site, draw="mean", estimator="soft", label="token"):
    found = [
        row
        for row in rows
        if (row["quantity"], row["site"], row["draw"], row["estimator"], row.get("label"))
        == (quantity, site, draw, estimator, label)
    ]
    assert len(found) == 1, (quantity, site, len(found))
    return found[0]


def test_a_point_sent_through_its_token_channel_lies_under_the_curve_of_the_same_joint(prepared, measured):
    joint = prepared.token_joint.joint
    curve = solve(joint, np.geomspace(1.05, 100, 25))
    assert curve.kind == "bound"
    for site in SITES:
        for draw in ("0", "1"):
            x = value(measured.rows, "complexity", site, draw)["value"]
            y = value(measured.rows, "token_channel_expressivity", site, draw)["value"]
            assert y <= curve.relevance_at(x) + 1e-3
            assert site != "hook_embed" or y > 0.25 * curve.relevance_at(x)  # not far under it: the test could fail


def test_at_the_embedding_context_adds_nothing_and_in_the_blocks_it_does(measured):
    assert value(measured.rows, "context_gain", "hook_embed")["value"] == pytest.approx(0, abs=1e-6)
    gain = value(measured.rows, "context_gain", SITES[-1])
    whole = value(measured.rows, "expressivity", SITES[-1])
    channel = value(measured.rows, "token_channel_expressivity", SITES[-1])
    assert gain["value"] > 1e-4
    assert gain["value"] == pytest.approx(whole["value"] - channel["value"], abs=1e-9)
    assert gain["null"] == pytest.approx(whole["null"] - channel["null"], abs=1e-9)


def test_the_channels_null_comes_from_rows_of_other_documents(measured):
    for site in SITES:
        row = value(measured.rows, "token_channel_expressivity", site)
        assert 0 < row["null"] < 0.5 * row["value"]


def test_curves_are_rows_with_their_kind_and_how_they_converged(prepared):
    rows = bound_rows(prepared, BottleneckSettings(clusters=(8, 10_000), points=5, repeats=1))
    joint = prepared.token_joint.joint
    largest = joint.sizes[0]
    by_name = {}
    for row in rows:
        by_name.setdefault((row["estimator"], row["rows"], row["quantity"]), []).append(row)
    for clusters, kind in ((8, "achievable"), (largest, "bound")):
        x = by_name[f"bottleneck {clusters}", "plug_in", "bottleneck_complexity"]
        y = by_name[f"bottleneck {clusters}", "plug_in", "bottleneck_relevance"]
        assert [row["draw"] for row in x] == [row["draw"] for row in y] == list("01234")
        assert {row["settings"]["kind"] for row in y} == {kind}
        assert all(a["value"] >= b["value"] - 1e-6 for a, b in zip(x, y, strict=True))
        assert all(row.get("status", "ok") == "ok" or "not converged" in row["message"] for row in x)
        assert len(by_name[f"bottleneck {clusters}", "held_out", "bottleneck_relevance"]) == 5
    plug_in = by_name["bottleneck", "plug_in", "mutual_information"][0]["value"]
    held_out = by_name["bottleneck", "held_out", "mutual_information"][0]["value"]
    assert plug_in == pytest.approx(joint.mutual_information) and held_out < plug_in
    last = by_name[f"bottleneck {largest}", "plug_in", "bottleneck_relevance"][-1]["value"]
    assert last == pytest.approx(plug_in, rel=0.02)
    assert len(by_name[f"bottleneck {largest} repeated", "plug_in", "bottleneck_relevance"]) == 2


def test_a_text_whose_tokens_are_not_labelled_has_no_curve():
    bigrams = prepare_texts(some_texts(4), tiny_tokenizer(), context_length=32, orders=(2,))
    with pytest.raises(ValueError, match=r"needs the token labels; add 1 to estimator\.orders"):
        bound_rows(bigrams, BottleneckSettings())


def test_other_estimators_see_a_sample_of_the_same_rows_in_the_same_pass(measured):
    for site in SITES:
        for estimator in ("kmeans", "gaussian", "renyi"):
            row = value(measured.rows, "complexity", site, "mean", estimator)
            assert (row["status"] == "ok") == (row["value"] is not None)
            assert row["n_tokens"] <= 512 and row["rows"] == "raw"
    kmeans = [value(measured.rows, "complexity", site, "mean", "kmeans") for site in SITES]
    assert kmeans[0]["value"] > kmeans[0]["null"]
    labels = {row["label"] for row in measured.rows if row["estimator"] == "kmeans"}
    assert labels == {"token"}  # order 1 unless asked for


def test_the_models_own_bound_is_the_unigram_entropy_less_its_code_length(measured):
    found = value(measured.rows, "expressivity_bound", "logits", "mean", "code_length")
    rate = next(row for row in measured.rows if row["quantity"] == "bits_per_token")
    assert found["value"] == pytest.approx(rate["null"] - rate["value"], abs=1e-9)
    assert found["ci_low"] < found["value"] < found["ci_high"] and found["std_error"] > 0


def test_influence_is_kept_for_every_number_with_both_ends(measured):
    keys = {(key["site"], key["quantity"], key["label"]) for key, _ in measured.influence}
    assert (SITES[1], "complexity", "bigram") in keys and (SITES[1], "optimality", "token") in keys
    for _, arrays in measured.influence:
        assert {len(values) for values in arrays.values()} == {12}
