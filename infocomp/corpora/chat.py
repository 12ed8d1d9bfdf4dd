"""Conversations as text: a plain template that is stated here, or a tokenizer's own chat template.

Plain, for strings: prompt, an empty line, completion ("{prompt}\n\n{completion}"; an empty prompt adds nothing). Plain,
for messages: a line "role: content" each; a prompt then ends in "assistant:", and the completion begins with the space
after it. A tokenizer's own template is applied to messages; strings become one message of the user and one of the
assistant.

A rendered completion ends with the last character of its content. What a template writes after it (end of turn, end of
text) is left off: of two completions cut at one length the shorter alone would show it, and it would tell which is
which.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from infocomp.corpora.documents import Document
from infocomp.corpora.files import find_files
from infocomp.corpora.pairs import ASSISTANT, Message, Text, messages_of
from infocomp.corpora.records import as_names, cell, file_records, has_columns

PLAIN = "plain"


@dataclass(frozen=True)
class Rendered:
    """A prompt and its completion as the model reads them, one after the other."""

    prompt: str
    completion: str

    @property
    def text(self) -> str:
        """Both together."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class ChatTemplate:
    """How conversations become text: plainly where `tokenizer` is None, else by its own template."""

    tokenizer: PreTrainedTokenizerBase | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "ChatTemplate":
        """The tokenizer's own template; ValueError where it has none."""
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"the tokenizer '{tokenizer.name_or_path or type(tokenizer).__name__}' has no chat template; "
                f"take the template 'plain', or the tokenizer of a model that was tuned on conversations."
            )
        return cls(tokenizer)

    @property
    def name(self) -> str:
        """ "plain", or "own" with a hash of the template: what the table says."""
        if self.tokenizer is None:
            return PLAIN
        return f"own {hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:8]}"

    def render(self, prompt: Text, completion: Text, place: str = "a pair") -> Rendered:
        """Prompt and completion as text. ValueError where an own template does not keep them apart."""
        if self.tokenizer is None:
            if isinstance(prompt, str) and isinstance(completion, str):
                return Rendered(f"{prompt}\n\n" if prompt else "", completion)
            asked, answered = _messages(prompt, "user"), _messages(completion, ASSISTANT)
            lines = [_line(message) + "\n" for message in asked]
            first, *further = answered or (Message(ASSISTANT, ""),)
            rest = "".join("\n" + _line(message) for message in further)
            return Rendered("".join(lines) + f"{first.role}:", f" {first.content}{rest}")
        asked, answered = _messages(prompt, "user"), _messages(completion, ASSISTANT)
        before = self._apply(asked, place, add_generation_prompt=True)
        whole = self._apply((*asked, *answered), place)
        if not whole.startswith(before):
            raise ValueError(
                f"the chat template does not begin the conversation of '{place}' with its prompt, so that prompt and "
                f"completion cannot be told apart; take the template 'plain'."
            )
        rest = whole[len(before) :]
        last = answered[-1].content.strip() if answered else ""
        end = rest.rfind(last)
        if end < 0:
            raise ValueError(
                f"the chat template changes the text of the completion of '{place}' ({last[:40]!r} … is not in what it "
                f"writes), so that completions would not be compared as they are; take the template 'plain'."
            )
        return Rendered(before, rest[: end + len(last)])

    def conversation(self, messages: tuple[Message, ...], place: str = "a conversation") -> str:
        """A whole conversation as text."""
        if self.tokenizer is None:
            return "".join(_line(message) + "\n" for message in messages)
        return self._apply(messages, place)

    def _apply(self, messages: tuple[Message, ...], place: str, add_generation_prompt: bool = False) -> str:
        assert self.tokenizer is not None
        turns: list[dict[str, str]] = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: Any = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template is a program of its own and raises what it likes
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"the chat template refuses '{place}': {reason[0].rstrip('.')}; take the template 'plain'."
            ) from error
        return text


def chat_documents(
    files: str | tuple[str, ...],
    template: ChatTemplate,
    column: str = "messages",
    max_documents: int | None = None,
) -> list[Document]:
    """Conversations in a column of JSON lines or Parquet files, each as one document.

    ValueError of one sentence for what cannot be read, and where there is no conversation.
    """
    documents = []
    for path in find_files(as_names(files)):
        if not has_columns(Path(path)):
            raise ValueError(f"'{path}' is neither JSON lines nor Parquet, and conversations are a column '{column}'.")
        for place, record in file_records(path, None, f"the column '{column}'"):
            messages = messages_of(cell(record, column, place), place, f"column '{column}'")
            documents.append(Document(place, template.conversation(messages, place)))
            if len(documents) == max_documents:
                return documents
    if not documents:
        raise ValueError(f"files {', '.join(map(repr, as_names(files)))} hold no conversation; name others.")
    return documents


def _messages(text: Text, role: str) -> tuple[Message, ...]:
    if isinstance(text, str):
        return (Message(role, text),) if text else ()
    return text


def _line(message: Message) -> str:
    return f"{message.role}: {message.content}"
