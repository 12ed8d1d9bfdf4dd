"""The study `comparison`: base and tuned models on the same data: what moved, by how much more than chance, and where.

Units: one for each checkpoint and data set (one forward pass feeds every measure of it), one with random weights for
each preference data set, one for each tuned checkpoint beside the base on each data set, and one that joins them:
differences over documents, excess over the controls, phases over steps.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from pydantic import BeforeValidator, Field
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from infocomp.activations.sites import resolve_sites
from infocomp.checkpoints.source import Checkpoint
from infocomp.config import StudyConfig
from infocomp.corpora.chat import ChatTemplate
from infocomp.corpora.pairs import PreferencePair
from infocomp.corpora.tokens import tokenizer_hash
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.session import Report
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.plotting.draw import draw_all
from infocomp.studies.coding_settings import as_section
from infocomp.studies.comparison_data import PreparedData, kept_pairs, prepare_data, read_data
from infocomp.studies.comparison_joined import joined_rows
from infocomp.studies.comparison_measures import CONTROL_DRAW, measure_model
from infocomp.studies.comparison_pairs import measure_pair
from infocomp.studies.comparison_plan import plan_comparison
from infocomp.studies.comparison_settings import (
    ComparedData,
    ComparedDataSets,
    ComparedModel,
    ComparedModels,
    PreferenceSettings,
    ShepardSettings,
    SimilaritySettings,
    SpectraSettings,
    Template,
)
from infocomp.studies.comparison_summary import comparison_summary
from infocomp.studies.information_probe import scratch_folder
from infocomp.studies.model_source import StudiedModel, corpus_cache, device_of
from infocomp.studies.planning import Plan
from infocomp.studies.settings import DEFAULT_SITES, ComputeSettings, EstimatorSettings, Names

COMPARISON_VERSION = 1  # raised where the same input gives other numbers than before
CONTROL = "random weights"


class ComparisonConfig(StudyConfig):
    """Base, tuned models, data, and what is measured. A section may be `true`, `false` or its settings."""

    study: Literal["comparison"]
    base: ComparedModel
    tuned: ComparedModels
    data: ComparedDataSets
    template: Template = "auto"
    sites: Names = DEFAULT_SITES
    estimator: EstimatorSettings = EstimatorSettings()
    spectra: Annotated[SpectraSettings | None, BeforeValidator(as_section)] = SpectraSettings()
    preference: Annotated[PreferenceSettings | None, BeforeValidator(as_section)] = PreferenceSettings()
    similarity: Annotated[SimilaritySettings | None, BeforeValidator(as_section)] = SimilaritySettings()
    shepard: Annotated[ShepardSettings | None, BeforeValidator(as_section)] = ShepardSettings()
    curvature: bool = True
    views: bool = False
    seed: Annotated[int, Field(ge=0)] = 0
    compute: ComputeSettings = ComputeSettings()

    def open(self, out: Path) -> "Comparison":
        """The study of this configuration in the folder `out`."""
        return Comparison(self, out)


class Comparison:
    """Owns units and figures; the runner knows no more of it than its public methods."""

    def __init__(self, config: ComparisonConfig, out: Path) -> None:
        for what, names in (
            ("models", [model.table_name for model in (config.base, *config.tuned)]),
            ("data sets", [data.name for data in config.data]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} need names of their own, got {', '.join(names)}; give one another `name`.")
        if CONTROL in (model.table_name for model in (config.base, *config.tuned)):
            raise ValueError(f"{CONTROL!r} is what the table calls the control; give that model another `name`.")
        self.config, self.out = config, Path(out)
        self.scratch = scratch_folder(Path(config.compute.scratch) if config.compute.scratch else None, self.out)
        self.base = StudiedModel(config.base, config.compute, self.out)
        self.tuned = [StudiedModel(model, config.compute, self.out) for model in config.tuned]
        self.advance: Any = lambda positions: None
        self.note: Any = lambda text: None
        self._prepared: dict[tuple[str, str], PreparedData] = {}
        if config.compute.threads is not None:
            torch.set_num_threads(config.compute.threads)

    @property
    def models(self) -> list[StudiedModel]:
        """Base first, then the tuned ones in the order given."""
        return [self.base, *self.tuned]

    # --- phases, figures ------------------------------------------------------------------------------------------

    def phases(self, report: Report) -> Iterator[tuple[str, list[Unit]]]:
        """Every model alone, then beside the base, then what follows from all of it."""
        self.note = report.note
        report.note(f"reading {len(self.config.data)} data set(s)")
        self.check()
        measuring = self.measuring_units()
        report.begin("measuring", self.positions(measuring=True), "token")
        self.advance = report.advance
        try:
            yield "measure", measuring
        finally:
            self._close()
        comparing = self.comparing_units()
        if comparing:
            report.begin("side by side", self.positions(measuring=False), "token")
            try:
                yield "side by side", comparing
            finally:
                self._close()
        report.end()
        yield "join", [self.joining_unit()]

    def figures(self) -> list[Path]:
        """Draw every figure that the table in the folder allows."""
        return draw_all(read(self.out), self.out / "figures")

    def summary(self, table: pd.DataFrame) -> str:
        """What the terminal says at the end."""
        return comparison_summary(table)

    def plan(self, report: Report) -> Plan:
        """What a run would need; no weights are loaded, nothing is downloaded but tokenizers and configurations."""
        return plan_comparison(self, report)

    def check(self) -> None:
        """What would fail at every checkpoint is said before the first one is loaded."""
        if not self.base.source.list():
            raise ValueError(f"base {self.base.name!r} has no checkpoint; name a folder or a repository that has one.")
        if len(self.base.source.list()) > 1:
            names = [checkpoint.revision.name for checkpoint in self.base.source.list()]
            raise ValueError(
                f"base {self.base.name!r} has {len(names)} checkpoints ({', '.join(names[:3])}, …), and one base is "
                "compared; choose one by `revisions`, and give the others as tuned models."
            )
        for model in self.models:
            resolve_sites(model.source.config(), [site for site in self.config.sites if site in DEFAULT_SITES])
        for model in self.models:
            for data in self.config.data:
                self.prepared(model, data)

    def _close(self) -> None:
        for model in self.models:
            model.close()

    # --- data -----------------------------------------------------------------------------------------------------

    @cached_property
    def _tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        return {model.name: model.source.tokenizer() for model in self.models}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {name: tokenizer_hash(tokenizer) for name, tokenizer in self._tokenizers.items()}

    @cached_property
    def template(self) -> ChatTemplate:
        """How conversations and pairs become text, for every model alike."""
        if self.config.template == "plain":
            return ChatTemplate()
        of_tuned = [self._tokenizers[model.name] for model in self.tuned]
        having = [tokenizer for tokenizer in of_tuned if getattr(tokenizer, "chat_template", None)]
        if self.config.template == "auto" and not having:
            return ChatTemplate()
        return ChatTemplate.of(having[0] if having else of_tuned[0])

    @cached_property
    def _pairs(self) -> dict[str, Sequence[PreferencePair] | None]:
        return {data.name: read_data(data) for data in self.config.data}

    @cached_property
    def _longest(self) -> int:
        """Positions that every model has: windows are no longer, so that all read the same context."""
        configs = [decoder_config(model) for model in self.models]
        known = [getattr(config, "max_position_embeddings", None) for config in configs]
        return min([size for size in known if size is not None], default=2**20)

    def prepared(self, model: StudiedModel, data: ComparedData) -> PreparedData:
        """A data set as this model reads it; models with one tokenizer share it."""
        key = (self._hashes[model.name], data.name)
        if key not in self._prepared:
            tokenizer, orders = self._tokenizers[model.name], self.config.estimator.orders
            fitting = data.model_copy(update={"context_length": min(data.context_length, self._longest)})
            self._prepared[key] = prepare_data(
                fitting, self._common_pairs(fitting), tokenizer, self.template, orders, corpus_cache()
            )
        return self._prepared[key]

    def _common_pairs(self, data: ComparedData) -> Sequence[PreferencePair] | None:
        """The pairs of a data set of which every tokenizer leaves a token of both completions."""
        pairs = self._pairs[data.name]
        distinct = {self._hashes[name]: tokenizer for name, tokenizer in self._tokenizers.items()}
        if pairs is None or len(distinct) == 1:
            return pairs
        kept = [kept_pairs(data, pairs, tokenizer, self.template) for tokenizer in distinct.values()]
        common = set.intersection(*kept)
        return [pair for place, pair in enumerate(pairs) if place in common]

    def same_tokens(self, model: StudiedModel) -> bool:
        """Whether a tuned model reads the same tokens as the base."""
        return self._hashes[model.name] == self._hashes[self.base.name]

    # --- units ----------------------------------------------------------------------------------------------------

    def about(self, model: StudiedModel, control: bool = False) -> dict[str, Any]:
        """Settings that every row of a model carries."""
        place = self.models.index(model)
        role = CONTROL_DRAW if control else "tuned" if place else "base"
        about: dict[str, Any] = {"role": role, "base": self.base.name, "place": place}
        if not self.same_tokens(model):
            about["warning"] = "another tokenizer than the base's: labels are those of this model's own tokens"
        return about

    def measuring_units(self) -> list[Unit]:
        """Each checkpoint on each data set; then random weights on each preference data set."""
        units = [
            self._model_unit(model, checkpoint, data)
            for model in self.models
            for checkpoint in model.source.list()
            for data in self.config.data
        ]
        return units + [self._control_unit(data, draw) for data in self.config.data for draw in self._controls(data)]

    def _controls(self, data: ComparedData) -> range:
        """The draws of random weights that this data set is read by."""
        wanted = data.kind == "preference" and self.config.preference is not None
        return range(self.config.preference.control if wanted and self.config.preference is not None else 0)

    def comparing_units(self) -> list[Unit]:
        """Each tuned checkpoint beside the base on each data set."""
        if self.config.similarity is None:
            return []
        return [
            self._pair_unit(model, checkpoint, data)
            for model in self.tuned
            for checkpoint in model.source.list()
            for data in self.config.data
        ]

    def positions(self, measuring: bool) -> int:
        """Positions of the forward passes of a phase, for a progress bar."""
        total = 0
        for model in self.models:
            for data in self.config.data:
                size = self.prepared(model, data).prepared.windows.total_positions
                checkpoints = len(model.source.list())
                if measuring:
                    total += size * checkpoints
                    total += size * len(self._controls(data)) if model is self.base else 0
                elif model is not self.base:
                    total += size * checkpoints
        return total

    def _settings(self, beside: bool = False) -> dict[str, Any]:
        """Settings of the measures, which decide a unit's result: of one model, or of two side by side."""
        shared = {"sites", "template", "seed"}
        own = {"similarity"} if beside else {"estimator", "spectra", "preference", "shepard", "curvature", "views"}
        return self.config.model_dump(mode="json", include=shared | own) | {"version": COMPARISON_VERSION}

    def _model_unit(self, model: StudiedModel, checkpoint: Checkpoint, data: ComparedData) -> Unit:
        prepared = self.prepared(model, data)
        describe = model.describe(checkpoint) | {"corpus": data.name}
        about = self.about(model)
        decides = model.identity(checkpoint) | {"data": prepared.identity(), "about": about}
        decides |= {"settings": self._settings()}

        def run() -> UnitResult:
            for other in self.models:
                if other is not model:
                    other.close()
            loaded = model.open(checkpoint)
            columns = describe | {"fingerprint": loaded.fingerprint, "commit": checkpoint.commit}
            return measure_model(loaded.model, prepared, self.config, columns, about, self.scratch, self.advance)

        title = f"{model.name} {checkpoint.revision.name} · {data.name}"
        return Unit(unit_name(study="comparison", **decides), title, describe, run)

    def _control_unit(self, data: ComparedData, draw: int) -> Unit:
        prepared = self.prepared(self.base, data)
        config = self.base.source.config()
        describe = {"model": CONTROL, "revision": f"draw {draw}", "corpus": data.name}
        about = self.about(self.base, control=True)
        decides = {"data": prepared.identity(), "settings": self._settings(), "about": about, "control": draw}
        decides |= {"configuration": config.to_dict() | {"_name_or_path": "", "transformers_version": ""}}
        decides |= {"compute": [self.config.compute.dtype, self.config.compute.attention]}
        decides |= {"device": device_of(self.config.compute).type}
        decides = {key: _plain(value) for key, value in decides.items()}

        def run() -> UnitResult:
            self._close()
            model = random_model(config, self.config.compute, self.config.seed + draw)
            return measure_model(model, prepared, self.config, describe, about, self.scratch, self.advance)

        return Unit(unit_name(study="comparison", **decides), f"{CONTROL}, draw {draw} · {data.name}", describe, run)

    def _pair_unit(self, model: StudiedModel, checkpoint: Checkpoint, data: ComparedData) -> Unit:
        base_checkpoint = self.base.source.list()[0]
        of_base, of_tuned = self.prepared(self.base, data), self.prepared(model, data)
        describe = model.describe(checkpoint) | {"corpus": data.name, "estimator": "side by side"}
        about = self.about(model)
        decides = {"base": self.base.identity(base_checkpoint), "tuned": model.identity(checkpoint), "about": about}
        decides |= {"data": [of_base.identity(), of_tuned.identity()], "settings": self._settings(beside=True)}

        def run() -> UnitResult:
            for other in self.tuned:
                if other is not model:
                    other.close()
            base, tuned = self.base.open(base_checkpoint), model.open(checkpoint)
            columns = model.describe(checkpoint) | {"corpus": data.name, "fingerprint": tuned.fingerprint}
            tokenizer = self._tokenizers[self.base.name]
            models = (base.model, tuned.model)
            return measure_pair(
                *models, of_base, of_tuned, self.config, columns, about, tokenizer, self.advance, self.scratch
            )

        title = f"{model.name} {checkpoint.revision.name} beside {self.base.name} · {data.name}"
        return Unit(unit_name(study="comparison pair", **decides), title, describe, run)

    def joining_unit(self) -> Unit:
        """Differences, excesses and phases, from the parts of the units that are done."""
        store, units = Store(self.out), self.measuring_units()
        done = [unit for unit in units if store.state(unit.name) == "done"]
        describe = {"model": self.base.name, "revision": "", "quantity": "differences"}
        layers = {model.name: int(decoder_config(model).num_hidden_layers) for model in self.models}
        alike = [model.name for model in self.models if self.same_tokens(model) and self._same_shape(model)]
        decides = {"units": [unit.name for unit in done], "version": COMPARISON_VERSION, "layers": layers}
        decides |= {"alike": alike, "notes": dict(self._notes())}

        def run() -> UnitResult:
            about = [(unit.name, str(unit.describe["model"]), str(unit.describe["corpus"])) for unit in done]
            return joined_rows(store, about, self.base.name, CONTROL, layers, alike, self._notes())

        return Unit(unit_name(study="comparison join", **decides), "tuned minus base", describe, run)

    def _same_shape(self, model: StudiedModel) -> bool:
        """Whether random weights of the base's shape are also random weights of this model's."""
        base, own = decoder_config(self.base), decoder_config(model)
        names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return all(getattr(base, name, None) == getattr(own, name, None) for name in names)

    def _notes(self) -> Mapping[str, str]:
        """What must be said beside every difference of a tuned model."""
        return {
            model.name: "" if self.same_tokens(model) else "tokenizers differ: each model's labels are its own tokens'"
            for model in self.tuned
        }


def decoder_config(model: StudiedModel) -> Any:
    """The part of a model's configuration that describes its decoder."""
    return model.source.config().get_text_config(decoder=True)


def random_model(config: Any, compute: ComputeSettings, seed: int) -> Any:
    """A model of the same shape with fresh weights, by the architecture's own initialisation."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=getattr(torch, compute.dtype), attn_implementation=compute.attention
        )
    return model.to(device_of(compute)).eval()


def _plain(value: Any) -> Any:
    """As JSON takes it: keys as text, everything unknown as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
