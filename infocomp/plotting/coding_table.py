"""Same bytes, all coders: bits per byte, a panel for each text and beginning of one, the shortest code on top.

Model codes are real containers (header and checksums counted), or the ideal code length where no file was made; rank
coding has the same model on the same bytes. Classical coders take the text in one stream, or (hatched) in chunks whose
header is counted once. Images and audio in pieces are coded through a model's alphabet of characters: each rule of what
the lost bit costs has a bar of its own, hatched and named. Every title says whether the text was in the training data.
"""

import math
import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from infocomp.plotting import style
from infocomp.plotting.coding_selection import (
    CODE_LENGTH,
    CODEC,
    RANKS,
    at_last,
    checkpoint_names,
    coding_rows,
    coding_texts,
    in_training,
    input_bytes,
    of_a_part,
)
from infocomp.plotting.coding_style import byte_text
from infocomp.plotting.placement import FONT_SIZE
from infocomp.plotting.selection import CLASSICAL, NothingToDraw, short_names

CODEC_BAR, IDEAL, RANK_BAR, MAPPED, WHOLE, CHUNKED = "codec", "ideal", "ranks", "mapped", "classical", "chunked"
FAMILIES = {
    CODEC_BAR: "model, real container (header counted)",
    IDEAL: "model, code length (no file made)",
    RANK_BAR: "model, ranks then a classical coder (header not counted)",
    MAPPED: "model on a mapped alphabet, by rule of the lost bit",
    WHOLE: "classical, one stream",
    CHUNKED: "classical, in chunks (header counted once)",
}
_LOOKS: dict[str, dict[str, str]] = {
    CODEC_BAR: {"facecolor": style.CATEGORIES[0]},
    IDEAL: {"facecolor": "white", "edgecolor": style.CATEGORIES[0]},
    RANK_BAR: {"facecolor": style.CATEGORIES[2]},
    MAPPED: {"facecolor": "white", "edgecolor": style.CATEGORIES[1], "hatch": "/////"},
    WHOLE: {"facecolor": "0.55"},
    CHUNKED: {"facecolor": "white", "edgecolor": "0.55", "hatch": "....."},
}
RULES = {
    "mapping appended": "lost bits appended",
    "mapping scaled": "scaled by 8/7",
    "mapping coded": "lost bits coded",
}
BAR = 0.125  # inches
LONG = 40  # characters of a bar's name from which a panel takes the whole width
TITLE = 36  # characters in a line, so that it fits over a panel whose bars have long names
_COLUMNS = ["corpus", "in_training", "model", "revision", "step", "estimator", "label", "family", "name", "value"]
_COLUMNS += ["panel", "input_bytes"]


def coding_table(table: pd.DataFrame) -> Figure:
    """All coders on all texts of a table; NothingToDraw says what the table lacks."""
    return draw_coding_table(coding_table_rows(table))


def coding_table_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_table` draws: one row a bar, of each model's last checkpoint on each text, shortest codes first.

    `panel` names the bytes that were coded, `input_bytes` says how many. Bytes that only classical coders took are left
    out.
    """
    everything = coding_rows(table, corpus)
    rows = everything[(everything["quantity"] == "bits_per_byte") & everything["corpus"].isin(coding_texts(table))]
    rows = rows.assign(family=[_family(*pair) for pair in zip(rows["estimator"], rows["label"], strict=True)])
    rows = rows[rows["family"] != ""]
    if not rows["family"].isin([CODEC_BAR, RANK_BAR, MAPPED, CHUNKED]).any():
        raise NothingToDraw("a comparison of coders needs bits_per_byte of a real coder, of ranks or of a mapping")
    coders = rows[rows["estimator"] == CLASSICAL].drop_duplicates(["corpus", "model", "label"])
    found = pd.concat([_at_last_coded(rows[rows["estimator"] != CLASSICAL]), coders])
    found = _panels(found.assign(input_bytes=input_bytes(everything, found)))
    models = [str(name) for name in found.loc[found["estimator"] != CLASSICAL, "model"].unique()]
    short = short_names(models)
    found = found.assign(name=[_name(row, short) for _, row in found.iterrows()])
    found = found.sort_values(["corpus", "panel_bytes", "value"], ascending=[True, False, True], kind="stable")
    return found[_COLUMNS].reset_index(drop=True)


def _family(estimator: str, label: str) -> str:
    """Which of `FAMILIES` a rate belongs to; "" for one that is not of the comparison."""
    if estimator == CLASSICAL:
        return CHUNKED if label.startswith("chunk ") else WHOLE if not label or label.startswith("first ") else ""
    if label.startswith("mapping ") and estimator == CODE_LENGTH:
        return MAPPED
    ranked = estimator.startswith(RANKS)
    return {CODEC: CODEC_BAR, CODE_LENGTH: IDEAL}.get(estimator, RANK_BAR if ranked else "") if not label else ""


def _at_last_coded(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each model on each text the last checkpoint that a real coder ran at, or the last where none did."""
    keep = [rows.iloc[:0]]
    for _, own in rows.groupby("corpus", sort=False):
        real = own["family"] != IDEAL
        last = at_last(own[real | ~own["model"].isin(own.loc[real, "model"])])
        keep.append(own.merge(last[["model", "revision"]].drop_duplicates(), on=["model", "revision"]))
    return pd.concat(keep)


def _panels(rows: pd.DataFrame) -> pd.DataFrame:
    """`panel` and `panel_bytes`: a text by how much of it was coded, sizes within 1 % taken for one.

    A model's code length is of the whole text, a mapped one of the pieces that chunked coders took.
    """
    keep = []
    for corpus, own in rows.groupby("corpus", sort=False):
        own = own.assign(
            input_bytes=own["input_bytes"]
            .fillna(own["family"].map({MAPPED: own.loc[own["family"] == CHUNKED, "input_bytes"].max()}))
            .fillna(own.loc[own["label"] == "", "input_bytes"].max())
        )
        sizes: list[float] = []
        for size in sorted(own["input_bytes"].dropna().unique(), reverse=True):
            if not sizes or of_a_part(size, sizes[-1]):
                sizes.append(size)
        known = [float(size) for size in own["input_bytes"]]
        panel = [next((at for at in sizes if not of_a_part(size, at)), 0.0) for size in known]
        own = own.assign(panel_bytes=panel)
        for size, coded in own.groupby("panel_bytes", sort=False):
            models = coded[coded["estimator"] != CLASSICAL]
            filed = coded.loc[coded["family"].isin([CODEC_BAR, MAPPED]), "model"]
            part = "first " if sizes and float(str(size)) < sizes[0] else ""
            amount = f"{part}{byte_text(float(str(size)))}" if float(str(size)) else ""
            coded = coded[(coded["family"] != IDEAL) | ~coded["model"].isin(filed)]
            said = str(corpus).endswith(amount)  # a text called "first 200 kB" needs no size beside its name
            keep += [coded.assign(panel=f"{corpus}" if said else f"{corpus}, {amount}")] if len(models) else []
    return pd.concat(keep)


def _name(row: pd.Series, short: dict[str, str]) -> str:
    """What a bar is called, of one model without its name."""
    if row["estimator"] == CLASSICAL:
        return row["model"] + (f", {row['label']} B" if row["family"] == CHUNKED else "")
    model = f"{short[row['model']]}: " if len(short) > 1 else ""
    said = {CODEC_BAR: "arithmetic coding", IDEAL: "code length", RANK_BAR: row["estimator"]}
    said |= {MAPPED: RULES.get(row["label"], row["label"])}
    alone = {CODEC_BAR: "model, ", IDEAL: "model, ", MAPPED: "model, "}.get(row["family"], "")
    return (model or alone) + said[row["family"]]


def draw_coding_table(points: pd.DataFrame) -> Figure:
    """The figure of `coding_table_rows`: two panels side by side where their names leave room."""
    with style.styled():
        texts = list(points["panel"].unique())
        columns = min(2, len(texts)) if points["name"].str.len().max() < LONG else 1
        lines = math.ceil(len(texts) / columns)
        sizes = [int((points["panel"] == text).sum()) for text in texts]
        heights = [max(sizes[line * columns : (line + 1) * columns]) for line in range(lines)]
        titles = [_title(points[points["panel"] == text]) for text in texts]
        height = sum(BAR * bars for bars in heights) + lines * (0.4 + 0.13 * _most_lines(titles)) + 0.95
        figure = style.new_figure(style.PAGE if columns > 1 else 0.7 * style.PAGE, height)
        ratios = [BAR * bars for bars in heights]
        grid = figure.subplots(lines, columns, squeeze=False, height_ratios=ratios).ravel()
        for ax, text in zip(grid, texts, strict=False):
            own = points[points["panel"] == text]
            _draw(ax, own, max(heights[texts.index(text) // columns], 1))
        for ax in grid[len(texts) :]:
            ax.set_visible(False)
        style.legend_below(figure, _legend(points), _models(points))
        style.settle(figure)
    return figure


def _draw(ax: Axes, own: pd.DataFrame, bars: int) -> None:
    place = range(len(own))
    for at, (_, row) in zip(place, own.iterrows(), strict=True):
        look: dict[str, Any] = {"edgecolor": "none", "lw": 0.6} | _LOOKS[row["family"]]
        ax.barh(at, row["value"], height=0.74, gid=f"{row['family']}|{row['name']}", **look)
        ax.annotate(
            f"{row['value']:.2f}",
            (row["value"], at),
            (2, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_SIZE,
        )
    ax.set_yticks(list(place), labels=list(own["name"]), fontsize=FONT_SIZE)
    ax.set_ylim(bars - 0.4, -0.6)
    ax.set_xlim(0, 1.15 * own["value"].max())
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("bits per byte")
    ax.set_title(_title(own), fontsize=7)


def _title(own: pd.DataFrame) -> str:
    """Which bytes, and whether they were in the training data, in short lines."""
    said = (str(own["panel"].iloc[0]), f"in the training data: {in_training(own)}")
    return "\n".join(textwrap.fill(text, TITLE, break_on_hyphens=False) for text in said)


def _models(points: pd.DataFrame) -> str:
    """The models and checkpoints of the bars."""
    names = dict.fromkeys(checkpoint_names(points[points["estimator"] != CLASSICAL], in_full=True).values())
    return textwrap.fill(f"model{'s' if len(names) > 1 else ''}: {'; '.join(names)}", 120)


def _most_lines(titles: list[str]) -> int:
    return max(title.count("\n") + 1 for title in titles)


def _legend(points: pd.DataFrame) -> list[Patch]:
    present = set(points["family"])
    return [
        Patch(label=text, **({"edgecolor": "none", "lw": 0.6} | _LOOKS[family]))  # pyright: ignore[reportArgumentType]
        for family, text in FAMILIES.items()
        if family in present
    ]
