"""A tuned model beside the base on one data set: CKA and alignment, maps of layers, words that moved, KL by position.

Where both read the same tokens they run on the same batches. Where tokenizers differ, rows are paired at the characters
where both end a token, on a seeded sample; next-token distributions and words of two vocabularies are not compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from infocomp.activations.sites import resolve_sites
from infocomp.activations.stream import stream
from infocomp.coding.rate import plain_head
from infocomp.estimators import Estimate
from infocomp.estimators.jackknife import Refusal
from infocomp.estimators.nulls import sampling_order
from infocomp.execution.runner import UnitResult
from infocomp.geometry.alignment import alignment, sampled_alignment
from infocomp.geometry.cka import cka_map
from infocomp.geometry.items import representational_similarity
from infocomp.geometry.nearest import mutual_neighbours
from infocomp.geometry.pair_moments import cka_estimate
from infocomp.geometry.word_drift import mean_drift, word_drift
from infocomp.geometry.word_means import WordMeans, frequent_types
from infocomp.studies.comparison_data import PreparedData
from infocomp.studies.comparison_differences import matched_sites
from infocomp.studies.comparison_measures import Rows, shared_columns
from infocomp.studies.comparison_pair_probe import PairProbe, logits_of, pair_scratch_needed
from infocomp.studies.comparison_probes import SampleProbe
from infocomp.studies.comparison_settings import SimilaritySettings
from infocomp.studies.measurement import widths_of
from infocomp.studies.settings import ComputeSettings

if TYPE_CHECKING:
    from infocomp.studies.comparison import ComparisonConfig

Advance = Callable[[int], None]
Sample = Mapping[str, np.ndarray]
MOST_WORDS = 256  # words that have a row of their own: those that moved, then those of the largest excess


def measure_pair(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    of_base: PreparedData,
    of_tuned: PreparedData,
    config: "ComparisonConfig",
    columns: Mapping[str, Any],
    about: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    advance: Advance,
    scratch: Path | None = None,
) -> UnitResult:
    """Every row that needs both models. `columns` say which tuned checkpoint, `about` are settings of every row.

    `scratch` is a folder for the moments where they exceed half of the memory budget; None keeps them in memory.
    """
    assert config.similarity is not None
    sites = [resolve_sites(model, list(config.sites)) for model in (base, tuned)]
    layers = [int(model.config.get_text_config(decoder=True).num_hidden_layers) for model in (base, tuned)]
    matched = matched_sites(sites[0], sites[1], *layers)
    (widths_base, attention), (widths_tuned, _) = (
        widths_of(model, names) for model, names in zip((base, tuned), sites, strict=True)
    )
    found = Rows({**columns, **shared_columns(of_tuned, config, attention)}, of_tuned.name)
    if of_base.prepared.tokenizer == of_tuned.prepared.tokenizer:
        layout = of_base.layout(config.similarity.sample, config.seed)
        words = _word_types(of_base, config.similarity, config.seed)
        heads = [plain_head(model) for model in (base, tuned)]
        windows = of_base.prepared.windows
        on_disk = pair_scratch_needed(matched, widths_base, widths_tuned, config.compute.memory_budget // 2)
        probe = PairProbe(
            base,
            tuned,
            matched,
            (widths_base, widths_tuned),
            windows,
            layout,
            words,
            _word_sites(config.similarity, tuned, matched),
            None if None in heads else (logits_of(heads[0]), logits_of(heads[1])),  # pyright: ignore
            min(model.get_input_embeddings().weight.shape[0] for model in (base, tuned)),  # pyright: ignore
            scratch if on_disk else None,
        )
        try:
            with probe:
                stream(base, windows, [probe], max(config.compute.batch_tokens // 2, 1), advance)
            _streamed_rows(found, probe)
        finally:
            probe.close()
        _word_rows(found, probe, config.similarity, tokenizer)
        samples, documents = (probe.sample_base, probe.sample_tuned), layout.documents[layout.sampled]
        _divergence_rows(found, probe, None not in heads)
    else:
        rows = aligned_rows(of_base, of_tuned, config.similarity.sample, config.seed)
        samples = tuple(
            _sampled(model, data, widths, picked, config.compute, tell)
            for model, data, widths, picked, tell in (
                (base, of_base, widths_base, rows[0], lambda positions: None),
                (tuned, of_tuned, widths_tuned, rows[1], advance),
            )
        )
        documents = of_tuned.prepared.windows.row_documents[rows[1]]
        reason = "the models have different tokenizers, so that their next tokens and words are not the same symbols"
        for quantity, unit, label in (("kl", "bits", "base to tuned"), ("word_drift", "ratio", "mean over words")):
            refused = Estimate(quantity, None, unit, len(rows[0]), label=label, status="refused", message=f"{reason}.")
            found.add([refused], "logits", "all", "next token" if quantity == "kl" else "neighbourhoods")
    _sampled_rows(found, samples[0], samples[1], matched, documents, config)
    rows = [{**row, "settings": {**row["settings"], **of_tuned.about(), **about}} for row in found.rows]
    return UnitResult(rows, (), found.influence)


# --- rows that correspond ---------------------------------------------------------------------------------------------


def aligned_rows(
    one: PreparedData, other: PreparedData, most: int, seed: int
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Measured rows of two tokenisations of one data set at which both end a token at the same byte of a document.

    At most `most`, chosen by the hash of that byte's place. ValueError: fewer than 64 places in common.
    """
    places = [_places(data) for data in (one, other)]
    common, first, second = np.intersect1d(places[0], places[1], assume_unique=True, return_indices=True)
    if len(common) < 64:
        raise ValueError(
            f"{one.name!r} has {len(common)} characters at which both tokenizers end a measured token, and a "
            "comparison needs 64; give it more text, or models with one tokenizer."
        )
    chosen = sampling_order(common, seed, min(most, len(common)))
    return first[chosen], second[chosen]


def _places(data: PreparedData) -> Int[np.ndarray, "rows"]:
    """For each measured row its document (for pairs: completion) and the byte where its token ends, as one number."""
    windows, corpus = data.prepared.windows, data.prepared.corpus
    ends = np.cumsum(corpus.byte_counts.astype(np.int64))
    if data.pairs is None:
        owner = windows.row_documents
        starts = corpus.document_starts[owner]
    else:  # counted from the completion's first token, since prompts are cut by tokens
        owner, starts = data.pairs.completion, windows.row_tokens - data.pairs.position
    before = np.r_[0, ends][starts]
    within = ends[windows.row_tokens] - before
    empty = corpus.byte_counts[windows.row_tokens] == 0  # a token inside a character ends where the one before it does
    return np.where(empty, -1 - np.arange(len(within)), owner * 2**32 + within)


def _sampled(
    model: PreTrainedModel,
    data: PreparedData,
    widths: Mapping[str, int],
    rows: Int[np.ndarray, "chosen"],
    compute: ComputeSettings,
    advance: Advance,
) -> Sample:
    slot = np.full(data.prepared.n_rows, -1)
    slot[rows] = np.arange(len(rows))
    probe = SampleProbe(widths, slot, len(rows))
    stream(model, data.prepared.windows, [probe], compute.batch_tokens, advance)
    return probe.sample


# --- rows of the table ------------------------------------------------------------------------------------------------


def _streamed_rows(found: Rows, probe: PairProbe) -> None:
    """CKA and alignment of matched sites over every row."""
    for site, other in probe.matched.items():
        base, tuned, both = probe.own_base[other], probe.own_tuned[site], probe.moments[site]
        about = {"base_site": other}
        of_base, of_tuned = base.scatter.centred(), tuned.scatter.centred()
        estimate = cka_estimate(base.moments, tuned.moments, both, f"vs {other}", of_base, of_tuned)
        found.add([estimate], site, "all", "linear, debiased", about)
        aligned = alignment(of_base, of_tuned, both.centred(), both.count, identical=both.identical)
        aligned = [replace(one, label=f"vs {other}") for one in aligned]
        found.add(aligned, site, "all", "moments", about)


def _sampled_rows(
    found: Rows,
    base: Sample,
    tuned: Sample,
    matched: Mapping[str, str],
    documents: Int[np.ndarray, "rows"],
    config: "ComparisonConfig",
) -> None:
    """All pairs of layers, and what compares rows with each other, on the sample."""
    settings = config.similarity
    assert settings is not None
    of_base, of_tuned = list(base), list(tuned)
    maps = cka_map([tuned[site] for site in of_tuned], [base[site] for site in of_base], documents)
    for site, estimates in zip(of_tuned, maps.estimates(of_base), strict=True):
        for other, estimate in zip(of_base, estimates, strict=True):
            found.add([estimate], site, "sample", "linear, debiased", {"base_site": other})
    items = slice(0, min(settings.items, len(documents)))
    for site, other in matched.items():
        x, y, about = base[other], tuned[site], {"base_site": other}
        label = f"vs {other}"
        aligned = [replace(one, label=label) for one in sampled_alignment(x, y, documents)]
        found.add(aligned, site, "sample", "moments", about)
        near = mutual_neighbours(x, y, documents, settings.neighbours)
        found.add([near], site, "sample", "cosine", about)
        similar = representational_similarity(x[items], y[items], documents[items], seed=config.seed)
        more = about | {"p": similar.p} if similar.p is not None else about
        found.add([replace(similar.estimate, label=label)], site, "sample", "cosine", more)


def _divergence_rows(found: Rows, probe: PairProbe, has_heads: bool) -> None:
    if not has_heads:
        reason = "a model scales or caps its logits, so that they do not follow from its last hidden state alone"
        refused = Estimate("kl", None, "bits", 0, label="base to tuned", status="refused", message=f"{reason}.")
        found.add([refused], "logits", "all", "next token")
        return
    assert probe.kl is not None
    for rows, estimates in probe.kl.estimates().items():
        found.add(estimates, "logits", rows, "next token")


def _word_types(data: PreparedData, settings: SimilaritySettings, seed: int) -> Int[np.ndarray, "types"]:
    windows = data.prepared.windows
    if not settings.words:
        return np.zeros(0, np.int64)
    tokens = windows.corpus.tokens[windows.row_tokens].astype(np.int64)
    return frequent_types(tokens, windows.row_documents, settings.words, seed=seed)


def _word_sites(settings: SimilaritySettings, tuned: PreTrainedModel, matched: Mapping[str, str]) -> tuple[str, ...]:
    """Those asked for, else the embedding, the middle block, the last block."""
    if settings.word_sites is not None:
        return tuple(site for site in resolve_sites(tuned, list(settings.word_sites)) if site in matched)
    blocks = [site for site in matched if site.startswith("blocks.")]
    chosen = [site for site in matched if site == "hook_embed"]
    return tuple(dict.fromkeys([*chosen, *(blocks[i] for i in (len(blocks) // 2, -1) if blocks)]))


def _word_rows(found: Rows, probe: PairProbe, settings: SimilaritySettings, tokenizer: PreTrainedTokenizerBase) -> None:
    """How far neighbourhoods of words moved: on average, and word by word."""
    for site, (base, tuned) in probe.words.items():
        about = {"base_site": probe.matched[site], "k": settings.word_neighbours}
        try:
            mean = mean_drift(base, tuned, settings.word_neighbours)
            words = word_drift(base, tuned, settings.word_neighbours)
        except Refusal as reason:
            refused = Estimate("word_drift", None, "ratio", 0, label="mean over words", status="refused")
            found.add([replace(refused, message=f"{reason}.")], site, "all", "neighbourhoods", about)
            continue
        named = {int(token): text for token, text in zip(base.types, _texts(base, tokenizer), strict=True)}
        moved = {"words": len(words), "moved": sum(word.moved for word in words)}
        found.add([mean], site, "all", "neighbourhoods", about | moved)
        for word in sorted(words, key=lambda word: not word.moved)[:MOST_WORDS]:
            estimate = Estimate(
                "word_drift", word.drift, "ratio", word.count, label=named[word.token], null=word.null,
                point=word.excess, ceiling=1.0,
            )  # fmt: skip
            more = {"lost": [named[i] for i in word.lost], "gained": [named[i] for i in word.gained]}
            more |= {"count": word.count, "p": word.p, "moved": word.moved, "token": word.token}
            more |= {"across": word.across, "words": len(words), "words_moved": moved["moved"]}
            found.add([estimate], site, "words", "neighbourhoods", about | more)


def _texts(words: WordMeans, tokenizer: PreTrainedTokenizerBase) -> Sequence[str]:
    """Each token as text, made unlike the others where two decode alike (pieces of characters)."""
    texts = [str(tokenizer.decode([int(token)])) for token in words.types]
    seen: dict[str, int] = {}
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
    return [
        text if seen[text] == 1 else f"{text} (token {token})" for text, token in zip(texts, words.types, strict=True)
    ]
