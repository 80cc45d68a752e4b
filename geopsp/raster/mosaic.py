"""Choose the bands and the target grid of one or many images, and place their files on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rasterio.dtypes import in_dtype_range
from rasterio.enums import Resampling

from geopsp.core.bands import match_bands
from geopsp.core.grid import Grid, Window
from geopsp.core.options import OptionInfo, check_value
from geopsp.core.text import format_count
from geopsp.errors import BandError, GridError, OptionError
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.source_image import SourceImage
from geopsp.raster.valid_mask import zero_is_nodata
from geopsp.raster.warp import align_to_grid, north_up

EMPTY_WINDOW = Window(0, 0, 0, 0)

CELL_SIZE = OptionInfo(help="", above=0, unit="CRS units")


@dataclass(frozen=True, slots=True)
class BandSource:
    """A file and the bands that are read from it."""

    info: RasterInfo

    indexes: tuple[int, ...]
    """Numbers of the bands in the file, from 1."""

    positions: tuple[int, ...]
    """Their positions among the scene's bands, from 0."""

    window: Window = EMPTY_WINDOW
    """The file's pixels on the scene's grid."""

    @property
    def nodatas(self) -> tuple[float | None, ...]:
        """Nodata values of the bands that are read."""
        return tuple(self.info.nodatas[index - 1] for index in self.indexes)

    @property
    def zero_is_nodata(self) -> bool:
        """True if a pixel that is 0 in all bands of the image is nodata."""
        return zero_is_nodata(self.info.dtype, self.nodatas)

    @property
    def sparse_bands(self) -> tuple[int, ...]:
        """Numbers of the bands to look at: missing blocks in all of them mean nodata."""
        return self.indexes if set(self.indexes) <= set(self.info.sparse_bands) else self.info.sparse_bands


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One image of a scene; its pixels are valid where all of its files are."""

    name: str

    all_bands: tuple[str, ...]
    """Names of all bands of the image."""

    bands: tuple[str, ...]
    """Names of the bands that are read."""

    band_sources: tuple[BandSource, ...]
    """The files that are read, the one with the smallest pixels first: the others are aligned to its grid."""

    @property
    def sources(self) -> tuple[RasterInfo, ...]:
        """Headers of the files that are read."""
        return tuple(b.info for b in self.band_sources)

    @property
    def window(self) -> Window:
        """The image's pixels on the scene's grid: those of its finest file."""
        return self.band_sources[0].window

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type that holds the pixels of every file."""
        return np.result_type(*(np.dtype(source.dtype) for source in self.sources))


def layers_identity(layers: Sequence[ImageLayer]) -> str:
    """Return all fields of the layers as text, for the key of a map; see `RasterInfo.identity`."""
    return _tuple_text(
        f"Layer(name={layer.name!r}, found={layer.all_bands!r}, bands={layer.bands!r}, picks={_sources_text(layer)})"
        for layer in layers
    )


def _sources_text(layer: ImageLayer) -> str:
    return _tuple_text(
        f"Pick(source={b.info.identity()}, indexes={b.indexes!r}, positions={b.positions!r}, place={b.window!r})"
        for b in layer.band_sources
    )


def _tuple_text(items: Iterable[str]) -> str:
    texts = list(items)
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def select_bands(image: SourceImage, bands: Sequence[str | int] | None) -> ImageLayer:
    """Choose the files of an image that hold the bands; files that are not needed are not opened.

    Args:
        image: The image.
        bands: Names, or numbers from 1; None means all bands.

    Raises:
        InputNotFoundError, RasterError, GridError: if a file is missing or cannot be used.
        BandError: if a band is missing, or a file has other bands than the image says.
    """
    if bands is not None and not bands:
        raise BandError("`bands` is empty. Give names or numbers from 1, or None for all bands.")
    given = image.bands or ((),) * len(image.files)
    nodatas = image.nodata or (None,) * len(image.files)
    files = list(zip(image.files, given, nodatas, strict=True))
    placed = image.needs_georeference
    headers = {file: _read_header(file, nodata, bands, placed) for file, names, nodata in files if not names}
    names_by_file = [names or headers[file].bands for file, names, _ in files]
    owners = [(number, i) for number, names in enumerate(names_by_file) for i in range(len(names))]
    all_bands = tuple(name for names in names_by_file for name in names)
    wanted = tuple(bands) if bands is not None else all_bands
    chosen = match_bands(wanted, all_bands, where=image.name)
    band_sources = []
    for number, ((file, _, nodata), names) in enumerate(zip(files, names_by_file, strict=True)):
        here = [(position, owners[i][1]) for position, i in enumerate(chosen) if owners[i][0] == number]
        if here:
            info = headers.get(file) or _require_bands(_read_header(file, nodata, names, placed), names)
            indexes = tuple(info.indexes[i] for _, i in here)
            band_sources.append(BandSource(info, indexes, tuple(position for position, _ in here)))
    names = tuple(w if isinstance(w, str) else all_bands[i] for w, i in zip(wanted, chosen, strict=True))
    band_sources.sort(key=lambda b: max(b.info.grid.cell_size))
    return ImageLayer(image.name, all_bands, names, tuple(band_sources))


def _read_header(
    file: str, nodata: float | None, wanted: Sequence[str | int] | None, needs_georeference: bool
) -> RasterInfo:
    """Read the header; add the image's nodata value where the file has none, and the alpha band if it is wanted."""
    info = read_info(file, needs_crs=needs_georeference)
    if info.alpha and wanted and (len(wanted) > len(info.bands) or {info.alpha, f"band_{info.alpha}"} & {*wanted}):
        info = read_info(file, all_bands=True, needs_crs=needs_georeference)
    if not needs_georeference:
        info = replace(info, grid=info.grid.without_georeference)
    if nodata is None or (info.dtype[0] in "iu" and not in_dtype_range(nodata, info.dtype)):
        return info
    nodatas = tuple(nodata if value is None else value for value in info.nodatas)
    return replace(info, nodatas=nodatas, nodata=nodatas[info.indexes[0] - 1])


def _require_bands(info: RasterInfo, names: Sequence[str]) -> RasterInfo:
    if len(info.bands) != len(names):
        raise BandError(
            f"{info.path} has {format_count(len(info.bands), 'band')}, but must have {len(names)}: {', '.join(names)}. "
            "Name a file with only these."
        )
    return info


def target_grid(layers: Sequence[ImageLayer], *, onto: Grid | None, cell_size: float | None) -> tuple[Grid, str]:
    """Choose the grid that the layers are aligned to; return it with a description.

    Only its origin, pixel size and CRS matter, not its size.

    Raises:
        OptionError: if the cell size is no positive number, or does not fit the unit of the first image.
    """
    first = layers[0].sources[0]
    if onto:
        return onto, "the given grid"
    if cell_size is not None:
        _require_cell_size(cell_size, first)
        return north_up(first.grid, cell_size), f"a north-up grid of {cell_size:g} {first.grid.unit} pixels"
    rotated = first.grid.transform.b or first.grid.transform.d
    if rotated and any(first.grid.window_of(s.grid) is None for layer in layers for s in layer.sources):
        return north_up(first.grid), f"a north-up grid of the same pixel size, as {first.path} is rotated"
    return first.grid, f"the grid of {first.path}"


def _require_cell_size(cell_size: Any, info: RasterInfo) -> None:
    check_value("cell_size", cell_size, "float", CELL_SIZE)
    unit = info.grid.unit
    left, bottom, right, top = info.grid.bounds()
    longest = max(right - left, top - bottom)
    if cell_size > longest * (1 + 1e-9):
        problem = "is wider than"
    elif longest > cell_size * 2**31:
        problem = "is more than 2**31 times smaller than"
    else:
        return
    raise OptionError(
        f"`cell_size` is {cell_size:g} (unit of the CRS: {unit}). That {problem} the image {info.path}, "
        f"{right - left:g} x {top - bottom:g}. Give it in that unit, or warp the image to a CRS of another unit."
    )


def require_one_type(dtypes: Sequence[tuple[str, np.dtype[Any]]]) -> None:
    """Check that all images, given as names and data types, have the data type of the first.

    Raises:
        BandError: if they have not.
    """
    first, first_dtype = dtypes[0]
    for name, dtype in dtypes:
        if dtype != first_dtype:
            raise BandError(
                f"{name} has {dtype} pixels, but {first} has {first_dtype}. All images must have one data type, so "
                "that their values are comparable. Convert one of them."
            )


def align_layer(layer: ImageLayer, grid: Grid, resampling: Resampling, *, average_if_finer: bool) -> ImageLayer:
    """Return the layer with its files aligned to a grid; see `align_to_grid`."""
    aligned = (
        replace(b, info=align_to_grid(b.info, grid, resampling, average_if_finer=average_if_finer))
        for b in layer.band_sources
    )
    return replace(layer, band_sources=tuple(part for b in aligned for part in _split_by_nodata(b)))


def _split_by_nodata(band_source: BandSource) -> list[BandSource]:
    """Split the bands of a warped file by nodata value, as a warp can use only one."""
    if not band_source.info.warped:
        return [band_source]
    groups: dict[str, list[int]] = {}
    for i, value in enumerate(band_source.nodatas):
        groups.setdefault(str(value), []).append(i)
    return [
        replace(
            band_source,
            info=replace(band_source.info, nodata=band_source.nodatas[group[0]]),
            indexes=tuple(band_source.indexes[i] for i in group),
            positions=tuple(band_source.positions[i] for i in group),
        )
        for group in groups.values()
    ]


def place_layers(
    layers: Sequence[ImageLayer], grid: Grid, extent: Sequence[float] | None
) -> tuple[Grid, tuple[ImageLayer, ...]]:
    """Extend the grid over all aligned layers, or crop it to an extent; return it and the layers placed on it.

    Raises:
        GridError: if no image overlaps the extent.
        OptionError: if the extent is no box.
    """
    layers = [
        replace(layer, band_sources=tuple(replace(b, window=_window_on(grid, b.info)) for b in layer.band_sources))
        for layer in layers
    ]
    window = union_window(layer.window for layer in layers)
    if extent is not None:
        asked = window_in(grid, extent)
        overlaps = [both for layer in layers if not (both := asked.intersect(layer.window)).is_empty]
        if not overlaps:
            raise GridError(
                f"No image lies in the extent {', '.join(f'{x:.10g}' for x in extent)} (left, bottom, right, top). "
                f"The images cover {grid.crop(window)}. Give the extent in that CRS."
            )
        window = union_window(overlaps)
    shift = (-window.col, -window.row)
    placed = (
        replace(layer, band_sources=tuple(replace(b, window=b.window.shift(*shift)) for b in layer.band_sources))
        for layer in layers
    )
    return grid.crop(window), tuple(placed)


def _window_on(grid: Grid, info: RasterInfo) -> Window:
    window = grid.window_of(info.grid)
    assert window is not None
    return window


def window_in(grid: Grid, extent: Sequence[float]) -> Window:
    """Return the pixels that an extent (left, bottom, right, top) touches.

    Raises:
        OptionError: if the extent is no box.
    """
    try:
        box = np.array(extent, float)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise OptionError(
            f"`extent` is {extent!r}, but must be left, bottom, right, top in CRS units, with left < right and "
            "bottom < top."
        )
    left, bottom, right, top = box.tolist()
    return grid.enclosing_window(np.array([(left, bottom), (right, bottom), (right, top), (left, top)]))


def union_window(windows: Iterable[Window]) -> Window:
    """Return the smallest window that contains all of them."""
    windows = list(windows)
    col, row = min(w.col for w in windows), min(w.row for w in windows)
    return Window(col, row, max(w.col_stop for w in windows) - col, max(w.row_stop for w in windows) - row)


def mosaic_notes(
    images: Sequence[SourceImage], layers: Sequence[ImageLayer], grid: Grid, *, order: str, target: str
) -> tuple[str, ...]:
    """Describe how the images were brought onto one grid."""
    notes = [note for image in images for note in image.notes]
    if len(images) > 1:
        rule = {"given": "order as given", "newest": "newest first", "oldest": "oldest first"}
        notes.append(
            f"mosaic of {len(images)} images; where they overlap, {images[0].name} is on top "
            f"({rule.get(order, f'ordered by {order}')})"
        )
    sources = list(dict.fromkeys(source for layer in layers for source in layer.sources))
    with_alpha = [source for source in sources if source.alpha]
    if with_alpha:
        alpha, path = with_alpha[0].alpha, with_alpha[0].path
        more = f" and {len(with_alpha) - 1} more" if len(with_alpha) > 1 else ""
        notes.append(
            f"band {alpha} of {path}{more} counts as an alpha band, which marks the valid pixels; if it is a band such "
            f"as near infrared, select it by its number (bands 1, 2, 3, {alpha})"
        )
    warped = {s.path: s.resampling.name for s in sources if s.resampling is not None}
    notes += [f"{path} is warped ({how}) onto {target}" for path, how in warped.items()]
    outside = [layer.name for layer in layers if layer.window.intersect(grid.full_window).is_empty]
    return (*notes, *note_left_out(outside))


def note_left_out(names: Sequence[str]) -> list[str]:
    """Return a note on images outside the extent; [] if there are none."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"outside the extent and not used: {', '.join(names[:3])}{more}"] if names else []
