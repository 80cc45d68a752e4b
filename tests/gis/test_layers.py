"""What geopsp writes opens in QGIS itself with the names and colours of its classes, without a click."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from onnx_common import GOLDEN, MODEL
from qgis_common import run_pyqgis

from geopsp import classify_pixels, compare_maps, draw_sample, raster_to_polygons
from geopsp.core.legend import Legend
from geopsp.raster.legend_io import read_legend, write_class_files
from geopsp.raster.raster_style import SURE_TO_UNSURE
from geopsp.vector.label_package import STATUSES, write_label_package

pytestmark = pytest.mark.slow

WHITE = (255, 255, 255)

HOSTILE = 'Wald & "Wiese" <b>Äß</b>'

LAYERS = """
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

def describe(path, name, picture):
    is_raster = path.partition("|")[0].endswith(".tif")
    layer = QgsRasterLayer(path, name) if is_raster else QgsVectorLayer(path, name, "ogr")
    if not layer.isValid():
        return None
    renderer = layer.renderer()
    found = {"type": renderer.type()}
    if is_raster:
        items = [(label, QColor(color).name()) for label, color in renderer.legendSymbologyItems()]
        found["bands"] = [layer.bandName(number) for number in range(1, layer.bandCount() + 1)]
        found["shown"] = renderer.usesBands()
        size = QSize(layer.width(), layer.height())
    else:
        items = [(item.label(), item.symbol().color().name()) for item in renderer.legendSymbolItems()]
        size = QSize(640, 560)
        found["forms"] = {
            field.name(): [layer.editorWidgetSetup(at).type(), layer.editorWidgetSetup(at).config()]
            for at, field in enumerate(layer.fields())
        }
        found["read_only"] = [
            field.name() for at, field in enumerate(layer.fields()) if layer.editFormConfig().readOnly(at)
        ]
    found["legend"] = items
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent() if is_raster else QgsRectangle(*AREA))
    settings.setOutputSize(size)
    settings.setBackgroundColor(QColor("white"))
    settings.setFlag(QgsMapSettings.Antialiasing, False)
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)
    return found

AREA = json.loads(sys.argv[2])
answer({name: describe(path, name, picture) for name, path, picture in json.loads(sys.argv[3])})
"""


def opened_in_qgis(paths, folder, area=(0, 0, 1, 1)):
    """What QGIS says of layers by name, each with the pixels that it draws, (rows, cols, 3).

    Each is opened beside its sidecars in a copy of the folder, as QGIS writes statistics beside rasters.
    """
    pictures = folder / "pictures"
    pictures.mkdir()
    named = [(name, str(path), str(pictures / f"{name}.png")) for name, path in paths.items()]
    found = run_pyqgis(LAYERS, json.dumps(area), json.dumps(named), home=folder)
    for name, _, picture in named:
        if found[name] is not None:
            with rasterio.open(picture) as dataset:
                found[name]["pixels"] = np.moveaxis(dataset.read()[:3], 0, 2)
    return found


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Everything that is made of a scene, with a class that has a hostile name; and what QGIS says of it."""
    folder = tmp_path_factory.mktemp("products")
    shutil.copy(GOLDEN / "scene.tif", folder)
    extra = {name: folder / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    path = classify_pixels(folder / "scene.tif", MODEL, folder / "map.tif", polygons=folder / "map.gpkg", **extra)
    classify_pixels(
        folder / "scene.tif",
        MODEL,
        folder / "half.tif",
        probabilities=folder / "float16.tif",
        probability_type="float16",
    )
    for name in ("map.fgb", "flat.shp", "table.parquet", "text.geojson"):
        raster_to_polygons(path, folder / name)
    compare_maps(path, shifted_map(path, folder / "later.tif"), folder / "change.tif", polygons=folder / "change.gpkg")
    draw_sample(path, folder / "points.gpkg", size=60, seed=1)
    names = ["map.tif", *(each.name for each in extra.values()), "float16.tif", "map.gpkg", "map.fgb", "flat.shp",
             "table.parquet", "text.geojson", "change.tif", "change.gpkg"]  # fmt: skip
    layers = {name: folder / name for name in names} | {"points": f"{folder / 'points.gpkg'}|layername=points"}
    with rasterio.open(path) as dataset:
        found = opened_in_qgis(layers, folder, dataset.bounds)
    return folder, found


def shifted_map(path, target):
    """A copy of a map, moved by some columns, so that ground changes."""
    with rasterio.open(path) as source:
        data, profile, tags = source.read(), source.profile, source.tags()
    profile = {key: profile[key] for key in ("dtype", "count", "width", "height", "crs", "transform", "nodata")}
    with rasterio.open(target, "w", driver="GTiff", **profile) as dataset:
        dataset.write(np.roll(data, 40, axis=2))
        dataset.update_tags(**tags)
    return target


def drawn(legend, codes):
    """The pixels that a class raster should have on white paper, (rows, cols, 3)."""
    table = np.full((256, 3), 255, np.uint8)
    for info in legend:
        if info.alpha:
            table[info.code] = info.rgb
    return table[codes]


def band(path, number=1):
    with rasterio.open(path) as dataset:
        return dataset.read(number)


@pytest.mark.parametrize("name", ["map.tif", "change.tif"])
def test_each_pixel_of_a_class_raster_has_the_colour_of_its_class(name, products):
    folder, found = products
    legend = read_legend(folder / name)
    assert found[name]["type"] == "paletted"
    assert found[name]["legend"] == [[info.name, info.color] for info in legend]
    np.testing.assert_array_equal(found[name]["pixels"], drawn(legend, band(folder / name)))


@pytest.mark.parametrize("name", ["map.gpkg", "map.fgb", "flat.shp", "table.parquet", "text.geojson"])
def test_polygons_have_the_colours_of_the_map(name, products):
    """map.fgb has its style in the same map.qml as map.tif."""
    folder, found = products
    if found[name] is None and name == "table.parquet":
        pytest.skip("this QGIS reads no GeoParquet")
    legend = read_legend(folder / "map.tif")
    assert found[name]["type"] == "categorizedSymbol"
    assert found[name]["legend"] == [[info.name, info.color] for info in legend]
    if name == "text.geojson":
        return  # in WGS 84, drawn elsewhere
    same = (found[name]["pixels"] == drawn(legend, band(folder / "map.tif"))).all(axis=2)
    assert same.mean() > 0.97  # but for outlines, which are a tenth of a millimetre wide


def test_polygons_of_change_have_the_colours_of_the_raster(products):
    folder, found = products
    colors = {info.name: info.color for info in read_legend(folder / "change.tif")}
    legend = dict(found["change.gpkg"]["legend"])
    assert len(legend) > 1
    assert legend.items() <= colors.items()


@pytest.mark.parametrize("name", ["probabilities.tif", "float16.tif"])
def test_probabilities_show_the_first_class_in_its_colour(name, products):
    """The more probable, the more of the colour of the class and the less of what lies below."""
    folder, found = products
    legend = read_legend(folder / "map.tif")
    shown = found[name]
    assert shown["type"] == "singlebandpseudocolor"
    assert shown["bands"] == [f"Band {number}: {name}" for number, name in enumerate(legend.names, 1)]
    assert (shown["shown"], legend.names[1]) == ([2], "forest")
    assert shown["legend"] == [["0", legend.classes[1].color], ["1", legend.classes[1].color]]
    if name == "float16.tif":
        share = band(folder / name, 2).astype(float)
    else:
        stored = band(folder / name, 2)
        share = np.where(stored == 255, np.nan, stored / 254)
    color, share = np.array(legend.classes[1].rgb), np.nan_to_num(share)[..., None]
    np.testing.assert_allclose(shown["pixels"], 255 + (color - 255) * share, atol=3)


@pytest.mark.parametrize(
    ("name", "colors"), [("confidence.tif", SURE_TO_UNSURE[::-1]), ("disagreement.tif", SURE_TO_UNSURE)]
)
def test_what_is_unsure_is_darker(name, colors, products):
    folder, found = products
    shown, stored = found[name], band(folder / name)
    assert shown["type"] == "singlebandpseudocolor"
    assert [color for _, color in shown["legend"]] == list(colors)
    doubt = (254 - stored.astype(int)) if name == "confidence.tif" else stored.astype(int)
    green = shown["pixels"][..., 1].astype(int)  # falls all the way from pale yellow to dark red
    by_doubt = [green[(doubt == step) & (stored != 255)].mean() for step in np.unique(doubt[stored != 255])]
    assert len(by_doubt) > 20
    assert (np.diff(by_doubt) <= 0).all()
    assert (shown["pixels"][stored == 255] == 255).all()


def test_the_form_of_a_sample_offers_the_classes_and_hides_the_map(products):
    folder, found = products
    forms = found["points"]["forms"]
    kind, config = forms["reference"]
    choices = [next(iter(choice.items())) for choice in config["map"]]
    names = read_legend(folder / "map.tif").names
    assert kind == "ValueMap"
    assert choices[0][0] == "(cannot tell)"
    assert choices[1:] == [(name, name) for name in names]
    visible = {name for name, (kind, _) in forms.items() if kind != "Hidden"}
    assert visible == {"id", "reference", "note"}
    assert not {"reference", "note"} & set(found["points"]["read_only"])
    assert set(forms) - {"reference", "note"} == set(found["points"]["read_only"])
    assert [label for label, _ in found["points"]["legend"]] == ["labelled", "not labelled"]
    assert found["points"]["type"] == "RuleRenderer"


def test_labels_of_a_sample_that_people_gave_differ_from_the_others(products):
    _, found = products
    colors = {tuple(bytes.fromhex(color[1:])) for _, color in found["points"]["legend"][1:]}
    drawn_colors = set(map(tuple, found["points"]["pixels"].reshape(-1, 3).tolist()))
    assert colors <= drawn_colors  # none is labelled yet
    (labelled,) = (tuple(bytes.fromhex(color[1:])) for _, color in found["points"]["legend"][:1])
    assert labelled not in drawn_colors


def test_windows_to_label_and_their_polygons_have_forms_of_their_own(tmp_path):
    windows = gpd.GeoDataFrame(
        {"rank": [1, 2], "status": ["open", "done"]},
        geometry=[shapely.box(0, 0, 50, 50), shapely.box(50, 0, 100, 50)], crs="EPSG:32632",
    )  # fmt: skip
    legend = Legend.from_names({0: "water", 1: HOSTILE})
    labels = gpd.GeoDataFrame({"class": [HOSTILE]}, geometry=[shapely.box(10, 10, 20, 20)], crs="EPSG:32632")
    path = tmp_path / "next.gpkg"
    write_label_package(path, windows, labels, list(legend), overwrite=False)
    layers = {name: f"{path}|layername={name}" for name in ("windows", "labels", "aoi")}
    found = opened_in_qgis(layers, tmp_path, (0, 0, 100, 50))
    assert found["windows"]["legend"] == [[info.name, info.color] for info in STATUSES]
    assert found["labels"]["legend"] == [[info.name, info.color] for info in legend]
    for layer, field, names in (
        ("windows", "status", [info.name for info in STATUSES]),
        ("labels", "class", legend.names),
    ):
        kind, config = found[layer]["forms"][field]
        assert kind == "ValueMap"
        assert [next(iter(choice.items())) for choice in config["map"]] == [(name, name) for name in names]
    assert found["aoi"] is not None
    middle = found["labels"]["pixels"][344, 96]  # at (15, 15), in the polygon
    assert tuple(middle) == legend.classes[1].rgb


def test_a_form_filled_in_by_qgis_is_read(products, tmp_path):
    """Labels that QGIS saves through its provider are the labels of the sample."""
    folder, _ = products
    path = tmp_path / "points.gpkg"
    shutil.copy(folder / "points.gpkg", path)
    script = """
layer = QgsVectorLayer(sys.argv[2] + "|layername=points", "points", "ogr")
at = layer.fields().indexFromName("reference")
choices = [list(choice.values())[0] for choice in layer.editorWidgetSetup(at).config()["map"]]
layer.startEditing()
for number, feature in enumerate(layer.getFeatures()):
    value = choices[number % len(choices)]
    layer.changeAttributeValue(feature.id(), at, None if value == QgsValueMapFieldFormatter.NULL_VALUE else value)
answer([layer.commitChanges(), choices[0] == QgsValueMapFieldFormatter.NULL_VALUE])
"""
    assert run_pyqgis(script, path, home=tmp_path) == [True, True]
    with closing(sqlite3.connect(path)) as base:
        rows = dict(base.execute("SELECT ifnull(reference, '-'), count(*) FROM points GROUP BY reference").fetchall())
    assert rows == {"-": 15, "background": 15, "forest": 15, "water": 15}


def test_names_that_strangers_chose_are_shown_as_they_are(tmp_path):
    names = {0: HOSTILE, 3: "a'b\\c; DROP TABLE", 200: "森林 %1 $(x)"}
    codes = np.repeat(np.array([0, 3, 200], np.uint8), 40)[None].repeat(60, axis=0)
    profile = {"crs": "EPSG:32632", "transform": rasterio.Affine(2, 0, 600_000, 0, -2, 5_300_000), "nodata": 255}
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", dtype="uint8", count=1, width=120, height=60, **profile
    ) as dataset:
        dataset.write(codes, 1)
    legend = Legend.from_names(names)
    write_class_files(tmp_path / "map.tif", legend)
    for name in ("shapes.gpkg", "flat.shp"):
        raster_to_polygons(tmp_path / "map.tif", tmp_path / name)
    found = opened_in_qgis({name: tmp_path / name for name in ("map.tif", "shapes.gpkg", "flat.shp")}, tmp_path)
    for shown in found.values():
        assert shown["legend"] == [[info.name, info.color] for info in legend]
    np.testing.assert_array_equal(found["map.tif"]["pixels"], drawn(legend, codes))
