"""Class rasters from elsewhere as labels, and as what polygons are made of."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
from affine import Affine
from corpus import ground
from corpus.class_rasters import CRS, FACTORS, HEIGHT, TRANSFORM, WIDTH, all_cases, write_class_raster
from corpus.outcome import Expected, shell
from corpus.pairwise import case_id
from torchvision.transforms import v2

import geopsp
from geopsp.report.summary import describe_chips

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

CASES = all_cases()


def cases(command):
    return pytest.mark.parametrize("case", [pytest.param(c, id=case_id(c, FACTORS, command)) for c in CASES])


def once_for_each_file(command):
    """The cases without the grid of the image, which plays no part."""
    found = {}
    for case in CASES:
        plain = case | {"grid": "same"}
        found.setdefault(case_id(plain, FACTORS, command), plain)
    return pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in found.items()])


def by_shell(case):
    """Return True for the cases that are run as in a shell."""
    return len(case_id(case, FACTORS)) % 3 == 0


NOTHING = -99999
"""Where there is no polygon."""

GRIDS = {
    "same": (CRS, TRANSFORM, HEIGHT, WIDTH),
    "finer": (CRS, TRANSFORM @ Affine.translation(3.1, 2.1) @ Affine.scale(0.6), 64, 64),
    "half-pixel": (CRS, TRANSFORM @ Affine.translation(2.4, 3.4), 48, 64),
    "wgs84": ("EPSG:4326", Affine(1e-4, 0, 10.3545, 0, -7e-5, 47.8600), 48, 64),
}
"""Of the image: CRS, transform, rows and columns."""


def write_image(path, grid):
    crs, transform, height, width = GRIDS[grid]
    data = (np.indices((height, width)).sum(axis=0) % 200 + 1).astype("uint8")[None].repeat(3, axis=0)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        dataset.write(data)


def sampled(raster, grid):
    """Return the label value under each pixel centre of the image, whether it is valid, and whether beyond doubt."""
    crs, transform, height, width = GRIDS[grid]
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform @ (cols, rows)
    if crs != CRS:
        x, y = pyproj.Transformer.from_crs(crs, CRS, always_xy=True).transform(x, y)
    col, row = (~TRANSFORM) @ (x, y)
    inside = (col >= 0) & (col < WIDTH) & (row >= 0) & (row < HEIGHT)
    at = np.clip(np.floor(row), 0, HEIGHT - 1).astype(int), np.clip(np.floor(col), 0, WIDTH - 1).astype(int)
    near = np.minimum(np.abs(col - np.rint(col)), np.abs(row - np.rint(row)))
    return raster.values[at], raster.valid[at] & inside, (near > 0.01) | (grid == "same")


def reason(case, raster):
    """Return why a raster may be refused as labels; "" if it may not."""
    values = raster.distinct
    if not values:
        return "no labelled pixel"
    if any(value != int(value) for value in values):
        return "fractions are no codes"
    if min(values) < 0 or max(values) > 254:
        return "values that are no codes"
    if case["mask"] == "alpha":
        return "two bands"
    return "one class" if len(values) == 1 else ""


def said_of(case, raster):
    """What must be said if it is accepted: a value that is no code, and a common one that counts as no label."""
    said = [str(int(value)) for value in raster.distinct if not 0 <= value <= 254]
    if case["nodata"] in {"0", "common"} and (~raster.valid).mean() > 0.5:
        said.append("nodata|unlabelled")
    return tuple(said)


def require_codes(codes, values, valid, sure, legend_says):
    """Check that each value has one code, no other has it, and pixels without a value are unlabelled."""
    assert (codes[sure & ~valid] == 255).all(), "pixels without a label have a class"
    used = {}
    for value in np.unique(values[sure & valid]).tolist():
        found = np.unique(codes[sure & valid & (values == value)]).tolist()
        assert len(found) == 1, f"value {value} has the codes {found}"
        if found == [255]:
            assert value == 255 or not 0 <= value <= 254, f"value {value} is unlabelled"
            continue
        assert found[0] not in used, f"values {used[found[0]]} and {value} are one"
        used[found[0]] = value
        if 0 <= value <= 254 and legend_says:
            assert found[0] == value, f"value {value} has the code {found[0]}"


@cases("labels")
def test_labels(case, desk, hold):
    raster, image, out = write_class_raster(desk.inputs, case), desk.inputs / "image.tif", desk.outputs / "chips"
    write_image(image, case["grid"])
    _, transform, height, width = GRIDS[case["grid"]]

    def act():
        if by_shell(case):
            shell(desk, "chips", image, "--labels", raster.path, "--out", out, "--size", 32, "--workers", 1)
            return geopsp.ChipSet.open(out)
        chips = geopsp.export_training_data(image, raster.path, out, tile_size=32, workers=1)
        desk.said.append(describe_chips(chips))
        return chips

    def check(chips):
        codes = ground.pasted_chips(chips, transform, (height, width))["codes"]
        require_codes(codes, *sampled(raster, case["grid"]), legend_says=max(raster.distinct) <= 254)

    hold("class rasters: labels", act, check, Expected(reason(case, raster), said_of(case, raster)))


@once_for_each_file("train")
def test_train(case, desk, hold):
    raster, image = write_class_raster(desk.inputs, case), desk.inputs / "image.tif"
    write_image(image, "same")

    def act():
        return geopsp.prepare_data(
            images=image, labels=raster.path, chip_size=32, split="random", val_split_pct=0.5, batch_size=2,
            workers=0, transforms=v2.Identity(),
        )  # fmt: skip

    def check(data):
        for number, row in enumerate(data.valid_rows):
            sample, at = data.valid_ds[number], data.chips.index.iloc[row]
            inside = np.s_[at.row : min(at.row + 32, HEIGHT), at.col : min(at.col + 32, WIDTH)]
            values, valid = raster.values[inside], raster.valid[inside]
            label = sample.label.numpy()[: values.shape[0], : values.shape[1]]
            assert (label[~valid] == 255).all(), "pixels without a label have a class"
            codes = np.append(data.legend.codes, [0] * (256 - data.c))
            wrong = valid & (values >= 0) & (values <= 254) & ((label == 255) | (codes[label] != values))
            assert max(raster.distinct) > 254 or min(raster.distinct) < 0 or not wrong.any(), "classes differ"

    said = said_of(case, raster)
    hold("class rasters: train", act, check, Expected(reason(case, raster), said))


@once_for_each_file("polygonize")
def test_polygonize(case, desk, hold):
    raster, out = write_class_raster(desk.inputs, case), desk.outputs / "polygons.gpkg"

    def act():
        if by_shell(case):
            shell(desk, "polygonize", raster.path, "--out", out)
        else:
            geopsp.raster_to_polygons(raster.path, out)

    def check(_):
        frame = gpd.read_file(out, layer="polygons")
        values = np.where(raster.valid, raster.values.astype(float), NOTHING).astype(int)
        if set(frame["code"]) != {*raster.distinct} and 255 in raster.distinct:
            values[values == 255] = NOTHING  # left out, which is said
        found = np.full((HEIGHT, WIDTH), NOTHING)
        if len(frame):
            pairs = zip(frame.geometry, frame["code"], strict=True)
            found = rasterio.features.rasterize(
                pairs, (HEIGHT, WIDTH), fill=NOTHING, transform=TRANSFORM, dtype="int32"
            )
        ground.same(found, values, np.ones(values.shape, bool), "codes")
        for code, group in frame.groupby("code"):
            pixels = int((raster.valid & (raster.values == code)).sum())
            assert abs(group["area_m2"].sum() - pixels * 100) < pixels * 0.3, f"area of class {code}"

    refusable = reason(case, raster)
    said = ("nodata|no polygon|empty|no pixel|nothing",) if not raster.distinct else ()
    said += ("255",) if 255 in raster.distinct else ()
    expected = Expected("" if refusable == "one class" else refusable, said)
    hold("class rasters: polygonize", act, check, expected)


@once_for_each_file("info")
def test_info(case, desk, hold):
    raster = write_class_raster(desk.inputs, case)

    def act():
        return shell(desk, "info", raster.path)

    def check(text):
        assert f"{WIDTH} x {HEIGHT}" in text, text

    hold("class rasters: info", act, check)
