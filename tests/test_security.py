"""What SECURITY.md promises, where no other test holds it; and that the tests it names exist."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from common import REPOSITORY

import geopsp
from geopsp.core.grid import Window
from geopsp.errors import GeopspError, LabelError, OptionError, RasterError
from geopsp.labels.class_mapping import read_mapping
from geopsp.raster.scene import Scene
from geopsp.training.resolve_options import read_run
from geopsp.vector.open import open_layer

PAGE = REPOSITORY / "SECURITY.md"

NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))

ALLOWED = {
    ("core/jit.py", "eval"), ("core/jit.py", "subprocess.Popen"), ("cluster/order.py", "cloudpickle.loads"),
    ("core/sync.py", "ctypes.CDLL"), ("core/documents.py", "yaml.load"),
}  # fmt: skip
"""What runs code or starts a process, in our own words only; SECURITY.md says why."""

DANGEROUS = re.compile(
    r"(eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*)|subprocess\.\w+|(cloud)?pickle\.\w*load\w*"
    r"|marshal\.\w+|shelve\.\w+|torch\.load|torch\.hub\.\w+|torch\.jit\.load|yaml\.(load|full_load|unsafe_load)\w*"
    r"|np\.load|pd\.read_pickle|pd\.eval|\w+\.enable_load_extension|runpy\.\w+|ctypes\.\w*DLL\w*|joblib\.load)"
)
"""Calls that may run what a file holds, or start another program."""


def calls():
    """Each call of the package that may be dangerous: file, name, keywords."""
    house = Path(geopsp.__file__).parent
    for path in sorted(house.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and DANGEROUS.fullmatch(ast.unparse(node.func)):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                yield path.relative_to(house).as_posix(), ast.unparse(node.func), keywords


def test_nothing_in_the_package_runs_what_a_file_holds():
    found = set()
    for file, name, keywords in calls():
        assert "shell" not in keywords, file
        assert "allow_pickle" not in keywords, file
        if name == "torch.load":
            assert keywords["weights_only"] == "True", file
        elif name != "np.load":
            found.add((file, name))
    assert found <= ALLOWED


def test_numpy_reads_no_objects_by_default():
    assert inspect.signature(np.load).parameters["allow_pickle"].default is False


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_the_tests_that_the_page_names_exist(file, function):
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert not function or f"def {function}(" in text


def test_each_promise_names_a_test():
    rows = re.findall(r"^\| (?!threat|-)(.*?) \|.*\| (.*?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 15
    assert not [threat for threat, tests in rows if "`tests/" not in tests]


def test_the_page_is_found():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(SECURITY.md)" in (REPOSITORY / page).read_text(encoding="utf-8")


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, crater):
        self.crater = crater

    def __reduce__(self):
        return Path.touch, (self.crater,)


def test_the_checkpoint_of_a_run_is_read_without_its_code(tmp_path):
    crater = tmp_path / "crater"
    torch.save({"state_dict": {}, "callbacks": Bomb(crater)}, tmp_path / "last.ckpt")
    fit = '{"epochs": 1, "lr": [0.1]}'
    (tmp_path / "run.json").write_text(f'{{"fit": {fit}}}')
    with pytest.raises(OptionError, match="damaged"):
        read_run(tmp_path)
    assert not crater.exists()
    pickle.loads(pickle.dumps(Bomb(crater)))
    assert crater.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:pathlib.Path"])
def test_a_class_mapping_is_data(tag, tmp_path):
    crater = tmp_path / "crater"
    path = tmp_path / "mapping.yaml"
    path.write_text(f"1: {tag} ['{crater}']\n")
    with pytest.raises(GeopspError, match="mapping"):
        read_mapping(path)
    assert not crater.exists()


def python_vrt(folder, crater, *, inline):
    """A VRT whose pixels are what Python code says."""
    code = f"import pathlib\ndef touch(*args, **kwargs):\n    pathlib.Path({str(crater)!r}).touch()\n"
    (folder / "evil_pixels.py").write_text(code)
    body = (
        f"<PixelFunctionType>touch</PixelFunctionType><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode>"
        if inline
        else "<PixelFunctionType>evil_pixels.touch</PixelFunctionType>"
    )
    path = folder / "evil.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>600000,1,0,5300000,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        f"<PixelFunctionLanguage>Python</PixelFunctionLanguage>{body}</VRTRasterBand></VRTDataset>"
    )
    return path


def read_all(path):
    scene = Scene.open(path)
    return scene.read(Window(0, 0, scene.grid.width, scene.grid.height))


@pytest.mark.parametrize("inline", [True, False])
def test_python_in_a_vrt_does_not_run(inline, tmp_path, monkeypatch):
    monkeypatch.delenv("GDAL_VRT_ENABLE_PYTHON", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    crater = tmp_path / "crater"
    path = python_vrt(tmp_path, crater, inline=inline)
    with pytest.raises(RasterError):
        read_all(path)
    assert not crater.exists()


FRAME = gpd.GeoDataFrame({"kind": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632")


@pytest.mark.parametrize(
    "where",
    [
        "load_extension('evil') = 1", "1 = 1; DROP TABLE labels", "1 = 1) ; DELETE FROM labels; --",
        "(SELECT writefile('crater', 'x')) = 1", "(ATTACH DATABASE 'crater' AS other)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".gpkg", ".geojson", "frame"])
def test_a_query_changes_no_file_and_loads_no_code(where, ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = FRAME if ending == "frame" else tmp_path / f"labels{ending}"
    if ending != "frame":
        FRAME.to_file(source, layer="labels")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((LabelError, OptionError)) as caught:
        open_layer(source, where=where).read()
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_view_that_loads_an_extension_loads_none(tmp_path):
    path = tmp_path / "labels.gpkg"
    FRAME.to_file(path, layer="labels")
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE VIEW evil AS SELECT fid, geom, load_extension('evil') AS kind FROM labels")
        base.execute(
            "INSERT INTO gpkg_contents SELECT 'evil', data_type, 'evil', '', last_change, min_x, min_y, max_x, max_y, "
            "srs_id FROM gpkg_contents"
        )
        base.execute("INSERT INTO gpkg_geometry_columns VALUES ('evil', 'geom', 'POLYGON', 32632, 0, 0)")
    with pytest.raises(LabelError) as caught:
        open_layer(f"{path}|layername=evil").read()
    assert "\n" not in str(caught.value)


def test_floors_for_security_stay():
    """The first version without a hole that matters here."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        floors = dict(line.split(">=") for line in tomllib.load(file)["project"]["dependencies"])
    for name, floor in {
        "torch": "2.13",
        "lightning": "2.6.6",
        "pyarrow": "23.0.1",
        "filelock": "3.20.3",
        "distributed": "2026.1.1",
    }.items():
        assert tuple(map(int, floors[name].split("."))) >= tuple(map(int, floor.split("."))), name
