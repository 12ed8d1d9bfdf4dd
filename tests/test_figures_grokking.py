"""Figures of grokking, curves and phases, and which pages a table has: equal to their CSV, right by hand, legible."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grokking_tables import (
    GROUP,
    LAST,
    REGIMES,
    checkpoint_rows,
    curve_rows,
    date_rows,
    frame,
    phase_rows,
    regime_row,
    setting,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from test_figures import drawn_texts, lines, overlapping, same_points, synthetic_rows

from infocomp.plotting.draw import GROKKING_PAGES, GROKKING_PHASES, PAGES, Page, draw_all, figures_of
from infocomp.plotting.grokking_curves import draw_grokking_curves, grokking_curves_rows
from infocomp.plotting.grokking_phases import (
    COLOURS,
    HATCH,
    SIGNS,
    delay_ticks,
    draw_grokking_phases,
    families,
    grokking_phases_rows,
)
from infocomp.plotting.grokking_selection import grokking_rows, of_grokking, over_seeds, settings_of, site_rank
from infocomp.plotting.grokking_style import FLOOR, joined, number_text, site_text
from infocomp.plotting.selection import NothingToDraw
from infocomp.plotting.style import save

EVENTS = ("memorization_step", "generalization_step")
STEPS = (0, 10, 50, 60, 100, 400, 500, 1000, 2000)
OTHER = "division mod 59, 40 %"


@cache
def curves_of(name: str) -> tuple[pd.DataFrame, Figure]:
    """Rows and figure of the curves: of a setting with its control, of many seeds, dated from losses alone."""
    if name == "treated and control":
        table = setting()
    elif name == "eight seeds":
        table = frame(row for seed in range(8) for row in (*curve_rows(seed, False), *date_rows(seed, False)))
    else:
        assert name == "losses alone"
        short = (0, *range(1, 50, 4))
        rows = [*curve_rows(0, False, short), *date_rows(0, False, short)]
        table = frame(row for row in rows if row["quantity"] != "accuracy" and row["label"] != "accuracy")
    rows = grokking_curves_rows(table)
    return rows, draw_grokking_curves(rows)


CURVES = ("treated and control", "eight seeds", "losses alone")


@cache
def small() -> pd.DataFrame:
    """A run and its control at few steps, with all kinds of rows but those over seeds."""
    rows = []
    for control in (False, True):
        rows += [*curve_rows(0, control, STEPS), *date_rows(0, control, STEPS)]
        rows += checkpoint_rows(0, control, (0, 50, 2000))
    return frame(rows)


@cache
def phases() -> tuple[pd.DataFrame, Figure]:
    rows = grokking_phases_rows(frame(phase_rows()))
    return rows, draw_grokking_phases(rows)


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.split()) for text, _ in drawn_texts(figure))


def text_of(ax: Axes, gid: str) -> str:
    return " ".join(text.get_text() for text in ax.texts if text.get_gid() == gid)


def legible(figure: Figure) -> bool:
    """No two texts overlap and none leaves the page."""
    texts, box = drawn_texts(figure), figure.bbox.padded(0.5)
    assert len(texts) > 10
    assert overlapping(texts) == []
    assert [text for text, own in texts if not (box.contains(*own.min) and box.contains(*own.max))] == []
    return True


@pytest.mark.parametrize("name", CURVES)
def test_no_two_texts_of_the_curves_overlap_and_none_leaves_the_page(name: str):
    assert legible(curves_of(name)[1])


# --- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_the_curves_draw_exactly_the_rows_of_their_csv(name: str, tmp_path: Path):
    rows, figure = curves_of(name)
    rows.to_csv(tmp_path / "curves.csv", index=False)
    csv = pd.read_csv(tmp_path / "curves.csv")
    panels = {"loss": 0, "accuracy": 1} if name != "losses alone" else {"loss": 0}
    sides = csv["control"].nunique()
    assert len(figure.axes) == (len(panels) + 1) * sides
    for (control, quantity, side, seed), own in csv[csv["series"] == "curve"].groupby(
        ["control", "quantity", "rows", "seed"]
    ):
        ax = figure.axes[panels[str(quantity)] * sides + bool(control)]
        assert same_points(lines(ax, f"{quantity}|{side}|{seed:g}"), own[["step", "value"]])
    for (control, quantity, estimator, seed), own in csv[csv["quantity"].isin(EVENTS)].groupby(
        ["control", "quantity", "estimator", "seed"]
    ):
        strip = figure.axes[len(panels) * sides + bool(control)]
        date = own.iloc[0]
        found = lines(strip, f"{quantity}|{estimator}|{seed:g}")
        assert found[:, 0].tolist() == ([date["value"]] if np.isfinite(date["value"]) else [])
        ends = lines(strip, f"{quantity}|{estimator}|{seed:g}|interval")[:, 0]
        assert ends.tolist() == ([date["low"], date["high"]] if np.isfinite(date["value"]) else [])


def test_every_evaluation_of_every_seed_is_a_row_of_the_table():
    rows, _ = curves_of("treated and control")
    table = setting()
    curves, evaluated = rows[rows["series"] == "curve"], table["quantity"].isin(["loss", "accuracy"])
    assert (evaluated & (table["label"] == "at the state")).sum() > 100  # followed at kept states: not of the curve
    evaluated &= table["label"] != "at the state"
    assert len(curves) == evaluated.sum() == 2 * 3 * 2 * 2 * curves["step"].nunique()
    assert sorted(curves["value"]) == sorted(table.loc[evaluated, "value"])


def test_an_event_is_an_upright_band_from_one_end_of_its_interval_to_the_other_in_every_panel():
    rows, figure = curves_of("treated and control")
    reached = rows[(rows["estimator"] == "threshold") & rows["quantity"].isin(EVENTS) & rows["value"].notna()]
    assert len(reached) == 3 * 2 + 3
    for _, date in reached.iterrows():
        for panel in (0, 1):
            ax, gid = figure.axes[2 * panel + int(date["control"])], f"{date['quantity']}|{date['seed']:g}"
            (band,) = [patch for patch in ax.patches if patch.get_gid() == f"{gid}|interval"]
            assert isinstance(band, Rectangle)
            assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((date["low"], date["high"]))
            assert lines(ax, gid)[:, 0].tolist() == [date["value"]] * 2
    assert not [patch for ax in figure.axes[1::2] for patch in ax.patches if "general" in str(patch.get_gid())]


def test_a_crossing_is_filled_and_the_change_point_beside_it_hollow():
    _, figure = curves_of("treated and control")
    strip = figure.axes[4]
    for quantity in EVENTS:
        (crossing,) = [line for line in strip.lines if line.get_gid() == f"{quantity}|threshold|1"]
        (fitted,) = [line for line in strip.lines if line.get_gid() == f"{quantity}|change_point|1"]
        assert crossing.get_marker() == "o" and fitted.get_marker() == "D" and fitted.get_markerfacecolor() == "white"
        assert crossing.get_color() == fitted.get_markeredgecolor()
        between = np.asarray(fitted.get_ydata(), float)[0] - np.asarray(crossing.get_ydata(), float)[0]
        assert 0.2 < between < 0.5


def test_what_was_not_reached_is_said_in_words_where_there_is_room():
    _, figure = curves_of("treated and control")
    strip = figure.axes[5]
    assert [text_of(strip, f"not reached|{seed}") for seed in range(3)] == ["not by step 2,000 →"] * 3
    assert not [text for text in figure.axes[4].texts if str(text.get_gid()).startswith("not reached")]
    _, figure = curves_of("losses alone")
    assert text_of(figure.axes[1], "not reached|0") == "neither event: not by step 49 →"


def test_a_late_memorization_moves_the_words_to_the_left():
    short = tuple(range(0, 101, 5))
    table = frame([*curve_rows(0, True, short), *date_rows(0, True, short)])
    figure = draw_grokking_curves(grokking_curves_rows(table))
    (text,) = [text for text in figure.axes[2].texts if str(text.get_gid()).startswith("not reached")]
    assert text.get_text() == "generalization: not by step 100 →" and text.get_horizontalalignment() == "left"
    assert legible(figure)


def test_dates_are_of_the_accuracies_and_of_the_losses_where_there_is_nothing_else():
    rows, figure = curves_of("treated and control")
    assert set(rows.loc[rows["series"] == "date", "label"]) == {"accuracy"}
    assert lines(figure.axes[2], "threshold")[:, 1].tolist() == [0.99, 0.99] and not len(
        lines(figure.axes[0], "threshold")
    )
    rows, figure = curves_of("losses alone")
    assert set(rows.loc[rows["series"] == "date", "label"]) == {"loss"}
    assert lines(figure.axes[0], "threshold")[:, 1] == pytest.approx([0.01 / np.log(2)] * 2)
    assert "threshold of loss: 0.01 nats" in words(figure) and "threshold of accuracy: 0.99" not in words(figure)


def test_the_numbers_of_few_seeds_are_a_sentence_each_and_of_many_a_range():
    said = words(curves_of("treated and control")[1])
    assert "Seed 0: grokking; memorized at 65 [58, 65]; generalized at 437 [385, 437]; delay 372 steps" in said
    assert "delay 372 steps [320, 379]; test accuracy at memorization 0.079; deepest fall afterwards 0." in said
    assert (
        "Control, seeds 0, 1 and 2: never generalizes; memorized at 65 to 74; not generalized: not by step 2,000"
        in said
    )
    said = words(curves_of("eight seeds")[1])
    assert "6 and 7: grokking; memorized at 65 to 74; generalized at 437 to 822; delay 372 to 748 steps" in said
    assert "deepest fall afterwards up to 0.014." in said


def test_a_loss_of_zero_is_drawn_at_the_floor_and_stays_zero_in_the_csv():
    table = small()[small()["quantity"].isin(["loss", "accuracy"])]
    zero = table.assign(value=table["value"].where((table["quantity"] != "loss") | (table["step"] < 1000), 0.0))
    rows = grokking_curves_rows(zero)
    figure = draw_grokking_curves(rows)
    drawn = lines(figure.axes[0], "loss|train|0")
    assert drawn[-1].tolist() == [LAST, FLOOR] and (rows.query("quantity == 'loss'")["value"] == 0).any()


def test_a_page_whose_loss_is_cut_at_the_floor_says_so_at_the_axis_and_in_words():
    table = small()[small()["quantity"].isin(["loss", "accuracy"])]
    for least, cut in ((0.0, True), (FLOOR, False)):
        low = table.assign(value=table["value"].where((table["quantity"] != "loss") | (table["step"] < 1000), least))
        figure = draw_grokking_curves(grokking_curves_rows(low))
        said = words(figure)
        assert ("Losses below $10^{-7}$ bits are drawn at $10^{-7}$, the floor of the axis." in said) == cut
        figure.draw_without_rendering()
        ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert ("floor $10^{-7}$" in ticks) == cut and ("$10^{-7}$" in ticks) != cut
        assert legible(figure)


# --- phases -----------------------------------------------------------------------------------------------------------


def cell_of(figure: Figure, fraction: float, width: int) -> tuple[Any, str, str]:
    """Patch, regime and number of a cell."""
    ax, gid = figure.axes[0], f"{fraction:g}|{width:g}"
    (patch,) = [patch for patch in ax.patches if patch.get_gid() == f"{gid}|cell"]
    (sign,) = [str(line.get_gid()) for line in ax.lines if str(line.get_gid()).startswith(f"{gid}|")]
    return patch, sign.rsplit("|", 1)[-1], text_of(ax, f"{gid}|number")


def test_the_phase_diagram_has_a_cell_for_every_row_with_the_delay_as_colour():
    rows, figure = phases()
    assert legible(figure) and len(rows) == 25 == len(figure.axes[0].patches)
    known = rows[rows["value"].notna()]
    low, high = np.log1p(known["value"].min()), np.log1p(known["value"].max())
    for _, cell in rows.iterrows():
        patch, regime, number = cell_of(figure, cell["train_fraction"], cell["width"])
        assert regime == cell["regime"] and (patch.get_hatch() == HATCH) == bool(np.isnan(cell["value"]))
        if np.isfinite(cell["value"]):
            shade = COLOURS((np.log1p(cell["value"]) - low) / (high - low))
            assert np.allclose(patch.get_facecolor(), shade, atol=0.02) and patch.get_hatch() is None
            assert number.split("\n")[0] in (f"{cell['value']:,.0f}", f"{cell['value']:.2g}")
    assert set(rows["regime"]) == set(REGIMES) and all(regime in words(figure) for regime in REGIMES)


def test_a_cell_without_a_delay_says_what_is_known_of_it():
    _, figure = phases()
    assert cell_of(figure, 0.2, 128)[1:] == ("memorizes only", "> 1,940\n0 of 3")
    assert cell_of(figure, 0.4, 8)[1:] == ("under capacity", "not by\n2k")
    assert cell_of(figure, 0.3, 64)[1:] == ("grokking", "> 1,163\n2 of 3")
    assert cell_of(figure, 0.6, 64)[1:] == ("immediate", "8.2")
    assert cell_of(figure, 0.3, 64)[0].get_hatch() == HATCH and cell_of(figure, 0.4, 64)[0].get_hatch() is None
    said = words(figure)
    assert "hatched: not every seed generalized" in said
    assert "Hatched: by the last step at least one seed had not generalized" in said and "of those that" not in said


def test_every_regime_has_a_sign_of_its_own_and_unclear_says_why():
    _, figure = phases()
    assert set(SIGNS) == set(REGIMES) and len(set(SIGNS.values())) == len(SIGNS)
    for fraction, width, regime in ((0.5, 64, "collapses"), (0.5, 128, "unclear"), (0.4, 64, "grokking")):
        patch, said, _ = cell_of(figure, fraction, width)
        (mark,) = [line for line in figure.axes[0].lines if line.get_gid() == f"{fraction:g}|{width:g}|{regime}"]
        assert said == regime and mark.get_marker() == SIGNS[regime] and patch.get_hatch() is None
    assert "unclear: evaluated too rarely to tell" in words(figure)


def test_the_colour_bar_has_ticks_at_one_two_and_five_of_each_decade():
    assert delay_ticks(50, 1507) == [50, 100, 200, 500, 1000]
    assert delay_ticks(0, 40) == [0, 1, 2, 5, 10, 20] and delay_ticks(3, 3e5) == [10, 100, 1000, 1e4, 1e5]
    assert delay_ticks(210, 330) == [210, 330] and delay_ticks(60, 60) == [60]
    assert len(delay_ticks(0, 1e9)) <= 7
    rows, figure = phases()
    assert figure.axes[1].get_yticks().tolist() == delay_ticks(rows["value"].min(), rows["value"].max())


def test_axes_of_the_phase_diagram_have_their_units_and_a_hole_stays_empty():
    rows = grokking_phases_rows(frame(phase_rows((0.3, 0.5), (64, 128))[:-1]))
    figure = draw_grokking_phases(rows)
    assert len(figure.axes[0].patches) == 3 and legible(figure)
    said = words(figure)
    assert "train fraction, ratio of all inputs" in said and "width, hidden units" in said
    assert "mean delay to generalization, steps, as log(steps + 1)" in said


def test_a_phase_diagram_of_nothing_dated_has_no_colours_and_an_unknown_regime_a_name():
    rows = [row for row in phase_rows((0.2, 0.3), (8, 16)) if row["value"] is None or row["settings"]]
    made = frame(rows).assign(value=np.nan, status="undetermined", message="none")
    figure = draw_grokking_phases(grokking_phases_rows(made))
    assert len(figure.axes) == 1 and all(patch.get_hatch() == HATCH for patch in figure.axes[0].patches)
    odd = made.assign(settings=made["settings"].str.replace("under capacity", "undone"))
    assert "undone" in words(draw_grokking_phases(grokking_phases_rows(odd)))


def test_families_are_models_but_for_their_width_and_operations_but_for_the_fraction():
    rows = phase_rows((0.3, 0.5), (64, 128))
    named = families(frame(rows))
    assert named == ["transformer wd 2, addition mod 59"]
    square = regime_row(90.0, "grokking", corpus=OTHER, model="quadratic_mlp 256", width=256, group="q")
    assert families(frame([*rows, square])) == [*named, "quadratic_mlp wd 2, division mod 59"]
    with pytest.raises(
        NothingToDraw, match=r"the table holds 2 families \(transformer wd 2.*\); name one with family=…"
    ):
        grokking_phases_rows(frame([*rows, square]))


# --- which pages a table has ------------------------------------------------------------------------------------------


def names_of(found: pd.DataFrame) -> list[str]:
    return [name for name, _, _ in figures_of(found, pytest.fail)]


def test_a_table_of_grokking_has_its_pages_and_not_a_word_about_others():
    assert names_of(small()) == [page.name for page in GROKKING_PAGES]
    assert names_of(frame(phase_rows())) == ["grokking_phases"]
    assert names_of(frame(curve_rows(0, False, STEPS))) == ["grokking_curves"]
    both = [
        *curve_rows(0, False, STEPS),
        *curve_rows(0, False, STEPS, corpus=OTHER, group=f"transformer 1x128 · {OTHER}"),
    ]
    ends = ("transformer-1x128-addition-mod-59-40", "transformer-1x128-division-mod-59-40")
    assert names_of(frame(both)) == [f"grokking_curves-{end}" for end in ends]


def test_of_a_sweep_only_settings_with_a_control_have_curves():
    steps = (0, 10, 100)
    rows = [row for part in range(8) for row in curve_rows(0, False, steps, group=f"group {part}", model=f"m {part}")]
    assert names_of(frame(rows)) == []
    rows += curve_rows(0, True, steps, group="group 3", model="m 3")
    (name, _, drawn), *_ = figures_of(frame(rows), pytest.fail)
    assert name == "grokking_curves" and drawn["model"].unique().tolist() == ["m 3 wd 2", "m 3 wd 0"]


def test_grokking_rows_change_nothing_in_the_figures_of_the_plane_and_without_them_it_is_silent():
    plane = list(synthetic_rows(1, 2, 1, duplicates=(), labels=("token",)))
    assert not of_grokking(frame(plane)).any() and of_grokking(setting()).all()
    assert not of_grokking(pd.DataFrame({"value": [1.0]})).any()
    added = pd.concat([frame(plane), small()], ignore_index=True)
    found = {name: rows for name, _, rows in figures_of(added, pytest.fail)}
    assert set(found) == {page.name for page in (*PAGES, *GROKKING_PAGES)}
    for page in PAGES[:1]:
        pd.testing.assert_frame_equal(found[page.name], page.rows(frame(plane), corpus="held-out"))


WITHOUT = {
    "grokking_curves": "curves of grokking need the loss or accuracy of train or test rows at two steps of a run",
    "grokking_progress": "progress needs a progress measure of a run with weight decay at two checkpoints",
    "grokking_plane": "the plane of grokking needs I(context; J) and I(answer; J) of a site at two checkpoints",
    "grokking_phases": "a phase diagram needs the delay over seeds at two train fractions of two widths",
}


@pytest.mark.parametrize("page", [*GROKKING_PAGES, GROKKING_PHASES], ids=lambda page: page.name)
def test_what_a_grokking_figure_lacks_is_one_sentence(page: Page):
    one = frame([*curve_rows(0, False, (3,)), regime_row(90.0, "grokking")])
    with pytest.raises(NothingToDraw) as reason:
        page.rows(one)
    assert str(reason.value) == WITHOUT[page.name]
    with pytest.raises(NothingToDraw, match=r"the table lacks the columns model, .*settings; figures need"):
        page.rows(pd.DataFrame({"estimator": ["count"]}))
    with pytest.raises(NothingToDraw, match="the table holds no row of a study of grokking"):
        page.rows(one.iloc[:0])
    assert names_of(one) == []


def test_a_figure_of_several_settings_asks_for_one():
    both = frame([*curve_rows(0, False, STEPS), *curve_rows(0, False, STEPS, corpus=OTHER)])
    assert settings_of(grokking_rows(both)) == [GROUP, f"{GROUP}, {OTHER}"]
    for page in GROKKING_PAGES:
        with pytest.raises(NothingToDraw, match=r"the table holds 2 settings \(.*\); name one with setting=…"):
            page.rows(both)


def test_rows_that_failed_or_are_of_another_draw_change_nothing():
    whole = small()[small()["model"].str.endswith("wd 2")]
    others = [
        whole.assign(draw="0", value=9.0),
        whole.assign(status="failed", value=np.nan, message="diverged", revision="step9999"),
        whole[whole["step"].notna()].assign(status="undetermined", value=9.0, revision="step9999"),
    ]
    mixed = pd.concat([whole, *others], ignore_index=True)
    for page in GROKKING_PAGES:
        pd.testing.assert_frame_equal(page.rows(mixed), page.rows(whole))


def test_a_grokking_figure_drawn_twice_gives_the_same_bytes_with_every_font_embedded(tmp_path: Path):
    table = frame(phase_rows((0.3, 0.5), (64, 128)))
    written = draw_all(table, tmp_path / "one", pytest.fail)
    assert [path.name for path in written] == [f"grokking_phases.{kind}" for kind in ("pdf", "png", "csv")]
    again = save(draw_grokking_phases(grokking_phases_rows(table)), tmp_path / "two", "grokking_phases", table)
    assert written[0].read_bytes() == again[0].read_bytes() and written[1].read_bytes() == again[1].read_bytes()
    pdf = written[0].read_bytes()
    assert b"CreationDate" not in pdf and b"/Type3" not in pdf
    assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0


# --- numbers and names ------------------------------------------------------------------------------------------------


def test_seeds_with_steps_of_their_own_are_averaged_where_all_of_them_reach():
    path = pd.DataFrame({"seed": [0, 0, 0, 1, 1], "step": [0, 3, 9, 0, 3], "value": [0.0, 2.0, 9.0, 4.0, 8.0]})
    found = over_seeds(path)
    assert found["step"].tolist() == [0, 3] and found["mean"].tolist() == [2, 5] and found["seeds"].tolist() == [2, 2]
    assert (found["low"].tolist(), found["high"].tolist()) == ([0, 2], [4, 8])
    path = pd.DataFrame({"seed": [0, 0, 1, 1, 1], "step": [0, 3, 0, 1, 3], "value": [0.0, 2.0, 4.0, 5.0, 8.0]})
    assert over_seeds(path)["mean"] == pytest.approx([2, 3, 5])  # log(1 + 1) is half of log(3 + 1)


def test_sites_stand_in_the_order_of_the_forward_pass_and_have_names():
    sites = ["hook_embed", "blocks.0.hook_resid_mid", "blocks.0.mlp.hook_post", "blocks.0.hook_resid_post"]
    sites += ["blocks.1.hook_resid_mid", "unembed", "neuron_to_logits", "probe", "logits"]
    assert sorted(reversed(sites), key=site_rank) == sites
    names = ["embedding", "stream mid 0", "neurons 0", "stream out 0", "stream mid 1", "unembedding"]
    assert [site_text(site) for site in sites] == [*names, "neurons to logits", "probe", "logits"]


def test_numbers_are_written_short():
    sizes = {0.0321: "0.0321", 5.88: "5.88", 147.2: "147", 999.8: "1k", 679_000: "679k", -1.5e6: "−1.5M"}
    assert {size: number_text(size) for size in sizes} == sizes
    assert joined([60], "{:g}".format) == "60" and joined([60, 70, 80], "{:g}".format) == "60, 70 and 80"
