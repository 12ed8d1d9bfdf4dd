"""Published compression figures, in bits per byte: facts with their source, never measured here.

They stand beside measured rates, never unmarked among them. A rate belongs to a file and its length: gzip -9 takes 2.92
bits a byte of enwik8, 3.25 of book1. (A set often quoted for enwik8, with gzip at 3.20 and PPM at 2.04, mixes files and
is not here.) `weights` says whether a trained model is part of the size: "none" has no trained weights, "not counted"
has them outside, "counted" inside at 2 bytes a parameter. The files lie beside this one, each line with its source.
"""

from importlib.resources import files

import numpy as np
import pandas as pd

WIKITEXT_PAGE_BYTES, WIKITEXT_SCORED_BYTES = 1_290_527, 1_240_466  # the test set's pages, and what lm-eval scores
SCORED_TEXT = WIKITEXT_PAGE_BYTES / WIKITEXT_SCORED_BYTES  # 1.04036
_COLUMNS = ["codec", "file", "original_bytes", "bytes", "bits_per_byte", "chunk_bytes", "weights", "source", "note"]


def published_rates() -> pd.DataFrame:
    """All published rates: codec, file, original_bytes, bytes, bits_per_byte, chunk_bytes, weights, source, note.

    Where the source gives the size, bits_per_byte is 8 · bytes / original_bytes; a ratio or percentage is converted. An
    empty cell is what the source does not tell; an empty chunk_bytes means one stream. Table 1 of Delétang et al. is in
    it twice for each model, raw ("not counted") and adjusted ("counted").
    """
    rates = [_read("compressors.csv"), *_deletang_rates()]
    return pd.concat(rates, ignore_index=True).reindex(columns=_COLUMNS).astype({"chunk_bytes": "Int64"})


def deletang_table() -> pd.DataFrame:
    """Table 1 of Delétang et al. (2024): raw_percent and adjusted_percent for each compressor, chunk_bytes and file.

    Percent of raw size; each file is 1 GB, so adjusted = raw + 100 · 2 · parameters / 10⁹. The v2 abstract still says
    43.4 and 16.4 for Chinchilla 70B on pictures and sound; the table's 48.0 and 21.0 are the later ones.
    """
    return _read("deletang_2024_table1.csv")


def _deletang_rates() -> list[pd.DataFrame]:
    """Table 1 in bits per byte, raw, and for models adjusted as well."""
    table = deletang_table().rename(columns={"compressor": "codec"})
    table["original_bytes"] = 10**9
    model = table["parameters"].notna()
    raw = table.assign(bits_per_byte=0.08 * table["raw_percent"], weights=np.where(model, "not counted", "none"))
    adjusted = table[model].assign(bits_per_byte=0.08 * table["adjusted_percent"], weights="counted")
    return [raw, adjusted]


def pythia_wikitext() -> pd.DataFrame:
    """WikiText-2 test over the training of ten first-generation Pythia models ("v0", not the current weights).

    Columns: model, step, step_in_file, bits_per_byte_published, byte_perplexity_published, source, bits_per_byte.
    lm-evaluation-harness scores the detokenised page (1,240,466 bytes) and divides by the bytes of the original page
    (1,290,527); `bits_per_byte` = published × 1.04036 is the code length of the text really scored, the one to set
    beside a measured rate. `step` is the revision's number: for 160m, 410m and 1.4b twice the file's, whose batches
    were twice as large.
    """
    table = _read("pythia_v0_wikitext.csv")
    return table.assign(bits_per_byte=table["bits_per_byte_published"] * SCORED_TEXT)


def pythia_lambada() -> pd.DataFrame:
    """LAMBADA (OpenAI form) over the training of the sixteen Pythia models, current weights, zero-shot.

    Columns: model, step, perplexity_per_target_word, accuracy, source, bits_per_target_word. Everything is per target
    word (about 1.37 tokens, 6.7 bytes), not per token or byte: bits = log2 of the perplexity. Curves are not monotone.
    pythia-2.8b and its deduplicated twin are equal through step 1000 and within 0.0012 through 43000: count them once.
    """
    table = _read("pythia_lambada.csv")
    return table.assign(bits_per_target_word=np.log2(table["perplexity_per_target_word"]))


def _read(name: str) -> pd.DataFrame:
    """One file of facts. Sizes and parameters are nullable integers; text cells may be empty, never missing."""
    with (files("infocomp.coding") / "published" / name).open("r", encoding="utf-8") as handle:
        table = pd.read_csv(handle)
    numbers = {name: "Int64" for name in ("original_bytes", "bytes", "chunk_bytes", "parameters") if name in table}
    words = {"note": table["note"].fillna("")} if "note" in table else {}
    return table.astype(numbers).assign(**words)
