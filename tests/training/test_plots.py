"""Figures show names as they are."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from names_common import NASTY

from geopsp.core.escape import printable
from geopsp.training.plots import add_legend, plain_text, save_figure

mpl.use("agg")


@pytest.mark.filterwarnings("ignore:Glyph")  # not every font has every letter
@pytest.mark.parametrize("name", NASTY)
def test_names_in_figures_are_no_formulas(name, tmp_path, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "text.usetex", True)  # as some users have it: TeX could read files
    with plain_text():
        figure = plt.figure()
        title = figure.suptitle(printable(name))
        add_legend(figure, [(name, "#123456"), ("b", "#ff0000")])
    (legend,) = figure.legends
    shown = [title, *legend.get_texts()]
    assert [text.get_text() for text in shown] == [printable(name), printable(name), "b"]
    assert not any(text.get_usetex() or text.get_parse_math() for text in shown)
    assert save_figure(figure, tmp_path / "f.png").stat().st_size > 0
