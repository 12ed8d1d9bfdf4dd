"""Memorized bits, extraction, membership and the held-out rate of one or several runs, on one step axis.

python paper_figs/memorization_over_training.py runs/memorization runs/demo --out docs/figures

The runs may be of several studies: where one of them measured the information plane of the same models, complexity and
expressivity at the last block stand below. A number that two runs have both measured is taken from the first.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import infocomp
from infocomp.execution.table import KEY
from infocomp.plotting import style
from infocomp.plotting.memorization_training import draw_memorization_training, memorization_training_rows


def joined(runs: Sequence[str | Path]) -> pd.DataFrame:
    """The tables of the runs one below the other; of rows with one key the first run's stays."""
    table = pd.concat([infocomp.read(run) for run in runs], ignore_index=True)
    return table.drop_duplicates(list(KEY), ignore_index=True)


def main() -> None:
    """Read the run folders, draw, save PDF, PNG and the CSV that was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--corpus", help="the text of the members, where the runs hold several")
    parser.add_argument("--out", default="docs/figures")
    asked = parser.parse_args()
    rows = memorization_training_rows(joined(asked.runs), asked.corpus)
    for path in style.save(draw_memorization_training(rows), asked.out, "memorization_over_training", rows):
        print(path)


if __name__ == "__main__":
    main()
