"""A study's measurement of one corpus: scratch files, centres, controls, and a corpus prepared once and kept."""

import json
import logging
import re
from itertools import product

import numpy as np
import pytest
import torch
from tiny_models import LAYERS, tiny_model
from tiny_text import some_texts, tiny_tokenizer

from infocomp.activations.stream import stream
from infocomp.corpora.settings import TextSettings
from infocomp.estimators import SoftInformation
from infocomp.studies import measurement
from infocomp.studies.measure import prepare_texts
from infocomp.studies.measurement import measure_control, measure_corpus
from infocomp.studies.prepared import prepare_corpus
from infocomp.studies.settings import DEFAULT_SITES, ComputeSettings, CorpusSettings, EstimatorSettings

POSTS = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]
ABOUT = {"model": "model", "revision": "", "fingerprint": "f"}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def texts():
    return some_texts()


@pytest.fixture(scope="module")
def prepared(tokenizer, texts):
    return prepare_texts(texts, tokenizer, context_length=32, orders=(1, 2, 3, 4))


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt_neox", "sdpa")


def test_scratch_files_in_float16_change_the_numbers_by_less_than_the_bound(model, prepared, tmp_path):
    """The error of the float16 path, in bits: each assignment is rounded to 11 bits, and the errors average out."""
    estimator = EstimatorSettings(bins=100, draws=3)
    in_memory, on_disk = (
        measure_corpus(
            model, prepared, DEFAULT_SITES, estimator, ComputeSettings(memory_budget=budget), ABOUT, tmp_path
        ).rows
        for budget in (4 * 2**30, 1)
    )
    assert [row["quantity"] for row in in_memory] == [row["quantity"] for row in on_disk]
    worst: dict[str, float] = {}
    for one, other in zip(in_memory, on_disk, strict=True):
        for column in ("value", "null", "null_rows", "ceiling"):
            if one["unit"] == "bits" and one.get(column) is not None:
                worst[column] = max(worst.get(column, 0.0), abs(one[column] - other[column]))
        if one["unit"] == "ratio" and one["status"] == "ok" and other["status"] == "ok":
            worst[one["quantity"]] = max(worst.get(one["quantity"], 0.0), abs(one["value"] - other["value"]))
    print("largest difference of the float16 scratch path:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert worst["value"] > 0.0  # the scratch path was taken
    assert max(worst[column] for column in ("value", "null", "null_rows", "ceiling")) <= 2e-4
    assert not list(tmp_path.iterdir())  # nothing is left of it


def test_centred_rows_stand_beside_raw_ones_with_the_shift_of_their_centre(model, prepared, tmp_path):
    estimator = EstimatorSettings(bins=20, draws=2, rows=("raw", "centred"), pilot_tokens=300, orders=(1, 2))
    rows = measure_corpus(model, prepared, [POSTS[1]], estimator, ComputeSettings(), ABOUT, tmp_path).rows
    for variant in ("raw", "centred"):
        (entropy,) = [
            row for row in rows if row.get("rows") == variant and row["quantity"] == "entropy" and row["draw"] == "mean"
        ]
        if variant == "raw":
            assert entropy["centre_shift"] is None
            raw = entropy["value"]
        else:
            assert 0 < entropy["centre_shift"] < 1
            assert entropy["value"] > raw  # a common vector makes all directions alike
    whole = EstimatorSettings(bins=20, draws=2, rows=("centred",), pilot_tokens=10**9, orders=(1, 2))
    rows = measure_corpus(model, prepared, [POSTS[1]], whole, ComputeSettings(), ABOUT, tmp_path).rows
    assert all(row["centre_shift"] <= 1e-6 for row in rows if row["site"] == POSTS[1] and row["rows"] == "centred")


def counted_passes(monkeypatch):
    """The passes that a measurement makes over its text, as the tokens each was limited to."""
    passes = []

    def counting(*args, first_tokens=None, **kwargs):
        passes.append(first_tokens)
        return stream(*args, first_tokens=first_tokens, **kwargs)

    monkeypatch.setattr(measurement, "stream", counting)
    return passes


@pytest.mark.parametrize(("variants", "passes"), [(("raw",), [None]), (("raw", "outliers_removed"), [300, None])])
def test_only_variants_that_need_a_pilot_pay_for_one(model, prepared, tmp_path, monkeypatch, variants, passes):
    made = counted_passes(monkeypatch)
    estimator = EstimatorSettings(bins=20, draws=1, rows=variants, pilot_tokens=300, orders=(1,))
    rows = measure_corpus(model, prepared, [POSTS[1]], estimator, ComputeSettings(), ABOUT, tmp_path).rows
    assert made == passes
    assert {row["rows"] for row in rows if row["quantity"] == "entropy"} == set(variants)


def test_rows_without_outliers_are_those_of_a_state_given_the_pilots_moments(model, prepared, tmp_path):
    """The study's path against moments and projection by hand, with the whole text as its pilot."""
    estimator = EstimatorSettings(
        bins=20, draws=2, rows=("outliers_removed",), outlier_directions=2, pilot_tokens=10**9, orders=(1,)
    )
    found = measure_corpus(model, prepared, [POSTS[1]], estimator, ComputeSettings(), ABOUT, tmp_path).rows
    kept = []

    class Keep:
        sites, needs_hidden, needs_logits = [POSTS[1]], False, False

        def compute(self, batch):
            return batch.rows_of(POSTS[1]).double()

        def keep(self, rows):
            kept.append(rows)

    stream(model, prepared.windows, [Keep()])
    rows = torch.cat(kept)
    centred = rows - rows.mean(dim=0)
    directions = torch.linalg.eigh(centred.T @ centred)[1][:, -2:]
    by_hand = SoftInformation(32, bins=20, draws=2)
    by_hand.update(centred - centred @ directions @ directions.T)
    values = {(one.quantity, one.draw): one.value for one in by_hand.estimate()}
    for quantity, draw in product(("entropy", "context_complexity"), ("0", "1", "mean")):
        [one] = [row for row in found if (row["quantity"], row["draw"]) == (quantity, draw)]
        assert one["value"] == pytest.approx(values[quantity, draw], abs=1e-5)
        assert one["rows"] == "outliers_removed" and one["centre_shift"] <= 1e-6
        assert one["settings"]["outlier_directions"] == 2


def test_too_many_outlier_directions_are_refused_by_site(model, prepared, tmp_path):
    estimator = EstimatorSettings(bins=20, draws=1, rows=("outliers_removed",), outlier_directions=31, orders=(1,))
    sentence = rf"^at site {POSTS[1]}: outlier_directions must lie between 1 and 30 for rows of width 32, got 31\.$"
    with pytest.raises(ValueError, match=sentence):
        measure_corpus(model, prepared, [POSTS[1]], estimator, ComputeSettings(), ABOUT, tmp_path)


def test_long_rows_are_counted_at_every_site_in_any_cut_into_batches(tokenizer, texts, tmp_path):
    """One token's embedding made a hundred times longer: exactly its positions are the sinks of the embedding."""
    model = tiny_model("gpt_neox", "sdpa")
    prepared = prepare_texts(texts, tokenizer, context_length=32, orders=(1,))
    ids = prepared.corpus.tokens[prepared.windows.row_tokens]
    token = int(np.bincount(ids).argmax())
    with torch.no_grad():
        model.get_input_embeddings().weight[token] *= 100
    estimator = EstimatorSettings(bins=20, draws=1, rows=("raw", "centred"), orders=(1,))
    for batch_tokens in (4096, 64):
        compute = ComputeSettings(batch_tokens=batch_tokens)
        rows = measure_corpus(model, prepared, ["hook_embed", POSTS[0]], estimator, compute, ABOUT, tmp_path).rows
        sinks = {row["site"]: row for row in rows if row["quantity"] == "sink_share"}
        assert set(sinks) == {"hook_embed", POSTS[0]}
        one = sinks["hook_embed"]
        assert one["value"] == (ids == token).mean() > 0.02 and one["n_tokens"] == prepared.n_rows
        assert (one["unit"], one["rows"], one["estimator"], one["draw"]) == ("ratio", "raw", "row_norm", "mean")
        norms = model.get_input_embeddings().weight[torch.from_numpy(ids).long()].norm(dim=1)
        assert one["message"] == f"rows longer than 10 times their median, {np.median(norms.detach().numpy()):.4g}"


def test_the_first_positions_of_every_window_are_left_out_at_every_site(tokenizer, texts):
    text = TextSettings(texts=tuple(texts))
    for skip, bos in ((0, "none"), (1, "none"), (5, "none"), (5, "window")):
        settings = CorpusSettings(name="text", text=text, context_length=32, skip_first=skip, bos=bos)
        windows = prepare_corpus(settings, tokenizer, (1, 2)).windows
        position = windows.row_tokens - windows.starts[windows.row_windows] + windows.has_bos[windows.row_windows]
        assert position.min() == max(skip, 1)
    assert CorpusSettings(name="text", text=text).skip_first == 1


def test_random_rows_read_their_null(prepared, tmp_path):
    estimator = EstimatorSettings(bins=20, draws=3)
    rows = measure_control(32, prepared, estimator, ComputeSettings(), ABOUT, tmp_path).rows
    (token,) = [
        row for row in rows if row["quantity"] == "complexity" and row["label"] == "token" and row["draw"] == "mean"
    ]
    assert token["site"] == "control.gaussian" and token["value"] > 0.01
    assert abs(token["value"] - token["null"]) <= 0.1 * token["value"]
    assert abs(token["value"] - token["null_rows"]) <= 0.1 * token["value"]


def test_documents_say_what_each_text_costs(model, tokenizer, texts, prepared, tmp_path):
    measured = measure_corpus(model, prepared, [], EstimatorSettings(), ComputeSettings(), ABOUT, tmp_path)
    assert len(measured.documents) == len(texts)
    (per_byte,) = [row for row in measured.rows if row["quantity"] == "bits_per_byte"]
    total = sum(document["bits"] for document in measured.documents)
    assert abs(per_byte["value"] * sum(document["n_bytes"] for document in measured.documents) - total) <= 1e-6 * total
    alone = prepare_texts(texts[2:3], tokenizer, context_length=32)
    single = measure_corpus(model, alone, [], EstimatorSettings(), ComputeSettings(), ABOUT, tmp_path).documents[0]
    assert abs(single["bits"] - measured.documents[2]["bits"]) <= 1e-3
    assert single["n_bytes"] == measured.documents[2]["n_bytes"] < len(texts[2].encode())


def test_a_cache_gives_the_same_corpus_and_labels_and_is_read(tokenizer, texts, tmp_path, caplog):
    settings = CorpusSettings(name="cached", text=TextSettings(texts=tuple(texts)), context_length=32)
    fresh = prepare_corpus(settings, tokenizer, (1, 3))
    for _ in range(2):
        cached = prepare_corpus(settings, tokenizer, (1, 3), tmp_path)
        assert cached.identity() == fresh.identity() and len(cached.labels) == 4
        for one, other in zip(cached.labels, fresh.labels, strict=True):
            assert (one.name, one.order, one.direction) == (other.name, other.order, other.direction)
            assert np.array_equal(one.ids, other.ids) and one.ids.dtype == other.ids.dtype
    assert len(list(tmp_path.iterdir())) == 2
    # other windows, other positions: other labels
    prepare_corpus(settings.model_copy(update={"context_length": 33}), tokenizer, (1, 3), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.glob("labels-*"):
        path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        again = prepare_corpus(settings, tokenizer, (1, 3), tmp_path)
    assert re.search(r"labels-\w+\.safetensors cannot be read .* made again", caplog.text)
    assert all(np.array_equal(one.ids, other.ids) for one, other in zip(again.labels, fresh.labels, strict=True))


def test_the_text_of_a_corpus_ends_where_its_tokens_end(tokenizer, texts):
    settings = CorpusSettings(name="cut", text=TextSettings(texts=tuple(texts)), context_length=32, max_tokens=150)
    cut = prepare_corpus(settings, tokenizer, (1,))
    assert cut.text_bytes() == "".join(texts).encode()[: int(cut.corpus.byte_counts.sum())]
    assert 0 < len(cut.text_bytes()) < len("".join(texts).encode())
    whole = prepare_corpus(settings.model_copy(update={"max_tokens": None}), tokenizer, (1,))
    assert whole.text_bytes() == "".join(texts).encode()
    starts = prepare_corpus(settings.model_copy(update={"max_tokens": None, "document_tokens": 20}), tokenizer, (1,))
    pieces = [tokenizer.decode(tokenizer(text).input_ids[:20]) for text in texts]
    assert starts.text_bytes() == "".join(pieces).encode()


def test_what_decides_a_result_is_in_the_identity_of_its_text(tokenizer, texts):
    text = TextSettings(texts=tuple(texts))
    settings = CorpusSettings(name="text", text=text, context_length=32)
    known = CorpusSettings(name="text", text=text.model_copy(update={"in_training": "known"}), context_length=32)
    other_bos = tiny_tokenizer()
    other_bos.bos_token = "a"
    with_bos = settings.model_copy(update={"bos": "window"})
    identities = [
        prepare_corpus(one, by, (1,)).identity()
        for one, by in [
            (settings, tokenizer),
            (known, tokenizer),
            (with_bos, tokenizer),
            (with_bos, other_bos),
            (settings.model_copy(update={"max_tokens": 100}), tokenizer),
            (settings.model_copy(update={"skip_first": 7}), tokenizer),
        ]
    ]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 6
