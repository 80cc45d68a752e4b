"""Names of any kind go through all steps, and come out of every file as they went in."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import tifffile
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from names_common import NASTY, is_safe, names
from rasterio.transform import from_origin

from geopsp.cli.commands import main
from geopsp.core.escape import printable, printable_lines, xml_text
from geopsp.labels.look_alikes import canonical_text

mpl.use("agg")

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # not every font has every letter

SIZE, TILE = 128, 32


def run(*arguments):
    """Run a command that succeeds, and return what it prints as a result; nothing controls the terminal."""
    result = CliRunner().invoke(main, list(map(str, arguments)), color=False)
    assert result.exit_code == 0, result.output
    assert is_safe(result.stdout)
    assert is_safe(result.stderr)
    return result.stdout


def file_name(text):
    """A name that a file can have."""
    return text.replace("/", "_").replace("\0", "_").strip(".")[:40] or "_"


short = names.map(lambda text: text.replace("\0", "").replace("`", "'")[:40]).filter(canonical_text)
"""Without NUL, where GDAL ends texts, and the marks of what the shell puts into its own words."""


@st.composite
def worlds(draw):
    """Names of classes, bands, a layer, a field, folder and files."""
    return {
        "classes": draw(
            st.lists(short, min_size=2, max_size=2, unique_by=lambda text: canonical_text(text).casefold())
        ),
        "bands": draw(st.lists(short, min_size=3, max_size=3)),
        "layer": draw(short),
        "field": draw(short),
        "folder": file_name(draw(short)),
        "file": file_name(draw(short)),
    }


def world(*chosen):
    """A world of given names, in order."""
    first, second, *bands, layer, field, folder, file = (NASTY[number].replace("\0", "") for number in chosen)
    return {"classes": [first, second], "bands": bands, "layer": layer, "field": field,
            "folder": file_name(folder), "file": file_name(file)}  # fmt: skip


def make_inputs(place, folder):
    """An image with a class in each half, and its labels."""
    scene, labels = folder / f"{place['file']}.tif", folder / f"{place['file']}.geojson"
    truth = np.repeat([[0, 1]], SIZE // 2, axis=1).repeat(SIZE, axis=0)
    noise = np.random.default_rng(0).integers(0, 20, (3, SIZE, SIZE))
    where = from_origin(600000, 5300000, 1, 1)
    with rasterio.open(scene, "w", driver="GTiff", width=SIZE, height=SIZE, count=3, dtype="uint8", crs="EPSG:32632",
                       transform=where) as dataset:  # fmt: skip
        dataset.write((truth * 150 + noise).astype("uint8"))
        dataset.descriptions = place["bands"]
    halves = [shapely.box(600000 + x, 5300000 - SIZE, 600000 + x + SIZE // 2, 5300000) for x in (0, SIZE // 2)]
    content = {
        "type": "FeatureCollection",
        "name": place["layer"],
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}},
        "features": [
            {"type": "Feature", "properties": {place["field"]: name}, "geometry": shapely.geometry.mapping(half)}
            for name, half in zip(place["classes"], halves, strict=True)
        ],
    }
    labels.write_text(json.dumps(content), encoding="utf-8")
    return scene, labels


def check_map(out, classes):
    """Every file of the map holds the names."""
    with tifffile.TiffFile(out) as file:
        page = file.pages[0]
        items = ET.fromstring(page.tags["GDAL_METADATA"].value)
        tag = next(item for item in items if item.get("name") == "GEOPSP_CLASSES")
        assert [row["name"] for row in json.loads(unescape(tag.text))] == classes  # GDAL escapes twice
    with rasterio.open(out) as dataset:
        assert [row["name"] for row in json.loads(dataset.tags()["GEOPSP_CLASSES"])] == classes
    table = ET.parse(out.with_name(f"{out.name}.aux.xml"))
    assert [row.findall("F")[1].text for row in table.iter("Row")] == [xml_text(name) for name in classes]
    style = ET.parse(out.with_suffix(".qml"))
    assert [entry.get("label") for entry in style.iter("paletteEntry")] == [xml_text(name) for name in classes]


def check_polygons(path, classes):
    layer = path.stem
    with closing(sqlite3.connect(path)) as base:
        ((table,),) = base.execute("SELECT table_name FROM gpkg_contents WHERE data_type = 'features'").fetchall()
        quoted = table.replace('"', '""')
        found = {name for (name,) in base.execute(f'SELECT name FROM "{quoted}"')}
        ((name, text),) = base.execute("SELECT f_table_name, styleQML FROM layer_styles").fetchall()
    assert layer.endswith(table) or not table
    assert found <= set(classes)
    assert name == table
    labels = {category.get("label") for category in ET.fromstring(text).iter("category")}
    assert labels == {xml_text(name) for name in found}


class Content(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.links = set(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        self.links += [value for name, value in attributes if name in {"src", "href"}]

    def handle_data(self, data):
        self.texts.append(data)


def test_names_go_through_all_steps():
    in_folder(world(10, 15, 14, 12, 23, 25, 4, 16, 0))


@pytest.mark.slow
@given(place=worlds())
@settings(max_examples=5)
@example(place=world(0, 5, 9, 16, 17, 8, 7, 20, 6))
@example(place=world(7, 27, 28, 29, 34, 13, 19, 18, 3))
def test_any_names_go_through_all_steps(place):
    in_folder(place)


def in_folder(place):
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / place["folder"]
        folder.mkdir()
        go_through(place, folder)


def go_through(place, folder):
    scene, labels = make_inputs(place, folder)
    chips, model, out = folder / "chips", folder / "model", folder / f"{place['file']}-map.tif"
    background = ["background"]
    classes = background + sorted({canonical_text(name) for name in place["classes"][:2]})
    shown = run("chips", scene, "--labels", f"{labels}|layername={place['layer']}", "--class-field", place["field"],
                "--out", chips, "--size", TILE, "--json", folder / "r.json", "--picture", folder / "p.png")  # fmt: skip
    assert all(printable(name) in shown for name in classes)
    manifest = json.loads((chips / "chips.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in manifest["legend"]] == classes
    run("train", chips, "--out", model, "--backbone", "tu-test_resnet", "--epochs", 1, "--lr", 1e-3, "--no-unet",
        "--weights", "none", "--batch-size", 4)  # fmt: skip
    assert [row["name"] for row in json.loads((model / "model.json").read_text())["classes"]] == classes
    for row in csv.reader((model / "history.csv").read_text(encoding="utf-8").splitlines()):
        assert not any(cell[:1] in set("=+-@\t\r") and not cell[1:2].isdigit() for cell in row)
    run("evaluate", model, chips, "--json", folder / "scores.json")
    assert json.loads((folder / "scores.json").read_text())["confusion"]["classes"] == classes
    polygons = folder / f"{place['file']}-map.gpkg"
    run("predict", model, scene, "--out", out, "--probabilities", folder / "p.tif", "--polygons", polygons)
    check_map(out, classes)
    with rasterio.open(folder / "p.tif") as dataset:
        assert list(dataset.descriptions) == [xml_text(name) for name in classes]
    check_polygons(polygons, classes)
    run("polygonize", out, "--out", folder / "p.parquet")
    assert set(pq.read_table(folder / "p.parquet", columns=["name"])["name"].to_pylist()) <= set(classes)
    run("polygonize", out, "--out", folder / "p.geojson")
    features = json.loads((folder / "p.geojson").read_text(encoding="utf-8"))["features"]
    assert {feature["properties"]["name"] for feature in features} <= set(classes)
    for path in (scene, labels, chips, model, out, polygons, folder):
        run("info", path)
        found = json.loads(run("info", "--json", path))
        if path in {model, out}:
            assert [row["name"] for row in found["classes"]] == classes
    check_report(model, chips, scene, folder, classes)


def check_report(model, chips, scene, folder, classes):
    out = folder / "report.html"
    run("report", model, "--chips", chips, "--map", next(folder.glob("*-map.tif")), "--images", scene, "--out", out)
    for page in (out, model / "report.html"):
        content = Content()
        content.feed(page.read_text(encoding="utf-8"))
        content.close()
        assert {printable_lines(name.split("\n")) for name in classes} <= set(content.texts)
        assert all(link.startswith(("data:image/", "#")) for link in content.links)
