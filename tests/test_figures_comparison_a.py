"""Plane, preference and spectra of a comparison: equal to their CSV, right by hand, legible, silent where rows lack."""

from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from comparison_tables import (
    BASE,
    CONTROL,
    RANKS,
    SIZES,
    Maker,
    frame,
    full_rows,
    models,
    plane_rows,
    preference_rows,
    spectra_rows,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.quiver import Quiver
from matplotlib.transforms import Bbox
from test_figures import drawn_texts, lines, overlapping, same_points, synthetic_rows

from infocomp.plotting import style
from infocomp.plotting.comparison_plane import comparison_plane, comparison_plane_rows
from infocomp.plotting.comparison_preference import comparison_preference, comparison_preference_rows, null_band
from infocomp.plotting.comparison_selection import (
    comparison_rows,
    comparison_texts,
    evenly,
    few,
    of_comparison,
    short_endings,
    site_place,
)
from infocomp.plotting.comparison_spectra import comparison_spectra, comparison_spectra_rows
from infocomp.plotting.comparison_style import COLOURS, look_of
from infocomp.plotting.draw import COMPARISON_PAGES, PAGES, Page, figures_of
from infocomp.plotting.selection import NothingToDraw

OWN = {page.name: page for page in COMPARISON_PAGES[:3]}
PLANE, PREFERENCE, SPECTRA = OWN
FAIR, UNFAIR = "preferences", "gemma vs gpt4"
MANY = tuple(f"allenai/Olmo-3-7B-Instruct-{end}" for end in ("SFT", "DPO", *(f"RLVR-step{n}00" for n in (2, 4, 6, 8))))
DRAWN = {"raw": (PLANE, SPECTRA), FAIR: (PREFERENCE,), UNFAIR: (PREFERENCE,)}


@cache
def table(name: str) -> pd.DataFrame:
    """Tables of the shapes a comparison writes."""
    if name == "small":
        return frame(full_rows())
    if name == "two models":
        return frame([made for make in models(2, ("sft",), False) for made in plane_rows(make)])
    assert name == "deep"
    rows = [made for make in models(32, MANY, base="allenai/Olmo-3-1025-7B") for made in few_rows(make)]
    return frame(rows)


def few_rows(make: Maker) -> list[dict]:
    """Rows enough for the narrowest panels of each kind."""
    plane = [made for made in plane_rows(make) if made["label"] in ("token", "bigram")]
    preferred = [made for made in preference_rows(make) if made["label"] != "over random weights"]
    return [*plane, *preferred]


def drawing(page: str, corpus: str = "raw", name: str = "small") -> tuple[pd.DataFrame, Figure]:
    return drawn_once(page, corpus, name)


@cache
def drawn_once(page: str, corpus: str, name: str) -> tuple[pd.DataFrame, Figure]:
    rows = OWN[page].rows(table(name), corpus)
    if corpus == FAIR and name == "small":
        rows = rows[~rows["series"].str.contains("over|excess")]  # the other data set has all panels
    return rows, OWN[page].draw(rows)


@cache
def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    return drawn_texts(figure)


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.split()) for text, _ in texts(figure))


def segments(ax, gid: str) -> list[list[float]]:
    """The ends of every bar of that name, sorted."""
    bars = [found for found in ax.collections if found.get_gid() == gid and isinstance(found, LineCollection)]
    return sorted(np.asarray(segment).reshape(4).tolist() for bar in bars for segment in bar.get_segments())


@pytest.mark.parametrize("name", ["small", "deep"])
def test_no_two_texts_of_a_comparison_overlap_and_none_leaves_the_page(name: str):
    for corpus, pages in DRAWN.items():
        for page in pages:
            if name == "deep" and (corpus == UNFAIR or page == SPECTRA):
                continue
            figure = drawing(page, corpus, name)[1]
            found = texts(figure)
            assert len(found) > 20 and overlapping(found) == [], page
            box = figure.bbox.padded(0.5)
            assert [text for text, own in found if not (box.contains(*own.min) and box.contains(*own.max))] == [], page
            assert all(ax.get_xlabel() or ax.get_xticklabels() for ax in figure.axes)


# --- the plane --------------------------------------------------------------------------------------------------------


def arrows(figure: Figure, who: str) -> pd.DataFrame:
    (found,) = [drawn for drawn in figure.axes[0].collections if drawn.get_gid() == f"{who}|arrows"]
    assert isinstance(found, Quiver) and found.angles == found.scale_units == "xy" and found.scale == 1.0
    start = np.asarray(found.get_offsets())
    ends = start + np.c_[np.asarray(found.U), np.asarray(found.V)]
    return pd.DataFrame(np.hstack([start, ends]), columns=["x_from", "y_from", "x", "y"])


def test_the_plane_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    rows, figure = drawing(PLANE)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    csv = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False, na_values=[""])
    ax = figure.axes[0]
    plane, moves = csv[csv["series"] == "point"], csv[csv["series"] == "move"]
    assert list(plane["who"].unique()) == [BASE, "sft", "dpo", CONTROL]
    for who, own in plane.groupby("who"):
        assert same_points(lines(ax, str(who)), own[["x", "y"]]) and len(own) == 6
        assert segments(ax, f"{who}|interval x") == sorted(own[["x_low", "y", "x_high", "y"]].to_numpy().tolist())
        assert segments(ax, f"{who}|interval y") == sorted(own[["x", "y_low", "x", "y_high"]].to_numpy().tolist())
    for place, label in enumerate(("token", "bigram", "trigram", "quadgram"), start=1):
        for who, own in moves[moves["label"] == label].groupby("who"):
            drawn = [lines(figure.axes[place], f"{who}|{name}") for name in ("changed", "unchanged")]
            assert same_points(np.vstack(drawn), own[["x", "y"]]) and len(own) == 6
            assert len(drawn[0]) == own["changed"].sum()
            bars = segments(figure.axes[place], f"{who}|interval y")
            assert bars == sorted(own[["x", "y_low", "x", "y_high"]].to_numpy().tolist())
    assert set(moves["who"]) == {"sft", "dpo"}
    beyond = moves[["x", "y"]].abs().max(axis=1) > 0.008  # either number changed, by the rule of the made table
    assert moves["changed"].astype(bool).equals(beyond) and 0 < beyond.sum() < len(moves)


def test_an_arrow_goes_from_the_site_of_the_base_to_the_same_site_of_a_tuned_model():
    rows, figure = drawing(PLANE)
    plane = rows[rows["series"] == "point"].set_index(["who", "site"])
    for who in ("sft", "dpo"):
        found = arrows(figure, who)
        for (_, arrow), site in zip(found.iterrows(), plane.loc[who].index, strict=True):
            assert arrow[["x", "y"]].tolist() == pytest.approx([plane["x"][who, site], plane["y"][who, site]])
            assert arrow[["x_from", "y_from"]].tolist() == pytest.approx(
                [plane["x"][BASE, site], plane["y"][BASE, site]]
            )
    assert not [drawn for drawn in figure.axes[0].collections if str(drawn.get_gid()).startswith(f"{CONTROL}|arrows")]


def test_a_site_that_the_base_lacks_has_no_arrow_and_unequal_depths_are_said():
    shallow, deep = Maker(BASE, "base", 0, 4), Maker("dpo", "tuned", 1, 6, 1.0)
    rows = comparison_plane_rows(frame([*plane_rows(shallow), *plane_rows(deep, differences=False)]))
    figure = OWN[PLANE].draw(rows)
    tuned = rows[rows["role"] == "tuned"]
    assert tuned.loc[tuned["x_from"].isna(), "name"].tolist() == ["L4", "L5"] and len(arrows(figure, "dpo")) == 6
    assert "Numbers of blocks differ (demo 4, dpo 6)" in words(figure)
    assert "Numbers of blocks" not in words(drawing(PLANE)[1])
    assert len(figure.axes) == 1, "without rows of differences there is no panel of moves"


def test_null_and_controls_outside_the_view_are_said_and_inside_it_drawn():
    said = words(drawing(PLANE)[1])
    assert "Outside the view lies the null of unrelated labels (I(X; J) 0.05, I(Y; J) 0.04 bits)." in said
    assert "Outside the view: random weights (I(X; J) 0.15, I(Y; J) 0.1 bits)." in said
    assert "control: random weights" not in said, "no entry of the legend for what is not seen"
    rows = drawing(PLANE)[0].assign(x_null=0.6, y_null=0.4)
    figure = OWN[PLANE].draw(rows)
    assert "null: unrelated labels (base)" in words(figure) and "lies the null" not in words(figure)
    assert set(lines(figure.axes[0], "null")[:, 0]) == {0.6}


def test_of_many_blocks_and_models_a_few_are_drawn_and_the_rest_is_counted():
    rows, figure = drawing(PLANE, "raw", "deep")
    assert rows.loc[rows["kind"] == "block", "depth"].nunique() == 8 and {0.0, 31.0} < set(rows["depth"])
    assert rows.loc[rows["role"] == "tuned", "who"].nunique() == 5
    assert "Drawn are 8 of 32 blocks. Drawn are 5 of 6 tuned models; the table holds all." in words(figure)
    assert "of 4 blocks" not in words(drawing(PLANE)[1]) and "tuned models" not in words(drawing(PLANE)[1])


# --- preference -------------------------------------------------------------------------------------------------------


def test_the_preference_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    rows, figure = drawing(PREFERENCE, UNFAIR)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    csv = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False, na_values=[""])
    panels = ("information", "over hook_embed", "over random weights", "accuracy")
    panels += ("probe over bag of tokens", "probe over random weights")
    for ax, series in zip(figure.axes, panels, strict=True):
        own = csv[csv["series"] == series]
        for who, path in own.groupby("who"):
            assert same_points(lines(ax, str(who)), path[["x", "value"]]), (series, who)
            assert segments(ax, f"{who}|interval") == sorted(path[["x", "low", "x", "high"]].to_numpy().tolist())
        assert list(own["who"].unique())[:3] == [BASE, "sft", "dpo"]
    assert set(csv.loc[csv["series"] != "baseline", "rows"]) == {"matched"}, "rows of all positions are not mixed in"
    assert csv.loc[csv["series"] == "over hook_embed", "site"].nunique() == 5, "no excess of the embedding over itself"


def test_the_null_is_shaded_up_to_the_largest_upper_end_of_the_models():
    rows, figure = drawing(PREFERENCE, FAIR)
    own = rows[rows["series"] == "information"].copy()
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_gid() == "null"]
    assert {bar.get_height() for bar in bars} == {0.009} and len(bars) == 6
    own.loc[own["who"] == "dpo", "null_high"] = 0.03
    own.loc[own["who"] == "sft", ["null_high", "null"]] = [np.nan, 0.02]
    assert set(null_band(own)) == {0.03} and set(null_band(own[own["who"] == "sft"])) == {0.02}
    assert "null: labels flipped within pairs" in words(figure)


def test_a_ceiling_in_view_is_drawn_and_one_far_above_is_said():
    said = words(drawing(PREFERENCE, FAIR)[1])
    assert not len(lines(drawing(PREFERENCE, FAIR)[1].axes[0], "ceiling"))
    assert "The ceiling of a binary label lies above the view (0.6 bits)." in said
    rows = [made for make in models() for made in preference_rows(make, ceiling=0.1)]
    figure = comparison_preference(frame([made for made in rows if made["quantity"] == "preference_information"]))
    assert len(figure.axes) == 1 and set(lines(figure.axes[0], "ceiling")[:, 1]) == {0.1}
    assert "above the view" not in words(figure) and figure.axes[0].get_ylim()[1] >= 0.1


def test_the_confound_is_seen_a_shade_to_the_best_baseline_lines_with_names_and_a_word():
    rows, figure = drawing(PREFERENCE, UNFAIR)
    probe = figure.axes[3]
    for site, value in (("control.bag_of_tokens", 0.93), ("control.length", 0.88), ("control.author", 0.97)):
        assert set(lines(probe, site)[:, 1]) == {value}
        (bar,) = segments(probe, f"{site}|interval")
        assert (bar[1], bar[3]) == pytest.approx((value - 0.025, value + 0.025))
    (shade,) = [found for found in probe.collections if found.get_gid() == "explained"]
    heights = np.asarray(shade.get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (0.5, 0.97)
    said = words(figure)
    assert "CONFOUNDED: author and length alone tell chosen from rejected beyond chance" in said
    assert "the longer text is chosen in 87 % of pairs; one author's text is chosen in 97 %" in said
    assert "author alone: 0.97 [0.94, 0.99]" in said and "chance: 0.5" in said
    assert probe.get_title() == "linear probe: author and length alone already tell"
    every = [made for make in (Maker(BASE, "base", 0), Maker("dpo", "base", 1)) for made in preference_rows(make)]
    again = comparison_preference_rows(frame(every))
    assert len(rows[rows["series"] == "baseline"]) == 3 == len(again[again["series"] == "baseline"]), "not by model"


def test_where_length_and_author_tell_nothing_that_is_said():
    figure = drawing(PREFERENCE, FAIR)[1]
    assert "Length and author alone tell nothing beyond chance (the longer text is chosen in 49 %" in words(figure)
    assert "CONFOUNDED" not in words(figure) and "by prompt" in figure.axes[1].get_title()


def test_rows_of_all_positions_are_drawn_where_none_are_matched():
    rows = [made for made in preference_rows(Maker(BASE, "base", 0)) if made["rows"] == "all"]
    found = comparison_preference_rows(frame(rows))
    assert set(found["rows"]) == {"all"} and len(found) == 6


# --- spectra ----------------------------------------------------------------------------------------------------------


def test_the_spectra_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    rows, figure = drawing(SPECTRA)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    csv = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False, na_values=[""])
    named = {ax.get_title(): ax for ax in figure.axes}
    for site, name in (
        ("hook_embed", "embed"),
        ("blocks.2.hook_resid_post", "L2"),
        ("ln_final.hook_normalized", "norm"),
    ):
        for series, title, count in (("spectrum", name, len(RANKS)), ("growth", f"{name}: growth with the rows", 5)):
            own, ax = csv[(csv["series"] == series) & (csv["site"] == site)], named[title]
            for who, path in own.groupby("who"):
                assert same_points(lines(ax, str(who)), path[["x", "value"]]) and len(path) == count
            assert ax.get_yscale() == ax.get_xscale() == "log" and own["who"].nunique() == 4
    numbers = csv[csv["series"] == "number"]
    for title, quantity in (("RankMe, singular values", "rankme"), ("α-ReQ, slope of the spectrum", "alpha_req")):
        for who, path in numbers[numbers["quantity"] == quantity].groupby("who"):
            assert same_points(lines(named[title], str(who)), path[["x", "value"]]) and len(path) == 6
            bars = segments(named[title], f"{who}|interval")
            assert bars == sorted(path[["x", "low", "x", "high"]].to_numpy().tolist())
    assert set(numbers["rows"]) == {"sample"} and set(csv.loc[csv["series"] == "growth", "x"]) == set(SIZES)


def test_the_fitted_ranks_are_those_of_the_table_and_a_poor_fit_is_hollow():
    rows, figure = drawing(SPECTRA)
    (span,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "fitted ranks"]
    assert (span.get_extents().x0, span.get_extents().x1) != (0, 0)
    corners = figure.axes[0].transData.inverted().transform(span.get_extents())[:, 0]
    assert corners == pytest.approx([12, 100]) and "ranks 12 to 100: fitted for α" in words(figure)
    slopes = next(ax for ax in figure.axes if ax.get_title().startswith("α-ReQ"))
    poor = rows[(rows["quantity"] == "alpha_req") & (rows["name"] == "norm")]
    assert same_points(lines(slopes, "dpo|hollow"), poor.loc[poor["who"] == "dpo", ["x", "value"]])
    assert "hollow: r² of the fit below 0.9" in words(figure) and rows["hollow"].astype(float).sum() == 4


def test_all_rows_stand_in_where_there_is_no_common_sample_and_that_is_said():
    rows = [made for make in models() for made in spectra_rows(make) if made["rows"] == "all"]
    rows = [made for made in rows if made["quantity"] in ("eigenvalue", "rankme", "alpha_req")]
    figure = comparison_spectra(frame(rows))
    assert "of all measured rows (n = 100,000)" in words(figure) and "interval" not in words(figure)
    assert len(figure.axes) == 3 + 2, "no growth and no anisotropy, no panel for them"
    assert "the rows that all models share (n = 4,096)" in words(drawing(SPECTRA)[1])


# --- selection and looks ----------------------------------------------------------------------------------------------


def test_a_model_looks_the_same_on_every_page_and_never_like_a_ceiling():
    seen = {}
    for page, corpus in ((PLANE, "raw"), (PREFERENCE, FAIR), (SPECTRA, "raw")):
        figure = drawing(page, corpus)[1]
        for line in (line for ax in figure.axes for line in ax.lines if line.get_gid() in (BASE, "sft", "dpo")):
            seen.setdefault(line.get_gid(), set()).add(to_hex(line.get_color()))
    assert seen == {BASE: {to_hex(style.INK)}, "sft": {COLOURS[0]}, "dpo": {COLOURS[1]}}
    assert style.CEILING not in COLOURS and len(set(COLOURS)) == 5
    looks = look_of(few(comparison_rows(table("deep"), "complexity")).query("role == 'tuned'"))
    assert len({look["marker"] for look in looks.values()}) == 5 == len({look["color"] for look in looks.values()})


def test_tuned_models_stand_in_the_order_of_their_places_whatever_the_order_of_the_table():
    shuffled = table("small").sample(frac=1.0, random_state=0)
    found = comparison_rows(shuffled, "rankme", corpus="raw")
    assert list(found["who"].unique()) == [BASE, "sft", "dpo", CONTROL]
    assert list(found.loc[found["rows"] == "sample", "name"][:6]) == ["embed", "L0", "L1", "L2", "L3", "norm"]


def test_of_several_checkpoints_of_one_model_the_last_is_always_drawn():
    made = []
    for place, step in enumerate((1, 10, 100, 200, 300, 400, 512), start=1):
        make = Maker("dpo", "tuned", place)
        make.revision = f"step{step}"
        made += plane_rows(make)
    rows = comparison_rows(frame([*plane_rows(Maker(BASE, "base", 0)), *made]), "complexity")
    kept = few(rows, 3)
    assert list(kept["who"].unique()) == [BASE, "dpo step1", "dpo step400", "dpo step512"]
    assert set(kept["of_tuned"]) == {7} and len(few(rows, 9)["who"].unique()) == 8
    assert evenly(7, 3) == [0, 3, 6] and evenly(5, 1) == [4] and evenly(0, 3) == [] and evenly(2, 5) == [0, 1]


def test_long_names_keep_the_end_that_tells_them_apart():
    assert short_endings(["runs/base", "hub/org/sft"]) == {"runs/base": "base", "hub/org/sft": "sft"}
    found = short_endings(list(MANY))
    assert found[MANY[0]] == "Olmo-3-7B-Instruct-SFT" and found[MANY[2]] == "…mo-3-7B-Instruct-RLVR-step200"
    assert short_endings(["a/one", "b/one"]) == {"a/one": "a/one", "b/one": "b/one"}


def test_long_names_are_cut_at_their_beginning():
    (name,) = short_endings(["x" * 20 + "-" + "y" * 20]).values()
    assert name == "…" + "x" * 8 + "-" + "y" * 20 and len(name) == 30


def test_sites_have_their_kind_depth_and_name():
    assert site_place("blocks.12.hook_resid_post") == ("block", 12.0, "L12")
    assert site_place("hook_embed")[:2] == ("embed", -1.0) and site_place("ln_final.hook_normalized")[2] == "norm"
    assert site_place("control.bag_of_tokens")[::2] == ("control", "bag of tokens")


def test_rows_that_failed_or_are_of_another_draw_weighting_or_seed_change_nothing():
    whole = table("small")
    others = [
        whole.assign(draw="0", value=9.0),
        whole.assign(weighting="uniform", value=9.0),
        whole.assign(status="failed", value=np.nan, message="diverged", site="blocks.9.hook_resid_post"),
        whole.assign(status="undetermined", value=9.0, site="blocks.9.hook_resid_post"),
        whole.assign(seed=pd.array([3] * len(whole), dtype="Int64"), value=9.0),
        whole.assign(settings='{"role":"other","place":1}', value=9.0, model="not of a comparison"),
    ]
    first = whole.assign(seed=pd.array([0] * len(whole), dtype="Int64"))
    mixed = pd.concat([*others, first], ignore_index=True)
    for page, corpus in ((PLANE, "raw"), (PREFERENCE, FAIR), (SPECTRA, "raw")):
        pd.testing.assert_frame_equal(OWN[page].rows(mixed, corpus), OWN[page].rows(whole, corpus))


# --- what a table lacks, which pages it has ---------------------------------------------------------------------------

WITHOUT = {
    PLANE: "arrows from base to tuned need complexity and expressivity of one label at a site of both",
    PREFERENCE: "preference by site needs preference_information or probe_accuracy of a data set of pairs",
    SPECTRA: "spectra need eigenvalues or effective ranks by site",
}


@pytest.mark.parametrize("page", OWN.values(), ids=lambda page: page.name)
def test_what_a_comparison_figure_lacks_is_one_sentence(page: Page):
    make = Maker(BASE, "base", 0)
    alone = [make.row("raw", "bits_per_byte", 1.0, site="logits"), *list(plane_rows(make))[:1]]
    with pytest.raises(NothingToDraw) as reason:
        page.rows(frame(alone))
    assert str(reason.value) == WITHOUT[page.name]
    with pytest.raises(NothingToDraw, match=r"the table lacks the columns model, .*settings.*; figures need"):
        page.rows(pd.DataFrame({"estimator": ["soft"]}))
    with pytest.raises(NothingToDraw, match="the table holds no row of a comparison of models"):
        page.rows(table("small").iloc[:0])


def test_an_excess_or_a_growth_alone_is_no_figure():
    for page, series in ((PREFERENCE, preference_rows), (SPECTRA, spectra_rows)):
        rows = series(Maker(BASE, "base", 0))
        alone = [made for made in rows if made["quantity"] == "preference_excess" or made["rows"] == "first"]
        with pytest.raises(NothingToDraw) as reason:
            OWN[page].rows(frame(alone))
        assert str(reason.value) == WITHOUT[page]


def test_a_figure_of_several_data_sets_asks_for_one():
    with pytest.raises(NothingToDraw, match=r"2 data sets \(preferences, gemma vs gpt4\); name one with corpus=…"):
        comparison_preference_rows(table("small"))
    other = [made for make in models() for made in (*plane_rows(make, "chat"), *spectra_rows(make, "chat"))]
    both = pd.concat([table("small"), frame(other)], ignore_index=True)
    for rows in (comparison_plane_rows, comparison_spectra_rows):
        with pytest.raises(NothingToDraw, match=r"2 data sets \(raw, chat\)"):
            rows(both)
    assert comparison_texts(both, "complexity") == ["raw", "chat"] and comparison_texts(both.iloc[:0]) == []


def test_the_base_alone_has_no_plane():
    with pytest.raises(NothingToDraw, match="arrows from base to tuned need"):
        comparison_plane(frame(plane_rows(Maker(BASE, "base", 0))))


def test_a_table_of_a_comparison_has_its_pages_and_not_a_word_about_others():
    found = [name for name, _, _ in figures_of(table("small"), pytest.fail)]
    own = ["comparison_plane", "comparison_preference-preferences", "comparison_preference-gemma-vs-gpt4"]
    assert found == ["comparison_changes", *own, "comparison_spectra"]


def test_comparison_rows_change_nothing_in_other_figures_and_other_rows_nothing_in_theirs():
    plain = frame(synthetic_rows(1, 2, 1, duplicates=(), labels=("token",)))
    assert not of_comparison(plain).any() and of_comparison(table("small")).all()
    pages = figures_of(pd.concat([plain, table("two models")]), pytest.fail)
    found = {name: rows for name, _, rows in islice(pages, 5)}
    expected = {name: rows for name, _, rows in figures_of(table("two models"), pytest.fail)}
    assert set(expected) == {"comparison_changes", "comparison_plane"}
    expected |= {page.name: page.rows(plain) for page in PAGES[:3]}
    assert list(found) == list(expected)
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows)


def test_a_comparison_figure_drawn_twice_gives_the_same_bytes_with_every_font_embedded(tmp_path: Path):
    rows = comparison_plane_rows(table("two models"))
    rows = rows[rows["series"] == "point"]
    one, two = (style.save(OWN[PLANE].draw(rows), tmp_path / name, PLANE, rows) for name in ("one", "two"))
    for path, other in zip(one, two, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name
    pdf = one[0].read_bytes()
    assert b"CreationDate" not in pdf and b"/Type3" not in pdf
    assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0
