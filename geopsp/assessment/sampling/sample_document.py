"""The JSON document and the rows of the tables of a sample file: what may stand in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from geopsp.core.documents import DocumentError, parse_json
from geopsp.core.schema import Color, Count, Name, Schema, Text, require_fit

FORMAT, VERSION = "geopsp sample", 1
"""What the table `design` says of a file."""


Design = Literal["stratified", "simple", "cluster"]


class ClassOfMap(Schema):
    """A class with the code that the file of the map has."""

    code: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    name: Name
    color: Color


class DesignDocument(Schema):
    """The JSON document in the table `design`."""

    format: Literal["geopsp sample"]
    version: Annotated[int, Field(ge=1)]
    design: Design
    seed: Annotated[int, Field(ge=0)]
    map: Text
    map_size: Annotated[list[Annotated[int, Field(gt=0, lt=2**31)]], Field(min_length=2, max_length=2)]
    transform: Annotated[list[float], Field(min_length=6, max_length=6)]
    crs: Text
    classes: Annotated[list[ClassOfMap], Field(min_length=1)]
    clusters: Count | None
    sampled_clusters: Count | None
    cluster_size: Annotated[int, Field(gt=0)] | None
    options: dict[str, Any]


class StratumRow(Schema):
    """A row of the table `strata`."""

    stratum: Text
    map_class: Text | None
    map_code: int | None
    zone: Text | None
    pixels: Count
    area_ha: Annotated[float, Field(ge=0)]
    sample_size: Count


class MapClassRow(Schema):
    """A row of the table `map_classes`."""

    stratum: Text
    map_class: Text
    pixels: Count
    area_ha: Annotated[float, Field(ge=0)]


def parse_design(texts: Sequence[Any]) -> dict[str, Any]:
    """Parse the rows of the table `design` with the key json, of which there must be one.

    Raises:
        DocumentError: if it is no document of this format and version.
    """
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise DocumentError("its table design must have one row with the key json")
    content = parse_json(texts[0])
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DocumentError(f"its format is not {FORMAT!r}")
    if isinstance(content.get("version"), int) and content["version"] > VERSION:
        raise DocumentError(
            f"it has version {content['version']} of the format, but this geopsp reads version {VERSION}. Update geopsp"
        )
    require_fit(content, DesignDocument)
    is_cluster = content["design"] == "cluster"
    if any((content[key] is not None) != is_cluster for key in ("clusters", "sampled_clusters", "cluster_size")):
        raise DocumentError("`clusters`, `sampled_clusters` and `cluster_size` belong to cluster samples alone")
    return content
