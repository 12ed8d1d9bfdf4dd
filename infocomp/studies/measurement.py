"""One model on one prepared corpus: one forward pass for every site, every label and the coding rate, as rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from infocomp.activations.capture import capture
from infocomp.activations.sites import layer_of, resolve_sites
from infocomp.activations.stream import Probe, stream
from infocomp.coding.rate import CodeLength
from infocomp.corpora.windows import document_of
from infocomp.estimators import Estimate, LabelGroups, SoftInformation
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.studies.also import ReservoirProbe, other_estimates
from infocomp.studies.information_probe import SINK_RATIO, CentreProbe, InformationProbe, scratch_needed
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import AlsoSettings, ComputeSettings, EstimatorSettings
from infocomp.studies.token_channel import TokenChannel
from infocomp.units import bits

CONTROL_SITE = "control.gaussian"
CONTROL_BATCH = 4096
INFLUENCE_GROUPS = 512
Row = dict[str, Any]
Weights = list[tuple[Row, dict[str, np.ndarray]]]  # key columns of a number, and what groups of documents weigh in it
Further = Callable[[str, str, SoftInformation], None]  # site, rows, its assignments


@dataclass(frozen=True)
class Measured:
    """Rows of the table, the code length of each document, and what groups of documents weigh in each number."""

    rows: list[Row]
    documents: list[Row]
    influence: list[tuple[Row, dict[str, np.ndarray]]] = field(default_factory=list)


def measure_corpus(
    model: PreTrainedModel,
    prepared: PreparedCorpus,
    sites: Sequence[str],
    estimator: EstimatorSettings,
    compute: ComputeSettings,
    about: Mapping[str, Any],
    scratch: Path,
    progress: Callable[[int], None] | None = None,
    also: AlsoSettings | None = None,
    beside: Sequence[Probe] = (),
    further: Further | None = None,
) -> Measured:
    """Complexity, expressivity and the rest at every site, and bits per token and byte, from one forward pass.

    `about` holds the columns that are the same in every row (model, revision, fingerprint, …). `beside` are probes of
    the caller's that the same pass feeds; `further` is shown the assignments of each site while they last.
    """
    start = time.perf_counter()
    names = resolve_sites(model, list(sites))
    centres, directions = _pilot(model, prepared, names, estimator, compute)
    on_disk = scratch_needed(
        len(names) * len(estimator.rows), prepared.n_rows, estimator.draws, estimator.bins, compute.memory_budget
    )
    widths, attention = widths_of(model, names)
    states = {
        (name, rows): SoftInformation(
            widths[name],
            bins=estimator.bins,
            draws=estimator.draws,
            seed=estimator.seed,
            temperature=estimator.temperature,
            centre=centres[name] if rows in ("centred", "outliers_removed") else None,
            directions=directions[name] if rows == "outliers_removed" else None,
            scratch=scratch if on_disk else None,
        )
        for name in names
        for rows in estimator.rows
    }
    information, rate = InformationProbe(states), CodeLength(model)
    try:
        probes: list[Probe] = [information, rate, *beside]
        sampled = None if also is None else ReservoirProbe(widths, min(also.sample, prepared.n_rows), estimator.seed)
        stream(model, prepared.windows, [*probes, sampled] if sampled else probes, compute.batch_tokens, progress)
        shared = _shared(prepared, estimator, compute) | {"attention": attention} | dict(about)
        rows: list[Row] = []
        influence: list[tuple[Row, dict[str, np.ndarray]]] = []
        for (site, variant), state in states.items():
            found, weights = information_rows(state, site, variant, prepared.groups, estimator, prepared, shared)
            rows, influence = rows + found, influence + weights
            if further is not None:
                further(site, variant, state)
            state.close()
        rows += _sink_rows(information, shared)
        if also is not None and sampled is not None:
            for site, name, estimate in other_estimates(sampled, prepared, also, estimator.bins, estimator.seed):
                about = {"site": site, "layer": layer_of(site), "rows": "raw", "estimator": name}
                rows.append({**shared, **about, "seed": estimator.seed, **estimate_columns(estimate)})
        rate_rows, documents = _rate_rows(rate, prepared, shared)
        seconds = time.perf_counter() - start
        return Measured([{**row, "seconds": seconds} for row in rows + rate_rows], documents, influence)
    finally:
        for state in states.values():
            state.close()


def measure_control(
    dim: int,
    prepared: PreparedCorpus,
    estimator: EstimatorSettings,
    compute: ComputeSettings,
    about: Mapping[str, Any],
    scratch: Path,
) -> Measured:
    """The same labels against random Gaussian rows: what every estimate reads where nothing is there."""
    on_disk = scratch_needed(1, prepared.n_rows, estimator.draws, estimator.bins, compute.memory_budget)
    state = SoftInformation(
        dim,
        bins=estimator.bins,
        draws=estimator.draws,
        seed=estimator.seed,
        temperature=estimator.temperature,
        scratch=scratch if on_disk else None,
    )
    generator = torch.Generator().manual_seed(estimator.seed)
    try:
        for begin in range(0, prepared.n_rows, CONTROL_BATCH):
            count = min(CONTROL_BATCH, prepared.n_rows - begin)
            state.update(torch.randn(count, dim, generator=generator))
        shared = _shared(prepared, estimator, compute) | dict(about)
        rows, _ = information_rows(state, CONTROL_SITE, "raw", prepared.groups, estimator, prepared, shared)
    finally:
        state.close()
    return Measured(rows, [])


def information_rows(
    state: SoftInformation,
    site: str,
    variant: str,
    groups: list[LabelGroups],
    estimator: EstimatorSettings,
    prepared: PreparedCorpus,
    shared: Mapping[str, Any],
) -> tuple[list[Row], list[tuple[Row, dict[str, np.ndarray]]]]:
    """Every estimate of one site as rows, and the influence of groups of documents on those that have one."""
    joint = prepared.token_joint
    channel = None if joint is None else TokenChannel(joint)
    keys = prepared.windows.row_tokens
    estimates = state.estimate(groups, estimator.weighting, estimator.min_count, keys, channel)
    if channel is not None:
        estimates += channel.estimates(estimates)
    common = {**shared, "site": site, "layer": layer_of(site), "rows": variant, "estimator": "soft"}
    common |= {"seed": estimator.seed, "centre_shift": state.centre_shift()}
    influence = [
        (
            {"site": site, "rows": variant, "estimator": "soft", "corpus": prepared.name}
            | {name: getattr(estimate, name) for name in ("quantity", "label", "weighting")},
            {name: grouped(of) for name, of in estimate.influence.items()},
        )
        for estimate in estimates
        if estimate.influence is not None
    ]
    return [{**common, **estimate_columns(estimate)} for estimate in estimates], influence


def grouped(influence: Float[np.ndarray, "documents"]) -> Float[np.ndarray, "groups"]:
    """Influence of at most 512 groups of documents, in which far more documents lose nothing that matters."""
    group = np.arange(len(influence)) % INFLUENCE_GROUPS
    return np.bincount(group, weights=influence)


def estimate_columns(estimate: Estimate) -> Row:
    """The columns that an estimate fills."""
    names = "quantity value unit label order weighting draw efficiency null null_rows ceiling std_error"
    names += " point point_error lower lower_error upper upper_error draw_std n_labels"
    columns = {name: getattr(estimate, name) for name in names.split()}
    low, high = estimate.interval or (None, None)
    return columns | {
        "n_tokens": estimate.n,
        "singleton_mass": estimate.singleton_mass,
        "ci_low": low,
        "ci_high": high,
        "status": estimate.status,
        "message": estimate.message or None,
    }


def _shared(prepared: PreparedCorpus, estimator: EstimatorSettings, compute: ComputeSettings) -> Row:
    settings: dict[str, Any] = {"bins": estimator.bins, "draws": estimator.draws}
    settings["orders"] = sorted({label.order for label in prepared.labels if label.order is not None})
    settings |= {"temperature": estimator.temperature or "exact", "min_count": estimator.min_count}
    settings |= {"stride": prepared.settings.stride, "tokenizer": prepared.tokenizer}
    settings |= {"skip_first": prepared.settings.skip_first}
    if "outliers_removed" in estimator.rows:
        settings["outlier_directions"] = estimator.outlier_directions
    return {
        "corpus": prepared.name,
        "n_documents": prepared.corpus.n_documents,
        "dtype": compute.dtype,
        "attention": compute.attention,
        "bos": prepared.settings.bos,
        "packing": prepared.settings.packing,
        "in_training": prepared.settings.trained_on,
        "context_length": prepared.settings.context_length,
        "settings": settings,
    }


def _sink_rows(information: InformationProbe, shared: Mapping[str, Any]) -> list[Row]:
    """How many rows of each site look like attention sinks in spite of `skip_first`."""
    common = {**shared, "quantity": "sink_share", "unit": "ratio", "rows": "raw", "estimator": "row_norm"}
    return [
        {
            **common,
            "site": site,
            "layer": layer_of(site),
            "draw": "mean",
            "value": sinks.share,
            "n_tokens": sinks.n,
            "status": "ok",
            "message": f"rows longer than {SINK_RATIO:g} times their median, {sinks.median_norm:.4g}",
        }
        for site, sinks in information.sinks().items()
    ]


def _rate_rows(rate: CodeLength, prepared: PreparedCorpus, shared: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
    nats = rate.nats()
    tokens, size = len(nats), prepared.scored_bytes
    total, unigram = bits(float(nats.sum())), bits(prepared.unigram_nats)
    common = {**shared, "site": "logits", "estimator": "code_length", "draw": "mean", "n_tokens": tokens}
    rows = [
        {
            **common,
            "quantity": "bits_per_token",
            "value": total / tokens,
            "null": unigram / tokens,
            "unit": "bits/token",
        },
        {**common, "quantity": "bits_per_byte", "value": total / size, "null": unigram / size, "unit": "bits/byte"},
        {**common, **_bound_of_raw_state(nats, prepared)},
    ]
    owner = {name: shared[name] for name in ("model", "revision", "corpus")}
    documents = [
        {**owner, "document": name, "n_tokens": count, "n_bytes": n_bytes, "bits": bits(length)}
        for name, count, n_bytes, length in prepared.document_rates(nats)
    ]
    return rows, documents


def _bound_of_raw_state(nats: np.ndarray, prepared: PreparedCorpus) -> Row:
    """H(Y) − cross-entropy of the model, bits: a lower bound on I(Y; Z) of the raw state Z before the head, not of J.

    Y is the scored token; both parts are means over the same tokens, with their standard error over documents.
    """
    tokens = prepared.corpus.tokens[prepared.windows.scored_tokens]
    counts = np.bincount(tokens)
    surprise = -np.log(counts[tokens] / len(tokens))
    gains = surprise - nats
    owner = document_of(prepared.corpus, prepared.windows.scored_tokens)
    influence = np.bincount(owner, weights=gains - gains.mean(), minlength=prepared.corpus.n_documents) / len(nats)
    enough = prepared.corpus.n_documents >= FEWEST_DOCUMENTS
    error = bits(standard_error(influence)) if enough else None
    value = bits(float(gains.mean()))
    width = quantile(prepared.corpus.n_documents) if enough else 0.0
    row: Row = {"quantity": "expressivity_bound", "label": "token", "order": 1, "weighting": "frequency"}
    row |= {"value": value, "unit": "bits", "ceiling": bits(float(surprise.mean())), "std_error": error}
    if error is not None:
        row |= {"ci_low": value - width * error, "ci_high": value + width * error}
    message = "H(Y) − cross-entropy: a lower bound on I(Y; Z) of the raw state Z (not on I(Y; J)), "
    return row | {"message": message + "for text that the model was not trained on"}


def _pilot(
    model: PreTrainedModel,
    prepared: PreparedCorpus,
    sites: Sequence[str],
    estimator: EstimatorSettings,
    compute: ComputeSettings,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Centre and outlier directions of each site from the first tokens; no pass where no variant needs them."""
    outliers = "outliers_removed" in estimator.rows
    if not outliers and "centred" not in estimator.rows:
        return {}, {}
    pilot = CentreProbe(sites, outliers)
    stream(model, prepared.windows, [pilot], compute.batch_tokens, first_tokens=estimator.pilot_tokens)
    return pilot.centres(), pilot.directions(estimator.outlier_directions) if outliers else {}


def widths_of(model: PreTrainedModel, sites: Sequence[str]) -> tuple[dict[str, int], str | None]:
    """Width of the activations at each site, from one position, and the attention that they are read with."""
    device = next(model.parameters()).device
    ids = torch.zeros((1, 1), dtype=torch.int64, device=device)
    with torch.inference_mode(), capture(model, sites) as acts:
        model.base_model(input_ids=ids, use_cache=False)
        return {site: acts[site].shape[-1] for site in sites}, acts.attention
