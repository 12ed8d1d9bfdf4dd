"""The codec: every byte comes back, damage is found, another model or machine is refused, sizes add up."""

import dataclasses
import json
import os
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_coder import TOKENS, neox_coder, neox_model, neox_tokenizer, noise, other_coder
from tiny_models import tiny_model
from tiny_text import some_texts
from transformers import AutoModelForCausalLM, BloomConfig

from infocomp.activations.stream import stream
from infocomp.checkpoints.integrity import weights_fingerprint
from infocomp.coding.codec import (
    Coder,
    arithmetic_probe,
    cache_bytes,
    compress,
    decompress,
    default_chunking,
    named,
)
from infocomp.coding.container import Container
from infocomp.coding.lockstep import Chunking, Lockstep
from infocomp.coding.machine import LIBRARIES, NAMES, differences, environment, reproducible
from infocomp.coding.rate import CodeLength
from infocomp.corpora.documents import Document
from infocomp.corpora.tokens import tokenise
from infocomp.corpora.windows import cut_windows

CODER = neox_coder()
TEXT = "".join(some_texts(6)).encode()
SMALL = Chunking(chunk_tokens=6, context_length=8, overlap=0, lanes=16)
WIDE = Chunking(31, 32, 0, 512)
PIECE = 16_000


def round_trip(data: bytes, coder: Coder = CODER, chunking: Chunking | None = None):
    coded = compress(data, coder, chunking)
    assert decompress(coded.file, coder) == data
    assert coded.n_bytes == len(data)
    assert coded.header_bytes + coded.payload_bytes + coded.escape_bytes == len(coded.file)
    return coded


nasty_text = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="e\u0301\u0300a\u212bÅ\u1100\u1161\u11a8 ", max_size=40),
    st.lists(
        st.sampled_from(["<|endoftext|>", "<s>", "<pad>", "   ", "\r\n", "\x00", "é", "e\u0301"]), max_size=12
    ).map("".join),
    st.text(alphabet="ab ", max_size=120),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
nasty = st.one_of(
    nasty_text,
    st.binary(max_size=60),
    st.tuples(nasty_text, st.binary(max_size=6), nasty_text).map(b"".join),
    st.integers(0, 300).map(lambda n: TEXT[n : n + n // 3]),
)


@given(nasty)
@settings(max_examples=1000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_thousand_nasty_inputs_come_back(data):
    round_trip(data, chunking=SMALL)


@pytest.mark.parametrize(
    "data",
    [b"", b"a", b"\x00", b"\xff", "e\u0301".encode(), b"a<|endoftext|>b", b"a\r\nb\n", noise(3000), TEXT[:3000]],
    ids=["empty", "letter", "nul", "byte", "nfd", "special", "crlf", "noise", "text"],
)
def test_each_kind_of_input_comes_back(data):
    round_trip(data)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "olmo2"])
def test_other_architectures_and_poor_tokenizers(architecture):
    coded = round_trip(TEXT[:800] + "É 👍 und ß".encode() + TEXT[:100], other_coder(architecture))
    assert coded.n_tokens > 100


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    round_trip(TEXT[:600], neox_coder(dtype=dtype))


@pytest.mark.parametrize("chunking", [Chunking(1, 8, 0, 3), Chunking(500, 32, 20, 2), Chunking(10_000, 32, 0, 1)])
def test_any_chunking_comes_back(chunking):
    round_trip(TEXT[:900], chunking=chunking)


def test_the_first_sixteen_kilobytes_of_every_real_file_come_back(shared_data):
    files = [path for path in sorted(shared_data.rglob("*")) if path.is_file()]
    assert len(files) >= 20
    for path in files:
        round_trip(path.read_bytes()[:PIECE], chunking=WIDE)


def test_a_stand_in_for_real_files_comes_back():
    latin = "caf\xe9 ".encode("latin-1") * 50
    for data in (TEXT[:PIECE], noise(PIECE), latin, ("l'été " * 400).encode("utf-16"), b"\x89PNG" + noise(500) + TEXT):
        round_trip(data, chunking=WIDE)


@pytest.mark.parametrize("overlap", [0, 15])
def test_the_ideal_size_and_the_payload_agree(overlap):
    """On pieces of 16 kB, over the same windows: a chunk is a document of the parallel pass.

    The model has no column without a token here: those of a trained model hold nothing, those of a random one do.
    """
    data = (TEXT * 4)[:PIECE]
    model = neox_model(columns=TOKENS)
    coder = Coder.of(model, neox_tokenizer(), "", "no padding")
    corpus = tokenise([Document("text", data.decode())], neox_tokenizer())
    chunking = Chunking(150, 32, overlap, 128)
    (group,) = chunking.groups(len(corpus.tokens))
    starts = np.r_[np.arange(group.lanes) * group.length, len(corpus.tokens)]
    chunks = dataclasses.replace(corpus, document_starts=starts, document_names=("",) * group.lanes)
    windows = cut_windows(chunks, 32, 1, 31 - overlap, "window", coder.bos)
    rate = CodeLength(model)
    stream(model, windows, [rate])
    ideal = rate.nats().sum() / np.log(2) / 8
    coded = round_trip(data, coder, chunking)
    assert coded.ideal_bits / 8 == pytest.approx(ideal, rel=1e-5)
    assert abs(coded.payload_bytes - ideal) <= 0.005 * ideal + 64
    assert coded.overhead_bits <= 0.005 * coded.n_tokens + 2 * 32


def test_two_hundred_flipped_bits_are_all_found():
    file = compress(TEXT[:2000] + b"\xff" + TEXT[:500], CODER).file
    generator = random.Random(0)
    for _ in range(200):
        place = generator.randrange(8 * len(file))
        damaged = bytearray(file)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"damaged|other bytes|version"):
            decompress(bytes(damaged), CODER)


def test_truncation_at_every_fiftieth_is_found():
    file = compress(TEXT[:2000], CODER).file
    for share in range(50):
        with pytest.raises(ValueError, match=r"cut off|no file that infocomp"):
            decompress(file[: share * len(file) // 50], CODER)


def changed(file: bytes, **entries) -> bytes:
    """The same file with other entries in its header, and checksums that hold."""
    container = Container.unpack(file)
    return Container(container.header | entries, container.escapes, container.payload).pack()


def test_payload_of_another_text_with_right_checksums_is_never_written_out():
    one, two = compress(TEXT[:900], CODER), compress(TEXT[900:1800], CODER)
    mixed = Container(Container.unpack(one.file).header, b"", Container.unpack(two.file).payload).pack()
    with pytest.raises(ValueError, match="what came out of f has another checksum than what went in"):
        decompress(mixed, CODER, name="f")


def test_another_number_of_threads_changes_nothing():
    file = compress(TEXT[:400], CODER, threads=2).file
    torch.set_num_threads(1)
    assert decompress(file, CODER) == TEXT[:400]
    assert torch.get_num_threads() == 1 and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("threads", [2, 3, 4, 8])
def test_decoding_with_another_number_of_threads_is_exact_or_refused(threads):
    """The file claims another number than it was written with, and so it is read with that one."""
    file = changed(compress(TEXT[:300], CODER, threads=1).file, threads=threads)
    for attempt in (False, True):
        try:
            assert decompress(file, CODER, attempt=attempt) == TEXT[:300]
        except ValueError as error:
            assert re.search("has another checksum|computes other logits|does not fit the weights", str(error))
    torch.set_num_threads(1)


def test_a_surprise_beyond_the_floor_makes_the_file_shorter_than_the_model_says():
    model = neox_model(scale=2.0, columns=TOKENS)
    coder = Coder.of(model, neox_tokenizer(), "", "sure of itself")
    coded = round_trip(TEXT[:1500], coder, WIDE)
    assert coded.floor_saved_bits > 24 and 8 * coded.payload_bytes < coded.ideal_bits
    assert -1 <= coded.overhead_bits <= 0.005 * coded.n_tokens + 2 * 32


def test_another_configuration_of_the_same_weights_is_refused_by_name(monkeypatch):
    file = compress(TEXT[:300], CODER).file
    monkeypatch.setattr(CODER.model.config, "layer_norm_eps", 0.01)
    with pytest.raises(ValueError, match="the configuration must be"):
        decompress(file, CODER)


def test_the_first_sixteen_kilobytes_of_a_real_book_take_what_the_model_says(shared_data):
    coded = compress((shared_data / "text" / "book1").read_bytes()[:PIECE], CODER, WIDE)
    ideal = (coded.ideal_bits - coded.floor_saved_bits) / 8
    assert abs(coded.payload_bytes - ideal) <= 0.005 * ideal + 64


@pytest.mark.parametrize("lanes", [1, 3, 100])
def test_another_batch_is_exact_or_refused(lanes):
    file = compress(TEXT[:2500], CODER, Chunking(16, 32, 0, 32)).file
    other = changed(file, chunking={"chunk_tokens": 16, "context_length": 32, "overlap": 0, "lanes": lanes})
    try:
        assert decompress(other, CODER, attempt=True) == TEXT[:2500]
    except ValueError as error:
        assert "has another checksum" in str(error)
    with pytest.raises(ValueError, match=r"this machine computes other logits|another checksum"):
        decompress(other, CODER)


def test_the_machine_s_own_choice_of_lanes_plays_no_part_in_decoding(monkeypatch):
    file = compress(TEXT[:2500], CODER).file
    monkeypatch.setattr("infocomp.coding.codec.MOST_LANES", 2)
    assert decompress(file, CODER) == TEXT[:2500]


def test_other_weights_are_refused_by_their_fingerprint():
    file = compress(TEXT[:300], CODER).file
    other = neox_coder(seed=1)
    match = f"the weights must be {CODER.fingerprint}, and here it is {other.fingerprint}; it names tiny-neox"
    with pytest.raises(ValueError, match=match):
        decompress(file, other)


def test_weights_that_only_claim_to_be_the_same_are_found_by_the_probe():
    file = compress(TEXT[:300], CODER).file
    with pytest.raises(ValueError, match="this machine computes other logits from the same weights"):
        decompress(file, dataclasses.replace(CODER, model=neox_model(seed=1)))
    with pytest.raises(ValueError, match="another checksum"):
        decompress(file, dataclasses.replace(CODER, model=neox_model(seed=1)), attempt=True)


def test_another_tokenizer_dtype_or_attention_is_refused():
    file = compress(TEXT[:300], CODER).file
    with pytest.raises(ValueError, match="the tokenizer must be"):
        decompress(file, dataclasses.replace(CODER, tokenizer_hash="0" * 16))
    with pytest.raises(ValueError, match="the dtype must be bfloat16, and here it is float32"):
        decompress(changed(file, dtype="bfloat16"), CODER)
    with pytest.raises(ValueError, match="the attention must be eager, and here it is sdpa"):
        decompress(changed(file, attention="eager"), CODER)


def test_other_libraries_are_refused_and_can_be_tried():
    file = compress(TEXT[:300], CODER).file
    here = Container.unpack(file).header["environment"]
    older = changed(file, environment=here | {"torch": "1.0", "processor": "abacus"})
    with pytest.raises(ValueError, match=r"processor abacus there and .* here; torch 1.0 there and .* here\. Use the"):
        decompress(older, CODER)
    assert decompress(older, CODER, attempt=True) == TEXT[:300]
    with pytest.raises(ValueError, match="kind of device cuda there and cpu here"):
        decompress(changed(file, environment=here | {"device": "cuda"}), CODER, attempt=True)


@pytest.mark.parametrize("name", ["device", "processor", *LIBRARIES])
def test_every_entry_of_the_environment_is_compared_and_must_be_there(name):
    here = environment(torch.device("cpu"))
    assert differences(here, here) == [] and set(here) == set(NAMES) and here == environment(torch.device("cpu:0"))
    assert differences(here | {name: "other"}, here) == [f"{NAMES[name]} other there and {here[name]} here"]
    assert len(differences({key: value for key, value in here.items() if key != name}, here)) == 1


def settings_of_torch() -> tuple:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_settings_are_held_while_something_is_coded_and_given_back_whatever_happens(monkeypatch, workspace):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = settings_of_torch()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    others = settings_of_torch()
    try:
        with pytest.raises(ValueError, match="in between"), reproducible(3):
            assert settings_of_torch() == (3, True, False, False, "highest", workspace or ":4096:8")
            raise ValueError("in between")
        assert settings_of_torch() == others != before
    finally:
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        torch.set_float32_matmul_precision(before[4])


def threads_seen(monkeypatch, work) -> set[tuple[int, bool]]:
    """With how many threads the model was read while `work` was done, and whether with deterministic algorithms."""
    seen = set()
    read_group, decode = Lockstep.read_group, Lockstep.decode

    def note():
        seen.add((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(Lockstep, "read_group", lambda *given: (note(), read_group(*given))[1])
    monkeypatch.setattr(Lockstep, "decode", lambda *given: (note(), decode(*given))[1])
    work()
    return seen


def test_the_threads_that_were_asked_for_are_those_of_coding_and_of_decoding(monkeypatch):
    files = []
    seen = threads_seen(monkeypatch, lambda: files.append(compress(TEXT[:90], CODER, threads=2).file))
    assert seen == {(2, True)} and Container.unpack(files[0]).header["threads"] == 2
    assert threads_seen(monkeypatch, lambda: decompress(files[0], CODER)) == {(2, True)}


def test_the_probe_reads_three_steps_of_as_many_lanes_as_the_first_group(monkeypatch):
    lockstep, shapes = Lockstep(CODER.model, Chunking(16, 32, 0, 4), TOKENS, 0), []
    forward = CODER.model.forward

    def seen(**given):
        shapes.append(tuple(given["input_ids"].shape))
        return forward(**given)

    monkeypatch.setattr(CODER.model, "forward", seen)
    assert len(arithmetic_probe(lockstep, 100)) == 16 and shapes == [(4, 1)] * 3
    assert arithmetic_probe(lockstep, 0) == ""


def test_a_file_that_ends_otherwise_is_found_by_the_checksum_of_all_of_it():
    """Also with --attempt, and though every checksum of the container holds."""
    file = compress(TEXT[:400] + b"\xff", CODER).file
    container = Container.unpack(file)
    other = Container(container.header, container.escapes[:-1] + b"\xfe", container.payload).pack()
    for attempt in (False, True):
        with pytest.raises(ValueError, match="another checksum than what went in"):
            decompress(other, CODER, attempt=attempt)


def test_the_file_says_how_many_symbols_and_which_beginning_it_was_written_with():
    """What a coder at hand would take in their place plays no part."""
    fewer = dataclasses.replace(CODER, bos=5)
    assert decompress(compress(TEXT[:200], fewer).file, CODER) == TEXT[:200]


def test_the_token_before_a_text_is_that_of_the_beginning_or_else_of_the_end():
    tokenizer = neox_tokenizer()
    assert tokenizer.bos_token_id == 0 != tokenizer.eos_token_id
    assert Coder.of(neox_model(), tokenizer, "", "a").bos == 0
    tokenizer.bos_token = None
    assert Coder.of(neox_model(), tokenizer, "", "a").bos == tokenizer.eos_token_id


def test_a_model_is_put_into_eval_mode():
    model = neox_model().train()
    assert not Coder.of(model, neox_tokenizer(), "", "a").model.training and not model.training


def test_symbols_are_those_of_the_tokenizer_with_what_was_added():
    assert CODER.vocabulary == TOKENS
    assert dataclasses.replace(CODER, model=neox_model(columns=TOKENS)).vocabulary == TOKENS
    with pytest.raises(ValueError, match=f"knows token {TOKENS - 1}, and the model predicts {TOKENS - 1} tokens"):
        _ = dataclasses.replace(CODER, model=neox_model(columns=TOKENS - 1)).vocabulary


def test_the_commit_is_named_before_the_revision():
    header = Container.unpack(compress(b"a", dataclasses.replace(CODER, revision="main", commit="c0ffee")).file).header
    assert header["revision"] == "main" and header["commit"] == "c0ffee"
    assert named(header) == "tiny-neox at c0ffee"
    assert named(header | {"commit": None}) == "tiny-neox at main"
    assert named(header | {"commit": None, "revision": None}) == "tiny-neox"


def test_nothing_is_said_of_shares_of_nothing():
    empty, escaped = compress(b"", CODER), compress(TEXT[:297] + b"\xff\xfe\xfd", CODER)
    assert empty.bits_per_byte is None and empty.escape_share == 0 and empty.payload_bytes == 0
    assert escaped.escape_share == 0.01 and escaped.bits_per_byte == 8 * len(escaped.file) / 300
    assert compress(noise(300), CODER).payload_bytes == 0


def test_the_header_names_what_decides():
    header = Container.unpack(compress(TEXT[:300], CODER).file).header
    assert header["model"] == "tiny-neox" and header["weights"] == weights_fingerprint(CODER.model)
    assert header["tokenizer"] == CODER.tokenizer_hash and header["dtype"] == "float32"
    assert {"device", "processor", "torch", "transformers", "constriction"} <= set(header["environment"])
    assert header["bytes"] == 300 and len(json.dumps(header)) < 1200


def test_nothing_of_the_header_is_large():
    assert compress(b"", CODER).header_bytes < 500


def test_chunks_are_as_long_as_the_context_where_many_go_side_by_side():
    many, few = default_chunking(CODER, 10**6), default_chunking(CODER, 100)
    assert many.chunk_tokens == few.chunk_tokens == 31 and many.context_length == 32
    assert default_chunking(CODER, 100, chunk_tokens=500, overlap=8) == Chunking(500, 32, 8, 128)
    assert default_chunking(CODER, 100, context_length=32) == Chunking(31, 32, 0, 128)
    assert default_chunking(CODER, 100, context_length=16) == Chunking(15, 16, 0, 128)
    assert default_chunking(CODER, 100, chunk_tokens=9, overlap=30) == Chunking(9, 10, 0, 128)
    without = dataclasses.replace(CODER, bos=None)
    assert default_chunking(without, 100) == Chunking(32, 32, 0, 128)
    assert default_chunking(without, 100, chunk_tokens=1) == Chunking(1, 2, 0, 128)
    with pytest.raises(ValueError, match="context_length is 64, and the model reads 2 to 32 positions"):
        default_chunking(CODER, 100, context_length=64)


def test_a_long_context_is_given_up_where_the_text_is_short(monkeypatch):
    monkeypatch.setattr(CODER.model.config, "max_position_embeddings", 4096)
    assert default_chunking(CODER, 10**6).chunk_tokens == 4095
    assert default_chunking(CODER, 32 * 1000).chunk_tokens == 1000
    assert default_chunking(CODER, 500).chunk_tokens == 256
    monkeypatch.setattr("infocomp.coding.codec.CACHE_BUDGET", 5 * 1001 * cache_bytes(CODER.model))
    assert default_chunking(CODER, 32 * 1000).lanes == 5
    monkeypatch.setattr("infocomp.coding.codec.CACHE_BUDGET", 1)
    assert default_chunking(CODER, 32 * 1000).lanes == 1


def test_a_model_that_names_no_length_of_its_own_reads_2048_positions():
    model = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=TOKENS, hidden_size=32, n_layer=1, n_head=4))
    assert default_chunking(dataclasses.replace(CODER, model=model), 10**6).context_length == 2048


def test_bytes_of_the_cache_by_hand():
    assert cache_bytes(CODER.model) == 2 * 2 * 32 * 4  # keys and values, layers, dimensions, bytes
    assert cache_bytes(neox_model(dtype=torch.bfloat16)) == 2 * 2 * 32 * 2
    assert cache_bytes(tiny_model("llama")) == 2 * 3 * 2 * 8 * 4  # two of four heads
    model = tiny_model("qwen3")
    model.config.head_dim = 16  # other than dimensions over heads
    assert cache_bytes(model) == 2 * 3 * 2 * 16 * 4


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    coder = other_coder("llama")
    with pytest.raises(ValueError, match="the tokenizer knows token 339, and the model predicts 97 tokens"):
        compress(b"abc", dataclasses.replace(coder, tokenizer=CODER.tokenizer))
