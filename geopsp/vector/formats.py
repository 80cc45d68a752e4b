"""Vector formats that polygons can be written to.

To add a format that pyogrio writes, add an entry to `FORMATS`: writing, the checks of names and finished files, and all
texts that list the endings read this table. Light: nothing heavy is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from geopsp.core.file_endings import endings_text, require_ending
from geopsp.vector.verify import (
    IsComplete,
    json_is_closed,
    last_feature_is_readable,
    shapefile_has_all_bytes,
    spatial_index_is_complete,
)

GEOPARQUET = "GeoParquet"
"""Stands for a driver, as this format is written without GDAL."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorFormat:
    """A vector format, and how its files are written and checked."""

    name: str
    """Name in messages, after the article "a"."""

    driver: str
    """GDAL's name, or `GEOPARQUET`."""

    endings: tuple[str, ...]
    """In lower case, the usual one first."""

    layer_options: Mapping[str, str] = field(default_factory=dict)
    """GDAL's options for a new layer."""

    file_options: Mapping[str, str] = field(default_factory=dict)
    """GDAL's options for a new file."""

    has_own_style: bool = False
    """True if the file itself holds its style for QGIS."""

    encoding: str | None = None
    """Encoding of texts; None: as GDAL chooses."""

    is_wgs84: bool = False
    """True if coordinates are always longitude and latitude in WGS 84."""

    reserved_names: re.Pattern[str] | None = None
    """Names of layers that the format keeps for itself; matched at their beginning."""

    no_first_characters: str = ""
    """Characters that the name of a layer may not begin with."""

    column_names: Mapping[str, str] = field(default_factory=dict)
    """Column names in the file, by those in the schema; the others stay."""

    max_bytes: int | None = None
    """Size up to which a file can be read by all programs."""

    max_geometry_bytes: int | None = None
    """Size of the largest geometry."""

    companion_endings: tuple[str, ...] = ()
    """Endings, in place of the file's own, of other files that belong to it."""

    journal_suffixes: tuple[str, ...] = ()
    """Suffixes to the file's name of journals, which would damage the next file of that name."""

    note: str = ""
    """Limits that the user should know of."""

    hint: str = ""
    """What to check if writing fails and the disk is not full."""

    is_complete: IsComplete = last_feature_is_readable
    """See `geopsp.vector.verify`."""

    def layer_name(self, path: Path) -> str:
        """Return the name of the layer: the file's stem, without leading characters that the format does not take."""
        return path.stem.lstrip(self.no_first_characters) or "polygons"

    def companions(self, path: Path) -> list[Path]:
        """Return the paths of all files that may belong to a file of this format."""
        journals = [path.with_name(path.name + suffix) for suffix in self.journal_suffixes]
        return journals + [path.with_suffix(ending) for ending in self.companion_endings]


FORMATS = [
    VectorFormat(
        name="GeoPackage",
        driver="GPKG",
        endings=(".gpkg",),
        layer_options={"DESCRIPTION": "Polygons of classes, made with geopsp"},
        file_options={"VERSION": "1.3"},  # of a newer one, GDAL 3.6 and QGIS with it warn
        has_own_style=True,
        reserved_names=re.compile("layer_styles$|gpkg|sqlite_|rtree_", re.IGNORECASE),
        no_first_characters="`~!@#$%^&*()+-={}|[]\\:\";'<>?,./",  # GDAL's list
        max_geometry_bytes=10**9 - 2**10,  # SQLite's largest value, less the header
        journal_suffixes=("-wal", "-shm", "-journal"),
        is_complete=spatial_index_is_complete,
    ),
    VectorFormat(name="GeoParquet file", driver=GEOPARQUET, endings=(".parquet",)),
    VectorFormat(name="FlatGeobuf file", driver="FlatGeobuf", endings=(".fgb",)),
    VectorFormat(
        name="GeoJSON file",
        driver="GeoJSON",
        endings=(".geojson", ".json"),
        layer_options={"RFC7946": "YES"},
        is_wgs84=True,
        hint=" Is a corner without longitude and latitude, which GeoJSON needs? Then write a GeoPackage.",
        is_complete=json_is_closed,
    ),
    VectorFormat(
        name="shapefile",
        driver="ESRI Shapefile",
        endings=(".shp",),
        layer_options={"2GB_LIMIT": "YES"},
        encoding="UTF-8",
        column_names={"perimeter_m": "perimeter", "edge_unsure": "unsure"},
        max_bytes=2**31 - 2**20,
        companion_endings=(".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".shp.xml"),
        note="A shapefile holds numbers of 15 digits, class names of up to 254 bytes, and files of up to 2 GB. "
        "A GeoPackage has no such limits.",
        is_complete=shapefile_has_all_bytes,
    ),
]
"""All formats; add new ones here."""


def format_of(path: str | Path) -> VectorFormat:
    """Return the format of a file by its ending.

    Raises:
        OptionError: if no format has this ending.
    """
    by_ending = {ending: vector_format for vector_format in FORMATS for ending in vector_format.endings}
    return by_ending[require_ending(path, *by_ending, usual=usual_endings())]


def usual_endings() -> list[str]:
    """Return one ending of each format."""
    return [vector_format.endings[0] for vector_format in FORMATS]


ENDINGS = endings_text(usual_endings())
"""For help texts."""


def gdal_drivers() -> tuple[str, dict[str, str]]:
    """Return the version of pyogrio's GDAL, and its drivers: "r", "rw" or "raw" (read, append, write) by name."""
    import pyogrio

    return ".".join(map(str, pyogrio.__gdal_version__)), dict(pyogrio.list_drivers())
