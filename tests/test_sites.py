"""Names of sites, globs, the nearest three, and finding the modules of an architecture that nobody listed."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import ARCHITECTURES, LAYERS, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, OPTConfig, T5Config, T5ForConditionalGeneration

from infocomp.activations.sites import default_sites, layer_of, places, resolve_sites, site_names

PLAIN = [
    "hook_embed",
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_resid_post",
    "blocks.1.hook_resid_pre",
    "blocks.1.hook_resid_post",
    "blocks.2.hook_resid_pre",
    "blocks.2.hook_resid_post",
    "ln_final.hook_normalized",
    "ln_final.hook_out",
]


def message(error: pytest.ExceptionInfo) -> str:
    return error.value.args[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_the_same_plain_names(architecture):
    assert site_names(tiny_model(architecture)) == PLAIN


def test_the_configuration_alone_names_the_plain_sites():
    assert site_names(tiny_model("llama").config) == PLAIN


def test_the_default_sites_keep_the_final_norm_apart_from_the_layers():
    assert default_sites(tiny_model("gpt_neox")) == [
        "hook_embed",
        *(f"blocks.{i}.hook_resid_post" for i in range(LAYERS)),
        "ln_final.hook_normalized",
    ]


def test_the_layer_of_a_site_is_its_block_and_none_elsewhere():
    assert layer_of("blocks.12.attn.hook_z") == 12
    assert layer_of("blocks.0.hook_resid_post") == 0
    assert [layer_of(site) for site in ("hook_embed", "ln_final.hook_normalized", "control.gaussian")] == [None] * 3


def test_globs_stand_for_the_sites_they_match_each_once_in_the_order_asked_for():
    model = tiny_model("gpt_neox")
    assert resolve_sites(model, "hook_embed") == ["hook_embed"]
    assert resolve_sites(model, "blocks.[12].hook_resid_post") == PLAIN[4:7:2]
    assert resolve_sites(model, ["ln_final.*", "hook_embed", "blocks.*.hook_resid_p*", "*"]) == [
        *PLAIN[7:],
        *PLAIN[:7],
    ]
    assert resolve_sites(model, []) == []


def test_a_misspelt_site_is_answered_by_the_nearest_three():
    with pytest.raises(KeyError) as error:
        resolve_sites(tiny_model("gpt_neox"), "blocks.0.hook_resid_pst")
    assert message(error).startswith(
        "no site named 'blocks.0.hook_resid_pst'; closest are 'blocks.0.hook_resid_post', 'blocks."
    )
    assert message(error).count("'") == 8


def test_a_configuration_alone_knows_no_site_inside_a_block():
    with pytest.raises(KeyError) as error:
        resolve_sites(tiny_model("llama").config, "blocks.0.attn.hook_z")
    assert message(error).startswith("no site named 'blocks.0.attn.hook_z'; closest are 'blocks.0.")
    assert message(error).endswith("are known only from the model, not from its configuration.")


def test_a_glob_without_a_match_is_an_error_and_not_an_empty_list():
    with pytest.raises(KeyError) as error:
        resolve_sites(tiny_model("gpt_neox"), ["hook_embed", "block.*.hook_resid_post"])
    assert message(error).startswith("no site matches 'block.*.hook_resid_post'; closest are 'blocks.")


def test_the_modules_of_each_architecture_are_found():
    neox, llama, gpt2 = tiny_model("gpt_neox"), tiny_model("llama"), tiny_model("gpt2")
    assert places(neox).final_norm is neox.gpt_neox.final_layer_norm
    assert places(neox).base is neox.gpt_neox
    assert places(neox.gpt_neox).embedding is neox.gpt_neox.embed_in
    assert places(llama).final_norm is llama.model.norm
    assert places(llama).blocks == list(llama.model.layers)
    assert places(gpt2).final_norm is gpt2.transformer.ln_f
    assert places(gpt2).embedding is gpt2.transformer.wte


def test_the_base_is_the_module_that_runs_the_blocks_even_one_level_down():
    config = OPTConfig(
        vocab_size=50,
        hidden_size=16,
        word_embed_proj_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        max_position_embeddings=32,
    )
    model = AutoModelForCausalLM.from_config(config)
    assert places(model).base_path == "model.decoder"
    assert places(model).final_norm is model.model.decoder.final_layer_norm


class Decoder(nn.Module):
    """A decoder of nobody's make, with a list of blocks and as many norms as asked for."""

    def __init__(self, norms_before: int, norms_after: int, lists: int = 1, layers: int = 2) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2)
        self.embed = nn.Embedding(5, 4)
        for i in range(norms_before):
            self.add_module(f"before{i}", nn.LayerNorm(4))
        for i in range(lists):
            self.add_module(f"layers{i}", nn.ModuleList(nn.Linear(4, 4) for _ in range(layers)))
        for i in range(norms_after):
            self.add_module(f"after{i}", nn.RMSNorm(4))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed


def test_the_final_norm_is_the_one_after_the_blocks_where_there_are_two():
    model = Decoder(norms_before=1, norms_after=1)
    assert places(model).final_norm is model.after0
    model = Decoder(norms_before=1, norms_after=0)
    assert places(model).final_norm is model.before0


def test_the_blocks_are_the_outermost_list_where_a_block_holds_a_list_of_as_many_experts():
    model = Decoder(norms_before=0, norms_after=1)
    for block in model.layers0:
        block.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    assert places(model).blocks == list(model.layers0)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (Decoder(1, 2), "model Decoder has 2 norms beside its blocks in 'Decoder', one final norm is needed"),
        (Decoder(0, 0), "model Decoder has 0 norms beside its blocks"),
        (Decoder(0, 1, lists=2), r"has 2 lists of num_hidden_layers = 2 modules \(layers0, layers1\), one is needed"),
        (Decoder(0, 1, layers=3), r"has 0 lists of num_hidden_layers = 2 modules \(none\), one is needed"),
    ],
)
def test_an_architecture_that_is_not_understood_is_refused_with_what_was_found(model, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        places(model)
    assert "this architecture is not understood" in str(error.value)


def test_a_module_without_a_configuration_or_an_embedding_is_refused():
    with pytest.raises(ValueError, match=r"model Linear has no config\.num_hidden_layers, which names its sites"):
        site_names(nn.Linear(2, 2))
    bare = nn.Linear(2, 2)
    bare.config = SimpleNamespace(num_hidden_layers=2)
    with pytest.raises(ValueError, match=r"model Linear has no get_input_embeddings\(\), which finds hook_embed"):
        places(bare)


def test_an_encoder_decoder_is_refused():
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="model T5ForConditionalGeneration is an encoder-decoder"):
        places(model)
