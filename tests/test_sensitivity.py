"""The sensitivity study: one checkpoint under a small grid, which conclusions survive, and the page that shows it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hub_server import write_series
from safetensors.torch import load_file, save_file
from tiny_run import tiny_config, write_text
from typer.testing import CliRunner

from infocomp.checkpoints.source import DirectorySource
from infocomp.cli import app
from infocomp.config import to_yaml
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import KEY, read
from infocomp.plotting.sensitivity import draw_sensitivity, sensitivity_rows
from infocomp.studies.commands import open_study, sensitivity_and_tell
from infocomp.studies.information_plane import InformationPlaneConfig
from infocomp.studies.sensitivity import Sensitivity
from infocomp.studies.sensitivity_conclusions import conclusions, read_variants
from infocomp.studies.sensitivity_grid import Grid, Setting, leading_order_temperature
from infocomp.studies.sensitivity_pass import SharedPasses

SMALL = Grid(bins=(10, 20), draws=(1, 2), seeds=1, temperatures=("exact", "leading order"), one_in=(2,))
NOTHING = Grid(bins=(), draws=(), seeds=0, temperatures=(), one_in=(), weightings=(), rows=())
QUANTITIES = ["complexity", "expressivity", "optimality"]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFOCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), [0, 8])


@pytest.fixture(scope="module")
def config(series, tmp_path_factory) -> dict:
    texts = write_text(tmp_path_factory.mktemp("text"), 20)
    return {
        "study": "information_plane",
        "model": {"source": "folder", "path": str(series), "name": "tiny"},
        "corpora": [{"name": "salad", "text": {"files": str(texts)}, "context_length": 32, "document_tokens": 500}],
        "estimator": {"bins": 20, "draws": 2, "orders": [1, 2], "pilot_tokens": 2000},
        "compute": {"threads": 1, "device": "cpu"},
    }


@pytest.fixture(scope="module")
def measured(config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("measured")
    outcome = measure(config, out, passes=1)
    assert (outcome.done, outcome.failed) == (9, 0), outcome.messages
    return out


class Watching(Silent):
    """Counts forward passes by the bars that they begin."""

    passes = 0

    def begin(self, title: str, total: int, unit: str) -> None:
        self.passes += title.startswith("one pass")


def measure(config: dict, out: Path, grid: Grid = SMALL, passes: int | None = None):
    study = Sensitivity(InformationPlaneConfig.model_validate_json(json.dumps(config)), out, grid=grid)
    report = Watching()
    outcome, _ = run_study(study, to_yaml(study.config), report)
    assert passes in (None, report.passes)
    return outcome


def test_every_variant_is_told_apart_and_the_base_equals_what_a_run_measures(config, measured, tmp_path):
    table = read(measured)
    assert not table.duplicated(list(KEY)).any() and set(table["revision"]) == {"step8"}
    assert set(table["estimator"]) == {
        "soft",
        "soft, bins 10",
        "soft, draws 1",
        "soft, seed 1",
        "soft, temperature leading order",
        "soft, documents 1/2",
        "soft, weighting uniform",
        "soft, rows centred",
        "soft, rows outliers_removed",
    }
    rows = ["raw", "centred", "outliers_removed"]
    whole = config | {"estimator": config["estimator"] | {"rows": rows, "weighting": ["frequency", "uniform"]}}
    study, text = open_study(whole | {"model": config["model"] | {"revisions": ["step8"]}}, [], tmp_path / "run")
    run_study(study, text, Silent())
    run = read(tmp_path / "run")
    numbers = ["value", "point", "lower", "upper", "ci_low", "ci_high", "null", "null_rows", "ceiling", "draw_std"]
    for estimator, rows, weighting in [
        ("soft", "raw", "frequency"),
        ("soft, weighting uniform", "raw", "uniform"),
        ("soft, rows centred", "centred", "frequency"),
        ("soft, rows outliers_removed", "outliers_removed", "frequency"),
    ]:
        keys = ["site", "quantity", "draw"]
        ours = table[(table["estimator"] == estimator) & table["quantity"].isin(QUANTITIES)]
        theirs = run[(run["rows"] == rows) & (run["weighting"] == weighting) & (run["label"] == "token")]
        theirs = theirs[(theirs["estimator"] == "soft") & (theirs["revision"] == "step8")]
        both = ours.merge(theirs, on=keys, suffixes=("", "_run"))
        assert len(both) == len(ours) == 4 * 3 * 3, "4 sites, 3 quantities, 2 draws and their mean"
        for name in numbers:
            np.testing.assert_allclose(both[name], both[f"{name}_run"], rtol=1e-6, atol=1e-9, err_msg=name)


def test_half_the_documents_are_whole_documents_and_the_temperature_is_the_rule_s(measured):
    table = read(measured)
    mean = table[(table["draw"] == "mean") & (table["quantity"] == "complexity")]
    of = mean.groupby("estimator").first()
    assert dict(of["n_documents"][["soft, documents 1/2", "soft"]]) == {"soft, documents 1/2": 10, "soft": 20}
    half, whole = of["n_tokens"][["soft, documents 1/2", "soft"]].astype(float)
    assert half == pytest.approx(whole / 2, rel=0.1)
    assert leading_order_temperature(512, 100) == pytest.approx(0.01456, rel=1e-3)
    exact = replace(Setting(20, 2, 0, "exact", 1, "frequency", "raw"), temperature="half")
    assert exact.temperature_for(32) * 4 == pytest.approx(replace(exact, temperature="twice").temperature_for(32))


def test_the_leading_order_reads_what_a_configuration_with_that_temperature_reads(config, series, measured, tmp_path):
    width = json.loads((series / "step8/config.json").read_text())["hidden_size"]
    given = config["estimator"] | {"temperature": leading_order_temperature(width, 20)}
    measure(config | {"estimator": given}, tmp_path, NOTHING)
    both = (read(out).set_index(["estimator", "site", "quantity", "draw"])["value"] for out in (measured, tmp_path))
    variant, base = (
        values[name] for values, name in zip(both, ("soft, temperature leading order", "soft"), strict=True)
    )
    np.testing.assert_allclose(variant, base[variant.index], rtol=1e-6)


def test_the_same_command_again_does_nothing_and_loads_no_model(config, measured, monkeypatch):
    monkeypatch.setattr(SharedPasses, "states", lambda self, setting: pytest.fail("a model was asked for"))
    before = (measured / "results.parquet").read_bytes()
    outcome = measure(config, measured, passes=0)
    assert (outcome.done, outcome.skipped, outcome.exit_code) == (0, 9, 0)
    assert (measured / "results.parquet").read_bytes() == before


def test_after_a_kill_only_the_missing_variants_are_measured_and_a_small_budget_changes_nothing(
    config, measured, tmp_path
):
    table = read(measured)
    out = tmp_path / "small"
    tight = config | {"compute": config["compute"] | {"memory_budget": 31_500_000}}
    outcome = measure(tight, out, passes=3)
    assert (outcome.done, outcome.failed) == (9, 0), outcome.messages
    assert_same_numbers(read(out), table)

    parts = sorted((out / "parts").glob("*.parquet"))
    parts[0].unlink()
    parts[5].unlink()
    outcome = measure(tight, out, passes=1)
    assert (outcome.done, outcome.skipped) == (2, 7)
    assert_same_numbers(read(out), table)


def test_states_that_do_not_fit_into_memory_lie_in_scratch_files(config, measured, tmp_path):
    tight = config | {"compute": config["compute"] | {"memory_budget": 400_000}}
    outcome = measure(tight, tmp_path, replace(SMALL, rows=(), temperatures=(), seeds=0, weightings=()))
    assert (outcome.done, outcome.failed) == (4, 0), outcome.messages
    assert (tmp_path / "scratch").is_dir()
    ours, all_ = (read(out).set_index(list(KEY))["value"] for out in (tmp_path, measured))
    assert not np.array_equal(ours, all_[ours.index]), "kept in float16"
    np.testing.assert_allclose(ours, all_[ours.index], atol=2e-3)


def assert_same_numbers(one: pd.DataFrame, other: pd.DataFrame) -> None:
    keys = list(KEY)
    both = one.merge(other, on=keys, suffixes=("", "_other"))
    assert len(both) == len(one) == len(other)
    for name in ("value", "point", "lower", "ci_high"):
        np.testing.assert_allclose(both[name], both[f"{name}_other"], rtol=1e-6, atol=1e-9)


def test_what_one_variant_cannot_do_is_a_row_and_the_others_go_on(config, tmp_path):
    bad = config | {"estimator": config["estimator"] | {"outlier_directions": 1000}}
    outcome = measure(bad, tmp_path, replace(SMALL, bins=(), draws=(), temperatures=(), one_in=(), seeds=0))
    assert (outcome.done, outcome.failed, outcome.exit_code) == (3, 1, 1)
    table = read(tmp_path)
    failed = table[table["status"] == "failed"]
    assert list(failed["estimator"]) == ["soft, rows outliers_removed"] and "directions" in failed["message"].iloc[0]
    found = conclusions(table)
    assert found["not_judged"].str.contains("rows outliers_removed").all()


def test_a_checkpoint_that_cannot_be_read_fails_every_variant_in_one_try(config, series, tmp_path, capsys, monkeypatch):
    opened, really = [], DirectorySource.open
    monkeypatch.setattr(DirectorySource, "open", lambda self, *how: opened.append(how) or really(self, *how))
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        target = broken / "step8" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((series / "step8" / name).read_bytes())
    tensors = load_file(broken / "step8/model.safetensors")
    first = sorted(tensors)[0]
    tensors[first].view(-1)[0] = math.nan
    save_file(tensors, broken / "step8/model.safetensors", metadata={"format": "pt"})
    bad = config | {"model": config["model"] | {"path": str(broken)}}
    code = sensitivity_and_tell(bad, [], tmp_path / "out", grid=SMALL)
    assert code == 1 and len(opened) == 1
    assert (read(tmp_path / "out")["status"] == "failed").all()
    told = capsys.readouterr().err
    assert "the base setting was not measured on 'salad'" in told and "NaN or infinite" in told
    assert not (tmp_path / "out" / "conclusions.csv").exists()


def test_the_command_says_which_revision_is_close_and_that_a_series_is_to_be_trained_first(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    out = str(tmp_path / "out")
    done = CliRunner().invoke(app, ["sensitivity", str(path), "--out", out, "--revision", "step7"])
    assert done.exit_code == 2 and "no revision 'step7'" in done.stderr and "'step8', 'step0'" in done.stderr
    path.write_text(json.dumps(tiny_config(tmp_path)))
    arguments = ["sensitivity", str(path), "--out", out, "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and f"`infocomp run CONFIG --out {tmp_path / 'run'}` trains it" in done.stderr
    assert not Path(out).exists()


def test_the_command_prints_conclusions_and_keeps_them(config, tmp_path, capsys):
    assert sensitivity_and_tell(config, [], tmp_path, "step0", grid=replace(NOTHING, bins=(10,))) == 0
    told = capsys.readouterr().out
    assert told.startswith("\nstep0: in how many other settings") and "1 of 1" in told
    kept = pd.read_csv(tmp_path / "conclusions.csv", keep_default_na=False)
    assert set(kept["variants"]) <= {0, 1} and "order of the sites by complexity" in kept["conclusion"].iloc[0]
    assert set(read(tmp_path)["revision"]) == {"step0"}


# --- conclusions by hand ------------------------------------------------------------------------------------------

SITES = ["hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "ln_final.hook_normalized"]


def hand(estimator: str, complexity: list[float], expressivity: list[float], low: float | None = 0.1) -> list[dict]:
    rows = []
    optimality = [above / below for above, below in zip(expressivity, complexity, strict=True)]
    for quantity, values in zip(QUANTITIES, (complexity, expressivity, optimality), strict=True):
        for site, layer, value in zip(SITES, (None, 0, 1, None), values, strict=True):
            row = {"corpus": "text", "estimator": estimator, "draw": "mean", "status": "ok", "quantity": quantity}
            row |= {"site": site, "layer": layer, "point": value, "value": value + 1, "null": 1.0, "ci_low": low}
            rows.append(row | {"message": None})
    return rows


def test_conclusions_by_hand():
    table = pd.DataFrame(
        hand("soft", [4.0, 3.0, 2.0, 1.0], [0.1, 0.2, 0.4, 0.3])
        + hand("soft, bins 50", [8.0, 6.0, 4.0, 2.0], [0.2, 0.3, 0.5, 0.4])  # the same on another scale
        + hand("soft, bins 400", [3.0, 4.0, 2.0, 1.0], [0.1, 0.2, 0.3, 0.4], low=-0.1)  # one swap: ρ = 0.8
        + hand("soft, rows centred", [4.0, 2.0, 3.0, 1.0], [0.1, 0.4, 0.2, 0.3], low=None)  # the other way with depth
    )
    found = conclusions(table).set_index("conclusion")
    expected = {
        "order of the sites by complexity (rank correlation ≥ 0.9)": (1, 3, "bins 400, rows centred", ""),
        "order of the sites by expressivity (rank correlation ≥ 0.9)": (1, 3, "bins 400, rows centred", ""),
        "expressivity is largest at blocks.1.hook_resid_post": (1, 3, "bins 400, rows centred", ""),
        "complexity is above 0 at every site (lower limit of the lower end)": (1, 3, "bins 400", "rows centred"),
        "expressivity is above 0 at every site (lower limit of the lower end)": (1, 3, "bins 400", "rows centred"),
        "complexity falls from the first block to the last": (2, 3, "rows centred", ""),
        "expressivity rises from the first block to the last": (2, 3, "rows centred", ""),
        "optimality rises from the first block to the last": (2, 3, "rows centred", ""),
        "both change with depth alike on raw, centred and outlier-free rows": (0, 1, "rows centred", ""),
    }
    assert list(found.index) == list(expected)
    for sentence, numbers in expected.items():
        assert tuple(found.loc[sentence, ["holds", "variants", "fails", "not_judged"]]) == numbers, sentence


def test_without_a_point_the_plug_in_less_its_null_is_read_and_a_missing_base_is_told():
    table = pd.DataFrame(hand("soft", [4.0, 3.0, 2.0, 1.0], [0.1, 0.2, 0.4, 0.3])).assign(point=np.nan)
    read_ = read_variants(table)["base"]
    np.testing.assert_allclose(read_["complexity"], [4.0, 3.0, 2.0, 1.0])
    assert read_.loc[SITES[0], "optimality"] == pytest.approx(1.025), "null-corrected already"
    with pytest.raises(ValueError, match=r"the base setting was not measured on 'text': nothing to compare with"):
        conclusions(table.assign(estimator="soft, bins 50"))


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_shows_what_its_csv_says(measured):
    table = read(measured)
    rows = sensitivity_rows(table, "salad")
    kept = pd.read_csv(measured / "figures" / "sensitivity.csv", dtype={"level": str}, keep_default_na=True)
    assert list(kept.columns) == list(rows.columns)
    np.testing.assert_allclose(kept["drawn"], rows["drawn"])
    figure = draw_sensitivity(rows)
    lines = [line for ax in figure.axes for line in ax.lines]
    marks = sorted(float(np.asarray(line.get_ydata())[0]) for line in lines if line.get_gid() == "mark")
    np.testing.assert_allclose(marks, sorted(kept["drawn"]))
    brackets = sorted(tuple(np.asarray(line.get_ydata(), float)) for line in lines if line.get_gid() == "bracket")
    both = kept.dropna(subset=["lower", "upper"])
    np.testing.assert_allclose(brackets, sorted(zip(both["lower"], both["upper"], strict=True)))
    assert rows.groupby("setting")["level"].unique().map(list).to_dict() == {
        "bins": ["10", "20"],
        "draws": ["1", "2"],
        "seed": ["0", "1"],
        "temperature": ["exact", "leading order"],
        "documents": ["1/2", "all"],
        "weighting": ["frequency", "uniform"],
        "rows": ["raw", "centred", "outliers_removed"],
    }
    assert rows.groupby("setting")["base"].sum().nunique() == 1, "the base stands in every panel"
    source = table.set_index(["estimator", "site", "quantity", "draw"])["point"]
    one = rows[(rows["setting"] == "bins") & (rows["level"] == "10") & (rows["quantity"] == "complexity")].iloc[0]
    assert one["drawn"] == source["soft, bins 10", one["site"], "complexity", "mean"]
