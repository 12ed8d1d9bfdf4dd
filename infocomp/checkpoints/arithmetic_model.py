"""Small models of a two-place operation, a ∘ b = c, as Hugging Face models: checkpoints of them load as any other's.

`transformer`: a causal decoder with ReLU, learned positions and, as in Nanda et al. 2023 (arXiv 2301.05217), neither
normalisation nor biases in attention; with `normalisation="post"`, two layers and an operator token the model of
Power et al. 2022 (arXiv 2201.02177), with learned positions instead of sinusoids. It reads "a b =" or "a ∘ b =".
`quadratic_mlp`: W (U a + V b)², which reads "a b" (Gromov 2023, arXiv 2301.02679). U and V are matrices of their own,
so that what is learnt of (a, b) says nothing of (b, a) for free.

The answer is predicted at the last position. `answer_logits` computes that one alone, and computes what depends on one
token only, once a token: exactly the logits of the whole model's last position, for a fifth of the cost.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

Vectors = Float[Tensor, "rows dim"]


class ArithmeticConfig(PretrainedConfig):
    """Shape of a model of a ∘ b = c over `elements` elements, whose ids are 0 … elements − 1.

    The transformer has "=" as one token more, and with `operator_token` one for the operator after it.
    """

    model_type = "infocomp_arithmetic"

    def __init__(
        self,
        elements: int = 113,
        architecture: Literal["transformer", "quadratic_mlp"] = "transformer",
        hidden_size: int = 128,
        num_hidden_layers: int = 1,
        num_attention_heads: int = 4,
        intermediate_size: int = 512,
        normalisation: Literal["none", "post"] = "none",
        operator_token: bool = False,
        **more: Any,
    ) -> None:
        self.elements, self.architecture = elements, architecture
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.normalisation, self.operator_token = normalisation, operator_token
        if hidden_size % num_attention_heads:
            raise ValueError(f"width {hidden_size} is no multiple of {num_attention_heads} heads; change one of them")
        more.pop("vocab_size", None)
        more.pop("max_position_embeddings", None)
        super().__init__(**{"tie_word_embeddings": False, "use_cache": False, **more})

    @property
    def special_tokens(self) -> int:
        return 0 if self.architecture == "quadratic_mlp" else 1 + self.operator_token

    @property
    def vocab_size(self) -> int:
        return self.elements + self.special_tokens

    @property
    def max_position_embeddings(self) -> int:
        """Positions that the model reads: the operation's own and, for the answer in a text, one more."""
        return self.prompt_length + 1

    @property
    def prompt_length(self) -> int:
        return 2 + self.special_tokens


class IdentityNorm(nn.Identity):
    """Where other decoders have their final norm; this one has none."""


class Attention(nn.Module):
    """Causal attention without biases; weights as [in, out] maps of nn.Linear."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1))

    def forward(self, stream: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position dim"]:
        query, key, value = (self._split(part(stream)) for part in (self.query, self.key, self.value))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.out(torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(-2))

    def at_last(self, last: Tensor, others: list[tuple[Tensor, Tensor | None]]) -> Vectors:
        """Output at the last position, whose stream is `last`: [dim] where it is the same in every row, or [rows, dim].

        others: streams at the earlier positions: [rows, dim], [dim] where it is the same in every row, or, where
        `last` is, [values, dim] with each row's index into the values. Keys and values are made once a value.
        """
        query = self._split(self.query(last))
        folded = None
        if last.ndim == 1:  # the same query everywhere: folded into the keys' weights, no key need be made
            folded = torch.einsum("hke,hk->he", self.key.weight.unflatten(0, (self.heads, -1)), query)
        scores, values = [], []
        for stream, index in [*others, (last, None)]:
            if folded is None:
                score = (self._split(self.key(stream)) * query).sum(-1)
            else:
                score = functional.linear(stream, folded)
            value = self._split(self.value(stream))
            scores.append(score if index is None else score[index])
            values.append(value if index is None else value[index])
        scores = torch.broadcast_tensors(*scores)
        weights = (torch.stack(scores, -1) / math.sqrt(query.shape[-1])).softmax(-1)  # [rows, heads, positions]
        mixed = weights[..., 0, None] * values[0]
        for place in range(1, len(values)):
            mixed = torch.addcmul(mixed, weights[..., place, None], values[place])
        return self.out(mixed.flatten(-2))


class ReluMLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def neurons(self, stream: Tensor) -> Tensor:
        return functional.relu(self.into(stream))

    def forward(self, stream: Tensor) -> Tensor:
        return self.out(self.neurons(stream))


class Block(nn.Module):
    """Attention and MLP on a residual stream; with `normalisation="post"` the stream is normalised after each."""

    def __init__(self, config: ArithmeticConfig) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.mlp = ReluMLP(config.hidden_size, config.intermediate_size)
        post = config.normalisation == "post"
        self.after_attention, self.after_mlp = (
            nn.LayerNorm(config.hidden_size) if post else nn.Identity() for _ in range(2)
        )

    def forward(self, hidden_states: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position dim"]:
        middle = self.after_attention(hidden_states + self.attention(hidden_states))
        return self.after_mlp(middle + self.mlp(middle))

    def at_last(self, last: Tensor, others: list[tuple[Tensor, Tensor | None]]) -> dict[str, Vectors]:
        """Streams at the last position alone, see `Attention.at_last`."""
        middle = self.after_attention(last + self.attention.at_last(last, others))
        neurons = self.mlp.neurons(middle)
        after = self.after_mlp(middle + self.mlp.out(neurons))
        return {"hook_resid_mid": middle, "mlp.hook_post": neurons, "hook_resid_post": after}


class SquareBlock(nn.Module):
    """The sum of what was read so far, squared."""

    def forward(self, hidden_states: Float[Tensor, "batch position dim"]) -> Float[Tensor, "batch position dim"]:
        return hidden_states.cumsum(1).square()


class TokenEmbedding(nn.Embedding):
    """Vectors of tokens; with `places` > 1 each of the first positions has its own table, the last for the rest."""

    def __init__(self, tokens: int, width: int, places: int = 1) -> None:
        super().__init__(tokens * places, width)
        self.tokens, self.places = tokens, places

    def forward(self, input: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position dim"]:
        if self.places > 1:
            place = torch.arange(input.shape[-1], device=input.device).clamp(max=self.places - 1)
            input = input + place * self.tokens
        return super().forward(input)


class ArithmeticBase(PreTrainedModel):
    """Embedding, blocks and what stands for the final norm."""

    config_class = ArithmeticConfig
    config: ArithmeticConfig
    _supports_sdpa = True

    def __init__(self, config: ArithmeticConfig) -> None:
        super().__init__(config)
        width, mlp = config.hidden_size, config.architecture == "quadratic_mlp"
        self.embed = TokenEmbedding(config.vocab_size, width, 2 if mlp else 1)
        if mlp:
            self.layers = nn.ModuleList(SquareBlock() for _ in range(config.num_hidden_layers))
        else:
            self.positions = nn.Parameter(torch.empty(config.max_position_embeddings, width))
            self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.final_norm = IdentityNorm()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """`initialise` draws them."""

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: Int[Tensor, "batch position"], **_: Any) -> BaseModelOutputWithPast:
        stream = self.embed(input_ids)
        if self.config.architecture == "transformer":
            length, most = input_ids.shape[-1], len(self.positions)
            if length > most:
                raise ValueError(f"the model reads {most} positions, got {length} tokens; shorten the context")
            stream = stream + self.positions[:length]
        for layer in self.layers:
            stream = layer(stream)
        return BaseModelOutputWithPast(last_hidden_state=self.final_norm(stream))


class ArithmeticForCausalLM(PreTrainedModel):
    """A model of a ∘ b = c. All methods take element ids int64[rows]."""

    config_class = ArithmeticConfig
    config: ArithmeticConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: ArithmeticConfig) -> None:
        super().__init__(config)
        self.model = ArithmeticBase(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """`initialise` draws them."""

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def forward(self, input_ids: Int[Tensor, "batch position"], **_: Any) -> CausalLMOutputWithPast:
        hidden = self.model(input_ids).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden))  # type: ignore[arg-type]

    @torch.no_grad()
    def initialise(self, seed: int, scale: float = 1.0, by_width: bool = False) -> "ArithmeticForCausalLM":
        """Draw all weights from N(0, scale² / width), the transformer's unembedding from N(0, scale² / tokens), as
        Nanda et al. 2023 do in their public notebook; biases are 0. The MLP's output is drawn from
        N(0, scale² / neurons), the inputs that it sums; `by_width` takes the width there too, as that notebook does.
        """
        generator = torch.Generator().manual_seed(seed)
        config, transformer = self.config, self.config.architecture == "transformer"
        for name, parameter in sorted(self.named_parameters()):
            if name.endswith(".bias"):
                parameter.zero_()
            elif "after_" in name:  # a norm's gain
                parameter.fill_(1.0)
            else:
                head, out = name == "lm_head.weight" and transformer, name.endswith("mlp.out.weight")
                over = (
                    config.vocab_size
                    if head
                    else config.intermediate_size
                    if out and not by_width
                    else config.hidden_size
                )
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale / math.sqrt(over))
        return self

    # --- the answer alone -----------------------------------------------------------------------------------------

    def answer_logits(self, left: Int[Tensor, "rows"], right: Int[Tensor, "rows"]) -> Float[Tensor, "rows tokens"]:
        """Logits of the answer, the whole model's at its last position; the first `elements` are the elements."""
        return self.lm_head(self._answer(left, right)[self._final_site])

    def answer_activations(self, left: Int[Tensor, "rows"], right: Int[Tensor, "rows"]) -> dict[str, Vectors]:
        """Activations at the last position by site, in the order of the forward pass, and "logits" of the elements."""
        found = self._answer(left, right)
        logits = self.lm_head(found[self._final_site])[:, : self.config.elements]
        return {**found, "logits": logits}

    def embedded(self, left: Int[Tensor, "rows"], right: Int[Tensor, "rows"]) -> tuple[Vectors, Vectors]:
        """The token embeddings of both inputs, without positions."""
        table = self.model.embed.weight
        return table[left], table[right + (self.config.vocab_size if self.model.embed.places > 1 else 0)]

    def answer_logits_from(self, left_vectors: Vectors, right_vectors: Vectors) -> Float[Tensor, "rows tokens"]:
        """`answer_logits` from embeddings of the inputs, which may lie between those of tokens."""
        if self.config.architecture == "quadratic_mlp":
            return self.lm_head((left_vectors + right_vectors).square())
        found = self._transformer(left_vectors, right_vectors, None, None)
        return self.lm_head(found[self._final_site])

    @property
    def _final_site(self) -> str:
        return f"blocks.{self.config.num_hidden_layers - 1}.hook_resid_post"

    def _answer(self, left: Tensor, right: Tensor) -> dict[str, Vectors]:
        if self.config.architecture == "quadratic_mlp":
            first, second = self.embedded(left, right)
            both = first + second
            return {"blocks.0.hook_pre": both, "blocks.0.hook_resid_post": both.square()}
        elements = self.model.embed.weight[: self.config.elements]
        return self._transformer(elements, elements, left, right)

    def _transformer(
        self, firsts: Tensor, seconds: Tensor, left: Tensor | None, right: Tensor | None
    ) -> dict[str, Vectors]:
        """Activations at "=" where the inputs are rows `left` of `firsts`, `right` of `seconds`, or all in order."""
        config, positions = self.config, self.model.positions
        specials = self.model.embed.weight[config.elements :]
        between = [specials[1] + positions[1]] if config.operator_token else []
        last = specials[0] + positions[config.prompt_length - 1]
        first, second = firsts + positions[0], seconds + positions[1 + len(between)]
        if config.num_hidden_layers == 1:
            others: list[tuple[Tensor, Tensor | None]] = [(first, left), *((b, None) for b in between), (second, right)]
            return {f"blocks.0.{name}": value for name, value in self._block(0).at_last(last, others).items()}
        own_first, own_second = first if left is None else first[left], second if right is None else second[right]
        stream = torch.stack([row.expand(len(own_first), -1) for row in (own_first, *between, own_second, last)], 1)
        for layer in range(config.num_hidden_layers - 1):
            stream = self._block(layer)(stream)
        *before, last = stream.unbind(1)
        found = self._block(-1).at_last(last, [(row, None) for row in before])
        return {f"blocks.{config.num_hidden_layers - 1}.{name}": value for name, value in found.items()}

    def _block(self, layer: int) -> Block:
        block = self.model.layers[layer]
        assert isinstance(block, Block)
        return block

    # --- weights --------------------------------------------------------------------------------------------------

    def embedding(self) -> Float[Tensor, "elements dim"]:
        """W_E of the elements; of the square model U and V side by side."""
        elements, table = self.config.elements, self.model.embed.weight
        if self.model.embed.places == 1:
            return table[:elements]
        return torch.cat([table[:elements], table[elements:]], 1)

    def unembedding(self) -> Float[Tensor, "elements dim"]:
        """W_U of the elements, a row an element."""
        return self.lm_head.weight[: self.config.elements]

    def neuron_to_logits(self) -> Float[Tensor, "elements neurons"]:
        """What each neuron of the last MLP adds to each logit, W_U W_out; of the square model W_U itself."""
        if self.config.architecture == "quadratic_mlp":
            return self.unembedding()
        return self.unembedding() @ self._block(-1).mlp.out.weight

    def weight_matrices(self) -> dict[str, Float[Tensor, "rows columns"]]:
        """Every matrix by its parameter's name; changes in place act on the model."""
        return {name: parameter.data for name, parameter in self.named_parameters() if parameter.ndim == 2}


AutoConfig.register(ArithmeticConfig.model_type, ArithmeticConfig)
AutoModelForCausalLM.register(ArithmeticConfig, ArithmeticForCausalLM)
