"""A radar shows what was measured, and nothing where nothing was."""

import math

import numpy as np

from imvideoedit.evaluation.reporting.charts import png, radar


def test_a_missing_value_leaves_a_gap_and_is_no_zero():
    names = ["a", "b", "c", "d"]
    figure = radar(names, [("whole", [1, 2, 3, 4], "red", "-"), ("gap", [1, math.nan, 3, 4], "blue", "--")], 5)
    (axes,) = figure.axes
    whole, gap = (np.asarray(line.get_ydata(), float) for line in axes.lines)
    assert whole.tolist() == [1, 2, 3, 4, 1] and gap[[0, 2, 3, 4]].tolist() == [1, 3, 4, 1] and np.isnan(gap[1])
    assert len(axes.patches) == 1, "only a whole polygon is filled"
    assert png(figure).startswith(b"\x89PNG")
