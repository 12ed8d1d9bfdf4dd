"""Models and texts of the benchmarks: a Pythia-70M-shaped GPT-NeoX with random weights, real tokens of real text."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from infocomp.corpora.builtin import training_documents

VOCABULARY = 50_304


def pythia_70m(hidden_size: int = 512, layers: int = 6, heads: int = 8) -> GPTNeoXForCausalLM:
    """Pythia 70M's shape by default, random weights, sdpa attention."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval()


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of the models' vocabulary, trained on the built-in text; kept in the temporary folder."""
    path = Path(tempfile.gettempdir()) / f"infocomp-benchmark-bpe-{VOCABULARY}.json"
    if not path.exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        bpe.train_from_iterator((document.text for document in training_documents()), trainer)
        bpe.save(str(path))
    return PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<|endoftext|>", eos_token="<|endoftext|>")
