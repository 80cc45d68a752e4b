"""Class rasters as files of polygons: no gaps, no overlaps, also when merged, simplified or smoothed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.options import describes, from_names
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
from geopsp.polygons.options import PolygonOptions, PolygonSettings
from geopsp.polygons.polygonizer import Polygonizer
from geopsp.polygons.regions.clean import clean_raster
from geopsp.vector.formats import format_of
from geopsp.vector.write import check_vector_output, write_vector


@describes(PolygonOptions)
def raster_to_polygons(
    raster: str | Path,
    out: str | Path,
    *,
    connectivity: int = 4,
    simplify: float = 0.0,
    smooth: int = 0,
    min_area: float = 0.0,
    fill_holes: float = 0.0,
    keep: Sequence[str | int] | None = None,
    drop: Sequence[str | int] | None = None,
    dissolve: bool = False,
    regularize: bool | float = False,
    confidence: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the regions of a class raster as polygons, and return the path of the file.

    Code 255, nodata and masked pixels become no polygons. The columns are `code`, `name` and `color` (from the raster),
    `area_m2` and `perimeter_m` (on the ellipsoid), `confidence` (mean) and `edge_unsure` (fraction of the border pixels
    below 0.5) if a confidence raster is given, `moved_m` if `regularize` is, and a point inside (`point_x`, `point_y`).
    The geometry is in the raster's CRS; in GeoJSON in WGS 84.

    The steps are, in this order: fill holes, merge small regions, select classes, simplify, smooth, measure. The raster
    is read in cells, so that memory does not grow with its height; it does if regions are cleaned, dissolved or
    regularized.

    Simplifying changes an area by less than `simplify` squared per removed vertex, and may bring a polygon below
    `min_area` again. The area of a simplified or smoothed polygon is its pixel count times the mean pixel area of the
    region: exact to about 1e-4, but off by percents in geographic rasters with pixels as large as a degree.

    Args:
        raster: One band of class codes, 0 to 254.
        out: The file to write; it ends in .gpkg, .parquet, .fgb, .geojson, .json or .shp.
        {options}

    Raises:
        OptionError: if an option is out of range, two contradict each other, or the ending of `out` is unknown.
        InputNotFoundError: if there is no such raster.
        RasterError: if it is not a complete raster with one band of class codes.
        GridError: if it has no CRS, or the confidence raster lies on another grid.
        OutputError: if `out` exists and `overwrite` is False, it cannot be written, or another run writes to it.
    """
    settings = from_names(PolygonOptions, locals())
    asked, out = Path(out), check_vector_output(out, overwrite=overwrite)
    with output_lock(out), ClassRaster.open(raster) as codes, progress_bar("Polygons") as progress:
        metric, legend = GroundMetric.of(codes.grid), legend_for(raster)
        sure = None if confidence is None else Confidence.open(confidence, codes.grid)
        in_degrees = format_of(out).is_wgs84
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
