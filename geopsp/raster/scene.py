"""Scene: windowed reads of pixels and valid mask from one image or a mosaic of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geopsp.core.grid import Grid, Window
from geopsp.core.pixel_values import RAW, PixelValues
from geopsp.errors import GridError
from geopsp.raster.find_images import Images, find_images
from geopsp.raster.image_layer import ImageLayer, names_indices, select_bands
from geopsp.raster.info import RasterInfo, raster_fingerprint
from geopsp.raster.layer_files import LayerFiles
from geopsp.raster.mosaic import align_layer, mosaic_notes, place_layers, require_one_type, target_grid
from geopsp.raster.pixel_rule import PixelRule
from geopsp.raster.scene_text import scene_html, scene_line
from geopsp.raster.source_image import SourceImage
from geopsp.raster.warp import WARP_CELL, resample_to_grid


@dataclass(frozen=True, slots=True, eq=False)
class RasterArray:
    """Pixels with their valid mask and grid."""

    data: NDArray[Any]
    """Pixel values, (bands, rows, cols); 0 outside of all files."""

    valid: NDArray[np.bool_]
    """Valid mask, (rows, cols); True where there is data."""

    grid: Grid


@dataclass(slots=True, eq=False)
class Scene:
    """One image, or a mosaic of many, on one grid: that of the first image, extended over all of them.

    Later images fill pixels where earlier ones are invalid. A scene may be read from several threads and sent to
    other processes: each opens its own files (`LayerFiles`).
    """

    layers: tuple[ImageLayer, ...]
    """The images, the topmost first."""

    grid: Grid
    bands: tuple[str, ...]
    """Names of the bands that are read."""

    name: str
    """Name in messages and in the index of chips."""

    notes: tuple[str, ...] = ()
    """How the images were brought onto one grid."""

    resampling: Resampling = Resampling.bilinear

    warnings: tuple[str, ...] = ()
    """What was assumed of the values of pixels."""

    pixel_values: PixelValues = RAW
    """What the values of pixels mean."""

    _files: LayerFiles = field(default_factory=LayerFiles, repr=False)

    __repr__ = scene_line
    _repr_html_ = scene_html

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
        scaled: bool | None = None,
        expand_palette: bool = False,
    ) -> Scene:
        """Find images and open them as one scene.

        Args:
            images: See `find_images`; the first image found is on top and sets the grid.
            bands: Names, or numbers from 1; None means all bands of the first image.
            resampling: How files on another grid are warped.
            onto: A grid to align to; its size does not matter. None means the first image's.
            cell_size: Pixel size in CRS units; None means the first image's. Otherwise the grid is north-up, and files
                with pixels at most half as wide are averaged.
            extent: (left, bottom, right, top) in CRS units, extended to whole pixels; None means all.
            order: Which image comes first, see `find_images`.
            scaled: True for physical values, raw * scale + offset; False for raw ones; None: raw unless the files
                differ in scale and offset, see `PixelRule`.
            expand_palette: True reads images with a palette as red, green and blue, unless `bands=[1]` asks for the
                indices; False reads the indices, as of a class raster.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, OptionError: if an image or option cannot be used.
        """
        return cls.from_images(
            find_images(images, order=order),
            bands=bands,
            resampling=resampling,
            onto=onto,
            cell_size=cell_size,
            extent=extent,
            order=order,
            scaled=scaled,
            expand_palette=expand_palette and not names_indices(bands),
        )

    @classmethod
    def from_images(
        cls,
        images: Sequence[SourceImage],
        *,
        bands: Sequence[str | int] | None = None,
        resampling: Resampling = Resampling.bilinear,
        onto: Grid | None = None,
        cell_size: float | None = None,
        extent: Sequence[float] | None = None,
        order: str = "given",
        scaled: bool | None = None,
        like: PixelValues | None = None,
        expand_palette: bool = False,
    ) -> Scene:
        """Open images that `find_images` returned as one scene.

        Args:
            images: The images, the topmost first.
            bands: As in `open`, like the following options.
            resampling: As in `open`.
            onto: As in `open`.
            cell_size: As in `open`.
            extent: As in `open`.
            order: How the images were ordered; used in the notes only.
            scaled: As in `open`.
            like: What the values of a model's training pixels mean, instead of `scaled`.
            expand_palette: As in `open`, whatever the bands.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, OptionError: if an image or option cannot be used.
        """
        first = select_bands(images[0], bands, expand_palette=expand_palette)
        layers = [first, *(select_bands(image, first.bands, expand_palette=expand_palette) for image in images[1:])]
        aligned_to, target = target_grid(layers, onto=onto, cell_size=cell_size)
        rule = PixelRule.choose(layers, scaled=scaled, like=like)
        layers = [rule.apply_to(layer) for layer in layers]
        require_one_type([(layer.name, layer.value_dtype) for layer in layers])
        average = cell_size is not None
        layers = [align_layer(layer, aligned_to, resampling, average_if_finer=average) for layer in layers]
        grid, placed = place_layers(layers, aligned_to, extent)
        name = images[0].name + (f" and {len(images) - 1} more" if len(images) > 1 else "")
        notes = (*mosaic_notes(images, placed, grid, order=order, target=target), *rule.notes)
        return cls(placed, grid, first.bands, name, notes, resampling, rule.warnings, rule.pixel_values)

    @property
    def sources(self) -> tuple[RasterInfo, ...]:
        """Headers of the files that are read."""
        return tuple(source for layer in self.layers for source in layer.sources)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type that holds the values of every file."""
        return np.result_type(*(layer.value_dtype for layer in self.layers))

    @property
    def cell_size(self) -> tuple[float, float]:
        """Pixel width and height in CRS units."""
        return self.grid.cell_size

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, cols) of the blocks of the first file, or of the cells in which it is warped."""
        first = self.sources[0]
        return (WARP_CELL, WARP_CELL) if first.warped else first.block

    def read(self, window: Window | None = None) -> RasterArray:
        """Read the pixels of a window, which may extend beyond the scene; None means the whole scene.

        Raises:
            RasterError: if the pixels of a file cannot be read.
        """
        window = window or self.grid.full_window
        if len(self.layers) == 1 and self._covered(self.layers[0], window) == window:
            return RasterArray(*self._files.read(self.layers[0], window), self.grid.crop(window))
        data = np.zeros((len(self.bands), window.height, window.width), self.dtype)
        valid = np.zeros((window.height, window.width), bool)
        for number, layer in enumerate(self.layers):
            if valid.all():
                break
            covered = self._covered(layer, window)
            if covered.is_empty:
                continue
            layer_data, layer_valid = self._files.read(layer, covered)
            inside = covered.slices(window)
            fill = ~valid[inside] & (layer_valid | (number == 0))
            np.copyto(data[:, *inside], layer_data, where=fill)
            valid[inside] |= layer_valid
        return RasterArray(data, valid, self.grid.crop(window))

    def read_onto(self, grid: Grid) -> RasterArray:
        """Read the pixels on another grid of the same CRS, e.g. a rotated one.

        They are interpolated bilinearly from valid pixels only, and integers are rounded; a scene that was opened with
        nearest resampling uses nearest here. A pixel is valid where the scene's pixel under its centre is.

        Raises:
            GridError: if the grid has another CRS.
            RasterError: if the pixels of a file cannot be read.
        """
        window = self.grid.window_of(grid)
        if window is not None:
            raster = self.read(window)
            return RasterArray(raster.data, raster.valid, grid)
        if grid.crs != self.grid.crs:
            raise GridError(
                f"Cannot read {self.name} ({self.grid}) onto a grid in another CRS ({grid}). Warp the grid first."
            )
        around = self.grid.enclosing_window(grid.corners())
        around = Window(around.col - 1, around.row - 1, around.width + 2, around.height + 2)
        raster = self.read(around)
        nearest = self.resampling == Resampling.nearest
        data, valid = resample_to_grid(raster.data, raster.valid, raster.grid, grid, nearest=nearest)
        return RasterArray(data, valid, grid)

    def known_empty(self, window: Window) -> bool:
        """Return True if the window is known to have no valid pixel, without reading any.

        That is so outside of all files, and where a TIFF with a nodata value or alpha stores no block.
        """
        return all(self._files.known_empty(layer, self._covered(layer, window)) for layer in self.layers)

    def fingerprint(self) -> list[str]:
        """Return path, size and modification time of all files that are read; a URL as it is."""
        sources = {source.path: source for source in self.sources}
        return [line for source in sources.values() for line in raster_fingerprint(source.path, source.files)]

    def value_identity(self) -> list[str]:
        """Return what tells values from those that the files store, for keys; [] if it is these."""
        conversions = [f"conversion {layer.conversion}" for layer in self.layers if layer.conversion]
        return conversions + [f"palette of {source.path}" for source in self.sources if source.palette == "expanded"]

    def _covered(self, layer: ImageLayer, window: Window) -> Window:
        """Return the part of a window that lies in the scene and in the layer."""
        return window.intersect(self.grid.full_window).intersect(layer.window)

    # names of earlier versions
    stamp = fingerprint
    empty = known_empty
    block = block_shape
