"""Text beside a point and never over another text: the best free place inside the axes, by measured extents."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

GRID = 3.0  # pixels (of 100 dpi) between candidate places
COVERING = 10.0  # pixels of distance that covering one drawn point is worth
REACH = 5.0  # pixels of distance after which a leader line is drawn
FONT_SIZE = 6.5


def write_beside(
    ax: Axes,
    points: Float[np.ndarray, "labels 2"],
    texts: Sequence[str],
    obstacles: Float[np.ndarray, "drawn 2"],
    covering: float = COVERING,
    leaders: bool = True,
) -> list[Annotation]:
    """Write each text near its point (data coordinates), off the obstacles and off every text already in the axes.

    `covering` is what covering one obstacle costs, in pixels of distance: small for a name, large for a remark;
    `leaders` joins a text to its point where they end up apart.
    The layout must be settled: places are found in pixels. A text that finds no free place is left out.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    pixel = figure.dpi / 100
    frame = np.array(ax.get_window_extent().extents)
    taken = np.array([_box(text) for text in ax.texts]).reshape(-1, 4)
    crowding = _crowding(ax.transData.transform(obstacles), frame)
    written = []
    for point, text in zip(points, texts, strict=True):
        size = _extent(ax, text)
        places = _places(frame, size, GRID * pixel)
        places = places[~_overlaps(places, taken, 2 * pixel)]
        if not len(places):
            continue
        anchor = ax.transData.transform(point)
        covered = np.minimum(_covered(places, crowding, frame, 2.5 * pixel), 8)
        distance = _distance(places, anchor)
        best = int(np.argmin(distance + covering * pixel * covered))
        taken = np.vstack([taken, places[best]])
        centre = ax.transAxes.inverted().transform((places[best, :2] + places[best, 2:]) / 2)
        leader = {"arrowstyle": "-", "lw": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 2}
        label = ax.annotate(
            text,
            (float(point[0]), float(point[1])),
            (float(centre[0]), float(centre[1])),
            textcoords="axes fraction",
            fontsize=FONT_SIZE,
            ha="center",
            va="center",
            arrowprops=leader if leaders and distance[best] > REACH * pixel else None,
        )
        label.set_in_layout(False)
        written.append(label)
    return written


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in the order of `wanted`, each at least `gap` from the next, as near to the wanted ones as that lets.

    Blocks that touch are merged and centred on the mean of what their members want (pool adjacent violators).
    """
    order = np.argsort(wanted, kind="stable")
    blocks: list[tuple[float, int]] = []  # where the block's first member wants to be, on average; members
    for index in order:
        mean, members = float(wanted[index]), 1
        while blocks and blocks[-1][0] + gap * blocks[-1][1] > mean:
            before, count = blocks.pop()
            mean = (before * count + (mean - gap * count) * members) / (count + members)
            members += count
        blocks.append((mean, members))
    placed = [start + gap * position for start, members in blocks for position in range(members)]
    result = [0.0] * len(wanted)
    for position, index in zip(placed, order, strict=True):
        result[int(index)] = position
    return result


def _box(text: Text) -> Float[np.ndarray, "4"]:
    """The box of the text alone, in pixels; asking an annotation first puts it in its place."""
    text.get_window_extent()
    return np.array(Text.get_window_extent(text).extents)


def _extent(ax: Axes, text: str) -> Float[np.ndarray, "2"]:
    probe = ax.text(0.5, 0.5, text, transform=ax.transAxes, fontsize=FONT_SIZE)
    box = probe.get_window_extent()
    probe.remove()
    return np.array([box.width, box.height])


def _places(frame: Float[np.ndarray, "4"], size: Float[np.ndarray, "2"], grid: float) -> Float[np.ndarray, "places 4"]:
    across = np.arange(frame[0] + 4, frame[2] - size[0] - 1, grid)
    up = np.arange(frame[1] + 4, frame[3] - size[1] - 1, grid)
    corners = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    return np.hstack([corners, corners + size])


def _overlaps(
    places: Float[np.ndarray, "places 4"], boxes: Float[np.ndarray, "boxes 4"], margin: float
) -> Bool[np.ndarray, "places"]:
    low = places[:, None, :2] - margin < boxes[None, :, 2:]
    high = places[:, None, 2:] + margin > boxes[None, :, :2]
    return np.asarray(np.any(np.all(low & high, axis=2), axis=1))


def _crowding(drawn: Float[np.ndarray, "drawn 2"], frame: Float[np.ndarray, "4"]) -> Float[np.ndarray, "up across"]:
    """Drawn points left of and below each pixel of the frame: a box holds the difference of its four corners."""
    width, height = np.ceil(frame[2:] - frame[:2]).astype(int)
    cells = np.floor(drawn[np.isfinite(drawn).all(axis=1)] - frame[:2]).astype(int)
    cells = cells[((cells >= 0) & (cells < [width, height])).all(axis=1)]
    counts = np.zeros((height + 1, width + 1))
    np.add.at(counts, (cells[:, 1] + 1, cells[:, 0] + 1), 1.0)
    return counts.cumsum(axis=0).cumsum(axis=1)


def _covered(
    places: Float[np.ndarray, "places 4"],
    crowding: Float[np.ndarray, "up across"],
    frame: Float[np.ndarray, "4"],
    margin: float,
) -> Float[np.ndarray, "places"]:
    corner = np.array([crowding.shape[1], crowding.shape[0]]) - 1
    low = np.clip(np.floor(places[:, :2] - margin - frame[:2]).astype(int), 0, corner)
    high = np.clip(np.ceil(places[:, 2:] + margin - frame[:2]).astype(int), 0, corner)
    (left, below), (right, above) = low.T, high.T
    return crowding[above, right] - crowding[above, left] - crowding[below, right] + crowding[below, left]


def _distance(places: Float[np.ndarray, "places 4"], anchor: Float[np.ndarray, "2"]) -> Float[np.ndarray, "places"]:
    nearest = np.clip(anchor, places[:, :2], places[:, 2:])
    return np.linalg.norm(nearest - anchor, axis=1)
