"""Revision names of checkpoint series: name → (stage, ingredient, step, tokens), their order, a choice among them.

Tokens are the training tokens read within the revision's own stage: step times the batch where the batch is known,
otherwise the rounded count that some names carry, otherwise None. Names seen in the wild:

    Pythia           step1000                         OLMo-1         step1000-tokens4B
    OLMo-2, stage 1  stage1-step150-tokens1B          OLMo-2 stage 2 stage2-ingredient1-step11931-tokens50B
    Olmo 3           stage1-step1413814               FineWeb runs   step-001000-2BT
    stanford-crfm    checkpoint-400                   HF Trainer     checkpoint-500
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Choice = str | Sequence[str | int] | dict[str, Any]
"""Which revisions to take: "all", a list of names or steps, {"from", "to", "every"}, or {"log_spaced": n}."""

PATTERN = re.compile(
    r"(?:(?P<stage>stage\d+)-)?(?:ingredient(?P<ingredient>\d+)-)?(?:step|checkpoint)[-_]?(?P<step>\d+)"
    r"(?:-(?:tokens)?(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[KMBT])T?)?"
)
UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

# Tokens a step, by repository name. Pythia: README of EleutherAI/pythia ("-v0" names are on the same scale).
# Olmo 3: the checkpoint lists of OLMo-core; they hold for stage 1, later stages have other batches.
TOKENS_PER_STEP = (
    (re.compile(r"pythia-\d.*"), 2_097_152),
    (re.compile(r"olmo-3-\d{4}-7b"), 4_194_304),
    (re.compile(r"olmo-3-\d{4}-32b"), 8_388_608),
)


@dataclass(frozen=True)
class Revision:
    """One point of a training run. `tokens` counts within the stage; `tokens_rounded`: the name gave it, rounded."""

    name: str
    stage: str | None = None
    ingredient: int | None = None
    step: int | None = None
    tokens: int | None = None
    tokens_rounded: bool = False

    @property
    def order(self) -> tuple[str, int, float, str]:
        """Sort key: stage, ingredient, step; a name without a step ("main") comes last."""
        step = math.inf if self.step is None else self.step
        return ("~" if self.step is None else self.stage or "", self.ingredient or 0, step, self.name)


def tokens_per_step(repo: str) -> int | None:
    """Tokens a training step of a known family, told from the repository's name; None for a family not known here.

    >>> tokens_per_step("EleutherAI/pythia-70m-deduped")
    2097152
    """
    name = repo.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((tokens for pattern, tokens in TOKENS_PER_STEP if pattern.fullmatch(name)), None)


def parse_revision(name: str, family_tokens_per_step: int | None = None) -> Revision:
    """The revision that a name stands for; a name without a step (as "main") keeps its name and nothing else.

    >>> parse_revision("step1000", 2_097_152)
    Revision(name='step1000', stage=None, ingredient=None, step=1000, tokens=2097152000, tokens_rounded=False)
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        return Revision(name)
    stage, ingredient, step = match["stage"], match["ingredient"], int(match["step"])
    tokens, rounded = None, False
    if family_tokens_per_step is not None and stage in (None, "stage1"):
        tokens = step * family_tokens_per_step
    elif match["tokens"]:
        tokens, rounded = round(float(match["tokens"]) * UNITS[match["unit"]]), True
    return Revision(name, stage, None if ingredient is None else int(ingredient), step, tokens, rounded)


def select(revisions: Sequence[Revision], choice: Choice, series: str = "the series") -> list[Revision]:
    """The chosen revisions, in training order. A name that is not there, or a choice of nothing, is a ValueError.

    - "all": every revision whose name holds a step; where none does, all of them.
    - a list: names, or steps where a step names one revision only.
    - {"from": a, "to": b, "every": k}: from a to b, both included, each a name or a step, and at least k steps apart.
    - {"log_spaced": n}: n revisions, the first and the last kept, log(step + 1) evenly spaced between.
    """
    stepped = sorted((revision for revision in revisions if revision.step is not None), key=lambda r: r.order)
    if isinstance(choice, str):
        if choice != "all":
            raise ValueError(
                f"choice is {choice!r}: write 'all', a list, a range or log_spaced (a single name as [{choice!r}])"
            )
        return stepped or sorted(revisions, key=lambda r: r.order)
    if isinstance(choice, Sequence):
        found = {_find(revisions, wanted, series) for wanted in choice}
        if not found:
            raise ValueError(
                f"choice is an empty list: name at least one of the {len(revisions)} revisions of {series}"
            )
        return sorted(found, key=lambda r: r.order)
    if set(choice) == {"log_spaced"}:
        return _log_spaced(stepped, choice["log_spaced"], series)
    if choice and set(choice) <= {"from", "to", "every"}:
        return _range(stepped, choice.get("from"), choice.get("to"), choice.get("every", 1), series)
    given = ", ".join(map(repr, choice)) or "no keys"
    raise ValueError(f"choice has {given}: from, to and every are known, or log_spaced alone")


def _find(revisions: Sequence[Revision], wanted: str | int, series: str) -> Revision:
    """The one revision with this name or step."""
    found = [
        revision for revision in revisions if wanted == (revision.step if isinstance(wanted, int) else revision.name)
    ]
    if len(found) > 1:
        names = ", ".join(revision.name for revision in found)
        raise ValueError(f"step {wanted} of {series} is {len(found)} revisions ({names}): give the full name")
    if not found:
        what = f"step {wanted}" if isinstance(wanted, int) else f"revision {wanted!r}"
        raise ValueError(f"no {what} in {series}; closest are {', '.join(map(repr, _nearest(revisions, wanted)))}")
    return found[0]


def _nearest(revisions: Sequence[Revision], wanted: str | int) -> list[str]:
    """The three closest names: by step, first those of the same stage, where a step is given; by spelling otherwise."""
    target = Revision("", step=wanted) if isinstance(wanted, int) else parse_revision(wanted)
    stepped = [revision for revision in revisions if revision.step is not None]
    if target.step is None or not stepped:
        return difflib.get_close_matches(str(wanted), [revision.name for revision in revisions], n=3, cutoff=0.0)
    step = target.step
    return [
        r.name for r in sorted(stepped, key=lambda r: (r.stage != target.stage, abs((r.step or 0) - step), r.order))[:3]
    ]


def _range(stepped: Sequence[Revision], start: str | int | None, end: str | int | None, every: int, series: str):
    """Revisions from start to end, each at least `every` steps after the one kept before it in the same run."""
    if every < 1:
        raise ValueError(f"every is {every}: revisions at least 1 step apart are needed")
    kept = list(stepped)
    if start is not None:
        first = start if isinstance(start, int) else _find(stepped, start, series).order
        kept = [r for r in kept if (r.step if isinstance(start, int) else r.order) >= first]  # type: ignore[operator]
    if end is not None:
        last = end if isinstance(end, int) else _find(stepped, end, series).order
        kept = [r for r in kept if (r.step if isinstance(end, int) else r.order) <= last]  # type: ignore[operator]
    if not kept:
        ends = f"{stepped[0].name} to {stepped[-1].name}" if stepped else "none with a step"
        raise ValueError(f"no revision of {series} lies from {start} to {end}: there are {len(stepped)}, {ends}")
    reached: dict[tuple[str | None, int | None], int] = {}
    spaced = []
    for revision in kept:
        run, step = (revision.stage, revision.ingredient), revision.step or 0
        if run not in reached or step - reached[run] >= every:
            reached[run] = step
            spaced.append(revision)
    return spaced


def _log_spaced(stepped: Sequence[Revision], n: int, series: str) -> list[Revision]:
    """n revisions close to a geometric sequence in step + 1; a stage starts where the one before it ended."""
    if n < 2:
        raise ValueError(
            f"log_spaced is {n}: the first and the last revision are always kept, so at least 2 are needed"
        )
    if not stepped:
        raise ValueError(f"log_spaced needs revisions with a step, and {series} has none: name them in a list")
    if n >= len(stepped):
        return list(stepped)
    begin, end, stage = 0, 0, stepped[0].stage
    position = []
    for revision in stepped:
        if revision.stage != stage:
            begin, stage = end, revision.stage
        end = max(end, begin + (revision.step or 0))
        position.append(math.log(begin + (revision.step or 0) + 1))
    kept = [0]
    for i in range(1, n):
        target = position[0] + (position[-1] - position[0]) * i / (n - 1)
        free = range(kept[-1] + 1, len(stepped) - (n - 1 - i))
        kept.append(min(free, key=lambda j: abs(position[j] - target)) if i < n - 1 else len(stepped) - 1)
    return [stepped[j] for j in kept]
