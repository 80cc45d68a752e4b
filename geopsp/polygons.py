"""Class rasters as files of polygons: no gaps, no overlaps, also when merged or simplified."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.errors import GridError, OptionError, OutputError, RasterError
from geopsp.grid import Grid
from geopsp.legend import CLASSES_TAG, Legend
from geopsp.outputs import check_output, whole
from geopsp.rings import Borders, Polygons, borders, build, match_nodes, trace
from geopsp.scene import describe, open_raster, read_legend

DRIVERS = {".gpkg": "GPKG", ".parquet": "GeoParquet", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".json": "GeoJSON"}
"""Vector formats by the ending of the file."""

EDGE = 1000.0
"""Longest edge, in metres, that is taken as a geodesic; longer ones are cut, as they may be no geodesics at all."""


def raster_to_polygons(
    raster: str | Path, out: str | Path, *, simplify: float = 0.0, min_area: float = 0.0, overwrite: bool = False
) -> Path:
    """Every 4-connected region of a class raster is a polygon of the file `out`.

    Code 255 and what the raster declares as nodata or masks out are no polygon. The columns are `code`, `name` and
    `color` (as the raster tells them), `area_m2` (on the ellipsoid) and the geometry, in the raster's CRS; in GeoJSON
    in WGS 84. First small polygons are merged, then outlines simplified, then areas measured.

    Args:
        raster: One band of codes 0 to 254.
        out: A file that ends in .gpkg, .parquet, .fgb, .geojson or .json.
        simplify: In CRS units: a vertex goes while the triangle of it and its two neighbours is smaller than
            `simplify` squared (Visvalingam-Whyatt), so a staircase of single pixels goes from 0.71 pixels on. Borders
            shared by two polygons change for both; nodes where three meet, the frame and the edge of nodata stay.
        min_area: In m2: a polygon smaller than this becomes part of the neighbour with which it shares the longest
            border, the smallest polygon first, until none is left but those with nodata or the frame all around.
            Simplifying afterwards may bring a polygon below it again.
        overwrite: True if `out` may be replaced.

    Raises:
        OptionError: if `simplify` or `min_area` is negative, or the ending of `out` is unknown.
        InputNotFoundError: if there is no such raster.
        RasterError: if it is not a whole raster of one band of codes.
        GridError: if it has no CRS.
        OutputError: if `out` exists and `overwrite` is False, or cannot be written.
    """
    out = Path(out)
    check_vector_output(out, overwrite=overwrite)
    for name, value, unit in (("simplify", simplify, "CRS units"), ("min_area", min_area, "m2")):
        if not (math.isfinite(value) and value >= 0):
            raise OptionError(f"{name} is {value}; needed a number of {unit} from 0 on. Leave it at 0 for none.")
    grid = describe(raster).grid
    rings = match_nodes(trace(raster))
    polygons, codes = build(rings, grid), rings.codes
    if min_area > 0:
        areas = geodesic_area(polygons, grid)
        owners = absorb(codes, areas, borders(rings, grid), min_area=min_area)
        polygons, codes = dissolve(polygons, owners), codes[np.unique(owners)]
    if simplify > 0:
        polygons = shapely.coverage_simplify(polygons, simplify, simplify_boundary=False)
    frame = _table(polygons, codes, grid, legend_for(raster, np.unique(codes).tolist()))
    with whole(out, overwrite=overwrite) as partial:
        _write(frame, partial, out)
    return out


def check_vector_output(out: str | Path, *, overwrite: bool = False) -> Path:
    """The path, where polygons may now be written.

    Raises:
        OptionError: if its ending is unknown.
        OutputError: as `check_output`.
    """
    out = Path(out)
    if out.suffix.lower() not in DRIVERS:
        raise OptionError(f"{out} ends in {out.suffix or 'nothing'!r}; needed one of {', '.join(DRIVERS)}.")
    return check_output(out, overwrite=overwrite)


def absorb(
    codes: NDArray[np.int64], areas: NDArray[np.float64], shared: Borders, *, min_area: float
) -> NDArray[np.int64]:
    """(polygons,) the polygon that each is part of once small ones are merged; that one's code is the code of all.

    The smallest goes first, to the neighbour with the longest border; of equals, to the one of the lower number.
    Neighbours of that neighbour's code that thereby come to touch it become part of it too.
    """
    owner, size = list(range(codes.size)), areas.tolist()
    links = _links(shared, areas < min_area)
    queue = [(size[i], i) for i in np.flatnonzero(areas < min_area).tolist()]
    heapq.heapify(queue)
    while queue:
        area, small = heapq.heappop(queue)
        if owner[small] != small or area != size[small]:
            continue  # it was merged or has grown since
        lengths: dict[int, float] = defaultdict(float)
        for other, length in links.pop(small, []):
            lengths[_find(owner, other)] += length
        lengths.pop(small, None)
        if not lengths:
            continue
        best = max(lengths, key=lambda other: (lengths[other], -other))
        joined = [small, *(other for other in lengths if other != best and codes[other] == codes[best])]
        size[best] += sum(size[part] for part in joined)
        for part in joined:
            owner[part] = best
        if size[best] < min_area:
            links[best] += chain(lengths.items(), *(links.pop(part, []) for part in joined))
            heapq.heappush(queue, (size[best], best))
    return np.array([_find(owner, i) for i in range(codes.size)], np.int64)


def _links(shared: Borders, small: NDArray[np.bool_]) -> defaultdict[int, list[tuple[int, float]]]:
    """Neighbours and lengths of the borders with them, of small polygons only: large ones never ask."""
    links: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    first, second, length = shared
    for one, two in ((first, second), (second, first)):
        ask = small[one]
        for polygon, other, span in zip(one[ask].tolist(), two[ask].tolist(), length[ask].tolist(), strict=True):
            links[polygon].append((other, span))
    return links


def _find(owner: list[int], polygon: int) -> int:
    while owner[polygon] != polygon:
        owner[polygon] = owner[owner[polygon]]
        polygon = owner[polygon]
    return polygon


def dissolve(polygons: Polygons, owners: NDArray[np.int64]) -> Polygons:
    """One polygon for each owner, in the order of the owners."""
    kept, counts = np.unique(owners, return_counts=True)
    merged = polygons[kept]
    groups = np.split(np.argsort(owners, kind="stable"), np.cumsum(counts)[:-1])
    for place in np.flatnonzero(counts > 1):
        merged[place] = shapely.coverage_union_all(polygons[groups[place]])
    return merged


def geodesic_area(polygons: Polygons, grid: Grid) -> NDArray[np.float64]:
    """(polygons,) areas in m2 on the ellipsoid of the grid's CRS; NaN where that has no longitude and latitude.

    Raises:
        GridError: if the CRS is neither geographic nor projected.
    """
    plane = pyproj.CRS.from_user_input(grid.crs)
    geod = plane.get_geod()
    if geod is None:
        raise GridError(f"{plane.name} is a CRS without an ellipsoid; needed a geographic or projected one. Assign it.")
    if not polygons.size:
        return np.empty(0)
    to_degrees = pyproj.Transformer.from_crs(plane, f"+proj=longlat +a={geod.a} +b={geod.b} +type=crs", always_xy=True)
    metres = plane.axis_info[0].unit_conversion_factor * (geod.a if plane.is_geographic else 1)
    longest = max(EDGE / metres, *grid.cell_size)
    _, xy, (rings, starts) = shapely.to_ragged_array(shapely.segmentize(shapely.orient_polygons(polygons), longest))
    lon, lat = to_degrees.transform(*xy.T)
    signed = [geod.polygon_area_perimeter(lon[i:j], lat[i:j])[0] for i, j in pairwise(rings)]
    areas = np.add.reduceat(signed, starts[:-1]) * _handedness(to_degrees, geod, polygons[0])
    earth = 8 * geod.polygon_area_perimeter([0, 90, 0], [0, 0, 90])[0]
    # rings of more than half an Earth, as an ocean's frame in a world map, come out short by one Earth
    return np.where(areas < 0, areas + earth, areas)


def _handedness(to_degrees: pyproj.Transformer, geod: pyproj.Geod, polygon: Any) -> float:
    """-1 for a CRS whose axes run such that the map is mirrored, else 1."""
    x, y = shapely.get_coordinates(polygon.centroid)[0]
    step = polygon.length / 1e3
    lon, lat = to_degrees.transform([x, x + step, x], [y, y, y + step])
    return -1.0 if geod.polygon_area_perimeter(lon, lat)[0] < 0 else 1.0


def legend_for(raster: str | Path, codes: Sequence[int]) -> Legend:
    """Names and colours of the codes: from our tag, else `class N` in the colour table's or distinct colours.

    Raises:
        RasterError: if our tag is damaged.
    """
    try:
        told = {info.code: info for info in read_legend(raster) or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise RasterError(f"{raster} has a damaged {CLASSES_TAG} tag ({error!r}). Rewrite or remove it.") from error
    names, colors = {code: f"class {code}" for code in codes}, _palette(raster)
    names.update((code, told[code].name) for code in codes if code in told)
    colors.update((code, info.color) for code, info in told.items())
    return Legend.from_names(names, colors)


def _palette(raster: str | Path) -> dict[int, str]:
    with open_raster(raster) as dataset:
        try:
            table = dataset.colormap(1)
        except ValueError:  # it has none
            return {}
    return {code: f"#{r:02x}{g:02x}{b:02x}" for code, (r, g, b, _) in table.items()}


def _table(polygons: Polygons, codes: NDArray[np.int64], grid: Grid, legend: Legend) -> Any:
    places = np.searchsorted(legend.codes, codes)
    columns = {
        "code": codes,
        "name": np.array(legend.names, object)[places],
        "color": np.array([info.color for info in legend], object)[places],
        "area_m2": geodesic_area(polygons, grid),
    }
    return geopandas.GeoDataFrame(columns, geometry=polygons, crs=grid.crs.to_wkt(version="WKT2_2019"))


def _write(frame: Any, partial: Path, out: Path) -> None:
    driver = DRIVERS[out.suffix.lower()]
    options = {"RFC7946": "YES"} if driver == "GeoJSON" else {}
    try:
        if driver == "GeoParquet":
            frame.to_parquet(partial, index=False)
        else:
            pyogrio.write_dataframe(
                frame, partial, driver=driver, layer=out.stem, geometry_type="Polygon", layer_options=options
            )
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{out} cannot be written ({error}). Is the disk full?") from error
