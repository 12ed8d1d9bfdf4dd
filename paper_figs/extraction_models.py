"""Extraction by model size: the last checkpoint of every model in the runs beside the published counts of Pythia.

python paper_figs/extraction_models.py runs/memorization --parameters demo=1311488 --out docs/figures

Measured are full markers with their interval over rows, and a hollow one below for never-trained rows. Published counts
are dotted and hollow: all sequences of the training data, prompt and continuation of 32 tokens, not measured here.
They have no BOS before the prompt, and never emit the end of text; what measured rows have is said below the figure. A
model's number of parameters is the published one where it is a Pythia, else has to be given.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import infocomp
from infocomp.memorization.published import pythia_memorized
from infocomp.plotting import style
from infocomp.plotting.coding_selection import at_last, setting
from infocomp.plotting.coding_style import DOTS, with_interval
from infocomp.plotting.memorization_selection import EXTRACTION, memorization_rows
from infocomp.plotting.memorization_style import error_bars, interval_handle, log_axis, looks, wrapped
from infocomp.plotting.selection import NothingToDraw

MEASURED, PUBLISHED = "measured", "published"
_COLUMNS = ["kind", "series", "model", "revision", "step", "text", "label", "in_training", "parameters", "rate", "low"]
_COLUMNS += ["high", "interval", "null", "bos", "never", "source", "note"]


def measured_rows(runs: Sequence[str | Path], parameters: Mapping[str, float]) -> pd.DataFrame:
    """The extraction rate of each model's last checkpoint, by text and lengths, with its number of parameters.

    NothingToDraw: no run holds a rate. KeyError: the number of parameters of a model is not known.
    """
    table = pd.concat([infocomp.read(run) for run in runs], ignore_index=True)
    rows = memorization_rows(table)
    rows = rows[(rows["quantity"] == EXTRACTION[0]) & ~rows["random"] & rows["load"].isna() & rows["changed"].isna()]
    if rows.empty:
        raise NothingToDraw("extraction by model needs rows of extraction_rate at a checkpoint")
    rows = with_interval(at_last(rows))
    known = pythia_memorized().set_index("model")["parameters"].to_dict() | dict(parameters)
    sizes = []
    for model in rows["model"]:
        short = str(model).rstrip("/").rsplit("/", 1)[-1]
        if model not in known and short not in known:
            raise KeyError(f"the number of parameters of {model!r} is not known; give it with --parameters {short}=…")
        sizes.append(float(known.get(str(model), known.get(short))))
    several = rows["text"].nunique() > 1 or rows["label"].nunique() > 1
    series = rows["text"] + ", " + rows["label"] if several else rows["text"]
    never = [str(setting(text, "never") or "").strip("[]") for text in rows["settings"]]
    found = rows.assign(kind=MEASURED, series=series, parameters=sizes, rate=rows["value"], never=never)
    return found.sort_values(["series", "parameters"], kind="stable").reindex(columns=_COLUMNS).reset_index(drop=True)


def published_rows() -> pd.DataFrame:
    """The published counts as rates, the deduplicated models as a series of their own."""
    table = pythia_memorized()
    series = table["deduped"].map({True: "Pythia, deduplicated data", False: "Pythia"})
    found = table.assign(kind=PUBLISHED, series=series, label="32+32", in_training="known", bos="none", never="0")
    return found.sort_values(["series", "parameters"], kind="stable").reindex(columns=_COLUMNS).reset_index(drop=True)


def draw(points: pd.DataFrame) -> Figure:
    """The figure of measured and published rates."""
    with style.styled():
        figure = style.new_figure(style.PAGE, 3.9)
        ax = figure.subplots()
        handles: list[Artist] = []
        measured, published = (points[points["kind"] == kind] for kind in (MEASURED, PUBLISHED))
        shown = looks([str(name) for name in measured["series"].unique()])
        for series, own in measured.groupby("series", sort=False):
            look = shown[str(series)]
            drawn = own.assign(**{name: 100 * own[name] for name in ("rate", "low", "high", "null")})
            gid = f"{MEASURED}|{series}"
            ax.plot(drawn["parameters"], drawn["rate"], ls="", ms=4, mew=0, zorder=3.5, gid=gid, **look)
            error_bars(ax, drawn, "parameters", look["color"], f"{gid}|interval")
            hollow: dict[str, Any] = {"ls": "", "ms": 4, "mfc": "none", "mew": 0.7}
            ax.plot(drawn["parameters"], drawn["null"], zorder=3, gid=f"{gid}|null", **hollow, **look)
            said = ", ".join(dict.fromkeys(own["in_training"].replace("", "unknown")))
            handles.append(Line2D([], [], ls="", ms=4, label=f"{series} (in the training data: {said})", **look))
        for place, (series, own) in enumerate(published.groupby("series", sort=False)):
            line: dict[str, Any] = {"color": style.INK, "ls": DOTS, "lw": 0.9, "mfc": "white", "mew": 0.7, "ms": 3.6}
            line["marker"] = style.MARKERS[place]
            ax.plot(own["parameters"], 100 * own["rate"], zorder=2.5, gid=f"{PUBLISHED}|{series}", **line)
            handles.append(Line2D([], [], label=f"{PUBLISHED}: {series}", **line))
        log_axis(ax, "x", points["parameters"].min() / 1.5, points["parameters"].max() * 1.5, style.step_text)
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.set_xlabel("parameters")
        ax.set_ylabel("extracted, % of rows")
        handles += interval_handle(measured, "rows")
        if measured["null"].notna().any():
            hollow = {"ls": "", "marker": "o", "ms": 4, "mfc": "none", "mew": 0.7, "color": style.GREY}
            handles.append(Line2D([], [], label="never-trained rows", **hollow))
        style.legend_below(figure, handles, footnote(points) or None)
        style.settle(figure)
    return figure


def footnote(points: pd.DataFrame) -> str:
    """What was measured at which checkpoint, and where the published counts are from."""
    measured, published = (points[points["kind"] == kind] for kind in (MEASURED, PUBLISHED))
    lengths = ", ".join(dict.fromkeys(label.removesuffix(", BOS") for label in measured["label"]))
    before = " or ".join(
        dict.fromkeys("after a BOS" if bos == "window" else "without a BOS" for bos in measured["bos"])
    )
    without = " or ".join(dict.fromkeys(text or "none" for text in measured["never"]))
    said = [f"Measured: prompt + continuation of {lengths} tokens {before}, greedy, never emitted: {without}."]
    if len(published):
        source = "; ".join(dict.fromkeys(str(name) for name in published["source"]))
        said.append("Published, not measured here: the final checkpoints on all of their training sequences, 32+32,")
        said.append("without a BOS, the end of text never emitted.")
        said.append(f"Source: {source}.")
    return wrapped(said)


def main() -> None:
    """Read the run folders, draw, save PDF, PNG and the CSV that was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--parameters", nargs="*", default=[], metavar="MODEL=NUMBER")
    parser.add_argument("--out", default="docs/figures")
    asked = parser.parse_args()
    given = {name: float(number) for name, _, number in (text.rpartition("=") for text in asked.parameters)}
    points = pd.DataFrame(
        [row for part in (measured_rows(asked.runs, given), published_rows()) for row in part.to_dict("records")],
        columns=_COLUMNS,
    )
    for path in style.save(draw(points), asked.out, "extraction_models", points):
        print(path)


if __name__ == "__main__":
    main()
