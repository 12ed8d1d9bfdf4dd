"""Figures: legible at several table shapes, equal to their CSV, the same to the byte, clear about what they lack."""

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from infocomp.execution.table import check_unique, rows_to_table, to_frame
from infocomp.plotting.curves import training
from infocomp.plotting.draw import PAGES, draw_all
from infocomp.plotting.heatmaps import heatmaps
from infocomp.plotting.placement import spread, write_beside
from infocomp.plotting.planes import plane_context, plane_label, plane_label_rows
from infocomp.plotting.profile import layer_profile
from infocomp.plotting.selection import NothingToDraw, drawable
from infocomp.plotting.style import new_figure, save, settle, step_text, step_ticks, styled, thin

CAPACITY = math.log2(100)
CODERS = {"gzip -9": 1.93, "xz -9e": 1.61, "PPMd": 1.52}


def log_steps(count: int, last: int) -> list[int]:
    steps = {0} | {round(step) for step in np.geomspace(1, last, max(2, count - 1))}
    extra = iter(range(2, last))
    while len(steps) < count:
        steps.add(next(extra))
    return [*sorted(steps)[: count - 1], last]


def synthetic_rows(
    layers: int = 4,
    checkpoints: int = 11,
    last_step: int = 512,
    model: str = "demo",
    labels: tuple[str, ...] = ("token", "bigram", "trigram", "quadgram"),
    duplicates: tuple[int, ...] = (1,),
    stage: str | None = None,
    seed: int = 0,
    **overrides: object,
) -> Iterator[dict]:
    """Rows as a run writes them, with curves of the usual shape: fitting, then compression, deeper layers more."""
    noise = np.random.default_rng(seed)
    steps = log_steps(checkpoints, last_step)
    common = {"corpus": "held-out", "estimator": "soft", "rows": "raw", "weighting": "frequency", "draw": "mean"}
    common |= {"seed": 0, "model": model, "unit": "bits", "stage": stage, "status": "ok"}
    share = {"token": (0.24, 0.42), "bigram": (0.52, 0.72), "trigram": (0.68, 0.86), "quadgram": (0.74, 0.93)}
    sites = [("hook_embed", None, 0.0)]
    sites += [(f"blocks.{layer}.hook_resid_post", layer, (layer + 1) / layers) for layer in range(layers)]
    sites += [("ln_final.hook_normalized", None, 1.1)]
    for place, step in enumerate(steps):
        age = math.log1p(step) / math.log1p(last_step) if last_step else 1.0
        learnt = 1 / (1 + math.exp(-9 * (age - 0.55)))
        copy_of = f"step{steps[place - 1]}" if place in duplicates and place else None
        revision = f"{stage}-step{step}" if stage else f"step{step}"
        at = common | {"revision": revision, "step": step, "tokens_seen": step * 4096, "duplicate_of": copy_of}
        for site, layer, depth in sites:
            wobble = noise.normal(0, 0.004, 8)
            context = 3.7 - depth * (0.25 + 0.55 * learnt) + (0.35 if site.startswith("ln") else 0) + 0.05 * wobble[0]
            here = at | {"site": site, "layer": layer}
            yield here | cells("context_complexity", context, ceiling=CAPACITY, spread=0.02)
            for order, label in enumerate(labels, start=1):
                low, high = share.get(label, (0.3, 0.5))
                null = context * low
                top = min(context, 8.6 * order)
                known = high + 0.4 * (1 - high) * learnt * (1 - 0.3 * depth) - 0.18 * depth * (high - low)
                complexity = context if depth == 0 and order == 1 else context * known
                about = here | {"label": label, "order": order}
                yield (
                    about | cells("complexity", complexity + wobble[order], null, top, 0.02) | bracket(complexity, null)
                )
                told = context * (low + (high - low) * (0.12 + 0.5 * learnt * (0.35 + 0.65 * depth)))
                yield (
                    about
                    | cells("expressivity", told + wobble[order + 3], null * 0.98, top, 0.02)
                    | bracket(told, null)
                )
                if label == "token":
                    of_token = told * (1 - 0.2 * learnt * max(depth, 0.0))
                    yield about | cells("token_channel_expressivity", of_token, 0.1 * null, None, 0.02)
                    yield about | cells("context_gain", told + wobble[4] - of_token, 0.88 * null, top)
                if complexity - null > 0.05:
                    ratio = (told - null) / (complexity - null)
                    yield about | cells("optimality", ratio, 0.97, None, 0.03)
                else:
                    refused = cells("optimality", None, None, None, None)
                    yield about | refused | {"status": "refused", "message": "complexity is not above its null."}
        rate = 1.62 + 2.3 * (1 - learnt) ** 1.5
        yield at | {"site": "logits"} | cells("bits_per_byte", rate, None, None, None)
        yield at | {"site": "logits"} | cells("bits_per_token", 3.2 * rate, 8.6, None, None)
    if stage not in (None, "stage1"):
        return
    control = common | {"revision": "", "site": "control.gaussian"}
    yield control | cells("context_complexity", 3.75, ceiling=CAPACITY)
    for order, label in enumerate(labels, start=1):
        low = share.get(label, (0.3, 0.5))[0] * 3.75
        for quantity in ("complexity", "expressivity"):
            yield control | {"label": label, "order": order} | cells(quantity, low + 0.01, low, 3.75, 0.02)


def cells(quantity, value, null=None, ceiling=None, spread=None) -> dict:
    share = None if value is None or quantity.startswith(("bits", "opt")) else value / CAPACITY
    return {
        "quantity": quantity,
        "value": value,
        "null": null,
        "ceiling": ceiling,
        "draw_std": spread,
        "efficiency": share,
    }


def bracket(value: float, null: float) -> dict:
    """Point, ends and outer interval of a plug-in value, all other than it."""
    lower, upper = value - 0.6 * null, value + 0.05
    return {"point": value - 0.3 * null, "lower": lower, "upper": upper, "ci_low": lower - 0.1, "ci_high": upper + 0.1}


def classical_rows(corpus: str = "held-out") -> Iterator[dict]:
    for coder, rate in CODERS.items():
        yield {"model": coder, "corpus": corpus, "estimator": "classical", "quantity": "bits_per_byte", "value": rate}


def synthetic_table(*parts: dict, extra: tuple[dict, ...] = ()) -> pd.DataFrame:
    """The table of the models described by `parts` (arguments of `synthetic_rows`), with the classical coders."""
    rows = [row for part in parts or ({},) for row in synthetic_rows(**part)]
    table = rows_to_table([*rows, *classical_rows(), *extra])
    check_unique(table)
    return to_frame(table)


@cache
def shape(name: str) -> pd.DataFrame:
    """Tables of the shapes figures meet: few and many checkpoints, layers, models, stages; a lone revision."""
    two = ("token", "bigram")
    if name == "three checkpoints":
        return synthetic_table({"layers": 2, "checkpoints": 3, "last_step": 4, "duplicates": ()})
    if name == "demo":
        return synthetic_table({})
    if name == "64 layers":
        return synthetic_table({"layers": 64, "checkpoints": 8, "last_step": 143_000, "labels": two})
    if name == "160 checkpoints":
        return synthetic_table({"layers": 6, "checkpoints": 160, "last_step": 143_000, "labels": ("token",)})
    if name == "three models":
        sizes = (
            ("EleutherAI/pythia-70m", 6),
            ("EleutherAI/pythia-160m", 12),
            ("a/model-with-quite-a-long-name-1b", 16),
        )
        return synthetic_table(*({"model": model, "layers": layers, "labels": two} for model, layers in sizes))
    if name == "two stages":
        first = {"stage": "stage1", "last_step": 90_000, "labels": ("token",), "model": "OLMo-2"}
        return synthetic_table(first, first | {"stage": "stage2", "last_step": 4_000, "checkpoints": 5})
    assert name == "one revision without step or null"
    table = synthetic_table({"checkpoints": 2, "labels": two, "duplicates": ()})
    table = table[table["revision"] != "step0"].assign(null=np.nan, draw_std=np.nan)
    return table.assign(step=pd.array([pd.NA] * len(table), dtype="Int64"))


SHAPES = (
    "three checkpoints",
    "demo",
    "64 layers",
    "160 checkpoints",
    "three models",
    "two stages",
    "one revision without step or null",
)


@cache
def drawings(name: str) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """Rows and figure of every page of a shape, for its first model where a page is of one model."""
    drawn = {}
    for page in PAGES:
        chosen = {"model": str(shape(name)["model"].iloc[0])} if page.per_model else {}
        try:
            rows = page.rows(shape(name), **chosen)
        except NothingToDraw:
            assert name == "one revision without step or null" and page.name in ("heatmaps", "training", "estimates")
            continue
        drawn[page.name] = rows, page.draw(rows)
    return drawn


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that a drawing of the figure really draws (tick labels in view too), with its box in pixels."""
    seen: list[Text] = []
    draw = Text.draw

    def remember(self: Text, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        draw(self, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    with styled(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", remember)
        figure.draw_without_rendering()
    return [(text.get_text(), Text.get_window_extent(text)) for text in seen]


def overlapping(texts: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    found = []
    for place, (text, box) in enumerate(texts):
        for other, other_box in texts[place + 1 :]:
            shared = Bbox.intersection(box, other_box)
            if shared is not None and shared.width > 0.5 and shared.height > 0.5:
                found.append((text, other))
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_text_boxes_of_a_figure_overlap_and_none_leaves_the_page(name: str):
    for page, (_, figure) in drawings(name).items():
        texts = drawn_texts(figure)
        assert len(texts) > 10, page
        assert overlapping(texts) == [], page
        page_box = figure.bbox.padded(0.5)
        outside = [text for text, box in texts if not (page_box.contains(*box.min) and page_box.contains(*box.max))]
        assert outside == [], page


def test_the_overlap_test_sees_an_overlap():
    figure = new_figure(2, 2)
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "other")
    assert overlapping(drawn_texts(figure)) == [("one", "other")]


def test_a_plane_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("demo", "three models"):
        for page in ("plane_context", "plane_context_close", "plane_label", "plane_label_close"):
            rows, figure = drawings(name)[page]
            save(figure, tmp_path, page, rows)
            csv = pd.read_csv(tmp_path / f"{page}.csv")
            axes = [ax for ax in figure.axes if ax.get_xlabel() or ax.get_title()]
            for ax, label in zip(axes, csv["label"].unique(), strict=True):
                own = csv[csv["label"] == label]
                for (model, site), path in own[own["kind"] != "control"].groupby(["model", "site"]):
                    for look in ("filled", "hollow"):
                        expected = path.loc[path["duplicate"] == (look == "hollow"), ["x", "y"]]
                        assert same_points(offsets(ax, f"{model}|{site}|{look}"), expected), (page, model, site)
                control = own.loc[own["kind"] == "control", ["x", "y"]]
                assert same_points(offsets(ax, "control"), control)
                assert same_points(offsets(ax, "step 0"), own.loc[own["position"] == 0, ["x", "y"]])
                null = np.vstack([line.get_xydata() for line in ax.lines if line.get_gid() == "null"])
                assert same_points(null, own[["x_null", "y_null"]].dropna())
                ceiling = np.vstack([line.get_xydata() for line in ax.lines if line.get_gid() == "ceiling"])
                assert same_points(ceiling, own[["x_ceiling", "y_ceiling"]].dropna().drop_duplicates())


def test_the_training_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("demo", "three models", "two stages"):
        rows, figure = drawings(name)["training"]
        save(figure, tmp_path, "training", rows)
        csv = pd.read_csv(tmp_path / "training.csv")
        classical = csv["estimator"] == "classical"
        for ax, quantity in zip(
            figure.axes, ("complexity", "expressivity", "optimality", "bits_per_byte"), strict=True
        ):
            own = csv[(csv["quantity"] == quantity) & ~classical]
            for (model, site), path in own.groupby(["model", "site"]):
                assert same_points(lines(ax, f"{model}|{site}|{quantity}"), path[["position", "value"]])
            for column in ("null", "ceiling"):
                assert same_points(lines(ax, column), own[["position", column]]), (name, quantity, column)
        rates = sorted(float(line.get_ydata()[0]) for line in figure.axes[3].lines if line.get_gid() == "classical")
        assert rates == sorted(csv.loc[classical, "value"]) == sorted(CODERS.values())


def test_heatmaps_and_profile_draw_exactly_the_rows_of_their_csv(tmp_path: Path):
    rows, figure = drawings("demo")["heatmaps"]
    save(figure, tmp_path, "heatmaps", rows)
    csv = pd.read_csv(tmp_path / "heatmaps.csv")
    meshes = {mesh.get_gid(): mesh for ax in figure.axes for mesh in ax.collections if isinstance(mesh, QuadMesh)}
    for (quantity, name), cells in csv.groupby(["quantity", "name"]):
        shown = np.asarray(meshes[f"{quantity}|{name}"].get_array()).ravel()
        assert np.array_equal(shown, cells.sort_values("position")["value"]), (quantity, name)
    rows, figure = drawings("demo")["layer_profile"]
    save(figure, tmp_path, "layer_profile", rows)
    csv = pd.read_csv(tmp_path / "layer_profile.csv")
    for ax, quantity in zip(figure.axes[:2], ("complexity", "expressivity"), strict=True):
        points = np.vstack([line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", "", "|", "_")])
        assert same_points(points, csv.loc[csv["quantity"] == quantity, ["place", "value"]])


def test_every_point_is_a_row_of_the_table_and_the_final_norm_is_a_site_of_its_own():
    rows, _ = drawings("demo")["plane_context"]
    table = shape("demo")
    found = table[(table["quantity"] == "expressivity") & (table["label"] == "token") & table["status"].eq("ok")]
    key = ["model", "revision", "site"]
    joined = rows.merge(found[[*key, "value", "null"]], on=key, validate="one_to_one")
    assert len(joined) == len(rows) == len(found)
    assert (joined["y"] == joined["value"]).all() and (joined["y_null"] == joined["null"]).all()
    assert {"hook_embed", "ln_final.hook_normalized", "control.gaussian"} < set(rows["site"])


def test_checkpoints_with_duplicate_weights_are_hollow():
    rows, figure = drawings("demo")["plane_context"]
    assert set(rows.loc[rows["duplicate"], "revision"]) == {"step1"}
    for collection in figure.axes[0].collections:
        kind = str(collection.get_gid()).rsplit("|", 1)[-1]
        if kind in ("hollow", "filled"):
            white = (np.asarray(collection.get_facecolors()) == 1).all(axis=1)
            assert (white.all() if kind == "hollow" else not white.any()) and len(white)
    rows, figure = drawings("demo")["training"]
    for ax in figure.axes:
        hollow = [line for line in ax.lines if line.get_gid() == "hollow"]
        assert hollow and all(line.get_markerfacecolor() == "white" for line in hollow)
        assert {float(step) for line in hollow for step in line.get_xdata()} == {1.0}
    _, figure = drawings("demo")["heatmaps"]
    hatched = [patch for patch in figure.axes[0].patches if patch.get_gid() == "duplicate"]
    assert [(patch.get_x(), patch.get_width(), bool(patch.get_hatch())) for patch in hatched] == [(1, 1, True)]
    table = shape("demo").assign(duplicate_of="step0")
    profile = layer_profile(table)
    marked = [line for line in profile.axes[0].lines if line.get_marker() in ("o", "^", "s", "D")]
    assert marked and all(line.get_markerfacecolor() == "white" for line in marked)


def test_axes_say_that_the_information_is_about_the_soft_quantised_direction():
    for name in ("demo", "three models"):
        for page, (_, figure) in drawings(name).items():
            texts = [text for text, _ in drawn_texts(figure)]
            assert any("J: the soft-quantised direction" in text for text in texts), page
            informations = [text for text in texts if "I(" in text]
            assert informations and not any("Z" in text for text in texts), page
            assert all("J)" in text for text in informations), page
            for ax in figure.axes:
                for label in (ax.get_xlabel(), ax.get_ylabel()):
                    assert "I(" not in label or "bits" in label, (page, label)
    ax = drawings("demo")["plane_context"][1].axes[0]
    assert ax.get_xlabel() == "context complexity I(context; J), bits\nJ: the soft-quantised direction"
    assert ax.get_ylabel() == "expressivity I(Y; J), bits\nY: the token that follows"
    _, figure = drawings("demo")["heatmaps"]
    assert [ax.get_ylabel() for ax in figure.axes[4:]] == ["bits", "bits", "ratio", "bits"]


def test_the_diagonal_is_a_bound_on_one_plane_and_equality_on_the_other():
    texts = {page: [text for text, _ in drawn_texts(figure)] for page, (_, figure) in drawings("demo").items()}
    assert texts["plane_context"].count("data-processing line\nI(Y; J) = I(context; J)") == 1
    assert texts["plane_label"].count("I(Y; J) = I(X; J):\nequality, not a bound") == 4
    for page in ("plane_context", "plane_label"):
        for ax in drawings("demo")[page][1].axes[:-1]:
            (line,) = [line for line in ax.lines if line.get_gid() == "diagonal"]
            assert np.array_equal(line.get_xdata(), line.get_ydata())


def test_a_view_that_leaves_the_null_out_says_where_it_is():
    texts = [text for text, _ in drawn_texts(drawings("demo")["plane_label_close"][1])]
    rows = drawings("demo")["plane_label_close"][0]
    null = rows.loc[(rows["label"] == "token") & (rows["kind"] != "control"), "y_null"]
    (note,) = [text for text in texts if text.startswith("null outside") and f"{null.max():.2f}" in text]
    assert f"y {null.min():.2f} to {null.max():.2f}" in note


def test_the_same_table_gives_the_same_bytes_with_every_font_embedded(tmp_path: Path):
    for page, (rows, figure) in drawings("three checkpoints").items():
        save(figure, tmp_path / "one", page, rows)
    again = draw_all(shape("three checkpoints"), tmp_path / "two", pytest.fail)
    assert len(again) == 3 * len(PAGES)
    for path in again:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes(), path.name
    for path in again:
        if path.suffix == ".pdf":
            pdf = path.read_bytes()
            assert b"CreationDate" not in pdf and b"/Type3" not in pdf
            assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0


def test_drawing_leaves_the_callers_settings_and_pyplot_alone(tmp_path: Path):
    import matplotlib
    import matplotlib.pyplot

    with matplotlib.rc_context({"font.size": 23.0}):
        before = dict(matplotlib.rcParams)
        save(plane_context(shape("three checkpoints")), tmp_path, "plane", pd.DataFrame())
        assert dict(matplotlib.rcParams) == before
        assert matplotlib.pyplot.get_fignums() == []


def test_rows_that_failed_or_are_of_another_kind_change_nothing():
    table = shape("demo")
    some = table[table["quantity"].isin(["complexity", "expressivity", "context_complexity"])]
    others = [
        some.assign(draw="0", value=9.0),
        some.assign(weighting="uniform", value=9.0),
        some.assign(rows="centred", value=9.0),
        some.assign(estimator="kmeans", value=9.0),
        some.assign(seed=pd.array([1] * len(some), dtype="Int64"), value=9.0),
        some.assign(status="failed", value=np.nan, message="ran out of memory", revision="step9999"),
        some.assign(status="undetermined", value=9.0, revision="step9999"),
    ]
    mixed = pd.concat([table, *others], ignore_index=True)
    for page in PAGES:
        pd.testing.assert_frame_equal(page.rows(mixed), page.rows(table))


def test_centred_rows_are_drawn_where_a_model_has_no_raw_ones():
    table = shape("three checkpoints")
    centred = table.assign(rows=table["rows"].where(table["rows"] != "raw", "centred"))
    for page in PAGES:
        pd.testing.assert_frame_equal(page.rows(centred), page.rows(table))


def test_the_row_null_stands_in_where_there_is_no_other_and_is_named():
    table = shape("three checkpoints")
    only_rows = table.assign(null=np.nan, null_rows=table["null"])
    texts = [text for text, _ in drawn_texts(plane_context(only_rows))]
    assert "null: rows permuted" in texts and "null: another document's rows" not in texts


def test_a_later_stage_is_counted_on_from_the_end_of_the_one_before():
    rows = drawable(shape("two stages"))
    ends = rows.groupby("stage")["position"].agg(["min", "max"])
    assert ends.loc["stage1"].tolist() == [0, 90_000]
    assert ends.loc["stage2"].tolist() == [90_000, 94_000]
    _, figure = drawings("two stages")["training"]
    for ax in figure.axes:
        assert [line.get_xdata()[0] for line in ax.lines if line.get_gid() == "stage"] == [90_000]


def test_with_64_layers_at_most_eight_trajectories_are_drawn_and_named():
    rows, figure = drawings("64 layers")["plane_context"]
    blocks = rows.loc[rows["kind"] == "block", "name"].unique()
    assert list(blocks) == ["L0", "L9", "L18", "L27", "L36", "L45", "L54", "L63"]
    texts = [text for text, _ in drawn_texts(figure)]
    assert all(texts.count(name) == 1 for name in [*blocks, "embed", "norm"])


def test_several_models_have_markers_of_their_own_and_a_legend():
    _, figure = drawings("three models")["plane_context"]
    shapes = {}
    for collection in figure.axes[0].collections:
        if str(collection.get_gid()).count("|") == 2:
            model = str(collection.get_gid()).split("|")[0]
            shapes.setdefault(model, set()).add(collection.get_paths()[0].vertices.tobytes())
    assert len(shapes) == 3 and all(len(found) == 1 for found in shapes.values())
    assert len(set.union(*shapes.values())) == 3
    texts = [text for text, _ in drawn_texts(figure)]
    assert {"pythia-70m", "pythia-160m", "model-with-quite-a-long-nam…"} <= set(texts)


def test_what_a_table_lacks_is_told_in_one_sentence_and_the_rest_is_drawn(tmp_path: Path):
    told: list[str] = []
    table = shape("three checkpoints")
    rates = table[table["quantity"].isin(["bits_per_byte", "bits_per_token"])]
    written = draw_all(rates, tmp_path, told.append)
    assert [path.name for path in written] == ["training.pdf", "training.png", "training.csv"]
    assert told == [
        "plane_context is not drawn: the table holds no expressivity of one label.",
        "plane_context_close is not drawn: the table holds no expressivity of one label.",
        "plane_label is not drawn: the table holds no complexity and expressivity of one label.",
        "plane_label_close is not drawn: the table holds no complexity and expressivity of one label.",
        "estimates is not drawn: estimates need complexity or expressivity with a point estimate and a step.",
        "plane_bound is not drawn: the bound needs bottleneck curves (set bottleneck: in the configuration) "
        "or token_channel_expressivity.",
        "heatmaps is not drawn: heatmaps need an information or optimality at checkpoints with a step.",
        "layer_profile is not drawn: a layer profile needs complexity or expressivity at some label.",
    ]
    texts = [text for text, _ in drawn_texts(training(rates))]
    assert "no complexity in the table" in texts


def test_an_empty_or_foreign_table_draws_nothing_and_says_why(tmp_path: Path):
    for table, reason in (
        (shape("demo").iloc[:0], "the table holds no row with status 'ok', draw 'mean' and weighting 'frequency'"),
        (pd.DataFrame({"step": [1]}), "the table lacks the columns model, revision, corpus"),
    ):
        told: list[str] = []
        assert draw_all(table, tmp_path / "figures", told.append) == []
        assert len(told) == len(PAGES) and all(reason in sentence for sentence in told)
        assert not (tmp_path / "figures").exists()


def test_a_figure_of_several_texts_or_models_asks_for_one():
    table = shape("three models")
    with pytest.raises(NothingToDraw, match=r"holds 3 models \(EleutherAI/pythia-70m, .*\); name one with model="):
        heatmaps(table)
    with pytest.raises(NothingToDraw, match="there is none called 'gpt-5'"):
        layer_profile(table, model="gpt-5")
    texts = pd.concat([shape("three checkpoints"), shape("three checkpoints").assign(corpus="wiki")])
    with pytest.raises(NothingToDraw, match=r"holds 2 texts \(held-out, wiki\); name one with corpus="):
        plane_label(texts)
    assert len(plane_label_rows(texts, corpus="wiki")) == len(plane_label_rows(shape("three checkpoints")))


def test_each_text_and_each_model_has_files_of_its_own(tmp_path: Path):
    table = synthetic_table(
        {"layers": 2, "checkpoints": 2, "labels": ("token",), "model": "org/one"},
        {"layers": 2, "checkpoints": 2, "labels": ("token",), "model": "org/two"},
    )
    table = table[table["quantity"] == "context_complexity"].assign(quantity="regularity")  # no figure draws it
    table = pd.concat([table, table[table["model"] == "org/one"].assign(corpus="wiki")])
    told: list[str] = []
    assert draw_all(table, tmp_path, told.append) == []
    names = [sentence.split(" is not drawn: ")[0] for sentence in told]
    shared = ["plane_context", "plane_context_close", "plane_label", "plane_label_close", "training"]
    of_one_model = ["estimates", "plane_bound", "heatmaps", "layer_profile"]
    assert names == [
        *[f"{page}-held-out" for page in shared],
        *[f"{page}-held-out-org-{model}" for page in of_one_model for model in ("one", "two")],
        *[f"{page}-wiki" for page in [*shared, *of_one_model]],
    ]


def test_a_ratio_out_of_all_proportion_does_not_take_the_scale():
    table = shape("demo")
    wild = (table["quantity"] == "optimality") & (table["revision"] == "step2")
    table = table.assign(value=table["value"].where(~wild, 500.0))
    figure = training(table)
    assert figure.axes[2].get_ylim() == (-0.5, 1.5)
    assert figure.axes[2].get_ylabel().endswith("(cut)")
    assert heatmaps(table).axes[6].get_ylim()[1] == 1.5


def test_a_label_of_ones_own_is_drawn_too():
    table = synthetic_table({"layers": 2, "checkpoints": 3, "labels": ("token", "part of speech")})
    texts = [text for text, _ in drawn_texts(plane_label(table, labels=["part of speech"]))]
    assert "X: the last part of speech, Y: the part of speech that follows" in texts
    both = drawn_texts(plane_label(table))
    assert overlapping(both) == []
    assert [text.split(",")[0] for text, _ in both if text.startswith("X:")] == [
        "X: the last token",
        "X: the last part of speech",
    ]


def test_names_beside_each_other_move_apart_no_further_than_needed():
    assert spread([1.0, 5.0, 9.0], 2.0) == [1.0, 5.0, 9.0]
    assert spread([5.0, 5.0], 2.0) == [4.0, 6.0]
    assert spread([6.0, 5.0, 5.5], 2.0) == [7.5, 3.5, 5.5]
    placed = spread([0.0, 0.1, 3.0, 3.0, 9.0], 1.0)
    assert placed == sorted(placed) and min(np.diff(placed)) > 1.0 - 1e-12


def test_a_text_goes_to_the_nearest_free_place():
    figure = new_figure(3, 3)
    ax = figure.add_subplot()
    settle(figure)
    crowd = np.column_stack([np.random.default_rng(0).uniform(0.4, 0.6, 400), np.linspace(0, 1, 400)])
    written = write_beside(ax, np.full((12, 2), 0.5), ["name"] * 12, crowd)
    assert len(written) == 12 and overlapping(drawn_texts(figure)) == []
    where = np.array([text.get_position() for text in written])
    assert (np.abs(where[:, 0] - 0.5) > 0.1).all()


def test_steps_are_thinned_and_written_short():
    assert thin(5, 8) == [0, 1, 2, 3, 4] and thin(1, 8) == [0] and thin(0, 8) == []
    assert thin(12, 8) == [0, 2, 4, 6, 8, 11]
    assert thin(160, 6)[0] == 0 and thin(160, 6)[-1] == 159 and len(thin(160, 6)) == 6
    assert thin(4, 1) == [3]
    assert [step_text(step) for step in (0, 512, 1000, 1500, 143_000, 2e6)] == ["0", "512", "1k", "1.5k", "143k", "2M"]
    assert step_ticks(0, 512) == [0, 1, 10, 100, 512]
    assert step_ticks(0, 143_000)[0] == 0 and len(step_ticks(0, 143_000)) <= 6
    assert step_ticks(100_000, 143_000) == [100_000, 120_000, 143_000]


def same_points(drawn: np.ndarray, expected: pd.DataFrame) -> bool:
    """Equal as sets of points, whatever their order; NaN equals NaN."""
    one, two = (np.asarray(points, dtype=float).reshape(-1, 2) for points in (drawn, expected))
    return one.shape == two.shape and np.array_equal(one[np.lexsort(one.T)], two[np.lexsort(two.T)], equal_nan=True)


def offsets(ax: Axes, gid: str) -> np.ndarray:
    found = [np.asarray(collection.get_offsets()) for collection in ax.collections if collection.get_gid() == gid]
    return np.vstack(found)


def lines(ax: Axes, gid: str) -> np.ndarray:
    found = [np.asarray(line.get_xydata()) for line in ax.lines if line.get_gid() == gid]
    return np.vstack(found) if found else np.empty((0, 2))
