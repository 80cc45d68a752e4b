"""Vector files of many kinds, each with what it covers, known from shapely alone."""

from __future__ import annotations

import datetime as dt
import sqlite3
import struct
import unicodedata
import warnings
import zipfile
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio.raw
import pyproj
import rasterio
import shapely
from affine import Affine
from corpus.pairwise import Case, covering_array
from numpy.typing import NDArray

SIZE = 96
"""Rows and columns of the image."""

FACTORS = {
    "geometry": (
        "polygon", "hole", "multi", "overlapping", "nested", "collection", "overlapping-collection", "points-too",
        "lines-too", "z", "m", "zm", "curve",
    ),
    "extra": ("valid", "bowtie", "nan", "inf", "all-inf", "empty", "null", "duplicate", "spike", "touching-hole"),
    "crs": ("same", "other-utm", "geographic", "lon360", "mercator", "nad27", "no-crs", "wrong"),
    "image": ("utm", "utm-west", "degrees-west", "degrees-360", "antimeridian"),
    "field": ("text", "nfc-nfd", "blanks-case", "int", "bigint", "float", "bool", "date", "null", "index", "missing"),
    "container": (
        "frame", "gpkg", "gpkg-no-index", "shp", "geojson", "fgb", "parquet", "parquet-bbox", "csv", "zip", "kml",
        "gml",
    ),
    "read": ("whole", "by-box"),
}  # fmt: skip

IMAGES = {
    "utm": ("EPSG:32632", 601230, 5301710, 10.0, "EPSG:32633", 0),
    "utm-west": ("EPSG:32618", 583960, 4507520, 10.0, "EPSG:32617", 0),
    "degrees-west": ("EPSG:4326", -74.01, 40.71, 1e-4, "EPSG:32618", 0),
    "degrees-360": ("EPSG:4326", 285.99, 40.71, 1e-4, "EPSG:32618", -360),
    "antimeridian": ("EPSG:32760", 818730, 8073500, 10.0, "EPSG:32701", 0),
}
"""CRS, left, top, pixel size, CRS of the neighbouring zone, what brings its longitudes to -180 to 180."""

BOX = partial(shapely.box)
A, B = BOX(6.3, 6.3, 30.3, 26.3), BOX(20.3, 16.3, 46.3, 42.3)
C = shapely.Polygon([(26.3, 20.3), (40.3, 24.3), (28.3, 34.3)])

KINDS: dict[str, Any] = {
    "hole": A - BOX(12.3, 10.3, 16.3, 14.3),
    "multi": shapely.MultiPolygon([BOX(6.3, 6.3, 18.3, 26.3), BOX(22.3, 6.3, 30.3, 26.3)]),
    "overlapping": shapely.MultiPolygon([BOX(6.3, 6.3, 22.3, 20.3), BOX(14.3, 10.3, 30.3, 26.3)]),
    "nested": shapely.MultiPolygon([A, BOX(10.3, 9.3, 20.3, 15.3)]),
    "collection": shapely.GeometryCollection([A, shapely.Point(8, 60), shapely.LineString([(5, 60), (30, 64)])]),
    "overlapping-collection": shapely.GeometryCollection([BOX(6.3, 6.3, 22.3, 20.3), BOX(14.3, 10.3, 30.3, 26.3)]),
    "curve": shapely.Point(18.3, 16.3).buffer(10, quad_segs=256),
}
"""What takes the place of A."""

BOWTIE = shapely.Polygon([(70.3, 10.3), (84.3, 24.3), (84.3, 10.3), (70.3, 24.3)])

NOT_FINITE = shapely.Polygon([(70.3, 10.3), (84.3, 10.3), (84.3, 24.3), (70.3, 24.3)])

EXTRAS: dict[str, Any] = {
    "bowtie": BOWTIE,
    "spike": shapely.Polygon([(70.3, 10.3), (84.3, 10.3), (84.3, 24.3), (90.3, 24.3), (84.3, 24.3), (70.3, 24.3)]),
    "touching-hole": shapely.Polygon(
        [(70.3, 10.3), (84.3, 10.3), (84.3, 24.3), (70.3, 24.3)],
        [[(70.3, 16.3), (76.3, 13.3), (84.3, 16.3), (76.3, 20.3)]],
    ),
}  # fmt: skip
"""Features at another place, which are repaired."""

SAID = {
    "nan": r"finite|NaN|inf\b|vert(ex|ices)|coordinate", "inf": r"finite|NaN|inf\b|vert(ex|ices)|coordinate",
    "all-inf": r"finite|NaN|inf\b|vert(ex|ices)|coordinate|without geometry|empty|not polygons",
    "empty": "empty|without geometry", "null": "without geometry|null", "bowtie": "repaired|invalid",
}  # fmt: skip
"""What must be said of features that are left out or repaired."""

VALUES: dict[str, tuple[Any, Any, Any]] = {
    "text": ("wood", "water", "road"),
    "nfc-nfd": (unicodedata.normalize("NFC", "forêt"), "water", unicodedata.normalize("NFD", "forêt")),
    "blanks-case": ("Wood", "water", " wood"),
    "int": (3, 7, 90),
    "bigint": (1000000000000000001, 1000000000000000002, 1000000000000000003),
    "float": (1.0, 2.0, 3.0),
    "bool": (True, False, True),
    "date": (dt.date(2024, 1, 2), dt.date(2024, 1, 3), dt.date(2024, 1, 4)),
    "null": ("wood", "water", None),
    "index": ("wood", "water", "road"),
    "missing": ("wood", "water", "road"),
}
"""Classes of A, B and C."""

DRIVERS = {
    "gpkg": "GPKG", "gpkg-no-index": "GPKG", "shp": "ESRI Shapefile", "geojson": "GeoJSON", "fgb": "FlatGeobuf",
    "csv": "CSV", "kml": "LIBKML", "gml": "GML",
}  # fmt: skip

ENDINGS = {"gpkg-no-index": "gpkg", "parquet-bbox": "parquet", "zip": "zip"}


@dataclass(frozen=True)
class Vector:
    """A vector file of the corpus, or a frame, and what it covers in the image's pixels."""

    labels: Any
    """As a user gives it."""

    image_crs: str
    transform: Affine
    shapes: tuple[tuple[str | None, Any], ...]
    """Class (None: none) and area in the CRS of the file, from the largest to the smallest."""

    to_file: Any
    """(n, 2) CRS coordinates of the image -> those of the file."""

    refusable: str = ""
    said: tuple[str, ...] = ()

    def classes(self, *, merged: bool = False) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
        """Return the class of each pixel by name, "" outside of all, and True where it is beyond doubt.

        Args:
            merged: True: classes that differ in blanks, case or the form of letters alone are one.
        """
        points, step = self._points()
        names = np.full(points.shape, "", object)
        sure = np.ones(points.shape, bool)
        for name, shape in self.shapes:
            border = shape.boundary
            shapely.prepare((shape, border))
            names[shapely.contains(shape, points)] = _folded(name) if merged else name
            sure &= ~shapely.dwithin(border, points, 0.12 * step)
        return names, sure

    def covered(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return True in pixels that any polygon covers, and True where that is beyond doubt."""
        names, sure = self.classes()
        return names != "", sure

    def footprint(self, row: int, col: int, size: int) -> Any:
        """Return the outline of a window in the CRS of the file."""
        corners = shapely.segmentize(BOX(col, row, col + size, row + size), 8)
        return shapely.transform(corners, lambda xy: self.to_file(_ground(self.transform, xy)))

    def _points(self) -> tuple[NDArray[np.object_], float]:
        cols, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
        places = np.column_stack([cols.ravel(), rows.ravel()])
        xy = self.to_file(_ground(self.transform, places))
        step = float(np.hypot(*(xy[1] - xy[0])))
        return np.asarray(shapely.points(xy), object).reshape(SIZE, SIZE), step


def _folded(name: str | None) -> str | None:
    return None if name is None else unicodedata.normalize("NFC", str(name)).strip().casefold()


def _ground(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack(transform @ (xy[:, 0], xy[:, 1]))


def possible(case: Case) -> bool:
    """Return True if such a file can be written."""
    container, field, extra, crs = case["container"], case["field"], case["extra"], case["crs"]
    return (
        not (case["geometry"] == "curve" and (container != "gpkg-no-index" or crs != "same"))
        and not (case["geometry"] in {"m", "zm"} and container not in {"gpkg", "gpkg-no-index", "frame"})
        and not (container == "kml" and (crs != "geographic" or field not in {"text", "nfc-nfd", "missing"}))
        and not (container == "csv" and (crs != "no-crs" or field == "index"))
        and not (container == "gml" and (crs == "no-crs" or field == "null"))
        and not (container == "geojson" and crs == "no-crs")
        and not (container == "fgb" and extra in {"empty", "null"})
        and not (container == "kml" and extra not in {"valid", "duplicate"})
        and not (extra in {"nan", "inf", "all-inf"} and container in {"geojson", "csv", "kml", "gml", "shp", "zip"})
        and not (field == "bigint" and container in {"shp", "zip"})
        and not (field == "index" and container not in {"frame", "parquet", "parquet-bbox"})
        and not (container in {"frame", "csv", "geojson", "kml", "gml", "zip"} and case["read"] == "by-box")
        and not (container in {"shp", "zip"} and case["geometry"] in {"points-too", "lines-too"})
        and not (container in {"shp", "zip"} and case["geometry"].endswith("collection"))
        and not (crs == "nad27" and case["image"] == "antimeridian")
    )  # fmt: skip


def may_be_refused(case: Case) -> bool:
    """Return True if a file says nothing, or the wrong thing, of where it lies."""
    return case["crs"] in {"no-crs", "wrong"} or case["container"] == "csv"


def all_cases() -> list[Case]:
    """Return the cases: those that must work, in pairs of all their values, and those that may be refused."""
    plain = {name: values[:1] for name, values in FACTORS.items()}
    some = {name: FACTORS[name] for name in ("crs", "image", "container")}
    return [
        *covering_array(FACTORS, lambda case: possible(case) and not may_be_refused(case)),
        *covering_array(plain | some, lambda case: possible(case) and may_be_refused(case))[1:],
    ]


def write_vector(folder: Path, case: Case, stem: str = "labels") -> Vector:
    """Write the labels of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _write(folder, case, stem)


def write_image(path: Path, image: str, bands: int = 3) -> Affine:
    """Write the image that the labels lie on, and return its transform."""
    crs, left, top, cell, _, _ = IMAGES[image]
    transform = Affine(cell, 0, left, 0, -cell, top)
    rows, cols = np.mgrid[:SIZE, :SIZE]
    data = np.stack([1 + (rows // 7 + cols // 9 + band) % 5 for band in range(bands)]).astype("uint8")
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": bands, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as dataset:
        dataset.write(data)
    return transform


def _write(folder: Path, case: Case, stem: str) -> Vector:
    image_crs, left, top, cell, neighbour, turn = IMAGES[case["image"]]
    transform = Affine(cell, 0, left, 0, -cell, top)
    crs, to_file = _projection(case, image_crs, neighbour, turn)
    place = partial(_placed, transform=transform, to_file=to_file)
    shapes, classes = _features(case)
    placed = [None if shape is None else place(shape) for shape in shapes]
    expected = [(name, _area_of(shape, place)) for shape, name in zip(shapes, classes, strict=True)]
    covered = [(name, area) for name, area in expected if area is not None and area.area > 0]
    placed += _broken(case, place)
    classes += [classes[0]] * (len(placed) - len(classes))
    order = sorted(covered, key=lambda item: -item[1].area)
    frame = gpd.GeoDataFrame({"kind": classes}, geometry=placed, crs=crs)
    if case["field"] == "date":
        frame["kind"] = frame["kind"].astype("datetime64[ms]")
    labels = _save(folder, case, frame, stem, place)
    names = tuple((None if name is None else str(name), area) for name, area in order)
    unseen = case["read"] == "by-box" and case["extra"] in {"null", "empty", "all-inf"}  # no box holds them
    said = tuple(filter(None, (None if unseen else SAID.get(case["extra"]), *_said_of_classes(case))))
    return Vector(labels, image_crs, transform, names, to_file, _reason(case), said)


def _said_of_classes(case: Case) -> tuple[str, ...]:
    """Return what must be said of the classes, where labels are read."""
    return {
        "missing": (r"class.field",),
        "null": ("without a class|no class",),
        "blanks-case": ("alike|same|case|blank|differ",),
    }.get(case["field"], ())  # fmt: skip


def _reason(case: Case) -> str:
    if may_be_refused(case):
        return "no CRS, or a wrong one"
    return "dates are no classes" if case["field"] == "date" else ""


def _features(case: Case) -> tuple[list[Any], list[Any]]:
    """Return the shapes in pixels, and their classes."""
    a, b, c = VALUES[case["field"]]
    shapes, classes = [KINDS.get(case["geometry"], A), B, C], [a, b, c]
    if case["geometry"] == "points-too":
        shapes += [shapely.Point(60, 60), shapely.MultiPoint([(10, 70), (12, 70)])]
    if case["geometry"] == "lines-too":
        shapes += [shapely.LineString([(50, 60), (80, 80)])]
    if case["extra"] in EXTRAS:
        shapes.append(EXTRAS[case["extra"]])
    if case["extra"] == "duplicate":
        shapes.append(shapes[0])
    return shapes, classes + [a] * (len(shapes) - 3)


def _broken(case: Case, place: Any) -> list[Any]:
    """Return shapes that cover nothing: such with vertices that are no numbers, empty ones and none."""
    extra = case["extra"]
    if extra in {"nan", "inf", "all-inf"}:
        points = shapely.get_coordinates(place(NOT_FINITE))
        points[1 : 2 if extra != "all-inf" else None] = np.nan if extra == "nan" else np.inf
        if extra == "all-inf":
            points[:] = np.inf
        return [shapely.Polygon(points)]
    return {"empty": [shapely.Polygon()], "null": [None]}.get(extra, [])


def _area_of(shape: Any, place: Any) -> Any:
    """Return what a shape covers, in the CRS of the file; None for points and lines."""
    parts = [place(part) for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    valid = [part if part.is_valid else shapely.make_valid(part, method="structure") for part in parts]
    return shapely.union_all(valid) if valid else None


def _projection(case: Case, image_crs: str, neighbour: str, turn: float) -> tuple[Any, Any]:
    """Return the CRS of the file, and what brings coordinates of the image into it."""
    kind = case["crs"]
    crs = {
        "same": image_crs, "other-utm": neighbour, "geographic": "EPSG:4326", "lon360": "EPSG:4326",
        "mercator": "EPSG:3857", "nad27": "EPSG:4267", "no-crs": None, "wrong": "EPSG:32638",
    }[kind]  # fmt: skip
    if kind in {"same", "no-crs", "wrong"}:
        return crs, lambda xy: xy
    transformer = pyproj.Transformer.from_crs(image_crs, crs, always_xy=True)

    def to_file(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = transformer.transform(xy[:, 0] + turn, xy[:, 1])
        if kind == "lon360" or (kind == "geographic" and case["image"] == "antimeridian"):
            x = np.asarray(x) % 360
        return np.column_stack([x, y])

    if kind == "mercator" and case["image"] == "antimeridian":
        return crs, lambda xy: _past(to_file(xy), 20037508.342789244)
    return crs, to_file


def _past(xy: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Return coordinates that go on behind the edge of the world."""
    xy[:, 0] = np.where(xy[:, 0] < 0, xy[:, 0] + 2 * half, xy[:, 0])
    return xy


def _placed(shape: Any, *, transform: Affine, to_file: Any) -> Any:
    """Return a shape of pixels in the CRS of the file, its edges in steps of a few pixels."""
    if shape.geom_type == "Polygon":  # by its rings, as GEOS repairs a polygon that it divides
        rings = [shapely.segmentize(ring, 4) for ring in (shape.exterior, *shape.interiors)]
        shape = shapely.Polygon(rings[0], rings[1:])
    elif shape.geom_type in {"MultiPolygon", "GeometryCollection"}:
        parts = [_placed(part, transform=transform, to_file=to_file) for part in shape.geoms]
        return type(shape)(parts)
    return shapely.transform(shape, lambda xy: to_file(_ground(transform, xy)))


def _divided(shape: Any) -> Any:
    """Return a shape with longitudes past 180 in parts on both sides of it."""
    if shape is None or shape.is_empty or not np.isfinite(shapely.get_coordinates(shape)).all():
        return shape
    if shape.geom_type not in {"Polygon", "MultiPolygon"} or not shape.is_valid:
        return shapely.transform(shape, lambda xy: np.where(xy > 180, xy - 360, xy)) if shape.bounds[0] > 180 else shape
    east = shapely.intersection(shape, BOX(0, -90, 180, 90))
    west = shapely.transform(shapely.intersection(shape, BOX(180, -90, 360, 90)), lambda xy: xy - (360, 0))
    parts = [part for half in (east, west) for part in shapely.get_parts(half) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts)


def _save(folder: Path, case: Case, frame: gpd.GeoDataFrame, stem: str, place: Any) -> Any:
    if case["crs"] == "geographic" and case["image"] == "antimeridian":
        frame = frame.set_geometry([_divided(shape) for shape in frame.geometry], crs=frame.crs)
    if case["geometry"] in {"z", "m", "zm"}:
        frame = frame.set_geometry([_raised(shape, case["geometry"]) for shape in frame.geometry], crs=frame.crs)
    container = case["container"]
    if case["field"] == "index":
        frame = frame.set_index("kind")
    if container == "frame":
        return frame
    path = folder / f"{stem}.{ENDINGS.get(container, container)}"
    if container.startswith("parquet"):
        frame.to_parquet(path, write_covering_bbox=container == "parquet-bbox")
    elif container == "zip":
        _zip(folder, frame, path)
    else:
        _write_by_gdal(case, frame, path, place)
    return path


def _zip(folder: Path, frame: gpd.GeoDataFrame, path: Path) -> None:
    """Write a shapefile into an archive."""
    inner = folder / "zipped"
    inner.mkdir()
    pyogrio.write_dataframe(frame, inner / f"{path.stem}.shp", driver="ESRI Shapefile")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(inner.iterdir()):
            archive.write(file, file.name)
            file.unlink()
    inner.rmdir()


def _write_by_gdal(case: Case, frame: gpd.GeoDataFrame, path: Path, place: Any) -> None:
    options = {"csv": {"GEOMETRY": "AS_WKT"}, "gpkg-no-index": {"SPATIAL_INDEX": "NO"}}.get(case["container"], {})
    if case["geometry"] in {"m", "zm"}:
        shapes, values = shapely.to_wkb(frame.geometry.to_numpy(), flavor="iso"), frame["kind"].to_numpy()
        crs = frame.crs.to_wkt() if frame.crs else None
        kind = {"driver": "GPKG", "geometry_type": "Unknown"}
        pyogrio.raw.write(path, shapes, [values], ["kind"], crs=crs, **kind, **options)
        return
    if case["geometry"] == "curve":
        options["geometry_type"] = "Unknown"
    pyogrio.write_dataframe(frame, path, driver=DRIVERS[case["container"]], **options)
    if case["geometry"] == "curve":
        _bend(path, place)


def _raised(shape: Any, kind: str) -> Any:
    if shape is None or shape.is_empty:
        return shape
    if kind == "z":
        return shapely.force_3d(shape, 7.0)
    if shape.geom_type != "Polygon":
        return shape
    more = [7.0, 8.0] if kind == "zm" else [8.0]
    rings = []
    for ring in (shape.exterior, *shape.interiors):
        points = shapely.get_coordinates(ring)
        rows = np.hstack([points, np.broadcast_to(more, (len(points), len(more)))])
        rings.append(f"({', '.join(' '.join(f'{number!r}' for number in row) for row in rows.tolist())})")
    return shapely.from_wkt(f"POLYGON {kind.upper()} ({', '.join(rings)})")


def _bend(path: Path, place: Any) -> None:
    """Write the first feature of a GeoPackage anew, as a circle of arcs."""
    centre, radius = np.array([18.3, 16.3]), 10.0
    angles = np.radians([0, 90, 180, 270, 360])
    ring = shapely.LineString(centre + radius * np.column_stack([np.cos(angles), np.sin(angles)]))
    points = shapely.get_coordinates(place_points(ring, place))
    arcs = struct.pack("<BII", 1, 8, 5) + points.astype("<f8").tobytes()
    curve = struct.pack("<BII", 1, 10, 1) + arcs
    with closing(sqlite3.connect(path)) as base, base:
        ((table, column, srs),) = base.execute("SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns")
        header = b"GP" + struct.pack("<BBi", 0, 1, srs)
        base.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE fid = 1', (header + curve,))


def place_points(line: Any, place: Any) -> Any:
    """Place a line without more vertices."""
    options = place.keywords
    return shapely.transform(line, lambda xy: options["to_file"](_ground(options["transform"], xy)))
