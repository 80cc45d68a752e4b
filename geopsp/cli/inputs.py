"""Images and labels as the shell takes them."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import click

from geopsp.errors import OptionError

images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGE...")


labels_help = (
    "Vector file (FILE or FILE|layername=LAYER) of polygons, lines or points, a raster of class codes, or the masks of "
    "the images: a folder, a glob in quotes, or this option several times."
)


def checked_model(model: Path, command: str) -> Path:
    """Return the local folder of a model for a command that needs torch, which is not loaded for a bad one.

    Raises:
        InputNotFoundError, PackageError: if there is no model, or its manifest is damaged.
        OptionError: if torch is missing.
    """
    from geopsp.core.extras import require_torch
    from geopsp.models.hub_model import local_model
    from geopsp.models.manifest import read_manifest

    found = local_model(model)
    read_manifest(found)
    require_torch(f"`geopsp {command}`")
    return found


def input_files(*names: str) -> list[Path]:
    """Return the files that images and labels may name."""
    named = [Path(name.partition("|")[0]) for name in names]
    inside = [file for path in named if os.path.isdir(path) for file in path.rglob("*")]  # noqa: PTH112
    return [*named, *inside, *(Path(file) for name in names for file in glob.glob(name, recursive=True))]  # noqa: PTH207


def labels_of(images: tuple[str, ...], given: tuple[str, ...]) -> Any:
    """Return labels as Python takes them.

    Raises:
        OptionError: if the shell expanded a glob of labels, so that all but the first came to the images.
    """
    if len(given) != 1:
        return list(given)
    mask = Path(given[0])
    beside = [name for name in map(Path, images) if name.parent == mask.parent and name.suffix == mask.suffix]
    if mask.is_file() and beside and len(beside) < len(images) and all(name.is_file() for name in beside):
        raise OptionError(
            f"{beside[0]} is given as an image, but lies beside the labels {mask}. If these are several masks, put the "
            f"pattern in quotes: --labels '{mask.parent / '*'}{mask.suffix}'."
        )
    return given[0]
