"""Published counts of extracted sequences: facts with their source, never measured here.

A sequence counts where all 32 tokens after its first 32 come out greedily (`infocomp.memorization.extraction`, score
1), of all sequences in the order of training. The script behind them (EleutherAI/pythia predictable-memorization/
eval_memorization.py @20e6700) decodes in float16 and never lets the model end (`never=(0,)` there), so a few sequences
may differ from a count in float32.
"""

from importlib.resources import files

import numpy as np
import pandas as pd

_COLUMNS = ["model", "deduped", "parameters", "memorized_sequences", "total", "rate", "source", "note"]


def pythia_memorized() -> pd.DataFrame:
    """Extracted sequences of the final checkpoints of the sixteen Pythia models (Biderman et al. 2023, arXiv
    2304.11158).

    Columns: model, deduped, parameters (all of them, untied embeddings included), memorized_sequences, total (143,000
    steps of 1,024 sequences), rate = memorized_sequences / total, source, note. The deduplicated data were read about
    1.5 times, so that some of these models' sequences are repeats.
    """
    with (files("infocomp.memorization") / "published" / "pythia_memorized_counts.csv").open(
        encoding="utf-8"
    ) as handle:
        table = pd.read_csv(handle)
    rate = table["memorized_sequences"] / table["total"]
    parameters = gpt_neox_parameters(table["layers"], table["width"], table["vocabulary"])
    return table.assign(rate=rate, parameters=parameters, note=table["note"].fillna(""))[_COLUMNS]


def gpt_neox_parameters(layers: pd.Series, width: pd.Series, vocabulary: pd.Series) -> pd.Series:
    """Parameters of a GPT-NeoX with an untied head and feed-forward layers of four times the width: 2Vd in embeddings,
    12d² weights and 13d biases and norms a layer, 2d in the last norm. They are those of the models' cards.
    """
    in_layers = layers * (12 * np.square(width) + 13 * width) + 2 * width
    return 2 * vocabulary * width + in_layers
