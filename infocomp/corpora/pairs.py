"""Preference data: a prompt and two completions of it, one preferred to the other.

A record has the columns `prompt`, `chosen` and `rejected` (other names can be given). Completions are strings, chat
messages [{"role": …, "content": …}, …], or lists of strings of equal length (the first chosen one stands against the
first rejected one, and so on). Completions that are whole conversations hold their prompt: the messages that both
sides begin with, up to the last that is not the assistant's. Authors, where they are known, are the text of two columns
or are read from a column `source` of the form "anything; chosen=A; rejected=B".

Equal completions and empty ones say nothing about a preference: they are dropped and counted.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from infocomp.corpora.files import find_files
from infocomp.corpora.records import (
    Records,
    as_names,
    cell,
    dataset_name,
    dataset_records,
    file_records,
    has_columns,
    kind_of_value,
    text_of,
)
from infocomp.corpora.settings import DatasetSettings

SIDES = ("chosen", "rejected")
ASSISTANT = "assistant"
_AUTHORS = re.compile(r"chosen=(?P<chosen>[^;]+);\s*rejected=(?P<rejected>[^;]+)")
_log = logging.getLogger(__name__)
_Name = Annotated[str, Field(min_length=1)]
_Names = Annotated[tuple[_Name, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Text = str | tuple[Message, ...]


@dataclass(frozen=True)
class PreferencePair:
    """A prompt with the completion that was preferred and the one that was not; both of one kind, text or messages.

    `name` is the place it was read from; authors are who, or which model, wrote each completion, None where not told.
    """

    name: str
    prompt: Text
    chosen: Text
    rejected: Text
    chosen_author: str | None = None
    rejected_author: str | None = None

    @property
    def completions(self) -> tuple[Text, Text]:
        """The chosen completion, then the rejected one."""
        return self.chosen, self.rejected

    @property
    def authors(self) -> tuple[str | None, str | None]:
        """The author of the chosen completion, then that of the rejected one."""
        return self.chosen_author, self.rejected_author


class PairSettings(BaseModel):
    """Where pairs lie: `files` (JSON lines or Parquet, also .gz and .zst; paths, folders, globs) or a `dataset`.

    prompt, chosen, rejected: the columns. A record without the prompt's column is fine where the completions are whole
        conversations; `prompt: null` takes strings as completions of an empty prompt.
    chosen_author, rejected_author: columns with who wrote each completion; without them a column `source` is looked at.
    max_pairs: reading stops there, counted without those that are dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: _Name | _Names | None = None
    dataset: DatasetSettings | None = None
    prompt: _Name | None = "prompt"
    chosen: _Name = "chosen"
    rejected: _Name = "rejected"
    chosen_author: _Name | None = None
    rejected_author: _Name | None = None
    max_pairs: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "PairSettings":
        if (self.files is None) == (self.dataset is None) or self.files == ():
            found = "both are" if self.files and self.dataset is not None else "none is"
            raise ValueError(f"exactly one of 'files' and 'dataset' is needed for pairs, and {found} given")
        if (self.chosen_author is None) != (self.rejected_author is None):
            raise ValueError("'chosen_author' and 'rejected_author' name a column each: give both or neither")
        return self


def read_pairs(settings: PairSettings) -> list[PreferencePair]:
    """The pairs that the settings name, in order; equal and empty completions are dropped, with a warning.

    ValueError of one sentence for what cannot be read, for sides with different prompts, and where no pair is left.
    """
    pairs: list[PreferencePair] = []
    equal = empty = 0
    with closing(_records(settings)) as records:
        for place, record in records:
            for pair in _pairs_of(record, place, settings):
                if not all(map(_says_something, pair.completions)):
                    empty += 1
                elif pair.chosen == pair.rejected:
                    equal += 1
                else:
                    pairs.append(pair)
            if settings.max_pairs is not None and len(pairs) >= settings.max_pairs:
                del pairs[settings.max_pairs :]
                break
    dropped = f"{equal:,} with equal completions and {empty:,} with an empty one"
    if not pairs:
        found = f"{equal + empty:,} were found, {dropped}" if equal + empty else "none was found"
        raise ValueError(f"{_where(settings)}: at least one pair of two different completions is needed, and {found}.")
    if equal or empty:
        _log.warning(
            "%s: pairs dropped because they say nothing about preference: %s; %s kept.",
            *(_where(settings), dropped, f"{len(pairs):,}"),
        )
    return pairs


def prompt_numbers(pairs: Sequence[PreferencePair]) -> Int[np.ndarray, "pairs"]:
    """A number for each pair, equal where the prompts are: what must not be both learnt from and scored."""
    numbers: dict[Text, int] = {}
    return np.array([numbers.setdefault(pair.prompt, len(numbers)) for pair in pairs], dtype=np.int64)


def kind_of(path: Path | str) -> str:
    """A file is "preference", "chat" or "text": told by the columns of its (first file's) first record.

    Files without columns are text; so are records with neither `chosen` and `rejected` nor a list of `messages`.
    """
    first = find_files([str(path)])[0]
    if not has_columns(first):
        return "text"
    with closing(file_records(first, None, "columns")) as records:
        record = next(records, ("", {}))[1]
    if all(side in record for side in SIDES):
        return "preference"
    return "chat" if isinstance(record.get("messages"), list) else "text"


def messages_of(value: Any, place: str, what: str) -> tuple[Message, ...]:
    """Chat messages of a record's value; ValueError for anything but a list of {"role": text, "content": text}."""
    rule = 'and messages are a list of objects {"role": text, "content": text}'
    if not isinstance(value, list | tuple) or not value:
        found = "an empty list" if value == [] else kind_of_value(value)
        raise ValueError(f"{what} of '{place}' holds {found}, {rule}; name another column.")
    found = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise ValueError(f"{what} of '{place}' has {kind_of_value(message)} as message {number}, {rule}.")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise ValueError(
                    f"{what} of '{place}' has {kind_of_value(message.get(key))} as {key} of message {number}, {rule}."
                )
        found.append(
            Message(*(text_of(message[key], place, f"{what}, message {number},") for key in ("role", "content")))
        )
    return tuple(found)


# from records to pairs


def _pairs_of(record: dict[str, Any], place: str, settings: PairSettings) -> Iterator[PreferencePair]:
    sides = [cell(record, column, place) for column in (settings.chosen, settings.rejected)]
    authors = _authors(record, place, settings)
    prompt = None if settings.prompt is None else record.get(settings.prompt)
    if all(isinstance(side, list) and side and all(isinstance(one, str) for one in side) for side in sides):
        prompts = prompt if isinstance(prompt, list) and all(isinstance(one, str) for one in prompt) else None
        counts = [len(side) for side in (*sides, *([prompts] if prompts else []))]
        if len(set(counts)) > 1:
            raise ValueError(
                f"'{place}' has {counts[0]} chosen and {counts[1]} rejected completions"
                + (f" for {counts[2]} prompts" if prompts else "")
                + ", and lists must be of one length; mend the record or leave it out."
            )
        for number, (chosen, rejected) in enumerate(zip(*sides, strict=True)):
            own = prompts[number] if prompts else prompt
            yield _pair(f"{place}#{number + 1}", own, (chosen, rejected), authors, record, settings)
    else:
        yield _pair(place, prompt, (sides[0], sides[1]), authors, record, settings)


def _pair(place: str, prompt: Any, sides: tuple, authors: tuple, record: dict, settings: PairSettings):
    chosen, rejected = (
        side if side is None or isinstance(side, str) else messages_of(side, place, f"column '{column}'")
        for side, column in zip(sides, (settings.chosen, settings.rejected), strict=True)
    )
    if None not in (chosen, rejected) and isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError(
            f"'{place}' has text on one side and messages on the other, and both completions must be of one kind; "
            f"mend the record or leave it out."
        )
    if isinstance(chosen, tuple) and isinstance(rejected, tuple):
        return PreferencePair(place, *_conversation(prompt, chosen, rejected, place, settings), *authors)
    if prompt is None and settings.prompt is not None:
        cell(record, settings.prompt, place)  # a column that is missing, not one that is empty
    if isinstance(prompt, list):
        asked: Text = messages_of(prompt, place, f"column '{settings.prompt}'")
    else:
        asked = text_of(prompt, place, f"column '{settings.prompt}'")
    one, other = (
        side if isinstance(side, tuple) else text_of(side, place, f"column '{column}'")
        for side, column in zip((chosen, rejected), (settings.chosen, settings.rejected), strict=True)
    )
    return PreferencePair(place, asked, one, other, *authors)


def _conversation(
    prompt: Any, chosen: tuple[Message, ...], rejected: tuple[Message, ...], place: str, settings: PairSettings
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """Prompt and completions as messages; the prompt is given, or is what both conversations begin with."""
    if isinstance(prompt, list):
        asked = messages_of(prompt, place, f"column '{settings.prompt}'")
        held = [side[: len(asked)] == asked for side in (chosen, rejected)]
        if all(held):
            chosen, rejected = chosen[len(asked) :], rejected[len(asked) :]
        lead: tuple[Message, ...] = ()
    else:
        text = text_of(prompt, place, f"column '{settings.prompt}'")
        same = [one == other for one, other in zip(chosen, rejected, strict=False)]
        shared = next((i for i, equal in enumerate(same) if not equal), len(same))
        while shared and chosen[shared - 1].role == ASSISTANT:
            shared -= 1
        lead, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        asked = lead or ((Message("user", text),) if text else ())
        if text and text not in [message.content for message in asked]:
            raise ValueError(
                f"'{place}' has a prompt that is none of the messages both conversations begin with; "
                f"leave the prompt's column out with 'prompt: null', or mend the record."
            )
    for side, rest in zip(SIDES, (chosen, rejected), strict=True):
        if rest and rest[0].role != ASSISTANT:
            raise ValueError(
                f"'{place}' has different prompts on both sides: after the messages that both share, {side} goes on "
                f"with one of the role '{rest[0].role}'; mend the record or leave it out."
            )
    return asked, chosen, rejected


def _authors(record: dict[str, Any], place: str, settings: PairSettings) -> tuple[str | None, str | None]:
    if settings.chosen_author is not None and settings.rejected_author is not None:
        chosen, rejected = (
            text_of(cell(record, column, place), place, f"column '{column}'") or None
            for column in (settings.chosen_author, settings.rejected_author)
        )
        return chosen, rejected
    source = record.get("source")
    found = _AUTHORS.search(source) if isinstance(source, str) else None
    return (found["chosen"].strip(), found["rejected"].strip()) if found else (None, None)


def _says_something(completion: Text) -> bool:
    if isinstance(completion, str):
        return bool(completion.strip())
    return any(message.role == ASSISTANT and message.content.strip() for message in completion)


# where records come from


def _records(settings: PairSettings) -> Records:
    columns = (settings.prompt, settings.chosen, settings.rejected)
    needed = f"the columns {', '.join(repr(column) for column in columns if column is not None)}"
    if settings.dataset is not None:
        yield from dataset_records(settings.dataset, None)
        return
    for path in find_files(as_names(settings.files or ())):
        if not has_columns(path):
            raise ValueError(f"'{path}' is neither JSON lines nor Parquet, and pairs are records with {needed}.")
        yield from file_records(path, None, needed)


def _where(settings: PairSettings) -> str:
    if settings.dataset is not None:
        return f"dataset '{dataset_name(settings.dataset)}'"
    names = as_names(settings.files or ())
    return f"files {', '.join(map(repr, names[:3]))}{' …' if len(names) > 3 else ''}"
