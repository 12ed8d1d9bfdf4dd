"""What a site's token alone would say of the text that follows, and what the context adds: bits.

J sees the whole context, so a measured point (I(X; J), I(Y; J)) with X the last token is bound by no bottleneck curve
of p(x, y). Sent through its own token channel it is: J′ drawn from p(j|x) satisfies Y – X – J′, and (I(X; J), I(Y; J′))
lies under the curve of the same joint. The rest is what context changes: context_gain = I(Y; J) − I(Y; J′). Its null is
the same difference for rows of other documents.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from infocomp.bottleneck import Joint, through_token_channel
from infocomp.corpora.labels import LabelSet
from infocomp.estimators import Estimate, Groups

CHANNEL = "token_channel_expressivity"


class TokenJoint:
    """The pairs (last token, next token) of a text's measured rows, counted once for all sites and checkpoints."""

    def __init__(
        self,
        tokens: Int[np.ndarray, "rows"],
        following: Int[np.ndarray, "rows"],
        name: str,
        partner: Int[np.ndarray, "rows"] | None,
    ) -> None:
        """Labels as they are numbered in a label set; `partner` is the row of another document paired with each."""
        self.name = name
        self.x = x = np.unique(tokens, return_inverse=True)[1]
        self.y = np.unique(following, return_inverse=True)[1]
        self.n_labels = int(x.max()) + 1
        self.joint = Joint.from_pairs(x, self.y, sizes=(self.n_labels, int(self.y.max()) + 1))
        self._kept = _Kept.of(x)
        self._paired = None if partner is None else _Kept.of(x, partner)

    @classmethod
    def of(cls, labels: Iterable[LabelSet], partner: np.ndarray | None) -> "TokenJoint | None":
        """From label sets of order 1 in both directions without unlabelled rows; None where one is missing."""
        found = {label.direction: label for label in labels if label.order == 1}
        if set(found) != {"input", "output"} or any((label.ids < 0).any() for label in found.values()):
            return None
        return cls(found["input"].ids, found["output"].ids, found["output"].name, partner)

    def channel(self, plane: Float[Tensor, "rows bins"], paired: bool = False) -> Float[Tensor, "labels bins"] | None:
        """p(j|x) of every label from its rows, or from the rows paired with them; None where there is no pairing."""
        kept = self._paired if paired else self._kept
        return None if kept is None else kept.means(plane, self.n_labels)


@dataclass(frozen=True)
class _Kept:
    """Rows gathered by label, and which labels have any."""

    groups: Groups
    labels: Int[np.ndarray, "present"]

    @classmethod
    def of(cls, x: np.ndarray, partner: np.ndarray | None = None) -> "_Kept":
        return cls(Groups.of(x, partner), np.unique(x if partner is None else x[partner >= 0]))

    def means(self, plane: Float[Tensor, "rows bins"], n_labels: int) -> Float[Tensor, "labels bins"]:
        """The mean row of each label; that of all rows for a label without any."""
        groups = self.groups
        found = plane.mean(dim=0).repeat(n_labels, 1)
        counts = torch.from_numpy(groups.counts[groups.repeated].astype(np.float32)).to(plane.device)
        found[torch.from_numpy(self.labels[groups.repeated]).to(plane.device)] = groups.sums(plane) / counts[:, None]
        singles = torch.from_numpy(self.labels[groups.counts == 1]).to(plane.device)
        found[singles] = plane[groups.single_rows.to(plane.device)]
        return found / found.sum(dim=1, keepdim=True)  # assignments kept in float16 sum to one within 5e-4


class TokenChannel:
    """Called with each draw's assignments; then compares with the expressivity that was measured on them."""

    def __init__(self, of: TokenJoint) -> None:
        self._of = of
        self._found: list[float] = []
        self._null: list[float] = []

    def __call__(self, plane: Float[Tensor, "rows bins"]) -> None:
        for paired, kept in ((False, self._found), (True, self._null)):
            channel = self._of.channel(plane, paired)
            if channel is not None:
                kept.append(through_token_channel(self._of.joint, channel).relevance)

    def estimates(self, measured: Sequence[Estimate]) -> list[Estimate]:
        """Rows for each draw and their mean, from the estimates of the same draws."""
        expressivity = {
            estimate.draw: estimate
            for estimate in measured
            if (estimate.quantity, estimate.label, estimate.weighting) == ("expressivity", self._of.name, "frequency")
        }
        draws = [one.value for name, one in expressivity.items() if name != "mean" and one.value is not None]
        rows = []
        for draw in (*map(str, range(len(self._found))), "mean"):
            whole = expressivity.get(draw)
            of_token, null = _picked(self._found, draw), _picked(self._null, draw)
            if whole is None or whole.value is None or of_token is None:
                continue
            about = {"unit": "bits", "n": whole.n, "label": self._of.name, "order": 1, "weighting": "frequency"}
            about |= {"message": "plug-in: no ends and no interval; read it against its null"}
            about |= {"draw": draw, "n_labels": whole.n_labels, "singleton_mass": whole.singleton_mass}
            rows.append(
                Estimate(CHANNEL, of_token, null=null, draw_std=_spread(self._found, draw), **about)  # pyright: ignore
            )
            null_gain = None if null is None or whole.null is None else whole.null - null
            gain = whole.value - of_token
            spread = (
                _spread([one - other for one, other in zip(draws, self._found, strict=True)], draw) if draws else None
            )
            gained = {"null": null_gain, "ceiling": whole.ceiling, "draw_std": spread}
            rows.append(Estimate("context_gain", gain, **gained, **about))  # pyright: ignore
        return rows


def _picked(values: list[float], draw: str) -> float | None:
    if not values:
        return None
    return float(np.mean(values)) if draw == "mean" else values[int(draw)]


def _spread(values: list[float], draw: str) -> float | None:
    return float(np.std(values, ddof=1)) if draw == "mean" and len(values) > 1 else None
