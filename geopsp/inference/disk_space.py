"""Disk space that maps need, checked before the first tile."""

from __future__ import annotations

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from geopsp.core.output import existing_folder, resolve_link
from geopsp.errors import OutputError
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec

logger = logging.getLogger(__name__)

OVERVIEW_FACTOR = 4 / 3
"""Pixels of all levels of a raster by those of the finest."""


BEST_COMPRESSION = 0.001
"""Fraction of its bytes that a raster takes at best: one value everywhere, deflated."""


def disk_bytes(maps: Sequence[tuple[Sequence[RasterSpec], PartGrid]], *, at_once: int = 1) -> dict[Path, float]:
    """Return the uncompressed bytes that are written into each folder.

    These are all rasters, and beside the first of each map its parts, for as many maps as are made at once.
    """
    needs: dict[Path, float] = defaultdict(float)
    parts: dict[Path, list[float]] = defaultdict(list)
    for rasters, grid in maps:
        pixels = grid.width * grid.height * OVERVIEW_FACTOR
        sizes = [pixels * len(raster.bands) * np.dtype(raster.dtype).itemsize for raster in rasters]
        folders = [existing_folder(resolve_link(raster.path).parent) for raster in rasters]
        for folder, size in zip(folders, sizes, strict=True):
            needs[folder] += size
        parts[folders[0]].append(sum(sizes))
    for folder, part_sizes in parts.items():
        needs[folder] += sum(sorted(part_sizes)[-at_once:])
    return dict(needs)


def check_disk(
    maps: Sequence[tuple[Sequence[RasterSpec], PartGrid]],
    *,
    filled: float = 1.0,
    job_folders: Iterable[Path] = (),
    at_once: int = 1,
) -> Generator[str, None, float]:
    """Yield what is written to each disk, in words; warn of a disk that may become full.

    Args:
        maps: The rasters of each map, and its size.
        filled: Fraction of the maps that may have valid pixels.
        job_folders: Beside the first rasters; what is in them already is not needed again.
        at_once: Maps that are made at a time.

    Returns:
        The bytes that are written, at most.

    Raises:
        OutputError: if a disk is too small even for rasters that hold one value everywhere.
    """
    needs, held = disk_bytes(maps, at_once=at_once), dict[int, int]()
    for folder in job_folders:
        disk = existing_folder(folder.parent).stat().st_dev
        held[disk] = held.get(disk, 0) + bytes_in(folder)
    folders = {folder.stat().st_dev: folder for folder in reversed(needs)}
    need = "the map needs" if len(maps) == 1 else "the maps need"
    for disk, full in _by_disk(needs).items():
        folder, size = folders[disk], full * filled
        free = shutil.disk_usage(folder).free
        available = free + held.get(disk, 0)
        if size * BEST_COMPRESSION > available:
            raise OutputError(
                f"The disk of {folder} is too small: it has {format_bytes(free)} free, but {need} {format_bytes(size)} "
                f"uncompressed, and {format_bytes(size * BEST_COMPRESSION)} even if all pixels are of one class. Free "
                "some space, or choose another folder."
            )
        if size > available:
            logger.warning(
                f"The disk of {folder} may become full: it has {format_bytes(free)} free, but {need} "
                f"{format_bytes(size)} uncompressed. If compression does not make it fit, the run stops; free some "
                "space then, and repeat the same call to resume."
            )
        else:
            yield f"Output: up to {format_bytes(size)} in {folder} ({format_bytes(free)} free)."
    return sum(needs.values()) * filled


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder, also while files come and go; 0 if there is no folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total


def _by_disk(needs: Mapping[Path, float]) -> dict[int, float]:
    disks: dict[int, float] = defaultdict(float)
    for folder, size in needs.items():
        disks[folder.stat().st_dev] += size
    return disks


def format_bytes(count: float) -> str:
    """Write a number of bytes in kB, MB or GB, powers of 1000."""
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
