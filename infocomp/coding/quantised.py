"""A model at fewer bits per weight: rounded to nearest, its bytes counted, its own weights back afterwards.

    with quantised(model, 4) as served:
        rate = …                          # bits per byte of a text under the rounded weights
    weight_bytes(model, 4)                # what those weights take

Every matrix (embeddings, output head and all between) has one range for each output channel, round to nearest (RTN in
Dettmers et al. 2022, arXiv 2208.07339, and Frantar et al. 2023, arXiv 2210.17323). Vectors (norms, biases) are fp16.

Symmetric, with a range for each channel that makes its squared error least, is the default. Tried on the demo's model
(step 512, 1.3 M parameters; 120 kB of held-out text, bits per byte, 1.577 at float32):

    bits   symmetric, largest weight   affine, smallest to largest   symmetric, fitted   affine, fitted
    4                          1.590                         1.591               1.586            1.586
    3                          1.649                         1.636               1.612            1.618
    2                          2.046                         1.977               1.753            1.748

Fitting is what counts. Affine then gains at most 0.005 and takes a second number for each channel (17 kB there), which
it earns back on no text below 25 MB. The symmetric levels lie at odd multiples of half a step, so that all 2^bits are
used: with one level at zero, and so one level fewer, 2 bits gave 3.279 unfitted and 1.850 fitted.
"""

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

WIDTHS = (16, 8, 6, 4, 3, 2)
LARGEST_FP16, SMALLEST_FP16 = 65504.0, 2.0**-24
SHARES = tuple(2 ** (-k / 6) for k in range(15))  # of the largest range, 1 to 0.2; what lies outside is clipped
_AT_ONCE = 1 << 21  # weights in float32 at a time


@dataclass(frozen=True)
class Rounding:
    """How a channel's 2^bits levels lie: evenly, around zero or (`affine`) from its smallest to its largest weight.

    `fitted` shrinks that range to the one of SHARES with the least squared error; it looks at no text.
    """

    affine: bool = False
    fitted: bool = True


SYMMETRIC = Rounding()


@dataclass(frozen=True)
class CodedMatrix:
    """Codes 0 … 2^bits − 1; a weight is least + code · scale, or without a least (code − 2^(bits−1) + ½) · scale."""

    bits: int
    codes: UInt8[Tensor, "channels inputs"]
    scale: Float[Tensor, "channels 1"]
    least: Float[Tensor, "channels 1"] | None

    def weights(self) -> Float[Tensor, "channels inputs"]:
        """The weights that the codes stand for, float32."""
        if self.least is None:
            return (self.codes.float() - (2 ** (self.bits - 1) - 0.5)) * self.scale.float()
        return self.least.float() + self.codes.float() * self.scale.float()


@contextmanager
def quantised(model: nn.Module, bits: int, rounding: Rounding = SYMMETRIC) -> Iterator[nn.Module]:
    """The same model with weights of `bits` bits; on exit, after an exception too, its own are back bit for bit.

    Tied weights are rounded once, 16 bits is fp16. The model keeps its dtype, and must keep it inside: in float32 the
    rounded weights are exact, a narrower dtype rounds them once more. ValueError: a width that is not in WIDTHS; a
    weight that is not finite or beyond fp16; a parameter that is not of floating point (quantised already).
    """
    _check_width(bits)
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        with torch.no_grad():
            for part in _parts(model):
                rounded = part.values().half().float() if part.is_plain(bits) else part.coded(bits, rounding).weights()
                kept.append((part.parameter, part.parameter.detach().clone()))
                part.parameter.copy_(rounded.T if part.turned else rounded.reshape(part.parameter.shape))
        yield model
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)


def weight_bytes(model: nn.Module, bits: int, rounding: Rounding = SYMMETRIC, entropy_coded: bool = False) -> int:
    """Bytes of the weights at `bits` bits: codes without gaps, each matrix to a whole byte, and what they need.

    That is an fp16 scale for each channel (with affine rounding an fp16 least weight too) and fp16 vectors. Tied
    weights count once, buffers, which follow from the configuration, not at all; there is no container: no names, no
    shapes, no program. With `entropy_coded` the same numbers after xz -6, xz's own container counted, packed or with
    one code a byte, whichever is shorter, since few-bit codes are far from uniform. Raises as `quantised` does.
    """
    _check_width(bits)
    if entropy_coded:
        layouts = (packed_weights(model, bits, rounding, apart) for apart in (False, True))
        return min(len(lzma.compress(layout, preset=6)) for layout in layouts)
    total = 0
    for part in _parts(model):
        if part.is_plain(bits):
            total += 2 * len(part.values().ravel())
        else:
            channels, inputs = part.values().shape
            total += -(-channels * inputs * bits // 8) + (4 if rounding.affine else 2) * channels
    return total


def packed_weights(model: nn.Module, bits: int, rounding: Rounding = SYMMETRIC, apart: bool = False) -> bytes:
    """The counted bytes themselves, parameter after parameter in the model's order, little-endian.

    A matrix is its fp16 scales, with affine rounding its fp16 least weights, then its codes, channel by channel, first
    bit highest; a vector, and anything at 16 bits, is fp16. `apart`: one code a byte, fp16 as low bytes, high bytes.
    """
    _check_width(bits)
    pieces = []
    for part in _parts(model):
        if part.is_plain(bits):
            pieces.append(_fp16(part.values(), apart))
            continue
        coded = part.coded(bits, rounding)
        pieces += [_fp16(numbers, apart) for numbers in (coded.scale, coded.least) if numbers is not None]
        codes = coded.codes.cpu().numpy().ravel()
        pieces.append(codes.tobytes() if apart else _packed(codes, bits))
    return b"".join(pieces)


def round_to_nearest(weights: Float[Tensor, "channels inputs"], bits: int, rounding: Rounding) -> CodedMatrix:
    """The codes of a finite float32 matrix under one range for each row; the scales are those that fp16 can hold."""
    best = _with_range(weights, bits, rounding.affine, 1.0)
    if rounding.fitted:
        least_error = _squared_error(best, weights)
        for share in SHARES[1:]:
            other = _with_range(weights, bits, rounding.affine, share)
            error = _squared_error(other, weights)
            better = error < least_error
            least_error = torch.where(better, error, least_error)
            least = None if best.least is None or other.least is None else torch.where(better, other.least, best.least)
            codes, scale = torch.where(better, other.codes, best.codes), torch.where(better, other.scale, best.scale)
            best = CodedMatrix(bits, codes, scale, least)
    return best


def _with_range(weights: Tensor, bits: int, affine: bool, share: float) -> CodedMatrix:
    last = 2**bits - 1
    if affine:
        least, largest = weights.amin(1, keepdim=True) * share, weights.amax(1, keepdim=True) * share
        start, scale = least.half(), _as_scale((largest - least) / last)
        codes = ((weights - start.float()) / _divisor(scale)).round()
    else:
        start, scale = None, _as_scale(weights.abs().amax(1, keepdim=True) * share / (last / 2))
        codes = (weights / _divisor(scale)).floor() + 2 ** (bits - 1)
    return CodedMatrix(bits, codes.clamp(0, last).to(torch.uint8), scale, start)


def _as_scale(scale: Tensor) -> Tensor:
    """In fp16; one that is not zero stays so."""
    half = scale.half()
    return torch.where((scale > 0) & (half == 0), torch.full_like(half, SMALLEST_FP16), half)


def _divisor(scale: Tensor) -> Tensor:
    """A channel of scale zero is constant and comes out right whatever its codes."""
    return torch.where(scale == 0, torch.ones_like(scale), scale).float()


def _squared_error(coded: CodedMatrix, weights: Tensor) -> Tensor:
    return (coded.weights() - weights).square_().sum(1, keepdim=True)


@dataclass(frozen=True)
class _Part:
    """One parameter. Output channels are all but its last dimension, the last where `turned`, or its first."""

    name: str
    parameter: nn.Parameter
    turned: bool = False
    channels_first: bool = False

    def is_plain(self, bits: int) -> bool:
        """Whether it is fp16 at this width: vectors always are."""
        return bits == 16 or self.parameter.ndim < 2

    def values(self) -> Tensor:
        """Its numbers, float32 [channels, inputs] or [n]; ValueError where fp16 cannot hold them."""
        values = self.parameter.detach()
        if not values.is_floating_point():
            raise ValueError(
                f"parameter {self.name} is {str(values.dtype).removeprefix('torch.')}, and rounding needs weights of "
                "floating point; load the model without quantisation."
            )
        values = (values.T if self.turned else values).float()
        if not values.half().isfinite().all():
            raise ValueError(
                f"parameter {self.name} holds {float(values.abs().max()):g}, and weights must be finite and within "
                f"the range of fp16, {LARGEST_FP16:,.0f}; leave this checkpoint out."
            )
        if values.ndim < 2:
            return values.reshape(-1)
        return values.flatten(1) if self.channels_first else values.reshape(-1, values.shape[-1])

    def coded(self, bits: int, rounding: Rounding) -> CodedMatrix:
        """Its codes, found some rows at a time."""
        values = self.values()
        rows = max(1, _AT_ONCE // max(1, values.shape[1]))
        parts = [round_to_nearest(some, bits, rounding) for some in values.split(rows)]
        least = [part.least for part in parts if part.least is not None]
        codes, scale = torch.cat([part.codes for part in parts]), torch.cat([part.scale for part in parts])
        return CodedMatrix(bits, codes, scale, torch.cat(least) if least else None)


def _parts(model: nn.Module) -> Iterator[_Part]:
    """Every parameter once, in the model's order; two that share their storage are one.

    Output channels are the rows of a linear layer, the tokens of an embedding and its tied head, the columns of GPT-2's
    Conv1D, the filters of a convolution; of stacked matrices (experts) the rows of each.
    """
    seen = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            place = (parameter.device, parameter.data_ptr(), tuple(parameter.shape), parameter.stride())
            if place not in seen:
                seen.add(place)
                turned = isinstance(module, Conv1D) and parameter.ndim == 2
                yield _Part(name, parameter, turned, isinstance(module, nn.modules.conv._ConvNd))


def _check_width(bits: int) -> None:
    if bits not in WIDTHS:
        raise ValueError(f"bits is one of {', '.join(map(str, WIDTHS))} per weight, not {bits}; 16 is fp16.")


def _fp16(numbers: Tensor, apart: bool) -> bytes:
    words = numbers.half().cpu().numpy().astype("<f2").ravel()
    return words.view(np.uint8).reshape(-1, 2).T.tobytes() if apart else words.tobytes()


def _packed(codes: np.ndarray, bits: int) -> bytes:
    """Codes below 2^bits without gaps, highest bit first; zero bits fill the last byte."""
    at_once = 1 << 20  # a multiple of 8, so that every piece but the last ends with a byte
    pieces = (codes[begin : begin + at_once, None] for begin in range(0, len(codes), at_once))
    return b"".join(np.packbits(np.unpackbits(piece, axis=1)[:, 8 - bits :]).tobytes() for piece in pieces)
