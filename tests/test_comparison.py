"""The study `comparison` end to end on tiny models: rows, controls, differences, resume; every step is real."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from comparison_run import comparison_config, write_model, write_pairs, write_text

from infocomp.config import load_config, to_yaml
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import read

BLOCK = "blocks.1.hook_resid_post"


def run(config: dict, out, figures: bool = False) -> pd.DataFrame:
    resolved = load_config(config)
    study = resolved.open(out)
    if not figures:
        study.figures = lambda: []
    outcome, _ = run_study(study, to_yaml(resolved), Silent())
    assert outcome.failed == 0 and not outcome.stopped, outcome.messages
    return read(out)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Base, a tuned model that moved, a copy of the base; marked pairs and a text."""
    folder = tmp_path_factory.mktemp("comparison")
    base = write_model(folder / "base")
    tuned = {"moved": write_model(folder / "moved", moved=0.05, template=True), "copy": base}
    data = {"likes": write_pairs(folder / "pairs.jsonl"), "raw": write_text(folder / "text.jsonl")}
    config = comparison_config(base, tuned, data, sites=["hook_embed", "blocks.*.hook_resid_post"], views=True)
    table = run(config, folder / "out")
    return {"folder": folder, "config": config, "table": table}


def one(table: pd.DataFrame, **columns) -> pd.Series:
    rows = table[table["draw"] == "mean"]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1, f"{len(rows)} rows with {columns}"
    return rows.iloc[0]


def settings(row: pd.Series) -> dict:
    return json.loads(row["settings"])


def test_a_copy_of_the_base_differs_by_exactly_nothing(compared):
    table = compared["table"]
    differences = table[table["estimator"].str.endswith(", tuned minus base") & (table["model"] == "copy")]
    assert len(differences) > 100
    assert (differences["value"] == 0).all() and (differences["std_error"] == 0).all()
    assert not any(json.loads(text).get("changed") for text in differences["settings"])
    copy = table[(table["model"] == "copy") & (table["draw"] == "mean")]
    assert (copy.loc[(copy["quantity"] == "cka") & (copy["rows"] == "all"), "value"] == 1).all()
    assert (copy.loc[copy["quantity"].isin(["kl", "total_variation"]), "value"] == 0).all()
    assert (copy.loc[copy["quantity"] == "word_drift", "value"] == 0).all()
    assert (copy.loc[copy["quantity"] == "procrustes", "value"] == 0).all()


def test_a_moved_model_changes_beyond_chance(compared):
    table = compared["table"]
    differences = table[table["estimator"].str.endswith(", tuned minus base") & (table["model"] == "moved")]
    changed = [json.loads(text).get("changed") for text in differences["settings"]]
    assert np.mean([one for one in changed if one is not None]) > 0.2
    rate = one(table, model="moved", corpus="raw", quantity="bits_per_byte", estimator="code_length, tuned minus base")
    about = settings(rate)
    assert rate["value"] == pytest.approx(about["tuned_value"] - about["base_value"], abs=1e-12)
    assert rate["ci_low"] < rate["value"] < rate["ci_high"]
    kl = one(table, model="moved", corpus="raw", quantity="kl", label="base to tuned", rows="all")
    assert kl["ci_low"] > 0


def test_marked_completions_are_told_apart_by_everything_that_should(compared):
    """The marker is a word, so that the embedding, random weights and the bag of tokens know it too: no excess."""
    table = compared["table"]
    likes = table[table["corpus"] == "likes"]
    for model, revision in (("base", "base"), ("random weights", "draw 0"), ("random weights", "draw 1")):
        about = {"model": model, "revision": revision, "rows": "matched", "site": "hook_embed"}
        row = one(likes, **about, quantity="preference_information")
        assert row["point"] > 0.05 and settings(row)["p"] < 0.02
        assert row["null"] < row["value"] <= row["ceiling"] <= 1
    bag = one(likes, model="base", quantity="probe_accuracy", site="control.bag_of_tokens")
    length = one(likes, model="base", quantity="probe_accuracy", site="control.length")
    assert bag["value"] > 0.9
    assert length["value"] > 0.9 and settings(length)["longer_chosen_share"] > 0.9  # the marker is long, and it shows
    excess = one(likes, model="base", quantity="probe_excess", site=BLOCK, label="over bag of tokens")
    assert excess["ci_low"] <= 0
    over = one(likes, model="base", quantity="preference_excess", site=BLOCK, label="over hook_embed")
    point = [
        one(likes, model="base", quantity="preference_information", rows="matched", site=site)["point"]
        for site in (BLOCK, "hook_embed")
    ]
    assert over["value"] == pytest.approx(point[0] - point[1], abs=1e-9)


def test_the_control_is_the_mean_of_its_draws_and_their_spread_is_in_the_error(compared):
    likes = compared["table"][compared["table"]["corpus"] == "likes"]
    about = {"quantity": "preference_information", "rows": "matched", "site": BLOCK}
    draws = [one(likes, revision=f"draw {k}", **about)["point"] for k in (0, 1)]
    mean = one(likes, revision="mean of 2 draws", **about)
    assert mean["point"] == pytest.approx(np.mean(draws)) and settings(mean)["role"] == "control"
    assert mean["draw_std"] == pytest.approx(np.std(draws, ddof=1))
    assert mean["std_error"] >= mean["draw_std"] / np.sqrt(2)
    excess = one(likes, model="base", quantity="preference_excess", site=BLOCK, label="over random weights")
    point = one(likes, model="base", **about)["point"]
    assert excess["value"] == pytest.approx(point - np.mean(draws)) and excess["std_error"] > mean["draw_std"] / 2
    probe = one(likes, model="base", quantity="probe_excess", site=BLOCK, label="over random weights")
    assert abs(probe["value"]) < 0.3


def test_a_number_is_judged_once(compared):
    """What subtracts the same from both models, or is a function of another number, has no verdict of its own."""
    table = compared["table"]
    differences = table[table["estimator"].str.endswith(", tuned minus base")]
    assert not differences["label"].isin(["over random weights", "over bag of tokens"]).any()
    doubles = differences[differences["quantity"].isin(["matrix_entropy", "info_nce_loss"])]
    assert len(doubles) and not any("p" in json.loads(text) for text in doubles["settings"])
    about = {"model": "moved", "corpus": "likes", "site": BLOCK}
    excess = one(differences, **about, quantity="preference_excess", label="over hook_embed")
    assert pd.isna(excess["point"]) and settings(excess)["p"] >= 0


def test_every_model_reads_the_template_of_the_tuned_one(compared):
    table = compared["table"]
    likes = table[(table["corpus"] == "likes") & (table["quantity"] == "preference_information")]
    templates = {json.loads(text)["template"] for text in likes["settings"]}
    assert len(templates) == 1 and templates.pop().startswith("own ")


def test_rows_say_role_base_and_place(compared):
    table = compared["table"]
    found = {(row.model, settings(row)["role"], settings(row)["place"]) for _, row in table.iterrows()}
    expected = {("base", "base", 0), ("moved", "tuned", 1), ("copy", "tuned", 2)}
    expected |= {("random weights", "control draw", 0), ("random weights", "control", 0)}
    assert found == expected
    assert {settings(row)["base"] for _, row in table.iterrows()} == {"base"}


def test_spectra_have_a_common_n_and_intervals(compared):
    table = compared["table"]
    rows = table[(table["quantity"] == "rankme_covariance") & (table["rows"] == "sample") & (table["corpus"] == "raw")]
    rows = rows[~rows["estimator"].str.endswith("base")]
    assert set(rows["n_tokens"]) == {256} and (rows["ci_low"] < rows["value"]).all()
    whole = table[(table["quantity"] == "rankme_covariance") & (table["rows"] == "all") & (table["corpus"] == "raw")]
    assert (whole["n_tokens"] > 256).all() and whole["ci_low"].isna().all()


def test_a_second_run_measures_nothing_again(compared):
    resolved = load_config(compared["config"])
    study = resolved.open(compared["folder"] / "out")
    study.figures = lambda: []
    outcome, _ = run_study(study, to_yaml(resolved), Silent())
    assert outcome.done == 0 and outcome.skipped == len(study.measuring_units()) + len(study.comparing_units()) + 1


def test_the_summary_names_what_changed(compared):
    study = load_config(compared["config"]).open(compared["folder"] / "out")
    text = study.summary(compared["table"])
    assert "numbers changed beyond chance" in text and "random weights" in text and "moved" in text


def test_tokenizers_that_differ_are_compared_at_common_characters(tmp_path):
    base, tuned = write_model(tmp_path / "base"), write_model(tmp_path / "other", vocabulary=90)
    data = {"likes": write_pairs(tmp_path / "pairs.jsonl"), "raw": write_text(tmp_path / "text.jsonl")}
    sections = {"shepard": False, "curvature": False, "spectra": False, "preference": {"probe": False, "flips": 50}}
    table = run(
        comparison_config(base, {"other": tuned}, data, sites=["hook_embed", BLOCK], **sections), tmp_path / "out"
    )
    other = table[(table["model"] == "other") & (table["draw"] == "mean")]
    kl = one(other, corpus="raw", quantity="kl", label="base to tuned")
    assert kl["status"] == "refused" and "different tokenizers" in kl["message"]
    assert "another tokenizer" in settings(one(other, corpus="raw", quantity="bits_per_byte", estimator="code_length"))[
        "warning"
    ]  # fmt: skip
    near = one(other, corpus="raw", quantity="mutual_neighbours", site=BLOCK, rows="sample")
    assert near["value"] > near["null"]  # the same characters end at these rows
    about = {"corpus": "likes", "quantity": "preference_information", "rows": "matched", "site": BLOCK}
    difference = one(other, **about, estimator="soft, tuned minus base")
    assert difference["status"] == "ok" and settings(difference)["paired"]
    rate = one(table, model="other", corpus="raw", quantity="bits_per_byte", estimator="code_length, tuned minus base")
    assert rate["status"] == "ok" and "tokenizers differ" in settings(rate)["note"]


def test_tokenizers_that_drop_different_pairs_keep_the_same_ones(tmp_path):
    """A completion without a token of its own drops its pair for every model, so that pair i is pair i in all."""
    base, tuned = write_model(tmp_path / "base"), write_model(tmp_path / "other", vocabulary=90, words=False)
    path = write_pairs(tmp_path / "pairs.jsonl", 20)
    lines = path.read_text().splitlines()
    # without a prompt's end before it, a merge over words may take the completion's only letters into the prompt
    for place in (3, 9):
        record = json.loads(lines[place]) | {"prompt": "", "chosen": "a"}
        lines.insert(place, json.dumps(record))
    path.write_text("\n".join(lines) + "\n")
    study = load_config(comparison_config(base, {"other": tuned}, {"likes": path})).open(tmp_path / "out")
    prepared = [study.prepared(model, study.config.data[0]) for model in study.models]
    names = [[pair.name for pair in one.pairs.pairs] for one in prepared]
    assert names[0] == names[1] and len(names[0]) >= 20


def test_depths_and_widths_may_differ(tmp_path):
    base, tuned = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", architecture="llama", seed=3)
    data = {"raw": write_text(tmp_path / "text.jsonl")}
    sections = {"shepard": False, "curvature": False, "spectra": False}
    table = run(comparison_config(base, {"llama": tuned}, data, **sections), tmp_path / "out")
    cka = one(table, model="llama", quantity="cka", rows="all", site=BLOCK)
    assert cka["label"] == f"vs {BLOCK}" and -0.1 < cka["value"] < 1


def test_random_weights_are_no_control_of_another_shape(tmp_path):
    base, tuned = write_model(tmp_path / "base"), write_model(tmp_path / "tuned", architecture="llama", seed=3)
    data = {"likes": write_pairs(tmp_path / "pairs.jsonl")}
    sections = {"shepard": False, "curvature": False, "spectra": False, "similarity": False}
    sections |= {"preference": {"control": 2, "flips": 50, "folds": 2}, "sites": ["hook_embed", BLOCK]}
    table = run(comparison_config(base, {"llama": tuned}, data, **sections), tmp_path / "out")
    refused = one(table, model="llama", quantity="preference_excess", label="over random weights")
    assert refused["status"] == "refused" and "shape or tokenizer is not the base's" in refused["message"]
    assert one(table, model="base", quantity="preference_excess", label="over random weights", site=BLOCK)["value"]


def test_warnings_of_dropped_pairs_are_heard(tmp_path, caplog):
    path = write_pairs(tmp_path / "pairs.jsonl", 20)
    line = json.dumps({"prompt": "ab", "chosen": "same", "rejected": "same"})
    path.write_text(path.read_text() + line + "\n")
    config = comparison_config(write_model(tmp_path / "base"), {"copy": tmp_path / "base"}, {"likes": path})
    study = load_config(config).open(tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        prepared = study.prepared(study.base, study.config.data[0])
    assert prepared.prepared.corpus.n_documents == 20
    assert "1 " in caplog.text and "equal" in caplog.text
