"""Class rasters for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from geopsp.core.grid import Grid
from geopsp.core.legend import Legend
from geopsp.core.output import atomic_output
from geopsp.inference.outputs import class_spec
from geopsp.raster.cog.assemble import assemble, single_part
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.legend_io import write_class_files


@contextmanager
def class_raster(
    path: str | Path, grid: Grid, legend: Legend, *, overwrite: bool = False, tags: Mapping[str, str] | None = None
) -> Iterator[PartWriter]:
    """A map of codes, nodata 255, of the rows appended from the top; what GDAL and QGIS know of it lies beside it.

    Raises:
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    path = Path(path)
    spec, part_grid = class_spec(path, legend), single_part(grid.width, grid.height)
    with atomic_output(path, overwrite=overwrite) as partial:
        part = partial.with_name(partial.name + ".part")
        try:
            with PartWriter(
                part, grid.width, grid.height, spec, block=part_grid.block, levels=part_grid.levels
            ) as writer:
                yield writer
            assemble(spec, grid, part_grid, lambda _: part, partial, tags=tags or {})
            write_class_files(path, legend)
        finally:
            part.unlink(missing_ok=True)
