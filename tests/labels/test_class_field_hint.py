import geopandas as gpd
import pytest
from common import square

from geopsp.labels.area import AreaOfInterest
from geopsp.labels.read_labels import read_labels
from geopsp.vector import layer as layers

LEFT, TOP = 601234.0, 5301717.0


def frame(**columns):
    shapes = [square(LEFT + 10 * i, TOP, 8) for i in range(len(next(iter(columns.values()))))]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32632")


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_forgotten_class_field_is_named_with_its_values(caplog, make_labels):
    kinds = ["water", "forest", "dryout", "village", "water"]
    path = make_labels("l.gpkg", list(frame(kind=kinds).geometry), {"id": range(5), "kind": kinds, "ha": [0.5] * 5})
    expected = (
        f"No `class_field` is given, so all 5 features of {path} (layer l) become one class, 'object'. "
        "These fields look like classes: kind (4 values: dryout, forest, village, water). "
        "Pass e.g. `class_field='kind'`."
    )
    assert read_labels(path).legend.names == ["background", "object"]
    assert warnings_of(caplog) == [expected]
    caplog.clear()
    read_labels(path, class_field="kind")
    AreaOfInterest.read(path)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"id": [1, 2, 3, 4]}, None),
        ({"name": ["a", "b", "c", "d"]}, None),
        ({"height": [1.5, 2.0, 1.5, 2.0]}, None),
        ({"class": ["water"] * 4}, None),
        ({"class": [None] * 4}, None),
        ({"class": [[1], [2], [1], [2]]}, None),
        ({"cover": ["a", "b", "a", "b"]}, "cover (2 values: a, b)"),
        ({"level": [3, 1, 3, 1]}, "level (2 values: 1, 3)"),
        (
            {"cover": ["a", "b", "a", "b"], "Type": ["x", "y", "z", None]},
            "Type (3 values: x, y, z), cover (2 values: a, b)",
        ),
        ({"code": list(range(8))}, "code (8 values: 0, 1, 2, 3, 4, ...)"),
    ],
)
def test_fields_that_look_like_classes(columns, found, caplog):
    read_labels(frame(**columns))
    told = warnings_of(caplog)
    assert len(told) == (found is not None)
    assert not told or f"look like classes: {found}. Pass" in told[0]


def test_of_a_large_file_the_names_of_fields_decide(caplog, make_labels, monkeypatch):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0)
    shapes = list(frame(kind=["a", "b"]).geometry)
    read_labels(make_labels("l.gpkg", shapes, {"landuse": ["a", "b"], "height": [1, 1]}))
    read_labels(make_labels("m.gpkg", shapes, {"height": [1, 2]}))
    (told,) = warnings_of(caplog)
    assert "so all features of" in told
    assert "These fields look like classes: landuse. Pass e.g. `class_field='landuse'`" in told
