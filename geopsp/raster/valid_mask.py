"""Valid pixels of a raster, from nodata values, NaN, mask band and alpha band; also through a warp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving
from rasterio.windows import Window as RioWindow

from geopsp.raster.image_vrt import has_mask_band
from geopsp.raster.open import GDAL_ERRORS, band_texts


def valid_mask(dataset: Any, data: NDArray[Any], indexes: Sequence[int], area: RioWindow) -> NDArray[np.bool_]:
    """Return the (rows, cols) valid mask: no band is NaN or nodata, and neither mask band nor alpha is 0.

    A nodata value of 0 in integer data counts only where all bands are 0; in one band alone it is a dark pixel.
    """
    nodatas = [dataset.nodatavals[i - 1] for i in indexes]
    valid = valid_mask_but_zero(dataset, data, indexes, area, nodatas=nodatas)
    return valid & data.any(axis=0) if zero_is_nodata(data.dtype, nodatas) else valid


def valid_mask_but_zero(
    dataset: Any,
    data: NDArray[Any],
    indexes: Sequence[int],
    area: RioWindow,
    *,
    nodatas: Sequence[float | None],
    not_alpha: Sequence[int] = (),
) -> NDArray[np.bool_]:
    """Return the valid mask as `valid_mask`, but without the rule for a nodata value of 0 in integer data.

    That rule needs the other files of the image, too: see `zero_is_nodata`.

    Args:
        dataset: An open raster.
        data: Its pixels in the area, (bands, rows, cols).
        indexes: Band numbers of `data`, from 1.
        area: The window that `data` was read from.
        nodatas: Nodata values of the bands.
        not_alpha: Band numbers to read as data although the file marks them as alpha.
    """
    valid = np.ones(data.shape[1:], bool)
    alpha = alpha_band(dataset)
    if alpha is not None and alpha not in not_alpha:
        valid &= dataset.read(alpha, window=area) > 0
    if has_mask_band(dataset):
        valid &= dataset.read_masks(indexes[0], window=area) > 0
    if data.dtype.kind == "f":
        valid &= np.isfinite(data).all(axis=0)
    for band, value in zip(data, nodatas, strict=True):
        if value is not None and not zero_is_nodata(data.dtype, [value]):
            valid &= band != value
    return valid


def zero_is_nodata(dtype: np.dtype[Any] | str, nodatas: Sequence[float | None]) -> bool:
    """Return True if a pixel that is 0 in all bands is nodata: integers, with 0 as a band's nodata value."""
    return np.dtype(dtype).kind in "iu" and 0 in nodatas


def warp_options(dataset: Any, dtype: str, nodata: float | None, not_alpha: Sequence[int] = ()) -> dict[str, Any]:
    """Return the options of WarpedVRT that keep the valid mask: alpha if the file has it or a mask, else nodata or NaN.

    Args:
        dataset: An open raster.
        dtype: Its data type.
        nodata: The nodata value that the bands to be read share.
        not_alpha: As in `valid_mask_but_zero`.
    """
    alpha = alpha_band(dataset)
    if alpha is not None and alpha not in not_alpha:
        return {} if nodata is None else _nodata_options(dtype, nodata)
    if ColorInterp.alpha in dataset.colorinterp:  # a data band: read no alpha (-1); pixels of 0 in all bands are nodata
        return {"src_alpha": -1} | _nodata_options(dtype, nodata or 0)
    if has_mask_band(dataset) or (nodata is None and not dtype.startswith("float")):
        return {"add_alpha": True, "src_nodata": None}
    return _nodata_options(dtype, np.nan if nodata is None else nodata)


def _nodata_options(dtype: str, nodata: float) -> dict[str, Any]:
    """Exclude nodata per band; by default GDAL mixes it into pixels where only some bands are nodata."""
    unified = "YES" if zero_is_nodata(dtype, [nodata]) else "NO"
    return {"src_nodata": nodata, "nodata": nodata, "UNIFIED_SRC_NODATA": unified}


def alpha_band(dataset: Any) -> int | None:
    """Return the number of the alpha band, from 1; None if there is none.

    GDAL marks the last of four uint8 bands as alpha, too; if it has another description, it is none. See also
    `looks_like_alpha`.
    """
    for index, kind, text in zip(dataset.indexes, dataset.colorinterp, band_texts(dataset), strict=True):
        if kind == ColorInterp.alpha and (not text or "alpha" in text.lower()):
            return int(index)
    return None


SAMPLE_SIDE, NUM_SAMPLES = 64, 16
"""Side in pixels, and number, of the windows in which a band's values are looked at."""


def looks_like_alpha(dataset: Any, band: int) -> bool:
    """Return False if a band that is marked as alpha holds other values than an alpha band does.

    Of the pixels above 0 in some windows, at least half must be opaque, 255; in an infrared band few are.
    """
    opaque = above = 0
    for n in range(NUM_SAMPLES):
        col = int(dataset.width * ((0.5 + n * 0.7548776662466927) % 1))
        row = int(dataset.height * ((0.5 + n * 0.5698402909980532) % 1))
        window = RioWindow(col, row, min(SAMPLE_SIDE, dataset.width - col), min(SAMPLE_SIDE, dataset.height - row))
        try:
            pixels = dataset.read(band, window=window)
        except GDAL_ERRORS:  # whoever needs these pixels will say so
            continue
        opaque += int(np.count_nonzero(pixels == 255))
        above += int(np.count_nonzero(pixels))
    return 2 * opaque >= above


def find_sparse_bands(dataset: Any, indexes: Sequence[int]) -> tuple[int, ...]:
    """Return the band numbers of a TIFF whose missing blocks mean nodata or alpha 0; () if there are none.

    `indexes` are the numbers of the bands that hold data.
    """
    alpha = alpha_band(dataset)
    if dataset.driver != "GTiff":
        return ()
    if any(dataset.nodatavals[i - 1] is None for i in indexes):
        return (alpha,) if alpha and alpha not in indexes else ()
    return tuple(indexes[:1] if dataset.interleaving == Interleaving.pixel else indexes)


def block_is_missing(dataset: Any, bands: Sequence[int], block: tuple[int, int], area: RioWindow) -> bool:
    """Return True if a TIFF stores no block of these bands in the area; `block` is the (rows, cols) of a block."""
    rows = range(area.row_off // block[0], -(-(area.row_off + area.height) // block[0]))
    cols = range(area.col_off // block[1], -(-(area.col_off + area.width) // block[1]))
    return all(
        dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is None
        for band in bands
        for row in rows
        for col in cols
    )
