"""Whoever made a chip folder: it opens, or one clear line comes; nothing outside of it and no network is read."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import threading
import time
from contextlib import suppress

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from common import REPOSITORY, SOON
from rasterio.errors import RasterioError

from geopsp.chips.arcgis_write import MAP_FILE, MODEL_FILE, SUMS_FILE
from geopsp.chips.chip_folder import INDEX, MANIFEST
from geopsp.chips.chip_set import ChipSet
from geopsp.core.documents import DocumentError
from geopsp.data.dataset import ChipFiles
from geopsp.errors import ChipError
from geopsp.raster.open import open_chip

GOLDEN = REPOSITORY / "tests" / "golden" / "chips"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "chips")


def edit(path, entry, value):
    """Write a JSON file with another value of an entry; a__b stands for b in a."""
    content = json.loads(path.read_text())
    *outer, last = entry.split("__")
    inner = content
    for step in outer:
        inner = inner[int(step) if step.isdigit() else step]
    inner[last] = value
    path.write_text(json.dumps(content))


def refused(folder, says):
    start = time.monotonic()
    with pytest.raises(ChipError, match=says) as caught:
        ChipSet.open(folder)
    assert time.monotonic() - start < SOON
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("chips", -1, "`chips` is -1"),
        ("chips", 10**12, "`chips` is 1000000000000"),
        ("tile_size", 10**9, "`tile_size` is 1000000000, but must be less than or equal to 16384"),
        ("tile_size", "64", "`tile_size` is '64'"),
        ("legend", [], "`legend`"),
        ("legend", {}, "`legend` is {}, but must be a valid list"),
        ("legend__0__color", "red", r"`legend\[0\].color` is 'red'"),
        ("legend__0__code", 1, "distinct codes"),
        ("legend__0__name", "forest", "one name to two classes"),
        ("bands", ["red", 3], r"`bands\[1\]` is 3"),
        ("bands", ["red"] * 10**6, "`bands`"),
        ("bands", ["red"], "as many bands"),
        ("dtype", "object", "`dtype` is 'object'"),
        ("cell_size", [0, 0], r"`cell_size\[0\]` is 0, but must be greater than 0"),
        ("cell_size", [1], "`cell_size`"),
        ("units", 3, "`units` is 3"),
        ("statistics__m2", [1, -1], r"`statistics.m2\[1\]` is -1"),
        ("statistics__count", -1, r"`statistics.count` is -1"),
        ("statistics__mean", [math.nan, 1], "the number NaN"),
        ("statistics__mean", [1e300, 1], r"`statistics.mean\[0\]`"),
        ("pixel_values", {"scaled": True}, "`pixel_values.scales` is missing"),
        ("exports", [], "`exports`"),
        ("exports__0__report", {}, r"`exports\[0\].report.skipped` is missing"),
        ("exports__0__report__skipped", {"empty": "many"}, "`exports.*empty` is 'many'"),
        ("exports__0__report__labels", [], "`exports.*labels`"),
        ("exports__0__report__labels__notes", 3, "`exports.*notes` is 3"),
        ("exports__0__report__warnings", [3], "`exports.*warnings"),
        ("exports__0__images", {"a": "b"}, "`exports.*images"),
    ],
)
def test_an_entry_of_the_manifest_out_of_range_is_named(entry, value, says, folder):
    edit(folder / MANIFEST, entry, value)
    refused(folder, f"damaged {MANIFEST}.*{says}")


def column(name, value, row=3):
    def change(frame):
        values = frame[name].astype(object)
        values[row] = value
        return frame.assign(**{name: values})

    return change


def geometry(shape):
    def change(frame):
        shapes = list(frame.geometry)
        shapes[3] = shape
        return frame.set_geometry(gpd.GeoSeries(shapes, crs=frame.crs))

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (column("chip", None), "its column chip holds nan in row 3, but must hold names of files"),
        (lambda frame: frame.assign(chip=[{"a": 1}] * len(frame)), "chip holds {'a': 1} in row 0"),
        (lambda frame: frame.assign(chip=3), "chip holds"),
        (column("chip", "../../x.tif"), "chip holds '../../x.tif'"),
        (column("chip", "/etc/passwd"), "chip holds '/etc/passwd'"),
        (column("label", "x" * 10**6), "label holds 'xxx"),
        (lambda frame: frame.drop(columns="label"), "no column label"),
        (lambda frame: frame.drop(columns="pixels_7"), "no column pixels_7"),
        (lambda frame: frame.assign(pixels_7="many"), "pixels_7 holds 'many'"),
        (lambda frame: frame.assign(pixels_7=-1), "pixels_7 holds .*-1.*, but must hold whole numbers from 0 to 4096"),
        (lambda frame: frame.assign(pixels_7=10**9), "pixels_7 holds"),
        (lambda frame: frame.assign(valid="all"), "valid holds 'all'"),
        (lambda frame: frame.assign(labelled=np.nan), "labelled holds .*nan"),
        (lambda frame: frame.assign(angle=np.inf), "angle holds .*inf"),
        (lambda frame: frame.assign(col=0.5), "col holds"),
        (lambda frame: frame.assign(source=3), "source holds"),
        (geometry(shapely.box(0, 0, 1e300, 1)), "geometry holds .*POLYGON.* polygons with finite coordinates"),
        (geometry(shapely.Point(0, 0)), "geometry holds <POINT"),
        (
            lambda frame: gpd.pd.concat([frame, gpd.pd.DataFrame(0, frame.index, map(str, range(1000)))], axis=1),
            "may have",
        ),
    ],
)
def test_a_column_of_the_index_out_of_range_is_named(change, says, folder):
    change(gpd.read_parquet(folder / INDEX)).to_parquet(folder / INDEX)
    refused(folder, f"damaged {INDEX}.*{says}")


@pytest.mark.parametrize("name", [MANIFEST, INDEX])
@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"\xff" * 100, b"[" * 100_000, b'{"version": 2, "a": ' + b"[" * 99_999]
)
def test_files_with_other_content_are_refused(name, content, folder):
    (folder / name).write_bytes(content)
    refused(folder, f"damaged {name}")


def test_geometries_that_are_none_are_refused(folder):
    frame = gpd.pd.read_parquet(folder / INDEX)
    frame["geometry"] = [b"\x01\xff" * 9] * len(frame)
    schema = gpd.pd.io.parquet.import_optional_dependency("pyarrow.parquet").read_schema(folder / INDEX)
    table = (
        __import__("pyarrow").Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(schema.metadata)
    )
    __import__("pyarrow.parquet").parquet.write_table(table, folder / INDEX)
    refused(folder, f"damaged {INDEX}")


@pytest.mark.skipif(os.name != "posix", reason="has no pipes among files")
@pytest.mark.parametrize("name", [MANIFEST, INDEX, "images/000003.tif", "labels/000003.tif"])
def test_pipes_and_folders_are_never_waited_for(name, folder):
    for make in (os.mkfifo, os.mkdir):
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        refused(folder, "no regular file|it is a folder")


@pytest.fixture
def requests():
    """The address of a server, and the connections that it got."""
    found = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                found.append(1)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.tif", found
        server.shutdown(socket.SHUT_RDWR)


def vrt(source):
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.mark.parametrize("prefix", ["/vsicurl/", ""])
def test_a_vrt_among_chips_fetches_nothing(prefix, folder, requests):
    url, found = requests
    for name in ("images/000003.tif", "labels/000005.tif"):
        (folder / name).write_text(vrt(prefix + url))
    files = ChipFiles(ChipSet.open(folder))
    for row in (3, 5):
        with pytest.raises(ChipError, match="it is no TIFF, PNG, JPEG or MRF file"):
            files.read(row, 0, 0, 64)
    for name in (MANIFEST, INDEX):
        (folder / name).unlink()
    refused(folder, "it is no TIFF, PNG, JPEG or MRF file")
    assert not found


def test_companions_of_chips_fetch_nothing(folder, requests):
    url, found = requests
    for name in ("000003.tif.aux.xml", "000003.tif.ovr", "000003.tif.msk"):
        entry = f'<MDI key="OVERVIEW_FILE">/vsicurl/{url}</MDI>'
        text = f'<PAMDataset><Metadata domain="OVERVIEWS">{entry}</Metadata></PAMDataset>'
        (folder / "images" / name).write_text(text if name.endswith("xml") else vrt(f"/vsicurl/{url}"))
    with open_chip(folder / "images" / "000003.tif") as dataset:
        for read in (lambda: dataset.overviews(1), lambda: dataset.read(1, out_shape=(8, 8)), dataset.dataset_mask):
            with suppress(RasterioError):
                read()
    assert not found


@pytest.mark.parametrize("driver", ["GTiff", "PNG", "JPEG"])
def test_the_formats_of_chips_are_opened(driver, tmp_path):
    pixels = np.full((1, 16, 16), 7, np.uint8)
    with rasterio.open(tmp_path / "a", "w", driver=driver, count=1, width=16, height=16, dtype="uint8") as dataset:
        dataset.write(pixels)
    with open_chip(tmp_path / "a") as dataset:
        assert np.array_equal(dataset.read(), pixels)
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(DocumentError):
        open_chip(tmp_path / "b").__enter__()


@pytest.fixture
def arcgis(folder):
    for name in (MANIFEST, INDEX):
        (folder / name).unlink()
    ChipSet.open(folder)
    return folder


@pytest.mark.parametrize(
    "line", ["../a.tif labels/000000.tif", "/etc/passwd labels/000000.tif", "images/../../a.tif labels/000000.tif",
             "images/000000.tif ../a.tif"]
)  # fmt: skip
def test_no_path_of_arcgis_leaves_the_folder(line, arcgis):
    shutil.copy(arcgis / "images" / "000000.tif", arcgis.parent / "a.tif")
    (arcgis / MAP_FILE).write_text(line)
    refused(arcgis, "outside of the folder")


@pytest.mark.parametrize(
    ("file", "entry", "value"),
    [
        (MODEL_FILE, "Classes", [{"Value": 1e308, "Name": "a"}]),
        (MODEL_FILE, "Classes", [{"Value": 1, "Name": "a", "Color": 10**10}]),
        (MODEL_FILE, "Classes", [{"Value": 1, "Name": "a", "Color": [1e999, 1, 1]}]),
        (MODEL_FILE, "Classes", [[1]]),
        (MODEL_FILE, "Classes", {"a": 1}),
        (MODEL_FILE, "InputRastersProps", 3),
        (MODEL_FILE, "InputRastersProps", {"BandNames": 3}),
        (MODEL_FILE, "ImageSpaceUsed", []),
        (SUMS_FILE, "BandStatsState", [{"Num": -1, "M1": 1, "M2": 1, "Min": 0, "Max": 2}] * 2),
        (SUMS_FILE, "BandStatsState", [{"Num": 9, "M1": 1, "M2": -1, "Min": 0, "Max": 2}] * 2),
        (SUMS_FILE, "BandStatsState", [{"Num": 9, "M1": math.nan, "M2": 1, "Min": 0, "Max": 2}] * 2),
        (SUMS_FILE, "BandStatsState", [{"Num": 9, "M1": 1, "M2": math.inf, "Min": 0, "Max": 2}] * 2),
        (SUMS_FILE, "BandStatsState", [{"Num": math.inf, "M1": 1, "M2": 1, "Min": 0, "Max": 2}] * 2),
        (SUMS_FILE, "BandStatsState", 3),
    ],
)
def test_entries_of_arcgis_out_of_range_are_refused(file, entry, value, arcgis):
    edit(arcgis / file, entry, value)
    refused(arcgis, "usable|damaged|class values")


@pytest.mark.parametrize("name", [MAP_FILE, MODEL_FILE, SUMS_FILE])
def test_files_of_arcgis_with_other_content_are_refused(name, arcgis):
    for content in (b"[" * 100_000, b"\xff\xfe\xff", b""):
        (arcgis / name).write_bytes(content)
        refused(arcgis, name)
    if os.name == "posix":
        (arcgis / name).unlink()
        os.mkfifo(arcgis / name)
        refused(arcgis, "no regular file")
