"""Fingerprints of files and tensors, duplicates, and weights that are not numbers."""

import doctest
import hashlib
import subprocess
import time

import pytest
import torch
from hub_server import tiny_model
from torch import nn

from infocomp.checkpoints import integrity
from infocomp.checkpoints.integrity import (
    check_finite,
    duplicates,
    file_hash,
    files_fingerprint,
    missing_shards,
    weight_files,
    weights_fingerprint,
)


def test_equal_models_have_equal_fingerprints_and_one_changed_bit_changes_it():
    one, two = tiny_model(0), tiny_model(0)
    before = weights_fingerprint(one)
    assert before == weights_fingerprint(two)
    assert len(before) == 32
    weight = two.get_parameter("gpt_neox.layers.1.mlp.dense_4h_to_h.weight")
    with torch.no_grad():
        weight.view(torch.int32)[3, 5] ^= 1
    assert weights_fingerprint(two) != before


def test_the_fingerprint_is_the_hash_of_name_dtype_shape_and_bytes_in_the_order_of_names():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Parameter(torch.tensor([1.0, 2.0]))
            self.a = nn.Parameter(torch.tensor(3.0, dtype=torch.bfloat16))

    whole = hashlib.sha256()
    whole.update(b"a torch.bfloat16 ()\n" + hashlib.sha256(bytes.fromhex("4040")).digest())
    whole.update(b"b torch.float32 (2,)\n" + hashlib.sha256(bytes.fromhex("0000803f00000040")).digest())
    assert weights_fingerprint(Two()) == whole.hexdigest()[:32]


def test_a_name_a_shape_or_a_dtype_that_differs_gives_another_fingerprint():
    def holding(name, tensor):
        module = nn.Module()
        module.register_buffer(name, tensor)
        return weights_fingerprint(module)

    zeros = torch.zeros(4)
    found = {holding("x", zeros), holding("y", zeros), holding("x", zeros.reshape(2, 2)), holding("x", zeros.half())}
    found.add(holding("x", torch.zeros(4, dtype=torch.int32)))
    assert len(found) == 5


def test_a_tied_model_equals_an_untied_one_with_equal_values():
    tied = tiny_model(0, tie_word_embeddings=True)
    untied = tiny_model(1)
    untied.load_state_dict(tied.state_dict())
    assert tied.state_dict()["lm_head.weight"].data_ptr() == tied.state_dict()["gpt_neox.embed_in.weight"].data_ptr()
    assert untied.get_parameter("lm_head.weight") is not untied.get_parameter("gpt_neox.embed_in.weight")
    assert weights_fingerprint(tied) == weights_fingerprint(untied)


def test_two_views_of_one_storage_are_told_apart():
    storage = torch.arange(6.0)

    def holding(first, second):
        module = nn.Module()
        module.register_buffer("first", first)
        module.register_buffer("second", second)
        return weights_fingerprint(module)

    square = storage[:4].reshape(2, 2)
    assert holding(square, square.t()) == holding(square.clone(), square.t().contiguous())
    assert holding(square, square.t()) != holding(square, square)
    assert holding(storage[:2], storage[:3]) == holding(storage[:2].clone(), storage[:3].clone())


def test_a_model_with_70_million_parameters_is_fingerprinted_and_checked_in_well_under_a_second():
    layer = nn.Linear(10_000, 7_000, bias=False)
    start = time.process_time()
    check_finite(layer, "layer")
    weights_fingerprint(layer)
    # 0.17 s of one core with SHA instructions, about 0.7 s without; a copy, or bytes through Python, would show here.
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_numbers_are_refused_by_name(value, dtype):
    model = tiny_model(0).to(dtype)
    check_finite(model, "step7 of x/y")
    with torch.no_grad():
        model.get_parameter("gpt_neox.layers.1.mlp.dense_4h_to_h.bias")[4:6] = value
    with pytest.raises(ValueError) as error:
        check_finite(model, "step7 of x/y")
    assert str(error.value) == (
        "step7 of x/y has 2 of 16 values of gpt_neox.layers.1.mlp.dense_4h_to_h.bias that are NaN or infinite: "
        "the checkpoint is damaged or its training diverged; leave it out"
    )


def test_a_nan_in_a_buffer_counts_and_integers_and_empty_tensors_do_not_disturb():
    module = nn.Module()
    module.register_buffer("counts", torch.tensor([1, 2]))
    module.register_buffer("empty", torch.zeros(0))
    check_finite(module, "m")
    weights_fingerprint(module)
    module.register_buffer("running", torch.tensor(float("nan")))
    with pytest.raises(ValueError, match="m has 1 of 1 values of running that are NaN or infinite"):
        check_finite(module, "m")


def test_duplicates_are_the_later_names_with_the_first_one_that_had_the_fingerprint():
    listed = [("step0", "a"), ("step1", "a"), ("step2", "b"), ("step3", "c"), ("step4", "b"), ("step5", "a")]
    assert duplicates(listed) == {"step1": "step0", "step4": "step2", "step5": "step0"}


def test_checkpoints_without_files_are_no_duplicates_of_each_other():
    assert duplicates([("step0", ""), ("step1", ""), ("step2", "b")]) == {}


def test_the_fingerprint_of_files_does_not_depend_on_their_order_and_is_empty_without_files():
    one, two = ("model-00001-of-00002.safetensors", "aa"), ("model-00002-of-00002.safetensors", "bb")
    assert files_fingerprint([one, two]) == files_fingerprint([two, one])
    assert len(files_fingerprint([one])) == 32
    assert files_fingerprint([(one[0], "bb"), (two[0], "aa")]) != files_fingerprint([one, two])
    assert files_fingerprint([]) == ""


def test_a_file_hash_is_the_sha256_or_the_object_id_that_git_gives(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"some weights\n" * 100_000)
    assert file_hash(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    git = subprocess.run(["git", "hash-object", file], capture_output=True, text=True, check=True).stdout.strip()
    assert file_hash(file, like=git) == git


def test_weights_are_looked_for_as_transformers_does_and_safetensors_come_first():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert weight_files(["pytorch_model.bin", "model.safetensors", "config.json"]) == ["model.safetensors"]
    assert weight_files(["pytorch_model.bin", index, *shards]) == shards
    assert weight_files([*shards, index, "model.safetensors"]) == ["model.safetensors"]
    assert weight_files(["training_args.bin", "pytorch_model.bin", "optimizer.pt"]) == ["pytorch_model.bin"]
    assert weight_files(["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"]) == [
        "pytorch_model-00001-of-00001.bin"
    ]
    assert weight_files(["config.json", "consolidated.safetensors"]) == []


def test_shards_that_others_promise_are_found_missing():
    assert missing_shards(["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"]) == [
        "model-00002-of-00003.safetensors"
    ]
    assert missing_shards(["model.safetensors"]) == []
    assert missing_shards([f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]) == []


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(integrity).failed == 0
