"""What objects show in a notebook is well-formed, whatever the names in it hold, and short."""

from __future__ import annotations

import pytest
from names_common import NASTY
from notebook_common import parse_html, texts

from geopsp.core.escape import printable
from geopsp.core.legend import Legend
from geopsp.core.notebook_html import MAX_ROWS, format_score, html_block, html_facts, html_table


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text(name):
    legend = Legend.from_names({1: name})
    root = parse_html(
        html_block(name, html_facts({name: name, "classes": legend.classes}), html_table([name], [[name]]))
    )
    shown = "\n".join(map(printable, name.split("\n")))  # lines stay
    assert texts(root, "td") == [shown] * 3
    assert texts(root, "th") == [shown, "classes", shown]
    assert {each.tag for each in root.iter()} == {"div", "table", "thead", "tbody", "tr", "th", "td", "span"}


def test_a_legend_has_a_swatch_for_each_class():
    root = parse_html(Legend.from_names({0: "background", 3: "water"})._repr_html_())
    assert texts(root, "td") == ["background", "0", "#1b1b1b", "water", "3", "#2b6cb0"]
    assert [each.get("style").rpartition(":")[2] for each in root.iter("span")] == ["#1b1b1b", "#2b6cb0"]


def test_a_legend_is_described_in_one_line():
    assert repr(Legend.from_names({0: "background", 3: "a\nb"})) == "<Legend of 2 classes: 0 background, 3 a\\nb>"
    assert repr(Legend.from_names({1: "road"})) == "<Legend of 1 class: 1 road>"


def test_long_tables_are_cut():
    legend = Legend.from_names({code: f"class {code}" for code in range(200)})
    rows = texts(parse_html(legend._repr_html_()), "tr")
    assert len(rows) == 1 + MAX_ROWS + 1
    assert rows[-1] == "... and 180 more"
    assert "".join(parse_html(html_facts({"classes": legend.classes})).itertext()).endswith("and 180 more")


def test_colours_are_those_of_the_theme():
    """Neither a colour of text nor an opaque background: both themes stay readable."""
    html = html_block("a", html_facts({"b": "c"}), html_table(["x", "y"], [["1", "2"]], shades=[[0.5]]))
    assert ";color:" not in html.replace('"color:', ";color:")
    assert html.count("background:") == html.count("background:rgba(64, 128, 220, 0.375)") == 1


@pytest.mark.parametrize(("score", "text"), [(0.5, "0.500"), (None, "–"), (float("nan"), "–")])
def test_scores(score, text):
    assert format_score(score) == text
