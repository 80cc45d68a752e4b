"""Write a class raster as a file of polygons without gaps or overlaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import rasterio

from geopsp.cluster.client import opened_client
from geopsp.core.addresses import OutputPath
from geopsp.core.jit import compile_ahead
from geopsp.core.lock import output_lock
from geopsp.core.options import check_nodata, describes, from_names, require_path
from geopsp.core.output import write_errors
from geopsp.core.progress import Progress, progress_bar
from geopsp.core.temporary_folder import temporary_folder
from geopsp.polygons.attributes import AttributeTable, file_classes, legend_for
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.options import PolygonOptions, PolygonSettings
from geopsp.polygons.polygonizer import Polygonizer, compiled_modules
from geopsp.polygons.regions.clean import clean_raster
from geopsp.polygons.wkb import MAX_BYTES
from geopsp.vector.formats import ENDINGS, format_of
from geopsp.vector.qgis_style import write_style
from geopsp.vector.write import Rows, check_vector_output, packing, write_vector

GDAL_CACHE_BYTES = 2**29
"""Bytes of blocks that GDAL keeps, as cells share some: a row of cells of 200,000 columns."""


@describes(PolygonOptions, endings=ENDINGS)
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
    nodata: int | str | None = None,
    overwrite: bool = False,
    client: Any = None,
    scheduler: str | None = None,
) -> Path:
    """Write the regions of a class raster as polygons, and return the path of the file.

    Nodata and masked pixels become no polygons, nor does 255 unless the raster is a mask of 0 and 255. The columns are
    `code`, `name`, `color` (from the raster), `area_m2` and `perimeter_m` (on the ellipsoid), `confidence` (mean) and
    `edge_unsure` (fraction of the border pixels below 0.5) if a confidence raster is given, `moved_m` if `regularize`
    is, and a point inside (`point_x`, `point_y`).
    The geometry is in the raster's CRS; in GeoJSON in WGS 84.

    The steps are, in this order: fill holes, merge small regions, select classes, simplify, smooth, measure. The raster
    is read in cells, so that memory does not grow with its height. Regions to clean, and polygons to dissolve or to
    regularize, are kept in files beside `out` meanwhile.

    Simplifying changes an area by less than `simplify` squared per removed vertex, and may bring a polygon below
    `min_area` again. The tolerance is nowhere exceeded on the ground: where the size of pixels varies within 2,048
    pixels, as in world maps in degrees, the largest counts. The area of a simplified or smoothed polygon is its pixel
    count times the mean pixel area of the region: exact to about 1e-4, but off by percents in geographic rasters with
    pixels as large as a degree.

    Args:
        raster: One band of class codes, perhaps with alpha: 0 to 254, or in other types than uint8 at most 255
            different whole numbers of any size, also stored as floats.
        out: The file to write; it ends in {endings}.
        {options}

    Raises:
        OptionError: if an option is out of range, two contradict each other, or the ending of `out` is unknown.
        InputNotFoundError: if there is no such raster.
        RasterError: if it is not a complete raster with one band of class codes, or has too many classes.
        GridError: if it has no CRS, or the confidence raster lies on another grid.
        OutputError: if `out` exists and `overwrite` is False, it cannot be written or cannot hold a polygon, or another
            run writes to it.
    """
    from_names(PolygonOptions, locals())
    settings = from_names(PolygonSettings, locals())  # without the client, as it is sent to workers
    nodata_value = check_nodata("nodata", nodata)
    require_path("raster", raster)
    require_path("out", out)
    asked, out = OutputPath(out), check_vector_output(out, overwrite=overwrite)
    compile_ahead(compiled_modules(settings))
    with (
        output_lock(out),
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES),
        ClassRaster.open(raster, nodata=nodata_value) as class_raster,
        progress_bar("Polygons") as progress,
    ):
        class_raster.number_values(asked=nodata_value)
        grid, values = class_raster.grid, class_raster.values
        metric, legend = GroundMetric.from_grid(grid), legend_for(raster, values)
        classes = file_classes(legend, values)
        confidence_raster = None if confidence is None else Confidence.open(confidence, grid)
        table = AttributeTable(
            grid, metric, legend, values, has_confidence=confidence is not None, has_moved=bool(regularize),
            in_wgs84=format_of(out).is_wgs84,
        )  # fmt: skip
        settings.selected_codes(legend, values)  # an unknown class is an error before anything is read
        with (
            opened_client(client, scheduler) as found,
            _traced(class_raster, confidence_raster, settings, table, out, progress, client=found) as batches,
        ):
            codes = write_vector(
                batches,
                table.schema,
                out,
                crs=grid.crs.to_wkt(version="WKT2_2019"),
                legend=classes,
                multi=settings.may_be_multi,
                resolution=metric.pixel_side,
                overwrite=overwrite,
            )
        if not format_of(out).has_own_style:
            write_style(out, [info for info in classes if info.code in codes or info.name != f"class {info.code}"])
    return asked


@contextmanager
def _traced(
    raster: ClassRaster,
    confidence: Confidence | None,
    settings: PolygonSettings,
    table: AttributeTable,
    out: Path,
    progress: Progress,
    *,
    client: Any,
) -> Iterator[Iterator[Rows]]:
    """Yield the rows of all polygons, cleaned first if asked for."""
    most = min(format_of(out).max_geometry_bytes or MAX_BYTES, MAX_BYTES)
    with (
        _work_folder(settings, out) as folder,
        clean_raster(
            raster, table.metric, min_area=settings.min_area, fill_holes=settings.fill_holes, folder=folder,
            progress=progress,
        ) as cleaned,
    ):  # fmt: skip
        pack = packing(out, table.schema, multi=settings.may_be_multi)
        polygonizer = Polygonizer(settings, table, folder, most, pack)
        with closing(polygonizer.batches(cleaned, confidence, progress, client=client)) as batches:
            yield batches


@contextmanager
def _work_folder(settings: PolygonSettings, out: Path) -> Iterator[Path]:
    """Yield a new folder beside `out`, or that of `out` if no temporary files are needed."""
    if not (settings.min_area or settings.fill_holes or settings.needs_all_features):
        yield out.parent
        return
    with write_errors(out), temporary_folder(out) as folder:
        yield folder
