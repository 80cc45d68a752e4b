"""Manifest and index of a chip folder, checked before they are used, as anybody may have made them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pydantic import Field, model_validator

from geopsp.chips.arcgis_write import MAP_FILE, MODEL_FILE, SUMS_FILE
from geopsp.core.documents import DocumentError, is_regular, open_regular, read_json
from geopsp.core.owned_files import FolderKind
from geopsp.core.schema import (
    MAX_TILE,
    BandNames,
    CellSize,
    ClassEntries,
    Count,
    Dtype,
    Name,
    PixelValuesEntry,
    Schema,
    StatisticsEntry,
    Text,
    TimeText,
    require_fit,
    require_same_length,
)
from geopsp.core.text import format_error
from geopsp.errors import ChipError

INDEX = "chips.parquet"


MANIFEST = "chips.json"


JOURNAL = "ledger.jsonl"
"""What an export has cut so far."""


CHIP_FOLDER = FolderKind(
    MANIFEST,
    (
        INDEX, MAP_FILE, MODEL_FILE, SUMS_FILE, "stats.txt", "chips.yaml", "chips-[0-9]*.yaml", "images/[0-9]*",
        "labels/[0-9]*", ".index/*",
    ),
    JOURNAL,
)  # fmt: skip


VERSION = 2

MAX_CHIPS = 20_000_000

MAX_COLUMNS = 1000
"""Columns of an index; there is one for each class."""

CHIP_NAME = re.compile(r"[0-9][^/\\\0]{0,200}")
"""Names of the files of chips: a number comes first."""

MAX_COORDINATE = 1e12
"""Largest coordinate of a footprint, in units of the CRS."""


TimeRange = Annotated[list[TimeText], Field(min_length=2, max_length=2)]


class WarningEntry(Schema):
    """A warning of an export."""

    text: Text


class LabelsEntry(Schema):
    """The report of labels."""

    source: Text
    priority: Text | None = None
    polygons: Count | None = None
    masks: Count | None = None
    notes: list[Text] | None = None


class ReportEntry(Schema):
    """The report of an export."""

    skipped: dict[str, Count]
    empty: Count
    conflict_pixels: Count
    polygons: dict[str, Count] | None = None
    labels: LabelsEntry
    notes: list[Text] | None = None
    warnings: list[WarningEntry | Text] | None = None


class ExportEntry(Schema):
    """One export into the folder."""

    report: ReportEntry
    images: dict[str, list[Text]] | None = None
    times: dict[str, TimeRange] | None = None


class ChipManifest(Schema):
    """What chips.json holds."""

    chips: Annotated[int, Field(ge=0, le=MAX_CHIPS)]
    tile_size: Annotated[int, Field(ge=1, le=MAX_TILE)]
    legend: ClassEntries
    bands: BandNames
    dtype: Dtype
    cell_size: CellSize
    units: Name
    statistics: StatisticsEntry
    pixel_values: PixelValuesEntry | None = None
    exports: Annotated[list[ExportEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        require_same_length("bands", {"bands": len(self.bands), "statistics": self.statistics.num_bands})
        return self


def read_folder(folder: Path) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """Read the manifest (chips.json) and the index (chips.parquet) of a folder.

    Raises:
        ChipError: if they are missing or damaged.
    """
    if not (folder / MANIFEST).exists() or not (folder / INDEX).exists():
        raise ChipError(
            f"{folder} is not a finished chip folder: {MANIFEST} or {INDEX} is missing. Export it with "
            "`export_training_data()`."
        )
    with _named(folder / INDEX):
        index = _read_index(folder / INDEX)
    with _named(folder / MANIFEST):
        manifest, index = _upgrade(read_json(folder / MANIFEST), index)
        require_fit(manifest, ChipManifest)
    with _named(folder / INDEX):
        index = index.iloc[: manifest["chips"]]  # a killed export may have added some
        _check_index(index, manifest)
    return manifest, index


_UNREADABLE = (
    ValueError, LookupError, TypeError, AttributeError, OSError, ArithmeticError, RuntimeError, MemoryError,
    pa.ArrowException, shapely.errors.ShapelyError,
)  # fmt: skip
"""Errors of readers of damaged files."""


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn errors in the block into a `ChipError` that names the file, in one line."""
    try:
        yield
    except _UNREADABLE as error:
        reason = " ".join(format_error(error).split())[:300]
        kind = "" if isinstance(error, DocumentError) else f"{type(error).__name__}: "
        raise ChipError(
            f"{path.parent} has a damaged {path.name}: {kind}{reason}. Export it again with `export_training_data()`."
        ) from error


def _read_index(path: Path) -> gpd.GeoDataFrame:
    with open_regular(path) as file:
        header = pq.read_metadata(file)
    if header.num_rows > MAX_CHIPS or header.num_columns > MAX_COLUMNS:
        raise DocumentError(
            f"it has {header.num_rows:,} rows and {header.num_columns:,} columns, but may have {MAX_CHIPS:,} and "
            f"{MAX_COLUMNS:,}"
        )
    return gpd.read_parquet(path.absolute())


def _upgrade(manifest: Any, index: gpd.GeoDataFrame) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """Return manifest and index of version 1 in the form of the current version.

    Raises:
        ValueError: if the version is not known.
    """
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version == VERSION:
        return manifest, index
    if version != 1:
        raise DocumentError(f"it has version {version}, but must have 1 or {VERSION}")
    old = manifest["report"]
    skipped = {
        "invalid": old["without_valid_pixel"],
        "unlabelled": old["too_little_labelled"],
        "empty": 0,
        "outside": 0,
    }
    report = {**old, "skipped": skipped, "empty": 0, "polygons": {}, "notes": [], "warnings": []}
    manifest |= {"version": VERSION, "chips": len(index), "tile_size": manifest["spec"]["tile_size"]}
    manifest["exports"] = [{"options": manifest["spec"], "sources": manifest["sources"], "report": report}]
    return manifest, index.assign(label=index["chip"], angle=0.0)


def _check_index(index: gpd.GeoDataFrame, manifest: dict[str, Any]) -> None:
    """Check the columns of an index.

    Raises:
        DocumentError: that names the column, the value and what is allowed.
    """
    for name in ("chip", "label"):
        _check_column(index, name, "names of files", [_is_chip_name(value) for value in _column(index, name)])
    _check_column(index, "source", "text", [isinstance(value, str) for value in _column(index, "source")])
    pixels = manifest["tile_size"] ** 2
    for name in ("col", "row"):
        _check_column(index, name, "whole numbers", _is_number(index, name, -1, 2**53, whole=True))
    for name in ("valid", "labelled"):
        _check_column(index, name, "numbers from 0 to 1", _is_number(index, name, 0, 1))
    _check_column(index, "angle", "numbers", _is_number(index, "angle", -1e6, 1e6))
    for entry in manifest["legend"]:
        name = f"pixels_{entry['code']}"
        _check_column(index, name, f"whole numbers from 0 to {pixels}", _is_number(index, name, 0, pixels, whole=True))
    shapes = index.geometry.to_numpy()
    bounds = shapely.bounds(shapes)
    placed = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    near = (np.abs(np.where(placed[:, None], bounds, 0)) <= MAX_COORDINATE).all(axis=1)
    areal = np.isin(shapely.get_type_id(shapes), [-1, shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    _check_column(index, index.geometry.name, "polygons with finite coordinates", near & areal)


def _column(index: gpd.GeoDataFrame, name: str) -> Any:
    if name not in index:
        raise DocumentError(f"it has no column {name}")
    return index[name]


def _is_chip_name(value: Any) -> bool:
    return isinstance(value, str) and CHIP_NAME.fullmatch(value) is not None


def _is_number(index: gpd.GeoDataFrame, name: str, low: float, high: float, *, whole: bool = False) -> Any:
    """Return which rows of a column have a number in a range; none of a column of another type."""
    column = _column(index, name)
    if column.dtype.kind not in ("iu" if whole else "iuf"):
        return np.zeros(len(column), bool)
    return column.between(low, high).fillna(value=False).to_numpy(bool)


def _check_column(index: gpd.GeoDataFrame, name: str, allowed: str, is_good: Any) -> None:
    bad = np.flatnonzero(~np.asarray(is_good, bool))
    if bad.size:
        value = repr(index[name].iloc[bad[0]])
        value = f"{value[:60]}..." if len(value) > 60 else value
        raise DocumentError(f"its column {name} holds {value} in row {bad[0]}, but must hold {allowed}")


def require_files(folder: Path, index: gpd.GeoDataFrame) -> None:
    """Check that a folder has chips, and all their files.

    Raises:
        ChipError: if not.
    """
    if not len(index):
        raise ChipError(f"{folder} contains no chip. Export it again with other labels or a lower `min_labelled`.")
    subfolders = [folder / name for name in ("images", "labels") if (folder / name).is_dir()]
    is_file = {entry.path: is_regular(entry.path) for subfolder in subfolders for entry in os.scandir(subfolder)}
    wanted = [*index["image"], *index["label"]]
    missing = [path for path in wanted if path not in is_file]
    if missing:
        raise ChipError(
            f"{folder} is incomplete: {len(missing):,} of {2 * len(index):,} files are missing, the first is "
            f"{missing[0]}. Export it again with `overwrite=True`."
        )
    if special := next((path for path in wanted if not is_file[path]), None):
        raise ChipError(f"{special} is no regular file, so it is not read. Export the chips again, or copy the folder.")
