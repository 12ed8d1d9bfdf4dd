"""What a comparison would need before it is run: passes, weights, memory, and a rough time from a short calibration."""

from typing import TYPE_CHECKING

from infocomp.checkpoints.source import HubSource
from infocomp.execution.session import Report
from infocomp.execution.store import Store
from infocomp.geometry.scatter import BLOCK, bytes_needed, scratch_needed
from infocomp.studies.comparison_pair_probe import LOGITS_AT_ONCE
from infocomp.studies.model_source import device_of
from infocomp.studies.planning import FIGURE_SECONDS, LOADING_BYTES_A_SECOND, LOADING_SECONDS, Plan, calibrate

if TYPE_CHECKING:
    from infocomp.studies.comparison import Comparison

BESIDE = 2.5  # passes of both models with their moments in float64, over a measured pass of one
EIGENVALUES_A_SECOND = 1.5e9  # d³ of two symmetric eigenproblems on two cores
MEASURES_A_SITE = 4.0  # seconds of intrinsic dimension, growth and probes at one site, on two cores
READING = 12  # matrices of a site's width while its alignment is read: copies, eigenvectors, LAPACK's own


def plan_comparison(study: "Comparison", report: Report) -> Plan:
    """Data are tokenised for real and kept for the run; weights are neither loaded nor downloaded."""
    config = study.config
    report.note("reading the data")
    study.check()
    report.note("calibrating: one slice of each data set through random weights of the same shape")
    seconds, beside, solving, loading, memory, scratch = 0.0, 0.0, 0.0, 0.0, 0, 0
    of_base = (0, 0, 0)  # sites, width, bytes of weights
    for model in study.models:
        shape, checkpoints = model.source.config(), model.source.list()
        dim = int(shape.get_text_config(decoder=True).hidden_size)
        for data in config.data:
            prepared = study.prepared(model, data).prepared
            about = (prepared, config.sites, config.estimator, config.compute, device_of(config.compute))
            one, sites, weights = calibrate(shape, *about)
            seconds += one * len(checkpoints)
            solving += len(checkpoints) * sites * (2 * dim**3 / EIGENVALUES_A_SECOND + MEASURES_A_SITE)
            held = sites * bytes_needed(dim) if config.spectra is not None else 0
            memory = max(memory, 2 * weights + min(held, config.compute.memory_budget) + config.compute.memory_budget)
            on_disk = config.spectra is not None and scratch_needed([dim] * sites, config.compute.memory_budget // 2)
            scratch = max(scratch, 8 * sites * dim**2 if on_disk else 0)
            if model is study.base:
                of_base = (sites, dim, weights)
            elif config.similarity is not None:
                beside += BESIDE * one * len(checkpoints)
                streamed = study.same_tokens(model)
                needed = pair_bytes(
                    of_base, (sites, dim, weights), config.similarity.sample, config.compute.memory_budget, streamed
                )
                memory, scratch = max(memory, needed[0]), max(scratch, needed[1])
        sizes = [checkpoint.size_bytes for checkpoint in checkpoints]
        loading += sum(LOADING_SECONDS + size / LOADING_BYTES_A_SECOND for size in sizes) * len(config.data)
    units = study.measuring_units() + study.comparing_units()
    store = Store(study.out)
    parts = {"passes": seconds, "side by side": beside, "spectra and probes": solving, "loading": loading}
    parts["figures"] = FIGURE_SECONDS
    hub = [model for model in study.models if isinstance(model.source, HubSource)]
    return Plan(
        checkpoints=sum(len(model.source.list()) for model in study.models),
        corpora=[
            (data.name, one.corpus.n_documents, len(one.corpus.tokens), one.n_rows)
            for data, one in ((data, study.prepared(study.base, data).prepared) for data in config.data)
        ],
        units=len(units) + 1,
        done=sum(store.state(unit.name) == "done" for unit in units) if study.out.exists() else 0,
        download=sum(checkpoint.size_bytes for model in hub for checkpoint in model.source.list()),
        disk=500_000 * len(units),
        memory=memory,
        scratch=scratch,
        seconds=sum(parts.values()),
        parts=parts,
        duplicates={},
        notes=[
            f"conversations and pairs are rendered by the {study.template.name} template",
            "the time of spectra and probes is a rule of thumb, not measured here",
        ],
    )


def pair_bytes(
    base: tuple[int, int, int], tuned: tuple[int, int, int], sample: int, memory_budget: int, streamed: bool = True
) -> tuple[int, int]:
    """Bytes in memory and in scratch files of a tuned model beside the base; of each: sites, width, bytes of weights.

    Both models, their samples in float32 and float64, and where they read the same tokens (`streamed`) two scatters and
    a cross moment a site, one site being read, and logits. Half of `memory_budget` holds the moments, or files do.
    """
    (sites_base, of_base, weights_base), (sites, of_tuned, weights) = base, tuned
    found = weights_base + weights + 12 * sample * (sites_base * of_base + sites * of_tuned)
    if not streamed:
        return found, 0
    matrices = 8 * sites * (of_base**2 + of_tuned**2 + of_base * of_tuned)
    widths = [of_base, of_tuned, max(of_base, of_tuned)] * sites
    on_disk = scratch_needed(widths, memory_budget // 2)
    found += 8 * sites * (BLOCK + 1) * (of_base + of_tuned) + READING * 8 * max(of_base, of_tuned) ** 2
    found += 4 * LOGITS_AT_ONCE + (0 if on_disk else matrices)
    return found, matrices if on_disk else 0
