"""Rasters of many kinds, each with what is in it, known from the arrays that were written."""

from __future__ import annotations

import html
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import scipy.io
import tifffile
from affine import Affine
from corpus.pairwise import Case, covering_array
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

HEIGHT, WIDTH = 56, 72

FACTORS = {
    "dtype": ("uint8", "uint16", "int16", "int32", "float32", "float64", "int8", "uint32"),
    "nodata": ("no-nodata", "0", "255", "-9999", "nan", "out-of-range"),
    "mask": ("no-mask", "internal", "msk", "alpha", "four-bytes"),
    "palette": ("no-palette", "palette"),
    "scale": ("unscaled", "scale", "scale+offset"),
    "crs": ("utm", "geographic", "lon360", "mercator", "feet", "no-crs", "rotated-pole", "compound"),
    "orientation": ("north-up", "south-up", "rotated", "gcps"),
    "bands": ("3", "1", "2", "4", "5"),
    "layout": ("pixel", "band"),
    "names": ("unnamed", "named"),
    "container": (
        "striped", "tiled", "cog", "png", "png+wld", "jpeg", "vrt", "subdirectory", "netcdf", "img", "jp2", "envi",
    ),
}  # fmt: skip

PALETTE = {0: (9, 9, 9), 1: (3, 40, 60), 2: (5, 41, 61), 3: (1, 42, 62), 4: (2, 43, 63), 5: (4, 44, 64)}
"""Red is 1 to 5, too, in another order, so that a map of red is not a map of the indices."""

SCALE, OFFSET = 2.0, -1.0

ROTATED_POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +type=crs"

PLACES = {
    "utm": ("EPSG:32632", 601230, 5301710, 10.0),
    "geographic": ("EPSG:4326", 10.25, 47.75, 1e-4),
    "lon360": ("EPSG:4326", 286.25, 40.75, 1e-4),
    "mercator": ("EPSG:3857", 1141000, 6058000, 10.0),
    "feet": ("EPSG:2263", 985000, 205000, 30.0),
    "no-crs": (None, 601230, 5301710, 10.0),
    "rotated-pole": (ROTATED_POLE, -8.25, -1.5, 1e-4),
    "compound": ("EPSG:32632+5773", 601230, 5301710, 10.0),
}
"""CRS, left, top, pixel size."""

DRIVERS = {
    "striped": "GTiff", "tiled": "GTiff", "subdirectory": "GTiff", "vrt": "GTiff", "cog": "COG", "png": "PNG",
    "png+wld": "PNG", "jpeg": "JPEG", "netcdf": "netCDF", "img": "HFA", "jp2": "JP2OpenJPEG", "envi": "ENVI",
}  # fmt: skip

ENDINGS = {"png": "png", "png+wld": "png", "jpeg": "jpg", "vrt": "vrt", "netcdf": "nc", "img": "img", "jp2": "jp2",
           "envi": "img"}  # fmt: skip

LIMITS: dict[str, dict[str, tuple[str, ...]]] = {
    "netcdf": {
        "bands": ("1",), "orientation": ("north-up",), "crs": ("utm", "geographic", "mercator", "lon360"),
        "dtype": ("int16", "int32", "float32", "float64"),
    },
    "png": {"dtype": ("uint8", "uint16"), "bands": ("1", "3"), "nodata": ("no-nodata", "0", "255")},
    "png+wld": {"dtype": ("uint8", "uint16"), "bands": ("1", "3"), "nodata": ("no-nodata",)},
    "jpeg": {"dtype": ("uint8",), "bands": ("1", "3"), "nodata": ("no-nodata",)},
    "jp2": {
        "dtype": ("uint8", "uint16", "int16"), "bands": ("1", "3"), "nodata": ("no-nodata",),
        "orientation": ("north-up", "gcps"),
    },
    "img": {"dtype": ("uint8", "uint16", "int16", "int32", "float32", "float64")},
    "envi": {
        "dtype": ("uint8", "uint16", "int16", "int32", "float32", "float64"), "orientation": ("north-up", "south-up"),
    },
}  # fmt: skip
"""What a container can hold; those that are no TIFF hold no mask, scale, names or points here."""

TIFFS = ("striped", "tiled", "cog", "vrt")


@dataclass(frozen=True)
class Reading:
    """One right way to read a raster."""

    data: NDArray[Any]
    """(bands, rows, cols)"""

    valid: NDArray[np.bool_]
    names: tuple[str, ...]
    said: str = ""
    """Pattern of what must be said of it; "": nothing."""


@dataclass(frozen=True)
class Raster:
    """A raster of the corpus."""

    path: str
    """As a user names it; of a subdataset with what stands before and behind the file."""

    crs: Any
    transform: Affine
    readings: tuple[Reading, ...]
    refusable: str = ""
    """Why it may be refused."""

    @property
    def bands(self) -> int:
        return len(self.readings[0].data)


def all_cases() -> list[Case]:
    """Return the cases: those that must work, in pairs of all their values, and those that may be refused."""
    plain = {name: values[:1] for name, values in FACTORS.items()}
    some = {"crs": FACTORS["crs"], "orientation": ("north-up", "gcps"), "container": FACTORS["container"]}
    return [
        *covering_array(FACTORS, lambda case: possible(case) and not lacks_place(case)),
        *covering_array(plain | some, lambda case: possible(case) and lacks_place(case))[1:],
    ]


def lacks_place(case: Case) -> bool:
    """Return True if nothing says where the pixels of a file are, in words that geopsp takes."""
    return case["crs"] == "no-crs" or case["orientation"] == "gcps" or case["container"] == "png+wld"


def possible(case: Case) -> bool:
    """Return True if such a file can be written."""
    dtype, nodata, mask, container = case["dtype"], case["nodata"], case["mask"], case["container"]
    integer = dtype.startswith(("int", "uint"))
    limits = LIMITS.get(container, {})
    is_tiff = container in TIFFS
    masks = ("no-mask", "alpha") if container == "png" else ("no-mask",)
    plain = case["scale"] == "unscaled" and case["names"] == "unnamed" and case["orientation"] != "gcps"
    return (
        all(case[name] in allowed for name, allowed in limits.items())
        and (is_tiff or (plain and mask in masks and case["layout"] == "pixel") or container == "subdirectory")
        and not (container == "subdirectory" and mask in {"internal", "msk"})
        and not (nodata == "nan" and integer)
        and not (nodata == "out-of-range" and (not integer or container not in {"striped", "tiled", "subdirectory"}))
        and not (nodata in {"255", "out-of-range"} and dtype == "int8")
        and not (case["crs"] == "rotated-pole" and container != "vrt")  # others have no words for it
        and not (nodata == "-9999" and dtype not in {"int16", "int32", "float32", "float64"})
        and not (mask == "alpha" and (dtype not in {"uint8", "uint16"} or case["bands"] == "5"))
        and not (mask == "four-bytes" and (dtype != "uint8" or case["bands"] != "4" or case["names"] == "named"))
        and not (mask == "msk" and container in {"cog", "vrt"})
        and not (case["orientation"] == "gcps" and case["crs"] in {"no-crs", "rotated-pole"})
        and (case["palette"] == "no-palette" or _may_have_palette(case))
    )


def _may_have_palette(case: Case) -> bool:
    return (
        case["dtype"] == "uint8"
        and case["bands"] == "1"
        and case["mask"] in {"no-mask", "internal", "msk"}
        and case["scale"] == "unscaled"
        and case["names"] == "unnamed"
        and case["container"] in {"striped", "tiled", "png", "vrt", "img", "subdirectory"}
    )


def write_raster(folder: Path, case: Case, stem: str = "image") -> Raster:
    """Write the raster of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _write(folder, case, stem)


def _write(folder: Path, case: Case, stem: str) -> Raster:
    crs, left, top, cell = PLACES[case["crs"]]
    transform = placed(left, top, cell, case["orientation"])
    data, valid = _pixels(case)
    container = case["container"]
    path = folder / f"{stem}.{ENDINGS.get(container, 'tif')}"
    first = path.with_suffix(".source.tif") if container == "vrt" else path
    if container == "netcdf":
        write_netcdf(path, data[0], crs, transform, case["nodata"])
    else:
        _write_file(first, case, data, None if crs == ROTATED_POLE else crs, transform)
    name = str(path)
    if container == "vrt":
        rasterio.shutil.copy(first, path, driver="VRT")
        if crs == ROTATED_POLE:
            text = path.read_text()
            wkt = html.escape(rasterio.CRS.from_user_input(crs).to_wkt(version="WKT2_2019"))
            path.write_text(text.replace("<GeoTransform>", f"<SRS>{wkt}</SRS><GeoTransform>", 1))
    elif container == "png+wld":
        path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
        t = transform
        corner = t @ (0.5, 0.5)
        lines = (t.a, t.d, t.b, t.e, *corner)
        path.with_suffix(".wld").write_text("\n".join(f"{number:.12f}" for number in lines))
    elif container == "subdirectory":
        name = f"GTIFF_DIR:2:{path}"
    elif container == "netcdf":
        name = f"netcdf:{path}:Band1" if case["dtype"] != "int16" else f'NETCDF:"{path}":Band1'
    with rasterio.open(name) as dataset:
        if container == "netcdf" and case["crs"] == "lon360":
            transform = dataset.transform  # GDAL takes such longitudes to -180 to 180 by itself
        decoded, found_crs = dataset.read(), dataset.crs
        names = _names(dataset)
        alphas = [colour == ColorInterp.alpha for colour in dataset.colorinterp]
        assert lacks_place(case) or dataset.transform.almost_equals(transform, 1e-6), "the file lies elsewhere"
        assert case["mask"] != "alpha" or alphas.index(True) == len(data), "the file has no alpha band"
    if container != "jpeg":
        assert (decoded[: len(data)][:, valid] == data[:, valid]).all(), "the file does not hold what was written"
    assert found_crs or lacks_place(case), "the file does not hold the CRS that was written"
    reason = _reason(case)
    return Raster(name, found_crs, transform, _readings(case, decoded[: len(data)], valid, names), reason)


def placed(left: float, top: float, cell: float, orientation: str) -> Affine:
    """Return the transform of a raster."""
    if orientation == "south-up":
        return Affine(cell, 0, left, 0, cell, top - HEIGHT * cell)
    if orientation == "rotated":
        return Affine.translation(left, top) @ Affine.rotation(30) @ Affine.scale(cell, -cell)
    return Affine(cell, 0, left, 0, -cell, top)


def _reason(case: Case) -> str:
    """Return why a raster may be refused; "" if it may not."""
    if case["crs"] == "no-crs" or case["container"] == "png+wld":
        return "no CRS"
    if case["crs"] == "rotated-pole":
        return "no GeoTIFF can hold the CRS"
    return "ground control points only" if case["orientation"] == "gcps" else ""


def _pixels(case: Case) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the data, and True where it is valid."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    count, dtype = int(case["bands"]), case["dtype"]
    bands = [1 + (rows // 7 + cols // 9) % 5, *(10 * band + (rows + cols) % 7 for band in range(1, count))]
    data = np.stack(bands).astype(dtype)
    valid = np.ones((HEIGHT, WIDTH), bool)
    if case["nodata"] in {"0", "255", "-9999", "nan"}:
        hole = np.s_[20:30, 40:50]
        data[:, *hole] = float(case["nodata"])
        valid[hole] = False
        if case["nodata"] == "0" and count > 1:
            data[1, 2, 3] = 0  # dark in one band alone
            valid[2, 3] = not dtype.startswith("float")
    if case["mask"] not in {"no-mask", "four-bytes"}:
        valid[36:44, 8:20] = False
    if case["mask"] == "four-bytes":
        data[3, 36:44, 8:20] = 0
    return data, valid


def mask_of(case: Case) -> NDArray[np.uint8]:
    shown = np.full((HEIGHT, WIDTH), 255, np.uint8)
    shown[36:44, 8:20] = 0
    return shown


def _write_file(path: Path, case: Case, data: NDArray[Any], crs: Any, transform: Affine) -> None:
    mask, container, nodata = case["mask"], case["container"], case["nodata"]
    profile: dict[str, Any] = {"driver": DRIVERS[container], "height": HEIGHT, "width": WIDTH, "dtype": data.dtype}
    layers = [data]
    if mask == "alpha":
        layers.append(mask_of(case)[None].astype(data.dtype))
    stack = np.concatenate(layers)
    profile |= {"count": len(stack), "crs": crs}
    if case["orientation"] == "gcps":
        corners = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]
        profile["gcps"] = [GroundControlPoint(row, col, *(transform @ (col, row))) for col, row in corners]
    else:
        profile["transform"] = transform
    if nodata not in {"no-nodata", "out-of-range"}:
        profile["nodata"] = float(nodata)
    profile |= _creation_options(case)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask == "internal"):
        if container == "subdirectory":
            with rasterio.open(path, "w", **profile) as dataset:
                dataset.write(np.full_like(stack, 7))
            profile["APPEND_SUBDATASET"] = "YES"
        elif container == "cog":
            with rasterio.MemoryFile() as memory:
                with memory.open(**profile | {"driver": "GTiff"}) as dataset:
                    _fill(dataset, case, stack)
                rasterio.shutil.copy(memory.name, path, driver="COG")
            return
        elif container in {"png", "png+wld", "jpeg", "jp2"}:
            with rasterio.MemoryFile() as memory:
                with memory.open(**profile | {"driver": "GTiff"}) as dataset:
                    _fill(dataset, case, stack)
                options = {"jpeg": {"QUALITY": 100}, "jp2": {"QUALITY": 100, "REVERSIBLE": "YES"}}
                rasterio.shutil.copy(memory.name, path, driver=DRIVERS[container], **options.get(container, {}))
            return
        with rasterio.open(path, "w", **profile) as dataset:
            _fill(dataset, case, stack)
    if nodata == "out-of-range":
        _declare_nodata(path, {"uint8": "300"}.get(data.dtype.name, "-1e12"), container)


def write_netcdf(path: Path, data: NDArray[Any], crs: str, transform: Affine, nodata: str = "no-nodata") -> None:
    """Write a north-up band as the variable Band1 of a netCDF file with two variables."""
    projected = rasterio.CRS.from_user_input(crs).is_projected
    names = ("y", "x") if projected else ("lat", "lon")
    standard = ("projection_y_coordinate", "projection_x_coordinate") if projected else ("latitude", "longitude")
    units = ("m", "m") if projected else ("degrees_north", "degrees_east")
    with scipy.io.netcdf_file(path, "w") as file:
        file.Conventions = "CF-1.8"
        for axis, (name, size) in enumerate(zip(names, data.shape, strict=True)):
            file.createDimension(name, size)
            variable = file.createVariable(name, "f8", (name,))
            steps = np.arange(size) + 0.5
            variable[:] = transform.f + transform.e * steps if axis == 0 else transform.c + transform.a * steps
            variable.standard_name, variable.units = standard[axis], units[axis]
        grid = file.createVariable("crs", "i4", ())
        grid.spatial_ref = rasterio.CRS.from_user_input(crs).to_wkt()
        grid.GeoTransform = " ".join(map(str, transform.to_gdal()))
        grid.grid_mapping_name = "transverse_mercator" if projected else "latitude_longitude"
        for name, values in (("Band1", data), ("other", np.full_like(data, 7))):
            variable = file.createVariable(name, data.dtype.str[1:], names)
            variable.grid_mapping = "crs"
            if nodata != "no-nodata":
                variable._FillValue = np.array(float(nodata), data.dtype)
            variable[:] = values


def _creation_options(case: Case) -> dict[str, Any]:
    if DRIVERS[case["container"]] not in {"GTiff", "COG"}:
        return {"photometric": "RGB"} if case["bands"] == "3" and case["container"] == "jpeg" else {}
    options: dict[str, Any] = {"interleave": case["layout"]}
    if case["container"] == "tiled":
        options |= {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"}
    if case["mask"] == "alpha":
        options["alpha"] = "YES"
    elif case["bands"] == "4" and case["mask"] != "four-bytes":
        options["photometric"] = "MINISBLACK"
    return options


def _fill(dataset: Any, case: Case, stack: NDArray[Any]) -> None:
    if case["palette"] == "palette":
        dataset.write_colormap(1, {index: (*color, 255) for index, color in PALETTE.items()})
    count = int(case["bands"])
    if case["mask"] == "alpha":
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
        dataset.colorinterp = [*(colours[:count] if count > 2 else [ColorInterp.gray, ColorInterp.undefined][:count]),
                               ColorInterp.alpha]  # fmt: skip
    dataset.write(stack)
    if case["names"] == "named":
        for band in range(1, count + 1):
            dataset.set_band_description(band, f"b{band}")
    if case["mask"] in {"internal", "msk"}:
        dataset.write_mask(mask_of(case))
    if case["scale"] != "unscaled":
        dataset.scales = [SCALE] * dataset.count
        dataset.offsets = [OFFSET if "offset" in case["scale"] else 0.0] * dataset.count


def _declare_nodata(path: Path, value: str, container: str) -> None:
    """Write a nodata value that rasterio refuses to write."""
    with tifffile.TiffFile(path) as file:
        has_tag = ["GDAL_NODATA" in page.tags for page in file.pages]
    assert not any(has_tag)
    with rasterio.open(path if container != "subdirectory" else f"GTIFF_DIR:2:{path}", "r+") as dataset:
        dataset.nodata = 1
    with tifffile.TiffFile(path, mode="r+") as file:
        for page in file.pages:
            if "GDAL_NODATA" in page.tags:
                page.tags["GDAL_NODATA"].overwrite(value)


def _names(dataset: Any) -> tuple[str, ...]:
    """Return descriptions, else colours, else numbers as names of the bands but alpha."""
    colours = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}
    found = zip(dataset.descriptions, dataset.colorinterp, strict=True)
    return tuple(
        text or colours.get(colour, f"band_{number}")
        for number, (text, colour) in enumerate(found, 1)
        if colour != ColorInterp.alpha or dataset.count == 4
    )


def _readings(case: Case, data: NDArray[Any], valid: NDArray[np.bool_], names: tuple[str, ...]) -> tuple[Reading, ...]:
    count = int(case["bands"])
    if case["palette"] == "palette":
        table = np.array([PALETTE.get(index, (0, 0, 0)) for index in range(256)])
        return (Reading(np.moveaxis(table[data[0]], -1, 0), valid, ("red", "green", "blue")),)
    plain = Reading(data, valid, names[:count])
    if case["mask"] == "four-bytes":
        guessed = Reading(data[:3], valid & (data[3] > 0), names[:3], said="alpha")
        return (Reading(data, valid, names[:4]), guessed)
    if case["scale"] == "unscaled":
        return (plain,)
    scaled = data.astype(float) * SCALE + (OFFSET if "offset" in case["scale"] else 0)
    return Reading(data, valid, plain.names, said="scale"), Reading(scaled, valid, plain.names)
