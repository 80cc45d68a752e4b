"""Vector files of all kinds as labels, areas of interest and areas to validate on."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from corpus import ground, models
from corpus.outcome import Expected, shell
from corpus.pairwise import case_id
from corpus.vectors import FACTORS, SIZE, all_cases, write_image, write_vector
from torchvision.transforms import v2

import geopsp
from geopsp.report.summary import describe_chips

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

CASES = all_cases()

BANDS = ("red", "green", "blue")

GEOMETRY_ONLY = {name: values for name, values in FACTORS.items() if name != "field"}
"""What matters where classes do not."""


def cases(command):
    return pytest.mark.parametrize("case", [pytest.param(c, id=case_id(c, FACTORS, command)) for c in CASES])


def plain_cases(command):
    """The cases without the class field, which plays no part."""
    found = {}
    for case in CASES:
        plain = case | {"field": "text"}
        found.setdefault(case_id(plain, FACTORS, command), plain)
    return pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in found.items()])


def by_shell(case):
    """Return True for the cases that are run as in a shell."""
    return len(case_id(case, FACTORS)) % 3 == 0 and case["container"] != "frame"


@pytest.fixture(autouse=True)
def read_by_box(request, monkeypatch):
    """Read files by bounding box, as large ones are."""
    if "case" in request.fixturenames and request.getfixturevalue("case")["read"] == "by-box":
        monkeypatch.setattr("geopsp.vector.layer.READ_WHOLE_BYTES", 0)


def class_field(case):
    return None if case["field"] == "missing" else "kind"


def require_classes(codes, vector, case, outside):
    """Check that classes are told apart as in the file: one code for each, and no other code for it."""

    def one(merged):
        names, sure = vector.classes(merged=merged)
        if case["field"] == "missing":
            names[names != ""] = "object"
        assert (codes[sure & (names == "")] == outside).all(), "pixels outside of all polygons have a class"
        used = {}
        for name in {name for name in names[sure] if name != ""}:
            found = np.unique(codes[sure & (names == name)]).tolist()
            wanted = "unlabelled" if name is None else "one code of its own"
            assert len(found) == 1, f"class {name!r} has the codes {found}, but needs {wanted}"
            assert (found[0] == 255) == (name is None), f"class {name!r} has the code {found[0]}, but needs {wanted}"
            if name is None:
                continue
            is_background = case["field"] == "bool" and str(name).lower() == "false" and found == [0]
            assert is_background or found[0] != outside, f"class {name!r} is as outside of all polygons"
            used.setdefault(found[0], name)
            assert used[found[0]] == name, f"classes {used[found[0]]!r} and {name!r} are one"
            if case["field"] == "int":
                assert str(found[0]) == name, f"class {name} has the code {found[0]}"

    ground.require_any([lambda merged=merged: one(merged) for merged in (False, True)])


@cases("chips")
def test_labels_of_chips(case, desk, hold):
    vector, image = write_vector(desk.inputs, case), desk.inputs / "image.tif"
    transform, out = write_image(image, case["image"]), desk.outputs / "chips"
    background = "ignore" if len(case_id(case, FACTORS)) % 2 else "class"

    def act():
        if by_shell(case):
            field = () if class_field(case) is None else ("--class-field", "kind")
            shell(
                desk, "chips", image, "--labels", vector.labels, *field, "--out", out, "--size", 48, "--workers", 1,
                "--background", background,
            )  # fmt: skip
            return geopsp.ChipSet.open(out)
        chips = geopsp.export_training_data(
            image, vector.labels, out, class_field(case), 48, background=background, workers=1
        )
        desk.said.append(describe_chips(chips))
        return chips

    def check(chips):
        codes = ground.pasted_chips(chips, transform, (SIZE, SIZE))["codes"]
        require_classes(codes, vector, case, 255 if background == "ignore" else 0)

    hold("vectors: labels of chips", act, check, Expected(vector.refusable, vector.said))


@cases("train")
def test_labels_of_training(case, desk, hold):
    vector, image = write_vector(desk.inputs, case), desk.inputs / "image.tif"
    write_image(image, case["image"])

    def act():
        return geopsp.prepare_data(
            images=image, labels=vector.labels, class_field=class_field(case), chip_size=48, split="random",
            val_split_pct=0.75, batch_size=1, workers=0, transforms=v2.Identity(),
        )  # fmt: skip

    def check(data):
        desk.said.append(describe_chips(data.chips))
        assert np.isfinite(next(iter(data.train_dl)).image.numpy()).all()
        codes = np.full((SIZE, SIZE), 254, np.uint8)
        for number, row in enumerate(data.valid_rows):
            at = data.chips.index.iloc[row]
            label = data.valid_ds[number].label.numpy()
            table = np.append(data.legend.codes, [0] * (256 - len(data.legend.codes)))
            table[255] = 255
            codes[at.row : at.row + 48, at.col : at.col + 48] = table[label]
        seen = codes != 254
        expected, sure = vector.classes()
        covered = (expected != "") & ~((case["field"] == "bool") & (expected == "False"))  # False is background
        assert (codes[seen & ~covered & sure] == 0).all(), "pixels outside of all polygons have a class"
        wrong = seen & covered & sure & (codes == 0)
        assert not wrong.any(), f"{int(wrong.sum())} pixels in polygons are background"

    hold("vectors: labels of training", act, check, Expected(vector.refusable, vector.said))


@plain_cases("aoi-chips")
def test_area_of_interest_of_chips(case, desk, hold):
    vector, image = write_vector(desk.inputs, case), desk.inputs / "image.tif"
    transform, out = write_image(image, case["image"]), desk.outputs / "chips"
    with rasterio.open(image) as dataset:
        labels = gpd.GeoDataFrame({"kind": ["all"]}, geometry=[shapely.box(*dataset.bounds)], crs=dataset.crs.to_wkt())
    labels.to_parquet(desk.inputs / "everywhere.parquet")

    def act():
        if by_shell(case):
            shell(
                desk, "chips", image, "--labels", desk.inputs / "everywhere.parquet", "--class-field", "kind",
                "--aoi", vector.labels, "--out", out, "--size", 48, "--workers", 1,
            )  # fmt: skip
            return geopsp.ChipSet.open(out)
        chips = geopsp.export_training_data(image, labels, out, "kind", 48, aoi=vector.labels, workers=1)
        desk.said.append(describe_chips(chips))
        return chips

    def check(chips):
        codes = ground.pasted_chips(chips, transform, (SIZE, SIZE))["codes"]
        covered, sure = vector.covered()
        missing = np.ones((SIZE, SIZE), bool)
        for col, row in zip(chips.index["col"], chips.index["row"], strict=True):
            missing[row : row + 48, col : col + 48] = False
        codes = np.where(missing, 255, codes)
        ground.same(codes != 255, covered, sure, "area of interest")

    hold("vectors: area of interest of chips", act, check, Expected(vector.refusable, _said(case, vector)))


def _said(case, vector):
    """What must be said of an area of interest: what is left out because its vertices are no numbers."""
    return vector.said[:1] if case["extra"] in {"nan", "inf", "all-inf"} else ()


@plain_cases("aoi-predict")
def test_area_of_interest_of_a_map(case, desk, hold, monkeypatch):
    vector, image = write_vector(desk.inputs, case), desk.inputs / "image.tif"
    write_image(image, case["image"])
    out = desk.outputs / "map.tif"
    if by_shell(case):
        models.load_echoes(monkeypatch)
        degrees = case["image"].startswith("degrees")
        options = {"cell": 1e-4, "units": "degree"} if degrees else {}
        models.save_echo(desk.inputs / "model", BANDS, **options)

    def act():
        if by_shell(case):
            shell(desk, "predict", desk.inputs / "model", image, "--aoi", vector.labels, "--out", out)
        else:
            geopsp.classify_pixels(image, models.Classifier(BANDS), out, aoi=vector.labels)

    def check(_):
        with rasterio.open(out) as dataset:
            found = dataset.read(1)
        with rasterio.open(image) as dataset:
            band = dataset.read(1)
        covered, sure = vector.covered()
        ground.same(found, models.codes_of(band, covered), sure, "classes")

    hold("vectors: area of interest of a map", act, check, Expected(vector.refusable, _said(case, vector)))


@plain_cases("valid")
def test_areas_to_validate_on(case, desk, hold):
    vector, image = write_vector(desk.inputs, case), desk.inputs / "image.tif"
    write_image(image, case["image"])
    with rasterio.open(image) as dataset:
        left, bottom, right, top = dataset.bounds
        half = shapely.box(left, bottom, (left + right) / 2, top)
        labels = gpd.GeoDataFrame({"kind": ["half"]}, geometry=[half], crs=dataset.crs.to_wkt())

    def act():
        return geopsp.prepare_data(
            images=image, labels=labels, class_field="kind", chip_size=32, valid_path=vector.labels, gap=0, workers=0
        )

    def check(data):
        areas = [shape for _, shape in vector.shapes]
        for row, chip in data.chips.index.iterrows():
            shape = vector.footprint(chip.row, chip.col, 32)
            touched = any(shapely.area(shapely.intersection(shape, area)) > 0 for area in areas)
            assert (row in data.valid_rows) == touched, (
                f"the chip at column {chip.col}, row {chip.row} "
                f"{'is' if row in data.valid_rows else 'is not'} validated on"
            )

    hold("vectors: areas to validate on", act, check, Expected(vector.refusable, _said(case, vector)))


@plain_cases("info")
def test_info(case, desk, hold):
    vector = write_vector(desk.inputs, case)
    if case["container"] == "frame":
        pytest.skip("a frame is no file")

    def act():
        return shell(desk, "info", vector.labels)

    def check(text):
        assert "kind" in text, text

    hold("vectors: info", act, check, Expected("described if they can be opened"))
