"""State of an interrupted run: a key of its inputs and options, and a small file that holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geopsp.core.documents import MAX_SETTINGS_BYTES, read_json
from geopsp.core.output import write_text_atomic
from geopsp.core.schema import Schema, require_fit


def key_of(parts: Any) -> str:
    """Return the SHA-256 of the JSON of `parts`; a run resumes only under the key that it began with."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read_state(path: Path, schema: type[Schema] | None = None) -> dict[str, Any]:
    """Read a state file; return {} if it is missing or damaged, or does not fit the schema.

    Args:
        path: The file.
        schema: What it should hold; None: any dict.
    """
    try:
        found: Any = read_json(path, max_bytes=MAX_SETTINGS_BYTES)
        if schema is not None:
            require_fit(found, schema)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(path: Path, state: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write a state file atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_text_atomic(path, json.dumps(state, indent=indent))
