"""Rasters seen as one grid: windowed reads of pixels and of where they are valid."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Grid, Window
from geopsp.errors import BandError, GridError, OptionError
from geopsp.raster.find_images import Images, find_images
from geopsp.raster.info import RasterInfo, raster_fingerprint
from geopsp.raster.mosaic import (
    BandSource,
    ImageLayer,
    align_layer,
    note_left_out,
    notes_on,
    place_layers,
    require_one_type,
    select_bands,
    target_grid,
)
from geopsp.raster.open import OpenDatasets, gdal_env, read_error
from geopsp.raster.valid_mask import block_is_missing, valid_mask_but_zero
from geopsp.raster.warp import WARP_CELL, open_source, reproject_extent, resample_to_grid, warp_cells


@dataclass(frozen=True, slots=True, eq=False)
class RasterArray:
    """Pixels and where they lie."""

    data: NDArray[Any]
    """Pixel values, (bands, rows, cols); 0 where no raster reaches."""

    valid: NDArray[np.bool_]
    """(rows, cols); True where the sensor saw ground."""

    grid: Grid


@dataclass(slots=True, eq=False)
class Scene:
    """One image or many, seen as one grid: the first one's lattice, stretched over all of them.

    Later images fill where earlier ones are invalid. Safe to read from several threads and to send to other
    processes: each opens files of its own.
    """

    layers: tuple[ImageLayer, ...]
    """The images, the one on top first."""

    grid: Grid
    bands: tuple[str, ...]
    """Names of the bands read."""

    name: str
    """What messages and the index of chips call it."""

    notes: tuple[str, ...] = ()
    """What was done to bring the rasters onto one grid, in words."""

    resampling: Resampling = Resampling.bilinear
    _handles: threading.local = field(default_factory=threading.local, repr=False)

    @classmethod
    def open(
        cls,
        images: Images,
        *,
        bands: Sequence[str | int] | None = None,
        resampling: Resampling = Resampling.bilinear,
        onto: Grid | None = None,
        cell_size: float | None = None,
        extent: Sequence[float] | None = None,
        order: str = "given",
    ) -> Scene:
        """The scene that the images make.

        Args:
            images: What `find_images` takes; the first image found gives the grid and lies on top.
            bands: Names, or numbers from 1; None means all bands of the first image.
            resampling: How files on another lattice are brought onto the scene's.
            onto: A grid whose lattice the scene takes; None means the first image's.
            cell_size: Width of a pixel in CRS units; None means the first image's. Pixels then lie north-up, and
                are averaged from files at most half as coarse.
            extent: (left, bottom, right, top) in CRS units, snapped outward to whole pixels; None means all.
            order: Which image is first: as `find_images`.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, OptionError: as the input is.
        """
        found = find_images(images, order=order)
        first = select_bands(found[0], bands)
        layers = [first, *(select_bands(image, first.bands) for image in found[1:])]
        lattice, target = target_grid(layers, onto=onto, cell_size=cell_size)
        require_one_type([(layer.name, layer.dtype) for layer in layers])
        layers = [align_layer(layer, lattice, resampling, thin=cell_size is not None) for layer in layers]
        grid, settled = place_layers(layers, lattice, extent)
        notes = notes_on(found, settled, grid, order=order, target=target)
        name = found[0].name + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        return cls(settled, grid, first.bands, name, notes, resampling)

    @property
    def sources(self) -> tuple[RasterInfo, ...]:
        """The files that are read."""
        return tuple(source for layer in self.layers for source in layer.sources)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the pixels of every source."""
        return np.result_type(*(layer.dtype for layer in self.layers))

    @property
    def cell_size(self) -> tuple[float, float]:
        return self.grid.cell_size

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, cols) that the first file keeps together, or that are read together as it is warped."""
        first = self.sources[0]
        return (WARP_CELL, WARP_CELL) if first.warped else first.block

    def read(self, window: Window | None = None) -> RasterArray:
        """The pixels of a window, which may overhang the scene; None means all.

        Raises:
            RasterError: if a file's pixels cannot be read.
        """
        window = window or self.grid.full_window
        if len(self.layers) == 1 and self._part(self.layers[0], window) == window:
            return RasterArray(*self._read_layer(self.layers[0], window), self.grid.crop(window))
        data = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), bool)
        for number, layer in enumerate(self.layers):
            if valid.all():
                break
            part = self._part(layer, window)
            if part.is_empty:
                continue
            pixels, seen = self._read_layer(layer, part)
            inside = part.slices(window)
            fresh = ~valid[inside] & (seen | (number == 0))
            np.copyto(data[:, *inside], pixels, where=fresh)
            valid[inside] |= seen
        return RasterArray(data, valid, self.grid.crop(window))

    def read_onto(self, grid: Grid) -> RasterArray:
        """The pixels on another grid of the same CRS, e.g. a rotated one: bilinear over valid pixels only.

        A pixel is valid where the one is that its centre lies in. Integers are rounded. A scene opened to resample by
        nearest is so here.

        Raises:
            GridError: if the grid has another CRS.
            RasterError: if a file's pixels cannot be read.
        """
        window = self.grid.window_of(grid)
        if window is not None:
            patch = self.read(window)
            return RasterArray(patch.data, patch.valid, grid)
        if grid.crs != self.grid.crs:
            raise GridError(f"Asked for pixels on {grid!r}; {self.name} lies on {self.grid!r}. Warp the grid first.")
        around = self.grid.enclosing_window(grid.corners())
        around = Window(around.col - 1, around.row - 1, around.width + 2, around.height + 2)
        patch = self.read(around)
        data, valid = resample_to_grid(
            patch.data, patch.valid, patch.grid, grid, nearest=self.resampling == Resampling.nearest
        )
        return RasterArray(data, valid, grid)

    def known_empty(self, window: Window) -> bool:
        """True if it is known, without reading a pixel, that none in the window is valid.

        It is where no file reaches, and where a TIFF with a nodata value or alpha holds no block.
        """
        return all(self._layer_empty(layer, self._part(layer, window)) for layer in self.layers)

    def fingerprint(self) -> list[str]:
        """What tells the files from others: path, bytes and time of change; of URLs the address alone."""
        return [line for source in dict.fromkeys(s.path for s in self.sources) for line in raster_fingerprint(source)]

    def _part(self, layer: ImageLayer, window: Window) -> Window:
        """The part of a window that lies in the scene and that the layer can fill."""
        return window.intersect(self.grid.full_window).intersect(layer.window)

    def _layer_empty(self, layer: ImageLayer, part: Window) -> bool:
        """True if a file says so, but where a 0 is all that it says: then all of the image's files have to."""
        if part.is_empty or any(part.intersect(pick.window).is_empty for pick in layer.picks):
            return True
        bare = [self._pick_empty(pick, part.intersect(pick.window)) for pick in layer.picks]
        return all(bare) or any(its and not pick.zero_is_nodata for pick, its in zip(layer.picks, bare, strict=True))

    def _pick_empty(self, pick: BandSource, part: Window) -> bool:
        source = pick.source
        if source.warped or not source.sparse_bands:
            return False
        with gdal_env(source.path):
            return block_is_missing(self._dataset(pick), pick.sparse_bands, source.block, _area(part, pick.window))

    def _read_layer(self, layer: ImageLayer, part: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(bands, rows, cols) pixels and (rows, cols) validity: of one file, or of several that hold bands each."""
        if len(layer.picks) == 1:
            data, valid = self._read_pick(layer.picks[0], part)
        else:
            data = np.zeros((len(self.bands), part.height, part.width), self.dtype)
            valid = np.ones((part.height, part.width), bool)
            for pick in layer.picks:
                its = np.zeros_like(valid)
                inside = part.intersect(pick.window)
                if not inside.is_empty:
                    rows, cols = inside.slices(part)
                    data[list(pick.positions), rows, cols], its[rows, cols] = self._read_pick(pick, inside)
                valid &= its
        if any(pick.zero_is_nodata for pick in layer.picks):
            valid &= data.any(axis=0)
        return data, valid

    def _read_pick(self, pick: BandSource, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(bands, rows, cols) pixels of a window that lies within the file, and (rows, cols) validity as `seen`.

        Of a warped file as `cells` has them: GDAL's warp gives a pixel a value that depends on what is read with it.
        """
        if not pick.source.warped:
            return self._read_file(pick, window)
        data = np.empty((len(pick.indexes), window.height, window.width), pick.source.dtype)
        valid = np.empty((window.height, window.width), bool)
        for cell in warp_cells(window, pick.window):
            pixels, its = self._read_file(pick, cell)
            part = cell.intersect(window)
            rows, cols = part.slices(cell)
            inside = part.slices(window)
            data[:, *inside], valid[inside] = pixels[:, rows, cols], its[rows, cols]
        return data, valid

    def _read_file(self, pick: BandSource, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As `_read_pick`, in one read."""
        area = _area(window, pick.window)
        try:
            with gdal_env(pick.source.path):
                dataset = self._dataset(pick)
                data = dataset.read(pick.indexes, window=area)
                nodatas = [dataset.nodatavals[i - 1] for i in pick.indexes] if pick.source.warped else pick.nodatas
                return data, valid_mask_but_zero(
                    dataset, data, pick.indexes, area, nodatas=nodatas, shown=pick.source.indexes
                )
        except RasterioError as error:
            raise read_error(pick.source.path, area, error) from error

    def _dataset(self, pick: BandSource) -> Any:
        """This thread's own handle of a file."""
        local = self._handles
        if getattr(local, "process", None) != os.getpid():
            local.process, local.open = os.getpid(), OpenDatasets()
        source = pick.source
        key = (source.path, source.resampling, str(source.nodata), pick.window)
        return local.open.get(key, lambda: open_source(source))

    def __getstate__(self) -> dict[str, Any]:
        names = ("layers", "grid", "bands", "name", "notes", "resampling")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._handles = threading.local()

    # names of earlier versions
    stamp = fingerprint
    empty = known_empty
    block = block_shape


def _area(window: Window, place: Window) -> RioWindow:
    """The window as the file at `place` counts its pixels."""
    return RioWindow(window.col - place.col, window.row - place.row, window.width, window.height)


def open_scenes(
    images: Images,
    *,
    bands: Sequence[str | int] | None = None,
    per_image: bool = True,
    cell_size: float | None = None,
    extent: Sequence[float] | None = None,
    order: str = "given",
) -> list[Scene]:
    """One scene an image, all with the bands and the type of the first, each on its own grid.

    Args:
        images: What `find_images` takes.
        bands: As in `Scene.open`.
        per_image: False makes one mosaic of all.
        cell_size: As in `Scene.open`.
        extent: (left, bottom, right, top) in the CRS of the first image; those that miss it are left out.
        order: As in `Scene.open`.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, OptionError: as the input is.
    """
    if not per_image:
        return [Scene.open(images, bands=bands, cell_size=cell_size, extent=extent, order=order)]
    found = find_images(images, order=order)
    first = Scene.open(found[0], bands=bands, cell_size=cell_size)
    scenes = [first, *(Scene.open(image, bands=first.bands, cell_size=cell_size) for image in found[1:])]
    require_one_type([(scene.name, scene.dtype) for scene in scenes])
    for scene in scenes[1:]:
        _require_alike(scene, first, by_name=bands is not None, sized=cell_size is not None)
    if extent is not None:
        scenes = _within(scenes, extent)
    seen: dict[str, int] = {}
    for scene in scenes:
        seen[scene.name] = seen.get(scene.name, 0) + 1
        scene.name += f" ({seen[scene.name]})" if seen[scene.name] > 1 else ""
    return scenes


def _require_alike(scene: Scene, first: Scene, *, by_name: bool, sized: bool) -> None:
    if sized and scene.grid.unit != first.grid.unit:
        raise OptionError(
            f"cell_size is one number, but {scene.name} counts in {scene.grid.unit} and {first.name} in "
            f"{first.grid.unit}; needed images of one unit. Warp them to one CRS, or make a mosaic of them."
        )
    ours, theirs = len(scene.layers[0].found), len(first.layers[0].found)
    if ours != theirs and not by_name:
        raise BandError(
            f"{scene.name} has {ours} bands, {first.name} has {theirs}. Name the bands to use (bands=, --bands)."
        )


def _within(scenes: Sequence[Scene], extent: Sequence[float]) -> list[Scene]:
    """The scenes cut to the extent, in the CRS of the first; those that miss it are left out."""
    kept: list[Scene] = []
    missed: dict[str, GridError] = {}
    for scene in scenes:
        try:
            box = extent if scene is scenes[0] else reproject_extent(extent, scenes[0].grid.crs, scene.grid)
            grid, layers = place_layers(scene.layers, scene.grid, box)
        except GridError as error:
            missed.setdefault(scene.name, error)
        else:
            kept.append(replace(scene, layers=layers, grid=grid, _handles=threading.local()))
    if not kept:
        raise next(iter(missed.values()))
    kept[0].notes = (*kept[0].notes, *note_left_out(list(missed)))
    return kept
