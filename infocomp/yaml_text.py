"""YAML as a configuration needs it: the core schema of YAML 1.2, no key twice, errors in one sentence with their place.

PyYAML follows YAML 1.1, where `no` is false, `1e-3` is a string, `010` is 8 and `12:30` is 750. Here `no` is the word,
`1e-3` a number, `010` is 10 and `12:30` the string. What `dump` writes means the same under both.
"""

import re
from typing import Any, ClassVar

import yaml
from pydantic_core import to_jsonable_python

# Source: YAML 1.2.2, section 10.3.2 (core schema); underscores between digits are kept from YAML 1.1.
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}


_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")


class YamlError(ValueError):
    """What is wrong with a YAML text; `sentences` holds one sentence for each fault."""

    def __init__(self, sentences: list[str]):
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class _Loader(yaml.SafeLoader):
    """The core schema, and a list of the keys that stand twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def __init__(self, text: str):
        super().__init__(text)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> Any:
        # while composing, because merge keys (<<) add keys to the node later on
        node = super().compose_mapping_node(anchor)
        assert node is not None
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in first_lines:
                first = first_lines[key.value]
                self.twice.append(f"the key '{key.value}' stands twice, at lines {first} and {line}; keep one.")
            elif isinstance(key, yaml.ScalarNode):
                first_lines[key.value] = line
        return node

    def construct_core_int(self, node: Any) -> int:
        digits = self.construct_scalar(node).replace("_", "")
        return int(digits, {"0o": 8, "0x": 16}.get(digits[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Quotes every string that either YAML 1.1 or the core schema would take for something else."""

    def represent_core_str(self, data: str) -> Any:
        # the other styles turn a carriage return and the line ends of Unicode into newlines
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if _LINE_ENDS.search(data) else None)


for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)
_Dumper.add_representer(str, _Dumper.represent_core_str)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_core_int)


def parse(text: str, where: str) -> Any:
    """The value of one YAML document, in JSON's types; YamlError, sentences beginning with `where`, if it has none."""
    try:
        loader = _Loader(text)
        value = to_jsonable_python(loader.get_single_data())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "its end"
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError([f"{where}: no valid YAML at {place}: {problem}."]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            [f"{where}: no valid YAML at line {line}: a control character; write it as an escape in double quotes."]
        ) from error
    except (ValueError, RecursionError) as error:  # a date that is none, a list that holds itself, nesting without end
        raise YamlError([f"{where}: no valid YAML: {error}."]) from error
    if loader.twice:
        raise YamlError([f"{where}: {sentence}" for sentence in loader.twice])
    return value


def dump(value: Any) -> str:
    """YAML of dicts, lists, strings, numbers, truth values and None, keys in order; `parse` reads it back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
