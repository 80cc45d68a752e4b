"""What any path is, in text and as JSON, and a command that can be pasted."""

import json
import shlex
import subprocess

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from names_common import is_safe, names

from geopsp.cli.commands import main
from geopsp.errors import InputNotFoundError, LabelError, PackageError, RasterError
from geopsp.report.describe import describe
from geopsp.report.description import shell_line
from geopsp.vector import summary


def frame(crs="EPSG:32632"):
    shapes = [
        shapely.box(0, 0, 1, 1), None, shapely.Polygon(), shapely.Polygon([(0, 0), (1, 1), (0, 1), (1, 0)]),
        shapely.Point(1, 1),
    ]  # fmt: skip
    return gpd.GeoDataFrame({"class": ["a", "b", "b", None, "c"], "h": [1, 2, 3, 4, 5.5]}, geometry=shapes, crs=crs)


def save(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path, **({"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}))


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_a_vector_file_with_its_fields_values_and_problems(ending, tmp_path):
    path = tmp_path / f"my labels{ending}"
    save(frame("EPSG:4326"), path)
    found = describe([str(path)])
    (layer,) = found.content["layers"]
    assert (found.kind, layer["features"], layer["crs"]) == ("vector", 5, "EPSG:4326")
    assert sum(layer["geometries"].values()) + layer["problems"]["without geometry"] == 5
    assert layer["problems"]["invalid"] == layer["problems"]["points or lines"] == 1
    assert layer["bounds"] == layer["degrees"] == [0, 0, 1, 1]
    field = next(field for field in layer["fields"] if field["name"] == "class")
    assert (field["type"], field["values"]) == ("text", 3)
    assert field["frequent"] == {"b": 2, "a": 1, "": 1, "c": 1}
    assert "field      class (text, 3 values): b (2)" in str(found)
    assert shlex.split(str(found).splitlines()[-1]) == [
        "command", "geopsp", "chips", "IMAGE.tif", "--labels", str(path), "--class-field", "class", "--out", "chips",
    ]  # fmt: skip


def test_layers_and_what_lies_beside(tmp_path, make_raster):
    image, path = make_raster("scene.tif"), tmp_path / "a.gpkg"
    frame().to_file(path, layer="points")
    gpd.GeoDataFrame({"kind": ["x", "y", "x", "y"]}, geometry=[shapely.box(0, 0, 1, 1)] * 4, crs=32632).to_file(
        path, layer="fields 1"
    )
    found = describe([str(path)])
    assert [layer["name"] for layer in found.content["layers"]] == ["points", "fields 1"]
    wanted = ["geopsp", "chips", str(image), "--labels", f"{path}|layername=fields 1", "--class-field", "kind"]
    assert shlex.split(found.command) == [*wanted, "--out", "chips"]
    one = describe([f"{path}|layername=points"])
    assert [layer["name"] for layer in one.content["layers"]] == ["points"]
    assert f"--labels '{path}|layername=points'" in describe([str(image)]).command
    with pytest.raises(InputNotFoundError, match="no layer 'none'"):
        describe([f"{path}|layername=none"])


def test_a_large_layer_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "SAMPLE", 3)
    for ending in (".gpkg", ".parquet"):
        path = tmp_path / f"a{ending}"
        save(frame(), path)
        (layer,) = describe([str(path)]).content["layers"]
        assert (layer["features"], layer["looked_at"]) == (5, 3)
        assert "5 features (the first 3 were looked at)" in str(describe([str(path)]))


def test_labels_without_crs_are_described(tmp_path):
    path = tmp_path / "a.parquet"
    frame(None).to_parquet(path)
    assert "none (assign one before use)" in str(describe([str(path)]))


def test_images_of_a_folder(tmp_path, make_raster):
    for number in range(4):
        make_raster(f"my images/{number}.tif", dtype="uint16" if number else "uint8", bands=4, size=(10, 20))
    (tmp_path / "my images" / "broken.tif").write_text("no")
    frame().to_file(tmp_path / "fields.gpkg")
    found = describe([str(tmp_path / "my images")])
    assert (found.kind, found.content["images"], found.content["size"]) == ("images", 5, {"20 x 10": 4})
    assert found.content["type"] == {"uint16": 3, "uint8": 1}
    assert found.content["damaged"] == [str(tmp_path / "my images" / "broken.tif")]
    assert "type       uint16 (3), uint8 (1)" in str(found)
    assert shlex.split(found.command)[:5] == [
        "geopsp", "chips", str(tmp_path / "my images"), "--labels", str(tmp_path / "fields.gpkg"),
    ]  # fmt: skip
    for files in ([f"{tmp_path}/my images/[0-3].tif"], [str(tmp_path / "my images" / f"{i}.tif") for i in range(4)]):
        assert describe(files).content["images"] == 4


def test_a_stac_item_is_an_image(tmp_path, make_raster):
    image, path = make_raster("scene.tif"), tmp_path / "item.json"
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [],
        "properties": {"datetime": "2024-01-31T00:00:00Z"},
        "assets": {"data": {"href": str(image), "type": "image/tiff; application=geotiff", "roles": ["data"]}},
    }  # fmt: skip
    path.write_text(json.dumps(item))
    found = describe([str(path)])
    assert (found.kind, found.content["images"], found.content["type"]) == ("images", 1, {"uint8": 1})
    assert found.command.startswith(f"geopsp chips {path} --labels")


def test_images_and_masks(tmp_path, make_raster):
    for number in range(3):
        make_raster(f"images/t{number}.tif")
        make_raster(f"masks/t{number + 1}_mask.tif", bands=1)
    found = describe([str(tmp_path)])
    assert found.content["matched"] == 2
    assert "1 images without a mask, 1 masks without an image" in str(found)
    assert found.command == f"geopsp chips {tmp_path}/images --labels {tmp_path}/masks --out chips"


def test_a_class_raster_takes_another_command(tmp_path, make_raster):
    path = make_raster("c.tif", np.ones((1, 4, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    found = describe([str(path)])
    assert found.command == f"geopsp polygonize {path} --out c.gpkg"
    assert found.content["classes"][0] == {"code": 1, "name": "class 1", "color": "#ff0000"}


@pytest.mark.parametrize(("driver", "name"), [("netCDF", "my data.nc"), ("GPKG", "my rasters.gpkg")])
def test_a_container_lists_names_that_can_be_pasted(driver, name, tmp_path, make_raster):
    with rasterio.Env() as env:
        if driver not in env.drivers():
            pytest.skip(f"this GDAL has no {driver}")
    path, image = tmp_path / name, make_raster("a.tif")
    options = [{"format": "NC4"}] if driver == "netCDF" else [
        {"RASTER_TABLE": "one"}, {"RASTER_TABLE": "two", "APPEND_SUBDATASET": "YES"},
    ]  # fmt: skip
    for each in options:
        rasterio.shutil.copy(image, path, driver=driver, **each)
    found = describe([str(path)])
    assert found.kind == "container"
    assert len(found.content["rasters"]) == (3 if driver == "netCDF" else 2)
    for raster in found.content["rasters"]:
        pasted = CliRunner().invoke(main, ["info", *shlex.split(shlex.quote(raster["path"]))])
        assert pasted.exit_code == 0, pasted.output
        assert "83 x 61 pixels" in pasted.output
        assert (raster["width"], raster["dtype"]) == (83, "uint8")
    assert shlex.split(found.command)[:2] == ["geopsp", "info"]


def test_the_shell_shows_text_or_json(tmp_path, make_raster):
    path = make_raster("a.tif")
    text = CliRunner().invoke(main, ["info", str(path)])
    content = CliRunner().invoke(main, ["info", str(path), "--json"])
    assert text.output.rstrip().endswith("--labels LABELS.gpkg --out chips")
    assert "needs      your labels, in place of LABELS.gpkg" in text.output
    found = json.loads(content.output)
    assert (found["kind"], found["width"], found["crs"]) == ("raster", 83, "EPSG:32632")
    assert found["command"] in text.output


def test_what_is_nothing_known_is_told_in_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.gpkg").write_text("text")
    for path, error in (("a.txt", RasterError), ("b.gpkg", LabelError)):
        with pytest.raises(error, match="neither a raster nor a vector file"):
            describe([str(tmp_path / path)])
    with pytest.raises(InputNotFoundError, match="No such file or folder"):
        describe([str(tmp_path / "none")])
    with pytest.raises(InputNotFoundError, match="matches no file"):
        describe([f"{tmp_path}/*.tif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackageError, match=r"nor a model \(model\.json\), and holds no images"):
        describe([str(tmp_path / "empty")])


@given(words=st.lists(names.filter(lambda text: "\0" not in text), min_size=1, max_size=3))
@example(words=["a'b\n\\c", "$(touch x)", "`touch x`", "'\x1b'"])
def test_the_command_can_be_pasted(words):
    """As bash takes it, which knows $'...'."""
    line = shell_line("printf", r"%s\0", *words)
    assert is_safe(line)
    assert "\n" not in line
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode().split("\0")[:-1] == words
