"""ImageLayer: one image of a scene, with the bands that are read of each of its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from rasterio.dtypes import in_dtype_range

from geopsp.core.bands import match_bands
from geopsp.core.grid import Window
from geopsp.core.pixel_values import BandScale
from geopsp.core.text import format_count
from geopsp.errors import BandError
from geopsp.raster.acquisition import in_utc
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.source_image import SourceImage
from geopsp.raster.valid_mask import zero_is_nodata

EMPTY_WINDOW = Window(0, 0, 0, 0)


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
    def scales(self) -> tuple[BandScale | None, ...]:
        """Scale and offset of the bands that are read."""
        return tuple(self.info.scales[index - 1] if self.info.scales else None for index in self.indexes)

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

    conversion: tuple[BandScale, ...] = ()
    """Gain and bias of each band, see `PixelValues.conversion_to`; (): values are read as they are stored."""

    acquired: datetime | None = None
    """Acquisition time: the image's, else that in the tags of a file."""

    stac_item: str = ""
    """Address of the STAC Item that lists it; "": none."""

    @property
    def scales(self) -> tuple[BandScale | None, ...]:
        """Scale and offset of each band that is read."""
        found = {i: pair for b in self.band_sources for i, pair in zip(b.positions, b.scales, strict=True)}
        return tuple(found[i] for i in range(len(self.bands)))

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

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """The data type of the values: float32 if they are converted."""
        return np.dtype(np.float32) if self.conversion else self.dtype


def layers_identity(layers: Sequence[ImageLayer]) -> str:
    """Return all fields of the layers as text, for the key of a map; see `RasterInfo.identity`."""
    return _tuple_text(
        f"Layer(name={layer.name!r}, found={layer.all_bands!r}, bands={layer.bands!r}, picks={_sources_text(layer)}"
        + (f", conversion={layer.conversion!r})" if layer.conversion else ")")
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


COLORS = {"red", "green", "blue", "2", "3", "band_2", "band_3"}
"""Names of the bands that only an expanded palette has."""


def names_indices(bands: Sequence[str | int] | None) -> bool:
    """True if one band alone is named and is no colour: of an image with a palette that is the band of its indices."""
    return bands is not None and len(bands) == 1 and str(bands[0]).lower() not in COLORS


def select_bands(image: SourceImage, bands: Sequence[str | int] | None, *, expand_palette: bool = False) -> ImageLayer:
    """Choose the files of an image that hold the bands; files that are not needed are not opened.

    Args:
        image: The image.
        bands: Names, or numbers from 1; None means all bands.
        expand_palette: As in `read_info`; a file that the image says to be one band keeps its indices.

    Raises:
        InputNotFoundError, RasterError, GridError: if a file is missing or cannot be used.
        BandError: if a band is missing, or a file has other bands than the image says.
    """
    if bands is not None and not bands:
        raise BandError("`bands` is empty. Give names or numbers from 1, or None for all bands.")
    given = image.bands or ((),) * len(image.files)
    nodatas, scales = image.nodata or (None,) * len(image.files), image.scales or ((),) * len(image.files)
    files = list(zip(image.files, given, zip(nodatas, scales, strict=True), strict=True))
    placed = image.needs_georeference
    headers = {
        file: _read_header(file, *tags, bands, expand_palette=expand_palette, placed=placed)
        for file, names, tags in files
        if not names
    }
    names_by_file = [names or headers[file].bands for file, names, _ in files]
    owners = [(number, i) for number, names in enumerate(names_by_file) for i in range(len(names))]
    all_bands = tuple(name for names in names_by_file for name in names)
    wanted = tuple(bands) if bands is not None else all_bands
    chosen = match_bands(wanted, all_bands, where=image.name)
    band_sources = []
    for number, ((file, _, tags), names) in enumerate(zip(files, names_by_file, strict=True)):
        here = [(position, owners[i][1]) for position, i in enumerate(chosen) if owners[i][0] == number]
        if here:
            info = headers.get(file)
            if info is None:
                several = expand_palette and len(names) > 1
                info = _require_bands(_read_header(file, *tags, names, expand_palette=several, placed=placed), names)
            indexes = tuple(info.indexes[i] for _, i in here)
            band_sources.append(BandSource(info, indexes, tuple(position for position, _ in here)))
    names = tuple(w if isinstance(w, str) else all_bands[i] for w, i in zip(wanted, chosen, strict=True))
    band_sources.sort(key=lambda b: max(b.info.grid.cell_size))
    times = (image.acquired, *(b.info.acquired for b in band_sources))
    acquired = next((in_utc(time) for time in times if time is not None), None)
    return ImageLayer(image.name, all_bands, names, tuple(band_sources), (), acquired, image.stac_item)


def _read_header(
    file: str,
    nodata: float | None,
    scales: Sequence[BandScale | None],
    wanted: Sequence[str | int] | None,
    *,
    expand_palette: bool,
    placed: bool,
) -> RasterInfo:
    """Read the header; add the image's nodata value and scales where the file has none, and alpha if it is wanted."""
    info = read_info(file, expand_palette=expand_palette, needs_crs=placed)
    if info.alpha and wanted and (len(wanted) > len(info.bands) or {info.alpha, f"band_{info.alpha}"} & {*wanted}):
        info = read_info(file, all_bands=True, needs_crs=placed)
    if not placed:
        info = replace(info, grid=info.grid.without_georeference)
    if not info.scales and len(scales) == len(info.indexes) == len(info.nodatas):
        info = replace(info, scales=tuple(scales))
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
