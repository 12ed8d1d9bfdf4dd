"""The estimates page and what stands up in it: brackets equal to the CSV, full lines only for resolved changes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from test_figures import drawn_texts, lines, overlapping, same_points, shape, synthetic_table

from infocomp.plotting import changes as judged
from infocomp.plotting.changes import NOT_RESOLVED, RESOLVED, read_changes, resolved
from infocomp.plotting.curves import training, training_rows
from infocomp.plotting.draw import draw_all
from infocomp.plotting.estimates import draw_estimates, estimates, estimates_rows
from infocomp.plotting.selection import NothingToDraw
from infocomp.plotting.style import save
from infocomp.studies import changes as written

WHICH = ["model", "site", "rows", "estimator", "quantity", "label", "weighting", "corpus"]


def changes_of(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A p for every change from a checkpoint to the next, duplicates left out, half of them far from 0."""
    rows = table[table["quantity"].isin(["complexity", "expressivity", "optimality"]) & table["status"].eq("ok")]
    rows = rows[rows["duplicate_of"].isna() & rows["step"].notna()].sort_values("step")
    generator = np.random.default_rng(seed)
    found = []
    for _, path in rows.groupby(WHICH):
        starts = path["revision"].shift()
        p = generator.uniform(0, 1, len(path)) * np.where(generator.random(len(path)) < 0.5, 1e-4, 1.0)
        found.append(path[[*WHICH, "revision"]].assign(from_revision=starts, span="step", p=p)[starts.notna()])
    return pd.concat(found, ignore_index=True)


def named_changes(p: list[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As many changes of one site, with their p, and the same without it."""
    which = dict.fromkeys(WHICH, "") | {"model": "demo", "site": "hook_embed", "quantity": "complexity"}
    drawn = pd.DataFrame([which | {"from_revision": f"step{i}", "revision": f"step{i + 1}"} for i in range(len(p))])
    return drawn.assign(p=p, span="step"), drawn


def test_the_false_discovery_rate_is_held_as_by_hand():
    p = [0.035, 0.001, 0.9, 0.015, 0.045]  # ranked 0.001 ≤ 0.01, 0.015 ≤ 0.02, 0.035 > 0.03, 0.045 > 0.04, 0.9 > 0.05
    found = resolved(*named_changes(p))
    assert found["resolved"].tolist() == [False, True, False, True, False]
    assert found["change_p"].tolist() == p


def test_a_step_up_in_rank_carries_those_below_it():
    assert resolved(*named_changes([0.03, 0.039, 0.02, 0.04, 0.5]))["resolved"].tolist() == [True] * 4 + [False]


def test_the_family_is_what_the_figure_draws():
    changes, drawn = named_changes([0.035, 0.001, 0.9, 0.015, 0.045])
    assert resolved(changes, drawn.iloc[[0]])["resolved"].tolist() == [True]
    assert resolved(changes, drawn.iloc[[0, 2]])["resolved"].tolist() == [False, False]


def test_a_change_that_was_not_judged_is_not_resolved_and_does_not_count():
    changes, drawn = named_changes([0.035, 0.9])
    found = resolved(changes.iloc[:1], drawn)
    assert found["resolved"].tolist() == [True, False] and found["change_p"].isna().tolist() == [False, True]


def test_only_changes_from_step_to_step_are_read():
    changes, drawn = named_changes([0.001])
    assert resolved(changes.assign(span="whole"), drawn)["resolved"].tolist() == [False]


def test_changes_without_columns_or_with_two_p_are_a_sentence():
    changes, drawn = named_changes([0.001])
    with pytest.raises(
        NothingToDraw, match=r"the changes lack the columns weighting, p; give the changes\.csv of a run"
    ):
        resolved(changes.drop(columns=["p", "weighting"]), drawn)
    with pytest.raises(NothingToDraw, match=r"two p-values of one change .*site hook_embed.*draw the runs one by one"):
        resolved(pd.concat([changes, changes.assign(p=0.5)]), drawn)


def test_the_columns_and_the_file_are_those_that_a_run_writes():
    assert judged.CHANGES == written.CHANGES
    assert set(WHICH) == set(judged._WHICH) == set(written.KEY)
    assert {"from_revision", "revision", "span", "p"} < set(written.COLUMNS)


def test_changes_of_several_folders_are_joined_and_text_keeps_its_name(tmp_path: Path):
    changes, _ = named_changes([0.001, 0.5])
    for name, model in (("one", "NA"), ("two", "other")):
        (tmp_path / name).mkdir()
        changes.assign(model=model).to_csv(tmp_path / name / "changes.csv", index=False)
    (tmp_path / "none").mkdir()
    found = read_changes([tmp_path / "one", tmp_path / "none", tmp_path / "two"])
    assert found is not None and found["model"].tolist() == ["NA", "NA", "other", "other"]
    assert found["label"].tolist() == [""] * 4 and found["p"].tolist() == [0.001, 0.5] * 2
    assert read_changes(tmp_path / "none") is None
    (tmp_path / "none" / "changes.csv").write_text("model\ndemo\n")
    with pytest.raises(ValueError, match=r"changes\.csv is no table of changes .*run the study again"):
        read_changes(tmp_path / "none")


def pieces(ax: Axes, gid: str) -> list[tuple[float, float, float]]:
    return [(*map(float, line.get_xdata()), float(line.get_ydata()[1])) for line in ax.lines if line.get_gid() == gid]


def judged_figures() -> list[tuple[pd.DataFrame, Figure, str]]:
    table = shape("demo")
    changes = changes_of(table)
    rows = training_rows(table, changes=changes)
    points = estimates_rows(table, changes=changes)
    return [(rows, training(table, changes=changes), "value"), (points, draw_estimates(points), "point")]


def test_a_line_is_full_only_where_its_change_is_resolved():
    for rows, figure, column in judged_figures():
        known = rows[rows["resolved"].notna()]
        assert 0.2 < known["resolved"].mean() < 0.8
        panels = dict(enumerate(rows[["quantity", "label"]].drop_duplicates().itertuples(index=False)))
        for place, (quantity, label) in panels.items():
            if quantity == "bits_per_byte":
                continue
            ax = figure.axes[place]
            own = rows[(rows["quantity"] == quantity) & (rows["label"] == label)]
            for (model, site), path in own.groupby(["model", "site"]):
                steps = path.set_index("revision")["position"]
                gid = "|".join([model, site, quantity] + ([label] if column == "point" else []))
                for stands, name in ((True, RESOLVED), (False, NOT_RESOLVED)):
                    ends = path[path["resolved"].eq(stands).fillna(False)]
                    expected = [(steps[at["change_from"]], at["position"], at[column]) for _, at in ends.iterrows()]
                    assert sorted(pieces(ax, f"{gid}|{name}")) == sorted(expected), (gid, name)
                looks = {line.get_alpha() for line in ax.lines if line.get_gid() == f"{gid}|{NOT_RESOLVED}"}
                assert looks <= {judged.PALE}
                assert len(lines(ax, gid)) == 0
        texts = [text for text, _ in drawn_texts(figure)]
        assert RESOLVED in texts and NOT_RESOLVED in texts
        assert overlapping(drawn_texts(figure)) == []


def test_no_change_leads_to_or_from_duplicate_weights():
    for rows, _, _ in judged_figures():
        assert rows.loc[rows["duplicate"], "resolved"].isna().all()
        after = rows[(rows["revision"] == "step2") & rows["quantity"].eq("complexity")]
        assert set(after["change_from"]) == {"step0"} and after["change_p"].notna().all()
        assert "step1" in set(rows["revision"])


def test_the_p_of_a_drawn_change_is_its_own_in_the_changes():
    table = shape("demo")
    changes = changes_of(table)
    rows = estimates_rows(table, changes=changes)
    key = ["model", "site", "quantity", "label", "revision"]
    joined = rows[rows["change_p"].notna()].merge(changes, on=key, validate="one_to_one")
    assert (joined["p"] == joined["change_p"]).all() and (joined["change_from"] == joined["from_revision"]).all()
    assert len(joined) == (rows["resolved"].notna()).sum() > 100


def test_without_changes_lines_are_plain_and_the_legend_does_not_speak_of_them():
    table = shape("demo")
    for figure in (training(table), estimates(table)):
        texts = [text for text, _ in drawn_texts(figure)]
        assert RESOLVED not in texts and NOT_RESOLVED not in texts
        assert not [line for ax in figure.axes for line in ax.lines if "resolved" in str(line.get_gid())]


def test_the_estimates_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    rows = estimates_rows(shape("demo"))
    figure = draw_estimates(rows)
    save(figure, tmp_path, "estimates", rows)
    csv = pd.read_csv(tmp_path / "estimates.csv")
    panels = csv[["quantity", "label"]].drop_duplicates().itertuples(index=False)
    for ax, (quantity, label) in zip(figure.axes, panels, strict=True):
        own = csv[(csv["quantity"] == quantity) & (csv["label"] == label)]
        for (model, site), path in own.groupby(["model", "site"]):
            gid = f"{model}|{site}|{quantity}|{label}"
            assert same_points(lines(ax, gid), path[["position", "point"]])
            bands = {band.get_gid(): band.get_paths()[0].vertices for band in ax.collections}
            for name, low, high in (("bracket", "lower", "upper"), ("interval", "ci_low", "ci_high")):
                assert (f"{gid}|{name}" in bands) == bool(path["bracket"].all()), gid
                if path["bracket"].all():
                    ends = {tuple(end) for end in bands[f"{gid}|{name}"]}
                    assert {
                        tuple(end) for column in (low, high) for end in path[["position", column]].to_numpy()
                    } <= ends
                    assert same_points(lines(ax, f"{gid}|plug-in"), path[["position", "value"]])
                    assert same_points(lines(ax, f"{gid}|null"), path[["position", "null"]])
    assert set(csv.loc[csv["bracket"], "site"]) == {"blocks.3.hook_resid_post"}
    assert "lower to upper end (L3)" in [text for text, _ in drawn_texts(figure)]


def test_every_estimate_is_a_row_of_the_table():
    rows, table = estimates_rows(shape("demo")), shape("demo")
    numbers = ["value", "point", "lower", "upper", "ci_low", "ci_high"]
    key = ["model", "revision", "site", "quantity", "label"]
    joined = rows.merge(table[[*key, *numbers]], on=key, suffixes=("", "_table"), validate="one_to_one")
    assert len(joined) == len(rows) > 0
    assert all((joined[name] == joined[f"{name}_table"]).all() for name in numbers)


def test_a_row_with_a_value_but_no_point_leaves_a_gap_and_no_change():
    table = shape("three checkpoints")
    table = table.assign(point=table["point"].where(table["revision"] != "step1"))
    rows = estimates_rows(table, changes=changes_of(table))
    middle = table.loc[table["revision"] == "step1", "step"]
    assert len(middle) and "step1" not in set(rows["revision"]) and "step1" not in set(rows["change_from"])


def test_a_table_without_point_estimates_is_told_so(tmp_path: Path):
    table = synthetic_table({"layers": 2, "checkpoints": 3, "labels": ("token",)})
    with pytest.raises(
        NothingToDraw, match="estimates need complexity or expressivity with a point estimate and a step"
    ):
        estimates(table.assign(point=np.nan))
    with pytest.raises(NothingToDraw, match="the table lacks the columns point, lower; run the study again"):
        estimates(table.drop(columns=["point", "lower"]))
    told: list[str] = []
    draw_all(table, tmp_path, told.append, changes=pd.DataFrame({"p": [0.5]}))
    assert any(sentence.startswith("training is not drawn: the changes lack the columns model") for sentence in told)
