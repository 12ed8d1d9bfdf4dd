"""The small GPTs against transformers' own classes with the same weights, and their parameters against the formula."""

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from infocomp.training.small_gpt import GPTSettings, SmallGPT, parameter_counts

SHAPE = GPTSettings(layers=2, width=32, heads=2, vocabulary=19, length=12)
PAPER = {  # Morris et al. (2025), table 1: parameters of the tied GPT-2 with V = 2048, S = 64 by width and layers
    32: {1: 80_352, 2: 93_056, 4: 118_464, 8: 169_280},
    64: {1: 185_280, 2: 235_264, 4: 335_232, 8: 535_168},
    128: {1: 468_864, 2: 667_136, 4: 1_063_680, 8: 1_856_768},
    256: {1: 1_330_944, 2: 2_120_704, 4: 3_700_224, 8: 6_859_264},
}
NAMES = {
    "gpt2": {
        "attention_norm": "ln_1",
        "mlp_norm": "ln_2",
        "query_key_value": "attn.c_attn",
        "attention_out": "attn.c_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    },
    "gpt_neox": {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "query_key_value": "attention.query_key_value",
        "attention_out": "attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    },
}


def shaped(**changes) -> GPTSettings:
    return GPTSettings(**{**SHAPE.model_dump(), **changes})


def untrivial(model: SmallGPT) -> SmallGPT:
    """Norms and biases that are not ones and zeros, and weights large enough for attention to matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model


def some_rows(settings: GPTSettings, rows: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(settings.vocabulary, (rows, settings.length), generator=generator)


def twin(model: SmallGPT):
    """The same model as transformers' class; GPT-2's matrices lie the other way round, NeoX keeps q, k, v by head."""
    settings = model.settings
    neox, rows = settings.architecture == "gpt_neox", settings.vocabulary + settings.bos
    own, weights = dict(model.named_parameters()), {}
    base = "gpt_neox" if neox else "transformer"
    weights[f"{base}.{'embed_in' if neox else 'wte'}.weight"] = own["embedding.weight"]
    for kind in ("weight", "bias"):
        weights[f"{base}.{'final_layer_norm' if neox else 'ln_f'}.{kind}"] = own[f"final_norm.{kind}"]
    for layer in range(settings.layers):
        for here, there in NAMES[settings.architecture].items():
            for kind in ("weight", "bias"):
                tensor = own[f"blocks.{layer}.{here}.{kind}"]
                if neox and here == "query_key_value":
                    parts = tensor.reshape(3, settings.heads, settings.width // settings.heads, *tensor.shape[1:])
                    tensor = parts.transpose(0, 1).reshape(tensor.shape)
                if not neox and kind == "weight" and not here.endswith("norm"):
                    tensor = tensor.T
                place = f"{base}.{'layers' if neox else 'h'}.{layer}.{there}.{kind}"
                weights[place] = tensor
    ends = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": rows}
    if neox:
        sizes = {"hidden_size": settings.width, "num_hidden_layers": settings.layers}
        sizes |= {"num_attention_heads": settings.heads, "intermediate_size": 4 * settings.width}
        sizes |= {"max_position_embeddings": settings.length, "tie_word_embeddings": False}
        other = AutoModelForCausalLM.from_config(GPTNeoXConfig.from_dict(sizes | ends))
    else:
        weights["transformer.wpe.weight"] = own["positions.weight"]
        sizes = {"n_embd": settings.width, "n_layer": settings.layers, "n_head": settings.heads}
        sizes |= {"n_positions": settings.length}
        other = AutoModelForCausalLM.from_config(GPT2Config.from_dict(sizes | ends))
    assert isinstance(other, GPTNeoXForCausalLM if neox else GPT2LMHeadModel)
    output = own["embedding.weight"]
    if neox:  # a BOS is never predicted: its row of the output matrix is left out again by whoever compares
        output = torch.cat([own["unembedding.weight"], torch.zeros(int(settings.bos), settings.width)])
    found = other.load_state_dict({name: tensor.detach() for name, tensor in weights.items()}, strict=False)
    assert not found.unexpected_keys and len(found.missing_keys) <= 1, "the output matrix, named by version, alone"
    head = other.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    with torch.no_grad():
        head.weight.copy_(output)
    return other.eval()


# --- the logits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize(("bos", "heads"), [(True, 2), (False, 2), (True, 1)])
def test_logits_are_those_of_transformers_with_the_same_weights(architecture, bos, heads):
    settings = shaped(architecture=architecture, bos=bos, heads=heads)
    model, rows = untrivial(SmallGPT(settings, seed=3)), some_rows(settings)
    begin = torch.full((len(rows), 1), settings.vocabulary)
    read = torch.cat([begin, rows[:, :-1]], dim=1) if bos else rows[:, :-1]
    with torch.no_grad():
        logits, expected = model(rows), twin(model)(read).logits[..., : settings.vocabulary]
    assert logits.shape == (5, 12 if bos else 11, 19) and settings.predicted == logits.shape[1]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert logits.std() > 0.3, "logits all alike would agree with anything"


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_the_fused_kernel_of_long_rows_gives_transformers_logits_too(architecture):
    settings = shaped(architecture=architecture, length=70)
    model, rows = untrivial(SmallGPT(settings)), some_rows(settings, 2)
    read = torch.cat([torch.full((2, 1), settings.vocabulary), rows[:, :-1]], dim=1)
    with torch.no_grad():
        expected = twin(model)(read).logits[..., : settings.vocabulary]
        torch.testing.assert_close(model(rows), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("bos", [True, False])
def test_a_logit_depends_on_the_tokens_before_it_alone_and_on_each_of_them(architecture, bos):
    settings = shaped(architecture=architecture, bos=bos)
    model, rows = untrivial(SmallGPT(settings)), some_rows(settings, 1)
    first = settings.length - settings.predicted
    with torch.no_grad():
        before = model(rows)
        for place in range(settings.length):
            other = rows.clone()
            other[0, place] = (other[0, place] + 1) % settings.vocabulary
            moved = (model(other) - before).abs().amax(-1)[0]
            predicts = torch.arange(settings.predicted) + first  # logit t is about this token
            assert (moved[predicts <= place] == 0).all(), "a token's own logits, and those before, do not see it"
            assert (moved[predicts > place] > 1e-4).all(), "all later ones do"


# --- parameters -------------------------------------------------------------------------------------------------------


def test_tied_gpt2_has_the_papers_number_of_parameters_by_formula_and_by_counting():
    for width, by_layers in PAPER.items():
        for layers, expected in by_layers.items():
            settings = GPTSettings(layers=layers, width=width, vocabulary=2048, length=64, bos=False)
            assert parameter_counts(settings).total == expected
            with_bos = settings.model_copy(update={"bos": True})
            assert parameter_counts(with_bos).total == expected + width, "a BOS is one more row of the embedding"
            if width <= 64:
                assert sum(parameter.numel() for parameter in SmallGPT(settings).parameters()) == expected


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("bos", [True, False])
def test_the_formula_counts_what_the_model_holds(architecture, bos):
    settings = shaped(architecture=architecture, bos=bos, layers=3, width=16, vocabulary=7, length=5)
    sizes = {name: parameter.numel() for name, parameter in SmallGPT(settings).named_parameters()}
    counts = parameter_counts(settings)
    assert counts.total == sum(sizes.values())
    in_embedding = [name for name in sizes if name.split(".")[0] in ("embedding", "positions", "unembedding")]
    assert counts.embedding == sum(sizes[name] for name in in_embedding)
    assert counts.outside_embedding == counts.total - counts.embedding == 3 * (12 * 256 + 13 * 16) + 2 * 16
    assert len(in_embedding) == 2, "gpt2: tokens and positions, the output is tied; gpt_neox: tokens and output"


# --- precision, seeds, names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_precisions_hold_and_compute_as_they_say(architecture):
    held = {"float32": torch.float32, "bfloat16_mixed": torch.float32, "bfloat16": torch.bfloat16}
    computed = {"float32": torch.float32, "bfloat16_mixed": torch.bfloat16, "bfloat16": torch.bfloat16}
    rows = some_rows(SHAPE)
    with torch.no_grad():
        exact = untrivial(SmallGPT(shaped(architecture=architecture, precision="float64")))
        expected = exact(rows)
        assert expected.dtype == torch.float64 and next(exact.parameters()).dtype == torch.float64
        for precision in held:
            model = untrivial(SmallGPT(shaped(architecture=architecture, precision=precision)))
            logits = model(rows)
            assert {parameter.dtype for parameter in model.parameters()} == {held[precision]}
            assert logits.dtype == computed[precision]
            off = (logits.double() - expected).abs().max() / expected.abs().max()
            # 24 and 8 bits of mantissa, some dozens of roundings one after the other
            assert off < (1e-5 if precision == "float32" else 0.1)
            assert off > (0 if precision == "float32" else 1e-4), "coarser numbers leave a trace"


def test_the_seed_alone_decides_the_weights_whatever_torchs_own_generator_holds():
    torch.manual_seed(1)
    first, again, other = (SmallGPT(SHAPE, seed) for seed in (5, 5, 6))
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    torch.manual_seed(99)
    assert torch.equal(torch.cat([p.flatten() for p in SmallGPT(SHAPE, 5).parameters()]), weights[0])


def test_weights_begin_as_gpt2s_do():
    model = SmallGPT(GPTSettings(layers=3, width=128, heads=2, vocabulary=500, length=32), seed=1)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            deviation = 0.02 / 6**0.5 if name.endswith(("attention_out.weight", "mlp_out.weight")) else 0.02
            error = deviation / (2 * parameter.numel()) ** 0.5
            assert abs(float(parameter.detach().std()) - deviation) < 4 * error, name


def test_names_tell_architecture_depth_width_and_precision():
    assert GPTSettings(layers=2, width=16).name == "gpt2 2x16" and GPTSettings(width=16).family == "gpt2"
    neox = GPTSettings(architecture="gpt_neox", width=16, precision="bfloat16_mixed")
    assert neox.name == "gpt_neox 1x16 bf16 mixed" and neox.family == "gpt_neox bf16 mixed"


# --- bad settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 3}, "width must be a multiple of heads; it is 32 with 3 heads"),
        ({"architecture": "gpt_neox", "width": 24, "heads": 2}, r"width / heads must be a multiple of 8; it is 12"),
        ({"architecture": "gpt_neox", "width": 6, "heads": 2}, r"width / heads must be a multiple of 8; it is 3"),
        ({"vocabulary": 1}, "greater than or equal to 2"),
        ({"length": 1}, "greater than or equal to 2"),
        ({"layers": 0}, "greater than 0"),
        ({"width": 0}, "greater than 0"),
        ({"precision": "float16"}, "'float32', 'bfloat16_mixed', 'bfloat16' or 'float64'"),
        ({"architecture": "llama"}, "'gpt2' or 'gpt_neox'"),
        ({"layer": 2}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_model_are_refused(change, sentence):
    with pytest.raises(ValidationError, match=sentence):
        shaped(**change)
