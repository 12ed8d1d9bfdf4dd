"""A case of post-training with a known answer: base → SFT → DPO, and a DPO on labels that mean nothing.

The base is a checkpoint of the demo; the preference is planted (`training.planted_preference`): the same lines of a
function in two orders. What must come out, on functions of packages that no training saw:

    base          knows the text as it is written (docstring first), no preference was taught
    sft           learns prompts and both orders, half of the functions each: it has no leaning
    dpo           prefers the docstring's place: preference information rises at the later layers
    dpo-flipped   the same steps with the labels of half of every batch exchanged: it stays where the SFT was

At `hook_embed` preference information is 0 in all of them, since both completions are the same tokens.

    OUT/tuned/{sft,dpo,dpo-flipped}/step{N}    checkpoints
    OUT/pairs.jsonl                            held-out pairs: prompt, chosen, rejected
    OUT/training_pairs.jsonl                   those that were trained on
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from tokenizers import Tokenizer

from infocomp.corpora.builtin import held_out_documents, training_documents
from infocomp.training.planted_preference import PlantedSettings, half_flipped, planted_pairs, write_pairs
from infocomp.training.tuning import DPOSettings, SFTSettings, Text, tune_dpo, tune_sft

SFT, DPO, FLIPPED = "sft", "dpo", "dpo-flipped"
STAGES = (SFT, DPO, FLIPPED)
TUNED = "tuned"
RAW_TEXT = "held_out"


class CaseSettings(BaseModel):
    """What is planted and how it is taught; `most_pairs` bounds the held-out pairs, `seed` draws which labels flip."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    planted: PlantedSettings = PlantedSettings()
    sft: SFTSettings = SFTSettings()
    dpo: DPOSettings = DPOSettings()
    most_pairs: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def steps(self) -> int:
        """Updates of the three tunings together."""
        return self.sft.steps + 2 * self.dpo.steps


@dataclass(frozen=True)
class Case:
    """Where the case lies: the base, a folder of checkpoints for each tuned model, held-out pairs.

    checkpoints: by name and step. raw_text: the name of the built-in text that no training saw.
    """

    base: Path
    tuned: dict[str, Path]
    checkpoints: dict[str, dict[int, Path]]
    pairs: Path
    training_pairs: Path
    raw_text: str = RAW_TEXT


def prepare_case(
    base_checkpoint: str | Path,
    out: str | Path,
    settings: CaseSettings | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Case:
    """Tune the base three times into OUT; what is done is not done again, a stage that was killed begins again.

    progress: (updates made, updates of all, name of the stage). Errors are those of `tune_sft` and `planted_pairs`.
    """
    base, out, settings = Path(base_checkpoint), Path(out), settings or CaseSettings()
    if not (base / "tokenizer.json").is_file():
        raise FileNotFoundError(f"{base} is no checkpoint with a tokenizer.json; give the folder of one (step512)")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    wanted = max(settings.sft.texts, settings.dpo.texts)
    pairs = planted_pairs(training_documents(), tokenizer, settings.planted, wanted)
    held_out = planted_pairs(held_out_documents(), tokenizer, settings.planted, settings.most_pairs)
    folders = {name: out / TUNED / name for name in STAGES}
    done = 0

    def told(stage: str) -> Callable[[int, int], None]:
        def tell(step: int, steps: int) -> None:
            if progress is not None:
                progress(done + step, settings.steps, stage)

        return tell

    # the seeds differ, so that the order that SFT saw says nothing about the label that DPO flips
    both_orders = half_flipped(pairs, settings.sft.batch, 2 * settings.seed)
    texts = [Text(pair.prompt, pair.chosen) for pair in both_orders]
    found = {SFT: tune_sft(base, texts, folders[SFT], settings.sft, told(SFT))}
    start, done = found[SFT][settings.sft.steps], settings.sft.steps
    found[DPO] = tune_dpo(start, pairs, folders[DPO], settings.dpo, told(DPO))
    done += settings.dpo.steps
    flipped = half_flipped(pairs, settings.dpo.batch, 2 * settings.seed + 1)
    found[FLIPPED] = tune_dpo(start, flipped, folders[FLIPPED], settings.dpo, told(FLIPPED))
    return Case(
        base=base,
        tuned=folders,
        checkpoints=found,
        pairs=write_pairs(out / "pairs.jsonl", held_out),
        training_pairs=write_pairs(out / "training_pairs.jsonl", pairs),
    )
