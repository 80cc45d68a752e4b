"""State of an interrupted run: a key of its inputs and options, and a small file that holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geopsp.core.output import write_text_atomic


def key_of(parts: Any) -> str:
    """Return the SHA-256 of the JSON of `parts`; a run resumes only under the key that it began with."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file; return {} if it is missing or damaged."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(path: Path, state: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Write a state file atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_text_atomic(path, json.dumps(state, indent=indent))
