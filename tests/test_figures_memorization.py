"""Figures of capacity, and which pages a table of memorization has: equal to their CSV, right by hand, legible."""

import importlib.util
import math
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from coding_tables import full_rows
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from memorization_tables import BOUND, capacity_model, capacity_rows, capacity_slope, checkpoint_rows, frame, text_rows
from test_figures import drawn_texts, lines, overlapping, same_points, synthetic_rows

from infocomp.execution.table import RESULTS, rows_to_table
from infocomp.plotting.draw import CAPACITY_FIT, CODING_PAGES, MEMORIZATION_PAGES, PAGES, Page, draw_all, figures_of
from infocomp.plotting.memorization_capacity import capacity_curve, capacity_curve_rows
from infocomp.plotting.memorization_fit import PUBLISHED, capacity_fit, capacity_fit_rows
from infocomp.plotting.memorization_selection import family, memorization_texts, of_memorization, text_of
from infocomp.plotting.memorization_style import bit_text, log_ticks, looks
from infocomp.plotting.selection import NothingToDraw

DATA, OTHER = "random V64 S16", "random V2048 S64"
CURVE = MEMORIZATION_PAGES[0]


@cache
def table(name: str) -> pd.DataFrame:
    """Tables of the shapes a capacity study writes."""
    if name == "saturated":
        return frame(capacity_rows())
    if name == "lower bounds":
        return frame(capacity_rows((32, 64, 128, 256), 2048, 64, more=" bf16 mixed", layers=2, gain=0.031))
    if name == "sixteen models":
        rows = [row for layers in (1, 2, 4, 8) for row in capacity_rows((32, 64, 128, 256), layers=layers)]
        rows = [row for row in rows if row["quantity"] != "capacity_slope"]
        return frame([*rows, *capacity_slope(rows, "gpt2", DATA)])
    assert name == "two kinds of data"
    return frame([*capacity_rows(), *capacity_rows((16, 24), 512, 16, gain=0.004, more=" bf16 mixed")])


SHAPES = ("saturated", "lower bounds", "sixteen models", "two kinds of data")


@cache
def drawings(name: str) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """Rows and figure of both pages, the curve of the table's first kind of data."""
    curve = capacity_curve_rows(table(name), memorization_texts(table(name))[0])
    fit = capacity_fit_rows(table(name))
    return {CURVE.name: (curve, CURVE.draw(curve)), CAPACITY_FIT.name: (fit, CAPACITY_FIT.draw(fit))}


def read_back(name: str, page: str, folder: Path) -> tuple[pd.DataFrame, list[Axes]]:
    rows, figure = drawings(name)[page]
    rows.to_csv(folder / f"{page}.csv", index=False)
    return pd.read_csv(folder / f"{page}.csv", keep_default_na=False, na_values=[""]), figure.axes


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.split()) for text, _ in drawn_texts(figure))


def bar_ends(ax: Axes, gid: str) -> list[list[float]]:
    """The lower and upper end of each upright bar of that name, sorted."""
    bars = [found for found in ax.collections if found.get_gid() == gid and isinstance(found, LineCollection)]
    return sorted(np.array([bar.get_segments() for bar in bars]).reshape(-1, 2, 2)[:, :, 1].tolist())


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_texts_of_a_capacity_figure_overlap_and_none_leaves_the_page(name: str):
    for page, (_, figure) in drawings(name).items():
        texts = drawn_texts(figure)
        assert len(texts) > 10 and overlapping(texts) == [], page
        box = figure.bbox.padded(0.5)
        assert [text for text, own in texts if not (box.contains(*own.min) and box.contains(*own.max))] == [], page


# --- memorized bits against data bits ---------------------------------------------------------------------------------


def test_the_capacity_curve_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in SHAPES:
        csv, (left, right) = read_back(name, CURVE.name, tmp_path)
        assert left.get_xscale() == left.get_yscale() == "log" and right.get_xscale() == right.get_yscale() == "linear"
        for model, own in csv.groupby("model"):
            for series in ("run", "twice the steps"):
                points = own[own["series"] == series]
                assert same_points(lines(left, f"{model}|{series}"), points[["data_bits", "value"]]), (name, model)
                scaled = points[["data_bits", "value"]].div(points["parameters"], axis=0)
                assert same_points(lines(right, f"{model}|{series}"), scaled), (name, model)
            first = own[(own["series"] == "run") & (own["seed"] == 0)]
            assert same_points(lines(left, f"{model}|first seed"), first[["data_bits", "value"]])
        ceilings = csv[csv["ceiling"].notna()].drop_duplicates("data_bits")
        assert same_points(lines(left, "ceiling"), ceilings[["data_bits", "ceiling"]])


def test_every_run_and_the_ceiling_are_rows_of_the_table():
    rows, _ = drawings("saturated")[CURVE.name]
    bits = table("saturated").query("quantity == 'memorized_bits'")
    assert len(rows) == len(bits) and sorted(rows["value"]) == sorted(bits["value"])
    for _, run in rows[rows["series"] != "plateau"].iterrows():
        n = run["sequences"]
        assert run["ceiling"] == pytest.approx(n * (16 * 6 - math.log2(n)))
    assert rows["parameters"].drop_duplicates().tolist() == [4608, 9216, 15360]


def test_a_plateau_is_a_line_with_its_interval_from_the_first_run_that_could_fill_it():
    rows, figure = drawings("saturated")[CURVE.name]
    for ax, scale in zip(figure.axes, (False, True), strict=True):
        for model, own in rows.groupby("model"):
            full = own[own["series"] == "plateau"].iloc[0]
            by = full["parameters"] if scale else 1
            line = lines(ax, f"{model}|plateau")
            assert np.allclose(line[:, 1], full["value"] / by) and full["interval"] == "95 % interval"
            start = own.loc[(own["series"] == "run") & (own["ceiling"] > full["value"]), "data_bits"].min()
            assert line[0, 0] == pytest.approx(start / by)
            (band,) = [found for found in ax.collections if found.get_gid() == f"{model}|plateau|interval"]
            heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
            assert (heights.min(), heights.max()) == pytest.approx((full["low"] / by, full["high"] / by))
    assert "gpt2 1x24, 9,216 parameters: 2.41 bits each (twice the steps: +1.3 %)" in words(figure)


def test_what_is_a_lower_bound_has_an_arrow_and_what_is_saturated_has_none():
    rows, figure = drawings("lower bounds")[CURVE.name]
    for model, own in rows.groupby("model"):
        bounds = own[(own["series"] == "run") & own["message"].str.startswith(BOUND)]
        assert same_points(lines(figure.axes[0], f"{model}|run|lower bound"), bounds[["data_bits", "value"]])
        assert len(bounds) == 9 and own.loc[own["series"] == "plateau", "lower_bound"].all()
    assert "≥ 2.89 bits each (twice the steps: +3.1 %)" in words(figure) and BOUND in words(figure)
    rows, figure = drawings("saturated")[CURVE.name]
    assert rows["message"].str.startswith(BOUND).any() and not rows["lower_bound"].any()
    assert "lower bound" not in words(figure) and "≥" not in words(figure)
    assert not [line for line in figure.axes[0].lines if str(line.get_gid()).endswith("lower bound")]


def test_a_run_short_of_its_ceiling_stays_a_lower_bound_where_it_is_not_of_the_plateau():
    rows = [made for made in capacity_rows() if made["quantity"] == "memorized_bits"]
    early = next(made for made in rows if made["corpus"].endswith(" N96") and made["model"] == "gpt2 1x24")
    rows[rows.index(early)] = early | {"value": 0.9 * early["value"], "message": f"{BOUND}: not tried"}
    found = capacity_curve_rows(frame(rows))
    assert found.loc[found["lower_bound"], "sequences"].tolist() == [96]


def test_a_curve_without_a_plateau_or_twice_the_steps_is_drawn_plainly():
    runs = table("saturated").query("quantity == 'memorized_bits' and label == ''")
    figure = capacity_curve(runs)
    assert "plateau" not in words(figure) and "twice" not in words(figure) and len(figure.axes) == 2


def test_more_than_six_models_have_colours_of_their_own():
    many = [str(look["color"]) for look in looks([str(name) for name in range(16)]).values()]
    rows, figure = drawings("sixteen models")[CURVE.name]
    assert "gpt2 8x256, 6.34M: 2.31 (+1.3 %)" in words(figure) and rows["model"].nunique() == 16
    assert "model, parameters: bits each (twice the steps: gain)" in words(figure)
    assert len(set(many)) == 16 and len({str(look["color"]) for look in looks(list("abcdef")).values()}) == 6


# --- bits against parameters ------------------------------------------------------------------------------------------


def test_the_fit_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in SHAPES:
        csv, axes = read_back(name, CAPACITY_FIT.name, tmp_path)
        for ax, label in zip(axes, ("all parameters", "outside the embedding"), strict=True):
            own = csv[(csv["label"] == label) & (csv["series"] == "model")]
            for (text, models), group in own.groupby(["text", "family"]):
                assert same_points(lines(ax, f"{text}|{models}"), group[["parameters", "value"]])
                assert bar_ends(ax, f"{text}|{models}|interval") == sorted(group[["low", "high"]].to_numpy().tolist())
                fit = csv.query("series == 'fit' and label == @label and text == @text and model == @models").iloc[0]
                line = lines(ax, f"{text}|{models}|fit")
                assert np.allclose(line[:, 1], fit["slope"] * line[:, 0] + fit["intercept"]) and len(line) > 100


def test_the_ribbon_turns_the_line_about_the_mean_size_by_the_interval_of_the_slope():
    rows, figure = drawings("saturated")[CAPACITY_FIT.name]
    fit = rows.query("series == 'fit' and label == 'all parameters'").iloc[0]
    assert (fit["slope"], fit["slope_low"], fit["slope_high"]) == pytest.approx((2.31, 2.19, 2.43))
    ribbons = [found for found in figure.axes[0].collections if str(found.get_gid()).endswith("fit|interval")]
    points = np.asarray(ribbons[0].get_paths()[0].vertices)
    end = points[points[:, 0] == points[:, 0].max()]
    middle, most = (4608 + 9216 + 15360) / 3, points[:, 0].max()
    assert end[:, 1].max() - end[:, 1].min() == pytest.approx(0.24 * (most - middle))
    assert "gpt2; slope, all parameters: 2.31 [2.19, 2.43]" in words(figure)


def test_published_slopes_are_dotted_from_the_origin_named_and_sourced():
    rows, figure = drawings("saturated")[CAPACITY_FIT.name]
    left, right = figure.axes
    assert {line.value for line in PUBLISHED} == {3.83, 3.64, 2.16, 2.0}
    for line in PUBLISHED:
        (drawn,) = [found for found in left.lines if found.get_gid() == f"published|{line.name}"]
        x, y = lines(left, f"published|{line.name}").T
        assert np.allclose(y / x, line.value) and y[-1] <= left.get_ylim()[1] and drawn.get_linestyle() != "-"
        assert line.name in words(figure) and line.source in words(figure) and f"{line.value:g}" in words(figure)
    assert "Published, not measured here" in words(figure)
    assert not [found for found in right.lines if str(found.get_gid()).startswith("published")]
    assert set(rows.loc[rows["series"] == "published", "source"]) == {line.source for line in PUBLISHED}
    heights = [text.get_position()[1] for text in left.texts]
    assert heights == sorted(heights, reverse=True) and len(heights) == 4


def test_sizes_of_several_powers_of_ten_have_logarithmic_axes():
    assert drawings("saturated")[CAPACITY_FIT.name][1].axes[0].get_xscale() == "linear"
    assert drawings("lower bounds")[CAPACITY_FIT.name][1].axes[0].get_xscale() == "log"


def test_plateaus_that_are_lower_bounds_have_arrows_in_the_fit():
    rows, figure = drawings("lower bounds")[CAPACITY_FIT.name]
    models = rows.query("series == 'model' and label == 'all parameters'")
    assert models["lower_bound"].all()
    found = lines(figure.axes[0], f"{OTHER}|gpt2 bf16 mixed|lower bound")
    assert same_points(found, models[["parameters", "value"]])
    assert not drawings("saturated")[CAPACITY_FIT.name][0].query("series == 'model'")["lower_bound"].any()


def test_models_without_a_slope_are_points_without_a_line():
    plain = table("saturated")[table("saturated")["quantity"] != "capacity_slope"]
    figure = capacity_fit(plain)
    assert not [line for line in figure.axes[0].lines if str(line.get_gid()).endswith("|fit")]
    assert "slope, all" not in words(figure)


# --- names and numbers ------------------------------------------------------------------------------------------------


def test_names_of_data_and_families_are_read_as_they_are_written():
    assert text_of("random V64 S16 N512") == "random V64 S16" and text_of("stdlib N64") == "stdlib"
    assert text_of("War and Peace") == "War and Peace"
    names = {"gpt2 1x24": "gpt2", "gpt2 8x256 bf16 mixed": "gpt2 bf16 mixed", "gpt_neox 2x32": "gpt_neox"}
    assert {name: family(name) for name in names} == names


def test_bits_are_written_in_decimal_units():
    sizes = {0: "0 bits", 512: "512 bits", 999.7: "1 kbit", 22_148: "22.1 kbit", -2000: "−2 kbit", 3.5e6: "3.5 Mbit"}
    assert {size: bit_text(size) for size in sizes} == sizes


def test_ticks_of_a_logarithmic_axis_are_round_and_few():
    assert log_ticks(900, 2e5) == [1000, 3000, 10_000, 30_000, 100_000]
    assert log_ticks(900, 30_000) == [1000, 2000, 5000, 10_000, 20_000]
    assert log_ticks(1, 1e12) == [1, 1e3, 1e6, 1e9, 1e12]
    assert log_ticks(0.9, 2.2) == [1, 1.5, 2] and log_ticks(4.1, 4.4) == [4.1, 4.4]


# --- which pages a table has ------------------------------------------------------------------------------------------


def names_of(found: pd.DataFrame) -> list[str]:
    return [name for name, _, _ in figures_of(found, pytest.fail)]


def test_a_table_of_one_study_of_memorization_has_its_pages_and_not_a_word_about_others():
    assert names_of(table("saturated")) == ["capacity_curve", "capacity_fit"]
    slugs = ["capacity_curve-random-V64-S16", "capacity_curve-random-V512-S16"]
    assert names_of(table("two kinds of data")) == [*slugs, "capacity_fit"]
    assert names_of(frame(text_rows())) == ["double_descent", "membership"]
    assert names_of(frame(checkpoint_rows())) == ["memorization_training", "fragility"]
    assert names_of(frame(capacity_model(24))) == ["capacity_curve"]


def test_a_table_of_all_studies_of_memorization_has_all_their_pages():
    rows = [*capacity_rows(), *text_rows(), *checkpoint_rows()]
    assert names_of(frame(rows)) == [page.name for page in (*MEMORIZATION_PAGES, CAPACITY_FIT)]


def test_memorization_rows_change_nothing_in_the_figures_of_the_plane_and_without_them_it_is_silent():
    plane = list(synthetic_rows(1, 2, 1, duplicates=(), labels=("token",)))
    assert not of_memorization(frame(plane)).any()
    added = [*capacity_rows((16, 24)), *checkpoint_rows(members="book", unseen="never read", steps=(0, 512))]
    expected = {name: rows for name, _, rows in figures_of(frame(plane), pytest.fail)}
    found = {name: rows for name, _, rows in figures_of(frame([*plane, *added]), pytest.fail)}
    extra = {"capacity_curve", "capacity_fit", "memorization_training", "fragility"}
    assert set(expected) == {page.name for page in PAGES} and set(found) == set(expected) | extra
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows)


def test_memorization_rows_beside_coding_rows_make_no_coding_figure_of_their_own():
    coding = list(full_rows())
    added = checkpoint_rows(members="book", unseen="alice29.txt", model="other", rates=False)
    expected = {name: rows for name, _, rows in figures_of(frame(coding), pytest.fail)}
    found = {name: rows for name, _, rows in figures_of(frame([*coding, *added]), pytest.fail)}
    assert {page.name for page in CODING_PAGES} < set(expected)
    assert set(found) == set(expected) | {"memorization_training", "fragility"}
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows)


WITHOUT = {
    "capacity_curve": "a capacity curve needs memorized_bits at two sizes of random data, each with its data_bits",
    "capacity_fit": "bits against parameters need the memorized_bits of two models under the label 'plateau'",
    "double_descent": "double descent needs bits_per_token of train or test samples at two loads of a text",
    "membership": "membership needs membership_auc or membership_f1 at two loads of a text",
    "memorization_training": "memorization over training needs memorized_bits or an extraction rate at two checkpoints "
    "with a step",
    "fragility": "fragility needs extraction rows with the number of changed prompt tokens in their settings",
}


@pytest.mark.parametrize("page", [*MEMORIZATION_PAGES, CAPACITY_FIT], ids=lambda page: page.name)
def test_what_a_memorization_figure_lacks_is_one_sentence(page: Page):
    one = [made for made in checkpoint_rows(steps=(512,), kinds=()) if made["quantity"] != "bits_per_byte"]
    with pytest.raises(NothingToDraw) as reason:
        page.rows(frame(one))
    assert str(reason.value) == WITHOUT[page.name]
    with pytest.raises(NothingToDraw, match=r"the table lacks the columns model, .*settings.*; figures need"):
        page.rows(pd.DataFrame({"estimator": ["code_length"]}))
    with pytest.raises(NothingToDraw, match="the table holds no row of a study of memorization"):
        page.rows(table("saturated").iloc[:0])


def test_a_figure_of_several_texts_asks_for_one():
    with pytest.raises(NothingToDraw, match=r"2 kinds of random data \(random V64 S16, random V512 S16\); name one"):
        capacity_curve_rows(table("two kinds of data"))
    others = [*text_rows(text="fiction")[:-1], *checkpoint_rows(members="book", rates=False)]
    both = frame([*text_rows(), *others, *checkpoint_rows()])
    for page in MEMORIZATION_PAGES[1:]:
        with pytest.raises(NothingToDraw, match=r"the table holds 2 texts \(.*\); name one with corpus=…"):
            page.rows(both)


def test_rows_that_failed_or_are_of_another_draw_change_nothing():
    whole = frame([*capacity_rows((16, 24)), *text_rows(), *checkpoint_rows(steps=(0, 512))])
    others = [
        whole.assign(draw="0", value=9.0),
        whole.assign(weighting="uniform", value=9.0),
        whole.assign(status="failed", value=np.nan, message="diverged", revision="step9999"),
        whole.assign(status="undetermined", value=9.0, revision="step9999"),
    ]
    mixed = pd.concat([whole, *others], ignore_index=True)
    of_text = [made.assign(seed=pd.array([3] * len(made), dtype="Int64")) for made in (whole[whole["seed"].notna()],)]
    other_seed = pd.concat([whole, *(made[~made["corpus"].str.startswith("random")] for made in of_text)])
    for page in (*MEMORIZATION_PAGES, CAPACITY_FIT):
        pd.testing.assert_frame_equal(page.rows(mixed), page.rows(whole))
        pd.testing.assert_frame_equal(page.rows(other_seed), page.rows(whole))


def test_a_memorization_figure_drawn_twice_gives_the_same_bytes_with_every_font_embedded(tmp_path: Path):
    plateaus = table("saturated")[table("saturated")["label"].isin(["plateau", "all parameters"])]
    plateaus = pd.concat([plateaus, table("saturated").query("quantity == 'memorized_bits'").iloc[[0]]])
    written = draw_all(plateaus, tmp_path / "one", pytest.fail)
    draw_all(plateaus, tmp_path / "two", pytest.fail)
    assert [path.name for path in written] == [f"capacity_fit.{kind}" for kind in ("pdf", "png", "csv")]
    for path in written:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
        if path.suffix == ".pdf":
            pdf = path.read_bytes()
            assert b"CreationDate" not in pdf and b"/Type3" not in pdf
            assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0


# --- paper_figs/capacity.py -------------------------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "paper_figs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_folder(folder: Path, rows: list[dict]) -> str:
    folder.mkdir()
    pq.write_table(rows_to_table(rows), folder / RESULTS)
    return str(folder)


def test_the_capacity_script_joins_runs_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [run_folder(tmp_path / "a", capacity_rows((16, 24))), run_folder(tmp_path / "b", text_rows())]
    monkeypatch.setattr("sys.argv", ["capacity.py", *runs, "--out", str(tmp_path / "figures")])
    script("capacity").main()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("capacity_curve", "capacity_fit") for kind in ("pdf", "png", "csv")}
    monkeypatch.setattr("sys.argv", ["capacity.py", runs[1], "--out", str(tmp_path / "none")])
    with pytest.raises(NothingToDraw, match="need the memorized_bits of two models under the label 'plateau'"):
        script("capacity").main()
