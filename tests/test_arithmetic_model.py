"""The models of a ∘ b = c against slow twins, as Hugging Face models, and as the capture sees them."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from infocomp.activations.capture import capture
from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.checkpoints.loading import load  # noqa: F401  its import teaches transformers the architecture

P = 11
SHAPES = {
    "one layer": {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20},
    "two layers, post-norm": {
        **{"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20, "num_hidden_layers": 2},
        **{"normalisation": "post", "operator_token": True},
    },
    "quadratic": {
        "architecture": "quadratic_mlp",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "intermediate_size": 16,
    },
}


@pytest.fixture(params=SHAPES)
def model(request) -> ArithmeticForCausalLM:
    found = ArithmeticForCausalLM(ArithmeticConfig(elements=P, **SHAPES[request.param])).initialise(0).double().eval()
    with torch.no_grad():  # biases that are not 0 show where one is left out
        for parameter in found.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return found


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    left, right = torch.meshgrid(torch.arange(P), torch.arange(P), indexing="ij")
    return left.flatten(), right.flatten()


def prompts(model: ArithmeticForCausalLM) -> torch.Tensor:
    """ "a b =", "a ∘ b =" or "a b" for every pair."""
    left, right = every_pair()
    equals, operator = torch.full_like(left, P), torch.full_like(left, P + 1)
    if model.config.architecture == "quadratic_mlp":
        return torch.stack([left, right], 1)
    between = [operator] if model.config.operator_token else []
    return torch.stack([left, *between, right, equals], 1)


def test_the_short_way_gives_the_whole_models_logits_at_the_last_position(model):
    whole = model(prompts(model)).logits[:, -1]
    assert torch.allclose(model.answer_logits(*every_pair()), whole, rtol=0, atol=1e-12)


def test_gradients_of_the_short_way_are_those_of_the_whole_model(model):
    answer = sum(every_pair()) % P
    found = []
    for logits in (model.answer_logits(*every_pair()), model(prompts(model)).logits[:, -1]):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, answer).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], rtol=0, atol=1e-12) for name in found[0])


def test_logits_from_embeddings_are_those_of_the_tokens_embedded(model):
    left, right = model.embedded(*every_pair())
    assert torch.allclose(model.answer_logits_from(left, right), model.answer_logits(*every_pair()), atol=1e-12)


def test_activations_at_the_answer_are_what_the_capture_reads(model):
    last = f"blocks.{model.config.num_hidden_layers - 1}.hook_resid_post"
    with capture(model, ["hook_embed", last, "ln_final.hook_normalized"]) as acts:
        model(prompts(model))
    found = model.answer_activations(*every_pair())
    assert torch.allclose(acts[last][:, -1], found[last], atol=1e-12)
    assert torch.equal(acts["ln_final.hook_normalized"], acts[last])
    assert found["logits"].shape == (P * P, P)


def test_a_transformer_by_hand():
    """One row of the one-layer transformer, position by position, in plain sums."""
    model = ArithmeticForCausalLM(ArithmeticConfig(elements=P, **SHAPES["one layer"])).initialise(3).double()
    named = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tokens, heads, size = [4, 7, P], 3, 4
    stream = [
        named["model.embed.weight"][token] + named["model.positions"][place] for place, token in enumerate(tokens)
    ]
    block = "model.layers.0"
    q, k, v = ([named[f"{block}.attention.{part}.weight"] @ x for x in stream] for part in ("query", "key", "value"))
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = [math.exp(float(q[2][part] @ k[place][part]) / math.sqrt(size)) for place in range(3)]
        mixed.append(sum(score / sum(scores) * v[place][part] for place, score in enumerate(scores)))
    middle = stream[2] + named[f"{block}.attention.out.weight"] @ torch.cat(mixed)
    neurons = (named[f"{block}.mlp.into.weight"] @ middle + named[f"{block}.mlp.into.bias"]).clamp(min=0)
    after = middle + named[f"{block}.mlp.out.weight"] @ neurons + named[f"{block}.mlp.out.bias"]
    logits = named["lm_head.weight"] @ after
    found = model.answer_logits(torch.tensor([4]), torch.tensor([7]))[0]
    assert torch.allclose(found, logits, atol=1e-12)
    assert torch.allclose(model.neuron_to_logits() @ neurons, (named["lm_head.weight"] @ (
        named[f"{block}.mlp.out.weight"] @ neurons))[:P], atol=1e-12)  # fmt: skip


def test_the_square_model_by_hand():
    model = ArithmeticForCausalLM(ArithmeticConfig(elements=P, **SHAPES["quadratic"])).initialise(3).double()
    table, read_out = model.model.embed.weight, model.lm_head.weight
    logits = read_out @ (table[4] + table[P + 7]).square()  # a table of its own for each place
    assert torch.allclose(model.answer_logits(torch.tensor([4]), torch.tensor([7]))[0], logits, atol=1e-12)
    assert torch.equal(model.embedding(), torch.cat([table[:P], table[P:]], 1))


def test_a_checkpoint_loads_as_any_other_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert isinstance(found, ArithmeticForCausalLM)
    assert torch.equal(found(prompts(model)).logits, model(prompts(model)).logits)


def test_parameters_of_the_published_model():
    """Nanda et al.: p = 113, d = 128, 4 heads, 512 neurons; "=" is read and its logit is there too."""
    count = sum(p.numel() for p in ArithmeticForCausalLM(ArithmeticConfig()).parameters())
    d, mlp, tokens, positions = 128, 512, 114, 4
    assert count == 2 * tokens * d + positions * d + 4 * d * d + 2 * d * mlp + mlp + d


def test_weight_matrices_are_the_models_own():
    model = ArithmeticForCausalLM(ArithmeticConfig(elements=P, **SHAPES["one layer"])).initialise(0)
    before = model.answer_logits(*every_pair())
    model.weight_matrices()["model.layers.0.mlp.out.weight"].mul_(2)
    assert not torch.equal(model.answer_logits(*every_pair()), before)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 10 is no multiple of 3 heads"):
        ArithmeticConfig(hidden_size=10, num_attention_heads=3)


def test_more_tokens_than_positions_are_refused():
    model = ArithmeticForCausalLM(ArithmeticConfig(elements=P, **SHAPES["one layer"])).initialise(0)
    with pytest.raises(ValueError, match="reads 4 positions, got 5 tokens"):
        model(torch.zeros(1, 5, dtype=torch.int64))
