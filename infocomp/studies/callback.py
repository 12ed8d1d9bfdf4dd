"""Measure while training: inside a loop of one's own, or in a Hugging Face Trainer."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from infocomp.checkpoints.integrity import weights_fingerprint
from infocomp.execution.part import replacing
from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.studies.measure import Labels, measure, prepare_texts, with_labels
from infocomp.studies.settings import DEFAULT_SITES

log = logging.getLogger(__name__)

INDEX = "callback.json"


class Callback(TrainerCallback):
    """Measures every `every` steps (and at step 0) on texts that are tokenised and labelled once.

        callback = infocomp.Callback(tokenizer, texts, every=100, out="runs/mine")
        trainer = Trainer(model, ..., callbacks=[callback])       # Hugging Face Trainer
        for step, batch in enumerate(batches): ...; callback(model, step)   # a loop of one's own

    With `out`, each step is one part there and `results.parquet` is kept merged, so that nothing is lost when the
    training is killed, and steps that are done are not measured again when it goes on; `infocomp plot OUT` draws it.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        every: int = 100,
        out: str | Path | None = None,
        name: str = "model",
        sites: Sequence[str] = DEFAULT_SITES,
        labels: Labels | None = None,
        **settings: Any,
    ) -> None:
        """`labels` and `settings` are those of `measure` (context_length, bos, bins, draws, seed, orders, …)."""
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}.")
        self.tokenizer, self.every, self.name, self.sites = tokenizer, every, name, tuple(sites)
        prepare = {key: settings.pop(key) for key in ("context_length", "bos", "orders") if key in settings}
        self._prepared = prepare_texts(texts, tokenizer, **prepare)
        if labels is not None:
            self._prepared = with_labels(self._prepared, labels)
        self._settings = settings
        self._store = None if out is None else Store(out)
        self._rows: list[pd.DataFrame] = []
        self._steps = self._opened()
        self._measured = 0

    def _opened(self) -> dict[str, str]:
        """Model and step → unit of what OUT holds already. ValueError where it was measured in another way."""
        if self._store is None:
            return {}
        kept = self._read_index()
        if kept["identity"] not in (None, self._identity()):
            raise ValueError(
                f"{self._store.out} holds measurements with other texts, labels, sites or settings; "
                "choose another out, or the same settings as before."
            )
        return kept["steps"]

    def _identity(self) -> str:
        labelled = [
            [label.direction, label.name, hashlib.sha256(label.ids.tobytes()).hexdigest()]
            for label in self._prepared.labels
        ]
        decides = {"corpus": dict(self._prepared.identity()), "sites": list(self.sites), "labels": labelled}
        return unit_name(study="callback", settings=repr(sorted(self._settings.items())), **decides)

    def _read_index(self) -> dict[str, Any]:
        path = self._store.out / INDEX if self._store is not None else None
        if path is None or not path.exists():
            return {"identity": None, "steps": {}}
        return json.loads(path.read_text("utf-8"))

    def __call__(self, model: PreTrainedModel, step: int) -> pd.DataFrame | None:
        """Measure if the step is one of those asked for; returns the rows of this step, or None.

        What goes wrong at the first measurement is raised, before anything was trained; later it is a warning and a
        failed row, and the training goes on. A step whose weights differ from what OUT holds (a resume that did not
        restore them) is measured again, with a warning. ValueError: OUT holds step 0 of another training.
        """
        if step % self.every:
            return None
        first, self._measured = self._measured == 0, self._measured + 1
        unit = ""
        if self._store is not None:
            weights = weights_fingerprint(model)
            unit = unit_name(study="callback", identity=self._identity(), model=self.name, step=step, weights=weights)
            known = self._steps.get(f"{self.name}/{step}")
            if known == unit and self._store.state(unit) == "done":
                return None
            if known not in (None, unit) and first and step == 0:
                raise ValueError(
                    f"{self._store.out} holds step {step} of another training (its weights differ); choose another out."
                )
            if known not in (None, unit):
                log.warning("step %d has other weights than when it was measured before: measured again", step)
        try:
            rows = measure(
                model,
                self.tokenizer,
                self._prepared,
                self.sites,
                name=self.name,
                revision=f"step{step}",
                step=step,
                **self._settings,
            )
            self._keep(rows, unit, step)
        except Exception as error:
            if first:
                raise
            log.warning("step %d was not measured (%s: %s); training goes on", step, type(error).__name__, error)
            self._keep_failure(error, unit, step)
            return None
        return rows

    def _keep(self, rows: pd.DataFrame, unit: str, step: int) -> None:
        if self._store is None:
            self._rows.append(rows)
            return
        plain = rows.astype(object).where(rows.notna(), None)
        self._store.write(unit, plain.to_dict("records"))  # type: ignore[arg-type]
        self._index(unit, step)

    def _keep_failure(self, error: Exception, unit: str, step: int) -> None:
        if self._store is None:
            return
        failure = {"model": self.name, "revision": f"step{step}", "step": step, "status": "failed"}
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        try:
            self._store.write(unit, [failure | {"message": message}], state="failed")
            self._index(unit, step)
        except OSError as full:
            log.warning("nor could that be written (%s)", full)

    def _index(self, unit: str, step: int) -> None:
        """Which unit each step is, and the merged table of exactly these."""
        assert self._store is not None
        self._steps[f"{self.name}/{step}"] = unit
        with replacing(self._store.out / INDEX) as file:
            file.write(json.dumps({"identity": self._identity(), "steps": self._steps}).encode())
        self._store.merge(self._steps.values())

    def table(self) -> pd.DataFrame:
        """Everything measured so far."""
        if self._store is not None:
            return read(self._store.out)
        if not self._rows:
            raise ValueError("nothing was measured yet: no step so far was a multiple of `every`.")
        return pd.concat(self._rows, ignore_index=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer: the model before the first step."""
        if state.is_world_process_zero:
            self(kwargs["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer: after every optimizer step."""
        if state.is_world_process_zero:
            self(kwargs["model"], state.global_step)
