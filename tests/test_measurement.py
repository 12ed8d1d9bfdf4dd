"""A study's measurement of one corpus: scratch files, centres, controls, and a corpus prepared once and kept."""

import json
import logging
import re

import numpy as np
import pytest
from tiny_models import LAYERS, tiny_model
from tiny_text import some_texts, tiny_tokenizer

from infocomp.corpora.settings import TextSettings
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
    assert all(row["centre_shift"] <= 1e-6 for row in rows if row["site"] == POSTS[1])


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
        ]
    ]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 5
