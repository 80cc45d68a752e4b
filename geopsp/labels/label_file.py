"""A label raster as it is stored: class codes, colours or indices of a palette, and how often each value occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geopsp.core.grid import Grid, Window
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.progress import progress_bar
from geopsp.errors import LabelError
from geopsp.raster.image_layer import BandSource, ImageLayer
from geopsp.raster.info import read_info
from geopsp.raster.open import gdal_env, open_raster
from geopsp.raster.scene import Scene

MAX_DISTINCT_VALUES = 2**16
"""A raster with more values is no label raster."""

BLOCK = 2048
"""Side, in pixels, of what is read at once."""

MANY_BLOCKS = 64
"""Blocks from which on the progress of counting is shown."""

LabelNodata = float | Literal["none"] | None
"""The value of unlabelled pixels; "none": no value; None: the nodata value of each file."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelFile:
    """A label raster."""

    path: str
    scene: Scene
    palette: NDArray[np.int32] | None = None
    """(256,) colours 0xRRGGBB by value, if the file has a palette."""

    is_lossy: bool = False
    """True for JPEG, which changes values."""

    expand_palette: bool = False
    """True makes colours of the indices of a palette."""

    @classmethod
    def open(cls, path: str | Path, *, nodata: LabelNodata = None, grid: Grid | None = None) -> LabelFile:
        """Open a label raster and read its header.

        Args:
            path: The file.
            nodata: The value of unlabelled pixels.
            grid: Where its pixels lie; None: as its header says.

        Raises:
            InputNotFoundError, RasterError: if it cannot be read.
            GridError: if it has no georeference and `grid` is None.
            LabelError: if it has neither one band nor red, green and blue as bytes.
        """
        info = read_info(path, needs_crs=grid is None)
        if len(info.indexes) != 1 and (len(info.indexes), info.dtype) != (3, "uint8"):
            raise LabelError(
                f"{path} has {len(info.indexes)} bands of {info.dtype}, but a label raster has one band of whole "
                "numbers, or red, green and blue as bytes (uint8)."
            )
        if nodata is not None:
            value = None if nodata == "none" else float(nodata)
            info = replace(info, nodata=value, nodatas=(value,) * len(info.nodatas), sparse_bands=())
        info = replace(info, grid=grid or info.grid)
        bands = BandSource(info, info.indexes, tuple(range(len(info.indexes))), info.grid.full_window)
        layer = ImageLayer(str(path), info.bands, info.bands, (bands,))
        scene = Scene((layer,), info.grid, info.bands, str(path), resampling=Resampling.nearest)
        with gdal_env(path), open_raster(path) as dataset:
            palette = _read_palette(dataset) if len(info.indexes) == 1 else None
            return cls(str(path), scene, palette, is_lossy=dataset.driver == "JPEG")

    @property
    def nodata(self) -> float | None:
        """The value of unlabelled pixels; None if there is none."""
        return self.scene.sources[0].nodata

    @property
    def has_colors(self) -> bool:
        """True if `read` gives colours 0xRRGGBB instead of codes."""
        return len(self.scene.bands) == 3 or self.expand_palette

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32) if self.has_colors else self.scene.dtype

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the values of a window, and True where they are not nodata, both (rows, cols)."""
        pixels = self.scene.read(window)
        if len(pixels.data) == 3:
            red, green, blue = pixels.data.astype(np.int32)
            return red << 16 | green << 8 | blue, pixels.valid
        if self.expand_palette and self.palette is not None:
            return self.palette[pixels.data[0]], pixels.valid
        return pixels.data[0], pixels.valid


def _read_palette(dataset: Any) -> NDArray[np.int32] | None:
    if dataset.dtypes[0] != "uint8":
        return None
    try:
        entries = dataset.colormap(1)
    except ValueError:
        return None
    colors = np.zeros(256, np.int32)
    for index, (red, green, blue, _) in entries.items():
        colors[index] = red << 16 | green << 8 | blue
    return colors


@dataclass(slots=True, eq=False)
class ValueCounts:
    """How many pixels have each value."""

    pixels: Counter[int] = field(default_factory=Counter)
    """Valid pixels by value; if there are too many values, only the most frequent and the known ones."""

    num_valid: int = 0
    num_pixels: int = 0
    palettes: dict[int, dict[int, str]] = field(default_factory=dict)
    """By value that occurs: each colour that a palette gives it, and the first file with that palette."""

    def share(self, values: Sequence[int] | None = None) -> float:
        """Return the fraction of all pixels that have one of the values; None: that are nodata."""
        found = self.num_pixels - self.num_valid if values is None else sum(self.pixels[value] for value in values)
        return found / max(self.num_pixels, 1)


def count_values(files: Sequence[LabelFile], source: str, known: Mapping[Any, Any] | None = None) -> ValueCounts:
    """Count the pixels of all files by value, read block by block.

    Args:
        files: What to read.
        source: Their name in messages.
        known: With these values all others are allowed, too many of them are forgotten; None: they are an error.

    Raises:
        LabelError: if they are no whole numbers, or too many.
    """
    total = ValueCounts()
    num_blocks = sum(-(-file.scene.grid.height // BLOCK) * -(-file.scene.grid.width // BLOCK) for file in files)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(cpu_count()))
        parts = stack.enter_context(closing(map_ordered(pool, _count_block, _blocks(files, total), in_flight=16)))
        progress = stack.enter_context(progress_bar("Reading labels")) if num_blocks > MANY_BLOCKS else None
        for done, (file, values, counts) in enumerate(parts, start=1):
            _add_counts(total, file, values, counts)
            if len(total.pixels) > MAX_DISTINCT_VALUES:
                _forget_rare(total, source, "colours" if file.has_colors else "values", known)
            if progress:
                progress(done, num_blocks)
    return total


def _add_counts(total: ValueCounts, file: LabelFile, values: NDArray[Any], counts: NDArray[np.int64]) -> None:
    if file.palette is not None and not file.expand_palette:
        for value in map(int, values):
            total.palettes.setdefault(value, {}).setdefault(int(file.palette[value]), file.path)
    total.num_valid += int(counts.sum())
    total.pixels.update(dict(zip(map(int, values.tolist()), counts.tolist(), strict=True)))


def _forget_rare(total: ValueCounts, source: str, kind: str, known: Mapping[Any, Any] | None) -> None:
    """Keep the known and the most frequent values only.

    Raises:
        LabelError: if no value is known.
    """
    if known is None:
        raise LabelError(
            f"{source} has more than {MAX_DISTINCT_VALUES:,} different {kind}, but must contain class codes. "
            "Is it the right file?"
        )
    kept = dict(total.pixels.most_common(MAX_DISTINCT_VALUES // 2))
    total.pixels = Counter(kept | {value: count for value, count in total.pixels.items() if value in known})


def _blocks(files: Sequence[LabelFile], total: ValueCounts) -> Iterator[tuple[LabelFile, Window]]:
    for file in files:
        for block in file.scene.grid.blocks(BLOCK):
            total.num_pixels += block.width * block.height
            if not file.scene.known_empty(block):
                yield file, block


def _count_block(task: tuple[LabelFile, Window]) -> tuple[LabelFile, NDArray[Any], NDArray[np.int64]]:
    """Return the distinct values of a block, and how many pixels have each."""
    file, block = task
    data, valid = file.read(block)
    found = data[valid]
    if found.dtype == np.uint8:
        counts = np.bincount(found, minlength=256)
        return file, np.flatnonzero(counts), counts[counts > 0]
    positions, values = pd.factorize(found)
    _require_whole_numbers(np.asarray(values), file.path)
    return file, np.asarray(values), np.bincount(positions, minlength=len(values))


def _require_whole_numbers(values: NDArray[Any], source: str) -> None:
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        examples = ", ".join(map(str, values[values != np.floor(values)][:3].tolist()))
        raise LabelError(
            f"{source} has values such as {examples} ({values.dtype}), but a label raster contains whole numbers."
        )
