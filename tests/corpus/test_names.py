"""Names of all kinds for everything that has one."""

from __future__ import annotations

import shutil
import unicodedata
import zlib
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from corpus import ground, models, rasters
from corpus.names import HARD, NAMES, lay_bait
from corpus.outcome import Expected, shell

import geopsp

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

PLAIN = {name: values[0] for name, values in rasters.FACTORS.items()}

SIZE = (rasters.HEIGHT, rasters.WIDTH)

BANDS = ("red", "green", "blue")

EVERYWHERE = np.ones(SIZE, bool)

HOWS = ("python", "python-relative", "shell", "shell-relative")


class Place:
    """The files of a case, and how they are named to geopsp."""

    def __init__(self, desk, name, how, monkeypatch):
        self.desk, self.name, self.how = desk, name, how
        models.load_echoes(monkeypatch)
        self.chdir = monkeypatch.chdir
        self.raster = rasters.write_raster(desk.inputs, PLAIN)
        self.image = Path(self.raster.path)
        self.labels = ground.labels_of(self.raster.transform, self.raster.crs)

    @property
    def by_shell(self):
        return self.how.startswith("shell")

    def given(self, path):
        """The path as a user gives it: relative to its folder, where the name stands alone."""
        if "relative" not in self.how:
            return str(path)
        self.chdir(path.parent)
        return path.name

    def renamed(self, path, name):
        """Rename an input, with what lies beside it."""
        target = path.with_name(name + path.suffix)
        for file in sorted(path.parent.glob(f"{path.stem}.*")):
            file.rename(path.with_name(name + file.name[len(path.stem) :]))
        return target

    def write_labels(self, ending, **options):
        path = self.desk.inputs / f"labels.{ending}"
        if ending == "parquet":
            self.labels.to_parquet(path)
        else:
            pyogrio.write_dataframe(self.labels, path, **options)
        return path

    def model(self, name="model"):
        cell = {"cell": 10.0}
        return models.save_echo(self.desk.inputs / "model", BANDS, **cell).rename(self.desk.inputs / name)

    def chips(self, image=None, labels=None, out=None, **options):
        out = out or self.desk.outputs / "chips"
        image, field = image or str(self.image), {} if "class_field" in options else {"class_field": "kind"}
        options = {name: value for name, value in (options | field).items() if value is not None}
        if self.by_shell:
            if labels is None:
                labels = self.write_labels("parquet")
            flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
            shell(self.desk, "chips", f"--labels={labels}", f"--out={out}", "--size=32", *flags, "--", image)
        else:
            geopsp.export_training_data(image, self.labels if labels is None else labels, out, tile_size=32, **options)

    def predict(self, image=None, out=None, model=None, **options):
        out = out or self.desk.outputs / "map.tif"
        image = image or str(self.image)
        if self.by_shell:
            flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
            shell(self.desk, "predict", f"--out={out}", *flags, "--", model or self.model(), image)
        else:
            geopsp.classify_pixels(image, model or models.Classifier(BANDS), out, **options)

    def polygonize(self, raster, out):
        if self.by_shell:
            shell(self.desk, "polygonize", f"--out={out}", "--", raster)
        else:
            geopsp.raster_to_polygons(raster, out)

    def class_raster(self):
        path = self.desk.inputs / "classes.tif"
        codes = (np.indices(SIZE).sum(axis=0) // 20 % 3 + 1).astype("uint8")
        profile = {"driver": "GTiff", "height": SIZE[0], "width": SIZE[1], "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", crs=self.raster.crs, transform=self.raster.transform, **profile) as dataset:
            dataset.write(codes, 1)
        return path, codes

    # what must come out

    def check_chips(self, out=None, names=None):
        chips = geopsp.ChipSet.open(out or self.desk.outputs / "chips")
        found = ground.pasted_chips(chips, self.raster.transform, SIZE)
        expected, sure = ground.label_names(*SIZE)
        by_name = {info.name: info.code for info in chips.legend}
        names = names or {}
        expected = np.vectorize(lambda name: by_name[names.get(name, name)], otypes=[int])(expected)
        ground.same(found["codes"], expected, sure, "labels")
        ground.same(found["data"], self.raster.readings[0].data, EVERYWHERE, "pixels")

    def check_map(self, path=None, inside=EVERYWHERE, sure=EVERYWHERE):
        path = path or self.desk.outputs / "map.tif"
        with rasterio.open(self._plain_copy(path)) as dataset:
            ground.same(dataset.read(1), models.codes_of(self.raster.readings[0].data[0], inside), sure, "classes")

    def check_polygons(self, path, codes):
        copy = self._plain_copy(path)
        if copy.suffix == ".parquet":
            frame = gpd.read_parquet(copy)
        else:
            layers = pyogrio.list_layers(copy)[:, 0].tolist()
            frame = gpd.read_file(copy, layer=next(name for name in layers if name != "layer_styles"))
        frame = frame.to_crs(self.raster.crs.to_wkt())
        pairs = zip(frame.geometry, frame["code"], strict=True)
        found = rasterio.features.rasterize(pairs, SIZE, fill=255, transform=self.raster.transform, dtype="uint8")
        ground.same(found, codes, EVERYWHERE, "polygons")

    def _plain_copy(self, path):
        """A file under a name that every library reads, with what lies beside it."""
        assert path.exists(), f"{path.name!r} is missing; there are {sorted(p.name for p in path.parent.iterdir())}"
        folder = self.desk.outputs.parent / "copy"
        folder.mkdir()
        stem = path.name.removesuffix(path.suffix)
        for file in path.parent.iterdir():
            if file.is_file() and file.name.startswith(f"{stem}."):
                shutil.copy(file, folder / f"copy{file.name[len(stem) :]}")
        return folder / f"copy{path.suffix}"


def image_of_chips(place):
    image = place.renamed(place.image, place.name)
    return lambda: place.chips(image=place.given(image)), place.check_chips


def image_of_map(place):
    image = place.renamed(place.image, place.name)
    return lambda: place.predict(image=place.given(image)), place.check_map


def image_in_folder(place):
    folder = place.desk.inputs / place.name
    folder.mkdir()
    place.image.rename(folder / "image.tif")
    return lambda: place.predict(image=place.given(folder)), place.check_map


def map_of_each_image(place):
    image, out = place.renamed(place.image, place.name), place.desk.outputs / "maps"

    def act():
        if place.by_shell:
            shell(place.desk, "predict", f"--out={out}", "--per-image", "--", place.model(), place.given(image))
        else:
            geopsp.classify_pixels([place.given(image)], models.Classifier(BANDS), out, per_image=True)

    def check():
        (path,) = (path for path in out.iterdir() if path.suffix == ".tif")
        place.check_map(path)

    return act, check


def info_of_image(place):
    image = place.renamed(place.image, place.name)

    def act():
        name = place.given(image)
        place.text = shell(place.desk, "info", "--", name)

    def check():
        assert "72 x 56" in place.text

    return act, check


def labels_in(ending, **options):
    def role(place):
        labels = place.renamed(place.write_labels(ending, **options), place.name)
        return lambda: place.chips(labels=place.given(labels)), place.check_chips

    return role


def label_raster(place):
    path, codes = place.class_raster()
    path = place.renamed(path, place.name)

    def check():
        found = ground.pasted_chips(geopsp.ChipSet.open(place.desk.outputs / "chips"), place.raster.transform, SIZE)
        ground.same(found["codes"], codes, EVERYWHERE, "labels")

    return lambda: place.chips(labels=place.given(path), class_field=None), check


def layer(place):
    path = place.write_labels("gpkg", layer="other")
    try:
        pyogrio.write_dataframe(place.labels, path, layer=place.name)
    except (ValueError, RuntimeError, UnicodeError):
        pytest.skip("no such layer can be written")
    return lambda: place.chips(labels=f"{place.given(path)}|layername={place.name}"), place.check_chips


def area_of_interest(place):
    left, bottom, _, top = rasterio.transform.array_bounds(*SIZE, place.raster.transform)
    place.labels = gpd.GeoDataFrame(geometry=[shapely.box(left, bottom, left + 303, top)], crs=place.labels.crs)
    area = place.renamed(place.write_labels("gpkg"), place.name)
    inside = np.zeros(SIZE, bool)
    inside[:, :30] = True
    return lambda: place.predict(aoi=place.given(area)), lambda: place.check_map(inside=inside)


def class_mapping(place):
    path = place.desk.inputs / f"{place.name}.yaml"
    path.write_text("water: pond\n")
    return lambda: place.chips(class_mapping=place.given(path)), lambda: place.check_chips(names={"water": "pond"})


def class_name(place):
    name = place.name.strip()
    place.labels["kind"] = place.labels["kind"].replace("water", place.name)

    def check():
        names = geopsp.ChipSet.open(place.desk.outputs / "chips").legend.names
        forms = {name, unicodedata.normalize("NFC", name), " ".join(name.split())}
        (kept,) = forms & {*names}
        place.check_chips(names={"water": kept})

    return place.chips, check


def field_name(place):
    place.labels = place.labels.rename(columns={"kind": place.name})
    return lambda: place.chips(class_field=place.name), place.check_chips


def chips_out(place):
    out = place.desk.outputs / place.name
    return lambda: place.chips(out=place.given(out)), lambda: place.check_chips(out)


def map_out(place):
    out = place.desk.outputs / f"{place.name}.tif"
    return lambda: place.predict(out=place.given(out)), lambda: place.check_map(out)


def map_in_folder(place):
    out = place.desk.outputs / place.name / "map.tif"
    out.parent.mkdir()
    return lambda: place.predict(out=place.given(out)), lambda: place.check_map(out)


def map_with_polygons(place):
    """The polygons of a map, which are written last."""
    out = place.desk.outputs / f"{place.name}.gpkg"

    def check():
        place.check_polygons(out, models.codes_of(place.raster.readings[0].data[0], EVERYWHERE))

    return lambda: place.predict(polygons=place.given(out)), check


def polygons_out(ending):
    def role(place):
        path, codes = place.class_raster()
        out = place.desk.outputs / f"{place.name}.{ending}"
        return lambda: place.polygonize(path, place.given(out)), lambda: place.check_polygons(out, codes)

    return role


def polygons_in_folder(place):
    path, codes = place.class_raster()
    out = place.desk.outputs / place.name / "polygons.gpkg"
    out.parent.mkdir()
    return lambda: place.polygonize(path, place.given(out)), lambda: place.check_polygons(out, codes)


def polygons_of(place):
    path, codes = place.class_raster()
    path, out = place.renamed(path, place.name), place.desk.outputs / "polygons.gpkg"
    return lambda: place.polygonize(place.given(path), out), lambda: place.check_polygons(out, codes)


def model(place):
    folder = place.model(place.name)
    return lambda: place.predict(model=place.given(folder)), place.check_map


ROLES = {
    "image-of-chips": image_of_chips, "image-of-map": image_of_map, "folder-of-images": image_in_folder,
    "per-image": map_of_each_image, "info": info_of_image, "labels.gpkg": labels_in("gpkg"),
    "labels.geojson": labels_in("geojson"), "labels.shp": labels_in("shp"), "labels.parquet": labels_in("parquet"),
    "label-raster": label_raster, "layer": layer, "aoi": area_of_interest, "class-mapping": class_mapping,
    "class": class_name, "field": field_name, "chips-out": chips_out, "map-out": map_out,
    "map-in-folder": map_in_folder, "map-and-polygons": map_with_polygons, "out.gpkg": polygons_out("gpkg"),
    "out.geojson": polygons_out("geojson"), "out.parquet": polygons_out("parquet"), "out.fgb": polygons_out("fgb"),
    "out.shp": polygons_out("shp"), "out-in-folder": polygons_in_folder, "class-raster": polygons_of, "model": model,
}  # fmt: skip

OUTPUTS = {"chips-out": "", "map-out": ".tif", "map-and-polygons": ".gpkg"} | {
    name: name.removeprefix("out") for name in ROLES if name.startswith("out.")
}
"""The endings of outputs that carry the name."""

NO_FILE = {"class", "field", "layer"}
"""What is a name of no file."""

CASES = [
    pytest.param(role, name, HOWS[zlib.crc32(f"{role} {name}".encode()) % len(HOWS)], id=f"{role},{name}")
    for role in ROLES
    for name in NAMES
]


@pytest.mark.parametrize(("role", "name", "how"), CASES)
def test_name(role, name, how, desk, hold, monkeypatch):
    if how.startswith("shell") and name == "latin-1":
        how = how.replace("shell", "python")  # the shell's runner takes text
    if name == "latin-1" and role in NO_FILE:
        pytest.skip("only names of files are bytes")
    place = Place(desk, NAMES[name], how, monkeypatch)
    if role in OUTPUTS and name not in {"long", "too-long"}:
        lay_bait(desk.outputs, NAMES[name] + OUTPUTS[role])
    try:
        act, check = ROLES[role](place)
    except OSError as error:
        pytest.skip(f"this system has no such name: {error}")
    except UnicodeError:
        pytest.skip("no such name can be written")
    if place.by_shell:
        _prepare(place, role)
    refusable = "a name that other programs take for something else" if name in HARD else ""
    hold(f"names: {'shell' if place.by_shell else 'Python'}", act, lambda _: check(), Expected(refusable))


def _prepare(place, role):
    """Write what the shell needs before the inputs are looked at."""
    if role != "model":
        saved = place.model("a model")
        place.model = lambda name="model": saved
    if role in {"image-of-chips", "class-mapping", "class", "field", "chips-out"}:
        written = place.write_labels("parquet")
        place.write_labels = lambda ending, **options: written
