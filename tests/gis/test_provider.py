"""The plugin, installed from its ZIP in a real QGIS, runs the real geopsp."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from common import REPOSITORY
from onnx_common import GOLDEN, MODEL
from qgis_common import SECONDS, find_qgis_process, qgis_environment, require_qgis, run_pyqgis

from geopsp import classify_pixels, draw_sample
from geopsp.raster.legend_io import read_legend

pytestmark = pytest.mark.slow

PROFILE = ".local/share/QGIS/QGIS3/profiles/default/python/plugins"


@dataclass(frozen=True)
class Installed:
    """A QGIS with the plugin."""

    home: Path

    @property
    def program(self) -> Path:
        return self.home / "env" / "bin" / "geopsp"

    @property
    def plugins(self) -> Path:
        return self.home / PROFILE

    def qgis_process(self, *args, path=True):
        """Run qgis_process; geopsp is on PATH, or nowhere."""
        environment = qgis_environment(self.home)
        environment["PATH"] = (f"{self.program.parent}:" if path else "") + "/usr/bin:/bin"
        return subprocess.run(
            [find_qgis_process(), *map(str, args)], env=environment, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip

    def run(self, name, **parameters):
        """Run an algorithm; return its results."""
        words = [f"{key}={value}" for key, value in parameters.items()]
        done = self.qgis_process("run", "--json", f"geopsp:{name}", "--", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def error(self, name, **parameters):
        """Run an algorithm that fails; return what it says."""
        words = [f"{key}={value}" for key, value in parameters.items()]
        done = self.qgis_process("run", f"geopsp:{name}", "--", *words)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        return done.stderr

    def script(self, text, *args):
        """Run a script in PyQGIS, with Processing and the provider."""
        return run_pyqgis(PROCESSING + text, self.plugins, self.program, *args, home=self.home)


PROCESSING = """
sys.path += ["/usr/share/qgis/python/plugins", sys.argv[2]]
import processing
from processing.core.Processing import Processing
from processing.core.ProcessingConfig import ProcessingConfig
Processing.initialize()
from geopsp_processing import classFactory
plugin = classFactory(None)
plugin.initProcessing()
ProcessingConfig.setSettingValue("GEOPSP_PROGRAM", sys.argv[3])

class Feedback(QgsProcessingFeedback):
    def __init__(self):
        super().__init__()
        self.steps, self.warnings, self.told, self.errors = [], [], [], []
    def setProgressText(self, text):
        self.steps.append(text)
    def pushWarning(self, text):
        self.warnings.append(text)
    def pushConsoleInfo(self, text):
        self.told.append(text)
    def reportError(self, text, is_fatal=False):
        self.errors.append(text)

def error_of(name, parameters):
    feedback = Feedback()
    try:
        processing.run("geopsp:" + name, parameters, feedback=feedback)
    except QgsProcessingException as error:  # of a run; what is wrong before is reported alone
        return (feedback.errors or [str(error)])[0]
"""


@pytest.fixture(scope="module")
def qgis(tmp_path_factory):
    require_qgis()
    installed = Installed(tmp_path_factory.mktemp("home"))
    archive = installed.home / "plugin.zip"
    subprocess.run([sys.executable, REPOSITORY / "qgis" / "make_zip.py", archive], check=True, capture_output=True)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(installed.plugins)
    installed.program.parent.mkdir(parents=True)
    words = shlex.join([sys.executable, "-m", "geopsp.cli"])
    installed.program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(REPOSITORY))} exec {words} "$@"\n')
    installed.program.chmod(0o755)
    done = installed.qgis_process("plugins", "enable", "geopsp_processing")
    assert "Enabled geopsp_processing" in done.stdout, done.stdout + done.stderr
    return installed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A scene and its map, in a folder with a difficult name."""
    folder = tmp_path_factory.mktemp("wörld") / "my 'data'"
    folder.mkdir()
    shutil.copy(GOLDEN / "scene.tif", folder)
    classify_pixels(folder / "scene.tif", MODEL, folder / "map.tif", confidence=folder / "confidence.tif")
    return folder


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_qgis_lists_the_algorithms_with_their_help(qgis):
    listed = qgis.qgis_process("list").stdout
    for name in ("predict", "polygonize", "sample", "assess"):
        assert f"geopsp:{name}\t" in listed
    helped = qgis.qgis_process("help", "geopsp:predict").stdout
    assert "Classify images with a model that geopsp trained" in helped
    assert "model.json in the folder of a saved model" in helped


def test_predict_gives_the_map_of_geopsp(qgis, world, tmp_path):
    outputs = {"OUTPUT": "map.tif", "CONFIDENCE": "confidence.tif", "PROBABILITIES": "p.tif", "POLYGONS": "p.gpkg"}
    outputs = {key: str(tmp_path / name) for key, name in outputs.items()}
    found = qgis.run("predict", MODEL=MODEL, IMAGES=world / "scene.tif", MIN_AREA=20, EXTRA="--batch-size 4", **outputs)
    assert found["results"] == outputs
    assert "Mapping" not in "".join(found["log"]["info"])  # steps are no messages
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif"), pixels(world / "map.tif"))
    np.testing.assert_array_equal(pixels(tmp_path / "confidence.tif"), pixels(world / "confidence.tif"))
    assert len(pixels(tmp_path / "p.tif")) == 3
    polygons = gpd.read_file(tmp_path / "p.gpkg", layer="p")
    assert set(polygons["name"]) == {"background", "forest", "water"}
    assert polygons.area.min() >= 20


def test_predict_takes_a_model_folder_an_extent_in_another_crs_and_an_area(qgis, world, tmp_path, make_labels):
    """An extent in degrees; its pixels are those of the whole map, inside of the area."""
    area = shapely.box(601400, 5301100, 601800, 5301500)
    make_labels("areas.gpkg", [area, shapely.box(0, 0, 1, 1)], {"use": [1, 0]}, layer="here")
    extent = "10.354,10.360,47.852,47.856 [EPSG:4326]"
    qgis.run(
        "predict", MODEL=GOLDEN / "model" / "model.json", IMAGES=world / "scene.tif", EXTENT=extent,
        AOI=f"{tmp_path / 'areas.gpkg'}|layername=here", OUTPUT=tmp_path / "part.tif", DEVICE="cpu",
        EXTRA="--precision fp32",
    )  # fmt: skip
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(world / "map.tif") as whole:
        row, col = whole.index(part.transform.c + 1, part.transform.f - 1)
        ours, theirs = part.read(1), whole.read(1)[row : row + part.height, col : col + part.width]
        assert part.width < whole.width / 2 + 100
    inside = ours != 255
    assert 0.05 < inside.mean() < 0.9
    assert (ours[inside] == theirs[inside]).mean() > 0.98  # tiles lie elsewhere


def test_polygonize_leaves_out_classes(qgis, world, tmp_path):
    found = qgis.run(
        "polygonize", RASTER=world / "map.tif", OUTPUT=tmp_path / "p.fgb", DROP="background", MIN_AREA=50, SIMPLIFY=1,
        CONFIDENCE=world / "confidence.tif", REGULARIZE="", DISSOLVE="false",
    )  # fmt: skip
    assert found["results"] == {"OUTPUT": str(tmp_path / "p.fgb")}
    polygons = gpd.read_file(tmp_path / "p.fgb")
    assert set(polygons["name"]) == {"forest", "water"}
    assert polygons["confidence"].between(0, 1).all()


SAMPLE_AND_ASSESS = """
folder, raster = sys.argv[4:6]
points = folder + "/points.gpkg"
feedback = Feedback()
drawn = processing.runAndLoadResults(
    "geopsp:sample", {"MAP": raster, "SIZE": 60, "SEED": 1, "OUTPUT": points}, feedback=feedback
)
(layer,) = QgsProject.instance().mapLayers().values()
at = layer.fields().indexFromName("reference")
found = {"layer": layer.source(), "form": layer.editorWidgetSetup(at).type(), "count": layer.featureCount()}
given = {"MAP": raster, "REFERENCE": layer, "HTML": folder + "/page.html", "JSON": folder + "/found.json"}
found["empty"] = error_of("assess", given)
layer.startEditing()
for feature in layer.getFeatures():
    layer.changeAttributeValue(feature.id(), at, feature["map_class"] if feature["id"] > 6 else "water")
found["unsaved"] = error_of("assess", given)
layer.commitChanges()
layer.setSubsetString("id > 3")
found["filter"] = error_of("assess", given)
layer.setSubsetString("")
found["results"] = processing.run("geopsp:assess", given, feedback=feedback)
found["steps"], found["kept"] = feedback.steps, list(feedback.warnings)
processing.run("geopsp:sample", {"MAP": raster, "SIZE": 20, "OUTPUT": "TEMPORARY_OUTPUT"}, feedback=feedback)
found["temporary"] = feedback.warnings
answer(found)
"""


def test_sample_and_assess(qgis, world, tmp_path):
    """Points open with their form; labels given in QGIS give an accuracy, once they are saved."""
    found = qgis.script(SAMPLE_AND_ASSESS, tmp_path, world / "map.tif")
    assert found["layer"].startswith(str(tmp_path / "points.gpkg"))
    assert (found["form"], found["count"]) == ("ValueMap", 60)
    assert "No point of points.gpkg has a reference label" in found["empty"]
    assert "name another field with 'Field with the true class'" in found["empty"]
    assert "has edits that are not saved" in found["unsaved"]
    assert "has a filter" in found["filter"]
    expected = json.loads((tmp_path / "found.json").read_text())["overall_accuracy"]["estimate"]
    assert 0.5 < expected < 1
    assert found["results"]["OVERALL_ACCURACY"] == expected
    assert "accuracy" in (tmp_path / "page.html").read_text()
    assert {"Sampling", "Assessing"} <= set(found["steps"])
    assert not [warning for warning in found["kept"] if "temporary file" in warning]
    assert [warning for warning in found["temporary"] if "temporary file" in warning]
    same = draw_sample(world / "map.tif", tmp_path / "same.gpkg", size=60, seed=1)
    drawn = gpd.read_file(tmp_path / "points.gpkg", layer="points")
    assert drawn.geometry.tolist() == same.points.geometry.tolist()


LOADED = """
folder, scene, model = sys.argv[4:7]
names = {"OUTPUT": "map.tif", "CONFIDENCE": "sure.tif", "PROBABILITIES": "each.tif", "POLYGONS": "shapes.gpkg"}
area = QgsVectorLayer("Polygon?crs=EPSG:32632", "drawn by hand", "memory")
feature = QgsFeature()
feature.setGeometry(QgsGeometry.fromWkt("POLYGON((601300 5301000, 602000 5301000, 602000 5301500, 601300 5301000))"))
area.dataProvider().addFeatures([feature])
feedback = Feedback()
image = QgsRasterLayer(scene, "my image")
QgsProject.instance().addMapLayer(image, False)
processing.runAndLoadResults(
    "geopsp:predict",
    {"MODEL": model, "IMAGES": [image], "AOI": area, **{key: folder + "/" + name for key, name in names.items()}},
    feedback=feedback,
)
found = {}
for layer in QgsProject.instance().mapLayers().values():
    if layer != image:
        renderer = layer.renderer()
        items = renderer.legendSymbologyItems() if layer.type() == QgsMapLayerType.RasterLayer else [
            (item.label(), None) for item in renderer.legendSymbolItems()]
        found[layer.name()] = [renderer.type(), [label for label, _ in items]]
answer([found, feedback.warnings, feedback.steps])
"""


def test_what_is_made_is_loaded_with_its_style(qgis, world, tmp_path):
    """Of a layer of the project, in an area that is drawn by hand."""
    found, warnings, steps = qgis.script(LOADED, tmp_path, world / "scene.tif", MODEL)
    names = read_legend(world / "map.tif").names
    assert found == {
        "map": ["paletted", names],
        "sure": ["singlebandpseudocolor", ["0.3333", "0.5", "0.6667", "0.8333", "1"]],
        "each": ["singlebandpseudocolor", ["0", "1"]],
        "shapes": ["categorizedSymbol", names],
    }
    assert warnings == []
    assert [step for step in steps if step not in {"Compiling", "Loading resulting layers"}] == ["Mapping", "Polygons"]
    valid = pixels(tmp_path / "map.tif") != 255
    assert 0.05 < valid.mean() < 0.5


REFUSED = """
scene, model = sys.argv[4:6]
tiles = QgsRasterLayer("type=xyz&url=http://localhost/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=3&zmin=0", "web map", "wms")
given = {"MODEL": model, "IMAGES": [scene], "OUTPUT": "TEMPORARY_OUTPUT"}
found = {
    "web": error_of("predict", {**given, "IMAGES": [tiles]}),
    "none": error_of("predict", {**given, "MODEL": "/none.onnx"}),
    "option": error_of("predict", {**given, "EXTRA": "--no-such-option"}),
    "quote": error_of("predict", {**given, "EXTRA": "--bands 'a"}),
}
ProcessingConfig.setSettingValue("GEOPSP_PROGRAM", "/bin/false")
found["false"] = error_of("predict", given)
answer(found)
"""


def test_errors_are_one_line_that_says_what_to_do(qgis, world):
    found = qgis.script(REFUSED, world / "scene.tif", MODEL)
    assert found["web"].startswith("The layer 'web map' comes from the provider 'wms', but geopsp reads raster files.")
    assert found["none"].startswith("No such file: /none.onnx.")
    assert found["option"].startswith("No such option")
    assert found["quote"] == "A quotation mark is not closed: --bands 'a"
    assert found["false"].startswith("/bin/false does not run")
    assert not [text for text in found.values() if "\n" in text]


def test_a_geopsp_that_is_missing_is_an_error(qgis, world, tmp_path):
    done = qgis.qgis_process(
        "run", "geopsp:polygonize", "--", f"RASTER={world / 'map.tif'}", f"OUTPUT={tmp_path / 'p.gpkg'}", path=False
    )
    assert done.returncode != 0
    assert "geopsp was not found on PATH" in done.stdout + done.stderr


CANCELLED = """
scene, model, out = sys.argv[4:7]

class Impatient(Feedback):
    def setProgress(self, value):
        if value > 5:
            self.cancel()
        super().setProgress(value)

given = {"MODEL": model, "IMAGES": [scene], "OUTPUT": out, "BATCH_SIZE": 1}
feedback = Impatient()
first = processing.run("geopsp:predict", given, feedback=feedback)
again = Feedback()
second = processing.run("geopsp:predict", given, feedback=again)
answer([feedback.isCanceled(), first, second, again.told])
"""


def test_a_cancelled_run_stops_and_is_taken_up_again(qgis, world, tmp_path):
    with rasterio.open(world / "scene.tif") as source:
        data, profile = source.read(), source.profile
    profile.update(width=data.shape[2] * 4, height=data.shape[1] * 4)
    with rasterio.open(tmp_path / "large.tif", "w", **profile) as dataset:
        dataset.write(np.tile(data, (1, 4, 4)))
    out = tmp_path / "map.tif"
    cancelled, first, second, told = qgis.script(CANCELLED, tmp_path / "large.tif", MODEL, out)
    assert (cancelled, first, second) == (True, {}, {"OUTPUT": str(out)})
    assert pixels(out).shape == (1, profile["height"], profile["width"])
    assert any(line.startswith("Wrote ") for line in told)
    assert not (tmp_path / ".partial-map.tif").exists()
