"""Codes are compared on the same bytes: cut pictures and sound, sizes in the summary, what a row rests on."""

import gzip
import io
import json

import numpy as np
import pytest
import soundfile
from coding_tables import Maker, classical, frame, modality
from PIL import Image
from tiny_text import some_texts, tiny_tokenizer

from infocomp.coding.classical import classical_rates
from infocomp.coding.codec import Coded
from infocomp.coding.modalities import image_patches
from infocomp.coding.ppm import byte_code_lengths
from infocomp.corpora.settings import TextSettings
from infocomp.studies.coding_retention_rows import RetentionProfile
from infocomp.studies.coding_rows import classical_row, octaves, ratio_columns, shared_columns
from infocomp.studies.coding_settings import ClassicalSettings, CodedTextSettings, RateSettings, RetentionSettings
from infocomp.studies.coding_size_rows import codec_rows, width_rows
from infocomp.studies.coding_summary import coding_summary
from infocomp.studies.coding_text_units import classical_units, spans_unit
from infocomp.studies.coding_texts import CodedText, prepare_text
from infocomp.studies.settings import ComputeSettings

PATCH_BYTES = 2048


@pytest.fixture
def picture(tmp_path):
    """Three rows of two patches, and a rest of 9 columns and 5 rows."""
    rng = np.random.default_rng(0)
    pixels = (np.add.outer(np.arange(101), np.arange(137)) + rng.integers(0, 9, (101, 137))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    return tmp_path / "grey.png", pixels


def prepared(path, modality: str = "image", max_bytes: int | None = None) -> CodedText:
    settings = CodedTextSettings(name="grey", path=str(path), modality=modality, max_bytes=max_bytes)  # type: ignore[arg-type]
    return prepare_text(settings, RateSettings(), tiny_tokenizer(whole_alphabet=True), 64)


def text_of(n: int = 12, bos: str = "window") -> CodedText:
    settings = CodedTextSettings(name="salad", text=TextSettings(texts=tuple(some_texts(n))))
    return prepare_text(settings, RateSettings(bos=bos), tiny_tokenizer(), 64)  # type: ignore[arg-type]


# --- pictures and sound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_bytes", "rows"), [(None, 3), (11_000, 2), (8192, 2), (8191, 1), (4096, 1)])
def test_every_coder_takes_the_pixels_of_the_same_whole_rows_of_patches(picture, max_bytes, rows):
    path, pixels = picture
    text = prepared(path, max_bytes=max_bytes)
    region = pixels[: 32 * rows, :128]
    assert text.data == image_patches(region).tobytes() and len(text.data) == 2 * rows * PATCH_BYTES
    assert text.mapped is not None and len(text.mapped.text) == region.size
    found = {size.coder: size for size in text.in_one_stream(["gzip -9", "PNG"])}
    assert found["gzip -9"].bytes == len(gzip.compress(region.tobytes(), 9, mtime=0))
    buffer = io.BytesIO()
    Image.fromarray(region).save(buffer, "PNG", optimize=True)
    assert found["PNG"].bytes == len(buffer.getvalue()), "a picture of the patches, at its own width"


def test_all_rows_of_a_cut_picture_are_rates_of_as_many_bytes(picture):
    text = prepared(picture[0], max_bytes=9000)
    units = classical_units(text, ClassicalSettings(coders=("gzip -9", "PPMd")), [])
    rows = [row for unit in units for row in unit.run().rows]
    assert {(row["model"], row["label"]) for row in rows} == {
        (coder, label) for coder in ("gzip -9", "PPMd", "PNG") for label in ("", "chunk 2048")
    }
    assert {row["settings"]["bytes"] for row in rows} == {len(text.data)} == {8192}


def test_a_cut_sound_is_coded_as_the_pieces_that_a_model_reads(tmp_path):
    wave = (8000 * np.sin(np.arange(3 * PATCH_BYTES + 100) / 9)).astype(np.int16)
    soundfile.write(tmp_path / "tone.wav", wave, 16000)
    text = prepared(tmp_path / "tone.wav", "audio", 5000)
    assert len(text.data) == 2 * PATCH_BYTES
    assert text.in_one_stream(["xz -9e", "FLAC"]) == classical_rates(text.data, ["xz -9e", "FLAC"])


def test_a_cut_that_leaves_no_whole_row_of_patches_is_refused(picture, tmp_path):
    with pytest.raises(
        ValueError, match="max_bytes of 'grey' is 4,095 and a row of 2 patches has 4,096 bytes; raise it"
    ):
        prepared(picture[0], max_bytes=4095)
    soundfile.write(tmp_path / "tone.wav", np.zeros(5000, np.int16), 16000)
    with pytest.raises(ValueError, match="max_bytes of 'grey' is 2,047 and a piece has 2,048 bytes; raise it"):
        prepared(tmp_path / "tone.wav", "audio", 2047)


def test_pictures_that_differ_in_the_lost_bits_or_in_shape_alone_are_different_texts(tmp_path):
    pixels = np.full((64, 64), 8, np.uint8)
    for name, own in {"one": pixels, "odd": pixels + 1, "wide": pixels.reshape(32, 128)}.items():
        Image.fromarray(own).save(tmp_path / f"{name}.png")
    one, again, odd, wide = (prepared(tmp_path / f"{name}.png") for name in ("one", "one", "odd", "wide"))
    assert one.prepared.identity() == odd.prepared.identity(), "the tokens do not tell"
    assert one.identity() == again.identity()
    assert one.identity() != odd.identity() and one.identity() != wide.identity()


# --- the summary ------------------------------------------------------------------------------------------------------


def salad(*file: float) -> list[dict]:
    """A text of 200 kB whose first 100 kB are a file of 30 kB, 2 kB of it header, and ranks."""
    make = Maker("demo", "salad", 8, "no")
    of_the_file = {"estimator": "arithmetic_coding", "settings": {"bytes": 100_000}}
    rows = [make("bits_per_byte", 2.0, settings={"bytes": 200_000})]
    rows += [make("bits_per_byte", 2.4, **of_the_file)]
    for part, size in {"coded": 30_000, "payload": 27_000, "escape": 1000, "header": 2000}.items():
        rows.append(make(f"{part}_bytes", size, unit="bytes", **of_the_file))
    rows.append(make("bits_per_byte", 3.1, estimator="rank + gzip -9", settings={"bytes": 99_999}))
    for label, size, rate in (("", 200_000, 2.5), ("first 100000 bytes", 100_000, 2.9), ("chunk 2048", 200_000, 4.5)):
        about = {"label": label, "settings": {"bytes": size}}
        rows.append(Maker("xz -9e", "salad", None, "no")("bits_per_byte", rate, "classical", **about))
    return rows


def test_the_summary_names_the_bytes_that_a_rate_is_of_where_they_are_a_part():
    lines = coding_summary(frame(salad())).splitlines()
    found = {line.rsplit(maxsplit=1)[0].strip(): line.rsplit(maxsplit=1)[1] for line in lines[3:7]}
    assert found == {
        "code length": "2.000",
        "file (first 100 kB)": "2.400",
        "file without header (first 100 kB)": "2.240",
        "rank + gzip -9 (first 100 kB)": "3.100",
    }
    assert lines[7:] == ["classical: xz -9e 2.500", "classical (first 100 kB): xz -9e 2.900"], "no pieces of a text"


def test_the_summary_names_no_part_where_everything_is_of_the_whole_text():
    rows = [row | {"settings": json.dumps({"bytes": 100_000})} for row in salad() if "first" not in row["label"]]
    text = coding_summary(frame(rows))
    assert "first" not in text and "file without header  2.240" in text


def test_the_summary_shows_the_pieces_of_pictures_beside_the_mapped_rates():
    rows = [*modality(Maker("demo", "photo patches", 8), "photo patches"), *classical("photo patches", {"xz -9e": 4.0})]
    lines = coding_summary(frame(rows)).splitlines()
    assert lines[-2] == "classical: xz -9e 4.000"
    assert lines[-1] == "classical, chunk 2048: PNG 4.260, xz -9e 4.270, gzip -9 4.850, FLAC 4.900"


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bos", ["window", "none"])
def test_every_document_has_its_classical_twin_on_the_bytes_that_the_model_is_scored_on(bos):
    text = text_of(bos=bos)
    found = spans_unit(RetentionProfile(text), RetentionSettings(order=3)).run().documents
    scored = text.prepared.document_rates(np.zeros(len(text.prepared.windows.scored_tokens)))
    assert [(row["document"], row["n_tokens"], row["n_bytes"]) for row in found] == [one[:3] for one in scored]
    assert {(row["model"], row["revision"], row["corpus"]) for row in found} == {("PPM", "", "salad")}
    corpus, costs = text.prepared.corpus, byte_code_lengths(text.data, 3)
    ends = np.cumsum(corpus.byte_counts)
    for number, row in enumerate(found):
        tokens = range(corpus.document_starts[number], corpus.document_starts[number + 1])
        tokens = [token for token in tokens if token in set(text.prepared.windows.scored_tokens.tolist())]
        spent = sum(costs[ends[token] - corpus.byte_counts[token] : ends[token]].sum() for token in tokens)
        assert row["bits"] == pytest.approx(spent) and len(tokens) == row["n_tokens"]


def test_bins_of_the_place_are_even_in_the_logarithm_and_cover_every_place_once():
    assert octaves(31, 1).tolist() == [0, 1, 2, 4, 8, 16, 31]
    assert octaves(1, 1).tolist() == [0, 1]
    assert octaves(9, 2).tolist() == [0, 1, 2, 3, 4, 6, 8, 9]


def test_fewer_than_eight_documents_have_no_standard_error():
    ones = np.ones(40)
    few = ratio_columns(np.arange(40.0), ones, np.arange(40) % 7)
    assert few == {"value": 19.5}
    assert "std_error" in ratio_columns(np.arange(40.0), ones, np.arange(40) % 8)


# --- what rows rest on ------------------------------------------------------------------------------------------------


def test_a_break_even_size_says_that_both_rates_are_those_of_this_text():
    text = text_of()
    shared = shared_columns(text, text.rule, ComputeSettings(), {"model": "tiny", "revision": "step8"})
    nats = np.full(len(text.prepared.windows.scored_tokens), 0.1)
    rows = width_rows(nats, text.prepared, shared, 4, 1000, {"xz -9e": 3.0, "PPMd": 0.01})
    found = {row["label"]: row for row in rows if row["quantity"] == "break_even_bytes"}
    paying, never = found["weights 4 bits against xz -9e"], found["weights 4 bits against PPMd"]
    n_bytes = text.prepared.scored_bytes
    assert paying["message"].startswith(f"both rates are those of this text of {n_bytes:,} bytes and held constant")
    assert "3.0000 by xz -9e" in paying["message"] and paying["value"] > 0
    assert never["status"] == "undetermined" and never["message"].startswith("never: ")
    table = frame(rows)
    for quantity in ("break_even_bytes", "adjusted_rate"):
        for settings in table.loc[table["quantity"] == quantity, "settings"]:
            said = json.loads(settings)
            assert said["measured_on_bytes"] == n_bytes and said["tokenizer_counted"] is False
            assert said["rates held constant over sizes"] is True


def test_what_the_floor_saved_is_a_row_in_bytes():
    text = text_of(2)
    shared = shared_columns(text, text.rule, ComputeSettings(), {"model": "tiny", "revision": "step8"})
    coded = Coded(bytes(140), 400, 3, 100, 10, 2, ideal_bits=900.0, floor_saved_bits=120.0, seconds=1.0)
    rows = frame(codec_rows(coded, np.array([1, 2, 2]), 1.0, shared, "chunk 8", 50)).set_index("quantity")
    assert (rows["label"] == "chunk 8").all() and (rows["estimator"] == "arithmetic_coding").all()
    assert tuple(rows.loc["floor_saved_bytes", ["value", "unit"]]) == (15.0, "bytes")
    assert rows.loc["coder_overhead", "value"] == pytest.approx((800 - 780) / 3)
    assert rows.loc["raw_rate", "value"] == pytest.approx(140 / 400)
    assert tuple(rows.loc["adjusted_rate", ["value", "unit"]]) == (pytest.approx(240 / 400), "ratio")


def test_a_classical_row_says_how_many_bytes_it_is_of():
    text = text_of(2)
    data = text.head(100)
    row = classical_row(classical_rates(data, ["gzip -9"])[0], text, "first 100 bytes")
    assert row["settings"]["bytes"] == len(data) == 100
