"""What a model tells of the ground and the time of its training chips: an entry of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from geopsp.core.documents import DocumentError
from geopsp.core.schema import Count, Positive, Schema, TimeText, require_fit

TRAINING_AREA = "training_area"
"""The entry."""

Degrees = Annotated[float, Field(ge=-180, le=180)]

Ring = Annotated[list[Annotated[list[Degrees], Field(min_length=2, max_length=2)]], Field(min_length=4)]

Rings = Annotated[list[Ring], Field(min_length=1)]


class PolygonEntry(Schema):
    """A polygon of GeoJSON."""

    type: Literal["Polygon"]
    coordinates: Rings


class MultiPolygonEntry(Schema):
    """A multipolygon of GeoJSON, as of ground across the antimeridian."""

    type: Literal["MultiPolygon"]
    coordinates: Annotated[list[Rings], Field(min_length=1)]


class TrainingArea(Schema):
    """Number, hull, pixel size on the ground and time range of the training chips, as far as they are known."""

    chips: Count | None = None
    geometry: PolygonEntry | MultiPolygonEntry | None = None
    bbox: Annotated[list[Degrees], Field(min_length=4, max_length=4)] | None = None
    gsd: Positive | None = None
    start: TimeText | None = None
    end: TimeText | None = None


def known_area(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry; {} if it is missing, or is none that geopsp writes, as settings may come from anybody."""
    area: Any = settings.get(TRAINING_AREA)
    try:
        require_fit(area, TrainingArea)
    except DocumentError:
        return {}
    return {name: area[name] for name in TrainingArea.model_fields if area.get(name) is not None}
