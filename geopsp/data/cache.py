"""Cache of decoded chips in memory-mapped files, for chip sets that are read many times."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.lib.format import dtype_to_descr, open_memmap, write_array_header_1_0

from geopsp.chips.chip_set import ChipSet
from geopsp.core.addresses import require_local
from geopsp.core.documents import is_regular
from geopsp.core.output import atomic_output, check_output
from geopsp.core.owned_files import FolderKind, remove_owned
from geopsp.core.progress import Progress, progress_bar
from geopsp.core.run_state import read_state
from geopsp.core.text import format_count, format_error
from geopsp.data.dataset import ChipFiles, RawChip
from geopsp.errors import ChipError, OutputError

logger = logging.getLogger(__name__)

CACHE_INFO = "cache.json"


VERSION = 1


PARTS = ("image", "valid", "codes")

CACHE_FOLDER = FolderKind(None, (CACHE_INFO, *(f"{part}.npy" for part in PARTS)))


class ChipCache:
    """Reads the pixels of a chip set from a folder of arrays, which all processes share through the page cache."""

    margin = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # plain arrays: slices of a memmap are memmaps again, which takes time
        self._image, self._valid, self._codes = (
            np.asarray(open_memmap(folder / f"{part}.npy", mode="r")) for part in PARTS
        )

    @property
    def layout(self) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and type of each array."""
        return [(array.shape, array.dtype) for array in (self._image, self._valid, self._codes)]

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Return views of the mapped arrays."""
        rows, cols = slice(top, top + size), slice(left, left + size)
        return RawChip(self._image[row, :, rows, cols], self._valid[row, rows, cols], self._codes[row, rows, cols])

    def __reduce__(self) -> tuple[type[ChipCache], tuple[Path]]:
        """Return what another process needs to map the files itself."""
        return ChipCache, (self.folder,)


def open_cache(chips: ChipSet, folder: str | Path) -> ChipCache:
    """Open the cache of a chip set in a folder; write it first if it is missing, damaged or out of date.

    Raises:
        ChipError: if a chip cannot be read.
        OutputError: if the cache cannot be written, or does not fit on the disk.
    """
    require_local("cache", folder, "Chips of an object store are copied to a disk anyway.")
    names = "\n".join(str(Path(path).resolve()) for path in chips.index["image"])
    path = Path(folder) / f"chips-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    key = _key(chips)
    cache, _ = _open(path, key, chips)
    if cache is not None:
        return cache
    check_output(path.parent / f"{path.name}.lock", overwrite=True)
    with FileLock(path.with_suffix(".lock")):  # of several processes, one writes
        cache, problem = _open(path, key, chips)
        if cache is not None:
            return cache
        if problem:
            logger.info(f"{problem}: decoding the chips again.")
            remove_owned(path, CACHE_FOLDER, any_size=True)
        with progress_bar("Decoding chips") as progress:
            _write(chips, path, key, progress)
    return ChipCache(path)


def _key(chips: ChipSet) -> str:
    """Return a hash of the files (size and time of change) and of what is read from them."""
    key = hashlib.sha256(f"{VERSION} {chips.dtype} {len(chips.bands)} {chips.tile_size}".encode())
    for path in map(Path, (*chips.index["image"], *chips.index["label"])):
        try:
            status = path.stat()
        except OSError as error:
            raise ChipError(f"Cannot read the chip {path}: {format_error(error)}. Export the chips again.") from error
        key.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return key.hexdigest()


def _open(path: Path, key: str, chips: ChipSet) -> tuple[ChipCache | None, str]:
    """Return the cache, or None and what is wrong with it; "" if there is none."""
    if not path.exists():
        return None, ""
    found = read_state(path / CACHE_INFO).get("key")
    if found is not None and found != key:
        return None, f"The chips have changed since the cache {path} was written"
    with suppress(OSError, ValueError, TypeError):
        if found and all(is_regular(path / f"{part}.npy") for part in PARTS):
            cache = ChipCache(path)
            if cache.layout == [((len(chips), *shape), kind) for shape, kind in _layout(chips)]:
                return cache, ""
    return None, f"The cache {path} is damaged"


def _layout(chips: ChipSet) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of a chip in each part."""
    side = chips.tile_size
    return [
        ((len(chips.bands), side, side), np.dtype(chips.dtype)),
        ((side, side), np.dtype(bool)),
        ((side, side), np.dtype(np.uint8)),
    ]


def _write(chips: ChipSet, path: Path, key: str, progress: Progress) -> None:
    layout = _layout(chips)
    needed = len(chips) * sum(math.prod(shape) * kind.itemsize for shape, kind in layout)
    _require_room(path, needed)
    logger.info(f"Decoding {format_count(len(chips), 'chip')} into {path}: {needed / 1e6:,.0f} MB")
    with atomic_output(path, folder=True, kind=CACHE_FOLDER) as folder, ExitStack() as stack:
        files = [stack.enter_context((folder / f"{part}.npy").open("wb")) for part in PARTS]
        for file, (shape, kind) in zip(files, layout, strict=True):
            header = {"descr": dtype_to_descr(kind), "fortran_order": False, "shape": (len(chips), *shape)}
            write_array_header_1_0(file, header)
        for row, chip in enumerate(_decode(chips)):
            for file, array in zip(files, chip, strict=True):
                file.write(array.tobytes())  # not through a map: a full disk would kill the process
            progress(row + 1, len(chips))
        (folder / CACHE_INFO).write_text(json.dumps({"key": key, "chips": len(chips)}), encoding="utf-8")


def _require_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OutputError(
            f"The cache {path} needs {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free on its disk. Free "
            "some space, choose another folder, or use no `cache`."
        )


def _decode(chips: ChipSet) -> Iterator[RawChip]:
    files = ChipFiles(chips)
    for row in range(len(chips)):
        yield files.read(row, 0, 0, chips.tile_size)
