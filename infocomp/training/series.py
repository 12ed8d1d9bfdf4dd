"""A Pythia in miniature: a small GPT-NeoX trained on one text, with log-spaced checkpoints as Hugging Face folders.

    OUT/checkpoints/step{N}/    config.json, model.safetensors (float32), tokenizer: ordinary Hugging Face folders
    OUT/training/               resume state, one row per step, tokens (see infocomp.training.state)

The tokenizer is a byte-level BPE trained on the same text. A training window is <|endoftext|> followed by consecutive
tokens, all of which are predicted; documents are separated by <|endoftext|> too. A window of held-out text read in the
same way has every token paid for.
"""

import hashlib
import io
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from infocomp.corpora.builtin import training_documents
from infocomp.corpora.documents import Document
from infocomp.training.optimizers import AdamWSettings, MuonSettings, OptimizerSettings
from infocomp.training.schedule import CheckpointSettings, ScheduleSettings, ShuffledOrder
from infocomp.training.state import STATE, Row, not_written, write_atomically
from infocomp.training.trainer import TRAINING, Hooks, Task, TrainerSettings, TrainingResult, train

CHECKPOINTS = "checkpoints"
SEPARATOR = "<|endoftext|>"
BYTES = 256

_MUON = MuonSettings(learning_rate=0.04, momentum=0.9, rest=AdamWSettings(learning_rate=0.015, beta2=0.95))


class SeriesSettings(BaseModel):
    """The model, its text and its training; the defaults take about 150 seconds on two cores.

    `vocabulary` counts <|endoftext|> and the 256 bytes; a step reads `batch` windows of `context_length` tokens.
    `text_bytes` is how much of the text is used at all, whole documents drawn by the seed; None is all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocabulary: Annotated[int, Field(gt=BYTES)] = 2048
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    context_length: Annotated[int, Field(ge=2)] = 256
    batch: PositiveInt = 12
    steps: PositiveInt = 512
    text_bytes: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    optimizer: OptimizerSettings = _MUON
    schedule: ScheduleSettings = ScheduleSettings(warmup_steps=10, decay="linear")
    clip_norm: PositiveFloat | None = 1.0
    checkpoints: CheckpointSettings = CheckpointSettings()
    state_every_seconds: PositiveFloat | None = 30.0
    state_every_steps: PositiveInt | None = None
    keep_states: bool = True

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.context_length

    @model_validator(mode="after")
    def _heads_divide(self) -> "SeriesSettings":
        if self.hidden_size % (8 * self.heads):
            raise ValueError(
                "hidden_size must be a multiple of 8 x heads, so that a quarter of each head can rotate in pairs; "
                f"it is {self.hidden_size} with {self.heads} heads"
            )
        return self

    def trainer(self) -> TrainerSettings:
        shared = TrainerSettings.model_fields.keys() & SeriesSettings.model_fields.keys()
        return TrainerSettings(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class SeriesResult:
    """Where the checkpoints lie, by step, and how the training ended."""

    checkpoints: dict[int, Path]
    tokens_per_step: int
    parameters: int
    training: TrainingResult


def train_series(
    settings: SeriesSettings,
    out: str | Path,
    progress: Callable[[int, int, float], None] | None = None,
    documents: Sequence[Document] | None = None,
) -> SeriesResult:
    """Train tokenizer and model on the documents (the built-in training text) and leave the checkpoints in OUT.

    Called again it goes on from where it was stopped, and does nothing where all is done. A diverged run comes back
    with status "failed" and the checkpoints before it. ValueError: the text is shorter than a window, or OUT holds
    another run. OSError: the disk is full.
    """
    out = Path(out)
    shutil.rmtree(_unfinished(out), ignore_errors=True)
    digest, tokenizer, tokens = _tokenised(settings, out, documents)
    windows = len(tokens) // settings.context_length
    if not windows:
        raise ValueError(
            f"the training text has {len(tokens)} tokens, context_length is {settings.context_length}: "
            "one whole window is needed; give more text or a shorter context"
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR, unk_token=SEPARATOR
    )
    separator = separator_id(tokenizer)
    model = _model(settings, tokenizer.get_vocab_size(), separator)

    def save(step: int, model: nn.Module) -> None:
        save_checkpoint(model, fast, checkpoint_folder(out, step), _unfinished(out))

    task = Task(
        model=model,
        loss=NextTokenLoss(tokens, settings.context_length, separator),
        order=ShuffledOrder(windows, settings.batch, settings.seed),
        tokens_per_step=settings.tokens_per_step,
        identity={"training text and vocabulary": digest, "context_length": settings.context_length}
        | {"batch": settings.batch, "heads": settings.heads},
    )
    hooks = Hooks(save=save, has=lambda step: is_checkpoint(checkpoint_folder(out, step)), progress=progress)
    result = train(task, settings.trainer(), out, hooks)
    steps = [step for step in settings.checkpoints.steps(settings.steps) if is_checkpoint(checkpoint_folder(out, step))]
    checkpoints = {step: checkpoint_folder(out, step) for step in steps}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return SeriesResult(checkpoints, settings.tokens_per_step, parameters, result)


def one_epoch(settings: SeriesSettings, out: str | Path, documents: Sequence[Document] | None = None) -> SeriesSettings:
    """The same settings with the most steps in which no window is read twice: what a prequential code allows.

    The text is tokenised into OUT, where `train_series` takes it up. ValueError: the text has less than one batch.
    """
    _, _, tokens = _tokenised(settings, Path(out), documents)
    windows = len(tokens) // settings.context_length
    if windows < settings.batch:
        raise ValueError(
            f"the training text has {windows} windows of {settings.context_length} tokens, a batch {settings.batch}: "
            "one epoch needs at least one whole batch; give more text or a smaller batch"
        )
    return settings.model_copy(update={"steps": windows // settings.batch})


@dataclass(frozen=True)
class SeriesRun:
    """A run of `train_series`, read back from its folder.

    rows: one for each step so far. saved: the steps of its checkpoints. tokens: the text that it trains on. tokenizer:
    the file of it. `order` and the three numbers say which windows of the text each step read.
    """

    rows: list[Row]
    saved: list[int]
    tokens: Int[Tensor, "tokens"]
    tokenizer: Path
    batch: int
    context_length: int
    seed: int

    @property
    def windows(self) -> int:
        return len(self.tokens) // self.context_length

    @cached_property
    def order(self) -> ShuffledOrder:
        return ShuffledOrder(self.windows, self.batch, self.seed)

    def presented(self, step: int) -> Int[Tensor, "batch context_length"]:
        """The tokens that are predicted in the update from `step` to `step` + 1, in the order of its windows."""
        return _windows(self.tokens, self.order(step), self.context_length)


def read_series(out: str | Path) -> SeriesRun:
    """What a run of `train_series` left in OUT/training, finished or not, as its state file tells it.

    FileNotFoundError: no series was trained there. ValueError: a state that cannot be read, or is of another training.
    """
    folder = Path(out) / TRAINING
    path = folder / STATE
    if not path.is_file():
        raise FileNotFoundError(f"{out} holds no {TRAINING}/{STATE}; give the folder of a run that trained a series")
    try:
        state: dict = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        identity = state["identity"]
        digest = identity["training text and vocabulary"]
        numbers = {name: identity[name] for name in ("batch", "context_length")} | {"seed": identity["settings.seed"]}
        rows, saved = state["rows"], state["saved"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no state of a series ({reason}); train the series anew") from None
    tokenizer, tokens = (folder / f"tokenizer-{digest}.json", folder / f"tokens-{digest}.npy")
    for file in (tokenizer, tokens):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is gone; call train_series again with the same text, which makes it anew")
    return SeriesRun(rows, saved, torch.from_numpy(np.load(tokens)).long(), tokenizer, **numbers)


@dataclass(frozen=True)
class NextTokenLoss:
    """Mean nats per token over windows of one token stream: window i is the separator, then tokens i·length … ."""

    tokens: Int[Tensor, "tokens"]
    length: int
    separator: int

    def __call__(self, model: nn.Module, windows: Int[Tensor, "batch"]) -> Tensor:
        targets = _windows(self.tokens, windows, self.length)
        inputs = functional.pad(targets[:, :-1], (1, 0), value=self.separator)
        assert isinstance(model, GPTNeoXForCausalLM)
        hidden = model.gpt_neox(inputs, use_cache=False).last_hidden_state
        return functional.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets.flatten())


def _windows(tokens: Int[Tensor, "tokens"], windows: Int[Tensor, "batch"], length: int) -> Int[Tensor, "batch length"]:
    return tokens[windows[:, None] * length + torch.arange(length)]


def separator_id(tokenizer: Tokenizer) -> int:
    number = tokenizer.token_to_id(SEPARATOR)
    assert number is not None
    return number


def checkpoint_folder(out: Path, step: int) -> Path:
    return out / CHECKPOINTS / f"step{step}"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has all that a checkpoint needs; folders appear whole, so one that has them is done."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def save_checkpoint(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path, unfinished: Path) -> None:
    """Write a Hugging Face folder under `unfinished` and rename it; one that holds the same files is left alone.

    OSError of one sentence where the disk is full, and nothing remains of the attempt.
    """
    assert isinstance(model, PreTrainedModel)
    temporary, replaced = unfinished / folder.name, unfinished / f"replaced-{folder.name}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _no_progress_bar():
            model.save_pretrained(temporary)
        _save_tokenizer(tokenizer, temporary)
        for path in temporary.iterdir():
            _flush(path)
        if folder.exists() and _contents(folder) != _contents(temporary):
            folder.rename(replaced)
        if not folder.exists():
            temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        raise not_written(folder, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers raises nothing narrower where the disk is full
        raise OSError(str(error)) from None


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _unfinished(out: Path) -> Path:
    """Where checkpoints are written before they are renamed: not beside them, where a reader might take one up."""
    return out / TRAINING / "unfinished"


@contextmanager
def _no_progress_bar():
    """transformers draws a bar for every file that it writes, across the caller's own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _tokenised(
    settings: SeriesSettings, out: Path, documents: Sequence[Document] | None
) -> tuple[str, Tokenizer, Int[Tensor, "tokens"]]:
    """Hash of text and vocabulary, tokenizer, and the text as tokens, from OUT where an earlier call left them."""
    texts = [document.text for document in (training_documents() if documents is None else documents)]
    if settings.text_bytes is not None:
        texts = _part_of(texts, settings.text_bytes, settings.seed)
    digest = _digest(texts, settings.vocabulary)
    tokenizer = _tokenizer(texts, settings.vocabulary, out / TRAINING / f"tokenizer-{digest}.json")
    return digest, tokenizer, _tokens(texts, tokenizer, out / TRAINING / f"tokens-{digest}.npy")


def _part_of(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """Texts drawn by the seed, in their own order, until `most` bytes are reached."""
    order: list[int] = np.random.default_rng(seed).permutation(len(texts)).tolist()
    drawn: list[int] = []
    total = 0
    for number in order:
        if total >= most:
            break
        drawn.append(number)
        total += len(texts[number].encode())
    return [texts[number] for number in sorted(drawn)]


def _digest(texts: Sequence[str], vocabulary: int) -> str:
    digest = hashlib.sha256(str(vocabulary).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:16]


def _tokenizer(texts: Sequence[str], vocabulary: int, path: Path) -> Tokenizer:
    """Byte-level BPE as Pythia's, trained once and kept; every byte is a token, so that no text is unknown."""
    if not path.is_file():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[SEPARATOR],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        write_atomically(path, tokenizer.to_str().encode())
    return Tokenizer.from_file(str(path))


def _tokens(texts: Sequence[str], tokenizer: Tokenizer, path: Path) -> Int[Tensor, "tokens"]:
    """All documents as one stream, a separator before each but the first; kept, since a resume needs it again."""
    if not path.is_file():
        separator = separator_id(tokenizer)
        pieces = [np.array([separator, *encoding.ids]) for encoding in tokenizer.encode_batch_fast(list(texts))]
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(pieces)[1:].astype(np.int32))
        write_atomically(path, buffer.getbuffer())
    return torch.from_numpy(np.load(path)).long()


def _model(settings: SeriesSettings, vocabulary: int, separator: int) -> GPTNeoXForCausalLM:
    """The model at step 0, drawn from the seed."""
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.hidden_size,
        max_position_embeddings=settings.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25},
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=separator,
        eos_token_id=separator,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = GPTNeoXForCausalLM(config)
    return model.eval()  # it has no dropout, and in train mode torch would draw the masks all the same
