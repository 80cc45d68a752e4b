"""Where chips lie, as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pytest
import shapely
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.data.split import split_chips
from geopsp.errors import ChipError, OptionError
from geopsp.report.chip_map import MAX_OUTLINES, SPLIT_COLORS, chip_map

mpl.use("agg")

LEFT, TOP = 601234.0, 5301717.0
LEGEND = Legend.from_names({0: "background", 1: "water", 4: "road"})


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def chips_on(sources, shapes, pixels=None):
    counts = np.tile([5, 0, 0], (len(shapes), 1)) if pixels is None else np.asarray(pixels)
    columns = {f"pixels_{code}": counts[:, place] for place, code in enumerate(LEGEND.codes)}
    columns |= {"labelled": counts.sum(axis=1) / 100, "valid": 1.0, "source": sources, "angle": 0.0}
    return ChipSet(
        folders=(Path("chips"),), index=gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32632"), legend=LEGEND,
        bands=("red",), dtype="uint8", tile_size=16, cell_size=(2.0, 2.0), units="metre",
        statistics=BandStats.empty(1), reports=(), tables=(),
    )  # fmt: skip


def boxes(cols, rows, left=LEFT, top=TOP, side=32.0):
    x, y = (axis.ravel() for axis in np.meshgrid(left + side * np.arange(cols), top - side * np.arange(rows)))
    return shapely.box(x, y - side, x + side, y)


def shown(figure):
    """Fill colours and outlines of the chips, the number of images, and what the legend says."""
    places = [axes for axes in figure.axes if axes.collections]
    faces = [to_hex(face) for axes in places for face in axes.collections[0].get_facecolor()]
    outlines = [path.vertices[:4] for axes in places for path in axes.collections[0].get_paths()]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    return faces, outlines, [image for axes in places for image in axes.images], words


def test_chips_lie_on_their_image(make_raster):
    path = make_raster("a.tif", np.full((3, 64, 96), 90, np.uint8))
    shapes = boxes(6, 4)
    figure = chip_map(chips_on(str(path), shapes))
    _, outlines, (image,), words = shown(figure)
    for outline, shape in zip(outlines, shapes, strict=True):
        np.testing.assert_array_equal(outline, shapely.get_coordinates(shape)[:4])
    left, right, _, top = image.get_extent()
    cell = (right - left) / image.get_array().shape[1]
    rows, cols = np.nonzero(image.get_array()[..., 3])
    x = left + cell * np.array([cols.min(), cols.max() + 1])
    y = top - cell * np.array([rows.max() + 1, rows.min()])
    np.testing.assert_allclose([x[0], y[0], x[1], y[1]], [LEFT, TOP - 128, LEFT + 192, TOP], atol=1.1 * cell)
    assert words == ["background"]
    assert figure.axes[0].get_xlabel() == "x (metre)"
    assert "24 chips of 16 x 16 pixels" in figure.get_suptitle()
    figure.canvas.draw()


def test_colours_tell_the_class_or_the_share():
    pixels = [[50, 1, 0], [50, 0, 0], [0, 3, 9], [0, 0, 0]]
    chips = chips_on("a.tif", boxes(4, 1), pixels)
    faces, *_, words = shown(chip_map(chips))
    names = ["water", "background", "road"]
    assert faces == [*(LEGEND.classes[LEGEND.names.index(name)].color for name in names), SPLIT_COLORS["no label"]]
    assert words == ["background", "water", "road", "no label"]
    faces, *_, words = shown(chip_map(chips, color="labelled"))
    assert faces == [to_hex(mpl.colormaps["viridis"](share)) for share in (0.51, 0.5, 0.12, 0.0)]
    with pytest.raises(OptionError, match="`color` is 'shape', but must be one of 'class', 'labelled'"):
        chip_map(chips, color="shape")


def test_colours_tell_the_split():
    chips = chips_on("a.tif", boxes(12, 9), [[5, 0, 0]] * 107 + [[0, 0, 0]])
    split = split_chips(chips, share=0.2, seed=0)
    faces, *_, words = shown(chip_map(chips, split=split))
    assert {faces[row] for row in split.train} == {SPLIT_COLORS["training"]}
    assert {faces[row] for row in split.valid} == {SPLIT_COLORS["validation"]}
    assert {faces[row] for row in split.dropped} == {SPLIT_COLORS["left out"]}
    assert faces[107] == SPLIT_COLORS["no label"]
    assert words == list(SPLIT_COLORS)


def test_sources_that_are_gone_are_said(make_raster):
    path = make_raster("a.tif")
    chips = chips_on([str(path)] * 4 + ["/gone/b.tif"] * 2, boxes(6, 1))
    figure = chip_map(chips)
    assert len(shown(figure)[2]) == 1
    assert "images not found: b.tif" in figure.get_suptitle()
    figure = chip_map(chips, images={"/gone/b.tif": path})
    assert len(shown(figure)[2]) == 2
    assert "not found" not in figure.get_suptitle()


@pytest.mark.parametrize(
    "file",
    ["https://example.com/a.tif", "/vsicurl/https://example.com/a.tif", "s3://bucket/a.tif", "WMS:http://example.com/",
     "/vsizip//vsicurl/https://example.com/a.zip/a.tif", "netcdf:http://example.com/a.nc:b", "PG:host=example.com"],
)  # fmt: skip
def test_images_over_a_network_are_drawn_only_if_asked(file, monkeypatch):
    """A folder of chips from elsewhere may name any."""
    asked = []
    monkeypatch.setattr("geopsp.report.chip_map._draw_image", lambda axes, image, *_: asked.append(image) or True)
    chips = replace(chips_on(["a"] * 4, boxes(2, 2)), files={"a": [file]})
    assert "images not found: a" in chip_map(chips).get_suptitle()
    assert asked == []
    chip_map(chips, images=chips.files)
    assert asked == [[file]]


def test_a_source_of_several_files_is_shown_whole(make_raster):
    data = np.full((3, 64, 96), 90, np.uint8)
    files = [str(make_raster("w.tif", data)), str(make_raster("e.tif", data, origin=(LEFT + 192, TOP)))]
    chips = replace(chips_on("w.tif and 1 more", boxes(12, 4)), files={"w.tif and 1 more": files})
    figure = chip_map(chips)
    (image,) = shown(figure)[2]
    (alone,) = shown(chip_map(replace(chips, files={"w.tif and 1 more": files[:1]})))[2]
    assert image.get_array()[..., 3].sum() == pytest.approx(2 * alone.get_array()[..., 3].sum(), rel=0.02)
    assert "not found" not in figure.get_suptitle()


def test_of_one_file_a_band_three_are_shown(make_raster):
    bands, sides = ("blue", "green", "red", "nir"), {"w": LEFT, "e": LEFT + 96}
    files = []
    for side, left in sides.items():
        for number, band in enumerate(bands):
            data = np.tile(np.linspace(1, 200, 48), (64, 1))[None, :, :: 1 if band == "red" else -1].astype(np.uint8)
            data = data if band != "nir" else data * 0 + 7
            files.append(str(make_raster(f"{side}{number}.tif", data, origin=(left, TOP))))
    chips = replace(chips_on("w0.tif and 1 more", boxes(6, 4)), bands=bands, files={"w0.tif and 1 more": files})
    (image,) = shown(chip_map(chips))[2]
    pixels = image.get_array()
    seen = pixels[pixels[..., 3] == 1]
    width = int((pixels[..., 3] == 1).any(axis=0).sum())
    row = seen[:width]
    assert row[2, 0] < 0.1
    assert row[2, 1] > 0.9
    np.testing.assert_allclose(row[:, 1], row[:, 2])
    assert width == pytest.approx(192 / (image.get_extent()[1] - image.get_extent()[0]) * pixels.shape[1], abs=2)


def test_an_image_in_another_crs_is_brought_here(make_raster):
    near = gpd.GeoSeries(boxes(1, 1, side=160), crs="EPSG:32632").to_crs("EPSG:4326").total_bounds
    path = make_raster(
        "a.tif", size=(80, 80), crs="EPSG:4326", origin=(near[0], near[3]), cell=(near[2] - near[0]) / 80
    )
    (image,) = shown(chip_map(chips_on(str(path), boxes(5, 5))))[2]
    assert image.get_array()[..., 3].mean() > 0.6


def test_sources_far_apart_get_a_panel_each():
    shapes = np.concatenate([boxes(3, 3), boxes(3, 3, left=LEFT + 90_000), boxes(3, 3, top=TOP - 90_000)])
    figure = chip_map(chips_on(np.repeat(["a", "b", "c"], 9), shapes))
    assert sum(bool(axes.collections) for axes in figure.axes) == 3
    figure = chip_map(chips_on(np.repeat(["a", "b", "c"], 9), boxes(9, 3)))
    assert sum(bool(axes.collections) for axes in figure.axes) == 1


def test_many_chips_have_no_outline_and_chips_without_ground_are_absent():
    few, many = (chip_map(chips_on("a", boxes(n, 51))).axes[0].collections[0] for n in (5, MAX_OUTLINES // 50))
    assert len(few.get_edgecolor()) == 255
    assert len(many.get_edgecolor()) == 0
    shapes = boxes(3, 1)
    shapes[1] = None
    figure = chip_map(chips_on("a", shapes))
    assert len(shown(figure)[0]) == 2
    assert "1 chip not shown" in figure.get_suptitle()
    with pytest.raises(ChipError, match="No chip of 1 has a georeference"):
        chip_map(chips_on("a", np.array([None])))
