"""SourceImage: what a user names as one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from geopsp.core.pixel_values import BandScale


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image: one file with all bands, or several files with some bands each."""

    name: str
    """Name in messages and in the index of chips."""

    files: tuple[str, ...]
    """Paths, URLs or other names that GDAL opens."""

    bands: tuple[tuple[str, ...], ...] | None = None
    """Band names per file; () or None: as the header of the file says."""

    acquired: datetime | None = None
    """Acquisition time, if the source gives one or the order asked for it."""

    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Other metadata, by which images can be ordered."""

    nodata: tuple[float | None, ...] = ()
    """Nodata value per file, for bands without one in the file; (): none."""

    needs_georeference: bool = True
    """False leaves out CRS and place of an image that has not both."""
    scales: tuple[tuple[BandScale | None, ...], ...] = ()
    """Scale and offset of the bands of each file, for files without any; (): none."""

    stac_item: str = ""
    """Address of the STAC Item that lists it; "": none."""

    notes: tuple[str, ...] = ()
    """How the image was put together, for the user."""
