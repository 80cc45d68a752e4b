"""The manifest of a saved model, read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geopsp.core.owned_files import FolderKind
from geopsp.errors import InputNotFoundError, PackageError

MANIFEST = "model.json"


WEIGHTS = "weights.safetensors"


HISTORY = "history.csv"

MODEL_FOLDER = FolderKind(MANIFEST, (WEIGHTS, HISTORY))


VERSION = 2
"""Version of the folder's format."""


READABLE_VERSIONS = (1, VERSION)
"""Version 1 had PSPNet only."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a model folder.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if it does not hold a model that this version can read.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Train and save a model first.")
    if not (folder / MANIFEST).exists():
        raise PackageError(f"{folder} has no {MANIFEST}, so it is not a saved model.")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackageError(f"Cannot read {folder / MANIFEST}: {error}. Copy the folder again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "geopsp-model" or "weights_sha256" not in manifest:
        raise PackageError(f"{folder / MANIFEST} does not describe a geopsp model. Copy the folder again.")
    if manifest.get("version") not in READABLE_VERSIONS:
        raise PackageError(
            f"{folder} holds a model of version {manifest.get('version')}, but this geopsp reads versions up to "
            f"{VERSION}. Upgrade geopsp."
        )
    if manifest.get("manifest_sha256") != manifest_checksum(manifest):
        raise PackageError(f"{folder / MANIFEST} was changed: its checksum differs. Copy the folder again.")
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the checksum of a manifest's content, whatever its layout."""
    content = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
