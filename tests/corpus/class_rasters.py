"""Rasters of class codes as other programs write them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from corpus.pairwise import Case, covering_array
from corpus.rasters import write_netcdf
from numpy.typing import NDArray

HEIGHT, WIDTH = 56, 72

CRS, TRANSFORM = "EPSG:32632", Affine(10, 0, 601230, 0, -10, 5301710)

FACTORS = {
    "codes": (
        "1-3", "0-2", "0/1", "0/255", "1/2/255", "sparse", "thousands", "negative", "one", "none", "fractions",
        "254", "0/1/255-rare",
    ),
    "nodata": ("no-nodata", "0", "255", "-9999", "nan", "common"),
    "dtype": ("uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"),
    "palette": ("no-palette", "palette"),
    "mask": ("no-mask", "internal", "alpha"),
    "container": ("tif", "cog", "png", "vrt", "img", "netcdf", "subdirectory", "asc"),
    "grid": ("same", "finer", "half-pixel", "wgs84"),
}  # fmt: skip

VALUES: dict[str, tuple[float, ...]] = {
    "1-3": (1, 2, 3), "0-2": (0, 1, 2), "0/1": (0, 1), "0/255": (0, 255), "1/2/255": (1, 2, 255),
    "sparse": (5, 100, 126), "thousands": (1000, 2000, 3000), "negative": (-1, 1, 2), "one": (4,), "none": (),
    "fractions": (1, 1.5, 2), "254": (1, 2, 254), "0/1/255-rare": (0, 1, 255),
}  # fmt: skip


@dataclass(frozen=True)
class ClassRaster:
    """A class raster of the corpus."""

    path: str
    values: NDArray[Any]
    """(rows, cols) as written."""

    valid: NDArray[np.bool_]

    @property
    def distinct(self) -> list[float]:
        """The values of valid pixels."""
        return np.unique(self.values[self.valid]).tolist()


def possible(case: Case) -> bool:
    """Return True if such a file can be written."""
    codes, dtype, nodata, container = case["codes"], case["dtype"], case["nodata"], case["container"]
    integer = dtype.startswith(("int", "uint"))
    values = VALUES[codes]
    largest, least = max(values, default=0), min(values, default=0)
    limit = {"uint8": 255, "int8": 127}.get(dtype, 2**15 - 1)
    tiff = container in {"tif", "cog", "vrt"}
    return (
        largest <= limit
        and not (least < 0 and dtype.startswith("uint"))
        and not (codes == "fractions" and integer)
        and not (nodata == "nan" and integer)
        and not (nodata == "255" and (dtype == "int8"))
        and not (nodata == "-9999" and dtype not in {"int16", "int32", "float32", "float64"})
        and not (codes == "none" and nodata in {"no-nodata", "common"})
        and not (case["palette"] == "palette" and (dtype != "uint8" or container in {"netcdf", "asc"}))
        and not (case["palette"] == "palette" and case["mask"] == "alpha")
        and not (case["mask"] != "no-mask" and not tiff)
        and not (case["mask"] == "alpha" and dtype not in {"uint8", "uint16"})
        and not (container == "png" and dtype not in {"uint8", "uint16"})
        and not (container == "asc" and dtype not in {"int32", "float32"})
        and not (container == "netcdf" and dtype not in {"int16", "int32", "float32", "float64"})
        and not (container == "img" and dtype == "int8")
        and not (container == "asc" and nodata == "nan")
    )


def all_cases() -> list[Case]:
    return covering_array(FACTORS, possible)


def write_class_raster(folder: Path, case: Case, stem: str = "classes") -> ClassRaster:
    """Write the class raster of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _write(folder, case, stem)


def _write(folder: Path, case: Case, stem: str) -> ClassRaster:
    values, nodata = _values(case)
    container, mask = case["container"], case["mask"]
    valid = ~_equal(values, nodata)
    shown = np.full(values.shape, 255, np.uint8)
    if mask != "no-mask":
        shown[36:44, 8:20] = 0
        valid &= shown > 0
    endings = {"cog": "tif", "subdirectory": "tif", "netcdf": "nc"}
    path = folder / f"{stem}.{endings.get(container, container)}"
    if container == "netcdf":
        write_netcdf(path, values, CRS, TRANSFORM, "no-nodata" if nodata is None else str(nodata))
        return ClassRaster(f"netcdf:{path}:Band1", values, valid)
    source = path if container in {"tif", "subdirectory"} else folder / f"{stem}.source"
    profile = {
        "driver": "GTiff", "height": HEIGHT, "width": WIDTH, "dtype": values.dtype, "crs": CRS, "nodata": nodata,
        "transform": TRANSFORM, "count": 2 if mask == "alpha" else 1,
    }  # fmt: skip
    if mask == "alpha":
        profile["alpha"] = "YES"
    if container == "subdirectory":
        with rasterio.open(source, "w", **profile) as dataset:
            dataset.write(np.full_like(values, 9), 1)
        profile["APPEND_SUBDATASET"] = "YES"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "w", **profile) as dataset:
        if case["palette"] == "palette":
            dataset.write_colormap(1, {code: (code, 255 - code, 40, 255) for code in range(256)})
        dataset.write(values, 1)
        if mask == "alpha":
            dataset.write(shown.astype(values.dtype), 2)
        if mask == "internal":
            dataset.write_mask(shown)
    if source != path:
        drivers = {"cog": "COG", "png": "PNG", "vrt": "VRT", "img": "HFA", "asc": "AAIGrid"}
        rasterio.shutil.copy(source, path, driver=drivers[container])
        if container != "vrt":
            source.unlink()
    name = f"GTIFF_DIR:2:{path}" if container == "subdirectory" else str(path)
    return ClassRaster(name, values, valid)


def _values(case: Case) -> tuple[NDArray[Any], float | None]:
    """Return the pixels, and the nodata value."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    codes = np.array(VALUES[case["codes"]] or (0,), float)
    values = codes[(rows // 11 + cols // 13) % len(codes)]
    if case["codes"] == "0/1/255-rare":
        values = np.where((rows // 11 + cols // 13) % 2, 1.0, 0.0)
        values[:2, :3] = 255
    nodata = {"no-nodata": None, "common": codes[0]}.get(case["nodata"], 0.0)
    if case["nodata"] in {"0", "255", "-9999", "nan"}:
        nodata = float(case["nodata"])
        values[20:30, 40:50] = nodata
    if case["codes"] == "none":
        values[:] = nodata
    dtype = np.dtype(case["dtype"])
    return values.astype(dtype), nodata if nodata is None or dtype.kind == "f" else int(nodata)


def _equal(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    if nodata is None:
        return np.zeros(values.shape, bool)
    return np.isnan(values) if np.isnan(nodata) else np.asarray(values == nodata)
