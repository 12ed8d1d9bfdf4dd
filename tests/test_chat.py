"""Conversations as text: the plain template by hand, a tokenizer's own, what it may not do, documents of a file."""

import json

import pytest
from tiny_text import tiny_tokenizer

from infocomp.corpora.chat import ChatTemplate, chat_documents
from infocomp.corpora.pairs import Message

ASKED = (Message("user", "Why?"),)
ANSWER = (Message("assistant", "Because."),)
OWN = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def own(template: str = OWN) -> ChatTemplate:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return ChatTemplate.of(tokenizer)


def test_the_plain_template_of_strings_is_prompt_empty_line_completion():
    found = ChatTemplate().render("Why?", "Because.")
    assert (found.prompt, found.completion, found.text) == ("Why?\n\n", "Because.", "Why?\n\nBecause.")
    assert ChatTemplate().render("", "Because.").text == "Because."


def test_the_plain_template_of_messages_is_a_line_each():
    system = (Message("system", "Be kind."), *ASKED)
    found = ChatTemplate().render(system, (*ANSWER, Message("user", "How?"), Message("assistant", "So.")))
    assert found.prompt == "system: Be kind.\nuser: Why?\nassistant:"
    assert found.completion == " Because.\nuser: How?\nassistant: So."
    assert ChatTemplate().render("Why?", ANSWER).text == "user: Why?\nassistant: Because."


def test_an_own_template_ends_with_the_content_and_not_with_what_follows_it():
    found = own().render(ASKED, ANSWER)
    assert (found.prompt, found.completion) == ("<s><user>Why?<end>\n<assistant>", "Because.")
    assert own().render("Why?", " Because.\n") == found, "strings are messages of user and assistant"


def test_the_name_tells_templates_apart():
    other = own(OWN.replace("<end>", "<stop>"))
    assert ChatTemplate().name == "plain"
    assert own().name.startswith("own ") and own().name == own().name != other.name


def test_a_missing_chat_template_is_one_sentence():
    with pytest.raises(ValueError, match=r"has no chat template; take the template 'plain', or the tokenizer of .*\.$"):
        ChatTemplate.of(tiny_tokenizer())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}!{% endif %}",
         "does not begin the conversation of 'p' with its prompt, so that prompt and completion cannot be told apart"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
         "changes the text of the completion of 'p' .'Because.' … is not in what it writes"),
        ("{{ raise_exception('no system role\nhere.') }}", "refuses 'p': no system role; take the template 'plain'"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_one_sentence(template, expected):
    with pytest.raises(ValueError, match=expected) as error:
        own(template).render(ASKED, ANSWER, "p")
    assert "\n" not in str(error.value)


def test_conversations_of_a_file_are_documents(tmp_path):
    path = tmp_path / "a.jsonl"
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    path.write_text("".join(json.dumps({"messages": turns[:k]}) + "\n" for k in (2, 1, 2)))
    first, second, _ = chat_documents(str(path), ChatTemplate())
    assert (first.text, second.text) == ("user: Why?\nassistant: So.\n", "user: Why?\n")
    assert first.name == f"{path}:1"
    (only,) = chat_documents(str(path), own(), max_documents=1)
    assert only.text == "<s><user>Why?<end>\n<assistant>So.<end>\n"


def test_files_without_conversations_are_one_sentence(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match=r"hold no conversation; name others\.$"):
        chat_documents(str(path), ChatTemplate())
    path.write_text('{"messages": "Why?"}')
    with pytest.raises(ValueError, match=r"column 'messages' of '.*a.jsonl:1' holds a string, and messages are a list"):
        chat_documents(str(path), ChatTemplate())
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(
        ValueError, match="is neither JSON lines nor Parquet, and conversations are a column 'messages'"
    ):
        chat_documents(str(tmp_path / "a.txt"), ChatTemplate())
