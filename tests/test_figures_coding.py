"""The coding figures: equal to their CSV, right by hand, legible, silent where the table has nothing for them."""

import importlib.util
import itertools
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from coding_tables import (
    BYTES,
    CHUNKS,
    CODERS,
    KINDS,
    STEPS,
    WIDTHS,
    Maker,
    classical,
    codec,
    frame,
    full_rows,
    full_table,
    modality,
    prequential,
    ranks,
    rate_at,
    rates,
    weights_bytes,
    weights_rate,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from test_figures import drawn_texts, lines, overlapping, same_points, shape, synthetic_rows

from infocomp.coding.published import pythia_wikitext
from infocomp.execution.table import RESULTS, rows_to_table
from infocomp.plotting.coding_chunks import coding_chunks_rows
from infocomp.plotting.coding_context import coding_context, coding_context_rows
from infocomp.plotting.coding_retention import coding_retention_rows
from infocomp.plotting.coding_selection import coding_texts, in_training, of_coding
from infocomp.plotting.coding_style import byte_text
from infocomp.plotting.coding_table import coding_table, coding_table_rows
from infocomp.plotting.coding_training import coding_training_rows
from infocomp.plotting.coding_widths import coding_widths_rows
from infocomp.plotting.draw import CODING_PAGES, CODING_TABLE, PAGES, Page, draw_all, figures_of
from infocomp.plotting.selection import NothingToDraw
from infocomp.plotting.style import save

TEXT = "alice29.txt"
OTHER = "org/pythia-of-a-long-name-160m"


@cache
def table(name: str) -> pd.DataFrame:
    """Tables of the shapes a coding study writes."""
    if name == "full":
        return full_table()
    if name == "two models":
        rows = [*full_rows(), *full_rows(OTHER, in_training="likely", coders=False)]
        return frame(rows)
    if name == "one checkpoint":
        last = f"step{STEPS[-1]}"
        kept = [made for made in full_rows() if made["revision"] in (last, "")]
        return frame([made | {"step": None, "revision": "main" if made["revision"] else ""} for made in kept])
    if name == "with informations":
        measured = synthetic_rows(layers=2, checkpoints=4, labels=("token",))
        informations = [made for made in measured if not made["quantity"].startswith("bits_")]
        coding = [made | {"corpus": "held-out"} for made in [*full_rows(), *prequential("demo", "held-out")]]
        return frame([*informations, *coding])
    assert name == "many texts"
    rows = []
    for text, said in (("one", "known"), ("another", "likely"), ("third", "unknown")):
        make = Maker("demo", text, 512, said)
        rows += [*rates(make, 512), *codec(make, 512), *ranks(make, 512), *classical(text, CODERS, said)]
        rows += list(modality(Maker("demo", f"{text}.png patches", 512, "no"), f"{text}.png patches"))
    return frame(rows)


SHAPES: dict[str, tuple[str, ...]] = {
    "full": tuple(page.name for page in (CODING_TABLE, *CODING_PAGES)),
    "two models": ("coding_table", "coding_training", "coding_context", "coding_chunks"),
    "one checkpoint": ("coding_context", "coding_widths"),
    "with informations": ("coding_training",),
    "many texts": ("coding_table",),
}


@cache
def drawings(name: str) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """Rows and figure of every coding page of the table's first text and model."""
    text = coding_texts(table(name))[0]
    drawn = {}
    for page in (CODING_TABLE, *CODING_PAGES):
        chosen = {"corpus": text} | ({"model": "demo"} if page.per_model else {}) if page is not CODING_TABLE else {}
        if page.name not in SHAPES[name]:
            continue
        rows = page.rows(table(name), **chosen)
        drawn[page.name] = rows, page.draw(rows)
    return drawn


@pytest.mark.parametrize("name", SHAPES)
def test_no_two_texts_of_a_coding_figure_overlap_and_none_leaves_the_page(name: str):
    for page, (_, figure) in drawings(name).items():
        texts = drawn_texts(figure)
        assert len(texts) > 10, page
        assert overlapping(texts) == [], page
        box = figure.bbox.padded(0.5)
        assert [text for text, own in texts if not (box.contains(*own.min) and box.contains(*own.max))] == [], page


def read_back(name: str, page: str, folder: Path) -> tuple[pd.DataFrame, list[Axes]]:
    """A page's rows as its CSV holds them, and the axes that were drawn."""
    rows, figure = drawings(name)[page]
    save(figure, folder, page, rows)
    return pd.read_csv(folder / f"{page}.csv", keep_default_na=False, na_values=[""]), figure.axes


def test_the_context_curve_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("full", "two models"):
        csv, (ax,) = read_back(name, "coding_context", tmp_path)
        for (model, revision), path in csv.groupby(["model", "revision"]):
            assert same_points(lines(ax, f"{model}|{revision}"), path[["place", "value"]])
            (ribbon,) = [band for band in ax.collections if band.get_gid() == f"{model}|{revision}|interval"]
            ends = {tuple(end) for end in ribbon.get_paths()[0].vertices}
            assert {tuple(end) for side in ("low", "high") for end in path[["place", side]].to_numpy()} <= ends
        assert ax.get_xscale() == "log"
    first = csv[csv["place_from"] == 1].iloc[0]
    assert (first["place_to"], first["place"]) == (2, pytest.approx(np.sqrt(6)))


def test_the_context_curve_takes_the_interval_and_says_which():
    rows = coding_context_rows(table("full"), corpus=TEXT)
    assert set(rows["interval"]) == {"95 % interval"} and np.allclose(rows["low"], rows["value"] - 0.3)
    only_errors = table("full").assign(ci_low=np.nan, ci_high=np.nan)
    rows = coding_context_rows(only_errors, corpus=TEXT)
    assert set(rows["interval"]) == {"± 1 standard error"} and np.allclose(rows["high"], rows["value"] + 0.16)
    texts = [text for text, _ in drawn_texts(coding_context(only_errors, corpus=TEXT))]
    assert "± 1 standard error over documents" in texts and "95 % interval over documents" not in texts


def test_a_bin_without_a_null_of_its_own_has_that_of_the_text():
    rows = coding_context_rows(table("full"), corpus=TEXT)
    assert set(rows["null"]) == {9.6}


def test_of_many_checkpoints_some_context_curves_are_drawn_with_the_last():
    rows = [made for step in range(40) for made in full_steps(step)]
    drawn = coding_context_rows(frame(rows), corpus=TEXT)["revision"].unique()
    assert 4 < len(drawn) <= 8 and drawn[0] == "step0" and drawn[-1] == "step39"


def full_steps(step: int) -> list[dict]:
    make = Maker("demo", TEXT, step)
    return [make("bits_per_token", 8.0 / (1 + step), label=f"position {place}-{place}") for place in (0, 1)]


def test_speed_is_input_a_minute_and_the_input_is_what_rate_and_size_say():
    rows = coding_chunks_rows(table("full"), corpus=TEXT)
    speeds = rows[rows["series"].isin(["compress", "decompress"]) & ~rows["default"]].set_index(["series", "chunk"])
    assert speeds["input_bytes"].eq(BYTES).all()
    seconds = 8.0 * (256 / 64) ** 0.35
    assert speeds.loc[("compress", 256), "kB_per_minute"] == pytest.approx(60 * BYTES / 1000 / seconds)
    ratio = speeds.loc["compress", "kB_per_minute"] / speeds.loc["decompress", "kB_per_minute"]
    assert np.allclose(ratio, 1.22) and set(ratio.index) == set(CHUNKS)
    default = rows[rows["default"] & rows["series"].eq("compress")]
    assert default["chunk"].tolist() == [256] and default["kB_per_minute"].iloc[0] == pytest.approx(60 * BYTES / 12_600)


def test_the_chunks_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, (speeds, rates_over_chunks) = read_back("full", "coding_chunks", tmp_path)
    for series in ("compress", "decompress"):
        own = csv[csv["series"] == series]
        columns = ["bits_per_byte", "kB_per_minute"]
        assert same_points(lines(speeds, f"demo|{series}"), own.loc[~own["default"], columns])
        assert same_points(lines(speeds, f"demo|{series}|default"), own.loc[own["default"], columns])
    for series in ("disjoint", "sliding"):
        own = csv.loc[csv["series"] == series, ["chunk", "bits_per_byte"]]
        assert same_points(lines(rates_over_chunks, f"demo|{series}"), own) and len(own) >= len(CHUNKS)
    best = csv.loc[csv["series"] == "compress", "bits_per_byte"].min()
    (shade,) = [patch for patch in speeds.patches if patch.get_gid() == "within"]
    assert shade.get_extents().transformed(speeds.transData.inverted()).xmax == pytest.approx(1.03 * best)


def test_weights_and_data_are_added_as_bits_per_byte_of_the_corpus():
    rows = coding_widths_rows(table("full"), corpus=TEXT)
    of_width = rows[(rows["series"] == "width") & (rows["bits"] == 4)].set_index("corpus_bytes")["two_part"]
    assert of_width[1e7] == pytest.approx(weights_rate(4) + 8 * weights_bytes(4) / 1e7)
    assert of_width[np.inf] == pytest.approx(weights_rate(4))
    over_sizes = rows[rows["series"] == "size"]
    pairs = over_sizes[["bits", "corpus_bytes"]].to_numpy()
    by_law = [weights_rate(bits) + 8 * weights_bytes(bits) / size for bits, size in pairs]
    assert np.allclose(over_sizes["two_part"], by_law) and set(over_sizes["bits"]) == set(WIDTHS)
    for size, path in rows[rows["series"] == "width"].groupby("corpus_bytes"):
        by_hand = {bits: weights_rate(bits) + 8 * weights_bytes(bits) / float(str(size)) for bits in WIDTHS}
        assert path.loc[path["minimum"], "bits"].tolist() == [min(by_hand, key=by_hand.__getitem__)]


def test_break_even_points_are_those_of_the_table_and_lie_on_both_lines():
    better = [made for made in full_rows() if made["model"] != "PPMd"]
    better += list(classical(TEXT, {"PPMd": 2.6}))
    better = [made for made in better if not made["label"].endswith("against PPMd")]
    found = frame(better)
    rows = coding_widths_rows(found)
    equal = rows[rows["series"] == "break-even"]
    assert set(equal["coder"]) == {"xz -9e", "PPMd"}
    own = found[found["quantity"].eq("break_even_bytes") & found["value"].notna()].set_index("label")["value"]
    for _, point in equal[equal["coder"] == "xz -9e"].iterrows():
        assert point["corpus_bytes"] == pytest.approx(own[f"weights {point['bits']:g} bits against xz -9e"])
    assert len(equal[equal["coder"] == "xz -9e"]) == len(own)
    total = equal["rate"] + 8 * equal["model_bytes"] / equal["corpus_bytes"]
    assert np.allclose(total, equal["coder"].map({"xz -9e": CODERS["xz -9e"], "PPMd": 2.6}))


def test_the_widths_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, (left, right) = read_back("full", "coding_widths", tmp_path)
    for size, path in csv[csv["series"] == "width"].groupby("corpus_bytes"):
        gid = "data alone" if np.isinf(float(str(size))) else f"corpus {size:g}"
        assert same_points(lines(left, gid), path[["bits", "two_part"]])
    for bits, path in csv[csv["series"] == "size"].groupby("bits"):
        assert same_points(lines(right, f"{bits:g} bits"), path[["corpus_bytes", "two_part"]])
    equal = csv.loc[csv["series"] == "break-even", ["corpus_bytes", "two_part"]]
    assert same_points(lines(right, "break-even"), equal) and len(equal)
    texts = [text for text, _ in drawn_texts(drawings("full")["coding_widths"][1])]
    assert "2 bits (xz -9e: never, PPMd: never)" in texts
    assert f"4 bits (xz -9e: {byte_text(float(equal['corpus_bytes'].min()))}, PPMd: never)" in texts


def test_under_what_a_break_even_size_holds_is_said_and_its_axis_starts_where_lines_do():
    rows, figure = drawings("full")["coding_widths"]
    said = "in brackets: break-even size of corpus; both rates held constant, measured on 152 kB of this text; "
    assert f"{said}tokenizer not counted" in [text for text, _ in drawn_texts(figure)]
    right = figure.axes[1]
    first = min(
        size
        for size, total in rows.loc[rows["series"] == "size", ["corpus_bytes", "two_part"]].to_numpy()
        if total <= right.get_ylim()[1]
    )
    assert 0.5 * first < right.get_xlim()[0] < first
    assert right.get_ylabel() == figure.axes[0].get_ylabel() == "weights and data, bits per byte of corpus"
    unsaid = [made | {"settings": {}} if made["estimator"] == "classical" else made for made in full_rows()]
    figure = CODING_PAGES[3].draw(coding_widths_rows(frame(unsaid), corpus=TEXT))
    assert any("constant, measured on this text; tokenizer" in text for text, _ in drawn_texts(figure))


def test_kinds_stand_in_the_order_of_what_costs_the_model_most():
    rows = coding_retention_rows(table("full"), corpus=TEXT)
    model = rows[(rows["model"] == "demo") & (rows["quantity"] == "bits_per_byte")]
    assert model["kind"].tolist() == sorted(KINDS, key=lambda kind: -KINDS[kind][0])
    assert model["place"].tolist() == list(range(len(KINDS)))
    assert rows["share"].sum() == pytest.approx(1.0)
    bits = {
        kind: rate * (2 if kind in ("punctuation", "whitespace") else 5) * tokens
        for kind, (rate, _, _, tokens) in KINDS.items()
    }
    named = rows[rows["share"].notna()].set_index("kind")["share"]
    assert named["name"] == pytest.approx(bits["name"] / sum(bits.values()))
    twin = rows[rows["model"] == "PPM"].set_index("kind")["value"]
    assert twin.to_dict() == {kind: own[2] for kind, own in KINDS.items()}


def test_the_retention_page_says_what_its_brackets_hold():
    texts = [text for text, _ in drawn_texts(drawings("full")["coding_retention"][1])]
    assert "in brackets: tokens of the kind; decile 10: the rarest words" in texts and "date (41)" in texts
    plain = table("full").assign(n_tokens=pd.array([None] * len(table("full")), dtype="Int64"))
    page = CODING_PAGES[4]
    texts = [text for text, _ in drawn_texts(page.draw(page.rows(plain, corpus=TEXT)))]
    assert "date" in texts and not any("in brackets" in text for text in texts)


def test_the_retention_page_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("full", "coding_retention", tmp_path)
    for ax, quantity in zip(axes[:2], ("bits_per_byte", "bits_per_token"), strict=True):
        for model, shift in (("demo", -0.12), ("PPM", 0.12)):
            own = csv[(csv["quantity"] == quantity) & (csv["model"] == model)]
            assert same_points(lines(ax, model), own[["value"]].assign(place=own["place"] + shift))
            bars = [found for found in ax.collections if found.get_gid() == f"{model}|interval"]
            segments = np.array([found.get_segments() for found in bars]).reshape(-1, 2, 2)
            assert sorted(segments[:, :, 0].tolist()) == sorted(own[["low", "high"]].to_numpy().tolist())
    widths = [bar.get_width() for bar in axes[2].patches]
    assert widths == pytest.approx((100 * csv["share"].dropna()).tolist())


def test_the_table_of_coders_holds_every_coder_once_and_the_ideal_only_without_a_file():
    rows = coding_table_rows(table("full"))
    text = rows[rows["corpus"] == TEXT]
    assert set(text.loc[text["family"] == "classical", "name"]) == set(CODERS)
    assert text.loc[text["family"] == "codec", "name"].tolist() == ["model, arithmetic coding"]
    assert (text["family"] == "ranks").sum() == 3 and not (text["family"] == "ideal").any()
    assert all(own["value"].is_monotonic_increasing for _, own in text.groupby("panel"))
    assert "PPM" not in set(text["model"])
    mapped = rows[rows["corpus"] == "camera.png patches"]
    expected = {"model, lost bits appended", "model, scaled by 8/7", "model, lost bits coded"}
    assert set(mapped.loc[mapped["family"] == "mapped", "name"]) == expected
    assert set(mapped.loc[mapped["family"] == "chunked", "name"]) >= {"PNG, chunk 2048 B", "gzip -9, chunk 2048 B"}
    assert "training text" not in set(rows["corpus"])
    without = table("full")[table("full")["estimator"] != "arithmetic_coding"]
    text = coding_table_rows(without).query("corpus == @TEXT and family != 'ranks'")
    assert text.loc[text["family"] == "ideal", "value"].tolist() == [rate_at(STEPS[-1])]


def test_only_codes_of_the_same_bytes_share_a_panel():
    rows = coding_table_rows(frame([*full_rows(), *first_part({"PPMd": 2.3, "xz -9e": 2.8})]))
    whole, part = (rows[rows["panel"] == f"{TEXT}, {size}"] for size in ("152 kB", "first 100 kB"))
    assert len(whole) + len(part) == len(rows)
    assert set(whole["family"]) == {"codec", "classical"} and set(part["family"]) == {"ranks", "classical"}
    assert set(part.loc[part["family"] == "classical", "name"]) == {"PPMd", "xz -9e"}
    assert part["input_bytes"].between(99_900, 100_100).all() and whole["input_bytes"].between(152_000, 152_200).all()
    rows = coding_table_rows(frame([made for made in full_rows() if made["estimator"] not in ("arithmetic_coding",)]))
    assert set(rows.loc[rows["panel"] == f"{TEXT}, 152 kB", "family"]) == {"ideal", "classical"}
    texts = [text for text, _ in drawn_texts(coding_table(table("full")))]
    assert f"{TEXT}, 152 kB\nin the training data: no" in texts


def first_part(coders: dict[str, float]) -> list[dict]:
    """Classical coders on the first 100 kB."""
    about = {"label": "first 100000 bytes", "in_training": "no"}
    sizes = {coder: {"coded_bytes": round(100_000 * rate / 8)} for coder, rate in coders.items()}
    return [made | about | {"settings": sizes[made["model"]]} for made in classical(TEXT, coders)]


def test_a_container_of_a_part_is_not_drawn_among_rates_of_the_whole():
    longer = [made for made in full_rows() if made["estimator"] != "classical" or made["label"]]
    longer += [made | {"settings": {"coded_bytes": 10**6}} for made in classical(TEXT, CODERS)]
    whole, part = frame(list(full_rows())), frame(longer)
    assert "arithmetic_coding" in set(coding_training_rows(whole)["estimator"])
    assert "arithmetic_coding" not in set(coding_training_rows(part)["estimator"])
    for one, label, drawn in ((whole, "whole container", 5), (part, "whole container of the first 152 kB", 0)):
        figure = CODING_PAGES[2].draw(coding_chunks_rows(one))
        assert figure.axes[0].get_xlabel() == f"{label}, bits per byte"
        assert len(lines(figure.axes[1], "demo|container")) == drawn


def test_the_axis_of_windows_ends_at_the_longest_window_whatever_chunks_the_codec_took():
    longer = codec(Maker("demo", TEXT, STEPS[-1], "no"), STEPS[-1], ["chunk 4096"])
    rows = coding_chunks_rows(frame([*full_rows(), *longer]), corpus=TEXT)
    figure = CODING_PAGES[2].draw(rows)
    speeds, over_chunks = figure.axes
    assert 512 < over_chunks.get_xlim()[1] < 700
    assert lines(over_chunks, "demo|container")[:, 0].max() == 512
    assert 4096 in set(rows.loc[rows["series"] == "compress", "chunk"])
    assert len(lines(speeds, "demo|compress")) == len(CHUNKS) + 1
    assert "4096" in [text.get_text() for text in speeds.texts]


def test_a_container_below_the_code_length_is_explained_and_only_then():
    said = "its coder's smallest weight caps what a token costs"
    below = [
        made | ({"value": 0.9 * made["value"]} if made["estimator"] == "arithmetic_coding" else {})
        for made in full_rows()
    ]
    for rows, expected in ((list(full_rows()), False), (below, True)):
        figure = CODING_PAGES[2].draw(coding_chunks_rows(frame(rows), corpus=TEXT))
        texts = [text for text, _ in drawn_texts(figure)]
        assert any(text.startswith("numbers: tokens in a chunk") for text in texts)
        assert any(said in text for text in texts) == expected


def test_one_chunk_length_is_no_sweep():
    kept = table("full")[~((table("full")["estimator"] == "arithmetic_coding") & (table("full")["label"] != ""))]
    rows = coding_chunks_rows(kept, corpus=TEXT)
    assert set(rows["series"]) == {"disjoint", "sliding"}
    assert len(CODING_PAGES[2].draw(rows).axes) == 1


def test_the_default_windows_are_a_point_where_they_do_not_overlap():
    only = [
        made | ({"settings": {"stride": 1023}, "context_length": 1024} if made["label"] == "" else {})
        for made in full_rows()
    ]
    only = [made for made in only if made["estimator"] == "code_length"]
    rows = coding_chunks_rows(frame(only)).query("series == 'disjoint'")
    assert rows["chunk"].tolist() == [*CHUNKS, 1024] and rows["bits_per_byte"].iloc[-1] == rate_at(STEPS[-1])
    overlapped = [made | ({"settings": {"stride": 512}} if made["label"] == "" else {}) for made in only]
    assert coding_chunks_rows(frame(overlapped)).query("series == 'disjoint'")["chunk"].tolist() == list(CHUNKS)


def test_bytes_that_no_model_coded_have_no_panel():
    few = [made for made in full_rows() if not made["estimator"].startswith("rank")]
    rows = coding_table_rows(frame([*few, *first_part(CODERS)]))
    assert set(rows["panel"]) == {f"{TEXT}, 152 kB"}


def test_the_table_of_coders_names_its_model_and_says_whose_header_is_counted():
    texts = [text for text, _ in drawn_texts(coding_table(table("full")))]
    assert "model: demo, step 512" in texts
    assert "model, real container (header counted)" in texts
    assert "model, ranks then a classical coder (header not counted)" in texts
    texts = [text for text, _ in drawn_texts(coding_table(table("two models")))]
    assert "models: demo, step 512; pythia-of-a-long-name-160m, step 512" in texts


def test_a_text_named_by_its_size_has_the_size_once():
    named = frame([made | {"corpus": "held-out 152 kB"} for made in [*full_rows(), *first_part(CODERS)]])
    assert set(coding_table_rows(named)["panel"]) == {"held-out 152 kB", "held-out 152 kB, first 100 kB"}


def test_the_table_of_coders_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    csv, axes = read_back("many texts", "coding_table", tmp_path)
    drawn = [ax for ax in axes if ax.get_visible()]
    for ax, (_, own) in zip(drawn, csv.groupby("panel", sort=False), strict=True):
        assert [bar.get_width() for bar in ax.patches] == own["value"].tolist()
        assert [label.get_text() for label in ax.get_yticklabels()] == own["name"].tolist()


def test_every_coding_figure_says_whether_the_text_was_in_the_training_data():
    for name, said in (("full", "no"), ("two models", "no (demo), likely (pythia-of-a-long-name-160m)")):
        for page, (_, figure) in drawings(name).items():
            asked = said
            texts = [" ".join(text.split()) for text, _ in drawn_texts(figure)]
            ways = {f"in the training data: {', '.join(order)}" for order in itertools.permutations(asked.split(", "))}
            assert any(way in text for text in texts for way in ways), (name, page)
    rows = pd.DataFrame({"model": ["a"], "in_training": [""]})
    assert in_training(rows) == "unknown"


def test_the_rate_over_training_draws_exactly_the_rows_of_its_csv(tmp_path: Path):
    for name in ("full", "two models", "with informations"):
        csv, (ax, *others) = read_back(name, "coding_training", tmp_path)
        rates_drawn = csv[csv["quantity"] == "bits_per_byte"]
        for (model, estimator), path in rates_drawn[rates_drawn["step"].notna()].groupby(["model", "estimator"]):
            assert same_points(lines(ax, f"{model}|{estimator}"), path[["position", "value"]])
        coders = csv[csv["estimator"] == "classical"]
        across = sorted(float(line.get_ydata()[0]) for line in ax.lines if line.get_gid() == "classical")
        assert across == sorted(coders["value"]) == sorted(CODERS.values())
        assert ax.get_xscale() == "symlog" and 0 in set(rates_drawn["position"])
        assert len(others) == (2 if name == "with informations" else 0)
        for other, quantity in zip(others, ("complexity", "expressivity"), strict=False):
            for (model, site), path in csv[csv["quantity"] == quantity].groupby(["model", "site"]):
                assert same_points(lines(other, f"{model}|{site}|{quantity}"), path[["position", "value"]])
    assert set(csv["estimator"]) == {"code_length", "arithmetic_coding", "prequential", "classical", "soft"}


def test_the_unigram_code_is_in_the_legend_exactly_where_it_is_drawn():
    said = "unigram code of the same tokens"
    page = CODING_PAGES[0]
    for null in (3.0, None):
        rows = [made | {"null": null} for made in prequential("demo", TEXT)]
        figure = page.draw(page.rows(frame(rows), corpus=TEXT))
        drawn = [line for line in figure.axes[0].lines if line.get_gid() == "demo|prequential|null"]
        assert any(np.isfinite(line.get_ydata()).any() for line in drawn) == (null is not None)
        assert (said in [text for text, _ in drawn_texts(figure)]) == (null is not None)
    coded = [made | {"null": 3.0} for step in (1, 4) for made in codec(Maker("demo", TEXT, step), step, [""])]
    figure = page.draw(page.rows(frame([*coded, *prequential("demo", TEXT)]), corpus=TEXT))
    assert said not in [text for text, _ in drawn_texts(figure)]


def test_curves_of_one_model_name_it():
    for page in ("coding_training", "coding_context"):
        for name, expected in (("full", True), ("two models", False)):
            texts = [text for text, _ in drawn_texts(drawings(name)[page][1])]
            assert any("; model: demo" in text for text in texts) == expected


def test_a_checkpoint_with_the_weights_of_another_is_hollow():
    rows = [made | ({"duplicate_of": "step0"} if made["revision"] == "step1" else {}) for made in full_rows()]
    page = CODING_PAGES[0]
    figure = page.draw(page.rows(frame(rows), corpus=TEXT))
    assert lines(figure.axes[0], "demo|code_length|hollow").tolist() == [[1.0, rate_at(1)]]
    assert "duplicate weights" in [text for text, _ in drawn_texts(figure)]


def test_coding_rows_change_nothing_in_the_other_figures():
    mixed = table("with informations")
    plain = mixed[~of_coding(mixed)]
    expected = {name: rows for name, _, rows in figures_of(plain, pytest.fail)}
    found = {name: rows for name, _, rows in figures_of(mixed, pytest.fail)}
    assert set(expected) == {page.name for page in PAGES}
    assert set(found) == set(expected) | {page.name for page in (CODING_TABLE, *CODING_PAGES)}
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(found[name], rows)
    drawn = found["training"].query("quantity == 'bits_per_byte'")
    assert drawn["model"].tolist().count("demo") == len(STEPS) and set(drawn["label"]) == {""}


def test_a_table_of_coding_alone_is_drawn_without_a_word_about_the_plane():
    names = [name for name, _, _ in figures_of(table("full"), pytest.fail)]
    of_text = ["training", "context", "chunks", "widths", "retention"]
    expected = ["coding_table", *(f"coding_{name}-{TEXT}" for name in of_text), "coding_training-training-text"]
    assert names == expected


def test_a_coding_figure_drawn_twice_gives_the_same_bytes_with_every_font_embedded(tmp_path: Path):
    kept = table("full")[(table("full")["corpus"] == TEXT) & table("full")["label"].str.contains("weights|^$")]
    kept = kept[kept["quantity"].isin(["bits_per_byte", "model_bytes"]) & kept["revision"].isin(["step512", ""])]
    kept = kept[~kept["estimator"].str.contains("rank|arithmetic")]
    written = draw_all(kept, tmp_path / "one", pytest.fail)
    assert [path.stem for path in written if path.suffix == ".pdf"] == ["coding_widths"]
    draw_all(kept, tmp_path / "two", pytest.fail)
    for path in written:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
        if path.suffix == ".pdf":
            pdf = path.read_bytes()
            assert b"CreationDate" not in pdf and b"/Type3" not in pdf
            assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2") > 0


def test_models_have_pages_of_their_own_where_a_page_is_of_one():
    kept = table("two models")[table("two models")["label"].str.contains("weights|kind")]
    names = [name for name, _, _ in figures_of(kept, pytest.fail)]
    slugs = ("demo", "org-pythia-of-a-long-name-160m")
    assert names == [f"coding_{page}-{slug}" for page in ("widths", "retention") for slug in slugs]


def test_a_table_of_the_plane_alone_is_silent_about_coding():
    names = [name for name, _, _ in figures_of(shape("three checkpoints"), pytest.fail)]
    assert names == [page.name for page in PAGES]


WITHOUT = {
    "coding_training": "the rate over training needs bits_per_byte at two checkpoints with a step",
    "coding_context": "a curve over the context needs bits_per_token under labels 'position a-b'",
    "coding_chunks": "chunk lengths need rows labelled 'chunk C' or 'sliding C/S', of the codec or of code length",
    "coding_widths": "the two-part code needs bits_per_byte and model_bytes under two labels 'weights b bits'",
    "coding_retention": "a retention profile needs bits_per_byte under labels 'kind …'",
    "coding_table": "a comparison of coders needs bits_per_byte of a real coder, of ranks or of a mapping",
}


@pytest.mark.parametrize("page", [CODING_TABLE, *CODING_PAGES], ids=lambda page: page.name)
def test_what_a_coding_figure_lacks_is_one_sentence(page: Page):
    poor = frame([*rates(Maker("demo", TEXT, 512), 512), *classical(TEXT, CODERS)])
    with pytest.raises(NothingToDraw) as reason:
        page.rows(poor)
    assert str(reason.value) == WITHOUT[page.name]
    with pytest.raises(NothingToDraw, match=r"the table lacks the columns model, .*settings.*; figures need"):
        page.rows(pd.DataFrame({"estimator": ["classical"]}))
    with pytest.raises(NothingToDraw, match="the table holds no coding rate"):
        page.rows(table("full").iloc[:0])


def test_a_coding_figure_of_several_texts_or_models_asks_for_one():
    texts = pd.concat([table("full"), table("full").assign(corpus="wiki")], ignore_index=True)
    for page in CODING_PAGES[:3]:
        with pytest.raises(NothingToDraw, match=r"the table holds \d texts; name one with corpus=…"):
            page.rows(texts)
    with pytest.raises(NothingToDraw, match=r"the rates of 2 models \(demo, org/.*\); name one with model=…"):
        coding_widths_rows(table("two models"))
    with pytest.raises(NothingToDraw, match="there is none called 'gpt-5'"):
        coding_retention_rows(table("two models"), model="gpt-5")


def test_rows_that_failed_or_are_of_another_draw_or_seed_change_nothing():
    whole = table("full")
    others = [
        whole.assign(draw="0", value=9.0),
        whole.assign(weighting="uniform", value=9.0),
        whole.assign(seed=pd.array([1] * len(whole), dtype="Int64"), value=9.0),
        whole.assign(status="failed", value=np.nan, message="ran out of memory", revision="step9999"),
        whole.assign(status="undetermined", value=9.0, revision="step9999"),
    ]
    mixed = pd.concat([whole, *others], ignore_index=True)
    for page in (CODING_TABLE, *CODING_PAGES):
        chosen = {} if page is CODING_TABLE else {"corpus": TEXT}
        pd.testing.assert_frame_equal(page.rows(mixed, **chosen), page.rows(whole, **chosen))


def test_the_last_checkpoint_is_the_one_with_the_largest_step():
    rows = list(full_rows())
    shuffled = frame(rows[::-1])
    for page in CODING_PAGES[1:]:
        one, other = page.rows(shuffled, corpus=TEXT), page.rows(frame(rows), corpus=TEXT)
        assert sorted(one["revision"].dropna().unique()) == sorted(other["revision"].dropna().unique())
    earlier = [made | {"revision": "step16", "step": 16} for made in rows if made["label"].startswith("weights ")]
    both = frame([*rows, *earlier])
    assert set(coding_widths_rows(both, corpus=TEXT)["revision"].dropna()) == {"step512"}


def test_sizes_are_written_in_decimal_units():
    sizes = {0: "0 B", 512: "512 B", 999.7: "1 kB", 64_000: "64 kB", 999_600: "1 MB", 1_234_567: "1.23 MB"}
    sizes |= {3.5e9: "3.5 GB", 2e12: "2 TB", 123_456_789: "123 MB"}
    assert {size: byte_text(size) for size in sizes} == sizes


# --- paper_figs/rate_over_training.py ---------------------------------------------------------------------------------


@cache
def script() -> ModuleType:
    path = Path(__file__).parents[1] / "paper_figs" / "rate_over_training.py"
    spec = importlib.util.spec_from_file_location("rate_over_training", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_folder(folder: Path, model: str, text: str = "wiki") -> Path:
    folder.mkdir()
    rows = [made for step in STEPS for made in rates(Maker(model, text, step, "likely"), step)]
    pq.write_table(rows_to_table([*rows, *classical(text, CODERS)]), folder / RESULTS)
    return folder


def test_published_values_are_hollow_converted_and_named_with_their_source(tmp_path: Path):
    measured = script().measured_rows([run_folder(tmp_path / "run", "EleutherAI/pythia-160m")])
    published = script().published_rows([], ["EleutherAI/pythia-160m"])
    assert set(published["series"]) == {"pythia-160m-v0"}
    assert np.allclose(published["bits_per_byte"], published["bits_per_byte_published"] * 1_290_527 / 1_240_466)
    points = pd.concat([measured, published], ignore_index=True)
    figure = script().draw(points)
    (ax,) = figure.axes
    (line,) = [line for line in ax.lines if line.get_gid() == "published|pythia-160m-v0"]
    assert line.get_markerfacecolor() == "white" and line.get_linestyle() != "-"
    assert same_points(line.get_xydata(), published[["position", "bits_per_byte"]])
    (line,) = [line for line in ax.lines if line.get_gid() == "measured|pythia-160m"]
    assert line.get_markerfacecolor() != "white" and line.get_linestyle() == "-"
    assert same_points(line.get_xydata(), points.loc[points["kind"] == "measured", ["position", "bits_per_byte"]])
    texts = drawn_texts(figure)
    names = [text for text, _ in texts]
    assert "published: pythia-160m-v0 on WikiText-2 test" in names and overlapping(texts) == []
    assert "classical coders on wiki" in names
    assert "pythia-160m on wiki (in the training data: likely)" in names
    assert any(
        text.startswith("Hollow: published, not measured here.") and "EleutherAI/pythia" in text for text in names
    )


def test_the_tokens_of_a_step_are_told_where_series_of_unequal_steps_share_an_axis(tmp_path: Path):
    measured = script().measured_rows([run_folder(tmp_path / "run", "demo")])
    note = " ".join(script().footnote(pd.concat([measured, script().published_rows([])], ignore_index=True)).split())
    assert "Tokens in a step: 2,097,152 in Pythia, 4,096 in demo." in note
    assert "WikiText-2 test, lm-evaluation-harness" in note and "in the training data: unknown" in note
    assert script().footnote(measured) == ""


def test_runs_with_a_model_of_one_name_are_told_apart_and_texts_named(tmp_path: Path):
    folders = [run_folder(tmp_path / name, "demo") for name in ("small", "large")]
    rows = script().measured_rows(folders)
    assert set(rows.loc[rows["kind"] == "measured", "series"]) == {"demo (small)", "demo (large)"}
    assert len(rows[rows["kind"] == "classical"]) == len(CODERS)
    other = run_folder(tmp_path / "other", "demo2", text="book")
    rows = script().measured_rows([folders[0], other])
    assert set(rows["series"]) == {"demo on wiki", "demo2 on book"} and set(rows["kind"]) == {"measured"}
    with pytest.raises(NothingToDraw, match="the table holds no coding rate of nothing"):
        script().measured_rows(folders, "nothing")


def test_published_models_are_chosen_by_name_or_none_or_refused():
    known = list(pythia_wikitext()["model"].unique())
    assert script().published_rows(["none"]).empty
    assert set(script().published_rows([known[-1]])["series"]) == {known[-1]}
    assert set(script().published_rows([], ["demo"])["series"]) == {name for name in known if "deduped" not in name}
    with pytest.raises(KeyError, match="no published values of 'gpt-2'; there are some of pythia-160m-v0"):
        script().published_rows(["gpt-2"])


def test_the_script_saves_picture_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_folder(tmp_path / "run", "demo")
    monkeypatch.setattr("sys.argv", ["rate_over_training.py", str(run), "--out", str(tmp_path / "figures")])
    script().main()
    csv = pd.read_csv(tmp_path / "figures" / "rate_over_training.csv")
    assert set(csv["kind"]) == {"measured", "classical", "published"}
    assert csv.loc[csv["kind"] == "published", "source"].str.contains("EleutherAI/pythia").all()
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".pdf", ".png", ".csv"}
