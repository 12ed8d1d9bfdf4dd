"""What the plane of the bottleneck bound draws: curves of the text's tokens, and points of one model beside them; bits.

Curves stand in rows of the text alone, without model and site. X is the last token, Y the next one. A measured point
(I(X; J), I(Y; J)) and the same point sent through its token channel (I(X; J), I(Y; J′)) are plug-in values, since they
belong to the plug-in joint of the measured rows; the point estimates belong beside what was fitted on one half of the
documents and scored on the other.
"""

import json

import numpy as np
import pandas as pd
from jaxtyping import Float

from infocomp.plotting.heatmaps import one_model
from infocomp.plotting.selection import NothingToDraw, drawable, named_sites, values_of

LABEL = "token"
MOST_LAYERS = 4
PLUG_IN, HELD_OUT = "plug_in", "held_out"
BOUND, ACHIEVABLE = "bound", "achievable"
_AT = ["model", "revision", "site"]
_ABOUT = ["step", "position", "branch", "kind", "depth", "name", "duplicate_of", "duplicate"]
_COLUMNS = ["series", "rows", "clusters", "number", "beta", "curve", "status", *_AT, *_ABOUT, "last"]
_COLUMNS += ["x", "y", "x_low", "x_high", "y_low", "y_high", "null"]
_PREFIX = "bottleneck "
_REPEATED = " repeated"


def plane_bound_rows(table: pd.DataFrame, model: str | None = None, corpus: str | None = None) -> pd.DataFrame:
    """What `plane_bound` draws, one row a point; `series` says of what.

    "point" and "repeated" are solved points of curves, "envelope" the corners of the line over each curve's points,
    which encoders reach, "bound" those of the line that none passes, "information" is I(X; Y). "measured",
    "token_channel" and "estimate" are points of sites, `last` the checkpoint at which they are marked; "context_gain"
    has the step as x. NothingToDraw says what the table lacks.
    """
    rows = drawable(table, corpus)
    texts = [str(name) for name in rows.loc[rows["corpus"] != "", "corpus"].unique()]
    curves = _curves(table, texts)
    rows = rows[(rows["model"] == one_model(rows, model)) & (rows["label"] == LABEL)]
    sites = _sites(rows)
    solved = len(curves) and (curves["series"] == "point").any()
    if not solved and not (len(sites) and (sites["series"] == "token_channel").any()):
        raise NothingToDraw(
            "the bound needs bottleneck curves (set bottleneck: in the configuration) or token_channel_expressivity"
        )
    return pd.concat([part for part in (curves, sites) if len(part)]).reindex(columns=_COLUMNS).reset_index(drop=True)


def _curves(table: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """Solved points, whatever their status, the envelope over those of each curve, and I(X; Y)."""
    own = table[table["corpus"].isin(texts) & table["value"].notna() & table["estimator"].notna()]
    own = own[own["estimator"].str.startswith("bottleneck") & (own["label"] == LABEL)]
    if own.empty:
        return own
    about = [_settings(text) for text in own["settings"]] if "settings" in own else [{}] * len(own)
    own = own.assign(beta=[float(found.get("beta", "nan")) for found in about])
    own = own.assign(curve=[str(found.get("kind", ACHIEVABLE)) for found in about])  # no more than the row says
    parts = [
        pd.DataFrame({"series": "information", "rows": own["rows"], "y": own["value"]})[
            own["quantity"] == "mutual_information"
        ]
    ]
    key = ["estimator", "rows", "draw"]
    across, up = (own[own["quantity"] == f"bottleneck_{name}"] for name in ("complexity", "relevance"))
    points = across[[*key, "beta", "curve", "status", "value"]].merge(
        up[[*key, "value"]].rename(columns={"value": "y"}), on=key, validate="one_to_one"
    )
    repeated = points["estimator"].str.endswith(_REPEATED)
    points = points.rename(columns={"value": "x"}).assign(
        series=np.where(repeated, "repeated", "point"),
        clusters=points["estimator"].str.removeprefix(_PREFIX).str.removesuffix(_REPEATED).astype("float64"),
        number=points["draw"].astype("float64"),
    )
    points = points.sort_values(["rows", "clusters", "series", "number"], ascending=[False, True, True, True])
    parts.append(points)
    solved = points[points["series"] == "point"]
    for (kind, clusters, curve), path in solved.groupby(["rows", "clusters", "curve"], sort=False):
        corners = envelope(path[["x", "y"]].to_numpy())
        about_line = {"series": "envelope", "rows": kind, "clusters": clusters, "curve": curve}
        parts.append(pd.DataFrame({"x": corners[:, 0], "y": corners[:, 1]}).assign(**about_line))
        tight = path[(path["status"] == "ok") & path["beta"].notna()]
        if curve == BOUND and len(tight):
            corners = tangents(tight[["x", "y", "beta"]].to_numpy())
            about_line |= {"series": "bound"}
            parts.append(pd.DataFrame({"x": corners[:, 0], "y": corners[:, 1]}).assign(**about_line))
    return pd.concat([part for part in parts if len(part)])


def envelope(points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "corners 2"]:
    """Corners of the least concave and rising line above the points and the origin (Andrew's monotone chain, 1979)."""
    corners: list[tuple[float, float]] = []
    ordered = sorted([(0.0, 0.0), *((float(x), float(y)) for x, y in points)], key=lambda point: (point[0], -point[1]))
    for x, y in ordered:
        if corners and x == corners[-1][0]:
            continue  # the higher one of the two came first
        while len(corners) > 1:
            (first_x, first_y), (middle_x, middle_y) = corners[-2:]
            if (middle_x - first_x) * (y - first_y) < (middle_y - first_y) * (x - first_x):
                break
            corners.pop()
        corners.append((x, y))
    highest = int(np.argmax([y for _, y in corners]))
    return np.array(corners[: highest + 1])


def tangents(points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "corners 2"]:
    """Corners of the least of the lines through (x, y) with slope 1/β, and of y = x, up to the largest x.

    A point that minimises I(X; T) − β I(T; Y) has all encoders on or under its line: between two solved points this
    stands above the chord, which is only achievable.
    """
    x, y, beta = points.T
    slopes, heights = np.r_[1.0, 1 / beta], np.r_[0.0, y - x / beta]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = ((heights[None] - heights[:, None]) / (slopes[:, None] - slopes[None])).ravel()
    inside = crossings[np.isfinite(crossings) & (crossings > 0) & (crossings < x.max())]
    at = np.unique(np.r_[0.0, inside, x.max()])
    return envelope(np.column_stack([at, (slopes * at[:, None] + heights).min(axis=1)]))


def _sites(rows: pd.DataFrame) -> pd.DataFrame:
    """Measured points, token-channel points, point estimates and context gains, at the sites that are named."""
    found = {
        name: values_of(rows, name, LABEL).drop(columns=["rows"])
        for name in ("complexity", "expressivity", "token_channel_expressivity", "context_gain")
    }
    across, up = found["complexity"], found["expressivity"]
    parts = [
        _pairs(across, found["token_channel_expressivity"], "value", "token_channel", PLUG_IN),
        _pairs(across, up, "value", "measured", PLUG_IN),
    ]
    if "point" in rows and across["point"].notna().any():
        parts.append(_pairs(across, up, "point", "estimate", HELD_OUT))
    gains = found["context_gain"]
    gains = gains.assign(series="context_gain", x=gains["position"], y=gains["value"])
    parts.append(gains[gains["position"].notna()])
    joined = pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else parts[0]
    if joined.empty:
        return joined
    joined = named_sites(joined, MOST_LAYERS)
    position = joined["position"].fillna(-1.0)
    return joined.assign(last=position == position.groupby(joined["site"]).transform("max"))


def _pairs(across: pd.DataFrame, up: pd.DataFrame, column: str, series: str, rows: str) -> pd.DataFrame:
    """Points of a plane, with the outer intervals of both coordinates for point estimates."""
    ends = {"ci_low": "low", "ci_high": "high"} if column == "point" else {}
    sides = [
        side[[*_AT, column, *ends]].rename(
            columns={column: axis} | {end: f"{axis}_{name}" for end, name in ends.items()}
        )
        for axis, side in (("x", across), ("y", up))
    ]
    joined = sides[0].merge(sides[1], on=_AT).merge(across[[*_AT, *_ABOUT]], on=_AT)
    joined = joined[joined["x"].notna() & joined["y"].notna()].sort_values(["depth", "position"], kind="stable")
    return joined.assign(series=series, rows=rows)


def _settings(text: object) -> dict:
    return json.loads(text) if isinstance(text, str) and text else {}
