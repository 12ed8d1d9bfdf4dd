"""Rows of one kept state of a grokking run: every progress measure of it, in bits where it is an information.

A measure that fails is a row that says why, and the others stand.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from infocomp.checkpoints.arithmetic_model import ArithmeticConfig, ArithmeticForCausalLM
from infocomp.grokking.answer_information import answer_information
from infocomp.grokking.complexity import description_bits
from infocomp.grokking.fourier import fourier_gini, key_frequencies, restricted_and_excluded
from infocomp.grokking.learning_coefficient import Sampling, learning_coefficient
from infocomp.grokking.linear_mapping import linear_mapping_number
from infocomp.grokking.recipe import evaluate
from infocomp.grokking.synergy import synergy_and_redundancy
from infocomp.grokking.weight_measures import weight_norm, weight_spectra
from infocomp.studies.grokking_runs import GrokkingRun, Row
from infocomp.studies.grokking_settings import MeasureSettings
from infocomp.units import BITS_PER_NAT

UNSEEN = "test pairs alone"  # are projected
AT_STATE = "at the state"
MEASURES_VERSION = 1  # raised where the same settings give other numbers than before


def load_state(folder: Path) -> ArithmeticForCausalLM:
    """The model of a checkpoint folder, in eval mode, without the bars that transformers draws."""
    config = ArithmeticConfig.from_pretrained(folder)
    model = ArithmeticForCausalLM(config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


@dataclass(frozen=True)
class StateJob:
    """The measures of the state in `folder`.

    last: the state whose frequencies are the key frequencies, the last of the run `keys_of`: of this one, or of the one
    that this is the control of, so that both are asked for the same.
    """

    run: GrokkingRun
    step: int
    folder: Path
    last: Path
    keys_of: str
    measures: MeasureSettings

    def work(self) -> list[Row]:
        """All rows of the state."""
        state = _State(self.run, self.step, load_state(self.folder), self.last)
        rows: list[Row] = []
        for name, function in state.measured(self.measures):
            try:
                found = list(function())
            except (ValueError, ArithmeticError, RuntimeError) as error:
                found = [{"quantity": name, "status": "failed", "message": " ".join(str(error).split())}]
            rows += [state.shared | row for row in found]
        return rows


class _State:
    """One state, its logits over all pairs, and its measures by the quantity that tells of their failure."""

    def __init__(self, run: GrokkingRun, step: int, model: ArithmeticForCausalLM, last: Path) -> None:
        self.run, self.recipe, self.task, self.model, self.last = run, run.recipe, run.recipe.task, model, last
        self.split = self.recipe.split
        self.order = self.task.cyclic_order()
        self.about = run.settings()
        self.shared: Row = run.describe() | {"revision": f"step{step}", "step": step, "draw": "mean"}
        self.shared |= {"settings": self.about, "dtype": "float32"}
        self._activations: dict[str, Tensor] | None = None

    def measured(self, measures: MeasureSettings) -> Iterator[tuple[str, Callable[[], Iterable[Row]]]]:
        """What is asked for and defined for this operation; the loss of the state first, which all is held against."""
        yield "loss", self.evaluated
        if measures.fourier and self.order is not None:
            yield "restricted_loss", self.fourier
        if measures.weights:
            yield "weight_norm", self.weights
        if measures.information is not None:
            yield "context_complexity", lambda: self.information(measures)
        if measures.complexity is not None:
            yield "description_bits", lambda: self.complexity(measures)
        if measures.mapping is not None:
            yield "linear_mapping_number", lambda: self.mapping(measures)
        if measures.synergy:
            yield "synergy", self.synergy
        if measures.learning_coefficient is not None:
            yield "learning_coefficient", lambda: self.coefficient(measures)

    @property
    def activations(self) -> dict[str, Tensor]:
        """Of all pairs, by site; one forward pass."""
        if self._activations is None:
            with torch.no_grad():
                left, right, _ = self.recipe.rows()
                self._activations = self.model.answer_activations(left, right)
        return self._activations

    def evaluated(self) -> Iterator[Row]:
        for side, rows in (("train", self.split.train), ("test", self.split.test)):
            with torch.no_grad():
                found = evaluate(self.model, *self.recipe.rows(rows))
            about = {"site": "logits", "label": AT_STATE, "rows": side}
            bits = {"quantity": "loss", "unit": "bits", "value": found["loss"] * BITS_PER_NAT}
            yield about | bits | {"estimator": "code_length"}
            share = {"quantity": "accuracy", "unit": "ratio", "value": found["accuracy"]}
            yield about | share | {"estimator": "count"}

    def fourier(self) -> Iterator[Row]:
        assert self.order is not None
        matrices = {
            "hook_embed": self.model.embedding(),
            "unembed": self.model.unembedding(),
            "neuron_to_logits": self.model.neuron_to_logits(),
        }
        for site, matrix in matrices.items():
            value = fourier_gini(matrix.detach(), self.order)
            if value is not None:
                yield {"quantity": "fourier_gini", "site": site, "unit": "ratio", "value": value, "ceiling": 1.0}
        chosen = key_frequencies(load_state(self.last).neuron_to_logits().detach(), self.order)
        keys = {"settings": self.about | {"key_frequencies": chosen}}
        own = key_frequencies(self.model.neuron_to_logits().detach(), self.order)
        yield {
            "quantity": "key_frequencies",
            "site": "neuron_to_logits",
            "unit": "count",
            "value": len(own),
            "ceiling": len(self.order) // 2,
            "settings": self.about | {"key_frequencies": own},
        }
        logits = self.activations["logits"]
        found = restricted_and_excluded(logits, self.task.answer, self.split.train, self.split.test, self.order, chosen)
        loss = {"site": "logits", "unit": "bits", "estimator": "code_length"} | keys
        uniform = float(np.log2(self.task.elements))
        for quantity, rows, label, nats in (
            ("restricted_loss", "all", "", found.restricted_nats_all),
            ("restricted_loss", "test", "", found.restricted_nats_test),
            ("restricted_loss", "test", UNSEEN, found.restricted_nats_unseen),
            ("excluded_loss", "train", "", found.excluded_nats_train),
        ):
            row = loss | {"quantity": quantity, "rows": rows, "label": label, "null": uniform}
            if nats is None:
                yield row | {
                    "status": "refused",
                    "message": "the test pairs lack an answer, so they can't be projected",
                }
            else:
                yield row | {"value": nats * BITS_PER_NAT}

    def weights(self) -> Iterator[Row]:
        yield {"quantity": "weight_norm", "unit": "squared norm", "value": weight_norm(self.model)}
        for label, found in weight_spectra(self.model.weight_matrices()).items():
            if found.effective_rank is None or found.entropy_nats is None:
                continue
            rank = {"value": found.effective_rank, "null": found.null_effective_rank, "ceiling": found.ceiling}
            yield {"quantity": "effective_rank", "label": label, "unit": "count"} | rank
            bits = {"value": found.entropy_nats * BITS_PER_NAT, "null": found.null_entropy_nats * BITS_PER_NAT}
            yield {"quantity": "spectrum_entropy", "label": label, "unit": "bits"} | bits

    def information(self, measures: MeasureSettings) -> Iterator[Row]:
        settings = measures.information
        assert settings is not None
        labels = {"answer": self.task.answer, "left": self.task.left, "right": self.task.right}
        populations = {"train": self.split.train, "test": self.split.test}
        options: dict[str, Any] = settings.model_dump()
        for found in answer_information(self.activations, labels, populations, **options):
            row = estimate_row(found.estimate) | {"site": found.site, "rows": found.rows, "estimator": "soft"}
            yield row | {"settings": self.about | {"answer_entropy": found.answer_entropy_bits}}

    def complexity(self, measures: MeasureSettings) -> Iterator[Row]:
        settings = measures.complexity
        assert settings is not None
        left, right, answer = self.recipe.rows(self.split.train)

        def loss() -> float:
            with torch.no_grad():
                return evaluate(self.model, left, right, answer)["loss"]

        found = description_bits(self.model, loss, epsilon=settings.epsilon, search=settings.search)
        about = {"delta": found.delta, "tau": found.tau, "naive_bits": found.naive_bits, "coder": found.coder}
        about |= {"epsilon": settings.epsilon, "evaluations": found.evaluations}
        yield {
            "quantity": "description_bits",
            "label": f"ε {settings.epsilon:g} nat, {settings.search}",
            "unit": "bits",
            "value": found.bits,
            "ceiling": found.naive_bits,
            "estimator": found.coder,
            "settings": self.about | about,
            "seconds": found.seconds,
        }

    def mapping(self, measures: MeasureSettings) -> Iterator[Row]:
        settings = measures.mapping
        assert settings is not None
        found = linear_mapping_number(
            self.model, self.task.left, self.task.right, settings.points, outputs=self.task.elements
        )
        row = {"quantity": "linear_mapping_number", "label": f"{found.points} points", "unit": "count"}
        yield row | {"value": found.value, "ceiling": found.points}

    def synergy(self) -> Iterator[Row]:
        site = neuron_site(self.activations)
        rows = self.activations[site][torch.from_numpy(self.split.train)]
        found = synergy_and_redundancy(rows.double().numpy())
        for quantity, value, null in (
            ("synergy", found.synergy, found.null_synergy),
            ("redundancy", found.redundancy, found.null_redundancy),
        ):
            row: Row = {
                "quantity": quantity,
                "site": site,
                "rows": "train",
                "unit": "bits",
                "value": value,
                "null": null,
            }
            yield row if value is not None else row | {"status": "refused", "message": found.reason}

    def coefficient(self, measures: MeasureSettings) -> Iterator[Row]:
        settings = measures.learning_coefficient
        assert settings is not None
        left, right, answer = self.recipe.rows(self.split.train)
        sampling = Sampling(chains=settings.chains, draws=settings.draws, burn_in=settings.burn_in)
        found = learning_coefficient(
            self.model, lambda: self.recipe.loss(self.model, left, right, answer), len(left), sampling
        )
        ends = {"ci_low": found.low, "ci_high": found.high, "seconds": found.seconds}
        about = self.about | {"n_beta": found.n_beta, "drift": found.drift}
        ceiling = self.recipe.parameters / 2
        row = {"quantity": "learning_coefficient", "unit": "count", "value": found.value, "ceiling": ceiling}
        yield row | ends | {"settings": about}


def neuron_site(sites: Mapping[str, Tensor]) -> str:
    """The last MLP's neurons, or the square model's hidden units."""
    inner: Sequence[str] = [site for site in sites if site.endswith("mlp.hook_post")]
    return inner[-1] if inner else "blocks.0.hook_resid_post"


def estimate_row(found: Any) -> Row:
    """An estimate's numbers as cells."""
    names = ["quantity", "label", "order", "weighting", "value", "unit", "efficiency", "null", "null_rows", "ceiling"]
    names += ["draw_std", "n_labels"]
    row = {name: getattr(found, name) for name in names}
    row |= {"n_tokens": found.n, "point": found.point, "singleton_mass": found.singleton_mass}
    return row | {"status": found.status, "message": found.message or None}
