"""When images were acquired, as their tags say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import rasterio

from geopsp.raster.open import read_tags


def tagged_time(dataset: rasterio.DatasetReader) -> datetime | None:
    """Return the time in the tags of a raster, in UTC; TIFFTAG_DATETIME may date an export. None if there is none."""
    tags = read_tags(dataset)
    text = read_tags(dataset, ns="IMAGERY").get("ACQUISITIONDATETIME") or tags.get("ACQUISITIONDATETIME")
    return _parse_time(text) or _parse_time(tags.get("TIFFTAG_DATETIME"))


def in_utc(time: datetime) -> datetime:
    """Return a time in UTC; one without time zone is taken for UTC."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def time_range(times: Iterable[datetime | None]) -> tuple[datetime, datetime] | None:
    """Return the earliest and the latest time; None if there is none, or one is not known."""
    found = list(times)
    known = [time for time in found if time is not None]
    return (min(known), max(known)) if known and len(known) == len(found) else None


def _parse_time(text: str | None) -> datetime | None:
    """Parse the time in a tag, as TIFF (2024:01:31 12:00:00) or ISO 8601 writes it."""
    try:
        return in_utc(datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", (text or "").strip())))
    except (ValueError, OverflowError):
        return None
