"""What the terminal says of a text memorization study: a line a model, and in words what rises, peaks and falls."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from infocomp.execution.store import Store
from infocomp.studies.planning import duration
from infocomp.studies.text_memorization_rows import LOSS, SAME, against
from infocomp.studies.text_memorization_units import LARGER, WHOLE, Trained
from infocomp.training.many import choose, cores


@dataclass(frozen=True)
class TextPlan:
    """What a run would train, and about how long that takes here."""

    lines: Sequence[str]

    def text(self) -> str:
        """For the terminal."""
        return "\n".join(self.lines)


def text_plan(trained: Trained, units: Sequence[str], out: Path, workers: int | None, device: torch.device) -> TextPlan:
    """Units, samples, and the time that a few timed steps promise."""
    text, recipes = trained.text, trained.recipes
    done = sum(Store(out).state(unit) == "done" for unit in units)
    choice = choose(list(recipes.values()), workers or cores(), device)
    seconds = min(choice.seconds.values(), default=15.0)
    words = "under 15 s" if not choice.seconds else f"about {duration(seconds)}"
    parts = {"members": text.members, "never trained": text.unseen, "siblings": text.siblings}
    parts |= {"reference": text.reference}
    kinds = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    return TextPlan(
        [
            f"units       {len(units)} ({done} done), {len(recipes)} trainings",
            f"text        {text.name}: {kinds} samples of {trained.shape.length} tokens, {text.vocabulary} entries, "
            f"{text.bytes_per_token:.2f} bytes a token, {text.duplicates:,} duplicates left out",
            f"model       {trained.shape.name}, {trained.counts.total:,} parameters",
            f"time        {words} of training here, without reading the text and drawing",
        ]
    )


def text_summary(table: pd.DataFrame) -> str:
    """One line a model, then what was seen over all of them."""
    rows = table[(table["status"] == "ok") & (table["draw"] == "mean")].copy()
    known = [json.loads(text) if isinstance(text, str) else {} for text in rows["settings"]]
    rows["samples"] = [settings.get("samples") for settings in known]
    rows["load"] = [float(settings.get("load") or "nan") for settings in known]
    sized = rows[rows["samples"].notna()]
    if sized.empty:
        return "no model was measured"
    whole = against(WHOLE)
    columns = {
        "train": ("bits_per_token", "train"),
        "test": ("bits_per_token", "test"),
        "sibling": ("bits_per_token", "test" + SAME),
        "whole": ("memorized_bits", whole),
        "larger": ("memorized_bits", against(LARGER)),
        "siblings": ("memorized_bits", whole + SAME),
        "AUC": ("membership_auc", LOSS),
        "AUC siblings": ("membership_auc", LOSS + SAME),
        "extracted": ("extraction_rate", ""),
    }
    lines = []
    for samples, group in sized.groupby("samples"):
        line = {"samples": int(float(str(samples))), "load": f"{group['load'].iloc[0]:.2f}".replace("nan", "")}
        for title, (quantity, label) in columns.items():
            found = group.loc[(group["quantity"] == quantity) & (group["label"] == label), "value"]
            line[title] = "" if found.empty else _number(quantity, float(found.iloc[0]))
        lines.append(line)
    grid = pd.DataFrame(lines).to_string(index=False)
    about = (
        "train, test, sibling: bits per token of members, of never-trained samples of other documents, of the same;\n"
        "whole, larger: memorized bits against these references, the clipped sum less that of other documents; "
        "siblings: whole, less that of the same documents"
    )
    said = [_peak(sized, "bits_per_token", "test", "test loss", "bits/token")]
    labels = (whole, against(LARGER), whole + SAME, against(LARGER) + SAME)
    labels = [label for label in labels if (sized["label"] == label).any()]
    said += [_peak(sized, "memorized_bits", label, f"memorized bits {label}", "bits") for label in labels]
    return "\n".join(["", grid, "", about, *said])


def _number(quantity: str, value: float) -> str:
    return f"{value:,.0f}" if quantity == "memorized_bits" else f"{value:.3f}"


def _place(row: pd.Series) -> str:
    """The load of a model, or its samples where the load is not known."""
    return f"load {row['load']:.2f}" if row["load"] == row["load"] else f"{int(row['samples']):,} samples"


def _peak(rows: pd.DataFrame, quantity: str, label: str, what: str, unit: str) -> str:
    """Where a curve over the sizes is highest, and whether it is lower on both sides of that, by the intervals."""
    curve = rows[(rows["quantity"] == quantity) & (rows["label"] == label)].sort_values("samples")
    curve = curve[curve["ci_low"].notna()]
    if len(curve) < 3:
        return f"{what}: too few models with an interval to say how it goes"
    values = curve["value"].to_numpy()
    place = int(values.argmax())
    top = curve.iloc[place]
    before, after = curve.iloc[int(values[: place + 1].argmin())], curve.iloc[place + int(values[place:].argmin())]
    rises, falls = (bool(valley["ci_high"] < top["ci_low"]) for valley in (before, after))
    ways = {
        (True, True): "rises to a peak and falls again",
        (True, False): "rises, and does not fall beyond its intervals",
        (False, True): "falls, and does not rise beyond its intervals",
        (False, False): "shows no peak beyond its intervals",
    }
    path = " → ".join(f"{row['value']:,.4g} at {_place(row)}" for row in (before, top, after))
    return f"{what} {ways[rises, falls]}: {path}, {unit}; highest for {int(top['samples'])} samples"
