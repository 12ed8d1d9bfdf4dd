"""One model on one data set: one forward pass for informations, rate, preference, spectra, curvature, Shepard's law."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from infocomp.activations.sites import layer_of, resolve_sites
from infocomp.coding.rate import plain_head
from infocomp.estimators import Estimate, SoftInformation
from infocomp.estimators.halves import FEWEST_DOCUMENTS
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.numbers import quantile, standard_error
from infocomp.execution.runner import UnitResult
from infocomp.geometry.growth import growth
from infocomp.geometry.intrinsic_dimension import intrinsic_dimension
from infocomp.geometry.scatter import scratch_needed
from infocomp.geometry.shepard import confusion, distances, shepard
from infocomp.geometry.spectrum import Spectrum, sampled_spectrum, spectrum_of, spectrum_of_rows
from infocomp.geometry.views import dime, info_nce, lidar
from infocomp.studies.comparison_data import PreparedData
from infocomp.studies.comparison_pair_probe import logits_of
from infocomp.studies.comparison_preference import baseline_rows, information_rows, probe_rows
from infocomp.studies.comparison_probes import GeometryProbe, ViewsProbe
from infocomp.studies.measurement import Row, Weights, estimate_columns, grouped, measure_corpus, widths_of

if TYPE_CHECKING:
    from infocomp.studies.comparison import ComparisonConfig

_log = logging.getLogger(__name__)
Advance = Callable[[int], None]
CONTROL_DRAW = "control draw"  # role of one draw of random weights; their mean has the role "control"
OF_PREFERENCE = ("preference_information", "probe_accuracy", "probe_bits")  # what the control is there for


def measure_model(
    model: PreTrainedModel,
    data: PreparedData,
    config: "ComparisonConfig",
    columns: Mapping[str, Any],
    about: Mapping[str, Any],
    scratch: Path,
    advance: Advance,
) -> UnitResult:
    """Every row of one checkpoint on one data set. `columns` say which checkpoint, `about` are settings of every row.

    Of random weights only what belongs to preference is measured.
    """
    control = about["role"] == CONTROL_DRAW
    prepared = replace(data.prepared, labels=()) if control else data.prepared
    sites = resolve_sites(model, list(config.sites))
    widths, attention = widths_of(model, sites)
    layout = data.layout(_sample_size(config), config.seed)
    head = plain_head(model)
    spectra = None if control else config.spectra
    on_disk = spectra is not None and scratch_needed(list(widths.values()), config.compute.memory_budget // 2)
    geometry = GeometryProbe(
        widths,
        layout,
        items=0 if control or config.shepard is None else config.shepard.items,
        with_logits=head is None,
        with_scatter=spectra is not None,
        with_curvature=config.curvature and not control,
        scratch=scratch if on_disk else None,
    )
    views = ViewsProbe(widths, prepared.windows) if config.views and not control else None
    probes = [geometry] if views is None else [geometry, views]
    found = Rows(dict(columns) | shared_columns(data, config, attention), data.name)

    def preference(site: str, rows: str, state: SoftInformation) -> None:
        if data.pairs is not None and config.preference is not None and rows == "raw":
            information_rows(found, site, state, data.pairs, config.preference, config.seed)

    try:
        measured = measure_corpus(
            model,
            prepared,
            sites,
            config.estimator,
            config.compute,
            columns,
            scratch,
            advance,
            beside=probes,
            further=preference,
        )
        if data.pairs is not None and config.preference is not None and config.preference.probe:
            probe_rows(found, geometry, data.pairs, config.preference, config.seed)
            if not control:
                baseline_rows(found, data.pairs, config.preference, config.seed)
        if not control:
            _spectral_rows(found, geometry, config)
            _curvature_rows(found, geometry)
            with found.refusing("shepard_preference", "ratio", "logits", "sample", "held-out pairs"):
                _shepard_rows(found, geometry, config, head)
            if views is not None:
                _view_rows(found, views)
            measured.influence.extend(_rate_intervals(measured.rows, measured.documents, data.name))
        rows = [row for row in measured.rows if not control or row["quantity"] in OF_PREFERENCE]
        rows = [{**row, "settings": {**row["settings"], **data.about(), **about}} for row in rows]
        rows += [{**row, "settings": {**row["settings"], **data.about(), **about}} for row in found.rows]
        documents = [] if control else measured.documents
        return UnitResult(rows, documents, ([] if control else measured.influence) + found.influence)
    finally:
        geometry.close()


class Rows:
    """Collects estimates as rows, and what groups of documents weigh in them."""

    def __init__(self, common: Row, corpus: str) -> None:
        self.common, self.corpus = common, corpus
        self.rows: list[Row] = []
        self.influence: Weights = []

    def add(
        self,
        estimates: Iterable[Estimate],
        site: str,
        rows: str,
        estimator: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """One row an estimate; one that is NaN or infinite is refused, since it would cost all others of the unit."""
        for estimate in map(_finite, estimates):
            place = {"site": site, "layer": layer_of(site), "rows": rows, "estimator": estimator}
            columns = estimate_columns(estimate)
            self.rows.append({**self.common, **place, **columns, "settings": dict(settings or {})})
            if estimate.influence is not None and estimate.draw == "mean":
                key = {"site": site, "rows": rows, "estimator": estimator, "corpus": self.corpus}
                key |= {name: getattr(estimate, name) for name in ("quantity", "label", "weighting")}
                self.influence.append((key, {name: grouped(of) for name, of in estimate.influence.items()}))

    @contextmanager
    def refusing(self, quantity: str, unit: str, site: str, rows: str, estimator: str, **about: Any) -> Iterator[None]:
        """Where data are too odd for a measure (ValueError), one refused row that names it, in place of its rows.

        Only a Refusal is expected and silent; another ValueError is logged too. Any other error fails the unit.
        """
        try:
            yield
        except ValueError as reason:
            message = f"{quantity} at {site}: {' '.join(str(reason).split()).rstrip('.')}."
            if not isinstance(reason, Refusal):
                _log.warning("%s: refused, %s", self.corpus, message)
            refused = Estimate(quantity, None, unit, 0, status="refused", message=message, **about)
            self.add([refused], site, rows, estimator)


def _finite(estimate: Estimate) -> Estimate:
    """The estimate, or a refused one where a number of an "ok" one is NaN or infinite."""
    if estimate.status != "ok":
        return estimate
    numbers = {field.name: getattr(estimate, field.name) for field in fields(estimate)}
    ends = dict(zip(("ci_low", "ci_high"), numbers.pop("interval") or (), strict=False))
    bad = [name for name, of in (numbers | ends).items() if isinstance(of, float) and not np.isfinite(of)]
    if not bad:
        return estimate
    message = "; ".join(filter(None, (f"not defined: {' and '.join(bad)} not finite", estimate.message)))
    kept = {name: numbers[name] for name in ("quantity", "unit", "n", "label", "order", "weighting", "draw")}
    return Estimate(**kept, value=None, status="refused", message=message)


def shared_columns(data: PreparedData, config: "ComparisonConfig", attention: str | None) -> Row:
    settings = data.prepared.settings
    return {
        "corpus": data.name,
        "n_documents": data.prepared.corpus.n_documents,
        "dtype": config.compute.dtype,
        "attention": attention,
        "bos": settings.bos,
        "in_training": settings.trained_on,
        "context_length": settings.context_length,
        "seed": config.seed,
    }


def _sample_size(config: "ComparisonConfig") -> int:
    sizes = [config.shepard.items if config.shepard is not None else 2]
    return max([*sizes, config.spectra.sample if config.spectra is not None else 2])


def _rate_intervals(rows: list[Row], documents: Sequence[Mapping[str, Any]], corpus: str) -> Weights:
    """Standard error and interval of bits per byte over documents (a ratio of sums), in place; the influences."""
    bits, sizes = (np.array([document[name] for document in documents], float) for name in ("bits", "n_bytes"))
    if len(bits) < FEWEST_DOCUMENTS:
        return []
    for row in rows:
        if row["quantity"] == "bits_per_byte" and row["estimator"] == "code_length":
            influence = (bits - row["value"] * sizes) / sizes.sum()
            error = standard_error(influence)
            width = quantile(len(bits)) * error
            row |= {"std_error": error, "ci_low": row["value"] - width, "ci_high": row["value"] + width}
            key = {"site": row["site"], "estimator": "code_length", "corpus": corpus, "quantity": "bits_per_byte"}
            return [(key, {"value": grouped(influence)})]
    return []


def _spectral_rows(found: Rows, geometry: GeometryProbe, config: "ComparisonConfig") -> None:
    """Spectra of all rows, of the sample with intervals, of last rows; growth with n; intrinsic dimension."""
    settings = config.spectra
    if settings is None:
        return
    ranks = (settings.rank_from, settings.rank_to)
    documents = geometry.layout.documents[geometry.layout.sampled]
    for site in geometry.sites:
        rows, spectrum = geometry.sample[site], ("rankme", "count", site)
        with found.refusing(*spectrum, "all", "spectrum"):
            whole = spectrum_of(geometry.scatters[site], *ranks)
            found.add(whole.estimates(), site, "all", "spectrum", _fit(whole))
            for estimate in whole.eigenvalue_estimates():
                found.add([replace(estimate, order=None)], site, "all", "spectrum", {"rank": estimate.order})
        geometry.scatters[site].close()
        with found.refusing(*spectrum, "sample", "spectrum"):
            sampled, estimates = sampled_spectrum(rows, documents, *ranks)
            found.add(estimates, site, "sample", "spectrum", _fit(sampled))
        with found.refusing(*spectrum, "last", "spectrum"):
            last = spectrum_of_rows(np.concatenate(geometry.last[site]).astype(np.float64), *ranks)
            found.add(last.estimates(), site, "last", "spectrum", _fit(last))
        if settings.growth:
            with found.refusing(*spectrum, "first", "spectrum"):
                for estimate in growth(rows, config.seed):
                    found.add([estimate], site, "first", "spectrum", {"n": estimate.n})
        if settings.intrinsic_dimension:
            with found.refusing("intrinsic_dimension", "count", site, "sample", "twonn"):
                found.add([intrinsic_dimension(rows, documents)], site, "sample", "twonn")


def _fit(spectrum: Spectrum) -> Row:
    """The ranks that the power law of these rows was fitted to and how well, or those asked for where there is none."""
    law = spectrum.law
    if law is None:
        return {"rank_from": spectrum.rank_from, "rank_to": spectrum.rank_to}
    return {"rank_from": law.rank_from, "rank_to": law.rank_to, "r2": law.r2, "r2_100": law.r2_100}


def _curvature_rows(found: Rows, geometry: GeometryProbe) -> None:
    for site, curvature in geometry.curvatures.items():
        with found.refusing("curvature", "radians", site, "raw", "differences"):
            found.add(curvature.estimate(), site, "raw", "differences")


def _shepard_rows(found: Rows, geometry: GeometryProbe, config: "ComparisonConfig", head: Any) -> None:
    """Both laws at every site, on the next-token distributions of the first rows of the sample."""
    if config.shepard is None or geometry.item_states is None:
        return
    states = torch.from_numpy(geometry.item_states)
    if head is not None:
        device = head[0].device
        states = logits_of(head)(states.to(device)).cpu()
    confusions = confusion(torch.log_softmax(states.float(), dim=1))
    documents = geometry.layout.documents[geometry.layout.sampled][: geometry.items]
    for site in geometry.sites:
        rows = geometry.sample[site][: geometry.items]
        try:
            estimates = shepard(confusions, distances(rows), config.seed, documents=documents).estimates()
        except Refusal as reason:
            estimates = [
                Estimate("shepard_preference", None, "ratio", geometry.items, status="refused", message=str(reason))
            ]
        found.add(estimates, site, "sample", "held-out pairs")


def _view_rows(found: Rows, views: ViewsProbe) -> None:
    """InfoNCE and DiME between the halves of a document at each layer and at neighbouring layers; LiDAR."""
    sites: Sequence[str] = views.sites
    parts = {site: views.views(site) for site in sites}
    for number, site in enumerate(sites):
        halves = parts[site]
        with found.refusing("info_nce", "bits", site, "halves", "views"):
            found.add(info_nce(halves[:, 0], halves[:, 1]), site, "halves", "views")
        with found.refusing("dime", "bits", site, "halves", "views"):
            found.add([dime(halves[:, 0], halves[:, 1])], site, "halves", "views")
        with found.refusing("lidar", "count", site, "halves", "views"):
            found.add([lidar(halves)], site, "halves", "views")
        before = sites[number - 1]
        if number and halves.shape == parts[before].shape:
            with found.refusing("info_nce", "bits", site, "layers", "views", label=f"from {before}"):
                between = info_nce(parts[before].mean(axis=1), halves.mean(axis=1))
                found.add([replace(one, label=f"from {before}") for one in between], site, "layers", "views")
