"""Words, JSON, HTML and pictures that tell what was found."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from hypothesis import given
from matplotlib import image as mpl_image
from names_common import is_safe, names
from raster_common import class_raster

from geopsp.chips.chip_set import ChipSet
from geopsp.chips.class_balance import class_warnings
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.progress import progress_bar
from geopsp.errors import OutputError
from geopsp.raster.info import read_info
from geopsp.report.describe import describe
from geopsp.report.describe_raster import describe_raster
from geopsp.report.preview import preview
from geopsp.report.summary import describe_chips, describe_scores, write_chip_report, write_scores
from geopsp.training.metrics import Confusion
from geopsp.training.plots import colorize, plot_rates, rgb_band_indices, save_figure, to_rgb

mpl.use("agg")

LEGEND = Legend.from_names({1: "water", 4: "a <b> & c"})


@pytest.fixture
def scores():
    found = Confusion(LEGEND)
    found.add(np.array([0, 0, 1, 1, IGNORE_INDEX]), np.array([0, 1, 1, 1, 0]))
    return found


def test_scores_as_json(scores, tmp_path):
    write_scores(scores, tmp_path / "s.json")
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["confusion"]["rows_true"] == [[1, 1], [0, 2]]
    assert content["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    with pytest.raises(OutputError, match="already exists"):
        write_scores(scores, tmp_path / "s.json")
    assert "0.5833" in describe_scores(scores)


@given(first=names, second=names)
def test_scores_are_told_in_a_line_for_each_class(first, second):
    found = Confusion(Legend.from_names({1: first, 4: second}))
    found.add(np.array([0, 1]), np.array([0, 1]))
    text = describe_scores(found)
    assert len(text.splitlines()) == 5
    assert is_safe(text)


def test_preview_shows_classes_in_their_colours(tmp_path, make_raster):
    grid = read_info(make_raster(size=(40, 60))).grid
    codes = np.full((40, 60), 1, np.uint8)
    codes[:, 30:], codes[:2] = 4, IGNORE_INDEX
    with class_raster(tmp_path / "map.tif", Grid(grid.crs, grid.transform, 60, 40), LEGEND) as writer:
        writer.append(codes[None])
    shown_image = mpl_image.imread(preview(tmp_path / "map.tif", tmp_path / "map.png", pixels=30))
    assert shown_image.shape == (20, 30, 4)
    assert tuple((shown_image[5, 3, :3] * 255).round().astype(int)) == LEGEND.classes[0].rgb
    assert shown_image[0, 0, 3] == 0
    assert "1 water, 4 a <b> & c" in str(describe([str(tmp_path / "map.tif")]))


def test_picture_stretches_valid_pixels_only():
    data = np.array([[[0, 100, 200, 9999]]] * 3, np.uint16)
    image = to_rgb(data, np.array([[True, True, True, False]]), (0, 1, 2))
    assert image[0, 0, 0] == 0
    assert image[0, 2, 0] == 1
    assert image[0, 3].tolist() == [1, 1, 1]
    assert not to_rgb(data, np.zeros((1, 4), bool), (0, 1, 2)).min() < 1


def test_bands_to_show():
    assert rgb_band_indices(["nir", "Red", "green", "blue"]) == (1, 2, 3)
    assert rgb_band_indices(["a", "b"]) == (0, 0, 0)
    assert rgb_band_indices(["a", "b", "c", "d"], ["d", "b", "a"]) == (3, 1, 0)
    assert colorize(np.array([[0, IGNORE_INDEX]], np.uint8), LEGEND)[0, 1, 3] == 0


def test_figures_are_written(tmp_path):
    path = save_figure(plot_rates(1e-3, [1e-5, 1e-3, 1e-1], [1, 0.5, 3]), tmp_path / "rates.png")
    assert mpl_image.imread(path).std() > 0.05


def test_a_raster_without_crs_is_still_described(make_raster):
    assert "none (assign one before use)" in str(describe([str(make_raster("bare.tif", crs=None))]))


def test_progress_in_a_log_is_five_lines(capsys):
    with progress_bar("Working", gap=0) as progress:
        for done in range(1, 101):
            progress(done, 100)
    logging.getLogger("geopsp.test").info("done [not markup]")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Working: 20 of 100, 0:00 left", lines[0])
    assert lines[-1] == "done [not markup]"


# Chips


REPORT = {
    "chips": 3,
    "skipped": {"invalid": 4, "unlabelled": 0, "empty": 12, "outside": 0},
    "empty": 1,
    "conflict_pixels": 1234,
    "polygons": {"water": 3, "road": 2000},
    "labels": {"source": "l.gpkg (layer x)", "repaired": 2, "null": 1, "without_class": 0, "priority": "small on top"},
    "notes": ["a.tif is warped"],
    "warnings": ["mind the gap"],
}


def chips_of(counts, *reports):
    legend = Legend.from_names({0: "background", 1: "water", 4: "road"})
    counts = np.asarray(counts)
    columns = {f"pixels_{code}": counts[:, place] for place, code in enumerate(legend.codes)}
    columns |= {"labelled": 0.5, "valid": 1.0, "source": "a.tif"}
    index = gpd.GeoDataFrame(columns, geometry=[shapely.box(0, 0, 64, 64)] * len(counts), crs="EPSG:32632")
    return ChipSet(
        folders=(Path("chips"),), index=index, legend=legend, bands=("red",), dtype="uint8", tile_size=32,
        cell_size=(2.0, 2.0), units="metre", statistics=BandStats.empty(1), reports=reports, tables=(),
    )  # fmt: skip


def test_what_was_found_at_the_export_in_words():
    text = describe_chips(chips_of([[90, 10, 0], [100, 0, 0], [0, 0, 300]], REPORT))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "chips: 3 chips of 32 x 32 pixels"
    assert "0 background 190 38.00% 2 0" in lines
    assert "1 water 10 2.00% 1 3" in lines
    assert "4 road 300 60.00% 1 2,000" in lines
    assert "labels l.gpkg (layer x): 2,003 polygons, 2 repaired, 1 without geometry" in lines
    assert "overlaps 1,234 pixels lie in polygons of several classes; small on top" in lines
    assert "left out 4 chips with too few valid pixels, 12 chips without any class" in lines
    assert "empty 1 chip contains only background" in lines
    assert "note a.tif is warped" in lines
    assert "warning mind the gap" in lines
    assert sum(line.startswith("warning") for line in lines) == 4


def test_chips_without_labels_are_not_called_background():
    """As where background is ignored."""
    chips = chips_of([[0, 10, 0]], {**REPORT, "empty": 82})
    chips = replace(chips, legend=Legend.from_names({1: "water", 4: "road"}))
    assert "empty      82 chips contain no labels" in describe_chips(chips)


def test_a_raster_in_degrees_tells_metres_too(make_raster):
    path = make_raster("d.tif", bands=1, crs="EPSG:4326", origin=(11.0, 48.0), cell=0.0001)
    text = str(describe([str(path)]))
    assert "61 pixels, 1 band of uint8" in text
    assert "0.0001 x 0.0001 degrees (about 11.1 m)" in text


def test_the_same_as_json(tmp_path):
    chips = chips_of([[90, 10, 0], [100, 0, 0], [0, 0, 300]], REPORT, REPORT)
    content = json.loads(write_chip_report(chips, tmp_path / "r.json").read_text())
    assert content["classes"][1] == {
        "code": 1, "name": "water", "pixels": 10, "share": 0.02, "chips": 1, "polygons": 6,
    }  # fmt: skip
    assert content["exports"] == [REPORT, REPORT]
    assert content["warnings"].count("mind the gap") == 1
    with pytest.raises(OutputError, match="already exists"):
        write_chip_report(chips, tmp_path / "r.json")


OLD_WARNINGS = [
    "water is in 1 chip only; needed at least 5 for both parts of a split. Export more chips of it.",
    "road has no pixel, so it cannot be learned: label some, or drop it (class_mapping).",
]
"""As version 0.1 wrote them to chips.json."""


@pytest.mark.parametrize("as_text", [False, True])
def test_balance_is_that_of_all_chips_not_of_each_export(as_text, tmp_path):
    """What was rare in the first export may be common by now."""
    counts = np.tile([10, 10, 10], (9, 1))
    first = OLD_WARNINGS if as_text else class_warnings(chips_of(counts).legend, [1000, 0, 1], [9, 0, 1])
    other = "mind the gap" if as_text else {"kind": "input", "text": "mind the gap"}
    chips = chips_of(counts, {**REPORT, "warnings": [*first, other]}, {**REPORT, "warnings": first})
    assert [line.split(maxsplit=1)[1] for line in describe_chips(chips).splitlines() if "warning " in line] == [
        "mind the gap"
    ]
    content = json.loads(write_chip_report(chips, tmp_path / "r.json").read_text())
    assert content["warnings"] == ["mind the gap"]
    assert [export["warnings"] for export in content["exports"]] == [["mind the gap"], []]


def test_chips_in_no_folder_are_described_as_such():
    chips = replace(chips_of([[90, 10, 0]]), folders=())
    assert describe_chips(chips).startswith("Read from images, not exported: 1 chip of")


def test_scale_and_palette_of_a_raster(make_raster):
    path = make_raster(bands=1)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (9, 8, 7, 255)})
        dataset.scales, dataset.offsets = (1e-4,), (-0.1,)
    text = describe_raster(path).text
    assert "raw, scale 0.0001, offset -0.1" in text
    assert "as an image its colours are read" in text
