"""Small texts and tokenizers that are made on the spot: no download, and few enough tokens for the tiny models."""

from collections.abc import Sequence

import numpy as np
from tiny_models import VOCABULARY
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from infocomp.corpora.tokens import TokenCorpus

BOS, PAD = "<s>", "<pad>"


def some_texts(n: int = 6, words: int = 120, seed: int = 0) -> list[str]:
    """Texts of words that come back, a few often and many seldom."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrst"))
    lexicon = ["".join(generator.choice(letters, generator.integers(1, 6))) for _ in range(80)]
    share = 1 / np.arange(1, 81)
    return [" ".join(generator.choice(lexicon, words, p=share / share.sum())) + ".\n" for _ in range(n)]


def tiny_tokenizer(
    texts: Sequence[str] | None = None,
    vocabulary: int = VOCABULARY,
    normalizer: normalizers.Normalizer | None = None,
    whole_alphabet: bool = False,
    words: bool = True,
    adds_bos: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE as Pythia's, offsets trimmed as there; without `words`, merges run over spaces and lines."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if whole_alphabet else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS, PAD], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(some_texts() if texts is None else list(texts), trainer)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, pad_token=PAD)


class SlowTokenizer(PreTrainedTokenizer):
    """One token a character, in Python: it knows no offsets."""

    def __init__(self, **settings):
        self.characters = {character: i for i, character in enumerate("abc ")}
        super().__init__(**settings)

    @property
    def vocab_size(self):
        return len(self.characters)

    def get_vocab(self):
        return dict(self.characters)

    def _tokenize(self, text, **_):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.characters.get(token, 0)

    def _convert_id_to_token(self, index):
        return list(self.characters)[index]


def token_corpus(lengths: Sequence[int], vocabulary: int = VOCABULARY, seed: int = 0) -> TokenCorpus:
    """Documents of these lengths, of random tokens from 2 up, a byte or more each."""
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    return TokenCorpus(
        name="made",
        tokens=generator.integers(2, vocabulary, total).astype(np.int32),
        byte_counts=generator.integers(1, 5, total).astype(np.int32),
        document_starts=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        document_names=tuple(f"made:{i}" for i in range(len(lengths))),
        fingerprint=f"{lengths} {vocabulary} {seed}",
    )
