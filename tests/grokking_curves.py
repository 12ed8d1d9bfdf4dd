"""Learning curves with known answers: pairs of simulated ones, with and without a delayed transition, and their noise.

A pair with one holds the step at which the test curve without noise reaches its threshold and the one at which it has
made half its rise, found on finer and finer grids.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from infocomp.grokking.curves import Curves

Shape = Callable[[np.ndarray], np.ndarray]  # log steps → height between 0 and 1

SHAPES = ("sigmoid", "step", "ramp", "two_stage")
FLAT = ("noise", "drift", "together", "plateau")
NOISE = {"none": 0.0, "weak": 0.2, "medium": 0.5, "strong": 1.0}


@dataclass(frozen=True)
class Planted:
    """A pair and what is true of it; both steps None where nothing is delayed."""

    curves: Curves
    kind: str
    threshold_step: float | None = None
    midpoint: float | None = None


def shape(name: str, middle: float, width: float) -> Shape:
    """A rise from 0 to 1 whose middle lies at a log step; `width` is that of a tenth to nine tenths, about."""
    if name == "step":
        return lambda x: (x >= middle).astype(float)
    if name == "sigmoid":
        return lambda x: 1 / (1 + np.exp(-np.clip(4.4 * (x - middle) / width, -60, 60)))
    if name == "ramp":
        start, stop = np.exp(middle - width / 2), np.exp(middle + width / 2)
        return lambda x: np.clip((np.exp(x) - start) / (stop - start), 0, 1)
    first, second = shape("sigmoid", middle - width, width / 3), shape("sigmoid", middle + width, width / 3)
    return lambda x: 0.35 * first(x) + 0.65 * second(x)


def spaced(generator: np.random.Generator, last: float) -> np.ndarray:
    """Steps of evaluations up to the last: every so many, log-spaced, or at random places."""
    count = int(generator.integers(40, 300))
    kind = generator.integers(3)
    if kind == 0:
        found = np.linspace(0, last, count)
    elif kind == 1:
        found = np.concatenate([[0], np.geomspace(1, last, count)])
    else:
        found = np.sort(generator.uniform(0, last, count))
    return np.unique(np.round(found))


def noisy(generator: np.random.Generator, clean: np.ndarray, deviation: float, correlation: float = 0.0) -> np.ndarray:
    """Normal noise added, that of an evaluation resembling the one before it by as much as is said."""
    noise = generator.normal(size=len(clean))
    noise[1:] *= np.sqrt(1 - correlation**2)
    return clean + deviation * np.asarray(lfilter([1.0], [1.0, -correlation], noise))


def pair(
    generator: np.random.Generator,
    steps: np.ndarray,
    train: Callable[[np.ndarray], np.ndarray],
    test: Callable[[np.ndarray], np.ndarray],
    losses: bool,
    noise: float,
) -> Curves:
    """Curves from heights between 0 (start) and 1 (learnt) by step, as accuracies or as losses alone."""
    correlation = float(generator.choice([0.0, 0.0, 0.5]))
    heights = train(steps), test(steps)
    if losses:
        found = [np.exp(noisy(generator, 1.4 - 8 * height, 0.4 * noise, correlation)) for height in heights]
        return Curves(steps, train_loss=found[0], test_loss=found[1])
    found = [np.clip(noisy(generator, 0.02 + 0.98 * h, 0.03 * noise, correlation), 0, 1) for h in heights]
    return Curves(steps, train_accuracy=found[0], test_accuracy=found[1])


def passes(rise: Callable[[np.ndarray], np.ndarray], height: float, last: float) -> float:
    """The step at which a rise reaches a height, to a billionth of the last step."""
    low, high = 0.0, last
    for _ in range(3):
        steps = np.linspace(low, high, 1001)
        place = int(np.argmax(rise(steps) >= height))
        low, high = float(steps[place - 1]), float(steps[place])
    return high


def with_transition(seed: int) -> Planted:
    """A delayed one: any of the four shapes, noise from none to strong, evaluations spaced in one of three ways."""
    generator = np.random.default_rng([1, seed])
    last = float(generator.choice([2_000, 20_000, 100_000]))
    name, level = SHAPES[seed % 4], list(NOISE)[int(generator.integers(4))]
    losses = bool(generator.integers(2))
    middle = np.log(last) - generator.uniform(0.7, 2.2)
    width = generator.uniform(0.1, 0.6)
    rise = shape(name, middle, width)
    memorized = shape("sigmoid", middle - generator.uniform(2.5, 4), generator.uniform(0.3, 0.8))
    train, test = (lambda s: memorized(np.log(s + 1e-9))), (lambda s: rise(np.log(s + 1e-9)))
    steps = spaced(generator, last)
    curves = pair(generator, steps, train, test, losses, NOISE[level])
    needed = (1.4 + np.log(100)) / 8 if losses else 0.97 / 0.98
    half = np.log((np.exp(1.4) + np.exp(1.4 - 8)) / 2)
    middle_height = (1.4 - half) / 8 if losses else 0.5
    found = [passes(test, one, last) for one in (needed, middle_height)]
    return Planted(curves, f"{name} {level} {'loss' if losses else 'accuracy'}", found[0], found[1])


ANSWERS = (100, 500, 2000)  # in the test set: accuracies that are drawn anew at each evaluation
RESEMBLING = ((0.7, 0.2), (0.8, 0.4), (0.9, 0.3))  # correlation of neighbours and deviation of log losses
UNSURE = ((0.96, 0.005), (0.965, 0.003), (0.93, 0.03), (None, 0.2))  # height of a plateau, noise; None: noise alone


def hard_with_transition(seed: int) -> Planted:
    """A delayed sigmoid: accuracies of 100, 500, 2,000 answers, or losses with noise that resembles itself for long."""
    generator = np.random.default_rng([3, seed])
    last, kind = 5_000.0, seed % (len(ANSWERS) + len(RESEMBLING))
    late = np.log(last / 3) - generator.uniform(0, 1.5)
    width = 4.4 * generator.uniform(0.05, 0.2)
    rise, memorized = shape("sigmoid", late, width), shape("sigmoid", late - generator.uniform(1.6, 3), width)
    train, test = (lambda s: memorized(np.log(s + 1e-9))), (lambda s: rise(np.log(s + 1e-9)))
    steps = spaced(generator, last)
    if kind < len(ANSWERS):
        count, needed, middle_height = ANSWERS[kind], 0.97 / 0.98, 0.5
        drawn = [generator.binomial(count, 0.02 + 0.98 * one(steps)) / count for one in (train, test)]
        curves, name = Curves(steps, train_accuracy=drawn[0], test_accuracy=drawn[1]), f"answers {count}"
    else:
        correlation, deviation = RESEMBLING[kind - len(ANSWERS)]
        needed = (1.4 + np.log(100)) / 8
        middle_height = (1.4 - np.log((np.exp(1.4) + np.exp(1.4 - 8)) / 2)) / 8
        drawn = [np.exp(noisy(generator, 1.4 - 8 * one(steps), deviation, correlation)) for one in (train, test)]
        curves, name = Curves(steps, train_loss=drawn[0], test_loss=drawn[1]), f"resembling {correlation}"
    found = [passes(test, one, last) for one in (needed, middle_height)]
    return Planted(curves, name, found[0], found[1])


def hard_without_transition(seed: int, correlation: float) -> Planted:
    """A plateau short of 0.99, or accuracies about a half, whose noise resembles itself."""
    generator = np.random.default_rng([4, seed])
    steps, (height, deviation) = spaced(generator, 5_000.0), UNSURE[seed % len(UNSURE)]
    middle = np.log(5_000) - generator.uniform(3.5, 6)
    memorized, climbs = (shape("sigmoid", one, 0.44)(np.log(steps + 1e-9)) for one in (middle, middle + np.log(5)))
    level = np.full(len(steps), 0.5) if height is None else 0.02 + height * climbs
    test = np.clip(noisy(generator, level, deviation, correlation), 0, 1)
    return Planted(Curves(steps, train_accuracy=memorized, test_accuracy=test), f"{height} {deviation}")


def without_transition(seed: int) -> Planted:
    """Noise alone, drift, both curves together, a plateau short of the threshold."""
    generator = np.random.default_rng([2, seed])
    last = float(generator.choice([2_000, 20_000, 100_000]))
    kind, losses = FLAT[seed % 4], bool(generator.integers(2))
    noise = float(generator.choice(list(NOISE.values())))
    steps = spaced(generator, last)
    middle = np.log(last) - generator.uniform(2, 5)
    width = generator.uniform(0.2, 1.0)
    memorized = shape("sigmoid", middle, width)
    learns = kind != "noise" or generator.integers(2)
    train: Callable = (lambda s: memorized(np.log(s + 1e-9))) if learns else (lambda s: 0 * s)
    test: Callable = lambda s: 0 * s  # noqa: E731
    if kind == "drift":
        slope = generator.uniform(-0.3, 0.45)
        walk = np.interp(np.linspace(0, 1, len(steps)), np.linspace(0, 1, 40), generator.normal(0, 0.02, 40).cumsum())
        low, high, walk = (-1.0, 0.6, np.abs(walk)) if losses else (0.0, 0.9, walk)
        test = lambda s: np.clip(slope * s / last + walk, low, high)  # noqa: E731
    if kind == "together":
        late = np.log(generator.uniform(0.8, 1.3))
        follows = shape("sigmoid", middle + late, width)
        test = lambda s: follows(np.log(s + 1e-9))  # noqa: E731
    if kind == "plateau":
        at, top = middle + generator.uniform(-0.5, 2.5), generator.uniform(0.2, 0.97 if not losses else 0.7)
        climbs = shape("sigmoid", at, generator.uniform(0.2, 1.0))
        test = lambda s: top * climbs(np.log(s + 1e-9))  # noqa: E731
    return Planted(
        pair(generator, steps, train, test, losses, noise), f"{kind} {'loss' if losses else 'accuracy'} {noise}"
    )
