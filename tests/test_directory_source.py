"""Checkpoints in local folders: listed, ordered, opened, and refused in one sentence where something is wrong."""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import tiny_model, tiny_tokenizer, write_series
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from infocomp.checkpoints.integrity import duplicates, files_fingerprint, weights_fingerprint
from infocomp.checkpoints.source import DirectorySource, SingleSource

DENSE = "gpt_neox.layers.1.attention.dense.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_series(tmp_path_factory.mktemp("series"), [0, 1, 8, 64])


@pytest.fixture
def series(written, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "series"))


def edit(folder: Path, change) -> None:
    """Rewrites the tensors of a checkpoint folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def opened(series: Path, name: str, **settings):
    source = DirectorySource(series, [name], model="tiny")
    return source.open(source.list()[0], **settings)


def refusal(series: Path, name: str, kind: type[Exception] = ValueError) -> str:
    """The sentence with which opening a checkpoint is refused."""
    with pytest.raises(kind) as error:
        opened(series, name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_checkpoint_folders_are_listed_by_step_and_everything_else_is_ignored(series):
    for name in ("figures", "step2.tmp", ".step3"):
        (series / name).mkdir()
    (series / "step5").write_text("a file, not a folder")
    shutil.copytree(series / "step64", series / "checkpoint-500")
    listed = DirectorySource(series, model="tiny", batch_tokens=1024).list()
    assert [checkpoint.revision.step for checkpoint in listed] == [0, 1, 8, 64, 500]
    assert [checkpoint.revision.tokens for checkpoint in listed] == [0, 1024, 8192, 65536, 512_000]
    assert {checkpoint.model for checkpoint in listed} == {"tiny"}
    assert all(checkpoint.commit is None for checkpoint in listed)
    assert listed[1].size_bytes == (series / "step1" / "model.safetensors").stat().st_size


def test_a_choice_holds_for_folders_too(series):
    assert [c.revision.name for c in DirectorySource(series, {"log_spaced": 3}).list()] == ["step0", "step8", "step64"]
    with pytest.raises(ValueError) as error:
        DirectorySource(series, ["step9"]).list()
    assert str(error.value) == f"no revision 'step9' in {series}; closest are 'step8', 'step1', 'step0'"


def test_a_model_beside_the_checkpoints_is_taken_by_its_name_only(series):
    shutil.copytree(series / "step64", series / "final")
    assert [c.revision.name for c in DirectorySource(series).list()] == ["step0", "step1", "step8", "step64"]
    assert [c.revision.name for c in DirectorySource(series, ["final"]).list()] == ["final"]


def test_tokens_of_a_published_family_are_known_by_the_models_name(series):
    listed = DirectorySource(series, [64], model="EleutherAI/pythia-70m").list()
    assert listed[0].revision.tokens == 64 * 2_097_152
    assert DirectorySource(series, [64]).list()[0].revision.tokens is None


def test_listing_loads_no_weights_and_hashes_the_weight_files(series, monkeypatch):
    monkeypatch.setattr("safetensors.safe_open", None)
    checkpoint = DirectorySource(series, [8]).list()[0]
    digest = hashlib.sha256((series / "step8" / "model.safetensors").read_bytes()).hexdigest()
    assert checkpoint.files_fingerprint == files_fingerprint([("model.safetensors", digest)])


def test_duplicates_are_known_from_the_listing(series):
    shutil.copy(series / "step0" / "model.safetensors", series / "step1" / "model.safetensors")
    listed = DirectorySource(series).list()
    assert duplicates([(c.revision.name, c.files_fingerprint) for c in listed]) == {"step1": "step0"}


def test_a_checkpoint_opens_as_it_was_written_in_eval_mode_and_float32(written):
    loaded = opened(written, "step8")
    reference = tiny_model(8)
    assert loaded.fingerprint == weights_fingerprint(reference)
    assert loaded.parameters == sum(p.numel() for p in reference.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.model.config._attn_implementation == "sdpa"
    assert loaded.checkpoint.revision.step == 8
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.model(ids).logits, reference(ids).logits)


def test_the_dtype_is_the_one_asked_for_whatever_the_file_holds(series):
    tiny_model(3).half().save_pretrained(series / "step3")
    assert json.loads((series / "step3" / "config.json").read_text())["dtype"] == "float16"
    assert {p.dtype for p in opened(series, "step3").model.parameters()} == {torch.float32}
    assert {p.dtype for p in opened(series, "step3", dtype=torch.bfloat16).model.parameters()} == {torch.bfloat16}


def test_the_attention_is_the_one_asked_for(written):
    assert opened(written, "step8", attention="eager").model.config._attn_implementation == "eager"


def test_a_bin_checkpoint_opens_with_the_same_tensors_as_a_safetensors_one(series):
    before = opened(series, "step8")
    torch.save(load_file(series / "step8" / "model.safetensors"), series / "step8" / "pytorch_model.bin")
    assert DirectorySource(series, [8]).list()[0].files_fingerprint == before.checkpoint.files_fingerprint
    (series / "step8" / "model.safetensors").unlink()
    after = opened(series, "step8")
    assert after.fingerprint == before.fingerprint
    assert after.checkpoint.files_fingerprint != before.checkpoint.files_fingerprint


def test_a_sharded_checkpoint_opens_and_a_lacking_shard_is_named(series):
    tiny_model(9).save_pretrained(series / "step9", max_shard_size="20KB")
    shards = sorted((series / "step9").glob("model-*.safetensors"))
    assert len(shards) >= 2
    assert opened(series, "step9").fingerprint == weights_fingerprint(tiny_model(9))
    shards[1].unlink()
    assert refusal(series, "step9") == (
        f"step9 of tiny lacks {shards[1].name}: its upload or its writing did not end; leave it out"
    )


def test_old_neox_buffers_are_accepted_without_a_word(series, caplog, capfd):
    def add(tensors):
        for layer in range(2):
            tensors[f"gpt_neox.layers.{layer}.attention.bias"] = torch.ones(1, 1, 8, 8)
            tensors[f"gpt_neox.layers.{layer}.attention.masked_bias"] = torch.tensor(-1e9)
            tensors[f"gpt_neox.layers.{layer}.attention.rotary_emb.inv_freq"] = torch.ones(2)

    edit(series / "step8", add)
    assert opened(series, "step8").fingerprint == weights_fingerprint(tiny_model(8))
    captured = capfd.readouterr()
    assert (caplog.text, captured.out, captured.err) == ("", "", "")


def test_old_gpt2_buffers_are_accepted_without_a_word(tmp_path, caplog):
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "checkpoint-400")
    buffers = {
        f"transformer.h.{layer}.attn.{name}": torch.ones(2) for layer in (0, 1) for name in ("bias", "masked_bias")
    }
    edit(tmp_path / "checkpoint-400", lambda tensors: tensors.update(buffers))
    assert opened(tmp_path, "checkpoint-400").parameters > 0
    assert caplog.text == ""


def test_tensors_that_the_model_has_no_place_for_are_a_log_line(series, caplog):
    edit(series / "step8", lambda tensors: tensors.update({"value_head.weight": torch.ones(2)}))
    with caplog.at_level(logging.WARNING):
        opened(series, "step8")
    assert caplog.messages == [
        "step8 of tiny holds 1 tensor that its model has no place for (value_head.weight); they are unused"
    ]


def test_opening_leaves_the_verbosity_and_the_progress_bars_of_transformers_as_they_were(written):
    before = transformers_logging.get_verbosity()
    try:
        transformers_logging.set_verbosity_info()
        transformers_logging.enable_progress_bar()
        opened(written, "step8")
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        opened(written, "step8")
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()


def test_a_missing_tensor_is_refused_by_name(series):
    edit(series / "step8", lambda tensors: tensors.pop(DENSE))
    assert refusal(series, "step8") == (
        f"checkpoint step8 of tiny lacks 1 tensor ({DENSE}); refusing to fill them at random"
    )


def test_a_missing_head_is_refused_where_it_is_not_tied(series):
    edit(series / "step8", lambda tensors: tensors.pop("embed_out.weight"))
    assert "lacks 1 tensor (lm_head.weight); refusing to fill them at random" in refusal(series, "step8")


def test_a_tensor_of_another_shape_is_refused_by_name(series):
    edit(series / "step8", lambda tensors: tensors.update({DENSE: torch.ones(3, 3)}))
    assert refusal(series, "step8") == (
        f"checkpoint step8 of tiny has 1 tensor of another shape "
        f"({DENSE}: (3, 3) in the file, (16, 16) by config.json); refusing to fill them at random"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: body[: len(body) // 2], "incomplete metadata, file not fully covered"),
        (lambda body: b"", "header too small"),
        (lambda body: body[:3] + b"\xff" * 6 + body[9:], "header too large"),
    ],
)
def test_a_corrupt_safetensors_file_is_refused_in_one_sentence(series, damage, reason):
    file = series / "step8" / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(series, "step8") == (
        f"step8 of tiny cannot be loaded from {file.parent} (model.safetensors): "
        f"Error while deserializing header: {reason}; a damaged file wants to be deleted and fetched or written again"
    )


def test_a_truncated_bin_file_is_refused_in_one_sentence(series):
    folder = series / "step8"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    body = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(body[: len(body) // 2])
    assert refusal(series, "step8").startswith(f"step8 of tiny cannot be loaded from {folder} (pytorch_model.bin): ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_or_infinite_weights_are_refused_by_name(series, value):
    edit(series / "step8", lambda tensors: tensors[DENSE][0].fill_(value))
    assert refusal(series, "step8") == (
        f"step8 of tiny has 16 of 256 values of {DENSE} that are NaN or infinite: "
        "the checkpoint is damaged or its training diverged; leave it out"
    )


def test_an_empty_checkpoint_folder_is_listed_and_refused_when_opened(series):
    (series / "step100").mkdir()
    assert [c.revision.step for c in DirectorySource(series).list()] == [0, 1, 8, 64, 100]
    assert refusal(series, "step100") == (
        "step100 of tiny holds no weights (only an empty folder): its upload or its writing did not end; leave it out"
    )
    assert opened(series, "step64").parameters > 0


def test_a_folder_without_weights_says_what_it_holds(series):
    (series / "step8" / "model.safetensors").unlink()
    assert refusal(series, "step8").startswith(
        "step8 of tiny holds no weights (only config.json, generation_config.json, "
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "It looks like the config file at '{file}' is not a valid JSON file"),
        ('{"model_type": "mamba9"}', "The checkpoint you are trying to load has model type `mamba9`"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_sentence(series, text, reason):
    file = series / "step8" / "config.json"
    file.write_text(text)
    assert refusal(series, "step8").startswith(
        "config.json of step8 of tiny cannot be used: " + reason.format(file=file)
    )
    file.unlink()
    assert refusal(series, "step8") == "step8 of tiny has no config.json: it is not a Hugging Face checkpoint"


def test_a_folder_without_checkpoints_is_one_sentence(tmp_path, written):
    with pytest.raises(FileNotFoundError) as error:
        DirectorySource(tmp_path / "nowhere").list()
    assert str(error.value) == (
        f"no folder {tmp_path}/nowhere: one that holds checkpoint folders (step0, step1, …) is needed"
    )
    (tmp_path / "figures").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        DirectorySource(tmp_path).list()
    assert str(error.value) == (
        f"{tmp_path} holds no checkpoint folders (step512, checkpoint-500, …); the folders in it: figures"
    )
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint folders .*; the folders in it: figures"):
        DirectorySource(tmp_path, ["step1"]).list()
    with pytest.raises(FileNotFoundError, match="the folders in it: none; it is itself one checkpoint, a single model"):
        DirectorySource(written / "step8").list()


def test_the_tokenizer_is_that_of_the_first_checkpoint_that_has_one(series):
    for name in ("step0", "step1"):
        for file in (series / name).glob("*tokenizer*"):
            file.unlink()
    tokenizer = DirectorySource(series).tokenizer()
    assert tokenizer("the cat").input_ids == tiny_tokenizer()("the cat").input_ids


def test_the_tokenizer_may_lie_beside_the_checkpoint_folders(tmp_path):
    write_series(tmp_path, [1], tokenizer=False)
    with pytest.raises(FileNotFoundError) as error:
        DirectorySource(tmp_path, model="tiny").tokenizer()
    assert str(error.value).startswith("none of the 1 checkpoints of tiny has a tokenizer (")
    tiny_tokenizer().save_pretrained(tmp_path)
    assert DirectorySource(tmp_path).tokenizer()("the cat").input_ids == tiny_tokenizer()("the cat").input_ids


def test_a_damaged_tokenizer_is_one_sentence(series):
    (series / "step0" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="the tokenizer of step0 of tiny cannot be read: "):
        DirectorySource(series, model="tiny").tokenizer()


def test_the_configuration_is_read_without_the_weights(series):
    (series / "step0" / "model.safetensors").write_bytes(b"")
    assert DirectorySource(series).config().hidden_size == 16
    (series / "step0" / "config.json").unlink()
    assert DirectorySource(series).config().hidden_size == 16


def test_a_single_folder_is_one_checkpoint_with_the_step_of_its_name(written):
    source = SingleSource(written / "step8")
    (checkpoint,) = source.list()
    assert (checkpoint.revision.name, checkpoint.revision.step) == ("step8", 8)
    assert source.open(checkpoint).fingerprint == weights_fingerprint(tiny_model(8))
    assert source.tokenizer()("the cat").input_ids == tiny_tokenizer()("the cat").input_ids
    source.close(checkpoint)
    assert (written / "step8" / "model.safetensors").is_file()


def test_a_single_folder_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        SingleSource(tmp_path / "nowhere")
    assert str(error.value) == (
        f"no folder {tmp_path}/nowhere: a local checkpoint folder, or a repository as owner/name, is needed"
    )
    with pytest.raises(FileNotFoundError, match=r"has no config.json: a Hugging Face checkpoint folder is needed"):
        SingleSource(tmp_path).list()
    with pytest.raises(
        ValueError, match=r"revision is 'step1', but .* is a local folder, which has none: leave it out"
    ):
        SingleSource(tmp_path, revision="step1")


def test_closing_a_local_checkpoint_deletes_nothing(series):
    source = DirectorySource(series)
    for checkpoint in source.list():
        source.close(checkpoint)
    assert len(list(series.glob("*/model.safetensors"))) == 4


def test_the_conversion_service_is_switched_off_before_transformers_is_imported():
    code = (
        "import sys, os; os.environ.pop('DISABLE_SAFETENSORS_CONVERSION', None)\n"
        "class Look:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'transformers': print(os.environ.get('DISABLE_SAFETENSORS_CONVERSION')); sys.exit()\n"
        "sys.meta_path.insert(0, Look())\n"
        "import infocomp.checkpoints.source"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "1", run.stderr
