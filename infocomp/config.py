"""Configuration: a YAML file or a dict, with `--set` overrides, as the frozen model of the study that it names.

A study brings its own model, a subclass of `StudyConfig`, under a name in the registry; this file holds no study's
fields and imports neither studies nor anything heavy. Whatever is wrong is told at once, a sentence each.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from infocomp import yaml_text
from infocomp.config_errors import did_you_mean, inner_annotations, plain_annotations, sentences_of, shown

VOLATILE = "volatile: changes how a run is done, not what comes out"
"""Marks a setting that `config_hash` leaves out: `device: Annotated[str, VOLATILE] = "auto"`."""

_STUDIES = {
    "capacity": "infocomp.studies.capacity:CapacityConfig",
    "coding": "infocomp.studies.coding_rate:CodingConfig",
    "comparison": "infocomp.studies.comparison:ComparisonConfig",
    "grokking": "infocomp.studies.grokking:GrokkingConfig",
    "information_plane": "infocomp.studies.information_plane:InformationPlaneConfig",
    "memorization": "infocomp.studies.memorization:MemorizationConfig",
    "text_memorization": "infocomp.studies.text_memorization:TextMemorizationConfig",
}


class ConfigError(ValueError):
    """Everything that is wrong with a configuration: `sentences`, and as text one a line."""

    def __init__(self, sentences: Sequence[str]):
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


class Settings(BaseModel):
    """A group of settings: frozen, strict about types, and without unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class StudyConfig(Settings):
    """What every study's configuration has: the name of the study."""

    study: str


def register_study(name: str, target: str) -> None:
    """Make `study: name` mean the model at `target`, "module:Class", which is imported when it is first asked for."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ValueError(f"target of study '{name}' must read 'module:Class', and is '{target}'.")
    if _STUDIES.get(name, target) != target:
        raise ValueError(f"study '{name}' is registered as '{_STUDIES[name]}' already; choose another name.")
    _STUDIES[name] = target


def study_names() -> list[str]:
    """The names that `study:` may have."""
    return sorted(_STUDIES)


def study_model(name: str) -> type[StudyConfig]:
    """The model of a registered study. TypeError if what is registered is none; KeyError for an unknown name."""
    module, _, attribute = _STUDIES[name].partition(":")
    model = getattr(importlib.import_module(module), attribute)
    if not (isinstance(model, type) and issubclass(model, StudyConfig)):
        raise TypeError(f"study '{name}' needs a subclass of StudyConfig, and '{_STUDIES[name]}' is {model!r}.")
    return model


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> StudyConfig:
    """The validated configuration in a YAML file or a dict, with overrides such as "estimator.bins=200" in their order.

    The value of an override is YAML; its path may go into lists ("corpora.0.name") and into groups that the file
    leaves at their default, whose other settings then keep that default. ConfigError with all sentences at once.
    """
    where, data = _read(source)
    assignments, sentences = _assignments(overrides)
    for path, value, _ in assignments:
        if path == ["study"]:
            data["study"] = value
    model = _study_model(data, where, sentences)
    for path, value, text in assignments:
        sentences += _assign(data, path, value, model, text)
    try:
        # through JSON, because strict models take a list for a tuple and a string for a path only from there
        config = model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        found = sentences_of(error, data, model, {".".join(path): text for path, _, text in assignments})
        raise ConfigError([*sentences, *found]) from error
    if sentences:
        raise ConfigError(sentences)
    return config


def config_hash(config: BaseModel) -> str:
    """SHA-256 over the canonical JSON of every setting, defaults written out, those marked VOLATILE left out."""
    canonical = json.dumps(_lasting(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, defaults written out, as YAML that `load_config` reads back equal."""
    return yaml_text.dump(config.model_dump(mode="json"))


def _lasting(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: _lasting(getattr(value, name)) for name in fields if VOLATILE not in fields[name].metadata}
    if isinstance(value, Mapping):
        return {str(key): _lasting(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lasting(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_lasting(item) for item in value), key=json.dumps)
    return to_jsonable_python(value)


# reading


def _read(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where the settings come from, and the settings as a dict of its own that holds JSON's types only."""
    where, data = ("config", source) if isinstance(source, Mapping) else (str(source), _read_file(Path(source)))
    if data is None:
        raise ConfigError([f"{where}: the file is empty; it needs at least a 'study'."])
    if not isinstance(data, Mapping):
        raise ConfigError([f"{where}: settings by name are needed, such as 'study: …', and it holds {shown(data)}."])
    try:
        return where, to_jsonable_python(data)
    except ValueError as error:  # an object without a JSON form, a list that holds itself
        raise ConfigError([f"{where}: {error}."]) from error


def _read_file(path: Path) -> Any:
    path = path.expanduser()
    if path.is_dir():
        raise ConfigError([f"{path}: this is a folder, and a YAML file is needed."])
    try:
        return yaml_text.parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        names = [entry.name for entry in path.parent.glob("*")]
        raise ConfigError([f"{path}: there is no such file{did_you_mean(path.name, names)}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 at byte {error.start:,}; write it as UTF-8."]) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}."]) from error
    except yaml_text.YamlError as error:
        raise ConfigError(error.sentences) from error


def _study_model(data: dict[str, Any], where: str, sentences: list[str]) -> type[StudyConfig]:
    name = data.get("study")
    known = f"; known studies: {', '.join(map(repr, study_names()))}"
    if name is None:
        raise ConfigError([*sentences, f"study: is required and missing in {where}{known}."])
    if name not in study_names():
        ending = did_you_mean(str(name), study_names(), known)
        raise ConfigError([*sentences, f"study: there is no study {shown(name)}{ending}"])
    return study_model(name)


# --set


def _assignments(overrides: Sequence[str]) -> tuple[list[tuple[list[str], Any, str]], list[str]]:
    """Path, value and text of each override that can be read, and a sentence for each that cannot."""
    assignments, sentences = [], []
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            sentences.append(f"--set {text}: must read path=value, as in estimator.bins=200.")
            continue
        try:
            assignments.append((keys, yaml_text.parse(value, f"--set {text}"), text))
        except yaml_text.YamlError as error:
            sentences += error.sentences
    return assignments, sentences


def _assign(data: dict[str, Any], path: list[str], value: Any, model: type[BaseModel], text: str) -> list[str]:
    """Write one value into the settings; a sentence if there is no place for it. Names are left to the validation."""
    here: Any = data
    annotations = plain_annotations(model)
    for depth, key in enumerate(path):
        upper = ".".join(path[:depth])
        if isinstance(here, list) and not (key.isdecimal() and int(key) < len(here)):
            entries = f"{len(here)} {'entry' if len(here) == 1 else 'entries'}"
            return [f"{upper}: has {entries}, counted from 0, and none is '{key}' (--set {text})."]
        if not isinstance(here, list | dict):
            return [f"{upper}: is {shown(here)}, which holds no '{key}'; set '{upper}' as a whole (--set {text})."]
        place: Any = int(key) if isinstance(here, list) else key
        if depth == len(path) - 1:
            here[place] = value
            return []
        if isinstance(here, dict) and here.get(place) is None:
            here[place] = _default(annotations, key)
        here = here[place]
        annotations = inner_annotations(annotations, place)
    return []


def _default(annotations: list[Any], key: str) -> Any:
    """What a setting holds when nothing is said about it, so that an override of a part leaves the rest of it alone."""
    for annotation in annotations:
        field = getattr(annotation, "model_fields", {}).get(key)
        if field is None or field.is_required():
            continue
        default = field.get_default(call_default_factory=True, validated_data={})
        if default is not None:
            return to_jsonable_python(default)
    return {}
