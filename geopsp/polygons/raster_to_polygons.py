"""Write a class raster as a file of polygons without gaps or overlaps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from geopsp.core.full_disk import full_disk_hint
from geopsp.core.jit import compile_ahead
from geopsp.core.options import describes, from_names
from geopsp.core.output import output_lock, partial_path
from geopsp.core.progress import Progress, progress_bar
from geopsp.errors import OutputError
from geopsp.polygons.attributes import AttributeTable, legend_for
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.options import PolygonOptions, PolygonSettings
from geopsp.polygons.polygonizer import Polygonizer, compiled_modules
from geopsp.polygons.regions.clean import clean_raster
from geopsp.vector.formats import ENDINGS, format_of
from geopsp.vector.write import check_vector_output, write_vector


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
        out: The file to write; it ends in {endings}.
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
    compile_ahead(compiled_modules(settings))
    with output_lock(out), ClassRaster.open(raster) as class_raster, progress_bar("Polygons") as progress:
        grid = class_raster.grid
        metric, legend = GroundMetric.from_grid(grid), legend_for(raster)
        confidence_raster = None if confidence is None else Confidence.open(confidence, grid)
        table = AttributeTable(
            grid,
            metric,
            legend,
            has_confidence=confidence_raster is not None,
            has_moved=bool(regularize),
            in_wgs84=format_of(out).is_wgs84,
        )
        settings.selected_codes(legend)  # an unknown class is an error before anything is read
        with _cleaned(class_raster, metric, settings, out, progress) as cleaned:
            polygonizer = Polygonizer(settings, table)
            with closing(polygonizer.batches(cleaned, confidence_raster, progress)) as batches:  # ends its threads
                write_vector(
                    batches,
                    table.schema,
                    out,
                    crs=grid.crs.to_wkt(version="WKT2_2019"),
                    legend=legend,
                    multi=settings.may_be_multi,
                    overwrite=overwrite,
                )
    return asked


@contextmanager
def _cleaned(
    raster: ClassRaster, metric: GroundMetric, settings: PolygonSettings, out: Path, progress: Progress
) -> Iterator[ClassRaster]:
    """Yield the raster to trace; if holes are filled or regions merged, a temporary one beside `out`."""
    min_area, fill_holes = settings.min_area, settings.fill_holes
    if not (min_area or fill_holes):
        yield raster
        return
    with (
        _temporary_folder(out) as folder,
        clean_raster(
            raster, metric, min_area=min_area, fill_holes=fill_holes, folder=folder, progress=progress
        ) as cleaned,
    ):
        yield cleaned


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` and delete it at the end; one left by an interrupted run is deleted first."""
    folder = out.with_name(f"{partial_path(out).name}.cleaned")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"Cannot create the temporary folder {folder}: {error}. Delete what is there, or choose a shorter name or "
            f"another folder for the output.{full_disk_hint(error)}"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
