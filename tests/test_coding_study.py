"""The study `coding` end to end on a tiny series that it trains itself, every kind of row against a slow twin."""

import gzip
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from coding_run import (
    CONTEXT,
    DOCUMENTS,
    HEAD,
    coding_config,
    default_twin,
    documents_of,
    loaded,
    one,
    slow_bits,
    slow_ratio,
)
from PIL import Image
from safetensors.torch import load_file
from test_kill_and_resume import start, wait
from typer.testing import CliRunner

from infocomp.cli import app
from infocomp.coding.classical import CODERS, classical_rates
from infocomp.coding.modalities import audio_pieces, image_patches
from infocomp.coding.ppm import byte_code_lengths
from infocomp.coding.quantised import quantised, weight_bytes
from infocomp.coding.retention import retention
from infocomp.config import ConfigError, load_config
from infocomp.execution.session import Silent, run_study
from infocomp.execution.table import KEY, VOLATILE, read
from infocomp.studies.coding_parts import rate_part
from infocomp.studies.commands import open_study
from infocomp.studies.compression import CodecOptions, compress_and_tell
from infocomp.studies.settings import ComputeSettings


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("INFOCOMP_CACHE", str(tmp_path_factory.getbasetemp() / "coding-cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("coding")


@pytest.fixture(scope="module")
def out(folder) -> Path:
    """A finished run."""
    os.environ["INFOCOMP_CACHE"] = str(folder / "cache")
    study, text = open_study(coding_config(folder), [], folder / "out")
    study.figures = list
    outcome, _ = run_study(study, text, Silent())
    assert outcome.exit_code == 0, outcome.messages
    return folder / "out"


@pytest.fixture(scope="module")
def table(out) -> pd.DataFrame:
    return read(out)


# --- the rate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 8])
def test_the_rate_is_that_of_plain_forward_passes_with_its_error_over_documents(folder, table, step):
    twin = default_twin(folder, step)
    bits = [sum(cost for _, cost in tokens) for _, tokens in twin]
    rows = table[(table["revision"] == f"step{step}") & (table["corpus"] == "salad") & (table["label"] == "")]
    rows = rows[rows["estimator"] == "code_length"]
    for quantity, sizes in {
        "bits_per_token": [float(len(tokens)) for _, tokens in twin],
        "bits_per_byte": [float(len(text.encode())) for text, _ in twin],
    }.items():
        value, error = slow_ratio(bits, sizes)
        row = one(rows, quantity=quantity)
        assert row["value"] == pytest.approx(value, rel=1e-5)
        assert row["std_error"] == pytest.approx(error, rel=1e-3)
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["n_documents"] == DOCUMENTS
        assert row["ci_high"] - row["value"] == pytest.approx(2.201 * row["std_error"], rel=1e-3), "t at 11 degrees"
        ids = [id for text, _ in twin for id in loaded(folder / "out")[1](text)["input_ids"]]
        counts = np.unique(ids, return_counts=True)[1]
        assert row["null"] == pytest.approx(float(-(counts * np.log2(counts / len(ids))).sum()) / sum(sizes))
    raw = one(rows, quantity="raw_rate")["value"]
    assert raw == pytest.approx(sum(bits) / 8 / sum(len(text.encode()) for text, _ in twin), rel=1e-5)
    parameters = sum(p.numel() for p in loaded(folder / "out")[0].parameters())
    size = sum(len(text.encode()) for text, _ in twin)
    assert one(rows, quantity="adjusted_rate")["value"] == pytest.approx(raw + 2 * parameters / size)


def test_the_position_curve_is_the_mean_over_the_tokens_at_each_place(folder, table):
    twin = default_twin(folder)
    rows = table[(table["revision"] == "step8") & table["label"].str.startswith("position ")]
    assert list(rows["label"]).count("position 16-30") == 1 and len(rows) == 6
    assert rows["n_tokens"].sum() == sum(len(tokens) for _, tokens in twin)
    for _, row in rows.iterrows():
        begin, end = map(int, row["label"].removeprefix("position ").split("-"))
        inside = [[cost for place, cost in tokens if begin <= place <= end] for _, tokens in twin]
        value, error = slow_ratio([sum(costs) for costs in inside], [float(len(costs)) for costs in inside])
        assert row["value"] == pytest.approx(value, rel=1e-5) and row["std_error"] == pytest.approx(error, rel=1e-3)
        settings = json.loads(row["settings"])
        assert (settings["position_from"], settings["position_to"]) == (begin, end)


@pytest.mark.parametrize(("label", "room", "stride"), [("chunk 16", 15, None), ("sliding 32/16", 31, 16)])
def test_other_windows_are_measured_as_their_rule_says(folder, table, label, room, stride):
    model, tokenizer = loaded(folder / "out")
    texts = documents_of(folder)
    bits = sum(cost for text in texts for _, cost in slow_bits(model, tokenizer, text, room, stride))
    row = one(table, revision="step8", label=label, quantity="bits_per_byte")
    assert row["value"] == pytest.approx(bits / sum(len(text.encode()) for text in texts), rel=1e-5)
    assert row["context_length"] == room + 1
    assert json.loads(row["settings"])["stride"] == (stride or room)


def test_documents_add_up_to_the_rate(out, table):
    documents = pd.read_parquet(out / "documents.parquet")
    own = documents[(documents["revision"] == "step8") & (documents["corpus"] == "salad")]
    assert len(own) == DOCUMENTS
    row = one(table, revision="step8", corpus="salad", estimator="code_length", label="", quantity="bits_per_byte")
    assert own["bits"].sum() / own["n_bytes"].sum() == pytest.approx(row["value"])
    twin = documents[documents["model"] == "PPM"]
    assert twin["document"].tolist() == own["document"].tolist(), "once for five checkpoints"


def test_one_forward_pass_gives_rate_curve_documents_and_retention(folder, out):
    study, _ = open_study(coding_config(folder), [], out)
    text = study.texts[0]
    opened = study.model.open(study.model.source.list()[-1])
    seen = []
    handle = opened.model.base_model.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(output.last_hidden_state.shape[:2].numel()), with_kwargs=True
    )
    about = {"model": "tiny", "revision": "step8"}
    result = rate_part(text, ComputeSettings(), study.profile(text)).measure(opened, about, lambda positions: None)
    handle.remove()
    windows = text.prepared.windows
    assert windows.total_positions <= sum(seen) < 1.1 * windows.total_positions + CONTEXT, "padding and a probe of 4"
    labels = {row.get("label", "") for row in result.rows}
    assert "" in labels and len(result.documents) == DOCUMENTS
    assert any(label.startswith("position") for label in labels) and any(label.startswith("kind") for label in labels)


# --- what the bits are spent on ---------------------------------------------------------------------------------------


def test_a_retention_profile_is_that_of_the_tokens_where_they_stand_in_the_text(folder, table):
    twin, tokenizer = default_twin(folder), loaded(folder / "out")[1]
    texts = [text for text, _ in twin]
    spans = [np.array(tokenizer(text, return_offsets_mapping=True)["offset_mapping"]) for text in texts]
    lengths = byte_code_lengths("".join(texts).encode(), 6)
    ends = np.cumsum([len(text) for text in texts])
    expected = retention(texts, spans, [np.array(tokens)[:, 1] for _, tokens in twin], np.split(lengths, ends[:-1]))
    kinds = table[table["label"].str.startswith("kind ")]
    assert len(expected) == 1 + kinds["label"].nunique() >= 4, "the row over all kinds is the rate"
    for kind in expected[1:]:
        rows = kinds[kinds["label"] == f"kind {kind.kind}"]
        for quantity in ("bits_per_byte", "bits_per_token"):
            row = one(rows, revision="step8", quantity=quantity)
            assert row["value"] == pytest.approx(getattr(kind, quantity), rel=1e-5) and not math.isnan(row["null"])
        assert one(rows, model="PPM")["value"] == pytest.approx(kind.classical_bits_per_byte)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_the_file_is_as_large_as_the_file_that_compress_writes(folder, out, table, tmp_path):
    head = "".join(documents_of(folder)).encode()[:HEAD]
    (tmp_path / "head.txt").write_bytes(head)
    parameters = sum(p.numel() for p in loaded(out)[0].parameters())
    rows = table[(table["estimator"] == "arithmetic_coding") & (table["revision"] == "step8")]
    for label, chunk_tokens in {"": None, "chunk 8": 8}.items():
        written = tmp_path / f"head{chunk_tokens}.icz"
        options = CodecOptions(chunk_tokens=chunk_tokens, device="cpu", threads=1)
        coded = compress_and_tell(tmp_path / "head.txt", str(out / "checkpoints/step8"), None, written, options)
        own = rows[rows["label"] == label]
        value = {row["quantity"]: row["value"] for _, row in own.iterrows()}
        named = len(coded.file) - written.stat().st_size
        # the header names the model: "tiny" in the study, its folder here
        assert named == 0 and value["payload_bytes"] == coded.payload_bytes
        assert value["coded_bytes"] == sum(value[f"{part}_bytes"] for part in ("header", "payload", "escape"))
        assert abs(value["coded_bytes"] - written.stat().st_size) < 100
        assert value["bits_per_byte"] == pytest.approx(8 * value["coded_bytes"] / HEAD)
        assert value["coder_overhead"] == pytest.approx(coded.overhead_bits / coded.n_tokens)
        assert value["raw_rate"] == pytest.approx(value["coded_bytes"] / HEAD)
        assert value["adjusted_rate"] == pytest.approx((value["coded_bytes"] + 2 * parameters) / HEAD)
        counted = json.loads(one(own, quantity="adjusted_rate")["settings"])
        assert (counted["parameters"], counted["parameter_bits"]) == (parameters, 16)
        assert (counted["measured_on_bytes"], counted["tokenizer_counted"]) == (HEAD, False)
        assert value["floor_saved_bytes"] == coded.floor_saved_bits / 8
        assert value["escape_share"] == 0 and value["compress_seconds"] > 0 and value["decompress_seconds"] > 0
        assert set(own["unit"]) == {"bits/byte", "bytes", "ratio", "bits/token", "seconds"}


def test_rank_codes_stand_beside_the_file_on_the_same_bytes(table):
    rows = table[table["estimator"].str.startswith("rank + ")]
    assert set(rows["estimator"]) == {"rank + gzip -9", "rank + brotli -11", "rank + adaptive Huffman"}
    file = one(table, estimator="arithmetic_coding", label="", quantity="payload_bytes")
    for _, own in rows.groupby("estimator"):
        size, rate = one(own, quantity="coded_bytes"), one(own, quantity="bits_per_byte")
        assert rate["value"] == pytest.approx(8 * size["value"] / HEAD)
        assert size["n_tokens"] == file["n_tokens"]
        assert json.loads(size["settings"])["bytes"] == json.loads(file["settings"])["bytes"] == HEAD


def test_weights_of_few_bits_are_measured_again_and_counted(folder, out, table):
    model, tokenizer = loaded(out)
    texts = documents_of(folder)
    size = sum(len(text.encode()) for text in texts)
    for width in (16, 2):
        with quantised(model, width):
            bits = sum(cost for text in texts for _, cost in slow_bits(model, tokenizer, text, CONTEXT - 1))
        rows = table[(table["revision"] == "step8") & table["label"].str.startswith(f"weights {width} bits")]
        assert one(rows, quantity="bits_per_byte")["value"] == pytest.approx(bits / size, rel=1e-5)
        assert one(rows, quantity="model_bytes")["value"] == weight_bytes(model, width)
        adjusted = one(rows, quantity="adjusted_rate")["value"]
        assert adjusted == pytest.approx((bits / 8 + weight_bytes(model, width)) / size, rel=1e-5)
        for _, row in rows[rows["quantity"].isin(["adjusted_rate", "break_even_bytes"])].iterrows():
            said = json.loads(row["settings"])
            assert (said["measured_on_bytes"], said["tokenizer_counted"]) == (size, False)
            assert said["rates held constant over sizes"] is True
        for coder in ("xz -9e", "PPMd"):
            row = one(rows, quantity="break_even_bytes", label=f"weights {width} bits against {coder}")
            theirs = classical_rates("".join(texts).encode(), [coder])[0].bits_per_byte
            if bits / size >= theirs:
                assert row["status"] == "undetermined" and math.isnan(row["value"]) and "never" in row["message"]
            else:
                assert row["value"] == pytest.approx(8 * weight_bytes(model, width) / (theirs - bits / size), rel=1e-4)
    after = load_file(out / "checkpoints/step8/model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in model.state_dict().items() if name in after)


def test_classical_coders_take_the_text_whole_in_pieces_and_as_far_as_the_codec(folder, table):
    data = "".join(documents_of(folder)).encode()
    rows = table[(table["estimator"] == "classical") & (table["corpus"] == "salad") & (table["model"] == "gzip -9")]
    gz = {size: len(gzip.compress(data[:size], 9, mtime=0)) for size in (len(data), HEAD)}
    assert one(rows, label="")["value"] == pytest.approx(8 * gz[len(data)] / len(data))
    assert one(rows, label=f"first {HEAD} bytes")["value"] == pytest.approx(8 * gz[HEAD] / HEAD)
    pieces = [len(gzip.compress(data[start : start + 512], 9, mtime=0)) for start in range(0, len(data), 512)]
    header = len(gzip.compress(b"\0", 9, mtime=0))
    expected = sum(pieces) - (len(pieces) - 1) * header
    assert one(rows, label="chunk 512")["value"] == pytest.approx(8 * expected / len(data))
    assert (rows["in_training"] == "no").all()


def test_the_training_run_has_its_prequential_code(out, table):
    rows = table[(table["estimator"] == "prequential") & (table["quantity"] == "bits_per_token")]
    losses = pd.read_parquet(out / "training/steps.parquet")["loss"].to_numpy()
    last = one(rows, revision="step8")
    assert last["value"] == pytest.approx(losses[:8].mean() / math.log(2))
    assert last["tokens_seen"] == 8 * 4 * 32 and (rows["in_training"] == "known").all()
    assert one(rows, revision="step1")["value"] == pytest.approx(losses[0] / math.log(2))


# --- other modalities -------------------------------------------------------------------------------------------------


def test_a_picture_has_a_rate_under_every_rule_for_the_lost_bit(folder, table):
    model, tokenizer = loaded(folder / "out")
    patches = image_patches(folder / "grey.png")
    texts = [(patch >> 1).tobytes().decode("ascii") for patch in patches]
    bits = sum(cost for text in texts for _, cost in slow_bits(model, tokenizer, text, CONTEXT - 1))
    rows = table[(table["corpus"] == "grey patches") & (table["revision"] == "step8")]
    value = {row["label"]: row["value"] for _, row in rows.iterrows()}
    assert set(value) == {"mapping appended", "mapping scaled", "mapping coded"}
    assert value["mapping appended"] == pytest.approx(bits / patches.size + 1, rel=1e-5)
    assert value["mapping scaled"] == pytest.approx(bits / patches.size * 8 / 7, rel=1e-5)
    assert value["mapping coded"] < value["mapping appended"] + 0.1
    assert rows["null"].notna().all() and (rows["in_training"] == "unknown").all()
    classical = table[(table["corpus"] == "grey patches") & (table["estimator"] == "classical")]
    assert set(classical["model"]) == {"gzip -9", "PPMd", "PNG"}
    raster = np.asarray(Image.open(folder / "grey.png")).tobytes()
    whole = one(classical, model="gzip -9", label="")["value"]
    assert whole == pytest.approx(8 * len(gzip.compress(raster, 9, mtime=0)) / len(raster))


def test_a_sound_is_read_in_pieces_with_flac_beside_it(folder, out, tmp_path):
    wave = (8000 * np.sin(np.arange(3 * 2048 + 100) / 9)).astype(np.int16)
    soundfile.write(tmp_path / "tone.wav", wave, 16000)
    more = {"texts": [{"name": "tone", "path": str(tmp_path / "tone.wav"), "modality": "audio", "max_bytes": 4096}]}
    more |= {"model": {"source": "folder", "path": str(out / "checkpoints"), "revisions": ["step8"]}}
    config = coding_config(folder) | more
    del config["prequential"]
    study, text = open_study(config, [], tmp_path / "out")
    study.figures = list
    outcome, _ = run_study(study, text, Silent())
    assert outcome.exit_code == 0, outcome.messages
    table = read(tmp_path / "out")
    assert set(table["corpus"]) == {"tone pieces"}
    data = audio_pieces(tmp_path / "tone.wav")[:2].tobytes()
    flac = one(table, model="FLAC", label="")
    assert flac["value"] == pytest.approx(8 * len(CODERS["FLAC"].encode(data)) / 4096)
    assert len(table[table["label"].str.startswith("mapping ")]) == 3


def test_a_text_is_cut_at_a_whole_character(folder, out, tmp_path):
    (tmp_path / "accents.txt").write_text("é" * 40, encoding="utf-8")
    texts = [
        {"name": "accents", "path": str(tmp_path / "accents.txt"), "max_bytes": 21},
        {"name": "library", "builtin": "held_out", "max_bytes": "90 kB"},
        {"name": "lines", "text": {"texts": ["one line, ", "and another"], "in_training": "likely"}},
    ]
    study, _ = open_study(coding_config(folder) | {"texts": texts}, [], out)
    accents, library, lines = study.texts
    assert (accents.data.decode(), accents.head(5).decode()) == ("é" * 10, "éé")
    assert 89_990 < len(library.data) <= 90_000 and library.prepared.corpus.n_documents > 1
    assert lines.data == b"one line, and another" and lines.settings.trained_on == "likely"


# --- the study as a whole ---------------------------------------------------------------------------------------------


def test_every_row_says_what_it_is_of(table):
    assert not table.duplicated(list(KEY)).any()
    assert table["in_training"].notna().all() and (table["draw"] == "mean").all()
    own = table[table["estimator"].isin(["code_length", "arithmetic_coding"]) & (table["quantity"] != "training_loss")]
    for column in ("fingerprint", "settings", "context_length", "dtype", "bos", "n_documents", "step"):
        assert own[column].notna().all(), column
    assert set(own["revision"]) == {f"step{step}" for step in (0, 1, 2, 4, 8)}
    rates = own[own["quantity"].isin(["bits_per_byte", "bits_per_token"])]
    assert rates["null"].notna().all()
    assert all("rule" in json.loads(settings) for settings in own["settings"])


def test_a_run_killed_at_any_write_and_started_again_ends_with_the_same_table(folder, out, tmp_path):
    """Killed with SIGKILL inside its first writes, again and again, until it comes to its end."""
    config = coding_config(folder)
    config["model"] = {"source": "folder", "path": str(out / "checkpoints"), "revisions": ["step8"]}
    del config["prequential"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert wait(start(config, whole)) == 0
    codes = [wait(start(config, killed, die_at_replace=number)) for number in (5, 9, 12)]
    assert codes == [-signal.SIGKILL] * 3, (tmp_path / "error.txt").read_text()
    done = len(list((killed / "parts").glob("*.parquet")))
    assert done >= 3, "what was done before each kill was kept"
    assert wait(start(config, killed)) == 0

    def comparable(folder: Path) -> pd.DataFrame:
        table = read(folder).drop(columns=list(VOLATILE))
        return table[~table["quantity"].str.endswith("_seconds")].reset_index(drop=True)

    pd.testing.assert_frame_equal(comparable(killed), comparable(whole), check_exact=True)


def test_a_checkpoint_that_cannot_be_loaded_fails_its_own_units_only(folder, out, tmp_path):
    series = tmp_path / "series"
    for step in (4, 8):
        (series / f"step{step}").mkdir(parents=True)
        for file in (out / "checkpoints" / f"step{step}").iterdir():
            data = file.read_bytes()
            cut = step == 4 and file.suffix == ".safetensors"
            (series / f"step{step}" / file.name).write_bytes(data[: len(data) // 2] if cut else data)
    config = coding_config(folder) | {"model": {"source": "folder", "path": str(series)}}
    config |= {"codec": False, "ranks": False, "weights": False, "prequential": False, "retention": False}
    study, text = open_study(config, [], tmp_path / "out")
    study.figures = list
    outcome, _ = run_study(study, text, Silent())
    assert (outcome.failed, outcome.done) == (4, 4 + 4), "rate, chunk, sliding, picture; and the classical coders"
    table = read(tmp_path / "out")
    failed = table[table["status"] == "failed"]
    assert set(failed["revision"]) == {"step4"} and failed["message"].str.contains("cannot be loaded").all()


def test_plan_counts_the_units_that_a_run_has(folder, out, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(coding_config(folder)))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    units = len(list((out / "parts").glob("*.parquet"))) - len(list((out / "parts").glob("*.*.parquet")))
    assert f"{units} ({units - 1} done), 5 checkpoints" in done.stdout, "the training is no unit of measuring"
    assert "the time is rough" in done.stdout and "forward passes" in done.stdout
    config = coding_config(folder) | {"model": {"source": "folder", "path": str(out / "checkpoints")}}
    del config["prequential"]
    path.write_text(json.dumps(config))
    fresh = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0, fresh.stderr
    assert f"{units - 2} (0 done), 5 checkpoints" in fresh.stdout and not (tmp_path / "fresh/parts").exists()


def test_the_terminal_shows_every_text_with_what_the_model_knows_of_it(out, table, folder):
    study, _ = open_study(coding_config(folder), [], out)
    text = study.summary(table)
    assert "salad (in the training data: no)" in text and "grey patches (in the training data: unknown)" in text
    for word in (
        "step0",
        "step8",
        "code length",
        "file (first 2 kB)",
        "file without header (first 2 kB)",
        "rank + gzip -9 (first 2 kB)",
        "mapping coded",
        "classical (first 2 kB)",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"rate": {"chunk_lengths": [64]}},
            "a window of 64 positions is asked for under 'rate', and the model reads 32",
        ),
        ({"rate": {"sliding": [{"context_length": 16, "stride": 16}]}}, "must lie between 1 and the 15 tokens"),
        ({"rate": {"chunk_lengths": [16, 16]}}, "name windows twice"),
        ({"classical": {"coders": ["gzip"]}}, "no classical coder named 'gzip'"),
        ({"texts": []}, "texts"),
        ({"texts": [{"name": "a", "path": "nowhere.txt"}]}, "nowhere.txt"),
        ({"texts": [{"name": "a"}]}, "exactly one of 'path', 'builtin' and 'text' is needed"),
        ({"texts": [{"name": "a", "builtin": "held_out", "modality": "image"}]}, "is read from one file"),
        ({"texts": [{"name": "a", "builtin": "held_out"}] * 2}, "texts need names of their own"),
        ({"texts": [{"name": "training text", "builtin": "held_out"}]}, "give yours another name"),
        ({"weights": {"widths": [5]}}, "weights.widths"),
        ({"codec": {"max_byte": 5}}, "did you mean 'max_bytes'"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_two(folder, out, tmp_path, change, sentence):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(coding_config(folder) | change))
    done = CliRunner().invoke(app, ["plan", str(path), "--out", str(out)])
    assert done.exit_code == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_a_prequential_code_needs_a_series_of_the_run_itself(folder, out, tmp_path):
    config = coding_config(folder) | {"model": {"source": "folder", "path": str(out / "checkpoints")}}
    with pytest.raises(ValueError, match="'prequential' is the code length of a training that this run does"):
        open_study(config, [], tmp_path)


def test_the_shipped_configurations_are_sound():
    configs = Path(__file__).parents[1] / "configs"
    for name in ("coding.yaml", "coding_series.yaml"):
        config = load_config(configs / name)
        assert config.study == "coding"
    with pytest.raises(ConfigError, match="bins_per_octave"):
        load_config(configs / "coding.yaml", ["rate.bins_per_octave=0"])
