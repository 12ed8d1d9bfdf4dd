"""Tables of a comparison made by hand, with laws of the usual shape, for the figures' tests."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from infocomp.execution.table import check_unique, row, rows_to_table, to_frame

BASE, TUNED = "demo", ("sft", "dpo")
CONTROL = "random weights"
LABELS = ("token", "bigram", "trigram", "quadgram")
DIFFERENCE = ", tuned minus base"
RANKS = (1, 2, 3, 5, 8, 12, 20, 32, 50, 64, 80, 100, 128)
SIZES = (256, 512, 1024, 2048, 4096)


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    table = rows_to_table(list(rows))
    check_unique(table)
    return to_frame(table)


class Maker:
    """Rows of one model in a comparison: its role, its place and how far from the base it is (`moved`, 0 to 1)."""

    def __init__(self, model: str, role: str, place: int, layers: int = 4, moved: float = 0.0, base: str = BASE):
        self.model, self.role, self.place, self.layers, self.moved, self.base = model, role, place, layers, moved, base
        self.revision = "main"

    def sites(self) -> list[tuple[str, int | None, float]]:
        """Site, layer and depth from 0 (embedding) to 1 (norm)."""
        blocks = [(f"blocks.{i}.hook_resid_post", i, (i + 1) / (self.layers + 1)) for i in range(self.layers)]
        return [("hook_embed", None, 0.0), *blocks, ("ln_final.hook_normalized", None, 1.0)]

    def row(self, corpus: str, quantity: str, value: float, half: float | None = None, **more: Any) -> dict:
        """A row with its key, its role in the settings and an interval of that half width."""
        said = {"role": self.role, "base": self.base, "place": self.place} | more.pop("settings", {})
        ends = {"ci_low": value - half, "ci_high": value + half, "std_error": half / 1.96} if half is not None else {}
        key: dict[str, Any] = {"model": self.model, "revision": self.revision, "corpus": corpus, "draw": "mean"}
        at = key | {"quantity": quantity, "unit": "bits"} | ends | more
        return row(**at, value=value, settings=said)


def models(layers: int = 4, tuned: tuple[str, ...] = TUNED, control: bool = True, base: str = BASE) -> list[Maker]:
    made = [Maker(base, "base", 0, layers, base=base)]
    steps = max(1, len(tuned))
    made += [Maker(name, "tuned", i, layers, i / steps, base) for i, name in enumerate(tuned, start=1)]
    return [*made, Maker(CONTROL, "control", 0, layers, -1.0, base)] if control else made


def level(make: Maker, depth: float) -> float:
    """How much a site knows: less where it is deep, nearly nothing on random weights."""
    return 0.2 if make.role == "control" else 1.0 + 0.12 * make.moved * depth**2 - 0.3 * depth


# --- text -------------------------------------------------------------------------------------------------------------


def plane_rows(make: Maker, corpus: str = "raw", differences: bool = True) -> Iterator[dict]:
    base = Maker(make.base, "base", 0, make.layers)
    for site, layer, depth in make.sites():
        for order, label in enumerate(LABELS):
            at: dict[str, Any] = {"site": site, "layer": layer, "label": label, "rows": "raw", "order": order + 1}
            at |= {"estimator": "soft"}
            x = complexity(make, depth) * (1 + 0.3 * order)
            y = expressivity(make, depth) * (1 + 0.25 * order)
            for quantity, value, null in (("complexity", x, 0.05), ("expressivity", y, 0.04)):
                point = {"null": null, "ceiling": 4.0}
                yield make.row(corpus, quantity, value, 0.012, **at, **point, settings={"kind": "text"})
                if make.role == "tuned" and differences:
                    was = (complexity if quantity == "complexity" else expressivity)(base, depth)
                    was *= 1 + (0.3 if quantity == "complexity" else 0.25) * order
                    change = value - was
                    said = {"base_value": was, "tuned_value": value, "p": 0.01, "effect": change / 0.002}
                    said |= {"changed": abs(change) > 0.008, "paired": True}
                    at_change = at | {"estimator": "soft" + DIFFERENCE}
                    yield make.row(corpus, quantity, change, 0.004, **at_change, settings=said)


def complexity(make: Maker, depth: float) -> float:
    bend = 0.1 * math.sin(3 * depth)
    return 0.15 if make.role == "control" else 0.95 - 0.5 * depth + bend - 0.05 * make.moved * depth


def expressivity(make: Maker, depth: float) -> float:
    return 0.1 if make.role == "control" else 0.25 + 0.35 * depth - 0.1 * depth**3 + 0.04 * make.moved * depth**1.5


# --- preference -------------------------------------------------------------------------------------------------------


def preference_rows(
    make: Maker, corpus: str = "preferences", confounded: bool = False, ceiling: float = 0.6, rows: str = "matched"
) -> Iterator[dict]:
    """Preference information that grows in later layers by how much a model is tuned; the excess over its controls."""
    about = {"pairs": 805, "template": "plain", "kind": "preference"}
    embed, random = 0.021, 0.012
    for site, layer, depth in make.sites():
        at: dict[str, Any] = {"site": site, "layer": layer, "label": "preference", "rows": rows, "estimator": "soft"}
        value = (
            random + 0.002 * depth if make.role == "control" else embed + 0.01 * depth + 0.05 * make.moved * depth**2
        )
        said = about | {"null_high": 0.009, "p": 0.002}
        ends = {"null": 0.006, "ceiling": ceiling}
        yield make.row(corpus, "preference_information", value, 0.004, **at, **ends, settings=said)
        yield make.row(
            corpus, "preference_information", 1.2 * value, 0.004, **(at | {"rows": "all"}), **ends, settings=said
        )
        if make.role != "control":
            for label, control in (("over hook_embed", embed), ("over random weights", random + 0.002 * depth)):
                if site == "hook_embed" and label == "over hook_embed":
                    continue
                yield make.row(
                    corpus, "preference_excess", value - control, 0.003, **(at | {"label": label}), settings=about
                )
        probe = at | {"label": "", "estimator": "logistic", "unit": "ratio"}
        bag = 0.93 if confounded else 0.62
        accuracy = bag - 0.05 if make.role == "control" else bag - 0.03 + (0.04 if confounded else 0.12) * depth
        accuracy += 0.0 if make.role == "control" else 0.02 * make.moved
        yield make.row(corpus, "probe_accuracy", accuracy, 0.025, **probe, null=0.5, settings=about)
        over = probe | {"label": "over bag of tokens"}
        yield make.row(corpus, "probe_excess", accuracy - bag, 0.02, **over, settings=about)
        if make.role != "control":
            over = probe | {"label": "over random weights"}
            yield make.row(corpus, "probe_excess", 0.02 * make.moved, 0.02, **over, settings=about)
    if make.role == "base":
        control = {"rows": rows, "estimator": "logistic", "unit": "ratio", "null": 0.5}
        shares = {"bag_of_tokens": (0.93, 0.62), "length": (0.88, 0.51), "author": (0.97, 0.52)}
        for name, (high, low) in shares.items():
            said = {"length": {"longer_chosen_share": 0.87 if confounded else 0.49}}
            said |= {"author": {"author_share": 0.97 if confounded else 0.53, "authors": ["gemma", "gpt4"]}}
            value, more = high if confounded else low, about | said.get(name, {})
            yield make.row(corpus, "probe_accuracy", value, 0.025, site=f"control.{name}", settings=more, **control)


# --- spectra ----------------------------------------------------------------------------------------------------------


def slope_of(make: Maker, depth: float) -> float:
    return 0.3 if make.role == "control" else 0.9 + 0.4 * depth - 0.2 * make.moved * depth


def spectra_rows(make: Maker, corpus: str = "raw", dim: int = 128, ranks: tuple[int, ...] = RANKS) -> Iterator[dict]:
    for site, layer, depth in make.sites():
        slope = slope_of(make, depth)
        every = [rank**-slope for rank in range(1, dim + 1)]
        at: dict[str, Any] = {"site": site, "layer": layer, "estimator": "spectrum"}
        for rank in ranks:
            label = {"label": f"rank {rank:05d}", "rows": "all", "unit": "ratio", "settings": {"rank": rank}}
            yield make.row(corpus, "eigenvalue", rank**-slope / sum(every), **at, **label)
        effective = dim * math.exp(-0.5 * slope)
        fit = {"rank_from": 12, "rank_to": 100, "r2": 0.97 if depth < 0.9 else 0.85, "r2_100": 0.96}
        numbers = {"rankme": effective, "rankme_covariance": 0.7 * effective, "alpha_req": slope}
        numbers |= {"participation_ratio": 0.2 * effective, "anisotropy": 0.1 + 0.5 * depth * (1 + 0.2 * make.moved)}
        numbers |= {"intrinsic_dimension": 9.0 - 2 * depth + make.moved}
        for quantity, value in numbers.items():
            said = fit if quantity == "alpha_req" else {}
            how = {"estimator": "twonn"} if quantity == "intrinsic_dimension" else {}
            more: dict[str, Any] = at | how | {"unit": "count", "settings": said}
            yield make.row(corpus, quantity, value, 0.03 * abs(value), **more, rows="sample", n_tokens=4096)
            yield make.row(corpus, quantity, 1.1 * value, **more, rows="all", n_tokens=100_000)
        for size in SIZES:
            value = effective * (1 - math.exp(-size / 900))
            label = {"label": f"n {size:05d}", "rows": "first", "unit": "count", "settings": {"n": size}}
            yield make.row(corpus, "rankme", value, **at, **label)


def full_rows(layers: int = 4, tuned: tuple[str, ...] = TUNED, base: str = BASE, control: bool = True) -> list[dict]:
    """A whole comparison: plane and spectra of one text, preferences of two data sets, one of them confounded."""
    made = []
    for make in models(layers, tuned, control, base):
        made += [*plane_rows(make), *spectra_rows(make), *preference_rows(make)]
        made += preference_rows(make, "gemma vs gpt4", confounded=True)
    return made
