"""What pydantic finds wrong with a configuration, as sentences: dotted path, rule, value, and the name that was meant.

Where a setting may be one of several kinds, pydantic tells what is wrong with each; here only the kind that the value
is closest to is spoken of.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_LONGEST_VALUE = 80
_MOST_NAMES = 12


@dataclass(frozen=True)
class _Fault:
    """One error of pydantic's: its place in the data, and the kinds it chose on the way (place → kind)."""

    path: tuple[str | int, ...]
    kinds: tuple[tuple[tuple[str | int, ...], str], ...]
    details: Any


def sentences_of(
    error: ValidationError, data: Any, model: type[BaseModel], overrides: Mapping[str, str] | None = None
) -> list[str]:
    """One sentence for each place where `data` breaks a rule of `model`; overrides are dotted path → text of --set."""
    faults = [_fault(details, data) for details in error.errors(include_url=False) if not _follows(details)]
    faults = _closest_kinds(faults)
    places: dict[tuple[str | int, ...], list[_Fault]] = {}
    for fault in faults:
        places.setdefault(fault.path, []).append(fault)
    return [_sentence(path, found, model, overrides or {}) for path, found in places.items()]


def shown(value: Any) -> str:
    """A value as it is written in a sentence: strings in quotes, the rest as in YAML, long ones cut."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 2]} …"


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence about an unknown name: the name that comes close, else `otherwise`."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{found[0]}'?" if found else f"{otherwise}."


def plain_annotations(annotation: Any) -> list[Any]:
    """The types that an annotation allows: unions opened, Annotated taken off."""
    if get_origin(annotation) is Annotated:
        return plain_annotations(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in plain_annotations(part)]
    return [annotation]


def inner_annotations(annotations: list[Any], key: str | int) -> list[Any]:
    """The types that may stand under a field's name, a dict's key or a list's index."""
    inner: list[Any] = []
    for annotation in annotations:
        arguments = [part for part in get_args(annotation) if part is not Ellipsis]
        if key in _fields(annotation):
            inner += plain_annotations(_fields(annotation)[key].annotation)
        elif get_origin(annotation) is dict:
            inner += plain_annotations(arguments[1])
        elif isinstance(key, int):
            inner += [plain for part in arguments for plain in plain_annotations(part)]
    return inner


def _fields(annotation: Any) -> dict[Any, Any]:
    return getattr(annotation, "model_fields", {})


def _fault(details: Any, data: Any) -> _Fault:
    """Tell the parts of pydantic's location that are in the data from those that name a kind."""
    path: list[str | int] = []
    kinds = []
    here = data
    for number, part in enumerate(details["loc"], 1):
        held = part in here if isinstance(here, dict) else isinstance(here, list) and isinstance(part, int)
        if held:
            here = here[part]
        if held or (details["type"] == "missing" and number == len(details["loc"])):
            path.append(part)
        else:
            kinds.append((tuple(path), str(part)))
    return _Fault(tuple(path), tuple(kinds), details)


def _follows(details: Any) -> bool:
    """Whether a list is called too short only because its entries are wrong, each of which has its own error."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _closest_kinds(faults: list[_Fault]) -> list[_Fault]:
    """Of the kinds that one place allows, those that fit there and have the fewest faults inside; all if none fits."""
    kept: list[_Fault] = []
    places: dict[tuple[str | int, ...], dict[str, list[_Fault]]] = {}
    for fault in faults:
        if fault.kinds:
            place, kind = fault.kinds[0]
            places.setdefault(place, {}).setdefault(kind, []).append(replace(fault, kinds=fault.kinds[1:]))
        else:
            kept.append(fault)
    for place, kinds in places.items():
        fitting = [found for found in kinds.values() if all(len(fault.path) > len(place) for fault in found)]
        chosen = [min(fitting, key=len)] if fitting else list(kinds.values())
        kept += [fault for found in chosen for fault in _closest_kinds(found)]
    return kept


def _sentence(
    path: tuple[str | int, ...], faults: list[_Fault], model: type[BaseModel], overrides: Mapping[str, str]
) -> str:
    dotted = ".".join(map(str, path))
    details, ending = faults[0].details, "."
    if details["type"] == "missing":
        rule = "is required and missing"
    elif details["type"] == "extra_forbidden":
        rule, ending = f"there is no such setting, and it is {shown(details['input'])}", _meant(path, model)
    else:
        rule = _rule([fault.details for fault in faults])
    touching = [text for place, text in overrides.items() if _holds(place, dotted) or _holds(dotted, place)]
    origin = f" (--set {', --set '.join(touching)})" if touching else ""
    return f"{dotted or 'config'}: {rule}{origin}{ending}"


def _holds(upper: str, lower: str) -> bool:
    return lower == upper or lower.startswith(f"{upper}.")


def _rule(found: list[Any]) -> str:
    """The rules that are broken at one place, joined by "or", and the value that breaks them."""
    texts = list(dict.fromkeys(details["msg"] for details in found))
    if found[0]["type"] in ("value_error", "assertion_error"):
        return texts[0].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    for pydantic, ours in (("valid array", "list"), ("an object", "a group of settings"), (" after validation", "")):
        texts = [text.replace(pydantic, ours) for text in texts]
    value = shown(found[0]["input"])
    demands = [re.match(r"\w+ should (.+)", text) for text in texts]
    rules = [demand[1] for demand in demands if demand]
    if len(rules) < len(texts):
        return f"{'; '.join(text[:1].lower() + text[1:] for text in texts)}; it is {value}"
    if all(rule.startswith("be ") for rule in rules):
        rules = [rules[0], *(rule.removeprefix("be ") for rule in rules[1:])]
    return f"should {' or '.join(rules)}, and is {value}"


def _meant(path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """The name that comes close to an unknown one, else where else that name is known, else the names there are."""
    annotations = plain_annotations(model)
    for key in path[:-1]:
        annotations = inner_annotations(annotations, key)
    siblings = list(dict.fromkeys(name for annotation in annotations for name in _fields(annotation)))
    elsewhere = [place for place in _places(model) if place.rpartition(".")[2] == str(path[-1])]
    more = ", …" if len(siblings) > _MOST_NAMES else ""
    known = f"; known here: {', '.join(map(repr, siblings[:_MOST_NAMES]))}{more}"
    ending = did_you_mean(str(path[-1]), siblings, known)
    return f"; did you mean '{elsewhere[0]}'?" if elsewhere and not ending.endswith("?") else ending


def _places(annotation: Any, above: str = "", depth: int = 0) -> list[str]:
    """The dotted path of every setting that stands in groups, not in lists or dicts."""
    if depth > 8:  # a model that holds itself
        return []
    found = []
    for name, field in _fields(annotation).items():
        found.append(above + name)
        for inner in plain_annotations(field.annotation):
            found += _places(inner, f"{above}{name}.", depth + 1)
    return found
