"""Estimate the accuracy of a map and the areas of its classes from reference labels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd

from geopsp.assessment.accuracy.assess_options import AssessOptions, PointDesign
from geopsp.assessment.accuracy.assessed_points import AssessedPoints, OpenMap
from geopsp.assessment.accuracy.label_accuracy import accuracy_of_labels
from geopsp.assessment.accuracy.layer_reference import points_of_layer
from geopsp.assessment.accuracy.map_accuracy import MapAccuracy
from geopsp.assessment.accuracy.point_accuracy import accuracy_of_points
from geopsp.assessment.accuracy.sample_reference import points_of_sample
from geopsp.assessment.sampling.pixel_counts import PixelAreas
from geopsp.assessment.sampling.sample_file import DESIGN, POINTS, STRATA, Sample, read_sample
from geopsp.core.argument_names import did_you_mean
from geopsp.core.jit import compile_ahead
from geopsp.core.options import check_nodata, describes, from_names, require_path
from geopsp.core.progress import progress_bar
from geopsp.core.text import format_count
from geopsp.core.warnings_log import collect_warnings
from geopsp.errors import LabelError, OptionError
from geopsp.labels.class_mapping import read_mapping
from geopsp.labels.read_labels import is_raster, read_labels
from geopsp.polygons.class_raster import ClassRaster
from geopsp.vector.geopackage import has_tables
from geopsp.vector.open import open_layer

if TYPE_CHECKING:
    from geopsp.vector.layer import VectorLayer

logger = logging.getLogger(__name__)


@describes(AssessOptions)
def assess_map(
    class_map: str | Path,
    reference: str | Path | gpd.GeoDataFrame | Sample,
    *,
    reference_field: str | None = None,
    design: PointDesign | None = None,
    class_mapping: Mapping[Any, Any] | str | Path | None = None,
    where: str | None = None,
    background: Literal["ignore", "class"] = "ignore",
    merge_strata: bool = False,
    confidence_level: float = 0.95,
    nodata: int | str | None = None,
    label_nodata: int | str | None = None,
) -> MapAccuracy:
    """Estimate the accuracy of a map and the areas of its classes, with standard errors and confidence intervals.

    The reference is one of these:

    - a sample of `draw_sample` whose field `reference` was filled in. The design in the file says which estimators fit:
      of Olofsson et al. (2014) where strata are the classes of the map, of Stehman (2014) where they are not, and of
      Stehman (1997) for clusters. A simple random sample is post-stratified by the mapped classes. The map may be
      another one than was sampled.
    - other points with a class in `reference_field`. As long as `design` is not given, their accuracies are shares of
      these points, without intervals.
    - polygons or a raster: all pixels that they label are compared. There is no sampling error then, but nothing is
      known of the rest of the map.

    Areas are hectares on the ellipsoid: a pixel of a geographic or Mercator grid counts by its area. Intervals are
    those of the normal distribution, of cluster samples of Student's t with one degree of freedom less than clusters;
    they are cut off at 0, those of accuracies also at 1. The finite population correction is applied. The map is read
    in blocks, and of a sample of it only the blocks with points.

    Args:
        class_map: One band of class codes, as for `raster_to_polygons`.
        reference: A sample, a vector file (also `file|layername=layer`), a GeoDataFrame or a label raster.
        {options}

    Raises:
        OptionError: if an option is out of range, or does not apply to such a reference.
        InputNotFoundError: if there is no such raster, file or layer.
        RasterError: if the map is not a complete raster of class codes.
        GridError: if it has no CRS.
        LabelError: if the reference has no labels, no class of the map, or misses the map.

    Source: Olofsson et al. (2014), Good practices for estimating area and assessing accuracy of land change, Remote
        Sensing of Environment 148. Stehman (2014), Estimating area and map accuracy for stratified random sampling when
        the strata are different from the map classes, International Journal of Remote Sensing 35.
    """
    options = from_names(AssessOptions, locals())
    require_path("class_map", class_map)
    if not isinstance(reference, Sample | gpd.GeoDataFrame):
        require_path("reference", reference)
    asked = check_nodata("nodata", nodata)
    name, reference_name = Path(class_map).name, _name_of(reference)
    compile_ahead(("geopsp.assessment.sampling.pixel_counts",))
    with collect_warnings() as warnings, _opened_map(class_map, asked) as opened:
        points, labels = _read_reference(reference, reference_name, opened, options)
        if points is None:
            found = accuracy_of_labels(opened, labels, reference_name, options)
        else:
            found = accuracy_of_points(
                points, name, reference_name, confidence_level=confidence_level, merge_strata=merge_strata
            )
        return replace(found, warnings=tuple(warnings))


def describe_reference(class_map: str | Path, reference: str | Path, options: AssessOptions) -> str:
    """Read the reference as `assess_map` does, and say what it is.

    Raises:
        GeopspError: as `assess_map`.
    """
    with _opened_map(class_map, check_nodata("nodata", options.nodata)) as opened:
        points, _ = _read_reference(reference, _name_of(reference), opened, options)
    if points is None:
        return f"All pixels that {_name_of(reference)} labels are compared."
    return f"{format_count(int(pd.notna(points.reference).sum()), 'labelled point')}. {points.method}."


@contextmanager
def _opened_map(class_map: str | Path, nodata: float | Literal["none"] | None) -> Iterator[OpenMap]:
    """Open a map whose values are known, and show progress."""
    with ClassRaster.open(class_map, nodata=nodata) as raster, progress_bar("Assessing") as progress:
        raster.number_values(asked=nodata)
        yield OpenMap(Path(class_map).name, raster, PixelAreas.from_grid(raster.grid), progress)


def _name_of(reference: str | Path | gpd.GeoDataFrame | Sample) -> str:
    if isinstance(reference, Sample):
        return f"the sample of {reference.map_name}"
    return "the GeoDataFrame" if isinstance(reference, gpd.GeoDataFrame) else Path(reference).name


def _read_reference(
    reference: str | Path | gpd.GeoDataFrame | Sample, name: str, opened: OpenMap, options: AssessOptions
) -> tuple[AssessedPoints | None, Any]:
    """Return points, or None and labels of pixels."""
    mapping = read_mapping(options.class_mapping)
    if isinstance(reference, str | Path) and has_tables(reference, (DESIGN, POINTS, STRATA)):
        reference = read_sample(reference, mapped=mapping or ())
    if isinstance(reference, Sample):
        _refuse(options, "a sample, whose design is known", "design", "where", "background", "label_nodata")
        return points_of_sample(reference, name, opened, options.reference_field, mapping), None
    if isinstance(reference, str | Path) and is_raster(reference):
        _refuse(options, "a raster", "design", "where", "reference_field", "merge_strata")
        labels = read_labels(
            reference, background="ignore", class_mapping=options.class_mapping, label_nodata=options.label_nodata
        )
        return None, labels
    layer = open_layer(reference, where=options.where, field_wanted=options.reference_field)
    if (frame := _points(layer, name)) is None:
        _refuse(options, "a layer of polygons", "design", "merge_strata", "label_nodata")
        _require_field(layer, options)
        labels = read_labels(
            reference,
            class_field=options.reference_field,
            background=options.background,
            where=options.where,
            class_mapping=options.class_mapping,
        )
        return None, labels
    _refuse(options, "a layer of points", "background", "label_nodata")
    field = _require_field(layer, options)
    simple = options.design == "simple"
    return points_of_layer(frame, name, opened, field, mapping, simple=simple), None


def _points(layer: VectorLayer, name: str) -> gpd.GeoDataFrame | None:
    """Return the features of a layer of points; None if it has polygons."""
    first = layer.read([], most=100)
    kinds = set(first.geom_type.dropna())
    if not kinds:
        raise LabelError(f"{name} contains no features, or none that `where` selects. Choose other ones.")
    if not kinds <= {"Point", "MultiPoint"}:
        return None
    frame = layer.read()
    usable = frame.geometry.notna() & ~frame.geometry.is_empty & (frame.geom_type == "Point")
    usable &= np.isfinite(frame.geometry.x.where(usable)) & np.isfinite(frame.geometry.y.where(usable))
    if lost := int((~usable).sum()):
        logger.warning(
            f"{format_count(lost, 'feature')} of {name} without a place, or with several, so they do not count."
        )
    if not usable.any():
        raise LabelError(f"{name} contains no single points. Split multipoints first.")
    return frame[usable].reset_index(drop=True)


def _require_field(layer: VectorLayer, options: AssessOptions) -> str:
    if options.reference_field is None:
        raise OptionError(
            f"Which field of {layer.source} holds the class? Name it with `reference_field`. Fields: "
            f"{', '.join(layer.fields) or 'none'}."
        )
    if options.reference_field not in layer.fields:
        raise LabelError(
            f"{layer.source} has no field {options.reference_field!r}."
            f"{did_you_mean(options.reference_field, layer.fields)} Fields: {', '.join(layer.fields) or 'none'}."
        )
    return options.reference_field


def _refuse(options: AssessOptions, what: str, *names: str) -> None:
    """Check that options that do not apply to a kind of reference were not given."""
    default = AssessOptions()
    for name in names:
        if getattr(options, name) != getattr(default, name):
            raise OptionError(f"`{name}` does not apply to {what}. Leave it out.")
