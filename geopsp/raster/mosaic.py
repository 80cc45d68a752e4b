"""Which files of the images are read, and where each lies on the scene's lattice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from rasterio.dtypes import in_dtype_range
from rasterio.enums import Resampling

from geopsp.core.bands import match_bands
from geopsp.core.grid import Grid, Window
from geopsp.errors import BandError, GridError, OptionError
from geopsp.raster.band_files import SourceImage
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.valid_mask import zero_is_nodata
from geopsp.raster.warp import align_to_grid, north_up

EMPTY_WINDOW = Window(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class BandSource:
    """A file and what is read of it."""

    source: RasterInfo

    indexes: tuple[int, ...]
    """Numbers of the bands in the file, from 1."""

    positions: tuple[int, ...]
    """Where they belong among the scene's bands, from 0."""

    window: Window = EMPTY_WINDOW
    """The file's pixels on the scene's grid."""

    @property
    def nodatas(self) -> tuple[float | None, ...]:
        """The nodata values of the bands that are read."""
        return tuple(self.source.nodatas[index - 1] for index in self.indexes)

    @property
    def zero_is_nodata(self) -> bool:
        """As `validity.zero_counts`: the image's other files have a say in what a 0 means."""
        return zero_is_nodata(self.source.dtype, self.nodatas)

    @property
    def sparse_bands(self) -> tuple[int, ...]:
        """As the source's, of the bands that are read."""
        return self.indexes if set(self.indexes) <= set(self.source.sparse_bands) else self.source.sparse_bands


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One image: its files, of which all must be valid for a pixel to be."""

    name: str
    found: tuple[str, ...]
    """Names of all the image's bands, read or not."""

    bands: tuple[str, ...]
    """Names of those read."""

    picks: tuple[BandSource, ...]
    """The file with the smallest pixels first: the others are brought onto its grid."""

    @property
    def sources(self) -> tuple[RasterInfo, ...]:
        return tuple(pick.source for pick in self.picks)

    @property
    def window(self) -> Window:
        """The image's pixels on the scene's grid: those of its finest file."""
        return self.picks[0].window

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the pixels of every file."""
        return np.result_type(*(np.dtype(source.dtype) for source in self.sources))


def layers_identity(layers: Sequence[ImageLayer]) -> str:
    """All fields of the layers as text, as `RasterInfo.identity`."""
    return _tuple_text(
        f"Layer(name={layer.name!r}, found={layer.found!r}, bands={layer.bands!r}, picks={_picks_text(layer)})"
        for layer in layers
    )


def _picks_text(layer: ImageLayer) -> str:
    return _tuple_text(
        f"Pick(source={pick.source.identity()}, indexes={pick.indexes!r}, positions={pick.positions!r}, "
        f"place={pick.window!r})"
        for pick in layer.picks
    )


def _tuple_text(parts: Iterable[str]) -> str:
    texts = list(parts)
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def select_bands(image: SourceImage, bands: Sequence[str | int] | None) -> ImageLayer:
    """The files of an image that hold the bands; those that hold none are not opened.

    Raises:
        InputNotFoundError, RasterError, GridError: as the files are.
        BandError: if a band is missing, or a file has not the bands it was said to have.
    """
    if bands is not None and not bands:
        raise BandError("No band was asked for (bands is empty); needed names, or numbers from 1, or None for all.")
    told = image.bands or ((),) * len(image.files)
    nodatas = image.nodata or (None,) * len(image.files)
    parts = list(zip(image.files, told, nodatas, strict=True))
    heads = {file: _header(file, nodata, bands) for file, names, nodata in parts if not names}
    named = [names or heads[file].bands for file, names, _ in parts]
    owners = [(number, i) for number, names in enumerate(named) for i in range(len(names))]
    found = tuple(name for names in named for name in names)
    wanted = tuple(bands) if bands is not None else found
    chosen = match_bands(wanted, found, where=image.name)
    picks = []
    for number, ((file, _, nodata), names) in enumerate(zip(parts, named, strict=True)):
        its = [(at, owners[i][1]) for at, i in enumerate(chosen) if owners[i][0] == number]
        if its:
            source = heads.get(file) or _as_told(_header(file, nodata, names), names)
            picks.append(BandSource(source, tuple(source.indexes[i] for _, i in its), tuple(at for at, _ in its)))
    names = tuple(w if isinstance(w, str) else found[i] for w, i in zip(wanted, chosen, strict=True))
    picks.sort(key=lambda pick: max(pick.source.grid.cell_size))
    return ImageLayer(image.name, found, names, tuple(picks))


def _header(file: str, told: float | None, wanted: Sequence[str | int] | None) -> RasterInfo:
    """What the header says, with the nodata told where it says none; what looks like alpha is a band if wanted."""
    source = read_info(file)
    if (
        source.alpha
        and wanted
        and (len(wanted) > len(source.bands) or {source.alpha, f"band_{source.alpha}"} & {*wanted})
    ):
        source = read_info(file, all_bands=True)
    if told is None or (source.dtype[0] in "iu" and not in_dtype_range(told, source.dtype)):
        return source
    nodatas = tuple(told if value is None else value for value in source.nodatas)
    return replace(source, nodatas=nodatas, nodata=nodatas[source.indexes[0] - 1])


def _as_told(source: RasterInfo, names: Sequence[str]) -> RasterInfo:
    if len(source.bands) != len(names):
        raise BandError(
            f"{source.path} has {len(source.bands)} bands; needed {len(names)}, for {', '.join(names)}. "
            "Name a file that holds just these."
        )
    return source


def target_grid(layers: Sequence[ImageLayer], *, onto: Grid | None, cell_size: float | None) -> tuple[Grid, str]:
    """The lattice that the layers are brought on, and what it is in words.

    Raises:
        OptionError: if the cell size is no positive number, or not one of the first image's unit.
    """
    first = layers[0].picks[0].source
    if onto:
        return onto, "the grid asked for"
    if cell_size is not None:
        _require_cell_size(cell_size, first)
        return north_up(first.grid, cell_size), f"a north-up grid of pixels {cell_size:g} wide ({first.grid.unit})"
    turned = first.grid.transform.b or first.grid.transform.d
    if turned and any(first.grid.window_of(s.grid) is None for layer in layers for s in layer.sources):
        return north_up(first.grid), f"a north-up grid of the same pixel size, as {first.path} is rotated"
    return first.grid, f"the grid of {first.path}"


def _require_cell_size(cell_size: Any, source: RasterInfo) -> None:
    size = float(cell_size) if isinstance(cell_size, Real) else np.nan
    if not 0 < size < np.inf:
        raise OptionError(f"cell_size is {cell_size!r}; needed the width of a pixel in CRS units, above 0.")
    unit = source.grid.unit
    left, bottom, right, top = source.grid.bounds()
    if size > max(right - left, top - bottom) * (1 + 1e-9):
        found = "wider than the image"
    elif max(right - left, top - bottom) > size * 2**31:
        found = "more than 2**31 times smaller than the image"
    else:
        return
    raise OptionError(
        f"cell_size is {size:g}, which counts in the unit of the CRS, {unit}: {found}, {source.path}, "
        f"{right - left:g} by {top - bottom:g}. Give it in that unit, or warp the image to a CRS of the unit wanted."
    )


def require_one_type(kinds: Sequence[tuple[str, np.dtype[Any]]]) -> None:
    """Nothing happens if all images, told as names and types, have the type of the first.

    Raises:
        BandError: if they do not.
    """
    first, dtype = kinds[0]
    for name, its in kinds:
        if its != dtype:
            raise BandError(
                f"{name} holds {its} pixels, {first} {dtype}; needed one type, so that values mean the same. "
                "Convert one of them."
            )


def align_layer(layer: ImageLayer, lattice: Grid, resampling: Resampling, *, thin: bool) -> ImageLayer:
    """The layer with its files on the lattice, warped where they lie on another one; as `place`."""
    picks = (replace(pick, source=align_to_grid(pick.source, lattice, resampling, thin=thin)) for pick in layer.picks)
    return replace(layer, picks=tuple(part for pick in picks for part in _by_nodata(pick)))


def _by_nodata(pick: BandSource) -> list[BandSource]:
    """What is read of a warped file, once for each nodata value: a warp knows one only."""
    if not pick.source.warped:
        return [pick]
    parts: dict[str, list[int]] = {}
    for at, value in enumerate(pick.nodatas):
        parts.setdefault(str(value), []).append(at)
    return [
        replace(
            pick,
            source=replace(pick.source, nodata=pick.nodatas[ats[0]]),
            indexes=tuple(pick.indexes[at] for at in ats),
            positions=tuple(pick.positions[at] for at in ats),
        )
        for ats in parts.values()
    ]


def place_layers(
    layers: Sequence[ImageLayer], lattice: Grid, extent: Sequence[float] | None
) -> tuple[Grid, tuple[ImageLayer, ...]]:
    """The lattice stretched over all layers, or cut to the extent, and the layers with their places on it.

    Raises:
        GridError: if no image lies in the extent.
        OptionError: if the extent is no box.
    """
    places = [[_window(lattice, pick.source) for pick in layer.picks] for layer in layers]
    layers = [
        replace(layer, picks=tuple(replace(pick, window=p) for pick, p in zip(layer.picks, its, strict=True)))
        for layer, its in zip(layers, places, strict=True)
    ]
    whole = union_window(layer.window for layer in layers)
    if extent is not None:
        asked = window_in(lattice, extent)
        parts = [part for layer in layers if not (part := asked.intersect(layer.window)).is_empty]
        if not parts:
            raise GridError(
                f"No image lies in the extent {', '.join(f'{x:.10g}' for x in extent)} (left, bottom, right, top); "
                f"they lie on {lattice.crop(whole)!r}. Give the extent in that CRS."
            )
        whole = union_window(parts)
    moved = (
        replace(layer, picks=tuple(replace(p, window=p.window.shift(-whole.col, -whole.row)) for p in layer.picks))
        for layer in layers
    )
    return lattice.crop(whole), tuple(moved)


def _window(lattice: Grid, source: RasterInfo) -> Window:
    window = lattice.window_of(source.grid)
    assert window is not None
    return window


def window_in(grid: Grid, extent: Sequence[float]) -> Window:
    """The pixels that an extent (left, bottom, right, top) touches.

    Raises:
        OptionError: if it is no box.
    """
    try:
        box = np.array(extent, float)
    except (TypeError, ValueError):
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise OptionError(f"The extent is {extent!r}; needed left, bottom, right, top, in CRS units.")
    left, bottom, right, top = box.tolist()
    return grid.enclosing_window(np.array([(left, bottom), (right, bottom), (right, top), (left, top)]))


def union_window(windows: Iterable[Window]) -> Window:
    """The smallest window that holds all of them."""
    parts = list(windows)
    col, row = min(w.col for w in parts), min(w.row for w in parts)
    return Window(col, row, max(w.col_stop for w in parts) - col, max(w.row_stop for w in parts) - row)


def notes_on(
    images: Sequence[SourceImage], layers: Sequence[ImageLayer], grid: Grid, *, order: str, target: str
) -> tuple[str, ...]:
    """What was done to bring images onto one grid, in words."""
    notes = [note for image in images for note in image.notes]
    if len(images) > 1:
        rule = {"given": "the order given", "newest": "newest first", "oldest": "oldest first"}.get(order, order)
        notes.append(f"{len(images)} images lie on one another: {rule}; {images[0].name} is on top")
    sources = list(dict.fromkeys(source for layer in layers for source in layer.sources))
    alike = [source for source in sources if source.alpha]
    if alike:
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        notes.append(
            f"band {alike[0].alpha} of {alike[0].path}{more} is taken for alpha, which tells where pixels are valid; "
            f"if it is a band such as infrared, ask for it by its number (bands 1, 2, 3, {alike[0].alpha})"
        )
    warped = {s.path: s.resampling.name for s in sources if s.resampling is not None}
    notes += [f"{path} is warped ({how}) onto {target}" for path, how in warped.items()]
    return (
        *notes,
        *note_left_out([layer.name for layer in layers if layer.window.intersect(grid.full_window).is_empty]),
    )


def note_left_out(names: Sequence[str]) -> list[str]:
    """A note on images that the extent leaves out, if there are any."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"outside the extent, and left out: {', '.join(names[:3])}{more}"] if names else []
