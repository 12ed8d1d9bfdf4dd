"""The same rows in a notebook: `infocomp.measure(model, tokenizer, texts)`."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from infocomp.checkpoints.integrity import check_finite, weights_fingerprint
from infocomp.corpora.labels import LabelSet
from infocomp.corpora.settings import TextSettings
from infocomp.execution.table import rows_to_table, to_frame
from infocomp.studies.measurement import measure_corpus
from infocomp.studies.prepared import PreparedCorpus, prepare_corpus
from infocomp.studies.settings import DEFAULT_SITES, ComputeSettings, CorpusSettings, EstimatorSettings

Labels = Mapping[str, Sequence[int] | np.ndarray] | Sequence[LabelSet]


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str] | PreparedCorpus,
    sites: Sequence[str] = DEFAULT_SITES,
    labels: Labels | None = None,
    *,
    name: str = "model",
    revision: str = "",
    step: int | None = None,
    context_length: int = 512,
    bos: str = "none",
    bins: int = 100,
    draws: int = 5,
    seed: int = 0,
    orders: Sequence[int] = (1, 2, 3, 4),
    batch_tokens: int = 4096,
    estimator: EstimatorSettings | None = None,
) -> pd.DataFrame:
    """Measure one model in memory on some texts: the rows that `infocomp run` writes, in bits, as a DataFrame.

    `labels` adds label sets of your own: {name: one integer per token of the texts, in the tokenizer's order, -1 for
    none}. Every text is a document of its own, so the null needs at least two. The model is measured as it is (its
    dtype, its device, in eval mode, put back afterwards) and its attention implementation is recorded. Texts that
    `prepare_texts` made ready bring their own context_length, bos and orders. `estimator` gives all of the estimator's
    settings at once, in place of bins, draws, seed and orders (centred rows, weighting, min_count, temperature).

    Raises ValueError for texts without a token or with one that the model lacks, windows longer than the model reads,
    labels that do not fit, NaN in weights or activations; KeyError for an unknown site.
    """
    estimator = estimator or EstimatorSettings(bins=bins, draws=draws, seed=seed, orders=tuple(orders))
    prepared = (
        texts
        if isinstance(texts, PreparedCorpus)
        else prepare_texts(texts, tokenizer, context_length=context_length, bos=bos, orders=estimator.orders)
    )
    if labels is not None:
        prepared = with_labels(prepared, labels)
    check_finite(model, name)
    dtype: Any = str(model.dtype).removeprefix("torch.")
    compute = ComputeSettings(dtype=dtype, batch_tokens=batch_tokens)
    about = {"model": name, "revision": revision, "step": step, "fingerprint": weights_fingerprint(model)}
    with evaluating(model), tempfile.TemporaryDirectory(prefix="infocomp-") as scratch:
        measured = measure_corpus(model, prepared, sites, estimator, compute, about, Path(scratch))
    return to_frame(rows_to_table(measured.rows))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module is back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def prepare_texts(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str = "texts",
    context_length: int = 512,
    bos: str = "none",
    orders: Sequence[int] = (1, 2, 3, 4),
) -> PreparedCorpus:
    """Tokenise and label texts once, to be measured many times. Each text is one document."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, one a document, not one string.")
    settings: dict[str, Any] = {"name": name, "context_length": context_length, "bos": bos}
    corpus = CorpusSettings(text=TextSettings(texts=tuple(texts)), **settings)
    return prepare_corpus(corpus, tokenizer, tuple(orders))


def with_labels(prepared: PreparedCorpus, labels: Labels) -> PreparedCorpus:
    """The same corpus with more label sets; integers per token become integers per measured row.

    ValueError: another number of labels than tokens, a label below -1, a name that is taken. TypeError: no integers.
    """
    given = (
        [LabelSet(name, None, "input", np.asarray(ids)) for name, ids in labels.items()]
        if isinstance(labels, Mapping)
        else list(labels)
    )
    n_tokens = len(prepared.corpus.tokens)
    taken = {(label.direction, label.name) for label in prepared.labels}
    more = []
    for label in given:
        if (label.direction, label.name) in taken:
            raise ValueError(f"labels {label.name!r} are there already as {label.direction} labels; take another name.")
        taken.add((label.direction, label.name))
        if len(label.ids) != n_tokens:
            raise ValueError(
                f"labels {label.name!r} has {len(label.ids)} entries, the texts have {n_tokens} tokens: "
                "one integer per token is needed, -1 where a token has no label."
            )
        if not np.issubdtype(label.ids.dtype, np.integer):
            raise TypeError(f"labels {label.name!r} must be integers, got {label.ids.dtype}.")
        if label.ids.min() < -1:
            raise ValueError(f"labels {label.name!r} must be at least -1 (no label), got {label.ids.min()}.")
        more.append(LabelSet(label.name, label.order, label.direction, label.ids[prepared.windows.row_tokens]))
    extended = replace(prepared, labels=[*prepared.labels, *more])
    # labels gathered before are gathered once
    extended.__dict__["partner"] = prepared.partner
    extended.__dict__["groups"] = [*prepared.groups, *extended.gathered(more)]
    return extended
