"""Small GPT models over rows of tokens: what is trained in many copies, with as little around it as can be.

`gpt2` is GPT-2's pre-norm block with learned positions and an embedding tied to the output (Radford et al. 2019), the
model whose capacity Morris et al. (2025, arXiv 2505.24832) measure; `gpt_neox` is Pythia's (Biderman et al. 2023, arXiv
2304.01373): rotary positions on a quarter of each head, attention and MLP side by side, embedding and output apart.
With the same weights both give the logits of transformers' own classes. Plain functions of their tensors, so that
`torch.func` can stack many copies.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

Precision = Literal["float32", "bfloat16_mixed", "bfloat16", "float64"]
NAMES = {"float32": "", "bfloat16_mixed": " bf16 mixed", "bfloat16": " bf16", "float64": " fp64"}
ROTARY_SHARE = 0.25
ROTARY_BASE = 10_000.0
SHORT = 64  # tokens up to which attention as two plain products is faster on a CPU than the fused kernel


class GPTSettings(BaseModel):
    """The shape of one model; `vocabulary` counts the tokens that are predicted, `length` how many of them a row has.

    bos: a BOS of its own (one more row of the embedding) stands before each row, so that every token of it is
        predicted; without one the first token is given and costs nothing.
    precision: bfloat16_mixed computes in bfloat16 over float32 weights, bfloat16 holds the weights in it too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    architecture: Literal["gpt2", "gpt_neox"] = "gpt2"
    layers: PositiveInt = 1
    width: PositiveInt = 24
    heads: PositiveInt = 1
    vocabulary: Annotated[int, Field(ge=2)] = 64
    length: Annotated[int, Field(ge=2)] = 16
    bos: bool = True
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _heads_divide(self) -> "GPTSettings":
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; it is {self.width} with {self.heads} heads")
        if self.architecture == "gpt_neox" and (_rotary(self) % 2 or not _rotary(self)):
            raise ValueError(
                "a quarter of each head rotates in pairs, so width / heads must be a multiple of 8; "
                f"it is {self.width // self.heads}"
            )
        return self

    @property
    def name(self) -> str:
        """What a table calls the model: "gpt2 1x24", and its precision where it is not float32."""
        return f"{self.architecture} {self.layers}x{self.width}{NAMES[self.precision]}"

    @property
    def family(self) -> str:
        """What models of all sizes that lie on one line are called."""
        return f"{self.architecture}{NAMES[self.precision]}"

    @property
    def predicted(self) -> int:
        """Tokens of a row that are predicted, and so paid for."""
        return self.length if self.bos else self.length - 1


@dataclass(frozen=True)
class ParameterCounts:
    """`embedding` are token and position embeddings and an output matrix of its own; a tied one is counted once."""

    total: int
    embedding: int

    @property
    def outside_embedding(self) -> int:
        return self.total - self.embedding


def parameter_counts(settings: GPTSettings) -> ParameterCounts:
    """Counts by formula: V·d + S·d + L(12d² + 13d) + 2d for gpt2, with one more row of V for a BOS.

    >>> parameter_counts(GPTSettings(layers=2, width=128, heads=4, vocabulary=2048, length=64, bos=False)).total
    667136
    """
    width, rows = settings.width, settings.vocabulary + settings.bos
    blocks = settings.layers * (12 * width**2 + 13 * width) + 2 * width
    if settings.architecture == "gpt_neox":
        embedding = rows * width + settings.vocabulary * width
    else:
        embedding = (rows + settings.length) * width
    return ParameterCounts(blocks + embedding, embedding)


def _rotary(settings: GPTSettings) -> int:
    return int(settings.width // settings.heads * ROTARY_SHARE)


class Block(nn.Module):
    """One layer; the weights' names are GPT-2's meaning in full words."""

    def __init__(self, settings: GPTSettings):
        super().__init__()
        width = settings.width
        self.heads, self.parallel, self.rotary = settings.heads, settings.architecture == "gpt_neox", _rotary(settings)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Float[Tensor, "rows length width"], turn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        attended = self._attention(self.attention_norm(hidden), *turn)
        if self.parallel:
            return hidden + attended + self._mlp(self.mlp_norm(hidden))
        hidden = hidden + attended
        return hidden + self._mlp(self.mlp_norm(hidden))

    def _mlp(self, hidden: Tensor) -> Tensor:
        approximate = "none" if self.parallel else "tanh"
        return self.mlp_out(functional.gelu(self.mlp_in(hidden), approximate=approximate))

    def _attention(self, hidden: Tensor, mask: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        rows, length, width = hidden.shape
        query, key, value = self.query_key_value(hidden).chunk(3, dim=-1)
        if self.heads > 1:
            shape = (rows, length, self.heads, width // self.heads)
            query, key, value = (part.reshape(shape).transpose(1, 2) for part in (query, key, value))
        if self.parallel:
            query, key = _rotated(query, cosine, sine), _rotated(key, cosine, sine)
        if length <= SHORT and hidden.device.type == "cpu":
            scale = query.shape[-1] ** -0.5
            weights = (query * scale @ key.transpose(-1, -2) + mask.to(query.dtype)).softmax(-1)
            mixed = weights @ value
        else:
            query, key, value = (part if self.heads > 1 else part[:, None] for part in (query, key, value))
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            mixed = mixed if self.heads > 1 else mixed[:, 0]
        if self.heads > 1:
            mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        return self.attention_out(mixed)


def _rotated(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The first dimensions of each head turned by position (Su et al. 2021, arXiv 2104.09864), the rest as it is."""
    turned, kept = part[..., : cosine.shape[-1]], part[..., cosine.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    swapped = torch.cat([-second, first], dim=-1)
    turned = turned * cosine.to(part.dtype) + swapped * sine.to(part.dtype)
    return torch.cat([turned, kept], dim=-1)


class SmallGPT(nn.Module):
    """A causal model whose logit t is about token t of the row: what it reads is shifted by one inside.

    Weights are drawn from `seed` as GPT-2's are: normal with deviation 0.02, what writes to the residual stream
    divided by √(2·layers), biases 0.
    """

    mask: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, settings: GPTSettings, seed: int = 0):
        super().__init__()
        self.settings = settings
        rows, width = settings.vocabulary + settings.bos, settings.width
        self.embedding = nn.Embedding(rows, width)
        tied = settings.architecture == "gpt2"
        self.positions = nn.Embedding(settings.length, width) if tied else None
        self.unembedding = None if tied else nn.Linear(width, settings.vocabulary, bias=False)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.final_norm = nn.LayerNorm(width)
        length = settings.predicted
        self.register_buffer("mask", torch.full((length, length), -1e9).triu(1), persistent=False)
        steps = torch.arange(0, _rotary(settings), 2, dtype=torch.float32) / max(_rotary(settings), 1)
        angles = torch.arange(length, dtype=torch.float32)[:, None] / ROTARY_BASE**steps
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self._draw(seed)
        if settings.precision in ("bfloat16", "float64"):
            self.to(getattr(torch, settings.precision))

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("norm.weight"):
                    parameter.fill_(1.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    writes = name.endswith(("attention_out.weight", "mlp_out.weight"))
                    deviation = 0.02 / (2 * self.settings.layers) ** 0.5 if writes else 0.02
                    parameter.normal_(0.0, deviation, generator=generator)

    def forward(self, tokens: Int[Tensor, "rows length"]) -> Float[Tensor, "rows predicted vocabulary"]:
        """Logits of tokens[:, −predicted:], in the precision that the settings name."""
        mixed = self.settings.precision == "bfloat16_mixed"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=mixed):
            read = tokens[:, :-1]
            if self.settings.bos:
                read = functional.pad(read, (1, 0), value=self.settings.vocabulary)
            hidden = functional.embedding(read, self.embedding.weight)
            if self.positions is not None:
                hidden = hidden + self.positions.weight[: read.shape[1]]
            turn = (self.mask, self.cosine, self.sine)
            for block in self.blocks:
                hidden = block(hidden, turn)
            hidden = self.final_norm(hidden)
            if self.unembedding is not None:
                return self.unembedding(hidden)
            return functional.linear(hidden, self.embedding.weight[: self.settings.vocabulary])
