"""Which pixels of a raster show ground: by nodata, NaN, mask band and alpha, also through a warp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.windows import Window as RioWindow


def valid_mask(dataset: Any, data: NDArray[Any], indexes: Sequence[int], area: RioWindow) -> NDArray[np.bool_]:
    """True where no band is NaN or nodata, and the mask band and alpha say seen.

    A nodata value of 0 in whole numbers counts only where all bands are 0: in one band alone it is a dark pixel.
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
    shown: Sequence[int] = (),
) -> NDArray[np.bool_]:
    """As `validity`, but for a nodata value of 0 in whole numbers, which other files of an image have a say in.

    Args:
        dataset: An open raster.
        data: (bands, rows, cols) its pixels in the area.
        indexes: The bands' numbers, from 1.
        area: Where they were read.
        nodatas: The bands' nodata values.
        shown: Numbers of bands that are no alpha even if marked so.
    """
    valid = np.ones(data.shape[1:], bool)
    alpha = alpha_band(dataset)
    if alpha is not None and alpha not in shown:
        valid &= dataset.read(alpha, window=area) > 0
    elif _has_mask(dataset):
        valid &= dataset.read_masks(indexes[0], window=area) > 0
    if data.dtype.kind == "f":
        valid &= np.isfinite(data).all(axis=0)
    for band, value in zip(data, nodatas, strict=True):
        if value is not None and not zero_is_nodata(data.dtype, [value]):
            valid &= band != value
    return valid


def zero_is_nodata(dtype: np.dtype[Any] | str, nodatas: Sequence[float | None]) -> bool:
    """True if 0 in all bands means that nothing was seen: whole numbers, with 0 as a band's nodata value."""
    return np.dtype(dtype).kind in "iu" and 0 in nodatas


def _has_mask(dataset: Any) -> bool:
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def warped_validity(dataset: Any, dtype: str, nodata: float | None, shown: Sequence[int] = ()) -> dict[str, Any]:
    """How a warp carries validity along: by alpha if the file has it or a mask, else by nodata; NaN in floats.

    Args:
        dataset: An open raster.
        dtype: Of its pixels.
        nodata: The value that the bands to be read share.
        shown: As in `seen`.
    """
    alpha = alpha_band(dataset)
    if alpha is not None and alpha not in shown:
        return {} if nodata is None else _warped_nodata(dtype, nodata)
    if ColorInterp.alpha in dataset.colorinterp:  # not meant so: no alpha is read (-1), and nothing is where all is 0
        return {"src_alpha": -1} | _warped_nodata(dtype, nodata or 0)
    if _has_mask(dataset) or (nodata is None and not dtype.startswith("float")):
        return {"add_alpha": True, "src_nodata": None}
    return _warped_nodata(dtype, np.nan if nodata is None else nodata)


def _warped_nodata(dtype: str, nodata: float) -> dict[str, Any]:
    """Left out band by band: unless told, GDAL mixes a nodata value in where not all bands have it."""
    unified = "YES" if zero_is_nodata(dtype, [nodata]) else "NO"
    return {"src_nodata": nodata, "nodata": nodata, "UNIFIED_SRC_NODATA": unified}


def alpha_band(dataset: Any) -> int | None:
    """The number of the alpha band, from 1; GDAL marks the fourth of four byte bands so, even a described one."""
    for index, kind, text in zip(dataset.indexes, dataset.colorinterp, dataset.descriptions, strict=True):
        if kind == ColorInterp.alpha and (not text or "alpha" in text.lower()):
            return int(index)
    return None


def find_sparse_bands(dataset: Any, indexes: Sequence[int]) -> tuple[int, ...]:
    """The bands of a TIFF of which a block that the file does not hold shows nodata, or alpha 0; () if none does."""
    alpha = alpha_band(dataset)
    if dataset.driver != "GTiff":
        return ()
    if any(dataset.nodatavals[i - 1] is None for i in indexes):
        return (alpha,) if alpha else ()
    return tuple(indexes[:1] if dataset.interleaving == Interleaving.pixel else indexes)


def block_is_missing(dataset: Any, bands: Sequence[int], block: tuple[int, int], area: RioWindow) -> bool:
    """True if a TIFF has no block of (rows, cols) `block` in the area, in any of the bands."""
    rows = range(area.row_off // block[0], -(-(area.row_off + area.height) // block[0]))
    cols = range(area.col_off // block[1], -(-(area.col_off + area.width) // block[1]))
    return all(
        dataset.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is None
        for band in bands
        for row in rows
        for col in cols
    )
