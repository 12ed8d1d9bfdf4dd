"""The README's figures of capacity: memorized bits against data bits, and plateaus against parameters, of some runs.

python paper_figs/capacity.py runs/capacity_cpu runs/capacity_cpu_v512 --out docs/figures

One curve figure for each kind of random data, one fit over all of them with the published slopes (dotted, not measured
here).
"""

import argparse

import infocomp
from infocomp.plotting import memorization_capacity, memorization_fit, style
from infocomp.plotting.draw import CAPACITY_FIT, figures_of


def main() -> None:
    """Read the run folders, draw, save PDF, PNG and the CSV that was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", default="docs/figures")
    asked = parser.parse_args()
    table = infocomp.read(asked.runs)
    wanted = (memorization_capacity.draw_capacity_curve, memorization_fit.draw_capacity_fit)
    found = [(name, page, rows) for name, page, rows in figures_of(table, lambda _: None) if page.draw in wanted]
    if CAPACITY_FIT not in [page for _, page, _ in found]:
        memorization_fit.capacity_fit_rows(table)  # says what is missing
    for name, page, rows in found:
        for path in style.save(page.draw(rows), asked.out, name, rows):
            print(path)


if __name__ == "__main__":
    main()
