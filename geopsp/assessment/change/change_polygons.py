"""Polygons of the changed regions, with both class names and confidences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from geopsp.assessment.change.change_codes import ChangeCodes
from geopsp.assessment.change.map_on_grid import ConfidenceOnGrid, ConfidencePair
from geopsp.core.legend import Legend
from geopsp.core.progress import progress_bar
from geopsp.polygons.attributes import AttributeTable
from geopsp.polygons.borders.trace_raster import trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import ConfidenceSource
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.raster.legend_io import read_legend
from geopsp.vector.formats import format_of
from geopsp.vector.qgis_style import write_style
from geopsp.vector.write import write_vector

COMPILED = (
    "core.connected_regions", "polygons.ground_metric", "polygons.zonal_stats", "polygons.attributes", "polygons.wkb",
    "polygons.borders.trace_arcs", "polygons.borders.trace_cell", "polygons.borders.rings", "polygons.borders.topology",
    "polygons.borders.stitch", "polygons.borders.seam_nodes",
)  # fmt: skip
"""Modules with compiled functions that tracing needs."""

Confidences = tuple[ConfidenceOnGrid | None, ConfidenceOnGrid | None]
"""Of the first and of the second map."""


def write_change_polygons(
    raster: Path,
    out: Path,
    codes: ChangeCodes,
    *,
    confidences: Confidences = (None, None),
    metric: GroundMetric,
    overwrite: bool = False,
) -> None:
    """Write a polygon for each changed region of a raster of changes: 4-connected pixels of one code.

    Columns: code, name, color, from_class, to_class, area_m2, perimeter_m, confidence_a and confidence_b where they are
    given (means of the pixels), point_x, point_y.

    Args:
        raster: The raster of changes.
        out: The file.
        codes: Its codes.
        confidences: Of both maps, on its grid.
        metric: Pixel sizes of its grid.
        overwrite: True to replace `out`.

    Raises:
        RasterError: if a raster cannot be read.
        OutputError: if `out` exists and `overwrite` is False, or cannot be written.
    """
    legend = read_legend(raster) or Legend(())
    given = [each for each in confidences if each is not None]
    with ClassRaster.open(raster) as source, progress_bar("Polygons") as progress:
        table = AttributeTable(
            source.grid,
            metric,
            legend,
            has_confidence=bool(given),
            has_second=len(given) > 1,
            in_wgs84=format_of(out).is_wgs84,
        )
        columns = _Columns(table.schema, codes.pair_names(), _confidence_names(confidences))
        batches = trace_raster(
            source,
            metric,
            _maker(table, columns),
            selected=codes.is_change,
            confidence=_source(given),
            progress=progress,
        )
        with closing(batches):
            written = write_vector(
                batches,
                columns.schema,
                out,
                crs=source.grid.crs.to_wkt(version="WKT2_2019"),
                legend=legend,
                resolution=metric.pixel_side,
                overwrite=overwrite,
            )
    if not format_of(out).has_own_style:
        write_style(out, [info for info in legend if info.code in written])


def _source(given: list[ConfidenceOnGrid]) -> ConfidenceSource | None:
    return None if not given else given[0] if len(given) == 1 else ConfidencePair(given[0], given[1])


def _confidence_names(confidences: Confidences) -> dict[str, str]:
    """Return the new names of the columns of confidences."""
    names = [f"confidence_{letter}" for letter, each in zip("ab", confidences, strict=True) if each is not None]
    return dict(zip(("confidence", "confidence_2"), names, strict=False))


def _maker(table: AttributeTable, columns: _Columns) -> Callable[[Features], pa.RecordBatch]:
    return lambda features: columns.of_changes(table.to_batch(features))


class _Columns:
    """The columns of changes, made of those of class polygons."""

    def __init__(
        self, schema: pa.Schema, names: Mapping[int, tuple[str, str] | None], confidences: Mapping[str, str]
    ) -> None:
        self._kept = [name for name in schema.names[3:] if name != "edge_unsure"]
        self._first = schema.names[:3]
        self._pairs = [
            pa.array([(names.get(code) or (None, None))[side] for code in range(256)], pa.string()) for side in (0, 1)
        ]
        fields = [schema.field(name) for name in self._first]
        fields += [pa.field(name, pa.string()) for name in ("from_class", "to_class")]
        fields += [schema.field(name).with_name(confidences.get(name, name)) for name in self._kept]
        self.schema = pa.schema(fields)

    def of_changes(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with both class names, without `edge_unsure`."""
        codes = pa.array(np.asarray(batch.column("code")).astype(np.int32))
        first = [batch.column(name) for name in self._first]
        pairs = [each.take(codes) for each in self._pairs]
        return pa.record_batch([*first, *pairs, *(batch.column(name) for name in self._kept)], schema=self.schema)
