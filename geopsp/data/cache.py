"""Chips decoded once, in files that are mapped into memory: for sets that are read many times."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.lib.format import dtype_to_descr, open_memmap, write_array_header_1_0

from geopsp.chips.chip_set import ChipSet
from geopsp.core.output import atomic_output, check_output
from geopsp.core.progress import Progress, progress_bar
from geopsp.data.dataset import ChipFiles, RawChip
from geopsp.errors import ChipError, OutputError

logger = logging.getLogger(__name__)

CACHE_INFO = "cache.json"


VERSION = 1


PARTS = ("image", "valid", "codes")


class ChipCache:
    """The pixels of a chip set, from a folder of arrays that all processes share through the page cache."""

    margin = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # plain views: a memmap makes each slice of itself a memmap again, which costs
        self._image, self._valid, self._codes = (
            np.asarray(open_memmap(folder / f"{part}.npy", mode="r")) for part in PARTS
        )

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Views of what is mapped."""
        rows, cols = slice(top, top + size), slice(left, left + size)
        return RawChip(self._image[row, :, rows, cols], self._valid[row, rows, cols], self._codes[row, rows, cols])

    def __reduce__(self) -> tuple[type[ChipCache], tuple[Path]]:
        """Another process maps the files itself."""
        return ChipCache, (self.folder,)


def open_cache(chips: ChipSet, folder: str | Path) -> ChipCache:
    """The chips' cache in a folder; made first where it is not there, is damaged, or the chips have changed since.

    Raises:
        ChipError: if a chip cannot be read.
        OutputError: if the cache cannot be written, or the disk has no room for it.
    """
    names = "\n".join(str(Path(path).resolve()) for path in chips.index["image"])
    place = Path(folder) / f"chips-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    key = _key(chips)
    found, _ = _open(place, key)
    if found is not None:
        return found
    check_output(place, overwrite=True, folder=True)
    with FileLock(place.with_suffix(".lock")):  # of several processes, one writes
        found, trouble = _open(place, key)
        if found is not None:
            return found
        if trouble:
            logger.info(f"The cache {place} {trouble}; it is made again.")
            shutil.rmtree(place)
        with progress_bar("Decoding chips") as progress:
            _write(chips, place, key, progress)
    return ChipCache(place)


def _key(chips: ChipSet) -> str:
    """Another one if any file, or what is read of it, is another."""
    key = hashlib.sha256(f"{VERSION} {chips.dtype} {len(chips.bands)} {chips.tile_size}".encode())
    for path in map(Path, (*chips.index["image"], *chips.index["label"])):
        try:
            about = path.stat()
        except OSError as error:
            raise ChipError(f"A chip cannot be read ({error}). Export the chips again (geopsp chips).") from error
        key.update(f"{path.resolve()} {about.st_size} {about.st_mtime_ns}\n".encode())
    return key.hexdigest()


def _open(place: Path, key: str) -> tuple[ChipCache | None, str]:
    """The cache, or None and what is wrong with it: nothing where there is none."""
    if not place.exists():
        return None, ""
    try:
        same = json.loads((place / CACHE_INFO).read_text(encoding="utf-8"))["key"] == key
        return (ChipCache(place), "") if same else (None, "is of chips that have changed since")
    except (OSError, ValueError, KeyError, TypeError):
        return None, "is damaged"


def _write(chips: ChipSet, place: Path, key: str, progress: Progress) -> None:
    side = chips.tile_size
    shapes = ((len(chips.bands), side, side), (side, side), (side, side))
    types = (np.dtype(chips.dtype), np.dtype(bool), np.dtype(np.uint8))
    needed = len(chips) * sum(math.prod(shape) * kind.itemsize for shape, kind in zip(shapes, types, strict=True))
    _require_room(place, needed)
    logger.info(f"Decoding {len(chips)} chips into {place}: {needed / 1e6:,.0f} MB")
    with atomic_output(place, folder=True) as folder, ExitStack() as stack:
        files = [stack.enter_context((folder / f"{part}.npy").open("wb")) for part in PARTS]
        for file, shape, kind in zip(files, shapes, types, strict=True):
            header = {"descr": dtype_to_descr(kind), "fortran_order": False, "shape": (len(chips), *shape)}
            write_array_header_1_0(file, header)
        for row, part in enumerate(_decoded(chips)):
            for file, array in zip(files, part, strict=True):
                file.write(array.tobytes())  # not through a map: there, a full disk ends the program
            progress(row + 1, len(chips))
        (folder / CACHE_INFO).write_text(json.dumps({"key": key, "chips": len(chips)}), encoding="utf-8")


def _require_room(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise OutputError(
            f"The cache {place} needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free on its disk. "
            "Make room, or choose another folder or none (cache=None)."
        )


def _decoded(chips: ChipSet) -> Iterator[RawChip]:
    files = ChipFiles(chips)
    for row in range(len(chips)):
        part = files.read(row, 0, 0, chips.tile_size)
        if part.data.dtype != chips.dtype:
            raise ChipError(
                f"{files.images[row]} holds {part.data.dtype} pixels; needed {chips.dtype}, as its folder says. "
                "Export the chips again."
            )
        yield part
