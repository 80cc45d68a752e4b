"""Class rasters as files of polygons: no gaps, no overlaps, also when merged, simplified or smoothed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.output import output_lock, partial_path
from geopsp.core.progress import Progress, progress_bar
from geopsp.errors import OutputError
from geopsp.polygons.attributes import AttributeTable, legend_for
from geopsp.polygons.borders.topology import Polygons
from geopsp.polygons.borders.trace_raster import trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.options import Classes, PolygonSettings, check_switch
from geopsp.polygons.polygonizer import Polygonizer
from geopsp.polygons.regions.clean import clean_raster
from geopsp.vector.write import DRIVERS, check_vector_output, write_vector


def raster_to_polygons(
    raster: str | Path,
    out: str | Path,
    *,
    connectivity: int = 4,
    simplify: float = 0.0,
    smooth: int = 0,
    min_area: float = 0.0,
    fill_holes: float = 0.0,
    keep: Classes | None = None,
    drop: Classes | None = None,
    dissolve: bool = False,
    regularize: bool | float = False,
    confidence: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Every region of a class raster is a polygon of the file `out`.

    Code 255 and what the raster declares as nodata or masks out are no polygon. The columns are `code`, `name` and
    `color` (as the raster tells them), `area_m2` and `perimeter_m` (on the ellipsoid), `confidence` (mean) and
    `edge_unsure` (share of the pixels at the outline under 0.5) where a confidence raster is given, `moved_m` of
    regularized ones, a point inside (`point_x`, `point_y`) and the geometry, in the raster's CRS; in GeoJSON in WGS 84.
    The area of a simplified or smoothed outline is that of its pixels times the mean ground of the region's own: to
    about 1e-4 in usual rasters, but off by percents in geographic ones as coarse as a degree.

    The raster is read in cells; memory is bounded by the polygons that go on from one row of cells to the next,
    where nothing is cleaned, dissolved or regularized. First holes are filled, then small regions merged, then classes
    chosen, outlines simplified, smoothed, measured.

    Args:
        raster: One band of codes 0 to 254.
        out: A file that ends in .gpkg, .parquet, .fgb, .geojson, .json or .shp.
        connectivity: 4, or 8: pixels of one code that share only a corner belong to one feature, a multipolygon.
        simplify: In CRS units: a vertex goes while the triangle of it and its two neighbours is smaller than
            `simplify` squared (Visvalingam-Whyatt), so a staircase of single pixels goes from 0.71 pixels on. Borders
            shared by two polygons change for both; nodes where three meet, the frame and the edge of nodata stay. An
            area changes by less than `simplify` squared for each vertex that its outline loses.
        smooth: Rounds of corner cutting, 2 or 3 look smooth. What stays when simplifying stays here. Borders are
            rounded over the sides of cells as anywhere else. No border moves by 4 pixels or more.
        min_area: In m2: a region smaller than this becomes part of the neighbour with which it shares the longest
            border, the smallest first, until none is left but those with nodata or the frame all around. Simplifying
            afterwards may bring a polygon below it again.
        fill_holes: In m2: what lies in a hole smaller than this, nodata or other classes, becomes part of the polygon
            around.
        keep: Names or codes of the classes that are written; None: all.
        drop: Those that are not.
        dissolve: True for one feature a class, a multipolygon.
        regularize: True for right-angled outlines of the classes kept, as buildings have, none of whose corners moved
            further than two pixels; or a number of metres instead. Others stay as they are. `moved_m` tells how far.
        confidence: A raster of the same grid, of how sure the map is of each pixel.
        overwrite: True if `out` may be replaced.

    Raises:
        OptionError: if an option is out of range, two contradict each other, or the ending of `out` is unknown.
        InputNotFoundError: if there is no such raster.
        RasterError: if it is not a whole raster of one band of codes.
        GridError: if it has no CRS, or the confidence raster lies on another grid.
        OutputError: if `out` exists and `overwrite` is False, cannot be written, or another run writes to it.
    """
    settings = PolygonSettings(connectivity, simplify, smooth, min_area, fill_holes, keep, drop, dissolve, regularize)
    check_switch("overwrite", overwrite)
    asked, out = Path(out), check_vector_output(out, overwrite=overwrite)
    with output_lock(out), ClassRaster.open(raster) as codes, progress_bar("Polygons") as progress:
        metric, legend = GroundMetric.of(codes.grid), legend_for(raster)
        sure = None if confidence is None else Confidence.open(confidence, codes.grid)
        in_degrees = DRIVERS[out.suffix.lower()] == "GeoJSON"
        table = AttributeTable(
            codes.grid, metric, legend, has_confidence=sure is not None, moved=bool(regularize), in_wgs84=in_degrees
        )
        settings.selected_codes(legend)  # a class that there is not is told before anything is done
        with _cleaned(codes, metric, settings, out, progress) as clean:
            crs = codes.grid.crs.to_wkt(version="WKT2_2019")
            with closing(Polygonizer(settings, table).batches(clean, sure, progress)) as batches:  # threads end with it
                write_vector(
                    batches, table.schema, out, crs=crs, legend=legend, multi=settings.may_be_multi, overwrite=overwrite
                )
    return asked


def trace_polygons(
    raster: str | Path, *, connectivity: int = 4, threads: int | None = None
) -> tuple[Polygons, NDArray[np.uint8]]:
    """The polygons of a class raster in its CRS, as shapely has them, and their codes.

    Raises:
        InputNotFoundError, RasterError, GridError: as `raster_to_polygons`.
    """
    with ClassRaster.open(raster) as codes:
        shapes = partial(_with_codes, grid=codes.grid)
        found = list(
            trace_raster(codes, GroundMetric.of(codes.grid), shapes, connectivity=connectivity, threads=threads)
        )
    return np.concatenate([shapes for shapes, _ in found]), np.concatenate([codes for _, codes in found])


def _with_codes(features: Features, grid: Grid) -> tuple[Polygons, NDArray[np.uint8]]:
    return features.shapes(grid.transform), features.codes


@contextmanager
def _cleaned(
    codes: ClassRaster, metric: GroundMetric, settings: PolygonSettings, out: Path, progress: Progress
) -> Iterator[ClassRaster]:
    """The raster of which polygons are made; if anything is cleaned, another one that lies beside `out` meanwhile."""
    least, hole = settings.min_area, settings.fill_holes
    if not (least or hole):
        yield codes
        return
    with (
        _scratch(out) as folder,
        clean_raster(codes, metric, min_area=least, fill_holes=hole, folder=folder, progress=progress) as clean,
    ):
        yield clean


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside `out` that goes with the block; what a killed run left there goes first."""
    folder = out.with_name(f"{partial_path(out).name}.cleaned")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"The temporary folder {folder} cannot be made ({error}). Remove what lies there, choose a shorter name or "
            "another place, or make room on the disk."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
