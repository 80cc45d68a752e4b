"""Two images of one ground, of which the second differs in one thing from the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from corpus import models
from corpus.outcome import Expected, shell

import geopsp
from geopsp.report.summary import describe_chips

CRS, LEFT, TOP, CELL = "EPSG:32632", 601230.0, 5301710.0, 10.0

BLOCK = 160.0
"""Metres of ground of one class."""

BANDS = ("b1", "b2")

FIRST_SCALE = 2.0
"""Of the first image, if the second has a scale: its raw values are then 1 to 5, too."""

COLS, ROWS = 96, 64
"""Of the mosaic; the first image is the left half and a third of the right one, the second the right half."""


@dataclass(frozen=True)
class Second:
    """How an image differs from the first."""

    crs: str = CRS
    cell: float = CELL
    shift: float = 0.0
    """Pixels."""

    dtype: str = "uint16"
    scale: float = 1.0
    offset: float = 0.0
    tagged: bool = False
    nodata: float | None = None
    order: tuple[int, ...] = (0, 1)
    names: tuple[str, ...] = BANDS
    refusable: str = ""
    says: str = ""


SECONDS = {
    "same": Second(),
    "shifted": Second(shift=0.5),
    "finer": Second(cell=5.0),
    "coarser": Second(cell=20.0),
    "degrees": Second(crs="EPSG:4326", cell=1e-4, says="warp"),
    "mercator": Second(crs="EPSG:3857", cell=15.0, says="warp"),
    "other-zone": Second(crs="EPSG:32633", says="warp"),
    "europe": Second(crs="EPSG:3035", says="warp"),
    "type": Second(dtype="int16", refusable="pixels of two types"),
    "float": Second(dtype="float32", refusable="pixels of two types"),
    "scale": Second(scale=0.5, tagged=True, says="scale"),
    "offset": Second(scale=2.0, offset=-1000.0, tagged=True, says="scale|offset"),
    "scale-and-offset": Second(scale=0.1, offset=-100.0, tagged=True, says="scale"),
    "nodata-0": Second(nodata=0),
    "nodata-65535": Second(nodata=65535),
    "bands-in-another-order": Second(order=(1, 0), names=("b2", "b1")),
    "case-of-names": Second(names=("B1", "B2")),
    "no-names": Second(names=(), refusable="bands without names", says="name|order"),
    "other-names": Second(names=("x", "y"), refusable="other bands"),
    "more-bands": Second(order=(0, 1, 1), names=("b1", "b2", "b3"), refusable="more bands"),
    "fewer-bands": Second(order=(0,), names=("b1",), refusable="fewer bands"),
}


def ground_at(x, y):
    """Return the class of places in the first image's CRS, 1 to 5."""
    return 1 + (np.floor((x - LEFT) / BLOCK) + np.floor((TOP - y) / BLOCK)).astype(int) % 5


def write(path, second, *, cols):
    """Write an image of the ground between two columns of the mosaic."""
    low, high = (LEFT + col * CELL for col in cols)
    to_crs = pyproj.Transformer.from_crs(CRS, second.crs, always_xy=True)
    xs, ys = to_crs.transform([low, high, high, low], [TOP, TOP, TOP - ROWS * CELL, TOP - ROWS * CELL])
    box = (min(xs), min(ys), max(xs), max(ys))
    width, height = (round((box[i + 2] - box[i]) / second.cell) for i in (0, 1))
    transform = Affine(second.cell, 0, box[0] + second.shift * second.cell, 0, -second.cell, box[3])
    x, y = transform @ tuple(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5))
    x, y = pyproj.Transformer.from_crs(second.crs, CRS, always_xy=True).transform(x, y)
    classes = ground_at(x, y)
    unit = FIRST_SCALE if second.tagged else 1.0
    true = [classes * unit, (classes + 20.0) * unit]
    data = np.stack([np.rint((true[band] - second.offset) / second.scale) for band in second.order])
    profile = {"driver": "GTiff", "width": width, "height": height, "count": len(data), "dtype": second.dtype}
    with rasterio.open(
        path, "w", crs=second.crs, transform=transform, nodata=second.nodata, photometric="MINISBLACK", **profile
    ) as dataset:
        dataset.write(data.astype(second.dtype))
        if second.names:
            dataset.descriptions = second.names
        if second.tagged:
            dataset.scales, dataset.offsets = [[each] * len(data) for each in (second.scale, second.offset)]
    return path


def expected_at(grid_transform, shape):
    """Return the class of each pixel of a map, and True where resampling does not mix two."""
    x, y = grid_transform @ tuple(np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5))
    near = np.minimum(*(np.abs(part / BLOCK - np.rint(part / BLOCK)) * BLOCK for part in (x - LEFT, TOP - y)))
    inside = (x > LEFT) & (x < LEFT + COLS * CELL - 40) & (y < TOP - 40) & (y > TOP - ROWS * CELL + 40)
    return ground_at(x, y), inside & (near > 40)


def inputs(desk, name):
    """Write both images; if the second has a scale, the first has another one."""
    plain = Second(scale=FIRST_SCALE, tagged=True) if SECONDS[name].tagged else Second()
    first = write(desk.inputs / "first.tif", plain, cols=(0, 64))
    return [first, write(desk.inputs / "second.tif", SECONDS[name], cols=(48, 96))]


def cases(command):
    return pytest.mark.parametrize("name", [pytest.param(name, id=f"{command},{name}") for name in SECONDS])


@cases("mosaic")
def test_map_of_a_mosaic(name, desk, hold, monkeypatch):
    paths, out = inputs(desk, name), desk.outputs / "map.tif"
    by_shell = len(name) % 3 == 0
    if by_shell:
        models.load_echoes(monkeypatch)
        models.save_echo(desk.inputs / "model", BANDS, dtype="uint16")

    def act():
        if by_shell:
            shell(desk, "predict", desk.inputs / "model", *paths, "--out", out)
        else:
            geopsp.classify_pixels(paths, models.Classifier(BANDS, "uint16"), out)

    def check(_):
        with rasterio.open(out) as dataset:
            found, (classes, sure) = dataset.read(1), expected_at(dataset.transform, dataset.shape)
        physical = models.codes_of(classes * FIRST_SCALE, sure)
        for expected in [models.CODES[classes - 1], *([physical] if SECONDS[name].tagged else [])]:
            wrong = sure & (found != expected)
            if not wrong.any():
                return
        raise AssertionError(f"{int(wrong.sum())} of {int(sure.sum())} pixels have another class")

    hold("two images: one map", act, check, expected_of(name))


def expected_of(name):
    second = SECONDS[name]
    return Expected(second.refusable, (second.says,) if second.says else ())


@cases("chips")
def test_chips_of_two_images(name, desk, hold):
    """Each on its own grid: their values are of one meaning, or it is said that they are not."""
    paths, out = inputs(desk, name), desk.outputs / "chips"
    second = SECONDS[name]
    labels = desk.inputs / "labels.tif"
    with rasterio.open(
        labels, "w", driver="GTiff", width=COLS, height=ROWS, count=1, dtype="uint8", crs=CRS,
        transform=Affine(CELL, 0, LEFT, 0, -CELL, TOP),
    ) as dataset:  # fmt: skip
        dataset.write(expected_at(dataset.transform, dataset.shape)[0].astype("uint8"), 1)

    def act():
        chips = geopsp.export_training_data(paths, labels, out, tile_size=32, workers=1)
        desk.said.append(describe_chips(chips))
        return chips

    def check(chips):
        band = chips.bands.index("b1")
        values = {}
        for _, chip in chips.index.iterrows():
            with rasterio.open(chip.image) as image, rasterio.open(chip.label) as label:
                data, codes, valid = image.read(band + 1), label.read(1), image.dataset_mask() > 0
            known = valid & (codes != 255)
            for code in np.unique(codes[known]).tolist():
                values.setdefault(code, []).append(np.median(data[known & (codes == code)]))
        for code, found in values.items():
            assert np.ptp(found) < 0.5, f"class {code} has the values {sorted(set(found))}"
            allowed = (code, code * FIRST_SCALE) if second.tagged else (code,)
            assert np.abs(np.median(found) - allowed).min() < 0.5, f"class {code} has the value {np.median(found)}"

    says = "scale|offset" if second.tagged else "name|order" if name == "no-names" else ""
    hold("two images: chips", act, check, Expected(second.refusable, (says,) if says else ()))
