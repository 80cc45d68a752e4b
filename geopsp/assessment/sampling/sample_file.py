"""Samples of a map's pixels for reference labels: values in memory, and the GeoPackage that holds them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geopsp.assessment.sampling.reference_values import as_class_names
from geopsp.assessment.sampling.sample_checks import check_points, require_columns, table_rows
from geopsp.assessment.sampling.sample_document import FORMAT, VERSION, Design, MapClassRow, StratumRow, parse_design
from geopsp.core.documents import DocumentError
from geopsp.core.grid import Grid
from geopsp.core.legend import ClassInfo
from geopsp.core.text import format_count
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import Value
from geopsp.vector.geopackage import read_package, write_package

logger = logging.getLogger(__name__)

POINTS, STRATA, MAP_CLASSES, DESIGN = "points", "strata", "map_classes", "design"
"""Names of the layer and of the tables."""


POINT_SCHEMA = pa.schema(
    {
        "id": pa.int64(), "reference": pa.string(), "note": pa.string(), "map_class": pa.string(),
        "map_code": pa.int64(), "confidence": pa.float64(), "stratum": pa.string(),
        "inclusion_probability": pa.float64(), "cluster": pa.int64(), "pixel_row": pa.int64(), "pixel_col": pa.int64(),
        "pixel_area": pa.float64(),
    }
)  # fmt: skip


STRATA_SCHEMA = pa.schema(
    {
        "stratum": pa.string(), "map_class": pa.string(), "map_code": pa.int64(), "zone": pa.string(),
        "pixels": pa.int64(), "area_ha": pa.float64(), "sample_size": pa.int64(),
    }
)  # fmt: skip


MAP_CLASSES_SCHEMA = pa.schema(
    {"stratum": pa.string(), "map_class": pa.string(), "pixels": pa.int64(), "area_ha": pa.float64()}
)


DESIGN_SCHEMA = pa.schema({"key": pa.string(), "value": pa.string()})


@dataclass(frozen=True, slots=True)
class Stratum:
    """A part of the map from which a number of pixels was drawn at random."""

    stratum: str
    """Its name."""

    map_class: str | None
    """The mapped class of all its pixels; None if they have several."""

    map_code: int | None
    """Their value in the map; None if they have several."""

    zone: str | None
    """The zone in which they lie; None without zones."""

    pixels: int
    """How many there are in the map."""

    area_ha: float
    """Their area on the ellipsoid, in hectares."""

    sample_size: int
    """How many of them were drawn."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sample:
    """A probability sample of the pixels of a map, with what estimators need to know of its design."""

    points: gpd.GeoDataFrame
    """One row per pixel, with the columns of `POINT_SCHEMA` and a point at its centre, in the CRS of the map.

    `reference` is the name of a class, or None where a point is not labelled.
    """

    strata: tuple[Stratum, ...]
    """All of them, also those of which no point was drawn. Of simple and cluster samples there is one."""

    map_classes: pd.DataFrame
    """Pixels and area of each mapped class in each stratum: `stratum`, `map_class`, `pixels`, `area_ha`."""

    design: Design
    """stratified, simple (all pixels in one stratum) or cluster (all pixels of blocks drawn at random)."""

    seed: int

    map_name: str
    """Name of the file of the map."""

    grid: Grid
    """Grid of the map."""

    classes: tuple[ClassInfo, ...]
    """The classes of the map, with the codes that its file has."""

    clusters: int | None = None
    """Number of blocks with valid pixels in the map; None but for cluster samples."""

    sampled_clusters: int | None = None
    """Number of them that were drawn."""

    cluster_size: int | None = None
    """Side of a block in pixels; blocks at the right and lower border of the map may be smaller."""

    options: Mapping[str, Any]
    """The options with which it was drawn."""

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(points,) True where a point has a reference class."""
        labelled: NDArray[np.bool_] = self.points["reference"].notna().to_numpy(bool)
        return labelled

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.classes)

    @property
    def num_drawn(self) -> int:
        """Number of points that were drawn; fewer are there if some were deleted."""
        return sum(stratum.sample_size for stratum in self.strata)

    def to_frame(self) -> gpd.GeoDataFrame:
        """Return a copy of the points."""
        return self.points.copy()

    def strata_frame(self) -> pd.DataFrame:
        """Return the strata as a table, with the columns of `Stratum`."""
        return pd.DataFrame([asdict(stratum) for stratum in self.strata], columns=STRATA_SCHEMA.names)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        labelled = int(self.is_labelled.sum())
        return (
            f"<Sample of {format_count(len(self), 'point')} of {self.map_name}, {self.design}, "
            f"{format_count(len(self.strata), 'stratum', 'strata')}, {labelled:,} labelled>"
        )


def write_sample(sample: Sample, out: str | Path, *, qml: str = "", overwrite: bool = False) -> Path:
    """Write a sample as a GeoPackage that `read_sample` reads, and return its path.

    Args:
        sample: The sample.
        out: The file; it ends in .gpkg.
        qml: Style and form of the points for QGIS; "": none.
        overwrite: True to replace `out`.

    Raises:
        OptionError: if `out` has another ending.
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    tables = {
        STRATA: pa.Table.from_pandas(sample.strata_frame(), STRATA_SCHEMA, preserve_index=False),
        MAP_CLASSES: pa.Table.from_pandas(sample.map_classes, MAP_CLASSES_SCHEMA, preserve_index=False),
        DESIGN: pa.table({"key": ["json"], "value": [_design_json(sample)]}, DESIGN_SCHEMA),
    }
    return write_package(
        out,
        sample.points,
        POINTS,
        schema=POINT_SCHEMA,
        tables=tables,
        description="Sample of the pixels of a map, drawn with geopsp",
        qml=qml,
        overwrite=overwrite,
    )


def _design_json(sample: Sample) -> str:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "design": sample.design,
        "seed": sample.seed,
        "map": sample.map_name,
        "map_size": [sample.grid.height, sample.grid.width],
        "transform": list(sample.grid.transform)[:6],
        "crs": sample.grid.crs.to_wkt(version="WKT2_2019"),
        "classes": [asdict(info) for info in sample.classes],
        "clusters": sample.clusters,
        "sampled_clusters": sample.sampled_clusters,
        "cluster_size": sample.cluster_size,
        "options": dict(sample.options),
    }
    return json.dumps(content, allow_nan=False)


def read_sample(path: str | Path, *, mapped: Iterable[Value] = ()) -> Sample:
    """Read a sample that `draw_sample` wrote, with the reference labels that it got since.

    A code in place of a class name is accepted. Deleted points are a warning; see `Sample.num_drawn`.

    Args:
        path: The GeoPackage.
        mapped: Reference values besides classes that a class mapping renames afterwards; * stands for all others.

    Raises:
        InputNotFoundError: if there is no such file.
        LabelError: if it is no sample, is of a later version, or its points or tables were changed so that estimates
            would be wrong: fields renamed, points added or moved, or a reference value that is no class.
    """
    needed = "a sample file as `draw_sample()` writes it"
    tables = read_package(path, (DESIGN, POINTS, STRATA, MAP_CLASSES), needed)
    design = _read_design(path, tables[DESIGN])
    try:
        strata = tuple(Stratum(**row) for row in table_rows(tables[STRATA], StratumRow))
        map_classes = pd.DataFrame(table_rows(tables[MAP_CLASSES], MapClassRow), columns=MAP_CLASSES_SCHEMA.names)
    except DocumentError as error:
        raise LabelError(f"{path} was changed: {error}. Use the tables as they were written.") from error
    points = tables[POINTS]
    if not isinstance(points, gpd.GeoDataFrame):
        raise LabelError(f"The layer {POINTS} of {path} has no geometries. Use the file as it was written.")
    require_columns(path, POINTS, points, POINT_SCHEMA.names)
    grid = _grid(path, design)
    classes = tuple(ClassInfo(entry["code"], entry["name"], entry["color"]) for entry in design["classes"])
    points = check_points(path, points, grid)
    reference = as_class_names(points["reference"], classes, f"The field reference of {path}", mapped=mapped)
    sample = Sample(
        points=points.assign(reference=reference),
        strata=strata,
        map_classes=map_classes,
        design=design["design"],
        seed=design["seed"],
        map_name=design["map"],
        grid=grid,
        classes=classes,
        clusters=design["clusters"],
        sampled_clusters=design["sampled_clusters"],
        cluster_size=design["cluster_size"],
        options=design["options"],
    )
    _check_design(path, sample)
    return sample


def _read_design(path: str | Path, table: pd.DataFrame) -> dict[str, Any]:
    """Return the document in the table `design`, checked."""
    require_columns(path, DESIGN, table, DESIGN_SCHEMA.names)
    try:
        return parse_design(table.loc[table["key"] == "json", "value"].tolist())
    except DocumentError as error:
        raise LabelError(f"{path} is not a sample file that can be read: {error}.") from error


def _grid(path: str | Path, design: Mapping[str, Any]) -> Grid:
    rows, cols = design["map_size"]
    transform = Affine(*design["transform"])
    try:
        grid = Grid(CRS.from_wkt(design["crs"]), transform, cols, rows)
    except CRSError as error:
        raise LabelError(f"The CRS of the map in {path} cannot be understood. Draw the sample again.") from error
    if transform.determinant == 0:
        raise LabelError(f"The transform of the map in {path} has pixels without area. Draw the sample again.")
    return grid


def _check_design(path: str | Path, sample: Sample) -> None:
    """Check that the points are those that the strata say; warn of deleted ones."""
    points = sample.points
    sizes = {stratum.stratum: stratum for stratum in sample.strata}
    if len(sizes) < len(sample.strata) or set(sample.map_classes["stratum"]) - set(sizes):
        raise LabelError(f"The tables {STRATA} and {MAP_CLASSES} of {path} do not fit together. Draw the sample again.")
    unknown = sorted(set(points["stratum"]) - set(sizes))
    if unknown:
        raise LabelError(f"{path} has points of a stratum {unknown[0]!r}, which its table {STRATA} lacks. Undo that.")
    found = points["stratum"].value_counts()
    deleted = {name: stratum.sample_size - int(found.get(name, 0)) for name, stratum in sizes.items()}
    if added := [name for name, number in deleted.items() if number < 0]:
        raise LabelError(
            f"{path} has more points in the stratum {added[0]!r} than were drawn. Remove the points that were added, "
            "as no probability is known for them."
        )
    expected = points["stratum"].map(lambda name: sizes[name].sample_size / max(sizes[name].pixels, 1))
    if sample.design == "cluster":
        assert sample.sampled_clusters is not None
        expected = pd.Series(sample.sampled_clusters / max(sample.clusters or 1, 1), points.index)
        if points["cluster"].isna().any():
            raise LabelError(f"{path} has points without a number in the field cluster. Undo that.")
    if not np.allclose(points["inclusion_probability"], expected.astype(float), rtol=1e-9, atol=0):
        raise LabelError(f"{path} has inclusion probabilities that do not fit its table {STRATA}. Undo that change.")
    if total := sum(deleted.values()):
        parts = ", ".join(f"{number:,} of {name}" for name, number in deleted.items() if number)
        logger.warning(
            f"{format_count(total, 'point')} of the {sample.num_drawn:,} in {path} were deleted ({parts}). They count "
            "as points without a reference label."
        )
