"""Read folders of "Classified Tiles" that ArcGIS exported.

DIR/map.txt                       one line per chip: image, blank, label
DIR/esri_model_definition.emd     tile size, bands, classes
DIR/esri_accumulated_stats.json   pixels by class, band statistics
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from geopsp.chips.arcgis_files import read_json, read_map
from geopsp.chips.arcgis_write import MAP_FILE, MODE, MODEL_FILE, SUMS_FILE
from geopsp.chips.chip import SKIP_REASONS
from geopsp.chips.class_balance import ChipWarning
from geopsp.core.bands import BandStats
from geopsp.core.documents import DocumentError
from geopsp.core.grid import Grid
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.core.schema import StatisticsEntry, require_fit
from geopsp.core.text import format_count, format_error
from geopsp.errors import ChipError
from geopsp.raster.open import band_texts, open_chip
from geopsp.raster.valid_mask import alpha_band, valid_mask

READ_THREADS = 8
"""More than cores, as threads mostly wait for the disk."""


def read_arcgis_folder(folder: Path) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """Return the manifest and the index of a folder of "Classified Tiles", as an export of ours would have them.

    Label value 0, where nothing was drawn, is the class "background", unless the folder names it. Column and row are
    -1, as they are not known. Nothing is written.

    Raises:
        ChipError: if a file is missing or damaged, chips differ in size, bands or data type, or the format is another.
    """
    pairs, (model, sums) = read_map(folder), (read_json(folder / MODEL_FILE), read_json(folder / SUMS_FILE))
    mode = model.get("MetaDataMode") or sums.get("MetaDataMode")
    if mode != MODE:
        raise ChipError(f'{folder} was exported as {mode!r}, but must be {MODE!r}. Export it as "Classified Tiles".')
    legend = _legend(folder, model)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        chips = list(
            pool.map(_read_chip, [folder / image for image, _ in pairs], [folder / label for _, label in pairs])
        )
    _require_same_format(chips)
    if model.get("ImageSpaceUsed") == "PIXEL_SPACE":
        chips = [replace(chip, grid=replace(chip.grid, crs=None)) for chip in chips]
    index = _index(folder, pairs, chips, legend)
    return _manifest(folder, chips, index, legend, model, sums), index


@dataclass(frozen=True, slots=True, eq=False)
class _ChipInfo:
    """What the files of a chip contain."""

    path: Path
    grid: Grid
    """Its CRS is None if the chip has no georeference."""

    bands: tuple[str | None, ...]
    dtype: str
    valid: float
    counts: NDArray[np.int64]
    """(256,) valid pixels by code."""


def _legend(folder: Path, model: Mapping[str, Any]) -> Legend:
    """Return the classes of the model definition, with background added for value 0."""
    try:
        rows = {int(row["Value"]): row for row in model["Classes"]}
        names = {code: str(row.get("Name") or f"class {code}") for code, row in rows.items()}
        colors = {code: "#" + bytes(row["Color"][:3]).hex() for code, row in rows.items() if row.get("Color")}
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ChipError(f"{folder / MODEL_FILE} has no usable Classes ({error!r}). Export the folder again.") from error
    wrong = [code for code in names if not 0 <= code < IGNORE_INDEX]
    if not names:
        raise ChipError(f"{folder / MODEL_FILE} has no Classes. Export the folder again.")
    if wrong:
        raise ChipError(
            f"{folder / MODEL_FILE} has the class values {', '.join(map(str, wrong))}, but they must be from 0 to "
            f"{IGNORE_INDEX - 1}. Export the folder with other class values."
        )
    if len(set(names.values())) < len(names):
        raise ChipError(
            f"{folder / MODEL_FILE} has several classes of one name: {', '.join(names.values())}. Rename them and "
            "export the folder again."
        )
    return Legend.from_names({0: _unused_name(BACKGROUND, names)} | names, colors)


def _unused_name(name: str, names: Mapping[int, str]) -> str:
    """Return a name for value 0 that no class has; any name if the folder names value 0."""
    return name if 0 in names or name not in names.values() else f"{name} 0"


def _read_chip(image: Path, label: Path) -> _ChipInfo:
    try:
        with open_chip(image) as dataset:
            (grid, bands, dtype), valid = _header(dataset), _valid_mask(dataset)
        with open_chip(label) as dataset:
            codes = dataset.read(1)
    except (OSError, DocumentError) as error:
        raise ChipError(
            f"Cannot read the chip {image} or {label}: {format_error(error)}. Export or copy it again."
        ) from error
    if codes.shape != valid.shape:
        sizes = [f"{width} x {height}" for height, width in (codes.shape, valid.shape)]
        raise ChipError(f"{label} has {sizes[0]} pixels, but its image has {sizes[1]}. Export the folder again.")
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() > IGNORE_INDEX:
        raise ChipError(
            f"{label} has values from {codes.min()} to {codes.max()} ({codes.dtype}), but class values are whole "
            f"numbers from 0 to {IGNORE_INDEX - 1}. Export the folder with other class values."
        )
    counts = np.bincount(codes[valid], minlength=256).astype(np.int64)
    return _ChipInfo(image, grid, bands, dtype, float(valid.mean()), counts)


def _header(dataset: Any) -> tuple[Grid, tuple[str | None, ...], str]:
    """Return the grid, the band names and the data type of an image."""
    crs = None if dataset.transform.is_identity else dataset.crs
    indexes = _band_numbers(dataset)
    texts = band_texts(dataset)
    names = tuple(texts[i - 1] for i in indexes)
    return Grid(crs, dataset.transform, dataset.width, dataset.height), names, dataset.dtypes[indexes[0] - 1]


def _band_numbers(dataset: Any) -> list[int]:
    """Return the numbers of all bands but alpha."""
    alpha = alpha_band(dataset)
    return [i for i in dataset.indexes if i != alpha] or list(dataset.indexes)


def _valid_mask(dataset: Any) -> NDArray[np.bool_]:
    """Return (rows, cols) valid pixels; the image is read only if its header does not say that all are valid."""
    if dataset.dtypes[0].startswith("float") or any(
        flags != [MaskFlags.all_valid] for flags in dataset.mask_flag_enums
    ):
        indexes = _band_numbers(dataset)
        return valid_mask(dataset, dataset.read(indexes), indexes, Window(0, 0, dataset.width, dataset.height))
    return np.ones((dataset.height, dataset.width), bool)


def _require_same_format(chips: Sequence[_ChipInfo]) -> None:
    first = chips[0]
    for chip in chips:
        for words, ours, theirs in (
            ("size", *(f"{each.grid.width} x {each.grid.height} pixels" for each in (first, chip))),
            ("their number of bands", len(first.bands), len(chip.bands)),
            ("data type", first.dtype, chip.dtype),
        ):
            if ours != theirs:
                raise ChipError(
                    f"{first.path} and {chip.path} differ in {words}: {ours} and {theirs}. Export them with the same "
                    "options."
                )
    if first.grid.width != first.grid.height:
        raise ChipError(
            f"{first.path} has {first.grid.width} x {first.grid.height} pixels, but chips must be square. Export the "
            "folder again."
        )


def _index(
    folder: Path, pairs: Sequence[tuple[str, str]], chips: Sequence[_ChipInfo], legend: Legend
) -> gpd.GeoDataFrame:
    pixels = np.stack([chip.counts for chip in chips])
    labelled = pixels[:, legend.codes]
    columns = {
        "chip": [Path(os.path.relpath(image, "images")).as_posix() for image, _ in pairs],
        "label": [Path(os.path.relpath(label, "labels")).as_posix() for _, label in pairs],
        "source": str(folder),
        "col": -1,
        "row": -1,
        "angle": [_angle(chip.grid) for chip in chips],
        "valid": [chip.valid for chip in chips],
        "labelled": labelled.sum(axis=1) / (chips[0].grid.width * chips[0].grid.height),
        **{f"pixels_{code}": labelled[:, channel] for channel, code in enumerate(legend.codes)},
    }
    crs = next((chip.grid.crs for chip in chips if chip.grid.crs), None)
    return gpd.GeoDataFrame(columns, geometry=_footprints([chip.grid for chip in chips], crs), crs=crs)


def _angle(grid: Grid) -> float:
    """Return the rotation of a chip in degrees."""
    return float(np.degrees(np.arctan2(grid.transform.d, grid.transform.a))) if grid.transform.d else 0.0


def _footprints(grids: Sequence[Grid], crs: CRS | None) -> NDArray[np.object_]:
    """Return the outlines of all chips in one CRS; None for chips without georeference."""
    shapes = np.full(len(grids), None, object)
    for other in {grid.crs.to_wkt(): grid.crs for grid in grids if grid.crs}.values():
        has_crs = np.array([grid.crs == other for grid in grids])
        outlines = shapely.polygons([grid.corners() for grid in grids if grid.crs == other])
        shapes[has_crs] = gpd.GeoSeries(outlines, crs=other).to_crs(crs).to_numpy()
    return shapes


def _manifest(
    folder: Path,
    chips: Sequence[_ChipInfo],
    index: gpd.GeoDataFrame,
    legend: Legend,
    model: Mapping[str, Any],
    sums: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a folder, of its model definition and its accumulated statistics."""
    grid = next((chip.grid for chip in chips if chip.grid.crs), None)
    bands = _band_names(model, chips[0].bands)
    report = {
        "chips": len(chips),
        "skipped": dict.fromkeys(SKIP_REASONS, 0),
        "empty": int((index[[f"pixels_{code}" for code in legend.codes if code]].sum(axis=1) == 0).sum()),
        "conflict_pixels": 0,
        "polygons": {},
        "labels": {"source": f"{folder}, exported by ArcGIS", "priority": ""},
        "notes": [],
        "warnings": _warnings(chips, legend, sums, grid is None),
    }
    return {
        "version": 2,
        "chips": len(chips),
        "tile_size": chips[0].grid.width,
        "legend": legend.to_json(),
        "bands": bands,
        "dtype": chips[0].dtype,
        "cell_size": list(grid.cell_size) if grid else [1.0, 1.0],
        "units": ("degree" if grid.crs.is_geographic else grid.crs.linear_units) if grid else "pixel",
        "statistics": _statistics(folder, model, sums, len(bands), index).to_json(),
        "exports": [{"key": "", "options": {}, "sources": [], "report": report}],
    }


def _band_names(model: Mapping[str, Any], described: Sequence[str | None]) -> list[str]:
    """Return the band names of the model definition, else of the first chip; band_N where there are no unique names."""
    names = (model.get("InputRastersProps") or {}).get("BandNames") or []
    names = [str(name or "").strip() for name in (names if len(names) == len(described) else described)]
    unique = len({name.lower() for name in names}) == len(names)
    return [
        name if unique and name and not re.fullmatch(r"band[_ ]?\d+", name, re.IGNORECASE) else f"band_{number}"
        for number, name in enumerate(names, start=1)
    ]


def _statistics(
    folder: Path, model: Mapping[str, Any], sums: Mapping[str, Any], bands: int, index: gpd.GeoDataFrame
) -> BandStats:
    """Return the band statistics of the accumulated sums, else of the model definition."""
    try:
        if rows := sums.get("BandStatsState"):
            count = max(int(row["Num"]) for row in rows)
            spread = [(row["M1"], row["M2"] / max(row["Num"], 1) * count, row["Min"], row["Max"]) for row in rows]
        else:
            rows = model["AllTilesStats"]
            count = len(index) * int(model["ImageHeight"]) * int(model["ImageWidth"])
            spread = [(row["Mean"], row["StdDev"] ** 2 * count, row["Min"], row["Max"]) for row in rows]
        mean, m2, low, high = np.array(spread, float).T
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ChipError(f"{folder} has no usable band statistics ({error!r}). Export it again.") from error
    if len(mean) != bands:
        raise ChipError(
            f"{folder} has statistics of {format_count(len(mean), 'band')}, but chips of {format_count(bands, 'band')}."
            " Export it again."
        )
    stats = BandStats(count, mean, m2, low, high)
    try:
        require_fit(stats.to_json(), StatisticsEntry)
    except DocumentError as error:
        raise ChipError(f"{folder} has no usable band statistics: {error}. Export it again.") from error
    return stats


def _warnings(
    chips: Sequence[_ChipInfo], legend: Legend, sums: Mapping[str, Any], no_georeference: bool
) -> list[ChipWarning]:
    """Return warnings of what is inconsistent in the folder, but does not keep it from being used."""
    texts = []
    counted = sums.get("NumTiles") or sums.get("NumTilesAsDouble") or len(chips)
    if counted != len(chips):
        words = f"{counted:g}" if isinstance(counted, int | float) else repr(counted)
        texts.append(f"{SUMS_FILE} counts {words} chips, but {MAP_FILE} names {len(chips)}, which are used.")
    others = np.delete(np.sum([chip.counts for chip in chips], axis=0), [*legend.codes, IGNORE_INDEX]).sum()
    if others:
        texts.append(f"{others:,} label pixels have a value that is not a class; they are unlabelled.")
    if no_georeference:
        texts.append("The chips have no georeference, so they cannot be split by spatial blocks.")
    return [{"kind": "input", "text": text} for text in texts]
