"""`infocomp demo --post-training`: base → SFT → DPO on a planted preference, and what the comparison makes of it.

The demo's last checkpoint is the base. What must come out is known: preference information of held-out pairs rises in
the blocks of the model that learnt the preference, over that of the model tuned with the same steps on labels that
mean nothing, and stays 0 at the embedding, where both completions are the same tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from infocomp.execution.session import Bars
from infocomp.execution.table import read
from infocomp.studies.commands import demo_config, run_and_tell
from infocomp.studies.comparison_differences import DIFFERENCE
from infocomp.studies.post_training_case import DPO, FLIPPED, SFT, Case, CaseSettings, prepare_case
from infocomp.training.tuning import DPOSettings

FOLDER = "post-training"
CONTEXT = 256  # positions of the demo's model
PAIRS, TEXT = "docstring first", "held-out packages"
DPO_STEPS = 32  # twice as many wear the model's other text out: 3 bits a byte on held-out packages instead of 1.7


def post_training_and_tell(out: Path, settings: Sequence[str], wandb_offline: bool | None = None) -> int:
    """Run the demo where its checkpoints are missing, tune its last one, compare; returns the exit code.

    `settings` are of the comparison ("--set spectra.sample=1024").
    """
    base = last_checkpoint(out)
    if base is None:
        code = run_and_tell(demo_config(), [], out)
        base = last_checkpoint(out)
        if base is None:
            return code or 1
    folder = Path(out) / FOLDER
    report, case_settings, done = Bars(), CaseSettings(dpo=DPOSettings(steps=DPO_STEPS, checkpoints=3)), [0]
    report.note(f"tuning {base}: SFT, DPO, and DPO on labels that mean nothing")
    report.begin("tuning", case_settings.steps, "step")

    def advance(steps: int, _: int, stage: str) -> None:
        report.detail(stage)
        report.advance(steps - done[0])
        done[0] = steps

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps of this size are slower on two
    try:
        case = prepare_case(base, folder, case_settings, advance)
    finally:
        torch.set_num_threads(threads)
        report.end()
    code = run_and_tell(case_config(case), list(settings), folder, wandb_offline)
    if code == 0:
        print(known_answer(read(folder)))
    return code


def last_checkpoint(out: Path) -> Path | None:
    """The demo's last checkpoint, None where the demo has not trained to its end."""
    from infocomp.training.series import SeriesSettings, checkpoint_folder, is_checkpoint

    folder = checkpoint_folder(Path(out), SeriesSettings().steps)
    return folder if is_checkpoint(folder) else None


def case_config(case: Case) -> dict[str, Any]:
    """Base, SFT, DPO half-way and at its end, and the control, on held-out pairs and on text that no training saw."""
    later = [f"step{step}" for step in sorted(case.checkpoints[DPO])[1:]]
    last = {name: case.tuned[name] / f"step{max(steps)}" for name, steps in case.checkpoints.items()}
    return {
        "study": "comparison",
        "base": {"source": "single", "path": str(case.base), "name": "base"},
        "tuned": [
            {"source": "single", "path": str(last[SFT]), "name": SFT},
            {"source": "folder", "path": str(case.tuned[DPO]), "name": DPO, "revisions": later},
            {"source": "single", "path": str(last[FLIPPED]), "name": FLIPPED},
        ],
        "data": [
            {"name": PAIRS, "kind": "preference", "pairs": {"files": str(case.pairs)}, "context_length": CONTEXT},
            {
                "name": TEXT,
                "kind": "text",
                "builtin": "held_out",
                "in_training": "no",
                "context_length": CONTEXT,
                "bos": "window",
                "max_tokens": 24_000,
                "document_tokens": 400,
            },
        ],
        "estimator": {"draws": 2},
        "spectra": {"sample": 2048},
        "similarity": {"sample": 1024, "items": 192, "words": 384},
        "shepard": {"items": 160},
    }


def known_answer(table: pd.DataFrame) -> str:
    """Whether what was planted was found, in numbers: tuned minus base at the block where DPO moved most."""
    rows = table[(table["quantity"] == "preference_information") & (table["rows"] == "matched")]
    rows = rows[rows["estimator"].str.endswith(DIFFERENCE) & rows["site"].str.startswith("blocks.")]
    rows = rows[rows["corpus"] == PAIRS]
    of_dpo = rows[rows["model"] == DPO].sort_values("step")
    of_dpo = of_dpo[of_dpo["step"] == of_dpo["step"].max()]
    if of_dpo.empty:
        return "known answer: not measured"
    site = of_dpo.loc[of_dpo["value"].idxmax(), "site"]
    lines = [f"\nknown answer: preference information on held-out pairs, bits more than in the base, at {site}"]
    found: dict[str, pd.Series] = {}
    for name in (SFT, FLIPPED, DPO):
        here = rows[(rows["model"] == name) & (rows["site"] == site)].sort_values("step")
        if len(here):
            found[name] = here.iloc[-1]
            row = found[name]
            changed = "" if json.loads(row["settings"]).get("changed") else "   (not beyond chance)"
            lines.append(f"  {name:12} {row['value']:+.4f}  [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]{changed}")
    if DPO in found and FLIPPED in found:
        rises = found[DPO]["ci_low"] > max(0.0, found[FLIPPED]["ci_high"])
        lines.append("as planted: it rises in DPO, and not so in the control" if rises else "NOT as planted")
    return "\n".join(lines)
