"""What is lost: bits per byte and per token by kind of token, a model beside a classical coder on the same spans.

Kinds stand in the order of the model's bits per byte, what costs most on top: what takes many bits was not kept in the
model's weights. Bars are one standard error over documents. The last panel
is the share of each kind in the model's whole code, which is rate times amount.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from infocomp.plotting import style
from infocomp.plotting.coding_selection import (
    CODE_LENGTH,
    at_last,
    checkpoint_names,
    coding_rows,
    labelled,
    the_model,
)
from infocomp.plotting.coding_style import AXIS, MODEL, RIVAL, interval_name, text_title, with_interval
from infocomp.plotting.selection import CLASSICAL, NothingToDraw

QUANTITIES = ("bits_per_byte", "bits_per_token")
_COLUMNS = ["corpus", "in_training", "model", "revision", "step", "estimator", "quantity", "kind", "place", "value"]
_COLUMNS += ["low", "high", "interval", "std_error", "n_tokens", "share"]


def coding_retention(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> Figure:
    """The retention profile of a model (the only one by default); NothingToDraw says what the table lacks."""
    return draw_coding_retention(coding_retention_rows(table, model, corpus))


def coding_retention_rows(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> pd.DataFrame:
    """What `coding_retention` draws, of the model's last checkpoint: one row a kind, quantity and coder.

    `place` counts kinds from the one with the most bits per byte; `share` is of the model's whole code.
    """
    rows = coding_rows(table, corpus)
    name = the_model(rows, model)
    kinds = labelled(rows[rows["quantity"].isin(QUANTITIES)], r"kind (.+)", "kind")
    own = at_last(kinds[(kinds["model"] == name) & (kinds["estimator"] == CODE_LENGTH)])
    rates = own[own["quantity"] == "bits_per_byte"].sort_values("value", ascending=False, kind="stable")
    if len(rates) < 2:
        raise NothingToDraw("a retention profile needs bits_per_byte under labels 'kind …'")
    classical = kinds[(kinds["estimator"] == CLASSICAL) & kinds["corpus"].isin(own["corpus"])]
    classical = classical.drop_duplicates(["model", "quantity", "kind"])
    order = {kind: place for place, kind in enumerate(rates["kind"])}
    found = with_interval(pd.concat([own, classical]).assign(ci_low=np.nan, ci_high=np.nan))
    found = found[found["kind"].isin(list(order))]
    per_token = (found["quantity"] == "bits_per_token") & (found["estimator"] == CODE_LENGTH)
    bits = (found["value"] * found["n_tokens"]).where(per_token)
    found = found.assign(place=found["kind"].map(order), share=bits / bits.sum() if bits.notna().any() else bits)
    found = found.sort_values(["estimator", "quantity", "place"], ascending=[False, True, True], kind="stable")
    return found[_COLUMNS].reset_index(drop=True)


def draw_coding_retention(points: pd.DataFrame) -> Figure:
    """The figure of `coding_retention_rows`."""
    with style.styled():
        kinds = points.drop_duplicates("kind").sort_values("place")
        shares = points[points["share"].notna()]
        panels = [name for name in QUANTITIES if (points["quantity"] == name).any()] + (
            ["share"] if len(shares) else []
        )
        figure = style.new_figure(style.PAGE, 1.5 + 0.2 * len(kinds))
        axes: list[Axes] = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for ax, panel in zip(axes, panels, strict=True):
            if panel == "share":
                ax.barh(shares["place"], 100 * shares["share"], height=0.6, color=MODEL, gid="share")
                ax.set_xlabel("share of the code, %")
            else:
                _draw(ax, points[points["quantity"] == panel])
                ax.set_xlabel(AXIS[panel])
            ax.set_xlim(left=0)
            ax.grid(axis="y", color="0.92", lw=0.6)
            ax.set_axisbelow(True)
        axes[0].set_ylim(len(kinds) - 0.4, -0.6)
        axes[0].set_yticks(list(kinds["place"]), labels=[_name(kind, points) for kind in kinds["kind"]])
        for ax in axes:
            ax.tick_params(axis="y", length=0)
        figure.suptitle(text_title(points), fontsize=8)
        style.legend_below(figure, _legend(points), _note(points))
        style.settle(figure)
    return figure


def _name(kind: str, points: pd.DataFrame) -> str:
    """The kind and how many tokens of it there are."""
    tokens = points.loc[(points["kind"] == kind) & (points["estimator"] == CODE_LENGTH), "n_tokens"].max()
    return f"{kind} ({style.step_text(tokens)})" if pd.notna(tokens) else kind


def _note(points: pd.DataFrame) -> str | None:
    """What the numbers in the names of kinds are; None where they have none."""
    if points.loc[points["estimator"] == CODE_LENGTH, "n_tokens"].isna().all():
        return None
    rare = "; decile 10: the rarest words" if points["kind"].str.contains("decile").any() else ""
    return f"in brackets: tokens of the kind{rare}"


def _draw(ax: Axes, points: pd.DataFrame) -> None:
    for (estimator, model), own in points.groupby(["estimator", "model"], sort=False):
        measured = estimator == CODE_LENGTH
        colour, marker, shift = (MODEL, "o", -0.12) if measured else (RIVAL, "s", 0.12)
        known = own[own["low"].notna()]
        at = known["place"] + shift
        ax.hlines(at, known["low"], known["high"], color=colour, lw=0.9, zorder=2, gid=f"{model}|interval")
        ax.plot(
            own["value"], own["place"] + shift, ls="", marker=marker, ms=3.8, color=colour, zorder=3, gid=str(model)
        )


def _legend(points: pd.DataFrame) -> list[Line2D]:
    names = checkpoint_names(points[points["estimator"] == CODE_LENGTH], in_full=True).values()
    handles = [Line2D([], [], ls="", marker="o", ms=3.8, color=MODEL, label=name) for name in names]
    for model in points.loc[points["estimator"] == CLASSICAL, "model"].unique():
        label = f"{model} on the same spans"
        handles.append(Line2D([], [], ls="", marker="s", ms=3.8, color=RIVAL, label=label))
    if interval_name(points):
        handles.append(Line2D([], [], color=style.GREY, lw=0.9, label=interval_name(points)))
    return handles
