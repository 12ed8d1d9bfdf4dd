"""Published figures: the sums that must agree inside them, the conversions, the sources, and the set that is wrong."""

import numpy as np
import pandas as pd
import pytest

from infocomp.coding.published import (
    SCORED_TEXT,
    deletang_table,
    published_rates,
    pythia_lambada,
    pythia_wikitext,
)

SOURCES = r"mattmahoney\.net|bellard\.org|github\.com/|arXiv \d|pull request \d+|EleutherAI/pythia"


def test_every_published_number_has_its_source():
    for table in (published_rates(), deletang_table(), pythia_wikitext(), pythia_lambada()):
        assert table["source"].str.contains(SOURCES).all()
        assert not table.duplicated().any()


def test_every_rate_is_its_size_over_the_files_bytes():
    rates = published_rates()
    sized = rates[rates["bytes"].notna()]
    assert len(sized) > 30 and sized["original_bytes"].notna().all()
    # four decimals are written
    assert np.abs(8 * sized["bytes"] / sized["original_bytes"] - sized["bits_per_byte"]).max() <= 0.5e-4
    assert rates["bits_per_byte"].notna().all()


def test_no_codec_has_two_rates_on_one_file_of_one_source():
    keys = ["codec", "file", "chunk_bytes", "weights", "source"]
    assert not published_rates().duplicated(keys).any()


def test_trained_models_say_whether_their_weights_are_counted():
    rates = published_rates()
    assert set(rates["weights"]) == {"none", "not counted", "counted"}
    trained = rates["codec"].str.contains(
        "Llama|LLaMA|RWKV|rwkv|pythia|Pythia|GPT|falcon|Chinchilla|Transformer|SmolLM"
    )
    assert (rates.loc[trained, "weights"] != "none").all()
    assert (rates.loc[~trained, "weights"] == "none").all()


@pytest.mark.parametrize(
    ("codec", "file", "expected"),
    [
        ("gzip -9", "enwik8", 2.916),
        ("bzip2 -9", "enwik8", 2.321),
        ("cmix v21", "enwik8", 1.170),
        ("nncp v3.2", "enwik9", 0.853),
        ("ts_zip (RWKV-169M v4)", "alice29.txt", 1.142),
        ("ts_server (pythia_deduped_70M)", "book1", 1.569),
    ],
)
def test_known_rates_are_there(codec, file, expected):
    rates = published_rates()
    (rate,) = rates.loc[(rates["codec"] == codec) & (rates["file"] == file), "bits_per_byte"]
    assert rate == pytest.approx(expected, abs=0.0005)


def test_the_set_often_quoted_for_enwik8_is_not_there():
    rates = published_rates()
    enwik8 = rates.loc[rates["file"] == "enwik8", "bits_per_byte"]
    assert not set(enwik8.round(2)) & {3.20, 2.43, 2.19, 2.11, 2.04, 1.77}
    assert enwik8.max() < 2.92, "gzip -9 is the longest of all on enwik8"


def test_adjusted_rates_add_two_bytes_a_parameter_in_every_cell_of_table_1():
    table = deletang_table()
    assert len(table) == 15 * 4
    added = 100 * 2 * table["parameters"].fillna(0).astype(float) / 1e9
    # both columns are rounded to a tenth
    assert np.abs(table["adjusted_percent"] - table["raw_percent"] - added).max() <= 0.1 + 1e-9
    gzip = table[(table["compressor"] == "gzip") & (table["file"] == "enwik9") & table["chunk_bytes"].isna()]
    rates = published_rates()
    ltcb = rates.loc[(rates["codec"] == "gzip -9") & (rates["file"] == "enwik9"), "bits_per_byte"].item()
    assert gzip["raw_percent"].item() * 0.08 == pytest.approx(ltcb, abs=0.005), "two sources agree on gzip of enwik9"


def test_table_1_comes_raw_and_adjusted_in_bits_per_byte():
    rates = published_rates()
    chinchilla = rates[(rates["codec"] == "Chinchilla 70B") & (rates["file"] == "ImageNet")].set_index("weights")
    assert chinchilla.loc["not counted", "bits_per_byte"] == pytest.approx(48.0 * 0.08)
    assert chinchilla.loc["counted", "bits_per_byte"] == pytest.approx(14048.0 * 0.08)
    assert (chinchilla["chunk_bytes"] == 2048).all()
    assert chinchilla["note"].str.contains("7 bits a byte").all()


def test_wikitext_is_converted_to_the_text_really_scored():
    table = pythia_wikitext()
    assert pytest.approx(1.04036, abs=5e-6) == SCORED_TEXT
    assert table["bits_per_byte"].to_numpy() == pytest.approx(
        table["bits_per_byte_published"].to_numpy() * 1.04036, rel=1e-5
    )
    perplexity, published = table["byte_perplexity_published"].to_numpy(), table["bits_per_byte_published"].to_numpy()
    assert np.log2(perplexity) == pytest.approx(published)
    # the word perplexity that the same evaluation reports, over its 241,335 words and the bytes of its pages
    last = table[(table["model"] == "pythia-12b-deduped-v0") & (table["step"] == 143000)]
    expected = np.log2(11.722245272846379) * 241_335 / 1_290_527
    assert last["bits_per_byte_published"].item() == pytest.approx(expected, abs=1e-8)


def test_wikitext_steps_are_those_of_the_revisions():
    table = pythia_wikitext()
    assert table.groupby("model").size().to_dict() == dict.fromkeys(table["model"].unique(), 15)
    assert table["model"].nunique() == 10 and table["model"].str.endswith("-v0").all()
    twice = table["model"].str.contains("160m|410m|1.4b", regex=True)
    assert (table["step"] == table["step_in_file"] * np.where(twice, 2, 1)).all()
    assert set(table["step"]) == {3000, *range(13000, 144000, 10000)}


def test_lambada_is_told_per_target_word():
    table = pythia_lambada()
    assert table.groupby("model").size().to_dict() == dict.fromkeys(table["model"].unique(), 27)
    assert table["model"].nunique() == 16
    assert {"perplexity_per_target_word", "bits_per_target_word"} < set(table.columns)
    assert not any("byte" in column or "token" in column for column in table.columns)
    last = table[(table["model"] == "pythia-160m") & (table["step"] == 143000)]
    assert last["bits_per_target_word"].item() == pytest.approx(np.log2(38.07), abs=0.001)
    best = table[table["model"] == "pythia-70m"].set_index("step")["perplexity_per_target_word"]
    assert best.idxmin() == 53000, "not monotone"


def test_the_pair_that_counts_once_is_as_close_as_told():
    table = pythia_lambada().pivot(index="step", columns="model", values="perplexity_per_target_word")
    apart = (table["pythia-2.8b"] - table["pythia-2.8b-deduped"]).abs()
    assert (apart[apart.index <= 1000] == 0).all()
    assert apart[apart.index <= 43000].max() < 0.0012 < apart.max()


def test_the_copied_facts_are_those_of_their_origin(shared_data):
    wikitext = pd.read_csv(shared_data / "pythia" / "pythia_v0_wikitext.csv")
    ours = pythia_wikitext()
    assert (ours["model"] == wikitext["model_v0"]).all() and (ours["step"] == wikitext["hf_step"]).all()
    assert (ours["bits_per_byte_published"] == wikitext["bits_per_byte"]).all()
    lambada = pd.read_csv(shared_data / "pythia" / "pythia_lambada.csv")
    ours = pythia_lambada()
    assert (ours[["model", "step"]] == lambada[["model", "step"]]).all(axis=None)
    assert (ours["perplexity_per_target_word"] == lambada["lambada_ppl"]).all()
    assert (ours["accuracy"] == lambada["lambada_acc"]).all()
