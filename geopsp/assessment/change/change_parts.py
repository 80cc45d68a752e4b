"""The change of two maps, made part by part and resumed after an interruption.

While it is made, the folder `.partial-NAME` lies beside its output:

    change.json         what is being made, by its key
    NUMBER.part         a part of the raster, as raster/cog/part_file.py writes it
    NUMBER.npz          pixels and areas of the pairs of classes in it; it comes last, so that the part is complete
    large.tif           the changes without small regions, while parts are made
    done/NAME           the finished raster before it is moved to its place
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geopsp.assessment.change.change_codes import ChangeCodes
from geopsp.assessment.change.change_raster import ChangeRaster, MapPair, Sums, large_changes, look_up
from geopsp.core.grid import Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.output import partial_path, write_errors
from geopsp.core.owned_files import FolderKind, require_owned
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.progress import progress_bar
from geopsp.core.run_state import read_state, write_state
from geopsp.errors import OutputError
from geopsp.inference.outputs import class_spec
from geopsp.polygons.class_raster import CodeSource
from geopsp.raster.cog.assemble import assemble
from geopsp.raster.cog.part_file import PartWriter, is_complete
from geopsp.raster.cog.part_grid import BLOCK, Part, PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec

PART = 2048
"""Side of a part, in pixels: small, as each thread makes one."""

STATE, DONE, LARGE = "change.json", "done", "large.tif"

WORK_FOLDER = FolderKind(STATE, ("[0-9]*.part", "[0-9]*.npz", ".*", LARGE, f"{DONE}/*"))

GDAL_CACHE_BYTES = 64 * 2**20
"""Bytes of blocks that GDAL keeps."""

KEY_TAG = "GEOPSP_CHANGE"
"""Tag of the raster."""


@dataclass(frozen=True, eq=False)
class ChangeJob:
    """What is made, and where its parts lie."""

    pair: MapPair
    codes: ChangeCodes
    min_area: float
    """In m2; smaller changed regions count as unchanged."""

    out: Path
    key: str
    """Of all that the pixels depend on."""

    @property
    def folder(self) -> Path:
        return partial_path(self.out)

    @cached_property
    def parts(self) -> PartGrid:
        return PartGrid(self.pair.grid.width, self.pair.grid.height, part_width=PART, part_height=PART)

    @property
    def raster_path(self) -> Path:
        """Where the finished raster waits."""
        return self.folder / DONE / self.out.name

    def part_path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.part"

    def _sums_path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    @cached_property
    def spec(self) -> RasterSpec:
        """What the raster looks like."""
        return class_spec(self.out, self.codes.legend())

    def begin(self) -> None:
        """Make the folder; parts of the same job stay, those of another are removed.

        Raises:
            OutputError: if the folder holds files of others, or cannot be made.
        """
        with write_errors(self.out):
            if os.path.lexists(self.folder):
                require_owned(self.folder, WORK_FOLDER, use_list=False)
                if read_state(self.folder / STATE).get("key") != self.key:
                    shutil.rmtree(self.folder)
            self.folder.mkdir(exist_ok=True)
            write_state(self.folder / STATE, {"key": self.key})

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not done."""
        return [number for number in range(len(self.parts)) if not self._is_done(number)]

    def _is_done(self, number: int) -> bool:
        window, grid = self.parts.part(number).window, self.parts
        return self._sums_path(number).is_file() and is_complete(
            self.part_path(number), window.width, window.height, self.spec, block=grid.block, levels=grid.levels
        )

    def make_parts(self) -> None:
        """Make the parts that are missing, in threads.

        Raises:
            RasterError: if a map cannot be read.
            OutputError: if a part cannot be written.
        """
        missing = self.missing()
        if not missing:
            return
        large = self.folder / LARGE
        changes = ChangeRaster(self.pair, self.codes)
        try:
            with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
                kept: CodeSource | None = None
                if self.min_area:
                    with progress_bar("Small changes") as progress:
                        kept = large_changes(changes, self.min_area, large, progress=progress)
                self._make(missing, kept)
        finally:
            large.unlink(missing_ok=True)

    def _make(self, missing: list[int], kept: CodeSource | None) -> None:
        def work(number: int) -> None:
            self._make_part(self.parts.part(number), kept)

        total, before = len(self.parts), len(self.parts) - len(missing)
        with (
            progress_bar("Change", unit="parts") as progress,
            ThreadPoolExecutor(cpu_count()) as pool,
            closing(map_ordered(pool, work, missing, in_flight=2 * cpu_count())) as parts,
        ):
            for done, _ in enumerate(parts, before + 1):
                progress(done, total)

    def _make_part(self, part: Part, kept: CodeSource | None) -> None:
        """Write a part, then its sums."""
        window, count = part.window, len(self.pair.classes) + 1
        sums, removed = np.zeros((count, count, 2)), np.zeros(2)
        lookup, is_change = self.codes.lookup, self.codes.is_change
        with PartWriter(
            self.part_path(part.number), window.width, window.height, self.spec, block=self.parts.block,
            levels=self.parts.levels,
        ) as writer:  # fmt: skip
            for row in range(window.row, window.row_stop, BLOCK):
                strip = Window(window.col, row, window.width, BLOCK).intersect(window)
                one, other = self.pair.read(strip)
                codes = look_up(lookup, one, other)
                if kept is not None:
                    small = is_change[codes] & (kept.read(strip) == IGNORE_INDEX)
                    removed += self._area_of(small, strip)
                    other = np.where(small, one, other)
                    codes = look_up(lookup, one, other)
                sums += self.pair.sums(one, other, strip)
                writer.append(codes[None])
        _save_whole(self._sums_path(part.number), sums=sums, removed=removed)

    def _area_of(self, chosen: NDArray[np.bool_], window: Window) -> NDArray[np.float64]:
        """Return (2,) number and area of the chosen pixels of a window."""
        first = np.where(chosen, np.uint8(0), np.uint8(IGNORE_INDEX))
        return np.asarray(self.pair.sums(first, first, window)[0, 0])

    def sums(self) -> tuple[Sums, NDArray[np.float64]]:
        """Return pixels and areas of all pairs of classes, and (2,) those of the small changes that were removed.

        Raises:
            OutputError: if a file of a part is damaged.
        """
        count = len(self.pair.classes) + 1
        total, removed = np.zeros((count, count, 2)), np.zeros(2)
        for number in range(len(self.parts)):
            try:
                with np.load(self._sums_path(number)) as found:
                    total += found["sums"]
                    removed += found["removed"]
            except (OSError, ValueError, KeyError) as error:
                raise OutputError(
                    f"{self._sums_path(number)} is damaged. Delete it and run the same command again."
                ) from error
        return total, removed

    def assemble(self) -> None:
        """Make the finished raster of the parts, in the folder."""
        with write_errors(self.out):
            self.raster_path.parent.mkdir(exist_ok=True)
        with ThreadPoolExecutor(cpu_count()) as pool:
            assemble(
                self.spec, self.pair.grid, self.parts, self.part_path, self.raster_path,
                tags={KEY_TAG: self.key}, pool=pool,
            )  # fmt: skip

    def clear(self) -> None:
        """Remove the folder; the file that tells whose it is goes last."""
        shutil.rmtree(self.folder / DONE, ignore_errors=True)
        for path in self.folder.iterdir():
            if path.name != STATE:
                path.unlink()
        (self.folder / STATE).unlink()
        self.folder.rmdir()

    def clear_if_empty(self) -> None:
        """Remove the folder if it holds no part to resume from."""
        if self.folder.is_dir() and not any(self.folder.glob("*.npz")):
            self.clear()


def _save_whole(path: Path, **arrays: Any) -> None:
    """Write arrays, complete or not at all.

    Raises:
        OutputError: if they cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    with write_errors(path), temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)
