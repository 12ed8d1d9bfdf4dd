"""Extractable memorization: the share of a text that a model emits greedily from the tokens before it, and how much of
that is left when the prompt is changed.

A text is k-extractable where it follows k tokens of the training data and greedy decoding after these emits it
(Carlini et al. 2023, arXiv 2202.07646, Definition 3.1). As for Pythia (Biderman et al. 2023, arXiv 2304.11158, section
4.1) the prompt is tokens 0 … 31 of a training row, the continuation tokens 32 … 63,

    score M = 1/32 Σ_i [token_{32+i} = greedy_{32+i}],      extracted where M = 1.

The greedy tokens follow the model's own, not the text, so that one early difference costs more than its own token.
The script behind the published counts (EleutherAI/pythia predictable-memorization/eval_memorization.py @20e6700) puts
no BOS before the prompt, which is the default here, and runs in float16 with `min_length=64`, which never lets the
model end: `never=(0,)`, its end-of-text token, does the same.
Everything here is a share, without a unit.

    found = extract(model, rows)              # rows int64[n, 64 or more]
    found.rate, found.interval, found.mean_score
    fragility(model, rows, seed=0)[0].score_drop
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, t
from transformers import PreTrainedModel

from infocomp.memorization.greedy import GreedyReader

Interval = tuple[float, float]
LEVEL = 0.95


@dataclass(frozen=True)
class Extraction:
    """What was emitted of each row: share of the continuation, all of it, tokens before the first difference.

    `score` is None where only full matches were asked for. Intervals are over rows taken as independent: rows of one
    document, or the same row twice, say less than they count.
    """

    score: Float[np.ndarray, "n"] | None
    first_difference: Int[np.ndarray, "n"]
    prompt: int
    continuation: int

    @property
    def extracted(self) -> Bool[np.ndarray, "n"]:
        """Rows of which every token of the continuation was emitted."""
        return self.first_difference == self.continuation

    @property
    def n(self) -> int:
        return len(self.first_difference)

    @property
    def rate(self) -> float:
        """Share of rows that are extracted."""
        return float(self.extracted.mean())

    @cached_property
    def interval(self) -> Interval:
        """95 % interval of the rate (Wilson 1927): it keeps its width where no row is extracted, or every row."""
        return _wilson(int(self.extracted.sum()), self.n)

    @property
    def mean_score(self) -> float | None:
        """Mean share of the continuation that was emitted."""
        return None if self.score is None else float(self.score.mean())

    @property
    def score_interval(self) -> Interval | None:
        """95 % interval of the mean score by Student's t over rows; None without a score or with a single row."""
        return None if self.score is None else _mean_interval(self.score)


def extract(
    model: PreTrainedModel,
    rows: Int[np.ndarray, "n tokens"],
    prompt: int = 32,
    continuation: int = 32,
    batch_rows: int = 64,
    bos: int | None = None,
    score: bool = True,
    never: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Extraction:
    """Let the model go on, greedily, after the first `prompt` tokens of each row, and compare with the next
    `continuation` tokens; what a row holds beyond them is not read.

    An end-of-text token is a token like any other: decoding goes on behind it. `never` names tokens that are never
    emitted, `bos` a token put before the prompt. Without `score` a row is left where it first differs: that costs
    little more than reading the prompts. `progress` is called with the number of rows done.

    Raises ValueError for an empty table, rows that are too short, token ids outside the vocabulary, a prompt and
    continuation longer than the model's context, a token in `never` that the model has not, a model that is in training
    mode or keeps no keys and values, and logits that are not finite.
    """
    rows = _checked_rows(model, rows, prompt, continuation, batch_rows, bos)
    before = np.zeros((len(rows), 0), np.int64) if bos is None else np.full((len(rows), 1), bos, np.int64)
    positions = before.shape[1] + prompt + continuation - 1
    reader = GreedyReader(model, positions, never)
    first, shares = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start in range(0, len(rows), batch_rows):
        some = slice(start, start + batch_rows)
        text = rows[some, prompt : prompt + continuation]
        first[some], emitted = reader.follow(np.hstack([before[some], rows[some, :prompt]]), text, score)
        shares[some] = (emitted == text).mean(axis=1)
        if progress is not None:
            progress(len(text))
    return Extraction(shares if score else None, first, prompt, continuation)


def _checked_rows(
    model: PreTrainedModel, rows: np.ndarray, prompt: int, continuation: int, batch_rows: int, bos: int | None
) -> Int[np.ndarray, "n tokens"]:
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise ValueError(
            f"rows must be whole numbers in rows and columns, got {rows.dtype} of shape {rows.shape}; "
            "give int64[n, tokens]."
        )
    for name, value in {"prompt": prompt, "continuation": continuation, "batch_rows": batch_rows}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; take more.")
    if not len(rows):
        raise ValueError("the token table is empty: at least one row is needed.")
    if rows.shape[1] < prompt + continuation:
        raise ValueError(
            f"rows have {rows.shape[1]} tokens, and a prompt of {prompt} and a continuation of {continuation} need "
            f"{prompt + continuation}; give longer rows or shorten one of the two."
        )
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    wanted = prompt + continuation - 1 + (bos is not None)
    if positions is not None and wanted > positions:
        raise ValueError(
            f"a prompt of {prompt} and a continuation of {continuation} tokens need a context of {wanted} positions"
            f"{' with the BOS' if bos is not None else ''}, and the model has {positions}; shorten the prompt."
        )
    rows = rows[:, : prompt + continuation]
    embeddings: Any = model.get_input_embeddings()
    vocabulary = len(embeddings.weight)
    outside = (rows < 0) | (rows >= vocabulary)
    if outside.any():
        row, place = np.argwhere(outside)[0].tolist()
        raise ValueError(
            f"row {row} holds the token id {rows[row, place]} at place {place}, outside the model's vocabulary of "
            f"{vocabulary}; was the table made with another tokenizer?"
        )
    return rows.astype(np.int64)


# what a changed prompt leaves


@dataclass(frozen=True)
class Changed:
    """Extraction after `changed` tokens of every prompt were changed, against the same rows unchanged.

    Drops are unchanged minus changed, paired row by row: positive where memory needs the exact prompt. 95 % intervals:
    Student's t of the rows' differences for the score (None for a single row), Newcombe's for the rate.
    """

    changed: int
    kind: str
    extraction: Extraction
    score_drop: float
    score_drop_interval: Interval | None
    rate_drop: float
    rate_drop_interval: Interval


def replaced(
    prompts: Int[np.ndarray, "n prompt"], order: Int[np.ndarray, "n prompt"], substitutes: np.ndarray, k: int
) -> Int[np.ndarray, "n prompt"]:
    """The first k places of each row's order hold another token."""
    changed = prompts.copy()
    np.put_along_axis(changed, order[:, :k], np.take_along_axis(substitutes, order[:, :k], axis=1), axis=1)
    return changed


def dropped(
    prompts: Int[np.ndarray, "n prompt"], order: Int[np.ndarray, "n prompt"], substitutes: np.ndarray, k: int
) -> Int[np.ndarray, "n prompt-k"]:
    """The first k places of each row's order are left out, and the prompt is k tokens shorter."""
    return np.take_along_axis(prompts, np.sort(order[:, k:], axis=1), axis=1)


def shortened(
    prompts: Int[np.ndarray, "n prompt"], order: Int[np.ndarray, "n prompt"], substitutes: np.ndarray, k: int
) -> Int[np.ndarray, "n prompt-k"]:
    """The first k tokens are left out: what a shorter context is worth, all of it being true."""
    return prompts[:, k:]


KINDS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = MappingProxyType(
    {"replace": replaced, "drop": dropped, "shorten": shortened}
)


def fragility(
    model: PreTrainedModel,
    rows: Int[np.ndarray, "n tokens"],
    changes: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
    kind: str = "replace",
    prompt: int = 32,
    continuation: int = 32,
    batch_rows: int = 64,
    bos: int | None = None,
    never: Sequence[int] = (),
    unchanged: Extraction | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Changed]:
    """What is still emitted of each row when 1, 2, … tokens of its prompt are changed, one entry for each number.

    Places are drawn without replacement for each row; those of a smaller number are among those of a larger one, with
    the same substitutes, so that the entries differ by the further changes alone. Substitutes follow the frequencies
    of all tokens of the rows, the token that stands there left out. `unchanged` saves the pass over the rows as they
    are, where `extract` has made it. Raises ValueError as `extract` does, and for a number of changes that the prompt
    does not have; KeyError for an unknown kind.
    """
    if kind not in KINDS:
        raise KeyError(f"no kind of change named {kind!r}; there are {', '.join(map(repr, KINDS))}")
    rows = _checked_rows(model, rows, prompt, continuation, batch_rows, bos)
    most = prompt if kind == "replace" else prompt - 1
    wrong = [k for k in changes if not 1 <= k <= most]
    if wrong:
        raise ValueError(f"changes must lie between 1 and {most} for a prompt of {prompt} tokens, got {wrong[0]}.")
    if unchanged is None:
        unchanged = extract(model, rows, prompt, continuation, batch_rows, bos, True, never, progress)
    if unchanged.score is None or (unchanged.n, unchanged.prompt, unchanged.continuation) != (
        len(rows),
        prompt,
        continuation,
    ):
        raise ValueError(
            f"unchanged is of {unchanged.n} rows of {unchanged.prompt} + {unchanged.continuation} tokens"
            f"{'' if unchanged.score is not None else ' without a score'}, and {len(rows)} of {prompt} + "
            f"{continuation} with one are needed; extract it from the same rows."
        )
    generator = np.random.default_rng(seed)
    order = generator.permuted(np.tile(np.arange(prompt), (len(rows), 1)), axis=1)
    substitutes = _substitutes(rows, prompt, generator) if kind == "replace" else rows[:, :prompt]
    found = []
    for k in changes:
        prompts = KINDS[kind](rows[:, :prompt], order, substitutes, k)
        table = np.hstack([prompts, rows[:, prompt:]])
        after = extract(model, table, prompts.shape[1], continuation, batch_rows, bos, True, never, progress)
        assert after.score is not None
        drop = unchanged.score - after.score
        found.append(
            Changed(
                changed=k,
                kind=kind,
                extraction=after,
                score_drop=float(drop.mean()),
                score_drop_interval=_mean_interval(drop),
                rate_drop=unchanged.rate - after.rate,
                rate_drop_interval=paired_difference_interval(unchanged.extracted, after.extracted),
            )
        )
    return found


def _substitutes(
    rows: Int[np.ndarray, "n tokens"], prompt: int, generator: np.random.Generator
) -> Int[np.ndarray, "n prompt"]:
    """For each place of each prompt another token than its own, by the frequencies of the rows' tokens.

    With the tokens' counts laid end to end and the own token's stretch cut out, a uniform place falls on the others.
    """
    counts = np.bincount(rows.ravel())
    ends = np.cumsum(counts)
    own = rows[:, :prompt]
    others = ends[-1] - counts[own]
    if not others.all():
        raise ValueError("all tokens of the rows are the same: no other token is there to replace one with.")
    place = generator.integers(0, others)
    place += np.where(place >= ends[own] - counts[own], counts[own], 0)
    return np.searchsorted(ends, place, side="right")


# intervals


def _wilson(hits: int, n: int) -> Interval:
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _mean_interval(values: Float[np.ndarray, "n"]) -> Interval | None:
    n, mean = len(values), float(values.mean())
    if n < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def paired_difference_interval(one: Bool[np.ndarray, "n"], other: Bool[np.ndarray, "n"]) -> Interval:
    """95 % interval of the difference of two shares of the same rows, share of `one` minus share of `other`.

    Newcombe (1998, Statistics in Medicine 17: 2635), method 10 without its continuity correction: the Wilson limits
    (l, u) of both shares, with the correlation φ of the pairs,
    lower = d − √((p₁ − l₁)² − 2φ(p₁ − l₁)(u₂ − p₂) + (u₂ − p₂)²), upper likewise with the other limits.
    """
    n, first, second = len(one), float(one.mean()), float(other.mean())
    (low_1, high_1), (low_2, high_2) = _wilson(int(one.sum()), n), _wilson(int(other.sum()), n)
    spread = np.sqrt(first * (1 - first) * second * (1 - second))
    correlation = (float((one & other).mean()) - first * second) / spread if spread else 0.0
    below, above = (first - low_1, high_2 - second), (high_1 - first, second - low_2)
    lower, upper = (np.sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0)) for a, b in (below, above))
    return first - second - float(lower), first - second + float(upper)
