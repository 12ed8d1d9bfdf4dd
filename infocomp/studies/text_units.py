"""Units of work that need a text and no model: what classical coders make of it, and its bottleneck curves."""

import torch

from infocomp.coding.classical import classical_rates
from infocomp.execution.runner import Unit, UnitResult
from infocomp.execution.store import unit_name
from infocomp.studies.bound import bound_rows
from infocomp.studies.prepared import PreparedCorpus
from infocomp.studies.settings import BottleneckSettings


def classical_unit(prepared: PreparedCorpus) -> Unit:
    """gzip, xz and PPMd on the same bytes."""

    def run() -> UnitResult:
        return UnitResult(
            [
                {
                    "model": size.coder,
                    "corpus": prepared.name,
                    "quantity": "bits_per_byte",
                    "estimator": "classical",
                    "draw": "mean",
                    "value": size.bits_per_byte,
                    "unit": "bits/byte",
                    "settings": size.settings,
                    "n_documents": prepared.corpus.n_documents,
                }
                for size in classical_rates(prepared.text_bytes())
            ]
        )

    describe = {"model": "classical coders", "corpus": prepared.name}
    name = unit_name(study="classical", tokens=prepared.corpus.fingerprint, corpus=prepared.name)
    return Unit(name, f"gzip, xz, PPMd · {prepared.name}", describe, run)


def bound_unit(
    prepared: PreparedCorpus, orders: tuple[int, ...], settings: BottleneckSettings, device: torch.device
) -> Unit:
    """The bottleneck curves of the text's last and next token."""
    name = unit_name(
        study="bottleneck",
        corpus=dict(prepared.identity()),
        orders=list(orders),
        settings=settings.model_dump(mode="json"),
        device=device.type,
    )
    describe = {"model": "", "corpus": prepared.name, "estimator": "bottleneck"}
    title = f"bottleneck curves · {prepared.name}"
    return Unit(name, title, describe, lambda: UnitResult(bound_rows(prepared, settings, device)))
