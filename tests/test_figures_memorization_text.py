"""Figures of memorized text, over the load and over training: equal to their CSV, right by hand, legible."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from memorization_tables import CAPACITY, CHANGED, SAMPLES, STEPS, checkpoint_rows, frame, text_rows
from test_figures import drawn_texts, lines, overlapping, same_points, synthetic_rows
from test_figures_memorization import bar_ends, run_folder, script, words

from infocomp.memorization.published import pythia_memorized
from infocomp.plotting import style
from infocomp.plotting.draw import MEMORIZATION_PAGES, Page
from infocomp.plotting.memorization_descent import double_descent, double_descent_rows, peak
from infocomp.plotting.memorization_fragility import fragility, fragility_rows
from infocomp.plotting.memorization_membership import law, membership, membership_rows
from infocomp.plotting.memorization_training import memorization_training, memorization_training_rows
from infocomp.plotting.selection import NothingToDraw

DESCENT, MEMBERSHIP, TRAINING, FRAGILITY = MEMORIZATION_PAGES[1:]
LONG = "EleutherAI/pythia-160m"


def plane_rows(text: str = "held-out") -> list[dict]:
    measured = synthetic_rows(layers=2, checkpoints=4, labels=("token",))
    return [made | {"corpus": text} for made in measured if not made["quantity"].startswith("bits_")]


@cache
def table(name: str) -> pd.DataFrame:
    """Tables of the shapes that the studies of text and of checkpoints write."""
    if name == "text":
        return frame(text_rows())
    if name == "two models":
        return frame([*text_rows(), *text_rows("gpt2 2x32", peak=False, shift=0.4)[:-1]])
    if name == "checkpoints":
        return frame(checkpoint_rows(kinds=("replace", "drop")))
    if name == "two series":
        return frame([*checkpoint_rows(), *checkpoint_rows(LONG, references=("whole",), speed=0.3)])
    assert name == "with informations"
    return frame([*checkpoint_rows(), *plane_rows()])


SHAPES: dict[str, tuple[Page, ...]] = {
    "text": (DESCENT, MEMBERSHIP),
    "two models": (DESCENT, MEMBERSHIP),
    "checkpoints": (TRAINING, FRAGILITY),
    "two series": (TRAINING, FRAGILITY),
    "with informations": (TRAINING,),
}


@cache
def drawing(name: str, page: Page) -> tuple[pd.DataFrame, Figure]:
    rows = page.rows(table(name))
    return rows, page.draw(rows)


def read_back(name: str, page: Page, folder: Path) -> tuple[pd.DataFrame, list[Axes]]:
    rows, figure = drawing(name, page)
    rows.to_csv(folder / f"{page.name}.csv", index=False)
    return pd.read_csv(folder / f"{page.name}.csv", keep_default_na=False, na_values=[""]), figure.axes


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_texts_of_a_memorization_figure_overlap_and_none_leaves_the_page(name: str):
    for page in SHAPES[name]:
        _, figure = drawing(name, page)
        texts = drawn_texts(figure)
        assert len(texts) > 10 and overlapping(texts) == [], page.name
        box = figure.bbox.padded(0.5)
        assert [text for text, own in texts if not (box.contains(*own.min) and box.contains(*own.max))] == []


def ribbon(ax: Axes, gid: str) -> set[tuple[float, float]]:
    (found,) = [band for band in ax.collections if band.get_gid() == gid]
    return {(float(x), float(y)) for x, y in np.asarray(found.get_paths()[0].vertices)}


# --- double descent ---------------------------------------------------------------------------------------------------


def test_the_double_descent_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("text", "two models"):
        csv, (losses, memorized, emitted) = read_back(name, DESCENT, tmp_path)
        for model, own in csv.groupby("model"):
            for label in ("train", "test", "test, same documents"):
                path = own[(own["quantity"] == "bits_per_token") & (own["label"] == label)]
                assert same_points(lines(losses, f"{model}|{label}"), path[["load", "value"]]) and len(path) == 8
                ends = ribbon(losses, f"{model}|{label}|interval")
                assert {tuple(end) for side in ("low", "high") for end in path[["load", side]].to_numpy()} <= ends
            for reference in ("whole", "larger"):
                for ending in ("", ", same documents"):
                    path = own[(own["quantity"] == "memorized_bits") & (own["label"] == f"against {reference}{ending}")]
                    assert same_points(lines(memorized, f"{model}|{reference}{ending}"), path[["load", "value"]])
                sums = own[(own["quantity"] == "unintended_bits") & (own["label"] == f"against {reference}")]
                assert same_points(lines(memorized, f"{model}|{reference}|ceiling"), sums[["load", "ceiling"]])
            test = own[(own["quantity"] == "bits_per_token") & (own["label"] == "test")]
            assert same_points(lines(losses, f"{model}|test|null"), test[["load", "null"]])
            rate = own[own["quantity"] == "extraction_rate"]
            assert same_points(lines(emitted, f"{model}|extraction_rate"), rate[["load", "value"]])
            assert same_points(lines(emitted, f"{model}|extraction_rate|null"), rate[["load", "null"]])
            assert set(lines(memorized, f"{model}|capacity")[:, 1]) == {CAPACITY}
        assert losses.get_xscale() == "log" and len(losses.get_shared_x_axes().get_siblings(losses)) == 3


def test_a_colour_is_a_reference_and_a_stroke_is_a_null_and_no_two_strokes_share_a_look():
    _, figure = drawing("text", DESCENT)
    memorized = figure.axes[1]
    look = {
        str(line.get_gid()): (line.get_color(), line.get_linestyle(), line.get_markerfacecolor() == "white")
        for ax in figure.axes
        for line in ax.lines
    }
    model = "gpt2 1x24"
    for name in ("whole", "larger"):
        main, other, there = (look[f"{model}|{name}{end}"] for end in (", same documents", "", "|ceiling"))
        assert main[1:] == ("-", False) and other[1:] == ("--", True), "the same documents are the main curve"
        assert main[0] == other[0] == there[0], "all three in the colour of their reference"
    assert look[f"{model}|whole"][0] != look[f"{model}|larger"][0]
    assert look[f"{model}|test, same documents"][1:] == ("-", False) and look[f"{model}|test"][1:] == ("--", True)
    assert look[f"{model}|capacity"][1] == "-." != look[f"{model}|extraction_rate|null"][1]
    for text in ("all there is to memorize, under whole", "all there is to memorize, under larger", "unigram code"):
        assert text in words(figure)
    gids = [str(line.get_gid()) for line in memorized.lines]
    assert not any("unclipped" in gid or "gain" in gid for gid in gids)


def test_losses_that_range_over_more_than_four_fold_stand_on_a_logarithmic_axis():
    assert drawing("text", DESCENT)[1].axes[0].get_yscale() == "log", "from 1 to 9 bits a token"
    rows = [
        made | ({"value": 6.0, "ci_low": 5.9, "ci_high": 6.1} if made["label"] == "train" else {})
        for made in text_rows()
    ]
    assert double_descent(frame(rows)).axes[0].get_yscale() == "linear"


def curve(values: list[float], half: float | None = None) -> pd.DataFrame:
    ends = [np.nan] * len(values) if half is None else [half] * len(values)
    low, high = (np.array(values) + sign * np.array(ends) for sign in (-1, 1))
    return pd.DataFrame({"value": values, "low": low, "high": high})


def test_a_peak_stands_between_two_valleys_by_its_interval():
    assert peak(curve([1, 3, 1])) == 1
    assert peak(curve([3, 2, 1])) is None and peak(curve([1, 2, 3])) is None, "ends are no peaks"
    assert peak(curve([3, 1, 2, 1])) == 2, "after a first descent"
    assert peak(curve([1, 2, 1, 5, 1])) == 3 and peak(curve([1, 5, 1, 2, 1])) == 1, "the highest of two"
    assert peak(curve([2, 5, 1, 2, 1])) == 1, "by its rise above the higher valley"
    assert peak(curve([1, 2, 4, 3, 2])) == 2, "slopes belong to it"
    assert peak(curve([1, 3, 1], 0.9)) == 1 and peak(curve([1, 3, 1], 1.1)) is None
    assert peak(curve([1, 3, 2.5], 0.3)) is None, "one side alone is not enough"
    assert peak(curve([2])) is None


def test_the_peak_is_marked_where_it_is_one_and_said_where_it_is_not():
    rows, figure = drawing("text", DESCENT)
    top = rows[rows["peak"]]
    assert top["samples"].tolist() == [256] and top["label"].tolist() == ["test"]
    assert same_points(lines(figure.axes[0], "gpt2 1x24|peak"), top[["load", "value"]])
    assert "gpt2 1x24: peak at 1.1 × capacity (256 samples, 24.3 kbit)." in words(figure)
    rows, figure = drawing("two models", DESCENT)
    assert set(rows.loc[rows["peak"], "model"]) == {"gpt2 1x24"}
    assert len(lines(figure.axes[0], "gpt2 2x32|peak")) == 0
    assert "gpt2 2x32: no peak: no loss inside stands above both sides by its intervals." in words(figure)


def test_without_intervals_the_values_decide_and_that_is_said():
    figure = double_descent(frame(text_rows(peak=False, intervals=False)))
    assert "no peak: no loss inside stands above both sides by its values." in words(figure)
    assert "interval" not in words(figure) and "peak of the loss" not in words(figure)


def test_memorized_bits_below_zero_stay_in_view():
    rows = [made | ({"value": -9000.0} if made["label"] == "against whole" else {}) for made in text_rows()]
    figure = double_descent(frame(rows))
    assert figure.axes[1].get_ylim()[0] < -9000
    assert -0.1 * CAPACITY < drawing("text", DESCENT)[1].axes[1].get_ylim()[0] < 0


# --- membership -------------------------------------------------------------------------------------------------------


def test_the_membership_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("text", "two models"):
        csv, axes = read_back(name, MEMBERSHIP, tmp_path)
        points = csv[csv["series"] == "point"]
        assert np.allclose(points["capacity_per_data"] * points["load"], 1)
        for ax, quantity in zip(axes, ("membership_auc", "membership_f1"), strict=True):
            own = points[points["quantity"] == quantity]
            for (model, label), path in own.groupby(["model", "label"]):
                assert same_points(lines(ax, f"{model}|{label}|{quantity}"), path[["capacity_per_data", "value"]])
            assert set(lines(ax, f"{quantity}|null")[:, 1]) == set(own["null"])


def test_scores_stand_in_one_order_whatever_order_the_table_is_in():
    table_of = {name: frame(text_rows()[::step]) for name, step in (("written", 1), ("turned", -1))}
    for name in ("written", "turned"):
        assert membership_rows(table_of[name])["label"].unique().tolist() == ["loss", "against whole", "against larger"]
        figure = double_descent(table_of[name])
        colour = {str(line.get_gid()): line.get_color() for line in figure.axes[1].lines}
        assert [colour[f"gpt2 1x24|{one}"] for one in ("whole", "larger")] == list(style.CATEGORIES[:2])


def test_the_legend_shows_bars_for_intervals_that_are_bars():
    for name, page in (("text", MEMBERSHIP), ("checkpoints", FRAGILITY)):
        (legend,) = drawing(name, page)[1].legends
        (sign,) = [
            handle
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
            if text.get_text().startswith("95 % interval over")
        ]
        assert isinstance(sign, Line2D) and sign.get_marker() == "|"


def test_the_fitted_law_goes_from_a_half_to_one_through_its_midpoint():
    assert law(np.exp([-0.4]), -0.4, 1.6) == pytest.approx(0.75)
    assert law(np.array([1e-12, 1e12]), 0.3, 1.6) == pytest.approx([0.5, 1.0])
    rows, figure = drawing("text", MEMBERSHIP)
    laws = rows[rows["series"] == "law"]
    assert laws["label"].tolist() == ["loss", "against whole", "against larger"]
    for _, fit in laws.iterrows():
        x, y = lines(figure.axes[1], f"gpt2 1x24|{fit['label']}|law").T
        assert np.allclose(y, 0.5 + 0.5 / (1 + np.exp(-fit["slope"] * (np.log(x) - fit["midpoint"]))))
        bar = lines(figure.axes[1], f"gpt2 1x24|{fit['label']}|law|midpoint interval")
        assert np.allclose(np.log(bar[:, 0]), [fit["midpoint_low"], fit["midpoint_high"]]) and set(bar[:, 1]) == {0.75}
    assert f"loss: F1 = .75 at capacity {math.exp(-0.4):.2g} × data, slope 1.6" in words(figure)


def test_a_law_that_was_not_fitted_leaves_its_points_joined():
    plain = table("text")[~table("text")["quantity"].isin(["membership_midpoint", "membership_slope"])]
    figure = membership(plain)
    assert "sigmoid" not in words(figure) and ".75" not in words(figure)
    (line,) = [line for line in figure.axes[1].lines if line.get_gid() == "gpt2 1x24|loss|membership_f1"]
    assert line.get_linestyle() == "-"
    (line,) = [
        line
        for line in drawing("text", MEMBERSHIP)[1].axes[1].lines
        if line.get_gid() == "gpt2 1x24|loss|membership_f1"
    ]
    assert line.get_linestyle() == "None"


# --- over training ----------------------------------------------------------------------------------------------------


def test_the_training_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name, panels in (("checkpoints", 4), ("two series", 4), ("with informations", 5)):
        csv, axes = read_back(name, TRAINING, tmp_path)
        assert len(axes) == csv["panel"].nunique() == panels
        for ax, (_, own) in zip(axes, csv.groupby("panel", sort=False), strict=True):
            for (model, series), path in own.groupby(["model", "series"]):
                assert same_points(lines(ax, f"{model}|{series}"), path[["position", "value"]]), (name, series)
                if path["null"].notna().any():
                    assert same_points(lines(ax, f"{model}|{series}|null"), path[["position", "null"]])
                known = path[path["low"].notna()]
                if len(known):
                    ends = ribbon(ax, f"{model}|{series}|interval")
                    assert {tuple(end) for end in known[["position", "low"]].to_numpy()} <= ends
    assert set(csv["panel"]) == {"memorized", "extraction", "membership", "held-out rate", "information"}
    assert set(csv.loc[csv["panel"] == "information", "site"]) == {"blocks.1.hook_resid_post"}


def test_all_panels_over_training_have_one_step_axis():
    for name in ("checkpoints", "with informations"):
        _, figure = drawing(name, TRAINING)
        assert {ax.get_xscale() for ax in figure.axes} == {"symlog"}
        assert len({ax.get_xlim() for ax in figure.axes}) == 1 == len({ax.get_position().x0 for ax in figure.axes})
        assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False] * (len(figure.axes) - 1) + [True]


def test_memorized_bits_are_the_excess_and_not_the_clipped_or_unclipped_sum():
    rows, _ = drawing("checkpoints", TRAINING)
    excess = table("checkpoints").query("quantity == 'memorized_bits' and label == 'against whole'")
    drawn = rows[(rows["panel"] == "memorized") & (rows["series"] == "against whole")]
    assert drawn["value"].tolist() == excess["value"].tolist() and len(drawn) == len(STEPS)
    assert set(rows.loc[rows["panel"] == "memorized", "series"]) == {"against whole", "against larger"}


def test_changed_prompts_are_not_points_over_training():
    rows, _ = drawing("checkpoints", TRAINING)
    assert set(rows.loc[rows["panel"] == "extraction", "label"]) == {"32+32"}


def test_without_a_rate_per_byte_the_never_trained_samples_stand_in():
    rows = memorization_training_rows(frame(checkpoint_rows(rates=False)))
    held = rows[rows["panel"] == "held-out rate"]
    assert set(held["quantity"]) == {"bits_per_token"} and set(held["label"]) == {"test"} and len(held) == len(STEPS)
    figure = TRAINING.draw(rows)
    assert figure.axes[-1].get_ylabel() == "held out, bits per token"


def test_each_text_of_the_page_over_training_says_whether_it_was_in_the_training_data():
    said = words(drawing("with informations", TRAINING)[1])
    assert "training text; in the training data: known; model: demo" in said
    assert "held-out; in the training data: no" in said and "nan" not in said


def test_duplicate_weights_are_hollow_over_training():
    rows = [made | ({"duplicate_of": "step0"} if made["revision"] == "step1" else {}) for made in checkpoint_rows()]
    figure = memorization_training(frame(rows))
    hollow = lines(figure.axes[0], "demo|against whole|hollow")
    assert hollow[:, 0].tolist() == [1.0] and "duplicate weights" in words(figure)
    assert "duplicate weights" not in words(drawing("checkpoints", TRAINING)[1])


# --- fragility --------------------------------------------------------------------------------------------------------


def test_the_fragility_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("checkpoints", "two series"):
        csv, (left, right) = read_back(name, FRAGILITY, tmp_path)
        for ax, drop in ((left, False), (right, True)):
            own = csv[(csv["quantity"] == "extraction_drop") == drop]
            most = own["high"].max()
            assert -0.3 * most < ax.get_ylim()[0] < min(0, own["low"].min()) and most < ax.get_ylim()[1] < 1.2 * most
            for (model, kind, of), path in own.groupby(["model", "kind", "of"]):
                gid = f"{model}|{kind}|{of}" + ("|drop" if drop else "")
                assert same_points(lines(ax, gid), path[["changed", "value"]])
                assert path["changed"].tolist() == ([] if drop else [0.0]) + [float(k) for k in CHANGED]
                assert bar_ends(ax, f"{gid}|interval") == sorted(path[["low", "high"]].dropna().to_numpy().tolist())


def test_the_unchanged_prompt_is_that_of_the_same_rows():
    whole = fragility_rows(table("checkpoints")).query("changed == 0 and of == 'extraction_score' and kind == 'drop'")
    plain = table("checkpoints").query("quantity == 'extraction_score' and label == '32+32' and revision == 'step512'")
    assert whole["value"].tolist() == plain["value"].tolist() and whole["low"].notna().all()
    some = [
        made | {"n_tokens": 640 if "changed" in made["label"] else 6400, "value": made["value"] + 0.01 * (i % 2)}
        for i, made in enumerate(checkpoint_rows())
    ]
    part = frame(some)
    zero = fragility_rows(part).query("changed == 0 and of == 'extraction_rate'").iloc[0]
    changed = part[part["label"].str.startswith("32+32, 1 of prompt changed")]
    rate = changed.loc[changed["quantity"] == "extraction_rate", "value"].iloc[0]
    drop = changed.loc[changed["label"].str.endswith("full matches"), "value"].iloc[0]
    assert zero["value"] == rate + drop and np.isnan(zero["low"])


def test_fragility_is_of_the_last_checkpoint_that_has_it():
    earlier = [made | {"revision": "step64", "step": 64} for made in checkpoint_rows(steps=(512,), rates=False)]
    last = [made for made in checkpoint_rows() if made["revision"] != "step64"]
    assert set(fragility_rows(frame([*last, *earlier]))["revision"]) == {"step512"}
    assert "demo, step 512: replace" in words(fragility(frame(checkpoint_rows())))


# --- paper_figs -------------------------------------------------------------------------------------------------------


def test_runs_of_several_studies_are_joined_over_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    again = [
        made | {"value": made["value"] + 1e-6} for made in checkpoint_rows() if made["quantity"] == "bits_per_byte"
    ]
    runs = [run_folder(tmp_path / "a", checkpoint_rows()), run_folder(tmp_path / "b", [*plane_rows(), *again])]
    monkeypatch.setattr("sys.argv", ["memorization_over_training.py", *runs, "--out", str(tmp_path / "figures")])
    script("memorization_over_training").main()
    csv = pd.read_csv(tmp_path / "figures" / "memorization_over_training.csv")
    expected = memorization_training_rows(frame([*checkpoint_rows(), *plane_rows()]))
    assert csv["value"].tolist() == expected["value"].tolist() and csv["panel"].nunique() == 5


def test_extraction_by_size_stands_beside_the_published_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_folder(tmp_path / "run", [*checkpoint_rows(), *checkpoint_rows(LONG, speed=0.3)])
    module = script("extraction_models")
    measured = module.measured_rows([run], {"demo": 1.3e6})
    assert measured["parameters"].tolist() == [1.3e6, 162_322_944] and set(measured["revision"]) == {"step512"}
    argv = ["extraction_models.py", run, "--parameters", "demo=1.3e6", "--out", str(tmp_path / "figures")]
    monkeypatch.setattr("sys.argv", argv)
    module.main()
    csv = pd.read_csv(tmp_path / "figures" / "extraction_models.csv")
    assert sorted(csv.loc[csv["kind"] == "published", "rate"]) == sorted(pythia_memorized()["rate"])
    figure = module.draw(pd.concat([measured, module.published_rows()], ignore_index=True))
    (ax,) = figure.axes
    assert same_points(lines(ax, "measured|training text"), 1 * measured[["parameters", "rate"]] * [1, 100])
    texts = drawn_texts(figure)
    assert overlapping(texts) == [] and "Published, not measured here" in words(figure) and "arXiv" in words(figure)
    (line,) = [found for found in ax.lines if found.get_gid() == "published|Pythia"]
    assert line.get_markerfacecolor() == "white" and line.get_linestyle() != "-"
    with pytest.raises(
        KeyError, match="the number of parameters of 'demo' is not known; give it with --parameters demo"
    ):
        module.measured_rows([run], {})
    with pytest.raises(NothingToDraw, match="needs rows of extraction_rate at a checkpoint"):
        module.measured_rows([run_folder(tmp_path / "text", text_rows())], {})


def test_the_loads_of_the_rows_are_those_of_the_table():
    rows = double_descent_rows(table("text"))
    assert sorted(rows["samples"].unique()) == list(SAMPLES)
    assert np.allclose(rows["load"], rows["data_bits"] / rows["capacity_bits"])
    points = membership_rows(table("text")).query("series == 'point'")
    assert points["load"].notna().all() and points["label"].unique()[0] == "loss"
