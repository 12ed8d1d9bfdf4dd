"""Tiny random models of the architectures that the toolkit is tested with, built from configurations, no download."""

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Olmo2Config, Qwen3Config

VOCABULARY, DIM, LAYERS, HEADS = 97, 32, 3, 4
ARCHITECTURES = ("gpt_neox", "llama", "olmo2", "qwen3", "gpt2")


def tiny_model(architecture: str, attention: str = "eager", dtype: torch.dtype = torch.float32, seed: int = 0):
    """A causal language model of 3 layers and 32 dimensions whose norms and biases are not the trivial ones."""
    ends = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": VOCABULARY}
    sizes = {
        "hidden_size": DIM,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        **ends,
    }
    grouped = {**sizes, "num_key_value_heads": 2}
    config = {
        "gpt_neox": lambda: GPTNeoXConfig(**sizes, tie_word_embeddings=False),
        "llama": lambda: LlamaConfig(**grouped),
        "olmo2": lambda: Olmo2Config(**grouped),
        "qwen3": lambda: Qwen3Config(**grouped, head_dim=8),
        "gpt2": lambda: GPT2Config(n_embd=DIM, n_layer=LAYERS, n_head=HEADS, n_positions=64, **ends),
    }[architecture]()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.1 if parameter.ndim == 1 else 0.02) * torch.randn_like(parameter))
    return model.to(dtype)


def some_ids(batch: int = 2, length: int = 20, seed: int = 1) -> torch.Tensor:
    """Random token ids [batch, length]."""
    return torch.randint(2, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def hooks_on(model: torch.nn.Module) -> int:
    """Hooks and replaced forwards on all modules of a model, those of transformers itself aside."""
    count = 0
    for module in model.modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), *module._backward_hooks.values()]
        count += sum(hook.__module__ != "transformers.utils.output_capturing" for hook in hooks)
        count += "forward" in vars(module)
    return count
