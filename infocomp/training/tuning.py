"""Post-training of a checkpoint by trl: supervised fine-tuning, and direct preference optimisation.

SFT lowers the nats of completions after their prompts. DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) lowers

    − log σ(β [log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected)])

with π_ref the checkpoint that it starts from. Both are those of `trl` (an extra: pip install 'infocomp[post-training]')
on the CPU in float32, with AdamW and a learning rate that is constant after its warm-up. A text is
"<begin of text>prompt, blank line, completion<end of text>", with the tokenizer's own two tokens.

    OUT/step{N}/       checkpoints as any other, with the tokenizer; N counts updates of this stage
    OUT/tuning.json    what was tuned, from what, on which texts

A stage whose checkpoints all stand is not done again. One that was killed begins again from its first step and
replaces what it had left; on one thread that gives the same bytes. Nothing is sent anywhere, and global settings that
trl changes (random states, verbosity, bars) are put back.
"""

import contextlib
import hashlib
import json
import logging
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import torch
from huggingface_hub import constants
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging

from infocomp.checkpoints.integrity import check_finite
from infocomp.training.planted_preference import BETWEEN, PlantedPair
from infocomp.training.series import is_checkpoint, save_checkpoint
from infocomp.training.state import write_atomically

ABOUT = "tuning.json"
Progress = Callable[[int, int], None]
"""(updates made, updates of the stage)"""


class StageSettings(BaseModel):
    """How long, on how many texts a step and how fast; `checkpoints` are kept at halves of `steps`, the last with them.

    >>> StageSettings(steps=40, batch=8, learning_rate=1e-3, checkpoints=3).saved_steps
    [10, 20, 40]
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt = 5
    checkpoints: PositiveInt = 4
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def saved_steps(self) -> list[int]:
        return sorted({max(self.steps // 2**halving, 1) for halving in range(self.checkpoints)})

    @property
    def texts(self) -> int:
        """How many texts or pairs a stage reads, each once."""
        return self.steps * self.batch


class SFTSettings(StageSettings):
    """Supervised fine-tuning; a step reads `batch` texts."""

    steps: PositiveInt = 40
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 5e-4


class DPOSettings(StageSettings):
    """Direct preference optimisation; a step reads `batch` pairs. beta: how strongly the reference holds back."""

    steps: PositiveInt = 64
    batch: PositiveInt = 8
    learning_rate: PositiveFloat = 5e-4
    beta: PositiveFloat = 0.05


@dataclass(frozen=True)
class Text:
    """A prompt and what follows it after a blank line."""

    prompt: str
    completion: str


def tune_sft(
    start: str | Path, texts: Sequence[Text], out: str | Path, settings: SFTSettings | None = None,
    progress: Progress | None = None,
) -> dict[int, Path]:  # fmt: skip
    """Checkpoints by step of a supervised fine-tuning on the texts, in their order.

    ModuleNotFoundError: trl is not installed. ValueError: fewer texts than the steps read, a text longer than the
    context, weights that stopped being finite, or OUT holds another tuning. OSError: the disk is full.
    """
    settings = settings or SFTSettings()
    rows = [{"prompt": text.prompt, "completion": BETWEEN + text.completion} for text in texts]
    return _tune("sft", Path(start), rows, Path(out), settings, progress)


def tune_dpo(
    start: str | Path, pairs: Sequence[PlantedPair], out: str | Path, settings: DPOSettings | None = None,
    progress: Progress | None = None,
) -> dict[int, Path]:  # fmt: skip
    """Checkpoints by step of a preference optimisation on the pairs, in their order; errors as `tune_sft`."""
    settings = settings or DPOSettings()
    rows = [
        {"prompt": pair.prompt, "chosen": BETWEEN + pair.chosen, "rejected": BETWEEN + pair.rejected} for pair in pairs
    ]
    return _tune("dpo", Path(start), rows, Path(out), settings, progress)


def _tune(
    method: str, start: Path, rows: list[dict[str, str]], out: Path, settings: StageSettings, progress: Progress | None
) -> dict[int, Path]:
    folders = {step: out / f"step{step}" for step in settings.saved_steps}
    if len(rows) < settings.texts:
        raise ValueError(
            f"{len(rows)} {'pairs' if method == 'dpo' else 'texts'} were given and {settings.steps} steps of "
            f"{settings.batch} read {settings.texts}; give more, or take fewer steps"
        )
    rows = rows[: settings.texts]
    _claim(out, {"method": method, "start": _digest_of(start), "texts": _digest(rows)} | settings.model_dump())
    if not all(is_checkpoint(folder) for folder in folders.values()):
        with _undisturbed():
            _train(method, start, rows, folders, settings, progress)
    elif progress is not None:
        progress(settings.steps, settings.steps)
    return folders


def _train(
    method: str,
    start: Path,
    rows: list[dict[str, str]],
    folders: dict[int, Path],
    settings: StageSettings,
    progress: Progress | None,
) -> None:
    trl = _trl()
    tokenizer, kept_tokenizer = (AutoTokenizer.from_pretrained(start, local_files_only=True) for _ in range(2))
    for name in ("is_local", "local_files_only"):  # said of this loading, not of the tokenizer
        kept_tokenizer.init_kwargs.pop(name, None)
    model, kept = _model(start), _model(start)  # trl alters configuration and forward of the model that it trains
    context = kept.config.max_position_embeddings
    begin = tokenizer.bos_token or tokenizer.eos_token or ""
    rows = [row | {"prompt": begin + row["prompt"]} for row in rows]
    _refuse_long(rows, tokenizer, context)

    class Steps(TrainerCallback):
        """Saves checkpoints and tells progress."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            if step in folders:
                kept.load_state_dict(model.state_dict())
                check_finite(kept, f"{folders[step]}")
                save_checkpoint(kept, kept_tokenizer, folders[step], folders[step].parent / "unfinished")
            if progress is not None:
                progress(step, settings.steps)

    with tempfile.TemporaryDirectory() as scratch:
        shared: dict[str, Any] = {
            "output_dir": scratch,
            "max_steps": settings.steps,
            "per_device_train_batch_size": settings.batch,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": settings.warmup_steps,
            "optim": "adamw_torch",
            "weight_decay": 0.0,
            "seed": settings.seed,
            "train_sampling_strategy": "sequential",
            "max_length": context,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
            "report_to": "none",
            "logging_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        given: dict[str, Any] = {
            "model": model,
            "train_dataset": datasets.Dataset.from_list(rows),
            "processing_class": tokenizer,
            "callbacks": [Steps()],
        }
        if isinstance(settings, DPOSettings):
            arguments = trl.DPOConfig(beta=settings.beta, **shared)
            trainer = trl.DPOTrainer(ref_model=_model(start), args=arguments, **given)
        else:
            trainer = trl.SFTTrainer(args=trl.SFTConfig(completion_only_loss=True, **shared), **given)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _trl() -> Any:
    try:
        trl = import_module("trl")
        _ = trl.SFTTrainer, trl.DPOTrainer  # imported where they are first asked for
        return trl
    except (ImportError, RuntimeError) as missing:  # RuntimeError: a lazy import of trl that failed
        name = getattr(missing, "name", None) or str(missing).splitlines()[0]
        raise ModuleNotFoundError(
            f"tuning a model needs a package that is not installed ({name}); pip install 'infocomp[post-training]'"
        ) from missing


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _refuse_long(rows: Sequence[dict[str, str]], tokenizer: Any, context: int) -> None:
    """ValueError for a text that would be cut: half a completion is another one."""
    for name in ("completion", "chosen", "rejected"):
        texts = [row["prompt"] + row[name] for row in rows if name in row]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids] if texts else []
        if lengths and max(lengths) >= context:
            raise ValueError(
                f"text {int(np.argmax(lengths))} has {max(lengths)} tokens with its prompt, and the model reads "
                f"{context} with the end of text; leave such texts out"
            )


def _claim(out: Path, identity: dict[str, Any]) -> None:
    """Write what OUT is for; ValueError where it is for something else."""
    path = out / ABOUT
    if path.is_file():
        there = json.loads(path.read_text("utf-8"))
        for name in sorted(identity.keys() | there.keys()):
            if there.get(name) != identity.get(name):
                raise ValueError(
                    f"{out} holds another tuning: {name} is {there.get(name)} there and {identity.get(name)} here; "
                    "give another folder, or delete that one"
                )
    else:
        write_atomically(path, json.dumps(identity, indent=1).encode())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _digest_of(folder: Path) -> str:
    """Hash of the weights and tokenizer of a checkpoint; FileNotFoundError where it is none."""
    if not is_checkpoint(folder):
        raise FileNotFoundError(
            f"{folder} is no checkpoint with config.json, model.safetensors and tokenizer.json; give the folder of one"
        )
    digest = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No word on the console, nothing sent, and the generators that trl seeds as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    dataset_bars, offline = datasets.are_progress_bars_disabled(), constants.HF_HUB_OFFLINE
    loggers = {name: logging.getLogger(name) for name in ("trl", "accelerate", "datasets")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers_logging.set_verbosity_error()
            transformers_logging.disable_progress_bar()
            datasets.disable_progress_bars()
            constants.HF_HUB_OFFLINE = True  # trl would report its use
            for logger in loggers.values():
                logger.setLevel(logging.ERROR)
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        transformers_logging.set_verbosity(verbosity)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an environment variable may fix the bars, and says so
            if bars:
                transformers_logging.enable_progress_bar()
            if not dataset_bars:
                datasets.enable_progress_bars()
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
