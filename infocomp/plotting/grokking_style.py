"""What the grokking figures share: the colours of train and test and of the two events, numbers and sites in words."""

import re
from collections.abc import Callable
from typing import Any

from infocomp.plotting import style
from infocomp.plotting.coding_style import DASHES
from infocomp.plotting.grokking_selection import GENERALIZATION, MEMORIZATION

COLOURS = {"train": style.CATEGORIES[1], "test": style.CATEGORIES[0]}
COLOURS |= {MEMORIZATION: COLOURS["train"], GENERALIZATION: COLOURS["test"]}
STROKES: dict[str, Any] = {"train": DASHES, "test": "-"}
FLOOR = 1e-7  # bits, about the rounding of float32; a loss below it is drawn there
EVENTS = {MEMORIZATION: "memorization", GENERALIZATION: "generalization"}


def site_text(site: str) -> str:
    """A site in few words."""
    fixed = {"hook_embed": "embedding", "unembed": "unembedding", "neuron_to_logits": "neurons to logits"}
    block = re.match(r"blocks\.(\d+)\.(.*)", site)
    if block is None:
        return fixed.get(site, site.removeprefix("hook_").replace("_", " "))
    place = {"hook_resid_pre": "stream in", "hook_resid_mid": "stream mid", "hook_resid_post": "stream out"}
    place |= {"mlp.hook_post": "neurons", "mlp.hook_pre": "neurons, before", "hook_pre": "pre-activation"}
    return f"{place.get(block[2], block[2].replace('hook_', '').replace('_', ' '))} {block[1]}"


def number_text(value: float) -> str:
    """A number in few characters: 1.09e−7, 0.032, 5.9, 147, 1.2k, 680k, 1.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g}{letter}".replace("-", "−")
    return f"{value:.3g}".replace("e-0", "e-").replace("-", "−")


def joined(values: list[float], text: Callable[[float], str]) -> str:
    """Numbers as words: "60", "60 and 70", "60, 70 and 70"."""
    words = [text(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
