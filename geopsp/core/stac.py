"""Parts of STAC Items (SpatioTemporal Asset Catalog) that models and maps have in common, as JSON.

Source: STAC 1.1.0; the extensions file 2.1.0 and classification 1.1.0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from geopsp.core.documents import file_checksum
from geopsp.core.legend import Legend

STAC_VERSION = "1.1.0"

STAC_ENDING = ".stac.json"
"""Ending of the Items that geopsp writes."""

EXTENSIONS = {
    "classification": "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "mlm": "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
}
"""Addresses of the schemas of extensions."""

SHA256_CODE = "1220"
"""What a multihash of SHA-256 begins with: the code of the function, and 32 bytes."""


def item(
    name: str,
    properties: Mapping[str, Any],
    assets: Mapping[str, Any],
    *,
    extensions: Iterable[str],
    place: Mapping[str, Any] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return an Item.

    Args:
        name: Its id.
        properties: With `datetime`.
        assets: By key.
        extensions: Keys of `EXTENSIONS`.
        place: "geometry" and "bbox" in WGS 84; None: it has no place.
        links: Links to other Items.
    """
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": sorted(EXTENSIONS[extension] for extension in extensions),
        "id": name,
        **(place or {"geometry": None}),
        "properties": dict(properties),
        "links": [dict(link) for link in links],
        "assets": dict(assets),
    }


def file_fields(path: Path) -> dict[str, Any]:
    """Return size and checksum of a file.

    Raises:
        OSError, DocumentError: if it cannot be read.
    """
    return {"file:size": path.stat().st_size, "file:checksum": SHA256_CODE + file_checksum(path)}


def class_objects(legend: Legend) -> list[dict[str, Any]]:
    """Return the classes; `name` is for machines, `description` is the name that people gave."""
    return [
        {
            "value": info.code,
            "name": plain_name(info.name) or f"class_{info.code}",
            "description": info.name,
            "color_hint": info.color[1:].upper(),
        }
        for info in legend
    ]


def plain_name(text: str) -> str:
    """Return a name in ASCII letters, digits, "_", "-" and ".", without accents; "" if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", ascii_text).strip("_.-")


def relative_href(name: str) -> str:
    """Return the address of a file in the folder of the Item."""
    return f"./{quote(name)}"


def time_text(time: datetime) -> str:
    """Return a time as RFC 3339 has it, in UTC; one without time zone is taken for UTC."""
    found = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def time_fields(start: str | None, end: str | None, otherwise: datetime) -> dict[str, Any]:
    """Return `datetime` and, of a range, its ends; `otherwise` counts where nothing is known."""
    if start is None or end is None:
        return {"datetime": time_text(otherwise)}
    return {"datetime": start if start == end else None, "start_datetime": start, "end_datetime": end}
