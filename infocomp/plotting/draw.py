"""Every figure of a table, each as PDF and PNG with the CSV of exactly what was drawn."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infocomp.plotting import (
    bound,
    bound_plane,
    coding_chunks,
    coding_context,
    coding_retention,
    coding_table,
    coding_training,
    coding_widths,
    comparison_changes,
    comparison_phases,
    comparison_plane,
    comparison_preference,
    comparison_shepard,
    comparison_similarity,
    comparison_spectra,
    comparison_words,
    curves,
    estimates,
    grokking_curves,
    grokking_phases,
    grokking_plane,
    grokking_progress,
    heatmaps,
    memorization_capacity,
    memorization_descent,
    memorization_fit,
    memorization_fragility,
    memorization_membership,
    memorization_training,
    planes,
    profile,
    style,
)
from infocomp.plotting.coding_selection import coding_models, coding_rows, coding_texts, of_coding
from infocomp.plotting.comparison_selection import comparison_texts, of_comparison
from infocomp.plotting.grokking_selection import drawn_settings, of_grokking
from infocomp.plotting.memorization_selection import memorization_texts, of_memorization
from infocomp.plotting.selection import NothingToDraw, corpora, drawable, has_informations, models


@dataclass(frozen=True)
class Page:
    """A figure: its file's name, the rows it takes from the table, how they are drawn, whether once a model.

    `judged` says whether it shows which changes between checkpoints stand up.
    """

    name: str
    rows: Callable[..., pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    per_model: bool = False
    judged: bool = False


PAGES = (
    Page("plane_context", planes.plane_context_rows, planes.draw_plane_context),
    Page("plane_context_close", partial(planes.plane_context_rows, close=True), planes.draw_plane_context),
    Page("plane_label", planes.plane_label_rows, planes.draw_plane_label),
    Page("plane_label_close", partial(planes.plane_label_rows, close=True), planes.draw_plane_label),
    Page("training", curves.training_rows, curves.draw_training, judged=True),
    Page("estimates", estimates.estimates_rows, estimates.draw_estimates, per_model=True, judged=True),
    Page("plane_bound", bound.plane_bound_rows, bound_plane.draw_plane_bound, per_model=True),
    Page("heatmaps", heatmaps.heatmap_rows, heatmaps.draw_heatmaps, per_model=True),
    Page("layer_profile", profile.layer_profile_rows, profile.draw_layer_profile, per_model=True),
)

CODING_PAGES = (
    Page("coding_training", coding_training.coding_training_rows, coding_training.draw_coding_training),
    Page("coding_context", coding_context.coding_context_rows, coding_context.draw_coding_context),
    Page("coding_chunks", coding_chunks.coding_chunks_rows, coding_chunks.draw_coding_chunks),
    Page("coding_widths", coding_widths.coding_widths_rows, coding_widths.draw_coding_widths, per_model=True),
    Page(
        "coding_retention",
        coding_retention.coding_retention_rows,
        coding_retention.draw_coding_retention,
        per_model=True,
    ),
)
CODING_TABLE = Page("coding_table", coding_table.coding_table_rows, coding_table.draw_coding_table)

MEMORIZATION_PAGES = (
    Page("capacity_curve", memorization_capacity.capacity_curve_rows, memorization_capacity.draw_capacity_curve),
    Page("double_descent", memorization_descent.double_descent_rows, memorization_descent.draw_double_descent),
    Page("membership", memorization_membership.membership_rows, memorization_membership.draw_membership),
    Page(
        "memorization_training",
        memorization_training.memorization_training_rows,
        memorization_training.draw_memorization_training,
    ),
    Page("fragility", memorization_fragility.fragility_rows, memorization_fragility.draw_fragility),
)
CAPACITY_FIT = Page("capacity_fit", memorization_fit.capacity_fit_rows, memorization_fit.draw_capacity_fit)

GROKKING_PAGES = (
    Page("grokking_curves", grokking_curves.grokking_curves_rows, grokking_curves.draw_grokking_curves),
    Page("grokking_progress", grokking_progress.grokking_progress_rows, grokking_progress.draw_grokking_progress),
    Page("grokking_plane", grokking_plane.grokking_plane_rows, grokking_plane.draw_grokking_plane),
)
GROKKING_PHASES = Page("grokking_phases", grokking_phases.grokking_phases_rows, grokking_phases.draw_grokking_phases)

COMPARISON_PAGES = (
    Page("comparison_plane", comparison_plane.comparison_plane_rows, comparison_plane.draw_comparison_plane),
    Page(
        "comparison_preference",
        comparison_preference.comparison_preference_rows,
        comparison_preference.draw_comparison_preference,
    ),
    Page("comparison_spectra", comparison_spectra.comparison_spectra_rows, comparison_spectra.draw_comparison_spectra),
    Page(
        "comparison_similarity",
        comparison_similarity.comparison_similarity_rows,
        comparison_similarity.draw_comparison_similarity,
    ),
    Page("comparison_words", comparison_words.comparison_words_rows, comparison_words.draw_comparison_words),
    Page("comparison_shepard", comparison_shepard.comparison_shepard_rows, comparison_shepard.draw_comparison_shepard),
    Page("comparison_phases", comparison_phases.comparison_phases_rows, comparison_phases.draw_comparison_phases),
)
COMPARISON_CHANGES = Page(
    "comparison_changes", comparison_changes.comparison_changes_rows, comparison_changes.draw_comparison_changes
)


def draw_all(
    table: pd.DataFrame,
    out_dir: str | Path,
    tell: Callable[[str], None] = print,
    changes: pd.DataFrame | None = None,
) -> list[Path]:
    """Write every figure the table allows into `out_dir`; what it does not allow is told in one sentence each.

    Figures of coding, of memorization, of grokking and of comparisons are the exception: a table without their rows is
    silent about them, and one with their rows is silent about the information plane of texts that no information was
    measured on.

    `changes` (`plotting.changes.read_changes`) say which changes between checkpoints stand up; without them no figure
    speaks of it. Returns the files written: for each figure a PDF, a PNG and a CSV. Where the table holds several texts
    or models, a figure of one text or model has its name in the file's name.
    """
    written = []
    for name, page, rows in figures_of(table, tell, changes):
        written += style.save(page.draw(rows), out_dir, name, rows)
    return written


def figures_of(
    table: pd.DataFrame, tell: Callable[[str], None] = print, changes: pd.DataFrame | None = None
) -> Iterator[tuple[str, Page, pd.DataFrame]]:
    """What `draw_all` draws, in its order: the file's name, the page and its rows. Tells as `draw_all` does."""
    everything = table
    if of_comparison(table).any():
        yield from _of_comparison(table)
        table = table[~of_comparison(table)]
    if of_grokking(table).any():
        yield from _of_grokking(table)
        table = table[~of_grokking(table)]
    if of_memorization(table).any():
        yield from _of_memorization(table)
        table = table[~of_memorization(table)]
    if of_coding(table).any():
        yield from _of_coding(table)
        table = table[~of_coding(table)]
    texts = corpora(table) if "corpus" in table and "estimator" in table else []
    if len(table) < len(everything):
        texts = [text for text in texts if has_informations(table[table["corpus"] == text])]
        if not texts:
            return
    for text in texts or [None]:
        for page in PAGES:
            for model in _models(table, text) if page.per_model else [None]:
                chosen: dict[str, Any] = {"corpus": text} | ({"model": model} if page.per_model else {})
                chosen |= {"changes": changes} if page.judged else {}
                name = page.name + (_slug(text) if len(texts) > 1 else "")
                name += _slug(model) if model is not None and len(_models(table, text)) > 1 else ""
                try:
                    rows = page.rows(table, **chosen)
                except NothingToDraw as reason:
                    tell(f"{name} is not drawn: {reason}.")
                    continue
                yield name, page, rows


def _of_coding(table: pd.DataFrame) -> Iterator[tuple[str, Page, pd.DataFrame]]:
    """The figures of the study of coding; what a table has no rows for is left out without a word."""
    texts = coding_texts(table)
    wanted: list[tuple[str, Page, dict[str, Any]]] = [(CODING_TABLE.name, CODING_TABLE, {})]
    for text in texts:
        models = coding_models(coding_rows(table, text))
        for page in CODING_PAGES:
            for model in models if page.per_model else [None]:
                name = page.name + (_slug(text) if len(texts) > 1 else "")
                name += _slug(model) if model is not None and len(models) > 1 else ""
                wanted.append((name, page, {"corpus": text} | ({"model": model} if page.per_model else {})))
    for name, page, chosen in wanted:
        try:
            rows = page.rows(table, **chosen)
        except NothingToDraw:
            continue
        yield name, page, rows


def _of_memorization(table: pd.DataFrame) -> Iterator[tuple[str, Page, pd.DataFrame]]:
    """The figures of the studies of memorization; what a table has no rows for is left out without a word.

    A figure has the text in its name only where it is drawn for several.
    """
    texts: list[dict[str, Any]] = [{"corpus": text} for text in memorization_texts(table)]
    for page in (*MEMORIZATION_PAGES, CAPACITY_FIT):
        found = []
        for chosen in [{}] if page is CAPACITY_FIT else texts:
            with suppress(NothingToDraw):
                found.append((chosen.get("corpus"), page.rows(table, **chosen)))
        for text, rows in found:
            yield page.name + (_slug(text) if len(found) > 1 else ""), page, rows


def _of_grokking(table: pd.DataFrame) -> Iterator[tuple[str, Page, pd.DataFrame]]:
    """The figures of the study of grokking; what a table has no rows for is left out without a word.

    A figure has the setting, or the family of a phase diagram, in its name only where it is drawn for several.
    """
    wanted: list[tuple[Page, str, list[str]]] = [(page, "setting", drawn_settings(table)) for page in GROKKING_PAGES]
    for page, what, names in [*wanted, (GROKKING_PHASES, "family", grokking_phases.families(table))]:
        found = []
        for name in names:
            with suppress(NothingToDraw):
                found.append((name, page.rows(table, **{what: name})))
        for name, rows in found:
            yield page.name + (_slug(name) if len(found) > 1 else ""), page, rows


def _of_comparison(table: pd.DataFrame) -> Iterator[tuple[str, Page, pd.DataFrame]]:
    """The figures of the study of comparison; what a table has no rows for is left out without a word.

    What changed is one figure of all data sets; of the others one has the data set in its name only where it is drawn
    for several.
    """
    texts: list[dict[str, Any]] = [{"corpus": text} for text in comparison_texts(table)]
    for page in (COMPARISON_CHANGES, *COMPARISON_PAGES):
        found = []
        for chosen in [{}] if page is COMPARISON_CHANGES else texts:
            with suppress(NothingToDraw):
                found.append((chosen.get("corpus"), page.rows(table, **chosen)))
        for text, rows in found:
            yield page.name + (_slug(text) if len(found) > 1 else ""), page, rows


def _models(table: pd.DataFrame, text: str | None) -> list[str | None]:
    """The models that a figure of its own can be drawn for; [None] lets the figure say what is wrong."""
    try:
        found: list[str | None] = list(models(drawable(table, text)))
    except NothingToDraw:
        found = []
    return found or [None]


def _slug(name: str | None) -> str:
    return "-" + re.sub(r"[^A-Za-z0-9.]+", "-", name or "").strip("-.")
