"""Sites inside a block: TransformerLens's own bridge is the oracle, and the caller's model never notices."""

import copy
import gc
import json
import subprocess
import sys
import weakref

import pytest
import torch
from tiny_models import ARCHITECTURES, VOCABULARY, hooks_on, some_ids, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from infocomp.activations.bridge import BridgeUnavailable, _fault, bridge_for
from infocomp.activations.capture import capture
from infocomp.activations.sites import resolve_sites, site_names

# TransformerBridge computes GPT-2's LayerNorm and its split query-key-value by itself, the other four as Hugging Face
ROUNDING = {"gpt2": 1e-6}
INSIDE = ["blocks.*.attn.hook_z", "blocks.*.attn.hook_[qkv]", "blocks.*.mlp.hook_p*", "blocks.*.hook_*_out"]


def message(error: pytest.ExceptionInfo) -> str:
    return error.value.args[0]


def tokenizer(bos: str | None) -> PreTrainedTokenizerFast:
    """One word a token, so that TransformerBridge has a tokenizer and asks no hub."""
    words = {f"w{i}": i for i in range(VOCABULARY - 1)} | {"<|end|>": VOCABULARY - 1}
    word_level = Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=word_level, bos_token=bos, eos_token="<|end|>")


@torch.no_grad()
def transformer_lens_gives(model, ids):
    """Every activation as TransformerLens caches it, from a copy of the model with weights of its own."""
    from transformer_lens.model_bridge import TransformerBridge

    own = copy.deepcopy(model)
    own.config.architectures = [type(own).__name__]
    oracle = TransformerBridge.boot_transformers("any/name", hf_model=own, tokenizer=tokenizer(bos=None), device="cpu")
    return oracle.run_with_cache(ids)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_plain_site_is_the_same_through_hooks_and_through_the_bridge(architecture):
    model, ids = tiny_model(architecture), some_ids()
    with capture(model, "*") as plain:
        model(ids)
    with capture(model, "*", bridge=bridge_for(model)) as bridged:
        model(ids)
    assert list(plain) == list(bridged) == site_names(model)
    worst = max(float((plain[site] - bridged[site]).abs().max()) for site in plain)
    print(f"plain against bridge, {architecture}: {worst:.1e}")  # pytest -rP
    assert worst <= ROUNDING.get(architecture, 0.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sites_inside_a_block_are_named_and_valued_as_transformer_lens_does(architecture):
    model, ids = tiny_model(architecture, attention="sdpa"), some_ids()
    logits, cache = transformer_lens_gives(model, ids)
    with capture(model, [*INSIDE, "*"]) as acts:
        output = model(ids)
    assert len(acts) > 9 * 3 and "blocks.2.attn.hook_z" in acts and "blocks.0.mlp.hook_post" in acts
    assert acts.attention == "eager" and model.config._attn_implementation == "sdpa"
    for site, value in acts.items():
        assert value.shape[:2] == ids.shape and value.ndim == 3
        assert torch.equal(value, cache[site].flatten(2)), site
    assert torch.equal(output.logits, logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sites_inside_a_block_are_the_inputs_of_its_output_projections(architecture):
    model, ids, inputs = tiny_model(architecture), some_ids(), {}
    names = {
        "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
        "gpt2": ("attn.c_proj", "mlp.c_proj"),
    }.get(architecture, ("self_attn.o_proj", "mlp.down_proj"))
    sites = ["blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"]
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    handles = [
        blocks[1]
        .get_submodule(name)
        .register_forward_pre_hook(lambda _, args, site=site: inputs.update({site: args[0]}))
        for name, site in zip(names, sites, strict=True)
    ]
    model(ids)
    for handle in handles:
        handle.remove()
    with capture(model, sites) as acts:
        model(ids)
    for site in sites:
        assert float((acts[site] - inputs[site]).abs().max()) <= ROUNDING.get(architecture, 0.0)


@pytest.mark.parametrize("hidden_states_asked_before", [True, False])
@torch.no_grad()
def test_the_model_is_called_as_ever_whole_or_by_its_base(hidden_states_asked_before):
    untouched, ids = tiny_model("llama"), some_ids()
    model = untouched if hidden_states_asked_before else tiny_model("llama")
    expected = untouched(ids, output_hidden_states=True)
    generated = untouched.generate(ids, max_new_tokens=4, do_sample=False)
    with capture(model, ["hook_embed", "blocks.1.attn.hook_z"]) as acts:
        output = model(ids, output_hidden_states=True)
        whole = dict(acts)
        assert torch.equal(model.base_model(ids).last_hidden_state, output.hidden_states[-1])
        assert torch.equal(acts["blocks.1.attn.hook_z"], whole["blocks.1.attn.hook_z"])
        assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), generated)
        assert acts["hook_embed"].shape[1] == 1
    assert torch.equal(output.logits, expected.logits)
    assert len(output.hidden_states) == len(expected.hidden_states)
    for ours, theirs in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_model_is_left_as_it_was(architecture):
    model, ids = tiny_model(architecture, attention="sdpa"), some_ids()
    tensors = {**model.state_dict(), **dict(model.named_buffers())}
    before = {
        "tensors": {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in tensors.items()},
        "modules": list(model.named_modules()),
        "config": model.config.to_dict(),
        "attention": model.config._attn_implementation,
        "logits": model(ids).logits,
    }
    with capture(model, ["hook_embed", *INSIDE]):
        model(ids)
    assert torch.equal(model(ids).logits, before["logits"])
    assert list(model.named_modules()) == before["modules"]
    assert model.config.to_dict() == before["config"]
    assert model.config._attn_implementation == before["attention"] == "sdpa"
    tensors = {**model.state_dict(), **dict(model.named_buffers())}
    assert list(tensors) == list(before["tensors"])
    for name, (place, value) in before["tensors"].items():
        assert tensors[name].data_ptr() == place and torch.equal(tensors[name], value)
    assert hooks_on(model) == 0


@pytest.mark.parametrize(("architecture", "copied"), [("gpt_neox", 3), ("gpt2", 0), ("llama", 0), ("qwen3", 0)])
def test_a_bridge_shares_the_weights_but_for_the_split_query_key_values_of_neox(architecture, copied):
    model = tiny_model(architecture)
    bridge = bridge_for(model)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held = bridge.transformer_bridge.original_model.parameters()
    extra = [parameter for parameter in held if parameter.untyped_storage().data_ptr() not in own]
    # a query, key and value matrix of 32 × 32 with its bias, in each of 3 blocks
    assert sum(p.numel() for p in extra) == 3 * copied * (32 * 32 + 32)


def test_heads_are_laid_side_by_side_also_where_they_are_grouped():
    model = tiny_model("llama")
    with (
        torch.no_grad(),
        capture(model, ["blocks.0.attn.hook_q", "blocks.0.attn.hook_k", "blocks.0.attn.hook_z"]) as acts,
    ):
        model(some_ids())
    assert [value.shape[-1] for value in acts.values()] == [4 * 8, 2 * 8, 4 * 8]


def test_an_attention_pattern_is_refused_in_a_sentence():
    bridge = bridge_for(tiny_model("gpt_neox"))
    for site in ("blocks.0.attn.hook_pattern", "blocks.*.attn.hook_pattern"):
        with pytest.raises(ValueError) as error:
            resolve_sites(tiny_model("gpt_neox"), site, bridge)
        assert message(error) == (
            "site 'blocks.0.attn.hook_pattern' holds [2, 4, 3, 3] for 2 sequences of 3 tokens, "
            "not one vector for each position as [batch, position, ...]."
        )


def test_a_name_that_exists_and_is_never_reached_is_refused_rather_than_empty():
    bridge = bridge_for(tiny_model("gpt_neox"))
    with pytest.raises(ValueError, match=r"site 'blocks\.0\.attn\.hook_result' is not reached by a pass of the base"):
        resolve_sites(tiny_model("gpt_neox"), "blocks.0.attn.hook_result", bridge)
    with pytest.raises(ValueError, match=r"site 'hook_unembed' is not reached by a pass of the base model"):
        capture(tiny_model("gpt_neox"), "hook_unembed")
    with pytest.raises(ValueError, match=r"site 'embed\.hook_in' holds no real numbers\."):
        capture(tiny_model("gpt_neox"), "embed.hook_in")


def test_a_place_that_is_reached_twice_in_a_pass_has_no_one_activation():
    assert _fault([[(2, 3, 8)], [(2, 4, 8)]]) == ""
    twice = _fault([[(2, 3, 8)] * 2, [(2, 4, 8)] * 2])
    assert twice == "is reached 2 times in one forward pass, so it has no one activation"


@pytest.mark.parametrize("heads", [3, 4])
def test_as_many_heads_as_positions_are_not_taken_for_positions(heads):
    """Qwen-3 normalises queries as [batch, head, position, dim], which looks like [batch, position, head, dim]."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, num_attention_heads=heads, num_key_value_heads=heads))
    bridge = bridge_for(model)
    for site in ("blocks.0.attn.q_norm.hook_out", "blocks.0.attn.hook_k_normed", "blocks.0.attn.hook_pattern"):
        assert site in bridge.refused and site not in bridge.sites
    assert "blocks.0.attn.hook_rot_q" in bridge.sites


def test_the_nearest_three_may_lie_inside_a_block():
    with pytest.raises(KeyError) as error:
        capture(tiny_model("llama"), "blocks.1.attn.hook_zz")
    assert message(error).startswith(
        "no site named 'blocks.1.attn.hook_zz'; closest are 'blocks.1.attn.hook_z', 'blocks."
    )
    assert message(error).count("'") == 8


def test_site_names_with_a_bridge_follow_the_plain_ones():
    model = tiny_model("llama")
    names = site_names(model, bridge=True)
    assert names[:9] == site_names(model)
    assert {"blocks.0.hook_resid_mid", "blocks.2.attn.hook_z", "blocks.1.mlp.hook_post"} < set(names)
    assert len(set(names)) == len(names)
    # a parallel block has no residual between attention and MLP
    assert "blocks.0.hook_resid_mid" not in site_names(tiny_model("gpt_neox"), bridge=True)


@torch.no_grad()
def test_a_consumer_is_fed_from_inside_the_bridge_and_may_fail():
    model, order = tiny_model("gpt_neox"), []
    sites = ["blocks.1.mlp.hook_post", "blocks.0.attn.hook_z", "blocks.0.hook_resid_post"]
    with capture(model, sites, consume=lambda site, value: order.append(site)):
        model(some_ids())
    assert order == ["blocks.0.attn.hook_z", "blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]

    def fail(site, activations):
        raise MemoryError(site)

    bridge = bridge_for(model)
    with pytest.raises(MemoryError, match=r"blocks\.0\.attn\.hook_z"), capture(model, sites, bridge, fail):
        model(some_ids())
    assert hooks_on(model) == 0
    assert hooks_on(bridge.transformer_bridge) == hooks_on(bridge_for(model).transformer_bridge)


@torch.no_grad()
def test_a_bridge_may_be_kept_over_several_captures():
    model, ids = tiny_model("gpt_neox"), some_ids()
    bridge = bridge_for(model)
    with capture(model, "blocks.0.attn.hook_z", bridge=bridge) as first:
        model(ids)
    model.to(torch.float32).eval()
    with capture(model, ["blocks.0.attn.hook_z", "hook_embed"], bridge=bridge) as second:
        model(ids)
    assert torch.equal(first["blocks.0.attn.hook_z"], second["blocks.0.attn.hook_z"])
    assert len(first) == 1


def test_a_bridge_whose_weights_have_moved_on_is_refused():
    model = tiny_model("gpt_neox")
    bridge = bridge_for(model)
    with torch.no_grad():
        model.gpt_neox.layers[0].attention.query_key_value.weight.mul_(2)
    sentence = r"bridge was built from other weights than the model has now: build it anew by bridge_for\."
    with pytest.raises(ValueError, match=sentence), capture(model, "hook_embed", bridge=bridge):
        pass
    with pytest.raises(ValueError, match=sentence), capture(tiny_model("gpt_neox"), "hook_embed", bridge=bridge):
        pass
    assert hooks_on(model) == 0


def test_two_bridges_are_not_opened_over_each_other():
    model = tiny_model("gpt_neox")
    bridge = bridge_for(model)
    with capture(model, "hook_embed", bridge=bridge) as acts:
        second = capture(model, "hook_embed", bridge=bridge)
        with pytest.raises(
            ValueError, match="model is captured through a bridge already: ask for all its sites in one"
        ):
            second.open()
        model(some_ids())
    assert acts["hook_embed"].shape == (2, 20, 32)
    assert hooks_on(model) == 0


def test_hooks_of_others_that_would_not_run_are_refused():
    model, ids = tiny_model("gpt_neox"), some_ids()
    bridge = bridge_for(model)
    with capture(model, "blocks.1.hook_resid_post"):
        with pytest.raises(
            ValueError, match=r"module 'layers\.1' of the model has a hook or a replaced forward, which"
        ):
            capture(model, "blocks.0.attn.hook_z")
        with pytest.raises(ValueError, match=r"module 'layers\.1' of the model has a hook"):
            capture(model, "hook_embed", bridge=bridge).open()
    # those on the whole, on the base and on the head do run, and do so once
    ran = []
    for module in (model, model.gpt_neox, model.lm_head):
        module.register_forward_hook(lambda module, *_: ran.append(type(module).__name__))
    with capture(model, "blocks.0.attn.hook_z"):
        model(ids)
    assert ran == ["GPTNeoXModel", "Linear", "GPTNeoXForCausalLM"]


def test_a_model_in_training_is_not_given_a_gradient_that_lacks_its_blocks():
    model, ids = tiny_model("gpt_neox").train(), some_ids()
    sentence = "a model in training mode is captured through a bridge, which has no gradient"
    with pytest.raises(RuntimeError, match=sentence), capture(model, "blocks.0.attn.hook_z"):
        model(ids)
    with torch.no_grad(), capture(model, "blocks.0.attn.hook_z"):
        model(ids)
    assert model.training and hooks_on(model) == 0
    with capture(model.eval(), "blocks.0.attn.hook_z"):
        assert not model.base_model(ids).last_hidden_state.requires_grad


@torch.no_grad()
def test_a_kept_bridge_follows_the_model_from_training_to_evaluation():
    model, ids = tiny_model("gpt2").train(), some_ids()  # with its dropout of 0.1
    bridge = bridge_for(model)
    with capture(model.eval(), "blocks.2.hook_resid_post") as plain:
        model(ids)
    with capture(model, "blocks.2.hook_resid_post", bridge=bridge) as bridged:
        model(ids)
    difference = plain["blocks.2.hook_resid_post"] - bridged["blocks.2.hook_resid_post"]
    assert float(difference.abs().max()) <= ROUNDING["gpt2"]


def test_a_bare_stack_of_blocks_has_only_its_plain_sites():
    base = tiny_model("gpt_neox").base_model
    with pytest.raises(BridgeUnavailable, match="GPTNeoXModel is a bare stack of blocks, a bridge needs the causal"):
        bridge_for(base)
    with pytest.raises(KeyError) as error:
        capture(base, "blocks.0.hook_resid_pst")
    assert message(error).startswith(
        "no site named 'blocks.0.hook_resid_pst'; closest are 'blocks.0.hook_resid_post', "
    )
    assert message(error).endswith(
        "; sites inside a block are out of reach: GPTNeoXModel is a bare stack of blocks, "
        "a bridge needs the causal language model around it."
    )


def test_a_model_that_transformer_lens_does_not_know_is_refused_by_name():
    model = tiny_model("gpt_neox")

    class Homemade(type(model)):
        pass

    model.__class__ = Homemade
    model.config.model_type = "homemade"
    with pytest.raises(BridgeUnavailable, match="TransformerBridge cannot wrap Homemade \\(Could not determine"):
        bridge_for(model)


@pytest.fixture
def no_automatic_collection():
    """So that what is freed is freed by the code under test."""
    gc.disable()
    yield
    gc.enable()


@torch.no_grad()
def test_a_bridge_built_for_one_capture_is_freed_with_it(no_automatic_collection):
    model = tiny_model("gpt_neox")
    with capture(model, "blocks.0.attn.hook_z") as acts:
        model(some_ids())
        twin = weakref.ref(acts._bridge.transformer_bridge)
        assert twin() is not None
    assert twin() is None
    assert acts["blocks.0.attn.hook_z"].shape == (2, 20, 32)


def test_a_bridge_of_ones_own_is_freed_by_del_and_collect(no_automatic_collection):
    bridge = bridge_for(tiny_model("gpt_neox"))
    twin = weakref.ref(bridge.transformer_bridge)
    del bridge
    assert twin() is not None
    gc.collect()
    assert twin() is None


def test_a_bridge_built_in_inference_mode_serves_outside_it():
    model, ids = tiny_model("gpt_neox"), some_ids()
    with torch.inference_mode():
        bridge = bridge_for(model)
        with capture(model, "blocks.0.attn.hook_z", bridge=bridge) as inside:
            model(ids)
    with torch.no_grad(), capture(model, "blocks.0.attn.hook_z", bridge=bridge) as outside:
        model(ids)
    assert torch.equal(inside["blocks.0.attn.hook_z"], outside["blocks.0.attn.hook_z"])
    assert not any(parameter.is_inference() for parameter in bridge.transformer_bridge.original_model.parameters())


@torch.no_grad()
def test_half_precision_is_the_same_through_hooks_and_through_the_bridge():
    for architecture in ("gpt_neox", "llama"):
        model, ids = tiny_model(architecture, dtype=torch.bfloat16), some_ids()
        with capture(model, "*") as plain:
            model(ids)
        with capture(model, "*", bridge=bridge_for(model)) as bridged:
            model(ids)
        for site in plain:
            assert bridged[site].dtype == torch.bfloat16
            assert torch.equal(plain[site], bridged[site])


@pytest.mark.parametrize("bos", [None, "<|end|>"])
def test_a_tokenizer_is_copied_and_taken_as_it_is(bos):
    words = tokenizer(bos)
    before = (repr(words), words.pad_token, words.padding_side, json.dumps(words.init_kwargs, default=str))
    bridge = bridge_for(tiny_model("gpt_neox"), words)
    assert bridge.transformer_bridge.to_tokens("w3 w5", prepend_bos=False).tolist() == [[3, 5]]
    assert (repr(words), words.pad_token, words.padding_side, json.dumps(words.init_kwargs, default=str)) == before


def test_plain_sites_never_import_transformer_lens():
    program = (
        "import sys; from tiny_models import tiny_model, some_ids\n"
        "from infocomp.activations.capture import capture\n"
        "model = tiny_model('gpt_neox')\n"
        "with capture(model, ['hook_embed', 'blocks.*', 'ln_final.*']) as acts: model(some_ids())\n"
        "assert len(acts) == 9 and 'transformer_lens' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=__file__.rpartition("/")[0])
