"""What a tuned model still shares with its base: CKA of all pairs of sites, five measures of equal sites, KL of tokens.

Above, a map for each tuned model: linear CKA (debiased) of its sites with those of the base, 1 where they agree; a dot
marks the base's site that each site is most like. Below, sites with themselves before and after: CKA, Procrustes
distance (0 where they agree), CCA and SVCCA, mutual nearest neighbours, representational similarity, all without unit,
with 95 % intervals and the null dotted. Last, the divergence KL of next-token distributions by position, in bits.
"""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES, DOTS, band
from infocomp.plotting.comparison_changes import interval_text
from infocomp.plotting.comparison_selection import TUNED, comparison_rows, few, of_one_text, setting, site_place
from infocomp.plotting.comparison_style import (
    Look,
    draw_layers,
    footnote,
    interval_words,
    left_out,
    look_of,
    model_handles,
    site_axis,
    with_x,
)
from infocomp.plotting.grokking_style import number_text
from infocomp.plotting.selection import NothingToDraw

MAP, KL = "map", "kl"
PANELS = {  # panel: its title, its y-axis, the value of two equal models, the quantities in it
    "cka": ("linear CKA, debiased", "CKA, ratio", 1.0, ("cka",)),
    "procrustes": ("Procrustes distance", "distance, ratio", 0.0, ("procrustes",)),
    "cca": ("canonical correlations", "correlation, ratio", 1.0, ("cca_mean", "svcca_mean")),
    "neighbours": ("mutual nearest neighbours", "shared, ratio", 1.0, ("mutual_neighbours",)),
    "items": ("representational similarity", "Spearman's ρ, ratio", 1.0, ("representational_similarity",)),
}
FORWARD, BACKWARD = "base to tuned", "tuned to base"
STROKES: dict[str, Any] = {"svcca_mean": DASHES, BACKWARD: DASHES}
CLOSE = 0.2  # all within it of the value of equal models: the axis is of those, and the null leaves it
COLUMNS = 3
EDGE = 0.16  # of an axis of sites, within which no block is named beside the embedding and the norm
MOST_MAPS = 4
MOST_BANDS = 5  # of positions, that are named
_QUANTITIES = tuple(name for *_, names in PANELS.values() for name in names)
_COLUMNS = ["panel", "corpus", "base", "who", "model", "revision", "role", "place", "of_tuned", "site", "kind", "name"]
_COLUMNS += ["depth", "base_site", "base_name", "base_depth", "quantity", "label", "rows", "value", "low", "high"]
_COLUMNS += ["interval", "null", "p", "unit", "first", "last"]


def comparison_similarity(table: pd.DataFrame, corpus: str | None = None) -> Figure:
    """What tuned models share with their base on one data set; NothingToDraw says what the table lacks."""
    return draw_comparison_similarity(comparison_similarity_rows(table, corpus))


def comparison_similarity_rows(table: pd.DataFrame, corpus: str | None = None) -> pd.DataFrame:
    """What `comparison_similarity` draws: a row for each cell of a map and each point of a line (`panel`)."""
    rows = comparison_rows(table, *_QUANTITIES, KL, corpus=corpus)
    lacking = "similarity needs cka, another likeness of a tuned model to its base, or their kl"
    rows = few(of_one_text(rows[rows["role"] == TUNED], lacking), MOST_MAPS)
    told = zip(rows["said"], rows["label"], rows["site"], strict=True)
    rows = rows.assign(
        base_site=[_base_site(*about) for about in told], p=setting(rows, "p"), first=np.nan, last=np.nan
    )
    places = [site_place(site) for site in rows["base_site"]]
    rows = rows.assign(base_depth=[depth for _, depth, _ in places], base_name=[name for *_, name in places])
    rows["base"] = [str(said.get("base", "base")) for said in rows["said"]]
    parts = [_map(rows), *(_equal_sites(rows, panel) for panel in PANELS), _by_position(rows)]
    found = [part for part in parts if len(part)]
    if not found:
        raise NothingToDraw(lacking)
    return pd.concat(found)[_COLUMNS].reset_index(drop=True)


def _base_site(said: dict[str, Any], label: str, site: str) -> str:
    """The site of the base that a row compares with: of its settings, or behind "vs" in its label, or its own."""
    named = said.get("base_site")
    return str(named) if named else label.removeprefix("vs ") if label.startswith("vs ") else site


def _map(rows: pd.DataFrame) -> pd.DataFrame:
    """CKA of all pairs of sites, where a model has several for one site."""
    pairs = rows[(rows["quantity"] == "cka") & (rows["rows"] == "sample")]
    several = pairs.groupby(["who", "site"])["base_site"].transform("nunique") > 1
    return pairs[several].drop_duplicates(["who", "site", "base_site"]).assign(panel=MAP)


def _equal_sites(rows: pd.DataFrame, panel: str) -> pd.DataFrame:
    """One row a site: compared with the same site of the base, and that of all rows rather than of a sample.

    Where the base has no site of that name (it is less deep), the pair that was measured over all rows.
    """
    own = rows[rows["quantity"].isin(PANELS[panel][3])]
    same, everything = own["site"] == own["base_site"], own["rows"] == "all"
    own = own.assign(rank=2 * (~same).astype(int) + (~everything).astype(int))[same | everything]
    own = own.sort_values("rank", kind="stable").drop_duplicates(["who", "quantity", "site"])
    return own.sort_values(["place", "who", "quantity", "depth"], kind="stable").assign(panel=panel)


def _by_position(rows: pd.DataFrame) -> pd.DataFrame:
    """KL over all rows, and by bands "positions 0-15" with `first` and `last`."""
    own = rows[rows["quantity"] == KL]
    bands = [re.fullmatch(r"positions (\d+)[-–](\d+)", str(name)) for name in own["rows"]]
    first = [float(found[1]) if found else np.nan for found in bands]
    last = [float(found[2]) if found else np.nan for found in bands]
    own = own.assign(panel=KL, first=first, last=last).sort_values(["place", "who", "label", "first"], kind="stable")
    return own[own["first"].notna() | (own["rows"] == "all")]


# --- the figure -------------------------------------------------------------------------------------------------------


def draw_comparison_similarity(points: pd.DataFrame) -> Figure:
    """The figure of `comparison_similarity_rows`."""
    with style.styled():
        looks = look_of(points)
        maps = [str(who) for who in points.loc[points["panel"] == MAP, "who"].unique()]
        bands = points[(points["panel"] == KL) & points["first"].notna()]
        panels = [name for name in PANELS if (points["panel"] == name).any()] + ([KL] if len(bands) else [])
        down = -(-len(panels) // COLUMNS)
        heights = [size for size in (1.95 if maps else 0.0, 1.55 * down) if size]
        figure = style.new_figure(style.PAGE, sum(heights) + 1.15)
        grid = figure.add_gridspec(max(1, len(heights)), 1, height_ratios=heights or [1])
        if maps:
            cells = grid[0].subgridspec(1, max(2, len(maps)))
            _draw_maps(figure, [figure.add_subplot(cells[0, place]) for place in range(len(maps))], points, maps)
        if panels:
            cells = grid[-1].subgridspec(down, min(COLUMNS, len(panels)))
            for place, panel in enumerate(panels):
                ax = figure.add_subplot(cells[divmod(place, COLUMNS)])
                if panel == KL:
                    _draw_positions(ax, bands, looks)
                else:
                    _draw_panel(ax, points[points["panel"] == panel], panel, looks)
        figure.suptitle(f"{points['corpus'].iloc[0]}; base: {points['base'].iloc[0]}", fontsize=8)
        style.legend_below(figure, _legend(points, looks), footnote(_sentences(points)))
        style.settle(figure)
    return figure


def _draw_maps(figure: Figure, axes: list[Axes], points: pd.DataFrame, whos: list[str]) -> None:
    """The maps on one scale from 0 (or the least value) to 1, with one colour bar."""
    cells = points[points["panel"] == MAP]
    norm = Normalize(min(0.0, float(cells["value"].min())), max(1.0, float(cells["value"].max())))
    for place, (ax, who) in enumerate(zip(axes, whos, strict=True)):
        own = cells[cells["who"] == who]
        values = own.pivot(index="depth", columns="base_depth", values="value").to_numpy(dtype=float)
        ax.pcolormesh(values, cmap=style.VALUE_COLOURS, norm=norm, rasterized=True, gid=f"{who}|{MAP}")
        known = np.flatnonzero(np.isfinite(values).any(axis=1))
        best = np.nanargmax(values[known], axis=1)
        size = float(np.clip(40 / len(values), 1.2, 3.5))
        ax.plot(best + 0.5, known + 0.5, gid=f"{who}|best", **_dot(size))
        for axis, name, depth in ((ax.xaxis, "base_name", "base_depth"), (ax.yaxis, "name", "depth")):
            names = own.drop_duplicates(depth).sort_values(depth)[name].tolist()
            at = style.thin(len(names), 8 if axis is ax.yaxis else 6 - len(whos) // 2)
            axis.set_ticks([one + 0.5 for one in at], labels=[names[one] for one in at])
        ax.set_title(who)
        ax.set_xlabel(f"site of {points['base'].iloc[0]}" if len(whos) < MOST_MAPS else "site of the base")
        ax.set_ylabel("site of the tuned model" if place == 0 else "")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, style.VALUE_COLOURS), ax=axes, aspect=20, pad=0.01)
    bar.set_label("linear CKA, ratio")


def _draw_panel(ax: Axes, own: pd.DataFrame, panel: str, looks: dict[str, Look]) -> None:
    title, unit, same, quantities = PANELS[panel]
    own = with_x(own)
    for quantity, part in own.groupby("quantity", sort=False):
        draw_layers(ax, part, looks, f"|{quantity}", ls=STROKES.get(str(quantity), "-"))
    _axis_of_values(ax, own, same)
    for (who, quantity), path in own[own["null"].notna()].groupby(["who", "quantity"], sort=False):
        colour, gid = looks[str(who)]["color"], f"{who}|{quantity}|null"
        ax.plot(path["at"], path["null"], color=colour, lw=0.9, ls=DOTS, zorder=2, gid=gid)
    narrow_site_axis(ax, own)
    if panel == "cca":
        title = ", dashed: ".join(
            name.removesuffix("_mean").upper() for name in quantities if (own["quantity"] == name).any()
        )
    ks = own["label"].str.extract(r"^k (\d+)$")[0].dropna().unique()
    ax.set_title(f"{title}, k = {ks[0]}" if panel == "neighbours" and len(ks) == 1 else title)
    ax.set_ylabel(unit)


def narrow_site_axis(ax: Axes, own: pd.DataFrame) -> None:
    """Sites by name under a panel of a third of the page: embedding and norm, and blocks that keep clear of both."""
    site_axis(ax, own)
    sites = own.drop_duplicates("at").sort_values("at")
    ends = sites.loc[sites["kind"] != "block", "at"].to_numpy(dtype=float)
    clear = [bool((abs(ends - at) > EDGE * np.ptp(sites["at"])).all()) for at in sites["at"]]
    blocks = sites[(sites["kind"] == "block") & np.array(clear)]
    named = pd.concat([blocks.iloc[style.thin(len(blocks), 4)], sites[sites["kind"] != "block"]])
    ax.set_xticks(list(named["at"]), labels=[str(name) for name in named["name"]])
    ax.set_xlabel("site, by depth")


def _axis_of_values(ax: Axes, own: pd.DataFrame, same: float) -> None:
    """From 0 to 1 and whatever lies beyond; of the values alone where all are CLOSE to that of equal models."""
    low, high = _ends(own)
    if _close(own, same):
        low, high = min(low, same), max(high, same)
        margin = max(0.08 * (high - low), 1e-4)
    else:
        low, high = (pick(0.0, 1.0, low, high, *own["null"].dropna()) for pick in (min, max))
        margin = 0.04
    ax.set_ylim(low - margin, high + margin)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _ends(own: pd.DataFrame) -> tuple[float, float]:
    ends = own[["value", "low", "high"]].to_numpy(dtype=float)
    return float(np.nanmin(ends)), float(np.nanmax(ends))


def _close(own: pd.DataFrame, same: float) -> bool:
    return max(abs(end - same) for end in _ends(own)) <= CLOSE


def _draw_positions(ax: Axes, own: pd.DataFrame, looks: dict[str, Look]) -> None:
    """KL by bands of positions, side by side in their order, not to scale."""
    bands = own.drop_duplicates(["first", "last"]).sort_values("first", ignore_index=True)
    own = own.assign(x=own["first"].map(dict(zip(bands["first"], range(len(bands)), strict=True))))
    for (who, label), path in own.groupby(["who", "label"], sort=False):
        gid, look = f"{who}|{KL}|{label}", looks[str(who)] | {"ls": STROKES.get(str(label), "-")}
        ax.plot(path["x"], path["value"], zorder=3, gid=gid, **look)
        band(ax, path, "x", look["color"], f"{gid}|interval")
    at = style.thin(len(bands), MOST_BANDS)
    names = [f"{bands['first'][place]:g}–{bands['last'][place]:g}" for place in at]
    ax.set_xticks(at, labels=names, fontsize=6)
    ax.set_xlabel("position in the context, tokens")
    ax.set_ylabel("KL, bits per token")
    ax.set_ylim(bottom=min(0.0, own[["value", "low"]].min().min()))
    ax.set_title("KL of next tokens")
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _dot(size: float = 3.5) -> dict[str, Any]:
    return {"ls": "", "marker": "o", "ms": size, "mfc": "white", "mec": style.INK, "mew": 0.4}


def _legend(points: pd.DataFrame, looks: dict[str, Look]) -> list[Artist]:
    lines = points[points["panel"] != MAP]
    handles = model_handles(lines, looks)
    if lines.loc[lines["panel"] != KL, "null"].notna().any():
        handles.append(Line2D([], [], color=style.GREY, lw=0.9, ls=DOTS, label="null, in its model's colour"))
    if lines["label"].isin([FORWARD, BACKWARD]).any():
        handles.append(Line2D([], [], color=style.GREY, label=f"KL, {FORWARD}"))
        handles.append(Line2D([], [], color=style.GREY, ls=DASHES, label=f"KL, {BACKWARD}"))
    if (points["panel"] == MAP).any():
        handles.append(Line2D([], [], label="site of the base most like it", **_dot()))
    return handles


def _sentences(points: pd.DataFrame) -> list[str]:
    """The null of the maps, KL over all positions, p of representational similarity, what lines and intervals are."""
    said = []
    null = points.loc[points["panel"] == MAP, "null"].dropna()
    if len(null):
        ends = sorted({number_text(float(null.min())), number_text(float(null.max()))}, key=len)
        said.append(f"Maps: paired with rows of other documents, CKA is {' to '.join(ends)}.")
    whole = points[(points["panel"] == KL) & points["first"].isna() & (points["label"] == FORWARD)]
    told = [f"{row['who']} {interval_text(row['value'], row['low'], row['high'])}" for _, row in whole.iterrows()]
    if told:
        said.append(f"KL from base to tuned over all positions, bits per token: {'; '.join(told)}.")
    p = points.loc[points["panel"] == "items", "p"].dropna()
    if len(p):
        said.append(f"Representational similarity: p by permutation is at most {number_text(float(p.max()))}.")
    panels = {name: points[points["panel"] == name] for name in PANELS}
    if any(own["null"].notna().any() and _close(own, PANELS[name][2]) for name, own in panels.items() if len(own)):
        said.append("Where all values are near those of equal models, the null is off the axis.")
    return [*said, interval_words(points, "documents"), left_out(points)]
