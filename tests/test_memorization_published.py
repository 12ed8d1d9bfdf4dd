"""Published counts of extracted sequences: complete, with their source, and as they were printed."""

import numpy as np
import pandas as pd
import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from infocomp.memorization.published import gpt_neox_parameters, pythia_memorized


def test_every_count_has_its_source_and_its_rate():
    table = pythia_memorized()
    expected = "model deduped parameters memorized_sequences total rate source note"
    assert list(table.columns) == expected.split()
    assert len(table) == 16 and table["model"].is_unique
    assert table["source"].str.contains(r"EleutherAI/semantic-memorization .* @84ab8c0.*arXiv 2304\.11158").all()
    assert table["deduped"].dtype == bool and (table["deduped"] == table["model"].str.endswith("-deduped")).all()
    assert (table["total"] == 143_000 * 1024).all()
    assert table["rate"].to_numpy() == pytest.approx(table["memorized_sequences"] / 146_432_000)
    assert table["memorized_sequences"].sum() == 19_723_566, "no digit is another"
    assert table.loc[table["deduped"], "note"].str.contains("repeats").all()
    assert table["note"].notna().all()


@pytest.mark.parametrize(
    ("model", "count", "percent"),
    [("pythia-70m", 463_953, 0.317), ("pythia-12b", 2_382_326, 1.627), ("pythia-12b-deduped", 1_871_215, 1.278)],
)
def test_known_counts_are_there(model, count, percent):
    row = pythia_memorized().set_index("model").loc[model]
    assert row["memorized_sequences"] == count and 100 * row["rate"] == pytest.approx(percent, abs=5e-4)


def test_larger_models_and_repeated_data_are_extracted_more():
    counts = pythia_memorized().pivot(index="parameters", columns="deduped", values="memorized_sequences")
    assert (counts.diff().dropna() > 0).all(axis=None) and (counts[False] > counts[True]).all()


def test_parameters_are_those_of_the_model_cards_and_of_a_real_model():
    cards = {"70m": 70_426_624, "160m": 162_322_944, "410m": 405_334_016, "1b": 1_011_781_632}
    cards |= {"1.4b": 1_414_647_808, "2.8b": 2_775_208_960, "6.9b": 6_857_302_016, "12b": 11_846_072_320}
    table = pythia_memorized()
    size = table["model"].str.split("-").str[1]
    assert (table["parameters"] == size.map(cards)).all()
    config = GPTNeoXConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    model = GPTNeoXForCausalLM(config)
    counted = gpt_neox_parameters(*(pd.Series([number]) for number in (3, 16, 50))).item()
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_the_copied_counts_are_those_of_their_origin(shared_data):
    origin = pd.read_csv(shared_data / "pythia" / "pythia_memorized_counts.csv")
    ours = pythia_memorized()
    for name in ("model", "deduped", "memorized_sequences", "total"):
        assert np.array_equal(ours[name], origin[name]), name
