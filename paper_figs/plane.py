"""The README's figure: the plane of context complexity of one run.

python paper_figs/plane.py runs/demo --out docs/figures
"""

import argparse

import infocomp
from infocomp.plotting import planes, style


def main() -> None:
    """Read the table, draw, save PDF, PNG and the CSV that was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", default="docs/figures")
    asked = parser.parse_args()
    rows = planes.plane_context_rows(infocomp.read(asked.run))
    for path in style.save(planes.draw_plane_context(rows), asked.out, "plane_context", rows):
        print(path)


if __name__ == "__main__":
    main()
