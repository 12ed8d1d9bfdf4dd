"""The plane of the bottleneck bound: curves, points and the sentence that says what binds what."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from test_figures import drawn_texts, lines, overlapping, same_points, shape

from infocomp.bottleneck import Joint, concave_envelope, interpolate, solve, through_token_channel
from infocomp.estimators import Halves
from infocomp.execution.table import check_unique, rows_to_table, to_frame
from infocomp.plotting.bound import envelope, plane_bound_rows, tangents
from infocomp.plotting.bound_plane import draw_plane_bound, explanation
from infocomp.plotting.draw import PAGES
from infocomp.plotting.selection import NothingToDraw
from infocomp.plotting.style import save
from infocomp.studies.bound import bound_rows
from infocomp.studies.settings import BottleneckSettings
from infocomp.studies.token_channel import TokenJoint

WORDS = 12


@dataclass(frozen=True)
class Labels:
    """A label set of order 1."""

    name: str
    direction: str
    ids: np.ndarray
    order: int = 1


@dataclass(frozen=True)
class Text:
    """What of a prepared corpus its bottleneck needs."""

    name: str
    token_joint: TokenJoint
    halves: Halves | None
    n_documents: int

    @property
    def corpus(self) -> "Text":
        return self


@cache
def text() -> Text:
    """2,000 tokens, each drawn given the one before it, in 20 documents."""
    generator = np.random.default_rng(0)
    law = generator.dirichlet(np.full(WORDS, 0.3), WORDS)
    tokens = [0]
    for _ in range(2000):
        tokens.append(int(generator.choice(WORDS, p=law[tokens[-1]])))
    found = np.array(tokens)
    joint = TokenJoint.of([Labels("token", "input", found[:-1]), Labels("token", "output", found[1:])], None)
    assert joint is not None
    return Text("held-out", joint, Halves.of(np.arange(2000) // 100), 20)


@cache
def curves(*clusters: int, points: int = 8) -> pd.DataFrame:
    """The rows that a run writes for a bottleneck of the text."""
    settings = BottleneckSettings(clusters=clusters, points=points, repeats=2)
    table = rows_to_table(bound_rows(text(), settings))  # pyright: ignore[reportArgumentType]
    check_unique(table)
    return to_frame(table)


def with_curves(*clusters: int) -> pd.DataFrame:
    return pd.concat([shape("demo"), curves(*clusters)], ignore_index=True)


@cache
def drawn() -> tuple[pd.DataFrame, Figure]:
    rows = plane_bound_rows(with_curves(3, 6, WORDS))
    return rows, draw_plane_bound(rows)


def pale_and_broken(table: pd.DataFrame, draw: str) -> pd.DataFrame:
    """The table with one point of |T| = 6 not converged."""
    hit = table["estimator"].eq("bottleneck 6") & table["draw"].eq(draw) & table["rows"].eq("plug_in")
    assert hit.sum() == 2
    status = table["status"].mask(hit, "undetermined")
    return table.assign(status=status, message=table["message"].mask(hit, "not converged: it still moved"))


def test_the_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    rows, figure = drawn()
    save(figure, tmp_path, "plane_bound", rows)
    csv = pd.read_csv(tmp_path / "plane_bound.csv")
    for ax, kind in zip(figure.axes, ("plug_in", "held_out"), strict=False):
        own = csv[csv["rows"] == kind]
        for clusters in (3, 6, WORDS):
            of_size = own[own["clusters"] == clusters]
            points = of_size.loc[of_size["series"] == "point", ["x", "y"]]
            assert len(points) == 8 and same_points(lines(ax, f"point|{clusters}|ok"), points)
            line = of_size[of_size["series"] == "envelope"]
            name = line["curve"].iloc[0]
            assert same_points(lines(ax, f"envelope|{clusters}|{name}"), line[["x", "y"]])
        assert same_points(lines(ax, "repeated"), own.loc[own["series"] == "repeated", ["x", "y"]])
        assert set(lines(ax, "information")[:, 1]) == set(own.loc[own["series"] == "information", "y"])
        for series in ("measured", "token_channel", "estimate"):
            last = own[(own["series"] == series) & own["last"].eq(True)]
            assert same_points(lines(ax, series), last[["x", "y"]]), series
        for series in ("measured", "estimate"):
            path = own[own["series"] == series]
            assert same_points(lines(ax, f"path|{series}"), path[["x", "y"]])
    ends = csv[(csv["series"] == "estimate") & csv["last"].eq(True)]
    expected = [*ends[["x_low", "y"]].to_numpy(), *ends[["x_high", "y"]].to_numpy()]
    expected += [*ends[["x", "y_low"]].to_numpy(), *ends[["x", "y_high"]].to_numpy()]
    assert same_points(lines(figure.axes[1], "interval"), pd.DataFrame(expected))
    gains = csv[csv["series"] == "context_gain"]
    for site, path in gains.groupby("site"):
        assert same_points(lines(figure.axes[2], f"{site}|context_gain"), path[["x", "y"]])
    assert same_points(lines(figure.axes[2], "null"), gains[["x", "null"]])


def test_every_point_is_a_row_of_the_table():
    rows, _ = drawn()
    table = with_curves(3, 6, WORDS)
    token = table[(table["label"] == "token") & table["status"].eq("ok")]
    value = {
        (row.quantity, row.revision, row.site): row for row in token[token["model"] == "demo"].itertuples(index=False)
    }
    for row in rows[rows["site"].notna() & (rows["series"] != "context_gain")].itertuples(index=False):
        up = {"token_channel": "token_channel_expressivity"}.get(str(row.series), "expressivity")
        column = "point" if row.series == "estimate" else "value"
        assert row.x == getattr(value["complexity", row.revision, row.site], column)
        assert row.y == getattr(value[up, row.revision, row.site], column)
    solved = rows[rows["series"] == "point"]
    for quantity, axis in (("bottleneck_complexity", "x"), ("bottleneck_relevance", "y")):
        own = table[(table["quantity"] == quantity) & ~table["estimator"].str.endswith("repeated")]
        assert len(own) == len(solved) == 48
        assert sorted(own["value"]) == sorted(solved[axis])


def test_the_gain_joins_a_measured_point_with_the_same_point_through_its_token_channel():
    rows, figure = drawn()
    last = rows[rows["last"].eq(True)].set_index(["series", "site"])
    joined = [np.asarray(line.get_xydata()) for line in figure.axes[0].lines if line.get_gid() == "gain"]
    sites = last.loc["measured"].index
    assert len(joined) == len(sites) == 6
    expected = [(last.loc[("measured", site), "y"], last.loc[("token_channel", site), "y"]) for site in sites]
    assert sorted((line[0, 1], line[1, 1]) for line in joined) == sorted(expected)
    assert all(line[0, 0] == line[1, 0] for line in joined)


def test_only_a_curve_with_as_many_clusters_as_tokens_is_drawn_as_a_bound():
    rows, figure = drawn()
    bound = rows[rows["series"] == "bound"]
    assert set(bound["clusters"]) == {WORDS} and set(bound["rows"]) == {"plug_in"}
    (line,) = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("bound")]
    assert line.get_linestyle() == "-" and line.get_gid() == f"bound|{WORDS}"
    assert same_points(np.asarray(line.get_xydata()), bound[["x", "y"]])
    dashed = [line for ax in figure.axes[:2] for line in ax.lines if str(line.get_gid()).startswith("envelope")]
    assert len(dashed) == 6 and all(line.get_linestyle() == "--" for line in dashed)
    texts = [found for found, _ in drawn_texts(figure)]
    assert {"|T| = 3, achievable", f"|T| = {WORDS} ≥ |X|, the bound"} <= set(texts)
    assert "and by the full green line" in " ".join(explanation(rows).split())
    only_inner = plane_bound_rows(with_curves(3))
    assert not (only_inner["series"] == "bound").any()
    assert "none with |T| ≥ |X| is drawn" in " ".join(explanation(only_inner).split())


def test_the_bound_lies_above_the_true_curve_and_the_chords_below_it():
    joint = text().token_joint.joint
    dense = solve(joint, np.geomspace(1.05, 200, 120))
    coarse = solve(joint, [1.5, 2.0, 4.0, 40.0])
    above = tangents(np.column_stack([coarse.complexity, coarse.relevance, coarse.betas]))
    below = envelope(np.column_stack([coarse.complexity, coarse.relevance]))
    inside = dense.complexity <= coarse.complexity.max()
    at, true = dense.complexity[inside], dense.relevance[inside]
    assert len(at) > 60
    over, under = np.interp(at, *above.T) - true, true - np.interp(at, *below.T)
    assert over.min() > -1e-4 and under.min() > -1e-4 and over.max() > 0.01 and under.max() > 0.01
    assert (np.interp(at, *above.T) <= at + 1e-12).all()
    assert np.allclose(np.interp(coarse.complexity, *above.T), coarse.relevance, atol=1e-4)  # tight where it was solved


def test_points_through_a_token_channel_lie_under_the_drawn_bound():
    rows, _ = drawn()
    bound = rows.loc[rows["series"] == "bound", ["x", "y"]].to_numpy()
    joint, generator = text().token_joint.joint, np.random.default_rng(1)
    for sharpness in (0.03, 0.1, 0.3, 1.0):
        for _ in range(25):
            channel = torch.from_numpy(generator.dirichlet(np.full(5, sharpness), joint.sizes[0]))
            found = through_token_channel(joint, channel)
            assert found.relevance <= interpolate(*bound.T, found.complexity) + 1e-6


def test_the_envelope_is_that_of_the_solver():
    generator = np.random.default_rng(2)
    for _ in range(50):
        points = np.abs(generator.normal(size=(12, 2)))
        assert np.array_equal(envelope(points), np.column_stack(concave_envelope(*points.T)))


def test_a_point_that_did_not_converge_is_hollow_and_is_no_tangent():
    table = pale_and_broken(with_curves(3, 6, WORDS), "4")
    rows = plane_bound_rows(table)
    figure = draw_plane_bound(rows)
    hollow = [line for line in figure.axes[0].lines if line.get_gid() == "point|6|undetermined"]
    assert len(hollow) == 1 and hollow[0].get_markerfacecolor() == "white" and len(hollow[0].get_xdata()) == 1
    assert "not converged" in [found for found, _ in drawn_texts(figure)]
    assert "not converged" not in [found for found, _ in drawn_texts(drawn()[1])]
    wrong = table["estimator"].eq(f"bottleneck {WORDS}") & table["rows"].eq("plug_in") & table["draw"].eq("5")
    broken = table.assign(status=table["status"].mask(wrong, "undetermined"))
    lower = broken.assign(value=broken["value"].mask(wrong & broken["quantity"].eq("bottleneck_relevance"), 0.1))
    bound = plane_bound_rows(lower)
    bound = bound.loc[bound["series"] == "bound", ["x", "y"]].to_numpy()
    whole = drawn()[0].loc[drawn()[0]["series"] == "bound", ["x", "y"]].to_numpy()
    assert (np.interp(whole[:, 0], *bound.T) >= whole[:, 1] - 1e-12).all()


def test_no_two_texts_overlap_with_curves_and_none_leaves_the_page():
    figures = [drawn()[1], draw_plane_bound(plane_bound_rows(with_curves(3)))]
    for figure in figures:
        texts = drawn_texts(figure)
        assert overlapping(texts) == []
        page = figure.bbox.padded(0.5)
        assert [found for found, box in texts if not (page.contains(*box.min) and page.contains(*box.max))] == []


def test_axes_are_in_bits_and_the_sentence_names_what_binds():
    rows, figure = drawn()
    assert figure.axes[0].get_xlabel() == "I(X; J), and I(X; T) of curves, bits"
    assert figure.axes[0].get_ylabel() == "I(Y; J), and I(Y; T) of curves, bits"
    assert figure.axes[2].get_ylabel().endswith("bits")
    titles = [ax.get_title() for ax in figure.axes[:2]]
    assert titles == ["plug-in: joint of the measured rows", "held out: fitted on one half, scored on the other"]
    said = " ".join(explanation(rows).split())
    assert "a measured point or point estimate is bound by no curve, for J sees the whole context" in said
    assert "in the population only I(Y; J) ≤ I(context; J) binds it" in said
    assert explanation(rows) in [found for found, _ in drawn_texts(figure)]


def test_without_curves_the_points_are_drawn_and_the_page_says_that_none_was_asked_for():
    rows = plane_bound_rows(shape("demo"))
    assert {"measured", "token_channel", "estimate", "context_gain"} == set(rows["series"])
    assert "No curve was asked for (bottleneck: in the configuration)." in " ".join(explanation(rows).split())
    titles = [ax.get_title() for ax in draw_plane_bound(rows).axes]
    assert titles == ["plug-in: joint of the measured rows", "bias-corrected point estimates", ""]


def test_with_neither_curves_nor_token_channels_the_setting_is_named():
    table = shape("demo")
    table = table[table["quantity"] != "token_channel_expressivity"]
    with pytest.raises(NothingToDraw, match=r"needs bottleneck curves \(set bottleneck: in the configuration\) or tok"):
        plane_bound_rows(table)
    both = pd.concat([table, curves(3)], ignore_index=True)
    assert {"point", "measured"} <= set(plane_bound_rows(both)["series"])


def test_curves_of_another_text_are_left_out():
    table = pd.concat([shape("demo"), curves(3).assign(corpus="wiki")], ignore_index=True)
    rows = plane_bound_rows(table, corpus="held-out")
    assert not rows["series"].isin(["point", "envelope", "information"]).any()


def test_rows_of_the_text_alone_are_no_model_in_any_other_figure():
    table = shape("demo")
    mixed = pd.concat([curves(3), table], ignore_index=True)
    for page in PAGES:
        if page.name != "plane_bound":
            pd.testing.assert_frame_equal(page.rows(mixed), page.rows(table))


def test_a_checkpoint_with_duplicate_weights_is_hollow():
    table = shape("demo")
    last = table["revision"] == "step512"
    rows = plane_bound_rows(table.assign(duplicate_of=table["duplicate_of"].mask(last, "step0")))
    figure = draw_plane_bound(rows)
    marked = [line for line in figure.axes[0].lines if line.get_gid() == "measured"]
    assert len(marked) == 6 and all(line.get_markerfacecolor() == "white" for line in marked)
    assert "duplicate weights" in [found for found, _ in drawn_texts(figure)]


def test_a_joint_of_its_own_scale_is_the_one_that_was_solved():
    rows, _ = drawn()
    joint: Joint = text().token_joint.joint
    level = rows[(rows["series"] == "information") & (rows["rows"] == "plug_in")]
    assert level["y"].tolist() == [pytest.approx(joint.mutual_information)]
    assert rows.loc[rows["rows"].eq("plug_in") & rows["series"].eq("point"), "y"].max() <= level["y"].iloc[0] + 1e-9
