"""The figure of estimators on known laws: a panel a law, a mark a reading, readings beyond it by number."""

from itertools import pairwise

import pandas as pd
import pytest

from infocomp.plotting.known_table import draw_known


def table(wild=108.2):
    rows = []
    for law, kind, information, names in (
        ("normal, ρ 0.75", "pair", 0.6, ["KSG", "Gaussian"]),
        ("2-pair 5×5", "pair", 1.47, ["KSG", "Gaussian"]),
        ("codes, K 16", "labels", 4.0, ["Ross", "Gaussian", "soft bin J"]),
    ):
        for estimator in names:
            for n, shift in ((400, 0.1), (2000, 0.02)):
                truth = 3.5 if estimator == "soft bin J" else information
                mean = wild if law.startswith("codes") and estimator == "Gaussian" else truth + shift
                rows.append((law, kind, estimator, n, information, truth, mean, 0.03))
    return pd.DataFrame(rows, columns=["law", "kind", "estimator", "n", "information", "truth", "mean", "sd"])


def test_every_reading_is_a_mark_or_a_number_at_the_edge():
    figure = draw_known(table())
    assert [ax.get_title() for ax in figure.axes] == ["normal\nρ 0.75", "2-pair 5×5", "codes\nK 16"]
    drawn = table()
    for ax in figure.axes:
        law = ax.get_title().replace("\n", ", ")
        marks = sorted(float(box.lines[0].get_xdata()[0]) for box in ax.containers)
        expected = sorted(value for value in drawn[drawn["law"] == law]["mean"] if value < 100)
        assert marks == pytest.approx(expected)
        low, high = ax.get_xlim()
        assert low < min(marks) and max(marks) < high
    assert [text.get_text() for text in figure.axes[2].texts] == ["108", "108"]


def test_the_truth_of_each_panel_and_of_another_target_is_drawn():
    figure = draw_known(table())
    upright = [
        {
            round(float(line.get_xdata()[0]), 3)
            for line in ax.lines
            if len(set(line.get_xdata())) == 1 and line.get_marker() == "None"
        }
        for ax in figure.axes
    ]
    assert [0.6 in upright[0], 1.47 in upright[1], {4.0, 3.5} <= upright[2]] == [True, True, True]


def test_names_stand_at_the_first_panel_of_a_row_and_overlap_nothing():
    figure = draw_known(table(wild=4.1))
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == ["Ross", "Gaussian", "soft bin J"]
    assert not any(label.get_text() for label in figure.axes[1].get_yticklabels())
    for ax in figure.axes:
        boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
        shown = [box for box in boxes if ax.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= ax.bbox.x1 + 1]
        assert all(one.x1 < other.x0 for one, other in pairwise(shown))
