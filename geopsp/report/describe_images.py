"""Description of many images, or of images and masks in two folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geopsp.core.escape import printable_lines
from geopsp.core.grid import Grid
from geopsp.core.text import format_count, format_pixel_size
from geopsp.errors import GeopspError, InputNotFoundError
from geopsp.raster.find_images import find_images
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.open import RASTER_ENDINGS
from geopsp.report.describe_vector import labels_beside
from geopsp.report.description import Description, counted, place, place_line, shell_line

MAX_READ = 500
"""Images whose headers are read, evenly chosen from all."""


MASK_FOLDERS = re.compile(r"(?i)(masks?|labels?|gt|ground_?truths?|annotations?|annos?|targets?|segmentations?|seg)$")
"""Names of folders that hold masks."""


MASK_SUFFIX = re.compile(r"(?i)[_\-. ](mask|masks|label|labels|gt|seg|image|img|sat|rgb)$")
"""What a mask's or an image's name may have after the name of the place."""


def image_files(folder: Path) -> list[Path]:
    """Return the raster files of a folder."""
    return sorted(
        file for file in folder.iterdir() if file.suffix.lower() in RASTER_ENDINGS and not file.name.startswith(".")
    )


def describe_images(paths: Sequence[str], start: str) -> Description:
    """Describe images by their headers: how many, and what they have in common; and masks in a folder beside them.

    Args:
        paths: Files, globs and folders.
        start: The command that takes these paths, without the labels.

    Raises:
        InputNotFoundError, RasterError: if there are none.
    """
    folder = Path(paths[0])
    if len(paths) == 1 and folder.is_dir() and not image_files(folder):
        return _describe_subfolders(folder)
    lines, content = _describe_all([str(path) for path in paths], ", ".join(map(str, paths[:3])))
    return Description("images", printable_lines(lines), content, f"{start} {labels_beside(folder)} --out chips")


def _describe_subfolders(folder: Path) -> Description:
    """Describe a folder of images and one of masks, or all folders of images."""
    found = {each: image_files(each) for each in sorted(folder.iterdir()) if each.is_dir()}
    found = {each: files for each, files in found.items() if files}
    masks = [each for each in found if MASK_FOLDERS.search(each.name)]
    images = [each for each in found if each not in masks]
    if not images:
        images, masks = masks, []
    if not images:
        raise InputNotFoundError(f"{folder} holds no images. Check the path.")
    lines, contents = [f"{folder}: {format_count(len(found), 'folder')} of images"], []
    for each in (*images, *masks):
        part, content = _describe_all([str(each)], str(each))
        lines += [f"  {line}" for line in part]
        contents.append(content | {"are_masks": each in masks})
    content = {"path": str(folder), "folders": contents}
    if not masks:
        command = f"{shell_line('geopsp', 'chips', images[0])} {labels_beside(images[0])} --out chips"
        return Description("images", printable_lines(lines), content, command)
    keys = [{_key(file) for file in found[each]} for each in (images[0], masks[0])]
    content["matched"] = len(keys[0] & keys[1])
    lines.append(
        f"  matched    {len(keys[0] & keys[1]):,} by name; {len(keys[0] - keys[1]):,} images without a mask, "
        f"{len(keys[1] - keys[0]):,} masks without an image"
    )
    command = shell_line("geopsp", "chips", images[0], "--labels", masks[0], "--out", "chips")
    return Description("images", printable_lines(lines), content, command)


def _key(file: Path) -> str:
    return MASK_SUFFIX.sub("", file.stem).lower()


def _describe_all(paths: Sequence[str], name: str) -> tuple[list[str], dict[str, Any]]:
    images = find_images(list(paths))
    every = max(1, len(images) / MAX_READ)
    chosen = [images[int(i * every)] for i in range(min(len(images), MAX_READ))]
    infos: list[RasterInfo] = []
    damaged: list[str] = []
    for image in chosen:
        try:
            infos += [read_info(file, needs_crs=False) for file in image.files]
        except GeopspError:
            damaged.append(image.name)
    bands = Counter(_bands(info) for info in infos)
    facts = {
        "bands": bands,
        "type": Counter(info.dtype for info in infos),
        "CRS": Counter(info.grid.crs.to_string() if info.grid.crs else "none" for info in infos),
        "pixel": Counter(_pixel_size(info.grid) for info in infos),
        "size": Counter(f"{info.grid.width:,} x {info.grid.height:,}" for info in infos),
        "nodata": Counter("none declared" if info.nodata is None else f"{info.nodata:g}" for info in infos),
    }
    degrees = _degrees(infos)
    read = f" (the headers of {len(chosen):,} were read)" if len(chosen) < len(images) else ""
    lines = [f"{name}: {format_count(len(images), 'image')}{read}"]
    lines += [f"  {fact:<10} {counted(values)}" for fact, values in facts.items() if values]
    lines += place_line(degrees)
    if damaged:
        lines.append(f"  damaged    {format_count(len(damaged), 'image')} cannot be read: {', '.join(damaged[:5])}")
    content = {
        "path": name,
        "images": len(images),
        "read": len(chosen),
        **{fact: dict(values.most_common()) for fact, values in facts.items()},
        "degrees": degrees,
        "damaged": damaged,
    }
    return lines, content


def _bands(info: RasterInfo) -> str:
    return f"{len(info.bands)} ({', '.join(info.bands[:6])}{', ...' if len(info.bands) > 6 else ''})"


def _pixel_size(grid: Grid) -> str:
    x, y = (float(f"{length:.6g}") for length in grid.cell_size)
    return format_pixel_size(x, y, grid.unit)


def _degrees(infos: Sequence[RasterInfo]) -> list[float] | None:
    """Return the bounds of all images in longitude and latitude."""
    found = [place(info.grid.bounds(), info.grid.crs.to_wkt()) for info in infos if info.grid.crs]
    known = np.array([each for each in found if each is not None])
    if not known.size:
        return None
    return [*known[:, :2].min(axis=0).tolist(), *known[:, 2:].max(axis=0).tolist()]
