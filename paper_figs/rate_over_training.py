"""The measured rate of one or several series over training, with the published values of Pythia's first generation.

python paper_figs/rate_over_training.py runs/demo runs/pythia-160m --out docs/figures

Measured curves are full with filled markers, each with its interval over documents and the classical coders on the same
bytes where there is one text. Published ones are dotted with hollow markers: WikiText-2 test by lm-evaluation-harness,
whose bits per byte divide by the bytes of the original page and are converted (× 1.04036) to the text really scored.
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import infocomp
from infocomp.checkpoints.schedule import tokens_per_step
from infocomp.coding.published import pythia_wikitext
from infocomp.plotting import style
from infocomp.plotting.coding_selection import CODE_LENGTH, coding_rows
from infocomp.plotting.coding_style import (
    BAND,
    DOTS,
    band,
    classical_lines,
    interval_name,
    keep_apart,
    log_axis,
    with_interval,
)
from infocomp.plotting.selection import CLASSICAL, NothingToDraw, short_names

MEASURED, PUBLISHED = "measured", "published"
NONE = "none"
PYTHIA_BATCH = tokens_per_step("EleutherAI/pythia-70m")
_COLUMNS = ["kind", "series", "run", "model", "revision", "step", "position", "tokens_seen", "corpus", "in_training"]
_COLUMNS += ["bits_per_byte", "low", "high", "interval", "bits_per_byte_published", "duplicate", "source"]


def measured_rows(runs: Sequence[str | Path], corpus: str | None = None) -> pd.DataFrame:
    """Code lengths of every checkpoint in the run folders, bits per byte, and the classical coders on the same bytes.

    NothingToDraw: no run holds a rate at a checkpoint with a step, or none on that text.
    """
    parts = []
    for run in runs:
        rows = coding_rows(infocomp.read(run), corpus)
        rows = rows[(rows["quantity"] == "bits_per_byte") & (rows["label"] == "")]
        rates = rows[(rows["estimator"] == CODE_LENGTH) & rows["position"].notna()]
        coders = rows[(rows["estimator"] == CLASSICAL) & rows["corpus"].isin(rates["corpus"])]
        rates = with_interval(rates.drop_duplicates(["model", "revision", "corpus"])).assign(kind=MEASURED)
        parts.append(pd.concat([rates, coders.assign(kind=CLASSICAL)]).assign(run=Path(run).resolve().name))
    found = pd.concat(parts).rename(columns={"value": "bits_per_byte"})
    if not (found["kind"] == MEASURED).any():
        raise NothingToDraw("a rate over training needs bits_per_byte at checkpoints with a step in some run folder")
    found = found.assign(series=_series(found))
    coders = found[found["kind"] == CLASSICAL].drop_duplicates(["model", "corpus"])
    rates = found[found["kind"] == MEASURED].sort_values("position", kind="stable")
    one_text = rates["corpus"].nunique() == 1
    return pd.concat([rates, coders] if one_text else [rates]).reindex(columns=_COLUMNS).reset_index(drop=True)


def _series(rows: pd.DataFrame) -> pd.Series:
    """What each curve is called: the model, with the run where two runs hold a model of one name, and its text."""
    of_models = rows[rows["kind"] == MEASURED]
    short = short_names([str(name) for name in rows["model"].unique()])
    twice = of_models.groupby("model")["run"].nunique() > 1
    several = of_models["corpus"].nunique() > 1
    return pd.Series(
        [
            short[model] + (f" ({run})" if twice.get(model, False) else "") + (f" on {corpus}" if several else "")
            for model, run, corpus in zip(rows["model"], rows["run"], rows["corpus"], strict=True)
        ],
        index=rows.index,
        dtype=object,
    )


def published_rows(wanted: Sequence[str], measured: Sequence[str] = ()) -> pd.DataFrame:
    """Published values of the named models; of none named, those of the measured models' sizes, else all not deduped.

    KeyError: a model that has no published values.
    """
    table = pythia_wikitext()
    known = list(table["model"].unique())
    if list(wanted) == [NONE]:
        chosen: list[str] = []
    elif wanted:
        for name in wanted:
            if name not in known:
                raise KeyError(f"no published values of {name!r}; there are some of {', '.join(known)}")
        chosen = list(wanted)
    else:
        names = [name.rstrip("/").rsplit("/", 1)[-1].removesuffix("-v0") for name in measured]
        same = [name for name in known if name.removesuffix("-v0") in names]
        chosen = same or [name for name in known if "deduped" not in name]
    found = table[table["model"].isin(chosen)].sort_values(["model", "step"], kind="stable")
    found = found.assign(kind=PUBLISHED, series=found["model"], position=found["step"], corpus="WikiText-2 test")
    found = found.assign(order=found["model"].map(known.index)).sort_values(["order", "step"], kind="stable")
    return found.assign(in_training="unknown", duplicate=False).reindex(columns=_COLUMNS).reset_index(drop=True)


def draw(points: pd.DataFrame) -> Figure:
    """The figure of measured and published rows."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 4.4)
        ax = figure.subplots()
        handles: list[Line2D | Patch] = []
        measured = points[points["kind"] == MEASURED]
        for place, (series, path) in enumerate(measured.groupby("series", sort=False)):
            colour = style.CATEGORIES[place % len(style.CATEGORIES)]
            look: dict[str, Any] = {"color": colour, "marker": style.MARKERS[place % 6], "ms": 3}
            ax.plot(path["position"], path["bits_per_byte"], zorder=3, gid=f"{MEASURED}|{series}", **look)
            band(ax, path, "position", colour, f"{MEASURED}|{series}|interval")
            said = ", ".join(dict.fromkeys(path["in_training"].replace("", "unknown")))
            text = path["corpus"].iloc[0]
            name = str(series) if measured["corpus"].nunique() > 1 else f"{series} on {text}"
            handles.append(Line2D([], [], label=f"{name} (in the training data: {said})", **look))
        published = points[points["kind"] == PUBLISHED]
        for place, (series, path) in enumerate(published.groupby("series", sort=False)):
            look = {"color": style.INK, "ls": DOTS, "lw": 0.9, "marker": style.MARKERS[place % 6], "ms": 3.4}
            look |= {"mfc": "white", "mew": 0.7}
            if place >= len(style.MARKERS):
                look |= {"color": style.GREY}
            ax.plot(path["position"], path["bits_per_byte"], zorder=2.5, gid=f"{PUBLISHED}|{series}", **look)
            handles.append(Line2D([], [], label=f"{PUBLISHED}: {series} on {path['corpus'].iloc[0]}", **look))
        if interval_name(measured):
            handles.append(Patch(facecolor=style.GREY, alpha=BAND + 0.1, lw=0, label=interval_name(measured)))
        style.step_axis(ax, list(points["position"].dropna()))
        ax.set_ylabel(style.AXIS["bits_per_byte"])
        rates = points.loc[points["kind"] != CLASSICAL, "bits_per_byte"]
        if rates.max() > 4 * rates.min():
            log_axis(ax, float(rates.min()), float(rates.max()))
        coders = points[points["kind"] == CLASSICAL]
        if len(coders):
            text = f"classical coders on {coders['corpus'].iloc[0]}"
            handles.append(Line2D([], [], color=style.GREY, lw=0.7, label=text))
        names = classical_lines(ax, coders.assign(value=coders["bits_per_byte"]))
        style.legend_below(figure, handles, footnote(points) or None)
        style.settle(figure)
        keep_apart(ax, names)
    return figure


def footnote(points: pd.DataFrame) -> str:
    """What the published values are and where they come from; "" where none is drawn."""
    published = points[points["kind"] == PUBLISHED]
    if published.empty:
        return ""
    texts = " and ".join(dict.fromkeys(published["corpus"]))
    source = "; ".join(dict.fromkeys(str(name) for name in published["source"]))
    said = (
        f"Hollow: published, not measured here. {texts}, lm-evaluation-harness; bits per byte × 1.04036, of the text "
    )
    said += "really scored; in the training data: unknown. Models called v0 are not the current weights. "
    said += _batches(points)
    return "\n".join(textwrap.wrap(f"{said}Source: {source}.", 120))


def _batches(points: pd.DataFrame) -> str:
    """How many tokens a step is of, published and measured: steps of one axis are not equal."""
    said = [f"{PYTHIA_BATCH:,} in Pythia"]
    measured = points[(points["kind"] == MEASURED) & (points["step"] > 0) & points["tokens_seen"].notna()]
    for series, path in measured.groupby("series", sort=False):
        last = path.sort_values("step").iloc[-1]
        said.append(f"{last['tokens_seen'] / last['step']:,.0f} in {series}")
    return f"Tokens in a step: {', '.join(said)}. "


def main() -> None:
    """Read the run folders, draw, save PDF, PNG and the CSV that was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--corpus", help="one text of the runs; all of them where it is not given")
    parser.add_argument("--published", nargs="*", default=[], help=f"models with published values, or {NONE}")
    parser.add_argument("--out", default="docs/figures")
    asked = parser.parse_args()
    rows = measured_rows(asked.runs, asked.corpus)
    names = [str(name) for name in rows.loc[rows["kind"] == MEASURED, "model"].unique()]
    parts = [part for part in (rows, published_rows(asked.published, names)) if len(part)]
    points = pd.concat(parts, ignore_index=True)
    for path in style.save(draw(points), asked.out, "rate_over_training", points):
        print(path)


if __name__ == "__main__":
    main()
