"""Points with their class in the map and in the reference, and the design by which they were chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.accuracy.accuracy_tables import Design
from geopsp.assessment.accuracy.map_pixels import (
    class_areas,
    codes_at,
    is_known,
)
from geopsp.assessment.accuracy.reference_classes import mapped_values, match_classes
from geopsp.assessment.map_classes import map_classes
from geopsp.assessment.sampling.pixel_counts import PixelAreas
from geopsp.core.argument_names import did_you_mean
from geopsp.core.legend import IGNORE_INDEX, ClassInfo
from geopsp.core.progress import Progress
from geopsp.core.text import format_count
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import ClassTarget, Value
from geopsp.polygons.class_raster import ClassRaster

logger = logging.getLogger(__name__)

STRATA_COLUMNS = ("stratum", "map_class", "zone", "pixels", "area_ha", "sample_size")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AssessedPoints:
    """What is known of the points; classes are names."""

    design: Design
    method: str
    """The design and its estimators, in words."""

    mapped: NDArray[np.object_]
    """(n,) class in the map; None outside of it and on nodata."""

    reference: NDArray[np.object_]
    """(n,) class in the reference; None where unlabelled."""

    stratum: NDArray[np.intp]
    """(n,) row of `strata`."""

    strata: pd.DataFrame
    """STRATA_COLUMNS; area_ha is NaN if no design is known."""

    pixel_area: NDArray[np.float64]
    """(n,) areas of the pixels, in any unit."""

    clusters: NDArray[np.int64] | None = None
    """(n,) cluster of each point; None: no clusters."""

    num_clusters: int | None = None
    """Clusters of the population."""

    mapped_areas: Mapping[str, float]
    """Hectares of each class in the map; {} if unknown."""

    class_strata: pd.DataFrame | None = None
    """stratum, map_class, area_ha: the classes of the assessed map in each stratum; None: unknown."""

    classes: Sequence[ClassInfo]
    """Classes that the map may have, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenMap:
    """A map that is assessed."""

    name: str
    raster: ClassRaster
    areas: PixelAreas
    progress: Progress

    def classes_at(self, pixels: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return the class names at rows and columns, (n,); None on nodata and outside of the map."""
        codes = codes_at(self.raster, pixels)
        found = np.unique(codes[codes != IGNORE_INDEX]).astype(np.int64)
        by_code, _ = map_classes(self.raster.path, self.raster.values, found)
        names = np.full(256, None, object)
        for code, info in by_code.items():
            names[code] = info.name
        return names[codes]

    def classes(self, codes: NDArray[np.int64]) -> tuple[dict[int, ClassInfo], tuple[ClassInfo, ...]]:
        """Return the classes of codes, and all classes that the map names."""
        return map_classes(self.raster.path, self.raster.values, codes)

    def areas_by_class(self) -> tuple[pd.DataFrame, tuple[ClassInfo, ...]]:
        """Read all of the map; return map_class, pixels and area_ha of each class, and the classes."""
        pixels, hectares = class_areas(self.raster, self.areas, self.progress)
        codes = np.flatnonzero(pixels)
        by_code, classes = self.classes(codes)
        names = [by_code[code].name for code in codes.tolist()]
        return pd.DataFrame({"map_class": names, "pixels": pixels[codes], "area_ha": hectares[codes]}), classes


def class_strata_of(cross: pd.DataFrame, mapped: Sequence[str] | pd.Series) -> pd.DataFrame:
    """Return the classes of a map as strata, with the number of points that fell into each.

    Args:
        cross: map_class, pixels and area_ha.
        mapped: Class of each point.
    """
    table = cross.groupby("map_class", sort=False, as_index=False)[["pixels", "area_ha"]].sum()
    number = table["map_class"].map(pd.Series(mapped, dtype=object).value_counts()).fillna(0).astype(np.int64)
    return table.assign(stratum=table["map_class"], zone=None, sample_size=number)[list(STRATA_COLUMNS)]


def warn_of_nothing(mapped: NDArray[np.object_], what: str) -> None:
    """Say how many points have no class in the map; `what` is where they lie.

    Raises:
        LabelError: if none has one.
    """
    number = int((~is_known(mapped)).sum())
    if number == len(mapped):
        raise LabelError(
            "All reference points lie outside of the map or on its nodata. Check that both belong together."
        )
    if number:
        verb = "lies" if number == 1 else "lie"
        logger.warning(
            f"{format_count(number, 'point')} of {len(mapped):,} {verb} on {what} of the map: there is no class to be "
            "compared, so they do not count."
        )


def require_field(fields: Sequence[str] | pd.Index, field: str, source: str) -> None:
    """Check that a layer has a field.

    Raises:
        LabelError: if it does not; it names the fields that there are.
    """
    if field not in fields:
        listed = ", ".join(str(name) for name in fields if name != "geometry") or "none"
        raise LabelError(
            f"{source} has no field {field!r}.{did_you_mean(field, fields)} Fields: {listed}. Name one with "
            "`reference_field`."
        )


def reference_classes(
    values: pd.Series, classes: Sequence[ClassInfo], source: str, mapping: Mapping[Value, ClassTarget] | None
) -> NDArray[np.object_]:
    """Return reference classes, (n,), None where unlabelled."""
    texts = mapped_values(values, mapping)
    if not any(texts):
        raise LabelError(
            f"No point of {source} has a reference label: the field {values.name} is empty. Label the points first, "
            "e.g. in QGIS, or name another field with `reference_field`."
        )
    meant = [target.name for target in (mapping or {}).values() if target.name]
    found = match_classes([text for text in texts if text], classes, source, meant=meant)
    return np.array([found[text] if text else None for text in texts], object)
