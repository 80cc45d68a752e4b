"""Several vector files are the labels that their features would be in one file."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from common import square

from geopsp.chips.export_training_data import export_training_data
from geopsp.errors import GeopspError, LabelError, OptionError
from geopsp.labels.vector_files import find_vector_files, read_vector_files


@pytest.fixture
def labels():
    shapes = [square(601300, 5301650, 40), square(601350, 5301620, 30), square(601320, 5301600, 25)]
    return gpd.GeoDataFrame({"kind": ["crop", "road", "crop"]}, geometry=shapes, crs="EPSG:32632")


@pytest.fixture
def parts(labels, tmp_path):
    """The labels as three files, of other formats, CRSs and names of geometry, and one without features."""
    folder = tmp_path / "parts"
    folder.mkdir()
    labels.iloc[:1].to_file(folder / "a.geojson")
    labels.iloc[1:2].to_crs("EPSG:4326").to_file(folder / "b.fgb")
    labels.iloc[2:].rename_geometry("outline").to_parquet(folder / "c.parquet")
    labels.iloc[:0].to_file(folder / "d.gpkg")
    (folder / "readme.txt").write_text("SpaceNet has such folders")
    return folder


def chips_of(image, labels, out):
    folder = export_training_data(image, labels, out, class_field="kind", tile_size=16)
    codes = []
    for file in sorted((out / "labels").iterdir()):
        with rasterio.open(file) as dataset:
            codes.append(dataset.read(1))
    return folder.legend.names, np.stack(codes)


@pytest.mark.parametrize("given", ["folder", "list", "glob"])
def test_they_are_read_as_one(given, parts, make_raster, labels, tmp_path):
    image, whole = make_raster(), tmp_path / "whole.gpkg"
    labels.to_file(whole)
    several = {"folder": parts, "list": sorted(parts.glob("*.[fgp]*")), "glob": f"{parts}/[abcd].*"}[given]
    names, codes = chips_of(image, several, tmp_path / "one")
    other_names, other_codes = chips_of(image, whole, tmp_path / "other")
    assert sorted(names) == sorted(other_names)
    table = np.array([*(other_names.index(name) for name in names)])
    assert np.array_equal(np.where(codes == 255, 255, table[np.minimum(codes, len(names) - 1)]), other_codes)


def test_features_of_all_are_there(parts, labels):
    found = read_vector_files(find_vector_files(parts))
    assert found.crs == gpd.read_file(parts / "a.geojson").crs
    assert sorted(found["kind"]) == sorted(labels["kind"])


def test_what_is_no_list_of_vector_files(parts, labels, make_raster, tmp_path):
    for other in (
        labels,
        parts / "a.geojson",
        str(parts / "a.geojson"),
        [],
        [parts / "a.geojson", make_raster()],
        None,
    ):
        assert find_vector_files(other) is None
    make_raster(str(parts / "mask.tif"))
    assert find_vector_files(parts) is None, "these are masks"
    with pytest.raises(OptionError, match="label rasters only, one per image, or vector files only"):
        export_training_data(make_raster(), [parts / "a.geojson", make_raster()], tmp_path / "out")


def test_files_that_cannot_be_combined(parts, labels):
    pd.DataFrame({"kind": ["crop"], "WKT": ["POLYGON ((0 0, 1 0, 1 1, 0 0))"]}).to_csv(parts / "e.csv", index=False)
    with pytest.raises(LabelError, match=r"e\.csv.* CRS"):
        read_vector_files([str(parts / "a.geojson"), str(parts / "e.csv")])
    with pytest.raises(LabelError, match=r"2 vector files .* have no features"):
        read_vector_files([str(parts / "d.gpkg")] * 2)
    with pytest.raises(GeopspError, match="lost"):
        read_vector_files([str(parts / "a.geojson"), str(parts / "lost.gpkg")])
