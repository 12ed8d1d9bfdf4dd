"""n-gram labels: which input ends at a position and which output follows it, as dense integers, for any vocabulary.

Positions are synchronised as in soft_h (Conklin et al. 2026): at position i the input n-gram is tokens i−n+1 … i, the
output n-gram tokens i+1 … i+n, for every order at the same positions. Codes of the form t₀·Vⁿ⁻¹ + … overflow int64 at
V⁴ for V > 55,000; here each order is numbered anew before the next token is joined on, so no code exceeds N·V.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

ORDER_NAMES = {1: "token", 2: "bigram", 3: "trigram", 4: "quadgram"}
DIRECTIONS = ("input", "output")


@dataclass(frozen=True)
class LabelSet:
    """One integer per measured row: an n-gram, a part of speech, anything; -1 is "no label".

    `direction` "input" makes its information a complexity, "output" an expressivity.
    """

    name: str
    order: int | None
    direction: str
    ids: Int[np.ndarray, "rows"]

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be input or output, got {self.direction!r}.")


def order_name(order: int) -> str:
    """1 → token, 2 → bigram, 3 → trigram, 4 → quadgram, above that "5-gram" and so on."""
    return ORDER_NAMES.get(order, f"{order}-gram")


def n_gram_labels(
    tokens: Int[np.ndarray, "tokens"], positions: Int[np.ndarray, "rows"], orders: tuple[int, ...]
) -> list[LabelSet]:
    """Input and output n-grams of every order at `positions` (indices into `tokens`), dense from 0.

    Two rows share a label exactly where all n tokens agree. Raises ValueError where an n-gram would leave the text.
    """
    if not orders or min(orders) < 1:
        raise ValueError(f"orders must be numbers from 1 up, got {list(orders)}.")
    longest = max(orders)
    if len(positions) and (positions.min() < longest - 1 or positions.max() + longest >= len(tokens)):
        raise ValueError(f"an n-gram of order {longest} leaves the text; measure positions further inside.")
    labels = []
    for direction in DIRECTIONS:
        ids = np.zeros(len(positions), dtype=np.int64)
        for order in range(1, longest + 1):
            shift = 1 - order if direction == "input" else order
            ids = _joined(ids, tokens[positions + shift])
            if order in orders:
                labels.append(LabelSet(order_name(order), order, direction, ids))
    return labels


def _joined(ids: Int[np.ndarray, "rows"], tokens: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """Number the pairs (id, token): ids < N and tokens < 2³¹, so that the code fits an int64 for N < 2³²."""
    tokens = tokens.astype(np.int64)
    width = int(tokens.max(initial=0)) + 1
    return np.unique(ids * width + tokens, return_inverse=True)[1].astype(np.int64)
