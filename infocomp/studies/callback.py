"""Measure while training: inside a loop of one's own, or in a Hugging Face Trainer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from infocomp.execution.store import Store, unit_name
from infocomp.execution.table import read
from infocomp.studies.measure import Labels, measure, prepare_texts, with_labels
from infocomp.studies.settings import DEFAULT_SITES


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

    def __call__(self, model: PreTrainedModel, step: int) -> pd.DataFrame | None:
        """Measure if the step is one of those asked for; returns the rows of this step, or None."""
        if step % self.every:
            return None
        unit = None
        if self._store is not None:
            labelled = [
                [label.direction, label.name, hashlib.sha256(label.ids.tobytes()).hexdigest()]
                for label in self._prepared.labels
            ]
            decides = {"corpus": dict(self._prepared.identity()), "sites": list(self.sites), "step": step}
            decides |= {"labels": labelled, "settings": repr(sorted(self._settings.items()))}
            unit = unit_name(study="callback", model=self.name, **decides)
            if self._store.state(unit) == "done":
                return None
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
        if self._store is not None and unit is not None:
            plain = rows.astype(object).where(rows.notna(), None)
            self._store.write(unit, plain.to_dict("records"))  # type: ignore[arg-type]
            self._store.merge()
        else:
            self._rows.append(rows)
        return rows

    def table(self) -> pd.DataFrame:
        """Everything measured so far."""
        if self._store is not None:
            return read(self._store.out)
        if not self._rows:
            raise ValueError("nothing was measured yet: no step so far was a multiple of `every`.")
        return pd.concat(self._rows, ignore_index=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer: the model before the first step."""
        self(kwargs["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer: after every optimizer step."""
        self(kwargs["model"], state.global_step)
