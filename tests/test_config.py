"""Configurations: what is read, what is refused and in which words, what the hash sees."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from infocomp import config
from infocomp.config import (
    VOLATILE,
    ConfigError,
    Settings,
    StudyConfig,
    config_hash,
    load_config,
    register_study,
    study_model,
    to_yaml,
)
from infocomp.corpora.settings import TextSettings


class Window(Settings):
    length: int = 64
    stride: int = 64


class Estimator(Settings):
    n_bins: Annotated[int, Field(ge=2)] = 100
    orders: tuple[Annotated[int, Field(le=4)], ...] = (1, 2, 3)
    temperature: float | None = None
    modes: int = 1
    window: Window = Window(length=32)


class Range(Settings):
    first: int
    last: int
    every: int = 1


class LogSpaced(Settings):
    log_spaced: int


class Hub(Settings):
    kind: Literal["hub"] = "hub"
    token: str | None = None


class Local(Settings):
    kind: Literal["local"]
    path: str


class Corpus(Settings):
    name: str
    text: TextSettings


class TinyStudy(StudyConfig):
    study: Literal["tiny"]
    model: str
    revisions: Literal["all"] | tuple[str | int, ...] | Range | LogSpaced = "all"
    stages: Literal["all"] | Annotated[tuple[Range | LogSpaced, ...], Field(min_length=1)] = "all"
    estimator: Estimator = Estimator(n_bins=50, temperature=0.5)
    corpora: tuple[Corpus, ...] = ()
    named: dict[str, Estimator] = Field(default_factory=dict)
    weights: dict[int, float] = Field(default_factory=dict)
    source: Annotated[Hub | Local, Field(discriminator="kind")] = Hub()
    folder: Path = Path("runs")
    tags: frozenset[str] = frozenset()
    device: Annotated[str, VOLATILE] = "auto"

    @model_validator(mode="after")
    def _named(self) -> "TinyStudy":
        if self.model == "none":
            raise ValueError("model 'none' has no weights; name another.")
        return self


MINIMAL = {"study": "tiny", "model": "m"}
CORPUS = {"name": "alice", "text": {"files": ["a.txt", "b.txt"], "in_training": "no"}}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(config, "_STUDIES", {"smallest": "nowhere:Nothing"})
    register_study("tiny", f"{__name__}:TinyStudy")


def load(source, *overrides: str) -> TinyStudy:
    loaded = load_config(source, overrides)
    assert isinstance(loaded, TinyStudy)
    return loaded


def refused(source, *overrides: str) -> list[str]:
    """The sentences of the ConfigError, each one line with an end."""
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    sentences = list(caught.value.sentences)
    assert str(caught.value) == "\n".join(sentences)
    assert all("\n" not in sentence and sentence[-1] in ".?" for sentence in sentences), sentences
    return sentences


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "c.yaml"


# reading


def test_a_yaml_file_and_the_same_dict_give_the_same_frozen_model(tmp_path):
    text = """
study: tiny
model: EleutherAI/pythia-70m
revisions: {first: 0, last: 512}
estimator:
  n_bins: 1_000
  temperature: 1e-3
corpora:
  - name: alice
    text: {files: [a.txt, b.txt], in_training: no}
weights: {1: 0.5}
folder: runs/a
"""
    loaded = load(written(tmp_path, text))
    assert loaded.revisions == Range(first=0, last=512)
    assert loaded.estimator == Estimator(n_bins=1000, temperature=0.001)
    assert loaded.corpora[0].text == TextSettings(files=("a.txt", "b.txt"), in_training="no")
    assert loaded.weights == {1: 0.5} and loaded.folder == Path("runs/a")
    assert loaded == load(
        {
            "study": "tiny",
            "model": "EleutherAI/pythia-70m",
            "revisions": Range(first=0, last=512),
            "estimator": {"n_bins": 1000, "temperature": 1e-3},
            "corpora": (CORPUS,),
            "weights": {1: 0.5},
            "folder": Path("runs/a"),
        }
    )
    with pytest.raises(ValidationError, match="frozen"):
        loaded.model = "x"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_source_dict_is_left_as_it_was():
    source = {**MINIMAL, "estimator": {"n_bins": 3}, "corpora": [CORPUS]}
    load(source, "estimator.n_bins=7", "corpora.0.name=bob")
    assert source["estimator"] == {"n_bins": 3} and CORPUS["name"] == "alice"


def test_the_module_stays_light():
    heavy = "torch transformers pandas matplotlib wandb datasets pyarrow numpy scipy"
    code = f"import sys, infocomp.config; print([name for name in {heavy.split()!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


# --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("model=other", {"model": "other"}),
        ("model=a=b", {"model": "a=b"}),
        ("revisions=[1, step2]", {"revisions": (1, "step2")}),
        ("revisions={log_spaced: 12}", {"revisions": LogSpaced(log_spaced=12)}),
        ("corpora.1.name=bob", {"corpora": (("alice", "no"), ("bob", "no"))}),
        ("corpora.0.text.in_training=likely", {"corpora": (("alice", "likely"), ("alice", "no"))}),
        ("folder=elsewhere", {"folder": Path("elsewhere")}),
        ("named.a.n_bins=3", {"named": {"a": Estimator(n_bins=3)}}),
        ("tags=[b, a]", {"tags": frozenset("ab")}),
    ],
)
def test_an_override_changes_one_value(override, value):
    source = {**MINIMAL, "corpora": [CORPUS, CORPUS]}
    changed = {name: getattr(load(source, override), name) for name in value}
    if "corpora" in changed:
        changed["corpora"] = tuple((corpus.name, corpus.text.in_training) for corpus in changed["corpora"])
    assert changed == value


def test_an_override_inside_a_group_that_is_not_written_keeps_the_rest_of_its_default():
    assert load(MINIMAL, "estimator.orders=[1]").estimator == Estimator(n_bins=50, temperature=0.5, orders=(1,))
    assert load(MINIMAL, "estimator.orders.1=4").estimator.orders == (1, 4, 3)
    assert load(MINIMAL, "estimator.window.stride=8").estimator.n_bins == 50
    written_in_part = {**MINIMAL, "estimator": {"n_bins": 3}}
    assert load({**MINIMAL, "corpora": [{"name": "a"}]}, "corpora.0.text.files=b").corpora[0].text.files == "b"
    assert load(written_in_part, "estimator.window.stride=8").estimator.window == Window(length=32, stride=8)


def test_the_last_of_two_overrides_holds():
    assert load(MINIMAL, "estimator.n_bins=7", "estimator.n_bins=8").estimator.n_bins == 8


def test_an_override_can_mend_the_file_and_name_the_study():
    assert load({"model": 3, "study": "smallest"}, "model=m", "study=tiny").model == "m"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "estimator.bins=200",
            "estimator.bins: there is no such setting, and it is 200 (--set estimator.bins=200); "
            "did you mean 'n_bins'?",
        ),
        (
            "estimater.n_bins=200",
            'estimater: there is no such setting, and it is {"n_bins": 200} (--set estimater.n_bins=200); '
            "did you mean 'estimator'?",
        ),
        (
            "estimator.n_bins=many",
            "estimator.n_bins: should be a valid integer, and is 'many' (--set estimator.n_bins=many).",
        ),
        ("estimator.n_bins=", "estimator.n_bins: should be a valid integer, and is null (--set estimator.n_bins=)."),
        (
            "corpora.2.name=x",
            "corpora: has 1 entry, counted from 0, and none is '2' (--set corpora.2.name=x).",
        ),
        (
            "corpora.first.name=x",
            "corpora: has 1 entry, counted from 0, and none is 'first' (--set corpora.first.name=x).",
        ),
        ("model.name=x", "model: is 'm', which holds no 'name'; set 'model' as a whole (--set model.name=x)."),
        (
            "estimator={bins: 3}",
            "estimator.bins: there is no such setting, and it is 3 (--set estimator={bins: 3}); did you mean 'n_bins'?",
        ),
        (
            "model=&m [*m]",
            "--set model=&m [*m]: no valid YAML: Circular reference detected (id repeated).",
        ),
        ("model", "--set model: must read path=value, as in estimator.bins=200."),
        ("=3", "--set =3: must read path=value, as in estimator.bins=200."),
        ("a..b=3", "--set a..b=3: must read path=value, as in estimator.bins=200."),
        (
            "estimator.orders=[1",
            "--set estimator.orders=[1: no valid YAML at line 1, column 3: while parsing a flow sequence "
            "expected ',' or ']', but got '<stream end>'.",
        ),
    ],
)
def test_an_override_without_a_place_or_a_meaning_is_refused(override, sentence):
    assert refused({**MINIMAL, "corpora": [CORPUS]}, override) == [sentence]


# bad settings


def test_all_that_is_wrong_is_told_at_once():
    source = {
        "study": "tiny",
        "estimator": {"n_bin": 3, "orders": [1, 9]},
        "corpora": [{"name": "a", "text": {"files": "x", "texts": ["y"]}}],
        "devise": "cpu",
        "zzz": None,
    }
    assert refused(source, "model.x", "corpora.0.nam=b") == [
        "--set model.x: must read path=value, as in estimator.bins=200.",
        "model: is required and missing.",
        "estimator.orders.1: should be less than or equal to 4, and is 9.",
        "estimator.n_bin: there is no such setting, and it is 3; did you mean 'n_bins'?",
        "corpora.0.text: exactly one of 'files', 'dataset' and 'texts' is needed, and 'files' and 'texts' are given.",
        "corpora.0.nam: there is no such setting, and it is 'b' (--set corpora.0.nam=b); did you mean 'name'?",
        "devise: there is no such setting, and it is 'cpu'; did you mean 'device'?",
        "zzz: there is no such setting, and it is null; known here: 'study', 'model', 'revisions', 'stages', "
        "'estimator', 'corpora', 'named', 'weights', 'source', 'folder', 'tags', 'device'.",
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"temperature": 1.0},
            "temperature: there is no such setting, and it is 1.0; did you mean 'estimator.temperature'?",
        ),
        ({"estimator": {"model": 2}}, "estimator.model: there is no such setting, and it is 2; did you mean 'modes'?"),
        ({"model": True}, "model: should be a valid string, and is true."),
        ({"model": "none"}, "config: model 'none' has no weights; name another."),
        ({"estimator": [1]}, "estimator: should be a group of settings, and is [1]."),
        ({"corpora": "a.txt"}, "corpora: should be a list, and is 'a.txt'."),
        (
            {"weights": {"a": 1.0}},
            "weights.a: should be a valid integer, unable to parse string as an integer, and is 'a'.",
        ),
        ({"model": 3, "folder": "x" * 200}, "model: should be a valid string, and is 3."),
        ({"estimator": {"n_bins": "y" * 200}}, f"estimator.n_bins: should be a valid integer, and is '{'y' * 77} …."),
        # a place that may hold several kinds: none fits, one fits with a fault inside, one is closest
        (
            {"revisions": "al"},
            "revisions: should be 'all' or a list or a group of settings, and is 'al'.",
        ),
        ({"revisions": [1.5]}, "revisions.0: should be a valid string or a valid integer, and is 1.5."),
        (
            {"revisions": {"first": 1, "last": 2, "evry": 3}},
            "revisions.evry: there is no such setting, and it is 3; did you mean 'every'?",
        ),
        (
            {"stages": [{"first": 1, "last": 2, "evry": 3}]},
            "stages.0.evry: there is no such setting, and it is 3; did you mean 'every'?",
        ),
        ({"source": {"kind": "local", "path": 3}}, "source.path: should be a valid string, and is 3."),
        (
            {"source": {"kind": "hug"}},
            "source: input tag 'hug' found using 'kind' does not match any of the expected tags: 'hub', 'local'; "
            'it is {"kind": "hug"}.',
        ),
        ({"stages": []}, "stages: should be 'all' or have at least 1 item, not 0, and is []."),
        ({"revisions": {"log_spaced": "x"}}, "revisions.log_spaced: should be a valid integer, and is 'x'."),
        (
            {"named": {"a": {"bins": 3}}},
            "named.a.bins: there is no such setting, and it is 3; did you mean 'n_bins'?",
        ),
    ],
)
def test_one_fault_is_one_sentence_with_its_path_and_value(settings, sentence):
    assert refused({**MINIMAL, **settings}) == [sentence]


def test_a_study_that_is_missing_or_unknown_is_refused_with_the_known_ones():
    assert refused({"model": "m"}) == ["study: is required and missing in config; known studies: 'smallest', 'tiny'."]
    assert refused({"study": "tinny"}) == ["study: there is no study 'tinny'; did you mean 'tiny'?"]
    assert refused({"study": ["tiny"]}, "x") == [
        "--set x: must read path=value, as in estimator.bins=200.",
        "study: there is no study [\"tiny\"]; did you mean 'tiny'?",
    ]
    assert refused({"study": "qqq"}) == ["study: there is no study 'qqq'; known studies: 'smallest', 'tiny'."]


def test_a_study_is_registered_once_by_a_module_and_a_class():
    with pytest.raises(ValueError, match=r"^target of study 'x' must read 'module:Class', and is 'module'\.$"):
        register_study("x", "module")
    with pytest.raises(
        ValueError, match=r"^study 'tiny' is registered as '.*:TinyStudy' already; choose another name\.$"
    ):
        register_study("tiny", "other:Study")
    register_study("list", "builtins:list")
    with pytest.raises(
        TypeError, match=r"^study 'list' needs a subclass of StudyConfig, and 'builtins:list' is <class"
    ):
        study_model("list")


# bad files


def test_yaml_that_is_none_is_refused_with_line_and_column(tmp_path):
    path = written(tmp_path, "study: tiny\nmodel: a: b\n")
    assert refused(path) == [f"{path}: no valid YAML at line 2, column 9: mapping values are not allowed here."]
    path = written(tmp_path, "study: tiny\nmodel: \x07\n")
    assert refused(path) == [
        f"{path}: no valid YAML at line 2: a control character; write it as an escape in double quotes."
    ]
    path = written(tmp_path, "study: !!timestamp 2026-13-45\n")
    assert refused(path) == [f"{path}: no valid YAML: month must be in 1..12."]
    path = written(tmp_path, "[" * 5000)
    assert refused(path)[0].startswith(f"{path}: no valid YAML: maximum recursion depth")


def test_keys_that_stand_twice_are_refused_with_their_lines(tmp_path):
    path = written(tmp_path, "study: tiny\nmodel: a\nestimator:\n  n_bins: 3\n  n_bins: 4\nmodel: b\n")
    assert refused(path) == [
        f"{path}: the key 'n_bins' stands twice, at lines 4 and 5; keep one.",
        f"{path}: the key 'model' stands twice, at lines 2 and 6; keep one.",
    ]


def test_keys_that_a_merge_overrides_do_not_stand_twice(tmp_path):
    text = "study: tiny\nmodel: m\nnamed:\n  a: &a {n_bins: 3}\n  b: &b {<<: *a, n_bins: 4}\n  c: {<<: *b, n_bins: 5}\n"
    named = load(written(tmp_path, text)).named
    assert [named[name].n_bins for name in "abc"] == [3, 4, 5]


def test_files_that_hold_no_settings_are_refused(tmp_path):
    assert refused(written(tmp_path, "# nothing\n")) == [
        f"{tmp_path}/c.yaml: the file is empty; it needs at least a 'study'."
    ]
    assert refused(written(tmp_path, "- tiny\n")) == [
        f"{tmp_path}/c.yaml: settings by name are needed, such as 'study: …', and it holds [\"tiny\"]."
    ]
    assert refused(written(tmp_path, "study: tiny\nmodel: &m [*m]\n")) == [
        f"{tmp_path}/c.yaml: no valid YAML: Circular reference detected (id repeated)."
    ]
    assert refused(tmp_path) == [f"{tmp_path}: this is a folder, and a YAML file is needed."]
    assert refused(tmp_path / "d.yaml") == [f"{tmp_path}/d.yaml: there is no such file; did you mean 'c.yaml'?"]
    assert refused(tmp_path / "no" / "c.yaml") == [f"{tmp_path}/no/c.yaml: there is no such file."]
    (tmp_path / "c.yaml").write_bytes(b"study: t\xffny")
    assert refused(tmp_path / "c.yaml") == [f"{tmp_path}/c.yaml: not UTF-8 at byte 8; write it as UTF-8."]
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfstudy: tiny\nmodel: m\n")
    assert load(tmp_path / "c.yaml").model == "m"


def test_an_object_without_a_json_form_is_refused():
    assert refused({**MINIMAL, "folder": object()}) == ["config: Unable to serialize unknown type: <class 'object'>."]


# what is written


def test_the_resolved_yaml_loads_back_equal(tmp_path):
    for overrides in (
        [],
        ["corpora=[{name: no, text: {texts: ['a\r\n', '\u2028', 'yes', '1e-3']}}]", "weights={1: .inf}", "tags=[a, b]"],
        ["revisions=[1, '1']", "estimator={temperature: 1e-30}", "folder=/x/y"],
        ["revisions={first: 0, last: 3}", "named.no={orders: []}"],
    ):
        loaded = load(MINIMAL, *overrides)
        again = load(written(tmp_path, to_yaml(loaded)))
        assert again == loaded and config_hash(again) == config_hash(loaded)


def test_the_hash_sees_every_setting_but_the_volatile_ones():
    plain = config_hash(load(MINIMAL))
    assert len(plain) == 64 and plain == config_hash(load({**MINIMAL, "device": "cuda"}))
    written_out = {**MINIMAL, "estimator": {"n_bins": 50, "temperature": 0.5, "orders": [1, 2, 3]}, "revisions": "all"}
    assert plain == config_hash(load(written_out)), "a default that is written out changes nothing"
    changes = [
        "model=n",
        "estimator.n_bins=51",
        "weights={1: 2.0}",
        "folder=x",
        "tags=[a]",
        "estimator.temperature=null",
    ]
    assert len({plain, *(config_hash(load(MINIMAL, change)) for change in changes)}) == len(changes) + 1


def test_the_hash_is_that_of_the_canonical_json_whatever_the_order_of_a_set():
    canonical = (
        '{"corpora":[],"estimator":{"modes":1,"n_bins":50,"orders":[1,2,3],"temperature":0.5,'
        '"window":{"length":32,"stride":64}},"folder":"runs","model":"é",'
        '"named":{},"revisions":"all","source":{"kind":"hub","token":null},"stages":"all","study":"tiny","tags":["alpha","beta","delta","gamma"],"weights":{"1":2.0}}'
    )
    loaded = load(MINIMAL, "model=é", "tags=[delta, alpha, gamma, beta]", "weights={1: 2}")
    assert config_hash(loaded) == hashlib.sha256(canonical.encode()).hexdigest()
