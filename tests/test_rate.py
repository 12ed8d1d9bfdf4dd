"""Code lengths: those of a log_softmax over whole logits, those of the model's own loss, whatever its head does."""

import math

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, DIM, VOCABULARY, hooks_on, some_ids, tiny_model
from tiny_text import token_corpus
from torch import nn
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPTJConfig, GraniteConfig

from infocomp.activations.stream import stream
from infocomp.coding.rate import CodeLength, blocked_code_lengths, plain_head
from infocomp.corpora.windows import cut_windows

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
BENT = {  # logits that are not hidden · weightᵀ
    "capped": lambda: Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=None),
    "multiplied": lambda: CohereConfig(**SIZES, logit_scale=0.25),
    "divided": lambda: GraniteConfig(**SIZES, logits_scaling=3.0),
}


def from_config(config, scale: float = 1.0):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(std=scale)
    return model


def exact(hidden, targets, weight, bias=None) -> torch.Tensor:
    """In float64, over the whole vocabulary."""
    logits = nn.functional.linear(hidden.double(), weight.double(), None if bias is None else bias.double())
    return -torch.log_softmax(logits, dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)


def some_head(rows=37, vocabulary=1003, dim=24, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, dim, generator=generator)
    weight = scale * torch.randn(vocabulary, dim, generator=generator)
    bias = torch.randn(vocabulary, generator=generator)
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    targets[:2] = torch.tensor([0, vocabulary - 1])
    return hidden, targets, weight, bias


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("columns", [1, 7, 256, 1002, 1003, 4096, None])
def test_code_lengths_by_blocks_are_those_of_a_whole_log_softmax(columns, with_bias):
    hidden, targets, weight, bias = some_head()
    bias = bias if with_bias else None
    found = blocked_code_lengths(hidden, targets, weight, bias, columns)
    assert found.dtype == torch.float32 and found.shape == targets.shape
    assert (found - exact(hidden, targets, weight, bias)).abs().max() <= 1e-5
    whole = -torch.log_softmax(nn.functional.linear(hidden, weight, bias), dim=1)[range(len(targets)), targets]
    assert (found - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_added_up_in_float32(dtype):
    hidden, targets, weight, bias = (
        t if t.dtype == torch.int64 else t.to(dtype) for t in some_head(dim=300, scale=0.2)
    )
    found = blocked_code_lengths(hidden, targets, weight, bias, 256)
    assert found.dtype == torch.float32
    assert (found - exact(hidden, targets, weight, bias)).abs().max() <= 2e-5  # sums of 300 products, logits up to 15
    rough = torch.log_softmax(nn.functional.linear(hidden, weight, bias), dim=1)
    assert (found + rough[range(len(targets)), targets]).abs().max() > 1e-3  # which the dtype's own arithmetic is not


@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
@pytest.mark.parametrize("columns", [1, 3, 8, 64])
def test_extreme_logits_neither_overflow_nor_lose_the_target(size, columns):
    # one dimension, so that each logit is exactly what is written here
    logits = torch.tensor([0.0, size, -size, 0.5, size, 0.0, -1.0, size / 2])
    hidden, weight = torch.ones(8, 1), logits.unsqueeze(1)
    targets = torch.arange(8)
    found = blocked_code_lengths(hidden, targets, weight, None, columns)
    expected = -torch.log_softmax(logits, dim=0)
    assert bool(found.isfinite().all()) and torch.allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert abs(float(found[1]) - math.log(2)) <= 1e-6  # two equal peaks: one bit, whatever their height


def test_no_code_length_is_negative_where_the_target_is_all_there_is():
    generator = torch.Generator().manual_seed(0)
    hidden = 30 * torch.randn(64, 300, generator=generator)
    weight = torch.randn(500, 300, generator=generator)
    targets = nn.functional.linear(hidden, weight).argmax(dim=1)  # logits of 1,000 and more, the target's the largest
    found = blocked_code_lengths(hidden, targets, weight, None, 64)
    assert found.min() == 0.0
    assert (found - exact(hidden, targets, weight)).abs().max() <= 2e-3  # float32 rounding of logits of a thousand


def test_buffers_are_used_again_for_as_many_rows_or_fewer():
    hidden, targets, weight, bias = some_head()
    buffers = {}
    for rows in (20, 37, 5, 37):
        found = blocked_code_lengths(hidden[:rows], targets[:rows], weight, bias, 100, buffers)
        assert (found - exact(hidden, targets, weight, bias)[:rows]).abs().max() <= 1e-5
    (buffer,) = buffers.values()
    assert buffer.numel() == 37 * 100
    before = buffer.data_ptr()
    blocked_code_lengths(hidden, targets, weight, bias, 100, buffers)
    assert next(iter(buffers.values())).data_ptr() == before


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_ordinary_head_is_found_with_its_weight(architecture):
    model = tiny_model(architecture)
    weight, bias = plain_head(model)
    assert weight.data_ptr() == model.get_output_embeddings().weight.data_ptr() and not weight.requires_grad
    assert bias is None and hooks_on(model) == 0


def test_a_head_with_a_bias_is_found_with_it():
    sizes = {"vocab_size": VOCABULARY, "n_embd": DIM, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
    model = from_config(GPTJConfig(**sizes, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        model.lm_head.bias.normal_()
    weight, bias = plain_head(model)
    assert torch.equal(bias, model.lm_head.bias) and weight.shape == (VOCABULARY, DIM)
    assert_is_the_loss(model)


@pytest.mark.parametrize("scale", [1e-3, 1.0])  # an untrained model's logits are small: a cap hardly shows in them
@pytest.mark.parametrize("bent", BENT)
def test_logits_that_are_scaled_or_capped_are_taken_from_the_model(bent, scale):
    model = from_config(BENT[bent](), scale)
    assert plain_head(model) is None and hooks_on(model) == 0
    assert_is_the_loss(model)
    with torch.no_grad():
        ids = some_ids(1, 12)
        hidden = model.base_model(ids).last_hidden_state[0, :-1]
        naive = blocked_code_lengths(hidden, ids[0, 1:], model.get_output_embeddings().weight)
        own = nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    assert scale < 1 or (naive - own).abs().max() > 0.1  # what the plain head would have given


@pytest.mark.parametrize("bent", ["multiplied", "divided"])
def test_a_scale_of_one_is_no_scale(bent):
    config = BENT[bent]()
    config.update({"logit_scale": 1.0} if bent == "multiplied" else {"logits_scaling": 1.0})
    assert plain_head(from_config(config)) is not None


def test_what_is_scaled_before_the_head_is_no_plain_head():
    class Scaled(type(tiny_model("llama"))):
        def forward(self, *args, **kwargs):
            handle = self.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
            try:
                return super().forward(*args, **kwargs)
            finally:
                handle.remove()

    model = tiny_model("llama")
    model.__class__ = Scaled
    assert plain_head(model) is None
    assert_is_the_loss(model)


def test_a_model_without_a_head_that_can_be_read_is_asked_for_its_logits():
    model = tiny_model("llama")
    model.get_output_embeddings = lambda: None
    assert plain_head(model) is None
    assert_is_the_loss(model)


def assert_is_the_loss(model) -> None:
    """The sum over one window is Hugging Face's own loss times the tokens that it predicts."""
    windows = cut_windows(token_corpus([24]), 32, 1)
    rate = CodeLength(model)
    stream(model, windows, [rate])
    ids = torch.from_numpy(windows.corpus.tokens).long().unsqueeze(0)
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    assert len(rate.nats()) == 23 and rate.nats().dtype == np.float64
    assert abs(rate.nats().sum() - 23 * loss) <= 1e-5 * 23 * loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_code_length_of_a_window_is_its_loss(architecture):
    assert_is_the_loss(tiny_model(architecture, "sdpa"))


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_code_lengths_stand_in_the_order_of_the_scored_tokens(batch_tokens):
    model = tiny_model("gpt_neox")
    windows = cut_windows(token_corpus([40, 3, 17, 1, 33]), 16, 2, stride=9, bos_policy="window", bos=1)
    rate = CodeLength(model)
    stream(model, windows, [rate], batch_tokens)
    expected = []
    for start, length, begin in zip(windows.starts, windows.lengths, windows.score_from, strict=True):
        ids = torch.tensor([[1, *windows.corpus.tokens[start : start + length].tolist()]])
        with torch.no_grad():
            lengths = -torch.log_softmax(model(ids).logits[0], dim=1)
        expected += [float(lengths[t - start, windows.corpus.tokens[t]]) for t in range(begin, start + length)]
    assert np.abs(rate.nats() - expected).max() <= 1e-5


def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary():
    model = tiny_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    rate = CodeLength(model)
    stream(model, cut_windows(token_corpus([50, 20]), 16, 2), [rate])
    assert np.abs(rate.nats() - math.log(VOCABULARY)).max() <= 1e-6


def test_code_lengths_that_are_not_finite_are_a_sentence():
    model = tiny_model("gpt_neox")
    rate = CodeLength(model)
    assert rate.nats().size == 0
    rate.keep(torch.tensor([1.0, math.nan, 2.0]))
    rate.keep(torch.tensor([math.inf]))
    with pytest.raises(
        ValueError, match=r"^the code length of 2 of 4 tokens is NaN or infinite: .*; use a wider dtype"
    ):
        rate.nats()
