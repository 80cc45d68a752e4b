"""Which files of the images are read, and where each lies on the scene's lattice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rasterio.enums import Resampling

from geopsp.bandfiles import Image
from geopsp.bands import match_bands
from geopsp.errors import BandError, GridError, OptionError
from geopsp.grid import Grid, Window
from geopsp.sources import Source, describe, north_up, place

NOWHERE = Window(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Pick:
    """A file and what is read of it."""

    source: Source

    indexes: tuple[int, ...]
    """Numbers of the bands in the file, from 1."""

    positions: tuple[int, ...]
    """Where they belong among the scene's bands, from 0."""

    place: Window = NOWHERE
    """The file's pixels on the scene's grid."""

    @property
    def telling(self) -> tuple[int, ...]:
        """As the source's, of the bands that are read."""
        return self.indexes if set(self.indexes) <= set(self.source.telling) else self.source.telling


@dataclass(frozen=True, slots=True)
class Layer:
    """One image: its files, of which all must be valid for a pixel to be."""

    name: str
    found: tuple[str, ...]
    """Names of all the image's bands, read or not."""

    bands: tuple[str, ...]
    """Names of those read."""

    picks: tuple[Pick, ...]
    """The file with the smallest pixels first: the others are brought onto its grid."""

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(pick.source for pick in self.picks)

    @property
    def place(self) -> Window:
        """The image's pixels on the scene's grid: those of its finest file."""
        return self.picks[0].place


def choose(image: Image, bands: Sequence[str | int] | None) -> Layer:
    """The files of an image that hold the bands; those that hold none are not opened.

    Raises:
        InputNotFoundError, RasterError, GridError: as the files are.
        BandError: if a band is missing, or a file has not the bands it was said to have.
    """
    told = image.bands or ((),) * len(image.files)
    heads = {file: describe(file) for file, names in zip(image.files, told, strict=True) if not names}
    named = [names or heads[file].bands for file, names in zip(image.files, told, strict=True)]
    owners = [(file, i) for file, names in zip(image.files, named, strict=True) for i in range(len(names))]
    found = tuple(name for names in named for name in names)
    wanted = tuple(bands) if bands is not None else found
    chosen = match_bands(wanted, found, where=image.name)
    picks = []
    for file, names in zip(image.files, named, strict=True):
        its = [(at, owners[i][1]) for at, i in enumerate(chosen) if owners[i][0] == file]
        if its:
            source = heads.get(file) or _as_told(describe(file), names)
            picks.append(Pick(source, tuple(source.indexes[i] for _, i in its), tuple(at for at, _ in its)))
    names = tuple(w if isinstance(w, str) else found[i] for w, i in zip(wanted, chosen, strict=True))
    picks.sort(key=lambda pick: max(pick.source.grid.cell_size))
    return Layer(image.name, found, names, tuple(picks))


def _as_told(source: Source, names: Sequence[str]) -> Source:
    if len(source.bands) != len(names):
        raise BandError(
            f"{source.path} has {len(source.bands)} bands; needed {len(names)}, for {', '.join(names)}. "
            "Name a file that holds just these."
        )
    return source


def lattice_of(layers: Sequence[Layer], *, onto: Grid | None, cell_size: float | None) -> tuple[Grid, str]:
    """The lattice that the layers are brought on, and what it is in words.

    Raises:
        OptionError: if the cell size is no positive number.
    """
    first = layers[0].picks[0].source
    if onto:
        return onto, "the grid asked for"
    if cell_size is not None:
        if not 0 < cell_size < np.inf:
            raise OptionError(f"cell_size is {cell_size}; needed the width of a pixel in CRS units, above 0.")
        return north_up(first.grid, cell_size), f"a north-up grid of pixels {cell_size:g} wide"
    turned = first.grid.transform.b or first.grid.transform.d
    if turned and any(first.grid.window_of(s.grid) is None for layer in layers for s in layer.sources):
        return north_up(first.grid), f"a north-up grid of the same pixel size, as {first.path} is rotated"
    return first.grid, f"the grid of {first.path}"


def bring_onto(layer: Layer, lattice: Grid, resampling: Resampling, *, thin: bool) -> Layer:
    """The layer with its files on the lattice, warped where they lie on another one; as `place`."""
    picks = (replace(pick, source=place(pick.source, lattice, resampling, thin=thin)) for pick in layer.picks)
    return replace(layer, picks=tuple(picks))


def settle(layers: Sequence[Layer], lattice: Grid, extent: Sequence[float] | None) -> tuple[Grid, tuple[Layer, ...]]:
    """The lattice stretched over all layers, or cut to the extent, and the layers with their places on it.

    Raises:
        GridError: if no image lies in the extent.
        OptionError: if the extent is no box.
    """
    places = [[_window(lattice, pick.source) for pick in layer.picks] for layer in layers]
    layers = [
        replace(layer, picks=tuple(replace(pick, place=p) for pick, p in zip(layer.picks, its, strict=True)))
        for layer, its in zip(layers, places, strict=True)
    ]
    whole = around(layer.place for layer in layers)
    if extent is not None:
        asked = window_in(lattice, extent)
        parts = [part for layer in layers if not (part := asked.intersect(layer.place)).empty]
        if not parts:
            raise GridError(
                f"No image lies in the extent {', '.join(f'{x:.10g}' for x in extent)} (left, bottom, right, top); "
                f"they lie on {lattice.crop(whole)!r}. Give the extent in that CRS."
            )
        whole = around(parts)
    moved = (
        replace(layer, picks=tuple(replace(p, place=p.place.shift(-whole.col, -whole.row)) for p in layer.picks))
        for layer in layers
    )
    return lattice.crop(whole), tuple(moved)


def _window(lattice: Grid, source: Source) -> Window:
    window = lattice.window_of(source.grid)
    assert window is not None
    return window


def window_in(grid: Grid, extent: Sequence[float]) -> Window:
    """The pixels that an extent (left, bottom, right, top) touches.

    Raises:
        OptionError: if it is no box.
    """
    if len(extent) != 4 or not (extent[0] < extent[2] and extent[1] < extent[3]) or not np.isfinite(extent).all():
        raise OptionError(f"The extent is {tuple(extent)}; needed left, bottom, right, top, in CRS units.")
    left, bottom, right, top = extent
    return grid.window_around(np.array([(left, bottom), (right, bottom), (right, top), (left, top)]))


def around(windows: Iterable[Window]) -> Window:
    """The smallest window that holds all of them."""
    parts = list(windows)
    col, row = min(w.col for w in parts), min(w.row for w in parts)
    return Window(col, row, max(w.col_stop for w in parts) - col, max(w.row_stop for w in parts) - row)
