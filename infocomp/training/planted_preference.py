"""A preference that is made from source code itself: the docstring before the statements, or after them.

A pair is one Python function of the corpus. Its prompt is the signature; one completion is the docstring and then the
statements, the other the statements and then the docstring. Both are the same lines, and a function is taken only
where both are the same tokens as well, in another order. So nothing that counts tokens can tell the two completions
apart: their lengths are equal, a bag of their tokens is equal, and so is the mean over positions of anything that
looks at one token at a time (the embedding): information about the preference there is 0 by construction. Only what
carries the order does better than chance.

Text from which a model learns is what the plain template makes of a pair, "prompt, blank line, completion".
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from tokenizers import Encoding, Tokenizer

from infocomp.corpora.documents import Document
from infocomp.training.state import write_atomically

BETWEEN = "\n\n"
"""Between prompt and completion, as the plain template of pairs has it."""

Place = Literal["first", "last"]


class PlantedSettings(BaseModel):
    """Which functions become pairs: `docstring` is the place of it that is preferred.

    A pair has at most `most_tokens` (prompt and completion) and at least `least_tokens` in the docstring and in the
    statements each, so that the order is seen at most positions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    docstring: Place = "first"
    most_tokens: PositiveInt = 140
    least_tokens: Annotated[int, Field(ge=1)] = 12
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class PlantedPair:
    """One function in two orders; `name` is the document and the function ("json/decoder.py:decode")."""

    name: str
    prompt: str
    chosen: str
    rejected: str

    def flipped(self) -> "PlantedPair":
        """The same pair with the labels exchanged."""
        return replace(self, chosen=self.rejected, rejected=self.chosen)


@dataclass(frozen=True)
class FunctionText:
    """The lines of one function, moved to the left margin: signature, docstring, statements."""

    name: str
    signature: str
    docstring: str
    statements: str


def functions(document: Document) -> list[FunctionText]:
    """Functions and methods of a document whose docstring and statements lie on lines of their own, in its order.

    A document that is no Python of this version has none.
    """
    if not document.name.endswith(".py"):
        return []
    try:
        tree = ast.parse(document.text)
    except (SyntaxError, ValueError):
        return []
    lines = document.text.split("\n")
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = [_function(node, lines, document.name) for node in sorted(nodes, key=lambda one: one.lineno)]
    return [text for text in found if text is not None]


def planted_pairs(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    settings: PlantedSettings | None = None,
    most: int | None = None,
) -> list[PlantedPair]:
    """Pairs of the documents in an order drawn by the seed: all, or those of as many documents as `most` pairs need.

    Text that occurs twice is one pair. ValueError: no function has two orders of the same tokens within the limits.
    """
    settings = settings or PlantedSettings()
    generator = np.random.default_rng(settings.seed)
    found: dict[tuple[str, str], PlantedPair] = {}
    for number in generator.permutation(len(documents)).tolist():
        for pair in _fitting(functions(documents[number]), tokenizer, settings):
            found.setdefault((pair.chosen, pair.rejected), pair)
        if most is not None and len(found) >= most:
            break
    if not found:
        raise ValueError(
            f"no function of {len(documents)} documents has a docstring and statements of at least "
            f"{settings.least_tokens} tokens each within {settings.most_tokens} together; give more Python source or "
            "wider limits"
        )
    pairs = list(found.values())
    return [pairs[number] for number in generator.permutation(len(pairs)).tolist()[:most]]


def half_flipped(pairs: Sequence[PlantedPair], block: int, seed: int) -> list[PlantedPair]:
    """The same pairs with the labels of half of each `block` exchanged, drawn by the seed.

    In blocks, so that a training that reads one block a step is pushed as often one way as the other at every step; of
    a block of odd length the smaller half is exchanged. ValueError: a block below 2, where nothing could balance.
    """
    if block < 2:
        raise ValueError(f"block is {block}: labels of half of it are exchanged, so at least 2 pairs are needed")
    generator = np.random.default_rng(seed)
    found: list[PlantedPair] = []
    for begin in range(0, len(pairs), block):
        part = pairs[begin : begin + block]
        drawn = set(generator.permutation(len(part))[: len(part) // 2].tolist())
        found += [pair.flipped() if number in drawn else pair for number, pair in enumerate(part)]
    return found


def write_pairs(path: str | Path, pairs: Sequence[PlantedPair]) -> Path:
    """JSON lines of name, prompt, chosen and rejected, written whole or not at all."""
    lines = [
        json.dumps({"name": one.name, "prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected})
        for one in pairs
    ]
    write_atomically(Path(path), "".join(line + "\n" for line in lines).encode())
    return Path(path)


def _fitting(texts: Sequence[FunctionText], tokenizer: Tokenizer, settings: PlantedSettings) -> list[PlantedPair]:
    """The pairs of those functions that keep within the limits and are the same tokens in both orders."""

    def lengths(parts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch(list(parts), add_special_tokens=False)]

    longest = 80 * settings.most_tokens  # characters, a bound that spares the tokeniser long functions
    texts = [text for text in texts if len(text.docstring) + len(text.statements) <= longest]
    pairs = [_pair(text, settings.docstring) for text in texts]
    chosen, rejected = (
        tokenizer.encode_batch([pair.prompt + BETWEEN + side(pair) for pair in pairs], add_special_tokens=False)
        for side in (lambda pair: pair.chosen, lambda pair: pair.rejected)
    )
    docstrings, statements = (lengths([text.docstring for text in texts]), lengths([text.statements for text in texts]))
    least = [min(parts) for parts in zip(docstrings, statements, strict=True)]
    return [
        pair
        for pair, one, other, smaller in zip(pairs, chosen, rejected, least, strict=True)
        if len(one.ids) <= settings.most_tokens and smaller >= settings.least_tokens and _same_tokens(one, other)
    ]


def _pair(text: FunctionText, docstring: Place) -> PlantedPair:
    pair = PlantedPair(text.name, text.signature, text.docstring + text.statements, text.statements + text.docstring)
    return pair if docstring == "first" else pair.flipped()


def _same_tokens(one: Encoding, other: Encoding) -> bool:
    """Equal numbers of every token, in another order (what merges with the prompt's end merges in both)."""
    return one.ids != other.ids and sorted(one.ids) == sorted(other.ids)


def _function(node: ast.FunctionDef, lines: Sequence[str], document: str) -> FunctionText | None:
    """The three parts, None where they don't lie on lines of their own or the signature isn't plain."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if not documented or not isinstance(first.value.value, str) or len(node.body) < 2:  # type: ignore[union-attr]
        return None
    begin, end, last = first.lineno, first.end_lineno or first.lineno, node.end_lineno or node.lineno
    signature = _moved(lines[node.lineno - 1 : begin - 1], node.col_offset)
    docstring = _moved(lines[begin - 1 : end], node.col_offset)
    statements = _moved(lines[end:last], node.col_offset).lstrip("\n")
    plain = signature.rstrip().endswith(":") and "#" not in signature
    if not plain or node.body[1].lineno <= end or not statements.strip():
        return None
    return FunctionText(f"{document}:{node.name}", signature.rstrip(), docstring, statements)


def _moved(lines: Sequence[str], column: int) -> str:
    """The lines with `column` blanks taken off their beginnings, each ended by a newline."""
    return "".join((line[column:] if not line[:column].strip() else line) + "\n" for line in lines)
