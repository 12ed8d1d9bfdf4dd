"""A tiny model and a byte-level tokenizer with NFC, as GPT-NeoX has, ready to compress in milliseconds."""

import hashlib

import torch
from tiny_models import tiny_model
from tiny_text import some_texts, tiny_tokenizer
from tokenizers import AddedToken, normalizers
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from infocomp.checkpoints.integrity import weights_fingerprint
from infocomp.coding.codec import Coder

TOKENS, COLUMNS, POSITIONS = 340, 352, 32  # the model has more columns than the tokenizer has ids, as Pythia has


def neox_tokenizer():
    """All bytes, some words, NFC, a special token, and runs of spaces as added tokens."""
    tokenizer = tiny_tokenizer(some_texts(), TOKENS - 2, normalizers.NFC(), whole_alphabet=True)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    tokenizer.add_tokens([AddedToken("   ", normalized=True)])
    return tokenizer


def neox_model(seed: int = 0, scale: float = 0.3, dtype: torch.dtype = torch.float32, columns: int = COLUMNS):
    """Two layers of 32 dimensions whose predictions are far from uniform."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=columns, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=POSITIONS, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.to(dtype)


def neox_coder(seed: int = 0, dtype: torch.dtype = torch.float32) -> Coder:
    model = neox_model(seed, dtype=dtype)
    return Coder.of(model, neox_tokenizer(), weights_fingerprint(model), "tiny-neox")


def other_coder(architecture: str) -> Coder:
    """Another architecture, with a tokenizer that knows some letters only, so that much travels by escapes."""
    model = tiny_model(architecture, attention="sdpa")
    return Coder.of(model, tiny_tokenizer(), weights_fingerprint(model), architecture)


def noise(n: int, seed: int = 0) -> bytes:
    """Bytes that hold nothing."""
    return b"".join(hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(-(-n // 32)))[:n]
