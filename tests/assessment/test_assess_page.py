"""The page of an assessment is well-formed, whole in one file, and shows names as they are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from geopsp.assessment.accuracy.accuracy_page import BAR_WIDTH, interval_bar
from geopsp.assessment.accuracy.assessed_points import AssessedPoints
from geopsp.assessment.accuracy.point_accuracy import accuracy_of_points
from geopsp.core.legend import ClassInfo

VOID = {"meta", "img", "br", "rect", "path"}
"""Elements without an end tag here."""

HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Checks that tags are closed in order; collects tags, attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.links = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def found():
    strata = pd.DataFrame(
        {"stratum": ["water, north", "rest"], "map_class": ["water", HOSTILE], "zone": ["north", "south"],
         "pixels": [1000, 4000], "area_ha": [10.0, 40.0], "sample_size": [6, 4]}
    )  # fmt: skip
    points = AssessedPoints(
        design="stratified",
        method="Stratified & so on",
        mapped=np.array(["water"] * 6 + [HOSTILE] * 4, object),
        reference=np.array(["water"] * 4 + [HOSTILE] * 2 + [HOSTILE] * 3 + ["water"], object),
        stratum=np.repeat([0, 1], [6, 4]),
        strata=strata,
        pixel_area=np.ones(10),
        mapped_areas={"water": 10.0, HOSTILE: 40.0},
        classes=(ClassInfo(1, "water", "#2b6cb0"), ClassInfo(2, HOSTILE, "#22683a")),
    )
    return accuracy_of_points(points, f"{HOSTILE}.tif", "points", confidence_level=0.95, merge_strata=False)


def test_the_page_is_whole_and_runs_nothing(found, tmp_path):
    text = found.save(tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.links == []
    assert HOSTILE in page.texts
    assert {"prefers-color-scheme: dark", "viewport"} <= set(re.findall("prefers-color-scheme: dark|viewport", text))
    assert page.tags.count("table") == 7
    assert page.tags.count("svg") == 6
    assert page.tags.count("caption") == 7


def test_its_numbers_are_those_of_the_tables(found):
    page = Page(f"<div>{found._repr_html_()}</div>")
    text = " ".join(page.texts)
    assert f"{found.overall['estimate']:.3f} ± {found.overall['standard_error']:.3f}" in text
    assert f"{found.area_shares.iloc[0, 0]:.4f}" in text
    assert {"4", "2", "3", "1"} <= set(page.texts)


def test_the_text_has_no_lines_of_strangers(found):
    assert found.text().count("\n") == len(found.text().split("\n")) - 1
    assert "overall" in found.text().lower()


def test_bars_are_as_long_as_their_values():
    row = {"estimate": 0.5, "lower": 0.25, "upper": 0.75}
    bar = interval_bar(row, 1.0, "accuracy", mapped=1.0)
    assert f"width='{BAR_WIDTH / 2:.1f}'" in bar
    assert f"M{BAR_WIDTH / 4:.1f} 9.0H{3 * BAR_WIDTH / 4:.1f}" in bar
    assert f"M{BAR_WIDTH:.1f} 0V" in bar
    unknown = interval_bar(dict.fromkeys(row, np.nan), 1.0, "accuracy")
    assert "nan" not in unknown
    assert "path" not in unknown
