"""STAC Items are checked against their schemas, without a network."""

from __future__ import annotations

import json
from functools import cache

import pystac
import pytest
from common import SHARED
from pystac.stac_object import STACObjectType

SCHEMAS = SHARED.parent / "schemas"
"""The schemas of STAC's extensions, where they are at hand."""


@cache
def _validator():
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    validator = JsonSchemaSTACValidator()
    for file in SCHEMAS.glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if "$id" in content:
            validator.schema_cache[content["$id"].rstrip("#")] = content
    return validator


def has_schemas(*names):
    return all((SCHEMAS / f"{name}.json").is_file() for name in names)


def require_valid(item, *, needed=("mlm", "file", "classification", "raster", "processing")):
    """The Item fits STAC's core and each of its extensions whose schema is at hand; returns those."""
    pystac.Item.from_dict(item)
    if not has_schemas(*needed):
        pytest.skip(f"the schemas {', '.join(needed)} are not at hand")
    validator = _validator()
    known = [uri for uri in item["stac_extensions"] if uri in validator.schema_cache]
    validator.validate(item, STACObjectType.ITEM, "1.1.0", known)
    return known
