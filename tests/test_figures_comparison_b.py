"""Figures of a comparison, similarity to phases: equal to their CSV, right by hand, legible."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_tables_b import (
    BANDS,
    PHASES,
    TURNS,
    WORDS,
    change_rows,
    close,
    deep,
    frame,
    many_changes,
    phase_rows,
    shepard_rows,
    similarity_rows,
    some,
    word_rows,
)
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from test_figures import drawn_texts, lines, overlapping, same_points

from infocomp.plotting import (
    comparison_changes,
    comparison_phases,
    comparison_shepard,
    comparison_similarity,
    comparison_words,
    style,
)
from infocomp.plotting.comparison_changes import MOST, comparison_changes_rows, interval_text, measure_text, p_text
from infocomp.plotting.comparison_phases import comparison_phases_rows, segments
from infocomp.plotting.comparison_shepard import comparison_shepard_rows
from infocomp.plotting.comparison_similarity import comparison_similarity_rows
from infocomp.plotting.comparison_words import LONGEST_LIST, comparison_words_rows, neighbours_text, word_text
from infocomp.plotting.selection import NothingToDraw

NORM = "ln_final.hook_normalized"
LONG = ("Olmo-3-7B-Instruct-SFT", "dpo")
Rows = Iterable[dict[str, Any]]


def said(rows: Rows, **more: Any) -> list[dict[str, Any]]:
    """The rows with these entries in their settings."""
    return [made | {"settings": made["settings"] | more} for made in rows]


SHAPES: dict[str, tuple[ModuleType, Callable[[], Rows]]] = {
    "similarity": (comparison_similarity, lambda: similarity_rows(2, ("sft", "dpo"))),
    "similarity, deep": (comparison_similarity, deep),
    "similarity, close": (comparison_similarity, close),
    "words": (comparison_words, word_rows),
    "words, none moved": (comparison_words, lambda: said(word_rows(1, ("sft",)), moved=False)),
    "changes": (comparison_changes, many_changes),
    "changes, none": (comparison_changes, lambda: said(change_rows(2, ("sft",)), changed=False)),
    "shepard": (comparison_shepard, shepard_rows),
    "phases": (comparison_phases, lambda: [*phase_rows(), *phase_rows("dpo", boundaries=False, bands=False)]),
}


def rows_of(module: ModuleType, table: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
    return getattr(module, f"{module.__name__.rsplit('.', 1)[-1]}_rows")(table, **chosen)


@cache
def drawing(name: str) -> tuple[pd.DataFrame, Figure]:
    module, made = SHAPES[name]
    rows = rows_of(module, frame(made()))
    return rows, getattr(module, f"draw_{module.__name__.rsplit('.', 1)[-1]}")(rows)


def read_back(name: str, folder: Path) -> tuple[pd.DataFrame, list[Axes]]:
    rows, figure = drawing(name)
    rows.to_csv(folder / "page.csv", index=False)
    return pd.read_csv(folder / "page.csv", keep_default_na=False, na_values=[""]), figure.axes


def words_of(figure: Figure) -> str:
    written = [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]
    written += [text for legend in figure.legends for text in (*legend.get_texts(), legend.get_title())]
    told = [*(text.get_text() for text in written), *(ax.get_title() for ax in figure.axes), figure.get_suptitle()]
    return " ".join(" ".join(text.split()) for text in told)


def cell(ax: Axes, gid: str) -> str:
    (found,) = [text.get_text() for text in ax.texts if text.get_gid() == gid]
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_texts_of_a_comparison_overlap_and_none_leaves_the_page(name: str):
    _, figure = drawing(name)
    texts = drawn_texts(figure)
    assert len(texts) > 10 and overlapping(texts) == []
    box = figure.bbox.padded(0.5)
    assert [text for text, own in texts if not (box.contains(*own.min) and box.contains(*own.max))] == []


def test_a_table_without_a_comparison_is_refused_in_one_sentence():
    plain = [made | {"settings": {"place": 1}} for made in similarity_rows(1, ("sft",))]
    for module in {module for module, _ in SHAPES.values()}:
        with pytest.raises(NothingToDraw, match="the table holds no row of a comparison of models"):
            rows_of(module, frame(plain))


@pytest.mark.parametrize(
    ("module", "made", "message"),
    [
        (comparison_similarity, shepard_rows, "similarity needs cka, another likeness of a tuned model to its base"),
        (comparison_words, shepard_rows, "words that moved need word_drift of a tuned model"),
        (comparison_changes, shepard_rows, "what changed needs rows of differences, tuned minus base"),
        (comparison_shepard, word_rows, "Shepard's law needs shepard_r2, how well a law tells held-out confusions"),
        (comparison_phases, shepard_rows, "phases need rankme or alpha_req at 5 checkpoints of one model"),
    ],
)
def test_a_page_says_what_the_table_lacks(module: ModuleType, made: Callable[[], Rows], message: str):
    with pytest.raises(NothingToDraw, match=message):
        rows_of(module, frame(made()))


@pytest.mark.parametrize(
    ("module", "made"),
    [
        (comparison_similarity, lambda: similarity_rows(0, ("dpo",))),
        (comparison_words, lambda: word_rows(0, ("dpo",))),
        (comparison_shepard, lambda: shepard_rows(0, ("dpo",))),
        (comparison_phases, lambda: phase_rows(layers=0)),
    ],
)
def test_several_data_sets_must_be_told_apart(module: ModuleType, made: Callable[[], Rows]):
    both = frame([*made(), *(row | {"corpus": "chat"} for row in made())])
    with pytest.raises(NothingToDraw, match=r"2 data sets \(raw, chat\); name one with corpus=…"):
        rows_of(module, both)
    assert set(rows_of(module, both, corpus="chat")["corpus"]) == {"chat"}


def test_changes_are_of_all_data_sets_where_none_is_named():
    changes = frame(change_rows(1, ("dpo",), ("raw", "chat")))
    assert set(comparison_changes_rows(changes)["corpus"]) == {"raw", "chat"}
    assert set(comparison_changes_rows(changes, corpus="chat")["corpus"]) == {"chat"}


# --- similarity -------------------------------------------------------------------------------------------------------


def test_the_similarity_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("similarity", tmp_path)
    by_title = {ax.get_title(): ax for ax in axes}
    for who, own in csv[csv["panel"] == "map"].groupby("who"):
        (mesh,) = [found for found in by_title[str(who)].collections if isinstance(found, QuadMesh)]
        square = own.pivot(index="depth", columns="base_depth", values="value").to_numpy()
        assert np.array_equal(np.asarray(mesh.get_array()).reshape(square.shape), square) and square.shape == (4, 4)
    for panel, (_, unit, *_) in comparison_similarity.PANELS.items():
        (ax,) = [ax for ax in axes if ax.get_ylabel() == unit]
        for (who, quantity), own in csv[csv["panel"] == panel].groupby(["who", "quantity"]):
            drawn = lines(ax, f"{who}|{quantity}")
            assert np.array_equal(np.sort(drawn[:, 1]), np.sort(own["value"])), (panel, who)
            assert np.array_equal(lines(ax, f"{who}|{quantity}|null")[:, 1], own["null"].dropna())
    bands = csv[(csv["panel"] == "kl") & csv["first"].notna()]
    ax = by_title["KL of next tokens"]
    for (who, label), own in bands.groupby(["who", "label"]):
        assert np.array_equal(
            lines(ax, f"{who}|kl|{label}"), np.c_[range(len(BANDS)), own.sort_values("first")["value"]]
        )
    assert [text.get_text() for text in ax.get_xticklabels()] == [f"{low}–{high}" for low, high in BANDS]


def test_a_dot_marks_the_site_of_the_base_that_each_site_is_most_like():
    shifted = some(similarity_rows(3, ("dpo",)), "cka")
    best = {"blocks.2.hook_resid_post": "blocks.0.hook_resid_post"}
    for made in shifted:
        if made["rows"] == "sample" and best.get(made["site"]) == made["settings"]["base_site"]:
            made["value"] = 0.99
    figure = comparison_similarity.comparison_similarity(frame(shifted))
    assert lines(figure.axes[0], "dpo|best").tolist() == [[0.5, 0.5], [1.5, 1.5], [2.5, 2.5], [1.5, 3.5], [4.5, 4.5]]


def test_equal_sites_are_of_all_rows_where_those_were_measured():
    rows = comparison_similarity_rows(frame(similarity_rows(2, ("dpo",))))
    same = rows[rows["panel"] == "cka"]
    assert (same["rows"] == "all").all() and (same["site"] == same["base_site"]).all() and len(same) == 4
    assert same["value"].iloc[0] == pytest.approx(1.001)
    sampled = [made for made in similarity_rows(2, ("dpo",)) if made["rows"] != "all"]
    again = comparison_similarity_rows(frame(sampled))
    assert again.loc[again["panel"] == "cka", "value"].iloc[0] == pytest.approx(1.0)


def test_a_model_of_another_depth_is_compared_with_the_pairs_of_the_table():
    every = some(similarity_rows(2, ("dpo",)), "cka")
    pairs = [made for made in every if made["rows"] == "all" and made["layer"] == 1]
    other = pairs[0]["settings"] | {"base_site": "blocks.5.hook_resid_post"}
    rows = comparison_similarity_rows(frame([pairs[0] | {"settings": other, "label": "vs blocks.5.hook_resid_post"}]))
    assert rows[["panel", "name", "base_name"]].values.tolist() == [["cka", "L1", "L5"]]


def test_without_settings_the_label_names_the_site_of_the_base():
    made = [row for row in similarity_rows(2, ("dpo",)) if row["settings"].pop("base_site", "")]
    rows = comparison_similarity_rows(frame(made))
    assert rows.loc[rows["panel"] == "map", "base_site"].nunique() == 4


def test_values_near_those_of_equal_models_have_an_axis_of_their_own():
    _, figure = drawing("similarity, close")
    axes = {ax.get_ylabel(): ax for ax in figure.axes}
    assert axes["CKA, ratio"].get_ylim()[0] > 0.8 and axes["shared, ratio"].get_ylim()[0] < 0
    assert "the null is off the axis" in words_of(figure)
    assert "the null is off the axis" not in words_of(drawing("similarity")[1])


def test_divergences_over_all_positions_and_the_null_of_the_maps_are_said():
    text = words_of(drawing("similarity")[1])
    assert "paired with rows of other documents, CKA is 0.004." in text
    assert "bits per token: sft 0.12 [0.1, 0.14]; dpo 0.35 [0.33, 0.37]." in text


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_words_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("words", tmp_path)
    for ax, (who, own) in zip(axes, csv.groupby("who", sort=False), strict=True):
        for place, (_, word) in enumerate(own.iterrows()):
            assert lines(ax, f"{who}|{place}|drift").tolist() == [[word["across"], place]]
            assert lines(ax, f"{who}|{place}|noise").tolist() == [[word["null"], place]]
            told = [cell(ax, f"{who}|{place}|{name}") for name in ("word", "count", "lost", "gained")]
            assert told == [word["word"], f"{word['count']:.0f}", word["lost"], word["gained"]]
    assert csv.groupby("who").size().to_dict() == {"sft": 3, "dpo": 7, "dpo flipped": 6}


def test_words_are_those_that_moved_at_the_site_where_most_did():
    rows, figure = drawing("words")
    assert set(rows["site"]) == {"blocks.1.hook_resid_post"} and rows["moved"].all()
    assert rows.loc[rows["who"] == "dpo", "label"].tolist() == list(WORDS[:7])
    title = (
        "dpo, L1: words that moved beyond chance: 7 of 14; mean drift 0.35 [0.32, 0.38], beyond noise +0.2 [0.18, 0.22]"
    )
    assert title in words_of(figure)


def test_a_row_that_says_whether_its_word_moved_is_believed():
    made = said(word_rows(1, ("dpo",)), moved=False)
    for row in made:
        row["settings"]["moved"] = row["label"] in ("x", "def") and row["layer"] == 0
    rows = comparison_words_rows(frame(made))
    assert sorted(rows["label"]) == ["def", "x"] and set(rows["words_moved"]) == {2}


def test_the_discovery_rate_is_held_over_all_words_of_a_site():
    made = list(word_rows(0, ("dpo",), ("a", "b", "c", "d")))
    p = {"a": 0.012, "b": 0.024, "c": 0.2, "d": 0.9}  # Benjamini and Hochberg: below 0.0125 and 0.025
    for row in made:
        row["settings"]["p"] = p.get(row["label"])
    assert sorted(comparison_words_rows(frame(made))["label"]) == ["a", "b"]
    for row in made:
        row["settings"]["p"] = 0.013 if row["label"] == "a" else 0.9
    assert set(comparison_words_rows(frame(made))["words_moved"]) == {0}


def test_words_are_in_the_order_of_their_excess_over_noise():
    made = said(word_rows(1, ("dpo",)), across=None)
    for place, row in enumerate(row for row in made if row["layer"] == 0 and row["label"] in WORDS[:3]):
        row["null"] = row["value"] - 0.1 * (place + 1)
    assert comparison_words_rows(frame(made))["label"].iloc[:3].tolist() == [WORDS[2], WORDS[3], WORDS[1]]
    for row in made:
        row["settings"]["across"] = 0.9 if row["label"] == "x" else row["value"]
        row["settings"]["moved"] = True
    assert comparison_words_rows(frame(made))["label"].iloc[0] == "x"


def test_where_no_word_moved_the_largest_are_grey():
    rows, figure = drawing("words, none moved")
    assert len(rows) == 5 and not rows["moved"].any() and "words that moved beyond chance: 0 of 14" in words_of(figure)
    assert {text.get_color() for text in figure.axes[0].texts} == {style.GREY}


def test_a_table_of_few_words_says_of_how_many():
    made = said(word_rows(1, ("dpo",)), words=5000, words_moved=321)
    assert "moved beyond chance: 321 of 5,000" in words_of(comparison_words.comparison_words(frame(made)))


def test_words_are_written_so_that_blanks_are_seen_and_every_sign_can_be_drawn():
    assert word_text(" import") == "␣import" and word_text("\n    ") == "↵␣␣␣␣" and word_text("a b\t") == "a b⇥"
    assert word_text("中\x00") == "U+4E2DU+0000" and word_text("é→") == "é→" and word_text("  ") == "␣␣"
    assert word_text("a" * 30) == "a" * 17 + "…" and word_text("$x$") == "$x$"
    assert neighbours_text(["self", " this"]) == "self · ␣this" and neighbours_text([]) == ""
    long = neighbours_text(["neighbour"] * 9)
    assert long.endswith(" · …") and len(long) <= LONGEST_LIST + 4
    _, figure = drawing("words")
    assert cell(figure.axes[1], "dpo|6|word") == "$x$"
    assert all(not text.get_parse_math() for text in figure.axes[1].texts)


# --- changes ----------------------------------------------------------------------------------------------------------


def test_the_page_of_changes_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, (ax,) = read_back("changes", tmp_path)
    for place, line in csv.iterrows():
        assert lines(ax, f"{place}|effect").tolist() == [[line["effect"], place]]
        assert cell(ax, f"{place}|difference") == interval_text(line["value"], line["low"], line["high"], signed=True)
        assert cell(ax, f"{place}|site") == line["name"] and cell(ax, f"{place}|data set") == line["corpus"]
        assert cell(ax, f"{place}|measure, unit").startswith(measure_text(line["quantity"], "", "", "").split(",")[0])
    assert csv["effect"].abs().is_monotonic_decreasing and csv["changed"].all()
    assert csv["effect"].min() < 0 < csv["effect"].max()


def test_a_line_is_a_measure_at_its_largest_effect_with_the_sites_counted():
    made = some(change_rows(4, ("dpo",)), "anisotropy")
    for row, effect in zip(made, (0.1, 4.0, -5.0, 6.0, -9.0, 2.0), strict=True):
        row["settings"] |= {"effect": effect, "changed": abs(effect) > 3}
        row["value"] = 0.002 * effect
    (line,) = comparison_changes_rows(frame(made)).to_dict("records")
    assert (line["name"], line["effect"], line["risen"], line["fallen"], line["sites"]) == ("L3", -9.0, 2, 2, 6)
    assert (line["tested"], line["tested_changed"], line["measures_changed"]) == (6, 4, 1)
    figure = comparison_changes.comparison_changes(frame(made))
    assert cell(figure.axes[0], "0|sites") == "↑2 ↓2 of 6"
    assert "were tested: 6, of which 4 changed beyond chance" in words_of(figure)


def test_at_most_thirty_lines_are_drawn_and_the_rest_is_counted():
    rows, figure = drawing("changes")
    changed = [made for made in many_changes() if made["settings"]["changed"]]
    measures = len({(made["model"], made["corpus"], made["quantity"], made["label"]) for made in changed})
    assert len(rows) == MOST < measures and set(rows["measures_changed"]) == {measures}
    assert set(rows["tested"]) == {len(many_changes())} and set(rows["tested_changed"]) == {len(changed)}
    assert f"{measures - MOST} more measures changed, with smaller effects" in words_of(figure)


def test_differences_that_were_not_tested_are_not_counted():
    made = list(change_rows(1, ("dpo",)))
    for row in made[:4]:
        row["settings"] = {name: row["settings"][name] for name in ("role", "base", "place", "base_value")}
    assert set(comparison_changes_rows(frame(made))["tested"]) == {len(made) - 4}
    with pytest.raises(NothingToDraw, match="needs differences that were tested; none of the table's has a p"):
        comparison_changes_rows(frame(made[:4]))


def test_where_nothing_changed_the_page_says_so_in_grey():
    rows, figure = drawing("changes, none")
    assert len(rows) == 10 and not rows["changed"].any()
    text = words_of(figure)
    assert "nothing changed beyond chance" in text and "of which 0 changed beyond chance" in text
    assert {line.get_color() for line in figure.axes[0].lines if str(line.get_gid()).endswith("effect")} == {"0.7"}


def test_measures_and_probabilities_in_words():
    assert measure_text("complexity", "token", "raw", "bits") == "complexity, token, bits"
    assert measure_text("rankme", "", "sample", "count") == "RankMe, singular values, sample, count"
    assert measure_text("preference_information", "preference", "matched", "bits").endswith("matched, bits")
    assert measure_text("bits_per_byte", "", "", "bits") == "bits per byte"
    assert p_text(0.0004) == "< 0.001" and p_text(0.0321) == "0.032" and p_text(float("nan")) == ""
    assert interval_text(0.12, 0.1, 0.14, signed=True) == "+0.12 [0.1, 0.14]"
    assert interval_text(-2e-5, float("nan"), float("nan")) == "−2e−5"


# --- Shepard's law ----------------------------------------------------------------------------------------------------


def test_the_page_of_shepards_law_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("shepard", tmp_path)
    for ax, panel in zip(axes, comparison_shepard.PANELS, strict=True):
        own = csv[csv["panel"] == panel]
        for who, path in own.groupby("who"):
            assert np.array_equal(np.sort(lines(ax, f"{who}|{panel}")[:, 1]), np.sort(path["value"])), (panel, who)
    assert set(csv["who"]) == {"demo", "sft", "dpo", "dpo flipped", "random weights"} and len(csv) == 4 * 5 * 6
    assert axes[0].get_ylim() == axes[1].get_ylim() and axes[3].get_ylabel().startswith("slope, bits")


def test_differences_are_no_points_of_shepards_law():
    apart = [made | {"estimator": "held-out pairs, tuned minus base"} for made in shepard_rows(1, ("dpo",), False)]
    rows = comparison_shepard_rows(frame([*shepard_rows(1, ("dpo",), False), *apart]))
    assert len(rows) == 4 * 2 * 3


def test_fits_far_below_zero_leave_the_axis_and_are_counted():
    low = {"value": -3.0, "ci_low": -4.0, "ci_high": -2.0}
    fits = some(shepard_rows(1, ("sft",), control=False), "shepard_r2")
    made = [row | (low if row["label"] == "gaussian" else {}) for row in fits]
    figure = comparison_shepard.comparison_shepard(frame(made))
    assert figure.axes[1].get_ylim()[0] == -0.5 and "6 values of R² below −0.5 are off the axis" in words_of(figure)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_the_page_of_phases_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("phases", tmp_path)
    places = [(quantity, site) for quantity in ("rankme", "alpha_req") for site in csv["site"].unique()]
    csv = csv[csv["model"] == "demo"]
    for ax, (quantity, site) in zip(axes[:6], places, strict=True):
        gid = f"demo|{site}|{quantity}"
        path = csv[(csv["quantity"] == quantity) & (csv["site"] == site)]
        assert same_points(lines(ax, gid), path[["step", "value"]]) and len(path) == 11
        bounds = csv[(csv["series"] == "boundary") & (csv["site"] == site)]
        assert lines(ax, f"{gid}|boundary")[::2, 0].tolist() == bounds["value"].tolist() == [turn[0] for turn in TURNS]
        spans = [patch for patch in ax.patches if patch.get_gid() == f"{gid}|boundary|interval"]
        assert [span_of(patch) for patch in spans] == [turn[1:] for turn in TURNS]
        shades = {str(patch.get_gid()).rsplit("|", 1)[-1]: span_of(patch) for patch in ax.patches if patch not in spans}
        assert shades == dict(zip(PHASES, ((0.0, 6.0), (6.0, 90.0), (90.0, 512.0)), strict=True))
        assert ax.get_xscale() == "symlog"


def span_of(patch: Any) -> tuple[float, float]:
    assert isinstance(patch, Rectangle)
    return patch.get_x(), patch.get_x() + patch.get_width()


def test_phases_go_from_boundary_to_boundary():
    bounds = pd.DataFrame({"value": [50.0, 5.0], "before": ["mixed", "warm-up"], "after": ["flat", "mixed"]})
    assert segments(bounds, 1, 100) == [("warm-up", 1, 5.0), ("mixed", 5.0, 50.0), ("flat", 50.0, 100)]
    assert segments(bounds.iloc[:0], 1, 100) == []


def test_sites_of_the_phases_are_the_first_a_middle_one_and_the_last():
    rows = comparison_phases_rows(frame(phase_rows(layers=5)))
    assert rows["site"].unique().tolist() == ["hook_embed", "blocks.2.hook_resid_post", NORM]


def test_phases_need_five_checkpoints():
    few = [made for made in phase_rows() if made["step"] in (0, 1, 8, 512)]
    with pytest.raises(NothingToDraw, match="at 5 checkpoints of one model"):
        comparison_phases_rows(frame(few))


def test_curves_are_of_the_common_sample_where_there_is_one():
    everything = [made | {"rows": "all", "value": 1000.0} for made in phase_rows() if made["unit"] != "steps"]
    rows = comparison_phases_rows(frame([*everything, *phase_rows()]))
    assert set(rows.loc[rows["series"] == "curve", "rows"]) == {"sample"} and rows["value"].max() < 600


def test_a_site_without_a_boundary_is_shaded_nowhere_and_named():
    _, figure = drawing("phases")
    dpo = [ax for ax in figure.axes if any(str(line.get_gid()).startswith("dpo|") for line in ax.lines)]
    assert len(dpo) == 6 and all(not ax.patches for ax in dpo)
    assert "No boundary of phases in the table: dpo, embed; dpo, L1; dpo, norm." in words_of(figure)
