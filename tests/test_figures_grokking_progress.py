"""Figures of grokking, progress measures and the information plane: equal to their CSV, right by hand, legible."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grokking_tables import (
    CHECKPOINTS,
    ENTROPY,
    GENERALIZED,
    LEADS,
    MEMORIZED,
    TEST_ACCURACY,
    TEST_LOSS,
    checkpoint_rows,
    curve_rows,
    date_rows,
    frame,
    setting,
)
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from test_figures import lines, offsets, same_points
from test_figures_grokking import legible, text_of, words

from infocomp.plotting.grokking_measures import lead_text, measure_text, measures_of, of_measures, range_text
from infocomp.plotting.grokking_plane import APART, apart, draw_grokking_plane, grokking_plane_rows, position
from infocomp.plotting.grokking_progress import (
    BOTTOM,
    CLAIM_COLOURS,
    LANE,
    REFERENCE,
    TOP,
    draw_grokking_progress,
    grokking_progress_rows,
)
from infocomp.plotting.grokking_selection import grokking_rows
from infocomp.plotting.grokking_style import FLOOR

EVENTS = ("memorization_step", "generalization_step")
LOSSES = ("loss", "restricted_loss", "excluded_loss")


@cache
def progress() -> tuple[pd.DataFrame, Figure]:
    rows = grokking_progress_rows(setting())
    return rows, draw_grokking_progress(rows)


@cache
def plane() -> tuple[pd.DataFrame, Figure]:
    rows = grokking_plane_rows(setting())
    return rows, draw_grokking_plane(rows)


def line_of(ax: Axes, gid: str) -> Line2D:
    (line,) = [line for line in ax.lines if line.get_gid() == gid]
    return line


def clipped_to(artist: Artist) -> tuple[float, float]:
    """The top and the bottom of what an artist is clipped to, in the axes' own units."""
    axes, box = artist.axes, artist.get_clip_box()
    assert axes is not None and box is not None
    heights = axes.transData.inverted().transform(box.get_points())[:, 1]
    return float(heights.min()), float(heights.max())


@cache
def alone() -> pd.DataFrame:
    """One run without a control, leads or dates."""
    return frame(checkpoint_rows(0, False, (0, 10, 100, 1000), events=False))


# --- progress ---------------------------------------------------------------------------------------------------------


def test_no_two_texts_of_the_progress_overlap_and_none_leaves_the_page():
    assert legible(progress()[1])


def test_every_measure_has_a_row_from_its_least_to_its_greatest_value(tmp_path: Path):
    rows, figure = progress()
    rows.to_csv(tmp_path / "progress.csv", index=False)
    csv = pd.read_csv(tmp_path / "progress.csv")
    (ax,) = figure.axes
    drawn = csv[csv["series"] == "mean"]
    names = list(drawn["measure"].unique())
    assert len(names) == 21 and ax.get_ylim() == (21, 0) and ax.get_xscale() == "symlog"
    for place, name in enumerate(names):
        treated = drawn[(drawn["measure"] == name) & ~drawn["control"]]
        low, high = treated["low"].min(), treated["high"].max()
        for control, kind in ((False, "treated"), (True, "control")):
            own = drawn[(drawn["measure"] == name) & (drawn["control"] == control)]
            x, y = lines(ax, f"{name}|{kind}").T
            share = (place + BOTTOM - y) / (BOTTOM - TOP)
            log = name.split(" ")[0] in LOSSES
            value = low * (high / low) ** share if log else low + share * (high - low)
            assert x.tolist() == own["step"].tolist() and np.allclose(value, own["value"]), name
        assert range_text(low, high, str(treated["unit"].iloc[0])) in text_of(ax, f"{name}|name")
        assert text_of(ax, f"{name}|name").split("\n")[0].endswith(", log") == (name.split(" ")[0] in LOSSES)


def test_the_page_begins_with_the_test_loss_and_the_test_accuracy_at_the_kept_states():
    rows, figure = progress()
    drawn = rows[rows["series"] == "mean"]
    assert list(drawn["measure"].unique()[:2]) == [TEST_LOSS, TEST_ACCURACY] and set(drawn["step"]) <= {
        *CHECKPOINTS,
        *MEMORIZED,
        *GENERALIZED,
    }
    assert text_of(figure.axes[0], f"{TEST_LOSS}|name").startswith("test loss, log\n")
    assert text_of(figure.axes[0], f"{TEST_ACCURACY}|name").startswith("test accuracy\n")
    assert not drawn["measure"].str.contains("· at the state · train").any()
    assert text_of(figure.axes[0], f"{TEST_LOSS}|claim") == "reference"
    assert text_of(figure.axes[0], f"{TEST_ACCURACY}|claim").startswith("lags: 0.4 [")


def test_a_loss_at_its_floor_is_drawn_there_and_the_range_says_so():
    table = setting(1, False)
    table = table[table["quantity"].isin(["loss", "restricted_loss", "fourier_gini", "generalization_step"])]
    low = (table["quantity"] == "restricted_loss") & (table["step"] >= 960)
    rows = grokking_progress_rows(table.assign(value=table["value"].where(~low, 0.0)))
    figure = draw_grokking_progress(rows)
    path = rows[(rows["series"] == "mean") & (rows["measure"] == "restricted_loss · all")]
    y = lines(figure.axes[0], "restricted_loss · all|treated")[:, 1]
    place = list(rows.loc[rows["series"] == "mean", "measure"].unique()).index("restricted_loss · all")
    top = np.log(path["value"].max() / FLOOR)
    assert np.allclose((place + BOTTOM - y) / (BOTTOM - TOP), np.log(np.maximum(path["value"], FLOOR) / FLOOR) / top)
    text = text_of(figure.axes[0], "restricted_loss · all|name")
    assert text.split("\n")[1].startswith("1e−7 (floor) to 7.63 bits")
    assert "(floor)" not in text_of(figure.axes[0], f"{TEST_LOSS}|name") and legible(figure)


def test_the_mean_is_over_the_seeds_and_its_band_from_the_least_to_the_greatest():
    rows, figure = progress()
    norm = setting().query("quantity == 'weight_norm' and step == 480")
    for control, kind in ((False, "treated"), (True, "control")):
        own = norm[norm["model"].str.endswith("wd 0" if control else "wd 2")]["value"].to_numpy(float)
        found = rows[(rows["series"] == "mean") & (rows["measure"] == "weight_norm") & (rows["control"] == control)]
        at = found[found["step"] == 480].iloc[0]
        assert len(own) == 3 == at["seeds"]
        assert (at["value"], at["low"], at["high"]) == pytest.approx((own.mean(), own.min(), own.max()))
        (band,) = [one for one in figure.axes[0].collections if one.get_gid() == f"weight_norm|{kind}|range"]
        assert clipped_to(band) == pytest.approx(clipped_to(line_of(figure.axes[0], f"weight_norm|{kind}")))
    seeds = rows[(rows["series"] == "seed") & (rows["measure"] == "weight_norm") & ~rows["control"]]
    assert set(seeds["step"]) == {*CHECKPOINTS, *MEMORIZED, *GENERALIZED}
    mean = rows[(rows["series"] == "mean") & (rows["measure"] == "weight_norm") & ~rows["control"]]
    assert set(mean["step"]) == set(seeds["step"])


def test_treated_is_a_full_dark_line_and_the_control_a_dashed_grey_one_that_its_row_clips():
    rows, figure = progress()
    treated, control = (line_of(figure.axes[0], f"weight_norm|{kind}") for kind in ("treated", "control"))
    assert treated.get_linestyle() == "-" and control.get_linestyle() == "--" and control.get_color() == "0.5"
    place = list(rows.loc[rows["series"] == "mean", "measure"].unique()).index("weight_norm")
    assert clipped_to(control) == pytest.approx((place, place + LANE - 0.07))
    assert "control: transformer 1x128 wd 0" in words(figure) and "mean of 3 seeds, scaled" in words(figure)


def test_onsets_are_bars_between_checkpoints_and_the_lead_a_dot_on_the_curve():
    rows, figure = progress()
    (ax,) = figure.axes
    names = list(rows.loc[rows["series"] == "mean", "measure"].unique())
    onsets = rows[(rows["series"] == "onset") & rows["value"].notna()]
    assert len(onsets) == 3 * (len(LEADS) - 1)
    for _, onset in onsets.iterrows():
        gid, height = f"{onset['measure']}|onset|{onset['seed']:g}", names.index(onset["measure"]) + LANE
        assert lines(ax, gid).tolist() == [[onset["value"], height]]
        assert lines(ax, f"{gid}|interval").tolist() == [[onset["low"], height], [onset["high"], height]]
    reference = onsets.loc[onsets["measure"] == TEST_LOSS, "value"]
    start = np.exp(np.log(reference).mean())
    assert len(reference) == 3 and lines(ax, f"{TEST_LOSS}|lead")[0, 0] == pytest.approx(start)
    for _, lead in rows[(rows["series"] == "lead") & rows["value"].notna()].iterrows():
        ((step, height),) = lines(ax, f"{lead['measure']}|lead")
        assert step == pytest.approx(start * 2 ** lead["value"])
        x, y = lines(ax, f"{lead['measure']}|treated").T
        assert height == pytest.approx(np.interp(np.log1p(step), np.log1p(x), y))


def test_claims_are_those_of_the_table_and_only_they_have_a_colour():
    rows, figure = progress()
    (ax,) = figure.axes
    told = {str(row["measure"]): row for _, row in rows[rows["series"] == "lead"].iterrows()}
    assert len(told) == len(LEADS)
    for name, row in told.items():
        (text,) = [text for text in ax.texts if text.get_gid() == f"{name}|claim"]
        if name == TEST_LOSS:
            assert text.get_color() not in CLAIM_COLOURS.values()
            continue
        assert text.get_text().startswith(str(row["claim"])) and row["claim"] in {claim for _, claim in LEADS.values()}
        assert (text.get_color() in CLAIM_COLOURS.values()) == (row["claim"] in CLAIM_COLOURS)
    assert text_of(ax, "restricted_loss · all|claim") == "leads: −0.6 [−0.8, −0.4]"
    assert text_of(ax, "learning_coefficient|claim") == "does not move"
    assert text_of(ax, "linear_mapping_number · 100 points|claim").startswith("moves in the control too: 0.1")
    assert text_of(ax, "context_complexity · blocks.0.hook_resid_post · train|claim") == ""
    assert text_of(ax, "key_frequencies|claim").startswith("nothing is claimed: −0.2 [")
    assert "No lead was estimated for 2 of the 20 measures." in words(figure)


def test_the_page_says_what_leads_are_relative_to_and_that_many_are_looked_at_without_correction():
    said = words(progress()[1])
    assert "(onset / onset of the test loss)" in said and "generalization)" not in said
    assert "18 measures are judged at 95 % each, without correction for multiplicity" in said
    assert "not claimed where the control moves likewise" in said
    assert "onset of the test loss × 2^lead" in said


def test_the_onset_of_the_test_loss_is_a_band_of_its_own_with_a_line_at_each_seed():
    rows, figure = progress()
    (ax,) = figure.axes
    own = rows[(rows["series"] == "onset") & (rows["measure"] == TEST_LOSS)]
    (band,) = [patch for patch in ax.patches if patch.get_gid() == REFERENCE]
    corners = band.get_patch_transform().transform(np.asarray(band.get_path().vertices))[:, 0]
    assert (corners.min(), corners.max()) == (own["low"].min(), own["high"].max())
    for _, onset in own.iterrows():
        assert lines(ax, f"{REFERENCE}|{onset['seed']:g}")[:, 0].tolist() == [onset["value"]] * 2
    assert text_of(ax, f"{REFERENCE}|name") == "test loss begins to fall"


def test_leads_that_are_relative_to_something_else_are_not_shown():
    table = setting()
    table = table[table["quantity"].isin(["loss", "restricted_loss", "onset_step", "lead"])]
    settings = table["settings"].str.replace('"reference":"test loss"', '"reference":"generalization"', regex=False)
    rows = grokking_progress_rows(table.assign(settings=settings))
    assert (table["settings"] != settings).any() and not (rows["series"] == "lead").any()
    without = table[table["label"] != TEST_LOSS]  # no onset of the test loss: no dots and no band, claims stay
    figure = draw_grokking_progress(grokking_progress_rows(without))
    gids = {str(line.get_gid()) for line in figure.axes[0].lines}
    assert not any(gid.endswith("|lead") or gid.startswith(REFERENCE) for gid in gids)
    assert text_of(figure.axes[0], "restricted_loss · all|claim").startswith("leads")


def test_the_two_events_are_bands_over_the_seeds_intervals_with_a_line_at_each_seed():
    rows, figure = progress()
    (ax,) = figure.axes
    for quantity, name in zip(EVENTS, ("memorization", "generalization"), strict=True):
        own = rows[(rows["series"] == "event") & (rows["quantity"] == quantity)]
        (band,) = [patch for patch in ax.patches if patch.get_gid() == quantity]
        ends = np.asarray(band.get_path().vertices)
        corners = band.get_patch_transform().transform(ends)[:, 0]
        assert (corners.min(), corners.max()) == (own["low"].min(), own["high"].max())
        for _, date in own.iterrows():
            assert lines(ax, f"{quantity}|{date['seed']:g}")[:, 0].tolist() == [date["value"]] * 2
        assert text_of(ax, f"{quantity}|name") == name


def test_a_run_alone_has_neither_control_nor_claims_nor_events():
    rows = grokking_progress_rows(alone())
    figure = draw_grokking_progress(rows)
    assert set(rows["series"]) == {"mean", "seed"} and not figure.axes[0].patches
    said = words(figure)
    assert "control:" not in said and "leads" not in said.split("doublings")[-1] and "mean of 1 seeds" not in said
    assert "one seed, scaled" in said


def test_of_spectra_the_mean_stands_for_all_and_of_informations_the_last_site_before_the_logits():
    found = measures_of(grokking_rows(setting(1, False)))
    assert set(found.loc[found["quantity"] == "effective_rank", "label"]) == {"mean"}
    informations = found[found["quantity"].isin(["context_complexity", "expressivity"])]
    assert set(informations["site"]) == {"blocks.0.hook_resid_post"} and "complexity" not in set(found["quantity"])
    single = grokking_rows(setting(1, False).query("label != 'mean'"))
    assert set(measures_of(single).query("quantity == 'effective_rank'")["label"]) == {"embed", "mlp.in"}


def test_a_lead_is_of_the_measure_that_has_all_parts_of_its_label_and_the_longest_label_counts():
    rows = grokking_rows(setting(1, False))
    measures = measures_of(rows)
    lead = rows[rows["quantity"] == "lead"]
    shorter = lead[lead["label"].isin(["weight_norm"])]
    some = [shorter.assign(label=label) for label in ("restricted_loss", "restricted_loss · test", "synergy · logits")]
    found = of_measures(pd.concat(some), measures, "lead")
    by = dict(zip(found["measure"], found["label"], strict=True))
    assert by == {"restricted_loss · all": "restricted_loss", "restricted_loss · test": "restricted_loss · test"}


def test_claims_and_ranges_are_written_short_with_real_minus_signs():
    assert lead_text("leads", -1.24, -1.42, -1.04) == "leads: −1.2 [−1.4, −1.0]"
    assert lead_text("moves with it", -0.04, np.nan, np.nan) == "moves with it: 0.0"
    assert lead_text("", -1.24, np.nan, np.nan) == "no claim: −1.2"
    assert lead_text("does not move", np.nan, np.nan, np.nan) == "does not move"
    assert lead_text("nothing is claimed", -0.3, -0.9, 0.3) == "nothing is claimed: −0.3 [−0.9, 0.3]"
    assert range_text(0.236, 0.791, "ratio") == "0.236 to 0.791 ratio" and range_text(5, 5, "count") == "5 count"
    assert range_text(1.09e-7, 5.95, "bits") == "1.09e−7 to 5.95 bits"
    for search in ("sweep", "bisection", "bayesian"):
        assert measure_text("description_bits", "", "", f"ε 1 nat, {search}") == f"description, ε 1 nat, {search}"


# --- plane ------------------------------------------------------------------------------------------------------------


def test_no_two_texts_of_the_plane_overlap_and_none_leaves_the_page():
    assert legible(plane()[1])


def test_the_plane_draws_exactly_the_rows_of_its_csv_train_and_test_inputs_apart(tmp_path: Path):
    rows, figure = plane()
    rows.to_csv(tmp_path / "plane.csv", index=False)
    csv = pd.read_csv(tmp_path / "plane.csv")
    points = csv[csv["series"] == "point"]
    panels = [(control, side) for control in (False, True) for side in ("train", "test")]
    for ax, (control, side) in zip(figure.axes, panels, strict=False):
        own = points[(points["control"] == control) & (points["rows"] == side)]
        for site, path in own.groupby("site"):
            first = path[path["seed"] == 0]
            assert same_points(lines(ax, f"{site}|line"), first[["x", "y"]])
            marks = {tuple(mark) for mark in offsets(ax, str(site)).tolist()}
            assert tuple(first[["x", "y"]].iloc[-1]) in marks <= set(map(tuple, first[["x", "y"]].to_numpy(float)))
            assert same_points(lines(ax, f"{site}|null"), first[["x", "y_null"]])
            for seed in (1, 2):
                assert same_points(lines(ax, f"{site}|seed {seed}"), path.loc[path["seed"] == seed, ["x", "y"]])
        assert ax.get_title().endswith(f"; {side} inputs") and ax.get_title().startswith("control: ") == control
    both = setting()["quantity"].isin(["context_complexity", "expressivity"]).sum()
    assert len(points) == both / 2 and set(points["rows"]) == {"train", "test"}
    assert [figure.axes[place].get_xlabel() for place in (2, 3)] == ["I(context; J), bits"] * 2
    assert [figure.axes[place].get_ylabel() for place in (0, 2)] == ["I(answer; J), bits"] * 2


def test_marks_that_would_fall_on_one_another_are_thinned_and_the_path_stays():
    rows, figure = plane()
    ax, pixel = figure.axes[0], APART * figure.dpi / 72
    own = rows[(rows["series"] == "point") & ~rows["control"].astype(bool) & (rows["rows"] == "train")]
    own = own[own["seed"] == 0]
    kept = np.vstack([offsets(ax, str(site)) for site in own["site"].unique()])
    last = own.drop_duplicates("site", keep="last")[["x", "y"]].to_numpy(float)
    others = np.array([mark for mark in kept.tolist() if mark not in last.tolist()])
    assert 10 < len(kept) < len(own) and len(others) == len(kept) - len(last)
    at = ax.transData.transform
    far = np.linalg.norm(at(others)[:, None] - at(kept)[None], axis=2)
    far[far == 0] = np.inf
    assert far.min() >= pixel - 1e-6
    near = np.linalg.norm(at(own[["x", "y"]].to_numpy(float))[:, None] - at(kept)[None], axis=2).min(axis=1)
    assert near.max() < pixel  # what is not marked lies under a mark
    assert "Of marks that would fall on one another the latest is drawn" in words(figure)


def test_of_places_too_near_to_one_another_the_latest_stays_and_every_last_one_does():
    places = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [0.0, 0.5], [9.0, 0.5]])
    steps, last = np.array([0.0, 1.0, 2.0, 0.0, 2.0]), np.array([False, False, True, False, True])
    assert apart(places, steps, last, 3.0).tolist() == [False, True, True, False, True]
    assert apart(places, steps, last, 0.1).all()


def test_the_bound_is_the_diagonal_up_to_the_entropy_of_the_answers():
    rows, figure = plane()
    points = rows[rows["series"] == "point"]
    assert points["entropy"].unique() == pytest.approx([ENTROPY])
    assert (points["bound"] == np.minimum(points["x"], ENTROPY)).all() and (points["y"] <= points["bound"]).all()
    for ax in figure.axes[:4]:
        x, y = lines(ax, "bound").T
        assert np.array_equal(y, np.minimum(x, ENTROPY)) and (x[0], x[-1]) == ax.get_xlim()
    assert "bound: min(I(context; J), H(answer) = 5.88 bits)" in words(figure)
    assert "above the bound" not in words(figure)


def small(**cells: Any) -> pd.DataFrame:
    """Two checkpoints of one site: I(context; J) 3 and 6 bits, H(answer) told by nothing but a ceiling."""
    table = alone()
    known = table["quantity"].isin(["context_complexity", "expressivity"]) & table["step"].isin([0, 1000])
    table = table[known & (table["site"] == "logits") & (table["rows"] == "test")].reset_index(drop=True)
    context = table["quantity"] == "context_complexity"
    settings = table["settings"].str.replace(r'"answer_entropy":[0-9.]+,', "", regex=True)
    x = np.where(table["step"] == 0, 3.0, 6.0)
    value = np.where(context, x, 0.5 * x)
    return table.assign(settings=settings, value=value, ceiling=np.minimum(x, 4.5)).assign(**cells)


def test_without_the_entropy_a_ceiling_below_the_context_tells_it_and_without_both_only_the_diagonal_is_drawn():
    rows = grokking_plane_rows(small())
    assert rows["entropy"].tolist() == [4.5, 4.5] and rows["bound"].tolist() == [3.0, 4.5]
    corner = lines(draw_grokking_plane(rows).axes[0], "bound")
    assert len(corner) == 3 and corner[1].tolist() == [4.5, 4.5]
    loose = grokking_plane_rows(small(ceiling=lambda made: 2 * made["value"]))  # no ceiling below the context
    assert loose["entropy"].isna().all()
    rows = grokking_plane_rows(small(ceiling=np.nan))
    assert rows["entropy"].isna().all() and rows["bound"].tolist() == [3.0, 6.0]
    figure = draw_grokking_plane(rows)
    assert np.array_equal(*lines(figure.axes[0], "bound").T) and "bound: I(context; J)" in words(figure)


def test_points_above_the_bound_are_counted_under_the_plane():
    table = small()
    table.loc[table["quantity"] == "expressivity", "value"] = 4.6
    said = words(draw_grokking_plane(grokking_plane_rows(table)))
    assert "2 points lie above the bound, by up to 1.6 bits." in said


def test_the_events_stand_on_the_path_at_their_step():
    rows, figure = plane()
    events = rows[(rows["series"] == "event") & (rows["seed"] == 0)]
    assert len(events) == 3  # the control only memorizes
    path = rows[
        (rows["series"] == "point") & (rows["seed"] == 0) & (rows["rows"] == "test") & (rows["site"] == "logits")
    ]
    for control, ax in ((False, figure.axes[1]), (True, figure.axes[3])):
        own = path[path["control"] == control]
        for quantity in EVENTS:
            found = events[(events["control"] == control) & (events["quantity"] == quantity)]
            drawn = lines(ax, f"logits|{quantity}")
            assert len(drawn) == len(found) == (not control or quantity == EVENTS[0])
            if len(found):
                assert drawn[0] == pytest.approx(position(own, float(found["step"].iloc[0])))
    half = pd.DataFrame({"step": [0.0, 3.0], "x": [0.0, 2.0], "y": [4.0, 0.0]})
    assert position(half, 1.0) == pytest.approx([1.0, 2.0])  # log(1 + 1) is half of log(3 + 1)


def test_a_plane_without_dates_or_control_is_one_line_of_panels():
    figure = draw_grokking_plane(grokking_plane_rows(alone()))
    said = words(figure)
    assert len(figure.axes) == 3 and "memorization" not in said and "other seeds" not in said
    assert "null: unrelated answers" in said


def test_curves_alone_or_one_checkpoint_make_no_plane_and_no_progress():
    table = frame([*curve_rows(0, False, (0, 10)), *date_rows(0, False, (0, 10))])
    with pytest.raises(ValueError, match="progress needs a progress measure of a run with weight decay"):
        grokking_progress_rows(table)
    for lacking in (table, small().query("step == 0")):
        with pytest.raises(ValueError, match="the plane of grokking needs"):
            grokking_plane_rows(lacking)
