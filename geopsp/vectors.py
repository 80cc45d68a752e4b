"""Polygons from any vector file: read, repaired, counted, and found on a grid through a spatial index."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.errors import GeopspError, InputNotFoundError, LabelError
from geopsp.grid import Grid

LAYER = "|layername="
"""Between a file and one of its layers, as QGIS writes it."""


@dataclass(slots=True, eq=False)
class PolygonIndex:
    """Polygons, reprojected vertex by vertex into any CRS that is asked for, and found through a spatial index."""

    shapes: gpd.GeoSeries
    _by_crs: dict[str, tuple[NDArray[np.object_], shapely.STRtree]] = field(default_factory=dict)

    def within(self, crs: CRS) -> tuple[NDArray[np.object_], shapely.STRtree]:
        """The polygons in a CRS, None where they have no place in it, and their index."""
        key = crs.to_wkt()
        if key not in self._by_crs:
            shapes = self.shapes.to_crs(key).to_numpy()
            shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1)] = None
            self._by_crs[key] = shapes, shapely.STRtree(shapes)
        return self._by_crs[key]

    def hits(self, grid: Grid) -> tuple[NDArray[np.object_], NDArray[np.intp]]:
        """The polygons that touch the grid, and their positions, ascending."""
        shapes, tree = self.within(grid.crs)
        found = np.sort(tree.query(shapely.polygons(grid.corners()), predicate="intersects"))
        return shapes[found], found

    def require_overlap(self, grid: Grid, source: str) -> None:
        """Nothing, if a polygon touches the grid.

        Raises:
            LabelError: if none does; says how far away they are.
        """
        if len(self.hits(grid)[1]):
            return
        shapes, _ = self.within(grid.crs)
        away = float(np.nanmin(shapely.distance(shapes, shapely.polygons(grid.corners())), initial=np.inf))
        raise LabelError(miss(source, grid, shapely.total_bounds(shapes), away))


def miss(source: str, grid: Grid, bounds: NDArray[np.float64], away: float) -> str:
    """What is wrong where labels lie `away` from the grid."""
    unit = grid.crs.linear_units if grid.crs.is_projected else "degrees"
    left, bottom, right, top = bounds
    return (
        f"The labels of {source} miss the image by {away:,.6g} {unit}: in the image's CRS they lie at "
        f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}, the image is {grid!r}. "
        "Check that both have the right CRS and show the same place."
    )


def read_vector(
    labels: str | Path | gpd.GeoDataFrame, *, field_wanted: str | None = None, layer_wanted: str | None = None
) -> tuple[gpd.GeoDataFrame, str]:
    """The features of a layer and the words that name it.

    Of several layers, the only one with the field wanted is taken, or the one named `layer_wanted`, or the first.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if it is not a vector file, or has no CRS.
    """
    if isinstance(labels, gpd.GeoDataFrame):
        frame, source = labels, "the GeoDataFrame"
    else:
        name, _, layer = str(labels).partition(LAYER)
        if not Path(name).exists():
            raise InputNotFoundError(f"No such file: {name}. Check the path.")
        frame, source = _read_file(name, layer, field_wanted, layer_wanted)
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None or not len(frame):
        raise LabelError(f"{source} holds no polygons; needed at least one.")
    if frame.crs is None:
        raise LabelError(f"{source} has no CRS (coordinate reference system). Assign the right one first.")
    return frame, source


def _read_file(
    name: str, layer: str, field_wanted: str | None, layer_wanted: str | None
) -> tuple[gpd.GeoDataFrame, str]:
    source = name
    try:
        if Path(name).suffix.lower() == ".parquet":
            return gpd.read_parquet(name), source
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # measures are lost: only the area counts
            layer = _choose_layer(name, layer, field_wanted, layer_wanted)
            source = f"{name} (layer {layer})"
            return pyogrio.read_dataframe(name, layer=layer), source
    except GeopspError:
        raise
    except (RuntimeError, ValueError, OSError, shapely.errors.ShapelyError) as error:
        raise LabelError(f"{source} cannot be read as polygons ({error}). Repair or export it again.") from error


def _choose_layer(path: str, layer: str, field_wanted: str | None, layer_wanted: str | None) -> str:
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    except pyogrio.errors.DataSourceError as error:
        raise LabelError(f"{path} cannot be read as vector data ({error}); needed e.g. a GeoPackage.") from error
    if not layers:
        raise LabelError(f"{path} holds no layer with geometries; needed polygons.")
    if layer:
        if layer not in layers:
            raise InputNotFoundError(f"{path} has no layer {layer!r}; it has {', '.join(layers)}.")
        return layer
    if layer_wanted in layers:
        return str(layer_wanted)
    if field_wanted is not None:
        having = [name for name in layers if field_wanted in pyogrio.read_info(path, layer=name)["fields"]]
        if len(having) > 1:
            raise LabelError(
                f"{path} has the field {field_wanted!r} in several layers: {', '.join(having)}. "
                f"Name one: {path}{LAYER}{having[0]}"
            )
        return (having or layers)[0]
    return layers[0]


def clean(frame: gpd.GeoDataFrame, source: str) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """Valid polygons only, in file order, and what was done to the others."""
    null = frame.geometry.isna()
    empty = frame.geometry.is_empty & ~null
    frame = frame[~(null | empty)]
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    invalid = ~shapely.is_valid(shapes)
    shapes[invalid] = shapely.make_valid(shapes[invalid])
    areal = np.isin(shapely.get_type_id(shapes), (3, 6))
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    shapes[mixed] = [_areal_part(shape) for shape in shapes[mixed]]
    keep = (areal | mixed) & (shapely.area(shapes) > 0)
    counts = {
        "polygons": int(keep.sum()),
        "repaired": int((invalid & keep).sum()),
        "null": int(null.sum()),
        "empty": int(empty.sum()),
        "not_polygons": int((~keep).sum()),
    }
    if not keep.any():
        found = ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "nothing"
        raise LabelError(f"{source} holds no polygons ({found}); needed at least one. Buffer points and lines first.")
    return frame[keep].set_geometry(gpd.GeoSeries(shapes[keep], index=frame.index[keep], crs=frame.crs)), counts


def _areal_part(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if shapely.area(part) > 0]
    return shapely.union_all(parts)
