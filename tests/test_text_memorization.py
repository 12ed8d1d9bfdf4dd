"""The study `text_memorization` end to end on word salad: who gets which samples, every row, failures, resuming."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from text_memorization_run import LENGTH, SIZES, STEPS, UNSEEN, text_config
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.config import ConfigError, load_config
from infocomp.corpora.documents import read_documents
from infocomp.corpora.settings import TextSettings
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import KEY, read, row
from infocomp.memorization.unintended import unintended
from infocomp.studies.commands import open_study
from infocomp.studies.text_memorization_rows import Scored, effective_samples, model_rows, wilson
from infocomp.studies.text_memorization_summary import text_summary
from infocomp.studies.text_memorization_texts import Samples, deal_text, train_tokenizer
from infocomp.studies.text_memorization_units import LARGER, WHOLE, text_units

BITS = 1 / np.log(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("text-memorization")


@pytest.fixture(scope="module")
def study(folder):
    """The study in a folder where it has run to its end."""
    study, text = open_study(text_config(folder), [], folder / "out")
    study.figures = list
    outcome, _ = run_study(study, text, Silent())
    assert outcome.exit_code == 0, outcome.messages
    return study


@pytest.fixture(scope="module")
def table(study) -> pd.DataFrame:
    return read(study.out)


def arrays_of(study, name: str) -> dict[str, np.ndarray]:
    """What a training left: code lengths in nats, and what was extracted."""
    with np.load(study.out / "training" / name / "result.npz") as found:
        return {key: found[key] for key in found.files if key != "about"}


def one(table: pd.DataFrame, **wanted) -> pd.Series:
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1, (wanted, len(table))
    return table.iloc[0]


# --- who gets which samples -------------------------------------------------------------------------------------------


def test_every_sample_is_of_one_document_and_no_sample_comes_twice(study, folder):
    dealt = study.dealt
    parts = (dealt.members, dealt.unseen, dealt.reference, dealt.siblings)
    owners = [set(part.documents.tolist()) for part in parts]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    assert owners[3] <= owners[0], "siblings come from the documents that members are drawn from"
    rows = np.concatenate([part.rows for part in parts])
    assert len(np.unique(rows, axis=0)) == len(rows) and dealt.duplicates >= 0
    assert [len(part) for part in (dealt.members, dealt.unseen, dealt.siblings)] == [max(SIZES), UNSEEN, UNSEEN]
    assert rows.shape[1] == LENGTH
    documents = read_documents(TextSettings(files=str(folder / "texts-0")))
    order = np.random.default_rng(0).permutation(len(documents))
    tokenizer = train_tokenizer([documents[place].text for place in order[:20]], 264)
    for part in parts:
        text, sample = documents[order[part.documents[0]]].text, part.rows[0].tolist()
        ids = tokenizer.encode(text).ids
        assert any(ids[begin : begin + LENGTH] == sample for begin in range(0, len(ids), LENGTH))


def test_equal_samples_are_left_out_wherever_they_stand(folder):
    config = load_config(text_config(folder))
    page = "the same words again and again, " * 60
    documents = tuple(page + f"{number} and what only this one says {number * 7919} times." * 9 for number in range(20))
    source = config.text.model_copy(update={"text": TextSettings(texts=documents)})  # type: ignore[attr-defined]
    samples = config.samples.model_copy(update={"sizes": (8,), "unseen": 8})  # type: ignore[attr-defined]
    dealt = deal_text(source, samples)
    parts = np.concatenate([dealt.members.rows, dealt.unseen.rows, dealt.reference.rows])
    assert dealt.duplicates > 500 and len(np.unique(parts, axis=0)) == len(parts)


def test_the_tokenizer_learns_from_the_reference_alone_unless_told(folder):
    config = load_config(text_config(folder))
    own = deal_text(config.text, config.samples)  # type: ignore[attr-defined]
    samples = config.samples.model_copy(update={"tokenizer_from": "all"})  # type: ignore[attr-defined]
    everything = deal_text(config.text, samples)  # type: ignore[attr-defined]
    assert own.tokenizer != everything.tokenizer and own.vocabulary == everything.vocabulary == 264
    assert own.fingerprint == deal_text(config.text, config.samples).fingerprint  # type: ignore[attr-defined]
    assert own.fingerprint != deal_text(config.text, config.samples, seed=1).fingerprint  # type: ignore[attr-defined]


def test_the_references_and_the_sizes_learn_what_they_should(study):
    recipes, dealt = study.trained.recipes, study.dealt
    for size in SIZES:
        assert np.array_equal(recipes[f"N{size}"].train, dealt.members.rows[:size]), "nested"
        assert np.array_equal(recipes[f"N{size}"].held_out, np.concatenate([dealt.unseen.rows, dealt.siblings.rows]))
    everything = {sample.tobytes() for sample in recipes[WHOLE].train}
    parts = [dealt.members.rows, dealt.unseen.rows, dealt.siblings.rows]
    judged = {sample.tobytes() for sample in np.concatenate(parts)}
    assert judged <= everything, "members and never-trained samples alike"
    assert not judged & {sample.tobytes() for sample in recipes[LARGER].train}, "other documents"
    assert recipes[LARGER].shape.width == 16 and recipes[WHOLE].shape == recipes["N12"].shape


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_row_says_what_it_is_of_and_every_model_how_loaded_it_is(study, table):
    assert (table["status"] == "ok").all() and not table.duplicated(list(KEY)).any()
    whole = arrays_of(study, WHOLE)["held_out_nats"] * BITS
    capacity = one(table, quantity="bits_per_parameter", label="all parameters")["value"] * study.trained.counts.total
    for size in SIZES:
        own = table[table["corpus"] == f"salad N{size}"]
        assert len(own) == 3 + 2 * 2 * 3 + (3 + 1) * 2 + 1 and set(own["model"]) == {"gpt2 1x8"}
        for text in own["settings"]:
            settings = json.loads(text)
            assert settings["samples"] == size and settings["data_bits"] == pytest.approx(whole[:size].sum())
            assert settings["capacity_bits"] == pytest.approx(capacity)
            assert settings["load"] == pytest.approx(whole[:size].sum() / capacity)
    assert set(table["step"]) == {STEPS} and set(table["seed"]) == {0}


def test_rates_memorized_bits_and_extraction_are_those_of_the_code_lengths(study, table):
    ours, dealt = arrays_of(study, "N32"), study.dealt
    own = table[table["corpus"] == "salad N32"]
    model, (unseen_model, sibling_model) = ours["train_nats"] * BITS, np.split(ours["held_out_nats"] * BITS, 2)
    train, test = one(own, label="train"), one(own, label="test")
    assert train["value"] == pytest.approx(model.mean() / LENGTH)
    assert test["value"] == pytest.approx(unseen_model.mean() / LENGTH)
    assert (train["in_training"], test["in_training"]) == ("known", "no") and test["ci_low"] < test["value"]
    counts = np.unique(dealt.unseen.rows, return_counts=True)[1]
    assert test["null"] == pytest.approx(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum())
    for name in (WHOLE, LARGER):
        judged = arrays_of(study, name)["held_out_nats"] * BITS
        reference, (unseen_reference, sibling_reference) = judged[:32], np.split(judged[max(SIZES) :], 2)
        clipped = one(own, quantity="unintended_bits", label=f"against {name}")
        assert clipped["value"] == pytest.approx(np.maximum(reference - model, 0).sum())
        assert clipped["null"] == pytest.approx(np.maximum(unseen_reference - unseen_model, 0).mean() * 32)
        assert clipped["ceiling"] == pytest.approx(reference.sum())
        memorized = one(own, quantity="memorized_bits", label=f"against {name}")
        assert memorized["value"] == pytest.approx(clipped["value"] - clipped["null"])
        twin = unintended(
            *(model, reference, unseen_model, unseen_reference),
            *(dealt.members.documents[:32], dealt.unseen.documents),
        )
        assert memorized["ci_low"] == pytest.approx(twin.excess.ci_low)
        plain = one(own, quantity="unclipped_gain_bits", label=f"against {name}")
        assert plain["value"] == pytest.approx((reference - model).sum()) and plain["value"] < clipped["ceiling"]
        assert plain["null"] == pytest.approx(32 * (unseen_reference - unseen_model).mean()) and plain["null"] < 0
        assert np.isnan(plain["ceiling"]) and plain["ci_low"] < plain["value"] < plain["ci_high"]
        twin = unintended(
            *(model, reference, sibling_model, sibling_reference),
            *(dealt.members.documents[:32], dealt.siblings.documents),
            shared_documents=True,
        )
        same = one(own, quantity="memorized_bits", label=f"against {name}, same documents")
        assert (same["value"], same["ci_low"]) == (pytest.approx(twin.excess.value), pytest.approx(twin.excess.ci_low))
        assert one(own, label="test, same documents")["value"] == pytest.approx(sibling_model.mean() / LENGTH)
    extraction = one(own, quantity="extraction_rate")
    assert (extraction["value"], extraction["null"]) == (
        ours["train_extracted"].mean(),
        ours["held_out_extracted"][:UNSEEN].mean(),
    )
    effective = effective_samples(ours["train_extracted"], dealt.members.documents[:32])
    assert json.loads(extraction["settings"])["effective_samples"] == effective <= 32
    assert (extraction["ci_low"], extraction["ci_high"]) == pytest.approx(wilson(extraction["value"], effective))


@pytest.mark.parametrize(("hits", "n"), [(0, 16), (16, 16), (5, 40), (39, 40)])
def test_an_interval_of_extraction_is_wilsons_within_0_and_1_and_never_empty(hits, n):
    twin = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    low, high = wilson(hits / n, float(n))
    assert (low, high) == pytest.approx((twin.low, twin.high)) and 0 <= low < high <= 1


def test_samples_of_one_document_that_are_all_alike_count_as_one():
    documents = np.repeat(np.arange(20), 10)
    alike = np.repeat(np.arange(20) % 4 == 0, 10)
    assert effective_samples(alike, documents) == pytest.approx(19), (
        "D documents tell D - 1 of them: a variance is lost"
    )
    apart = np.random.default_rng(0).random(200) < 0.25
    assert 100 < effective_samples(apart, documents) <= 200 == effective_samples(np.ones(200, bool), documents)


def test_the_few_samples_of_a_small_set_are_known_by_heart_and_told_apart_and_those_of_a_large_one_less(table):
    few, many = (table[table["corpus"] == f"salad N{size}"] for size in (SIZES[0], SIZES[-1]))
    assert one(few, quantity="membership_auc", label="loss")["value"] > 0.99
    assert one(many, quantity="membership_auc", label="loss")["value"] < 0.8
    assert one(few, quantity="extraction_rate")["value"] > 0.5 > one(many, quantity="extraction_rate")["value"]
    for own in (few, many):
        f1 = one(own, quantity="membership_f1", label="against whole")
        assert f1["null"] == 0.5 and json.loads(f1["settings"])["members"] == min(f1["n_tokens"] // 8, UNSEEN)
    loads = [json.loads(own.iloc[0]["settings"])["load"] for own in (few, many)]
    assert loads[0] < 0.3 and loads[1] > 1.5
    law = one(table, quantity="membership_midpoint", label="loss")
    assert law["corpus"] == "salad" and np.log(1 / loads[1]) < law["value"] < np.log(1 / loads[0])
    assert one(table, quantity="membership_slope", label="loss")["value"] > 0


def test_of_samples_that_were_not_trained_on_nothing_is_memorized(study):
    """Half of the never-trained samples in the members' place: clipped bits are there, the excess covers 0."""
    ours = arrays_of(study, "N400")["held_out_nats"][:UNSEEN] * BITS
    here = slice(max(SIZES), max(SIZES) + UNSEEN)
    judged = {name: arrays_of(study, name)["held_out_nats"][here] * BITS for name in (WHOLE, LARGER)}
    unseen, halves = study.dealt.unseen, []
    odd = unseen.documents % 2 == 1
    for half in (odd, ~odd):
        samples = Samples(unseen.rows[half], unseen.documents[half])
        references = {name: values[half] for name, values in judged.items()}
        halves.append(Scored(samples, ours[half], np.zeros(half.sum(), bool), references))
    rows = model_rows(halves[0], halves[1], halves[1], {"settings": {}}, seed=0)
    clipped, excess = (
        next(found for found in rows if found["quantity"] == name and found["label"] == "against whole")
        for name in ("unintended_bits", "memorized_bits")
    )
    assert clipped["value"] > 20 and abs(excess["value"]) < 0.8 * clipped["value"]


def test_the_capacity_is_that_of_random_data_below_its_ceiling(study, table):
    found = one(table, quantity="bits_per_parameter", label="all parameters")
    assert found["corpus"] == "random V264 S8" and 0.3 < found["value"] < found["ceiling"]
    assert found["null"] < 0, "a model that has learnt its samples by heart is worse than uniform on fresh ones"
    outside = one(table, quantity="bits_per_parameter", label="outside the embedding")
    counts = study.trained.counts
    assert outside["value"] * counts.outside_embedding == pytest.approx(found["value"] * counts.total)
    assert "lower bound" in found["message"]


# --- again, failures, bad input ---------------------------------------------------------------------------------------


def test_started_again_nothing_is_trained_and_only_a_missing_part_is_made(study, folder, table):
    before = {path: path.stat().st_mtime_ns for path in (study.out / "training").glob("*/result.npz")}
    assert len(before) == len(SIZES) + 3
    next(path for path in (study.out / "parts").glob("*.parquet") if "salad N32" in str(path.read_bytes())).unlink()
    again, text = open_study(text_config(folder), [], study.out)
    again.figures = list
    outcome, _ = run_study(again, text, Silent())
    assert (outcome.done, outcome.skipped) == (1, len(SIZES) + 3)
    assert before == {path: path.stat().st_mtime_ns for path in (study.out / "training").glob("*/result.npz")}
    pd.testing.assert_series_equal(read(study.out)["value"], table["value"])


def test_rows_that_need_neither_the_whole_reference_nor_the_capacity_stay_when_these_fail(folder, tmp_path):
    short = text_config(folder, training={"steps": 20, "batch": 64})
    study, _ = open_study(short, ["samples.sizes=[12, 32, 48, 100]", "capacity.load=1"], tmp_path)
    trained = study.trained
    for name in (WHOLE, "capacity"):
        recipe = trained.recipes[name]
        wild = recipe.training.model_copy(update={"learning_rate": 1e30})
        trained.recipes[name] = dataclasses.replace(recipe, training=wild)
    with study.many(trained, None, None) as many:
        units = {title: run for title, _, _, run in text_units(trained, many)}
        for title in ("reference whole", "capacity on random data", "membership law"):
            with pytest.raises(ValueError, match="training stopped"):
                units[title]()
        rows = pd.DataFrame([row(**found) for found in units["32 samples"]()])
    done, failed = rows[rows["status"] == "ok"], rows[rows["status"] == "failed"]
    assert failed["label"].tolist() == ["against whole"] and not rows.duplicated(list(KEY)).any()
    told = set(zip(done["quantity"], done["label"].fillna(""), strict=True))
    assert {("bits_per_token", name) for name in ("train", "test", "test, same documents")} <= told
    assert {("extraction_rate", ""), ("membership_auc", "loss"), ("memorized_bits", "against larger")} <= told
    assert not any("whole" in label for _, label in told)
    assert done["message"].str.startswith("load unknown: capacity on random data: training stopped").all()
    assert all({"samples": 32}.items() <= json.loads(text).items() for text in done["settings"])
    assert all("load" not in json.loads(text) for text in done["settings"])
    assert " 32 " in text_summary(done), "the terminal says what is known"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("samples.sizes=[16, 1000000000000]", "samples.sizes and samples.unseen: 1,000,000,000,192 sequences of 8"),
        ("capacity.load=1e12", "capacity.load: "),
    ],
)
def test_data_larger_than_the_memory_that_is_free_are_refused_before_any_are_made(folder, tmp_path, setting, sentence):
    study, _ = open_study(text_config(folder), [setting], tmp_path)
    with pytest.raises(ValueError, match=r"GB, .* GB of memory are free; use fewer sequences") as found:
        _ = study.trained.recipes
    assert str(found.value).startswith(sentence)


def test_a_reference_and_a_model_that_diverge_fail_their_own_rows_and_the_others_go_on(folder, tmp_path):
    short = text_config(folder, capacity={"bits_per_parameter": 2.0}, training={"steps": 20, "batch": 64})
    study, _ = open_study(short, ["samples.sizes=[12, 32, 100]"], tmp_path)
    trained = study.trained
    assert "capacity" not in trained.recipes, "a capacity that is given is not measured"
    for name in (LARGER, "N32"):
        recipe = trained.recipes[name]
        wild = recipe.training.model_copy(update={"learning_rate": 1e30})
        trained.recipes[name] = dataclasses.replace(recipe, training=wild)
    with study.many(trained, None, None) as many:
        units = {title: (describe, run) for title, describe, _, run in text_units(trained, many)}
        for title in ("reference larger", "32 samples"):
            with pytest.raises(ValueError, match=r"training stopped: .* at step \d+ of 20; lower the learning rate"):
                units[title][1]()
        rows = units["12 samples"][1]()
        settings = rows[0]["settings"]
        assert settings["capacity_bits"] == 2.0 * trained.counts.total
        failed = [found for found in rows if found.get("status") == "failed"]
        assert [found["label"] for found in failed] == ["against larger"] and "training stopped" in failed[0]["message"]
        assert any(found["label"] == "against whole" for found in rows)
        law = [row(**found) for found in units["membership law"][1]()]
    assert {found["status"] for found in law} == {"undetermined"}
    assert "of at least 4 models" in law[0]["message"]
    for describe, _ in units.values():
        row(**{**describe, "status": "failed", "message": "a failure is described by what a row may hold"})


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("samples.sizes=[64, 32]", "sizes must grow, got 64, 32"),
        ("samples.sizes=[]", "samples.sizes"),
        ("samples.vocabulary=256", "samples.vocabulary"),
        ("samples.length=0", "samples.length"),
        ("samples.unseen_share=0.6", "leave -0.10 of the documents to members"),
        ("text.builtin=held_out", "exactly one of 'builtin' and 'text' is needed"),
        ("model.heads=3", "width must be a multiple of heads; it is 8 with 3 heads"),
        ("references.larger.heads=5", "width must be a multiple of heads; it is 16 with 5 heads"),
        (
            "samples.sizes=[12, 100000]",
            "salad: 100,096 samples of 8 tokens are needed as members, the largest of 'sizes', and their sib",
        ),
        ("samples.unseen=100000", "100,000 samples of 8 tokens are needed as never-trained samples, 'unseen'"),
        ("training.learning_rat=0.1", "did you mean 'learning_rate'"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_two(folder, tmp_path, setting, sentence):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(text_config(folder)))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out"), "--set", setting])
    assert done.exit_code == 2, done.stdout
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert "validation error" not in done.stderr, "one sentence, in the words of this house"


def test_plan_counts_units_and_samples(study, folder, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(text_config(folder)))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(study.out)])
    assert done.exit_code == 0, done.stderr
    assert f"{len(SIZES) + 4} ({len(SIZES) + 4} done), {len(SIZES) + 3} trainings" in done.stdout
    assert "400 members, 96 never trained, 96 siblings" in done.stdout and "3,072 parameters" in done.stdout


def test_the_shipped_configuration_is_sound():
    path = Path(__file__).parents[1] / "configs/text_memorization.yaml"
    assert load_config(path).study == "text_memorization"
    with pytest.raises(ConfigError, match="sizes"):
        load_config(path, ["samples.sizes=[1]"])


# --- the terminal -----------------------------------------------------------------------------------------------------


def curve(values: list[float], half: float) -> pd.DataFrame:
    rows = []
    for number, value in enumerate(values):
        settings = {"samples": 8 * 2**number, "load": 0.25 * 2**number}
        common = {"model": "m", "corpus": f"t N{number}", "settings": settings, "draw": "mean"}
        ends = {"value": value, "ci_low": value - half, "ci_high": value + half}
        rows.append(row(**common, quantity="bits_per_token", label="test", unit="bits/token", **ends))
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("values", "half", "words"),
    [
        ([5, 9, 6, 4], 0.5, "rises to a peak and falls again: 5 at load 0.25 → 9 at load 0.50 → 4 at load 2.00, bits"),
        (
            [5, 9, 4, 8.9],
            0.5,
            "test loss rises to a peak and falls again: 5 at load 0.25 → 9 at load 0.50 → 4 at load 1",
        ),
        ([5, 9, 6, 4], 3.0, "test loss shows no peak beyond its intervals"),
        ([9, 7, 6, 4], 0.5, "test loss falls, and does not rise beyond"),
        ([4, 5, 6, 9], 0.5, "test loss rises, and does not fall beyond"),
        ([4, 9], 0.5, "test loss: too few models"),
    ],
)
def test_the_summary_says_what_rises_and_falls(values, half, words):
    assert words in text_summary(curve(values, half))


def test_the_summary_has_a_line_for_every_model(table):
    text = text_summary(table)
    assert all(f"\n {size:>7} " in text for size in SIZES) and "memorized bits against larger" in text
    assert text_summary(table[table["corpus"] == "salad"]) == "no model was measured"
