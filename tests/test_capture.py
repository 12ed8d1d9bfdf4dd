"""Plain hooks: equal to what Hugging Face itself gives, gone afterwards, holding one forward pass and no copy."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from tiny_models import ARCHITECTURES, LAYERS, hooks_on, some_ids, tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, OlmoConfig, OPTConfig

from infocomp.activations.capture import capture, normalized
from infocomp.activations.sites import places, site_names

POSTS = [f"blocks.{i}.hook_resid_post" for i in range(LAYERS)]


def message(error: pytest.ExceptionInfo) -> str:
    return error.value.args[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_plain_site_is_what_the_model_itself_gives(architecture, attention):
    model, ids = tiny_model(architecture, attention), some_ids()
    expected = model.base_model(ids, output_hidden_states=True)
    with capture(model, site_names(model)) as acts:
        model(ids)
    assert list(acts) == site_names(model)
    assert torch.equal(acts["hook_embed"], model.get_input_embeddings()(ids))
    for i, states in enumerate(expected.hidden_states[:-1]):
        assert torch.equal(acts[f"blocks.{i}.hook_resid_pre"], states)
        if i:
            assert torch.equal(acts[f"blocks.{i - 1}.hook_resid_post"], states)
    # the last of hidden_states is after the final norm; the last block's output is before it
    assert torch.equal(acts["ln_final.hook_out"], expected.last_hidden_state)
    assert torch.equal(places(model).final_norm(acts[POSTS[-1]]), expected.last_hidden_state)
    assert acts.attention == attention


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_the_site_before_the_affine_part_is_the_norm_of_the_last_block(architecture):
    model = tiny_model(architecture)
    with capture(model, [POSTS[-1], "ln_final.hook_normalized"]) as acts:
        model(some_ids())
    rows = acts[POSTS[-1]].double()
    if architecture in ("gpt_neox", "gpt2"):
        truth = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    else:
        epsilon = model.config.rms_norm_eps
        truth = rows / (rows.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
    # float32 rounding of numbers of about 5
    assert (acts["ln_final.hook_normalized"] - truth).abs().max() < 2e-6


@torch.no_grad()
def test_calling_only_the_base_model_gives_the_same():
    model, ids = tiny_model("llama"), some_ids()
    with capture(model, site_names(model)) as whole:
        model(ids)
    with capture(model, site_names(model)) as base:
        model.base_model(ids)
    with capture(model.base_model, site_names(model)) as bare:
        model.base_model(input_ids=ids)
    for site in site_names(model):
        assert torch.equal(whole[site], base[site])
        assert torch.equal(whole[site], bare[site])


def other_models():
    small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    short = {"max_position_embeddings": 32, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    yield OPTConfig(**small, **short, word_embed_proj_dim=16, ffn_dim=32)
    yield Gemma2Config(**small, **short, num_key_value_heads=1, head_dim=8, intermediate_size=32)
    yield OlmoConfig(**small, **short, intermediate_size=32)


@pytest.mark.parametrize("config", list(other_models()), ids=lambda config: config.model_type)
@torch.no_grad()
def test_architectures_that_nobody_listed_are_captured_too(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    ids = some_ids() % 50
    expected = model.base_model(ids, output_hidden_states=True)
    with capture(model, ["*"]) as acts:
        model(ids)
    assert torch.equal(acts["blocks.0.hook_resid_post"], expected.hidden_states[1])
    assert torch.equal(acts["ln_final.hook_out"], expected.last_hidden_state)
    inside, after = acts["ln_final.hook_normalized"], acts["ln_final.hook_out"]
    if config.model_type == "olmo":  # has no affine part
        assert torch.equal(inside, after)
    if config.model_type == "gemma2":  # its weight is the offset from 1
        assert torch.allclose(inside * (1 + model.model.norm.weight), after, atol=1e-5)
    if config.model_type == "opt":
        norm = model.model.decoder.final_layer_norm
        assert torch.allclose(inside * norm.weight + norm.bias, after, atol=1e-5)


class Tuples(nn.Module):
    """Blocks that take their input by name and return a tuple, as older decoder layers do."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2)
        self.embed, self.norm = nn.Embedding(9, 4), norm
        self.layers = nn.ModuleList(TupleBlock() for _ in range(2))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.embed(ids)
        for layer in self.layers:
            states, _ = layer(hidden_states=states)
        return self.norm(states)


class TupleBlock(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, hidden_states):
        return super().forward(hidden_states), "attention weights"


def test_blocks_that_take_names_and_return_tuples_are_read():
    model, ids = Tuples(nn.RMSNorm(4)), torch.arange(6).reshape(2, 3)
    with capture(model, ["*"]) as acts:
        output = model(ids)
    assert torch.equal(acts["blocks.0.hook_resid_pre"], model.embed(ids))
    assert torch.equal(acts["blocks.1.hook_resid_pre"], acts["blocks.0.hook_resid_post"])
    assert torch.equal(acts["ln_final.hook_out"], output)


class DoublingNorm(nn.RMSNorm):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_final_norm_of_another_kind_is_refused_where_its_inside_is_asked_for():
    ids = torch.arange(6).reshape(2, 3)
    model = Tuples(DoublingNorm(4))
    with capture(model, "ln_final.hook_out"):
        model(ids)
    with (
        pytest.raises(ValueError, match=r"the final norm DoublingNorm is not weight × normalised \+ bias"),
        capture(model, "ln_final.hook_normalized"),
    ):
        model(ids)
    assert hooks_on(model) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_activations_keep_the_dtype_of_the_model(dtype):
    for architecture in ARCHITECTURES:
        model = tiny_model(architecture, dtype=dtype)
        with capture(model, ["*"]) as acts:
            model(some_ids())
        assert {site: value.dtype for site, value in acts.items()} == dict.fromkeys(site_names(model), dtype)


def test_weights_that_are_not_numbers_are_not_blamed_on_the_norm():
    norm, rows = nn.LayerNorm(4), torch.randn(3, 4)
    rows[1] = float("nan")
    result = normalized(norm, rows, norm(rows))
    assert result.isnan().any(-1).tolist() == [False, True, False]
    assert normalized(norm, rows[:0], rows[:0]).shape == (0, 4)


def test_a_huge_weight_on_a_small_entry_is_only_rounding():
    norm, rows = nn.LayerNorm(512), torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.weight.fill_(1000.0)
        rows[:, 0] += 300.0
        normalized(norm, rows, norm(rows))


@pytest.mark.parametrize("sites", [["*"], "hook_embed", POSTS])
def test_no_hook_is_left_behind(sites):
    model = tiny_model("gpt_neox")
    with capture(model, sites) as acts:
        assert hooks_on(model) > 0
        model(some_ids())
    assert hooks_on(model) == 0
    assert acts[acts.sites[0]].shape == (2, 20, 32)


def test_no_hook_is_left_behind_after_an_exception_in_the_block_or_in_the_model():
    model = tiny_model("gpt_neox")
    with pytest.raises(ZeroDivisionError), capture(model, ["*"]):
        _ = 1 / 0
    assert hooks_on(model) == 0
    with pytest.raises(IndexError), capture(model, ["*"]):
        model(torch.tensor([[10_000]]))
    assert hooks_on(model) == 0


def test_no_hook_is_left_behind_when_setting_them_fails_half_way():
    model = tiny_model("gpt_neox")
    acts = capture(model, ["*"])
    acts.sites.append("blocks.7.hook_resid_post")  # the hooks before it are set by then
    with pytest.raises(IndexError):
        acts.open()
    assert hooks_on(model) == 0


def test_no_hook_is_left_behind_after_an_exception_in_the_consumer():
    def consume(site, activations):
        if site == "blocks.1.hook_resid_post":
            raise MemoryError("full")

    model = tiny_model("gpt_neox")
    with pytest.raises(MemoryError, match="full"), capture(model, ["*"], consume=consume):
        model(some_ids())
    assert hooks_on(model) == 0


def test_activations_are_detached_and_not_copied():
    model, seen = tiny_model("llama"), []
    handle = model.model.layers[1].register_forward_hook(lambda _, __, output: seen.append(output))
    with capture(model, "blocks.1.hook_resid_post") as acts:
        model(some_ids())
    handle.remove()
    assert seen[0].requires_grad and not acts["blocks.1.hook_resid_post"].requires_grad
    assert acts["blocks.1.hook_resid_post"].data_ptr() == seen[0].data_ptr()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_no_module_writes_into_what_was_captured_before_it(architecture):
    model, ids, copies = tiny_model(architecture), some_ids(), {}
    with capture(model, ["*"], consume=lambda site, value: copies.__setitem__(site, value.clone())):
        model(ids)
    with capture(model, ["*"]) as acts:
        model(ids)
    for site, value in acts.items():
        assert torch.equal(value, copies[site])


@torch.no_grad()
def test_only_the_last_forward_pass_is_held_and_the_one_before_is_dropped_first():
    model = tiny_model("gpt_neox")
    alive = []
    with capture(model, POSTS) as acts:
        model(some_ids(seed=1))
        first = weakref.ref(acts[POSTS[0]])
        handle = model.gpt_neox.embed_in.register_forward_hook(lambda *_: alive.append(first() is not None))
        model(some_ids(batch=3, length=7))
        handle.remove()
        assert acts[POSTS[0]].shape == (3, 7, 32)
    assert alive == [False]


@torch.no_grad()
def test_a_consumer_gets_each_site_as_it_is_computed_and_can_drop_it_before_the_next():
    model, order, alive, most = tiny_model("gpt_neox"), [], weakref.WeakSet(), []

    class Weak:
        pass

    def consume(site, activations):
        order.append(site)
        marker = Weak()
        activations.marker = marker  # lives as long as this tensor object
        alive.add(marker)
        most.append(len(alive))

    with capture(model, ["*"], consume=consume) as acts:
        model(some_ids())
        assert len(acts) == 0
        with pytest.raises(KeyError) as error:
            acts["hook_embed"]
    assert message(error) == "site 'hook_embed' was handed to `consume`, which is the only one to hold it."
    assert sorted(order) == sorted(site_names(model))
    assert [site for site in order if "resid" in site] == [site for site in site_names(model) if "resid" in site]
    assert max(most) == 1


def test_activations_are_freed_with_the_capture_that_held_them():
    model = tiny_model("gpt_neox")
    with capture(model, ["*"]) as acts:
        model(some_ids())
    held = weakref.ref(acts["ln_final.hook_normalized"])
    del acts
    assert held() is None


def test_asking_before_a_forward_pass_or_for_another_site_is_an_error_that_says_so():
    model = tiny_model("gpt_neox")
    with capture(model, ["hook_embed", "ln_final.hook_out"]) as acts:
        with pytest.raises(KeyError) as error:
            acts["hook_embed"]
        assert message(error) == "site 'hook_embed' holds nothing yet: run the model inside the `with` block first."
        model(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(KeyError) as error:
            acts["hook_embed"]
        assert message(error).startswith("site 'hook_embed' was not reached by the last forward pass")
        with pytest.raises(KeyError) as error:
            acts[POSTS[0]]
    captured = "captured are 'hook_embed', 'ln_final.hook_out'."
    assert message(error) == f"site 'blocks.0.hook_resid_post' is not captured here; {captured}"


def test_a_misspelt_site_is_refused_before_any_hook_is_set():
    model = tiny_model("gpt_neox")
    with pytest.raises(KeyError, match=r"no site named 'blocks.0.hook_resid_pst'; closest are 'blocks.0.hook_resid_po"):
        capture(model, ["hook_embed", "blocks.0.hook_resid_pst"])
    assert hooks_on(model) == 0


def test_a_capture_is_opened_once():
    acts = capture(tiny_model("gpt_neox"), "hook_embed")
    with acts, pytest.raises(RuntimeError, match=r"a capture is opened once: call capture\(\.\.\.\) again"):
        acts.open()
    assert hooks_on(acts.model) == 0


@torch.no_grad()
def test_captures_of_one_model_may_be_nested():
    model, ids = tiny_model("gpt_neox"), some_ids()
    with capture(model, POSTS) as outer:
        with capture(model, POSTS[:1]) as inner:
            model(ids)
        model(ids)
    assert torch.equal(outer[POSTS[0]], inner[POSTS[0]])
    assert hooks_on(model) == 0


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
@torch.no_grad()
def test_padding_on_the_right_is_exact_and_on_the_left_needs_the_mask(architecture):
    model, ids = tiny_model(architecture), some_ids(batch=1, length=9)
    padding = torch.ones(1, 4, dtype=torch.long)
    mask = torch.cat([torch.zeros_like(padding), torch.ones_like(ids)], 1)

    def last_block(ids, rows, **arguments):
        with capture(model, POSTS[-1]) as acts:
            model(ids, **arguments)
        return acts[POSTS[-1]][:, rows]

    truth = last_block(ids, slice(None))
    # the same sums in matrices of another length: rounding
    assert (last_block(torch.cat([ids, padding], 1), slice(0, 9)) - truth).abs().max() < 2e-6
    left = torch.cat([padding, ids], 1)
    assert (last_block(left, slice(4, None), attention_mask=mask) - truth).abs().max() < 5e-6
    assert (last_block(left, slice(4, None)) - truth).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sdpa_differs_from_eager_by_rounding_only(architecture):
    ids = some_ids(batch=2, length=64)
    held = []
    for attention in ("eager", "sdpa"):
        model = tiny_model(architecture, attention)
        with capture(model, ["*"]) as acts:
            model.base_model(ids)
        held.append(acts)
    worst = max(float((held[0][site] - held[1][site]).abs().max() / held[0][site].abs().max()) for site in held[0])
    print(f"sdpa against eager, {architecture}: {worst:.1e} of the largest activation of a site")  # pytest -rP
    # a few float32 roundings a layer (1.2e-7 each); measured 1e-7 to 6e-7
    assert 0 < worst < 4e-6
