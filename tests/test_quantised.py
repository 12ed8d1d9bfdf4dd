"""Fewer bits a weight: the nearest level, per output channel, counted to the byte, and gone without a trace."""

import itertools
import lzma

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, VOCABULARY, some_ids, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from infocomp.coding.quantised import WIDTHS, Rounding, packed_weights, quantised, round_to_nearest, weight_bytes

PLAIN, FITTED = Rounding(fitted=False), Rounding()
AFFINE, AFFINE_FITTED = Rounding(affine=True, fitted=False), Rounding(affine=True)
ROUNDINGS = (PLAIN, FITTED, AFFINE, AFFINE_FITTED)
FEW = [bits for bits in WIDTHS if bits < 16]


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters(remove_duplicate=False)}


def rounded(model: nn.Module, bits: int, rounding: Rounding = FITTED) -> dict[str, torch.Tensor]:
    with quantised(model, bits, rounding) as served:
        return weights_of(served)


def bits_of(values: torch.Tensor) -> torch.Tensor:
    """The stored bits, so that −0 and 0 differ."""
    return values.view({2: torch.int16, 4: torch.int32}[values.element_size()])


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(bits_of(one[name]), bits_of(other[name])) for name in one)


def test_two_bits_by_hand():
    row = torch.tensor([[1.5, 0.2, -0.9, -1.5], [0.0, 0.0, 0.0, 0.0], [3.0, -1.2, 0.1, 2.0]])
    symmetric = round_to_nearest(row, 2, PLAIN)
    assert symmetric.codes.tolist() == [[3, 2, 1, 0], [2] * 4, [3, 1, 2, 3]]
    assert symmetric.weights().tolist() == [[1.5, 0.5, -0.5, -1.5], [0.0] * 4, [3.0, -1.0, 1.0, 3.0]]
    affine = round_to_nearest(torch.tensor([[0.0, 1.4, 1.6, 3.0], [7.0, 7.0, 7.0, 7.0]]), 2, AFFINE)
    assert affine.codes.tolist() == [[0, 1, 2, 3], [0] * 4]
    assert affine.weights().tolist() == [[0.0, 1.0, 2.0, 3.0], [7.0] * 4]


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
@pytest.mark.parametrize("bits", FEW)
def test_every_weight_goes_to_the_nearest_of_its_channels_levels(bits, rounding):
    """The slow twin: all levels of the channel, tried one by one."""
    weights = gaussian(5, 40) * torch.tensor([1e-6, 1e-3, 1.0, 30.0, 4000.0])[:, None] + 0.3
    coded = round_to_nearest(weights, bits, rounding)
    for row, scale, found, least in zip(
        weights, coded.scale, coded.weights(), [None] * 5 if coded.least is None else coded.least, strict=True
    ):
        steps = torch.arange(2**bits).float()
        levels = (steps - 2 ** (bits - 1) + 0.5) * scale if least is None else least + steps * scale
        nearest = (row[:, None] - levels).abs().min(dim=1).values
        assert torch.allclose((row - found).abs(), nearest, rtol=1e-5, atol=1e-6 * float(row.abs().max()))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("bits", FEW)
def test_a_fitted_range_has_no_larger_squared_error_in_any_channel(bits, affine):
    weights = gaussian(64, 96)
    plain, fitted = (round_to_nearest(weights, bits, Rounding(affine, fits)).weights() for fits in (False, True))
    errors = [(some - weights).square().sum(1) for some in (fitted, plain)]
    assert (errors[0] <= errors[1]).all()
    assert bits > 4 or (errors[0] < errors[1]).sum() > 32


@pytest.mark.parametrize(("bits", "least_error"), [(2, 0.1188), (3, 0.03744), (4, 0.01154)])
def test_a_fitted_range_reaches_the_best_uniform_quantiser_of_a_gaussian(bits, least_error):
    """Max (1960), table II. The shares lie 12 % apart, and 6 % beside the best step costs up to 3 %."""
    weights = gaussian(8, 50_000)
    error = (round_to_nearest(weights, bits, FITTED).weights() - weights).square().mean()
    assert 0.99 * least_error < error < 1.04 * least_error


def test_a_step_below_the_smallest_number_of_fp16_is_that_number():
    weights = 1e-6 * gaussian(4, 50).clamp(-3, 3)
    for rounding in (PLAIN, FITTED, AFFINE):
        coded = round_to_nearest(weights, 8, rounding)
        assert (coded.scale.double() == 2.0**-24).all()
        assert ((coded.weights() - weights).abs() <= 2.0**-24).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_come_back_bit_for_bit(architecture, dtype):
    model = tiny_model(architecture, dtype=dtype)
    with torch.no_grad():
        next(model.parameters())[0, :2] = torch.tensor([-0.0, 1e-30], dtype=dtype)
    before, objects = weights_of(model), list(model.parameters())
    for bits in WIDTHS:
        with quantised(model, bits) as served:
            assert served is model
            assert (bits == 16 and dtype == torch.bfloat16) or not equal(weights_of(model), before)
        assert equal(weights_of(model), before)
    assert all(one is other for one, other in zip(model.parameters(), objects, strict=True))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_the_weights_come_back_after_an_exception():
    model = tiny_model("gpt2")
    before = weights_of(model)
    with pytest.raises(ZeroDivisionError), quantised(model, 3):
        assert not equal(weights_of(model), before)
        _ = 1 / 0
    assert equal(weights_of(model), before)


def test_a_weight_that_fp16_cannot_hold_is_refused_and_nothing_is_left_rounded():
    for wrong in (70_000.0, float("nan"), float("inf")):
        model = tiny_model("gpt_neox")
        with torch.no_grad():
            model.get_output_embeddings().weight[3, 5] = wrong
        before = weights_of(model)
        for bits in (16, 4):
            with pytest.raises(
                ValueError, match=r"parameter \w+.weight holds (70000|nan|inf), .*; leave this checkpoint out"
            ):
                rounded(model, bits)
            assert equal(weights_of(model), before)
        with pytest.raises(ValueError, match="within the range of fp16, 65,504"):
            weight_bytes(model, 4)


def test_unknown_widths_and_weights_that_are_codes_already_are_refused():
    model = tiny_model("gpt_neox")
    for call in (rounded, weight_bytes, packed_weights):
        with pytest.raises(ValueError, match=r"bits is one of 16, 8, 6, 4, 3, 2 per weight, not 5; 16 is fp16"):
            call(model, 5)
    model.get_output_embeddings().weight = nn.Parameter(torch.ones(97, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"parameter \w+.weight is int8, and rounding needs weights of floating"):
        rounded(model, 4)


def test_sixteen_bits_is_fp16():
    model = tiny_model("gpt_neox")
    expected = {name: values.half().float() for name, values in weights_of(model).items()}
    assert equal(rounded(model, 16), expected)
    assert weight_bytes(model, 16) == 2 * model.num_parameters()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matrices_have_few_levels_in_each_output_channel_and_vectors_are_fp16(architecture):
    model = tiny_model(architecture)
    conv1d = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    }  # [inputs, output channels]
    before = weights_of(model)
    for name, values in rounded(model, 2).items():
        if values.ndim < 2:
            assert torch.equal(values, before[name].half().float()), name
            continue
        channels = values.T if name in conv1d else values
        assert all(len(channel.unique()) <= 4 for channel in channels), name
        assert any(len(other.unique()) > 4 for other in channels.T), name
    assert (len(conv1d) > 0) == (architecture == "gpt2")


def test_tied_weights_are_rounded_and_counted_once():
    model = tiny_model("gpt2")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    columns = sum(p.shape[1] if name.startswith("transformer.h") else p.shape[0] for name, p in named_matrices(model))
    vectors = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert weight_bytes(model, 8) == matrices + 2 * columns + 2 * vectors
    with quantised(model, 2):
        assert model.lm_head.weight is model.transformer.wte.weight
        assert len(model.lm_head.weight[7].unique()) <= 4
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.detach())  # tied by its storage alone
    assert weight_bytes(model, 8) == matrices + 2 * columns + 2 * vectors
    once = rounded(model, 2)
    assert torch.equal(once["lm_head.weight"], once["transformer.wte.weight"])
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.detach().clone())
    assert weight_bytes(model, 8) == matrices + 2 * columns + 2 * vectors + VOCABULARY * (32 + 2)


def named_matrices(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.ndim == 2]


def test_the_bytes_are_codes_without_gaps_with_a_scale_for_each_channel():
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7))
    for bits, codes in ((2, 9), (3, 14), (4, 18), (6, 27), (8, 35)):  # 35 codes
        assert weight_bytes(model, bits) == codes + 2 * 7 + 2 * (7 + 14)
        assert weight_bytes(model, bits, AFFINE) == codes + 4 * 7 + 2 * (7 + 14)
    assert weight_bytes(model, 16) == 2 * (35 + 21)


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2"])
def test_the_counted_bytes_are_all_that_the_weights_need(architecture, rounding):
    """A decoder of its own: it knows the shapes and reads nothing but the bytes."""
    model = tiny_model(architecture)
    for bits in WIDTHS:
        packed = packed_weights(model, bits, rounding)
        assert len(packed) == weight_bytes(model, bits, rounding)
        at = 0

        def take(count: int, packed: bytes = packed) -> np.ndarray:
            nonlocal at
            at += 2 * count
            return np.frombuffer(packed, "<f2", count, at - 2 * count).astype(np.float32)

        with quantised(model, bits, rounding):
            for name, parameter in model.named_parameters():
                turned = architecture == "gpt2" and ".h." in name and parameter.ndim == 2
                served = parameter.detach().numpy()
                served = served.T if turned else served
                if bits == 16 or served.ndim == 1:
                    values = take(served.size).reshape(served.shape)
                else:
                    channels, inputs = served.shape
                    scale = take(channels)[:, None]
                    least = take(channels)[:, None] if rounding.affine else -(2 ** (bits - 1) - 0.5) * scale
                    size = -(-channels * inputs * bits // 8)
                    stream = "".join(f"{byte:08b}" for byte in packed[at : at + size])
                    codes = [int(stream[bits * i : bits * (i + 1)], 2) for i in range(channels * inputs)]
                    values = least + np.array(codes, np.float32).reshape(channels, inputs) * scale
                    at += size
                np.testing.assert_allclose(values, served, rtol=1e-6, atol=1e-7, err_msg=name)
        assert at == len(packed)


def test_after_an_entropy_coder_the_codes_take_little_more_than_their_entropy():
    model = nn.Linear(256, 256, bias=False)
    with torch.no_grad():
        model.weight.copy_(gaussian(256, 256))
    for bits in (2, 3, 6):
        codes = round_to_nearest(model.weight.detach(), bits, FITTED).codes
        share = np.bincount(codes.numpy().ravel()) / codes.numel()
        entropy = -(share[share > 0] * np.log2(share[share > 0])).sum() * codes.numel() / 8 + 2 * 256
        coded = weight_bytes(model, bits, entropy_coded=True)
        assert 0.97 * entropy < coded < 1.09 * entropy
        assert coded < 1.02 * weight_bytes(model, bits)


def test_entropy_coded_bytes_decode_to_the_weights_in_the_shorter_of_two_layouts():
    model = tiny_model("gpt_neox")
    for bits in (16, 4):
        layouts = [packed_weights(model, bits, apart=apart) for apart in (False, True)]
        coded = [lzma.compress(layout, preset=6) for layout in layouts]
        assert [lzma.decompress(some) for some in coded] == layouts
        assert weight_bytes(model, bits, entropy_coded=True) == min(map(len, coded))
    low, high = (
        np.frombuffer(packed_weights(nn.LayerNorm(3), 16, apart=True), np.uint8).reshape(2, 2, 3).transpose(1, 0, 2)
    )
    assert np.array_equal(low.ravel() + 256 * high.ravel().astype(int), [0x3C00] * 3 + [0] * 3)  # ones, then zeros


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama"])
def test_more_bits_are_nearer_to_the_models_own_logits(architecture):
    model, ids = tiny_model(architecture), some_ids()
    with torch.inference_mode():
        own = model(ids).logits
        errors = []
        for bits in sorted(WIDTHS):
            with quantised(model, bits):
                errors.append((model(ids).logits - own).abs().mean().item())
        assert torch.equal(model(ids).logits, own)
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.002 * errors[0]


def test_stacked_matrices_and_filters_have_a_scale_for_each_output_channel():
    experts = nn.Module()
    experts.stacked = nn.Parameter(gaussian(3, 8, 16))
    assert weight_bytes(experts, 8) == 3 * 8 * 16 + 2 * 3 * 8
    assert all(len(row.unique()) <= 4 for row in rounded(experts, 2)["stacked"].reshape(24, 16))
    filters = nn.Conv1d(4, 6, 5, bias=False)
    assert weight_bytes(filters, 8) == 6 * 4 * 5 + 2 * 6
    assert all(len(row.unique()) <= 4 for row in rounded(filters, 2)["weight"].reshape(6, 20))


def test_a_large_matrix_is_rounded_piece_by_piece_to_the_same_codes():
    model = nn.Linear(2048, 1100, bias=False)  # more than 2^21 weights
    with torch.no_grad():
        model.weight.copy_(gaussian(1100, 2048))
    whole = round_to_nearest(model.weight.detach(), 3, PLAIN).weights()
    assert torch.equal(rounded(model, 3, PLAIN)["weight"], whole)
    packed = np.unpackbits(np.frombuffer(packed_weights(model, 3, PLAIN), np.uint8, offset=2 * 1100)).reshape(-1, 3)
    assert np.array_equal(packed @ [4, 2, 1], round_to_nearest(model.weight.detach(), 3, PLAIN).codes.numpy().ravel())
