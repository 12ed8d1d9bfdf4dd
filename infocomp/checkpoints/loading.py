"""One checkpoint from its folder into memory: raw weights, explicit dtype, nothing filled at random.

`Source` is what every series of checkpoints offers; a concrete source says which checkpoints there are and puts the
files of one into a folder. Loading, its refusals and the tokenizer are the same for all.
"""

import logging
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# transformers would ask a web service to convert a .bin repository, in a thread, and send it the repository's name.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

import infocomp.checkpoints.arithmetic_model  # noqa: F401  transformers learns the architecture
from infocomp.checkpoints.integrity import check_finite, missing_shards, weight_files, weights_fingerprint
from infocomp.checkpoints.schedule import Revision

logger = logging.getLogger(__name__)

VOCABULARIES = {
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
}
TOKENIZER_FILES = VOCABULARIES | {
    "tokenizer_config.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
}  # fmt: skip
CONFIG_FILES = {"config.json", "generation_config.json"}
# Buffers that old GPT-NeoX and GPT-2 checkpoints carry and that hold no weights.
OLD_BUFFERS = re.compile(r"(attention|attn)\.(bias|masked_bias)$|rotary_emb\.inv_freq$|(^|\.)position_ids$")


@dataclass(frozen=True)
class ListedFile:
    """One file of a checkpoint: its name, size in bytes, and the hash of its bytes ("" where nobody has read it)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a series, as a listing knows it: no weight has been read into memory or downloaded."""

    model: str
    revision: Revision
    commit: str | None
    path_or_repo: str
    files: tuple[ListedFile, ...]
    files_fingerprint: str

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.revision.name} of {self.model}"

    @property
    def weight_files(self) -> list[ListedFile]:
        """The files that hold the weights."""
        names = set(weight_files(file.name for file in self.files))
        return [file for file in self.files if file.name in names]

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight files: what a download brings, give or take a tokenizer."""
        return sum(file.size for file in self.weight_files)

    @property
    def needed_files(self) -> list[ListedFile]:
        """Weights in one format, their index, configuration and tokenizer."""
        keep = {file.name for file in self.weight_files} | CONFIG_FILES | TOKENIZER_FILES
        suffix = ".safetensors" if any(name.endswith(".safetensors") for name in keep) else ".bin"
        return [file for file in self.files if file.name in keep or file.name.endswith(f"{suffix}.index.json")]


@dataclass(frozen=True)
class Loaded:
    """A model in memory, in eval mode, with the fingerprint of the tensors that it really holds."""

    model: Any
    fingerprint: str
    checkpoint: Checkpoint
    parameters: int


class Source(ABC):
    """A series of checkpoints of one model."""

    @abstractmethod
    def list(self) -> "Checkpoints":
        """The chosen checkpoints in training order. No weights are downloaded; local ones are hashed."""

    @abstractmethod
    def folder(self, checkpoint: Checkpoint, files: Sequence[ListedFile]) -> Path:
        """A local folder that holds these files of the checkpoint."""

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The folder with everything that `open` needs; a download may take place here, ahead of time if wanted."""
        names = [file.name for file in checkpoint.files]
        if not weight_files(names):
            raise ValueError(
                f"{checkpoint.name} holds no weights (only {shown(names) or 'an empty folder'}): "
                f"its upload or its writing did not end; leave it out"
            )
        if missing := missing_shards(file.name for file in checkpoint.weight_files):
            raise ValueError(
                f"{checkpoint.name} lacks {shown(missing)}: its upload or its writing did not end; leave it out"
            )
        return self.folder(checkpoint, checkpoint.needed_files)

    def open(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        attention: str = "sdpa",
    ) -> Loaded:
        """The model of a checkpoint with raw weights, in eval mode.

        Raises ValueError, in one sentence, for missing or mismatched tensors, a damaged file, NaN or infinite weights.
        """
        return load(self.fetch(checkpoint), checkpoint, dtype, device, attention)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the first checkpoint that has one."""
        for checkpoint in self._with_tokenizer():
            files = [file for file in checkpoint.files if file.name in TOKENIZER_FILES | CONFIG_FILES]
            folder = self.folder(checkpoint, files)
            try:
                return AutoTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # anything a damaged tokenizer file may cause
                raise ValueError(f"the tokenizer of {checkpoint.name} cannot be read: {first_line(error)}") from error
        checkpoints = self.list()
        raise FileNotFoundError(
            f"none of the {len(checkpoints)} checkpoints of {checkpoints[0].model} has a tokenizer "
            f"({', '.join(sorted(VOCABULARIES)[:3])}, …): put its files beside the first one's config.json"
        )

    def _with_tokenizer(self) -> Iterator[Checkpoint]:
        for checkpoint in self.list():
            if VOCABULARIES & {file.name for file in checkpoint.files}:
                yield checkpoint

    def config(self) -> PretrainedConfig:
        """The configuration of the first checkpoint that has one: width, layers, vocabulary, without its weights."""
        checkpoints = self.list()
        checkpoint = next((c for c in checkpoints if any(f.name == "config.json" for f in c.files)), checkpoints[0])
        files = [file for file in checkpoint.files if file.name in CONFIG_FILES]
        return read_config(self.folder(checkpoint, files), checkpoint)

    def close(self, checkpoint: Checkpoint) -> None:  # noqa: B027
        """Says that a checkpoint's files are no longer needed; a source that downloaded them may free the disk."""


Checkpoints = list[Checkpoint]


def read_config(folder: Path, checkpoint: Checkpoint) -> PretrainedConfig:
    """The configuration in a folder; ValueError where it is missing, damaged or of an architecture not known."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{checkpoint.name} has no config.json: it is not a Hugging Face checkpoint")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # OSError, ValueError, KeyError and more, by what is wrong with the file
        raise ValueError(f"config.json of {checkpoint.name} cannot be used: {first_line(error)}") from error


def load(
    folder: Path, checkpoint: Checkpoint, dtype: torch.dtype, device: str | torch.device, attention: str
) -> Loaded:
    """See `Source.open`; the files lie in `folder`."""
    config = read_config(folder, checkpoint)
    try:
        with _quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report names them; they are refused below
                local_files_only=True,
            )
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, UnpicklingError, OSError, EOFError, …: whatever a damaged file causes
        files = shown([file.name for file in checkpoint.weight_files])
        raise ValueError(
            f"{checkpoint.name} cannot be loaded from {folder} ({files}): {first_line(error)}; "
            f"a damaged file wants to be deleted and fetched or written again"
        ) from error
    model, report = loaded
    _refuse(report, checkpoint)
    check_finite(model, checkpoint.name)
    fingerprint = weights_fingerprint(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Loaded(model.to(device).eval(), fingerprint, checkpoint, parameters)


def _refuse(report: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Missing or mismatched tensors are a ValueError that names them; tensors without a place, a log line."""
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"checkpoint {checkpoint.name} lacks {_counted(missing)} ({shown(missing)}); "
            f"refusing to fill them at random"
        )
    if mismatched := sorted(report["mismatched_keys"]):
        shapes = [
            f"{key}: {tuple(stored)} in the file, {tuple(wanted)} by config.json" for key, stored, wanted in mismatched
        ]
        raise ValueError(
            f"checkpoint {checkpoint.name} has {_counted(mismatched)} of another shape ({shown(shapes)}); "
            f"refusing to fill them at random"
        )
    extra = sorted(key for key in report["unexpected_keys"] if not OLD_BUFFERS.search(key))
    if extra:
        logger.warning(
            "%s holds %s that its model has no place for (%s); they are unused",
            checkpoint.name,
            _counted(extra),
            shown(extra),
        )


def _counted(things: Sequence[Any]) -> str:
    return f"{len(things)} tensor{'s' if len(things) > 1 else ''}"


def shown(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and a sign that there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a sentence of our own."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own table of keys and bar per tensor: what matters is an error or a log line of ours."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an environment variable may fix the bars on or off, and says so
        if bar:
            transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bar:
                transformers_logging.enable_progress_bar()
