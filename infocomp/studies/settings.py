"""What the configuration of an information plane says: which model, which texts, which estimator, which machine."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from infocomp.corpora.settings import TextSettings
from infocomp.training.series import SeriesSettings


def as_tuple(value: object) -> object:
    """A list as a tuple, so that frozen settings hold nothing that can change."""
    return tuple(value) if isinstance(value, list) else value


def as_bytes(value: object) -> object:
    """ "4 GiB", "512 MB" or a number of bytes as an integer."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([\d.]+)\s*([kKMGT]?)(i?)B?\s*", value)
        if match is None:
            raise ValueError(f"a size such as '4 GiB' or 4294967296 is needed, got {value!r}")
        power = "kMGT".find(match[2].replace("K", "k")) + 1 if match[2] else 0
        return int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    return value


Sizes = Annotated[int, BeforeValidator(as_bytes), Field(gt=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class Settings(BaseModel):
    """Frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


FIELDS_OF = {
    "repository": ("hub", "single"),
    "path": ("folder", "single"),
    "revision": ("single",),
    "revisions": ("hub", "folder", "series"),
    "batch_tokens": ("folder", "series"),
    "cache_dir": ("hub", "single"),
    "keep": ("hub", "single"),
    "endpoint": ("hub", "single"),
}


class ModelSettings(Settings):
    """Where the checkpoints come from; `name` is what the table calls the model.

    hub: a repository and the revisions to take ("all", a list, {from, to, every} or {log_spaced: n}). Downloads go to
        `cache_dir` and are removed after use (`keep: true` leaves them); without a `cache_dir` to the usual cache.
    folder: a local folder of checkpoint folders. single: one model, a local folder or a repository.
    series: a small GPT-NeoX trained by this run on `text` (the built-in one by default), saved in OUT/checkpoints.
    """

    source: Literal["hub", "folder", "single", "series"]
    name: str | None = None
    repository: str | None = None
    path: str | None = None
    revision: str | None = None
    revisions: Any = "all"
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    cache_dir: str | None = None
    keep: bool = False
    endpoint: str | None = None
    series: SeriesSettings | None = None
    text: TextSettings | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ModelSettings":
        needed = {"hub": ("repository",), "folder": ("path",), "single": ("path", "repository"), "series": ()}
        names = needed[self.source]
        if names and not any(getattr(self, name) for name in names):
            raise ValueError(f"source {self.source!r} needs {' or '.join(names)}")
        for name, sources in FIELDS_OF.items():
            if self.source not in sources and getattr(self, name) not in (None, "all", False):
                raise ValueError(f"{name!r} belongs to source {' or '.join(sources)}, and source is {self.source!r}")
        if self.source != "series" and (self.series is not None or self.text is not None):
            raise ValueError(f"'series' and 'text' describe a model that is trained here; source is {self.source!r}")
        return self

    @property
    def table_name(self) -> str:
        """The column `model`."""
        return self.name or self.repository or self.path or "mini-pythia"


class CorpusSettings(Settings):
    """One text, how it is cut into windows, and what the model knows of it.

    `builtin` is the standard library of this Python: `held_out` packages, or those the demo's model is trained on.
    `bos`: no beginning-of-sequence token, one before each document, or one before each window. `skip_first` positions
    at the start of every window (a BOS counts) are left out of the measured rows, at every site alike: the first one is
    the attention sink of most models (Xiao et al. 2023, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762). n-grams
    of order n leave out the first n − 1 in any case. `max_tokens` limits the
    whole text, `document_tokens` each document, so that a short text still holds many of them. `in_training` says
    whether the model was trained on it; for a `text` that says so itself it is not needed.
    """

    name: Annotated[str, Field(min_length=1)]
    builtin: Literal["held_out", "training"] | None = None
    text: TextSettings | None = None
    context_length: Annotated[int, Field(ge=2)] = 512
    stride: Annotated[int, Field(ge=1)] | None = None
    bos: Literal["none", "document", "window"] = "none"
    packing: bool = False
    skip_first: Annotated[int, Field(ge=0)] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    document_tokens: Annotated[int, Field(ge=1)] | None = None
    in_training: Literal["known", "likely", "unknown", "no"] | None = None

    @model_validator(mode="after")
    def _one_text(self) -> "CorpusSettings":
        if (self.builtin is None) == (self.text is None):
            raise ValueError("exactly one of 'builtin' and 'text' is needed")
        return self

    @property
    def trained_on(self) -> str:
        """Whether the model was trained on this text, as far as the user says: the column `in_training`."""
        return self.in_training or (self.text.in_training if self.text is not None else "unknown")


class EstimatorSettings(Settings):
    """Of `SoftInformation`: m bins, anchor draws and their seed, temperature (exact by default), variants.

    Rows are taken raw, `centred`, or `outliers_removed`: centred and without the `outlier_directions` directions of
    largest variance. Centre and directions are those of the first `pilot_tokens` tokens, read in a pass of their own.
    """

    bins: Annotated[int, Field(ge=2)] = 100
    draws: Annotated[int, Field(ge=1)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    temperature: Annotated[float, Field(gt=0)] | None = None
    rows: Annotated[
        tuple[Literal["raw", "centred", "outliers_removed"], ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] = ("raw",)
    outlier_directions: Annotated[int, Field(ge=1)] = 3
    weighting: Annotated[
        tuple[Literal["frequency", "uniform", "uniform_mixed"], ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] = ("frequency",)
    min_count: Annotated[int, Field(ge=2)] = 5
    pilot_tokens: Annotated[int, Field(ge=1)] = 20_000
    orders: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        1,
        2,
        3,
        4,
    )


OtherEstimator = Literal["kmeans", "ross", "renyi", "gaussian", "infonce"]


class AlsoSettings(Settings):
    """Estimators beside the soft one, on `sample` rows of each site, about n-grams of these orders.

    kmeans: hard bins (MiniBatchKMeans). ross: nearest neighbours (Ross 2014). renyi: matrix-based. gaussian: both laws
    Gaussian. infonce: a trained lower bound.
    """

    estimators: Annotated[tuple[OtherEstimator, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    sample: Annotated[int, Field(ge=64)] = 16_384
    orders: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        1,
    )


def as_also(value: object) -> object:
    """A list of names as the settings that hold it."""
    return {"estimators": value} if isinstance(value, list | tuple) else value


class BottleneckSettings(Settings):
    """Which bottleneck curves of the text's tokens are solved: one for each number of clusters, `points` betas each.

    `held_out` adds curves learnt on one half of the documents and scored on the other, `repeats` solves so many points
    of the largest curve again, with ten times the steps.
    """

    clusters: Annotated[tuple[Annotated[int, Field(ge=2)], ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        64,
        256,
    )
    points: Annotated[int, Field(ge=2)] = 30
    restarts: Annotated[int, Field(ge=2)] = 2
    held_out: bool = True
    repeats: Annotated[int, Field(ge=0)] = 3


class ComputeSettings(Settings):
    """The machine: none of it but dtype, attention and device changes a number beyond rounding."""

    device: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    batch_tokens: Annotated[int, Field(ge=1)] = 4096
    memory_budget: Sizes = 4 * 2**30
    threads: Annotated[int, Field(ge=1)] | None = None
    scratch: str | None = None


DEFAULT_SITES = ("hook_embed", "blocks.*.hook_resid_post", "ln_final.hook_normalized")
