"""A sample comes back from its file with the labels that it got, and no other change goes unnoticed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
from assessment_common import CLASSES, GRID, example_sample

from geopsp.assessment.sampling.sample_file import POINT_SCHEMA, Sample, read_sample, write_sample
from geopsp.errors import InputNotFoundError, LabelError, OptionError, OutputError


@pytest.fixture
def path(tmp_path):
    return write_sample(example_sample(), tmp_path / "points.gpkg")


def edit(path, *commands):
    """Change a file as a program does that knows SQL alone."""
    with closing(sqlite3.connect(path)) as base, base:
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            base.execute(f'DROP TRIGGER "{name}"')
        for command in commands:
            base.execute(command)


def label(path, **values):
    """Write references by id, as `i1='water'`."""
    edit(path, *(f"UPDATE points SET reference = '{text}' WHERE id = {key[1:]}" for key, text in values.items()))


def test_a_sample_comes_back(path):
    written, found = example_sample(), read_sample(path)
    assert isinstance(found, Sample)
    assert (found.strata, found.design, found.seed, found.classes) == (written.strata, "stratified", 5, CLASSES)
    assert (found.grid, found.map_name, found.options) == (GRID, "map.tif", {"size": 11})
    assert found.points.drop(columns="geometry").columns.tolist() == POINT_SCHEMA.names
    pd.testing.assert_frame_equal(found.map_classes, written.map_classes, check_dtype=False)
    same = ["id", "map_class", "map_code", "stratum", "inclusion_probability", "pixel_row", "pixel_col", "geometry"]
    assert (found.points[same] == written.points[same]).all(axis=None)
    assert found.points.crs == written.points.crs
    assert not found.is_labelled.any()
    assert found.num_drawn == len(found) == 11
    assert repr(found) == "<Sample of 11 points of map.tif, stratified, 3 strata, 0 labelled>"
    assert found.to_frame() is not found.points


def test_other_programs_read_the_tables(path):
    layers = dict(pyogrio.list_layers(path).tolist())
    assert layers == {"points": "Point", "strata": None, "map_classes": None, "design": None}
    design = json.loads(pyogrio.read_dataframe(path, layer="design").set_index("key")["value"]["json"])
    assert (design["format"], design["version"], design["map_size"]) == ("geopsp sample", 1, [30, 40])
    strata = pyogrio.read_dataframe(path, layer="strata")
    assert strata.columns.tolist() == [
        "stratum", "map_class", "map_code", "zone", "pixels", "area_ha", "sample_size",
    ]  # fmt: skip
    assert strata["pixels"].tolist() == [100, 700, 400]


def test_labels_are_names_or_codes(path):
    """The class named "7" is meant by 7, not the class with the code 7; empty texts are no labels."""
    label(path, i1="water", i2=" forest ", i3="3", i4="7", i5="1000", i6="", i7="  ")
    found = read_sample(path)
    assert found.points["reference"].tolist() == ["water", "forest", "water", "7", "7", *[None] * 6]
    assert found.is_labelled.sum() == 5


def test_numbers_are_codes(path):
    """As where the field was made anew, with another type."""
    frame = gpd.read_file(path, layer="points")
    frame["reference"] = np.where(frame["id"] == 1, 3.0, np.nan)
    frame.to_file(path, layer="points", driver="GPKG")
    assert read_sample(path).points["reference"].tolist() == ["water", *[None] * 10]


def test_values_that_a_class_mapping_renames_stay(path):
    """Even where one is the code of a class."""
    label(path, i1="water", i2="lava", i3="3", i4="12")
    found = read_sample(path, mapped=["lava", 3, 12])
    assert found.points["reference"].tolist()[:4] == ["water", "lava", 3, 12]
    assert read_sample(path, mapped=["*"]).points["reference"].tolist()[:4] == ["water", "lava", "water", "12"]
    with pytest.raises(LabelError, match="'12'"):
        read_sample(path, mapped=["lava"])


def test_wrong_labels_are_listed(path):
    label(path, i1="Water", i2="Water", i3="lava")
    with pytest.raises(LabelError) as raised:
        read_sample(path)
    assert "'Water' (2, did you mean 'water'?), 'lava' (1)" in str(raised.value)
    assert "The classes are water, forest, 7" in str(raised.value)


def test_fields_of_others_stay(path):
    edit(path, "ALTER TABLE points ADD COLUMN interpreter TEXT", "UPDATE points SET interpreter = 'Ada'")
    assert read_sample(path).points["interpreter"].unique().tolist() == ["Ada"]


def test_deleted_points_are_counted(path, caplog):
    edit(path, "DELETE FROM points WHERE id IN (1, 2, 5)")
    found = read_sample(path)
    assert (len(found), found.num_drawn) == (8, 11)
    assert "3 points of the 11 in" in caplog.text
    assert "(2 of water, 1 of forest)" in caplog.text


def test_points_in_another_crs_are_the_same_points(path, tmp_path):
    frame = gpd.read_file(path, layer="points").to_crs(4326)
    frame.to_file(path, layer="points", driver="GPKG")
    found = read_sample(path)
    assert found.points.crs == "EPSG:32633"
    assert found.points.geometry.distance(example_sample().points.geometry).max() < 1e-3


COPY = (
    "CREATE TEMP TABLE copy AS SELECT * FROM points WHERE id = 1",
    "UPDATE copy SET fid = 99, id = {id}, inclusion_probability = {probability}",
    "INSERT INTO points SELECT * FROM copy",
)


def copied(**values):
    return [line.format(**values) for line in COPY]


def design_with(**changes):
    """Return the command that changes entries of the document."""

    def change(path):
        with closing(sqlite3.connect(path)) as base, base:
            document = json.loads(base.execute("SELECT value FROM design").fetchone()[0]) | changes
            base.execute("UPDATE design SET value = ?", (json.dumps(document),))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["ALTER TABLE points RENAME COLUMN reference TO refrence"], "Was it renamed to 'refrence'"),
        (["ALTER TABLE points DROP COLUMN stratum"], "no field 'stratum' in its layer points"),
        (["ALTER TABLE strata RENAME COLUMN pixels TO n"], "`pixels` is missing"),
        (["DELETE FROM points"], "has no points: all were deleted"),
        (["DELETE FROM strata"], "a table has no rows"),
        (copied(id=99, probability="NULL"), "no inclusion probability from 0 to 1.*Remove them .id 99"),
        (copied(id=1, probability=0.04), "the same id. Remove the copies .id 1, 1"),
        (copied(id=99, probability=0.04), "the same pixel. Remove the copies .id 1, 99"),
        (["UPDATE points SET inclusion_probability = 0.5 WHERE id = 1"], "do not fit its table strata"),
        (["UPDATE points SET inclusion_probability = 1.5 WHERE id = 1"], "no inclusion probability from 0 to 1"),
        (["UPDATE points SET stratum = 'lava' WHERE id = 1"], "of a stratum 'lava', which its table strata lacks"),
        (["UPDATE points SET stratum = NULL WHERE id = 1"], "no stratum. Undo that .id 1"),
        (["UPDATE points SET pixel_area = NULL WHERE id = 1"], "no number in pixel_area"),
        (["UPDATE points SET pixel_row = NULL WHERE id = 1"], "no whole number in pixel_row"),
        (["UPDATE points SET pixel_row = 900 WHERE id = 1"], "a pixel outside of the map"),
        (["UPDATE points SET pixel_row = 20 WHERE id = 1"], "a place outside of their pixel"),
        (["UPDATE points SET geom = NULL WHERE id = 1"], "no place. Undo that"),
        (["UPDATE strata SET sample_size = 2 WHERE stratum = 'water'"], "more points in the stratum 'water'"),
        (["UPDATE strata SET stratum = 'water' WHERE stratum = 'forest'"], "do not fit together"),
        (["UPDATE strata SET pixels = -1"], "`pixels` is -1, but must"),
        (["UPDATE design SET key = 'xml'"], "must have one row with the key json"),
        (["UPDATE design SET value = '{'"], "it is not JSON"),
        (["UPDATE design SET value = '[]'"], "its format is not 'geopsp sample'"),
        (design_with(format="other"), "its format is not 'geopsp sample'"),
        (design_with(version=2), "has version 2 of the format, but this geopsp reads version 1. Update"),
        (design_with(design="random"), "`design` is 'random'"),
        (design_with(clusters=4), "belong to cluster samples alone"),
        (design_with(crs="nonsense"), "The CRS of the map in .* cannot be understood"),
        (design_with(transform=[0, 0, 0, 0, 0, 0]), "pixels without area"),
        (design_with(map_size=[0, 4]), "`map_size.0.` is 0"),
        (["DROP TABLE strata", "DELETE FROM gpkg_contents WHERE table_name = 'strata'"], "no layer or table 'strata'"),
    ],
)  # fmt: skip
def test_a_changed_file_is_refused(path, change, words):
    change(path) if callable(change) else edit(path, *change)
    with pytest.raises(LabelError, match=words):
        read_sample(path)


def test_what_is_no_sample_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        read_sample(tmp_path / "none.gpkg")
    other = tmp_path / "other.gpkg"
    example_sample().points.to_file(other)
    with pytest.raises(LabelError, match=r"is not a sample file as `draw_sample\(\)` writes it: it has no layer"):
        read_sample(other)
    text = tmp_path / "text.gpkg"
    text.write_text("no database")
    with pytest.raises(LabelError, match="cannot be read"):
        read_sample(text)


def test_files_appear_whole_or_not_at_all(tmp_path, path, monkeypatch):
    with pytest.raises(OutputError, match="already exists"):
        write_sample(example_sample(), path)
    with pytest.raises(OptionError, match=r"must end in \.gpkg"):
        write_sample(example_sample(), tmp_path / "points.geojson")
    before = path.read_bytes()

    def fail(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("geopsp.vector.geopackage.add_qml", fail)
    with pytest.raises(OutputError, match="full"):
        write_sample(example_sample(), path, qml="<qgis/>", overwrite=True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["points.gpkg"]


@pytest.mark.parametrize("name", ["a;b.gpkg", "ü ß.gpkg", "x!y.gpkg", "POINTS.GPKG"])
def test_any_name_works(tmp_path, name):
    path = write_sample(example_sample(), tmp_path / name)
    assert len(read_sample(path)) == 11
