"""Disk space that a map needs, checked before the first tile."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from geopsp.core.output import resolve_link
from geopsp.errors import OutputError
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec

OVERVIEWS = 4 / 3
"""All levels of a raster to the finest."""


DENSE = 0.001
"""Share of its bytes to which a raster shrinks at best: one value everywhere, deflated."""


def disk_bytes(maps: Sequence[tuple[Sequence[RasterSpec], PartGrid]], *, at_once: int = 1) -> dict[Path, float]:
    """Uncompressed bytes that are written into each folder.

    That is all products, and beside the first of a map the parts of all, of so many maps as are made at once.
    """
    needs: dict[Path, float] = defaultdict(float)
    parts: dict[Path, list[float]] = defaultdict(list)
    for products, grid in maps:
        pixels = grid.width * grid.height * OVERVIEWS
        sizes = [pixels * len(product.bands) * np.dtype(product.dtype).itemsize for product in products]
        folders = [_folder(product) for product in products]
        for folder, size in zip(folders, sizes, strict=True):
            needs[folder] += size
        parts[folders[0]].append(sum(sizes))
    for folder, every in parts.items():
        needs[folder] += sum(sorted(every)[-at_once:])
    return dict(needs)


def _folder(product: RasterSpec) -> Path:
    """Where it is written: links are followed."""
    return resolve_link(product.path).parent


def check_disk(
    maps: Sequence[tuple[Sequence[RasterSpec], PartGrid]],
    *,
    filled: float = 1.0,
    held: Iterable[Path] = (),
    at_once: int = 1,
) -> Iterator[str]:
    """What to know of the room on the disks, in words.

    Args:
        maps: What is written, and of what size.
        filled: Share of the maps that may hold anything.
        held: The jobs' folders, beside the first products; what is in them already is not needed again.
        at_once: Maps that are made at a time.

    Raises:
        OutputError: if they are too small even for rasters that hold one value everywhere.
    """
    needs, there = disk_bytes(maps, at_once=at_once), dict[int, int]()
    for folder in held:
        disk = folder.parent.stat().st_dev
        there[disk] = there.get(disk, 0) + bytes_in(folder)
    folders = {folder.stat().st_dev: folder for folder in reversed(needs)}
    for disk, full in _by_disk(needs).items():
        folder, size = folders[disk], full * filled
        free_bytes = shutil.disk_usage(folder).free
        left = free_bytes + there.get(disk, 0)
        what = "the map needs" if len(maps) == 1 else "the maps need"
        words = f"{folder} has {format_bytes(free_bytes)} free"
        if size * DENSE > left:
            raise OutputError(
                f"The disk of {words}; {what} {format_bytes(size)} uncompressed, and "
                f"{format_bytes(size * DENSE)} even if all of it is one class. Free some, or choose another place."
            )
        if size > left:
            yield (
                f"the disk may become full: that of {words}, and uncompressed {what} {format_bytes(size)}, so it fits "
                "only if it compresses well. If not, it stops; free some room, and the same call goes on"
            )
        else:
            yield f"up to {format_bytes(size)} are written; the disk of {words}"


def bytes_in(folder: Path) -> int:
    """Of all files in a folder, also while others come and go; 0 if there is none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).stat().st_size
    return total


def _by_disk(needs: Mapping[Path, float]) -> dict[int, float]:
    disks: dict[int, float] = defaultdict(float)
    for folder, size in needs.items():
        disks[folder.stat().st_dev] += size
    return disks


def format_bytes(count: float) -> str:
    """In kB, MB or GB, thousands of thousands."""
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
