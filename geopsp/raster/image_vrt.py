"""Files opened as GDAL reads them for people: a palette expanded to colours, alpha and mask band as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from geopsp.core.paths import gdal_path
from geopsp.raster.open import band_texts, open_raster

GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "uint64": "UInt64", "int64": "Int64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
"""GDAL's names of data types."""


def has_palette(dataset: Any) -> bool:
    """True for an image of indices into a table of colours, alone or with an alpha band."""
    kinds = tuple(dataset.colorinterp)
    return kinds[:1] == (ColorInterp.palette,) and kinds[1:] in {(), (ColorInterp.alpha,)}


def has_mask_band(dataset: Any) -> bool:
    """True if a mask band, which is no alpha band, marks the valid pixels of all bands."""
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def open_image(name: str | Path, *, expand_palette: bool) -> Any:
    """Open a raster; with `expand_palette` one with a palette as bands of red, green and blue.

    There is a fourth band, alpha, if pixels may be transparent or invalid.

    Raises:
        InputNotFoundError, RasterError: as `open_raster`.
    """
    dataset = open_raster(name)
    if not (expand_palette and has_palette(dataset)):
        return dataset
    with dataset:
        bands = [_color_band(name, dataset, number) for number in (1, 2, 3)]
        masks = _alpha_sources(name, dataset)
        text = _vrt(dataset, [*bands, _alpha_band(4, masks)] if masks else bands)
    return rasterio.open(text)


def is_expanded(dataset: Any) -> bool:
    """True for what `open_image` returns of a palette that it expands."""
    return str(dataset.name).startswith("<VRTDataset")


def open_with_one_alpha(name: str | Path, alpha: int) -> Any:
    """Open a file that has both an alpha and a mask band with an alpha band that is 0 where either is.

    Raises:
        InputNotFoundError, RasterError: as `open_raster`.
    """
    with open_raster(name) as dataset:
        bands = [
            _alpha_band(i, [_source(name, str(i)), _source(name, "mask,1")])
            if i == alpha
            else _plain_band(name, dataset, i)
            for i in dataset.indexes
        ]
        text = _vrt(dataset, bands)
    return rasterio.open(text)


def _vrt(dataset: Any, bands: Sequence[str]) -> str:
    """Return the text of a VRT. Source: GDAL, "VRT -- GDAL Virtual Format"."""
    srs = f"<SRS>{escape(dataset.crs.to_wkt())}</SRS>" if dataset.crs else ""
    numbers = ", ".join(map(repr, dataset.transform.to_gdal()))
    place = "" if dataset.transform.is_identity else f"<GeoTransform>{numbers}</GeoTransform>"
    size = f'rasterXSize="{dataset.width}" rasterYSize="{dataset.height}"'
    return f"<VRTDataset {size}>{srs}{place}{''.join(bands)}</VRTDataset>"


def _file(name: str | Path) -> str:
    path = gdal_path(name)
    path = f"./{path}" if path[:1].isspace() else path  # GDAL drops blanks at the beginning
    return f'<SourceFilename relativeToVRT="0" shared="0">{escape(path)}</SourceFilename>'


def _source(name: str | Path, band: str) -> str:
    return f"<SimpleSource>{_file(name)}<SourceBand>{band}</SourceBand></SimpleSource>"


def _color_band(name: str | Path, dataset: Any, number: int) -> str:
    color = ("Red", "Green", "Blue", "Alpha")[number - 1]
    return (
        f'<VRTRasterBand dataType="Byte" band="{number}"><ColorInterp>{color}</ColorInterp>'
        f"{_color_source(name, dataset, number)}</VRTRasterBand>"
    )


def _color_source(name: str | Path, dataset: Any, component: int) -> str:
    """Return a source of one component of the colours, 4 for alpha; nodata is left out, and thus 0."""
    nodata = "" if dataset.nodata is None else f"<NODATA>{dataset.nodata:.17g}</NODATA>"
    return (
        f"<ComplexSource>{_file(name)}<SourceBand>1</SourceBand>{nodata}"
        f"<ColorTableComponent>{component}</ColorTableComponent></ComplexSource>"
    )


def _alpha_sources(name: str | Path, dataset: Any) -> list[str]:
    """Return the sources of alpha: colours, nodata, mask band, alpha band; [] if every pixel is opaque."""
    transparent = dataset.nodata is not None or any(color[3] < 255 for color in dataset.colormap(1).values())
    sources = [_color_source(name, dataset, 4)] if transparent else []
    sources += [_source(name, "mask,1")] if has_mask_band(dataset) else []
    return sources + ([_source(name, "2")] if dataset.count == 2 else [])


def _alpha_band(number: int, sources: Sequence[str]) -> str:
    """Return an alpha band that is 0 where one of its sources is."""
    head = f'<VRTRasterBand dataType="Byte" band="{number}"'
    about = "<Description>alpha</Description><ColorInterp>Alpha</ColorInterp>"
    if len(sources) == 1:
        return f"{head}>{about}{sources[0]}</VRTRasterBand>"
    product = "<PixelFunctionType>mul</PixelFunctionType>"
    return f'{head} subClass="VRTDerivedRasterBand">{about}{product}{"".join(sources)}</VRTRasterBand>'


def _plain_band(name: str | Path, dataset: Any, i: int) -> str:
    kind, text, nodata = GDAL_TYPES[dataset.dtypes[i - 1]], band_texts(dataset)[i - 1], dataset.nodatavals[i - 1]
    about = "" if text is None else f"<Description>{escape(text)}</Description>"
    about += "" if nodata is None else f"<NoDataValue>{nodata:.17g}</NoDataValue>"
    return f'<VRTRasterBand dataType="{kind}" band="{i}">{about}{_source(name, str(i))}</VRTRasterBand>'
