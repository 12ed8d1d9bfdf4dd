"""What a comparison refuses, each in a sentence that names what, the rule and the remedy; words as settings."""

import json
from pathlib import Path

import numpy as np
import pytest
from comparison_run import comparison_config, write_model, write_pairs, write_text

from infocomp.config import ConfigError, load_config
from infocomp.estimators import SoftInformation
from infocomp.studies.comparison_command import comparison_config as from_words
from infocomp.studies.comparison_command import data_settings, model_settings
from infocomp.studies.comparison_differences import Weighed, differences, mark_changed, matched_sites
from infocomp.studies.comparison_joined import phase_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("input")
    write_model(where / "base")
    write_model(where / "other" / "base", moved=0.1)
    for step in (1, 2):
        write_model(where / "many" / f"step{step}", seed=step)
    write_pairs(where / "pairs.jsonl", 12)
    write_text(where / "text.jsonl", 12)
    return where


def opened(folder: Path, out: Path, **settings):
    data = {"likes": folder / "pairs.jsonl"}
    return load_config(comparison_config(folder / "base", {"copy": folder / "base"}, data, **settings)).open(out)


def test_a_template_of_a_tuned_model_without_one_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="has no chat template; take the template 'plain'"):
        opened(folder, tmp_path, template="tuned").check()


def test_without_any_template_conversations_are_written_plainly(folder, tmp_path):
    assert opened(folder, tmp_path).template.name == "plain"


def test_names_must_differ(folder, tmp_path):
    config = comparison_config(folder / "base", {"base": folder / "many" / "step1"}, {"likes": folder / "pairs.jsonl"})
    with pytest.raises(ValueError, match="models need names of their own, got base, base; give one another `name`"):
        load_config(config).open(tmp_path)


def test_one_base_is_compared(folder, tmp_path):
    config = comparison_config(folder / "base", {"copy": folder / "base"}, {"likes": folder / "pairs.jsonl"})
    config["base"] = {"source": "folder", "path": str(folder / "many"), "name": "base"}
    with pytest.raises(
        ValueError, match=r"base 'base' has 2 checkpoints \(step1, step2, …\), and one base is compared"
    ):
        load_config(config).open(tmp_path).check()


def test_a_model_that_a_run_trains_is_no_model_of_a_comparison(folder, tmp_path):
    config = comparison_config(folder / "base", {"copy": folder / "base"}, {"likes": folder / "pairs.jsonl"})
    config["base"] = {"source": "series", "name": "base"}
    with pytest.raises(ConfigError, match="source 'series' is a model that a run trains itself"):
        load_config(config)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"kind": "preference", "text": {"files": "x"}}, "data of kind 'preference' needs exactly 'pairs', and 'text'"),
        ({"kind": "text"}, "data of kind 'text' needs exactly 'builtin' or 'text', and none is given"),
        ({"kind": "chat", "text": {"texts": ["a"]}}, "data of kind 'chat' are read from 'text.files'"),
    ],
)
def test_a_data_set_has_one_source_of_its_kind(folder, entry, sentence):
    config = comparison_config(folder / "base", {"copy": folder / "base"}, {"likes": folder / "pairs.jsonl"})
    config["data"] = [{"name": "x", **entry}]
    with pytest.raises(ConfigError, match=sentence):
        load_config(config)


def test_equal_and_empty_completions_leave_nothing(folder, tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a", "chosen": "b", "rejected": ""}]
    path.write_text("\n".join(map(json.dumps, lines)))
    config = comparison_config(folder / "base", {"copy": folder / "base"}, {"likes": path})
    with pytest.raises(ValueError, match="pair"):
        load_config(config).open(tmp_path / "out").check()


def test_words_become_a_configuration(folder):
    config = from_words(
        str(folder / "base"),
        [str(folder / "other" / "base"), str(folder / "many"), "owner/name@step10"],
        [str(folder / "pairs.jsonl"), str(folder / "text.jsonl")],
    )
    assert [model["name"] for model in (config["base"], *config["tuned"])] == [
        "base",
        "other/base",
        "many",
        "name@step10",
    ]
    assert [model["source"] for model in config["tuned"]] == ["single", "folder", "single"]
    assert config["tuned"][2]["revision"] == "step10" and config["tuned"][2]["repository"] == "owner/name"
    assert [data["kind"] for data in config["data"]] == ["preference", "text"]


def test_words_that_name_nothing_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="at least one --tuned"):
        from_words(str(folder / "base"), [], ["x"])
    with pytest.raises(ValueError, match="at least one --data"):
        from_words(str(folder / "base"), [str(folder / "base")], [])
    with pytest.raises(ValueError, match=r"holds neither config.json nor checkpoint folders"):
        model_settings(str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no folder './nowhere'; name one, or a repository"):
        model_settings("./nowhere")
    with pytest.raises(ValueError, match=r"there is no file 'nothing.jsonl' to read data from"):
        data_settings("nothing.jsonl")


# --- the arithmetic of differences ------------------------------------------------------------------------------------


def number(value: float, influence: np.ndarray, documents: int = 40, **row) -> Weighed:
    names = (
        "model revision stage step tokens_seen corpus site layer quantity label rows weighting draw seed unit n_tokens"
    )
    names += " n_documents order context_length dtype estimator"
    columns = dict.fromkeys(names.split()) | {"value": value, "settings": "{}", "estimator": "spectrum"}
    columns |= {"n_documents": documents, "site": "hook_embed", "quantity": "rankme", "lower": None, "point": None}
    return Weighed(columns | {"upper": None} | row, {"value": influence})


KEY = ("hook_embed", "sample", "spectrum", "rankme", "", "", "raw")


def test_a_paired_difference_forgets_what_documents_share():
    generator = np.random.default_rng(0)
    shared, own = generator.normal(size=40) / 40, 0.01 * generator.normal(size=40) / 40
    base, tuned = number(5.0, shared), number(5.1, shared + own)
    row = differences({KEY: base}, {KEY: tuned}, {"hook_embed": "hook_embed"})[0]
    assert row["value"] == pytest.approx(0.1) and row["std_error"] < 0.005
    apart = differences({KEY: base}, {KEY: number(5.1, shared + own, documents=41)}, {"hook_embed": "hook_embed"})[0]
    assert not apart["settings"]["paired"] and apart["std_error"] > 0.1


def test_samples_of_two_tokenizers_are_not_paired():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=40) / 40
    models = [{KEY: number(value, shared, rows="sample")} for value in (5.0, 5.1)]
    alike, apart = (
        differences(models[0], models[1], {"hook_embed": "hook_embed"}, note)[0] for note in ("", "tokenizers differ")
    )
    assert alike["settings"]["paired"] and alike["std_error"] == 0
    assert not apart["settings"]["paired"] and apart["std_error"] > 0.1


def test_rounding_is_no_change_and_effects_do_not_grow_with_documents():
    influence = 1e-18 * np.random.default_rng(0).normal(size=40)
    row = differences({KEY: number(5.0, 0 * influence)}, {KEY: number(5.0 + 1e-12, influence)}, {})[0]
    assert row["settings"]["p"] == 1.0
    found = []
    for documents in (512, 5120):  # beyond 512 the influences are of groups
        groups = np.random.default_rng(1).normal(size=512) / np.sqrt(512 * documents)
        base, tuned = number(1.0, 0 * groups, documents), number(2.0, groups - groups.mean(), documents)
        found.append(differences({KEY: base}, {KEY: tuned}, {})[0]["settings"]["effect"])
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_false_discoveries_are_held_over_all_differences():
    generator = np.random.default_rng(1)
    rows = []
    for place in range(400):
        influence = generator.normal(size=64) / 64
        true = 0.0 if place < 380 else 2.0
        rows += differences(
            {KEY: number(0.0, 0 * influence)},
            {KEY: number(true + influence.sum() - 0, influence - influence.mean())},
            {"hook_embed": "hook_embed"},
        )
    mark_changed(rows)
    changed = np.array([row["settings"]["changed"] for row in rows])
    assert changed[380:].all() and changed[:380].mean() < 0.02
    assert sum(row["settings"]["p"] < 0.05 for row in rows[:380]) > 5  # without the correction some would be


def test_sites_of_other_depths_are_matched_by_relative_depth():
    base = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(3)), "ln_final.hook_normalized"]
    tuned = ["hook_embed", *(f"blocks.{i}.hook_resid_post" for i in range(5)), "ln_final.hook_normalized"]
    found = matched_sites(base, tuned, 3, 5)
    assert found["blocks.0.hook_resid_post"] == "blocks.0.hook_resid_post"
    assert found["blocks.2.hook_resid_post"] == "blocks.1.hook_resid_post"
    assert found["blocks.4.hook_resid_post"] == "blocks.2.hook_resid_post"
    assert found["ln_final.hook_normalized"] == "ln_final.hook_normalized"
    assert matched_sites(base, base, 3, 3) == {site: site for site in base}


def test_phases_of_a_series_of_checkpoints_stand_in_the_table():
    """RankMe rises and α falls until step 1,000, then both turn round."""
    steps = [0, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000]
    places = np.log1p(steps)
    turn = np.log1p(1000)
    generator = np.random.default_rng(0)
    units = []
    for step, place in zip(steps, places, strict=True):
        up = min(place, turn) - 0.8 * max(place - turn, 0)
        found = {}
        for quantity, value in (("rankme_covariance", np.exp(3 + 0.2 * up)), ("alpha_req", 2 - 0.1 * up)):
            influence = 0.002 * value * generator.normal(size=40) / 40
            about = {"step": step, "revision": f"step{step}", "rows": "sample", "model": "series", "corpus": "raw"}
            about |= {"quantity": quantity, "std_error": 0.01 * value}
            found[("hook_embed", "sample", "spectrum", quantity, "", "", "raw")] = number(
                value * (1 + 0.002 * generator.normal()), influence, **about
            )
        units.append(found)
    rows = phase_rows(units)
    assert [row["label"] for row in rows] == ["compression-seeking begins"]
    assert rows[0]["ci_low"] < 1000 < rows[0]["ci_high"] and rows[0]["settings"]["from"] == "entropy-seeking"
    assert phase_rows(units[:4]) == []


# --- means of groups --------------------------------------------------------------------------------------------------


def test_group_means_are_the_means_of_their_rows():
    import torch

    rows = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    state = SoftInformation(8, bins=12, draws=2)
    state.update(rows[:25])
    state.update(rows[25:])
    groups = np.arange(60) % 4 - 1
    means, entropies = state.group_means(groups, 3)
    assignments, row_entropies = state._assign(rows)
    for group in range(3):
        chosen = torch.from_numpy(groups == group)
        np.testing.assert_allclose(means[group], assignments[chosen].double().mean(dim=0), rtol=1e-6)
        np.testing.assert_allclose(entropies[group], row_entropies[chosen].double().mean(dim=0), rtol=1e-6)


def test_groups_that_do_not_fit_are_refused():
    import torch

    state = SoftInformation(4, bins=5, draws=1)
    state.update(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="one number from -1 to 1 for each of the 6 rows"):
        state.group_means(np.zeros(5, int), 2)
    with pytest.raises(ValueError, match="from 0 to 2"):
        state.group_means(np.array([0, 0, 1, 1, 2, 2]), 2)
    with pytest.raises(ValueError, match="group 1 of 2 has no row"):
        state.group_means(np.zeros(6, int), 2)
