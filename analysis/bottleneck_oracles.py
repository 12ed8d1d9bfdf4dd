"""Every bottleneck and rate–distortion oracle: what is expected, what was found, the difference, the seconds.

    python analysis/bottleneck_oracles.py [--out docs/tables/bottleneck_oracles.csv]

Columns: oracle, parameter (beta, or the slope of a rate–distortion curve in nats), expected and found complexity and
relevance in bits (for rate–distortion: rate in bits and distortion), the larger difference, seconds of the whole
curve. Digits given by a source are compared to half of its last one: "tolerance" says to what. Exits with 1 where a
difference is above its tolerance.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bottleneck_tables import DIT, EMBO_5X5, ERASED, ERASURE, FUNCTION, POINTS

from infocomp.bottleneck import Joint, Limits, closed_forms, rate_distortion, solve, solve_deterministic

COLUMNS = (
    *("oracle", "parameter", "expected_complexity", "expected_relevance", "found_complexity", "found_relevance"),
    *("difference", "tolerance", "seconds"),
)
TOLERANCE = 1e-5
Rows = list[tuple[object, ...]]


def row(oracle: str, parameter: float, expected: tuple, found: tuple, seconds: float, tolerance=TOLERANCE) -> tuple:
    """One line of the table."""
    difference = max(abs(float(a) - float(b)) for a, b in zip(expected, found, strict=True))
    numbers = [f"{float(value):.7f}" for value in (*expected, *found)]
    return (oracle, f"{parameter:g}", *numbers, f"{difference:.1e}", f"{tolerance:.0e}", f"{seconds:.3f}")


def timed(call: Callable) -> tuple:
    """What the call gives, and its seconds."""
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def published() -> Rows:
    """Points of dit and embo, and those of the closed forms that others computed."""
    rows = []
    for name in dict.fromkeys(point[0] for point in POINTS):
        mine = [point for point in POINTS if point[0] == name]
        curve, seconds = timed(lambda mine=mine: solve(Joint.of(mine[0][1]), [point[2] for point in mine]))
        for i, (_, _, beta, complexity, relevance, digits) in enumerate(mine):
            found = (curve.complexity[i], curve.relevance[i])
            rows.append(row(name, beta, (complexity, relevance), found, seconds, max(TOLERANCE, 0.6 * 10.0**-digits)))
    curve, seconds = timed(lambda: solve(Joint.of(DIT), [2.0]))
    rows.append(row("dit, Lagrangian only", 2.0, (0.0,) * 2, (float(curve.lagrangian[0]),) * 2, seconds))
    curve, seconds = timed(lambda: solve_deterministic(Joint.of(DIT), [3.0, 50.0]))
    for i, expected in enumerate([(0.9709506, 0.4199731), (1.5219281, 0.5709506)]):
        found = (curve.complexity[i], curve.relevance[i])
        rows.append(row("dit, deterministic bottleneck", curve.betas[i], expected, found, seconds))
    return rows


def whole_curves() -> Rows:
    """101 betas of a joint with a closed form, the worst of them; the sizes that the time is promised for."""
    rows = []
    for flip in (0.02, 0.1, 0.3):
        betas = np.linspace(1.01, 1.5, 101) / (1 - 2 * flip) ** 2
        joint = Joint.of(np.array([[1 - flip, flip], [flip, 1 - flip]]) / 2)
        curve, seconds = timed(lambda joint=joint, betas=betas: solve(joint, betas))
        expected = np.array([closed_forms.binary_symmetric_at(beta, flip) for beta in betas])
        found = np.stack([curve.complexity, curve.relevance], 1)
        i = int(np.abs(found - expected).max(1).argmax())
        name = f"binary symmetric p={flip}, worst of 101"
        rows.append(row(name, betas[i], tuple(expected[i]), tuple(found[i]), seconds))
    for name, table, height in (("erasure", ERASURE, 1 - ERASED), ("deterministic Y", FUNCTION, 1.0)):
        curve, seconds = timed(lambda table=table: solve(Joint.of(table), np.linspace(0.5, 5, 101)))
        found = (0.5, curve.relevance_at(0.5))
        rows.append(row(f"{name}, I(T;Y) at I(X;T) = ½", 0.5, (0.5, 0.5 * height), found, seconds))
    curve, seconds = timed(lambda: solve(Joint.of(EMBO_5X5), np.linspace(1, 10, 101)))
    end = (curve.complexity[-1], curve.relevance[-1])
    rows.append(row("embo 5x5, 101 points, last", 10.0, (1.46636, 0.35047), end, seconds))
    return rows


def gaussian() -> Rows:
    """A scalar Gaussian joint on a lattice of 25 × 25, on which its sums are exact."""
    rho, grid = 0.8, np.arange(-12, 13) / 2.2
    x, y = np.meshgrid(grid, grid, indexing="ij")
    p = np.exp(-(x**2 - 2 * rho * x * y + y**2) / (2 * (1 - rho**2)))
    joint, betas = Joint.of(p / p.sum()), [1.2, 2.0, 4.0]
    curve, seconds = timed(lambda: solve(joint, betas, limits=Limits(tolerance=1e-9, steps=3000, change=1.0)))
    covariance = [[1, rho], [rho, 1]]
    rows = []
    for i, beta in enumerate(betas):
        found = (curve.complexity[i], curve.relevance[i])
        rows.append(row("Gaussian, rho 0.8", beta, closed_forms.gaussian_vector(beta, covariance, 1), found, seconds))
    return rows


def rates() -> Rows:
    """Rate–distortion: complexity stands for the rate in bits, relevance for the distortion."""
    rows = []
    for p in (0.5, 0.3, 0.1):
        found, seconds = timed(lambda p=p: rate_distortion([1 - p, p], 1 - np.eye(2), [3.0]))
        d = 1 / (1 + np.exp(3.0))
        expected = (float(closed_forms.bernoulli_rate(d, p)), d)
        rows.append(row(f"Bernoulli {p}, rate", 3.0, expected, (found.rate[0], found.distortion[0]), seconds))
    found, seconds = timed(lambda: rate_distortion(np.full(5, 0.2), 1 - np.eye(5), [3.0]))
    rows.append(row("5-ary, rate", 3.0, (1.341132, 0.166075), (found.rate[0], found.distortion[0]), seconds))
    grid = np.arange(-22, 23) / 4
    p, slopes = np.exp(-(grid**2) / 2), [1.0, 2.0, 8.0]
    d = (grid[:, None] - grid) ** 2
    found, seconds = timed(lambda: rate_distortion(p / p.sum(), d, slopes, tolerance=1e-5))
    for i, slope in enumerate(slopes):
        expected = (0.5 * np.log2(2 * slope), 1 / (2 * slope))
        rows.append(row("Gaussian, rate", slope, expected, (found.rate[i], found.distortion[i]), seconds))
    start = time.perf_counter()
    rate, each = closed_forms.reverse_water_filling([4.0, 1.0, 0.25], 1.25)
    seconds = time.perf_counter() - start
    rows.append(row("reverse water-filling", 1.25, (2.0, 1.25), (rate, each.sum()), seconds))
    return rows


def main() -> int:
    """Compute, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/bottleneck_oracles.csv"))
    asked = parser.parse_args()
    solve(Joint.of(DIT), [2.0])  # the first call of a process loads kernels
    rows = [*published(), *whole_curves(), *gaussian(), *rates()]
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with asked.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    for oracle, parameter, *numbers, difference, tolerance, seconds in rows:
        print(f"{oracle:<38} {parameter:>8} {' '.join(numbers)}  {difference} (≤ {tolerance})  {seconds} s")
    return int(any(float(str(line[6])) > float(str(line[7])) for line in rows))


if __name__ == "__main__":
    sys.exit(main())
