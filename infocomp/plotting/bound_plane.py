"""The plane of the bottleneck bound: which encoders of the last token exist, and where a model's sites lie; bits.

Two planes of one scale, because the joint of a finite text is mostly bias: on the left everything is of the plug-in
joint of the measured rows, on the right curves are of encoders learnt on one half of the documents and scored on the
other, beside the bias-corrected point estimates. Dashed lines are achievable: the concave envelopes of solved points.
The full line is the bound: the least of the tangents at the points of a curve with |T| ≥ |X|. Below, context_gain
against the step: by how much a measured point lies above the same point sent through its token channel.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.bound import HELD_OUT, PLUG_IN, plane_bound_rows
from infocomp.plotting.curves import SITES, line_width, site_colour
from infocomp.plotting.placement import FONT_SIZE, spread, write_beside

TITLES = {
    PLUG_IN: "plug-in: joint of the measured rows",
    HELD_OUT: "held out: fitted on one half, scored on the other",
}
DIAGONAL = "data-processing line\nI(Y; J′) = I(X; J)"
CURVES = style.clipped("Greens", 0.45, 0.95)
_DOTS = (0, (1, 1.5))
_DASHES = (0, (4, 2))
_REMARK = 60.0


def plane_bound(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> Figure:
    """The plane of the bottleneck bound for a model (the only one by default); NothingToDraw says what lacks."""
    return draw_plane_bound(plane_bound_rows(table, model, corpus))


def draw_plane_bound(points: pd.DataFrame) -> Figure:
    """The figure of `plane_bound_rows`."""
    with style.styled():
        gains = points[points["series"] == "context_gain"]
        kinds = [kind for kind in TITLES if (points["rows"] == kind).any()]
        figure = style.new_figure(style.PAGE, 6.1 if len(gains) else 4.4)
        heights = (3.2, 1.6) if len(gains) else (1.0,)
        grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        planes: list[Axes] = []
        for place, kind in enumerate(kinds):
            cell = grid[0, :] if len(kinds) == 1 else grid[0, place]
            shared = planes[0] if planes else None
            ax = figure.add_subplot(cell, sharex=shared, sharey=shared)
            _draw_curves(ax, points[points["rows"] == kind], _clusters(points))
            _draw_sites(ax, points[points["rows"] == kind], points)
            fitted = points.loc[points["rows"] == kind, "series"].isin(["point", "information"]).any()
            ax.set_title(TITLES[kind] if fitted or kind == PLUG_IN else "bias-corrected point estimates")
            ax.set_xlabel("I(X; J), and I(X; T) of curves, bits")
            planes.append(ax)
        planes[0].set_ylabel("I(Y; J), and I(Y; T) of curves, bits")
        for ax in planes:
            _view(ax, points)
        if len(gains):
            _draw_gains(figure.add_subplot(grid[1, :]), gains, points)
        style.legend_below(figure, _legend(points), explanation(points))
        style.settle(figure)
        for ax, kind in zip(planes, kinds, strict=True):
            _write(ax, points[points["rows"] == kind])
    return figure


def explanation(points: pd.DataFrame) -> str:
    """Which line binds which point, in the lines that stand under the figure."""
    solved = points[points["series"] == "point"]
    said = (
        "X: the last token, Y: the next token, J: the soft-quantised direction, T: an encoder of X alone. "
        "Which line binds which point: a measured point or point estimate is bound by no curve, for J sees the whole "
        "context; in the population only I(Y; J) ≤ I(context; J) binds it. The same point sent through its token "
        "channel, J′ for J, is bound by the diagonal"
    )
    if solved.empty:
        return _wrapped(f"{said}. No curve was asked for (bottleneck: in the configuration).")
    said += " and by the plug-in I(X; Y)"
    if (points["series"] == "bound").any():
        return _wrapped(f"{said}, and by the full green line. Dashed curves are achievable and bind nothing.")
    return _wrapped(f"{said}. Curves with |T| < |X| are achievable and bind nothing; none with |T| ≥ |X| is drawn.")


def _wrapped(text: str) -> str:
    """In lines as broad as the figure, no formula broken."""
    for formula in ("I(Y; J) ≤ I(context; J)", "I(X; Y)", "|T| ≥ |X|", "|T| < |X|"):
        text = text.replace(formula, formula.replace(" ", "\N{NO-BREAK SPACE}"))
    return "\n".join(textwrap.wrap(text, 140)).replace("\N{NO-BREAK SPACE}", " ")


def _clusters(points: pd.DataFrame) -> list[float]:
    return sorted(points["clusters"].dropna().unique())


def _look(clusters: float, all_clusters: list[float]) -> tuple[str, str]:
    """Colour and marker of a number of clusters: the more, the darker."""
    place, last = all_clusters.index(clusters), len(all_clusters) - 1
    return to_hex(CURVES(place / last if last else 0.6)), ("o", "^", "s", "D")[place % 4]


def _draw_curves(ax: Axes, points: pd.DataFrame, clusters: list[float]) -> None:
    for (size, curve), path in points[points["series"] == "envelope"].groupby(["clusters", "curve"], sort=False):
        colour, _ = _look(float(str(size)), clusters)
        gid = f"envelope|{size:g}|{curve}"
        ax.plot(path["x"], path["y"], color=colour, lw=0.9, ls=_DASHES, zorder=2, gid=gid)
    for size, path in points[points["series"] == "bound"].groupby("clusters"):
        colour, _ = _look(float(str(size)), clusters)
        ax.plot(path["x"], path["y"], color=colour, lw=1.3, zorder=2.1, gid=f"bound|{size:g}")
    for (size, status), path in points[points["series"] == "point"].groupby(["clusters", "status"], sort=False):
        colour, marker = _look(float(str(size)), clusters)
        face = colour if status == "ok" else "white"
        look = {"ls": "", "marker": marker, "ms": 2.6, "mec": colour, "mew": 0.6, "zorder": 2.2}
        ax.plot(path["x"], path["y"], mfc=face, gid=f"point|{size:g}|{status}", **look)
    again = points[points["series"] == "repeated"]
    ax.plot(again["x"], again["y"], ls="", marker="x", ms=4, mew=0.7, color=style.INK, zorder=2.4, gid="repeated")
    for value in points.loc[points["series"] == "information", "y"]:
        ax.axhline(value, color=style.CEILING, lw=1.1, ls=_DOTS, zorder=1.5, gid="information")
        look = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": FONT_SIZE}
        ax.annotate(f"I(X; Y) = {value:.2f}", (0.02, value), (0, 2), **look)


def _draw_sites(ax: Axes, points: pd.DataFrame, everything: pd.DataFrame) -> None:
    """Trajectories thin, the last checkpoint marked; measured and token-channel points joined by their gain."""
    for series in ("measured", "estimate"):
        for (_site, _branch), path in points[points["series"] == series].groupby(["site", "branch"], sort=False):
            colour = site_colour(path, _of_sites(everything))
            ax.plot(path["x"], path["y"], color=colour, lw=0.6, alpha=0.6, zorder=2.6, gid=f"path|{series}")
    last = points[points["last"].eq(True)]
    for series, marker, size in (("measured", "o", 4.0), ("token_channel", "_", 8.0), ("estimate", "o", 4.0)):
        for _, at in last[last["series"] == series].iterrows():
            colour = site_colour(at.to_frame().T, _of_sites(everything))
            face = "white" if at["duplicate"] else colour
            look = {"marker": marker, "ms": size, "mec": colour, "mfc": face, "mew": 1.2 if marker == "_" else 0.6}
            ax.plot([at["x"]], [at["y"]], ls="", zorder=4, gid=series, **look)
            if series == "estimate":
                ends = {"color": colour, "lw": 0.8, "zorder": 3, "gid": "interval"}
                ax.plot([at["x_low"], at["x_high"]], [at["y"]] * 2, **ends)
                ax.plot([at["x"]] * 2, [at["y_low"], at["y_high"]], **ends)
    both = last[last["series"] == "measured"].merge(last[last["series"] == "token_channel"], on=["revision", "site"])
    for _, at in both.iterrows():
        ax.plot([at["x_x"], at["x_y"]], [at["y_x"], at["y_y"]], color=style.INK, lw=0.8, zorder=3.5, gid="gain")


def _of_sites(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["site"].notna()]


def _view(ax: Axes, points: pd.DataFrame) -> None:
    """From the origin to the ends of everything, with the diagonal as far as it lies inside."""
    shown = points[points["series"] != "context_gain"]
    of_sites = shown.loc[shown["site"].notna(), ["x", "x_high"]].max().max()
    right = float(np.nanmax([shown["x"].max(), 1.25 * of_sites]))  # room for names beside the points
    top = float(np.nanmax([shown["y"].max(), shown["y_high"].max()]))
    ax.plot([0, right], [0, right], color=style.INK, lw=0.9, zorder=1, gid="diagonal")
    low = min(0.0, float(shown["y"].min()))
    ax.set_xlim(-0.03 * right, 1.04 * right)
    ax.set_ylim(low - 0.03 * top, 1.08 * top)


def _write(ax: Axes, points: pd.DataFrame) -> None:
    """The diagonal's meaning and the sites' names, off everything drawn."""
    right, top = ax.get_xlim()[1], ax.get_ylim()[1]
    equal = np.linspace(0, min(right, top), 60)[:, None].repeat(2, axis=1)
    lines = [line.get_xydata() for line in ax.lines if str(line.get_gid()).startswith(("envelope", "bound"))]
    between = [
        np.column_stack(
            [np.interp(np.linspace(0, len(line) - 1, 120), range(len(line)), line[:, axis]) for axis in (0, 1)]
        )
        for line in map(np.asarray, lines)
        if len(line) > 1
    ]
    ends = points.loc[points["series"] == "estimate", ["x", "y_low", "y_high"]].dropna()
    between += [np.column_stack([np.full(30, x), np.linspace(low, high, 30)]) for x, low, high in ends.to_numpy()]
    level = points.loc[points["series"] == "information", "y"]
    between += [np.column_stack([np.linspace(0, right, 120), np.full(120, value)]) for value in level]
    obstacles = np.vstack([equal, points[["x", "y"]].dropna().to_numpy(), *between])
    if (points["series"] == "token_channel").any():
        write_beside(ax, equal[38:39], [DIAGONAL], obstacles, _REMARK)
    named = points[points["series"].isin(["measured", "estimate"]) & points["last"].eq(True)]
    _write_names(ax, named.sort_values("y"))


def _write_names(ax: Axes, named: pd.DataFrame) -> None:
    """One below the other to the right of all of them, each with a line to its point: the points often touch."""
    pixels = ax.transData.transform(named[["x", "y"]].to_numpy(dtype=float).reshape(-1, 2))
    gap = 9.0 * ax.get_figure(root=True).dpi / 72  # pyright: ignore[reportOptionalMemberAccess]
    heights = spread(pixels[:, 1].tolist(), gap)
    lowest = ax.get_window_extent().y0 + gap
    lift = max(0.0, lowest - min(heights, default=lowest))
    for (_, at), height in zip(named.iterrows(), heights, strict=True):
        to = ax.transData.inverted().transform((pixels[:, 0].max() + 1.6 * gap, height + lift))
        leader = {"arrowstyle": "-", "lw": 0.4, "color": style.GREY, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)}
        look = {"va": "center", "fontsize": FONT_SIZE, "arrowprops": leader, "annotation_clip": False}
        ax.annotate(str(at["name"]), (at["x"], at["y"]), (float(to[0]), float(to[1])), **look).set_in_layout(False)


def _draw_gains(ax: Axes, gains: pd.DataFrame, points: pd.DataFrame) -> None:
    for (_site, _branch), path in gains.groupby(["site", "branch"], sort=False):
        ordered, colour = path.sort_values("x"), site_colour(path, _of_sites(points))
        gid = f"{path['site'].iloc[0]}|context_gain"
        kind = str(path["kind"].iloc[0])
        look = {"color": colour, "lw": line_width(kind), "zorder": 2.8 if kind == "norm" else 3}
        ax.plot(ordered["x"], ordered["y"], gid=gid, **look)
        size = float(np.interp(len(path), [12, 160], [2.4, 1.0]))
        for hollow, shown in ordered.groupby(ordered["duplicate"].astype(bool)):
            face = "white" if hollow else colour
            ax.plot(shown["x"], shown["y"], "o", ms=size + bool(hollow), mfc=face, mec=colour, mew=0.6, zorder=3.2)
        ax.plot(ordered["x"], ordered["null"], color=colour, lw=0.8, ls=_DASHES, zorder=2, gid="null")
    ax.axhline(0, color=style.GREY, lw=0.5, zorder=1)
    style.step_axis(ax, list(gains["x"]))
    ax.set_ylabel("context gain\nI(Y; J) − I(Y; J′), bits")


def _legend(points: pd.DataFrame) -> list[Line2D]:
    """Curves, sites, then signs; nothing that is not drawn."""
    clusters, handles = _clusters(points), []
    solved = points[points["series"] == "point"]
    for size in clusters:
        colour, marker = _look(size, clusters)
        look = {"color": colour, "marker": marker, "ms": 2.6, "ls": _DASHES, "lw": 0.9}
        handles.append(Line2D([], [], label=f"|T| = {size:g}, achievable", **look))
    handles += [
        Line2D([], [], color=_look(size, clusters)[0], lw=1.3, label=f"|T| = {size:g} ≥ |X|, the bound")
        for size in _clusters(points[points["series"] == "bound"])
    ]

    def sign(text: str, marker: str, size: float, colour: str = style.INK, ls: object = "", **look: object) -> None:
        handles.append(Line2D([], [], color=colour, marker=marker, ms=size, ls=ls, label=text, **look))  # pyright: ignore

    if (solved["status"] != "ok").any():
        sign("not converged", "o", 3.0, mfc="white", mew=0.6)
    if (points["series"] == "repeated").any():
        sign("solved again, 10 × the steps", "x", 4, mew=0.7)
    sites = _of_sites(points).sort_values("depth").drop_duplicates("site")
    for _, site in sites.iterrows():
        name = SITES.get(site["name"], site["name"])
        sign(name, "o", 3.5, site_colour(site.to_frame().T, sites), "-", lw=0.8)  # pyright: ignore[reportArgumentType]
    present = set(points["series"])
    if "measured" in present:
        sign("measured, last checkpoint", "o", 4.0, style.GREY)
    if "token_channel" in present:
        sign("the same through its token channel", "_", 8.0, style.GREY, mew=1.2)
    if "estimate" in present:
        sign("point estimate, outer 95 % interval", "o", 4.0, style.GREY, "-", lw=0.8)
    if points["duplicate"].eq(True).any():
        sign("duplicate weights", "o", 3.5, style.GREY, mfc="white")
    if points.loc[points["series"] == "context_gain", "null"].notna().any():
        sign("null of the gain: other documents' rows", "", 0, style.GREY, _DASHES, lw=0.8)
    return handles
